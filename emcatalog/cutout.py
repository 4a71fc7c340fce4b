"""A box of several channels on one grid: planned, fetched, read. Everything a driver does, without Intake."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Final

from numpy.typing import NDArray

from emcatalog.cutout_channel import CutoutChannel
from emcatalog.entries import VolumeArguments, check_channel, typical_ratio
from emcatalog.errors import AlignmentError, ArgumentError, NotCachedError, OutOfBoundsError, TooLargeError, listing
from emcatalog.fetch import FetchReport, Progress, Task, fetch
from emcatalog.formats.opening import describe_volume, open_volume
from emcatalog.formats.volume import ArraySpec, Volume
from emcatalog.geometry import (
    AXES,
    Box,
    Grid,
    NmBox,
    ZyxNm,
    format_xyz,
    reverse,
    same_size,
    whole_if_near,
    zyx,
)
from emcatalog.memory import available_bytes
from emcatalog.mirror.array import Gap, MirrorArray
from emcatalog.mirror.cache import Cache
from emcatalog.mirror.layout import SHARD_SIDE, choose_layout
from emcatalog.plan import ChannelPlan, Plan
from emcatalog.settings import Settings, load_settings

StartProgress = Callable[[int, int], Progress]
"""Called once with the chunks and the decoded bytes that are to come; what it returns is called as they arrive."""


MOST_CHUNKS: Final = 4_000_000
"""Of one channel in one fetch: what is missing is listed in memory. About 10,000 voxels cubed in chunks of 64."""


@dataclass(frozen=True)
class Cutout:
    """A box of channels that stand on one grid. Nothing is fetched until something is asked for."""

    channels: Mapping[str, CutoutChannel]
    """By name; the first one's grid is the cutout's."""
    grid: Grid
    """Of the first channel, with the extent that all channels share."""
    box: Box
    """What was asked for, in voxels of ``grid``."""
    settings: Settings
    """Where the mirror lies, and how the source is reached."""

    def __getstate__(self) -> dict[str, Any]:
        """Without open stores: they are opened again where this is unpickled."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @cached_property
    def _open(self) -> _OpenStores:
        return _OpenStores(self.settings)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole result."""
        return sum(channel.nbytes(self.box) for channel in self.channels.values())

    def of(self, name: str) -> Cutout:
        """One channel alone."""
        return self._sharing(replace(self, channels={name: self.channels[name]}))

    def at(self, box: Box) -> Cutout:
        """The same channels in another box of the same grid; open stores are shared."""
        return self._sharing(replace(self, box=box))

    def _sharing(self, other: Cutout) -> Cutout:
        other.__dict__["_open"] = self._open
        return other

    def plan(self) -> Plan:
        """What a read would fetch; touches no voxel and begins no mirror.

        Raises:
            CacheError: the cache is corrupt.
        """
        plans = {name: self._plan(channel) for name, channel in self.channels.items()}
        return Plan(plans, self.box, self.grid.voxel_size_nm)

    def fetch(self, progress: StartProgress | None = None) -> FetchReport:
        """Fill the mirror with what the box lacks.

        Raises:
            TooLargeError: a box of so many chunks that they cannot be listed.
            NotCachedError: offline, and something is missing.
            SourceError: the source failed, after its retries.
            CacheError: the mirror cannot be written.
        """
        gaps = {name: self._gaps(self._mirror(name), channel.box(self.box)) for name, channel in self.channels.items()}
        if any(gaps.values()) and self.settings.offline:
            raise NotCachedError(f"offline, and {self._lacking(gaps)}; fetch() the box while there is a network")
        tasks = {name: self._task(name, gaps[name]) for name in self.channels}
        missing = [(task, unit) for task in tasks.values() for gap in task.gaps for unit in gap.units]
        started = None
        if progress and missing:
            started = progress(len(missing), sum(task.nbytes(unit) for task, unit in missing))
        try:
            return fetch(tasks, started)
        except BaseException:
            self._open.abandon_volumes()
            raise

    def read(self, progress: StartProgress | None = None) -> dict[str, NDArray[Any]]:
        """The voxels of every channel, (z, y, x) or (c, z, y, x), fetched where they are missing.

        Raises:
            TooLargeError: the result would not fit in the memory at hand; nothing was fetched.
            NotCachedError, SourceError, CacheError: as ``fetch``.
        """
        self.check_memory()
        self.fetch(progress)
        readings = {name: self._mirror(name).read(channel.box(self.box)) for name, channel in self.channels.items()}
        return {name: self.channels[name].arrange(reading.result(), self.box) for name, reading in readings.items()}

    def check_memory(self) -> None:
        """Refuse a result that would not fit.

        Raises:
            TooLargeError: it would not; the message says what to use instead.
        """
        available = available_bytes()
        if self.nbytes <= available:
            return
        side = int((available / self.nbytes * self.box.voxels) ** (1 / 3)) // 64 * 64
        sizes = [f"{name} {channel.nbytes(self.box) / 1e9:.1f} GB" for name, channel in self.channels.items()]
        raise TooLargeError(
            f"a box of {format_xyz(self.box.shape)} voxels (x, y, z) is {self.nbytes / 1e9:.1f} GB in memory"
            f" ({', '.join(sizes)}), and {available / 1e9:.1f} GB can be had. Use to_dask() for a lazy Dataset, fetch()"
            f" to fill the cache alone, a smaller bbox (a cube of {side} fits), fewer channels, or a coarser resolution"
        )

    def coordinates_nm(self) -> dict[str, list[float]]:
        """Voxel centres along z, y and x."""
        return dict(zip("zyx", self.grid.centres_nm(self.box), strict=True))

    def attributes(self) -> dict[str, Any]:
        """What a Dataset of this box says about itself; triples and boxes in x, y, z."""
        space = self.grid.to_nm(self.box)
        corners = zip(reversed(space.begin_nm), reversed(space.end_nm), strict=True)
        edges = [
            (edge, size) for pair, size in zip(corners, reversed(self.grid.voxel_size_nm), strict=True) for edge in pair
        ]
        return {
            "voxel_size_nm": list(reversed(self.grid.voxel_size_nm)),
            "origin_nm": list(reversed(space.begin_nm)),
            # As a caller writes it: counted from where space begins, wherever the source's first voxel stands.
            "bbox": [whole_if_near(edge / size) for edge, size in edges],
            "bbox_nm": [edge for edge, _ in edges],
            "order_of_attributes": "x, y, z",
        }

    def channel_attributes(self, name: str) -> dict[str, Any]:
        """What one channel says about itself."""
        channel = self.channels[name]
        return {
            "kind": channel.model.kind,
            "source": channel.url,
            "scale": channel.spec.key,
            "encoding_at_source": channel.spec.encoding,
            **({} if channel.only is None else {"channel": channel.only}),
            **({} if channel.alignment.is_shift else {"aligned": f"nearest, from {_size(channel.spec)} nm (x, y, z)"}),
        }

    def block_sizes(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Sizes along z, y and x of blocks cut where the mirrors' shards are: no two blocks fill one shard."""
        z, y, x = (tuple(b - a for a, b in pairwise(edges)) for edges in map(self._edges, range(3)))
        return z, y, x

    def _edges(self, axis: int) -> list[int]:
        cuts = [self._lattice(channel, axis) for channel in self.channels.values()]
        side, phase = max(cuts)
        begin, end = self.box.begin[axis], self.box.end[axis]
        return [begin, *range((begin - phase) // side * side + side + phase, end, side), end]

    @staticmethod
    def _lattice(channel: CutoutChannel, axis: int) -> tuple[int, int]:
        """Edge of a shard, and where one begins, in voxels of the cutout."""
        if not channel.alignment.is_shift:
            return SHARD_SIDE, 0  # a shard of coarse voxels would be a block of gigabytes
        side = choose_layout(channel.spec).shard[axis - 3]
        return side, channel.spec.grid.offset[axis] - channel.alignment.indices(axis, 0, 1)[0]

    def _plan(self, channel: CutoutChannel) -> ChannelPlan:
        box = channel.box(self.box)
        mirror = self._open.cache.array(channel.model.location, channel.spec, create=False)
        if mirror is None:
            index, unit = box.translate([-first for first in channel.spec.offset]), choose_layout(channel.spec).unit
            wanted = missing = index.cells(unit)
            voxels = _downloaded(channel.spec, [index.grow_to(unit)])
        else:
            units = [unit for gap in self._gaps(mirror, box) for unit in gap.units]
            wanted, missing, voxels = mirror.count(box), len(units), _downloaded(channel.spec, units)
        download = typical_ratio(channel.spec.encoding) * voxels * channel.dtype.itemsize
        return ChannelPlan(wanted, wanted - missing, channel.nbytes(self.box), int(download))

    def _gaps(self, mirror: MirrorArray, box: Box) -> list[Gap]:
        wanted = mirror.count(box)
        if wanted > MOST_CHUNKS:
            raise TooLargeError(
                f"a box of {format_xyz(self.box.shape)} voxels (x, y, z) touches {wanted:,} chunks of {mirror.source};"
                f" fetch at most {MOST_CHUNKS:,} at once: take the box in parts, or a coarser resolution"
            )
        return mirror.gaps(box)

    def _mirror(self, name: str) -> MirrorArray:
        return self._open.mirror(name, self.channels[name])

    def _task(self, name: str, gaps: list[Gap]) -> Task:
        channel, mirror = self.channels[name], self._mirror(name)
        volume = self._open.volume(name, channel) if gaps else None
        return Task(mirror, volume, gaps, wanted=mirror.count(channel.box(self.box)))

    def _lacking(self, gaps: Mapping[str, list[Gap]]) -> str:
        parts = []
        for name in self.channels:
            mirror, units = self._mirror(name), [unit for gap in gaps[name] for unit in gap.units]
            if units:
                wanted = mirror.count(self.channels[name].box(self.box))
                parts.append(
                    f"{name} lacks {len(units)} of {wanted} chunks (the first at {mirror.source_box(units[0])})"
                )
        return "; ".join(parts)


class _OpenStores:
    """The stores that a cutout has opened, so that its pieces open nothing again."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.cache = Cache.at(settings)
        self._mirrors: dict[str, MirrorArray] = {}
        self._volumes: dict[str, Volume] = {}

    def mirror(self, name: str, channel: CutoutChannel) -> MirrorArray:
        """The mirror of a channel, made where there is none.

        Raises:
            NotCachedError: offline, and there is none.
        """
        if name not in self._mirrors:
            found = self.cache.array(channel.model.location, channel.spec, create=not self._settings.offline)
            if found is None:
                raise NotCachedError(
                    f"offline, and nothing of {channel.url}, scale {channel.spec.key}, was ever fetched into"
                    f" {self.cache.url}; fetch() the box while there is a network"
                )
            self._mirrors[name] = found
        return self._mirrors[name]

    def abandon_volumes(self) -> None:
        """Let what was asked of the sources and is not needed any more come to an end; they are opened anew."""
        for volume in self._volumes.values():
            volume.stop.set()
        self._volumes.clear()

    def volume(self, name: str, channel: CutoutChannel) -> Volume:
        """The source of a channel."""
        if name not in self._volumes:
            model = channel.model
            keep = self.cache.kept_files(model.location)
            self._volumes[name] = open_volume(model, channel.spec, self._settings, keep)
        return self._volumes[name]


def _downloaded(spec: ArraySpec, boxes: Iterable[Box]) -> int:
    """How many voxels are downloaded for some boxes of a mirror: those of whole files, where only they can be had."""
    clipped = [part for box in boxes if (part := box.intersect(spec.everything)) is not None]
    if spec.file is None:
        return sum(box.voxels for box in clipped)
    files = {file.begin for box in clipped for file in box.grow_to(spec.file).split(spec.file)}
    return len(files) * math.prod(spec.file)


def _size(spec: ArraySpec) -> str:
    return format_xyz(spec.grid.voxel_size_nm)


def open_cutout(arguments: VolumeArguments) -> Cutout:
    """Find the scales, the common grid and the box; asks the network only for volumes never opened before.

    Raises:
        ArgumentError: a resolution that a channel does not have, channels that do not align.
        OutOfBoundsError: a box that lies outside the volume, or partly outside without ``clip``.
        SourceError, CacheError: a description that cannot be had.
    """
    settings = load_settings(cache_dir=arguments.cache_dir, offline=arguments.offline)
    cache = Cache.at(settings)
    size = arguments.resolution_nm
    specs = {name: _find_scale(name, arguments, cache, settings) for name in arguments.chosen}
    reference = _reference(specs, size).grid
    channels = {name: _channel(name, specs[name], reference, arguments) for name in specs}
    _check_channel_index(channels, arguments)
    grid = _shared_grid(reference, channels)
    return Cutout(channels, grid, _clip(arguments, grid), settings)


def _reference(specs: Mapping[str, ArraySpec], size: ZyxNm) -> ArraySpec:
    """The scale whose grid is the cutout's: of the first channel that has the resolution.

    Raises:
        ArgumentError: none has it.
    """
    for spec in specs.values():
        if same_size(spec.grid.voxel_size_nm, size):
            return spec
    there = "; ".join(f"{name} {format_xyz(spec.grid.voxel_size_nm)}" for name, spec in specs.items())
    raise ArgumentError(
        f"no channel has voxels of {format_xyz(size)} nm (x, y, z), on whose grid the others could be put; the nearest"
        f" are {there}"
    )


def _channel(name: str, spec: ArraySpec, reference: Grid, arguments: VolumeArguments) -> CutoutChannel:
    align = reference.nearest_in if arguments.nearest else reference.shift_to
    try:
        alignment = align(spec.grid)
    except AlignmentError as error:
        raise AlignmentError(f"channel {name}: {error}") from error
    only = None if spec.num_channels is None else arguments.channel_index
    return CutoutChannel(arguments.chosen[name], spec, alignment, only)


def _check_channel_index(channels: Mapping[str, CutoutChannel], arguments: VolumeArguments) -> None:
    """What the catalog could not check, since it need not say how many channels a volume has."""
    index, counts = arguments.channel_index, {name: channel.spec.num_channels for name, channel in channels.items()}
    if index is None:
        return
    for name, count in counts.items():
        if count is not None:
            check_channel(name, index, count)
    # Of labels alone nobody asked for a channel: the index is the entry's own, and meant for its image.
    if not any(counts.values()) and set(counts) == set(arguments.volumes):
        raise ArgumentError(f"channel={index}: none of {listing(counts)} has several channels; leave channel away")


def _find_scale(name: str, arguments: VolumeArguments, cache: Cache, settings: Settings) -> ArraySpec:
    model, size = arguments.chosen[name], arguments.resolution_nm
    known = cache.volume(model.location)
    if settings.offline and known is None:
        raise NotCachedError(f"offline, and {model.url} was never opened with the cache {cache.url}")
    if known is None or not (settings.offline or known.has(size) or arguments.nearest):
        # Never opened before, or opened before this scale was published.
        known = describe_volume(model, settings, cache.kept_files(model.location))
        cache.keep_volume(model.location, known)
    if arguments.nearest:
        return known.nearest(size)
    try:
        return known.at(size)
    except ArgumentError as error:
        if len(arguments.chosen) == 1:
            raise
        raise ArgumentError(f"{error}; align='nearest' puts it on the grid of the other channels") from error


def _shared_grid(reference: Grid, channels: Mapping[str, CutoutChannel]) -> Grid:
    shared: Box | None = None
    for name, channel in channels.items():
        covered = channel.alignment.covered_by(channel.spec.grid.extent)
        overlap = covered if shared is None or covered is None else shared.intersect(covered)
        if overlap is None:
            raise ArgumentError(f"channel {name} has no voxel in common with the others; read it alone")
        shared = overlap
    assert shared is not None, "an entry has at least one channel"
    return Grid(zyx(shared.shape), reference.voxel_size_nm, zyx(shared.begin), reference.origin_nm)


def _clip(arguments: VolumeArguments, grid: Grid) -> Box:
    if arguments.box_nm is None:
        return grid.extent
    asked = grid.from_nm(arguments.box_nm)
    shared = asked.intersect(grid.extent)
    if shared == asked or (shared is not None and arguments.clip):
        return shared
    state = "outside" if shared is None else "partly outside"
    advice = "" if shared is None else "; pass clip=True to read the part inside"
    extent = grid.to_nm(grid.extent)
    raise OutOfBoundsError(
        f"the box {_in_both(arguments.box_nm, arguments)} is {state} what the channels"
        f" {', '.join(arguments.chosen)} cover: {_in_both(extent, arguments)}{advice}"
    )


def _in_both(box: NmBox, arguments: VolumeArguments) -> str:
    """A box in nominal voxels and in nm, first as the caller counts: the wrong unit is the commonest mistake."""
    size = reverse(arguments.voxel_size)
    pairs = zip(AXES, box.begin_nm, box.end_nm, size, strict=True)
    axes = [f"{axis} {begin / edge:.10g}..{end / edge:.10g}" for axis, begin, end, edge in pairs]
    voxels = f"{', '.join(reversed(axes))} voxels"
    first, second = (str(box), voxels) if arguments.units == "nm" else (voxels, str(box))
    return f"{first} (that is {second})"
