"""Every patch of a box once, and predictions put back into the box: what is stitched is where it was cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from ome_zarr_models.v05 import Image

from emcatalog.errors import ArgumentError
from emcatalog.torch import GridDataset, loader, open_grid, stitch
from tests.conftest import BBox, place, scale_and_translation
from tests.replica.stored import Array
from tests.replica.wire import Server
from tests.test_fetch import assert_clear
from tests.test_torch_dataset import Pair, build_pair, slices

PATCH = (8, 12, 10)
BOX: BBox = (3, 40, 2, 29, 1, 22)
"""21 x 27 x 37 voxels (z, y, x), none of it a multiple of a patch."""
FORMS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "side by side": (PATCH, (0, 0, 0)),
    "overlapping": (PATCH, (3, 5, 2)),
    "mostly overlapping": ((8, 8, 8), (6, 4, 4)),
    "odd": ((7, 9, 11), (1, 3, 5)),
    "slices": ((1, 12, 10), (0, 0, 0)),
    "overlapping slices": ((1, 12, 10), (0, 5, 3)),
    "whole slices": ((1, 27, 37), (0, 0, 0)),
    "the box": ((21, 27, 37), (0, 0, 0)),
}
"""Patch and overlap."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The numbered volume."""
    return build_pair(tmp_path_factory.mktemp("numbered"))


def in_box(pair: Pair) -> Array:
    """What was put in, (z, y, x)."""
    return pair.raw[slices(BOX)]


def grid_of(pair: Pair, form: str = "overlapping", **options: Any) -> GridDataset:
    """Patches of the box, voxels as they are stored."""
    patch, overlap = FORMS[form]
    return pair.source(bbox=BOX).to_grid(patch, overlap, **{"raw_transform": None, **options})


def itself(grid: GridDataset, batch_size: int = 4) -> Iterator[tuple[Any, Any]]:
    """The patches as predictions: what is stitched is the box."""
    for raw, *_, positions in loader(grid, batch_size, 2):
        yield raw, positions


