"""Which chunk, shard and codec should the mirror have?

    python -m benchmarks.layout [--side 512] [--repeats 3]

For image and labels, each layout is filled from memory by whole shards (``write``), read whole (``read``), read in
random patches of 64 x 128 x 128 (``patch``), and filled by small random boxes of 64 x 128 x 128, as a loader on a cold
mirror does: ``rewrite`` is bytes written for a byte stored. The layout in use is marked; each other differs from it in
one thing.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from benchmarks.harness import REAL_DATA, console, data_folder, table
from emcatalog.formats.volume import ArraySpec
from emcatalog.geometry import Box, Grid, Zyx, zyx
from emcatalog.mirror.layout import Layout, choose_layout, zarr_metadata

PATCH: Final = (64, 128, 128)
PATCHES: Final = 60
SMALL_BOXES: Final = 24
COLUMNS: Final = {"write s": 2, "read s": 2, "patch ms": 1, "MB": 1, "rewrite": 1, "small box ms": 0}
"""What is measured, and the digits after the point that it is printed with."""
_BYTES: Final = {"name": "bytes", "configuration": {"endian": "little"}}


def zstd(level: int) -> dict[str, Any]:
    """Zarr's zstd codec."""
    return {"name": "zstd", "configuration": {"level": level}}


def blosc(name: str, level: int, itemsize: int) -> dict[str, Any]:
    """Zarr's blosc codec, bytes shuffled where a voxel has more than one."""
    shuffle = "shuffle" if itemsize > 1 else "noshuffle"
    options = {"cname": name, "clevel": level, "shuffle": shuffle, "typesize": itemsize, "blocksize": 0}
    return {"name": "blosc", "configuration": options}


@dataclass(frozen=True)
class Candidate:
    """One way to store a mirror."""

    chunk: int
    shard: Zyx
    codec: str

    def __str__(self) -> str:
        return f"{self.chunk}, {'x'.join(map(str, self.shard))}, {self.codec}"


CODECS: Final[dict[str, Callable[[int], dict[str, Any] | None]]] = {
    "none": lambda _: None,
    "zstd 1": lambda _: zstd(1),
    "zstd 3": lambda _: zstd(3),
    "gzip 5": lambda _: {"name": "gzip", "configuration": {"level": 5}},
    "blosc lz4 5": lambda itemsize: blosc("lz4", 5, itemsize),
    "blosc zstd 1": lambda itemsize: blosc("zstd", 1, itemsize),
}


def source(voxels: NDArray[Any]) -> ArraySpec:
    """As most sources are cut."""
    grid = Grid(zyx(voxels.shape), (8.0, 8.0, 8.0))
    return ArraySpec("8_8_8", voxels.dtype.name, grid, (64, 64, 64), "raw")


def in_use(spec: ArraySpec) -> Candidate:
    """How a mirror of this source is stored."""
    layout = choose_layout(spec)
    (sharding,) = zarr_metadata(spec, layout)["codecs"]
    itemsize = np.dtype(spec.dtype).itemsize
    codec = next(name for name, make in CODECS.items() if make(itemsize) in sharding["configuration"]["codecs"])
    return Candidate(layout.chunk[0], zyx(layout.shard), codec)


def candidates(used: Candidate) -> Iterator[Candidate]:
    """The layout in use with one thing changed at a time, and itself among them."""
    for codec in CODECS:
        yield replace(used, codec=codec)
    for chunk in (16, 32, 64, 128):
        if chunk != used.chunk:
            yield replace(used, chunk=chunk)
    for side in (128, 256, 512):
        if (side,) * 3 != used.shard:
            yield replace(used, shard=(side,) * 3)


def open_mirror(folder: Path, voxels: NDArray[Any], candidate: Candidate) -> ts.TensorStore:
    """An empty mirror of one candidate's layout."""
    shutil.rmtree(folder, ignore_errors=True)
    metadata = zarr_metadata(source(voxels), Layout((candidate.chunk,) * 3, candidate.shard, (64, 64, 64)))
    codec = CODECS[candidate.codec](voxels.dtype.itemsize)
    sharding = metadata["codecs"][0]["configuration"]
    sharding["codecs"] = [_BYTES, *([codec] if codec else []), {"name": "crc32c"}]
    described = {"driver": "zarr3", "kvstore": f"file://{folder}/", "metadata": metadata}
    return ts.open({**described, "store_data_equal_to_fill_value": True}, create=True).result()


