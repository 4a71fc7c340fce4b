"""The options that several commands share, under the names that they have in Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, Final

import typer

from emcatalog.cli.entry import announce_demo, find_source
from emcatalog.errors import ArgumentError

Entry = Annotated[str, typer.Argument(metavar="ENTRY", help="Name as `emcatalog list` prints it.", show_default=False)]
CatalogFile = Annotated[
    str | None, typer.Option("--catalog", metavar="FILE", help="Another catalog than the shipped one: a path or a URL.")
]
Bbox = Annotated[
    str | None,
    typer.Option(metavar="X0,X1,Y0,Y1,Z0,Z1", help="The box, half-open. Default: the entry's own, or the whole."),
]
Units = Annotated[str | None, typer.Option(metavar="UNIT", help="Of the box: voxel (of the entry's size) or nm.")]
Resolution = Annotated[
    str | None, typer.Option(metavar="NM", help="Voxel size to read at: one number, or X,Y,Z. It must exist.")
]
Channels = Annotated[str | None, typer.Option(metavar="NAMES", help="Channels to read: raw,labels. Default: all.")]
Channel = Annotated[
    str | None,
    typer.Option(metavar="INDEX", help="Of a volume with an axis of channels: 0, 1, ... or all. Default: the entry's."),
]
Align = Annotated[
    str | None, typer.Option(metavar="HOW", help="nearest puts channels of other voxel sizes on one grid.")
]
Clip = Annotated[bool, typer.Option("--clip", help="Cut a box that sticks out down to what exists.")]
Columns = Annotated[str | None, typer.Option(metavar="NAMES", help="Columns to read: x,y,z,body. Default: all.")]
Filter = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CONDITION",
        help="Rows to read, as in body=10000,10001 or conf>=0.7 or superclass!=none (quote it). May be given again.",
    ),
]
Coordinates = Annotated[
    str | None, typer.Option(metavar="X,Y,Z", help="Columns that the box is held against. Default: the table's own.")
]
Pattern = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN", help="Of files: names below the folder, as in '*.csv'. May be given again."),
]
Offline = Annotated[bool, typer.Option("--offline", help="Answer from the cache alone.")]
CacheDir = Annotated[
    str | None, typer.Option(metavar="FOLDER", help="Folder or URL of the cache. Default: EMCATALOG_CACHE.")
]


def _options(
    entry: Entry,
    bbox: Bbox = None,
    units: Units = None,
    resolution: Resolution = None,
    channels: Channels = None,
    channel: Channel = None,
    align: Align = None,
    clip: Clip = False,
    columns: Columns = None,
    filter: Filter = None,  # noqa: A002  # its name in Python
    coordinates: Coordinates = None,
    offline: Offline = False,
    cache_dir: CacheDir = None,
    catalog: CatalogFile = None,
) -> None:
    """The options that there are; the decorators below give a command those of its kinds of data."""


_BOX: Final = ("bbox", "units", "resolution", "channels", "channel", "align", "clip")
_ROWS: Final = ("columns", "filter", "bbox", "units", "coordinates")
_BOX_OR_ROWS: Final = tuple(dict.fromkeys((*_BOX, *_ROWS)))
_ANYWHERE: Final = ("offline", "cache_dir", "catalog")


def on_a_box(command: Callable[..., None]) -> Callable[..., None]:
    """Make a command of a function whose first argument is a volume: it gets an entry and the options of a box."""
    return _with_options(command, _BOX, ("em_volume",))


def on_a_table(command: Callable[..., None]) -> Callable[..., None]:
    """Make a command of a function whose first argument is a table: it gets an entry and the options of tables."""
    return _with_options(command, _ROWS, ("em_table",))


def on_data(command: Callable[..., None]) -> Callable[..., None]:
    """The same for volumes, tables and files; an option of another kind of data than the entry is refused."""
    return _with_options(command, _BOX_OR_ROWS, ("em_volume", "em_table", "em_files"))


def on_whole_data(command: Callable[..., None]) -> Callable[..., None]:
    """The same where a table is taken as a whole, so that nobody downloads all of it who asked for a box."""
    return _with_options(command, _BOX, ("em_volume", "em_table", "em_files"), whole=("em_table",))


def _with_options(
    command: Callable[..., None], options: Sequence[str], drivers: Sequence[str], whole: Sequence[str] = ()
) -> Callable[..., None]:
    """Typer reads a command's options from its signature, so that the shared ones are put there."""
    there = signature(_options, eval_str=True).parameters
    shared = [there[name] for name in ("entry", *options, *_ANYWHERE)]
    own = list(signature(command).parameters.values())[1:]

    def run(ctx: typer.Context, entry: str, catalog: str | None, **values: Any) -> None:
        box = {option.name: values.pop(option.name) for option in shared if option.name in values}
        source = find_source(ctx, entry, catalog, drivers, **box)
        if type(source).name in whole:
            _refuse_a_part(entry, **box)
        announce_demo(source)
        command(source, **values)

    context = Parameter("ctx", Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    parameters = [p.replace(kind=Parameter.KEYWORD_ONLY) for p in (context, shared[0], *own, *shared[1:])]
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]  # functions have it: PEP 362
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    run.__doc__ = command.__doc__
    return run


def _refuse_a_part(entry: str, *, bbox: str | None, units: str | None, **_: object) -> None:
    if bbox is not None or units is not None:
        raise ArgumentError(
            f"{entry} is a table, which is fetched whole: leave --bbox and --units away; `emcatalog table {entry}"
            f" --bbox {bbox or 'X0,X1,Y0,Y1,Z0,Z1'} --out FILE` reads a part of it"
        )
