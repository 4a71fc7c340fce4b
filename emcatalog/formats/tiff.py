"""One TIFF slice, of which only the strips or tiles that a block of voxels needs are read.

A slice may be hundreds of megabytes behind HTTP. tifffile parses the header, imagecodecs decodes the strips; between
them stands which byte ranges to ask for. The form is https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import IO, Any, Final, Literal, cast

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from emcatalog.errors import OutOfBoundsError, SourceCorruptError, listing

ReadRange = Callable[[int, int], bytes]
"""Bytes [start, stop) of the object; fewer where the object ends before stop. Several threads may call it at once."""

Span = tuple[int, int]
"""[begin, end) along one axis."""

Decoder = Callable[[Sequence[bytes], int, int], Iterable[bytes | bytearray | NDArray[np.uint8]]]
"""Decodes strips or tiles of so many bytes each; some writers store a last strip of as many as the second number."""


def _as_they_are(stored: Sequence[bytes], size: int, room: int) -> Iterable[bytes]:  # noqa: ARG001  # a Decoder
    return stored


def _one_by_one(decode: Callable[..., bytes | bytearray]) -> Decoder:
    def decode_all(stored: Sequence[bytes], size: int, room: int) -> Iterable[bytes | bytearray]:  # noqa: ARG001
        return [decode(one, out=room) for one in stored]

    return decode_all


def _lzw(stored: Sequence[bytes], size: int, room: int) -> NDArray[np.uint8]:  # noqa: ARG001  # libtiff reads `size`
    """By libtiff, as the rows of a small TIFF of bytes.

    In imagecodecs' own LZW decoder (up to 2026.5.10) the process dies where the first code after a clear code is beyond
    the table: https://github.com/cgohlke/imagecodecs/blob/v2026.5.10/imagecodecs/imcd.c. libtiff is also quicker.
    """
    file = io.BytesIO()
    # Without the photometric tag, three or four columns would be taken for colours.
    tifffile.imwrite(
        file,
        iter(stored),
        shape=(len(stored), size),
        dtype=np.uint8,
        photometric="minisblack",
        rowsperstrip=1,
        compression="lzw",
        metadata=None,
    )
    decoded: NDArray[np.uint8] = imagecodecs.tiff_decode(file.getvalue())
    return decoded


_UNCOMPRESSED: Final = 1
_PACKBITS: Final = 32773
_CODECS: Final[dict[int, tuple[str, Decoder]]] = {
    _UNCOMPRESSED: ("uncompressed", _as_they_are),
    5: ("lzw", _lzw),
    8: ("zlib", _one_by_one(imagecodecs.deflate_decode)),
    _PACKBITS: ("packbits", _one_by_one(imagecodecs.packbits_decode)),
    32946: ("zlib", _one_by_one(imagecodecs.deflate_decode)),
    34925: ("lzma", _one_by_one(imagecodecs.lzma_decode)),
    50000: ("zstd", _one_by_one(imagecodecs.zstd_decode)),
}
"""The Compression tag -> its name, what undoes it."""

_PREDICTORS: Final[dict[int, Callable[..., NDArray[Any]] | None]] = {
    1: None,
    2: imagecodecs.delta_decode,
    3: imagecodecs.floatpred_decode,
}
"""The Predictor tag -> what undoes it."""

_FIRST_READ: Final = 2**16
"""Holds the whole header of most files."""
_NEXT_READ: Final = 2**18
"""Holds both strip tables of 20000 strips, wherever in the file they begin."""
_MAX_TAG: Final = 2**26
"""Bytes of one tag: above that, the count is garbage."""
_MAX_SEGMENT: Final = 2**31
"""Bytes of one decoded strip or tile: above that, its size is garbage, or reading by blocks would not help."""
_MAX_SIDE: Final = 2**22
"""Rows or columns: above that, the number is garbage."""
_MAX_GAP: Final = 2**16
"""Bytes that are read and thrown away rather than asking once more."""
_MAX_RANGE: Final = 2**24
"""Bytes of one request, unless one strip has more: what a call holds in memory."""
_MAX_BATCH: Final = 2**22
"""Bytes that are decoded at one time, unless one strip has more."""


@dataclass(frozen=True, slots=True, eq=False)
class TiffHeader:
    """What reading the first page of a TIFF takes. Small, and can be pickled."""

    shape: tuple[int, int]
    """(rows, columns)."""
    dtype: str
    """Of the voxels, in the machine's byte order: ``"uint16"``."""
    segment: tuple[int, int]
    """(rows, columns) that are read and decoded together: of a strip, or of a tile.

    The rows of an uncompressed strip can be read apart, so it counts as strips of one row.
    """
    tiled: bool
    """Tiles are stored whole, also where they reach over the edge; the last strip is stored cut."""
    compression: int
    """The tag's number."""
    predictor: int
    """The tag's number."""
    byteorder: Literal["<", ">"]
    offsets: NDArray[np.unsignedinteger[Any]] = field(repr=False)
    """Where each strip or tile begins in the file, row by row."""
    bytecounts: NDArray[np.unsignedinteger[Any]] = field(repr=False)
    """How many bytes it has; 0 where it was left out because its voxels are all zero (GDAL's sparse files)."""

    @property
    def encoding(self) -> str:
        """How the voxels are stored, as text: ``"tiff lzw, predictor 2, strips of 1 row"``."""
        rows, columns = self.segment
        strips = f"strips of {rows} {'row' if rows == 1 else 'rows'}"
        layout = f"tiles of {rows} x {columns}" if self.tiled else strips
        predictor = f", predictor {self.predictor}" if self.predictor != 1 else ""
        return f"tiff {_CODECS[self.compression][0]}{predictor}, {layout}"


