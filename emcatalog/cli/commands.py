"""How commands behave as a whole: a user's mistake is one sentence and exit status 2, Ctrl-C is 130."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from emcatalog.cli.terminal import complain, interrupted
from emcatalog.drivers.progress import clear_bars
from emcatalog.errors import ArgumentError, EmcatalogError, listing, suggest

USAGE: Final = 2
INTERRUPTED: Final = 130

_UsageError: Final[type[Any]] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
"""Base of what Typer raises at a wrong command line; the module it lives in changed between Typer's releases."""

_ADVICE: Final = tuple(
    (re.compile(pattern), option)
    for pattern, option in (
        (r"\b(all|clip|overwrite|offline)=True\b", r"--\1"),
        (r"\b(align|channel|units)='(nearest|all|nm)'", r"--\1 \2"),
        (r"\bcoordinates=\[x, y, z\]", "--coordinates x,y,z"),
        (r"\b(bbox|channels|columns|coordinates|filter|resolution|units)=(?=[\s,;.)]|$)", r"--\1"),
        (r"(?<![\w/])cache_dir(?![\w/])=?", "--cache-dir"),
        (r"\bfetch\(('[^']*')\)", r"--pattern \1"),
        (r"\bfetch\(\)", "fetch"),
        (r"\blist_ids\(\)", "`emcatalog skeleton` without ids"),
        (r"\btake to_dask\(\)", "write them with --out"),
        (r"12781 or \[12781, 556329\]", "12781 or 12781 556329"),
    )
)
"""Advice of the layers below, which is for Python, and how the same is typed here."""

_KEEPS: Final = ("fetch", "export", "preview", "skeleton")
"""Commands that fetch into the user's cache."""


class Commands(TyperGroup):
    """The commands of ``emcatalog``."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command line and end the process with its status."""
        kwargs["standalone_mode"] = False
        try:
            status = super().main(*args, **kwargs)
            sys.stdout.flush()
        except EmcatalogError as error:
            clear_bars()
            complain(as_typed(str(error)))
            status = USAGE
        except _UsageError as error:
            complain(_usage(error))
            status = error.exit_code
        except typer.Abort:  # Ctrl-C or Ctrl-D at a question
            interrupted("nothing was done")
            status = INTERRUPTED
        except BrokenPipeError:
            # `emcatalog list | head -1`: nobody reads on. Python would complain once more when it flushes at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            status = 1
        sys.exit(status if isinstance(status, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command; Ctrl-C says what became of the work."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            clear_bars()
            fetches = ctx.invoked_subcommand in _KEEPS
            interrupted("what was fetched is kept, and the same command goes on from there" if fetches else "")
            raise typer.Exit(INTERRUPTED) from None


class EntryCommand(TyperCommand):
    """A command on an entry: takes the entry's own parameters (``--version v1.0``) as options of their own name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Set aside the options that only the entry can know; ``own_parameters`` gives them."""
        known = {option: param for param in self.get_params(ctx) for option in (*param.opts, *param.secondary_opts)}
        flags = {option for option, param in known.items() if getattr(param, "is_flag", False)}
        rest, ctx.meta["own"] = _set_aside(args, set(known), flags)
        ctx.meta["known"] = [option for option in known if option.startswith("--")]
        return super().parse_args(ctx, rest)


def own_parameters(ctx: typer.Context, entry: str, allowed: dict[str, list[str]]) -> dict[str, str]:
    """The entry's parameters from the command line, by name.

    Args:
        ctx: of an ``EntryCommand``.
        entry: its name, for messages.
        allowed: the values that each of the entry's parameters can have.

    Raises:
        ArgumentError: an option that neither the command nor the entry has, or a value that is not allowed.
    """
    names = {option_of(name): name for name in allowed}
    there = [*ctx.meta["known"], *names]
    chosen = {}
    for typed, value in ctx.meta["own"].items():
        option = option_of(typed.removeprefix("--"))
        if option not in names:
            raise ArgumentError(
                f"there is no option {typed} for {entry}; there are {listing(there)}.{_near(option, there)}"
            )
        chosen[names[option]] = _allowed(names[option], value, allowed[names[option]])
    return chosen


def option_of(parameter: str) -> str:
    """The option that sets a parameter of an entry: ``--some-name`` for ``some_name``."""
    return f"--{parameter.replace('_', '-')}"


def as_typed(message: str) -> str:
    """A message with what it advises for Python as it is typed on the command line."""
    for python, option in _ADVICE:
        message = python.sub(option, message)
    return message


@contextmanager
def file_errors(path: object) -> Iterator[None]:
    """Turn the operating system's refusal to read or write a user's file into our sentence.

    Raises:
        ArgumentError: in place of an ``OSError``.
    """
    try:
        yield
    except EmcatalogError:
        raise
    except OSError as error:
        culprit = f" ({error.filename})" if error.filename and str(error.filename) != str(path) else ""
        raise ArgumentError(f"{path} cannot be used: {error.strerror or error}{culprit}") from error


def show_help(ctx: typer.Context) -> None:
    """Print the help of a group that was called without a command."""
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


def _near(option: str, there: Sequence[str]) -> str:
    """The dashes are alike in every option, and would make all of them near."""
    return suggest(option[2:], [each[2:] for each in there]).replace("'", "'--", 1)


def _allowed(name: str, value: str | None, values: Sequence[str]) -> str:
    if value is None:
        raise ArgumentError(f"{option_of(name)} needs a value: {listing(values)}")
    if value not in values:
        raise ArgumentError(
            f"{name}={value} is not one of the allowed values {listing(values)}.{suggest(value, values)}"
        )
    return value


def _set_aside(args: Sequence[str], known: set[str], flags: set[str]) -> tuple[list[str], dict[str, str | None]]:
    """Split a command line into what the command knows and the rest, as option -> value (None where it lacks one)."""
    rest: list[str] = []
    own: dict[str, str | None] = {}
    words = list(args)
    while words:
        word = words.pop(0)
        option, equals, value = word.partition("=")
        if word == "--":
            return [*rest, word, *words], own
        if not option.startswith("--"):
            rest.append(word)
        elif option not in known:
            bare = not equals and (not words or words[0].startswith("--"))
            own[option] = value if equals else None if bare else words.pop(0)
        else:
            rest += [word] if equals or option in flags or not words else [word, words.pop(0)]
    return rest, own


def _usage(error: Any) -> str:
    """Typer's message, and where the help is."""
    path = error.ctx.command_path if getattr(error, "ctx", None) else "emcatalog"
    message = error.format_message().rstrip()
    return f"{message}{'' if message.endswith(('.', '?')) else '.'} Try '{path} --help'."
