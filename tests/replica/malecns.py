"""A miniature of the bucket `gs://flyem-male-cns`: the published infos at their true size, data in one box only.

    build_malecns(folder, ((20000, 20512), (40000, 40512), (40000, 40512)), raw, labels)

writes `em/em-clahe-jpeg`, `v0.9/segmentation` and `v1.0/segmentation` under `folder` in the published stored forms. The
labels of v1.0 are those of v0.9 plus `V1_OFFSET`, so that a test can tell them apart. Coarser scales hold the mean of
the image and every second label. Chunks that the box only touches are padded with grey (image) or 0 (labels); as always
with TensorStore, a chunk of zeros alone is not stored.

    rois = build_rois(folder)                       # the regions of brain and nerve cord, of the whole volume
    nuclei = build_nuclei(folder, ((10000, 10128), (20000, 20096), (20000, 20112)))
    rois["fullbrain-roi-v4"].labels.cut(box, step)  # what a reader must return

add `rois/...` and `{version}/malecns-{version}-nuclei-seg-16nm`, whose infos have not been seen.

As a program: `python -m tests.replica.malecns FOLDER --size 512 [--npz fib25_training2.npz]`.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib
import itertools
import json
import os
import pathlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorstore as ts

from tests.replica.region import Blob, Blobs, Region, shape_of
from tests.replica.stored import Array, Box, Scale, open_scale

INFOS = pathlib.Path(__file__).parent / "infos"
EM = "em/em-clahe-jpeg"
ORIGIN = (20000, 40000, 40000)
"""Where the box of the script, and of the catalog's entry, begins: z, y, x."""
V1_OFFSET = 1000
GREY = 128
SLAB_BYTES = 256 * 2**20
"""Voxels of one scale that are held at once, before encoding."""
PIECE = 128
"""Edge, in voxels of 8 nm, of the blocks that a source is asked for."""
MOST_TILES = 64
"""Along each axis; the ids of 1024 voxels cubed stay below 2 ** 32, as in the published labels."""

Source = Callable[[int, int, int, int, int, int], Array]
"""`source(z0, z1, y0, y1, x0, x1)`: the voxels `(z, y, x)` there, counted from the box's first voxel."""
Voxels = Array | Source


def labels_folder(version: str) -> str:
    """Where the labels of a release are, in the bucket."""
    return f"{version}/segmentation"


def build_malecns(
    folder: str | os.PathLike[str],
    box: Box,
    raw: Voxels,
    labels: Voxels,
    versions: Sequence[str] = ("v0.9", "v1.0"),
    scales: int = 3,
) -> None:
    """Write the bucket's tree under `folder`, with data in `box` only.

    Args:
        folder: Stands for the bucket; what is there already is kept.
        box: `((z0, z1), (y0, y1), (x0, x1))` in voxels of 8 nm; need not fall on chunk borders.
        raw: `(z, y, x) uint8`, or a callable that makes blocks of it.
        labels: `(z, y, x)` unsigned integers of v0.9, or a callable.
        versions: Releases of the labels to write.
        scales: How many scales get data, from 8 nm on.
    """
    root = pathlib.Path(folder)
    _build_volume(root / EM, INFOS / "em-clahe-jpeg.json", box, _source(raw), scales, IMAGE)
    for version in versions:
        source = _source(labels) if version == "v0.9" else _shifted(_source(labels))
        info = INFOS / f"segmentation-{version}.json"
        _build_volume(root / labels_folder(version), info, box, source, scales, LABELS)


def expected_raw(folder: str | os.PathLike[str], scale: int, box: Box) -> Array:
    """What a reader must return of the image `(z, y, x) uint8`: the stored JPEG, decoded without TensorStore.

    `box` is in voxels of the scale.
    """
    return open_scale(pathlib.Path(folder) / EM, scale).read(box)


def expected_labels(folder: str | os.PathLike[str], scale: int, box: Box, version: str = "v0.9") -> Array:
    """What a reader must return of the labels `(z, y, x) uint64`."""
    return open_scale(pathlib.Path(folder) / labels_folder(version), scale).read(box)


