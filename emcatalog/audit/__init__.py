"""What a catalog declares, held against what the sources say of themselves: one module for each kind of data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from emcatalog.audit.files import audit_files
from emcatalog.audit.report import Audit
from emcatalog.audit.table import audit_table
from emcatalog.audit.volume import audit_volume
from emcatalog.entries.files import FilesModel
from emcatalog.entries.table import TableModel
from emcatalog.entries.volume import ChannelModel
from emcatalog.settings import Settings

_AUDITS: Final[Mapping[type[Any], Callable[[Any, Settings], Audit]]] = {
    ChannelModel: audit_volume,
    TableModel: audit_table,
    FilesModel: audit_files,
}
"""Of what can be looked at: a folder of skeletons has nothing that describes it, and a service asks for a token."""


def can_audit(model: object) -> bool:
    """Whether there is something to compare with."""
    return type(model) in _AUDITS


def audit(model: object, settings: Settings) -> Audit:
    """Ask a source what it is and compare; a source that cannot be read is part of the answer.

    Raises:
        SettingsError: the lock file cannot be read.
    """
    return _AUDITS[type(model)](model, settings)
