"""What a catalog file may say, and nothing else: Intake's version 1 form, as far as a file from elsewhere is trusted.

Intake renders templates with an unsandboxed Jinja and opens whatever driver a file names, so that a file can run code.
"""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date
from itertools import product
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from emcatalog.entries import ARGUMENTS
from emcatalog.entries.common import Strict, sentence
from emcatalog.errors import ArgumentError, CatalogError, NoVariantError, listing


def _entry_name(name: str) -> str:
    if not re.fullmatch(r"\w[\w\-]*", name, re.ASCII):
        raise ValueError("an entry's name is letters, digits, _ and -")
    return name


def _driver(name: str) -> str:
    if name not in (*ARGUMENTS, *CATALOGS):
        raise ValueError(f"a driver is one of {listing(map(repr, (*ARGUMENTS, *CATALOGS)))}")
    return name


EntryName = Annotated[str, AfterValidator(_entry_name)]

_TEMPLATE: Final = re.compile(r"\{\{\s*([A-Za-z_]\w*)\s*\}\}")

_MOST_COMBINATIONS: Final = 1000
"""Of the values of an entry's parameters: each is checked when a catalog is opened."""

CATALOGS: Final = ("em_catalog", "yaml_file_cat")
"""Drivers of sub-catalogs."""

_INTAKES_OWN: Final = frozenset({"CATALOG_DIR", "metadata", "path", "name", "self", "cache", "plugin", "persist"})
"""Names that a parameter must not take: Intake gives them a meaning (``_create_open_args`` in its catalog/local.py)."""


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


class ParameterModel(Strict):
    """A choice that fills a ``{{ name }}`` template.

    Text alone: Intake makes letters of a string for a list, and keys of a mapping.
    """

    description: str
    type: Literal["str"]
    default: str
    allowed: list[str] = Field(min_length=1)


class EntryModel(Strict):
    """One entry of a catalog file."""

    driver: Annotated[str, AfterValidator(_driver)]
    description: str
    args: dict[str, Any]
    parameters: dict[str, ParameterModel] = Field(default_factory=dict)
    metadata: dict[str, Any] = Field(default_factory=dict)


class CatalogModel(Strict):
    """A catalog file: Intake's version 1 form, as far as emcatalog trusts it."""

    sources: dict[EntryName, EntryModel]
    metadata: dict[str, Any] = Field(default_factory=dict)
    name: str | None = None
    description: str | None = None


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
        raise CatalogError(f"{origin}: {_first(error)}") from error
    if "parameters" in model.metadata:
        raise CatalogError(f"{origin}: metadata.parameters: parameters belong to an entry")
    if model.metadata.get("version", 1) != 1:
        raise CatalogError(f"{origin}: metadata.version: a catalog is written in Intake's version 1")
    for name, entry in model.sources.items():
        _check_parameters(entry, f"{origin}: sources.{name}")
        _check_templates(entry, f"{origin}: sources.{name}")
        if entry.driver in ARGUMENTS:
            _check_data(entry, f"{origin}: sources.{name}")
        else:
            _check_subcatalog(entry, f"{origin}: sources.{name}")
    return model


def _check_data(entry: EntryModel, where: str) -> None:
    for key in ("cache_dir", "offline"):
        if key in entry.args:
            raise CatalogError(f"{where}.args.{key}: a caller's choice, which a catalog must not make")
    try:
        EntryMetadata.model_validate(entry.metadata)
    except ValidationError as error:
        raise CatalogError(f"{where}.metadata.{_first(error)}") from error
    rendered = []
    there: set[tuple[str, str]] = set()
    missing: dict[tuple[str, str], str] = {}
    for values in product(*(parameter.allowed for parameter in entry.parameters.values())):
        chosen = dict(zip(entry.parameters, values, strict=True))
        with_values = f" (with {chosen})" if chosen else ""
        rendered.append(_render(entry.args, chosen))
        try:
            ARGUMENTS[entry.driver].norm(rendered[-1])
            there.update(chosen.items())
        except NoVariantError as error:
            # Not every combination need exist, but what a user gets without asking does.
            if all(chosen[name] == parameter.default for name, parameter in entry.parameters.items()):
                raise CatalogError(f"{where}.args{with_values}: {error}") from error
            missing |= dict.fromkeys(chosen.items(), f"{where}.args{with_values}: {error}")
        except (ArgumentError, CatalogError) as error:
            raise CatalogError(f"{where}.args{with_values}: {error}") from error
    for choice, message in missing.items():
        if choice not in there:
            raise CatalogError(message)
    _check_variants(rendered, f"{where}.args")


def _check_variants(rendered: Sequence[Any], where: str) -> None:
    """A variant that no combination of parameters chooses is a typing mistake."""
    choices: dict[str, set[str]] = {}
    named: dict[str, set[str]] = {}
    for arguments in rendered:
        for key, value in _mappings(arguments, where):
            if isinstance(value.get("variant"), str) and isinstance(value.get("variants"), Mapping):
                choices.setdefault(key, set()).add(value["variant"])
                named.setdefault(key, set()).update(value["variants"])
    for key, names in named.items():
        if useless := names - choices[key]:
            raise CatalogError(f"{key}.variants: nothing chooses {listing(sorted(useless))}")


def _mappings(value: object, key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(value, Mapping):
        yield key, value
        for name, part in value.items():
            yield from _mappings(part, f"{key}.{name}")


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
        if name in _INTAKES_OWN or name in _arguments(entry) or is_word_of_jinja:
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


def _arguments(entry: EntryModel) -> Collection[str]:
    return ARGUMENTS[entry.driver].model_fields if entry.driver in ARGUMENTS else ()


def _render(value: Any, chosen: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _TEMPLATE.sub(lambda match: chosen.get(match[1], match[0]), value)
    if isinstance(value, Mapping):
        return {key: _render(part, chosen) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_render(part, chosen) for part in value]
    return value


def _first(error: ValidationError) -> str:
    return sentence(error.errors()[0], CatalogModel, *ARGUMENTS.values())
