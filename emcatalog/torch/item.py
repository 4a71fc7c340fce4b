"""Arrays of a sample as tensors, and samples as batches."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from emcatalog.buffers import BUFFERS
from emcatalog.errors import ArgumentError, EmcatalogError
from emcatalog.geometry import Zyx
from emcatalog.patches.target import Target

RAW_DTYPE: Final = np.dtype(np.float32)
"""Of raw, however it is stored."""


class ForkError(EmcatalogError, RuntimeError):
    """A dataset that is used in a forked process, where TensorStore would wait for ever."""


class ProcessBound:
    """A dataset that knows which process opened it: TensorStore's threads do not survive a fork."""

    def __init__(self) -> None:
        """Of this process."""
        self._pid = os.getpid()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Unpickled in another process, it is opened there."""
        self.__dict__.update(state, _pid=os.getpid())

    def check_process(self) -> None:
        """Refuse to read in a fork.

        Raises:
            ForkError: the message says what to use.
        """
        if os.getpid() != self._pid:
            raise ForkError(
                "this dataset was forked into another process, where TensorStore cannot read: use"
                " emcatalog.torch.loader, or DataLoader(..., multiprocessing_context='spawn')"
            )


def as_tensor(array: NDArray[Any], patch_shape: Zyx) -> torch.Tensor:
    """An array (c, z, y, x) as a tensor, (c, y, x) where the patch is one slice."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.squeeze(-3) if patch_shape[0] == 1 else tensor


def item_dtypes(target: Target) -> tuple[np.dtype[Any] | None, ...]:
    """What raw, and the target where there is one, are widened to; None where they stay as they are."""
    return (RAW_DTYPE, target.wide) if target.exists else (RAW_DTYPE,)


def widen(item: tuple[Any, ...], dtypes: Sequence[np.dtype[Any] | None]) -> tuple[Any, ...]:
    """An item with its tensors in the dtypes that a caller gets."""
    pairs = zip_longest(item, dtypes[: len(item)])
    return tuple(
        part if dtype is None else torch.from_numpy(part.numpy().astype(dtype, copy=False)) for part, dtype in pairs
    )


def collate(
    items: Iterable[tuple[Any, ...]], count: int, dtypes: Sequence[np.dtype[Any] | None] = ()
) -> tuple[Any, ...]:
    """Samples as one batch: tensors stacked, and widened on the way; dictionaries in a list.

    Args:
        items: the samples; each is copied before the next one is asked for.
        count: how many there are.
        dtypes: of the parts of the batch; None or missing where they stay as they are.

    Raises:
        ArgumentError: samples of different shapes.
    """
    batch: list[Any] = []
    for number, item in enumerate(items):
        if not batch:
            batch = [_room(part, count, dtype) for part, dtype in zip_longest(item, dtypes[: len(item)])]
        for room, part in zip(batch, item, strict=True):
            _put(room, number, part)
    return tuple(torch.from_numpy(room) if isinstance(room, np.ndarray) else room for room in batch)


def _room(part: Any, count: int, dtype: np.dtype[Any] | None) -> Any:
    if not isinstance(part, torch.Tensor):
        return [None] * count
    return BUFFERS.empty((count, *part.shape), dtype or part.numpy().dtype)


def _put(room: Any, number: int, part: Any) -> None:
    if not isinstance(room, np.ndarray):
        room[number] = part
        return
    if room.shape[1:] != part.shape:
        raise ArgumentError(
            f"samples of one batch have the shapes {room.shape[1:]} and {tuple(part.shape)}: a transform or a target"
            " function gives other shapes for other samples; make them alike, or take batch_size=1"
        )
    # NumPy copies in this thread alone; torch would start a team of threads for each of ours.
    np.copyto(room[number, ...], part.numpy(), casting="unsafe")
