"""A miniature of `s3://bossdb-open-data/wildenberg2023`: true sizes, data in one box only.

    built = build_wildenberg(folder, "p105", ((12, 32), (500, 596), (1000, 1112)))
    built.em.cut(box)       # what a reader must return, x and y as in the tissue

writes `wildenberg2023/mouse_v1_l4_p105/{em,psd_autoseg,vesicle_autoseg,saturated_autoseg}` under `folder`, which stands
for the bucket; of p14 the image is called `em_aligned`.

What is known of the stored form. The infos have not been seen. The labels' box, the voxel sizes and the data types are
those of torch-em's loader (torch_em/data/datasets/electron_microscopy/wildenberg.py at 6f71247c), the types being the
ones it writes. Unsharded chunks of 512 x 512 x 16, raw and gzip-encoded, with keys such as `6.0_6.0_40.0`, are those of
other volumes in the bucket. That `voxel_offset` is where the labels' box begins follows from the box; the extent of the
image is made up: larger than the labels', beginning at 0. The image of p105 is stored with x and y swapped (same
source): the first axis of what is stored is the tissue's y, so that its size, offset and resolution are in the order y,
x, z. The loader takes the image at 12 nm from the second scale, and labels from the first.

All of the data is 0 outside the box, and a chunk of zeros is not stored: an answer of 404 means background.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import pathlib
from typing import Any

import numpy as np

from tests.replica.region import Region, shape_of
from tests.replica.stored import Array, Box, Scale, open_scale
from tests.replica.tissue import make_tissue, mean

ROOT = "wildenberg2023"
CHUNK_XYZ = (512, 512, 16)
DEFAULT_BOX: Box = ((12, 32), (500, 596), (1000, 1112))
"""In voxels of 12 x 12 x 40 nm; inside every volume, across borders of chunks of image and labels along each axis."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Where the volumes of one mouse are, in voxels of 12 x 12 x 40 nm of the tissue."""

    folder: str
    em: str
    swapped: bool
    """Whether the image is stored with x and y swapped."""
    labels_box: Box
    em_box: Box
    """Made up."""

    def url_path(self, channel: str) -> str:
        """The volume of `channel` (`em`, `psd`, `vesicle` or `saturated`) in the bucket."""
        return f"{ROOT}/{self.folder}/{self.em if channel == 'em' else channel + '_autoseg'}"


EXPERIMENTS = {
    "p105": Experiment(
        "mouse_v1_l4_p105", "em", True, ((4, 908), (48, 11376), (48, 10048)), ((0, 915), (0, 11450), (0, 10150))
    ),
    "p14": Experiment(
        "mouse_v1_l4_p14", "em_aligned", False, ((0, 1308), (0, 9600), (0, 6688)), ((0, 1310), (0, 9625), (0, 6700))
    ),
}


@dataclasses.dataclass(frozen=True)
class Wildenberg:
    """What was put into the volumes of one experiment, with x and y as in the tissue, never swapped."""

    experiment: Experiment
    em_fine: Region
    """`uint8`, voxels of 6 x 6 x 40 nm."""
    em: Region
    """`uint8`, voxels of 12 x 12 x 40 nm, like all that follow: the mean of 2 x 2 x 1 voxels."""
    psd: Region
    """`uint8`, 0 and 1."""
    vesicle: Region
    """`uint8`, 0 and 1."""
    saturated: Region
    """`uint32`, ids of which some are above `2 ** 31`."""


def build_wildenberg(
    folder: str | os.PathLike[str],
    experiment: str = "p105",
    box: Box = DEFAULT_BOX,
    *,
    seed: int = 0,
    gzipped: bool = True,
    dotted_keys: bool = True,
    em_box: Box | None = None,
) -> Wildenberg:
    """Write the four volumes of one experiment under `folder`, with tissue in `box` only.

    Args:
        folder: Stands for the bucket; what is there already is kept.
        experiment: `p105` or `p14`.
        box: In voxels of 12 x 12 x 40 nm of the tissue, counted as the infos count them.
        seed: Selects another piece of tissue.
        gzipped: Leave each chunk compressed as `NAME.gz`, which `serve` sends with `Content-Encoding: gzip`.
        dotted_keys: `12.0_12.0_40.0` rather than `12_12_40`.
        em_box: Another extent of the image, in voxels of 12 nm, for an image that does not begin at 0.
    """
    mouse = EXPERIMENTS[experiment]
    if em_box is not None:
        mouse = dataclasses.replace(mouse, em_box=em_box)
    built = _tissue(mouse, box, seed)
    write = _Writer(pathlib.Path(folder), gzipped, dotted_keys)
    image = [(_twice(mouse.em_box), built.em_fine, 6), (mouse.em_box, built.em, 12)]
    if mouse.swapped:
        image = [(_swapped(extent), region.swapped(), xy_nm) for extent, region, xy_nm in image]
    write(mouse.url_path("em"), "image", image)
    for channel, region in {"psd": built.psd, "vesicle": built.vesicle, "saturated": built.saturated}.items():
        write(mouse.url_path(channel), "segmentation", [(mouse.labels_box, region, 12)])
    return built


