"""Callables of other libraries on (raw, target): what is random in them is a function of (seed, epoch, index), too."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from monai.transforms import Compose, RandFlipd, RandGaussianNoised

from emcatalog.errors import ArgumentError
from emcatalog.torch import SegmentationDataset, loader, on_dicts
from tests.test_fetch import assert_clear
from tests.test_torch_dataset import PATCH, Pair, assert_same, build_pair

KEYS = ["image", "label"]


def jitter(raw: torch.Tensor, target: torch.Tensor | None = None) -> Any:
    """Draws from each of the three global random states."""
    raw = raw * (1 + torch.rand(1)) + np.random.rand() + random.random() + torch.randn(raw.shape)
    return raw if target is None else (raw, target)


def jitter_image(sample: dict[str, Any]) -> dict[str, Any]:
    """The same, as a transform of dictionaries."""
    return {**sample, "image": jitter(sample["image"])}


def monai(*more: Callable[..., Any]) -> Compose:
    """Flips both, and adds noise to the image."""
    flips = [RandFlipd(keys=KEYS, prob=0.5, spatial_axis=axis) for axis in range(3)]
    return Compose([*flips, RandGaussianNoised(keys=["image"], prob=0.8, std=0.3), *more])


def flip_alone() -> Callable[..., Any]:
    """One transform, and not a list of them."""
    return on_dicts(RandFlipd(keys=KEYS, prob=0.5, spatial_axis=2))


TRANSFORMS: dict[str, Callable[..., Any]] = {
    "global random states": jitter,
    "a transform of MONAI": flip_alone(),
    "several of MONAI": on_dicts(monai()),
    "several of MONAI and our own": on_dicts(monai(jitter_image)),
}


def random_states() -> tuple[Any, ...]:
    """Of Python, NumPy and torch."""
    name, keys, *rest = np.random.get_state(legacy=True)
    return random.getstate(), name, tuple(np.asarray(keys).tolist()), *rest, tuple(torch.get_rng_state().tolist())


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The numbered volume."""
    return build_pair(tmp_path_factory.mktemp("numbered"))


def make(pair: Pair, transform: Callable[..., Any] | None, **options: Any) -> SegmentationDataset:
    """Twelve samples an epoch; raw as it is stored."""
    return pair.source().to_torch(PATCH, **{"raw_transform": None, "samples": 12, "transform": transform, **options})


def batches(dataset: SegmentationDataset, workers: int, kind: Any = "thread") -> list[Any]:
    """Of two epochs."""
    reader = loader(dataset, 4, workers, workers=kind)
    return [batch for _ in range(2) for batch in reader]


class TestRepeated:
    """The same for the same (seed, epoch, index), wherever it runs."""

    @pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
    def test_in_threads(self, pair: Pair, transform: Callable[..., Any]) -> None:
        expected = batches(make(pair, transform), 0)
        for workers in (2, 8):
            for some, others in zip(batches(make(pair, transform), workers), expected, strict=True):
                assert_same(some, others)

    def test_beside_a_caller_who_draws_too(self, pair: Pair) -> None:
        """As a net with dropout does; neither disturbs the other."""
        expected = batches(make(pair, jitter), 0)
        torch.manual_seed(5)
        alone = [torch.rand(3) for _ in expected]
        torch.manual_seed(5)
        got, drawn = [], []
        reader = loader(make(pair, jitter), 4, 4)
        for batch in (batch for _ in range(2) for batch in reader):
            drawn.append(torch.rand(3))
            got.append(batch)
        assert torch.equal(torch.stack(drawn), torch.stack(alone))
        for some, others in zip(got, expected, strict=True):
            assert_same(some, others)

    def test_in_a_process(self, pair: Pair) -> None:
        dataset = make(pair, TRANSFORMS["several of MONAI and our own"])
        for some, others in zip(batches(dataset, 1, "process"), batches(dataset, 0), strict=True):
            assert_same(some, others)

    @pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
    def test_in_any_order(self, pair: Pair, transform: Callable[..., Any]) -> None:
        dataset = make(pair, transform)
        first = [dataset[index] for index in range(5)]
        for index in reversed(range(5)):
            assert_same(dataset[index], first[index])

    @pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
    def test_another_for_each_sample_epoch_and_seed(self, pair: Pair, transform: Callable[..., Any]) -> None:
        """Of the one patch that fills the box, what differs is what the transform did."""
        boxed = pair.source(bbox=(0, PATCH[2], 0, PATCH[1], 0, PATCH[0]))
        seen = set()
        for seed, epoch in product(range(2), repeat=2):
            dataset = boxed.to_torch(PATCH, transform=transform, samples=20, seed=seed)
            dataset.set_epoch(epoch)
            raws = [dataset[index][0].numpy().tobytes() for index in range(20)]
            assert len({*raws}) > 1
            seen.add(tuple(raws))
        assert len(seen) == 4

    def test_a_transform_is_not_changed_by_its_use(self, pair: Pair) -> None:
        transform = monai()
        before = copy.deepcopy([part.R.get_state()[1].tolist() for part in transform.transforms])
        assert len(make(pair, on_dicts(transform))[0]) == 2
        assert [part.R.get_state()[1].tolist() for part in transform.transforms] == before


class TestGlobalStates:
    """The caller's own random numbers go on as if nothing had been."""

    @pytest.mark.parametrize("workers", [0, 4])
    @pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
    def test_after_an_epoch(self, pair: Pair, transform: Callable[..., Any], workers: int) -> None:
        before = random_states()
        list(loader(make(pair, transform), 4, workers))
        assert random_states() == before

    def test_after_an_error(self, pair: Pair) -> None:
        def fail(raw: torch.Tensor, target: torch.Tensor) -> Any:
            jitter(raw)
            raise ZeroDivisionError

        before = random_states()
        with pytest.raises(ZeroDivisionError):
            make(pair, fail)[0]
        assert random_states() == before

    def test_those_of_a_gpu_are_never_touched(self, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
        """A model that trains there would draw the same dropout again and again."""
        monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail(f"seeded with {seed}"))
        assert len(make(pair, jitter)[0]) == 2


