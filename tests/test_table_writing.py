"""Ways out of a table beside a frame in memory: files that are written part by part, and lazy dask frames."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pandas.testing import assert_frame_equal
from pyarrow import feather, ipc

from emcatalog.errors import ArgumentError, SourceChangedError, SourceCorruptError
from emcatalog.tables.frame import to_dask
from emcatalog.tables.writing import write_rows
from tests.replica.server import serve
from tests.replica.tables import spoil
from tests.test_feather import PART, PARTS, ROWS, Remote, make_frame
from tests.test_fetch import assert_clear

WITHOUT_LISTS = [name for name in make_frame(1).reset_index() if name != "somaLocation"]


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Remote]:
    """A table of fourteen record batches on a server of its own."""
    folder = tmp_path / "source"
    folder.mkdir()
    feather.write_feather(make_frame(), folder / "table.feather", chunksize=PART)
    with serve(folder) as server:
        yield Remote("feather", folder, server)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """An empty folder to write to."""
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


def read_back(path: Path) -> pd.DataFrame:
    if path.suffix == ".csv":
        return pd.read_csv(path)
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_feather(path)


class TestFiles:
    """Files of a caller's."""

    @pytest.mark.parametrize("suffix", [".parquet", ".feather", ".PARQUET"])
    def test_hold_what_a_read_gives(self, remote: Remote, target: Path, suffix: str) -> None:
        given: dict[str, Any] = {"filter": {"flag": True}, "bbox": (0, 50, -50, 50, 0, 400)}
        expected = remote.read(**given)
        path = target / f"rows{suffix}"
        assert write_rows(remote.open(**given), path) == len(expected)
        assert_frame_equal(pd.read_feather(path) if suffix == ".feather" else pd.read_parquet(path), expected)
        assert [*target.iterdir()] == [path]

    def test_csv(self, remote: Remote, target: Path) -> None:
        given: dict[str, Any] = {"columns": WITHOUT_LISTS, "filter": {"z": {"<": 100}}}
        expected = remote.read(**given).reset_index()
        assert write_rows(remote.open(**given), target / "rows.csv") == len(expected)
        got = pd.read_csv(target / "rows.csv", keep_default_na=False, na_values={"weight": [""], "count": [""]})
        assert [*got.columns] == WITHOUT_LISTS
        for name in ("point_id", "z", "body", "flag", "label"):
            assert got[name].tolist() == expected[name].tolist()
        np.testing.assert_array_equal(got["conf"].astype(np.float32), expected["conf"])
        np.testing.assert_array_equal(got["weight"], expected["weight"])
        for name in ("kind", "type", "status"):
            assert got[name].tolist() == expected[name].astype(object).fillna("").tolist()

    @pytest.mark.parametrize("suffix", [".parquet", ".feather", ".csv"])
    @pytest.mark.parametrize("head", [0, 1, PART + 1, 10 * ROWS])
    def test_head(self, remote: Remote, target: Path, suffix: str, head: int) -> None:
        path = target / f"rows{suffix}"
        assert write_rows(remote.open(columns=["point_id", "x"]), path, head) == min(head, ROWS)
        got = read_back(path).reset_index(drop=suffix != ".csv")
        assert got["x"].tolist() == make_frame()["x"].tolist()[:head]

    @pytest.mark.parametrize("suffix", [".parquet", ".feather", ".csv"])
    def test_no_rows(self, remote: Remote, target: Path, suffix: str) -> None:
        path = target / f"rows{suffix}"
        assert write_rows(remote.open(columns=["x", "kind"], filter={"x": -1}), path) == 0
        assert [*read_back(path).columns] == ["x", "kind"]
        assert len(read_back(path)) == 0

    def test_few_rows_of_many_parts_become_few_row_groups(self, remote: Remote, target: Path) -> None:
        write_rows(remote.open(filter={"x": 7}), target / "rows.parquet")
        write_rows(remote.open(filter={"x": 7}), target / "rows.feather")
        assert pq.ParquetFile(target / "rows.parquet").num_row_groups == 1
        assert ipc.open_file(target / "rows.feather").num_record_batches == 1

    def test_many_rows_become_several(self, remote: Remote, target: Path) -> None:
        feather.write_feather(pd.DataFrame({"a": range(600_000)}), remote.path("long"))
        assert write_rows(remote.open("long"), target / "rows.parquet") == 600_000
        assert pq.ParquetFile(target / "rows.parquet").num_row_groups > 1
        assert pd.read_parquet(target / "rows.parquet")["a"].tolist() == list(range(600_000))

    def test_folders_are_made(self, remote: Remote, target: Path) -> None:
        path = target / "some" / "where" / "rows.feather"
        assert write_rows(remote.open(), path) == ROWS
        assert len(read_back(path)) == ROWS

    def test_progress(self, remote: Remote, target: Path) -> None:
        told: list[int] = []
        write_rows(
            remote.open(filter={"x": 7}),
            target / "rows.feather",
            progress=lambda parts: told.append(parts) or told.append,
        )
        assert told == [PARTS, *[1] * PARTS]


