"""Feather tables where they lie: answers as pandas gives them, and what travels for them.

The conformance class at the top is what every stored form of a table passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from pyarrow import feather, ipc

from emcatalog.entries.table import TableArguments
from emcatalog.errors import ArgumentError, SourceChangedError, SourceCorruptError
from emcatalog.tables.opening import open_table
from emcatalog.tables.table import Table
from emcatalog.tables.window import GAP, join_ranges
from tests.replica.server import FolderHandler, Server, serve
from tests.replica.table_world import make_world
from tests.replica.tables import write_table
from tests.replica.wire import Answer, Call, running
from tests.test_arrow_layout import COUNTED, UNCOUNTED
from tests.test_fetch import assert_clear

ROWS = 4000
PART = 300
"""Rows of a record batch or row group."""
PARTS = 14
VOXEL = 8.0


def make_frame(rows: int = ROWS) -> pd.DataFrame:
    """Columns of every kind that the published tables have, with gaps, and an index that has a name."""
    rng = np.random.default_rng(rows)
    status = pd.CategoricalDtype(["Orphan", "Anchor", "never", "Leaves", "Traced"], ordered=True)
    names = np.array(["KC", "MBON", "DNa02", "", "é"], object)
    frame = pd.DataFrame(
        {
            "z": np.sort(rng.integers(0, 500, rows)).astype(np.int32),
            "y": rng.integers(-50, 50, rows).astype(np.int32),
            "x": rng.integers(0, 100, rows).astype(np.int32),
            "kind": pd.Categorical.from_codes(rng.integers(-1, 2, rows), ["PreSyn", "PostSyn"]),
            "conf": np.round(rng.random(rows), 1).astype(np.float32),
            "body": rng.integers(0, 50, rows) + 2**33,
            "status": pd.Categorical.from_codes(rng.choice([0, 1, 3, 4], rows), dtype=status),
            "weight": np.where(rng.random(rows) < 0.3, np.nan, rng.normal(size=rows)),
            "type": np.where(rng.random(rows) < 0.3, None, names[rng.integers(0, 5, rows)]),
            "flag": rng.random(rows) < 0.5,
            "count": pd.array(rng.integers(0, 9, rows), "Int16"),
            "label": rng.integers(0, 256, rows).astype(np.uint8),
            "somaLocation": [None if place % 3 else [place, 1, 2] for place in range(rows)],
        },
        index=pd.Index(np.arange(rows, dtype=np.uint64) * 3 + 2**63, name="point_id"),
    )
    frame.loc[frame["count"] == 4, "count"] = pd.NA
    return frame


@dataclass(frozen=True)
class Remote:
    """Tables of one stored form on a server of their own."""

    form: str
    folder: Path
    server: Server

    def path(self, name: str = "table") -> Path:
        return self.folder / f"{name}.{self.form}"

    def arguments(self, name: str = "table", **given: Any) -> TableArguments:
        """As a catalog's entry has them, which declares the coordinates only: releases add columns."""
        declared = {
            "url": f"{self.form}://{self.server.url}/{name}.{self.form}",
            "columns": {"x": "int32", "y": "int32", "z": "int32"},
            "coordinates": ["x", "y", "z"],
            "voxel_size": VOXEL,
            "source": "a test",
        }
        return TableArguments.norm({"table": declared, **given})

    def open(self, name: str = "table", **given: Any) -> Table:
        return open_table(self.arguments(name, **given))

    def read(self, name: str = "table", **given: Any) -> pd.DataFrame:
        return self.open(name, **given).read().to_pandas()


@dataclass(frozen=True)
class Wanted:
    """What a filter asks of a column, and what pandas says to it."""

    name: str
    value: Any
    by_pandas: Callable[[pd.Series], Any]


