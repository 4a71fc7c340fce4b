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
_ABOUT: Final = ("title", "organism", "tissue", "modality", "licence", "citation", "doi", "homepage", "sources")


def list_entries(
    catalog: Annotated[
        str | None, typer.Argument(metavar="CATALOG", help="A sub-catalog (malecns_data), or a catalog file or URL.")
    ] = None,
    file: CatalogFile = None,
) -> None:
    """List the entries of a catalog."""
    opened = open_catalog(catalog if file is None and _is_file(catalog) else file)
    if catalog is None or (file is None and _is_file(catalog)):
        print_catalog(results(), opened)
        return
    entry = find(opened, catalog)
    if not is_catalog(entry):
        raise ArgumentError(f"{catalog} is one entry, not a catalog; `emcatalog info {catalog}` shows it")
    print_catalog(results(), entry, f"{catalog}.")


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
    if catalog.description:
        console.print(catalog.description, "\n", style="dim", sep="")
    wide = console.width >= WIDE
    rows = table("entry", "description", *(("channels", "voxel size", "licence") if wide else ()), left=5)
    rows.columns[0].no_wrap = True
    for name, source in walk(catalog, prefix):
        text, brief = source.description or "", _brief(source)
        if wide:
            rows.add_row(Text(name, "bold"), text, *brief)
        else:
            rows.add_row(Text(name, "bold"), Text.assemble(text, *[("\n" + ", ".join(brief), "dim")] * any(brief)))
    console.print(rows)


def print_entry(console: Console, name: str, source: Any) -> None:
    """Print everything that the catalog says of an entry."""
    console.print(Text.assemble((name, "bold"), "  ", source.description or ""))
    if hasattr(source, "arguments"):
        for channel, model in source.channels.items():
            console.print(Text.assemble("\n", (channel, "bold cyan"), f"  {model.kind}, {model.dtype}"))
            console.print(facts(_channel(model), indent=2))
        console.print(Text("\nwhat is read unless you say otherwise", "bold"))
        console.print(facts(_box(source.arguments), indent=2))
    _print_parameters(console, source)
    about = [(key, _text(source.metadata[key])) for key in _ABOUT if source.metadata.get(key)]
    console.print(Text("\nabout", "bold"))
    console.print(facts(about, indent=2))


def _is_file(catalog: str | None) -> bool:
    return catalog is not None and ("/" in catalog or catalog.endswith((".yaml", ".yml")))


def _brief(source: Any) -> tuple[str, str, str]:
    """Channels, voxel size and licence, as far as the entry has them."""
    if not hasattr(source, "arguments"):
        return "", "", _text(source.metadata.get("licence", ""))
    size = f"{_size(source.arguments.voxel_size)} nm"
    return ", ".join(source.channels), size, _text(source.metadata.get("licence", ""))


def _channel(model: Any) -> Iterator[tuple[str, str]]:
    from emcatalog.describe import remote_size

    size = _size(model.voxel_size)
    if model.shape is None:
        yield "extent", f"not confirmed; voxels of {size} nm"
    else:
        edges = " x ".join(f"{n * edge / 1000:,.4g}" for n, edge in zip(model.shape, model.voxel_size, strict=True))
        yield "extent", f"{' x '.join(map(str, model.shape))} voxels of {size} nm (x, y, z): {edges} um"
    if any(model.offset or ()):
        yield "starts at", f"voxel {', '.join(map(str, model.offset))}"
    if model.num_channels:
        yield "channels", str(model.num_channels)
    yield "size", remote_size(model)
    yield "resolutions", ", ".join(_size(scale) for scale in model.scales or (model.voxel_size,)) + " nm"
    if model.chunk or model.encoding:
        chunk = f"{' x '.join(map(str, model.chunk))} voxels" if model.chunk else ""
        yield "chunk", ", ".join(filter(None, (chunk, model.encoding)))
    yield "address", model.url
    if model.unconfirmed:
        yield "NOT CONFIRMED", model.unconfirmed
    if model.axes != "xyz":
        yield "axes", f"stored x, y, z are {', '.join(model.axes)} in space"
    if model.note:
        yield "note", model.note
    yield "numbers from", model.source


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
        (option_of(each["name"]), f"{each['description']}: {', '.join(each['allowed'])} (default {each['default']})")
        for each in parameters(source)
    ]
    if rows:
        console.print(Text("\nparameters", "bold"))
        console.print(facts(rows, indent=2))


def _size(size: Any) -> str:
    """A voxel size (x, y, z): one number where it is a cube."""
    return f"{size[0]:.10g}" if len(set(size)) == 1 else " x ".join(f"{edge:.10g}" for edge in size)


def _text(value: object) -> str:
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)