class TestRefused:
    """Nothing is left behind, and what is there stays."""

    @pytest.mark.parametrize(
        ("name", "hint"), [("rows.parqet", "Did you mean '.parquet'?"), ("rows", ""), ("rows.xlsx", "")]
    )
    def test_another_kind_of_file(self, remote: Remote, target: Path, name: str, hint: str) -> None:
        with pytest.raises(ArgumentError) as caught:
            write_rows(remote.open(), target / name)
        assert_clear(caught.value, ValueError, name, "a table is written as .parquet, .feather, .csv", hint)
        assert [*target.iterdir()] == []

    def test_a_file_that_is_there(self, remote: Remote, target: Path) -> None:
        path = target / "rows.csv"
        path.write_text("mine")
        with pytest.raises(ArgumentError) as caught:
            write_rows(remote.open(), path)
        assert_clear(caught.value, ValueError, f"{path} exists; choose another path")
        assert path.read_text() == "mine"

    def test_lists_in_csv(self, remote: Remote, target: Path) -> None:
        with pytest.raises(ArgumentError) as caught:
            write_rows(remote.open(), target / "rows.csv")
        assert_clear(
            caught.value, ValueError, "such a file cannot hold one of the columns", "list<", "columns=", ".parquet"
        )
        assert [*target.iterdir()] == []

    def test_unions_in_parquet(self, remote: Remote, target: Path) -> None:
        union = pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])])
        with ipc.new_file(remote.path("unions"), pa.schema([("it", union.type)])) as writer:
            writer.write_table(pa.table({"it": union}))
        with pytest.raises(ArgumentError, match="cannot hold one of the columns"):
            write_rows(remote.open("unions"), target / "rows.parquet")
        assert write_rows(remote.open("unions"), target / "rows.feather") == 2
        assert [path.name for path in target.iterdir()] == ["rows.feather"]

    def test_below_a_file(self, remote: Remote, target: Path) -> None:
        (target / "file").touch()
        with pytest.raises(ArgumentError) as caught:
            write_rows(remote.open(), target / "file" / "rows.csv")
        assert_clear(caught.value, ValueError, "rows.csv cannot be written", "choose another path")

    @pytest.mark.skipif(os.getuid() == 0, reason="root writes everywhere")
    def test_where_one_may_not_write(self, remote: Remote, target: Path) -> None:
        target.chmod(0o500)
        with pytest.raises(ArgumentError, match="cannot be written"):
            write_rows(remote.open(), target / "rows.feather")

    @pytest.mark.parametrize("suffix", [".parquet", ".feather", ".csv"])
    def test_a_source_that_breaks_in_the_middle(self, remote: Remote, target: Path, suffix: str) -> None:
        spoil(remote.path(), 0.5, 5000)
        with pytest.raises(SourceCorruptError):
            write_rows(remote.open(columns=["x", "y", "z", "body", "weight"]), target / f"rows{suffix}")
        assert [*target.iterdir()] == []

    def test_a_wrong_head(self, remote: Remote, target: Path) -> None:
        with pytest.raises(ArgumentError, match="head=-1"):
            write_rows(remote.open(), target / "rows.feather", -1)
        assert [*target.iterdir()] == []


# --- dask


@pytest.fixture
def long(remote: Remote) -> Remote:
    """A table of 40 record batches, which make three partitions."""
    feather.write_feather(make_frame(4000), remote.path(), chunksize=100)
    remote.server.clear()
    return remote


GIVEN: list[dict[str, Any]] = [
    {},
    {"filter": {"flag": True}},
    {"filter": {"z": -1}},
    {"filter": {"z": {"<": 20}}, "columns": ["status", "kind", "point_id"]},
    {"bbox": (0, 50, -50, 50, 100, 300)},
    {"columns": ["type", "x"]},
]


