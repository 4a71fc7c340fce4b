"""Boxes and grids: integers, half-open, zyx inside; loose user input becomes a ``Box`` here and nowhere else.

The order of axes is in the type: a ``Grid`` is (z, y, x), a ``Box`` (z, y, x) or (c, z, y, x), whatever a user typed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from numbers import Integral, Real
from typing import Final, Literal, TypeGuard

from emcatalog.errors import AlignmentError, ArgumentError, listing

AXES: Final = ("z", "y", "x")
"""Order of axes inside the package, and of every array that leaves it."""

CHANNEL: Final = "c"
"""Name of the axis that stands before them where a volume has several channels."""

Units = Literal["voxel", "nm"]
Zyx = tuple[int, int, int]
Index = tuple[int, ...]
"""(z, y, x) or (c, z, y, x)."""
ZyxNm = tuple[float, float, float]

BboxLike = Sequence[float] | Mapping[str, Sequence[float]] | str

_WHOLE_VOXEL_TOLERANCE: Final = 1e-6
"""In voxels. 5 * 3.58 / 3.58 is not 5 in floating point; growing outward from the error would add a voxel. The error
stays below this for a billion voxels, or 10 cm, from the origin."""

_LARGEST: Final = 2.0**53
"""Up to here every whole number is a float: a larger one could not be told from its neighbour."""

_FORMS = "six numbers (x0, x1, y0, y1, z0, z1) or {'x': [x0, x1], 'y': [y0, y1], 'z': [z0, z1]}"


@dataclass(frozen=True, slots=True)
class Box:
    """A half-open block of whole voxels, ``begin <= voxel < end``, never empty; of one axis more for channels."""

    begin: Index
    """First voxel, (z, y, x) or (c, z, y, x)."""
    end: Index
    """One past the last voxel, in the same order."""

    def __post_init__(self) -> None:
        """Refuse what is empty or reversed.

        Raises:
            ArgumentError: an end that does not lie behind its begin.
        """
        for axis, begin, end in zip(axis_names(len(self.begin)), self.begin, self.end, strict=True):
            if begin >= end:
                raise ArgumentError(f"empty box: {axis} runs from {begin} to {end}; the end must be larger")

    @property
    def shape(self) -> Index:
        """Voxels along each axis."""
        return tuple(end - begin for begin, end in zip(self.begin, self.end, strict=True))

    @property
    def voxels(self) -> int:
        """Number of voxels."""
        return math.prod(self.shape)

    @property
    def slices(self) -> tuple[slice, ...]:
        """Index of this box in an array whose first voxel is index 0."""
        return tuple(slice(begin, end) for begin, end in zip(self.begin, self.end, strict=True))

    @property
    def space(self) -> Box:
        """This box without its axis of channels."""
        return Box(self.begin[-3:], self.end[-3:])

    def with_channels(self, begin: int, end: int) -> Box:
        """This box of space, for a half-open interval of channels."""
        return Box((begin, *self.begin), (end, *self.end))

    def contains(self, other: Box) -> bool:
        """Whether every voxel of the other box is in this one."""
        return all(a <= b for a, b in zip(self.begin, other.begin, strict=True)) and all(
            a >= b for a, b in zip(self.end, other.end, strict=True)
        )

    def intersect(self, other: Box) -> Box | None:
        """The voxels in both, or None where there are none."""
        begin = tuple(max(a, b) for a, b in zip(self.begin, other.begin, strict=True))
        end = tuple(min(a, b) for a, b in zip(self.end, other.end, strict=True))
        return None if any(a >= b for a, b in zip(begin, end, strict=True)) else Box(begin, end)

    def translate(self, by: Sequence[int]) -> Box:
        """This box, moved."""
        return Box(
            tuple(a + d for a, d in zip(self.begin, by, strict=True)),
            tuple(a + d for a, d in zip(self.end, by, strict=True)),
        )

    def grow_to(self, cell: Index) -> Box:
        """The smallest box of whole cells (of a lattice through voxel 0) around this one."""
        return Box(
            tuple(a // c * c for a, c in zip(self.begin, cell, strict=True)),
            tuple(-(-a // c) * c for a, c in zip(self.end, cell, strict=True)),
        )

    def split(self, cell: Index) -> Iterator[Box]:
        """Cut along a lattice through voxel 0; border pieces are smaller. Order: the first axis slowest, x fastest."""
        steps = [_steps(a, b, c) for a, b, c in zip(self.begin, self.end, cell, strict=True)]
        for piece in product(*steps):
            yield Box(tuple(a for a, _ in piece), tuple(b for _, b in piece))

    def cells(self, cell: Index) -> int:
        """How many pieces ``split`` gives, without making them."""
        return math.prod(-(-b // c) - a // c for a, b, c in zip(self.begin, self.end, cell, strict=True))

    def xyz(self) -> tuple[int, int, int, int, int, int]:
        """Six numbers as users write them: (x0, x1, y0, y1, z0, z1)."""
        (z0, y0, x0), (z1, y1, x1) = self.begin[-3:], self.end[-3:]
        return x0, x1, y0, y1, z0, z1

    def __str__(self) -> str:
        """As in messages: ``x 0..64, y 0..64, z 0..64``."""
        axes = zip(axis_names(len(self.begin)), self.begin, self.end, strict=True)
        return ", ".join(f"{axis} {begin}..{end}" for axis, begin, end in reversed([*axes]))


@dataclass(frozen=True, slots=True)
class NmBox:
    """A block of physical space; what a user asks for before any voxel grid is known."""

    begin_nm: ZyxNm
    """Lower corner, (z, y, x) in nm."""
    end_nm: ZyxNm
    """Upper corner, (z, y, x) in nm."""

    def __str__(self) -> str:
        """As in messages: ``x 0..512 nm, ...``."""
        pairs = zip(AXES, self.begin_nm, self.end_nm, strict=True)
        return ", ".join(f"{axis} {begin:.10g}..{end:.10g}" for axis, begin, end in reversed([*pairs])) + " nm"


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the voxels of an array stand: voxel i covers ``[i, i + 1) * voxel_size_nm + origin_nm``."""

    shape: Zyx
    """Voxels along (z, y, x)."""
    voxel_size_nm: ZyxNm
    """Edge lengths of a voxel, (z, y, x) in nm."""
    offset: Zyx = (0, 0, 0)
    """Index of the first voxel that exists: the ``voxel_offset`` of a precomputed volume."""
    origin_nm: ZyxNm = (0.0, 0.0, 0.0)
    """Corner of voxel (0, 0, 0), which need not exist."""

    @property
    def extent(self) -> Box:
        """Every voxel that exists."""
        return Box(self.offset, zyx(a + b for a, b in zip(self.offset, self.shape, strict=True)))

    def to_nm(self, box: Box) -> NmBox:
        """The space that a box of voxels covers."""
        return NmBox(self._corner_nm(box.begin), self._corner_nm(box.end))

    def from_nm(self, box: NmBox) -> Box:
        """The whole voxels that a block of space touches: it grows outward."""
        begin = zyx(_floor(v) for v in self._voxels(box.begin_nm))
        end = zyx(_ceil(v) for v in self._voxels(box.end_nm))
        # A box thinner than the tolerance, on the face between two voxels, still is somewhere.
        return Box(begin, zyx(max(a + 1, b) for a, b in zip(begin, end, strict=True)))

    def centres_nm(self, box: Box) -> tuple[list[float], list[float], list[float]]:
        """Coordinates in nm of the voxel centres of a box along z, y and x."""
        z, y, x = (
            [(i + 0.5) * size + origin for i in range(begin, end)]
            for begin, end, size, origin in zip(box.begin, box.end, self.voxel_size_nm, self.origin_nm, strict=True)
        )
        return z, y, x

    def shift_to(self, other: Grid) -> Alignment:
        """Where the voxels of this grid are in another one that has the same voxels but for a whole shift.

        Raises:
            AlignmentError: another voxel size, or an offset that is not a whole number of voxels.
        """
        if any(not same_length(a, b) for a, b in zip(self.voxel_size_nm, other.voxel_size_nm, strict=True)):
            raise AlignmentError(
                f"voxel sizes differ: {format_xyz(self.voxel_size_nm)} nm against {format_xyz(other.voxel_size_nm)} nm"
                " (x, y, z); ask for a resolution that both have, for fewer channels, or for align='nearest'"
            )
        offsets = other._voxels(self.origin_nm)
        if not all(_is_whole(v) for v in offsets):
            raise AlignmentError(
                f"the channels are offset by {format_xyz(offsets)} voxels (x, y, z), which is not whole;"
                " read them one at a time, or with align='nearest'"
            )
        z, y, x = (round(v) + 0.5 for v in offsets)
        return Alignment((1.0, 1.0, 1.0), (z, y, x))

    def nearest_in(self, other: Grid) -> Alignment:
        """Where the centres of this grid's voxels are in another grid, whatever its voxels."""
        z, y, x = (a / b for a, b in zip(self.voxel_size_nm, other.voxel_size_nm, strict=True))
        half = tuple(size / 2 + origin for size, origin in zip(self.voxel_size_nm, self.origin_nm, strict=True))
        return Alignment((z, y, x), other._voxels((half[0], half[1], half[2])))

    def _corner_nm(self, voxel: Index) -> ZyxNm:
        z, y, x = (i * s + o for i, s, o in zip(voxel, self.voxel_size_nm, self.origin_nm, strict=True))
        return z, y, x

    def _voxels(self, point_nm: ZyxNm) -> ZyxNm:
        z, y, x = ((p - o) / s for p, s, o in zip(point_nm, self.voxel_size_nm, self.origin_nm, strict=True))
        return z, y, x


