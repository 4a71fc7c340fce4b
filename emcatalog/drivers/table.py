"""``em_table``: rows and columns of a table as an Intake source."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from intake.source.base import Schema

from emcatalog.drivers.progress import bytes_bar, items_bar
from emcatalog.drivers.source import EntrySource
from emcatalog.errors import extra

if TYPE_CHECKING:
    import dask.dataframe as dd
    import pandas as pd
    import pyarrow as pa

    from emcatalog.describe.page import Description
    from emcatalog.entries.table import TableArguments
    from emcatalog.tables.fetching import TableReport
    from emcatalog.tables.table import StartProgress, Table, TablePlan

_FEW: Final = 10_000
"""Rows of which a conversion is done before its threads have started."""


class TableSource(EntrySource):
    """Rows and columns of a table: read where it lies, or from a local copy once it was fetched.

    Arguments (all optional; the catalog gives the rest):

    - ``columns``: names of the columns to read
    - ``filter``: rows to read, a mapping of a column to a value, to a list of values, or to comparisons:
      ``{"body": [10000, 10001], "conf": {">=": 0.7}, "type": {"!=": None}}``; a row without a value satisfies only
      ``None`` and ``{"==": None}``
    - ``bbox``: rows in a box ``(x0, x1, y0, y1, z0, z1)`` or ``{"x": [x0, x1], "y": ..., "z": ...}``, half-open
    - ``units``: of the box, ``"voxel"`` (of the table's voxel size) or ``"nm"``
    - ``coordinates``: the columns of x, y and z that the box is held against, where they are not the table's own
    - ``offline``: answer from the local copy alone
    - ``cache_dir``: folder of the cache
    """

    name = "em_table"
    container = "dataframe"
    partition_access = True
    arguments: TableArguments

    def plan(self) -> TablePlan:
        """What a read would bring here: columns, parts, bytes. Reads no row.

        Raises:
            ArgumentError: a column that is not there, a filter of the wrong type.
            SourceError: the table cannot be read.
        """
        return self._table().plan()

    def read(self, *, progress: bool = True) -> pd.DataFrame:
        """The rows in memory, in the order of the source, as ``pandas.read_feather`` would give them.

        From the local copy if the table was fetched; else only the record batches and columns that are needed come over
        the network.

        Args:
            progress: show a bar where somebody can see it.

        Raises:
            ArgumentError: a column that is not there, a filter of the wrong type.
            TooLargeError: they do not fit in the memory at hand.
            SourceError, CacheError: the table cannot be read.
        """
        return _frame(self.to_arrow(progress=progress))

    def to_arrow(self, *, progress: bool = True) -> pa.Table:
        """The same rows as an Arrow table.

        Raises:
            ArgumentError, TooLargeError, SourceError, CacheError: as ``read``.
        """
        return self._table().read(progress=self._bar() if progress else None)

    def head(self, rows: int = 5) -> pd.DataFrame:
        """The first of the rows: no more parts are read than hold them.

        Raises:
            ArgumentError, SourceError, CacheError: as ``read``.
        """
        return _frame(self._table().read(head=rows))

    def write(self, path: str | Path, *, head: int | None = None, progress: bool = True) -> int:
        """Write the rows to a file, part by part, and give their number.

        Args:
            path: ends in ``.parquet``, ``.feather`` or ``.csv``.
            head: how many rows at most.
            progress: show a bar where somebody can see it.

        Raises:
            ArgumentError: another kind of file, or one that exists.
            SourceError, CacheError: the table cannot be read.
        """
        with extra("tables"):
            from emcatalog.tables.writing import write_rows

        return write_rows(self._table(), Path(path), head, self._bar() if progress else None)

    def to_dask(self) -> dd.DataFrame:
        """The same rows as a dask frame: a part is read when it is computed. Can be sent to other processes.

        Its rows are in the order of the source, or in that of the local copy if the table was fetched.

        Raises:
            ArgumentError: a column that is not there, a filter of the wrong type.
            SourceError, CacheError: the table cannot be opened.
        """
        with extra("tables"):
            from emcatalog.tables.frame import to_dask

        return to_dask(self.arguments)

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns that are read, from the end of the file alone.

        Raises:
            ArgumentError: a column that is not there.
            SourceError, CacheError: the table cannot be opened.
        """
        return self._table().schema

    def fetch(self, *, progress: bool = True) -> TableReport:
        """Download the whole table and keep it as Parquet in an order that makes boxes and filters fast.

        An interrupted download goes on where it was. ``columns``, ``filter`` and ``bbox`` do not matter: the copy
        serves all of them.

        Args:
            progress: show a bar where somebody can see it.

        Raises:
            SourceCorruptError: the bytes are not those that the bucket or the catalog names; nothing is kept.
            SourceError: the table cannot be read.
            CacheError: the cache cannot be written, or has no room.
        """
        with extra("tables"):
            from emcatalog.tables.fetching import fetch_table

        model, settings = self.arguments.table, self.arguments.settings
        return fetch_table(
            model, settings, (lambda what, n: bytes_bar(f"{self.name}, {what}", n)) if progress else None
        )

    def about(self) -> Description:
        """What it is, for a person; asks no network."""
        from emcatalog.describe.table import describe_table

        return describe_table(self.arguments)

    def _get_partition(self, i: int) -> pd.DataFrame:
        """The wanted rows of one part; Intake's ``read_partition`` calls it."""
        return _frame(self._table().read([i]))

    def _table(self) -> Table:
        with extra("tables"):
            from emcatalog.tables.opening import open_table

        return open_table(self.arguments)

    def _bar(self) -> StartProgress:
        return lambda parts: items_bar(self.name, parts, "part")

    def _get_schema(self) -> Schema:
        table = self._table()
        dtypes = {name: str(dtype) for name, dtype in table.schema.empty_table().to_pandas().dtypes.items()}
        shape = (self.arguments.table.rows, len(dtypes))
        return Schema(dtype=dtypes, shape=shape, npartitions=table.stored.parts, extra_metadata={})


def _frame(rows: pa.Table) -> pd.DataFrame:
    """Rows as pandas."""
    return rows.to_pandas(use_threads=rows.num_rows > _FEW)
