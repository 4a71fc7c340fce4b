"""Location -> volume: the one place that knows which reader a stored form has."""

from __future__ import annotations

from emcatalog.errors import SourceChangedError
from emcatalog.formats import demo, precomputed
from emcatalog.formats.volume import ArraySpec, Volume, VolumeSpec
from emcatalog.locations import Location, StorageOptions, apply_mirrors
from emcatalog.settings import Settings
from emcatalog.stores import Store, make_store


def describe_volume(location: Location, settings: Settings, options: StorageOptions) -> VolumeSpec:
    """Ask the source for its metadata.

    Raises:
        SourceError: it is not there, or not what it should be.
    """
    store = _store(location, settings, options)
    return precomputed.describe(location, precomputed.read_info(location, store))


def open_volume(location: Location, known: ArraySpec, settings: Settings, options: StorageOptions) -> Volume:
    """Open one scale for reading, after asking the source whether it still is what the mirror was begun from.

    The question also keeps a source that moved away, whose chunks are all "not there", from being kept as background.

    Raises:
        SourceChangedError: it is not.
        SourceError: it is not there, or cannot be opened.
    """
    store = _store(location, settings, options)
    info = precomputed.read_info(location, store)
    found = {scale.key: scale for scale in precomputed.describe(location, info).scales}.get(known.key)
    if found != known:
        raise SourceChangedError(
            f"{location}, scale {known.key}, is no longer what its mirror was begun from: {known} became {found};"
            " remove the mirror with `emcatalog cache rm` and ask again"
        )
    return precomputed.open_scale(location, info, known, store)


def _store(location: Location, settings: Settings, options: StorageOptions) -> Store:
    url = apply_mirrors(location.url, settings.mirrors)
    if url.startswith("demo://"):
        url = demo.local_url(url)
    return make_store(url, options, settings.retries)
