"""What a catalog file says of an entry, and what a caller may ask of it: one module for each driver."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from emcatalog.entries.common import Arguments
from emcatalog.entries.files import FilesArguments
from emcatalog.entries.neuprint import NeuprintArguments
from emcatalog.entries.skeletons import SkeletonArguments
from emcatalog.entries.table import TableArguments
from emcatalog.entries.volume import VolumeArguments

ARGUMENTS: Final[Mapping[str, type[Arguments]]] = {
    "em_volume": VolumeArguments,
    "em_table": TableArguments,
    "em_skeletons": SkeletonArguments,
    "em_neuprint": NeuprintArguments,
    "em_files": FilesArguments,
}
"""What an entry's arguments are, by the name of its driver."""
