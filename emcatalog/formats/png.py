"""One PNG slice, decoded in bands of rows: the whole picture is never in memory.

A PNG cannot be entered in its middle: its rows are one deflate stream, and each row may be stored as differences from
the row above. ISA-L inflates that stream as far as asked, many times faster than zlib. libpng undoes the differences
(the filters): each band is handed to it as a small PNG of its own. The form is https://www.w3.org/TR/png-3/.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import imagecodecs
import numpy as np
from isal import isal_zlib
from isal.igzip_lib import IsalError
from numpy.typing import NDArray

from emcatalog.errors import OutOfBoundsError, SourceCorruptError

if TYPE_CHECKING:
    from emcatalog.formats.tiff import ReadRange

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_CHUNK: Final = struct.Struct(">I4s")
"""Length of a chunk's data, its name; the data and their CRC follow."""
_HEADER: Final = struct.Struct(">IIBBBBB")
"""Columns, rows, bits a sample, colour type, compression, filter method, interlacing."""

_GREY: Final = 0
_PALETTE: Final = 3
_SAMPLES: Final = {_GREY: 1, 2: 3, _PALETTE: 1, 4: 2, 6: 4}
"""Colour type -> samples a pixel; of two or four, the last is how opaque it is."""
_DEPTHS: Final = {_GREY: (1, 2, 4, 8, 16), 2: (8, 16), _PALETTE: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""Colour type -> bits a sample."""
_MAX_SIDE: Final = 1_000_000
"""Columns that libpng takes at most: above that, a size is garbage."""
_MAX_RATIO: Final = 1040
"""Bytes that deflate can make of one, a little more than 1032: https://zlib.net/zlib_tech.html."""

_BLOCK: Final = 2**20
"""Bytes that are read, or skipped, at one time."""
_MAX_STORED: Final = 2**16 - 1
"""Bytes of a stored block."""
_BAND: Final = 2**20
"""Bytes of a band, unless one row has more: of much smaller ones several threads wait for each other, and beyond the
processor's cache decoding takes twice the time."""
_REMEMBERED: Final = 256
"""Of so many rows one is remembered, so that going back does not begin at the first row."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """How the rows are stored."""

    columns: int
    rows: int
    depth: int
    """Bits a sample."""
    colour: int
    """The colour type."""
    interlaced: bool

    @property
    def row_bytes(self) -> int:
        """Of one row, without the byte that names its filter."""
        return -(-self.columns * self.depth * _SAMPLES[self.colour] // 8)

    @property
    def as_bytes(self) -> tuple[int, int, int]:
        """Columns, depth and colour type of a PNG that has the same bytes in a row, and the same filters.

        Filters know nothing but the bytes of a pixel, and take small pixels for one byte: packed pixels and indices
        come out of libpng as they are stored.
        """
        if self.depth < 8 or self.colour == _PALETTE:
            return self.row_bytes, 8, _GREY
        return self.columns, self.depth, self.colour


class PngReader:
    """Rows of a PNG as grey values, in any order, quickest from the first to the last.

    Pixels of 1, 2 or 4 bits are scaled to 0..255, as Pillow and libpng do: of 1 bit, they are 0 and 255. Opacity is
    dropped. Colours and palettes are taken where all they hold is grey, and refused otherwise. An interlaced PNG has no
    order of rows: it is decoded whole at the first reading, and kept.
    """

    shape: tuple[int, int]
    """(rows, columns)."""
    dtype: str
    """``"uint8"``, or ``"uint16"`` where a sample has 16 bits."""

    def __init__(self, read: ReadRange, what: str) -> None:
        """Read the header.

        Args:
            read: reads the file; it should be near, for the file is read again where rows are read again.
            what: the file's name in messages.

        Raises:
            SourceCorruptError: not a PNG, a header that is cut off or wrong, or a palette of colours.
        """
        self._file = _File(read, what)
        self._layout, self._palette, self._first = _read_start(self._file, what)
        self.shape = self._layout.rows, self._layout.columns
        self.dtype = "uint16" if self._layout.depth == 16 else "uint8"
        self._what = what
        self._lock = Lock()
        self._pass: _Pass | None = None
        self._whole: NDArray[Any] | None = None
        self._above = {0: bytes(self._layout.row_bytes)}  # the row above the first counts as zeros

    def rows(self, begin: int, end: int) -> NDArray[Any]:
        """The rows [begin, end), (rows, columns) of the reader's dtype.

        Rows that follow those of the last call cost only themselves. Any others cost inflating all that precede them,
        and unfiltering those since the nearest remembered row.

        Raises:
            OutOfBoundsError: not rows of the picture.
            SourceCorruptError: the file is cut off, fails a checksum, does not decode, or is in colour.
        """
        if not 0 <= begin <= end <= self.shape[0]:
            raise OutOfBoundsError(f"{self._what}: rows {begin}:{end} of a picture of {self.shape[0]} rows")
        with self._lock:
            if self._layout.interlaced:
                return self._decode_whole()[begin:end].copy()
            return self._read(begin, end)

    def check(self) -> None:
        """Hold every chunk of the file against its checksum.

        Raises:
            SourceCorruptError: one fails it, or the file is cut off.
        """
        with self._lock:
            chunk = _chunk_at(self._file, self._first, self._what)
            while chunk.name != b"IEND":
                _data(self._file, chunk, self._what)
                chunk = _chunk_at(self._file, chunk.next, self._what)
            _data(self._file, chunk, self._what)

    def _read(self, begin: int, end: int) -> NDArray[Any]:
        result = np.empty((end - begin, self.shape[1]), self.dtype)
        at = self._pass_to(begin)
        while at.row < end:
            top = at.row
            band = self._next_band(at, begin if top < begin else end)
            if top >= begin:
                result[top - begin : at.row - begin] = self._grey(band)
        self._pass = at
        return result

    def _pass_to(self, row: int) -> _Pass:
        """A pass that has come to this row, or to one that must be unfiltered before it."""
        nearest = max(known for known in self._above if known <= row)
        at, self._pass = self._pass, None  # one that fails midway has lost its place
        if at is None or at.row > row:
            at = _Pass(_Inflater(_deflated(self._file, self._first, self._what), self._what), 0, self._above[0])
        if at.row < nearest:
            at.inflater.skip((nearest - at.row) * (1 + self._layout.row_bytes))
            at.row, at.above = nearest, self._above[nearest]
        return at

    def _next_band(self, at: _Pass, limit: int) -> NDArray[Any]:
        """Unfilter the rows that follow, none of them beyond `limit`: the samples as they are stored."""
        top, stride = at.row, 1 + self._layout.row_bytes
        bottom = min(limit, top + max(1, _BAND // stride), (top // _REMEMBERED + 1) * _REMEMBERED)
        band = self._unfilter(at.above, at.inflater.take((bottom - top) * stride), top)
        at.row, at.above = bottom, band[-1].astype(band.dtype.newbyteorder(">")).tobytes()
        if bottom % _REMEMBERED == 0:
            self._above[bottom] = at.above
        return band

    def _unfilter(self, above: bytes, stored: bytes, top: int) -> NDArray[Any]:
        filters = np.frombuffer(stored, np.uint8)[:: 1 + len(above)]
        if filters.max() > 4:
            wrong = int(filters.argmax())
            raise SourceCorruptError(f"{self._what}: row {top + wrong} has the filter {filters[wrong]}, of 0 to 4")
        columns, depth, colour = self._layout.as_bytes
        shape = (1 + len(filters), columns, _SAMPLES[colour])
        # Given where to put it: on its own, each band that fails makes imagecodecs 2026.3.6 forget a reference to None.
        decoded = np.empty(shape if shape[2] > 1 else shape[:2], "u2" if depth == 16 else "u1")
        try:
            imagecodecs.png_decode(_as_png(self._layout, b"\0" + above + stored), out=decoded)
        except Exception as error:  # a codec raises its own kinds
            raise SourceCorruptError(f"{self._what}: rows from {top} do not decode: {error}") from error
        return decoded[1:]

    def _grey(self, band: NDArray[Any]) -> NDArray[Any]:
        """Grey values (rows, columns) of samples as they are stored."""
        layout = self._layout
        if layout.depth < 8:
            # It packs rows from whole bytes, as PNG does.
            pixels = imagecodecs.packints_decode(band.tobytes(), "u1", layout.depth, runlen=layout.columns)
            band = pixels.reshape(len(band), layout.columns)
        if self._palette is not None:
            if band.max() >= len(self._palette):
                raise SourceCorruptError(f"{self._what}: an index {band.max()} into {len(self._palette)} colours")
            band = self._palette[band]
        elif layout.depth < 8:
            band = band * np.uint8(255 // (2**layout.depth - 1))
        return self._one_sample(band)

    def _one_sample(self, band: NDArray[Any]) -> NDArray[Any]:
        """(rows, columns) of (rows, columns) or (rows, columns, samples)."""
        if band.ndim == 2:
            return band
        grey: NDArray[Any] = band[..., 0]
        if band.shape[2] > 2 and not (np.array_equal(grey, band[..., 1]) and np.array_equal(grey, band[..., 2])):
            raise SourceCorruptError(f"{self._what}: is a colour picture; grey values are read")
        return grey

    def _decode_whole(self) -> NDArray[Any]:
        if self._whole is None:
            stored = self._file.all()
            if self._layout.row_bytes * self._layout.rows > _MAX_RATIO * len(stored):
                raise SourceCorruptError(f"{self._what}: {len(stored)} bytes cannot hold a picture of {self.shape}")
            try:
                decoded: NDArray[Any] = imagecodecs.png_decode(stored)
            except Exception as error:  # a codec raises its own kinds
                raise SourceCorruptError(f"{self._what}: does not decode: {error}") from error
            self._whole = np.ascontiguousarray(self._one_sample(decoded))
        return self._whole


@dataclass(slots=True)
class _Pass:
    """How far one reading from the first row has come."""

    inflater: _Inflater
    row: int
    """The next one."""
    above: bytes
    """The row above it, unfiltered."""


class _Inflater:
    """The rows with their filters, from one deflate stream."""

    def __init__(self, pieces: Iterator[bytes], what: str) -> None:
        self._pieces = pieces
        self._what = what
        self._stream = isal_zlib.decompressobj()

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        parts = []
        while size:
            parts.append(self._some(size))
            size -= len(parts[-1])
        return b"".join(parts)

    def skip(self, size: int) -> None:
        """Go on as `take` does, but keep nothing."""
        while size:
            size -= len(self._some(min(size, _BLOCK)))

    def _some(self, most: int) -> bytes:
        try:
            # At first without more input, for the stream may have kept output back.
            part = self._stream.decompress(self._stream.unconsumed_tail, most)
            while not part:
                piece = None if self._stream.eof else next(self._pieces, None)
                if piece is None:
                    raise SourceCorruptError(f"{self._what}: inflates to too few bytes for its size")
                part = self._stream.decompress(self._stream.unconsumed_tail + piece, most)
        except IsalError as error:  # type: ignore[misc]  # isal's own types call it an instance
            raise SourceCorruptError(f"{self._what}: does not inflate: {error}") from error
        return part


class _File:
    """A file of unknown length, read in large blocks."""

    def __init__(self, read: ReadRange, what: str) -> None:
        self._read = read
        self._what = what
        self._start = 0
        self._block = b""

    def get(self, start: int, stop: int) -> bytes:
        """All bytes of [start, stop)."""
        if not self._start <= start <= stop <= self._start + len(self._block):
            self._start, self._block = start, self._read(start, max(stop, start + _BLOCK))
        if stop > self._start + len(self._block):
            raise SourceCorruptError(f"{self._what}: the file is cut off: it ends before byte {stop}")
        return self._block[start - self._start : stop - self._start]

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        """All bytes of [start, stop), so many at a time as fit in memory."""
        for at in range(start, stop, _BLOCK):
            yield self.get(at, min(at + _BLOCK, stop))

    def all(self) -> bytes:
        """The whole file."""
        blocks: list[bytes] = []
        while not blocks or len(blocks[-1]) == _BLOCK:
            blocks.append(self._read(len(blocks) * _BLOCK, (len(blocks) + 1) * _BLOCK))
        return b"".join(blocks)


def _read_start(file: _File, what: str) -> tuple[_Layout, NDArray[np.uint8] | None, int]:
    """The layout, the grey values of a palette's indices, where the first chunk of rows begins."""
    if (begin := file.get(0, len(_SIGNATURE))) != _SIGNATURE:
        raise SourceCorruptError(f"{what}: not a PNG: it begins with {begin!r}")
    chunk = _chunk_at(file, len(_SIGNATURE), what)
    layout = _norm_layout(b"".join(_data(file, chunk, what)) if chunk.name == b"IHDR" else b"", what)
    palette = None
    while (chunk := _chunk_at(file, chunk.next, what)).name != b"IDAT":
        data = _data(file, chunk, what)
        if chunk.name == b"IEND":
            raise SourceCorruptError(f"{what}: a PNG without rows")
        if chunk.name == b"PLTE" and layout.colour == _PALETTE:
            palette = _norm_palette(b"".join(data), what)
    if layout.colour == _PALETTE and palette is None:
        raise SourceCorruptError(f"{what}: a PNG without its palette")
    return layout, palette, chunk.start - _CHUNK.size


def _norm_layout(stored: bytes, what: str) -> _Layout:
    if len(stored) != _HEADER.size:
        raise SourceCorruptError(f"{what}: a PNG that does not begin with its header")
    columns, rows, depth, colour, compression, method, interlacing = _HEADER.unpack(stored)
    if not (0 < columns <= _MAX_SIDE and 0 < rows <= _MAX_SIDE):
        raise SourceCorruptError(f"{what}: a PNG of {rows} rows, {columns} columns; 1 to {_MAX_SIDE} are read")
    if depth not in _DEPTHS.get(colour, ()) or compression or method or interlacing > 1:
        fields = f"depth {depth}, colour type {colour}, methods {compression}, {method}, {interlacing}"
        raise SourceCorruptError(f"{what}: a PNG whose header is wrong: {fields}")
    return _Layout(columns, rows, depth, colour, bool(interlacing))


def _norm_palette(stored: bytes, what: str) -> NDArray[np.uint8]:
    if not 0 < len(stored) <= 3 * 256 or len(stored) % 3:
        raise SourceCorruptError(f"{what}: a PNG whose palette has {len(stored)} bytes")
    colours = np.frombuffer(stored, np.uint8).reshape(-1, 3)
    if (colours != colours[:, :1]).any():
        raise SourceCorruptError(f"{what}: holds palette indices, and the palette has colours; grey values are read")
    return colours[:, 0].copy()


@dataclass(frozen=True, slots=True)
class _Chunk:
    """A part of the file with a name, and a checksum behind it."""

    name: bytes
    start: int
    """Of its data in the file."""
    stop: int

    @property
    def next(self) -> int:
        """Where the next chunk begins: behind the checksum."""
        return self.stop + 4


def _chunk_at(file: _File, at: int, what: str) -> _Chunk:
    length, name = _CHUNK.unpack(file.get(at, at + _CHUNK.size))
    if length >= 2**31 or not name.isalpha():
        raise SourceCorruptError(f"{what}: byte {at} should begin a chunk, and holds {name!r} of {length} bytes")
    return _Chunk(name, at + _CHUNK.size, at + _CHUNK.size + length)


def _data(file: _File, chunk: _Chunk, what: str) -> Iterator[bytes]:
    """The data of a chunk. Its checksum comes last, so that a long one is read twice: nothing unchecked is used."""
    crc = isal_zlib.crc32(chunk.name)
    for piece in file.pieces(chunk.start, chunk.stop):
        crc = isal_zlib.crc32(piece, crc)
    if crc != int.from_bytes(file.get(chunk.stop, chunk.next)):
        raise SourceCorruptError(f"{what}: the chunk {chunk.name.decode()} at byte {chunk.start} fails its checksum")
    return file.pieces(chunk.start, chunk.stop)


def _deflated(file: _File, at: int, what: str) -> Iterator[bytes]:
    """The deflate stream, from the first chunk of rows on."""
    while (chunk := _chunk_at(file, at, what)).name == b"IDAT":
        yield from _data(file, chunk, what)
        at = chunk.next


def _as_png(layout: _Layout, stored: bytes) -> bytes:
    """A PNG of rows that carry their filters, as quick to make and to decode as can be: stored, not deflated."""
    columns, depth, colour = layout.as_bytes
    header = _HEADER.pack(columns, len(stored) // (1 + layout.row_bytes), depth, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", _wrapped(stored)), (b"IEND", b""))
    return _SIGNATURE + b"".join(_make_chunk(name, data) for name, data in chunks)


def _wrapped(data: bytes) -> bytes:
    """A zlib stream of stored blocks (RFC 1950; RFC 1951, 3.2.4): zlib makes one, too, in five times the time."""
    parts = [b"\x78\x01"]
    for at in range(0, len(data), _MAX_STORED):
        size = min(_MAX_STORED, len(data) - at)
        parts += [struct.pack("<BHH", at + size == len(data), size, size ^ 0xFFFF), data[at : at + size]]
    return b"".join((*parts, isal_zlib.adler32(data).to_bytes(4)))


def _make_chunk(name: bytes, data: bytes) -> bytes:
    return b"".join((_CHUNK.pack(len(data), name), data, isal_zlib.crc32(data, isal_zlib.crc32(name)).to_bytes(4)))
