"""``emcatalog plan``, ``fetch``, ``export`` and ``preview``: one box of one entry, or a table, or files.

Annotations are evaluated here (no ``from __future__``): the options of a command are read from them at import.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from emcatalog.cli.commands import file_errors
from emcatalog.cli.entry import KINDS
from emcatalog.cli.options import Pattern, on_a_box, on_data, on_whole_data
from emcatalog.cli.terminal import count, facts, results, say, several, size, table
from emcatalog.errors import ArgumentError, listing

if TYPE_CHECKING:
    from emcatalog.drivers.table import TableSource
    from emcatalog.drivers.volume import VolumeSource
    from emcatalog.fetch import ChannelReport, FetchReport
    from emcatalog.file_tree import FilesPlan, FilesReport
    from emcatalog.plan import ChannelPlan, Plan
    from emcatalog.tables.fetching import TableReport

_NOTHING = "nothing was missing"

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the folder if it exists.")]


@on_data
def plan(source: Any, pattern: Pattern = None) -> None:
    """Say what a read or a fetch would bring.

    Of a box of a volume, of rows of a table, or of files. Touches no voxel and no row. The entry's own parameters are
    options too: --version v1.0
    """
    if type(source).name == "em_files":
        print_files_plan(results(), source.plan(pattern))
        return
    _refuse_for_files(source, pattern=pattern)
    if type(source).name == "em_table":
        print_table_plan(results(), source)
    else:
        print_plan(results(), source.plan())


@on_whole_data
def fetch(
    source: Any,
    pattern: Pattern = None,
    everything: Annotated[bool, typer.Option("--all", help="Of files: all of them.")] = False,
) -> None:
    """Fill the cache with a box, a table or files.

    Only what is missing is fetched, so that asking again goes on after an interruption. A table is fetched whole.
    The entry's own parameters are options too: --version v1.0
    """
    if type(source).name == "em_files":
        print_files_report(results(), source.fetch(pattern, all=everything))
        return
    _refuse_for_files(source, pattern=pattern, all=everything or None)
    if type(source).name == "em_table":
        print_table_report(results(), source.fetch())
    else:
        print_report(results(), source.fetch())
        say(f"kept in {source.arguments.settings.cache}")


def _refuse_for_files(source: Any, **options: object) -> None:
    for name, value in options.items():
        if value is not None:
            raise ArgumentError(f"--{name} is for files, and {source.name} is {KINDS[type(source).name]}")


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


def print_table_plan(console: Console, source: "TableSource") -> None:
    """Print what reading the wanted columns and rows of a table would take, and what fetching all of it would."""
    plan, arguments = source.plan(), source.arguments
    where = "from the local copy" if plan.is_cached else "over the network"
    more = ", and more where rows are found" if arguments.conditions or arguments.bbox is not None else ""
    rows = [
        ("columns", listing(plan.columns)),
        ("a read", f"about {size(plan.stored_bytes)} {where}, in {several(plan.parts, 'part', 'parts')}{more}"),
    ]
    if not plan.is_cached:
        stored = arguments.table.stored_bytes
        whole = f"about {size(stored)}" if stored else "size not confirmed"
        rows.append(("a fetch", f"{whole} over the network: the whole table, kept for boxes and filters"))
    console.print(facts(rows))


def print_table_report(console: Console, report: "TableReport") -> None:
    """Print what fetching a table did."""
    came = f"{size(report.fetched_bytes)} in {report.seconds:.1f} s" if report.fetched_bytes else _NOTHING
    rows = [("fetched", came), ("kept", f"{count(report.rows)} rows, {size(report.copy_bytes)}")]
    console.print(facts([*rows, ("folder", str(report.folder))]))


def print_files_plan(console: Console, plan: "FilesPlan") -> None:
    """Print how many files there are, what they take, and what of them is here."""
    rows = [
        ("files", f"{count(plan.files)}, {size(plan.nbytes)}"),
        ("cached", f"{count(plan.cached)}, {size(plan.cached_bytes)}"),
        ("to fetch", f"{count(plan.missing)}, {size(plan.missing_bytes)}"),
        ("folder", str(plan.folder)),
    ]
    console.print(facts(rows))


def print_files_report(console: Console, report: "FilesReport") -> None:
    """Print what fetching files did."""
    fetched = several(report.fetched, "file", "files")
    came = f"{fetched}, {size(report.fetched_bytes)} in {report.seconds:.1f} s" if report.fetched else _NOTHING
    rows = [("fetched", came), ("kept", f"{several(report.files, 'file', 'files')}, {size(report.nbytes)}")]
    console.print(facts([*rows, ("folder", str(report.folder))]))


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
