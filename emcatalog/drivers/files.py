"""``em_files``: a folder of files, kept as they are, as an Intake source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from emcatalog.drivers.progress import bytes_bar
from emcatalog.drivers.source import EntrySource

if TYPE_CHECKING:
    from emcatalog.describe.page import Description
    from emcatalog.entries.files import FilesArguments
    from emcatalog.file_tree import FilesPlan, FilesReport, FileTree
    from emcatalog.objects import RemoteObject


class FilesSource(EntrySource):
    """Files that are brought here as they are: a database, what it is made of.

    Arguments (both optional): ``offline`` (what is in the cache alone) and ``cache_dir`` (its folder).
    """

    name = "em_files"
    container = "python"
    usage = "ls() lists the files, plan() says what they take, and fetch('*.csv') brings some of them here"
    arguments: FilesArguments

    def ls(self, pattern: str | Sequence[str] | None = None) -> list[RemoteObject]:
        """The files that there are, with their bytes and checksums; offline those that are in the cache.

        Args:
            pattern: of names below the folder, as in ``"*.csv"``; ``*`` matches ``/`` too. Default: all.

        Raises:
            ArgumentError: nothing has such a name; the message says what there is.
            SourceError: the store cannot be listed, or failed, after its retries.
            NotCachedError: offline, and none is in the cache.
        """
        return self._tree().ls(pattern)

    def plan(self, pattern: str | Sequence[str] | None = None) -> FilesPlan:
        """How many files and bytes a fetch would bring, and how many are here already.

        Raises:
            ArgumentError, SourceError, NotCachedError: as ``ls``.
        """
        return self._tree().plan(pattern)

    def fetch(
        self,
        pattern: str | Sequence[str] | None = None,
        *,
        all: bool = False,  # noqa: A002  # what a caller wants is said best so
        progress: bool = True,
    ) -> FilesReport:
        """Bring files into the cache, each held against its checksum; ask again after an interruption.

        Args:
            pattern: of names below the folder, as in ``"*.csv"``.
            all: needed where no pattern is given: a folder may hold hundreds of gigabytes.
            progress: show a bar where somebody can see it.

        Raises:
            ArgumentError: neither a pattern nor ``all=True``, or a pattern that nothing has.
            SourceCorruptError: a file is not what its checksum says; nothing of it is kept.
            SourceError, CacheError: they cannot be read, or kept.
        """
        bar = (lambda title, nbytes: bytes_bar(f"{self.name}, {title}", nbytes)) if progress else None
        return self._tree().fetch(pattern, all=all, progress=bar)

    def about(self) -> Description:
        """What it is, for a person; asks no network."""
        from emcatalog.describe.files import describe_files

        return describe_files(self.arguments)

    def _tree(self) -> FileTree:
        from emcatalog.file_tree import FileTree

        model = self.arguments.files
        return FileTree(model.location.url, model.storage_options, self.arguments.settings)
