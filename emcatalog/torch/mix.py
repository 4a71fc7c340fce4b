"""Several datasets as one, each as often as it is wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from emcatalog.errors import ArgumentError, listing
from emcatalog.geometry import format_xyz
from emcatalog.patches.sampler import pick
from emcatalog.torch.dataset import Item, SegmentationDataset, check_index, check_seed, whole
from emcatalog.torch.item import widen
from emcatalog.torch.transform import Unfinished, finish


class MixedDataset(Dataset[Item]):
    """Draws each sample from one of several datasets; which one is a function of (seed, epoch, index) alone."""

    def __init__(
        self, datasets: Sequence[SegmentationDataset], weights: Sequence[float], samples: int, seed: int
    ) -> None:
        """See ``mix``, which checks what it is given."""
        super().__init__()
        self.datasets = tuple(datasets)
        self.weights = tuple(weights)
        self.samples = samples
        self.seed = seed
        self._cumulative = np.cumsum(self.weights)

    @property
    def epoch(self) -> int:
        """Which epoch ``dataset[index]`` is of."""
        return self.datasets[0].epoch

    def set_epoch(self, epoch: int) -> None:
        """Go to another epoch."""
        for dataset in self.datasets:
            dataset.set_epoch(epoch)

    @property
    def seeds(self) -> list[int]:
        """Of everything random about it."""
        return [self.seed, *(seed for dataset in self.datasets for seed in dataset.seeds)]

    def state_dict(self) -> dict[str, int]:
        """What an epoch's samples depend on, besides their index."""
        return {"seed": self.seed, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on in the epoch of a state.

        Raises:
            ArgumentError: the state is of another seed.
        """
        check_seed(state, self.seed)
        self.set_epoch(state["epoch"])

    def __len__(self) -> int:
        """Samples of an epoch."""
        return self.samples

    def __getitem__(self, index: int) -> Item:
        """One sample of the epoch that was set."""
        return widen(finish(self.begin(self.epoch, check_index(index, self.samples))()), self.dtypes)

    @property
    def has_transform(self) -> bool:
        """Whether samples are to be finished where the caller waits for them."""
        return any(dataset.has_transform for dataset in self.datasets)

    @property
    def dtypes(self) -> tuple[Any, ...]:
        """What the tensors of an item are widened to; None where they stay as they are."""
        return self.datasets[0].dtypes

    def begin(self, epoch: int, index: int) -> Callable[[], Item | Unfinished]:
        """Begin to read a sample of any epoch and index, of whichever dataset it is drawn from."""
        # The 1 makes it another stream than that of a dataset of the same seed, whose first draw would follow this one.
        rng = np.random.default_rng([self.seed, epoch, index, 1])
        return self.datasets[pick(self._cumulative, rng)].begin(epoch, index)


def mix(
    datasets: Sequence[SegmentationDataset],
    weights: Sequence[float] | None = None,
    *,
    samples: int | None = None,
    seed: int = 0,
) -> MixedDataset:
    """Several datasets as one.

    Args:
        datasets: whose samples fit into one batch: as many channels, and patches of one shape.
        weights: how often each is drawn from, of any sum. Default: as many samples as each has in an epoch.
        samples: of an epoch. Default: those of all datasets together.
        seed: of the choice.

    Raises:
        ArgumentError: datasets that do not fit together, or weights that are none.
    """
    if not datasets:
        raise ArgumentError("there is no dataset to mix")
    for dataset in datasets:
        if not isinstance(dataset, SegmentationDataset):
            raise ArgumentError(f"{type(dataset).__name__} cannot be mixed: give datasets that to_torch() made")
    _check_alike(datasets)
    shares = [float(len(dataset)) for dataset in datasets] if weights is None else [float(weight) for weight in weights]
    if len(shares) != len(datasets):
        raise ArgumentError(f"there are {len(datasets)} datasets and {len(shares)} weights: give one for each")
    if not all(isfinite(share) and share >= 0 for share in shares) or not sum(shares):
        raise ArgumentError(f"weights={listing(shares)}: give numbers from 0 on, not all 0")
    count = sum(map(len, datasets)) if samples is None else whole("samples", samples)
    return MixedDataset(datasets, shares, count, whole("seed", seed, least=0))


def _check_alike(datasets: Sequence[SegmentationDataset]) -> None:
    first, *others = [dataset.shapes for dataset in datasets]
    for other, dataset in zip(others, datasets[1:], strict=True):
        for what, mine, its in zip(("channels of raw", "channels of target"), first, other, strict=False):
            if None not in (mine, its) and mine != its:
                raise ArgumentError(
                    f"{datasets[0]!r} has {mine} {what}, {dataset!r} {its}: they do not fit into one batch; choose"
                    " channels and targets that are alike"
                )
        if datasets[0].target_names != dataset.target_names:
            raise ArgumentError(
                f"the target of {datasets[0]!r} is of {listing(datasets[0].target_names)}, that of {dataset!r} of"
                f" {listing(dataset.target_names)}: one number or channel would mean two things; name those that both"
                " have, with class_names= or by="
            )
        if first[-1] != other[-1]:
            raise ArgumentError(
                f"patches of {format_xyz(first[-1])} and of {format_xyz(other[-1])} voxels (x, y, z) do not fit into"
                " one batch: take one patch_shape for all"
            )
        if datasets[0].recipe.target.exists != dataset.recipe.target.exists:
            raise ArgumentError("some of the datasets have a target and some have none: take the same for all")
        if datasets[0].dtypes != dataset.dtypes:
            raise ArgumentError(f"{datasets[0]!r} and {dataset!r} give other dtypes: take one target_dtype for all")
        if datasets[0].return_info != dataset.return_info:
            raise ArgumentError("some of the datasets have return_info=True and some have not: take the same for all")
