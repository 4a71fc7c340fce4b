"""Reading the local copy of a table: a box of space, or a few keys, in milliseconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from emcatalog.errors import CacheCorruptError, TooLargeError
from emcatalog.tables.categories import Columns
from emcatalog.tables.copy_form import ROW, Index, read_documents, reading, within
from emcatalog.tables.query import EVERYTHING, Where, norm_columns
from emcatalog.threads import map_in_order

_SCAN_THREADS: Final = 2
"""That read parts ahead of whoever takes their rows."""


@dataclass(frozen=True, slots=True)
class TableCopy:
    """A copy whose index was read. Can be read by several threads, and pickled; no file stays open."""

    folder: Path
    """Where it lies."""
    about: Mapping[str, Any]
    """What it was made from."""
    _columns: Columns
    _index: Index

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

    def parts_with(self, where: Where) -> list[int]:
        """Numbers of the parts that may hold wanted rows."""
        return list(self._index.overlapping(where.bounds))

    def read(
        self, columns: Sequence[str] | None = None, where: Where = EVERYTHING, *, in_order: bool = True
    ) -> pa.Table:
        """The rows that are wanted, as reading the source would give them.

        Args:
            columns: to give, in this order; default: all.
            where: which rows.
            in_order: of the source; otherwise in that of the copy, which saves sorting a large answer.

        Raises:
            ArgumentError: a column that is not there.
            CacheCorruptError: a part that is needed is missing or damaged.
        """
        names = norm_columns(columns, self.schema)
        groups = self._index.overlapping(where.bounds)

        def read_part(number: int) -> pa.Table:
            return self._rows(number, groups[number], names, where, threads=len(groups) == 1)

        threads = min(len(groups), pa.cpu_count())
        found = map_in_order(read_part, groups, threads) if threads > 1 else map(read_part, groups)
        rows = pa.concat_tables(
            [rows for rows in found if rows.num_rows] or [pa.Table.from_batches([self._columns.no_rows])]
        )
        return (_in_order(rows) if in_order and rows.num_rows else rows).select(names)

    def scan(
        self, columns: Sequence[str], where: Where = EVERYTHING, parts: Sequence[int] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """The rows that are wanted, in the order of the copy, with a few parts in memory at a time.

        Args:
            columns: to give, in this order.
            where: which rows.
            parts: numbers of parts; default: all.

        Raises:
            ArgumentError: a column that is not there.
            CacheCorruptError: a part that is needed is missing or damaged.
        """
        names = norm_columns(columns, self.schema)
        groups = self._index.overlapping(where.bounds)
        wanted = [number for number in (groups if parts is None else parts) if number in groups]

        def read_part(number: int) -> pa.Table:
            return self._rows(number, groups[number], names, where, threads=False)

        for rows in map_in_order(read_part, wanted, _SCAN_THREADS):
            yield from (batch for batch in rows.select(names).to_batches() if batch.num_rows)

    def row_numbers(self, number: int) -> NDArray[np.uint64]:
        """Where the rows of a part stand in the source.

        Raises:
            CacheCorruptError: the part is missing or damaged.
        """
        groups = self._index.overlapping({})[number]
        rows = self._index.part(self.folder, number).read(groups, [ROW], threads=False)
        return rows.column(ROW).to_numpy().astype(np.uint64)

    def damage(self) -> Iterator[tuple[str, str]]:
        """Read everything, and give the names of files that are not what was written, and what is wrong."""
        for number in range(self.parts):
            part = self._index.part(self.folder, number)
            try:
                part.check()
            except CacheCorruptError as error:
                yield part.path.name, str(error)

    def _rows(
        self, number: int, groups: Sequence[int], names: Sequence[str], where: Where, *, threads: bool
    ) -> pa.Table:
        """What is wanted of some row groups of a part: the columns that are named or looked at, and ``ROW``."""
        part = self._index.part(self.folder, number)
        needed = list(dict.fromkeys([*names, *where.columns, ROW]))
        if any(pa.types.is_nested(self.schema.field(name).type) for name in names):
            part.check()  # Parquet does not check how many values a page of lists has
        stored = within(part.read(groups, needed, threads=threads), where.bounds)
        with reading(part.path):
            rows = self._columns.from_stored(stored)
        return rows if where.expression is None else rows.filter(where.expression)


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
