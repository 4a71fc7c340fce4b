"""The shipped entry wildenberg2023, unchanged, against a miniature of its bucket: what was put in comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

import emcatalog
from emcatalog.errors import ArgumentError, OutOfBoundsError
from tests.conftest import BBox, ServeAs, stored_box
from tests.replica import stored
from tests.replica.bossdb import EXPERIMENTS, Wildenberg, build_wildenberg
from tests.replica.wire import Server

BUCKET = "https://bossdb-open-data.s3.amazonaws.com"
VOLUMES = {"raw": "em", "psd": "psd", "vesicle_cloud": "vesicle", "saturated": "saturated"}
"""The replica's name of each channel."""
DTYPES = {"raw": "uint8", "psd": "uint8", "vesicle_cloud": "uint8", "saturated": "uint32"}
NM = (12, 12, 12, 12, 40, 40)
"""Of a voxel, for the six numbers of a box."""
BEGINS: Mapping[str, tuple[int, int, int]] = {"p105": (48, 48, 4), "p14": (0, 0, 0)}
"""The first voxel of the labels, (x, y, z) at 12 nm; the box that all channels share begins there."""
ENDS: Mapping[str, tuple[int, int, int]] = {"p105": (10048, 11376, 908), "p14": (6688, 9600, 1308)}
"""One past their last."""


@dataclass
class Bucket:
    """A bucket with tissue in the middle and in two corners of what the channels of an experiment share."""

    folder: Path
    pieces: list[Wildenberg] = field(default_factory=list)

    def cut(self, channel: str, bbox: BBox, fine: bool = False) -> NDArray[Any]:
        """What a reader must return; the box is in voxels of 12 nm, or of 6 nm."""
        name = VOLUMES[channel] + ("_fine" if fine else "")
        cuts: NDArray[Any] = np.stack([getattr(piece, name).cut(stored_box(bbox)) for piece in self.pieces])
        return cuts.max(axis=0)

    def scale(self, channel: str, index: int = 0) -> stored.Scale:
        """A channel as it is stored."""
        return stored.open_scale(self.folder / self.pieces[0].experiment.url_path(VOLUMES[channel]), index)


def build(folder: Path, experiment: str, gzipped: bool = True) -> Bucket:
    """Tissue in the replica's own box, at the first voxel of the labels and at their last."""
    (x0, y0, z0), (x1, y1, z1) = BEGINS[experiment], ENDS[experiment]
    first = ((z0, z0 + 5), (y0, y0 + 40), (x0, x0 + 50))
    last = ((z1 - 6, z1), (y1 - 30, y1), (x1 - 60, x1))
    bucket = Bucket(folder)
    for seed, box in enumerate((((12, 32), (500, 596), (1000, 1112)), first, last)):
        bucket.pieces.append(build_wildenberg(folder, experiment, box, seed=seed, gzipped=gzipped))
    return bucket


def boxes(experiment: str) -> dict[str, BBox]:
    """In voxels of 12 nm."""
    (x0, y0, z0), (x1, y1, z1) = BEGINS[experiment], ENDS[experiment]
    return {
        "inside a chunk": (1030, 1050, 520, 550, 21, 30),
        "across chunks": (1005, 1110, 503, 590, 13, 31),
        "one voxel": (1080, 1081, 570, 571, 25, 26),
        "the first voxels": (x0, x0 + 60, y0, y0 + 60, z0, z0 + 9),
        "the last voxels": (x1 - 70, x1, y1 - 40, y1, z1 - 8, z1),
        "over the edge of the data": (1100, 1130, 580, 620, 25, 40),
        "nothing there": (5000, 5030, 5000, 5020, 300, 310),
    }


CASES = [pytest.param(name, bbox, id=f"{name} {box}") for name in EXPERIMENTS for box, bbox in boxes(name).items()]


def in_nm(bbox: BBox) -> BBox:
    x0, x1, y0, y1, z0, z1 = (edge * size for edge, size in zip(bbox, NM, strict=True))
    return x0, x1, y0, y1, z0, z1


