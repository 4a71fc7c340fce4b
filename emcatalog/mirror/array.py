"""One mirrored array: what is there, what is missing, and the voxels.

A chunk is present if and only if its voxels are there and right. TensorStore keeps that promise here: all-zero chunks
are stored (``store_data_equal_to_fill_value``), a missing chunk fails to read instead of giving zeros
(``fill_missing_data_reads``), and a shard is replaced by renaming a finished file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from emcatalog.errors import (
    CacheCorruptError,
    CacheError,
    EmcatalogError,
    Failures,
    NotCachedError,
    SourceChangedError,
    explain,
)
from emcatalog.formats.volume import ArraySpec
from emcatalog.geometry import Box, Index
from emcatalog.mirror.layout import Layout, choose_layout, unit_of, zarr_metadata
from emcatalog.stores import Store, wait

ARRAY: Final = "data"
"""Name of the array in its group, so that xarray opens the group as a Dataset."""

_FAILURES: Final[Failures[CacheError]] = (
    (
        r"No space left|ENOSPC|os_error_code='28'|File too large|os_error_code='27'|Disk quota",
        CacheError,
        "the disk is full; what was fetched is kept, so free some space, or set EMCATALOG_CACHE to another folder, and"
        " ask again",
    ),
    (
        r"retry attempts failed|UNAVAILABLE|CURL error|HTTP code (5\d\d|429)",
        CacheError,
        "the cache cannot be reached; ask again later, or set EMCATALOG_CACHE to a folder",
    ),
    (
        r"PERMISSION_DENIED|HTTP code|os_error_code|Invalid file path|Failed to create directory",
        CacheError,
        "the cache cannot be used; set EMCATALOG_CACHE (or cache_dir) to a folder that can be written",
    ),
    (
        r"^NOT_FOUND",
        NotCachedError,
        "a part of this box was never fetched; fetch() it",
    ),
    (
        r"",
        CacheCorruptError,
        "it holds bytes that are not what was written; `emcatalog cache verify --remove` finds and removes such shards,"
        " then ask again",
    ),
)


@dataclass(frozen=True, slots=True)
class Gap:
    """What one shard lacks, in indices of the mirror."""

    shard: Box
    """The shard, clipped to the volume."""
    units: tuple[Box, ...]
    """Units of it that are wanted and missing."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Voxels on their way from the mirror into memory."""

    voxels: NDArray[Any]
    """Of the box; not to be looked at before ``result``."""
    copy: ts.WriteFutures
    """Done when they are there."""
    path: str
    """For messages."""

    def result(self) -> NDArray[Any]:
        """The voxels, along the mirror's axes.

        Raises:
            NotCachedError: a part of the box was never fetched.
            CacheCorruptError: a chunk that fails its checksum.
        """
        with cache_errors(self.path):
            wait(self.copy)
        return self.voxels


