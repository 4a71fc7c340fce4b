"""A lean HTTP/1.1 server on one asyncio loop in a thread: keep-alive, latency, a log, faults.

What is answered comes from a handler; `server.py` (folders) and `gcs.py` (the GCS JSON API) have such handlers.
Hand-rolled because it is used to measure clients on the machine that it runs on: on two cores, 64 KB ranges over 32
connections, it answers 25,000 requests a second, where `http.server` with threads answers 10,000 (with pauses of a
second and more) and aiohttp 4,800.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import email.utils
import fnmatch
import http
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast
from urllib.parse import unquote

from tests.replica.faults import Fault, Faults, Kind, spoil

PIECE = 1 << 20
"""Bytes of a body that are read and written at once."""


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """One request as it came in."""

    method: str
    path: str
    """Percent-decoded, without the query."""
    target: str
    """As sent, without the query."""
    query: str
    headers: dict[str, str]
    """Names in lower case."""


@dataclasses.dataclass(frozen=True, slots=True)
class FileSlice:
    """Bytes `[start, stop)` of a file: a body that is not read before it is sent."""

    path: pathlib.Path
    start: int
    stop: int


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What a handler wants sent."""

    status: int
    body: bytes | FileSlice = b""
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return len(self.body) if isinstance(self.body, bytes) else self.body.stop - self.body.start


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """One line of a server's log."""

    method: str
    path: str
    range: str | None
    """The `Range` header as sent."""
    status: int
    """0 where the connection ended without an answer."""
    bytes: int
    """Bytes of the body that were sent: none for HEAD, half for a truncated answer."""
    query: str = ""


Handler = Callable[[Call], Answer]


def parse_call(head: bytes) -> Call:
    """The request whose head (up to the empty line) is `head`."""
    request_line, *header_lines = head.decode("latin-1").split("\r\n")
    method, full_target, _version = request_line.split(" ", 2)
    target, _, query = full_target.partition("?")
    headers = {}
    for line in header_lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return Call(method, unquote(target) if "%" in target else target, target, query, headers)


