"""How many patches a second does a training loop get, in how much memory, and what does a cold mirror cost?

The peer is a dataset as torch_em 0.10 builds it: an HDF5 file written by h5py with gzip in the chunks that h5py
chooses, a random crop, float32, boundaries by ``skimage.segmentation.find_boundaries`` and affinities by
``bioimage_cpp.affinities.compute_affinities`` (torch_em/transform/label.py at 6f71247c), two worker processes of a
``DataLoader``. torch_em itself needs a torchvision that does not go with every torch, so its steps are repeated here.
TensorStore alone reads raw and labels of random patches from the same mirror, and does nothing with them.

    python -m benchmarks.loader [--repeats 3] [--side 512]

Patches of 64 x 128 x 128 in batches of 2 with 2 workers.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.fetch import bbox
from benchmarks.harness import (
    Measurement,
    Summary,
    at_most,
    data_folder,
    medians,
    print_targets,
    ratio,
    replica,
    report,
    run_case,
    table,
)
from tests.replica.server import serve_process

MODULE: Final = "benchmarks.loader"
PATCH: Final = (64, 128, 128)
BATCH: Final = 2
WORKERS: Final = 2
WARM_UP: Final = 100
"""As long as caches fill, ours and the system's."""
PATCHES: Final = 300
OFFSETS: Final = [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [-3, 0, 0], [0, -9, 0], [0, 0, -9]]
LATENCY_MS: Final = 30
MEMORY_SAMPLES: Final = 2000
COLD_PATCHES: Final = 32
STEP_PATCHES: Final = 10
"""Of a U-Net without a GPU."""


def measure(batches: Iterable[Any], facts: dict[str, Any]) -> None:
    """Patches a second, after the first few; ``seconds`` is of all that were timed."""
    seen, started = 0, 0.0
    for raw, *_ in batches:
        seen += len(raw)
        if seen == WARM_UP:
            started = time.perf_counter()
    facts["seconds"] = time.perf_counter() - started
    facts["rate"] = (seen - WARM_UP) / facts["seconds"]


class Peer:
    """What torch_em 0.10 does for a sample."""

    def __init__(self, path: Path, target: str, count: int) -> None:
        self.path, self.target, self.count = path, target, count
        self.file: Any = None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, _: int) -> tuple[Any, Any]:
        import h5py
        import numpy as np
        import torch

        if self.file is None:
            self.file = h5py.File(self.path, "r")
        shape = self.file["raw"].shape
        starts = [np.random.randint(0, side - edge) for side, edge in zip(shape, PATCH, strict=True)]
        crop = tuple(slice(a, a + edge) for a, edge in zip(starts, PATCH, strict=True))
        raw, labels = self.file["raw"][crop].astype("float32"), self.file["labels"][crop]
        target = np.ascontiguousarray(self._target(labels)).astype("float32")
        return torch.from_numpy(raw[None]), torch.from_numpy(target)

    def _target(self, labels: Any) -> Any:
        import numpy as np

        if self.target == "boundaries":
            from skimage.segmentation import find_boundaries

            return find_boundaries(labels, mode="thick")[None]
        if self.target == "affinities":
            from bioimage_cpp.affinities import compute_affinities

            affinities, mask = compute_affinities(labels, OFFSETS)
            return np.concatenate([1.0 - affinities, mask.astype(affinities.dtype)])
        return labels[None]


def case_peer(target: str, facts: dict[str, Any]) -> None:
    """The peer, two worker processes."""
    from torch.utils.data import DataLoader

    peer = Peer(facts["work"] / "box.h5", target, WARM_UP + PATCHES)
    measure(DataLoader(peer, batch_size=BATCH, num_workers=WORKERS), facts)  # type: ignore[arg-type]  # quacks like one


def entry(facts: dict[str, Any]) -> Any:
    """The box of the benchmark, as the shipped catalog has it; nothing is loaded that a training loop does not need."""
    import intake

    import emcatalog

    os.environ["EMCATALOG_MIRRORS"] = json.dumps({"gs://flyem-male-cns": facts["server"]})
    os.environ["EMCATALOG_CACHE"] = str(facts["work"] / "mirror")
    return intake.open_catalog(emcatalog.CATALOG).malecns(bbox=bbox(facts["side"]))


def dataset(facts: dict[str, Any], target: str, dtype: str | None, count: int) -> Any:
    """The box as a dataset, raw as the peer has it: float32 and nothing more."""
    more: dict[str, Any] = {"offsets": OFFSETS, "mask": True} if target == "affinities" else {}
    return entry(facts).to_torch(PATCH, target, raw_transform=None, target_dtype=dtype, samples=count, **more)


