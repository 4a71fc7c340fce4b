"""Skeletons that do not exist, do not parse or do not come, and a cache that is damaged, offline or cut short."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emcatalog.errors import (
    CacheCorruptError,
    CacheError,
    EmcatalogError,
    MissingExtraError,
    NotCachedError,
    SettingsError,
    SourceCorruptError,
    SourceDeniedError,
    SourceError,
    SourceMissingError,
    SourceUnavailableError,
)
from emcatalog.settings import load_settings
from emcatalog.skeletons.collection import IN_FLIGHT, Skeletons
from tests.conftest import ServeAs
from tests.replica.server import serve
from tests.replica.skeletons import PRECOMPUTED, SWC, skeletons_folder
from tests.replica.wire import Server
from tests.test_fetch import assert_clear, hear, say, start_python
from tests.test_skeletons import (
    BODIES,
    BUCKET,
    FORMS,
    MANY,
    SkeletonBucket,
    assert_same,
    kept,
    many_bodies,
    name_of,
    skeletons,
    some_bodies,
)

CALLS = ["read", "fetch"]


def names(source: Skeletons) -> set[str]:
    """What is kept of the skeletons themselves."""
    return {path.name for path in kept(source).glob("*")} - {"info"} if kept(source).exists() else set()


def assert_whole(source: Skeletons, bucket: SkeletonBucket, bodies: list[int]) -> None:
    """Exactly these are kept, each as it is at the source, and they are read without a request."""
    assert names(source) == {name_of(source, body) for body in bodies}
    folder = skeletons_folder("v0.9", FORMS[source.form])
    for body in bodies:
        name = name_of(source, body)
        assert (kept(source) / name).read_bytes() == (bucket.folder / folder / name).read_bytes()
    if bodies:
        offline = skeletons(FORMS[source.form], offline=True)
        assert_same(offline.read(bodies), bucket.truth[folder], bodies)


@pytest.fixture(scope="session")
def bucket(shared_folder: Path) -> SkeletonBucket:
    return some_bodies(shared_folder)


@pytest.fixture
def server(bucket: SkeletonBucket, serve_as: ServeAs) -> Server:
    """The bucket on a server, in its place."""
    return serve_as(BUCKET, bucket.folder)


@pytest.fixture(params=FORMS)
def source(request: pytest.FixtureRequest, server: Server) -> Skeletons:
    return skeletons(FORMS[request.param])


class TestMissing:
    @pytest.mark.parametrize("call", CALLS)
    def test_all_in_one_error_and_the_others_are_kept(
        self, source: Skeletons, bucket: SkeletonBucket, call: str
    ) -> None:
        with pytest.raises(SourceMissingError) as caught:
            getattr(source, call)([7, *BODIES[:5], 8, *BODIES[5:9], 9])
        words = "3 of the 12 asked for do not exist: 7, 8, 9. What is good, 9, is kept; leave the others out"
        assert_clear(caught.value, FileNotFoundError, f"skeletons in {source.url}: ", words)
        assert_whole(source, bucket, BODIES[:9])

    def test_what_is_kept_already_counts(self, source: Skeletons) -> None:
        source.fetch(BODIES[:2])
        with pytest.raises(SourceMissingError, match=r"1 of the 3 asked for do not exist: 7\. What is good, 2, is"):
            source.read([*BODIES[:2], 7])

    def test_more_than_are_asked_for_at_once(self, source: Skeletons) -> None:
        gone = list(range(1, IN_FLIGHT + 30))
        with pytest.raises(SourceMissingError, match=f"{len(gone)} of the {len(gone) + 1} asked for") as caught:
            source.read([*gone, 12781])
        assert str(caught.value).endswith("list_ids() for those that exist")
        assert ", ".join(map(str, gone)) in str(caught.value)

    def test_not_one_exists(self, source: Skeletons) -> None:
        with pytest.raises(
            SourceMissingError, match=r"2 of the 2 asked for do not exist: 7, 8\. Not one is there"
        ) as caught:
            source.read([7, 8])
        # The info of precomputed ones says that the folder is there.
        assert ("EMCATALOG_MIRRORS" in str(caught.value)) == (source.form == "swc")

    def test_a_folder_that_is_not_there(self, server: Server) -> None:
        with pytest.raises(SourceMissingError) as caught:
            Skeletons(f"{BUCKET}/elsewhere", "swc").read(BODIES[:2])
        said = "2 of the 2 asked for do not exist: 12781, 556329. Not one is there, and of a folder that is not there"
        assert_clear(caught.value, FileNotFoundError, said, "EMCATALOG_MIRRORS")

    def test_a_folder_without_info(self, server: Server) -> None:
        with pytest.raises(SourceMissingError) as caught:
            Skeletons(f"{BUCKET}/elsewhere", "precomputed").read(BODIES[:2])
        assert_clear(caught.value, FileNotFoundError, f"{BUCKET}/elsewhere/info: there is none", "EMCATALOG_MIRRORS")


class TestCorrupt:
    @pytest.mark.parametrize("call", CALLS)
    def test_all_in_one_error_and_the_others_are_kept(
        self,
        source: Skeletons,
        bucket: SkeletonBucket,
        server: Server,
        call: str,
    ) -> None:
        for body in BODIES[1:3]:
            server.corrupt(f"*/{name_of(source, body)}")
        with pytest.raises(SourceCorruptError) as caught:
            getattr(source, call)(BODIES[:6])
        first = f"{source.url}/{name_of(source, BODIES[1])} is not a "
        words = f"2 of the 6 asked for do not parse: {BODIES[1]}, {BODIES[2]}; the first: {first}"
        assert_clear(caught.value, OSError, f"skeletons in {source.url}: ", words, "What is good, 4, is kept")
        assert_whole(source, bucket, [BODIES[0], *BODIES[3:6]])
        server.heal()
        source.fetch(BODIES[:6])
        assert_whole(source, bucket, BODIES[:6])

    def test_missing_ones_are_named_as_well(self, source: Skeletons, server: Server) -> None:
        server.corrupt(f"*/{name_of(source, BODIES[1])}")
        with pytest.raises(SourceCorruptError) as caught:
            source.read([7, *BODIES[:3]])
        assert "1 of the 4 asked for do not exist: 7. 1 of the 4 asked for do not parse: 556329" in str(caught.value)

    def test_every_one(self, source: Skeletons, server: Server) -> None:
        server.corrupt("*[0-9.cws]")
        with pytest.raises(SourceCorruptError, match="Nothing of them was kept; check the address") as caught:
            source.read(BODIES[:2])
        assert isinstance(caught.value.__cause__, SourceCorruptError)
        assert names(source) == set()

    def test_one_flipped_byte_of_text(self, server: Server) -> None:
        server.corrupt("*/12781.swc", kind="flip")
        with pytest.raises(SourceCorruptError, match=r"12781\.swc is not a skeleton in SWC: line \d+"):
            skeletons().read(12781)

    def test_the_info(self, server: Server) -> None:
        server.corrupt("*/info")
        source = skeletons(PRECOMPUTED)
        with pytest.raises(SourceCorruptError, match="info does not describe skeletons"):
            source.read(12781)
        assert not kept(source).exists()
        server.heal()
        assert len(source.read(12781)) == 1

    def test_a_sharding_that_nobody_knows(self, tmp_path: Path) -> None:
        (tmp_path / "info").write_text('{"@type": "neuroglancer_skeletons", "sharding": {"hash": "md5"}}')
        with pytest.raises(SourceCorruptError) as caught:
            Skeletons(f"file://{tmp_path}", "precomputed").read(12781)
        assert_clear(caught.value, OSError, f"file://{tmp_path}: ", "does not decode")


Misbehave = Callable[[Server, str, int | None], None]
FAILURES: dict[str, tuple[Misbehave, type[SourceError], type[OSError]]] = {
    "403": (lambda server, path, times: server.fail(path, 403, times), SourceDeniedError, PermissionError),
    "429": (lambda server, path, times: server.fail(path, 429, times), SourceUnavailableError, ConnectionError),
    "500": (lambda server, path, times: server.fail(path, 500, times), SourceUnavailableError, ConnectionError),
    "503": (lambda server, path, times: server.fail(path, 503, times), SourceUnavailableError, ConnectionError),
    "hangs up": (lambda server, path, times: server.drop(path, times), SourceUnavailableError, ConnectionError),
    "cut off": (lambda server, path, times: server.truncate(path, times), SourceUnavailableError, ConnectionError),
}


class TestTransport:
    @pytest.mark.parametrize("failure", FAILURES)
    def test_an_error_and_nothing_else(
        self,
        source: Skeletons,
        bucket: SkeletonBucket,
        server: Server,
        failure: str,
    ) -> None:
        misbehave, kind, standard = FAILURES[failure]
        name = name_of(source, BODIES[5])
        misbehave(server, f"*/{name}", None)
        with pytest.raises(kind) as caught:
            source.read(BODIES[:10])
        assert type(caught.value) is kind
        assert_clear(caught.value, standard, f"{source.url}/{name}: ")
        assert_whole(source, bucket, BODIES[:5])
        server.heal()
        server.clear()
        assert source.fetch(BODIES[:10]).fetched == 5
        assert_whole(source, bucket, BODIES[:10])

    @pytest.mark.parametrize("failure", ["429", "500", "503", "hangs up", "cut off"])
    def test_repeated_and_then_well(
        self,
        source: Skeletons,
        bucket: SkeletonBucket,
        server: Server,
        failure: str,
    ) -> None:
        FAILURES[failure][0](server, f"*/{name_of(source, BODIES[5])}", 1)
        assert source.fetch(BODIES[:10]).fetched == 10
        assert server.count(f"*/{name_of(source, BODIES[5])}") == 2
        assert_whole(source, bucket, BODIES[:10])

    @pytest.mark.parametrize("form", FORMS)
    def test_a_server_that_is_down(self, bucket: SkeletonBucket, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
        with serve(bucket.folder) as server:
            gone = server.url
        monkeypatch.setenv("EMCATALOG_RETRIES", "0")
        monkeypatch.setenv("EMCATALOG_MIRRORS", f'{{"{BUCKET}": "{gone}"}}')
        source = skeletons(FORMS[form])
        with pytest.raises(SourceUnavailableError) as caught:
            source.read(BODIES[:3])
        assert_clear(caught.value, ConnectionError, source.url, "cannot be reached")
        assert not isinstance(caught.value, FileNotFoundError)
        assert not kept(source).exists()

    def test_the_info_is_refused(self, server: Server) -> None:
        server.fail("*/info", 403)
        with pytest.raises(SourceDeniedError, match="/info: the server refuses access"):
            skeletons(PRECOMPUTED).read(12781)


class TestOffline:
    def test_what_is_kept_is_read(self, source: Skeletons, bucket: SkeletonBucket, server: Server) -> None:
        source.fetch(BODIES[:4])
        server.clear()
        offline = skeletons(FORMS[source.form], offline=True)
        assert_whole(source, bucket, BODIES[:4])
        assert offline.fetch(BODIES[:4]).reused == 4
        assert offline.list_ids().tolist() == sorted(BODIES[:4])
        assert server.requests == []

    @pytest.mark.parametrize("call", CALLS)
    def test_what_is_not_is_listed_in_one_error(self, source: Skeletons, server: Server, call: str) -> None:
        source.fetch(BODIES[:2])
        server.clear()
        with pytest.raises(NotCachedError) as caught:
            getattr(skeletons(FORMS[source.form], offline=True), call)(BODIES[:4])
        words = "2 of the 4 skeletons asked for were never fetched from", ": 10001, 10002; fetch() them"
        assert_clear(caught.value, OSError, source.url, *words)
        assert server.requests == []

    def test_nothing_was_ever_fetched(self, source: Skeletons, server: Server) -> None:
        offline = skeletons(FORMS[source.form], offline=True)
        for ask in (lambda: offline.read(12781), offline.list_ids):
            with pytest.raises(NotCachedError, match="ever fetched"):
                ask()
        assert server.requests == []

    def test_the_info_is_gone(self, server: Server) -> None:
        source = skeletons(PRECOMPUTED)
        source.fetch(12781)
        (kept(source) / "info").unlink()
        with pytest.raises(NotCachedError, match="/info was never fetched"):
            skeletons(PRECOMPUTED, offline=True).read(12781)


class TestCache:
    @pytest.mark.parametrize("damage", ["empty", "half", "other"])
    def test_a_damaged_file(self, source: Skeletons, bucket: SkeletonBucket, damage: str) -> None:
        source.fetch(BODIES[:3])
        path = kept(source) / name_of(source, BODIES[1])
        content = path.read_bytes()
        path.write_bytes({"empty": b"", "half": content[: len(content) // 2 - 3], "other": b"\0" * 100}[damage])
        with pytest.raises(CacheCorruptError) as caught:
            source.read(BODIES[:3])
        assert_clear(caught.value, OSError, str(path), "delete it and ask again")
        path.unlink()
        source.read(BODIES[:3])
        assert_whole(source, bucket, BODIES[:3])

    def test_a_damaged_info(self, server: Server) -> None:
        source = skeletons(PRECOMPUTED)
        source.fetch(12781)
        (kept(source) / "info").write_text("{")
        with pytest.raises(CacheCorruptError, match="info is not what was written there; delete it"):
            source.read(12781)

    def test_what_a_killed_process_left_is_passed_over(self, source: Skeletons, bucket: SkeletonBucket) -> None:
        source.fetch(BODIES[:2])
        (kept(source) / f".{name_of(source, BODIES[2])}.0123").write_bytes(b"1 0 1 2")
        assert skeletons(FORMS[source.form], offline=True).list_ids().tolist() == sorted(BODIES[:2])
        assert source.fetch(BODIES[:3]).fetched == 1

    def test_a_place_that_cannot_be_written(self, source: Skeletons, tmp_path: Path) -> None:
        (tmp_path / "cache").write_text("a file")
        with pytest.raises(CacheError) as caught:
            source.read(12781)
        assert_clear(caught.value, OSError, str(tmp_path / "cache"), "EMCATALOG_CACHE or cache_dir")

    def test_a_file_in_whose_place_is_a_folder(self, source: Skeletons) -> None:
        (kept(source) / name_of(source, 12781)).mkdir(parents=True)
        with pytest.raises(CacheError, match="the cache cannot be used there"):
            source.read(12781)
        assert {path.name for path in kept(source).iterdir()} <= {"info", name_of(source, 12781)}

    def test_a_cache_in_a_bucket(self, source: Skeletons) -> None:
        elsewhere = Skeletons(source.url, source.form, settings=load_settings(cache_dir="s3://bucket/cache"))
        with pytest.raises(SettingsError, match="kept in a folder"):
            elsewhere.read(12781)


ARRIVED = 100


def fetch_and_say() -> None:
    """Fetch many skeletons and say each that is kept (in a process of its own)."""
    try:
        skeletons().fetch(MANY, progress=lambda total: lambda *_: say(arrived=1))
    except EmcatalogError as error:
        say(error=str(error))
    except KeyboardInterrupt:
        say(interrupted=True)


class TestStopped:
    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
    def test_and_asked_again(self, serve_as: ServeAs, shared_folder: Path, how: signal.Signals) -> None:
        bucket = many_bodies(shared_folder)
        server = serve_as(BUCKET, bucket.folder)
        server.hang(f"*/{MANY[ARRIVED]}.swc", seconds=600)
        with start_python(fetch_and_say) as process:
            for _ in range(ARRIVED):
                assert hear(process) == {"arrived": 1}
            process.send_signal(how)
            if how is signal.SIGINT:
                assert hear(process) == {"interrupted": True}
        server.heal()
        server.clear()
        source = skeletons()
        assert_whole(source, bucket, MANY[:ARRIVED])
        report = source.fetch(MANY)
        assert (report.fetched, report.reused) == (len(MANY) - ARRIVED, ARRIVED)
        assert len(server.requests) == len(MANY) - ARRIVED
        assert_whole(source, bucket, MANY)

    def test_by_the_one_who_is_told_of_progress(self, source: Skeletons, bucket: SkeletonBucket) -> None:
        def start(_: int) -> Any:
            left = iter(range(5))
            return lambda *_: pytest.fail("stop") if next(left) == 4 else None

        with pytest.raises(pytest.fail.Exception, match="stop"):
            source.fetch(BODIES, progress=start)
        assert_whole(source, bucket, BODIES[:5])
        assert source.fetch(BODIES).fetched == len(BODIES) - 5


def test_navis_is_not_installed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "navis", None)
    with pytest.raises(MissingExtraError) as caught:
        Skeletons.to_navis(skeletons(SWC).read(12781))
    assert_clear(caught.value, ModuleNotFoundError, "pip install 'emcatalog[")
