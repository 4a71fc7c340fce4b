"""What a catalog file says, as pydantic models: the only place where YAML becomes types.

Triples in YAML are (x, y, z), the field's usual order.
"""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date
from functools import cached_property
from itertools import product
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
from emcatalog.geometry import AXES, Grid, NmBox, ZyxNm, norm_bbox, norm_resolution, reverse
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


def _entry_name(name: str) -> str:
    if not re.fullmatch(r"\w[\w\-]*", name, re.ASCII):
        raise ValueError("an entry's name is letters, digits, _ and -")
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
EntryName = Annotated[str, AfterValidator(_entry_name)]

_TEMPLATE: Final = re.compile(r"\{\{\s*([A-Za-z_]\w*)\s*\}\}")

_MOST_COMBINATIONS: Final = 1000
"""Of the values of an entry's parameters: each is checked when a catalog is opened."""

_INTAKES_OWN: Final = frozenset({"CATALOG_DIR", "metadata", "path", "name", "self", "cache", "plugin", "persist"})
"""Names that a parameter must not take: Intake gives them a meaning (``_create_open_args`` in its catalog/local.py)."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ChannelModel(_Strict):
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


class VolumeArguments(_Strict):
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
        if self.bbox is None:
            return None
        return norm_bbox(self.bbox, self.units, reverse(self.voxel_size))

    @cached_property
    def resolution_nm(self) -> ZyxNm:
        """The voxel size to read at, (z, y, x) in nm.

        Raises:
            ArgumentError: not a length.
        """
        return reverse(self.voxel_size) if self.resolution is None else norm_resolution(self.resolution)


class EntryMetadata(BaseModel):
    """What a person asks about a dataset before using it."""

    model_config = ConfigDict(extra="allow", frozen=True)

    title: str
    organism: str
    tissue: str
    modality: str
    licence: str
    citation: str
    doi: str | None = None
    homepage: str | None = None
    sources: list[str] = Field(min_length=1)
    """Where the declared numbers come from."""


class ParameterModel(_Strict):
    """A choice that fills a ``{{ name }}`` template.

    Text alone: Intake makes letters of a string for a list, and keys of a mapping.
    """

    description: str
    type: Literal["str"]
    default: str
    allowed: list[str] = Field(min_length=1)


class EntryModel(_Strict):
    """One entry of a catalog file."""

    driver: Literal["em_volume", "em_catalog", "yaml_file_cat"]
    description: str
    args: dict[str, Any]
    parameters: dict[str, ParameterModel] = {}
    metadata: dict[str, Any] = {}


class CatalogModel(_Strict):
    """A catalog file: Intake's version 1 form, as far as emcatalog trusts it."""

    sources: dict[EntryName, EntryModel]
    metadata: dict[str, Any] = {}
    name: str | None = None
    description: str | None = None


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
        raise kind(_sentence(first)) from error
    # Touching them reports a user's mistake at the call, not at the first read.
    _ = parsed.chosen, parsed.box_nm, parsed.resolution_nm
    return parsed


def check_catalog(data: object, origin: str) -> CatalogModel:
    """Hold a parsed catalog file against the models, for every value that its parameters allow.

    Args:
        data: what the YAML holds.
        origin: the file, for messages.

    Raises:
        CatalogError: the message names file, entry and key.
    """
    if not isinstance(data, Mapping):
        held = "is empty" if data is None else f"holds {type(data).__name__} {data!r:.40}"
        raise CatalogError(f"{origin} {held}; a catalog is a mapping with the key 'sources'")
    try:
        model = CatalogModel.model_validate(data)
    except ValidationError as error:
        raise CatalogError(f"{origin}: {_sentence(error.errors()[0])}") from error
    if "parameters" in model.metadata:
        raise CatalogError(f"{origin}: metadata.parameters: parameters belong to an entry")
    if model.metadata.get("version", 1) != 1:
        raise CatalogError(f"{origin}: metadata.version: a catalog is written in Intake's version 1")
    for name, entry in model.sources.items():
        _check_parameters(entry, f"{origin}: sources.{name}")
        _check_templates(entry, f"{origin}: sources.{name}")
        if entry.driver == "em_volume":
            _check_volume(entry, f"{origin}: sources.{name}")
        else:
            _check_subcatalog(entry, f"{origin}: sources.{name}")
    return model


def _check_volume(entry: EntryModel, where: str) -> None:
    for key in ("cache_dir", "offline"):
        if key in entry.args:
            raise CatalogError(f"{where}.args.{key}: a caller's choice, which a catalog must not make")
    try:
        EntryMetadata.model_validate(entry.metadata)
    except ValidationError as error:
        raise CatalogError(f"{where}.metadata.{_sentence(error.errors()[0])}") from error
    for values in product(*(parameter.allowed for parameter in entry.parameters.values())):
        chosen = dict(zip(entry.parameters, values, strict=True))
        try:
            norm_arguments(_render(entry.args, chosen))
        except (ArgumentError, CatalogError) as error:
            with_values = f" (with {chosen})" if chosen else ""
            raise CatalogError(f"{where}.args{with_values}: {error}") from error


