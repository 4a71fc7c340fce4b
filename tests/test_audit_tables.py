"""``emcatalog check`` of tables and folders of files: what a catalog declares, held against what their stores say."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import yaml
from pyarrow import feather, parquet

import emcatalog
from emcatalog.audit import audit, can_audit
from emcatalog.audit.report import Difference
from emcatalog.entries.files import FilesModel
from emcatalog.entries.neuprint import NeuprintModel
from emcatalog.entries.skeletons import SkeletonsModel
from emcatalog.entries.table import TableModel
from emcatalog.errors import SourceMissingError
from emcatalog.settings import load_settings
from tests.replica.gcs import serve_gcs
from tests.replica.tables import table_path
from tests.replica.wire import Server
from tests.test_audit import check, facts, write_catalog
from tests.test_cli import assert_one_sentence, call
from tests.test_cli_tables import BUCKET, FILES, METADATA, bucket, here, web

__all__ = ["bucket", "here", "web"]  # fixtures of this module, too

COLUMNS = {
    "body": "int64", "x": "int32", "conf": "float32", "mean": "float64", "kind": "category", "type": "string",
    "flag": "bool", "soma": "list<int64>",
}  # fmt: skip
"""Of the table of these tests."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A table of all types that a catalog can declare but other widths of integers."""
    columns = {
        "body": pa.array([1, 2, 3], pa.int64()), "x": pa.array([1, 2, 3], pa.int32()),
        "conf": pa.array([0.5, 1, 1], pa.float32()), "mean": pa.array([0.5, 1, 1], pa.float64()),
        "kind": pa.array(["a", "b", "a"]).dictionary_encode(), "type": pa.array(["a", None, "b"]),
        "flag": pa.array([True, False, None]), "soma": pa.array([[1, 2], None, []], pa.list_(pa.int64())),
    }  # fmt: skip
    feather.write_feather(pa.table(columns), tmp_path / "t.feather")
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    return tmp_path / "t.feather"


def table(path: Path, **keys: Any) -> TableModel:
    url = f"{path.suffix.removeprefix('.')}://file://{path}"
    return TableModel.model_validate({"url": url, "columns": COLUMNS, "source": "a test", **keys})


def files(folder: Path, **keys: Any) -> FilesModel:
    return FilesModel.model_validate({"url": f"file://{folder}", "source": "a test", **keys})


class TestTable:
    @pytest.mark.parametrize("suffix", [".feather", ".parquet"])
    def test_all_is_right(self, path: Path, suffix: str) -> None:
        stored = path.with_suffix(suffix)
        found = audit(table(stored, rows=3, stored_bytes=stored.stat().st_size), load_settings())
        assert (found.is_good, found.differences, found.undeclared) == (True, (), {})

    @pytest.mark.parametrize(
        ("name", "declared", "says"),
        [
            ("body", "uint64", "int64"),
            ("x", "int64", "int32"),
            ("conf", "float64", "float32"),
            ("kind", "string", "category"),
            ("type", "category", "string"),
            ("soma", "int64", "list<int64>"),
            ("gone", "int64", "no such column"),
        ],
    )
    def test_a_column_that_is_not_as_declared(self, path: Path, name: str, declared: str, says: str) -> None:
        found = audit(table(path, columns={**COLUMNS, name: declared}), load_settings())
        assert found.differences == (Difference(f"columns.{name}", declared, says),)
        assert not found.is_good

    def test_what_is_not_declared(self, path: Path) -> None:
        found = audit(table(path, columns={"body": "int64", "kind": "category"}), load_settings())
        rest = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items() if name not in ("body", "kind"))
        assert found.undeclared == {"columns": rest, "rows": "3", "stored_bytes": str(path.stat().st_size)}
        assert found.is_good

    @pytest.mark.parametrize(
        ("keys", "difference"),
        [
            ({"rows": 4}, Difference("rows", "4", "3")),
            ({"stored_bytes": 5}, Difference("stored_bytes", "5", "{size}")),
        ],
    )
    def test_numbers(self, path: Path, keys: dict[str, int], difference: Difference) -> None:
        found = audit(table(path, **keys), load_settings())
        says = difference.found.format(size=path.stat().st_size)
        assert found.differences == (Difference(difference.key, difference.declared, says),)

    @pytest.mark.parametrize("digits", [1, 2])
    def test_a_size_in_few_digits(self, tmp_path: Path, digits: int) -> None:
        """As a README has it: 780 MB."""
        feather.write_feather(pa.table({"body": range(100_000)}), tmp_path / "t.feather", compression="uncompressed")
        size = (tmp_path / "t.feather").stat().st_size
        power = 10 ** (len(str(size)) - digits)
        about = table(tmp_path / "t.feather", columns={"body": "int64"}, stored_bytes=round(size / power) * power)
        assert audit(about, load_settings()).is_good
        wrong = table(tmp_path / "t.feather", columns={"body": "int64"}, stored_bytes=(round(size / power) + 1) * power)
        assert not audit(wrong, load_settings()).is_good

    def test_a_checksum(self, google_md5: tuple[str, str]) -> None:
        url, md5 = google_md5
        declared = {"url": f"feather://{url}", "columns": {"body": "int64"}, "source": "a test"}
        for wrong in (False, True):
            said = "0" * 32 if wrong else md5
            found = audit(TableModel.model_validate({**declared, "md5": said}), load_settings())
            assert found.differences == ((Difference("md5", said, md5),) if wrong else ())

    def test_where_the_store_has_no_checksum_nothing_is_said(self, path: Path) -> None:
        found = audit(table(path, md5="0" * 32), load_settings())
        assert found.differences == ()
        assert "md5" not in (found.undeclared or {})

    @pytest.mark.parametrize("content", [None, b"", b"no table at all", b"ARROW1" + bytes(100)])
    def test_one_that_cannot_be_read(self, tmp_path: Path, content: bytes | None) -> None:
        if content is not None:
            (tmp_path / "t.feather").write_bytes(content)
        found = audit(table(tmp_path / "t.feather"), load_settings())
        assert found.failure is not None
        assert isinstance(found.failure, SourceMissingError) == (content is None)
        assert not found.is_good
        assert audit(table(tmp_path / "t.feather", unconfirmed="a guess"), load_settings()).is_good


