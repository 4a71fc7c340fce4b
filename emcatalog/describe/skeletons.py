"""What an entry of skeletons is, for a person. Asks no network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from emcatalog.describe.page import Description, Part, doubt_of, said_of
from emcatalog.describe.table import UNKNOWN, stored_bytes
from emcatalog.entries.skeletons import SkeletonArguments, SkeletonsModel

_FORMS: Final = {"swc": "SWC", "precomputed": "precomputed"}


def describe_skeletons(arguments: SkeletonArguments) -> Description:
    """The skeletons of an entry."""
    model = arguments.skeletons
    form = _FORMS[model.location.format]
    brief = {"form": form, "lengths": _lengths(model), "how many": _count(model), "on the remote": stored_bytes(model)}
    count = brief["how many"] if model.count else f"number {UNKNOWN}"
    size = brief["on the remote"] if model.stored_bytes else f"size {UNKNOWN}"
    sentence = f"{form}, {_lengths(model)}; {count}; {size}"
    part = Part("skeletons", form, sentence, brief, tuple(_facts(model)), is_confirmed=model.unconfirmed is None)
    return Description("skeletons", (part,), size=(count, form, size), brief=form)


def _count(model: SkeletonsModel) -> str:
    return f"about {model.count:,}" if model.count else UNKNOWN


def _lengths(model: SkeletonsModel) -> str:
    """What they are counted in; a read gives nm whatever that is."""
    if model.units == "nm":
        return "in nm"
    return f"read in nm, stored in {f'voxels of {model.voxel_size:.10g} nm' if model.units == 'voxel' else model.units}"


def _facts(model: SkeletonsModel) -> Iterator[tuple[str, str]]:
    yield from doubt_of(model)
    yield "how many", _count(model)
    yield "lengths", _lengths(model)
    if model.space:
        yield "space", model.space
    yield "size", stored_bytes(model)
    yield from said_of(model)
