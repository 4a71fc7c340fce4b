"""A table as a dask frame: each partition opens the table where it is computed, once a process."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Final

import dask
import dask.dataframe as dd
import pandas as pd

from emcatalog.entries.table import TableArguments
from emcatalog.errors import SourceChangedError
from emcatalog.tables.copy import TableCopy
from emcatalog.tables.feather import FeatherTable
from emcatalog.tables.opening import open_table
from emcatalog.tables.parquet import ParquetTable
from emcatalog.tables.stored import StoredTable
from emcatalog.tables.table import Table

_PARTITION: Final = 16
"""Record batches of a partition: a million rows of the usual 65,536."""


def to_dask(arguments: TableArguments) -> dd.DataFrame:
    """The wanted rows as a lazy frame.

    Raises:
        ArgumentError: a column that is not there, a filter of the wrong type.
        SourceError, CacheError: the table cannot be opened.
    """
    table = open_table(arguments)
    numbers = range(table.stored.parts)
    groups = [list(numbers[first : first + _PARTITION]) for first in numbers[::_PARTITION]] or [[]]
    read = partial(_read, pickle.dumps(arguments), _version(table.stored))
    meta = table.no_rows().to_pandas()
    with dask.config.set({"dataframe.convert-string": False}):  # which makes text of lists, too
        lazy: dd.DataFrame = dd.from_map(read, groups, meta=meta, label="em_table")  # type: ignore[no-untyped-call]
    return lazy


def _read(arguments: bytes, version: str, parts: Sequence[int]) -> pd.DataFrame:
    return _open(arguments, version).read(parts).to_pandas()


@lru_cache(maxsize=8)
def _open(arguments: bytes, version: str) -> Table:
    table = open_table(pickle.loads(arguments))  # noqa: S301  # written by ``to_dask``
    if _version(table.stored) != version:
        raise SourceChangedError(
            f"{table.url} is not what it was when to_dask() was called: it was replaced, or fetched; call that again"
        )
    return table


def _version(stored: StoredTable) -> str:
    """What is another where the numbers of parts may mean others."""
    if isinstance(stored, TableCopy):
        return f"copy of {dict(stored.about)}"
    assert isinstance(stored, (FeatherTable, ParquetTable)), "there are no others"
    return f"{stored.file.nbytes} bytes, {stored.file.version.hex()}"
