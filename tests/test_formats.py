"""Every stored form gives the same volume: one set of tests for all encodings, sharded or not, on disk or on HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore as ts

from emcatalog.cutout import Cutout
from emcatalog.errors import (
    SourceChangedError,
    SourceCorruptError,
    SourceDeniedError,
    SourceError,
    SourceMissingError,
    SourceUnavailableError,
)
from emcatalog.formats.opening import describe_volume, open_volume
from emcatalog.formats.sharded import morton_code
from emcatalog.formats.volume import Volume, VolumeSpec
from emcatalog.geometry import Box, Grid
from emcatalog.mirror.cache import Cache
from emcatalog.mirror.inventory import list_mirrors
from emcatalog.settings import load_settings
from emcatalog.stores import is_absent
from tests import conftest
from tests.conftest import channel
from tests.replica.precomputed import build_precomputed
from tests.replica.server import serve
from tests.replica.stored import Array, Chunk, Scale, morton

SHAPE = (20, 45, 37)
CHUNK_XYZ = (16, 32, 8)
OFFSET_XYZ = (3, 5, 7)
RESOLUTION_XYZ = (3.58, 4, 40.5)
GRID = Grid(SHAPE, (40.5, 4.0, 3.58), (7, 5, 3))
CHUNKS = 3 * 2 * 3
GONE: Chunk = (1, 0, 2)
"""A chunk that a source may lack."""

FORMS = [
    *(("raw", dtype) for dtype in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "float32")),
    ("jpeg", "uint8"),
    ("png", "uint8"),
    ("png", "uint16"),
    ("compressed_segmentation", "uint32"),
    ("compressed_segmentation", "uint64"),
    ("jxl", "uint8"),
    *(("crackle", dtype) for dtype in ("uint8", "uint16", "uint32", "uint64")),
    *(("compresso", dtype) for dtype in ("uint8", "uint16", "uint32", "uint64")),
    ("fpzip", "float32"),
    ("kempressed", "float32"),
]
ENCODINGS = list(dict(reversed(FORMS)).items())
"""One form of each encoding."""
LOSSY = {"jpeg": 16, "jxl": 16, "kempressed": 1e-4}
"""Most that a voxel may differ from what was put in; kempressed rounds when it adds 2."""
SHARDINGS: dict[str, Mapping[str, Any] | None] = {
    "unsharded": None,
    "sharded": {},
    "sharded, gzip": {"data_encoding": "gzip", "minishard_index_encoding": "raw", "preshift_bits": 0, "shard_bits": 2},
}


def tissue(dtype: str, shape: tuple[int, int, int] = SHAPE) -> Array:
    """Voxels (z, y, x) without symmetry: a smooth image, or labels with large ids and background."""
    z, y, x = np.ogrid[tuple(slice(side) for side in shape)]
    image = 128 + 60 * np.sin(x / 9 + 1) * np.cos(y / 7) + 40 * np.sin(z / 5)
    if dtype in ("uint32", "uint64"):
        cells = (x // 7) * 31 + (y // 5) * 17 + (z // 3)
        ids = (cells % 50).astype(dtype)
        voxels: Array = ids * np.asarray(2**26 + 1 if dtype == "uint32" else 2**40 + 1, dtype)
        return voxels
    grey: Array = (image / 2 if dtype == "int8" else image).astype(dtype)
    return grey


def cut(url: str, dtype: str, **arguments: Any) -> Cutout:
    return conftest.cut(url, dtype, RESOLUTION_XYZ, **arguments)


def describe(url: str) -> VolumeSpec:
    return describe_volume(channel(f"precomputed://{url}"), load_settings())


def open_scale(url: str) -> Volume:
    """The only scale of a volume."""
    (spec,) = describe(url).scales
    return open_volume(channel(f"precomputed://{url}"), spec, load_settings())


def chunk_box(scale: Scale, chunk: Chunk) -> Box:
    """The voxels of a stored chunk, as the package counts them."""
    (z0, z1), (y0, y1), (x0, x1) = scale.chunk_box(chunk)
    return Box((z0, y0, x0), (z1, y1, x1))


def read(store: ts.TensorStore, box: Box = GRID.extent) -> Array:
    voxels: Array = store[box.slices].read().result()
    return voxels


@dataclass(frozen=True)
class Source:
    """A volume that was built for a test."""

    scale: Scale
    voxels: Array
    url: str


@dataclass(frozen=True)
class Builder:
    """Builds volumes, and serves them if that is asked for."""

    folder: Path
    served: ExitStack

    def __call__(
        self, encoding: str, dtype: str, sharding: Mapping[str, Any] | None, *, http: bool = False, **options: Any
    ) -> Source:
        """A volume of `SHAPE`."""
        where = self.folder / "volume"
        voxels = options.pop("voxels", tissue(dtype))
        form = {"chunk": CHUNK_XYZ, "voxel_offset": OFFSET_XYZ, "resolution": RESOLUTION_XYZ, **options}
        scale = build_precomputed(where, voxels, encoding=encoding, sharding=sharding, **form)
        base = self.served.enter_context(serve(self.folder)).url if http else f"file://{self.folder}"
        return Source(scale, voxels, f"{base}/volume")


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Builder]:
    with ExitStack() as served:
        yield Builder(tmp_path / "sources", served)


each_form = pytest.mark.parametrize(("encoding", "dtype"), FORMS, ids=lambda part: str(part))
each_encoding = pytest.mark.parametrize(("encoding", "dtype"), ENCODINGS, ids=lambda part: str(part))
each_sharding = pytest.mark.parametrize("sharding", SHARDINGS.values(), ids=SHARDINGS)


class TestConformance:
    """What holds for every stored form."""

    @each_form
    @each_sharding
    def test_voxels(self, build: Builder, encoding: str, dtype: str, sharding: Mapping[str, Any] | None) -> None:
        source = build(encoding, dtype, sharding)
        volume = open_scale(source.url)
        stored = source.scale.read(source.scale.extent)
        for store in (volume.strict, volume.lenient):
            np.testing.assert_array_equal(read(store), stored)
            part = Box((9, 11, 13), (21, 40, 35))
            z, y, x = GRID.offset
            np.testing.assert_array_equal(read(store, part), stored[part.translate((-z, -y, -x)).slices])
        error = np.abs(stored.astype(np.float64) - source.voxels.astype(np.float64)).max()
        assert error <= LOSSY.get(encoding, 0)

    @each_encoding
    @each_sharding
    def test_voxels_over_http(
        self, build: Builder, encoding: str, dtype: str, sharding: Mapping[str, Any] | None
    ) -> None:
        source = build(encoding, dtype, sharding, http=True)
        np.testing.assert_array_equal(read(open_scale(source.url).strict), source.scale.read(source.scale.extent))

    @each_form
    def test_description(self, build: Builder, encoding: str, dtype: str) -> None:
        (spec,) = describe(build(encoding, dtype, {}).url).scales
        assert (spec.encoding, spec.dtype, spec.key) == (encoding, dtype, "3.58_4_40.5")
        assert spec.grid == GRID
        assert spec.chunk == (8, 32, 16)

    @each_encoding
    @each_sharding
    def test_missing_chunk(self, build: Builder, encoding: str, dtype: str, sharding: Mapping[str, Any] | None) -> None:
        source = build(encoding, dtype, sharding, missing_chunks=[GONE])
        volume = open_scale(source.url)
        np.testing.assert_array_equal(read(volume.lenient), source.scale.read(source.scale.extent))
        gone, there = chunk_box(source.scale, GONE), chunk_box(source.scale, (0, 0, 0))
        assert not read(volume.lenient, gone).any()
        assert has_chunk(volume, there)
        assert not has_chunk(volume, gone)

    @each_encoding
    @each_sharding
    @pytest.mark.parametrize("http", [False, True], ids=["file", "http"])
    def test_missing_chunks_are_background_and_counted(
        self, build: Builder, encoding: str, dtype: str, sharding: Mapping[str, Any] | None, http: bool
    ) -> None:
        voxels = tissue(dtype)
        voxels[:8, :32, :16] = 0  # a chunk of zeros that is there is not an absent one
        missing = [GONE, (2, 1, 2), (0, 1, 0)]
        source = build(encoding, dtype, sharding, http=http, voxels=voxels, missing_chunks=missing)
        report = cut(source.url, dtype).fetch()
        assert (report.fetched, report.absent) == (CHUNKS, len(missing))
        again = cut(source.url, dtype)
        assert (again.fetch().reused, again.fetch().fetched) == (CHUNKS, 0)
        np.testing.assert_array_equal(again.read()["raw"], source.scale.read(source.scale.extent))

    @each_encoding
    @each_sharding
    @pytest.mark.parametrize("content", [b"garbage", b""], ids=["garbage", "empty"])
    def test_a_chunk_that_does_not_decode(
        self, build: Builder, encoding: str, dtype: str, sharding: Mapping[str, Any] | None, content: bytes
    ) -> None:
        source = build(encoding, dtype, sharding)
        source.scale.replace_encoded(GONE, content)
        with pytest.raises(SourceCorruptError) as caught:
            cut(source.url, dtype).read()
        assert source.url in str(caught.value)
        assert "does not decode" in str(caught.value)
        box = chunk_box(source.scale, GONE)
        beside = cut(source.url, dtype, bbox=nm(chunk_box(source.scale, (0, 0, 0))), units="nm")
        assert beside.read()["raw"].any()
        bad = cut(source.url, dtype, bbox=nm(box), units="nm")
        assert bad.plan().missing == 1, "what failed is not in the mirror"

    @each_encoding
    @pytest.mark.parametrize("kind", ["garbage", "flip"])
    def test_what_a_broken_network_sends(self, build: Builder, encoding: str, dtype: str, kind: Any) -> None:
        source = build(encoding, dtype, {})
        with serve(source.scale.folder) as server:
            server.corrupt("*.shard", kind=kind)
            with pytest.raises(SourceError, match=server.url):
                cut(server.url, dtype).read()
            server.heal()
            cutout = cut(server.url, dtype)
            np.testing.assert_array_equal(cutout.read()["raw"], source.scale.read(source.scale.extent))

    @each_encoding
    def test_compressed_objects(self, build: Builder, encoding: str, dtype: str) -> None:
        source = build(encoding, dtype, None, http=True, gzipped=True)
        np.testing.assert_array_equal(read(open_scale(source.url).lenient), source.scale.read(source.scale.extent))

    @each_encoding
    def test_many_chunks_are_asked_for_at_once(self, build: Builder, encoding: str, dtype: str) -> None:
        source = build(encoding, dtype, None)
        with serve(source.scale.folder, latency_s=0.1) as server:
            cut(server.url, dtype).fetch()
        assert server.peak > 4  # one at a time, or one for each core, would not do

    @each_sharding
    def test_sparse_volume(self, build: Builder, sharding: Mapping[str, Any] | None) -> None:
        """Nothing but one chunk: whole shards, and whole minishards of the last one, are not there."""
        kept = (2, 1, 2)
        missing = [chunk for chunk in np.ndindex(3, 2, 3) if chunk != kept]
        source = build("raw", "uint8", sharding, missing_chunks=missing)
        for path in (source.scale.folder / source.scale.meta["key"]).glob("*.shard"):
            if not any(path.read_bytes()[: 16 << source.scale.meta["sharding"]["minishard_bits"]]):
                path.unlink()
        cutout = cut(source.url, "uint8")
        assert cutout.fetch().absent == CHUNKS - 1
        np.testing.assert_array_equal(cutout.read()["raw"], source.scale.read(source.scale.extent))


def has_chunk(volume: Volume, box: Box) -> bool:
    """Whether the source has a chunk, by whichever way its form can tell."""
    if volume.holds is not None:
        return volume.holds(box)
    try:
        read(volume.strict, box)
    except ValueError as error:
        if not is_absent(error):
            raise
        return False
    return True


def nm(box: Box) -> list[float]:
    """A box of voxels as six numbers in nm."""
    space = GRID.to_nm(box)
    pairs = zip(reversed(space.begin_nm), reversed(space.end_nm), strict=True)
    return [edge for pair in pairs for edge in pair]


@pytest.mark.parametrize("cells", [(1, 1, 1), (3, 2, 3), (1, 4, 9), (5, 1, 2), (16, 8, 4)])
def test_morton_code(cells: Chunk) -> None:
    codes = {cell: morton_code(cell, cells) for cell in np.ndindex(cells)}
    assert codes == {cell: morton(cell, cells) for cell in codes}
    assert len(set(codes.values())) == len(codes)


class TestInfo:
    """The description of a volume, and what may be wrong with it."""

    def with_info(self, build: Builder, change: Mapping[str, Any], scale: Mapping[str, Any] | None = None) -> str:
        """The URL of a volume whose info was changed."""
        source = build("raw", "uint8", None)
        info = {**source.scale.info, **change}
        if scale is not None:
            info["scales"] = [{**source.scale.meta, **scale}]
        (source.scale.folder / "info").write_text(json.dumps(info))
        return source.url

    @pytest.mark.parametrize("http", [False, True], ids=["file", "http"])
    def test_nothing_there(self, build: Builder, http: bool) -> None:
        url = build("raw", "uint8", None, http=http).url + "s"
        with pytest.raises(SourceMissingError, match=url) as caught:
            describe(url)
        assert isinstance(caught.value, FileNotFoundError)

    @pytest.mark.parametrize(
        "text", [b"", b"<html>404</html>", b"{", b"[]", b"{}", b'{"data_type": "uint8"}', b"\xff\xfe\0", b"null"]
    )
    def test_not_an_info(self, build: Builder, text: bytes) -> None:
        source = build("raw", "uint8", None)
        (source.scale.folder / "info").write_bytes(text)
        with pytest.raises(SourceCorruptError, match=f"{source.url}/info is not the info"):
            describe(source.url)

    @pytest.mark.parametrize(
        ("scale", "key"),
        [
            ({"size": [10, 10]}, "size"),
            ({"size": [10, 10, 0]}, "size"),
            ({"size": [10, 10, -5]}, "size"),
            ({"size": "large"}, "size"),
            ({"resolution": [8, 8, 0]}, "resolution"),
            ({"resolution": [8, 8, -8]}, "resolution"),
            ({"resolution": [8, 8, float("inf")]}, "resolution"),
            ({"chunk_sizes": []}, "chunk_sizes"),
            ({"chunk_sizes": [[64, 64, 0]]}, "chunk_sizes"),
            ({"voxel_offset": [0.5, 0, 0]}, "voxel_offset"),
            ({"encoding": None}, "encoding"),
            ({"key": None}, "key"),
            ({"sharding": "yes"}, "sharding"),
        ],
        ids=str,
    )
    def test_a_scale_that_cannot_be(self, build: Builder, scale: dict[str, Any], key: str) -> None:
        url = self.with_info(build, {}, scale)
        with pytest.raises(SourceCorruptError, match=f"{url}/info.*{key}"):
            describe(url)

    @pytest.mark.parametrize("change", [{"scales": []}, {"data_type": "float7"}, {"data_type": 8}], ids=str)
    def test_a_volume_that_cannot_be(self, build: Builder, change: dict[str, Any]) -> None:
        url = self.with_info(build, change)
        with pytest.raises(SourceCorruptError, match=f"{url}/info.*{next(iter(change))}"):
            describe(url)

    @pytest.mark.parametrize("http", [False, True], ids=["file", "http"])
    def test_several_channels(self, build: Builder, http: bool) -> None:
        url = self.with_info(build, {"num_channels": 3})
        with pytest.raises(SourceCorruptError, match=f"{url} has 3 channels"):
            describe(url)

    def test_unknown_encoding(self, build: Builder) -> None:
        url = self.with_info(build, {}, {"encoding": "webp9"})
        with pytest.raises(SourceCorruptError, match=f"{url}.*'webp9'"):
            cut(url, "uint8").read()

    def test_sharding_that_cannot_be(self, build: Builder) -> None:
        url = self.with_info(build, {}, {"sharding": {"@type": "neuroglancer_uint64_sharded_v2"}})
        with pytest.raises(SourceCorruptError, match=url):
            cut(url, "uint8").read()

    def test_upper_case_dtype(self, build: Builder) -> None:
        url = self.with_info(build, {"data_type": "UINT8"})
        np.testing.assert_array_equal(cut(url, "uint8").read()["raw"], tissue("uint8"))

    def test_scales_by_resolution(self, build: Builder) -> None:
        source = build("raw", "uint8", None)
        coarse = {**source.scale.meta, "key": "coarse", "resolution": [7.16, 8, 40.5], "size": [19, 23, 20]}
        info = {**source.scale.info, "scales": [source.scale.meta, coarse]}
        (source.scale.folder / "info").write_text(json.dumps(info))
        assert [scale.key for scale in describe(source.url).scales] == ["3.58_4_40.5", "coarse"]
        cutout = cut(source.url, "uint8", resolution=(7.16, 8, 40.5))
        assert cutout.grid.shape == (20, 23, 19)
        assert cutout.fetch().absent == cutout.fetch().reused > 0

    def test_keys_stay_inside_the_cache(self, build: Builder, tmp_path: Path) -> None:
        name = f"{tmp_path.name}-outside"
        url = self.with_info(build, {}, {"key": "../" * 40 + name})
        with suppress(SourceError):  # TensorStore refuses some such keys
            cut(url, "uint8").fetch()
        (mirror,) = list_mirrors(Cache.at(load_settings()))
        assert ".." not in mirror.name.split("/")
        assert (tmp_path / "cache" / mirror.name).resolve().is_relative_to(tmp_path / "cache")
        assert not list(Path("/").glob(f"{name}*"))


class TestFailures:
    """A server that does not do what it should."""

    @pytest.fixture(autouse=True)
    def no_retries(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EMCATALOG_RETRIES", "0")

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (401, SourceDeniedError),
            (403, SourceDeniedError),
            (500, SourceUnavailableError),
            (503, SourceUnavailableError),
        ],
    )
    @pytest.mark.parametrize("what", ["*/info", "*.shard"])
    def test_status(self, build: Builder, status: int, kind: type[SourceError], what: str) -> None:
        source = build("raw", "uint8", {})
        with serve(source.scale.folder.parent) as server:
            server.fail(what, status)
            with pytest.raises(kind, match=f"{server.url}/volume"):
                cut(f"{server.url}/volume", "uint8").read()
            server.heal()
            np.testing.assert_array_equal(cut(f"{server.url}/volume", "uint8").read()["raw"], source.voxels)

    @pytest.mark.parametrize("encoding", ["raw", "crackle"])
    @each_sharding
    def test_nothing_failed_is_taken_for_absent(
        self, build: Builder, encoding: str, sharding: Mapping[str, Any] | None
    ) -> None:
        source = build(encoding, "uint8", sharding)
        with serve(source.scale.folder) as server:
            for misbehave in (server.truncate, server.drop, lambda path: server.fail(path, 500)):
                misbehave("/3.58_4_40.5/*")
                with pytest.raises(SourceUnavailableError):
                    cut(server.url, "uint8").read()
                server.heal()
            assert cut(server.url, "uint8").plan().cached == 0
            np.testing.assert_array_equal(cut(server.url, "uint8").read()["raw"], source.voxels)

    def test_a_server_without_ranges(self, build: Builder) -> None:
        source = build("raw", "uint8", {})
        with serve(source.scale.folder) as server:
            server.without_ranges = True
            with pytest.raises(SourceUnavailableError, match="does not serve parts of files"):
                cut(server.url, "uint8").read()

    def test_no_server(self, build: Builder) -> None:
        source = build("raw", "uint8", None)
        with serve(source.scale.folder) as server:
            url = server.url
        with pytest.raises(SourceUnavailableError, match=url) as caught:
            cut(url, "uint8").read()
        assert isinstance(caught.value, ConnectionError)

    def test_a_source_that_moved_away(self, build: Builder) -> None:
        """Its chunks are all "not there" then: they must not become background."""
        source = build("raw", "uint8", None)
        cut(source.url, "uint8", bbox=nm(chunk_box(source.scale, (0, 0, 0))), units="nm").read()
        source.scale.folder.rename(source.scale.folder.with_name("elsewhere"))
        with pytest.raises(SourceMissingError):
            cut(source.url, "uint8").read()

    @pytest.mark.parametrize(
        "change", [{"encoding": "jpeg"}, {"size": [37, 45, 21]}, {"chunk_sizes": [[64, 64, 64]]}], ids=str
    )
    def test_a_source_that_changed(self, build: Builder, change: dict[str, Any]) -> None:
        source = build("raw", "uint8", None)
        corner = nm(chunk_box(source.scale, (0, 0, 0)))
        warm = cut(source.url, "uint8", bbox=corner, units="nm").read()
        info = {**source.scale.info, "scales": [{**source.scale.meta, **change}]}
        (source.scale.folder / "info").write_text(json.dumps(info))
        with pytest.raises(SourceChangedError, match=r"emcatalog cache rm"):
            cut(source.url, "uint8").read()
        np.testing.assert_array_equal(cut(source.url, "uint8", bbox=corner, units="nm").read()["raw"], warm["raw"])
