"""Flips and rotations by 90 degrees: the ways to turn a patch that move voxels onto voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emcatalog.geometry import AXES, Zyx, ZyxNm, same_length, zyx


@dataclass(frozen=True, slots=True)
class Orientation:
    """One way to turn a patch; exact, since no voxel is between two others afterwards."""

    axes: Zyx = (0, 1, 2)
    """For each axis of the result, (z, y, x), the axis that it was."""
    flipped: tuple[bool, bool, bool] = (False, False, False)
    """Axes of the result that run backwards."""

    def apply(self, voxels: NDArray[Any]) -> NDArray[Any]:
        """A view of (z, y, x) or (c, z, y, x), turned."""
        leading = voxels.ndim - 3
        turned: NDArray[Any] = voxels.transpose(*range(leading), *(leading + axis for axis in self.axes))
        return np.flip(turned, tuple(leading + axis for axis, flip in enumerate(self.flipped) if flip))

    def __str__(self) -> str:
        """As axes of the result: ``+z -x +y`` is a patch whose y runs along what was -x."""
        signs = ("-" if flip else "+" for flip in self.flipped)
        return " ".join(f"{sign}{AXES[axis]}" for sign, axis in zip(signs, self.axes, strict=True))


AS_STORED = Orientation()


def orientations(patch_shape: Zyx, voxel_size_nm: ZyxNm) -> tuple[Orientation, ...]:
    """Every way to turn a patch: axes change places only where voxels and patch are as long along both.

    Args:
        patch_shape: voxels, (z, y, x). An axis of one voxel stays as it is.
        voxel_size_nm: (z, y, x).

    Returns:
        The 48 symmetries of a cube for a cube of isotropic voxels, 16 for a patch that is square in y and x, 8 where
        only flips are exact; the patch as it is stored comes first.
    """

    def alike(a: int, b: int) -> bool:
        same_side = patch_shape[a] == patch_shape[b] > 1
        return a == b or (same_side and same_length(voxel_size_nm[a], voxel_size_nm[b]))

    orders = [axes for axes in permutations(range(3)) if all(alike(a, b) for a, b in enumerate(axes))]
    flips = product(*((False, True) if side > 1 else (False,) for side in patch_shape))
    return tuple(Orientation(zyx(axes), (z, y, x)) for (z, y, x), axes in product(flips, orders))


def stored_halo(halo: Zyx, turns: Sequence[Orientation]) -> Zyx:
    """The halo to read so that a patch has this one however it is turned."""
    needed = np.zeros(3, int)
    for turn in turns:
        for axis, was in enumerate(turn.axes):
            needed[was] = max(needed[was], halo[axis])
    return zyx(needed.tolist())
