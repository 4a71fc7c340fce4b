"""Predictions of patches, put together into an array or a Zarr of the box."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import zarr
from numpy.typing import NDArray

from emcatalog import ome
from emcatalog.errors import ArgumentError
from emcatalog.geometry import Index, axis_names
from emcatalog.mirror.array import ARRAY
from emcatalog.torch.grid import GridDataset
from emcatalog.zarr_folder import new_zarr

CHUNK_SIDE: Final = 64


def stitch(
    predictions: Iterable[tuple[Any, Any]],
    grid: GridDataset,
    path: str | Path | None = None,
    *,
    overwrite: bool = False,
) -> NDArray[Any] | Path:
    """Put predictions of patches back into the box: of each patch the part up to the middle of its overlaps.

    Args:
        predictions: batches (prediction, position) in any order: predictions (b, c, z, y, x), or (b, c, y, x) of
            patches of one slice; positions (b, 3), as they came with the patches.
        grid: that the patches are of.
        path: a Zarr folder to write, patch by patch, so that memory does not depend on the box. Default: an array.
        overwrite: whether a Zarr that is there is replaced.

    Returns:
        (c, z, y, x) in the dtype of the predictions, or the path of an OME-Zarr 0.5 image with them, placed as the box
        is.

    Raises:
        ArgumentError: predictions of another shape than the patches, or patches that are missing; then no Zarr is left.
    """
    if path is None:
        whole: NDArray[Any] = _fill(predictions, grid, np.zeros)
        return whole
    with new_zarr(Path(path), overwrite=overwrite) as folder:
        _fill(predictions, grid, lambda shape, dtype: _new_image(folder, Path(path).name, grid, shape, dtype))
    return Path(path)


def _fill(predictions: Iterable[tuple[Any, Any]], grid: GridDataset, new: Any) -> Any:
    tiling, whole = grid.tiling, None
    missing = set(range(len(grid)))
    for batch, positions in predictions:
        for prediction, position in _pairs(_array(batch), _array(positions)):
            patch = _as_4d(prediction, grid)
            if whole is None:
                whole = new((patch.shape[0], *tiling.shape), patch.dtype)
            _check_like(patch, whole)
            number = tiling.index(position.tolist())
            core, first = tiling.core(number), tiling.first(number)
            whole[(slice(None), *core.slices)] = patch[(slice(None), *core.translate([-a for a in first]).slices)]
            missing.discard(number)
    if missing or whole is None:
        where = f"; the first one that is missing begins at {tiling.first(min(missing))} (z, y, x)" if missing else ""
        raise ArgumentError(
            f"predictions of {len(missing)} of {len(grid)} patches are missing{where}: predict every patch of the grid"
        )
    return whole


def _array(values: Any) -> NDArray[Any]:
    if not isinstance(values, torch.Tensor):
        return np.asarray(values)
    # NumPy has no bfloat16.
    return (values.float() if values.dtype == torch.bfloat16 else values).detach().cpu().numpy()


def _pairs(batch: NDArray[Any], positions: NDArray[Any]) -> Iterable[tuple[NDArray[Any], NDArray[Any]]]:
    if positions.ndim != 2 or len(batch) != len(positions):
        raise ArgumentError(
            f"predictions of shape {batch.shape} came with positions of shape {positions.shape}: give batches"
            " (b, c, z, y, x) and (b, 3)"
        )
    return zip(batch, positions, strict=True)


def _check_like(patch: NDArray[Any], whole: Any) -> None:
    if (len(patch), patch.dtype) != (whole.shape[0], whole.dtype):
        raise ArgumentError(
            f"a prediction has {len(patch)} channels of {patch.dtype}, and those before it {whole.shape[0]} of"
            f" {whole.dtype}: give the same for every patch"
        )


def _as_4d(prediction: NDArray[Any], grid: GridDataset) -> NDArray[Any]:
    shape = grid.tiling.patch_shape
    if shape[0] == 1 and prediction.shape[-2:] == shape[-2:] and prediction.ndim == 3:
        return prediction[:, None]
    if prediction.ndim != 4 or prediction.shape[1:] != shape:
        raise ArgumentError(
            f"a prediction has the shape {prediction.shape}, and the patch {shape} (z, y, x): give (c, z, y, x) for"
            " each patch, of its size"
        )
    return prediction


def _new_image(folder: Path, name: str, grid: GridDataset, shape: Index, dtype: Any) -> Any:
    cutout = grid.region.cutout
    image = ome.image(name, ARRAY, cutout.grid, cutout.box.begin, channels=True)
    group = zarr.create_group(folder, overwrite=True, attributes={**cutout.attributes(), "ome": image})
    chunks = (1, *(min(side, CHUNK_SIDE) for side in shape[1:]))
    return group.create_array(ARRAY, shape=shape, dtype=dtype, chunks=chunks, dimension_names=axis_names(4))
