"""What a catalog file says, as pydantic models: the only place where YAML becomes types.

Triples in YAML are (x, y, z), the field's usual order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from numbers import Integral
from os import PathLike
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from emcatalog.errors import (
    ArgumentError,
    CatalogError,
    NoVariantError,
    UnknownArgumentError,
    listing,
    suggest,
)
from emcatalog.geometry import AXES, Grid, NmBox, ZyxNm, check_units, norm_bbox, norm_resolution, reverse
from emcatalog.locations import STACKS, STORED_AXES, Location, StorageOptions, parse_location


def _cube(size: object) -> object:
    return (size, size, size) if isinstance(size, (int, float)) and not isinstance(size, bool) else size


def _path(path: object) -> object:
    return str(path) if isinstance(path, PathLike) else path


def _address(url: str) -> str:
    parse_location(url)
    return url


def _axes(axes: str) -> str:
    if sorted(axes) != sorted(STORED_AXES):
        raise ValueError("axes are the letters x, y and z, each once, as in 'yxz'")
    return axes


def choose_variant(values: object) -> object:
    """A mapping with ``variant`` and ``variants``, as the variant that was chosen laid over the rest of its keys."""
    if not isinstance(values, Mapping) or "variants" not in values:
        return values
    rest = {key: value for key, value in values.items() if key not in ("variant", "variants")}
    variants, chosen = values["variants"], values.get("variant")
    if not isinstance(variants, Mapping) or not all(isinstance(one, Mapping) for one in variants.values()):
        raise ValueError("variants is a mapping of a name to keys of the channel")
    if not isinstance(chosen, str):
        raise ValueError(f"variant {chosen!r} is not among {listing(variants)}")
    if chosen not in variants:
        there = listing(variants)
        facts = {"chosen": repr(chosen), "there": there}
        raise PydanticCustomError(_NO_VARIANT, "there is no {chosen}; there are {there}", facts)
    return {**rest, **variants[chosen]}


def _box_and_units(box: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """A box of the catalog, which says itself what it is in."""
    return {axis: pair for axis, pair in box.items() if axis != "units"}, box.get("units", "voxel")


def _box(box: dict[str, Any]) -> dict[str, Any]:
    bare, units = _box_and_units(box)
    norm_bbox(bare, units, (1.0, 1.0, 1.0))
    return box


def _channel_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) or name in AXES:
        raise ValueError("a channel's name is letters, digits and _, and not that of an axis")
    return name


_NO_VARIANT: Final = "no_variant"
"""Type of pydantic's error for what is a caller's mistake and not the catalog's."""

Kind = Literal["image", "instances", "semantic", "mask"]
Dtype = Literal[
    "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64"
]  # fmt: skip
_Length = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
_Size = Annotated[int, Field(gt=0, strict=True)]
TYPICAL_RATIO: Final = {
    "raw": 1.0, "jpeg": 0.17, "jxl": 0.12, "png": 0.7, "compressed_segmentation": 0.01, "blosc": 0.7, "gzip": 0.7,
    "zlib": 0.7, "bz2": 0.6, "bzip2": 0.6, "xz": 0.6, "zstd": 0.7, "tiff": 1.1, "png stack": 0.02,
}  # fmt: skip
"""Stored bytes for a byte of voxels by (the first word of) an encoding, for estimates only: FIB-25 at 8 nm gave 0.17
(jpeg) and 0.005 (labels); a liver slice of 800 MB is stored in 880 MB of LZW."""

_LENGTH: Final = {"type": "number", "exclusiveMinimum": 0}
_CUBE: Final = {"anyOf": [_LENGTH, {"type": "array", "items": _LENGTH, "minItems": 3, "maxItems": 3}]}
XyzNm = Annotated[tuple[_Length, _Length, _Length], BeforeValidator(_cube), WithJsonSchema(_CUBE)]
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


class Strict(BaseModel):
    """A model that knows all its keys, and does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ChannelModel(Strict):
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
    shape: tuple[_Size, _Size, _Size] | None = None
    """Voxels of the finest scale; left out where it is not confirmed."""
    offset: Xyz | None = None
    """First voxel of the finest scale; for a stack, its z is the number of the first slice. Default: 0, 0, 0."""
    num_channels: _Size | None = None
    """Channels, where the volume has an axis of them."""
    scales: tuple[XyzNm, ...] = ()
    """Voxel sizes that exist; a number stands for a cube. Default: the finest alone."""
    chunk: tuple[_Size, _Size, _Size] | None = None
    """Voxels of a stored chunk."""
    encoding: str | None = None
    """How chunks are stored."""
    stored_bytes: _Size | None = None
    """On the remote, all scales; left out where nobody says."""
    source: str = Field(min_length=1)
    """Where these numbers come from, or ``not confirmed``."""
    unconfirmed: str | None = None
    """What about the address is not confirmed: shown, and said where reading fails."""
    note: str | None = None
    """What a user must know."""
    storage_options: StorageOptions = StorageOptions()

    @model_validator(mode="before")
    @classmethod
    def _choose_variant(cls, values: object) -> object:
        """Merge the variant that the entry's parameter chose (another release, another experiment) over the rest."""
        return choose_variant(values)

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


