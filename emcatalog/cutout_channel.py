"""One channel of a cutout: where its voxels are at the source, and how they stand in the cutout."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emcatalog.entries.volume import ChannelModel
from emcatalog.formats.volume import ArraySpec
from emcatalog.geometry import Alignment, Box, Index, axis_names


@dataclass(frozen=True, slots=True)
class CutoutChannel:
    """One channel of a cutout."""

    model: ChannelModel
    """As declared in the catalog."""
    spec: ArraySpec
    """The scale that is read, as the source describes it."""
    alignment: Alignment
    """From the cutout's grid to this channel's."""
    only: int | None = None
    """The one index along the source's axis of channels that is read."""

    @property
    def url(self) -> str:
        """As declared, ``precomputed://...``."""
        return self.model.url

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its voxels."""
        return np.dtype(self.spec.dtype)

    @property
    def has_channels(self) -> bool:
        """Whether a read of it gives (c, z, y, x)."""
        return self.spec.num_channels is not None and self.only is None

    @property
    def dims(self) -> tuple[str, ...]:
        """Axes of what a read gives."""
        return axis_names(4 if self.has_channels else 3)

    def shape(self, box: Box) -> Index:
        """Shape of what a read of a box of the cutout's grid gives."""
        leading = (self.spec.num_channels,) if self.spec.num_channels is not None and self.only is None else ()
        return (*leading, *box.shape)

    def nbytes(self, box: Box) -> int:
        """Bytes of what a read of a box of the cutout's grid gives."""
        return math.prod(self.shape(box)) * self.dtype.itemsize

    def box(self, box: Box) -> Box:
        """A box of the cutout's grid in this channel's voxels, along all its axes."""
        own = self.alignment.box(box)
        if self.spec.num_channels is None:
            return own
        return own.with_channels(*((0, self.spec.num_channels) if self.only is None else (self.only, self.only + 1)))

    def arrange(self, voxels: NDArray[Any], box: Box) -> NDArray[Any]:
        """The voxels of ``self.box(box)``, as they stand in a box of the cutout's grid."""
        if self.only is not None and self.spec.num_channels is not None:
            voxels = voxels[0]
        if self.alignment.is_shift:
            return voxels
        first = self.alignment.box(box).begin
        for axis in range(3):
            own = np.asarray(self.alignment.indices(axis, box.begin[axis], box.end[axis])) - first[axis]
            voxels = voxels.take(own, axis=axis - 3)
        return voxels
