"""What can go wrong, as few classes; each is also the standard type that a caller would catch.

A message says what was asked, what there is, and what to do next.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TypeVar


class EmcatalogError(Exception):
    """Base of every error that emcatalog raises on purpose."""


class ArgumentError(EmcatalogError, ValueError):
    """An argument (a box, a unit, a channel, a resolution) that cannot be used."""


class UnknownArgumentError(ArgumentError, TypeError):
    """An argument that the entry does not have: most often a typing mistake."""


class NoVariantError(ArgumentError):
    """A combination of an entry's parameters that does not exist."""


class OutOfBoundsError(ArgumentError, IndexError):
    """A box that lies outside the volume, or partly outside."""


class AlignmentError(ArgumentError):
    """Channels that do not stand on one voxel grid."""


class CatalogError(EmcatalogError, ValueError):
    """A catalog file that is wrong, or that is not safe to open."""


class SettingsError(EmcatalogError, ValueError):
    """An environment variable or the user's config file that cannot be used."""


class MissingExtraError(EmcatalogError, ModuleNotFoundError):
    """A stored form that an optional part of the installation reads."""


class TooLargeError(EmcatalogError, MemoryError):
    """A result that would not fit in the memory at hand."""


class SourceError(EmcatalogError, OSError):
    """The remote data could not be read."""


class SourceMissingError(SourceError, FileNotFoundError):
    """There is nothing at the address."""


class SourceDeniedError(SourceError, PermissionError):
    """The server refuses to give the data."""


class SourceUnavailableError(SourceError, ConnectionError):
    """The server cannot be reached, or keeps failing."""


class NoRangesError(SourceUnavailableError):
    """The server sends whole files only."""


class SlowSourceWarning(UserWarning):
    """Reading works, but takes much longer than it need."""


class SourceCorruptError(SourceError):
    """The server answered with something that is not what it should be."""


class SourceChangedError(SourceError):
    """The source is no longer what the mirror was filled from."""


class CacheError(EmcatalogError, OSError):
    """The cache folder cannot be used."""


class CacheCorruptError(CacheError):
    """The cache holds bytes that fail their checksum."""


class NotCachedError(CacheError):
    """Offline, and a part of the box was never fetched."""


_Kind = TypeVar("_Kind", bound=EmcatalogError)

Failures = tuple[tuple[str, type[_Kind], str], ...]
"""What a message of a library below us holds (a pattern), what it means, what to do. The last pattern matches all."""


def explain(error: Exception, what: str, failures: Failures[_Kind]) -> _Kind:
    """The error of ours to raise for one of a library below us: of the first pattern that its message matches."""
    text = str(error)
    kind, advice = next((kind, advice) for pattern, kind, advice in failures if re.search(pattern, text))
    return kind(f"{what}: {advice}. ({text})")


def suggest(asked: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for a near miss, or the empty string."""
    near = get_close_matches(asked, list(known), n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


def listing(names: Iterable[object]) -> str:
    """Return names as they stand in a message: ``"a, b, c"``, or ``"none"``."""
    return ", ".join(str(name) for name in names) or "none"


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Imports of an optional part of the installation.

    Raises:
        MissingExtraError: one of its libraries is not there; the message says how to install it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"this needs {error.name}: pip install 'emcatalog[{name}]'") from error
