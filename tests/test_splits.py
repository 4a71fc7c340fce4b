"""Boxes of an entry that have a name: declared in YAML, reachable as sources, drawn from by a dataset."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import emcatalog
from emcatalog.catalog_file import check_catalog
from emcatalog.cli.check import catalog_schema
from emcatalog.errors import ArgumentError, CatalogError, OutOfBoundsError
from emcatalog.geometry import NmBox
from tests.replica.precomputed import build_precomputed
from tests.test_audit import METADATA, write_catalog

VOXEL = (4, 5, 40)
"""nm, (x, y, z)."""
SHAPE = (30, 40, 50)
"""(z, y, x)."""
SPLITS: dict[str, Any] = {
    "train": [
        {"x": [0, 20], "y": [0, 40], "z": [0, 30]},
        {"x": [80, 200], "y": [0, 100], "z": [0, 1200], "units": "nm"},
    ],
    "val": [{"x": [20, 28], "y": [2, 12], "z": [3, 9], "units": "voxel"}],
}
"""A box in voxels, one in nm (x 20..50, y 0..20, z 0..30), and one that says that it is in voxels."""
TRAIN = [NmBox((0, 0, 0), (1200, 200, 80)), NmBox((0, 0, 80), (1200, 100, 200))]
VAL = [NmBox((120, 10, 80), (360, 60, 112))]
BOX = {"x": [0, 1], "y": [0, 1], "z": [0, 1]}


def entry(splits: Any, url: str = "gs://bucket", **arguments: Any) -> dict[str, Any]:
    """An image and labels with two releases, as YAML states them."""
    stored = {"voxel_size": list(VOXEL), "source": "a test"}
    volumes = {
        "raw": {"url": f"precomputed://{url}/{{{{ version }}}}/raw", "kind": "image", "dtype": "uint8", **stored},
        "labels": {"url": f"precomputed://{url}/labels", "kind": "instances", "dtype": "uint16", **stored},
    }
    version = {"description": "release", "type": "str", "default": "v1", "allowed": ["v1", "v2"]}
    return {
        "driver": "em_volume",
        "description": "a test",
        "parameters": {"version": version},
        "args": {"volumes": volumes, "voxel_size": list(VOXEL), "splits": splits, **arguments},
        "metadata": METADATA,
    }


def opened(folder: Path, splits: Any = SPLITS, **arguments: Any) -> Any:
    """The entry as a user opens it."""
    return emcatalog.open_catalog(write_catalog(folder / "own.yaml", tissue=entry(splits, **arguments))).tissue


def boxes(sources: Sequence[Any]) -> list[NmBox]:
    return [source.arguments.box_nm for source in sources]


class TestSources:
    """``split()``: a source for each box."""

    def test_names_are_those_of_the_entry(self, tmp_path: Path) -> None:
        assert opened(tmp_path).splits == ["train", "val"]

    def test_an_entry_need_not_have_any(self, catalog: Any) -> None:
        assert catalog.malecns.splits == []
        with pytest.raises(ArgumentError, match="there is no split 'train'; there are none"):
            catalog.malecns.split("train")

    def test_boxes_in_voxels_and_in_nm(self, tmp_path: Path) -> None:
        tissue = opened(tmp_path)
        assert boxes(tissue.split("train")) == TRAIN
        assert boxes(tissue.split("val")) == VAL

    @pytest.mark.parametrize(
        "given", [{"bbox": (1, 2, 1, 2, 1, 2)}, {"bbox": (0, 9, 0, 9, 0, 90), "units": "nm"}, {"units": "nm"}]
    )
    def test_take_the_place_of_another_box(self, tmp_path: Path, given: dict[str, Any]) -> None:
        assert boxes(opened(tmp_path)(**given).split("train")) == TRAIN

    def test_take_the_place_of_the_box_that_the_entry_declares(self, tmp_path: Path) -> None:
        own = opened(tmp_path, bbox={**BOX, "units": "nm"}, units="nm")
        assert boxes([own, *own.split("val")]) == [NmBox((0, 0, 0), (1, 1, 1)), *VAL]

    def test_keep_what_the_caller_chose(self, tmp_path: Path) -> None:
        chosen = opened(tmp_path)(version="v2", channels=["raw"], resolution=(8, 10, 40), cache_dir=tmp_path, clip=True)
        for source in chosen.split("train"):
            assert source.channels["raw"].url == "precomputed://gs://bucket/v2/raw"
            assert list(source.channels) == ["raw"]
            assert source.arguments.resolution_nm == (40, 10, 8)
            assert (source.arguments.cache_dir, source.arguments.clip) == (str(tmp_path), True)

    @pytest.mark.parametrize("experiment", ["p105", "p14"])
    def test_keep_the_parameters_of_a_shipped_entry(self, catalog: Any, tmp_path: Path, experiment: str) -> None:
        """Unchanged but for the splits."""
        shipped = yaml.safe_load(Path(emcatalog.CATALOG).read_text())["sources"]["wildenberg2023"]
        shipped["args"]["splits"] = SPLITS
        own = emcatalog.open_catalog(write_catalog(tmp_path / "own.yaml", wildenberg2023=shipped))
        expected = catalog.wildenberg2023(experiment=experiment)
        for source in own.wildenberg2023(experiment=experiment).split("train"):
            assert source.channels == expected.channels
            assert experiment in source.channels["saturated"].url
            assert source.arguments.box_nm in (NmBox((0, 0, 0), (1200, 480, 240)), TRAIN[1])

    def test_know_what_they_are(self, tmp_path: Path) -> None:
        tissue = opened(tmp_path)
        for source in tissue.split("train"):
            assert (source.name, source.description) == ("tissue", "a test")
            assert source.metadata == tissue.metadata
            assert source.splits == ["train", "val"]

    def test_of_a_source_that_was_pickled(self, tmp_path: Path) -> None:
        tissue = pickle.loads(pickle.dumps(opened(tmp_path)(version="v2")))
        for source in [*tissue.split("val"), *pickle.loads(pickle.dumps(tissue.split("val")))]:
            assert boxes([source]) == VAL
            assert (source.name, source.channels["raw"].url) == ("tissue", "precomputed://gs://bucket/v2/raw")

    def test_of_a_split_source(self, tmp_path: Path) -> None:
        (val,) = opened(tmp_path).split("val")
        assert boxes(val.split("train")) == TRAIN

    def test_may_depend_on_a_parameter(self, tmp_path: Path) -> None:
        variants = {"v1": SPLITS, "v2": {"test": [BOX]}}
        tissue = opened(tmp_path, {"variant": "{{ version }}", "variants": variants})
        assert boxes(tissue.split("train")) == TRAIN
        assert tissue(version="v2").splits == ["test"]
        assert boxes(tissue(version="v2").split("test")) == [NmBox((0, 0, 0), (40, 5, 4))]

    def test_a_near_miss_is_suggested(self, tmp_path: Path) -> None:
        with pytest.raises(ArgumentError, match=r"no split 'trian'; there are train, val\. Did you mean 'train'\?"):
            opened(tmp_path).split("trian")


MISTAKES: list[tuple[Any, str]] = [
    ({"train": []}, r"splits\.train: .*at least 1 item"),
    ({"val": [BOX], "train": []}, r"splits\.train: .*at least 1 item"),
    ({"train": [BOX, {**BOX, "x": [5, 5]}]}, r"splits\.train\.1: bbox is empty: x runs from 5 to 5"),
    ({"train": [{**BOX, "x": [0.5, 2]}]}, r"splits\.train\.0: .*0\.5"),
    ({"train": [{**BOX, "x": [1]}]}, r"splits\.train\.0: "),
    ({"train": [{**BOX, "x": "ab"}]}, r"splits\.train\.0: "),
    ({"train": [{"x": [0, 1], "y": [0, 1]}]}, r"splits\.train\.0: bbox has the axes 'x', 'y'"),
    ({"train": [{**BOX, "t": [0, 1]}]}, r"splits\.train\.0: bbox has the axes 'x', 'y', 'z', 't'"),
    ({"train": [{**BOX, "unit": "nm"}]}, r"splits\.train\.0: bbox has the axes .*'unit'"),
    ({"train": [{**BOX, "units": "um"}]}, r"splits\.train\.0: units='um' is not a unit of a box"),
    ({"train": [[0, 1, 0, 1, 0, 1]]}, r"splits\.train\.0: .*dictionary"),
    ({"train": BOX}, r"splits\.train: .*list"),
    ({"train": None}, r"splits\.train: .*list"),
    ([BOX], r"splits: .*dictionary"),
]


class TestMistakes:
    """What a catalog says wrongly is found where it says it."""

    @pytest.mark.parametrize(("splits", "says"), MISTAKES, ids=[str(splits) for splits, _ in MISTAKES])
    def test_the_error_names_file_entry_and_key(self, splits: Any, says: str) -> None:
        data = {"sources": {"tissue": entry(splits)}}
        with pytest.raises(CatalogError, match=rf"^the/file\.yaml: sources\.tissue\.args .*: {says}"):
            check_catalog(data, "the/file.yaml")

    def test_a_variant_that_there_is_not(self) -> None:
        data = {"sources": {"tissue": entry({"variant": "{{ version }}", "variants": {"v1": SPLITS}})}}
        with pytest.raises(
            CatalogError, match=r"sources\.tissue\.args .*'v2'\}\): splits: there is no 'v2'; there are v1"
        ):
            check_catalog(data, "the/file.yaml")

    def test_a_variant_that_nothing_chooses(self) -> None:
        variants = {"v1": SPLITS, "v2": SPLITS, "v3": SPLITS}
        data = {"sources": {"tissue": entry({"variant": "{{ version }}", "variants": variants})}}
        with pytest.raises(CatalogError, match=r"args\.splits\.variants: nothing chooses v3"):
            check_catalog(data, "the/file.yaml")

    def test_a_right_one(self) -> None:
        assert check_catalog({"sources": {"tissue": entry(SPLITS)}}, "the/file.yaml")


@pytest.fixture(scope="module")
def validator() -> Any:
    """Of what ``emcatalog schema`` prints."""
    jsonschema = pytest.importorskip("jsonschema")
    return jsonschema.Draft202012Validator(json.loads(json.dumps(catalog_schema())))


class TestSchema:
    """``emcatalog schema``."""

    def test_accepts_the_shipped_catalogs(self, validator: Any) -> None:
        files = sorted(Path(emcatalog.CATALOG).parent.glob("*.yaml"))
        assert len(files) > 1
        for file in files:
            assert list(validator.iter_errors(yaml.safe_load(file.read_text()))) == []

    def test_accepts_splits(self, validator: Any) -> None:
        validator.validate({"sources": {"tissue": entry(SPLITS)}})

    @pytest.mark.parametrize("splits", [{"train": []}, {"train": BOX}, {"train": [[0, 1, 0, 1, 0, 1]]}, [BOX]], ids=str)
    def test_refuses_what_cannot_be_one(self, validator: Any, splits: Any) -> None:
        assert not validator.is_valid({"sources": {"tissue": entry(splits)}})


class TestTraining:
    """``to_torch(split=...)``."""

    PATCH = (4, 5, 6)

    @pytest.fixture
    def tissue(self, tmp_path: Path) -> Any:
        labels = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.uint16)
        for name, voxels in (("v1/raw", np.zeros(SHAPE, np.uint8)), ("labels", labels)):
            build_precomputed(tmp_path / name, voxels, resolution=VOXEL)
        return opened(tmp_path, url=f"file://{tmp_path}")

    @staticmethod
    def is_inside(inner: Sequence[float], box: NmBox) -> bool:
        low, high = np.array(inner).reshape(3, 2)[::-1].T
        return bool((low >= box.begin_nm).all() and (high <= box.end_nm).all())

    @pytest.mark.parametrize(("split", "expected"), [("train", TRAIN), ("val", VAL)])
    def test_draws_only_inside_the_boxes_and_in_each_of_them(
        self, tissue: Any, split: str, expected: list[NmBox]
    ) -> None:
        dataset = tissue.to_torch(self.PATCH, split=split, return_info=True, samples=40)
        drawn = [info["bbox_nm"] for _, _, info in dataset]
        places = [[self.is_inside(inner, box) for box in expected] for inner in drawn]
        assert all(any(each) for each in places)
        assert np.any(places, axis=0).all()

    def test_a_halo_stays_inside_too(self, tissue: Any) -> None:
        offsets = [[-1, -2, -1]]
        (box,) = VAL
        dataset = tissue.to_torch(
            self.PATCH, "affinities", offsets=offsets, halo=True, split="val", return_info=True, samples=20
        )
        halo_nm = np.array([4.0, 10.0, 40.0])
        for _, _, info in dataset:
            x0, x1, y0, y1, z0, z1 = info["bbox_nm"]
            grown = np.array([[x0, x1], [y0, y1], [z0, z1]]) + halo_nm[:, None] * [-1, 1]
            assert self.is_inside(grown.ravel().tolist(), box)

    def test_holds_the_voxels_of_the_split_that_its_info_names(self, tissue: Any) -> None:
        for _, target, info in tissue.to_torch(self.PATCH, split="train", return_info=True, samples=5):
            x0, x1, y0, y1, z0, z1 = info["bbox"]
            whole = np.arange(np.prod(SHAPE)).reshape(SHAPE)
            np.testing.assert_array_equal(target[0].numpy(), whole[z0:z1, y0:y1, x0:x1])

    def test_of_the_shipped_demo(self, catalog: Any) -> None:
        patch = (32, 48, 64)
        train = catalog.demo.to_torch(patch, None, split="train", return_info=True, samples=12)
        val = catalog.demo.to_torch(patch, None, split="val", return_info=True, samples=12)
        assert max(info["bbox"][5] for _, info in train) <= 176
        assert min(info["bbox"][4] for _, info in val) >= 192

    def test_an_unknown_split_is_suggested(self, tissue: Any) -> None:
        with pytest.raises(ArgumentError, match=r"no split 'vall'; there are train, val\. Did you mean 'val'\?"):
            tissue.to_torch(self.PATCH, split="vall")

    def test_a_patch_larger_than_a_box_of_the_split(self, tissue: Any) -> None:
        with pytest.raises(ArgumentError, match="is larger than the box of tissue, 8 x 10 x 6"):
            tissue.to_torch((7, 5, 6), split="val")

    def test_a_box_that_is_not_in_the_volume(self, tissue: Any, tmp_path: Path) -> None:
        splits = {"train": [BOX, {**BOX, "x": [40, 60]}]}
        with pytest.raises(OutOfBoundsError, match=r"the box x 40\.\.60, .* is partly outside"):
            opened(tmp_path, splits, url=f"file://{tmp_path}").to_torch((1, 1, 1), split="train")
