"""Threads: results in order, no more begun than allowed, and an end that waits for nobody."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tensorstore as ts
from hypothesis import given
from hypothesis import strategies as st

from emcatalog.stores import wait
from emcatalog.threads import map_in_order
from tests.replica.server import REPOSITORY

PATIENCE_S = 60
"""After which something hangs; nothing here takes nearly as long."""


class OwnError(Exception):
    """Of somebody's work."""


def workers() -> list[threading.Thread]:
    """Threads that are at work, or wait for some."""
    return [thread for thread in threading.enumerate() if thread.name == "emcatalog-worker"]


def assert_ended(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Whatever a test does, its threads end."""
    before = workers()
    yield
    gc.collect()
    assert_ended([thread for thread in workers() if thread not in before])


class Silent:
    """A server that has not answered yet."""

    def __init__(self) -> None:
        self._promises: list[Any] = []
        self.asked = threading.Semaphore(0)

    def ask(self, answer: Any = None) -> Any:
        """Wait for what is said at once, or for what is never said."""
        promise, future = ts.Promise.new()
        self._promises.append(promise)
        if answer is not None:
            promise.set_result(answer)
        self.asked.release()
        return wait(future)

    def wait_until_asked(self, times: int) -> None:
        for _ in range(times):
            assert self.asked.acquire(timeout=PATIENCE_S)


class TestResults:
    """What comes out."""

    @given(st.lists(st.integers()), st.integers(1, 5), st.one_of(st.none(), st.integers(0, 9)))
    def test_in_order(self, items: list[int], threads: int, ahead: int | None) -> None:
        assert list(map_in_order(lambda item: item + 1, items, threads, ahead)) == [item + 1 for item in items]

    def test_the_slowest_first(self) -> None:
        """The first item waits for the last one that is begun with it."""
        last = threading.Event()

        def work(item: int) -> int:
            if item == 0:
                assert last.wait(PATIENCE_S)
            if item == 3:
                last.set()
            return item

        assert list(map_in_order(work, range(4), 2, ahead=3)) == [0, 1, 2, 3]

    def test_an_error_comes_in_its_turn(self) -> None:
        def work(item: int) -> int:
            if item == 2:
                raise OwnError
            return item

        results = map_in_order(work, range(9), 4)
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(OwnError):
            next(results)
        assert list(results) == []

    def test_an_error_of_the_items(self) -> None:
        def items() -> Iterator[int]:
            yield 1
            raise OwnError

        with pytest.raises(OwnError):
            list(map_in_order(str, items(), 2))

    def test_what_was_taken_is_let_go(self) -> None:
        class Large:
            pass

        results = map_in_order(lambda _: Large(), range(20), 2)
        taken = [weakref.ref(next(results)) for _ in range(10)]
        gc.collect()
        assert [reference() for reference in taken] == [None] * 10


class TestCounts:
    """How much is done at once."""

    def test_as_many_at_once_as_there_are_threads(self) -> None:
        together = threading.Barrier(3)
        assert len(list(map_in_order(lambda _: together.wait(PATIENCE_S), range(9), 3))) == 9

    @pytest.mark.parametrize(("items", "threads", "most"), [(200, 3, 3), (3, 100, 3), (9, 1, 1)])
    def test_never_more(self, items: int, threads: int, most: int) -> None:
        seen = set(map_in_order(lambda _: threading.get_ident(), range(items), threads, ahead=50))
        assert 1 <= len(seen) <= most

    @pytest.mark.parametrize(("threads", "ahead", "begun"), [(1, 0, 1), (2, None, 3), (4, None, 5), (2, 7, 8)])
    def test_items_are_taken_as_they_are_needed(self, threads: int, ahead: int | None, begun: int) -> None:
        taken = []
        results = map_in_order(str, (taken.append(item) or item for item in range(100)), threads, ahead)
        assert taken == []
        for number in range(5):
            assert next(results) == str(number)
            assert len(taken) == begun + number
        results.close()


class TestEnd:
    """Nobody waits for a server that says nothing."""

    def test_closed(self) -> None:
        server, before = Silent(), workers()
        results = map_in_order(server.ask, ["said", None, None], 3)
        assert next(results) == "said"
        server.wait_until_asked(3)
        waiting = [thread for thread in workers() if thread not in before]
        assert waiting
        results.close()
        assert_ended(waiting)

    def test_forgotten(self) -> None:
        server, before = Silent(), workers()
        results = map_in_order(server.ask, ["said", None, None], 3)
        assert next(results) == "said"
        server.wait_until_asked(3)
        waiting = [thread for thread in workers() if thread not in before]
        del results
        gc.collect()
        assert_ended(waiting)

    def test_after_an_error(self) -> None:
        server, before = Silent(), workers()

        def work(item: int) -> Any:
            if item == 0:
                server.wait_until_asked(2)
                raise OwnError
            return server.ask()

        results = map_in_order(work, range(3), 3)
        with pytest.raises(OwnError):
            next(results)
        assert_ended([thread for thread in workers() if thread not in before])

    def test_what_was_not_begun_is_not_begun(self) -> None:
        first, go_on, done = threading.Event(), threading.Event(), []

        def work(item: int) -> int:
            first.set()
            assert go_on.wait(PATIENCE_S)
            done.append(item)
            return item

        results = map_in_order(work, range(9), 1, ahead=5)
        taker = threading.Thread(target=lambda: next(results))
        taker.start()
        assert first.wait(PATIENCE_S)
        waiting = workers()
        go_on.set()
        taker.join(PATIENCE_S)
        results.close()
        assert_ended(waiting)
        assert done == list(range(len(done)))
        assert len(done) <= 6


SCRIPT = """
import sys, threading
import tensorstore as ts
from emcatalog.stores import wait
from emcatalog.threads import map_in_order

promise, silent = ts.Promise.new()
asked = threading.Semaphore(0)

def ask(item):
    if item:
        asked.release()
        return wait(silent)
    return item

kept = map_in_order(ask, range(5), 3)
print(next(kept))
for _ in range(3):
    asked.acquire()
print("asked", flush=True)
"""


class TestProcess:
    """The end of a process in which threads wait."""

    def test_that_ends_while_nobody_closes(self) -> None:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], cwd=REPOSITORY, text=True, capture_output=True, timeout=PATIENCE_S
        )
        assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["0", "asked"], "")

    def test_that_ends_while_a_thread_hears_nothing(self) -> None:
        """It waits in a library that cannot be told."""
        script = SCRIPT.replace("return wait(silent)", "return threading.Event().wait()")
        assert script != SCRIPT
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=REPOSITORY, text=True, capture_output=True, timeout=PATIENCE_S
        )
        assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["0", "asked"], "")

    def test_that_is_interrupted(self, tmp_path: Path) -> None:
        script = f"{SCRIPT}\nnext(kept)\n"
        pipe = subprocess.PIPE
        with subprocess.Popen(
            [sys.executable, "-c", script], cwd=REPOSITORY, text=True, stdout=pipe, stderr=pipe
        ) as process:
            try:
                assert process.stdout is not None
                assert [process.stdout.readline().strip() for _ in range(2)] == ["0", "asked"]
                process.send_signal(signal.SIGINT)
                _, complaints = process.communicate(timeout=PATIENCE_S)
            finally:
                process.kill()
        assert process.returncode == -signal.SIGINT, complaints
        assert complaints.rstrip().endswith("KeyboardInterrupt")
