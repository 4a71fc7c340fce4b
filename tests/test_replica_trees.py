"""The miniatures of remote trees are what they say, as readers see it that share no code with what wrote them."""

from __future__ import annotations

import gzip
import json
import pathlib
import struct
import subprocess
import sys
import urllib.error
import urllib.request
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numcodecs import blosc
from PIL import Image

from tests.replica import bossdb, ebi, malecns, n5tree, prism
from tests.replica.region import Blob, Blobs, Region
from tests.replica.server import REPOSITORY, serve
from tests.replica.stored import Array, Box, open_scale
from tests.replica.tissue import make_tissue

LABELS = ("psd", "vesicle", "saturated")


def slices(box: Box) -> tuple[slice, ...]:
    """To index `(z, y, x)` with."""
    return tuple(slice(start, stop) for start, stop in box)


def grown(box: Box, by: int = 3) -> Box:
    """`box` and some of the emptiness around it."""
    z, y, x = ((start - by, stop + by) for start, stop in box)
    return (z, y, x)


def by_cloudvolume(url: str, box: Box, mip: int = 0) -> Array:
    """The box `(z, y, x)` of a volume as stored."""
    volume = pytest.importorskip("cloudvolume").CloudVolume
    opened = volume(f"precomputed://{url}", mip=mip, fill_missing=True, progress=False)
    return np.asarray(opened[slices(box)[::-1]])[..., 0].T


