"""What the labels of a precomputed volume are called.

Format: https://github.com/google/neuroglancer/blob/master/src/datasource/precomputed/segment_properties.md
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError

from emcatalog.errors import SourceCorruptError
from emcatalog.formats.documents import Documents
from emcatalog.formats.precomputed import read_precomputed


class Property(BaseModel):
    """One property of all labels."""

    type: str
    values: list[Any] = []


class Inline(BaseModel):
    """Labels and their properties, in the same order."""

    ids: list[int]
    properties: list[Property] = []


class SegmentProperties(BaseModel):
    """The document, as far as names need it."""

    inline: Inline


def read_names(documents: Documents) -> dict[int, str]:
    """Names by label; empty where the volume has none.

    Raises:
        SourceError: the documents cannot be read, or are not what they should be.
    """
    folder = read_precomputed(documents).info.segment_properties
    if folder is None:
        return {}
    name = f"{folder.strip('/')}/info"
    (text,) = documents.read(name)
    if text is None:
        return {}
    try:
        labels = SegmentProperties.model_validate_json(text).inline
        named = next((each for each in labels.properties if each.type == "label"), None)
        return {} if named is None else dict(zip(labels.ids, map(str, named.values), strict=True))
    except (ValidationError, ValueError) as error:
        raise SourceCorruptError(f"{documents.address(name)} does not name the labels: {error}") from error
