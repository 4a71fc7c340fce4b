"""Several processes at one mirror, at once or one after another that was killed: no chunk is lost, no read is wrong."""

from __future__ import annotations

import hashlib
import json
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emcatalog.cutout import Cutout
from emcatalog.mirror.cache import Cache
from emcatalog.mirror.inventory import list_mirrors
from emcatalog.settings import load_settings
from tests.conftest import cut
from tests.replica.stored import Array
from tests.replica.wire import Answer, Call, Handler
from tests.test_fetch import (
    ALL,
    CHUNKS,
    IDS,
    IN_SHARD,
    SHARDINGS,
    VOXELS,
    Row,
    assert_completes,
    assert_mirror,
    fetch_and_say,
    hear,
    kept,
    path_of,
    row_bbox,
    row_of_chunks,
    say,
    start_python,
)

Span = tuple[int, int]
"""Chunks `[first, stop)` of the row."""

SAME: Span = (0, CHUNKS)
OVERLAPPING: Sequence[Span] = ((0, 7), (3, 10), (5, 13), (6, 16))
"""Boxes that begin and end inside shards."""


@pytest.fixture(params=SHARDINGS, ids=IDS)
def row(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Row]:
    """The row of chunks; each answer takes a while, so that everybody is at work at the same time."""
    with row_of_chunks(tmp_path, sharding=request.param) as made:
        made.server.latency_s = 0.02
        yield made


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Row]:
    """The row of chunks, each in a file."""
    with row_of_chunks(tmp_path) as made:
        yield made


def digest(voxels: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(voxels).tobytes()).hexdigest()


def read_when_told(url: str, spans: str) -> None:
    """Get ready, wait for a line, read boxes and say what came (in a process of its own)."""
    cut_spans = [tuple(span) for span in json.loads(spans)]
    say(ready=True)
    sys.stdin.readline()
    cutouts = [cut(url, "uint8", bbox=row_bbox(*span)) for span in cut_spans]
    fetched = sum(cutout.fetch().fetched for cutout in cutouts)
    say(fetched=fetched, digests=[digest(cutout.read()["raw"]) for cutout in cutouts])


def read_at_once(row: Row, spans_of_each: Sequence[Sequence[Span]]) -> list[dict[str, Any]]:
    """Let a process for each list of spans read them, all from the same moment on."""
    with ExitStack() as stack:
        processes = [
            stack.enter_context(start_python(read_when_told, row.url, json.dumps(spans))) for spans in spans_of_each
        ]
        for process in processes:
            assert hear(process) == {"ready": True}
        for process in processes:
            _begin(process)
        return [hear(process) for process in processes]