@dataclass(frozen=True, slots=True)
class _Segment:
    """A strip or a tile that the file holds."""

    rows: Span
    """Rows of the picture that are stored in it; those of a tile may reach over the edge."""
    columns: Span
    start: int
    """Its first byte in the file."""
    stop: int

    def __str__(self) -> str:
        (top, bottom), (left, right) = self.rows, self.columns
        return f"strip or tile of rows {top}:{bottom}, columns {left}:{right} (bytes {self.start} to {self.stop})"


def read_header(read: ReadRange, what: str) -> TiffHeader:
    """The header of the first page, from a few requests: two or three for 20000 strips.

    Args:
        read: reads the file.
        what: the file's name in messages.

    Raises:
        SourceCorruptError: not a TIFF, a header that is cut off, or a kind of TIFF that is not read here.
    """
    file = _HeaderFile(read)
    try:
        # Without a size, tifffile looks for the end of the file; the layouts of these vendors make it read more pages.
        handle = cast("IO[bytes]", file)
        tiff = tifffile.TiffFile(handle, size=2**62, is_lsm=False, is_ndpi=False, is_scanimage=False)
        page = tiff.pages.first
    except Exception as error:  # on garbage, tifffile raises many kinds
        file.check()
        raise SourceCorruptError(f"{what}: not a TIFF that can be read: {file.explain(error)}") from error
    file.check()
    _check_kind(page, what)
    return _make_header(page, file, what)


