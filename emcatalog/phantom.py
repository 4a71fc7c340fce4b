"""A synthetic FIB-SEM volume of neuropil with dense labels: the embedded demo, and the data of tests.

Neurites are curved chains of balls. Every voxel belongs to the ball with the smallest power distance (squared distance
minus squared radius) in a space that smooth noise has warped: that packs tubes of any calibre without gaps. What a
microscope would show of them (membranes, organelles, synapses, grain) is painted on top.

The result does not depend on the number of threads: work is cut into slabs of fixed size, and each random stream has
its own seed. Lengths are voxels of 8 nm; positions and arrays are zyx.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from scipy import ndimage  # type: ignore[import-untyped]  # scipy ships no types

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[Any]
    Mask: TypeAlias = NDArray[np.bool_]
    Float: TypeAlias = NDArray[np.float32]
    Int: TypeAlias = NDArray[np.int32]
    Box: TypeAlias = tuple[slice, ...]
    Rng: TypeAlias = np.random.Generator

MIN_LENGTH = 32  # of an axis
THREADS = 2
MARGIN = 100  # neurites start this far outside as well, so that the borders are as crowded as the centre
TRUNKS_PER_MEGAVOXEL = 6.5
BALLS = 120  # in a chain, half a radius apart
CALIBRES = [0, 0.5, 0.8, 0.93, 1], [3.8, 5.2, 9, 16, 34]  # radius by rank: a few giants among many thin neurites
MIN_BODY_VOXELS = 400  # smaller fragments become unlabelled, as in proofread data
BIG_ID = 2**28  # float32 merges neighbouring integers from 2**24 on, and consumers should be tested with such ids
MEMBRANE_GREY, DENSITY_GREY = 28.0, 36.0  # before the blur, which halves the contrast of a membrane


@dataclass(frozen=True)
class Phantom:
    """A raw volume and its segmentation on one grid of 8 nm voxels."""

    raw: NDArray[np.uint8]
    """`(z, y, x) uint8`: bright cytoplasm, dark membranes, as FIB-SEM after contrast normalisation."""
    labels: NDArray[np.uint64]
    """`(z, y, x) uint64`: one id for each 6-connected neurite; 0 is unlabelled (far below 1 %)."""


@dataclass(frozen=True)
class _Tubes:
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
        return line, _unit(np.gradient(line, axis=0))


@dataclass(frozen=True)
class _Tissue:
    """The scene that the organelles are painted into, and what their painters need to know of it."""

    scene: Float
    bodies: Int
    membrane: Mask
    crowd: Float
    """Blurred membranes, on the half grid: about 0.4 on a membrane, 0 far from any."""
    tubes: _Tubes

    def body_at(self, place: Array) -> int:
        """The body at the voxel nearest to `place`."""
        return int(self.bodies[tuple(np.rint(place).astype(int))])

    def is_clear(self, place: Array) -> bool:
        """Whether a vesicle fits in at `place`: off the membranes, and off the border of the volume."""
        spot = np.rint(place).astype(int)
        if (spot < 4).any() or (spot >= np.array(self.bodies.shape) - 4).any():
            return False
        return bool(self.crowd[tuple(spot // 2)] < 0.12)


@dataclass(frozen=True)
class _Contact:
    """A place on the membrane between two bodies; `direction` points away from the presynaptic one."""

    place: Array
    direction: Array
    presynaptic: int


def make_phantom(shape: tuple[int, int, int] = (256, 256, 256), seed: int = 0) -> Phantom:
    """Raw data and labels that look like neuropil; the same bytes for the same arguments.

    Args:
        shape: size in voxels, zyx, at least 32 along each axis.
        seed: selects another piece of tissue.

    Returns:
        The `Phantom`. 256 cubed takes about five seconds and 0.6 GB of memory.

    Raises:
        ValueError: `shape` is not three lengths, or one of them is below 32.
    """
    if len(shape) != 3 or min(shape) < MIN_LENGTH:
        raise ValueError(f"shape must be three lengths (z, y, x) of at least {MIN_LENGTH} voxels, got {shape}")
    tissue, organelles, camera = (np.random.default_rng([seed, stream]) for stream in range(3))
    tubes = _grow_tubes(shape, tissue)
    bodies = _connected_bodies(_pack(shape, tubes, tissue))
    scene = _cytoplasm(bodies, organelles)
    _paint_organelles(scene, bodies, tubes, organelles)
    return Phantom(raw=_photograph(scene, camera), labels=_body_ids(bodies, tissue)[bodies])


def _noise(shape: tuple[int, ...], scale: int, rng: Rng) -> Float:
    """Smooth noise of unit variance, correlated over about `scale`: a coarse lattice, quadratic B-splines between."""
    field: Float = rng.standard_normal([-(-n // scale) + 3 for n in shape], dtype=np.float32)
    for axis in (2, 1, 0):
        field = field.repeat(scale, axis)
        for _ in range(2):
            field = ndimage.uniform_filter1d(field, scale, axis)
        field = field.take(range(scale, scale + shape[axis]), axis)
    return field * np.float32(0.55**-1.5)  # 11/20 is the mean sum of squared weights of that spline


def _unit(vectors: Array) -> Array:
    """The vectors (along the last axis) at length one."""
    unit: Array = vectors / np.sqrt((vectors**2).sum(-1, keepdims=True))
    return unit


def _nodes(starts: Array, counts: Array, spacing: int) -> Array:
    """Coordinates `(3, nz, ny, nx)` of the nodes of a regular grid."""
    axes = [start + spacing * np.arange(n) for start, n in zip(starts, counts, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)


def _slabs(n: int, thickness: int) -> list[tuple[int, int]]:
    """Half-open intervals of `thickness` that cover `range(n)`."""
    return [(low, min(low + thickness, n)) for low in range(0, n, thickness)]


# Geometry: which voxel belongs to which body.


def _grow_tubes(shape: tuple[int, ...], rng: Rng) -> _Tubes:
    """Trunks that start anywhere, and thin side branches that start on a trunk."""
    extent = np.array(shape) + 2 * MARGIN
    trunks = round(TRUNKS_PER_MEGAVOXEL * float(extent.prod()) / 1e6)
    flow = [_noise(tuple(extent // 16 + 1), 8, rng) for _ in range(3)]
    calibre = np.interp((rng.permutation(trunks) + 0.5) / trunks, *CALIBRES)
    path, radius = _walk(rng.uniform(0, extent, (trunks, 3)) - MARGIN, calibre, flow, rng)
    parent = rng.integers(trunks, size=trunks // 3)
    start = path[parent, rng.integers(BALLS, size=len(parent))]
    twig, thin = _walk(start, np.minimum(calibre[parent], rng.uniform(4, 8, len(parent))), flow, rng)
    neurite = np.concatenate([np.arange(trunks), parent]).astype(np.int32)
    chain = np.arange(len(neurite), dtype=np.int32).repeat(BALLS)
    centre, radii = np.concatenate([path, twig]), np.concatenate([radius, thin])
    return _Tubes(centre.reshape(-1, 3), radii.reshape(-1), chain, neurite[chain])


def _walk(start: Array, calibre: Array, flow: list[Float], rng: Rng) -> tuple[Float, Float]:
    """Centres `(n, BALLS, 3)` and radii `(n, BALLS)` of processes that wander, and partly follow a common flow.

    With the flow, neighbours run side by side in bundles that point everywhere, and cross each other less.
    """
    n, place, path = len(start), start, []
    step = np.maximum(2.5, calibre / 2)[:, None]
    loyalty = rng.uniform(0, 2, (n, 1)) * rng.choice([-1, 1], (n, 1))
    own = _unit(rng.standard_normal((n, 3)))
    for _ in range(BALLS):
        path.append(place)
        own = _unit(own + rng.standard_normal((n, 3)) * np.sqrt(step / 150))
        drift = [ndimage.map_coordinates(f, (place.T + MARGIN) / 16, order=1, mode="nearest") for f in flow]
        place = place + step * _unit(own + loyalty * _unit(np.stack(drift, 1)))
    swelling = 3.2 * ndimage.gaussian_filter1d(rng.standard_normal((n, BALLS)), 3.0, axis=1)
    radius = calibre[:, None] * np.exp(0.22 * swelling)
    return np.stack(path, 1).astype(np.float32), radius.astype(np.float32)


def _pack(shape: tuple[int, ...], tubes: _Tubes, rng: Rng) -> Int:
    """The neurite of every voxel, found on a grid of every fourth voxel and made exact on the finer ones.

    Node `q` of the coarse grid stands at voxel `4 q - 4.5`: a refinement uses up one node of margin on each side.
    """
    coarse = tuple(-(-n // 4) + 3 for n in shape)
    warp = np.stack([5 * _noise(coarse, 6, rng) + 0.8 * _noise(coarse, 2, rng) for _ in range(3)])
    at_balls = [ndimage.map_coordinates(w, (tubes.centre.T + 4.5) / 4, order=1, mode="nearest") for w in warp]
    balls = np.stack([*(tubes.centre.T + at_balls), tubes.radius**2])
    place = _nodes(np.full(3, -4.5), np.array(coarse), 4) + warp
    owner, place = _refine(_claim_nodes(place, balls, tubes), place, balls)
    fine = np.empty([2 * (n - 2) for n in owner.shape], np.int32)

    def refine(slab: tuple[int, int]) -> None:
        low, high = slab
        ball, _ = _refine(owner[low : high + 2], place[:, low : high + 2], balls)
        fine[2 * low : 2 * high] = tubes.neurite[ball]

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(refine, _slabs(len(owner) - 2, 8)))
    return fine[: shape[0], : shape[1], : shape[2]]


def _claim_nodes(place: Array, balls: Array, tubes: _Tubes) -> Int:
    """The ball with the smallest power distance to each node; a ball is looked at in its own neighbourhood only."""
    shape = np.array(place.shape[1:])
    best, owner = np.full(shape, np.inf, np.float32), np.full(shape, -1, np.int32)
    reach = tubes.radius[:, None] + 24
    lows = np.maximum(np.ceil((tubes.centre - reach + 4.5) / 4), 0).astype(int)
    highs = np.minimum(np.floor((tubes.centre + reach + 4.5) / 4) + 1, shape).astype(int)
    for i in np.flatnonzero((lows < highs).all(1)):
        box = tuple(slice(low, high) for low, high in zip(lows[i], highs[i], strict=True))
        power = _power(place[(slice(None), *box)], balls[:, i])
        closer = power < best[box]
        np.copyto(best[box], power, where=closer)
        np.copyto(owner[box], i, where=closer)
    for node in zip(*np.nonzero(owner < 0), strict=True):  # the few gaps that no ball reaches
        owner[node] = _power(place[(slice(None), *node)], balls).argmin()
    return owner


def _power(place: Array, ball: Array) -> Array:
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
        best = _power(at, balls[:, winner])
        for neighbour in around[1:]:
            rival = owner[neighbour]
            power = _power(at, balls[:, rival])
            np.copyto(winner, rival, where=power < best)
            np.minimum(best, power, out=best)
        children = tuple(slice(c, None, 2) for c in corner)
        fine[children], fine_place[(slice(None), *children)] = winner, at
    return fine, fine_place


def _borders(bodies: Int, *, both_sides: bool) -> Mask:
    """Voxels that differ from their predecessor along an axis and, on request, those predecessors."""
    border = np.zeros(bodies.shape, bool)
    for axis in range(3):
        lower, upper = np.moveaxis(border, axis, 0)[:-1], np.moveaxis(border, axis, 0)[1:]
        differ = np.diff(bodies, axis=axis) != 0
        upper |= np.moveaxis(differ, axis, 0)
        if both_sides:
            lower |= np.moveaxis(differ, axis, 0)
    return border


def _connected_bodies(neurite: Int) -> Int:
    """Bodies 1 to n, each 6-connected within the volume; fragments below `MIN_BODY_VOXELS` are 0."""
    padded = np.pad(neurite, 1, constant_values=-1)
    # without the upper sides of the borders, voxels of two neurites never touch: one labelling separates them all
    body, _ = ndimage.label(~_borders(padded, both_sides=False) & (padded >= 0))
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


def _body_ids(bodies: Int, rng: Rng) -> NDArray[np.uint64]:
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


# What the microscope sees, in grey levels.


def _cytoplasm(bodies: Int, rng: Rng) -> Float:
    """The inside of the neurites: a grey level for each; texture, granules, cisternae, and uneven staining over all."""
    n = int(bodies.max()) + 1
    large = np.bincount(bodies.reshape(-1), minlength=n) > 120_000
    level = (172 + 9 * rng.standard_normal(n) + 9 * large).astype(np.float32)
    level[rng.random(n) < 0.12] = 132
    half = tuple(-(-length // 2) for length in bodies.shape)
    texture = 60 * ndimage.gaussian_filter(rng.standard_normal(half, dtype=np.float32), 0.8)
    texture += 6 * _noise(half, 3, rng) + 7 * _noise(half, 40, rng)
    granules = np.maximum(_noise(half, 2, rng) - 0.7, 0) * np.maximum(_noise(half, 14, rng) + 0.4, 0)
    cisternae = np.exp(-((_noise(half, 9, rng) / 0.16) ** 2)) * (_noise(half, 12, rng) > 0.8)
    texture -= 30 * np.minimum(granules, 2.5) + 65 * cisternae
    for axis in (2, 1, 0):
        texture = texture.repeat(2, axis).take(range(bodies.shape[axis]), axis)
    scene: Float = level[bodies] + texture
    return scene


def _paint_organelles(scene: Float, bodies: Int, tubes: _Tubes, rng: Rng) -> None:
    """Microtubules, mitochondria, vesicles, membranes, densities, in this order: the later lies on top."""
    membrane = _borders(bodies, both_sides=True)
    crowd = ndimage.gaussian_filter(membrane[::2, ::2, ::2].astype(np.float32), 2.0)
    tissue = _Tissue(scene, bodies, membrane, crowd, tubes)
    for ball in _spaced_balls(tissue, 13.0, 70.0, rng):
        _paint_microtubules(tissue, ball, rng)
    for ball in _spaced_balls(tissue, 10.0, 65.0, rng):
        _paint_mitochondrion(tissue, ball, rng)
    contacts = [_find_contact(tissue, ball, rng) for ball in _spaced_balls(tissue, 9.0, 45.0, rng)]
    synapses = [contact for contact in contacts if contact is not None]
    for synapse in synapses:
        _paint_vesicles(tissue, synapse, rng)
    np.copyto(scene, MEMBRANE_GREY, where=membrane)
    for synapse in synapses:
        _paint_density(tissue, synapse)


def _spaced_balls(tissue: _Tissue, min_radius: float, spacing: float, rng: Rng) -> list[int]:
    """Balls above `min_radius` with free cytoplasm at their centres, `spacing` from each other, in random order."""
    centre = tissue.tubes.centre
    inside = ((centre > 0) & (centre < tissue.bodies.shape)).all(1)
    chosen: list[int] = []
    for ball in rng.permutation(np.flatnonzero(inside & (tissue.tubes.radius > min_radius))):
        apart = ((centre[chosen] - centre[ball]) ** 2).sum(1) > spacing**2
        if apart.all() and tissue.is_clear(centre[ball]):
            chosen.append(int(ball))
    return chosen


def _paint_microtubules(tissue: _Tissue, ball: int, rng: Rng) -> None:
    """Dark lines along the neurite of `ball`, one voxel wide before the blur."""
    centre, tangent = tissue.tubes.course(ball, 120.0)
    host = tissue.body_at(tissue.tubes.centre[ball])
    side = _unit(np.cross(tangent, rng.standard_normal(3)))
    spread = 0.6 * float(tissue.tubes.radius[ball])
    for a, b in rng.uniform(-spread, spread, (int(spread), 2)):
        line = np.rint(centre + a * side + b * np.cross(tangent, side)).astype(int)
        line = line[((line >= 0) & (line < tissue.bodies.shape)).all(1)]
        line = line[tissue.bodies[tuple(line.T)] == host]
        tissue.scene[tuple(line.T)] = 30


def _paint_mitochondrion(tissue: _Tissue, ball: int, rng: Rng) -> None:
    """Two membranes around a dark matrix with cristae, along the neurite; it gives way to the neurite's membrane."""
    calibre = float(tissue.tubes.radius[ball])
    thick = float(np.clip(rng.uniform(0.4, 0.6) * calibre, 6.5, 17))
    line, tangent = tissue.tubes.course(ball, rng.uniform(2.5, 5) * thick)
    line = line[::2] + _unit(np.cross(tangent[0], rng.standard_normal(3))) * 0.3 * calibre
    lows = np.maximum((line.min(0) - thick - 2) // 2, 0).astype(int)  # of a box on the half grid
    highs = np.minimum((line.max(0) + thick + 2) // 2 + 1, np.array(tissue.bodies.shape) // 2).astype(int)
    at = _nodes(2 * lows + 0.5, highs - lows, 2)
    depth = np.full(at.shape[1:], -np.inf, np.float32)
    for middle, t in zip(line, np.linspace(-0.95, 0.95, len(line)), strict=True):
        radius = thick * np.sqrt(1 - t**4)
        np.maximum(depth, radius - np.sqrt(_power(at, np.append(middle, 0))), out=depth)
    depth = _doubled(depth - 20 * tissue.crowd[tuple(map(slice, lows, highs))])
    phase = _doubled(np.tensordot(_unit(rng.standard_normal(3)), at, 1) + 2.5 * _noise(at.shape[1:], 5, rng))
    grey = rng.normal(88, 8) + 26 * np.sin(phase * (2 * np.pi / 6.5))
    grey[depth < 4.6] = 45  # inner membrane
    grey[depth < 3.2] = 125
    grey[depth < 1.5] = 45  # outer membrane
    box = tuple(map(slice, 2 * lows, 2 * highs))
    host = tissue.bodies[box] == tissue.body_at(tissue.tubes.centre[ball])
    np.copyto(tissue.scene[box], grey.astype(np.float32), where=host & (depth > 0))


def _doubled(field: Array) -> Array:
    """The field on the grid of twice the resolution, interpolated."""
    for axis in (2, 1, 0):
        field = ndimage.correlate1d(field.repeat(2, axis), [0.25, 0.5, 0.25], axis)
    return field


def _find_contact(tissue: _Tissue, ball: int, rng: Rng) -> _Contact | None:
    """Where a ray from the centre of a ball leaves its body for another one."""
    direction = _unit(rng.standard_normal(3))
    centre, reach = tissue.tubes.centre[ball], 3 * float(tissue.tubes.radius[ball])
    ray = centre + direction * np.arange(0, reach, 0.5)[:, None]
    ray = ray[((ray >= 0) & (ray <= np.array(tissue.bodies.shape) - 1)).all(1)]
    passed = tissue.bodies[tuple(np.rint(ray).astype(int).T)]
    outside = np.flatnonzero(passed != passed[0])
    if not len(outside) or 0 in (passed[0], passed[outside[0]]):
        return None
    return _Contact(ray[outside[0]], direction, int(passed[0]))


def _paint_vesicles(tissue: _Tissue, synapse: _Contact, rng: Rng) -> None:
    """A cluster of 40 nm vesicles, dark rims around pale centres, on the presynaptic side."""
    distance = np.sqrt(((np.indices((7, 7, 7)) - 3) ** 2).sum(0))
    stamp = np.where(distance < 1.5, 185, 40).astype(np.float32)
    placed = np.empty((0, 3), int)
    for spot in np.rint(synapse.place - 13 * synapse.direction + 9 * rng.standard_normal((200, 3))).astype(int):
        apart = bool((((placed - spot) ** 2).sum(1) > 36).all())
        if not apart or not tissue.is_clear(spot) or tissue.body_at(spot) != synapse.presynaptic:
            continue
        if tissue.scene[tuple(spot)] > 110:  # not in a mitochondrion
            placed = np.vstack([placed, spot])
            box = tuple(slice(c - 3, c + 4) for c in spot)
            np.copyto(tissue.scene[box], stamp, where=distance < 2.9)


def _paint_density(tissue: _Tissue, synapse: _Contact) -> None:
    """Thickened membranes around the contact, and a T-bar on the presynaptic side."""
    lows = np.maximum(np.rint(synapse.place).astype(int) - 11, 0)
    box = tuple(slice(low, low + 23) for low in lows)
    bodies = tissue.bodies[box]
    offset = np.moveaxis(np.indices(bodies.shape), 0, -1) + lows - synapse.place
    along = offset @ synapse.direction
    lateral = np.sqrt(np.maximum((offset**2).sum(-1) - along**2, 0))
    thickened = ndimage.distance_transform_edt(~tissue.membrane[box]) < 1.3
    thickened &= (lateral < 6.5) & (np.abs(along) < 6)
    pedestal = (lateral < 2) & (along < 1) & (along > -6)
    platform = (lateral < 5) & (along < -4) & (along > -6.5)
    t_bar = (pedestal | platform) & (bodies == synapse.presynaptic)
    np.copyto(tissue.scene[box], DENSITY_GREY, where=thickened | t_bar)


def _photograph(scene: Float, rng: Rng) -> NDArray[np.uint8]:
    """The scene through the point spread of the microscope, with the slightly correlated grain of its detector."""
    depth, height, width = scene.shape
    raw = np.empty(scene.shape, np.uint8)
    # each plane of grain has its own seed, so that slabs agree on the plane they share and meet without a seam
    seeds = rng.integers(2**63, size=depth + 1)

    def expose(slab: tuple[int, int]) -> None:
        low, high = slab
        start = max(low - 4, 0)  # 4 is the radius of the blur
        image = ndimage.gaussian_filter(scene[start : high + 4], 1.15, radius=4)[low - start : high - start]
        grain = np.empty((high - low + 1, height + 1, width + 1), np.float32)
        for plane, seed in zip(grain, seeds[low : high + 1], strict=True):
            np.random.default_rng(seed).standard_normal(out=plane, dtype=np.float32)
        image += (5 * grain + 17 * ndimage.uniform_filter(grain, 2))[1:, 1:, 1:]  # without the reflected edge
        raw[low:high] = np.clip(np.rint(image), 0, 255).astype(np.uint8)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(expose, _slabs(depth, 32)))
    return raw
