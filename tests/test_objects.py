"""What stores say of their objects: the same of every kind of store, and errors of ours for each of their own."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from emcatalog.errors import (
    CatalogError,
    MissingExtraError,
    SourceCorruptError,
    SourceDeniedError,
    SourceError,
    SourceMissingError,
    SourceUnavailableError,
)
from emcatalog.locations import StorageOptions
from emcatalog.objects import (
    RemoteObject,
    describe_object,
    is_listable,
    list_objects,
    open_object,
    serves_ranges,
)
from emcatalog.settings import load_settings
from tests.conftest import ServeAs
from tests.replica.gcs import GcsHandler, generation, serve_gcs, tensorstore_environment
from tests.replica.s3 import S3, public_read, serve_s3
from tests.replica.server import Server, serve
from tests.replica.wire import Answer, Call, running
from tests.test_fetch import assert_clear, hear, say, start_python

ANONYMOUS = StorageOptions()
WITH_CREDENTIALS = StorageOptions(anonymous=False)

FILES = {
    "data.csv": b"a,b\n1,2\n",
    "sub/deeper/more.bin": bytes(range(256)),
    "sub/empty": b"",
    "a name+é #?%20&=[1].txt": b"odd",
    "z/ü ber/c;d,e@f!'$().txt": b"odder",
}
"""What every store holds below ``folder``."""


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of buckets: one to read, one that is private."""
    root = tmp_path_factory.mktemp("buckets")
    for bucket in ("open-bucket", "private-bucket"):
        for name, content in {**FILES, "../beside": b"not below the folder"}.items():
            path = root / bucket / "folder" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return root


@pytest.fixture(scope="module")
def s3(root: Path) -> Iterator[S3]:
    with serve_s3() as service:
        for bucket in ("open-bucket", "private-bucket"):
            service.upload(root / bucket, bucket)
            policy = public_read(bucket)
            policy["Statement"][0]["Effect"] = "Allow" if bucket == "open-bucket" else "Deny"
            service.client().put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
        yield service


