"""A file server over a folder: in a thread for tests, as a process of its own for benchmarks.

    with serve(folder) as server:
        read(server.url + "/a/b")
        assert server.count("/a/*") == 1

As a process: `python -m tests.replica.server FOLDER --latency-ms 30` prints `{"url": ...}` and answers, besides the
files, `GET /__requests__`, `POST /__clear__` and `POST /__latency__?ms=30`.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import re
import stat
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast
from urllib.parse import parse_qs

from tests.replica.wire import Answer, Call, FileSlice, Record, Server, running

__all__ = ["Record", "Server", "ServerProcess", "serve", "serve_process"]

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """`[start, stop)` that a `Range` header asks of `size` bytes; None for the whole body.

    Returns an empty interval where the range cannot be satisfied (416). What is malformed is to be ignored, and several
    ranges may be (RFC 9110, 14.2).
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or match[0] == "bytes=-":
        return None
    first, last = match[1], match[2]
    if not first:
        return (max(0, size - int(last)), size)
    if last and int(last) < int(first):
        return None
    start, stop = int(first), min(size, int(last) + 1) if last else size
    return (start, max(start, stop))


def answer_file(
    call: Call, path: pathlib.Path, status: os.stat_result, headers: tuple[tuple[str, str], ...] = ()
) -> Answer:
    """The file, or the range of it that `call` asks for."""
    size = status.st_size
    etag = f'"{status.st_mtime_ns:x}-{size:x}"'
    common = (("ETag", etag), ("Accept-Ranges", "bytes"), ("Content-Type", "application/octet-stream"), *headers)
    # TensorStore sends these two to read several ranges of one version of a file.
    if call.headers.get("if-match", etag) not in (etag, "*"):
        return Answer(412, b"", common)
    if call.headers.get("if-none-match") == etag:
        return Answer(304, b"", common)
    wanted = parse_range(call.headers.get("range"), size)
    if wanted is None:
        return Answer(200, FileSlice(path, 0, size), common)
    start, stop = wanted
    if start >= stop:
        return Answer(416, b"", (*common, ("Content-Range", f"bytes */{size}")))
    return Answer(206, FileSlice(path, start, stop), (*common, ("Content-Range", f"bytes {start}-{stop - 1}/{size}")))


class FolderHandler:
    """Answers GET and HEAD for the files under a folder."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._root = os.path.realpath(folder)

    def __call__(self, call: Call) -> Answer:
        """The answer to `call`."""
        if call.method not in ("GET", "HEAD"):
            return Answer(405, b"", (("Allow", "GET, HEAD"),))
        path = os.path.normpath(self._root + "/" + call.path)
        if not path.startswith(self._root + os.sep) or "\0" in path:
            return Answer(404, b"not found")
        return self._file(call, pathlib.Path(path))

    def _file(self, call: Call, path: pathlib.Path) -> Answer:
        try:
            status = path.stat()
        except OSError:
            return self._gzipped(call, path.with_name(path.name + ".gz"))
        if not stat.S_ISREG(status.st_mode):
            return Answer(404, b"not found")
        return answer_file(call, path, status)

    def _gzipped(self, call: Call, path: pathlib.Path) -> Answer:
        """`NAME.gz` as a compressed form of `NAME`: how cloud-volume keeps on disk what a bucket holds gzip-encoded."""
        if not path.is_file():
            return Answer(404, b"not found")
        call.headers.pop("range", None)  # a bucket, too, ignores ranges of an object that it has gzip-encoded
        return answer_file(call, path, path.stat(), (("Content-Encoding", "gzip"),))


@contextmanager
def serve(folder: str | os.PathLike[str], latency_s: float = 0.0) -> Iterator[Server]:
    """A server over `folder` in a thread of this process."""
    server = Server(FolderHandler(folder))
    server.latency_s = latency_s
    with running(server):
        yield server


class ServerProcess:
    """A server in another process, seen from here."""

    def __init__(self, url: str) -> None:
        self.url = url

    def count(self) -> int:
        """Requests since the last `clear`."""
        return int(self._ask("/__requests__")["count"])

    def clear(self) -> None:
        """Empty the log."""
        self._ask("/__clear__", b"")

    def set_latency(self, ms: float) -> None:
        """Milliseconds that pass before each answer from now on."""
        self._ask(f"/__latency__?ms={ms}", b"")

    def _ask(self, path: str, data: bytes | None = None) -> dict[str, Any]:
        with urllib.request.urlopen(self.url + path, data, timeout=60) as response:
            return cast(dict[str, Any], json.load(response))

    # Last in the class: below it, `bytes` means this method.
    def bytes(self) -> int:
        """Bytes of bodies sent since the last `clear`."""
        return int(self._ask("/__requests__")["bytes"])


@contextmanager
def serve_process(folder: str | os.PathLike[str], latency_ms: float = 0.0) -> Iterator[ServerProcess]:
    """A server over `folder` in a process of its own, so that its work is not counted as the client's."""
    command = [
        sys.executable,
        "-m",
        __spec__.name,
        str(pathlib.Path(folder).resolve()),
        "--latency-ms",
        str(latency_ms),
    ]
    process = subprocess.Popen(
        [*command, "--until-stdin-closes"], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield ServerProcess(json.loads(process.stdout.readline())["url"])
        finally:
            process.stdin.close()


def add_control(server: Server) -> None:
    """Let other processes read and empty the log of `server` and set its latency."""

    def requests(call: Call) -> Answer:
        log = server.requests
        document = {"count": len(log), "bytes": sum(record.bytes for record in log)}
        return Answer(200, json.dumps(document).encode(), (("Content-Type", "application/json"),))

    def clear(call: Call) -> Answer:
        server.clear()
        return requests(call)

    def latency(call: Call) -> Answer:
        server.latency_s = float(parse_qs(call.query)["ms"][0]) / 1000
        return requests(call)

    server.control.update({"/__requests__": requests, "/__clear__": clear, "/__latency__": latency})


def main() -> None:
    """Serve a folder until interrupted."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder")
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--until-stdin-closes", action="store_true", help="end with the process that started this one")
    arguments = parser.parse_args()
    server = Server(FolderHandler(arguments.folder))
    server.latency_s = arguments.latency_ms / 1000
    add_control(server)
    with running(server):
        sys.stdout.write(json.dumps({"url": server.url}) + "\n")
        sys.stdout.flush()
        with suppress(KeyboardInterrupt):
            sys.stdin.read() if arguments.until_stdin_closes else threading.Event().wait()


if __name__ == "__main__":
    main()
