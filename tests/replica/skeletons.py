"""Skeletons as the bucket `gs://flyem-male-cns` has them: SWC and precomputed, mirrored, and in the template's space.

    truth = build_skeletons(folder, [12781, 556329])
    truth["v0.9/segmentation/skeletons-malecns/skeletons-swc"][12781]  # what a reader must return, in nm

What is known of the stored form. Columns and types of SWC are those of neuclease (neuclease/util/skeleton.py), which
also writes the precomputed form: float32 places in nm, edges (node, parent) counted from 0, no radius; the info is the
one of flyem-snapshot (flyem_snapshot/outputs/skeletons.py). Programs that read the bucket find the template's skeletons
in a sub-folder `skeletons-swc`, and a published view of the mirrored ones asks their info for segment properties; what
that folder is called is made up, and so are the comments in SWC. The true mirroring and the true way into the template
are not linear.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import pandas as pd

VERSIONS: Final = ("v0.9", "v1.0")
SWC: Final = "skeletons-malecns/skeletons-swc"
PRECOMPUTED: Final = "skeletons-malecns/skeletons-precomputed"
MIRRORED_SWC: Final = "skeletons-malecns-mirrored/skeletons-swc"
MIRRORED_PRECOMPUTED: Final = "skeletons-malecns-mirrored/skeletons-precomputed"
UNISEX_SWC: Final = "skeletons-unisex-template/skeletons-swc"

WIDTH: Final = 94088
"""Voxels of the volume along x, across which mirrored skeletons are mirrored."""

_PLAIN_INFO: Final = '{"@type": "neuroglancer_skeletons"}\n'
_INFO_WITH_PROPERTIES: Final = '{"@type": "neuroglancer_skeletons", "segment_properties": "properties"}\n'
_VOXELS: Final = "# skeleton of one body\n#\n# node kind x y z radius parent, in voxels of 8 nm\n"
_MICRONS: Final = "# SWC format file\n# PointNo Label X Y Z Radius Parent\n# Labels:\n# 0 = undefined, 1 = soma\n"

Truth = dict[str, dict[int, pd.DataFrame]]
"""Folder below the bucket -> body -> node, kind, x, y, z, radius (nm, NaN where nothing is stored), parent."""


def skeletons_folder(version: str, which: str = SWC) -> str:
    """Where skeletons of a release are, in the bucket."""
    return f"{version}/segmentation/{which}"


def build_skeletons(
    folder: str | os.PathLike[str], bodies: Iterable[int], versions: Sequence[str] = VERSIONS, seed: int = 0
) -> Truth:
    """Write skeletons in all published forms under `folder`, which stands for the bucket.

    Args:
        folder: What is there already is kept.
        bodies: Ids; every third one is in two pieces, as some published skeletons are.
        versions: Releases, whose skeletons differ.
        seed: Of the trees.
    """
    root, truth = pathlib.Path(folder), Truth()
    for number, version in enumerate(versions):
        for place, body in enumerate(bodies):
            tree = make_tree(np.random.default_rng([seed, number, body]), roots=1 + (place % 3 == 2))
            for which, table in _write_all(root, version, body, tree).items():
                truth.setdefault(skeletons_folder(version, which), {})[body] = table
    return truth


def make_tree(random: np.random.Generator, roots: int = 1) -> pd.DataFrame:
    """A branching tree, or several, of some hundred nodes; lengths in voxels of 8 nm, as they stand in a file."""
    count = int(random.integers(200, 600))
    index = np.arange(count)
    # One node in ten begins a branch anywhere on what is there.
    parent = np.where(random.random(count) < 0.1, (random.random(count) * index).astype(int), index - 1)
    parent[[count * piece // roots for piece in range(roots)]] = -1
    places = np.where(parent[:, None] < 0, random.uniform(20000, 50000, (count, 3)), random.normal(0, 30, (count, 3)))
    above = parent
    while (above >= 0).any():  # each round adds twice as many steps on the way to the root
        places = places + np.where(above[:, None] < 0, 0, places[above])
        above = np.where(above < 0, -1, above[above])
    x, y, z = places.round(3).T
    radius = random.gamma(2, 8, count).round(4)
    kind = np.where(index == 0, 1, 0)
    parents = np.where(parent < 0, -1, parent + 1)
    return pd.DataFrame({"node": index + 1, "kind": kind, "x": x, "y": y, "z": z, "radius": radius, "parent": parents})


def swc_text(tree: pd.DataFrame, comments: str = _VOXELS) -> bytes:
    """A tree as SWC."""
    return (comments + tree.to_csv(sep=" ", header=False, index=False)).encode()


def precomputed_bytes(tree: pd.DataFrame, unit_nm: float = 8) -> bytes:
    """A tree whose nodes are numbered from 1 as a precomputed skeleton."""
    places = tree[["x", "y", "z"]].to_numpy(np.float32) * np.float32(unit_nm)
    edges = tree.loc[tree.parent > 0, ["node", "parent"]].to_numpy(np.uint32) - 1
    return np.array([len(places), len(edges)], "<u4").tobytes() + places.tobytes() + edges.tobytes()


def in_nm(tree: pd.DataFrame, unit_nm: float) -> pd.DataFrame:
    """What a reader of SWC must return."""
    lengths = ["x", "y", "z", "radius"]
    return tree.assign(**{name: tree[name] * unit_nm for name in lengths})


def as_precomputed(tree: pd.DataFrame, unit_nm: float = 8) -> pd.DataFrame:
    """What a reader of the precomputed form must return: single precision, neither kinds nor radii."""
    places = tree[["x", "y", "z"]].astype(np.float32).astype(np.float64) * unit_nm
    return tree.assign(**places, kind=0, radius=np.nan)


def _write_all(root: pathlib.Path, version: str, body: int, tree: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Write one body in all forms; what a reader of each must return."""
    mirrored = tree.assign(x=(WIDTH - tree.x).round(3))
    lengths = ["x", "y", "z", "radius"]
    microns = tree.assign(**{name: (tree[name] * 0.008).round(6) for name in lengths})
    files = {
        SWC: (f"{body}.swc", swc_text(tree)),
        PRECOMPUTED: (str(body), precomputed_bytes(tree)),
        MIRRORED_SWC: (f"{body}.swc", swc_text(mirrored)),
        MIRRORED_PRECOMPUTED: (str(body), precomputed_bytes(mirrored)),
        UNISEX_SWC: (f"{body}.swc", swc_text(microns, _MICRONS)),
    }
    for which, (name, content) in files.items():
        folder = root / skeletons_folder(version, which)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (root / skeletons_folder(version, PRECOMPUTED) / "info").write_text(_PLAIN_INFO)
    (root / skeletons_folder(version, MIRRORED_PRECOMPUTED) / "info").write_text(_INFO_WITH_PROPERTIES)
    return {
        SWC: in_nm(tree, 8),
        PRECOMPUTED: as_precomputed(tree),
        MIRRORED_SWC: in_nm(mirrored, 8),
        MIRRORED_PRECOMPUTED: as_precomputed(mirrored),
        UNISEX_SWC: in_nm(microns, 1000),
    }
