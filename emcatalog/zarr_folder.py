"""A Zarr folder that appears whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from emcatalog.errors import ArgumentError


@contextmanager
def new_zarr(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder to write a Zarr into: beside its place, and renamed to it when the block ends without an error.

    Raises:
        ArgumentError: the path exists and is not to be overwritten, or cannot be written.
    """
    if path.exists() and not (overwrite and _is_zarr(path)):
        raise ArgumentError(f"{path} exists; choose another path, or overwrite=True where it is a Zarr folder")
    partial = _beside(path)
    try:
        yield partial
        partial.chmod(0o755)  # mkdtemp makes folders that only their owner can read
        if path.exists():
            shutil.rmtree(path)
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _beside(path: Path) -> Path:
    """A folder in the same file system, made before anything is fetched for it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return Path(mkdtemp(prefix=f".{path.name}.partial-", dir=path.parent))
    except OSError as error:
        raise ArgumentError(f"{path} cannot be written: {error.strerror}; choose another path") from error


def _is_zarr(path: Path) -> bool:
    """Whether overwriting costs no more than a Zarr: a slip must not remove somebody's home folder."""
    return (path / "zarr.json").is_file() or (path.is_dir() and not any(path.iterdir()))
