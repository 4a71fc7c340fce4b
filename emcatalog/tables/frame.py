"""A table as a dask frame: each partition opens the table where it is computed, once a process."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Final

import dask.dataframe as dd
import pandas as pd

from emcatalog.entries.table import TableArguments
from emcatalog.tables.opening import open_table
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
    read = partial(_read, pickle.dumps(arguments))
    meta = table.no_rows().to_pandas()
    lazy: dd.DataFrame = dd.from_map(read, groups, meta=meta, label="em_table")  # type: ignore[no-untyped-call]
    return lazy


def _read(arguments: bytes, parts: Sequence[int]) -> pd.DataFrame:
    return _open(arguments).read(parts).to_pandas()


@lru_cache(maxsize=8)
def _open(arguments: bytes) -> Table:
    return open_table(pickle.loads(arguments))  # noqa: S301  # written by ``to_dask``
