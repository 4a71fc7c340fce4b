"""``emcatalog table``: rows of a table, on the screen or in a file.

Annotations are evaluated here (no ``from __future__``): the options of a command are read from them at import.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from emcatalog.cli.commands import file_errors
from emcatalog.cli.options import on_a_table
from emcatalog.cli.terminal import results, say, several, table
from emcatalog.errors import listing

if TYPE_CHECKING:
    from emcatalog.drivers.table import TableSource

_WIDTH = 12
"""Of a column, where the screen is divided among them."""

HEAD = 10
"""Rows that are shown where nobody says how many."""


@on_a_table
def show(
    source: "TableSource",
    head: Annotated[
        int | None, typer.Option(metavar="N", min=1, help=f"Rows to show. Default: {HEAD}; with --out all.")
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
    found = source.head(head)
    fitting = found.iloc[:, : max(1, console.width // _WIDTH)]
    rows = table(*map(str, fitting.columns), left=len(fitting.columns))
    for column, kind in zip(rows.columns, fitting.dtypes, strict=True):
        column.justify = "right" if kind.kind in "iuf" else "left"
    for values in fitting.itertuples(index=False):
        rows.add_row(*map(_text, values))
    console.print(rows)
    if hidden := list(found.columns[len(fitting.columns) :]):
        say(f"and {several(len(hidden), 'column', 'columns')} more: {listing(hidden)}; --columns chooses")
    rest = "; --head N shows more, --out FILE writes all" if len(found) == head else ""
    say(f"{several(len(found), 'row', 'rows')}{rest}")


def _text(value: Any) -> str:
    if value is None or value != value:  # a missing value is not what it is
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
