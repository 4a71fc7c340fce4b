"""What a source is, for a person: text for a terminal, HTML for a notebook. Asks no network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any, Final

from emcatalog.entries import ChannelModel, VolumeArguments, typical_ratio
from emcatalog.geometry import NmBox, ZyxNm, format_xyz
from emcatalog.locations import STORED_AXES

_ABOUT: Final = ("title", "organism", "tissue", "modality", "licence", "citation", "doi", "homepage", "sources")
_BRIEFLY: Final = ("licence", "citation", "doi")
_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


def describe_text(name: str, description: str | None, metadata: Mapping[str, Any], arguments: VolumeArguments) -> str:
    """A few lines."""
    rows = [(channel, _sentence(model)) for channel, model in arguments.chosen.items()]
    if unread := [_with_doubt(channel, model) for channel, model in unread_channels(arguments).items()]:
        rows.append(("not read", ", ".join(unread)))
    rows += box_facts(arguments).items()
    rows += [(key, text) for key, text in about_facts(metadata).items() if key in _BRIEFLY]
    width = max(map(len, (*arguments.chosen, "resolution")))
    return "\n".join([f"<{name}> {description or ''}".rstrip(), *(f"  {key:<{width}} {text}" for key, text in rows)])


def describe_html(name: str, description: str | None, metadata: Mapping[str, Any], arguments: VolumeArguments) -> str:
    """Two tables, the channels and everything else; and behind each channel's name all that is declared of it."""
    unread = unread_channels(arguments)
    volumes = {**arguments.chosen, **unread}
    headings = "".join(f"<th>{escape(key)}</th>" for key in ("channel", *_brief_facts(next(iter(volumes.values())))))
    channels = _rows(
        (f"{channel} (not read)" if channel in unread else channel, *_brief_facts(model).values())
        for channel, model in volumes.items()
    )
    details = "".join(
        f"<details><summary>{escape(channel)}</summary><table>{_rows(volume_facts(model))}</table></details>"
        for channel, model in volumes.items()
    )
    facts = {**box_facts(arguments), **about_facts(metadata)}
    return (
        f"<div><b>{escape(name)}</b> {escape(description or '')}"
        f"<table><tr>{headings}</tr>{channels}</table><table>{_rows(facts.items())}</table>{details}</div>"
    )


def unread_channels(arguments: VolumeArguments) -> dict[str, ChannelModel]:
    """The channels that the entry has besides those that are read, by name."""
    return {channel: model for channel, model in arguments.volumes.items() if channel not in arguments.chosen}


def volume_facts(model: ChannelModel) -> Iterator[tuple[str, str]]:
    """Everything that the catalog says of one volume, in the order in which a person asks."""
    if model.unconfirmed is not None:
        yield "NOT CONFIRMED", model.unconfirmed
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
    yield "address", model.url
    if model.axes != STORED_AXES:
        yield "axes", f"stored x, y, z are {', '.join(model.axes)} in space"
    if model.note:
        yield "note", model.note
    yield "numbers from", model.source


def about_facts(metadata: Mapping[str, Any]) -> dict[str, str]:
    """What the catalog says of the dataset as a whole: licence, citation, ..."""
    return {key: _text(metadata[key]) for key in _ABOUT if metadata.get(key)}


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


def format_bytes(number: float) -> str:
    """Bytes for a person, in units of thousands: ``525 GB``."""
    power = min(len(_UNITS) - 1, int(math.log10(max(number, 1)) // 3))
    if power + 1 < len(_UNITS) and number >= 999.5 * 1000**power:
        power += 1  # three digits of it are 1000
    return f"{number / 1000**power:.3g} {_UNITS[power]}"


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


def _text(value: object) -> str:
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)


def _rows(rows: Iterable[Iterable[object]]) -> str:
    return "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)


def _cell(content: object) -> str:
    text = escape(str(content))
    return f"<td><b>{text}</b></td>" if "NOT CONFIRMED" in text else f"<td>{text}</td>"
