"""How a mirror is cut into chunks and shards. The figures behind the numbers: ``benchmarks/layout.py``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from emcatalog.formats.volume import ArraySpec
from emcatalog.geometry import Index, axis_names

CHUNK_SIDE: Final = 64
"""Longest edge of a chunk where the source's chunk can be divided: small boxes and patches read little beside."""
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
    inner = [_BYTES, {"name": "zstd", "configuration": {"level": 1}}, {"name": "crc32c"}]
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
    """Chunks of the mirror: of one channel; flat where the source is a pile of slices."""
    thickness, rows, columns = spec.chunk[-3:]
    z, y, x = (_side(stored, size) for stored, size in zip(spec.chunk[-3:], spec.grid.shape, strict=True))
    if thickness == 1 and columns >= spec.grid.shape[-1] > CHUNK_SIDE:
        # Whole rows are read and kept, so that wide chunks cost nothing; flat ones of 64 x 64 would be too many.
        y, x = _side(rows, spec.grid.shape[-2], longest=2 * CHUNK_SIDE), 4 * CHUNK_SIDE
    return (1,) * (len(spec.chunk) - 3) + (z, y, x)


def _side(stored: int, size: int, longest: int = CHUNK_SIDE) -> int:
    """Edge of a mirror's chunk along one axis: the longest divisor of the source's that is no sliver."""
    if stored >= size and stored > longest:
        return longest
    best = max(d for d in range(1, longest + 1) if stored % d == 0)
    return best if best * 4 > longest or best == stored else stored
