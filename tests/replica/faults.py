"""Ways in which a server can be made to misbehave, chosen by the path that is asked for."""

from __future__ import annotations

import dataclasses
import fnmatch
import threading
from typing import Literal

Kind = Literal["fail", "truncate", "garbage", "flip", "drop", "hang"]

# A fixed permutation without fixed points: no magic number and no checksum survives it, and it is fast.
_GARBAGE = bytes(value ^ 0xA5 for value in range(256))


@dataclasses.dataclass(slots=True)
class Fault:
    """One misbehaviour, with how often it still happens."""

    kind: Kind
    path_glob: str
    times: int | None = None
    """How many more answers it spoils; None for all of them."""
    skip: int = 0
    """How many matching requests are still answered well before it begins."""
    status: int = 500
    seconds: float = 0.0

    def strikes(self, path: str) -> bool:
        """Whether this fault hits a request for `path` now; counts down when it matches."""
        if self.times == 0 or not fnmatch.fnmatchcase(path, self.path_glob):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


class Faults:
    """The faults of one server; the latest one that matches wins."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Put `fault` before those that are there."""
        with self._lock:
            self._faults.insert(0, fault)

    def clear(self) -> None:
        """Forget them all."""
        with self._lock:
            self._faults.clear()

    def strike(self, path: str) -> Fault | None:
        """The fault that spoils the answer to `path`, or None."""
        if not self._faults:  # the common case, kept free of the lock: this runs once a request
            return None
        with self._lock:
            return next((fault for fault in self._faults if fault.strikes(path)), None)


def spoil(body: bytes, kind: Kind) -> bytes:
    """`body` with every byte changed (`garbage`) or the one in its middle (`flip`)."""
    if kind == "garbage":
        return body.translate(_GARBAGE)
    middle = len(body) // 2
    return body[:middle] + body[middle : middle + 1].translate(_GARBAGE) + body[middle + 1 :]