def case_ours(target: str, dtype: str | None, workers: str, facts: dict[str, Any]) -> None:
    """emcatalog, two workers."""
    import emcatalog.torch

    data = dataset(facts, target, dtype, WARM_UP + PATCHES)
    measure(emcatalog.torch.loader(data, BATCH, WORKERS, workers=workers), facts)  # type: ignore[arg-type]


def case_tensorstore(facts: dict[str, Any]) -> None:
    """TensorStore alone, two patches at a time: raw and labels of random patches into memory."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np
    import tensorstore as ts

    x0, y0, z0 = bbox(facts["side"])[::2]
    folder = facts["work"] / "mirror" / "gs" / "flyem-male-cns"
    stores = [
        ts.open({"driver": "zarr3", "kvstore": f"file://{folder}/{scale}/data/"}).result()
        for scale in ("em/em-clahe-jpeg/8x8x8.zarr", "v0.9/segmentation/8_8_8.zarr")
    ]
    rng = np.random.default_rng(0)
    highest = [facts["side"] - edge for edge in PATCH]
    corner = np.array([z0, y0, x0])
    firsts = [rng.integers(0, highest, endpoint=True) + corner for _ in range(WARM_UP + PATCHES)]

    def read(first: Any) -> list[Any]:
        crop = tuple(slice(int(a), int(a) + edge) for a, edge in zip(first, PATCH, strict=True))
        reads = [store[crop].read() for store in stores]
        return [one.result() for one in reads]

    with ThreadPoolExecutor(WORKERS) as threads:
        measure((([None], arrays) for arrays in threads.map(read, firsts)), facts)


def case_memory(target: str, dtype: str | None, workers: str, facts: dict[str, Any]) -> None:
    """emcatalog: resident size of the process that reads, over many samples."""
    import psutil

    import emcatalog.torch

    data = dataset(facts, target, dtype, MEMORY_SAMPLES)
    loader = emcatalog.torch.loader(data, BATCH, WORKERS, workers=workers)  # type: ignore[arg-type]
    sizes = []
    started = time.perf_counter()
    for number, _ in enumerate(loader, 1):
        if number * BATCH % (MEMORY_SAMPLES // 10) == 0:
            me = psutil.Process()
            readers = [me] if workers == "thread" else me.children()
            sizes.append(max(reader.memory_info().rss for reader in readers) / 1e6)
    facts.update(seconds=time.perf_counter() - started, sizes=sizes, worker_mb=max(sizes))


def case_cold(facts: dict[str, Any]) -> None:
    """emcatalog: an epoch from an empty mirror, then the same epoch again."""
    import shutil
    from urllib.request import urlopen

    import emcatalog.torch

    cold = {**facts, "work": facts["work"] / "cold"}
    shutil.rmtree(cold["work"], ignore_errors=True)
    loader = emcatalog.torch.loader(dataset(cold, "instances", None, COLD_PATCHES), BATCH, 2 * WORKERS)
    for name in ("first", "second"):
        loader.set_epoch(0)
        started = time.perf_counter()
        for _ in loader:
            pass
        with urlopen(f"{facts['server']}/__requests__") as answer:
            facts[name] = {"seconds": time.perf_counter() - started, **json.load(answer)}
    facts["seconds"] = facts["first"]["seconds"]


def case_prepare(facts: dict[str, Any]) -> None:
    """The box into the mirror, and into the peer's HDF5 file."""
    import h5py

    read = entry(facts).read()
    path = facts["work"] / "box.h5"
    if not path.exists():
        with h5py.File(path, "w") as file:
            for name in ("raw", "labels"):
                file.create_dataset(name, data=read[name].values, compression="gzip", chunks=True)
    facts["seconds"] = 0.0


def case_step(facts: dict[str, Any]) -> None:
    """A small U-Net, on a GPU where there is one: patches that it gets a second, and how long a step waits for them."""
    import torch
    from monai.networks.nets import UNet

    import emcatalog.torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    warm_up, patches = (WARM_UP, PATCHES) if device.type == "cuda" else (STEP_PATCHES, STEP_PATCHES)
    data = dataset(facts, "affinities", "uint8", warm_up + patches)
    workers = (os.cpu_count() or WORKERS) if device.type == "cuda" else WORKERS
    loader = emcatalog.torch.loader(data, BATCH, workers, pin_memory=device.type == "cuda")
    net = UNet(3, 1, len(OFFSETS), channels=(16, 32, 64), strides=(2, 2)).to(device)
    optimizer = torch.optim.Adam(net.parameters())
    seen, waited, started, last = 0, 0.0, 0.0, 0.0
    for raw, target in loader:
        waited += time.perf_counter() - last
        image, wide = raw.to(device, non_blocking=True), target.to(device, non_blocking=True).float()
        affinities, valid = wide.chunk(2, dim=1)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(net(image), affinities, weight=valid)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        float(loss.detach())  # waits for the device
        seen, last = seen + len(raw), time.perf_counter()
        if seen == warm_up:
            waited, started = 0.0, last
    seconds = last - started
    facts.update(seconds=seconds, device=str(device), step_rate=patches / seconds, waiting=waited / seconds)


