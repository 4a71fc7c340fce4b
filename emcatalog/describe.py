"""What a source is, for a person: text for a terminal, HTML for a notebook. Asks no network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, Final

from emcatalog.entries import ChannelModel, VolumeArguments, typical_ratio
from emcatalog.geometry import NmBox, ZyxNm, format_xyz

_ABOUT: Final = ("organism", "tissue", "modality", "licence", "citation", "doi", "homepage")


def describe_text(name: str, description: str | None, metadata: Mapping[str, Any], arguments: VolumeArguments) -> str:
    """A few lines."""
    lines = [f"<{name}> {description or ''}".rstrip()]
    width = max(map(len, (*arguments.chosen, "resolution")))
    lines += [f"  {channel:<{width}} {', '.join(facts)}" for channel, facts in channel_facts(arguments).items()]
    lines += [f"  {key:<{width}} {value}" for key, value in box_facts(arguments).items()]
    lines += [f"  {key:<{width}} {metadata[key]}" for key in ("licence", "citation", "doi") if metadata.get(key)]
    return "\n".join(lines)


def describe_html(name: str, description: str | None, metadata: Mapping[str, Any], arguments: VolumeArguments) -> str:
    """Two tables: the channels, and everything else."""
    facts = {**box_facts(arguments), **{key: metadata[key] for key in _ABOUT if metadata.get(key)}}
    channels = _rows((channel, *row) for channel, row in channel_facts(arguments).items())
    return (
        f"<div><b>{escape(name)}</b> {escape(description or '')}"
        "<table><tr><th>channel</th><th>kind</th><th>dtype</th><th>extent (x, y, z)</th><th>scales</th>"
        "<th>on the remote</th></tr>"
        f"{channels}</table><table>{_rows(facts.items())}</table></div>"
    )


def channel_facts(arguments: VolumeArguments) -> dict[str, tuple[str, str, str, str, str]]:
    """Kind, dtype, extent, scales and size on the remote of each channel that is read."""
    return {name: _facts(channel) for name, channel in arguments.chosen.items()}


def box_facts(arguments: VolumeArguments) -> dict[str, str]:
    """The box and the resolution that a read would give."""
    size = arguments.resolution_nm
    facts = {"resolution": f"{format_xyz(size)} nm"}
    if arguments.box_nm is None:
        return {"box": "whole extent", **facts}
    voxels = _voxels(arguments.box_nm, size)
    nbytes = sum(_itemsize(channel) * voxels for channel in arguments.chosen.values())
    return {
        "box": f"{arguments.box_nm}",
        **facts,
        "size": f"{voxels / 1e6:,.1f} Mvoxel, {nbytes / 1e6:,.1f} MB as read",
    }


def remote_size(channel: ChannelModel) -> str:
    """How much there is: the voxels of the finest scale, and what they take where they are stored."""
    if channel.shape is None:
        return "size not confirmed"
    voxels = math.prod(channel.shape) * (channel.num_channels or 1) * _itemsize(channel)
    if channel.stored_bytes:
        return f"{_bytes(voxels)} of voxels, stored in {_bytes(channel.stored_bytes)}"
    if channel.encoding is None:
        return f"{_bytes(voxels)} of voxels"
    return f"{_bytes(voxels)} of voxels, stored in about {_bytes(typical_ratio(channel.encoding) * voxels)} (estimated)"


def _bytes(number: float) -> str:
    """Bytes for a person, in units of thousands: ``525 GB``."""
    power = min(5, int(math.log10(max(number, 1)) // 3))
    return f"{number / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB', 'PB')[power]}"


def _facts(channel: ChannelModel) -> tuple[str, str, str, str, str]:
    extent = " x ".join(map(str, channel.shape)) if channel.shape else "extent not confirmed"
    extent += f", {channel.num_channels} channels" if channel.num_channels else ""
    extent += "" if channel.unconfirmed is None else " (address not confirmed)"
    sizes = channel.resolutions_nm
    return channel.kind, channel.dtype, extent, f"{_scale_names(sizes)} nm", remote_size(channel)


def _scale_names(sizes: tuple[ZyxNm, ...]) -> str:
    return ", ".join(f"{size[0]:.10g}" if len(set(size)) == 1 else format_xyz(size) for size in sizes)


def _voxels(box: NmBox, size: ZyxNm) -> int:
    shape = [round((b - a) / s) for a, b, s in zip(box.begin_nm, box.end_nm, size, strict=True)]
    return shape[0] * shape[1] * shape[2]


def _itemsize(channel: ChannelModel) -> int:
    import numpy as np

    return np.dtype(channel.dtype).itemsize


def _rows(rows: Iterable[Iterable[object]]) -> str:
    cells = ("".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows)
    return "".join(f"<tr>{row}</tr>" for row in cells)