@pytest.fixture
def gcs(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Google's API, of which a listing takes several pages."""
    with serve_gcs(root, private=["private-bucket"], page=2) as server:
        monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", server.url)
        yield server


@pytest.fixture
def web(root: Path) -> Iterator[Server]:
    with serve(root) as server:
        yield server


@pytest.fixture(params=["file", "web", "gs", "s3"])
def bucket(request: pytest.FixtureRequest, root: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The open bucket in a store of each kind."""
    if request.param == "web":
        return f"{request.getfixturevalue('web').url}/open-bucket"
    if request.param == "s3":
        monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("s3").url)
    elif request.param == "gs":
        request.getfixturevalue("gcs")
    return f"file://{root}/open-bucket" if request.param == "file" else f"{request.param}://open-bucket"


def describe(url: str, options: StorageOptions = ANONYMOUS) -> RemoteObject:
    return describe_object(url, options, load_settings())


def names_below(url: str, options: StorageOptions = ANONYMOUS) -> list[str]:
    return [item.name for item in list_objects(url, options, load_settings())]


# --- what every store says


@pytest.mark.parametrize("name", FILES)
def test_an_object_is_described(bucket: str, name: str) -> None:
    found = describe(f"{bucket}/folder/{name}")
    assert (found.name, found.nbytes) == (name.rpartition("/")[2], len(FILES[name]))
    assert found.version
    assert found.md5 == (md5(FILES[name]) if bucket.startswith(("gs:", "s3:")) else None)


def test_a_folder_is_listed_by_name(bucket: str) -> None:
    if bucket.startswith("http"):
        pytest.skip("a web server has no listing")
    for url in (f"{bucket}/folder", f"{bucket}/folder/"):
        found = list_objects(url, ANONYMOUS, load_settings())
        assert [item.name for item in found] == sorted(FILES)
        assert [item.nbytes for item in found] == [len(FILES[name]) for name in sorted(FILES)]
    assert names_below(bucket) == sorted(["beside", *(f"folder/{name}" for name in FILES)])


def test_a_listing_says_what_each_object_says_of_itself(bucket: str) -> None:
    if bucket.startswith("http"):
        pytest.skip("a web server has no listing")
    for item in list_objects(f"{bucket}/folder", ANONYMOUS, load_settings()):
        alone = describe(f"{bucket}/folder/{item.name}")
        assert dataclasses.replace(alone, name=item.name) == item


def test_what_is_not_there(bucket: str) -> None:
    for url in (f"{bucket}/folder/none", f"{bucket}/folder/sub"):  # a folder is no object
        with pytest.raises(SourceMissingError) as caught:
            describe(url)
        assert_clear(caught.value, FileNotFoundError, url, "nothing at this address; check it, or EMCATALOG_MIRRORS")
    if not bucket.startswith("http"):
        with pytest.raises(SourceMissingError) as caught:
            names_below(f"{bucket}/fold")  # the beginning of a name is no folder
        assert_clear(caught.value, FileNotFoundError, f"{bucket}/fold: ", "check it")


def test_objects_are_read_by_ranges(bucket: str) -> None:
    if bucket.startswith("gs:"):
        pytest.skip("TensorStore reads its variables once a process: below")
    read = open_object(f"{bucket}/folder/sub/deeper/more.bin", ANONYMOUS, load_settings())
    assert read(5, 105) == bytes(range(5, 105))
    assert read.whole() == bytes(range(256))
    with pytest.raises(SourceMissingError, match="nothing at this address"):
        open_object(f"{bucket}/folder/none", ANONYMOUS, load_settings()).whole()


def read_and_say(*urls: str) -> None:
    """Read objects and say what they hold (in a process of its own: TensorStore reads its variables once)."""
    for url in urls:
        try:
            say(content=open_object(url, ANONYMOUS, load_settings()).whole().hex())
        except SourceError as error:
            say(kind=type(error).__name__)


def test_objects_at_google_are_read(gcs: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in tensorstore_environment(gcs).items():
        monkeypatch.setenv(name, value)
    urls = [f"gs://open-bucket/folder/{name}" for name in (*FILES, "none")]
    with start_python(read_and_say, *urls) as process:
        assert [hear(process) for _ in FILES] == [{"content": content.hex()} for content in FILES.values()]
        assert hear(process) == {"kind": "SourceMissingError"}


def test_the_version_changes_with_the_content(tmp_path: Path, serve_as: ServeAs, monkeypatch: Any) -> None:
    path = tmp_path / "bucket" / "file"
    path.parent.mkdir()
    with serve_gcs(tmp_path) as gcs, serve_s3() as s3:
        serve_as("https://example.org", tmp_path / "bucket")
        monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", gcs.url)
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
        s3.client().create_bucket(Bucket="bucket")
        for content in (b"old", b"new"):
            path.write_bytes(content)
            os.utime(path, ns=(content[0], content[0] * 10**9))
            s3.client().put_object(Bucket="bucket", Key="file", Body=content, ACL="public-read")
            policy = public_read("bucket")
            s3.client().put_bucket_policy(Bucket="bucket", Policy=json.dumps(policy))
            urls = ("https://example.org/file", "gs://bucket/file", "s3://bucket/file", f"file://{path}")
            found = [describe(url) for url in urls]
            assert [item.nbytes for item in found] == [3] * 4
            assert found == [describe(url) for url in urls]
            if content == b"old":
                before = found
    assert all(old.version != new.version and not old.is_same(new) for old, new in zip(before, found, strict=True))


# --- which addresses there are


@pytest.mark.parametrize("url", ["gs://bucket", "https://host", "s3://bucket/", "file://"])
def test_an_address_without_an_object(url: str) -> None:
    for ask in (describe_object, open_object):
        with pytest.raises(CatalogError, match="names no object"):
            ask(url, ANONYMOUS, load_settings())


@pytest.mark.parametrize("name", ["../secret", "a/../../secret", ".", "..", "a/./b"])
def test_an_address_that_servers_read_as_another(web: Server, name: str) -> None:
    for ask in (describe_object, open_object):
        with pytest.raises(CatalogError) as caught:
            ask(f"{web.url}/open-bucket/folder/{name}", ANONYMOUS, load_settings())
        assert_clear(caught.value, ValueError, name, "read by no server as it stands")
    assert web.requests == []


def test_an_address_of_another_kind() -> None:
    for ask in (describe_object, list_objects, open_object):
        with pytest.raises(CatalogError, match="no store for ftp://"):
            ask("ftp://host/a/b", ANONYMOUS, load_settings())


def test_mirrors_are_applied_and_messages_name_both(root: Path, serve_as: ServeAs) -> None:
    server = serve_as("gs://flyem-male-cns", root / "open-bucket")
    assert describe("gs://flyem-male-cns/folder/data.csv").nbytes == len(FILES["data.csv"])
    with pytest.raises(SourceMissingError) as caught:
        describe("gs://flyem-male-cns/folder/none")
    assert_clear(caught.value, OSError, f"gs://flyem-male-cns/folder/none (read from {server.url}/folder/none): ")
    with pytest.raises(SourceMissingError, match=r"gs://flyem-male-cns/folder/none \(read from http"):
        open_object("gs://flyem-male-cns/folder/none", ANONYMOUS, load_settings()).whole()


def test_listings_of_mirrors(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMCATALOG_MIRRORS", json.dumps({"https://example.org/data": f"file://{root}/open-bucket"}))
    assert is_listable("https://example.org/data/folder", load_settings())
    assert names_below("https://example.org/data/folder") == sorted(FILES)
    assert not is_listable("https://example.org/other", load_settings())


# --- web servers


def test_a_web_server_cannot_be_listed(web: Server) -> None:
    with pytest.raises(SourceUnavailableError) as caught:
        names_below(f"{web.url}/open-bucket/folder")
    assert_clear(
        caught.value, ConnectionError, f"{web.url}/open-bucket/folder: ", "name each file", "EMCATALOG_MIRRORS"
    )
    assert web.requests == []


def test_describing_transfers_nothing(web: Server) -> None:
    describe(f"{web.url}/open-bucket/folder/data.csv")
    assert [(record.method, record.bytes) for record in web.requests] == [("HEAD", 0)]


def test_google_s_objects_as_a_web_server_has_them(root: Path) -> None:
    with serve_gcs(root) as server:
        found = describe(f"{server.url}/open-bucket/folder/data.csv")
    content = FILES["data.csv"]
    changed = generation((root / "open-bucket/folder/data.csv").stat())
    assert found == RemoteObject("data.csv", len(content), md5(content), str(changed))


Headers = tuple[tuple[str, str], ...]


@dataclasses.dataclass
class Says:
    """A web server with headers of its own."""

    headers: Headers = ()
    without_head: int = 0
    """Status in answer to HEAD."""

    def __call__(self, call: Call) -> Answer:
        if call.method == "HEAD" and self.without_head:
            return Answer(self.without_head)
        return Answer(200, b"content", self.headers)


IN_BASE64, IN_DIGITS = b64encode(hashlib.md5(b"content").digest()).decode(), md5(b"content")


@pytest.mark.parametrize(
    ("headers", "checksum", "version"),
    [
        ((), None, None),
        ((("Content-MD5", IN_BASE64), ("ETag", '"e"')), IN_DIGITS, '"e"'),
        ((("Content-MD5", IN_DIGITS.upper()), ("Last-Modified", "then")), IN_DIGITS, "then"),
        ((("Content-MD5", "neither"), ("ETag", '"e"'), ("Last-Modified", "then")), None, '"e"'),
        ((("Content-MD5", b64encode(b"too short").decode()),), None, None),
        ((("x-goog-hash", f"crc32c=AAAAAA==,md5={IN_BASE64}"),), IN_DIGITS, None),
        ((("x-goog-hash", "crc32c=AAAAAA=="), ("x-goog-hash", f"md5={IN_BASE64}")), IN_DIGITS, None),
        ((("x-goog-hash", "crc32c=AAAAAA=="), ("x-goog-generation", "7"), ("ETag", '"e"')), None, "7"),
        ((("ETag", f'"{IN_DIGITS}"'),), None, f'"{IN_DIGITS}"'),  # whose it is nobody knows
    ],
)
def test_headers_of_a_web_server(headers: Headers, checksum: str | None, version: str | None) -> None:
    with running(Server(Says(headers))) as server:
        assert describe(f"{server.url}/file") == RemoteObject("file", 7, checksum, version)


@pytest.mark.parametrize("status", [405, 501])
def test_a_web_server_that_does_not_know_head(status: int) -> None:
    with running(Server(Says((("ETag", '"e"'),), without_head=status))) as server:
        assert describe(f"{server.url}/file") == RemoteObject("file", 7, None, '"e"')
        assert [record.method for record in server.requests] == ["HEAD", "GET"]


def test_a_web_server_that_does_not_say_how_large_a_file_is() -> None:
    with running(Server(lambda call: Answer(204))) as server, pytest.raises(SourceUnavailableError) as caught:
        describe(f"{server.url}/file")
    assert_clear(caught.value, ConnectionError, f"{server.url}/file: ", "does not say how large the file is")


def test_whether_parts_of_files_can_be_had(root: Path, web: Server) -> None:
    url = f"{web.url}/open-bucket/folder/sub/deeper/more.bin"
    assert serves_ranges(url, load_settings())
    web.without_ranges = True
    assert not serves_ranges(url, load_settings())
    assert serves_ranges(f"file://{root}/open-bucket/folder/data.csv", load_settings())


# --- S3


def test_an_etag_is_a_checksum_only_where_it_must_be_one(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an object that was uploaded in parts it is none, and of one that its owner encrypted neither."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "replica")
    client = s3.client()
    upload = client.create_multipart_upload(Bucket="open-bucket", Key="parts/file")["UploadId"]
    part = client.upload_part(Bucket="open-bucket", Key="parts/file", UploadId=upload, PartNumber=1, Body=b"content")
    client.complete_multipart_upload(
        Bucket="open-bucket",
        Key="parts/file",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    found = describe("s3://open-bucket/parts/file")
    assert (found.nbytes, found.md5) == (7, None)
    assert found.version is not None
    assert found.version.endswith("-1")
    assert list_objects("s3://open-bucket/parts", ANONYMOUS, load_settings()) == [found]
    assert describe("s3://open-bucket/folder/data.csv").md5 == md5(FILES["data.csv"])
    assert describe("s3://open-bucket/folder/data.csv", WITH_CREDENTIALS).md5 is None
    client.delete_object(Bucket="open-bucket", Key="parts/file")


def test_endpoint_of_the_catalog(s3: S3) -> None:
    options = StorageOptions(endpoint_url=s3.url, region="us-east-1")
    assert describe("s3://open-bucket/folder/data.csv", options).nbytes == len(FILES["data.csv"])
    assert names_below("s3://open-bucket/folder", options) == sorted(FILES)


def test_listings_of_many_pages(s3: S3) -> None:
    client, options = s3.client(), StorageOptions(endpoint_url=s3.url)
    client.create_bucket(Bucket="many", ACL="public-read")
    for number in range(1003):
        client.put_object(Bucket="many", Key=f"a/{number:04d}", Body=b"")
    client.put_object(Bucket="many", Key="a/folder/", Body=b"")  # as the console makes one
    assert names_below("s3://many/a", options) == [f"{number:04d}" for number in range(1003)]


# --- credentials


def service_account(path: Path, token_url: str) -> None:
    """A key file as Google gives it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    account = {
        "type": "service_account",
        "project_id": "replica",
        "private_key_id": "1",
        "private_key": pem.decode(),
        "client_email": "reader@replica.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": token_url,
    }
    path.write_text(json.dumps(account))


@pytest.fixture
def owner(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Google's API, and a key file that opens the private bucket."""
    buckets = GcsHandler(root, private=["private-bucket"], page=2, token="a-token")
    answer = json.dumps({"access_token": "a-token", "expires_in": 3600, "token_type": "Bearer"}).encode()

    def handler(call: Call) -> Answer:
        return Answer(200, answer, (("Content-Type", "application/json"),)) if call.path == "/token" else buckets(call)

    with running(Server(handler)) as server:
        service_account(tmp_path / "key.json", f"{server.url}/token")
        monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", server.url)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
        yield server


def test_a_private_bucket_at_google(owner: Server) -> None:
    assert describe("gs://private-bucket/folder/data.csv", WITH_CREDENTIALS).md5 == md5(FILES["data.csv"])
    owner.clear()
    assert names_below("gs://private-bucket/folder", WITH_CREDENTIALS) == sorted(FILES)
    assert owner.count("/token") == 1  # for all pages
    with pytest.raises(SourceDeniedError):
        describe("gs://private-bucket/folder/data.csv")


def test_credentials_are_shown_to_nobody_else(owner: Server, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str | None] = []

    def stranger(call: Call) -> Answer:
        shown.append(call.headers.get("authorization"))
        return Answer(404)

    with running(Server(stranger)) as elsewhere:
        where = (("Location", f"{elsewhere.url}/take-it"),)

        def redirect(call: Call) -> Answer:
            return owner.handler(call) if call.path == "/token" else Answer(302, b"", where)

        with running(Server(redirect)) as google:
            monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", google.url)
            with pytest.raises(SourceMissingError):
                describe("gs://private-bucket/folder/data.csv", WITH_CREDENTIALS)
    assert shown == [None]


def test_credentials_that_are_none(gcs: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key.json").write_text("{}")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    with pytest.raises(SourceDeniedError) as caught:
        describe("gs://private-bucket/folder/data.csv", WITH_CREDENTIALS)
    assert_clear(caught.value, PermissionError, "gs://private-bucket/folder/data.csv: ", "no credentials")
    assert gcs.requests == []


# --- failures


Ask = Callable[[str, StorageOptions], object]
ASKS: list[Ask] = [describe, names_below]


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_buckets_that_cannot_be_read(
    ask: Ask, scheme: str, gcs: Server, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
    refused = [("private-bucket", SourceDeniedError, PermissionError, "anonymous: false")]
    if (scheme, ask) == ("s3", names_below):
        refused = []  # moto lists any bucket for anybody: below
    for bucket, kind, standard, advice in (
        *refused,
        ("no-such-bucket", SourceMissingError, FileNotFoundError, "check it"),
        ("Not A Bucket!", SourceMissingError, FileNotFoundError, "check it"),
    ):
        url = f"{scheme}://{bucket}/folder/data.csv"
        with pytest.raises(kind) as caught:
            ask(url, ANONYMOUS)
        assert type(caught.value) is kind
        assert_clear(caught.value, standard, url, advice)


@pytest.mark.parametrize("ask", ASKS)
def test_a_refusal_of_s3(ask: Ask) -> None:
    body = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
    with running(Server(lambda call: Answer(403, body))) as server, pytest.raises(SourceDeniedError) as caught:
        ask("s3://private-bucket/folder", StorageOptions(endpoint_url=server.url))
    assert_clear(caught.value, PermissionError, "s3://private-bucket/folder: ", "anonymous: false")


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize("scheme", ["https", "gs", "s3"])
def test_a_server_that_is_down(ask: Ask, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = "http://127.0.0.1:1"
    monkeypatch.setenv("AWS_ENDPOINT_URL", nobody)
    monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", nobody)
    monkeypatch.setenv("EMCATALOG_MIRRORS", json.dumps({"https://example.org": nobody}))
    url = f"{scheme}://example.org/folder/file"
    with pytest.raises(SourceUnavailableError) as caught:
        ask(url, ANONYMOUS)
    assert_clear(caught.value, ConnectionError, url, "" if scheme == "https" else "cannot be reached or keeps failing")


FAILURES: dict[int, tuple[type[SourceError], int]] = {
    400: (SourceUnavailableError, 1),
    401: (SourceDeniedError, 1),
    403: (SourceDeniedError, 1),
    404: (SourceMissingError, 1),
    410: (SourceMissingError, 1),
    429: (SourceUnavailableError, 2),
    500: (SourceUnavailableError, 2),
    503: (SourceUnavailableError, 2),
}
"""Status -> the error, and how often it is asked with one retry."""


@pytest.mark.parametrize("status", FAILURES)
@pytest.mark.parametrize("kind", ["web", "gs"])
def test_answers_that_are_errors(status: int, kind: str, web: Server, gcs: Server) -> None:
    expected, times = FAILURES[status]
    server = web if kind == "web" else gcs
    server.fail("*", status)
    with pytest.raises(expected) as caught:
        describe(f"{web.url}/open-bucket/file" if kind == "web" else "gs://open-bucket/file")
    assert type(caught.value) is expected
    assert "\n" not in str(caught.value)
    assert server.count() == times


@pytest.mark.parametrize("misbehave", [Server.drop, Server.fail])
def test_a_failure_that_passes(misbehave: Callable[..., None], web: Server, gcs: Server) -> None:
    misbehave(web, "*", times=1)
    misbehave(gcs, "*", times=1)
    assert describe(f"{web.url}/open-bucket/folder/data.csv").nbytes == len(FILES["data.csv"])
    assert names_below("gs://open-bucket/folder") == sorted(FILES)


def test_a_listing_that_is_cut_off(gcs: Server) -> None:
    gcs.truncate("*", skip=1)
    with pytest.raises(SourceUnavailableError) as caught:
        names_below("gs://open-bucket/folder")
    assert_clear(caught.value, ConnectionError, "gs://open-bucket/folder: ")
    gcs.heal()
    gcs.truncate("*", times=1, skip=1)
    assert names_below("gs://open-bucket/folder") == sorted(FILES)


@pytest.mark.parametrize("answer", [b"<html>Log in first</html>", b"[1]", b'{"name": "x"}', b'{"items": [{}]}'])
def test_an_answer_that_is_no_description(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(Server(lambda call: Answer(200, answer))) as server:
        monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", server.url)
        with pytest.raises(SourceCorruptError) as caught:
            describe("gs://bucket/file")
    assert_clear(caught.value, OSError, "gs://bucket/file: ", "is not understood")


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "open").touch()
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(SourceDeniedError):
        names_below(f"file://{tmp_path}")


def test_a_link_to_nothing_is_no_object(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    assert names_below(f"file://{tmp_path}") == ["there"]


@pytest.mark.parametrize(
    ("library", "options", "url"),
    [("s3fs", ANONYMOUS, "s3://bucket/file"), ("google.auth", WITH_CREDENTIALS, "gs://bucket/file")],
)
def test_a_library_that_is_not_installed(
    library: str, options: StorageOptions, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    for ask in ASKS:
        with pytest.raises(MissingExtraError) as caught:
            ask(url, options)
        assert_clear(caught.value, ImportError, "pip install 'emcatalog[cloud]'")


# --- whether two descriptions are of the same bytes

OBJECTS = st.builds(
    RemoteObject,
    name=st.just("file"),
    nbytes=st.sampled_from([1, 2]),
    md5=st.sampled_from([None, "a" * 32, "b" * 32]),
    version=st.sampled_from([None, "1", "2"]),
)


@given(OBJECTS, OBJECTS)
def test_same_bytes(one: RemoteObject, other: RemoteObject) -> None:
    assert one.is_same(other) == other.is_same(one)
    assert one.is_same(one) == (one.md5 is not None or one.version is not None)
    if one.is_same(other):
        assert one.nbytes == other.nbytes
        assert None in (one.md5, other.md5) or one.md5 == other.md5
    assert not one.is_same(dataclasses.replace(one, nbytes=3))
    assert not RemoteObject("file", 1).is_same(RemoteObject("file", 1))