def under(folder: pathlib.Path) -> list[str]:
    """All files, by their path from `folder`."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# --- what builders share


def test_region_is_empty_around_its_data() -> None:
    region = Region(((2, 4), (10, 13), (20, 24)), np.arange(1, 25, dtype=np.uint8).reshape(2, 3, 4))
    whole = np.zeros((8, 20, 30), np.uint8)
    whole[slices(region.box)] = region.voxels
    for box in (((0, 8), (0, 20), (0, 30)), ((3, 5), (9, 12), (21, 22)), ((0, 2), (0, 20), (0, 30))):
        np.testing.assert_array_equal(region.cut(box), whole[slices(box)])
    np.testing.assert_array_equal(region.swapped().cut(((0, 8), (0, 30), (0, 20))), whole.transpose(0, 2, 1))
    with pytest.raises(ValueError, match="do not fill"):
        Region(region.box, region.voxels[1:])


def test_blobs_at_any_scale() -> None:
    blobs = Blobs((Blob(7, (5, 9, 12), (4, 6, 2)), Blob(3, (6, 9, 12), (2, 3, 9))))
    fine = blobs.cut(((0, 20), (0, 24), (0, 32)))
    assert sorted(np.unique(fine)) == [0, 3, 7]
    assert fine[5, 9, 12] == 7  # the first wins
    assert [(int(at.min()), int(at.max())) for at in np.nonzero(fine == 7)] == [(1, 9), (3, 15), (10, 14)]
    np.testing.assert_array_equal(blobs.cut(((1, 5), (0, 6), (2, 8)), step=4), fine[4:20:4, 0:24:4, 8:32:4])
    for blob in blobs.blobs:
        outside = Blobs((blob,)).cut(((0, 20), (0, 24), (0, 32)))
        outside[slices(blob.box)] = 0
        assert not outside.any()


def test_large_tissue_repeats_a_small_one() -> None:
    tissue = make_tissue((8, 150, 40), seed=3)
    np.testing.assert_array_equal(tissue.raw[:, 128:], tissue.raw[:, 127:105:-1])  # mirrored
    assert not np.intersect1d(tissue.labels[:, :128], tissue.labels[:, 128:]).any()
    np.testing.assert_array_equal(make_tissue((8, 150, 40), seed=3).labels, tissue.labels)


# --- BossDB


@pytest.fixture(scope="module")
def mice(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, dict[str, bossdb.Wildenberg]]:
    """Both experiments in one bucket."""
    bucket = tmp_path_factory.mktemp("bossdb-open-data")
    return bucket, {name: bossdb.build_wildenberg(bucket, name) for name in bossdb.EXPERIMENTS}


class TestBossDb:
    """`wildenberg2023`."""

    @pytest.mark.parametrize("name", bossdb.EXPERIMENTS)
    def test_labels_over_http(self, mice: tuple[pathlib.Path, dict[str, bossdb.Wildenberg]], name: str) -> None:
        bucket, built = mice
        with serve(bucket) as server:
            for channel in LABELS:
                region = getattr(built[name], channel)
                url = f"{server.url}/{built[name].experiment.url_path(channel)}"
                read = by_cloudvolume(url, grown(region.box))
                assert read.dtype == region.voxels.dtype
                np.testing.assert_array_equal(read, region.cut(grown(region.box)))
            assert server.count("*.gz") == 0

    @pytest.mark.parametrize(("name", "swapped"), [("p105", True), ("p14", False)])
    @pytest.mark.parametrize("mip", [0, 1])
    def test_image_as_stored(
        self, mice: tuple[pathlib.Path, dict[str, bossdb.Wildenberg]], name: str, swapped: bool, mip: int
    ) -> None:
        bucket, built = mice
        region = (built[name].em_fine, built[name].em)[mip]
        z, y, x = grown(region.box)
        with serve(bucket) as server:
            url = f"{server.url}/{built[name].experiment.url_path('em')}"
            stored = by_cloudvolume(url, (z, x, y) if swapped else (z, y, x), mip)
        tissue = stored.transpose(0, 2, 1) if swapped else stored
        np.testing.assert_array_equal(tissue, region.cut((z, y, x)))
        assert tissue.any()
        folder = bucket / built[name].experiment.url_path("em")
        np.testing.assert_array_equal(open_scale(folder, mip).read((z, x, y) if swapped else (z, y, x)), stored)

    def test_infos(self, mice: tuple[pathlib.Path, dict[str, bossdb.Wildenberg]]) -> None:
        bucket, built = mice
        box = {}
        for name, channel in (("p105", "psd"), ("p105", "em"), ("p14", "psd"), ("p14", "em")):
            info = json.loads((bucket / built[name].experiment.url_path(channel) / "info").read_text())
            box[name, channel] = [(scale["voxel_offset"], scale["size"]) for scale in info["scales"]]
            assert {tuple(scale["chunk_sizes"][0]) for scale in info["scales"]} == {(512, 512, 16)}
            assert not any("sharding" in scale for scale in info["scales"])
        assert box["p105", "psd"] == [([48, 48, 4], [10000, 11328, 904])]
        assert box["p14", "psd"] == [([0, 0, 0], [6688, 9600, 1308])]
        assert box["p105", "em"][1] == ([0, 0, 0], [11450, 10150, 915])  # y before x
        assert box["p14", "em"][0] == ([0, 0, 0], [13400, 19250, 1310])

    def test_coarser_image_is_a_mean(self, mice: tuple[pathlib.Path, dict[str, bossdb.Wildenberg]]) -> None:
        built = mice[1]["p105"]
        fine = built.em_fine.voxels.astype(float)
        expected = sum(fine[:, dy::2, dx::2] for dy in (0, 1) for dx in (0, 1)) / 4
        assert np.abs(built.em.voxels - expected).max() <= 0.5
        assert built.saturated.voxels.max() > 2**31
        assert [np.unique(getattr(built, channel).voxels).tolist() for channel in LABELS[:2]] == [[0, 1], [0, 1]]

    def test_chunks_are_gzipped_or_absent(self, mice: tuple[pathlib.Path, dict[str, bossdb.Wildenberg]]) -> None:
        bucket, built = mice
        path = f"{built['p105'].experiment.url_path('psd')}/12.0_12.0_40.0"
        with serve(bucket) as server:
            with urllib.request.urlopen(f"{server.url}/{path}/560-1072_48-560_4-20") as answer:
                assert answer.headers["Content-Encoding"] == "gzip"
                assert len(gzip.decompress(answer.read())) == 512 * 512 * 16
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"{server.url}/{path}/48-560_48-560_4-20")

    def test_other_forms(self, tmp_path: pathlib.Path) -> None:
        em_box = ((2, 100), (24, 2000), (12, 1500))
        box = ((10, 14), (100, 120), (200, 230))
        built = bossdb.build_wildenberg(tmp_path, "p105", box, gzipped=False, dotted_keys=False, em_box=em_box)
        folder = tmp_path / "wildenberg2023/mouse_v1_l4_p105/em"
        assert under(folder) == ["12_12_40/24-536_12-524_2-18", "6_6_40/48-560_24-536_2-18", "info"]
        em = built.em.swapped()
        np.testing.assert_array_equal(by_cloudvolume(f"file://{folder}", em.box, 1), em.voxels)
        with pytest.raises(ValueError, match="not inside the volume"):
            bossdb.build_wildenberg(tmp_path, "p14", ((0, 4), (9590, 9610), (0, 8)))


# --- EMPIAR


class TestLiver:
    """EMPIAR-13356."""

    @pytest.mark.parametrize("form", ebi.FORMS)
    def test_images(self, tmp_path: pathlib.Path, form: str) -> None:
        built = ebi.build_liver(tmp_path, (2, 90, 110), first=7, form=ebi.FORMS[form])
        assert (built.raw.shape, built.raw.dtype) == ((2, 90, 110), np.uint16)
        for index, picture in enumerate(built.raw):
            path = tmp_path / f"humanliver_raw_images/humanliver_raw_{7 + index:03d}.tif"
            np.testing.assert_array_equal(tifffile.imread(path), picture)
            with Image.open(path) as image:  # decodes with libtiff
                np.testing.assert_array_equal(np.asarray(image), picture)

    def test_published_form(self, tmp_path: pathlib.Path) -> None:
        ebi.build_liver(tmp_path, (1, 90, 110))
        with tifffile.TiffFile(tmp_path / ebi.raw_path(0)) as tiff:
            page = tiff.pages.first
            assert (page.compression, page.predictor, page.rowsperstrip) == (5, 2, 1)
            assert (len(page.dataoffsets), page.is_tiled, tiff.is_bigtiff, tiff.byteorder) == (90, False, False, "<")
            assert page.offset < page.dataoffsets[0]

    def test_other_forms(self, tmp_path: pathlib.Path) -> None:
        pages = {}
        for name, form in ebi.FORMS.items():
            ebi.build_liver(tmp_path / name, (1, 90, 110), form=form)
            with tifffile.TiffFile(tmp_path / name / ebi.raw_path(0)) as tiff:
                pages[name] = (tiff.pages.first, tiff.is_bigtiff, tiff.byteorder)
        last = pages["directory-last"][0]
        assert last.offset > last.dataoffsets[-1]
        assert (last.compression, last.predictor, last.rowsperstrip) == (5, 2, 1)
        assert (pages["tiles"][0].tile, pages["thick-strips"][0].rowsperstrip) == ((32, 48), 13)
        assert (pages["bigtiff"][1], pages["big-endian"][2]) == (True, ">")
        assert [pages[name][0].compression for name in ("uncompressed", "deflate", "zstd")] == [1, 8, 50000]

    def test_masks(self, tmp_path: pathlib.Path) -> None:
        built = ebi.build_liver(tmp_path, (3, 90, 110), first=7)
        assert set(built.masks) == {"er", "mito", "nucleus"}
        for name, mask in built.masks.items():
            assert np.unique(mask).tolist() == [0, 255]
            for index, picture in enumerate(mask):
                path = tmp_path / f"humanliver_{name}_mask/humanliver_{name}_mask_{7 + index:03d}.png"
                with Image.open(path) as image:
                    assert image.mode == "L"
                    np.testing.assert_array_equal(np.asarray(image), picture)

    def test_tissue_lies_in_its_box(self, tmp_path: pathlib.Path) -> None:
        built = ebi.build_liver(tmp_path, (2, 200, 400))
        for array in (built.raw, *built.masks.values()):
            _, y, x = np.nonzero(array)
            assert (y.min() >= 5, y.max() < 196, x.min() >= 24, x.max() < 378) == (True,) * 4
        assert (built.raw[:, 5:196, 24:378] > 0).all()
        assert not np.array_equal(*built.raw)

    def test_program_links_sections(self, tmp_path: pathlib.Path) -> None:
        command = [sys.executable, "-m", "tests.replica.ebi", str(tmp_path), "--slices", "5", "--first", "2"]
        done = subprocess.run(
            [*command, "--rows", "300", "--columns", "280"], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
        assert json.loads(done.stdout)["slices"] == 5
        expected = ebi.build_liver(tmp_path / "held", (2, 300, 280), first=2)
        for z in range(2, 7):
            np.testing.assert_array_equal(tifffile.imread(tmp_path / ebi.raw_path(z)), expected.raw[z % 2])
            with Image.open(tmp_path / ebi.mask_path("er", z)) as image:
                np.testing.assert_array_equal(np.asarray(image), expected.masks["er"][z % 2])
        assert [(tmp_path / ebi.raw_path(z)).stat().st_nlink for z in range(2, 7)] == [3, 2, 3, 2, 3]
        with tifffile.TiffFile(tmp_path / ebi.raw_path(2)) as tiff:
            page = tiff.pages.first
            assert (page.compression, page.predictor, page.rowsperstrip) == (5, 2, 1)


# --- PRISM


class TestPrism:
    """`e11bio-prism`."""

    @pytest.mark.parametrize("crop", [("instance", 0), ("instance", 12), ("instance", 13), ("semantic", 16)])
    def test_arrays(self, tmp_path: pathlib.Path, crop: tuple[str, int]) -> None:
        split, number = crop
        built = prism.build_prism(tmp_path, {split: [number]})[crop]
        group = zarr.open_group(tmp_path / f"ls/models/training_data/{split}/crop_{number}.zarr", mode="r")
        raw, labels = group["raw"], group["labels"]
        assert isinstance(raw, zarr.Array)
        assert isinstance(labels, zarr.Array)
        assert raw.shape[0] == {("instance", 12): 10, ("instance", 13): 11}.get(crop, 18)
        assert (raw.dtype, labels.dtype, raw.chunks) == (np.uint8, np.uint64, (3, 10, 30, 26))
        np.testing.assert_array_equal(raw[:], built.raw)
        np.testing.assert_array_equal(labels[:], built.labels)
        # As torch-em places the labels.
        offsets = np.array([labels.attrs["offset"], raw.attrs["offset"]])
        start = (offsets[0] - offsets[1]) / raw.attrs["resolution"]
        place = tuple(slice(int(a), int(a) + n) for a, n in zip(start, labels.shape, strict=True))
        assert start.tolist() == list(built.layout.start)
        np.testing.assert_array_equal(raw[:][(slice(None), *place)], built.raw_at_labels)

    def test_stored_form(self, tmp_path: pathlib.Path) -> None:
        built = prism.build_prism(tmp_path, {"instance": [0]})["instance", 0]
        files = under(tmp_path / built.path)
        assert [name for name in files if "/." in name or name.startswith(".")] == [
            ".zgroup",
            *(f"{array}/{name}" for array in ("labels", "raw") for name in (".zarray", ".zattrs")),
        ]
        assert sum(name.startswith("raw/") for name in files) == 2 + 6 * 4 * 3 * 3  # chunks of zeros too
        document = json.loads((tmp_path / built.path / "labels/.zarray").read_text())
        assert (document["zarr_format"], document["dimension_separator"]) == (2, ".")
        assert document["compressor"]["cname"] == "lz4"

    def test_all_crops(self, tmp_path: pathlib.Path) -> None:
        built = prism.build_prism(tmp_path)
        assert [len(built["instance", crop].raw) for crop in range(14)] == [18] * 5 + [12] * 7 + [10, 11]
        assert sum(split == "semantic" for split, _ in built) == 17
        np.testing.assert_array_equal(built["semantic", 0].raw, built["instance", 2].raw)
        assert set(np.unique(built["semantic", 3].labels)) <= {0, 1, 3, 5, 6, 10, 11}
        assert len({crop.raw.tobytes() for crop in built.values()}) == 30
        channels = built["instance", 0].raw
        assert len({channel.tobytes() for channel in channels}) == 18


# --- N5


def n5_by_hand(folder: pathlib.Path, shape: tuple[int, ...]) -> Array:
    """A dataset of uint8 `(z, y, x)`, block by block, as N5's text says: https://github.com/saalfeldlab/n5."""
    attributes = json.loads((folder / "attributes.json").read_text())
    assert attributes["dimensions"] == list(shape[::-1])
    decode = {"raw": bytes, "gzip": gzip.decompress, "blosc": blosc.decompress}[attributes["compression"]["type"]]
    out = np.zeros(shape, np.uint8)
    for path in folder.glob("*/*/*"):
        mode, count, *size = struct.unpack_from(">HHIII", path.read_bytes())
        assert (mode, count) == (0, 3)
        block = np.frombuffer(decode(path.read_bytes()[16:]), np.uint8).reshape(size[::-1])
        start = [int(place) * n for place, n in zip(path.parts[-3:], attributes["blockSize"], strict=True)]
        part = out[tuple(slice(a, a + n) for a, n in zip(start[::-1], size[::-1], strict=True))]
        part[...] = block[tuple(slice(n) for n in part.shape)]
    return out


