"""Boxes and grids: what a user means by six numbers, to the voxel."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from emcatalog.errors import AlignmentError, ArgumentError
from emcatalog.geometry import (
    Alignment,
    Box,
    Grid,
    NmBox,
    Zyx,
    ZyxNm,
    axis_names,
    format_xyz,
    norm_bbox,
    norm_resolution,
    reverse,
    same_size,
)

quick = settings(max_examples=200, deadline=None)

EDGE = 10**9
ORDER = "(x0, x1, y0, y1, z0, z1)"

lengths = st.sampled_from([1.0, 3.58, 5.24, 4 / 3, 6.0, 8.0, 40.0, 55.0]) | st.floats(0.1, 1e4)
sizes = st.tuples(lengths, lengths, lengths)
places = st.floats(-1e8, 1e8)
origins = st.just((0.0, 0.0, 0.0)) | st.tuples(places, places, places)
indices = st.integers(-EDGE, EDGE)
cells = st.tuples(*[st.integers(1, 5)] * 3)


def boxes(index: st.SearchStrategy[int], side: st.SearchStrategy[int]) -> st.SearchStrategy[Box]:
    """Boxes that are not empty."""

    def box(begin: Zyx, shape: Zyx) -> Box:
        z, y, x = (a + n for a, n in zip(begin, shape, strict=True))
        return Box(begin, (z, y, x))

    return st.builds(box, st.tuples(index, index, index), st.tuples(side, side, side))


large_boxes = boxes(indices, st.integers(1, EDGE))
small_boxes = boxes(st.integers(-7, 7), st.integers(1, 9))
four_boxes = st.builds(
    lambda box, begin, count: box.with_channels(begin, begin + count),
    boxes(st.integers(-4, 4), st.integers(1, 5)),
    st.integers(0, 4),
    st.integers(1, 5),
)
four_cells = st.tuples(*[st.integers(1, 4)] * 4)
grids = st.builds(
    Grid,
    shape=st.just((10, 20, 30)),
    voxel_size_nm=sizes,
    offset=st.tuples(indices, indices, indices),
    origin_nm=origins,
)


def voxels(box: Box) -> set[tuple[int, ...]]:
    """Every voxel of a small box."""
    return set(product(*(range(a, b) for a, b in zip(box.begin, box.end, strict=True))))


class TestBox:
    """Whole voxels, half-open, (z, y, x)."""

    def test_sides_are_z_y_x(self) -> None:
        box = Box((1, 10, 100), (3, 15, 107))
        assert (box.shape, box.voxels) == ((2, 5, 7), 70)
        assert np.zeros((4, 20, 200))[box.slices].shape == (2, 5, 7)

    def test_users_read_x_first(self) -> None:
        box = Box((1, 10, 100), (3, 15, 107))
        assert box.xyz() == (100, 107, 10, 15, 1, 3)
        assert str(box) == "x 100..107, y 10..15, z 1..3"
        assert str(NmBox((0.0, 0.0, 3.58), (1e9, 8.0, 7.16))) == "x 3.58..7.16, y 0..8, z 0..1000000000 nm"

    @pytest.mark.parametrize("end", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 1, -5)])
    def test_is_never_empty(self, end: Zyx) -> None:
        with pytest.raises(ArgumentError, match="end must be larger"):
            Box((0, 0, 0), end)

    @quick
    @given(small_boxes, small_boxes)
    def test_intersection_is_the_voxels_in_both(self, a: Box, b: Box) -> None:
        common = a.intersect(b)
        assert (voxels(common) if common else set()) == voxels(a) & voxels(b)
        assert b.intersect(a) == common

    @quick
    @given(small_boxes, small_boxes)
    def test_contains_is_a_superset(self, a: Box, b: Box) -> None:
        assert a.contains(b) == (voxels(a) >= voxels(b))

    @quick
    @given(small_boxes, st.tuples(*[st.integers(-9, 9)] * 3))
    def test_translate_moves_every_voxel(self, box: Box, by: Zyx) -> None:
        moved = {tuple(i + d for i, d in zip(voxel, by, strict=True)) for voxel in voxels(box)}
        assert voxels(box.translate(by)) == moved

    @quick
    @given(small_boxes, cells)
    def test_grow_to_takes_the_cells_that_it_touches(self, box: Box, cell: Zyx) -> None:
        touched = {tuple(i // c for i, c in zip(voxel, cell, strict=True)) for voxel in voxels(box)}
        grown = box.grow_to(cell)
        assert {tuple(i // c for i, c in zip(voxel, cell, strict=True)) for voxel in voxels(grown)} == touched
        assert all(edge % c == 0 for corner in (grown.begin, grown.end) for edge, c in zip(corner, cell, strict=True))

    @quick
    @given(small_boxes, cells)
    def test_split_tiles_the_box_in_order_on_the_lattice(self, box: Box, cell: Zyx) -> None:
        pieces = list(box.split(cell))
        assert sum(piece.voxels for piece in pieces) == box.voxels
        assert set().union(*(voxels(piece) for piece in pieces)) == voxels(box)
        assert pieces == sorted(pieces, key=lambda piece: piece.begin)
        assert all(piece.grow_to(cell).shape == cell for piece in pieces)

    def test_split_has_x_fastest(self) -> None:
        pieces = [piece.begin for piece in Box((0, 0, 1), (2, 1, 5)).split((1, 1, 2))]
        assert pieces == [(0, 0, 1), (0, 0, 2), (0, 0, 4), (1, 0, 1), (1, 0, 2), (1, 0, 4)]


class TestBoxWithChannels:
    """An axis of channels stands before the others: (c, z, y, x)."""

    box = Box((2, 1, 10, 100), (6, 3, 15, 107))

    def test_sides_are_c_z_y_x(self) -> None:
        assert (self.box.shape, self.box.voxels) == ((4, 2, 5, 7), 280)
        assert np.zeros((9, 4, 20, 200))[self.box.slices].shape == (4, 2, 5, 7)

    def test_space_and_back(self) -> None:
        space = Box((1, 10, 100), (3, 15, 107))
        assert self.box.space == space
        assert space.space == space
        assert space.with_channels(2, 6) == self.box
        assert self.box.space.with_channels(0, 1).shape == (1, 2, 5, 7)

    def test_users_read_x_first_and_channels_last(self) -> None:
        assert str(self.box) == "x 100..107, y 10..15, z 1..3, c 2..6"
        assert self.box.xyz() == (100, 107, 10, 15, 1, 3)

    def test_is_never_empty_along_the_channels(self) -> None:
        with pytest.raises(ArgumentError, match="empty box: c runs from 3 to 3"):
            self.box.space.with_channels(3, 3)

    @quick
    @given(four_boxes, four_cells)
    def test_split_tiles_the_box_on_the_lattice(self, box: Box, cell: tuple[int, ...]) -> None:
        pieces = list(box.split(cell))
        assert len(pieces) == box.cells(cell) == len(set(pieces))
        assert sum(piece.voxels for piece in pieces) == box.voxels
        assert set().union(*(voxels(piece) for piece in pieces)) == voxels(box)
        assert pieces == sorted(pieces, key=lambda piece: piece.begin)
        assert all(piece.grow_to(cell).shape == cell for piece in pieces)

    @quick
    @given(four_boxes, four_cells)
    def test_grow_to_takes_the_cells_that_it_touches(self, box: Box, cell: tuple[int, ...]) -> None:
        grown = box.grow_to(cell)
        assert grown.contains(box)
        assert grown.cells(cell) == box.cells(cell)
        assert grown.voxels == box.cells(cell) * np.prod(cell)

    @quick
    @given(four_boxes, four_boxes)
    def test_intersection_is_the_voxels_in_both(self, a: Box, b: Box) -> None:
        common = a.intersect(b)
        assert (voxels(common) if common else set()) == voxels(a) & voxels(b)
        assert a.contains(b) == (voxels(a) >= voxels(b))

    def test_boxes_of_different_axes_do_not_meet(self) -> None:
        with pytest.raises(ValueError, match="zip"):
            self.box.intersect(self.box.space)

    def test_split_has_channels_slowest(self) -> None:
        pieces = [piece.begin for piece in Box((0, 0, 0, 0), (2, 1, 1, 3)).split((1, 1, 1, 2))]
        assert pieces == [(0, 0, 0, 0), (0, 0, 0, 2), (1, 0, 0, 0), (1, 0, 0, 2)]

    def test_names_of_axes(self) -> None:
        assert axis_names(3) == ("z", "y", "x")
        assert axis_names(4) == ("c", "z", "y", "x")


class TestGrid:
    """Voxel i covers ``[i, i + 1) * voxel_size + origin``."""

    @quick
    @given(grids, large_boxes)
    def test_voxels_to_nm_and_back_is_exact(self, grid: Grid, box: Box) -> None:
        assert grid.from_nm(grid.to_nm(box)) == box

    @quick
    @given(sizes, large_boxes)
    def test_six_numbers_mean_those_voxels(self, size: ZyxNm, box: Box) -> None:
        assert Grid((1, 1, 1), size).from_nm(norm_bbox(box.xyz(), "voxel", size)) == box

    @quick
    @given(grids, st.tuples(places, places, places), st.tuples(*[st.floats(0.01, 1e6)] * 3))
    def test_a_box_in_nm_grows_outward_by_less_than_a_voxel(self, grid: Grid, begin: ZyxNm, side: ZyxNm) -> None:
        z, y, x = (a + b for a, b in zip(begin, side, strict=True))
        box = grid.from_nm(NmBox(begin, (z, y, x)))
        axes = zip(begin, (z, y, x), box.begin, box.end, grid.voxel_size_nm, grid.origin_nm, strict=True)
        for low, high, first, last, size, origin in axes:
            slack = Fraction(3e-6 + 1e-15 * (abs(low) + abs(high) + abs(origin)) / size)
            begins, ends = ((Fraction(edge) - Fraction(origin)) / Fraction(size) for edge in (low, high))
            assert first <= begins + slack
            assert last >= ends - slack
            assert begins - first < 1 + slack
            assert last - ends < 1 + slack

    @quick
    @given(grids, large_boxes, st.floats(0.001, 0.999))
    def test_half_a_voxel_more_in_nm_is_one_voxel_more(self, grid: Grid, box: Box, part: float) -> None:
        space = grid.to_nm(box)
        z, y, x = (edge + part * size for edge, size in zip(space.end_nm, grid.voxel_size_nm, strict=True))
        grown = grid.from_nm(NmBox(space.begin_nm, (z, y, x)))
        assert (grown.begin, grown.end) == (box.begin, tuple(edge + 1 for edge in box.end))

    def test_a_box_thinner_than_rounding_still_is_a_voxel(self) -> None:
        grid = Grid((9, 9, 9), (8.0, 8.0, 8.0))
        assert grid.from_nm(NmBox((16.0, 16.0, 16.0), (16.000001, 16.5, 24.0))) == Box((2, 2, 2), (3, 3, 3))

    @pytest.mark.parametrize(("index", "size"), [(5, 3.58), (7, 3.58), (15, 5.24), (49, 5.24), (7, 4 / 3)])
    def test_rounding_adds_no_voxel(self, index: int, size: float) -> None:
        assert index * size / size != index
        box = Box((index, index, index), (index + 1, index + 2, index + 3))
        assert Grid((1, 1, 1), (size, size, size)).from_nm(norm_bbox(box.xyz(), "voxel", (size, size, size))) == box
        z0, y0, x0, z1, y1, x1 = (edge * size for edge in (*box.begin, *box.end))
        nm = norm_bbox((x0, x1, y0, y1, z0, z1), "nm", (size, size, size))
        assert Grid((1, 1, 1), (size, size, size)).from_nm(nm) == box

    def test_extent_begins_at_the_offset(self) -> None:
        assert Grid((2, 3, 4), (1.0, 1.0, 1.0), offset=(10, 20, -30)).extent == Box((10, 20, -30), (12, 23, -26))

    def test_coordinates_are_centres_in_the_order_of_the_axes(self) -> None:
        grid = Grid((4, 5, 6), (40.0, 6.0, 3.58), offset=(1, 0, 0), origin_nm=(100.0, -1.0, 0.0))
        assert grid.centres_nm(Box((1, 0, 2), (3, 1, 5))) == (
            [160.0, 200.0],
            [2.0],
            [2.5 * 3.58, 3.5 * 3.58, 4.5 * 3.58],
        )

    @quick
    @given(grids, boxes(indices, st.integers(1, 4)))
    def test_a_centre_is_in_its_voxel(self, grid: Grid, box: Box) -> None:
        for axis, centres in enumerate(grid.centres_nm(box)):
            assert len(centres) == box.shape[axis]
            for index, centre in enumerate(centres, box.begin[axis]):
                exact = (Fraction(centre) - Fraction(grid.origin_nm[axis])) / Fraction(grid.voxel_size_nm[axis])
                assert abs(exact - index - Fraction(1, 2)) < Fraction(1, 1000)


class TestShift:
    """Two grids that differ by whole voxels share their voxels."""

    @quick
    @given(sizes, st.tuples(*[st.integers(-(10**6), 10**6)] * 3), st.tuples(*[st.floats(-1e6, 1e6)] * 3))
    def test_whole_shift_is_found(self, size: ZyxNm, shift: Zyx, origin: ZyxNm) -> None:
        z, y, x = (o - d * s for o, d, s in zip(origin, shift, size, strict=True))
        one, other = Grid((9, 9, 9), size, origin_nm=origin), Grid((7, 8, 9), size, origin_nm=(z, y, x))
        box = Box((1, 2, 3), (4, 5, 6))
        assert one.shift_to(other).box(box) == box.translate(shift)
        assert other.shift_to(one).box(box.translate(shift)) == box
        assert one.shift_to(other).is_shift

    def test_shift_leads_to_the_same_place(self) -> None:
        one = Grid((9, 9, 9), (40.0, 6.0, 4.0), origin_nm=(400.0, 60.0, 4.0))
        other = Grid((9, 9, 9), (40.0, 6.0, 4.0))
        box = Box((0, 1, 2), (3, 4, 5))
        assert one.shift_to(other).box(box) == box.translate((10, 10, 1))
        assert other.to_nm(one.shift_to(other).box(box)) == one.to_nm(box)

    def test_part_of_a_voxel_is_refused_with_by_how_much(self) -> None:
        one, other = (Grid((9, 9, 9), (40.0, 6.0, 4.0), origin_nm=o) for o in ((20.0, 12.0, 1.0), (0.0, 0.0, 0.0)))
        with pytest.raises(AlignmentError, match=r"0\.25 x 2 x 0\.5 voxels \(x, y, z\)"):
            one.shift_to(other)

    def test_another_voxel_size_is_refused_with_both(self) -> None:
        with pytest.raises(AlignmentError, match=r"3\.58 x 8 x 40 nm against 8 x 8 x 40 nm") as caught:
            Grid((9, 9, 9), (40.0, 8.0, 3.58)).shift_to(Grid((9, 9, 9), (40.0, 8.0, 8.0)))
        assert isinstance(caught.value, ValueError)

    @pytest.mark.parametrize("part", [0.5, 0.25, 1 / 3, 0.001, -0.125, 1e5 + 0.5])
    def test_every_part_of_a_voxel_is_told(self, part: float) -> None:
        one, other = (Grid((9, 9, 9), (40.0, 6.0, 4.0), origin_nm=(0.0, 0.0, o)) for o in (part * 4, 0.0))
        with pytest.raises(AlignmentError, match=f"offset by {part:.10g} x 0 x 0 voxels".replace("+", r"\+")) as caught:
            one.shift_to(other)
        assert "align='nearest'" in str(caught.value)
        assert one.nearest_in(other).is_shift

    def test_a_shift_is_found_through_the_noise_of_floating_point(self) -> None:
        one = Grid((9, 9, 9), (3.58, 3.58, 3.58), origin_nm=(3.58 * 7, 3.58 * 1001, 0.1 * 3 * 3.58 / 0.3))
        shifted = one.shift_to(Grid((9, 9, 9), (3.58, 3.58, 3.58000001)))
        assert shifted.box(Box((0, 0, 0), (1, 1, 1))) == Box((7, 1001, 1), (8, 1002, 2))


RATIOS = [
    (256, 8),
    (8, 256),
    (4, 8),
    (8, 4),
    (24, 8),
    (8, 24),
    (12, 8),
    (8, 12),
    (10, 8),
    (8, 10),
    (8, 8),
    (35, 8),
    (7, 3),
]
"""Voxel sizes in whole nm of a grid and of the one that it is laid on: 32, 1/32, 1/2, 2, 3, 1/3, 3/2, 2/3, ..."""

quarters = st.integers(-(10**6), 10**6).map(lambda n: Fraction(n, 4))


@dataclass(frozen=True)
class Axis:
    """Two lattices along one axis, in exact numbers."""

    size: int
    other: int
    origin: Fraction
    other_origin: Fraction

    def index(self, i: int) -> int:
        """The other lattice's voxel in which the centre of a voxel lies: the upper one, where it lies on a face."""
        centre = (i + Fraction(1, 2)) * self.size + self.origin
        return math.floor((centre - self.other_origin) / self.other)


