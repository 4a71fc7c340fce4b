"""What a catalog file says of a folder of files that are kept as they are."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from pydantic import AfterValidator

from emcatalog.entries.common import Arguments, Declared, Size
from emcatalog.errors import CatalogError
from emcatalog.locations import Location, StorageOptions, parse_location

_FORM: Final = "files"
"""What stands before the address of other data; files have one form, so that a catalog does not name it."""


def _address(url: str) -> str:
    if "://" not in url or url.startswith(f"{_FORM}://"):
        raise ValueError("the address of files is a URL, as in 'gs://bucket/folder'")
    try:
        parse_location(f"{_FORM}://{url}", (_FORM,))
    except CatalogError as error:
        raise ValueError(str(error).replace(f"{_FORM}://", "", 1)) from error
    return url


class FilesModel(Declared):
    """One folder, as far as it can be known without network."""

    url: Annotated[str, AfterValidator(_address)]
    """``gs://bucket/folder``."""
    count: Size | None = None
    """How many files there are; left out where nobody says."""
    stored_bytes: Size | None = None
    """What they take; left out where nobody says."""
    storage_options: StorageOptions = StorageOptions()

    @property
    def location(self) -> Location:
        """The address, taken apart."""
        return Location(_FORM, self.url.rstrip("/"), self.storage_options.endpoint_url)


class FilesArguments(Arguments):
    """Arguments of an ``em_files`` entry."""

    declared: ClassVar[tuple[str, ...]] = ("files",)

    files: FilesModel
    """The folder."""
