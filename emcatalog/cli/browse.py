"""``emcatalog list`` and ``emcatalog info``: what there is. Asks no network but for a catalog that lies there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.text import Text

from emcatalog.cli.commands import option_of, own_parameters
from emcatalog.cli.entry import HELP, allowed_values, find, is_catalog, open_catalog, parameters, walk
from emcatalog.cli.options import CatalogFile, Entry
from emcatalog.cli.terminal import facts, results, table
from emcatalog.errors import ArgumentError

if TYPE_CHECKING:
    from emcatalog.describe.page import Description

WIDE: Final = 120
"""Columns from which the facts of an entry have columns of their own."""
_ALARMING: Final = "bold yellow"


def list_entries(
    catalog: Annotated[
        str | None, typer.Argument(metavar="CATALOG", help="A sub-catalog (malecns_data), or a catalog file or URL.")
    ] = None,
    long: Annotated[
        bool, typer.Option("--long", help="All that the catalog says of each entry, as `emcatalog info` prints it.")
    ] = False,
    file: CatalogFile = None,
) -> None:
    """List the entries of a catalog."""
    show = print_entries if long else print_catalog
    opened = open_catalog(catalog if file is None and _is_file(catalog) else file)
    if catalog is None or (file is None and _is_file(catalog)):
        show(results(), opened)
        return
    entry = find(opened, catalog)
    if not is_catalog(entry):
        raise ArgumentError(f"{catalog} is one entry, not a catalog; `emcatalog info {catalog}` shows it")
    show(results(), entry, f"{catalog}.")


def info(ctx: typer.Context, entry: Entry, catalog: CatalogFile = None) -> None:
    """Show what an entry is.

    Its channels, box, parameters and licence, and where the numbers come from. The entry's own parameters are options
    too: --version v1.0
    """
    found = find(open_catalog(catalog), entry)
    own = own_parameters(ctx, entry, {} if is_catalog(found) else allowed_values(found))
    if is_catalog(found):
        print_catalog(results(), found, f"{entry}.")
    else:
        print_entry(results(), entry, found(**own) if own else found)


def print_catalog(console: Console, catalog: Any, prefix: str = "") -> None:
    """Print the entries of a catalog and of its sub-catalogs, by dotted name."""
    _print_description(console, catalog)
    wide = console.width >= WIDE
    rows = table("entry", "description", *(("holds", "extent and size", "licence") if wide else ()), left=5)
    for column in (rows.columns[0], *rows.columns[3:4]):
        column.no_wrap = True
    for name, source in walk(catalog, prefix):
        text, licence = source.description or "", _licence(source)
        if is_catalog(source):
            rows.add_row(Text(name, "bold"), text, *(("", "", licence) if wide else ()))
            continue
        about = source.about()
        if wide:
            rows.add_row(Text(name, "bold"), text, _parts(about), "\n".join(about.size), licence)
        else:
            brief = "".join(f", {word}" for word in (about.brief, licence) if word)
            rows.add_row(Text(name, "bold"), Text.assemble(text, "\n", _parts(about), (brief, "dim")))
    console.print(rows)


def print_entries(console: Console, catalog: Any, prefix: str = "") -> None:
    """Print everything that a catalog says of its entries and of those of its sub-catalogs."""
    _print_description(console, catalog)
    for place, (name, source) in enumerate(walk(catalog, prefix)):
        if place:
            console.print()
        if is_catalog(source):
            console.print(_heading(name, source))
        else:
            print_entry(console, name, source)


def print_entry(console: Console, name: str, source: Any) -> None:
    """Print everything that the catalog says of an entry."""
    from emcatalog.describe.page import about_facts

    about = source.about()
    console.print(_heading(name, source))
    for part in (*about.read, *about.unread):
        said = "" if part.is_read else ", not read unless it is asked for"
        doubt = "" if part.is_confirmed else ("  ADDRESS NOT CONFIRMED", _ALARMING)
        console.print(Text.assemble("\n", (part.name, "bold cyan"), f"  {part.kind}{said}", doubt))
        console.print(facts(part.facts, indent=2))
    if chosen := {**about.options, **about.chosen}:
        console.print(Text("\nwhat is read unless you say otherwise", "bold"))
        console.print(facts(chosen.items(), indent=2))
    _print_parameters(console, source)
    console.print(Text("\nabout", "bold"))
    console.print(facts(about_facts(source.metadata).items(), indent=2))
    console.print(f"\n{HELP[type(source).name]}", style="dim")


def _print_description(console: Console, catalog: Any) -> None:
    if catalog.description:
        console.print(catalog.description, "\n", style="dim", sep="")


def _heading(name: str, source: Any) -> Text:
    return Text.assemble((name, "bold"), "  ", source.description or "")


def _is_file(catalog: str | None) -> bool:
    return catalog is not None and ("/" in catalog or catalog.endswith((".yaml", ".yml")))


def _parts(about: Description) -> Text:
    """Those that are read, how many more there are, and how many of them may not be where the catalog says."""
    names, more = ", ".join(part.name for part in about.read), len(about.unread)
    doubtful = sum(not part.is_confirmed for part in about.parts)
    doubt = f" ({'' if doubtful == len(about.parts) else f'{doubtful} '}NOT CONFIRMED)" if doubtful else ""
    return Text.assemble(f"{names} and {more} more" if more else names, (doubt, _ALARMING))


def _licence(source: Any) -> str:
    return str(source.metadata.get("licence", ""))


def _print_parameters(console: Console, source: Any) -> None:
    rows = [
        (
            option_of(each["name"]),
            f"{each['description']}: {', '.join(map(_word, each['allowed']))} (default {_word(each['default'])})",
        )
        for each in parameters(source)
    ]
    if rows:
        console.print(Text("\nparameters", "bold"))
        console.print(facts(rows, indent=2))


def _word(value: str) -> str:
    """As it is typed on a command line."""
    return value or '""'
