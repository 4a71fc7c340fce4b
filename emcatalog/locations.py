"""Where data lies: ``precomputed://gs://bucket/path`` taken apart, mirrors applied, the folder in the cache named.

Pure text: nothing here opens anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, model_validator

from emcatalog.errors import CatalogError, listing, suggest

FORMATS: Final = ("precomputed", "n5", "zarr", "tiff", "png")
"""Prefixes of a stored form, as in neuroglancer; ``tiff`` and ``png`` are stacks of one file a slice."""

STACKS: Final = ("tiff", "png")

STORED_AXES: Final = "xyz"
"""Where a volume's stored x, y and z are the axes of that name."""

TABLES: Final = ("feather", "parquet")
"""Prefixes of the stored form of a table; ``feather`` is the Arrow IPC file format."""

SKELETONS: Final = ("swc", "precomputed")
"""Prefixes of the stored form of skeletons: a folder of SWC files, or neuroglancer's."""

SCHEMES: Final = ("gs", "s3", "https", "http", "file", "demo")

_SLICE: Final = re.compile(r"\{z(:0?[1-9][0-9]?d)?\}")
"""Where the number of a slice stands in a stack's address: Python's own form, and nothing of it that could fail."""

_SAFE_IN_A_FOLDER_NAME: Final = "+=,()[]{} "


class StorageOptions(BaseModel):
    """How a store is reached. Secrets never stand here: they come from the ecosystem's own places."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    anonymous: bool = True
    """Read without credentials, as public buckets allow. False uses Google's application default credentials or the
    AWS credential chain."""
    endpoint_url: str | None = None
    """Another S3 implementation than Amazon's; default ``AWS_ENDPOINT_URL_S3`` or ``AWS_ENDPOINT_URL``."""
    region: str | None = None
    """AWS region, where the server asks for it."""

    @model_validator(mode="after")
    def _no_credentials_for_strangers(self) -> StorageOptions:
        """A catalog must not choose whom the user's credentials are shown to."""
        if self.endpoint_url and not self.anonymous:
            raise ValueError("an endpoint_url is read anonymously; for credentials there, set AWS_ENDPOINT_URL instead")
        return self


@dataclass(frozen=True, slots=True)
class Location:
    """The address of one volume, as a catalog states it."""

    format: str
    """Stored form: one of ``FORMATS``."""
    url: str
    """URL of the store, without the form and without a slash at its end."""
    endpoint: str | None = None
    """Server that the entry names in place of the scheme's own (``StorageOptions.endpoint_url``)."""
    axes: str = STORED_AXES
    """What the stored x, y and z are in space: ``yxz`` where x and y are swapped."""

    def __str__(self) -> str:
        """As in the catalog: ``precomputed://gs://bucket/path``."""
        return f"{self.format}://{self.url}"

    @property
    def base(self) -> str:
        """URL of the folder that holds the volume's documents: of a stack, the part that is the same for all slices."""
        return self.url if self.format not in STACKS else self.url[: self.url.index("{")].rpartition("/")[0]

    def slice_name(self, z: int) -> str:
        """Name of one file of a stack below ``base``."""
        return self.url[len(self.base) + 1 :].format(z=z)

    @property
    def folder(self) -> str:
        """Where its mirror lies below the cache: ``gs/flyem-male-cns/em/em-clahe-jpeg``.

        Every part is quoted, so that no URL can leave the cache folder or hide in it. A bucket of another server than
        the scheme's own is another bucket: ``s3+minio.local/bucket``, so that it cannot fill the mirror of that one;
        with its axes swapped a volume is another volume: ``em@yxz``. So is what another stored form finds there.
        """
        form = [] if self.format == FORMATS[0] else [self.format]
        marks = form + ([] if self.axes == STORED_AXES else [self.axes])
        return url_folder(self.url, self.endpoint) + "".join(f"@{mark}" for mark in marks)


def parse_location(text: str, forms: Sequence[str] = FORMATS) -> Location:
    """Take ``form://scheme://host/path`` apart.

    Args:
        text: the address.
        forms: stored forms that are meant.

    Raises:
        CatalogError: no such form or scheme, or a path with ``..``, ``.`` or an empty part in it.
    """
    form, _, url = text.partition("://")
    if form not in forms or "://" not in url:
        raise CatalogError(
            f"{text!r} is not an address of data: it starts with a stored form ({listing(forms)}) and goes on with"
            f" a URL, as in '{forms[0]}://gs://bucket/path'.{suggest(form, forms)}"
        )
    scheme, _, path = url.partition("://")
    path = path.rstrip("/")
    if scheme not in SCHEMES:
        raise CatalogError(f"{text!r}: {scheme}:// is not among {listing(SCHEMES)}.{suggest(scheme, SCHEMES)}")
    if scheme == "file" and not path.startswith("/"):
        raise CatalogError(f"{text!r}: a file:// address holds the whole path, as in 'file:///data/volume'")
    for part in path.removeprefix("/" if scheme == "file" else "").split("/"):
        # Two addresses that differ by an empty part alone would share a folder in the cache.
        if part in ("", ".", ".."):
            raise CatalogError(f"{text!r}: an address of data has a host or bucket, and no part {part!r}")
    before, *behind = _SLICE.split(path.partition("/")[2] if scheme != "file" else path)
    if form in STACKS and (len(behind) != 2 or re.search(r"[{}]", f"{before}{behind[-1]}{path.partition('/')[0]}")):
        raise CatalogError(
            f"{text!r}: a stack names its slices with one {{z}}, as in 'tiff://https://host/a_{{z:03d}}.tif'"
        )
    return Location(form, url.rstrip("/"))


def apply_mirrors(url: str, mirrors: Mapping[str, str]) -> str:
    """Return the URL that is read in place of this one; the longest prefix (of whole path parts) wins."""
    whole = {_with_slash(prefix): target for prefix, target in mirrors.items()}
    for prefix in sorted(whole, key=len, reverse=True):
        if _with_slash(url).startswith(prefix):
            return f"{_with_slash(whole[prefix])}{_with_slash(url)[len(prefix) :]}".removesuffix("/")
    return url


def _with_slash(url: str) -> str:
    """A URL with one slash at its end; ``gs://`` and ``file:///`` have what they need."""
    scheme, mark, rest = url.partition("://")
    return f"{scheme}{mark}{rest.rstrip('/')}/" if rest else url


def url_folder(url: str, endpoint: str | None = None) -> str:
    """Where what lies at a URL is kept below the cache: ``gs/bucket/path``, every part quoted.

    Args:
        url: of a store.
        endpoint: server that is named in place of the scheme's own.
    """
    scheme, rest = url.split("://", 1)
    server = f"+{folder_name(endpoint.removeprefix('https://').rstrip('/'))}" if endpoint else ""
    return "/".join([scheme + server, *(folder_name(part) for part in rest.split("/") if part)])


def folder_name(part: str) -> str:
    """One name of a remote tree as a folder's name: quoted, so that it is one, and neither hidden nor ``..``."""
    quoted = quote(part, safe=_SAFE_IN_A_FOLDER_NAME)
    # '.' alone is a folder's own name, and a leading dot would hide the folder from `ls`.
    return quoted.replace(".", "%2E", 1) if quoted.startswith(".") else quoted
