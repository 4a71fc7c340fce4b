"""Skeletons, files and the cache on the command line: what a person types, reads, and finds on the disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emcatalog import download
from tests.replica.gcs import serve_gcs, tensorstore_environment
from tests.replica.server import FolderHandler, parse_range
from tests.replica.skeletons import SWC, skeletons_folder
from tests.replica.wire import Answer, Call, Server, running
from tests.test_cli import COMMAND, assert_one_sentence, call, row, run
from tests.test_cli_tables import (
    BUCKET,
    DATABASE,
    FILES,
    IDS,
    POINTS,
    SKELETONS,
    STATS,
    bucket,
    here,
    wait_until,
    web,
    whole,
)  # fmt: skip

__all__ = ["bucket", "here", "web"]  # fixtures of this module, too


@pytest.fixture
def google(bucket: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The bucket at Google's, with checksums, for processes that begin from now on."""
    with serve_gcs(bucket.parent) as server:
        for name, value in tensorstore_environment(server).items():
            monkeypatch.setenv(name, value)
        yield server


@dataclass
class Breaking:
    """Serves files up to some byte, and fails beyond."""

    folder: Path
    good: int = 8 << 20

    def __call__(self, call: Call) -> Answer:
        first, _ = parse_range(call.headers.get("range"), 1 << 30) or (0, 0)
        return FolderHandler(self.folder)(call) if first < self.good else Answer(503)


