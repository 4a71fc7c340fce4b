"""Folders of files of the shipped catalog through Intake: what there is, and what comes here, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import emcatalog
from emcatalog.errors import (
    ArgumentError,
    NotCachedError,
    SettingsError,
    SourceCorruptError,
    SourceMissingError,
    SourceUnavailableError,
    UnknownArgumentError,
)
from tests.conftest import python
from tests.replica.gcs import serve_gcs, tensorstore_environment
from tests.replica.skeletons import VERSIONS
from tests.replica.wire import Server
from tests.test_cli_tables import BUCKET, FILES, bucket, here, web
from tests.test_describe import cells

__all__ = ["bucket", "here", "web"]  # fixtures of this module, too

ENTRIES = {"neo4j_database": "neo4j", "neuprint_inputs": "neuprint-inputs"}


def below(entry: str) -> dict[str, bytes]:
    """The files of an entry by name."""
    folder = f"{ENTRIES[entry]}/"
    return {name.removeprefix(folder): content for name, content in FILES.items() if name.startswith(folder)}


def kept(report: Any) -> dict[str, bytes]:
    """The files that are in the folder of a report or a plan."""
    paths = [path for path in report.folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {path.relative_to(report.folder).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture
def data(catalog: Any) -> Any:
    """The sub-catalog of male CNS."""
    return catalog.malecns_data


@pytest.fixture
def google(bucket: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The bucket at Google's, with checksums; its data are for processes that begin from now on."""
    with serve_gcs(bucket.parent, page=2) as server:
        for name, value in tensorstore_environment(server).items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("entry", ENTRIES)
class TestEveryEntry:
    def test_ls(self, google: Server, data: Any, entry: str, version: str) -> None:
        found = data[entry](version=version).ls()
        assert [item.name for item in found] == sorted(below(entry))
        assert {item.name: item.nbytes for item in found} == {name: len(text) for name, text in below(entry).items()}
        assert {item.md5 for item in found} == {hashlib.md5(text).hexdigest() for text in below(entry).values()}
        prefixes = {record.query.partition("prefix=")[2].partition("&")[0] for record in google.requests}
        assert prefixes == {f"{version}%2Fdatabase%2F{ENTRIES[entry]}%2F"}

    def test_fetch(self, here: Path, data: Any, entry: str, version: str) -> None:
        source, files = data[entry](version=version), below(entry)
        plan = source.plan()
        nbytes = sum(map(len, files.values()))
        assert (plan.files, plan.nbytes, plan.cached, plan.missing) == (len(files), nbytes, 0, len(files))
        report = source.fetch(all=True)
        assert (report.files, report.nbytes, report.fetched, report.reused) == (len(files), nbytes, len(files), 0)
        assert kept(report) == files
        assert f"/{version}/database/" in str(report.folder)
        assert source.fetch(all=True, progress=False).fetched == 0


