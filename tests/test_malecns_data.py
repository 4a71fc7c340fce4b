"""Image volumes of male CNS besides malecns itself, unchanged: N5, nuclei, regions; and regions beside the image."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml

import emcatalog
from emcatalog.errors import (
    AlignmentError,
    ArgumentError,
    OutOfBoundsError,
    SourceChangedError,
    SourceMissingError,
)
from emcatalog.phantom import make_phantom
from tests.conftest import BBox, ServeAs, stored_box
from tests.replica import malecns, stored
from tests.replica.malecns import ROIS, build_malecns, build_nuclei, build_rois, expected_raw, nuclei_folder
from tests.replica.n5tree import CONVENTIONS, FULL_SHAPE, N5Tree, build_n5
from tests.replica.region import Region
from tests.replica.wire import Server

N5_BUCKET = "gs://flyem_cns_z0720_07m_dvidcoords_n5"
N5_ORIGIN = (20001, 40003, 40006)
"""Where the N5 volume has tissue of 70 x 90 x 110 voxels (z, y, x): beside the border of a chunk on every side."""
N5_BOXES: dict[str, BBox] = {
    "inside a chunk": (40010, 40030, 40004, 40030, 20002, 20030),
    "across chunks": (40020, 40100, 40010, 40090, 20010, 20068),
    "one voxel": (40077, 40078, 40055, 40056, 20040, 20041),
    "over the edge of the data": (40090, 40200, 39990, 40020, 20050, 20100),
    "nothing there": (60000, 60010, 100, 110, 100000, 100010),
    "the last voxels": (94068, 94088, 78300, 78317, 134560, 134576),
}

NUCLEI = ((10005, 10050), (20000, 20080), (20010, 20100))
"""In voxels of 16 nm."""
NUCLEI_BOXES: dict[str, BBox] = {
    "inside a chunk": (20020, 20031, 20010, 20025, 10012, 10020),
    "across chunks": (20012, 20090, 20003, 20079, 10006, 10049),
    "over the edge of the data": (20060, 20200, 19900, 20040, 10030, 10100),
    "nothing there": (100, 110, 30000, 30010, 60000, 60010),
}

ROI_VOLUMES = {"rois_brain": ROIS[0], "rois_vnc": ROIS[1]}
RAW_BOX = ((20500, 20530), (40500, 40560), (40930, 40990))
"""Where the bucket has an image, in voxels of 8 nm (z, y, x): on both sides of a border of chunks of regions."""


@dataclass(frozen=True)
class Bucket:
    """``gs://flyem-male-cns`` with nuclei, regions and a little of the image."""

    folder: Path
    nuclei: dict[str, Region]


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Bucket:
    folder = tmp_path_factory.mktemp("flyem-male-cns")
    tissue = make_phantom((64, 64, 64), seed=3)
    raw, labels = (array[:30, :60, :60] for array in (tissue.raw, tissue.labels))
    build_malecns(folder, RAW_BOX, raw, labels, versions=[], scales=1)
    build_rois(folder)
    return Bucket(folder, build_nuclei(folder, NUCLEI))


@pytest.fixture
def server(bucket: Bucket, serve_as: ServeAs) -> Server:
    """The bucket, in its own place."""
    return serve_as("gs://flyem-male-cns", bucket.folder)


