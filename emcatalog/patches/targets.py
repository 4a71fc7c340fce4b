"""What a network is to predict, made from labels: pure functions on arrays of ids.

Ids are compared as the integers they are: as float32 two ids above 2^24 can be one number. Labels come with a halo, the
voxels around a patch that its faces are compared with; results are of the patch alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from emcatalog.buffers import BUFFERS
from emcatalog.geometry import Zyx

Mask = NDArray[np.bool_]

NO_HALO: Final = (0, 0, 0)


def affinities(labels: NDArray[Any], offsets: Sequence[Zyx], halo: Zyx = NO_HALO, unlabelled: int | None = 0) -> Mask:
    """Whether the voxel at each offset is of the same object: 1 within an object, 0 between two.

    Affinities as in Turaga et al. 2010 (10.1162/neco.2009.10-08-881), of any offsets; torch_em's are 1 minus these.

    Args:
        labels: (z, y, x) ids of the patch and a halo of this many voxels at both ends of each axis.
        offsets: (z, y, x) from a voxel to the one that it is compared with.
        halo: voxels around the patch, (z, y, x).
        unlabelled: the id of voxels of which nothing is known. With None, 0 is background: known, and no object.

    Returns:
        (2, offset, z, y, x): affinities, and where they are valid: both voxels are in ``labels``, and are labelled.
        What is not valid is 0.
    """
    shape = patch_shape(labels.shape, halo)
    both = BUFFERS.empty((2, len(offsets), *shape), np.bool_)
    both[...] = False
    same, valid = both
    known = None if unlabelled is None else _differ(labels, unlabelled)
    objects = known if known is not None and unlabelled == 0 else _differ(labels, 0)
    for offset, same_here, valid_here in zip(offsets, same, valid, strict=True):
        here, there, inside = _overlap(labels.shape, shape, halo, offset)
        np.equal(labels[here], labels[there], out=same_here[inside])
        same_here[inside] &= objects[here]
        if known is None:
            valid_here[inside] = True
        else:
            np.logical_and(known[here], known[there], out=valid_here[inside])
            same_here &= valid_here
    return both


def boundaries(labels: NDArray[Any], halo: Zyx = NO_HALO, unlabelled: int | None = 0) -> Mask:
    """Voxels that have a face in common with a voxel of another id: both sides of a border.

    The same voxels as ``skimage.segmentation.find_boundaries(labels, mode="thick")``. In a patch of one slice
    neighbours are those in the slice.

    Args:
        labels: (z, y, x) ids of the patch and its halo.
        halo: voxels around the patch, (z, y, x).
        unlabelled: the id of voxels of which nothing is known; with None all are known, and 0 is background.

    Returns:
        (2, 1, z, y, x): boundaries, and where they are valid: where the voxel and its neighbours are in ``labels`` and
        are labelled. What is not valid is 0.
    """
    both = BUFFERS.empty((2, *labels.shape), np.bool_)
    border, valid = both
    border[...], valid[...] = False, True
    known = None if unlabelled is None else _differ(labels, unlabelled)
    if known is not None:
        valid &= known
    for axis in range(labels.ndim):
        if labels.shape[axis] == 1:
            continue
        low, high = _along(axis, slice(None, -1)), _along(axis, slice(1, None))
        differ = _differ(labels[low], labels[high])
        border[low] |= differ
        border[high] |= differ
        valid[_along(axis, slice(0, 1))] = valid[_along(axis, slice(-1, None))] = False
        if known is not None:
            valid[low] &= known[high]
            valid[high] &= known[low]
    border &= valid
    return both[(slice(None), None, *inside_halo(labels.shape, halo))]


def _differ(labels: NDArray[Any], others: Any) -> Mask:
    differ: Mask = np.not_equal(labels, others, out=BUFFERS.empty(labels.shape, np.bool_))
    return differ


def patch_shape(shape: Sequence[int], halo: Zyx) -> Zyx:
    """Shape of the patch within its halo."""
    z, y, x = (side - 2 * around for side, around in zip(shape, halo, strict=True))
    return z, y, x


def inside_halo(shape: Sequence[int], halo: Zyx) -> tuple[slice, ...]:
    """Index of the patch within its halo."""
    return tuple(slice(around, side - around) for side, around in zip(shape, halo, strict=True))


def _overlap(
    shape: Sequence[int], patch: Zyx, halo: Zyx, offset: Zyx
) -> tuple[tuple[slice, ...], tuple[slice, ...], tuple[slice, ...]]:
    """Voxels of the patch whose partner is in the array; their partners; and the voxels as indices of the patch."""
    here, there, inside = [], [], []
    for size, side, around, step in zip(shape, patch, halo, offset, strict=True):
        begin = max(around, -step)
        end = max(begin, min(around + side, size - step))
        here.append(slice(begin, end))
        there.append(slice(begin + step, end + step))
        inside.append(slice(begin - around, end - around))
    return tuple(here), tuple(there), tuple(inside)


def _along(axis: int, piece: slice) -> tuple[slice, ...]:
    return (*(slice(None),) * axis, piece)