@dataclass(frozen=True, slots=True)
class Alignment:
    """For each voxel of one grid the voxel of another in which its centre lies."""

    step: ZyxNm
    """Edge of a voxel, in voxels of the other grid, (z, y, x)."""
    first: ZyxNm
    """Centre of voxel (0, 0, 0), in voxels of the other grid, counted from the corner of its voxel (0, 0, 0)."""

    @property
    def is_shift(self) -> bool:
        """Whether the two grids have the same voxels, numbered differently."""
        return all(same_length(step, 1.0) for step in self.step)

    def indices(self, axis: int, begin: int, end: int) -> list[int]:
        """The other grid's index for each voxel of ``[begin, end)`` along one axis (0 is z)."""
        return [self._index(axis, i) for i in range(begin, end)]

    def box(self, box: Box) -> Box:
        """The voxels of the other grid that a box needs."""
        begin = zyx([self._index(axis, i) for axis, i in enumerate(box.begin)])
        return Box(begin, zyx([self._index(axis, i - 1) + 1 for axis, i in enumerate(box.end)]))

    def covered_by(self, extent: Box) -> Box | None:
        """The voxels whose place lies in a box of the other grid; None where there are none."""
        begin = zyx([self._from(axis, i) for axis, i in enumerate(extent.begin)])
        end = zyx([self._from(axis, i) for axis, i in enumerate(extent.end)])
        return None if any(a >= b for a, b in zip(begin, end, strict=True)) else Box(begin, end)

    def _index(self, axis: int, i: int) -> int:
        # A centre on the face between two voxels, where a fine grid is thinned, belongs to the upper one.
        return math.floor(self.first[axis] + i * self.step[axis] + _WHOLE_VOXEL_TOLERANCE)

    def _from(self, axis: int, index: int) -> int:
        """The first voxel that lies at this index of the other grid, or behind it."""
        return math.ceil((index - self.first[axis] - _WHOLE_VOXEL_TOLERANCE) / self.step[axis])


