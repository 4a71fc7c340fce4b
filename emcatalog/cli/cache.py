"""``emcatalog cache``: what lies in the cache, whether it is right, and how to be rid of it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console

from emcatalog.cli.commands import EntryCommand, as_typed, own_parameters, show_help
from emcatalog.cli.entry import find_source, open_catalog, walk
from emcatalog.cli.options import CacheDir, CatalogFile, Channels, Resolution
from emcatalog.cli.terminal import complain, count, errors, results, say, several, size, table
from emcatalog.errors import ArgumentError, CacheError, extra, suggest

if TYPE_CHECKING:
    from emcatalog.mirror.cache import Cache
    from emcatalog.mirror.inventory import MirrorFiles

BAD: Final = 1
"""Exit status of ``verify`` where something is bad."""

Which = Annotated[
    str | None,
    typer.Argument(metavar="ENTRY|SOURCE", help="An entry, or a source as `cache ls` prints it or its beginning."),
]

app = typer.Typer(help="See, verify and remove what lies in the cache.", add_completion=False)


@app.callback(invoke_without_command=True)
def _cache(ctx: typer.Context) -> None:
    show_help(ctx)


@app.command("ls")
def ls(cache_dir: CacheDir = None) -> None:
    """List what lies in the cache, and what it takes."""
    from emcatalog.mirror.inventory import list_mirrors

    cache = _open(cache_dir)
    print_mirrors(results(), cache.url, list_mirrors(cache))


@app.command("verify", cls=EntryCommand)
def verify(
    ctx: typer.Context,
    which: Which = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="Delete what is bad: shards, files, tables with a bad part.")
    ] = False,
    resolution: Resolution = None,
    channels: Channels = None,
    cache_dir: CacheDir = None,
    catalog: CatalogFile = None,
) -> None:
    """Read the cache and name what is damaged.

    Every chunk, part of a table and kept file is held against its checksum. The exit status is 1 where something is
    damaged, removed or not.
    """
    from emcatalog.audit.cache import unknown_files

    cache = _open(cache_dir)
    chosen = _choose(ctx, cache, which, catalog, resolution=resolution, channels=channels)
    with extra("tables"):
        bad = sum(_verify(cache, mirror, remove=remove) for mirror in chosen)
    found = (
        f"{count(bad)} bad{', removed; they are fetched again when asked for' if remove else ''}" if bad else "all good"
    )
    print(f"{_files(chosen)} in {_mirrors(chosen)}: {found}")
    if unknown := sum(unknown_files(cache, mirror) for mirror in chosen):
        say(f"{several(unknown, 'kept file has', 'kept files have')} no checksum, so that little can be said")
    if bad:
        raise typer.Exit(BAD)


@app.command("rm", cls=EntryCommand)
def rm(
    ctx: typer.Context,
    which: Which = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything in the cache.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    resolution: Resolution = None,
    channels: Channels = None,
    cache_dir: CacheDir = None,
    catalog: CatalogFile = None,
) -> None:
    """Remove mirrors, tables or files from the cache.

    Asks first. All scales of an entry go, unless --resolution says which one.
    """
    from emcatalog.mirror.inventory import remove_mirror

    if (which is None) != everything:
        raise ArgumentError("name an entry, or a source as `emcatalog cache ls` prints it; or give --all alone")
    cache = _open(cache_dir)
    chosen = _choose(ctx, cache, which, catalog, resolution=resolution, channels=channels)
    if not yes and chosen and not _agreed(cache, chosen):
        print("nothing was removed")
        return
    for mirror in chosen:
        remove_mirror(cache, mirror.name)
    print(f"removed {_mirrors(chosen)}, {size(sum(mirror.nbytes for mirror in chosen))} freed")


def print_mirrors(console: Console, folder: str, mirrors: list[MirrorFiles]) -> None:
    """Print what lies in a cache, and where the cache is."""
    if not mirrors:
        console.print(f"nothing is cached in {folder}")
        return
    rows = table("source", "what", "files", "on disk", left=2)
    for mirror in mirrors:
        rows.add_row(*_source_and_what(mirror), count(len(mirror.shards)), size(mirror.nbytes))
    together = count(sum(len(mirror.shards) for mirror in mirrors)), size(sum(mirror.nbytes for mirror in mirrors))
    rows.add_row("together", "", *together, style="bold")
    console.print(rows)
    console.print(f"in {folder}", style="dim")


def _source_and_what(mirror: MirrorFiles) -> tuple[str, str]:
    """Where it comes from, and the scale of an array, or the kind of another thing."""
    begun = f", {count(mirror.begun)} begun" if mirror.begun else ""
    if mirror.is_table:
        return mirror.name.removesuffix(".parquet"), f"table{begun}"
    source, _, scale = mirror.name.removesuffix(".zarr").rpartition("/")
    if mirror.is_kept:
        return source, f"kept files{begun}" if mirror.shards or mirror.begun else "a listing"
    return source, scale


_KINDS: Final = (
    ("is_array", ("mirror", "mirrors"), ("shard", "shards")),
    ("is_table", ("table", "tables"), ("part", "parts")),
    ("is_kept", ("folder", "folders"), ("kept file", "kept files")),
)
"""What is said of each kind: of it, and of its files."""


def _mirrors(chosen: list[MirrorFiles]) -> str:
    """How many of each kind: ``2 mirrors and 1 table``."""
    numbers = ((sum(getattr(mirror, kind) for mirror in chosen), one) for kind, one, _ in _KINDS)
    return " and ".join(several(number, *words) for number, words in numbers if number) or several(0, *_KINDS[0][1])


def _files(chosen: list[MirrorFiles]) -> str:
    """How many files of each kind there are in them: ``12 shards and 3 parts``."""
    numbers = (
        (sum(len(mirror.shards) for mirror in chosen if getattr(mirror, kind)), words) for kind, _, words in _KINDS
    )
    return " and ".join(several(number, *words) for number, words in numbers if number) or several(0, "file", "files")


def _open(cache_dir: str | None) -> Cache:
    from emcatalog.mirror.cache import Cache
    from emcatalog.settings import load_settings

    return Cache.at(load_settings(cache_dir=cache_dir))


def _choose(
    ctx: typer.Context, cache: Cache, which: str | None, catalog: str | None, **options: Any
) -> list[MirrorFiles]:
    """The mirrors of an entry, or those whose names begin with whole parts of ``which``; all where it is None.

    Raises:
        ArgumentError: nothing in the cache is meant.
    """
    from emcatalog.mirror.inventory import list_mirrors

    mirrors = list_mirrors(cache)
    entries = [] if which is None else [name for name, _ in walk(open_catalog(catalog))]
    if which in entries:
        names = _names(cache, find_source(ctx, which, catalog, **options))
    else:
        _check_bare(ctx, options)
        names = [] if which is None else [which.rstrip("/")]
    if which is None:
        return mirrors
    chosen = [mirror for mirror in mirrors if any(_lies_in(mirror.name, name) for name in names)]
    if not chosen:
        known = [*entries, *(mirror.name for mirror in mirrors)]
        raise ArgumentError(
            f"nothing of {which} is cached in {cache.url}; `emcatalog cache ls` shows what is."
            f"{'' if which in entries else suggest(which, known)}"
        )
    return chosen


def _check_bare(ctx: typer.Context, options: dict[str, Any]) -> None:
    """Without an entry there is nothing that its options could mean.

    Raises:
        ArgumentError: there is one.
    """
    own_parameters(ctx, f"`{ctx.command_path}` without an entry", {})
    for name, value in options.items():
        if value is not None:
            raise ArgumentError(f"--{name} goes with an entry, as in `{ctx.command_path} demo --{name} {value}`")


def _names(cache: Cache, source: Any) -> list[str]:
    """Beginnings of the names of an entry's mirrors."""
    if type(source).name != "em_volume":
        return _folders(source)
    folders = {model.location.folder: model.location for model in source.channels.values()}
    if source.arguments.resolution is None:
        return list(folders)
    volumes = {folder: cache.volume(location) for folder, location in folders.items()}
    wanted = source.arguments.resolution_nm
    return [f"{folder}/{volume.at(wanted).key}.zarr" for folder, volume in volumes.items() if volume]


