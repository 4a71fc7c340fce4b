"""Raw voxels as a network wants them: float32, each channel of a patch scaled on its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from emcatalog.buffers import BUFFERS
from emcatalog.errors import ArgumentError, listing, suggest

Patch = NDArray[Any]
"""(c, z, y, x)."""
Float = NDArray[np.float32]
RawTransform = Callable[[Patch], Any]

_SMALLEST: Final = 1e-7
"""A patch of one value is 0 everywhere, and not a division by zero."""
PERCENTILES: Final = (1.0, 99.0)


def as_float(raw: Patch) -> Float:
    """The same values."""
    values = BUFFERS.empty(raw.shape, np.float32)
    np.copyto(values, raw, casting="unsafe")
    return values


def as_stored(raw: Patch) -> Patch:
    """The same array: it becomes float32 where a batch is written, and not twice."""
    return raw


def standardize(raw: Patch) -> Float:
    """Mean 0 and standard deviation 1."""
    values = as_float(raw)
    for channel in values:
        # Summed as float32 the mean of equal values may miss them, and what is left be scaled to 1.
        channel -= float(channel.mean(dtype=np.float64))
        channel /= max(float(np.sqrt(np.square(channel).mean())), _SMALLEST)
    return values


def normalize(raw: Patch) -> Float:
    """From 0, the smallest value, to 1, the largest."""
    return _to_unit(raw, 0.0, 100.0)


def normalize_percentile(raw: Patch) -> Float:
    """From 0, the 1st percentile, to 1, the 99th; what lies beyond is outside of [0, 1]."""
    return _to_unit(raw, *PERCENTILES)


def _to_unit(raw: Patch, low: float, high: float) -> Float:
    values = as_float(raw)
    for channel in values:
        first, last = _percentiles(channel, low, high)
        channel -= first
        channel /= max(last - first, _SMALLEST)
    return values


def _percentiles(channel: Float, low: float, high: float) -> tuple[float, float]:
    if (low, high) == (0.0, 100.0):
        return float(channel.min()), float(channel.max())
    first, last = np.percentile(channel, (low, high))
    return float(first), float(last)


RAW_TRANSFORMS: Final[dict[str, RawTransform]] = {
    "standardize": standardize,
    "normalize": normalize,
    "normalize_percentile": normalize_percentile,
}
"""By name, as torch_em calls them."""


def norm_raw_transform(asked: object) -> RawTransform:
    """What is done to raw: a name, a function of (c, z, y, x), or None for the same values as float32.

    Raises:
        ArgumentError: anything else.
    """
    if asked is None:
        return as_stored
    if isinstance(asked, str) and asked in RAW_TRANSFORMS:
        return RAW_TRANSFORMS[asked]
    if callable(asked):
        return asked
    raise ArgumentError(
        f"raw_transform={asked!r}: there are {listing(map(repr, RAW_TRANSFORMS))}, a function of an array (c, z, y, x),"
        f" and None.{suggest(str(asked), RAW_TRANSFORMS)}"
    )
