"""The test infrastructure itself: what it says about requests, faults and stored data is true."""

from __future__ import annotations

import base64
import email.message
import gzip
import hashlib
import http.client
import importlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import tensorstore as ts

from tests.replica import malecns
from tests.replica.gcs import serve_gcs, tensorstore_environment
from tests.replica.malecns import Tiles, build_malecns, expected_labels, expected_raw, scale_box
from tests.replica.precomputed import CLOUDVOLUME_ENCODINGS, TENSORSTORE_ENCODINGS, build_precomputed
from tests.replica.server import Server, parse_range, serve, serve_process
from tests.replica.stored import Array, Box, Scale, open_scale

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder to serve."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(CONTENT)
    (tmp_path / "a name+é").write_bytes(b"odd")
    (tmp_path / "empty").touch()
    return tmp_path


@pytest.fixture
def server(folder: pathlib.Path) -> Iterator[Server]:
    """A server over `folder`."""
    with serve(folder) as running:
        yield running


def get(url: str, **headers: str) -> tuple[int, bytes, email.message.Message]:
    """Status, body and headers of a GET; a header's name is written with `_`."""
    request = urllib.request.Request(url, headers={name.replace("_", "-"): value for name, value in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read(), response.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


def connect(server: Server) -> socket.socket:
    """A bare connection."""
    address = urllib.parse.urlsplit(server.url)
    return socket.create_connection((address.hostname, address.port), timeout=10)


class TestFiles:
    """A folder over HTTP."""

    def test_whole_file(self, server: Server) -> None:
        status, body, headers = get(server.url + "/a/b")
        assert (status, body, headers["Content-Length"]) == (200, CONTENT, str(len(CONTENT)))
        assert get(server.url + "/empty")[:2] == (200, b"")
        assert get(server.url + "/" + urllib.parse.quote("a name+é"))[1] == b"odd"

    @pytest.mark.parametrize(
        ("header", "part"),
        [
            ("bytes=0-0", slice(0, 1)),
            ("bytes=5-104", slice(5, 105)),
            ("bytes=10000-", slice(10000, None)),
            ("bytes=-7", slice(-7, None)),
            ("bytes=10000-99999", slice(10000, None)),
            ("bytes=-99999", slice(None)),
        ],
    )
    def test_range(self, server: Server, header: str, part: slice) -> None:
        status, body, headers = get(server.url + "/a/b", Range=header)
        start, stop, _ = part.indices(len(CONTENT))
        assert (status, body) == (206, CONTENT[part])
        assert headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(CONTENT)}"

    @pytest.mark.parametrize("header", [f"bytes={len(CONTENT)}-", "bytes=-0"])
    def test_range_that_is_not_there(self, server: Server, header: str) -> None:
        status, body, headers = get(server.url + "/a/b", Range=header)
        assert (status, body, headers["Content-Range"]) == (416, b"", f"bytes */{len(CONTENT)}")

    @pytest.mark.parametrize("header", [None, "bytes=-", "bytes=9-3", "bytes=1-2,5-6", "lines=1-2", "bytes=a-b"])
    def test_what_is_no_single_range_is_ignored(self, header: str | None) -> None:
        assert parse_range(header, 100) is None

    @pytest.mark.parametrize("path", ["/none", "/a", "/a/b/c", "/../secret", "/%2e%2e/secret", "/a/%00"])
    def test_not_found(self, folder: pathlib.Path, path: str) -> None:
        (folder / "secret").write_text("outside of what is served")
        with serve(folder / "a") as inner, connect(inner) as raw:
            # By hand: a client would tidy the path.
            raw.sendall(f"GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
            assert raw.makefile("rb").read().startswith(b"HTTP/1.1 404 ")

    def test_one_connection_answers_many_requests(self, server: Server) -> None:
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
        for _ in range(3):
            connection.request("GET", "/a/b")
            sock = connection.sock
            assert connection.getresponse().read() == CONTENT
        assert connection.sock is sock
        connection.request("HEAD", "/a/b")
        response = connection.getresponse()
        assert (response.read(), response.getheader("Content-Length")) == (b"", str(len(CONTENT)))
        connection.close()

    def test_versions(self, server: Server, folder: pathlib.Path) -> None:
        etag = get(server.url + "/a/b")[2]["ETag"]
        assert get(server.url + "/a/b", If_None_Match=etag)[:2] == (304, b"")
        assert get(server.url + "/a/b", If_Match=etag)[0] == 200
        (folder / "a" / "b").write_bytes(b"new")
        assert get(server.url + "/a/b", If_None_Match=etag)[:2] == (200, b"new")
        assert get(server.url + "/a/b", If_Match=etag)[0] == 412

    def test_large_body(self, server: Server, folder: pathlib.Path) -> None:
        content = np.random.default_rng(0).bytes(20_000_001)
        (folder / "large").write_bytes(content)
        assert get(server.url + "/large")[1] == content
        assert get(server.url + "/large", Range="bytes=3-19999999")[1] == content[3:20_000_000]

    def test_compressed_file(self, server: Server, folder: pathlib.Path) -> None:
        (folder / "c.gz").write_bytes(gzip.compress(CONTENT))
        _, body, headers = get(server.url + "/c")
        assert (headers["Content-Encoding"], gzip.decompress(body)) == ("gzip", CONTENT)


class TestLog:
    """What a server says it was asked."""

    def test_every_request(self, server: Server) -> None:
        get(server.url + "/a/b", Range="bytes=1-10")
        get(server.url + "/a/b?x=1")
        get(server.url + "/none")
        assert [(r.method, r.path, r.range, r.status) for r in server.requests] == [
            ("GET", "/a/b", "bytes=1-10", 206),
            ("GET", "/a/b", None, 200),
            ("GET", "/none", None, 404),
        ]
        assert [record.bytes for record in server.requests[:2]] == [10, len(CONTENT)]
        assert (server.count(), server.count("/a/*"), server.count("*none")) == (3, 2, 1)
        assert server.sent("/a/*") == 10 + len(CONTENT)
        assert server.counts() == {"/a/b": 2, "/none": 1}
        server.clear()
        assert server.requests == []

    def test_concurrent_requests_are_all_there(self, server: Server) -> None:
        with ThreadPoolExecutor(16) as pool:
            bodies = list(pool.map(lambda i: get(server.url + "/a/b", Range=f"bytes={i}-{i}")[1], range(400)))
        assert bodies == [CONTENT[i : i + 1] for i in range(400)]
        assert sorted(record.range or "" for record in server.requests) == sorted(f"bytes={i}-{i}" for i in range(400))

    def test_latencies_overlap(self, server: Server) -> None:
        server.latency_s = 0.5
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: get(server.url + "/a/b"), range(8)))
        assert server.peak == 8


