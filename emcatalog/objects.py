"""What a store says of its objects: name, size, checksum and version, of one of them or of all below a folder.

TensorStore reads objects (``stores.py``), and says nothing of sizes and checksums. Web servers and Google's buckets are
asked in plain HTTP, so that what is public needs no library beyond Python's own.
"""

from __future__ import annotations

import json
import os
import re
import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

from emcatalog.errors import CatalogError, EmcatalogError, MissingExtraError, SourceMissingError, SourceUnavailableError
from emcatalog.locations import StorageOptions, apply_mirrors
from emcatalog.settings import Settings
from emcatalog.stores import GCS_PUBLIC, ObjectReader, make_store, source_errors

_MD5: Final = re.compile(r"[0-9a-f]{32}", re.IGNORECASE)

_TIMEOUT_S: Final = 60
"""When a connection counts as lost that says nothing, as in ``stores.py``."""

_PASSING: Final = frozenset({408, 429, 500, 502, 503, 504})
"""Answers that another try may change."""

_GCS_FIELDS: Final = "name,size,md5Hash,generation"
"""https://cloud.google.com/storage/docs/json_api/v1/objects#resource; all of them would make a listing five times as
long."""

_GCS_SCOPE: Final = "https://www.googleapis.com/auth/devstorage.read_only"

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class RemoteObject:
    """An object as its store describes it."""

    name: str
    """Below the folder that was listed; of an object that was asked for by itself the last part of its address."""
    nbytes: int
    """Its size."""
    md5: str | None = None
    """Of its bytes, as 32 hexadecimal digits; None where the store does not say."""
    version: str | None = None
    """What becomes another with the content: a bucket's generation, an ETag, a time; None where nothing does."""

    def is_same(self, other: RemoteObject) -> bool:
        """Whether the bytes are the same; where nobody can say they are not."""
        if self.nbytes != other.nbytes:
            return False
        if self.md5 and other.md5:
            return self.md5 == other.md5
        return self.version is not None and self.version == other.version


def describe_object(url: str, options: StorageOptions, settings: Settings) -> RemoteObject:
    """What the store says of one object.

    Args:
        url: as in the catalog: ``gs://bucket/folder/name``; mirrors are applied.
        options: how its store is reached.
        settings: mirrors, and how often a failed request is repeated.

    Raises:
        SourceError: it is not there, or the store failed, after its retries.
        MissingExtraError: asking this store needs a library that is not installed.
        CatalogError: an address that names no object.
    """
    address = _Address.of(url, settings)
    folder, name = address.split()
    store = _open_folder(folder, address.what, options, settings.retries)
    with _store_errors(address.what):
        return store.describe(name)


def list_objects(url: str, options: StorageOptions, settings: Settings) -> list[RemoteObject]:
    """Every object below a folder, by name; at least one.

    Args:
        url: the folder, as in the catalog: ``gs://bucket/folder``; mirrors are applied.
        options: how its store is reached.
        settings: mirrors, and how often a failed request is repeated.

    Raises:
        SourceMissingError: there is nothing below it.
        SourceUnavailableError: a web server, which cannot be asked, or a store that failed, after its retries.
        SourceDeniedError: the store does not let everybody see what there is.
        MissingExtraError: asking this store needs a library that is not installed.
    """
    address = _Address.of(url, settings)
    store = _open_folder(address.url, address.what, options, settings.retries)
    with _store_errors(address.what):
        found = sorted(store.list(), key=lambda item: item.name)
    if not found:
        raise SourceMissingError(f"{address.what}: there is nothing below this address; check it, or EMCATALOG_MIRRORS")
    return found


def open_object(url: str, options: StorageOptions, settings: Settings) -> ObjectReader:
    """An object to be read by ranges, or whole; whether it is there shows when it is read.

    Raises:
        CatalogError: an address that names no object, or that no store has.
    """
    address = _Address.of(url, settings)
    folder, name = address.split()
    store = make_store(folder, options, settings.retries)
    with source_errors(address.what):
        return ObjectReader(store.open(), name, address.what)


