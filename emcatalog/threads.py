"""Work on several things at once in threads, with results in order and an end that does not wait for a server."""

from __future__ import annotations

import atexit
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, Final, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
_Job = tuple[Future[Any], Callable[[], Any]]

_INTERRUPTIBLE_S: Final = 0.5


class _Worker(threading.Thread):
    """One of the threads; not of a ``ThreadPoolExecutor``, for whose jobs a process that ends would wait."""

    interrupted = False
    """Whether it is to stop waiting for a source: see ``emcatalog.stores.wait``."""

    def __init__(self, jobs: SimpleQueue[_Job | None]) -> None:
        super().__init__(name="emcatalog-worker", daemon=True)
        self._jobs = jobs

    def run(self) -> None:
        while not self.interrupted and (job := self._jobs.get()) is not None:
            future, work = job
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001  # raised again where the result is waited for
                future.set_exception(error)
            del job, future, work  # a result must not stay until the next item comes

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
    begun: deque[Future[Result]] = deque()
    try:
        for item in items:
            begun.append(Future())
            jobs.put((begun[-1], partial(work, item)))
            if len(workers) < threads:
                workers.append(_Worker(jobs))
                workers[-1].start()
            if len(begun) > (threads if ahead is None else ahead):
                yield _wait(begun.popleft())
        while begun:
            yield _wait(begun.popleft())
    finally:  # where all is done, there is nothing to interrupt
        for worker in workers:
            worker.interrupt()


def _wait(future: Future[Result]) -> Result:
    """What a worker made, so that Ctrl-C always ends the waiting: one that comes a moment before it begins wakes nobody."""
    while not future.done():
        with suppress(TimeoutError):
            future.exception(timeout=_INTERRUPTIBLE_S)
    return future.result()


def _end_all() -> None:
    """End what nobody closed: a daemon that runs on while Python ends can bring it down."""
    workers = [thread for thread in threading.enumerate() if isinstance(thread, _Worker)]
    for worker in workers:
        worker.interrupt()
    for worker in workers:
        worker.join()


atexit.register(_end_all)
