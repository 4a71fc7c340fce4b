"""How fast, and in how much memory, is a box of synapses found in a table of 20 million, remote and once fetched?

The table is made as the published one is: Feather V2, LZ4, 65,536 rows a record batch, 40 columns, points anywhere in
the volume and in no order. Peers, in the same run over loopback:

- streaming: the columns x, y and z once, each batch's bytes in one request whose place is known beforehand, over one
  connection or over 16, decoded by pyarrow and thrown away: what any search through the file must do at least.
- pyarrow: the same columns as pyarrow reads them over one connection: metadata and each buffer in a request of its own.
- pandas: the file downloaded whole, `pandas.read_feather`, a mask.
- scanning: pyarrow over the Feather file on this disk, mapped into memory: x, y and z, a mask, the other columns of the
  batches that have rows.

    python -m benchmarks.tables [--repeats 3] [--rows 20000000]
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from threading import local
from typing import Any
from urllib.parse import urlsplit

from benchmarks.harness import (
    REPOSITORY,
    Measurement,
    Summary,
    Target,
    at_most,
    console,
    data_folder,
    medians,
    print_targets,
    print_times,
    ratio,
    report,
    run_case,
    table,
    timed,
    timed_again,
)
from tests.replica.server import ServerProcess, serve_process
from tests.replica.tables import table_path

MODULE = "benchmarks.tables"
VERSION = "v0.9"
"""The catalog knows the checksum of the published v1.0, which a made table cannot have."""
COLUMNS = ["x", "y", "z", "kind", "body", "conf"]
TWO = ["body", "conf"]
SIDE = 512
BOX = (40000, 40512, 40000, 40512, 20000, 20512)
QUERIES = 20
LATENCY_MS = 30
THREADS = 16
PEAK_MB = 500


# --- ours


def entry(server: str, work: Path, **arguments: Any) -> Any:
    """The shipped ``synapse_points``, read from the server."""
    import intake
    import tqdm.auto  # noqa: F401  # imports are not timed, of no peer

    import emcatalog
    import emcatalog.tables.opening

    os.environ["EMCATALOG_MIRRORS"] = json.dumps({"gs://flyem-male-cns": server})
    os.environ["EMCATALOG_CACHE"] = str(work / "cache")
    return intake.open_catalog(emcatalog.CATALOG).malecns_data.synapse_points(version=VERSION, **arguments)


def remote(server: str, work: Path, _: Path, facts: dict[str, Any]) -> None:
    """emcatalog: a box and six columns from the file where it lies."""
    source = entry(server, work, bbox=BOX, columns=COLUMNS)
    with timed(facts):
        found = source.read()
    facts.update(rows=len(found))


def two_columns(server: str, work: Path, path: Path, facts: dict[str, Any]) -> None:
    """emcatalog: two columns of all rows."""
    source = entry(server, work, columns=TWO)
    with timed(facts):
        found = source.read()
    facts.update(rows=len(found), stored_mb=stored_bytes(path, TWO) / 1e6)


def fetch(server: str, work: Path, _: Path, facts: dict[str, Any]) -> None:
    """emcatalog: the whole table into the cache."""
    shutil.rmtree(work / "cache", ignore_errors=True)
    source = entry(server, work)
    with timed(facts):
        done = source.fetch()
    facts.update(rows=done.rows, copy_mb=done.copy_bytes / 1e6)


def fetched(side: int, server: str, work: Path, _: Path, facts: dict[str, Any]) -> None:
    """emcatalog: boxes from the copy, one after the other."""
    box = iter(boxes(side) * 2)
    source = entry(server, work)
    rows = timed_again(facts, lambda: len(source(bbox=next(box), columns=COLUMNS).read()), QUERIES)
    facts.update(rows=rows)


def boxes(side: int) -> list[tuple[int, ...]]:
    """Boxes all over the volume, the same in each run; the first is ``BOX``."""
    import numpy as np

    random = np.random.default_rng(0)
    corners = [(40000, 40000, 20000), *random.integers(0, (94088 - side, 77248 - side, 134592 - side), (QUERIES, 3))]
    return [tuple(int(edge) for x in corner for edge in (x, x + side)) for corner in corners]


# --- what people do today, and what bounds it


class Parts(io.RawIOBase):
    """A file for pyarrow of which some parts are in memory, and no others are asked for."""

    def __init__(self, nbytes: int) -> None:
        self.parts: list[tuple[int, bytes]] = []
        self._nbytes, self._at = nbytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset if whence == io.SEEK_SET else self._nbytes + offset
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        stop = self._at + (size or 0)
        start, content = next((a, part) for a, part in self.parts if a <= self._at and stop <= a + len(part))
        found = content[self._at - start : stop - start]
        self._at = stop
        return found


class Logged(io.FileIO):
    """A file that remembers what was read of it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.log: list[tuple[int, int]] = []

    def read(self, size: int | None = -1) -> bytes:
        at = self.tell()
        content = super().read(size)
        self.log.append((at, len(content or b"")))
        return content or b""


