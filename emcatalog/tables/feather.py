"""A Feather table (the Arrow IPC file format) where it lies: batch by batch, of each the columns that are needed."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import Final, TypeVar

import pyarrow as pa
from pyarrow import ipc

from emcatalog.tables.arrow_layout import TAIL, BatchLayout, Block, Footer, buffers_of, footer_length
from emcatalog.tables.query import EVERYTHING, Where
from emcatalog.tables.stored import check_schema, decoding, take_wanted
from emcatalog.tables.window import Part, VersionedFile, Window
from emcatalog.threads import map_in_order

_FIRST_READ: Final = 64 << 10
"""Of the end of a file: the footer of a table of a thousand batches is in it."""

AHEAD: Final = 16
"""Batches whose metadata, and as many whose columns are on their way: they hide how long a server takes to answer."""

THREADS: Final = 2
"""That decode: more wait for each other, and for the bytes of the next batches."""

_Pending = Callable[[], list[bytes]]
_Item = TypeVar("_Item")
_Reader = tuple[Window, ipc.RecordBatchFileReader]


@dataclass(frozen=True, slots=True)
class _Batch:
    """A record batch of which some columns are on their way."""

    number: int
    metadata: Part
    layout: BatchLayout
    first: Callable[[], list[Part]]
    """Waits for the columns that are looked at first."""


@dataclass(frozen=True)
class FeatherTable:
    """A table whose footer was read. Can be read by several threads; nothing of its rows stays in memory."""

    file: VersionedFile
    """Where it lies."""
    schema: pa.Schema
    """Of all columns, with what pandas wrote about its index."""
    footer: Footer
    """Where its parts lie."""
    end: Part
    """The footer as it is stored, which every reader needs."""
    _idle: defaultdict[tuple[str, ...], list[_Reader]] = field(
        default_factory=lambda: defaultdict(list), repr=False, compare=False
    )
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    @property
    def parts(self) -> int:
        """Record batches, which can be read apart."""
        return len(self.footer.batches)

    def count_rows(self) -> int:
        """How many rows there are: the metadata of every record batch are read.

        Raises:
            SourceError: they cannot be read.
        """
        begun = self._begun(range(self.parts))
        return sum(self._layout(number, pending)[1].rows for number, pending in begun)

    def stored_bytes(self, columns: Sequence[str]) -> int:
        """About how many bytes some columns take: as many a row as in the first batch.

        Raises:
            SourceError: its metadata cannot be read.
        """
        if not self.parts:
            return 0
        first = self.footer.batches[0]
        _, layout = self._layout(0, self._begin(first))
        wanted = sum(stop - start for start, stop in self._ranges(first, layout, columns))
        return round(wanted / max(1, first.body) * sum(block.body for block in self.footer.batches))

    def scan(
        self, columns: Sequence[str], where: Where = EVERYTHING, parts: Sequence[int] | None = None
    ) -> Generator[pa.RecordBatch | None, None, None]:
        """The wanted rows of each record batch in turn; None for one that has none, of which only ``where`` is read.

        Args:
            columns: to give, in this order.
            where: which rows.
            parts: numbers of record batches; default: all.

        Raises:
            SourceChangedError: the file was replaced meanwhile.
            SourceError: it cannot be read, after retries.
        """
        first = where.columns or columns

        def wanted(batch: _Batch) -> pa.RecordBatch | None:
            def read(names: Sequence[str]) -> pa.RecordBatch:
                if names is first:
                    return self._decoded(batch, batch.first(), names)
                ranges = self._ranges(self.footer.batches[batch.number], batch.layout, names)
                return self._decoded(batch, self.file.read_joined(ranges), names)

            return take_wanted(read, columns, where)

        numbers = range(self.parts) if parts is None else parts
        return map_in_order(wanted, _ahead(self._batches(numbers, first)), THREADS)

    def _batches(self, numbers: Sequence[int], columns: Sequence[str]) -> Iterator[_Batch]:
        """Record batches with some columns on their way."""
        for number, pending in self._begun(numbers):
            block = self.footer.batches[number]
            metadata, layout = self._layout(number, pending)
            yield _Batch(number, metadata, layout, self.file.begin_joined(self._ranges(block, layout, columns)))

    def _begun(self, numbers: Sequence[int]) -> Iterator[tuple[int, _Pending]]:
        """Record batches whose metadata are on their way."""
        return _ahead((number, self._begin(self.footer.batches[number])) for number in numbers)

    def _begin(self, block: Block) -> _Pending:
        return self.file.begin((block.offset, block.begin))

    def _layout(self, number: int, pending: _Pending) -> tuple[Part, BatchLayout]:
        """The metadata of a record batch, as they are stored and as they are meant."""
        (content,), block = pending(), self.footer.batches[number]
        with decoding(self.file.what, f"record batch {number}"):
            return Part(block.offset, content), BatchLayout.parse(content, block.body)

    def _ranges(self, block: Block, layout: BatchLayout, columns: Sequence[str]) -> list[tuple[int, int]]:
        """Where the buffers of some columns lie in the file."""
        places, buffers = self._places, layout.buffers.tolist()
        if places is None or sum(map(len, places.values())) != len(buffers):
            return [(block.begin, block.stop)]  # pyarrow knows its way where a type is of a kind that is not known here
        wanted = [buffers[index] for name in columns for index in places[name]]
        return [(block.begin + offset, block.begin + offset + length) for offset, length in wanted]

    @cached_property
    def _places(self) -> dict[str, range] | None:
        return buffers_of(self.schema)

    @property
    def _known(self) -> list[Part]:
        """What every reader needs before it reads rows: the footer, and the dictionaries of all columns."""
        with self._lock:
            return [self.end, *self._dictionaries]

    @cached_property
    def _dictionaries(self) -> list[Part]:
        return self.file.read_joined([(block.offset, block.stop) for block in self.footer.dictionaries])

    def _decoded(self, batch: _Batch, parts: Sequence[Part], columns: Sequence[str]) -> pa.RecordBatch:
        """Some columns of one batch, in this order."""
        known = self._known
        with decoding(self.file.what, f"record batch {batch.number}"):
            window, reader = self._reader(tuple(columns), known)
            window.parts = [*known, batch.metadata, *parts]
            rows = reader.get_batch(batch.number).select(list(columns))
            # A damaged place of a text would be read wherever it points to.
            rows.validate(full=True)
        window.parts = []
        self._idle[tuple(columns)].append((window, reader))
        return rows

    def _reader(self, columns: tuple[str, ...], known: Sequence[Part]) -> _Reader:
        """A reader that nobody else uses: pyarrow's reads a file from one place at a time."""
        try:
            return self._idle[columns].pop()
        except IndexError:
            return _open(self.file, known, [self.schema.get_field_index(name) for name in columns])


