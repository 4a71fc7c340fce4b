"""A picture of a box: the middle planes, labels in colour, and no more fetched than it shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from emcatalog.preview import label_colours, preview
from tests.conftest import SIDE, Replica, cut, place
from tests.replica.precomputed import build_precomputed
from tests.replica.stored import Array
from tests.replica.wire import Server

GAP = 8
WHOLE = place(0, SIDE, 0, SIDE, 0, SIDE)
OBLONG = place(0, 150, 20, 150, 30, 140)
"""Planes of 150 x 130, 150 x 110 and 130 x 110 pixels."""
WIDTH = 150 + GAP + 150 + GAP + 130


def pixels(picture: Image.Image) -> Array:
    return np.asarray(picture.convert("RGB"))


def pane(picture: Array, left: int, top: int, plane: Array) -> Array:
    """The part of a picture that shows a plane; less its left edge, where the name and the scale bar stand."""
    height, width = plane.shape
    return picture[top : top + height, left + width // 2 : left + width]


def likeness(shown: Array, plane: Array) -> float:
    """How well grey values follow those of a plane's right half."""
    right = plane[:, plane.shape[1] // 2 :]
    return float(np.corrcoef(shown[..., 0].ravel(), right.ravel())[0, 1])


class TestPicture:
    """What it shows."""

    def test_size(self, male_cns: Server, catalog: Any) -> None:
        assert catalog.malecns(bbox=OBLONG).preview().size == (WIDTH, 130 + GAP + 130), "labels below the image"
        assert catalog.malecns(bbox=OBLONG, channels=["raw"]).preview().size == (WIDTH, 130)
        assert catalog.malecns(bbox=OBLONG, channels=["labels"]).preview().size == (WIDTH, 130)

    def test_planes_are_the_middle_ones(self, male_cns: Server, catalog: Any) -> None:
        raw = catalog.malecns(bbox=OBLONG, channels=["raw"]).read()["raw"].values
        picture = pixels(catalog.malecns(bbox=OBLONG, channels=["raw"]).preview())
        shown = [(0, raw[55]), (150 + GAP, raw[:, 65]), (WIDTH - 130, raw[:, :, 75])]
        for left, plane in shown:
            assert likeness(pane(picture, left, 0, plane), plane) > 0.98
        # The grain of the next plane is another one.
        assert likeness(pane(picture, 0, 0, raw[56]), raw[56]) < 0.95

    def test_contrast_is_stretched(self, male_cns: Server, catalog: Any) -> None:
        picture = pixels(catalog.malecns(bbox=WHOLE, channels=["raw"]).preview())
        shown = pane(picture, 0, 0, np.zeros((SIDE, SIDE)))
        assert shown.min() < 10
        assert shown.max() > 245

    def test_labels_are_coloured(self, male_cns: Server, catalog: Any, replica: Replica) -> None:
        picture = pixels(catalog.malecns(bbox=WHOLE, channels=["labels"]).preview())
        plane = replica.labels[SIDE // 2]
        shown, ids = pane(picture, 0, 0, plane).reshape(-1, 3), plane[:, SIDE // 2 :].ravel()
        colours = {tuple(shown[ids == body][0]) for body in np.unique(ids)}
        for body in np.unique(ids):
            assert len(np.unique(shown[ids == body], axis=0)) == 1
        assert len(colours) > 0.9 * len(np.unique(ids))

    def test_labels_lie_over_the_image(self, male_cns: Server, catalog: Any, replica: Replica) -> None:
        picture = pixels(catalog.malecns(bbox=WHOLE).preview())
        plane = replica.labels[SIDE // 2]
        grey, coloured = (pane(picture, 0, top, plane).astype(int) for top in (0, SIDE + GAP))
        assert np.ptp(grey, axis=-1).max() == 0
        assert (np.ptp(coloured, axis=-1) > 10).mean() > 0.5
        bodies = plane[:, SIDE // 2 :]
        ids, sizes = np.unique(bodies, return_counts=True)
        inside = (bodies == ids[sizes.argmax()]) & (coloured != 20).any(-1)  # borders are nearly black
        assert np.corrcoef(coloured[inside, 0], grey[inside, 0])[0, 1] > 0.99

    def test_one_voxel(self, male_cns: Server, catalog: Any) -> None:
        assert catalog.malecns(bbox=place(5, 6, 5, 6, 5, 6)).preview().size == (3 + 2 * GAP, 2 + GAP)

    def test_nothing_but_background(self, male_cns: Server, catalog: Any) -> None:
        picture = pixels(catalog.malecns(bbox=place(5000, 5150, 0, 80, 0, 10), channels=["raw"]).preview())
        assert not pane(picture, 0, 0, np.zeros((80, 150))).any()

    def test_saved(self, male_cns: Server, catalog: Any, tmp_path: Path) -> None:
        picture = catalog.malecns(bbox=OBLONG).preview(tmp_path / "box.png")
        with Image.open(tmp_path / "box.png") as saved:
            np.testing.assert_array_equal(pixels(saved), pixels(picture))


class TestFetched:
    """What it takes."""

    def test_the_planes_chunks_alone(self, male_cns: Server, catalog: Any) -> None:
        source = catalog.malecns(bbox=WHOLE)
        source.preview()
        plan = source.plan()
        # 3 x 3 x 3 chunks, of which the middle planes cut all but the eight corners.
        assert {name: (channel.chunks, channel.cached) for name, channel in plan.channels.items()} == {
            "raw": (27, 19),
            "labels": (27, 19),
        }

    def test_a_large_box_is_shown_around_its_middle(self, male_cns: Server, catalog: Any) -> None:
        source = catalog.malecns(channels=["raw"])  # 1024 cubed
        assert source.preview().size == (3 * 512 + 2 * GAP, 512)
        plan = source.plan()
        assert 0 < plan.cached <= 3 * 9 * 9
        assert plan.missing > 3500

    def test_nothing_twice(self, male_cns: Server, catalog: Any) -> None:
        source = catalog.malecns(bbox=OBLONG)
        first = pixels(source.preview())
        male_cns.clear()
        np.testing.assert_array_equal(pixels(source.preview()), first)
        assert male_cns.requests == []


class TestColours:
    """Colours of labels."""

    def test_background_is_black_and_nothing_else_is(self) -> None:
        ids = np.concatenate([[0], np.random.default_rng(0).integers(1, 2**63, 999, np.uint64)]).reshape(20, 50)
        colours = label_colours(ids)
        assert colours.shape == (20, 50, 3)
        assert not colours[0, 0].any()
        assert (colours.reshape(-1, 3)[1:].max(axis=1) > 60).all()

    @pytest.mark.parametrize("dtype", ["uint8", "uint32", "uint64", "int32"])
    def test_of_every_dtype(self, dtype: str) -> None:
        ids = np.arange(100, dtype=dtype).reshape(10, 10)
        np.testing.assert_array_equal(label_colours(ids), label_colours(ids.astype(np.uint64)))

    def test_neighbouring_ids_look_unlike(self) -> None:
        colours = label_colours(np.arange(10**9, 10**9 + 1000, dtype=np.uint64)[None])[0].astype(int)
        assert np.abs(np.diff(colours, axis=0)).sum(axis=1).min() > 60


def test_a_length_is_the_same_along_both_sides_of_a_plane(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 255, (10, 40, 60)).astype(np.uint8)
    build_precomputed(tmp_path / "flat", voxels, resolution=(4, 4, 40), chunk=(64, 64, 64))
    picture = preview(cut(f"file://{tmp_path}/flat", "uint8", (4, 4, 40)))
    # Side by side: 60 wide and 40 high, 60 wide and 100 high, 40 wide and 100 high, with gaps of 8.
    assert picture.size == (60 + 8 + 60 + 8 + 40, 100)
