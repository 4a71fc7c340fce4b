"""One object of a store into one file of this computer, whole and right or not at all.

What arrives is appended, in order, to a file beside the target, so that its length is what is done. A small document
beside that one pins what is being downloaded: whoever finds both goes on from there if the store still says the same.
Another one stays beside the target and says what was verified, and when the file was last written then: as long as the
file has that time and size, nobody needs to read it again to know that it is right.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import current_thread
from typing import Any, BinaryIO, Final, NoReturn

from pydantic import BaseModel, ConfigDict, ValidationError

from emcatalog.errors import (
    ArgumentError,
    CacheError,
    EmcatalogError,
    NoRangesError,
    NotCachedError,
    SourceChangedError,
    SourceCorruptError,
)
from emcatalog.locations import StorageOptions
from emcatalog.objects import RemoteObject, describe_object, open_object, serves_ranges
from emcatalog.settings import Settings
from emcatalog.stores import PendingBytes

BLOCK_BYTES: Final = 8 << 20
"""Asked for at once; what is smaller is read whole, and not resumed."""

IN_FLIGHT: Final = 6
"""Blocks on their way at one time."""

_PIECE_BYTES: Final = 1 << 20
"""Read from disk at once."""

_POLL_S: Final = 0.1
"""Between two looks whether another process is done with a file."""

Progress = Callable[[int], None]
"""Called with bytes, each time some have arrived."""


def download(
    url: str,
    target: Path,
    options: StorageOptions,
    settings: Settings,
    progress: Progress | None = None,
    *,
    expected_md5: str | None = None,
    remote: RemoteObject | None = None,
) -> RemoteObject:
    """Bring one object into a file, unless it is there already; return what the store says of it.

    A download that was killed goes on where it was, and begins anew where the object has changed since. Whoever asks
    for the same file meanwhile waits for it. Of a file that is there, nothing is transferred: one that was verified,
    and not written since, is known to be right; another one of the right size is read and held against the checksum.

    Args:
        url: as in the catalog: ``gs://bucket/folder/name``; mirrors are applied.
        target: the file; its folder is made. Names beside it that begin with ``.`` and its own name belong to it.
        options: how the store is reached.
        settings: mirrors, retries, and whether the network may be used.
        progress: called with bytes as they arrive; once with what is there already.
        expected_md5: what the catalog declares, as 32 hexadecimal digits.
        remote: what the store says of the object, where that is known already.

    Raises:
        SourceCorruptError: the bytes are not what the store, or the catalog, says; nothing of them is kept.
        SourceChangedError: the object was replaced meanwhile; nothing of it is kept.
        NoRangesError: a large file on a web server that sends whole files only.
        SourceError: the object is not there, or the store failed, after its retries; what arrived is kept.
        CacheError: the file cannot be written, or there is no room for it.
        NotCachedError: offline, and the file is not there.
        ArgumentError: an ``expected_md5`` that is none.
    """
    if expected_md5 is not None and not re.fullmatch("[0-9a-fA-F]{32}", expected_md5):
        raise ArgumentError(f"{url}: an MD5 is 32 hexadecimal digits, not {expected_md5!r:.80}")
    if settings.offline:
        return _kept_offline(url, target)
    remote = remote or describe_object(url, options, settings)
    expected_md5 = expected_md5.lower() if expected_md5 else None
    if remote.md5 and expected_md5 not in (None, remote.md5):
        raise SourceCorruptError(
            f"{url}: the catalog says that its MD5 is {expected_md5}, and the store has an object with {remote.md5}; it"
            " was replaced, or the catalog is wrong"
        )
    with _cache_errors(target):
        _Download(url, target, options, settings, remote, expected_md5, progress).run()
    return remote


def find_download(url: str, target: Path) -> RemoteObject | None:
    """What a file is known to hold of an object; None where it was never downloaded, or was written to since."""
    record = _read_record(_beside(target, "json"))
    with suppress(OSError):
        status = target.stat()
        if record and (record.url, record.nbytes, record.mtime_ns) == (url, status.st_size, status.st_mtime_ns):
            return record.as_object(target.name)
    return None


def known_downloads(folder: Path) -> Iterator[tuple[str, RemoteObject]]:
    """Every file below a folder that is known to hold an object, with the address of that."""
    for path in folder.rglob(".*.json"):
        target, record = path.with_name(path.name[1:].removesuffix(".json")), _read_record(path)
        found = find_download(record.url, target) if record else None
        if record and found:
            yield record.url, found


def partial_bytes(url: str, target: Path, remote: RemoteObject) -> int:
    """How much of an object an earlier download has left to go on from."""
    pins = _read_record(_beside(target, "partial.json"))
    if remote.nbytes > BLOCK_BYTES and pins and pins.is_of(url, remote):
        with suppress(OSError):
            size = _beside(target, "partial").stat().st_size
            return size if size <= remote.nbytes else 0
    return 0


def check_room(folder: Path, nbytes: int, what: str) -> None:
    """See whether so many bytes more fit on the disk of a folder, which need not be there yet.

    Raises:
        CacheError: they do not; the message says how much there is.
    """
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if nbytes > free:
        raise CacheError(
            f"{what} takes {nbytes / 1e9:.1f} GB more, and {folder} has room for {free / 1e9:.1f} GB: make room, or"
            " choose another place (EMCATALOG_CACHE or cache_dir=)"
        )


class _Record(BaseModel):
    """What a file holds, or is to hold; as JSON beside it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    nbytes: int
    md5: str | None
    """Of a file that was verified, of its bytes; before, what the store says."""
    version: str | None
    mtime_ns: int | None = None
    """When the file was last written, where it was verified."""

    def as_object(self, name: str) -> RemoteObject:
        return RemoteObject(name, self.nbytes, self.md5, self.version)

    def is_of(self, url: str, remote: RemoteObject) -> bool:
        """Whether it is about this object, as it is now."""
        return self.url == url and self.as_object(remote.name).is_same(remote)


