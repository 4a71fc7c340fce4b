"""An entry by the name that a user typed, with the arguments that a user typed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import typer

from emcatalog.cli.commands import own_parameters
from emcatalog.cli.terminal import errors
from emcatalog.errors import ArgumentError, listing, suggest

if TYPE_CHECKING:
    from emcatalog.drivers.volume import VolumeSource


_CONDITION: Final = re.compile(r"(?P<name>[^=!<>]+?)\s*(?P<comparison><=|>=|!=|=|<|>)\s*(?P<value>.*)")
_WORDS: Final = {"none": None, "true": True, "false": False}

KINDS: Final = {
    "em_volume": "a volume",
    "em_table": "a table",
    "em_skeletons": "skeletons",
    "em_neuprint": "a service",
    "em_files": "files",
}
"""What an entry is, by its driver."""

HELP: Final = {
    "em_volume": "see `emcatalog plan`, `fetch`, `export` and `preview`",
    "em_table": "see `emcatalog table`, `plan` and `fetch`",
    "em_skeletons": "see `emcatalog skeleton`",
    "em_neuprint": "it is asked from Python, with .client()",
    "em_files": "see `emcatalog plan` and `fetch`",
}
"""What can be done with it on the command line."""


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


def find_source(
    ctx: typer.Context, name: str, catalog: str | None, drivers: Sequence[str] = (), **options: object
) -> Any:
    """An entry, with what was asked of it on the command line.

    Args:
        ctx: of the command, which has the entry's own parameters.
        name: of the entry.
        catalog: path or URL, or None for the shipped one.
        drivers: of the entries that the command is for; none for every driver.
        options: as typed; None and False leave the entry's own.

    Raises:
        ArgumentError: no such entry, one of another driver, or an argument that cannot be used.
    """
    entry = find(open_catalog(catalog), name)
    if is_catalog(entry):
        entries = listing(f"{name}.{key}" for key in entry)
        raise ArgumentError(f"{name} is a catalog; name one of its entries: {entries}")
    driver = type(entry).name
    if drivers and driver not in drivers:
        raise ArgumentError(
            f"`{ctx.command_path}` is for {listing(KINDS[each] for each in drivers)}, and {name} is {KINDS[driver]}:"
            f" {HELP[driver]}"
        )
    own = own_parameters(ctx, name, allowed_values(entry))
    given = {key: _parse(key, value) for key, value in options.items() if value not in (None, False)}
    return entry(**own, **given)


def find_volume(ctx: typer.Context, name: str, catalog: str | None, **options: object) -> VolumeSource:
    """The volume of an entry, with what was asked of it on the command line.

    Raises:
        ArgumentError: no such entry, one of another driver, or an argument that cannot be used.
    """
    source: VolumeSource = find_source(ctx, name, catalog, ("em_volume",), **options)
    return source


def allowed_values(entry: Any) -> dict[str, list[str]]:
    """The entry's own parameters and the values that each can have."""
    return {parameter["name"]: list(parameter["allowed"]) for parameter in parameters(entry)}


def parameters(entry: Any) -> list[dict[str, Any]]:
    """The entry's own parameters as Intake describes them."""
    return [parameter for parameter in entry.describe()["user_parameters"] if parameter.get("allowed")]


def _parse(key: str, value: object) -> object:
    """A word of the command line as Python's argument of that name; a wrong one is left for our messages."""
    if key == "filter":
        return _conditions(cast(list[str], value))
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


def _conditions(words: Sequence[str]) -> dict[str, Any]:
    """Conditions of a table as the mapping that Python takes.

    Raises:
        ArgumentError: one that is none.
    """
    found: dict[str, Any] = {}
    for word in words:
        match = _CONDITION.fullmatch(word.strip())
        if match is None:
            raise ArgumentError(
                f"--filter {word!r} is no condition: give a column, one of = != < <= > >=, and a value, as in"
                " 'conf>=0.7', or several with commas, as in 'body=10000,10001'"
            )
        name, comparison, typed = match["name"], match["comparison"], match["value"]
        values = [_scalar(each) for each in typed.split(",")]
        if comparison == "=":
            found[name] = values if len(values) > 1 else values[0]
        else:
            found.setdefault(name, {})
            found[name][comparison] = values[0] if len(values) == 1 else typed
    return found


def _scalar(typed: str) -> Any:
    """A number, true or false, nothing, or a text; in quotes a text that looks like one of these."""
    text = typed.strip()
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _no_entry(catalog: Any, name: str) -> str:
    names = [known for known, _ in walk(catalog)]
    tails = [known for known in names if known.rpartition(".")[2] == name]
    hint = f" Did you mean {tails[0]!r}?" if tails else suggest(name, names)
    return f"there is no entry {name!r}; there are {listing(names)}.{hint}"


def announce_demo(source: Any) -> None:
    """Drawing the demo's tissue takes some seconds, once; say so before the silence."""
    if type(source).name != "em_volume":
        return
    if not any(channel.location.url.startswith("demo://") for channel in source.channels.values()):
        return
    from emcatalog.formats.demo import demo_folder

    if not demo_folder().is_dir():
        errors().print("drawing the demo's tissue, once; this takes some seconds ...", style="dim")
