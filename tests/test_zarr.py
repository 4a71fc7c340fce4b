"""Zarr: one array or an OME-Zarr image, of version 2 or 3, and where its voxels stand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore as ts
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, TransposeCodec

from emcatalog import ome
from emcatalog.cutout_opening import open_cutout
from emcatalog.entries.volume import VolumeArguments
from emcatalog.errors import SourceChangedError, SourceCorruptError, SourceMissingError
from emcatalog.formats.multiscale import corners_nm
from emcatalog.formats.opening import describe_volume, inspect_volume, open_volume
from emcatalog.formats.volume import ArraySpec, Volume
from emcatalog.geometry import Box, Grid, ZyxNm
from emcatalog.lock import Lock, write_lock
from emcatalog.settings import load_settings
from emcatalog.stores import is_absent
from tests.conftest import channel
from tests.replica.prism import RESOLUTION_NM, build_prism
from tests.replica.server import serve
from tests.replica.stored import Array

SHAPE = (20, 30, 26)
CHUNK = (8, 12, 16)
SIZE = (40.0, 5.0, 4.0)
PLACED = {"resolution": [40, 5, 4], "offset": [80, 15, 8]}
GRID = Grid(SHAPE, SIZE, origin_nm=(80.0, 15.0, 8.0))
SPACE = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]

both_versions = pytest.mark.parametrize("version", [2, 3])


def noise(shape: Sequence[int] = SHAPE, dtype: str = "uint8") -> Array:
    """Voxels, no two axes alike, none of them 0."""
    return np.random.default_rng(7).integers(1, 100, shape).astype(dtype)


def write(folder: Path, voxels: Array, version: int = 2, attributes: Any = PLACED, **options: Any) -> Path:
    """One array."""
    form = {"chunks": (1,) * (voxels.ndim - 3) + CHUNK[-voxels.ndim :], "zarr_format": version, **options}
    array = zarr.create_array(str(folder), shape=voxels.shape, dtype=voxels.dtype, attributes=attributes, **form)
    array[...] = voxels
    return folder


def scale(*factors: float, moved: Sequence[float] | None = None) -> list[dict[str, Any]]:
    """Transformations of one scale."""
    steps: list[dict[str, Any]] = [{"type": "scale", "scale": list(factors)}]
    return steps if moved is None else [*steps, {"type": "translation", "translation": list(moved)}]


def write_image(
    folder: Path,
    scales: Mapping[str, tuple[Array, list[dict[str, Any]]]],
    version: int = 2,
    axes: Any = SPACE,
    **image: Any,
) -> Path:
    """An OME-Zarr image, 0.4 or 0.5; voxels and transformations by the path of a scale."""
    group = zarr.open_group(str(folder), mode="w", zarr_format=version)
    for path, (voxels, _) in scales.items():
        write(folder / path, voxels, version, attributes={})
    datasets = [{"path": path, "coordinateTransformations": steps} for path, (_, steps) in scales.items()]
    image = {"version": "0.4", "axes": axes, "datasets": datasets, **image}
    told = {"multiscales": [image]}
    group.attrs.update(told if version == 2 else {"ome": {"version": "0.5", **told}})
    return folder


def edit(path: Path, **keys: Any) -> None:
    """Change keys of a document; None removes one."""
    known = {**json.loads(path.read_text()), **keys}
    path.write_text(json.dumps({key: value for key, value in known.items() if value is not None}))


def describe(folder: Path | str, **keys: Any) -> tuple[ArraySpec, ...]:
    url = folder if isinstance(folder, str) else f"file://{folder}"
    return describe_volume(channel(f"zarr://{url}", **keys), load_settings()).scales


def open_scale(folder: Path | str, index: int = 0, **keys: Any) -> Volume:
    url = folder if isinstance(folder, str) else f"file://{folder}"
    return open_volume(channel(f"zarr://{url}", **keys), describe(folder, **keys)[index], load_settings())


def read(store: ts.TensorStore) -> Array:
    voxels: Array = store.read().result()
    return voxels


class TestOneArray:
    """Attributes as funlib.persistence writes them."""

    @both_versions
    def test_described_and_read(self, tmp_path: Path, version: int) -> None:
        write(tmp_path / "raw", noise(), version)
        (spec,) = describe(tmp_path / "raw")
        assert spec == ArraySpec("raw", "uint8", GRID, CHUNK, "zstd")
        volume = open_scale(tmp_path / "raw")
        np.testing.assert_array_equal(read(volume.strict), noise())
        np.testing.assert_array_equal(read(volume.lenient), noise())

    @pytest.mark.parametrize(
        "attributes",
        [
            {"voxel_size": [40, 5, 4], "offset": [80, 15, 8]},
            {"voxel_size": [40, 5, 4], "offset": [80, 15, 8], "units": ["nm", "nm", "nm"]},
            {"resolution": [0.04, 5, 4], "offset": [0.08, 15, 8], "units": ["um", "nm", "nm"]},
            {"resolution": [0.04, 0.005, 0.004], "offset": [0.08, 0.015, 0.008], "unit": "micrometer"},
            {"resolution": [40, 5, 4], "offset": [80, 15, 8], "axis_names": ["z", "y", "x"]},
            {"resolution": [40, 5, 4], "offset": [80, 15, 8], "axis_names": ["a", "b", "c"]},
        ],
        ids=str,
    )
    def test_lengths(self, tmp_path: Path, attributes: Any) -> None:
        grid = describe(write(tmp_path, noise(), attributes=attributes))[0].grid
        assert grid.shape == SHAPE
        assert (grid.voxel_size_nm, grid.origin_nm) == (pytest.approx(SIZE), pytest.approx(GRID.origin_nm))

    def test_without_offset(self, tmp_path: Path) -> None:
        write(tmp_path, noise(), attributes={"resolution": [40, 5, 4]})
        assert describe(tmp_path)[0].grid == Grid(SHAPE, SIZE)

    @pytest.mark.parametrize("place", [PLACED, {"voxel_size": [1, 40, 5, 4], "offset": [0, 80, 15, 8]}], ids=["3", "4"])
    def test_channels(self, tmp_path: Path, place: Any) -> None:
        voxels = noise((3, *SHAPE))
        write(tmp_path, voxels, attributes=place)
        volume = open_scale(tmp_path)
        assert (volume.spec.num_channels, volume.spec.grid, volume.spec.chunk) == (3, GRID, (1, *CHUNK))
        np.testing.assert_array_equal(read(volume.strict), voxels)

    @pytest.mark.parametrize("names", [("x", "c^", "z", "y"), ("X", "channel", "Z", "Y")], ids=str)
    @pytest.mark.parametrize("key", ["axis_names", "_ARRAY_DIMENSIONS", "dimension_names"])
    def test_names_of_axes(self, tmp_path: Path, key: str, names: Sequence[str]) -> None:
        attributes: dict[str, Any] = {"resolution": [4, 40, 5], "offset": [8, 80, 15]}
        attributes |= {key: names} if key != "dimension_names" else {}
        options = {"dimension_names": names} if key == "dimension_names" else {}
        voxels = noise((26, 3, 20, 30))
        write(tmp_path, voxels, 3, attributes, chunks=(16, 1, 8, 12), **options)
        volume = open_scale(tmp_path)
        assert (volume.spec.num_channels, volume.spec.grid, volume.spec.chunk) == (3, GRID, (1, *CHUNK))
        np.testing.assert_array_equal(read(volume.strict), voxels.transpose(1, 2, 3, 0))

    @both_versions
    @pytest.mark.parametrize(
        "dtype",
        ["uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64"],
    )
    def test_dtypes(self, tmp_path: Path, version: int, dtype: str) -> None:
        write(tmp_path, noise(dtype=dtype), version)
        assert describe(tmp_path)[0].dtype == dtype
        np.testing.assert_array_equal(read(open_scale(tmp_path).strict), noise(dtype=dtype))

    def test_other_byte_order_and_order_of_axes(self, tmp_path: Path) -> None:
        write(tmp_path, noise(dtype=">u2"), order="F")
        assert describe(tmp_path)[0].dtype == "uint16"
        np.testing.assert_array_equal(read(open_scale(tmp_path).strict), noise(dtype="uint16"))

    @both_versions
    def test_truths_are_numbers(self, tmp_path: Path, version: int) -> None:
        write(tmp_path, noise() > 50, version, fill_value=True)
        chunk = tmp_path / ("0.0.0" if version == 2 else "c/0/0/0")
        chunk.unlink()
        volume = open_scale(tmp_path)
        assert volume.spec.dtype == "uint8"
        expected = (noise() > 50).astype(np.uint8)
        expected[:8, :12, :16] = 1
        np.testing.assert_array_equal(read(volume.lenient), expected)
        with pytest.raises(ValueError, match="NOT_FOUND") as caught:
            read(volume.strict)
        assert is_absent(caught.value)

    @both_versions
    @pytest.mark.parametrize("fill", [0, 7])
    def test_background(self, tmp_path: Path, version: int, fill: int) -> None:
        write(tmp_path, noise(), version, fill_value=fill)
        (tmp_path / ("1.0.1" if version == 2 else "c/1/0/1")).unlink()
        volume = open_scale(tmp_path)
        expected = noise()
        expected[8:16, :12, 16:] = fill
        np.testing.assert_array_equal(read(volume.lenient), expected)
        with pytest.raises(ValueError, match=r"^NOT_FOUND: chunk") as caught:
            read(volume.strict[8:16, :12, 16:])
        assert is_absent(caught.value)

    def test_background_that_is_not_said(self, tmp_path: Path) -> None:
        write(tmp_path, noise())
        edit(tmp_path / ".zarray", fill_value=0)
        text = (tmp_path / ".zarray").read_text()
        (tmp_path / ".zarray").write_text(text.replace('"fill_value": 0', '"fill_value": null'))
        (tmp_path / "1.0.1").unlink()
        assert not read(open_scale(tmp_path).lenient)[8:16, :12, 16:].any()

    def test_shards(self, tmp_path: Path) -> None:
        write(tmp_path, noise(), 3, shards=(16, 24, 32), fill_value=7)
        volume = open_scale(tmp_path)
        assert volume.spec.chunk == CHUNK
        np.testing.assert_array_equal(read(volume.strict), noise())

    def test_absent_chunks_of_a_shard(self, tmp_path: Path) -> None:
        write(tmp_path, np.full(SHAPE, 7, "uint8"), 3, shards=(16, 24, 32), fill_value=7)
        zarr.open_array(str(tmp_path))[:8, :12, :16] = 5
        volume = open_scale(tmp_path)
        assert (read(volume.strict[:8, :12, :16]) == 5).all()
        for place in np.s_[:8, :12, 16:], np.s_[16:, :12, :16]:  # in a shard that is there, and in one that is not
            with pytest.raises(ValueError, match="NOT_FOUND") as caught:
                read(volume.strict[place])
            assert is_absent(caught.value)
            assert (read(volume.lenient[place]) == 7).all()

    def test_outside(self, tmp_path: Path) -> None:
        write(tmp_path, noise())
        volume = open_scale(tmp_path)
        for store in (volume.strict, volume.lenient):
            for index in np.s_[:21, :, :], np.s_[:, 30:31, :], np.s_[:, :, -1:3]:
                with pytest.raises(IndexError, match="OUT_OF_RANGE"):
                    store[index]

    @pytest.mark.parametrize(
        ("version", "options", "encoding"),
        [
            (2, {"compressors": None}, "raw"),
            (2, {"compressors": {"id": "blosc", "cname": "zstd", "clevel": 3, "shuffle": 2}}, "blosc"),
            (2, {"compressors": {"id": "zstd", "level": 1, "checksum": True}}, "zstd"),
            (2, {"compressors": {"id": "zlib", "level": 1}}, "zlib"),
            (2, {"compressors": {"id": "gzip", "level": 1}}, "gzip"),
            (2, {"compressors": {"id": "bz2", "level": 1}}, "bz2"),
            (3, {"compressors": None}, "raw"),
            (3, {"compressors": [GzipCodec(level=1)]}, "gzip"),
            (3, {"compressors": [BloscCodec(cname="zlib"), Crc32cCodec()]}, "blosc"),
            (3, {"filters": [TransposeCodec(order=(2, 0, 1))]}, "zstd"),
            (3, {"shards": (16, 24, 32), "compressors": [GzipCodec()]}, "gzip"),
            (3, {"shards": (16, 24, 32), "compressors": None}, "raw"),
            (3, {"chunk_key_encoding": {"name": "v2", "separator": "."}}, "zstd"),
        ],
    )
    def test_encodings(self, tmp_path: Path, version: int, options: dict[str, Any], encoding: str) -> None:
        write(tmp_path, noise(), version, **options)
        assert (describe(tmp_path)[0].encoding, describe(tmp_path)[0].chunk) == (encoding, CHUNK)
        np.testing.assert_array_equal(read(open_scale(tmp_path).strict), noise())

    def test_options_of_a_compressor(self, tmp_path: Path) -> None:
        compressor = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0}
        write(tmp_path, noise(), compressors=compressor)
        edit(tmp_path / ".zarray", compressor={**compressor, "typesize": 1})
        np.testing.assert_array_equal(read(open_scale(tmp_path).strict), noise())

    def test_training_crops(self, tmp_path: Path) -> None:
        crop = build_prism(tmp_path, {"instance": [5]})["instance", 5]
        raw, labels = (describe(tmp_path / crop.path / name)[0] for name in ("raw", "labels"))
        assert raw.num_channels == 12
        assert raw.grid == Grid(crop.layout.raw, RESOLUTION_NM, origin_nm=crop.offset_nm)
        shared = raw.grid.from_nm(labels.grid.to_nm(labels.grid.extent))
        assert shared == Box((0, 0, 0), crop.layout.labels).translate(crop.layout.start)
        np.testing.assert_array_equal(
            read(open_scale(tmp_path / crop.path / "raw").strict[(slice(None), *shared.slices)]), crop.raw_at_labels
        )

    def test_in_another_space(self, tmp_path: Path) -> None:
        """Of expanded tissue the source tells lengths that are not those of the tissue."""
        write(tmp_path, noise())
        grid = describe(tmp_path, voxel_size=[1, 2, 8], voxel_size_from="catalog")[0].grid
        assert grid == Grid(SHAPE, (8.0, 2.0, 1.0), origin_nm=(16.0, 6.0, 2.0))


class TestDeclared:
    """Arrays that do not say where they stand, and entries that do."""

    KEYS: Mapping[str, Any] = {"voxel_size": [4, 5, 40], "voxel_size_from": "catalog", "offset": [2, 3, 2]}

    @both_versions
    def test_place(self, tmp_path: Path, version: int) -> None:
        write(tmp_path, noise(), version, attributes={})
        (spec,) = describe(tmp_path, **self.KEYS)
        assert spec.grid == GRID
        np.testing.assert_array_equal(read(open_scale(tmp_path, **self.KEYS).strict), noise())

    def test_swapped_axes(self, tmp_path: Path) -> None:
        """Keys of an entry are in space."""
        write(tmp_path, noise(), attributes={})
        (spec,) = describe(tmp_path, axes="yxz", **self.KEYS)
        assert spec.grid == Grid((20, 26, 30), SIZE, origin_nm=(80.0, 15.0, 8.0))
        voxels = read(open_scale(tmp_path, axes="yxz", **self.KEYS).strict)
        np.testing.assert_array_equal(voxels, noise().swapaxes(1, 2))

    @pytest.mark.parametrize(
        ("attributes", "keys"),
        [
            ({}, {}),
            ({}, {"voxel_size_from": "catalog"}),
            ({}, {"offset": [2, 3, 2]}),
            ({"offset": [80, 15, 8]}, {"voxel_size_from": "catalog"}),
        ],
        ids=str,
    )
    def test_nobody_says_it(self, tmp_path: Path, attributes: Any, keys: dict[str, Any]) -> None:
        write(tmp_path, noise(), attributes=attributes)
        with pytest.raises(SourceCorruptError) as caught:
            describe(tmp_path, **keys)
        missing = "no resolution (or voxel_size)" + ("" if attributes else " and no offset") + ", so that"
        for part in (missing, f"{tmp_path}/.zattrs", "`voxel_size_from: catalog`", "`offset: [x, y, z]`"):
            assert part in str(caught.value)

    def test_a_unit_that_is_none(self, tmp_path: Path) -> None:
        write(tmp_path, noise(), attributes={**PLACED, "units": "pixel"})
        with pytest.raises(SourceCorruptError, match=r"resolution of .*\.zattrs has the unit 'pixel'.*catalog"):
            describe(tmp_path)
        assert describe(tmp_path, **self.KEYS)[0].grid == GRID


def pyramid() -> dict[str, tuple[Array, list[dict[str, Any]]]]:
    """Two scales of one block of tissue, by the convention of centres."""
    return {
        "0": (noise(), scale(40, 5, 4, moved=[100, 17.5, 10])),
        "1": (noise((20, 15, 13)), scale(40, 10, 8, moved=[100, 20, 12])),
    }


class TestOmeZarr:
    """Images, 0.4 and 0.5."""

    @both_versions
    def test_scales(self, tmp_path: Path, version: int) -> None:
        write_image(tmp_path, pyramid(), version)
        fine, coarse = describe(tmp_path)
        assert fine == ArraySpec("0", "uint8", GRID, CHUNK, "zstd")
        assert coarse.grid == Grid((20, 15, 13), (40.0, 10.0, 8.0), origin_nm=GRID.origin_nm)
        for index, (voxels, _) in enumerate(pyramid().values()):
            np.testing.assert_array_equal(read(open_scale(tmp_path, index).strict), voxels)

    def test_multiscales_beside_ome(self, tmp_path: Path) -> None:
        """Version 3 before OME-Zarr 0.5 had a place for it."""
        write_image(tmp_path, pyramid(), 3)
        attributes = json.loads((tmp_path / "zarr.json").read_text())["attributes"]["ome"]
        edit(tmp_path / "zarr.json", attributes=attributes)
        assert [spec.key for spec in describe(tmp_path)] == ["0", "1"]

    def test_what_this_package_writes(self, tmp_path: Path) -> None:
        write(tmp_path / "data", noise(), 3, attributes={})
        image = ome.image("test", "data", GRID, (0, 0, 0))
        group = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": image}}
        (tmp_path / "zarr.json").write_text(json.dumps(group))
        assert [spec.grid for spec in describe(tmp_path)] == [GRID]

    def test_transformations_of_the_image(self, tmp_path: Path) -> None:
        """They come after those of a scale."""
        scales = {"0": (noise(), scale(2, 1, 1, moved=[5, 3.5, 2.5])), "1": (noise(), scale(2, 2, 2, moved=[5, 4, 3]))}
        write_image(tmp_path, scales, coordinateTransformations=[*scale(20, 5, 4), {"type": "identity"}])
        assert [spec.grid.voxel_size_nm for spec in describe(tmp_path)] == [SIZE, (40, 10, 8)]
        assert {spec.grid.origin_nm for spec in describe(tmp_path)} == {GRID.origin_nm}

    def test_units(self, tmp_path: Path) -> None:
        axes = [
            {**axis, "unit": unit} for axis, unit in zip(SPACE, ["micrometer", "nanometer", "angstrom"], strict=True)
        ]
        write_image(tmp_path, {"s0": (noise(), scale(0.04, 5, 40, moved=[0.1, 17.5, 100]))}, axes=axes)
        grid = describe(tmp_path)[0].grid
        assert (grid.voxel_size_nm, grid.origin_nm) == (pytest.approx(SIZE), pytest.approx(GRID.origin_nm))

    def test_labels(self, tmp_path: Path) -> None:
        write_image(tmp_path / "image/labels/cells", {"0": (noise(dtype="uint32"), scale(40, 5, 4))})
        edit(tmp_path / "image/labels/cells/.zattrs", **{"image-label": {"version": "0.4", "source": {"image": "../"}}})
        assert describe(tmp_path / "image/labels/cells")[0].dtype == "uint32"

    def test_paths(self, tmp_path: Path) -> None:
        write_image(tmp_path, {"scale0/image": (noise(), scale(40, 5, 4))})
        assert describe(tmp_path)[0].key == "scale0/image"
        np.testing.assert_array_equal(read(open_scale(tmp_path).strict), noise())

    @both_versions
    def test_axes(self, tmp_path: Path, version: int) -> None:
        voxels = noise((1, 26, 20, 3, 30))
        axes = [
            {"name": "t", "type": "time", "unit": "second"},
            SPACE[2],
            SPACE[0],
            {"name": "stain", "type": "channel"},
            SPACE[1],
        ]
        write_image(tmp_path, {"0": (voxels, scale(1, 4, 40, 1, 5, moved=[0, 10, 100, 0, 17.5]))}, version, axes)
        volume = open_scale(tmp_path)
        assert (volume.spec.num_channels, volume.spec.grid, volume.spec.chunk) == (
            3,
            GRID,
            (12, 8, 16, 1),
        )
        np.testing.assert_array_equal(read(volume.strict), voxels[0].transpose(2, 1, 3, 0))
        np.testing.assert_array_equal(
            read(volume.lenient[1, 5:9, 3:4, 7:]), voxels[0].transpose(2, 1, 3, 0)[1, 5:9, 3:4, 7:]
        )

    @pytest.mark.parametrize("name", ["c", "C", "channel"])
    def test_channels_by_name(self, tmp_path: Path, name: str) -> None:
        write_image(tmp_path, {"0": (noise((3, *SHAPE)), scale(1, 40, 5, 4))}, axes=[{"name": name}, *SPACE])
        assert (describe(tmp_path)[0].num_channels, describe(tmp_path)[0].grid) == (3, Grid(SHAPE, SIZE))

    def test_several_times(self, tmp_path: Path) -> None:
        write_image(tmp_path, {"0": (noise((2, *SHAPE)), scale(1, 40, 5, 4))}, axes=[{"name": "t"}, *SPACE])
        with pytest.raises(SourceCorruptError, match=r"0/\.zarray: 2 places along the axis t"):
            describe(tmp_path)

    @both_versions
    def test_a_missing_scale(self, tmp_path: Path, version: int) -> None:
        write_image(tmp_path, pyramid(), version)
        (tmp_path / "1" / (".zarray" if version == 2 else "zarr.json")).unlink()
        with pytest.raises(SourceMissingError, match=r"/1/\.?zarr.*: a scale is missing, one of 0, 1 that .* lists"):
            describe(tmp_path)

    @pytest.mark.parametrize("unit", [None, "", "pixel", "parsec"])
    def test_no_unit(self, tmp_path: Path, unit: str | None) -> None:
        axes = [{**SPACE[0], "unit": unit} if unit is not None else {"name": "z", "type": "space"}, *SPACE[1:]]
        write_image(tmp_path, pyramid(), axes=axes)
        said = f"has the unit '{unit}'" if unit else "has no unit"
        with pytest.raises(SourceCorruptError, match=rf"scale of dataset '0' in .*\.zattrs {said}.*voxel_size_from"):
            describe(tmp_path)
        fine, coarse = describe(tmp_path, voxel_size=[4, 5, 80], voxel_size_from="catalog")
        assert (fine.grid.voxel_size_nm, coarse.grid.voxel_size_nm) == ((80, 5, 4), (80, 10, 8))

    def test_no_scale(self, tmp_path: Path) -> None:
        write_image(tmp_path, {"0": (noise(), [])})
        with pytest.raises(SourceCorruptError, match=r"dataset '0' in .* has no scale among its coordinateTransf"):
            describe(tmp_path)
        assert describe(tmp_path, voxel_size=[4, 5, 40], voxel_size_from="catalog")[0].grid == Grid(SHAPE, SIZE)

    @pytest.mark.parametrize(
        ("steps", "message"),
        [
            (scale(-40, 5, 4), "scale of dataset '0' in .* is -40 along z; an axis that is turned around"),
            (scale(40, 5), "scale of dataset '0' in .* has 2 numbers for 3 axes"),
            (scale(40, 5, 4, moved=[1]), "translation of dataset '0' in .* has 1 numbers for 3 axes"),
            ([{"type": "affine", "affine": [[1]]}, *scale(1, 1, 1)], "dataset '0' in .* is placed by 'affine'"),
            ([{"type": "scale", "path": "matrix"}], "scale of dataset '0' in .* is None, not a list of numbers"),
            ([1], "coordinateTransformations of its multiscales is"),
        ],
        ids=str,
    )
    def test_transformations_that_cannot_be(self, tmp_path: Path, steps: Any, message: str) -> None:
        write_image(tmp_path, {"0": (noise(), steps)})
        with pytest.raises(SourceCorruptError, match=message):
            describe(tmp_path)

    @pytest.mark.parametrize(
        ("image", "message"),
        [
            ({"axes": None}, "axes of its multiscales is None"),
            ({"axes": ["z", "y", "x"]}, "axes of its multiscales is"),
            ({"axes": SPACE[:2]}, "the axes z, y for an array of shape"),
            ({"axes": [*SPACE[:2], {"name": "width"}]}, "a volume has z, y and x, each once"),
            ({"datasets": []}, r"datasets of its multiscales is \[\]"),
            ({"datasets": [{"path": "../0"}]}, r"'\.\./0' is not the path of a scale"),
            ({"datasets": [{}]}, "'' is not the path of a scale"),
        ],
        ids=str,
    )
    def test_an_image_that_cannot_be(self, tmp_path: Path, image: dict[str, Any], message: str) -> None:
        write_image(tmp_path, pyramid(), **image)
        with pytest.raises(SourceCorruptError, match=message) as caught:
            describe(tmp_path)
        assert str(tmp_path) in str(caught.value)


class TestMistakes:
    """What is not there, or cannot be used."""

    @pytest.mark.parametrize("http", [False, True], ids=["file", "http"])
    def test_nothing(self, tmp_path: Path, http: bool) -> None:
        with serve(tmp_path) as server:
            url = f"{server.url if http else f'file://{tmp_path}'}/none"
            with pytest.raises(SourceMissingError, match=f"zarr://{url}: there is no Zarr array or group"):
                describe(url)

    @both_versions
    def test_a_group(self, tmp_path: Path, version: int) -> None:
        write(tmp_path / "raw", noise(), version)
        zarr.open_group(str(tmp_path), mode="a", zarr_format=version)
        with pytest.raises(SourceCorruptError, match=r"is a Zarr group, and no OME-Zarr image.*name an\s+array"):
            describe(tmp_path)

    @both_versions
    @pytest.mark.parametrize("dtype", ["complex64", "datetime64[s]"])
    def test_dtypes(self, tmp_path: Path, version: int, dtype: str) -> None:
        zarr.create_array(str(tmp_path), shape=SHAPE, dtype=dtype, zarr_format=version, attributes=PLACED)
        with pytest.raises(SourceCorruptError, match=r"(type complex64; what is read: bool|describes no array)"):
            describe(tmp_path)

    @pytest.mark.parametrize(
        ("version", "keys", "message"),
        [
            (2, {"chunks": None}, "it has no chunks"),
            (2, {"fill_value": None}, "it has no fill_value"),
            (2, {"compressor": {"id": "lzma"}}, "compressed by 'lzma'; what is read: blosc, bz2, gzip, zlib, zstd"),
            (2, {"filters": [{"id": "delta"}]}, "describes no array that can be read here: .*filters"),
            (2, {"zarr_format": 3}, "describes no array that can be read here: .*zarr_format"),
            (2, {"shape": [0, 30, 26]}, "which has no voxels"),
            (2, {"shape": [30, 26], "chunks": [8, 8]}, r"the axes y, x for an array of shape \(30, 26\)"),
            (3, {"codecs": None}, "it has no codecs"),
            (3, {"codecs": [{"name": "bytes"}, {"name": "numcodecs.zlib"}]}, "numcodecs.zlib"),
            (3, {"codecs": [{"name": "sharding_indexed"}]}, "sharding_indexed, describes no array .* no chunk_shape"),
            (3, {"codecs": "zstd"}, "describes no array that can be read here: .*codecs"),
            (3, {"chunk_grid": {"name": "rectilinear"}}, "describes no array that can be read here: .*chunk_grid"),
            (3, {"must_be_understood": 1}, "describes no array that can be read here: .*must_be_understood"),
            (3, {"attributes": [1]}, r"attributes is \[1\], not a JSON object"),
        ],
        ids=str,
    )
    def test_metadata_that_cannot_be(self, tmp_path: Path, version: int, keys: dict[str, Any], message: str) -> None:
        write(tmp_path, noise(), version)
        edit(tmp_path / (".zarray" if version == 2 else "zarr.json"), **keys)
        with pytest.raises(SourceCorruptError, match=message) as caught:
            describe(tmp_path)
        assert str(tmp_path) in str(caught.value)

    @pytest.mark.parametrize(
        ("attributes", "message"),
        [
            ({"resolution": [40, 5]}, r"resolution of .*\.zattrs has 2 values for the axes z, y, x"),
            ({"resolution": 4}, "resolution of .* is 4, not a list of numbers"),
            ({"voxel_size": [40, -5, 4]}, "voxel_size of .* is -5 along y; an axis that is turned around"),
            ({"resolution": [40, 5, 4], "offset": [1, 2, "3"]}, "offset of .*, not a list of numbers"),
        ],
        ids=str,
    )
    def test_lengths_that_cannot_be(self, tmp_path: Path, attributes: Any, message: str) -> None:
        write(tmp_path, noise(), attributes=attributes)
        with pytest.raises(SourceCorruptError, match=message):
            describe(tmp_path)

    def test_a_chunk_that_does_not_decode(self, tmp_path: Path) -> None:
        write(tmp_path, noise())
        (tmp_path / "1.0.1").write_bytes(b"garbage")
        with pytest.raises(ValueError, match=r"^(?!NOT_FOUND)") as caught:
            read(open_scale(tmp_path).strict)
        assert not is_absent(caught.value)


class TestRequests:
    """Each round trip counts: one for the root, one for the scales of an image."""

    @both_versions
    def test_one_array(self, tmp_path: Path, version: int) -> None:
        write(tmp_path, noise(), version)
        with serve(tmp_path) as server:
            (spec,) = describe(server.url)
            assert server.count() == 4
            server.clear()
            volume = open_volume(channel(f"zarr://{server.url}"), spec, load_settings())
            assert server.count() == 4, "once more: is it still what it was?"
            server.clear()
            read(volume.strict[:8, :12, :16])
            assert set(server.counts()) == {"/0.0.0" if version == 2 else "/c/0/0/0"}

    @both_versions
    def test_an_image(self, tmp_path: Path, version: int) -> None:
        write_image(tmp_path, pyramid(), version)
        with serve(tmp_path) as server:
            scales = describe(server.url)
            assert server.count() == 4 + 2
            server.clear()
            volume = open_volume(channel(f"zarr://{server.url}"), scales[1], load_settings())
            assert server.count() == 4 + 2
            server.clear()
            read(volume.strict[:8, :12, :])
            assert set(server.counts()) == {"/1/0.0.0" if version == 2 else "/1/c/0/0/0"}


class TestFetched:
    """What is put between TensorStore's array and ours passes through a fetch: with a chunk that is not there."""

    AXES = ({"name": "t"}, SPACE[2], SPACE[0], {"name": "c"}, SPACE[1])

    def check(self, folder: Path, gone: Path, expected: Array) -> None:
        gone.unlink()
        declared = {"url": f"zarr://file://{folder}", "kind": "image", "dtype": "uint8", "source": "a test"}
        volumes = {"raw": {**declared, "voxel_size": [4, 5, 40]}}
        cutout = open_cutout(VolumeArguments.norm({"volumes": volumes, "voxel_size": [4, 5, 40]}))
        np.testing.assert_array_equal(cutout.read()["raw"], expected)

    def test_truths(self, tmp_path: Path) -> None:
        write(tmp_path / "mask", noise() > 50, fill_value=True)
        expected = (noise() > 50).astype(np.uint8)
        expected[8:16, :12, 16:] = 1
        self.check(tmp_path / "mask", tmp_path / "mask/1.0.1", expected)

    def test_numbers_without_a_value(self, tmp_path: Path) -> None:
        write(tmp_path / "field", noise(dtype="float16"), 3, fill_value=np.nan)
        expected = noise(dtype="float16")
        expected[8:16, :12, 16:] = np.nan
        self.check(tmp_path / "field", tmp_path / "field/c/1/0/1", expected)

    def test_one_chunk_larger_than_the_array(self, tmp_path: Path) -> None:
        write(tmp_path / "raw", noise(), chunks=(64, 64, 64), fill_value=9)
        self.check(tmp_path / "raw", tmp_path / "raw/0.0.0", np.full(SHAPE, 9, "uint8"))

    @both_versions
    def test_other_axes(self, tmp_path: Path, version: int) -> None:
        scales = {"0": (noise((1, 26, 20, 3, 30)), scale(1, 4, 40, 1, 5))}
        write_image(tmp_path / "em", scales, version, [*self.AXES])
        expected = noise((1, 26, 20, 3, 30))
        expected[:, 3, 8:16, :, 16:] = 0
        gone = tmp_path / "em/0" / ("0.3.1.0.1" if version == 2 else "c/0/3/1/0/1")
        self.check(tmp_path / "em", gone, expected[0].transpose(2, 1, 3, 0))


