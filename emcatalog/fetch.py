"""From the source into the mirror: what is missing, grouped by shard, each shard written once.

TensorStore copies from one store into the other; a transaction for each shard makes its file appear whole or not at
all. Memory is bounded by the shards in flight, never by the box.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Final

import numpy as np
import tensorstore as ts

from emcatalog.errors import SourceError
from emcatalog.formats.volume import Volume
from emcatalog.geometry import Box, Index
from emcatalog.memory import release_free_memory
from emcatalog.mirror.array import Gap, MirrorArray, cache_errors
from emcatalog.stores import is_absent, source_errors, wait

IN_FLIGHT_BYTES: Final = 192 << 20
"""Decoded bytes of the shards that are read and written at one time."""

TRIM_BYTES: Final = 512 << 20
"""After so many decoded bytes freed memory is given back."""

Progress = Callable[[int, int], None]
"""Called with chunks and decoded bytes, each time some have arrived."""


@dataclass(frozen=True, slots=True)
class ChannelReport:
    """What a fetch did for one channel. Chunks are those of the source."""

    fetched: int
    """Chunks that the source was asked for, those that it lacks among them."""
    reused: int
    """Chunks that were in the mirror."""
    absent: int
    """Of the fetched chunks, those that the source says do not exist: kept as background."""
    fetched_bytes: int
    """Decoded bytes of what was fetched, background included."""


@dataclass(frozen=True, slots=True)
class FetchReport:
    """What a fetch did."""

    channels: Mapping[str, ChannelReport]
    """By channel."""
    seconds: float
    """From the first request to the last shard on disk."""

    @property
    def fetched(self) -> int:
        """Chunks that the source was asked for, those that it lacks among them."""
        return sum(channel.fetched for channel in self.channels.values())

    @property
    def reused(self) -> int:
        """Chunks that were in the mirror."""
        return sum(channel.reused for channel in self.channels.values())

    @property
    def absent(self) -> int:
        """Chunks that the source says do not exist."""
        return sum(channel.absent for channel in self.channels.values())

    @property
    def fetched_bytes(self) -> int:
        """Decoded bytes of what was fetched."""
        return sum(channel.fetched_bytes for channel in self.channels.values())

    @property
    def rate(self) -> float:
        """Decoded bytes a second."""
        return self.fetched_bytes / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        """One line for a person."""
        return (
            f"fetched {self.fetched} chunks ({self.fetched_bytes / 1e6:.1f} MB decoded), reused {self.reused},"
            f" absent at the source {self.absent}, in {self.seconds:.1f} s ({self.rate / 1e6:.0f} MB/s)"
        )


@dataclass(slots=True)
class Task:
    """One channel of a fetch."""

    mirror: MirrorArray
    """Where the voxels go."""
    volume: Volume | None
    """Where they come from; None where nothing is missing, so that a warm read asks nobody."""
    gaps: Sequence[Gap]
    """What is missing."""
    wanted: int
    """Chunks that the box touches, missing or not."""
    fetched: int = 0
    absent: int = 0
    fetched_bytes: int = 0

    def nbytes(self, unit: Box) -> int:
        """Decoded bytes of a unit."""
        return unit.voxels * np.dtype(self.mirror.spec.dtype).itemsize

    def report(self) -> ChannelReport:
        """What was done so far."""
        missing = sum(len(gap.units) for gap in self.gaps)
        return ChannelReport(self.fetched, self.wanted - missing, self.absent, self.fetched_bytes)


def join(reports: Sequence[FetchReport]) -> FetchReport:
    """What several fetches of one box did together; what one of them left to another thread counts as reused."""
    first, *_ = reports
    channels = {}
    for name, channel in first.channels.items():
        fetched, absent, nbytes = (
            sum(getattr(report.channels[name], count) for report in reports)
            for count in ("fetched", "absent", "fetched_bytes")
        )
        channels[name] = ChannelReport(fetched, channel.fetched + channel.reused - fetched, absent, nbytes)
    return FetchReport(channels, sum(report.seconds for report in reports))


def fetch(tasks: Mapping[str, Task], progress: Progress | None = None) -> FetchReport:
    """Fill the gaps of every channel, interleaved.

    Shards are finished in order. An interrupt or an error leaves what was finished, and nothing of the shards that
    were not.

    Raises:
        SourceError: the source failed, after its retries.
        CacheError: the mirror cannot be written.
    """
    started = time.perf_counter()
    in_flight: deque[_ShardFetch] = deque()
    since_trim = 0
    try:
        for task, gap in _interleave(list(tasks.values())):
            shard = _ShardFetch(task, gap)
            since_trim += shard.nbytes
            if since_trim > TRIM_BYTES:
                release_free_memory()
                since_trim = 0
            while in_flight and sum(other.nbytes for other in in_flight) + shard.nbytes > IN_FLIGHT_BYTES:
                in_flight[0].finish(progress)
                in_flight.popleft()
            in_flight.append(shard)  # before it starts: an interrupt in the middle of that must find it here
            shard.start()
            _commit_arrived(in_flight)
        while in_flight:
            in_flight[0].finish(progress)
            in_flight.popleft()
    finally:
        for shard in in_flight:
            shard.give_up()
    return FetchReport({name: task.report() for name, task in tasks.items()}, time.perf_counter() - started)


@dataclass(slots=True)
class _ShardFetch:
    """One shard on its way: its missing units are copied in one transaction."""

    task: Task
    gap: Gap
    transaction: ts.Transaction = field(init=False, default_factory=ts.Transaction)
    copies: list[tuple[Box, ts.WriteFutures]] = field(init=False, default_factory=list)
    nbytes: int = field(init=False)
    commit: ts.Future[Any] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.nbytes = sum(self.task.nbytes(unit) for unit in self.gap.units)

    @property
    def volume(self) -> Volume:
        assert self.task.volume is not None, "a gap without a source to fill it from"
        return self.task.volume

    def start(self) -> None:
        target = self.task.mirror.store.with_transaction(self.transaction)
        source = self._in_mirror(self.volume.strict)
        # One batch for the shard: chunks that lie side by side in the source's file become one request.
        batch = ts.Batch()
        indexed = [(unit, unit.slices) for unit in self.gap.units]
        self.copies = [(unit, target[index].write(source[index], batch=batch)) for unit, index in indexed]
        batch.submit()

    def arrived(self) -> bool:
        return all(copy.done() for _, copy in self.copies)

    def write(self) -> None:
        """Wait for the voxels, then begin to write the shard."""
        if self.commit is not None:
            return
        absent = sum(self._settle(unit, copy) for unit, copy in self.copies) + self._count_absent()
        self.copies = []
        self.commit = self.transaction.commit_async()
        self.task.absent += absent

    def finish(self, progress: Progress | None) -> None:
        """Wait until the shard is on disk."""
        self.write()
        assert self.commit is not None
        with cache_errors(self.task.mirror.path):
            wait(self.commit)
        self.task.fetched += len(self.gap.units)
        self.task.fetched_bytes += self.nbytes
        if progress:
            progress(len(self.gap.units), self.nbytes)

    def give_up(self) -> None:
        """Forget what was not written yet. What is on its way to the disk cannot be called back: wait for it."""
        if self.commit is None:
            self.transaction.abort()
        else:
            with suppress(ValueError, OSError, RuntimeError):
                self.commit.result()

    def _settle(self, unit: Box, copy: ts.WriteFutures) -> bool:
        """Wait for one unit; where the source lacks it, background is what belongs there. Returns whether it does."""
        with source_errors(self._name(unit)):
            try:
                wait(copy)
            except (ValueError, OSError, RuntimeError) as error:
                if not is_absent(error):
                    raise
                self._fill_background(unit)
                return True
        return False

    def _count_absent(self) -> int:
        """Of the units that arrived, those that are background only because the source has nothing there."""
        holds = self.volume.holds
        if holds is None:
            return 0
        with cache_errors(self.task.mirror.path):
            empty = self._empty_units()
        absent = 0
        for unit in empty:
            with source_errors(self._name(unit)):
                chunks = unit.split(self.volume.spec.chunk)
                absent += not any(holds(self.task.mirror.source_box(chunk)) for chunk in chunks)
        return absent

    def _empty_units(self) -> list[Box]:
        view = self.task.mirror.uncommitted.with_transaction(self.transaction)
        steps = tuple(slice(None, None, side) for side in self.task.mirror.layout.unit)
        # The first voxel of every unit, in one read, tells most chunks of tissue from background.
        corners = wait(view[self.gap.shard.slices][steps].read())
        origin = self.gap.shard.begin
        empty = [unit for unit in self.gap.units if not corners[self._cell(unit, origin)]]
        return [unit for unit in empty if not view[unit.slices].read().result().any()]

    def _name(self, unit: Box) -> str:
        """For messages."""
        mirror = self.task.mirror
        return f"{mirror.source}: {mirror.source_box(unit)} at scale {mirror.spec.key}"

    def _cell(self, unit: Box, origin: Index) -> Index:
        sides = self.task.mirror.layout.unit
        return tuple((a - o) // side for a, o, side in zip(unit.begin, origin, sides, strict=True))

    def _fill_background(self, unit: Box) -> None:
        target = self.task.mirror.store.with_transaction(self.transaction)[unit.slices]
        if self.task.mirror.layout.unit == self.volume.spec.chunk:
            target.write(self.volume.background).result()  # the unit is one chunk of the source, the absent one
        else:
            wait(target.write(self._in_mirror(self.volume.lenient)[unit.slices]))

    def _in_mirror(self, source: ts.TensorStore) -> ts.TensorStore:
        """The source, in indices of the mirror."""
        return source.translate_by[tuple(-offset for offset in self.task.mirror.spec.offset)]


def _commit_arrived(in_flight: deque[_ShardFetch]) -> None:
    """Start to write every shard whose voxels are here, so that encoding overlaps with the next requests."""
    for shard in in_flight:
        if shard.commit is None and shard.arrived():
            with suppress(SourceError):  # raised again when its turn comes, so that what stands before it is kept
                shard.write()


def _interleave(tasks: Sequence[Task]) -> Iterator[tuple[Task, Gap]]:
    """Shards of all channels in turn, so that one channel's decoding fills another's waiting."""
    for row in zip_longest(*(task.gaps for task in tasks)):
        for task, gap in zip(tasks, row, strict=True):
            if gap is not None:
                yield task, gap