class TestPatches:
    """``grid[index]``."""

    @pytest.mark.parametrize("form", FORMS)
    def test_every_voxel(self, pair: Pair, form: str) -> None:
        """At least once; and exactly once where the edges of the box are whole patches."""
        grid, whole = grid_of(pair, form), in_box(pair)
        seen = np.zeros(whole.shape, int)
        for raw, position in map(grid.__getitem__, range(len(grid))):
            here = tuple(slice(a, a + side) for a, side in zip(position.tolist(), grid.tiling.patch_shape, strict=True))
            np.testing.assert_array_equal(raw.numpy().reshape(grid.tiling.patch_shape), whole[here])
            seen[here] += 1
        assert seen.min() == 1

    def test_no_voxel_twice_where_patches_fill_the_box(self, pair: Pair) -> None:
        grid = pair.source().to_grid((8, 10, 11), raw_transform=None)
        numbers = torch.cat([raw.flatten() for raw, _ in map(grid.__getitem__, range(len(grid)))])
        np.testing.assert_array_equal(np.sort(numbers.numpy()), pair.raw.ravel())

    def test_neighbours_share_at_least_the_overlap(self, pair: Pair) -> None:
        grid = grid_of(pair)
        positions = [tuple(position.tolist()) for _, position in map(grid.__getitem__, range(len(grid)))]
        assert positions == list(product([0, 5, 10, 13], [0, 7, 14, 15], [0, 8, 16, 24, 27]))

    def test_form(self, pair: Pair) -> None:
        raw, position = grid_of(pair)[0]
        assert (raw.shape, raw.dtype) == ((1, *PATCH), torch.float32)
        assert (position.shape, position.dtype) == ((3,), torch.int64)
        raw, _ = grid_of(pair, "slices")[0]
        assert raw.shape == (1, 12, 10)

    def test_target(self, pair: Pair) -> None:
        raw, target, position = grid_of(pair, target="instances")[31]
        assert torch.equal(raw.long() + 1, target)
        assert torch.equal(position, grid_of(pair)[31][1])
        offsets = [[0, 0, 1], [0, 1, 0]]
        assert grid_of(pair, target="affinities", offsets=offsets, mask=True)[0][1].shape == (4, *PATCH)
        assert grid_of(pair, target="binary", target_dtype="uint8")[0][1].dtype == torch.uint8

    def test_info_reopens_a_patch(self, male_cns: Server, catalog: Any) -> None:
        grid = catalog.malecns(bbox=place(3, 60, 5, 47, 7, 40)).to_grid((16, 20, 24), raw_transform=None)
        info = grid.info(5)
        again = catalog.malecns(bbox=info["bbox_nm"], units="nm", channels=list(info["channels"])).read()
        np.testing.assert_array_equal(grid[5][0][0], again["raw"])

    @pytest.mark.parametrize("workers", [0, 2, 8])
    def test_a_loader_keeps_the_order(self, pair: Pair, workers: int) -> None:
        grid = grid_of(pair, target="instances")
        for _ in range(2):  # and there is but one epoch, again and again
            raw, target, positions = (torch.cat(part) for part in zip(*loader(grid, 7, workers), strict=True))
            assert len(raw) == len(grid)
            for index in range(len(grid)):
                for got, expected in zip((raw, target, positions), grid[index], strict=True):
                    assert torch.equal(got[index], expected)

    def test_in_a_process(self, pair: Pair) -> None:
        grid = grid_of(pair)
        some, others = (list(loader(grid, 16, 1, workers=kind)) for kind in ("thread", "process"))
        for one, other in zip(some, others, strict=True):
            assert torch.equal(one[0], other[0])
            assert torch.equal(one[1], other[1])

    def test_beyond_the_end(self, pair: Pair) -> None:
        grid = grid_of(pair)
        with pytest.raises(IndexError, match=f"no sample {len(grid)}"):
            grid[len(grid)]


class TestStitch:
    """``stitch``."""

    @pytest.mark.parametrize("form", FORMS)
    def test_the_box_comes_back(self, pair: Pair, tmp_path: Path, form: str) -> None:
        grid = grid_of(pair, form)
        whole = stitch(itself(grid), grid)
        assert isinstance(whole, np.ndarray)
        assert (whole.shape, whole.dtype) == ((1, *in_box(pair).shape), np.float32)
        np.testing.assert_array_equal(whole[0], in_box(pair))
        path = stitch(itself(grid), grid, tmp_path / "box.zarr")
        assert path == tmp_path / "box.zarr"
        np.testing.assert_array_equal(zarr.open_array(path / "data", mode="r")[:], whole)

    def test_in_any_order_and_of_any_batches(self, pair: Pair) -> None:
        grid = grid_of(pair)
        items = [grid[index] for index in np.random.default_rng(0).permutation(len(grid))]
        cuts = [items[first : first + 5] for first in range(0, len(items), 5)]
        batches = [tuple(map(torch.stack, zip(*cut, strict=True))) for cut in cuts]
        np.testing.assert_array_equal(stitch(batches, grid)[0], in_box(pair))

    def test_the_middle_of_a_patch_wins(self, pair: Pair) -> None:
        """At its faces a network sees least."""
        grid = pair.source(bbox=(0, 30, 0, 12, 0, 8)).to_grid(PATCH, (0, 0, 4))
        numbered = ((torch.full((1, 1, *PATCH), float(index)), grid[index][1][None]) for index in range(len(grid)))
        row = stitch(numbered, grid)[0, 0, 0]
        assert [position.tolist()[2] for _, position in map(grid.__getitem__, range(len(grid)))] == [0, 6, 12, 18, 20]
        assert row.tolist() == [0] * 8 + [1] * 6 + [2] * 6 + [3] * 4 + [4] * 6

    @pytest.mark.parametrize(
        ("dtype", "expected"),
        [(torch.float16, np.float16), (torch.bfloat16, np.float32), (torch.uint8, np.uint8), (torch.int64, np.int64)],
    )
    def test_dtype_of_predictions(self, pair: Pair, tmp_path: Path, dtype: torch.dtype, expected: Any) -> None:
        grid = grid_of(pair)
        batches = [((raw % 100).to(dtype), positions) for raw, positions in itself(grid)]
        whole = stitch(batches, grid)
        assert whole.dtype == expected
        np.testing.assert_array_equal(whole[0], in_box(pair) % 100)
        assert zarr.open_array(stitch(batches, grid, tmp_path / "box.zarr") / "data", mode="r").dtype == expected

    def test_what_a_network_gives(self, pair: Pair, tmp_path: Path) -> None:
        """Tensors that still know how to be differentiated, of several channels."""
        grid = grid_of(pair)
        network = torch.nn.Conv3d(1, 3, 1)
        whole = stitch(((network(raw), positions) for raw, positions in itself(grid)), grid)
        with torch.no_grad():
            expected = network(torch.as_tensor(in_box(pair).astype(np.float32))[None])
        np.testing.assert_allclose(whole, expected, rtol=1e-5)
        path = stitch(((network(raw), positions) for raw, positions in itself(grid)), grid, tmp_path / "box.zarr")
        np.testing.assert_array_equal(zarr.open_array(path / "data", mode="r")[:], whole)

    def test_arrays_of_numpy(self, pair: Pair) -> None:
        grid = grid_of(pair)
        whole = stitch(((raw.numpy(), positions.tolist()) for raw, positions in itself(grid)), grid)
        np.testing.assert_array_equal(whole[0], in_box(pair))


