"""The shipped entry e11bio_prism, unchanged: crops of several channels, of which the labels cover a part."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from ome_zarr_models.v05 import Image

from emcatalog.errors import (
    AlignmentError,
    ArgumentError,
    OutOfBoundsError,
    SourceCorruptError,
    SourceDeniedError,
    SourceMissingError,
)
from tests.conftest import ServeAs, load_export, scale_and_translation
from tests.replica.prism import MINIATURE, RESOLUTION_NM, Crop, build_prism
from tests.replica.s3 import S3, serve_s3
from tests.replica.wire import Server

BUCKET = "s3://e11bio-prism"
CROPS = {"instance": [3, 12, 13], "semantic": [0]}
ON_S3 = [("instance", 12), ("semantic", 0)]
VOXEL_NM = (80, 35, 35)
"""(z, y, x), as the entry declares it; the attributes of the source tell those of expanded tissue."""

Crops = dict[tuple[str, int], Crop]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Crops]:
    """The bucket as a folder, and what is in it."""
    folder = tmp_path_factory.mktemp("e11bio-prism")
    return folder, build_prism(folder, CROPS)


@pytest.fixture(scope="module")
def s3(built: tuple[Path, Crops]) -> Iterator[S3]:
    """The bucket, and one crop in a bucket that nobody may read."""
    with serve_s3() as service:
        for path in (built[1][crop].path for crop in ON_S3):
            service.upload(built[0] / path, "e11bio-prism", prefix=f"{path}/")
        path = built[1]["instance", 12].path
        service.upload(built[0] / path / "labels", "private", prefix=f"{path}/labels/", public=False)
        yield service


@pytest.fixture
def on_s3(s3: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """The bucket on a real implementation of S3, at its own address."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
    return s3


@pytest.fixture
def server(built: tuple[Path, Crops], serve_as: ServeAs) -> Server:
    """The same on a server that counts requests."""
    return serve_as(BUCKET, built[0])