class VolumeArguments(Strict):
    """Arguments of an ``em_volume`` entry: what the catalog declares, and what a caller may change."""

    volumes: dict[ChannelName, ChannelModel] = Field(min_length=1)
    """Every channel, by name."""
    voxel_size: XyzNm
    """Nominal voxel size, nm: what a box in voxels is counted in; a number stands for a cube."""
    bbox: Annotated[Any, BeforeValidator(choose_variant)] = None
    """The box; None is the whole extent."""
    units: Any = "voxel"
    """Of the box: ``voxel`` or ``nm``."""
    splits: Splits = {}
    """Sets of boxes with a name, such as ``train`` and ``val``: in voxels, or in the ``units`` that a box names."""
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
    offline: bool | None = None
    """Answer from the mirror alone. Default: ``EMCATALOG_OFFLINE``."""
    cache_dir: Annotated[str, BeforeValidator(_path), Field(min_length=1)] | None = None
    """Folder or URL of the mirror. Default: ``EMCATALOG_CACHE``."""

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

    def with_channels(self, names: Sequence[str]) -> VolumeArguments:
        """The same arguments for other channels of the entry."""
        same = {key: getattr(self, key) for key in VolumeArguments.model_fields}
        return VolumeArguments.model_validate({**same, "channels": list(names)})

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
        return [_box_and_units(box) for box in self.splits[split]]

    @cached_property
    def box_nm(self) -> NmBox | None:
        """The box in space, or None for the whole extent.

        Raises:
            ArgumentError: a box or a unit that cannot be used.
        """
        check_units(self.units)
        if self.bbox is None:
            return None
        bbox, units = self.bbox, self.units
        if isinstance(bbox, Mapping) and "units" in bbox:
            # The entry's own box says what it is in: a caller who gives units alone would have it taken for another.
            bbox, own = _box_and_units(bbox)
            if own != units:
                raise ArgumentError(f"units={units!r} without a bbox: this one is in units of {own!r}; give both")
        return norm_bbox(bbox, units, reverse(self.voxel_size))

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


def norm_arguments(arguments: Mapping[str, Any]) -> VolumeArguments:
    """Validate the arguments of an ``em_volume`` source.

    Raises:
        UnknownArgumentError: an argument that there is not.
        ArgumentError: a caller's argument that cannot be used.
        CatalogError: a declaration of the catalog that is wrong; the message names the key.
    """
    for name in arguments:
        if name not in VolumeArguments.model_fields:
            known = [
                field for field in VolumeArguments.model_fields if field not in ("volumes", "voxel_size", "splits")
            ]
            raise UnknownArgumentError(
                f"there is no argument {name!r}; there are {listing(known)}, and the entry's own parameters."
                f"{suggest(name, known)}"
            )
    try:
        parsed = VolumeArguments.model_validate(dict(arguments))
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == _NO_VARIANT:
            raise NoVariantError(sentence(first)) from error
        kind = CatalogError if first["loc"][:1] in (("volumes",), ("voxel_size",), ("splits",)) else ArgumentError
        raise kind(sentence(first)) from error
    # Touching them reports a user's mistake at the call, not at the first read.
    _ = parsed.chosen, parsed.box_nm, parsed.resolution_nm, parsed.channel_index, parsed.nearest
    if parsed.consecutive and not any(model.kind == "instances" for model in parsed.chosen.values()):
        raise ArgumentError(f"consecutive=True, and none of {listing(parsed.chosen)} holds instances; leave it away")
    return parsed


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


def sentence(error: Any, *models: type[BaseModel]) -> str:
    """One of pydantic's errors as a message that begins with the key.

    Args:
        error: of ``ValidationError.errors()``.
        models: whose keys may have been meant where there is no such key; those of a volume are always among them.
    """
    *above, last = error["loc"] or ("",)
    key = ".".join(str(part) for part in (*above, last) if part != "[key]")
    match error["type"]:
        case "extra_forbidden":
            models = (*models, VolumeArguments, ChannelModel, StorageOptions)
            known = {field for model in models for field in model.model_fields}
            return f"{key}: there is no such key.{suggest(str(last), known)}"
        case _ if error["type"] == _NO_VARIANT:
            return f"{key}: {error['msg']}"
        case "missing":
            return f"{key}: it is missing"
    message = f"{key}: {error['msg'].removeprefix('Value error, ')}"
    # A whole mapping says nothing of what is wrong in it.
    return message if isinstance(error["input"], Mapping) else f"{message}, not {error['input']!r:.80}"
