"""Targets made of labels: held, voxel by voxel, against the rule written out, with ids that no float can tell apart."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from emcatalog.errors import ArgumentError
from emcatalog.geometry import Zyx, zyx
from emcatalog.patches.target import TARGETS, Target, norm_target
from emcatalog.patches.targets import NO_HALO, affinities, boundaries, inside_halo, patch_shape

quick = settings(max_examples=200, deadline=None)

Labels = NDArray[Any]
IDS = (0, 1, 2**24, 2**24 + 1, 2**32 + 1, 2**53, 2**53 + 1, 2**63, 2**63 + 1, 2**64 - 1)
"""As float32, as float64 or in 32 bits some of them are the same."""
TWINS = [
    (2**24, 2**24 + 1, "int32"),
    (2**24, 2**24 + 1, "uint64"),
    (1, 2**32 + 1, "uint64"),
    (2**32, 2**32 + 1, "int64"),
    (2**53, 2**53 + 1, "uint64"),
    (2**63, 2**63 + 1, "uint64"),
    (2**64 - 2, 2**64 - 1, "uint64"),
]
"""Pairs that become one where ids are not compared as they are."""
PATCH = (8, 16, 16)
NEAREST = [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]

halos = st.tuples(*[st.integers(0, 2)] * 3)
offsets_of = st.lists(st.tuples(*[st.integers(-9, 9)] * 3), min_size=1, max_size=4)
"""Longer than most arrays, and 0 too, which is not for this function to refuse."""


@st.composite
def labels_with(draw: st.DrawFn, halos: st.SearchStrategy[Zyx] = halos) -> tuple[Labels, Zyx, int | None]:
    """Labels of a small patch and its halo, that halo, and the id that stands for nothing known."""
    halo, patch = draw(halos), draw(st.tuples(*[st.integers(1, 4)] * 3))
    few = draw(st.lists(st.sampled_from(IDS), min_size=1, max_size=3))
    shape = tuple(side + 2 * around for side, around in zip(patch, halo, strict=True))
    return draw(arrays(np.uint64, shape, elements=st.sampled_from(few))), halo, draw(st.sampled_from([None, 0, *few]))


def at(labels: Labels, voxel: Sequence[int]) -> int | None:
    """An id as a Python integer, or None outside the array."""
    inside = all(0 <= i < side for i, side in zip(voxel, labels.shape, strict=True))
    return int(labels[tuple(voxel)]) if inside else None


def moved(voxel: Sequence[int], by: Sequence[int]) -> tuple[int, ...]:
    return tuple(i + step for i, step in zip(voxel, by, strict=True))


def naive_affinities(labels: Labels, offsets: Sequence[Zyx], halo: Zyx, unlabelled: int | None) -> NDArray[np.bool_]:
    """What the documentation says, one voxel at a time."""
    made = np.zeros((2, len(offsets), *patch_shape(labels.shape, halo)), bool)
    for channel, *voxel in np.ndindex(made.shape[1:]):
        here = moved(voxel, halo)
        a, b = at(labels, here), at(labels, moved(here, offsets[channel]))
        valid = b is not None and unlabelled not in (a, b)
        made[:, channel, *voxel] = valid and a == b != 0, valid
    return made


def naive_boundaries(labels: Labels, halo: Zyx, unlabelled: int | None) -> NDArray[np.bool_]:
    """What the documentation says, one voxel at a time."""
    made = np.zeros((2, 1, *patch_shape(labels.shape, halo)), bool)
    axes = [axis for axis in range(3) if labels.shape[axis] > 1]
    for voxel in np.ndindex(made.shape[2:]):
        here = moved(voxel, halo)
        steps = [[sign * (axis == other) for other in range(3)] for axis in axes for sign in (-1, 1)]
        around = [at(labels, moved(here, step)) for step in steps]
        own = at(labels, here)
        valid = None not in around and (unlabelled is None or unlabelled not in (own, *around))
        made[:, 0, *voxel] = valid and any(i != own for i in around), valid
    return made


class TestAffinities:
    """1 within an object, 0 between two."""

    @quick
    @given(labels_with(), offsets_of)
    def test_every_voxel(self, case: tuple[Labels, Zyx, int | None], offsets: list[Zyx]) -> None:
        labels, halo, unlabelled = case
        made = affinities(labels, offsets, halo, unlabelled)
        np.testing.assert_array_equal(made, naive_affinities(labels, offsets, halo, unlabelled))

    @quick
    @given(labels_with(), offsets_of)
    def test_a_patch_with_its_halo_is_the_middle_of_a_larger_one(
        self, case: tuple[Labels, Zyx, int | None], offsets: list[Zyx]
    ) -> None:
        labels, halo, unlabelled = case
        whole = affinities(labels, offsets, NO_HALO, unlabelled)
        middle = whole[(..., *inside_halo(labels.shape, halo))]
        np.testing.assert_array_equal(affinities(labels, offsets, halo, unlabelled), middle)

    @quick
    @given(labels_with(), st.lists(st.tuples(*[st.integers(-2, 2)] * 3), min_size=1, max_size=3))
    def test_with_a_halo_as_wide_as_its_offsets_all_that_is_labelled_is_valid(
        self, case: tuple[Labels, Zyx, int | None], offsets: list[Zyx]
    ) -> None:
        labels, _, _ = case
        padded = np.pad(labels, 2, mode="edge")
        _, valid = affinities(padded, offsets, (2, 2, 2), None)
        assert valid.all()
        _, valid = affinities(np.where(padded == 0, 5, padded), offsets, (2, 2, 2), 0)
        assert valid.all()

    def test_an_offset_points_from_a_voxel_to_the_one_it_is_compared_with(self) -> None:
        row = np.array([[[7, 7, 9, 9, 9]]])
        (forth, back), valid = affinities(row, [(0, 0, 1), (0, 0, -1)])
        assert forth.astype(int).ravel().tolist() == [1, 0, 1, 1, 0]
        assert back.astype(int).ravel().tolist() == [0, 1, 0, 1, 1]
        assert valid.astype(int).reshape(2, 5).tolist() == [[1, 1, 1, 1, 0], [0, 1, 1, 1, 1]]

    def test_offsets_are_z_y_x(self) -> None:
        labels = np.arange(2 * 3 * 4).reshape(2, 3, 4) + 1
        labels[0, 1, 2] = labels[1, 0, 3] = 99
        (same,), _ = affinities(labels, [(1, -1, 1)])
        assert np.argwhere(same).tolist() == [[0, 1, 2]]

    def test_background_is_known_where_nothing_is_unlabelled(self) -> None:
        row = np.array([[[0, 0, 3, 3]]])
        same, valid = affinities(row, [(0, 0, 1)], unlabelled=None)
        assert same.astype(int).ravel().tolist() == [0, 0, 1, 0]
        assert valid.astype(int).ravel().tolist() == [1, 1, 1, 0]

    @pytest.mark.parametrize(("a", "b", "dtype"), TWINS)
    def test_ids_that_are_nearly_the_same_are_two_objects(self, a: int, b: int, dtype: str) -> None:
        row = np.array([[[a, b, b]]], dtype)
        (same,), (valid,) = affinities(row, [(0, 0, 1)])
        assert same.astype(int).ravel().tolist() == [0, 1, 0]
        (same,), (valid,) = affinities(row, [(0, 0, 1)], unlabelled=a)
        assert valid.astype(int).ravel().tolist() == [0, 1, 0]


class TestBoundaries:
    """Both sides of a border."""

    @quick
    @given(labels_with())
    def test_every_voxel(self, case: tuple[Labels, Zyx, int | None]) -> None:
        labels, halo, unlabelled = case
        made = boundaries(labels, halo, unlabelled)
        np.testing.assert_array_equal(made, naive_boundaries(labels, halo, unlabelled))

    @quick
    @given(arrays(np.uint8, st.tuples(*[st.integers(1, 6)] * 3), elements=st.integers(0, 3)))
    def test_the_voxels_that_scikit_image_finds(self, small: Labels) -> None:
        segmentation = pytest.importorskip("skimage.segmentation")
        halo = zyx([int(side > 2) for side in small.shape])
        large = np.array([IDS[0], *IDS[-3:]], np.uint64)[small]
        border, valid = boundaries(large, halo, None)[:, 0]
        found = segmentation.find_boundaries(small, mode="thick")[inside_halo(small.shape, halo)]
        np.testing.assert_array_equal(border[valid], found[valid])
        assert not border[~valid].any()

    @quick
    @given(labels_with())
    def test_a_patch_with_its_halo_is_the_middle_of_a_larger_one(self, case: tuple[Labels, Zyx, int | None]) -> None:
        labels, halo, unlabelled = case
        middle = boundaries(labels, NO_HALO, unlabelled)[(..., *inside_halo(labels.shape, halo))]
        np.testing.assert_array_equal(boundaries(labels, halo, unlabelled), middle)

    @quick
    @given(labels_with(st.just((1, 1, 1))))
    def test_with_a_halo_all_that_is_labelled_is_valid(self, case: tuple[Labels, Zyx, int | None]) -> None:
        labels, halo, _ = case
        assert boundaries(labels, halo, None)[1].all()
        assert boundaries(np.where(labels == 0, 5, labels), halo, 0)[1].all()

    def test_in_one_slice_neighbours_are_those_in_the_slice(self) -> None:
        labels = np.array([[[1, 1, 2, 2, 2]] * 3])
        border, valid = boundaries(labels, (0, 1, 1))
        assert border.astype(int).tolist() == [[[[1, 1, 0]]]]
        assert valid.all()

    @pytest.mark.parametrize(("a", "b", "dtype"), TWINS)
    def test_between_ids_that_are_nearly_the_same(self, a: int, b: int, dtype: str) -> None:
        row = np.array([[[b, b, b, a, a, a]]], dtype)
        assert boundaries(row)[0].astype(int).ravel().tolist() == [0, 0, 1, 1, 0, 0]
        assert boundaries(row, unlabelled=a)[1].astype(int).ravel().tolist() == [0, 1, 0, 0, 0, 0]


class TestNormTarget:
    """Loose arguments, checked before anything is read."""

    @pytest.mark.parametrize("name", TARGETS)
    def test_every_name(self, name: str) -> None:
        offsets = NEAREST if name == "affinities" else None
        assert norm_target(name, PATCH, offsets=offsets).name == name

    def test_what_a_user_may_write_as_offsets(self) -> None:
        expected = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
        for given_as in (NEAREST, np.array(NEAREST), list(map(tuple, NEAREST)), tuple(map(np.array, NEAREST))):
            made = norm_target("affinities", PATCH, offsets=given_as).offsets
            assert made == expected
            assert all(type(step) is int for step in itertools.chain(*made))

    def test_offsets_of_one_slice_may_be_y_x(self) -> None:
        assert norm_target("affinities", (1, 9, 9), offsets=[[-1, 0], [0, 0, 3]]).offsets == ((0, -1, 0), (0, 0, 3))

    def test_halo_of_affinities_reaches_as_far_as_the_offsets_to_both_sides(self) -> None:
        made = norm_target("affinities", PATCH, offsets=[[-3, 0, 0], [1, 0, 20], [0, 0, -2]], halo=True)
        assert made.halo == (3, 0, 20)
        assert norm_target("affinities", PATCH, offsets=NEAREST).halo == NO_HALO

    def test_halo_of_boundaries_is_a_voxel_but_not_beside_a_slice(self) -> None:
        assert norm_target("boundaries", PATCH, halo=True).halo == (1, 1, 1)
        assert norm_target("boundaries", (1, 8, 8), halo=True).halo == (0, 1, 1)

    @pytest.mark.parametrize(
        ("target", "arguments", "message"),
        [
            ("affinity", {}, r"target='affinity': there are 'instances'.*Did you mean 'affinities'"),
            (7, {}, "target=7: there are"),
            ("affinities", {}, "needs offsets=, as in"),
            ("affinities", {"offsets": []}, "needs offsets=, as in"),
            ("affinities", {"offsets": "abc"}, "needs offsets=, as in"),
            ("affinities", {"offsets": 3}, "needs offsets=, as in"),
            ("affinities", {"offsets": [1, 0, 0]}, "1 is not an offset: give three whole numbers"),
            ("affinities", {"offsets": [[1, 0]]}, r"\[1, 0\] is not an offset"),
            ("affinities", {"offsets": [[1.0, 0, 0]]}, r"\[1.0, 0, 0\] is not an offset"),
            ("affinities", {"offsets": [[-1, 0, 0], [0, 0, 0]]}, r"\[0, 0, 0\] is not an offset.*not all 0"),
            ("affinities", {"offsets": ["abc"]}, "'abc' is not an offset"),
            ("affinities", {"offsets": [[0, -16, 0]]}, "reaches out of a patch of 16 voxels along y.*halo=True"),
            ("boundaries", {"offsets": NEAREST}, "offsets= belong to target='affinities'"),
            (len, {"offsets": NEAREST}, "offsets= belong to target='affinities'"),
            ("instances", {"mask": True}, "mask=True belongs to"),
            ("binary", {"halo": True}, "halo=True belongs to"),
            (None, {"mask": True}, "mask=True belongs to"),
            ("semantic", {"consecutive": True}, "consecutive=True belongs to target='instances'"),
            ("instances", {"dtype": "int32"}, "are ids, which int32 may not hold"),
            ("semantic", {"dtype": np.float32}, "are ids, which float32 may not hold"),
            (
                "boundaries",
                {"unlabelled": "0"},
                "unlabelled='0': give the id of voxels of which nothing is known, or None",
            ),
            ("boundaries", {"unlabelled": 0.5}, "unlabelled=0.5: give the id"),
            ("boundaries", {"unlabelled": False}, "unlabelled=False: give the id"),
            ("binary", {"dtype": "unit8"}, "target_dtype='unit8' is not a dtype"),
            ("binary", {"dtype": object}, "is not a dtype of numbers"),
            ("binary", {"dtype": "S3"}, "is not a dtype of numbers"),
        ],
    )
    def test_what_does_not_fit_is_refused_with_what_would(self, target: Any, arguments: Any, message: str) -> None:
        with pytest.raises(ArgumentError, match=message):
            norm_target(target, PATCH, **arguments)

    @pytest.mark.parametrize("unlabelled", [None, 0, -1, np.uint8(7), 2**63 + 1])
    def test_any_whole_number_may_stand_for_what_is_not_known(self, unlabelled: Any) -> None:
        assert norm_target("boundaries", PATCH, unlabelled=unlabelled).unlabelled == unlabelled

    def test_an_offset_longer_than_the_patch_is_possible_with_a_halo(self) -> None:
        assert norm_target("affinities", PATCH, offsets=[[0, -40, 0]], halo=True).halo == (0, 40, 0)

    @pytest.mark.parametrize("dtype", ["uint8", np.uint8, np.dtype("uint8"), "torch.uint8"])
    def test_a_dtype_in_whatever_way_it_is_named(self, dtype: Any) -> None:
        assert norm_target("binary", PATCH, dtype=dtype).wide == np.uint8

    def test_a_dtype_of_torch(self) -> None:
        torch = pytest.importorskip("torch")
        assert norm_target("boundaries", PATCH, dtype=torch.bool).wide == np.bool_
        with pytest.raises(ArgumentError, match=r"target_dtype=torch.bfloat16"):
            norm_target("boundaries", PATCH, dtype=torch.bfloat16)


LABELS = np.array([[[2**63 + 1, 2**63 + 1, 5, 0], [5, 5, 5, 2**24 + 1]]] * 3, np.uint64)
"""(3, 2, 4)."""
SHAPE = zyx(LABELS.shape)


def target(name: Any, patch: Zyx = SHAPE, **arguments: Any) -> Target:
    return norm_target(name, patch, **arguments)


class TestOf:
    """From labels with their halo to the target of a patch."""

    @pytest.mark.parametrize("name", ["instances", "semantic"])
    def test_ids_stay_what_they_are_in_64_bits(self, name: str) -> None:
        made = target(name).of(LABELS, NO_HALO)
        assert (made.dtype, made.shape) == (np.int64, (1, *SHAPE))
        np.testing.assert_array_equal(made[0].view(np.uint64), LABELS)

    @pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int16", "int64"])
    def test_ids_of_every_dtype_become_int64(self, dtype: str) -> None:
        ids = np.array([[[0, 1, 100, np.iinfo(dtype).max]]], dtype)
        for name in ("instances", "semantic"):
            made = target(name, (1, 1, 4)).of(ids, NO_HALO)
            assert made.dtype == np.int64
            np.testing.assert_array_equal(made[0], ids)

    def test_consecutive_ids_begin_at_1_in_each_patch(self) -> None:
        made = target("instances", consecutive=True).of(LABELS, NO_HALO)
        assert made.dtype == np.int64
        assert made[0, 0].tolist() == [[1, 1, 2, 0], [2, 2, 2, 3]]

    def test_consecutive_ids_are_those_of_the_patch_and_not_of_its_halo(self) -> None:
        around = np.pad(LABELS, 1, constant_values=77)
        made = target("instances", consecutive=True).of(around, (1, 1, 1))
        np.testing.assert_array_equal(made, target("instances", consecutive=True).of(LABELS, NO_HALO))

    def test_binary(self) -> None:
        made = target("binary").of(LABELS, NO_HALO)
        assert (made.dtype, made.shape) == (np.bool_, (1, *SHAPE))
        np.testing.assert_array_equal(made[0], LABELS != 0)

    @pytest.mark.parametrize("mask", [False, True])
    def test_affinities_and_then_where_they_are_valid(self, mask: bool) -> None:
        wanted = target("affinities", offsets=[[0, 0, 1], [1, 0, 0]], mask=mask)
        made = wanted.of(LABELS, NO_HALO)
        same, valid = affinities(LABELS, wanted.offsets)
        np.testing.assert_array_equal(made, np.concatenate([same, valid]) if mask else same)
        assert len(made) == wanted.num_channels == (4 if mask else 2)

    @pytest.mark.parametrize("mask", [False, True])
    def test_boundaries_and_then_where_they_are_valid(self, mask: bool) -> None:
        wanted = target("boundaries", mask=mask, halo=True)
        around = np.pad(LABELS, 1, mode="edge")
        made = wanted.of(around, wanted.halo)
        border, valid = boundaries(around, (1, 1, 1))
        np.testing.assert_array_equal(made, np.concatenate([border, valid]) if mask else border)
        assert made.shape == (wanted.num_channels, *SHAPE)

    def test_the_id_of_what_is_not_known_is_passed_on(self) -> None:
        for unlabelled in (None, 0, 5):
            made = target("boundaries", mask=True, unlabelled=unlabelled).of(LABELS, NO_HALO)
            np.testing.assert_array_equal(made, boundaries(LABELS, unlabelled=unlabelled)[:, 0])

    @pytest.mark.parametrize("channels", [None, 1, 3])
    def test_a_function_gets_int64_and_gives_one_or_more_channels(self, channels: int | None) -> None:
        def make(labels: Labels) -> Labels:
            assert (labels.dtype, labels.shape) == (np.int64, SHAPE)
            own = labels.astype(np.float32)
            return own if channels is None else np.stack([own] * channels)

        made = target(make).of(np.pad(LABELS, 1), (1, 1, 1))
        assert (made.dtype, made.shape) == (np.float32, (channels or 1, *SHAPE))
        np.testing.assert_array_equal(made[0], LABELS.view(np.int64).astype(np.float32))

    @pytest.mark.parametrize(
        "make", [lambda _: 1.0, lambda labels: labels[0], lambda labels: labels[None, None], lambda labels: labels.T]
    )
    def test_a_function_that_gives_something_else_is_told_so(self, make: Any) -> None:
        with pytest.raises(ArgumentError, match=r"the target function gave an array of shape .* for labels of \(3, 2"):
            target(make).of(LABELS, NO_HALO)

    @pytest.mark.parametrize(
        ("name", "wide", "channels"),
        [
            ("instances", None, 1),
            ("semantic", None, 1),
            ("binary", "float32", 1),
            ("boundaries", "float32", 1),
            ("affinities", "float32", 3),
            (np.sign, None, None),
            (None, None, None),
        ],
    )
    def test_what_a_caller_gets(self, name: Any, wide: str | None, channels: int | None) -> None:
        made = target(name, PATCH, offsets=NEAREST if name == "affinities" else None)
        assert made.wide == (None if wide is None else np.dtype(wide))
        assert made.num_channels == channels
        assert bool(made.learns) == (name is not None)
