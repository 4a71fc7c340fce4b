"""A skeleton as a table of nodes, whatever form it was stored in; and as a neuron of navis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from emcatalog.errors import MissingExtraError

NO_PARENT: Final = -1
"""Parent of a root, as in SWC."""

_NAVIS_COLUMNS: Final = {"node": "node_id", "parent": "parent_id", "kind": "label"}


def make_table(
    node: NDArray[np.int64],
    kind: NDArray[Any],
    xyz_nm: NDArray[np.float64],
    radius_nm: NDArray[np.float64],
    parent: NDArray[np.int64],
) -> pd.DataFrame:
    """A table with one row a node, in the order given: node, kind, x, y, z, radius, parent.

    Args:
        node: number of each node, ``(n,)``.
        kind: what it is part of, as SWC numbers it (0 undefined, 1 soma, 2 axon, 3 dendrite, ...), ``(n,)``.
        xyz_nm: where it is, ``(n, 3)``.
        radius_nm: NaN where nobody says, ``(n,)``.
        parent: number of the node that it hangs on, ``NO_PARENT`` for a root, ``(n,)``.
    """
    x, y, z = xyz_nm.T
    columns = {"node": node, "kind": kind, "x": x, "y": y, "z": z, "radius": radius_nm, "parent": parent}
    types = {"node": "int64", "kind": "int64", "parent": "int64"}
    return pd.DataFrame({name: np.asarray(column, types.get(name, "float64")) for name, column in columns.items()})


def graph_of(count: int, edges: NDArray[np.int64]) -> coo_array:
    """Edges ``(n, 2)`` between ``count`` nodes, counted from 0, as SciPy's routines take a graph."""
    return coo_array((np.ones(len(edges), np.int8), (edges[:, 0], edges[:, 1])), shape=(count, count))


def connected(count: int, edges: NDArray[np.int64]) -> tuple[int, NDArray[np.int32]]:
    """How many connected pieces there are, and the number of the piece of each node."""
    pieces, piece = connected_components(graph_of(count, edges), directed=False)
    return int(pieces), piece


def to_navis(tables: Mapping[int, pd.DataFrame]) -> Any:
    """A ``navis.NeuronList`` of ``navis.TreeNeuron``, in nm, each with its body as ``id``, in the order given.

    The tables stay as they are. Where nobody says what the soma is, navis is told that there is none: by itself it
    would look for it by radius.

    Raises:
        MissingExtraError: navis is not installed.
    """
    try:
        import navis
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "neurons are handed to navis, which is not installed: pip install 'emcatalog[navis]'"
        ) from error
    return navis.NeuronList(
        [
            # A copy: navis renames the columns of the table that it is given.
            navis.TreeNeuron(table.rename(columns=_NAVIS_COLUMNS), id=body, units="1 nanometer", soma=None)
            for body, table in tables.items()
        ]
    )
