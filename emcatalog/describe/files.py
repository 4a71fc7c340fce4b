"""What a folder of files is, for a person. Asks no network."""

from __future__ import annotations

from emcatalog.describe.page import Description, Part, said_of
from emcatalog.describe.table import stored_bytes
from emcatalog.entries.files import FilesArguments


def describe_files(arguments: FilesArguments) -> Description:
    """The files of an entry."""
    model = arguments.files
    count, stored = f"{model.count:,} files" if model.count else "files not counted", stored_bytes(model)
    doubt = [("NOT CONFIRMED", model.unconfirmed)] if model.unconfirmed is not None else []
    facts = (*doubt, ("how many", count), ("size", stored), *said_of(model))
    brief = {"how many": count, "on the remote": stored}
    part = Part("files", count, f"{count}; {stored}", brief, facts, is_confirmed=model.unconfirmed is None)
    return Description("files", (part,), size=(count, stored), brief=stored)