@pytest.fixture
def google_md5(tmp_path: Path) -> Any:
    """A table at the address that a bucket of Google's has on the web, which says its MD5."""
    path = tmp_path / "buckets" / "bucket" / "t.feather"
    path.parent.mkdir(parents=True)
    feather.write_feather(pa.table({"body": [1, 2]}), path)
    with serve_gcs(tmp_path / "buckets") as server:
        yield f"{server.url}/bucket/t.feather", hashlib.md5(path.read_bytes()).hexdigest()


class TestFiles:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for name, size in (("a", 10), ("deep/b", 20), ("deep/er/c", 70_000)):
            (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "files" / name).write_bytes(bytes(size))
        return tmp_path / "files"

    @pytest.mark.parametrize(
        ("keys", "differences"),
        [
            ({"count": 3, "stored_bytes": 70_030}, []),
            ({"stored_bytes": 70_000}, []),  # in as many digits as are said
            ({"count": 2}, [Difference("count", "2", "3")]),
            ({"stored_bytes": 60_000}, [Difference("stored_bytes", "60000", "70030")]),
        ],
    )
    def test_numbers(self, folder: Path, keys: dict[str, int], differences: list[Difference]) -> None:
        found = audit(files(folder, **keys), load_settings())
        assert list(found.differences) == differences
        assert found.is_good == (not differences)

    def test_what_is_not_declared(self, folder: Path) -> None:
        assert audit(files(folder), load_settings()).undeclared == {"count": "3", "stored_bytes": "70030"}

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        found = audit(files(tmp_path / "none"), load_settings())
        assert isinstance(found.failure, SourceMissingError)
        assert not found.is_good
        assert audit(files(tmp_path / "none", unconfirmed="a guess"), load_settings()).is_good

    def test_a_web_server_cannot_be_asked(self) -> None:
        found = audit(FilesModel.model_validate({"url": "https://host/folder", "source": "x"}), load_settings())
        assert found.is_good
        assert "cannot be asked which files it has" in str(found.unseen)


def test_what_describes_itself() -> None:
    skeletons = SkeletonsModel.model_validate({"url": "swc://gs://b/f", "source": "x"})
    service = NeuprintModel(server="https://neuprint.janelia.org", dataset="d", source="x")
    assert [can_audit(model) for model in (skeletons, service, files(Path("/x")))] == [False, False, True]


