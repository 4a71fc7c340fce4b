"""Folders of files: listed, chosen, fetched several at once, and nothing by accident."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import emcatalog.download as download_module
import emcatalog.file_tree as module
from emcatalog.download import find_download
from emcatalog.errors import (
    ArgumentError,
    CacheError,
    EmcatalogError,
    NotCachedError,
    SettingsError,
    SourceCorruptError,
    SourceError,
    SourceMissingError,
    SourceUnavailableError,
)
from emcatalog.file_tree import FilesPlan, FilesReport, FileTree
from emcatalog.locations import StorageOptions
from emcatalog.mirror.cache import Cache
from emcatalog.mirror.inventory import list_mirrors, remove_mirror
from emcatalog.settings import Settings, load_settings
from tests.replica.gcs import GcsHandler, serve_gcs, tensorstore_environment
from tests.replica.s3 import S3, serve_s3
from tests.replica.server import serve
from tests.replica.wire import Answer, Call, Server, running
from tests.test_fetch import assert_clear, hear, last_words, say, start_python

BLOCK = 1 << 14
OPTIONS = StorageOptions()

_random = np.random.default_rng(0)
FILES = {
    "README": b"About.",
    "neurons/0.csv": b"a,b\n",
    "neurons/1.csv": b"1,2\n3,4\n",
    "neurons/deeper/2.csv": b"",
    "synapses/a name+é #?%20&=[1].bin": _random.bytes(500),
    "synapses/large.bin": _random.bytes(9 * BLOCK + 5),
    "synapses/larger.bin": _random.bytes(12 * BLOCK),
}
"""What every store holds below ``database``."""

NBYTES = sum(map(len, FILES.values()))
CSV = [name for name in FILES if name.endswith(".csv")]


def write_files(folder: Path) -> None:
    for name, content in FILES.items():
        path = folder / "database" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_module, "BLOCK_BYTES", BLOCK)
    monkeypatch.setattr(module, "BLOCK_BYTES", BLOCK)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder that stands for a bucket."""
    folder = tmp_path / "buckets" / "bucket"
    write_files(folder)
    return folder


@pytest.fixture
def tree(source: Path) -> FileTree:
    """The files in a folder of this computer."""
    return open_tree(f"file://{source}/database")


@pytest.fixture
def web(source: Path) -> Iterator[Server]:
    with serve(source) as server:
        yield server