def norm_bbox(bbox: object, units: object, voxel_size_nm: ZyxNm) -> NmBox:
    """Turn a user's box into physical space.

    Args:
        bbox: six numbers ``(x0, x1, y0, y1, z0, z1)``, the same in a string with commas, or a mapping of
            ``x``, ``y`` and ``z`` to pairs.
        units: ``"voxel"`` (of the nominal voxel size, whole numbers) or ``"nm"``.
        voxel_size_nm: the entry's nominal voxel size, (z, y, x) in nm.

    Raises:
        ArgumentError: anything else, an empty or a reversed box; the message says which number.
    """
    check_units(units)
    pairs = {axis: _norm_pair(axis, *pair, whole=units == "voxel") for axis, pair in _pairs(bbox).items()}
    scale = voxel_size_nm if units == "voxel" else (1.0, 1.0, 1.0)
    z0, y0, x0 = (pairs[axis][0] * s for axis, s in zip(AXES, scale, strict=True))
    z1, y1, x1 = (pairs[axis][1] * s for axis, s in zip(AXES, scale, strict=True))
    return NmBox((z0, y0, x0), (z1, y1, x1))


def check_units(units: object) -> None:
    """Refuse what is not a unit of a box.

    Raises:
        ArgumentError: it is neither ``"voxel"`` nor ``"nm"``.
    """
    if units not in ("voxel", "nm"):
        raise ArgumentError(f"units={units!r} is not a unit of a box: use 'voxel' or 'nm'")


def norm_resolution(resolution: object) -> ZyxNm:
    """Turn a resolution in nm, one number or (x, y, z), into (z, y, x) nm.

    Raises:
        ArgumentError: anything else.
    """
    numbers = [resolution] * 3 if _is_number(resolution) else _sequence(resolution)
    if numbers is None or len(numbers) != 3:
        raise ArgumentError(f"resolution={resolution!r} is not a length; give a number of nm, or three (x, y, z)")
    for number in numbers:
        if not _is_number(number) or number <= 0:
            raise ArgumentError(
                f"resolution={resolution!r}: {number!r} is not a positive length in nm; give one, or three (x, y, z)"
            )
    return reverse(numbers)  # type: ignore[arg-type]  # each was looked at above


