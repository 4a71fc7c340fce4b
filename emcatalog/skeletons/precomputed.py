"""Neuroglancer's skeletons.

Format: https://github.com/google/neuroglancer/blob/master/src/datasource/precomputed/skeletons.md
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from scipy.sparse.csgraph import breadth_first_order

from emcatalog.entries.common import sentence
from emcatalog.errors import SourceCorruptError
from emcatalog.skeletons.skeleton import NO_PARENT, connected, graph_of, make_table

INFO: Final = "info"
"""Name of the document beside the skeletons."""

_HEADER: Final = np.dtype("<u4")
_RADIUS: Final = "radius"
_KIND: Final = "vertex_types"
"""What cloud-volume calls the kinds of nodes, which it numbers as SWC does."""

_Finite = Annotated[float, Field(allow_inf_nan=False)]


class VertexAttribute(BaseModel):
    """What is stored of each node beside its place."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(min_length=1)
    data_type: Literal["float32", "int8", "uint8", "int16", "uint16", "int32", "uint32"]
    num_components: Annotated[int, Field(gt=0)]


class SkeletonInfo(BaseModel):
    """The ``info`` document, as far as reading needs it.

    The format asks for a transform and for attributes; the male CNS has neither, and then coordinates are in nm as they
    are stored, and there is nothing beside them.
    """

    model_config = ConfigDict(frozen=True)

    type: Literal["neuroglancer_skeletons"] = Field(alias="@type")
    transform: Annotated[tuple[_Finite, ...], Field(min_length=12, max_length=12)] = (
        1,
        0,
        0,
        0,
        0,
        1,
        0,
        0,
        0,
        0,
        1,
        0,
    )
    """Rows of the matrix (3, 4) that takes a stored place to one in nm."""
    vertex_attributes: tuple[VertexAttribute, ...] = ()
    sharding: dict[str, Any] | None = None

    def to_nm(self, stored: NDArray[np.float64]) -> NDArray[np.float64]:
        """Places ``(n, 3)`` in nm."""
        matrix = np.array(self.transform, np.float64).reshape(3, 4)
        moved: NDArray[np.float64] = stored @ matrix[:, :3].T + matrix[:, 3]
        return moved

    @property
    def unit_nm(self) -> float:
        """The length of one stored unit; the mean of three, though where radii are stored they should be the same."""
        matrix = np.array(self.transform, np.float64).reshape(3, 4)
        return float(abs(np.linalg.det(matrix[:, :3])) ** (1 / 3))


def parse_info(content: bytes, what: str) -> SkeletonInfo:
    """The ``info`` document of a folder of skeletons.

    Raises:
        SourceCorruptError: it is not one.
    """
    try:
        return SkeletonInfo.model_validate_json(content)
    except ValidationError as error:
        begins = content[:40].decode("utf-8", "replace")
        reason = sentence(error.errors()[0], SkeletonInfo)
        raise SourceCorruptError(
            f"{what} does not describe skeletons: {reason} (it begins with {begins!r}); check the address"
        ) from error


def parse_precomputed(content: bytes, info: SkeletonInfo, what: str) -> pd.DataFrame:
    """The nodes of a skeleton in their stored order, numbered from 1 as in SWC (see ``make_table``).

    The format does not say which end of an edge is the parent. Edges that make each node the child of one other, as
    those of the male CNS do (child, parent), are taken so; in other skeletons the first node of each piece is its root.

    Args:
        content: the whole file.
        info: of the folder.
        what: for messages.

    Raises:
        SourceCorruptError: it does not parse, or is no forest.
    """
    count, edges, stored, attributes = _take_apart(content, info, what)
    if not np.isfinite(stored).all():
        raise _corrupt(what, f"node {int((~np.isfinite(stored)).any(axis=1).argmax()) + 1} is at no finite place")
    parents = _root(count, edges, what)
    nothing = np.full(count, np.nan)
    return make_table(
        np.arange(1, count + 1),
        attributes.get(_KIND, np.zeros(count, np.uint8)),
        info.to_nm(stored),
        attributes.get(_RADIUS, nothing).astype(np.float64) * info.unit_nm,
        np.where(parents == NO_PARENT, NO_PARENT, parents + 1),
    )


_Parts = tuple[int, NDArray[np.int64], NDArray[np.float64], dict[str, NDArray[Any]]]


def _take_apart(content: bytes, info: SkeletonInfo, what: str) -> _Parts:
    """Number of nodes, edges, stored places, and attributes of one value a node."""
    if len(content) < 2 * _HEADER.itemsize:
        raise _corrupt(what, f"it has {len(content)} bytes")
    nodes, joints = (int(number) for number in np.frombuffer(content, _HEADER, 2))
    attributes = [
        (one.id, np.dtype(one.data_type).newbyteorder("<"), one.num_components) for one in info.vertex_attributes
    ]
    lengths = [nodes * width * dtype.itemsize for _, dtype, width in attributes]
    expected = 8 + 12 * nodes + 8 * joints + sum(lengths)
    if len(content) != expected:
        raise _corrupt(what, f"it has {len(content)} bytes, and its {nodes} nodes and {joints} edges take {expected}")
    if not nodes:
        raise _corrupt(what, "it holds no node")
    places = np.frombuffer(content, "<f4", 3 * nodes, 8).reshape(nodes, 3).astype(np.float64)
    edges = np.frombuffer(content, "<u4", 2 * joints, 8 + 12 * nodes).reshape(joints, 2).astype(np.int64)
    found = {}
    offset = expected - sum(lengths)
    for (name, dtype, width), length in zip(attributes, lengths, strict=True):
        if width == 1:
            found[name] = np.frombuffer(content, dtype, nodes, offset)
        offset += length
    return nodes, edges, places, found


def _root(count: int, edges: NDArray[np.int64], what: str) -> NDArray[np.int64]:
    """The parent of each node, counted from 0."""
    if edges.size and edges.max() >= count:
        raise _corrupt(what, f"an edge leads to node {edges.max() + 1}, and there are {count}")
    pieces, piece = connected(count, edges)
    surplus = len(edges) - (count - pieces)
    if surplus:
        raise _corrupt(what, f"it is no tree: {surplus} of its {len(edges)} edges join what is joined already")
    parents = np.full(count, NO_PARENT, np.int64)
    child, parent = edges.T
    if len(np.unique(child)) == len(child):
        parents[child] = parent
        return parents
    # One more node, joined to the first node of each piece, makes one search of all pieces.
    _, first = np.unique(piece, return_index=True)
    tied = np.concatenate([edges, np.stack([np.full(pieces, count), first], axis=1)])
    _, before = breadth_first_order(graph_of(count + 1, tied).tocsr(), count, directed=False)
    return np.where(before[:count] == count, NO_PARENT, before[:count]).astype(np.int64)


def _corrupt(what: str, why: str) -> SourceCorruptError:
    return SourceCorruptError(f"{what} is not a precomputed skeleton: {why}")
