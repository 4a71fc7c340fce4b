"""Every stored form, at every place, is the same volume: one suite. A new form is one more `Form` in `FORMS`."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore as ts
import tifffile
from PIL import Image

from emcatalog.cutout import Cutout
from emcatalog.cutout_opening import open_cutout
from emcatalog.dataset import LazyChannel
from emcatalog.entries.volume import VolumeArguments
from emcatalog.errors import OutOfBoundsError, SourceMissingError
from emcatalog.formats.opening import describe_volume, open_volume
from emcatalog.formats.volume import ArraySpec, Volume
from emcatalog.geometry import Box, Grid, Index, zyx
from emcatalog.settings import load_settings
from emcatalog.stores import is_absent
from tests.conftest import channel
from tests.replica.gcs import serve_gcs
from tests.replica.precomputed import build_precomputed
from tests.replica.s3 import serve_s3
from tests.replica.server import Server, serve
from tests.replica.stored import Array

SHAPE = (9, 21, 18)
CHUNK = (4, 8, 6)
CHANNELS = 3
SIZE = (40.0, 5.0, 4.0)
MISSING = ((1, 0, 2), (2, 2, 0))
"""Chunks that the source lacks, counted along the axes."""
FILL = 200
"""Background of some; no voxel is."""
ORIGIN = (80.0, 15.0, 8.0)
XYZ = ["x", "y", "z"]
LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}

Build = Callable[[Path, Array, Collection[Index]], None]
"""Writes a volume to a folder: voxels (z, y, x) or (c, z, y, x), without the chunks at these places."""


@dataclass(frozen=True)
class Form:
    """One stored form, and what its reader must say of `voxels`."""

    prefix: str
    build: Build
    encoding: str
    dtype: str = "uint8"
    scales: Mapping[str, Grid] = field(default_factory=lambda: {"{name}": Grid(SHAPE, SIZE)})
    """Finest first, by key; ``{name}`` is that of the folder."""
    chunk: Index = CHUNK
    channels: int | None = None
    missing: Collection[Index] = MISSING
    background: int = 0
    suffix: str = ""
    """Of the address, behind the folder: a stack's ``/{z:03d}.tif``."""
    keys: Mapping[str, Any] = field(default_factory=dict)
    """What an entry has to say of it besides: a stack's ``shape``."""

    @property
    def voxels(self) -> Array:
        """What is put in: no two axes alike, none of them background."""
        shape = SHAPE if self.channels is None else (self.channels, *SHAPE)
        return np.random.default_rng(3).integers(1, 100, shape).astype(self.dtype)

    @property
    def expected(self) -> Array:
        """What is read."""
        voxels = self.voxels
        for cell in self.missing:
            voxels[self.cell(cell)] = self.background
        return voxels

    def cell(self, cell: Index) -> tuple[slice, ...]:
        """The voxels of one chunk."""
        return tuple(slice(i * side, (i + 1) * side) for i, side in zip(cell, self.chunk, strict=True))

    @property
    def cells(self) -> int:
        """How many chunks there are."""
        return Box((0,) * len(self.chunk), self.voxels.shape).cells(self.chunk)


# --- builders