@pytest.fixture
def gcs(source: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Google's API, for processes that begin from now on."""
    with serve_gcs(source.parent, page=3) as server:
        for name, value in tensorstore_environment(server).items():
            monkeypatch.setenv(name, value)
        yield server


def open_tree(url: str, options: StorageOptions = OPTIONS, *, offline: bool = False) -> FileTree:
    return FileTree(url, options, load_settings(offline=offline))


def offline(tree: FileTree) -> FileTree:
    return dataclasses.replace(tree, settings=load_settings(offline=True))


def names(tree: FileTree, pattern: Any = None) -> list[str]:
    return [item.name for item in tree.ls(pattern)]


def assert_kept(tree: FileTree, *wanted: str) -> None:
    """These files are there, are right and are known to be; and no other is."""
    kept = {path for path in tree.folder.rglob("*") if path.is_file() and not path.name.startswith(".")}
    assert kept == {tree.path(name) for name in wanted}
    for name in wanted:
        assert tree.path(name).read_bytes() == FILES[name]
        assert find_download(tree.address(name), tree.path(name)) is not None


# --- what is there


def test_listing(tree: FileTree, source: Path) -> None:
    found = tree.ls()
    assert [item.name for item in found] == sorted(FILES)
    assert [item.nbytes for item in found] == [len(FILES[name]) for name in sorted(FILES)]


@pytest.mark.parametrize(
    ("pattern", "chosen"),
    [
        ("*.csv", CSV),
        ("neurons/*", CSV),
        ("neurons/?.csv", ["neurons/0.csv", "neurons/1.csv"]),
        ("neurons/[1-9].csv", ["neurons/1.csv"]),
        ("README", ["README"]),
        ("synapses/a name+é #?%20&=[1].bin", ["synapses/a name+é #?%20&=[1].bin"]),  # spelt out
        (["README", "*/0.csv"], ["README", "neurons/0.csv"]),
        (("*.csv", "neurons/*"), CSV),  # each once
        ("*", list(FILES)),
    ],
)
def test_patterns(tree: FileTree, pattern: Any, chosen: list[str]) -> None:
    assert names(tree, pattern) == sorted(chosen)
    plan = tree.plan(pattern)
    assert (plan.files, plan.nbytes) == (len(chosen), sum(len(FILES[name]) for name in chosen))


@pytest.mark.parametrize(
    ("pattern", "advice"),
    [
        ("neurons/0.cvs", "Did you mean 'neurons/0.csv'?"),
        ("neurons", "It is a folder: 'neurons/*' has the files in it."),
        ("neurons/deeper/", "It is a folder: 'neurons/deeper/*'"),
        ("*.parquet", "There are README, neurons/ (3 files), synapses/ (3 files)"),
        (["*.csv", "nothing*"], "no file matches 'nothing*'"),
        ("NEURONS/*", "There are README"),
        ("", "There are README"),
    ],
)
def test_a_pattern_that_nothing_matches(tree: FileTree, pattern: Any, advice: str) -> None:
    for ask in (tree.ls, tree.plan, tree.fetch):
        with pytest.raises(ArgumentError) as caught:
            ask(pattern)
        assert_clear(caught.value, ValueError, tree.url, "no file matches", advice)
    assert_kept(tree)


@pytest.mark.parametrize("pattern", [[], 3, ["*.csv", 3], {"a": 1}.values()])
def test_what_is_no_pattern(tree: FileTree, pattern: Any) -> None:
    with pytest.raises(ArgumentError, match="files are chosen by a pattern"):
        tree.ls(pattern)


def test_a_folder_that_is_not_there(source: Path) -> None:
    with pytest.raises(SourceMissingError):
        open_tree(f"file://{source}/none").ls()


# --- fetching


def test_nothing_is_fetched_by_accident(tree: FileTree) -> None:
    for arguments in ({}, {"pattern": "*.csv", "all": True}):
        with pytest.raises(ArgumentError) as caught:
            tree.fetch(**arguments)
        assert_clear(caught.value, ValueError, tree.url, "7 files of 344.6 kB", "344.6 kB are not here", "all=True")
    assert_kept(tree)


def test_all(tree: FileTree) -> None:
    plan = tree.plan()
    assert plan == FilesPlan(7, NBYTES, 0, 0, tree.folder)
    assert (plan.missing, plan.missing_bytes) == (7, NBYTES)
    assert str(plan) == f"7 files of 344.6 kB: 0 cached, 7 to fetch (344.6 kB), into {tree.folder}"
    report = tree.fetch(all=True)
    assert report == FilesReport(7, NBYTES, 7, NBYTES, report.seconds, tree.folder)
    assert str(report).startswith("fetched 7 files (344.6 kB), reused 0, in ")
    assert_kept(tree, *FILES)


def test_a_pattern_and_then_the_rest(tree: FileTree) -> None:
    tree.fetch("*.csv")
    assert_kept(tree, *CSV)
    begun: list[tuple[str, int]] = []
    arrived: list[int] = []

    def start(title: str, nbytes: int) -> Any:
        begun.append((title, nbytes))
        return arrived.append

    report = tree.fetch(all=True, progress=start)
    assert (report.files, report.fetched, report.reused) == (7, 4, 3)
    assert begun == [("4 files", NBYTES - sum(len(FILES[name]) for name in CSV))]
    assert sum(arrived) == report.fetched_bytes == begun[0][1]
    assert tree.plan().missing == 0
    assert tree.fetch(all=True, progress=start).fetched == 0
    assert len(begun) == 1
    assert_kept(tree, *FILES)


def test_where_files_are_kept(tmp_path: Path) -> None:
    tree = open_tree("gs://flyem-male-cns/v0.9/database/neo4j/")
    assert tree.folder == tmp_path / "cache/gs/flyem-male-cns/v0.9/database/neo4j/kept-files"
    assert tree.path("a b/c.csv") == tree.folder / "a b" / "c.csv"
    elsewhere = open_tree("s3://bucket/folder", StorageOptions(endpoint_url="https://minio.local"))
    assert elsewhere.folder == tmp_path / "cache/s3+minio.local/bucket/folder/kept-files"


def test_a_cache_in_a_bucket(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMCATALOG_CACHE", "s3://bucket/cache")
    with pytest.raises(SettingsError, match="cache_dir="):
        open_tree(f"file://{source}/database").fetch("*.csv")


def test_the_cache_s_own_tools_see_the_files(tree: FileTree) -> None:
    tree.fetch("*.csv")
    cache = Cache.at(load_settings())
    (kept,) = list_mirrors(cache)
    assert cache.url + "/" + kept.name == str(tree.folder)
    remove_mirror(cache, kept.name)
    assert tree.plan().cached == 0
    assert tree.fetch("*.csv").fetched == 3


def test_a_file_that_changed(tree: FileTree, source: Path) -> None:
    tree.fetch(all=True)
    (source / "database/README").write_bytes(b"Another.")
    tree.path("neurons/1.csv").write_bytes(b"damaged")
    assert (tree.plan().cached, tree.plan().missing) == (5, 2)
    assert tree.fetch(all=True).fetched == 2
    assert tree.path("README").read_bytes() == b"Another."
    assert tree.path("neurons/1.csv").read_bytes() == FILES["neurons/1.csv"]


@pytest.fixture
def s3() -> Iterator[S3]:
    with serve_s3() as service:
        yield service


def test_from_s3(source: Path, s3: S3) -> None:
    s3.upload(source, "bucket")
    tree = open_tree("s3://bucket/database", StorageOptions(endpoint_url=s3.url))
    assert [item.md5 for item in tree.ls()] == [hashlib.md5(FILES[name]).hexdigest() for name in sorted(FILES)]
    assert tree.fetch(all=True).fetched == 7
    assert_kept(tree, *FILES)


def fetch_and_say(url: str, arguments: str) -> None:
    """Fetch and say what becomes of it (in a process of its own: TensorStore reads its variables once)."""
    download_module.BLOCK_BYTES = module.BLOCK_BYTES = BLOCK  # type: ignore[misc]
    try:
        report = open_tree(url).fetch(**json.loads(arguments), progress=lambda *_: _say_arrived)
        say(fetched=report.fetched, reused=report.reused)
    except EmcatalogError as error:
        say(kinds=[kind.__name__ for kind in type(error).__mro__], message=str(error))
    except KeyboardInterrupt:
        say(interrupted=True)


def _say_arrived(nbytes: int) -> None:
    say(arrived=nbytes)


def fetch_elsewhere(url: str, **arguments: Any) -> dict[str, Any]:
    with start_python(fetch_and_say, url, json.dumps(arguments)) as process:
        return last_words(process)


def data(server: Server) -> list[str]:
    """Paths of the answers that were data, and neither a listing nor a description."""
    return [record.path for record in server.requests if record.method == "GET" and "alt=media" in record.query]


def test_from_google(gcs: Server) -> None:
    tree = open_tree("gs://bucket/database")
    assert fetch_elsewhere(tree.url, all=True) == {"fetched": 7, "reused": 0}
    assert_kept(tree, *FILES)
    assert len(data(gcs)) == 3 + 1 + 10 + 12  # each in as few parts as there are; for an empty one nobody asks
    assert len(gcs.requests) - len(data(gcs)) == 3  # pages of the listing, and nothing for each file
    gcs.clear()
    assert fetch_elsewhere(tree.url, all=True) == {"fetched": 0, "reused": 7}
    assert data(gcs) == []


# --- web servers, which cannot be listed


def test_files_of_a_web_server_are_named(web: Server) -> None:
    tree = open_tree(f"{web.url}/database")
    for ask in (tree.ls, tree.plan, lambda: tree.fetch("*.csv"), lambda: tree.fetch(all=True)):
        with pytest.raises(SourceUnavailableError, match="name each file"):
            ask()
    assert tree.fetch(["neurons/1.csv", "synapses/large.bin"]).fetched == 2
    assert_kept(tree, "neurons/1.csv", "synapses/large.bin")
    with pytest.raises(SourceMissingError) as caught:
        tree.fetch(["neurons/1.csv", "neurons/7.csv"])
    assert_clear(caught.value, FileNotFoundError, f"{web.url}/database/neurons/7.csv")


def test_files_of_a_web_server_offline(web: Server) -> None:
    tree = open_tree(f"{web.url}/database")
    tree.fetch(["neurons/1.csv", "README"])
    web.clear()
    assert names(offline(tree)) == ["README", "neurons/1.csv"]
    assert names(offline(tree), "*.csv") == ["neurons/1.csv"]
    assert offline(tree).fetch("neurons/1.csv").reused == 1
    with pytest.raises(NotCachedError) as caught:
        offline(tree).fetch(["neurons/1.csv", "neurons/0.csv"])
    assert_clear(caught.value, OSError, tree.url, "never listed", "neurons/0.csv", "without offline")
    assert web.requests == []


# --- offline


def test_a_folder_that_was_never_listed(tree: FileTree) -> None:
    for ask in (tree.ls, tree.plan, tree.fetch):
        with pytest.raises(NotCachedError) as caught:
            getattr(offline(tree), ask.__name__)("*.csv")
        assert_clear(caught.value, OSError, tree.url, "never listed here", "without offline")


def test_the_last_listing_answers(tree: FileTree, source: Path) -> None:
    tree.fetch("neurons/?.csv")
    shutil.rmtree(source)
    away = offline(tree)
    assert names(away) == sorted(FILES)
    assert (away.plan().files, away.plan().cached) == (7, 2)
    assert away.fetch("neurons/?.csv").reused == 2
    with pytest.raises(NotCachedError) as caught:
        away.fetch("*.csv")
    assert_clear(caught.value, OSError, "of 3 files 1 is not here: neurons/deeper/2.csv; ask again without offline")
    with pytest.raises(ArgumentError, match="no file matches 'none'"):
        away.fetch("none")
    with pytest.raises(ArgumentError, match="all=True"):
        away.fetch()


@pytest.mark.parametrize("listing", [b"", b"[", b"{}", b'[{"name": 1}]'])
def test_a_listing_that_is_none(tree: FileTree, listing: bytes) -> None:
    tree.fetch("*.csv")
    (tree.folder / ".listing").write_bytes(listing)
    assert names(offline(tree)) == sorted(CSV)  # what is kept is still known
    assert names(tree) == sorted(FILES)
    assert names(offline(tree)) == sorted(FILES)


def test_a_listing_is_given_where_it_cannot_be_kept(tree: FileTree, tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    assert names(tree) == sorted(FILES)
    with pytest.raises(CacheError, match="cache_dir="):
        tree.fetch("*.csv")


# --- files that fail


def test_a_failure_of_one_is_none_of_the_others(gcs: Server) -> None:
    tree = open_tree("gs://bucket/database")
    gcs.fail("*neurons/1.csv", 404)
    gcs.fail("*synapses/large.bin", 410)
    answer = fetch_elsewhere(tree.url, all=True)
    assert answer["kinds"][0] == "SourceMissingError"
    for words in (
        f"{tree.url}: 2 files of 7 failed, 5 are done and kept. ",
        "Failed: neurons/1.csv, synapses/large.bin. ",
        "The first says: gs://bucket/database/neurons/1.csv: ",
    ):
        assert words in answer["message"]
    assert_kept(tree, *(name for name in FILES if name not in ("neurons/1.csv", "synapses/large.bin")))
    gcs.heal()
    gcs.clear()
    assert fetch_elsewhere(tree.url, all=True) == {"fetched": 2, "reused": 5}
    assert {path.rpartition("/")[2] for path in data(gcs)} == {"1.csv", "large.bin"}
    assert_kept(tree, *FILES)


def test_failures_of_several_kinds(gcs: Server) -> None:
    gcs.fail("*0.csv", 404)
    gcs.fail("*1.csv", 403)
    answer = fetch_elsewhere("gs://bucket/database", pattern="*.csv")
    assert answer["kinds"][0] == "SourceError"
    assert "2 files of 3 failed, 1 are done and kept" in answer["message"]


def test_wrong_checksums(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"bucket/database/README": "AAAAAAAAAAAAAAAAAAAAAA=="}
    with serve_gcs(source.parent, md5=wrong) as server:
        for name, value in tensorstore_environment(server).items():
            monkeypatch.setenv(name, value)
        answer = fetch_elsewhere("gs://bucket/database", pattern=["README", "*.csv"])
    assert answer["kinds"][0] == SourceCorruptError.__name__
    assert "1 file of 4 failed, 3 are done and kept. Ask again to get the rest. Failed: README." in answer["message"]
    tree = open_tree("gs://bucket/database")
    assert_kept(tree, *CSV)
    assert sorted(path.name for path in tree.folder.iterdir()) == [".listing", "neurons"]


def test_a_server_that_goes_down_is_not_asked_for_every_file(tmp_path: Path) -> None:
    source, many = tmp_path / "buckets/bucket", 300
    write_files(source)
    for number in range(many):
        (source / f"database/neurons/{number}.csv").write_bytes(b"1")
    tree = open_tree(f"file://{source}/database")
    tree.ls()
    mirrored = dataclasses.replace(
        tree, settings=Settings(mirrors={f"file://{source}/database/neurons": "http://127.0.0.1:1"}, retries=0)
    )
    with pytest.raises(SourceUnavailableError) as caught:
        mirrored.fetch("*")
    assert_clear(caught.value, ConnectionError, "20 files of ", "were not waited for", "cannot be reached")


def test_no_room(tree: FileTree, source: Path) -> None:
    free = shutil.disk_usage(source).free
    os.truncate(source / "database/synapses/large.bin", free // 2 + (1 << 30))  # sparse
    os.truncate(source / "database/synapses/larger.bin", free // 2 + (1 << 30))
    with pytest.raises(CacheError) as caught:
        tree.fetch(all=True)
    assert_clear(caught.value, OSError, tree.url, "make room", "cache_dir=")
    assert_kept(tree)  # not even those that would fit
    tree.fetch("*.csv")
    assert_kept(tree, *CSV)


# --- fetches that end early


class Gate(GcsHandler):
    """A bucket that, as long as it is closed, fails for what lies beyond the third block of a file."""

    closed = True

    def __call__(self, call: Call) -> Answer:
        wanted = re.fullmatch(r"bytes=(\d+)-\d+", call.headers.get("range", ""))
        return Answer(503) if self.closed and wanted and int(wanted[1]) >= 3 * BLOCK else super().__call__(call)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_ended_and_resumed(source: Path, end: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    tree, bucket = open_tree("gs://bucket/database"), Gate(source.parent)
    small = [name for name in FILES if len(FILES[name]) <= BLOCK]
    monkeypatch.setenv("EMCATALOG_RETRIES", "32")
    with running(Server(bucket)) as server:
        for name, value in tensorstore_environment(server).items():
            monkeypatch.setenv(name, value)
        with start_python(fetch_and_say, tree.url, json.dumps({"all": True})) as process:
            arrived = sorted(hear(process)["arrived"] for _ in range(4 + 2 * 3))  # one of the small ones is empty
            assert arrived[4:] == [BLOCK] * 6
            process.send_signal(end)
            if end == signal.SIGINT:
                assert hear(process) == {"interrupted": True}
        assert_kept(tree, *small)
        assert tree.plan().cached_bytes == sum(len(FILES[name]) for name in small) + 6 * BLOCK
        bucket.closed = False
        server.clear()
        assert fetch_elsewhere(tree.url, all=True) == {"fetched": 2, "reused": 5}
        assert_kept(tree, *FILES)
        assert sum(record.bytes for record in server.requests if "alt=media" in record.query) == sum(
            len(FILES[name]) - 3 * BLOCK for name in FILES if name not in small
        )


def test_a_crash_of_the_progress_bar_is_raised(tree: FileTree) -> None:
    def crash(_: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        tree.fetch(all=True, progress=lambda *_: crash)
    assert tree.fetch(all=True).files == 7
    assert_kept(tree, *FILES)


def test_processes_that_fetch_the_same_files(gcs: Server) -> None:
    gcs.latency_s = 0.01
    tree = open_tree("gs://bucket/database")
    arguments = json.dumps({"all": True})
    with (
        start_python(fetch_and_say, tree.url, arguments) as one,
        start_python(fetch_and_say, tree.url, arguments) as other,
    ):
        answers = [last_words(one), last_words(other)]
    assert [answer["fetched"] + answer["reused"] for answer in answers] == [7, 7]
    assert_kept(tree, *FILES)
    assert sum(record.bytes for record in gcs.requests if "alt=media" in record.query) == NBYTES


# --- names

HOSTILE = [
    "../outside",
    "../../../outside",
    "a/../../outside",
    "/etc/outside",
    "..",
    ".",
    ".hidden",
    ".listing",
    ".a.json",
    "a/b",
    "a//b",
    "C:\\windows",
    "a\\..\\b",
    "~/x",
    "line\nbreak",
    "\x1b[31mred/..",
]


class Hostile(GcsHandler):
    """A bucket that lists what no file system has."""

    def __call__(self, call: Call) -> Answer:
        if not call.path.endswith("/o"):
            return Answer(200, b"content") if "alt=media" in call.query else Answer(404)
        prefix = parse_qs(call.query)["prefix"][0]
        items = [{"name": prefix + name, "size": "7", "generation": "1"} for name in HOSTILE]
        return Answer(200, json.dumps({"items": items}).encode(), (("Content-Type", "application/json"),))


def test_no_name_leads_out_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(Server(Hostile(tmp_path))) as server:
        for name, value in tensorstore_environment(server).items():
            monkeypatch.setenv(name, value)
        tree = open_tree("gs://bucket/database")
        answer = fetch_elsewhere(tree.url, all=True)
    # What servers would read as another address is not asked for, and a name with a line break no bucket can have; the
    # others are kept, each under a name of its own.
    assert answer["kinds"][0] == SourceError.__name__
    assert f"7 files of {len(HOSTILE)} failed, {len(HOSTILE) - 7} are done and kept" in answer["message"]
    assert answer["message"].isprintable()
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and not path.name.startswith(".")]
    assert len(kept) == len(HOSTILE) - 7
    assert all(path.is_relative_to(tree.folder) for path in kept)
    outside = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_relative_to(tree.folder)]
    assert outside == []


def test_a_file_with_the_name_of_a_folder(s3: S3) -> None:
    """Buckets have both; what is kept here is one of the two, and the other is an error."""
    client = s3.client()
    client.create_bucket(Bucket="clash", ACL="public-read")
    for name in ("a", "a/b"):
        client.put_object(Bucket="clash", Key=f"folder/{name}", Body=b"content")
    tree = open_tree("s3://clash/folder", StorageOptions(endpoint_url=s3.url))
    with pytest.raises(CacheError) as caught:
        tree.fetch(all=True)
    assert_clear(caught.value, OSError, "1 file of 2 failed, 1 are done and kept", "cannot be written")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=2, max_size=2, unique=True))
def test_every_name_has_a_place_of_its_own(both: list[str]) -> None:
    tree = FileTree("gs://bucket/folder", OPTIONS, Settings(cache="/cache"))
    places = [tree.path(name) for name in both]
    assert places[0] != places[1]
    for place in places:
        assert Path(os.path.normpath(place)) == place
        assert place.is_relative_to(tree.folder)
        assert place != tree.folder
        assert not any(part.startswith(".") for part in place.relative_to(tree.folder).parts)
