"""What a catalog file says of a folder of files that are kept as they are."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AfterValidator

from emcatalog.entries.common import Arguments, Declared, Size
from emcatalog.locations import Location, StorageOptions, parse_location


def _address(url: str) -> str:
    parse_location(f"files://{url}", ("files",))
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
        return Location("files", self.url.rstrip("/"), self.storage_options.endpoint_url)


class FilesArguments(Arguments):
    """Arguments of an ``em_files`` entry."""

    declared: ClassVar[tuple[str, ...]] = ("files",)

    files: FilesModel
    """The folder."""