def is_listable(url: str, settings: Settings) -> bool:
    """Whether the store of an address can be asked what there is: a web server cannot."""
    return not _Address.of(url, settings).url.startswith(("http://", "https://"))


def serves_ranges(url: str, settings: Settings) -> bool:
    """Whether a part of an object can be had; some web servers send nothing but the whole.

    Asked with a request whose answer is not read on: TensorStore would read a file of gigabytes into memory first.

    Raises:
        SourceError: it is not there, or the server failed, after its retries.
    """
    address = _Address.of(url, settings)
    if is_listable(url, settings):
        return True
    request = Request(_quoted(address.url), headers={"Range": "bytes=0-0", "Accept-Encoding": "identity"})  # noqa: S310  # http
    with _store_errors(address.what):
        return _ask(request, lambda answer: answer.status == 206, settings.retries)


@dataclass(frozen=True, slots=True)
class _Address:
    """Where something is read."""

    url: str
    """After the mirrors."""
    what: str
    """For messages: as the catalog has it, and where that is not what is read, this too."""

    @classmethod
    def of(cls, url: str, settings: Settings) -> _Address:
        url = url.rstrip("/")
        read = apply_mirrors(url, settings.mirrors)
        return cls(read, url if read == url else f"{url} (read from {read})")

    def split(self) -> tuple[str, str]:
        """Folder and name."""
        scheme, _, path = self.url.partition("://")
        folder, slash, name = path.rpartition("/")
        if not slash or not name:
            raise CatalogError(f"{self.what} names no object; its address goes on behind the bucket or host")
        if {".", ".."} & set(path.split("/")):
            # Who sends such an address to a web server asks for another one: RFC 3986, 5.2.4.
            raise CatalogError(f"{self.what}: an address with a part '.' or '..' is read by no server as it stands")
        return f"{scheme}://{folder}", name


class _Folder(Protocol):
    """What of a store is asked; errors are of whatever class."""

    def describe(self, name: str) -> RemoteObject:
        """One object."""

    def list(self) -> Iterator[RemoteObject]:
        """Every object below, in any order."""


def _open_folder(url: str, what: str, options: StorageOptions, retries: int) -> _Folder:
    """The store of a folder; nothing is asked yet. ``what`` is for messages."""
    scheme, _, rest = url.partition("://")
    match scheme:
        case "file":
            return _LocalFolder(Path(rest or "/"))
        case "http" | "https":
            return _WebFolder(url, what, retries)
        case "gs":
            return _GcsFolder(*_bucket_and_prefix(rest), options.anonymous, retries)
        case "s3":
            return _S3Folder(*_bucket_and_prefix(rest), _s3(url, options, retries), options.anonymous)
    raise CatalogError(f"{what}: there is no store for {scheme}://")


@contextmanager
def _store_errors(what: str) -> Iterator[None]:
    """Any store's errors in the words of TensorStore's, so that both mean and advise the same."""
    with source_errors(what):
        try:
            yield
        except EmcatalogError:
            raise
        except HTTPError as error:
            raise OSError(f"HTTP code {error.code}: {error.reason}") from error
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise OSError(f"NOT_FOUND: {error}") from error
        except PermissionError as error:
            raise OSError(f"PERMISSION_DENIED: {error}") from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise OSError(f"the answer is not understood: {error!r}") from error
        except Exception as error:
            raise OSError(f"UNAVAILABLE: {type(error).__name__}: {error}") from error


# --- folders of this computer


@dataclass(frozen=True, slots=True)
class _LocalFolder:
    path: Path

    def describe(self, name: str) -> RemoteObject:
        return self._object(self.path / name, name)

    def list(self) -> Iterator[RemoteObject]:
        for folder, _, names in os.walk(self.path, onerror=_raise):
            for path in (Path(folder, name) for name in names):
                if path.is_file():  # and neither a socket, nor a link to what is gone
                    yield self._object(path, path.relative_to(self.path).as_posix())

    def _object(self, path: Path, name: str) -> RemoteObject:
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder")
        status = path.stat()
        return RemoteObject(name, status.st_size, None, f"{status.st_mtime_ns}-{status.st_size}")


def _raise(error: OSError) -> None:
    raise error


