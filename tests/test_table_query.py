"""Which rows are wanted: as pandas would choose them, in every form that a caller may write; and what is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emcatalog.errors import ArgumentError
from emcatalog.geometry import norm_bbox
from emcatalog.tables.query import EVERYTHING, Where, norm_columns, norm_where
from tests.test_fetch import assert_clear

ROWS = 60
STATUS = ("Orphan", "Anchor", "Leaves", "Traced")
"""In their order, which is not that of the alphabet."""
NAN = float("nan")


def drawn(seed: int, values: Any, nulls: bool = True) -> list[Any]:
    """Some of the values at random, with or without nulls."""
    rng = np.random.default_rng(seed)
    chosen = [values[index] for index in rng.integers(0, len(values), ROWS)]
    return [None if nulls and rng.random() < 0.2 else value for value in chosen]


def categories(values: Any, kind: pa.DataType) -> pa.Array:
    codes = pa.array([None if value is None else STATUS.index(value) for value in values], kind.index_type)
    return pa.DictionaryArray.from_arrays(codes, pa.array(STATUS, kind.value_type), ordered=kind.ordered)


COLUMNS = {
    "i8": pa.array(drawn(0, range(-128, 128, 17), nulls=False), pa.int8()),
    "i32": pa.array(drawn(1, range(-5, 6)), pa.int32()),
    "i64": pa.array(drawn(2, range(-5, 6), nulls=False), pa.int64()),
    "u8": pa.array(drawn(3, range(0, 256, 15), nulls=False), pa.uint8()),
    "u64": pa.array(drawn(4, [0, 1, 2, 2**40]), pa.uint64()),
    "f32": pa.array(drawn(5, np.float32([0.1, 0.5, 0.7, 1.5, -2, np.inf])), pa.float32()),
    "f64": pa.array(drawn(6, [0.1, 0.5, 0.7, -2.0, math.inf, -math.inf, NAN]), pa.float64()),
    "text": pa.array(drawn(7, ["", "a", "B", "é", "KC"]), pa.string()),
    "large_text": pa.array(drawn(8, ["a", "B"]), pa.large_string()),
    "flag": pa.array(drawn(9, [True, False]), pa.bool_()),
    "sure": pa.array(drawn(10, [True, False], nulls=False), pa.bool_()),
    "kind": categories(drawn(11, STATUS), pa.dictionary(pa.int8(), pa.string())),
    "status": categories(drawn(12, STATUS, nulls=False), pa.dictionary(pa.int16(), pa.large_string(), ordered=True)),
    "nothing": pa.nulls(ROWS),
    "lists": pa.array(drawn(13, [[], [1], [1, 2]]), pa.list_(pa.int64())),
    "half": pa.array(np.linspace(0, 1, ROWS).astype(np.float16)),
    "time": pa.array(drawn(14, range(9)), pa.timestamp("us")),
}
BATCH = pa.record_batch(COLUMNS)
FRAME = BATCH.to_pandas()
NUMBERS = ("i8", "i32", "i64", "u8", "u64", "f32", "f64")
TEXTS = ("text", "large_text", "kind", "status")
FLAGS = ("flag", "sure")


def where(conditions: Mapping[str, Any], box: Any = None, axes: Any = None, size: Any = (1.0, 1.0, 1.0)) -> Where:
    return norm_where(conditions, box, axes, size, BATCH.schema)


def chosen(conditions: Mapping[str, Any], **box: Any) -> list[int]:
    """Rows that are wanted."""
    found = where(conditions, **box)
    rows: list[int] = found.rows(BATCH.select(list(found.columns))).to_pylist()
    assert np.flatnonzero(found.mask(BATCH).fill_null(fill_value=False)).tolist() == rows
    return rows


def rows_of(mask: Any) -> list[int]:
    return np.flatnonzero(np.asarray(mask, bool)).tolist()


COMPARED = {
    "==": lambda column, value: column == value,
    "!=": lambda column, value: (column != value) & column.notna(),
    "<": lambda column, value: column < value,
    "<=": lambda column, value: column <= value,
    ">": lambda column, value: column > value,
    ">=": lambda column, value: column >= value,
}
WHOLE_NUMBERS = st.one_of(
    st.integers(-7, 7), st.integers(-200, 300), st.sampled_from([2**40, 2**63, -(2**63) - 1, 2**70])
)
ANY_NUMBERS = st.one_of(
    WHOLE_NUMBERS,
    st.sampled_from([0.1, 0.5, 0.7, 1.5, -2.0, 2.0, math.inf, -math.inf, 255.5, 1e300]),
    st.floats(-10, 10),
)
SCALARS = {
    **dict.fromkeys(NUMBERS, ANY_NUMBERS),
    **dict.fromkeys(TEXTS, st.sampled_from([*STATUS, "", "a", "B", "é", "KC", "not there"])),
    **dict.fromkeys(FLAGS, st.booleans()),
}


@st.composite
def terms(draw: Any, name: str) -> tuple[Any, Any]:
    """What a caller may ask of one column, and which rows pandas gives."""
    column, scalars = FRAME[name], SCALARS[name]
    form = draw(st.sampled_from(["one", "some", "none", "compared"]))
    if form == "none":
        return None, column.isna()
    if form == "one":
        value = draw(scalars)
        return value, column == value
    if form == "some":
        values = draw(st.lists(st.one_of(st.none(), scalars), max_size=4))
        return values, pd.concat(
            [column.isna() if value is None else column == value for value in values] or [column.isna() & False], axis=1
        ).any(axis=1)
    comparisons = draw(
        st.lists(st.sampled_from([*COMPARED][: None if name in NUMBERS else 2]), min_size=1, unique=True)
    )
    wanted = {comparison: draw(scalars) for comparison in comparisons}
    masks = [COMPARED[comparison](column, value) for comparison, value in wanted.items()]
    return wanted, pd.concat(masks, axis=1).all(axis=1)


@st.composite
def filters(draw: Any) -> tuple[dict[str, Any], list[int]]:
    """A filter of some columns, and which rows pandas gives."""
    names = draw(st.lists(st.sampled_from([*SCALARS]), min_size=1, max_size=3, unique=True))
    parts = {name: draw(terms(name)) for name in names}
    mask = np.logical_and.reduce([np.asarray(mask.fillna(False), bool) for _, mask in parts.values()])
    return {name: wanted for name, (wanted, _) in parts.items()}, rows_of(mask)


class TestFilters:
    """Rows that pandas gives, too; but for those without a value, which differ from nothing."""

    @pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # of 1e300 in single precision, by pandas
    @given(filters())
    def test_as_pandas(self, drawn_filter: tuple[dict[str, Any], list[int]]) -> None:
        conditions, expected = drawn_filter
        assert chosen(conditions) == expected

    @pytest.mark.filterwarnings("ignore:overflow encountered in cast")
    @given(filters())
    def test_what_is_known_of_wanted_rows_is_true(self, drawn_filter: tuple[dict[str, Any], list[int]]) -> None:
        """So that no part of a table is left out that has some."""
        conditions, expected = drawn_filter
        found = where(conditions)
        for name in found.bounds:
            for value in BATCH.column(name).take(pa.array(expected, pa.int64())).to_pylist():
                assert found.may_hold(name, value, value)
                assert found.may_hold(name, value - 1, value + 1)

    @pytest.mark.parametrize("name", COLUMNS)
    def test_rows_without_a_value(self, name: str) -> None:
        missing = rows_of(FRAME[name].isna())
        for nothing in (None, NAN, np.float32("nan"), pd.NA, pd.NaT, np.datetime64("NaT")):
            assert chosen({name: nothing}) == chosen({name: {"==": nothing}}) == chosen({name: [nothing]}) == missing
            assert chosen({name: {"!=": nothing}}) == rows_of(FRAME[name].notna())

    @pytest.mark.parametrize("name", COLUMNS)
    def test_none_of_no_values(self, name: str) -> None:
        for empty in ([], (), set(), np.array([]), pd.Series([], dtype=object), range(0)):
            assert chosen({name: empty}) == []

    @pytest.mark.parametrize("name", SCALARS)
    def test_of_several_columns_all_hold(self, name: str) -> None:
        value = next(value for value in BATCH.column(name).to_pylist() if value is not None and value == value)
        one, other = chosen({name: value}), chosen({"sure": True})
        assert chosen({name: value, "sure": True} if name != "sure" else {name: True}) == sorted(
            set(one) & set(other) if name != "sure" else other
        )

    def test_no_filter(self) -> None:
        assert where({}) == EVERYTHING
        assert EVERYTHING.columns == ()

    def test_columns_are_in_the_order_of_the_table(self) -> None:
        assert where({"text": "a", "i8": 1, "f32": 1}).columns == ("i8", "f32", "text")

    def test_bounds_are_the_tightest(self) -> None:
        found = where({"i32": {">": -3, ">=": -2, "<": 4.5, "!=": 0}, "f64": [0.5, 1], "u8": [3, None], "text": "a"})
        assert found.bounds == {"i32": (-2, 5), "f64": (0.5, 1.0)}

    def test_a_category_that_is_null_itself(self) -> None:
        column = pa.DictionaryArray.from_arrays(pa.array([0, 1, None], pa.int8()), pa.array(["a", None]))
        batch = pa.record_batch({"c": column})
        for condition, expected in (
            (None, [1, 2]),
            ("a", [0]),
            ({"!=": "b"}, [0]),
            ({"!=": None}, [0]),
            ([None, "a"], [0, 1, 2]),
        ):
            found = norm_where({"c": condition}, None, None, (1, 1, 1), batch.schema)
            assert found.rows(batch).to_pylist() == expected


LISTS: list[Any] = [
    [1, 3], (1, 3), {1, 3}, frozenset({1, 3}), range(1, 4, 2), {1: "a", 3: "b"}.keys(), [1.0, 3.0], [3, 1, 1],
    [1, 3, 1000000], [1, 3, 2.5], [np.int64(1), np.uint8(3)], [Fraction(1), Fraction(3)],
    np.array([1, 3]), np.array([1, 3], np.uint64), np.array([1.0, 3.0], np.float32), np.array([1, 3], object),
    pd.Series([1, 3], index=[7, 9]), pd.Series([1, 3], dtype="Int64"), pd.Index([1, 3]),
    pa.array([1, 3]), pa.chunked_array([[1], [3]]),
]  # fmt: skip
WORDS: list[Any] = [
    ["a", "B"], ("a", "B"), {"a", "B"}, [np.str_("a"), "B"], np.array(["a", "B"]), np.array(["a", "B"], object),
    pd.Series(["a", "B"]), pd.Series(["a", "B"], dtype="category"), pd.Index(["a", "B"]), pa.array(["a", "B"]),
]  # fmt: skip


class TestValues:
    """What counts as one value, and what as several."""

    @pytest.mark.parametrize("values", LISTS, ids=lambda value: type(value).__name__)
    @pytest.mark.parametrize("name", ["i8", "i32", "i64", "u8", "u64", "f64"])
    def test_lists_of_numbers(self, name: str, values: Any) -> None:
        assert chosen({name: values}) == rows_of(FRAME[name].isin([1, 3]))

    @pytest.mark.parametrize("values", WORDS, ids=lambda value: type(value).__name__)
    @pytest.mark.parametrize("name", ["text", "large_text"])
    def test_lists_of_text(self, name: str, values: Any) -> None:
        assert chosen({name: values}) == rows_of(FRAME[name].isin(["a", "B"]))

    def test_a_column_of_another_table_with_gaps(self) -> None:
        expected = rows_of(FRAME["text"].isna() | (FRAME["text"] == "a"))
        for values in (
            pd.Series(["a", None]),
            pd.Series(["a", None], dtype=object),
            pd.Series(["a", pd.NA], dtype="string"),
        ):
            assert chosen({"text": values}) == expected
        assert chosen({"i32": pd.Series([3, None])}) == rows_of(FRAME["i32"].isna() | (FRAME["i32"] == 3))

    @pytest.mark.parametrize(
        "value", [1, 1.0, np.int8(1), np.uint64(1), np.float32(1), np.float64(1), Fraction(1)], ids=repr
    )
    def test_scalars(self, value: Any) -> None:
        assert chosen({"i64": value}) == rows_of(FRAME["i64"] == 1)
        assert chosen({"i64": {">=": value}}) == rows_of(FRAME["i64"] >= 1)
        assert chosen({"f64": {"<": value}}) == rows_of(FRAME["f64"] < 1)

    @pytest.mark.parametrize("value", [True, np.True_], ids=repr)
    def test_flags(self, value: Any) -> None:
        assert chosen({"flag": value}) == chosen({"flag": [value]}) == rows_of(FRAME["flag"] == True)  # noqa: E712

    def test_text_is_one_value(self) -> None:
        assert chosen({"text": "KC"}) == rows_of(FRAME["text"] == "KC")
        assert chosen({"text": ""}) == rows_of(FRAME["text"] == "")

    def test_numbers_that_a_float_does_not_hold(self) -> None:
        """2**53 + 1 is not 2**53, whoever asks."""
        batch = pa.record_batch({"id": pa.array([2**53, 2**53 + 1, 2**53 + 2, 2**63 - 1], pa.int64())})
        one = 2**53 + 1
        for wanted, expected in [
            (one, [1]), (np.int64(one), [1]), ([np.uint64(one)], [1]), (pa.array([one]), [1]), (2.0**53, [0]),
            ({">": np.int64(2**53)}, [1, 2, 3]), ({">=": np.int64(one)}, [1, 2, 3]), ({"<": np.int64(one)}, [0]),
            ({"<=": np.uint64(one)}, [0, 1]), ({"!=": np.int64(one)}, [0, 2, 3]), ({">": 2**63 - 1}, []),
            ({"<": 2**63}, [0, 1, 2, 3]), (10**400, []), ({"<": 10**400}, [0, 1, 2, 3]), ({">": 10**400}, []),
        ]:  # fmt: skip
            found = norm_where({"id": wanted}, None, None, (1, 1, 1), batch.schema)
            assert found.rows(batch).to_pylist() == expected, wanted

    def test_floats_of_either_width(self) -> None:
        """0.7 in single precision is less than 0.7 in double precision; who asks for 0.7 means both."""
        for kind in (pa.float32(), pa.float64()):
            batch = pa.record_batch({"conf": pa.array([0.5, 0.7, 0.9], kind)})
            for wanted, expected in [
                (0.7, [1]), ([0.7], [1]), ({">=": 0.7}, [1, 2]), ({"<=": 0.7}, [0, 1]), ({">": 0.7}, [2]),
                ({"!=": 0.7}, [0, 2]), (10**400, []), ({"<": 10**400}, [0, 1, 2]), ({">": -(10**400)}, [0, 1, 2]),
                ({"<": math.inf}, [0, 1, 2]), ({">": -math.inf}, [0, 1, 2]),
            ]:  # fmt: skip
                found = norm_where({"conf": wanted}, None, None, (1, 1, 1), batch.schema)
                assert found.rows(batch).to_pylist() == expected
                for row in expected if found.bounds else ():
                    value = batch.column("conf")[row].as_py()
                    assert found.may_hold("conf", value, value)


# --- boxes


EDGES = st.integers(-20, 20)
SIZES = st.sampled_from([1.0, 8.0, 3.58, 0.1, 16.0, 40.0])


@st.composite
def boxes(draw: Any) -> tuple[int, ...]:
    return tuple(edge for _ in "xyz" for edge in sorted(draw(st.lists(EDGES, min_size=2, max_size=2, unique=True))))


PLACES = np.random.default_rng(20).integers(-20, 20, (500, 3))


def points(kind: pa.DataType, size: float = 1.0) -> pa.RecordBatch:
    return pa.record_batch({name: pa.array(PLACES[:, axis] * size).cast(kind) for axis, name in enumerate("xyz")})


def within(places: Any, begin: Any, end: Any) -> Any:
    return np.all((places >= begin) & (places < end), axis=1)


def inside(batch: pa.RecordBatch, bbox: Any, units: str, size: tuple[float, float, float]) -> list[int]:
    box = norm_bbox(bbox, units, size[::-1])
    rows: list[int] = norm_where({}, box, ("x", "y", "z"), size, batch.schema).rows(batch).to_pylist()
    return rows


class TestBoxes:
    """Half-open, as those of volumes."""

    @given(
        boxes(), st.tuples(SIZES, SIZES, SIZES), st.sampled_from([pa.int32(), pa.int64(), pa.float32(), pa.float64()])
    )
    def test_of_voxels(self, bbox: tuple[int, ...], size: tuple[float, float, float], kind: pa.DataType) -> None:
        begin, end = np.array(bbox[::2]), np.array(bbox[1::2])
        assert inside(points(kind), bbox, "voxel", size) == rows_of(within(PLACES, begin, end))

    @given(boxes(), st.tuples(*[st.integers(1, 9)] * 3))
    def test_of_nm_has_every_voxel_that_it_touches(self, bbox: tuple[int, ...], size: tuple[int, int, int]) -> None:
        """As a volume in the same box: a point stands for its voxel."""
        begin, end = np.array(bbox[::2]), np.array(bbox[1::2])
        touched = ((PLACES + 1) * size > begin) & (PLACES * size < end)
        assert inside(points(pa.int32()), bbox, "nm", (*map(float, size),)) == rows_of(touched.all(axis=1))

    @given(boxes(), st.sampled_from([0.5, 0.25]))
    def test_of_places_between_voxels(self, bbox: tuple[int, ...], step: float) -> None:
        begin, end = np.array(bbox[::2]), np.array(bbox[1::2])
        expected = rows_of(within(PLACES * step, begin, end))
        assert inside(points(pa.float64(), step), bbox, "voxel", (8.0, 8.0, 8.0)) == expected
        assert inside(points(pa.float64(), step), np.multiply(bbox, 8), "nm", (8.0, 8.0, 8.0)) == expected

    def test_with_a_filter(self) -> None:
        box = norm_bbox((-3, 3, -3, 3, 0, 200), "voxel", (1, 1, 1))
        expected = (
            FRAME["i32"].between(-3, 2)
            & FRAME["i64"].between(-3, 2)
            & FRAME["u8"].between(0, 199)
            & (FRAME["text"] == "a")
        )
        assert chosen({"text": "a"}, box=box, axes=("i32", "i64", "u8")) == rows_of(expected)

    def test_bounds(self) -> None:
        box = norm_bbox((-3, 3, 0, 9, 10, 20), "voxel", (8, 8, 8))
        found = where({"i32": {">=": 0}}, box, ("i32", "i64", "f32"), (8.0, 8.0, 8.0))
        assert found.bounds == {"i32": (0, 3), "i64": (0, 9), "f32": (10.0, 20.0)}

    def test_beyond_what_a_type_holds(self) -> None:
        box = norm_bbox((-1000, 1000, -1000, 1000, -1000, 1000), "voxel", (1, 1, 1))
        assert chosen({}, box=box, axes=("i8", "u8", "i64")) == list(range(ROWS))
        box = norm_bbox((500, 1000, -1000, 1000, -1000, 1000), "voxel", (1, 1, 1))
        assert chosen({}, box=box, axes=("i8", "u8", "i64")) == []

    @pytest.mark.parametrize("name", ["text", "status", "flag", "lists"])
    def test_columns_that_are_no_coordinates(self, name: str) -> None:
        box = norm_bbox((0, 1, 0, 1, 0, 1), "voxel", (1, 1, 1))
        with pytest.raises(ArgumentError) as caught:
            where({}, box, ("i8", "i32", name))
        assert_clear(caught.value, ValueError, f"coordinates: {name} holds", "a bbox needs numbers")

    def test_coordinates_that_are_not_there(self) -> None:
        box = norm_bbox((0, 1, 0, 1, 0, 1), "voxel", (1, 1, 1))
        with pytest.raises(ArgumentError, match=r"coordinates: there is no column 'i33'.*Did you mean 'i32'\?"):
            where({}, box, ("i8", "i33", "i64"))


# --- what is refused


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"i32": "7"}, "i32 holds int32; '7' cannot be compared with it"),
    ({"i32": True}, "i32 holds int32; True cannot be compared with it"),
    ({"i32": [1, np.False_]}, "i32 holds int32"),
    ({"i32": [1, "a"]}, "i32 holds int32; 'a' cannot be compared with it"),
    ({"i32": [[1]]}, "i32 holds int32; [1] cannot be compared with it"),
    ({"i32": np.zeros((2, 2))}, "i32 holds int32"),
    ({"i32": np.array(3)}, "i32 holds int32"),
    ({"i32": b"7"}, "i32 holds int32; b'7' cannot be compared with it"),
    ({"i32": 1j}, "i32 holds int32; 1j cannot be compared with it"),
    ({"i32": {">=": "7"}}, "i32 holds int32, and >= compares numbers; '7' cannot be compared with it"),
    ({"i32": {">=": None}}, "and >= compares numbers; None cannot be compared with it"),
    ({"i32": {">=": NAN}}, "and >= compares numbers; nan cannot be compared with it"),
    ({"i32": {">": [1, 2]}}, "and > compares numbers; [1, 2] cannot be compared with it"),
    ({"i32": {"==": [1, 2]}}, "i32 holds int32; [1, 2] cannot be compared with it"),
    ({"f32": "0.7"}, "f32 holds float; '0.7' cannot be compared with it"),
    ({"f32": False}, "f32 holds float; False cannot be compared with it"),
    ({"text": 7}, "text holds text; 7 cannot be compared with it"),
    ({"text": b"a"}, "text holds text; b'a' cannot be compared with it"),
    ({"large_text": ["a", 7]}, "large_text holds text; 7 cannot be compared with it"),
    ({"text": {"<": "b"}}, "text holds text, and < compares numbers; 'b' cannot be compared with it"),
    ({"kind": 3}, "kind holds text; 3 cannot be compared with it"),
    ({"status": {">=": "Leaves"}}, "status holds text, and >= compares numbers"),
    ({"flag": 1}, "flag holds bool; 1 cannot be compared with it"),
    ({"flag": "true"}, "flag holds bool; 'true' cannot be compared with it"),
    ({"flag": {">": 0}}, "flag holds bool, and > compares numbers"),
    ({"lists": 1}, "lists holds list<item: int64>; 1 cannot be compared with it"),
    ({"lists": [[1, 2]]}, "lists holds list<item: int64>; [1, 2] cannot be compared with it"),
    ({"half": 0.5}, "half holds halffloat; 0.5 cannot be compared with it"),
    ({"half": {"<": 0.5}}, "half holds halffloat, and < compares numbers"),
    ({"time": 3}, "time holds timestamp[us]; 3 cannot be compared with it"),
    ({"nothing": 3}, "nothing holds null; 3 cannot be compared with it"),
    ({"i32": {}}, "i32: {} is no mapping of comparisons; there are ==, !=, >, >=, <, <=, as in {'>=': 0.7}"),
    ({"i32": {"=>": 1}}, "i32: {'=>': 1} is no mapping of comparisons"),
    ({"i32": {">": 1, "and": 2}}, "is no mapping of comparisons"),
    ({"i32": {1: 2}}, "is no mapping of comparisons"),
    ({"i32": iter([1, 2])}, "can be gone through once only; give a list"),
    ({"i32": (number for number in (1, 2))}, "can be gone through once only; give a list"),
    ({"i33": 1}, "filter: there is no column 'i33'; there are i8, i32,"),
    ({"Status": 1}, "Did you mean 'status'?"),
]  # fmt: skip


class TestRefused:
    """The message says what the column holds, and what was given."""

    @pytest.mark.parametrize(("conditions", "words"), REFUSED, ids=range(len(REFUSED)))
    def test_filters(self, conditions: dict[str, Any], words: str) -> None:
        with pytest.raises(ArgumentError) as caught:
            where(conditions)
        assert_clear(caught.value, ValueError, "filter: ", words)

    def test_long_values_are_cut(self) -> None:
        with pytest.raises(ArgumentError) as caught:
            where({"i32": ["a" * 1000]})
        assert len(str(caught.value)) < 250

    @pytest.mark.parametrize(("name", "near"), [("i33", "i32"), ("Status", "status"), ("large-text", "large_text")])
    def test_columns_that_are_not_there(self, name: str, near: str) -> None:
        with pytest.raises(ArgumentError) as caught:
            norm_columns(["i8", name], BATCH.schema)
        known = ", ".join(BATCH.schema.names)
        assert_clear(
            caught.value,
            ValueError,
            f"columns: there is no column {name!r}; there are {known}",
            f"Did you mean {near!r}?",
        )

    def test_columns_that_are_like_no_other(self) -> None:
        with pytest.raises(ArgumentError) as caught:
            norm_columns(["zzzzzz"], BATCH.schema)
        assert "Did you mean" not in str(caught.value)

    def test_columns(self) -> None:
        assert norm_columns(None, BATCH.schema) == BATCH.schema.names
        assert norm_columns(("text", "i8"), BATCH.schema) == ["text", "i8"]
