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

_ABANDONED_SECONDS: Final = 24 * 3600
"""After this long without a new file a writer of another computer is taken for dead."""


@contextmanager
def new_folder(folder: Path, is_ours: Callable[[Path], bool], is_equal: Callable[[Path], bool]) -> Iterator[Path]:
    """A folder to write into: beside its place, and renamed to it when the block ends without an error.

    Args:
        folder: where it will stand. What stood there is replaced.
        is_ours: whether what stands there is of a kind that may be replaced.
        is_equal: whether what stands there is as good as the new folder: where another writer was faster, its readers
            keep it.

    Raises:
        CacheError: it cannot be written there.
    """
    before = _identity(folder)
    if before and not is_ours(folder):
        raise CacheError(f"{folder} is something else, which is not replaced; move it, or choose another cache folder")
    with _writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        partial = _beside(folder)
    try:
        yield partial
        with _writing(folder):
            partial.chmod(0o755)  # mkdtemp makes folders that only their owner can read
            if _identity(folder) in (None, before) or not is_equal(folder):
                _put(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CacheError(f"{folder} cannot be written: {error.strerror}; choose another cache folder") from error


def _identity(folder: Path) -> int | None:
    """What tells a folder from another one that takes its place."""
    return folder.stat().st_ino if folder.exists() else None


def _beside(folder: Path) -> Path:
    """A folder in the same file system, whose name says who writes."""
    prefix = f"{_partial_prefix(folder)}{platform.node()}-{os.getpid()}-"
    return Path(mkdtemp(prefix=prefix, dir=folder.parent))


def _partial_prefix(folder: Path) -> str:
    return f".{folder.name}.partial-"


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
    prefix = _partial_prefix(folder)
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