axes = st.builds(
    lambda sizes, origin, other: Axis(*sizes, origin, other),
    st.sampled_from(RATIOS),
    quarters,
    st.just(Fraction(0)) | quarters,
)
triples = st.tuples(axes, axes, axes)
near_boxes = boxes(st.integers(-(10**4), 10**4), st.integers(1, 40))


def nearest(three: tuple[Axis, Axis, Axis]) -> Alignment:
    """Of two grids with these axes, z first."""

    def grid(sizes: Iterable[int], origins: Iterable[Fraction]) -> Grid:
        z, y, x = map(float, sizes)
        oz, oy, ox = map(float, origins)
        return Grid((9, 9, 9), (z, y, x), origin_nm=(oz, oy, ox))

    return grid([a.size for a in three], [a.origin for a in three]).nearest_in(
        grid([a.other for a in three], [a.other_origin for a in three])
    )


class TestNearest:
    """Each voxel takes the one of the other grid in which its centre lies."""

    @quick
    @given(triples, near_boxes)
    def test_indices_are_those_of_exact_arithmetic(self, three: tuple[Axis, Axis, Axis], box: Box) -> None:
        alignment = nearest(three)
        for i, axis in enumerate(three):
            exact = [axis.index(voxel) for voxel in range(box.begin[i], box.end[i])]
            assert alignment.indices(i, box.begin[i], box.end[i]) == exact

    @quick
    @given(triples, near_boxes)
    def test_box_covers_the_indices_and_no_more(self, three: tuple[Axis, Axis, Axis], box: Box) -> None:
        needed = nearest(three).box(box)
        for i, axis in enumerate(three):
            exact = [axis.index(voxel) for voxel in range(box.begin[i], box.end[i])]
            assert (needed.begin[i], needed.end[i]) == (min(exact), max(exact) + 1)

    @quick
    @given(triples, near_boxes)
    def test_covered_by_is_the_inverse_image(self, three: tuple[Axis, Axis, Axis], extent: Box) -> None:
        covered = nearest(three).covered_by(extent)
        for i, axis in enumerate(three):
            # Around the place where the extent lies, a little further on both sides than it can reach.
            first, last = (self.near(axis, edge) for edge in (extent.begin[i], extent.end[i]))
            inside = [v for v in range(first - 3, last + 4) if extent.begin[i] <= axis.index(v) < extent.end[i]]
            if covered is not None:
                assert inside == list(range(covered.begin[i], covered.end[i]))
            elif not inside:
                return
        assert covered is not None, "every axis has voxels there"

    def near(self, axis: Axis, edge: int) -> int:
        return math.floor((edge * axis.other + axis.other_origin - axis.origin) / axis.size)

    @quick
    @given(triples, near_boxes)
    def test_every_voxel_of_a_covered_box_is_there(self, three: tuple[Axis, Axis, Axis], extent: Box) -> None:
        alignment = nearest(three)
        covered = alignment.covered_by(extent)
        assume(covered is not None)
        assert covered is not None
        assert extent.contains(alignment.box(covered))

    def test_a_region_map_of_256_nm_on_a_grid_of_8_nm(self) -> None:
        fine, coarse = Grid((9, 9, 9), (8.0, 8.0, 8.0)), Grid((3, 3, 3), (256.0, 256.0, 256.0))
        alignment = fine.nearest_in(coarse)
        assert alignment.indices(0, 30, 34) == [0, 0, 1, 1]
        assert alignment.indices(0, -1, 1) == [-1, 0]
        assert alignment.box(Box((0, 31, 32), (32, 33, 33))) == Box((0, 0, 1), (1, 2, 2))
        assert alignment.covered_by(Box((0, 0, 1), (1, 2, 3))) == Box((0, 0, 32), (32, 64, 96))
        assert not alignment.is_shift

    def test_a_thinned_grid_takes_the_upper_of_two_voxels(self) -> None:
        assert Grid((9, 9, 9), (16.0,) * 3).nearest_in(Grid((9, 9, 9), (8.0,) * 3)).indices(2, 0, 3) == [1, 3, 5]

    def test_nothing_is_covered_where_no_centre_lies(self) -> None:
        coarse, fine = Grid((9, 9, 9), (256.0,) * 3), Grid((9, 9, 9), (8.0,) * 3)
        assert coarse.nearest_in(fine).covered_by(Box((0, 0, 0), (16, 16, 16))) is None
        assert coarse.nearest_in(fine).covered_by(Box((0, 0, 0), (17, 17, 17))) == Box((0, 0, 0), (1, 1, 1))

    @quick
    @given(sizes, st.tuples(*[st.integers(-(10**6), 10**6)] * 3), small_boxes)
    def test_of_a_whole_shift_is_the_shift(self, size: ZyxNm, shift: Zyx, box: Box) -> None:
        z, y, x = (-d * s for d, s in zip(shift, size, strict=True))
        one, other = Grid((9, 9, 9), size), Grid((9, 9, 9), size, origin_nm=(z, y, x))
        assert one.nearest_in(other).box(box) == one.shift_to(other).box(box) == box.translate(shift)
        assert one.shift_to(other).covered_by(box.translate(shift)) == box


