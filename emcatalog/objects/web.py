"""Plain HTTP: what a web server says of a file, asked with Python's own library."""

from __future__ import annotations

import re
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException, HTTPResponse
from typing import Final, TypeVar
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

from emcatalog.errors import SourceUnavailableError
from emcatalog.objects.remote import RemoteObject

MD5: Final = re.compile(r"[0-9a-f]{32}", re.IGNORECASE)

_TIMEOUT_S: Final = 60
"""When a connection counts as lost that says nothing, as in ``stores.py``."""

_PASSING: Final = frozenset({408, 429, 500, 502, 503, 504})
"""Answers that another try may change."""

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class WebFolder:
    """A folder of a web server, which cannot be listed."""

    url: str
    what: str
    retries: int

    def describe(self, name: str) -> RemoteObject:
        """One object."""
        headers = self._head(f"{quoted(self.url)}/{quote(name)}")
        md5 = as_hex(headers["Content-MD5"])
        for checksum in ",".join(headers.get_all("x-goog-hash", [])).split(","):
            kind, _, value = checksum.strip().partition("=")
            md5 = as_hex(value) if kind == "md5" else md5
        version = headers["x-goog-generation"] or headers["ETag"] or headers["Last-Modified"]
        return RemoteObject(name, int(headers["Content-Length"]), md5, version)

    def list(self) -> Iterator[RemoteObject]:
        """Every object below, in any order."""
        raise SourceUnavailableError(
            f"{self.what}: a web server cannot be asked which files it has; name each file, or let EMCATALOG_MIRRORS"
            " lead to a copy that can be listed (gs://, s3://, file://)"
        )

    def _head(self, url: str) -> Message:
        """The headers, with a length; a server that does not know HEAD is asked for all of it, which is not read."""
        for method in ("HEAD", "GET"):
            request = Request(url, headers={"Accept-Encoding": "identity"}, method=method)  # noqa: S310  # http
            try:
                headers = ask(request, lambda answer: answer.headers, self.retries)
            except HTTPError as error:
                if method == "GET" or error.code not in (405, 501):
                    raise
                continue
            if headers.get("Content-Length", "").isdecimal():
                return headers
        raise ConnectionError("the server does not say how large the file is")


def ask(request: Request, read: Callable[[HTTPResponse], _Answer], retries: int) -> _Answer:
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


def quoted(url: str) -> str:
    """A URL as it is sent: a catalog has it as a person reads it, which is how TensorStore takes it as well."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host}{slash}{quote(path)}"


def as_hex(checksum: str | None) -> str | None:
    """A checksum as hexadecimal digits; servers send it in base64, and some in digits against the standard."""
    if checksum and MD5.fullmatch(checksum):
        return checksum.lower()
    try:
        decoded = b64decode(checksum or "", validate=True)
    except ValueError:
        return None
    return decoded.hex() if len(decoded) == 16 else None