@dataclass(frozen=True, slots=True)
class _Download:
    """One object on its way."""

    url: str
    target: Path
    options: StorageOptions
    settings: Settings
    remote: RemoteObject
    expected_md5: str | None
    progress: Progress | None

    def run(self) -> None:
        """Make sure that the file is there."""
        if not self._is_there():
            self.target.parent.mkdir(parents=True, exist_ok=True)
            with _alone_at(self._partial) as file:
                if not self._is_there() and not self._adopt():
                    self._fill(file)
                    return
                self._drop()
        self._report(self.remote.nbytes)

    @property
    def _partial(self) -> Path:
        return _beside(self.target, "partial")

    @property
    def _pins(self) -> Path:
        return _beside(self.target, "partial.json")

    def _is_there(self) -> bool:
        found = find_download(self.url, self.target)
        return found is not None and found.is_same(self.remote) and self.expected_md5 in (None, found.md5)

    def _adopt(self) -> bool:
        """Whether a file that somebody put there, or touched, is the right one after all."""
        record = _read_record(_beside(self.target, "json"))
        before = record.md5 if record and record.is_of(self.url, self.remote) else None
        wanted = self.expected_md5 or self.remote.md5 or before
        if not wanted or not self.target.is_file() or self.target.stat().st_size != self.remote.nbytes:
            return False
        with self.target.open("rb") as file:
            if _digest(file).hexdigest() != wanted:
                return False
            self._write_record(wanted, file)
        return True

    def _fill(self, file: BinaryIO) -> None:
        """Get what is missing, verify all of it, and put it in its place."""
        try:
            by_ranges = self._is_by_ranges()
            digest = self._get(file, by_ranges)
        finally:
            if os.fstat(file.fileno()).st_size == 0 < self.remote.nbytes:
                self._drop()  # there is nothing to go on from
        if by_ranges and self.remote.md5 is None:
            self._refuse_if_replaced()  # some of the blocks may be of one version, and some of another
        self._verify(digest)
        self._write_record(digest, file)
        self._partial.replace(self.target)
        self._pins.unlink(missing_ok=True)

    def _get(self, file: BinaryIO, by_ranges: bool) -> str:
        """Append what is missing; return the MD5 of all."""
        done = self._begin(file, by_ranges)
        digest = _digest(file)
        for block in self._blocks(done) if by_ranges else self._whole():
            file.write(block)
            file.flush()
            digest.update(block)
            self._report(len(block))
        if by_ranges:
            os.fsync(file.fileno())  # a network's disk sets the time of the last write only then
        return str(digest.hexdigest())

    def _begin(self, file: BinaryIO, by_ranges: bool) -> int:
        """How many bytes are there to go on from; without any the file is empty, and pinned to what it will be."""
        remote = self.remote
        done = partial_bytes(self.url, self.target, remote) if by_ranges else 0
        check_room(self.target.parent, remote.nbytes - done, self.url)
        if done:
            self._report(done)
            return done
        file.truncate(0)
        _write(self._pins, _Record(url=self.url, nbytes=remote.nbytes, md5=remote.md5, version=remote.version))
        return 0

    def _is_by_ranges(self) -> bool:
        if self.remote.nbytes <= BLOCK_BYTES:
            return False
        if serves_ranges(self.url, self.settings):
            return True
        if self.remote.nbytes > BLOCK_BYTES * IN_FLIGHT:
            raise NoRangesError(
                f"{self.url}: the server sends whole files only, and this one has {self.remote.nbytes / 1e6:.0f} MB,"
                " which cannot be resumed; use a server that sends parts (nginx, caddy, rclone serve http), or let"
                " EMCATALOG_MIRRORS lead to a copy in a folder or a bucket"
            )
        return False

    def _whole(self) -> Iterator[bytes]:
        if self.remote.nbytes:
            content = open_object(self.url, self.options, self.settings).whole()
            if len(content) != self.remote.nbytes:
                self._refuse(f"there are to be {self.remote.nbytes} bytes, and {len(content)} came")
            yield content

    def _blocks(self, start: int) -> Iterator[bytes]:
        """The rest, in order. Without threads, so that Ctrl-C ends it at once."""
        reader = open_object(self.url, self.options, self.settings)
        asked: deque[PendingBytes] = deque()
        try:
            for begin in range(start, self.remote.nbytes, BLOCK_BYTES):
                asked.append(reader.begin(begin, min(begin + BLOCK_BYTES, self.remote.nbytes)))
                if len(asked) == IN_FLIGHT:
                    yield self._arrived(asked.popleft())
            while asked:
                yield self._arrived(asked.popleft())
        finally:
            for pending in asked:
                pending.answer.cancel()

    def _arrived(self, pending: PendingBytes) -> bytes:
        try:
            return pending.result()[0]
        except SourceCorruptError:
            self._refuse_if_replaced()  # by a shorter one, in which the range does not lie
            raise

    def _verify(self, md5: str) -> None:
        for wanted, who in ((self.remote.md5, "the store"), (self.expected_md5, "the catalog")):
            if wanted not in (None, md5):
                self._refuse(f"{who} says that its MD5 is {wanted}, and what came has {md5}")

    def _refuse(self, problem: str) -> NoReturn:
        self._refuse_if_replaced()
        self._drop()
        raise SourceCorruptError(
            f"{self.url}: {problem}; nothing was kept. Ask again, and if it stays so tell the data's owner"
        )

    def _refuse_if_replaced(self) -> None:
        now = describe_object(self.url, self.options, self.settings)
        before = self.remote
        if (now.nbytes, now.md5, now.version) != (before.nbytes, before.md5, before.version):
            self._drop()
            raise SourceChangedError(f"{self.url} was replaced while it was downloaded; nothing was kept, so ask again")

    def _write_record(self, md5: str, file: BinaryIO) -> None:
        remote, mtime_ns = self.remote, os.fstat(file.fileno()).st_mtime_ns
        record = _Record(url=self.url, nbytes=remote.nbytes, md5=md5, version=remote.version, mtime_ns=mtime_ns)
        _write(_beside(self.target, "json"), record)

    def _drop(self) -> None:
        for path in (self._partial, self._pins):
            path.unlink(missing_ok=True)

    def _report(self, nbytes: int) -> None:
        if self.progress:
            self.progress(nbytes)


