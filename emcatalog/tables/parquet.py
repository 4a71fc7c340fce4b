"""A Parquet table where it lies: row group by row group, of each the columns that are needed."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from threading import local
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from emcatalog.tables.query import EVERYTHING, Where
from emcatalog.tables.stored import decoding, take_wanted
from emcatalog.tables.window import VersionedFile, Window
from emcatalog.threads import map_in_order

_FIRST_READ: Final = 64 << 10
_THREADS: Final = 8
"""Row groups at once: they are larger than the record batches of a Feather file."""


@dataclass(frozen=True)
class ParquetTable:
    """A table whose footer was read. Can be read by several threads; nothing of its rows stays in memory."""

    file: VersionedFile
    """Where it lies."""
    schema: pa.Schema
    """Of all columns, with what pandas wrote about its index."""
    metadata: pq.FileMetaData
    """The footer."""
    _own: local = field(default_factory=local, repr=False, compare=False)

    @property
    def parts(self) -> int:
        """Row groups, which can be read apart."""
        return int(self.metadata.num_row_groups)

    def count_rows(self) -> int:
        """How many rows there are."""
        return int(self.metadata.num_rows)

    def stored_bytes(self, columns: Sequence[str]) -> int:
        """How many bytes some columns take."""
        return sum(stop - start for part in range(self.parts) for start, stop in self._ranges(part, columns))

    def scan(
        self, columns: Sequence[str], where: Where = EVERYTHING, parts: Sequence[int] | None = None
    ) -> Generator[pa.RecordBatch | None, None, None]:
        """The wanted rows of each row group in turn; those that by their statistics have none are not read.

        Args:
            columns: to give, in this order.
            where: which rows.
            parts: numbers of row groups; default: all.

        Raises:
            SourceChangedError: the file was replaced meanwhile.
            SourceError: it cannot be read, after retries.
        """
        asked = range(self.parts) if parts is None else parts
        numbers = [number for number in asked if self._may_hold(number, where)]
        threads = min(_THREADS, max(1, len(numbers)))

        def wanted(number: int) -> pa.RecordBatch | None:
            return take_wanted(lambda names: self._read(number, names), columns, where)

        return map_in_order(wanted, numbers, threads)

    def _may_hold(self, number: int, where: Where) -> bool:
        """Whether the statistics of a row group allow a wanted row."""
        for chunk in self._chunks(number):
            statistics = chunk.statistics if chunk.path_in_schema in where.bounds else None
            if statistics is None or not statistics.has_min_max:
                continue
            if not where.may_hold(chunk.path_in_schema, statistics.min, statistics.max):
                return False
        return True

    def _chunks(self, number: int) -> Iterator[Any]:
        group = self.metadata.row_group(number)
        return (group.column(index) for index in range(group.num_columns))

    def _ranges(self, number: int, columns: Sequence[str]) -> list[tuple[int, int]]:
        """Where some columns of a row group lie in the file."""
        found = []
        for chunk in self._chunks(number):
            if chunk.path_in_schema.split(".")[0] in columns:
                start = chunk.data_page_offset
                if chunk.has_dictionary_page and chunk.dictionary_page_offset is not None:
                    start = min(start, chunk.dictionary_page_offset)
                found.append((start, start + chunk.total_compressed_size))
        return found

    def _read(self, number: int, columns: Sequence[str]) -> pa.RecordBatch:
        window = Window(self.file, self.file.read_joined(self._ranges(number, columns)))
        with decoding(self.file.what, f"row group {number}"):
            reader = pq.ParquetFile(pa.PythonFile(window, mode="r"), metadata=self.metadata)
            table = reader.read_row_group(number, columns=list(columns), use_threads=False)
        found = {name: table.column(name).combine_chunks() for name in columns}
        return pa.RecordBatch.from_pydict(found)


def open_parquet(file: VersionedFile) -> ParquetTable:
    """Read what a table says of itself: the end of the file.

    Raises:
        SourceCorruptError: it is no Parquet file, or not all of one.
        SourceError: it cannot be read.
    """
    tail = file.read_part(max(0, file.nbytes - _FIRST_READ), file.nbytes)
    with decoding(file.what, "the table"):
        reader = pq.ParquetFile(pa.PythonFile(Window(file, [tail]), mode="r"))
    return ParquetTable(file, reader.schema_arrow, reader.metadata)