class TestN5:
    """`flyem_cns_z0720_07m_dvidcoords_n5`."""

    @pytest.mark.parametrize("truncated", [False, True])
    @pytest.mark.parametrize("compression", n5tree.COMPRESSIONS)
    def test_blocks(self, tmp_path: pathlib.Path, compression: str, truncated: bool) -> None:
        tree = n5tree.build_n5(tmp_path, compression=compression, truncated=truncated)
        for level in tree.levels:
            np.testing.assert_array_equal(n5_by_hand(tmp_path / level.path, level.shape), level.data.voxels)
        _, _, *size = struct.unpack_from(">HHIII", (tmp_path / "s0/3/3/4").read_bytes())
        assert size == ([110 - 96, 90 - 72, 70 - 64] if truncated else [32, 24, 16])

    @pytest.mark.parametrize("factors", [n5tree.POWERS_OF_TWO, n5tree.ANISOTROPIC])
    def test_coarser_scales_are_means(self, tmp_path: pathlib.Path, factors: tuple[tuple[int, int, int], ...]) -> None:
        fine, *coarse = n5tree.build_n5(tmp_path, factors_xyz=factors).levels
        assert fine.data.voxels.shape == n5tree.DEFAULT_SHAPE
        for level, (fx, fy, fz) in zip(coarse, factors[1:], strict=True):
            z, y, x = level.shape
            assert level.shape == (70 // fz, 90 // fy, 110 // fx)
            blocks = fine.data.voxels[: z * fz, : y * fy, : x * fx].reshape(z, fz, y, fy, x, fx)
            assert np.abs(level.data.voxels - blocks.mean((1, 3, 5))).max() <= 0.5

    def test_of_published_size(self, tmp_path: pathlib.Path) -> None:
        tree = n5tree.build_n5(
            tmp_path, shape=n5tree.FULL_SHAPE, origin=(20001, 40003, 40006), block_xyz=(64, 64, 64), compression="gzip"
        )
        for level, dimensions, first in zip(
            tree.levels,
            ([94088, 78317, 134576], [47044, 39158, 67288], [23522, 19579, 33644]),
            ((20001, 40003, 40006), (10001, 20002, 20003), (5001, 10001, 10002)),
            strict=True,
        ):
            assert json.loads((tmp_path / level.path / "attributes.json").read_text())["dimensions"] == dimensions
            assert tuple(start for start, _ in level.data.box) == first
        assert len(list((tmp_path / "s0").glob("*/*/*"))) == 2 * 2 * 2
        block = gzip.decompress((tmp_path / "s0/626/626/313").read_bytes()[16:])
        corner = ((313 * 64, 314 * 64), (626 * 64, 627 * 64), (626 * 64, 627 * 64))
        expected = tree.levels[0].data.cut(corner)
        np.testing.assert_array_equal(np.frombuffer(block, np.uint8).reshape(64, 64, 64), expected)

    @pytest.mark.parametrize("convention", n5tree.CONVENTIONS)
    def test_conventions(self, tmp_path: pathlib.Path, convention: str) -> None:
        n5tree.build_n5(tmp_path, convention=convention, factors_xyz=n5tree.ANISOTROPIC, voxel_size_xyz_nm=(4, 5, 6.5))
        documents = [json.loads((tmp_path / path / "attributes.json").read_text()) for path in (".", "s0", "s1", "s2")]
        for dataset in documents[1:]:
            assert dataset.pop("dataType") == "uint8"
            assert {dataset.pop("compression")["type"], *dataset.pop("blockSize")} == {"raw", 32, 24, 16}
            del dataset["dimensions"]
        assert documents[0] == GROUPS[convention]
        assert documents[3] == LAST_SCALES[convention]


NM = ["nm", "nm", "nm"]
FACTORS = [[1, 1, 1], [2, 2, 1], [4, 4, 2]]
COSEM = [
    {"axes": ["z", "y", "x"], "units": NM, "scale": [6.5, 5, 4], "translate": [0, 0, 0]},
    {"axes": ["z", "y", "x"], "units": NM, "scale": [6.5, 10, 8], "translate": [0, 2.5, 2]},
    {"axes": ["z", "y", "x"], "units": NM, "scale": [13, 20, 16], "translate": [3.25, 7.5, 6]},
]
GROUPS: dict[str, dict[str, Any]] = {
    "neuroglancer": {"axes": ["x", "y", "z"], "units": NM, "resolution": [4, 5, 6.5]},
    "n5-viewer": {"pixelResolution": {"dimensions": [4, 5, 6.5], "unit": "nm"}},
    "bdv": {"downsamplingFactors": FACTORS, "resolution": [4, 5, 6.5], "units": NM},
    "flyem": {
        "pixelResolution": {"dimensions": [4, 5, 6.5], "unit": "nm"},
        "ordering": "C",
        "scales": FACTORS,
        "axes": ["x", "y", "z"],
        "units": NM,
        "translate": [0, 0, 0],
    },
    "cosem": {
        "multiscales": [
            {"name": "em", "datasets": [{"path": f"s{i}", "transform": transform} for i, transform in enumerate(COSEM)]}
        ]
    },
}
LAST_SCALES: dict[str, dict[str, Any]] = {
    "neuroglancer": {"downsamplingFactors": [4, 4, 2]},
    "n5-viewer": {"downsamplingFactors": [4, 4, 2]},
    "bdv": {},
    "flyem": {
        "transform": {"ordering": "C", "axes": ["x", "y", "z"], "units": NM, "scale": [4, 4, 2], "translate": [0, 0, 0]}
    },
    "cosem": {"transform": COSEM[2], "pixelResolution": {"dimensions": [16, 20, 13], "unit": "nm"}},
}


# --- male CNS: regions and nuclei


@pytest.fixture(scope="module")
def regions(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, dict[str, malecns.Rois]]:
    """The bucket with its regions."""
    bucket = tmp_path_factory.mktemp("flyem-male-cns")
    return bucket, malecns.build_rois(bucket)


class TestRois:
    """`rois/`."""

    @pytest.mark.parametrize("mip", range(4))
    @pytest.mark.parametrize("name", ["fullbrain-roi-v4", "malecns-vnc-neuropil-roi-v0"])
    def test_labels(self, regions: tuple[pathlib.Path, dict[str, malecns.Rois]], name: str, mip: int) -> None:
        bucket, built = regions
        step = 2**mip
        for blob in built[name].labels.blobs:
            z, y, x = (
                (max(0, start // step - 2), min(size // step, stop // step + 2))
                for (start, stop), size in zip(blob.box, malecns.ROI_SIZE_XYZ[::-1], strict=True)
            )
            read = by_cloudvolume(f"file://{bucket}/rois/{name}", (z, y, x), mip)
            assert read.dtype == np.uint64
            assert blob.label in read
            np.testing.assert_array_equal(read, built[name].labels.cut((z, y, x), step))
            np.testing.assert_array_equal(read, open_scale(bucket / "rois" / name, mip).read((z, y, x)))

    def test_stored_form(self, regions: tuple[pathlib.Path, dict[str, malecns.Rois]]) -> None:
        bucket, built = regions
        for name, volume in built.items():
            folder = bucket / "rois" / name
            info = json.loads((folder / "info").read_text())
            assert [scale["key"] for scale in info["scales"]] == [f"{n}_{n}_{n}" for n in (256, 512, 1024, 2048)]
            sizes = [scale["size"] for scale in info["scales"]]
            assert sizes == [[2941, 2448, 4206], [1470, 1224, 2103], [735, 612, 1051], [367, 306, 525]]
            assert json.loads((folder / info["mesh"] / "info").read_text()) == {"@type": "neuroglancer_legacy_mesh"}
            names = json.loads((folder / info["segment_properties"] / "info").read_text())["inline"]
            assert dict(zip(map(int, names["ids"]), names["properties"][0]["values"], strict=True)) == volume.names
            for index in range(4):
                scale = open_scale(folder, index)
                stored = list((folder / scale.meta["key"]).iterdir())
                assert 0 < len(stored) < 60  # not the volume
                assert all(path.name.count("-") == 3 for path in stored)
                around = ((576 >> index, 704 >> index), *((1216 >> index, 1344 >> index),) * 2)
                there = [chunk for chunk in scale.chunks(around) if scale.is_there(chunk)]
                assert there
                assert all(np.any(scale.decode(chunk)) for chunk in there)

    def test_they_fill_some_of_the_default_box(self, regions: tuple[pathlib.Path, dict[str, malecns.Rois]]) -> None:
        box = ((20000 // 32, 21024 // 32), (40000 // 32, 41024 // 32), (40000 // 32, 41024 // 32))
        brain, cord = (np.unique(volume.labels.cut(box)).tolist() for volume in regions[1].values())
        assert (brain, cord) == ([0, 1, 2, 29], [0, 13])


class TestNuclei:
    """`{version}/malecns-{version}-nuclei-seg-16nm`."""

    BOX = ((10005, 10050), (20000, 20080), (20010, 20100))

    def test_labels(self, tmp_path: pathlib.Path) -> None:
        built = malecns.build_nuclei(tmp_path, self.BOX)
        for version, region in built.items():
            folder = tmp_path / f"{version}/malecns-{version}-nuclei-seg-16nm"
            read = by_cloudvolume(f"file://{folder}", grown(self.BOX))
            np.testing.assert_array_equal(read, region.cut(grown(self.BOX)))
            coarse = malecns.scale_box(self.BOX, 1)
            z, y, x = ((2 * start, 2 * stop) for start, stop in coarse)
            expected = region.cut((z, y, x))[::2, ::2, ::2]
            np.testing.assert_array_equal(open_scale(folder, 1).read(coarse), expected)
        old, new = built["v0.9"].voxels, built["v1.0"].voxels
        assert old.max() > 2**32
        np.testing.assert_array_equal(np.where(old > 0, old + malecns.V1_OFFSET, 0), new)

    def test_info(self, tmp_path: pathlib.Path) -> None:
        malecns.build_nuclei(tmp_path, self.BOX, np.ones((45, 80, 90), np.uint32))
        sizes = {}
        for version in ("v0.9", "v1.0"):
            scale = open_scale(tmp_path / malecns.nuclei_folder(version))
            sizes[version] = scale.meta["size"]
            assert (scale.meta["resolution"], scale.info["data_type"]) == ([16, 16, 16], "uint64")
            assert scale.meta["sharding"]["data_encoding"] == "gzip"
        assert sizes == {"v0.9": [47044, 38624, 67296], "v1.0": [47044, 39158, 67288]}
