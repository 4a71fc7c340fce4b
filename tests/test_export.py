"""An exported box: a folder of its own that needs neither emcatalog, nor the cache, nor the network."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from ome_zarr_models.v05 import Image
from ome_zarr_models.v05.bioformats2raw import BioFormats2RawAttrs

from emcatalog.errors import ArgumentError, NotCachedError, SourceUnavailableError
from tests.conftest import BBox, Replica, load_export, place, python, scale_and_translation, stored_box
from tests.replica.malecns import expected_labels, expected_raw
from tests.replica.wire import Server

BOXES = {
    "unaligned": place(7, 139, 11, 92, 3, 70),
    "smaller than a chunk": place(5, 14, 20, 27, 8, 13),
    "one voxel": place(5, 6, 20, 21, 8, 9),
    "longer than a shard": place(-150, 140, 0, 30, 0, 20),
}
SMALL = BOXES["smaller than a chunk"]

PLAIN_ZARR = """
import json, sys, zarr
group = zarr.open_group(sys.argv[1], mode="r")
print(json.dumps([int(group[f"{name}/data"][:].sum()) for name in ("raw", "labels")]))
"""


def without_ome(dataset: xr.Dataset) -> xr.Dataset:
    """What was read back, less what only an exported folder says."""
    kept = {name: value for name, value in dataset.attrs.items() if name != "ome"}
    return dataset.drop_attrs(deep=False).assign_attrs(kept)


class TestExport:
    """The folder."""

    @pytest.mark.parametrize("bbox", BOXES.values(), ids=BOXES)
    def test_xarray_reads_the_same_dataset(
        self, male_cns: Server, catalog: Any, tmp_path: Path, replica: Replica, bbox: BBox
    ) -> None:
        source = catalog.malecns(bbox=bbox)
        path = source.export(tmp_path / "box.zarr")
        assert path == tmp_path / "box.zarr"
        dataset = load_export(path)
        xr.testing.assert_identical(without_ome(dataset), source.read())
        np.testing.assert_array_equal(dataset["raw"], expected_raw(replica.folder, 0, stored_box(bbox)))
        np.testing.assert_array_equal(dataset["labels"], expected_labels(replica.folder, 0, stored_box(bbox)))

    def test_xarray_opens_it_without_a_warning(self, male_cns: Server, catalog: Any, tmp_path: Path) -> None:
        path = catalog.malecns(bbox=SMALL).export(tmp_path / "box.zarr")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert list(xr.open_zarr(path, group="raw")) == ["data"]
            assert set(xr.open_datatree(path, engine="zarr").children) == {"raw", "labels", "OME"}

    @pytest.mark.parametrize(("resolution", "size"), [(None, 8.0), (16, 16.0)])
    def test_its_images_are_ome_zarr(
        self, male_cns: Server, catalog: Any, tmp_path: Path, resolution: float | None, size: float
    ) -> None:
        bbox = place(8, 72, 4, 40, 0, 20)
        path = catalog.malecns(bbox=bbox, resolution=resolution).export(tmp_path / "box.zarr")
        corner = [edge * 8 for edge in (bbox[4], bbox[2], bbox[0])]
        for name in ("raw", "labels"):
            image = Image.from_zarr(zarr.open_group(path / name, mode="r"))
            (multiscale,) = image.ome_attributes.multiscales
            assert multiscale.name == name
            assert [(axis.name, axis.type, axis.unit) for axis in multiscale.axes] == [
                (axis, "space", "nanometer") for axis in "zyx"
            ]
            assert scale_and_translation(multiscale) == ([size] * 3, [edge + size / 2 for edge in corner])
            metadata: Any = zarr.open_array(path / name / multiscale.datasets[0].path, mode="r").metadata
            assert metadata.dimension_names == ("z", "y", "x")

    def test_the_folder_is_a_collection_of_images(self, male_cns: Server, catalog: Any, tmp_path: Path) -> None:
        root = zarr.open_group(catalog.malecns(bbox=SMALL).export(tmp_path / "box.zarr"), mode="r")
        BioFormats2RawAttrs.model_validate(root.attrs["ome"])
        assert dict(root["OME"].attrs)["ome"] == {"version": "0.5", "series": ["raw", "labels"]}

    def test_it_stands_alone(self, male_cns: Server, catalog: Any, tmp_path: Path) -> None:
        source = catalog.malecns(bbox=BOXES["unaligned"])
        path, dataset = source.export(tmp_path / "box.zarr"), source.read()
        shutil.rmtree(tmp_path / "cache")
        male_cns.clear()
        moved = path.rename(tmp_path / "moved.zarr")
        got = python(PLAIN_ZARR, str(moved))
        assert got == str([int(dataset[name].values.sum()) for name in ("raw", "labels")])
        xr.testing.assert_equal(load_export(moved), dataset)
        assert male_cns.requests == []

    def test_what_it_says_about_itself(self, male_cns: Server, catalog: Any, tmp_path: Path) -> None:
        dataset = load_export(catalog.malecns(bbox=SMALL).export(tmp_path / "box.zarr"))
        assert dataset.attrs["bbox"] == list(SMALL)
        assert dataset.attrs["licence"] == "CC BY 4.0"
        assert dataset["labels"].attrs["source"] == "precomputed://gs://flyem-male-cns/v0.9/segmentation"
        assert dataset["x"].attrs["units"] == "nm"

    def test_one_channel(self, male_cns: Server, catalog: Any, tmp_path: Path) -> None:
        path = catalog.malecns(bbox=SMALL, channels=["labels"]).export(tmp_path / "box.zarr")
        assert list(load_export(path)) == ["labels"]

    def test_from_the_cache_alone(self, male_cns: Server, catalog: Any, tmp_path: Path) -> None:
        dataset = catalog.malecns(bbox=SMALL).read()
        male_cns.clear()
        path = catalog.malecns(bbox=SMALL, offline=True).export(tmp_path / "box.zarr")
        xr.testing.assert_equal(load_export(path), dataset)
        assert male_cns.requests == []

    def test_others_may_read_it(self, male_cns: Server, catalog: Any, tmp_path: Path) -> None:
        path = catalog.malecns(bbox=SMALL).export(str(tmp_path / "new folder" / "box.zarr"))
        assert path.stat().st_mode & 0o055 == 0o055


class TestPath:
    """Where it may be written."""

    def test_what_exists_is_refused(self, male_cns: Server, catalog: Any, tmp_path: Path) -> None:
        source = catalog.malecns(bbox=SMALL)
        path = source.export(tmp_path / "box.zarr")
        before = sorted(path.rglob("*"))
        with pytest.raises(ArgumentError, match=r"box\.zarr exists.*overwrite=True"):
            source.export(path)
        assert sorted(path.rglob("*")) == before

    def test_refused_before_anything_is_fetched(self, male_cns: Server, catalog: Any, tmp_path: Path) -> None:
        (tmp_path / "box.zarr").mkdir()
        with pytest.raises(ArgumentError, match="exists"):
            catalog.malecns(bbox=SMALL).export(tmp_path / "box.zarr")
        assert male_cns.count("*.shard") == 0

    def test_overwrite(self, male_cns: Server, catalog: Any, tmp_path: Path) -> None:
        path = catalog.malecns(bbox=BOXES["unaligned"]).export(tmp_path / "box.zarr")
        (path / "left over").touch()
        source = catalog.malecns(bbox=SMALL)
        source.export(path, overwrite=True)
        xr.testing.assert_equal(load_export(path), source.read())
        assert not (path / "left over").exists()

    def test_overwrite_spares_what_is_no_zarr(self, male_cns: Server, catalog: Any, tmp_path: Path) -> None:
        """A slip of the finger must not cost somebody's home folder."""
        thesis = tmp_path / "home" / "thesis.tex"
        thesis.parent.mkdir()
        thesis.write_text("ten years")
        for path in (thesis, thesis.parent):
            with pytest.raises(ArgumentError):
                catalog.malecns(bbox=SMALL).export(path, overwrite=True)
        assert thesis.read_text() == "ten years"