def _folders(source: Any) -> list[str]:
    """Where a table, skeletons or files of an entry are kept."""
    from emcatalog.locations import url_folder

    places = [getattr(model, "location", None) for model in source.arguments.declarations.values()]
    there = [url_folder(place.url, place.endpoint) for place in places if place is not None]
    return [name for folder in there for name in (folder, f"{folder}.parquet")]


def _lies_in(name: str, beginning: str) -> bool:
    return name in (beginning, f"{beginning}.zarr") or name.startswith(f"{beginning}/")


def _verify(cache: Cache, mirror: MirrorFiles, *, remove: bool) -> int:
    """Print what of a mirror, a table or kept files is bad, and remove it if so wished; how many files that are."""
    from emcatalog.audit.cache import find_damage
    from emcatalog.mirror.inventory import remove_mirror, remove_shard

    bad = 0
    with errors().status(f"reading {mirror.name}"):
        try:
            for shard in find_damage(cache, mirror):
                bad += 1
                print(f"{cache.url}/{shard.key}: {' '.join(shard.reason.split())}")
                if remove and not mirror.is_table:
                    remove_shard(cache, shard.key)
        except CacheError as error:
            complain(as_typed(str(error)))
            bad += 1
    if bad and remove and mirror.is_table:  # without one of its files it is no table
        remove_mirror(cache, mirror.name)
    return bad


def _agreed(cache: Cache, chosen: list[MirrorFiles]) -> bool:
    """Ask.

    Raises:
        ArgumentError: there is nobody to ask.
    """
    if not sys.stdin.isatty():
        raise ArgumentError("there is no terminal to ask on before removing; give --yes")
    print_mirrors(errors(), cache.url, chosen)
    say("what is removed is fetched again when somebody asks for it")
    return typer.confirm("remove?", err=True)