@pytest.fixture
def edited(built: tuple[Path, Crops], tmp_path: Path, serve_as: ServeAs) -> tuple[Path, Crop]:
    """A copy of one crop, whose folder a test changes."""
    crop = built[1]["instance", 12]
    shutil.copytree(built[0] / crop.path, tmp_path / "bucket" / crop.path)
    serve_as(BUCKET, tmp_path / "bucket")
    return tmp_path / "bucket" / crop.path, crop


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the attributes of an array."""
    attributes = json.loads((folder / ".zattrs").read_text())
    change(attributes)
    (folder / ".zattrs").write_text(json.dumps(attributes))


def voxels_asked(server: Server) -> int:
    """Requests that were not for metadata."""
    return server.count() - server.count("*/.z*") - server.count("*/zarr.json")


class TestS3:
    """Read without credentials from a real implementation."""

    @pytest.mark.parametrize(("split", "crop"), ON_S3)
    def test_one_channel(self, on_s3: S3, catalog: Any, built: tuple[Path, Crops], split: str, crop: int) -> None:
        expected = built[1][split, crop]
        for channel in (0, 9):
            dataset = catalog.e11bio_prism(split=split, crop=crop, channel=channel).read()
            assert dataset["raw"].dims == dataset["labels"].dims == ("z", "y", "x")
            assert (dataset["raw"].dtype, dataset["labels"].dtype) == (np.uint8, np.uint64)
            np.testing.assert_array_equal(dataset["raw"].values, expected.raw_at_labels[channel])
            np.testing.assert_array_equal(dataset["labels"].values, expected.labels)
            assert dataset["raw"].attrs["channel"] == channel
            assert dataset["labels"].attrs["kind"] == ("instances" if split == "instance" else "semantic")

    @pytest.mark.parametrize(("split", "crop"), ON_S3)
    def test_all_channels(self, on_s3: S3, catalog: Any, built: tuple[Path, Crops], split: str, crop: int) -> None:
        expected = built[1][split, crop]
        dataset = catalog.e11bio_prism(split=split, crop=crop, channel="all").read()
        assert dataset["raw"].dims == ("c", "z", "y", "x")
        np.testing.assert_array_equal(dataset["raw"].values, expected.raw_at_labels)
        np.testing.assert_array_equal(dataset["labels"].values, expected.labels)
        assert dataset.sizes["c"] == {12: 10, 0: 18}[crop]

    def test_warm_read_needs_no_bucket(self, on_s3: S3, catalog: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        cold = catalog.e11bio_prism(crop=12, channel="all").read()
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        xr.testing.assert_identical(catalog.e11bio_prism(crop=12, channel="all").read(), cold)

    def test_private_bucket(self, on_s3: S3, catalog: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EMCATALOG_MIRRORS", json.dumps({BUCKET: "s3://private"}))
        with pytest.raises(SourceDeniedError, match="refuses access"):
            catalog.e11bio_prism(crop=12, channels=["labels"]).read()


class TestSpace:
    """Where voxels stand."""

    def test_labels_are_placed_by_their_offset(self, server: Server, catalog: Any, built: tuple[Path, Crops]) -> None:
        crop = built[1]["instance", 3]
        dataset = catalog.e11bio_prism(crop=3).read()
        assert dataset["raw"].shape == dataset["labels"].shape == MINIATURE.labels
        np.testing.assert_array_equal(dataset["raw"].values, crop.raw_at_labels[0])
        for axis, offset, stored, size, count in zip(
            "zyx", crop.labels_offset_nm, RESOLUTION_NM, VOXEL_NM, MINIATURE.labels, strict=True
        ):
            first = offset / stored * size  # in effective nm
            np.testing.assert_allclose(dataset[axis], first + (np.arange(count) + 0.5) * size, rtol=1e-12)
        assert dataset.attrs["voxel_size_nm"] == [35, 35, 80]

    def test_image_alone_has_its_whole_extent(self, server: Server, catalog: Any, built: tuple[Path, Crops]) -> None:
        crop = built[1]["instance", 13]
        dataset = catalog.e11bio_prism(crop=13, channels=["raw"], channel="all").read()
        np.testing.assert_array_equal(dataset["raw"].values, crop.raw)
        np.testing.assert_allclose(dataset["x"][0], crop.offset_nm[2] / 168 * 35 + 17.5)

    def test_labels_alone(self, server: Server, catalog: Any, built: tuple[Path, Crops]) -> None:
        for channel in ("all", 3):  # of the image, which is not read
            dataset = catalog.e11bio_prism(crop=3, channels=["labels"], channel=channel).read()
            assert dataset["labels"].dims == ("z", "y", "x")
            np.testing.assert_array_equal(dataset["labels"].values, built[1]["instance", 3].labels)

    def test_box_within_a_crop(self, server: Server, catalog: Any, built: tuple[Path, Crops]) -> None:
        crop = built[1]["instance", 3]
        whole = catalog.e11bio_prism(crop=3)
        x, y, z = whole.read().attrs["origin_nm"]
        inside = (x + 35 * 4, x + 35 * 30, y + 35 * 3, y + 35 * 41, z + 80 * 2, z + 80 * 20)
        dataset = catalog.e11bio_prism(crop=3, bbox=inside, units="nm", channel="all").read()
        cut = (slice(2, 20), slice(3, 41), slice(4, 30))
        np.testing.assert_array_equal(dataset["labels"].values, crop.labels[cut])
        np.testing.assert_array_equal(dataset["raw"].values, crop.raw_at_labels[(slice(None), *cut)])
        assert dataset.attrs["bbox_nm"] == list(inside)
        in_voxels = [edge / size for edge, size in zip(inside, (35, 35, 35, 35, 80, 80), strict=True)]
        again = catalog.e11bio_prism(crop=3, bbox=in_voxels, channel="all").read()
        xr.testing.assert_identical(again, dataset)

    def test_box_beyond_the_labels(self, server: Server, catalog: Any, built: tuple[Path, Crops]) -> None:
        x, y, z = catalog.e11bio_prism(crop=3, channels=["raw"]).read().attrs["origin_nm"]
        corner = (x, x + 35 * 20, y, y + 35 * 30, z, z + 80 * 10)
        with pytest.raises(OutOfBoundsError, match=r"partly outside what the channels raw, labels cover: .* nm \(that"):
            catalog.e11bio_prism(crop=3, bbox=corner, units="nm").read()
        clipped = catalog.e11bio_prism(crop=3, bbox=corner, units="nm", clip=True).read()
        assert clipped.sizes == {"z": 5, "y": 13, "x": 11}
        np.testing.assert_array_equal(clipped["labels"].values, built[1]["instance", 3].labels[:5, :13, :11])
        with pytest.raises(OutOfBoundsError, match="outside"):
            catalog.e11bio_prism(crop=3, bbox=(0, 10, 0, 10, 0, 10)).read()


class TestArguments:
    """Splits, crops and channels."""

    @pytest.mark.parametrize("crop", [3, "3", np.int64(3)])
    def test_forms_of_a_crop(self, server: Server, catalog: Any, built: tuple[Path, Crops], crop: Any) -> None:
        dataset = catalog.e11bio_prism(split="instance", crop=crop, channel=0).read()
        np.testing.assert_array_equal(dataset["labels"].values, built[1]["instance", 3].labels)

    @pytest.mark.parametrize(("crop", "count"), [(3, 18), (5, 12), (12, 10), (13, 11)])
    def test_channel_beyond_those_of_the_crop(self, catalog: Any, crop: int, count: int) -> None:
        message = rf"channel={count}: raw has {count} channels, 0 to {count - 1}"
        with pytest.raises(ArgumentError, match=message):
            catalog.e11bio_prism(crop=crop, channel=count)
        assert catalog.e11bio_prism(crop=crop, channel=count - 1).arguments.channel_index == count - 1

    def test_channel_beyond_those_of_a_crop_that_the_catalog_does_not_know(self, server: Server, catalog: Any) -> None:
        source = catalog.e11bio_prism(split="semantic", crop=0, channel=18)
        with pytest.raises(ArgumentError, match="channel=18: raw has 18 channels, 0 to 17"):
            source.plan()
        assert voxels_asked(server) == 0

    @pytest.mark.parametrize("channel", [-1, 1.5, "0", "every", True, [0, 1]])
    def test_what_is_not_a_channel(self, catalog: Any, channel: Any) -> None:
        with pytest.raises(ArgumentError, match=r"give 0, 1, \.\.\. or 'all'"):
            catalog.e11bio_prism(channel=channel)

    def test_names_of_channels_are_not_their_indices(self, catalog: Any) -> None:
        with pytest.raises(TypeError, match="Did you mean 'channels'"):
            catalog.e11bio_prism(channel="raw")

    @pytest.mark.parametrize("crop", [14, "16"])
    def test_crop_that_the_split_does_not_have(self, catalog: Any, crop: Any) -> None:
        with pytest.raises(ArgumentError, match=rf"no 'instance {crop}'; there are instance 0, .*instance 13"):
            catalog.e11bio_prism(split="instance", crop=crop)
        assert list(catalog.e11bio_prism(split="semantic", crop=crop).channels) == ["raw", "labels"]

    def test_crop_that_no_split_has(self, catalog: Any) -> None:
        with pytest.raises(ValueError, match="crop=17"):
            catalog.e11bio_prism(crop=17)

    def test_crop_that_is_not_there(self, server: Server, catalog: Any) -> None:
        with pytest.raises(SourceMissingError, match=r"instance/crop_1\.zarr/raw"):
            catalog.e11bio_prism(crop=1).read()


class TestCache:
    """What is asked of the bucket, and what is not."""

    def test_a_channel_of_the_same_chunks_asks_nothing(
        self, server: Server, catalog: Any, built: tuple[Path, Crops]
    ) -> None:
        catalog.e11bio_prism(crop=3, channel=0).fetch()
        server.clear()
        source = catalog.e11bio_prism(crop=3, channel=1)  # three channels are one chunk
        assert source.plan().missing == 0
        np.testing.assert_array_equal(source.read()["raw"].values, built[1]["instance", 3].raw_at_labels[1])
        assert server.requests == []

    def test_a_channel_of_other_chunks_asks_for_those_alone(self, server: Server, catalog: Any) -> None:
        catalog.e11bio_prism(crop=3, channel=0).fetch()
        server.clear()
        report = catalog.e11bio_prism(crop=3, channel=3).fetch()
        assert report.channels["labels"].fetched == 0
        assert report.channels["raw"].fetched == report.fetched == voxels_asked(server) > 0
        server.clear()
        rest = catalog.e11bio_prism(crop=3, channel="all").fetch()
        assert rest.fetched == voxels_asked(server) == 4 * report.fetched

    def test_lazily(self, server: Server, catalog: Any) -> None:
        source = catalog.e11bio_prism(crop=13, channel="all")
        lazy = source.to_dask()
        assert voxels_asked(server) == 0
        assert all(isinstance(array.data, da.Array) for array in lazy.values())
        computed = lazy.compute()
        xr.testing.assert_identical(computed, source.read())
        picked = {"c": slice(1, 9, 3), "z": 4, "x": slice(30, 3, -5)}
        xr.testing.assert_identical(source.to_dask().isel(picked).compute(), computed.isel(picked))
        one = catalog.e11bio_prism(crop=13, channel=10)
        xr.testing.assert_identical(one.to_dask().compute(), one.read())


class TestDamagedCrops:
    """Metadata that is not what it should be."""

    @pytest.mark.parametrize(
        ("voxels", "message"),
        [
            ((0, 0, 0.5), "-9.5 x -17 x -5"),
            ((0, 0.25, 0), "-9 x -17.25 x -5"),
            ((-0.1, 0, 0), "-9 x -17 x -4.9"),
        ],
    )
    def test_labels_beside_whole_voxels(
        self, edited: tuple[Path, Crop], catalog: Any, voxels: tuple[float, ...], message: str
    ) -> None:
        folder, crop = edited
        moved = [
            nm + share * size for nm, share, size in zip(crop.labels_offset_nm, voxels, RESOLUTION_NM, strict=True)
        ]
        edit(folder / "labels", lambda attributes: attributes.update(offset=moved))
        with pytest.raises(AlignmentError) as caught:
            catalog.e11bio_prism(crop=12).plan()
        said = f"channel labels: the channels are offset by {message} voxels (x, y, z), which is not whole"
        assert said in str(caught.value)
        assert "align='nearest'" in str(caught.value)
        alone = catalog.e11bio_prism(crop=12, channels=["labels"]).read()
        np.testing.assert_array_equal(alone["labels"].values, crop.labels)

    @pytest.mark.parametrize("array", ["raw", "labels"])
    def test_without_attributes(self, edited: tuple[Path, Crop], catalog: Any, array: str) -> None:
        (edited[0] / array / ".zattrs").unlink()
        with pytest.raises(SourceCorruptError, match=rf"crop_12\.zarr/{array}/\.zattrs.*no resolution.*no offset"):
            catalog.e11bio_prism(crop=12).read()

    def test_without_its_resolution(self, edited: tuple[Path, Crop], catalog: Any) -> None:
        edit(edited[0] / "labels", lambda attributes: attributes.pop("resolution"))
        with pytest.raises(SourceCorruptError, match=r"labels/\.zattrs.*no resolution"):
            catalog.e11bio_prism(crop=12).read()

    def test_voxel_size_instead_of_resolution(self, edited: tuple[Path, Crop], catalog: Any) -> None:
        folder, crop = edited
        edit(folder / "labels", lambda attributes: attributes.update(voxel_size=attributes.pop("resolution")))
        dataset = catalog.e11bio_prism(crop=12).read()
        np.testing.assert_array_equal(dataset["raw"].values, crop.raw_at_labels[0])

    def test_without_its_array(self, edited: tuple[Path, Crop], catalog: Any) -> None:
        (edited[0] / "raw" / ".zarray").unlink()
        with pytest.raises((SourceMissingError, SourceCorruptError), match=r"crop_12\.zarr/raw"):
            catalog.e11bio_prism(crop=12).read()


class TestInstances:
    """Ids, which are far apart."""

    @pytest.fixture
    def wide(self, edited: tuple[Path, Crop]) -> np.ndarray:
        """Labels whose ids need more than 32 bits."""
        folder, crop = edited
        ids = crop.labels * np.uint64(2**35 + 1)
        ids[crop.labels == crop.labels[0, 0, 0]] = 0
        stored = zarr.open_array(folder / "labels", mode="r+")
        stored[:] = ids
        return ids

    def test_ids_are_kept(self, wide: np.ndarray, catalog: Any) -> None:
        labels = catalog.e11bio_prism(crop=12).read()["labels"].values
        assert labels.max() > 2**35
        np.testing.assert_array_equal(labels, wide)

    def test_consecutive_numbers_and_the_ids_by_number(self, wide: np.ndarray, catalog: Any) -> None:
        dataset = catalog.e11bio_prism(crop=12, consecutive=True).read()
        numbers, ids = dataset["labels"].values, dataset["labels_ids"].values
        assert (numbers.dtype, ids.dtype) == (np.uint32, np.uint64)
        assert np.unique(numbers).tolist() == list(range(len(np.unique(wide))))
        np.testing.assert_array_equal(ids[numbers], wide)
        np.testing.assert_array_equal(numbers == 0, wide == 0)

    def test_classes_are_not_numbered(self, server: Server, catalog: Any) -> None:
        with pytest.raises(ArgumentError, match="none of raw, labels holds instances"):
            catalog.e11bio_prism(split="semantic", crop=0, consecutive=True).read()


def test_export_of_all_channels(server: Server, catalog: Any, tmp_path: Path) -> None:
    source = catalog.e11bio_prism(crop=13, channel="all")
    path = source.export(tmp_path / "crop.zarr")
    xr.testing.assert_equal(load_export(path), source.read())
    for name, axes in (("raw", ["c", "z", "y", "x"]), ("labels", ["z", "y", "x"])):
        image = Image.from_zarr(zarr.open_group(path / name, mode="r"))
        (multiscale,) = image.ome_attributes.multiscales
        assert [axis.name for axis in multiscale.axes] == axes
        size, origin = scale_and_translation(multiscale)
        assert size[-3:] == list(VOXEL_NM)
        first = [float(source.read()[axis][0]) for axis in "zyx"]
        np.testing.assert_allclose(origin[-3:], first)
    with xr.open_zarr(path, group="raw") as dataset:
        assert dataset["data"].dims == ("c", "z", "y", "x")
