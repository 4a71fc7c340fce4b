"""A cutout as an ``xarray.Dataset``: in memory, or lazily in dask blocks that fill the mirror as they are computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from emcatalog.classes import UNLABELLED, Classes
from emcatalog.cutout import Cutout
from emcatalog.geometry import AXES, Box, Zyx
from emcatalog.labels import renumber


def to_dataset(cutout: Cutout, arrays: Mapping[str, Any], about: Mapping[str, Any]) -> xr.Dataset:
    """Put arrays of a cutout's box into a Dataset.

    Args:
        cutout: gives coordinates and attributes.
        arrays: by channel, (z, y, x) or (c, z, y, x).
        about: further attributes of the Dataset (licence, citation).

    Returns:
        Variables (z, y, x) or (c, z, y, x) by channel; coordinates are voxel centres in nm.
    """
    variables = {
        name: (cutout.channels[name].dims, array, cutout.channel_attributes(name)) for name, array in arrays.items()
    }
    return xr.Dataset(variables, _coordinates(cutout), {**cutout.attributes(), **about})


def renumber_instances(dataset: xr.Dataset) -> xr.Dataset:
    """A Dataset in memory with its instances numbered 1, 2, 3, ...

    Returns:
        The same with ``uint32`` numbers in the place of ids, and for each such variable ``<name>_ids``: the ids by
        number, so that ``dataset.labels_ids.values[dataset.labels.values]`` are the ids again.
    """
    for name in [str(name) for name, variable in dataset.items() if variable.attrs["kind"] == "instances"]:
        numbers, ids = renumber(dataset[name].values)
        dataset[name] = (dataset[name].dims, numbers, dataset[name].attrs)
        dataset[f"{name}_ids"] = (f"{name}_number", ids)
    return dataset


def annotate(dataset: xr.Dataset, name: str, classes: Classes) -> xr.Dataset:
    """What the instances of a channel are, in its place.

    Args:
        dataset: in memory.
        name: of the channel of instances.
        classes: what each is.

    Returns:
        ``<column>``, classes by number (z, y, x), and ``<column>_of``, the class by name of every instance in it, along
        ``body``.
    """
    (numbers, ids), column = renumber(dataset[name].values), classes.column
    said = {"kind": "semantic", "classes": list(classes.names), "unlabelled": UNLABELLED}
    found = dataset.drop_vars(name)
    found[column] = (
        dataset[name].dims,
        classes.of_ids(ids).astype(classes.dtype)[numbers],
        {**dataset[name].attrs, **said},
    )
    bodies = np.sort(ids[ids != 0])
    found[f"{column}_of"] = xr.DataArray(classes.names_of(bodies), {"body": bodies}, ("body",))
    return found


def painted(
    cutout: Cutout, masks: Mapping[str, NDArray[np.bool_]], radius_nm: float, about: Mapping[str, Any]
) -> xr.Dataset:
    """Masks of a cutout's box as a Dataset of uint8 volumes (z, y, x)."""
    attributes = {"kind": "mask", "radius_nm": radius_nm}
    variables = {name: (AXES, mask.view(np.uint8), attributes) for name, mask in masks.items()}
    return xr.Dataset(variables, _coordinates(cutout), {**cutout.attributes(), **about})


def _coordinates(cutout: Cutout) -> dict[str, Any]:
    return {axis: (axis, np.asarray(centres), {"units": "nm"}) for axis, centres in cutout.coordinates_nm().items()}


def lazy_arrays(cutout: Cutout, block: Zyx | None = None) -> dict[str, Any]:
    """A dask array for each channel; a block fetches what it lacks when it is computed.

    Args:
        cutout: what to read.
        block: voxels of a dask block, (z, y, x). Default: cut where the mirror's shards are, so that no two blocks
            fill the same file.
    """
    import dask.array as da

    return {
        name: da.from_array(
            LazyChannel(cutout, name),
            # All channels of a block at once: the source's chunks hold several.
            chunks=channel.shape(cutout.box)[:-3] + (block or cutout.of(name).block_sizes()),
            asarray=False,
            fancy=False,
            meta=np.empty((0,) * len(channel.dims), channel.dtype),
        )
        for name, channel in cutout.channels.items()
    }


class LazyChannel:
    """One channel of a cutout as dask wants an array: shape, dtype and indexing with slices. It can be pickled."""

    def __init__(self, cutout: Cutout, name: str) -> None:
        """Keep what is needed to read; nothing is opened yet."""
        self._cutout = cutout.of(name)
        self._name = name
        self.shape = cutout.channels[name].shape(cutout.box)
        self.dtype = cutout.channels[name].dtype
        self.ndim = len(self.shape)

    def __dask_tokenize__(self) -> object:
        """The same voxels have the same name in a dask graph."""
        channel = self._cutout.channels[self._name]
        settings = self._cutout.settings
        return channel.url, channel.spec, channel.alignment, channel.only, self._cutout.box, settings.cache

    def __getitem__(self, index: tuple[slice, ...]) -> NDArray[Any]:
        """Voxels of a block, fetched where they are missing."""
        bounds = [piece.indices(side) for piece, side in zip(index, self.shape, strict=True)]
        if any(start >= stop for start, stop, _ in bounds):
            return np.empty([max(0, stop - start) for start, stop, _ in bounds], self.dtype)
        *leading, (z0, z1, _), (y0, y1, _), (x0, x1, _) = bounds
        box = Box((z0, y0, x0), (z1, y1, x1)).translate(self._cutout.box.begin)
        block = self._cutout.at(box).read()[self._name]
        kept = [slice(start, stop) for start, stop, _ in leading]
        return block[(*kept, *(slice(None, None, step) for _, _, step in bounds[-3:]))]