BOX = Box((4, 2, 0), (7, 5, 1))
FORMS: list[Any] = [
    (0, 1, 2, 5, 4, 7),
    [0, 1, 2, 5, 4, 7],
    (0.0, 1.0, 2, 5, 4, 7),
    np.array([0, 1, 2, 5, 4, 7]),
    np.array([0, 1, 2, 5, 4, 7], np.uint8),
    np.array([0, 1, 2, 5, 4, 7], np.float32),
    list(np.array([0, 1, 2, 5, 4, 7], np.float32)),
    [np.int64(0), np.int8(1), np.uint16(2), 5, 4, 7],
    "0,1,2,5,4,7",
    "0, 1, 2, 5, 4, 7",
    "0 1 2 5 4 7.0",
    {"x": [0, 1], "y": (2, 5), "z": range(4, 10, 3)},
    {"z": [4, 7], "x": np.array([0, 1]), "y": [2, 5]},
]


class TestBboxOfAUser:
    """Loose input becomes a box, or an error that says which number is wrong and what a box looks like."""

    @pytest.mark.parametrize("bbox", FORMS, ids=repr)
    @pytest.mark.parametrize("size", [(8.0, 8.0, 8.0), (40.0, 5.24, 3.58)])
    def test_forms(self, bbox: Any, size: ZyxNm) -> None:
        assert Grid((9, 9, 9), size).from_nm(norm_bbox(bbox, "voxel", size)) == BOX

    @pytest.mark.parametrize("bbox", FORMS, ids=repr)
    def test_the_same_forms_in_nm(self, bbox: Any) -> None:
        assert norm_bbox(bbox, "nm", (8.0, 8.0, 8.0)) == NmBox((4.0, 2.0, 0.0), (7.0, 5.0, 1.0))

    def test_numbers_of_numpy_are_not_kept(self) -> None:
        space = norm_bbox([np.float32(40000), *np.arange(40001, 40006)], "voxel", (3.58, 3.58, 3.58))
        assert all(type(edge) is float for edge in (*space.begin_nm, *space.end_nm))
        assert Grid((1, 1, 1), (3.58, 3.58, 3.58)).from_nm(space).begin[2] == 40000

    def test_negative_numbers_are_places_too(self) -> None:
        assert norm_bbox((-5, -1, -9, 0, -1, 1), "nm", (8.0, 8.0, 8.0)) == NmBox((-1, -9, -5), (1, 0, -1))

    def test_fractions_of_nm_are_kept(self) -> None:
        assert norm_bbox("0.5, 1.25, 0, 1, 0, 1", "nm", (8.0, 8.0, 8.0)).begin_nm == (0.0, 0.0, 0.5)

    @pytest.mark.parametrize(
        ("bbox", "says"),
        [
            ((0, 64, 64, 0, 0, 64), "y runs from 64 to 0"),
            ((0, 64, 0, 64, 5, 5), "empty: z runs from 5 to 5"),
            ((0, 0, 0, 64, 64, 64), "x runs from 0 to 0"),
            ((1, 2, 3, 4, 5), "5 numbers"),
            ((1, 2, 3, 4, 5, 6, 7), "7 numbers"),
            ((), "0 numbers"),
            ("", "0 numbers"),
            (((0, 1), (0, 1), (0, 1)), "3 numbers"),
            (np.zeros((3, 2)), "3 numbers"),
            ((0, "a", 0, 64, 0, 64), "x1='a'"),
            ("0, 64, 0, b, 0, 64", "y1='b'"),
            ((0, "64", 0, 64, 0, 64), "x1='64'"),
            ((float("nan"), 64, 0, 64, 0, 64), "x0=nan"),
            ("0, nan, 0, 64, 0, 64", "x1=nan"),
            ((0, 64, 0, 64, 0, float("inf")), "z1=inf"),
            ((0, 64, -float("inf"), 64, 0, 64), "y0=-inf"),
            ((0, 10**400, 0, 64, 0, 64), "x1=1000"),
            ((0, True, 0, 64, 0, 64), "x1=True"),
            ((0, np.True_, 0, 64, 0, 64), "x1=np.True_"),
            ((0, None, 0, 64, 0, 64), "x1=None"),
            ((0, 1j, 0, 64, 0, 64), "x1=1j"),
            ((0, 64.5, 0, 64, 0, 64), "x1=64.5 is not a whole voxel"),
            ((0, 64, 0, 64, 0.25, 64), "z0=0.25 is not a whole voxel"),
            (None, "bbox=None"),
            (True, "bbox=True"),
            (64, "bbox=64"),
            (np.int64(64), "bbox=np.int64(64)"),
            (np.array(64), "bbox=array(64)"),
            (b"012345", "bbox=b'012345'"),
            ({0, 1, 2, 3, 4, 5}, "bbox={0, 1, 2, 3, 4, 5}"),
            ({"x": [0, 1], "y": [0, 1]}, "the axes 'x', 'y'"),
            ({"x": [0, 1], "y": [0, 1], "z": [0, 1], "t": [0, 1]}, "the axes 'x', 'y', 'z', 't'"),
            ({0: [0, 1], "y": [0, 1], "z": [0, 1]}, "the axes 0, 'y', 'z'"),
            ({}, "the axes none"),
            ({"x": 5, "y": [0, 1], "z": [0, 1]}, "bbox['x']=5"),
            ({"x": "01", "y": [0, 1], "z": [0, 1]}, "bbox['x']='01'"),
            ({"x": [0, 1, 2], "y": [0, 1], "z": [0, 1]}, "bbox['x']=[0, 1, 2]"),
            ({"x": slice(0, 1), "y": [0, 1], "z": [0, 1]}, "bbox['x']=slice"),
            ({"x": [0, 1], "y": [0, 1], "z": [7, 2]}, "z runs from 7 to 2"),
        ],
        ids=repr,
    )
    def test_mistakes(self, bbox: Any, says: str) -> None:
        with pytest.raises(ArgumentError) as caught:
            norm_bbox(bbox, "voxel", (8.0, 8.0, 8.0))
        assert isinstance(caught.value, ValueError)
        assert says in str(caught.value)
        assert ORDER in str(caught.value)

    @pytest.mark.parametrize("units", ["um", "NM", "", None, 8, ["nm"], ("voxel",)])
    def test_unknown_unit(self, units: Any) -> None:
        with pytest.raises(ArgumentError, match="use 'voxel' or 'nm'") as caught:
            norm_bbox((0, 1, 0, 1, 0, 1), units, (8.0, 8.0, 8.0))
        assert repr(units) in str(caught.value)


