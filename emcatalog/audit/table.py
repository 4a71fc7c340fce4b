"""A table: what the catalog declares, held against the end of its file and what its store says."""

from __future__ import annotations

from typing import Any

from emcatalog.audit.report import NONE, Audit, differences, size, undeclared
from emcatalog.entries.table import TableModel
from emcatalog.errors import SourceError
from emcatalog.objects import describe_object
from emcatalog.settings import Settings


def audit_table(model: TableModel, settings: Settings) -> Audit:
    """Ask for the columns, rows, bytes and checksum of a table and compare.

    Raises:
        ModuleNotFoundError: what reads tables is not installed.
    """
    from emcatalog.tables.opening import open_remote

    try:
        stored = open_remote(model, settings)
        about = describe_object(model.location.url, model.storage_options, settings)
        rows = stored.count_rows()
    except SourceError as error:
        return Audit(model.url, failure=error, expected_failure=model.unconfirmed is not None)
    columns = {field.name: _called(field.type) for field in stored.schema}
    facts = {"rows": model.rows, "stored_bytes": model.stored_bytes, "md5": model.md5 if about.md5 else None}
    declared: dict[str, str] = {f"columns.{name}": kind for name, kind in model.columns.items()}
    found = {f"columns.{name}": columns.get(name, "no such column") for name in model.columns}
    declared |= {key: str(said) for key, said in facts.items() if said is not None}
    found |= {"rows": size(rows, model.rows), "stored_bytes": size(about.nbytes, model.stored_bytes)}
    found |= {"md5": about.md5 or NONE}
    more = {"columns": ", ".join(f"{name} {kind}" for name, kind in columns.items() if name not in model.columns)}
    unsaid = undeclared(declared, found) | {key: text for key, text in more.items() if text}
    return Audit(model.url, differences(declared, found), unsaid)


def _called(kind: Any) -> str:
    """An Arrow type as the catalog calls it."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return "category"
    if pa.types.is_list(kind):
        return f"list<{_called(kind.value_type)}>"
    return {"double": "float64", "float": "float32", "large_string": "string"}.get(str(kind), str(kind))
