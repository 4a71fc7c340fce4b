"""Google Cloud Storage, through its JSON API in plain HTTP: public buckets need no library."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode
from urllib.request import Request

from emcatalog.errors import MissingExtraError
from emcatalog.objects.remote import RemoteObject
from emcatalog.objects.web import as_hex, ask
from emcatalog.stores import GCS_PUBLIC

_FIELDS: Final = "name,size,md5Hash,generation"
"""https://cloud.google.com/storage/docs/json_api/v1/objects#resource; all of them would make a listing five times as
long."""

_SCOPE: Final = "https://www.googleapis.com/auth/devstorage.read_only"


@dataclass(frozen=True, slots=True)
class GcsFolder:
    """A folder of a bucket: https://cloud.google.com/storage/docs/json_api/v1/objects."""

    bucket: str
    prefix: str
    """Of names below the folder: empty, or with a slash at its end."""
    anonymous: bool
    retries: int

    def describe(self, name: str) -> RemoteObject:
        """One object."""
        return self._object(self._get(f"o/{quote(self.prefix + name, safe='')}", self._headers(), fields=_FIELDS))

    def list(self) -> Iterator[RemoteObject]:
        """Every object below, in any order."""
        wanted = {"prefix": self.prefix, "fields": f"nextPageToken,items({_FIELDS})"}
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
        return RemoteObject(name, int(item["size"]), as_hex(item.get("md5Hash")), item.get("generation"))

    def _get(self, path: str, headers: Mapping[str, str], **query: str) -> Mapping[str, Any]:
        # The variable is TensorStore's: what is read and what is said of it come from one server.
        server = os.environ.get("TENSORSTORE_GCS_HTTP_URL", GCS_PUBLIC).rstrip("/")
        request = Request(f"{server}/storage/v1/b/{quote(self.bucket, safe='')}/{path}?{urlencode(query)}")  # noqa: S310  # http
        for name, value in headers.items():
            request.add_unredirected_header(name, value)
        document: Mapping[str, Any] = ask(request, json.load, self.retries)
        return document

    def _headers(self) -> Mapping[str, str]:
        return {} if self.anonymous else {"Authorization": f"Bearer {_token()}"}


def _token() -> str:
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
        credentials: Any = google.auth.default(scopes=[_SCOPE])[0]
        credentials.refresh(Transport())
    except (DefaultCredentialsError, RefreshError) as error:
        raise PermissionError(f"no credentials of Google's can be used: {error}") from error
    return str(credentials.token)
