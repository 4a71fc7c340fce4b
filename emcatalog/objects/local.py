"""Folders of this computer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from emcatalog.objects.remote import RemoteObject


@dataclass(frozen=True, slots=True)
class LocalFolder:
    """A folder."""

    path: Path

    def describe(self, name: str) -> RemoteObject:
        """One object."""
        return self._object(self.path / name, name)

    def list(self) -> Iterator[RemoteObject]:
        """Every object below, in any order."""
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
