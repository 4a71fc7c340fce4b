"""What every stored form looks like from above: a description that can be kept, and voxels on demand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Any, Final

import tensorstore as ts
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from emcatalog.errors import ArgumentError
from emcatalog.geometry import Box, Grid, Index, Zyx, ZyxNm, axis_names, format_xyz, same_length, same_size, zyx


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One source array: one scale of one volume, (z, y, x) in space, or (c, z, y, x) where it has several channels."""

    key: str
    """Name of the scale at the source: ``8x8x8``."""
    dtype: str
    """NumPy's name: ``uint8``."""
    grid: Grid
    """Where its voxels stand."""
    chunk: Index
    """Voxels of a stored chunk, (z, y, x) or (c, z, y, x), on a lattice through the first voxel."""
    encoding: str
    """How a chunk is stored: ``jpeg``, ``compressed_segmentation``, ..."""
    num_channels: int | None = None
    """Length of the axis of channels, or None where there is no such axis."""
    file: Index | None = None
    """Voxels of a file that can only be downloaded whole, or None where chunks are fetched one by one."""

    @property
    def offset(self) -> Index:
        """First voxel, along all axes."""
        return self.grid.offset if self.num_channels is None else (0, *self.grid.offset)

    @property
    def shape(self) -> Index:
        """Voxels along all axes."""
        return self.grid.shape if self.num_channels is None else (self.num_channels, *self.grid.shape)

    @property
    def everything(self) -> Box:
        """Every voxel, counted from the first, as a mirror counts them."""
        return Box((0,) * len(self.shape), self.shape)

    def reordered(self, order: Zyx) -> ArraySpec:
        """The same array with its axes of space in another order."""
        grid = self.grid
        return replace(
            self,
            grid=Grid(
                zyx([grid.shape[i] for i in order]),
                _pick(grid.voxel_size_nm, order),
                zyx([grid.offset[i] for i in order]),
                _pick(grid.origin_nm, order),
            ),
            chunk=_spatial(self.chunk, order),
            file=None if self.file is None else _spatial(self.file, order),
        )

    def with_voxel_size(self, factor: ZyxNm) -> ArraySpec:
        """The same voxels in another space, all lengths times these factors."""
        size, origin = self.grid.voxel_size_nm, self.grid.origin_nm
        return replace(
            self, grid=replace(self.grid, voxel_size_nm=_times(size, factor), origin_nm=_times(origin, factor))
        )


@dataclass(frozen=True, slots=True)
class VolumeSpec:
    """A volume as its own metadata describes it: what must still be true for a mirror of it to be."""

    url: str
    """Address as the catalog states it."""
    scales: tuple[ArraySpec, ...]
    """Finest first."""

    def has(self, resolution_nm: ZyxNm) -> bool:
        """Whether there is a scale with this voxel size, (z, y, x) in nm."""
        return any(same_size(scale.grid.voxel_size_nm, resolution_nm) for scale in self.scales)

    def at(self, resolution_nm: ZyxNm) -> ArraySpec:
        """The scale with this voxel size, (z, y, x) in nm.

        Raises:
            ArgumentError: there is none; the message lists those there are.
        """
        for scale in self.scales:
            if same_size(scale.grid.voxel_size_nm, resolution_nm):
                return scale
        sizes = "; ".join(format_xyz(scale.grid.voxel_size_nm) for scale in self.scales)
        raise ArgumentError(
            f"{self.url} has no scale of {format_xyz(resolution_nm)} nm (x, y, z); resolution can be {sizes}"
        )

    def nearest(self, resolution_nm: ZyxNm) -> ArraySpec:
        """The coarsest scale whose voxels are not larger than these, or the finest where all are."""
        fine = [
            scale
            for scale in self.scales
            if all(a <= b or same_length(a, b) for a, b in zip(scale.grid.voxel_size_nm, resolution_nm, strict=True))
        ]
        return max(fine, key=lambda scale: math.prod(scale.grid.voxel_size_nm)) if fine else self.scales[0]

    def to_json(self) -> bytes:
        """As kept in the cache."""
        return _VOLUME_SPEC.dump_json(self, indent=1)

    @classmethod
    def from_json(cls, text: bytes) -> VolumeSpec:
        """As read back.

        Raises:
            ValueError: the text is not a description.
        """
        try:
            return _VOLUME_SPEC.validate_json(text)
        except ValidationError as error:
            raise ValueError(str(error)) from error


