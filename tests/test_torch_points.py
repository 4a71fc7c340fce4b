"""Points of a table as a target: what a network learns of a patch is what ``paint`` gives for its box."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from emcatalog.drivers.volume import VolumeSource
from emcatalog.errors import ArgumentError, NotCachedError, SourceUnavailableError
from emcatalog.patches.sampler import SamplingError
from emcatalog.torch import loader, open_dataset
from tests.conftest import place
from tests.replica.wire import Server
from tests.test_fetch import assert_clear
from tests.test_points import SHAPE, scattered, table, volume
from tests.test_torch_dataset import assert_same, turned

PATCH = (12, 20, 24)
BOX = place(3, 70, 5, 60, 7, 50)
TABLE = "*syn-points*"
PATIENCE_S = 120


def options(catalog: Any, **others: Any) -> dict[str, Any]:
    """Of a dataset of synapses."""
    points = catalog.malecns_data.synapse_points
    return {"target": "points", "points": points, "radius_nm": 24, "raw_transform": None, **others}


def painted(catalog: Any, info: Mapping[str, Any], points: Any, radius: float = 24, **more: Any) -> NDArray[Any]:
    """What ``paint`` gives for the box of a sample, (kind, z, y, x)."""
    source = catalog[info["entry"]](bbox=info["bbox_nm"], units="nm", resolution=info["voxel_size_nm"])
    volumes: NDArray[Any] = source.paint(points, radius, **more).to_dataarray().values
    return volumes


class TestItem:
    """Patches of the shipped entry."""

    def test_equal_paint(self, male_cns: Server, catalog: Any) -> None:
        points = catalog.malecns_data.synapse_points
        dataset = catalog.malecns(bbox=BOX).to_torch(PATCH, **options(catalog, return_info=True))
        assert dataset.target_names == ("PostSyn", "PreSyn")
        for raw, target, info in map(dataset.__getitem__, range(6)):
            assert (target.shape, target.dtype) == ((2, *PATCH), torch.float32)
            np.testing.assert_array_equal(target, painted(catalog, info, points))
            again = catalog.malecns(bbox=info["bbox"], channels=["raw"]).read()
            np.testing.assert_array_equal(raw[0], again["raw"])
            assert 0 < target[0].mean() < 1
            assert 0 < target[1].mean() < 1

    @pytest.mark.parametrize(
        ("arguments", "radius", "more"),
        [({"resolution": 16}, 30, {}), ({}, 20, {"by": None}), ({}, 90, {"by": "compartment"})],
    )
    def test_other_scales_radii_and_kinds(
        self, male_cns: Server, catalog: Any, arguments: dict[str, Any], radius: float, more: dict[str, Any]
    ) -> None:
        points = catalog.malecns_data.synapse_points(version="v1.0", filter={"conf": {">=": 0.95}})
        source = catalog.malecns(bbox=BOX, **arguments)
        given = options(catalog, points=points, radius_nm=radius, return_info=True, **more)
        dataset = source.to_torch((8, 10, 12), **given)
        seen = []
        for _, target, info in map(dataset.__getitem__, range(6)):
            expected = painted(catalog, info, points, radius, **more)
            assert target.shape == expected.shape
            np.testing.assert_array_equal(target, expected)
            seen.append(expected.any())
        assert any(seen)

    def test_turned_with_the_image(self, male_cns: Server, catalog: Any) -> None:
        points = catalog.malecns_data.synapse_points
        dataset = catalog.malecns(bbox=BOX).to_torch(
            (20, 20, 20), **options(catalog, augment=True, samples=8, return_info=True)
        )
        ways = set()
        for raw, target, info in map(dataset.__getitem__, range(8)):
            for channel, expected in zip(target, painted(catalog, info, points), strict=True):
                np.testing.assert_array_equal(channel, turned(expected, info["turned"]))
            again = catalog.malecns(bbox=info["bbox"], channels=["raw"]).read()["raw"].values
            np.testing.assert_array_equal(raw[0], turned(again, info["turned"]))
            ways.add(info["turned"])
        assert len(ways) > 3

    def test_slices(self, male_cns: Server, catalog: Any) -> None:
        points = catalog.malecns_data.synapse_points
        dataset = catalog.malecns(bbox=BOX).to_torch((1, 30, 40), **options(catalog, return_info=True))
        _, target, info = dataset[1]
        assert target.shape == (2, 30, 40)
        np.testing.assert_array_equal(target, painted(catalog, info, points)[:, 0])

    def test_bytes(self, male_cns: Server, catalog: Any) -> None:
        source = catalog.malecns(bbox=BOX)
        wide = source.to_torch(PATCH, **options(catalog))[0][1]
        for name, dtype in (("uint8", torch.uint8), ("bool", torch.bool)):
            dataset = source.to_torch(PATCH, **options(catalog, target_dtype=name))
            assert dataset[0][1].dtype == dtype
            assert torch.equal(dataset[0][1].float(), wide)
            assert next(iter(loader(dataset, 2)))[1].dtype == dtype

    def test_a_batch_and_its_loss(self, male_cns: Server, catalog: Any) -> None:
        raw, target = next(iter(loader(catalog.malecns(bbox=BOX).to_torch(PATCH, **options(catalog)), 3, 2)))
        assert (raw.shape, target.shape) == ((3, 1, *PATCH), (3, 2, *PATCH))
        scores = torch.zeros(target.shape, requires_grad=True)
        torch.nn.BCEWithLogitsLoss()(scores, target).backward()
        assert scores.grad is not None

    def test_a_transform_gets_the_channels(self, male_cns: Server, catalog: Any) -> None:
        source = catalog.malecns(bbox=BOX)
        plain = source.to_torch(PATCH, **options(catalog))[0]
        made = source.to_torch(PATCH, **options(catalog, transform=lambda raw, target: (raw, target.flip(1))))[0]
        assert torch.equal(made[1], plain[1].flip(1))

    def test_no_labels_are_needed(self, male_cns: Server, catalog: Any) -> None:
        source = catalog.malecns(bbox=BOX, channels=["raw"])
        _, target, info = source.to_torch(PATCH, **options(catalog, return_info=True))[0]
        assert list(info["channels"]) == ["raw"]
        assert target.any()
        assert not male_cns.count("*/segmentation/*")

    def test_points_that_reach_in_from_outside_the_box(self, tmp_path: Path) -> None:
        """A point beside the volume, whose ball is larger than the way to it."""
        source = volume(tmp_path, (8, 8, 8))
        points = table(tmp_path, {"x": [0], "y": [12], "z": [5]})
        dataset = source.to_torch(SHAPE, "points", points=points, radius_nm=40, by=None)
        expected = source.paint(points, 40, by=None)["points"].values
        assert expected.any()
        np.testing.assert_array_equal(dataset[0][1][0], expected)

    def test_voxels_that_are_no_cubes(self, tmp_path: Path) -> None:
        frame = scattered(200, (280, 220, 400), 8)
        frame["kind"] = np.where(frame["x"] % 2, "odd", "even")
        source, points = volume(tmp_path, (8, 8, 40)), table(tmp_path, frame)
        dataset = source.to_torch((3, 6, 9), "points", points=points, radius_nm=45, augment=True, return_info=True)
        whole = source.paint(points, 45)
        assert dataset.target_names == tuple(whole) == ("even", "odd")
        ways = set()
        for _, target, info in map(dataset.__getitem__, range(10)):
            x0, x1, y0, y1, z0, z1 = info["bbox"]
            for name, channel in zip(whole, target, strict=True):
                part = whole[name].values[z0 - 2 : z1 - 2, y0 - 5 : y1 - 5, x0 - 3 : x1 - 3]
                np.testing.assert_array_equal(channel, turned(part, info["turned"]))
            ways.add(info["turned"])
        assert len(ways) > 3


class TestOpening:
    """The table is read once, and then no more."""

    def test_read_once(self, male_cns: Server, catalog: Any) -> None:
        source = catalog.malecns(bbox=BOX)
        source.fetch(progress=False)
        dataset = source.to_torch(PATCH, **options(catalog))
        assert male_cns.count(TABLE)
        male_cns.clear()
        for index in range(5):
            dataset[index]
        assert male_cns.requests == []

    def test_only_the_points_of_the_box_are_kept(self, male_cns: Server, catalog: Any) -> None:
        small, large = (
            catalog.malecns(bbox=place(0, side, 0, side, 0, side)).to_torch((8, 8, 8), **options(catalog))
            for side in (16, 120)
        )
        assert 20 * len(pickle.dumps(small)) < len(pickle.dumps(large))

    def test_offline(self, male_cns: Server, catalog: Any) -> None:
        online = catalog.malecns(bbox=BOX)
        online.fetch(progress=False)
        expected = online.to_torch(PATCH, **options(catalog))[0]
        points = catalog.malecns_data.synapse_points(offline=True)
        source = catalog.malecns(bbox=BOX, offline=True)
        with pytest.raises(NotCachedError, match="syn-points"):
            source.to_torch(PATCH, **options(catalog, points=points))
        catalog.malecns_data.synapse_points.fetch(progress=False)
        male_cns.clear()
        assert_same(source.to_torch(PATCH, **options(catalog, points=points))[0], expected)
        assert male_cns.requests == []

    def test_a_server_that_is_down(self, male_cns: Server, catalog: Any) -> None:
        male_cns.fail(TABLE, 503)
        with pytest.raises(SourceUnavailableError, match="syn-points"):
            catalog.malecns(bbox=BOX).to_torch(PATCH, **options(catalog))


class TestDraws:
    """Where patches lie."""

    def test_foreground_is_what_is_painted(self, male_cns: Server, catalog: Any) -> None:
        points = catalog.malecns_data.synapse_points(filter={"kind": "PreSyn", "conf": {">=": 0.95}})
        shares = {}
        for least in (0.0, 0.1):
            made = options(catalog, points=points, radius_nm=30, min_foreground=least, samples=20)
            dataset = catalog.malecns(bbox=BOX).to_torch((8, 10, 12), **made)
            shares[least] = [target.amax(0).mean().item() for _, target in map(dataset.__getitem__, range(20))]
        assert min(shares[0.1]) >= 0.1
        assert min(shares[0.0]) < 0.05

    def test_nothing_is_painted(self, male_cns: Server, catalog: Any) -> None:
        points = catalog.malecns_data.synapse_points(filter={"body": -1})
        dataset = catalog.malecns(bbox=BOX).to_torch(PATCH, **options(catalog, points=points, min_foreground=0.01))
        with pytest.raises(SamplingError, match="the best had 0"):
            dataset[0]

    def test_within_a_map(self, male_cns: Server, catalog: Any) -> None:
        made = options(catalog, within="labels", return_info=True, samples=4)
        dataset = catalog.malecns(bbox=BOX).to_torch(PATCH, **made)
        for _, target, info in map(dataset.__getitem__, range(4)):
            np.testing.assert_array_equal(target, painted(catalog, info, made["points"]))

    def test_it_has_no_classes_to_balance(self, male_cns: Server, catalog: Any) -> None:
        with pytest.raises(ArgumentError) as caught:
            catalog.malecns(bbox=BOX).to_torch(PATCH, **options(catalog, balance=True))
        assert_clear(caught.value, ValueError, "balance= looks at labels", "min_foreground=")


class TestGrid:
    def test_every_patch(self, male_cns: Server, catalog: Any) -> None:
        source = catalog.malecns(bbox=BOX)
        whole = source.paint(catalog.malecns_data.synapse_points, 24).to_dataarray().values
        grid = source.to_grid(PATCH, (3, 5, 7), **options(catalog))
        assert grid.target_names == ("PostSyn", "PreSyn")
        for _, target, position in map(grid.__getitem__, range(len(grid))):
            here = tuple(slice(a, a + side) for a, side in zip(position.tolist(), PATCH, strict=True))
            np.testing.assert_array_equal(target, whole[(slice(None), *here)])

    def test_batches(self, male_cns: Server, catalog: Any) -> None:
        grid = catalog.malecns(bbox=BOX).to_grid(PATCH, **options(catalog, target_dtype="uint8"))
        some, others = (list(loader(grid, 4, workers)) for workers in (0, 3))
        for one, other in zip(some, others, strict=True):
            assert_same(one, other)
        assert some[0][1].dtype == torch.uint8


class TestSeveralSources:
    def test_boxes_of_one_entry(self, male_cns: Server, catalog: Any) -> None:
        boxes = [place(0, 40, 0, 40, 0, 40), place(60, 100, 0, 40, 0, 40)]
        sources = [catalog.malecns(bbox=box) for box in boxes]
        dataset, seen = open_dataset(sources, PATCH, **options(catalog, return_info=True, samples=10)), set()
        for _, target, info in map(dataset.__getitem__, range(10)):
            np.testing.assert_array_equal(target, painted(catalog, info, catalog.malecns_data.synapse_points))
            seen.add(info["bbox"][0] >= place(60, 100, 0, 40, 0, 40)[0])
        assert seen == {False, True}

    def test_other_voxels(self, male_cns: Server, catalog: Any) -> None:
        sources = [catalog.malecns(bbox=BOX, resolution=size) for size in (8, 16)]
        with pytest.raises(ArgumentError, match="ask for one resolution="):
            open_dataset(sources, PATCH, **options(catalog))

    def text(self, folder: Path) -> tuple[list[VolumeSource], Any]:
        """Two boxes that have other kinds of points, and a third without any."""
        rows = pd.DataFrame({"x": [5, 20, 21], "y": [8, 8, 9], "z": [4, 4, 4], "kind": ["a", "a", "b"]})
        volume(folder, (8, 8, 8))
        boxes = [(3, 13, 5, 20, 2, 9), (14, 33, 5, 20, 2, 9), (28, 33, 15, 20, 2, 9)]
        return [volume(folder, (8, 8, 8), bbox=box) for box in boxes], table(folder, rows)

    def test_other_kinds(self, tmp_path: Path) -> None:
        sources, points = self.text(tmp_path)
        with pytest.raises(ArgumentError) as caught:
            open_dataset(sources[:2], (2, 2, 2), "points", points=points, radius_nm=8)
        assert_clear(caught.value, ValueError, "has points of the kinds a,", "a, b", "by=")
        apart = [source.to_torch((2, 2, 2), "points", points=points, radius_nm=8) for source in sources[:2]]
        with pytest.raises(ArgumentError, match="1 channels of target"):
            loader(apart)
        as_one = open_dataset(sources, (2, 2, 2), "points", points=points, radius_nm=8, by=None)
        assert as_one.target_names == ("points",)

    def test_no_kinds(self, tmp_path: Path) -> None:
        sources, points = self.text(tmp_path)
        for make in (sources[2].to_torch, sources[2].to_grid):
            with pytest.raises(ArgumentError) as caught:
                make((2, 2, 2), target="points", points=points, radius_nm=8)
            assert_clear(caught.value, ValueError, "no point lies in the box", "by=")

    def test_mixed_with_another_order_of_channels(self, tmp_path: Path) -> None:
        sources, points = self.text(tmp_path)
        other = pd.DataFrame({"x": [20, 21], "y": [8, 8], "z": [4, 4], "kind": ["b", "c"]})
        (tmp_path / "other").mkdir()
        made = [
            sources[1].to_torch((2, 2, 2), "points", points=each, radius_nm=8)
            for each in (points, table(tmp_path / "other", other))
        ]
        assert [dataset.target_names for dataset in made] == [("a", "b"), ("b", "c")]
        with pytest.raises(ArgumentError, match=r"is of a, b, .* of b, c: one number or channel"):
            loader(made)


class TestWorkers:
    """Points go with the dataset."""

    def test_spawned_processes(self, male_cns: Server, catalog: Any) -> None:
        dataset = catalog.malecns(bbox=BOX).to_torch(
            PATCH, **options(catalog, augment=True, samples=3, return_info=True, target_dtype="uint8")
        )
        expected = [dataset[index] for index in range(3)]
        plain: Any = DataLoader(
            dataset, batch_size=None, num_workers=1, multiprocessing_context="spawn", timeout=PATIENCE_S
        )
        for got, item in zip(plain, expected, strict=True):
            assert_same(got, item)
        male_cns.clear()
        for (raw, target, (info,)), item in zip(loader(dataset, 1, 1, workers="process"), expected, strict=True):
            assert_same((raw[0], target[0], info), item)
        assert not male_cns.count(TABLE)

    def test_threads(self, male_cns: Server, catalog: Any) -> None:
        dataset = catalog.malecns(bbox=BOX).to_torch(PATCH, **options(catalog, samples=8))
        for (raw, target), index in zip(loader(dataset, 1, 4), range(8), strict=True):
            assert_same((raw[0], target[0]), dataset[index])


class TestBadInput:
    @pytest.mark.parametrize("missing", [["points"], ["radius_nm"], ["points", "radius_nm"]])
    def test_what_is_needed(self, catalog: Any, missing: list[str]) -> None:
        given = {name: value for name, value in options(catalog).items() if name not in missing}
        for make in (catalog.demo.to_torch, catalog.demo.to_grid):
            with pytest.raises(ArgumentError, match=r"target='points' needs points=, an entry .*, and radius_nm="):
                make(PATCH, **given)

    @pytest.mark.parametrize("target", ["instances", "semantic", None, np.sign])
    @pytest.mark.parametrize("argument", [{"points": 1}, {"radius_nm": 8}, {"by": None}])
    def test_what_belongs_to_it(self, catalog: Any, target: Any, argument: dict[str, Any]) -> None:
        for make in (catalog.demo.to_torch, catalog.demo.to_grid):
            with pytest.raises(ArgumentError, match="points=, radius_nm= and by= belong to target='points'"):
                make(PATCH, target=target, **argument)

    @pytest.mark.parametrize(
        ("others", "says"),
        [
            ({"labels": "labels"}, "labels= name a channel, and target='points' is made of points="),
            ({"unlabelled": None}, "unlabelled= is an id of labels, and target='points' has none"),
            ({"unlabelled": 7}, "unlabelled= is an id of labels, and target='points' has none"),
            ({"mask": True}, "mask=True belongs to target='affinities'"),
            ({"halo": True}, "halo=True belongs to target='affinities'"),
            ({"consecutive": True}, "consecutive=True belongs to target='instances'"),
            ({"offsets": [[0, 0, 1]]}, "offsets= belong to target='affinities'"),
            ({"radius_nm": -1}, "radius_nm=-1 is not a length in nm"),
            ({"points": "synapse_points"}, "str is no table: give one such as"),
            ({"by": 5}, "by=5 is not the name of a column"),
        ],
    )
    def test_what_does_not_fit(self, catalog: Any, others: dict[str, Any], says: str) -> None:
        with pytest.raises(ArgumentError, match=says):
            catalog.demo.to_torch(PATCH, **options(catalog, **others))

    def test_a_box_of_the_table(self, catalog: Any) -> None:
        points = catalog.malecns_data.synapse_points(bbox=BOX)
        with pytest.raises(ArgumentError, match="leave bbox= of the table away"):
            catalog.malecns(bbox=BOX).to_torch(PATCH, **options(catalog, points=points))

    def test_a_column_that_is_not_there(self, male_cns: Server, catalog: Any) -> None:
        with pytest.raises(ArgumentError, match="by='knd': the table has no such column"):
            catalog.malecns(bbox=BOX).to_torch(PATCH, **options(catalog, by="knd"))

    def test_a_patch_that_is_too_large(self, male_cns: Server, catalog: Any) -> None:
        with pytest.raises(ArgumentError, match="is larger than the box of malecns"):
            catalog.malecns(bbox=BOX).to_torch((100, 100, 100), **options(catalog))
