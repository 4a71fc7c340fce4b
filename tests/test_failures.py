"""What goes wrong: a clear error of ours or a right result, never zeros for what failed, never a mirror that lies."""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from emcatalog.cutout import Cutout
from emcatalog.errors import (
    CacheError,
    EmcatalogError,
    NoRangesError,
    NotCachedError,
    SettingsError,
    SourceChangedError,
    SourceCorruptError,
    SourceDeniedError,
    SourceError,
    SourceMissingError,
    SourceUnavailableError,
)
from emcatalog.locations import parse_location
from emcatalog.mirror.cache import Cache
from emcatalog.mirror.inventory import list_mirrors
from emcatalog.settings import load_settings
from tests.conftest import cut
from tests.test_fetch import (
    ALL,
    CHUNK_BYTES,
    CHUNKS,
    IDS,
    IN_SHARD,
    SHARDINGS,
    VOXELS,
    Row,
    assert_clear,
    assert_completes,
    assert_mirror,
    fetch_and_say,
    kept,
    last_words,
    path_of,
    row_of_chunks,
    row_voxels,
    start_python,
)

Spoil = Callable[[Row], None]
BAD = 9
"""The chunk that fails; its shard holds 8 to 11."""
BEFORE = set(range(8))
"""Chunks of the shards before that one."""
NOWHERE = "http://127.0.0.1:9"
"""Nobody listens on the discard port of this machine."""


@pytest.fixture(autouse=True)
def no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMCATALOG_RETRIES", "0")


@pytest.fixture(params=SHARDINGS, ids=IDS)
def row(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Row]:
    """The row of chunks, in files and in shards."""
    with row_of_chunks(tmp_path, sharding=request.param) as made:
        yield made


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Row]:
    """The row of chunks, each in a file."""
    with row_of_chunks(tmp_path) as made:
        yield made


def fetch_fails(row: Row, kind: type[EmcatalogError], standard: type[BaseException], *words: str) -> None:
    """A fetch and a read of the whole row end with this error."""
    asks: tuple[Callable[[], object], ...] = (lambda: row.cut().fetch(), lambda: row.cut().read())
    for ask in asks:
        with pytest.raises(kind) as caught:
            ask()
        assert type(caught.value) is kind
        assert_clear(caught.value, standard, *words)


# --- the info document


def answer_info(text: str | bytes) -> Spoil:
    """The server has this in place of the info."""

    def spoil(row: Row) -> None:
        (row.scale.folder / "info").write_bytes(text.encode() if isinstance(text, str) else text)

    return spoil


def info_without(*keys: str) -> Spoil:
    def spoil(row: Row) -> None:
        answer_info(json.dumps({key: value for key, value in row.scale.info.items() if key not in keys}))(row)

    return spoil


def info_cut_off(row: Row) -> None:
    path = row.scale.folder / "info"
    path.write_bytes(path.read_bytes()[:-20])


def fail_info(status: int) -> Spoil:
    return lambda row: row.server.fail("*/info", status)


NOT_AN_INFO = (SourceCorruptError, OSError, "/info is not the info of a precomputed volume")
UNREACHABLE = (SourceUnavailableError, ConnectionError, "cannot be reached or keeps failing", "ask again later")
DENIED = (SourceDeniedError, PermissionError, "refuses access", "credentials")
MISSING = (SourceMissingError, FileNotFoundError, "check", "EMCATALOG_MIRRORS")
INFO_FAULTS: dict[str, tuple[Spoil, tuple[type[SourceError], type[OSError], *tuple[str, ...]]]] = {
    "400": (
        fail_info(400),
        (SourceUnavailableError, ConnectionError, "does not take the request", "check the address"),
    ),
    "401": (fail_info(401), DENIED),
    "403": (fail_info(403), DENIED),
    "404": (fail_info(404), MISSING),
    "410": (fail_info(410), MISSING),
    "429 for ever": (fail_info(429), UNREACHABLE),
    "500 for ever": (fail_info(500), UNREACHABLE),
    "503 for ever": (fail_info(503), UNREACHABLE),
    "hangs up": (lambda row: row.server.drop("*/info"), UNREACHABLE),
    "truncated answer": (lambda row: row.server.truncate("*/info"), UNREACHABLE),
    "garbage": (lambda row: row.server.corrupt("*/info"), NOT_AN_INFO),
    "half a document": (info_cut_off, (*NOT_AN_INFO, "EOF")),
    "empty": (answer_info(""), NOT_AN_INFO),
    "a sign-in page": (answer_info("<html>\n<body>Please sign in</body>\n</html>"), (*NOT_AN_INFO, "Please sign in")),
    "other JSON": (answer_info('{"status": "ok"}'), (*NOT_AN_INFO, "data_type")),
    "a list": (answer_info("[1, 2]"), NOT_AN_INFO),
    "null": (answer_info("null"), NOT_AN_INFO),
    "no scales": (info_without("scales"), (*NOT_AN_INFO, "scales")),
}


