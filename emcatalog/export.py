"""A box on its own: an OME-Zarr 0.5 folder that needs neither the cache nor the network.

Format: https://ngff.openmicroscopy.org/0.5/. Every channel is an image of its own, ``<channel>/``, whose one scale is
the array ``<channel>/data`` (#multiscale-md), as in a mirror; the folder is the collection of them (#bf2raw).
``xarray.open_datatree`` opens it, and ``xarray.open_zarr(path, group="raw")`` one of its channels.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import zarr

from emcatalog import ome
from emcatalog.cutout import Cutout, StartProgress
from emcatalog.dataset import lazy_arrays, to_dataset
from emcatalog.mirror.array import ARRAY
from emcatalog.zarr_folder import new_zarr

CHUNK_SIDE: Final = 64
SHARD_SIDE: Final = 256


def export(
    cutout: Cutout, path: Path, about: Mapping[str, Any], *, overwrite: bool, progress: StartProgress | None
) -> Path:
    """Write a cutout as OME-Zarr, fetched where it is missing; memory is bounded by a few shards.

    It is written beside its place and renamed when it is whole.

    Raises:
        ArgumentError: the path exists and is not to be overwritten, or cannot be written.
        SourceError, CacheError: what is missing cannot be fetched.
    """
    with new_zarr(path, overwrite=overwrite) as partial:
        cutout.fetch(progress)
        _write(cutout, partial, about)
    return path


def _write(cutout: Cutout, folder: Path, about: Mapping[str, Any]) -> None:
    collection = {"version": ome.VERSION, "bioformats2raw.layout": 3}
    root = zarr.create_group(folder, attributes={**cutout.attributes(), **about, "ome": collection})
    root.create_group("OME", attributes={"ome": {"version": ome.VERSION, "series": list(cutout.channels)}})
    for name, array in lazy_arrays(cutout, block=(SHARD_SIDE,) * 3).items():
        _write_image(cutout, name, array, folder, about)


def _write_image(cutout: Cutout, name: str, array: Any, folder: Path, about: Mapping[str, Any]) -> None:
    # Zarr wants whole chunks in a shard, so a small box gets a smaller one.
    channel = cutout.channels[name]
    several = (1,) * channel.has_channels
    shard = tuple(min(SHARD_SIDE, -(-side // CHUNK_SIDE) * CHUNK_SIDE) for side in cutout.box.shape)
    encoding: dict[str, Any] = {ARRAY: {"chunks": several + (CHUNK_SIDE,) * 3, "shards": several + shard}}
    image = ome.image(name, ARRAY, cutout.grid, cutout.box.begin, channels=channel.has_channels)
    said = {**about, "ome": image}
    dataset = to_dataset(cutout, {name: array}, said).rename({name: ARRAY})
    with warnings.catch_warnings():
        # Consolidated, xarray opens the folder without a warning of its own. Zarr's format has no word on it yet.
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part")
        dataset.to_zarr(
            folder, group=name, mode="a", zarr_format=3, encoding=encoding, consolidated=True, align_chunks=True
        )
