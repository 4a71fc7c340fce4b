"""SWC: one node a line, ``node kind x y z radius parent``, comments after ``#``.

The format was published as a paper (https://doi.org/10.1016/S0165-0270(98)00091-0) and is described at
http://www.neuronland.org/NLMorphologyConverter/MorphologyFormats/SWC/Spec.html; the unit of lengths is not part of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emcatalog.errors import SourceCorruptError
from emcatalog.skeletons.skeleton import NO_PARENT, connected, make_table

COLUMNS: Final = ("node", "kind", "x", "y", "z", "radius", "parent")

_NUMBER: Final = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|nan|inf(inity)?)", re.IGNORECASE | re.ASCII)

_EXACT: Final = 2.0**53
"""Beyond it a float64, as which all values are read, does not hold every whole number."""


def parse_swc(text: bytes, unit_nm: float, what: str) -> pd.DataFrame:
    """The nodes of a skeleton, in the file's order (see ``make_table``).

    Args:
        text: the whole file.
        unit_nm: the length of one unit of its coordinates and radii.
        what: for messages.

    Raises:
        SourceCorruptError: it does not parse, or is no forest: a line with other than seven numbers, a node twice, a
            parent that is not there, a node that is its own ancestor, no node at all.
    """
    # Comments may be in any encoding, and this one reads all of them.
    lines = [line.decode("latin-1") for line in text.splitlines()]
    rows = _rows(lines, what)
    _check_numbers(rows, lines, what)
    node, kind, parent = rows[:, [0, 1, 6]].T.astype(np.int64)
    _check_forest(node, parent, what)
    return make_table(node, kind, rows[:, 2:5] * unit_nm, rows[:, 5] * unit_nm, parent)


def format_swc(nodes: pd.DataFrame, comments: Sequence[str] = ()) -> str:
    """A skeleton as the text of an SWC file, in the unit that it is in; a radius that nobody knows is 0.

    Args:
        nodes: see ``make_table``.
        comments: lines for its beginning, each a sentence or so.
    """
    head = "".join(f"# {' '.join(comment.split())}\n" for comment in comments)
    rows = nodes[list(COLUMNS)].fillna({"radius": 0.0})
    text: str = rows.to_csv(sep=" ", header=False, index=False, float_format="%.10g", lineterminator="\n")
    return head + text


def _rows(lines: Sequence[str], what: str) -> NDArray[np.float64]:
    """All numbers, ``(n, 7)``."""
    if next(_filled(lines), None) is None:
        raise _corrupt(what, "it holds no node")
    try:
        rows = np.loadtxt(lines, comments="#", ndmin=2)
    except ValueError as error:
        raise _corrupt(what, _first_fault(lines) or str(error)) from error
    if rows.shape[1] != len(COLUMNS):
        raise _corrupt(what, _first_fault(lines) or f"it has {rows.shape[1]} columns")
    return rows


def _filled(lines: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Number and values of each line that has some."""
    for number, line in enumerate(lines, 1):
        if values := line.partition("#")[0].split():
            yield number, values


def _first_fault(lines: Sequence[str]) -> str | None:
    """What is wrong with the first line that is no node."""
    for number, values in _filled(lines):
        if len(values) != len(COLUMNS):
            return f"line {number} has {len(values)} values, not {len(COLUMNS)} ({' '.join(COLUMNS)})"
        for value in values:
            if not _NUMBER.fullmatch(value):
                return f"line {number}: {value!r:.40} is not a number"
    return None


def _check_numbers(rows: NDArray[np.float64], lines: Sequence[str], what: str) -> None:
    """Nodes, kinds and parents are whole numbers, and places are finite; a radius may be NaN: not known."""
    whole = rows[:, [0, 1, 6]]
    # NaN is not equal to itself.
    broken = ((whole != np.trunc(whole)) | (np.abs(whole) >= _EXACT)).any(axis=1) | (rows[:, 0] < 0)
    nowhere = ~np.isfinite(rows[:, 2:5]).all(axis=1) | np.isinf(rows[:, 5])
    for bad, why in (
        (broken, "node, kind and parent are whole numbers, and a node is not negative"),
        (nowhere, "x, y, z and radius are finite"),
    ):
        if bad.any():
            number, values = list(_filled(lines))[int(bad.argmax())]
            raise _corrupt(what, f"line {number} is {' '.join(values)!r:.80}, and {why}")


def _check_forest(node: NDArray[np.int64], parent: NDArray[np.int64], what: str) -> None:
    known, first, times = np.unique(node, return_index=True, return_counts=True)
    if len(known) < len(node):
        raise _corrupt(what, f"there is more than one node {known[times.argmax()]}")
    child = np.flatnonzero(parent != NO_PARENT)
    place = np.searchsorted(known, parent[child]).clip(max=len(known) - 1)
    lost = known[place] != parent[child]
    if lost.any():
        orphan = child[lost.argmax()]
        raise _corrupt(what, f"the parent of node {node[orphan]}, {parent[orphan]}, is not there")
    _, piece = connected(len(node), np.stack([child, first[place]], axis=1))
    # Where each node has one parent at most, a piece without a root is one with a loop.
    rootless = ~np.isin(piece, piece[parent == NO_PARENT])
    if rootless.any():
        raise _corrupt(what, f"node {node[rootless.argmax()]} hangs on a loop of nodes, which has no root")


def _corrupt(what: str, why: str) -> SourceCorruptError:
    return SourceCorruptError(f"{what} is not a skeleton in SWC: {why}")
