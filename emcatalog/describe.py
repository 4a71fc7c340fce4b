"""What a source is, for a person: text for a terminal, HTML for a notebook. Asks no network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, Final

from emcatalog.entries import ChannelModel, VolumeArguments
from emcatalog.geometry import NmBox, ZyxNm, format_xyz

_ABOUT: Final = ("organism", "tissue", "modality", "licence", "citation", "doi", "homepage")


def describe_text(name: str, description: str | None, metadata: Mapping[str, Any], arguments: VolumeArguments) -> str:
    """A few lines."""
    lines = [f"<{name}> {description or ''}".rstrip()]
    lines += [f"  {channel:<10} {', '.join(facts)}" for channel, facts in channel_facts(arguments).items()]
    lines += [f"  {key:<10} {value}" for key, value in box_facts(arguments).items()]
    lines += [f"  {key:<10} {metadata[key]}" for key in ("licence", "doi") if metadata.get(key)]
    return "\n".join(lines)


def describe_html(name: str, description: str | None, metadata: Mapping[str, Any], arguments: VolumeArguments) -> str:
    """Two tables: the channels, and everything else."""
    facts = {**box_facts(arguments), **{key: metadata[key] for key in _ABOUT if metadata.get(key)}}
    channels = _rows((channel, *row) for channel, row in channel_facts(arguments).items())
    return (
        f"<div><b>{escape(name)}</b> {escape(description or '')}"
        f"<table><tr><th>channel</th><th>kind</th><th>dtype</th><th>extent (x, y, z)</th><th>scales</th></tr>"
        f"{channels}</table><table>{_rows(facts.items())}</table></div>"
    )


def channel_facts(arguments: VolumeArguments) -> dict[str, tuple[str, str, str, str]]:
    """Kind, dtype, extent and scales of each channel that is read."""
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


def _facts(channel: ChannelModel) -> tuple[str, str, str, str]:
    extent = " x ".join(map(str, channel.shape)) if channel.shape else "extent not confirmed"
    sizes = channel.resolutions_nm
    return channel.kind, channel.dtype, extent, f"{_scale_names(sizes)} nm"


def _scale_names(sizes: tuple[ZyxNm, ...]) -> str:
    names = [f"{size[0]:.10g}" if len(set(size)) == 1 else format_xyz(size) for size in sizes]
    return ", ".join(names) if len(names) < 5 else f"{names[0]}, {names[1]}, ... {names[-1]}"


def _voxels(box: NmBox, size: ZyxNm) -> int:
    shape = [round((b - a) / s) for a, b, s in zip(box.begin_nm, box.end_nm, size, strict=True)]
    return shape[0] * shape[1] * shape[2]


def _itemsize(channel: ChannelModel) -> int:
    import numpy as np

    return np.dtype(channel.dtype).itemsize


def _rows(rows: Iterable[Iterable[object]]) -> str:
    cells = ("".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows)
    return "".join(f"<tr>{row}</tr>" for row in cells)