CONDITIONS = [
    Wanted("z", 120, lambda c: c == 120),
    Wanted("z", {">=": 100, "<": 130}, lambda c: (c >= 100) & (c < 130)),
    Wanted("z", 10**9, lambda c: c == 10**9),
    Wanted("y", range(-3, 4), lambda c: c.isin(range(-3, 4))),
    Wanted("y", {"!=": 0}, lambda c: c != 0),
    Wanted("y", {"<": -(2**40)}, lambda c: c < -(2**40)),
    Wanted("kind", "PreSyn", lambda c: c == "PreSyn"),
    Wanted("kind", [None, "PostSyn"], lambda c: c.isna() | (c == "PostSyn")),
    Wanted("kind", "nothing", lambda c: c == "nothing"),
    Wanted("conf", 0.7, lambda c: c == 0.7),
    Wanted("conf", {">=": 0.7}, lambda c: c >= 0.7),
    Wanted("conf", [0.1, 0.2], lambda c: (c == 0.1) | (c == 0.2)),
    Wanted("body", 2**33 + 7, lambda c: c == 2**33 + 7),
    Wanted("body", [2**33, 2**33 + 1.0], lambda c: c.isin([2**33, 2**33 + 1])),
    Wanted("body", {">": 2**33 + 40.5}, lambda c: c > 2**33 + 40.5),
    Wanted("status", ["Leaves", "Traced"], lambda c: c.isin(["Leaves", "Traced"])),
    Wanted("status", {"!=": "Orphan"}, lambda c: c != "Orphan"),
    Wanted("status", "never", lambda c: c == "never"),
    Wanted("weight", None, lambda c: c.isna()),
    Wanted("weight", {"!=": None, "<=": 0}, lambda c: c <= 0),
    Wanted("weight", {">": 1, "<": -1}, lambda c: np.zeros(len(c))),
    Wanted("type", "KC", lambda c: c == "KC"),
    Wanted("type", ["", None], lambda c: c.isna() | (c == "")),
    Wanted("type", {"!=": "KC"}, lambda c: (c != "KC") & c.notna()),
    Wanted("flag", True, lambda c: c),
    Wanted("flag", {"!=": True}, lambda c: ~c),
    Wanted("count", [1, 2], lambda c: c.isin([1, 2])),
    Wanted("count", {"==": None}, lambda c: c.isna()),
    Wanted("count", {">": 7}, lambda c: (c > 7).fillna(False)),
    Wanted("label", {">": 250}, lambda c: c > 250),
    Wanted("label", -1, lambda c: c == -1),
    Wanted("somaLocation", None, lambda c: c.isna()),
    Wanted("somaLocation", {"!=": None}, lambda c: c.notna()),
    Wanted("point_id", {"<": 2**63 + 1000}, lambda c: c < 2**63 + 1000),
    Wanted("point_id", [2**63 + 3 * 50, 5], lambda c: c == 2**63 + 3 * 50),
]
COLUMNS = (*make_frame(1).reset_index().columns,)
FILTERS = st.lists(st.sampled_from(CONDITIONS), max_size=3, unique_by=lambda wanted: wanted.name)
SOME_COLUMNS = st.lists(st.sampled_from(COLUMNS), min_size=1, unique=True)


@st.composite
def boxes(draw: Any) -> tuple[int, ...] | None:
    """Some around most of the points, some around few, some around none."""
    if draw(st.booleans()):
        return None
    ends = ((-9, 110), (-60, 60), (0, 520))
    axes = (st.lists(st.integers(*pair), min_size=2, max_size=2, unique=True) for pair in ends)
    return tuple(edge for axis in axes for edge in sorted(draw(axis)))


def chosen_by_pandas(frame: pd.DataFrame, conditions: Sequence[Wanted], bbox: Any = None) -> pd.DataFrame:
    """Rows of the whole table."""
    whole = frame.reset_index()
    mask = np.ones(len(frame), bool)
    for wanted in conditions:
        mask &= np.asarray(wanted.by_pandas(whole[wanted.name]), bool)
    for axis, begin, end in zip("xyz", (bbox or ())[::2], (bbox or ())[1::2], strict=False):
        mask &= ((whole[axis] >= begin) & (whole[axis] < end)).to_numpy()
    return frame[mask]