def bytes_written() -> int:
    """What TensorStore has written to files since the process began."""
    metrics = ts.experimental_collect_matching_metrics("/tensorstore/kvstore/file/bytes_written")
    return int(metrics[0]["values"][0]["value"]) if metrics else 0


def fill(store: ts.TensorStore, voxels: NDArray[Any], boxes: Iterator[Box]) -> float:
    """Seconds to write boxes one after another."""
    started = time.perf_counter()
    for box in boxes:
        store[box.slices].write(voxels[box.slices], can_reference_source_data_indefinitely=True).result()
    return time.perf_counter() - started


def small_boxes(shape: Zyx) -> Iterator[Box]:
    """Random patches, grown to the source's chunks as a fetch does."""
    for box in patches(shape, SMALL_BOXES):
        whole = box.grow_to((64, 64, 64)).intersect(Box((0, 0, 0), shape))
        assert whole is not None
        yield whole


def patches(shape: Zyx, count: int) -> Iterator[Box]:
    """The same random patches for every candidate."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        z, y, x = (int(rng.integers(0, side - edge + 1)) for side, edge in zip(shape, PATCH, strict=True))
        yield Box((z, y, x), (z + PATCH[0], y + PATCH[1], x + PATCH[2]))


def patch_ms(store: ts.TensorStore, shape: Zyx) -> float:
    """Median milliseconds of reading a random patch."""
    times = []
    for box in patches(shape, PATCHES):
        started = time.perf_counter()
        store[box.slices].read().result()
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1000


def size_mb(folder: Path) -> float:
    """Bytes on disk."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def measure(folder: Path, voxels: NDArray[Any], candidate: Candidate) -> list[float]:
    """One run of one row of the table."""
    shape = zyx(voxels.shape)
    store = open_mirror(folder, voxels, candidate)
    write = fill(store, voxels, Box((0, 0, 0), shape).split(candidate.shard))
    started = time.perf_counter()
    store.read().result()
    read = time.perf_counter() - started
    patch, stored = patch_ms(store, shape), size_mb(folder)
    store, before = open_mirror(folder, voxels, candidate), bytes_written()
    seconds = fill(store, voxels, small_boxes(shape))
    rewrite = (bytes_written() - before) / 1e6 / size_mb(folder)
    return [write, read, patch, stored, rewrite, seconds / SMALL_BOXES * 1000]


def compare(voxels: NDArray[Any], repeats: int) -> list[list[str]]:
    """The table: medians of runs in turn, so that a slow minute of the machine hits all candidates alike."""
    used = in_use(source(voxels))
    runs: dict[Candidate, list[list[float]]] = {candidate: [] for candidate in candidates(used)}
    for repeat in range(repeats):
        for candidate, measured in runs.items():
            console.print(f"  run {repeat + 1} of {repeats}, {voxels.dtype.name}: {candidate}", style="dim")
            measured.append(measure(data_folder() / "layout.zarr", voxels, candidate))
    rows = []
    for candidate, measured in runs.items():
        medians = map(statistics.median, zip(*measured, strict=True))
        numbers = [f"{number:.{digits}f}" for number, digits in zip(medians, COLUMNS.values(), strict=True)]
        rows.append([f"{'* ' if candidate == used else '  '}{candidate}", *numbers])
    return rows


def tissue(side: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """A cube of image (uint8) and one of labels (uint64): real data where it is at hand, mirror-tiled."""
    if REAL_DATA.exists():
        with np.load(REAL_DATA) as data:
            raw, labels = data["raw"], data["labels"].astype(np.uint64)
    else:
        from emcatalog.phantom import make_phantom

        phantom = make_phantom()
        raw, labels = phantom.raw, phantom.labels
    pad = [(0, side - raw.shape[0])] * 3
    return np.pad(raw, pad, mode="symmetric"), np.pad(labels, pad, mode="symmetric")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    for name, voxels in zip(("image", "labels"), tissue(arguments.side), strict=True):
        title = f"{name}, {arguments.side} cubed {voxels.dtype.name} (* in use)"
        table(title, ["chunk, shard (z, y, x), codec", *COLUMNS], compare(voxels, arguments.repeats))
    shutil.rmtree(data_folder() / "layout.zarr", ignore_errors=True)


if __name__ == "__main__":
    main()
