"""Stacks of slices, one file each: ``tiff://https://host/slice_{z:03d}.tif``, and PNG likewise.

A TIFF is read by ranges: only the strips or tiles that are asked for. A PNG cannot be, so its file is kept beside the
mirror, byte for byte: it is downloaded once, and not once for each box. So is a TIFF of a server that sends whole files
only.
"""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Generic, Protocol, TypeVar

import tensorstore as ts
from numpy.typing import NDArray

from emcatalog.entries import ChannelModel
from emcatalog.errors import NoRangesError, SlowSourceWarning, SourceCorruptError, SourceMissingError
from emcatalog.formats.documents import Documents
from emcatalog.formats.volume import ArraySpec, Volume, virtual_store
from emcatalog.geometry import Box, Grid, Zyx, reverse
from emcatalog.memory import release_free_memory
from emcatalog.stores import ObjectReader, source_errors

STRIP_ROWS: Final = 64
"""Rows of a TIFF that are read as one, or nearly: strips of one row would be a request each."""

BAND_ROWS: Final = 512
"""Rows of a PNG that are read as one. All rows above them are decoded, so that a few more cost little."""

_AT_ONCE: Final = 10
"""Blocks that are read at one time: each is some megabytes as it is stored, as it is decoded, and as it is copied."""

_OPEN_SLICES: Final = 40
"""Slices whose headers are remembered: those of the shards in flight. A header is up to half a megabyte."""

_DOWNLOADS: Final = 3
"""Whole files on their way at one time."""


