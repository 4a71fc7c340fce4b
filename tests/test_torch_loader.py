"""Batches: the same whoever reads them, in threads and in processes, that end well and leave nothing behind."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler

from emcatalog.errors import ArgumentError
from emcatalog.torch import Loader, SegmentationDataset, WorkerError, loader, mix
from emcatalog.torch.item import ForkError
from tests.replica.faults import Fault, Faults
from tests.replica.server import REPOSITORY, serve
from tests.test_fetch import assert_clear, hear, say
from tests.test_torch_dataset import PATCH, SHAPE, Pair, assert_same, build_pair, numbers

SAMPLES = 11
BATCH = 3
BATCHES = 4
"""Of an epoch; the last one is not full."""
THREADS = [0, 2, 8]
PATIENCE_S = 60
"""After which something hangs; nothing here takes nearly as long."""


class OwnError(Exception):
    """Of somebody's transform."""


class Trap:
    """Leaves samples as they are, but for those that begin with some numbers."""

    def __init__(self, own: float = -1, ours: float = -1, killed: float = -1) -> None:
        self.own, self.ours, self.killed = own, ours, killed

    def __call__(self, raw: torch.Tensor, target: torch.Tensor) -> Any:
        first = raw.flatten()[0].item()
        if first == self.own:
            raise OwnError("of a transform")
        if first == self.killed:
            os.kill(os.getpid(), signal.SIGKILL)
        return raw if first == self.ours else (raw, target)


OWN, OURS, KILLED = 6, 7, 8
"""Epochs in which one sample, the fifth, meets a trap."""


def make(pair: Pair, **options: Any) -> SegmentationDataset:
    """A dataset of the numbered volume that is turned in every way, and says where each sample comes from."""
    wanted = {"raw_transform": None, "augment": True, "samples": SAMPLES, "return_info": True, **options}
    return pair.source(cache_dir=str(Path(pair.url.removeprefix("file://")) / "cache")).to_torch(PATCH, **wanted)


def trapped(pair: Pair) -> SegmentationDataset:
    """The same, with traps."""
    plain = make(pair)
    first = [plain.begin(epoch, 4)()[0].flatten()[0].item() for epoch in (OWN, OURS, KILLED)]
    return make(pair, transform=Trap(*first))


def stacked(dataset: SegmentationDataset, epoch: int, indices: Sequence[int]) -> tuple[Any, ...]:
    """A batch, made from single items."""
    dataset.set_epoch(epoch)
    raw, target, info = zip(*(dataset[index] for index in indices), strict=True)
    return torch.stack(raw), torch.stack(target), list(info)


def epochs(dataset: SegmentationDataset, count: int) -> list[tuple[Any, ...]]:
    """All batches of so many epochs, made from single items."""
    indices = [range(first, min(first + BATCH, SAMPLES)) for first in range(0, SAMPLES, BATCH)]
    return [stacked(dataset, epoch, batch) for epoch in range(count) for batch in indices]


def assert_batches(got: Sequence[Any], expected: Sequence[Any]) -> None:
    assert len(got) == len(expected)
    for some, others in zip(got, expected, strict=True):
        assert_same(some, others)


def reading_threads() -> list[threading.Thread]:
    """Threads of loaders that run; those that were told to end have ended."""
    threads = [thread for thread in threading.enumerate() if thread.name == "emcatalog-worker"]
    for thread in threads:
        if thread.interrupted:
            thread.join()
    return [thread for thread in threads if thread.is_alive()]


