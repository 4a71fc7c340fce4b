"""A miniature of `gs://flyem_cns_z0720_07m_dvidcoords_n5`: an N5 group of scales `s0`, `s1`, ... of `uint8` at 8 nm.

    tree = build_n5(folder, convention="flyem")
    tree.levels[1].data.cut(box)    # what a reader must return of s1

Of the bucket only the data type, the voxel size and "N5, uncompressed" are known: neither its attributes nor whether
the group is its root. So each convention that a reader may meet can be written:

`neuroglancer`: each scale has its `downsamplingFactors`; the group has `axes`, `units` and `resolution`.
    https://github.com/google/neuroglancer/blob/master/src/datasource/n5/index.rst
`n5-viewer`: the same factors; the group has `pixelResolution`, a length along x, y and z and a unit.
    https://github.com/saalfeldlab/n5-viewer
`bdv`: the group lists the `downsamplingFactors` of all scales, besides `resolution` and `units`.
`flyem`: as FlyEM's own server of N5 writes it (janelia-flyem/neuclease, neuclease/bin/virtual_n5_server_main.py): the
    group lists factors as `scales`, and has `pixelResolution`, `axes`, `units` and `translate`; the `transform` of a
    scale has the factor as its `scale`, not nm, although its `units` say nm. All in the order x, y, z.
`cosem`: as OpenOrganelle publishes N5 (janelia-cellmap/cellmap-schemas): the `transform` of a scale is in nm, in the
    order z, y, x, and `translate` is the centre of the first voxel, so that it grows from scale to scale;
    `pixelResolution` says the same lengths in the order x, y, z. The group repeats the transforms as `multiscales`.

N5 counts dimensions and blocks in the order x, y, z, with x fastest. A block of zeros is not stored.
https://github.com/saalfeldlab/n5
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorstore as ts

from tests.replica.region import Region
from tests.replica.stored import Array
from tests.replica.tissue import make_tissue, mean

Triple = tuple[int, int, int]
Sizes = tuple[float, float, float]

DEFAULT_SHAPE = (70, 90, 110)
"""Voxels, zyx; no multiple of a block."""
FULL_SHAPE = (134576, 78317, 94088)
"""The published image's, zyx."""
COMPRESSIONS: Mapping[str, Mapping[str, Any]] = {
    "raw": {"type": "raw"},
    "gzip": {"type": "gzip", "level": -1, "useZlib": False},
    "blosc": {"type": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1},
}
POWERS_OF_TWO = ((1, 1, 1), (2, 2, 2), (4, 4, 4))
ANISOTROPIC = ((1, 1, 1), (2, 2, 1), (4, 4, 2))
"""Factors, xyz: z is kept at first, as for sections thicker than a pixel."""


@dataclasses.dataclass(frozen=True)
class Level:
    """One scale as it was put in; everything here is zyx."""

    path: str
    """The dataset's name in the group."""
    factors: Triple
    """Voxels of s0 in one voxel."""
    voxel_size_nm: Sizes
    shape: Triple
    """Of the whole dataset."""
    data: Region

    @property
    def centre_nm(self) -> Sizes:
        """Where the centre of the first voxel is, counted from that of s0."""
        z, y, x = ((f - 1) / 2 * length / f for f, length in zip(self.factors, self.voxel_size_nm, strict=True))
        return (z, y, x)


@dataclasses.dataclass(frozen=True)
class N5Tree:
    """A group of scales on disk, and what was put into it."""

    folder: pathlib.Path
    """Where the group's `attributes.json` is."""
    levels: tuple[Level, ...]


def build_n5(
    folder: str | os.PathLike[str],
    voxels: Array | None = None,
    *,
    seed: int = 0,
    convention: str = "neuroglancer",
    compression: str = "raw",
    factors_xyz: Sequence[Triple] = POWERS_OF_TWO,
    block_xyz: Triple = (32, 24, 16),
    voxel_size_xyz_nm: Sizes = (8, 8, 8),
    shape: Triple | None = None,
    origin: Triple = (0, 0, 0),
    truncated: bool = False,
) -> N5Tree:
    """Write the group under `folder` and return what is in it.

    Args:
        folder: Stands for the group: the bucket, or a folder in it.
        voxels: `(z, y, x)` of s0; None for tissue of `DEFAULT_SHAPE`.
        seed: Selects the tissue.
        convention: A key of `CONVENTIONS`.
        compression: A key of `COMPRESSIONS`.
        factors_xyz: How many voxels of s0 a voxel of each scale spans, s0 first.
        block_xyz: Voxels of a block, the same for all scales.
        voxel_size_xyz_nm: Of s0.
        shape: Voxels of s0 (zyx) of the whole volume, such as `FULL_SHAPE`; None for just `voxels`. That of a coarser
            scale is divided by its factor and rounded down.
        origin: Where in the volume `voxels` begin, zyx. A coarser scale has data where its voxels lie wholly within.
        truncated: End the last blocks where the volume ends, as N5's own library in Java does; TensorStore pads them.
    """
    path = pathlib.Path(folder)
    if voxels is None:
        voxels = make_tissue(DEFAULT_SHAPE, seed).raw
    whole = shape or tuple(start + length for start, length in zip(origin, voxels.shape, strict=True))
    z, y, x = ((start, start + length) for start, length in zip(origin, voxels.shape, strict=True))
    size = voxel_size_xyz_nm[::-1]
    levels = tuple(
        _level(f"s{index}", Region((z, y, x), voxels), factors[::-1], size, whole)
        for index, factors in enumerate(factors_xyz)
    )
    for level in levels:
        _write_level(path / level.path, level, block_xyz, compression, truncated)
    group, of_scale = CONVENTIONS[convention](levels)
    _add_attributes(path, group)
    for level, attributes in zip(levels, of_scale, strict=True):
        _add_attributes(path / level.path, attributes)
    return N5Tree(path, levels)


