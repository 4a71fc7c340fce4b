"""A miniature of the training crops of `s3://e11bio-prism`: every crop, each a small Zarr v2 group.

    crops = build_prism(folder)
    crops["instance", 0].raw            # (c, z, y, x) uint8
    crops["instance", 0].raw_at_labels  # its part that the labels cover

writes `ls/models/training_data/{instance,semantic}/crop_{i}.zarr/{raw,labels}` under `folder`, which stands for the
bucket. Of the stored form, e11bio/e11-open-data (tutorials/Browsing_and_downloading_data.ipynb at 0e0855aa) prints, for
instance crop 0: a `.zgroup`, `labels` `(200, 500, 500) uint64` and `raw` `(18, 300, 650, 650) uint8`, channels first,
chunks named with dots, as many as Zarr 2's own choice of chunks makes. How many channels the instance crops have is
what torch-em says; semantic crop 0 is instance crop 2 (e11bio/prism_training). Made up are the 18 channels of the other
semantic crops, the compressor (Zarr 2's default), the shapes of all other crops, and the contents of `.zattrs`, of
which only the names are known: `offset` and `resolution`, which torch-em divides by each other, here in nm of the
*expanded* tissue along z, y and x, also for `raw`, which has a channel axis.

The labels cover a part of `raw`, off its centre. As Zarr 2 did, chunks of zeros are stored too.

As a program: `python -m tests.replica.prism FOLDER` writes instance crop 0 at its true size.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorstore as ts

from tests.replica.malecns import Source
from tests.replica.stored import Array
from tests.replica.tissue import make_tissue, tissue_tiles

ROOT = "ls/models/training_data"
CHANNELS: Mapping[str, Sequence[int]] = {"instance": [18] * 5 + [12] * 7 + [10, 11], "semantic": [18] * 17}
"""Of each crop of a split."""
RESOLUTION_NM = (400, 168, 168)
"""Of a voxel in the expanded tissue, zyx; about five times the effective 80, 35, 35."""
SEMANTIC_IDS = np.array([1, 3, 5, 6, 10, 11], np.uint64)
"""The ids that the code of prism_training names."""
TISSUE_SHAPE = (96, 128, 128)
"""Of what the crops are cut from."""

Shape = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Sizes of one crop's arrays, zyx; `raw` has channels before."""

    raw: Shape
    raw_chunk: tuple[int, int, int, int]
    labels: Shape
    labels_chunk: Shape
    start: Shape
    """The voxel of `raw` where the labels begin."""


MINIATURE = Layout((36, 80, 70), (3, 10, 30, 26), (24, 50, 44), (7, 14, 24), (5, 17, 9))
"""Chunks divide no shape."""
TRUE = Layout((300, 650, 650), (3, 38, 163, 163), (200, 500, 500), (25, 63, 125), (52, 81, 69))
"""Crop 0's; only where the labels begin is made up."""


@dataclasses.dataclass(frozen=True)
class Crop:
    """One crop as it was put in."""

    path: str
    """The group in the bucket, without a slash at its end."""
    layout: Layout
    offset_nm: Shape
    """The `offset` of `raw` in the expanded tissue, zyx."""
    raw: Array
    """`(c, z, y, x) uint8`."""
    labels: Array
    """`(z, y, x) uint64`, of another shape."""

    @property
    def labels_offset_nm(self) -> Shape:
        """The `offset` of `labels`."""
        return _labels_offset(self.offset_nm, self.layout)

    @property
    def raw_at_labels(self) -> Array:
        """The part of `raw` that the labels cover."""
        place = (slice(a, a + n) for a, n in zip(self.layout.start, self.labels.shape, strict=True))
        return self.raw[(slice(None), *place)]


def crop_path(split: str, crop: int) -> str:
    """Where a crop is, in the bucket."""
    return f"{ROOT}/{split}/crop_{crop}.zarr"


def build_prism(
    folder: str | os.PathLike[str], crops: Mapping[str, Sequence[int]] | None = None, seed: int = 0
) -> dict[tuple[str, int], Crop]:
    """Write crops under `folder` and return them by split and number.

    Args:
        folder: Stands for the bucket.
        crops: Numbers by split; None for all 14 of `instance` and all 17 of `semantic`.
        seed: Selects the tissue.
    """
    wanted = crops if crops is not None else {split: range(len(of)) for split, of in CHANNELS.items()}
    built = {(split, crop): _make_crop(split, crop, seed) for split, numbers in wanted.items() for crop in numbers}
    for crop in built.values():
        _write_crop(pathlib.Path(folder), crop)
    return built


def build_true_size(folder: str | os.PathLike[str], seed: int = 0) -> pathlib.Path:
    """Write instance crop 0 at its true size, 2.3 GB of voxels, without holding them, and return the group's folder."""
    layout, channels = TRUE, CHANNELS["instance"][0]
    group = pathlib.Path(folder) / crop_path("instance", 0)
    image, labels = tissue_tiles(TISSUE_SHAPE, seed)
    offset = _offset(0)
    raw_store, labels_store = _create(group, channels, layout, offset)
    labels_store.write(_block(labels, layout.start, layout.labels)).result()
    picture = _block(image, (0, 0, 0), layout.raw)
    bodies = _block(labels, (0, 0, 0), layout.raw)
    for start, voxels in _stained(picture, bodies, channels, seed, layout.raw_chunk[0]):
        raw_store[start : start + len(voxels)].write(voxels).result()
    return group


