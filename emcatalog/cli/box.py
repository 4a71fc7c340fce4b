"""``emcatalog plan``, ``fetch``, ``export`` and ``preview``: one box of one entry.

Annotations are evaluated here (no ``from __future__``): the options of a command are read from them at import.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from emcatalog.cli.commands import file_errors
from emcatalog.cli.options import on_a_box, on_an_entry
from emcatalog.cli.terminal import count, results, say, size, table
from emcatalog.errors import ArgumentError, listing

if TYPE_CHECKING:
    from emcatalog.drivers.volume import VolumeSource
    from emcatalog.fetch import ChannelReport, FetchReport
    from emcatalog.plan import ChannelPlan, Plan

Pattern = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN", help="Of files: names below the folder, as in '*.csv'. May be given again."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the folder if it exists.")]


@on_an_entry
def plan(source: Any, pattern: Pattern = None) -> None:
    """Say what a read or a fetch would bring: of a box of a volume, of a table, of files.

    Touches no voxel and no row. The entry's own parameters are options too: --version v1.0
    """
    if type(source).name == "em_volume":
        _only_files(pattern=pattern)
        print_plan(results(), source.plan())
    elif type(source).name == "em_table":
        _only_files(pattern=pattern)
        print(source.plan())
    else:
        print(source.plan(pattern))


@on_an_entry
def fetch(
    source: Any,
    pattern: Pattern = None,
    everything: Annotated[bool, typer.Option("--all", help="Of files: all of them.")] = False,
) -> None:
    """Fill the cache: with a box of a volume, a whole table, or files.

    Only what is missing is fetched, so that asking again goes on after an interruption.
    The entry's own parameters are options too: --version v1.0
    """
    if type(source).name == "em_files":
        report = source.fetch(pattern, all=everything)
        print(report)
    else:
        _only_files(pattern=pattern, all=everything or None)
        report = source.fetch()
        print_report(results(), report) if type(source).name == "em_volume" else print(report)
    say(f"kept in {source.arguments.settings.cache}")


def _only_files(**options: object) -> None:
    for name, value in options.items():
        if value is not None:
            raise ArgumentError(f"--{name} is for entries of files")


@on_a_box
def export(
    source: "VolumeSource",
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Folder to make, as in box.zarr.", show_default=False)],
    overwrite: Overwrite = False,
) -> None:
    """Write a box as an OME-Zarr folder of its own.

    It needs neither the cache nor the network. The entry's own parameters are options too: --version v1.0
    """
    if path.exists() and not (overwrite and path.is_dir()):
        advice = ", or give --overwrite" if path.is_dir() else "; a box is exported as a folder"
        raise ArgumentError(f"{path} exists; choose another path{advice}")
    with file_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)  # before anything is fetched
        source.export(path, overwrite=overwrite)
    print(path)
    say(f"xarray.open_zarr({str(path)!r}, consolidated=False) opens it")


@on_a_box
def preview(
    source: "VolumeSource",
    picture: Annotated[
        Path, typer.Argument(metavar="PICTURE", help="File to write, as in box.png.", show_default=False)
    ],
) -> None:
    """Save a picture of a box: its three middle planes.

    Fetches no more than they need. The entry's own parameters are options too: --version v1.0
    """
    _check_picture(picture)
    with file_errors(picture):
        picture.parent.mkdir(parents=True, exist_ok=True)
        source.preview(picture)
    print(picture)


def print_plan(console: Console, plan: "Plan") -> None:
    """Print what a read would take, channel by channel and together."""
    from emcatalog.geometry import format_xyz

    rows = table("channel", "chunks", "cached", "to fetch", "download", "in memory")
    parts: list[tuple[str, Plan | ChannelPlan]] = [*plan.channels.items(), ("together", plan)]
    for name, part in parts:
        chunks = count(part.chunks), count(part.cached), count(part.missing)
        rows.add_row(name, *chunks, f"~{size(part.download_bytes)}", size(part.nbytes), style=_style(name))
    console.print(f"{format_xyz(plan.box.shape)} voxels of {format_xyz(plan.voxel_size_nm)} nm (x, y, z), {plan.box}")
    console.print(rows)


def print_report(console: Console, report: "FetchReport") -> None:
    """Print what a fetch did, channel by channel and together."""
    rows = table("channel", "fetched", "reused", "absent", "decoded")
    parts: list[tuple[str, FetchReport | ChannelReport]] = [*report.channels.items(), ("together", report)]
    for name, part in parts:
        chunks = count(part.fetched), count(part.reused), count(part.absent)
        rows.add_row(name, *chunks, size(part.fetched_bytes), style=_style(name))
    console.print(rows)
    rate = f", {size(report.rate)} a second" if report.fetched else "; nothing was missing"
    console.print(f"in {report.seconds:.2f} s{rate}")


def _style(row: str) -> str:
    return "bold" if row == "together" else ""


def _check_picture(path: Path) -> None:
    """Before anything is fetched: is it a kind of picture that can be written?

    Raises:
        ArgumentError: it is not.
    """
    from PIL import Image

    Image.init()
    writable = sorted(suffix for suffix, kind in Image.EXTENSION.items() if kind in Image.SAVE)
    if path.suffix.lower() not in writable:
        common = [suffix for suffix in writable if suffix in (".png", ".jpg", ".tif", ".webp")]
        raise ArgumentError(f"{path}: a picture ends in {listing(common)}")
    if path.is_dir():
        raise ArgumentError(f"{path} is a folder; name a file")
