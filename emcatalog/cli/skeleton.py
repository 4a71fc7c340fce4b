"""``emcatalog skeleton``: skeletons of neurons, measured or written as SWC.

Annotations are evaluated here (no ``from __future__``): the options of a command are read from them at import.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emcatalog.cli.commands import file_errors
from emcatalog.cli.entry import find_source
from emcatalog.cli.options import CacheDir, CatalogFile, Entry, Offline
from emcatalog.cli.terminal import count, results, say, several, table

if TYPE_CHECKING:
    import pandas as pd

    from emcatalog.drivers.skeletons import SkeletonSource


def skeleton(
    ctx: typer.Context,
    entry: Entry,
    ids: Annotated[
        list[int] | None, typer.Argument(metavar="[ID]...", help="Of neurons. Default: print the ids that there are.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write each as ID.swc, in nm, into a folder.")
    ] = None,
    offline: Offline = False,
    cache_dir: CacheDir = None,
    catalog: CatalogFile = None,
) -> None:
    """Show what skeletons are like, or write them as SWC files in nm.

    They are kept in the cache. The entry's own parameters are options too: --version v1.0
    """
    source = find_source(ctx, entry, catalog, ("em_skeletons",), offline=offline, cache_dir=cache_dir)
    if not ids:
        _list_ids(source)
        return
    found = source.read(ids)
    if out is None:
        _print(found)
        return
    for body, nodes in found.items():
        path = out / f"{body}.swc"
        with file_errors(path):
            out.mkdir(parents=True, exist_ok=True)
            _write(path, body, nodes)
        print(path)


def _list_ids(source: "SkeletonSource") -> None:
    there = source.list_ids()
    for body in there.tolist():
        print(body)
    say(several(len(there), "skeleton", "skeletons"))


def _print(found: "dict[int, pd.DataFrame]") -> None:
    from emcatalog.skeletons.measure import measure

    rows = table("id", "nodes", "branch points", "ends", "roots", "length", left=0)
    for body, nodes in found.items():
        size = measure(nodes)
        counts = (size.nodes, size.branch_points, size.ends, size.roots)
        rows.add_row(str(body), *map(count, counts), f"{size.length_nm / 1000:,.1f} um")
    results().print(rows)


def _write(path: Path, body: int, nodes: "pd.DataFrame") -> None:
    """Write one file, beside its place and renamed."""
    from emcatalog.skeletons.swc import format_swc

    partial = path.with_name(f".{path.name}")
    partial.write_text(format_swc(nodes, [f"body {body}", "units nm", str(nodes.attrs["source"])]), "utf-8")
    partial.replace(path)
