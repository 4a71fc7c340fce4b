"""emcatalog: volume electron microscopy data as an Intake catalog.

import intake, emcatalog
cat = intake.open_catalog(emcatalog.CATALOG)
cat.malecns(bbox=(40000, 40512, 40000, 40512, 20000, 20512)).read()
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from emcatalog.errors import EmcatalogError

if TYPE_CHECKING:
    from emcatalog import torch
    from emcatalog.drivers.catalog import CheckedCatalog, open_catalog

    catalog: CheckedCatalog

__version__ = "0.1.0"

_HERE = Path(__file__).parent
_CATALOGS = next(folder for folder in (_HERE / "catalogs", _HERE.parent / "catalogs") if folder.is_dir())

CATALOG = str(_CATALOGS / "catalog.yaml")
"""Path of the shipped catalog, for ``intake.open_catalog``."""

__all__ = ["CATALOG", "EmcatalogError", "__version__", "catalog", "open_catalog", "torch"]


def __getattr__(name: str) -> Any:
    """``catalog`` (the shipped catalog, open), ``open_catalog`` and ``torch`` load much, so only when asked for."""
    if name in ("catalog", "open_catalog"):
        from emcatalog.drivers.catalog import open_catalog

        return open_catalog if name == "open_catalog" else open_catalog(CATALOG)
    if name == "torch":
        from importlib import import_module

        return import_module("emcatalog.torch")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