def _tissue(mouse: Experiment, box: Box, seed: int) -> Wildenberg:
    z, y, x = shape_of(box)
    tissue = make_tissue((z, 2 * y, 2 * x), seed)
    labels = tissue.labels[:, ::2, ::2]
    return Wildenberg(
        experiment=mouse,
        em_fine=Region(_twice(box), tissue.raw),
        em=Region(box, mean(tissue.raw, (1, 2, 2))),
        psd=Region(box, _densities(labels)),
        vesicle=Region(box, (labels % 3 == 1).astype(np.uint8)),
        saturated=Region(box, _wide_ids(labels)),
    )


def _densities(labels: Array) -> Array:
    """Membranes of some processes, on the side of larger y and x."""
    edge = np.zeros(labels.shape, bool)
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edge[:, :, :-1] |= labels[:, :, :-1] != labels[:, :, 1:]
    densities: Array = edge & (labels % 3 == 0)
    return densities.astype(np.uint8)


def _wide_ids(labels: Array) -> Array:
    """Ids over the whole range of uint32; an odd factor keeps them apart, and 0 stays 0."""
    return (labels * np.uint64(2654435761) % np.uint64(2**32)).astype(np.uint32)


def _twice(box: Box) -> Box:
    """`box` of 12 nm in voxels of 6 nm: z is the same."""
    z, (y0, y1), (x0, x1) = box
    return (z, (2 * y0, 2 * y1), (2 * x0, 2 * x1))


def _swapped(box: Box) -> Box:
    z, y, x = box
    return (z, x, y)


@dataclasses.dataclass(frozen=True)
class _Writer:
    """Writes volumes as the bucket has them; without TensorStore, so that it and a reader share nothing."""

    bucket: pathlib.Path
    gzipped: bool
    dotted_keys: bool

    def __call__(self, path: str, kind: str, scales: list[tuple[Box, Region, int]]) -> None:
        """Write one volume: of each scale the extent, the data, and the voxel's width in nm, as stored."""
        folder = self.bucket / path
        folder.mkdir(parents=True, exist_ok=True)
        info = {
            "@type": "neuroglancer_multiscale_volume",
            "type": kind,
            "data_type": scales[0][1].voxels.dtype.name,
            "num_channels": 1,
            "scales": [self._scale_info(extent, xy_nm) for extent, _, xy_nm in scales],
        }
        (folder / "info").write_text(json.dumps(info))
        for index, (_, region, _) in enumerate(scales):
            self._write_chunks(open_scale(folder, index), region)

    def _scale_info(self, extent: Box, xy_nm: int) -> dict[str, Any]:
        resolution = [xy_nm, xy_nm, 40]
        return {
            "key": "_".join(f"{length:.1f}" if self.dotted_keys else f"{length}" for length in resolution),
            "resolution": resolution,
            "voxel_offset": [start for start, _ in reversed(extent)],
            "size": list(reversed(shape_of(extent))),
            "chunk_sizes": [list(CHUNK_XYZ)],
            "encoding": "raw",
        }

    def _write_chunks(self, scale: Scale, region: Region) -> None:
        for (low, high), (start, stop) in zip(scale.extent, region.box, strict=True):
            if not low <= start < stop <= high:
                raise ValueError(f"{region.box} is not inside the volume {scale.extent} of {scale.folder}")
        folder = scale.folder / scale.meta["key"]
        folder.mkdir(exist_ok=True)
        for place in scale.chunks(region.box):
            box = scale.chunk_box(place)
            block = region.cut(box)
            if block.any():
                name = "_".join(f"{start}-{stop}" for start, stop in reversed(box))
                self._write_chunk(folder / name, np.ascontiguousarray(block, block.dtype.newbyteorder("<")).tobytes())

    def _write_chunk(self, path: pathlib.Path, data: bytes) -> None:
        """Raw chunks are x fastest: the bytes of `(z, y, x)`."""
        if self.gzipped:
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(data, compresslevel=1, mtime=0))
        else:
            path.write_bytes(data)
