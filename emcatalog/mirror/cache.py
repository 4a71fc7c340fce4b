"""The cache as a whole: a folder or an object-store URL whose layout mirrors the sources."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import tensorstore as ts
from pydantic import TypeAdapter

from emcatalog import ome
from emcatalog.errors import CacheCorruptError, SettingsError
from emcatalog.formats.volume import ArraySpec, VolumeSpec
from emcatalog.locations import Location, StorageOptions, folder_name
from emcatalog.mirror.array import ARRAY, MirrorArray, cache_errors, open_array
from emcatalog.settings import Settings
from emcatalog.stores import Store, make_store

VOLUME_FILE: Final = "emcatalog.json"
"""Beside the scales of a volume: its description, so that the mirror is opened without a request."""

NAMES_FILE: Final = "label-names.json"
"""Beside it, once somebody asked: what the source calls its labels, by number."""

KEPT: Final = "kept-files"
"""Beside the scales: the source's own files, where it has some that can only be read whole."""

_INDEX_CACHE_BYTES: Final = 16 << 20
"""Shard indexes of the mirror, for random patches."""


_NAMES: Final = TypeAdapter(dict[int, str])

Parsed = TypeVar("Parsed")

_WRITABLE: Final = ("file:///", "s3://", "gs://")


@dataclass(frozen=True, slots=True)
class Cache:
    """Where mirrors lie."""

    url: str
    """Folder or URL, for messages."""
    store: Store
    """The same, for TensorStore."""

    @classmethod
    def at(cls, settings: Settings) -> Cache:
        """The cache that the settings name; nothing is touched yet.

        Raises:
            SettingsError: a URL that no store has.
        """
        url = settings.cache if "://" in settings.cache else f"file://{Path(settings.cache).expanduser().resolve()}"
        if not url.startswith(_WRITABLE):
            raise SettingsError(
                f"the cache cannot be at {url} (EMCATALOG_CACHE or cache_dir); use a folder, s3:// or gs://"
            )
        here = make_store(url, StorageOptions(anonymous=False), settings.retries)
        context = ts.Context({"cache_pool": {"total_bytes_limit": _INDEX_CACHE_BYTES}}, parent=here.context)
        return cls(url.removeprefix("file://"), Store(here.kvstore, context))

    def volume(self, location: Location) -> VolumeSpec | None:
        """The description of a volume as it was when its mirror was begun, or None where there is no mirror.

        Raises:
            CacheCorruptError: the file is there and is not a description.
        """
        return self._read(location, VOLUME_FILE, VolumeSpec.from_json)

    def keep_volume(self, location: Location, spec: VolumeSpec) -> None:
        """Write the description of a volume.

        Raises:
            CacheError: the cache cannot be written.
        """
        self._write(location, VOLUME_FILE, spec.to_json())

    def label_names(self, location: Location) -> dict[int, str] | None:
        """What a volume's labels are called, or None where nobody has asked yet.

        Raises:
            CacheCorruptError: the file is there and holds no names.
        """
        return self._read(location, NAMES_FILE, _NAMES.validate_json)

    def keep_label_names(self, location: Location, names: Mapping[int, str]) -> None:
        """Write what a volume's labels are called.

        Raises:
            CacheError: the cache cannot be written.
        """
        self._write(location, NAMES_FILE, _NAMES.dump_json(dict(names)))

    def _read(self, location: Location, name: str, parse: Callable[[bytes], Parsed]) -> Parsed | None:
        path = f"{self.url}/{location.folder}/{name}"
        with cache_errors(path):
            answer = self.store.below(location.folder).open().read(name).result()
        if answer.state != "value":
            return None
        try:
            return parse(answer.value)
        except ValueError as error:
            raise CacheCorruptError(f"{path} is not what was written there; delete it and ask again") from error

    def _write(self, location: Location, name: str, content: bytes) -> None:
        with cache_errors(f"{self.url}/{location.folder}"):
            self.store.below(location.folder).open().write(name, content).result()

    def kept_files(self, location: Location) -> Store:
        """Where files of a source are kept that can only be read whole, byte for byte."""
        return self.store.below(f"{location.folder}/{KEPT}")

    def array(self, location: Location, spec: ArraySpec, *, create: bool) -> MirrorArray | None:
        """The mirror of one scale; None where there is none and it is not to be made.

        Raises:
            CacheError: the cache cannot be written.
        """
        name = f"{location.folder}/{folder_name(spec.key)}.zarr"
        path = f"{self.url}/{name}"
        group = self.store.below(name)
        found = open_array(group.below(ARRAY), spec, path, str(location), create=False)
        if found is not None or not create:
            return found
        with cache_errors(path):
            group.open().write("zarr.json", json.dumps(_group(location, spec)).encode()).result()
        return open_array(group.below(ARRAY), spec, path, str(location), create=True)


def _group(location: Location, spec: ArraySpec) -> dict[str, Any]:
    """Zarr group around one mirror, an OME-Zarr image."""
    image = ome.image(location.folder, ARRAY, spec.grid, spec.grid.offset, channels=spec.num_channels is not None)
    mirror = {"source": str(location), "scale": spec.key, "voxel_offset": list(spec.grid.offset)}
    return {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {"ome": image, "emcatalog": mirror},
    }
