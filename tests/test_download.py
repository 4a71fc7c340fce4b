"""Downloads: whole and right or not at all, resumed where they ended, once however many ask."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import emcatalog.download as module
from emcatalog.download import check_room, download, find_download, partial_bytes
from emcatalog.errors import (
    ArgumentError,
    CacheError,
    EmcatalogError,
    NoRangesError,
    NotCachedError,
    SourceChangedError,
    SourceCorruptError,
    SourceDeniedError,
    SourceMissingError,
    SourceUnavailableError,
)
from emcatalog.locations import StorageOptions
from emcatalog.objects import RemoteObject, describe_object
from emcatalog.settings import load_settings
from tests.replica.gcs import serve_gcs
from tests.replica.s3 import public_read, serve_s3
from tests.replica.server import FolderHandler, serve
from tests.replica.wire import Answer, Call, Server, running
from tests.test_fetch import assert_clear, hear, last_words, say, start_python

BLOCK = 1 << 14
"""Small, so that a small file has many."""
BLOCKS = 20
SIZE = BLOCKS * BLOCK + 7
CONTENT = np.random.default_rng(0).bytes(SIZE)
OTHER = np.random.default_rng(1).bytes(SIZE)
OPTIONS = StorageOptions()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def in_base64(content: bytes) -> str:
    return b64encode(hashlib.md5(content).digest()).decode()


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", BLOCK)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The file that is downloaded, in a folder for a bucket."""
    path = tmp_path / "source" / "bucket" / "the file"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "here" / "deep" / "the file"


@pytest.fixture
def web(source: Path) -> Iterator[Server]:
    """A web server: an ETag, and no checksum."""
    with serve(source.parent) as server:
        yield server


@pytest.fixture
def google(source: Path) -> Iterator[Server]:
    """Objects of a bucket at their own addresses, with checksums."""
    with serve_gcs(source.parent.parent) as server:
        yield server


def get(url: str, target: Path, **arguments: Any) -> RemoteObject:
    return download(url, target, OPTIONS, load_settings(), **arguments)


def at(server: Server) -> str:
    """Where the file is on a server."""
    bucket = "" if isinstance(server.handler, FolderHandler) else "/bucket"
    return f"{server.url}{bucket}/the file"


def transferred(server: Server) -> int:
    """Bytes of data that a server sent; not of the answer that shows whether it serves ranges."""
    return sum(record.bytes for record in server.requests if record.range != "bytes=0-0")


def assert_there(target: Path, content: bytes = CONTENT) -> None:
    """The file is right, and nothing is beside it but what is known of it."""
    assert target.read_bytes() == content
    assert sorted(path.name for path in target.parent.iterdir()) == [".the file.json", "the file"]


def assert_nothing(target: Path) -> None:
    assert not target.parent.exists() or list(target.parent.iterdir()) == []


def partial(target: Path) -> Path:
    return target.with_name(f".{target.name}.partial")


# --- what arrives


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, SIZE])
@pytest.mark.parametrize("kind", ["file", "web", "google"])
def test_a_file_arrives(kind: str, size: int, source: Path, target: Path, request: pytest.FixtureRequest) -> None:
    source.write_bytes(CONTENT[:size])
    url = f"file://{source}" if kind == "file" else at(request.getfixturevalue(kind))
    arrived: list[int] = []
    found = get(url, target, progress=arrived.append)
    assert_there(target, CONTENT[:size])
    assert found == describe_object(url, OPTIONS, load_settings())
    assert sum(arrived) == size
    assert all(0 < nbytes <= BLOCK for nbytes in arrived)
    known = find_download(url, target)
    assert known == dataclasses.replace(found, md5=md5(CONTENT[:size]))


