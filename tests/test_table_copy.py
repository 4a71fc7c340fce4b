"""The local copy of a table: the same answers as the file, whole or not at all, damage told."""

from __future__ import annotations

import json
import operator
import os
import pickle
import shutil
import tempfile
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pyarrow import feather, ipc

from emcatalog.errors import ArgumentError, CacheCorruptError, CacheError
from emcatalog.tables import copying, order, spilling
from emcatalog.tables.copy import TableCopy, open_copy
from emcatalog.tables.copy_form import ROW
from emcatalog.tables.copying import write_copy
from emcatalog.tables.local import open_local
from emcatalog.tables.query import Where, norm_where
from tests.replica.table_columns import NAMES
from tests.replica.tables import build_tables, spoil

XYZ = ("x", "y", "z")
ABOUT = {"url": "gs://bucket/points.feather", "nbytes": 12, "md5": None, "version": "7"}
ORDERS: Mapping[str, tuple[tuple[str, str, str] | None, tuple[str, ...]]] = {
    "synapse_points": (XYZ, ()),
    "synapse_partners": (("x_pre", "y_pre", "z_pre"), ()),
    "tbar_neurotransmitters": (XYZ, ()),
    "connectome_weights": (None, ("body_pre", "body_post")),
    "body_annotations": (None, ("bodyId",)),
    "body_neurotransmitters": (None, ("body",)),
    "body_stats": (None, ()),
}
"""Coordinates, or keys."""


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of small tables have many parts, each of several row groups."""
    set_small_parts(monkeypatch)


def set_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "GROUP_ROWS", 16)
    monkeypatch.setattr(copying, "_GROUPS", (2, 4))
    monkeypatch.setattr(spilling, "PENDING_BYTES", 5000)
    monkeypatch.setattr(spilling, "SLICE_ROWS", 50)
    monkeypatch.setattr(order, "SAMPLES", 2000)


def copy_of(table: pa.Table | pd.DataFrame, folder: Path, batch: int = 100, **options: Any) -> TableCopy:
    """Write a table as Feather, and a copy of it."""
    source = folder / "table.feather"
    folder.mkdir(parents=True, exist_ok=True)
    feather.write_feather(table, source, chunksize=batch)
    write_copy(open_local(source), folder / "table.parquet", about=ABOUT, **options)
    return open_copy(folder / "table.parquet")


def where(schema: pa.Schema, **conditions: Any) -> Where:
    return norm_where(conditions, None, None, (8, 8, 8), schema)


def assert_same(found: pa.Table, expected: pa.Table) -> None:
    """Also of categories, their order and their codes, and of what pandas wrote."""
    assert found.schema.equals(expected.schema, check_metadata=True)
    pd.testing.assert_frame_equal(found.to_pandas(), expected.to_pandas())
    for name in expected.column_names:
        found.column(name).validate(full=True)
        if pa.types.is_dictionary(expected.schema.field(name).type) and expected.num_rows:
            for chunk in found.column(name).chunks:
                assert chunk.dictionary.equals(expected.column(name).chunk(0).dictionary)


def points(rows: int, seed: int = 0) -> pd.DataFrame:
    """Synapses, in the manner of the published table."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(random.integers(0, [134_592, 77_248, 94_088], (rows, 3), dtype=np.int32), columns=list("zyx"))
    frame["kind"] = pd.Categorical.from_codes(random.integers(0, 2, rows), ["PreSyn", "PostSyn"])
    frame["conf"] = random.random(rows, dtype=np.float32)
    frame["body"] = random.integers(10_000, 1 << 40, rows)
    return frame.set_index(pd.Index(random.permutation(rows).astype(np.uint64), name="point_id"))


def box_of(copy: TableCopy, begin: tuple[int, ...], end: tuple[int, ...]) -> Where:
    conditions = {name: {">=": a, "<": b} for name, a, b in zip(XYZ, begin, end, strict=True)}
    return where(copy.schema, **conditions)


