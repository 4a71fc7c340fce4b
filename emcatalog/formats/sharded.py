"""Chunks of a sharded precomputed volume as a key-value store: by number, without decoding.

Format: https://github.com/google/neuroglancer/blob/master/src/datasource/precomputed/sharded.md
"""

from __future__ import annotations

import math
from typing import Any

import tensorstore as ts

from emcatalog.formats.volume import ArraySpec
from emcatalog.geometry import Box, Zyx, zyx
from emcatalog.stores import Store


def open_sharded(spec: ArraySpec, sharding: dict[str, Any], store: Store) -> ts.KvStore:
    """The stored chunks of one scale; ``sharding`` is what its info says."""
    folder = store.below(spec.key)
    described = {"driver": "neuroglancer_uint64_sharded", "base": folder.kvstore, "metadata": sharding}
    return ts.KvStore.open(described, context=folder.context).result()


def chunk_key(spec: ArraySpec, box: Box) -> bytes:
    """Key of the chunk that begins where a box of source voxels begins."""
    pieces = zip(box.begin, spec.grid.offset, spec.chunk, strict=True)
    cell = zyx([(begin - offset) // side for begin, offset, side in pieces])
    cells = zyx([math.ceil(size / side) for size, side in zip(spec.grid.shape, spec.chunk, strict=True)])
    return morton_code(cell, cells).to_bytes(8, "big")


def morton_code(cell: Zyx, cells: Zyx) -> int:
    """Compressed Morton code of a chunk: bits of x, y, z interleaved, an axis left out once its bits are used up.

    Source: https://github.com/google/neuroglancer/blob/master/src/datasource/precomputed/volume.md
    ("compressed Morton code").
    """
    code, position = 0, 0
    for bit in range(max(count.bit_length() for count in cells)):
        for index, count in reversed(list(zip(cell, cells, strict=True))):
            if (1 << bit) < count:
                code |= (index >> bit & 1) << position
                position += 1
    return code
