"""The wanted rows of a table: planned, read whole, or part by part. Everything a driver does, without Intake."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import Final

import pyarrow as pa

from emcatalog.errors import ArgumentError, TooLargeError
from emcatalog.memory import available_bytes
from emcatalog.tables.copy import TableCopy
from emcatalog.tables.query import Where
from emcatalog.tables.stored import StoredTable

_IN_PANDAS: Final = 2
"""Bytes of a frame for a byte of Arrow's: its columns are copied, and text takes more."""

StartProgress = Callable[[int], Callable[[int], None]]
"""Called once with the parts that are to be read; what it returns is called as they are."""


@dataclass(frozen=True, slots=True)
class TablePlan:
    """What a read would bring here."""

    columns: tuple[str, ...]
    """That are given."""
    parts: int
    """Record batches or row groups that the table has."""
    stored_bytes: int
    """About what the columns take that must be looked at: those of a filter or a box; without one, those given."""
    is_cached: bool
    """Whether they come from the local copy."""

    def __str__(self) -> str:
        """For a person."""
        where = "from the local copy" if self.is_cached else "over the network"
        return f"{len(self.columns)} columns, {self.parts} parts, about {self.stored_bytes / 1e6:,.1f} MB {where}"


@dataclass(frozen=True)
class Table:
    """Rows and columns of an open table."""

    url: str
    """As in the catalog."""
    stored: StoredTable
    """Where they come from."""
    columns: Sequence[str]
    """To give, in this order."""
    where: Where
    """Which rows."""

    @property
    def schema(self) -> pa.Schema:
        """Of the columns, with what pandas wrote about its index."""
        fields = [self.stored.schema.field(name) for name in self.columns]
        return pa.schema(fields, self.stored.schema.metadata)

    def plan(self) -> TablePlan:
        """What a read would bring here; of the rows nothing is read.

        Raises:
            SourceError: the metadata of the first record batch cannot be read.
        """
        looked_at = self.where.columns or self.columns
        cached = isinstance(self.stored, TableCopy)
        return TablePlan(tuple(self.columns), self.stored.parts, self.stored.stored_bytes(looked_at), cached)

    def categories(self, column: str) -> list[str]:
        """What a column of categories can hold, in their order; empty for one of another type, or without rows.

        Raises:
            SourceError, CacheError: it cannot be read.
        """
        found = self._first_rows([column] if self._is_coded(column) else [])
        return [] if found is None else [str(value) for value in found.column(column).dictionary.to_pylist()]

    def batches(
        self, parts: Sequence[int] | None = None, progress: StartProgress | None = None, head: int | None = None
    ) -> Iterator[pa.Table]:
        """The wanted rows part by part; only as many parts as are on their way are in memory.

        Args:
            parts: numbers of parts; default: all.
            progress: told of the parts.
            head: how many rows at most; no more parts are read than may be needed.

        Raises:
            ArgumentError: ``head`` is no number of rows.
            SourceError, CacheError: it cannot be read.
        """
        numbers = range(self.stored.parts) if parts is None else parts
        most, advance = _norm_head(head), progress(len(numbers)) if progress else None
        found, begin, count = 0, 0, len(numbers) if most is None else 1
        while begin < len(numbers) and found != most:
            with closing(self.stored.scan(self.columns, self.where, numbers[begin : begin + count])) as scan:
                for batch in scan:
                    if advance:
                        advance(1)
                    if batch is None or not batch.num_rows:
                        continue
                    rows = batch.slice(0, None if most is None else most - found)
                    found += rows.num_rows
                    yield self._shaped(rows)
                    if found == most:
                        return
            begin += count
            # Twice as many until rows are found; then as many as hold the rest, if these hold as many as those before.
            count = begin if most is None or not found else max(1, (most - found) * begin // found)

    def read(
        self, parts: Sequence[int] | None = None, progress: StartProgress | None = None, head: int | None = None
    ) -> pa.Table:
        """The wanted rows in memory, in the order of the source.

        Args:
            parts: numbers of parts; default: all.
            progress: told of the parts.
            head: how many rows at most.

        Raises:
            ArgumentError: ``head`` is no number of rows.
            TooLargeError: they do not fit; the message says what to do.
            SourceError, CacheError: it cannot be read.
        """
        if isinstance(self.stored, TableCopy) and parts is None and head is None:
            return self._shaped(self.stored.read(self.columns, self.where))
        found, held, room = [], 0, available_bytes()
        for batch in self.batches(parts, progress, head):
            found.append(batch)
            held += batch.nbytes
            if held * _IN_PANDAS > room:
                raise TooLargeError(
                    f"{self.url}: after {sum(map(len, found)):,} rows the result takes {held / 1e9:.1f} GB, and twice"
                    f" that as a frame; {room / 1e9:.1f} GB are free: ask for fewer columns=, a filter= or a bbox=, or"
                    " take to_dask()"
                )
        return pa.concat_tables(found or [self.no_rows()])

    def no_rows(self) -> pa.Table:
        """A table without rows whose categories are those of the rows that there could be.

        Raises:
            SourceError, CacheError: they cannot be read.
        """
        return self._no_rows

    @cached_property
    def _no_rows(self) -> pa.Table:
        empty, coded = self.schema.empty_table(), [name for name in self.columns if self._is_coded(name)]
        if (found := self._first_rows(coded)) is not None:
            for name in coded:
                empty = empty.set_column(self.columns.index(name), name, found.column(name).slice(0, 0))
        return self._shaped(empty)

    def _is_coded(self, column: str) -> bool:
        return bool(pa.types.is_dictionary(self.stored.schema.field(column).type))

    def _first_rows(self, columns: Sequence[str]) -> pa.RecordBatch | None:
        """Some columns of the first part: its dictionaries are those of all. None where there is nothing to read."""
        if not columns or not self.stored.parts:
            return None
        with closing(self.stored.scan(columns, parts=[0])) as scan:
            return next(scan)

    def _shaped(self, rows: pa.Table | pa.RecordBatch) -> pa.Table:
        """Rows with the schema of the source, and with what pandas wrote about its index."""
        return pa.Table.from_arrays(rows.columns, schema=self.schema)


def _norm_head(head: object) -> int | None:
    """How many rows at most.

    Raises:
        ArgumentError: no number of rows.
    """
    if head is not None and (isinstance(head, bool) or not isinstance(head, Integral) or head < 0):
        raise ArgumentError(f"head={head!r:.80} is not a number of rows")
    return None if head is None else int(head)
