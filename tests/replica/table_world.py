"""Synapses of a made-up nervous system: what a row says follows from its number, so that tables of any length agree.

    world = make_world(20_000_000)          # takes no memory
    world.body(*point_numbers(rows))        # of any rows of syn-points

A T-bar is followed by its PSDs: 8 T-bars and 55 PSDs in 63 points, near the published 45.7 and 311.8 million. The n-th
T-bar stands in a cell of its own, so that no two points share a voxel and `z`, from the first T-bar to the last, rises
from cell to cell. In a region with labels, T-bars stand anywhere, and every point carries the label under it.

Bodies are drawn as in the published tables: most T-bars belong to few, annotated bodies, most PSDs to fragments without
annotation. Body 0 occurs (in the region: where the label is 0), although the published tables may have dropped it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tests.replica.region import Region, shape_of
from tests.replica.stored import Array

Ints = NDArray[np.int64]
SIZE_ZYX = (134592, 77248, 94088)
"""Of the labels of v0.9, in voxels."""
BATCH = 65_536
FIRST_BODY = 10_001
FIRST_FRAGMENT = 20_000_000
WIDE_BODY = 100_000_000_000
"""Added to a few ids: those of labels stay below 2**32, those of tables need not."""

FANOUT = np.array([5, 8, 6, 9, 7, 4, 10, 6])
"""PSDs of a T-bar, in turn."""
_PER_TURN = int((FANOUT + 1).sum())
_TBAR_OF_ROW = np.repeat(np.arange(len(FANOUT)), FANOUT + 1)
_FIRST_ROW = np.concatenate([[0], np.cumsum(FANOUT + 1)[:-1]])
_RANK_OF_ROW = np.arange(_PER_TURN) - _FIRST_ROW[_TBAR_OF_ROW]
_TBAR_OF_PSD, _RANK_OF_PSD = (numbers[_RANK_OF_ROW > 0] for numbers in (_TBAR_OF_ROW, _RANK_OF_ROW))
_MOST_RANKS = int(FANOUT.max()) + 1

_CELL = 64
_LAYERS, _CELLS_Y, _CELLS_X = (length // _CELL for length in SIZE_ZYX)
_CELL_STEP = 1_000_003
"""Prime, so that steps of it reach every cell of a layer once."""
_DIRECTIONS = np.array([d for d in np.ndindex(3, 3, 3) if d != (1, 1, 1)]) - 1
_DIRECTION_STEP = 7
"""Has no divisor in common with the 26 directions: PSDs of one T-bar go different ways."""
_FAR = 40
_NEAR = 12
"""How far PSDs are from their T-bar along the axes, in voxels: about 100 to 550 nm."""
_ATTEMPTS = 1000

_PARTNERS = 100
"""Annotated bodies that the PSDs of one body's T-bars are drawn from: pairs of bodies have several synapses."""

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = 2**64 - 1


def noise(seed: int, stream: int, keys: Array) -> NDArray[np.uint64]:
    """64 random bits for each key, those of SplitMix64; streams differ from one another."""
    start = np.uint64(((seed << 8) + stream + 1) * _GOLDEN * 0xD1342543DE82EF95 & _MASK)
    bits = keys.astype(np.uint64) * np.uint64(_GOLDEN) + start
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def fraction(bits: NDArray[np.uint64], skip: int = 0) -> NDArray[np.float32]:
    """24 of the random bits as a number from 0 up to, not including, 1."""
    return ((bits >> np.uint64(skip)) & np.uint64(2**24 - 1)).astype(np.float32) * np.float32(2**-24)


def below(bits: NDArray[np.uint64], limit: int, skip: int = 0) -> Ints:
    """The random bits as a number from 0 up to, not including, `limit`."""
    return ((bits >> np.uint64(skip)) % np.uint64(limit)).astype(np.int64)


# --- numbers of points


def point_numbers(rows: Ints) -> tuple[Ints, Ints]:
    """T-bar and rank of points: 0 is the T-bar itself, from 1 on come its PSDs."""
    turn, row = np.divmod(rows, _PER_TURN)
    return len(FANOUT) * turn + _TBAR_OF_ROW[row], _RANK_OF_ROW[row]


