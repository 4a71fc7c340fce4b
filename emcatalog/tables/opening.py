"""From validated arguments to an open table: the local copy where there is one, or the file where it lies."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from emcatalog.entries.table import TableArguments, TableModel
from emcatalog.errors import NotCachedError, SourceError
from emcatalog.locations import url_folder
from emcatalog.objects import describe_object, open_object
from emcatalog.settings import Settings
from emcatalog.tables.copy import TableCopy, open_copy
from emcatalog.tables.feather import open_feather
from emcatalog.tables.parquet import open_parquet
from emcatalog.tables.query import norm_columns, norm_where
from emcatalog.tables.stored import StoredTable
from emcatalog.tables.table import Table
from emcatalog.tables.window import VersionedFile


def open_table(arguments: TableArguments) -> Table:
    """Open a table, and hold what was asked for against its columns; of a remote one the footer alone is read.

    Raises:
        ArgumentError: a column that is not there, a filter of the wrong type.
        NotCachedError: offline, and it was never fetched.
        SourceError, CacheError: it cannot be read.
    """
    settings, model = arguments.settings, arguments.table
    stored = find_copy(model, settings) or open_remote(model, settings)
    size = model.voxel_size
    where = norm_where(arguments.conditions, arguments.box_nm, arguments.axes, size, stored.schema)
    return Table(model.url, stored, norm_columns(arguments.chosen, stored.schema), where)


def copy_folder(model: TableModel, settings: Settings) -> Path:
    """Where the local copy of a table lies, if it was fetched."""
    location = model.location
    return settings.cache_folder / f"{url_folder(location.url, location.endpoint)}.parquet"


def find_copy(model: TableModel, settings: Settings) -> TableCopy | None:
    """The local copy of a table, or None where it was never fetched.

    Raises:
        CacheCorruptError: it is there and cannot be read.
    """
    if "://" in settings.cache:  # what is kept as files is not in a bucket
        return None
    folder = copy_folder(model, settings)
    try:
        status = folder.stat()
    except FileNotFoundError:
        return None
    return _open_copy(folder, status.st_ino, status.st_mtime_ns)


@lru_cache(maxsize=32)
def _open_copy(folder: Path, *_: int) -> TableCopy:
    """A copy, read again where the folder is another: reading its documents takes as long as a small query."""
    return open_copy(folder)


def never_fetched(model: TableModel) -> NotCachedError:
    """What is said of a table that only the network has, offline."""
    return NotCachedError(f"offline, and {model.url} was never fetched; fetch() it while there is a network")


def open_remote(model: TableModel, settings: Settings) -> StoredTable:
    """A table where it lies; its footer is read.

    Raises:
        NotCachedError: offline.
        SourceError: it is not there, or not what it should be.
    """
    url, options = model.location.url, model.storage_options
    if settings.offline:
        raise never_fetched(model)
    try:
        about = describe_object(url, options, settings)
        file = VersionedFile(open_object(url, options, settings), about.nbytes)
        return open_feather(file) if model.location.format == "feather" else open_parquet(file)
    except SourceError as error:
        if model.unconfirmed is None:
            raise
        raise type(error)(f"{error} (this address is not confirmed: {model.unconfirmed})") from error
