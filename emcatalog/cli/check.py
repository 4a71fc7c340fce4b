"""``emcatalog validate`` and ``emcatalog schema``: what a catalog file may hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from emcatalog.cli.commands import USAGE, file_errors
from emcatalog.cli.terminal import complain, several
from emcatalog.errors import CatalogError, EmcatalogError

Files = Annotated[
    list[Path] | None, typer.Argument(metavar="[FILE]...", help="Catalog files. Default: those that are shipped.")
]


def validate(files: Files = None) -> None:
    """Check catalog files.

    Every entry is held against the schema, with every value that its parameters allow.
    """
    bad = 0
    for file in files or _shipped():
        try:
            entries = _check(file)
        except EmcatalogError as error:
            complain(str(error))
            bad += 1
        else:
            print(f"{file}: ok, {several(entries, 'entry', 'entries')}")
    if bad:
        raise typer.Exit(USAGE)


def schema() -> None:
    """Print the JSON Schema of a catalog file.

    An editor that is given it completes and checks YAML while it is typed.
    """
    print(json.dumps(catalog_schema(), indent=2))


def catalog_schema() -> dict[str, Any]:
    """JSON Schema of a catalog file; the ``args`` and ``metadata`` of an entry are bound to what its driver checks."""
    from pydantic.json_schema import models_json_schema

    from emcatalog.catalog_file import CatalogModel, EntryMetadata
    from emcatalog.entries import VolumeArguments

    _, found = models_json_schema([(model, "validation") for model in (CatalogModel, VolumeArguments, EntryMetadata)])
    definitions = found["$defs"]
    _allow_variants(definitions["ChannelModel"])
    definitions["EntryModel"] |= {
        "if": {"properties": {"driver": {"const": "em_volume"}}},
        "then": {
            "properties": {
                "args": {"$ref": "#/$defs/VolumeArguments"},
                "metadata": {"$ref": "#/$defs/EntryMetadata"},
            }
        },
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "emcatalog catalog",
        "$ref": "#/$defs/CatalogModel",
        "$defs": definitions,
    }


def _allow_variants(channel: dict[str, Any]) -> None:
    """What ``ChannelModel`` merges before its fields are checked: keys that a parameter's value chooses among."""
    part = {"type": "object", "properties": dict(channel["properties"]), "additionalProperties": False}
    channel["properties"] |= {
        "variant": {"type": "string", "description": "A template of the parameter that chooses: '{{ version }}'."},
        "variants": {"type": "object", "additionalProperties": part},
    }
    channel["anyOf"] = [{"required": channel.pop("required")}, {"required": ["variant", "variants"]}]


def _shipped() -> list[Path]:
    from emcatalog import CATALOG

    return sorted(Path(CATALOG).parent.glob("*.yaml"))


def _check(file: Path) -> int:
    """Check one file, and give the number of its entries.

    Raises:
        CatalogError: the message names file, entry and key.
    """
    from emcatalog.catalog_file import check_catalog
    from emcatalog.drivers.catalog import load_yaml

    with file_errors(file):
        try:
            text = file.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise CatalogError(f"{file} is not text") from error
    model = check_catalog(load_yaml(text, str(file)), str(file))
    for name, entry in model.sources.items():
        beside = file.parent / str(entry.args.get("path", "")).rpartition("/")[2]
        if entry.driver != "em_volume" and not beside.is_file():
            raise CatalogError(f"{file}: sources.{name}.args.path: there is no file {beside}")
    return len(model.sources)
