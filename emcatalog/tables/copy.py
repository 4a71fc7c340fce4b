"""Reading the local copy of a table: a box of space, or a few keys, in milliseconds."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from emcatalog.errors import CacheCorruptError, TooLargeError
from emcatalog.memory import available_bytes
from emcatalog.tables.categories import Columns
from emcatalog.tables.copy_form import ROW, Index, Part, read_documents, reading
from emcatalog.tables.query import EVERYTHING, Where, norm_columns
from emcatalog.threads import map_in_order

_SCAN_THREADS: Final = 2
"""That read parts ahead of whoever takes their rows."""

_GROUPS_A_THREAD: Final = 4
"""Row groups that are worth a thread, which takes as long to start as one takes to read."""

_LARGE_BYTES: Final = 256 << 20
"""From which on an answer is held against the memory that is free, which takes a while to find out."""


@dataclass(frozen=True, slots=True)
class TableCopy:
    """A copy whose index was read. Can be read by several threads, and pickled; no file stays open."""

    folder: Path
    """Where it lies."""
    about: Mapping[str, Any]
    """What it was made from."""
    _columns: Columns = field(repr=False)
    _index: Index = field(repr=False)

    @property
    def schema(self) -> pa.Schema:
        """That of the source, with what pandas wrote about its index."""
        return self._columns.schema

    @property
    def rows(self) -> int:
        """Of the whole table."""
        return self._index.rows

    @property
    def parts(self) -> int:
        """Files that can be read apart."""
        return self._index.parts

    def count_rows(self) -> int:
        """How many rows there are."""
        return self.rows

    def stored_bytes(self, columns: Sequence[str]) -> int:
        """About how many bytes some columns take: as many a row as in the first part.

        Raises:
            CacheCorruptError: that is missing or damaged.
        """
        if not self.parts:
            return 0
        first = self._index.part(self.folder, 0)
        return round(first.stored_bytes(set(columns)) / self._index.rows_of(0) * self.rows)

    def scan(
        self, columns: Sequence[str], where: Where = EVERYTHING, parts: Sequence[int] | None = None
    ) -> Generator[pa.RecordBatch | None, None, None]:
        """The wanted rows of each part in turn, in the order of the copy; None for one that has none.

        Args:
            columns: to give, in this order.
            where: which rows.
            parts: their numbers; default: all.

        Raises:
            CacheCorruptError: a part that is needed is missing or damaged.
        """
        groups = self._index.overlapping(where.bounds)
        wanted = partial(self._wanted, groups=groups, columns=columns, where=where)
        for rows in map_in_order(wanted, range(self.parts) if parts is None else parts, _SCAN_THREADS):
            yield None if rows is None else rows.select(list(columns))

    def read(
        self, columns: Sequence[str] | None = None, where: Where = EVERYTHING, *, in_order: bool = True
    ) -> pa.Table:
        """The wanted rows, as reading the source would give them.

        Args:
            columns: to give, in this order; default: all.
            where: which rows.
            in_order: of the source; otherwise in that of the copy, which saves sorting a large answer.

        Raises:
            ArgumentError: a column that is not there.
            TooLargeError: more than there is memory for.
            CacheCorruptError: a part that is needed is missing or damaged.
        """
        names = norm_columns(columns, self.schema)
        groups = self._index.overlapping(where.bounds)
        count = sum(map(len, groups.values()))
        threads = min(len(groups), pa.cpu_count(), count // _GROUPS_A_THREAD)
        wanted = partial(self._wanted, groups=groups, columns=names, where=where, threads=threads < 2 < count)
        parts = map_in_order(wanted, groups, threads) if threads > 1 else map(wanted, groups)
        found = list(_while_there_is_room(rows for rows in parts if rows is not None))
        if not found:
            return pa.Table.from_batches([self._columns.no_rows.select(names)])
        rows = pa.Table.from_batches(found)
        return (_in_order(rows) if in_order else rows).select(names)

    def row_numbers(self, number: int) -> NDArray[np.uint64]:
        """Where the rows of a part stand in the source.

        Raises:
            CacheCorruptError: the part is missing or damaged.
        """
        groups = self._index.overlapping({})[number]
        rows = self._index.part(self.folder, number).read(groups, [ROW], threads=False)
        numbers: NDArray[np.uint64] = rows.column(ROW).to_numpy().astype(np.uint64)
        return numbers

    def damage(self) -> Iterator[tuple[str, str]]:
        """Read everything, and give the names of files that are not what was written, and what is wrong."""
        for number in range(self.parts):
            part = self._index.part(self.folder, number)
            try:
                part.check()
            except CacheCorruptError as error:
                yield part.path.name, str(error)

    def _wanted(
        self,
        number: int,
        *,
        groups: Mapping[int, Sequence[int]],
        columns: Sequence[str],
        where: Where,
        threads: bool = False,
    ) -> pa.RecordBatch | None:
        """The wanted rows of a part, with their numbers in the source; None where there are none."""
        if number not in groups:
            return None
        part = self._index.part(self.folder, number)
        needed = list(dict.fromkeys([*columns, *where.columns, ROW]))
        if any(pa.types.is_nested(self.schema.field(name).type) for name in needed[:-1]):
            part.check()  # Parquet has no checksum over how many values a page of lists holds
        stored = part.read(groups[number], needed, threads=threads)
        if where.columns:
            places = where.rows(self._restored(part, stored, where.columns))
            if not len(places):
                return None
            stored = stored.take(places)
        return self._restored(part, stored, [*dict.fromkeys(columns), ROW])

    def _restored(self, part: Part, stored: pa.RecordBatch, columns: Sequence[str]) -> pa.RecordBatch:
        with reading(part.path):
            return self._columns.from_stored(stored.select(list(columns)))


def _while_there_is_room(parts: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Parts of an answer, as long as it can be in memory twice, which sorting takes."""
    held = 0
    for part in parts:
        held += part.nbytes
        if held > _LARGE_BYTES and held > (room := available_bytes()):
            raise TooLargeError(
                f"the rows that were found so far take {held / 1e9:.1f} GB, and {room / 1e9:.1f} GB are free to sort"
                " them in: ask for fewer columns or rows, or take them part by part"
            )
        yield part


def _in_order(rows: pa.Table) -> pa.Table:
    numbers = rows.column(ROW).to_numpy()
    if (numbers[1:] > numbers[:-1]).all():
        return rows
    try:
        return rows.take(np.argsort(numbers))
    except pa.ArrowInvalid as error:
        raise TooLargeError(
            f"{rows.num_rows} rows have more text than can be sorted at once; ask for fewer columns or rows, or"
            f" in_order=False ({error})"
        ) from error


def open_copy(folder: Path) -> TableCopy:
    """Read what a copy says of itself; its rows are not read yet.

    Raises:
        CacheCorruptError: it is no copy of a table, is damaged, or of another form; the message says what to do.
    """
    documents = read_documents(folder)
    return TableCopy(folder, documents.source, documents.columns, documents.index)
