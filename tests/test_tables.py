"""The tables of male CNS as the catalog gives them: read, filtered, joined, fetched, each held against pandas."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from emcatalog.download import BLOCK_BYTES
from emcatalog.errors import (
    ArgumentError,
    MissingExtraError,
    NotCachedError,
    SourceChangedError,
    SourceCorruptError,
    SourceMissingError,
    SourceUnavailableError,
    UnknownArgumentError,
)
from tests.conftest import Replica, ServeAs, place, python
from tests.replica.table_columns import NAMES
from tests.replica.tables import build_tables, spoil, table_path
from tests.replica.wire import Server, running
from tests.test_download import Gate

BUCKET = "gs://flyem-male-cns"
KEYS = {"body_annotations": "bodyId", "connectome_weights": "body_pre", "synapse_partners": "body_pre"}
"""The column of ids, where it is not ``body``."""
SPACE = ("synapse_points", "synapse_partners", "tbar_neurotransmitters")
BOX = (20000, 60000, 0, 60000, 30000, 130000)
TISSUE = place(0, 160, 0, 160, 0, 160)


def whole(replica: Replica, name: str, version: str = "v0.9") -> pd.DataFrame:
    """What pandas makes of the whole file."""
    return pd.read_feather(table_path(replica.folder, name, version))


def assert_same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """As ``assert_frame_equal``, which takes a minute for categories of so many rows: it shows what differs."""
    same = found.equals(expected) and found.index.name == expected.index.name
    kinds = [frame.select_dtypes("category").dtypes for frame in (found, expected)]
    for one, other in zip(*kinds, strict=True):
        same &= list(one.categories) == list(other.categories) and one.ordered == other.ordered
    if not same:
        pd.testing.assert_frame_equal(found, expected)
        raise AssertionError("the categories differ")


def in_box(frame: pd.DataFrame, box: tuple[int, ...], suffix: str = "") -> pd.Series:
    """Which rows lie in a box."""
    inside = [
        frame[f"{axis}{suffix}"].between(*box[2 * i : 2 * i + 2], inclusive="left") for i, axis in enumerate("xyz")
    ]
    return inside[0] & inside[1] & inside[2]


def rows_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Numbered from 0 where the file has no index of its own."""
    return frame if frame.index.name else frame.reset_index(drop=True)


@pytest.fixture
def tables(male_cns: Server, catalog: Any) -> Any:
    """The sub-catalog, read from the miniature bucket."""
    return catalog.malecns_data


