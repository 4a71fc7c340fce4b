"""The order of the rows of a local copy: cells of space, sorted keys, or as they came.

Rows that are asked for together should lie together, and what lies together should be easy to rule out. Space is cut as
a k-d tree cuts it, each box of rows into two of as many rows across its longest side (J. L. Bentley, "Multidimensional
binary search trees used for associative searching", 1975), so that parts and row groups are boxes that do not overlap.
Runs of a Morton curve are not: of 20 million points in groups of 16,384 a small box touched the bounds of five.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from emcatalog.errors import ArgumentError, listing, suggest

Points = NDArray[np.floating[Any]]
"""(axis, row)."""
Places = NDArray[np.int32]
"""Numbers of rows of what is in memory."""

SAMPLES: Final = 1 << 20
"""Rows at most that say where to cut a table: a thousand for each part of the largest."""
_MISSING: Final = float(np.finfo(np.float32).max)
"""Stands for null and NaN: such rows go with those of the highest coordinates."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Rows on both sides of a plane."""

    axis: int
    """That it is across."""
    at: float
    """The lowest coordinate above it."""
    below: Cut | None
    """How rows below are cut further."""
    above: Cut | None
    """And those above, or on it."""

    @classmethod
    def plan(cls, sample: Points, parts: int) -> Cut | None:
        """Cuts into so many parts, of about as many rows each; None for a single one."""
        if parts < 2 or not sample.size:
            return None
        axis, rows = _longest(sample), sample.shape[1]
        coordinates = sample[axis]
        at = np.partition(coordinates, place := rows * (parts // 2) // parts)[place]
        if at == coordinates.min():  # it is repeated so often that nothing would be below
            at = coordinates[coordinates > at].min(initial=np.inf)
        below = coordinates < at
        if below.all():
            return None
        first = min(max(1, round(parts * below.sum() / rows)), parts - 1)
        return cls(axis, float(at), cls.plan(sample[:, below], first), cls.plan(sample[:, ~below], parts - first))


def split(points: Points, cut: Cut | None) -> list[Places]:
    """The rows of each part, in their order; some may have none."""
    return list(_send(points, np.arange(points.shape[1], dtype=np.int32), cut))


def _send(points: Points, places: Places, cut: Cut | None) -> Iterator[Places]:
    if cut is None:
        yield places
        return
    below = points[cut.axis][places] < cut.at
    yield from _send(points, places[below], cut.below)
    yield from _send(points, places[~below], cut.above)


@dataclass(frozen=True, slots=True)
class Order:
    """What decides where a row lies in a copy."""

    columns: tuple[str, ...]
    """What it looks at."""
    in_space: bool
    """Whether these are coordinates of one space, or keys of which the first weighs most."""

    def points(self, rows: pa.RecordBatch | pa.Table) -> Points:
        """Where rows lie, in space or along the first key: to be cut, since large numbers are rounded."""
        axes = self.columns if self.in_space else self.columns[:1]
        kind = pa.float32() if self.in_space else pa.float64()
        points: Points = np.empty((len(axes), rows.num_rows), kind.to_pandas_dtype())
        for axis, name in enumerate(axes):
            points[axis] = rows.column(name).cast(kind, safe=False).to_numpy(zero_copy_only=False)
        points[np.isnan(points)] = _MISSING
        return points

    def sort(self, rows: pa.Table, group: int) -> Places:
        """Places of the rows as they should follow each other, so many in a group.

        Of a group in space, or of equal keys, they follow each other as they came. Rows without a key come last.
        """
        if self.in_space:
            return np.concatenate(list(_groups(self.points(rows), np.arange(rows.num_rows, dtype=np.int32), group)))
        if not self.columns:
            return np.arange(rows.num_rows, dtype=np.int32)
        keys = [(name, "ascending") for name in self.columns]
        places: Places = pc.sort_indices(rows.select(self.columns), sort_keys=keys).to_numpy().astype(np.int32)
        return places


def _groups(points: Points, places: Places, group: int) -> Iterator[Places]:
    """Rows in groups, all full but the last: cut in two as often as is needed."""
    groups = -(-len(places) // group)
    if groups < 2:
        yield np.sort(places)
        return
    here = points[:, places]
    order = np.argpartition(here[_longest(here)], first := groups // 2 * group)
    del here
    yield from _groups(points, places[order[:first]], group)
    yield from _groups(points, places[order[first:]], group)


def _longest(points: Points) -> int:
    """The axis along which the points lie farthest apart."""
    sides = []
    for coordinates in points:
        known = coordinates[np.abs(coordinates) < _MISSING]
        sides.append(np.ptp(known) if len(known) else 0.0)
    return int(np.argmax(sides))


@dataclass(slots=True)
class Sample:
    """Every so many rows of a table, seen batch by batch."""

    order: Order
    """What is looked at."""
    rows: int = 0
    """Seen so far."""
    _points: list[Points] = field(default_factory=list)
    _kept: int = 0
    _stride: int = 1

    def add(self, batch: pa.RecordBatch) -> None:
        """Look at the next rows."""
        chosen = np.arange(-self.rows % self._stride, batch.num_rows, self._stride)
        self._points.append(self.order.points(batch)[:, chosen])
        self._kept += len(chosen)
        self.rows += batch.num_rows
        if self._kept > SAMPLES:
            # Those at multiples of twice the stride.
            self._points = [np.concatenate(self._points, axis=1)[:, ::2].copy()]
            self._kept, self._stride = self._points[0].shape[1], 2 * self._stride

    def plan(self, parts: int) -> Cut | None:
        """Cuts of the table into so many parts."""
        return Cut.plan(np.concatenate(self._points, axis=1), parts) if self._points else None


def check_order(schema: pa.Schema, columns: Iterable[str]) -> None:
    """Refuse columns that no order can go by.

    Raises:
        ArgumentError: a column that is not there, or that does not hold numbers.
    """
    for name in columns:
        if name not in schema.names:
            raise ArgumentError(
                f"there is no column {name!r} to order by; there are {listing(schema.names)}."
                f"{suggest(name, schema.names)}"
            )
        kind = schema.field(name).type
        if not (pa.types.is_integer(kind) or pa.types.is_float32(kind) or pa.types.is_float64(kind)):
            raise ArgumentError(f"column {name!r} holds {kind}; a copy is ordered by columns of numbers")
