"""Several processes and threads fill one mirror at once: each gets the right voxels, and no chunk is lost."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emcatalog.cutout import Cutout
from tests.conftest import cut
from tests.replica.stored import Array
from tests.test_fetch import (
    ALL,
    CHUNKS,
    IN_SHARD,
    SHARDINGS,
    Row,
    assert_mirror,
    hear,
    kept,
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


@pytest.fixture(params=SHARDINGS, ids=["unsharded", "sharded"])
def row(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Row]:
    """The row of chunks; each answer takes a while, so that everybody is at work at the same time."""
    with row_of_chunks(tmp_path, sharding=request.param) as made:
        made.server.latency_s = 0.02
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
