"""``emcatalog`` on the command line: what a person types. The only place that prints."""

from __future__ import annotations

from typing import Annotated

import typer

from emcatalog import __version__
from emcatalog.cli import box, browse, cache, check, demo, skeleton, table
from emcatalog.cli.commands import Commands, EntryCommand, show_help

app = typer.Typer(
    cls=Commands,
    add_completion=False,
    pretty_exceptions_enable=False,  # an unexpected exception is for whoever mends it: the plain traceback
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"emcatalog {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _emcatalog(
    ctx: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Volume electron microscopy as a catalog: browse it, cut boxes, keep them in a sparse local mirror.

    The same arguments as in Python: cat.malecns(bbox=...).fetch() is `emcatalog fetch malecns --bbox ...`
    """
    show_help(ctx)


app.command("list")(browse.list_entries)
app.command("info", cls=EntryCommand)(browse.info)
app.command("plan", cls=EntryCommand)(box.plan)
app.command("fetch", cls=EntryCommand)(box.fetch)
app.command("export", cls=EntryCommand)(box.export)
app.command("preview", cls=EntryCommand)(box.preview)
app.command("table", cls=EntryCommand)(table.show)
app.command("skeleton", cls=EntryCommand)(skeleton.skeleton)
app.add_typer(cache.app, name="cache")
app.command("check", cls=EntryCommand)(check.check)
app.command("validate")(check.validate)
app.command("schema")(check.schema)
app.command("demo")(demo.demo)


def main() -> None:
    """Run the command line of this process."""
    app(prog_name="emcatalog")
