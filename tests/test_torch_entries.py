"""Datasets of the shipped entries, unchanged: which channels are taken, and several entries as one dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emcatalog.errors import ArgumentError
from emcatalog.torch import SegmentationDataset, loader, open_dataset
from tests.conftest import BBox, ServeAs
from tests.replica.bossdb import EXPERIMENTS, Wildenberg, build_wildenberg
from tests.replica.ebi import build_liver
from tests.replica.prism import CHANNELS, MINIATURE, Crop, build_prism
from tests.test_fetch import assert_clear
from tests.test_torch_dataset import PATCH, Pair, assert_same, build_pair, slices


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The numbered volume."""
    return build_pair(tmp_path_factory.mktemp("numbered"))


TISSUE: BBox = (12 * 1000, 12 * 1112, 12 * 500, 12 * 596, 40 * 12, 40 * 32)
"""In nm, of both experiments."""


@pytest.fixture(scope="module")
def mice(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Wildenberg]]:
    """The bucket of BossDB as a folder, and what was put in by experiment."""
    folder = tmp_path_factory.mktemp("bossdb-open-data")
    return folder, {name: build_wildenberg(folder, name, seed=seed) for seed, name in enumerate(EXPERIMENTS)}


@pytest.fixture
def built(mice: tuple[Path, dict[str, Wildenberg]], serve_as: ServeAs) -> dict[str, Wildenberg]:
    """The same, served in its own place, by the folder of the experiment."""
    serve_as("https://bossdb-open-data.s3.amazonaws.com", mice[0])
    return {f"/{mouse.experiment.folder}/": mouse for mouse in mice[1].values()}


class TestChannels:
    """Which channels are taken where none is named."""

    def test_the_image_and_the_instances(self, catalog: Any) -> None:
        _, _, info = catalog.demo.to_torch(PATCH, return_info=True)[0]
        assert list(info["channels"]) == ["raw", "labels"]

    def test_the_only_instances_of_wildenberg(self, built: dict[str, Wildenberg], catalog: Any) -> None:
        for target in ("instances", "boundaries"):
            _, _, info = catalog.wildenberg2023(bbox=TISSUE).to_torch(PATCH, target, return_info=True)[0]
            assert list(info["channels"]) == ["raw", "saturated"]

    def test_several_classes_of_wildenberg(self, catalog: Any) -> None:
        with pytest.raises(ArgumentError) as caught:
            catalog.wildenberg2023(bbox=TISSUE).to_torch(PATCH, "semantic")
        assert_clear(caught.value, ValueError, "several channels of kind semantic", "labels= one of psd, vesicle_cloud")

    def test_several_masks_of_the_liver(self, catalog: Any) -> None:
        for target in ("binary", "semantic", "instances", "boundaries"):
            with pytest.raises(ArgumentError, match=r"give labels= one of er, mito, nucleus"):
                catalog.human_liver.to_torch(PATCH, target)

    def test_named(self, catalog: Any, serve_as: ServeAs, tmp_path: Path) -> None:
        liver = build_liver(tmp_path, (2, 90, 110))
        serve_as("https://ftp.ebi.ac.uk/empiar/world_availability/13356/data", tmp_path)
        source = catalog.human_liver(bbox=(0, 110, 0, 90, 0, 2))
        for name in ("er", "mito"):
            dataset = source.to_torch((1, 70, 80), "binary", labels=name, raw_transform=None, return_info=True)
            raw, target, info = dataset[0]
            assert list(info["channels"]) == ["raw", name]
            np.testing.assert_array_equal(raw, liver.raw[slices(info["bbox"])])
            np.testing.assert_array_equal(target, liver.masks[name][slices(info["bbox"])] != 0)

    def test_the_chosen_channels_count(self, catalog: Any) -> None:
        with pytest.raises(ArgumentError) as caught:
            catalog.demo(channels=["raw"]).to_torch(PATCH)
        assert_clear(caught.value, ValueError, "no channel of kind instances", "raw (image)", "target=None")
        with pytest.raises(ArgumentError, match=r"no channel of kind image.*labels \(instances\).*raw="):
            catalog.demo(channels=["labels"]).to_torch(PATCH)

    @pytest.mark.parametrize("argument", ["raw", "labels"])
    def test_one_that_is_not_there(self, catalog: Any, argument: str) -> None:
        with pytest.raises(ArgumentError) as caught:
            catalog.demo.to_torch(PATCH, **{argument: "label"})
        assert_clear(caught.value, ValueError, f"{argument}='label'", "demo", "raw, labels", "Did you mean 'labels'?")


