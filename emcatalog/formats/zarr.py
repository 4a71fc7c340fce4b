"""Zarr volumes, version 2 or 3, one array or an OME-Zarr image, through TensorStore.

Formats: https://zarr-specs.readthedocs.io, https://ngff.openmicroscopy.org/0.5/#multiscale-md, and for one array the
attributes of https://github.com/funkelab/funlib.persistence: ``resolution`` or ``voxel_size``, and ``offset``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from emcatalog.entries.volume import ChannelModel
from emcatalog.errors import SourceCorruptError, SourceMissingError, listing
from emcatalog.formats.documents import Documents
from emcatalog.formats.multiscale import (
    TELL_SIZE,
    Axes,
    Multiscale,
    StoredArray,
    check_path,
    check_positive,
    corners_nm,
    make_scale,
    norm_axes,
    norm_compressor,
    norm_lengths,
    norm_names,
    norm_numbers,
    require,
    times,
)
from emcatalog.geometry import AXES, CHANNEL, ZyxNm, reverse
from emcatalog.locations import STORED_AXES

_ROOT: Final = ("zarr.json", ".zarray", ".zattrs", ".zgroup")
"""All that may be there; asked for at once."""

_COMPRESSORS: Final = ("blosc", "bz2", "gzip", "zlib", "zstd")
"""Of version 2: what TensorStore decodes."""

_V2_KEYS: Final = ("zarr_format", "shape", "chunks", "dtype", "fill_value", "order")
_V2_OPTIONAL: Final = ("filters", "dimension_separator")
"""What TensorStore is told of an array of version 2, besides its compressor."""

_V3_KEYS: Final = (
    "zarr_format", "node_type", "shape", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs"
)  # fmt: skip

_NO_COMPRESSORS: Final = ("bytes", "crc32c", "transpose")
"""Codecs of version 3 that leave a chunk as large as it is."""

Attributes = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Node:
    """A group or an array, whichever the version."""

    version: int
    attributes: Attributes
    array: Attributes | None
    """Metadata of the array; None for a group."""
    document: str
    """Address of the attributes, for messages."""


@dataclass(frozen=True, slots=True)
class _Place:
    """What transformations make of the axes of an array: index i is at ``i * scale + translation``."""

    scale: list[float]
    translation: list[float]


def read_zarr(documents: Documents, model: ChannelModel) -> Multiscale:
    """Read the metadata of an array, or of an OME-Zarr image and its arrays.

    Args:
        documents: of the volume.
        model: gives the voxel size and the offset where the source has none.

    Raises:
        SourceError: they are not there, not readable, or do not say what a volume needs.
    """
    node = _read_node(documents)
    if node.array is not None:
        return _one_array(documents, node, node.array, model)
    ome = node.attributes.get("ome", node.attributes)
    match ome.get("multiscales") if isinstance(ome, Mapping) else None:
        case [Mapping() as image, *_]:
            return _ome_image(documents, node, image, declared=model.voxel_size_from == "catalog")
    raise SourceCorruptError(
        f"{documents.location} is a Zarr group, and no OME-Zarr image (it has no multiscales); let the address name an"
        f" array or an image in it, as in {documents.location}/NAME"
    )


def _read_node(documents: Documents) -> _Node:
    v3, array, attributes, group = documents.read_json(*_ROOT)
    if v3 is not None:
        of_v3 = v3.get("attributes") or {}
        what = documents.address("zarr.json")
        if not isinstance(of_v3, Mapping):
            raise SourceCorruptError(f"{what}: attributes is {of_v3!r:.80}, not a JSON object")
        return _Node(3, of_v3, v3 if v3.get("node_type") == "array" else None, what)
    if array is None and attributes is None and group is None:
        raise SourceMissingError(
            f"{documents.location}: there is no Zarr array or group ({listing(_ROOT)}); check the address, or"
            " EMCATALOG_MIRRORS"
        )
    return _Node(2, attributes or {}, array, documents.address(".zattrs"))


def _stored_array(documents: Documents, path: str, version: int, metadata: Attributes) -> StoredArray:
    name = "zarr.json" if version == 3 else ".zarray"
    store, what = documents.store, documents.address(f"{path}/{name}" if path else name)
    key = path or documents.location.url.rpartition("/")[2]
    below = store.below(path) if path else store
    require(metadata, _V3_KEYS if version == 3 else (*_V2_KEYS, "compressor"), what)
    if version == 3:
        # Attributes and names would only be checked for what TensorStore itself writes there.
        told = {key: value for key, value in metadata.items() if key not in ("attributes", "dimension_names")}
        return StoredArray(key, what, below, "zarr3", told, _compressor_of(metadata["codecs"], what))
    written = metadata["compressor"]
    compressor = None if written is None else norm_compressor(written, "id", _COMPRESSORS, what)
    told = {key: metadata[key] for key in (*_V2_KEYS, *_V2_OPTIONAL) if key in metadata} | {"compressor": compressor}
    return StoredArray(key, what, below, "zarr", told, compressor["id"] if compressor else "raw")


def _compressor_of(codecs: object, what: str) -> str:
    """Name of the compressor among the codecs of version 3, of a shard those inside; TensorStore checks the rest."""
    for codec in reversed(codecs if isinstance(codecs, list) else []):
        name, inside = (codec.get("name"), codec.get("configuration")) if isinstance(codec, Mapping) else (codec, None)
        if name == "sharding_indexed":
            inside = inside if isinstance(inside, Mapping) else {}
            require(inside, ("chunk_shape", "codecs", "index_codecs"), f"{what}, sharding_indexed,")
            return _compressor_of(inside["codecs"], what)
        if name not in _NO_COMPRESSORS:
            return str(name)
    return "raw"


# --- one array


def _one_array(documents: Documents, node: _Node, metadata: Attributes, model: ChannelModel) -> Multiscale:
    array = _stored_array(documents, "", node.version, metadata)
    shape = array.open(fill=True).shape
    axes = norm_axes(_names(node.attributes, metadata, len(shape)), shape, array.document)
    size, corner = _place_of_array(node, axes, model)
    return Multiscale((make_scale(array, axes, size, corner),))


def _names(attributes: Attributes, metadata: Attributes, rank: int) -> Sequence[str]:
    """Names of the axes as funlib.persistence, xarray or Zarr itself writes them, where they are those of a volume."""
    for written in (attributes.get("axis_names"), attributes.get("_ARRAY_DIMENSIONS"), metadata.get("dimension_names")):
        # funlib.persistence marks an axis that is not of space.
        names = [name.removesuffix("^") for name in norm_names(written) or ()]
        if len(names) == rank and set(AXES) <= {name.lower() for name in names}:
            return names
    return (CHANNEL, *AXES)[-rank:]


def _place_of_array(node: _Node, axes: Axes, model: ChannelModel) -> tuple[ZyxNm, ZyxNm]:
    """Voxel size, and corner of the first voxel.

    Raises:
        SourceCorruptError: the source does not tell, and the entry does not either.
    """
    attributes, declared = node.attributes, model.voxel_size_from == "catalog"
    key = next((key for key in ("resolution", "voxel_size") if attributes.get(key) is not None), None)
    if key is not None:
        # Where funlib.persistence names no unit, it means nm.
        units = attributes.get("units") or attributes.get("unit") or "nm"
        what, of_offset = (f"{name} of {node.document}" for name in (key, "offset"))
        size = check_positive(norm_lengths(attributes[key], units, axes, what, declared=declared), what)
        # Physical, not counted in voxels; left out where it is 0.
        offset = attributes.get("offset") or [0] * len(axes.names)
        return size, norm_lengths(offset, units, axes, of_offset, declared=declared)
    if declared and model.offset is not None:
        size, first = (_stored_order(triple, model.axes) for triple in (model.voxel_size, model.offset))
        return size, times(size, first)
    missing = "resolution (or voxel_size)" + ("" if "offset" in attributes else " and no offset")
    raise SourceCorruptError(
        f"{node.document}: the array has no {missing}, so that nobody can know where it stands; an entry can say it"
        " instead: `voxel_size_from: catalog` and `offset: [x, y, z]`, its first voxel"
    )


def _stored_order(xyz: Sequence[float], axes: str) -> ZyxNm:
    """Three numbers along the x, y and z of space, along the z, y and x of what is stored."""
    return reverse([xyz[STORED_AXES.index(axis)] for axis in axes])


# --- OME-Zarr


def _ome_image(documents: Documents, node: _Node, image: Attributes, *, declared: bool) -> Multiscale:
    what = node.document
    written = _objects(image.get("axes"), "axes", what)
    names = [CHANNEL if axis.get("type") == "channel" else str(axis.get("name")) for axis in written]
    units = [axis.get("unit") for axis in written]
    datasets = _objects(image.get("datasets"), "datasets", what)
    paths = [check_path(str(dataset.get("path", "")), what) for dataset in datasets]
    arrays = _read_arrays(documents, node, paths)
    axes = [norm_axes(names, array.open(fill=True).shape, array.document) for array in arrays]
    sizes, translations = [], []
    for dataset, path, own in zip(datasets, paths, axes, strict=True):
        where = f"dataset {path!r} in {what}"
        steps = [*_steps(dataset, where), *_steps(image, where)]
        if not any(step.get("type") == "scale" for step in steps) and not (declared and len(paths) == 1):
            raise SourceCorruptError(f"{where} has no scale among its coordinateTransformations{TELL_SIZE}")
        place = _place(steps, len(names), where)
        size = norm_lengths(place.scale, units, own, f"scale of {where}", declared=declared)
        sizes.append(check_positive(size, f"scale of {where}"))
        translations.append(norm_lengths(place.translation, units, own, f"translation of {where}", declared=declared))
    scales = zip(arrays, axes, sizes, corners_nm(sizes, translations), strict=True)
    return Multiscale(tuple(make_scale(array, own, size, corner) for array, own, size, corner in scales))


def _read_arrays(documents: Documents, node: _Node, paths: Sequence[str]) -> list[StoredArray]:
    """The arrays of an image, asked for at once.

    Raises:
        SourceMissingError: one is not there.
    """
    name = "zarr.json" if node.version == 3 else ".zarray"
    arrays = []
    for path, found in zip(paths, documents.read_json(*(f"{path}/{name}" for path in paths)), strict=True):
        if found is None:
            raise SourceMissingError(
                f"{documents.address(f'{path}/{name}')}: a scale is missing, one of {listing(paths)} that"
                f" {node.document} lists; tell the data's owner, or let the address name an array"
            )
        arrays.append(_stored_array(documents, path, node.version, found))
    return arrays


def _objects(value: object, key: str, what: str) -> list[Attributes]:
    if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
        return value
    raise SourceCorruptError(f"{what}: {key} of its multiscales is {value!r:.80}, not a list of JSON objects")


def _steps(owner: Attributes, what: str) -> list[Attributes]:
    steps = owner.get("coordinateTransformations")
    return [] if not steps else _objects(steps, "coordinateTransformations", what)


def _place(steps: Sequence[Attributes], rank: int, what: str) -> _Place:
    """What the transformations of a dataset and then those of its image come to.

    Raises:
        SourceCorruptError: one is something else than a scale or a translation.
    """
    scale, translation = [1.0] * rank, [0.0] * rank
    for step in steps:
        kind = step.get("type")
        if kind == "identity":
            continue
        if kind not in ("scale", "translation"):
            raise SourceCorruptError(f"{what} is placed by {kind!r}; what is read: scale, translation")
        numbers = norm_numbers(step.get(kind), f"{kind} of {what}")
        if len(numbers) != rank:
            raise SourceCorruptError(f"{kind} of {what} has {len(numbers)} numbers for {rank} axes")
        if kind == "scale":
            scale = [a * b for a, b in zip(scale, numbers, strict=True)]
            translation = [a * b for a, b in zip(translation, numbers, strict=True)]
        else:
            translation = [a + b for a, b in zip(translation, numbers, strict=True)]
    return _Place(scale, translation)
