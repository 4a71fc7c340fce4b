"""The sparse mirror: an ordinary Zarr array that other tools open, and that never gives a voxel that is not right."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st
from ome_zarr_models.v05 import Image

from emcatalog.errors import CacheCorruptError, CacheError
from emcatalog.formats.volume import ArraySpec
from emcatalog.geometry import Grid, Index, Zyx
from emcatalog.mirror.cache import Cache
from emcatalog.mirror.inventory import MirrorFiles, list_mirrors, remove_mirror, remove_shard, verify
from emcatalog.mirror.layout import CHUNK_COST, SHARD_BYTES, SHARD_SIDE, Layout, choose_layout, unit_of, zarr_metadata
from emcatalog.settings import load_settings
from tests.conftest import Replica, cut, place, scale_and_translation, stored_box
from tests.replica.malecns import expected_labels, expected_raw
from tests.replica.precomputed import build_precomputed
from tests.replica.s3 import REGION, S3, serve_s3
from tests.replica.server import serve
from tests.replica.stored import Array
from tests.replica.wire import Server

RAW = "gs/flyem-male-cns/em/em-clahe-jpeg/8x8x8.zarr"
LABELS = "gs/flyem-male-cns/v0.9/segmentation/8_8_8.zarr"
BOX = place(30, 130, 10, 90, 5, 75)
WHOLE = place(0, 192, 0, 128, -32, 96)
"""What a fetch of BOX stores: it touches each of the mirror's chunks, of which the source's hold several."""
CORNER = place(0, 64, 0, 64, -32, 32)
"""One whole chunk of the source's; the same shard of the image as all of the data."""


def cache_folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def the_cache() -> Cache:
    """As the settings name it."""
    return Cache.at(load_settings())


def shards(folder: Path) -> list[Path]:
    """Files of a mirror that hold voxels."""
    return sorted(path for path in (folder / "data" / "c").rglob("*") if path.is_file())


def only_shard(folder: Path) -> Path:
    (shard,) = shards(folder)
    return shard


def bad_shards() -> list[str]:
    cache = the_cache()
    return [bad.key for mirror in list_mirrors(cache) for bad in verify(cache, mirror)]


class TestOtherTools:
    """A mirror through libraries that know nothing of emcatalog."""

    @pytest.fixture
    def folder(self, male_cns: Server, catalog: Any, tmp_path: Path) -> Path:
        catalog.malecns(bbox=BOX).fetch()
        return cache_folder(tmp_path)

    def test_zarr(self, folder: Path, replica: Replica) -> None:
        z, y, x = (slice(*edges) for edges in stored_box(BOX))
        raw = zarr.open_group(folder / RAW, mode="r")["data"]
        labels = zarr.open_array(folder / LABELS / "data", mode="r")
        assert isinstance(raw, zarr.Array)
        assert (raw.shape, labels.shape) == ((134576, 78317, 94088), (134592, 77248, 94088))
        np.testing.assert_array_equal(raw[z, y, x], expected_raw(replica.folder, 0, stored_box(BOX)))
        np.testing.assert_array_equal(labels[z, y, x], expected_labels(replica.folder, 0, stored_box(BOX)))

    @pytest.mark.parametrize("mirror", [RAW, LABELS])
    def test_xarray(self, folder: Path, catalog: Any, mirror: str) -> None:
        opened = xr.open_zarr(folder / mirror, chunks=None, consolidated=False)["data"]
        assert opened.dims == ("z", "y", "x")
        z, y, x = (slice(*edges) for edges in stored_box(BOX))
        expected = catalog.malecns(bbox=BOX).read()["raw" if mirror == RAW else "labels"]
        np.testing.assert_array_equal(opened[z, y, x].values, expected.values)

    @pytest.mark.parametrize("mirror", [RAW, LABELS])
    def test_ome_zarr(self, folder: Path, mirror: str) -> None:
        image = Image.from_zarr(zarr.open_group(folder / mirror, mode="r"))
        (multiscale,) = image.ome_attributes.multiscales
        assert [(axis.name, axis.unit) for axis in multiscale.axes] == [(axis, "nanometer") for axis in "zyx"]
        assert scale_and_translation(multiscale) == ([8, 8, 8], [4, 4, 4])

    def test_codecs(self, folder: Path) -> None:
        metadata = json.loads((folder / RAW / "data" / "zarr.json").read_text())
        (sharding,) = metadata["codecs"]
        assert sharding["name"] == "sharding_indexed"
        assert sharding["configuration"]["chunk_shape"] == [32, 32, 32]
        assert [codec["name"] for codec in sharding["configuration"]["codecs"]] == ["bytes", "blosc", "crc32c"]
        assert sharding["configuration"]["index_codecs"][-1]["name"] == "crc32c"
        assert metadata["chunk_grid"]["configuration"]["chunk_shape"] == [256, 256, 256]
        assert metadata["dimension_names"] == ["z", "y", "x"]

    def test_offset_and_voxel_size(self, tmp_path: Path) -> None:
        source = tmp_path / "source"
        build_precomputed(source, np.ones((9, 8, 7), np.uint8), voxel_offset=(1, 2, 3), resolution=(3.58, 4, 40.5))
        cut(f"file://{source}", "uint8", (3.58, 4, 40.5)).fetch()
        group = zarr.open_group(cache_folder(tmp_path) / f"file{source}/3.58_4_40.5.zarr", mode="r")
        scale, translation = scale_and_translation(Image.from_zarr(group).ome_attributes.multiscales[0])
        assert scale == [40.5, 4, 3.58]
        np.testing.assert_allclose(translation, np.array([3.5 * 40.5, 2.5 * 4, 1.5 * 3.58]))
        array = group["data"]
        assert isinstance(array, zarr.Array)
        assert (array.shape, np.asarray(array[:]).sum()) == ((9, 8, 7), 9 * 8 * 7)


