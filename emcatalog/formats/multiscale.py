"""What N5 and Zarr share: arrays below one folder, axes that have names, lengths in units, read by TensorStore."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar, get_args

import tensorstore as ts

from emcatalog.entries.volume import Dtype
from emcatalog.errors import SourceCorruptError, listing
from emcatalog.formats.volume import ArraySpec, Volume
from emcatalog.geometry import AXES, CHANNEL, Grid, ZyxNm, zyx
from emcatalog.stores import Store

_UNITS: Final = {
    1e-3: ("pm", "picometer", "picometre"),
    1e-1: ("angstrom", "å"),
    1.0: ("nm", "nanometer", "nanometre", "nanometers", "nanometres"),
    # Unicode has the micro sign twice: U+00B5, and the Greek letter.
    1e3: ("um", "µm", "\N{GREEK SMALL LETTER MU}m", "micrometer", "micrometre", "micrometers", "micron", "microns"),
    1e6: ("mm", "millimeter", "millimetre", "millimeters"),
    1e7: ("cm", "centimeter", "centimetre"),
    1e9: ("m", "meter", "metre"),
}
_NM: Final = {name: length for length, names in _UNITS.items() for name in names}
"""Units by name, in nm."""

_HALF_VOXEL_TOLERANCE: Final = 1e-4
"""In voxels: how far a translation, written with a few decimals, may lie from the centre of a voxel."""

_LARGEST: Final = 1e300

TELL_SIZE: Final = "; where the source does not tell it, an entry can give the voxel size: `voxel_size_from: catalog`"
"""End of a message: what to do about a length that is not there."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Axes:
    """Axes of a stored array: z, y and x, perhaps one of channels, and others of length 1."""

    names: tuple[str, ...]
    """In the order in which TensorStore counts them; that of channels is ``c``."""

    def pick(self, values: Sequence[_T], what: str) -> tuple[_T, _T, _T]:
        """What is said along z, y and x, of values for all axes or for those of space alone.

        Raises:
            SourceCorruptError: values for another number of axes.
        """
        names = self.names if len(values) == len(self.names) else tuple(n for n in self.names if n in AXES)
        if len(values) != len(names) or not set(AXES) <= set(names):
            raise SourceCorruptError(f"{what} has {len(values)} values for the axes {listing(self.names)}")
        z, y, x = (values[names.index(axis)] for axis in AXES)
        return z, y, x

    def arrange(self, store: ts.TensorStore) -> ts.TensorStore:
        """The array as (z, y, x), or (c, z, y, x)."""
        kept = [self.names.index(axis) for axis in (CHANNEL, *AXES) if axis in self.names]
        dropped = [i for i in range(len(self.names)) if i not in kept]
        return store.transpose([*dropped, *kept])[(0,) * len(dropped)]


@dataclass(frozen=True, slots=True)
class StoredArray:
    """One array as TensorStore opens it, without asking the source again."""

    key: str
    """Name of the scale."""
    document: str
    """Address of its metadata, for messages."""
    store: Store
    """Its folder."""
    driver: str
    """TensorStore's name of the format."""
    metadata: Mapping[str, Any]
    """All of its metadata that TensorStore needs: what is left out would be chosen anew, not read."""
    encoding: str
    """Name of what compresses a chunk: ``blosc``, ``gzip``, ``raw``, ..."""

    def open(self, *, fill: bool) -> ts.TensorStore:
        """Its voxels, along the axes as they are stored; whether absent chunks are background is for ``fill`` to say.

        Raises:
            SourceCorruptError: metadata that TensorStore does not take.
        """
        spec = {
            "driver": self.driver,
            "kvstore": self.store.kvstore,
            "metadata": dict(self.metadata),
            "fill_missing_data_reads": fill,
            # One open is one fetch: asking for each cached shard index again would cost a request a chunk.
            "recheck_cached_data": "open",
        }
        try:
            # Another read of the metadata would cost another round trip for each scale.
            opened = ts.open(spec, assume_metadata=True, context=self.store.context).result()
        except ValueError as error:
            raise SourceCorruptError(f"{self.document} describes no array that can be read here: {error}") from error
        if opened.dtype == ts.bool:
            opened = ts.cast(opened, ts.uint8)
        # An array that may grow has bounds that TensorStore lets an index exceed, until it reads.
        return opened[ts.d[:].mark_bounds_implicit[False]]


