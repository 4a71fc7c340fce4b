"""What a table is, for a person. Asks no network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from emcatalog.describe.page import Description, Part, format_bytes, said_of
from emcatalog.describe.volume import format_size
from emcatalog.entries.table import TableArguments, TableModel
from emcatalog.geometry import reverse

_FORMS: Final = {"feather": "Feather", "parquet": "Parquet"}


def describe_table(arguments: TableArguments) -> Description:
    """The table of an entry, and what a read would give of it."""
    model = arguments.table
    brief = {
        "form": _form(model),
        "rows": _rows(model),
        "columns": str(len(model.columns)),
        "on the remote": stored_bytes(model),
    }
    form, rows, columns, stored = brief.values()
    kind = f"{form}, {columns} columns, {rows}"
    part = Part("table", kind, f"{kind}; {stored}", brief, tuple(_facts(model)), is_confirmed=model.unconfirmed is None)
    size = (rows, f"{columns} columns", stored)
    return Description("table", (part,), dict(_chosen(arguments)), size=size, brief=stored)


def stored_bytes(model: Any) -> str:
    """What something takes where it is stored, as far as the catalog knows."""
    return format_bytes(model.stored_bytes) if model.stored_bytes else "size not confirmed"


def _form(model: TableModel) -> str:
    return " ".join(filter(None, (_FORMS[model.location.format], model.encoding)))


def _rows(model: TableModel) -> str:
    return f"{model.rows:,} rows" if model.rows else "rows not counted"


def _facts(model: TableModel) -> Iterator[tuple[str, str]]:
    if model.unconfirmed is not None:
        yield "NOT CONFIRMED", model.unconfirmed
    yield "rows", f"{model.rows:,}" if model.rows else "not confirmed"
    yield "columns", ", ".join(f"{name} {kind}" for name, kind in model.columns.items())
    if model.key:
        yield "ids", f"{model.key} holds the ids of instances"
    if model.coordinates:
        size = format_size(reverse(model.voxel_size))
        yield "coordinates", f"{', '.join(model.coordinates)} are x, y, z in voxels of {size} nm"
    yield "form", _form(model)
    yield "size", stored_bytes(model)
    if model.md5:
        yield "md5", model.md5
    yield from said_of(model)


def _chosen(arguments: TableArguments) -> Iterator[tuple[str, str]]:
    """What a read gives, where it is not everything."""
    yield "columns", "all" if arguments.chosen is None else ", ".join(arguments.chosen)
    rows = [f"{name} {wanted!r:.60}" for name, wanted in arguments.conditions.items()]
    if arguments.box_nm is not None:
        rows.append(f"in {arguments.box_nm}")
    yield "rows", "; ".join(rows) or "all"
