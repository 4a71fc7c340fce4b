"""The shipped male CNS entries, unchanged, against a miniature of their bucket: every voxel, and every request."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

from emcatalog.errors import (
    ArgumentError,
    NotCachedError,
    OutOfBoundsError,
    SourceDeniedError,
    TooLargeError,
    UnknownArgumentError,
)
from emcatalog.phantom import make_phantom
from tests.conftest import SIDE, BBox, Replica, once, place, python, stored_box
from tests.replica import malecns, stored
from tests.replica.gcs import serve_gcs, tensorstore_environment
from tests.replica.malecns import build_malecns, expected_labels, expected_raw, labels_folder
from tests.replica.s3 import S3, serve_s3
from tests.replica.server import serve
from tests.replica.wire import Server

EM_SHAPE = (134576, 78317, 94088)
"""Of the image and of the labels of v1.0, (z, y, x)."""
LABELS_Y = 77248
"""The labels of v0.9 end here along y, before the image does."""

SMALL = place(10, 74, 20, 60, 30, 90)
WHOLE = place(0, SIDE, 0, SIDE, 0, SIDE)
BOXES = {
    "inside a chunk": place(3, 20, 5, 30, 7, 29),
    "across chunks": place(50, 140, 60, 131, 20, 101),
    "whole data": WHOLE,
    "one voxel": place(77, 78, 12, 13, 99, 100),
    "over the edge of the data": place(120, 300, -100, 30, 100, 180),
    "nothing there": place(5000, 5064, 0, 64, 0, 64),
}

CUT = """
import hashlib, json, sys
import intake, emcatalog
arguments = json.loads(sys.argv[1])
try:
    dataset = intake.open_catalog(emcatalog.CATALOG).malecns(**arguments).read()
except emcatalog.EmcatalogError as error:
    print(json.dumps({"error": type(error).__name__, "message": str(error)}))
else:
    print(json.dumps({name: hashlib.sha256(dataset[name].values.tobytes()).hexdigest() for name in dataset}))
