"""Precomputed chunks in codecs that TensorStore lacks: jxl (JPEG XL), crackle, compresso, fpzip, kempressed.

cloud-volume decodes; the bytes come through the same store as everything else, so that mirrors, retries, credentials
and the meaning of an absent chunk are the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event
from typing import Any, Final

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from emcatalog.errors import MissingExtraError, SourceCorruptError
from emcatalog.formats.sharded import chunk_key, open_sharded
from emcatalog.formats.volume import ArraySpec, Volume, virtual_store
from emcatalog.geometry import Box
from emcatalog.locations import Location
from emcatalog.stores import Store, wait

CODEC_NAMES: Final = {
    "jxl": "jxl",
    "crackle": "crackle",
    "compresso": "compresso",
    "fpzip": "fpzip",
    "kempressed": "kempressed",
}
"""Encoding in an info document -> encoding in cloud-volume."""

_AT_ONCE: Final = 32
"""Chunks that are asked for at one time, as many as TensorStore's http driver allows requests."""

ReadChunk = Callable[[Box], bytes | None]
"""The stored bytes of the chunk that covers this box; None where the source has none."""


def open_scale(location: Location, spec: ArraySpec, sharding: dict[str, Any] | None, store: Store) -> Volume:
    """Open one scale for reading.

    Raises:
        SourceCorruptError: an encoding that nobody here knows.
        MissingExtraError: cloud-volume is not installed.
    """
    if spec.encoding not in CODEC_NAMES:
        raise SourceCorruptError(f"{location}: chunks are stored as {spec.encoding!r}, which no codec here decodes")
    _import_decoder(spec.encoding)
    read = _sharded_reader(spec, sharding, store) if sharding else _unsharded_reader(store.below(spec.key))
    what = f"{location}, scale {spec.key}"
    stop = Event()
    strict, lenient = (_virtual(spec, read, what, stop, fill=fill) for fill in (False, True))
    return Volume(spec, strict, lenient, stop=stop)


def _import_decoder(encoding: str) -> Callable[..., NDArray[Any]]:
    try:
        from cloudvolume import chunks
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"chunks stored as {encoding!r} are decoded by cloud-volume: pip install 'emcatalog[codecs]'"
        ) from error
    decode: Callable[..., NDArray[Any]] = chunks.decode
    return decode


def _virtual(spec: ArraySpec, read: ReadChunk, what: str, stop: Event, *, fill: bool) -> ts.TensorStore:
    def read_chunk(box: Box) -> NDArray[Any]:
        stored = read(box)
        if stored is not None:
            return _decode(stored, spec, box, what)
        if not fill:
            raise ValueError(f"NOT_FOUND: chunk {box} of {what} is missing")
        return np.zeros(box.shape, spec.dtype)

    return virtual_store(spec, read_chunk, stop, at_once=_AT_ONCE)


def _decode(stored: bytes, spec: ArraySpec, box: Box, what: str) -> NDArray[Any]:
    xyz = box.shape[::-1]
    decode = _import_decoder(spec.encoding)
    if not stored:  # cloud-volume takes nothing for a chunk of zeros
        raise SourceCorruptError(f"{what}: the chunk {box} does not decode as {spec.encoding}: it has 0 bytes")
    try:
        voxels = decode(stored, CODEC_NAMES[spec.encoding], shape=(*xyz, 1), dtype=np.dtype(spec.dtype))
        return voxels.reshape(xyz, order="F").astype(spec.dtype, copy=False).T
    except Exception as error:  # each codec raises its own kinds
        raise SourceCorruptError(f"{what}: the chunk {box} does not decode as {spec.encoding}: {error}") from error


def _unsharded_reader(folder: Store) -> ReadChunk:
    kvstore = folder.open()

    def read(box: Box) -> bytes | None:
        x0, x1, y0, y1, z0, z1 = box.xyz()
        answer = wait(kvstore.read(f"{x0}-{x1}_{y0}-{y1}_{z0}-{z1}"))
        return answer.value if answer.state == "value" else None

    return read


def _sharded_reader(spec: ArraySpec, sharding: dict[str, Any], store: Store) -> ReadChunk:
    opened = time.time()
    chunks = open_sharded(spec, sharding, store)

    def read(box: Box) -> bytes | None:
        answer = wait(chunks.read(chunk_key(spec, box), staleness_bound=opened))
        return answer.value if answer.state == "value" else None

    return read