class TestZarr:
    """The folder that ``stitch`` writes."""

    def test_is_an_ome_zarr_that_stands_where_the_box_does(
        self, male_cns: Server, catalog: Any, tmp_path: Path
    ) -> None:
        bbox = place(3, 60, 5, 47, 7, 40)
        grid = catalog.malecns(bbox=bbox).to_grid((16, 20, 24), (4, 4, 4))
        path = stitch(itself(grid), grid, tmp_path / "box.zarr")
        image = Image.from_zarr(zarr.open_group(path, mode="r"))
        (multiscale,) = image.ome_attributes.multiscales
        assert multiscale.name == "box.zarr"
        assert [axis.name for axis in multiscale.axes] == ["c", "z", "y", "x"]
        corner = [8 * edge + 4 for edge in (bbox[4], bbox[2], bbox[0])]
        assert scale_and_translation(multiscale) == ([1, 8, 8, 8], [0, *corner])
        attributes = dict(zarr.open_group(path, mode="r").attrs)
        assert attributes["bbox"] == list(bbox)
        metadata: Any = zarr.open_array(path / multiscale.datasets[0].path, mode="r").metadata
        assert metadata.dimension_names == ("c", "z", "y", "x")

    def test_what_exists_is_refused_before_anything_is_predicted(self, pair: Pair, tmp_path: Path) -> None:
        grid = grid_of(pair)
        path = stitch(itself(grid), grid, tmp_path / "box.zarr")
        with pytest.raises(ArgumentError, match=r"box\.zarr exists.*overwrite=True"):
            stitch((pytest.fail("asked for") for _ in range(1)), grid, path)

    def test_overwrite(self, pair: Pair, tmp_path: Path) -> None:
        grid = grid_of(pair)
        path = stitch(((0 * raw, positions) for raw, positions in itself(grid)), grid, tmp_path / "box.zarr")
        stitch(itself(grid), grid, path, overwrite=True)
        np.testing.assert_array_equal(zarr.open_array(path / "data", mode="r")[0], in_box(pair))


