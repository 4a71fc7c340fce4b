"""The wanted rows of a table in a file of the caller's, part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from pyarrow import ipc

from emcatalog.errors import ArgumentError, EmcatalogError, listing, suggest
from emcatalog.new_file import new_file
from emcatalog.tables.table import StartProgress, Table


def _feather(path: Path, schema: pa.Schema) -> Any:
    return ipc.new_file(path, schema, options=ipc.IpcWriteOptions(compression="lz4"))


_WRITERS: Final[Mapping[str, Callable[[Path, pa.Schema], Any]]] = {
    ".parquet": pa.parquet.ParquetWriter,
    ".feather": _feather,
    ".csv": pa.csv.CSVWriter,
}
"""By the end of a file's name: what opens a file for a schema, and has ``write_table`` and ``close``."""

_ROWS: Final = 1 << 18
"""That are written at once: a row group, or a record batch, for a few rows each would make a file that is slow to
read."""


def write_rows(table: Table, path: Path, head: int | None = None, progress: StartProgress | None = None) -> int:
    """Write the wanted rows, and give their number; the file appears when it is whole.

    Args:
        table: what to write.
        path: ends in ``.parquet``, ``.feather`` or ``.csv``.
        head: how many rows at most.
        progress: told of the parts of the table.

    Raises:
        ArgumentError: another kind of file, one that is there, or a column that it cannot hold.
        SourceError, CacheError: the table cannot be read.
    """
    if path.suffix.lower() not in _WRITERS:
        raise ArgumentError(
            f"{path}: a table is written as {listing(_WRITERS)}.{suggest(path.suffix.lower(), _WRITERS)}"
        )
    if path.exists():
        raise ArgumentError(f"{path} exists; choose another path")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as partial:
            rows = _write(table, partial, _WRITERS[path.suffix.lower()], head, progress)
    except EmcatalogError:
        raise
    except OSError as error:
        raise ArgumentError(f"{path} cannot be written ({error}); choose another path, or make room") from error
    return rows


def _write(
    table: Table,
    path: Path,
    open_writer: Callable[[Path, pa.Schema], Any],
    head: int | None,
    progress: StartProgress | None,
) -> int:
    rows = 0
    try:
        with open_writer(path, table.schema) as writer:
            for part in _gathered(table.batches(progress=progress, head=head)):
                writer.write_table(part)
                rows += part.num_rows
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise ArgumentError(
            f"such a file cannot hold one of the columns ({error}); choose others with columns=, or write .parquet"
        ) from error
    return rows


def _gathered(batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Rows in parts of a good size, none of them empty."""
    held, rows = list[pa.Table](), 0
    for batch in batches:
        held.append(batch)
        rows += batch.num_rows
        if rows >= _ROWS:
            yield pa.concat_tables(held).combine_chunks()
            held, rows = [], 0
    if held:
        yield pa.concat_tables(held).combine_chunks()
