"""Stores: which TensorStore store a URL becomes, and which error of ours each of its real errors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from emcatalog.errors import (
    CatalogError,
    SourceCorruptError,
    SourceDeniedError,
    SourceError,
    SourceMissingError,
    SourceUnavailableError,
)
from emcatalog.locations import StorageOptions
from emcatalog.stores import is_absent, make_store, source_errors
from tests.conftest import cut
from tests.replica.gcs import serve_gcs, tensorstore_environment
from tests.replica.precomputed import build_precomputed
from tests.replica.s3 import S3, serve_s3
from tests.replica.server import serve
from tests.replica.wire import Server
from tests.test_fetch import assert_clear, hear, row_voxels, say, start_python

ANONYMOUS = StorageOptions()
WITH_CREDENTIALS = StorageOptions(anonymous=False)
UNSIGNED = {"type": "anonymous"}

S3_PUBLIC = {"driver": "s3", "bucket": "bucket", "path": "a/b/", "aws_credentials": UNSIGNED}
SPECS: list[tuple[str, StorageOptions, dict[str, Any]]] = [
    ("file:///data/volume", ANONYMOUS, {"driver": "file", "path": "/data/volume/"}),
    ("http://host:81/a/b", ANONYMOUS, {"driver": "http", "base_url": "http://host:81", "path": "/a/b/"}),
    ("https://host", ANONYMOUS, {"driver": "http", "base_url": "https://host", "path": "/"}),
    (
        "gs://bucket/a/b",
        ANONYMOUS,
        {"driver": "http", "base_url": "https://storage.googleapis.com", "path": "/bucket/a/b/"},
    ),
    ("gs://bucket/a/b", WITH_CREDENTIALS, {"driver": "gcs", "bucket": "bucket", "path": "a/b/"}),
    ("gs://bucket", WITH_CREDENTIALS, {"driver": "gcs", "bucket": "bucket", "path": ""}),
    ("s3://bucket/a/b", ANONYMOUS, S3_PUBLIC),
    ("s3://bucket", ANONYMOUS, {**S3_PUBLIC, "path": ""}),
    ("s3://bucket/a/b", WITH_CREDENTIALS, {"driver": "s3", "bucket": "bucket", "path": "a/b/"}),
    ("s3://bucket/a/b", StorageOptions(region="eu-west-1"), {**S3_PUBLIC, "aws_region": "eu-west-1"}),
    (
        "s3://bucket/a/b",
        StorageOptions(endpoint_url="https://s3.example.org"),
        {**S3_PUBLIC, "endpoint": "https://s3.example.org", "aws_region": "us-east-1"},
    ),
]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "TENSORSTORE_GCS_HTTP_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EMCATALOG_RETRIES", "0")


class TestSpecs:
    """URL and options -> TensorStore's specification; nothing is opened."""

    @pytest.mark.parametrize(("url", "options", "spec"), SPECS)
    def test_of_a_url(self, url: str, options: StorageOptions, spec: dict[str, Any]) -> None:
        assert make_store(url, options, 0).kvstore == spec

    def test_endpoints_of_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """In the order of the AWS tools; what the catalog states comes first."""
        stated = StorageOptions(endpoint_url="http://stated")
        for name, value in (("AWS_ENDPOINT_URL", "http://any"), ("AWS_ENDPOINT_URL_S3", "http://s3")):
            monkeypatch.setenv(name, value)
            assert make_store("s3://bucket", ANONYMOUS, 0).kvstore["endpoint"] == value
        assert make_store("s3://bucket", stated, 0).kvstore["endpoint"] == "http://stated"

    def test_gcs_of_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """TensorStore's own variable names a server that speaks the JSON API, so its gcs driver is used."""
        monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", "http://127.0.0.1:1")
        assert make_store("gs://bucket/a", ANONYMOUS, 0).kvstore == {"driver": "gcs", "bucket": "bucket", "path": "a/"}

    def test_unknown_scheme(self) -> None:
        with pytest.raises(CatalogError) as caught:
            make_store("ftp://host/a", ANONYMOUS, 0)
        assert_clear(caught.value, ValueError, "ftp://host/a", "no store")

    def test_below(self) -> None:
        store = make_store("http://host/a", ANONYMOUS, 0).below("b/c")
        assert store.kvstore["path"] == "/a/b/c/"
        assert store.below("/d/").kvstore["path"] == "/a/b/c/d/"


