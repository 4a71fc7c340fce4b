"""Points of a table as a target volume: a ball around each, one mask for each kind of point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from emcatalog.buffers import BUFFERS
from emcatalog.entries.table import TableArguments
from emcatalog.errors import ArgumentError, TooLargeError, extra, listing, suggest
from emcatalog.geometry import Box, Grid, NmBox, format_xyz
from emcatalog.memory import available_bytes

MOST_KINDS: Final = 64
"""One bit each of the widest whole number."""

_ROUNDING: Final = 1 + 1e-9
"""A voxel at the very edge of a ball is in it, whatever floating point makes of its distance."""


class TableSource(Protocol):
    """An entry of a table that was given its arguments, as far as points need it."""

    @property
    def arguments(self) -> TableArguments:
        """What the catalog declares and the caller chose."""


@dataclass(frozen=True)
class Points:
    """Which points of which table are painted, and how; none is read yet."""

    table: TableArguments
    """Its filter counts; its box is the one that is painted."""
    radius_nm: float
    """Of the balls."""
    by: str | None
    """A column of text or categories, of which each value is a kind of points; None where all are of one."""


@dataclass(frozen=True, eq=False)
class OpenPoints:
    """The points in a box and around it, in memory."""

    kinds: tuple[str, ...]
    """Names: every category that the table has, in its order; or the texts that occur, in that of the alphabet."""
    centres_nm: NDArray[np.float64]
    """(z, y, x) by point, nm; z ascends."""
    kind_of: NDArray[np.uint8]
    """Number of each point's kind."""
    radius_nm: float
    """Of the balls."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of volumes: the smallest that has a bit for each kind."""
        return np.min_scalar_type(2 ** len(self.kinds) - 1)

    def paint(self, grid: Grid, box: Box) -> NDArray[Any]:
        """Balls around the points, in a box.

        Args:
            grid: of the volume.
            box: in voxels of the grid; inside the one that the points were opened for.

        Returns:
            ``dtype`` (z, y, x): bit i is set where the centre of a voxel is no farther than the radius from a point of
            ``kinds[i]``.
        """
        bits = np.zeros(box.shape, self.dtype)
        reach = self.radius_nm * _ROUNDING
        axes = [np.asarray(centres) for centres in grid.centres_nm(box)]
        near = self._between([axis[0] - reach for axis in axes], [axis[-1] + reach for axis in axes])
        for at, kind in zip(self.centres_nm[:, near].T, self.kind_of[near], strict=True):
            spans = [slice(*axis.searchsorted([a - reach, a + reach])) for axis, a in zip(axes, at, strict=True)]
            z, y, x = ((axis[span] - a) ** 2 for axis, span, a in zip(axes, spans, at, strict=True))
            there = bits[tuple(spans)]
            there |= (z[:, None, None] + y[:, None] + x <= reach**2) * self.dtype.type(1 << int(kind))
        return bits

    def _between(self, low: Sequence[float], high: Sequence[float]) -> NDArray[np.intp]:
        """Numbers of the points between two corners."""
        first, last = self.centres_nm[0].searchsorted([low[0], high[0]])
        y, x = self.centres_nm[1:, first:last]
        inside = (y > low[1]) & (y < high[1]) & (x > low[2]) & (x < high[2])
        found: NDArray[np.intp] = np.arange(first, last)[inside]
        return found


def unpack(bits: NDArray[Any], count: int) -> NDArray[np.bool_]:
    """The lowest bits of a patch (z, y, x) as masks of their own, (bit, z, y, x)."""
    masks = BUFFERS.empty((count, *bits.shape), np.bool_)
    for number, mask in enumerate(masks):
        np.not_equal(bits & bits.dtype.type(1 << number), 0, out=mask)
    return masks


def norm_points(table: object, radius_nm: object, by: object) -> Points:
    """Check which points are to be painted.

    Args:
        table: an entry of a table, with its arguments.
        radius_nm: of the balls, nm.
        by: name of a column, or None.

    Raises:
        ArgumentError: no table, one without coordinates or with a box of its own, or a radius that is none.
    """
    arguments = getattr(table, "arguments", None)
    if not isinstance(arguments, TableArguments):
        raise ArgumentError(f"{type(table).__name__} is no table: give one such as cat.malecns_data.synapse_points")
    if arguments.bbox is not None:
        raise ArgumentError("the points are those of the volume's own box: leave bbox= of the table away")
    if arguments.axes is None:
        raise ArgumentError("this table has no coordinates; name three of its columns with coordinates=[x, y, z]")
    is_number = isinstance(radius_nm, (int, float, np.number)) and not isinstance(radius_nm, bool)
    if not is_number or not 0 < float(radius_nm) < math.inf:  # type: ignore[arg-type]  # looked at a line above
        raise ArgumentError(f"radius_nm={radius_nm!r} is not a length in nm")
    if by is not None and not isinstance(by, str):
        raise ArgumentError(f"by={by!r} is not the name of a column; None puts all points into one volume")
    return Points(arguments, float(radius_nm), by)  # type: ignore[arg-type]


