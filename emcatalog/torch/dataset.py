"""Patches of an entry at random places, as a map-style dataset."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import Any

import torch
from torch.utils.data import Dataset

from emcatalog.errors import ArgumentError, listing
from emcatalog.geometry import format_xyz
from emcatalog.patches.recipe import PendingSample, Recipe
from emcatalog.torch.item import ProcessBound, as_tensor, item_dtypes, widen
from emcatalog.torch.transform import Transform, Unfinished, finish

Item = tuple[Any, ...]


class SegmentationDataset(ProcessBound, Dataset[Item]):
    """Patches at random places: ``dataset[index]`` is ``(raw, target)``, a function of (seed, epoch, index) alone.

    ``raw`` is float32 (c, z, y, x), ``target`` (c, z, y, x); both are without z where a patch is one slice. Without a
    target an item is ``(raw,)``; with ``return_info`` a dictionary follows that says where the patch lies.

    Made by ``to_torch`` of an entry, or by ``emcatalog.torch.open_dataset``. Several threads may read it at once; in
    another process it opens its stores anew, and a fork is refused.
    """

    def __init__(
        self, recipe: Recipe, samples: int, transform: Transform | None = None, *, return_info: bool = False
    ) -> None:
        """Nothing is read yet.

        Args:
            recipe: how samples are drawn and made.
            samples: in an epoch.
            transform: of (raw, target), after everything else.
            return_info: whether an item ends with where it comes from.
        """
        super().__init__()
        self.recipe = recipe
        self.samples = samples
        self.transform = transform
        self.return_info = return_info
        # Shared with worker processes that outlive an epoch.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    @property
    def epoch(self) -> int:
        """Which epoch ``dataset[index]`` is of."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Go to another epoch, in this process and in those of a ``DataLoader`` over this dataset.

        Raises:
            ArgumentError: it is not a whole number from 0 on.
        """
        self._epoch.fill_(whole("epoch", epoch, least=0))

    @property
    def seeds(self) -> list[int]:
        """Of everything random about it."""
        return [self.recipe.seed]

    def state_dict(self) -> dict[str, int]:
        """What an epoch's samples depend on, besides their index."""
        return {"seed": self.recipe.seed, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on in the epoch of a state.

        Raises:
            ArgumentError: the state is of another seed, so that other patches would come.
        """
        check_seed(state, self.recipe.seed)
        self.set_epoch(state["epoch"])

    def __len__(self) -> int:
        """Samples of an epoch."""
        return self.samples

    def __getitem__(self, index: int) -> Item:
        """One sample of the epoch that was set.

        Raises:
            IndexError: there is no such sample.
            SamplingError: no patch is as it was asked for.
            SourceError, CacheError: what is missing cannot be fetched.
        """
        return widen(finish(self.begin(self.epoch, check_index(index, self.samples))()), self.dtypes)

    @property
    def has_transform(self) -> bool:
        """Whether samples are to be finished where the caller waits for them."""
        return self.transform is not None

    @property
    def dtypes(self) -> tuple[Any, ...]:
        """What the tensors of an item are widened to; None where they stay as they are."""
        return () if self.transform is not None else item_dtypes(self.recipe.target)

    def begin(self, epoch: int, index: int) -> Callable[[], Item | Unfinished]:
        """Begin to read a sample of any epoch and index; what is returned gives it: several can be on their way.

        What is 0 or 1 is not widened to ``dtypes`` yet, so that a batch is written once.
        """
        self.check_process()
        if self.recipe.reads_to_draw:
            return lambda: self._finish(self.recipe.begin(epoch, index))  # nobody waits for that here
        pending = self.recipe.begin(epoch, index)
        return lambda: self._finish(pending)

    def _finish(self, pending: PendingSample) -> Item | Unfinished:
        sample = pending.result()
        tensors = [as_tensor(part, self.recipe.patch_shape) for part in (sample.raw, sample.target) if part is not None]
        rest = (sample.info,) if self.return_info else ()
        if self.transform is None:
            return (*tensors, *rest)
        wide = widen(tuple(tensors), item_dtypes(self.recipe.target))
        return Unfinished(self.transform, wide, rest, sample.seed)

    @property
    def target_names(self) -> tuple[str, ...]:
        """What the target is of: classes 1, 2, 3, ..., or a kind of points for each channel; else empty."""
        return self.recipe.regions[0].names

    @property
    def shapes(self) -> tuple[Any, ...]:
        """Channels of raw, channels of target, patch: what must be alike to stand in one batch; None if not known."""
        recipe = self.recipe
        known = self.transform is None
        return (recipe.regions[0].num_channels, recipe.target.num_channels if known else None, recipe.patch_shape)

    def __repr__(self) -> str:
        """What it draws from."""
        recipe = self.recipe
        names, boxes = listing(sorted({region.entry for region in recipe.regions})), len(recipe.regions)
        target = recipe.target.name or recipe.target.make
        return (
            f"<SegmentationDataset of {names}: {boxes} box{'es' * (boxes > 1)}, {self.samples} samples an epoch,"
            f" patches of {format_xyz(recipe.patch_shape)} voxels (x, y, z), target {target}>"
        )


def check_seed(state: dict[str, int], seed: int) -> None:
    """Refuse the state of another dataset.

    Raises:
        ArgumentError: other patches would come than those that the state was kept for.
    """
    if state.get("seed") != seed:
        raise ArgumentError(
            f"this state is of seed={state.get('seed')}, and the dataset of seed={seed}: open it with that"
        )


def check_index(index: int, length: int) -> int:
    """An index counted from 0.

    Raises:
        IndexError: it is beyond the end.
    """
    if not -length <= index < length:
        raise IndexError(f"there is no sample {index}: an epoch has {length}")
    return index % length


def whole(name: str, value: object, least: int = 1) -> int:
    """A whole number that is large enough.

    Raises:
        ArgumentError: anything else.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or int(value) < least:
        raise ArgumentError(f"{name}={value!r}: give a whole number of at least {least}")
    return int(value)
