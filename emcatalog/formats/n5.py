"""N5 volumes, one dataset or a group of scales, through TensorStore.

Format: https://github.com/saalfeldlab/n5. It has no convention of its own for scales and lengths; those that are read
are neuroglancer's, n5-viewer's, FlyEM's and OpenOrganelle's (COSEM):
https://github.com/google/neuroglancer/blob/master/src/datasource/n5/index.rst
https://github.com/janelia-flyem/neuclease/blob/master/neuclease/bin/virtual_n5_server_main.py
https://github.com/janelia-cellmap/cellmap-schemas
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
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
from emcatalog.geometry import ZyxNm

ATTRIBUTES: Final = "attributes.json"
"""Name of the one document that a group or a dataset has."""

_MOST_SCALES: Final = 16
"""How many are asked for where nothing lists them: the coarsest voxel would have an edge of 32,768 of the finest."""

_AXES: Final = ("x", "y", "z", "c", "t")
"""In the order of ``dimensions``, where nothing names them."""

_KEYS: Final = ("dimensions", "blockSize", "dataType")
"""What TensorStore is told of a dataset, besides its compression."""

_COMPRESSIONS: Final = ("raw", "gzip", "bzip2", "xz", "zstd", "blosc")
"""What TensorStore decodes."""

Attributes = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Dataset:
    """One scale as its attributes describe it."""

    array: StoredArray
    axes: Axes
    attributes: Attributes
    transform: Attributes
    """The dataset's own, or what its group says of it; empty where there is none."""


def read_n5(documents: Documents, model: ChannelModel) -> Multiscale:
    """Read the attributes of a dataset, or of a group and its scales.

    Args:
        documents: of the volume.
        model: says whether the catalog gives the voxel size.

    Raises:
        SourceError: they are not there, not readable, or do not say what a volume needs.
    """
    declared = model.voxel_size_from == "catalog"
    (root,) = documents.read_json(ATTRIBUTES)
    if root is not None and "dimensions" in root:
        group: Attributes = {}
        datasets = [_dataset(documents, "", root, group)]
    else:
        group = root or {}
        scales = _read_scales(documents, root)
        datasets = [_dataset(documents, path, attributes, group) for path, attributes in scales.items()]
    sizes = _sizes(documents, group, datasets, declared=declared)
    corners = corners_nm(sizes, [_translation(group, one, declared=declared) for one in datasets])
    places = zip(datasets, sizes, corners, strict=True)
    return Multiscale(tuple(make_scale(one.array, one.axes, size, corner) for one, size, corner in places))


def _read_scales(documents: Documents, root: Attributes | None) -> dict[str, Attributes]:
    """Attributes of the scales of a group, by path, all asked for at once.

    Raises:
        SourceMissingError: there is none, or one that the group lists is not there.
    """
    listed = _listed(documents, root or {})
    paths = listed or [f"s{i}" for i in range(_MOST_SCALES)]
    pairs = list(zip(paths, documents.read_json(*(f"{path}/{ATTRIBUTES}" for path in paths)), strict=True))
    for path, attributes in pairs if listed else ():
        if attributes is None:
            raise SourceMissingError(
                f"{documents.address(f'{path}/{ATTRIBUTES}')}: an N5 scale is missing, one of {listing(listed)} that"
                f" {documents.address(ATTRIBUTES)} lists; tell the data's owner, or let the address name a dataset"
            )
    until_gap = takewhile(lambda pair: pair[1] is not None, pairs)
    scales: dict[str, Attributes] = {path: attributes for path, attributes in until_gap if attributes is not None}
    if scales:
        return scales
    if root is None:
        raise SourceMissingError(
            f"{documents.location}: there is no {ATTRIBUTES}, nor a scale s0; check the address, or EMCATALOG_MIRRORS"
        )
    raise SourceMissingError(
        f"{documents.location} is an N5 group without scales s0, s1, ...; let the address name a dataset in it, or a"
        " group of scales"
    )


def _listed(documents: Documents, group: Attributes) -> list[str]:
    """Paths of the scales that a group says it has; none where it does not say."""
    paths = list(_group_transforms(group)) or [f"s{i}" for i in range(len(_group_factors(group)))]
    return [check_path(path, documents.address(ATTRIBUTES)) for path in paths]


def _group_factors(group: Attributes) -> list[Any]:
    """Downsampling factors of all scales, finest first; none where the group does not list them."""
    for key in ("downsamplingFactors", "scales"):
        factors = group.get(key)
        if isinstance(factors, list) and factors and all(isinstance(one, list) for one in factors):
            return factors
    return []


def _group_transforms(group: Attributes) -> dict[str, Attributes]:
    """COSEM's ``multiscales`` of a group: transforms by the path of a scale; none where it has no such thing."""
    match group.get("multiscales"):
        case [{"datasets": [*datasets]}, *_]:
            found = [one for one in datasets if isinstance(one, Mapping) and isinstance(one.get("path"), str)]
            return {one["path"]: one.get("transform") or {} for one in found}
    return {}


