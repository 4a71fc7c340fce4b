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
from emcatalog.geometry import Box, Grid, Zyx, format_xyz, same_size, zyx
from emcatalog.points import OpenPoints, Points, open_points


class Source(Protocol):
    """An entry that was given its arguments, as far as patches need it."""

    @property
    def name(self) -> str:
        """Of the entry."""

    @property
    def arguments(self) -> VolumeArguments:
        """What the catalog declares and the caller chose."""


@dataclass(frozen=True)
class Learned:
    """What a network is to learn: labels of a channel, what they are classes of, or points of a table."""

    kinds: Sequence[str] = ()
    """Of channels that labels may be taken from, best first; empty where none is read."""
    labels: str | None = None
    """Name of the channel. Default: the only one of a kind that fits."""
    classes: str | Classes | None = None
    """What its instances are, in the place of their ids: a column of the entry's tables."""
    class_names: Sequence[object] | None = None
    """Which classes count."""
    points: Points | None = None
    """What is painted in the place of labels."""


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
    """Name of the channel that it learns; None where there is nothing to learn, or where points are painted."""
    classes: Classes | None = None
    """What is learned in the place of the labels' ids; None where it is they."""
    points: OpenPoints | None = None
    """What is painted in the place of labels."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes 1, 2, 3, ..., or of the kinds of points; empty where ids are learned."""
        if self.points is not None:
            return self.points.kinds
        return () if self.classes is None else self.classes.names

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
        learns = self.labels is not None or self.points is not None
        return RegionReading(self, raw, self.begin_labels(patch, halo) if learns else None)

    def begin_labels(self, patch: Box, halo: Zyx) -> LabelsReading | PointsReading:
        """Begin to read the labels of a patch with their halo."""
        begin = [a - h for a, h in zip(patch.begin, halo, strict=True)]
        end = [b + h for b, h in zip(patch.end, halo, strict=True)]
        box = Box(zyx(begin), zyx(end))
        if self.points is not None:
            return PointsReading(self.points, self.cutout.grid, box)
        assert self.labels is not None, "a region without labels has none to read"
        return LabelsReading(self.cutout.of(self.labels).at(box).begin_patch(), self.labels, self.classes)

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
class PointsReading:
    """Points that are to be painted: they are in memory."""

    points: OpenPoints
    grid: Grid
    box: Box

    def result(self) -> NDArray[Any]:
        """A bit for each kind of point, (z, y, x)."""
        return self.points.paint(self.grid, self.box)


@dataclass(frozen=True, slots=True)
class RegionReading:
    """A patch on its way into memory."""

    region: Region
    raw: PatchReading
    labels: LabelsReading | PointsReading | None

    def result(self) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Raw (c, z, y, x), and labels (z, y, x) with their halo.

        Raises:
            NotCachedError, SourceError, CacheError: what is missing cannot be fetched.
        """
        raw = self.raw.result()[self.region.raw]
        raw = raw if self.region._is_4d else raw[None]
        return raw, None if self.labels is None else self.labels.result()


def open_regions(sources: Sequence[Source], raw: str | None, learned: Learned) -> list[Region]:
    """The regions that sources are.

    Args:
        sources: entries with their arguments.
        raw: name of the channel that a network gets. Default: the image.
        learned: what it learns.

    Raises:
        ArgumentError: a channel, a table or a column that is not there, or several channels of which none is named; or
            regions whose samples do not fit into one batch.
        MissingExtraError, TooLargeError: a table that cannot be read here.
        SourceError, CacheError: a description or a table that cannot be had.
    """
    found: dict[tuple[str, ...], Classes] = {}  # boxes of one entry share them
    regions = []
    for source in sources:
        classes, tables = learned.classes, tuple(table.url for table in source.arguments.annotations)
        if isinstance(classes, str):
            if tables not in found:
                found[tables] = open_classes(source.arguments, classes, learned.class_names)
            classes = found[tables]
        regions.append(open_region(source, raw, learned.labels, classes, learned.points, learns=learned.kinds))
    _check_alike(regions)
    _check_same_names(regions)
    if isinstance(learned.classes, Classes):
        _check_same_labels(regions)
    return regions


def open_region(
    source: Source,
    raw: str | None,
    labels: str | None,
    classes: Classes | None = None,
    points: Points | None = None,
    *,
    learns: Sequence[str],
) -> Region:
    """The region that a source is.

    Args:
        source: an entry with its arguments.
        raw: name of the channel that a network gets. Default: the image.
        labels: name of the channel that it learns. Default: the only one of a kind that fits.
        classes: what its instances are, in the place of their ids.
        points: what is painted in the place of labels.
        learns: kinds of channels that fit, best first; empty where none is read.

    Raises:
        ArgumentError, MissingExtraError, TooLargeError, SourceError, CacheError: as ``open_regions``.
    """
    arguments = source.arguments
    if arguments.consecutive:
        raise ArgumentError(
            f"{source.name}: consecutive=True of an entry is for read(); give it to to_torch, for a patch"
        )
    raw = _choose("raw", raw, source, ("image",))
    labels = _choose("labels", labels, source, learns) if learns else None
    cutout = open_cutout(arguments.with_channels([raw] if labels is None else [raw, labels]))
    if labels is not None and cutout.channels[labels].has_channels:
        raise ArgumentError(f"{source.name}: {labels} has an axis of channels, which labels must not; name another")
    if labels is not None and cutout.channels[labels].dtype.kind not in "ui":
        raise ArgumentError(f"{source.name}: {labels} holds {cutout.channels[labels].dtype}, which are no labels")
    painted = None if points is None else open_points(points, cutout.grid, cutout.box)
    return Region(source.name, cutout, raw, labels, classes, painted)


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


def _check_same_names(regions: Sequence[Region]) -> None:
    """Refuse regions in which one number, or one channel, means two things.

    Raises:
        ArgumentError: the message says how to name them.
    """
    first, *others = regions
    for other in others:
        if other.names == first.names:
            continue
        if first.points is not None:
            raise ArgumentError(
                f"{first.entry} has points of the kinds {listing(first.names)}, {other.entry} {listing(other.names)}:"
                " take another column by=, or None"
            )
        raise ArgumentError(
            f"the classes of {first.entry} and {other.entry} differ, so that one number would mean two things: name"
            " those that count, and that both have, with class_names="
        )


def _check_same_labels(regions: Sequence[Region]) -> None:
    """Refuse classes of one volume's instances for those of another.

    Raises:
        ArgumentError: the message says how to name them.
    """
    if len({region.cutout.channels[region.labels or ""].url for region in regions}) > 1:
        raise ArgumentError(
            "the instances of the sources are those of different volumes, and classes= those of one: give classes= the"
            " name of a column, and class_names= for those that count"
        )


def _check_alike(regions: Sequence[Region]) -> None:
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