def psd_numbers(psds: Ints) -> tuple[Ints, Ints]:
    """T-bar and rank of the n-th PSDs, the T-bars' own rows not being counted."""
    turn, psd = np.divmod(psds, len(_TBAR_OF_PSD))
    return len(FANOUT) * turn + _TBAR_OF_PSD[psd], _RANK_OF_PSD[psd]


def point_key(tbar: Ints, rank: Ints) -> Ints:
    """A number that no other point has."""
    return tbar * _MOST_RANKS + rank


def point_id(z: Ints, y: Ints, x: Ints) -> NDArray[np.uint64]:
    """21 bits each of z, y and x, as in `encode_coords_to_uint64` of janelia-flyem/neuclease."""
    return (z << 42 | y << 21 | x).astype(np.uint64)


def first_row(tbar: int) -> int:
    """The row of a T-bar among points that follow each other by T-bar."""
    turn, nth = divmod(tbar, len(FANOUT))
    return _PER_TURN * turn + int(_FIRST_ROW[nth])


def shuffled(numbers: Ints, limit: int) -> Ints:
    """Numbers below `limit` in another order: neighbours are far apart, each occurs once."""
    step = next(step for step in range(max(1, round(0.618 * limit)), limit + 2) if math.gcd(step, limit) == 1)
    return (numbers * step + limit // 3) % limit


# --- the world


@dataclass(frozen=True)
class World:
    """All synapses of one release."""

    points: int
    """T-bars and PSDs: the rows of syn-points."""
    seed: int
    annotated: Ints
    """Bodies that have annotations, sorted."""
    tissue: Region | None
    """Labels of a part of the volume."""
    places: Ints
    """Voxels of `tissue`, as flat indices, where the first T-bars and their PSDs are: `(T-bar, rank)`."""

    @property
    def tbars(self) -> int:
        """Rows of tbar-neurotransmitters."""
        turns, rest = divmod(self.points, _PER_TURN)
        return len(FANOUT) * turns + (int(_TBAR_OF_ROW[rest - 1]) + 1 if rest else 0)

    @property
    def psds(self) -> int:
        """Rows of syn-partners: each PSD has one T-bar."""
        return self.points - self.tbars

    @property
    def fragments(self) -> int:
        """How many bodies without annotations there may be."""
        return max(50, self.points // 4)

    def shuffled_tbars(self, tbars: Ints) -> Ints:
        """T-bars in random order; which PSDs they have depends on their place in a turn, which is kept."""
        turn, nth = np.divmod(tbars, len(FANOUT))
        turns = self.points // _PER_TURN
        return len(FANOUT) * np.where(turn < turns, shuffled(turn, max(1, turns)), turn) + nth

    def rows(self, order: str) -> Iterator[Ints]:
        """All rows of syn-points, in batches and in an order: `random`, or `z` for sorted by z, y and x."""
        if order == "random":
            for rows in ranges(self.points):
                yield shuffled(rows, self.points)
        elif order == "z":
            yield from _in_batches(self._rows_by_layer())
        else:
            raise ValueError(f"order is {order!r}, neither 'random' nor 'z'")

    def _rows_by_layer(self) -> Iterator[Ints]:
        """Rows sorted by `point_id`, some layers of cells at a time, since points never leave their cell."""
        inside = len(self.places)
        in_region = np.arange(min(first_row(inside), self.points))
        z_in_region = self.zyx(*point_numbers(in_region))[0]
        outside = self.tbars - inside
        step = max(1, _LAYERS * 500_000 // self.points)
        for layer in range(0, _LAYERS, step):
            above = min(layer + step, _LAYERS)
            begin, end = (first_row(inside - (-bound * outside // _LAYERS)) for bound in (layer, above))
            here = in_region[(z_in_region >= layer * _CELL) & (z_in_region < above * _CELL)]
            rows = np.concatenate([here, np.arange(begin, min(end, self.points))])
            yield rows[np.argsort(point_id(*self.zyx(*point_numbers(rows))))]

    def zyx(self, tbar: Ints, rank: Ints) -> tuple[Ints, Ints, Ints]:
        """Voxels of points."""
        z, y, x = self._cells(tbar)
        bits = noise(self.seed, 0, tbar)
        away = np.minimum(rank, 1) * (_NEAR + below(noise(self.seed, 1, point_key(tbar, rank)), 13))
        way = (below(bits, len(_DIRECTIONS)) + _DIRECTION_STEP * rank) % len(_DIRECTIONS)
        axes = zip((z, y, x), (8, 16, 24), _DIRECTIONS.T, strict=True)
        z, y, x = (_CELL * cell + 24 + below(bits, 16, skip) + away * ways[way] for cell, skip, ways in axes)
        if self.tissue is not None:
            inside = tbar < len(self.places)
            voxels = np.unravel_index(self.places[tbar[inside], rank[inside]], self.tissue.voxels.shape)
            for axis, voxel, (start, _) in zip((z, y, x), voxels, self.tissue.box, strict=True):
                axis[inside] = voxel + start
        return z, y, x

    def _cells(self, tbar: Ints) -> tuple[Ints, Ints, Ints]:
        """The cells of T-bars outside the region: evenly many in each layer, none in the region."""
        number = np.maximum(tbar - len(self.places), 0)
        outside = max(1, self.tbars - len(self.places))
        layer = number * _LAYERS // outside
        nth = number + (-layer * outside // _LAYERS)
        layers, closed = self._closed
        shut = np.where((layer >= layers[0]) & (layer < layers[1]), len(closed), 0)
        open_cells = _CELLS_Y * _CELLS_X - shut
        cell = (nth * _CELL_STEP + below(noise(self.seed, 2, layer), _CELLS_Y * _CELLS_X)) % open_cells
        if len(closed):
            cell += np.where(shut > 0, np.searchsorted(closed - np.arange(len(closed)), cell, side="right"), 0)
        return layer, *np.divmod(cell, _CELLS_X)

    @cached_property
    def _closed(self) -> tuple[tuple[int, int], Ints]:
        """Layers that the region reaches into, and the cells of these that it touches."""
        if self.tissue is None:
            return (0, 0), np.zeros(0, np.int64)
        z, y, x = ((start // _CELL, -(-stop // _CELL)) for start, stop in self.tissue.box)
        grid = np.arange(*y)[:, None] * _CELLS_X + np.arange(*x)
        return z, grid.ravel()

    def body(self, tbar: Ints, rank: Ints) -> Ints:
        """Bodies of points."""
        bits = noise(self.seed, 3, point_key(tbar, rank))
        chance = fraction(bits)
        before = self._popular(noise(self.seed, 3, point_key(tbar, np.zeros_like(tbar))))
        slot = (_PARTNERS * fraction(bits, 24) ** 2).astype(np.int64)
        place = np.where(rank == 0, before, self._popular(noise(self.seed, 8, before * _PARTNERS + slot)))
        fragment = fragment_id(below(noise(self.seed, 4, bits), self.fragments))
        bodies = np.where(chance < np.where(rank == 0, 0.94, 0.42), self.annotated[place], fragment)
        bodies[chance >= 0.997] = 0
        if self.tissue is not None:
            inside = tbar < len(self.places)
            bodies[inside] = self.tissue.voxels.ravel()[self.places[tbar[inside], rank[inside]]]
        return bodies

    def _popular(self, bits: NDArray[np.uint64]) -> Ints:
        """Places in `annotated`, the first ones most often."""
        return (len(self.annotated) * fraction(bits, 24).astype(np.float64) ** 2).astype(np.int64)


def fragment_id(number: Ints) -> Ints:
    """Ids of bodies without annotations."""
    return FIRST_FRAGMENT + 41 * number + WIDE_BODY * (number % 1000 == 999)


def make_world(
    points: int,
    *,
    seed: int = 0,
    annotated: int | None = None,
    bodies: Iterable[int] = (),
    tissue: Region | None = None,
    share: float = 0.25,
) -> World:
    """The synapses of one release.

    Args:
        points: T-bars and PSDs.
        seed: Selects other places, bodies and names.
        annotated: How many bodies of made-up ids have annotations; None for one in 200 points, 200 at least.
        bodies: Ids that have annotations too.
        tissue: Labels in a part of the volume.
        share: Of all T-bars, how many stand there; fewer where it is small.

    Raises:
        ValueError: No points, no annotated bodies, or a region that is not inside the volume or too small.
    """
    if points < 1:
        raise ValueError(f"{points} synapse points: at least one is needed")
    count = min(max(200, points // 200), 211_577) if annotated is None else annotated
    ids = FIRST_BODY + np.concatenate([[0], np.cumsum(1 + below(noise(seed, 5, np.arange(count - 1)), 60))])
    ids[96::97] += WIDE_BODY
    known = np.unique(np.concatenate([ids[:count], np.fromiter(bodies, np.int64)]))
    known = known[known > 0]
    if not len(known):
        raise ValueError("no body has annotations: at least one is needed")
    world = World(points, seed, known, tissue, places=np.zeros((0, _MOST_RANKS), np.int64))
    if tissue is None:
        return world
    if not all(0 <= start < stop <= size for (start, stop), size in zip(tissue.box, SIZE_ZYX, strict=True)):
        raise ValueError(f"the region {tissue.box} is not inside the volume of {SIZE_ZYX} voxels, zyx")
    places = _places(tissue, min(math.ceil(share * world.tbars), tissue.voxels.size // 200), seed)
    return World(points, seed, known, tissue, places)


def _places(tissue: Region, tbars: int, seed: int) -> Ints:
    """Voxels `(T-bar, rank)` of a region, no two the same, PSDs near their T-bars and, if possible, in other bodies."""
    rng = np.random.default_rng(seed)
    labels = tissue.voxels.ravel()
    places = np.empty((tbars, _MOST_RANKS), np.int64)
    places[:, 0] = rng.choice(labels.size, tbars, replace=False)
    taken = np.zeros(labels.size, bool)
    taken[places[:, 0]] = True
    for rank in range(1, _MOST_RANKS):
        missing, attempt = np.arange(tbars), 0
        while missing.size:
            if attempt == _ATTEMPTS:
                raise ValueError(f"the region {tissue.box} is too small for {tbars} T-bars and their PSDs")
            tbar = places[missing, 0]
            flat, good = _near(rng, tbar, shape_of(tissue.box))
            good &= ~taken[flat] & ((labels[flat] != labels[tbar]) | (attempt > 20))
            chosen = np.unique(np.where(good, flat, -1), return_index=True)[1]
            chosen = chosen[good[chosen]]
            places[missing[chosen], rank] = flat[chosen]
            taken[flat[chosen]] = True
            missing, attempt = np.delete(missing, chosen), attempt + 1
    return places


def _near(rng: np.random.Generator, places: Ints, shape: tuple[int, int, int]) -> tuple[Ints, NDArray[np.bool_]]:
    """A voxel in the neighbourhood of each, and whether it is neither too close nor outside."""
    voxels = np.stack(np.unravel_index(places, shape), axis=1)
    offsets = rng.integers(-_FAR, _FAR + 1, voxels.shape)
    drawn = voxels + offsets
    good = (np.abs(offsets).max(axis=1) >= _NEAR) & ((drawn >= 0) & (drawn < shape)).all(axis=1)
    return np.ravel_multi_index(tuple(drawn.T), shape, mode="clip"), good


def ranges(count: int) -> Iterator[Ints]:
    """Numbers from 0 up to, not including, `count`, as many at a time as a record batch has rows."""
    for start in range(0, count, BATCH):
        yield np.arange(start, min(start + BATCH, count))


def _in_batches(pieces: Iterable[Ints]) -> Iterator[Ints]:
    """The same numbers, as many at a time as a record batch has."""
    held: Sequence[Ints] = []
    for piece in pieces:
        held = [*held, piece]
        if sum(map(len, held)) >= BATCH:
            joined = np.concatenate(held)
            whole = len(joined) // BATCH * BATCH
            yield from np.split(joined[:whole], whole // BATCH)
            held = [joined[whole:]]
    rest = np.concatenate(held)
    if len(rest):
        yield rest
