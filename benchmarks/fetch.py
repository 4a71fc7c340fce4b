"""How fast, and in how much memory, is a box of male CNS fetched and read again?

Peers, in the same run over loopback: the recipe that people use today (cloud-volume reads the box, it is transposed and
written by h5py with gzip: what torch_em 0.10 does in ``get_malecns_data``), and TensorStore reading and decoding the
same box into memory without writing it.

    python -m benchmarks.fetch [--repeats 3] [--side 512] [--large 1024]
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import (
    Measurement,
    Summary,
    at_most,
    data_folder,
    medians,
    print_targets,
    print_times,
    ratio,
    replica,
    report,
    run_case,
    timed,
    timed_again,
)
from tests.replica.server import ServerProcess, serve_process

MODULE = "benchmarks.fetch"
ORIGIN = (40000, 40000, 20000)
IMAGE, LABELS = "em/em-clahe-jpeg", "v0.9/segmentation"
LATENCY_MS = 30


def bbox(side: int, shift: int = 0) -> tuple[int, int, int, int, int, int]:
    """A cube (x0, x1, y0, y1, z0, z1) at the origin of the replica."""
    x, y, z = ORIGIN
    return x + shift, x + shift + side, y, y + side, z, z + side


def source(server: str, work: Path, **arguments: Any) -> Any:
    """The shipped ``malecns`` entry, read from the server into a cache below ``work``."""
    import os

    import intake
    import tqdm.auto  # noqa: F401  # imports are not timed, of no peer

    import emcatalog
    import emcatalog.cutout
    import emcatalog.dataset

    os.environ["EMCATALOG_MIRRORS"] = json.dumps({"gs://flyem-male-cns": server})
    os.environ["EMCATALOG_CACHE"] = str(work / "mirror")
    return intake.open_catalog(emcatalog.CATALOG).malecns(**arguments)


def case_fetch(server: str, side: int, work: Path, facts: dict[str, Any]) -> None:
    """emcatalog, cold: the box into an empty mirror."""
    shutil.rmtree(work / "mirror", ignore_errors=True)
    entry = source(server, work, bbox=bbox(side))
    with timed(facts):
        done = entry.fetch()
    facts.update(chunks=done.fetched)


def case_read(server: str, side: int, work: Path, facts: dict[str, Any]) -> None:
    """emcatalog, warm: the box from the mirror into memory."""
    entry = source(server, work, bbox=bbox(side))
    dataset = timed_again(facts, entry.read)
    facts.update(nbytes=dataset.nbytes)


def case_shifted(server: str, side: int, work: Path, facts: dict[str, Any]) -> None:
    """emcatalog: half of the cube's edge, then the same box shifted by half of itself."""
    shutil.rmtree(work / "mirror", ignore_errors=True)
    first = source(server, work, bbox=bbox(side // 2)).fetch()
    entry = source(server, work, bbox=bbox(side // 2, shift=side // 4))
    planned = entry.plan()
    with timed(facts):
        second = entry.fetch()
    facts.update(first=first.fetched, second=second.fetched, reused=second.reused, planned=planned.missing)


def case_recipe(server: str, side: int, work: Path, facts: dict[str, Any]) -> None:
    """The recipe, cold: cloud-volume, transpose, h5py with gzip."""
    import h5py
    import numpy as np
    from cloudvolume import CloudVolume

    x0, x1, y0, y1, z0, z1 = bbox(side)
    with timed(facts):
        image, labels = (CloudVolume(f"precomputed://{server}/{p}", mip=0, progress=False) for p in (IMAGE, LABELS))
        raw = np.array(image[x0:x1, y0:y1, z0:z1])[..., 0].transpose(2, 1, 0)
        ids = np.array(labels[x0:x1, y0:y1, z0:z1])[..., 0].transpose(2, 1, 0)
        with h5py.File(work / "box.h5", "w", locking=False) as file:
            file.create_dataset("raw", data=raw.astype("uint8"), compression="gzip", chunks=True)
            file.create_dataset("labels", data=ids.astype("uint64"), compression="gzip", chunks=True)


def case_recipe_read(server: str, side: int, work: Path, facts: dict[str, Any]) -> None:
    """The recipe, warm: its HDF5 file into memory."""
    import h5py

    def read() -> list[Any]:
        with h5py.File(work / "box.h5", "r") as file:
            return [file["raw"][:], file["labels"][:]]

    facts.update(nbytes=sum(array.nbytes for array in timed_again(facts, read)), server=server, side=side)


def case_tensorstore(server: str, side: int, work: Path, facts: dict[str, Any]) -> None:
    """TensorStore reads and decodes the box into memory; nothing is written."""
    import tensorstore as ts

    x0, x1, y0, y1, z0, z1 = bbox(side)
    context = ts.Context({"cache_pool": {"total_bytes_limit": 100_000_000}})
    with timed(facts):
        stores = [
            ts.open(
                {"driver": "neuroglancer_precomputed", "kvstore": f"{server}/{path}", "recheck_cached_data": "open"},
                open=True,
                context=context,
            ).result()
            for path in (IMAGE, LABELS)
        ]
        # Order "F" of (x, y, z) is (z, y, x) in C order, which is what everybody here ends with.
        with ts.Batch() as batch:
            reads = [s[x0:x1, y0:y1, z0:z1, 0].read(order="F", batch=batch) for s in stores]
        arrays = [read.result().T for read in reads]
    facts.update(nbytes=sum(array.nbytes for array in arrays), work=str(work))


CASES: dict[str, Callable[[str, int, Path, dict[str, Any]], None]] = {
    "fetch": case_fetch,
    "read": case_read,
    "shifted": case_shifted,
    "recipe": case_recipe,
    "recipe_read": case_recipe_read,
    "tensorstore": case_tensorstore,
}


def _counted(server: ServerProcess, side: int, work: Path, case: str) -> Measurement:
    server.clear()
    arguments = ("--server", server.url, "--side", side, "--work", work)
    measured = run_case(MODULE, case, *arguments)
    measured.facts.update(requests=server.count(), received_mb=server.bytes() / 1e6)
    return measured


def _cold_and_warm(side: int, latency_ms: float, cases: list[str], repeats: int) -> dict[str, Summary]:
    work = data_folder() / f"work-{side}"
    work.mkdir(exist_ok=True)
    with serve_process(replica(side), latency_ms=latency_ms) as server:
        return medians({case: partial(_counted, server, side, work, case) for case in cases}, repeats)


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--large", type=int, default=1024, help="edge of the cube whose memory is compared; 0 for none")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--server", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        facts: dict[str, Any] = {}
        CASES[arguments.case](arguments.server, arguments.side, arguments.work, facts)
        report(facts)
        return
    side, repeats = arguments.side, arguments.repeats
    every = ["recipe", "recipe_read", "tensorstore", "fetch", "read"]
    near = _cold_and_warm(side, 0, every, repeats)
    print_times(f"{side} cubed, raw + labels, over loopback", near)
    far = _cold_and_warm(side, LATENCY_MS, ["recipe", "tensorstore", "fetch"], repeats)
    print_times(f"The same with {LATENCY_MS} ms added to each response", far)
    shifted = _cold_and_warm(side, 0, ["shifted"], 1)["shifted"]
    large = _cold_and_warm(arguments.large, 0, ["fetch"], repeats)["fetch"] if arguments.large else None
    _print_targets(near, far, shifted, large, arguments.large)


def _print_targets(
    near: dict[str, Summary], far: dict[str, Summary], shifted: Summary, large: Summary | None, edge: int
) -> None:
    fetch = near["fetch"]
    moved = shifted.facts
    rows = [
        ratio("cold fetch: times faster than the recipe", near["recipe"].seconds / fetch.seconds, 6),
        ratio("cold fetch: of TensorStore's speed without writing", near["tensorstore"].seconds / fetch.seconds, 0.7),
        ratio(f"with {LATENCY_MS} ms: times faster than the recipe", far["recipe"].seconds / far["fetch"].seconds, 5),
        ratio("warm read: times faster than HDF5", near["recipe_read"].seconds / near["read"].seconds, 6),
        at_most("warm read: requests", near["read"].facts["requests"], 0),
        at_most("peak MB of a fetch", fetch.peak_mb, 700),
    ]
    if large is not None:
        rows.append(at_most(f"peak MB of a fetch of {edge} cubed", large.peak_mb, 700))
    rows.append(at_most("shifted box: chunks asked for beyond the missing", moved["second"] - moved["planned"], 0))
    rows.append(at_most("shifted box: chunks asked for again", moved["second"] + moved["reused"] - moved["first"], 0))
    print_targets(rows)
    print(f"the recipe's peak: {near['recipe'].peak_mb:.0f} MB; shifted box: {moved}")


if __name__ == "__main__":
    main()
