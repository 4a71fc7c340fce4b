"""One slice of a stack, open: a TIFF of which strips or tiles are read, or a PNG that is decoded from its beginning."""

from __future__ import annotations

import os
from threading import BoundedSemaphore
from typing import Any, Final, Protocol

from numpy.typing import NDArray

from emcatalog.formats.png import PngReader
from emcatalog.formats.tiff import ReadRange, read_block, read_header

STRIP_ROWS: Final = 64
"""Rows of a TIFF that are read as one, or nearly: strips of one row would be a request each."""

BAND_ROWS: Final = 128
"""Rows of a PNG that are read as one. All rows above them are decoded, so that a few more cost little."""


_DECODERS: Final = BoundedSemaphore(os.cpu_count() or 1)
"""PNGs that are decoded at one time: with more threads than processors, each decodes a third slower."""


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

    def check(self) -> None:
        """Look at all that can be told without decoding, before the file is kept.

        Raises:
            SourceCorruptError: it is damaged.
        """


class TiffSlice:
    """A slice of which strips or tiles are read."""

    def __init__(self, read: ReadRange, what: str) -> None:
        """Read the header.

        Raises:
            SourceError: it is not there, or not a TIFF that is read.
        """
        self._read, self._what = read, what
        self._header = read_header(read, what)
        self.shape, self.dtype, self.encoding = self._header.shape, self._header.dtype, self._header.encoding

    @property
    def chunk(self) -> tuple[int, int]:
        """A tile, or strips that make about ``STRIP_ROWS`` rows."""
        rows, columns = self._header.segment
        return (rows if columns < self.shape[1] else max(1, STRIP_ROWS // rows) * rows), columns

    def block(self, rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[Any]:
        """Some of its voxels, (rows, columns)."""
        return read_block(self._header, self._read, rows, columns, self._what)

    def check(self) -> None:
        """Its header was read; strips have no checksums."""


class PngSlice:
    """A slice that is decoded from its beginning."""

    encoding = "png stack"

    def __init__(self, read: ReadRange, what: str) -> None:
        """Read the header.

        Raises:
            SourceError: it is not there, or not a PNG that is read.
        """
        self._png = PngReader(read, what)
        self.shape, self.dtype = self._png.shape, self._png.dtype

    @property
    def chunk(self) -> tuple[int, int]:
        """Whole rows."""
        return BAND_ROWS, self.shape[1]

    def block(self, rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[Any]:
        """Some of its voxels, (rows, columns)."""
        with _DECODERS:
            return self._png.rows(*rows)[:, slice(*columns)]

    def check(self) -> None:
        """Hold every chunk against its checksum.

        Raises:
            SourceCorruptError: one fails it, or the file is cut off.
        """
        self._png.check()


def open_slice(form: str, read: ReadRange, what: str) -> Slice:
    """Open one slice.

    Args:
        form: ``tiff`` or ``png``.
        read: of its bytes.
        what: for messages.

    Raises:
        SourceError: it is not there, or not what it should be.
    """
    return TiffSlice(read, what) if form == "tiff" else PngSlice(read, what)