def _block(source: Source, start: Shape, shape: Shape) -> Array:
    return source(*(bound for a, n in zip(start, shape, strict=True) for bound in (a, a + n)))


# --- contents


def _make_crop(split: str, crop: int, seed: int) -> Crop:
    # Semantic crop 0 shows what instance crop 2 shows.
    origin = 2 if (split, crop) == ("semantic", 0) else crop + 100 * (split == "semantic")
    layout = MINIATURE
    tissue = make_tissue(TISSUE_SHAPE, seed)
    rng = np.random.default_rng([seed, origin])
    corner = [int(rng.integers(0, n - m + 1)) for n, m in zip(TISSUE_SHAPE, layout.raw, strict=True)]
    window = tuple(slice(a, a + m) for a, m in zip(corner, layout.raw, strict=True))
    image, bodies = tissue.raw[window], tissue.labels[window]
    raw = np.concatenate([part for _, part in _stained(image, bodies, CHANNELS[split][crop], origin, 1)])
    labels = bodies[tuple(slice(a, a + n) for a, n in zip(layout.start, layout.labels, strict=True))]
    if split == "semantic":
        labels = np.where(labels > 0, SEMANTIC_IDS[labels % np.uint64(len(SEMANTIC_IDS))], np.uint64(0))
    return Crop(crop_path(split, crop), layout, _offset(origin), raw, labels)


def _stained(image: Array, bodies: Array, channels: int, seed: int, at_once: int) -> Iterator[tuple[int, Array]]:
    """Channels, some at a time, with the number of the first: each shows its own half of the bodies."""
    most = int(bodies.max()) + 1
    for start in range(0, channels, at_once):
        group = range(start, min(start + at_once, channels))
        shown = np.stack([np.random.default_rng([seed, channel]).integers(0, 2, most, bool) for channel in group])
        yield start, np.where(shown[:, bodies], image, image // 8)


def _offset(crop: int) -> Shape:
    """A place of its own in the expanded tissue, at a whole voxel."""
    z, y, x = (nm * (100 + step * crop) for nm, step in zip(RESOLUTION_NM, (7, 31, 53), strict=True))
    return (z, y, x)


def _labels_offset(offset_nm: Shape, layout: Layout) -> Shape:
    z, y, x = (nm + a * size for nm, a, size in zip(offset_nm, layout.start, RESOLUTION_NM, strict=True))
    return (z, y, x)


# --- writing


def _write_crop(bucket: pathlib.Path, crop: Crop) -> None:
    raw, labels = _create(bucket / crop.path, len(crop.raw), crop.layout, crop.offset_nm)
    raw.write(crop.raw).result()
    labels.write(crop.labels).result()


def _create(
    group: pathlib.Path, channels: int, layout: Layout, offset_nm: Shape
) -> tuple[ts.TensorStore, ts.TensorStore]:
    """The group with empty arrays: `raw` and `labels`."""
    raw = _create_array(group / "raw", (channels, *layout.raw), layout.raw_chunk, "|u1", offset_nm)
    labels_offset = _labels_offset(offset_nm, layout)
    labels = _create_array(group / "labels", layout.labels, layout.labels_chunk, "<u8", labels_offset)
    (group / ".zgroup").write_text(json.dumps({"zarr_format": 2}, indent=4))
    return raw, labels


def _create_array(
    folder: pathlib.Path, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str, offset_nm: Shape
) -> ts.TensorStore:
    spec = {
        "driver": "zarr",
        "kvstore": {"driver": "file", "path": f"{folder}/"},
        "metadata": {
            "zarr_format": 2,
            "shape": shape,
            "chunks": chunks,
            "dtype": dtype,
            "order": "C",
            "fill_value": 0,
            "filters": None,
            "compressor": {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0},
            "dimension_separator": ".",
        },
        "store_data_equal_to_fill_value": True,
        "context": {"file_io_sync": False},  # thousands of small files
    }
    store = ts.open(spec, create=True).result()
    attributes: dict[str, Any] = {"offset": list(offset_nm), "resolution": list(RESOLUTION_NM)}
    (folder / ".zattrs").write_text(json.dumps(attributes, indent=4))
    return store


# --- the program


def main() -> None:
    """Write instance crop 0 at its true size and say where it is and what it took."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    begun = time.perf_counter()
    group = build_true_size(arguments.folder, arguments.seed)
    seconds = round(time.perf_counter() - begun, 1)
    size = sum(path.stat().st_size for path in group.rglob("*") if path.is_file())
    sys.stdout.write(json.dumps({"group": str(group), "seconds": seconds, "bytes": size}) + "\n")


if __name__ == "__main__":
    main()
