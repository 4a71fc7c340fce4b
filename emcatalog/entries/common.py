"""What the arguments of every driver share: the catalog's declarations and a caller's choices, as pydantic models.

The only place where YAML becomes types. Triples in YAML are (x, y, z), the field's usual order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from os import PathLike
from typing import Annotated, Any, ClassVar, Final, Self, get_args

from pydantic import (
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
from emcatalog.geometry import NmBox, ZyxNm, check_units, norm_bbox
from emcatalog.settings import Settings, load_settings


def _cube(size: object) -> object:
    return (size, size, size) if isinstance(size, (int, float)) and not isinstance(size, bool) else size


def _path(path: object) -> object:
    return str(path) if isinstance(path, PathLike) else path


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


def box_and_units(box: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """A box of the catalog, which says itself what it is in."""
    return {axis: pair for axis, pair in box.items() if axis != "units"}, box.get("units", "voxel")


_NO_VARIANT: Final = "no_variant"
"""Type of pydantic's error for what is a caller's mistake and not the catalog's."""


Length = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
Size = Annotated[int, Field(gt=0, strict=True)]
_LENGTH: Final = {"type": "number", "exclusiveMinimum": 0}
_CUBE: Final = {"anyOf": [_LENGTH, {"type": "array", "items": _LENGTH, "minItems": 3, "maxItems": 3}]}
XyzNm = Annotated[tuple[Length, Length, Length], BeforeValidator(_cube), WithJsonSchema(_CUBE)]


class Strict(BaseModel):
    """A model that knows all its keys, and does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Declared(Strict):
    """One thing that an entry offers, as far as it can be known without network."""

    source: str = Field(min_length=1)
    """Where these numbers come from, or ``not confirmed``."""
    unconfirmed: str | None = None
    """What about the address is not confirmed: shown, and said where reading fails."""
    note: str | None = None
    """What a user must know."""

    @model_validator(mode="before")
    @classmethod
    def _choose_variant(cls, values: object) -> object:
        """Merge the variant that the entry's parameter chose (another release, another experiment) over the rest."""
        return choose_variant(values)


class Arguments(Strict):
    """Arguments of an entry: what the catalog declares, and what a caller may change."""

    declared: ClassVar[tuple[str, ...]]
    """The keys that are the catalog's alone."""

    offline: bool | None = None
    """Answer from the cache alone. Default: ``EMCATALOG_OFFLINE``."""
    cache_dir: Annotated[str, BeforeValidator(_path), Field(min_length=1)] | None = None
    """Folder or URL of the cache. Default: ``EMCATALOG_CACHE``."""

    @property
    def declarations(self) -> Mapping[str, Declared]:
        """What the entry offers, by name."""
        (name,) = self.declared
        return {name: getattr(self, name)}

    def check(self) -> None:
        """Report what is wrong with a caller's choice at the call, not at the first read.

        Raises:
            ArgumentError: it cannot be used.
        """

    def having(self, **changes: Any) -> Self:
        """The same arguments with some changed.

        Raises:
            ArgumentError: a value that cannot be used.
        """
        return self.norm({**{name: getattr(self, name) for name in type(self).model_fields}, **changes})

    @property
    def settings(self) -> Settings:
        """The user's settings, with what was chosen here.

        Raises:
            SettingsError: a value that cannot be used.
        """
        return load_settings(cache_dir=self.cache_dir, offline=self.offline)

    @classmethod
    def norm(cls, arguments: Mapping[str, Any]) -> Self:
        """Validate the arguments of a source.

        Raises:
            UnknownArgumentError: an argument that there is not.
            ArgumentError: a caller's argument that cannot be used.
            NoVariantError: a combination of the entry's parameters that does not exist.
            CatalogError: a declaration of the catalog that is wrong; the message names the key.
        """
        for name in arguments:
            if name not in cls.model_fields:
                shared = Arguments.model_fields
                own = [field for field in cls.model_fields if field not in (*cls.declared, *shared)]
                known = [*own, *shared]
                raise UnknownArgumentError(
                    f"there is no argument {name!r}; there are {listing(known)}, and the entry's own parameters."
                    f"{suggest(name, known)}"
                )
        try:
            parsed = cls.model_validate(dict(arguments))
        except ValidationError as error:
            first = error.errors()[0]
            if first["type"] == _NO_VARIANT:
                raise NoVariantError(sentence(first, cls)) from error
            kind = CatalogError if first["loc"][:1] in {(name,) for name in cls.declared} else ArgumentError
            raise kind(sentence(first, cls)) from error
        parsed.check()
        return parsed


def norm_box(bbox: Any, units: Any, voxel_size_nm: ZyxNm) -> NmBox | None:
    """A caller's box in space, or None for the whole extent.

    Raises:
        ArgumentError: a box or a unit that cannot be used.
    """
    check_units(units)
    if bbox is None:
        return None
    if isinstance(bbox, Mapping) and "units" in bbox:
        # The entry's own box says what it is in: a caller who gives units alone would have it taken for another.
        bbox, own = box_and_units(bbox)
        if own != units:
            raise ArgumentError(f"units={units!r} without a bbox: this one is in units of {own!r}; give both")
    return norm_bbox(bbox, units, voxel_size_nm)


def sentence(error: Any, *models: type[BaseModel]) -> str:
    """One of pydantic's errors as a message that begins with the key.

    Args:
        error: of ``ValidationError.errors()``.
        models: whose keys, and those of the models in them, may have been meant where there is no such key.
    """
    *above, last = error["loc"] or ("",)
    key = ".".join(str(part) for part in (*above, last) if part != "[key]")
    match error["type"]:
        case "extra_forbidden":
            return f"{key}: there is no such key.{suggest(str(last), set(_keys(*models)))}"
        case _ if error["type"] == _NO_VARIANT:
            return f"{key}: {error['msg']}"
        case "missing":
            return f"{key}: it is missing"
    message, given = f"{key}: {error['msg'].removeprefix('Value error, ')}", f"{error['input']!r:.80}"
    is_said = error["type"] == "value_error" and given in message
    # A whole mapping says nothing of what is wrong in it.
    return message if isinstance(error["input"], Mapping) or is_said else f"{message}, not {given}"


def _keys(*models: Any) -> Iterator[str]:
    """Names of the fields of models, and of the models in their annotations."""
    for model in models:
        if isinstance(model, type) and issubclass(model, BaseModel):
            yield from model.model_fields
            yield from _keys(*(field.annotation for field in model.model_fields.values()))
        else:
            yield from _keys(*get_args(model))
