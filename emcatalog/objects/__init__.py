"""What a store says of its objects: name, size, checksum and version, of one of them or of all below a folder.

TensorStore reads objects (``stores.py``), and says nothing of sizes and checksums. Web servers and Google's buckets are
asked in plain HTTP, so that what is public needs no library beyond Python's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.error import HTTPError
from urllib.request import Request

from emcatalog.errors import CatalogError, EmcatalogError, SourceMissingError
from emcatalog.locations import StorageOptions, apply_mirrors
from emcatalog.objects.gcs import GcsFolder
from emcatalog.objects.local import LocalFolder
from emcatalog.objects.remote import RemoteObject
from emcatalog.objects.s3 import S3Folder, open_s3
from emcatalog.objects.web import WebFolder, ask, quoted
from emcatalog.settings import Settings
from emcatalog.stores import ObjectReader, make_store, source_errors

__all__ = ["RemoteObject", "describe_object", "is_listable", "list_objects", "open_object", "serves_ranges"]


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
    request = Request(quoted(address.url), headers={"Range": "bytes=0-0", "Accept-Encoding": "identity"})  # noqa: S310  # http
    with _store_errors(address.what):
        return ask(request, lambda answer: answer.status == 206, settings.retries)


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
            return LocalFolder(Path(rest or "/"))
        case "http" | "https":
            return WebFolder(url, what, retries)
        case "gs":
            return GcsFolder(*_bucket_and_prefix(rest), options.anonymous, retries)
        case "s3":
            return S3Folder(*_bucket_and_prefix(rest), open_s3(url, options, retries), options.anonymous)
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


def _bucket_and_prefix(path: str) -> tuple[str, str]:
    bucket, _, folder = path.partition("/")
    return bucket, f"{folder}/" if folder else ""