class TestFetch:
    def test_nothing_by_accident(self, here: Path, data: Any) -> None:
        source = data.neo4j_database
        for arguments in ({}, {"pattern": "*", "all": True}):
            with pytest.raises(ArgumentError, match=r"3 files of 21.0 MB.*either a pattern.*or all=True") as caught:
                source.fetch(**arguments)
            assert isinstance(caught.value, ValueError)
        assert kept(source.plan()) == {}

    @pytest.mark.parametrize(
        ("pattern", "names"),
        [
            ("README", ["README"]),
            ("*log", ["data/log"]),
            (["README", "data/l*"], ["README", "data/log"]),
            (("data/*", "*log"), ["data/log", "data/store.db"]),
        ],
    )
    def test_patterns(self, here: Path, data: Any, pattern: Any, names: list[str]) -> None:
        assert [item.name for item in data.neo4j_database.ls(pattern)] == names
        assert data.neo4j_database.plan(pattern).files == len(names)
        assert sorted(kept(data.neo4j_database.fetch(pattern))) == names

    def test_a_pattern_that_nothing_has(self, here: Path, data: Any) -> None:
        for call in (data.neo4j_database.ls, data.neo4j_database.plan, data.neo4j_database.fetch):
            with pytest.raises(ArgumentError, match=r"no file matches 'REDME'. Did you mean 'README'"):
                call("REDME")

    def test_the_rest_comes_later(self, here: Path, data: Any) -> None:
        data.neo4j_database.fetch("*log")
        plan, report = data.neo4j_database.plan(), data.neo4j_database.fetch(all=True)
        assert (plan.cached, plan.missing) == (1, 2)
        assert (report.fetched, report.reused) == (2, 1)
        assert kept(report) == below("neo4j_database")

    def test_checksums(self, google: Server) -> None:
        """In processes of their own: TensorStore reads once where Google's server is."""
        script = (
            "import sys, emcatalog\n"
            "source = emcatalog.catalog.malecns_data.neuprint_inputs(version='v1.0')\n"
            "try: print(source.fetch('*.csv').fetched)\n"
            "except emcatalog.errors.EmcatalogError as error: print(type(error).__name__, error)"
        )
        google.corrupt("*Synapses.csv", kind="flip", times=1)
        first = python(script)
        assert first.startswith("SourceCorruptError")
        for words in ("1 file of 2 failed, 1 are done and kept", "more/Synapses.csv", "MD5", "Ask again"):
            assert words in first
        assert python(script) == "1"
        google.clear()
        assert python(script) == "0"
        assert not [record for record in google.requests if "alt=media" in record.query]

    def test_a_server_that_fails_for_one(self, web: Server, data: Any) -> None:
        web.fail("*/log", 503)
        with pytest.raises(SourceUnavailableError, match=f"{BUCKET}/v0.9/database/neo4j/data/log .*ask again later"):
            data.neo4j_database.fetch(["README", "data/log"])
        web.heal()
        assert sorted(kept(data.neo4j_database.fetch(["README", "data/log"]))) == ["README", "data/log"]

    def test_a_web_server_has_no_list(self, web: Server, data: Any) -> None:
        for call in (data.neo4j_database.ls, data.neo4j_database.plan, lambda: data.neo4j_database.fetch(all=True)):
            with pytest.raises(SourceUnavailableError, match="name each file"):
                call()
        with pytest.raises(SourceMissingError, match=f"{BUCKET}/v0.9/database/neo4j/nothing"):
            data.neo4j_database.fetch("nothing")

    def test_a_file_that_changed_here(self, here: Path, data: Any) -> None:
        report = data.neo4j_database.fetch(["README", "data/log"])
        (report.folder / "README").write_bytes(b"abouT.")
        assert data.neo4j_database.plan("README").missing == 1
        assert data.neo4j_database.fetch("README").fetched == 1
        assert kept(report)["README"] == FILES["neo4j/README"]

    def test_one_that_is_not_what_the_store_says(self, here: Path, data: Any, web: Server) -> None:
        web.truncate("*/README")
        with pytest.raises((SourceCorruptError, SourceUnavailableError), match="README"):
            data.neo4j_database.fetch("README")
        assert not list(Path(data.neo4j_database.arguments.settings.cache).rglob("README"))


class TestOffline:
    def test_what_was_listed_and_what_is_kept(self, here: Path, data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        data.neo4j_database.fetch("*log")
        monkeypatch.setenv("EMCATALOG_MIRRORS", json.dumps({BUCKET: "file:///nowhere"}))
        source = data.neo4j_database(offline=True)
        assert [item.name for item in source.ls()] == sorted(below("neo4j_database"))
        assert (source.plan().cached, source.plan().missing) == (1, 2)
        assert source.fetch("*log").reused == 1
        with pytest.raises(NotCachedError, match=r"of 3 files 2 are not here: README, data/store.db"):
            source.fetch(all=True)

    def test_never_listed(self, data: Any) -> None:
        with pytest.raises(NotCachedError, match="never listed here"):
            data.neo4j_database(offline=True).plan()


class TestSource:
    def test_pickled_it_is_the_same(self, here: Path, data: Any) -> None:
        source = data.neuprint_inputs(version="v1.0")
        again = pickle.loads(pickle.dumps(source))
        assert repr(again) == repr(source)
        assert kept(again.fetch(all=True)) == below("neuprint_inputs")

    def test_what_it_is_asks_nothing(self, google: Server, data: Any) -> None:
        assert "252 GB" in repr(data.neo4j_database)
        assert cells(data.neuprint_inputs._repr_html_())[1] == ["files", "not confirmed", "194 GB"]
        assert google.requests == []

    def test_nothing_else_reads_them(self, google: Server, data: Any) -> None:
        source = data.neo4j_database
        for call in (
            source.read,
            source.to_dask,
            lambda: source.read_partition(0),
            lambda: next(source.read_chunked()),
        ):
            with pytest.raises(ArgumentError, match=r"neo4j_database is not read in this way: .*fetch\('\*.csv'\)"):
                call()
        assert source.discover()["shape"] is None
        assert google.requests == []

    def test_arguments(self, data: Any, tmp_path: Path, here: Path) -> None:
        with pytest.raises(UnknownArgumentError, match="no argument 'pattern'"):
            data.neo4j_database(pattern="*")
        report = data.neo4j_database(cache_dir=tmp_path / "mine").fetch("README")
        assert report.folder.is_relative_to(tmp_path / "mine")
        with pytest.raises(SettingsError, match="cache_dir= a local path"):
            data.neo4j_database(cache_dir="s3://bucket/cache").fetch("README")


def test_the_table_names_every_entry() -> None:
    sub = emcatalog.catalog.malecns_data
    assert [name for name in sub if type(sub[name]).name == "em_files"] == list(ENTRIES)
