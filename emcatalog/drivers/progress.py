"""Progress bars: on standard error, where that is a terminal or a notebook."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

if TYPE_CHECKING:
    from emcatalog.cutout import StartProgress

_shown: Final[WeakSet[Any]] = WeakSet()
"""Bars of this process that are not at their end."""


def chunks_bar(name: str) -> StartProgress:
    """A bar for chunks of volumes, which is told how many there are when that is known."""

    def start(chunks: int, nbytes: int) -> Callable[[int, int], None]:
        advance = bytes_bar(f"{name}, {chunks} chunks", nbytes)
        return lambda _, arrived: advance(arrived)

    return start


def bytes_bar(title: str, nbytes: int) -> Callable[[int], None]:
    """A bar for bytes: call it with those that arrived."""
    return _bar(title, nbytes, unit="B", unit_scale=True)


def items_bar(title: str, count: int, unit: str) -> Callable[[int], None]:
    """A bar for things: call it with how many are done."""
    return _bar(title, count, unit=unit)


def clear_bars() -> None:
    """Take away the bars of work that failed or was stopped, so that what is said of it has a line of its own."""
    for bar in list(_shown):
        bar.close()


def _bar(title: str, total: int, **options: Any) -> Callable[[int], None]:
    if find_spec("ipywidgets") is None:
        from tqdm import tqdm  # tqdm.auto would warn that there are none
    else:
        from tqdm.auto import tqdm
    # A notebook's standard error is no terminal, and somebody looks at it all the same.
    bar = tqdm(total=total, desc=title, disable=False if _in_notebook() else None, leave=False, **options)
    _shown.add(bar)

    def advance(arrived: int) -> None:
        bar.update(arrived)
        if bar.n >= total:
            bar.close()

    return advance


def _in_notebook() -> bool:
    """Whether this process is a notebook's kernel; the module alone may be there because some library imported it."""
    kernel = sys.modules.get("ipykernel.kernelapp")
    return kernel is not None and bool(kernel.IPKernelApp.initialized())
