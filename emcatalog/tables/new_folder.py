"""A folder that appears whole or not at all, and what writers that were killed have left beside it."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

import psutil

from emcatalog.errors import CacheError

_PARTIAL: Final = ".{name}.partial-"
_ABANDONED_SECONDS: Final = 24 * 3600
"""After this long without a new file a writer of another computer is taken for dead."""


@contextmanager
def new_folder(folder: Path, is_equal: Callable[[Path], bool]) -> Iterator[Path]:
    """A folder to write into: beside its place, and renamed to it when the block ends without an error.

    Args:
        folder: where it will stand. What stood there is replaced.
        is_equal: whether what stands there is as good as the new folder: when another writer was faster, its readers
            keep it.

    Raises:
        CacheError: it cannot be written there.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        partial = _beside(folder)
    except OSError as error:
        raise CacheError(f"{folder} cannot be written: {error.strerror}; choose another cache folder") from error
    try:
        yield partial
        partial.chmod(0o755)  # mkdtemp makes folders that only their owner can read
        if not (folder.exists() and is_equal(folder)):
            _put(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _beside(folder: Path) -> Path:
    """A folder in the same file system, whose name says who writes."""
    prefix = f"{_PARTIAL.format(name=folder.name)}{platform.node()}-{os.getpid()}-"
    return Path(mkdtemp(prefix=prefix, dir=folder.parent))


def _put(partial: Path, folder: Path) -> None:
    """Rename, after what stands there has made way: a folder with files in it cannot be renamed to."""
    if folder.exists():
        old = _beside(folder)
        folder.rename(old)
        partial.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    else:
        partial.rename(folder)


def _remove_abandoned(folder: Path) -> None:
    """Remove what writers of this folder left who were killed."""
    prefix = _PARTIAL.format(name=folder.name)
    for partial in folder.parent.iterdir():
        if partial.name.startswith(prefix) and _is_abandoned(partial, partial.name.removeprefix(prefix)):
            shutil.rmtree(partial, ignore_errors=True)


def _is_abandoned(partial: Path, writer: str) -> bool:
    node, _, process = writer.rpartition("-")[0].rpartition("-")
    if node == platform.node() and process.isdigit():
        return not psutil.pid_exists(int(process))
    try:
        return time.time() - partial.stat().st_mtime > _ABANDONED_SECONDS
    except FileNotFoundError:  # its writer has just finished
        return False
