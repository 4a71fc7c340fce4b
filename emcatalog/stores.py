"""URL -> TensorStore key-value store, and TensorStore's errors -> ours. The only place that knows about credentials."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import current_thread
from typing import Any, Final

import tensorstore as ts

from emcatalog.errors import (
    CatalogError,
    Failures,
    NoRangesError,
    SourceCorruptError,
    SourceDeniedError,
    SourceError,
    SourceMissingError,
    SourceUnavailableError,
    explain,
)
from emcatalog.locations import StorageOptions

GCS_PUBLIC: Final = "https://storage.googleapis.com"
"""Every object of a public bucket is a plain URL here: https://cloud.google.com/storage/docs/request-endpoints."""

_INDEX_CACHE_BYTES: Final = 16 << 20
"""Keeps shard indexes: without them each chunk of a sharded volume costs two more requests. Decoded chunks pass through
the same cache, so that more would only hold voxels that nobody asks for again."""

_FAILURES: Final[Failures[SourceError]] = (
    (
        r"PERMISSION_DENIED|UNAUTHENTICATED|HTTP code 40[13]",
        SourceDeniedError,
        "the server refuses access; a private bucket needs storage_options: {anonymous: false} and credentials",
    ),
    (
        r"^ABORTED|retry attempts failed|UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|CURL error"
        r"|HTTP code (5\d\d|429)",
        SourceUnavailableError,
        "the server cannot be reached or keeps failing; what was fetched is kept, so ask again later",
    ),
    (
        r"^NOT_FOUND|HTTP code (404|410)|Invalid \w+ bucket name",
        SourceMissingError,
        "there is nothing at this address; check it, or EMCATALOG_MIRRORS",
    ),
    (
        r"Requested byte range .* was ignored",
        NoRangesError,
        "the server does not serve parts of files, which reading this form needs",
    ),
    (
        # 416, a range beyond the end, is no answer to a wrong request: the file is shorter than its index says.
        r"HTTP code (?!416)\d",
        SourceUnavailableError,
        "the server does not take the request; check the address, or EMCATALOG_MIRRORS",
    ),
    (
        r"",
        SourceCorruptError,
        "the source holds something that does not decode; nothing of it was kept, so tell the data's owner, or choose a"
        " box beside it",
    ),
)

_INTERRUPTIBLE_S: Final = 0.5

_STALLED: Final = {"TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS": "60", "TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES": "1"}
"""When a connection counts as lost that is open and says nothing; without these TensorStore waits for ever."""


@dataclass(frozen=True, slots=True)
class Store:
    """A folder of objects somewhere, as TensorStore understands it; nothing is open yet."""

    kvstore: dict[str, Any]
    """TensorStore's key-value store specification."""
    context: ts.Context
    """Retries, caches and credentials that opens of it share."""

    def open(self) -> ts.KvStore:
        """The key-value store."""
        return ts.KvStore.open(self.kvstore, context=self.context).result()

    def below(self, name: str) -> Store:
        """The store of a sub-folder."""
        path = f"{self.kvstore.get('path', '')}{name.strip('/')}/"
        return Store({**self.kvstore, "path": path}, self.context)


@dataclass(frozen=True, slots=True)
class PendingBytes:
    """A part of an object that is on its way."""

    answer: ts.Future[ts.KvStore.ReadResult]
    """Of TensorStore."""
    nbytes: int
    """How many there are to be."""
    what: str
    """For messages."""

    def result(self) -> tuple[bytes, bytes]:
        """The bytes, and what the store calls the version that they are of; empty where it says nothing.

        Raises:
            SourceError: the object is not there or ends before, or the server failed, after its retries.
        """
        with source_errors(self.what):
            answer = wait(self.answer)
            value = _value(answer, self.what)
        if len(value) != self.nbytes:
            raise SourceCorruptError(f"{self.what}: {self.nbytes} bytes were asked for and {len(value)} came")
        return value, answer.stamp.generation


