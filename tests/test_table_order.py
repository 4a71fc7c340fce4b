"""How rows are laid out: parts and groups in space that do not overlap, keys in order, nothing lost."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from emcatalog.errors import ArgumentError
from emcatalog.tables import order as module
from emcatalog.tables.order import Cut, Order, Sample, check_order, split

XYZ = ("x", "y", "z")
SPACE = Order(XYZ, in_space=True)
KEYS = Order(("a", "b"), in_space=False)
AS_THEY_CAME = Order((), in_space=False)

coordinates = st.floats(width=32) | st.integers(-3, 3).map(float) | st.just(float("nan"))
points = npst.arrays(np.float32, st.tuples(st.just(3), st.integers(0, 60)), elements=coordinates)


def table(values: Any, names: tuple[str, ...] = XYZ) -> pa.Table:
    """Columns of numbers, null where they are NaN."""
    return pa.table({name: pa.array(column, from_pandas=True) for name, column in zip(names, values, strict=True)})


def uniform(rows: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Places in a volume like that of the male CNS."""
    return np.random.default_rng(seed).integers(0, [[94_088], [77_248], [134_592]], (3, rows))


def boxes(points: Any, groups: Any) -> list[tuple[Any, Any]]:
    return [(points[:, group].min(axis=1), points[:, group].max(axis=1)) for group in groups if len(group)]


def touched(boxes: Any, low: Any, high: Any) -> int:
    """How many boxes have something of another one."""
    return sum(bool((first <= high).all() and (low <= last).all()) for first, last in boxes)


class TestParts:
    @given(points, st.integers(1, 20))
    def test_each_row_is_in_one_part(self, values: Any, parts: int) -> None:
        found = SPACE.points(table(values))
        divided = split(found, Cut.plan(found, parts))
        assert len(divided) <= parts
        assert sorted(np.concatenate(divided).tolist()) == list(range(values.shape[1]))

    @given(points, points, st.integers(1, 20))
    def test_rows_that_were_not_seen_before_have_a_part_too(self, seen: Any, values: Any, parts: int) -> None:
        divided = split(SPACE.points(table(values)), Cut.plan(SPACE.points(table(seen)), parts))
        assert sorted(np.concatenate(divided).tolist()) == list(range(values.shape[1]))

    @given(points, st.integers(1, 20))
    def test_rows_of_a_part_stay_as_they_came(self, values: Any, parts: int) -> None:
        found = SPACE.points(table(values))
        for part in split(found, Cut.plan(found, parts)):
            assert (np.diff(part) > 0).all()

    @pytest.mark.parametrize("parts", [2, 3, 7, 16, 100])
    def test_parts_are_of_about_equal_size(self, parts: int) -> None:
        found = SPACE.points(table(uniform(50_000)))
        sizes = [len(part) for part in split(found, Cut.plan(found[:, ::10], parts))]
        assert len(sizes) == parts
        assert max(sizes) < 1.5 * 50_000 / parts

    def test_parts_in_space_do_not_overlap(self) -> None:
        values = uniform(20_000)
        found = SPACE.points(table(values))
        extents = boxes(values, split(found, Cut.plan(found, 50)))
        middles = [(low + high) / 2 for low, high in extents]
        assert [touched(extents, middle, middle) for middle in middles] == [1] * 50

    def test_a_key_that_is_repeated_is_in_one_part(self) -> None:
        keys = np.repeat([3, 1, 2, 4], [10, 1000, 10, 10])
        found = KEYS.points(table([keys, keys], ("a", "b")))
        parts = split(found, Cut.plan(found, 8))
        assert [set(keys[part].tolist()) for part in parts] == [{1}, {2, 3, 4}]

    def test_one_key_alone_is_one_part(self) -> None:
        found = KEYS.points(table([[7] * 100, [7] * 100], ("a", "b")))
        assert Cut.plan(found, 8) is None

    def test_keys_rise_from_part_to_part(self) -> None:
        keys = np.random.default_rng(1).integers(0, 1 << 62, 5000)
        found = KEYS.points(table([keys, keys], ("a", "b")))
        parts = split(found, Cut.plan(found[:, ::7], 9))
        for before, after in pairwise(parts):
            assert keys[before].max() < keys[after].min()

    def test_without_an_order_there_is_one_part(self) -> None:
        found = AS_THEY_CAME.points(table(uniform(100)))
        sample = Sample(AS_THEY_CAME)
        sample.add(table(uniform(100)).to_batches()[0])
        (part,) = split(found, sample.plan(10))
        assert part.tolist() == list(range(100))


