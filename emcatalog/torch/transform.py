"""Callables of other libraries on (raw, target): what is random in them follows the sample, and not the worker."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final

import numpy as np
import torch

from emcatalog.errors import ArgumentError, listing

Transform = Callable[..., Any]
"""Raw and target of one sample, each (c, z, y, x) or (c, y, x), to the same two; raw alone where there is no target."""

_GLOBAL: Final = Lock()
"""Python, NumPy and torch each have one random state for all threads."""


def on_dicts(transform: Callable[[Any], Any], raw: str = "image", target: str = "label") -> Transform:
    """A transform of dictionaries (MONAI's ``...d``, torchio's) as one of (raw, target).

    Args:
        transform: gets ``{raw: tensor, target: tensor}``, and gives the same keys.
        raw: key of raw.
        target: key of target.
    """
    return _OnDicts(transform, raw, target)


class _OnDicts:
    """A class and not a closure: it is sent to processes."""

    def __init__(self, transform: Callable[[Any], Any], raw: str, target: str) -> None:
        self.inner = transform
        self._keys = (raw, target)

    def __call__(self, *tensors: torch.Tensor) -> tuple[Any, ...]:
        keys = self._keys[: len(tensors)]
        made: Mapping[str, Any] = self.inner(dict(zip(keys, tensors, strict=True)))
        if not isinstance(made, Mapping) or not made.keys() >= set(keys):
            what = listing(made) if isinstance(made, Mapping) else type(made).__name__
            raise ArgumentError(
                f"transform got a dictionary of {listing(keys)}, and gave {what}: it is to give the same"
            )
        return tuple(made[key] for key in keys)


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A sample as it was read; its transform is applied where the caller waits for it.

    What is random in a transform comes from states that all threads of a process share: a thread that reads ahead would
    set them in the middle of the caller's own draws, and the caller would draw from them in the middle of a transform.
    """

    transform: Transform
    tensors: Sequence[torch.Tensor]
    rest: tuple[Any, ...]
    """What follows the tensors in an item."""
    seed: int

    def item(self) -> tuple[Any, ...]:
        """The sample, transformed.

        Raises:
            ArgumentError: the transform gives something else than it was given.
        """
        return (*apply(self.transform, self.tensors, self.seed), *self.rest)


def finish(sample: Unfinished | tuple[Any, ...]) -> tuple[Any, ...]:
    """A sample with its transform applied, if it has one."""
    return sample.item() if isinstance(sample, Unfinished) else sample


def apply(transform: Transform, tensors: Sequence[torch.Tensor], seed: int) -> list[torch.Tensor]:
    """Transform one sample; the same seed gives the same result, in whatever thread or process.

    Raises:
        ArgumentError: the transform gives something else than it was given.
    """
    with _seeded(seed):
        own = deepcopy(transform) if _states(transform) else transform
        for part in _states(own):
            part.set_random_state(seed=seed % 2**32)
        made = own(*tensors)
    made = (made,) if isinstance(made, torch.Tensor | np.ndarray) else made
    if not isinstance(made, (tuple, list)) or len(made) != len(tensors):
        raise ArgumentError(f"transform got {len(tensors)} tensors, (raw, target), and gave {type(made).__name__}")
    return [_plain(part) for part in made]


def _states(transform: Any) -> list[Any]:
    """Where MONAI keeps random states of its own (``monai.transforms.Randomizable``)."""
    return [part for part in (transform, getattr(transform, "inner", None)) if hasattr(part, "set_random_state")]


def _plain(part: Any) -> torch.Tensor:
    """A tensor without what a library adds to it: MONAI's have a history that differs from sample to sample."""
    try:
        # A flipped array of NumPy's runs backwards, which no tensor does.
        tensor = torch.as_tensor(np.ascontiguousarray(part) if isinstance(part, np.ndarray) else part)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentError(f"transform is to give tensors, and gave {type(part).__name__}: {error}") from error
    return tensor.detach().as_subclass(torch.Tensor)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The global random states, set from a seed, and put back."""
    with _GLOBAL:
        kept = random.getstate(), np.random.get_state(), torch.get_rng_state()
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPU's too, on which a model trains
        try:
            yield
        finally:
            random.setstate(kept[0])
            np.random.set_state(kept[1])
            torch.set_rng_state(kept[2])
