"""``emcatalog skeleton``: skeletons of neurons, measured or written as SWC.

Annotations are evaluated here (no ``from __future__``): the options of a command are read from them at import.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emcatalog.cli.commands import file_errors
from emcatalog.cli.entry import find_source
from emcatalog.cli.options import CacheDir, CatalogFile, Entry, Offline
from emcatalog.cli.terminal import count, results, say, several, table
from emcatalog.errors import ArgumentError, extra, listing
from emcatalog.new_file import new_file

if TYPE_CHECKING:
    import pandas as pd

    from emcatalog.drivers.skeletons import SkeletonSource


def skeleton(
    ctx: typer.Context,
    entry: Entry,
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID", help="Of neurons. Without any the ids that there are are printed."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write each as ID.swc, in nm, into a folder.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files in the folder.")] = False,
    offline: Offline = False,
    cache_dir: CacheDir = None,
    catalog: CatalogFile = None,
) -> None:
    """Measure skeletons, or write them as SWC.

    They are kept in the cache. The entry's own parameters are options too: --version v1.0
    """
    source = find_source(ctx, entry, catalog, ("em_skeletons",), offline=offline, cache_dir=cache_dir)
    bodies = _bodies(ids or ())
    if out is not None:
        _write_all(source, bodies, out, overwrite=overwrite)
    elif bodies:
        _print(source.read(bodies))
    else:
        _list_ids(source)


def _bodies(words: Sequence[str]) -> list[int]:
    """Ids as they were typed, with blanks or commas between them.

    Raises:
        ArgumentError: something that is no id.
    """
    with extra("tables"):
        from emcatalog.skeletons.collection import norm_ids

    return norm_ids([body for word in words for body in word.split(",") if body])


def _list_ids(source: "SkeletonSource") -> None:
    there = source.list_ids()
    print("\n".join(map(str, there.tolist())))
    say(several(len(there), "skeleton", "skeletons"))


def _print(found: "dict[int, pd.DataFrame]") -> None:
    from emcatalog.skeletons.measure import measure

    rows = table("id", "nodes", "branch points", "ends", "roots", "length", left=0)
    for body, nodes in found.items():
        size = measure(nodes)
        counts = (size.nodes, size.branch_points, size.ends, size.roots)
        rows.add_row(str(body), *map(count, counts), f"{size.length_nm / 1000:,.1f} um")
    results().print(rows)


def _write_all(source: "SkeletonSource", bodies: Sequence[int], folder: Path, *, overwrite: bool) -> None:
    """Write one file each.

    Raises:
        ArgumentError: no ids, or files that are there already; nothing was fetched.
    """
    if not bodies:
        raise ArgumentError("--out goes with ids: name the skeletons to write")
    places = {body: folder / f"{body}.swc" for body in bodies}
    there = [path.name for path in places.values() if path.exists()]
    if there and not overwrite:
        raise ArgumentError(f"{folder} has {listing(there)}; choose another folder, or give --overwrite")
    with file_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    about = source.metadata
    origin = [f"{key}: {about[key]}" for key in ("licence", "citation") if about.get(key)]
    for body, nodes in source.read(bodies).items():
        with file_errors(places[body]):
            _write(places[body], nodes, [f"body {body}, in nm", str(nodes.attrs["source"]), *origin])
        print(places[body])


def _write(path: Path, nodes: "pd.DataFrame", comments: Sequence[str]) -> None:
    from emcatalog.skeletons.swc import format_swc

    with new_file(path) as partial:
        partial.write_text(format_swc(nodes, comments), "utf-8")