# --- plain HTTP


@dataclass(frozen=True, slots=True)
class _WebFolder:
    url: str
    what: str
    retries: int

    def describe(self, name: str) -> RemoteObject:
        headers = self._head(f"{_quoted(self.url)}/{quote(name)}")
        md5 = _hex(headers["Content-MD5"])
        for checksum in ",".join(headers.get_all("x-goog-hash", [])).split(","):
            kind, _, value = checksum.strip().partition("=")
            md5 = _hex(value) if kind == "md5" else md5
        version = headers["x-goog-generation"] or headers["ETag"] or headers["Last-Modified"]
        return RemoteObject(name, int(headers["Content-Length"]), md5, version)

    def list(self) -> Iterator[RemoteObject]:
        raise SourceUnavailableError(
            f"{self.what}: a web server cannot be asked which files it has; name each file, or let EMCATALOG_MIRRORS"
            " lead to a copy that can be listed (gs://, s3://, file://)"
        )

    def _head(self, url: str) -> Message:
        """The headers, with a length; a server that does not know HEAD is asked for all of it, which is not read."""
        for method in ("HEAD", "GET"):
            request = Request(url, headers={"Accept-Encoding": "identity"}, method=method)  # noqa: S310  # http
            try:
                headers = _ask(request, lambda answer: answer.headers, self.retries)
            except HTTPError as error:
                if method == "GET" or error.code not in (405, 501):
                    raise
                continue
            if headers.get("Content-Length", "").isdecimal():
                return headers
        raise ConnectionError("the server does not say how large the file is")


def _ask(request: Request, read: Callable[[HTTPResponse], _Answer], retries: int) -> _Answer:
    """What an answer holds; a request that fails is repeated after the pauses that TensorStore makes, too."""

    def once() -> _Answer:
        with urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310  # http, or what urllib lets it redirect to
            return read(answer)

    request.add_header("User-Agent", "emcatalog")
    for attempt in range(retries):
        try:
            return once()
        except (OSError, HTTPException) as error:
            if isinstance(error, HTTPError) and error.code not in _PASSING:
                raise
        time.sleep(min(0.5 * 2**attempt, 16))
    return once()


def _quoted(url: str) -> str:
    """A URL as it is sent: a catalog has it as a person reads it, which is how TensorStore takes it as well."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host}{slash}{quote(path)}"


def _hex(checksum: str | None) -> str | None:
    """A checksum as hexadecimal digits; servers send it in base64, and some in digits against the standard."""
    if checksum and _MD5.fullmatch(checksum):
        return checksum.lower()
    try:
        decoded = b64decode(checksum or "", validate=True)
    except ValueError:
        return None
    return decoded.hex() if len(decoded) == 16 else None


# --- Google Cloud Storage


@dataclass(frozen=True, slots=True)
class _GcsFolder:
    """https://cloud.google.com/storage/docs/json_api/v1/objects."""

    bucket: str
    prefix: str
    """Of names below the folder: empty, or with a slash at its end."""
    anonymous: bool
    retries: int

    def describe(self, name: str) -> RemoteObject:
        return self._object(self._get(f"o/{quote(self.prefix + name, safe='')}", self._headers(), fields=_GCS_FIELDS))

    def list(self) -> Iterator[RemoteObject]:
        wanted = {"prefix": self.prefix, "fields": f"nextPageToken,items({_GCS_FIELDS})"}
        headers = self._headers()
        page: Mapping[str, Any] = {"nextPageToken": None}
        while "nextPageToken" in page:
            token = page["nextPageToken"]
            page = self._get("o", headers, **wanted, **({"pageToken": token} if token else {}))
            for item in page.get("items", ()):
                if not item["name"].endswith("/"):  # what some tools put in the place of a folder
                    yield self._object(item)

    def _object(self, item: Mapping[str, Any]) -> RemoteObject:
        name = item["name"].removeprefix(self.prefix)
        return RemoteObject(name, int(item["size"]), _hex(item.get("md5Hash")), item.get("generation"))

    def _get(self, path: str, headers: Mapping[str, str], **query: str) -> Mapping[str, Any]:
        # The variable is TensorStore's: what is read and what is said of it come from one server.
        server = os.environ.get("TENSORSTORE_GCS_HTTP_URL", GCS_PUBLIC).rstrip("/")
        request = Request(f"{server}/storage/v1/b/{quote(self.bucket, safe='')}/{path}?{urlencode(query)}")  # noqa: S310  # http
        for name, value in headers.items():
            request.add_unredirected_header(name, value)
        document: Mapping[str, Any] = _ask(request, json.load, self.retries)
        return document

    def _headers(self) -> Mapping[str, str]:
        return {} if self.anonymous else {"Authorization": f"Bearer {_gcs_token()}"}


