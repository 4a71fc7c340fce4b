"""What a table is, for a person. Asks no network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from emcatalog.describe.page import Description, Part, doubt_of, format_bytes, said_of
from emcatalog.describe.volume import format_size
from emcatalog.entries.table import TableArguments, TableModel
from emcatalog.geometry import reverse

UNKNOWN: Final = "not confirmed"
"""Where nobody says how many there are, or how large they are."""

_FORMS: Final = {"feather": "Feather", "parquet": "Parquet"}
_FEW: Final = 3
"""Values of a filter that are told; of more, how many there are."""


def describe_table(arguments: TableArguments) -> Description:
    """The table of an entry, and what a read would give of it."""
    model = arguments.table
    form = " ".join(filter(None, (_FORMS[model.location.format], model.encoding)))
    columns, stored = str(len(model.columns)), stored_bytes(model)
    brief = {"form": form, "rows": _rows(model), "columns": columns, "on the remote": stored}
    rows = f"{_rows(model)} rows" if model.rows else f"rows {UNKNOWN}"
    size = (rows, f"{columns} columns", stored if model.stored_bytes else f"size {UNKNOWN}")
    sentence = ", ".join((form, *size))
    part = Part("table", form, sentence, brief, tuple(_facts(model)), is_confirmed=model.unconfirmed is None)
    return Description("table", (part,), dict(_chosen(arguments)), size=size, brief=size[-1])


def stored_bytes(model: Any) -> str:
    """What something takes where it is stored, as far as the catalog knows."""
    return format_bytes(model.stored_bytes) if model.stored_bytes else UNKNOWN


def _rows(model: TableModel) -> str:
    return f"{model.rows:,}" if model.rows else UNKNOWN


def _facts(model: TableModel) -> Iterator[tuple[str, str]]:
    yield from doubt_of(model)
    yield "rows", _rows(model)
    yield "columns", f"{len(model.columns)}: {', '.join(f'{name} {kind}' for name, kind in model.columns.items())}"
    if model.key:
        yield "ids", f"{model.key} holds the ids of instances"
    if model.coordinates:
        size = format_size(reverse(model.voxel_size))
        yield "coordinates", f"{', '.join(model.coordinates)}, in voxels of {size} nm"
    yield "size", stored_bytes(model)
    if model.md5:
        yield "md5", model.md5
    yield from said_of(model)


def _chosen(arguments: TableArguments) -> Iterator[tuple[str, str]]:
    """What a read gives, where it is not everything."""
    if arguments.chosen is not None:
        yield "columns", ", ".join(arguments.chosen)
    rows = [_condition(name, wanted) for name, wanted in arguments.conditions.items()]
    if arguments.box_nm is not None:
        rows.append(f"{', '.join(arguments.axes or ())} in {arguments.box_nm}")
    if rows:
        yield "rows", "; ".join(rows)


def _condition(name: str, wanted: Any) -> str:
    """One item of a filter: ``conf >= 0.7``."""
    if isinstance(wanted, Mapping):
        return ", ".join(f"{name} {comparison} {_value(value)}" for comparison, value in wanted.items())
    if hasattr(wanted, "__len__") and not isinstance(wanted, str) and getattr(wanted, "ndim", 1) > 0:
        return f"{name} is one of {_values(list(wanted))}"
    return f"{name} is {_value(wanted)}"


def _values(values: list[Any]) -> str:
    return ", ".join(map(_value, values)) if len(values) <= _FEW else f"{len(values):,} values"


def _value(value: Any) -> str:
    return "missing" if value is None else f"{value!s:.40}"