def without_one(batches: Sequence[Any]) -> list[Any]:
    """Without the second patch."""
    raw, positions = batches[0]
    return [(raw[[0, 2, 3]], positions[[0, 2, 3]]), *batches[1:]]


def moved(batches: Sequence[Any]) -> list[Any]:
    """A patch that is beside its place."""
    return [(batches[0][0], batches[0][1] + 1), *batches[1:]]


WRONG: dict[str, tuple[Any, tuple[str, ...]]] = {
    "nothing": (lambda _: [], ("80 of 80 patches are missing",)),
    "a patch that is missing": (without_one, ("1 of 80 patches are missing", "(0, 0, 8)", "every patch of the grid")),
    "a prediction that is smaller": (
        lambda batches: [(raw[..., 1:-1], at) for raw, at in batches],
        ("(1, 8, 12, 8)", "(8, 12, 10)", "(c, z, y, x)"),
    ),
    "a prediction without channels": (lambda batches: [(raw[:, 0], at) for raw, at in batches], ("(c, z, y, x)",)),
    "a place that is none": (moved, ("no patch begins at [1, 1, 1]", "positions that came with the patches")),
    "too few places": (lambda batches: [(raw, at[1:]) for raw, at in batches], ("(4, 1, 8, 12, 10)", "(3, 3)")),
    "a patch without its batch": (lambda batches: [(batches[0][0][0], batches[0][1][0])], ("give batches", "(b, 3)")),
    "other channels": (
        lambda batches: [batches[0], *((torch.cat([raw, raw], 1), at) for raw, at in batches[1:])],
        ("2 channels", "1 of", "the same for every patch"),
    ),
    "another dtype": (
        lambda batches: [(batches[0][0].to(torch.uint8), batches[0][1]), *batches[1:]],
        ("float32", "uint8", "the same for every patch"),
    ),
}


class TestWrong:
    """Predictions that do not make a box; nothing is left of the Zarr that was begun."""

    @pytest.mark.parametrize(("spoil", "words"), WRONG.values(), ids=WRONG)
    def test_predictions(self, pair: Pair, tmp_path: Path, spoil: Any, words: tuple[str, ...]) -> None:
        grid = grid_of(pair)
        batches = list(itself(grid))
        for path in (None, tmp_path / "box.zarr"):
            with pytest.raises(ArgumentError) as caught:
                stitch(spoil(batches), grid, path)
            assert_clear(caught.value, ValueError, *words)
        assert not [*tmp_path.glob("*box.zarr*")]

    def test_a_network_that_fails(self, pair: Pair, tmp_path: Path) -> None:
        def predictions() -> Iterator[Any]:
            yield from list(itself(grid_of(pair)))[:2]
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            stitch(predictions(), grid_of(pair), tmp_path / "box.zarr")
        assert not [*tmp_path.glob("*box.zarr*")]

    def test_a_patch_larger_than_the_box(self, pair: Pair) -> None:
        with pytest.raises(ArgumentError) as caught:
            pair.source(bbox=BOX).to_grid((22, 12, 10))
        assert_clear(caught.value, ValueError, "10 x 12 x 22", "37 x 27 x 21", "smaller patch_shape", "larger bbox")

    @pytest.mark.parametrize("overlap", [(8, 0, 0), (-1, 0, 0), (2, 2), 2, (1.5, 0, 0)])
    def test_overlap(self, pair: Pair, overlap: Any) -> None:
        with pytest.raises(ArgumentError, match="overlap"):
            pair.source(bbox=BOX).to_grid(PATCH, overlap)

    def test_what_is_no_source(self) -> None:
        source: Any = "demo"
        with pytest.raises(ArgumentError, match="is no entry to draw patches from"):
            open_grid(source, PATCH)

    def test_labels_that_are_not_there(self, pair: Pair) -> None:
        with pytest.raises(ArgumentError, match=r"no channel of kind instances.*target=None for raw alone"):
            pair.source(channels=["raw"]).to_grid(PATCH, target="instances")
