"""An entry by the name that a user typed, with the arguments that a user typed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

from emcatalog.cli.commands import own_parameters
from emcatalog.cli.terminal import errors
from emcatalog.errors import ArgumentError, listing, suggest

if TYPE_CHECKING:
    from emcatalog.drivers.volume import VolumeSource


def open_catalog(path: str | None) -> Any:
    """The shipped catalog, or the one at a path or a URL.

    Raises:
        CatalogError: it is not there, or not a catalog.
    """
    import emcatalog

    if path is None:
        return emcatalog.catalog
    return emcatalog.open_catalog(path)


def walk(catalog: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every entry by its dotted name, sub-catalogs before what they hold.

    Raises:
        CatalogError: a sub-catalog that cannot be read.
    """
    for name in catalog:
        source = catalog[name]
        yield f"{prefix}{name}", source
        if is_catalog(source):
            yield from walk(source, f"{prefix}{name}.")


def is_catalog(source: Any) -> bool:
    """Whether an entry is a sub-catalog."""
    return bool(source.container == "catalog")


def find(catalog: Any, name: str) -> Any:
    """The entry of a dotted name, with its defaults.

    Raises:
        ArgumentError: there is none; the message has the near ones.
    """
    found = catalog
    for part in name.split("."):
        if not (found is catalog or is_catalog(found)) or part not in list(found):
            raise ArgumentError(_no_entry(catalog, name))
        found = found[part]
    return found


def find_volume(ctx: typer.Context, name: str, catalog: str | None, **options: object) -> VolumeSource:
    """The volume of an entry, with what was asked of it on the command line.

    Args:
        ctx: of the command, which has the entry's own parameters.
        name: of the entry.
        catalog: path or URL, or None for the shipped one.
        options: as typed; None and False leave the entry's own.

    Raises:
        ArgumentError: no such entry, or an argument that cannot be used.
    """
    entry = find(open_catalog(catalog), name)
    if is_catalog(entry):
        entries = listing(f"{name}.{key}" for key in entry)
        raise ArgumentError(f"{name} is a catalog; name one of its entries: {entries}")
    own = own_parameters(ctx, name, allowed_values(entry))
    given = {key: _parse(key, value) for key, value in options.items() if value not in (None, False)}
    source: VolumeSource = entry(**own, **given)
    return source


def allowed_values(entry: Any) -> dict[str, list[str]]:
    """The entry's own parameters and the values that each can have."""
    return {parameter["name"]: list(parameter["allowed"]) for parameter in parameters(entry)}


def parameters(entry: Any) -> list[dict[str, Any]]:
    """The entry's own parameters as Intake describes them."""
    return [parameter for parameter in entry.describe()["user_parameters"] if parameter.get("allowed")]


def _parse(key: str, value: object) -> object:
    """A word of the command line as Python's argument of that name; a wrong one is left for our messages."""
    if key == "channels":
        return [name.strip() for name in str(value).split(",") if name.strip()]
    if key == "channel" and str(value).isdecimal():
        return int(str(value))
    if key != "resolution":
        return value
    try:
        numbers = [float(number) for number in str(value).split(",")]
    except ValueError:
        return value
    return numbers[0] if len(numbers) == 1 else numbers


def _no_entry(catalog: Any, name: str) -> str:
    names = [known for known, _ in walk(catalog)]
    tails = [known for known in names if known.rpartition(".")[2] == name]
    hint = f" Did you mean {tails[0]!r}?" if tails else suggest(name, names)
    return f"there is no entry {name!r}; there are {listing(names)}.{hint}"


def announce_demo(source: VolumeSource) -> None:
    """Drawing the demo's tissue takes some seconds, once; say so before the silence."""
    if not any(channel.location.url.startswith("demo://") for channel in source.channels.values()):
        return
    from emcatalog.formats.demo import demo_folder

    if not demo_folder().is_dir():
        errors().print("drawing the demo's tissue, once; this takes some seconds ...", style="dim")
