"""A box on its own: an OME-Zarr 0.5 folder that needs neither the cache nor the network.

Format: https://ngff.openmicroscopy.org/0.5/#multiscale-md. Every channel is an array of the root group and an image of
its ``multiscales``; ``xarray.open_zarr`` opens the same folder as the Dataset that ``read`` returns.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

from emcatalog.cutout import Cutout, StartProgress
from emcatalog.dataset import lazy_arrays, to_dataset
from emcatalog.errors import ArgumentError
from emcatalog.geometry import NmBox

OME_VERSION: Final = "0.5"
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
    if path.exists() and not (overwrite and path.is_dir()):
        raise ArgumentError(f"{path} exists; choose another path, or overwrite=True for a folder")
    partial = _beside(path)
    try:
        cutout.fetch(progress)
        _write(cutout, partial, about)
        partial.chmod(0o755)  # mkdtemp makes folders that only their owner can read
        if path.exists():
            shutil.rmtree(path)
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return path


def _beside(path: Path) -> Path:
    """A folder in the same file system, made before anything is fetched for it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return Path(mkdtemp(prefix=f".{path.name}.partial-", dir=path.parent))
    except OSError as error:
        raise ArgumentError(f"{path} cannot be written: {error.strerror}; choose another path") from error


def _write(cutout: Cutout, folder: Path, about: Mapping[str, Any]) -> None:
    arrays = lazy_arrays(cutout, block=(SHARD_SIDE,) * 3)
    # Zarr wants whole chunks in a shard, so a small box gets a smaller one.
    shard = tuple(min(SHARD_SIDE, -(-side // CHUNK_SIDE) * CHUNK_SIDE) for side in cutout.box.shape)
    encoding = {name: {"chunks": (CHUNK_SIDE,) * 3, "shards": shard} for name in arrays}
    dataset = to_dataset(cutout, arrays, {**about, "ome": _ome(cutout)})
    dataset.to_zarr(folder, mode="w", zarr_format=3, encoding=encoding, consolidated=False, align_chunks=True)


def _ome(cutout: Cutout) -> dict[str, Any]:
    axes = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    space: NmBox = cutout.grid.to_nm(cutout.box)
    size = cutout.grid.voxel_size_nm
    centre = [corner + edge / 2 for corner, edge in zip(space.begin_nm, size, strict=True)]
    place = [{"type": "scale", "scale": list(size)}, {"type": "translation", "translation": centre}]
    images = [
        {"name": name, "axes": axes, "datasets": [{"path": name, "coordinateTransformations": place}]}
        for name in cutout.channels
    ]
    return {"version": OME_VERSION, "multiscales": images}
