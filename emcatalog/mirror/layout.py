"""How a mirror is cut into chunks and shards. The figures behind the numbers: ``benchmarks/layout.py``."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from emcatalog.formats.volume import ArraySpec
from emcatalog.geometry import Index, axis_names

PATCH_SIDE: Final = 96
"""Edge of the box whose reading is to be fast: about as many voxels as a training patch of 64 x 128 x 128."""
CHUNK_COST: Final = 20_000
"""Voxels that are decoded in the time that a chunk takes beside its own, some 5 us: more of an image, fewer of 64-bit
ids. Chunks have so many at least, where the source's have."""
SHARD_SIDE: Final = 256
"""Longest edge of a shard: a box of 1024 cubed is 64 files, and a shard of small random boxes is cheap to rewrite."""
SHARD_BYTES: Final = 64 << 20
"""Decoded bytes of a shard at most, since shards in flight bound the memory of a fetch."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Lattices through the first voxel of a mirror, along its axes."""

    chunk: Index
    """What is compressed, checksummed and read as one."""
    shard: Index
    """What is one file."""
    unit: Index
    """What is fetched as one: whole source chunks that fill whole mirror chunks."""


def choose_layout(spec: ArraySpec) -> Layout:
    """The layout of a new mirror: chunks that fill the source's chunks, in shards of whole units and bounded size."""
    chunk = _chunk(spec)
    unit = unit_of(chunk, spec)
    shard = list(unit)
    itemsize = np.dtype(spec.dtype).itemsize
    space = range(len(shard) - 3, len(shard))
    while True:
        axis = min(space, key=lambda i: (shard[i] * 2 > SHARD_SIDE, shard[i]))
        if shard[axis] * 2 > SHARD_SIDE or math.prod(shard) * itemsize * 2 > SHARD_BYTES:
            return Layout(chunk, tuple(shard), unit)
        shard[axis] *= 2


def unit_of(chunk: Index, spec: ArraySpec) -> Index:
    """The smallest block that is whole in the mirror's chunks and in the source's."""
    return tuple(
        # A source chunk that spans the volume ends with it, wherever the mirror's chunks do.
        -(-size // own) * own if stored >= size else math.lcm(own, stored)
        for own, stored, size in zip(chunk, spec.chunk, spec.shape, strict=True)
    )


def zarr_metadata(spec: ArraySpec, layout: Layout) -> dict[str, Any]:
    """Zarr v3 metadata of a mirror: https://zarr-specs.readthedocs.io/en/latest/v3/core/index.html."""
    # crc32c stands last, over what is stored, so that a flipped byte raises whatever the compressor would make of it.
    inner = [_BYTES, _compressor(np.dtype(spec.dtype).itemsize), {"name": "crc32c"}]
    sharding = {"chunk_shape": layout.chunk, "codecs": inner, "index_codecs": [_BYTES, {"name": "crc32c"}]}
    return {
        "shape": spec.shape,
        "data_type": spec.dtype,
        "fill_value": 0,
        "dimension_names": axis_names(len(spec.shape)),
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": layout.shard}},
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
    }


_BYTES: Final = {"name": "bytes", "configuration": {"endian": "little"}}


def _chunk(spec: ArraySpec) -> Index:
    """Chunks of the mirror: of one channel, and those that patches are read fastest from; of 64 cubed, 32 cubed."""
    edges = (_edges(stored, size) for stored, size in zip(spec.chunk[-3:], spec.grid.shape, strict=True))
    chunks = list(itertools.product(*edges))
    enough = [chunk for chunk in chunks if math.prod(chunk) >= CHUNK_COST] or chunks[-1:]
    return (1,) * (len(spec.chunk) - 3) + min(enough, key=_patch_cost)


def _edges(stored: int, size: int) -> list[int]:
    """Edges along one axis that fill a chunk of the source, smallest first."""
    if stored >= size:
        # It ends with the volume, wherever the mirror's chunks do.
        return [*(1 << power for power in range((size - 1).bit_length())), size]
    return [edge for edge in range(1, stored + 1) if stored % edge == 0]


def _patch_cost(chunk: Index) -> float:
    """Voxels of the chunks that a patch touches, wherever it lies, and what these chunks cost beside, as voxels."""
    touched = math.prod(PATCH_SIDE + edge for edge in chunk)
    return touched * (1 + CHUNK_COST / math.prod(chunk))


def _compressor(itemsize: int) -> dict[str, Any]:
    """Of voxels of 1 or 2 bytes, images mostly, a fast one, since they hardly shrink; ids shrink a hundredfold."""
    if itemsize > 2:
        return {"name": "zstd", "configuration": {"level": 1}}
    shuffle = "shuffle" if itemsize > 1 else "noshuffle"
    options = {"cname": "lz4", "clevel": 5, "shuffle": shuffle, "typesize": itemsize, "blocksize": 0}
    return {"name": "blosc", "configuration": options}
