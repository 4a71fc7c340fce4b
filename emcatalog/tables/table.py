"""The wanted rows of a table: planned, read whole, or part by part. Everything a driver does, without Intake."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from emcatalog.errors import TooLargeError
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


@dataclass(frozen=True, slots=True)
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
        if not pa.types.is_dictionary(self.stored.schema.field(column).type) or not self.stored.parts:
            return []
        (batch,) = self.stored.scan([column], parts=[0])
        return [] if batch is None else [str(value) for value in batch.column(column).dictionary.to_pylist()]

    def batches(
        self, parts: Sequence[int] | None = None, progress: StartProgress | None = None, head: int | None = None
    ) -> Iterator[pa.Table]:
        """The wanted rows part by part; only as many parts as are on their way are in memory.

        Args:
            parts: numbers of parts; default: all.
            progress: told of the parts.
            head: how many rows at most.

        Raises:
            SourceError, CacheError: it cannot be read.
        """
        advance = progress(self.stored.parts if parts is None else len(parts)) if progress else None
        with closing(self.stored.scan(self.columns, self.where, parts)) as scan:
            for batch in scan:
                if advance:
                    advance(1)
                if batch is None or not batch.num_rows:
                    continue
                rows = batch.slice(0, head)
                yield self._shaped(rows)
                head = None if head is None else head - rows.num_rows
                if head == 0:
                    return

    def read(
        self, parts: Sequence[int] | None = None, progress: StartProgress | None = None, head: int | None = None
    ) -> pa.Table:
        """The wanted rows in memory, in the order of the source.

        Args:
            parts: numbers of parts; default: all.
            progress: told of the parts.
            head: how many rows at most.

        Raises:
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
        texts = [name for name in self.columns if pa.types.is_dictionary(self.stored.schema.field(name).type)]
        empty = self.schema.empty_table()
        with closing(self.stored.scan(texts, parts=[0][: self.stored.parts])) as scan:
            for batch in filter(None, scan):
                for name in texts:
                    empty = empty.set_column(self.columns.index(name), name, batch.column(name).slice(0, 0))
                break
        return self._shaped(empty)

    def _shaped(self, rows: pa.Table | pa.RecordBatch) -> pa.Table:
        """Rows with the schema of the source, and with what pandas wrote about its index."""
        return pa.Table.from_arrays(rows.columns, schema=self.schema)
