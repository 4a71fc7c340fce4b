"""Patches that cover a box, with overlap, and the part of each that is kept when they are put together again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from emcatalog.errors import ArgumentError
from emcatalog.geometry import AXES, Box, Zyx, format_xyz, zyx

ORIGIN: Final = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class Tiling:
    """Patches in rows; voxels are counted from the first one of the box."""

    shape: Zyx
    """Voxels of the box, (z, y, x)."""
    patch_shape: Zyx
    """Voxels of a patch, (z, y, x)."""
    starts: tuple[tuple[int, ...], ...]
    """Where patches begin, along z, y and x."""

    def __len__(self) -> int:
        """Number of patches."""
        z, y, x = map(len, self.starts)
        return z * y * x

    def first(self, index: int) -> Zyx:
        """First voxel of a patch; x changes fastest."""
        _, rows, columns = map(len, self.starts)
        z, y, x = index // (rows * columns), index // columns % rows, index % columns
        return self.starts[0][z], self.starts[1][y], self.starts[2][x]

    def index(self, first: Sequence[int]) -> int:
        """Number of the patch that begins at a voxel.

        Raises:
            ArgumentError: none does.
        """
        try:
            z, y, x = (starts.index(int(begin)) for starts, begin in zip(self.starts, first, strict=True))
        except ValueError as error:
            raise ArgumentError(
                f"no patch begins at {[int(begin) for begin in first]} (z, y, x): give the positions that came with the"
                " patches"
            ) from error
        return (z * len(self.starts[1]) + y) * len(self.starts[2]) + x

    def core(self, index: int) -> Box:
        """The voxels that are taken from a patch: up to the middle of each overlap. The cores fill the box exactly."""
        first = self.first(index)
        edges = [
            _core(starts, begin, side, size)
            for starts, begin, side, size in zip(self.starts, first, self.patch_shape, self.shape, strict=True)
        ]
        return Box(zyx([a for a, _ in edges]), zyx([b for _, b in edges]))


def tile(shape: Zyx, patch_shape: Zyx, overlap: Zyx) -> Tiling:
    """Cover a box by patches; the last of each row ends with the box, and so may overlap more.

    Args:
        shape: voxels of the box, (z, y, x).
        patch_shape: voxels of a patch.
        overlap: voxels that neighbours share at least.

    Raises:
        ArgumentError: a patch larger than the box, or an overlap as large as a patch.
    """
    for axis, size, side, shared in zip(AXES, shape, patch_shape, overlap, strict=True):
        if side > size:
            raise ArgumentError(
                f"a patch of {format_xyz(patch_shape)} voxels (x, y, z) is larger than the box, {format_xyz(shape)}:"
                " take a smaller patch_shape (z, y, x) or a larger bbox"
            )
        if not 0 <= shared < side:
            raise ArgumentError(
                f"an overlap of {shared} voxels along {axis}: it is at least 0 and less than the patch's {side}"
            )
    starts = [_starts(size, side, shared) for size, side, shared in zip(shape, patch_shape, overlap, strict=True)]
    return Tiling(shape, patch_shape, tuple(starts))


def _starts(size: int, side: int, overlap: int) -> tuple[int, ...]:
    return (*range(0, size - side, side - overlap), size - side)


def _core(starts: Sequence[int], begin: int, side: int, size: int) -> tuple[int, int]:
    cuts = [0, *((a + side + b) // 2 for a, b in pairwise(starts)), size]
    number = starts.index(begin)
    return cuts[number], cuts[number + 1]
