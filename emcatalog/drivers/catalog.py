"""Opening catalogs: the shipped one, and others after a look at what they could do."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from unicodedata import category

from intake.catalog.exceptions import CatalogException
from intake.catalog.local import YAMLFileCatalog
from intake.utils import yaml_load
from yaml import YAMLError

from emcatalog.errors import CatalogError

_MOST_VALUES: Final = 100_000
"""In a catalog file, aliases written out: a kilobyte of aliases of aliases can stand for billions."""

_DEEPEST: Final = 32
"""Lists and mappings within each other."""

# PyYAML gives back whatever its constructors raise: "!!bool x" is a KeyError, "!!timestamp x" an AttributeError.
_YAML_ERRORS: Final = (
    YAMLError, CatalogException, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError,
)  # fmt: skip


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
        from emcatalog.catalog_file import check_catalog  # pydantic, only where a catalog is really read

        _check_folder(self._dir)
        check_catalog(load_yaml(text, str(self.path)), str(self.path))
        super().parse(text)
        for entry in self._entries.values():
            if entry._driver == YAMLFileCatalog.name:
                # Also in what the entry was made from: `search` and `pickle` make it anew from there.
                entry._driver = entry._captured_init_kwargs["driver"] = CheckedCatalog.name
                entry._plugin = [CheckedCatalog]

    def _load(self, reload: bool = False) -> None:
        """Read and check the file; Intake calls this on opening, and again when the file may have changed.

        Raises:
            CatalogError: it is not there, cannot be read, or is refused.
        """
        try:
            super()._load(reload)
        except CatalogError:
            raise
        except Exception as error:
            raise CatalogError(_unreadable(str(self.path), error)) from error


def open_catalog(path: str | os.PathLike[str], **kwargs: Any) -> CheckedCatalog:
    """Open a catalog file that may come from anywhere: a path or a URL.

    Raises:
        CatalogError: it is not there, not a catalog, or could run code; the message names file, entry and key.
    """
    text = os.fspath(path)
    is_url = "://" in text or "::" in text
    return CheckedCatalog(path=text if is_url else str(Path(text).expanduser().resolve()), **kwargs)


def load_yaml(text: str, origin: str) -> object:
    """Parse YAML as Intake will: a key that stands twice is an error.

    Raises:
        CatalogError: it does not parse (the message has the line), or is larger than any catalog.
    """
    try:
        data = yaml_load(text)
    except _YAML_ERRORS as error:
        raise CatalogError(f"{origin} is not YAML: {error or type(error).__name__}") from error
    _check_size(data, origin)
    return data


def _check_size(data: object, origin: str) -> None:
    """Refuse what would take for ever to look through or to render, and text that a terminal would obey."""
    waiting = [(data, 0)]
    for _ in range(_MOST_VALUES):
        if not waiting:
            return
        value, depth = waiting.pop()
        if depth > _DEEPEST:
            break
        if isinstance(value, str) and any(
            category(letter) in ("Cc", "Cs") and letter not in "\n\t" for letter in value
        ):
            raise CatalogError(f"{origin}: {value!r:.80} holds a control character")
        if isinstance(value, Mapping):
            waiting += [(part, depth + 1) for pair in value.items() for part in pair]
        elif isinstance(value, (list, tuple)):
            waiting += [(part, depth + 1) for part in value]
    raise CatalogError(f"{origin} is larger than any catalog: more than {_MOST_VALUES} values, or {_DEEPEST} levels")


def _check_folder(folder: str) -> None:
    if re.search(r"\{[{%#]", folder):
        raise CatalogError(f"{folder}: Intake would run the folder's name as a template; rename it")


def _unreadable(path: str, error: Exception) -> str:
    if isinstance(error, IsADirectoryError) or Path(path).is_dir():
        return f"{path} is a folder; give the catalog file in it, as in {path.rstrip('/')}/catalog.yaml"
    if isinstance(error, FileNotFoundError):
        reach = ", or it cannot be reached" if "://" in path else ""
        return f"there is no catalog file at {path}{reach}"
    if isinstance(error, UnicodeDecodeError):
        return f"{path} is not a catalog: it is not text in UTF-8 ({error})"
    return f"the catalog {path} cannot be read: {type(error).__name__}: {error}"
