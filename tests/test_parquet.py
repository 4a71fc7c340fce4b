"""Parquet tables where they lie: what travels for them, and that no row group is left out that has wanted rows.

That answers are those of pandas is shown in ``test_feather.py``, for every stored form.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
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

from emcatalog.errors import SourceChangedError
from tests.replica.server import serve
from tests.test_feather import Remote

GROUP = 1000
GROUPS = 20
FOOTER_READ = 64 << 10


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Remote]:
    """Parquet files on a server of their own, none of them written yet."""
    with serve(tmp_path) as server:
        yield Remote("parquet", tmp_path, server)


def write(remote: Remote, columns: Any, **options: Any) -> None:
    pq.write_table(pa.table(columns), remote.path(), row_group_size=GROUP, **options)


# --- what travels


@pytest.fixture
def ordered(remote: Remote) -> Remote:
    """A table in the order of z, of random numbers beside it that cannot be compressed."""
    rng = np.random.default_rng(0)
    columns = {
        "z": np.arange(GROUP * GROUPS, dtype=np.int32),
        **{name: rng.random(GROUP * GROUPS) for name in "abcdef"},
    }
    write(remote, columns, use_dictionary=False)
    return remote


class TestTraffic:
    """Bytes and requests."""

    def test_description_is_read_from_the_end_alone(self, ordered: Remote) -> None:
        table = ordered.open(filter={"z": {">": 3}})
        assert table.stored.parts == GROUPS
        assert table.stored.count_rows() == GROUP * GROUPS
        assert table.plan().stored_bytes < 5 * GROUP * GROUPS
        assert [record.method for record in ordered.server.requests] == ["HEAD", "GET"]
        assert ordered.server.sent() <= FOOTER_READ

    def test_two_columns(self, ordered: Remote) -> None:
        ordered.read(columns=["b", "e"])
        own = 2 * 8 * GROUP * GROUPS
        assert own < ordered.server.sent() <= 1.3 * own + FOOTER_READ

    def test_neighbours_of_a_row_group_are_one_request(self, ordered: Remote) -> None:
        table = ordered.open(columns=["b", "c", "d"])
        ordered.server.clear()
        table.read()
        assert len(ordered.server.requests) == GROUPS

    @pytest.mark.parametrize("wanted", [7123, [7001, 7999], {">=": 7000, "<": 7500}, range(7000, 8000)], ids=repr)
    def test_row_groups_without_wanted_rows_are_not_read(self, ordered: Remote, wanted: Any) -> None:
        table = ordered.open(filter={"z": wanted}, columns=["z", "a", "f"])
        ordered.server.clear()
        assert set(table.read().column("z").to_numpy() // GROUP) == {7}
        assert len(ordered.server.requests) == 3  # z; a and f, which are not beside each other
        assert ordered.server.sent() < 3 * 8 * GROUP

    def test_rows_that_there_are_not(self, ordered: Remote) -> None:
        table = ordered.open(filter={"z": {">": 10**6}})
        ordered.server.clear()
        assert len(table.read()) == 0
        assert ordered.server.requests == []

    def test_statistics_of_columns_in_lists_and_structs_are_not_held_against_others(self, remote: Remote) -> None:
        structs = pa.array([{"a": 5, "z": 6}] * 2000)
        write(remote, {"z": pa.array(range(2000)), "s": structs, "s.z": pa.array([1] * 2000), "lists": [[7]] * 2000})
        assert remote.read(filter={"z": 1500})["s"].tolist() == [{"a": 5, "z": 6}]
        assert len(remote.read(filter={"s": {"!=": None}}, columns=["lists", "s.z"])) == 2000

    def test_a_footer_that_is_longer_than_what_is_read_first(self, remote: Remote) -> None:
        pq.write_table(pa.table({name: range(500) for name in "abcdefghij"}), remote.path(), row_group_size=1)
        assert remote.open().read([0, 499]).column("j").to_pylist() == [0, 499]
        assert remote.open(filter={"a": [3, 499]}).read().column("j").to_pylist() == [3, 499]


# --- statistics


FLOATS = [0.0, -0.0, 0.1, 0.7, 1.5, -2.0, math.inf, -math.inf, math.nan, None]
VALUES: dict[str, tuple[pa.DataType, list[Any]]] = {
    "f32": (pa.float32(), FLOATS),
    "f64": (pa.float64(), FLOATS),
    "i8": (pa.int8(), [-128, -1, 0, 1, 127, None]),
    "u8": (pa.uint8(), [0, 1, 127, 128, 255, None]),
    "u32": (pa.uint32(), [0, 1, 2**31 - 1, 2**31, 2**32 - 1]),
    "u64": (pa.uint64(), [0, 1, 2**53 + 1, 2**63, 2**64 - 1, None]),
    "i64": (pa.int64(), [-(2**63), -(2**53) - 1, 0, 2**53 + 1, 2**63 - 1]),
    "text": (pa.string(), ["", "a", "B", "é", "zzz", None]),
    "flag": (pa.bool_(), [True, False, None]),
    "kind": (pa.dictionary(pa.int8(), pa.string()), ["b", "a", "c", None]),
    "nothing": (pa.int32(), [None]),
}


@st.composite
def columns(draw: Any) -> tuple[str, pa.Array]:
    name = draw(st.sampled_from([*VALUES]))
    kind, values = VALUES[name]
    return name, pa.array(draw(st.lists(st.sampled_from(values), min_size=1, max_size=12)), kind)


@st.composite
def questions(draw: Any) -> tuple[pa.Array, Any, list[int]]:
    """A column, a filter, and the rows that it means, row by row."""
    name, column = draw(columns())
    values = column.to_pylist()
    there = [None if value != value else value for value in values]
    known = [value for value in VALUES[name][1] if value is not None and value == value] or [0]
    asked = draw(st.sampled_from(known))
    meant = float(np.float32(asked)) if name == "f32" else asked
    forms: dict[str, tuple[Any, Any]] = {
        "one": (asked, lambda value: value == meant),
        "some": ([asked, None], lambda value: value is None or value == meant),
        "not": ({"!=": asked}, lambda value: value is not None and value != meant),
        "none": (None, lambda value: value is None),
        "there": ({"!=": None}, lambda value: value is not None),
    }
    if not isinstance(asked, (str, bool)):
        forms |= {
            ">=": ({">=": asked}, lambda value: value is not None and value >= meant),
            "<": ({"<": asked}, lambda value: value is not None and value < meant),
            "beyond": ({">": 2**70}, lambda value: value is not None and value > 2**70),
        }
    wanted, holds = forms[draw(st.sampled_from([*forms]))]
    return column, wanted, [row for row, value in enumerate(there) if holds(value)]


class TestStatistics:
    """No row group is left out that has wanted rows."""

    @pytest.fixture(scope="class")
    @classmethod
    def served(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
        folder = tmp_path_factory.mktemp("statistics")
        with serve(folder) as server:
            yield Remote("parquet", folder, server)

    @settings(max_examples=150)
    @given(questions(), st.integers(1, 4), st.booleans())
    def test_every_wanted_row_is_found(
        self, served: Remote, question: tuple[pa.Array, Any, list[int]], group: int, dictionary: bool
    ) -> None:
        column, wanted, expected = question
        table = pa.table({"it": column, "row": range(len(column))})
        pq.write_table(table, served.path(), row_group_size=group, use_dictionary=dictionary)
        assert served.open(filter={"it": wanted}).read().column("row").to_pylist() == expected

    def test_without_statistics(self, remote: Remote) -> None:
        write(remote, {"z": range(3000)}, write_statistics=False)
        assert remote.read(filter={"z": [5, 2500]})["z"].tolist() == [5, 2500]

    def test_of_single_precision(self, remote: Remote) -> None:
        """All of 0.7 in single precision is less than 0.7, and is what is meant."""
        write(remote, {"conf": pa.array([0.7] * 10, pa.float32())})
        for wanted in (0.7, {">=": 0.7}, {"<=": 0.7}, [0.7]):
            assert len(remote.read(filter={"conf": wanted})) == 10

    def test_of_half_precision(self, remote: Remote) -> None:
        """They are bytes, which no number is held against."""
        write(remote, {"half": np.float16([1, 2, 3]), "x": [1, 2, 3]})
        assert remote.read(filter={"x": 2, "half": {"!=": None}})["half"].tolist() == [2]


OPTIONS: list[dict[str, Any]] = [
    *({"compression": codec} for codec in ("none", "zstd", "gzip", "brotli")),
    {"version": "1.0"},
    {"data_page_version": "2.0"},
    {"store_schema": False},
    {"use_byte_stream_split": True, "use_dictionary": False},
    {"write_page_index": True},
    {"write_page_checksum": True},
]


class TestOfOthers:
    """Files that pandas did not write."""

    @pytest.mark.parametrize("options", OPTIONS, ids=str)
    def test_options(self, remote: Remote, options: dict[str, Any]) -> None:
        write(remote, {"a": np.arange(3000), "b": np.linspace(0, 1, 3000)}, **options)
        assert_frame_equal(remote.read(), pd.read_parquet(remote.path()))
        assert remote.read(filter={"a": [3, 2999]})["a"].tolist() == [3, 2999]

    def test_categories_that_differ_between_row_groups(self, remote: Remote) -> None:
        first, second = (pa.array(words).dictionary_encode() for words in (["b", "a"], ["c", "b"]))
        with pq.ParquetWriter(remote.path(), pa.schema([("kind", first.type)])) as writer:
            for words in (first, second):
                writer.write_table(pa.table({"kind": words}))
        assert remote.read()["kind"].tolist() == ["b", "a", "c", "b"]
        assert remote.read(filter={"kind": ["b", "c"]})["kind"].tolist() == ["b", "c", "b"]

    def test_names_with_dots(self, remote: Remote) -> None:
        write(remote, {"x.y": [1, 2], "x": [3, 4], "x.y.z": [5, 6]})
        for name, value in (("x", 4), ("x.y", 2), ("x.y.z", 6)):
            assert remote.read(columns=[name], filter={name: value}).to_dict("list") == {name: [value]}

    def test_replaced_between_two_reads_of_a_scan(self, remote: Remote) -> None:
        pq.write_table(pa.table({"a": range(5000)}), remote.path(), row_group_size=50)
        batches = remote.open().batches()
        next(batches)
        pq.write_table(pa.table({"a": range(5000, 0, -1)}), remote.path("other"), row_group_size=50)
        remote.path("other").replace(remote.path())
        with pytest.raises(SourceChangedError, match="was replaced while it was read"):
            list(batches)
