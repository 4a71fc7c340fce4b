"""An entry by the name that a user typed, with the arguments that a user typed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from shlex import shlex
from typing import Any, Final, cast

import typer

from emcatalog.cli.commands import option_of, own_parameters
from emcatalog.cli.terminal import errors
from emcatalog.errors import ArgumentError, listing, suggest

_CONDITION: Final = re.compile(r"(?P<name>[^=!<>]+?)\s*(?P<comparison><=|>=|!=|==|=|<|>)\s*(?P<values>.*)", re.DOTALL)
_WHOLE: Final = re.compile(r"[+-]?\d+")
_DECIMAL: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_WORDS: Final = {"true": True, "false": False}
_TEXT: Final = ("string", "category")
"""Types of columns whose values are taken as they are typed."""

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
    "em_neuprint": "it is asked from Python, with client(), fetch_neurons(...) and fetch_adjacencies(...)",
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
        kinds = " or ".join(KINDS[each] for each in drivers)
        raise ArgumentError(f"`{ctx.command_path}` is for {kinds}, and {name} is {KINDS[driver]}: {HELP[driver]}")
    own = own_parameters(ctx, name, allowed_values(entry))
    given = {key: value for key, value in options.items() if value not in (None, False)}
    _check_options(name, driver, given)
    return entry(**own, **{key: _parse(key, value, entry) for key, value in given.items()})


def _check_options(name: str, driver: str, given: Iterable[str]) -> None:
    """Refuse an option of other kinds of data.

    Raises:
        ArgumentError: the message says of which.
    """
    from emcatalog.entries import ARGUMENTS

    for key in given:
        if key not in ARGUMENTS[driver].model_fields:
            kinds = [KINDS[other] for other, arguments in ARGUMENTS.items() if key in arguments.model_fields]
            raise ArgumentError(f"{option_of(key)} is for {' or '.join(kinds)}, and {name} is {KINDS[driver]}")


def allowed_values(entry: Any) -> dict[str, list[str]]:
    """The entry's own parameters and the values that each can have."""
    return {parameter["name"]: list(parameter["allowed"]) for parameter in parameters(entry)}


def parameters(entry: Any) -> list[dict[str, Any]]:
    """The entry's own parameters as Intake describes them."""
    return [parameter for parameter in entry.describe()["user_parameters"] if parameter.get("allowed")]


def _parse(key: str, value: object, entry: Any) -> object:
    """A word of the command line as Python's argument of that name; a wrong one is left for our messages."""
    if key == "filter":
        return _conditions(cast(list[str], value), entry.arguments.table.columns)
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


def _conditions(words: Sequence[str], types: Mapping[str, str]) -> dict[str, Any]:
    """Conditions of a table as the mapping that Python takes.

    Args:
        words: as typed.
        types: of the columns that are declared.

    Raises:
        ArgumentError: one that is none, or two that would have to be one.
    """
    found: dict[str, dict[str, list[Any]]] = {}
    for word in words:
        match = _CONDITION.fullmatch(word.strip())
        values = _split(match["values"]) if match else []
        if match is None or not values:
            raise ArgumentError(
                f"--filter {word!r} is no condition: give a column, one of = != < <= > >=, and a value, as in"
                " 'conf>=0.7', or several with commas, as in 'body=10000,10001'; 'type=none' is where there is none"
            )
        name, comparison = match["name"], match["comparison"].replace("==", "=")
        if comparison in found.setdefault(name, {}):
            raise ArgumentError(
                f"--filter {word!r}: {name}{comparison} is given twice, and rows hold all that is asked for"
                + (f"; give '{name}=...' several values with commas" if comparison == "=" else "")
            )
        found[name][comparison] = [_value(each, types.get(name, "")) for each in values]
    return {name: _condition(name, asked) for name, asked in found.items()}


def _condition(name: str, asked: Mapping[str, list[Any]]) -> Any:
    """What is asked of one column: a value, several, or comparisons.

    Raises:
        ArgumentError: several values where one is compared with.
    """
    if list(asked) == ["="]:
        return asked["="] if len(asked["="]) > 1 else asked["="][0]
    for comparison, values in asked.items():
        if len(values) > 1:
            alone = ", unless it is the only condition on that column" if comparison == "=" else ""
            raise ArgumentError(
                f"--filter: {name}{comparison} takes one value{alone}; put a text with commas in quotes"
            )
    return {"==" if comparison == "=" else comparison: values[0] for comparison, values in asked.items()}


def _split(typed: str) -> list[str]:
    """Values with commas between them, of which those in quotes may hold some."""
    words = shlex(typed, posix=False)
    words.whitespace, words.whitespace_split, words.commenters = ",", True, ""
    try:
        return [word.strip() for word in words if word.strip()]
    except ValueError:  # a quote that does not end is a letter
        return [word.strip() for word in typed.split(",") if word.strip()]


def _value(typed: str, kind: str) -> Any:
    """What is meant by a word: a number, true or false, or a text where the column or quotes say so; none is none."""
    if len(typed) > 1 and typed[0] == typed[-1] and typed[0] in "'\"":
        return typed[1:-1]
    if typed.lower() == "none":
        return None
    if kind in _TEXT:
        return typed
    if _WHOLE.fullmatch(typed):
        return int(typed)
    return float(typed) if _DECIMAL.fullmatch(typed) else _WORDS.get(typed.lower(), typed)


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
