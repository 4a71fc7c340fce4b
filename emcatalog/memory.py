"""How much memory is at hand, containers included."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from pathlib import Path
from typing import Any, Final

_CGROUP: Final = Path("/sys/fs/cgroup")

RESERVE: Final = 0.9
"""Share of the free memory that a result may take; the rest is for decoding and for the caller."""


def available_bytes() -> int:
    """Bytes that a result may take now: free memory of the machine, or of the container if that is less."""
    import psutil

    free = int(psutil.virtual_memory().available)
    limit = _cgroup_free()
    return int(RESERVE * (free if limit is None else min(free, limit)))


def _cgroup_free() -> int | None:
    """Free bytes below the limit of control group v2, or None where there is no limit.

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html (memory interface files).
    """
    try:
        limit, used = (_CGROUP / "memory.max").read_text().strip(), (_CGROUP / "memory.current").read_text()
    except OSError:
        return None
    return None if limit == "max" else max(0, int(limit) - int(used))


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