def _check_subcatalog(entry: EntryModel, where: str) -> None:
    path = entry.args.get("path")
    if (
        set(entry.args) != {"path"}
        or not isinstance(path, str)
        or not re.fullmatch(r"\{\{\s*CATALOG_DIR\s*\}\}/\w[\w\-]*\.ya?ml", path, re.ASCII)
    ):
        raise CatalogError(
            f"{where}.args: a sub-catalog is a file beside this one, and nothing else is said of it:"
            " path: '{{ CATALOG_DIR }}/x.yaml'"
        )


def _check_parameters(entry: EntryModel, where: str) -> None:
    """Intake runs ``env(...)`` and ``shell(...)`` in a default, and lets a parameter stand in for names of its own."""
    used = {name for _, text in _texts(entry.args, f"{where}.args") for name in _TEMPLATE.findall(text)}
    for name, parameter in entry.parameters.items():
        key = f"{where}.parameters.{name}"
        is_word_of_jinja = keyword.iskeyword(name) or keyword.iskeyword(name.capitalize())  # true, none
        if name in _INTAKES_OWN or name in VolumeArguments.model_fields or is_word_of_jinja:
            raise CatalogError(f"{key}: the name has another meaning; choose one that is not an argument")
        for text in (parameter.default, *parameter.allowed, parameter.description):
            if "{" in text or re.search(r"(env|shell)\s*\(", text):
                raise CatalogError(f"{key}: {text!r} is not plain text")
        if parameter.default not in parameter.allowed:
            raise CatalogError(f"{key}: the default {parameter.default!r} is not among the allowed")
        if name not in used:
            raise CatalogError(f"{key}: no template uses it, so Intake would swallow its value")
    if math.prod(len(parameter.allowed) for parameter in entry.parameters.values()) > _MOST_COMBINATIONS:
        raise CatalogError(f"{where}.parameters: more than {_MOST_COMBINATIONS} combinations of their values")


def _check_templates(entry: EntryModel, where: str) -> None:
    """Intake renders with an unsandboxed Jinja: allow plain names of parameters, and nothing that computes."""
    for key, text in (*_texts(entry.args, f"{where}.args"), *_texts(entry.metadata, f"{where}.metadata")):
        rest = _TEMPLATE.sub("\0", text)
        unknown = set(_TEMPLATE.findall(text)) - set(entry.parameters) - {"CATALOG_DIR"}
        if re.search(r"\{[{%#\0]|[\0}%#]\}", rest) or unknown:
            raise CatalogError(
                f"{key}: {text!r}: only {{{{ name }}}} templates are allowed, of CATALOG_DIR and the entry's parameters"
                f" ({listing(entry.parameters)})"
            )


def _texts(value: object, key: str) -> Iterator[tuple[str, str]]:
    """Every text in a value, keys of mappings among them, with the key under which it stands.

    Raises:
        CatalogError: a value of another type than JSON and dates have. A YAML set, for one, is rendered by Intake, and
            would pass by unseen.
    """
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, part in value.items():
            if not isinstance(name, str):
                raise CatalogError(f"{key}: the key {name!r} is not text; quote it")
            yield key, name
            yield from _texts(part, f"{key}.{name}")
    elif isinstance(value, (list, tuple)):
        for index, part in enumerate(value):
            yield from _texts(part, f"{key}.{index}")
    elif value is not None and not isinstance(value, (bool, int, float, date)):
        raise CatalogError(f"{key}: a catalog holds text, numbers, dates, lists and mappings, not {value!r:.80}")


def _render(value: Any, chosen: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _TEMPLATE.sub(lambda match: chosen.get(match[1], match[0]), value)
    if isinstance(value, Mapping):
        return {key: _render(part, chosen) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_render(part, chosen) for part in value]
    return value


def _sentence(error: Any) -> str:
    *above, last = error["loc"] or ("",)
    key = ".".join(str(part) for part in (*above, last) if part != "[key]")
    match error["type"]:
        case "extra_forbidden":
            return f"{key}: there is no such key.{suggest(str(last), _known_keys())}"
        case "missing":
            return f"{key}: it is missing"
    return f"{key}: {error['msg'].removeprefix('Value error, ')}, not {error['input']!r:.80}"


def _known_keys() -> set[str]:
    models = (CatalogModel, EntryModel, ParameterModel, VolumeArguments, ChannelModel, StorageOptions)
    return {key for model in models for key in model.model_fields}
