"""Small precomputed volumes in any stored form.

raw, jpeg, png and compressed_segmentation are written by TensorStore; jxl (JPEG XL; needs `imagecodecs`), crackle
(`crackle-codec`), compresso (`compresso`), fpzip and kempressed (both `fpzip`) by cloud-volume's codecs.
"""

from __future__ import annotations

import gzip
import importlib
import json
import os
import pathlib
from collections.abc import Collection, Mapping
from typing import Any, cast

import numpy as np
import tensorstore as ts

from tests.replica.stored import Array, Box, Chunk, Scale, open_scale

TENSORSTORE_ENCODINGS = ("raw", "jpeg", "png", "compressed_segmentation")
CLOUDVOLUME_ENCODINGS = ("jxl", "crackle", "compresso", "fpzip", "kempressed")
LABEL_ENCODINGS = ("compressed_segmentation", "compresso", "crackle")

SHARDING: Mapping[str, Any] = {
    "@type": "neuroglancer_uint64_sharded_v1",
    "preshift_bits": 1,
    "hash": "identity",
    "minishard_bits": 1,
    "shard_bits": 1,
    "minishard_index_encoding": "gzip",
    "data_encoding": "raw",
}
"""A sharding with several chunks in a minishard, minishards in a shard, and shards in a small volume."""


def build_precomputed(
    folder: str | os.PathLike[str],
    voxels: Array,
    *,
    encoding: str = "raw",
    sharding: Mapping[str, Any] | None = None,
    chunk: tuple[int, int, int] = (64, 64, 64),
    voxel_offset: tuple[int, int, int] = (0, 0, 0),
    resolution: tuple[float, float, float] = (8, 8, 8),
    missing_chunks: Collection[Chunk] = (),
    gzipped: bool = False,
) -> Scale:
    """Write a volume of one scale and return it as it is stored.

    Args:
        folder: Gets the `info` and the scale's folder.
        voxels: `(z, y, x)`.
        encoding: One of `TENSORSTORE_ENCODINGS` and `CLOUDVOLUME_ENCODINGS`.
        sharding: The info's sharding, or what of it is to differ from `SHARDING`; None for one file a chunk.
        chunk: Voxels, xyz.
        voxel_offset: The first voxel, xyz.
        resolution: nm, xyz.
        missing_chunks: Places `(z, y, x)` in the grid of chunks that are to be absent. All others are stored, those
            of zeros too.
        gzipped: Leave each chunk's file compressed as `NAME.gz`, which `serve` sends with `Content-Encoding: gzip`.
    """
    path = pathlib.Path(folder)
    scale_info = _scale_info(voxels, encoding, chunk, voxel_offset, resolution)
    if sharding is not None:
        scale_info["sharding"] = {**SHARDING, **sharding}
    path.mkdir(parents=True, exist_ok=True)
    (path / "info").write_text(json.dumps(_info(voxels, encoding, scale_info)))
    scale = open_scale(path)
    if encoding in TENSORSTORE_ENCODINGS:
        _write_by_tensorstore(scale, voxels)
    else:
        _write_by_cloudvolume(scale, voxels)
    for place in missing_chunks:
        scale.replace(place, None)
    if gzipped:
        _gzip_files(path / scale.meta["key"])
    return scale


def _info(voxels: Array, encoding: str, scale_info: dict[str, Any]) -> dict[str, Any]:
    labels = encoding in ("compressed_segmentation", "compresso", "crackle") or voxels.dtype.name in (
        "uint32",
        "uint64",
    )
    return {
        "@type": "neuroglancer_multiscale_volume",
        "type": "segmentation" if labels else "image",
        "data_type": voxels.dtype.name,
        "num_channels": 1,
        "scales": [scale_info],
    }


def _scale_info(
    voxels: Array,
    encoding: str,
    chunk: tuple[int, int, int],
    voxel_offset: tuple[int, int, int],
    resolution: tuple[float, float, float],
) -> dict[str, Any]:
    info: dict[str, Any] = {
        "key": "_".join(f"{length:g}" for length in resolution),
        "size": list(voxels.shape[::-1]),
        "resolution": list(resolution),
        "voxel_offset": list(voxel_offset),
        "chunk_sizes": [list(chunk)],
        "encoding": encoding,
    }
    if encoding == "compressed_segmentation":
        info["compressed_segmentation_block_size"] = [8, 8, 8]
    return info


def _write_by_tensorstore(scale: Scale, voxels: Array) -> None:
    kvstore = {"driver": "file", "path": f"{scale.folder}/"}
    store = _open({**OPEN, "kvstore": kvstore}, ts.Context())
    with ts.Transaction() as transaction:
        store.with_transaction(transaction).write(voxels).result()
    # In shards, TensorStore 0.1.86 leaves chunks of zeros out all the same.
    for place in scale.chunks(scale.extent):
        if not scale.is_there(place):
            z, y, x = (stop - start for start, stop in scale.chunk_box(place))
            scale.replace_encoded(place, _encode(scale, np.zeros((z, y, x), voxels.dtype)))


OPEN: Mapping[str, Any] = {
    "driver": "neuroglancer_precomputed",
    # Otherwise a chunk of zeros is left out, and only `missing_chunks` are to be absent.
    "store_data_equal_to_fill_value": True,
}


def _open(spec: Mapping[str, Any], context: ts.Context) -> ts.TensorStore:
    """The volume as `(z, y, x)`."""
    return ts.open(dict(spec), open=True, context=context).result()[..., 0].T


def _encode(scale: Scale, block: Array) -> bytes:
    """One chunk in the scale's encoding, without sharding: a volume of its own in memory."""
    size = list(block.shape[::-1])
    meta = {**scale.meta, "key": "s", "size": size, "chunk_sizes": [size], "voxel_offset": [0, 0, 0]}
    meta.pop("sharding", None)
    memory, context = {"driver": "memory"}, ts.Context()
    files = ts.KvStore.open(memory, context=context).result()
    files["info"] = json.dumps({**scale.info, "scales": [meta]}).encode()
    _open({**OPEN, "kvstore": memory}, context).write(block).result()
    x, y, z = size
    return files[f"s/0-{x}_0-{y}_0-{z}"]


def _write_by_cloudvolume(scale: Scale, voxels: Array) -> None:
    codecs = importlib.import_module("cloudvolume.chunks")
    for place in scale.chunks(scale.extent):
        of_volume = _within(scale.chunk_box(place), scale.extent)
        block = np.asfortranarray(voxels[of_volume].T[..., np.newaxis])
        scale.replace_encoded(place, cast(bytes, codecs.encode(block, scale.meta["encoding"])))


def _within(box: Box, extent: Box) -> tuple[slice, ...]:
    return tuple(slice(start - low, stop - low) for (start, stop), (low, _) in zip(box, extent, strict=True))


def _gzip_files(folder: pathlib.Path) -> None:
    for path in [path for path in folder.iterdir() if path.suffix != ".shard"]:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
