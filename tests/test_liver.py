"""The shipped entry human_liver, unchanged, against miniatures of its slices: every voxel, and every request."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import xarray as xr
from numpy.typing import NDArray
from PIL import Image

from emcatalog.errors import OutOfBoundsError, TooLargeError
from emcatalog.fetch import IN_FLIGHT_BYTES
from tests.conftest import BBox, ServeAs, python
from tests.replica.ebi import FORMS, Liver, build_liver, mask_path, raw_path, write_liver
from tests.replica.wire import Server

DATA = "https://ftp.ebi.ac.uk/empiar/world_availability/13356/data"
MASKS = ["er", "mito", "nucleus"]
SLICES = 597
"""That the entry says there are; rows and columns are those of the first slice."""
SHAPE = (5, 1000, 500)
"""Of the miniature, (z, y, x): the published one has 20 times as many rows and 40 times as many columns."""
Built = tuple[Path, Liver, Liver]
WHOLE: BBox = (0, 500, 0, 1000, 0, 5)
BOXES: dict[str, BBox] = {
    "of the issue's example": (30, 43, 30, 56, 1, 3),
    "inside a chunk": (140, 150, 70, 120, 2, 3),
    "across chunks": (100, 300, 400, 600, 0, 5),
    "one voxel": (333, 334, 191, 192, 4, 5),
    "the first voxels": (0, 40, 0, 20, 0, 1),
    "the last rows and columns": (440, 500, 960, 1000, 3, 5),
    "the tissue": (30, 472, 24, 978, 0, 5),
}

WRITTEN_AND_PEAK = """
import json, re, sys
from pathlib import Path
import intake, emcatalog

def number(file, key):
    return int(re.search(rf"{key}:\\s+(\\d+)", Path("/proc/self", file).read_text())[1])

*plane, slices, step, elsewhere = json.loads(sys.argv[1])
liver = intake.open_catalog(emcatalog.CATALOG).human_liver
liver(bbox=(0, 1, 0, 1, 0, 1), channels=["raw"], cache_dir=elsewhere).fetch()  # what is loaded once is loaded
written, peak, fetched = number("io", "wchar"), number("status", "VmHWM"), 0
for z in range(0, slices, step):
    fetched += liver(bbox=(*plane, z, z + step), channels=["raw"]).fetch(progress=False).fetched_bytes