def in_box(frame: pd.DataFrame, begin: tuple[int, ...], end: tuple[int, ...]) -> pd.DataFrame:
    inside = [frame[name].between(a, b, inclusive="left") for name, a, b in zip(XYZ, begin, end, strict=True)]
    return frame[inside[0] & inside[1] & inside[2]]


MIDDLE = ((20_000, 10_000, 30_000), (70_000, 60_000, 90_000))


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """The tables of male CNS in miniature."""
    return build_tables(tmp_path_factory.mktemp("bucket"), 3000, versions=["v1.0"])


class TestPublishedTables:
    """Every table of male CNS, with the columns and types that it has there."""

    @pytest.fixture(params=NAMES)
    def both(
        self, request: pytest.FixtureRequest, paths: Any, tmp_path: Path, small_parts: None
    ) -> tuple[Path, TableCopy]:
        source, (coordinates, order_by) = paths["v1.0", request.param], ORDERS[request.param]
        folder = tmp_path / "copy.parquet"
        write_copy(open_local(source), folder, coordinates=coordinates, order_by=order_by, about=ABOUT)
        return source, open_copy(folder)

    def test_it_is_what_pandas_reads(self, both: tuple[Path, TableCopy]) -> None:
        source, copy = both
        assert copy.parts > 1
        assert copy.rows == len(pd.read_feather(source))
        pd.testing.assert_frame_equal(copy.read().to_pandas(), pd.read_feather(source))
        assert_same(copy.read(), feather.read_table(source))

    def test_of_some_columns_and_rows_too(self, both: tuple[Path, TableCopy]) -> None:
        source, copy = both
        whole = feather.read_table(source)
        key = next(name for name in ("body", "bodyId", "body_pre") if name in whole.column_names)
        wanted = np.unique(whole.column(key).to_numpy())[::3]
        found = copy.read(whole.column_names[::-2], where(copy.schema, **{key: wanted}))
        expected = whole.filter(pa.compute.field(key).isin(wanted)).select(whole.column_names[::-2])
        assert 0 < expected.num_rows < whole.num_rows
        assert_same(found, expected)


# --- any table


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