class TestSeveralBoxes:
    """A list of entries, or the boxes of a split."""

    def test_each_is_drawn_from_as_it_is_large(self, pair: Pair) -> None:
        small, large = pair.source(bbox=(0, 11, 0, 30, 0, 24)), pair.source(bbox=(11, 44, 0, 30, 0, 24))
        dataset = open_dataset([small, large], PATCH, samples=400, return_info=True)
        ends = [dataset[index][-1]["bbox"][1] for index in range(400)]
        assert not any(end - 10 < 11 < end for end in ends)
        assert sum(end <= 11 for end in ends) == pytest.approx(100, abs=30)

    def test_an_epoch_fills_all_of_them(self, pair: Pair) -> None:
        boxes = [(0, 20, 0, 30, 0, 24), (20, 44, 0, 30, 0, 24)]
        parts = open_dataset([pair.source(bbox=box) for box in boxes], (12, 15, 22 // 2))
        assert len(parts) == len(pair.source().to_torch((12, 15, 22 // 2)))

    def test_split(self, catalog: Any) -> None:
        ends = {}
        for name in ("train", "val"):
            dataset = catalog.demo.to_torch((16, 20, 24), split=name, samples=40, return_info=True)
            boxes = [dataset[index][-1]["bbox"] for index in range(40)]
            ends[name] = min(box[4] for box in boxes), max(box[5] for box in boxes)
        assert 0 <= ends["train"][0] < ends["train"][1] <= 176 < 192 <= ends["val"][0] < ends["val"][1] <= 256

    def test_split_that_is_not_there(self, catalog: Any) -> None:
        with pytest.raises(ArgumentError, match=r"no split 'vall'; there are train, val\. Did you mean 'val'\?"):
            catalog.demo.to_torch(PATCH, split="vall")


CROPS = (0, 1, 7, 12)
"""Of 18, 18, 12 and 10 channels."""


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Crop]]:
    """The bucket of PRISM as a folder, and its crops by path."""
    folder = tmp_path_factory.mktemp("e11bio-prism")
    built = build_prism(folder, {"instance": CROPS})
    return folder, {crop.path: crop for crop in built.values()}


@pytest.fixture
def prism(bucket: tuple[Path, dict[str, Crop]], serve_as: ServeAs) -> dict[str, Crop]:
    """Its crops, served in their own place."""
    serve_as("s3://e11bio-prism", bucket[0])
    return bucket[1]


def crop_of(prism: dict[str, Crop], info: dict[str, Any]) -> Crop:
    """Where a sample comes from."""
    return next(crop for path, crop in prism.items() if f"/{path}/" in info["channels"]["labels"])


def begin_of(catalog: Any, crop: Crop) -> tuple[int, ...]:
    """First voxel of a crop's labels, (z, y, x) as ``info`` counts."""
    number = crop.path.rpartition("_")[2].removesuffix(".zarr")
    return tuple(reversed(catalog.e11bio_prism(crop=number).read().attrs["bbox"][::2]))


class TestPrism:
    """Crops with more or fewer channels."""

    def test_crops_with_a_common_channel(self, prism: dict[str, Crop], catalog: Any) -> None:
        crops = [catalog.e11bio_prism(crop=str(number)) for number in CROPS]
        dataset = open_dataset(crops, (8, 16, 20), raw_transform=None, samples=60, return_info=True)
        begins = {path: begin_of(catalog, crop) for path, crop in prism.items()}
        seen = []
        for raw, target, info in map(dataset.__getitem__, range(60)):
            crop = crop_of(prism, info)
            index = slices(info["bbox"], begins[crop.path])
            np.testing.assert_array_equal(raw[0], crop.raw_at_labels[0][index])
            np.testing.assert_array_equal(target[0], crop.labels[index])
            seen.append(crop.path)
        assert {*seen} == {*prism}
        assert max(map(seen.count, prism)) < 30

    def test_every_channel_of_crops_that_are_alike(self, prism: dict[str, Crop], catalog: Any) -> None:
        crops = [catalog.e11bio_prism(crop=str(number), channel="all") for number in CROPS[:2]]
        raw, target, info = open_dataset(crops, MINIATURE.labels, raw_transform=None, return_info=True)[0]
        np.testing.assert_array_equal(raw, crop_of(prism, info).raw_at_labels)
        assert (raw.shape[0], target.shape[0]) == (18, 1)

    def test_every_channel_of_crops_that_are_not(self, prism: dict[str, Crop], catalog: Any) -> None:
        crops = [catalog.e11bio_prism(crop=str(number), channel="all") for number in CROPS]
        with pytest.raises(ArgumentError) as caught:
            open_dataset(crops, (8, 16, 20))
        assert_clear(caught.value, ValueError, "18 channels of raw", "12", "channel=0")

    def test_mix_of_other_channel_counts(self, prism: dict[str, Crop], catalog: Any) -> None:
        wide, narrow = (catalog.e11bio_prism(crop=str(n), channel="all").to_torch((8, 16, 20)) for n in (0, 12))
        with pytest.raises(ArgumentError) as caught:
            loader([wide, narrow])
        assert_clear(caught.value, ValueError, "18 channels of raw", "10", "choose channels and targets that are alike")

    def test_channels_are_scaled_apart(self, prism: dict[str, Crop], catalog: Any) -> None:
        raw, _ = catalog.e11bio_prism(crop="0", channel="all").to_torch((16, 24, 24))[0]
        assert len(raw) == CHANNELS["instance"][0] == 18
        for channel in raw:
            assert channel.mean().item() == pytest.approx(0, abs=1e-3)
            assert channel.std(correction=0).item() == pytest.approx(1, abs=1e-3)


class TestExperiments:
    """Both experiments of wildenberg2023, whose channels have other names in the bucket, and one a swapped image."""

    @pytest.mark.parametrize(("labels", "region"), [(None, "saturated"), ("psd", "psd"), ("vesicle_cloud", "vesicle")])
    def test_as_one_dataset(self, built: dict[str, Wildenberg], catalog: Any, labels: str | None, region: str) -> None:
        sources = [catalog.wildenberg2023(experiment=name, bbox=TISSUE) for name in EXPERIMENTS]
        dataset = open_dataset(sources, (6, 20, 30), labels=labels, raw_transform=None, samples=12, return_info=True)
        seen = set()
        for raw, target, info in map(dataset.__getitem__, range(12)):
            (folder,) = (folder for folder in built if folder in info["channels"]["raw"])
            x0, x1, y0, y1, z0, z1 = info["bbox"]
            place = ((z0, z1), (y0, y1), (x0, x1))
            np.testing.assert_array_equal(raw[0], built[folder].em.cut(place))
            np.testing.assert_array_equal(target[0], getattr(built[folder], region).cut(place))
            seen.add(folder)
        assert seen == {*built}


def make(pair: Pair, **options: Any) -> SegmentationDataset:
    """A dataset of the numbered volume."""
    return pair.source().to_torch(PATCH, **{"samples": 11, "return_info": True, **options})


class Tag:
    """Tells of which dataset a sample is, where its raw is not needed."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, raw: torch.Tensor, target: torch.Tensor) -> Any:
        return torch.full_like(raw, self.number), target


class TestMix:
    """Several datasets, each as often as it is wanted."""

    @pytest.fixture
    def dataset(self, pair: Pair) -> SegmentationDataset:
        """One to be mixed."""
        return make(pair)

    def counts(self, pair: Pair, weights: Sequence[float] | None, samples: Sequence[int] = (200, 200)) -> Counter[int]:
        made = [make(pair, transform=Tag(number), samples=count) for number, count in enumerate(samples)]
        return Counter(int(raw[0, 0, 0, 0, 0]) for raw, *_ in loader(made, 1, 2, weights=weights))

    def test_weights(self, pair: Pair) -> None:
        counts = self.counts(pair, [3, 1])
        assert counts.total() == 400
        assert counts[0] == pytest.approx(300, abs=35)

    def test_as_many_as_there_are_by_default(self, pair: Pair) -> None:
        assert self.counts(pair, None, (320, 80))[0] == pytest.approx(320, abs=35)

    def test_weight_zero(self, pair: Pair) -> None:
        assert self.counts(pair, [0, 2]) == {1: 400}

    def test_the_choice_says_nothing_about_the_place(self, pair: Pair) -> None:
        """With the seed of a dataset and of the mix alike, as they are by default."""
        halves = [pair.source(bbox=(0, 22, 0, 30, 0, 24)), pair.source(bbox=(22, 44, 0, 30, 0, 24))]
        made = [open_dataset(halves, PATCH, transform=Tag(tag), samples=100, return_info=True) for tag in (0, 1)]
        seen = Counter((int(raw.max()), info["bbox"][0] >= 22) for raw, _, (info,) in loader(made, 1, 0))
        assert min(seen[tag, half] for tag in (0, 1) for half in (False, True)) > 30

    def test_the_same_whoever_reads(self, pair: Pair) -> None:
        made = [make(pair, seed=seed) for seed in (1, 2)]
        some, others = (list(loader(made, 4, workers, seed=5)) for workers in (0, 8))
        for one, other in zip(some, others, strict=True):
            assert_same(one, other)

    def test_samples(self, dataset: SegmentationDataset) -> None:
        mixed = loader([dataset, dataset], 2, samples=5)
        assert [len(raw) for raw, *_ in mixed] == [2, 2, 1]

    @pytest.mark.parametrize(
        ("weights", "words"),
        [
            ([1.0], "2 datasets and 1 weights: give one for each"),
            ([1.0, float("nan")], "from 0 on, not all 0"),
            ([1.0, -1.0], "from 0 on, not all 0"),
            ([0.0, 0.0], "from 0 on, not all 0"),
        ],
    )
    def test_weights_that_are_none(self, dataset: SegmentationDataset, weights: list[float], words: str) -> None:
        with pytest.raises(ArgumentError, match=words):
            loader([dataset, dataset], weights=weights)

    @pytest.mark.parametrize(("option", "least"), [({"samples": 0}, 1), ({"samples": "5"}, 1), ({"seed": -1}, 0)])
    def test_numbers_that_are_none(self, dataset: SegmentationDataset, option: dict[str, Any], least: int) -> None:
        with pytest.raises(ArgumentError, match=f"give a whole number of at least {least}"):
            loader([dataset, dataset], **option)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"target": "affinities", "offsets": [[0, 0, 1], [0, 1, 0]]}, "choose channels and targets that are alike"),
            ({"target": None}, "take the same for all"),
            ({"target": "binary"}, "take one target_dtype for all"),
            ({"return_info": False}, "return_info=True"),
        ],
    )
    def test_targets_that_do_not_fit(
        self, pair: Pair, dataset: SegmentationDataset, options: dict[str, Any], words: str
    ) -> None:
        with pytest.raises(ArgumentError, match=words):
            loader([dataset, make(pair, **options)])

    def test_patches_that_do_not_fit(self, pair: Pair, dataset: SegmentationDataset) -> None:
        with pytest.raises(ArgumentError, match=r"10 x 8 x 6 and of 9 x 8 x 6 .*take one patch_shape for all"):
            loader([dataset, pair.source().to_torch((6, 8, 9), return_info=True)])

    def test_grids(self, pair: Pair) -> None:
        with pytest.raises(ArgumentError, match="GridDataset cannot be mixed"):
            loader([pair.source().to_grid(PATCH)] * 2)
