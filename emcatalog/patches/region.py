"""A region: one box of one entry that patches are drawn from, with the channels that a network gets and learns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from emcatalog.classes import Classes, open_classes
from emcatalog.cutout import Cutout, PatchReading
from emcatalog.cutout_opening import open_cutout
from emcatalog.entries.volume import VolumeArguments
from emcatalog.errors import ArgumentError, listing, suggest
from emcatalog.geometry import Box, Zyx, format_xyz, same_size, zyx


class Source(Protocol):
    """An entry that was given its arguments, as far as patches need it."""

    @property
    def name(self) -> str:
        """Of the entry."""

    @property
    def arguments(self) -> VolumeArguments:
        """What the catalog declares and the caller chose."""


@dataclass(frozen=True)
class Region:
    """One box of one entry."""

    entry: str
    """Name of the entry, for messages and for what a sample says of itself."""
    cutout: Cutout
    """Its channels on one grid, and the box."""
    raw: str
    """Name of the channel that a network gets."""
    labels: str | None
    """Name of the channel that it learns; None where there is nothing to learn."""
    classes: Classes | None = None
    """What is learned in the place of the labels' ids; None where it is they."""

    @property
    def num_channels(self) -> int:
        """Channels of raw."""
        return self.cutout.channels[self.raw].shape(self.cutout.box)[0] if self._is_4d else 1

    @property
    def _is_4d(self) -> bool:
        return self.cutout.channels[self.raw].has_channels

    def firsts(self, patch_shape: Zyx, halo: Zyx) -> Box:
        """Where a patch may begin so that it and its halo are in the box.

        Raises:
            ArgumentError: nowhere; the message says how large box, patch and halo are.
        """
        box = self.cutout.box
        begin = zyx([a + h for a, h in zip(box.begin, halo, strict=True)])
        end = zyx([b - h - side + 1 for b, h, side in zip(box.end, halo, patch_shape, strict=True)])
        if any(a >= b for a, b in zip(begin, end, strict=True)):
            around = f" with the {format_xyz(halo)} voxels that its target needs around it" if any(halo) else ""
            raise ArgumentError(
                f"a patch of {format_xyz(patch_shape)} voxels (x, y, z){around} is larger than the box of {self.entry},"
                f" {format_xyz(box.shape)}: take a smaller patch_shape (z, y, x) or a larger bbox"
            )
        return Box(begin, end)

    def begin_reading(self, patch: Box, halo: Zyx) -> RegionReading:
        """Begin to read a patch: raw, and labels with their halo."""
        raw = self.cutout.of(self.raw).at(patch).begin_patch()
        return RegionReading(self, raw, None if self.labels is None else self.begin_labels(patch, halo))

    def begin_labels(self, patch: Box, halo: Zyx) -> LabelsReading:
        """Begin to read the labels of a patch with their halo."""
        assert self.labels is not None, "a region without labels has none to read"
        begin = [a - h for a, h in zip(patch.begin, halo, strict=True)]
        end = [b + h for b, h in zip(patch.end, halo, strict=True)]
        reading = self.cutout.of(self.labels).at(Box(zyx(begin), zyx(end))).begin_patch()
        return LabelsReading(reading, self.labels, self.classes)

    def info(self, patch: Box) -> dict[str, Any]:
        """Where a patch lies, so that it can be opened again.

        ``cat[entry](bbox=info["bbox_nm"], units="nm", resolution=info["voxel_size_nm"])`` does, with the entry's own
        parameters, which the addresses of the channels show.
        """
        attributes = self.cutout.at(patch).attributes()
        names = [self.raw] + ([] if self.labels is None else [self.labels])
        return {
            "entry": self.entry,
            "channels": {name: self.cutout.channels[name].url for name in names},
            **{key: attributes[key] for key in ("bbox", "bbox_nm", "voxel_size_nm")},
        }


@dataclass(frozen=True, slots=True)
class LabelsReading:
    """Labels on their way into memory."""

    reading: PatchReading
    name: str
    classes: Classes | None

    def result(self) -> NDArray[Any]:
        """Ids, or classes, (z, y, x) with their halo.

        Raises:
            NotCachedError, SourceError, CacheError: what is missing cannot be fetched.
        """
        ids = self.reading.result()[self.name]
        return ids if self.classes is None else self.classes.of(ids)


