"""What a volume is, for a person. Asks no network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from emcatalog.describe.page import Description, Part, doubt_of, format_bytes, said_of
from emcatalog.entries.volume import ChannelModel, VolumeArguments, typical_ratio
from emcatalog.geometry import NmBox, ZyxNm, format_xyz
from emcatalog.locations import STORED_AXES


def describe_volume(arguments: VolumeArguments) -> Description:
    """The channels of an entry, and the box that a read would give."""
    volumes = {**arguments.chosen, **_unread(arguments)}
    parts = tuple(_part(name, model, is_read=name in arguments.chosen) for name, model in volumes.items())
    first, voxel = next(iter(volumes.values())), f"{_size_xyz(arguments.voxel_size)} nm"
    size = (extent(first), f"voxels of {voxel}", stored_size(arguments.volumes.values()))
    return Description("channel", parts, box_facts(arguments), dict(_options(arguments)), size, voxel)


def _part(name: str, model: ChannelModel, *, is_read: bool) -> Part:
    brief = _brief_facts(model)
    facts = tuple(volume_facts(model))
    kind = f"{model.kind}, {model.dtype}"
    return Part(name, kind, _sentence(model), brief, facts, is_read, model.unconfirmed is None)


def _options(arguments: VolumeArguments) -> Iterator[tuple[str, str]]:
    if arguments.bbox is not None:
        yield "--bbox", _typed(arguments.bbox)
    yield "--units", str(arguments.units)


def _typed(bbox: Any) -> str:
    """As it is typed, whatever form the catalog wrote it in."""
    if isinstance(bbox, str):
        return bbox
    pairs = [bbox[axis] for axis in "xyz"] if isinstance(bbox, Mapping) else [bbox]
    return ",".join(str(edge) for pair in pairs for edge in pair)


def _size_xyz(size: tuple[float, float, float]) -> str:
    """A voxel size (x, y, z): one number where it is a cube."""
    x, y, z = size
    return format_size((z, y, x))


def _unread(arguments: VolumeArguments) -> dict[str, ChannelModel]:
    """The channels that the entry has besides those that are read, by name."""
    return {channel: model for channel, model in arguments.volumes.items() if channel not in arguments.chosen}


def volume_facts(model: ChannelModel) -> Iterator[tuple[str, str]]:
    """Everything that the catalog says of one volume, in the order in which a person asks."""
    yield from doubt_of(model)
    yield "extent", _extent_and_length(model)
    if any(model.offset or ()):
        yield "starts at", f"voxel {', '.join(map(str, model.offset or ()))}"
    if model.num_channels:
        yield "channels", str(model.num_channels)
    yield "size", remote_size(model)
    yield "resolutions", f"{_scale_names(model.resolutions_nm)} nm"
    if model.chunk or model.encoding:
        chunk = f"{' x '.join(map(str, model.chunk))} voxels" if model.chunk else ""
        yield "chunk", ", ".join(filter(None, (chunk, model.encoding)))
    if model.axes != STORED_AXES:
        yield "axes", f"stored x, y, z are {', '.join(model.axes)} in space"
    yield from said_of(model)


def box_facts(arguments: VolumeArguments) -> dict[str, str]:
    """The box and the resolution that a read would give."""
    size, box = arguments.resolution_nm, arguments.box_nm
    facts = {"box": "whole extent" if box is None else str(box), "resolution": f"{format_xyz(size)} nm"}
    if any(model.num_channels for model in arguments.chosen.values()) or arguments.channel_index is not None:
        facts["channel"] = "all" if arguments.channel_index is None else str(arguments.channel_index)
    if box is None and (box := _common_extent(arguments)) is not None:
        facts["box"] = f"whole extent, {box}"
    if box is not None:
        voxels = _voxels(box, size)
        nbytes = sum(_bytes_a_voxel(model, arguments) * voxels for model in arguments.chosen.values())
        facts["size"] = f"{voxels / 1e6:,.1f} Mvoxel, {nbytes / 1e6:,.1f} MB as read"
    if arguments.splits:
        counts = ((name, len(boxes)) for name, boxes in arguments.splits.items())
        facts["splits"] = ", ".join(f"{name} ({count} box{'es' * (count > 1)})" for name, count in counts)
    return facts


def remote_size(channel: ChannelModel) -> str:
    """How much there is: the voxels of the finest scale, and what they take where they are stored."""
    voxels = _voxel_bytes(channel)
    if voxels is None:
        stored = f", stored in {format_bytes(channel.stored_bytes)}" if channel.stored_bytes else ""
        return f"size not confirmed{stored}"
    if channel.stored_bytes:
        return f"{format_bytes(voxels)} of voxels, stored in {format_bytes(channel.stored_bytes)}"
    if channel.encoding is None:
        return f"{format_bytes(voxels)} of voxels"
    stored = format_bytes(typical_ratio(channel.encoding) * voxels)
    return f"{format_bytes(voxels)} of voxels, stored in about {stored} (estimated)"


def stored_size(volumes: Iterable[ChannelModel]) -> str:
    """What some volumes take where they are stored, as one number: ``about 170 TB``."""
    sizes = [(model.stored_bytes, _voxel_bytes(model), typical_ratio(model.encoding)) for model in volumes]
    known = [stored or (voxels or 0) * ratio for stored, voxels, ratio in sizes]
    if not any(known):
        return "size not confirmed"
    guessed = any(stored is None for stored, _, _ in sizes)
    return f"{'more than ' if not all(known) else 'about ' if guessed else ''}{format_bytes(sum(known))}"


def extent(channel: ChannelModel) -> str:
    """Voxels along x, y and z, as far as they are confirmed."""
    return "extent not confirmed" if channel.shape is None else " x ".join(map(str, channel.shape))


def format_size(size_nm: ZyxNm) -> str:
    """A voxel size (z, y, x) for a person, along x, y, z: one number where it is a cube."""
    return f"{size_nm[0]:.10g}" if len(set(size_nm)) == 1 else format_xyz(size_nm)


def _brief_facts(model: ChannelModel) -> dict[str, str]:
    """What a table of channels has columns for."""
    channels = f", {model.num_channels} channels" if model.num_channels else ""
    return {
        "kind": model.kind,
        "dtype": model.dtype,
        "extent (x, y, z)": _with_doubt(f"{extent(model)}{channels}", model),
        "voxel": f"{_declared_size(model)} nm",
        "scales": f"{_scale_names(model.resolutions_nm)} nm",
        "on the remote": remote_size(model),
    }


def _sentence(model: ChannelModel) -> str:
    kind, dtype, there, voxel, scales, size = _brief_facts(model).values()
    return f"{kind}, {dtype}, {there}; voxels of {voxel}, scales {scales}; {size}"


def _with_doubt(text: str, model: ChannelModel) -> str:
    return text if model.unconfirmed is None else f"{text} (ADDRESS NOT CONFIRMED)"


def _extent_and_length(model: ChannelModel) -> str:
    size = _declared_size(model)
    if model.shape is None:
        return f"not confirmed; voxels of {size} nm"
    edges = " x ".join(f"{n * edge / 1000:,.4g}" for n, edge in zip(model.shape, model.voxel_size, strict=True))
    return f"{extent(model)} voxels of {size} nm (x, y, z): {edges} um"


def _declared_size(model: ChannelModel) -> str:
    x, y, z = model.voxel_size
    return format_size((z, y, x))


def _scale_names(sizes: tuple[ZyxNm, ...]) -> str:
    return ", ".join(map(format_size, sizes))


def _common_extent(arguments: VolumeArguments) -> NmBox | None:
    """The extent of the channels that are read where the catalog says that it is the same for all."""
    grids = [model.grid for model in arguments.chosen.values()]
    boxes = {None if grid is None else grid.to_nm(grid.extent) for grid in grids}
    return boxes.pop() if len(boxes) == 1 else None


def _voxels(box: NmBox, size: ZyxNm) -> int:
    return math.prod(round((b - a) / s) for a, b, s in zip(box.begin_nm, box.end_nm, size, strict=True))


def _bytes_a_voxel(model: ChannelModel, arguments: VolumeArguments) -> int:
    """As read: of one channel, or of all."""
    return _itemsize(model) * (1 if arguments.channel_index is not None else model.num_channels or 1)


def _voxel_bytes(model: ChannelModel) -> int | None:
    """Bytes of all voxels of the finest scale, or None where the extent is not confirmed."""
    if model.shape is None:
        return None
    return math.prod(model.shape) * (model.num_channels or 1) * _itemsize(model)


def _itemsize(channel: ChannelModel) -> int:
    import numpy as np

    return np.dtype(channel.dtype).itemsize
