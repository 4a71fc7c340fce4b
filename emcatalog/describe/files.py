"""What a folder of files is, for a person. Asks no network."""

from __future__ import annotations

from emcatalog.describe.page import Description, Part, doubt_of, said_of
from emcatalog.describe.table import UNKNOWN, stored_bytes
from emcatalog.entries.files import FilesArguments


def describe_files(arguments: FilesArguments) -> Description:
    """The files of an entry."""
    model = arguments.files
    stored = stored_bytes(model)
    brief = {"how many": f"{model.count:,}" if model.count else UNKNOWN, "on the remote": stored}
    count = f"{brief['how many']} files" if model.count else f"number {UNKNOWN}"
    size = stored if model.stored_bytes else f"size {UNKNOWN}"
    facts = (*doubt_of(model), ("how many", brief["how many"]), ("size", stored), *said_of(model))
    part = Part("files", "kept as they are", f"{count}, {size}", brief, facts, is_confirmed=model.unconfirmed is None)
    return Description("files", (part,), size=(count, size), brief=size)