@dataclass(frozen=True, slots=True)
class RegionReading:
    """A patch on its way into memory."""

    region: Region
    raw: PatchReading
    labels: LabelsReading | None

    def result(self) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Raw (c, z, y, x), and labels (z, y, x) with their halo.

        Raises:
            NotCachedError, SourceError, CacheError: what is missing cannot be fetched.
        """
        raw = self.raw.result()[self.region.raw]
        raw = raw if self.region._is_4d else raw[None]
        return raw, None if self.labels is None else self.labels.result()


def open_region(
    source: Source, raw: str | None, labels: str | None, classes: str | Classes | None = None, *, learns: Sequence[str]
) -> Region:
    """The region that a source is.

    Args:
        source: an entry with its arguments.
        raw: name of the channel that a network gets. Default: the image.
        labels: name of the channel that it learns. Default: the only one of a kind that fits.
        classes: what its instances are, in the place of their ids: a column of the entry's tables.
        learns: kinds of channels that fit, best first; empty where nothing is to be learned.

    Raises:
        ArgumentError: a channel that is not there, or several of which none is named.
        SourceError, CacheError: a description that cannot be had.
    """
    arguments = source.arguments
    if arguments.consecutive:
        raise ArgumentError(
            f"{source.name}: consecutive=True of an entry is for read(); give it to to_torch, for a patch"
        )
    raw = _choose("raw", raw, source, ("image",))
    names = [raw]
    if learns:
        labels = _choose("labels", labels, source, learns)
        names.append(labels)
    cutout = open_cutout(arguments.with_channels(names))
    if labels is not None and learns and cutout.channels[labels].has_channels:
        raise ArgumentError(f"{source.name}: {labels} has an axis of channels, which labels must not; name another")
    if labels is not None and learns and cutout.channels[labels].dtype.kind not in "ui":
        raise ArgumentError(f"{source.name}: {labels} holds {cutout.channels[labels].dtype}, which are no labels")
    known = open_classes(arguments, classes) if isinstance(classes, str) else classes
    return Region(source.name, cutout, raw, labels if learns else None, known)


def _choose(argument: str, asked: str | None, source: Source, wanted: Sequence[str]) -> str:
    """The channel that was named, or the only one that can be meant."""
    if asked is not None:
        volumes = source.arguments.volumes
        if asked not in volumes:
            raise ArgumentError(
                f"{argument}={asked!r}: {source.name} has no such channel; there are {listing(volumes)}."
                f"{suggest(str(asked), volumes)}"
            )
        return asked
    kinds = {name: channel.kind for name, channel in source.arguments.chosen.items()}
    for best in wanted:
        fitting = [name for name, kind in kinds.items() if kind == best]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            names = listing(fitting)
            raise ArgumentError(f"{source.name} has several channels of kind {best}: give {argument}= one of {names}")
    there = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
    advice = (
        f"name one with {argument}=" if argument == "raw" else "choose other channels=, or target=None for raw alone"
    )
    raise ArgumentError(
        f"{source.name} has no channel of kind {' or '.join(wanted)} to take as {argument}; there are {there}: {advice}"
    )


def check_same_classes(regions: Sequence[Region]) -> None:
    """Refuse regions in which one number means two classes.

    Raises:
        ArgumentError: the message says how to name them.
    """
    named = {None if region.classes is None else region.classes.names for region in regions}
    if len(named) > 1:
        raise ArgumentError(
            "the sources have other classes, so that one number would mean two things: give"
            " classes=source.classes(column, names=[...]) with those that all of them have"
        )


def check_alike(regions: Sequence[Region]) -> None:
    """Refuse regions whose samples do not fit into one batch.

    Raises:
        ArgumentError: other numbers of channels, or other voxel sizes; the message says which.
    """
    first, *others = regions
    for other in others:
        if other.num_channels != first.num_channels:
            raise ArgumentError(
                f"{first.entry} has {first.num_channels} channels of raw, {other.entry} {other.num_channels}: choose"
                " one that all have, with channel=0 or the like"
            )
        sizes = [region.cutout.grid.voxel_size_nm for region in (first, other)]
        if not same_size(*sizes):
            raise ArgumentError(
                f"{first.entry} has voxels of {format_xyz(sizes[0])} nm (x, y, z), {other.entry} of"
                f" {format_xyz(sizes[1])}: ask for one resolution=, or mix them as datasets in emcatalog.torch.loader"
            )
