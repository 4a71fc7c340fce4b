"""Rows of a table sent to the parts of its copy: one pass over the table, a file for each part, bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import ipc

from emcatalog.memory import release_free_memory
from emcatalog.tables.copy_form import ROW
from emcatalog.tables.order import Cut, Order, split

PENDING_BYTES: Final = 96 << 20
"""Of rows that wait to be sent to their parts: many at once, so that each part gets more than a few."""
SLICE_ROWS: Final = 1 << 16
"""That are read back at once at most."""
_THREADS: Final = 2
_OPTIONS: Final = ipc.IpcWriteOptions(compression="lz4", use_threads=False)


@dataclass(slots=True)
class Spill:
    """Files of rows, one for each part."""

    folder: Path
    """Where they lie."""
    order: Order
    """What decides to which part a row belongs."""
    cut: Cut | None
    """Into parts."""
    row_type: pa.DataType
    """Of the numbers of rows."""
    rows: int = 0
    """Sent so far."""
    parts: int = 1
    """How many there are."""
    _batches: list[pa.RecordBatch] = field(default_factory=list)
    _bytes: int = 0

    def add(self, coded: pa.RecordBatch) -> None:
        """Send the next rows of the table to their parts."""
        numbers = pa.array(np.arange(self.rows, self.rows + coded.num_rows), self.row_type)
        self._batches.append(coded.append_column(ROW, numbers))
        self.rows += coded.num_rows
        self._bytes += self._batches[-1].nbytes
        if self._bytes > PENDING_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if not self._batches:
            return
        rows = pa.Table.from_batches(self._batches)
        self._batches, self._bytes = [], 0
        parts = split(self.order.points(rows), self.cut)
        self.parts, ends, places = len(parts), np.cumsum([len(part) for part in parts]), np.concatenate(parts)
        names, columns = rows.column_names, rows.columns
        del rows, parts
        sorted_rows = pa.RecordBatch.from_arrays(take_each(columns, places), names=names)
        starts = [0, *ends[:-1]]

        def append(number: int) -> None:
            start, stop = starts[number], ends[number]
            # Opened for each piece, since a table may have more parts than a process may have files open.
            with (
                pa.OSFile(str(self.path(number)), "ab") as file,
                ipc.new_stream(file, sorted_rows.schema, options=_OPTIONS) as stream,
            ):
                for first in range(start, stop, SLICE_ROWS):
                    stream.write_batch(sorted_rows.slice(first, min(SLICE_ROWS, stop - first)))

        with ThreadPoolExecutor(_THREADS) as threads:
            list(threads.map(append, np.flatnonzero(np.diff(ends, prepend=0))))
        release_memory()

    def path(self, number: int) -> Path:
        """The file of a part; there is none where a part has no rows."""
        return self.folder / f"spill-{number:05}.arrows"

    def read(self, number: int) -> Iterator[pa.RecordBatch]:
        """The rows of a part, in the order of the table."""
        path = self.path(number)
        if not path.exists():
            return
        nbytes = path.stat().st_size
        with pa.OSFile(str(path)) as file:
            while file.tell() < nbytes:
                yield from ipc.open_stream(file)


def take_each(columns: list[pa.ChunkedArray], places: NDArray[Any]) -> list[pa.Array]:
    """Rows of some columns, which are given up one by one, so that hardly more than one of them is in memory twice."""
    taken = []
    while columns:
        taken.append(columns.pop(0).combine_chunks().take(places))
    return taken


def release_memory() -> None:
    """Give memory back that nobody uses: both allocators keep what was freed, as much as was ever used at once."""
    pa.default_memory_pool().release_unused()
    release_free_memory()