class TestFailure:
    """An export that does not come to its end."""

    def test_leaves_nothing(self, male_cns: Server, catalog: Any, tmp_path: Path) -> None:
        male_cns.fail("/v0.9/*.shard", 500)
        with pytest.raises(SourceUnavailableError):
            catalog.malecns(bbox=SMALL).export(tmp_path / "out" / "box.zarr")
        with pytest.raises(NotCachedError):
            catalog.malecns(bbox=SMALL, offline=True).export(tmp_path / "out" / "box.zarr")
        assert not list((tmp_path / "out").glob("*"))

    def test_keeps_what_was_there(self, male_cns: Server, catalog: Any, tmp_path: Path) -> None:
        source = catalog.malecns(bbox=SMALL)
        path = source.export(tmp_path / "out" / "box.zarr")
        male_cns.fail("*.shard", 500)
        with pytest.raises(SourceUnavailableError):
            catalog.malecns(bbox=BOXES["unaligned"]).export(path, overwrite=True)
        assert [entry.name for entry in path.parent.iterdir()] == ["box.zarr"]
        xr.testing.assert_equal(load_export(path), source.read())

    def test_a_shard_that_rots_meanwhile(self, male_cns: Server, catalog: Any, tmp_path: Path) -> None:
        """Fails while it is written, not while it is fetched."""
        source = catalog.malecns(bbox=place(0, 64, 0, 64, -32, 32))  # all that its fetch stores, the rotten byte too
        source.fetch()
        for shard in (tmp_path / "cache").rglob("data/c/*/*/*"):
            content = bytearray(shard.read_bytes())
            content[10] ^= 1
            shard.write_bytes(content)
        with pytest.raises(OSError, match="cache verify"):
            source.export(tmp_path / "out" / "box.zarr")
        assert not list((tmp_path / "out").iterdir())
