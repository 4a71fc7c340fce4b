"""From an epoch and an index to the arrays of one sample: what is drawn is a function of (seed, epoch, index) alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emcatalog.errors import ArgumentError
from emcatalog.geometry import Box, Zyx, zyx
from emcatalog.patches.intensity import RawTransform
from emcatalog.patches.orientation import Orientation, stored_halo
from emcatalog.patches.region import Region, RegionReading
from emcatalog.patches.sampler import Place, Sampler, SamplingError, Uniform
from emcatalog.patches.target import Target
from emcatalog.patches.targets import inside_halo


@dataclass(frozen=True, slots=True)
class Sample:
    """One patch, ready for a network."""

    raw: NDArray[Any]
    """(c, z, y, x), to be widened to float32."""
    target: NDArray[Any] | None
    """(c, z, y, x), not widened yet, or None where nothing is learned."""
    info: dict[str, Any]
    """Where it comes from."""
    seed: int
    """For what else is random about it."""


@dataclass(frozen=True)
class Recipe:
    """How samples are drawn and made."""

    regions: Sequence[Region]
    """Where from."""
    sampler: Sampler
    """Which places."""
    patch_shape: Zyx
    """Voxels, (z, y, x)."""
    target: Target
    """What is learned."""
    raw_transform: RawTransform
    """What is done to raw."""
    turns: Sequence[Orientation]
    """Ways to turn a patch, each as likely as any other."""
    min_foreground: float = 0.0
    """Least share of voxels of a patch that are labelled: of a class where there are classes, painted where points."""
    tries: int = 100
    """Places that are looked at for that before giving up."""
    seed: int = 0
    """Of everything random."""

    @property
    def halo(self) -> Zyx:
        """Voxels of labels around a patch, as they are stored."""
        return stored_halo(self.target.halo, self.turns)

    @property
    def reads_to_draw(self) -> bool:
        """Whether a map or labels are looked at before it is known where a sample lies."""
        return bool(self.min_foreground) or not isinstance(self.sampler, Uniform)

    def begin(self, epoch: int, index: int) -> PendingSample:
        """Draw a sample, and begin to read it.

        Raises:
            SamplingError: no patch has as much foreground as was asked for.
            NotCachedError, SourceError, CacheError: what is missing cannot be fetched.
        """
        rng = np.random.default_rng([self.seed, epoch, index])
        place = self._place_with_foreground(rng, index) if self.min_foreground else self.sampler.draw(rng)
        turn = self.turns[int(rng.integers(len(self.turns)))]
        region, patch = self.regions[place.region], self._box(place)
        info = {**region.info(patch), "epoch": epoch, "index": index, "turned": str(turn)}
        reading = region.begin_reading(patch, self.halo)
        return PendingSample(self, turn, reading, info, int(rng.integers(2**63)))

    def _box(self, place: Place) -> Box:
        return Box(place.first, zyx([a + side for a, side in zip(place.first, self.patch_shape, strict=True)]))

    def _place_with_foreground(self, rng: np.random.Generator, index: int) -> Place:
        best = 0.0
        for _ in range(self.tries):
            place = self.sampler.draw(rng)
            region = self.regions[place.region]
            labels = region.begin_labels(self._box(place), (0, 0, 0)).result()
            is_foreground = labels != (self.target.unlabelled or 0) if region.classes is None else labels > 0
            share = np.count_nonzero(is_foreground) / labels.size
            if share >= self.min_foreground:
                return place
            best = max(best, share)
        raise SamplingError(
            f"no patch with at least {self.min_foreground:.4g} of its voxels labelled was found in {self.tries} tries"
            f" for sample {index}; the best had {best:.4g}: lower min_foreground, draw within= a mask, or allow more"
            " tries="
        )


@dataclass(frozen=True, slots=True)
class PendingSample:
    """A sample that was drawn and is on its way into memory."""

    recipe: Recipe
    turn: Orientation
    reading: RegionReading
    info: dict[str, Any]
    seed: int

    def result(self) -> Sample:
        """The sample.

        Raises:
            ArgumentError: a function of the caller's gives something of another shape.
            NotCachedError, SourceError, CacheError: what is missing cannot be fetched.
        """
        recipe = self.recipe
        read = self.reading.result()
        raw, target = make(*read, self.turn, recipe.raw_transform, recipe.target, recipe.patch_shape)
        return Sample(raw, target, self.info, self.seed)


def make(
    raw: NDArray[Any],
    labels: NDArray[Any] | None,
    turn: Orientation,
    raw_transform: RawTransform,
    target: Target,
    patch_shape: Zyx,
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """What a network gets and learns, from a patch as it was read.

    Args:
        raw: (c, z, y, x).
        labels: (z, y, x) with a halo, or None.
        turn: how to turn both.
        raw_transform: what is done to raw.
        target: what is made of labels.
        patch_shape: voxels, (z, y, x).

    Returns:
        Raw (c, z, y, x), and the target (c, z, y, x), or None without labels; not widened yet.

    Raises:
        ArgumentError: a function of the caller's gives something of another shape.
    """
    turned = turn.apply(raw)
    made = np.asarray(raw_transform(turned))
    if made.shape != turned.shape or made.dtype.kind not in "biuf":
        raise ArgumentError(
            f"raw_transform made an array of shape {made.shape} of one of {turned.shape}, of dtype {made.dtype}: it is"
            " to give as many numbers as it gets"
        )
    if labels is None:
        return made, None
    turned = turn.apply(labels)
    # However a patch may be turned its halo was read: this way it may need less.
    surplus = [(s - p) // 2 - h for s, p, h in zip(turned.shape, patch_shape, target.halo, strict=True)]
    return made, target.of(turned[inside_halo(turned.shape, zyx(surplus))], target.halo)
