"""What tests share: an empty cache each, the demo's tissue, a miniature of the male CNS bucket on a local server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import xarray as xr
from filelock import FileLock
from numpy.typing import NDArray

from emcatalog.cutout import Cutout
from emcatalog.cutout_opening import open_cutout
from emcatalog.entries.volume import ChannelModel, VolumeArguments
from emcatalog.formats.demo import make_demo
from emcatalog.phantom import make_phantom
from tests.replica import stored
from tests.replica.malecns import build_malecns
from tests.replica.server import serve
from tests.replica.tables import build_tables
from tests.replica.wire import Server

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("emcatalog", deadline=None)
hypothesis.settings.load_profile("emcatalog")

BBox = tuple[int, int, int, int, int, int]
"""A box as a user writes it: `(x0, x1, y0, y1, z0, z1)`."""

SIDE = 160
"""Edge of the box that the miniature holds, in voxels of 8 nm."""
TABLE_ROWS = 150_000
"""Of its table of synapse points: more than two record batches."""
ORIGIN_ZYX = (20000, 40000, 40000)
"""Its first voxel: where the box of the catalog's entry begins."""


@dataclass(frozen=True)
class Replica:
    """A miniature of ``gs://flyem-male-cns``: voxels around the default box only, and tables."""

    folder: Path
    """Stands for the bucket."""
    raw: NDArray[np.uint8]
    """What was put in, (z, y, x); jpeg changes it a little."""
    labels: NDArray[np.uint64]
    """What was put in, (z, y, x)."""


def place(x0: int, x1: int, y0: int, y1: int, z0: int, z1: int) -> BBox:
    """A box counted from the first voxel of the miniature's data, in voxels of the whole volume."""
    z, y, x = ORIGIN_ZYX
    return x + x0, x + x1, y + y0, y + y1, z + z0, z + z1


def stored_box(bbox: BBox) -> stored.Box:
    """A user's box as the replica's own readers take it."""
    x0, x1, y0, y1, z0, z1 = bbox
    return (z0, z1), (y0, y1), (x0, x1)


def channel(url: str, dtype: str = "uint8", **keys: Any) -> ChannelModel:
    """A volume as a catalog declares it."""
    declared = {"url": url, "kind": "image", "dtype": dtype, "voxel_size": 1, "source": "a test", **keys}
    return ChannelModel.model_validate(declared)


def cut(url: str, dtype: str, voxel_size: Sequence[float] = (8, 8, 8), **arguments: Any) -> Cutout:
    """A precomputed volume as an entry of a catalog reads it; arguments as a caller would give them."""
    declared = {"url": f"precomputed://{url}", "kind": "image", "dtype": dtype, "voxel_size": 1, "source": "a test"}
    entry = {"volumes": {"raw": declared}, "voxel_size": list(voxel_size)}
    return open_cutout(VolumeArguments.norm({**entry, **arguments}))


def scale_and_translation(multiscale: Any) -> tuple[list[float], list[float]]:
    """Where an OME-Zarr image says that its finest level stands, (z, y, x)."""
    scale, translation = multiscale.datasets[0].coordinateTransformations
    return scale.scale, translation.translation


def python(script: str, *arguments: str, env: Mapping[str, str] | None = None) -> str:
    """What a script prints in a Python process of its own, with this one's environment and `env`."""
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all workers of a run share."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


def once(folder: Path, make: Callable[[Path], object]) -> Path:
    """Make a folder once in a run, whichever worker comes first."""
    with FileLock(f"{folder}.lock"):
        done = Path(f"{folder}.done")
        if not done.exists():
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def demo_folder(shared_folder: Path) -> Path:
    """The demo's source data, made once in a run."""
    return once(shared_folder / "demo", lambda folder: make_demo(folder / "tissue-1"))


@pytest.fixture(scope="session")
def replica(shared_folder: Path) -> Replica:
    """The miniature bucket, made once in a run."""
    tissue = make_phantom((SIDE, SIDE, SIDE), seed=1)
    z, y, x = ((first, first + SIDE) for first in ORIGIN_ZYX)

    def build(folder: Path) -> None:
        build_malecns(folder, (z, y, x), tissue.raw, tissue.labels)
        build_tables(folder, TABLE_ROWS, region=place(0, SIDE, 0, SIDE, 0, SIDE), labels=tissue.labels)

    return Replica(once(shared_folder / "flyem-male-cns", build), tissue.raw, tissue.labels)


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, demo_folder: Path) -> None:
    """No test sees the user's cache, mirrors or config file."""
    for name in ("MIRRORS", "OFFLINE"):
        monkeypatch.delenv(f"EMCATALOG_{name}", raising=False)
    monkeypatch.delenv("NEUPRINT_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("EMCATALOG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EMCATALOG_DEMO", str(demo_folder))
    monkeypatch.setenv("EMCATALOG_RETRIES", "1")
    monkeypatch.setenv("EMCATALOG_LOCK", str(tmp_path / "emcatalog.lock"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


ServeAs = Callable[[str, Path], Server]


@pytest.fixture
def serve_as(monkeypatch: pytest.MonkeyPatch) -> Iterator[ServeAs]:
    """Puts a folder on a server of its own, in the place of a URL."""
    mirrors: dict[str, str] = {}
    with ExitStack() as servers:

        def serve_as(url: str, folder: Path) -> Server:
            server = servers.enter_context(serve(folder))
            mirrors[url] = server.url
            monkeypatch.setenv("EMCATALOG_MIRRORS", json.dumps(mirrors))
            return server

        yield serve_as


@pytest.fixture
def male_cns(replica: Replica, serve_as: ServeAs) -> Server:
    """The miniature bucket on a server, in place of ``gs://flyem-male-cns``."""
    return serve_as("gs://flyem-male-cns", replica.folder)


@pytest.fixture
def catalog() -> Any:
    """The shipped catalog, as a user opens it."""
    import intake

    import emcatalog

    return intake.open_catalog(emcatalog.CATALOG)


def load_export(path: Path) -> xr.Dataset:
    """An exported folder as xarray sees it: its channels, which stand on one grid, side by side."""
    tree = xr.open_datatree(path, engine="zarr")
    channels = [node.to_dataset().load().rename(data=name) for name, node in tree.children.items() if name != "OME"]
    return xr.merge(channels, join="exact", combine_attrs="drop_conflicts")
