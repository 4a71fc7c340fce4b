"""Channel -> volume: the one place that knows which reader a stored form has, and what the catalog says beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

from emcatalog.entries.volume import ChannelModel
from emcatalog.errors import MissingExtraError, SourceChangedError, SourceError
from emcatalog.formats import demo
from emcatalog.formats.documents import Documents
from emcatalog.formats.volume import ArraySpec, Volume, VolumeSpec
from emcatalog.geometry import Zyx, reverse, zyx
from emcatalog.locations import STORED_AXES, apply_mirrors
from emcatalog.lock import Lock, LockedDocument, read_lock
from emcatalog.settings import Settings
from emcatalog.stores import Store, make_store


class Reader(Protocol):
    """One stored form, its metadata read."""

    @property
    def scales(self) -> tuple[ArraySpec, ...]:
        """Finest first, in the order (z, y, x) of the stored axes, with the lengths that the source tells."""

    def open_scale(self, index: int) -> Volume:
        """Open one of the scales.

        Raises:
            SourceError: it cannot be opened.
        """


def _precomputed(_model: ChannelModel, documents: Documents) -> Reader:
    from emcatalog.formats.precomputed import read_precomputed

    return read_precomputed(documents)


def _n5(model: ChannelModel, documents: Documents) -> Reader:
    from emcatalog.formats.n5 import read_n5

    return read_n5(documents, model)


def _zarr(model: ChannelModel, documents: Documents) -> Reader:
    from emcatalog.formats.zarr import read_zarr

    return read_zarr(documents, model)


def _stack(model: ChannelModel, documents: Documents) -> Reader:
    try:
        from emcatalog.formats.stack import read_stack
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{documents.location} is a stack of images, which tifffile, imagecodecs and isal read:"
            " pip install 'emcatalog[stacks]'"
        ) from error
    return read_stack(documents, model)


_READERS: Final[dict[str, Callable[[ChannelModel, Documents], Reader]]] = {
    "precomputed": _precomputed,
    "n5": _n5,
    "zarr": _zarr,
    "tiff": _stack,
    "png": _stack,
}
"""By stored form. Imported when needed: some of their libraries are extras."""


def describe_volume(model: ChannelModel, settings: Settings, keep: Store | None = None) -> VolumeSpec:
    """Ask the source for its metadata.

    Args:
        model: what the catalog says of the volume.
        settings: mirrors, retries, the lock file.
        keep: where files may be kept that can only be read whole.

    Raises:
        SourceError: it is not there, or not what it should be.
    """
    return VolumeSpec(model.url, _described(model, _read(model, _documents(model, settings, keep))))


def open_volume(model: ChannelModel, known: ArraySpec, settings: Settings, keep: Store | None = None) -> Volume:
    """Open one scale for reading, after asking the source whether it still is what the mirror was begun from.

    The question also keeps a source that moved away, whose chunks are all "not there", from being kept as background.

    Args:
        model: what the catalog says of the volume.
        known: the scale, as it was described before.
        settings: mirrors, retries, the lock file.
        keep: where files may be kept that can only be read whole.

    Raises:
        SourceChangedError: it is not.
        SourceError: it is not there, or cannot be opened.
    """
    reader = _read(model, _documents(model, settings, keep))
    described = _described(model, reader)
    index = next((i for i, scale in enumerate(described) if scale.key == known.key), None)
    if index is None or described[index] != known:
        found = None if index is None else described[index]
        raise SourceChangedError(
            f"{model.url}, scale {known.key}, is no longer what its mirror was begun from: {known} became {found};"
            " remove the mirror with `emcatalog cache rm` and ask again"
        )
    with _hint(model):
        volume = reader.open_scale(index)
    if model.axes != STORED_AXES:
        volume = volume.reordered(_order(model.axes))
    return replace(volume, spec=known).labelled()


def read_label_names(model: ChannelModel, settings: Settings) -> dict[int, str]:
    """What the source calls its labels, by number; empty where it does not say.

    Raises:
        SourceError: it cannot be read.
    """
    if model.location.format != "precomputed":
        return {}
    from emcatalog.formats.label_names import read_names

    with _hint(model):
        return read_names(_documents(model, settings, None))


def inspect_volume(model: ChannelModel, settings: Settings) -> tuple[VolumeSpec, dict[str, LockedDocument]]:
    """What a source says of itself, and its metadata documents as they are now, whatever the lock file says of them.

    Raises:
        SourceError: the source cannot be read.
    """
    documents = replace(_documents(model, settings, None), lock=Lock())
    found = VolumeSpec(model.url, _described(model, _read(model, documents)))
    today = datetime.now(UTC).date().isoformat()
    return found, {
        address: LockedDocument(sha256=document.sha256, generation=document.generation, locked=today)
        for address, document in documents.seen.items()
    }


def _documents(model: ChannelModel, settings: Settings, keep: Store | None) -> Documents:
    url = apply_mirrors(model.location.base, settings.mirrors)
    if url.startswith("demo://"):
        url = demo.local_url(url)
    store = make_store(url, model.storage_options, settings.retries)
    return Documents(model.location, store, read_lock(Path(settings.lock)), keep)


def _read(model: ChannelModel, documents: Documents) -> Reader:
    with _hint(model):
        return _READERS[model.location.format](model, documents)


@contextmanager
def _hint(model: ChannelModel) -> Iterator[None]:
    """Where an address is a guess, its failure says so before anything else."""
    try:
        yield
    except SourceError as error:
        if model.unconfirmed is None:
            raise
        raise type(error)(f"{model.url} is not confirmed: {model.unconfirmed} ({error})") from error


def _described(model: ChannelModel, reader: Reader) -> tuple[ArraySpec, ...]:
    """The scales in space: axes put in order, lengths in the catalog's space where it says so."""
    scales = tuple(scale.reordered(_order(model.axes)) for scale in reader.scales)
    if model.voxel_size_from == "source":
        return scales
    pairs = zip(reverse(model.voxel_size), scales[0].grid.voxel_size_nm, strict=True)
    z, y, x = (declared / stored for declared, stored in pairs)
    return tuple(scale.with_voxel_size((z, y, x)) for scale in scales)


def _order(axes: str) -> Zyx:
    """Which of the stored axes (0 is z) are z, y and x in space: ``yxz`` says that the stored x is y in space."""
    stored = dict(zip(axes, STORED_AXES, strict=True))
    return zyx(["zyx".index(stored[axis]) for axis in "zyx"])
