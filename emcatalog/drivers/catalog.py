"""Opening catalogs: the shipped one, and others after a look at what they could do."""

from __future__ import annotations

from typing import Any

from intake.catalog.local import YAMLFileCatalog
from intake.utils import yaml_load
from yaml import YAMLError

from emcatalog.errors import CatalogError


class CheckedCatalog(YAMLFileCatalog):  # type: ignore[misc]  # Intake has no types
    """A YAML catalog whose text is checked each time it is loaded, before Intake renders anything of it.

    Intake's templates run unsandboxed, its ``plugins`` key imports modules, and its drivers can be any class: a file
    from elsewhere could run code. Only our drivers, plain ``{{ name }}`` templates and sub-catalogs beside the file
    pass; sub-catalogs are checked likewise.
    """

    name = "em_catalog"

    def parse(self, text: str) -> None:
        """Check the text, then let Intake parse it.

        Raises:
            CatalogError: the message names file, entry and key.
        """
        from emcatalog.entries import check_catalog  # pydantic, only where a catalog is really read

        check_catalog(load_yaml(text, str(self.path)), str(self.path))
        super().parse(text)
        for entry in self._entries.values():
            entry._plugin = [CheckedCatalog if plugin is YAMLFileCatalog else plugin for plugin in entry._plugin]


def open_catalog(path: object, **kwargs: Any) -> CheckedCatalog:
    """Open a catalog file that may come from anywhere: a path or a URL.

    Raises:
        CatalogError: it is not there, not a catalog, or could run code; the message names file, entry and key.
    """
    try:
        return CheckedCatalog(path=str(path), **kwargs)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise CatalogError(f"there is no catalog file at {path}") from error


def load_yaml(text: str, origin: str) -> object:
    """Parse YAML as Intake will: a key that stands twice is an error.

    Raises:
        CatalogError: it does not parse; the message has the line.
    """
    try:
        return yaml_load(text)
    except YAMLError as error:
        raise CatalogError(f"{origin} is not YAML: {error}") from error