class TestInfo:
    """The first thing that is asked for."""

    @pytest.fixture(params=INFO_FAULTS)
    def fault(self, request: pytest.FixtureRequest) -> str:
        name: str = request.param
        return name

    def test_first_contact(self, files: Row, fault: str) -> None:
        spoil, (kind, standard, *words) = INFO_FAULTS[fault]
        info = (files.scale.folder / "info").read_bytes()
        spoil(files)
        fetch_fails(files, kind, standard, f"precomputed://{files.url}", *words)
        assert files.server.count(VOXELS) == 0
        assert list_mirrors(Cache.at(load_settings())) == []
        files.server.heal()
        (files.scale.folder / "info").write_bytes(info)
        assert_completes(files)

    def test_with_a_mirror_begun(self, files: Row, fault: str) -> None:
        """What is cached is read without an info; what is not must not be taken for absent."""
        files.cut(0, 3).fetch()
        spoil, (kind, standard, *words) = INFO_FAULTS[fault]
        info = (files.scale.folder / "info").read_bytes()
        spoil(files)
        fetch_fails(files, kind, standard, f"precomputed://{files.url}", *words)
        np.testing.assert_array_equal(files.cut(0, 3).read()["raw"], files.expected(0, 3))
        assert_mirror(files, has={0, 1, 2})
        files.server.heal()
        (files.scale.folder / "info").write_bytes(info)
        assert_completes(files)

    def test_another_volume_at_the_same_address(self, files: Row) -> None:
        files.cut(0, 3).fetch()
        answer_info(json.dumps(files.scale.info).replace('"size": [1024', '"size": [2048'))(files)
        fetch_fails(files, SourceChangedError, OSError, files.url, "emcatalog cache rm")
        assert_mirror(files, has={0, 1, 2})

    def test_a_failed_request_is_repeated_as_often_as_the_settings_say(
        self, files: Row, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("EMCATALOG_RETRIES", "1")
        files.server.fail("*/info", 500)
        with pytest.raises(SourceUnavailableError):
            files.cut()
        assert files.server.count() == 2


class TestAddress:
    """Nobody is there."""

    @pytest.mark.parametrize(
        ("url", "reason"),
        [
            (f"{NOWHERE}/volume", "Could not connect"),
            ("http://no-such-host.invalid/volume", "Could not resolve"),
            ("http://127.0.0.1:99999/volume", "Port number"),
        ],
    )
    def test_unreachable(self, url: str, reason: str) -> None:
        with pytest.raises(SourceUnavailableError) as caught:
            cut(url, "uint8")
        assert_clear(caught.value, ConnectionError, f"precomputed://{url}/info", "cannot be reached", reason)

    def test_not_http(self) -> None:
        """A server that speaks something else."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=_say_hello, args=(listener,))
            thread.start()
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/volume"
            with pytest.raises(SourceUnavailableError) as caught:
                cut(url, "uint8")
            thread.join()
        assert_clear(caught.value, ConnectionError, url, "cannot be reached")


def _say_hello(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(1 << 16)
        connection.sendall(b"220 mail.example.org ESMTP\r\n")


# --- answers to requests for voxels


CHUNK_FAULTS: dict[
    str, tuple[Callable[[Row, str], None], tuple[type[SourceError], type[OSError], *tuple[str, ...]]]
] = {
    "400": (lambda row, path: row.server.fail(path, 400), (SourceUnavailableError, ConnectionError, "the address")),
    "401": (lambda row, path: row.server.fail(path, 401), DENIED),
    "403": (lambda row, path: row.server.fail(path, 403), DENIED),
    "410": (lambda row, path: row.server.fail(path, 410), MISSING),
    "429 for ever": (lambda row, path: row.server.fail(path, 429), UNREACHABLE),
    "500 for ever": (lambda row, path: row.server.fail(path, 500), UNREACHABLE),
    "503 for ever": (lambda row, path: row.server.fail(path, 503), UNREACHABLE),
    "hangs up": (lambda row, path: row.server.drop(path), UNREACHABLE),
    "truncated for ever": (lambda row, path: row.server.truncate(path), UNREACHABLE),
}


class TestVoxels:
    """The info is right, and what follows is not."""

    @pytest.mark.parametrize("fault", CHUNK_FAULTS)
    def test_one_chunk_file(self, files: Row, fault: str) -> None:
        spoil, (kind, standard, *words) = CHUNK_FAULTS[fault]
        spoil(files, path_of(BAD))
        fetch_fails(files, kind, standard, files.url, "x 576..640, y 0..32, z 0..16 at scale 8_8_8", *words)
        there = kept(files)
        assert BEFORE <= there <= ALL - {8, 9, 10, 11}
        assert_mirror(files, has=there)
        files.server.heal()
        assert_completes(files)

    @pytest.mark.parametrize("fault", CHUNK_FAULTS)
    def test_every_shard_file(self, tmp_path: Path, fault: str) -> None:
        spoil, (kind, standard, *words) = CHUNK_FAULTS[fault]
        with row_of_chunks(tmp_path, sharding={}) as row:
            spoil(row, "*.shard")
            fetch_fails(row, kind, standard, row.url, "at scale 8_8_8", *words)
            assert_mirror(row, has=set())
            row.server.heal()
            assert_completes(row)

    def test_failing_from_any_request_on(self, tmp_path: Path) -> None:
        """Whichever request is the first to fail: shard indexes, chunks, and the question whether zeros are stored."""
        voxels = row_voxels()
        voxels[:, :, 3 * 64 : 4 * 64] = 0
        for good in itertools.count(1):
            with row_of_chunks(tmp_path / str(good), sharding={}, voxels=voxels, missing=[6]) as row:
                if _fetch_with_failures_after(row, good):
                    break
        assert good > CHUNKS

    def test_a_server_that_ignores_ranges(self, tmp_path: Path) -> None:
        with row_of_chunks(tmp_path, sharding={}) as row:
            row.server.without_ranges = True
            fetch_fails(row, NoRangesError, ConnectionError, row.url, "does not serve parts of files")
            assert_mirror(row, has=set())
            row.server.heal()
            assert_completes(row)

    def test_whole_files_need_no_ranges(self, files: Row) -> None:
        files.server.without_ranges = True
        assert_completes(files)

    def test_shards_that_are_garbage(self, tmp_path: Path) -> None:
        with row_of_chunks(tmp_path, sharding={}) as row:
            row.server.corrupt("*.shard")
            fetch_fails(row, SourceCorruptError, OSError, row.url, "does not decode", "tell the data's owner")
            assert_mirror(row, has=set())
            row.server.heal()
            assert_completes(row)


def _fetch_with_failures_after(row: Row, good: int) -> bool:
    """Fetch while only the first `good` requests are answered, then go on; returns whether they were enough."""
    row.server.fail("*", 500, skip=good)
    enough = True
    try:
        assert row.cut().fetch().absent == 1
    except SourceUnavailableError:
        enough = False
    there = kept(row)
    assert enough == (there == ALL)
    assert_mirror(row, has=there)
    row.server.heal()
    assert_completes(row)
    return enough


class TestRecovery:
    """Failures that pass: a fetch gets over them by itself."""

    def test_of_files(self, files: Row, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EMCATALOG_RETRIES", "2")
        files.server.fail("*/info", 503, times=1)
        files.server.fail(path_of(1), 500, times=2)
        files.server.fail(path_of(4), 429, times=1)
        files.server.drop(path_of(7), times=2)
        files.server.truncate(path_of(BAD), times=1)
        report = files.cut().fetch()
        assert (report.fetched, report.absent) == (CHUNKS, 0)
        assert [answer.status for answer in files.answers(1)] == [500, 500, 200]
        assert [answer.status for answer in files.answers(4)] == [429, 200]
        assert [answer.status for answer in files.answers(7)] == [0, 0, 200]
        assert [answer.bytes for answer in files.answers(BAD)] == [16 * 1024, 32 * 1024]
        assert_mirror(files, has=ALL)

    def test_of_shards(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EMCATALOG_RETRIES", "2")
        with row_of_chunks(tmp_path, sharding={}) as row:
            # Indexes are asked for first, chunks last.
            row.server.truncate("*.shard", times=1, skip=9)
            row.server.drop("*.shard", times=1, skip=5)
            row.server.fail("*.shard", 500, times=1)
            report = row.cut().fetch()
            assert (report.fetched, report.absent) == (CHUNKS, 0)
            assert {500, 0} < {record.status for record in row.server.requests}
            assert_mirror(row, has=ALL)


# --- what is stored is damaged


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def garbage(data: bytes) -> bytes:
    return bytes(value ^ 0xA5 for value in data)


def nothing(_: bytes) -> bytes:
    return b""


def longer(data: bytes) -> bytes:
    return data + b"more"


DAMAGE = {
    "raw": (half, nothing, longer),
    "jpeg": (half, garbage, nothing),
    "png": (half, garbage),
    "compressed_segmentation": (half, garbage, nothing),
}


class TestDamage:
    """A chunk that does not decode: itself and its shard of the mirror stay missing, what stands before is kept."""

    @pytest.mark.parametrize("sharding", SHARDINGS, ids=IDS)
    @pytest.mark.parametrize(
        ("encoding", "damage"), [(encoding, damage) for encoding, kinds in DAMAGE.items() for damage in kinds]
    )
    def test_one_chunk(
        self, tmp_path: Path, encoding: str, damage: Callable[[bytes], bytes], sharding: dict[str, object] | None
    ) -> None:
        with row_of_chunks(tmp_path, encoding, sharding) as row:
            good = row.scale.encoded((0, 0, BAD))
            assert good is not None
            row.scale.replace_encoded((0, 0, BAD), damage(good))
            words = ("x 576..640, y 0..32, z 0..16 at scale 8_8_8", "does not decode", "tell the data's owner")
            fetch_fails(row, SourceCorruptError, OSError, row.url, *words)
            there = kept(row)
            row.scale.replace_encoded((0, 0, BAD), good)
            assert BEFORE <= there <= ALL - {8, BAD}  # a shard of 64-bit labels holds two chunks of the row
            assert_mirror(row, has=there)
            assert_completes(row)

    @pytest.mark.parametrize("part", ["minishard index", "shard index", "end"])
    def test_shard(self, tmp_path: Path, part: str) -> None:
        with row_of_chunks(tmp_path, sharding={}) as row:
            path = row.scale.folder / "8_8_8" / "1.shard"
            good = path.read_bytes()
            path.write_bytes(damaged_shard(good, part))
            fetch_fails(row, SourceCorruptError, OSError, row.url, "does not decode", "tell the data's owner")
            there = kept(row)
            path.write_bytes(good)
            assert_mirror(row, has=there)
            assert_completes(row)

    def test_what_stands_before_it_is_kept_even_if_it_comes_later(
        self, files: Row, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("emcatalog.fetch.IN_FLIGHT_BYTES", 3 * IN_SHARD * CHUNK_BYTES)
        files.server.hang(path_of(5), seconds=0.5)
        files.scale.replace_encoded((0, 0, BAD), b"damaged")
        with pytest.raises(SourceCorruptError):
            files.cut().fetch()
        assert kept(files) >= BEFORE

    def test_a_box_beside_it(self, files: Row) -> None:
        """What the message advises."""
        files.scale.replace_encoded((0, 0, BAD), b"damaged")
        for first, stop in ((0, BAD), (BAD + 1, CHUNKS)):
            np.testing.assert_array_equal(files.cut(first, stop).read()["raw"], files.expected(first, stop))
        assert kept(files) == ALL - {BAD}
        with pytest.raises(NotCachedError, match="lacks 1 of 16 chunks"):
            files.cut(offline=True).read()


def damaged_shard(good: bytes, part: str) -> bytes:
    """A shard file of two minishards with one part of it damaged."""
    start, stop = (32 + int(edge) for edge in np.frombuffer(good[:16], "<u8"))
    if part == "minishard index":
        return good[:start] + garbage(good[start:stop]) + good[stop:]
    return garbage(good[:32]) + good[32:] if part == "shard index" else half(good)


# --- a cache that cannot be used


def assert_no_cache(row: Row, cache: str | Path, kind: type[EmcatalogError], *words: str) -> None:
    """A fetch into this cache fails with a message of these words."""
    with pytest.raises(kind) as caught:
        row.cut(cache_dir=str(cache)).fetch()
    assert type(caught.value) is kind
    assert_clear(caught.value, OSError if kind is CacheError else ValueError, *words)


class TestCacheFolder:
    """Where the mirror cannot lie."""

    @pytest.mark.parametrize("below", ["", "/folder"])
    def test_a_file_in_its_place(self, files: Row, tmp_path: Path, below: str) -> None:
        place = tmp_path / "place"
        place.write_text("mine")
        assert_no_cache(files, f"{place}{below}", CacheError, str(place), "cannot be used", "EMCATALOG_CACHE")
        assert place.read_text() == "mine"

    @pytest.mark.parametrize("place", ["/proc/emcatalog", "/dev/null/cache"])
    @pytest.mark.skipif(sys.platform != "linux", reason="folders of Linux")
    def test_where_no_folder_can_be_made(self, files: Row, place: str) -> None:
        assert_no_cache(files, place, CacheError, place, "cannot be used", "EMCATALOG_CACHE")

    def test_too_long_a_name(self, files: Row, tmp_path: Path) -> None:
        assert_no_cache(files, tmp_path / ("x" * 300), CacheError, "cannot be used", "File name too long")

    @pytest.mark.parametrize("url", ["http://127.0.0.1/cache", "https://127.0.0.1/cache", "demo://tissue"])
    def test_a_url_that_is_only_read(self, files: Row, url: str) -> None:
        assert_no_cache(files, url, SettingsError, url, "a folder, s3:// or gs://")

    @pytest.mark.parametrize("url", ["nonsense://bucket/cache", "://bucket", "file://here"])
    def test_a_url_of_no_store(self, files: Row, url: str) -> None:
        assert_no_cache(files, url, SettingsError, url, "a folder, s3:// or gs://")

    def test_a_bucket_that_cannot_be_reached(self, files: Row, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in (("ENDPOINT_URL", NOWHERE), ("ACCESS_KEY_ID", "key"), ("SECRET_ACCESS_KEY", "secret")):
            monkeypatch.setenv(f"AWS_{name}", value)
        assert_no_cache(files, "s3://bucket/cache", CacheError, "s3://bucket/cache", "cannot be reached", "ask again")

    def test_a_relative_path_with_dots(self, files: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "work").mkdir()
        monkeypatch.chdir(tmp_path / "work")
        files.cut(cache_dir="../shared").fetch()
        assert files.cut(cache_dir=str(tmp_path / "shared")).plan().missing == 0


# --- no room


def fetch_with_small_files(url: str, most: str) -> None:
    """Fetch with a limit on the size of a file, as a quota sets one (in a process of its own)."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(most), int(most)))
    fetch_and_say(url)


class TestDiskFull:
    """A disk that is full in the middle of a fetch."""

    @pytest.mark.parametrize("most", [1, 5_000, 100_000])
    def test_files_cannot_grow(self, row: Row, tmp_path: Path, most: int) -> None:
        with start_python(fetch_with_small_files, row.url, str(most)) as process:
            answer = last_words(process)
        assert {"CacheError", "OSError"} < set(answer["kinds"])
        assert f"{tmp_path / 'cache'}/http" in answer["message"]
        assert "the disk is full; what was fetched is kept, so free some space" in answer["message"]
        there = kept(row)
        assert there < ALL
        assert_mirror(row, has=there)
        assert_completes(row)

    def test_a_small_disk(self, row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with small_disk(tmp_path / "disk", "300k") as disk:
            monkeypatch.setenv("EMCATALOG_CACHE", str(disk / "cache"))
            fetch_fails(row, CacheError, OSError, f"{disk}/cache/http", "the disk is full", "free some space")
            there = kept(row)
            assert set(range(IN_SHARD)) <= there < ALL
            assert_mirror(row, has=there)
            subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
            assert_completes(row)

    def test_a_disk_full_from_the_start(self, row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with small_disk(tmp_path / "disk", "64k") as disk:
            monkeypatch.setenv("EMCATALOG_CACHE", str(disk / "cache"))
            with suppress(OSError):
                (disk / "ballast").write_bytes(bytes(1 << 20))
            fetch_fails(row, CacheError, OSError, f"{disk}/cache/http", "the disk is full", "free some space")
            (disk / "ballast").unlink()
            subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
            assert_completes(row)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own, where this user may mount one."""
    folder.mkdir()
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if sys.platform != "linux" or not mount or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this user cannot mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


# --- no permission


def fetch_without_privilege(url: str, *_: str) -> None:
    """Fetch as somebody for whom permissions hold: root reads and writes everything (in a process of its own)."""
    if os.getuid() == 0:
        forget_privilege()
    fetch_and_say(url)


def forget_privilege() -> None:
    """Take from root the right to overrule the permissions of files.

    Another user would not do: the interpreter may lie in root's own folder.
    """
    header, none = (
        (ctypes.c_uint32 * 2)(0x20080522, 0),
        (ctypes.c_uint32 * 6)(),
    )  # capset(2), _LINUX_CAPABILITY_VERSION_3
    if ctypes.CDLL(None, use_errno=True).capset(header, none):
        raise OSError(ctypes.get_errno(), "capset")


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities of Linux")
class TestPermissions:
    """Folders that may be read and not written."""

    def test_a_folder_that_cannot_be_written(self, files: Row, tmp_path: Path) -> None:
        (tmp_path / "cache").mkdir()
        with read_only(tmp_path / "cache"), start_python(fetch_without_privilege, files.url) as process:
            answer = last_words(process)
        assert {"CacheError", "OSError"} < set(answer["kinds"])
        assert f"{tmp_path / 'cache'}/http" in answer["message"]
        assert "the cache cannot be used; set EMCATALOG_CACHE (or cache_dir) to a folder" in answer["message"]
        assert list((tmp_path / "cache").iterdir()) == []
        assert_completes(files)

    def test_a_mirror_that_cannot_be_written(self, files: Row, tmp_path: Path) -> None:
        """What is there is read; the rest is an error."""
        files.cut(0, 6).fetch()
        with read_only(tmp_path / "cache"):
            with start_python(fetch_without_privilege, files.url) as process:
                answer = last_words(process)
            assert "CacheError" in answer["kinds"]
            assert "the cache cannot be used" in answer["message"]
            assert_mirror(files, has=set(range(6)))
        assert_completes(files)

    def test_a_whole_mirror_that_cannot_be_written(self, files: Row, tmp_path: Path) -> None:
        files.cut().fetch()
        with read_only(tmp_path / "cache"), start_python(fetch_without_privilege, files.url) as process:
            assert last_words(process) == {"fetched": 0}


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nobody may write into a folder and those below it."""
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    try:
        yield
    finally:
        for path in folders:
            path.chmod(0o755)


# --- no network


class TestOffline:
    """Answers from the mirror alone, or says what is missing."""

    def test_nothing_cached(self, files: Row) -> None:
        with pytest.raises(NotCachedError) as caught:
            files.cut(offline=True)
        assert_clear(caught.value, OSError, "offline", files.url, "was never opened with the cache")
        assert files.server.requests == []

    def test_described_and_nothing_fetched(self, files: Row) -> None:
        files.cut().plan()
        files.server.clear()
        with pytest.raises(NotCachedError) as caught:
            files.cut(offline=True).read()
        assert_clear(caught.value, OSError, "offline", files.url, "was ever fetched", "fetch() the box")
        assert files.server.requests == []

    def test_partly_cached(self, files: Row) -> None:
        files.cut(0, 3).fetch()
        files.cut(5, 9).fetch()
        files.server.clear()
        for ask in (Cutout.fetch, Cutout.read):
            with pytest.raises(NotCachedError) as caught:
                ask(files.cut(2, 12, offline=True))
            assert_clear(caught.value, OSError, "raw lacks 5 of 10 chunks (the first at x 192..256", "fetch() the box")
        assert files.server.requests == []

    @pytest.mark.parametrize("how", ["argument", "environment"])
    def test_all_cached(self, row: Row, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
        row.cut().fetch()
        row.server.clear()
        if how == "environment":
            monkeypatch.setenv("EMCATALOG_OFFLINE", "1")
        offline = row.cut(offline=True if how == "argument" else None)
        np.testing.assert_array_equal(offline.read()["raw"], row.expected())
        assert offline.fetch().reused == CHUNKS
        assert row.server.requests == []

    def test_of_the_environment_when_something_is_missing(self, files: Row, monkeypatch: pytest.MonkeyPatch) -> None:
        files.cut(0, 3).fetch()
        files.server.clear()
        monkeypatch.setenv("EMCATALOG_OFFLINE", "1")
        with pytest.raises(NotCachedError, match="lacks 13 of 16 chunks"):
            files.cut().read()
        assert files.server.requests == []

    def test_no_network_and_all_cached(self, tmp_path: Path) -> None:
        with row_of_chunks(tmp_path) as row:
            row.cut().fetch()
        np.testing.assert_array_equal(row.cut().read()["raw"], row.expected())

    def test_no_network_and_something_missing(self, tmp_path: Path) -> None:
        with row_of_chunks(tmp_path) as row:
            row.cut(0, 3).fetch()
        with pytest.raises(SourceUnavailableError) as caught:
            row.cut().read()
        assert_clear(caught.value, ConnectionError, row.url, "cannot be reached")
        np.testing.assert_array_equal(row.cut(0, 3).read()["raw"], row.expected(0, 3))


def test_what_went_away_after_it_was_found_is_not_zeros(files: Row, tmp_path: Path) -> None:
    """Somebody empties the cache between the look at it and the read."""
    files.cut().fetch()
    cache, location = Cache.at(load_settings()), parse_location(f"precomputed://{files.url}")
    volume = cache.volume(location)
    assert volume is not None
    mirror = cache.array(location, volume.scales[0], create=False)
    assert mirror is not None
    box = files.cut().box
    assert mirror.gaps(box) == []
    next((tmp_path / "cache").rglob("c/0/0/2")).unlink()
    with pytest.raises(NotCachedError) as caught:
        mirror.read(box).result()
    assert_clear(caught.value, OSError, str(tmp_path / "cache"), "was never fetched")


def test_a_server_that_says_nothing_at_all(files: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that stays open and silent counts as lost, and not only when somebody loses patience."""
    monkeypatch.setenv("TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS", "1")
    files.server.hang(path_of(BAD), seconds=60)
    with start_python(fetch_and_say, files.url) as process:
        answer = last_words(process)
    assert {"SourceUnavailableError", "ConnectionError"} < set(answer["kinds"])
    assert BAD not in files.asked()  # it was never answered
    there = kept(files)
    assert there >= BEFORE
    files.server.heal()
    assert_completes(files)
