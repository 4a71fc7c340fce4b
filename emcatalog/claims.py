"""Units on their way in this process: threads that lack the same one ask the source for it once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Final

from emcatalog.geometry import Index

Key = tuple[str, Index]
"""Path of a mirror, and the first voxel of a unit in it."""


@dataclass(slots=True)
class Claims:
    """Who fetches what. Nobody waits while holding a claim, so that nobody waits for ever."""

    _lock: Lock = field(default_factory=Lock)
    _taken: dict[Key, Event] = field(default_factory=dict)

    @contextmanager
    def take(self, wanted: Iterable[Key]) -> Iterator[tuple[Set[Key], Set[Event]]]:
        """Claim what nobody fetches yet, as long as the block lasts.

        Whoever claims must look again whether a unit is missing: it may have arrived since it was looked for.

        Args:
            wanted: what is missing.

        Yields:
            What was claimed, and for the rest what to wait for, after the block.
        """
        done, mine, others = Event(), set[Key](), set[Event]()
        with self._lock:
            for key in wanted:
                if key in self._taken:
                    others.add(self._taken[key])
                else:
                    mine.add(key)
                    self._taken[key] = done
        try:
            yield mine, others
        finally:
            with self._lock:
                for key in mine:
                    del self._taken[key]
            done.set()


CLAIMS: Final = Claims()
"""Of this process: two open cutouts of one volume fill one mirror."""