def around(voxel: tuple[float, float, float], *, step: int, size_xyz: tuple[int, int, int]) -> BBox:
    """A box around a place (z, y, x), of whole voxels that are `step` times as long, within a volume."""
    (z, y, x), reach = (int(at) // step * step for at in voxel), (24, 16, 40)
    lows = [max(0, at - step * (side // step)) for at, side in zip((x, y, z), reach, strict=True)]
    ends = [length // step * step for length in size_xyz]
    highs = [min(end, at + step * (side // step)) for at, side, end in zip((x, y, z), reach, ends, strict=True)]
    x0, x1, y0, y1, z0, z1 = itertools.chain.from_iterable(zip(lows, highs, strict=True))
    return x0, x1, y0, y1, z0, z1


# --- the image as N5


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], N5Tree]:
    """The bucket in one of the conventions of N5, made once."""

    def tree(convention: str) -> N5Tree:
        if convention not in made:
            made[convention] = build_n5(
                tmp_path_factory.mktemp(convention),
                convention=convention,
                shape=FULL_SHAPE,
                origin=N5_ORIGIN,
                block_xyz=(64, 64, 64),
            )
        return made[convention]

    made: dict[str, N5Tree] = {}
    return tree


class TestN5:
    """``em_n5``: how its bucket is laid out nobody says, so that several layouts are read."""

    @pytest.fixture
    def tree(self, trees: Callable[[str], N5Tree]) -> N5Tree:
        """As FlyEM's own server of N5 writes attributes."""
        return trees("flyem")

    @pytest.fixture
    def server(self, tree: N5Tree, serve_as: ServeAs) -> Server:
        """That tree, in the place of the bucket."""
        return serve_as(N5_BUCKET, tree.folder)

    @pytest.mark.parametrize("folder", ["", "s0"])
    @pytest.mark.parametrize("bbox", N5_BOXES.values(), ids=N5_BOXES)
    def test_voxels_are_exact(self, server: Server, tree: N5Tree, catalog: Any, folder: str, bbox: BBox) -> None:
        source = catalog.malecns_data.em_n5(folder=folder, bbox=bbox)
        dataset = source.read()
        assert dataset["raw"].dtype == np.uint8
        np.testing.assert_array_equal(dataset["raw"].values, tree.levels[0].data.cut(stored_box(bbox)))
        assert dataset.attrs["bbox_nm"] == [8 * edge for edge in bbox]

    @pytest.mark.parametrize("convention", CONVENTIONS)
    def test_every_convention(
        self, trees: Callable[[str], N5Tree], serve_as: ServeAs, catalog: Any, convention: str
    ) -> None:
        tree = trees(convention)
        serve_as(N5_BUCKET, tree.folder)
        bbox = (40020, 40100, 40012, 40088, 20012, 20068)
        for index, resolution in enumerate((8, 16, 32)):
            dataset = catalog.malecns_data.em_n5(bbox=bbox, resolution=resolution).read()
            x0, x1, y0, y1, z0, z1 = (edge // 2**index for edge in bbox)
            expected = tree.levels[index].data.cut(((z0, z1), (y0, y1), (x0, x1)))
            assert expected.any()
            np.testing.assert_array_equal(dataset["raw"].values, expected)
            assert dataset.attrs["bbox_nm"] == [8 * edge for edge in bbox]

    def test_one_scale_has_no_coarser_ones(self, server: Server, catalog: Any) -> None:
        with pytest.raises(ArgumentError, match=r"no scale of 16 x 16 x 16 nm.*resolution can be 8 x 8 x 8"):
            catalog.malecns_data.em_n5(folder="s0", resolution=16).plan()

    def test_blocks_that_are_not_there_are_background(self, server: Server, tree: N5Tree, catalog: Any) -> None:
        report = catalog.malecns_data.em_n5(bbox=N5_BOXES["nothing there"]).fetch()
        assert (report.fetched, report.absent) == (1, 1)
        report = catalog.malecns_data.em_n5(bbox=(40000, 40128, 39936, 40064, 20032, 20096)).fetch()
        blocks = itertools.product((625, 626), (624, 625), (313,))
        there = [(tree.folder / "s0" / "/".join(map(str, block))).is_file() for block in blocks]
        assert (report.fetched, report.absent) == (len(there), there.count(False))
        assert set(there) == {True, False}

    def test_beyond_the_volume(self, server: Server, catalog: Any) -> None:
        with pytest.raises(OutOfBoundsError, match=r"x 0\.\.94088, y 0\.\.78317, z 0\.\.134576 voxels"):
            catalog.malecns_data.em_n5(bbox=(94080, 94100, 0, 10, 0, 10)).plan()

    def test_warm_read_asks_nothing(self, server: Server, catalog: Any) -> None:
        cold = catalog.malecns_data.em_n5(bbox=N5_BOXES["across chunks"]).read()
        server.clear()
        warm = catalog.malecns_data.em_n5(bbox=N5_BOXES["across chunks"])
        xr.testing.assert_identical(warm.read(), cold)
        xr.testing.assert_identical(warm.to_dask().compute(), cold)
        assert server.requests == []

    @pytest.mark.parametrize("folder", ["", "s0"])
    def test_missing_says_that_its_layout_is_not_confirmed(
        self, tmp_path: Path, serve_as: ServeAs, catalog: Any, folder: str
    ) -> None:
        serve_as(N5_BUCKET, tmp_path)
        with pytest.raises(SourceMissingError, match=r"not confirmed: no public source says how the bucket") as caught:
            catalog.malecns_data.em_n5(folder=folder).read()
        assert "EMCATALOG_MIRRORS" in str(caught.value)
        assert "not confirmed" in repr(catalog.malecns_data.em_n5(folder=folder)).lower()

    def test_a_group_that_lies_deeper(self, trees: Callable[[str], N5Tree], serve_as: ServeAs, catalog: Any) -> None:
        """As the error advises: a mirror of a folder in the bucket."""
        tree = trees("neuroglancer")
        serve_as(N5_BUCKET, tree.folder.parent)
        with pytest.raises(SourceMissingError):
            catalog.malecns_data.em_n5().plan()
        mirror = f"file://{tree.folder}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("EMCATALOG_MIRRORS", json.dumps({N5_BUCKET: mirror}))
            dataset = catalog.malecns_data.em_n5(bbox=N5_BOXES["inside a chunk"]).read()
        assert dataset["raw"].any()

    def test_a_scale_that_is_gone(self, tmp_path: Path, serve_as: ServeAs, catalog: Any) -> None:
        tree = build_n5(tmp_path / "bucket", convention="flyem", shape=FULL_SHAPE, origin=N5_ORIGIN)
        server = serve_as(N5_BUCKET, tree.folder)
        bbox = N5_BOXES["across chunks"]
        before = catalog.malecns_data.em_n5(bbox=bbox, resolution=16).read()
        (tree.folder / "s1/attributes.json").unlink()
        server.clear()
        xr.testing.assert_identical(catalog.malecns_data.em_n5(bbox=bbox, resolution=16).read(), before)
        assert server.requests == []
        elsewhere = N5_BOXES["over the edge of the data"]
        with pytest.raises((SourceMissingError, SourceChangedError), match="s1"):
            catalog.malecns_data.em_n5(bbox=elsewhere, resolution=16).read()


# --- nuclei


class TestNuclei:
    """``nuclei``, at 16 nm."""

    @pytest.mark.parametrize("version", ["v0.9", "v1.0"])
    @pytest.mark.parametrize("bbox", NUCLEI_BOXES.values(), ids=NUCLEI_BOXES)
    def test_voxels_are_exact(self, server: Server, catalog: Any, bucket: Bucket, version: str, bbox: BBox) -> None:
        dataset = catalog.malecns_data.nuclei(version=version, bbox=bbox).read()
        assert dataset["nuclei"].dtype == np.uint64
        np.testing.assert_array_equal(dataset["nuclei"].values, bucket.nuclei[version].cut(stored_box(bbox)))
        assert dataset["nuclei"].attrs["kind"] == "instances"
        assert dataset.attrs["bbox_nm"] == [16 * edge for edge in bbox]

    def test_ids_above_32_bits(self, server: Server, catalog: Any) -> None:
        source = catalog.malecns_data.nuclei(bbox=NUCLEI_BOXES["across chunks"])
        assert source.read()["nuclei"].values.max() == 2**33 + 7
        dataset = catalog.malecns_data.nuclei(bbox=NUCLEI_BOXES["across chunks"], consecutive=True).read()
        assert dataset["nuclei"].values.max() == 3
        assert sorted(dataset["nuclei_ids"].values.tolist()) == [0, 678, 12345, 2**33 + 7]

    @pytest.mark.parametrize(("version", "end"), [("v0.9", (47044, 38624, 67296)), ("v1.0", (47044, 39158, 67288))])
    def test_end_of_the_volume(self, server: Server, catalog: Any, version: str, end: tuple[int, int, int]) -> None:
        x, y, z = end
        last = catalog.malecns_data.nuclei(version=version, bbox=(x - 9, x, y - 9, y, z - 9, z))
        assert not last.read()["nuclei"].any()
        with pytest.raises(OutOfBoundsError, match=f"x 0..{x}, y 0..{y}, z 0..{z} voxels"):
            catalog.malecns_data.nuclei(version=version, bbox=(x - 9, x + 1, y - 9, y, z - 9, z)).read()

    def test_coarser(self, server: Server, catalog: Any, bucket: Bucket) -> None:
        bbox = (20012, 20090, 20004, 20078, 10006, 10048)
        x0, x1, y0, y1, z0, z1 = (edge // 2 for edge in bbox)
        dataset = catalog.malecns_data.nuclei(bbox=bbox, resolution=32).read()
        folder = bucket.folder / nuclei_folder("v0.9")
        expected = stored.open_scale(folder, 1).read(((z0, z1), (y0, y1), (x0, x1)))
        assert expected.any()
        np.testing.assert_array_equal(dataset["nuclei"].values, expected)


# --- regions


class TestRois:
    """``rois_brain`` and ``rois_vnc``, at 256 nm and coarser."""

    @pytest.mark.parametrize("index", range(4))
    @pytest.mark.parametrize("entry", ROI_VOLUMES)
    def test_voxels_are_exact(
        self, server: Server, catalog: Any, bucket: Bucket, tmp_path: Path, entry: str, index: int
    ) -> None:
        """Around each region, one of which reaches over the volume's edge."""
        rois, step = ROI_VOLUMES[entry], 2**index
        for blob in rois.labels.blobs:
            bbox = around(blob.centre, step=step, size_xyz=malecns.ROI_SIZE_XYZ)
            fresh = tmp_path / str(blob.label)
            source = catalog.malecns_data[entry](bbox=bbox, resolution=256 * step, cache_dir=fresh)
            report = source.fetch()
            z, y, x = ((low // step, high // step) for low, high in stored_box(bbox))
            values = source.read()["rois"].values
            assert blob.label in values
            np.testing.assert_array_equal(values, rois.labels.cut((z, y, x), step))
            scale = stored.open_scale(bucket.folder / rois.path, index)
            there = [scale.is_there(chunk) for chunk in scale.chunks((z, y, x))]
            assert (report.fetched, report.absent) == (len(there), there.count(False))

    @pytest.mark.parametrize("entry", ROI_VOLUMES)
    def test_chunks_that_are_not_there_are_background(self, server: Server, catalog: Any, entry: str) -> None:
        source = catalog.malecns_data[entry](bbox=(100, 200, 1000, 1100, 2000, 2010))
        report = source.fetch()
        assert report.absent == report.fetched == 3 * 3
        assert not source.read()["rois"].any()


# --- regions beside the image


@pytest.fixture
def own(tmp_path: Path) -> Any:
    """A catalog of one's own: the image at 8 nm and the regions at 256 nm in one entry."""
    shipped = yaml.safe_load((Path(emcatalog.CATALOG).parent / "malecns_data.yaml").read_text())["sources"]
    entry = shipped["em_clahe"]
    entry["args"]["volumes"]["rois"] = shipped["rois_brain"]["args"]["volumes"]["rois"]
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"name": "own", "description": "mine", "sources": {"tissue": entry}}))
    return emcatalog.open_catalog(path)


class TestRegionsBesideTheImage:
    """``align="nearest"``: a voxel takes the region in which its centre lies."""

    BOX: BBox = (40720, 40990, 40500, 40560, 20500, 20530)
    """In voxels of 8 nm: x crosses 40960, the border of two chunks of the regions."""

    def expected(self, bbox: BBox) -> np.ndarray:
        z, y, x = (np.arange(low, high) // 32 for low, high in stored_box(bbox))
        coarse = ROIS[0].labels.cut(((z[0], z[-1] + 1), (y[0], y[-1] + 1), (x[0], x[-1] + 1)))
        return coarse[np.ix_(z - z[0], y - y[0], x - x[0])]

    def test_every_voxel(self, server: Server, own: Any, bucket: Bucket) -> None:
        dataset = own.tissue(bbox=self.BOX, align="nearest").read()
        assert len(np.unique(self.expected(self.BOX))) > 1
        np.testing.assert_array_equal(dataset["rois"].values, self.expected(self.BOX))
        np.testing.assert_array_equal(dataset["raw"].values, expected_raw(bucket.folder, 0, stored_box(self.BOX)))
        assert dataset["raw"].any()
        assert dataset.attrs["voxel_size_nm"] == [8, 8, 8]

    @pytest.mark.parametrize("resolution", [16, 64])
    def test_on_a_coarser_image(self, server: Server, own: Any, resolution: int) -> None:
        step = resolution // 8
        dataset = own.tissue(bbox=self.BOX, align="nearest", resolution=resolution).read()
        x0, x1, y0, y1, z0, z1 = dataset.attrs["bbox"]
        fine = (x0 * step, x1 * step, y0 * step, y1 * step, z0 * step, z1 * step)
        np.testing.assert_array_equal(dataset["rois"].values, self.expected(fine)[::step, ::step, ::step])

    def test_lazily(self, server: Server, own: Any) -> None:
        source = own.tissue(bbox=self.BOX, align="nearest")
        lazy = source.to_dask()
        assert server.count("/rois/*/256_256_256/*") == 0
        left = lazy["rois"].isel(x=slice(None, 40960 - 40720)).compute()
        chunk = "/rois/fullbrain-roi-v4/256_256_256/1216-1280_1216-1280_640-704"
        asked = {path: count for path, count in server.counts().items() if "/256_256_256/" in path}
        assert asked == {chunk: 1}
        assert server.count("/em/*.shard") == 0
        np.testing.assert_array_equal(left, self.expected((self.BOX[0], 40960, *self.BOX[2:])))
        xr.testing.assert_identical(lazy.compute(), source.read())

    def test_not_unasked(self, server: Server, own: Any) -> None:
        with pytest.raises((AlignmentError, ArgumentError)) as caught:
            own.tissue(bbox=self.BOX).read()
        for part in ("8 x 8 x 8", "256 x 256 x 256", "align='nearest'"):
            assert part in str(caught.value)

    def test_other_words(self, own: Any) -> None:
        with pytest.raises(ArgumentError, match=r"align='linear'.*there is 'nearest'"):
            own.tissue(align="linear")
