"""What looking at a source gave: what the catalog declares, held against what the source says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from emcatalog.errors import SourceError
from emcatalog.lock import LockedDocument


@dataclass(frozen=True, slots=True)
class Difference:
    """One declaration that is not what the source says."""

    key: str
    """As in the catalog: ``shape``, ``dtype``, ``scales``, ..."""
    declared: str
    """What the catalog says."""
    found: str
    """What the source says."""


@dataclass(frozen=True, slots=True)
class Audit:
    """One volume, table or folder of files, looked at."""

    url: str
    """As declared."""
    differences: tuple[Difference, ...] = ()
    """Declarations that are wrong."""
    undeclared: Mapping[str, str] | None = None
    """What the source says and the catalog does not."""
    changed: tuple[str, ...] = ()
    """Metadata documents that are not what the lock file says."""
    documents: Mapping[str, LockedDocument] | None = None
    """The metadata documents as they are now."""
    failure: SourceError | None = None
    """Why nothing could be looked at."""
    expected_failure: bool = False
    """Whether the catalog says itself that its address is not confirmed."""
    unseen: str | None = None
    """Why nothing was looked at, where that is nobody's fault."""

    @property
    def is_good(self) -> bool:
        """Whether nothing has to be done."""
        return not self.differences and not self.changed and (self.failure is None or self.expected_failure)


def differences(declared: Mapping[str, str], found: Mapping[str, str]) -> tuple[Difference, ...]:
    """Declarations that are not what the source says, by key."""
    return tuple(Difference(key, text, found[key]) for key, text in declared.items() if text != found[key])


def undeclared(declared: Mapping[str, str], found: Mapping[str, str]) -> dict[str, str]:
    """What the source says and the catalog does not."""
    return {key: text for key, text in found.items() if key not in declared and text != NONE}


def size(there: int, declared: int | None) -> str:
    """A number as text: as it was declared, if it is the same in as many digits as that has before its zeros."""
    if declared is None:
        return str(there)
    zeros = len(str(declared)) - len(str(declared).rstrip("0"))
    return str(declared if zeros > 2 and round(there, -zeros) == declared else there)


NONE: Final = "none"
"""What a source says of something that it does not have."""
