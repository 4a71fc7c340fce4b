"""Batches from datasets: read by threads of this process, or by processes that open everything anew."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pickle import PicklingError
from typing import Any, Final, Literal

import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from emcatalog.errors import ArgumentError, EmcatalogError, listing, suggest
from emcatalog.memory import release_free_memory
from emcatalog.threads import map_in_order
from emcatalog.torch.dataset import whole
from emcatalog.torch.item import collate
from emcatalog.torch.mix import mix
from emcatalog.torch.transform import finish

Workers = Literal["thread", "process"]
WORKERS: Final = ("thread", "process")
_GONE: Final = ("exited unexpectedly", "is killed by signal")
"""What torch says of a worker process that is gone."""
Key = tuple[int, list[int]]
"""Epoch and indices of a batch."""
TRIM_BATCHES: Final = 100
"""After so many freed memory is given back: what decodes chunks leaves up to 200 MB in glibc's arenas."""
Finish = Callable[[], tuple[Any, ...]]
"""Makes a batch of what was read."""


class WorkerError(EmcatalogError, RuntimeError):
    """A worker process that is gone."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """An error of ours on its way out of a worker process, where it would become a text."""

    error: EmcatalogError


class _Batches(Dataset[Any]):
    """Batches of a dataset by their key: what a worker process works on."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __getitem__(self, key: Key) -> Any:
        try:
            return self.begin(key)()()
        except EmcatalogError as error:
            return _Failure(error)

    def begin(self, key: Key) -> Callable[[], Finish]:
        """Begin to read a batch: all of its samples are on their way before the first one is waited for.

        Returns:
            What waits for them, in whatever thread; and gives what makes the batch, where the caller waits for it.
        """
        epoch, indices = key
        begin = getattr(self._dataset, "begin", None)
        if begin is None:
            return lambda: partial(_as_it_is, collate((self._dataset[i] for i in indices), len(indices)))
        return partial(self._read, deque(begin(epoch, index) for index in indices))

    def _read(self, started: deque[Callable[[], Any]]) -> Finish:
        count, dtypes = len(started), self._dataset.dtypes
        # Each is let go as soon as it stands in the batch.
        samples = (started.popleft()() for _ in range(count))
        if self._dataset.has_transform:
            return partial(_finished, list(samples), count, dtypes)
        return partial(_as_it_is, collate(samples, count, dtypes))


