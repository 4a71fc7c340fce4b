"""A read-only Google Cloud Storage over a folder `root/<bucket>/<object>`: the JSON API, and the plain object URLs.

    with serve_gcs(root) as server:
        subprocess.run([...], env=os.environ | tensorstore_environment(server))

It has what TensorStore's `gcs` driver and gcsfs use to read: `objects.get` (media and metadata), ranges, the generation
conditions, `objects.list` with pages. gcp-storage-emulator (2026.7.19) was tried first: it ignores the generation
conditions, `startOffset`, `endOffset` and page tokens that TensorStore sends, answers one request at a time, and keeps
its objects in a store of its own. https://cloud.google.com/storage/docs/json_api/v1/objects
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, unquote

from tests.replica.server import answer_file
from tests.replica.wire import Answer, Call, Server, running

PAGE = 1000
"""Names on one page of a listing, as at Google."""

# The object's name is one percent-encoded segment, so that this is matched against the target as sent.
_JSON_API = re.compile(r"(?:/download)?/storage/v1/b/(?P<bucket>[^/]+)(?P<objects>/o)?(?:/(?P<object>[^/]+))?")
_OBJECT_URL = re.compile(r"/(?P<bucket>[^/]+)/(?P<object>.+)")

_REASONS = {401: "required", 403: "forbidden", 404: "notFound", 412: "conditionNotMet"}
_JSON = (("Content-Type", "application/json; charset=UTF-8"),)


def error(status: int, message: str) -> Answer:
    """The error document of the JSON API."""
    detail = {"message": message, "domain": "global", "reason": _REASONS.get(status, "invalid")}
    document = {"error": {"code": status, "message": message, "errors": [detail]}}
    return Answer(status, json.dumps(document).encode(), _JSON)


def generation(stat: os.stat_result) -> int:
    """The number of an object's version: microseconds of its last change, as Google's look."""
    return stat.st_mtime_ns // 1000


class GcsHandler:
    """Answers the reading part of the JSON API for the folders under `root`."""

    def __init__(
        self,
        root: str | os.PathLike[str],
        private: Collection[str] = (),
        page: int = PAGE,
        token: str | None = None,
        md5: Mapping[str, str | None] | None = None,
    ) -> None:
        self._root = pathlib.Path(root).resolve()
        self._private = frozenset(private)
        self._page = page
        self._token = token
        self._stated = md5 or {}
        self._md5: dict[tuple[str, int], str] = {}

    def __call__(self, call: Call) -> Answer:
        """The answer to `call`."""
        if call.method not in ("GET", "HEAD"):
            return error(405, "this replica is for reading")
        query = {name: values[-1] for name, values in parse_qs(call.query, keep_blank_values=True).items()}
        if match := _JSON_API.fullmatch(call.target):
            return self._json_api(call, match, query)
        if match := _OBJECT_URL.fullmatch(call.target):
            return self._object_url(call, unquote(match["bucket"]), unquote(match["object"]))
        return error(404, "Not Found")

    # --- https://storage.googleapis.com/storage/v1/b/BUCKET/o/OBJECT

    def _json_api(self, call: Call, match: re.Match[str], query: dict[str, str]) -> Answer:
        bucket = unquote(match["bucket"])
        if refusal := self._refusal(call, bucket):
            return refusal
        if match["object"]:
            return self._object(call, bucket, unquote(match["object"]), query)
        if match["objects"]:
            return self._list(bucket, query)
        return Answer(200, json.dumps({"kind": "storage#bucket", "id": bucket, "name": bucket}).encode(), _JSON)

    def _refusal(self, call: Call, bucket: str) -> Answer | None:
        """Why `bucket` cannot be read: Google answers 401 to who is anonymous, 403 to who shows a wrong token."""
        if bucket in self._private and not self._is_owner(call):
            status, who = (403, "The caller") if "authorization" in call.headers else (401, "Anonymous caller")
            return error(status, f"{who} does not have storage.objects.get access to the Google Cloud Storage object.")
        if "/" in bucket or bucket in ("..", ".") or not (self._root / bucket).is_dir():
            return error(404, "The specified bucket does not exist.")
        return None

    def _is_owner(self, call: Call) -> bool:
        return self._token is not None and call.headers.get("authorization") == f"Bearer {self._token}"

    def _object(self, call: Call, bucket: str, name: str, query: dict[str, str]) -> Answer:
        path = self._find(bucket, name)
        if path is None:
            return error(404, f"No such object: {bucket}/{name}")
        stat = path.stat()
        if unmet := _unmet_condition(query, generation(stat)):
            return Answer(304) if unmet == 304 else error(unmet, "At least one of the pre-conditions did not hold.")
        if query.get("alt") == "media" or call.target.startswith("/download"):
            return answer_file(call, path, stat, self._headers(call, path, stat))
        return Answer(200, json.dumps(self._metadata(bucket, name, path)).encode(), _JSON)

    def _find(self, bucket: str, name: str) -> pathlib.Path | None:
        path = pathlib.Path(os.path.normpath(self._root / bucket / name))
        return path if path.is_relative_to(self._root / bucket) and path.is_file() else None

    def _headers(self, call: Call, path: pathlib.Path, stat: os.stat_result) -> tuple[tuple[str, str], ...]:
        # Google says it with every answer; here it takes a pass over the file.
        md5 = self._md5_of(path, stat) if call.method == "HEAD" else None
        checksum = [("x-goog-hash", f"md5={md5}")] if md5 else []
        return (("x-goog-generation", str(generation(stat))), ("x-goog-metageneration", "1"), *checksum)

    def _metadata(self, bucket: str, name: str, path: pathlib.Path) -> dict[str, Any]:
        stat = path.stat()
        md5 = self._md5_of(path, stat)
        changed = datetime.datetime.fromtimestamp(stat.st_mtime, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "kind": "storage#object",
            "id": f"{bucket}/{name}/{generation(stat)}",
            "name": name,
            "bucket": bucket,
            "generation": str(generation(stat)),
            "metageneration": "1",
            "contentType": "application/octet-stream",
            "storageClass": "STANDARD",
            "size": str(stat.st_size),
            **({"md5Hash": md5} if md5 else {}),
            "etag": base64.b64encode(str(generation(stat)).encode()).decode(),
            "timeCreated": changed,
            "updated": changed,
        }

    def _md5_of(self, path: pathlib.Path, stat: os.stat_result) -> str | None:
        """What is said of the object's bytes; of an object that was composed of others Google says nothing."""
        name = path.relative_to(self._root).as_posix()
        if name in self._stated:
            return self._stated[name]
        key = (str(path), stat.st_mtime_ns)
        if key not in self._md5:
            with path.open("rb") as stream:
                self._md5[key] = base64.b64encode(hashlib.file_digest(stream, "md5").digest()).decode()
        return self._md5[key]

    # --- https://storage.googleapis.com/storage/v1/b/BUCKET/o

    def _list(self, bucket: str, query: dict[str, str]) -> Answer:
        names, prefixes = _select(self._names(bucket), query)
        page = min(self._page, int(query.get("maxResults", self._page)))
        document: dict[str, Any] = {"kind": "storage#objects"}
        if len(names) > page:
            document["nextPageToken"] = _token(names[page - 1])
        if names:
            document["items"] = [self._metadata(bucket, name, self._root / bucket / name) for name in names[:page]]
        if prefixes:
            document["prefixes"] = prefixes
        return Answer(200, json.dumps(document).encode(), _JSON)

    def _names(self, bucket: str) -> list[str]:
        folder = self._root / bucket
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        return sorted(names, key=str.encode)

    # --- https://storage.googleapis.com/BUCKET/OBJECT

    def _object_url(self, call: Call, bucket: str, name: str) -> Answer:
        if bucket in self._private and not self._is_owner(call):
            return Answer(403, b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>")
        path = self._find(bucket, name) if "/" not in bucket else None
        if path is None:
            return Answer(404, b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>")
        return answer_file(call, path, path.stat(), self._headers(call, path, path.stat()))


def _unmet_condition(query: dict[str, str], now: int) -> int | None:
    """The status that says which condition on the generation does not hold, or None."""
    if int(query.get("ifGenerationMatch", now)) != now:
        return 412
    return 304 if int(query.get("ifGenerationNotMatch", -1)) == now else None


def _select(names: list[str], query: dict[str, str]) -> tuple[list[str], list[str]]:
    """The object names and the common prefixes that a listing asks for; names come after the page token's."""
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    start, end = query.get("startOffset", ""), query.get("endOffset")
    after = _name(query["pageToken"]) if "pageToken" in query else ""
    within = [name for name in names if name.startswith(prefix) and name >= start and (end is None or name < end)]
    rest = {name: name[len(prefix) :] for name in within}
    folders = {
        prefix + tail.split(delimiter)[0] + delimiter for tail in rest.values() if delimiter and delimiter in tail
    }
    files = [name for name, tail in rest.items() if not (delimiter and delimiter in tail)]
    return [name for name in files if name > after], sorted(folders) if not after else []


def _token(name: str) -> str:
    # TensorStore puts the token into the next URL as it is: it must need no percent-encoding.
    return base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")


def _name(token: str) -> str:
    return base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()


@contextmanager
def serve_gcs(
    root: str | os.PathLike[str],
    private: Collection[str] = (),
    page: int = PAGE,
    latency_s: float = 0.0,
    token: str | None = None,
    md5: Mapping[str, str | None] | None = None,
) -> Iterator[Server]:
    """A Cloud Storage that holds a bucket for each folder in `root`.

    Args:
        root: The buckets.
        private: Those that nobody reads without a token.
        page: Names on one page of a listing.
        latency_s: Seconds that pass before each answer.
        token: With which the private ones are read.
        md5: By `bucket/object`, what is said of it in place of its checksum (base64); None for nothing.
    """
    server = Server(GcsHandler(root, private, page, token, md5))
    server.latency_s = latency_s
    with running(server):
        yield server


def tensorstore_environment(server: Server) -> dict[str, str]:
    """Environment variables that lead TensorStore's `gcs` driver of a new process to `server`, anonymously.

    TensorStore reads them once a process: it needs a process of its own. Its base URL applies to every bucket. Without
    credentials it is anonymous, but looks first for a file of the gcloud tool and for a metadata server.
    """
    return {
        "TENSORSTORE_GCS_HTTP_URL": server.url,
        "CLOUDSDK_CONFIG": os.devnull,
        "GOOGLE_APPLICATION_CREDENTIALS": "",
        "GCE_METADATA_ROOT": "127.0.0.1:1",  # refused at once
    }
