"""Which chunk, shard and codec should the mirror have?

    python -m benchmarks.layout [--side 512] [--repeats 3]

For image and labels, each layout is filled from memory by whole shards (``write``), read whole (``read``), read in
random patches of 64 x 128 x 128 (``patch``), and filled by small random boxes of 64 x 128 x 128, as a loader on a cold
mirror does: ``rewrite`` is bytes written for a byte stored. The layout in use is marked.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from benchmarks.harness import REAL_DATA, console, data_folder, table
from emcatalog.formats.volume import ArraySpec
from emcatalog.geometry import Box, Grid, Zyx
from emcatalog.mirror.layout import Layout, choose_layout, zarr_metadata

PATCH: Final = (64, 128, 128)
PATCHES: Final = 60
SMALL_BOXES: Final = 24
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


CODECS: Final[dict[str, Callable[[int], dict[str, Any] | None]]] = {
    "none": lambda _: None,
    "zstd 1": lambda _: zstd(1),
    "zstd 3": lambda _: zstd(3),
    "gzip 5": lambda _: {"name": "gzip", "configuration": {"level": 5}},
    "blosc lz4 5": lambda itemsize: blosc("lz4", 5, itemsize),
    "blosc zstd 1": lambda itemsize: blosc("zstd", 1, itemsize),
}


def candidates(chosen: Layout) -> Iterator[Candidate]:
    """The layout in use, then one thing changed at a time."""
    for codec in CODECS:
        yield Candidate(64, chosen.shard, codec)
    for chunk in (32, 128):
        yield Candidate(chunk, chosen.shard, "zstd 1")
    for side in (128, 256, 512):
        if (side,) * 3 != chosen.shard:
            yield Candidate(64, (side,) * 3, "zstd 1")


def open_mirror(folder: Path, voxels: NDArray[Any], candidate: Candidate) -> ts.TensorStore:
    """An empty mirror of one candidate's layout."""
    shutil.rmtree(folder, ignore_errors=True)
    z, y, x = voxels.shape
    spec = ArraySpec("8_8_8", voxels.dtype.name, Grid((z, y, x), (8.0, 8.0, 8.0)), (64, 64, 64), "raw")
    metadata = zarr_metadata(spec, Layout((candidate.chunk,) * 3, candidate.shard, (64, 64, 64)))
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


def measure(folder: Path, voxels: NDArray[Any], candidate: Candidate, repeats: int) -> list[str]:
    """One row of the table."""
    shape: Zyx = voxels.shape  # type: ignore[assignment]  # three axes, always
    writes, reads, patch = [], [], []
    for _ in range(repeats):
        store = open_mirror(folder, voxels, candidate)
        writes.append(fill(store, voxels, Box((0, 0, 0), shape).split(candidate.shard)))
        started = time.perf_counter()
        store.read().result()
        reads.append(time.perf_counter() - started)
        patch.append(patch_ms(store, shape))
    stored = size_mb(folder)
    store, before = open_mirror(folder, voxels, candidate), bytes_written()
    seconds = fill(store, voxels, small_boxes(shape))
    rewrite = (bytes_written() - before) / 1e6 / size_mb(folder)
    medians = [statistics.median(times) for times in (writes, reads, patch)]
    numbers = [f"{medians[0]:.2f}", f"{medians[1]:.2f}", f"{medians[2]:.1f}", f"{stored:.1f}"]
    return [*numbers, f"{rewrite:.1f}", f"{seconds / SMALL_BOXES * 1000:.0f}"]


def tissue(side: int) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
    """A cube of image and labels: real data where it is at hand, mirror-tiled."""
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
    columns = ["chunk, shard (z, y, x), codec", "write s", "read s", "patch ms", "MB", "rewrite", "small box ms"]
    for name, voxels in zip(("image", "labels"), tissue(arguments.side), strict=True):
        grid = Grid((arguments.side,) * 3, (8.0, 8.0, 8.0))
        chosen = choose_layout(ArraySpec("8_8_8", voxels.dtype.name, grid, (64, 64, 64), "raw"))
        rows = []
        for candidate in candidates(chosen):
            used = (candidate.chunk, candidate.shard, candidate.codec) == (chosen.chunk[0], chosen.shard, "zstd 1")
            label = f"{candidate.chunk}, {'x'.join(map(str, candidate.shard))}, {candidate.codec}"
            console.print(f"  {name}: {label}", style="dim")
            row = measure(data_folder() / "layout.zarr", voxels, candidate, arguments.repeats)
            rows.append([f"{'* ' if used else '  '}{label}", *row])
        table(f"{name}, {arguments.side} cubed {voxels.dtype.name} (* in use)", columns, rows)
    shutil.rmtree(data_folder() / "layout.zarr", ignore_errors=True)


if __name__ == "__main__":
    main()
