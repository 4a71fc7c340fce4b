"""How much memory is at hand, containers included."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

_CGROUP: Final = Path("/sys/fs/cgroup")
_MEMBERSHIP: Final = Path("/proc/self/cgroup")

RESERVE: Final = 0.9
"""Share of the free memory that a result may take; the rest is for decoding and for the caller."""


def available_bytes() -> int:
    """Bytes that a result may take now: free memory of the machine, or of the container if that is less."""
    import psutil

    free = int(psutil.virtual_memory().available)
    limit = _cgroup_free()
    return int(RESERVE * (free if limit is None else min(free, limit)))


def _cgroup_free(root: Path = _CGROUP, membership: Path = _MEMBERSHIP) -> int | None:
    """Free bytes below the tightest limit of this process's control groups, or None where there is none.

    A container's limit stands at the root that it sees, a batch job's in a group further down.

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html (memory interface files) and, for version 1,
    https://docs.kernel.org/admin-guide/cgroup-v1/memory.html.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    free: list[int] = []
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers == "":
            free += _free_in_each(root, path, "memory.max", "memory.current", "")
        elif "memory" in controllers.split(","):
            free += _free_in_each(root / "memory", path, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
    return min(free, default=None)


def _free_in_each(root: Path, path: str, limit: str, used: str, prefix: str) -> Iterator[int]:
    """Free bytes of a group and of each group above it that has a limit."""
    group = root / path.strip("/")
    for folder in (group, *group.parents):
        if not folder.is_relative_to(root):
            return
        try:
            most, now = (folder / limit).read_text().strip(), (folder / used).read_text()
            counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except OSError:
            continue
        if most != "max":
            # The page cache counts as used, and is given up when somebody asks for memory; after a read of a large
            # mirror it is most of what a container "uses".
            pages = sum(int(counts.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
            yield max(0, int(most) - int(now) + pages)


def release_free_memory() -> None:
    """Give memory that was freed back to the system, where the C library can be asked to.

    Chunks are allocated and freed by many threads, and glibc keeps what each thread's arena once held: without this a
    fetch of 1024 cubed ends with several hundred MB more than one of 512 cubed (``benchmarks/fetch.py``).
    """
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


@cache
def _glibc() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return None
    return libc if hasattr(libc, "malloc_trim") else None
