"""A box of several channels on one grid: planned, fetched, read. Everything a driver does, without Intake."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

from numpy.typing import NDArray

from emcatalog.buffers import BUFFERS
from emcatalog.claims import CLAIMS, Key
from emcatalog.cutout_channel import CutoutChannel
from emcatalog.cutout_stores import OpenStores
from emcatalog.entries.volume import typical_ratio
from emcatalog.errors import NotCachedError, TooLargeError
from emcatalog.fetch import FetchReport, Progress, Task, fetch, join
from emcatalog.formats.volume import ArraySpec
from emcatalog.geometry import Box, Grid, format_xyz, whole_if_near
from emcatalog.memory import available_bytes
from emcatalog.mirror.array import Gap, MirrorArray, Reading
from emcatalog.mirror.layout import SHARD_SIDE, choose_layout
from emcatalog.plan import ChannelPlan, Plan
from emcatalog.settings import Settings

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

    @property
    def _open(self) -> OpenStores:
        # Threads that come first at the same time must end with the same stores: setdefault is one step.
        found: OpenStores | None = self.__dict__.get("_stores")
        return found or self.__dict__.setdefault("_stores", OpenStores(self.settings))

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
        other.__dict__["_stores"] = self._open
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
        reports: list[FetchReport] = []
        while True:
            gaps = self._missing()
            keys = {(self._mirror(name).path, unit.begin) for name, unit in self._units(gaps)}
            if keys and self.settings.offline:
                raise NotCachedError(f"offline, and {self._lacking(gaps)}; fetch() the box while there is a network")
            with CLAIMS.take(keys) as (mine, others):
                reports.append(self._fetch(mine, progress))
            if not others:
                return join(reports)
            for other in others:
                other.wait()

    def _fetch(self, keys: Set[Key], progress: StartProgress | None) -> FetchReport:
        """Fetch the units that were claimed and are still missing."""
        with self._open.fetching():
            gaps = self._missing() if keys else {}
            tasks = {name: self._task(name, self._only(keys, name, gaps.get(name, []))) for name in self.channels}
            missing = [(task, unit) for task in tasks.values() for gap in task.gaps for unit in gap.units]
            started = None
            if progress and missing:
                started = progress(len(missing), sum(task.nbytes(unit) for task, unit in missing))
            return fetch(tasks, started)

    def read(self, progress: StartProgress | None = None) -> dict[str, NDArray[Any]]:
        """The voxels of every channel, (z, y, x) or (c, z, y, x), fetched where they are missing.

        Raises:
            TooLargeError: the result would not fit in the memory at hand; nothing was fetched.
            NotCachedError, SourceError, CacheError: as ``fetch``.
        """
        self.check_memory()
        self.fetch(progress)
        readings = {name: self._mirror(name).read(channel.box(self.box)) for name, channel in self.channels.items()}
        return self._arranged(readings)

    def begin_patch(self) -> PatchReading:
        """Begin to read a small box that is most likely there: what is missing is found by reading, and fetched then.

        To ask first which chunks are there would take time for every patch of a training, and find all of them.

        Raises:
            NotCachedError, SourceError, CacheError: the mirror cannot be opened.
        """
        return PatchReading(self, {name: self._begin_patch(name) for name in self.channels})

    def _begin_patch(self, name: str) -> Reading:
        channel = self.channels[name]
        mirror, box = self._open.patches(name, channel), channel.box(self.box)
        return mirror.read_into(BUFFERS.empty(box.shape, mirror.spec.dtype), box)

    def _arranged(self, readings: Mapping[str, Reading]) -> dict[str, NDArray[Any]]:
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

    def _missing(self) -> dict[str, list[Gap]]:
        return {name: self._gaps(self._mirror(name), channel.box(self.box)) for name, channel in self.channels.items()}

    @staticmethod
    def _units(gaps: Mapping[str, Sequence[Gap]]) -> Iterator[tuple[str, Box]]:
        return ((name, unit) for name, shards in gaps.items() for gap in shards for unit in gap.units)

    def _only(self, keys: Set[Key], name: str, gaps: Sequence[Gap]) -> list[Gap]:
        path = self._mirror(name).path
        kept = [Gap(gap.shard, tuple(unit for unit in gap.units if (path, unit.begin) in keys)) for gap in gaps]
        return [gap for gap in kept if gap.units]

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


@dataclass(frozen=True, slots=True)
class PatchReading:
    """A small box on its way from the mirror into memory."""

    cutout: Cutout
    """The channels and the box."""
    readings: Mapping[str, Reading]
    """By channel."""

    def result(self) -> dict[str, NDArray[Any]]:
        """The voxels by channel, fetched where they are missing.

        Raises:
            NotCachedError, SourceError, CacheError: as ``Cutout.fetch``.
        """
        try:
            return self.cutout._arranged(self.readings)
        except NotCachedError:
            self.cutout.fetch()
            self.cutout._open.renew_patches()
            return self.cutout._arranged(self.cutout.begin_patch().readings)


def _downloaded(spec: ArraySpec, boxes: Iterable[Box]) -> int:
    """How many voxels are downloaded for some boxes of a mirror: those of whole files, where only they can be had."""
    clipped = [part for box in boxes if (part := box.intersect(spec.everything)) is not None]
    if spec.file is None:
        return sum(box.voxels for box in clipped)
    files = {file.begin for box in clipped for file in box.grow_to(spec.file).split(spec.file)}
    return len(files) * math.prod(spec.file)


def _size(spec: ArraySpec) -> str:
    return format_xyz(spec.grid.voxel_size_nm)
