"""``demo://``: the embedded dataset, made on first use in the stored forms of male CNS.

Sharded precomputed volumes, jpeg for the image and compressed_segmentation for the labels, so that the demo walks the
same path as a remote volume.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

import platformdirs
import tensorstore as ts
from numpy.typing import NDArray

from emcatalog.errors import CacheError, SourceMissingError

SHAPE: Final = (256, 256, 256)
"""Voxels, (z, y, x)."""
RESOLUTIONS_NM: Final = (8, 16, 32)
VOLUMES: Final = ("em", "segmentation")

_VERSION: Final = "tissue-1"
"""Changes with the phantom, so that an old one is not taken for the new."""
_SHARDING: Final = {
    # Bits as in the published male CNS info: 9 + 6 + shard bits, gzip'd minishard indexes.
    "@type": "neuroglancer_uint64_sharded_v1",
    "hash": "identity",
    "preshift_bits": 9,
    "minishard_bits": 6,
    "shard_bits": 0,
    "minishard_index_encoding": "gzip",
}


def local_url(url: str) -> str:
    """The ``file://`` URL of a demo volume; makes the demo if it is not there yet.

    Raises:
        SourceMissingError: there is no such demo volume.
    """
    name = url.removeprefix("demo://tissue/")
    if name not in VOLUMES:
        raise SourceMissingError(f"{url}: the demo has the volumes {', '.join(f'demo://tissue/{v}' for v in VOLUMES)}")
    return f"file://{make_demo(demo_folder())}/{name}"


def demo_folder() -> Path:
    """Where the demo's source data lies: ``EMCATALOG_DEMO``, or the platform's user data."""
    return Path(os.environ.get("EMCATALOG_DEMO") or platformdirs.user_data_dir("emcatalog")) / _VERSION


def make_demo(folder: Path) -> Path:
    """Make the demo's volumes unless they are there; several processes may do so at once.

    Returns:
        The folder.

    Raises:
        CacheError: the folder cannot be written.
    """
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(mkdtemp(prefix=f"{folder.name}.partial-", dir=folder.parent))
        try:
            _write(partial)
            _publish(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except (OSError, ValueError) as error:  # ValueError: TensorStore's, of a disk that is full
        raise CacheError(
            f"the demo's data cannot be written to {folder}: {error}; set EMCATALOG_DEMO to another folder"
        ) from error
    return folder


def _publish(partial: Path, folder: Path) -> None:
    try:
        partial.rename(folder)
    except OSError:
        if not folder.is_dir():  # another process was first: its demo is the same, byte for byte
            raise


def _write(folder: Path) -> None:
    from emcatalog.phantom import make_phantom

    tissue = make_phantom(SHAPE)
    image = {"encoding": "jpeg", "jpeg_quality": 90}
    labels = {"encoding": "compressed_segmentation", "compressed_segmentation_block_size": [8, 8, 8]}
    for level, resolution in enumerate(RESOLUTIONS_NM):
        step = 2**level
        _write_scale(folder / "em", _mean(tissue.raw, step), resolution, "image", image)
        coarse = tissue.labels[::step, ::step, ::step]
        _write_scale(folder / "segmentation", coarse, resolution, "segmentation", labels)


def _write_scale(folder: Path, voxels: NDArray[Any], resolution: int, kind: str, encoding: dict[str, Any]) -> None:
    z, y, x = voxels.shape
    data_encoding = "raw" if kind == "image" else "gzip"
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": f"file://{folder}/",
        "multiscale_metadata": {"type": kind, "data_type": voxels.dtype.name, "num_channels": 1},
        "scale_metadata": {
            "size": [x, y, z],
            "resolution": [resolution] * 3,
            "chunk_size": [64, 64, 64],
            "sharding": {**_SHARDING, "data_encoding": data_encoding},
            **encoding,
        },
    }
    store = ts.open(spec, create=True, open=True).result()
    with ts.Transaction() as transaction:  # a shard is written once, not once a chunk
        store.with_transaction(transaction)[..., 0].transpose([2, 1, 0]).write(voxels).result()


def _mean(voxels: NDArray[Any], step: int) -> NDArray[Any]:
    """Mean over cubes of ``step`` voxels, as image pyramids are made."""
    if step == 1:
        return voxels
    z, y, x = (side // step for side in voxels.shape)
    blocks = voxels[: z * step, : y * step, : x * step].reshape(z, step, y, step, x, step)
    means: NDArray[Any] = blocks.mean(axis=(1, 3, 5)).round().astype(voxels.dtype)
    return means
