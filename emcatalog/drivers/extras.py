"""Parts of emcatalog that need more than its installation brings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from emcatalog.errors import MissingExtraError


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Imports of an optional part.

    Raises:
        MissingExtraError: one of its libraries is not there; the message says how to install it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"this needs {error.name}: pip install 'emcatalog[{name}]'") from error