# --- real errors

Misbehave = Callable[[Server], None]
FAILURES: dict[str, tuple[Misbehave, type[SourceError], type[OSError], str]] = {
    "400": (lambda server: server.fail("*", 400), SourceUnavailableError, ConnectionError, "does not take the request"),
    "401": (lambda server: server.fail("*", 401), SourceDeniedError, PermissionError, "refuses access"),
    "403": (lambda server: server.fail("*", 403), SourceDeniedError, PermissionError, "refuses access"),
    "405": (lambda server: server.fail("*", 405), SourceUnavailableError, ConnectionError, "does not take the request"),
    "408": (lambda server: server.fail("*", 408), SourceUnavailableError, ConnectionError, "keeps failing"),
    "410": (lambda server: server.fail("*", 410), SourceMissingError, FileNotFoundError, "nothing at this address"),
    "416": (lambda server: server.fail("*", 416), SourceCorruptError, OSError, "does not decode"),
    "429": (lambda server: server.fail("*", 429), SourceUnavailableError, ConnectionError, "keeps failing"),
    "500": (lambda server: server.fail("*", 500), SourceUnavailableError, ConnectionError, "keeps failing"),
    "502": (lambda server: server.fail("*", 502), SourceUnavailableError, ConnectionError, "keeps failing"),
    "503": (lambda server: server.fail("*", 503), SourceUnavailableError, ConnectionError, "keeps failing"),
    "504": (lambda server: server.fail("*", 504), SourceUnavailableError, ConnectionError, "keeps failing"),
    "hangs up": (lambda server: server.drop("*"), SourceUnavailableError, ConnectionError, "cannot be reached"),
    "cut off": (lambda server: server.truncate("*"), SourceUnavailableError, ConnectionError, "cannot be reached"),
}


class TestErrors:
    """What TensorStore really says -> the error to raise."""

    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[Server]:
        (tmp_path / "object").write_bytes(b"0123456789")
        with serve(tmp_path) as running:
            yield running

    @pytest.mark.parametrize("failure", FAILURES)
    def test_of_http(self, server: Server, failure: str) -> None:
        misbehave, kind, standard, meaning = FAILURES[failure]
        misbehave(server)
        with pytest.raises(kind) as caught, source_errors("the object"):
            make_store(server.url, ANONYMOUS, 0).open().read("object").result()
        assert type(caught.value) is kind
        assert_clear(caught.value, standard, "the object: ", meaning)

    @pytest.mark.parametrize("failure", ["429", "503", "hangs up"])
    def test_repeated_in_vain(self, server: Server, failure: str) -> None:
        """TensorStore says it in other words then."""
        FAILURES[failure][0](server)
        with pytest.raises(SourceUnavailableError, match=r"keeps failing.*ABORTED: All 1 retry"), source_errors("it"):
            make_store(server.url, ANONYMOUS, 1).open().read("object").result()
        assert server.count() == 2

    @pytest.mark.parametrize("url", ["gs://Not_A_Bucket!/row", "s3://Not_A_Bucket!/row"])
    def test_names_that_no_bucket_can_have(self, url: str) -> None:
        with pytest.raises(SourceMissingError) as caught, source_errors(url):
            make_store(url, WITH_CREDENTIALS, 0).open()
        assert_clear(caught.value, FileNotFoundError, url, "nothing at this address; check it")

    def test_ranges_ignored(self, server: Server) -> None:
        server.without_ranges = True
        with pytest.raises(SourceUnavailableError, match="does not serve parts of files"), source_errors("the object"):
            make_store(server.url, ANONYMOUS, 0).open().read("object", byte_range=slice(2, 4)).result()

    def test_of_ours_pass_unchanged(self) -> None:
        mine = SourceMissingError("mine")
        with pytest.raises(SourceMissingError) as caught, source_errors("the object"):
            raise mine
        assert caught.value is mine

    def test_others_pass_unchanged(self) -> None:
        with pytest.raises(KeyboardInterrupt), source_errors("the object"):
            raise KeyboardInterrupt

    @pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
    def test_a_file_that_may_not_be_read(self, tmp_path: Path) -> None:
        (tmp_path / "object").touch(mode=0)
        with pytest.raises(SourceDeniedError), source_errors("the object"):
            make_store(f"file://{tmp_path}", ANONYMOUS, 0).open().read("object").result()

    def test_what_is_no_absent_chunk(self, server: Server) -> None:
        """A file that went away is an error; only the reader of a volume knows that a chunk may be absent."""
        server.fail("*", 410)
        with pytest.raises(ValueError, match="410") as caught:
            make_store(server.url, ANONYMOUS, 0).open().read("object").result()
        assert not is_absent(caught.value)


