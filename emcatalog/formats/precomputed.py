"""Neuroglancer's precomputed volumes, sharded or not, through TensorStore.

Format: https://github.com/google/neuroglancer/blob/master/src/datasource/precomputed/volume.md
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import tensorstore as ts
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from emcatalog.errors import SourceCorruptError, SourceMissingError
from emcatalog.formats.documents import Documents
from emcatalog.formats.sharded import chunk_key, open_sharded
from emcatalog.formats.volume import ArraySpec, Volume
from emcatalog.geometry import Box, Grid, Zyx, reverse
from emcatalog.stores import Store, source_errors, wait

TENSORSTORE_ENCODINGS: Final = frozenset({"raw", "jpeg", "png", "compressed_segmentation"})

_Length = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Size = Annotated[int, Field(gt=0)]


Dtype = Literal["uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float32"]


def _lower(name: object) -> object:
    return name.lower() if isinstance(name, str) else name


class ScaleInfo(BaseModel):
    """One scale in an ``info`` document; triples are (x, y, z)."""

    key: str = Field(min_length=1)
    size: tuple[_Size, _Size, _Size]
    resolution: tuple[_Length, _Length, _Length]
    encoding: str
    chunk_sizes: list[tuple[_Size, _Size, _Size]] = Field(min_length=1)
    voxel_offset: tuple[int, int, int] = (0, 0, 0)
    sharding: dict[str, Any] | None = None
    compressed_segmentation_block_size: tuple[int, int, int] | None = None


class Info(BaseModel):
    """The ``info`` document of a volume, as far as reading voxels needs it."""

    data_type: Annotated[Dtype, BeforeValidator(_lower)]
    num_channels: int
    scales: list[ScaleInfo] = Field(min_length=1)
    segment_properties: str | None = None
    """Folder with what the labels are called, relative to the info's own."""


@dataclass(frozen=True, slots=True)
class Precomputed:
    """A volume whose info was read."""

    documents: Documents
    info: Info

    @property
    def scales(self) -> tuple[ArraySpec, ...]:
        """Finest first."""
        return tuple(_array_spec(self.info, scale) for scale in self.info.scales)

    def open_scale(self, index: int) -> Volume:
        """Open one scale for reading.

        Raises:
            SourceError: TensorStore cannot open it.
        """
        location, store = self.documents.location, self.documents.store
        scale, spec = self.info.scales[index], self.scales[index]
        if scale.encoding not in TENSORSTORE_ENCODINGS:
            from emcatalog.formats import foreign_codecs  # cloud-volume is an extra

            return foreign_codecs.open_scale(location, spec, scale.sharding, store)
        with source_errors(f"{location}, scale {spec.key}"):
            lenient = _open(self.info, scale, store, fill=True)
            if scale.sharding is None:
                return Volume(spec, _open(self.info, scale, store, fill=False), lenient)
            # For a sharded volume TensorStore takes fill_missing_data_reads and does not heed it.
            return Volume(spec, lenient, lenient, _sharded_presence(spec, scale.sharding, store))


def read_precomputed(documents: Documents) -> Precomputed:
    """Read the ``info`` document.

    Raises:
        SourceError: it is not there, not readable, or not an info.
    """
    location = documents.location
    (text,) = documents.read("info")
    if text is None:
        raise SourceMissingError(f"{location}: there is no info document; check the address, or EMCATALOG_MIRRORS")
    try:
        info = Info.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the document"
        start = text[:40].decode("utf-8", "replace")
        raise SourceCorruptError(
            f"{location}/info is not the info of a precomputed volume: {key}: {first['msg']} (it begins with {start!r})"
        ) from error
    if info.num_channels != 1:
        raise SourceCorruptError(f"{location} has {info.num_channels} channels; only single-channel volumes are read")
    return Precomputed(documents, info)


def _sharded_presence(spec: ArraySpec, sharding: dict[str, Any], store: Store) -> Callable[[Box], bool]:
    opened = time.time()
    chunks = open_sharded(spec, sharding, store)

    def holds(box: Box) -> bool:
        # The shard's index may be taken from the cache if it was read since the volume was opened.
        return bool(wait(chunks.read(chunk_key(spec, box), staleness_bound=opened)).state == "value")

    return holds


def _open(info: Info, scale: ScaleInfo, store: Store, *, fill: bool) -> ts.TensorStore:
    opened = ts.open(
        {
            "driver": "neuroglancer_precomputed",
            "kvstore": store.kvstore,
            "multiscale_metadata": {
                "data_type": info.data_type,
                "num_channels": 1,
                "type": "segmentation" if scale.encoding == "compressed_segmentation" else "image",
            },
            "scale_metadata": _scale_metadata(scale),
            "fill_missing_data_reads": fill,
            # One open is one fetch: asking for each cached shard index again would cost a request a chunk.
            "recheck_cached_data": "open",
        },
        # The info was read a moment ago; a second read of it would cost another round trip for each channel.
        # An argument and not a member of the spec, where `open=True` would override it.
        assume_metadata=True,
        context=store.context,
    ).result()
    return opened[..., 0].transpose([2, 1, 0])


def _scale_metadata(scale: ScaleInfo) -> dict[str, Any]:
    metadata = {
        "key": scale.key,
        "size": scale.size,
        "resolution": scale.resolution,
        "encoding": scale.encoding,
        "chunk_size": scale.chunk_sizes[0],
        "voxel_offset": scale.voxel_offset,
        "sharding": scale.sharding,
        "compressed_segmentation_block_size": scale.compressed_segmentation_block_size,
    }
    return {key: value for key, value in metadata.items() if value is not None}


def _array_spec(info: Info, scale: ScaleInfo) -> ArraySpec:
    grid = Grid(_zyx(scale.size), reverse(scale.resolution), _zyx(scale.voxel_offset))
    return ArraySpec(scale.key, info.data_type, grid, _zyx(scale.chunk_sizes[0]), scale.encoding)


def _zyx(xyz: Sequence[int]) -> Zyx:
    x, y, z = xyz
    return z, y, x