COLUMNS: Mapping[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "x": (pa.int32(), maybe(st.integers(-5, 5) | st.integers(-(1 << 31), (1 << 31) - 1))),
    "y": (pa.float32(), maybe(st.integers(-4, 4).map(float) | st.floats(width=32))),
    "z": (pa.float64(), maybe(st.floats())),
    "id": (pa.uint64(), maybe(st.integers(0, (1 << 64) - 1))),
    "code": (pa.int8(), st.integers(-128, 127)),
    "text": (pa.string(), maybe(st.text(max_size=3))),
    "large": (pa.large_string(), maybe(st.sampled_from(["a", "b"]))),
    "flag": (pa.bool_(), maybe(st.booleans())),
    "place": (pa.list_(pa.int64()), maybe(st.lists(maybe(st.integers(0, 9)), max_size=3))),
    "nested": (pa.struct({"a": pa.int16(), "b": pa.list_(pa.string())}), maybe(st.just({"a": 1, "b": ["c", None]}))),
    "day": (pa.timestamp("s", "UTC"), maybe(st.integers(0, 1 << 33))),
    "half": (pa.float16(), maybe(st.floats(width=16))),
    "bytes": (pa.binary(), maybe(st.binary(max_size=2))),
    "nothing": (pa.null(), st.none()),
}
CATEGORIES: Mapping[str, pa.DictionaryType] = {
    "kind": pa.dictionary(pa.int8(), pa.string()),
    "status": pa.dictionary(pa.int16(), pa.string(), ordered=True),
    "number": pa.dictionary(pa.int8(), pa.int64()),
    "wide": pa.dictionary(pa.int32(), pa.large_string()),
}


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    rows = draw(st.integers(0, 120))
    # A few rows are drawn, and repeated in any order: it is quicker, and there are equal keys.
    places = np.random.default_rng(draw(st.integers(0, 99))).integers(0, max(1, rows // 4), rows)
    found: dict[str, pa.Array] = {}
    for name, (kind, values) in COLUMNS.items():
        drawn = draw(st.lists(values, min_size=max(1, rows // 4), max_size=max(1, rows // 4)))
        found[name] = pa.array(drawn, kind).take(pa.array(places))
    for name, kind in CATEGORIES.items():
        texts = pa.types.is_integer(kind.value_type)
        known = draw(st.lists(st.integers(0, 9) if texts else st.text(max_size=2), max_size=5, unique=True))
        codes = draw(st.lists(maybe(st.integers(0, len(known) - 1)) if known else st.none(), min_size=1, max_size=9))
        indices = pa.array(codes, kind.index_type).take(pa.array(places % len(codes)))
        dictionary = pa.array(known, kind.value_type)
        found[name] = pa.DictionaryArray.from_arrays(indices, dictionary, ordered=kind.ordered)
    return pa.table(found)


COMPARISONS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
ORDERINGS = st.sampled_from([{}, {"coordinates": XYZ}, {"order_by": ("id",)}, {"order_by": ("code", "z", "x")}])
ENDS = st.integers(-5, 5) | st.sampled_from([-(1 << 40), 1 << 40, 0.5, -0.1])
RANGES = st.dictionaries(st.sampled_from(list(COMPARISONS)), ENDS, min_size=1, max_size=2)
CONDITIONS = st.fixed_dictionaries({}, optional={"x": RANGES, "y": RANGES, "z": RANGES, "id": RANGES, "code": RANGES})


def rows_that_hold(table: pa.Table, conditions: Mapping[str, Mapping[str, float]]) -> list[int]:
    """Row by row, in Python."""
    rows = set(range(table.num_rows))
    for name, (comparison, end) in ((name, item) for name, each in conditions.items() for item in each.items()):
        bound = float(np.float32(end)) if name == "y" else end
        holds = COMPARISONS[comparison]
        values = table.column(name).to_pylist()
        rows &= {row for row, value in enumerate(values) if value is not None and holds(value, bound)}
    return sorted(rows)


@given(tables(), ORDERINGS, CONDITIONS, st.integers(1, 50), st.permutations([*COLUMNS, *CATEGORIES]))
@hypothesis_settings(max_examples=60)
def test_any_table_gives_the_same_answers(
    table: pa.Table, ordering: Any, conditions: Any, batch: int, names: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as monkeypatch:
        set_small_parts(monkeypatch)
        copy = copy_of(table, Path(folder), batch, **ordering)
        table = feather.read_table(Path(folder) / "table.feather")  # of no rows, Feather forgets the categories
        assert_same(copy.read(), table)
        expected = table.take(pa.array(rows_that_hold(table, conditions), "int64"))
        assert_same(copy.read(names[:4], where(table.schema, **conditions)), expected.select(names[:4]))
        assert list(copy.damage()) == []


class TestReading:
    @pytest.fixture
    def frame(self) -> pd.DataFrame:
        return points(3000)

    @pytest.fixture
    def copy(self, frame: pd.DataFrame, tmp_path: Path, small_parts: None) -> TableCopy:
        copy = copy_of(frame, tmp_path, coordinates=XYZ)
        assert copy.parts > 20
        return copy

    def test_a_box_in_the_order_of_the_source(self, copy: TableCopy, frame: pd.DataFrame) -> None:
        expected = in_box(frame, *MIDDLE)
        assert 0 < len(expected) < len(frame)
        pd.testing.assert_frame_equal(copy.read(where=box_of(copy, *MIDDLE)).to_pandas(), expected)

    def test_columns_that_only_the_filter_needs_are_not_given(self, copy: TableCopy, frame: pd.DataFrame) -> None:
        found = copy.read(["conf", "kind"], box_of(copy, *MIDDLE))
        assert found.column_names == ["conf", "kind"]
        expected = in_box(frame, *MIDDLE)[["conf", "kind"]].reset_index(drop=True)
        pd.testing.assert_frame_equal(found.to_pandas(), expected)

    def test_by_category(self, copy: TableCopy, frame: pd.DataFrame) -> None:
        found = copy.read(where=where(copy.schema, kind="PreSyn", conf={">": 0.9})).to_pandas()
        pd.testing.assert_frame_equal(found, frame[(frame.kind == "PreSyn") & (frame.conf > np.float32(0.9))])

    def test_a_column_twice(self, copy: TableCopy, frame: pd.DataFrame) -> None:
        found = copy.read(["x", "x"], box_of(copy, *MIDDLE))
        assert found.column_names == ["x", "x"]
        assert found.column(1).to_pylist() == in_box(frame, *MIDDLE).x.tolist()

    def test_in_the_order_of_the_copy_the_rows_are_the_same(self, copy: TableCopy, frame: pd.DataFrame) -> None:
        found = copy.read(where=box_of(copy, *MIDDLE), in_order=False).to_pandas()
        expected = in_box(frame, *MIDDLE)
        assert found.index.tolist() != expected.index.tolist()
        pd.testing.assert_frame_equal(found.loc[expected.index], expected)

    def test_part_by_part(self, copy: TableCopy, frame: pd.DataFrame) -> None:
        found = list(copy.scan(["point_id", "body"], box_of(copy, *MIDDLE)))
        assert len(found) == copy.parts
        some = [part for part in found if part is not None]
        assert 0 < len(some) < copy.parts
        assert all(part.num_rows for part in some)
        assert {part.schema.names == ["point_id", "body"] for part in some} == {True}
        rows = pa.Table.from_batches(some).to_pandas()
        expected = in_box(frame, *MIDDLE)[["body"]]
        pd.testing.assert_frame_equal(rows.loc[expected.index], expected)
        again = list(copy.scan(["point_id", "body"], box_of(copy, *MIDDLE), parts=[3, 1]))
        assert again == [found[3], found[1]]

    def test_parts_and_row_groups_are_boxes_that_do_not_overlap(self, copy: TableCopy) -> None:
        boxes = []
        for path in sorted(copy.folder.glob("*.parquet")):
            metadata = pq.read_metadata(path)
            for group in (metadata.row_group(number) for number in range(metadata.num_row_groups)):
                chunks = {group.column(number).path_in_schema: group.column(number) for number in range(3)}
                statistics = [chunks[name].statistics for name in XYZ]
                boxes.append(([each.min for each in statistics], [each.max for each in statistics]))
        low, high = (np.array(ends) for ends in zip(*boxes, strict=True))
        middle = (low + high) / 2
        inside = (low <= middle[:, None]) & (middle[:, None] <= high)
        assert inside.all(axis=2).sum() == len(boxes)

    def test_only_what_may_hold_rows_is_opened(self, copy: TableCopy, frame: pd.DataFrame) -> None:
        wanted = box_of(copy, (0, 0, 0), (20_000, 20_000, 20_000))
        for place in copy.folder.glob("*.parquet"):
            if not touches(place, 20_000):
                place.unlink()
        assert 0 < len(list(copy.damage())) < copy.parts
        expected = in_box(frame, (0, 0, 0), (20_000, 20_000, 20_000))
        pd.testing.assert_frame_equal(copy.read(where=wanted).to_pandas(), expected)

    def test_several_threads_share_a_copy(self, copy: TableCopy, frame: pd.DataFrame) -> None:
        with ThreadPoolExecutor(4) as threads:
            for found in threads.map(lambda _: copy.read(where=box_of(copy, *MIDDLE)), range(8)):
                pd.testing.assert_frame_equal(found.to_pandas(), in_box(frame, *MIDDLE))

    def test_it_travels_to_other_processes(self, copy: TableCopy, frame: pd.DataFrame) -> None:
        found = pickle.loads(pickle.dumps(copy)).read(where=where(copy.schema, kind="PreSyn"))
        pd.testing.assert_frame_equal(found.to_pandas(), frame[frame.kind == "PreSyn"])

    def test_of_no_rows_the_categories_are_known(self, copy: TableCopy, frame: pd.DataFrame) -> None:
        for wanted in (where(copy.schema, x=-1), where(copy.schema, kind="no such kind")):
            pd.testing.assert_frame_equal(copy.read(where=wanted).to_pandas(), frame[:0])

    def test_an_unknown_column(self, copy: TableCopy) -> None:
        with pytest.raises(ArgumentError, match=r"no column 'bdy'; there are .*Did you mean 'body'"):
            copy.read(["bdy"])

    def test_bytes_of_columns(self, copy: TableCopy) -> None:
        one, two = copy.stored_bytes(["x"]), copy.stored_bytes(["x", "body"])
        everything = sum(path.stat().st_size for path in copy.folder.glob("*.parquet"))
        assert 0 < one < two < everything
        assert copy.count_rows() == 3000

    def test_what_it_was_made_from(self, copy: TableCopy) -> None:
        assert copy.about == ABOUT

    def test_any_parquet_tool_reads_it(self, copy: TableCopy, frame: pd.DataFrame) -> None:
        found = pd.read_parquet(copy.folder).sort_values(ROW)
        assert found.pop(ROW).tolist() == list(range(3000))
        pd.testing.assert_frame_equal(found.astype({"kind": frame.kind.dtype}), frame)


def touches(part: Path, edge: int) -> bool:
    """Whether the first voxels of a volume are in the extent of a part."""
    rows = pq.read_table(part, columns=list(XYZ)).to_pandas()
    return bool((rows.min() < edge).all())


class TestCategories:
    def test_dictionaries_that_grow(self, tmp_path: Path, small_parts: None) -> None:
        kind = pa.dictionary(pa.int8(), pa.string())
        dictionaries = [["b"], ["b", "a"], ["b", "a", "c"]]
        batches = [
            pa.record_batch({"k": pa.DictionaryArray.from_arrays(pa.array([0, None, number], pa.int8()), texts)})
            for number, texts in enumerate(dictionaries)
        ]
        source = tmp_path / "grows.feather"
        options = ipc.IpcWriteOptions(emit_dictionary_deltas=True)
        with ipc.new_file(source, pa.schema({"k": kind}), options=options) as writer:
            for batch in batches:
                writer.write_batch(batch)
        write_copy(open_local(source), tmp_path / "copy.parquet", about=ABOUT)
        found = open_copy(tmp_path / "copy.parquet").read()
        pd.testing.assert_frame_equal(found.to_pandas(), pd.read_feather(source))
        assert found.column("k").chunk(0).dictionary.to_pylist() == ["b", "a", "c"]

    def test_dictionaries_that_differ(self, tmp_path: Path, small_parts: None) -> None:
        source = tmp_path / "differ.parquet"
        texts = ["b"] * 10 + ["a"] * 10 + [None] * 10 + ["c", "a"] * 5
        pq.write_table(pa.table({"k": pa.array(texts).dictionary_encode()}), source, row_group_size=10)
        write_copy(open_local(source), tmp_path / "copy.parquet", about=ABOUT)
        found = open_copy(tmp_path / "copy.parquet").read().column("k")
        assert found.to_pylist() == texts
        assert {tuple(chunk.dictionary.to_pylist()) for chunk in found.chunks} == {("b", "a", "c")}

    def test_more_than_parquet_writes_as_such(self, tmp_path: Path) -> None:
        names = [f"type {number:04}" for number in range(5000)][::-1]
        frame = pd.DataFrame({"type": pd.Categorical(names[::3], names, ordered=True)})
        copy = copy_of(frame, tmp_path)
        assert_same(copy.read(), feather.read_table(tmp_path / "table.feather"))
        assert copy.schema.field("type").type.index_type == pa.int16()

    @pytest.mark.parametrize(
        "column",
        [
            pd.Categorical([None] * 50),
            pd.Categorical([None] * 50, ["never", "used"]),
            pd.Categorical(["b"] * 50, ["c", "b", "a"], ordered=True),
            pd.Categorical([2.5, None] * 25, [2.5, 1.5]),
            pd.Categorical(pd.to_datetime(["2024-05-01", "2023-01-01"] * 25)),
            pd.Categorical([True, False] * 25),
        ],
        ids=["none", "unused", "ordered", "numbers", "days", "flags"],
    )
    def test_of_any_kind(self, tmp_path: Path, small_parts: None, column: Any) -> None:
        frame = pd.DataFrame({"k": column, "n": np.arange(50)[::-1]})
        pd.testing.assert_frame_equal(copy_of(frame, tmp_path, order_by=("n",)).read().to_pandas(), frame)

    def test_one_of_them_null(self, tmp_path: Path) -> None:
        dictionary = pa.array(["a", None])
        table = pa.table({"k": pa.DictionaryArray.from_arrays(pa.array([1, 0, None], pa.int8()), dictionary)})
        found = copy_of(table, tmp_path).read().column("k")
        assert found.to_pylist() == [None, "a", None]
        assert found.chunk(0).dictionary.equals(dictionary)


class TestShapes:
    """Tables that are odd."""

    @pytest.mark.parametrize("ordering", [{}, {"coordinates": XYZ}, {"order_by": ("body",)}])
    @pytest.mark.parametrize("rows", [0, 1])
    def test_hardly_a_row(self, tmp_path: Path, rows: int, ordering: Any) -> None:
        frame = points(1)[:rows]
        copy = copy_of(frame, tmp_path, **ordering)
        assert (copy.rows, copy.parts) == (rows, rows)
        pd.testing.assert_frame_equal(copy.read().to_pandas(), pd.read_feather(tmp_path / "table.feather"))
        assert [part.num_rows for part in copy.scan(["x"]) if part is not None] == [1] * rows
        assert copy.stored_bytes(["x"]) >= rows
        assert len(pd.read_parquet(copy.folder)) == rows

    @pytest.mark.parametrize("ordering", [{}, {"coordinates": XYZ}, {"order_by": ("x", "y")}])
    def test_all_rows_at_one_place(self, tmp_path: Path, small_parts: None, ordering: Any) -> None:
        frame = points(1000)
        frame[list(XYZ)] = 7
        copy = copy_of(frame, tmp_path, **ordering)
        assert copy.parts > 3
        pd.testing.assert_frame_equal(copy.read().to_pandas(), frame)
        pd.testing.assert_frame_equal(copy.read(where=where(copy.schema, x=7)).to_pandas(), frame)
        assert copy.read(where=where(copy.schema, x=8)).num_rows == 0
        first = next(copy.scan(["point_id"]))
        assert first is not None
        assert first.column(0).to_pylist() == frame.index[: first.num_rows].tolist()

    def test_coordinates_that_are_missing(self, tmp_path: Path, small_parts: None) -> None:
        frame = points(600).astype({"x": "Int32", "z": "float64"})
        frame.loc[frame.index[::3], "x"] = pd.NA
        frame.loc[frame.index[1::4], "z"] = np.nan
        frame.loc[frame.index[5], "z"] = np.inf
        copy = copy_of(frame, tmp_path, coordinates=XYZ)
        assert copy.parts > 3
        assert_same(copy.read(), feather.read_table(tmp_path / "table.feather"))
        found = copy.read(["x"], where(copy.schema, x={"<": 50_000}))
        assert found.column(0).to_pylist() == frame.x[frame.x < 50_000].tolist()
        found = copy.read(["x"], where(copy.schema, x=None))
        assert found.column(0).to_pylist() == [None] * 200

    def test_rows_that_grow(self, tmp_path: Path, small_parts: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(copying, "PART_BYTES", 10_000)
        frame = pd.DataFrame({"n": range(400), "text": [""] * 200 + ["a" * 1000] * 200})
        copy = copy_of(frame, tmp_path, order_by=("n",))
        assert max(part.nbytes for part in copy.scan(["text"]) if part is not None) < 100_000
        pd.testing.assert_frame_equal(copy.read().to_pandas(), frame)

    def test_as_it_came(self, tmp_path: Path, small_parts: None) -> None:
        frame = points(500)
        copy = copy_of(frame, tmp_path)
        assert copy.parts > 3
        pd.testing.assert_frame_equal(copy.read(in_order=False).to_pandas(), frame)

    def test_sorted_by_keys(self, tmp_path: Path, small_parts: None) -> None:
        frame = points(500)
        frame["x"] %= 9
        found = copy_of(frame, tmp_path, order_by=("x", "body")).read(in_order=False).to_pandas()
        pd.testing.assert_frame_equal(found, frame.sort_values(["x", "body"]))

    def test_ids_beyond_what_a_float_holds(self, tmp_path: Path, small_parts: None) -> None:
        ids = np.arange((1 << 64) - 300, 1 << 64, dtype=np.uint64)[::-1]
        copy = copy_of(pa.table({"id": ids}), tmp_path, order_by=("id",))
        found = copy.read(where=where(copy.schema, id={">=": (1 << 64) - 5}))
        assert found.column(0).to_pylist() == [(1 << 64) - step for step in range(1, 6)]

    def test_a_parquet_file(self, tmp_path: Path, small_parts: None) -> None:
        frame = points(500)
        frame.to_parquet(tmp_path / "table.parquet")
        write_copy(open_local(tmp_path / "table.parquet"), tmp_path / "copy.parquet", coordinates=XYZ, about=ABOUT)
        copy = open_copy(tmp_path / "copy.parquet")
        pd.testing.assert_frame_equal(copy.read(where=box_of(copy, *MIDDLE)).to_pandas(), in_box(frame, *MIDDLE))


# --- damage


class TestDamage:
    @pytest.fixture
    def copy(self, tmp_path: Path, small_parts: None) -> TableCopy:
        frame = points(300)
        frame["place"] = [[1, 2][: number % 3] for number in range(300)]
        frame["name"] = [None if number % 3 else f"name {number}" for number in range(300)]
        return copy_of(frame, tmp_path, coordinates=XYZ)

    @pytest.fixture
    def read(self, copy: TableCopy) -> Callable[[], pd.DataFrame]:
        return lambda: open_copy(copy.folder).read().to_pandas()

    @pytest.mark.parametrize("columns", [["x", "kind", "conf", "body", "name"], ["x", "place"]], ids=["flat", "lists"])
    def test_no_flipped_byte_changes_an_answer(self, copy: TableCopy, columns: list[str]) -> None:
        path, expected = copy.folder / "part-00001.parquet", copy.read(columns)
        content = path.read_bytes()
        found = 0
        for place in range(0, len(content), 11):
            path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
            try:
                assert copy.read(columns).equals(expected), f"byte {place}"
            except CacheCorruptError as error:
                found += 1
                assert f"{path} is missing or damaged" in str(error)  # noqa: PT017  # any of many bytes may raise
        assert found > 0.3 * len(content) / 11

    @pytest.mark.parametrize("at", [0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999])
    def test_each_flipped_byte_is_found(self, copy: TableCopy, at: float) -> None:
        assert list(copy.damage()) == []
        spoil(copy.folder / "part-00002.parquet", at, 1)
        ((name, reason),) = copy.damage()
        assert name == "part-00002.parquet"
        assert "its bytes are not those that were written" in reason

    def test_a_part_that_is_missing(self, copy: TableCopy, read: Callable[[], Any]) -> None:
        (copy.folder / "part-00001.parquet").unlink()
        with pytest.raises(CacheCorruptError, match=f"part-00001.parquet is missing .*remove {copy.folder} and fetch"):
            read()
        assert [name for name, _ in copy.damage()] == ["part-00001.parquet"]

    @pytest.mark.parametrize("change", [-1, -1000, 1])
    def test_a_part_of_another_length(self, copy: TableCopy, read: Callable[[], Any], change: int) -> None:
        path = copy.folder / "part-00001.parquet"
        os.truncate(path, path.stat().st_size + change)
        with pytest.raises(CacheCorruptError, match=r"bytes(, as it was written| and was written with)"):
            read()
        assert [name for name, _ in copy.damage()] == ["part-00001.parquet"]

    def test_a_part_in_the_place_of_another(self, copy: TableCopy, read: Callable[[], Any]) -> None:
        shutil.copy(copy.folder / "part-00000.parquet", copy.folder / "part-00001.parquet")
        with pytest.raises(CacheCorruptError, match=r"part-00001\.parquet is missing or damaged"):
            read()

    @pytest.mark.parametrize("name", ["_index.arrow", "_schema.arrow"])
    def test_the_small_files(self, copy: TableCopy, read: Callable[[], Any], name: str) -> None:
        content = (copy.folder / name).read_bytes()
        for place in range(0, len(content), 7):
            spoiled = content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :]
            (copy.folder / name).write_bytes(spoiled)
            with pytest.raises(CacheCorruptError, match=f"{name} is missing or damaged: its bytes are not those"):
                read()
        (copy.folder / name).unlink()
        with pytest.raises(CacheCorruptError, match=f"{name} is missing"):
            read()

    @pytest.mark.parametrize(
        ("document", "message"),
        [
            ("", "Expecting value"),
            ("[]", "no description of a copy"),
            ('{"name": "x"}', "no description of a copy"),
            ('{"form": 99}', "written in form 99, and this emcatalog reads form 1"),
            ('{"form": 1, "rows": 2}', "crc32"),
        ],
    )
    def test_what_it_says_of_itself(
        self, copy: TableCopy, read: Callable[[], Any], document: str, message: str
    ) -> None:
        (copy.folder / "_source.json").write_text(document)
        with pytest.raises(CacheCorruptError, match=rf"_source\.json is missing or damaged: .*{message}"):
            read()

    def test_rows_that_are_not_there(self, copy: TableCopy, read: Callable[[], Any]) -> None:
        path = copy.folder / "_source.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "rows": 299}))
        with pytest.raises(CacheCorruptError, match="speaks of 300 rows, and there are 299"):
            read()

    def test_a_category_that_is_not_known(self, copy: TableCopy, read: Callable[[], Any]) -> None:
        path, about = copy.folder / "_schema.arrow", copy.folder / "_source.json"
        content = path.read_bytes().replace(b"PostSyn", b"Pre-Syn")
        path.write_bytes(content)
        said = json.loads(about.read_text())
        said["crc32"]["_schema.arrow"] = zlib.crc32(content)
        about.write_text(json.dumps(said))
        with pytest.raises(CacheCorruptError, match="a category that the table does not have"):
            read()

    def test_a_folder_that_is_no_copy(self, tmp_path: Path) -> None:
        with pytest.raises(CacheCorruptError, match=r"_source\.json is missing .*fetch the table again"):
            open_copy(tmp_path)

    def test_a_part_that_may_not_be_read(self, copy: TableCopy, read: Callable[[], Any]) -> None:
        path = copy.folder / "part-00001.parquet"
        path.unlink()
        path.mkdir()
        with pytest.raises(CacheError, match=r"part-00001\.parquet cannot be read: Is a directory"):
            read()