# --- real buckets


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small volume, to be copied into buckets."""
    folder = tmp_path_factory.mktemp("buckets") / "open-bucket"
    build_precomputed(folder / "row", row_voxels(), sharding={}, chunk=(64, 32, 16))
    return folder


@pytest.fixture(scope="module")
def s3(bucket: Path) -> Iterator[S3]:
    with serve_s3() as service:
        service.upload(bucket, "open-bucket")
        service.upload(bucket, "private-bucket", public=False)
        yield service


class TestS3:
    """moto's server."""

    @pytest.fixture(autouse=True)
    def endpoint(self, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)

    def test_public(self) -> None:
        assert (cut("s3://open-bucket/row", "uint8").read()["raw"] == row_voxels()).all()

    @pytest.mark.parametrize(
        ("url", "kind", "standard", "meaning"),
        [
            ("s3://private-bucket/row", SourceDeniedError, PermissionError, "anonymous: false"),
            ("s3://open-bucket/none", SourceMissingError, FileNotFoundError, "check the address"),
            ("s3://no-such-bucket/row", SourceMissingError, FileNotFoundError, "check the address"),
        ],
    )
    def test_refused(self, url: str, kind: type[SourceError], standard: type[OSError], meaning: str) -> None:
        with pytest.raises(kind) as caught:
            cut(url, "uint8")
        assert_clear(caught.value, standard, f"precomputed://{url}", meaning)


def read_and_say(url: str) -> None:
    """Read the row and say whether it is right (in a process of its own: TensorStore reads its variables once)."""
    try:
        say(right=bool((cut(url, "uint8").read()["raw"] == row_voxels()).all()))
    except SourceError as error:
        say(kinds=[kind.__name__ for kind in type(error).__mro__], message=str(error))


class TestGcs:
    """The JSON API."""

    @pytest.mark.parametrize(
        ("url", "answer"),
        [
            ("gs://open-bucket/row", {"right": True}),
            ("gs://private-bucket/row", {"kinds": "SourceDeniedError", "message": "anonymous: false"}),
            ("gs://open-bucket/none", {"kinds": "SourceMissingError", "message": "check the address"}),
        ],
    )
    def test_read(self, bucket: Path, monkeypatch: pytest.MonkeyPatch, url: str, answer: dict[str, Any]) -> None:
        with serve_gcs(bucket.parent, private=["private-bucket"]) as server:
            for name, value in tensorstore_environment(server).items():
                monkeypatch.setenv(name, value)
            with start_python(read_and_say, url) as process:
                got = hear(process)
        assert got.keys() == answer.keys()
        for key, expected in answer.items():
            assert got[key] is True if expected is True else expected in got[key]
