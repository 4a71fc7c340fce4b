"""The lock file: a source whose metadata is no longer what somebody was content with says so when it is opened."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import emcatalog
from emcatalog.errors import SettingsError, SourceChangedError, SourceError
from emcatalog.formats.documents import Documents
from emcatalog.lock import Lock, LockedDocument, read_lock, write_lock
from emcatalog.stores import make_store
from tests.conftest import Replica, channel, place
from tests.replica.precomputed import build_precomputed
from tests.replica.server import serve
from tests.replica.wire import Server
from tests.test_audit import check, entry, facts, volume, write_catalog
from tests.test_cli import assert_one_sentence, call

BOX = place(0, 64, 0, 64, 0, 32)
BESIDE = place(64, 128, 0, 64, 0, 32)
INFOS = ("em/em-clahe-jpeg/info", "v0.9/segmentation/info", "v1.0/segmentation/info")
BUCKET = "precomputed://gs://flyem-male-cns"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a project, in which everything is called."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.delenv("EMCATALOG_LOCK", raising=False)
    monkeypatch.chdir(folder)
    return folder


@dataclass(frozen=True)
class Bucket:
    """The miniature of the male CNS, whose infos a test can change."""

    folder: Path
    server: Server

    def change(self, document: str, **keys: object) -> None:
        """Add keys to an info."""
        path = self.folder / document
        content = {**json.loads(path.read_text()), **keys}
        path.unlink()  # it is a link to what all tests share
        path.write_text(json.dumps(content))


@pytest.fixture
def bucket(replica: Replica, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    shutil.copytree(replica.folder, tmp_path / "bucket", copy_function=os.link)
    with serve(tmp_path / "bucket") as server:
        monkeypatch.setenv("EMCATALOG_MIRRORS", json.dumps({"gs://flyem-male-cns": server.url}))
        yield Bucket(tmp_path / "bucket", server)


def locked(path: Path = Path("emcatalog.lock")) -> dict[str, LockedDocument]:
    return read_lock(path).documents


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def etag(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as response:
        return str(response.headers["ETag"]).strip('"')


class TestWriting:
    """``emcatalog check --lock``."""

    def test_writes_what_each_document_is(self, bucket: Bucket, here: Path) -> None:
        before = today()
        done = call("check", "malecns", "--lock", env={"COLUMNS": "400"})
        assert f"3 documents locked in {here / 'emcatalog.lock'}" in done.stderr
        found = locked()
        assert list(found) == [f"{BUCKET}/{name}" for name in INFOS]
        for name in INFOS:
            document = found[f"{BUCKET}/{name}"]
            assert document.sha256 == hashlib.sha256((bucket.folder / name).read_bytes()).hexdigest()
            assert document.generation == etag(f"{bucket.server.url}/{name}")
            assert before <= document.locked <= today()

    def test_without_the_option_nothing_is_written(self, bucket: Bucket, here: Path) -> None:
        check("malecns")
        assert list(here.iterdir()) == []

    def test_leaves_nothing_else_behind(self, bucket: Bucket, here: Path) -> None:
        check("malecns", "--lock")
        assert list(here.iterdir()) == [here / "emcatalog.lock"]

    def test_another_place(self, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "shared").mkdir()
        monkeypatch.setenv("EMCATALOG_LOCK", str(tmp_path / "shared/other.lock"))
        check("malecns", "--lock")
        assert len(locked(tmp_path / "shared/other.lock")) == 3
        assert not Path("emcatalog.lock").exists()
        bucket.change(INFOS[0], note="new")
        with pytest.raises(SourceChangedError):
            emcatalog.catalog.malecns(bbox=BOX).fetch()

    def test_a_place_that_is_not_there(self, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EMCATALOG_LOCK", str(tmp_path / "nowhere/the.lock"))
        assert_one_sentence(call("check", "malecns", "--lock", status=2).stderr, str(tmp_path / "nowhere/the.lock"))

    def test_keeps_what_other_entries_have_locked(self, bucket: Bucket) -> None:
        check("demo", "--lock")
        demo = locked()
        assert list(demo) == ["precomputed://demo://tissue/em/info", "precomputed://demo://tissue/segmentation/info"]
        check("malecns", "--version", "v1.0", "--lock")
        assert {name: one for name, one in locked().items() if "demo" in name} == demo
        assert list(locked()) == sorted(locked())
        assert len(locked()) == 4

    def test_of_a_file_on_disk(self, tmp_path: Path) -> None:
        build_precomputed(tmp_path / "tissue", np.ones((40, 40, 40), np.uint16), resolution=(4, 5, 40))
        url = f"file://{tmp_path}/tissue"
        path = write_catalog(tmp_path / "own.yaml", tissue=entry(raw=volume(url)))
        check("--catalog", path, "--lock")
        ((address, document),) = locked().items()
        assert address == f"precomputed://{url}/info"
        assert document.sha256 == hashlib.sha256((tmp_path / "tissue/info").read_bytes()).hexdigest()
        assert document.generation
        generation = document.generation
        check("--catalog", path, "--lock")
        assert locked()[address].generation == generation
        (tmp_path / "tissue/info").write_text((tmp_path / "tissue/info").read_text() + "\n")
        with pytest.raises(SourceChangedError, match=re.escape(address)):
            emcatalog.open_catalog(path).tissue().read()
        check("--catalog", path, "--lock")
        assert locked()[address].generation != generation
        assert emcatalog.open_catalog(path).tissue().read()["raw"].values.all()

    def test_a_source_that_cannot_be_read_is_not_hidden(self, tmp_path: Path) -> None:
        gone = write_catalog(tmp_path / "own.yaml", tissue=entry(raw=volume(f"file://{tmp_path}/gone")))
        assert "CANNOT BE READ" in check("--catalog", gone, "--lock", status=1)


class TestOpening:
    """A source with a lock file in the current folder."""

    @pytest.fixture(autouse=True)
    def lock(self, bucket: Bucket) -> None:
        check("malecns", "--lock")
        bucket.server.clear()

    def test_an_unchanged_source_opens(self, bucket: Bucket) -> None:
        assert emcatalog.catalog.malecns(bbox=BOX).fetch().fetched > 0

    @pytest.mark.parametrize("begun", [False, True], ids=["a new mirror", "a mirror that was begun"])
    def test_a_changed_source_says_so(self, bucket: Bucket, begun: bool) -> None:
        if begun:
            emcatalog.catalog.malecns(bbox=BESIDE).fetch()
        bucket.change(INFOS[1], note="somebody was here")
        with pytest.raises(SourceChangedError) as caught:
            emcatalog.catalog.malecns(bbox=BOX).fetch()
        assert isinstance(caught.value, SourceError)
        message = str(caught.value)
        assert message.startswith(f"{BUCKET}/{INFOS[1]} is another since it was locked on ")
        assert locked()[f"{BUCKET}/{INFOS[1]}"].locked in message
        assert "`emcatalog check`" in message
        assert "`emcatalog check --lock`" in message
        assert not begun or emcatalog.catalog.malecns(bbox=BOX).plan().cached == 0

    def test_the_other_channels_still_open(self, bucket: Bucket) -> None:
        bucket.change(INFOS[1], note="somebody was here")
        assert emcatalog.catalog.malecns(bbox=BOX, channels=["raw"]).fetch().fetched > 0
        assert emcatalog.catalog.malecns(bbox=BOX, version="v1.0").fetch().fetched > 0

    def test_check_tells_the_change_and_lock_accepts_it(self, bucket: Bucket) -> None:
        bucket.change(INFOS[1], note="somebody was here")
        text = check("malecns", status=1)
        state, found = facts(text, "malecns.labels v0.9")
        assert state == "DIFFERS"
        assert found["changed"] == f"{BUCKET}/{INFOS[1]}, locked on {locked()[f'{BUCKET}/{INFOS[1]}'].locked}"
        assert facts(text, "malecns.raw v0.9")[0] == "ok"
        check("malecns", "--lock")
        assert emcatalog.catalog.malecns(bbox=BOX).fetch().fetched > 0
        assert facts(check("malecns"), "malecns.labels v0.9")[0] == "ok"

    def test_on_the_command_line_it_is_one_sentence(self, bucket: Bucket) -> None:
        bucket.change(INFOS[0], note="somebody was here")
        bbox = ",".join(map(str, BOX))
        assert_one_sentence(call("fetch", "malecns", "--bbox", bbox, status=2).stderr, INFOS[0], "check --lock")

    def test_a_warm_read_asks_nobody_and_says_nothing(self, bucket: Bucket) -> None:
        before = emcatalog.catalog.malecns(bbox=BOX).read()
        for name in INFOS:
            bucket.change(name, note="somebody was here")
        Path("emcatalog.lock").write_text("broken")
        bucket.server.clear()
        assert emcatalog.catalog.malecns(bbox=BOX).read().identical(before)
        assert bucket.server.requests == []

    def test_a_read_that_lacks_a_part_says_so(self, bucket: Bucket) -> None:
        emcatalog.catalog.malecns(bbox=BOX).read()
        bucket.change(INFOS[0], note="somebody was here")
        with pytest.raises(SourceChangedError, match=INFOS[0]):
            emcatalog.catalog.malecns(bbox=BESIDE).read()

    def test_a_document_that_vanished(self, bucket: Bucket) -> None:
        (bucket.folder / INFOS[0]).unlink()
        with pytest.raises(
            SourceChangedError, match=r"em-clahe-jpeg/info is gone since it was locked on \d{4}-\d\d-\d\d"
        ):
            emcatalog.catalog.malecns(bbox=BOX).fetch()
        state, found = facts(check("malecns", status=1), "malecns.raw v0.9")
        assert state == "CANNOT BE READ"
        assert f"{BUCKET}/em/em-clahe-jpeg: there is no info document" in found["reason"]

    def test_a_document_that_appeared(self, bucket: Bucket) -> None:
        absent = LockedDocument(sha256=None, locked="2026-01-02")
        write_lock(
            Path("emcatalog.lock"), read_lock(Path("emcatalog.lock")).with_documents({f"{BUCKET}/{INFOS[0]}": absent})
        )
        with pytest.raises(SourceChangedError, match="info is new since it was locked on 2026-01-02"):
            emcatalog.catalog.malecns(bbox=BOX).fetch()

    def test_a_generation_alone_is_no_change(self, bucket: Bucket) -> None:
        """The same bytes, uploaded again."""
        path = bucket.folder / INFOS[0]
        content, generation = path.read_bytes(), locked()[f"{BUCKET}/{INFOS[0]}"].generation
        path.unlink()
        path.write_bytes(content)
        os.utime(path, ns=(10**18, 10**18))
        assert etag(f"{bucket.server.url}/{INFOS[0]}") != generation
        assert facts(check("malecns"), "malecns.raw v0.9")[0] == "ok"
        assert emcatalog.catalog.malecns(bbox=BOX).fetch().fetched > 0

    def test_of_the_folder_in_which_the_cutout_was_made(
        self, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lazy = emcatalog.catalog.malecns(bbox=BOX, channels=["raw"]).to_dask()
        bucket.change(INFOS[0], note="somebody was here")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SourceChangedError, match=INFOS[0]):
            lazy["raw"].compute()

    def test_of_another_folder_is_not_looked_at(
        self, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bucket.change(INFOS[0], note="somebody was here")
        monkeypatch.chdir(tmp_path)
        assert emcatalog.catalog.malecns(bbox=BOX).fetch().fetched > 0


class TestSeveralDocuments:
    """A form whose metadata lies in several documents, not all of which need be there."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """A catalog of one plain array of Zarr v2, locked."""
        form: Any = {"zarr_format": 2, "chunks": (4, 5, 6), "attributes": {"resolution": [40, 5, 4]}}
        array = zarr.create_array(tmp_path / "tissue", shape=(8, 9, 10), dtype="uint16", **form)
        array[:] = 7
        url = f"zarr://file://{tmp_path}/tissue"
        path = write_catalog(tmp_path / "own.yaml", tissue=entry(raw={**volume(""), "url": url}))
        check("--catalog", path, "--lock")
        return path

    def documents(self, path: Path) -> dict[str, LockedDocument]:
        """Those that are locked, by their names alone."""
        return {address.rpartition("/")[2]: document for address, document in locked().items()}

    def test_all_are_locked(self, path: Path, tmp_path: Path) -> None:
        found = self.documents(path)
        for name in (".zarray", ".zattrs"):
            assert found[name].sha256 == hashlib.sha256((tmp_path / "tissue" / name).read_bytes()).hexdigest()
        assert found[".zgroup"].sha256 is None
        assert (emcatalog.open_catalog(path).tissue().read()["raw"] == 7).all()

    def test_what_is_not_there_has_no_generation(self, path: Path) -> None:
        assert self.documents(path)[".zgroup"].generation is None

    @pytest.mark.parametrize(
        ("name", "content", "became"),
        [
            (".zattrs", '{"resolution": [41, 5, 4]}', "is another"),
            (".zattrs", None, "is gone"),
            (".zgroup", '{"zarr_format": 2}', "is new"),
        ],
    )
    def test_a_change_of_any(self, path: Path, tmp_path: Path, name: str, content: str | None, became: str) -> None:
        document = tmp_path / "tissue" / name
        if content is None:
            document.unlink()
        else:
            document.write_text(content)
        with pytest.raises(SourceChangedError, match=rf"tissue/{name} {became} since it was locked on"):
            emcatalog.open_catalog(path).tissue().read()


def test_buckets_of_one_name_on_two_servers_are_locked_apart() -> None:
    addresses = set()
    for endpoint in ("https://one.example", "https://other.example"):
        model = channel("precomputed://s3://bucket/em", storage_options={"endpoint_url": endpoint})
        store = make_store(model.location.url, model.storage_options, 1)
        addresses.add(Documents(model.location, store).address("info"))
    assert len(addresses) == 2


BROKEN = {
    "empty": "",
    "not JSON": "what",
    "not UTF-8": "\udcff",
    "a list": "[]",
    "another version": '{"version": 2, "documents": {}}',
    "an unknown key": '{"documents": {}, "more": 1}',
    "half a digest": '{"documents": {"a": {"sha256": "abc", "locked": "2026-01-01"}}}',
    "no date": json.dumps({"documents": {"a": {"sha256": "0" * 64}}}),
}


class TestBrokenFile:
    """A lock file that is none."""

    @pytest.mark.parametrize("case", BROKEN)
    def test_is_named_with_what_to_do(self, here: Path, case: str) -> None:
        path = here / "emcatalog.lock"
        path.write_bytes(BROKEN[case].encode("utf-8", "surrogateescape"))
        with pytest.raises(SettingsError, match=f"^{re.escape(str(path))} is not a lock file") as caught:
            emcatalog.catalog.demo(bbox=(0, 64, 0, 64, 0, 64)).fetch()
        assert "`emcatalog check --lock`" in str(caught.value)
        assert_one_sentence(call("check", "demo", status=2).stderr, str(path))

    @pytest.mark.parametrize("case", ["empty", "not JSON", "another version", "an unknown key", "no date"])
    def test_says_what_is_wrong(self, here: Path, case: str) -> None:
        (here / "emcatalog.lock").write_text(BROKEN[case])
        with pytest.raises(SettingsError) as caught:
            read_lock(here / "emcatalog.lock")
        assert "pydantic" not in str(caught.value)

    def test_a_folder(self, here: Path) -> None:
        (here / "emcatalog.lock").mkdir()
        with pytest.raises(SettingsError, match="is not a lock file"):
            read_lock(here / "emcatalog.lock")

    def test_is_not_overwritten(self, here: Path) -> None:
        (here / "emcatalog.lock").write_text("what")
        call("check", "demo", "--lock", status=2)
        assert (here / "emcatalog.lock").read_text() == "what"


class TestTheFile:
    """Read and written."""

    one = LockedDocument(sha256="0" * 64, generation="abc", locked="2026-01-01")
    other = LockedDocument(sha256=None, locked="2026-01-02")

    def test_comes_back_as_it_was(self, here: Path) -> None:
        lock = Lock().with_documents({"b": self.one, "a": self.other})
        write_lock(here / "x.lock", lock)
        assert read_lock(here / "x.lock") == lock
        assert list(json.loads((here / "x.lock").read_text())["documents"]) == ["a", "b"]
        assert list(here.iterdir()) == [here / "x.lock"]

    def test_there_is_none(self, here: Path) -> None:
        assert read_lock(here / "x.lock") == Lock()

    def test_a_document_replaces_its_former_self_alone(self) -> None:
        lock = Lock().with_documents({"b": self.one, "a": self.one})
        assert lock.with_documents({"a": self.other}).documents == {"a": self.other, "b": self.one}
        assert lock.documents["a"] == self.one

    def test_is_replaced_whole(self, here: Path) -> None:
        """Whoever reads it meanwhile has the old one or the new one."""
        write_lock(here / "x.lock", Lock())
        with (here / "x.lock").open() as reader:
            write_lock(here / "x.lock", Lock(documents={"a": self.one}))
            assert Lock.model_validate_json(reader.read()) == Lock()


def test_a_source_that_is_not_locked_is_not_asked_about(bucket: Bucket) -> None:
    write_lock(Path("emcatalog.lock"), Lock(documents={"precomputed://gs://other/info": TestTheFile.one}))
    report: Any = emcatalog.catalog.malecns(bbox=BOX).fetch()
    assert report.fetched > 0