@dataclass(frozen=True, slots=True)
class Scale:
    """One scale of a volume."""

    spec: ArraySpec
    array: StoredArray
    axes: Axes

    def open(self, *, fill: bool) -> ts.TensorStore:
        """Its voxels, along the axes of its spec."""
        return self.axes.arrange(self.array.open(fill=fill))


@dataclass(frozen=True, slots=True)
class Multiscale:
    """A volume of N5 or Zarr arrays whose metadata was read."""

    levels: tuple[Scale, ...]
    """Finest first."""

    @property
    def scales(self) -> tuple[ArraySpec, ...]:
        """Finest first."""
        return tuple(level.spec for level in self.levels)

    def open_scale(self, index: int) -> Volume:
        """Open one scale for reading; the source is not asked for anything.

        Raises:
            SourceError: TensorStore cannot open it.
        """
        level = self.levels[index]
        return Volume(level.spec, level.open(fill=False), level.open(fill=True))


def make_scale(array: StoredArray, axes: Axes, voxel_size_nm: ZyxNm, corner_nm: ZyxNm) -> Scale:
    """Describe one scale.

    Args:
        array: where its voxels are.
        axes: of the array.
        voxel_size_nm: edges of a voxel.
        corner_nm: of its first voxel.

    Raises:
        SourceCorruptError: a dtype that is not read, or no voxels.
    """
    opened = axes.arrange(array.open(fill=True))
    dtype, dtypes = opened.dtype.name, get_args(Dtype)
    if dtype not in dtypes:
        raise SourceCorruptError(f"{array.document}: voxels of type {dtype}; what is read: bool, {listing(dtypes)}")
    if 0 in opened.shape:
        raise SourceCorruptError(f"{array.document}: an array of shape {opened.shape}, which has no voxels")
    grid = Grid(zyx(opened.shape[-3:]), voxel_size_nm, origin_nm=corner_nm)
    channels = opened.shape[0] if CHANNEL in axes.names else None
    sides = zip(opened.chunk_layout.read_chunk.shape or opened.shape, opened.shape, strict=True)
    chunk = tuple(side or whole for side, whole in sides)
    return Scale(ArraySpec(array.key, dtype, grid, chunk, array.encoding, channels), array, axes)


def norm_axes(names: Sequence[str], shape: Sequence[int], what: str) -> Axes:
    """Turn names of axes as they are written into ours.

    Raises:
        SourceCorruptError: z, y or x is not there, or another axis has more than one place.
    """
    axes = tuple(CHANNEL if name.lower() in ("channel", "channels") else name.lower() for name in names)
    if len(axes) != len(shape) or len(set(axes)) != len(axes) or not set(AXES) <= set(axes):
        raise SourceCorruptError(
            f"{what}: the axes {listing(names)} for an array of shape {tuple(shape)}; a volume has z, y and x, each"
            " once"
        )
    for name, length in zip(axes, shape, strict=True):
        if name not in (*AXES, CHANNEL) and length != 1:
            raise SourceCorruptError(
                f"{what}: {length} places along the axis {name}; besides z, y, x and channels, an axis of one place is"
                " read"
            )
    return Axes(axes)


def norm_names(names: object) -> list[str] | None:
    """Names of axes from a document; None for anything else."""
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def norm_numbers(numbers: object, what: str) -> list[float]:
    """A list of finite numbers from a document.

    Raises:
        SourceCorruptError: anything else.
    """
    if isinstance(numbers, list) and all(_is_finite(number) for number in numbers):
        return [float(number) for number in numbers]
    raise SourceCorruptError(f"{what} is {numbers!r:.80}, not a list of numbers")


def norm_lengths(lengths: object, units: object, axes: Axes, what: str, *, declared: bool) -> ZyxNm:
    """Lengths of a document, (z, y, x) in nm.

    Args:
        lengths: for each axis.
        units: their units: one name, or one for each axis.
        axes: whose lengths they are.
        what: key and document, for messages.
        declared: whether the catalog says how large a voxel is, so that a missing unit does not matter.

    Raises:
        SourceCorruptError: not lengths, or a unit that is none of length.
    """
    values = axes.pick(norm_numbers(lengths, what), what)
    names = axes.pick(units, f"units of {what}") if isinstance(units, list) else (units,) * 3
    z, y, x = (value * _unit(unit, what, declared=declared) for value, unit in zip(values, names, strict=True))
    return z, y, x


