"""Instance ids as consecutive numbers, in memory that depends on how many there are and not on how large they are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def renumber(labels: NDArray[Any]) -> tuple[NDArray[np.uint32], NDArray[Any]]:
    """Number instances 1, 2, 3, ... in the order in which they are met; 0 stays 0.

    Args:
        labels: ids, unsigned integers, of any shape.

    Returns:
        The numbers, ``uint32`` of the same shape; and the ids by number, so that ``ids[numbers]`` is ``labels``.
    """
    import fastremap

    # Native, and wide enough: of a full uint8 or uint16 fastremap makes numbers that wrap.
    wide = np.ascontiguousarray(labels, np.promote_types(labels.dtype.newbyteorder("="), np.uint32))
    numbers, found = fastremap.renumber(wide, start=1, preserve_zero=True, in_place=False)
    ids = np.zeros(len({*found, 0}), labels.dtype)
    ids[np.fromiter(found.values(), np.intp)] = np.fromiter(found, labels.dtype)
    return numbers.astype(np.uint32, copy=False), ids
