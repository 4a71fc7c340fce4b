"""OME-Zarr 0.5 metadata of an array of voxels: https://ngff.openmicroscopy.org/0.5/#multiscale-md."""

from __future__ import annotations

from typing import Any, Final

from emcatalog.geometry import AXES, CHANNEL, Grid, Index

VERSION: Final = "0.5"


def image(name: str, path: str, grid: Grid, first: Index, *, channels: bool = False) -> dict[str, Any]:
    """The ``ome`` attribute of a group that holds one array.

    Args:
        name: of the image.
        path: of the array in the group.
        grid: where its voxels stand.
        first: voxel of the grid, (z, y, x), that is index 0 of the array.
        channels: whether an axis of channels stands before those of space.
    """
    axes = [{"name": CHANNEL, "type": "channel"}] * channels
    axes += [{"name": axis, "type": "space", "unit": "nanometer"} for axis in AXES]
    pieces = zip(first, grid.voxel_size_nm, grid.origin_nm, strict=True)
    centre = [(index + 0.5) * size + origin for index, size, origin in pieces]
    place = [
        {"type": "scale", "scale": [1.0] * channels + list(grid.voxel_size_nm)},
        {"type": "translation", "translation": [0.0] * channels + centre},
    ]
    scale = {"path": path, "coordinateTransformations": place}
    return {"version": VERSION, "multiscales": [{"name": name, "axes": axes, "datasets": [scale]}]}
