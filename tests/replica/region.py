"""Data that fills a small part of a large volume, and what must be read from any box of that volume."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from tests.replica.stored import Array, Box


def shape_of(box: Box) -> tuple[int, int, int]:
    """Voxels along z, y and x."""
    z, y, x = (stop - start for start, stop in box)
    return (z, y, x)


@dataclasses.dataclass(frozen=True)
class Region:
    """Voxels in one box of a volume that is 0 everywhere else."""

    box: Box
    """In voxels of the volume."""
    voxels: Array
    """`(z, y, x)`, as large as `box`."""

    def __post_init__(self) -> None:
        if self.voxels.shape != shape_of(self.box):
            raise ValueError(f"voxels {self.voxels.shape} do not fill {self.box}")

    def cut(self, box: Box) -> Array:
        """The volume in `box` `(z, y, x)`, which may reach beyond the data."""
        out = np.zeros(shape_of(box), self.voxels.dtype)
        shared = [(max(a, c), min(b, d)) for (a, b), (c, d) in zip(box, self.box, strict=True)]
        if all(start < stop for start, stop in shared):
            of_out, of_voxels = (
                tuple(slice(start - low, stop - low) for (start, stop), (low, _) in zip(shared, frame, strict=True))
                for frame in (box, self.box)
            )
            out[of_out] = self.voxels[of_voxels]
        return out

    def swapped(self) -> Region:
        """The same data in a volume whose x and y have changed places."""
        z, y, x = self.box
        return Region((z, x, y), np.swapaxes(self.voxels, 1, 2))


@dataclasses.dataclass(frozen=True)
class Blob:
    """An ellipsoid of one label."""

    label: int
    centre: tuple[float, float, float]
    """Voxels, zyx."""
    radii: tuple[float, float, float]
    """Voxels, zyx; best three different ones."""

    @property
    def box(self) -> Box:
        """Whole voxels around it; may reach outside the volume."""
        z, y, x = ((math.floor(c - r), math.floor(c + r) + 1) for c, r in zip(self.centre, self.radii, strict=True))
        return (z, y, x)


@dataclasses.dataclass(frozen=True)
class Blobs:
    """Labels of a volume of any size, given as formulas: nothing is held, and every scale follows."""

    blobs: tuple[Blob, ...]
    """The first that has a voxel gives it its label."""

    def cut(self, box: Box, step: int = 1) -> Array:
        """The labels `(z, y, x) uint64` in `box`, in voxels of a scale that keeps every `step`-th voxel."""
        out = np.zeros(shape_of(box), np.uint64)
        z, y, x = (step * np.arange(start, stop) for start, stop in box)
        grid = np.ix_(z, y, x)
        for blob in reversed(self.blobs):
            parts = zip(grid, blob.centre, blob.radii, strict=True)
            out[sum(((at - c) / r) ** 2 for at, c, r in parts) <= 1] = blob.label
        return out