def test_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path / "em", pyramid())
    model = channel(f"zarr://file://{tmp_path}/em")
    monkeypatch.setenv("EMCATALOG_LOCK", str(tmp_path / "emcatalog.lock"))
    _, documents = inspect_volume(model, load_settings())
    names = ["zarr.json", ".zarray", ".zattrs", ".zgroup", "0/.zarray", "1/.zarray"]
    assert [address.removeprefix(f"{model.url}/") for address in documents] == names
    write_lock(tmp_path / "emcatalog.lock", Lock(documents=documents))
    describe(tmp_path / "em")
    (tmp_path / "em/zarr.json").write_text("{}")
    with pytest.raises(SourceChangedError, match=r"zarr\.json is new since it was locked"):
        describe(tmp_path / "em")


sizes = st.tuples(*[st.floats(0.1, 1000)] * 3)
indices = st.tuples(*[st.integers(-1000, 1000)] * 3)
factors = st.lists(st.tuples(*[st.sampled_from([1, 2, 4])] * 3), max_size=3)


def times(numbers: Sequence[float], by: Sequence[float]) -> ZyxNm:
    z, y, x = (a * b for a, b in zip(numbers, by, strict=True))
    return z, y, x


def centre(corner: ZyxNm, size: ZyxNm) -> ZyxNm:
    z, y, x = (c + s / 2 for c, s in zip(corner, size, strict=True))
    return z, y, x