def read_block(header: TiffHeader, read: ReadRange, rows: Span, columns: Span, what: str) -> NDArray[Any]:
    """The voxels of a block, (rows, columns) of the header's dtype.

    Only the strips or tiles that overlap it are read; those that are neighbours in the file, in one request.

    Args:
        header: what `read_header` gave for this file.
        read: reads the file.
        rows: [begin, end) of the block.
        columns: [begin, end) of the block.
        what: the file's name in messages.

    Raises:
        OutOfBoundsError: the block is not inside the picture.
        SourceCorruptError: a strip or tile is cut off, or does not decode.
    """
    for (begin, end), size in zip((rows, columns), header.shape, strict=True):
        if not 0 <= begin <= end <= size:
            raise OutOfBoundsError(f"{what}: rows {rows}, columns {columns} of a picture of shape {header.shape}")
    block = np.zeros((rows[1] - rows[0], columns[1] - columns[0]), header.dtype)
    for segments in _requests(_overlapping(header, rows, columns)):
        start = segments[0].start
        stored = read(start, max(segment.stop for segment in segments))
        for segment in segments:
            if len(stored) < segment.stop - start:
                raise SourceCorruptError(f"{what}: the file ends at byte {start + len(stored)}, before the {segment}")
        for batch in _batches(header, segments):
            parts = [stored[segment.start - start : segment.stop - start] for segment in batch]
            for segment, voxels in zip(batch, _decode(header, batch, parts, what), strict=True):
                _place(block, (rows[0], columns[0]), voxels, segment)
    return block


class _HeaderFile:
    """A file of unknown length, as much of one as tifffile needs to parse a header."""

    def __init__(self, read: ReadRange) -> None:
        self._read = read
        self._position = 0
        self._blocks: list[tuple[int, bytes]] = []
        self._end: int | None = None
        self._failure: Exception | None = None

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = offset + (self._position if whence == 1 else 0)
        return self._position

    def read(self, size: int) -> bytes:
        if size > _MAX_TAG:
            raise tifffile.TiffFileError(f"a tag of {size} bytes at byte {self._position}")
        start, block = self._block(self._position, size)
        data = block[self._position - start :][:size]
        self._position += len(data)
        return data

    def _block(self, begin: int, size: int) -> tuple[int, bytes]:
        for start, block in self._blocks:
            if start <= begin and begin + size <= start + len(block):
                return start, block
        ahead = max(size, _NEXT_READ if self._blocks else _FIRST_READ)
        try:
            block = self._read(begin, begin + ahead)
        except Exception as error:
            self._failure = error
            raise
        if len(block) < size:
            self._end = begin + len(block)
        self._blocks.append((begin, block))
        return begin, block

    def check(self) -> None:
        """Raise what reading raised: tifffile swallows it, or turns it into an error of its own."""
        if self._failure:
            raise self._failure

    def explain(self, problem: object) -> str:
        """The problem, and that the file ends too early if it does."""
        cut = "" if self._end is None else f" (the header is cut off: the file ends at byte {self._end})"
        return f"{problem}{cut}"


def _check_kind(page: tifffile.TiffPage, what: str) -> None:
    """Refuse what would not decode, or would decode to something else than the voxels."""
    refused = None
    sizes = page.imagelength, page.imagewidth, page.rowsperstrip, page.tilelength, page.tilewidth
    if not all(isinstance(number, int) for number in (*sizes, page.compression, page.predictor)):
        refused = "a tag that should hold one whole number"
    elif page.samplesperpixel != 1 or len(page.shape) != 2:
        refused = f"{page.samplesperpixel} samples a pixel, shape {page.shape}; one sample and two axes are read"
    elif 0 in page.shape or 0 in _segment_shape(page):
        refused = f"a picture of shape {page.shape} in strips or tiles of {_segment_shape(page)}"
    elif page.dtype is None or page.dtype.kind not in "iuf" or page.bitspersample != 8 * page.dtype.itemsize:
        refused = f"samples of {page.bitspersample} bits, format {page.sampleformat}; whole bytes are read"
    elif page.compression not in _CODECS:
        known = listing(dict.fromkeys(name for name, _ in _CODECS.values()))
        refused = f"the compression {page.compression!r}; what is read: {known}"
    elif page.predictor not in _PREDICTORS or (page.predictor == 3 and page.dtype.kind != "f"):
        refused = f"the predictor {page.predictor!r} of {page.dtype}"
    elif page.predictor != 1 and page.compression == _PACKBITS:
        refused = "packbits and a predictor, which libtiff takes for voxels as they are, and tifffile for differences"
    elif page.fillorder != 1:
        refused = "bytes whose bits are in reverse order (FillOrder 2)"
    elif max(page.shape) > _MAX_SIDE or math.prod(_read_together(page)) * page.dtype.itemsize > _MAX_SEGMENT:
        refused = f"an absurd size: shape {page.shape}, in strips or tiles of {_segment_shape(page)}"
    if refused:
        raise SourceCorruptError(f"{what}: a TIFF with {refused}")


