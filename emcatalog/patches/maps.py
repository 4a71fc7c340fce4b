"""Which map is meant by ``within=``: a channel of the source itself or another entry, its labels by number or name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Final

from emcatalog.cutout import Cutout
from emcatalog.cutout_opening import open_coarse, open_cutout, open_label_names
from emcatalog.entries.volume import VolumeArguments
from emcatalog.errors import ArgumentError, listing, suggest
from emcatalog.geometry import Zyx
from emcatalog.patches.region import Region, Source

Labels = Sequence[int | str] | int | str | None

COARSENESS: Final = 8
"""Of a channel that is named, the coarsest scale with so many voxels along each edge of a patch is the map."""


@dataclass(frozen=True, slots=True)
class NamedMap:
    """A map, and which of its labels count."""

    cutout: Cutout
    """Of one channel, on its own grid."""
    labels: tuple[int, ...] | None
    """By number; None for all but 0."""


def open_map(region: Region, source: Source, patch_shape: Zyx, within: str | Source, labels: Labels) -> NamedMap:
    """The map that patches of a region are to lie in.

    Args:
        region: where patches are drawn.
        source: the region's own.
        patch_shape: voxels, (z, y, x).
        within: name of a channel of the source, or another source of one channel.
        labels: numbers or names of its labels, or None for all but 0.

    Raises:
        ArgumentError: there is no such channel or label, or it is no map.
        SourceError, CacheError: a description that cannot be had.
    """
    if isinstance(within, str):
        arguments, name = source.arguments, within
        if name not in arguments.volumes:
            raise ArgumentError(
                f"within={name!r}: {source.name} has no such channel; there are {listing(arguments.volumes)}, or give"
                f" another entry.{suggest(name, arguments.volumes)}"
            )
        pairs = zip(patch_shape, region.cutout.grid.voxel_size_nm, strict=True)
        z, y, x = (side * size / COARSENESS for side, size in pairs)
        cutout = open_coarse(arguments, name, (z, y, x))
    elif hasattr(within, "arguments"):
        arguments, cutout = within.arguments, open_cutout(within.arguments)
        name, *more = cutout.channels
        if more:
            raise ArgumentError(f"within={within.name} has several channels: choose one with channels=[{name!r}]")
    else:
        raise ArgumentError(
            f"within={within!r} is neither a channel's name nor an entry such as cat.malecns_data.rois_brain"
        )
    if cutout.channels[name].has_channels:
        raise ArgumentError(f"within: {name} has an axis of channels, which a map must not: choose one with channel=")
    return NamedMap(cutout, norm_labels(labels, arguments, name))


def norm_labels(labels: Labels, arguments: VolumeArguments, name: str) -> tuple[int, ...] | None:
    """Numbers of labels of a channel that were given by number or by name; None for all but 0.

    Raises:
        ArgumentError: a name that the volume does not have.
        SourceError, CacheError: the names cannot be read.
    """
    if labels is None:
        return None
    given = list(labels) if isinstance(labels, Iterable) and not isinstance(labels, str) else [labels]
    if not given:
        raise ArgumentError(
            "within_labels is empty: give the labels of the map that patches may lie in, or leave it away"
        )
    numbers = {}
    if any(isinstance(label, str) for label in given):
        numbers = {called: number for number, called in open_label_names(arguments, name).items()}
    for label in given:
        if isinstance(label, str) and label not in numbers:
            there = f"its labels are {listing(numbers)}" if numbers else "its source names none: give numbers"
            raise ArgumentError(f"within_labels: {name} has no label {label!r}; {there}.{suggest(label, numbers)}")
        if not isinstance(label, (str, Integral)) or isinstance(label, bool):
            raise ArgumentError(f"within_labels: {label!r} is neither the number nor the name of a label")
    return tuple(numbers[label] if isinstance(label, str) else int(label) for label in given)
