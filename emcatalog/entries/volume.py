"""What a catalog file says of volumes, and what a caller may ask of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from numbers import Integral
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from emcatalog.entries.common import (
    Arguments,
    Declared,
    Size,
    XyzNm,
    box_and_units,
    choose_variant,
    norm_box,
)
from emcatalog.entries.table import TableModel
from emcatalog.errors import ArgumentError, UnknownArgumentError, listing, suggest
from emcatalog.geometry import AXES, Grid, NmBox, ZyxNm, norm_bbox, norm_resolution, reverse
from emcatalog.locations import STACKS, STORED_AXES, Location, StorageOptions, parse_location


def _address(url: str) -> str:
    parse_location(url)
    return url


def _axes(axes: str) -> str:
    if sorted(axes) != sorted(STORED_AXES):
        raise ValueError("axes are the letters x, y and z, each once, as in 'yxz'")
    return axes


def _box(box: dict[str, Any]) -> dict[str, Any]:
    bare, units = box_and_units(box)
    norm_bbox(bare, units, (1.0, 1.0, 1.0))
    return box


def _channel_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) or name in AXES:
        raise ValueError("a channel's name is letters, digits and _, and not that of an axis")
    return name


Kind = Literal["image", "instances", "semantic", "mask"]
Dtype = Literal[
    "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64"
]  # fmt: skip
TYPICAL_RATIO: Final = {
    "raw": 1.0, "jpeg": 0.17, "jxl": 0.12, "png": 0.7, "compressed_segmentation": 0.01, "blosc": 0.7, "gzip": 0.7,
    "zlib": 0.7, "bz2": 0.6, "bzip2": 0.6, "xz": 0.6, "zstd": 0.7, "tiff": 1.1, "png stack": 0.02,
}  # fmt: skip
"""Stored bytes for a byte of voxels by (the first word of) an encoding, for estimates only: FIB-25 at 8 nm gave 0.17
(jpeg) and 0.005 (labels); a liver slice of 800 MB is stored in 880 MB of LZW."""

_Index = Annotated[int, Field(strict=True)]
Xyz = tuple[_Index, _Index, _Index]
_BOXES: Final = {"type": "array", "minItems": 1, "items": {"type": "object"}}
_SPLITS: Final = {
    "type": "object",
    "properties": {
        "variant": {"type": "string"},
        "variants": {"type": "object", "additionalProperties": {"type": "object", "additionalProperties": _BOXES}},
    },
    "additionalProperties": _BOXES,
}
Box = Annotated[dict[str, Any], AfterValidator(_box)]
Splits = Annotated[
    dict[str, Annotated[list[Box], Field(min_length=1)]], BeforeValidator(choose_variant), WithJsonSchema(_SPLITS)
]
ChannelName = Annotated[str, AfterValidator(_channel_name)]


class ChannelModel(Declared):
    """One volume of an entry, as far as it can be known without network."""

    url: Annotated[str, AfterValidator(_address)]
    """``precomputed://gs://bucket/path``, ``n5://``, ``zarr://``; a stack of slices is ``tiff://.../{z:03d}.tif``."""
    kind: Kind
    """What the voxels mean."""
    dtype: Dtype
    """NumPy's name."""
    voxel_size: XyzNm
    """Of the finest scale, nm; a number stands for a cube."""
    voxel_size_from: Literal["source", "catalog"] = "source"
    """Where the voxel size comes from: ``catalog`` where the source has none, or tells lengths in another space
    (that of expanded tissue). Scales and offsets of the source are then counted in voxels."""
    axes: Annotated[str, AfterValidator(_axes)] = STORED_AXES
    """What the stored x, y and z are in space: ``yxz`` where x and y are swapped. All other keys are in space."""
    shape: tuple[Size, Size, Size] | None = None
    """Voxels of the finest scale; left out where it is not confirmed."""
    offset: Xyz | None = None
    """First voxel of the finest scale; for a stack, its z is the number of the first slice. Default: 0, 0, 0."""
    num_channels: Size | None = None
    """Channels, where the volume has an axis of them."""
    scales: tuple[XyzNm, ...] = ()
    """Voxel sizes that exist; a number stands for a cube. Default: the finest alone."""
    chunk: tuple[Size, Size, Size] | None = None
    """Voxels of a stored chunk."""
    encoding: str | None = None
    """How chunks are stored."""
    stored_bytes: Size | None = None
    """On the remote, all scales; left out where nobody says."""
    storage_options: StorageOptions = StorageOptions()

    @model_validator(mode="after")
    def _finest_scale_is_the_first(self) -> ChannelModel:
        """Two keys say how large the finest voxels are: they must not differ."""
        if self.scales and self.scales[0] != self.voxel_size:
            raise ValueError(f"scales begin with the finest, which is the voxel_size, {self.voxel_size}")
        return self

    @model_validator(mode="after")
    def _stack_says_its_slices(self) -> ChannelModel:
        """Nothing but the catalog knows how many slices a stack has."""
        if self.location.format in STACKS and self.shape is None:
            raise ValueError("a stack of slices needs its shape: nothing else says how many there are")
        return self

    @property
    def location(self) -> Location:
        """The address, taken apart."""
        return replace(parse_location(self.url), endpoint=self.storage_options.endpoint_url, axes=self.axes)

    @property
    def resolutions_nm(self) -> tuple[ZyxNm, ...]:
        """Voxel sizes that exist, (z, y, x) in nm, finest first."""
        return tuple(reverse(size) for size in self.scales or (self.voxel_size,))

    @property
    def grid(self) -> Grid | None:
        """The grid of the finest scale as declared, or None where the extent is not confirmed."""
        if self.shape is None:
            return None
        (x, y, z), (ox, oy, oz) = self.shape, self.offset or (0, 0, 0)
        return Grid((z, y, x), reverse(self.voxel_size), (oz, oy, ox))