def _spatial(index: Index, order: Zyx) -> Index:
    """An index with its axes of space in another order."""
    return (*index[:-3], *(index[-3:][i] for i in order))


def _pick(values: ZyxNm, order: Zyx) -> ZyxNm:
    z, y, x = (values[i] for i in order)
    return z, y, x


def _times(values: ZyxNm, factor: ZyxNm) -> ZyxNm:
    z, y, x = (a * b for a, b in zip(values, factor, strict=True))
    return z, y, x


def virtual_store(
    spec: ArraySpec, read_chunk: Callable[[Box], NDArray[Any]], stop: Event, *, at_once: int
) -> ts.TensorStore:
    """An array whose chunks a function of ours reads.

    Args:
        spec: of the array.
        read_chunk: gets a box of the source's voxels, and gives them.
        stop: of the volume.
        at_once: chunks that it is asked for at one time, each in a thread.
    """

    def fill(domain: ts.IndexDomain, array: NDArray[Any], _: object) -> None:
        if stop.is_set():
            raise ValueError("CANCELLED: what asked for this failed, or was interrupted")
        array[...] = read_chunk(Box(domain.inclusive_min, domain.exclusive_max))

    return ts.virtual_chunked(
        fill,
        dtype=ts.dtype(spec.dtype),
        domain=ts.IndexDomain(inclusive_min=spec.offset, shape=spec.shape, labels=[""] * len(spec.shape)),
        chunk_layout=ts.ChunkLayout(read_chunk_shape=spec.chunk, grid_origin=spec.offset),
        # Its own threads: a callback waits for requests, whose answers the shared ones may have to decode.
        context=ts.Context({"data_copy_concurrency": {"limit": at_once}}),
    )


_VOLUME_SPEC: Final = TypeAdapter(VolumeSpec)


@dataclass(frozen=True, slots=True)
class Volume:
    """An open source array. Its TensorStores have the axes of its spec and the source's own voxel indices."""

    spec: ArraySpec
    """What it is."""
    strict: ts.TensorStore
    """Fails with NOT_FOUND where the source lacks a chunk (see ``stores.is_absent``), if it can tell."""
    lenient: ts.TensorStore
    """Gives background where the source lacks a chunk."""
    holds: Callable[[Box], bool] | None = None
    """Whether the source has the chunk that covers this box of its voxels: for forms whose ``strict`` cannot tell."""
    stop: Event = field(default_factory=Event)
    """Once it is set, a reader of ours asks the source for nothing more: what TensorStore was told to read cannot be
    called back. The volume is of no use then."""

    @property
    def background(self) -> Any:
        """What ``lenient`` gives where the source lacks a chunk: a Zarr array says itself, elsewhere it is 0."""
        told = self.lenient.fill_value
        return 0 if told is None else told

    def labelled(self) -> Volume:
        """The same volume, its axes named as ours: TensorStore copies between arrays by the names of their axes."""
        names = ts.d[:].label[axis_names(len(self.spec.shape))]
        return replace(self, strict=self.strict[names], lenient=self.lenient[names])

    def reordered(self, order: Zyx) -> Volume:
        """The same volume with its axes of space in another order."""
        leading = len(self.spec.chunk) - 3
        axes = [*range(leading), *(leading + i for i in order)]
        # Where axis i of the result comes from, and so where axis i of a box of it goes.
        back = [axes.index(i) for i in range(len(axes))]
        holds = self.holds

        def holds_reordered(box: Box) -> bool:
            assert holds is not None
            return holds(Box(tuple(box.begin[i] for i in back), tuple(box.end[i] for i in back)))

        return Volume(
            self.spec.reordered(order),
            self.strict.transpose(axes),
            self.lenient.transpose(axes),
            None if holds is None else holds_reordered,
            self.stop,
        )
