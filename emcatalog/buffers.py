"""Arrays whose memory is used again: a training loop asks for the same few sizes for ever.

The first touch of fresh memory costs more than what is written into it.
"""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

SPARE_BYTES: Final = 32 << 20
"""That nobody uses; what is beyond goes back to the system when something new is needed."""


class Buffers:
    """Memory that comes back when nothing refers to an array of it any more. Threads may share it."""

    def __init__(self) -> None:
        """Empty."""
        self._spare: dict[int, deque[NDArray[np.uint8]]] = {}

    def empty(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """An array that holds whatever was there."""
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        spare = self._spare.setdefault(nbytes, deque())
        try:
            memory = spare.pop()
        except IndexError:
            self._trim(SPARE_BYTES - nbytes)
            memory = np.empty(nbytes, np.uint8)
        # Views of views refer to the array that owns the memory, and not to each other; one over a buffer is such an
        # owner to NumPy, so that it lives as long as the last of them.
        owner = np.frombuffer(memory.data, dtype)
        # Nothing but an append: this may run in any thread, in the middle of anything.
        weakref.finalize(owner, spare.append, memory).atexit = False
        return owner.reshape(shape)

    def _trim(self, most: int) -> None:
        """Give back spare arrays, of sizes that were asked for first, until there are no more bytes than this."""
        sizes = list(self._spare.items())
        total = sum(nbytes * len(spare) for nbytes, spare in sizes)
        for nbytes, spare in sizes:
            with suppress(IndexError):  # another thread was faster
                while total > most:
                    spare.popleft()
                    total -= nbytes


BUFFERS: Final = Buffers()
"""Of this process."""