def reads_of(path: Path, columns: list[str]) -> tuple[list[list[tuple[int, int]]], int]:
    """What pyarrow reads of each record batch for some columns, its metadata first; and how many batches there are."""
    import pyarrow as pa
    from pyarrow import ipc

    schema = ipc.open_file(path).schema
    included = [schema.get_field_index(name) for name in columns]
    file = Logged(path)
    reader = ipc.open_file(
        pa.PythonFile(file, mode="r"), options=ipc.IpcReadOptions(included_fields=included, use_threads=False)
    )
    reader.get_batch(0)  # the dictionaries come first
    found = []
    for number in range(reader.num_record_batches):
        file.log.clear()
        reader.get_batch(number)
        found.append(list(file.log))
    return found, reader.num_record_batches


def stored_bytes(path: Path, columns: list[str]) -> int:
    """Bytes of some columns in the file, without the metadata of the batches."""
    return sum(size for reads in reads_of(path, columns)[0] for _, size in reads[1:])


def streaming(threads: int, server: str, _: Path, path: Path, facts: dict[str, Any]) -> None:
    """x, y and z once: one request a batch, decoded, thrown away."""
    import pyarrow as pa
    from pyarrow import ipc

    names = ["x", "y", "z"]
    schema, nbytes = ipc.open_file(path).schema, path.stat().st_size
    included = [schema.get_field_index(name) for name in names]
    places = [(reads[0][0], reads[-1][0] + reads[-1][1]) for reads in reads_of(path, names)[0]]
    with path.open("rb") as file:
        head = file.read(places[0][0])  # the dictionaries lie before the batches
        file.seek(-(1 << 20), os.SEEK_END)
        tail = file.read()
    own = local()

    def stream(number: int) -> int:
        if not hasattr(own, "connection"):
            own.connection, own.file = HTTPConnection(urlsplit(server).netloc, timeout=60), Parts(nbytes)
            own.known = [(0, head), (nbytes - len(tail), tail)]
            own.file.parts = own.known
            options = ipc.IpcReadOptions(included_fields=included, use_threads=False)
            own.reader = ipc.open_file(pa.PythonFile(own.file, mode="r"), options=options)
        start, stop = places[number]
        own.connection.request("GET", f"/{where}", headers={"Range": f"bytes={start}-{stop - 1}"})
        own.file.parts = [*own.known, (start, own.connection.getresponse().read())]
        return int(own.reader.get_batch(number).num_rows)

    where = table_path("", "synapse_points", VERSION)
    with timed(facts), ThreadPoolExecutor(threads) as pool:
        rows = sum(pool.map(stream, range(len(places))))
    facts.update(rows=rows)


class Web(Parts):
    """A file of a web server, read over one connection: each read is a request."""

    def __init__(self, server: str, where: Path, nbytes: int) -> None:
        super().__init__(nbytes)
        self._connection, self._where = HTTPConnection(urlsplit(server).netloc, timeout=60), where

    def read(self, size: int | None = -1) -> bytes:
        headers = {"Range": f"bytes={self._at}-{self._at + (size or 0) - 1}"}
        self._connection.request("GET", f"/{self._where}", headers=headers)
        content = self._connection.getresponse().read() if size else b""
        self._at += len(content)
        return content


