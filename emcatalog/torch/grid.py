"""Every patch of a box once, in order: for validation and for prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import torch
from torch.utils.data import Dataset

from emcatalog.classes import Classes
from emcatalog.errors import ArgumentError
from emcatalog.geometry import Box, Zyx, format_xyz, zyx
from emcatalog.patches.intensity import RawTransform, norm_raw_transform
from emcatalog.patches.orientation import AS_STORED
from emcatalog.patches.recipe import make
from emcatalog.patches.region import Region, RegionReading, Source, open_regions
from emcatalog.patches.target import Target, norm_target
from emcatalog.patches.targets import NO_HALO
from emcatalog.patches.tiling import ORIGIN, Tiling, tile
from emcatalog.points import TableSource
from emcatalog.torch.dataset import Item, check_index
from emcatalog.torch.item import ProcessBound, as_tensor, item_dtypes, widen
from emcatalog.torch.opening import check_source, norm_learned, norm_patch_shape


class GridDataset(ProcessBound, Dataset[Item]):
    """The patches that cover a box: ``grid[index]`` is ``(raw, position)``, or ``(raw, target, position)``.

    ``position`` is the patch's first voxel, (z, y, x) counted from the box's first, int64. ``emcatalog.torch.stitch``
    puts predictions together. Made by ``to_grid`` of an entry, or by ``emcatalog.torch.open_grid``.
    """

    def __init__(self, region: Region, tiling: Tiling, target: Target, raw_transform: RawTransform) -> None:
        """Nothing is read yet; see ``open_grid``."""
        super().__init__()
        self.region = region
        self.tiling = tiling
        self.target = target
        self.raw_transform = raw_transform

    def __len__(self) -> int:
        """Number of patches."""
        return len(self.tiling)

    def __getitem__(self, index: int) -> Item:
        """One patch.

        Raises:
            IndexError: there is no such patch.
            SourceError, CacheError: what is missing cannot be fetched.
        """
        return widen(self.begin(0, check_index(index, len(self)))(), self.dtypes)

    @property
    def dtypes(self) -> tuple[Any, ...]:
        """What the tensors of an item are widened to; None where they stay as they are."""
        return item_dtypes(self.target)

    @property
    def target_names(self) -> tuple[str, ...]:
        """What the target is of: classes 1, 2, 3, ..., or a kind of points for each channel; else empty."""
        return self.region.names

    has_transform = False
    """Nothing is left to do where the caller waits for a patch."""

    def begin(self, _epoch: int, index: int) -> Callable[[], Item]:
        """Begin to read one patch; what is returned gives it."""
        self.check_process()
        reading = self.region.begin_reading(self.box(index), NO_HALO)
        return lambda: self._finish(reading, index)

    def box(self, index: int) -> Box:
        """The voxels of a patch, on the region's grid."""
        begin = zyx([a + b for a, b in zip(self.region.cutout.box.begin, self.tiling.first(index), strict=True)])
        return Box(begin, zyx([a + side for a, side in zip(begin, self.tiling.patch_shape, strict=True)]))

    def info(self, index: int) -> dict[str, Any]:
        """Where a patch lies, so that it can be opened again."""
        return self.region.info(self.box(index))

    def _finish(self, reading: RegionReading, index: int) -> Item:
        raw, target = make(*reading.result(), AS_STORED, self.raw_transform, self.target, self.tiling.patch_shape)
        tensors = [as_tensor(part, self.tiling.patch_shape) for part in (raw, target) if part is not None]
        return (*tensors, torch.tensor(self.tiling.first(index)))

    def __repr__(self) -> str:
        """What it covers."""
        shape = format_xyz(self.tiling.patch_shape)
        box = format_xyz(self.tiling.shape)
        return (
            f"<GridDataset of {self.region.entry}: {len(self)} patches of {shape} voxels (x, y, z) in a box of {box}>"
        )


def open_grid(
    source: Source,
    patch_shape: Sequence[int],
    overlap: Sequence[int] = ORIGIN,
    target: str | Callable[[Any], Any] | None = None,
    *,
    raw: str | None = None,
    labels: str | None = None,
    classes: str | Classes | None = None,
    class_names: Sequence[str] | None = None,
    points: TableSource | None = None,
    radius_nm: float | None = None,
    by: str | None = "kind",
    offsets: Sequence[Sequence[int]] | None = None,
    mask: bool = False,
    unlabelled: int | None = 0,
    target_dtype: Any = None,
    raw_transform: str | Callable[[Any], Any] | None = "standardize",
) -> GridDataset:
    """Every patch of the box of an entry once.

    Args:
        source: an entry with its arguments.
        patch_shape: (z, y, x) voxels; (1, y, x) gives 2D items.
        overlap: (z, y, x) voxels that neighbours share; the last patch of a row ends with the box and may share more.
        target: None for raw alone; otherwise, as everything that follows, as in ``open_dataset``.
        raw: channel that a network gets.
        labels: channel that the target is made of.
        classes: of its instances.
        class_names: those that count.
        points: for ``target="points"``, an entry of a table.
        radius_nm: of the balls around them, nm.
        by: column that says of which kind a point is.
        offsets: of affinities.
        mask: whether the target says where it is valid.
        unlabelled: id of voxels of which nothing is known.
        target_dtype: of what is 0 or 1.
        raw_transform: what is done to raw.

    Raises:
        ArgumentError: an argument that cannot be used; the message says what to change.
        MissingExtraError, TooLargeError, SourceError, CacheError: what is needed cannot be read.
    """
    check_source(source)
    shape = norm_patch_shape(patch_shape)
    wanted = norm_target(target, shape, offsets=offsets, mask=mask, unlabelled=unlabelled, dtype=target_dtype)
    learned = norm_learned(wanted, labels, classes, class_names, points, radius_nm, by)
    (region,) = open_regions([source], raw, learned)
    wanted = wanted if learned.points is None else wanted.with_kinds(region.names)
    tiling = tile(zyx(region.cutout.box.shape), shape, _norm_overlap(overlap))
    return GridDataset(region, tiling, wanted, norm_raw_transform(raw_transform))


def _norm_overlap(overlap: object) -> Zyx:
    sides = list(overlap) if isinstance(overlap, Sequence) else []
    if len(sides) != 3 or not all(isinstance(side, Integral) for side in sides):
        raise ArgumentError(f"overlap={overlap!r}: give three whole numbers (z, y, x)")
    return zyx([int(side) for side in sides])
