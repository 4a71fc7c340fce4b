"""Stacks of slices, one file each: ``tiff://https://host/slice_{z:03d}.tif``, and PNG likewise.

A TIFF is read by ranges: only the strips or tiles that are asked for. A PNG cannot be, so its file is kept beside the
mirror, byte for byte: it is downloaded once, and not once for each box. So is a TIFF of a server that sends whole files
only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from threading import Event
from typing import Any, Final

from numpy.typing import NDArray

from emcatalog.entries.volume import ChannelModel
from emcatalog.errors import NoRangesError, SourceCorruptError, SourceMissingError
from emcatalog.formats.documents import Documents
from emcatalog.formats.slice_files import Opened, SliceFiles
from emcatalog.formats.slices import Slice
from emcatalog.formats.volume import ArraySpec, Volume, virtual_store
from emcatalog.geometry import Box, Grid, Zyx, reverse

_AT_ONCE: Final = {"tiff": 12, "png": 4}
"""Blocks that are read at one time, each some megabytes as it is stored, as it is decoded, and as it is copied: of a
TIFF as many as keep a slow server busy; a PNG is at hand when it is decoded."""

_OPEN_SLICES: Final = {"tiff": 300, "png": 40}
"""Slices that are remembered: those of the shards in flight. A TIFF's header takes up to half a megabyte; a PNG's rows,
from which decoding can go on, two; without them it is decoded from its beginning."""


@dataclass(frozen=True)
class Stack:
    """A stack of which the first slice was looked at."""

    documents: Documents
    model: ChannelModel
    files: SliceFiles

    @cached_property
    def scales(self) -> tuple[ArraySpec, ...]:
        """The one scale that there is; how many slices, and how large a voxel is, the catalog alone knows."""
        first = self.files.open(self._first, header=True)
        assert self.model.shape is not None, "a stack without a shape"
        size = reverse(self.model.voxel_size)
        grid = Grid((self.model.shape[2], *first.shape), size, (self._first, 0, 0))
        chunk: Zyx = (1, *first.chunk)
        file = (1, *first.shape) if self.documents.location.format == "png" else None
        return (ArraySpec("s0", first.dtype, grid, chunk, first.encoding, file=file),)

    def open_scale(self, index: int) -> Volume:
        """Open it for reading. A slice that is not there is an error, and never background."""
        spec = self.scales[index]
        form = self.documents.location.format
        slices = Opened(self._open_slice, _OPEN_SLICES[form])

        def read_chunk(box: Box) -> NDArray[Any]:
            (z, y0, x0), (_, y1, x1) = box.begin, box.end
            return self._read(slices, z, (y0, y1), (x0, x1))[None]

        stop = Event()
        store = virtual_store(spec, read_chunk, stop, at_once=_AT_ONCE[form])
        return Volume(spec, store, store, stop=stop)

    def _read(self, slices: Opened[Slice], z: int, rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[Any]:
        try:
            return slices.get(z).block(rows, columns)
        except NoRangesError:
            # The whole of a file shorter than its header's first block is a range that every server sends.
            self.files.settle_for_whole_files()
            slices.forget(z)
            return slices.get(z).block(rows, columns)

    @property
    def _first(self) -> int:
        return self.model.offset[2] if self.model.offset else 0

    def _open_slice(self, z: int) -> Slice:
        (spec,) = self.scales
        try:
            opened = self.files.open(z)
        except SourceMissingError as error:
            raise SourceMissingError(
                f"{self.files.address(z)} is not there: the stack lacks slice {z}, of those declared from {self._first}"
                f" to {spec.grid.extent.end[0] - 1}; take a box that leaves it out, or tell the data's owner"
            ) from error
        found, wanted = (*opened.shape, opened.dtype), (*spec.grid.shape[1:], spec.dtype)
        if found != wanted:
            self.files.forget(z)
            raise SourceCorruptError(
                f"{self.files.address(z)} has {found[0]} rows, {found[1]} columns of {found[2]}; the first slice of the"
                f" stack has {wanted[0]}, {wanted[1]} of {wanted[2]}"
            )
        return opened


def read_stack(documents: Documents, model: ChannelModel) -> Stack:
    """Look at the first slice of a stack.

    Raises:
        SourceError: it is not there, or not what it should be.
    """
    stack = Stack(documents, model, SliceFiles(documents))
    (spec,) = stack.scales
    header = f"{spec.grid.shape[1:]} {spec.dtype} {spec.encoding}"  # what must stay the same, of a file of a gigabyte
    documents.note(documents.location.slice_name(spec.grid.offset[0]), header.encode())
    return stack
