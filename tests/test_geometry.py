"""Boxes and grids: what a user means by six numbers, to the voxel."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emcatalog.errors import AlignmentError, ArgumentError
from emcatalog.geometry import (
    Box,
    Grid,
    NmBox,
    Zyx,
    ZyxNm,
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
