"""A table in a file of this computer, read batch by batch as often as somebody wants it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import ipc

from emcatalog.errors import CacheCorruptError, listing

BATCH_ROWS: Final = 65_536
"""Of a Parquet file; an Arrow file has batches of its own."""


@dataclass(frozen=True, slots=True)
class LocalTable:
    """A table that can be read several times."""

    schema: pa.Schema
    """Of all columns, with what pandas wrote about its index."""
    batches: Callable[[Sequence[str] | None], Iterator[pa.RecordBatch]]
    """The rows in their order, with the columns that are named, in this order; None for all."""


def open_local(path: Path) -> LocalTable:
    """A Feather (V2, which is the Arrow IPC file format) or Parquet file; its rows are not read yet.

    Raises:
        CacheCorruptError: it is neither, or not all of one. So may reading the rows.
    """
    with _decoding(path), path.open("rb") as file:
        magic = file.read(6)
    kinds = {b"ARROW1": _open_feather, b"PAR1": _open_parquet}
    for start, opener in kinds.items():
        if magic.startswith(start):
            return opener(path)
    known = listing(repr(start) for start in kinds)
    raise CacheCorruptError(f"{path} is no table: it begins with {magic!r}, and Feather and Parquet with {known}")


def _open_feather(path: Path) -> LocalTable:
    with _decoding(path), pa.OSFile(str(path)) as file:
        schema = ipc.open_file(file).schema

    def batches(columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        included = None if columns is None else sorted({schema.get_field_index(name) for name in columns})
        # Read, not mapped: pages of a mapped file count as memory of this process.
        with _decoding(path), pa.OSFile(str(path)) as file:
            reader = ipc.open_file(file, options=ipc.IpcReadOptions(included_fields=included))
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                yield batch if columns is None else batch.select(list(columns))

    return LocalTable(schema, batches)


def _open_parquet(path: Path) -> LocalTable:
    with _decoding(path), pq.ParquetFile(path) as file:
        schema = file.schema_arrow

    def batches(columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        with _decoding(path), pq.ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=columns):
                yield batch if columns is None else batch.select(list(columns))

    return LocalTable(schema, batches)


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise CacheCorruptError(f"{path} cannot be read as a table: {error}; remove it and fetch it again") from error
