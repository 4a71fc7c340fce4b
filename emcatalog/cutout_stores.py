"""What a cutout has opened: mirrors and sources, shared by all its pieces and by threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import RLock
from typing import Final

import tensorstore as ts

from emcatalog.cutout_channel import CutoutChannel
from emcatalog.errors import NotCachedError
from emcatalog.formats.opening import open_volume
from emcatalog.formats.volume import Volume
from emcatalog.mirror.array import MirrorArray
from emcatalog.mirror.cache import Cache
from emcatalog.settings import Settings
from emcatalog.stores import make_context

_DECODED_BYTES: Final = {"image": 96 << 20, "labels": 16 << 20}
"""Decoded chunks that are kept for the next patches. A byte holds more voxels of an image than of ids, and ids would
drive images out, so each has a pool of its own; that of an image holds most of a training box of 512 cubed."""


@cache
def _pool(kind: str) -> ts.Context:
    """Shared by all that this process has open."""
    return ts.Context({"cache_pool": {"total_bytes_limit": _DECODED_BYTES[kind]}})


class OpenStores:
    """The stores that a cutout has opened, so that its pieces open nothing again, in whatever thread they are."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is opened yet."""
        self._settings = settings
        self.cache = Cache.at(settings)
        self._lock = RLock()
        self._mirrors: dict[str, MirrorArray] = {}
        self._patches: dict[str, MirrorArray] = {}
        self._volumes: dict[str, Volume] = {}
        self._fetching = 0

    def mirror(self, name: str, channel: CutoutChannel) -> MirrorArray:
        """The mirror of a channel, made where there is none.

        Raises:
            NotCachedError: offline, and there is none.
        """
        with self._lock:
            if name not in self._mirrors:
                found = self.cache.array(channel.model.location, channel.spec, create=not self._settings.offline)
                if found is None:
                    raise NotCachedError(
                        f"offline, and nothing of {channel.url}, scale {channel.spec.key}, was ever fetched into"
                        f" {self.cache.url}; fetch() the box while there is a network"
                    )
                self._mirrors[name] = found
            return self._mirrors[name]

    def volume(self, name: str, channel: CutoutChannel) -> Volume:
        """The source of a channel."""
        with self._lock:
            if name not in self._volumes:
                model = channel.model
                keep = self.cache.kept_files(model.location)
                self._volumes[name] = open_volume(model, channel.spec, self._settings, keep)
            return self._volumes[name]

    def patches(self, name: str, channel: CutoutChannel) -> MirrorArray:
        """The mirror of a channel for many small reads, as it was when it was last fetched into from here."""
        with self._lock:
            if name not in self._patches:
                pool = _pool("labels" if channel.dtype.itemsize > 2 else "image")
                context = make_context(self._settings.retries, pool)
                self._patches[name] = self.mirror(name, channel).for_patches(context)
            return self._patches[name]

    def renew_patches(self) -> None:
        """Look again at what the mirrors hold."""
        with self._lock:
            self._patches.clear()

    @contextmanager
    def fetching(self) -> Iterator[None]:
        """Around a fetch: if it fails or is interrupted, nothing more is asked of the sources for it.

        What is not needed any more comes to an end, and the volumes are opened anew; unless another thread still
        fetches from them.
        """
        with self._lock:
            self._fetching += 1
        try:
            yield
        except BaseException:
            with self._lock:
                if self._fetching == 1:
                    self._abandon_volumes()
            raise
        finally:
            with self._lock:
                self._fetching -= 1

    def _abandon_volumes(self) -> None:
        for volume in self._volumes.values():
            volume.stop.set()
        self._volumes.clear()