written, peak = number("io", "wchar") - written, 1024 * (number("status", "VmHWM") - peak)
print(json.dumps({"written": written, "growth": peak, "decoded": fetched}))
"""

READ = """
import sys, json, intake, emcatalog
dataset = intake.open_catalog(emcatalog.CATALOG).human_liver(bbox=json.loads(sys.argv[1])).read()
print(int(dataset["er"].values.astype(int).sum()))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A folder, its first slices and its last."""
    folder = tmp_path_factory.mktemp("liver")
    return folder, build_liver(folder, SHAPE), build_liver(folder, (1, *SHAPE[1:]), first=SLICES - 1)


@pytest.fixture
def server(built: Built, serve_as: ServeAs) -> Server:
    """The miniature, in the place of the published slices."""
    return serve_as(DATA, built[0])


def expected(liver: Liver, channel: str, bbox: BBox) -> NDArray[Any]:
    x0, x1, y0, y1, z0, z1 = bbox
    array = liver.raw if channel == "raw" else liver.masks[channel]
    return array[z0 - liver.first : z1 - liver.first, y0:y1, x0:x1]


def assert_exact(dataset: xr.Dataset, liver: Liver, bbox: BBox) -> None:
    """Every channel that is there is what was put in."""
    for name, array in dataset.items():
        np.testing.assert_array_equal(array.values, expected(liver, str(name), bbox))
        assert array.dtype == (np.uint16 if name == "raw" else np.uint8)
    assert dataset.attrs["bbox"] == list(bbox)


def asked(server: Server, path: str) -> list[str | None]:
    """Ranges of one file that were asked for; None for the whole file."""
    return [record.range for record in server.requests if record.path == f"/{path}"]


class TestRead:
    """What ``read`` gives."""

    @pytest.mark.parametrize("bbox", BOXES.values(), ids=BOXES)
    def test_voxels_are_exact(self, server: Server, catalog: Any, built: Built, bbox: BBox) -> None:
        dataset = catalog.human_liver(bbox=bbox).read()
        assert list(dataset) == ["raw", *MASKS]
        assert_exact(dataset, built[1], bbox)

    def test_masks_are_0_and_255_and_none_is_empty(self, server: Server, catalog: Any) -> None:
        dataset = catalog.human_liver(bbox=WHOLE, channels=MASKS).read()
        assert {name: np.unique(array).tolist() for name, array in dataset.items()} == {
            name: [0, 255] for name in MASKS
        }

    def test_coordinates(self, server: Server, catalog: Any) -> None:
        dataset = catalog.human_liver(bbox=BOXES["of the issue's example"]).read()
        assert dataset["z"].values.tolist() == [1.5 * 55, 2.5 * 55]
        np.testing.assert_array_equal(dataset["x"], (np.arange(30, 43) + 0.5) * 8)
        assert dataset.attrs["voxel_size_nm"] == [8, 8, 55]

    def test_the_last_slice(self, server: Server, catalog: Any, built: Built) -> None:
        bbox = (440, 500, 960, 1000, SLICES - 1, SLICES)
        assert_exact(catalog.human_liver(bbox=bbox).read(), built[2], bbox)

    def test_box_in_nm(self, server: Server, catalog: Any, built: Built) -> None:
        bbox = BOXES["inside a chunk"]
        in_nm = [edge * size for edge, size in zip(bbox, (8, 8, 8, 8, 55, 55), strict=True)]
        assert_exact(catalog.human_liver(bbox=in_nm, units="nm", channels=["raw"]).read(), built[1], bbox)

    def test_lazily(self, server: Server, catalog: Any) -> None:
        source = catalog.human_liver(bbox=BOXES["across chunks"])
        xr.testing.assert_identical(source.to_dask().compute(), source.read())

    @pytest.mark.parametrize("form", FORMS)
    def test_every_form_of_tiff(self, tmp_path: Path, serve_as: ServeAs, catalog: Any, form: str) -> None:
        liver = build_liver(tmp_path / "slices", (2, 140, 200), form=FORMS[form])
        serve_as(DATA, tmp_path / "slices")
        for bbox in ((70, 130, 60, 70, 1, 2), (0, 200, 0, 140, 0, 2), (198, 200, 139, 140, 0, 2)):
            assert_exact(catalog.human_liver(bbox=bbox, channels=["raw"]).read(), liver, bbox)


class TestBounds:
    """Boxes that are not inside, or too large."""

    def test_partly_outside(self, server: Server, catalog: Any, built: Built) -> None:
        bbox = (450, 520, 980, 1010, 0, 2)
        with pytest.raises(OutOfBoundsError) as caught:
            catalog.human_liver(bbox=bbox).read()
        extent = "x 0..500, y 0..1000, z 0..597 voxels (that is x 0..4000, y 0..8000, z 0..32835 nm)"
        assert extent in str(caught.value)
        clipped = catalog.human_liver(bbox=bbox, clip=True).read()
        assert_exact(clipped, built[1], (450, 500, 980, 1000, 0, 2))

    def test_beyond_the_last_slice(self, server: Server, catalog: Any) -> None:
        with pytest.raises(OutOfBoundsError, match="is outside"):
            catalog.human_liver(bbox=(0, 10, 0, 10, SLICES, SLICES + 1)).read()

    def test_everything_is_refused_before_a_voxel_is_asked_for(
        self, tmp_path: Path, serve_as: ServeAs, catalog: Any
    ) -> None:
        picture = Image.new("1", (20000, 20000))  # one bit a pixel, and quickly written
        for name in MASKS:
            (tmp_path / mask_path(name, 0)).parent.mkdir()
            picture.save(tmp_path / mask_path(name, 0))
        server = serve_as(DATA, tmp_path)
        with pytest.raises(TooLargeError, match=r"20000 x 20000 x 597 voxels.*716\.4 GB.*to_dask\(\).*smaller bbox"):
            catalog.human_liver(channels=MASKS).read()
        assert all(record.range is not None for record in server.requests), "headers alone"


class TestRequests:
    """What is asked of the server, and what is not."""

    @pytest.fixture
    def noise(self, tmp_path: Path, serve_as: ServeAs) -> tuple[Server, Path, Liver]:
        """Slices whose strips are many times larger than their header, even compressed."""
        raw = np.random.default_rng(0).integers(0, 2**16, (3, 256, 3000), np.uint16)
        liver = write_liver(tmp_path / "noise", raw, {})
        return serve_as(DATA, tmp_path / "noise"), tmp_path / "noise", liver

    def test_strips_of_the_rows_alone_in_one_request(self, noise: tuple[Server, Path, Liver], catalog: Any) -> None:
        server, folder, liver = noise
        bbox = (1000, 1100, 130, 150, 1, 2)
        assert_exact(catalog.human_liver(bbox=bbox, channels=["raw"]).read(), liver, bbox)
        with tifffile.TiffFile(folder / raw_path(1)) as tiff:
            page = tiff.pages.first
            begin, end = page.dataoffsets[128], page.dataoffsets[192]
        assert asked(server, raw_path(1)) == ["bytes=0-65535", f"bytes={begin}-{end - 1}"]
        assert set(asked(server, raw_path(0))) == {"bytes=0-65535"}, "the first slice says how large all are"
        assert asked(server, raw_path(2)) == []

    def test_rows_of_several_chunks(self, noise: tuple[Server, Path, Liver], catalog: Any) -> None:
        server, folder, _ = noise
        catalog.human_liver(bbox=(0, 10, 60, 70, 2, 3), channels=["raw"]).fetch()
        with tifffile.TiffFile(folder / raw_path(2)) as tiff:
            strips = tiff.pages.first.databytecounts[:128]
        assert len(asked(server, raw_path(2))) == 3, "a header and two times 64 rows"
        assert server.sent(f"/{raw_path(2)}") == 65536 + sum(strips)

    def test_a_second_box_in_the_same_rows_asks_nothing(self, noise: tuple[Server, Path, Liver], catalog: Any) -> None:
        server, _, liver = noise
        catalog.human_liver(bbox=(1000, 1100, 130, 150, 0, 2), channels=["raw"]).fetch()
        server.clear()
        bbox = (2500, 3000, 140, 170, 0, 2)
        source = catalog.human_liver(bbox=bbox, channels=["raw"])
        assert source.plan().missing == 0
        assert_exact(source.read(), liver, bbox)
        assert server.requests == []

    def test_a_slice_of_a_mask_is_downloaded_once(self, server: Server, catalog: Any, built: Built) -> None:
        boxes: list[BBox] = [(0, 10, 0, 10, 1, 4), (200, 300, 800, 810, 1, 4), (0, 500, 100, 700, 2, 4)]
        for bbox in boxes:
            assert_exact(catalog.human_liver(bbox=bbox, channels=MASKS).read(), built[1], bbox)
        for name in MASKS:
            assert [asked(server, mask_path(name, z)) for z in (1, 2, 3)] == [[None]] * 3

    def test_a_slice_of_a_mask_is_not_downloaded_again_by_another_process(
        self, server: Server, catalog: Any, built: Built
    ) -> None:
        catalog.human_liver(bbox=(0, 10, 0, 10, 1, 3)).fetch()
        bbox = (200, 300, 800, 810, 1, 3)
        answer = python(READ, json.dumps(bbox))
        assert int(answer) == expected(built[1], "er", bbox).astype(int).sum() > 0
        for name in MASKS:
            assert [asked(server, mask_path(name, z)) for z in (1, 2)] == [[None]] * 2
        assert len(asked(server, raw_path(1))) == 4, "two times a header and 64 rows"

    def test_a_header_is_read_once_in_a_fetch(self, tmp_path: Path, serve_as: ServeAs, catalog: Any) -> None:
        """Also where the box has more slices than one shard has rows."""
        slices = 48
        rows = np.random.default_rng(0).integers(0, 2**16, (slices, 300, 700), np.uint16)
        write_liver(tmp_path / "slices", rows, {})
        server = serve_as(DATA, tmp_path / "slices")
        catalog.human_liver(bbox=(0, 700, 0, 300, 0, slices), channels=["raw"]).fetch()
        blocks = -(-300 // 64)
        assert [len(asked(server, raw_path(z))) for z in range(1, slices)] == [1 + blocks] * (slices - 1)

    def test_warm_read_asks_nothing_even_offline(self, server: Server, catalog: Any) -> None:
        bbox = BOXES["across chunks"]
        cold = catalog.human_liver(bbox=bbox).read()
        server.clear()
        xr.testing.assert_identical(catalog.human_liver(bbox=bbox, offline=True).read(), cold)
        assert server.requests == []


class TestWholeStack:
    """Every slice of a stack that is scaled down."""

    def test_without_a_box(self, tmp_path: Path, serve_as: ServeAs, catalog: Any) -> None:
        liver = build_liver(tmp_path, (SLICES, 9, 70))
        serve_as(DATA, tmp_path)
        dataset = catalog.human_liver(channels=["raw", "nucleus"]).read()
        assert_exact(dataset, liver, (0, 70, 0, 9, 0, SLICES))

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    def test_every_shard_is_written_once(self, tmp_path: Path, serve_as: ServeAs) -> None:
        raw = np.random.default_rng(0).integers(0, 2**16, (24, 300, 700), np.uint16)
        write_liver(tmp_path / "slices", raw, {})
        serve_as(DATA, tmp_path / "slices")
        assert written_by_stored(tmp_path, raw, step=24) < 1.05
        assert written_by_stored(tmp_path, raw, step=1) > 5, "slice by slice, each shard is written again and again"

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    def test_memory_is_bounded(self, tmp_path: Path, serve_as: ServeAs) -> None:
        slices, rows, columns = 50, 2048, 4096
        picture = np.add.outer(np.arange(rows) // 8, np.arange(columns) // 16).astype(np.uint16)
        write_liver(tmp_path / "slices", picture[None], {}, form=FORMS["zstd"])
        for z in range(1, slices):
            os.link(tmp_path / "slices" / raw_path(0), tmp_path / "slices" / raw_path(z))
        serve_as(DATA, tmp_path / "slices")
        box = [0, columns, 0, rows, slices, slices, str(tmp_path / "elsewhere")]
        answer = json.loads(python(WRITTEN_AND_PEAK, json.dumps(box)))
        assert answer["decoded"] == slices * picture.nbytes > 2 * 2 * IN_FLIGHT_BYTES
        assert answer["growth"] < 2 * IN_FLIGHT_BYTES


def written_by_stored(folder: Path, raw: NDArray[Any], step: int) -> float:
    """Bytes that a process writes to fetch all slices, some at a time, by the bytes that the mirror then has."""
    slices, rows, columns = raw.shape
    cache, box = folder / f"cache-{step}", [0, columns, 0, rows, slices, step, str(folder / "elsewhere")]
    answer = json.loads(python(WRITTEN_AND_PEAK, json.dumps(box), env={"EMCATALOG_CACHE": str(cache)}))
    assert answer["decoded"] == raw.nbytes
    stored = [path.stat().st_size for path in cache.rglob("*.zarr/**/*") if path.is_file()]
    return float(answer["written"] / sum(stored))


def test_a_plan_counts_a_png_whole(server: Server, catalog: Any) -> None:
    """Some rows of it cost as much to download as all of them."""
    few = catalog.human_liver(bbox=(0, 20, 0, 10, 1, 3), channels=["er", "raw"]).plan()
    many = catalog.human_liver(bbox=(0, 20, 0, 200, 1, 3), channels=["er", "raw"]).plan()
    assert few.channels["er"].download_bytes == many.channels["er"].download_bytes
    assert few.channels["raw"].download_bytes < many.channels["raw"].download_bytes