def scale_box(box: Box, scale: int) -> Box:
    """The voxels of a coarser scale that lie wholly in `box`: where it has data."""
    factor = 2**scale
    z, y, x = ((-(-start // factor), stop // factor) for start, stop in box)
    return (z, y, x)


# --- regions and nuclei

ROI_SIZE_XYZ = (2941, 2448, 4206)
"""Voxels of 256 nm: the image's box divided by 32, rounded up where it does not come out; not confirmed."""
ROI_SCALES = 4


@dataclasses.dataclass(frozen=True)
class Rois:
    """One volume of regions of the nervous system."""

    path: str
    """In the bucket."""
    labels: Blobs
    """In voxels of 256 nm; `labels.cut(box, 2**k)` is scale `k`."""
    names: Mapping[int, str]
    """Of labels, those without voxels too."""


ROIS = (
    Rois(
        "rois/fullbrain-roi-v4",
        Blobs(
            (
                Blob(1, (640, 1262, 1266), (14, 20, 9)),
                Blob(2, (644, 1270, 1284), (19, 8, 11)),
                Blob(29, (660, 1240, 1250), (30, 40, 25)),
                Blob(41, (1200, 900, 1700), (5, 7, 12)),
                Blob(96, (20, 2430, 15), (40, 30, 25)),
            )
        ),
        {1: "AL-L", 2: "AL-R", 15: "CA-L", 16: "CA-R", 29: "GNG", 41: "LH-L", 42: "LH-R"},
    ),
    Rois(
        "rois/malecns-vnc-neuropil-roi-v0",
        Blobs(
            (
                Blob(13, (630, 1258, 1274), (10, 16, 21)),
                Blob(5, (3300, 1300, 1150), (22, 9, 14)),
                Blob(27, (3315, 1310, 1180), (12, 18, 30)),
            )
        ),
        {5: "LegNp(T1)(L)", 6: "LegNp(T1)(R)", 13: "IntTct", 14: "LTct", 21: "ANm", 27: "mVAC(T3)(R)"},
    ),
)
"""Places are made up: some blobs fill part of the box at 8 nm of the catalog's entry, others lie far away and at the
volume's edge. Names and numbers are quoted from what uses the published ones; those have up to 96 and 27."""


def build_rois(folder: str | os.PathLike[str], volumes: Sequence[Rois] = ROIS) -> dict[str, Rois]:
    """Write volumes of regions under `folder`, which stands for the bucket, and return them by name.

    The form is that of FlyEM's own program (janelia-flyem/neuclease, neuclease/misc/create_precomputed_roi_vol.py):
    unsharded, 64 cubed chunks, four scales of every second voxel each, sizes rounded down, chunks of zeros left out.
    Meshes are named in the info and not there.
    """
    for volume in volumes:
        path = pathlib.Path(folder) / volume.path
        _write_json(path / "info", _roi_info())
        _write_json(path / "mesh" / "info", {"@type": "neuroglancer_legacy_mesh"})
        _write_json(path / "segment_properties" / "info", _names_info(volume.names))
        for index in range(ROI_SCALES):
            _write_blobs(open_scale(path, index), volume.labels, 2**index)
    return {pathlib.PurePosixPath(volume.path).name: volume for volume in volumes}


def _roi_info() -> dict[str, Any]:
    return {
        "@type": "neuroglancer_multiscale_volume",
        "type": "segmentation",
        "data_type": "uint64",
        "num_channels": 1,
        "mesh": "mesh",
        "segment_properties": "segment_properties",
        "scales": [
            {
                "key": "_".join([str(256 * 2**index)] * 3),
                "resolution": [256 * 2**index] * 3,
                "size": [length // 2**index for length in ROI_SIZE_XYZ],
                "voxel_offset": [0, 0, 0],
                "chunk_sizes": [[64, 64, 64]],
                "encoding": "compressed_segmentation",
                "compressed_segmentation_block_size": [8, 8, 8],
            }
            for index in range(ROI_SCALES)
        ],
    }


def _names_info(names: Mapping[int, str]) -> dict[str, Any]:
    labels = {"id": "source", "type": "label", "values": list(names.values())}
    inline = {"ids": [str(label) for label in names], "properties": [labels]}
    return {"@type": "neuroglancer_segment_properties", "inline": inline}


def _write_blobs(scale: Scale, blobs: Blobs, step: int) -> None:
    """The whole chunks around each blob; what chunks of two blobs share is written twice, and the same."""

    def source(z0: int, z1: int, y0: int, y1: int, x0: int, x1: int) -> Array:
        return blobs.cut(((z0, z1), (y0, y1), (x0, x1)), step)

    for blob in blobs.blobs:
        z, y, x = (
            (max(low, start // step), min(high, -(-stop // step)))
            for (start, stop), (low, high) in zip(blob.box, scale.extent, strict=True)
        )
        _write_scale(scale, _whole_chunks(scale, (z, y, x)), source, 0)


def nuclei_folder(version: str) -> str:
    """Where the nuclei of a release are, in the bucket."""
    return f"{version}/malecns-{version}-nuclei-seg-16nm"


def build_nuclei(
    folder: str | os.PathLike[str],
    box: Box,
    labels: Array | None = None,
    versions: Sequence[str] = ("v0.9", "v1.0"),
    scales: int = 2,
) -> dict[str, Region]:
    """Write nuclei under `folder`, with data in `box` only, and return what the first scale holds, by release.

    Known are the data type and the voxel size, 16 nm. The rest is that of the same release's segmentation, from its
    second scale on, but that sizes are halved and rounded down.

    Args:
        folder: Stands for the bucket.
        box: `((z0, z1), (y0, y1), (x0, x1))` in voxels of 16 nm.
        labels: `(z, y, x)` unsigned integers of v0.9; None for some nuclei. Those of v1.0 are larger by `V1_OFFSET`.
        versions: Releases to write.
        scales: How many scales get data, from 16 nm on.
    """
    voxels = _nuclei(box) if labels is None else labels.astype(np.uint64)
    built = {}
    for version in versions:
        path = pathlib.Path(folder) / nuclei_folder(version)
        region = Region(box, voxels if version == "v0.9" else _add(voxels, V1_OFFSET))
        _write_json(path / "info", _nuclei_info(version))
        _fill_volume(path, box, _source(region.voxels), scales, LABELS)
        built[version] = region
    return built


def _nuclei(box: Box) -> Array:
    """Three nuclei, one of them cut by the border, one with an id that only 64 bits hold."""
    shape = shape_of(box)
    places = {
        12345: ((0.3, 0.35, 0.25), (0.2, 0.25, 0.15)),
        2**33 + 7: ((0.7, 0.6, 0.65), (0.15, 0.2, 0.3)),
        678: ((0.9, 0.1, 0.95), (0.2, 0.3, 0.1)),
    }
    blobs = (
        Blob(label, *((z * shape[0], y * shape[1], x * shape[2]) for z, y, x in numbers))
        for label, numbers in places.items()
    )
    z, y, x = ((0, length) for length in shape)
    return Blobs(tuple(blobs)).cut((z, y, x))


def _nuclei_info(version: str) -> dict[str, Any]:
    info: dict[str, Any] = json.loads((INFOS / f"segmentation-{version}.json").read_text())
    size = info["scales"][0]["size"]
    scales = [
        {**meta, "size": [length >> index for length in size]} for index, meta in enumerate(info["scales"][1:], start=1)
    ]
    return {**info, "mesh": "mesh", "scales": scales}


def _write_json(path: pathlib.Path, document: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


# --- sources


def _source(voxels: Voxels) -> Source:
    if callable(voxels):
        return voxels
    array = voxels
    return lambda z0, z1, y0, y1, x0, x1: array[z0:z1, y0:y1, x0:x1]


def _shifted(source: Source) -> Source:
    """The labels of v1.0."""

    def block(z0: int, z1: int, y0: int, y1: int, x0: int, x1: int) -> Array:
        return _add(source(z0, z1, y0, y1, x0, x1), V1_OFFSET)

    return block


def _add(labels: Array, offset: int) -> Array:
    """`labels + offset`, as uint64, where they are not 0."""
    return labels + np.uint64(offset) * (labels > 0)


def _mean(block: Array, factor: int) -> Array:
    total = block
    for axis in range(3):
        shape = [*total.shape[:axis], total.shape[axis] // factor, factor, *total.shape[axis + 1 :]]
        total = np.add.reduce(total.reshape(shape), axis=axis + 1, dtype=np.uint32)
    return ((total + factor**3 // 2) // factor**3).astype(block.dtype)


def _stride(block: Array, factor: int) -> Array:
    return block[::factor, ::factor, ::factor]


@dataclasses.dataclass(frozen=True)
class Tiles:
    """A small block repeated without end, mirrored at each border so that membranes go on; ids differ between tiles."""

    block: Array
    ids: int = 0
    """How far the ids of one tile are from those of the next; 0 for an image."""

    def __call__(self, z0: int, z1: int, y0: int, y1: int, x0: int, x1: int) -> Array:
        """The voxels there."""
        out = np.empty((z1 - z0, y1 - y0, x1 - x0), self.block.dtype)
        bounds = zip((z0, y0, x0), (z1, y1, x1), self.block.shape, strict=True)
        for cuts in itertools.product(*(list(_cut(start, stop, n)) for start, stop, n in bounds)):
            part = self.block[tuple(cut.source for cut in cuts)]
            number = functools.reduce(lambda total, cut: total * MOST_TILES + cut.tile, cuts, 0)
            out[tuple(cut.target for cut in cuts)] = _add(part, number * self.ids) if self.ids else part
        return out


@dataclasses.dataclass(frozen=True)
class _Cut:
    """The part of an interval that lies in one tile."""

    tile: int
    source: slice
    """Within the tile."""
    target: slice
    """Within the interval."""


def _cut(start: int, stop: int, n: int) -> Iterator[_Cut]:
    for tile in range(start // n, -(-stop // n)):
        low, high = max(start, tile * n), min(stop, (tile + 1) * n)
        first, last = low - tile * n, high - tile * n
        # Odd tiles run backwards; a slice down to the first element has no stop that can be written as a number.
        mirrored = slice(n - 1 - first, n - 1 - last if last < n else None, -1)
        yield _Cut(tile, mirrored if tile % 2 else slice(first, last), slice(low - start, high - start))


# --- writing


@dataclasses.dataclass(frozen=True)
class _Kind:
    """What an image and labels differ in."""

    reduce: Callable[[Array, int], Array]
    """Makes the coarser voxels."""
    pad: int
    """Stands in whole chunks for what is outside the box."""


IMAGE = _Kind(_mean, GREY)
LABELS = _Kind(_stride, 0)


def _build_volume(folder: pathlib.Path, info: pathlib.Path, box: Box, source: Source, scales: int, kind: _Kind) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(info, folder / "info")
    _fill_volume(folder, box, source, scales, kind)


def _fill_volume(folder: pathlib.Path, box: Box, source: Source, scales: int, kind: _Kind) -> None:
    """Write the scales of the volume whose info is in `folder`."""
    for index in range(scales):
        scale = open_scale(folder, index)
        _write_scale(scale, scale_box(box, index), _coarser(source, box, index, kind.reduce), kind.pad)


def _coarser(source: Source, box: Box, scale: int, reduce: Callable[[Array, int], Array]) -> Source:
    """`source` at a coarser scale, in that scale's voxels counted from the volume's own origin."""
    factor = 2**scale

    def block(*bounds: int) -> Array:
        lows = [low for low, _ in box for _ in range(2)]
        return reduce(source(*(bound * factor - low for bound, low in zip(bounds, lows, strict=True))), factor)

    return block


def _write_scale(scale: Scale, box: Box, source: Source, pad: int) -> None:
    """Write `box` slab by slab: one transaction each, so that a shard is written once a slab and not once a chunk."""
    for (low, high), (start, stop) in zip(scale.extent, box, strict=True):
        if not low <= start < stop <= high:
            raise ValueError(f"{box} is not inside the volume {scale.extent} of {scale.folder}")
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": f"{scale.folder}/"},
        "scale_index": scale.index,
    }
    store = ts.open(spec, open=True).result()[..., 0].T
    for slab in _slabs(scale, box):
        target = tuple(slice(start, stop) for start, stop in slab)
        voxels = _padded(scale, slab, box, source, pad)
        with ts.Transaction() as transaction:
            store.with_transaction(transaction)[target].write(voxels).result()


def _slabs(scale: Scale, box: Box) -> Iterator[Box]:
    """Parts of the whole chunks around `box`, cut along z so that each fits in `SLAB_BYTES`."""
    z, y, x = _whole_chunks(scale, box)
    layer = scale.chunk_shape[0]
    layer_bytes = layer * (y[1] - y[0]) * (x[1] - x[0]) * np.dtype(scale.info["data_type"]).itemsize
    height = layer * max(1, SLAB_BYTES // layer_bytes)
    for start in range(z[0], z[1], height):
        yield ((start, min(z[1], start + height)), y, x)


def _whole_chunks(scale: Scale, box: Box) -> Box:
    chunks = np.array(list(scale.chunks(box)))
    first, last = scale.chunk_box(tuple(chunks.min(axis=0))), scale.chunk_box(tuple(chunks.max(axis=0)))
    z, y, x = ((int(a), int(b)) for (a, _), (_, b) in zip(first, last, strict=True))
    return (z, y, x)


def _padded(scale: Scale, slab: Box, box: Box, source: Source, pad: int) -> Array:
    """The voxels of `slab`: the source inside `box`, `pad` outside."""
    out = np.full([stop - start for start, stop in slab], pad, scale.info["data_type"])
    z, y, x = ((max(a, c), min(b, d)) for (a, b), (c, d) in zip(slab, box, strict=True))
    for piece in _pieces((z, y, x), max(1, PIECE >> scale.index)):
        place = tuple(slice(a - c, b - c) for (a, b), (c, _) in zip(piece, slab, strict=True))
        out[place] = source(*(bound for pair in piece for bound in pair))
    return out


def _pieces(box: Box, edge: int) -> Iterator[Box]:
    """`box` in cubes: a coarse voxel needs many fine ones, which are not to be held all at once."""
    starts = itertools.product(*(range(start, stop, edge) for start, stop in box))
    for corner in starts:
        z, y, x = ((low, min(stop, low + edge)) for low, (_, stop) in zip(corner, box, strict=True))
        yield (z, y, x)


# --- the program


def tissue(size: int, npz: str | None) -> tuple[Source, Source]:
    """Endless image and labels: tiles of fib25, or of the package's own phantom."""
    if npz is not None:
        with np.load(npz) as arrays:
            raw, labels = arrays["raw"], arrays["labels"]
    else:
        phantom = importlib.import_module("emcatalog.phantom").make_phantom((min(size, 256),) * 3, 0)
        raw, labels = phantom.raw, phantom.labels
    return Tiles(raw), Tiles(labels.astype(np.uint64), ids=int(labels.max()) + 1)


def main() -> None:
    """Build a replica and say where it is and what it took."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder")
    parser.add_argument("--size", type=int, default=512, help="edge of the box in voxels of 8 nm")
    parser.add_argument("--npz", help="real tissue: arrays raw and labels (z, y, x), such as fib25_training2.npz")
    arguments = parser.parse_args()
    z, y, x = ((start, start + arguments.size) for start in ORIGIN)
    begun = time.perf_counter()
    build_malecns(arguments.folder, (z, y, x), *tissue(arguments.size, arguments.npz))
    seconds = round(time.perf_counter() - begun, 1)
    files = [path for path in pathlib.Path(arguments.folder).rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    report = {"folder": arguments.folder, "box_zyx": (z, y, x), "seconds": seconds, "bytes": size}
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
