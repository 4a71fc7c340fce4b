"""Fetching a table: the whole file downloaded and verified, then kept as a copy that boxes and filters read fast."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from emcatalog.download import check_room, download
from emcatalog.entries.table import TableModel
from emcatalog.errors import CacheCorruptError, SourceChangedError, SourceCorruptError
from emcatalog.objects import RemoteObject, describe_object
from emcatalog.settings import Settings
from emcatalog.tables.copy import TableCopy
from emcatalog.tables.copying import write_copy
from emcatalog.tables.local import LocalTable, open_local
from emcatalog.tables.opening import copy_folder, find_copy, never_fetched

StartBytes = Callable[[str, int], Callable[[int], None]]
"""Called with what is to be done and its size; what it returns is called as it goes on."""

_ROOM: Final = 3
"""Times its size that a table needs on disk: the download, its rows sorted into parts, and the copy."""


@dataclass(frozen=True, slots=True)
class TableReport:
    """What a fetch did."""

    rows: int
    """Of the table."""
    fetched_bytes: int
    """That came over the network; 0 where the copy was there."""
    copy_bytes: int
    """Of the copy."""
    seconds: float
    """All in all."""
    folder: Path
    """Where the copy lies; any Parquet tool opens it."""

    def __str__(self) -> str:
        """One line for a person."""
        came = f"fetched {self.fetched_bytes / 1e6:,.1f} MB" if self.fetched_bytes else "nothing was missing"
        return (
            f"{self.rows:,} rows, {came}, kept {self.copy_bytes / 1e6:,.1f} MB in {self.folder}, {self.seconds:.1f} s"
        )


def fetch_table(model: TableModel, settings: Settings, progress: StartBytes | None = None) -> TableReport:
    """Keep a copy of a table, unless there is one.

    Raises:
        NotCachedError: offline, and there is none.
        SourceChangedError: there is a copy, of what the table was before.
        SourceCorruptError: the bytes are not those that the store names, or are no table; nothing is kept.
        SourceError: the table cannot be read; what arrived is kept, and the next fetch goes on from there.
        CacheError: the cache cannot be written, or has no room.
    """
    started = time.perf_counter()
    found, folder = find_copy(model, settings), copy_folder(model, settings)
    if settings.offline:
        if found is None:
            raise never_fetched(model)
        return _report(found, folder, 0, started)
    remote = describe_object(model.location.url, model.storage_options, settings)
    about = {"url": model.url, "nbytes": remote.nbytes, "md5": remote.md5, "version": remote.version}
    if found is not None:
        _check_same(found, remote, model, folder)
        return _report(found, folder, 0, started)
    _bring(model, folder, remote, settings, about, progress)
    made = find_copy(model, settings)
    assert made is not None, "it was written a line above"
    return _report(made, folder, remote.nbytes, started)


def _bring(
    model: TableModel,
    folder: Path,
    remote: RemoteObject,
    settings: Settings,
    about: dict[str, Any],
    progress: StartBytes | None,
) -> None:
    """Download the file into a folder of its own, which is removed when the copy is there."""
    waiting = folder.with_name(f".{folder.name}.download")
    waiting.mkdir(parents=True, exist_ok=True)
    check_room(waiting, _ROOM * remote.nbytes, model.url)
    target = waiting / remote.name
    advance = progress("downloading", remote.nbytes) if progress else None
    # What the catalog declares is held against the store by `emcatalog check`: a table may be published anew.
    expected = model.md5 if remote.md5 is None else None
    url, options = model.location.url, model.storage_options
    download(url, target, options, settings, advance, expected_md5=expected, remote=remote)
    try:
        _copy(open_local(target), model, folder, about, progress)
    except CacheCorruptError as error:
        shutil.rmtree(waiting)
        raise SourceCorruptError(
            f"{model.url} came as its store describes it, and is no table that can be read: {error}; nothing was kept,"
            " so tell the data's owner"
        ) from error
    shutil.rmtree(waiting)


def _copy(
    table: LocalTable, model: TableModel, folder: Path, about: dict[str, Any], progress: StartBytes | None
) -> None:
    coordinates = model.coordinates
    advance = progress("sorting (rows, twice)", 2 * (model.rows or 0)) if progress and model.rows else None
    order_by = () if coordinates else model.order_by
    write_copy(table, folder, coordinates=coordinates, order_by=order_by, about=about, progress=advance)


def _check_same(found: TableCopy, remote: RemoteObject, model: TableModel, folder: Path) -> None:
    """Refuse a copy of what the table was before.

    Raises:
        SourceChangedError: the store has another one now.
    """
    kept = RemoteObject(remote.name, found.about["nbytes"], found.about["md5"], found.about["version"])
    if not kept.is_same(remote):
        raise SourceChangedError(
            f"{model.url} is no longer what the copy in {folder} was made from: remove that, with `emcatalog cache rm`,"
            " and fetch it again"
        )


def _report(copy: TableCopy, folder: Path, fetched: int, started: float) -> TableReport:
    kept = sum(path.stat().st_size for path in folder.iterdir())
    return TableReport(copy.rows, fetched, kept, time.perf_counter() - started, folder)