class TestFaults:
    """Misbehaviour on demand."""

    def test_error_status(self, server: Server) -> None:
        server.fail("/a/*", 403, times=1)
        server.fail("/empty", 429)
        assert [get(server.url + path)[0] for path in ("/a/b", "/a/b", "/empty", "/empty")] == [403, 200, 429, 429]
        server.heal()
        assert get(server.url + "/empty")[0] == 200
        assert server.count() == 5

    def test_truncated(self, server: Server) -> None:
        server.truncate("/a/b", times=1)
        with pytest.raises(http.client.IncompleteRead) as caught:
            get(server.url + "/a/b")
        assert caught.value.partial == CONTENT[: len(CONTENT) // 2]
        assert server.requests[0].bytes == len(CONTENT) // 2
        assert get(server.url + "/a/b")[1] == CONTENT

    def test_corrupt(self, server: Server) -> None:
        server.corrupt("/a/b")
        status, body, _ = get(server.url + "/a/b", Range="bytes=0-99")
        assert (status, len(body)) == (206, 100)
        assert all(got != sent for got, sent in zip(body, CONTENT, strict=False))
        server.corrupt("/a/b", kind="flip")
        body = get(server.url + "/a/b")[1]
        assert sum(got != sent for got, sent in zip(body, CONTENT, strict=True)) == 1

    def test_dropped(self, server: Server) -> None:
        server.drop("/a/b", times=1)
        with pytest.raises(http.client.RemoteDisconnected):
            get(server.url + "/a/b")
        assert get(server.url + "/a/b")[1] == CONTENT
        assert [record.status for record in server.requests] == [0, 200]

    def test_hanging(self, server: Server) -> None:
        server.hang("/a/b", seconds=60)
        with pytest.raises(TimeoutError):
            urllib.request.urlopen(server.url + "/a/b", timeout=0.2)
        assert get(server.url + "/empty")[0] == 200  # the others are not held up

    def test_skipping_the_first(self, server: Server) -> None:
        server.fail("/a/b", skip=2)
        assert [get(server.url + "/a/b")[0] for _ in range(4)] == [200, 200, 500, 500]

    def test_without_ranges(self, server: Server) -> None:
        server.without_ranges = True
        assert get(server.url + "/a/b", Range="bytes=0-0")[:2] == (200, CONTENT)


def test_server_in_a_process(folder: pathlib.Path) -> None:
    with serve_process(folder, latency_ms=1) as server:
        assert get(server.url + "/a/b", Range="bytes=0-9")[1] == CONTENT[:10]
        assert (server.count(), server.bytes()) == (1, 10)
        server.set_latency(0)
        server.clear()
        assert server.count() == 0


# --- Google Cloud Storage

TENSORSTORE_READS_GCS = """
import json, sys, tensorstore as ts
store = ts.KvStore.open({"driver": "gcs", "bucket": "some-bucket", "path": "a/"}).result()
first = store.read("b", byte_range=slice(5, 105)).result()
try:
    ts.KvStore.open({"driver": "gcs", "bucket": "private-bucket"}).result().read("x").result()
except ValueError as error:
    refused = str(error)
print(json.dumps({
    "range": first.value.hex(),
    "missing": store.read("none").result().state,
    "unchanged": store.read("b", if_not_equal=first.stamp.generation).result().state,
    "list": [key.decode() for key in store.list().result()],
    "refused": refused,
}))
"""


@pytest.fixture
def buckets(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with a bucket to read and one that is private."""
    for name in ("some-bucket/a/b", "some-bucket/a/c/d e", "some-bucket/a/f", "some-bucket/z", "private-bucket/x"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CONTENT)
    return tmp_path


class TestGcs:
    """The GCS JSON API."""

    def test_tensorstore_reads_and_lists(self, buckets: pathlib.Path) -> None:
        with serve_gcs(buckets, private=["private-bucket"], page=2) as server:
            environment = os.environ | tensorstore_environment(server)
            command = [sys.executable, "-c", TENSORSTORE_READS_GCS]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
            log = server.requests
        answer = json.loads(done.stdout)
        assert bytes.fromhex(answer["range"]) == CONTENT[5:105]
        assert (answer["missing"], answer["unchanged"]) == ("missing", "unspecified")
        assert answer["list"] == ["b", "c/d e", "f"]
        assert answer["refused"].startswith("PERMISSION_DENIED: Anonymous caller does not have storage.objects.get")
        assert [record.status for record in log] == [206, 401, 404, 304, 200, 200]  # the listing took two pages

    def test_metadata(self, buckets: pathlib.Path) -> None:
        with serve_gcs(buckets) as server:
            document = json.loads(get(server.url + "/storage/v1/b/some-bucket/o/a%2Fc%2Fd%20e")[1])
            headers = get(server.url + "/storage/v1/b/some-bucket/o/a%2Fc%2Fd%20e?alt=media")[2]
        assert (document["name"], document["size"]) == ("a/c/d e", str(len(CONTENT)))
        assert document["generation"] == headers["x-goog-generation"]

    def test_generation_conditions(self, buckets: pathlib.Path) -> None:
        with serve_gcs(buckets) as server:
            url = server.url + "/storage/v1/b/some-bucket/o/z?alt=media"
            now = get(url)[2]["x-goog-generation"]
            asked = [f"ifGenerationMatch={now}", "ifGenerationMatch=1", f"ifGenerationNotMatch={now}"]
            assert [get(f"{url}&{condition}")[0] for condition in asked] == [200, 412, 304]

    def test_errors_are_json_documents(self, buckets: pathlib.Path) -> None:
        with serve_gcs(buckets) as server:
            for path, message in (("some-bucket/o/q", "No such object: some-bucket/q"), ("none/o/q", "The specified")):
                status, body, _ = get(server.url + "/storage/v1/b/" + path)
                error = json.loads(body)["error"]
                assert (status, error["code"], error["message"].startswith(message)) == (404, 404, True)

    def test_listing_of_a_folder(self, buckets: pathlib.Path) -> None:
        with serve_gcs(buckets) as server:
            page = json.loads(get(server.url + "/storage/v1/b/some-bucket/o?prefix=a/&delimiter=/")[1])
        assert [item["name"] for item in page["items"]] == ["a/b", "a/f"]
        assert page["prefixes"] == ["a/c/"]

    def test_checksums(self, buckets: pathlib.Path) -> None:
        """Of an object at its own address with HEAD alone: it takes a pass over the file."""
        stated = {"some-bucket/a/b": "AAAAAAAAAAAAAAAAAAAAAA==", "some-bucket/a/f": None}
        right = base64.b64encode(hashlib.md5(CONTENT).digest()).decode()
        with serve_gcs(buckets, md5=stated) as server:
            for name, said in (*stated.items(), ("some-bucket/z", right)):
                bucket, _, path = name.partition("/")
                url = f"{server.url}/storage/v1/b/{bucket}/o/{urllib.parse.quote(path, safe='')}"
                assert json.loads(get(url)[1]).get("md5Hash") == said
                head = urllib.request.Request(f"{server.url}/{name}", method="HEAD")
                with urllib.request.urlopen(head, timeout=10) as response:
                    assert response.headers["x-goog-hash"] == (said and f"md5={said}")
                    assert response.headers["Content-Length"] == str(len(CONTENT))
                assert "x-goog-hash" not in get(f"{server.url}/{name}")[2]

    def test_a_token_opens_what_is_private(self, buckets: pathlib.Path) -> None:
        with serve_gcs(buckets, private=["private-bucket"], token="right") as server:
            for url in (f"{server.url}/private-bucket/x", f"{server.url}/storage/v1/b/private-bucket/o/x?alt=media"):
                assert get(url, Authorization="Bearer right")[:2] == (200, CONTENT)
                assert get(url, Authorization="Bearer wrong")[0] == 403
                assert get(url)[0] in (401, 403)

    def test_object_url(self, buckets: pathlib.Path) -> None:
        with serve_gcs(buckets, private=["private-bucket"]) as server:
            assert get(server.url + "/some-bucket/a/b", Range="bytes=0-4")[:2] == (206, CONTENT[:5])
            assert get(server.url + "/private-bucket/x")[0] == 403
            assert get(server.url + "/some-bucket/../private-bucket/x")[0] == 404


def test_s3(buckets: pathlib.Path) -> None:
    pytest.importorskip("moto")
    s3_module = importlib.import_module("tests.replica.s3")
    with s3_module.serve_s3() as s3:
        s3.upload(buckets / "some-bucket", "open-bucket")
        s3.upload(buckets / "private-bucket", "private-bucket", public=False)
        store = ts.KvStore.open(s3.kvstore("open-bucket", "a/")).result()
        assert store.read("b", byte_range=slice(5, 105)).result().value == CONTENT[5:105]
        assert store.read("none").result().state == "missing"
        assert store.list().result() == [b"b", b"c/d e", b"f"]
        with pytest.raises(ValueError, match="PERMISSION_DENIED"):
            ts.KvStore.open(s3.kvstore("private-bucket")).result().read("x").result()


# --- stored data


def smooth(shape: tuple[int, int, int]) -> Array:
    """An image that JPEG keeps well."""
    z, y, x = np.ogrid[tuple(slice(n) for n in shape)]
    image: Array = 128 + 60 * np.sin(x / 9) * np.cos(y / 7) + 40 * np.sin(z / 11)
    return image.astype(np.uint8)


def blobs(shape: tuple[int, int, int]) -> Array:
    """Labels with large ids and background."""
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 2**31, [-(-n // 10) for n in shape], dtype=np.uint64)
    coarse[rng.random(coarse.shape) < 0.2] = 0
    fine: Array = coarse.repeat(10, 0).repeat(10, 1).repeat(10, 2)
    return fine[tuple(slice(n) for n in shape)]


def voxels_for(encoding: str, shape: tuple[int, int, int]) -> Array:
    if encoding in ("compressed_segmentation", "compresso", "crackle"):
        return blobs(shape)
    return smooth(shape).astype(np.float32) if encoding in ("fpzip", "kempressed") else smooth(shape)


def read_by_tensorstore(url_or_folder: object, scale: int = 0) -> Any:
    """The volume as `(z, y, x)`."""
    base = str(url_or_folder)
    kvstore = base if base.startswith("http") else f"file://{base}"
    spec = {"driver": "neuroglancer_precomputed", "kvstore": f"{kvstore}/", "scale_index": scale}
    return ts.open(spec, open=True).result()[..., 0].T


@pytest.mark.parametrize("sharding", [None, {}, {"data_encoding": "gzip", "preshift_bits": 0}])
@pytest.mark.parametrize("encoding", TENSORSTORE_ENCODINGS)
def test_precomputed(tmp_path: pathlib.Path, encoding: str, sharding: dict[str, Any] | None) -> None:
    voxels = voxels_for(encoding, (40, 50, 60))
    scale = build_precomputed(
        tmp_path, voxels, encoding=encoding, sharding=sharding, chunk=(32, 32, 32), voxel_offset=(3, 5, 7)
    )
    stored = scale.read(scale.extent)
    error = np.abs(stored.astype(np.float64) - voxels.astype(np.float64)).max()
    assert error <= (12 if encoding == "jpeg" else 0)
    np.testing.assert_array_equal(read_by_tensorstore(tmp_path).read().result(), stored)


@pytest.mark.parametrize("sharding", [None, {}])
@pytest.mark.parametrize("encoding", CLOUDVOLUME_ENCODINGS)
def test_precomputed_of_codecs_that_tensorstore_lacks(
    tmp_path: pathlib.Path, encoding: str, sharding: dict[str, Any] | None
) -> None:
    module = {"jxl": "imagecodecs", "crackle": "crackle", "compresso": "compresso"}.get(encoding, "fpzip")
    pytest.importorskip(module)
    volume = pytest.importorskip("cloudvolume").CloudVolume
    voxels = voxels_for(encoding, (20, 24, 28))
    scale = build_precomputed(tmp_path, voxels, encoding=encoding, sharding=sharding, chunk=(16, 16, 16))
    read = np.asarray(volume(f"precomputed://file://{tmp_path}", progress=False)[:])[..., 0].T
    assert np.abs(read.astype(np.float64) - voxels.astype(np.float64)).max() <= (8 if encoding == "jxl" else 0)
    np.testing.assert_array_equal(scale.read(scale.extent), read)


@pytest.mark.parametrize("sharding", [None, {}])
def test_missing_chunks(tmp_path: pathlib.Path, sharding: dict[str, Any] | None) -> None:
    voxels = np.zeros((64, 50, 64), np.uint8)  # zeros are stored all the same
    scale = build_precomputed(tmp_path, voxels, sharding=sharding, chunk=(32, 32, 32), missing_chunks=[(0, 1, 0)])
    assert [chunk for chunk in scale.chunks(scale.extent) if not scale.is_there(chunk)] == [(0, 1, 0)]
    np.testing.assert_array_equal(read_by_tensorstore(tmp_path).read().result(), voxels)


@pytest.mark.parametrize("sharding", [None, {}, {"data_encoding": "gzip"}])
def test_replaced_chunk(tmp_path: pathlib.Path, sharding: dict[str, Any] | None) -> None:
    voxels = smooth((64, 64, 64))
    scale = build_precomputed(tmp_path, voxels, sharding=sharding, chunk=(32, 32, 32))
    scale.replace_encoded((1, 0, 1), bytes(32**3))
    voxels[32:, :32, 32:] = 0
    np.testing.assert_array_equal(read_by_tensorstore(tmp_path).read().result(), voxels)
    scale.replace_encoded((1, 0, 1), b"short")
    with pytest.raises(ValueError, match="Expected chunk length to be 32768, but received 5 bytes"):
        read_by_tensorstore(tmp_path).read().result()


def test_compressed_chunk_files(tmp_path: pathlib.Path) -> None:
    voxels = smooth((32, 32, 32))
    scale = build_precomputed(tmp_path, voxels, gzipped=True)
    assert [path.suffix for path in (tmp_path / "8_8_8").iterdir()] == [".gz"]
    np.testing.assert_array_equal(scale.read(scale.extent), voxels)
    with serve(tmp_path) as server:
        np.testing.assert_array_equal(read_by_tensorstore(server.url).read().result(), voxels)


# --- the miniature of the male CNS bucket

BOX: Box = ((20000, 20070), (40000, 40080), (40000, 40090))


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A small replica."""
    folder = tmp_path_factory.mktemp("flyem-male-cns")
    build_malecns(folder, BOX, smooth((70, 80, 90)), blobs((70, 80, 90)))
    return folder


class TestMalecns:
    """The miniature bucket."""

    def test_infos_are_the_published_ones(self, replica: pathlib.Path) -> None:
        for volume, size in (
            ("em/em-clahe-jpeg", [94088, 78317, 134576]),
            ("v0.9/segmentation", [94088, 77248, 134592]),
            ("v1.0/segmentation", [94088, 78317, 134576]),
        ):
            assert json.loads((replica / volume / "info").read_text())["scales"][0]["size"] == size

    def test_an_independent_reader_gets_it_through_the_server(self, replica: pathlib.Path) -> None:
        volume = pytest.importorskip("cloudvolume").CloudVolume
        (z0, z1), (y0, y1), (x0, x1) = BOX

        with serve(replica) as running:

            def read(path: str) -> Array:
                remote = volume(f"precomputed://{running.url}/{path}", progress=False, fill_missing=True)
                return np.asarray(remote[x0:x1, y0:y1, z0:z1])[..., 0].T

            raw, old, new = read(malecns.EM), read("v0.9/segmentation"), read("v1.0/segmentation")
            assert running.count("*.shard") > 0
        labels = blobs((70, 80, 90))
        np.testing.assert_array_equal(old, labels)
        np.testing.assert_array_equal(new, np.where(labels > 0, labels + np.uint64(1000), labels))
        np.testing.assert_array_equal(raw, expected_raw(replica, 0, BOX))
        assert np.abs(raw.astype(int) - smooth((70, 80, 90))).max() <= 12

    @pytest.mark.parametrize("scale", [0, 1, 2])
    def test_scales(self, replica: pathlib.Path, scale: int) -> None:
        factor, box = 2**scale, scale_box(BOX, scale)
        shape = [stop - start for start, stop in box]
        assert shape == [70 // factor, 80 // factor, 90 // factor]
        fine = smooth((70, 80, 90))[tuple(slice(n * factor) for n in shape)].astype(np.float64)
        mean = fine.reshape(shape[0], factor, shape[1], factor, shape[2], factor).mean((1, 3, 5))
        assert np.abs(expected_raw(replica, scale, box) - mean).mean() <= 3
        labels = blobs((70, 80, 90))[tuple(slice(0, n * factor, factor) for n in shape)]
        np.testing.assert_array_equal(expected_labels(replica, scale, box), labels)
        where = tuple(slice(start, stop) for start, stop in box)
        for path, expected in ((malecns.EM, expected_raw), ("v0.9/segmentation", expected_labels)):
            read = read_by_tensorstore(replica / path, scale)[where].read().result()
            np.testing.assert_array_equal(read, expected(replica, scale, box))

    def test_nothing_outside_the_box(self, replica: pathlib.Path) -> None:
        # Not the very next voxels: JPEG smears what is in one block of 8.
        beside: Box = (BOX[0], BOX[1], (BOX[2][1] + 8, BOX[2][1] + 16))
        assert set(expected_raw(replica, 0, beside).ravel()) == {malecns.GREY}
        assert not expected_labels(replica, 0, beside).any()
        scale = open_scale(replica / malecns.EM)
        assert not any(scale.is_there(chunk) for chunk in scale.chunks(((18000, 18001), BOX[1], BOX[2])))

    def test_a_callable_makes_the_same_files_in_small_slabs(
        self, replica: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(malecns, "SLAB_BYTES", 1)
        monkeypatch.setattr(malecns, "PIECE", 32)
        raw = smooth((70, 80, 90))
        build_malecns(tmp_path, BOX, lambda *b: raw[b[0] : b[1], b[2] : b[3], b[4] : b[5]], raw, versions=())
        for scale in range(3):
            box = scale_box(BOX, scale)
            np.testing.assert_array_equal(expected_raw(tmp_path, scale, box), expected_raw(replica, scale, box))

    def test_a_box_outside_the_volume(self, tmp_path: pathlib.Path) -> None:
        # v0.9 has fewer voxels along y than the image.
        box: Box = (BOX[0], (77200, 77280), BOX[2])
        with pytest.raises(ValueError, match=r"v0\.9/segmentation"):
            build_malecns(tmp_path, box, smooth((70, 80, 90)), blobs((70, 80, 90)), scales=1)


def test_tiles_are_mirrored_and_have_ids_of_their_own() -> None:
    block = np.arange(1, 28, dtype=np.uint64).reshape(3, 3, 3)
    block[0, 0, 0] = 0
    image = Tiles(block)(0, 7, 0, 3, 0, 3)
    np.testing.assert_array_equal(image, np.concatenate([block, block[::-1], block[:1]]))
    labels = Tiles(block, ids=28)(0, 6, 0, 6, 0, 6)
    assert len(np.unique(labels[labels > 0])) == 8 * 26
    part = Tiles(block, ids=28)(2, 5, 1, 6, 4, 5)
    np.testing.assert_array_equal(part, labels[2:5, 1:6, 4:5])


def test_a_chunk_keeps_its_place_in_the_grid() -> None:
    scale = Scale(pathlib.Path(), {"scales": [{"size": [100, 50, 20], "chunk_sizes": [[32, 16, 8]]}]}, 0)
    assert scale.grid == (3, 4, 4)
    assert scale.chunk_box((2, 3, 3)) == ((16, 20), (48, 50), (96, 100))
    assert list(scale.chunks(((7, 9), (0, 1), (31, 33)))) == [(0, 0, 0), (0, 0, 1), (1, 0, 0), (1, 0, 1)]
