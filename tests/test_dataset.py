"""A cutout as a Dataset: where its voxels stand, and how dask cuts it."""

from __future__ import annotations

import pickle
from itertools import accumulate, pairwise, product
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from dask.base import tokenize
from hypothesis import given
from hypothesis import strategies as st

from emcatalog.cutout import Cutout
from emcatalog.cutout_channel import CutoutChannel
from emcatalog.dataset import LazyChannel, lazy_arrays, to_dataset
from emcatalog.entries.volume import ChannelModel
from emcatalog.formats.volume import ArraySpec
from emcatalog.geometry import Alignment, Box, Grid, Zyx, zyx
from emcatalog.mirror.layout import choose_layout
from emcatalog.settings import Settings
from tests.conftest import cut
from tests.replica.precomputed import build_precomputed
from tests.replica.stored import Array

SHAPE = (90, 70, 150)
OFFSET_XYZ = (5, -3, 100)
RESOLUTION_XYZ = (3.58, 4, 40.5)
BBOX = (9, 140, 0, 60, 110, 185)
"""In voxels, x, y, z."""


@pytest.fixture
def voxels() -> Array:
    return np.random.default_rng(0).integers(1, 255, SHAPE, np.uint8)


@pytest.fixture
def url(tmp_path: Path, voxels: Array) -> str:
    """A volume whose first voxel is not (0, 0, 0) and whose voxels are no cubes."""
    form: Any = {"voxel_offset": OFFSET_XYZ, "resolution": RESOLUTION_XYZ, "chunk": (32, 32, 32)}
    build_precomputed(tmp_path / "source", voxels, **form)
    return f"file://{tmp_path}/source"


def cutout_of(url: str, **arguments: Any) -> Cutout:
    return cut(url, "uint8", RESOLUTION_XYZ, **arguments)


def lazily(cutout: Cutout, block: Zyx | None = None) -> xr.Dataset:
    return to_dataset(cutout, lazy_arrays(cutout, block), {"entry": "test"})


class TestPlace:
    """Where voxels stand in space."""

    def test_coordinates_are_centres(self, url: str, voxels: Array) -> None:
        cutout = cutout_of(url, bbox=BBOX)
        dataset = to_dataset(cutout, cutout.read(), {})
        np.testing.assert_array_equal(dataset["raw"], voxels[10:85, 3:63, 4:135])
        np.testing.assert_allclose(dataset["x"], (np.arange(9, 140) + 0.5) * 3.58)
        np.testing.assert_allclose(dataset["y"], (np.arange(0, 60) + 0.5) * 4)
        np.testing.assert_allclose(dataset["z"], (np.arange(110, 185) + 0.5) * 40.5)

    def test_attributes(self, url: str) -> None:
        cutout = cutout_of(url, bbox=BBOX)
        attributes = to_dataset(cutout, cutout.read(), {"entry": "mine"}).attrs
        assert attributes["bbox"] == list(BBOX)
        assert attributes["voxel_size_nm"] == [3.58, 4, 40.5]
        np.testing.assert_allclose(attributes["origin_nm"], [9 * 3.58, 0, 110 * 40.5])
        edges = [edge * size for edge, size in zip(BBOX, np.repeat(RESOLUTION_XYZ, 2), strict=True)]
        np.testing.assert_allclose(attributes["bbox_nm"], edges)
        assert attributes["entry"] == "mine"

    def test_selection_by_place(self, url: str, voxels: Array) -> None:
        cutout = cutout_of(url)
        dataset = to_dataset(cutout, cutout.read(), {})
        assert (
            dataset["raw"].sel(x=40 * 3.58 + 1, y=20 * 4 + 1, z=150 * 40.5 + 20, method="nearest") == voxels[50, 23, 35]
        )

    def test_whole_extent(self, url: str) -> None:
        assert cutout_of(url).attributes()["bbox"] == [5, 155, -3, 67, 100, 190]


