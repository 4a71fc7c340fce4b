"""The synthetic tissue: deterministic, densely and connectedly labelled, and grey like FIB-SEM."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import ndimage

from emcatalog.phantom import Phantom, make_phantom

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHAPE = (72, 96, 80)

DIGEST = """
import hashlib, sys
from emcatalog.phantom import neurites, make_phantom
neurites.THREADS = int(sys.argv[1])
p = make_phantom((40, 48, 44), seed=3)
print(hashlib.sha256(p.raw.tobytes() + p.labels.tobytes()).hexdigest())
"""


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    """One volume for all tests that only look."""
    return make_phantom(SHAPE)


def membranes(labels: NDArray[Any]) -> NDArray[Any]:
    """Voxels with a neighbour of another label."""
    differs = [
        ndimage.maximum_filter1d(labels, 3, axis) != ndimage.minimum_filter1d(labels, 3, axis) for axis in range(3)
    ]
    boundary: NDArray[Any] = np.logical_or.reduce(differs)
    return boundary


def interior(labels: NDArray[Any]) -> NDArray[Any]:
    """Voxels at least three steps from a membrane voxel."""
    inside: NDArray[Any] = ndimage.binary_erosion(~membranes(labels), iterations=2, border_value=1)
    return inside


def test_form(phantom: Phantom) -> None:
    assert phantom.raw.shape == phantom.labels.shape == SHAPE
    assert phantom.raw.dtype == np.uint8
    assert phantom.labels.dtype == np.uint64
    assert phantom.raw.flags.c_contiguous
    assert phantom.labels.flags.c_contiguous


def test_same_bytes_in_other_processes_and_with_other_thread_counts() -> None:
    here = make_phantom((40, 48, 44), seed=3)
    expected = hashlib.sha256(here.raw.tobytes() + here.labels.tobytes()).hexdigest()
    for threads in ("1", "3"):
        run = subprocess.run([sys.executable, "-c", DIGEST, threads], check=True, capture_output=True, text=True)
        assert run.stdout.strip() == expected


def test_seed_and_repetition(phantom: Phantom) -> None:
    again, other = make_phantom(SHAPE), make_phantom(SHAPE, seed=1)
    assert np.array_equal(again.raw, phantom.raw)
    assert np.array_equal(again.labels, phantom.labels)
    assert not np.array_equal(other.raw, phantom.raw)
    assert set(np.unique(other.labels)) != set(np.unique(phantom.labels))


def test_labels_are_dense_and_each_is_one_object(phantom: Phantom) -> None:
    assert (phantom.labels == 0).mean() < 0.01
    ids, compact = np.unique(phantom.labels, return_inverse=True)
    compact = compact.reshape(SHAPE)
    for index, box in enumerate(ndimage.find_objects(compact + 1)):
        if ids[index]:
            _, pieces = ndimage.label(compact[box] == index)
            assert pieces == 1, f"id {ids[index]} falls apart into {pieces} pieces"


def test_ids_are_large_and_some_neighbours_merge_in_float32(phantom: Phantom) -> None:
    ids = np.unique(phantom.labels[phantom.labels > 0])
    assert len(ids) > 10
    assert (ids > 2**24).mean() > 0.9
    left, right = phantom.labels[:, :, :-1], phantom.labels[:, :, 1:]
    touching = (left != right) & (np.maximum(left, right) - np.minimum(left, right) == 1)
    assert (left[touching].astype(np.float32) == right[touching].astype(np.float32)).any()


def test_sizes_spread_widely(phantom: Phantom) -> None:
    sizes = np.unique(phantom.labels, return_counts=True)[1]
    assert np.quantile(sizes, 0.9) > 10 * np.quantile(sizes, 0.1)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_membranes_are_darker_than_cytoplasm_from_slice_to_slice(phantom: Phantom, axis: int) -> None:
    membrane = np.moveaxis(membranes(phantom.labels), axis, 0)
    inside = np.moveaxis(interior(phantom.labels), axis, 0)
    raw = np.moveaxis(phantom.raw, axis, 0)
    for plane in range(0, len(raw), 16):
        assert np.median(raw[plane][inside[plane]]) - np.median(raw[plane][membrane[plane]]) > 35


def test_grey_levels(phantom: Phantom) -> None:
    membrane = membranes(phantom.labels)
    assert 60 < np.median(phantom.raw[membrane]) < 105
    inside = np.where(interior(phantom.labels), phantom.labels, 0)
    levels = [np.median(phantom.raw[inside == body]) for body in np.unique(inside) if body]
    assert 145 < np.median(levels) < 175  # of the neurites: by voxels, a single giant one decides
    low, high = np.percentile(phantom.raw, [0.5, 99.5])
    assert low < 75
    assert high > 195
    assert ((phantom.raw == 0) | (phantom.raw == 255)).mean() < 0.001


def test_no_axis_is_special(phantom: Phantom) -> None:
    """The blur and the grain are isotropic: neighbouring voxels differ equally along each axis."""
    differences = [np.abs(np.diff(phantom.raw.astype(float), axis=axis)).mean() for axis in range(3)]
    assert max(differences) < 1.08 * min(differences)


def test_slabs_meet_without_a_seam(phantom: Phantom) -> None:
    """Planes at which one slab of work ends are as grainy as the others, and as similar to the next."""
    raw = phantom.raw.astype(float)
    grain = np.abs(np.diff(raw, 2, axis=2)).mean((1, 2))
    step = np.abs(np.diff(raw, axis=0)).mean((1, 2))
    assert np.allclose(grain[[31, 32, 63, 64]], np.median(grain), rtol=0.08)
    assert np.allclose(step[[31, 63]], np.median(step), rtol=0.15)


@pytest.mark.parametrize("shape", [(32, 32, 32), (33, 70, 47)])
def test_any_shape_from_32_on(shape: tuple[int, int, int]) -> None:
    phantom = make_phantom(shape, seed=2)
    assert phantom.raw.shape == phantom.labels.shape == shape
    assert (phantom.labels == 0).mean() < 0.03
    assert len(np.unique(phantom.labels)) > 3


@pytest.mark.parametrize("shape", [(31, 64, 64), (64, 64), (0, 64, 64)])
def test_too_small_a_shape_is_named(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"shape .* at least 32 .*got \("):
        make_phantom(shape)
