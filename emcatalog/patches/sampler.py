"""Where patches are drawn from. Nothing fine is read here: a sampler knows boxes, and at most a coarse map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from emcatalog.errors import EmcatalogError
from emcatalog.geometry import Box, Zyx, zyx


class SamplingError(EmcatalogError, ValueError):
    """No patch can be drawn that is as it was asked for."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one patch begins."""

    region: int
    """Number of the region."""
    first: Zyx
    """First voxel of the patch, (z, y, x) of the region's grid."""


class Sampler(Protocol):
    """Draws places; everything random comes from the generator, so that a draw can be repeated."""

    def draw(self, rng: np.random.Generator) -> Place:
        """A place for one patch.

        Raises:
            SamplingError: there is none.
        """


@dataclass(frozen=True)
class Uniform:
    """Every place of a region is as likely as any other; regions are as likely as they are large."""

    firsts: Sequence[Box]
    """For each region, where a patch may begin."""
    voxels: Sequence[int]
    """For each region, how large its box is."""

    def draw(self, rng: np.random.Generator) -> Place:
        """A place for one patch."""
        region = pick(np.cumsum(self.voxels), rng)
        firsts = self.firsts[region]
        return Place(region, zyx(rng.integers(firsts.begin, firsts.end).tolist()))


def pick(cumulative: np.ndarray, rng: np.random.Generator) -> int:
    """An index with a probability in proportion to its weight, given the running sum of weights."""
    return int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