class TestEveryTable:
    """Each entry in both releases."""

    @pytest.mark.parametrize("version", ["v0.9", "v1.0"])
    @pytest.mark.parametrize("name", NAMES)
    def test_read(self, tables: Any, replica: Replica, name: str, version: str) -> None:
        assert_same(tables[name](version=version).read(), whole(replica, name, version))

    @pytest.mark.parametrize("name", NAMES)
    def test_filtered_by_id(self, tables: Any, replica: Replica, name: str) -> None:
        frame, key = whole(replica, name), KEYS.get(name, "body")
        ids = np.unique(frame[key])[::7][:100]
        expected = rows_of(frame[frame[key].isin(ids)])
        assert 0 < len(expected) < len(frame)
        assert_same(tables[name](filter={key: ids}).read(), expected)

    @pytest.mark.parametrize("name", SPACE)
    def test_in_a_box(self, tables: Any, replica: Replica, name: str) -> None:
        frame = whole(replica, name)
        expected = rows_of(frame[in_box(frame, BOX, "_pre" if name == "synapse_partners" else "")])
        assert 0 < len(expected) < len(frame)
        assert_same(tables[name](bbox=BOX).read(), expected)
        nm = tuple(8 * edge for edge in BOX)
        assert_same(tables[name](bbox=nm, units="nm").read(), expected)
        by_axis = {axis: BOX[2 * i : 2 * i + 2] for i, axis in enumerate("xyz")}
        assert len(tables[name](bbox=by_axis).read()) == len(expected)

    @pytest.mark.parametrize("name", NAMES)
    def test_fetched_it_gives_the_same(self, tables: Any, replica: Replica, male_cns: Server, name: str) -> None:
        frame, key = whole(replica, name), KEYS.get(name, "body")
        queries: list[dict[str, Any]] = [{}, {"filter": {key: np.unique(frame[key])[::5]}}]
        queries += [{"bbox": BOX}, {"bbox": BOX, "filter": {key: {">=": 100_000}}}] if name in SPACE else []
        before = [tables[name](**query).read() for query in queries]
        report = tables[name].fetch(progress=False)
        assert report.rows == len(frame)
        assert report.fetched_bytes == table_path(replica.folder, name, "v0.9").stat().st_size
        male_cns.clear()
        for query, expected in zip(queries, before, strict=True):
            assert_same(tables[name](**query).read(), expected)
            assert_same(tables[name](offline=True, **query).read(), expected)
        assert male_cns.requests == []

    @pytest.mark.parametrize("name", NAMES)
    def test_schema_and_discover(self, tables: Any, replica: Replica, name: str) -> None:
        frame, source = whole(replica, name), tables[name]
        assert source.schema.names == pa.ipc.open_file(table_path(replica.folder, name, "v0.9")).schema.names
        found = source.discover()
        assert found["dtype"] == {column: str(dtype) for column, dtype in frame.dtypes.items()}
        assert found["npartitions"] == -(-len(frame) // 65_536)


class TestColumns:
    def test_by_name_in_the_order_asked(self, tables: Any, replica: Replica) -> None:
        columns = ["conf", "x", "kind", "body"]
        found = tables.synapse_points(columns=columns).read()
        assert_same(found, whole(replica, "synapse_points")[columns].reset_index(drop=True))
        assert list(tables.synapse_points(columns="conf, x").read().columns) == ["conf", "x"]

    def test_the_index_is_a_column_that_can_be_asked_for(self, tables: Any, replica: Replica) -> None:
        found = tables.synapse_points(columns=["point_id", "x"]).read()
        assert found.index.name == "point_id"
        assert_same(found, whole(replica, "synapse_points")[["x"]])

    def test_a_release_that_added_columns(self, tables: Any, replica: Replica) -> None:
        old, new = (set(tables.synapse_points(version=version).schema.names) for version in ("v0.9", "v1.0"))
        assert new - old == {"compartment"}
        found = tables.synapse_points(version="v1.0", columns=["z", "compartment"]).read()
        assert_same(found, whole(replica, "synapse_points", "v1.0")[["z", "compartment"]].reset_index(drop=True))

    def test_only_what_is_needed_travels(self, tables: Any, replica: Replica, male_cns: Server) -> None:
        male_cns.clear()
        tables.synapse_points(columns=["x", "y"]).read()
        sent = sum(record.bytes for record in male_cns.requests)
        assert sent < 0.35 * table_path(replica.folder, "synapse_points", "v0.9").stat().st_size

    def test_a_box_reads_the_other_columns_of_few_batches(
        self, tmp_path: Path, serve_as: ServeAs, catalog: Any
    ) -> None:
        build_tables(tmp_path / "bucket", {"synapse_points": 500_000}, versions=["v0.9"])
        server = serve_as(BUCKET, tmp_path / "bucket")
        path = table_path(tmp_path / "bucket", "synapse_points", "v0.9")
        frame = pd.read_feather(path)
        first = frame.iloc[70_000]
        box = tuple(int(first[axis]) + step for axis in "xyz" for step in (0, 1))
        found = catalog.malecns_data.synapse_points(bbox=box).read()
        assert_same(found, frame[in_box(frame, box)])
        assert sum(record.bytes for record in server.requests) < 0.5 * path.stat().st_size


class TestFilters:
    @pytest.mark.parametrize(
        ("condition", "expected"),
        [
            ({"conf": {">=": 0.75}}, lambda f: f.conf >= 0.75),
            ({"conf": {">": 0.5, "<": 0.9}}, lambda f: (f.conf > 0.5) & (f.conf < 0.9)),
            ({"kind": "PreSyn"}, lambda f: f.kind == "PreSyn"),
            ({"kind": ["PreSyn", "PostSyn"]}, lambda f: f.kind.notna()),
            (
                {"primary": {"!=": None}, "x": range(1000, 30000)},
                lambda f: f.primary.notna() & f.x.between(1000, 29999),
            ),
            ({"body": -5}, lambda f: f.body == -5),
            ({"x": 2**40}, lambda f: f.x == -1),
        ],
    )
    def test_equal_pandas(self, tables: Any, replica: Replica, condition: Any, expected: Any) -> None:
        frame = whole(replica, "synapse_points")
        found = tables.synapse_points(filter=condition).read()
        assert_same(found, rows_of(frame[expected(frame)]))

    def test_neurons_are_bodies_with_a_superclass(self, tables: Any, replica: Replica) -> None:
        frame = whole(replica, "body_annotations")
        found = tables.body_annotations(filter={"superclass": {"!=": None}}, columns=["bodyId", "superclass"]).read()
        assert found["bodyId"].tolist() == frame.bodyId[frame.superclass.notna()].tolist()

    def test_a_join(self, tables: Any, replica: Replica) -> None:
        """Which classes the partners of some neurons are."""
        bodies = tables.connectome_weights(columns=["body_pre"]).read()["body_pre"].unique()[:20]
        weights = tables.connectome_weights(filter={"body_pre": bodies}).read()
        known = tables.body_annotations(columns=["bodyId", "superclass"]).read()
        joined = weights.merge(known, left_on="body_post", right_on="bodyId")
        everything = whole(replica, "connectome_weights").merge(
            whole(replica, "body_annotations"), left_on="body_post", right_on="bodyId"
        )
        everything = everything[everything.body_pre.isin(bodies)]
        assert joined.groupby("superclass")["weight"].sum().to_dict() == (
            everything.groupby("superclass")["weight"].sum().to_dict()
        )


class TestOtherForms:
    def test_arrow(self, tables: Any, replica: Replica) -> None:
        found = tables.synapse_partners(bbox=BOX).to_arrow(progress=False)
        assert found.schema.field("primary_post").type == pa.dictionary(pa.int16(), pa.string(), ordered=True)
        assert found.to_pandas().equals(tables.synapse_partners(bbox=BOX).read())

    def test_dask(self, tables: Any, replica: Replica) -> None:
        lazy = tables.synapse_points(columns=["x", "kind", "conf"], filter={"kind": "PreSyn"}).to_dask()
        frame = whole(replica, "synapse_points")
        expected = rows_of(frame[frame.kind == "PreSyn"])[["x", "kind", "conf"]].reset_index(drop=True)
        assert_same(lazy.compute().reset_index(drop=True), expected)
        assert lazy["x"].sum().compute() == expected["x"].sum()

    def test_partitions_are_record_batches(self, tables: Any, replica: Replica) -> None:
        source = tables.synapse_points(columns=["z"])
        parts = [source.read_partition(i) for i in range(source.discover()["npartitions"])]
        assert [len(part) for part in parts] == [65_536, 65_536, 150_000 - 2 * 65_536]
        assert pd.concat(parts)["z"].tolist() == whole(replica, "synapse_points")["z"].tolist()
        with pytest.raises(IndexError):
            source.read_partition(3)

    def test_head_reads_no_more_than_it_shows(self, tables: Any, replica: Replica, male_cns: Server) -> None:
        male_cns.clear()
        head = tables.synapse_points(columns=["x"]).head(3)
        assert head["x"].tolist() == whole(replica, "synapse_points")["x"].tolist()[:3]
        assert len(male_cns.requests) < 10

    def test_a_pickled_source(self, tables: Any) -> None:
        source = tables.synapse_points(bbox=BOX, columns=["x"])
        again = pickle.loads(pickle.dumps(source))
        assert again.name == "synapse_points"
        assert_same(again.read(), source.read())

    def test_the_coordinates_of_the_other_end(self, tables: Any, replica: Replica) -> None:
        frame = whole(replica, "synapse_partners")
        found = tables.synapse_partners(bbox=BOX, coordinates=["x_post", "y_post", "z_post"]).read()
        assert_same(found, rows_of(frame[in_box(frame, BOX, "_post")]))


class TestFetch:
    def test_again_it_transfers_nothing(self, tables: Any, male_cns: Server) -> None:
        tables.body_annotations.fetch(progress=False)
        male_cns.clear()
        assert tables.body_annotations.fetch(progress=False).fetched_bytes == 0
        assert [record.method for record in male_cns.requests] == ["HEAD"]
        assert tables.body_annotations(offline=True).fetch(progress=False).fetched_bytes == 0

    def test_any_tool_opens_the_copy(self, tables: Any, replica: Replica) -> None:
        folder = tables.synapse_points.fetch(progress=False).folder
        found = pd.read_parquet(folder).sort_values("emcatalog_row")
        assert found["x"].tolist() == whole(replica, "synapse_points")["x"].tolist()

    def test_nothing_else_stays(self, tables: Any) -> None:
        folder = tables.body_stats.fetch(progress=False).folder
        assert [path.name for path in folder.parent.iterdir()] == [folder.name]

    def test_a_table_that_was_replaced(self, tmp_path: Path, replica: Replica, serve_as: ServeAs, catalog: Any) -> None:
        bucket = tmp_path / "bucket"
        path = table_path(bucket, "body_stats", "v0.9")
        path.parent.mkdir(parents=True)
        shutil.copy(table_path(replica.folder, "body_stats", "v0.9"), path)
        serve_as(BUCKET, bucket)
        source = catalog.malecns_data.body_stats
        source.fetch(progress=False)
        shutil.copy(table_path(replica.folder, "body_stats", "v1.0"), path)
        with pytest.raises(SourceChangedError, match="emcatalog cache rm"):
            source.fetch(progress=False)
        assert len(source.read()) == len(whole(replica, "body_stats"))

    def test_a_wrong_checksum_keeps_nothing(self, tables: Any, tmp_path: Path) -> None:
        """A web server names no checksum, and the catalog knows that of the published v1.0, which this is not."""
        with pytest.raises(SourceCorruptError, match=r"MD5 is 404c3349c28580148e16815eb99f382a.*nothing was kept"):
            tables.body_stats(version="v1.0").fetch(progress=False)
        assert not [path for path in (tmp_path / "cache").rglob("*.feather*") if path.is_file()]

    def test_a_killed_fetch_goes_on(self, tmp_path: Path, catalog: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        build_tables(tmp_path / "bucket", {"synapse_points": 600_000}, versions=["v0.9"])
        path = table_path(tmp_path / "bucket", "synapse_points", "v0.9")
        monkeypatch.setenv("EMCATALOG_RETRIES", "32")
        with running(Server(Gate(tmp_path / "bucket", BLOCK_BYTES))) as server:
            monkeypatch.setenv("EMCATALOG_MIRRORS", json.dumps({BUCKET: server.url}))
            script = "import emcatalog; emcatalog.catalog.malecns_data.synapse_points.fetch()"
            with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL) as process:
                while process.poll() is None and not _arrived(tmp_path / "cache", BLOCK_BYTES):
                    os.sched_yield()
                process.kill()
            source = catalog.malecns_data.synapse_points
            with pytest.raises(NotCachedError):
                source(offline=True).read()
            server.handler.opened = path.stat().st_size
            server.clear()
            report = source.fetch(progress=False)
            # And one byte, which shows whether the server sends parts of files.
            assert sum(record.bytes for record in server.requests) == path.stat().st_size - BLOCK_BYTES + 1
        assert report.rows == 600_000
        assert_same(source(offline=True).read(), pd.read_feather(path))

    def test_what_is_no_table_is_not_kept(
        self, tmp_path: Path, replica: Replica, serve_as: ServeAs, catalog: Any
    ) -> None:
        bucket = tmp_path / "bucket"
        path = table_path(bucket, "body_stats", "v0.9")
        path.parent.mkdir(parents=True)
        path.write_bytes(table_path(replica.folder, "body_stats", "v0.9").read_bytes()[:-100])
        serve_as(BUCKET, bucket)
        with pytest.raises(SourceCorruptError, match="no table that can be read"):
            catalog.malecns_data.body_stats.fetch(progress=False)
        assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def _arrived(cache: Path, nbytes: int) -> bool:
    """Whether a download below a folder has so many bytes."""
    return any(path.stat().st_size >= nbytes for path in cache.rglob("*.partial"))


class TestBadInput:
    def test_a_column_that_is_not_there(self, tables: Any) -> None:
        with pytest.raises(ArgumentError, match=r"no column 'bdy'; there are z, y, x, .*Did you mean 'body'"):
            tables.synapse_points(columns=["x", "bdy"]).read()

    def test_a_filter_of_a_column_that_is_not_there(self, tables: Any) -> None:
        with pytest.raises(ArgumentError, match=r"filter: there is no column 'superclas'.*Did you mean 'superclass'"):
            tables.body_annotations(filter={"superclas": "descending"}).read()

    @pytest.mark.parametrize(
        ("condition", "says"),
        [
            ({"body": "10000"}, r"body holds int64; '10000' cannot be compared"),
            ({"kind": 1}, r"kind holds text; 1 cannot be compared"),
            ({"kind": {">": "PostSyn"}}, r"kind holds text, and > compares numbers"),
            ({"conf": {"=>": 0.5}}, r"there are ==, !=, >, >=, <, <="),
        ],
    )
    def test_a_filter_of_the_wrong_type(self, tables: Any, condition: Any, says: str) -> None:
        with pytest.raises(ArgumentError, match=says):
            tables.synapse_points(filter=condition).read()

    @pytest.mark.parametrize(("given", "says"), [("body=1", "not a mapping"), ({1: 2}, "not a mapping")])
    def test_a_filter_that_is_none(self, catalog: Any, given: Any, says: str) -> None:
        with pytest.raises(ArgumentError, match=says):
            catalog.malecns_data.synapse_points(filter=given)

    @pytest.mark.parametrize("columns", [[], [1], 5, [""]])
    def test_columns_that_are_none(self, catalog: Any, columns: Any) -> None:
        with pytest.raises(ArgumentError, match="is not a list of names of columns"):
            catalog.malecns_data.synapse_points(columns=columns)

    def test_a_box_without_coordinates(self, catalog: Any) -> None:
        with pytest.raises(ArgumentError, match="no coordinates that a bbox could be held against; name three"):
            catalog.malecns_data.body_annotations(bbox=BOX)

    def test_coordinates_that_are_no_numbers(self, tables: Any) -> None:
        with pytest.raises(ArgumentError, match=r"superclass holds text, and a bbox needs numbers"):
            tables.body_annotations(bbox=BOX, coordinates=["bodyId", "superclass", "type"]).read()

    @pytest.mark.parametrize("bbox", [(1, 2, 3), (5, 5, 0, 1, 0, 1), "a,b", {"x": [0, 1]}])
    def test_a_box_that_is_none(self, catalog: Any, bbox: Any) -> None:
        with pytest.raises(ArgumentError):
            catalog.malecns_data.synapse_points(bbox=bbox)

    def test_an_argument_of_volumes(self, catalog: Any) -> None:
        with pytest.raises(UnknownArgumentError, match=r"no argument 'resolution'; there are columns, filter, bbox"):
            catalog.malecns_data.synapse_points(resolution=8)

    def test_a_truncated_feather(self, tmp_path: Path, replica: Replica, serve_as: ServeAs, catalog: Any) -> None:
        path = table_path(tmp_path / "bucket", "synapse_points", "v0.9")
        path.parent.mkdir(parents=True)
        path.write_bytes(table_path(replica.folder, "synapse_points", "v0.9").read_bytes()[:1_000_000])
        serve_as(BUCKET, tmp_path / "bucket")
        with pytest.raises(SourceCorruptError, match="does not end as an Arrow IPC"):
            catalog.malecns_data.synapse_points.read()

    def test_broken_bytes(self, tmp_path: Path, replica: Replica, serve_as: ServeAs, catalog: Any) -> None:
        path = table_path(tmp_path / "bucket", "synapse_points", "v0.9")
        path.parent.mkdir(parents=True)
        shutil.copy(table_path(replica.folder, "synapse_points", "v0.9"), path)
        spoil(path, at=0.1, nbytes=4000)
        serve_as(BUCKET, tmp_path / "bucket")
        with pytest.raises(SourceCorruptError, match="does not decode"):
            catalog.malecns_data.synapse_points.read()

    def test_a_table_that_is_not_there(self, tmp_path: Path, serve_as: ServeAs, catalog: Any) -> None:
        (tmp_path / "empty").mkdir()
        serve_as(BUCKET, tmp_path / "empty")
        with pytest.raises(SourceMissingError, match=r"body-stats-male-cns-v0\.9"):
            catalog.malecns_data.body_stats.read()

    def test_a_server_that_is_down(self, catalog: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EMCATALOG_MIRRORS", '{"gs://flyem-male-cns": "http://127.0.0.1:9"}')
        with pytest.raises(SourceUnavailableError, match="cannot be reached"):
            catalog.malecns_data.body_stats.read()

    def test_offline(self, catalog: Any) -> None:
        with pytest.raises(NotCachedError, match="was never fetched; fetch"):
            catalog.malecns_data.body_stats(offline=True).read()
        with pytest.raises(NotCachedError, match="was never fetched; fetch"):
            catalog.malecns_data.body_stats(offline=True).fetch()

    def test_without_the_extra(self, male_cns: Server) -> None:
        script = (
            "import sys; sys.modules['pyarrow'] = None\n"
            "import emcatalog\n"
            "try: emcatalog.catalog.malecns_data.body_stats.read()\n"
            "except emcatalog.errors.MissingExtraError as error: print(error)"
        )
        assert "pip install 'emcatalog[tables]'" in python(script)
        assert issubclass(MissingExtraError, ModuleNotFoundError)
