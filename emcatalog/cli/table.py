"""``emcatalog table``: rows of a table, on the screen or in a file.

Annotations are evaluated here (no ``from __future__``): the options of a command are read from them at import.
"""

from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from emcatalog.cli.commands import file_errors
from emcatalog.cli.options import on_a_table
from emcatalog.cli.terminal import GAP, errors, plain, results, say, several, table
from emcatalog.errors import listing

if TYPE_CHECKING:
    import pandas as pd

    from emcatalog.drivers.table import TableSource

HEAD = 10
"""Rows that are shown where nobody says how many."""

_LONGEST = 30
"""Letters of a cell; of a longer text the beginning is shown."""


@on_a_table
def show(
    source: "TableSource",
    head: Annotated[
        int | None, typer.Option(metavar="N", min=1, help=f"How many rows. Default: {HEAD}; with --out all.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the rows to a file: .parquet, .feather or .csv.")
    ] = None,
) -> None:
    """Show rows of a table, or write them to a file.

    Only the columns and the parts of the table that are needed are read. The entry's own parameters are options too:
    --version v1.0
    """
    if out is None:
        print_rows(results(), source, head or HEAD)
        return
    with file_errors(out):
        rows = source.write(out, head=head)
    print(out)
    say(several(rows, "row", "rows"))


def print_rows(console: Console, source: "TableSource", head: int) -> None:
    """Print the first rows, of as many columns as there is room for."""
    with errors().status(f"reading {source.name}"):
        found = source.head(head)
    if found.index.name is not None:  # a column that pandas takes as the index is a column of the table all the same
        found = found.reset_index()
    found.columns = [plain(name, 2 * _LONGEST) for name in found.columns]
    cells = {name: [_text(value) for value in found[name].tolist()] for name in found.columns}
    names = _fitting(cells, console.width)
    console.print(_grid(found, {name: cells[name] for name in names}))
    if hidden := list(found.columns[len(names) :]):
        say(f"{several(len(hidden), 'more column', 'more columns')}: {listing(hidden)}; --columns chooses")
    more = "the first " if len(found) == head else ""
    rest = "; --head N shows more, --out FILE writes all" if more else ""
    say(f"{more}{several(len(found), 'row', 'rows')}{rest}")


def _fitting(cells: dict[str, list[str]], width: int) -> list[str]:
    """Names of the first columns that have room beside each other, one at least."""
    widths = [max(map(len, (name, *column))) + GAP for name, column in cells.items()]
    room = sum(end - GAP <= width for end in accumulate(widths))
    return list(cells)[: max(1, room)]


def _grid(found: "pd.DataFrame", cells: dict[str, list[str]]) -> Any:
    grid = table(*cells, left=len(cells))
    for column, name in zip(grid.columns, cells, strict=True):
        column.justify = "right" if found[name].dtype.kind in "iuf" else "left"
    for row in zip(*cells.values(), strict=True):
        grid.add_row(*row)
    return grid


def _text(value: Any) -> str:
    """A cell on one line; empty where there is no value."""
    import numpy as np
    from pandas import isna

    if isinstance(value, (list, np.ndarray)):
        return plain(", ".join(map(_text, value)), _LONGEST)
    if isna(value) is True:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else plain(str(value), _LONGEST)