def pick(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Some columns in this order; the index is one of them, and another is made where it is not asked for."""
    kept = frame if "point_id" in columns else frame.reset_index(drop=True)
    return kept[[name for name in columns if name != "point_id"]]


@dataclass(frozen=True)
class Form:
    """How pandas and pyarrow write and read a stored form, in parts of ``PART`` rows."""

    name: str
    write: Callable[[pd.DataFrame, Path], None]
    read: Callable[..., pd.DataFrame]
    write_arrow: Callable[[pa.Table, Path], None]
    read_arrow: Callable[[Path], pa.Table]
    types: Sequence[pa.Array]
    """Columns of every type that it can hold."""


def write_ipc(table: pa.Table, path: Path) -> None:
    with ipc.new_file(path, table.schema, options=ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_table(table, PART)


FEATHER = Form(
    "feather",
    lambda frame, path: feather.write_feather(frame, path, chunksize=PART),
    pd.read_feather,
    write_ipc,
    lambda path: ipc.open_file(path).read_all(),
    [*COUNTED.values(), *UNCOUNTED.values()],
)
PARQUET = Form(
    "parquet",
    lambda frame, path: frame.to_parquet(path, row_group_size=PART),
    pd.read_parquet,
    lambda table, path: pq.write_table(table, path, row_group_size=PART),
    lambda path: pq.ParquetFile(path).read(),
    [column for kind, column in COUNTED.items() if kind not in ("interval", "null", "list of null")],
)
FORMS = (FEATHER, PARQUET)


class TestConformance:
    """What every stored form of a table does."""

    @pytest.fixture(scope="class", params=FORMS, ids=lambda form: form.name)
    @classmethod
    def form(cls, request: pytest.FixtureRequest) -> Form:
        found: Form = request.param
        return found

    @pytest.fixture(scope="class")
    @classmethod
    def remote(cls, form: Form, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
        folder = tmp_path_factory.mktemp(form.name)
        with serve(folder) as server:
            remote = Remote(form.name, folder, server)
            form.write(make_frame(), remote.path())
            form.write(make_frame().reset_index(drop=True), remote.path("plain"))
            form.write(make_frame(0), remote.path("empty"))
            yield remote

    @pytest.fixture(scope="class")
    @classmethod
    def whole(cls, form: Form, remote: Remote) -> pd.DataFrame:
        """The table, by pandas."""
        return form.read(remote.path())

    def test_the_whole_table(self, remote: Remote, whole: pd.DataFrame) -> None:
        assert_frame_equal(remote.read(), whole)
        assert whole.index.name == "point_id"
        assert [*whole["status"].cat.categories] == ["Orphan", "Anchor", "never", "Leaves", "Traced"]

    def test_a_table_without_an_index(self, form: Form, remote: Remote) -> None:
        whole = form.read(remote.path("plain"))
        assert_frame_equal(remote.read("plain"), whole)
        assert_frame_equal(remote.read("plain", filter={"x": 7}), whole[whole["x"] == 7].reset_index(drop=True))

    def test_a_table_without_rows(self, form: Form, remote: Remote) -> None:
        whole = form.read(remote.path("empty"))
        assert_frame_equal(remote.read("empty"), whole)
        assert_frame_equal(remote.read("empty", filter={"x": 7}), whole)

    @settings(max_examples=30)
    @given(SOME_COLUMNS)
    def test_columns_are_given_in_their_order(self, remote: Remote, whole: pd.DataFrame, columns: list[str]) -> None:
        assert_frame_equal(remote.read(columns=columns), pick(whole, columns))

    @settings(max_examples=60)
    @given(FILTERS, boxes(), st.one_of(st.none(), SOME_COLUMNS))
    def test_rows(self, remote: Remote, whole: pd.DataFrame, conditions: list[Wanted], bbox: Any, columns: Any) -> None:
        wanted = {each.name: each.value for each in conditions}
        got = remote.read(filter=wanted, bbox=bbox, columns=columns)
        expected = chosen_by_pandas(whole, conditions, bbox)
        if columns is None:
            assert_frame_equal(got, expected)
        else:
            assert_frame_equal(got, pick(expected, columns))

    def test_a_box_in_nm(self, remote: Remote, whole: pd.DataFrame) -> None:
        edges = np.array([10, 60, -30, 30, 100, 300]) * VOXEL
        expected = chosen_by_pandas(whole, [], (10, 60, -30, 30, 100, 300))
        assert len(expected) > 100
        assert_frame_equal(remote.read(bbox=edges.tolist(), units="nm"), expected)

    def test_a_box_of_other_columns(self, remote: Remote, whole: pd.DataFrame) -> None:
        got = remote.read(bbox=(0, 9, 0, 9, 0, 9), coordinates=["label", "y", "x"])
        between = [whole[name].between(0, 8) for name in ("label", "y", "x")]
        assert_frame_equal(got, whole[np.logical_and.reduce(between)])

    def test_no_rows_have_the_columns_and_categories_of_the_table(self, remote: Remote, whole: pd.DataFrame) -> None:
        got = remote.read(filter={"z": -1})
        assert_frame_equal(got, whole[:0])
        assert [*got["status"].cat.categories] == [*whole["status"].cat.categories]
        assert_frame_equal(
            remote.read(filter={"z": -1}, columns=["type", "kind"]), remote.read(columns=["type", "kind"])[:0]
        )

    def test_parts(self, remote: Remote, whole: pd.DataFrame) -> None:
        table = remote.open(filter={"flag": True})
        parts = [table.read([number]).to_pandas() for number in range(table.stored.parts)]
        assert len(parts) == PARTS
        assert_frame_equal(pd.concat(parts), whole[whole["flag"]])
        assert_frame_equal(table.read([3, 1]).to_pandas(), pd.concat([parts[3], parts[1]]))

    def test_batches(self, remote: Remote, whole: pd.DataFrame) -> None:
        table = remote.open(filter={"z": {"<": 100}}, columns=["z", "type"])
        batches = list(table.batches())
        assert 1 < len(batches) < PARTS
        assert all(batch.schema.equals(table.schema, check_metadata=True) and len(batch) for batch in batches)
        assert_frame_equal(pa.concat_tables(batches).to_pandas(), table.read().to_pandas())

    def test_progress_is_told_of_every_part(self, remote: Remote) -> None:
        told: list[int] = []

        def start(parts: int) -> Callable[[int], None]:
            told.append(parts)
            return told.append

        remote.open(filter={"z": 7}).read(progress=start)
        assert told == [PARTS, *[1] * PARTS]

    @pytest.mark.parametrize("rows", [0, 1, PART - 1, PART, PART + 1, 3 * PART, ROWS - 1, ROWS, ROWS + 1])
    def test_head_reads_no_more_parts_than_hold_it(self, remote: Remote, whole: pd.DataFrame, rows: int) -> None:
        table = remote.open(columns=["z", "conf"])
        started: list[int] = []
        got = table.read(head=rows, progress=lambda _: started.append).to_pandas()
        assert_frame_equal(got, table.read().to_pandas()[:rows])
        assert len(started) == min(PARTS, -(-rows // PART))

    @pytest.mark.parametrize("rows", [0, 1, 5, 40, 10_000])
    def test_head_of_a_filter(self, remote: Remote, whole: pd.DataFrame, rows: int) -> None:
        expected = whole[(whole["z"] >= 250) & (whole["label"] < 20)]
        got = remote.open(filter={"z": {">=": 250}, "label": {"<": 20}}).read(head=rows).to_pandas()
        assert_frame_equal(got, expected[:rows])

    @pytest.mark.parametrize("head", [-1, 2.5, "5", True])
    def test_a_head_that_is_no_number_of_rows(self, remote: Remote, head: Any) -> None:
        with pytest.raises(ArgumentError) as caught:
            remote.open().read(head=head)
        assert_clear(caught.value, ValueError, f"head={head!r} is not a number of rows")

    def test_categories(self, remote: Remote) -> None:
        table = remote.open(columns=["x"])
        assert table.categories("status") == ["Orphan", "Anchor", "never", "Leaves", "Traced"]
        assert table.categories("kind") == ["PreSyn", "PostSyn"]
        assert table.categories("type") == []
        assert remote.open("empty").categories("z") == []

    def test_description(self, remote: Remote, whole: pd.DataFrame) -> None:
        table = remote.open(filter={"x": 3}, columns=["type", "z"])
        assert table.schema.names == ["type", "z"]
        assert table.stored.schema.names == [*whole.columns, "point_id"]
        assert table.stored.count_rows() == ROWS
        assert (table.plan().columns, table.plan().parts, table.plan().is_cached) == (("type", "z"), PARTS, False)
        assert f"2 columns, {PARTS} parts, about 0.0 MB over the network" in str(table.plan())
        assert remote.open("empty").plan().stored_bytes < 1000
        assert remote.open("empty").stored.count_rows() == 0

    def test_several_threads(self, remote: Remote, whole: pd.DataFrame) -> None:
        table = remote.open(filter={"flag": True}, columns=["kind", "x", "type"])
        with ThreadPoolExecutor(4) as pool:
            for got in pool.map(lambda _: table.read().to_pandas(), range(8)):
                assert_frame_equal(
                    got.reset_index(drop=True), whole[whole["flag"]][["kind", "x", "type"]].reset_index(drop=True)
                )

    def test_wrong_arguments(self, remote: Remote) -> None:
        with pytest.raises(ArgumentError, match=r"columns: there is no column 'statsu'.*Did you mean 'status'\?"):
            remote.open(columns=["x", "statsu"])
        with pytest.raises(ArgumentError, match=r"filter: x holds int32; 'a' cannot be compared with it"):
            remote.open(filter={"x": "a"})

    def test_types(self, form: Form, remote: Remote) -> None:
        """Every type that the form can hold, read whole and in part as pyarrow does it."""
        rows = pa.array(range(100), pa.int16())
        for number, column in enumerate(form.types):
            table = pa.table({"row": rows, "it": column, "after": rows})
            form.write_arrow(table, remote.path(f"type-{number}"))
            opened = remote.open(f"type-{number}", columns=["row", "it"])
            local = form.read_arrow(remote.path(f"type-{number}")).select(["row", "it"])
            assert opened.read().equals(local), column.type
            few = remote.open(f"type-{number}", filter={"row": [3, 4, 50]}).read()
            assert few.column("it").to_pylist() == [column[row].as_py() for row in (3, 4, 50)], column.type
            none = remote.open(f"type-{number}", filter={"it": None}).read().column("row").to_pylist()
            assert none == [row for row in range(100) if column[row].as_py() is None], column.type

    def test_columns_of_one_name(self, form: Form, remote: Remote) -> None:
        form.write_arrow(pa.table([[1], [2], [3]], names=["a", "b", "a"]), remote.path("twice"))
        with pytest.raises(SourceCorruptError, match="it has several columns named a"):
            remote.open("twice")


# --- what travels


FOOTER_READ = 64 << 10
"""Bytes of the end of a file that are read first."""


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Remote]:
    """Feather files on a server of their own, none of them written yet."""
    with serve(tmp_path) as server:
        yield Remote("feather", tmp_path, server)


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Syn-points as published: 41 columns, six record batches."""
    return write_table(tmp_path_factory.mktemp("points") / "table.feather", "synapse_points", make_world(380_000))


@pytest.fixture
def wide(points: Path) -> Iterator[Remote]:
    with serve(points.parent) as server:
        yield Remote("feather", points.parent, server)


def stored_bytes(path: Path, columns: Sequence[str], folder: Path) -> int:
    """Bytes of a file with these columns alone."""
    alone = folder / "alone.feather"
    with ipc.open_file(path) as reader:
        included = [reader.schema.get_field_index(name) for name in columns]
    rows = ipc.open_file(path, options=ipc.IpcReadOptions(included_fields=included)).read_all()
    with ipc.new_file(alone, rows.schema, options=ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_table(rows)
    return alone.stat().st_size


class TestTraffic:
    """Bytes and requests."""

    def test_columns_of_a_wide_table(self, wide: Remote, tmp_path: Path) -> None:
        """Of two of them at most 1.3 times their own bytes, beside what says where they lie."""
        for columns in (["x", "body"], ["z", "sv"], ["conf", "point_id"], ["primary", "kind"]):
            wide.server.clear()
            got = wide.read(columns=columns)
            assert_frame_equal(got, pd.read_feather(wide.path(), columns=columns)[[*got.columns]])
            assert wide.server.sent() <= 1.3 * stored_bytes(wide.path(), columns, tmp_path) + 2 * FOOTER_READ

    def test_what_a_filter_does_not_find_is_not_read(self, wide: Remote, tmp_path: Path) -> None:
        assert len(wide.read(filter={"x": -1})) == 0
        assert wide.server.sent() <= 1.3 * stored_bytes(wide.path(), ["x"], tmp_path) + 2 * FOOTER_READ

    def test_other_columns_are_read_of_batches_with_hits_alone(self, remote: Remote) -> None:
        rng = np.random.default_rng(1)
        frame = pd.DataFrame(
            {"batch": np.repeat(np.arange(20), 5000), **{name: rng.random(100_000) for name in "abcd"}}
        )
        feather.write_feather(frame, remote.path(), chunksize=5000)
        (none, _), (one, got), (two, _) = ((self.sent(remote, batches)) for batches in (-1, 7, [3, 15]))
        assert_frame_equal(got, frame[frame["batch"] == 7].reset_index(drop=True))
        of_a_batch = 4 * 5000 * 8  # random numbers cannot be compressed
        assert 0.9 * of_a_batch < one - none < 1.2 * of_a_batch
        assert 1.8 * of_a_batch < two - none < 2.4 * of_a_batch

    @staticmethod
    def sent(remote: Remote, batches: Any) -> tuple[int, pd.DataFrame]:
        remote.server.clear()
        got = remote.read(filter={"batch": batches})
        return remote.server.sent(), got

    def test_description_is_read_from_the_end_alone(self, wide: Remote) -> None:
        table = wide.open(filter={"kind": "PreSyn"}, bbox=(0, 9, 0, 9, 0, 9))
        assert len(table.schema) == 41
        assert table.stored.parts == 6
        head, end = wide.server.requests
        size = wide.path().stat().st_size
        assert (head.method, head.bytes) == ("HEAD", 0)
        assert (end.range, end.bytes) == (f"bytes={size - FOOTER_READ}-{size - 1}", FOOTER_READ)
        assert table.plan().stored_bytes > 0
        assert len(wide.server.requests) == 3  # the metadata of one record batch
        assert wide.server.requests[-1].bytes < 4000

    def test_plan_says_what_a_filter_looks_at(self, wide: Remote, tmp_path: Path) -> None:
        for table, columns in [
            (wide.open(columns=["x", "body"]), ["x", "body"]),
            (wide.open(bbox=(0, 9, 0, 9, 0, 9), columns=["sv"]), ["x", "y", "z"]),
        ]:
            assert 0.9 < table.plan().stored_bytes / stored_bytes(wide.path(), columns, tmp_path) < 1.1

    def test_a_footer_that_is_longer_than_what_is_read_first(self, remote: Remote) -> None:
        batches = 4000
        table = pa.table({"a": range(batches), "b": [f"row {number}" for number in range(batches)]})
        with ipc.new_file(remote.path(), table.schema) as writer:
            writer.write_table(table, 1)
        opened = remote.open()
        assert opened.stored.parts == batches
        assert [record.method for record in remote.server.requests] == ["HEAD", "GET", "GET"]
        assert opened.read([0, batches - 1]).to_pylist() == [{"a": 0, "b": "row 0"}, {"a": 3999, "b": "row 3999"}]

    def test_a_batch_costs_two_requests(self, remote: Remote) -> None:
        """One for what says where columns lie, and one for neighbours among them."""
        frame = pd.DataFrame({name: np.random.default_rng(2).random(20_000) for name in "abcdef"})
        feather.write_feather(frame, remote.path(), chunksize=1000)
        table = remote.open(columns=["b", "c", "d"])
        remote.server.clear()
        table.read()
        assert len(remote.server.requests) == 2 * 20

    def test_requests_wait_together(self, remote: Remote) -> None:
        frame = pd.DataFrame({"a": np.random.default_rng(2).random(80_000)})
        feather.write_feather(frame, remote.path(), chunksize=1000)
        table = remote.open()
        remote.server.clear()
        remote.server.latency_s = 0.05
        assert len(table.read()) == 80_000
        assert remote.server.peak >= 16

    def test_dictionaries_are_read_once(self, remote: Remote) -> None:
        words = [f"{number} {'long' * 10}" for number in range(20_000)]
        frame = pd.DataFrame({"kind": pd.Categorical(words), "x": np.arange(20_000, dtype=np.int32)})
        feather.write_feather(frame, remote.path(), chunksize=500)
        of_dictionary = sum(map(len, words))
        table = remote.open(filter={"x": {">=": 19_000}})
        assert remote.server.sent() < of_dictionary / 5
        for _ in range(2):
            assert table.read().column("kind").to_pylist() == words[19_000:]
        assert remote.server.sent() < 1.5 * of_dictionary

    def test_head_of_few_rows_reads_one_batch(self, wide: Remote) -> None:
        assert len(wide.open().read(head=5)) == 5
        assert wide.server.sent() < wide.path().stat().st_size / 5

    def test_batches_that_nobody_takes_are_not_read(self, remote: Remote) -> None:
        frame = pd.DataFrame({"a": np.random.default_rng(3).random(100_000)})
        feather.write_feather(frame, remote.path(), chunksize=100)
        batches = remote.open().batches()
        next(batches)
        batches.close()
        assert remote.server.sent() < remote.path().stat().st_size / 2


class TestRanges:
    """Which ranges are asked for together."""

    @given(st.lists(st.tuples(st.integers(0, 2**21), st.integers(0, 2**18)).map(lambda pair: (pair[0], sum(pair)))))
    def test_all_that_is_wanted_and_little_else(self, ranges: list[tuple[int, int]]) -> None:
        joined = join_ranges(ranges)
        assert all(any(start <= a and b <= stop for start, stop in joined) for a, b in ranges if a < b)
        assert all(a < b for a, b in joined)
        assert joined == sorted(joined)
        wanted = np.zeros(2**22, bool)
        for start, stop in ranges:
            wanted[start:stop] = True
        assert sum(stop - start for start, stop in joined) <= 1.1 * sum(stop - start for start, stop in ranges)
        assert set(np.flatnonzero(wanted)[:100]) <= {at for start, stop in joined for at in range(start, stop)}

    def test_neighbours(self) -> None:
        assert join_ranges([(500, 900), (0, 400), (900, 1000)]) == [(0, 400), (500, 1000)]
        assert join_ranges([(0, 4000), (4100, 9000)]) == [(0, 9000)]

    def test_never_over_a_wide_gap(self) -> None:
        assert len(join_ranges([(0, 100 * GAP), (101 * GAP, 200 * GAP)])) == 1
        assert len(join_ranges([(0, 100 * GAP), (101 * GAP + 1, 200 * GAP)])) == 2

    def test_many_small_gaps_count_together(self) -> None:
        """Each of them is a tenth of what is wanted."""
        assert len(join_ranges([(200 * number, 200 * number + 100) for number in range(20)])) > 10


# --- a file that is replaced


class TestReplaced:
    """Never rows of two versions."""

    @pytest.fixture
    def frame(self, remote: Remote) -> pd.DataFrame:
        frame = pd.DataFrame({"a": np.random.default_rng(4).random(50_000)})
        feather.write_feather(frame, remote.path(), chunksize=500)
        return frame

    def replace(self, remote: Remote, frame: pd.DataFrame) -> None:
        other = remote.path("other")
        feather.write_feather(frame, other, chunksize=500)
        other.replace(remote.path())

    @pytest.mark.parametrize("rows", [50_000, 500, 80_000])
    def test_between_two_reads_of_a_scan(self, remote: Remote, frame: pd.DataFrame, rows: int) -> None:
        batches = remote.open().batches()
        next(batches)
        self.replace(remote, pd.DataFrame({"a": np.arange(rows, dtype=float)}))
        with pytest.raises(SourceChangedError) as caught:
            list(batches)
        assert_clear(
            caught.value, OSError, remote.arguments().table.location.url, "was replaced while it was read", "ask again"
        )

    def test_between_opening_and_reading(self, remote: Remote, frame: pd.DataFrame) -> None:
        table = remote.open()
        self.replace(remote, frame * 2)
        with pytest.raises(SourceChangedError):
            table.read()
        assert_frame_equal(remote.read(), frame * 2)

    def test_a_server_that_names_no_versions(self, tmp_path: Path) -> None:
        """Then nobody can tell; the table is read."""
        feather.write_feather(pd.DataFrame({"a": range(1000)}), tmp_path / "table.feather", chunksize=100)
        folder = FolderHandler(tmp_path)

        def without_etag(call: Call) -> Answer:
            answer = folder(call)
            return replace(answer, headers=tuple(header for header in answer.headers if header[0] != "ETag"))

        with running(Server(without_etag)) as server:
            assert Remote("feather", tmp_path, server).read()["a"].tolist() == list(range(1000))
