"""Files of one remote folder that are kept in the cache byte for byte."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from emcatalog.errors import CacheCorruptError, CacheError, SourceCorruptError
from emcatalog.new_file import new_file


@dataclass(frozen=True, slots=True)
class KeptFiles:
    """A folder of files, written whole or not at all. Threads and processes may share it."""

    folder: Path
    """Where they are; made with the first of them."""

    def has(self, name: str) -> bool:
        """Whether a file is there.

        Raises:
            CacheError: the folder cannot be read.
        """
        with self._errors(name):
            return (self.folder / name).is_file()

    def names(self) -> list[str]:
        """Names of all that is there, in any order.

        Raises:
            CacheError: the folder cannot be read.
        """
        with self._errors():
            return [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []

    def read(self, name: str) -> bytes | None:
        """A file's bytes; None where there is none.

        Raises:
            CacheError: it cannot be read.
        """
        with self._errors(name):
            try:
                return (self.folder / name).read_bytes()
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        """Keep a file.

        Raises:
            CacheError: it cannot be written.
        """
        with self._errors(name):
            self.folder.mkdir(parents=True, exist_ok=True)
            with new_file(self.folder / name) as partial:
                partial.write_bytes(content)

    @contextmanager
    def parsing(self, name: str) -> Iterator[None]:
        """Around the parsing of a kept file. Only what parsed was kept, so that what does not was damaged here.

        Raises:
            CacheCorruptError: it does not parse.
        """
        try:
            yield
        except SourceCorruptError as error:
            raise CacheCorruptError(
                f"{self.folder / name} is not what was written there; delete it and ask again ({error})"
            ) from error

    @contextmanager
    def _errors(self, name: str = "") -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CacheError(
                f"{self.folder / name}: the cache cannot be used there ({error.strerror or error}); choose another"
                " folder with EMCATALOG_CACHE or cache_dir"
            ) from error