def open_points(points: Points, grid: Grid, box: Box) -> OpenPoints:
    """Read the points whose balls may reach into a box.

    Args:
        points: which ones.
        grid: of the volume.
        box: in voxels of the grid.

    Raises:
        ArgumentError: a column that is not there, or that does not hold kinds.
        MissingExtraError: what reads tables is not installed.
        TooLargeError, SourceError, CacheError: the table cannot be read.
    """
    with extra("tables"):
        from emcatalog.tables.opening import open_table
    axes, by = points.table.axes or (), points.by
    around = _around(grid.to_nm(box), points.radius_nm)
    opened = open_table(points.table.having(columns=None, bbox=around, units="nm"))
    if by is not None:
        _check_kinds(opened.schema, by)
    table = replace(opened, columns=list(dict.fromkeys([*axes, *([by] if by else [])]))).read()
    centres = _centres_nm([table.column(name).to_numpy() for name in axes], points.table.table.voxel_size)
    kinds, kind_of = (["points"], np.zeros(len(table), np.intp)) if by is None else _kinds(table.column(by), opened, by)
    order = np.flatnonzero(kind_of >= 0)
    order = order[np.argsort(centres[0, order], kind="stable")]
    return OpenPoints(tuple(kinds), centres[:, order], kind_of[order].astype(np.uint8), points.radius_nm)


def paint_points(points: Points, grid: Grid, box: Box) -> dict[str, NDArray[np.bool_]]:
    """Balls around the points of a table that lie in a box or reach into it.

    Args:
        points: which ones, and how.
        grid: of the volume.
        box: what is painted, in voxels of ``grid``.

    Returns:
        Masks (z, y, x) by kind; one mask, ``points``, where all are of one kind.

    Raises:
        ArgumentError, MissingExtraError, SourceError, CacheError: as ``open_points``.
        TooLargeError: they would not fit in the memory at hand.
    """
    _check_memory(box, 1)
    opened = open_points(points, grid, box)
    _check_memory(box, len(opened.kinds))
    bits = opened.paint(grid, box)
    return {kind: bits & bits.dtype.type(1 << number) != 0 for number, kind in enumerate(opened.kinds)}


def _centres_nm(columns: Sequence[NDArray[Any]], voxel_size: Sequence[float]) -> NDArray[np.float64]:
    """Coordinates x, y and z as (z, y, x) by point; a whole number is that of a voxel, and stands for its centre."""
    pairs = zip(reversed(columns), reversed(voxel_size), strict=True)
    return np.stack([(places + (0.5 if places.dtype.kind in "iu" else 0.0)) * size for places, size in pairs])


def _around(box: NmBox, by: float) -> list[float]:
    """A box as a user writes it, grown on all sides."""
    pairs = zip(reversed(box.begin_nm), reversed(box.end_nm), strict=True)
    return [edge for begin, end in pairs for edge in (begin - by, end + by)]


def _check_kinds(schema: Any, by: str) -> None:
    import pyarrow as pa

    if by not in schema.names:
        raise ArgumentError(
            f"by={by!r}: the table has no such column; there are {listing(schema.names)}.{suggest(by, schema.names)}"
            " None puts all points into one volume"
        )
    kind = schema.field(by).type
    if not any(test(kind) for test in (pa.types.is_dictionary, pa.types.is_string, pa.types.is_large_string)):
        raise ArgumentError(f"by={by!r}: the column holds {kind}, and kinds of points are text or categories")


def _kinds(column: Any, table: Any, by: str) -> tuple[list[str], NDArray[np.intp]]:
    """Names of the kinds of points, and the number of each point's; -1 where nobody says."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = column.cast(pa.string())
    known = table.categories(by)
    # Each row group of a Parquet file may have categories of its own.
    kinds = known + sorted({*texts.unique().drop_null().to_pylist()} - {*known})
    if len(kinds) > MOST_KINDS:
        raise ArgumentError(
            f"by={by!r} tells {len(kinds)} kinds of points apart, more than {MOST_KINDS}: take another column, or a"
            " filter= of the table with by=None"
        )
    numbers = pc.fill_null(pc.index_in(texts, value_set=pa.array(kinds, pa.string()), skip_nulls=True), -1)
    return kinds, numbers.to_numpy().astype(np.intp)


def _check_memory(box: Box, kinds: int) -> None:
    needed, available = box.voxels * (kinds + 2 * -(-kinds // 8)), available_bytes()
    if needed > available:
        raise TooLargeError(
            f"{kinds} volumes of {format_xyz(box.shape)} voxels (x, y, z) take {needed / 1e9:.1f} GB, and"
            f" {available / 1e9:.1f} GB can be had: take a smaller bbox, a coarser resolution= or by=None"
        )
