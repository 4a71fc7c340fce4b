"""What lies in the cache: listed, verified, removed. Eviction is deleting files; verification is reading them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import fsspec
import tensorstore as ts

from emcatalog.errors import CacheCorruptError, CacheError
from emcatalog.formats.volume import ArraySpec, VolumeSpec
from emcatalog.geometry import Box
from emcatalog.locations import folder_name
from emcatalog.mirror.array import ARRAY, MirrorArray, open_array
from emcatalog.mirror.cache import KEPT, NAMES_FILE, VOLUME_FILE, Cache

_SHARD: Final = re.compile(rf"(?P<mirror>.+\.zarr)/{ARRAY}/c/(?P<cell>\d+(/\d+)+)")
"""Key of a shard below the cache, in Zarr's default chunk key encoding."""

_TABLE: Final = re.compile(
    r"(?P<folder>.+/)(?P<name>[^/]+\.parquet)/(?P<part>part-\d+\.parquet)?.*"
    r"|(?P<beside>.+/)\.(?P<made>[^/]+\.parquet)\.(download|partial-[^/]*)/.+"
)
"""Key of a file of a table's copy, or of one that is being made beside it."""

_BEGUN: Final = re.compile(r".*/\.[^/]+\.partial")
"""Key of a file that is being downloaded, or was until somebody stopped it."""


@dataclass(frozen=True, slots=True)
class MirrorFiles:
    """One mirrored array on disk, the copy of a table, or files of a source that are kept as they are."""

    name: str
    """Folder below the cache: ``gs/flyem-male-cns/em/em-clahe-jpeg/8x8x8.zarr``, ``.../x.feather.parquet``, or
    ``.../kept-files``."""
    nbytes: int
    """Of all that lies there, but for the descriptions of an array."""
    shards: tuple[str, ...]
    """Keys of its shards, of the parts of a table, or of the files that are kept, below the cache."""
    begun: int = 0
    """Downloads that go on when they are asked for again."""

    @property
    def is_array(self) -> bool:
        """Whether it is a mirrored array."""
        return self.name.endswith(".zarr")

    @property
    def is_table(self) -> bool:
        """Whether it is the copy of a table."""
        return self.name.endswith(".parquet")

    @property
    def is_kept(self) -> bool:
        """Whether it is files that are kept as they are."""
        return self.name.endswith(f"/{KEPT}")


@dataclass(frozen=True, slots=True)
class BadShard:
    """A shard whose bytes are not what was written."""

    key: str
    """Below the cache."""
    reason: str
    """What reading it said."""


def list_mirrors(cache: Cache) -> list[MirrorFiles]:
    """Every mirrored array, copy of a table, and folder of kept files, by name.

    Raises:
        CacheError: the cache cannot be listed.
    """
    filesystem, root = _filesystem(cache)
    with _listing_errors(cache):
        found = filesystem.find(root, detail=True)
    sizes: dict[str, list[int]] = {}
    shards: dict[str, list[str]] = {}
    begun: Counter[str] = Counter()
    for path, info in found.items():
        key = path.removeprefix(root).strip("/")
        if (place := _place(key)) is None:
            continue
        name, is_shard = place
        shards.setdefault(name, []).extend([key] if is_shard else [])
        # What describes an array is a few hundred bytes, and stays where its shards are removed one by one.
        sizes.setdefault(name, []).append(info["size"] if is_shard or not name.endswith(".zarr") else 0)
        begun[name] += bool(_BEGUN.fullmatch(key))
    return [MirrorFiles(name, sum(sizes[name]), tuple(sorted(shards[name])), begun[name]) for name in sorted(shards)]


def _place(key: str) -> tuple[str, bool] | None:
    """Name of what a file of the cache belongs to, and whether it is a shard, a part or a kept file of it."""
    before, kept, below = key.partition(f"/{KEPT}/")
    if kept and ".zarr/" not in key:
        # Names that begin with a dot are those of what is known of a file, and of what is not whole yet.
        return f"{before}/{KEPT}", not below.rpartition("/")[2].startswith(".")
    if table := _TABLE.fullmatch(key):
        return (table["folder"] or table["beside"]) + (table["name"] or table["made"]), table["part"] is not None
    if shard := _SHARD.fullmatch(key):
        return shard["mirror"], True
    folder = key.removesuffix(f"/{ARRAY}/zarr.json")
    return None if folder == key else (folder, False)