class Slice(Protocol):
    """One open slice."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""

    @property
    def dtype(self) -> str:
        """NumPy's name."""

    @property
    def chunk(self) -> tuple[int, int]:
        """Rows and columns that are read as one."""

    @property
    def encoding(self) -> str:
        """How it is stored."""

    def block(self, rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[Any]:
        """Some of its voxels, (rows, columns)."""


class TiffSlice:
    """A slice of which strips or tiles are read."""

    def __init__(self, read: ObjectReader) -> None:
        """Read the header.

        Raises:
            SourceError: it is not there, or not a TIFF that is read.
        """
        from emcatalog.formats.tiff import read_header

        self._read = read
        self._header = read_header(read, read.what)
        self.shape, self.dtype, self.encoding = self._header.shape, self._header.dtype, self._header.encoding

    @property
    def chunk(self) -> tuple[int, int]:
        """A tile, or strips that make about ``STRIP_ROWS`` rows."""
        rows, columns = self._header.segment
        return (rows if columns < self.shape[1] else max(1, STRIP_ROWS // rows) * rows), columns

    def block(self, rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[Any]:
        """Some of its voxels, (rows, columns)."""
        from emcatalog.formats.tiff import read_block

        return read_block(self._header, self._read, rows, columns, self._read.what)


class PngSlice:
    """A slice that is decoded from its beginning."""

    encoding = "png stack"

    def __init__(self, read: ObjectReader) -> None:
        """Read the header.

        Raises:
            SourceError: it is not there, or not a PNG that is read.
        """
        from emcatalog.formats.png import PngReader

        self._png = PngReader(read, read.what)
        self.shape, self.dtype = self._png.shape, self._png.dtype

    @property
    def chunk(self) -> tuple[int, int]:
        """Whole rows."""
        return BAND_ROWS, self.shape[1]

    def block(self, rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[Any]:
        """Some of its voxels, (rows, columns)."""
        return self._png.rows(*rows)[:, slice(*columns)]


_SLICES: Final[dict[str, Callable[[ObjectReader], Slice]]] = {"tiff": TiffSlice, "png": PngSlice}


@dataclass(frozen=True)
class Stack:
    """A stack of which the first slice was looked at."""

    documents: Documents
    model: ChannelModel
    files: _Files

    @cached_property
    def scales(self) -> tuple[ArraySpec, ...]:
        """The one scale that there is; how many slices, and how large a voxel is, the catalog alone knows."""
        first = self.files.header(self._first)
        assert self.model.shape is not None, "a stack without a shape"
        size = reverse(self.model.voxel_size)
        grid = Grid((self.model.shape[2], *first.shape), size, (self._first, 0, 0))
        chunk: Zyx = (1, *first.chunk)
        return (ArraySpec("s0", first.dtype, grid, chunk, first.encoding),)

    def open_scale(self, index: int) -> Volume:
        """Open it for reading. A slice that is not there is an error, and never background."""
        spec = self.scales[index]
        opened = _Opened(self._open_slice, _OPEN_SLICES)

        def read_chunk(box: Box) -> NDArray[Any]:
            (z, *corner), (_, *end) = box.begin, box.end
            (y0, x0), (y1, x1) = corner, end
            try:
                return opened.get(z).block((y0, y1), (x0, x1))[None]
            except SourceCorruptError:
                opened.forget(z)
                self.files.forget(z)  # what was kept may be at fault: the next to ask downloads it again
                raise

        store: ts.TensorStore = virtual_store(spec, read_chunk, at_once=_AT_ONCE)
        return Volume(spec, store, store)

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
            raise SourceCorruptError(
                f"{self.files.address(z)} has {found[0]} rows, {found[1]} columns of {found[2]}; the first slice of the"
                f" stack has {wanted[0]}, {wanted[1]} of {wanted[2]}"
            )
        return opened


def read_stack(documents: Documents, model: ChannelModel) -> Stack:
    """Look at the first slice of a stack.

    Raises:
        ModuleNotFoundError: tifffile, imagecodecs or isal is not installed.
        SourceError: it is not there, or not what it should be.
    """
    try:
        import emcatalog.formats.png
        import emcatalog.formats.tiff  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{documents.location} is a stack of images, which tifffile, imagecodecs and isal read:"
            " pip install 'emcatalog[stacks]'"
        ) from error
    stack = Stack(documents, model, _Files(documents))
    (spec,) = stack.scales
    header = f"{spec.grid.shape[1:]} {spec.dtype} {spec.encoding}"  # what must stay the same, of a file of a gigabyte
    documents.note(documents.location.slice_name(spec.grid.offset[0]), header.encode())
    return stack


@dataclass
class _Files:
    """The files of a stack: read by ranges where that can be, kept whole where not."""

    documents: Documents
    whole: bool = False
    """Whether the server was found to send whole files only."""
    _downloads: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(_DOWNLOADS))

    def address(self, z: int) -> str:
        """For messages."""
        return self.documents.address(self._name(z))

    def header(self, z: int) -> Slice:
        """A slice, to look at its shape: even of a PNG that takes no more than its first bytes."""
        return self._by_ranges(z)

    def open(self, z: int) -> Slice:
        """A slice, to read its voxels."""
        if self.documents.location.format == "png":
            return self._make(self._kept(z))
        return self._by_ranges(z)

    def forget(self, z: int) -> None:
        """Drop what was kept of a slice."""
        name = self._name(z)
        self._place().write(name, None).result()

    def _by_ranges(self, z: int) -> Slice:
        if not self.whole:
            try:
                return self._make(self._remote(z))
            except NoRangesError:
                self._settle_for_whole_files(z)
        return self._make(self._kept(z))

    def _settle_for_whole_files(self, z: int) -> None:
        with self._downloads:
            first, self.whole = not self.whole, True
        if first and self.documents.location.format != "png":
            self._downloads = threading.Semaphore(1)  # files of a gigabyte pass through memory
            warnings.warn(
                f"{self.address(z)}: the server sends whole files only, so that each slice is downloaded whole; they"
                " are kept, and the next box in them is quick",
                SlowSourceWarning,
                stacklevel=2,
            )

    def _make(self, read: ObjectReader) -> Slice:
        return _SLICES[self.documents.location.format](read)

    def _remote(self, z: int) -> ObjectReader:
        return ObjectReader(self.documents.store.open(), self._name(z), self.address(z))

    def _kept(self, z: int) -> ObjectReader:
        """A slice that was downloaded before, or is now."""
        place = self._place()
        kept = ObjectReader(place, self._name(z), self.address(z))
        if place.read(kept.key, byte_range=slice(0, 1)).result().state != "value":
            with self._downloads:
                with source_errors(self.address(z)):
                    place.write(kept.key, self._remote(z).whole()).result()
                release_free_memory()  # or each thread's arena keeps what its files took
        return kept

    def _place(self) -> ts.KvStore:
        if self.documents.keep is not None:
            return self.documents.keep.open()
        return self._memory

    @cached_property
    def _memory(self) -> ts.KvStore:
        return ts.KvStore.open({"driver": "memory"}, context=ts.Context()).result()

    def _name(self, z: int) -> str:
        return self.documents.location.slice_name(z)


_T = TypeVar("_T")


@dataclass
class _Entry(Generic[_T]):
    lock: threading.Lock = field(default_factory=threading.Lock)
    value: _T | None = None


class _Opened(Generic[_T]):
    """What was opened last, by number. Two threads that want the same open it once."""

    def __init__(self, open_one: Callable[[int], _T], most: int) -> None:
        self._open_one = open_one
        self._most = most
        self._lock = threading.Lock()
        self._entries: OrderedDict[int, _Entry[_T]] = OrderedDict()

    def get(self, number: int) -> _T:
        """The one of this number."""
        with self._lock:
            entry = self._entries.setdefault(number, _Entry())
            self._entries.move_to_end(number)
            while len(self._entries) > self._most:
                self._entries.popitem(last=False)
        with entry.lock:
            if entry.value is None:
                entry.value = self._open_one(number)
            return entry.value

    def forget(self, number: int) -> None:
        """Open it anew when it is asked for again."""
        with self._lock:
            self._entries.pop(number, None)