def kill_quietly(children: Iterable[Any]) -> None:
    """Without torch's handler, which raises in the middle of whatever runs, where it hears of it."""
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        for child in children:
            child.kill()
            child.join(PATIENCE_S)
    finally:
        signal.signal(signal.SIGCHLD, handler)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The numbered volume."""
    return build_pair(tmp_path_factory.mktemp("numbered"))


@pytest.fixture
def dataset(pair: Pair) -> SegmentationDataset:
    """That was read in this process already, when a loader begins."""
    dataset = make(pair)
    assert len(dataset[0]) == 3
    return dataset


@pytest.fixture(scope="module")
def processes(pair: Pair) -> Iterator[Loader]:
    """Two processes, started once for all tests: it takes them seconds to import torch. Some epochs have traps."""
    dataset = trapped(pair)
    assert len(dataset[0]) == 3
    yield loader(dataset, BATCH, 2, workers="process")
    gc.collect()


@pytest.fixture(params=[*THREADS, "process"])
def reader(request: pytest.FixtureRequest, pair: Pair) -> Loader:
    """One of each kind, at its first epoch."""
    if request.param != "process":
        return loader(trapped(pair), BATCH, request.param)
    made: Loader = request.getfixturevalue("processes")
    made.set_epoch(0)
    return made


class TestBatches:
    """What comes out, whoever reads."""

    def test_epochs_are_those_of_single_items(self, reader: Loader, dataset: SegmentationDataset) -> None:
        got = [batch for _ in range(2) for batch in reader]
        assert_batches(got, epochs(dataset, 2))
        assert reader.epoch == 2

    def test_set_epoch(self, reader: Loader, dataset: SegmentationDataset) -> None:
        reader.set_epoch(1)
        assert_batches(list(reader), epochs(dataset, 2)[BATCHES:])

    def test_begun_again_after_a_break(self, reader: Loader, dataset: SegmentationDataset) -> None:
        expected = epochs(dataset, 1)
        assert_same(next(iter(reader)), expected[0])
        assert_batches(list(reader), expected)

    def test_resumed_in_the_middle(self, reader: Loader, pair: Pair, dataset: SegmentationDataset) -> None:
        first = loader(make(pair), BATCH, 2)
        list(first)
        seen = list(islice(first, 2))
        state = json.loads(json.dumps(first.state_dict()))
        reader.load_state_dict(state)
        rest = [batch for _ in range(2) for batch in reader]
        assert_batches(seen + rest, epochs(dataset, 3)[BATCHES:])

    def test_a_last_batch_that_is_not_full(self, dataset: SegmentationDataset) -> None:
        assert [len(raw) for raw, *_ in loader(dataset, BATCH)] == [3, 3, 3, 2]
        short = loader(dataset, BATCH, drop_last=True)
        assert [len(raw) for raw, *_ in short] == [3, 3, 3]
        assert (len(loader(dataset, BATCH)), len(short)) == (4, 3)

    def test_what_is_0_or_1_is_as_wide_as_in_single_items(self, pair: Pair) -> None:
        for dtype, expected in ((None, torch.float32), ("uint8", torch.uint8), ("bool", torch.bool)):
            dataset = make(pair, target="boundaries", target_dtype=dtype)
            _, target, _ = next(iter(loader(dataset, 4, 2)))
            assert target.dtype == dataset[0][1].dtype == expected

    def test_datasets_of_others(self) -> None:
        tensors = torch.utils.data.TensorDataset(torch.arange(10), torch.arange(10) * 2)
        assert [batch[1].tolist() for batch in loader(tensors, 4, 2)] == [[0, 2, 4, 6], [8, 10, 12, 14], [16, 18]]

    def test_pinned_only_where_there_is_a_gpu(self, dataset: SegmentationDataset) -> None:
        raw, *_ = next(iter(loader(dataset, 2, 0, pin_memory=True)))
        assert raw.is_pinned() == torch.cuda.is_available()


class TestState:
    """A state that does not fit is refused."""

    def test_of_another_batch_size(self, dataset: SegmentationDataset) -> None:
        state = loader(dataset, 2).state_dict()
        with pytest.raises(ArgumentError, match=r"of batch_size=2, and the loader of 3: open it with that"):
            loader(dataset, 3).load_state_dict(state)

    def test_of_another_length(self, pair: Pair, dataset: SegmentationDataset) -> None:
        state = loader(make(pair, samples=7), 2).state_dict()
        with pytest.raises(ArgumentError, match=r"of samples=7, and the loader of 11"):
            loader(dataset, 2).load_state_dict(state)

    @pytest.mark.parametrize("state", [{}, {"epoch": 1, "seed": 0}])
    def test_of_something_else(self, dataset: SegmentationDataset, state: dict[str, int]) -> None:
        with pytest.raises(ArgumentError, match="no state of a loader"):
            loader(dataset, 2).load_state_dict(state)

    def test_after_the_last_batch_the_next_epoch_comes(self, dataset: SegmentationDataset) -> None:
        reader, other = loader(dataset, BATCH), loader(dataset, BATCH)
        states = [reader.state_dict() for _ in reader]
        other.load_state_dict(states[-1])
        assert_batches(list(other), epochs(dataset, 2)[BATCHES:])

    def test_of_another_seed(self, pair: Pair, dataset: SegmentationDataset) -> None:
        state = loader(make(pair, seed=4), 2).state_dict()
        with pytest.raises(ArgumentError, match=r"of seeds=\[4\], and the loader of \[0\]: open it with that"):
            loader(dataset, 2).load_state_dict(state)

    def test_of_another_choice_in_a_mix(self, dataset: SegmentationDataset) -> None:
        state = loader([dataset, dataset], 2, seed=3).state_dict()
        with pytest.raises(ArgumentError, match=r"of seeds=\[3, 0, 0\], and the loader of \[0, 0, 0\]"):
            loader([dataset, dataset], 2).load_state_dict(state)

    def test_counts_what_was_given_out(self, dataset: SegmentationDataset) -> None:
        """And not what was read ahead."""
        reader = loader(dataset, BATCH, 8)
        for number, _ in enumerate(reader, start=1):
            assert (reader.state_dict()["epoch"], reader.state_dict()["batches"]) == (0, number)
        assert (reader.state_dict()["epoch"], reader.state_dict()["batches"]) == (1, 0)


class TestDistributed:
    """``DistributedSampler`` splits an epoch over ranks."""

    @pytest.mark.parametrize("shuffle", [False, True])
    def test_ranks_share_an_epoch(self, pair: Pair, shuffle: bool) -> None:
        dataset = make(pair, samples=12)
        orders = []
        for epoch in (0, 1):
            of_rank = [self.indices(dataset, rank, shuffle, epoch) for rank in (0, 1)]
            assert sorted(of_rank[0] + of_rank[1]) == list(range(12))
            orders.append(of_rank)
        assert (orders[0] != orders[1]) == shuffle

    @staticmethod
    def indices(dataset: SegmentationDataset, rank: int, shuffle: bool, epoch: int) -> list[int]:
        sampler: Any = DistributedSampler(dataset, num_replicas=2, rank=rank, shuffle=shuffle)
        reader = loader(dataset, 4, 2, sampler=sampler)
        assert len(reader) == 2
        reader.set_epoch(epoch)
        infos = [info for *_, batch in reader for info in batch]
        assert {info["epoch"] for info in infos} == {epoch}
        return [info["index"] for info in infos]

    def test_resumed_on_a_rank(self, dataset: SegmentationDataset) -> None:
        def start() -> Loader:
            return loader(dataset, 2, 2, sampler=DistributedSampler(dataset, num_replicas=2, rank=1))

        whole, first, second = list(start()), start(), start()
        assert_same(next(iter(first)), whole[0])
        second.load_state_dict(first.state_dict())
        assert_batches(list(second), whole[1:])


class TestPlainDataLoader:
    """torch's own, over the same dataset."""

    def test_spawned_processes_follow_the_epoch(self, dataset: SegmentationDataset) -> None:
        plain: Any = DataLoader(
            dataset,
            batch_size=None,
            num_workers=1,
            multiprocessing_context="spawn",
            persistent_workers=True,
            timeout=PATIENCE_S,
        )
        for epoch in (0, 3):
            dataset.set_epoch(epoch)
            got = list(plain)
            assert {info["epoch"] for *_, info in got} == {epoch}
            assert_batches(got, list(map(dataset.__getitem__, range(SAMPLES))))

    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
    def test_forked_processes_are_refused(self, dataset: SegmentationDataset) -> None:
        others = {*active_children()}
        plain: Any = DataLoader(dataset, num_workers=1, multiprocessing_context="fork", timeout=PATIENCE_S)
        batches = iter(plain)
        with pytest.raises(ForkError, match=r"use emcatalog\.torch\.loader, or .*multiprocessing_context='spawn'"):
            next(batches)
        # What is forked from a process in which TensorStore runs does not end by itself.
        kill_quietly({*active_children()} - others)

    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
    @pytest.mark.parametrize("kind", ["mix", "grid"])
    def test_a_fork_is_refused(self, pair: Pair, dataset: SegmentationDataset, kind: str) -> None:
        made = mix([dataset, dataset]) if kind == "mix" else pair.source().to_grid(PATCH)
        child = os.fork()
        if child == 0:
            signal.alarm(PATIENCE_S)
            try:
                made[0]
            except ForkError:
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0