def verify(cache: Cache, mirror: MirrorFiles, progress: Callable[[str], None] | None = None) -> Iterator[BadShard]:
    """Read every chunk of an array that is there, and give the shards that fail.

    Args:
        cache: where it lies.
        mirror: what to verify.
        progress: called with the key of each shard that was read.

    Raises:
        CacheCorruptError: the mirror's own description is damaged, so that nothing can be said of its shards.
    """
    if not mirror.is_array:
        return
    array = _open(cache, mirror)
    for key in mirror.shards:
        reason = _damage(array, key)
        if reason is not None:
            yield BadShard(key, reason)
        if progress:
            progress(key)


def remove_shard(cache: Cache, key: str) -> None:
    """Delete one shard; a later read fetches it again."""
    filesystem, root = _filesystem(cache)
    filesystem.rm_file(f"{root}/{key}")


def remove_mirror(cache: Cache, name: str) -> None:
    """Delete one mirrored array, table or kept files, and the volume's description with the last of its scales.

    Args:
        cache: where it lies.
        name: ``MirrorFiles.name``.
    """
    filesystem, root = _filesystem(cache)
    above, _, last = name.rpartition("/")
    folder = f"{root}/{above}"
    for path in filesystem.ls(folder, detail=False):
        # What a table's copy is made from, and in, lies beside it.
        if re.fullmatch(rf"{re.escape(last)}|\.{re.escape(last)}\.(download|partial-.*)", path.rpartition("/")[2]):
            filesystem.rm(path, recursive=True)
    left = [path for path in filesystem.ls(folder, detail=False) if path.endswith(".zarr")]
    for document in (VOLUME_FILE, NAMES_FILE):
        if not left and filesystem.exists(f"{folder}/{document}"):
            filesystem.rm_file(f"{folder}/{document}")
    _remove_empty(filesystem, folder, root)


def _filesystem(cache: Cache) -> tuple[Any, str]:
    with _listing_errors(cache):
        filesystem, root = fsspec.core.url_to_fs(cache.url)
    return filesystem, root.rstrip("/")


@contextmanager
def _listing_errors(cache: Cache) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise CacheError(f"{cache.url} cannot be listed: {type(error).__name__}: {error}") from error


def _remove_empty(filesystem: Any, folder: str, root: str) -> None:
    """Remove folders that hold nothing any more, up to the cache; object stores have none."""
    while folder.startswith(f"{root}/") and filesystem.isdir(folder) and not filesystem.ls(folder, detail=False):
        filesystem.rmdir(folder)
        folder = folder.rpartition("/")[0]


def _open(cache: Cache, mirror: MirrorFiles) -> MirrorArray:
    folder, _, name = mirror.name.rpartition("/")
    answer = cache.store.below(folder).open().read(VOLUME_FILE).result()
    try:
        volume = VolumeSpec.from_json(answer.value)
        spec: ArraySpec = next(scale for scale in volume.scales if f"{folder_name(scale.key)}.zarr" == name)
    except (ValueError, StopIteration) as error:
        raise CacheCorruptError(f"{cache.url}/{folder}/{VOLUME_FILE} does not describe {name}") from error
    path = f"{cache.url}/{mirror.name}"
    array = open_array(cache.store.below(f"{mirror.name}/{ARRAY}"), spec, path, volume.url, create=False)
    if array is None:
        raise CacheCorruptError(f"{path} has no metadata; `emcatalog cache rm` removes it")
    return array


def _damage(array: MirrorArray, key: str) -> str | None:
    """What is wrong with a shard, or None."""
    shard = _shard_box(array, key)
    if shard is None:
        return "it lies outside the volume"
    try:
        for chunk in shard.split(array.layout.chunk):
            if _is_stored(array.store, chunk):
                array.store[chunk.slices].read().result()
    except ValueError as error:
        return str(error)
    return None


def _shard_box(array: MirrorArray, key: str) -> Box | None:
    match = _SHARD.fullmatch(key)
    assert match is not None, key
    cell = [int(number) for number in match["cell"].split("/")]
    if len(cell) != len(array.layout.shard):
        return None
    begin = tuple(number * side for number, side in zip(cell, array.layout.shard, strict=True))
    shard = Box(begin, tuple(a + side for a, side in zip(begin, array.layout.shard, strict=True)))
    return shard.intersect(array.spec.everything)


def _is_stored(store: ts.TensorStore, box: Box) -> bool:
    return bool(store[box.slices].storage_statistics(query_fully_stored=True).result().fully_stored)