class TestResolutionOfAUser:
    """A number or three in nm."""

    @pytest.mark.parametrize(
        ("resolution", "zyx"),
        [
            (8, (8.0, 8.0, 8.0)),
            (3.58, (3.58, 3.58, 3.58)),
            (np.int64(16), (16.0, 16.0, 16.0)),
            ((4, 4.5, 40), (40.0, 4.5, 4.0)),
            ([4, 4.5, 40], (40.0, 4.5, 4.0)),
            (np.array([4, 4.5, 40]), (40.0, 4.5, 4.0)),
        ],
        ids=repr,
    )
    def test_forms(self, resolution: Any, zyx: ZyxNm) -> None:
        assert norm_resolution(resolution) == zyx

    @pytest.mark.parametrize(
        "resolution",
        [
            "8",
            "fine",
            None,
            True,
            (8, 8),
            (8, 8, 8, 8),
            0,
            -8,
            float("nan"),
            float("inf"),
            (8, 8, 0),
            (8, "8", 8),
            {8, 9, 1},
        ],
        ids=repr,
    )
    def test_mistakes(self, resolution: Any) -> None:
        with pytest.raises(ArgumentError, match=r"three \(x, y, z\)") as caught:
            norm_resolution(resolution)
        assert repr(resolution) in str(caught.value)

    def test_written_and_read_in_the_users_order(self) -> None:
        assert reverse([4, 5, 40]) == (40.0, 5.0, 4.0)
        assert format_xyz((40.0, 5.24, 4 / 3)) == "1.333333333 x 5.24 x 40"

    def test_same_but_for_floating_point(self) -> None:
        assert same_size((0.1 + 0.2, 8.0, 8.0), (0.3, 8.0, 8.0))
        assert not same_size((8.0, 8.0, 8.001), (8.0, 8.0, 8.0))
