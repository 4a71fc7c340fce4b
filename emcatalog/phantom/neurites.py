"""Which voxel belongs to which neurite: tubes grown, packed, connected and named.

Neurites are curved chains of balls. Every voxel belongs to the ball with the smallest power distance (squared distance
minus squared radius) in a space that smooth noise has warped: that packs tubes of any calibre without gaps.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[Any]
    Mask: TypeAlias = NDArray[np.bool_]
    Float: TypeAlias = NDArray[np.float32]
    Int: TypeAlias = NDArray[np.int32]
    Box: TypeAlias = tuple[slice, ...]
    Rng: TypeAlias = np.random.Generator

THREADS = 2
MARGIN = 100  # neurites start this far outside as well, so that the borders are as crowded as the centre
TRUNKS_PER_MEGAVOXEL = 6.5
BALLS = 120  # in a chain, half a radius apart
CALIBRES = [0, 0.5, 0.8, 0.93, 1], [3.8, 5.2, 9, 16, 34]  # radius by rank: a few giants among many thin neurites
MIN_BODY_VOXELS = 400  # smaller fragments become unlabelled, as in proofread data
BIG_ID = 2**28  # float32 merges neighbouring integers from 2**24 on, and consumers should be tested with such ids


@dataclass(frozen=True)
class Tubes:
    """Neurites as chains of balls: one row a ball, the balls of a chain in order and equally far apart."""

    centre: Float
    radius: Float
    chain: Int
    neurite: Int
    """A side branch is a chain of its own, and of the neurite of its parent."""

    def course(self, ball: int, length: float) -> tuple[Array, Array]:
        """Centre line of the chain up to half of `length` on either side of `ball`: places a voxel apart, tangents."""
        first, last = np.searchsorted(self.chain, [self.chain[ball], self.chain[ball] + 1])
        knots = self.centre[first:last]
        distance = (np.arange(first, last) - ball) * np.sqrt(((knots[1] - knots[0]) ** 2).sum())
        at = np.arange(max(-length / 2, distance[0]), min(length / 2, distance[-1]) + 0.5)
        line = np.column_stack([np.interp(at, distance, knots[:, axis]) for axis in range(3)])
        return line, unit_vectors(np.gradient(line, axis=0))


def grow_tubes(shape: tuple[int, ...], rng: Rng) -> Tubes:
    """Trunks that start anywhere, and thin side branches that start on a trunk."""
    extent = np.array(shape) + 2 * MARGIN
    trunks = round(TRUNKS_PER_MEGAVOXEL * float(extent.prod()) / 1e6)
    flow = [noise(tuple(extent // 16 + 1), 8, rng) for _ in range(3)]
    calibre = np.interp((rng.permutation(trunks) + 0.5) / trunks, *CALIBRES)
    path, radius = _walk(rng.uniform(0, extent, (trunks, 3)) - MARGIN, calibre, flow, rng)
    parent = rng.integers(trunks, size=trunks // 3)
    start = path[parent, rng.integers(BALLS, size=len(parent))]
    twig, thin = _walk(start, np.minimum(calibre[parent], rng.uniform(4, 8, len(parent))), flow, rng)
    neurite = np.concatenate([np.arange(trunks), parent]).astype(np.int32)
    chain = np.arange(len(neurite), dtype=np.int32).repeat(BALLS)
    centre, radii = np.concatenate([path, twig]), np.concatenate([radius, thin])
    return Tubes(centre.reshape(-1, 3), radii.reshape(-1), chain, neurite[chain])


def _walk(start: Array, calibre: Array, flow: list[Float], rng: Rng) -> tuple[Float, Float]:
    """Centres `(n, BALLS, 3)` and radii `(n, BALLS)` of processes that wander, and partly follow a common flow.

    With the flow, neighbours run side by side in bundles that point everywhere, and cross each other less.
    """
    n, place, path = len(start), start, []
    step = np.maximum(2.5, calibre / 2)[:, None]
    loyalty = rng.uniform(0, 2, (n, 1)) * rng.choice([-1, 1], (n, 1))
    own = unit_vectors(rng.standard_normal((n, 3)))
    for _ in range(BALLS):
        path.append(place)
        own = unit_vectors(own + rng.standard_normal((n, 3)) * np.sqrt(step / 150))
        drift = [ndimage.map_coordinates(f, (place.T + MARGIN) / 16, order=1, mode="nearest") for f in flow]
        place = place + step * unit_vectors(own + loyalty * unit_vectors(np.stack(drift, 1)))
    swelling = 3.2 * ndimage.gaussian_filter1d(rng.standard_normal((n, BALLS)), 3.0, axis=1)
    radius = calibre[:, None] * np.exp(0.22 * swelling)
    return np.stack(path, 1).astype(np.float32), radius.astype(np.float32)


def pack(shape: tuple[int, ...], tubes: Tubes, rng: Rng) -> Int:
    """The neurite of every voxel, found on a grid of every fourth voxel and made exact on the finer ones.

    Node `q` of the coarse grid stands at voxel `4 q - 4.5`: a refinement uses up one node of margin on each side.
    """
    coarse = tuple(-(-n // 4) + 3 for n in shape)
    warp = np.stack([5 * noise(coarse, 6, rng) + 0.8 * noise(coarse, 2, rng) for _ in range(3)])
    at_balls = [ndimage.map_coordinates(w, (tubes.centre.T + 4.5) / 4, order=1, mode="nearest") for w in warp]
    balls = np.stack([*(tubes.centre.T + at_balls), tubes.radius**2])
    place = grid_nodes(np.full(3, -4.5), np.array(coarse), 4) + warp
    owner, place = _refine(_claim_nodes(place, balls, tubes), place, balls)
    fine = np.empty([2 * (n - 2) for n in owner.shape], np.int32)

    def refine(slab: tuple[int, int]) -> None:
        low, high = slab
        ball, _ = _refine(owner[low : high + 2], place[:, low : high + 2], balls)
        fine[2 * low : 2 * high] = tubes.neurite[ball]

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(refine, slabs(len(owner) - 2, 8)))
    return fine[: shape[0], : shape[1], : shape[2]]


def _claim_nodes(place: Array, balls: Array, tubes: Tubes) -> Int:
    """The ball with the smallest power distance to each node; a ball is looked at in its own neighbourhood only."""
    shape = np.array(place.shape[1:])
    best, owner = np.full(shape, np.inf, np.float32), np.full(shape, -1, np.int32)
    reach = tubes.radius[:, None] + 24
    lows = np.maximum(np.ceil((tubes.centre - reach + 4.5) / 4), 0).astype(int)
    highs = np.minimum(np.floor((tubes.centre + reach + 4.5) / 4) + 1, shape).astype(int)
    for i in np.flatnonzero((lows < highs).all(1)):
        box = tuple(slice(low, high) for low, high in zip(lows[i], highs[i], strict=True))
        power = power_distance(place[(slice(None), *box)], balls[:, i])
        closer = power < best[box]
        np.copyto(best[box], power, where=closer)
        np.copyto(owner[box], i, where=closer)
    for node in zip(*np.nonzero(owner < 0), strict=True):  # the few gaps that no ball reaches
        owner[node] = power_distance(place[(slice(None), *node)], balls).argmin()
    return owner


def power_distance(place: Array, ball: Array) -> Array:
    """Power distance of places to balls: zyx along the first axis, for balls the squared radius as a fourth."""
    power: Array = (place[0] - ball[0]) ** 2
    power += (place[1] - ball[1]) ** 2
    power += (place[2] - ball[2]) ** 2
    power -= ball[3]
    return power


def _refine(owner: Int, place: Array, balls: Array) -> tuple[Int, Array]:
    """The nearest ball, among the owners of the nodes around, on the grid of twice the resolution; the places of that.

    Smooth borders come from here: a fine node is compared at its own place, not at that of its parent.
    """
    fine = np.empty([2 * (n - 2) for n in owner.shape], np.int32)
    fine_place = np.empty((3, *fine.shape), np.float32)
    core, low, high = slice(1, -1), slice(0, -2), slice(2, None)
    for corner in product((0, 1), repeat=3):
        around = list(product(*((core, high if c else low) for c in corner)))
        # a quarter of the way to the neighbour along each axis: core + sum of (neighbour - core) / 4
        at = sum((place[(slice(None), *around[i])] for i in (1, 2, 4)), place[(slice(None), *around[0])]) / 4
        winner = owner[around[0]].copy()
        best = power_distance(at, balls[:, winner])
        for neighbour in around[1:]:
            rival = owner[neighbour]
            power = power_distance(at, balls[:, rival])
            np.copyto(winner, rival, where=power < best)
            np.minimum(best, power, out=best)
        children = tuple(slice(c, None, 2) for c in corner)
        fine[children], fine_place[(slice(None), *children)] = winner, at
    return fine, fine_place


def borders(bodies: Int, *, both_sides: bool) -> Mask:
    """Voxels that differ from their predecessor along an axis and, on request, those predecessors."""
    border = np.zeros(bodies.shape, bool)
    for axis in range(3):
        lower, upper = np.moveaxis(border, axis, 0)[:-1], np.moveaxis(border, axis, 0)[1:]
        differ = np.diff(bodies, axis=axis) != 0
        upper |= np.moveaxis(differ, axis, 0)
        if both_sides:
            lower |= np.moveaxis(differ, axis, 0)
    return border


def connected_bodies(neurite: Int) -> Int:
    """Bodies 1 to n, each 6-connected within the volume; fragments below `MIN_BODY_VOXELS` are 0."""
    padded = np.pad(neurite, 1, constant_values=-1)
    # without the upper sides of the borders, voxels of two neurites never touch: one labelling separates them all
    body, _ = ndimage.label(~borders(padded, both_sides=False) & (padded >= 0))
    flat, kind = body.reshape(-1), padded.reshape(-1)
    strides = [stride // padded.itemsize for stride in padded.strides]
    for step in [sign * stride for _ in range(2) for stride in strides for sign in (1, -1)]:
        left_out = np.flatnonzero((flat == 0) & (kind >= 0))  # joins the body of a neighbour of its neurite
        left_out = left_out[kind[left_out] == kind[left_out + step]]
        flat[left_out] = flat[left_out + step]
    body = body[1:-1, 1:-1, 1:-1]
    kept = np.bincount(body.reshape(-1)) >= MIN_BODY_VOXELS
    kept[0] = False
    numbered: Int = (np.cumsum(kept) * kept).astype(np.int32)[body]
    return numbered


def body_ids(bodies: Int, rng: Rng) -> NDArray[np.uint64]:
    """A scattered id for each body; in some pairs that touch, the ids differ by one, which float32 would merge."""
    n = int(bodies.max())
    gaps = np.exp2(rng.uniform(1.1, 26, n)).astype(np.uint64)  # at least 2
    ordered = np.cumsum(gaps) + np.where(np.arange(n) < n // 30, 0, BIG_ID).astype(np.uint64)
    ids = np.concatenate([np.zeros(1, np.uint64), rng.permutation(ordered)])
    plane, pairs = bodies[len(bodies) // 2], 1 + n // 10
    touching = np.unique(np.stack([plane[:, :-1].ravel(), plane[:, 1:].ravel()], 1), axis=0)
    free = ids >= BIG_ID
    for one, other in rng.permutation(touching[touching[:, 0] != touching[:, 1]]):
        if pairs and free[one] and free[other]:
            ids[other] = ids[one] + np.uint64(1)
            free[[one, other]] = False
            pairs -= 1
    return ids


def noise(shape: tuple[int, ...], scale: int, rng: Rng) -> Float:
    """Smooth noise of unit variance, correlated over about `scale`: a coarse lattice, quadratic B-splines between."""
    field: Float = rng.standard_normal([-(-n // scale) + 3 for n in shape], dtype=np.float32)
    for axis in (2, 1, 0):
        field = field.repeat(scale, axis)
        for _ in range(2):
            field = ndimage.uniform_filter1d(field, scale, axis)
        field = field.take(range(scale, scale + shape[axis]), axis)
    return field * np.float32(0.55**-1.5)  # 11/20 is the mean sum of squared weights of that spline


def unit_vectors(vectors: Array) -> Array:
    """The vectors (along the last axis) at length one."""
    unit: Array = vectors / np.sqrt((vectors**2).sum(-1, keepdims=True))
    return unit


def grid_nodes(starts: Array, counts: Array, spacing: int) -> Array:
    """Coordinates `(3, nz, ny, nx)` of the nodes of a regular grid."""
    axes = [start + spacing * np.arange(n) for start, n in zip(starts, counts, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)


def slabs(n: int, thickness: int) -> list[tuple[int, int]]:
    """Half-open intervals of `thickness` that cover `range(n)`."""
    return [(low, min(low + thickness, n)) for low in range(0, n, thickness)]
