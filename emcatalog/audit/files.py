"""A folder of files: how many there are and what they take."""

from __future__ import annotations

from emcatalog.audit.report import Audit, differences, size, undeclared
from emcatalog.entries.files import FilesModel
from emcatalog.errors import SourceError
from emcatalog.objects import is_listable, list_objects
from emcatalog.settings import Settings


def audit_files(model: FilesModel, settings: Settings) -> Audit:
    """List a folder and compare."""
    if not is_listable(model.location.url, settings):
        return Audit(model.url, unseen="a web server, where it is read, cannot be asked which files it has")
    try:
        files = list_objects(model.location.url, model.storage_options, settings)
    except SourceError as error:
        return Audit(model.url, failure=error, expected_failure=model.unconfirmed is not None)
    nbytes = sum(file.nbytes for file in files)
    sizes = {"count": (model.count, len(files)), "stored_bytes": (model.stored_bytes, nbytes)}
    declared = {key: str(said) for key, (said, _) in sizes.items() if said is not None}
    found = {key: size(there, said) for key, (said, there) in sizes.items()}
    return Audit(model.url, differences(declared, found), undeclared(declared, found))
