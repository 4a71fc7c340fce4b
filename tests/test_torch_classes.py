"""Classes of instances as a target: what a network learns of a patch is what ``annotate`` says of its voxels."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray
from pyarrow import feather
from scipy.stats import chisquare
from torch.utils.data import DataLoader

from emcatalog.drivers.volume import VolumeSource
from emcatalog.errors import ArgumentError, NotCachedError
from emcatalog.patches.sampler import SamplingError
from emcatalog.torch import loader, open_dataset
from tests.conftest import place
from tests.replica.wire import Server
from tests.test_fetch import assert_clear
from tests.test_torch_dataset import Pair, assert_same, build_pair, slices, turned

PATCH = (16, 32, 32)
BOX = place(3, 90, 5, 70, 7, 60)
OPTIONS: Mapping[str, Any] = {"target": "semantic", "classes": "superclass", "raw_transform": None, "return_info": True}
TABLE = "*body-annotations*"
LIKELY = 1e-3
"""A draw that is uniform looks less so than this once in a thousand seeds; the seeds here are fixed."""
PATIENCE_S = 120


def annotated(catalog: Any, info: Mapping[str, Any], column: str = "superclass", **arguments: Any) -> NDArray[Any]:
    """What ``annotate`` says of the voxels of a sample."""
    source = catalog[info["entry"]](bbox=info["bbox_nm"], units="nm", resolution=info["voxel_size_nm"], **arguments)
    classes: NDArray[Any] = source.annotate(column, progress=False)[column].values
    return classes


class TestItem:
    """Patches of the shipped entry."""

    def test_equal_annotate(self, male_cns: Server, catalog: Any) -> None:
        dataset, seen = catalog.malecns(bbox=BOX).to_torch(PATCH, **OPTIONS), set()
        for raw, target, info in map(dataset.__getitem__, range(5)):
            assert (target.shape, target.dtype) == ((1, *PATCH), torch.int64)
            np.testing.assert_array_equal(target[0], annotated(catalog, info))
            again = catalog.malecns(bbox=info["bbox"], channels=["raw"]).read()
            np.testing.assert_array_equal(raw[0], again["raw"])
            seen |= {*target.unique().tolist()}
        assert {-1, 0} < seen

    @pytest.mark.parametrize(
        ("column", "arguments"),
        [("type", {}), ("consensus_nt", {"version": "v1.0"}), ("statusLabel", {"resolution": 16})],
    )
    def test_other_columns_releases_and_scales(
        self, male_cns: Server, catalog: Any, column: str, arguments: dict[str, Any]
    ) -> None:
        source = catalog.malecns(bbox=BOX, **arguments)
        dataset = source.to_torch((8, 16, 16), **{**OPTIONS, "classes": column})
        assert dataset.target_names == source.classes(column).names
        arguments.pop("resolution", None)  # info says it
        for _, target, info in map(dataset.__getitem__, range(3)):
            np.testing.assert_array_equal(target[0], annotated(catalog, info, column, **arguments))

    def test_turned_with_the_image(self, male_cns: Server, catalog: Any) -> None:
        dataset, ways = catalog.malecns(bbox=BOX).to_torch((32, 32, 32), augment=True, **OPTIONS), set()
        for _, target, info in map(dataset.__getitem__, range(6)):
            np.testing.assert_array_equal(target[0], turned(annotated(catalog, info), info["turned"]))
            ways.add(info["turned"])
        assert len(ways) > 3

    def test_slices(self, male_cns: Server, catalog: Any) -> None:
        _, target, info = catalog.malecns(bbox=BOX).to_torch((1, 32, 40), **OPTIONS)[0]
        assert target.shape == (1, 32, 40)
        np.testing.assert_array_equal(target, annotated(catalog, info))

    def test_classes_that_count(self, male_cns: Server, catalog: Any) -> None:
        source, names = catalog.malecns(bbox=BOX), ["vnc_motor", "cb_intrinsic"]
        dataset = source.to_torch(PATCH, **OPTIONS, class_names=names)
        assert dataset.target_names == (*names,)
        found = source.annotate("superclass", names=names)["superclass"].values
        for _, target, info in map(dataset.__getitem__, range(3)):
            np.testing.assert_array_equal(target[0], found[slices(info["bbox"], (BOX[4], BOX[2], BOX[0]))])
        given = source.to_torch(PATCH, **{**OPTIONS, "classes": source.classes("superclass", names)})
        assert_same(given[2], dataset[2])

    def test_a_loss_leaves_out_what_nobody_says(self, male_cns: Server, catalog: Any) -> None:
        dataset = catalog.malecns(bbox=BOX).to_torch(PATCH, **{**OPTIONS, "return_info": False})
        _, target = next(iter(loader(dataset, 2)))
        assert target.dtype == torch.int64
        assert target.min() == -1
        scores = torch.randn(2, len(dataset.target_names) + 1, *PATCH, requires_grad=True)
        loss = torch.nn.CrossEntropyLoss(ignore_index=-1)(scores, target[:, 0])
        loss.backward()
        is_known = (target[:, 0] != -1)[:, None].expand_as(scores)
        assert loss.isfinite()
        assert scores.grad is not None
        assert not scores.grad[~is_known].any()
        assert scores.grad[is_known].any()

    def test_a_function_of_classes(self, male_cns: Server, catalog: Any) -> None:
        kinds = set()

        def is_known(classes: NDArray[Any]) -> NDArray[Any]:
            kinds.add(classes.dtype.name)
            return classes > 0

        _, target, info = catalog.malecns(bbox=BOX).to_torch(PATCH, **{**OPTIONS, "target": is_known})[0]
        np.testing.assert_array_equal(target[0], annotated(catalog, info) > 0)
        assert kinds == {"int64"}

    def test_offline(self, male_cns: Server, catalog: Any) -> None:
        online = catalog.malecns(bbox=BOX)
        online.fetch(progress=False)
        with pytest.raises(NotCachedError, match="body-annotations"):
            catalog.malecns(bbox=BOX, offline=True).to_torch(PATCH, **OPTIONS)
        catalog.malecns_data.body_annotations.fetch(progress=False)
        expected = online.to_torch(PATCH, **OPTIONS)[0]
        male_cns.clear()
        assert_same(catalog.malecns(bbox=BOX, offline=True).to_torch(PATCH, **OPTIONS)[0], expected)
        assert male_cns.requests == []


class TestForeground:
    """Voxels of a class, and not those of which nobody says what they are."""

    def test_share(self, male_cns: Server, catalog: Any) -> None:
        source = catalog.malecns(bbox=BOX)
        small = {**OPTIONS, "class_names": ["cb_intrinsic", "ol_intrinsic", "vnc_motor"], "samples": 30}
        shares = {}
        for least in (0.0, 0.6):
            dataset = source.to_torch((8, 8, 8), min_foreground=least, **small)
            shares[least] = [(target > 0).float().mean().item() for _, target, _ in map(dataset.__getitem__, range(30))]
        assert min(shares[0.6]) >= 0.6
        assert min(shares[0.0]) < 0.3

    def test_more_than_there_is(self, male_cns: Server, catalog: Any) -> None:
        dataset = catalog.malecns(bbox=BOX).to_torch(PATCH, min_foreground=1, tries=3, **OPTIONS)
        with pytest.raises(SamplingError, match="the best had"):
            dataset[0]


def middle_of(target: torch.Tensor) -> int:
    """The class in the middle of a patch (1, z, y, x)."""
    _, z, y, x = target.shape
    return int(target[0, z // 2, y // 2, x // 2])


class TestBalance:
    """Where the middle of a patch lies."""

    def middles(self, catalog: Any, count: int, **options: Any) -> Counter[int]:
        source = catalog.malecns(bbox=BOX)
        dataset = source.to_torch((4, 6, 8), **{**OPTIONS, "samples": count, **options})
        return Counter(middle_of(dataset[index][1]) for index in range(count))

    def test_each_class_as_often(self, male_cns: Server, catalog: Any) -> None:
        found = catalog.malecns(bbox=BOX).annotate("superclass")["superclass"].values
        inside = found[2 : found.shape[0] - 1, 3 : found.shape[1] - 2, 4 : found.shape[2] - 3]
        there = {*np.unique(inside).tolist()} - {-1, 0}
        middles = self.middles(catalog, 600, balance=True)
        assert len(there) > 3
        assert {*middles} == there
        assert chisquare([*middles.values()]).pvalue > LIKELY

    def test_without_it_none_is_left_out(self, male_cns: Server, catalog: Any) -> None:
        middles = self.middles(catalog, 200)
        assert {-1, 0} < {*middles}

    def test_the_classes_that_count(self, male_cns: Server, catalog: Any) -> None:
        numbers = sorted({*self.middles(catalog, 200)} - {-1, 0})[:2]
        middles = self.middles(catalog, 200, balance=numbers)
        assert {*middles} == {*numbers}

    def test_voxels_of_a_class_are_drawn_alike(self, tmp_path: Path) -> None:
        """Whatever the instance: one that is as large again is drawn twice as often."""
        labels = np.zeros((6, 6, 60), np.uint64)
        labels[..., :10], labels[..., 10:30], labels[..., 40:45] = 2**63 + 1, 2**63 + 2, 2**63 + 3
        kinds = {2**63 + 1: "a", 2**63 + 2: "a", 2**63 + 3: "b"}
        source = own(tmp_path, labels, kinds)
        dataset = source.to_torch((1, 1, 1), "semantic", classes="kind", balance=True, samples=600, return_info=True)
        places = [(int(target), info["bbox"][0]) for _, target, info in map(dataset.__getitem__, range(600))]
        firsts = Counter(x < 10 for kind, x in places if kind == 1)
        assert chisquare([*Counter(kind for kind, _ in places).values()]).pvalue > LIKELY
        assert chisquare([firsts[True], firsts[False]], [firsts.total() / 3, firsts.total() * 2 / 3]).pvalue > LIKELY

    def test_more_classes_than_can_be_balanced(self, tmp_path: Path) -> None:
        labels = np.arange(1, 301, dtype=np.uint64).reshape(3, 10, 10)
        source = own(tmp_path, labels, {body: f"kind {body}" for body in range(1, 301)})
        with pytest.raises(SamplingError, match=r"more than 256 classes to balance: name those .* class_names="):
            source.to_torch((1, 1, 1), "semantic", classes="kind", balance=True)
        few = source.to_torch((1, 1, 1), "semantic", classes="kind", balance=True, class_names=["kind 7"], samples=3)
        assert [int(target) for _, target in map(few.__getitem__, range(3))] == [1, 1, 1]

    def test_none_of_them(self, tmp_path: Path) -> None:
        source = own(tmp_path, np.full((4, 4, 4), 9, np.uint64), {1: "a", 2: "b"})
        with pytest.raises(SamplingError, match=r"label 1, 2 nowhere .*\(it has -1\)"):
            source.to_torch((2, 2, 2), "semantic", classes="kind", balance=True)


class TestGrid:
    def test_every_patch(self, male_cns: Server, catalog: Any) -> None:
        source = catalog.malecns(bbox=BOX)
        whole = source.annotate("superclass")["superclass"].values
        grid = source.to_grid(PATCH, (3, 5, 7), "semantic", classes="superclass")
        assert grid.target_names == source.classes("superclass").names
        for _, target, position in map(grid.__getitem__, range(len(grid))):
            here = tuple(slice(a, a + side) for a, side in zip(position.tolist(), PATCH, strict=True))
            np.testing.assert_array_equal(target[0], whole[here])

    def test_classes_that_count(self, male_cns: Server, catalog: Any) -> None:
        source, names = catalog.malecns(bbox=BOX), ["vnc_motor"]
        grid = source.to_grid(PATCH, target="semantic", classes="superclass", class_names=names)
        whole = source.annotate("superclass", names=names)["superclass"].values
        np.testing.assert_array_equal(grid[0][1][0], whole[: PATCH[0], : PATCH[1], : PATCH[2]])


def own(folder: Path, labels: NDArray[Any], kinds: Mapping[int, str]) -> VolumeSource:
    """An entry of labels, with a table of what they are."""
    pair = build_pair(folder, np.zeros(labels.shape, np.uint8), labels)
    rows = pa.table({"body": pa.array(kinds, pa.uint64()), "kind": list(kinds.values())})
    feather.write_feather(rows, folder / "table.feather")
    declared = {"url": f"feather://file://{folder}/table.feather", "key": "body", "source": "a test"}
    source: VolumeSource = pair.source(
        annotations=[{**declared, "columns": {"body": "uint64", "kind": "string"}}],
    )
    return source


@pytest.fixture
def two(tmp_path: Path) -> list[VolumeSource]:
    """Two entries: of one a class is not known to the other, and one id is of another class."""
    labels, sources = np.array([[[5, 6, 7, 0, 9]]], np.uint64), []
    for name, kinds in (("one", {5: "a", 6: "b", 7: "c"}), ("other", {5: "b", 6: "a", 9: "d"})):
        (tmp_path / name).mkdir()
        sources.append(own(tmp_path / name, labels, kinds))
        sources[-1].name = name
    return sources


class TestSeveralSources:
    """One number is one class, whichever source a patch is from."""

    def test_boxes_of_one_entry(self, male_cns: Server, catalog: Any) -> None:
        """The table is read once for all of them."""
        boxes = [place(0, 40, 0, 40, 0, 40), place(40, 80, 0, 40, 0, 40), place(0, 40, 40, 80, 0, 40)]
        male_cns.clear()
        open_dataset([catalog.malecns(bbox=boxes[0])], PATCH, **OPTIONS)
        once = male_cns.count(TABLE)
        male_cns.clear()
        dataset = open_dataset([catalog.malecns(bbox=box) for box in boxes], PATCH, **OPTIONS, samples=8)
        assert male_cns.count(TABLE) == once > 0
        for _, target, info in map(dataset.__getitem__, range(8)):
            np.testing.assert_array_equal(target[0], annotated(catalog, info))
        assert len(pickle.dumps(dataset)) < 1.5 * len(pickle.dumps(catalog.malecns.to_torch(PATCH, **OPTIONS)))

    def test_releases_each_with_its_own_table(self, male_cns: Server, catalog: Any) -> None:
        versions = ("v0.9", "v1.0")
        sources = [catalog.malecns(bbox=BOX, version=version) for version in versions]
        dataset, seen = open_dataset(sources, PATCH, **OPTIONS, samples=10), set()
        for _, target, info in map(dataset.__getitem__, range(10)):
            (version,) = (version for version in versions if version in info["channels"]["labels"])
            np.testing.assert_array_equal(target[0], annotated(catalog, info, version=version))
            seen.add(version)
        assert seen == {*versions}

    def test_other_classes(self, two: list[VolumeSource]) -> None:
        with pytest.raises(ArgumentError) as caught:
            open_dataset(two, (1, 1, 5), "semantic", classes="kind")
        assert_clear(caught.value, ValueError, "classes of one and other differ", "class_names=")

    def test_classes_that_all_have(self, two: list[VolumeSource]) -> None:
        dataset = open_dataset(
            two, (1, 1, 5), "semantic", classes="kind", class_names=["b", "a"], samples=20, return_info=True
        )
        found = {info["entry"]: target.flatten().tolist() for _, target, info in map(dataset.__getitem__, range(20))}
        assert found == {"one": [2, 1, -1, 0, -1], "other": [1, 2, -1, 0, -1]}

    def test_classes_of_one_for_instances_of_another(self, two: list[VolumeSource]) -> None:
        """Ids mean other things there, so that the classes would be wrong."""
        classes = two[0].classes("kind")
        with pytest.raises(ArgumentError) as caught:
            open_dataset(two, (1, 1, 5), "semantic", classes=classes)
        assert_clear(caught.value, ValueError, "those of different volumes", "name of a column", "class_names=")
        same = open_dataset([two[0], two[0]], (1, 1, 5), "semantic", classes=classes)
        assert same[0][1].flatten().tolist() == [1, 2, 3, 0, -1]

    def test_mixed(self, two: list[VolumeSource]) -> None:
        alone = [source.to_torch((1, 1, 5), "semantic", classes="kind") for source in two]
        with pytest.raises(ArgumentError) as caught:
            loader(alone)
        assert_clear(caught.value, ValueError, "is of a, b, c", "of a, b, d", "class_names=")
        alike = [source.to_torch((1, 1, 5), "semantic", classes="kind", class_names=["a", "b"]) for source in two]
        ids = two[0].to_torch((1, 1, 5), "semantic")
        assert len(list(loader(alike))) == 2
        with pytest.raises(ArgumentError, match="one number or channel would mean two things"):
            loader([alike[0], ids])


class TestWorkers:
    """What is known of instances goes with the dataset."""

    def test_spawned_processes(self, male_cns: Server, catalog: Any) -> None:
        dataset = catalog.malecns(bbox=BOX).to_torch(PATCH, **OPTIONS, samples=3)
        expected = [dataset[index] for index in range(3)]
        plain: Any = DataLoader(
            dataset, batch_size=None, num_workers=1, multiprocessing_context="spawn", timeout=PATIENCE_S
        )
        for got, item in zip(plain, expected, strict=True):
            assert_same(got, item)
        for (raw, target, (info,)), item in zip(loader(dataset, 1, 1, workers="process"), expected, strict=True):
            assert_same((raw[0], target[0], info), item)

    @pytest.mark.parametrize("workers", [0, 4])
    def test_threads(self, male_cns: Server, catalog: Any, workers: int) -> None:
        dataset = catalog.malecns(bbox=BOX).to_torch(PATCH, **OPTIONS, balance=True, samples=6)
        for (raw, target, (info,)), index in zip(loader(dataset, 1, workers), range(6), strict=True):
            assert_same((raw[0], target[0], info), dataset[index])


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """An entry without tables."""
    return build_pair(tmp_path)


class TestBadInput:
    @pytest.mark.parametrize("target", ["instances", "affinities", "boundaries", "binary", "points", None])
    def test_targets_without_classes(self, pair: Pair, target: Any) -> None:
        options = {"offsets": [[0, 0, 1]]} if target == "affinities" else {}
        for make in (pair.source().to_torch, pair.source().to_grid):
            with pytest.raises(ArgumentError, match=r"classes= belong to target='semantic', or to a function"):
                make((6, 8, 10), target=target, classes="superclass", **options)

    def test_an_entry_without_tables(self, pair: Pair) -> None:
        with pytest.raises(ArgumentError, match="this entry has no table that says what its instances are"):
            pair.source().to_torch((6, 8, 10), "semantic", classes="superclass")

    def test_a_column_that_is_not_there(self, catalog: Any, male_cns: Server) -> None:
        with pytest.raises(ArgumentError, match=r"no table .* column 'superclas' .*Did you mean 'superclass'\?"):
            catalog.malecns(bbox=BOX).to_torch(PATCH, **{**OPTIONS, "classes": "superclas"})

    def test_instances_that_are_not_there(self, catalog: Any, male_cns: Server) -> None:
        with pytest.raises(ArgumentError, match="no channel of kind instances"):
            catalog.malecns(bbox=BOX, channels=["raw"]).to_torch(PATCH, **OPTIONS)

    @pytest.mark.parametrize("classes", [None, "object"])
    def test_names_without_a_column(self, two: Sequence[VolumeSource], classes: str | None) -> None:
        given = None if classes is None else two[0].classes("kind")
        with pytest.raises(ArgumentError, match="class_names= are those of a column of a table, which classes= names"):
            two[0].to_torch((1, 1, 5), "semantic", classes=given, class_names=["a"])

    def test_a_name_that_is_not_there(self, two: Sequence[VolumeSource]) -> None:
        with pytest.raises(ArgumentError, match=r"kind has no class 'z'; there are a, b, c\."):
            two[0].to_torch((1, 1, 5), "semantic", classes="kind", class_names=["a", "z"])

    @pytest.mark.parametrize("classes", [5, ["superclass"], {"superclass": 1}])
    def test_what_is_no_column(self, two: Sequence[VolumeSource], classes: Any) -> None:
        with pytest.raises(ArgumentError, match=r"classes=.* neither the name of a column nor source\.classes"):
            two[0].to_torch((1, 1, 5), "semantic", classes=classes)
