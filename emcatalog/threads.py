"""Work on several things at once in threads, with results in order and an end that does not wait for a server.

Without ``concurrent.futures``: a process that ends waits for the jobs of its executors, and Ctrl-C in the middle of one
of its locks leaves that locked.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
_Answer = SimpleQueue[tuple[Any, BaseException | None]]
_Job = tuple[Callable[[], Any], _Answer]

_INTERRUPTIBLE_S: Final = 0.5
_LAST_WORDS_S: Final = 5
"""How long a process that ends waits for threads that do not hear of it: those that wait in somebody else's library."""


class _Worker(threading.Thread):
    """One of the threads."""

    interrupted = False
    """Whether it is to stop waiting for a source: see ``emcatalog.stores.wait``."""

    def __init__(self, jobs: SimpleQueue[_Job | None]) -> None:
        super().__init__(name="emcatalog-worker", daemon=True)
        self._jobs = jobs

    def run(self) -> None:
        while not self.interrupted and (job := self._jobs.get()) is not None:
            work, answer = job
            try:
                answer.put((work(), None))
            except BaseException as error:  # noqa: BLE001  # raised again where the result is waited for
                answer.put((None, error))
            del job, work, answer  # a result must not stay until the next item comes

    def interrupt(self) -> None:
        """Begin nothing more, and stop waiting."""
        self.interrupted = True
        self._jobs.put(None)


def map_in_order(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int, ahead: int | None = None
) -> Generator[Result, None, None]:
    """The results for some items, in their order, no more of them than ``ahead`` begun and not taken yet.

    Where the caller stops (an error, Ctrl-C, a generator that is closed) the threads stop waiting for servers, too.

    Args:
        work: what is done with an item, in a thread.
        items: taken one by one, in the caller's thread.
        threads: how many work at once.
        ahead: how many results may wait; default: as many as there are threads.
    """
    jobs: SimpleQueue[_Job | None] = SimpleQueue()
    workers: list[_Worker] = []
    begun: deque[_Answer] = deque()
    try:
        for item in items:
            begun.append(SimpleQueue())
            jobs.put((partial(work, item), begun[-1]))
            if len(workers) < threads:
                workers.append(_Worker(jobs))
                workers[-1].start()
            if len(begun) > (threads if ahead is None else ahead):
                yield _take(begun.popleft())
        while begun:
            yield _take(begun.popleft())
        for worker in workers:
            worker.interrupt()
        for worker in workers:
            worker.join()  # which has nothing left to do
    finally:  # where all is done, there is nothing to interrupt
        for worker in workers:
            worker.interrupt()


def _take(answer: _Answer) -> Any:
    """The result, or the error; not waited for at a stretch, since Ctrl-C a moment before that wakes nobody."""
    while True:
        with suppress(Empty):
            result, error = answer.get(timeout=_INTERRUPTIBLE_S)
            break
    if error is None:
        return result
    try:
        raise error
    finally:
        del error  # which refers to this frame


def _end_all() -> None:
    """End what nobody closed: a daemon that runs on while Python ends can bring it down."""
    workers = [thread for thread in threading.enumerate() if isinstance(thread, _Worker)]
    for worker in workers:
        worker.interrupt()
    latest = time.monotonic() + _LAST_WORDS_S
    for worker in workers:
        worker.join(max(0, latest - time.monotonic()))


atexit.register(_end_all)