def _kept_offline(url: str, target: Path) -> RemoteObject:
    found = find_download(url, target)
    if found is None:
        raise NotCachedError(f"{url}: offline, and {target} was not downloaded; ask again without offline")
    return found


def _beside(target: Path, what: str) -> Path:
    return target.with_name(f".{target.name}.{what}")


def _read_record(path: Path) -> _Record | None:
    """A record; None where there is none, or one that is none."""
    with suppress(OSError, ValidationError):
        return _Record.model_validate_json(path.read_bytes())
    return None


def _write(path: Path, record: _Record) -> None:
    """Write a record whole; who writes is alone."""
    new = path.with_name(f"{path.name}~")
    new.write_text(record.model_dump_json() + "\n", "utf-8")
    new.replace(path)


@contextmanager
def _alone_at(path: Path) -> Iterator[BinaryIO]:
    """A file, open at its end, that nobody else has as long as the block lasts; the system lets go of a dead one's."""
    while True:
        with path.open("a+b") as file:
            _wait_for(file)
            if _is_at(path, file):
                yield file
                return


def _is_at(path: Path, file: BinaryIO) -> bool:
    """Whether an open file still has its name: whoever had it before may have renamed or removed it."""
    with suppress(FileNotFoundError):
        return path.stat().st_ino == os.fstat(file.fileno()).st_ino
    return False


def _wait_for(file: BinaryIO) -> None:
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if getattr(current_thread(), "interrupted", False):  # as in stores.py
            raise KeyboardInterrupt
        time.sleep(_POLL_S)


@contextmanager
def _cache_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except EmcatalogError:
        raise
    except OSError as error:
        raise CacheError(
            f"{target} cannot be written ({error.strerror or error}); make room, or choose another place"
            " (EMCATALOG_CACHE or cache_dir=). What arrived is kept"
        ) from error


def _digest(file: BinaryIO) -> Any:
    """The MD5 of what is in a file, to be updated with what follows."""
    digest = hashlib.md5(usedforsecurity=False)
    file.seek(0)
    while piece := file.read(_PIECE_BYTES):
        digest.update(piece)
    return digest