class VolumeArguments(Arguments):
    """Arguments of an ``em_volume`` entry."""

    declared: ClassVar[tuple[str, ...]] = ("volumes", "voxel_size", "splits", "annotations")

    volumes: dict[ChannelName, ChannelModel] = Field(min_length=1)
    """Every channel, by name."""
    voxel_size: XyzNm
    """Nominal voxel size, nm: what a box in voxels is counted in; a number stands for a cube."""
    bbox: Annotated[Any, BeforeValidator(choose_variant)] = None
    """The box; None is the whole extent."""
    units: Any = "voxel"
    """Of the box: ``voxel`` or ``nm``."""
    splits: Splits = {}  # noqa: RUF012  # pydantic copies it
    """Sets of boxes with a name, such as ``train`` and ``val``: in voxels, or in the ``units`` that a box names."""
    annotations: list[TableModel] = Field(default_factory=list)
    """Tables that say of each instance what it is; each names its ``key``, the column of the instances' ids."""
    resolution: Any = None
    """Voxel size to read at, nm: a number or (x, y, z). Default: the nominal one."""
    channels: Any = None
    """Names of the channels to read. Default: all."""
    channel: Any = None
    """Index along the axis of channels of the volumes that have one, or ``all``, the default."""
    align: Any = None
    """``nearest`` puts channels of other voxel sizes on one grid: each voxel takes the value at its centre."""
    consecutive: bool = False
    """Number the instances that are read 1, 2, 3, ... in place of their ids; 0 stays 0."""
    clip: bool = False
    """Cut a box that sticks out down to what exists, instead of refusing it."""

    @field_validator("annotations")
    @classmethod
    def _annotations_have_keys(cls, tables: list[TableModel]) -> list[TableModel]:
        """Without it nobody knows whose class a row is."""
        if any(table.key is None for table in tables):
            raise ValueError("a table that annotates instances names its key, the column of their ids")
        return tables

    @cached_property
    def chosen(self) -> dict[str, ChannelModel]:
        """The channels to read, by name.

        Raises:
            ArgumentError: a name that the entry does not have, or none at all.
        """
        if self.channels is None:
            return self.volumes
        names = [self.channels] if isinstance(self.channels, str) else self.channels
        if not isinstance(names, (list, tuple)) or not names:
            raise ArgumentError(f"channels={self.channels!r} is not a list of names; there are {listing(self.volumes)}")
        for name in names:
            if not isinstance(name, str) or name not in self.volumes:
                raise ArgumentError(
                    f"there is no channel {name!r}; there are {listing(self.volumes)}."
                    f"{suggest(str(name), self.volumes)}"
                )
        return {name: self.volumes[name] for name in names}

    @property
    def declarations(self) -> Mapping[str, Declared]:
        """The volumes, by name."""
        return self.volumes

    def check(self) -> None:
        """Report what is wrong with a caller's choice at the call, not at the first read.

        Raises:
            ArgumentError: it cannot be used.
        """
        _ = self.chosen, self.box_nm, self.resolution_nm, self.channel_index, self.nearest
        if self.consecutive and not any(model.kind == "instances" for model in self.chosen.values()):
            raise ArgumentError(f"consecutive=True, and none of {listing(self.chosen)} holds instances; leave it away")

    def with_channels(self, names: Sequence[str]) -> VolumeArguments:
        """The same arguments for other channels of the entry."""
        return self.having(channels=list(names))

    def one(self, name: str | None) -> str:
        """A channel's name; that of the only one that is read where none is given.

        Raises:
            ArgumentError: there is no such channel, or several.
        """
        if name is None and len(self.chosen) == 1:
            return next(iter(self.chosen))
        if name not in self.volumes:
            known = self.volumes
            raise ArgumentError(f"channel={name!r}: name one of {listing(known)}.{suggest(str(name), known)}")
        return name

    def boxes_of(self, split: str) -> list[tuple[dict[str, Any], str]]:
        """Boxes of a split, and their units.

        Raises:
            ArgumentError: there is no such split.
        """
        if split not in self.splits:
            raise ArgumentError(
                f"there is no split {split!r}; there are {listing(self.splits)}.{suggest(str(split), self.splits)}"
            )
        return [box_and_units(box) for box in self.splits[split]]

    @cached_property
    def box_nm(self) -> NmBox | None:
        """The box in space, or None for the whole extent.

        Raises:
            ArgumentError: a box or a unit that cannot be used.
        """
        return norm_box(self.bbox, self.units, reverse(self.voxel_size))

    @cached_property
    def channel_index(self) -> int | None:
        """The one channel to read of volumes that have several, or None for all of them.

        Raises:
            ArgumentError: not an index, or one that no volume has.
        """
        if self.channel is None or self.channel == "all":
            return None
        named = [self.channel] if isinstance(self.channel, str) else self.channel
        if isinstance(named, (list, tuple)) and any(name in self.volumes for name in named):
            raise UnknownArgumentError(f"channel={self.channel!r} is not an index. Did you mean 'channels'?")
        if not isinstance(self.channel, Integral) or isinstance(self.channel, bool) or self.channel < 0:
            raise ArgumentError(f"channel={self.channel!r} is not the index of a channel: give 0, 1, ... or 'all'")
        for name, model in self.chosen.items():
            if model.num_channels is not None:
                check_channel(name, int(self.channel), model.num_channels)
        return int(self.channel)

    @cached_property
    def nearest(self) -> bool:
        """Whether channels that do not stand on one grid are put on it.

        Raises:
            ArgumentError: another word than ``nearest``.
        """
        if self.align not in (None, "nearest"):
            raise ArgumentError(f"align={self.align!r} is not a way to align channels; there is 'nearest'")
        return self.align is not None

    @cached_property
    def resolution_nm(self) -> ZyxNm:
        """The voxel size to read at, (z, y, x) in nm.

        Raises:
            ArgumentError: not a length.
        """
        return reverse(self.voxel_size) if self.resolution is None else norm_resolution(self.resolution)


def typical_ratio(encoding: str | None) -> float:
    """Stored bytes for a byte of voxels, as an estimate."""
    name = encoding or "raw"
    return TYPICAL_RATIO.get(name) or TYPICAL_RATIO.get(name.split()[0], 1.0)


def check_channel(name: str, index: int, count: int) -> None:
    """Refuse a channel that a volume does not have.

    Raises:
        ArgumentError: the message says how many there are.
    """
    if index >= count:
        raise ArgumentError(f"channel={index}: {name} has {count} channels, 0 to {count - 1}; or give channel='all'")