@pytest.fixture(scope="module")
def buckets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bucket]:
    """By experiment; both lie in one bucket."""
    folder = tmp_path_factory.mktemp("bossdb-open-data")
    return {name: build(folder, name) for name in EXPERIMENTS}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Bucket:
    """p105 with chunks that are not gzipped."""
    return build(tmp_path_factory.mktemp("plain"), "p105", gzipped=False)


@pytest.fixture
def server(buckets: dict[str, Bucket], serve_as: ServeAs) -> Server:
    """The bucket, in its own place."""
    return serve_as(BUCKET, buckets["p105"].folder)


def assert_exact(dataset: xr.Dataset, bucket: Bucket, bbox: BBox) -> None:
    """Every channel is what was put in."""
    assert {name: array.dtype for name, array in dataset.items()} == DTYPES
    for channel in VOLUMES:
        np.testing.assert_array_equal(dataset[channel].values, bucket.cut(channel, bbox))
    assert dataset.attrs["bbox"] == list(bbox)
    assert dataset.attrs["bbox_nm"] == list(in_nm(bbox))


def stored_chunks(bucket: Bucket, channel: str, bbox: BBox, index: int = 0) -> set[stored.Chunk]:
    """Places of the chunks that hold a box, which is in voxels of the stored scale."""
    return set(bucket.scale(channel, index).chunks(stored_box(bbox)))


class TestRead:
    """What ``read`` gives, at 12 nm."""

    @pytest.mark.parametrize(("experiment", "bbox"), CASES)
    def test_voxels_are_exact(
        self, server: Server, catalog: Any, buckets: dict[str, Bucket], experiment: str, bbox: BBox
    ) -> None:
        dataset = catalog.wildenberg2023(experiment=experiment, bbox=in_nm(bbox)).read()
        assert_exact(dataset, buckets[experiment], bbox)

    @pytest.mark.parametrize("experiment", EXPERIMENTS)
    def test_boxes_hold_something_of_every_channel(self, buckets: dict[str, Bucket], experiment: str) -> None:
        for box in ("across chunks", "the first voxels", "the last voxels"):
            for channel in VOLUMES:
                assert buckets[experiment].cut(channel, boxes(experiment)[box]).any()

    def test_objects_that_are_not_gzipped(self, plain: Bucket, serve_as: ServeAs, catalog: Any) -> None:
        server = serve_as(BUCKET, plain.folder)
        bbox = boxes("p105")["across chunks"]
        assert_exact(catalog.wildenberg2023(bbox=in_nm(bbox)).read(), plain, bbox)
        assert server.sent("*/psd_autoseg/12*") == 8 * 512 * 512 * 16

    def test_objects_are_gzipped(self, server: Server, catalog: Any) -> None:
        catalog.wildenberg2023(bbox=in_nm(boxes("p105")["across chunks"]), channels=["psd"]).fetch()
        assert 0 < server.sent("*/psd_autoseg/12*") < 512 * 512 * 16

    def test_chunks_that_are_not_there_are_background(
        self, server: Server, catalog: Any, buckets: dict[str, Bucket]
    ) -> None:
        source = catalog.wildenberg2023(bbox=in_nm(boxes("p105")["nothing there"]))
        report = source.fetch()
        counts = {name: (channel.fetched, channel.absent) for name, channel in report.channels.items()}
        assert counts == dict.fromkeys(VOLUMES, (2, 2))
        server.clear()
        assert not any(array.any() for array in source.read().values())
        assert server.requests == []

    def test_chunks_that_are_not_there_are_counted(
        self, server: Server, catalog: Any, buckets: dict[str, Bucket]
    ) -> None:
        bbox = boxes("p105")["over the edge of the data"]
        report = catalog.wildenberg2023(bbox=in_nm(bbox), channels=["psd", "saturated"]).fetch()
        for channel in ("psd", "saturated"):
            scale = buckets["p105"].scale(channel)
            there = [scale.is_there(chunk) for chunk in scale.chunks(stored_box(bbox))]
            assert (report.channels[channel].fetched, report.channels[channel].absent) == (2, there.count(False))
            assert sorted(there) == [False, True]

    def test_default_box_is_what_all_channels_share(self, server: Server, catalog: Any) -> None:
        for experiment in EXPERIMENTS:
            (x0, y0, z0), (x1, y1, z1) = BEGINS[experiment], ENDS[experiment]
            shared = (x0, x1, y0, y1, z0, z1)
            assert catalog.wildenberg2023(experiment=experiment).plan().box.xyz() == shared
            assert catalog.wildenberg2023(experiment=experiment, bbox=None).plan().box.xyz() == shared

    def test_box_in_voxels(self, server: Server, catalog: Any, buckets: dict[str, Bucket]) -> None:
        bbox = boxes("p105")["inside a chunk"]
        assert_exact(catalog.wildenberg2023(bbox=bbox, units="voxel").read(), buckets["p105"], bbox)


