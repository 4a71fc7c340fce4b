"""Tissue of any size for replicas: the package's phantom, repeated in mirrored tiles where it would take long."""

from __future__ import annotations

import functools

import numpy as np

from emcatalog.phantom import MIN_LENGTH, Phantom, make_phantom
from tests.replica.malecns import Tiles
from tests.replica.stored import Array

LARGEST = 128
"""Edge, in voxels, above which tissue is repeated."""


def make_tissue(shape: tuple[int, int, int], seed: int = 0) -> Phantom:
    """Image `(z, y, x) uint8` and labels `(z, y, x) uint64`; the same bytes for the same arguments.

    Labels are 0 and ids from 1 on that differ between tiles; they stay far below `2 ** 32`.
    """
    image, labels = tissue_tiles(shape, seed)
    z, y, x = shape
    return Phantom(raw=image(0, z, 0, y, 0, x), labels=labels(0, z, 0, y, 0, x))


@functools.lru_cache(maxsize=8)
def tissue_tiles(shape: tuple[int, int, int], seed: int = 0) -> tuple[Tiles, Tiles]:
    """Image and labels as sources that a builder asks for blocks of `shape`."""
    z, y, x = (min(max(length, MIN_LENGTH), LARGEST) for length in shape)
    phantom = make_phantom((z, y, x), seed)
    labels = np.searchsorted(np.unique(np.append(phantom.labels, np.uint64(0))), phantom.labels).astype(np.uint64)
    return Tiles(phantom.raw), Tiles(labels, ids=int(labels.max()) + 1)


def mean(voxels: Array, factors: tuple[int, int, int]) -> Array:
    """Blocks of `factors` voxels (zyx) as their mean, halves rounded up; what does not fill a block is left out."""
    whole = tuple(slice(0, length // factor * factor) for length, factor in zip(voxels.shape, factors, strict=True))
    total = voxels[whole].astype(np.uint32)
    for axis, factor in enumerate(factors):
        total = np.add.reduceat(total, np.arange(0, total.shape[axis], factor), axis=axis)
    count = int(np.prod(factors))
    return ((total + count // 2) // count).astype(voxels.dtype)
