"""``emcatalog check``, ``validate`` and ``schema``: whether a catalog is true, whether it is well-formed, and its form.

Annotations are evaluated here (no ``from __future__``): the options of a command are read from them at import.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from emcatalog.cli.commands import USAGE, as_typed, file_errors, own_parameters
from emcatalog.cli.entry import allowed_values, find, is_catalog, open_catalog, walk
from emcatalog.cli.options import CatalogFile
from emcatalog.cli.terminal import complain, count, facts, results, say, several
from emcatalog.errors import ArgumentError, CatalogError, EmcatalogError, NoVariantError, extra

if TYPE_CHECKING:
    from pydantic import BaseModel

    from emcatalog.audit.report import Audit
    from emcatalog.entries.common import Declared

DIFFERS = 1
"""Exit status where a declaration is not what the source says."""

Files = Annotated[
    list[Path] | None, typer.Argument(metavar="[FILE]...", help="Catalog files. Default: those that are shipped.")
]


def check(
    ctx: typer.Context,
    entry: Annotated[
        str | None, typer.Argument(metavar="[ENTRY]", help="An entry or a sub-catalog. Default: all.")
    ] = None,
    lock: Annotated[
        bool, typer.Option("--lock", help="Write down what the metadata documents are: a later change is told.")
    ] = False,
    catalog: CatalogFile = None,
) -> None:
    """Hold what the catalog declares against what the sources say of themselves.

    Asks every source for its metadata, for every value of the entry's parameters unless they are given as options
    (--version v1.0), and prints what differs. Skeletons and services do not describe themselves. --lock writes
    emcatalog.lock (or EMCATALOG_LOCK).
    """
    from emcatalog.audit import audit
    from emcatalog.settings import load_settings

    settings, console = load_settings(), results()
    if settings.offline:
        raise ArgumentError("a check asks the sources, and emcatalog is offline: unset EMCATALOG_OFFLINE")
    audits = []
    for name, model in _parts(ctx, open_catalog(catalog), entry):
        with extra("tables"):
            audits.append(audit(model, settings))
        if lock and audits[-1].documents:  # a change is accepted by locking what there is now
            audits[-1] = replace(audits[-1], changed=())
        _print_audit(console, name, audits[-1])
    if lock:
        _lock(audits, Path(settings.lock))
    if not audits:
        print("nothing to look at: skeletons and services do not describe themselves")
        return
    bad, unseen = sum(not each.is_good for each in audits), sum(each.unseen is not None for each in audits)
    rest = f", {count(unseen)} that cannot be asked" if unseen else ""
    print(f"{several(len(audits) - unseen, 'source', 'sources')} looked at, {bad or 'none'} to be mended{rest}")
    if bad:
        raise typer.Exit(DIFFERS)


def _parts(ctx: typer.Context, catalog: Any, entry: str | None) -> "Iterator[tuple[str, Declared]]":
    """Each volume, table and folder of an entry, or of all entries, once; what cannot be looked at is left out."""
    from emcatalog.audit import can_audit

    found = catalog if entry is None else find(catalog, entry)
    prefix = "" if entry is None else f"{entry}."
    entries = list(walk(found, prefix)) if entry is None or is_catalog(found) else [(entry, found)]
    entries = [(name, source) for name, source in entries if not is_catalog(source)]
    alone = entries[0][1] if len(entries) == 1 else None
    own = own_parameters(ctx, entry or "the catalog", {} if alone is None else allowed_values(alone))
    seen = set()
    for name, source in entries:
        allowed = {**allowed_values(source), **{key: [value] for key, value in own.items()}}
        for values in product(*allowed.values()):
            chosen = dict(zip(allowed, values, strict=True))
            for part, model in _declared(source, chosen).items():
                address = str(getattr(model, "location", ""))
                if can_audit(model) and (address, repr(model)) not in seen:
                    seen.add((address, repr(model)))
                    yield " ".join([f"{name}.{part}", *filter(None, chosen.values())]), model


def _declared(source: Any, chosen: dict[str, str]) -> "Mapping[str, Declared]":
    """All that an entry declares with some values of its parameters; none where there is no such combination."""
    try:
        declared: Mapping[str, Declared] = source(**chosen).arguments.declarations
    except NoVariantError:
        return {}
    return declared


def _print_audit(console: Console, name: str, found: "Audit") -> None:
    console.print(Text.assemble((name, "bold"), "  ", (_state(found), "green" if found.is_good else "bold red")))
    rows = [(each.key, f"declared {each.declared}; the source says {each.found}") for each in found.differences]
    rows += [("changed", document) for document in found.changed]
    if reason := found.unseen or (found.failure and as_typed(str(found.failure))):
        rows.append(("reason", reason))
    elif found.undeclared:
        rows.append(("not declared", "; ".join(f"{key}: {text}" for key, text in found.undeclared.items())))
    if rows:
        console.print(facts(rows, indent=2))


def _state(found: "Audit") -> str:
    if found.unseen is not None:
        return "not looked at"
    if found.failure is not None:
        return "not confirmed, and not there" if found.expected_failure else "CANNOT BE READ"
    return "ok" if found.is_good else "DIFFERS"


def _lock(audits: "list[Audit]", path: Path) -> None:
    from emcatalog.lock import read_lock, write_lock

    documents = {address: one for each in audits for address, one in (each.documents or {}).items()}
    with file_errors(path):
        write_lock(path, read_lock(path).with_documents(documents))
    say(f"{several(len(documents), 'document', 'documents')} locked in {path}")


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

    from emcatalog.catalog_file import CATALOGS, CatalogModel, EntryMetadata
    from emcatalog.entries import ARGUMENTS
    from emcatalog.entries.common import Declared

    models: list[type[BaseModel]] = [CatalogModel, EntryMetadata, *ARGUMENTS.values()]
    _, found = models_json_schema([(model, "validation") for model in models])
    definitions = found["$defs"]
    for model in Declared.__subclasses__():
        _allow_variants(definitions[model.__name__])
    definitions["EntryModel"]["properties"]["driver"]["enum"] = [*ARGUMENTS, *CATALOGS]
    definitions["EntryModel"]["allOf"] = [_bound(driver, model.__name__) for driver, model in ARGUMENTS.items()]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "emcatalog catalog",
        "$ref": "#/$defs/CatalogModel",
        "$defs": definitions,
    }


def _bound(driver: str, arguments: str) -> dict[str, Any]:
    """The arguments and the metadata of the entries of one driver."""
    properties = {"args": {"$ref": f"#/$defs/{arguments}"}, "metadata": {"$ref": "#/$defs/EntryMetadata"}}
    return {"if": {"properties": {"driver": {"const": driver}}}, "then": {"properties": properties}}


def _allow_variants(declared: dict[str, Any]) -> None:
    """What ``Declared`` merges before its fields are checked: keys that a parameter's value chooses among."""
    part = {"type": "object", "properties": dict(declared["properties"]), "additionalProperties": False}
    declared["properties"] |= {
        "variant": {"type": "string", "description": "A template of the parameter that chooses: '{{ version }}'."},
        "variants": {"type": "object", "additionalProperties": part},
    }
    declared["anyOf"] = [{"required": declared.pop("required")}, {"required": ["variant", "variants"]}]


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
    from emcatalog.entries import ARGUMENTS

    with file_errors(file):
        try:
            text = file.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise CatalogError(f"{file} is not text") from error
    model = check_catalog(load_yaml(text, str(file)), str(file))
    for name, entry in model.sources.items():
        beside = file.parent / str(entry.args.get("path", "")).rpartition("/")[2]
        if entry.driver not in ARGUMENTS and not beside.is_file():
            raise CatalogError(f"{file}: sources.{name}.args.path: there is no file {beside}")
    return len(model.sources)
