"""What a read would take, known before a voxel is touched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from emcatalog.geometry import Box, ZyxNm, format_xyz


@dataclass(frozen=True, slots=True)
class ChannelPlan:
    """What reading one channel would take."""

    chunks: int
    """Chunks of the source that the box touches."""
    cached: int
    """Of these, in the mirror already."""
    nbytes: int
    """Bytes of the result in memory."""
    download_bytes: int
    """Bytes to fetch, estimated from what such data usually compresses to."""

    @property
    def missing(self) -> int:
        """Chunks to fetch."""
        return self.chunks - self.cached


@dataclass(frozen=True, slots=True)
class Plan:
    """What a read would fetch and how large its result would be."""

    channels: Mapping[str, ChannelPlan]
    """By channel."""
    box: Box
    """Voxels of the result, at its resolution."""
    voxel_size_nm: ZyxNm
    """(z, y, x)."""

    @property
    def chunks(self) -> int:
        """Chunks of the source that the box touches."""
        return sum(channel.chunks for channel in self.channels.values())

    @property
    def cached(self) -> int:
        """Of these, in the mirror already."""
        return sum(channel.cached for channel in self.channels.values())

    @property
    def missing(self) -> int:
        """Chunks to fetch."""
        return self.chunks - self.cached

    @property
    def nbytes(self) -> int:
        """Bytes of the result in memory."""
        return sum(channel.nbytes for channel in self.channels.values())

    @property
    def download_bytes(self) -> int:
        """Bytes to fetch, estimated."""
        return sum(channel.download_bytes for channel in self.channels.values())

    def __str__(self) -> str:
        """One line for a person."""
        return (
            f"{format_xyz(self.box.shape)} voxels (x, y, z) of {format_xyz(self.voxel_size_nm)} nm:"
            f" {self.chunks} chunks, {self.cached} cached, {self.missing} to fetch"
            f" (about {self.download_bytes / 1e6:.1f} MB); {self.nbytes / 1e6:.1f} MB in memory"
        )