class TestBadInput:
    """Of ``loader``; the message says what to change."""

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"batch_size": 0}, "batch_size=0: give a whole number of at least 1"),
            ({"num_workers": -1}, "num_workers=-1: give a whole number of at least 0"),
            ({"workers": "processes"}, "there are thread, process. Did you mean 'process'?"),
            ({"weights": [1]}, "give them in a list"),
            ({"samples": 5}, "give them in a list"),
        ],
    )
    def test_argument(self, dataset: SegmentationDataset, options: dict[str, Any], words: str) -> None:
        with pytest.raises(ArgumentError) as caught:
            loader(dataset, **options)
        assert_clear(caught.value, ValueError, words)

    def test_no_dataset(self, pair: Pair) -> None:
        with pytest.raises(ArgumentError, match="VolumeSource is no dataset: give what to_torch"):
            loader(pair.source())
        with pytest.raises(ArgumentError, match="no dataset to mix"):
            loader([])

    @pytest.mark.filterwarnings("ignore:Got pickle error")
    def test_what_cannot_be_sent_to_a_process(self, pair: Pair) -> None:
        reader = loader(make(pair, target=lambda labels: labels), 1, 1, workers="process")
        with pytest.raises(ArgumentError, match=r"functions that a module defines.*or take workers='thread'"):
            next(iter(reader))

    def test_samples_of_other_shapes(self, pair: Pair) -> None:
        dataset = make(pair, transform=lambda raw, target: (raw[..., : 4 + int(raw[0, 0, 0, 0]) % 5], target))
        for workers in THREADS:
            with pytest.raises(ArgumentError, match=r"make them alike, or take batch_size=1"):
                list(loader(dataset, BATCH, workers))