def head_bytes(answer: Answer, date: str) -> bytes:
    """The status line and headers of `answer`, to the empty line."""
    # A 304 has no body and no length of one (RFC 9110, 8.6).
    length = [] if answer.status in (204, 304) else [f"Content-Length: {answer.size}"]
    lines = [f"HTTP/1.1 {answer.status} {http.HTTPStatus(answer.status).phrase}", f"Date: {date}", *length]
    lines += [f"{name}: {value}" for name, value in answer.headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def whole_bytes(answer: Answer, date: str) -> bytes:
    """All that is sent for `answer`."""
    return head_bytes(answer, date) + read_body(answer.body)


class _Connection(asyncio.Protocol):
    """One client connection: requests are answered in order, one at a time."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._inbox = bytearray()
        self._busy = False
        self._file: int | None = None
        self._offset = self._stop = 0
        self._paused = self._close_after = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio sets TCP_NODELAY on every TCP transport.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=PIECE)
        self._server._connections.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server._connections.discard(self._transport)
        self._end_file()

    def data_received(self, data: bytes) -> None:
        self._inbox += data
        self._next()

    def _next(self) -> None:
        """Begin with the next whole request, if one is there and none is in progress."""
        while not self._busy and (end := self._inbox.find(b"\r\n\r\n")) >= 0:
            call = parse_call(bytes(self._inbox[:end]))
            whole = end + 4 + int(call.headers.get("content-length", 0))
            if len(self._inbox) < whole:
                return
            del self._inbox[:whole]
            self._begin(call)

    def _begin(self, call: Call) -> None:
        self._busy = True
        if control := self._server.control.get(call.path):
            self._transport.write(whole_bytes(control(call), self._server._date()))
            self._finish()
            return
        self._server._enter()
        fault = self._server.faults.strike(call.path)
        delay = self._server.latency_s + (fault.seconds if fault else 0.0)
        if delay > 0:
            # A timer, not a sleep: the waits of concurrent requests overlap.
            self._server._loop.call_later(delay, self._answer, call, fault)
        else:
            self._answer(call, fault)

    def _answer(self, call: Call, fault: Fault | None) -> None:
        self._server._leave()
        gone = self._transport.is_closing()  # the client gave up while it waited
        if gone or (fault is not None and fault.kind == "drop"):
            self._server._log(call, 0, 0)
            self._transport.close()
            return
        answer = self._server._respond(call)
        if fault is not None and fault.kind == "fail":
            answer = Answer(fault.status, http.HTTPStatus(fault.status).phrase.encode())
        if fault is not None and fault.kind in ("garbage", "flip") and answer.status in (200, 206):
            answer = dataclasses.replace(answer, body=spoil(read_body(answer.body), fault.kind))
        self._send(call, answer, cut=fault is not None and fault.kind == "truncate")

    def _send(self, call: Call, answer: Answer, cut: bool) -> None:
        head = head_bytes(answer, self._server._date())
        size = 0 if call.method == "HEAD" else answer.size // 2 if cut else answer.size
        # Logged before the last byte leaves: who has the answer finds the request in the log.
        self._server._log(call, answer.status, size)
        self._close_after = cut or call.headers.get("connection", "").lower() == "close"
        if isinstance(answer.body, bytes) or not size:
            body = answer.body[:size] if isinstance(answer.body, bytes) else b""
            self._transport.write(head + body)
            self._finish()
            return
        self._begin_file(head, answer.body, size)

    def _begin_file(self, head: bytes, body: FileSlice, size: int) -> None:
        self._file = os.open(body.path, os.O_RDONLY)
        self._offset, self._stop = body.start, body.start + size
        first = min(size, PIECE)
        # Head and body in one buffer and one write: one wake-up of the client for a small body.
        buffer = bytearray(len(head) + first)
        buffer[: len(head)] = head
        got = os.preadv(self._file, [memoryview(buffer)[len(head) :]], self._offset)
        self._offset += got
        self._transport.write(buffer if got == first else buffer[: len(head) + got])
        self._pump()

    def _pump(self) -> None:
        """Send on while the client takes it."""
        while self._file is not None and self._offset < self._stop and not self._paused:
            if self._transport.is_closing():  # the client left
                self._end_file()
                return
            piece = os.pread(self._file, min(PIECE, self._stop - self._offset), self._offset)
            if not piece:  # the file became shorter: what was declared cannot be sent any more
                self._transport.abort()
                return
            self._offset += len(piece)
            self._transport.write(piece)
        if self._file is not None and self._offset >= self._stop:
            self._end_file()
            self._finish()

    def _end_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _finish(self) -> None:
        self._busy = False
        if self._close_after:
            self._transport.close()
        elif self._inbox:
            self._next()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._pump()


def read_body(body: bytes | FileSlice) -> bytes:
    """The bytes of `body`."""
    if isinstance(body, bytes):
        return body
    with body.path.open("rb") as stream:
        stream.seek(body.start)
        return stream.read(body.stop - body.start)


class Server:
    """An HTTP server on 127.0.0.1 with a port of its own, running in a thread."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.latency_s = 0.0
        """Seconds that pass before each answer."""
        self.without_ranges = False
        """Answer 200 with the whole body to a range request, as servers without ranges do."""
        self.faults = Faults()
        self.control: dict[str, Handler] = {}
        """Paths that are answered at once, without log, latency and faults."""
        self.url = ""
        self._requests: list[Record] = []
        self._lock = threading.Lock()
        self._connections: set[asyncio.Transport] = set()
        self._loop = asyncio.new_event_loop()
        self._in_flight = self._peak = 0
        self._stamp = (0, "")

    # --- the log

    @property
    def requests(self) -> list[Record]:
        """What was asked so far, in the order of the answers (a copy)."""
        with self._lock:
            return list(self._requests)

    def count(self, pattern: str = "*") -> int:
        """How many requests had a path that matches the shell pattern (`*` also matches `/`)."""
        return sum(fnmatch.fnmatchcase(record.path, pattern) for record in self.requests)

    def sent(self, pattern: str = "*") -> int:
        """Bytes of the bodies sent for paths that match."""
        return sum(record.bytes for record in self.requests if fnmatch.fnmatchcase(record.path, pattern))

    def counts(self) -> dict[str, int]:
        """Requests for each path."""
        return dict(collections.Counter(record.path for record in self.requests))

    @property
    def peak(self) -> int:
        """The most requests that were waiting for their answer at once (with a latency)."""
        return self._peak

    def clear(self) -> None:
        """Empty the log."""
        with self._lock:
            self._requests.clear()
        self._peak = 0

    # --- faults

    def fail(self, path_glob: str, status: int = 500, times: int | None = None, skip: int = 0) -> None:
        """Answer matching requests with an error status."""
        self.faults.add(Fault("fail", path_glob, times, skip, status=status))

    def truncate(self, path_glob: str, times: int | None = None, skip: int = 0) -> None:
        """Declare the whole length, send half, close."""
        self.faults.add(Fault("truncate", path_glob, times, skip))

    def corrupt(self, path_glob: str, times: int | None = None, skip: int = 0, kind: Kind = "garbage") -> None:
        """Send a body of the right length with every byte wrong, or with `kind="flip"` only the middle one."""
        self.faults.add(Fault(kind, path_glob, times, skip))

    def drop(self, path_glob: str, times: int | None = None, skip: int = 0) -> None:
        """Close the connection without an answer."""
        self.faults.add(Fault("drop", path_glob, times, skip))

    def hang(self, path_glob: str, seconds: float, times: int | None = None, skip: int = 0) -> None:
        """Say nothing for some seconds, then answer well."""
        self.faults.add(Fault("hang", path_glob, times, skip, seconds=seconds))

    def heal(self) -> None:
        """End all faults; the log and the latency stay."""
        self.faults.clear()
        self.without_ranges = False

    # --- for the connections, in the loop's thread

    def _respond(self, call: Call) -> Answer:
        if self.without_ranges:
            call.headers.pop("range", None)
        return self.handler(call)

    def _log(self, call: Call, status: int, size: int) -> None:
        record = Record(call.method, call.path, call.headers.get("range"), status, size, call.query)
        with self._lock:
            self._requests.append(record)

    def _enter(self) -> None:
        self._in_flight += 1
        self._peak = max(self._peak, self._in_flight)

    def _leave(self) -> None:
        self._in_flight -= 1

    def _date(self) -> str:
        now = int(time.time())
        if self._stamp[0] != now:  # formatted once a second, not once a request
            self._stamp = (now, email.utils.formatdate(now, usegmt=True))
        return self._stamp[1]

    async def _listen(self) -> asyncio.Server:
        server = await self._loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, backlog=1024)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return server

    async def _close(self, server: asyncio.Server) -> None:
        server.close()
        for transport in list(self._connections):
            transport.abort()
        await asyncio.sleep(0)  # let the aborted transports run their callbacks


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """`server` answering on `server.url` until the block is left."""
    loop = server._loop
    thread = threading.Thread(target=loop.run_forever, name="replica-server", daemon=True)
    thread.start()
    listener = asyncio.run_coroutine_threadsafe(server._listen(), loop).result()
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server._close(listener), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
