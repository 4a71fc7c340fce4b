"""Which target is made of labels, with what around it: the loose arguments of a dataset, checked once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from emcatalog.errors import ArgumentError, listing, suggest
from emcatalog.geometry import AXES, Zyx, zyx
from emcatalog.labels import renumber
from emcatalog.patches.targets import NO_HALO, affinities, boundaries, inside_halo
from emcatalog.points import unpack

INSTANCE_KINDS: Final = ("instances", "semantic", "mask")
CLASS_KINDS: Final = ("semantic", "mask", "instances")
"""Kinds of channels that labels are taken from, best first."""

TARGETS: Final = {
    "instances": INSTANCE_KINDS,
    "binary": CLASS_KINDS,
    "semantic": CLASS_KINDS,
    "boundaries": INSTANCE_KINDS,
    "affinities": INSTANCE_KINDS,
    "points": (),
}
"""Names of targets, and the labels that they are made of: none where points of a table are painted."""
_WITH_MASK: Final = ("boundaries", "affinities")
_OF_IDS: Final = ("instances", "semantic")

Make = Callable[[NDArray[Any]], Any]


@dataclass(frozen=True, slots=True)
class Target:
    """What a network learns."""

    name: str | None
    """Of ``TARGETS``; None for a function of the caller's, or for nothing."""
    make: Make | None = None
    """The caller's function: labels (z, y, x) int64 to an array (z, y, x) or (c, z, y, x)."""
    offsets: tuple[Zyx, ...] = ()
    """Of affinities, (z, y, x)."""
    mask: bool = False
    """Whether the channels are followed by as many that say where they are valid."""
    halo: Zyx = NO_HALO
    """Voxels of labels that are read around a patch."""
    unlabelled: int | None = 0
    """The id of voxels of which nothing is known."""
    consecutive: bool = False
    """Whether instances of a patch are numbered 1, 2, 3, ..."""
    dtype: str | None = None
    """NumPy's name; None for int64 ids and float32 of everything else."""
    kinds: tuple[str, ...] = ()
    """Of points: a channel each."""

    @property
    def exists(self) -> bool:
        """Whether anything is learned."""
        return self.name is not None or self.make is not None

    @property
    def learns(self) -> tuple[str, ...]:
        """Kinds of channels that it can be made of, best first; empty where none is read."""
        if self.name is None:
            return () if self.make is None else INSTANCE_KINDS
        return TARGETS[self.name]

    @property
    def wide(self) -> np.dtype[Any] | None:
        """What a result is widened to, or None where it stays as it is."""
        if self.dtype is None:
            return None if self.name in (*_OF_IDS, None) else np.dtype(np.float32)
        return np.dtype(self.dtype)

    @property
    def num_channels(self) -> int | None:
        """Channels of the result; None where only the caller's function knows."""
        if self.name is None:
            return None
        return (len(self.offsets) or len(self.kinds) or 1) * (2 if self.mask else 1)

    def with_kinds(self, kinds: tuple[str, ...]) -> Target:
        """The same target of these kinds of points.

        Raises:
            ArgumentError: there is none.
        """
        if not kinds:
            raise ArgumentError(
                "no point lies in the box, and a column of text says only there which kinds there are: take a larger"
                " bbox, a column of categories by=, or None"
            )
        return replace(self, kinds=kinds)

    def of(self, labels: NDArray[Any], halo: Zyx) -> NDArray[Any]:
        """The target of a patch.

        Args:
            labels: (z, y, x) unsigned or signed integers, of the patch and its halo; a bit for each kind of point.
            halo: voxels around the patch, (z, y, x).

        Returns:
            (c, z, y, x): ids as int64, what is 0 or 1 as bool, to be widened to ``wide``; or what the caller's function
            gives.

        Raises:
            ArgumentError: the caller's function gives something of another shape.
        """
        if self.name in _WITH_MASK:
            return self._with_mask(labels, halo)
        patch = labels[inside_halo(labels.shape, halo)]
        if self.name is None:
            return self._made(patch)
        if self.name == "points":
            return unpack(patch, len(self.kinds))
        if self.name == "binary":
            return np.asarray(patch != 0)[None]
        ids = renumber(patch)[0] if self.consecutive else patch
        if ids.dtype == np.uint64:
            ids = ids.view(np.int64)  # an id above 2^63 becomes a negative number of its own; nothing is copied
        return np.ascontiguousarray(ids, np.int64)[None]

    def _with_mask(self, labels: NDArray[Any], halo: Zyx) -> NDArray[Any]:
        if self.name == "affinities":
            both = affinities(labels, self.offsets, halo, self.unlabelled)
        else:
            both = boundaries(labels, halo, self.unlabelled)
        return both.reshape(-1, *both.shape[2:]) if self.mask else both[0]

    def _made(self, patch: NDArray[Any]) -> NDArray[Any]:
        assert self.make is not None
        made = np.asarray(self.make(np.ascontiguousarray(patch, np.int64)))
        if made.shape[-3:] != patch.shape or made.ndim not in (3, 4):
            raise ArgumentError(
                f"the target function gave an array of shape {made.shape} for labels of {patch.shape}; it is to give"
                " (z, y, x) or (c, z, y, x)"
            )
        return made[None] if made.ndim == 3 else made