@pytest.fixture
def breaking(bucket: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with running(Server(Breaking(bucket))) as server:
        monkeypatch.setenv("EMCATALOG_MIRRORS", json.dumps({BUCKET: server.url}))
        yield server


def told(stdout: str) -> dict[str, str]:
    """Names and values, one pair a line."""
    return {name: " ".join(value.split()) for name, value in (line.split("  ", 1) for line in stdout.splitlines())}


def kept(*parts: str) -> Path:
    return Path(os.environ["EMCATALOG_CACHE"], "gs/flyem-male-cns/v0.9", *parts)


def spoil(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)


class TestSkeleton:
    @pytest.mark.parametrize("form", ["swc", "precomputed"])
    def test_measured(self, web: Server, bucket: Path, form: str) -> None:
        stdout = call("skeleton", SKELETONS, "--form", form, "12781,556329", "10001", "12781").stdout
        assert [line.split()[0] for line in stdout.splitlines()] == ["id", *map(str, IDS)]
        for body in IDS:
            nodes = np.loadtxt(bucket / skeletons_folder("v0.9", SWC) / f"{body}.swc")
            parent = nodes[:, 6].astype(int)
            child = np.flatnonzero(parent > 0)
            children = np.bincount(parent[child], minlength=len(nodes) + 1)[1:]
            steps = np.linalg.norm(nodes[child, 2:5] - nodes[parent[child] - 1, 2:5], axis=1).sum() * 0.008
            counts = len(nodes), (children > 1).sum(), (children == 0).sum(), (parent < 0).sum()
            assert row(stdout, str(body))[1:5] == list(map(str, counts))
            assert float(row(stdout, str(body))[5].removesuffix(" um").replace(",", "")) == pytest.approx(
                steps, abs=0.1
            )

    def test_ids(self, here: Path) -> None:
        done = call("skeleton", SKELETONS)
        assert done.stdout.split() == sorted(map(str, IDS), key=int)
        assert done.stderr == "3 skeletons\n"

    def test_written(self, web: Server, bucket: Path, tmp_path: Path) -> None:
        out = tmp_path / "new" / "folder"
        paths = [out / "12781.swc", out / "556329.swc"]
        assert call("skeleton", SKELETONS, 12781, 556329, "--out", out).stdout == "".join(f"{path}\n" for path in paths)
        assert sorted(out.iterdir()) == paths
        stored = np.loadtxt(bucket / skeletons_folder("v0.9", SWC) / "12781.swc")
        np.testing.assert_allclose(np.loadtxt(paths[0]), stored * [1, 1, 8, 8, 8, 8, 1], rtol=1e-9)
        head = [line for line in paths[0].read_text().splitlines() if line.startswith("#")]
        assert head[:2] == ["# body 12781, in nm", f"# {BUCKET}/{skeletons_folder('v0.9', SWC)}/12781.swc"]
        assert "# licence: CC BY 4.0" in head

    def test_a_file_that_is_there_is_not_lost(self, web: Server, tmp_path: Path) -> None:
        (tmp_path / "556329.swc").write_text("mine")
        done = call("skeleton", SKELETONS, 12781, 556329, "--out", tmp_path, status=2)
        assert_one_sentence(done.stderr, f"{tmp_path} has 556329.swc", "--overwrite")
        assert web.requests == []
        assert (tmp_path / "556329.swc").read_text() == "mine"
        call("skeleton", SKELETONS, 12781, 556329, "--out", tmp_path, "--overwrite")
        assert (tmp_path / "556329.swc").read_text() != "mine"

    def test_those_that_are_missing_are_told_at_once(self, web: Server) -> None:
        stderr = call("skeleton", SKELETONS, 12781, 77, 78, status=2).stderr
        assert_one_sentence(stderr, "2 of the 3 asked for do not exist: 77, 78", "`emcatalog skeleton` without ids")
        assert row(call("skeleton", SKELETONS, 12781, "--offline").stdout, "12781")

    def test_stopped_it_goes_on(self, web: Server) -> None:
        web.hang("*/10001.swc", seconds=300)
        with subprocess.Popen(
            [*COMMAND, "skeleton", SKELETONS, *map(str, IDS)], stderr=subprocess.PIPE, text=True
        ) as process:
            folder = kept("segmentation", SWC, "kept-files")
            wait_until(lambda: folder.is_dir() and len(list(folder.glob("*.swc"))) == 2)
            process.send_signal(signal.SIGINT)
            message = process.communicate(timeout=60)[1]
        assert process.returncode == 130
        assert message == "interrupted; what was fetched is kept, and the same command goes on from there\n"


class TestFiles:
    def test_plan_and_fetch(self, google: Server) -> None:
        """As a user does, with the checksums of a bucket."""
        nbytes = sum(len(FILES[name]) for name in FILES if name.startswith("neo4j"))
        stderr = run("fetch", DATABASE, status=2).stderr
        for words in (f"3 files of {nbytes / 1e6:.1f} MB", "--pattern '*.csv'", "--all for everything"):
            assert words in stderr
        fetched = told(run("fetch", DATABASE, "--pattern", "README", "--pattern", "*/log").stdout)
        assert fetched["kept"] == "2 files, 13 bytes"
        plan = told(run("plan", DATABASE).stdout)
        assert (plan["files"], plan["cached"]) == (f"3, {nbytes / 1e6:.1f} MB", "2, 13 bytes")
        assert plan["to fetch"] == f"1, {(nbytes - 13) / 1e6:.1f} MB"
        google.corrupt("*store.db", kind="flip", times=3)  # its blocks
        assert "MD5" in run("fetch", DATABASE, "--all", status=2).stderr
        google.heal()
        run("fetch", DATABASE, "--all")
        assert told(run("fetch", DATABASE, "--all").stdout)["fetched"] == "nothing was missing"
        for name in ("neo4j/README", "neo4j/data/store.db", "neo4j/data/log"):
            folder, _, rest = name.partition("/")
            assert (kept("database", folder, "kept-files") / rest).read_bytes() == FILES[name]

    def test_stopped_it_goes_on(self, web: Server) -> None:
        web.hang("*store.db", seconds=300, skip=2)  # how large it is, and a block
        command = ("fetch", DATABASE, "--pattern", "data/store.db")
        with subprocess.Popen([*COMMAND, *command], stderr=subprocess.PIPE, text=True) as process:
            wait_until(lambda: web.count("*store.db") >= 2)
            process.send_signal(signal.SIGINT)
            message = process.communicate(timeout=60)[1]
        assert process.returncode == 130
        assert message == "interrupted; what was fetched is kept, and the same command goes on from there\n"
        web.heal()
        assert told(call(*command).stdout)["kept"] == "1 file, 21.0 MB"
        assert kept("database/neo4j/kept-files/data/store.db").read_bytes() == FILES["neo4j/data/store.db"]

    def test_what_was_begun_is_told(self, breaking: Any) -> None:
        fetch, database = ("fetch", DATABASE, "--pattern", "data/store.db"), "gs/flyem-male-cns/v0.9/database/neo4j"
        assert_one_sentence(call(*fetch, status=2).stderr, "Ask again to get the rest", "data/store.db")
        assert row(call("cache", "ls").stdout, database)[1:] == ["kept files, 1 begun", "0", "8.4 MB"]
        plan = told(call("plan", *fetch[1:]).stdout)
        assert (plan["cached"], plan["to fetch"]) == ("0, 8.4 MB", "1, 12.6 MB")
        breaking.handler = FolderHandler(breaking.handler.folder)
        assert told(call(*fetch).stdout)["fetched"].startswith("1 file, 12.6 MB in ")
        assert row(call("cache", "ls").stdout, database)[1:3] == ["kept files", "1"]

    def test_a_table_that_was_begun(self, breaking: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(download, "BLOCK_BYTES", 1 << 16)
        monkeypatch.setattr(breaking.handler, "good", 1 << 16)
        assert_one_sentence(call("fetch", STATS, status=2).stderr, "what was fetched is kept, so ask again later")
        table = "gs/flyem-male-cns/v0.9/connectome-data/flat-connectome/body-stats-male-cns-v0.9-minconf-0.5.feather"
        assert row(call("cache", "ls", env={"COLUMNS": "160"}).stdout, table)[1:3] == ["table, 1 begun", "0"]
        assert call("cache", "verify").stdout == "0 files in 1 table: all good\n"
        assert call("cache", "rm", STATS, "--yes").stdout.startswith("removed 1 table, ")
        assert list(Path(os.environ["EMCATALOG_CACHE"]).rglob("*")) == []

    def test_both_releases_and_a_table(self, here: Path) -> None:
        assert told(call("plan", "malecns_data.neuprint_inputs", "--version=v1.0").stdout)["files"] == "2, 28 bytes"
        inputs = "gs/flyem-male-cns/v1.0/database/neuprint-inputs"
        assert row(call("cache", "ls").stdout, inputs)[1:3] == ["a listing", "0"]
        plan = told(call("plan", POINTS, "--columns", "x,y", "--bbox", "0,9,0,9,0,9").stdout)
        assert plan["columns"] == "x, y"
        assert plan["a fetch"].startswith("about 12.7 GB over the network")
        rows = len(whole(here, POINTS))
        assert told(call("fetch", POINTS).stdout)["kept"].startswith(f"{rows:,} rows")
        assert told(call("fetch", POINTS).stdout)["fetched"] == "nothing was missing"
        plan = told(call("plan", POINTS, "--offline").stdout)
        assert "from the local copy" in plan["a read"]
        assert "a fetch" not in plan


class TestCache:
    @pytest.fixture(autouse=True)
    def filled(self, here: Path) -> None:
        call("fetch", STATS)
        call("fetch", DATABASE, "--pattern", "README", "--pattern", "*/log")
        call("skeleton", SKELETONS, 12781, 10001)

    def test_ls(self) -> None:
        stdout = call("cache", "ls", env={"COLUMNS": "160"}).stdout
        table = "gs/flyem-male-cns/v0.9/connectome-data/flat-connectome/body-stats-male-cns-v0.9-minconf-0.5.feather"
        assert row(stdout, table)[1:3] == ["table", "1"]
        assert row(stdout, "gs/flyem-male-cns/v0.9/database/neo4j")[1:3] == ["kept files", "2"]
        assert row(stdout, f"gs/flyem-male-cns/{skeletons_folder('v0.9')}")[1:3] == ["kept files", "2"]
        assert row(stdout, "together")[1] == "5"

    def test_verify(self, here: Path) -> None:
        good = call("cache", "verify")
        assert good.stdout == "1 part and 4 kept files in 1 table and 2 folders: all good\n"
        assert good.stderr == "2 kept files have no checksum, so that little can be said\n"
        part = next(kept().rglob("part-*.parquet"))
        readme, skeleton = kept("database/neo4j/kept-files/README"), kept("segmentation", SWC, "kept-files/12781.swc")
        for path, at in ((part, 5000), (readme, 3), (skeleton, 200)):
            spoil(path, at)
        bad = call("cache", "verify", status=1).stdout.splitlines()
        assert [line.partition(": ")[0] for line in bad[:-1]] == [str(part), str(readme), str(skeleton)]
        assert bad[-1].endswith(": 3 bad")
        assert_one_sentence(call("table", STATS, "--head", 99999, status=2).stderr, str(part), "damaged")
        assert ": 3 bad, removed" in call("cache", "verify", "--remove", status=1).stdout
        assert not part.parent.exists()
        assert not readme.exists()
        assert call("cache", "verify").stdout == "2 kept files in 2 folders: all good\n"
        assert "never fetched" in call("table", STATS, "--offline", status=2).stderr
        call("table", STATS)  # where it lies
        assert told(call("fetch", DATABASE, "--pattern", "README").stdout)["fetched"].startswith("1 file, 6 bytes")
        call("skeleton", SKELETONS, 12781)

    @pytest.mark.parametrize(
        ("which", "says"),
        [(STATS, "removed 1 table,"), (DATABASE, "removed 1 folder,"), ("--all", "removed 1 table and 2 folders,")],
    )
    def test_rm(self, which: str, says: str) -> None:
        assert says in call("cache", "rm", which, "--yes").stdout
        assert "nothing of" in call("cache", "rm", which, "--yes", status=2).stderr if which != "--all" else True
        if which == "--all":
            assert list(Path(os.environ["EMCATALOG_CACHE"]).rglob("*")) == []