class TestSwappedImage:
    """The image of p105 is stored with x and y swapped, and stands as the labels do."""

    @pytest.mark.parametrize("experiment", EXPERIMENTS)
    @pytest.mark.parametrize("box", ["inside a chunk", "across chunks", "the first voxels", "the last voxels"])
    def test_image_at_six_nm(
        self, server: Server, catalog: Any, buckets: dict[str, Bucket], experiment: str, box: str
    ) -> None:
        x0, x1, y0, y1, z0, z1 = boxes(experiment)[box]
        fine = (2 * x0 + 1, 2 * x1 - 1, 2 * y0 + 1, 2 * y1, z0, z1)
        in_space = [edge * size for edge, size in zip(fine, (6, 6, 6, 6, 40, 40), strict=True)]
        source = catalog.wildenberg2023(experiment=experiment, bbox=in_space, resolution=(6, 6, 40), channels=["raw"])
        dataset = source.read()
        expected = buckets[experiment].cut("raw", fine, fine=True)
        assert expected.any()
        np.testing.assert_array_equal(dataset["raw"].values, expected)
        assert dataset.attrs["voxel_size_nm"] == [6, 6, 40]
        assert dataset.attrs["bbox"] == list(fine)

    def test_extent_is_swapped_too(self, server: Server, catalog: Any, buckets: dict[str, Bucket]) -> None:
        x, y = 10150, 11450  # of the image at 12 nm; the other way round as it is stored
        assert buckets["p105"].scale("raw", 1).extent == ((0, 915), (0, x), (0, y))
        whole = catalog.wildenberg2023(bbox=None, channels=["raw"])
        assert whole.plan().box.xyz() == (0, x, 0, y, 0, 915)
        beyond = (9990, 10040, 11340, 11370, 902, 908)  # along y behind what would be x
        assert buckets["p105"].cut("raw", beyond).any()
        assert_exact(catalog.wildenberg2023(bbox=in_nm(beyond)).read(), buckets["p105"], beyond)
        with pytest.raises(OutOfBoundsError, match=r"y 0\.\.11450, z 0\.\.915 voxels"):
            catalog.wildenberg2023(bbox=(10160, 10200, 0, 10, 0, 10), units="voxel", channels=["raw"]).plan()

    def test_lazy_blocks_are_swapped_too(self, server: Server, catalog: Any) -> None:
        source = catalog.wildenberg2023(bbox=in_nm((1005, 1110, 503, 590, 13, 31)))
        xr.testing.assert_identical(source.to_dask().compute(), source.read())

    def test_mirror_is_named_by_its_axes(
        self, server: Server, catalog: Any, buckets: dict[str, Bucket], tmp_path: Path
    ) -> None:
        bbox = boxes("p105")["inside a chunk"]
        catalog.wildenberg2023(bbox=in_nm(bbox), channels=["raw"]).fetch()
        mirrors = tmp_path / "cache/https/bossdb-open-data.s3.amazonaws.com/wildenberg2023/mouse_v1_l4_p105"
        assert [path.name for path in mirrors.iterdir()] == ["em@yxz"]
        # Another catalog takes the axes for what they are called: the same voxels, elsewhere in its space.
        text = Path(emcatalog.CATALOG).read_text()
        assert text.count("axes: yxz") == 1
        other_file = tmp_path / "other.yaml"
        other_file.write_text(text.replace("              axes: yxz\n", ""))
        x0, x1, y0, y1, z0, z1 = bbox
        source = emcatalog.open_catalog(other_file).wildenberg2023(
            bbox=(y0, y1, x0, x1, z0, z1), units="voxel", channels=["raw"]
        )
        assert source.plan().cached == 0
        np.testing.assert_array_equal(source.read()["raw"].values.transpose(0, 2, 1), buckets["p105"].cut("raw", bbox))
        assert sorted(path.name for path in mirrors.iterdir()) == ["em", "em@yxz"]

    def test_image_of_p14_is_not_swapped(self, server: Server, catalog: Any, tmp_path: Path) -> None:
        bbox = boxes("p14")["inside a chunk"]
        catalog.wildenberg2023(experiment="p14", bbox=in_nm(bbox), channels=["raw"]).fetch()
        assert (tmp_path / f"cache/https/{BUCKET[8:]}/wildenberg2023/mouse_v1_l4_p14/em_aligned").is_dir()