def spec_of(
    chunk: Index, dtype: str, shape: Zyx = (10_000, 10_000, 10_000), num_channels: int | None = None
) -> ArraySpec:
    return ArraySpec("8_8_8", dtype, Grid(shape, (8.0, 8.0, 8.0)), chunk, "raw", num_channels)


def assert_sound(layout: Layout, spec: ArraySpec) -> None:
    """Of any volume: units are whole chunks of source and mirror, shards whole units, and nothing too large or small.

    A source chunk that spans the volume along an axis ends with it there, and the mirror's last chunk goes on.
    """
    for chunk, shard, unit, source, size in zip(
        layout.chunk, layout.shard, layout.unit, spec.chunk, spec.shape, strict=True
    ):
        assert 0 < chunk <= unit <= shard
        assert unit % chunk == shard % unit == 0
        if source < size:
            assert unit == source  # and not several: one would be fetched for the other
        else:
            assert size <= unit < size + chunk
    itemsize = np.dtype(spec.dtype).itemsize
    assert math.prod(layout.shard) * itemsize <= max(SHARD_BYTES, math.prod(layout.unit) * itemsize)
    assert math.prod(layout.chunk) * itemsize <= max(SHARD_BYTES, math.prod(spec.chunk) * itemsize)
    assert len(layout.chunk) == 3 or layout.chunk[0] == 1
    assert math.prod(layout.chunk) >= min(CHUNK_COST, math.prod(map(min, spec.chunk[-3:], spec.grid.shape)))
    # Twice as much along its shortest axis of space would be too much.
    space = layout.shard[-3:]
    assert 2 * min(space) > SHARD_SIDE or 2 * math.prod(layout.shard) * itemsize > SHARD_BYTES
    metadata = zarr_metadata(spec, layout)
    assert metadata["chunk_grid"]["configuration"]["chunk_shape"] == layout.shard
    assert unit_of(layout.chunk, spec) == layout.unit


def assert_usable(layout: Layout, spec: ArraySpec) -> None:
    """Shards hold whole units, units hold whole chunks of mirror and source, and a shard is not too large."""
    for chunk, shard, unit, source in zip(layout.chunk, layout.shard, layout.unit, spec.chunk, strict=True):
        assert unit % chunk == shard % unit == unit % source == 0
    itemsize = np.dtype(spec.dtype).itemsize
    assert math.prod(layout.shard) * itemsize <= max(SHARD_BYTES, math.prod(spec.chunk) * itemsize)
    assert unit_of(layout.chunk, spec) == layout.unit


