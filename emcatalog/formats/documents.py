"""Metadata documents of a volume: read through its store, remembered, and held against the lock file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from emcatalog.errors import SourceChangedError, SourceCorruptError, SourceDeniedError
from emcatalog.locations import Location
from emcatalog.lock import Lock
from emcatalog.stores import Store, source_errors, wait


@dataclass(frozen=True, slots=True)
class Document:
    """One document as it was read."""

    sha256: str | None
    """Of its bytes; None where there is none."""
    generation: str | None
    """What the store calls this version: an ETag, a bucket's generation."""


@dataclass(slots=True)
class Documents:
    """Reads the documents of one volume."""

    location: Location
    """What is asked for, for messages."""
    store: Store
    """The volume's folder."""
    lock: Lock = field(default_factory=Lock)
    """What the documents should be."""
    keep: Store | None = None
    """Where files may be kept that can only be read whole; None where there is no such place."""
    seen: dict[str, Document] = field(default_factory=dict)
    """What was read, by address."""

    def address(self, name: str) -> str:
        """A document, for messages and for the lock file."""
        server = f" at {self.location.endpoint}" if self.location.endpoint else ""
        return f"{self.location.format}://{self.location.base}/{name}{server}"

    def read(self, *names: str) -> list[bytes | None]:
        """The bytes of some documents, asked for at once; None for one that is not there.

        Raises:
            SourceChangedError: one is not what the lock file says.
            SourceError: the source failed, after its retries.
        """
        kvstore = self.store.open()
        asked = [(name, kvstore.read(name)) for name in names]
        found: list[bytes | None] = []
        denied: SourceDeniedError | None = None
        for name, future in asked:
            try:
                with source_errors(self.address(name)):
                    answer = wait(future)
            except SourceDeniedError as error:
                denied = error
                found.append(None)
                continue
            stored = answer.value if answer.state == "value" else None
            self.note(name, stored, answer.stamp.generation)
            found.append(stored)
        if denied is not None and not any(found):
            raise denied  # beside a document that is given, a bucket that may not be listed denies what is not there
        return found

    def read_json(self, *names: str) -> list[dict[str, Any] | None]:
        """The same, as JSON objects.

        Raises:
            SourceCorruptError: one is not a JSON object.
        """
        texts = zip(names, self.read(*names), strict=True)
        return [None if text is None else self._parse(name, text) for name, text in texts]

    def note(self, name: str, content: bytes | None, generation: bytes | None = None) -> None:
        """Remember a document, and hold it against the lock.

        Raises:
            SourceChangedError: it is not what the lock file says.
        """
        digest = None if content is None else hashlib.sha256(content).hexdigest()
        address = self.address(name)
        self.seen[address] = Document(digest, None if content is None else _text(generation))
        locked = self.lock.documents.get(address)
        if locked is not None and locked.sha256 != digest:
            became = "is gone" if digest is None else "is new" if locked.sha256 is None else "is another"
            raise SourceChangedError(
                f"{address} {became} since it was locked on {locked.locked}; look at what changed with `emcatalog"
                " check`, and accept it with `emcatalog check --lock`"
            )

    def _parse(self, name: str, text: bytes) -> dict[str, Any]:
        try:
            parsed = json.loads(text)
        except ValueError as error:
            raise SourceCorruptError(
                f"{self.address(name)} is not JSON: {error} (it begins with {text[:40].decode('utf-8', 'replace')!r})"
            ) from error
        if not isinstance(parsed, Mapping):
            raise SourceCorruptError(f"{self.address(name)} holds {text[:40]!r}, not a JSON object")
        return dict(parsed)


def _text(generation: bytes | None) -> str | None:
    """A generation as it stands in a lock file: an ETag is text, a file's modification time is bytes."""
    bare = (generation or b"").strip(b"\0")
    if not bare:
        return None
    return bare.decode("ascii") if bare.isascii() and bare.decode("ascii").isprintable() else bare.hex()