class TestLazy:
    """Dask arrays."""

    @pytest.mark.parametrize("block", [None, (30, 30, 30), (1, 200, 64)])
    def test_equals_the_dataset_in_memory(self, url: str, block: Zyx | None) -> None:
        cutout = cutout_of(url, bbox=BBOX)
        lazy = lazily(cutout, block)
        with dask.config.set(scheduler="threads"):
            computed = lazy.compute()
        xr.testing.assert_identical(computed, to_dataset(cutout, cutout.read(), {"entry": "test"}))

    def test_nothing_is_fetched_before_it_is_computed(self, url: str) -> None:
        cutout = cutout_of(url)
        lazy = lazily(cutout)
        assert lazy["raw"].shape == SHAPE
        assert lazy["raw"].dtype == np.uint8
        assert cutout_of(url).plan().cached == 0
        lazy["raw"][:10, :10, :10].compute()
        assert cutout_of(url).plan().cached > 0

    def test_a_small_block_fetches_its_own_chunks_alone(self, url: str) -> None:
        lazily(cutout_of(url), (32, 32, 32))["raw"][:32, :32, :32].compute()
        assert cutout_of(url).plan().cached == 1

    @pytest.mark.parametrize(
        "index",
        [
            (slice(3, 60), slice(None), slice(10, 130)),
            (slice(None, None, 3), slice(60, None, -1), slice(5, 6)),
            (slice(5, 5), slice(None), slice(None)),
            (slice(80, 10, -7), slice(2, 200), slice(-9, -2)),
        ],
    )
    def test_slices(self, url: str, voxels: Array, index: tuple[slice, slice, slice]) -> None:
        cutout = cutout_of(url)
        np.testing.assert_array_equal(lazily(cutout)["raw"].data[index].compute(), voxels[index])
        if all((piece.step or 1) > 0 for piece in index):
            np.testing.assert_array_equal(LazyChannel(cutout, "raw")[index], voxels[index])

    def test_pickled_blocks(self, url: str, voxels: Array) -> None:
        cutout = cutout_of(url)
        cutout.fetch()  # opens stores, which do not travel
        channel = pickle.loads(pickle.dumps(LazyChannel(cutout, "raw")))
        assert channel.shape == SHAPE
        assert channel.dtype == np.uint8
        np.testing.assert_array_equal(channel[1:3, 2:4, 5:7], voxels[1:3, 2:4, 5:7])

    def test_names_tell_voxels_apart(self, url: str, tmp_path: Path) -> None:
        def name(**arguments: Any) -> str:
            return tokenize(LazyChannel(cutout_of(url, **arguments), "raw"))

        assert name(bbox=BBOX) == name(bbox=list(BBOX))
        assert len({name(), name(bbox=BBOX), name(bbox=BBOX, cache_dir=tmp_path / "other")}) == 3


def channel(chunk: Zyx, dtype: str, offset: Zyx, shift: Zyx) -> CutoutChannel:
    grid = Grid((10_000, 10_000, 10_000), (8.0, 8.0, 8.0), offset)
    model = ChannelModel(url="precomputed://gs://b/v", kind="image", dtype=dtype, voxel_size=8, source="a test")
    z, y, x = (by + 0.5 for by in shift)
    return CutoutChannel(model, ArraySpec("s", dtype, grid, chunk, "raw"), Alignment((1.0, 1.0, 1.0), (z, y, x)))


places = st.tuples(*[st.integers(-500, 500)] * 3)
sides = st.tuples(*[st.integers(1, 600)] * 3)
chunks = st.sampled_from([(64, 64, 64), (16, 512, 512), (1, 2048, 2048), (100, 30, 7)])


class TestBlocks:
    """Where a box is cut for dask."""

    @given(places, sides, chunks, st.sampled_from(["uint8", "uint64"]), places, places)
    def test_of_one_channel(self, begin: Zyx, shape: Zyx, chunk: Zyx, dtype: str, offset: Zyx, shift: Zyx) -> None:
        one = channel(chunk, dtype, offset, shift)
        box = Box(begin, zyx([low + side for low, side in zip(begin, shape, strict=True)]))
        cutout = Cutout({"raw": one}, one.spec.grid, box, Settings())
        for sizes, side in zip(cutout.block_sizes(), shape, strict=True):
            assert sum(sizes) == side
            assert min(sizes) > 0
        seen = [shards_of(one, block) for block in blocks_of(cutout)]
        assert sum(map(len, seen)) == len(set().union(*seen)), "no two blocks fill one shard"

    @given(places, sides, chunks, st.sampled_from(["uint8", "uint64"]), places, places)
    def test_of_a_box_in_one_shard(
        self, begin: Zyx, shape: Zyx, chunk: Zyx, dtype: str, offset: Zyx, shift: Zyx
    ) -> None:
        one = channel(chunk, dtype, offset, shift)
        box = Box(begin, zyx([low + side for low, side in zip(begin, shape, strict=True)]))
        whole = Cutout({"raw": one}, one.spec.grid, box, Settings())
        for block in blocks_of(whole):
            if len(shards_of(one, block)) == 1:
                assert Cutout({"raw": one}, one.spec.grid, block, Settings()).block_sizes() == tuple(
                    (side,) for side in block.shape
                )


def blocks_of(cutout: Cutout) -> list[Box]:
    """The blocks that dask would cut a cutout into."""
    edges = [
        [low + cut for cut in accumulate(sizes, initial=0)]
        for low, sizes in zip(cutout.box.begin, cutout.block_sizes(), strict=True)
    ]
    return [
        Box((z0, y0, x0), (z1, y1, x1))
        for (z0, z1), (y0, y1), (x0, x1) in product(*(pairwise(along) for along in edges))
    ]


def shards_of(channel: CutoutChannel, block: Box) -> set[Zyx]:
    """The shards of the mirror that a block of the cutout's grid fills."""
    offset, shard = channel.spec.grid.offset, choose_layout(channel.spec).shard
    (z0, y0, x0), (z1, y1, x1) = channel.box(block).begin, channel.box(block).end
    first = [(begin - low) // side for begin, low, side in zip((z0, y0, x0), offset, shard, strict=True)]
    last = [(end - 1 - low) // side for end, low, side in zip((z1, y1, x1), offset, shard, strict=True)]
    z, y, x = (range(a, b + 1) for a, b in zip(first, last, strict=True))
    return {(i, j, k) for i in z for j in y for k in x}