def test_from_s3(source: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_s3() as s3:
        s3.upload(source.parent, "bucket")
        policy = public_read("bucket")
        s3.client().put_bucket_policy(Bucket="bucket", Policy=json.dumps(policy))
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
        assert get("s3://bucket/the file", target).md5 == md5(CONTENT)
    assert_there(target)


def test_each_byte_is_asked_for_once(web: Server, target: Path) -> None:
    get(at(web), target)
    ranges = [record.range for record in web.requests if record.method == "GET" and record.range != "bytes=0-0"]
    assert sorted(ranges, key=str) == sorted(
        (f"bytes={begin}-{min(begin + BLOCK, SIZE) - 1}" for begin in range(0, SIZE, BLOCK)), key=str
    )


@pytest.mark.parametrize("in_flight", [1, 3])
def test_so_many_blocks_are_asked_for_at_once(
    web: Server, source: Path, target: Path, in_flight: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IN_FLIGHT", in_flight)
    source.write_bytes(CONTENT[: 4 * BLOCK])
    web.latency_s = 0.3
    get(at(web), target)
    assert web.peak == in_flight


def test_mirrors_are_applied(web: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMCATALOG_MIRRORS", json.dumps({"gs://bucket": web.url}))
    get("gs://bucket/the file", target)
    assert_there(target)
    web.fail("*", 403)
    with pytest.raises(SourceDeniedError) as caught:
        get("gs://bucket/the file", target)
    assert_clear(caught.value, PermissionError, f"gs://bucket/the file (read from {at(web)}): ")


def test_what_the_caller_knows_is_not_asked(google: Server, target: Path) -> None:
    known = describe_object(at(google), OPTIONS, load_settings())
    google.clear()
    assert get(at(google), target, remote=known) is known
    assert_there(target)
    assert {record.method for record in google.requests} == {"GET"}


# --- what is there


@pytest.mark.parametrize("size", [0, BLOCK, SIZE])
def test_a_second_call_transfers_nothing(web: Server, source: Path, target: Path, size: int) -> None:
    source.write_bytes(CONTENT[:size])
    first = get(at(web), target)
    web.clear()
    arrived: list[int] = []
    assert get(at(web), target, progress=arrived.append) == first
    assert [record.method for record in web.requests] == ["HEAD"]
    assert arrived == [size]
    assert_there(target, CONTENT[:size])


def test_another_version_is_downloaded(web: Server, source: Path, target: Path) -> None:
    get(at(web), target)
    source.write_bytes(OTHER)
    get(at(web), target)
    assert_there(target, OTHER)


def test_what_is_there_stays_until_its_successor_is_right(google: Server, source: Path, target: Path) -> None:
    get(at(google), target)
    before = find_download(at(google), target)
    source.write_bytes(OTHER)
    google.corrupt("*", kind="flip")
    with pytest.raises(SourceCorruptError):
        get(at(google), target)
    assert_there(target)
    assert find_download(at(google), target) == before


def test_a_file_of_another_address_is_another(web: Server, source: Path, target: Path) -> None:
    source.with_name("other").write_bytes(OTHER)
    os.utime(source, ns=(1, 1))
    os.utime(source.with_name("other"), ns=(1, 1))  # the same size and ETag
    get(at(web), target)
    get(f"{web.url}/other", target)
    assert target.read_bytes() == OTHER
    assert find_download(at(web), target) is None


def test_a_file_that_was_put_there_is_held_against_the_checksum(google: Server, target: Path) -> None:
    target.parent.mkdir(parents=True)
    target.write_bytes(CONTENT)
    assert find_download(at(google), target) is None
    get(at(google), target)
    assert transferred(google) == 0
    assert_there(target)
    assert find_download(at(google), target) is not None
    target.write_bytes(OTHER)  # of the same size
    get(at(google), target)
    assert_there(target)
    assert transferred(google) == SIZE


def test_a_file_that_was_touched_is_read_again(web: Server, target: Path) -> None:
    """Without a checksum of the store's, what was verified when it arrived tells as much."""
    get(at(web), target)
    os.utime(target)
    assert find_download(at(web), target) is None
    web.clear()
    get(at(web), target)
    assert transferred(web) == 0
    assert find_download(at(web), target) is not None


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: content[:-1] + b"x", lambda _: b""])
def test_a_file_that_was_damaged_is_downloaded_again(
    web: Server, target: Path, damage: Callable[[bytes], bytes]
) -> None:
    get(at(web), target)
    target.write_bytes(damage(CONTENT))
    assert find_download(at(web), target) is None
    get(at(web), target)
    assert_there(target)


@pytest.mark.parametrize("record", ["", "{", "[]", "{}", '{"url": 1}', "\xff"])
def test_a_record_that_is_none(web: Server, target: Path, record: str) -> None:
    get(at(web), target)
    target.with_name(".the file.json").write_bytes(record.encode("latin-1"))
    assert find_download(at(web), target) is None
    get(at(web), target)
    assert_there(target)


def test_offline(web: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMCATALOG_OFFLINE", "1")
    with pytest.raises(NotCachedError) as caught:
        get(at(web), target)
    assert_clear(caught.value, OSError, at(web), str(target), "without offline")
    monkeypatch.delenv("EMCATALOG_OFFLINE")
    there = get(at(web), target)
    web.clear()
    monkeypatch.setenv("EMCATALOG_OFFLINE", "1")
    assert get(at(web), target) == dataclasses.replace(there, md5=md5(CONTENT))
    with pytest.raises(NotCachedError):
        get(f"{web.url}/other", target)
    assert web.requests == []


# --- checksums


def test_the_catalog_s_checksum_is_held_against_the_bytes(web: Server, target: Path) -> None:
    with pytest.raises(SourceCorruptError) as caught:
        get(at(web), target, expected_md5=md5(OTHER))
    assert_clear(caught.value, OSError, at(web), "the catalog says", md5(OTHER), md5(CONTENT), "nothing was kept")
    assert_nothing(target)
    get(at(web), target, expected_md5=md5(CONTENT).upper())
    assert_there(target)
    web.clear()
    get(at(web), target, expected_md5=md5(CONTENT))
    assert transferred(web) == 0
    with pytest.raises(SourceCorruptError):
        get(at(web), target, expected_md5=md5(OTHER))


def test_a_catalog_that_contradicts_the_store_costs_no_transfer(google: Server, target: Path) -> None:
    with pytest.raises(SourceCorruptError) as caught:
        get(at(google), target, expected_md5=md5(OTHER))
    assert_clear(caught.value, OSError, at(google), md5(OTHER), md5(CONTENT))
    assert transferred(google) == 0
    assert_nothing(target)


@pytest.mark.parametrize("size", [1, BLOCK, SIZE])
def test_the_store_s_checksum_is_held_against_the_bytes(source: Path, target: Path, size: int) -> None:
    source.write_bytes(CONTENT[:size])
    with serve_gcs(source.parent.parent, md5={"bucket/the file": in_base64(b"something else")}) as server:
        for _ in range(2):
            with pytest.raises(SourceCorruptError) as caught:
                get(at(server), target)
            assert_clear(
                caught.value, OSError, at(server), "the store says", md5(b"something else"), "nothing was kept"
            )
            assert_nothing(target)
        assert transferred(server) == 2 * size


@pytest.mark.parametrize("kind", ["garbage", "flip"])
def test_bytes_that_were_spoiled_on_their_way(google: Server, target: Path, kind: Any) -> None:
    google.corrupt("*", kind=kind, skip=5, times=1)
    with pytest.raises(SourceCorruptError):
        get(at(google), target)
    assert_nothing(target)
    get(at(google), target)
    assert_there(target)


@pytest.mark.parametrize("checksum", ["", "abc", "g" * 32, in_base64(CONTENT), md5(CONTENT) + "\n"])
def test_a_checksum_that_is_none(target: Path, checksum: str) -> None:
    with pytest.raises(ArgumentError, match="32 hexadecimal digits"):
        get("gs://bucket/file", target, expected_md5=checksum)


# --- servers that fail


def test_what_is_not_there(web: Server, target: Path) -> None:
    with pytest.raises(SourceMissingError):
        get(f"{web.url}/none", target)
    assert_nothing(target)


def test_a_server_that_is_down(target: Path) -> None:
    with pytest.raises(SourceUnavailableError) as caught:
        get("http://127.0.0.1:1/the file", target)
    assert_clear(caught.value, ConnectionError, "http://127.0.0.1:1/the file: ", "cannot be reached")
    assert_nothing(target)


@pytest.mark.parametrize("misbehave", [Server.fail, Server.drop, Server.truncate])
@pytest.mark.parametrize("size", [BLOCK, SIZE])
def test_a_failure_that_passes(
    web: Server, source: Path, target: Path, misbehave: Callable[..., None], size: int
) -> None:
    source.write_bytes(CONTENT[:size])
    misbehave(web, "*", times=1, skip=3 if size > BLOCK else 1)
    get(at(web), target)
    assert_there(target, CONTENT[:size])


@pytest.mark.parametrize("misbehave", [Server.fail, Server.drop, Server.truncate])
def test_a_server_that_fails_in_the_middle(
    web: Server, target: Path, misbehave: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IN_FLIGHT", 1)
    monkeypatch.setenv("EMCATALOG_RETRIES", "0")
    misbehave(web, "*", skip=2 + 4)  # what it is, whether by ranges, four blocks
    with pytest.raises(SourceUnavailableError):
        get(at(web), target)
    assert not target.exists()
    assert partial(target).read_bytes() == CONTENT[: 4 * BLOCK]
    web.heal()
    web.clear()
    get(at(web), target)
    assert_there(target)
    assert transferred(web) == SIZE - 4 * BLOCK


class Lies:
    """A server that announces another length than it sends."""

    def __call__(self, call: Call) -> Answer:
        said = 10 if call.method == "HEAD" else 20
        return Answer(200, bytes(said), (("ETag", '"e"'),))


def test_a_server_that_announces_another_length(target: Path) -> None:
    with running(Server(Lies())) as server, pytest.raises(SourceCorruptError) as caught:
        get(f"{server.url}/the file", target)
    assert_clear(caught.value, OSError, "there are to be 10 bytes, and 20 came")
    assert_nothing(target)


class TestWithoutRanges:
    """Web servers that send whole files only."""

    def test_a_file_that_fits_in_memory(self, web: Server, source: Path, target: Path) -> None:
        source.write_bytes(CONTENT[: 3 * BLOCK])
        web.without_ranges = True
        get(at(web), target)
        assert_there(target, CONTENT[: 3 * BLOCK])
        # The first to see whether parts can be had; of that answer nothing is read.
        assert [record.method for record in web.requests] == ["HEAD", "GET", "GET"]

    def test_a_large_file(self, web: Server, target: Path) -> None:
        web.without_ranges = True
        with pytest.raises(NoRangesError) as caught:
            get(at(web), target)
        assert_clear(caught.value, ConnectionError, at(web), "sends whole files only", "EMCATALOG_MIRRORS")
        assert [record.method for record in web.requests] == ["HEAD", "GET"]
        assert_nothing(target)


# --- objects that change


@pytest.mark.parametrize("kind", ["web", "google"])
@pytest.mark.parametrize("replacement", [OTHER, OTHER[: 3 * BLOCK], OTHER + OTHER], ids=["same", "shorter", "longer"])
def test_replaced_while_it_is_downloaded(
    kind: str,
    replacement: bytes,
    source: Path,
    target: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "IN_FLIGHT", 1)
    server: Server = request.getfixturevalue(kind)
    arrived: list[int] = []

    def replace(nbytes: int) -> None:
        arrived.append(nbytes)
        if len(arrived) == 5:
            source.write_bytes(replacement)

    with pytest.raises(SourceChangedError) as caught:
        get(at(server), target, progress=replace)
    assert_clear(caught.value, OSError, at(server), "was replaced while it was downloaded", "ask again")
    assert_nothing(target)
    get(at(server), target)
    assert_there(target, replacement)


def test_removed_while_it_is_downloaded(web: Server, source: Path, target: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "IN_FLIGHT", 1)
    with pytest.raises(SourceMissingError) as caught:
        get(at(web), target, progress=lambda _: source.unlink(missing_ok=True))
    assert_clear(caught.value, FileNotFoundError, at(web))
    assert not target.exists()


# --- downloads that end early


class Gate(FolderHandler):
    """A web server that, as long as it is closed, fails for what lies beyond so many bytes."""

    def __init__(self, folder: Path, opened: int) -> None:
        super().__init__(folder)
        self.opened = opened
        self.described = threading.Semaphore(0)
        """Counts how often somebody began."""

    def __call__(self, call: Call) -> Answer:
        if call.method == "HEAD":
            self.described.release()
        wanted = re.fullmatch(r"bytes=(\d+)-\d+", call.headers.get("range", ""))
        return Answer(503) if wanted and int(wanted[1]) >= self.opened else super().__call__(call)


def download_and_say(url: str, target: str, in_flight: str) -> None:
    """Download and say what becomes of it, block by block (in a process of its own)."""
    module.BLOCK_BYTES, module.IN_FLIGHT = BLOCK, int(in_flight)  # type: ignore[misc]
    try:
        get(url, Path(target), progress=lambda nbytes: say(arrived=nbytes))
        say(done=True)
    except EmcatalogError as error:
        say(kinds=[kind.__name__ for kind in type(error).__mro__], message=str(error))
    except KeyboardInterrupt:
        say(interrupted=True)


@pytest.fixture
def gate(source: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that answers for seven blocks, and lets a client repeat its requests for ever."""
    monkeypatch.setenv("EMCATALOG_RETRIES", "32")
    with running(Server(Gate(source.parent, 7 * BLOCK))) as server:
        yield server


def open_gate(server: Server) -> None:
    assert isinstance(server.handler, Gate)
    server.handler.opened = SIZE
    server.clear()


@contextmanager
def seven_blocks(server: Server, target: Path, in_flight: int) -> Iterator[Any]:
    """A process that has seven blocks, and waits for the next."""
    with start_python(download_and_say, at(server), str(target), str(in_flight)) as process:
        for _ in range(7):
            assert hear(process) == {"arrived": BLOCK}
        yield process


@pytest.mark.parametrize("in_flight", [1, 6])
def test_killed_and_resumed(gate: Server, target: Path, in_flight: int) -> None:
    with seven_blocks(gate, target, in_flight) as process:
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not target.exists()
    assert find_download(at(gate), target) is None
    assert partial(target).read_bytes() == CONTENT[: 7 * BLOCK]
    open_gate(gate)
    arrived: list[int] = []
    get(at(gate), target, progress=arrived.append)
    assert_there(target)
    assert transferred(gate) == SIZE - 7 * BLOCK
    assert arrived == [7 * BLOCK, *[BLOCK] * 13, 7]


def test_interrupted_and_resumed(gate: Server, target: Path) -> None:
    with seven_blocks(gate, target, 6) as process:
        process.send_signal(signal.SIGINT)
        assert hear(process) == {"interrupted": True}
    assert process.returncode == 0
    assert partial(target).read_bytes() == CONTENT[: 7 * BLOCK]
    open_gate(gate)
    get(at(gate), target)
    assert_there(target)
    assert transferred(gate) == SIZE - 7 * BLOCK


@pytest.mark.parametrize("replacement", [OTHER, OTHER[: 2 * BLOCK]], ids=["same size", "shorter"])
def test_killed_and_the_object_changes(gate: Server, source: Path, target: Path, replacement: bytes) -> None:
    with seven_blocks(gate, target, 6) as process:
        process.kill()
    source.write_bytes(replacement)
    open_gate(gate)
    get(at(gate), target)
    assert_there(target, replacement)
    assert transferred(gate) == len(replacement)


def interrupt(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a download end after four blocks, with nothing on its way."""

    def end(_: int) -> None:
        if partial(target).stat().st_size >= 4 * BLOCK:
            raise KeyboardInterrupt

    with monkeypatch.context() as slowly:
        slowly.setattr(module, "IN_FLIGHT", 1)
        with pytest.raises(KeyboardInterrupt):
            get(at(server), target, progress=end)


@pytest.mark.parametrize("size", [1, BLOCK - 1, BLOCK, 4 * BLOCK + 1, SIZE - 1, SIZE])
def test_resumed_from_any_length(web: Server, target: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write may be cut off anywhere; all that is missing may be the verification."""
    interrupt(web, target, monkeypatch)
    partial(target).write_bytes(CONTENT[:size])
    assert partial_bytes(at(web), target, describe_object(at(web), OPTIONS, load_settings())) == size
    web.clear()
    get(at(web), target)
    assert_there(target)
    assert transferred(web) == SIZE - size


@pytest.mark.parametrize(
    "spoil",
    [
        lambda target: partial(target).write_bytes(CONTENT + b"x"),
        lambda target: target.with_name(".the file.partial.json").write_text("{"),
        lambda target: target.with_name(".the file.partial.json").unlink(),
        lambda target: partial(target).unlink(),
    ],
    ids=["too long", "pins damaged", "pins gone", "bytes gone"],
)
def test_what_cannot_be_resumed_begins_anew(
    web: Server, target: Path, spoil: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(web, target, monkeypatch)
    spoil(target)
    web.clear()
    get(at(web), target)
    assert_there(target)
    assert transferred(web) == SIZE


def test_a_beginning_that_is_wrong_is_noticed(google: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(google, target, monkeypatch)
    partial(target).write_bytes(OTHER[: 4 * BLOCK])
    with pytest.raises(SourceCorruptError):
        get(at(google), target)
    assert_nothing(target)


def test_nothing_is_resumed_that_nothing_identifies(source: Path, target: Path, monkeypatch: Any) -> None:
    """A server that says neither checksum nor version nor time may have another file of the same size."""

    def anonymous(call: Call) -> Answer:
        return dataclasses.replace(answer := files(call), headers=tuple(h for h in answer.headers if h[0] != "ETag"))

    files = FolderHandler(source.parent)
    with running(Server(anonymous)) as server:
        url = f"{server.url}/the file"
        monkeypatch.setattr(sys.modules[__name__], "at", lambda _: url)
        interrupt(server, target, monkeypatch)
        server.clear()
        get(url, target)
        assert_there(target)
        assert transferred(server) == SIZE
        get(url, target)
        assert transferred(server) == 2 * SIZE  # nor can it be said that it is still the same


# --- several at once


def test_processes_that_want_the_same_file(web: Server, target: Path) -> None:
    web.latency_s = 0.02
    with ExitStack() as stack:
        processes = [stack.enter_context(start_python(download_and_say, at(web), str(target), "2")) for _ in range(3)]
        assert [last_words(process) for process in processes] == [{"done": True}] * 3
    assert_there(target)
    assert transferred(web) == SIZE


def test_threads_that_want_the_same_file(web: Server, target: Path) -> None:
    web.latency_s = 0.02
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: get(at(web), target), range(4)))
    assert_there(target)
    assert transferred(web) == SIZE


def test_whoever_waits_goes_on_when_the_other_is_killed(gate: Server, target: Path) -> None:
    assert isinstance(gate.handler, Gate)
    with (
        seven_blocks(gate, target, 1) as first,
        start_python(download_and_say, at(gate), str(target), "1") as second,
    ):
        for _ in range(2):
            gate.handler.described.acquire()
        first.kill()
        assert hear(second) == {"arrived": 7 * BLOCK}
        open_gate(gate)
        assert last_words(second) == {"done": True}
    assert_there(target)
    assert transferred(gate) == SIZE - 7 * BLOCK


# --- disks


def test_a_folder_that_cannot_be_made(web: Server, tmp_path: Path) -> None:
    (tmp_path / "here").touch()
    with pytest.raises(CacheError) as caught:
        get(at(web), tmp_path / "here" / "the file")
    assert_clear(caught.value, OSError, str(tmp_path / "here" / "the file"), "cache_dir=")
    assert transferred(web) == 0


def test_a_folder_in_the_place_of_the_file(web: Server, target: Path) -> None:
    target.mkdir(parents=True)
    with pytest.raises(CacheError, match="directory"):
        get(at(web), target)


@pytest.mark.skipif(os.getuid() == 0, reason="root writes everywhere")
def test_a_folder_that_may_not_be_written(web: Server, target: Path) -> None:
    target.parent.mkdir(parents=True)
    target.parent.chmod(0o500)
    with pytest.raises(CacheError, match="Permission denied"):
        get(at(web), target)


def test_no_room(web: Server, source: Path, target: Path) -> None:
    size = shutil.disk_usage(source).free + (10 << 30)
    os.truncate(source, size)  # sparse
    with pytest.raises(CacheError) as caught:
        get(at(web), target)
    assert_clear(caught.value, OSError, at(web), f"{size / 1e9:.1f} GB", "make room", "cache_dir=")
    assert transferred(web) == 0
    assert_nothing(target)
    check_room(target.parent, 1, "a byte")


def download_with_little_room_and_say(url: str, target: str) -> None:
    """Download where a file may not become longer than five blocks (in a process of its own)."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (5 * BLOCK, 5 * BLOCK))
    download_and_say(url, target, "2")


def test_a_disk_that_becomes_full(web: Server, target: Path) -> None:
    with start_python(download_with_little_room_and_say, at(web), str(target)) as process:
        answer = last_words(process)
    assert answer["kinds"][0] == "CacheError"
    assert str(target) in answer["message"]
    assert partial(target).read_bytes() == CONTENT[: 5 * BLOCK]
    web.clear()
    get(at(web), target)
    assert_there(target)
    assert transferred(web) == SIZE - 5 * BLOCK


def download_and_say_peak(url: str, target: str) -> None:
    """Download and say the most memory that the process had (in a process of its own)."""
    get(url, Path(target))
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    say(peak=int(peak[1]) * 1024)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_bounded_whatever_the_file(web: Server, source: Path, target: Path) -> None:
    block = 8 << 20
    peaks = []
    for size in (8 * block, 50 * block):
        os.truncate(source, size)
        with start_python(download_and_say_peak, at(web), str(target)) as process:
            peaks.append(hear(process)["peak"])
        assert target.stat().st_size == size
    assert peaks[1] - peaks[0] < 6 * block  # the files differ by 352 MB