def check_positive(numbers: ZyxNm, what: str) -> ZyxNm:
    """The numbers, (z, y, x), where all are larger than 0.

    Raises:
        SourceCorruptError: one is not.
    """
    for axis, number in zip(AXES, numbers, strict=True):
        if number <= 0:
            raise SourceCorruptError(
                f"{what} is {number:g} along {axis}; an axis that is turned around (a negative scale) or has no length"
                " is not read"
            )
    return numbers


def require(metadata: Mapping[str, Any], keys: Sequence[str], what: str) -> None:
    """Refuse metadata of an array that lack something: TensorStore would choose it, as for an array to be created.

    Raises:
        SourceCorruptError: the message names the first key.
    """
    for key in keys:
        if key not in metadata:
            raise SourceCorruptError(f"{what} describes no array that can be read here: it has no {key}")


def norm_compressor(written: object, key: str, known: Sequence[str], what: str) -> dict[str, Any]:
    """What TensorStore is told of a compressor: its name, and no option that reading does not need.

    It refuses options that it does not know, and writers have their own: ``nthreads`` of n5-blosc, ``checksum`` and
    ``typesize`` of numcodecs.

    Args:
        written: the compressor's object in the array's metadata.
        key: of its name in that object.
        known: names that TensorStore knows.
        what: address of the metadata, for messages.

    Raises:
        SourceCorruptError: another name, or none.
    """
    name = written.get(key) if isinstance(written, Mapping) else written
    if not isinstance(name, str) or name not in known:
        raise SourceCorruptError(f"{what}: chunks are compressed by {name!r}; what is read: {listing(known)}")
    # It insists on these, which a blosc chunk says itself.
    return {key: name, **({"cname": "lz4", "clevel": 5, "shuffle": 1} if name == "blosc" else {})}


def check_path(path: str, what: str) -> str:
    """The path of a scale below its group.

    Raises:
        SourceCorruptError: it leads out of the group.
    """
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise SourceCorruptError(f"{what}: {path!r} is not the path of a scale below it")
    return path


def times(numbers: ZyxNm, factors: ZyxNm) -> ZyxNm:
    """Number by number."""
    return _zyx(number * factor for number, factor in zip(numbers, factors, strict=True))


def corners_nm(sizes: Sequence[ZyxNm], translations: Sequence[ZyxNm]) -> list[ZyxNm]:
    """Corners of the first voxels of all scales, (z, y, x) in nm, from what a document calls their translations.

    By https://ngff.openmicroscopy.org/0.5/#trafo-md a translation is where the CENTRE of the first voxel is, but many
    writers mean its corner, or leave it 0 for all scales. So the finest scale's is taken for a centre only where the
    corner then stands on a whole voxel, as in what this package writes. Coarser scales are placed by how their centres
    differ from the finest one's: the centre of a voxel that spans several lies further in. Where all translations are
    the same, they tell nothing of that, and all scales begin at one corner.

    Args:
        sizes: voxel sizes, finest first.
        translations: of the same scales.
    """
    size, translation = sizes[0], translations[0]
    indices = [t / s - 0.5 for t, s in zip(translation, size, strict=True)]
    centred = all(abs(index - round(index)) < _HALF_VOXEL_TOLERANCE for index in indices)
    corner = _zyx(round(i) * s for i, s in zip(indices, size, strict=True)) if centred else translation
    if all(other == translation for other in translations):
        return [corner] * len(sizes)
    return [
        _zyx(c + (t - t0) - (s - s0) / 2 for c, t, t0, s, s0 in zip(corner, at, translation, own, size, strict=True))
        for at, own in zip(translations, sizes, strict=True)
    ]


def _zyx(numbers: Iterable[float]) -> ZyxNm:
    z, y, x = numbers
    return z, y, x


def _unit(unit: object, what: str, *, declared: bool) -> float:
    length = _NM.get(unit.strip().lower()) if isinstance(unit, str) else None
    if length is not None:
        return length
    if declared:
        return 1.0
    said = f"has the unit {unit!r}, which is none of length" if unit else "has no unit"
    raise SourceCorruptError(f"{what} {said}{TELL_SIZE}")


def _is_finite(number: object) -> bool:
    # Compared, since math.isfinite fails on a whole number of 400 digits.
    return isinstance(number, (int, float)) and not isinstance(number, bool) and -_LARGEST < number < _LARGEST
