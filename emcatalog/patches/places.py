"""Places by what a map says there: only in some neuropils, or as often in one class as in another.

The map is read once, block by block, at its own resolution, and what is kept is how much of each block qualifies; a
draw reads one block of it again. So memory does not depend on the volume, the fine data are not touched, and every
voxel that qualifies is as likely as any other to be the middle of a patch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from emcatalog.classes import Classes
from emcatalog.cutout import Cutout
from emcatalog.errors import listing
from emcatalog.geometry import Alignment, Box, Zyx, format_xyz, zyx
from emcatalog.patches.region import Region
from emcatalog.patches.sampler import Place, SamplingError, pick

BLOCK: Final = (64, 64, 64)
"""Voxels of the map that a draw reads."""
MOST_BLOCKS: Final = 250_000
"""That are looked through: some minutes."""
MOST_CLASSES: Final = 256


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which labels of a map count."""

    values: tuple[int, ...] | None = None
    """Labels; None for all but 0."""
    apart: bool = False
    """Whether each label is a class of its own; otherwise all of them are one."""

    def mask(self, block: NDArray[Any], key: int) -> NDArray[np.bool_]:
        """Which voxels of a block are of a class: a label, or 0 where all labels are one class."""
        if self.apart:
            return np.asarray(block == key)
        found: NDArray[np.bool_] = block != 0 if self.values is None else np.isin(block, self._of(block.dtype))
        return found

    def _of(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        """The labels that a dtype can hold, in it: NumPy would compare large ids of two dtypes as floats."""
        if dtype.kind not in "ui" or self.values is None:
            return np.asarray(self.values)
        limits = np.iinfo(dtype)
        return np.array([value for value in self.values if limits.min <= value <= limits.max], dtype)

    def weigh(self, block: NDArray[Any], places: NDArray[np.float64]) -> dict[int, float]:
        """How many places of each class there are, given how many each voxel of a block stands for."""
        keys = [0]
        if self.apart:
            there = set(np.unique(block).tolist())
            keys = sorted(there - {0} if self.values is None else there & {*self.values})
        weights = {key: float(places[self.mask(block, key)].sum()) for key in keys}
        return {key: weight for key, weight in weights.items() if weight > 0}


@dataclass(frozen=True)
class Map:
    """A map laid over one region."""

    cutout: Cutout
    """Of one channel, on the map's own grid."""
    alignment: Alignment
    """From the region's grid to the map's."""
    middles: Box
    """Voxels of the region that the middle of a patch may be."""
    classes: Classes | None = None
    """What counts in the place of the map's ids; None where they do."""

    @property
    def name(self) -> str:
        """The channel's."""
        (name,) = self.cutout.channels
        return name

    @cached_property
    def box(self) -> Box | None:
        """The map's voxels that the middle of a patch may lie in, or None."""
        covered = self.alignment.covered_by(self.cutout.box)
        inside = None if covered is None else covered.intersect(self.middles)
        return None if inside is None else self.alignment.box(inside)

    @cached_property
    def columns(self) -> tuple[NDArray[np.int64], ...]:
        """For each axis the map's index of each middle, in ascending order."""
        pairs = zip(self.middles.begin, self.middles.end, strict=True)
        return tuple(np.asarray(self.alignment.indices(axis, *pair)) for axis, pair in enumerate(pairs))

    def read(self, block: Box) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """A block of the map, and how many middles each of its voxels stands for."""
        ids = self.cutout.at(block).begin_patch().result()[self.name]
        values = ids if self.classes is None else self.classes.of(ids)
        counts = [
            np.diff(np.searchsorted(column, np.arange(begin, end + 1))).astype(float)
            for column, begin, end in zip(self.columns, block.begin, block.end, strict=True)
        ]
        return values, np.einsum("i,j,k->ijk", *counts)

    def middle(self, voxel: Zyx, rng: np.random.Generator) -> Zyx:
        """One of the middles that lie in a voxel of the map."""
        ranges = [
            np.searchsorted(column, [index, index + 1]) for column, index in zip(self.columns, voxel, strict=True)
        ]
        return zyx([a + int(rng.integers(*pair)) for a, pair in zip(self.middles.begin, ranges, strict=True)])


@dataclass(frozen=True, slots=True)
class Where:
    """In which blocks a class occurs."""

    blocks: NDArray[np.int64]
    """Numbers of blocks."""
    places: NDArray[np.float64]
    """Running sum of the places in them."""


@dataclass(frozen=True)
class Places:
    """Places whose middle is of a class; each class is as likely as any other, and so is each place of a class."""

    maps: Sequence[Map]
    """One for each region."""
    wanted: Wanted
    """Which labels of them count."""
    patch_shape: Zyx
    """Voxels, (z, y, x)."""
    blocks: Sequence[tuple[int, Box]]
    """Number of the region, and a block of its map."""
    classes: Mapping[int, Where]
    """Where each class occurs."""

    def draw(self, rng: np.random.Generator) -> Place:
        """A place for one patch."""
        key = list(self.classes)[int(rng.integers(len(self.classes)))]
        where = self.classes[key]
        region, block = self.blocks[where.blocks[pick(where.places, rng)]]
        values, places = self.maps[region].read(block)
        flat = np.cumsum(np.where(self.wanted.mask(values, key), places, 0.0))
        voxel = np.unravel_index(pick(flat, rng), values.shape)
        middle = self.maps[region].middle(zyx([a + int(i) for a, i in zip(block.begin, voxel, strict=True)]), rng)
        return Place(region, zyx([i - side // 2 for i, side in zip(middle, self.patch_shape, strict=True)]))


def find_places(maps: Sequence[Map], wanted: Wanted, patch_shape: Zyx) -> Places:
    """Read the maps, and find where in them patches may lie.

    Raises:
        SamplingError: nowhere; the message says what the maps hold. Or maps too large to be looked through.
        NotCachedError, SourceError, CacheError: a map cannot be read.
    """
    blocks = [(number, block) for number, one in enumerate(maps) for block in _blocks(one)]
    for one in maps:
        if one.box is not None:
            one.cutout.at(one.box).fetch()  # all requests at once, and not one block's after another's
    found: dict[int, list[tuple[int, float]]] = {}
    for index, (region, block) in enumerate(blocks):
        for key, weight in wanted.weigh(*maps[region].read(block)).items():
            found.setdefault(key, []).append((index, weight))
        if len(found) > MOST_CLASSES:
            if maps[region].classes is not None:
                raise SamplingError(
                    f"there are more than {MOST_CLASSES} classes to balance: name those that count with class_names=,"
                    " or with balance="
                )
            raise SamplingError(
                f"{maps[region].name} holds more than {MOST_CLASSES} different labels: these are instances, and not"
                " classes to balance"
            )
    if not found:
        raise SamplingError(_nowhere(maps, wanted))
    classes = {
        key: Where(np.array([i for i, _ in pairs]), np.cumsum([weight for _, weight in pairs]))
        for key, pairs in sorted(found.items())
    }
    return Places(maps, wanted, patch_shape, blocks, classes)


def _blocks(one: Map) -> list[Box]:
    if one.box is None:
        return []
    count = one.box.cells(BLOCK)
    if count > MOST_BLOCKS:
        raise SamplingError(
            f"{one.name} has {format_xyz(one.box.shape)} voxels (x, y, z) here, too many to look through: give a"
            " coarser map (its resolution=), or a smaller bbox"
        )
    return list(one.box.split(BLOCK))


def _nowhere(maps: Sequence[Map], wanted: Wanted) -> str:
    there: set[int] = set()
    for one in maps:
        for block in _blocks(one):
            there |= set(np.unique(one.read(block)[0]).tolist())
    asked = "anything but 0" if wanted.values is None else f"label {listing(wanted.values)}"
    shown = listing(sorted(there)[:20]) + (", ..." if len(there) > 20 else "")
    return (
        f"{maps[0].name} has {asked} nowhere in the middle of a patch of this box (it has {shown}): take other labels,"
        " or a larger bbox"
    )


def lay_over(region: Region, cutout: Cutout, firsts: Box, patch_shape: Zyx, classes: Classes | None = None) -> Map:
    """A map of one region.

    Args:
        region: where patches are drawn.
        cutout: the map: one channel, on whatever grid.
        firsts: where a patch may begin in the region.
        patch_shape: voxels, (z, y, x).
        classes: what counts in the place of the map's ids.
    """
    alignment = region.cutout.grid.nearest_in(cutout.grid)
    return Map(cutout, alignment, firsts.translate([side // 2 for side in patch_shape]), classes)
