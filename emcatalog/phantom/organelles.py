"""What a microscope would show of the neurites, in grey levels: membranes, organelles, synapses, grain."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from scipy import ndimage

from emcatalog.phantom import neurites
from emcatalog.phantom.neurites import Tubes, borders, grid_nodes, noise, power_distance, slabs, unit_vectors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[Any]
    Mask: TypeAlias = NDArray[np.bool_]
    Float: TypeAlias = NDArray[np.float32]
    Int: TypeAlias = NDArray[np.int32]
    Box: TypeAlias = tuple[slice, ...]
    Rng: TypeAlias = np.random.Generator

MEMBRANE_GREY, DENSITY_GREY = 28.0, 36.0  # before the blur, which halves the contrast of a membrane


@dataclass(frozen=True)
class _Tissue:
    """The scene that the organelles are painted into, and what their painters need to know of it."""

    scene: Float
    bodies: Int
    membrane: Mask
    crowd: Float
    """Blurred membranes, on the half grid: about 0.4 on a membrane, 0 far from any."""
    tubes: Tubes

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


def cytoplasm(bodies: Int, rng: Rng) -> Float:
    """The inside of the neurites: a grey level for each; texture, granules, cisternae, and uneven staining over all."""
    n = int(bodies.max()) + 1
    large = np.bincount(bodies.reshape(-1), minlength=n) > 120_000
    level = (172 + 9 * rng.standard_normal(n) + 9 * large).astype(np.float32)
    level[rng.random(n) < 0.12] = 132
    half = tuple(-(-length // 2) for length in bodies.shape)
    texture = 60 * ndimage.gaussian_filter(rng.standard_normal(half, dtype=np.float32), 0.8)
    texture += 6 * noise(half, 3, rng) + 7 * noise(half, 40, rng)
    granules = np.maximum(noise(half, 2, rng) - 0.7, 0) * np.maximum(noise(half, 14, rng) + 0.4, 0)
    cisternae = np.exp(-((noise(half, 9, rng) / 0.16) ** 2)) * (noise(half, 12, rng) > 0.8)
    texture -= 30 * np.minimum(granules, 2.5) + 65 * cisternae
    for axis in (2, 1, 0):
        texture = texture.repeat(2, axis).take(range(bodies.shape[axis]), axis)
    scene: Float = level[bodies] + texture
    return scene


def paint_organelles(scene: Float, bodies: Int, tubes: Tubes, rng: Rng) -> None:
    """Microtubules, mitochondria, vesicles, membranes, densities, in this order: the later lies on top."""
    membrane = borders(bodies, both_sides=True)
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
    side = unit_vectors(np.cross(tangent, rng.standard_normal(3)))
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
    line = line[::2] + unit_vectors(np.cross(tangent[0], rng.standard_normal(3))) * 0.3 * calibre
    lows = np.maximum((line.min(0) - thick - 2) // 2, 0).astype(int)  # of a box on the half grid
    highs = np.minimum((line.max(0) + thick + 2) // 2 + 1, np.array(tissue.bodies.shape) // 2).astype(int)
    at = grid_nodes(2 * lows + 0.5, highs - lows, 2)
    depth = np.full(at.shape[1:], -np.inf, np.float32)
    for middle, t in zip(line, np.linspace(-0.95, 0.95, len(line)), strict=True):
        radius = thick * np.sqrt(1 - t**4)
        np.maximum(depth, radius - np.sqrt(power_distance(at, np.append(middle, 0))), out=depth)
    depth = _doubled(depth - 20 * tissue.crowd[tuple(map(slice, lows, highs))])
    phase = _doubled(np.tensordot(unit_vectors(rng.standard_normal(3)), at, 1) + 2.5 * noise(at.shape[1:], 5, rng))
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
    direction = unit_vectors(rng.standard_normal(3))
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


def photograph(scene: Float, rng: Rng) -> NDArray[np.uint8]:
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

    with ThreadPoolExecutor(neurites.THREADS) as pool:
        list(pool.map(expose, slabs(depth, 32)))
    return raw
