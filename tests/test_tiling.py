"""Patches that cover a box: which voxel is taken from which of them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emcatalog.errors import ArgumentError
from emcatalog.geometry import Box, Zyx, zyx
from emcatalog.patches.tiling import ORIGIN, Tiling, tile

quick = settings(max_examples=200, deadline=None)


@st.composite
def tilings(draw: st.DrawFn) -> tuple[Tiling, Zyx]:
    """A tiling of a small box, and the overlap that was asked for."""
    patch = draw(st.tuples(*[st.integers(1, 6)] * 3))
    shape = zyx([side + draw(st.integers(0, 12)) for side in patch])
    overlap = zyx([draw(st.integers(0, side - 1)) for side in patch])
    return tile(shape, patch, overlap), overlap


def box_of(tiling: Tiling, index: int) -> Box:
    """The voxels of a patch."""
    first = tiling.first(index)
    return Box(first, zyx([a + side for a, side in zip(first, tiling.patch_shape, strict=True)]))


@quick
@given(tilings())
def test_the_cores_fill_the_box_and_no_voxel_is_taken_twice(made: tuple[Tiling, Zyx]) -> None:
    tiling, _ = made
    taken = np.zeros(tiling.shape, int)
    for index in range(len(tiling)):
        taken[tiling.core(index).slices] += 1
    assert (taken == 1).all()


@quick
@given(tilings())
def test_each_core_lies_in_its_patch_and_each_patch_in_the_box(made: tuple[Tiling, Zyx]) -> None:
    tiling, _ = made
    for index in range(len(tiling)):
        assert box_of(tiling, index).contains(tiling.core(index))
        assert Box(ORIGIN, tiling.shape).contains(box_of(tiling, index))


@quick
@given(tilings())
def test_neighbours_share_at_least_the_overlap_and_only_the_last_shares_more(made: tuple[Tiling, Zyx]) -> None:
    tiling, overlap = made
    for starts, side, shared in zip(tiling.starts, tiling.patch_shape, overlap, strict=True):
        found = [a + side - b for a, b in pairwise(starts)]
        assert all(each == shared for each in found[:-1])
        assert all(shared <= each < side for each in found[-1:])


@quick
@given(tilings())
def test_a_voxel_is_taken_where_it_is_as_far_from_the_faces_as_it_can_be(made: tuple[Tiling, Zyx]) -> None:
    """Along each axis: there a network saw most of what is around. Beyond a face of the box there is nothing to see."""
    tiling, _ = made
    for index in range(len(tiling)):
        core, first = tiling.core(index), tiling.first(index)
        for axis, starts in enumerate(tiling.starts):
            side, size = tiling.patch_shape[axis], tiling.shape[axis]
            for voxel in range(core.begin[axis], core.end[axis]):
                depths = {a: depth(voxel, a, side, size) for a in starts if a <= voxel < a + side}
                assert depths[first[axis]] == max(depths.values())


def depth(voxel: int, start: int, side: int, size: int) -> float:
    """Voxels between a voxel and the nearest face of a patch that is not one of the box."""
    low = np.inf if start == 0 else voxel - start
    high = np.inf if start + side == size else start + side - 1 - voxel
    return min(low, high)


@quick
@given(tilings())
def test_numbers_and_places_of_patches_belong_together(made: tuple[Tiling, Zyx]) -> None:
    tiling, _ = made
    firsts = [tiling.first(index) for index in range(len(tiling))]
    assert firsts == sorted(set(firsts))
    assert [tiling.index(first) for first in firsts] == list(range(len(tiling)))


def test_a_position_may_come_as_an_array() -> None:
    tiling = tile((10, 10, 10), (4, 4, 4), (1, 1, 1))
    assert tiling.index(np.array(tiling.first(5), np.int64)) == 5


def test_without_overlap_and_without_a_rest_the_cores_are_the_patches() -> None:
    tiling = tile((8, 6, 4), (4, 3, 4), ORIGIN)
    assert len(tiling) == 4
    assert [tiling.core(index) for index in range(4)] == [box_of(tiling, index) for index in range(4)]


def test_x_changes_fastest() -> None:
    tiling = tile((4, 4, 6), (2, 4, 2), ORIGIN)
    assert [tiling.first(index) for index in range(4)] == [(0, 0, 0), (0, 0, 2), (0, 0, 4), (2, 0, 0)]


def test_a_box_of_one_patch() -> None:
    tiling = tile((4, 5, 6), (4, 5, 6), (3, 0, 2))
    assert len(tiling) == 1
    assert tiling.core(0) == Box(ORIGIN, (4, 5, 6))


@pytest.mark.parametrize(
    ("shape", "patch", "overlap", "message"),
    [
        ((9, 9, 9), (10, 9, 9), ORIGIN, r"a patch of 9 x 9 x 10 voxels \(x, y, z\) is larger than the box, 9 x 9 x 9"),
        ((9, 9, 9), (4, 4, 4), (0, 4, 0), "an overlap of 4 voxels along y: it is at least 0 and less than the patch's"),
        ((9, 9, 9), (4, 4, 4), (0, 0, -1), "an overlap of -1 voxels along x"),
        ((9, 9, 9), (1, 4, 4), (1, 0, 0), "an overlap of 1 voxels along z"),
    ],
)
def test_what_cannot_be_covered_is_refused(shape: Any, patch: Any, overlap: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        tile(shape, patch, overlap)


@pytest.mark.parametrize("first", [(0, 0, 1), (0, 3, 9), (-1, 0, 0), (0, 0)])
def test_a_place_where_no_patch_begins(first: Any) -> None:
    with pytest.raises(ArgumentError, match=r"no patch begins at .*: give the positions that came with the patches"):
        tile((10, 10, 10), (4, 4, 4), (1, 1, 1)).index(first)