"""


def scale(replica: Replica, volume: str, index: int = 0) -> stored.Scale:
    return stored.open_scale(replica.folder / volume, index)


def volumes(version: str = "v0.9") -> dict[str, str]:
    """Folder in the bucket, by channel."""
    return {"raw": malecns.EM, "labels": labels_folder(version)}


def absent_chunks(replica: Replica, bbox: BBox) -> int:
    """Chunks of both channels that the bucket does not have."""
    scales = [scale(replica, volume) for volume in volumes().values()]
    return sum(not each.is_there(chunk) for each in scales for chunk in each.chunks(stored_box(bbox)))


def assert_exact(dataset: xr.Dataset, folder: Path, bbox: BBox, version: str = "v0.9", index: int = 0) -> None:
    """Every voxel is what an independent decoder finds in the bucket; the box is in voxels of the scale."""
    box = stored_box(bbox)
    np.testing.assert_array_equal(dataset["raw"].values, expected_raw(folder, index, box))
    np.testing.assert_array_equal(dataset["labels"].values, expected_labels(folder, index, box, version))


def digests(dataset: xr.Dataset) -> dict[str, str]:
    """As ``CUT`` prints them."""
    return {str(name): hashlib.sha256(dataset[name].values.tobytes()).hexdigest() for name in dataset}


def voxel_requests(server: Server) -> int:
    """Requests that were not for an info document."""
    return server.count() - server.count("*/info")


class TestRead:
    """What ``read`` gives."""

    @pytest.mark.parametrize("bbox", BOXES.values(), ids=BOXES)
    def test_voxels_are_exact(self, male_cns: Server, catalog: Any, replica: Replica, bbox: BBox) -> None:
        source = catalog.malecns(bbox=bbox)
        report = source.fetch()
        assert report.absent == absent_chunks(replica, bbox)
        assert_exact(source.read(), replica.folder, bbox)

    def test_labels_are_what_was_put_in(self, male_cns: Server, catalog: Any, replica: Replica) -> None:
        dataset = catalog.malecns(bbox=WHOLE).read()
        np.testing.assert_array_equal(dataset["labels"].values, replica.labels)
        error = np.abs(dataset["raw"].values.astype(int) - replica.raw)
        assert error.mean() < 8, "more than jpeg does to grain"

    def test_form(self, male_cns: Server, catalog: Any) -> None:
        x0, x1, y0, y1, z0, z1 = bbox = place(3, 20, 5, 30, 7, 29)
        dataset = catalog.malecns(bbox=bbox).read()
        assert dict(dataset.sizes) == {"z": 22, "y": 25, "x": 17}
        assert [array.dims for array in dataset.values()] == [("z", "y", "x")] * 2
        assert {name: array.dtype for name, array in dataset.items()} == {"raw": np.uint8, "labels": np.uint64}
        for axis, first, last in (("z", z0, z1), ("y", y0, y1), ("x", x0, x1)):
            np.testing.assert_array_equal(dataset[axis], (np.arange(first, last) + 0.5) * 8)
            assert dataset[axis].attrs["units"] == "nm"

    def test_attributes(self, male_cns: Server, catalog: Any) -> None:
        bbox = place(3, 20, 5, 30, 7, 29)
        dataset = catalog.malecns(bbox=bbox).read()
        assert dataset.attrs["voxel_size_nm"] == [8, 8, 8]
        assert dataset.attrs["bbox"] == list(bbox)
        assert dataset.attrs["bbox_nm"] == [8 * edge for edge in bbox]
        assert dataset.attrs["origin_nm"] == [8 * edge for edge in bbox[::2]]
        assert dataset.attrs["entry"] == "malecns"
        assert dataset.attrs["licence"] == "CC BY 4.0"
        assert dataset["raw"].attrs["kind"] == "image"
        assert dataset["labels"].attrs["kind"] == "instances"
        assert dataset["labels"].attrs["source"] == "precomputed://gs://flyem-male-cns/v0.9/segmentation"

    @pytest.mark.parametrize(("resolution", "index"), [(16, 1), (32, 2), ((16, 16, 16), 1)])
    def test_coarser_scale(self, male_cns: Server, catalog: Any, replica: Replica, resolution: Any, index: int) -> None:
        bbox = place(3, 101, 6, 96, 7, 89)  # nominal voxels; none of the odd ones is on a coarse border
        step = 2**index
        x0, x1, y0, y1, z0, z1 = bbox
        grown = (x0 // step, -(-x1 // step), y0 // step, -(-y1 // step), z0 // step, -(-z1 // step))
        dataset = catalog.malecns(bbox=bbox, resolution=resolution).read()
        assert_exact(dataset, replica.folder, grown, index=index)
        assert dataset.attrs["voxel_size_nm"] == [8 * step] * 3
        assert dataset.attrs["bbox"] == list(grown)
        assert float(dataset["x"][0]) == (grown[0] + 0.5) * 8 * step

    def test_version(self, male_cns: Server, catalog: Any, replica: Replica) -> None:
        old = catalog.malecns(bbox=SMALL).read()
        male_cns.clear()
        new = catalog.malecns(bbox=SMALL, version="v1.0").read()
        assert male_cns.count("/em/*") == 0, "the image is the same in both releases"
        assert_exact(new, replica.folder, SMALL, version="v1.0")
        there = old["labels"].values > 0
        np.testing.assert_array_equal(new["labels"].values[there], old["labels"].values[there] + malecns.V1_OFFSET)
        np.testing.assert_array_equal(new["raw"].values, old["raw"].values)

    @pytest.mark.parametrize("channel", ["raw", "labels"])
    def test_one_channel(self, male_cns: Server, catalog: Any, channel: str) -> None:
        dataset = catalog.malecns(bbox=SMALL, channels=[channel]).read()
        assert list(dataset) == [channel]
        asked = {record.path.rpartition("/")[0] for record in male_cns.requests}
        assert all(path.startswith(f"/{volumes()[channel]}") for path in asked)
        assert list(catalog.malecns(bbox=SMALL, channels=channel).channels) == [channel]

    @pytest.mark.parametrize(
        "form",
        [
            {"x": list(SMALL[:2]), "y": list(SMALL[2:4]), "z": list(SMALL[4:])},
            ",".join(map(str, SMALL)),
            " ".join(map(str, SMALL)),
            list(SMALL),
            np.array(SMALL),
            np.array(SMALL, np.float32),
            [np.uint16(edge) for edge in SMALL],
        ],
        ids=["mapping", "commas", "spaces", "list", "array", "float32 array", "numpy scalars"],
    )
    def test_forms_of_a_box(self, male_cns: Server, catalog: Any, form: Any) -> None:
        assert catalog.malecns(bbox=form).read().attrs["bbox"] == list(SMALL)

    def test_box_in_nm(self, male_cns: Server, catalog: Any, replica: Replica) -> None:
        exact = catalog.malecns(bbox=[8 * edge for edge in SMALL], units="nm").read()
        assert_exact(exact, replica.folder, SMALL)
        x0, x1, *rest = (8 * edge for edge in SMALL)
        grown = catalog.malecns(bbox=(x0 + 7.5, x1 + 0.5, *rest), units="nm").read()
        assert grown.attrs["bbox"] == [SMALL[0], SMALL[1] + 1, *SMALL[2:]]

    def test_default_box_is_the_declared_one(self, male_cns: Server, catalog: Any) -> None:
        plan = catalog.malecns().plan()
        assert plan.box.xyz() == (40000, 41024, 40000, 41024, 20000, 21024)
        assert plan.nbytes == 9 * 1024**3


@pytest.fixture(scope="module")
def corner(shared_folder: Path) -> Path:
    """A bucket with data at the far end of the volume, where chunks are cut off."""
    tissue = make_phantom((70, 70, 70), seed=2)
    z, y, x = ((end - 70, end) for end in EM_SHAPE)

    def build(folder: Path) -> None:
        build_malecns(folder, (z, y, x), tissue.raw, tissue.labels, versions=["v1.0"], scales=1)

    return once(shared_folder / "corner", build)


@pytest.mark.parametrize("side", [1, 70])
def test_the_last_voxels_of_the_volume(corner: Path, catalog: Any, monkeypatch: pytest.MonkeyPatch, side: int) -> None:
    z, y, x = EM_SHAPE
    bbox = (x - side, x, y - side, y, z - side, z)
    with serve(corner) as server:
        monkeypatch.setenv("EMCATALOG_MIRRORS", json.dumps({"gs://flyem-male-cns": server.url}))
        source = catalog.malecns(bbox=bbox, version="v1.0")
        assert_exact(source.read(), corner, bbox, version="v1.0")
        assert source.fetch().fetched == 0


class TestBounds:
    """Boxes that are not inside."""

    OUTSIDE: BBox = (94088, 94100, 0, 10, 0, 10)
    NEGATIVE: BBox = (-10, 10, 0, 10, 0, 10)
    BEYOND_LABELS: BBox = (40000, 40064, 77300, 77364, 20000, 20064)
    PARTLY_BEYOND_LABELS: BBox = (40000, 40064, 77200, 77300, 20000, 20064)

    @pytest.mark.parametrize(
        ("bbox", "state"),
        [
            (OUTSIDE, "is outside"),
            (NEGATIVE, "is partly outside"),
            (BEYOND_LABELS, "is outside"),
            (PARTLY_BEYOND_LABELS, "is partly outside"),
        ],
    )
    def test_refused_with_the_extent(self, male_cns: Server, catalog: Any, bbox: BBox, state: str) -> None:
        with pytest.raises(OutOfBoundsError, match=state) as caught:
            catalog.malecns(bbox=bbox).read()
        assert f"x 0..94088, y 0..{LABELS_Y}, z 0..134576 voxels" in str(caught.value)
        assert voxel_requests(male_cns) == 0

    def test_advice_names_what_helps(self, male_cns: Server, catalog: Any) -> None:
        with pytest.raises(OutOfBoundsError, match="clip=True"):
            catalog.malecns(bbox=self.NEGATIVE).plan()
        with pytest.raises(OutOfBoundsError) as caught:
            catalog.malecns(bbox=self.OUTSIDE, clip=True).plan()
        assert "clip=True" not in str(caught.value)

    def test_clip(self, male_cns: Server, catalog: Any) -> None:
        dataset = catalog.malecns(bbox=self.PARTLY_BEYOND_LABELS, clip=True).read()
        assert dataset.attrs["bbox"] == [40000, 40064, 77200, LABELS_Y, 20000, 20064]
        assert dataset["raw"].shape == dataset["labels"].shape == (64, 48, 64)
        inside = catalog.malecns(bbox=SMALL, clip=True).plan()
        assert inside.box.xyz() == SMALL

    def test_each_channel_alone_has_its_own_extent(self, male_cns: Server, catalog: Any) -> None:
        assert not catalog.malecns(bbox=self.BEYOND_LABELS, channels=["raw"]).read()["raw"].any()
        above_image = (40000, 40008, 40000, 40008, 134580, 134590)
        assert not catalog.malecns(bbox=above_image, channels=["labels"]).read()["labels"].any()
        with pytest.raises(OutOfBoundsError):
            catalog.malecns(bbox=above_image, channels=["raw"]).read()
        # In v1.0 the labels are as large as the image.
        assert catalog.malecns(bbox=self.BEYOND_LABELS, version="v1.0").plan().box.xyz() == self.BEYOND_LABELS

    def test_too_large_a_result_is_refused_before_a_voxel_is_asked_for(self, male_cns: Server, catalog: Any) -> None:
        source = catalog.malecns(bbox=(0, 60000, 0, 60000, 0, 60000))
        with pytest.raises(TooLargeError) as caught:
            source.read()
        assert isinstance(caught.value, MemoryError)
        for advice in ("to_dask()", "fetch()", "smaller bbox", "coarser resolution", "1944000.0 GB"):
            assert advice in str(caught.value)
        assert voxel_requests(male_cns) == 0


class TestMistakes:
    """What a caller may get wrong, and what the message says."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"resoluton": 16}, "Did you mean 'resolution'"),
            ({"box": SMALL}, "Did you mean 'bbox'"),
            ({"channel": ["raw"]}, "Did you mean 'channels'"),
        ],
    )
    def test_unknown_argument(self, catalog: Any, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(UnknownArgumentError, match=message) as caught:
            catalog.malecns(**arguments)
        assert isinstance(caught.value, TypeError)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"channels": ["label"]}, "no channel 'label'; there are raw, labels. Did you mean 'labels'"),
            ({"channels": []}, "there are raw, labels"),
            ({"units": "voxels"}, "use 'voxel' or 'nm'"),
            ({"units": "um"}, "use 'voxel' or 'nm'"),
            ({"resolution": "fine"}, "resolution='fine' is not a length"),
            ({"resolution": -8}, "not a positive length"),
            ({"resolution": (8, 8)}, "is not a length"),
            ({"bbox": SMALL[:5]}, "bbox has 5 numbers"),
            ({"bbox": (10, 5, 0, 1, 0, 1)}, "bbox is reversed: x runs from 10 to 5"),
            ({"bbox": (0, 1, 3, 3, 0, 1)}, "bbox is empty: y runs from 3 to 3"),
            ({"bbox": (0, 1, 0, "b", 0, 1)}, "y1='b' is not a number"),
            ({"bbox": (0, 1, 0, 1, float("nan"), 1)}, "z0=nan is not a number"),
            ({"bbox": (0, 1.5, 0, 1, 0, 1)}, "x1=1.5 is not a whole voxel"),
            ({"bbox": {"x": [0, 1], "y": [0, 1]}}, "bbox has the axes"),
            ({"clip": "perhaps"}, "clip"),
        ],
    )
    def test_bad_value(self, catalog: Any, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(ArgumentError) as caught:
            catalog.malecns(**arguments)
        assert message in str(caught.value)

    def test_unknown_version(self, catalog: Any) -> None:
        with pytest.raises(ValueError, match=r"v0\.9.*v1\.0"):
            catalog.malecns(version="v0.8")

    @pytest.mark.parametrize("resolution", [24, (8, 8, 40), 1e-3])
    def test_unknown_resolution_lists_those_there_are(self, male_cns: Server, catalog: Any, resolution: Any) -> None:
        with pytest.raises(ArgumentError, match="8 x 8 x 8; 16 x 16 x 16; 32 x 32 x 32"):
            catalog.malecns(bbox=SMALL, resolution=resolution).plan()
        assert voxel_requests(male_cns) == 0

    def test_a_resolution_that_one_channel_lacks(self, male_cns: Server, catalog: Any) -> None:
        coarsest = {"bbox": None, "resolution": 8192}
        assert catalog.malecns(**coarsest).plan().voxel_size_nm == (8192, 8192, 8192)
        with pytest.raises(ArgumentError, match=r"v1\.0/segmentation has no scale of 8192"):
            catalog.malecns(**coarsest, version="v1.0").plan()


class TestCache:
    """What is asked of the source, and what is not."""

    def test_plan_asks_for_infos_only_and_is_what_fetch_does(self, male_cns: Server, catalog: Any) -> None:
        source = catalog.malecns(bbox=place(50, 140, 60, 131, 20, 101))
        plan = source.plan()
        assert male_cns.counts() == {f"/{volume}/info": 1 for volume in volumes().values()}
        report = source.fetch()
        done = {name: (channel.fetched, channel.reused) for name, channel in report.channels.items()}
        assert done == {name: (channel.missing, 0) for name, channel in plan.channels.items()}
        assert plan.nbytes == source.read().nbytes - sum(8 * side for side in plan.box.shape)  # less coordinates
        after = source.plan()
        assert (after.chunks, after.cached, after.download_bytes) == (plan.chunks, plan.chunks, 0)

    def test_plan_of_a_partly_cached_box(self, male_cns: Server, catalog: Any) -> None:
        catalog.malecns(bbox=place(0, 64, 0, 64, 0, 32)).fetch()
        source = catalog.malecns(bbox=place(0, 128, 0, 64, 0, 32))
        plan = source.plan()
        assert (plan.chunks, plan.cached, plan.missing) == (4, 2, 2)
        report = source.fetch()
        assert (report.fetched, report.reused) == (2, 2)

    def test_warm_read_asks_nothing(self, male_cns: Server, catalog: Any) -> None:
        bbox = BOXES["over the edge of the data"]
        cold = catalog.malecns(bbox=bbox).read()
        male_cns.clear()
        warm = catalog.malecns(bbox=bbox)
        xr.testing.assert_identical(warm.read(), cold)
        inside = tuple(edge + shift for edge, shift in zip(bbox, (5, -5) * 3, strict=True))
        assert catalog.malecns(bbox=inside).read().sizes["x"] == 170
        assert warm.fetch().fetched == 0
        assert male_cns.requests == []

    def test_warm_read_in_another_process_asks_nothing(self, male_cns: Server, catalog: Any) -> None:
        cold = catalog.malecns(bbox=SMALL).read()
        male_cns.clear()
        assert json.loads(python(CUT, json.dumps({"bbox": SMALL}))) == digests(cold)
        assert male_cns.requests == []

    def test_a_shifted_box_asks_for_the_missing_chunks_alone(
        self, male_cns: Server, catalog: Any, replica: Replica
    ) -> None:
        first, shifted = place(0, 100, 0, 100, 0, 100), place(70, 160, 0, 100, 40, 150)
        catalog.malecns(bbox=first).fetch()
        male_cns.clear()
        report = catalog.malecns(bbox=shifted).fetch()
        for name, volume in volumes().items():
            here = scale(replica, volume)
            had, wanted = set(here.chunks(stored_box(first))), set(here.chunks(stored_box(shifted)))
            channel = report.channels[name]
            assert (channel.fetched, channel.reused) == (len(wanted - had), len(wanted & had))
            chunk_bytes = sum(len(here.stored(chunk) or b"") for chunk in wanted - had)
            assert male_cns.sent(f"/{volume}/*.shard") == chunk_bytes + index_bytes(here, wanted - had)
        assert male_cns.sent("*/info") == sum(
            len((replica.folder / v / "info").read_bytes()) for v in volumes().values()
        )

    def test_entries_share_mirrors(self, male_cns: Server, catalog: Any) -> None:
        both = catalog.malecns(bbox=SMALL).read()
        male_cns.clear()
        image = catalog.malecns_data.em_clahe(bbox=SMALL).read()
        labels = catalog.malecns_data.segmentation(bbox=SMALL).read()
        assert (list(image), list(labels)) == (["raw"], ["labels"])
        xr.testing.assert_equal(xr.merge([image, labels], combine_attrs="drop"), both)
        assert male_cns.requests == []
        catalog.malecns_data.segmentation(bbox=SMALL, version="v1.0").read()
        assert male_cns.count("/v1.0/*.shard") > 0

    def test_cache_dir(self, male_cns: Server, catalog: Any, tmp_path: Path) -> None:
        elsewhere = tmp_path / "else where"
        catalog.malecns(bbox=SMALL, cache_dir=elsewhere).fetch()
        assert (elsewhere / "gs/flyem-male-cns/em/em-clahe-jpeg/8x8x8.zarr/zarr.json").is_file()
        assert not (tmp_path / "cache").exists()
        male_cns.clear()
        catalog.malecns(bbox=SMALL, cache_dir=str(elsewhere)).read()
        assert male_cns.requests == []
        assert catalog.malecns(bbox=SMALL).fetch().fetched > 0


class TestOffline:
    """Answers from the mirror alone."""

    def test_after_a_fetch(self, male_cns: Server, catalog: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        online = catalog.malecns(bbox=SMALL).read()
        male_cns.clear()
        xr.testing.assert_identical(catalog.malecns(bbox=SMALL, offline=True).read(), online)
        monkeypatch.setenv("EMCATALOG_OFFLINE", "1")
        xr.testing.assert_identical(catalog.malecns(bbox=SMALL).read(), online)
        assert catalog.malecns(bbox=SMALL).plan().missing == 0
        assert male_cns.requests == []

    def test_never_opened(self, male_cns: Server, catalog: Any, tmp_path: Path) -> None:
        with pytest.raises(NotCachedError, match="em-clahe-jpeg was never opened"):
            catalog.malecns(bbox=SMALL, offline=True).read()
        assert male_cns.requests == []
        assert not (tmp_path / "cache").exists()

    def test_never_fetched(self, male_cns: Server, catalog: Any) -> None:
        catalog.malecns(bbox=SMALL).plan()
        male_cns.clear()
        source = catalog.malecns(bbox=SMALL, offline=True)
        assert source.plan().cached == 0
        with pytest.raises(NotCachedError, match=r"nothing of .*em-clahe-jpeg, scale 8x8x8, was ever fetched"):
            source.read()
        assert male_cns.requests == []

    def test_partly_fetched(self, male_cns: Server, catalog: Any) -> None:
        catalog.malecns(bbox=place(0, 64, 0, 64, 0, 32)).fetch()
        male_cns.clear()
        larger = place(0, 128, 0, 64, 0, 32)
        with pytest.raises(NotCachedError, match=r"raw lacks 1 of 2 chunks .*x 40064.*; labels lacks 1 of 2"):
            catalog.malecns(bbox=larger, offline=True).read()
        with pytest.raises(NotCachedError, match="labels lacks 1 of 2"):
            catalog.malecns(bbox=larger, offline=True, channels=["labels"]).fetch()
        assert male_cns.requests == []


class TestLazy:
    """``to_dask`` and pickling."""

    BOX = place(60, 330, 0, 64, 0, 40)
    """Crosses the border of two shards along x, at 40192."""

    def test_equals_read(self, male_cns: Server, catalog: Any) -> None:
        source = catalog.malecns(bbox=place(50, 280, 60, 131, 20, 101))
        lazy = source.to_dask()
        assert voxel_requests(male_cns) == 0
        assert all(isinstance(array.data, da.Array) for array in lazy.values())
        with dask.config.set(scheduler="threads"):
            computed = lazy.compute()
        male_cns.clear()
        xr.testing.assert_identical(computed, source.read())
        assert male_cns.requests == [], "what dask computed is in the mirror"

    def test_a_corner_asks_for_less_than_the_whole(self, male_cns: Server, catalog: Any) -> None:
        lazy = catalog.malecns(bbox=self.BOX).to_dask()
        lazy.isel(x=slice(10), y=slice(10), z=slice(10)).compute()
        corner = voxel_requests(male_cns)
        lazy.compute()
        assert 0 < corner < voxel_requests(male_cns)
        cached = catalog.malecns(bbox=self.BOX).plan()
        assert cached.missing == 0

    def test_slices(self, male_cns: Server, catalog: Any) -> None:
        source = catalog.malecns(bbox=self.BOX)
        lazy, eager = source.to_dask(), source.read()
        for pick in (
            {"x": slice(None, None, 7)},
            {"z": 3},
            {"y": slice(60, 3, -5), "x": slice(130, 140)},
            {"x": [200, 3]},
        ):
            xr.testing.assert_identical(lazy.isel(pick).compute(), eager.isel(pick))

    def test_in_spawned_processes(self, male_cns: Server, catalog: Any) -> None:
        lazy = catalog.malecns(bbox=self.BOX).to_dask()
        with dask.config.set({"scheduler": "processes", "num_workers": 2, "multiprocessing.context": "spawn"}):
            computed = lazy.compute()
        male_cns.clear()
        xr.testing.assert_identical(computed, catalog.malecns(bbox=self.BOX).read())
        assert male_cns.requests == []

    def test_pickled_source(self, male_cns: Server, catalog: Any) -> None:
        source = catalog.malecns(bbox=SMALL, version="v1.0")
        xr.testing.assert_identical(pickle.loads(pickle.dumps(source)).read(), source.read())

    def test_pickled_lazy_dataset(self, male_cns: Server, catalog: Any) -> None:
        source = catalog.malecns(bbox=SMALL)
        lazy = pickle.loads(pickle.dumps(source.to_dask()))
        xr.testing.assert_identical(lazy.compute(), source.read())


@pytest.fixture(scope="module")
def s3(replica: Replica) -> Iterator[S3]:
    """The miniature in a bucket that anybody may read, and in one that nobody may."""
    with serve_s3() as service:
        service.upload(replica.folder, "copy")
        service.upload(replica.folder, "private", public=False)
        yield service


class TestStores:
    """The same box through every kind of store."""

    BOX = BOXES["over the edge of the data"]

    def test_file(self, catalog: Any, replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EMCATALOG_MIRRORS", json.dumps({"gs://flyem-male-cns": f"file://{replica.folder}"}))
        assert_exact(catalog.malecns(bbox=self.BOX).read(), replica.folder, self.BOX)

    def test_http(self, male_cns: Server, catalog: Any, replica: Replica) -> None:
        assert_exact(catalog.malecns(bbox=self.BOX).read(), replica.folder, self.BOX)
        assert voxel_requests(male_cns) > 0

    def test_s3(self, s3: S3, catalog: Any, replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EMCATALOG_MIRRORS", json.dumps({"gs://flyem-male-cns": "s3://copy"}))
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
        source = catalog.malecns(bbox=self.BOX)
        assert source.fetch().absent == absent_chunks(replica, self.BOX)
        assert_exact(source.read(), replica.folder, self.BOX)

    def test_gs(self, replica: Replica, catalog: Any, male_cns: Server, tmp_path: Path) -> None:
        expected = digests(catalog.malecns(bbox=self.BOX).read())
        cache = {"EMCATALOG_MIRRORS": "{}", "EMCATALOG_CACHE": str(tmp_path / "other")}
        with serve_gcs(replica.folder.parent) as server:
            got = python(CUT, json.dumps({"bbox": self.BOX}), env=tensorstore_environment(server) | cache)
            assert any("/storage/v1/b/flyem-male-cns/o/" in record.path for record in server.requests)
        assert json.loads(got) == expected

    def test_private_bucket_of_s3(self, s3: S3, catalog: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EMCATALOG_MIRRORS", json.dumps({"gs://flyem-male-cns": "s3://private"}))
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
        with pytest.raises(SourceDeniedError, match=r"em-clahe-jpeg.*refuses access.*anonymous: false"):
            catalog.malecns(bbox=SMALL).read()

    def test_private_bucket_of_gs(self, replica: Replica) -> None:
        with serve_gcs(replica.folder.parent, private=["flyem-male-cns"]) as server:
            answer = json.loads(python(CUT, json.dumps({"bbox": SMALL}), env=tensorstore_environment(server)))
        assert answer["error"] == "SourceDeniedError"
        assert "gs://flyem-male-cns/em/em-clahe-jpeg" in answer["message"]

    @pytest.mark.parametrize("status", [401, 403])
    def test_denied_over_http(self, male_cns: Server, catalog: Any, status: int) -> None:
        male_cns.fail("*.shard", status)
        with pytest.raises(SourceDeniedError, match="refuses access"):
            catalog.malecns(bbox=SMALL).read()
        male_cns.heal()
        assert catalog.malecns(bbox=SMALL).fetch().reused == 0


def index_bytes(scale: stored.Scale, chunks: set[stored.Chunk]) -> int:
    """Bytes of the shard index entries and minishard indexes that lead to these chunks, each read once."""
    minishards = {scale._address(chunk)[:2] for chunk in chunks if scale.is_there(chunk)}
    return sum(16 + _minishard_bytes(scale, shard, minishard) for shard, minishard in minishards)


def _minishard_bytes(scale: stored.Scale, shard: int, minishard: int) -> int:
    content = scale._shard_path(shard).read_bytes()[16 * minishard : 16 * (minishard + 1)]
    start, stop = np.frombuffer(content, "<u8")
    return int(stop - start)
