"""A folder of files at a store, and those of them that are kept on this computer: what an ``em_files`` entry reads.

Files lie in ``<cache>/gs/bucket/folder/kept-files/``, under their own names. Beside them the last listing is kept, so
that offline it is still known what there is, and what of it is missing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from threading import Lock
from typing import Final

from pydantic import TypeAdapter, ValidationError

from emcatalog.download import (
    BLOCK_BYTES,
    Progress,
    check_room,
    download,
    find_download,
    known_downloads,
    partial_bytes,
)
from emcatalog.errors import ArgumentError, EmcatalogError, NotCachedError, SourceError, listing, suggest
from emcatalog.locations import StorageOptions, folder_name, url_folder
from emcatalog.mirror.cache import KEPT
from emcatalog.new_file import new_file
from emcatalog.objects import RemoteObject, describe_object, is_listable, list_objects
from emcatalog.settings import Settings
from emcatalog.threads import map_in_order

SMALL_AT_ONCE: Final = 16
"""Files of at most a block each: what they cost is waiting."""

LARGE_AT_ONCE: Final = 2
"""Of these many blocks are on their way at once."""

_MOST_FAILURES: Final = 20
"""After so many files that failed nothing more is begun: a server that is down would be asked for each of thousands."""

_NAMED: Final = 5
"""Names that stand in a message."""

_SUGGESTED_FROM: Final = 10_000
"""Names that a misspelt one is compared with."""

_LISTING: Final = ".listing"
"""Beside the files; none of them has a name that begins with a dot (see ``folder_name``), and what lies beside each has
another ending."""

_OBJECTS: Final = TypeAdapter(list[RemoteObject])

StartProgress = Callable[[str, int], Progress]
"""Called with a title and how many bytes there will be."""

Outcome = tuple[RemoteObject, EmcatalogError | None]
"""A file, and why it failed."""

Patterns = str | Sequence[str] | None
"""Which files: shell patterns, or None for all."""


@dataclass(frozen=True, slots=True)
class FilesPlan:
    """What a fetch would transfer."""

    files: int
    """Files that are asked for."""
    nbytes: int
    """Their size."""
    cached: int
    """Of these, on this computer already."""
    cached_bytes: int
    """Of these files, and of others that were begun."""
    folder: Path
    """Where they are kept."""

    @property
    def missing(self) -> int:
        """Files to fetch."""
        return self.files - self.cached

    @property
    def missing_bytes(self) -> int:
        """Bytes to fetch."""
        return self.nbytes - self.cached_bytes

    def __str__(self) -> str:
        """One line for a person."""
        return (
            f"{_count(self.files)} of {_size(self.nbytes)}: {self.cached} cached, {self.missing} to fetch"
            f" ({_size(self.missing_bytes)}), into {self.folder}"
        )


@dataclass(frozen=True, slots=True)
class FilesReport:
    """What a fetch did."""

    files: int
    """Files that were asked for; all of them are there."""
    nbytes: int
    """Their size."""
    fetched: int
    """Of these, those that were not there before."""
    fetched_bytes: int
    """Their size, without what an earlier fetch had left of them."""
    seconds: float
    """From the first request to the last file."""
    folder: Path
    """Where they are kept."""

    @property
    def reused(self) -> int:
        """Files that were there."""
        return self.files - self.fetched

    def __str__(self) -> str:
        """One line for a person."""
        return (
            f"fetched {_count(self.fetched)} ({_size(self.fetched_bytes)}), reused {self.reused}, in"
            f" {self.seconds:.1f} s; they are in {self.folder}"
        )


@dataclass(frozen=True, slots=True)
class FileTree:
    """The files below a folder of a store."""

    url: str
    """As in the catalog: ``gs://bucket/folder``."""
    options: StorageOptions
    """How the store is reached."""
    settings: Settings
    """The cache, mirrors, retries, and whether the network may be used."""

    @property
    def folder(self) -> Path:
        """Where the files are kept.

        Raises:
            SettingsError: the cache is in a bucket.
        """
        return self.settings.cache_folder / url_folder(self.url, self.options.endpoint_url) / KEPT

    def path(self, name: str) -> Path:
        """Where a file is kept, or will be. Every part of its name is quoted: none leads out of the folder."""
        return self.folder.joinpath(*(folder_name(part) or "%2F" for part in name.split("/")))

    def ls(self, pattern: Patterns = None) -> list[RemoteObject]:
        """The files, by name; offline as they were listed last, or else those that are kept.

        Args:
            pattern: shell patterns, of which a file's name below the folder matches one; ``*`` also matches ``/``, so
                that ``*.csv`` finds all of them, however deep. A name that is spelt out is taken as it is.

        Raises:
            ArgumentError: a pattern that no file matches; the message lists what there is.
            NotCachedError: offline, and the folder was never listed, nor a file of it fetched.
            SourceError: the folder cannot be listed; of a web server files can be named, but not found.
        """
        wanted = _norm_patterns(pattern)
        if self.settings.offline:
            return self._ls_offline(wanted)
        if wanted and not any(map(_is_pattern, wanted)) and not is_listable(self.url, self.settings):
            return [self._describe(name) for name in wanted]
        found = list_objects(self.url, self.options, self.settings)
        self._keep_listing(found)
        return self._choose(found, wanted)

    def plan(self, pattern: Patterns = None) -> FilesPlan:
        """What fetching would transfer; only the listing is asked for.

        Raises:
            ArgumentError: a pattern that no file matches.
            NotCachedError: offline, and the folder was never listed.
            SourceError: the folder cannot be listed.
        """
        chosen = self.ls(pattern)
        return self._plan(chosen, self._missing(chosen))

    def fetch(
        self,
        pattern: Patterns = None,
        *,
        all: bool = False,  # noqa: A002  # the word that a user reads in the message
        progress: StartProgress | None = None,
    ) -> FilesReport:
        """Bring files here, several at once; those that are here already are not transferred again.

        Args:
            pattern: which files, as for ``ls``.
            all: fetch everything. Without it, and without a pattern, nothing is fetched.
            progress: called once with a title and the bytes of all that is missing; what it returns is called with
                bytes as they arrive, and with those of begun files that are here, by one thread at a time.

        Raises:
            ArgumentError: neither a pattern nor ``all``, or a pattern that no file matches.
            CacheError: there is no room for them, or they cannot be written.
            NotCachedError: offline, and some are missing; the message names them.
            SourceError: some files failed, and the others are kept; the message names those that failed.
        """
        if (pattern is None) != all:
            raise ArgumentError(f"{self.url}: {self._what_to_ask()}")
        started = time.monotonic()
        chosen = self.ls(pattern)
        missing = self._missing(chosen)
        if missing and self.settings.offline:
            raise NotCachedError(
                f"{self.url}: offline, and of {_count(len(chosen))} {len(missing)} {_are(missing)} not here:"
                f" {_some(item.name for item in missing)}; ask again without offline"
            )
        plan = self._plan(chosen, missing)
        check_room(self.folder, plan.missing_bytes, self.url)
        if missing:
            nbytes = sum(item.nbytes for item in missing)
            _Fetch(self, missing, progress and progress(_count(len(missing)), nbytes)).run()
        seconds = time.monotonic() - started
        return FilesReport(plan.files, plan.nbytes, plan.missing, plan.missing_bytes, seconds, self.folder)

    def address(self, name: str) -> str:
        """A file, as in the catalog."""
        return f"{self.url.rstrip('/')}/{name}"

    def _missing(self, chosen: Sequence[RemoteObject]) -> list[RemoteObject]:
        return [item for item in chosen if not self._is_kept(item)]

    def _is_kept(self, item: RemoteObject) -> bool:
        found = find_download(self.address(item.name), self.path(item.name))
        return found is not None and found.is_same(item)

    def _plan(self, chosen: Sequence[RemoteObject], missing: Sequence[RemoteObject]) -> FilesPlan:
        nbytes = sum(item.nbytes for item in chosen)
        begun = sum(partial_bytes(self.address(item.name), self.path(item.name), item) for item in missing)
        cached_bytes = nbytes - sum(item.nbytes for item in missing) + begun
        return FilesPlan(len(chosen), nbytes, len(chosen) - len(missing), cached_bytes, self.folder)

    def _what_to_ask(self) -> str:
        plan = self.plan()
        return (
            f"there are {_count(plan.files)} of {_size(plan.nbytes)}, and {_size(plan.missing_bytes)} are not here;"
            " give either a pattern, as in fetch('*.csv'), or all=True for everything"
        )

    def _describe(self, name: str) -> RemoteObject:
        found = describe_object(self.address(name), self.options, self.settings)
        return replace(found, name=name)

    def _choose(self, known: Sequence[RemoteObject], wanted: Sequence[str] | None) -> list[RemoteObject]:
        for pattern in wanted or ():
            if not any(_matches(item.name, pattern) for item in known):
                raise ArgumentError(f"{self.url}: no file matches {pattern!r}.{_advice(pattern, known)}")
        return [item for item in known if wanted is None or any(_matches(item.name, pattern) for pattern in wanted)]

    def _keep_listing(self, found: list[RemoteObject]) -> None:
        with suppress(OSError):  # that nothing can be kept is no reason not to say what there is
            self.folder.mkdir(parents=True, exist_ok=True)
            with new_file(self.folder / _LISTING) as partial:
                partial.write_bytes(_OBJECTS.dump_json(found))

    def _ls_offline(self, wanted: Sequence[str] | None) -> list[RemoteObject]:
        with suppress(OSError, ValidationError):
            return self._choose(_OBJECTS.validate_json((self.folder / _LISTING).read_bytes()), wanted)
        kept = self._kept()
        unknown = [pattern for pattern in wanted or () if not any(_matches(item.name, pattern) for item in kept)]
        if unknown or not kept:
            of_it = f"nor {_some(unknown)} fetched" if unknown else "nor a file of it fetched"
            raise NotCachedError(f"{self.url}: offline, and it was never listed here, {of_it}; ask without offline")
        return self._choose(kept, wanted)

    def _kept(self) -> list[RemoteObject]:
        """The files that are here, which is all that can be said offline of a web server's."""
        prefix = self.address("")
        found = ((url.removeprefix(prefix), item) for url, item in known_downloads(self.folder))
        return sorted((replace(item, name=name) for name, item in found), key=lambda item: item.name)


