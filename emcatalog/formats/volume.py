"""What every stored form looks like from above: a description that can be kept, and voxels on demand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import tensorstore as ts
from pydantic import TypeAdapter, ValidationError

from emcatalog.errors import ArgumentError
from emcatalog.geometry import Box, Grid, Zyx, ZyxNm, format_xyz, same_size

TYPICAL_RATIO: Final = {"raw": 1.0, "jpeg": 0.17, "jxl": 0.12, "png": 0.7, "compressed_segmentation": 0.01}
"""Stored bytes for a byte of voxels, for estimates only: FIB-25 at 8 nm gave 0.17 (jpeg) and 0.005 (labels)."""


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One source array: one scale of one volume."""

    key: str
    """Name of the scale at the source: ``8x8x8``."""
    dtype: str
    """NumPy's name: ``uint8``."""
    grid: Grid
    """Where its voxels stand."""
    chunk: Zyx
    """Voxels of a stored chunk, (z, y, x), on a lattice through the first voxel."""
    encoding: str
    """How a chunk is stored: ``jpeg``, ``compressed_segmentation``, ..."""


@dataclass(frozen=True, slots=True)
class VolumeSpec:
    """A volume as its own metadata describes it: what must still be true for a mirror of it to be."""

    url: str
    """Address as the catalog states it."""
    scales: tuple[ArraySpec, ...]
    """Finest first."""

    def has(self, resolution_nm: ZyxNm) -> bool:
        """Whether there is a scale with this voxel size, (z, y, x) in nm."""
        return any(same_size(scale.grid.voxel_size_nm, resolution_nm) for scale in self.scales)

    def at(self, resolution_nm: ZyxNm) -> ArraySpec:
        """The scale with this voxel size, (z, y, x) in nm.

        Raises:
            ArgumentError: there is none; the message lists those there are.
        """
        for scale in self.scales:
            if same_size(scale.grid.voxel_size_nm, resolution_nm):
                return scale
        sizes = "; ".join(format_xyz(scale.grid.voxel_size_nm) for scale in self.scales)
        raise ArgumentError(
            f"{self.url} has no scale of {format_xyz(resolution_nm)} nm (x, y, z); resolution can be {sizes}"
        )

    def to_json(self) -> bytes:
        """As kept in the cache."""
        return _VOLUME_SPEC.dump_json(self, indent=1)

    @classmethod
    def from_json(cls, text: bytes) -> VolumeSpec:
        """As read back.

        Raises:
            ValueError: the text is not a description.
        """
        try:
            return _VOLUME_SPEC.validate_json(text)
        except ValidationError as error:
            raise ValueError(str(error)) from error


_VOLUME_SPEC: Final = TypeAdapter(VolumeSpec)


@dataclass(frozen=True, slots=True)
class Volume:
    """An open source array. Its TensorStores have the axes (z, y, x) and the source's own voxel indices."""

    spec: ArraySpec
    """What it is."""
    strict: ts.TensorStore
    """Fails with NOT_FOUND where the source lacks a chunk (see ``stores.is_absent``), if it can tell."""
    lenient: ts.TensorStore
    """Gives background where the source lacks a chunk."""
    holds: Callable[[Box], bool] | None = None
    """Whether the source has the chunk that covers this box of its voxels: for forms whose ``strict`` cannot tell."""
