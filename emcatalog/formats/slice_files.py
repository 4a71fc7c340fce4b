"""The files of a stack: read by ranges where that can be, kept whole beside the mirror where not."""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Generic, TypeVar

import tensorstore as ts

from emcatalog.errors import NoRangesError, SlowSourceWarning, SourceCorruptError, SourceMissingError
from emcatalog.formats.documents import Documents
from emcatalog.formats.slices import Slice, open_slice
from emcatalog.formats.tiff import ReadRange
from emcatalog.memory import release_free_memory
from emcatalog.stores import ObjectReader, source_errors

_DOWNLOADS: Final = 3
"""Whole files on their way at one time."""

_told: Final[set[str]] = set()
"""Stacks of which this process has said that they are slow: Python's own filter forgets, whenever somebody sets one."""


@dataclass
class SliceFiles:
    """Opens slices by number. Can be used from several threads."""

    documents: Documents
    whole: bool = False
    """Whether the server is known to send whole files only."""
    _downloads: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(_DOWNLOADS))

    def address(self, z: int) -> str:
        """For messages."""
        return self.documents.address(self._name(z))

    def open(self, z: int, *, header: bool = False) -> Slice:
        """A slice.

        Args:
            z: its number.
            header: whether only its shape is asked for, for which even of a PNG the first bytes do.

        Raises:
            SourceError: it is not there, or not what it should be; what is damaged is neither kept nor used.
        """
        is_tiff = self.documents.location.format == "tiff"
        with suppress(SourceMissingError, SourceCorruptError):
            kept = self._checked(self._local(z), z)
            self.whole |= is_tiff  # of a server that sends parts no TIFF is kept
            return kept
        if (is_tiff or header) and not self.whole:
            try:
                return self._open(self._remote(z), z)
            except NoRangesError:
                self.settle_for_whole_files()
        with self._downloads:
            self._download(z)
            release_free_memory()  # or each thread's arena keeps what its files took
        return self._open(self._local(z), z)

    def forget(self, z: int) -> None:
        """Drop what was kept of a slice."""
        self._place.write(self._name(z), None).result()

    def settle_for_whole_files(self) -> None:
        """Read no more by ranges, and say once what that means."""
        self.whole = True
        if self.documents.location.format == "tiff":
            self._downloads = threading.Semaphore(1)  # files of a gigabyte pass through memory
            if (stack := str(self.documents.location)) not in _told:
                _told.add(stack)
                warnings.warn(
                    f"{stack}: the server sends whole files only, so that each slice is downloaded whole; they are"
                    " kept, and the next box in them is quick",
                    SlowSourceWarning,
                    stacklevel=2,
                )

    def _download(self, z: int) -> None:
        content = self._remote(z).whole()
        self._checked(lambda start, stop: content[start:stop], z)
        with source_errors(self.address(z)):
            self._place.write(self._name(z), content).result()

    def _checked(self, read: ReadRange, z: int) -> Slice:
        opened = self._open(read, z)
        opened.check()
        return opened

    def _open(self, read: ReadRange, z: int) -> Slice:
        return open_slice(self.documents.location.format, read, self.address(z))

    def _remote(self, z: int) -> ObjectReader:
        return ObjectReader(self.documents.store.open(), self._name(z), self.address(z))

    def _local(self, z: int) -> ObjectReader:
        return ObjectReader(self._place, self._name(z), self.address(z))

    @cached_property
    def _place(self) -> ts.KvStore:
        """Where files are kept; in memory where nobody named a place, as when a catalog is only held against them."""
        if self.documents.keep is not None:
            return self.documents.keep.open()
        return ts.KvStore.open({"driver": "memory"}, context=ts.Context()).result()

    def _name(self, z: int) -> str:
        return self.documents.location.slice_name(z)


_T = TypeVar("_T")


@dataclass
class _Entry(Generic[_T]):
    lock: threading.Lock = field(default_factory=threading.Lock)
    value: _T | None = None
    error: Exception | None = None


class Opened(Generic[_T]):
    """What was opened last, by number. Threads that want the same open it once, and fail together."""

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
            if entry.error is not None:
                raise entry.error
            if entry.value is None:
                entry.value = self._try(number, entry)
            return entry.value

    def forget(self, number: int) -> None:
        """Open it anew when it is asked for again."""
        with self._lock:
            self._entries.pop(number, None)

    def _try(self, number: int, entry: _Entry[_T]) -> _T:
        try:
            return self._open_one(number)
        except Exception as error:
            entry.error = error  # for those who wait; who comes later tries again
            self.forget(number)
            raise
