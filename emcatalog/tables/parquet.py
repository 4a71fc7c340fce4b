"""A Parquet table where it lies: row group by row group, of each the columns that are needed."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from emcatalog.tables.query import EVERYTHING, Where
from emcatalog.tables.stored import check_schema, decoding, take_wanted
from emcatalog.tables.window import VersionedFile, Window
from emcatalog.threads import map_in_order

_FIRST_READ: Final = 64 << 10
"""Of the end of a file: what pyarrow reads of it first, too."""
_TAIL: Final = 8
_MAGIC: Final = 4
"""Bytes at the end of a file: the length of the footer, and the magic."""
_LONGEST_FOOTER: Final = 256 << 20
"""Bytes; a length that is damaged must not lead to reading a whole file."""
THREADS: Final = 4
"""Row groups at once: they are mostly much larger than the record batches of a Feather file, and all in memory."""


@dataclass(frozen=True)
class ParquetTable:
    """A table whose footer was read. Can be read by several threads; nothing of its rows stays in memory."""

    file: VersionedFile
    """Where it lies."""
    schema: pa.Schema
    """Of all columns, with what pandas wrote about its index."""
    metadata: pq.FileMetaData
    """The footer."""

    @property
    def parts(self) -> int:
        """Row groups, which can be read apart."""
        return int(self.metadata.num_row_groups)

    def count_rows(self) -> int:
        """How many rows there are."""
        return int(self.metadata.num_rows)

    def stored_bytes(self, columns: Sequence[str]) -> int:
        """How many bytes some columns take.

        Raises:
            SourceCorruptError: the footer speaks of what cannot be.
        """
        with decoding(self.file.what, "the table"):
            return sum(stop - start for part in range(self.parts) for start, stop in self._ranges(part, columns))

    def scan(
        self, columns: Sequence[str], where: Where = EVERYTHING, parts: Sequence[int] | None = None
    ) -> Generator[pa.RecordBatch | None, None, None]:
        """The wanted rows of each row group in turn; None for one that has none: by its statistics, or by ``where``.

        Args:
            columns: to give, in this order.
            where: which rows.
            parts: numbers of row groups; default: all.

        Raises:
            SourceChangedError: the file was replaced meanwhile.
            SourceError: it cannot be read, after retries.
        """

        def wanted(number: int) -> pa.RecordBatch | None:
            if not self._may_hold(number, where):
                return None
            return take_wanted(lambda names: self._read(number, names), columns, where)

        return map_in_order(wanted, range(self.parts) if parts is None else parts, THREADS)

    def _may_hold(self, number: int, where: Where) -> bool:
        """Whether the statistics of a row group allow a wanted row."""
        for chunk in self._chunks(number, where.bounds):
            found = chunk.statistics
            if found and found.has_min_max and not where.may_hold(chunk.path_in_schema, found.min, found.max):
                return False
        return True

    def _chunks(self, number: int, columns: Iterable[str]) -> Iterator[Any]:
        """What the footer says of some columns in a row group; a column of lists or structs has several."""
        group = self.metadata.row_group(number)
        for index, path in enumerate(self._paths):
            if any(path == name or path.startswith(f"{name}.") for name in columns):
                yield group.column(index)

    @cached_property
    def _paths(self) -> list[str]:
        return [self.metadata.schema.column(index).path for index in range(self.metadata.num_columns)]

    def _ranges(self, number: int, columns: Sequence[str]) -> list[tuple[int, int]]:
        """Where some columns of a row group lie in the file."""
        found = []
        for chunk in self._chunks(number, columns):
            start = chunk.data_page_offset
            if chunk.has_dictionary_page and chunk.dictionary_page_offset is not None:
                start = min(start, chunk.dictionary_page_offset)
            stop = start + chunk.total_compressed_size
            if not 0 <= start <= stop <= self.file.nbytes:
                raise ValueError(f"{chunk.path_in_schema} is said to be at {start} to {stop}, where it cannot be")
            found.append((start, stop))
        return found

    def _read(self, number: int, columns: Sequence[str]) -> pa.RecordBatch:
        with decoding(self.file.what, f"row group {number}"):
            window = Window(self.file, self.file.read_joined(self._ranges(number, columns)))
            reader = pq.ParquetFile(pa.PythonFile(window, mode="r"), metadata=self.metadata)
            table = reader.read_row_group(number, columns=list(columns), use_threads=False)
            batch = pa.RecordBatch.from_pydict({name: table.column(name).combine_chunks() for name in columns})
            batch.validate(full=True)  # text that is none would be found out by whoever shows it
        return batch


def open_parquet(file: VersionedFile) -> ParquetTable:
    """Read what a table says of itself: the end of the file.

    Raises:
        SourceCorruptError: it is no Parquet file, or not all of one.
        SourceError: it cannot be read.
    """
    tail = file.read_part(max(0, file.nbytes - _FIRST_READ), file.nbytes)
    with decoding(file.what, "the table"):
        length = int.from_bytes(tail.content[-_TAIL:-_MAGIC], "little")
        if length > _LONGEST_FOOTER:
            raise ValueError(f"its footer is said to have {length} bytes")
        reader = pq.ParquetFile(pa.PythonFile(Window(file, [tail]), mode="r"))
        check_schema(reader.schema_arrow)
    return ParquetTable(file, reader.schema_arrow, reader.metadata)