class TestApplied:
    """What a transform gets, and what becomes of what it gives."""

    def test_raw_and_target_stay_in_register(self, pair: Pair) -> None:
        flips = on_dicts(Compose([RandFlipd(keys=KEYS, prob=0.5, spatial_axis=axis) for axis in range(3)]))
        flipped = make(pair, flips, samples=30)
        plain = make(pair, None, samples=30)
        changed = 0
        for index in range(30):
            raw, target = flipped[index]
            assert torch.equal(raw.long() + 1, target.long())
            changed += not torch.equal(raw, plain[index][0])
        assert 15 < changed < 30

    def test_gets_what_an_item_would_hold(self, pair: Pair) -> None:
        got: list[tuple[Any, ...]] = []

        def look(*tensors: torch.Tensor) -> Any:
            got.append(tensors)
            return tensors

        for options in ({}, {"target": "boundaries"}, {"target": "binary", "target_dtype": "uint8"}):
            assert_same(make(pair, look, augment=True, **options)[0], make(pair, None, augment=True, **options)[0])
        assert [target.dtype for _, target in got] == [torch.int64, torch.float32, torch.uint8]
        assert pair.source().to_torch((1, 8, 10), transform=look)[0][0].shape == (1, 8, 10)

    def test_where_a_sample_comes_from_is_still_said(self, pair: Pair) -> None:
        raw, target, info = make(pair, jitter, return_info=True)[3]
        assert raw.shape == target.shape == (1, *PATCH)
        assert info == make(pair, None, return_info=True)[3][2]

    def test_tensors_of_a_library_become_plain_ones(self, pair: Pair) -> None:
        assert [type(part) for part in make(pair, on_dicts(monai()))[0]] == [torch.Tensor] * 2

    def test_tensors_that_can_be_differentiated_become_plain_ones(self, pair: Pair) -> None:
        weight = torch.nn.Parameter(torch.ones(1))
        (raw, _) = next(iter(loader(make(pair, lambda raw, target: (raw * weight, target)), 2, 2)))
        assert not raw.requires_grad

    def test_arrays_of_numpy_that_run_backwards(self, pair: Pair) -> None:
        raw, target = make(pair, lambda raw, target: (np.flip(raw.numpy(), 3), np.flip(target.numpy(), 3)))[0]
        plain = make(pair, None)[0]
        assert_same((raw.flip(3), target.flip(3)), plain)

    def test_another_shape_and_dtype(self, pair: Pair) -> None:
        dataset = make(pair, lambda raw, target: (raw[..., ::2].double(), target.sum()))
        raw, target = next(iter(loader(dataset, 3, 2)))
        assert (raw.shape, raw.dtype) == ((3, 1, 6, 8, 5), torch.float64)
        assert (target.shape, target.dtype) == ((3,), torch.int64)

    def test_in_place(self, pair: Pair) -> None:
        dataset = make(pair, lambda raw, target: (raw.add_(1), target.zero_()))
        plain = make(pair, None)
        for _ in range(2):
            assert torch.equal(dataset[5][0], plain[5][0] + 1)

    @pytest.mark.parametrize("transform", [jitter, on_dicts(jitter_image)], ids=["callable", "of dictionaries"])
    def test_without_a_target(self, pair: Pair, transform: Callable[..., Any]) -> None:
        (raw,) = make(pair, transform, target=None)[0]
        assert raw.shape == (1, *PATCH)
        assert not torch.equal(raw, make(pair, None, target=None)[0][0])
        assert len(next(iter(loader(make(pair, transform, target=None), 4, 2)))) == 1

    def test_other_keys(self, pair: Pair) -> None:
        transform = on_dicts(lambda sample: {"em": sample["em"] + 1, "ids": sample["ids"], "more": 3}, "em", "ids")
        assert torch.equal(make(pair, transform)[0][0], make(pair, None)[0][0] + 1)


WRONG: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "nothing": (lambda raw, target: None, ("got 2 tensors, (raw, target), and gave NoneType",)),
    "raw alone": (lambda raw, target: raw, ("got 2 tensors, (raw, target)",)),
    "three": (lambda raw, target: (raw, target, raw), ("got 2 tensors, (raw, target)",)),
    "a dictionary": (lambda raw, target: {"image": raw, "label": target}, ("gave dict",)),
    "text": (lambda raw, target: (raw, "label"), ("to give tensors, and gave str",)),
    "nothing for a target": (lambda raw, target: (raw, None), ("to give tensors, and gave NoneType",)),
    "a dictionary without the target": (
        on_dicts(lambda sample: {"image": sample["image"]}),
        ("a dictionary of image, label, and gave image",),
    ),
    "tensors for a dictionary": (on_dicts(lambda sample: tuple(sample.values())), ("and gave tuple",)),
    "several dictionaries": (
        on_dicts(lambda sample: [sample, sample]),
        ("a dictionary of image, label, and gave list",),
    ),
}


class TestWrong:
    """A transform that gives something else than it got."""

    @pytest.mark.parametrize(("transform", "words"), WRONG.values(), ids=WRONG)
    def test_result(self, pair: Pair, transform: Callable[..., Any], words: tuple[str, ...]) -> None:
        for workers in (0, 2):
            with pytest.raises(ArgumentError) as caught:
                list(loader(make(pair, transform), 2, workers))
            assert_clear(caught.value, ValueError, *words)
