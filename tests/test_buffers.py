"""Memory that is used again: only when nobody can see it any more, and never more of it than a bound."""

from __future__ import annotations

import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import pytest
import tensorstore as ts
from numpy.typing import NDArray

from emcatalog.buffers import SPARE_BYTES, Buffers

SHAPE = (4, 6, 8)

Hold = Callable[[NDArray[Any]], Any]


def _torch(array: NDArray[Any]) -> Any:
    return pytest.importorskip("torch").from_numpy(array)


HOLDERS: dict[str, Hold] = {
    "the array": lambda array: array,
    "a view": lambda array: array[1:],
    "a view of a view": lambda array: array[1:].transpose(2, 0, 1)[::-2][..., 3],
    "other axes": lambda array: array.reshape(8, -1)[None],
    "another dtype": lambda array: array.view(np.uint16),
    "a memoryview": lambda array: memoryview(array)[2:],
    "an array over a memoryview": lambda array: np.asarray(memoryview(array[3:])),
    "a broadcast view": lambda array: np.broadcast_to(array, (3, *SHAPE)),
    "an iterator": lambda array: array[2:].flat,
    "DLPack": lambda array: np.from_dlpack(array)[1:],
    "a tensor": _torch,
    "a view of a tensor": lambda array: _torch(array)[1:].squeeze(0).permute(2, 1, 0)[3],
    "a tensor of a view": lambda array: _torch(array.reshape(-1)[7:]),
    "a tensor's storage": lambda array: _torch(array).untyped_storage(),
    "an array of a tensor": lambda array: _torch(array[1:])[1:].numpy(),
    "TensorStore, which may still write into it": ts.array,
}
"""Ways to refer to the memory of an array without the array."""


def address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
def test_memory_comes_back_when_the_last_that_refers_to_it_is_gone(hold: Hold) -> None:
    buffers = Buffers()
    array = buffers.empty(SHAPE, np.int32)
    place = address(array)
    held = hold(array)
    del array
    others = [buffers.empty(SHAPE, np.int32) for _ in range(3)]
    assert place not in {address(other) for other in others}
    del held
    assert address(buffers.empty(SHAPE, np.int32)) == place


@pytest.mark.parametrize("hold", [HOLDERS["a view of a view"], HOLDERS["a tensor"]], ids=["view", "tensor"])
def test_what_is_held_does_not_change(hold: Hold) -> None:
    buffers = Buffers()
    array = buffers.empty(SHAPE, np.int32)
    array[...] = 7
    held = hold(array)
    del array
    others = [buffers.empty(SHAPE, np.int32) for _ in range(3)]
    for other in others:
        other[...] = 9
    assert bool((held == 7).all())


def test_shape_and_dtype_are_those_asked_for() -> None:
    buffers = Buffers()
    for shape, dtype in [((3, 5), np.float32), ((15,), "int32"), ((0, 4), np.uint64), ((1, 60), np.bool_), ((), "i4")]:
        array = buffers.empty(shape, dtype)
        assert (array.shape, array.dtype) == (shape, np.dtype(dtype))
        assert array.flags.writeable
        assert array.flags.c_contiguous
        assert array.flags.aligned


def test_memory_is_used_again_for_another_shape_and_dtype_of_the_same_size() -> None:
    buffers = Buffers()
    place = address(buffers.empty((2, 8), np.int64))
    assert address(buffers.empty((4, 32), np.uint8)) == place


class TestThreads:
    """Arrays are made in some threads and dropped in others."""

    @pytest.fixture
    def restless(self) -> Iterator[None]:
        """Threads take turns after a few steps of the interpreter."""
        usual = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        yield
        sys.setswitchinterval(usual)

    def test_no_memory_is_handed_out_twice(self, restless: None) -> None:
        buffers, rounds = Buffers(), 1000
        start, dropped = threading.Barrier(4), SimpleQueue[Any]()

        def use(number: int) -> list[tuple[int, int]]:
            """Mark arrays, look at the marks later, and leave half of the arrays to be dropped by other threads."""
            wrong, held = [], []
            start.wait()
            for step in range(rounds):
                mark = number * rounds + step
                array = buffers.empty((64 + step % 3,), np.int64)
                array[...] = mark
                held.append((mark, array[1:] if step % 2 else array))
                if len(held) > 5:
                    mark, array = held.pop(step % 5)
                    wrong += [(mark, int(value)) for value in np.unique(array) if value != mark]
                    if step % 2:
                        dropped.put(array)
                    with suppress(Empty):
                        dropped.get_nowait()
            return wrong

        with ThreadPoolExecutor(4) as threads:
            assert [fault for faults in threads.map(use, range(4)) for fault in faults] == []

    def test_memory_dropped_in_a_thread_is_there_for_the_others(self) -> None:
        buffers = Buffers()
        with ThreadPoolExecutor(1) as thread:
            place = thread.submit(lambda: address(buffers.empty(SHAPE, np.int32))).result()
        assert address(buffers.empty(SHAPE, np.int32)) == place


class TestSpareMemory:
    """What nobody uses is bounded when something new is needed."""

    SIZE = SPARE_BYTES // 4

    @pytest.fixture
    def allocated(self) -> Iterator[Callable[[], int]]:
        """Bytes that were allocated since the test began and are not freed."""
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        try:
            yield lambda: tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize("step", [0, 1], ids=["of one size", "of many sizes"])
    def test_what_is_beyond_the_bound_goes_back_to_the_system(self, allocated: Callable[[], int], step: int) -> None:
        buffers = Buffers()
        arrays = [buffers.empty((self.SIZE + step * number,), np.uint8) for number in range(12)]
        assert allocated() > 11 * self.SIZE
        arrays.clear()
        new = buffers.empty((self.SIZE // 2,), np.uint8)
        assert new.nbytes <= allocated() <= SPARE_BYTES + 100_000

    def test_what_is_in_use_is_not_counted(self, allocated: Callable[[], int]) -> None:
        buffers = Buffers()
        arrays = [buffers.empty((self.SIZE,), np.uint8) for _ in range(12)]
        place = address(arrays.pop())
        buffers.empty((100,), np.uint8)
        assert address(buffers.empty((self.SIZE,), np.uint8)) == place
        assert allocated() > 11 * self.SIZE

    def test_nothing_spare_is_kept_beside_an_array_larger_than_the_bound(self, allocated: Callable[[], int]) -> None:
        buffers = Buffers()
        arrays = [buffers.empty((self.SIZE,), np.uint8) for _ in range(3)]
        arrays.clear()
        large = buffers.empty((SPARE_BYTES + 1,), np.uint8)
        assert allocated() < large.nbytes + 100_000

    def test_asking_for_the_same_sizes_for_ever_allocates_nothing_more(self, allocated: Callable[[], int]) -> None:
        buffers = Buffers()
        for _ in range(3):
            arrays = [buffers.empty((100_000 * number,), np.uint8) for number in range(1, 5)]
            arrays.clear()
        settled = allocated()
        for _ in range(100):
            arrays = [buffers.empty((100_000 * number,), np.uint8) for number in range(1, 5)]
            arrays.clear()
        assert allocated() < settled + 100_000