@dataclass(slots=True)
class _Fetch:
    """Files on their way; a failure of one is none of the others'."""

    tree: FileTree
    missing: Sequence[RemoteObject]
    progress: Progress | None
    _lock: Lock = field(default_factory=Lock)

    def run(self) -> None:
        """Fetch them all, or say which failed.

        Raises:
            EmcatalogError: of the class of the failures, where they have one.
        """
        failures: dict[str, EmcatalogError] = {}
        done = 0
        with closing(self._outcomes()) as outcomes:
            for item, error in outcomes:
                if error is None:
                    done += 1
                else:
                    failures[item.name] = error
                if len(failures) == _MOST_FAILURES:
                    break
        if failures:
            raise self._failure(failures, done)

    def _outcomes(self) -> Generator[Outcome, None, None]:
        """What became of each; small files first, of which many are asked for at once."""
        small = [item for item in self.missing if item.nbytes <= BLOCK_BYTES]
        large = [item for item in self.missing if item.nbytes > BLOCK_BYTES]
        yield from map_in_order(self._fetch, small, SMALL_AT_ONCE, ahead=4 * SMALL_AT_ONCE)
        yield from map_in_order(self._fetch, large, LARGE_AT_ONCE)

    def _fetch(self, item: RemoteObject) -> Outcome:
        tree = self.tree
        try:
            address, path = tree.address(item.name), tree.path(item.name)
            download(address, path, tree.options, tree.settings, self._report, remote=item)
        except EmcatalogError as error:
            return item, error
        return item, None

    def _report(self, nbytes: int) -> None:
        if self.progress:
            with self._lock:
                self.progress(nbytes)

    def _failure(self, failures: Mapping[str, EmcatalogError], done: int) -> EmcatalogError:
        first, *others = failures.values()
        kind = type(first) if all(type(error) is type(first) for error in others) else SourceError
        left = len(self.missing) - done - len(failures)
        rest = f", {left} were not waited for" if left else ""
        return kind(
            f"{self.tree.url}: {_count(len(failures))} of {len(self.missing)} failed, {done} are done and kept{rest}."
            f" Ask again to get the rest. Failed: {_some(failures)}. The first says: {_printable(str(first))}"
        )