class TestResolution:
    """Channels have different ones."""

    FINE: BBox = (2061, 2100, 1041, 1098, 21, 30)
    """In voxels of 6 nm, none of the edges along x and y but one at an edge of 12 nm."""

    def test_labels_have_twelve_nm_alone(self, server: Server, catalog: Any) -> None:
        for channels in (["saturated"], ["raw", "saturated"]):
            source = catalog.wildenberg2023(resolution=(6, 6, 40), channels=channels)
            with pytest.raises(ArgumentError, match=r"saturated_autoseg has no scale of 6 x 6 x 40 nm.*12 x 12 x 40"):
                source.plan()

    @pytest.mark.parametrize("experiment", EXPERIMENTS)
    def test_nearest_labels_on_the_grid_of_the_image(
        self, server: Server, catalog: Any, buckets: dict[str, Bucket], experiment: str
    ) -> None:
        x0, x1, y0, y1, z0, z1 = self.FINE
        source = catalog.wildenberg2023(
            experiment=experiment,
            bbox=(6 * x0, 6 * x1, 6 * y0, 6 * y1, 40 * z0, 40 * z1),
            resolution=(6, 6, 40),
            channels=["raw", "saturated"],
            align="nearest",
        )
        dataset = source.read()
        around = buckets[experiment].cut("saturated", (x0 // 2, x1 // 2 + 1, y0 // 2, y1 // 2 + 1, z0, z1))
        repeated = np.repeat(np.repeat(around, 2, axis=1), 2, axis=2)
        expected = repeated[:, y0 % 2 : y0 % 2 + y1 - y0, x0 % 2 : x0 % 2 + x1 - x0]
        assert len(np.unique(expected)) > 1
        np.testing.assert_array_equal(dataset["saturated"].values, expected)
        np.testing.assert_array_equal(dataset["raw"].values, buckets[experiment].cut("raw", self.FINE, fine=True))
        assert dataset["saturated"].attrs["aligned"] == "nearest, from 12 x 12 x 40 nm (x, y, z)"
        xr.testing.assert_identical(source.to_dask().compute(), dataset)


class TestBounds:
    """Boxes that are not inside, and boxes in the wrong units."""

    PARTLY: BBox = (40, 70, 45, 60, 1, 8)
    """The labels begin at 48, 48, 4, and the image before them."""

    def test_partly_outside(self, server: Server, catalog: Any, buckets: dict[str, Bucket]) -> None:
        source = catalog.wildenberg2023(bbox=in_nm(self.PARTLY))
        with pytest.raises(OutOfBoundsError, match=r"partly outside.*pass clip=True"):
            source.read()
        assert server.count("*/12.0_12.0_40.0/*") == 0
        clipped = catalog.wildenberg2023(bbox=in_nm(self.PARTLY), clip=True).read()
        assert_exact(clipped, buckets["p105"], (48, 70, 48, 60, 4, 8))

    def test_partly_outside_at_the_end(self, server: Server, catalog: Any, buckets: dict[str, Bucket]) -> None:
        bbox = (10000, 10060, 11350, 11400, 900, 910)
        with pytest.raises(OutOfBoundsError, match="partly outside"):
            catalog.wildenberg2023(bbox=in_nm(bbox)).read()
        clipped = catalog.wildenberg2023(bbox=in_nm(bbox), clip=True).read()
        assert_exact(clipped, buckets["p105"], (10000, 10048, 11350, 11376, 900, 908))

    def test_image_alone_begins_before_the_labels(
        self, server: Server, catalog: Any, buckets: dict[str, Bucket]
    ) -> None:
        dataset = catalog.wildenberg2023(bbox=in_nm(self.PARTLY), channels=["raw"]).read()
        np.testing.assert_array_equal(dataset["raw"].values, buckets["p105"].cut("raw", self.PARTLY))

    VOXELS = "x 48..10048, y 48..11376, z 4..908 voxels"
    SPACE = "x 576..120576, y 576..136512, z 160..36320 nm"

    def test_voxels_given_as_nm(self, server: Server, catalog: Any) -> None:
        with pytest.raises(OutOfBoundsError) as caught:
            catalog.wildenberg2023(bbox=(1000, 1112, 500, 596, 12, 32)).read()
        assert f"cover: {self.SPACE} (that is {self.VOXELS})" in str(caught.value)
        assert "x 1000..1112, y 500..596, z 12..32 nm (that is x 83.33333333..92.66666667," in str(caught.value)

    def test_nm_given_as_voxels(self, server: Server, catalog: Any) -> None:
        with pytest.raises(OutOfBoundsError) as caught:
            catalog.wildenberg2023(bbox=in_nm((5000, 5112, 5000, 5096, 120, 320)), units="voxel").read()
        assert f"cover: {self.VOXELS} (that is {self.SPACE})" in str(caught.value)

    def test_units_alone_do_not_reinterpret_the_default_box(self, catalog: Any) -> None:
        with pytest.raises(ArgumentError, match="give both"):
            catalog.wildenberg2023(units="voxel")

    def test_unknown_experiment(self, catalog: Any) -> None:
        with pytest.raises(ValueError, match=r"p105.*p14"):
            catalog.wildenberg2023(experiment="p28")


class TestCache:
    """What is asked of the bucket, and what is not."""

    def test_a_second_box_asks_for_the_missing_chunks_alone(
        self, server: Server, catalog: Any, buckets: dict[str, Bucket]
    ) -> None:
        first, second = (1010, 1060, 510, 550, 22, 30), (1030, 1100, 530, 580, 24, 40)
        catalog.wildenberg2023(bbox=in_nm(first)).fetch()
        server.clear()
        source = catalog.wildenberg2023(bbox=in_nm(second))
        report = source.fetch()
        asked = 0
        for name, channel in report.channels.items():
            swapped = name == "raw"
            index = 1 if swapped else 0
            had, wanted = (
                stored_chunks(buckets["p105"], name, (*b[2:4], *b[:2], *b[4:]) if swapped else b, index)
                for b in (first, second)
            )
            assert (channel.fetched, channel.reused) == (len(wanted - had), len(wanted & had))
            assert 0 < len(wanted & had) < len(wanted)
            asked += len(wanted - had)
        # Once or twice: of a chunk that is not there, the background is asked for again.
        assert sum("/12.0_12.0_40.0/" in path for path in server.counts()) == asked
        assert_exact(source.read(), buckets["p105"], second)

    def test_experiments_do_not_share_mirrors(self, server: Server, catalog: Any, buckets: dict[str, Bucket]) -> None:
        bbox = boxes("p105")["inside a chunk"]
        catalog.wildenberg2023(bbox=in_nm(bbox)).fetch()
        assert_exact(catalog.wildenberg2023(bbox=in_nm(bbox), experiment="p14").read(), buckets["p14"], bbox)

    def test_warm_read_asks_nothing_even_offline(self, server: Server, catalog: Any) -> None:
        bbox = in_nm(boxes("p105")["across chunks"])
        cold = catalog.wildenberg2023(bbox=bbox).read()
        server.clear()
        xr.testing.assert_identical(catalog.wildenberg2023(bbox=bbox).read(), cold)
        xr.testing.assert_identical(catalog.wildenberg2023(bbox=bbox, offline=True).read(), cold)
        assert server.requests == []