def _begin(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def assert_answers(row: Row, answers: Sequence[dict[str, Any]], spans_of_each: Sequence[Sequence[Span]]) -> None:
    """Everybody got what is stored; all of it is in the mirror, and nobody needs to ask again."""
    for answer, spans in zip(answers, spans_of_each, strict=True):
        assert answer["digests"] == [digest(row.expected(*span)) for span in spans]
    assert_mirror(row, has=ALL)
    row.server.clear()
    assert row.cut().fetch().fetched == 0
    assert row.server.requests == []


class TestProcesses:
    """An empty cache, and several processes that begin at the same moment."""

    @pytest.mark.parametrize("count", [2, 4])
    def test_same_box(self, row: Row, count: int) -> None:
        spans = [[SAME]] * count
        answers = read_at_once(row, spans)
        assert CHUNKS <= sum(answer["fetched"] for answer in answers) <= count * CHUNKS
        assert_answers(row, answers, spans)

    def test_overlapping_boxes(self, row: Row) -> None:
        spans = [[span] for span in OVERLAPPING]
        assert_answers(row, read_at_once(row, spans), spans)

    def test_chunks_of_the_same_shards_one_by_one(self, row: Row) -> None:
        """Each shard is written again and again, by everybody: a chunk of one must not undo a chunk of another."""
        spans = [[(chunk, chunk + 1) for chunk in range(first, CHUNKS, IN_SHARD)] for first in range(IN_SHARD)]
        answers = read_at_once(row, spans)
        assert [answer["fetched"] for answer in answers] == [CHUNKS // IN_SHARD] * IN_SHARD
        assert_answers(row, answers, spans)


class TestThreads:
    """The same within one process."""

    @pytest.mark.parametrize(
        "spans",
        [[SAME] * 4, OVERLAPPING, [(chunk, chunk + 1) for chunk in range(CHUNKS)]],
        ids=["same", "overlapping", "chunks"],
    )
    def test_cutouts_of_their_own(self, row: Row, spans: Sequence[Span]) -> None:
        with ThreadPoolExecutor(8) as pool:
            voxels = list(pool.map(lambda span: row.cut(*span).read()["raw"], spans))
        for span, got in zip(spans, voxels, strict=True):
            np.testing.assert_array_equal(got, row.expected(*span))
        assert_mirror(row, has=ALL)

    def test_one_cutout(self, row: Row) -> None:
        """As dask's threads do it: open stores are shared."""
        shared = row.cut()
        parts = [row.cut(chunk, chunk + 1).box for chunk in range(CHUNKS)]
        with ThreadPoolExecutor(8) as pool:
            voxels = list(pool.map(lambda box: shared.at(box).read()["raw"], parts))
        np.testing.assert_array_equal(np.concatenate(voxels, axis=2), row.expected())
        assert_mirror(row, has=ALL)

    def test_a_failure_in_one_is_none_in_another(self, tmp_path: Path) -> None:
        with row_of_chunks(tmp_path) as row, ThreadPoolExecutor(4) as pool:
            row.scale.replace_encoded((0, 0, 9), b"damaged")
            spans = ((0, 4), (4, 8), (8, 12), (12, 16))
            futures = [pool.submit(Cutout.fetch, row.cut(*span)) for span in spans]
            failed = [future.exception() is not None for future in futures]
            assert failed == [False, False, True, False]
            assert kept(row) >= ALL - {8, 9, 10, 11}


# --- processes that end early


def hold_up_from(row: Row, chunk: int) -> None:
    """Let requests for this chunk and those after it be repeated without end."""
    for late in range(chunk, CHUNKS):
        row.server.fail(path_of(late), 503)


class Tripwire:
    """Tells when so many requests were answered."""

    def __init__(self, inner: Handler, count: int) -> None:
        self._inner = inner
        self._left = count
        self.reached = threading.Event()

    def __call__(self, call: Call) -> Answer:
        self._left -= 1
        if self._left == 0:
            self.reached.set()
        return self._inner(call)


def hear_shards(process: subprocess.Popen[str], shards: int) -> None:
    """Hear a fetch of all chunks begin, and some of its shards arrive."""
    assert hear(process) == {"missing": CHUNKS}
    for _ in range(shards):
        assert hear(process) == {"arrived": IN_SHARD}


class TestKilled:
    """SIGKILL in the middle of a fetch, then the same fetch again."""

    @pytest.mark.parametrize("shards", [0, 1, 3])
    def test_after_some_shards(self, files: Row, shards: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EMCATALOG_RETRIES", "32")
        hold_up_from(files, shards * IN_SHARD)
        with start_python(fetch_and_say, files.url) as process:
            hear_shards(process, shards)
            process.kill()
        assert process.returncode == -signal.SIGKILL
        assert_mirror(files, has=set(range(shards * IN_SHARD)))
        files.server.heal()
        assert_completes(files)

    @pytest.mark.parametrize("sharding", SHARDINGS, ids=IDS)
    @pytest.mark.parametrize("answers", [1, 7, 14])
    def test_after_some_answers(self, tmp_path: Path, answers: int, sharding: dict[str, object] | None) -> None:
        wires: list[Tripwire] = []

        def wrap(handler: Handler) -> Handler:
            wires.append(Tripwire(handler, answers))
            return wires[0]

        with row_of_chunks(tmp_path, sharding=sharding, wrap=wrap) as row:
            row.server.hang("*", seconds=60, skip=answers)
            with start_python(fetch_and_say, row.url) as process:
                wires[0].reached.wait()
                process.kill()
            row.server.heal()
            there = kept(row)
            assert there < ALL
            assert_mirror(row, has=there)
            assert_completes(row)

    def test_while_a_shard_is_written(self, files: Row, tmp_path: Path) -> None:
        files.cut(0, 4).fetch()
        with start_python(die_while_writing, files.url) as process:
            process.communicate()
        assert process.returncode == -signal.SIGXFSZ
        partial = [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.name.endswith("__lock")]
        assert partial, "the process did not die in the middle of a shard"
        mirrors = list_mirrors(Cache.at(load_settings()))
        assert [len(mirror.shards) for mirror in mirrors] == [1]
        assert_mirror(files, has={0, 1, 2, 3})
        assert_completes(files)


WRITTEN_BEFORE_IT_DIES = 20_000
"""Bytes of a file: more than a mirror's metadata, less than a shard of noise."""


def die_while_writing(url: str) -> None:
    """Fetch until the system kills this process in the middle of a write (in a process of its own).

    Python ignores SIGXFSZ. With the default action it is as sudden as SIGKILL, and it strikes at a known place.
    """
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (WRITTEN_BEFORE_IT_DIES, WRITTEN_BEFORE_IT_DIES))
    fetch_and_say(url)


class TestInterrupted:
    """Ctrl-C."""

    def test_while_the_server_says_nothing(self, files: Row) -> None:
        files.server.hang(VOXELS, seconds=60)
        with start_python(fetch_and_say, files.url) as process:
            assert hear(process) == {"missing": CHUNKS}
            process.send_signal(signal.SIGINT)
            assert hear(process) == {"interrupted": True}
        assert process.returncode == 0
        assert files.asked() == set()  # still unanswered: it did not wait for them, neither then nor at its end
        assert_mirror(files, has=set())
        files.server.heal()
        assert_completes(files)

    @pytest.mark.parametrize("shards", [1, 3])
    def test_while_requests_are_repeated(self, files: Row, shards: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EMCATALOG_RETRIES", "32")
        hold_up_from(files, shards * IN_SHARD)
        with start_python(fetch_and_say, files.url) as process:
            hear_shards(process, shards)
            process.send_signal(signal.SIGINT)
            assert hear(process) == {"interrupted": True}
        assert process.returncode == 0
        assert_mirror(files, has=set(range(shards * IN_SHARD)))
        files.server.heal()
        assert_completes(files)