def norm_target(
    target: object,
    patch_shape: Zyx,
    *,
    offsets: object = None,
    mask: bool = False,
    halo: bool = False,
    unlabelled: int | None = 0,
    consecutive: bool = False,
    dtype: object = None,
) -> Target:
    """Check the arguments of a target.

    Raises:
        ArgumentError: a target that there is not, or arguments that do not fit it or the patch.
    """
    name = target if isinstance(target, str) else None
    if not (target is None or callable(target) or name in TARGETS):
        raise ArgumentError(
            f"target={target!r}: there are {listing(map(repr, TARGETS))}, a function of labels (z, y, x), and None."
            f"{suggest(str(target), TARGETS)}"
        )
    _check_fits(name, offsets, mask=mask, halo=halo, consecutive=consecutive)
    if name == "points" and unlabelled != 0:
        raise ArgumentError("unlabelled= is an id of labels, and target='points' has none: leave it away")
    steps = _norm_offsets(offsets, patch_shape, halo=halo) if name == "affinities" else ()
    around = _halo(name, steps, patch_shape) if halo else NO_HALO
    make = target if callable(target) else None
    return Target(name, make, steps, mask, around, _norm_unlabelled(unlabelled), consecutive, _norm_dtype(dtype, name))


def _check_fits(name: str | None, offsets: object, *, mask: bool, halo: bool, consecutive: bool) -> None:
    if offsets is not None and name != "affinities":
        raise ArgumentError("offsets= belong to target='affinities'")
    for argument, given in (("mask", mask), ("halo", halo)):
        if given and name not in _WITH_MASK:
            raise ArgumentError(f"{argument}=True belongs to target='affinities' and target='boundaries'")
    if consecutive and name != "instances":
        raise ArgumentError("consecutive=True belongs to target='instances'")


def _norm_offsets(offsets: object, patch_shape: Zyx, *, halo: bool) -> tuple[Zyx, ...]:
    if not isinstance(offsets, (Sequence, np.ndarray)) or isinstance(offsets, str) or not len(offsets):
        raise ArgumentError("target='affinities' needs offsets=, as in [[-1, 0, 0], [0, -1, 0], [0, 0, -1]] (z, y, x)")
    steps = tuple(_norm_offset(offset, patch_shape) for offset in offsets)
    for step in steps:
        for axis, length, side in zip(AXES, step, patch_shape, strict=True):
            if abs(length) >= side and not halo:
                raise ArgumentError(
                    f"the offset {list(step)} reaches out of a patch of {side} voxels along {axis}, so that it could"
                    " never be valid: take a larger patch_shape, a smaller offset, or halo=True"
                )
    return steps


def _norm_offset(offset: Any, patch_shape: Zyx) -> Zyx:
    steps = list(offset) if isinstance(offset, (Sequence, np.ndarray)) and not isinstance(offset, str) else []
    if len(steps) == 2 and patch_shape[0] == 1:
        steps = [0, *steps]
    if len(steps) != 3 or not all(isinstance(step, Integral) for step in steps) or not any(steps):
        raise ArgumentError(f"{offset!r} is not an offset: give three whole numbers (z, y, x), not all 0")
    return zyx([int(step) for step in steps])


def _halo(name: str | None, offsets: Sequence[Zyx], patch_shape: Zyx) -> Zyx:
    """What a target needs around a patch so that all of it is valid, however the patch is flipped."""
    if name == "affinities":
        return zyx([max(abs(step[axis]) for step in offsets) for axis in range(3)])
    return zyx([1 if side > 1 else 0 for side in patch_shape])


def _norm_unlabelled(unlabelled: object) -> int | None:
    if unlabelled is None:
        return None
    if not isinstance(unlabelled, Integral) or isinstance(unlabelled, bool):
        raise ArgumentError(
            f"unlabelled={unlabelled!r}: give the id of voxels of which nothing is known, or None where 0 is background"
        )
    return int(unlabelled)


def _norm_dtype(dtype: object, name: str | None) -> str | None:
    if dtype is None:
        return None
    advice = f"target_dtype={dtype!r} is not a dtype of numbers; give 'uint8', 'float32' or the like"
    try:
        # torch.uint8 is not a dtype of NumPy, and prints as one.
        found = np.dtype(dtype if isinstance(dtype, type) else str(dtype).removeprefix("torch."))
    except TypeError as error:
        raise ArgumentError(advice) from error
    if found.kind not in "biuf":
        raise ArgumentError(advice)
    if name in _OF_IDS and found != np.int64:
        # Two ids could become the same number, without a word.
        raise ArgumentError(f"target={name!r} are ids, which {found} may not hold; leave target_dtype away")
    return found.name
