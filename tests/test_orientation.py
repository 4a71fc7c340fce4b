"""Flips and rotations: how many there are of a patch, and where each voxel goes."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emcatalog.geometry import Zyx, ZyxNm
from emcatalog.patches.orientation import AS_STORED, Orientation, orientations, stored_halo

quick = settings(max_examples=100, deadline=None)

CUBE = (8.0, 8.0, 8.0)
COUNTS: list[tuple[Zyx, ZyxNm, int]] = [
    ((4, 4, 4), CUBE, 48),
    ((3, 5, 5), CUBE, 16),
    ((5, 3, 5), CUBE, 16),
    ((4, 4, 4), (40.0, 8.0, 8.0), 16),
    ((4, 4, 4), (8.0, 8.0, 40.0), 16),
    ((4, 4, 4), (4.0, 5.0, 40.0), 8),
    ((2, 3, 4), CUBE, 8),
    ((3, 4, 4), (40.0, 8.0, 9.0), 8),
    ((1, 4, 4), (40.0, 8.0, 8.0), 8),
    ((1, 4, 4), CUBE, 8),
    ((1, 3, 4), CUBE, 4),
    ((1, 4, 4), (40.0, 8.0, 9.0), 4),
    ((1, 1, 4), CUBE, 2),
    ((1, 1, 1), CUBE, 1),
]
"""Patch (z, y, x), voxel (z, y, x) in nm, ways to turn it."""

patches = st.tuples(*[st.sampled_from([1, 2, 3])] * 3)
sizes = st.tuples(*[st.sampled_from([8.0, 40.0])] * 3)
turns_of = st.builds(
    Orientation,
    st.permutations(range(3)).map(lambda axes: (axes[0], axes[1], axes[2])),
    st.tuples(*[st.booleans()] * 3),
)


def numbered(shape: tuple[int, ...]) -> NDArray[Any]:
    """An array in which every voxel is another, so that no symmetry leaves it as it is."""
    return np.arange(np.prod(shape)).reshape(shape)


def where(turn: Orientation, voxel: Zyx, shape: Zyx) -> tuple[int, ...]:
    """Where a voxel (z, y, x) of a patch lies when it is turned, written out."""
    of_result = [(voxel[was], shape[was]) for was in turn.axes]
    return tuple(side - 1 - i if flip else i for (i, side), flip in zip(of_result, turn.flipped, strict=True))


@pytest.mark.parametrize(("patch", "size", "count"), COUNTS)
def test_how_many_ways_there_are_and_that_each_is_another(patch: Zyx, size: ZyxNm, count: int) -> None:
    turns = orientations(patch, size)
    assert len(turns) == len(set(turns)) == count
    results = {turn.apply(numbered(patch)).tobytes() for turn in turns}
    assert len(results) == count


@quick
@given(patches, sizes)
def test_the_first_leaves_a_patch_as_it_is_stored(patch: Zyx, size: ZyxNm) -> None:
    first, *_ = orientations(patch, size)
    assert first == AS_STORED
    np.testing.assert_array_equal(first.apply(numbered(patch)), numbered(patch))


@quick
@given(patches, sizes)
def test_each_keeps_the_shape_and_every_voxel(patch: Zyx, size: ZyxNm) -> None:
    for turn in orientations(patch, size):
        turned = turn.apply(numbered(patch))
        assert turned.shape == patch
        np.testing.assert_array_equal(np.sort(turned, axis=None), numbered(patch).ravel())


@quick
@given(patches, sizes)
def test_each_keeps_the_length_of_a_voxel_along_every_axis_that_is_not_one_voxel(patch: Zyx, size: ZyxNm) -> None:
    for turn in orientations(patch, size):
        assert tuple(size[was] for was in turn.axes) == size
        assert all(was == axis for axis, was in enumerate(turn.axes) if patch[axis] == 1)


@pytest.mark.parametrize(("patch", "size", "count"), COUNTS)
def test_one_turn_after_another_is_one_of_them_too(patch: Zyx, size: ZyxNm, count: int) -> None:
    turns = orientations(patch, size)
    results = {turn.apply(numbered(patch)).tobytes() for turn in turns}
    for first, second in itertools.product(turns, repeat=2):
        assert second.apply(first.apply(numbered(patch))).tobytes() in results


@quick
@given(turns_of, st.tuples(*[st.integers(1, 4)] * 3))
def test_a_voxel_lands_where_its_turn_says(turn: Orientation, shape: Zyx) -> None:
    turned = turn.apply(numbered(shape))
    for voxel in np.ndindex(shape):
        assert turned[where(turn, voxel, shape)] == numbered(shape)[voxel]


def test_axes_are_those_of_the_result() -> None:
    """A patch whose z is x, whose x is z, and whose y runs backwards."""
    patch = numbered((2, 3, 4))
    turned = Orientation((2, 1, 0), (False, True, False)).apply(patch)
    assert turned.shape == (4, 3, 2)
    assert turned[3, 0, 1] == patch[1, 2, 3]
    assert turned[0, 2, 1] == patch[1, 0, 0]


@pytest.mark.parametrize(
    ("turn", "name"),
    [
        (AS_STORED, "+z +y +x"),
        (Orientation((0, 2, 1), (False, True, False)), "+z -x +y"),
        (Orientation((2, 0, 1), (True, False, True)), "-x +z -y"),
    ],
)
def test_name(turn: Orientation, name: str) -> None:
    assert str(turn) == name


@quick
@given(turns_of, st.tuples(*[st.integers(1, 4)] * 3))
def test_channels_are_turned_alike_and_stay_in_their_order(turn: Orientation, shape: Zyx) -> None:
    channels = numbered((3, *shape))
    turned = turn.apply(channels)
    for before, after in zip(channels, turned, strict=True):
        np.testing.assert_array_equal(after, turn.apply(before))


def test_nothing_is_copied() -> None:
    patch = numbered((4, 4, 4))
    assert all(np.shares_memory(turn.apply(patch), patch) for turn in orientations((4, 4, 4), CUBE))


class TestStoredHalo:
    """What to read around a patch that may be turned."""

    def test_as_it_is_for_flips_alone(self) -> None:
        assert stored_halo((1, 2, 3), orientations((2, 3, 4), CUBE)) == (1, 2, 3)

    def test_alike_along_axes_that_change_places(self) -> None:
        assert stored_halo((1, 2, 3), orientations((4, 4, 4), CUBE)) == (3, 3, 3)
        assert stored_halo((9, 0, 3), orientations((4, 8, 8), CUBE)) == (9, 3, 3)
        assert stored_halo((9, 0, 3), orientations((1, 8, 8), CUBE)) == (9, 3, 3)

    @quick
    @given(patches, sizes, st.tuples(*[st.integers(0, 3)] * 3))
    def test_is_enough_however_a_patch_is_turned_and_one_voxel_less_is_not(
        self, patch: Zyx, size: ZyxNm, halo: Zyx
    ) -> None:
        def is_enough(stored: NDArray[Any]) -> bool:
            one_voxel_with_it = numbered(tuple(2 * stored + 1))
            sides = [turn.apply(one_voxel_with_it).shape for turn in turns]
            return bool((np.array(sides) >= 2 * np.array(halo) + 1).all())

        turns = orientations(patch, size)
        stored = np.array(stored_halo(halo, turns))
        assert is_enough(stored)
        for axis in np.flatnonzero(stored):
            assert not is_enough(stored - np.eye(3, dtype=int)[axis])