def by_pyarrow(server: str, _: Path, path: Path, facts: dict[str, Any]) -> None:
    """What pyarrow does by itself over one connection: x, y and z once, decoded, thrown away."""
    import pyarrow as pa
    from pyarrow import ipc

    schema, where = ipc.open_file(path).schema, table_path("", "synapse_points", VERSION)
    options = ipc.IpcReadOptions(included_fields=[schema.get_field_index(name) for name in "xyz"])
    with timed(facts):
        reader = ipc.open_file(pa.PythonFile(Web(server, where, path.stat().st_size), mode="r"), options=options)
        rows = sum(reader.get_batch(number).num_rows for number in range(reader.num_record_batches))
    facts.update(rows=rows)


def pandas(server: str, work: Path, _: Path, facts: dict[str, Any]) -> None:
    """Download the file, read all of it, mask."""
    import pandas as pd
    import requests

    target = work / "whole.feather"
    with timed(facts):
        with (
            requests.get(f"{server}/{table_path('', 'synapse_points', VERSION)}", stream=True, timeout=60) as answer,
            target.open("wb") as file,
        ):
            shutil.copyfileobj(answer.raw, file, 1 << 20)
        frame = pd.read_feather(target)
        found = frame[inside(frame, BOX)][COLUMNS]
    target.unlink()
    facts.update(rows=len(found))


def inside(frame: Any, box: tuple[int, ...]) -> Any:
    """Which rows of a frame lie in a box."""
    x0, x1, y0, y1, z0, z1 = box
    x, y, z = frame.x, frame.y, frame.z
    return (x >= x0) & (x < x1) & (y >= y0) & (y < y1) & (z >= z0) & (z < z1)


def scanning(side: int, _server: str, _work: Path, path: Path, facts: dict[str, Any]) -> None:
    """What pyarrow does over the local file, on both cores: x, y, z of each batch, the rest where a row is in it."""
    import pyarrow as pa
    from pyarrow import compute as pc
    from pyarrow import ipc

    file = pa.memory_map(str(path))
    schema = ipc.open_file(file).schema
    own = local()

    def reader(columns: list[str]) -> Any:
        found = own.__dict__.setdefault("readers", {})
        if tuple(columns) not in found:
            included = [schema.get_field_index(name) for name in columns]
            options = ipc.IpcReadOptions(included_fields=included, use_threads=False)
            found[tuple(columns)] = ipc.open_file(file, options=options)
        return found[tuple(columns)]

    def scan(number: int, box: tuple[int, ...]) -> Any:
        batch = reader(["x", "y", "z"]).get_batch(number)
        masks = [
            mask
            for axis, low, high in zip("xyz", box[::2], box[1::2], strict=True)
            for mask in (pc.greater_equal(batch.column(axis), low), pc.less(batch.column(axis), high))
        ]
        mask = masks[0]
        for other in masks[1:]:
            mask = pc.and_(mask, other)
        return reader(COLUMNS).get_batch(number).filter(mask) if pc.any(mask).as_py() else None

    each = iter(boxes(side) * 2)
    count = reader(COLUMNS).num_record_batches

    def query() -> int:
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            parts = [part for part in threads.map(partial(scan, box=next(each)), range(count)) if part is not None]
        return sum(part.num_rows for part in parts)

    facts.update(rows=timed_again(facts, query, 5))


CASES: dict[str, Callable[[str, Path, Path, dict[str, Any]], None]] = {
    "remote": remote,
    "pyarrow": by_pyarrow,
    "streaming": partial(streaming, 1),
    "streaming_16": partial(streaming, THREADS),
    "pandas": pandas,
    "two_columns": two_columns,
    "fetch": fetch,
    "fetched": partial(fetched, SIDE),
    "fetched_large": partial(fetched, 8 * SIDE),
    "scanning": partial(scanning, SIDE),
}