def _segment_shape(page: tifffile.TiffPage) -> tuple[int, int]:
    return (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)


def _read_together(page: tifffile.TiffPage) -> tuple[int, int]:
    """The shape of a strip or tile; but an uncompressed strip, often the whole picture, can be read row by row."""
    rows, columns = _segment_shape(page)
    return (1 if page.compression == _UNCOMPRESSED and not page.is_tiled else rows, columns)


def _make_header(page: tifffile.TiffPage, file: _HeaderFile, what: str) -> TiffHeader:
    assert page.dtype is not None  # _check_kind
    rows, columns = page.imagelength, page.imagewidth
    (height, width), segment = _segment_shape(page), _read_together(page)
    expected = -(-rows // height) * -(-columns // width)
    offsets = _norm_table(page.dataoffsets, expected, file, f"{what}: a TIFF with offsets of strips or tiles")
    bytecounts = _norm_table(page.databytecounts, expected, file, f"{what}: a TIFF with byte counts of strips or tiles")
    if segment[0] != height:
        offsets, bytecounts = _split_into_rows(offsets, bytecounts, rows, height, columns * page.dtype.itemsize, what)
    # No codec makes noise twice as large; a count of garbage would be asked for in one request.
    wrong = (bytecounts > 2 * math.prod(segment) * page.dtype.itemsize + _MAX_GAP) | ((offsets < 8) & (bytecounts > 0))
    if wrong.any():
        first = int(wrong.argmax())
        place = f"{bytecounts[first]} bytes at byte {offsets[first]}"
        raise SourceCorruptError(f"{what}: a TIFF with a strip or tile (number {first}) of {place}, which cannot be")
    return TiffHeader(
        (rows, columns),
        page.dtype.name,
        segment,
        page.is_tiled,
        int(page.compression),
        # libtiff and ImageJ do not look at the predictor of what is not compressed: some writers leave it there.
        1 if page.compression == _UNCOMPRESSED else int(page.predictor),
        page.parent.byteorder,
        _compact(offsets),
        _compact(bytecounts),
    )


def _norm_table(stored: object, expected: int, file: _HeaderFile, what: str) -> NDArray[np.uint64]:
    table = np.asarray(stored)
    if table.shape != (expected,):
        raise SourceCorruptError(f"{what}: {file.explain(f'{table.size} of them, for {expected}')}")
    if table.dtype.kind not in "iu" or table.min() < 0:
        raise SourceCorruptError(f"{what}: that are not whole numbers")
    return table.astype(np.uint64)


def _split_into_rows(
    offsets: NDArray[np.uint64], bytecounts: NDArray[np.uint64], rows: int, height: int, row_bytes: int, what: str
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The tables of uncompressed strips as if each row were a strip."""
    row = np.arange(rows, dtype=np.uint64)
    strip, inside = row // np.uint64(height), row % np.uint64(height)
    short = (bytecounts[strip] > 0) & (bytecounts[strip] < (inside + np.uint64(1)) * np.uint64(row_bytes))
    if short.any():
        first = int(short.argmax())
        raise SourceCorruptError(
            f"{what}: a TIFF whose uncompressed strip of {bytecounts[strip[first]]} bytes ends before its row {first}"
        )
    return offsets[strip] + inside * np.uint64(row_bytes), np.where(bytecounts[strip] > 0, np.uint64(row_bytes), 0)


def _compact(table: NDArray[np.uint64]) -> NDArray[np.unsignedinteger[Any]]:
    """The same numbers in the fewest bytes: headers of all slices of a volume are kept."""
    return table.astype(np.min_scalar_type(table.max()))


def _overlapping(header: TiffHeader, rows: Span, columns: Span) -> list[_Segment]:
    """Strips or tiles that overlap the block and that the file holds, as they follow each other in the file."""
    (height, width), (image_rows, image_columns) = header.segment, header.shape
    across = -(-image_columns // width)
    found = []
    for top in range(rows[0] // height * height, rows[1], height):
        for left in range(columns[0] // width * width, columns[1], width):
            index = top // height * across + left // width
            start, size = int(header.offsets[index]), int(header.bytecounts[index])
            bottom = top + height if header.tiled else min(top + height, image_rows)
            if size:
                found.append(_Segment((top, bottom), (left, left + width), start, start + size))
    return sorted(found, key=lambda segment: segment.start)


def _requests(segments: list[_Segment]) -> Iterator[list[_Segment]]:
    """The segments, grouped into those that one request reads."""
    group: list[_Segment] = []
    stop = 0
    for segment in segments:
        if group and (segment.start - stop > _MAX_GAP or segment.stop - group[0].start > _MAX_RANGE):
            yield group
            group = []
        stop = max(stop, segment.stop) if group else segment.stop
        group.append(segment)
    if group:
        yield group


def _batches(header: TiffHeader, segments: list[_Segment]) -> Iterator[list[_Segment]]:
    """The segments, grouped into those of one size that are decoded together."""
    at_once = max(1, _MAX_BATCH // (math.prod(header.segment) * np.dtype(header.dtype).itemsize))
    for _, same in groupby(segments, key=lambda segment: segment.rows[1] - segment.rows[0]):
        alike = list(same)
        yield from (alike[first : first + at_once] for first in range(0, len(alike), at_once))


def _decode(header: TiffHeader, segments: list[_Segment], stored: list[bytes], what: str) -> list[NDArray[Any]]:
    """The voxels of strips or tiles of one size, each (rows, columns)."""
    rows, columns = segments[0].rows[1] - segments[0].rows[0], header.segment[1]
    name, decompress = _CODECS[header.compression]
    itemsize = np.dtype(header.dtype).itemsize
    try:
        decompressed = decompress(stored, rows * columns * itemsize, header.segment[0] * columns * itemsize)
        return [_unpredict(header, raw, rows, columns) for raw in decompressed]
    except Exception as error:  # each codec raises its own kinds
        if len(segments) > 1:  # one by one, to say which
            return [_decode(header, [one], [part], what)[0] for one, part in zip(segments, stored, strict=True)]
        raise SourceCorruptError(f"{what}: the {segments[0]} does not decode as {name}: {error}") from error


def _unpredict(header: TiffHeader, raw: Any, rows: int, columns: int) -> NDArray[Any]:
    # The floating point predictor splits numbers into bytes, most significant first whatever the file's order is.
    dtype = np.dtype(header.dtype).newbyteorder("=" if header.predictor == 3 else header.byteorder)
    voxels = np.frombuffer(raw, dtype, rows * columns).reshape(rows, columns).astype(header.dtype, copy=False)
    unpredict = _PREDICTORS[header.predictor]
    return voxels if unpredict is None else unpredict(voxels, axis=-1)


def _place(block: NDArray[Any], corner: tuple[int, int], decoded: NDArray[Any], segment: _Segment) -> None:
    """Copy into the block, whose first voxel is at `corner`, the part of a segment that lies in it."""
    into, out_of = [], []
    for size, first, begin, length in zip(
        block.shape, corner, (segment.rows[0], segment.columns[0]), decoded.shape, strict=True
    ):
        low, high = max(first, begin), min(first + size, begin + length)
        into.append(slice(low - first, high - first))
        out_of.append(slice(low - begin, high - begin))
    block[tuple(into)] = decoded[tuple(out_of)]
