"""Items of a dataset: which voxels they hold, that they can be repeated, and what is said of arguments that are wrong.

The numbered volume below, whose voxels tell where they are, also serves the other tests of ``emcatalog.torch``.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emcatalog.drivers.volume import VolumeSource
from emcatalog.errors import ArgumentError, OutOfBoundsError
from emcatalog.patches.sampler import SamplingError
from emcatalog.torch import SegmentationDataset, open_dataset
from tests.conftest import BBox, place
from tests.replica.precomputed import build_precomputed
from tests.replica.stored import Array
from tests.replica.wire import Server
from tests.test_fetch import assert_clear

SHAPE = (24, 30, 44)
"""Of the numbered volume, (z, y, x): three different edges, none a multiple of a chunk's."""
PATCH = (6, 8, 10)
BOX: BBox = place(3, 90, 5, 70, 7, 60)
"""In the miniature of male CNS: over several chunks, and none of its faces on theirs."""


# --- a volume whose voxels tell where they are


@dataclass(frozen=True)
class Pair:
    """An image and labels, as the two volumes of an entry of their own."""

    url: str
    """Of the folder that holds both."""
    raw: Array
    """(z, y, x)."""
    labels: Array
    """(z, y, x)."""
    voxel_size: tuple[float, float, float] = (8, 8, 8)
    """nm, (x, y, z)."""

    def source(self, **arguments: Any) -> VolumeSource:
        """The entry with arguments as a caller gives them."""
        volumes = {"raw": self._volume("raw", "image"), "labels": self._volume("labels", "instances")}
        return VolumeSource(**{"volumes": volumes, "voxel_size": list(self.voxel_size), **arguments})

    def _volume(self, name: str, kind: str) -> dict[str, Any]:
        url, dtype = f"precomputed://{self.url}/{name}", getattr(self, name).dtype.name
        return {"url": url, "kind": kind, "dtype": dtype, "voxel_size": list(self.voxel_size), "source": "a test"}


def numbers(shape: Sequence[int]) -> Array:
    """A number of its own for each voxel: in any other order of axes it would be another."""
    return np.arange(np.prod(shape)).reshape(shape).astype(np.uint16)


def build_pair(
    folder: Path,
    raw: Array | None = None,
    labels: Array | None = None,
    voxel_size: tuple[float, float, float] = (8, 8, 8),
    **stored: Any,
) -> Pair:
    """Write both volumes; by default each voxel is numbered, and its label is its number and one."""
    raw = numbers(SHAPE) if raw is None else raw
    labels = raw.astype(np.uint32) + np.uint32(1) if labels is None else labels
    for name, voxels in (("raw", raw), ("labels", labels)):
        build_precomputed(folder / name, voxels, resolution=voxel_size, **{"chunk": (16, 16, 16), **stored})
    return Pair(f"file://{folder}", raw, labels, voxel_size)


def slices(bbox: Sequence[int], first: Sequence[int] = (0, 0, 0)) -> tuple[slice, ...]:
    """Index of a box, as ``info`` has it, in an array (z, y, x) that begins at a voxel (z, y, x)."""
    x0, x1, y0, y1, z0, z1 = bbox
    pairs = zip(((z0, z1), (y0, y1), (x0, x1)), first, strict=True)
    return tuple(slice(begin - low, end - low) for (begin, end), low in pairs)


def turned(voxels: Array, how: str) -> Array:
    """Voxels (z, y, x), turned as ``info`` says: for each axis of the result where it was, and in which direction."""
    axes = how.split()
    moved = voxels.transpose(["zyx".index(axis[1]) for axis in axes])
    return np.flip(moved, [number for number, axis in enumerate(axes) if axis[0] == "-"])


def assert_same(some: Sequence[Any], others: Sequence[Any]) -> None:
    """Two items, or two batches, are the same: tensors to the last bit, and what is said of them."""
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        if isinstance(one, torch.Tensor):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)
        else:
            assert one == other


