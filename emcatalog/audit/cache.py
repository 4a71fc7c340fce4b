"""What lies in the cache, read and held against what is known of it: one way for each kind of what is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from emcatalog.errors import EmcatalogError
from emcatalog.mirror.cache import Cache
from emcatalog.mirror.inventory import BadShard, MirrorFiles, verify

_CHANGED: Final = "its bytes are not those that were fetched"


def find_damage(cache: Cache, mirror: MirrorFiles) -> Iterator[BadShard]:
    """Read a mirror, the copy of a table, or kept files, and give what of it is damaged.

    Raises:
        CacheCorruptError: its own description is, so that nothing can be said of the rest.
        ModuleNotFoundError: what reads tables or skeletons is not installed.
    """
    if mirror.is_array:
        return verify(cache, mirror)
    return _damaged_parts(cache, mirror) if mirror.is_table else _damaged_files(cache, mirror)


def unknown_files(cache: Cache, mirror: MirrorFiles) -> int:
    """How many kept files have no checksum, so that damage shows only where they do not parse."""
    return sum(_checksum(Path(cache.url, key)) is None for key in mirror.shards) if mirror.is_kept else 0


def _damaged_parts(cache: Cache, mirror: MirrorFiles) -> Iterator[BadShard]:
    if not mirror.shards:  # a download that was begun
        return
    from emcatalog.tables.copy import open_copy

    for name, _ in open_copy(Path(cache.url, mirror.name)).damage():
        yield BadShard(f"{mirror.name}/{name}", "it is missing, or its bytes are not those that were written")


def _damaged_files(cache: Cache, mirror: MirrorFiles) -> Iterator[BadShard]:
    for key in mirror.shards:
        path = Path(cache.url, key)
        checksum = _checksum(path)
        reason = _parsing_fails(path) if checksum is None else None if _md5(path) == checksum else _CHANGED
        if reason is not None:
            yield BadShard(key, reason)


def _checksum(path: Path) -> str | None:
    """The MD5 that a file had when it was fetched, from what a download writes beside it; None where it was none."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        found = json.loads(path.with_name(f".{path.name}.json").read_bytes())["md5"]
        return found if isinstance(found, str) else None
    return None


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _parsing_fails(path: Path) -> str | None:
    """Why a skeleton does not parse; None where it does, or is something else, of which nothing is known."""
    try:
        _parse_skeleton(path)
    except EmcatalogError as error:
        return str(error)
    return None


def _parse_skeleton(path: Path) -> None:
    info = path.with_name("info")
    if path.suffix == ".swc":
        from emcatalog.skeletons.swc import parse_swc

        parse_swc(path.read_bytes(), 1.0, path.name)
    elif info.is_file() and _checksum(info) is None:
        from emcatalog.skeletons.precomputed import parse_info, parse_precomputed

        parsed = parse_info(info.read_bytes(), "info")
        if path != info:
            parse_precomputed(path.read_bytes(), parsed, path.name)