class TestSorting:
    @given(points, st.integers(1, 50))
    def test_in_space_each_row_is_there_once(self, values: Any, group: int) -> None:
        assert sorted(SPACE.sort(table(values), group).tolist()) == list(range(values.shape[1]))

    def test_groups_in_space_do_not_overlap(self) -> None:
        values = uniform(10_000)
        places = SPACE.sort(table(values), 300)
        groups = [places[start : start + 300] for start in range(0, 10_000, 300)]
        extents = boxes(values, groups)
        middles = [(low + high) / 2 for low, high in extents]
        assert [touched(extents, middle, middle) for middle in middles] == [1] * len(groups)

    def test_a_small_box_touches_few_groups(self) -> None:
        values = uniform(200_000)
        places = SPACE.sort(table(values), 1000)
        extents = boxes(values, [places[start : start + 1000] for start in range(0, 200_000, 1000)])
        found = [touched(extents, low, low + 512) for low in uniform(300, seed=1).T]
        assert np.mean(found) < 1.3

    def test_rows_of_a_group_in_space_stay_as_they_came(self) -> None:
        places = SPACE.sort(table(uniform(1000)), 100)
        for start in range(0, 1000, 100):
            assert (np.diff(places[start : start + 100]) > 0).all()

    @given(
        st.lists(st.tuples(st.integers(0, 4) | st.none(), st.integers(0, 2) | st.none()), max_size=50),
        st.integers(1, 9),
    )
    def test_keys_are_sorted_missing_ones_last_and_equal_ones_as_they_came(self, rows: Any, group: int) -> None:
        keys = pa.table({"a": pa.array([a for a, _ in rows], "int64"), "b": pa.array([b for _, b in rows], "int32")})
        expected = sorted(range(len(rows)), key=lambda row: [(key is None, key or 0) for key in rows[row]])
        assert KEYS.sort(keys, group).tolist() == expected

    def test_large_keys_are_told_apart(self) -> None:
        keys = [(1 << 63) + step for step in (5, 3, 4, 1, 2)]
        assert Order(("a",), in_space=False).sort(pa.table({"a": pa.array(keys, "uint64")}), 2).tolist() == [
            3,
            4,
            1,
            2,
            0,
        ]

    def test_without_an_order_rows_stay(self) -> None:
        assert AS_THEY_CAME.sort(table(uniform(10)), 3).tolist() == list(range(10))


class TestSample:
    def test_it_is_evenly_spread_and_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "SAMPLES", 100)
        numbers = pa.table({"a": np.arange(5000)})
        sample = Sample(Order(("a",), in_space=False))
        for batch in numbers.to_batches(max_chunksize=37):
            sample.add(batch)
        assert sample.rows == 5000
        cut = sample.plan(4)
        assert cut is not None
        assert cut.below is not None
        assert cut.above is not None
        assert (cut.below.at, cut.at, cut.above.at) == pytest.approx((1250, 2500, 3750), abs=100)

    def test_a_table_without_rows_is_not_cut(self) -> None:
        sample = Sample(SPACE)
        sample.add(pa.record_batch({name: pa.array([], "int32") for name in XYZ}))
        assert sample.plan(3) is None

    def test_rows_without_a_place_are_not_lost(self) -> None:
        values = uniform(300).astype(float)
        values[0, ::3] = np.nan
        values[:, 1::3] = np.nan
        found = SPACE.points(table(values))
        parts = split(found, Cut.plan(found, 12))
        assert sorted(np.concatenate(parts).tolist()) == list(range(300))


class TestColumnsToOrderBy:
    SCHEMA = pa.schema({"x": pa.int32(), "conf": pa.float32(), "name": pa.string(), "half": pa.float16()})

    def test_numbers_will_do(self) -> None:
        check_order(self.SCHEMA, ["x", "conf"])

    def test_one_that_is_not_there(self) -> None:
        with pytest.raises(ArgumentError, match=r"no column 'cnf' to order by; there are x, conf.*mean 'conf'\?"):
            check_order(self.SCHEMA, ["cnf"])

    @pytest.mark.parametrize("name", ["name", "half"])
    def test_one_that_has_no_order(self, name: str) -> None:
        with pytest.raises(ArgumentError, match=f"column '{name}' holds .*ordered by columns of numbers"):
            check_order(self.SCHEMA, [name])
