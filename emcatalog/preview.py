"""A picture of a box: the three middle planes, labels drawn over the image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from emcatalog.cutout import Cutout
from emcatalog.errors import ArgumentError
from emcatalog.geometry import Box, zyx

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE: Final = 512
"""Longest edge of a plane that is fetched and drawn, in voxels."""
_OPACITY: Final = 0.38
_GAP: Final = 8
_PLANES: Final = (("xy", 0), ("xz", 1), ("yz", 2))
"""Name of a plane and the axis (z, y, x) across it."""


def preview(cutout: Cutout) -> Image:
    """Draw the planes through the middle of a box: xy, xz and yz, with the labels beside the image.

    Fetches no more than the planes need.

    Raises:
        ArgumentError: there is neither an image nor labels among the channels.
    """
    from PIL import Image

    cutout = _of_one_channel(cutout)
    images = [name for name, channel in cutout.channels.items() if channel.model.kind == "image"][:1]
    labels = [name for name, channel in cutout.channels.items() if channel.model.kind != "image"][:1]
    if not images and not labels:
        raise ArgumentError("there is nothing to draw: no channel was chosen")
    middle = _middle(cutout.box)
    columns = []
    for name, axis in _PLANES:
        planes = cutout.at(_plane(middle, axis)).read()
        column = _draw({name: np.squeeze(planes[name], axis) for name in images + labels}, images, labels)
        rows_nm, columns_nm = (size for i, size in enumerate(cutout.grid.voxel_size_nm) if i != axis)
        column = [_square(picture, rows_nm, columns_nm) for picture in column]
        column[0] = _annotate(column[0], name, min(rows_nm, columns_nm))
        columns.append(np.concatenate(_spaced(column, 0), 0))
    return Image.fromarray(_side_by_side(columns))


def _of_one_channel(cutout: Cutout) -> Cutout:
    """The first channel alone of a volume that has several: a picture shows one."""
    channels = {
        name: replace(channel, only=0) if channel.has_channels else channel for name, channel in cutout.channels.items()
    }
    return replace(cutout, channels=channels)


def _square(picture: NDArray[np.uint8], rows_nm: float, columns_nm: float) -> NDArray[np.uint8]:
    """A plane stretched along its longer voxels, so that a length is the same number of pixels in both directions."""
    from PIL import Image

    pixel = min(rows_nm, columns_nm)
    height, width = round(picture.shape[0] * rows_nm / pixel), round(picture.shape[1] * columns_nm / pixel)
    if (height, width) == picture.shape[:2]:
        return picture
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST))


def _draw(planes: Mapping[str, NDArray[Any]], images: list[str], labels: list[str]) -> list[NDArray[np.uint8]]:
    """One plane as pictures from top to bottom: the image, then the labels over it."""
    grey = _grey(planes[images[0]]) if images else None
    if not labels:
        assert grey is not None
        return [grey]
    coloured = _overlay(planes[labels[0]], grey)
    return [coloured] if grey is None else [grey, coloured]


def _annotate(picture: NDArray[np.uint8], plane: str, pixel_nm: float) -> NDArray[np.uint8]:
    """Name the plane and draw a bar of a round length, about a fifth of the width."""
    from PIL import Image, ImageDraw

    drawn = Image.fromarray(picture)
    pen, (width, height) = ImageDraw.Draw(drawn), drawn.size
    pen.text((6, 4), plane, fill="white", stroke_width=2, stroke_fill="black")
    length_nm = _round_length(width * pixel_nm / 5)
    bar = (6, height - 9, 6 + round(length_nm / pixel_nm), height - 6)
    pen.rectangle(bar, fill="white", outline="black")
    text = f"{length_nm:g} nm" if length_nm < 1000 else f"{length_nm / 1000:g} um"
    pen.text((6, height - 24), text, fill="white", stroke_width=2, stroke_fill="black")
    return np.asarray(drawn)


def _round_length(length_nm: float) -> float:
    """The nearest of 1, 2, 5, 10, 20, ... below a length."""
    magnitude = 10.0 ** math.floor(math.log10(length_nm))
    return max(step * magnitude for step in (1, 2, 5) if step * magnitude <= length_nm)


def _grey(plane: NDArray[Any]) -> NDArray[np.uint8]:
    low, high = np.percentile(plane, (0.2, 99.8))
    scaled = np.clip((plane.astype(np.float32) - low) / max(high - low, 1.0), 0, 1)
    return np.repeat((scaled * 255).astype(np.uint8)[..., None], 3, axis=-1)


def _overlay(plane: NDArray[Any], grey: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    colours = label_colours(plane)
    if grey is None:
        return colours
    mixed = np.where(plane[..., None] > 0, (1 - _OPACITY) * grey + _OPACITY * colours, grey).astype(np.uint8)
    mixed[_borders(plane)] = 20
    return mixed


def label_colours(plane: NDArray[Any]) -> NDArray[np.uint8]:
    """A colour for each id, the same in every picture; 0 is black. Neighbouring ids get unlike colours."""
    mixed = plane.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing (Knuth, TAOCP 3, 6.4)
    hue = (mixed >> np.uint64(40)).astype(np.float32) / 2**24 * 6
    channels = [np.clip(np.abs((hue + shift) % 6 - 3) - 1, 0, 1) for shift in (0, 4, 2)]
    colours = (80 + 175 * np.stack(channels, -1)).astype(np.uint8)
    colours[plane == 0] = 0
    return colours


def _borders(plane: NDArray[Any]) -> NDArray[np.bool_]:
    border = np.zeros(plane.shape, bool)
    border[:-1] |= plane[:-1] != plane[1:]
    border[:, :-1] |= plane[:, :-1] != plane[:, 1:]
    return border


def _middle(box: Box) -> Box:
    """The part of a box around its middle that is small enough to draw."""
    begin = zyx([(a + b) // 2 - min(b - a, SIDE) // 2 for a, b in zip(box.begin, box.end, strict=True)])
    return Box(begin, zyx([a + min(side, SIDE) for a, side in zip(begin, box.shape, strict=True)]))


def _plane(box: Box, axis: int) -> Box:
    centre = (box.begin[axis] + box.end[axis]) // 2
    begin, end = list(box.begin), list(box.end)
    begin[axis], end[axis] = centre, centre + 1
    return Box(zyx(begin), zyx(end))


def _spaced(pictures: list[NDArray[np.uint8]], axis: int) -> list[NDArray[np.uint8]]:
    shape = list(pictures[0].shape)
    shape[axis] = _GAP
    gap = np.full(shape, 255, np.uint8)
    return [part for picture in pictures for part in (gap, picture)][1:]


def _side_by_side(columns: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    height = max(column.shape[0] for column in columns)
    padded = [
        np.pad(column, ((0, height - column.shape[0]), (0, 0), (0, 0)), constant_values=255) for column in columns
    ]
    return np.concatenate(_spaced(padded, 1), 1)
