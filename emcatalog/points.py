"""Points of a table as a target volume: a ball around each, one mask for each kind of point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emcatalog.entries.table import TableArguments
from emcatalog.errors import ArgumentError, MissingExtraError
from emcatalog.geometry import Box, Grid, NmBox, ZyxNm, reverse

Masks = dict[str, NDArray[np.bool_]]


def paint_points(points: TableArguments, grid: Grid, box: Box, radius_nm: float, by: str | None) -> Masks:
    """Balls around the points of a table that lie in a box or reach into it.

    Args:
        points: of the table; its filter counts, and its box is the one that is painted.
        grid: of the volume.
        box: what is painted, in voxels of ``grid``.
        radius_nm: of the balls: a voxel is in one if its centre is no farther away.
        by: a column of text or categories, of which each value gets a mask of its own; None puts all into one.

    Returns:
        Masks (z, y, x) by the values of ``by`` (every category that the table has, in its order), or ``points``.

    Raises:
        ArgumentError: a radius that is none, a table without coordinates, a column that is not there.
        SourceError, CacheError: the table cannot be read.
    """
    radius = _norm_radius(radius_nm)
    if points.bbox is not None:
        raise ArgumentError("the points are those of the volume's own box: leave bbox= of the table away")
    if points.axes is None:
        raise ArgumentError("this table has no coordinates; name three of its columns with coordinates=[x, y, z]")
    opened = _open(points, _grown(grid.to_nm(box), radius), by)
    kinds = [] if by is None else opened.categories(by)
    table = opened.read()
    places = np.stack([table.column(name).to_numpy() for name in reversed(points.axes)], 1)
    # A coordinate is the number of a voxel, and stands for its centre.
    centres = (places + (0.5 if places.dtype.kind in "iu" else 0.0)) * reverse(points.table.voxel_size)
    masks = {name: np.zeros(box.shape, bool) for name in _kinds(table, by, kinds)}
    for name, mask in masks.items():
        _paint(mask, centres[_is_of(table, by, name)], grid, box, radius)
    return masks


def _paint(mask: NDArray[np.bool_], centres_nm: NDArray[np.float64], grid: Grid, box: Box, radius: float) -> None:
    """Set the voxels of a mask of a box whose centres are near one of some points (z, y, x), nm."""
    size = np.array(grid.voxel_size_nm)
    corner = np.array(grid.to_nm(Box(box.begin, tuple(a + 1 for a in box.begin))).begin_nm)
    places = (centres_nm - corner) / size - 0.5  # in voxels of the mask, whole numbers at centres
    middles = np.rint(places).astype(int)
    # Points stand at few places within a voxel, such as 8 of a voxel twice as wide: each needs a ball of its own.
    phases, phase_of = np.unique(np.round(places - middles, 6), axis=0, return_inverse=True)
    balls = [_ball(phase, size, radius) for phase in phases]
    for middle, phase in zip(middles, phase_of.ravel(), strict=True):
        ball = balls[phase]
        first = middle - np.array(ball.shape) // 2
        begin, end = np.maximum(first, 0), np.minimum(first + ball.shape, mask.shape)
        if np.all(begin < end):
            there = mask[tuple(map(slice, begin, end))]
            there |= ball[tuple(map(slice, begin - first, end - first))]


def _ball(phase: NDArray[np.float64], size: NDArray[np.float64], radius: float) -> NDArray[np.bool_]:
    """The voxels near a point that lies so far from the centre of the middle one, in voxels."""
    z, y, x = (
        ((np.arange(-edge, edge + 1) - shift) * length) ** 2
        for edge, shift, length in zip(np.ceil(radius / size).astype(int) + 1, phase, size, strict=True)
    )
    near: NDArray[np.bool_] = z[:, None, None] + y[:, None] + x <= radius**2
    return near


def _norm_radius(radius_nm: Any) -> float:
    is_number = isinstance(radius_nm, (int, float, np.number)) and not isinstance(radius_nm, bool)
    if not is_number or not 0 < radius_nm < math.inf:
        raise ArgumentError(f"radius_nm={radius_nm!r} is not a length in nm")
    return float(radius_nm)


def _grown(box: NmBox, by: float) -> NmBox:
    low, high = (tuple(edge + sign * by for edge in corner) for sign, corner in ((-1, box.begin_nm), (1, box.end_nm)))
    return NmBox(_zyx_nm(low), _zyx_nm(high))


def _zyx_nm(corner: tuple[float, ...]) -> ZyxNm:
    z, y, x = corner
    return z, y, x


def _open(points: TableArguments, box: NmBox, by: str | None) -> Any:
    try:
        from emcatalog.tables.opening import open_table
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"tables are read by {error.name}: pip install 'emcatalog[tables]'") from error
    edges = [edge for pair in zip(reversed(box.begin_nm), reversed(box.end_nm), strict=True) for edge in pair]
    columns = [*(points.axes or ()), *([by] if by else [])]
    return open_table(points.having(columns=columns, bbox=edges, units="nm"))


def _kinds(table: Any, by: str | None, categories: Sequence[str]) -> list[str]:
    """Values of a column: all categories that it has, or those that occur."""
    if by is None:
        return ["points"]
    return list(categories) or sorted({str(value) for value in table.column(by).to_pylist() if value is not None})


def _is_of(table: Any, by: str | None, name: str) -> Any:
    if by is None:
        return slice(None)
    return np.array([value is not None and str(value) == name for value in table.column(by).to_pylist()], bool)
