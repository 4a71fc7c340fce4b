"""What an entry of skeletons is, for a person. Asks no network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from emcatalog.describe.page import Description, Part, said_of
from emcatalog.describe.table import stored_bytes
from emcatalog.entries.skeletons import SkeletonArguments, SkeletonsModel

_FORMS: Final = {"swc": "SWC", "precomputed": "precomputed"}


def describe_skeletons(arguments: SkeletonArguments) -> Description:
    """The skeletons of an entry."""
    model = arguments.skeletons
    brief = {
        "form": _FORMS[model.location.format],
        "stored in": _units(model),
        "how many": f"about {model.count:,}" if model.count else "not confirmed",
        "on the remote": stored_bytes(model),
    }
    form, units, count, stored = brief.values()
    kind = f"{form}, stored in {units}, read in nm"
    sentence = f"{kind}; how many: {count}; {stored}"
    part = Part("skeletons", kind, sentence, brief, tuple(_facts(model)), is_confirmed=model.unconfirmed is None)
    size = (f"{count} neurons" if model.count else "not counted", f"stored in {units}", stored)
    return Description("skeletons", (part,), size=size, brief=form)


def _units(model: SkeletonsModel) -> str:
    return f"voxels of {model.voxel_size:.10g} nm" if model.units == "voxel" else model.units


def _facts(model: SkeletonsModel) -> Iterator[tuple[str, str]]:
    if model.unconfirmed is not None:
        yield "NOT CONFIRMED", model.unconfirmed
    yield "how many", f"about {model.count:,}" if model.count else "not confirmed"
    yield "stored in", _units(model)
    if model.space:
        yield "space", model.space
    yield "size", stored_bytes(model)
    yield from said_of(model)