class TestCommand:
    """What a user reads."""

    def test_the_miniature_has_other_numbers(self, here: Path) -> None:
        text = check("malecns_data.body_stats", status=1)
        rows = len(pd.read_feather(table_path(here, "body_stats", "v1.0"), columns=["body"]))
        state, differs = facts(text, "malecns_data.body_stats.table v1.0")
        assert state == "DIFFERS"
        assert differs["rows"] == f"declared 88384522; the source says {rows}"
        assert differs["stored_bytes"].startswith("declared 778062826; the source says ")
        assert set(facts(text, "malecns_data.body_stats.table v0.9")[1]) == {"stored_bytes", "not declared"}
        assert text.splitlines()[-1] == "2 sources looked at, 2 to be mended"

    def test_with_its_numbers_all_is_right(self, here: Path, tmp_path: Path) -> None:
        path = table_path(here, "body_stats", "v1.0")
        rows = len(pd.read_feather(path, columns=["body"]))
        columns = dict(emcatalog.catalog.malecns_data.body_stats.arguments.table.columns)
        url = f"feather://{BUCKET}/{path.relative_to(here)}"
        args = {"url": url, "columns": columns, "rows": rows, "stored_bytes": path.stat().st_size, "source": "x"}
        database = {name: content for name, content in FILES.items() if name.startswith("neo4j/")}
        folder = {"url": f"{BUCKET}/v0.9/database/neo4j", "count": len(database), "source": "x"}
        folder["stored_bytes"] = sum(map(len, database.values()))
        common = {"description": "d", "metadata": METADATA}
        catalog = write_catalog(
            tmp_path / "own.yaml",
            stats={"driver": "em_table", "args": {"table": args}, **common},
            database={"driver": "em_files", "args": {"files": folder}, **common},
        )
        assert check("--catalog", catalog).splitlines() == [
            "stats.table  ok",
            "database.files  ok",
            "2 sources looked at, none to be mended",
        ]
        told = yaml.safe_load(catalog.read_text())
        told["sources"]["stats"]["args"]["table"]["columns"] |= {"pre": "int64", "prey": "int32"}
        catalog.write_text(json.dumps(told))
        differs = facts(check("--catalog", catalog, status=1), "stats.table")[1]
        assert differs == {
            "columns.pre": "declared int64; the source says int32",
            "columns.prey": "declared int32; the source says no such column",
        }

    def test_columns_that_nobody_declares(self, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A release that added some."""
        frame = pd.read_feather(table_path(here, "body_stats", "v1.0")).assign(added=1.5, more="a")
        path = table_path(tmp_path, "body_stats", "v1.0")
        path.parent.mkdir(parents=True)
        feather.write_feather(frame, path)
        monkeypatch.setenv("EMCATALOG_MIRRORS", json.dumps({BUCKET: f"file://{tmp_path}"}))
        done = call("check", "malecns_data.body_stats", "--version=v1.0", status=1, env={"COLUMNS": "3000"})
        differs = facts(done.stdout, "malecns_data.body_stats.table v1.0")[1]
        assert differs["not declared"] == "columns: added float64, more string"

    def test_on_a_web_server_folders_are_left_out(self, web: Server) -> None:
        text = check("malecns_data.neo4j_database")
        name = "malecns_data.neo4j_database.files v1.0"
        assert facts(text, name)[0] == "not looked at"
        assert "cannot be asked which files it has" in facts(text, name)[1]["reason"]
        assert text.splitlines()[-1] == "0 sources looked at, none to be mended, 2 that cannot be asked"
        assert web.requests == []

    def test_a_server_that_is_down(self, web: Server) -> None:
        web.fail("*", 503)
        state, reason = facts(
            check("malecns_data.body_stats", "--version=v0.9", status=1), "malecns_data.body_stats.table v0.9"
        )
        assert state == "CANNOT BE READ"
        assert "keeps failing" in reason["reason"]

    @pytest.mark.parametrize("entry", ["malecns_data.skeletons", "malecns_data.neuprint"])
    def test_what_does_not_describe_itself(self, web: Server, entry: str) -> None:
        assert check(entry) == "nothing to look at: skeletons and services do not describe themselves\n"
        assert web.requests == []

    def test_offline(self, here: Path) -> None:
        done = call("check", "malecns_data.body_stats", status=2, env={"EMCATALOG_OFFLINE": "1"})
        assert_one_sentence(done.stderr, "a check asks the sources", "EMCATALOG_OFFLINE")