@dataclass(frozen=True, slots=True)
class ObjectReader:
    """One object, read by ranges. Can be called from several threads."""

    kvstore: ts.KvStore
    """Folder of the object."""
    key: str
    """Name in it."""
    what: str
    """For messages."""

    def __call__(self, start: int, stop: int) -> bytes:
        """Bytes ``[start, stop)``; fewer where the object ends before.

        Raises:
            NoRangesError: the server sends whole objects only.
            SourceError: the object is not there, or the server failed, after its retries.
        """
        with source_errors(self.what):
            try:
                return self._read(slice(start, stop))
            except ValueError as error:
                # A range that sticks out is refused, with the object's size in the message.
                size = re.search(r"OUT_OF_RANGE.*size (\d+)", str(error))
                if size is None:
                    raise
                return self._read(slice(start, int(size[1]))) if start < int(size[1]) else b""

    def begin(self, start: int, stop: int) -> PendingBytes:
        """Begin to read the bytes ``[start, stop)``, which there are to be."""
        answer = self.kvstore.read(self.key, byte_range=slice(start, stop))
        return PendingBytes(answer, stop - start, self.what)

    def whole(self) -> bytes:
        """All of it.

        Raises:
            SourceError: the object is not there, or the server failed, after its retries.
        """
        with source_errors(self.what):
            return _value(wait(self.kvstore.read(self.key)), self.what)

    def _read(self, part: slice) -> bytes:
        return _value(wait(self.kvstore.read(self.key, byte_range=part)), self.what)


def _value(answer: ts.KvStore.ReadResult, what: str) -> bytes:
    if answer.state != "value":
        raise SourceMissingError(f"{what}: there is nothing at this address")
    value: bytes = answer.value
    return value


def make_store(url: str, options: StorageOptions, retries: int) -> Store:
    """The store at a URL.

    Raises:
        CatalogError: a scheme that no store has.
    """
    for name, value in _STALLED.items():
        os.environ.setdefault(name, value)  # TensorStore reads them at its first request, and has no other way
    return Store(_kvstore_spec(url, options), make_context(retries))


@contextmanager
def source_errors(what: str) -> Iterator[None]:
    """Turn TensorStore's errors into ours; ``what`` names the data: ``"precomputed://gs://bucket/path/info"``."""
    try:
        yield
    except (ValueError, OSError, RuntimeError) as error:
        if isinstance(error, SourceError):
            raise
        raise explain(error, what, _FAILURES) from error


def wait(future: ts.Future[Any] | ts.WriteFutures) -> Any:
    """The result of what may take long, so that Ctrl-C always ends it.

    TensorStore wakes up for an interrupt, but not for one that came a moment before it began to wait: that one would be
    seen when the request is answered, or given up after all its retries.
    """
    while not future.done():
        if getattr(current_thread(), "interrupted", False):  # Python tells the main thread alone
            raise KeyboardInterrupt
        with suppress(TimeoutError):
            return future.result(timeout=_INTERRUPTIBLE_S)
    return future.result()


def is_absent(error: Exception) -> bool:
    """Whether a strict read failed only because the source has no such chunk, which means background."""
    return str(error).startswith("NOT_FOUND: chunk ")


def make_context(retries: int, pool: ts.Context | None = None) -> ts.Context:
    """A TensorStore context: bounded retries, and a cache for shard indexes, or the one of another context."""
    policy = {"max_retries": retries, "initial_delay": "500ms", "max_delay": "16s"}
    return ts.Context(
        {
            **({} if pool else {"cache_pool": {"total_bytes_limit": _INDEX_CACHE_BYTES}}),
            "http_request_retries": policy,
            "gcs_request_retries": policy,
            "s3_request_retries": policy,
        },
        parent=pool,
    )


def _kvstore_spec(url: str, options: StorageOptions) -> dict[str, Any]:
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    folder = f"{path}/" if path else ""
    match scheme:
        case "file":
            return {"driver": "file", "path": f"{rest}/"}
        case "http" | "https":
            return {"driver": "http", "base_url": f"{scheme}://{host}", "path": f"/{folder}"}
        case "gs" if options.anonymous and "TENSORSTORE_GCS_HTTP_URL" not in os.environ:
            # TensorStore's gcs driver has no anonymous mode: without credentials it asks the cloud's metadata server
            # and logs an error, and with stale ones it fails on public data (kvstore/gcs_http, oauth2).
            return {"driver": "http", "base_url": GCS_PUBLIC, "path": f"/{host}/{folder}"}
        case "gs":
            return {"driver": "gcs", "bucket": host, "path": folder}
        case "s3":
            return _s3_spec(host, folder, options)
    raise CatalogError(f"{url}: there is no store for {scheme}://")


def _s3_spec(bucket: str, folder: str, options: StorageOptions) -> dict[str, Any]:
    endpoint = options.endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    spec: dict[str, Any] = {"driver": "s3", "bucket": bucket, "path": folder}
    if options.anonymous:
        spec["aws_credentials"] = {"type": "anonymous"}
    if endpoint:
        spec["endpoint"] = endpoint
    if options.region or endpoint:
        spec["aws_region"] = options.region or "us-east-1"
    return spec
