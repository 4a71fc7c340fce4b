"""Threads that lack the same chunks: the source is asked for each once, and nobody waits for one who failed."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from emcatalog.claims import Claims, Key
from emcatalog.cutout import Cutout
from emcatalog.errors import SourceDeniedError
from emcatalog.fetch import FetchReport, Progress
from tests.test_fetch import ALL, CHUNKS, Row, assert_completes, assert_mirror, kept, path_of, row_of_chunks

Span = tuple[int, int]
"""Chunks `[first, stop)` of the row."""
Result = TypeVar("Result")

SAME: Sequence[Span] = [(0, CHUNKS)] * 4
OVERLAPPING: Sequence[Span] = [(0, 9), (3, 12), (6, 16), (0, 16), (7, 8)]
LONG = 60
"""Seconds after which a thread that waits is taken to wait for ever."""


def keys(*numbers: int) -> set[Key]:
    return {("a mirror", (0, 0, number)) for number in numbers}


def at_once(work: Sequence[Callable[[], Result]]) -> list[Future[Result]]:
    """Begin all of it at the same moment, each in a thread, and wait for the end."""
    start = threading.Barrier(len(work))

    def begin(call: Callable[[], Result]) -> Result:
        start.wait(LONG)
        return call()

    threads = ThreadPoolExecutor(len(work))
    futures = [threads.submit(begin, call) for call in work]
    for future in futures:
        future.exception(LONG)
    threads.shutdown()
    return futures


class TestClaims:
    """Who fetches what."""

    def test_what_nobody_has_can_be_claimed(self) -> None:
        with Claims().take(keys(1, 2)) as (mine, others):
            assert (mine, others) == (keys(1, 2), set())

    def test_what_somebody_has_is_left_to_them(self) -> None:
        claims = Claims()
        with claims.take(keys(1, 2)), claims.take(keys(2, 3)) as (mine, others):
            assert mine == keys(3)
            assert [other.is_set() for other in others] == [False]

    def test_one_waits_for_each_who_has_something_of_it(self) -> None:
        claims = Claims()
        with claims.take(keys(1, 2)), claims.take(keys(3)), claims.take(keys(4)), claims.take(keys(1, 2, 3, 5)) as last:
            mine, others = last
            assert (mine, len(others)) == (keys(5), 2)

    def test_those_who_wait_are_woken_and_can_claim_it_then(self) -> None:
        claims = Claims()
        with ExitStack() as block:
            block.enter_context(claims.take(keys(1)))
            with claims.take(keys(1)) as (_, others):
                (other,) = others
            block.close()
            assert other.is_set()
        with claims.take(keys(1)) as (mine, _):
            assert mine == keys(1)

    def test_an_error_frees_what_was_claimed(self) -> None:
        claims, waited = Claims(), set[threading.Event]()

        def fail() -> None:
            with claims.take(keys(1)):
                with claims.take(keys(1)) as (_, others):
                    waited.update(others)
                raise RuntimeError("the disk is full")

        with pytest.raises(RuntimeError, match="the disk is full"):
            fail()
        assert [other.is_set() for other in waited] == [True]
        with claims.take(keys(1)) as (mine, _):
            assert mine == keys(1)

    def test_who_has_nothing_to_claim_frees_nothing(self) -> None:
        claims = Claims()
        with claims.take(keys(1)):
            with claims.take(keys(1)):
                pass
            with claims.take(keys(1)) as (mine, others):
                assert not mine
                assert not any(other.is_set() for other in others)

    def test_the_same_place_in_two_mirrors_is_two_things(self) -> None:
        claims = Claims()
        with claims.take({("one", (0, 0, 0))}), claims.take({("other", (0, 0, 0))}) as (mine, others):
            assert (mine, others) == ({("other", (0, 0, 0))}, set())

    def test_threads_do_each_thing_once(self) -> None:
        claims, done = Claims(), Counter[Key]()

        def work(wanted: set[Key]) -> None:
            while missing := {key for key in wanted if not done[key]}:
                with claims.take(missing) as (mine, others):
                    for key in mine:
                        done[key] += not done[key]
                for other in others:
                    assert other.wait(LONG)
            counted.append(len(wanted))

        counted: list[int] = []
        wanted = [keys(*range(number, number + 40)) for number in range(0, 200, 10)]
        for future in at_once([lambda each=each: work(each) for each in wanted]):
            future.result()
        assert done == Counter(set().union(*wanted))
        assert counted == [40] * len(wanted)


@pytest.fixture
def row(tmp_path: Path) -> Iterator[Row]:
    """Chunks each in a file; each answer takes a while, so that everybody is at work at the same time."""
    with row_of_chunks(tmp_path) as made:
        made.server.latency_s = 0.02
        yield made


def asked(row: Row) -> dict[int, int]:
    """How often the server was asked for each chunk."""
    return {chunk: count for chunk in range(CHUNKS) if (count := len(row.answers(chunk)))}


def once(chunks: Sequence[int] | range) -> dict[int, int]:
    return dict.fromkeys(chunks, 1)


class TestFetch:
    """Boxes of one volume, fetched by threads of one process."""

    @pytest.mark.parametrize("spans", [SAME, OVERLAPPING], ids=["same", "overlapping"])
    def test_each_chunk_is_asked_for_once(self, row: Row, spans: Sequence[Span]) -> None:
        reports = [future.result() for future in at_once([row.cut(*span).fetch for span in spans])]
        assert asked(row) == once(range(CHUNKS))
        assert [report.fetched + report.reused for report in reports] == [stop - first for first, stop in spans]
        assert sum(report.fetched for report in reports) == CHUNKS
        assert_mirror(row, has=ALL)

    def test_threads_may_share_a_cutout(self, row: Row) -> None:
        cutout = row.cut()
        reports = [future.result() for future in at_once([cutout.fetch] * 4)]
        assert asked(row) == once(range(CHUNKS))
        assert sum(report.fetched for report in reports) == CHUNKS

    @pytest.mark.parametrize("spans", [SAME, OVERLAPPING], ids=["same", "overlapping"])
    def test_reads_are_right_and_ask_for_each_chunk_once(self, row: Row, spans: Sequence[Span]) -> None:
        whole = row.cut()
        pieces = [whole.at(row.cut(*span).box) for span in spans]
        reads: list[Callable[[], Any]] = [row.cut(*span).read for span in spans]
        reads += [lambda piece=piece: piece.begin_patch().result() for piece in pieces]
        for future, span in zip(at_once(reads), [*spans, *spans], strict=True):
            np.testing.assert_array_equal(future.result()["raw"], row.expected(*span))
        assert asked(row) == once(range(CHUNKS))

    def test_progress_of_all_counts_each_chunk_once(self, row: Row) -> None:
        arrived: list[int] = []

        def start(*_: int) -> Progress:
            return lambda chunks, _: arrived.append(chunks)

        for future in at_once([lambda: row.cut().fetch(start)] * 3):
            future.result()
        assert sum(arrived) == CHUNKS


def outcomes(futures: Sequence[Future[FetchReport]]) -> tuple[list[FetchReport], list[BaseException]]:
    """What came of it, and what went wrong."""
    errors = [error for future in futures if (error := future.exception()) is not None]
    return [future.result() for future in futures if future.exception() is None], errors


def shared(row: Row) -> list[Cutout]:
    return [row.cut()] * 4


def of_ones_own(row: Row) -> list[Cutout]:
    return [row.cut() for _ in range(4)]


@pytest.mark.parametrize("cutouts", [shared, of_ones_own])
class TestFailure:
    """One thread fails while others wait for it."""

    def test_the_others_fetch_what_it_did_not(self, row: Row, cutouts: Callable[[Row], list[Cutout]]) -> None:
        row.server.fail(path_of(6), 403, times=1)
        reports, errors = outcomes(at_once([cutout.fetch for cutout in cutouts(row)]))
        assert [type(error) for error in errors] == [SourceDeniedError]
        assert len(reports) == 3
        assert asked(row)[6] == 2
        assert_mirror(row, has=ALL)

    def test_an_error_of_its_own_is_its_own(self, row: Row, cutouts: Callable[[Row], list[Cutout]]) -> None:
        first = threading.Lock()

        def start(*_: int) -> Progress:
            if first.acquire(blocking=False):
                raise RuntimeError("no progress bar")
            return lambda *_: None

        calls = [lambda cutout=cutout: cutout.fetch(start) for cutout in cutouts(row)]
        reports, errors = outcomes(at_once(calls))
        assert [str(error) for error in errors] == ["no progress bar"]
        assert sum(report.fetched for report in reports) == CHUNKS
        assert asked(row) == once(range(CHUNKS))
        assert_mirror(row, has=ALL)

    def test_what_nobody_gets_is_an_error_of_all(self, row: Row, cutouts: Callable[[Row], list[Cutout]]) -> None:
        row.server.fail(path_of(6), 403)
        reports, errors = outcomes(at_once([cutout.fetch for cutout in cutouts(row)]))
        assert [type(error) for error in errors] == [SourceDeniedError] * 4
        assert not reports
        assert 6 not in kept(row)
        row.server.heal()
        assert_completes(row)