class TestLayout:
    """How a mirror is cut."""

    @pytest.mark.parametrize(
        ("source", "dtype", "chunk", "shard"),
        [
            ((64, 64, 64), "uint8", (32, 32, 32), (256, 256, 256)),
            ((64, 64, 64), "uint64", (32, 32, 32), (256, 256, 128)),
            ((128, 128, 128), "uint8", (32, 32, 32), (256, 256, 256)),
            ((1024, 1024, 1024), "uint8", (32, 32, 32), (1024, 1024, 1024)),
            # Flat ones are as large, and so are those of edges that can hardly be divided.
            ((16, 512, 512), "uint8", (16, 32, 64), (256, 512, 512)),
            ((4, 512, 512), "uint8", (4, 64, 128), (256, 512, 512)),
            ((1, 2048, 2048), "uint8", (1, 128, 256), (16, 2048, 2048)),
            ((163, 163, 163), "uint8", (1, 163, 163), (163, 163, 163)),
            ((67, 64, 64), "uint8", (67, 32, 32), (134, 256, 256)),
            ((25, 63, 125), "uint64", (25, 63, 25), (200, 126, 250)),
            ((1, 64, 64), "uint8", (1, 64, 64), (256, 256, 256)),
        ],
        ids=str,
    )
    def test_of_published_chunks(self, source: Zyx, dtype: str, chunk: Zyx, shard: Zyx) -> None:
        layout = choose_layout(spec_of(source, dtype))
        assert (layout.chunk, layout.shard) == (chunk, shard)
        assert_usable(layout, spec_of(source, dtype))

    side = st.integers(1, 300) | st.sampled_from([512, 1024, 2048])

    @given(st.tuples(side, side, side), st.sampled_from(["uint8", "uint16", "float32", "uint64"]))
    def test_of_any_chunk(self, source: Zyx, dtype: str) -> None:
        spec = spec_of(source, dtype)
        assert_usable(choose_layout(spec), spec)

    @pytest.mark.parametrize(
        ("source", "dtype", "shape", "layout"),
        [
            ((1, 64, 20000), "uint16", (597, 20000, 20000), None),
            ((1, 64, 20000), "uint8", (597, 20000, 20000), None),
            ((1, 64, 19101), "uint16", (597, 17695, 19101), None),
            ((16, 512, 512), "uint8", (904, 11328, 10000), ((16, 32, 64), (256, 512, 512), (16, 512, 512))),
            ((16, 512, 512), "uint32", (904, 11328, 10000), ((16, 32, 64), (64, 512, 512), (16, 512, 512))),
            ((64, 64, 64), "uint64", (4206, 2448, 2941), None),
            ((1, 20, 30), "uint8", (5, 20, 30), None),
            ((7, 20, 30), "uint8", (7, 20, 30), None),
            ((256, 256, 256), "uint64", (70, 80, 90), None),
            ((1, 1, 20000), "uint16", (597, 20000, 20000), None),
            ((1, 256, 256), "uint8", (10, 256, 256), None),
            ((1, 1, 1), "uint8", (1, 1, 1), None),
        ],
        ids=str,
    )
    def test_of_stacks_and_small_volumes(
        self, source: Zyx, dtype: str, shape: Zyx, layout: tuple[Zyx, Zyx, Zyx] | None
    ) -> None:
        found = choose_layout(spec_of(source, dtype, shape))
        assert layout is None or (found.chunk, found.shard, found.unit) == layout
        assert_sound(found, spec_of(source, dtype, shape))

    def test_of_an_axis_of_channels(self) -> None:
        spec = spec_of((3, 38, 163, 163), "uint8", (300, 650, 650), num_channels=18)
        layout = choose_layout(spec)
        assert (layout.chunk, layout.unit) == ((1, 19, 163, 163), (3, 38, 163, 163))
        assert layout.shard[0] == 3
        assert_sound(layout, spec)

    def test_channels_that_are_one_chunk(self) -> None:
        spec = spec_of((12, 64, 64, 64), "uint8", (300, 650, 650), num_channels=12)
        layout = choose_layout(spec)
        assert (layout.chunk, layout.unit) == ((1, 32, 32, 32), (12, 64, 64, 64))
        assert_sound(layout, spec)

    @pytest.mark.parametrize(("dtype", "slices"), [("uint16", 4), ("uint8", 8)])
    def test_strips_of_whole_rows(self, dtype: str, slices: int) -> None:
        layout = choose_layout(spec_of((1, 64, 20000), dtype, (597, 20000, 20000)))
        assert layout.chunk[:2] == layout.unit[:2] == (1, 64)
        assert 64 < layout.chunk[2] <= 512
        assert layout.unit[2] == layout.shard[2] < 20000 + layout.chunk[2]
        assert layout.shard[0] >= slices

    @pytest.mark.parametrize(
        ("rows", "width", "chunk"),
        [
            (128, 20000, (1, 128, 256)),
            (64, 20000, (1, 64, 512)),
            (20, 20000, (1, 20, 1024)),
            (1, 20000, (1, 1, 20000)),
            (64, 60, (1, 64, 60)),
        ],
    )
    def test_the_fewer_rows_a_strip_has_the_wider_are_its_chunks(self, rows: int, width: int, chunk: Zyx) -> None:
        assert choose_layout(spec_of((1, rows, width), "uint8", (597, 20000, width))).chunk == chunk

    power = st.integers(0, 10).map(lambda exponent: 2**exponent)

    @given(st.tuples(power, power, power))
    def test_chunks_are_as_large_whatever_their_shape(self, source: Zyx) -> None:
        layout = choose_layout(spec_of(source, "uint8"))
        assert math.prod(layout.chunk) == min(32**3, math.prod(source))

    length = st.integers(1, 400) | st.sampled_from([512, 1000, 4096, 20000, 10**6])
    dtypes = st.sampled_from(["uint8", "uint16", "float32", "uint64"])

    @given(st.tuples(side, side, side), st.tuples(length, length, length), dtypes)
    def test_of_any_chunk_and_volume(self, source: Zyx, shape: Zyx, dtype: str) -> None:
        spec = spec_of(source, dtype, shape)
        assert_sound(choose_layout(spec), spec)

    @given(
        st.integers(1, 20), st.integers(1, 20), st.tuples(side, side, side), st.tuples(length, length, length), dtypes
    )
    def test_of_any_number_of_channels(self, stored: int, channels: int, source: Zyx, shape: Zyx, dtype: str) -> None:
        spec = spec_of((stored, *source), dtype, shape, num_channels=channels)
        assert_sound(choose_layout(spec), spec)

    @given(st.integers(1, 70), st.integers(65, 40_000), st.sampled_from(["uint8", "uint16"]))
    def test_of_any_strips_of_whole_rows(self, rows: int, width: int, dtype: str) -> None:
        spec = spec_of((1, rows, width), dtype, (597, 20000, width))
        layout = choose_layout(spec)
        assert_sound(layout, spec)
        assert layout.unit[2] >= width  # never part of a row: it would be read again
        assert layout.unit[2] == layout.shard[2] or 2 * width <= SHARD_SIDE

    @pytest.mark.parametrize("chunk", [(20, 50, 24), (5, 163, 7), (1, 128, 128)], ids=str)
    def test_sources_of_odd_chunks(self, tmp_path: Path, chunk: tuple[int, int, int]) -> None:
        voxels = np.random.default_rng(0).integers(1, 255, (70, 200, 90), np.uint8)
        build_precomputed(tmp_path / "source", voxels, chunk=chunk[::-1])
        cutout = cut(f"file://{tmp_path}/source", "uint8", bbox=(10, 81, 40, 190, 7, 66))
        np.testing.assert_array_equal(cutout.read()["raw"], voxels[7:66, 40:190, 10:81])
        assert cutout.fetch().fetched == 0

    @pytest.mark.parametrize("chunk", [32, 48, 64, 128])
    def test_a_mirror_of_another_layout_is_used_as_it_is(self, tmp_path: Path, chunk: int) -> None:
        """As another release of emcatalog may have made it: units are what both lattices share."""
        voxels = np.random.default_rng(0).integers(1, 255, (130, 140, 150), np.uint8)
        scale = build_precomputed(tmp_path / "source", voxels, missing_chunks=[(1, 1, 1), (0, 2, 0)])
        spec = spec_of((64, 64, 64), "uint8", (130, 140, 150))
        array = cache_folder(tmp_path) / f"file{tmp_path}/source/8_8_8.zarr/data"
        metadata = zarr_metadata(spec, Layout((chunk,) * 3, (2 * chunk,) * 3, (64, 64, 64)))
        array.mkdir(parents=True)
        (array / "zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": "array", **FIXED, **metadata}))
        url = f"file://{tmp_path}/source"
        cut(url, "uint8", bbox=(60, 70, 60, 70, 60, 70)).fetch()
        np.testing.assert_array_equal(cut(url, "uint8").read()["raw"], scale.read(scale.extent))
        assert bad_shards() == []