class TestCorners:
    """Where translations put the corners of the first voxels."""

    @given(size=sizes, first=indices, coarser=factors)
    def test_centres(self, size: ZyxNm, first: tuple[int, int, int], coarser: list[tuple[int, int, int]]) -> None:
        corner = times(size, first)
        scales = [size, *(times(size, factor) for factor in coarser)]
        found = corners_nm(scales, [centre(corner, own) for own in scales])
        for place in found:
            assert place == pytest.approx(corner, rel=1e-9, abs=1e-6)

    @given(size=sizes, first=indices, coarser=factors)
    def test_corners_of_whole_voxels(
        self, size: ZyxNm, first: tuple[int, int, int], coarser: list[tuple[int, int, int]]
    ) -> None:
        corner = times(size, first)
        scales = [size, *(times(size, factor) for factor in coarser)]
        assert corners_nm(scales, [corner] * len(scales)) == [corner] * len(scales)

    @given(size=sizes, coarser=factors)
    def test_centres_counted_from_the_first(self, size: ZyxNm, coarser: list[tuple[int, int, int]]) -> None:
        """OpenOrganelle's: the centre of the finest first voxel is the zero."""
        scales = [size, *(times(size, factor) for factor in coarser)]
        z0, y0, x0 = (s / 2 for s in size)
        centres: list[ZyxNm] = [(z / 2 - z0, y / 2 - y0, x / 2 - x0) for z, y, x in scales]
        for place in corners_nm(scales, centres):
            assert place == pytest.approx((0, 0, 0), abs=1e-6)

    def test_a_centre_that_is_no_whole_voxel(self) -> None:
        fine, coarse = corners_nm([(8, 8, 8), (16, 16, 16)], [(3, 4, 4), (7, 8, 8)])
        assert fine == coarse == (3, 4, 4), "along one axis it is no centre: so along none"

    def test_scales_that_begin_elsewhere(self) -> None:
        fine, coarse = corners_nm([(8, 8, 8), (16, 16, 16)], [(4, 4, 4), (40, 8, 8)])
        assert (fine, coarse) == ((0, 0, 0), (32, 0, 0))
