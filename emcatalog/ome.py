"""OME-Zarr 0.5 metadata of an array of voxels: https://ngff.openmicroscopy.org/0.5/#multiscale-md."""

from __future__ import annotations

from typing import Any, Final

from emcatalog.geometry import Grid, Zyx

VERSION: Final = "0.5"


def image(name: str, path: str, grid: Grid, first: Zyx) -> dict[str, Any]:
    """The ``ome`` attribute of a group that holds one array.

    Args:
        name: of the image.
        path: of the array in the group.
        grid: where its voxels stand.
        first: voxel of the grid, (z, y, x), that is index 0 of the array.
    """
    axes = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    pieces = zip(first, grid.voxel_size_nm, grid.origin_nm, strict=True)
    centre = [(index + 0.5) * size + origin for index, size, origin in pieces]
    place = [{"type": "scale", "scale": list(grid.voxel_size_nm)}, {"type": "translation", "translation": centre}]
    scale = {"path": path, "coordinateTransformations": place}
    return {"version": VERSION, "multiscales": [{"name": name, "axes": axes, "datasets": [scale]}]}