FIXED = {"chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}}, "attributes": {}}


class TestPresence:
    """A chunk is present if and only if its voxels are there and right."""

    def test_background_is_stored_as_such(self, male_cns: Server, catalog: Any, tmp_path: Path) -> None:
        empty = place(5000, 5050, 0, 64, 0, 64)
        report = catalog.malecns(bbox=empty).fetch()
        assert report.fetched == report.absent > 0
        assert len(shards(cache_folder(tmp_path) / RAW)) == 1
        male_cns.clear()
        again = catalog.malecns(bbox=empty)
        assert again.fetch().reused == report.fetched
        assert not again.read()["raw"].any()
        assert male_cns.requests == []

    def test_what_was_not_asked_for_is_not_there(self, male_cns: Server, catalog: Any) -> None:
        catalog.malecns(bbox=CORNER).fetch()
        assert catalog.malecns(bbox=BOX).plan().cached == 2
        assert catalog.malecns(bbox=place(64, 128, 0, 64, 0, 32)).plan().cached == 0

    def test_nothing_is_made_by_looking(self, male_cns: Server, catalog: Any, tmp_path: Path) -> None:
        catalog.malecns(bbox=BOX).plan()
        assert not list(cache_folder(tmp_path).rglob("*.zarr"))


class TestDamage:
    """Bytes on disk that are not what was written. Whether they are seen is asked of all that is stored."""

    @pytest.fixture
    def good(self, male_cns: Server, catalog: Any) -> xr.Dataset:
        catalog.malecns(bbox=BOX).fetch()
        male_cns.clear()
        dataset: xr.Dataset = catalog.malecns(bbox=WHOLE).read()
        assert male_cns.requests == []
        return dataset

    @pytest.mark.parametrize("mirror", [RAW, LABELS])
    def test_a_flipped_byte_anywhere(self, good: xr.Dataset, catalog: Any, tmp_path: Path, mirror: str) -> None:
        shard = shards(cache_folder(tmp_path) / mirror)[0]
        content = shard.read_bytes()
        index = index_bytes(cache_folder(tmp_path) / mirror)
        positions = [*range(0, len(content), len(content) // 20), *range(len(content) - index, len(content), 101)]
        for position in [*positions, len(content) - 1]:
            shard.write_bytes(flipped(content, position))
            with pytest.raises(CacheCorruptError, match="cache verify"):
                catalog.malecns(bbox=WHOLE).read()
        shard.write_bytes(content)
        xr.testing.assert_identical(catalog.malecns(bbox=WHOLE).read(), good)

    @pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
    def test_every_flipped_byte(self, tmp_path: Path, dtype: str) -> None:
        """Whatever the compressor: voxels of one byte, of two, and of more have different ones."""
        voxels = np.random.default_rng(0).integers(0, 3, (7, 6, 5)).astype(dtype)
        build_precomputed(tmp_path / "source", voxels)
        url = f"file://{tmp_path}/source"
        cut(url, dtype).fetch()
        shard = only_shard(cache_folder(tmp_path) / f"file{tmp_path}/source/8_8_8.zarr")
        content = shard.read_bytes()
        stored = len(content) - index_bytes(shard.parents[4])
        for position in range(stored + 100):
            shard.write_bytes(flipped(content, position))
            with pytest.raises(CacheCorruptError):
                cut(url, dtype).read()

    @pytest.mark.parametrize("keep", [0, 1, 500, 0.5, -500, -1])
    def test_a_truncated_shard(self, good: xr.Dataset, catalog: Any, tmp_path: Path, keep: float) -> None:
        shard = only_shard(cache_folder(tmp_path) / RAW)
        content = shard.read_bytes()
        shard.write_bytes(content[: int(len(content) * keep) if isinstance(keep, float) else keep])
        self.assert_found_and_healed(good, catalog, f"{RAW}/data/c/78/156/156")

    @pytest.mark.parametrize("place", [0.0, 0.3, 0.9999])
    @pytest.mark.parametrize("mirror", [RAW, LABELS])
    def test_found_and_healed(self, good: xr.Dataset, catalog: Any, tmp_path: Path, mirror: str, place: float) -> None:
        shard = shards(cache_folder(tmp_path) / mirror)[0]
        content = shard.read_bytes()
        shard.write_bytes(flipped(content, int(place * len(content))))
        self.assert_found_and_healed(good, catalog, shard.relative_to(cache_folder(tmp_path)).as_posix())

    def assert_found_and_healed(self, good: xr.Dataset, catalog: Any, key: str) -> None:
        """Verify names this shard alone; once it is removed, a fetch makes the mirror right again."""
        with pytest.raises(CacheCorruptError):
            catalog.malecns(bbox=WHOLE).read()
        assert bad_shards() == [key]
        remove_shard(the_cache(), key)
        assert catalog.malecns(bbox=BOX).fetch().fetched > 0
        xr.testing.assert_identical(catalog.malecns(bbox=WHOLE).read(), good)
        assert bad_shards() == []

    @pytest.mark.parametrize("position", [1000, -2])
    def test_fetching_into_a_damaged_shard(self, male_cns: Server, catalog: Any, tmp_path: Path, position: int) -> None:
        """What is fetched is right; what is damaged stays found."""
        catalog.malecns(bbox=CORNER, channels=["raw"]).fetch()
        shard = only_shard(cache_folder(tmp_path) / RAW)
        content = shard.read_bytes()
        shard.write_bytes(flipped(content, position % len(content)))
        # Partly empty: a fetch looks at what arrived, to tell background from chunks that are not there.
        beside, around = place(0, 64, -100, 0, -32, 32), place(0, 64, -100, 64, -32, 32)
        for bbox in (around, beside, CORNER):
            source = catalog.malecns(bbox=bbox, channels=["raw"])
            with suppress(CacheCorruptError):
                source.fetch()
            if bbox is beside and position > 0:
                assert not source.read()["raw"].any()
            else:
                with pytest.raises(CacheCorruptError):
                    source.read()
            assert bad_shards() == [f"{RAW}/data/c/78/156/156"]

    @pytest.mark.parametrize(
        "name", [f"{RAW}/data/zarr.json", "gs/flyem-male-cns/em/em-clahe-jpeg/emcatalog.json"], ids=["array", "volume"]
    )
    @pytest.mark.parametrize("text", ["", "{}", "garbage"])
    def test_damaged_metadata(self, good: xr.Dataset, catalog: Any, tmp_path: Path, name: str, text: str) -> None:
        (cache_folder(tmp_path) / name).write_text(text)
        with pytest.raises(CacheCorruptError, match="em-clahe-jpeg"):
            catalog.malecns(bbox=BOX).read()
        cache = the_cache()
        with pytest.raises(CacheCorruptError, match="em-clahe-jpeg"):
            list(verify(cache, list_mirrors(cache)[0]))
        remove_mirror(cache, RAW)
        xr.testing.assert_identical(catalog.malecns(bbox=WHOLE).read(), good)

    def test_a_lost_description_is_asked_for_again(self, good: xr.Dataset, catalog: Any, tmp_path: Path) -> None:
        (cache_folder(tmp_path) / "gs/flyem-male-cns/em/em-clahe-jpeg/emcatalog.json").unlink()
        report = catalog.malecns(bbox=BOX).fetch()
        assert report.fetched == 0
        xr.testing.assert_identical(catalog.malecns(bbox=WHOLE).read(), good)

    def test_a_lost_group_is_no_loss(self, good: xr.Dataset, catalog: Any, tmp_path: Path) -> None:
        (cache_folder(tmp_path) / RAW / "zarr.json").unlink()
        xr.testing.assert_identical(catalog.malecns(bbox=WHOLE).read(), good)


def index_bytes(folder: Path) -> int:
    """Of the index at the end of each shard of a mirror: 16 a chunk, and its checksum."""
    metadata = json.loads((folder / "data" / "zarr.json").read_text())
    shard = metadata["chunk_grid"]["configuration"]["chunk_shape"]
    chunk = metadata["codecs"][0]["configuration"]["chunk_shape"]
    return 16 * int(math.prod(shard) // math.prod(chunk)) + 4


def flipped(content: bytes, position: int) -> bytes:
    """The bytes with one bit of one of them turned over."""
    return content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :]


class TestInventory:
    """What lies in the cache."""

    def test_an_empty_cache(self, tmp_path: Path) -> None:
        assert list_mirrors(the_cache()) == []
        cache_folder(tmp_path).mkdir()
        assert list_mirrors(the_cache()) == []

    def test_list(self, male_cns: Server, catalog: Any, tmp_path: Path) -> None:
        catalog.malecns(bbox=BOX).fetch()
        catalog.malecns(bbox=BOX, resolution=16, channels=["raw"]).fetch()
        found = {mirror.name: mirror for mirror in list_mirrors(the_cache())}
        assert sorted(found) == [RAW.replace("8x8x8", "16x16x16"), RAW, LABELS]
        for name, mirror in found.items():
            files = shards(cache_folder(tmp_path) / name)
            assert mirror.nbytes == sum(path.stat().st_size for path in files) > 0
            assert [cache_folder(tmp_path) / key for key in mirror.shards] == files

    def test_verify_reads_every_shard(self, male_cns: Server, catalog: Any) -> None:
        catalog.malecns(bbox=place(0, 300, 0, 64, 0, 32)).fetch()
        cache, seen = the_cache(), list[str]()
        mirrors = list_mirrors(cache)
        assert [bad for mirror in mirrors for bad in verify(cache, mirror, seen.append)] == []
        assert seen == [key for mirror in mirrors for key in mirror.shards]
        assert len(seen) == 5

    def test_remove_mirror(self, male_cns: Server, catalog: Any, tmp_path: Path) -> None:
        dataset = catalog.malecns(bbox=BOX).read()
        catalog.malecns(bbox=BOX, resolution=16, channels=["raw"]).fetch()
        volume = cache_folder(tmp_path) / "gs/flyem-male-cns/em/em-clahe-jpeg"
        remove_mirror(the_cache(), RAW)
        assert sorted(path.name for path in volume.iterdir()) == ["16x16x16.zarr", "emcatalog.json"]
        remove_mirror(the_cache(), RAW.replace("8x8x8", "16x16x16"))
        assert [mirror.name for mirror in list_mirrors(the_cache())] == [LABELS]
        assert not (volume / "emcatalog.json").exists()
        report = catalog.malecns(bbox=BOX).fetch()
        assert (report.channels["raw"].reused, report.channels["labels"].fetched) == (0, 0)
        xr.testing.assert_identical(catalog.malecns(bbox=BOX).read(), dataset)

    def test_evicted_shard_is_fetched_again_alone(self, male_cns: Server, catalog: Any, tmp_path: Path) -> None:
        both = place(0, 300, 0, 64, 0, 32)
        dataset = catalog.malecns(bbox=both).read()
        first, _ = shards(cache_folder(tmp_path) / RAW)
        first.unlink()
        report = catalog.malecns(bbox=both).fetch()
        assert (report.channels["raw"].fetched, report.channels["raw"].reused) == (3, 2)
        xr.testing.assert_identical(catalog.malecns(bbox=both).read(), dataset)

    def test_foreign_files_are_left_alone(self, male_cns: Server, catalog: Any, tmp_path: Path) -> None:
        catalog.malecns(bbox=CORNER).fetch()
        for name in ("notes.txt", "other.zarr/c/0/0/0", f"{RAW}/data/c/78/156/156.__lock"):
            path = cache_folder(tmp_path) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("not ours")
        assert [(mirror.name, len(mirror.shards)) for mirror in list_mirrors(the_cache())] == [(RAW, 1), (LABELS, 1)]
        assert bad_shards() == []

    def test_a_scale_whose_key_is_a_path(self, tmp_path: Path) -> None:
        source = tmp_path / "source"
        scale = build_precomputed(source, np.ones((40, 40, 40), np.uint8))
        (source / "info").write_text(json.dumps({**scale.info, "scales": [{**scale.meta, "key": "level/0"}]}))
        (source / "level").mkdir()
        (source / "8_8_8").rename(source / "level/0")
        assert cut(f"file://{source}", "uint8").read()["raw"].all()
        assert bad_shards() == []
        (mirror,) = list_mirrors(the_cache())
        remove_mirror(the_cache(), mirror.name)
        assert cut(f"file://{source}", "uint8").read()["raw"].all()


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with serve_s3() as service:
        service.client().create_bucket(Bucket="shared-cache")
        yield service


class TestCacheInABucket:
    """The mirror at an object-store URL, for a group that shares one."""

    URL = "s3://shared-cache/em/mirrors"

    @pytest.fixture(autouse=True)
    def bucket(self, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "replica")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "replica")
        monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
        monkeypatch.setenv("EMCATALOG_CACHE", self.URL)

    def test_fetched_kept_listed_verified_removed(
        self, s3: S3, male_cns: Server, catalog: Any, replica: Replica
    ) -> None:
        pytest.importorskip("s3fs", reason="listing a bucket needs s3fs")
        catalog.malecns(bbox=CORNER).fetch()
        report = catalog.malecns(bbox=BOX).fetch()
        assert report.reused == 2
        male_cns.clear()
        warm = catalog.malecns(bbox=WHOLE).read()
        assert male_cns.requests == []
        np.testing.assert_array_equal(warm["raw"], expected_raw(replica.folder, 0, stored_box(WHOLE)))
        np.testing.assert_array_equal(warm["labels"], expected_labels(replica.folder, 0, stored_box(WHOLE)))
        mirrors = list_mirrors(the_cache())
        assert [mirror.name for mirror in mirrors] == [RAW, LABELS]
        assert all(mirror.nbytes > 0 for mirror in mirrors)
        self.damage(s3, mirrors[0])
        with pytest.raises(CacheCorruptError, match=self.URL):
            catalog.malecns(bbox=WHOLE).read()
        assert bad_shards() == [mirrors[0].shards[0]]
        remove_shard(the_cache(), mirrors[0].shards[0])
        xr.testing.assert_identical(catalog.malecns(bbox=WHOLE).read(), warm)
        remove_mirror(the_cache(), RAW)
        assert [mirror.name for mirror in list_mirrors(the_cache())] == [LABELS]

    def damage(self, s3: S3, mirror: MirrorFiles) -> None:
        key = f"em/mirrors/{mirror.shards[0]}"
        content = s3.client().get_object(Bucket="shared-cache", Key=key)["Body"].read()
        s3.client().put_object(Bucket="shared-cache", Key=key, Body=flipped(content, 100))

    def test_a_bucket_that_is_not_there(self, male_cns: Server, catalog: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(CacheError, match="s3://no-such-bucket"):
            catalog.malecns(bbox=BOX, cache_dir="s3://no-such-bucket/x").read()


def test_a_mirror_shared_by_two_sources_of_one_url(tmp_path: Path) -> None:
    """An address whose data was replaced by another shape: refused, never mixed."""
    first, second = (np.full((40, 40, side), side, np.uint8) for side in (40, 50))
    for name, voxels in (("first", first), ("second", second)):
        build_precomputed(tmp_path / name, voxels)
    with serve(tmp_path) as server:
        old, new = f"{server.url}/first", f"{server.url}/second"
        np.testing.assert_array_equal(cut(old, "uint8").read()["raw"], first)
        np.testing.assert_array_equal(cut(new, "uint8").read()["raw"], second)
    names = [mirror.name.rpartition("/")[0].rpartition("/")[2] for mirror in list_mirrors(the_cache())]
    assert names == ["first", "second"]


def test_voxels_of_every_kind_survive(tmp_path: Path) -> None:
    for dtype in ("int8", "uint16", "int32", "uint64", "float32"):
        voxels = extremes(dtype)
        build_precomputed(tmp_path / dtype, voxels)
        cut(f"file://{tmp_path}/{dtype}", dtype).fetch()
        got = cut(f"file://{tmp_path}/{dtype}", dtype, offline=True).read()["raw"]
        np.testing.assert_array_equal(got, voxels)
        assert got.dtype == voxels.dtype


def extremes(dtype: str) -> Array:
    """A block with the smallest and the largest number of a kind, and zeros of both signs."""
    kind: Any = np.finfo(dtype) if dtype.startswith("float") else np.iinfo(dtype)
    voxels = np.zeros((9, 9, 9), dtype)
    voxels[0, 0, :2] = kind.min, kind.max
    if dtype.startswith("float"):
        voxels[1, 1, :3] = np.nan, np.inf, -0.0
    return voxels
