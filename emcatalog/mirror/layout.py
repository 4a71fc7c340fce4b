"""How a mirror is cut into chunks and shards. The figures behind the numbers: ``benchmarks/layout.py``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from emcatalog.formats.volume import ArraySpec
from emcatalog.geometry import Zyx, zyx

CHUNK_SIDE: Final = 64
"""Longest edge of a chunk where the source's chunk can be divided: small boxes and patches read little beside."""
SHARD_SIDE: Final = 256
"""Longest edge of a shard: a box of 1024 cubed is 64 files, and a shard of small random boxes is cheap to rewrite."""
SHARD_BYTES: Final = 64 << 20
"""Decoded bytes of a shard at most, since shards in flight bound the memory of a fetch."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Lattices through the first voxel of a mirror, (z, y, x)."""

    chunk: Zyx
    """What is compressed, checksummed and read as one."""
    shard: Zyx
    """What is one file."""
    unit: Zyx
    """What is fetched as one: whole source chunks that fill whole mirror chunks."""


def choose_layout(spec: ArraySpec) -> Layout:
    """The layout of a new mirror: chunks that divide the source's chunks, in shards of bounded size."""
    chunk = zyx([_divisor(side) for side in spec.chunk])
    shard = list(spec.chunk)
    itemsize = np.dtype(spec.dtype).itemsize
    while True:
        axis = min(range(3), key=lambda i: (shard[i] * 2 > SHARD_SIDE, shard[i]))
        if shard[axis] * 2 > SHARD_SIDE or math.prod(shard) * itemsize * 2 > SHARD_BYTES:
            return Layout(chunk, zyx(shard), spec.chunk)
        shard[axis] *= 2


def unit_of(chunk: Zyx, spec: ArraySpec) -> Zyx:
    """The smallest block that is whole in the mirror's chunks and in the source's."""
    return zyx([math.lcm(a, b) for a, b in zip(chunk, spec.chunk, strict=True)])


def zarr_metadata(spec: ArraySpec, layout: Layout) -> dict[str, Any]:
    """Zarr v3 metadata of a mirror: https://zarr-specs.readthedocs.io/en/latest/v3/core/index.html."""
    # crc32c stands last, over what is stored, so that a flipped byte raises whatever the compressor would make of it.
    inner = [_BYTES, {"name": "zstd", "configuration": {"level": 1}}, {"name": "crc32c"}]
    sharding = {"chunk_shape": layout.chunk, "codecs": inner, "index_codecs": [_BYTES, {"name": "crc32c"}]}
    return {
        "shape": spec.grid.shape,
        "data_type": spec.dtype,
        "fill_value": 0,
        "dimension_names": ["z", "y", "x"],
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": layout.shard}},
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
    }


_BYTES: Final = {"name": "bytes", "configuration": {"endian": "little"}}


def _divisor(side: int) -> int:
    """The largest divisor of a source chunk's edge up to ``CHUNK_SIDE``, or the edge itself if that is a sliver."""
    best = max(d for d in range(1, CHUNK_SIDE + 1) if side % d == 0)
    return best if best * 4 > CHUNK_SIDE or best == side else side