def _level(path: str, fine: Region, factors: Triple, voxel_size_nm: Sizes, whole: tuple[int, ...]) -> Level:
    (z0, z1), (y0, y1), (x0, x1) = (
        (-(-start // f), stop // f) for (start, stop), f in zip(fine.box, factors, strict=True)
    )
    box = ((z0, z1), (y0, y1), (x0, x1))
    z, y, x = ((start * f, stop * f) for (start, stop), f in zip(box, factors, strict=True))
    depth, height, width = (length * f for length, f in zip(voxel_size_nm, factors, strict=True))
    sz, sy, sx = (length // f for length, f in zip(whole, factors, strict=True))
    data = Region(box, mean(fine.cut((z, y, x)), factors))
    return Level(path, factors, (depth, height, width), (sz, sy, sx), data)


def _write_level(folder: pathlib.Path, level: Level, block_xyz: Triple, compression: str, truncated: bool) -> None:
    metadata = {
        "dimensions": level.shape[::-1],
        "blockSize": block_xyz,
        "dataType": level.data.voxels.dtype.name,
        "compression": dict(COMPRESSIONS[compression]),
    }
    kvstore = {"driver": "file", "path": f"{folder}/"}
    store = ts.open({"driver": "n5", "kvstore": kvstore, "metadata": metadata}, create=True).result().T
    store[tuple(slice(start, stop) for start, stop in level.data.box)].write(level.data.voxels).result()
    for path in sorted(folder.glob("*/*/*")) if truncated else ():
        starts = [int(place) * size for place, size in zip(path.parts[-3:], block_xyz, strict=True)]
        z, y, x = ((a, min(a + b, n)) for a, b, n in zip(starts[::-1], block_xyz[::-1], level.shape, strict=True))
        path.write_bytes(_encode(level.data.cut((z, y, x)), metadata))


def _encode(block: Array, metadata: Mapping[str, Any]) -> bytes:
    """One block as it is stored: the only one of a dataset in memory."""
    memory, context = {"driver": "memory"}, ts.Context()
    size = block.shape[::-1]
    spec = {"driver": "n5", "kvstore": memory, "metadata": {**metadata, "dimensions": size, "blockSize": size}}
    store = ts.open({**spec, "store_data_equal_to_fill_value": True}, create=True, context=context).result().T
    store.write(block).result()
    return ts.KvStore.open(memory, context=context).result()["0/0/0"]


def _add_attributes(folder: pathlib.Path, attributes: Mapping[str, Any]) -> None:
    path = folder / "attributes.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**known, **attributes}))


# --- conventions: attributes of the group, and of each scale

Attributes = dict[str, Any]
NM = ["nm", "nm", "nm"]
XYZ = ["x", "y", "z"]


def _factors(levels: Sequence[Level]) -> list[list[int]]:
    return [list(level.factors[::-1]) for level in levels]


def _size(level: Level) -> list[float]:
    return list(level.voxel_size_nm[::-1])


def _pixel_resolution(level: Level) -> Attributes:
    return {"dimensions": _size(level), "unit": "nm"}


def _neuroglancer(levels: Sequence[Level]) -> tuple[Attributes, list[Attributes]]:
    group = {"axes": XYZ, "units": NM, "resolution": _size(levels[0])}
    return group, [{"downsamplingFactors": factors} for factors in _factors(levels)]


def _n5_viewer(levels: Sequence[Level]) -> tuple[Attributes, list[Attributes]]:
    group = {"pixelResolution": _pixel_resolution(levels[0])}
    return group, [{"downsamplingFactors": factors} for factors in _factors(levels)]


def _bdv(levels: Sequence[Level]) -> tuple[Attributes, list[Attributes]]:
    group = {"downsamplingFactors": _factors(levels), "resolution": _size(levels[0]), "units": NM}
    return group, [{} for _ in levels]


def _flyem(levels: Sequence[Level]) -> tuple[Attributes, list[Attributes]]:
    group = {
        "pixelResolution": _pixel_resolution(levels[0]),
        "ordering": "C",
        "scales": _factors(levels),
        "axes": XYZ,
        "units": NM,
        "translate": [0, 0, 0],
    }
    common = {"ordering": "C", "axes": XYZ, "units": NM, "translate": [0.0, 0.0, 0.0]}
    return group, [{"transform": {**common, "scale": factors}} for factors in _factors(levels)]


def _cosem(levels: Sequence[Level]) -> tuple[Attributes, list[Attributes]]:
    transforms = [
        {"axes": XYZ[::-1], "units": NM, "scale": list(level.voxel_size_nm), "translate": list(level.centre_nm)}
        for level in levels
    ]
    datasets = [
        {"path": level.path, "transform": transform} for level, transform in zip(levels, transforms, strict=True)
    ]
    scales = [
        {"transform": transform, "pixelResolution": _pixel_resolution(level)}
        for level, transform in zip(levels, transforms, strict=True)
    ]
    return {"multiscales": [{"name": "em", "datasets": datasets}]}, scales


CONVENTIONS: Mapping[str, Callable[[Sequence[Level]], tuple[Attributes, list[Attributes]]]] = {
    "neuroglancer": _neuroglancer,
    "n5-viewer": _n5_viewer,
    "bdv": _bdv,
    "flyem": _flyem,
    "cosem": _cosem,
}