def _dataset(documents: Documents, path: str, attributes: Attributes, group: Attributes) -> _Dataset:
    store, what = documents.store, documents.address(f"{path}/{ATTRIBUTES}" if path else ATTRIBUTES)
    key = path or documents.location.url.rpartition("/")[2]
    require(attributes, _KEYS, what)
    compression = _compression(attributes, what)
    metadata = {name: attributes[name] for name in _KEYS} | {"compression": compression}
    array = StoredArray(key, what, store.below(path) if path else store, "n5", metadata, compression["type"])
    shape = array.open(fill=True).shape
    names = norm_names(attributes.get("axes", group.get("axes"))) or _AXES[: len(shape)]
    transform = attributes.get("transform") or _group_transforms(group).get(path) or {}
    if not isinstance(transform, Mapping):
        raise SourceCorruptError(f"{what}: transform is {transform!r:.80}, not a JSON object")
    return _Dataset(array, norm_axes(names, shape, what), attributes, transform)


def _compression(attributes: Attributes, what: str) -> dict[str, Any]:
    # Until version 2 of N5 it was a name.
    written = attributes.get("compression", attributes.get("compressionType"))
    told = norm_compressor(written, "type", _COMPRESSIONS, what)
    zlib = isinstance(written, Mapping) and written.get("useZlib") is True and told["type"] == "gzip"
    return told | {"useZlib": True} if zlib else told


def _sizes(documents: Documents, group: Attributes, datasets: list[_Dataset], *, declared: bool) -> list[ZyxNm]:
    """Voxel sizes of all scales.

    Raises:
        SourceCorruptError: they are not told, or cannot be.
    """
    first = datasets[0]
    of_group = _resolution(group, first, documents.address(ATTRIBUTES), declared=declared)
    base = of_group or _resolution(first.attributes, first, first.array.document, declared=declared)
    if base is None:
        own = [_transform_scale(one, declared=declared) for one in datasets]
        told = [size for size in own if size is not None]
        if len(told) == len(datasets):
            return told
        if not declared:
            raise SourceCorruptError(
                f"{first.array.document} tells no voxel size, nor does a group above it: there is no pixelResolution,"
                f" no resolution and no transform{TELL_SIZE}"
            )
    factors = [_factors(index, one, group, first) for index, one in enumerate(datasets)]
    return [times(base or (1.0, 1.0, 1.0), factor) for factor in factors]


def _resolution(attributes: Attributes, dataset: _Dataset, what: str, *, declared: bool) -> ZyxNm | None:
    """The finest voxel size by n5-viewer's ``pixelResolution`` or neuroglancer's ``resolution``."""
    pixel, units = attributes.get("pixelResolution"), attributes.get("units")
    key = "resolution" if pixel is None else "pixelResolution"
    lengths = attributes.get(key)
    if isinstance(pixel, Mapping):
        lengths, units = pixel.get("dimensions", attributes.get("resolution")), pixel.get("unit", units)
    if lengths is None:
        return None
    what = f"{key} of {what}"
    axes = _axes(attributes, dataset)
    return check_positive(norm_lengths(lengths, units, axes, what, declared=declared), what)


def _factors(index: int, dataset: _Dataset, group: Attributes, first: _Dataset) -> ZyxNm:
    """How many of the finest voxels a voxel spans.

    Raises:
        SourceCorruptError: nothing says it. How the dimensions compare does not: they are rounded.
    """
    what = f"downsamplingFactors of {dataset.array.document}"
    listed = dict(enumerate(_group_factors(group)))
    stated = dataset.attributes.get("downsamplingFactors", listed.get(index))
    if stated is not None:
        return check_positive(dataset.axes.pick(norm_numbers(stated, what), what), what)
    own, finest = _transform_scale(dataset, declared=True), _transform_scale(first, declared=True)
    if own is not None and finest is not None:
        z, y, x = (a / b for a, b in zip(own, finest, strict=True))
        return z, y, x
    if index == 0:
        return 1.0, 1.0, 1.0
    raise SourceCorruptError(
        f"{dataset.array.document} does not say how much coarser it is than {first.array.key}: there are no"
        " downsamplingFactors here or in the group, and no transform"
    )


def _transform_scale(dataset: _Dataset, *, declared: bool) -> ZyxNm | None:
    """OpenOrganelle's voxel size; FlyEM writes factors there, and its units are not those of the factors."""
    transform, what = dataset.transform, f"transform.scale of {dataset.array.document}"
    if "scale" not in transform:
        return None
    axes, units = _axes(transform, dataset), transform.get("units")
    return check_positive(norm_lengths(transform["scale"], units, axes, what, declared=declared), what)


def _translation(group: Attributes, dataset: _Dataset, *, declared: bool) -> ZyxNm:
    for attributes, what in ((dataset.transform, "transform.translate"), (group, "translate of the group")):
        if attributes.get("translate"):
            what = f"{what} of {dataset.array.document}"
            axes, units = _axes(attributes, dataset), attributes.get("units")
            moved = any(norm_numbers(attributes["translate"], what))
            return norm_lengths(attributes["translate"], units, axes, what, declared=declared or not moved)
    return 0.0, 0.0, 0.0


def _axes(attributes: Attributes, dataset: _Dataset) -> Axes:
    """In which order lengths are given: as the attributes beside them name the axes, else as the dataset's are."""
    names = norm_names(attributes.get("axes"))
    return dataset.axes if names is None else Axes(tuple(name.lower() for name in names))
