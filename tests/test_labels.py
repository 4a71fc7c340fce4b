"""Instance ids as consecutive numbers: nothing is lost, and large ids cost no memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

import emcatalog
from emcatalog.errors import ArgumentError
from emcatalog.labels import renumber
from tests.conftest import place, python
from tests.replica.precomputed import build_precomputed
from tests.replica.wire import Server
from tests.test_audit import entry, volume, write_catalog

quick = settings(max_examples=200, deadline=None)

DTYPES = ("uint8", "uint16", "uint32", "uint64")


@st.composite
def labels(draw: st.DrawFn) -> NDArray[Any]:
    """Few ids in many voxels, background or not; near the ends of what the dtype holds, and near 2**32 and 2**63."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    largest = int(np.iinfo(dtype).max)
    near = [number for number in (0, 1, 2**8, 2**16, 2**31, 2**32, 2**53, 2**63, largest) if number <= largest]
    some = st.sampled_from(near).flatmap(lambda n: st.integers(max(0, n - 2), min(largest, n + 2)))
    ids = draw(st.lists(some | st.integers(0, largest), min_size=1, max_size=8))
    shape = draw(array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=5))
    return draw(arrays(dtype, shape, elements=st.sampled_from(ids)))


def in_order_of_meeting(values: NDArray[Any]) -> list[int]:
    """The ids but 0, each once, as they come along the array."""
    return [number for number in dict.fromkeys(values.ravel().tolist()) if number != 0]


class TestRenumber:
    """Ids -> 1, 2, 3, ..."""

    @quick
    @given(labels())
    def test_there_and_back(self, values: NDArray[Any]) -> None:
        before = values.copy()
        numbers, ids = renumber(values)
        np.testing.assert_array_equal(values, before)
        assert (numbers.dtype, numbers.shape) == (np.uint32, values.shape)
        assert ids.dtype == values.dtype
        np.testing.assert_array_equal(ids[numbers], values)

    @quick
    @given(labels())
    def test_numbers_are_consecutive_in_the_order_of_meeting_and_0_stays_0(self, values: NDArray[Any]) -> None:
        numbers, ids = renumber(values)
        assert ids.tolist() == [0, *in_order_of_meeting(values)]
        assert in_order_of_meeting(numbers) == list(range(1, len(ids)))
        np.testing.assert_array_equal(numbers == 0, values == 0)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_only_background(self, dtype: str) -> None:
        numbers, ids = renumber(np.zeros((3, 4, 5), dtype))
        assert not numbers.any()
        assert (ids.tolist(), ids.dtype) == ([0], dtype)

    def test_no_background(self) -> None:
        numbers, ids = renumber(np.full((3, 4, 5), 2**63 + 1, np.uint64))
        assert (numbers == 1).all()
        assert ids.tolist() == [0, 2**63 + 1]

    def test_ids_that_a_float_cannot_tell_apart(self) -> None:
        values = np.array([2**63 + n for n in (1, 0, 2, 1)] + [2**64 - 1, 2**64 - 2, 2**32, 2**32 + 1], np.uint64)
        numbers, ids = renumber(values)
        assert numbers.tolist() == [1, 2, 3, 1, 4, 5, 6, 7]
        assert ids.tolist() == [0, *dict.fromkeys(values.tolist())]

    @pytest.mark.parametrize("count", [254, 255, 256, 257, 65534, 65536, 70000])
    def test_more_ids_than_a_small_number_can_hold(self, count: int) -> None:
        values = np.random.default_rng(0).permutation(np.arange(1, count + 1, dtype=np.uint32) * np.uint32(61_000))
        numbers, ids = renumber(values)
        assert numbers.tolist() == list(range(1, count + 1))
        np.testing.assert_array_equal(ids[1:], values)

    @pytest.mark.parametrize("dtype", ["uint8", "uint16"])
    @pytest.mark.parametrize("first", [0, 1])
    def test_every_id_of_a_dtype(self, dtype: str, first: int) -> None:
        values = np.arange(first, int(np.iinfo(dtype).max) + 1).astype(dtype)[::-1].copy()
        numbers, ids = renumber(values)
        np.testing.assert_array_equal(ids[numbers], values)
        assert len(np.unique(numbers)) == len(values)

    def test_arrays_that_are_views_or_cannot_be_written(self) -> None:
        whole = np.random.default_rng(0).integers(2**60, 2**60 + 9, (6, 7, 8)).astype(np.uint64)
        for view in (whole[::2, 1:, ::-1], whole.transpose(2, 0, 1), np.broadcast_to(whole[0], (3, 7, 8))):
            numbers, ids = renumber(view)
            np.testing.assert_array_equal(ids[numbers], view)
            assert set(np.unique(numbers)) == set(range(1, 10))

    def test_an_empty_array(self) -> None:
        numbers, ids = renumber(np.zeros((0, 3, 3), np.uint64))
        assert (numbers.shape, numbers.dtype, ids.tolist()) == ((0, 3, 3), np.uint32, [0])


MEMORY = """
import resource
import numpy as np
from emcatalog.labels import renumber

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

renumber(np.array([[[0, 2**60, 2**63]]], np.uint64))  # its library is loaded
ids = np.uint64(2**60) + np.arange(1000, dtype=np.uint64) * np.uint64(10**12)
labels = np.resize(ids, (8, 1024, 1024))
before = peak()
numbers, found = renumber(labels)
after = peak()
assert len(found) == 1001 and (found[numbers[-1]] == labels[-1]).all()
print(labels.nbytes, after - before)
"""