class TestErrors:
    """What goes wrong with one sample reaches the caller as what it is."""

    @pytest.mark.parametrize(("epoch", "kind"), [(OWN, OwnError), (OURS, ArgumentError)])
    def test_its_own_class(
        self, reader: Loader, dataset: SegmentationDataset, epoch: int, kind: type[Exception]
    ) -> None:
        reader.set_epoch(epoch)
        batches = iter(reader)
        assert_same(next(batches), stacked(dataset, epoch, range(BATCH)))
        with pytest.raises(kind) as caught:
            next(batches)
        assert type(caught.value) is kind
        reader.set_epoch(0)
        assert_batches(list(reader), epochs(dataset, 1))

    def test_processes_that_are_killed(self, pair: Pair, dataset: SegmentationDataset) -> None:
        others = {*active_children()}
        reader = loader(trapped(pair), BATCH, 1, workers="process")
        expected = epochs(dataset, 1)
        assert_batches(list(reader), expected)
        kill_quietly({*active_children()} - others)
        with pytest.raises(WorkerError):  # between two epochs
            next(iter(reader))
        reader.set_epoch(0)
        assert_batches(list(reader), expected)
        reader.set_epoch(KILLED)
        batches = iter(reader)
        next(batches)
        with pytest.raises(WorkerError) as caught:  # in the middle of a batch
            next(batches)
        assert_clear(
            caught.value, RuntimeError, "fewer workers (there are 1)", "smaller batch_size", "workers='thread'"
        )


class TestLeaks:
    """Nothing is left behind."""

    @pytest.mark.parametrize("workers", [2, 8])
    def test_threads_of_a_loop_that_is_left(self, dataset: SegmentationDataset, workers: int) -> None:
        for _ in loader(dataset, 1, workers):
            assert len(reading_threads()) == workers
            break
        assert reading_threads() == []

    def test_threads_of_a_loop_that_fails(self, pair: Pair) -> None:
        reader = loader(trapped(pair), 1, 4)
        reader.set_epoch(OWN)
        with pytest.raises(OwnError):
            list(reader)
        assert reading_threads() == []

    def test_epoch_after_epoch(self, pair: Pair) -> None:
        """Each of 64 batches of 0.3 MB: 380 MB in all."""
        dataset = pair.source().to_torch((16, 24, 32), samples=128)
        reader = loader(dataset, 2, 4)
        process, before = psutil.Process(), threading.active_count()
        for _ in range(3):
            list(zip(reader, range(len(reader)), strict=True))
        gc.collect()
        settled = process.memory_info().rss
        for _ in range(20):
            for _ in reader:
                pass
        gc.collect()
        assert reader.epoch == 23
        assert threading.active_count() == before
        assert process.memory_info().rss - settled < 40e6

    def test_processes_end_with_their_loader(self, pair: Pair) -> None:
        others = {*active_children()}
        reader = loader(make(pair), BATCH, 1, workers="process")
        next(iter(reader))
        (child,) = {*active_children()} - others
        del reader
        child.join(PATIENCE_S)
        assert child.exitcode == 0


