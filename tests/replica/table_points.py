"""What the tables of synapses say of points: bodies, confidences, regions, transmitters.

    Columns(Points(world, *point_numbers(rows))).array("primary")

is that column of syn-points for any of its rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tests.replica.stored import Array
from tests.replica.table_bodies import TRANSMITTERS, UNCLEAR, categories, transmitter
from tests.replica.table_columns import (
    HEX,
    MAJOR,
    OPTIC,
    PARTS_OF_PRIMARY,
    PRIMARY,
    PRIMARY_OF_MAJOR,
    REGIONS,
    SUBPRIMARY,
    SUPER_OF_PRIMARY,
    SUPERPRIMARY,
    VOCABULARIES,
    region_labels,
)
from tests.replica.table_world import Ints, World, below, fraction, noise, point_id, point_key


@dataclass(frozen=True)
class Points:
    """T-bars and PSDs of a world, row by row."""

    world: World
    tbar: Ints
    rank: Ints

    @property
    def key(self) -> Ints:
        """A number that no other point has."""
        return point_key(self.tbar, self.rank)

    @cached_property
    def zyx(self) -> tuple[Ints, Ints, Ints]:
        """Voxels."""
        return self.world.zyx(self.tbar, self.rank)

    @property
    def point_id(self) -> NDArray[np.uint64]:
        """Their voxels in one number."""
        return point_id(*self.zyx)

    @cached_property
    def body(self) -> Ints:
        """Bodies."""
        return self.world.body(self.tbar, self.rank)

    @property
    def sv(self) -> Ints:
        """Supervoxels: that of the body's name, or one with an id wider than 32 bits."""
        bits = noise(self.world.seed, 6, self.key)
        return np.where(bits % np.uint64(2) == 0, self.body, 2**33 + below(bits, 2**30, 8))

    @property
    def conf(self) -> NDArray[np.float32]:
        """From 0.7 for T-bars and from 0.5 for PSDs, up to 1."""
        least = np.where(self.rank == 0, 0.7, 0.5).astype(np.float32)
        rest = (1 - least) * fraction(noise(self.world.seed, 7, self.key))
        return np.minimum(least + rest, np.float32(1))


@dataclass(frozen=True)
class Columns:
    """What the tables of synapses say of points."""

    points: Points

    def array(self, name: str) -> pa.Array:
        """A column by its name in syn-points or tbar-neurotransmitters."""
        values = self._values(name)
        return categories(name, values) if name in VOCABULARIES else pa.array(values)

    def _values(self, name: str) -> Array:
        """A column, a dictionary as codes."""
        if name in "zyx":
            return self.points.zyx["zyx".index(name)].astype(np.int32)
        if name.removesuffix("_label") in REGIONS:
            region_set = name.removesuffix("_label")
            codes = self._regions.codes(region_set)
            return codes if name == region_set else region_labels(region_set)[codes]
        if name.startswith("nt_"):
            return self._transmitters[:, TRANSMITTERS.index(name.split("_")[1])]
        own: dict[str, Callable[[], Array]] = {
            "kind": lambda: (self.points.rank == 0).astype(np.int8),
            "compartment": self._compartment,
            "split": self._split,
        }
        return own[name]() if name in own else getattr(self.points, name)

    @cached_property
    def _regions(self) -> _Regions:
        return _Regions(*self.points.zyx)

    def _compartment(self) -> Ints:
        chance = self._chance(32)
        of_tbars, of_psds = (
            np.searchsorted(bounds, chance) for bounds in ([0.1, 0.8, 0.9, 0.98], [0.35, 0.45, 0.95, 0.99])
        )
        return np.where(self.points.rank == 0, of_tbars, of_psds)

    def _split(self) -> Ints:
        """Most T-bars were not used to train."""
        return np.searchsorted([0.98, 0.995], self._chance(33), side="right") - 1

    @cached_property
    def _transmitters(self) -> NDArray[np.float32]:
        """Probabilities `(row, transmitter)`: a T-bar mostly shows what its body releases."""
        seed, rows = self.points.world.seed, np.arange(len(self.points.tbar))
        scores = np.stack([0.2 * self._chance(40 + number) for number in range(len(TRANSMITTERS))], axis=1)
        wrong = self._chance(34) > 0.9
        shown = np.where(wrong, below(noise(seed, 35, self.points.key), UNCLEAR), transmitter(seed, self.points.body))
        scores[rows, shown] += np.float32(1)
        return scores / scores.sum(axis=1, keepdims=True)

    def _chance(self, stream: int) -> NDArray[np.float32]:
        return fraction(noise(self.points.world.seed, stream, self.points.key))


_FIRST_PRIMARY = np.array([PRIMARY.index(names[0]) for names in PRIMARY_OF_MAJOR.values()])
_PRIMARIES = np.array([len(names) for names in PRIMARY_OF_MAJOR.values()])
_SUPER = np.array([SUPERPRIMARY.index(SUPER_OF_PRIMARY.get(name, SUPERPRIMARY[0])) for name in PRIMARY])
_PARTS = np.array([len(PARTS_OF_PRIMARY.get(name, ())) for name in PRIMARY])
_FIRST_PART = np.array([SUBPRIMARY.index(PARTS_OF_PRIMARY.get(name, SUBPRIMARY)[0]) for name in PRIMARY])


@dataclass(frozen=True)
class _Regions:
    """Regions at voxels, as codes; the same in all releases. Neighbours are mostly in one region."""

    z: Ints
    y: Ints
    x: Ints

    def codes(self, region_set: str) -> Ints:
        """Of a column of `REGIONS`."""
        if region_set in ("major", "primary"):
            return getattr(self, region_set)
        if region_set == "superprimary":
            return _SUPER[self.primary]
        if region_set == "subprimary":
            parts = _PARTS[self.primary]
            return _FIRST_PART[self.primary] + below(self._near(512), 2**20) % np.maximum(parts, 1)
        neuropil, side, kind = region_set.rsplit("_", 2)
        short, layers = OPTIC[neuropil]
        inside = self.primary == PRIMARY.index(f"{short}({side.upper()})")
        codes = np.zeros(len(self.z), np.int64)
        if inside.any():
            codes[inside] = 1 + below(self._near(256)[inside], HEX * HEX if kind == "column" else layers)
        return codes

    @cached_property
    def major(self) -> Ints:
        """The nerve cord lies above z = 45056, as in flyem_snapshot/inputs/synapses.py; the rest is made up."""
        conditions = [self.z >= 45_056, self.z >= 42_000, self.x < 26_000, self.x >= 68_000]
        places = np.select(conditions, [MAJOR.index(name) for name in ("VNC", "CV", "Optic(R)", "Optic(L)")], 1)
        return np.where(below(self._near(4096), 40) == 0, 0, places)

    @cached_property
    def primary(self) -> Ints:
        """Regions."""
        return _FIRST_PRIMARY[self.major] + below(self._near(2048), 2**20) % _PRIMARIES[self.major]

    def _near(self, edge: int) -> NDArray[np.uint64]:
        """Noise that is the same within cubes."""
        return noise(0, 36, ((self.z // edge) << 24) + ((self.y // edge) << 12) + self.x // edge)
