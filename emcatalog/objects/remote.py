"""One object as its store describes it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RemoteObject:
    """An object as its store describes it."""

    name: str
    """Below the folder that was listed; of an object that was asked for by itself the last part of its address."""
    nbytes: int
    """Its size."""
    md5: str | None = None
    """Of its bytes, as 32 hexadecimal digits; None where the store does not say."""
    version: str | None = None
    """What becomes another with the content: a bucket's generation, an ETag, a time; None where nothing does."""

    def is_same(self, other: RemoteObject) -> bool:
        """Whether the bytes are the same; where nobody can say they are not."""
        if self.nbytes != other.nbytes:
            return False
        if self.md5 and other.md5:
            return self.md5 == other.md5
        return self.version is not None and self.version == other.version