def firsts(dataset: SegmentationDataset, count: int) -> list[tuple[int, ...]]:
    """Where the first samples begin, (x, y, z)."""
    return [tuple(dataset[index][-1]["bbox"][::2]) for index in range(count)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The numbered volume."""
    return build_pair(tmp_path_factory.mktemp("numbered"))


@pytest.fixture
def dataset(pair: Pair) -> SegmentationDataset:
    """Of the numbered volume, turned in every way, with where each patch comes from."""
    return pair.source().to_torch(PATCH, raw_transform=None, augment=True, samples=50, return_info=True)


# --- the tests

OFFSETS = [[0, -1, 0], [0, -3, 0], [0, 0, 9]]
TARGETS: dict[str, tuple[dict[str, Any], int, torch.dtype]] = {
    "instances": ({"target": "instances"}, 1, torch.int64),
    "semantic": ({"target": "semantic"}, 1, torch.int64),
    "binary": ({"target": "binary"}, 1, torch.float32),
    "binary in bytes": ({"target": "binary", "target_dtype": "uint8"}, 1, torch.uint8),
    "boundaries": ({"target": "boundaries"}, 1, torch.float32),
    "boundaries with a mask": ({"target": "boundaries", "mask": True, "halo": True}, 2, torch.float32),
    "affinities": ({"target": "affinities", "offsets": OFFSETS}, 3, torch.float32),
    "affinities with a mask": ({"target": "affinities", "offsets": OFFSETS, "mask": True}, 6, torch.float32),
}


class TestItem:
    """What ``dataset[index]`` holds."""

    @pytest.mark.parametrize(("options", "channels", "dtype"), TARGETS.values(), ids=TARGETS)
    def test_form(self, catalog: Any, options: dict[str, Any], channels: int, dtype: torch.dtype) -> None:
        source = catalog.demo(bbox=(0, 64, 0, 64, 0, 64))
        for shape, space in (((12, 20, 30), (12, 20, 30)), ((1, 20, 30), (20, 30))):
            raw, target = source.to_torch(shape, **options)[0]
            assert (raw.shape, raw.dtype) == ((1, *space), torch.float32)
            assert (target.shape, target.dtype) == ((channels, *space), dtype)

    def test_voxels_are_those_of_a_read(self, male_cns: Server, catalog: Any) -> None:
        source = catalog.malecns(bbox=BOX)
        dataset, whole = source.to_torch((16, 20, 24), raw_transform=None, return_info=True), source.read()
        for raw, target, info in map(dataset.__getitem__, range(6)):
            index = slices(info["bbox"], (BOX[4], BOX[2], BOX[0]))
            np.testing.assert_array_equal(raw[0], whole["raw"].values[index])
            np.testing.assert_array_equal(target[0], whole["labels"].values[index])

    def test_info_reopens_the_same_voxels(self, male_cns: Server, catalog: Any) -> None:
        dataset = catalog.malecns(bbox=BOX).to_torch((16, 20, 24), raw_transform=None, return_info=True)
        for raw, target, info in (dataset[0], dataset[1]):
            again = catalog.malecns(bbox=info["bbox_nm"], units="nm")
            assert again.plan().box.xyz() == tuple(info["bbox"])
            np.testing.assert_array_equal(raw[0], again.read()["raw"])
            np.testing.assert_array_equal(target[0], again.read()["labels"])

    def test_info_reopens_a_coarser_scale(self, male_cns: Server, catalog: Any) -> None:
        source = catalog.malecns(bbox=BOX, resolution=16)
        raw, target, info = source.to_torch((8, 10, 12), raw_transform=None, return_info=True)[3]
        assert info["voxel_size_nm"] == [16, 16, 16]
        again = catalog.malecns(bbox=info["bbox_nm"], units="nm", resolution=info["voxel_size_nm"]).read()
        np.testing.assert_array_equal(raw[0], again["raw"])
        np.testing.assert_array_equal(target[0], again["labels"])

    def test_info_says_where_it_comes_from(self, male_cns: Server, catalog: Any) -> None:
        dataset = catalog.malecns(bbox=BOX, version="v1.0").to_torch((16, 20, 24), return_info=True)
        dataset.set_epoch(3)
        info = dataset[5][-1]
        assert info["entry"] == "malecns"
        assert info["channels"] == {
            "raw": "precomputed://gs://flyem-male-cns/em/em-clahe-jpeg",
            "labels": "precomputed://gs://flyem-male-cns/v1.0/segmentation",
        }
        assert (info["epoch"], info["index"], info["turned"]) == (3, 5, "+z +y +x")
        assert json.loads(json.dumps(info)) == info

    def test_raw_alone(self, pair: Pair) -> None:
        source = pair.source(channels=["raw"])
        (raw,) = source.to_torch(PATCH, None, raw_transform=None)[0]
        assert raw.shape == (1, *PATCH)
        raw, info = source.to_torch(PATCH, None, return_info=True, target_dtype="uint8")[0]
        assert (raw.dtype, list(info["channels"])) == (torch.float32, ["raw"])

    def test_ids_are_exact_however_large(self, tmp_path: Path) -> None:
        labels = (numbers(SHAPE).astype(np.uint64) + np.uint64(1)) * np.uint64(2**40 + 1)
        dataset = build_pair(tmp_path, labels=labels).source().to_torch(PATCH, return_info=True)
        _, target, info = dataset[0]
        np.testing.assert_array_equal(target[0].numpy().astype(np.uint64), labels[slices(info["bbox"])])

    def test_consecutive_instances(self, pair: Pair) -> None:
        plain = pair.source().to_torch(PATCH)[4][1].numpy()
        numbered = pair.source().to_torch(PATCH, consecutive=True)[4][1].numpy()
        assert np.unique(numbered).tolist() == list(range(1, numbered.size + 1))
        ids, inverse = np.unique(plain, return_inverse=True)
        assert len(ids) == numbered.size
        assert len({*zip(inverse.ravel().tolist(), numbered.ravel().tolist(), strict=True)}) == numbered.size

    def test_target_of_ones_own(self, pair: Pair) -> None:
        even = pair.source().to_torch(PATCH, lambda labels: (labels % 2).astype(np.float32))[0][1]
        np.testing.assert_array_equal(even, pair.source().to_torch(PATCH)[0][1] % 2)
        assert even.shape == (1, *PATCH)
        stacked = pair.source().to_torch(PATCH, lambda labels: np.stack([labels % 2, labels % 3]))[0][1]
        assert stacked.shape == (2, *PATCH)

    def test_raw_is_scaled(self, catalog: Any) -> None:
        source = catalog.demo(bbox=(0, 64, 0, 64, 0, 64))
        standard, unit = (
            source.to_torch((16, 20, 24), raw_transform=name)[0][0] for name in ("standardize", "normalize")
        )
        assert standard.mean().item() == pytest.approx(0, abs=1e-4)
        assert standard.std(correction=0).item() == pytest.approx(1, abs=1e-4)
        assert (unit.min().item(), unit.max().item()) == (0, 1)
        doubled = source.to_torch((16, 20, 24), raw_transform=lambda raw: raw * 2.0)[0][0]
        assert torch.equal(doubled, 2 * source.to_torch((16, 20, 24), raw_transform=None)[0][0])

    def test_counted_from_the_end(self, dataset: SegmentationDataset) -> None:
        assert_same(dataset[-1], dataset[49])
        for index in (50, -51):
            with pytest.raises(IndexError, match=f"no sample {index}: an epoch has 50"):
                dataset[index]

    def test_an_epoch_fills_the_box_by_default(self, pair: Pair) -> None:
        assert len(pair.source().to_torch((12, 15, 22))) == 8
        assert len(pair.source().to_torch((13, 15, 22))) == 8
        assert len(pair.source().to_torch((12, 15, 22), samples=3)) == 3


class TestAxes:
    """A wrong order of axes, or a label beside its voxel, is a wrong number."""

    def test_voxels_stand_where_info_says(self, pair: Pair) -> None:
        dataset = pair.source(bbox=(1, 43, 2, 29, 3, 22)).to_torch(PATCH, raw_transform=None, return_info=True)
        for raw, target, info in map(dataset.__getitem__, range(10)):
            np.testing.assert_array_equal(raw[0], pair.raw[slices(info["bbox"])])
            np.testing.assert_array_equal(target[0], pair.labels[slices(info["bbox"])])

    @pytest.mark.parametrize(
        ("patch", "voxel_size", "ways"),
        [
            (PATCH, (8, 8, 8), 8),
            ((6, 8, 8), (8, 8, 8), 16),
            ((8, 8, 8), (8, 8, 40), 16),
            ((8, 8, 8), (8, 8, 8), 48),
            ((1, 8, 8), (8, 8, 40), 8),
            ((1, 8, 10), (8, 8, 8), 4),
        ],
        ids=str,
    )
    def test_turned_as_info_says(
        self, tmp_path: Path, patch: tuple[int, ...], voxel_size: tuple[float, float, float], ways: int
    ) -> None:
        pair = build_pair(tmp_path, voxel_size=voxel_size)
        dataset = pair.source().to_torch(patch, raw_transform=None, augment=True, samples=400, return_info=True)
        seen = set()
        for raw, target, info in map(dataset.__getitem__, range(len(dataset))):
            stored = pair.raw[slices(info["bbox"])]
            np.testing.assert_array_equal(raw.numpy().reshape(patch), turned(stored, info["turned"]))
            assert torch.equal(target, raw.long() + 1)
            seen.add(info["turned"])
        assert len(seen) == ways

    def test_slices_are_never_mixed(self, pair: Pair) -> None:
        dataset = pair.source().to_torch((1, 8, 8), raw_transform=None, augment=True, return_info=True)
        for raw, target, info in map(dataset.__getitem__, range(20)):
            assert raw.shape == target.shape == (1, 8, 8)
            assert np.unique(raw // (SHAPE[1] * SHAPE[2])).tolist() == [info["bbox"][4]]

    def test_every_place_is_drawn(self, pair: Pair) -> None:
        dataset = pair.source(bbox=(10, 21, 5, 15, 2, 9)).to_torch(PATCH, samples=80, return_info=True)
        assert {*firsts(dataset, 80)} == {(x, y, z) for x in (10, 11) for y in (5, 6, 7) for z in (2, 3)}

    def test_a_patch_may_fill_the_box(self, pair: Pair) -> None:
        raw, target = pair.source().to_torch(SHAPE, raw_transform=None)[0]
        np.testing.assert_array_equal(raw[0], pair.raw)
        np.testing.assert_array_equal(target[0], pair.labels)

    def test_affinities_look_along_their_axis(self, tmp_path: Path) -> None:
        """Slabs along one axis: only what looks along it finds a border."""
        for axis in range(3):
            index = np.indices(SHAPE)[axis]
            source = build_pair(tmp_path / str(axis), labels=(index // 3 + 1).astype(np.uint32)).source()
            offsets = np.eye(3, dtype=int).tolist()
            _, target = source.to_torch((9, 9, 9), "affinities", offsets=offsets, halo=True)[0]
            assert [(channel == 0).any().item() for channel in target] == [a == axis for a in range(3)]


class TestRepeated:
    """An item is a function of (seed, epoch, index) alone."""

    def test_in_any_order(self, pair: Pair, dataset: SegmentationDataset) -> None:
        there = [dataset[index] for index in range(8)]
        again = pickle.loads(pickle.dumps(dataset))
        for index in reversed(range(8)):
            assert_same(again[index], there[index])

    def test_whatever_the_global_random_states(self, dataset: SegmentationDataset) -> None:
        first = dataset[7]
        np.random.seed(5)
        torch.manual_seed(5)
        assert_same(dataset[7], first)

    def test_index_epoch_and_seed_each_change_it(self, pair: Pair) -> None:
        def places(seed: int, epoch: int) -> list[tuple[int, ...]]:
            dataset = pair.source().to_torch(PATCH, seed=seed, return_info=True)
            dataset.set_epoch(epoch)
            return firsts(dataset, 10)

        drawn = [places(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
        assert len({place for places in drawn for place in places}) > 36

    def test_epoch(self, dataset: SegmentationDataset) -> None:
        first = dataset[3]
        dataset.set_epoch(2)
        assert dataset.epoch == 2
        assert dataset[3][-1]["epoch"] == 2
        assert not torch.equal(dataset[3][0], first[0])
        dataset.set_epoch(0)
        assert_same(dataset[3], first)

    @pytest.mark.parametrize("epoch", [-1, 0.5, "1"])
    def test_epoch_that_is_none(self, dataset: SegmentationDataset, epoch: Any) -> None:
        with pytest.raises(ArgumentError, match="give a whole number of at least 0"):
            dataset.set_epoch(epoch)

    def test_state(self, pair: Pair, dataset: SegmentationDataset) -> None:
        dataset.set_epoch(4)
        state = json.loads(json.dumps(dataset.state_dict()))
        other = pair.source().to_torch(PATCH, raw_transform=None, augment=True, samples=50, return_info=True)
        other.load_state_dict(state)
        assert_same(other[6], dataset[6])

    def test_state_of_another_seed(self, pair: Pair, dataset: SegmentationDataset) -> None:
        other = pair.source().to_torch(PATCH, seed=1)
        with pytest.raises(ArgumentError, match=r"of seed=0, and the dataset of seed=1: open it with that"):
            other.load_state_dict(dataset.state_dict())

    def test_pickled_after_reading(self, dataset: SegmentationDataset) -> None:
        there = dataset[0]
        dataset.set_epoch(1)
        copy = pickle.loads(pickle.dumps(dataset))
        assert copy.epoch == 1
        copy.set_epoch(0)
        assert dataset.epoch == 1
        assert_same(copy[0], there)

    def test_samples_do_not_share_memory(self, dataset: SegmentationDataset) -> None:
        raw, target, _ = dataset[0]
        kept = raw.clone(), target.clone()
        raw += 1
        target += 1
        assert_same(dataset[0][:2], kept)
        assert_same((raw - 1, target - 1), kept)


class TestForeground:
    """``min_foreground``."""

    @pytest.fixture
    def half(self, tmp_path: Path) -> Pair:
        """Labelled where x < 22."""
        labels = numbers(SHAPE).astype(np.uint32) + np.uint32(1)
        labels[:, :, 22:] = 0
        return build_pair(tmp_path, labels=labels)

    @pytest.mark.parametrize("share", [0.25, 0.75, 1.0])
    def test_met(self, half: Pair, share: float) -> None:
        dataset = half.source().to_torch(PATCH, "binary", min_foreground=share, samples=40)
        found = [dataset[index][1].mean().item() for index in range(40)]
        assert min(found) >= share

    def test_zero_asks_for_nothing(self, half: Pair) -> None:
        dataset = half.source().to_torch(PATCH, "binary", samples=40)
        found = [dataset[index][1].mean().item() for index in range(40)]
        assert (min(found), max(found)) == (0, 1)

    def test_not_met(self, half: Pair) -> None:
        """The box holds two columns of labels: a patch of ten has two at most."""
        dataset = half.source(bbox=(20, 44, 0, 30, 0, 24)).to_torch(PATCH, min_foreground=0.5, tries=200)
        with pytest.raises(SamplingError) as caught:
            dataset[3]
        words = ("at least 0.5", "200 tries", "sample 3", "the best had 0.2", "lower min_foreground", "tries=")
        assert_clear(caught.value, ValueError, *words)

    def test_no_label_at_all(self, half: Pair) -> None:
        source = half.source(bbox=(22, 44, 0, 30, 0, 24))
        with pytest.raises(SamplingError, match="the best had 0: "):
            source.to_torch(PATCH, min_foreground=0.1)[0]
        with pytest.raises(SamplingError, match=r"labels has anything but 0 nowhere.*\(it has 0\)"):
            source.to_torch(PATCH, balance=True)


BAD: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "a patch larger than the box": (
        {"patch_shape": (25, 8, 10)},
        ("10 x 8 x 25 voxels (x, y, z)", "the box of em_volume, 44 x 30 x 24", "smaller patch_shape", "larger bbox"),
    ),
    "no room for a halo": (
        {"patch_shape": (24, 8, 10), "target": "boundaries", "halo": True},
        ("1 x 1 x 1 voxels that its target needs around it", "smaller patch_shape"),
    ),
    "an offset larger than the patch": (
        {"target": "affinities", "offsets": [[0, -8, 0]]},
        ("[0, -8, 0] reaches out of a patch of 8 voxels along y", "larger patch_shape, a smaller offset, or halo=True"),
    ),
    "affinities without offsets": (
        {"target": "affinities"},
        ("needs offsets=", "[[-1, 0, 0], [0, -1, 0], [0, 0, -1]]"),
    ),
    "an offset of two numbers": ({"target": "affinities", "offsets": [[1, 0]]}, ("three whole numbers (z, y, x)",)),
    "offsets of another target": ({"offsets": [[1, 0, 0]]}, ("offsets= belong to target='affinities'",)),
    "a patch of two edges": ({"patch_shape": (8, 10)}, ("three positive whole numbers (z, y, x)", "(1, y, x) is 2D")),
    "a patch of nothing": ({"patch_shape": (0, 8, 10)}, ("patch_shape=(0, 8, 10)", "positive")),
    "half a voxel": ({"patch_shape": (6, 8, 10.5)}, ("whole numbers",)),
    "a target that there is not": ({"target": "boundary"}, ("'instances'", "None", "Did you mean 'boundaries'?")),
    "a mask of a target without one": ({"target": "binary", "mask": True}, ("'affinities'", "'boundaries'")),
    "ids in a byte": ({"target_dtype": "uint8"}, ("ids, which uint8 may not hold", "leave target_dtype away")),
    "a fraction that is no number": ({"min_foreground": float("nan")}, ("min_foreground=nan", "from 0 to 1")),
    "a fraction in percent": ({"min_foreground": 50}, ("min_foreground=50", "from 0 to 1")),
    "a fraction below zero": ({"min_foreground": -0.1}, ("min_foreground=-0.1", "from 0 to 1")),
    "foreground of nothing": ({"target": None, "min_foreground": 0.5}, ("target=None reads none",)),
    "no samples": ({"samples": 0}, ("samples=0", "at least 1")),
    "no tries": ({"tries": 0}, ("tries=0", "at least 1")),
    "a seed below zero": ({"seed": -1}, ("seed=-1", "at least 0")),
    "a raw_transform that there is not": (
        {"raw_transform": "standardise"},
        ("'normalize'", "None", "Did you mean 'standardize'?"),
    ),
    "a transform that is none": ({"transform": "flip"}, ("transform='flip'", "function of (raw, target)")),
    "a map that is not there": ({"within": "label"}, ("no such channel", "raw, labels", "Did you mean 'labels'?")),
    "labels of no map": ({"within_labels": [3]}, ("within= names",)),
}


class TestBadInput:
    """Found when a dataset is made, before a worker starts; the message says what to change."""

    @pytest.mark.parametrize(("options", "words"), BAD.values(), ids=BAD)
    def test_argument(self, pair: Pair, options: dict[str, Any], words: tuple[str, ...]) -> None:
        with pytest.raises(ArgumentError) as caught:
            pair.source().to_torch(**{"patch_shape": PATCH, **options})
        assert_clear(caught.value, ValueError, *words)

    def test_box_outside_the_volume(self, pair: Pair) -> None:
        with pytest.raises(OutOfBoundsError, match=r"partly outside.*pass clip=True"):
            pair.source(bbox=(0, 45, 0, 10, 0, 10)).to_torch(PATCH)

    def test_map_that_excludes_everything(self, pair: Pair) -> None:
        with pytest.raises(SamplingError) as caught:
            pair.source().to_torch(PATCH, within="labels", within_labels=[10**6])
        assert_clear(caught.value, ValueError, "label 1000000 nowhere", "take other labels, or a larger bbox")

    def test_numbers_of_a_read(self, pair: Pair) -> None:
        with pytest.raises(ArgumentError, match=r"consecutive=True of an entry is for read\(\); give it to to_torch"):
            pair.source(consecutive=True).to_torch(PATCH)

    def test_no_source(self) -> None:
        with pytest.raises(ArgumentError, match="no source to draw patches from"):
            open_dataset([], PATCH)

    @pytest.mark.parametrize("source", ["demo", ["demo"], 3])
    def test_what_is_no_source(self, source: Any) -> None:
        with pytest.raises(ArgumentError, match=r"is no entry .*: give one such as cat\.malecns\(bbox="):
            open_dataset(source, PATCH)

    def test_other_voxel_sizes(self, pair: Pair, tmp_path: Path) -> None:
        other = build_pair(tmp_path, voxel_size=(8, 8, 40))
        with pytest.raises(ArgumentError, match=r"8 x 8 x 8 nm.*8 x 8 x 40: ask for one resolution="):
            open_dataset([pair.source(), other.source()], PATCH)

    def test_function_of_labels_that_gives_another_shape(self, pair: Pair) -> None:
        dataset = pair.source().to_torch(PATCH, lambda labels: labels[:, :, 1:])
        with pytest.raises(ArgumentError, match=r"shape \(6, 8, 9\) for labels of \(6, 8, 10\)"):
            dataset[0]

    def test_function_of_raw_that_gives_another_shape(self, pair: Pair) -> None:
        dataset = pair.source().to_torch(PATCH, raw_transform=lambda raw: raw[0])
        with pytest.raises(ArgumentError, match=r"shape \(6, 8, 10\) of one of \(1, 6, 8, 10\)"):
            dataset[0]