def _gcs_token() -> str:
    """A token of Google's application default credentials, which TensorStore uses, too."""
    try:
        import google.auth
        from google.auth.exceptions import DefaultCredentialsError, RefreshError
        from google.auth.transport.requests import Request as Transport
    except ImportError as error:
        raise MissingExtraError(
            "a private bucket at Google needs google-auth: pip install 'emcatalog[cloud]'"
        ) from error
    try:
        credentials: Any = google.auth.default(scopes=[_GCS_SCOPE])[0]
        credentials.refresh(Transport())
    except (DefaultCredentialsError, RefreshError) as error:
        raise PermissionError(f"no credentials of Google's can be used: {error}") from error
    return str(credentials.token)


# --- S3


@dataclass(frozen=True, slots=True)
class _S3Folder:
    bucket: str
    prefix: str
    """Of names below the folder: empty, or with a slash at its end."""
    filesystem: Any
    """Of s3fs."""
    anonymous: bool

    def describe(self, name: str) -> RemoteObject:
        head = self._call("head_object", Key=self.prefix + name)
        return RemoteObject(name, head["ContentLength"], *self._md5_and_version(head))

    def list(self) -> Iterator[RemoteObject]:
        page: Mapping[str, Any] = {"NextContinuationToken": None}
        while "NextContinuationToken" in page:
            token = page["NextContinuationToken"]
            more = {"ContinuationToken": token} if token else {}
            page = self._call("list_objects_v2", Prefix=self.prefix, **more)
            for item in page.get("Contents", ()):
                if not item["Key"].endswith("/"):  # what some tools put in the place of a folder
                    name = item["Key"].removeprefix(self.prefix)
                    yield RemoteObject(name, item["Size"], *self._md5_and_version(item))

    def _call(self, method: str, **arguments: str) -> Mapping[str, Any]:
        from botocore.exceptions import ParamValidationError

        try:
            answer: Mapping[str, Any] = self.filesystem.call_s3(method, Bucket=self.bucket, **arguments)
        except ParamValidationError as error:
            raise FileNotFoundError(f"{self.bucket!r} is not the name of a bucket") from error
        return answer

    def _md5_and_version(self, item: Mapping[str, Any]) -> tuple[str | None, str]:
        """Of an ETag. Encrypted with a key of the owner's it looks like an MD5 and is none; nobody reads that unsigned.

        https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html
        """
        etag = item["ETag"].strip('"')
        return (_hex(etag) if self.anonymous and _MD5.fullmatch(etag) else None), etag


def _s3(url: str, options: StorageOptions, retries: int) -> Any:
    """An s3fs that reaches what TensorStore's store of the same URL does."""
    try:
        import s3fs
    except ImportError as error:
        raise MissingExtraError(f"{url}: sizes and names in S3 need s3fs: pip install 'emcatalog[cloud]'") from error
    store = make_store(url, options, retries).kvstore
    filesystem = s3fs.S3FileSystem(
        anon=options.anonymous,
        endpoint_url=store.get("endpoint"),
        client_kwargs={"region_name": store["aws_region"]} if "aws_region" in store else {},
        config_kwargs={"retries": {"max_attempts": retries, "mode": "standard"}},
    )
    filesystem.retries = 1  # botocore repeats already
    return filesystem


def _bucket_and_prefix(path: str) -> tuple[str, str]:
    bucket, _, folder = path.partition("/")
    return bucket, f"{folder}/" if folder else ""
