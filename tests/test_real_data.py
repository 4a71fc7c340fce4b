"""Real FIB-SEM with dense ground truth (fib25) through the shipped male CNS entry, in that volume's stored forms.

The data is not part of the repository: ``EMCATALOG_TEST_DATA`` names the folder of ``fib25_training2.npz``, or it lies
in ``../shared/data/fib25`` beside the repository.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from tests.conftest import ORIGIN_ZYX, BBox, load_export, once, place, stored_box
from tests.replica.malecns import build_malecns, expected_raw
from tests.replica.server import serve
from tests.replica.stored import Array
from tests.replica.wire import Server

REPOSITORY = Path(__file__).resolve().parents[1]
FILE = Path(os.environ.get("EMCATALOG_TEST_DATA") or REPOSITORY.parent / "shared/data/fib25") / "fib25_training2.npz"

pytestmark = pytest.mark.skipif(not FILE.is_file(), reason="no fib25_training2.npz; set EMCATALOG_TEST_DATA")

SIDE = 250
WHOLE = place(0, SIDE, 0, SIDE, 0, SIDE)
PART = place(33, 199, 70, 131, 12, 245)


@dataclass(frozen=True)
class Tissue:
    """As published, and as a bucket that holds it."""

    raw: Array
    labels: Array
    bucket: Path


@pytest.fixture(scope="module")
def tissue(shared_folder: Path) -> Tissue:
    with np.load(FILE) as arrays:
        raw, labels = arrays["raw"], arrays["labels"]
    z, y, x = ((first, first + SIDE) for first in ORIGIN_ZYX)
    bucket = once(shared_folder / "fib25", lambda folder: build_malecns(folder, (z, y, x), raw, labels, ["v0.9"]))
    return Tissue(raw, labels, bucket)


@pytest.fixture
def bucket(tissue: Tissue, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serve(tissue.bucket) as server:
        monkeypatch.setenv("EMCATALOG_MIRRORS", json.dumps({"gs://flyem-male-cns": server.url}))
        yield server


def inside(voxels: Array, bbox: BBox) -> Array:
    """Voxels of a user's box in an array that begins where the data does."""
    part: Array = voxels[tuple(slice(a - o, b - o) for (a, b), o in zip(stored_box(bbox), ORIGIN_ZYX, strict=True))]
    return part


@pytest.mark.parametrize("bbox", [WHOLE, PART], ids=["whole", "part"])
def test_voxels(bucket: Server, catalog: Any, tissue: Tissue, bbox: BBox) -> None:
    dataset = catalog.malecns(bbox=bbox).read()
    np.testing.assert_array_equal(dataset["labels"], inside(tissue.labels, bbox))
    np.testing.assert_array_equal(dataset["raw"], expected_raw(tissue.bucket, 0, stored_box(bbox)))
    error = np.abs(dataset["raw"].values.astype(int) - inside(tissue.raw, bbox))
    assert error.mean() < 5
    assert np.quantile(error, 0.999) < 25


@pytest.mark.parametrize(("resolution", "step"), [(16, 2), (32, 4)])
def test_coarser_scales(bucket: Server, catalog: Any, tissue: Tissue, resolution: int, step: int) -> None:
    side = SIDE // step * step
    dataset = catalog.malecns(bbox=place(0, side, 0, side, 0, side), resolution=resolution).read()
    np.testing.assert_array_equal(dataset["labels"], tissue.labels[:side:step, :side:step, :side:step])
    blocks = tissue.raw[:side, :side, :side].reshape(side // step, step, side // step, step, side // step, step)
    assert np.abs(dataset["raw"].values - blocks.mean((1, 3, 5))).mean() < 5


def test_warm_and_exported(bucket: Server, catalog: Any, tmp_path: Path) -> None:
    source = catalog.malecns(bbox=PART)
    cold = source.read()
    bucket.clear()
    path = source.export(tmp_path / "fib25.zarr")
    xr.testing.assert_equal(load_export(path), cold)
    assert bucket.requests == []


def test_bodies_are_kept_whole(bucket: Server, catalog: Any, tissue: Tissue) -> None:
    labels = catalog.malecns(bbox=WHOLE, channels=["labels"]).read()["labels"].values
    found, sizes = np.unique(labels, return_counts=True)
    published, expected = np.unique(tissue.labels, return_counts=True)
    assert dict(zip(found.tolist(), sizes.tolist(), strict=True)) == dict(
        zip(published.tolist(), expected.tolist(), strict=True)
    )
    assert len(found) == 526