def _norm_patterns(pattern: Patterns) -> list[str] | None:
    if pattern is None:
        return None
    patterns = [pattern] if isinstance(pattern, str) else list(pattern) if isinstance(pattern, Sequence) else []
    if not patterns or not all(isinstance(part, str) for part in patterns):
        raise ArgumentError(f"files are chosen by a pattern, as in '*.csv', or a list of patterns, not {pattern!r:.80}")
    return patterns


def _is_pattern(text: str) -> bool:
    return bool(set("*?[") & set(text))


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or fnmatchcase(name, pattern)


def _advice(pattern: str, known: Sequence[RemoteObject]) -> str:
    """What a pattern may have meant, and what there is on the first level."""
    names = [item.name for item in known]
    folder = f"{pattern.rstrip('/')}/"
    if any(name.startswith(folder) for name in names):
        return f" It is a folder: {folder + '*'!r} has the files in it."
    tops = Counter(head + slash for head, slash, _ in (name.partition("/") for name in names))
    there = [f"{top} ({_count(count)})" if top.endswith("/") else top for top, count in sorted(tops.items())]
    return f"{suggest(pattern, names[:_SUGGESTED_FROM])} There are {_some(there)}"


def _some(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    every = [_printable(name) for name in names]
    more = len(every) - _NAMED
    return listing(every[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _printable(text: str) -> str:
    """Who names objects in a bucket must not write on a user's terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _are(items: Sequence[object]) -> str:
    return "is" if len(items) == 1 else "are"


def _count(files: int) -> str:
    return f"{files} file{'' if files == 1 else 's'}"


def _size(nbytes: int) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if nbytes >= unit:
            return f"{nbytes / unit:.1f} {name}"
    return f"{nbytes / 1e3:.1f} kB"
