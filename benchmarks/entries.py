"""How fast, and in how much memory, are boxes of the other entries fetched, each from its own stored form?

Peers, in the same run over loopback, are what people do today (as torch_em 0.10 does, in words of our own):

- human_liver: requests and imagecodecs, slice by slice: the strips of the rows in one range, each PNG whole; into Zarr.
  torch_em itself decodes the PNGs with Pillow, which takes three times as long: a row of its own.
- e11bio_prism: zarr-python reads the crop whole, h5py writes it with gzip, channel by channel.
- wildenberg2023: cloud-volume reads block by block in eight threads, zarr-python writes shards.

A whole stack, scaled down, is compared with the same done slice by slice into a sharded Zarr: bytes written against
bytes stored.

    python -m benchmarks.entries [--repeats 3] [--only liver stack prism wildenberg]
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

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
)
from tests.replica.server import ServerProcess, serve_process

MODULE = "benchmarks.entries"
LATENCY_MS = 30
MASKS = ("er", "mito", "nucleus")
LIVER_BOXES = {"top": (1200, 1712, 600, 1112, 0, 16), "middle": (9000, 9512, 9000, 9512, 0, 16)}
"""512 x 512 x 16 voxels: near the top of the tissue, and half-way down, where half a PNG is to be decoded."""
WILDENBERG_BOX = (1000, 1512, 1000, 1512, 20, 84)
"""In voxels of 12 x 12 x 40 nm."""
STACK = (24, 2000, 2000)
"""Slices, rows and columns of the whole stack that is scaled down from 597 x 19101 x 17695."""
PEAK_MB = 1000


# --- ours


def entry(name: str, mirrors: dict[str, str], work: Path, **arguments: Any) -> Any:
    """A shipped entry, read from the server into a cache below ``work`` that is emptied."""
    import intake
    import tqdm.auto  # noqa: F401  # imports are not timed, of no peer

    import emcatalog
    import emcatalog.cutout
    import emcatalog.dataset

    shutil.rmtree(work / "mirror", ignore_errors=True)
    os.environ["EMCATALOG_MIRRORS"] = json.dumps(mirrors)
    os.environ["EMCATALOG_CACHE"] = str(work / "mirror")
    return intake.open_catalog(emcatalog.CATALOG)[name](**arguments)


def fetch(source: Any, facts: dict[str, Any]) -> None:
    """Time a fetch into the empty mirror."""
    with timed(facts):
        done = source.fetch()
    facts.update(chunks=done.fetched)


def liver(where: str, server: str, work: Path, facts: dict[str, Any]) -> None:
    """emcatalog: raw and three masks."""
    import emcatalog.formats.png
    import emcatalog.formats.tiff  # noqa: F401  # imports are not timed

    mirrors = {"https://ftp.ebi.ac.uk/empiar/world_availability/13356/data": server}
    fetch(entry("human_liver", mirrors, work, bbox=LIVER_BOXES[where]), facts)


def stack(server: str, work: Path, facts: dict[str, Any]) -> None:
    """emcatalog: the raw of a whole stack."""
    z, y, x = STACK
    mirrors = {"https://ftp.ebi.ac.uk/empiar/world_availability/13356/data": server}
    source = entry("human_liver", mirrors, work, bbox=(0, x, 0, y, 0, z), clip=True, channels=["raw"])
    with _writes(facts, work / "mirror"):
        fetch(source, facts)


@contextmanager
def _writes(facts: dict[str, Any], folder: Path) -> Iterator[None]:
    """What the process hands to the file system, and what stands there in the end."""
    import psutil

    counters = psutil.Process().io_counters
    before = counters().write_chars
    yield
    stored = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    facts.update(written_mb=(counters().write_chars - before) / 1e6, stored_mb=stored / 1e6)


def prism(channel: int | str, server: str, work: Path, facts: dict[str, Any]) -> None:
    """emcatalog: crop 0, raw and labels."""
    fetch(entry("e11bio_prism", {"s3://e11bio-prism": server}, work, channel=channel), facts)


def wildenberg(server: str, work: Path, facts: dict[str, Any]) -> None:
    """emcatalog: image and instances."""
    x0, x1, y0, y1, z0, z1 = WILDENBERG_BOX
    bbox = (x0 * 12, x1 * 12, y0 * 12, y1 * 12, z0 * 40, z1 * 40)
    mirrors = {"https://bossdb-open-data.s3.amazonaws.com": server}
    fetch(entry("wildenberg2023", mirrors, work, bbox=bbox, channels=["raw", "saturated"]), facts)


# --- what people do today


def liver_recipe(where: str, decoder: str, server: str, work: Path, facts: dict[str, Any]) -> None:
    """requests, tifffile, imagecodecs (or Pillow for the masks), slice by slice; then Zarr."""
    import numpy as np
    import PIL.Image
    import requests  # noqa: F401  # imports are not timed
    import tifffile  # noqa: F401  # imports are not timed
    import zarr
    from imagecodecs import png_decode
    from zarr.codecs import BloscCodec

    PIL.Image.MAX_IMAGE_PIXELS = None
    decode = png_decode if decoder == "imagecodecs" else lambda body: np.asarray(PIL.Image.open(io.BytesIO(body)))
    x0, x1, y0, y1, z0, z1 = LIVER_BOXES[where]
    with timed(facts):
        volumes = {"raw": np.zeros((z1 - z0, y1 - y0, x1 - x0), "uint16")}
        volumes |= {name: np.zeros(volumes["raw"].shape, "uint8") for name in MASKS}
        for z in range(z0, z1):
            volumes["raw"][z - z0] = _liver_rows(f"{server}/humanliver_raw_images/humanliver_raw_{z:03d}.tif", y0, y1)[
                :, x0:x1
            ]
            for name in MASKS:
                body = _get(f"{server}/humanliver_{name}_mask/humanliver_{name}_mask_{z:03d}.png")
                volumes[name][z - z0] = decode(body)[y0:y1, x0:x1]
        root = zarr.open_group(work / "liver.zarr", mode="w")
        for name, voxels in volumes.items():
            shuffle = "shuffle" if name == "raw" else "bitshuffle"
            codec = BloscCodec(cname="zstd", clevel=6, shuffle=shuffle)
            root.create_array(name, shape=voxels.shape, chunks=(64, 256, 256), dtype=voxels.dtype, compressors=codec)[
                :
            ] = voxels


def stack_recipe(server: str, work: Path, facts: dict[str, Any]) -> None:
    """The same slice by slice, into shards of 64 slices: each is read and written anew for each slice."""
    import requests  # noqa: F401  # imports are not timed
    import tifffile  # noqa: F401  # imports are not timed
    import zarr
    from zarr.codecs import BloscCodec

    shutil.rmtree(work / "stack.zarr", ignore_errors=True)
    with _writes(facts, work / "stack.zarr"), timed(facts):
        root = zarr.open_group(work / "stack.zarr", mode="w")
        codec = BloscCodec(cname="zstd", clevel=6, shuffle="shuffle")
        array = root.create_array(
            "raw", shape=STACK, chunks=(8, 256, 256), shards=(64, 2048, 2048), dtype="uint16", compressors=codec
        )
        for z in range(STACK[0]):
            array[z] = _liver_rows(f"{server}/humanliver_raw_images/humanliver_raw_{z:03d}.tif", 0, STACK[1])


def _liver_rows(url: str, y0: int, y1: int) -> Any:
    """Rows of one TIFF: its header through tifffile, their strips in one request, decoded one by one."""
    import numpy as np
    import tifffile
    from imagecodecs import delta_decode, lzw_decode

    with tifffile.TiffFile(_HttpFile(url)) as file:
        page: Any = file.pages[0]
        offsets, counts, dtype = page.dataoffsets, page.databytecounts, np.dtype(page.dtype)
    start = offsets[y0]
    body = _get(url, start, offsets[y1 - 1] + counts[y1 - 1])
    strips = [body[offsets[y] - start :][: counts[y]] for y in range(y0, y1)]
    return np.stack([delta_decode(np.frombuffer(lzw_decode(strip), dtype)) for strip in strips])


def _get(url: str, start: int = 0, stop: int | None = None) -> bytes:
    import requests

    headers = {} if stop is None else {"Range": f"bytes={start}-{stop - 1}"}
    answer = requests.get(url, headers=headers, timeout=120)
    answer.raise_for_status()
    return answer.content


class _HttpFile(io.RawIOBase):
    """What tifffile reads a header from: each read is a request, as in the recipe."""

    def __init__(self, url: str) -> None:
        import requests

        self._url, self._at = url, 0
        self._size = int(requests.head(url, timeout=30).headers["Content-Length"])

    def read(self, size: int = -1) -> bytes:
        stop = self._size if size < 0 else min(self._at + size, self._size)
        body = _get(self._url, self._at, stop) if stop > self._at else b""
        self._at += len(body)
        return body

    def readinto(self, buffer: Any) -> int:
        body = self.read(len(buffer))
        buffer[: len(body)] = body
        return len(body)

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


def prism_recipe(server: str, work: Path, facts: dict[str, Any]) -> None:
    """zarr-python reads the crop whole; h5py writes the part under the labels, channel by channel, with gzip."""
    import aiohttp  # noqa: F401  # imports are not timed
    import h5py
    import numpy as np
    import zarr

    with timed(facts):
        crop = zarr.open_group(f"{server}/ls/models/training_data/instance/crop_0.zarr", mode="r", zarr_format=2)
        images: Any = crop["raw"]
        bodies: Any = crop["labels"]
        raw, labels = images[:], bodies[:]
        shift = np.subtract(bodies.attrs["offset"], images.attrs["offset"]) / images.attrs["resolution"]
        z, y, x = (slice(round(low), round(low) + side) for low, side in zip(shift, labels.shape, strict=True))
        with h5py.File(work / "crop.h5", "w", locking=False) as file:
            for index, channel in enumerate(raw[:, z, y, x]):
                file.create_dataset(f"raw/ch_{index:02d}", data=channel, compression="gzip", chunks=True)
            file.create_dataset("labels", data=labels.astype("uint32"), compression="gzip", chunks=True)


def wildenberg_recipe(server: str, work: Path, facts: dict[str, Any]) -> None:
    """cloud-volume, block by block in eight threads, into shards of zarr-python."""
    import numpy as np
    import zarr
    from cloudvolume import CloudVolume
    from zarr.codecs import BloscCodec

    x0, x1, y0, y1, z0, z1 = WILDENBERG_BOX
    shape = (z1 - z0, y1 - y0, x1 - x0)
    base = f"precomputed://{server}/wildenberg2023/mouse_v1_l4_p105"
    sources = {"raw": ("em", 1, "uint8"), "saturated": ("saturated_autoseg", 0, "uint32")}
    with timed(facts):
        root = zarr.open_group(work / "wildenberg.zarr", mode="w")
        for name, (channel, mip, dtype) in sources.items():
            volume = CloudVolume(f"{base}/{channel}", mip=mip, use_https=True, progress=False, fill_missing=True)
            codec = BloscCodec(cname="zstd", clevel=6, shuffle="shuffle" if name == "raw" else "bitshuffle")
            array = root.create_array(
                name, shape=shape, chunks=(64, 128, 128), shards=(128, 512, 512), dtype=dtype, compressors=codec
            )

            def copy(
                corner: Sequence[int], volume: Any = volume, array: Any = array, swapped: bool = name == "raw"
            ) -> None:
                z, y, x = (
                    slice(low, min(low + side, n)) for low, side, n in zip(corner, (128, 512, 512), shape, strict=True)
                )
                at_x, at_y = slice(x.start + x0, x.stop + x0), slice(y.start + y0, y.stop + y0)
                planes = (at_y, at_x) if swapped else (at_x, at_y)
                block = np.asarray(volume[(*planes, slice(z.start + z0, z.stop + z0))])[..., 0]
                array[z, y, x] = block.transpose((2, 0, 1) if swapped else (2, 1, 0))

            corners = product(*(range(0, n, side) for n, side in zip(shape, (128, 512, 512), strict=True)))
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(copy, corners))


CASES: dict[str, Callable[[str, Path, dict[str, Any]], None]] = {
    **{f"liver {where}": partial(liver, where) for where in LIVER_BOXES},
    **{
        f"liver {where}, requests + {decoder}": partial(liver_recipe, where, decoder)
        for where in LIVER_BOXES
        for decoder in ("imagecodecs", "Pillow")
    },
    "stack": stack,
    "stack, slice by slice": stack_recipe,
    "prism all channels": partial(prism, "all"),
    "prism one channel": partial(prism, 0),
    "prism all channels, zarr + h5py": prism_recipe,
    "wildenberg": wildenberg,
    "wildenberg, cloud-volume + zarr": wildenberg_recipe,
}


# --- replicas


def _made(name: str, done: str, *command: object) -> Path:
    folder = data_folder() / name
    if not (folder / done).exists():
        console.print(f"making a replica in {folder} ...")
        subprocess.run([sys.executable, *map(str, command), str(folder)], cwd=REPOSITORY, check=True)
    return folder


def _liver_replica() -> Path:
    size = ("--slices", 16, "--rows", 20000, "--columns", 20000, "--distinct", 2)
    return _made("liver", "humanliver_nucleus_mask/humanliver_nucleus_mask_015.png", "-m", "tests.replica.ebi", *size)


def _stack_replica() -> Path:
    z, y, x = STACK
    size = ("--slices", z, "--rows", y, "--columns", x, "--distinct", 8)
    return _made(
        "stack", f"humanliver_nucleus_mask/humanliver_nucleus_mask_{z - 1:03d}.png", "-m", "tests.replica.ebi", *size
    )


def _prism_replica() -> Path:
    crop = "ls/models/training_data/instance/crop_0.zarr/labels/7.7.3"
    return _made("prism", crop, "-m", "tests.replica.prism")


def _wildenberg_replica() -> Path:
    x0, x1, y0, y1, z0, z1 = WILDENBERG_BOX
    script = (
        "import sys; from tests.replica.bossdb import build_wildenberg;"
        f" build_wildenberg(sys.argv[1], 'p105', (({z0}, {z1}), ({y0}, {y1}), ({x0}, {x1})))"
    )
    return _made("wildenberg", "wildenberg2023/mouse_v1_l4_p105/saturated_autoseg/info", "-c", script)


# --- runs


@contextmanager
def _served(folder: Path, latency_ms: float) -> Iterator[Callable[[str], Measurement]]:
    work = data_folder() / "work-entries"
    work.mkdir(exist_ok=True)
    with serve_process(folder, latency_ms=latency_ms) as server:
        yield partial(_counted, server, work)


def _counted(server: ServerProcess, work: Path, case: str) -> Measurement:
    server.clear()
    measured = run_case(MODULE, case, "--server", server.url, "--work", work)
    measured.facts.update(requests=server.count(), received_mb=server.bytes() / 1e6)
    return measured


def _run(title: str, folder: Path, cases: Sequence[str], repeats: int, latency_ms: float = 0) -> dict[str, Summary]:
    with _served(folder, latency_ms) as run:
        summaries = medians({case: partial(run, case) for case in cases}, repeats)
    print_times(title, summaries)
    return summaries


def _run_liver(repeats: int) -> list[Target]:
    folder, rows = _liver_replica(), []
    for where in LIVER_BOXES:
        ours, peer, pillow = (
            f"liver {where}{rest}" for rest in ("", ", requests + imagecodecs", ", requests + Pillow")
        )
        peers = [peer, pillow] if where == "top" else [peer]
        near = _run(f"human_liver, {where}: 512 x 512 x 16, raw + 3 masks", folder, [ours, *peers], repeats)
        far = _run(f"The same with {LATENCY_MS} ms", folder, [ours, peer], repeats, LATENCY_MS)
        rows += [
            ratio(f"liver, {where}: times faster", near[peer].seconds / near[ours].seconds, 4),
            ratio(f"liver, {where}, {LATENCY_MS} ms: times faster", far[peer].seconds / far[ours].seconds, 8),
            at_most(f"liver, {where}: peak MB", near[ours].peak_mb, PEAK_MB),
        ]
    return rows


def _run_stack(repeats: int) -> list[Target]:
    ours, peer = "stack", "stack, slice by slice"
    z, y, x = STACK
    runs = _run(f"A whole stack of {z} x {y} x {x}, raw", _stack_replica(), [ours, peer], repeats)
    rows = [[name, f"{s.facts['written_mb']:.0f}", f"{s.facts['stored_mb']:.0f}"] for name, s in runs.items()]
    table("Bytes written and stored", ["case", "MB written", "MB stored"], rows)
    facts = runs[ours].facts
    return [
        (
            "stack: bytes written for a byte stored",
            f"{facts['written_mb'] / facts['stored_mb']:.2f}",
            "at most 1.1",
            facts["written_mb"] <= 1.1 * facts["stored_mb"],
        ),
        at_most("stack: peak MB", runs[ours].peak_mb, PEAK_MB),
    ]


def _run_prism(repeats: int) -> list[Target]:
    ours, one, peer = "prism all channels", "prism one channel", "prism all channels, zarr + h5py"
    runs = _run("e11bio_prism, crop 0 of its true size, raw + labels", _prism_replica(), [ours, one, peer], repeats)
    return [
        ratio("prism, all channels: times faster", runs[peer].seconds / runs[ours].seconds, 3),
        at_most("prism, all channels: peak MB", runs[ours].peak_mb, PEAK_MB),
    ]


def _run_wildenberg(repeats: int) -> list[Target]:
    ours, peer = "wildenberg", "wildenberg, cloud-volume + zarr"
    runs = _run("wildenberg2023, 512 x 512 x 64, raw + saturated", _wildenberg_replica(), [ours, peer], repeats)
    return [
        ratio("wildenberg: times faster", runs[peer].seconds / runs[ours].seconds, 3),
        at_most("wildenberg: peak MB", runs[ours].peak_mb, PEAK_MB),
    ]


QUESTIONS = {"liver": _run_liver, "stack": _run_stack, "prism": _run_prism, "wildenberg": _run_wildenberg}


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=QUESTIONS, default=list(QUESTIONS))
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--server", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        facts: dict[str, Any] = {}
        CASES[arguments.case](arguments.server, arguments.work, facts)
        report(facts)
        return
    print_targets([row for name in arguments.only for row in QUESTIONS[name](arguments.repeats)])


if __name__ == "__main__":
    main()
