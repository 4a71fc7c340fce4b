"""What the commands write on: results on standard output, everything else on standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

PLAIN_WIDTH = 100
"""Columns of a table where nobody watches: a pipe, a file, the log of a CI job. ``COLUMNS`` wins."""

GAP = 3
"""Blanks between two columns of a table."""


def results() -> Console:
    """Standard output, as wide as the terminal."""
    watched = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if watched else PLAIN_WIDTH, highlight=False, markup=False)


def errors() -> Console:
    """Standard error. What stands there is sentences: a terminal wraps them, a file keeps them whole."""
    return Console(stderr=True, highlight=False, markup=False, soft_wrap=not sys.stderr.isatty())


def complain(message: str) -> None:
    """Say on standard error what went wrong, on one line."""
    errors().print(Text.assemble(("error: ", "bold red"), " ".join(message.split())))


def interrupted(outcome: str) -> None:
    """Say on standard error that the user stopped it, below the bar or the question that stands there."""
    console = errors()
    if console.is_terminal:
        console.print()
    console.print(f"interrupted{'; ' if outcome else ''}{outcome}")


def say(message: str) -> None:
    """Tell the user something that is not a result."""
    errors().print(message, style="dim")


def table(*headings: str, left: int = 1) -> Table:
    """An empty table with few lines.

    Args:
        headings: of the columns.
        left: how many columns are text; those after it hold numbers and stand at the right.
    """
    empty = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold", show_edge=False)
    for place, heading in enumerate(headings):
        empty.add_column(heading, justify="left" if place < left else "right", overflow="fold")
    return empty


def facts(rows: Iterable[tuple[str, str]], indent: int = 0) -> Table:
    """Names and values, one pair a line; a long value goes on below itself."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(" " * indent + name, value)
    return grid


def plain(text: str, longest: int) -> str:
    """Text of others on one line: none of it moves the cursor of a user's terminal, and a long one is cut."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))
    return shown if len(shown) <= longest else f"{shown[: longest - 3]}..."


def size(nbytes: float) -> str:
    """Bytes for a person: ``134.2 MB``."""
    return decimal(int(nbytes))


def count(number: int) -> str:
    """A number for a person: ``12,345``."""
    return f"{number:,}"


def several(number: int, one: str, more: str) -> str:
    """A number of things for a person: ``1 entry``, ``2 entries``."""
    return f"{count(number)} {one if number == 1 else more}"