class TestThreads:
    """Several threads of the caller's own at one dataset."""

    def test_one_dataset(self, pair: Pair, dataset: SegmentationDataset) -> None:
        expected = list(map(dataset.__getitem__, range(SAMPLES)))
        shared = make(pair)
        with ThreadPoolExecutor(2) as pool:
            both = list(pool.map(lambda _: list(map(shared.__getitem__, range(SAMPLES))), range(2)))
        for items in both:
            assert_batches(items, expected)

    def test_loaders_of_one_dataset(self, dataset: SegmentationDataset) -> None:
        readers = [loader(dataset, BATCH, 2) for _ in range(2)]
        with ThreadPoolExecutor(2) as pool:
            both = list(pool.map(list, readers))
        for batches in both:
            assert_batches(batches, epochs(dataset, 1))


def train_for_ever(url: str, workers: str, count: str) -> None:
    """Tell which processes there are after an epoch, and go on (in a process of its own)."""
    raw = numbers(SHAPE)
    dataset = Pair(url, raw, raw.astype(np.uint32)).source().to_torch(PATCH, samples=SAMPLES)
    reader = loader(dataset, BATCH, int(count), workers="process" if workers == "process" else "thread")
    list(reader)
    say(children=[child.pid for child in psutil.Process().children(recursive=True)])
    while True:
        for _ in reader:
            pass


def start_training(url: str, workers: str, count: int) -> subprocess.Popen[str]:
    """In a session of its own, so that it can be interrupted as a terminal does it: with all of its processes."""
    call = f"import sys, {__name__} as tests; tests.train_for_ever(*sys.argv[1:])"
    command, pipe = [sys.executable, "-c", call, url, workers, str(count)], subprocess.PIPE
    return subprocess.Popen(command, cwd=REPOSITORY, text=True, stdout=pipe, stderr=pipe, start_new_session=True)


def interrupt(process: subprocess.Popen[str], when: threading.Event | None = None) -> str:
    """Interrupt it with all of its processes, and tell what it complained about."""
    try:
        assert when is None or when.wait(PATIENCE_S)
        os.killpg(process.pid, signal.SIGINT)
        return process.communicate(timeout=PATIENCE_S)[1]
    finally:
        process.kill()


class Heard(Faults):
    """Tells when a request is spoilt."""

    def __init__(self) -> None:
        super().__init__()
        self.one = threading.Event()

    def strike(self, path: str) -> Fault | None:
        fault = super().strike(path)
        if fault is not None:
            self.one.set()
        return fault


class TestInterrupted:
    """Ctrl-C."""

    @pytest.mark.parametrize(("workers", "count"), [("thread", 4), ("process", 1)])
    def test_while_it_trains(self, pair: Pair, workers: str, count: int) -> None:
        with start_training(pair.url, workers, count) as process:
            children = [psutil.Process(pid) for pid in hear(process)["children"]]
            assert bool(children) == (workers == "process")
            complaints = interrupt(process)
        assert process.returncode == -signal.SIGINT, complaints
        assert "KeyboardInterrupt" in complaints
        assert psutil.wait_procs(children, PATIENCE_S)[1] == []

    def test_while_the_server_says_nothing(self, pair: Pair) -> None:
        with serve(pair.url.removeprefix("file://")) as server:
            server.faults = heard = Heard()
            server.hang("*/8_8_8/*", 10 * PATIENCE_S)
            with start_training(server.url, "thread", 2) as process:
                complaints = interrupt(process, heard.one)
        assert process.returncode == -signal.SIGINT, complaints
