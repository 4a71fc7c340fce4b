"""What a catalog file says of a dataset on a neuPrint server."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from emcatalog.entries.common import Arguments, Declared


def _server(url: str) -> str:
    if not re.fullmatch(r"https://[\w.\-]+(:\d+)?", url, re.ASCII):
        raise ValueError("a server is https:// and its name, without a path: a token is sent to it")
    return url


class NeuprintModel(Declared):
    """One dataset of a server."""

    server: Annotated[str, AfterValidator(_server)]
    """``https://neuprint.janelia.org``."""
    dataset: str = Field(min_length=1)
    """``male-cns:v0.9``."""


class NeuprintArguments(Arguments):
    """Arguments of an ``em_neuprint`` entry."""

    declared: ClassVar[tuple[str, ...]] = ("neuprint",)

    neuprint: NeuprintModel
    """The service."""
