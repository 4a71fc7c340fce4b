"""``emcatalog demo``: the main job from beginning to end on the embedded dataset. Every number shown is measured."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.text import Text

from emcatalog.cli import box as boxes
from emcatalog.cli import browse
from emcatalog.cli.commands import file_errors
from emcatalog.cli.entry import find
from emcatalog.cli.terminal import count, results, size

if TYPE_CHECKING:
    from emcatalog.drivers.volume import VolumeSource

BBOX: Final = (0, 192, 32, 224, 32, 224)
SHIFTED: Final = (64, 256, 32, 224, 32, 224)
"""The same box, moved by a third of its width."""

Out = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where the picture, the export and a cache go.")]


@dataclass(frozen=True, slots=True)
class _Story:
    """What the steps share."""

    console: Console
    catalog: Any
    cache: Path
    """Of its own, so that the first read is cold however often the demo runs."""

    def tell(self, heading: str, code: str, *sentences: str) -> None:
        """Begin a step: what it is about, and how it is written in Python."""
        self.console.print(Text.assemble("\n", (heading, "bold cyan"), "   ", (code, "green") if code else ""))
        for sentence in sentences:
            self.console.print(sentence)

    def cut(self, bbox: tuple[int, ...], **arguments: Any) -> VolumeSource:
        """A box of the demo, read through the demo's own cache whatever the environment says."""
        arguments = {"offline": False, **arguments}
        source: VolumeSource = self.catalog.demo(bbox=bbox, cache_dir=str(self.cache), **arguments)
        return source


def demo(out: Out = Path("emcatalog-demo")) -> None:
    """Do the main job once on an embedded dataset.

    Browse, plan, cut a box, keep it, read it again, save a picture. Needs no network.
    """
    with file_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    import emcatalog

    story = _Story(results(), emcatalog.catalog, out.absolute() / "cache")
    _forget(story.cache)
    story.console.print("The main job once, on an embedded dataset. Beside each step stands how to do it in Python.")
    _browse(story)
    _show_entry(story)
    source = story.cut(BBOX)
    _plan(story, source)
    _fetch(story, source)
    _read_warm(story)
    _shift(story)
    _save(story, source, out)
    _what_next(story)


def _forget(folder: Path) -> None:
    """Empty the demo's cache of an earlier run: of mirrors, and of nothing else that may lie in the folder."""
    from emcatalog.mirror.cache import Cache
    from emcatalog.mirror.inventory import list_mirrors, remove_mirror
    from emcatalog.settings import load_settings

    cache = Cache.at(load_settings(cache_dir=folder))
    for mirror in list_mirrors(cache):
        remove_mirror(cache, mirror.name)


def _browse(story: _Story) -> None:
    story.tell("1  Browse", "cat = intake.open_catalog(emcatalog.CATALOG)")
    browse.print_catalog(story.console, story.catalog)


def _show_entry(story: _Story) -> None:
    from emcatalog.formats.demo import demo_folder, make_demo

    folder = demo_folder()
    story.tell("2  Look at one entry", "cat.demo")
    if folder.is_dir():
        story.console.print(f"Its tissue was drawn before, and lies in {folder}\n")
    else:
        story.console.print("Its tissue is drawn now, once, and stored as the male CNS is ...")
        started = time.perf_counter()
        make_demo(folder)
        story.console.print(f"done in {time.perf_counter() - started:.1f} s: {folder}\n")
    browse.print_entry(story.console, "demo", find(story.catalog, "demo"))


def _plan(story: _Story, source: VolumeSource) -> None:
    story.tell(
        "3  Plan a box",
        f"src = cat.demo(bbox={BBOX}); src.plan()",
        "What a read would fetch; no voxel is touched.\n",
    )
    boxes.print_plan(story.console, source.plan())
    story.console.print(f"\nThe cache of this demo is its own, and was emptied just now: {story.cache}")


def _fetch(story: _Story, source: VolumeSource) -> None:
    story.tell(
        "4  Fetch it",
        "src.fetch()",
        "What is missing goes into the cache. The source is a folder here; elsewhere this step waits for a network.\n",
    )
    boxes.print_report(story.console, source.fetch())
    plan = source.plan()
    story.console.print(
        f"\nPlanned again: {count(plan.cached)} of {count(plan.chunks)} chunks are cached,"
        f" {count(plan.missing)} are to fetch."
    )


def _read_warm(story: _Story) -> None:
    import numpy as np
    import xarray  # noqa: F401  # importing it is no part of reading

    story.tell("5  Read it", "ds = src.read()", "With offline=True, so that a question to the source is an error.\n")
    source = story.cut(BBOX, offline=True)
    started = time.perf_counter()
    dataset = source.read()
    seconds = time.perf_counter() - started
    report = source.fetch()
    for name, array in dataset.data_vars.items():
        story.console.print(f"  {name:<8} {dict(array.sizes)} {array.dtype}")
    ids = np.unique(dataset.labels)
    story.console.print(f"  {count(int(np.count_nonzero(ids)))} neurites, the largest id is {ids.max()}")
    story.console.print(
        f"\n{size(dataset.nbytes)} in {seconds:.2f} s: {count(report.fetched)} chunks fetched, {count(report.reused)}"
        " from the cache"
    )


def _shift(story: _Story) -> None:
    story.tell(
        "6  Cut a box that overlaps",
        f"cat.demo(bbox={SHIFTED}).fetch()",
        "Moved along x: what both boxes have in common is not fetched again.\n",
    )
    boxes.print_report(story.console, story.cut(SHIFTED).fetch())


def _save(story: _Story, source: VolumeSource, out: Path) -> None:
    story.tell("7  Keep it", 'src.export("box.zarr"); src.preview("picture.png")')
    with file_errors(out):
        box = source.export(out / "box.zarr", overwrite=True)
        source.preview(out / "picture.png")
    nbytes = sum(file.stat().st_size for file in box.rglob("*") if file.is_file())
    story.console.print(f"The box alone, as OME-Zarr ({size(nbytes)}): {box}")
    story.console.print(Text.assemble("Its middle planes, as a picture: ", (str(out / "picture.png"), "bold green")))


def _what_next(story: _Story) -> None:
    story.tell("Next", "", "The same on the real male CNS, in Python:\n")
    for line in (
        "import intake, emcatalog",
        "cat = intake.open_catalog(emcatalog.CATALOG)",
        "ds = cat.malecns(bbox=(40000, 40512, 40000, 40512, 20000, 20512)).read()",
    ):
        story.console.print(f"    {line}", style="green")
