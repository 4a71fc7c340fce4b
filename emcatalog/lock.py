"""The lock file: what each metadata document of a source was, when somebody looked and was content with it.

``emcatalog check --lock`` writes it; afterwards a source whose document is another says so when it is opened.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from emcatalog.errors import SettingsError
from emcatalog.new_file import new_file


class LockedDocument(BaseModel):
    """One document: an ``info``, an ``attributes.json``, a ``.zarray``, the header of a slice."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    """Of its bytes (of a slice, of what its header says); None where there is no such document."""
    generation: str | None = None
    """What the store calls this version of it: an HTTP server's ETag, a bucket's generation."""
    locked: str
    """When, as an ISO 8601 date."""


class Lock(BaseModel):
    """All documents, by address."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Annotated[int, Field(ge=1, le=1)] = 1
    documents: dict[str, LockedDocument] = {}

    def with_documents(self, documents: dict[str, LockedDocument]) -> Lock:
        """This lock, with some documents as they are now."""
        return Lock(documents=dict(sorted({**self.documents, **documents}.items())))


def read_lock(path: Path) -> Lock:
    """The lock file, or an empty lock where there is none.

    Raises:
        SettingsError: it is there and is not a lock file.
    """
    try:
        return Lock.model_validate_json(path.read_text("utf-8"))
    except FileNotFoundError:
        return Lock()
    except (ValidationError, OSError, UnicodeDecodeError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise SettingsError(
            f"{path} is not a lock file of emcatalog ({reason}); delete it, and `emcatalog check --lock` makes another"
        ) from error


def write_lock(path: Path, lock: Lock) -> None:
    """Write the lock file, whole or not at all."""
    with new_file(path) as partial:
        partial.write_text(lock.model_dump_json(indent=1) + "\n", "utf-8")
