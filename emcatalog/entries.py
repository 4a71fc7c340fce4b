"""What a catalog file says, as pydantic models: the only place where YAML becomes types.

Triples in YAML are (x, y, z), the field's usual order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
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

from emcatalog.errors import ArgumentError, CatalogError, UnknownArgumentError, listing, suggest
from emcatalog.geometry import AXES, Grid, NmBox, ZyxNm, check_units, norm_bbox, norm_resolution, reverse
from emcatalog.locations import Location, StorageOptions, parse_location


def _cube(size: object) -> object:
    return (size, size, size) if isinstance(size, (int, float)) and not isinstance(size, bool) else size


def _path(path: object) -> object:
    return str(path) if isinstance(path, PathLike) else path


def _address(url: str) -> str:
    parse_location(url)
    return url


def _channel_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) or name in AXES:
        raise ValueError("a channel's name is letters, digits and _, and not that of an axis")
    return name


Kind = Literal["image", "instances", "semantic", "mask"]
Dtype = Literal[
    "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64"
]  # fmt: skip
_Length = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
_Size = Annotated[int, Field(gt=0, strict=True)]
_LENGTH: Final = {"type": "number", "exclusiveMinimum": 0}
_CUBE: Final = {"anyOf": [_LENGTH, {"type": "array", "items": _LENGTH, "minItems": 3, "maxItems": 3}]}
XyzNm = Annotated[tuple[_Length, _Length, _Length], BeforeValidator(_cube), WithJsonSchema(_CUBE)]
_Index = Annotated[int, Field(strict=True)]
Xyz = tuple[_Index, _Index, _Index]
ChannelName = Annotated[str, AfterValidator(_channel_name)]


class Strict(BaseModel):
    """A model that knows all its keys, and does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ChannelModel(Strict):
    """One volume of an entry, as far as it can be known without network."""

    url: Annotated[str, AfterValidator(_address)]
    """``precomputed://gs://bucket/path``."""
    kind: Kind
    """What the voxels mean."""
    dtype: Dtype
    """NumPy's name."""
    voxel_size: XyzNm
    """Of the finest scale, nm; a number stands for a cube."""
    shape: tuple[_Size, _Size, _Size] | None = None
    """Voxels of the finest scale; left out where it is not confirmed."""
    offset: Xyz = (0, 0, 0)
    """First voxel of the finest scale."""
    scales: tuple[XyzNm, ...] = ()
    """Voxel sizes that exist; a number stands for a cube. Default: the finest alone."""
    chunk: tuple[_Size, _Size, _Size] | None = None
    """Voxels of a stored chunk."""
    encoding: str | None = None
    """How chunks are stored."""
    source: str = Field(min_length=1)
    """Where these numbers come from, or ``not confirmed``."""
    note: str | None = None
    """What a user must know."""
    storage_options: StorageOptions = StorageOptions()

    @model_validator(mode="before")
    @classmethod
    def _choose_variant(cls, values: object) -> object:
        """Merge the variant that the entry's parameter chose (another release, another experiment) over the rest."""
        if not isinstance(values, Mapping) or "variants" not in values:
            return values
        rest = {key: value for key, value in values.items() if key not in ("variant", "variants")}
        variants, chosen = values["variants"], values.get("variant")
        if not isinstance(variants, Mapping) or not all(isinstance(one, Mapping) for one in variants.values()):
            raise ValueError("variants is a mapping of a name to keys of the channel")
        if not isinstance(chosen, str) or chosen not in variants:
            raise ValueError(f"variant {chosen!r} is not among {listing(variants)}")
        return {**rest, **variants[chosen]}

    @property
    def location(self) -> Location:
        """The address, taken apart."""
        return replace(parse_location(self.url), endpoint=self.storage_options.endpoint_url)

    @property
    def resolutions_nm(self) -> tuple[ZyxNm, ...]:
        """Voxel sizes that exist, (z, y, x) in nm, finest first."""
        return tuple(reverse(size) for size in self.scales or (self.voxel_size,))

    @property
    def grid(self) -> Grid | None:
        """The grid of the finest scale as declared, or None where the extent is not confirmed."""
        if self.shape is None:
            return None
        (x, y, z), (ox, oy, oz) = self.shape, self.offset
        return Grid((z, y, x), reverse(self.voxel_size), (oz, oy, ox))


class VolumeArguments(Strict):
    """Arguments of an ``em_volume`` entry: what the catalog declares, and what a caller may change."""

    volumes: dict[ChannelName, ChannelModel] = Field(min_length=1)
    """Every channel, by name."""
    voxel_size: XyzNm
    """Nominal voxel size, nm: what a box in voxels is counted in; a number stands for a cube."""
    bbox: Any = None
    """The box; None is the whole extent."""
    units: Any = "voxel"
    """Of the box: ``voxel`` or ``nm``."""
    resolution: Any = None
    """Voxel size to read at, nm: a number or (x, y, z). Default: the nominal one."""
    channels: Any = None
    """Names of the channels to read. Default: all."""
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
            bbox, own = {axis: pair for axis, pair in bbox.items() if axis != "units"}, bbox["units"]
            if own != units:
                raise ArgumentError(f"units={units!r} without a bbox: this one is in units of {own!r}; give both")
        return norm_bbox(bbox, units, reverse(self.voxel_size))

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
            known = [field for field in VolumeArguments.model_fields if field not in ("volumes", "voxel_size")]
            raise UnknownArgumentError(
                f"there is no argument {name!r}; there are {listing(known)}, and the entry's own parameters."
                f"{suggest(name, known)}"
            )
    try:
        parsed = VolumeArguments.model_validate(dict(arguments))
    except ValidationError as error:
        first = error.errors()[0]
        kind = CatalogError if first["loc"][:1] in (("volumes",), ("voxel_size",)) else ArgumentError
        raise kind(sentence(first)) from error
    # Touching them reports a user's mistake at the call, not at the first read.
    _ = parsed.chosen, parsed.box_nm, parsed.resolution_nm
    return parsed


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
        case "missing":
            return f"{key}: it is missing"
    return f"{key}: {error['msg'].removeprefix('Value error, ')}, not {error['input']!r:.80}"