# --- the program


def made(rows: int) -> Path:
    """A bucket with the table; made once."""
    folder = data_folder() / f"tables-{rows}"
    if not table_path(folder, "synapse_points", VERSION).exists():
        console.print(f"making {rows:,} synapse points in {folder} ...")
        command = [sys.executable, "-m", "tests.replica.tables", str(folder), "--table", "synapse_points"]
        subprocess.run([*command, "--rows", str(rows), "--version", VERSION], cwd=REPOSITORY, check=True)
    return folder


def measure(case: str, server: ServerProcess, work: Path, path: Path) -> Measurement:
    """One run of a case, and what it asked of the server."""
    server.clear()
    found = run_case(MODULE, case, "--server", server.url, "--work", work, "--path", path)
    found.facts.update(requests=server.count(), received_mb=server.bytes() / 1e6)
    return found


@contextmanager
def workplace() -> Any:
    """A folder that is removed in the end."""
    work = data_folder() / "tables-work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--server", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        facts: dict[str, Any] = {}
        CASES[arguments.case](arguments.server, arguments.work, arguments.path, facts)
        report(facts)
        return
    folder = made(arguments.rows)
    path = table_path(folder, "synapse_points", VERSION)
    with workplace() as work, serve_process(folder) as server:
        near = _measured(
            server,
            work,
            path,
            ["remote", "pyarrow", "streaming", "streaming_16", "pandas", "two_columns"],
            arguments.repeats,
        )
        print_times(f"{arguments.rows:,} synapse points over loopback, {path.stat().st_size / 1e6:,.0f} MB", near)
        server.set_latency(LATENCY_MS)
        far = _measured(server, work, path, ["remote", "streaming_16"], arguments.repeats)
        print_times(f"The same with {LATENCY_MS} ms added to each response", far)
        server.set_latency(0)
        fetch = _measured(server, work, path, ["fetch"], 1)
        print_times("Fetched once", fetch)
        cases = ["fetched", "fetched_large", "scanning"]
        local_cases = _measured(server, work, path, cases, arguments.repeats)
    rows = [[name, f"{1000 * s.seconds:.1f}", f"{s.peak_mb:.0f}", s.facts["rows"]] for name, s in local_cases.items()]
    table(f"Boxes of {SIDE} cubed (large: {8 * SIDE}), on this disk", ["case", "ms (median)", "peak MB", "rows"], rows)
    print_targets([*_targets(near, far), *_targets_of_the_copy(local_cases)])


def _measured(server: ServerProcess, work: Path, path: Path, cases: list[str], repeats: int) -> dict[str, Summary]:
    return medians({case: partial(measure, case, server, work, path) for case in cases}, repeats)


def _targets(near: dict[str, Summary], far: dict[str, Summary]) -> list[Target]:
    two = near["two_columns"]
    stream = min(near["streaming"].seconds, near["streaming_16"].seconds)
    return [
        below("a box from the remote file: times pyarrow", near["remote"].seconds / near["pyarrow"].seconds, 1.2),
        below("the same: times streaming whose places are known", near["remote"].seconds / stream, 1.2),
        below(f"the latter with {LATENCY_MS} ms", far["remote"].seconds / far["streaming_16"].seconds, 1.2),
        at_most("peak MB of a box from the remote file", near["remote"].peak_mb, PEAK_MB),
        below("two columns: bytes received a byte stored", two.facts["received_mb"] / two.facts["stored_mb"], 1.3),
    ]


def _targets_of_the_copy(measured: dict[str, Summary]) -> list[Target]:
    times = measured["scanning"].seconds / measured["fetched"].seconds
    return [ratio("once fetched: times faster than scanning the Feather file", times, 50)]


def below(what: str, measured: float, target: float) -> Target:
    """A ratio that is to be at most so large."""
    return what, f"{measured:.2f}", f"at most {target}", measured <= target


if __name__ == "__main__":
    main()