def _ahead(items: Iterable[_Item]) -> Iterator[_Item]:
    """The same items, some of which are made before they are needed."""
    made: deque[_Item] = deque()
    for item in items:
        made.append(item)
        if len(made) > AHEAD:
            yield made.popleft()
    yield from made


def open_feather(file: VersionedFile) -> FeatherTable:
    """Read what a table says of itself: the end of the file.

    Raises:
        SourceCorruptError: it is no Arrow IPC file, or not all of one.
        SourceError: it cannot be read.
    """
    first = max(0, file.nbytes - _FIRST_READ)
    end = file.read_part(first, file.nbytes)
    with decoding(file.what, "the table"):
        begin = file.nbytes - TAIL - footer_length(end.content)
        if begin < 0:
            raise ValueError(f"its footer is longer than the file, which has {file.nbytes} bytes")
    if begin < first:
        end = file.read_part(begin, file.nbytes)
    with decoding(file.what, "the table"):
        footer = Footer.parse(end.content[begin - end.start : -TAIL], begin)
        _, reader = _open(file, [end], [])
        check_schema(reader.schema)
    return FeatherTable(file, reader.schema, footer, Part(begin, end.content[begin - end.start :]))


def _open(file: VersionedFile, parts: Sequence[Part], columns: Sequence[int]) -> _Reader:
    window = Window(file, list(parts))
    options = ipc.IpcReadOptions(included_fields=list(columns), use_threads=False)
    return window, ipc.open_file(pa.PythonFile(window, mode="r"), options=options)