class Loader:
    """Batches of a dataset, epoch after epoch: each time it is iterated over to the end, the next epoch follows."""

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        num_workers: int,
        workers: Workers,
        *,
        sampler: Iterable[int] | None,
        drop_last: bool,
        pin_memory: bool,
    ) -> None:
        """See ``loader``, which checks what it is given."""
        self.dataset = dataset
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.workers = workers
        self.sampler = range(len(dataset)) if sampler is None else sampler
        self.drop_last = drop_last
        self.pin_memory = pin_memory
        self._epoch = self._done = self._resume_at = 0
        self._ahead = _Ahead()
        self._processes: DataLoader[Any] | None = None

    @property
    def epoch(self) -> int:
        """Which epoch is being read, or comes next."""
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Begin another epoch when this is iterated over the next time."""
        self._epoch, self._done, self._resume_at = epoch, 0, 0

    def state_dict(self) -> dict[str, Any]:
        """How far the training is: batches that were given out count as done."""
        return {
            "epoch": self._epoch,
            "batches": self._done,
            "batch_size": self.batch_size,
            "samples": len(self.dataset),
            "seeds": self._seeds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the last batch of a state, with the same batches that would have come.

        Raises:
            ArgumentError: the state is of another batch size, length or seed, so that other batches would come.
        """
        here = self.state_dict()
        if state.keys() != here.keys():
            raise ArgumentError(f"this is no state of a loader: it has {listing(state)}, and not {listing(here)}")
        for key in ("batch_size", "samples", "seeds"):
            if state[key] != here[key]:
                raise ArgumentError(
                    f"this state is of {key}={state[key]}, and the loader of {here[key]}: open it with that"
                )
        # After its last batch an epoch is over, whether or not somebody asked for one more.
        over = state["batches"] >= len(self)
        self._epoch = state["epoch"] + over
        self._done = self._resume_at = 0 if over else state["batches"]

    @property
    def _seeds(self) -> list[int]:
        return list(getattr(self.dataset, "seeds", []))

    def __len__(self) -> int:
        """Batches of an epoch."""
        samples = len(self.sampler)  # type: ignore[arg-type]  # torch's samplers have a length, and a range has
        return samples // self.batch_size if self.drop_last else -(-samples // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        """The batches of this epoch, in order, from where ``load_state_dict`` says; then the next epoch comes.

        Raises:
            WorkerError: a worker process is gone.
            EmcatalogError: what reading a sample says.
        """
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(self._epoch)
        self._done, self._resume_at = self._resume_at, 0
        keys = islice(_keys(self.sampler, self._epoch, self.batch_size, len(self)), self._done, None)
        for batch in self._run(keys):
            self._done += 1
            yield batch
        self._epoch, self._done = self._epoch + 1, 0

    def _run(self, keys: Iterator[Key]) -> Iterator[Any]:
        if self.num_workers == 0:
            return (self._pinned(_Batches(self.dataset).begin(key)()()) for key in keys)
        return self._in_threads(keys) if self.workers == "thread" else self._in_processes(keys)

    def _in_threads(self, keys: Iterator[Key]) -> Iterator[Any]:
        batches = _Batches(self.dataset)
        begun = (batches.begin(key) for key in _trimming(keys))
        with closing(map_in_order(lambda read: read(), begun, self.num_workers)) as finished:
            for finish in finished:
                yield self._pinned(finish())

    def _in_processes(self, keys: Iterator[Key]) -> Iterator[Any]:
        self._ahead.keys = keys
        try:
            for batch in self._started():
                if isinstance(batch, _Failure):
                    raise batch.error
                yield batch
        except RuntimeError as error:
            if not any(words in str(error) for words in _GONE):
                raise
            self._processes = None
            raise WorkerError(
                f"a worker process is gone, most likely killed for want of memory: take fewer workers (there are"
                f" {self.num_workers}), a smaller batch_size, or workers='thread'. Or it could not start, since a"
                f" script needs if __name__ == '__main__'. ({error})"
            ) from error

    def _started(self) -> Iterator[Any]:
        """What worker processes make of the keys; they outlive an epoch."""
        if self._processes is None:
            self._processes = DataLoader(
                _Batches(self.dataset),
                batch_size=None,
                sampler=self._ahead,
                num_workers=self.num_workers,
                collate_fn=_as_it_is,
                pin_memory=self.pin_memory,
                prefetch_factor=1,
                persistent_workers=True,
                multiprocessing_context="spawn",
            )
        try:
            return iter(self._processes)
        except (PicklingError, AttributeError, TypeError) as error:
            self._processes = None
            raise ArgumentError(
                "the dataset cannot be sent to worker processes: give functions that a module defines as target,"
                f" raw_transform and transform (no lambda), or take workers='thread'. ({error})"
            ) from error

    def _pinned(self, batch: tuple[Any, ...]) -> tuple[Any, ...]:
        if not self.pin_memory:
            return batch
        return tuple(part.pin_memory() if isinstance(part, torch.Tensor) else part for part in batch)


def _keys(sampler: Iterable[int], epoch: int, batch_size: int, count: int) -> Iterator[Key]:
    indices = iter(sampler)
    for _ in range(count):
        yield epoch, list(islice(indices, batch_size))


class _Ahead:
    """The keys of whatever epoch a loader is in: worker processes outlive an epoch.

    Without the loader itself: the processes end as soon as nothing refers to it.
    """

    def __init__(self) -> None:
        self.keys: Iterable[Key] = ()

    def __iter__(self) -> Iterator[Key]:
        return iter(self.keys)


def _as_it_is(batch: Any) -> Any:
    return batch


def _finished(samples: Sequence[Any], count: int, dtypes: Sequence[Any]) -> tuple[Any, ...]:
    return collate(map(finish, samples), count, dtypes)


def loader(
    datasets: Any,
    batch_size: int = 1,
    num_workers: int = 2,
    *,
    weights: Sequence[float] | None = None,
    workers: Workers = "thread",
    samples: int | None = None,
    seed: int = 0,
    sampler: Iterable[int] | None = None,
    drop_last: bool = False,
    pin_memory: bool = False,
) -> Loader:
    """Batches of one dataset, or of a weighted mix of several.

    Args:
        datasets: one, or several whose samples fit into one batch.
        batch_size: samples of a batch.
        num_workers: that read ahead; 0 reads in the caller's thread.
        weights: how often each of several datasets is drawn from. Default: as often as it has samples.
        workers: ``"thread"``: faster, since reading and decoding are native code and a batch need not travel; a
            transform is applied in the caller's thread. Or ``"process"`` for transforms that take long. Processes are
            spawned: TensorStore does not survive a fork, and a script needs ``if __name__ == "__main__":``.
        samples: of an epoch of a mix.
        seed: of the choice in a mix.
        sampler: indices, in place of 0, 1, 2, ...; under ``torch.distributed`` those of this rank by default.
        drop_last: leave out a last batch that is not full.
        pin_memory: put batches where a GPU copies from while it works, if there is one.

    Returns:
        An iterable of batches (raw (b, c, z, y, x), target (b, c, z, y, x)); with ``return_info`` a list of
        dictionaries follows.

    Raises:
        ArgumentError: an argument that cannot be used.
    """
    several = isinstance(datasets, (list, tuple))
    mixed = weights is not None or samples is not None
    if (mixed or seed) and not several:
        raise ArgumentError("weights=, samples= and seed= belong to a mix of several datasets: give them in a list")
    dataset = datasets
    if several:
        dataset = (
            datasets[0] if len(datasets) == 1 and not mixed else mix(datasets, weights, samples=samples, seed=seed)
        )
    if not hasattr(dataset, "__len__"):
        raise ArgumentError(f"{type(dataset).__name__} is no dataset: give what to_torch() of an entry makes")
    if sampler is not None and not hasattr(sampler, "__len__"):
        raise ArgumentError(
            f"sampler is a {type(sampler).__name__}, which has no length: give a list or a torch sampler"
        )
    if workers not in WORKERS:
        raise ArgumentError(f"workers={workers!r}: there are {listing(WORKERS)}.{suggest(str(workers), WORKERS)}")
    if sampler is None and torch.distributed.is_available() and torch.distributed.is_initialized():
        sampler = DistributedSampler(dataset, shuffle=False)
    return Loader(
        dataset, whole("batch_size", batch_size), whole("num_workers", num_workers, least=0), workers,
        sampler=sampler, drop_last=drop_last, pin_memory=pin_memory and torch.cuda.is_available(),
    )  # fmt: skip


def _trimming(keys: Iterable[Key]) -> Iterator[Key]:
    """The same keys; now and then freed memory is given back."""
    for number, key in enumerate(keys, 1):
        if number % TRIM_BATCHES == 0:
            release_free_memory()
        yield key
