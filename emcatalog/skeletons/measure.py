"""How large a skeleton is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from emcatalog.skeletons.skeleton import NO_PARENT


@dataclass(frozen=True, slots=True)
class SkeletonSize:
    """Counts of nodes, and the length of the cable."""

    nodes: int
    """All of them."""
    roots: int
    """Without a parent: one for each piece."""
    branch_points: int
    """Nodes with more than one child."""
    ends: int
    """Nodes without a child."""
    length_nm: float
    """Of all edges together."""


def measure(nodes: pd.DataFrame) -> SkeletonSize:
    """The size of a skeleton.

    Args:
        nodes: as ``Skeletons.read`` gives them.
    """
    node, parent = nodes["node"].to_numpy(), nodes["parent"].to_numpy()
    order = np.argsort(node)
    child = np.flatnonzero(parent != NO_PARENT)
    above = order[np.searchsorted(node, parent[child], sorter=order)]
    children = np.bincount(above, minlength=len(node))
    xyz = nodes[["x", "y", "z"]].to_numpy()
    length = float(np.linalg.norm(xyz[child] - xyz[above], axis=1).sum())
    roots, branch_points, ends = len(node) - len(child), int((children > 1).sum()), int((children == 0).sum())
    return SkeletonSize(len(node), roots, branch_points, ends, length)