def fill_array(spec: Mapping[str, Any], folder: Path, voxels: Array, chunk: Index, missing: Collection[Index]) -> None:
    """Create an array with axes as in `voxels` by TensorStore, and write all chunks but some."""
    kvstore = {"driver": "file", "path": f"{folder}/"}
    store = ts.open({**spec, "kvstore": kvstore, "context": {"file_io_sync": False}}, create=True).result()
    store = store.T if spec["driver"] == "n5" else store
    with ts.Transaction() as transaction:
        for box in Box((0,) * voxels.ndim, voxels.shape).split(chunk):
            if tuple(a // side for a, side in zip(box.begin, chunk, strict=True)) not in missing:
                store.with_transaction(transaction)[box.slices].write(voxels[box.slices]).result()


def add(path: Path, **keys: Any) -> None:
    """Write a JSON document, or add to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **keys}))


def precomputed(folder: Path, voxels: Array, missing: Collection[Index], sharding: Any = None) -> None:
    form = {"chunk": CHUNK[::-1], "voxel_offset": (2, 3, 2), "resolution": SIZE[::-1]}
    build_precomputed(folder, voxels, sharding=sharding, missing_chunks=[zyx(place) for place in missing], **form)


def n5(folder: Path, voxels: Array, missing: Collection[Index]) -> None:
    for path, block, gone in (("s0", voxels, missing), ("s1", voxels[:, ::2, ::2], ())):
        metadata = {"dimensions": block.shape[::-1], "blockSize": CHUNK[::-1], "dataType": block.dtype.name}
        spec = {"driver": "n5", "metadata": {**metadata, "compression": {"type": "gzip"}}}
        fill_array(spec, folder / path, block, CHUNK, gone)
    lengths = {"dimensions": SIZE[::-1], "unit": "nm"}
    add(folder / "attributes.json", axes=XYZ, pixelResolution=lengths, scales=[[1, 1, 1], [2, 2, 1]])


def zarr2_array(folder: Path, voxels: Array, chunk: Index, missing: Collection[Index], fill: int) -> None:
    metadata = {"shape": voxels.shape, "chunks": chunk, "dtype": voxels.dtype.str, "fill_value": fill}
    fill_array({"driver": "zarr", "metadata": metadata}, folder, voxels, chunk, missing)


def zarr2(folder: Path, voxels: Array, missing: Collection[Index], chunk: Index = CHUNK, fill: int = 0) -> None:
    zarr2_array(folder, voxels, chunk, missing, fill)
    add(folder / ".zattrs", resolution=SIZE, offset=ORIGIN)


def zarr3_array(folder: Path, voxels: Array, missing: Collection[Index], fill: int, shard: Index | None) -> None:
    codecs: list[dict[str, Any]] = [LITTLE, {"name": "zstd", "configuration": {"level": 1, "checksum": False}}]
    if shard is not None:
        inside = {"chunk_shape": CHUNK, "codecs": codecs, "index_codecs": [LITTLE, {"name": "crc32c"}]}
        codecs = [{"name": "sharding_indexed", "configuration": inside}]
    grid = {"name": "regular", "configuration": {"chunk_shape": shard or CHUNK}}
    metadata = {"shape": voxels.shape, "data_type": voxels.dtype.name, "chunk_grid": grid, "codecs": codecs}
    fill_array({"driver": "zarr3", "metadata": {**metadata, "fill_value": fill}}, folder, voxels, CHUNK, missing)


def zarr3(folder: Path, voxels: Array, missing: Collection[Index], fill: int = 0, shard: Index | None = None) -> None:
    zarr3_array(folder, voxels, missing, fill, shard)
    add(folder / "zarr.json", attributes={"voxel_size": SIZE, "offset": ORIGIN, "units": ["nm"] * 3})


def ome_image(paths: Sequence[str]) -> dict[str, Any]:
    """Metadata of two scales."""
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
    places = (((0.04, 0.005, 0.004), (0.1, 0.0175, 0.01)), ((0.04, 0.01, 0.008), (0.1, 0.02, 0.012)))
    steps = [[{"type": "scale", "scale": s}, {"type": "translation", "translation": t}] for s, t in places]
    datasets = [{"path": path, "coordinateTransformations": step} for path, step in zip(paths, steps, strict=True)]
    return {"multiscales": [{"version": "0.4", "axes": axes, "datasets": datasets}]}


def ome_zarr_04(folder: Path, voxels: Array, missing: Collection[Index]) -> None:
    zarr2_array(folder / "0", voxels, CHUNK, missing, 0)
    zarr2_array(folder / "1", voxels[:, ::2, ::2], CHUNK, (), 0)
    add(folder / ".zgroup", zarr_format=2)
    add(folder / ".zattrs", **ome_image(["0", "1"]))


def ome_zarr_05(folder: Path, voxels: Array, missing: Collection[Index]) -> None:
    zarr3_array(folder / "s0", voxels, missing, FILL, (8, 16, 18))
    zarr3_array(folder / "s1", voxels[:, ::2, ::2], (), FILL, None)
    attributes = {"ome": {"version": "0.5", **ome_image(["s0", "s1"])}}
    add(folder / "zarr.json", zarr_format=3, node_type="group", attributes=attributes)


def tiff_stack(folder: Path, voxels: Array, _missing: Collection[Index], **form: Any) -> None:
    folder.mkdir(parents=True)
    for z, plane in enumerate(voxels):
        tifffile.imwrite(folder / f"{z:03d}.tif", plane, **form)


def png_stack(folder: Path, voxels: Array, _missing: Collection[Index]) -> None:
    folder.mkdir(parents=True)
    for z, plane in enumerate(voxels):
        Image.fromarray(plane).save(folder / f"{z:03d}.png")


PLACED = {"{name}": Grid(SHAPE, SIZE, origin_nm=ORIGIN)}
COARSE = ((9, 11, 9), (40.0, 10.0, 8.0))
PRECOMPUTED = {"4_5_40": Grid(SHAPE, SIZE, offset=(2, 3, 2))}
STACK: dict[str, Any] = {
    "scales": {"s0": Grid(SHAPE, SIZE)},
    "missing": (),
    "keys": {"shape": SHAPE[::-1], "voxel_size": SIZE[::-1]},
}
WITH_CHANNELS = ((0, 1, 0, 2), (1, 2, 2, 0))

FORMS = {
    "precomputed": Form("precomputed", precomputed, "raw", "uint16", PRECOMPUTED),
    "precomputed-sharded": Form("precomputed", partial(precomputed, sharding={}), "raw", "uint8", PRECOMPUTED),
    "n5": Form("n5", n5, "gzip", "int16", {"s0": Grid(SHAPE, SIZE), "s1": Grid(*COARSE)}),
    "zarr2": Form("zarr", partial(zarr2, fill=FILL), "blosc", "uint64", PLACED, background=FILL),
    "zarr2-channels": Form(
        "zarr", partial(zarr2, chunk=(2, *CHUNK)), "blosc", "uint8", PLACED, (2, *CHUNK), CHANNELS, WITH_CHANNELS
    ),
    "zarr3": Form("zarr", zarr3, "zstd", "float32", PLACED),
    "zarr3-sharded": Form(
        "zarr", partial(zarr3, fill=FILL, shard=(4, 16, 12)), "zstd", "uint32", PLACED, background=FILL
    ),
    "ome-zarr-0.4": Form(
        "zarr", ome_zarr_04, "blosc", "int8", {"0": PLACED["{name}"], "1": Grid(*COARSE, origin_nm=ORIGIN)}
    ),
    "ome-zarr-0.5": Form(
        "zarr",
        ome_zarr_05,
        "zstd",
        "uint8",
        {"s0": PLACED["{name}"], "s1": Grid(*COARSE, origin_nm=ORIGIN)},
        background=FILL,
    ),
    "tiff-strips": Form(
        "tiff",
        partial(tiff_stack, compression="lzw", predictor=2, rowsperstrip=1),
        "tiff lzw, predictor 2, strips of 1 row",
        "uint16",
        chunk=(1, 64, 18),
        suffix="/{z:03d}.tif",
        **STACK,
    ),
    "tiff-tiles": Form(
        "tiff",
        partial(tiff_stack, compression="zlib", tile=(16, 16), bigtiff=True),
        "tiff zlib, tiles of 16 x 16",
        chunk=(1, 16, 16),
        suffix="/{z:03d}.tif",
        **STACK,
    ),
    "png": Form("png", png_stack, "png stack", chunk=(1, 128, 18), suffix="/{z:03d}.png", **STACK),
}
"""A slice that is missing from a stack is an error and not background, so that stacks lack nothing here."""

PLACES = ("file", "http", "s3", "gs")

BOXES = {
    "inside a chunk": Box((5, 9, 7), (7, 12, 11)),
    "across chunks": Box((1, 3, 2), (9, 18, 17)),
    "at the first corner": Box((0, 0, 0), (2, 1, 3)),
    "at the last corner": Box((8, 16, 12), SHAPE),
    "over a missing chunk": Box((3, 2, 10), (6, 9, 18)),
    "all": Box((0, 0, 0), SHAPE),
}
"""Counted from the first voxel."""


# --- places


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a volume of every form."""
    folder = tmp_path_factory.mktemp("conformance") / "bucket"
    for name, form in FORMS.items():
        form.build(folder / name, form.voxels, form.missing)
    return folder


@pytest.fixture(scope="module")
def http(bucket: Path) -> Iterator[Server]:
    with serve(bucket.parent) as server:
        yield server


@pytest.fixture(scope="module")
def s3(bucket: Path) -> Iterator[str]:
    with serve_s3() as service:
        service.upload(bucket, bucket.name)
        yield service.url


@pytest.fixture(scope="module")
def gcs(bucket: Path) -> Iterator[str]:
    with serve_gcs(bucket.parent) as server:
        yield server.url


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[ProcessPoolExecutor]:
    """A process that shares nothing with this one."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        yield pool


@dataclass(frozen=True)
class Source:
    """A volume of some form at some place."""

    form: Form
    name: str
    url: str

    def describe(self) -> tuple[ArraySpec, ...]:
        return describe_volume(channel(self.url, self.form.dtype, **self.form.keys), load_settings()).scales

    def open(self) -> Volume:
        model = channel(self.url, self.form.dtype, **self.form.keys)
        return open_volume(model, self.describe()[0], load_settings())

    def cut(self, box: Box | None = None, **arguments: Any) -> Cutout:
        """A box, counted from the first voxel, as an entry of a catalog reads it."""
        x, y, z = reversed(SIZE)
        declared = {"url": self.url, "kind": "image", "dtype": self.form.dtype, "voxel_size": [x, y, z]}
        if box is not None:
            arguments |= {"bbox": self.nm(box), "units": "nm"}
        volumes = {"raw": {**declared, "source": "a test", **self.form.keys}}
        return open_cutout(VolumeArguments.norm({"volumes": volumes, "voxel_size": [x, y, z], **arguments}))

    def nm(self, box: Box) -> list[float]:
        """The box as a user writes it in nm."""
        grid = next(iter(self.form.scales.values()))
        space = grid.to_nm(box.translate(grid.offset))
        pairs = zip(reversed(space.begin_nm), reversed(space.end_nm), strict=True)
        return [edge for pair in pairs for edge in pair]

    def part(self, box: Box) -> Array:
        """What a box, counted from the first voxel, holds."""
        return self.form.expected[(..., *box.slices)]


@pytest.fixture(params=FORMS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=PLACES)
def source(
    request: pytest.FixtureRequest, name: str, bucket: Path, settings: None, monkeypatch: pytest.MonkeyPatch
) -> Source:
    match request.param:
        case "file":
            url = f"file://{bucket}"
        case "http":
            url = f"{request.getfixturevalue('http').url}/{bucket.name}"
        case "s3":
            url = f"s3://{bucket.name}"
            monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("s3"))
        case _:
            url = f"gs://{bucket.name}"
            mirrors = {url: f"{request.getfixturevalue('gcs')}/{bucket.name}"}
            monkeypatch.setenv("EMCATALOG_MIRRORS", json.dumps(mirrors))
    form = FORMS[name]
    return Source(form, name, f"{form.prefix}://{url}/{name}{form.suffix}")


def read(store: ts.TensorStore, spec: ArraySpec, box: Box) -> Array:
    """A box, counted from the first voxel, of all channels."""
    voxels: Array = store[(..., *box.translate(spec.grid.offset).slices)].read().result()
    return voxels


# --- what holds for all


def test_description(source: Source) -> None:
    form, scales = source.form, source.describe()
    expected = {key.format(name=source.name): grid for key, grid in form.scales.items()}
    assert {scale.key: scale.grid for scale in scales} == expected
    assert (scales[0].dtype, scales[0].chunk, scales[0].encoding) == (form.dtype, form.chunk, form.encoding)
    assert scales[0].num_channels == form.channels


def test_voxels(source: Source) -> None:
    volume = source.open()
    for box in BOXES.values():
        np.testing.assert_array_equal(read(volume.lenient, volume.spec, box), source.part(box))
    whole = BOXES["inside a chunk"]
    np.testing.assert_array_equal(read(volume.strict, volume.spec, whole), source.part(whole))


def test_absent_chunks(source: Source) -> None:
    volume = source.open()
    if not source.form.missing:
        np.testing.assert_array_equal(read(volume.strict, volume.spec, BOXES["all"]), source.form.expected)
        return
    if volume.holds is not None:
        assert [volume.holds(box) for box in chunks(volume.spec)].count(False) == len(source.form.missing)
        return
    with pytest.raises(ValueError, match="NOT_FOUND") as caught:
        read(volume.strict, volume.spec, BOXES["over a missing chunk"])
    assert is_absent(caught.value)


def chunks(spec: ArraySpec) -> Iterator[Box]:
    """Every chunk, in the source's voxels."""
    for box in Box((0,) * len(spec.shape), spec.shape).split(spec.chunk):
        yield box.translate(spec.offset)


def test_outside(source: Source) -> None:
    volume = source.open()
    for store in (volume.strict, volume.lenient):
        for axis in range(store.ndim):
            begin, end = store.domain[axis].inclusive_min, store.domain[axis].exclusive_max
            for outside in (slice(begin - 1, end), slice(begin, end + 1), slice(end, end + 1)):
                with pytest.raises(IndexError, match="OUT_OF_RANGE"):
                    store[(slice(None),) * axis + (outside,)]


def test_a_box_outside(source: Source) -> None:
    for box in (Box((0, 0, 0), (10, 2, 2)), Box((-1, 0, 0), (2, 2, 2)), Box((0, 21, 0), (1, 22, 1))):
        with pytest.raises(OutOfBoundsError, match="outside what the channels raw cover"):
            source.cut(box)


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
def test_cutout(source: Source, box: Box) -> None:
    np.testing.assert_array_equal(source.cut(box).read()["raw"], source.part(box))


def test_fetched_and_absent(source: Source) -> None:
    form = source.form
    report = source.cut().fetch()
    assert (report.fetched, report.absent) == (form.cells, len(form.missing))
    again = source.cut()
    assert (again.fetch().fetched, again.fetch().reused) == (0, form.cells)
    np.testing.assert_array_equal(again.read()["raw"], form.expected)


def test_nothing_there(source: Source) -> None:
    gone = Source(source.form, source.name, source.url.replace(f"/{source.name}", "/none"))
    with pytest.raises(SourceMissingError) as caught:
        gone.describe()
    assert gone.url.split("{")[0] in str(caught.value)


def read_there(pickled: bytes, environment: Mapping[str, str]) -> Array:
    """Read all of what was sent, in another process."""
    os.environ.update(environment)
    lazy: LazyChannel = pickle.loads(pickled)
    return lazy[(slice(None),) * lazy.ndim]


def test_pickled(source: Source, elsewhere: ProcessPoolExecutor) -> None:
    cutout = source.cut()
    cutout.at(BOXES["inside a chunk"].translate(cutout.box.begin)).read()
    environment = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "EMCATALOG_"))}
    there = elsewhere.submit(read_there, pickle.dumps(LazyChannel(cutout, "raw")), environment)
    np.testing.assert_array_equal(there.result(), source.form.expected)


@pytest.mark.parametrize("source", ["http"], indirect=True)
def test_warm_read(source: Source, http: Server) -> None:
    cold = source.cut(BOXES["across chunks"]).read()["raw"]
    http.clear()
    warm = source.cut(BOXES["across chunks"]).read()["raw"]
    assert http.requests == []
    np.testing.assert_array_equal(warm, cold)