CASES: dict[str, Callable[[dict[str, Any]], None]] = {
    "prepare": case_prepare,
    "tensorstore": case_tensorstore,
    **{f"peer {target}": partial(case_peer, target) for target in ("instances", "boundaries", "affinities")},
    "instances": partial(case_ours, "instances", None, "thread"),
    **{
        f"{target} {dtype}": partial(case_ours, target, dtype, "thread")
        for target in ("boundaries", "affinities")
        for dtype in ("float32", "uint8")
    },
    "instances, processes": partial(case_ours, "instances", None, "process"),
    "affinities uint8, processes": partial(case_ours, "affinities", "uint8", "process"),
    **{
        f"memory, {target}, {workers}": partial(case_memory, target, dtype, workers)
        for workers in ("thread", "process")
        for target, dtype in (("instances", None), ("affinities", "uint8"))
    },
    "cold": case_cold,
    "step": case_step,
}
MEMORY: Final = [case for case in CASES if case.startswith("memory")]
ONCE: Final = ("prepare", *MEMORY, "cold", "step")


def _run(case: str, server: str, side: int, work: Path) -> Measurement:
    return run_case(MODULE, case, "--server", server, "--side", side, "--work", work)


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--only", nargs="*", help="run only these cases")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--server", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        facts: dict[str, Any] = {"server": arguments.server, "side": arguments.side, "work": arguments.work}
        CASES[arguments.case](facts)
        report({name: fact for name, fact in facts.items() if name != "work"})
        return
    work = data_folder() / f"loader-{arguments.side}"
    work.mkdir(exist_ok=True)
    with serve_process(replica(arguments.side)) as server:
        run = partial(partial, _run, server=server.url, side=arguments.side, work=work)
        run("prepare")()
        repeated = [case for case in CASES if case not in ONCE]
        if arguments.only:
            repeated = [case for case in repeated if case in arguments.only]
        measured = medians({case: run(case) for case in repeated}, arguments.repeats)
        _print_rates(measured)
        if arguments.only:
            return
        server.set_latency(LATENCY_MS)
        server.clear()
        single = medians({case: run(case) for case in ONCE[1:]}, 1)
    _print_single(single)
    _print_targets(measured, single)


def _print_rates(measured: dict[str, Summary]) -> None:
    rows = [[name, f"{_rate(s):.0f}", f"{s.peak_mb:.0f}"] for name, s in measured.items()]
    table("Patches of 64 x 128 x 128, batches of 2, 2 workers", ["case", "patches a second", "peak MB"], rows)


def _rate(summary: Summary) -> float:
    return PATCHES / summary.seconds


def _print_single(single: dict[str, Summary]) -> None:
    rows = [[name, " ".join(f"{size:.0f}" for size in single[name].facts["sizes"])] for name in MEMORY]
    title = f"Resident MB of a process that reads, over {MEMORY_SAMPLES} samples; threads are all in one"
    table(title, ["case", "each tenth"], rows)
    cold = single["cold"].facts
    rows = [[epoch, f"{cold[epoch]['seconds']:.1f}", cold[epoch]["count"]] for epoch in ("first", "second")]
    title = f"{COLD_PATCHES} patches from an empty mirror, {LATENCY_MS} ms a response"
    table(title, ["epoch", "s", "requests so far"], rows)
    step = single["step"].facts
    row = [step["device"], f"{step['step_rate']:.1f}", f"{step['waiting']:.0%}"]
    table("A small U-Net learns six affinities", ["device", "patches a second", "of a step spent waiting"], [row])


def _print_targets(measured: dict[str, Summary], single: dict[str, Summary]) -> None:
    rate = {name: _rate(summary) for name, summary in measured.items()}
    cold = single["cold"].facts
    print_targets(
        [
            ratio("raw + labels: times the peer", rate["instances"] / rate["peer instances"], 5),
            ratio("raw + labels: of TensorStore alone", rate["instances"] / rate["tensorstore"], 0.5),
            *(
                ratio(f"{target}, {dtype}: times the peer", rate[f"{target} {dtype}"] / rate[f"peer {target}"], least)
                for target, least in (("boundaries", 5), ("affinities", 4))
                for dtype in ("float32", "uint8")
            ),
            *(at_most(f"{name}: MB of a process", single[name].facts["worker_mb"], 600) for name in MEMORY),
            at_most("cold: requests of the second epoch", cold["second"]["count"] - cold["first"]["count"], 0),
        ]
    )


if __name__ == "__main__":
    main()