class TestDask:
    """The same rows, when they are computed."""

    @pytest.mark.parametrize("given", GIVEN, ids=str)
    def test_computed_it_is_what_a_read_gives(self, long: Remote, given: dict[str, Any]) -> None:
        lazy = to_dask(long.arguments(**given))
        expected = long.read(**given)
        if "point_id" not in given.get("columns", ["point_id"]):
            expected = expected.reset_index(drop=True)
        got = lazy.compute(scheduler="threads")
        got = got if expected.index.name else got.reset_index(drop=True)
        assert_frame_equal(got, expected)
        assert lazy.npartitions == 3

    def test_partitions_are_of_sixteen_batches(self, long: Remote) -> None:
        lazy = to_dask(long.arguments(columns=["z", "label"]))
        whole = long.read(columns=["z", "label"])
        assert lazy.map_partitions(len).compute(scheduler="threads").tolist() == [1600, 1600, 800]
        second = lazy.partitions[1].compute(scheduler="threads")
        assert_frame_equal(second.reset_index(drop=True), whole[1600:3200].reset_index(drop=True))

    def test_a_partition_reads_its_own_batches(self, long: Remote) -> None:
        lazy = to_dask(long.arguments(columns=["weight"]))
        long.server.clear()
        lazy.partitions[2].compute(scheduler="threads")
        assert long.server.sent() < long.path().stat().st_size / 3 + (64 << 10)

    def test_nothing_is_read_before_it_is_computed(self, long: Remote) -> None:
        given: dict[str, Any] = {"columns": ["x", "type", "conf"], "filter": {"kind": "PreSyn"}}
        lazy = to_dask(long.arguments(**given))
        highest = lazy[lazy["x"] > 5]["conf"].max()
        assert [record.method for record in long.server.requests] == ["HEAD", "GET"]  # its size, and its end
        frame = long.read(**given)
        assert highest.compute(scheduler="threads") == frame[frame["x"] > 5]["conf"].max()

    def test_categories_are_known_from_one_batch(self, long: Remote) -> None:
        lazy = to_dask(long.arguments(columns=["status", "x", "weight"]))
        assert [*lazy["status"].cat.categories] == ["Orphan", "Anchor", "never", "Leaves", "Traced"]
        assert lazy["status"].cat.as_ordered().cat.ordered
        assert (
            len(long.server.requests) <= 5
        )  # size, end, dictionaries, and of a batch what says where columns lie, and one

    def test_types_are_those_of_the_result(self, long: Remote) -> None:
        """Lists, too, stay what they are, and are not made text."""
        lazy = to_dask(long.arguments())
        got = lazy.compute(scheduler="threads")
        assert lazy.dtypes.to_dict() == got.dtypes.to_dict() == long.read().dtypes.to_dict()
        assert lazy.index.name == got.index.name == "point_id"
        assert got["somaLocation"].iloc[3].tolist() == [3, 1, 2]

    @pytest.mark.parametrize("scheduler", ["processes", "synchronous"])
    def test_in_other_processes(self, long: Remote, scheduler: str) -> None:
        lazy = to_dask(long.arguments(columns=["x", "y"], filter={"x": {">=": 50}}))
        assert int(lazy["y"].sum().compute(scheduler=scheduler)) == long.read(filter={"x": {">=": 50}})["y"].sum()

    def test_a_table_without_rows(self, long: Remote) -> None:
        feather.write_feather(make_frame(0), long.path("empty"))
        lazy = to_dask(long.arguments("empty"))
        assert_frame_equal(lazy.compute(scheduler="threads"), pd.read_feather(long.path("empty")))

    def test_a_table_that_was_replaced(self, long: Remote) -> None:
        """Numbers of batches would mean other rows."""
        lazy = to_dask(long.arguments(columns=["x"]))
        feather.write_feather(make_frame(3000), long.path(), chunksize=70)
        with pytest.raises(SourceChangedError) as caught:
            lazy.compute(scheduler="threads")
        assert_clear(caught.value, OSError, "is not what it was when to_dask() was called", "call that again")
        assert len(to_dask(long.arguments(columns=["x"])).compute(scheduler="threads")) == 3000

    def test_a_table_that_was_replaced_after_a_first_computation(self, long: Remote) -> None:
        lazy = to_dask(long.arguments(columns=["x"]))
        lazy.compute(scheduler="threads")
        feather.write_feather(make_frame(3000), long.path(), chunksize=100)
        with pytest.raises(SourceChangedError):
            lazy.compute(scheduler="threads")
        assert len(to_dask(long.arguments(columns=["x"])).compute(scheduler="threads")) == 3000

    def test_wrong_arguments_are_reported_at_once(self, long: Remote) -> None:
        with pytest.raises(ArgumentError, match=r"Did you mean 'status'\?"):
            to_dask(long.arguments(columns=["statsu"]))

    def test_it_is_a_dask_frame(self, long: Remote) -> None:
        assert isinstance(to_dask(long.arguments()), dd.DataFrame)
