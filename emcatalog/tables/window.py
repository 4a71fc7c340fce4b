"""A remote file as pyarrow reads it: what is known to be needed is asked for at once, and read from memory."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import Final

from emcatalog.errors import SourceChangedError, SourceCorruptError
from emcatalog.stores import ObjectReader, PendingBytes

GAP: Final = 64 << 10
"""Bytes that are read in vain rather than asked around: what a server sends in the time that a request takes."""

_SHARE: Final = 10
"""Of what is wanted, at most one part in so many may be read in vain."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a file, in memory."""

    start: int
    """Where it begins."""
    content: bytes
    """What stands there."""

    @property
    def stop(self) -> int:
        """Where it ends."""
        return self.start + len(self.content)


@dataclass(slots=True)
class VersionedFile:
    """One object of which every part is to be of the same version. Can be read by several threads."""

    reader: ObjectReader
    """Where it lies."""
    nbytes: int
    """Of all of it."""
    version: bytes = field(default=b"", init=False)
    """What its store calls the version that is read: empty before the first part, or where the store says nothing."""

    @property
    def what(self) -> str:
        """For messages."""
        return self.reader.what

    def begin(self, *ranges: tuple[int, int]) -> Callable[[], list[bytes]]:
        """Ask for the bytes ``[start, stop)`` of some ranges, all at the same time.

        Returns:
            What waits for them, and raises what ``read`` raises.
        """
        return partial(self._wait, [self.reader.begin(start, stop) for start, stop in ranges])

    def read(self, *ranges: tuple[int, int]) -> list[bytes]:
        """The bytes ``[start, stop)`` of some ranges.

        Raises:
            SourceChangedError: the object was replaced since its first part was read.
            SourceError: it is not there or shorter, or the server failed, after its retries.
        """
        return self.begin(*ranges)()

    def read_part(self, start: int, stop: int) -> Part:
        """One range, as a part.

        Raises:
            SourceError: as ``read``.
        """
        return Part(start, self.read((start, stop))[0] if start < stop else b"")

    def begin_joined(self, ranges: Iterable[tuple[int, int]]) -> Callable[[], list[Part]]:
        """Begin to read ranges as parts: neighbours in one request, with the little that lies between them.

        Returns:
            What waits for them, and raises what ``read`` raises.
        """
        joined = join_ranges(ranges)
        pending = self.begin(*joined)
        return lambda: [Part(start, content) for (start, _), content in zip(joined, pending(), strict=True)]

    def read_joined(self, ranges: Iterable[tuple[int, int]]) -> list[Part]:
        """The same, waited for.

        Raises:
            SourceError: as ``read``.
        """
        return self.begin_joined(ranges)()

    def _wait(self, pending: Iterable[PendingBytes]) -> list[bytes]:
        try:
            return [self._of_this_version(*part.result()) for part in pending]
        except SourceCorruptError:
            # A server that refuses a range does not say of which version: it may be a new, shorter one.
            self._of_this_version(*self.reader.begin(0, 1).result())
            raise

    def _of_this_version(self, content: bytes, version: bytes) -> bytes:
        self.version = self.version or version
        if version != self.version:
            raise SourceChangedError(f"{self.what} was replaced while it was read; ask again")
        return content


class Window(io.RawIOBase):
    """A file for pyarrow, of which some parts are in memory; what else it reads is asked for when it does."""

    def __init__(self, file: VersionedFile, parts: list[Part]) -> None:
        """Nothing is read yet.

        Args:
            file: the file.
            parts: what of it is in memory.
        """
        self.parts = parts
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go elsewhere."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.nbytes}[whence]
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Bytes from here on."""
        start = self._at
        stop = self._file.nbytes if size is None or size < 0 else min(start + size, self._file.nbytes)
        self._at = max(start, stop)
        for part in self.parts:
            if part.start <= start and stop <= part.stop:
                return part.content[start - part.start : stop - part.start]
        return self._file.read((start, stop))[0] if start < stop else b""


def join_ranges(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges ``[start, stop)`` in order, neighbours joined where little lies between them."""
    ordered = sorted(each for each in ranges if each[0] < each[1])
    ends = accumulate((stop for _, stop in ordered), max)
    gaps = [max(0, start - end) for end, (start, _) in zip(ends, ordered[1:], strict=False)]
    allowed = sum(stop - start for start, stop in ordered) // _SHARE
    bridged = set()
    for gap, number in sorted((gap, number) for number, gap in enumerate(gaps)):
        allowed -= gap
        if gap > GAP or allowed < 0:
            break
        bridged.add(number)
    joined: list[tuple[int, int]] = []
    for number, (start, stop) in enumerate(ordered):
        if number - 1 in bridged:
            joined[-1] = joined[-1][0], max(joined[-1][1], stop)
        else:
            joined.append((start, stop))
    return joined
