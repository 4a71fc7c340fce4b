"""Writing the local copy of a table, of any size, in bounded memory.

Three passes. The first reads the columns that the rows are ordered by, and decides where to cut the table into parts of
about equal size. The second sends every row to a file of its part. The third sorts each part in memory and writes it. A
part that is larger than was meant, since a key is repeated so often, is written in pieces, each sorted on its own: what
is found does not depend on the order, only how fast.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from emcatalog.errors import ArgumentError, CacheCorruptError, CacheError, EmcatalogError
from emcatalog.tables.categories import Coding, Columns, codes_in
from emcatalog.tables.copy import open_copy
from emcatalog.tables.copy_form import (
    GROUP_ROWS,
    ROW,
    checksum,
    is_copy,
    part_name,
    read_footer,
    write_documents,
)
from emcatalog.tables.local import LocalTable
from emcatalog.tables.new_folder import new_folder
from emcatalog.tables.order import Order, Sample, check_order
from emcatalog.tables.spilling import Spill, release_memory, take_each

_THREADS: Final = 2
"""That sort and write parts, each of which holds one in memory."""
PART_BYTES: Final = 32 << 20
"""Of the rows of a part, as they are sorted."""
_FOOTER_CHUNKS: Final = 512
"""Columns times row groups of a part: its footer takes 0.7 us to read for each."""
_GROUPS: Final = 8, 32
"""Fewest and most row groups of a part."""
_TOO_LARGE: Final = 1.5
"""Times what was meant: a part that has more rows or bytes is written in pieces."""

Progress = Callable[[int], None]
"""Called with a number of rows that were moved on: each row twice, to its part and into its Parquet file."""


def write_copy(
    table: LocalTable,
    folder: Path,
    *,
    coordinates: tuple[str, str, str] | None = None,
    order_by: tuple[str, ...] = (),
    about: Mapping[str, Any],
    progress: Progress | None = None,
) -> None:
    """Write a copy of a table, which appears whole or not at all; what stands in its place is replaced.

    Args:
        table: what to copy.
        folder: where the copy will stand.
        coordinates: columns of x, y and z: rows that lie together in space will lie together.
        order_by: columns of numbers to sort by, where there are no coordinates. Without either, rows stay in order.
        about: what the copy is made from, as JSON; ``TableCopy.about`` gives it back.
        progress: told of every row twice.

    Raises:
        ArgumentError: a column that is not there, or that cannot be ordered by or stored.
        CacheError: the folder cannot be written.
        CacheCorruptError: the table cannot be read.
    """
    order = Order(coordinates or order_by, in_space=coordinates is not None)
    check_order(table.schema, order.columns)
    check_types(table.schema)
    said = json.loads(json.dumps(dict(about)))
    with new_folder(folder, is_copy, partial(_is_equal, said)) as partial_folder:
        try:
            _write(table, partial_folder, order, said, progress or (lambda _: None))
        except EmcatalogError:
            raise
        except OSError as error:
            raise CacheError(f"{folder} cannot be written: {error}; nothing of it was kept") from error


def check_types(schema: pa.Schema) -> None:
    """Refuse columns that a copy could not give back as they are.

    Raises:
        ArgumentError: a type that Parquet does not have, categories inside of lists, or a name that is taken.
    """
    names = [*schema.names, ROW]
    for name in sorted({name for name in names if names.count(name) > 1}):
        raise ArgumentError(f"a copy would have two columns {name!r}; rename one in the source")
    for field in schema:
        try:
            _try_type(field)
        except pa.ArrowException as error:
            raise ArgumentError(f"column {field.name!r} holds {field.type}, which cannot be copied: {error}") from error


def _try_type(field: pa.Field) -> None:
    """A row through all that will be done with the rows."""
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if "dictionary<" in str(kind):
        raise pa.ArrowNotImplementedError("categories inside of another type")
    values = pa.nulls(1, kind).take(pa.array([0]))
    if pa.types.is_dictionary(field.type):
        codes_in(values, values)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"": values}), sink)
    pq.read_table(sink.getvalue()).column(0).cast(kind)


def _is_equal(about: Mapping[str, Any], folder: Path) -> bool:
    try:
        return open_copy(folder).about == about
    except EmcatalogError:
        return False


def _write(table: LocalTable, folder: Path, order: Order, about: Mapping[str, Any], progress: Progress) -> None:
    sample, coding = Sample(order), Coding(table.schema)
    for batch in table.batches(order.columns or table.schema.names[:1]):
        sample.add(batch)
    part_rows = _part_rows(table)
    cut = sample.plan(-(-sample.rows // part_rows))
    release_memory()
    spill = Spill(folder, order, cut, pa.uint32() if sample.rows < 1 << 32 else pa.uint64())
    for batch in table.batches(None):
        spill.add(coding.code(batch))
        progress(batch.num_rows)
    spill.flush()
    writer = _Writer(spill, Columns.of(table.schema, coding.dictionaries), part_rows)
    index: list[pa.RecordBatch] = []
    with ThreadPoolExecutor(_THREADS) as threads:
        for path, groups in (each for written in threads.map(writer.write, range(spill.parts)) for each in written):
            path.rename(folder / part_name(len(index)))
            index.append(groups.add_column(0, "part", pa.array([len(index)] * groups.num_rows, pa.uint32())))
            progress(pc.sum(groups.column("rows"), min_count=0).as_py())
    write_documents(folder, writer.columns, pa.concat_batches(index), about)
    _verify(folder, sample.rows)


def _part_rows(table: LocalTable) -> int:
    """Rows of a part: as many as fit in memory while they are sorted, and as a footer describes that is read fast."""
    fewest, most = _GROUPS
    groups = min(max(_FOOTER_CHUNKS // (len(table.schema) + 1), fewest), most)
    first = next((batch for batch in table.batches(None) if batch.num_rows), None)
    row_bytes = 1 if first is None else max(1, Coding(table.schema).code(first).nbytes // first.num_rows)
    return max(GROUP_ROWS, min(groups * GROUP_ROWS, PART_BYTES // row_bytes))


@dataclass(frozen=True, slots=True)
class _Writer:
    """Sorts parts and writes them; several at once, in threads."""

    spill: Spill
    columns: Columns
    rows: int
    """Of a part, as it was meant."""

    def write(self, number: int) -> list[tuple[Path, pa.RecordBatch]]:
        """The files that a part became, and what their row groups hold."""
        written: list[tuple[Path, pa.RecordBatch]] = []
        for rows in self._pieces(number):
            path = self.spill.folder / f"piece-{number:05}-{len(written):05}"
            stored = pa.Table.from_batches([self.columns.to_stored(rows)])
            _write_parquet(stored, path, self._ordering)
            written.append((path, _about(path, rows, self._ordering)))
        self.spill.path(number).unlink(missing_ok=True)
        release_memory()
        return written

    @property
    def _ordering(self) -> list[str]:
        return [*self.spill.order.columns, ROW]

    def _pieces(self, number: int) -> Iterator[pa.RecordBatch]:
        """The rows of a part, sorted: all at once where they are about as many as was meant; none make a piece, too."""
        waiting: list[pa.RecordBatch] = []
        rows = nbytes = 0
        for batch in self.spill.read(number):
            waiting.append(batch)
            rows, nbytes = rows + batch.num_rows, nbytes + batch.nbytes
            if rows > _TOO_LARGE * self.rows or nbytes > _TOO_LARGE * PART_BYTES:
                yield self._sort(waiting)
                rows = nbytes = 0
        if waiting or not self.spill.rows:
            yield self._sort(waiting)

    def _sort(self, batches: list[pa.RecordBatch]) -> pa.RecordBatch:
        """Rows in order; their batches are given up."""
        rows = pa.Table.from_batches(batches, self._coded_schema())
        batches.clear()
        names, places, columns = rows.column_names, self.spill.order.sort(rows, GROUP_ROWS), rows.columns
        del rows
        return pa.RecordBatch.from_arrays(take_each(columns, places), names=names)

    def _coded_schema(self) -> pa.Schema:
        """Of the spilled rows."""
        kinds = {field.name: field.type for field in self.columns.schema}
        coded = {name: kind.index_type if pa.types.is_dictionary(kind) else kind for name, kind in kinds.items()}
        return pa.schema({**coded, ROW: self.spill.row_type})


def _write_parquet(stored: pa.Table, path: Path, ordering: list[str]) -> None:
    """Write a part, to be read fast rather than to be small.

    A million synapse points with 42 columns take 42 MB, and 66 MB as Feather. Zstandard would save a quarter more, and
    make a query of one row group half as slow again. Whole numbers are stored as differences, which are smaller than
    plain numbers and as fast to decode; dictionaries of numbers are slower and larger.
    """
    wide = [field.name for field in stored.schema if pa.types.is_integer(field.type) and field.type.bit_width >= 32]
    texts = [field.name for field in stored.schema if _is_text(field.type)]
    pq.write_table(
        stored,
        path,
        row_group_size=GROUP_ROWS,
        compression="lz4",
        use_dictionary=texts,
        column_encoding=dict.fromkeys(wide, "DELTA_BINARY_PACKED"),
        write_statistics=ordering,
        write_page_checksum=True,
    )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_dictionary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _about(path: Path, rows: pa.RecordBatch, ordering: Iterable[str]) -> pa.RecordBatch:
    """What the index says of the row groups of a part: where each lies, and what of the ordering columns it holds."""
    (nbytes, crc), footer = checksum(path), read_footer(path)
    groups = [rows.slice(start, GROUP_ROWS) for start in range(0, rows.num_rows, GROUP_ROWS)]
    checked = {"nbytes": nbytes, "crc": crc, "footer": len(footer), "footer_crc": zlib.crc32(footer)}
    found: dict[str, pa.Array] = {
        "group": pa.array(range(len(groups)), pa.uint32()),
        "rows": pa.array([group.num_rows for group in groups], pa.uint32()),
        **{name: pa.array([value] * len(groups), pa.uint64()) for name, value in checked.items()},
    }
    for name in ordering:
        ends = [pc.min_max(group.column(name)) for group in groups]
        for end in ("min", "max"):
            found[f"{name}.{end}"] = pa.array([each[end].as_py() for each in ends], rows.schema.field(name).type)
    return pa.record_batch(found)


def _verify(folder: Path, rows: int) -> None:
    """Open the copy and count the rows of the source in it: each once."""
    copy = open_copy(folder)
    found = np.zeros(3, np.uint64)
    for number in range(copy.parts):
        numbers = copy.row_numbers(number)
        found += np.array([len(numbers), numbers.sum(), (numbers * numbers).sum()], np.uint64)
    # One row in the place of another changes the sum, and two in the place of two the squares, if not the sum.
    wanted = [rows, rows * (rows - 1) // 2, (rows - 1) * rows * (2 * rows - 1) // 6]
    if found.tolist() != [number % (1 << 64) for number in wanted]:
        raise CacheCorruptError(f"{folder} does not hold each of {rows} rows once; write it again")