def test_memory_depends_on_how_many_ids_there_are_and_not_on_how_large_they_are() -> None:
    """A table up to the largest id, as numpy.bincount makes it, would take 2**60 numbers."""
    nbytes, growth = map(int, python(MEMORY).split())
    assert nbytes == 64 << 20
    assert growth <= 2.5 * nbytes


class TestEntry:
    """``consecutive=True``."""

    BOX = (30, 130, 10, 90, 5, 75)

    def test_of_the_demo(self, catalog: Any) -> None:
        plain = catalog.demo(bbox=self.BOX).read()
        read = catalog.demo(bbox=self.BOX, consecutive=True).read()
        assert (plain.labels.dtype, read.labels.dtype) == (np.uint64, np.uint32)
        assert read.labels.dims == plain.labels.dims == ("z", "y", "x")
        ids = read.labels_ids
        assert (ids.dims, ids.dtype) == (("labels_number",), np.uint64)
        np.testing.assert_array_equal(ids.values[read.labels.values], plain.labels.values)
        n = len(np.unique(plain.labels.values[plain.labels.values > 0]))
        assert n > 5
        assert np.unique(read.labels.values[read.labels.values > 0]).tolist() == list(range(1, n + 1))
        assert read.labels.attrs == plain.labels.attrs
        assert read.attrs == plain.attrs
        assert read.raw.identical(plain.raw)

    def test_is_not_kept_in_the_mirror(self, catalog: Any) -> None:
        before = catalog.demo(bbox=self.BOX, consecutive=True).read()
        plain = catalog.demo(bbox=self.BOX, offline=True).read()
        assert plain.labels.dtype == np.uint64
        assert "labels_ids" not in plain
        assert catalog.demo(bbox=self.BOX, offline=True, consecutive=True).read().identical(before)

    def test_ids_of_the_male_cns(self, male_cns: Server, catalog: Any) -> None:
        box = place(30, 130, 10, 90, 5, 75)
        plain = catalog.malecns(bbox=box, channels=["labels"]).read()
        read = catalog.malecns(bbox=box, channels=["labels"], consecutive=True).read()
        np.testing.assert_array_equal(read.labels_ids.values[read.labels.values], plain.labels.values)

    def test_large_ids_of_two_channels_each_with_numbers_of_its_own(self, tmp_path: Path) -> None:
        volumes = {}
        for name, first in (("neurons", 2**63), ("organelles", 2**32)):
            values = np.random.default_rng(0).integers(first, first + 4, (16, 20, 24), np.uint64)
            values[:, :, :3] = 0
            build_precomputed(tmp_path / name, values, resolution=(4, 5, 40))
            volumes[name] = volume(f"file://{tmp_path}/{name}", kind="instances", dtype="uint64")
        tissue = emcatalog.open_catalog(write_catalog(tmp_path / "own.yaml", tissue=entry(**volumes))).tissue
        plain, read = tissue.read(), tissue(consecutive=True).read()
        for name in volumes:
            assert set(np.unique(read[name].values)) == {0, 1, 2, 3, 4}
            np.testing.assert_array_equal(read[f"{name}_ids"].values[read[name].values], plain[name].values)

    @pytest.mark.parametrize("use", ["to_dask", "export"])
    def test_is_refused_where_blocks_are_read_one_by_one(self, catalog: Any, tmp_path: Path, use: str) -> None:
        source = catalog.demo(bbox=self.BOX, consecutive=True)
        with pytest.raises(ArgumentError, match="consecutive=True needs all ids of the box at once") as caught:
            source.to_dask() if use == "to_dask" else source.export(tmp_path / "box.zarr")
        assert f"{use}()" in str(caught.value)
        assert not (tmp_path / "box.zarr").exists()

    def test_is_refused_where_nothing_is_an_instance(self, catalog: Any) -> None:
        with pytest.raises(ArgumentError, match=r"consecutive=True, and none of raw holds instances"):
            catalog.demo(bbox=self.BOX, channels=["raw"], consecutive=True).read()

    @pytest.mark.parametrize("value", ["perhaps", 2, None, [True]], ids=repr)
    def test_is_a_yes_or_no(self, catalog: Any, value: object) -> None:
        with pytest.raises(ArgumentError, match="consecutive: "):
            catalog.demo(consecutive=value)

    def test_semantic_classes_keep_their_numbers(self, tmp_path: Path) -> None:
        build_precomputed(tmp_path / "classes", np.full((8, 8, 8), 7, np.uint8), resolution=(4, 5, 40))
        build_precomputed(tmp_path / "labels", np.full((8, 8, 8), 7, np.uint32), resolution=(4, 5, 40))
        volumes = {
            "classes": volume(f"file://{tmp_path}/classes", kind="semantic", dtype="uint8"),
            "labels": volume(f"file://{tmp_path}/labels", kind="instances", dtype="uint32"),
        }
        path = write_catalog(tmp_path / "own.yaml", tissue=entry(**volumes))
        read = emcatalog.open_catalog(path).tissue(consecutive=True).read()
        assert set(read) == {"classes", "labels", "labels_ids"}
        assert (read.classes.values == 7).all()
        assert (read.labels.values == 1).all()