@dataclass(frozen=True, slots=True)
class MirrorArray:
    """An open mirror of one source array. Boxes are in the source's voxels."""

    spec: ArraySpec
    """The source array."""
    layout: Layout
    """How it is cut, as its own metadata says."""
    store: ts.TensorStore
    """The Zarr array; index 0 is the first voxel of the source. Reading what is missing fails."""
    uncommitted: ts.TensorStore
    """The same, for looking at what a transaction has written: there TensorStore would call it missing."""
    path: str
    """For messages: where it lies."""
    source: str
    """For messages: what it mirrors."""

    def index(self, box: Box) -> Box:
        """A box of source voxels in indices of the mirror."""
        return box.translate([-first for first in self.spec.offset])

    def source_box(self, box: Box) -> Box:
        """A box of mirror indices in voxels of the source."""
        return box.translate(self.spec.offset)

    def count(self, box: Box) -> int:
        """How many units a box of source voxels touches."""
        return self._aligned(box).cells(self.layout.unit)

    def gaps(self, box: Box) -> list[Gap]:
        """What is missing of a box of source voxels, shard by shard.

        Raises:
            CacheCorruptError: a shard whose index fails its checksum.
        """
        with cache_errors(self.path):
            shards = list(self._aligned(box).split(self.layout.shard))
            stored = [(shard, self._stored(shard)) for shard in shards]
            partial = {shard: future.result() for shard, future in stored}
            gaps = [self._gap(shard, nothing=s.not_stored) for shard, s in partial.items() if not s.fully_stored]
        return [gap for gap in gaps if gap.units]

    def read(self, box: Box) -> Reading:
        """Begin to read a box of source voxels from the mirror alone; ``result()`` of it gives the voxels."""
        # NumPy asks for huge pages where TensorStore's own allocation does not: to touch a gigabyte for the first time
        # takes longer than to decode it (benchmarks/fetch.py, "read").
        return self.read_into(np.empty(box.shape, self.spec.dtype), box)

    def read_into(self, voxels: NDArray[Any], box: Box) -> Reading:
        """The same, into an array of the box's shape."""
        return Reading(voxels, ts.array(voxels).write(self.store[self.index(box).slices]), self.path)

    def for_patches(self, context: ts.Context) -> MirrorArray:
        """The same mirror for many small reads: what was read since this call is not looked for on the disk again.

        Args:
            context: with the pool that decoded chunks are kept in.
        """
        described = {**self.store.spec().to_json(), "recheck_cached_data": "open"}
        with cache_errors(self.path):
            return replace(self, store=ts.open(described, open=True, context=context).result())

    def _aligned(self, box: Box) -> Box:
        grown = self.index(box).grow_to(self.layout.unit).intersect(self.spec.everything)
        if grown is None:
            raise AssertionError(f"{box} was not clipped to {self.spec.grid.extent}")
        return grown

    def _gap(self, part: Box, *, nothing: bool) -> Gap:
        units = list(part.split(self.layout.unit))
        if not nothing:
            stored = [(unit, self._stored(unit)) for unit in units]
            units = [unit for unit, future in stored if not future.result().fully_stored]
        return Gap(part, tuple(units))

    def _stored(self, box: Box) -> ts.Future[Any]:
        return self.store[box.slices].storage_statistics(query_not_stored=True, query_fully_stored=True)


def open_array(store: Store, spec: ArraySpec, path: str, source: str, *, create: bool) -> MirrorArray | None:
    """Open the mirror of one source array.

    Args:
        store: the array's own folder.
        spec: the source array.
        path: for messages, where it lies.
        source: for messages, what it mirrors.
        create: make it where it does not exist; otherwise None is returned.

    Raises:
        CacheError: the cache cannot be written.
        SourceChangedError: the mirror was filled from an array of another shape or dtype.
    """
    with cache_errors(path):
        try:
            opened = _open(store, {})
        except ValueError as error:
            if not str(error).startswith("NOT_FOUND"):
                raise
            if not create:
                return None
            opened = _open(store, zarr_metadata(spec, choose_layout(spec)), create=True)
        uncommitted = _open(store, {}, fill=True)
    shape = tuple(int(side) for side in opened.shape)
    if (shape, opened.dtype.numpy_dtype) != (spec.shape, np.dtype(spec.dtype)):
        raise SourceChangedError(
            f"{path} mirrors {shape} {opened.dtype.name} (z, y, x), but the source is now {spec.shape}"
            f" {spec.dtype}; remove the mirror with `emcatalog cache rm`"
        )
    return MirrorArray(spec, _layout_of(opened, spec), opened, uncommitted, path, source)


@contextmanager
def cache_errors(path: str) -> Iterator[None]:
    """Turn TensorStore's errors into ours; ``path`` names the mirror."""
    try:
        yield
    except (ValueError, OSError, RuntimeError) as error:
        if isinstance(error, EmcatalogError):
            raise
        raise explain(error, path, _FAILURES) from error


def _open(store: Store, metadata: dict[str, Any], *, create: bool = False, fill: bool = False) -> ts.TensorStore:
    spec = {
        "driver": "zarr3",
        "kvstore": store.kvstore,
        "store_data_equal_to_fill_value": True,
        "fill_missing_data_reads": fill,
        **({"metadata": metadata} if metadata else {}),
    }
    return ts.open(spec, open=True, create=create, context=store.context).result()


def _layout_of(opened: ts.TensorStore, spec: ArraySpec) -> Layout:
    chunk = _shape(opened.chunk_layout.read_chunk)
    return Layout(chunk, _shape(opened.chunk_layout.write_chunk), unit_of(chunk, spec))


def _shape(grid: Any) -> Index:
    return tuple(int(side) for side in grid.shape)