def axis_names(count: int) -> tuple[str, ...]:
    """Names of the axes of an array: (z, y, x), or (c, z, y, x) where there are four."""
    return (CHANNEL, *AXES)[-count:]


def zyx(numbers: Iterator[int] | Sequence[int]) -> Zyx:
    """Three integers as a (z, y, x) tuple."""
    z, y, x = numbers
    return z, y, x


def reverse(numbers: Sequence[float]) -> ZyxNm:
    """(x, y, z) as written in YAML and in info files, as (z, y, x), or back."""
    x, y, z = numbers
    return float(z), float(y), float(x)


def same_size(a: ZyxNm, b: ZyxNm) -> bool:
    """Whether two voxel sizes are the same but for floating point."""
    return all(same_length(p, q) for p, q in zip(a, b, strict=True))


def format_xyz(numbers: Sequence[float]) -> str:
    """A (z, y, x) triple as users read it: ``8 x 8 x 40`` along x, y, z."""
    return " x ".join(f"{number:.10g}" for number in reversed(numbers))


def _pairs(bbox: object) -> dict[str, tuple[object, object]]:
    if isinstance(bbox, str):
        bbox = [_number(part) for part in bbox.replace(",", " ").split()]
    if isinstance(bbox, Mapping):
        if set(bbox) != set(AXES):
            raise ArgumentError(f"bbox has the axes {listing(map(repr, bbox))}; give {_FORMS}")
        return {axis: _pair(axis, bbox[axis]) for axis in reversed(AXES)}
    numbers = _sequence(bbox)
    if numbers is None:
        raise ArgumentError(f"bbox={bbox!r} is not a box; give {_FORMS}")
    if len(numbers) != 6:
        raise ArgumentError(f"bbox has {len(numbers)} numbers; give {_FORMS}")
    x0, x1, y0, y1, z0, z1 = numbers
    return {"x": (x0, x1), "y": (y0, y1), "z": (z0, z1)}


def _pair(axis: str, value: object) -> tuple[object, object]:
    numbers = _sequence(value)
    if numbers is None or len(numbers) != 2:
        raise ArgumentError(f"bbox[{axis!r}]={value!r} is not a pair; give {_FORMS}")
    return numbers[0], numbers[1]


def _sequence(value: object) -> Sequence[object] | None:
    """A list, a tuple or an array (of numpy, torch, ...) as a sequence; None for anything else, text among it."""
    if isinstance(getattr(value, "shape", None), Sequence) and hasattr(value, "tolist"):
        value = value.tolist()
    return value if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray)) else None


def _number(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text


def _norm_pair(axis: str, low: object, high: object, *, whole: bool) -> tuple[float, float]:
    begin, end = _norm_edge(f"{axis}0", low, whole=whole), _norm_edge(f"{axis}1", high, whole=whole)
    if begin >= end:
        state = "empty" if begin == end else "reversed"
        raise ArgumentError(
            f"bbox is {state}: {axis} runs from {low} to {high}; the end must be larger. A box is {_FORMS}"
        )
    return begin, end


def _norm_edge(name: str, value: object, *, whole: bool) -> float:
    if not _is_number(value):
        raise ArgumentError(f"bbox: {name}={value!r} is not a number, or too large for one; give {_FORMS}")
    if whole and value != int(value):
        raise ArgumentError(
            f"bbox: {name}={value!r} is not a whole voxel; give whole numbers, or units='nm'. A box is {_FORMS}"
        )
    # A numpy.float32 would drag the product with the voxel size down to its own seven digits.
    return float(value)


def _is_number(value: object) -> TypeGuard[float]:
    """Whether it is a finite number. Compared, since ``math.isfinite`` fails on a whole number of 400 digits."""
    if not isinstance(value, (Real, Integral)) or isinstance(value, bool):
        return False
    return bool(-_LARGEST <= value <= _LARGEST)  # type: ignore[operator]  # typeshed gives Real no order with float


def _steps(begin: int, end: int, cell: int) -> list[tuple[int, int]]:
    cuts = [begin, *range((begin // cell + 1) * cell, end, cell), end]
    return list(pairwise(cuts))


def same_length(a: float, b: float) -> bool:
    """Whether two lengths are the same but for floating point."""
    return math.isclose(a, b, rel_tol=1e-6)


def whole_if_near(value: float) -> float | int:
    """A number of voxels as an integer, where it is one but for floating point."""
    return round(value) if _is_whole(value) else value


def _is_whole(value: float) -> bool:
    return abs(value - round(value)) < _WHOLE_VOXEL_TOLERANCE


def _floor(value: float) -> int:
    return round(value) if _is_whole(value) else math.floor(value)


def _ceil(value: float) -> int:
    return round(value) if _is_whole(value) else math.ceil(value)
