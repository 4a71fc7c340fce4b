"""``emcatalog list`` and ``emcatalog info``: what there is. Asks no network but for a catalog that lies there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.text import Text

from emcatalog.cli.commands import option_of, own_parameters
from emcatalog.cli.entry import allowed_values, find, is_catalog, open_catalog, parameters, walk
from emcatalog.cli.options import CatalogFile, Entry
from emcatalog.cli.terminal import facts, results, table
from emcatalog.errors import ArgumentError

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
    rows = table("entry", "description", *(("channels", "extent and size", "licence") if wide else ()), left=5)
    for column in (rows.columns[0], *rows.columns[3:4]):
        column.no_wrap = True
    for name, source in walk(catalog, prefix):
        text, licence = source.description or "", _licence(source)
        channels = Text() if is_catalog(source) else _channels(source)
        if wide:
            rows.add_row(Text(name, "bold"), text, channels, "" if is_catalog(source) else _extent(source), licence)
        elif is_catalog(source):
            rows.add_row(Text(name, "bold"), text)
        else:
            brief = f", {_size(source.arguments.voxel_size)} nm, {licence}"
            rows.add_row(Text(name, "bold"), Text.assemble(text, "\n", channels, (brief, "dim")))
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
    from emcatalog.describe import about_facts, unread_channels, volume_facts

    arguments = source.arguments
    unread = unread_channels(arguments)
    console.print(_heading(name, source))
    for channel, model in {**arguments.chosen, **unread}.items():
        said = ", not read unless it is asked for" if channel in unread else ""
        console.print(
            Text.assemble("\n", (channel, "bold cyan"), f"  {model.kind}, {model.dtype}{said}", _doubt(model))
        )
        console.print(facts(volume_facts(model), indent=2))
    console.print(Text("\nwhat is read unless you say otherwise", "bold"))
    console.print(facts(_box(arguments), indent=2))
    _print_parameters(console, source)
    console.print(Text("\nabout", "bold"))
    console.print(facts(about_facts(source.metadata).items(), indent=2))


def _print_description(console: Console, catalog: Any) -> None:
    if catalog.description:
        console.print(catalog.description, "\n", style="dim", sep="")


def _heading(name: str, source: Any) -> Text:
    return Text.assemble((name, "bold"), "  ", source.description or "")


def _doubt(model: Any) -> tuple[str, str]:
    """What nobody must overlook."""
    return "" if model.unconfirmed is None else "  ADDRESS NOT CONFIRMED", _ALARMING


def _is_file(catalog: str | None) -> bool:
    return catalog is not None and ("/" in catalog or catalog.endswith((".yaml", ".yml")))


def _channels(source: Any) -> Text:
    """Those that are read, how many more there are, and how many of them may not be where the catalog says."""
    volumes = source.arguments.volumes
    names = ", ".join(source.channels)
    more = len(volumes) - len(source.channels)
    doubtful = sum(model.unconfirmed is not None for model in volumes.values())
    doubt = f" ({'' if doubtful == len(volumes) else f'{doubtful} '}NOT CONFIRMED)" if doubtful else ""
    return Text.assemble(f"{names} and {more} more" if more else names, (doubt, _ALARMING))


def _extent(source: Any) -> str:
    """Extent of the first channel, the nominal voxel size, and the bytes of all channels."""
    from emcatalog.describe import extent, stored_size

    first = next(iter(source.channels.values()))
    volumes = source.arguments.volumes.values()
    return f"{extent(first)}\nvoxels of {_size(source.arguments.voxel_size)} nm\n{stored_size(volumes)}"


def _licence(source: Any) -> str:
    return str(source.metadata.get("licence", ""))


def _box(arguments: Any) -> Iterator[tuple[str, str]]:
    from emcatalog.describe import box_facts

    if arguments.bbox is not None:
        yield "--bbox", _bbox(arguments.bbox)
    yield "--units", str(arguments.units)
    yield from box_facts(arguments).items()


def _bbox(bbox: Any) -> str:
    """As it is typed, whatever form the catalog wrote it in."""
    pairs = [bbox[axis] for axis in "xyz"] if isinstance(bbox, dict) else [bbox]
    return bbox if isinstance(bbox, str) else ",".join(str(edge) for pair in pairs for edge in pair)


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


def _size(size: Any) -> str:
    """A voxel size (x, y, z): one number where it is a cube."""
    return f"{size[0]:.10g}" if len(set(size)) == 1 else " x ".join(f"{edge:.10g}" for edge in size)
