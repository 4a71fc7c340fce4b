"""N5: every convention of scales and lengths gives the same volume, and what is missing is said."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore as ts

from emcatalog.errors import SourceChangedError, SourceCorruptError, SourceError, SourceMissingError
from emcatalog.formats.opening import describe_volume, inspect_volume, open_volume
from emcatalog.formats.volume import ArraySpec, Volume
from emcatalog.geometry import Grid
from emcatalog.lock import Lock, write_lock
from emcatalog.settings import load_settings
from emcatalog.stores import is_absent
from tests.conftest import channel
from tests.replica.n5tree import ANISOTROPIC, COMPRESSIONS, CONVENTIONS, N5Tree, build_n5
from tests.replica.server import serve
from tests.replica.stored import Array

SHAPE = (20, 30, 26)
BLOCK_XYZ = (16, 8, 12)
SIZE_XYZ = (4, 5, 40)
SIZE = (40.0, 5.0, 4.0)
NM = ["nm", "nm", "nm"]


def noise(shape: Sequence[int] = SHAPE, dtype: str = "uint8") -> Array:
    """Voxels, no two axes alike, none of them 0."""
    return np.random.default_rng(7).integers(1, 100, shape).astype(dtype)


def build(folder: Path, convention: str = "neuroglancer", **options: Any) -> N5Tree:
    """A small tree of three scales."""
    form = {"factors_xyz": ANISOTROPIC, "block_xyz": BLOCK_XYZ, "voxel_size_xyz_nm": SIZE_XYZ, **options}
    return build_n5(folder, noise(), convention=convention, **form)


def write(folder: Path, voxels: Array, compression: Mapping[str, Any] | None = None, **attributes: Any) -> Path:
    """One dataset; voxels are along its axes from the last to the first, as NumPy counts them."""
    metadata = {
        "dimensions": voxels.shape[::-1],
        "blockSize": [8, 16, 4, 2, 1][: voxels.ndim],
        "dataType": voxels.dtype.name,
        "compression": compression or {"type": "gzip"},
    }
    spec = {"driver": "n5", "kvstore": {"driver": "file", "path": f"{folder}/"}, "metadata": metadata}
    ts.open(spec, create=True).result().T.write(voxels).result()
    edit(folder, **attributes)
    return folder


def edit(folder: Path, **attributes: Any) -> None:
    """Change attributes of a group or a dataset; None removes one."""
    path = folder / "attributes.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({key: value for key, value in {**known, **attributes}.items() if value is not None}))


def describe(folder: Path | str, **keys: Any) -> tuple[ArraySpec, ...]:
    url = folder if isinstance(folder, str) else f"file://{folder}"
    return describe_volume(channel(f"n5://{url}", **keys), load_settings()).scales


def open_scale(folder: Path | str, index: int = 0, **keys: Any) -> Volume:
    url = folder if isinstance(folder, str) else f"file://{folder}"
    return open_volume(channel(f"n5://{url}", **keys), describe(folder, **keys)[index], load_settings())


def read(store: ts.TensorStore) -> Array:
    voxels: Array = store.read().result()
    return voxels


class TestConventions:
    """What the writers of N5 agree and disagree on."""

    @pytest.mark.parametrize("convention", CONVENTIONS)
    @pytest.mark.parametrize("truncated", [False, True], ids=["padded", "truncated"])
    def test_scales(self, tmp_path: Path, convention: str, truncated: bool) -> None:
        tree = build(tmp_path, convention, truncated=truncated)
        scales = describe(tmp_path)
        assert [scale.key for scale in scales] == ["s0", "s1", "s2"]
        for index, (scale, level) in enumerate(zip(scales, tree.levels, strict=True)):
            assert scale.grid == Grid(level.shape, level.voxel_size_nm)
            assert (scale.dtype, scale.chunk, scale.num_channels) == ("uint8", BLOCK_XYZ[::-1], None)
            volume = open_scale(tmp_path, index)
            np.testing.assert_array_equal(read(volume.strict), level.data.voxels)
            np.testing.assert_array_equal(read(volume.lenient), level.data.voxels)

    @pytest.mark.parametrize("compression", COMPRESSIONS)
    def test_compressions(self, tmp_path: Path, compression: str) -> None:
        build(tmp_path, compression=compression)
        assert describe(tmp_path)[0].encoding == compression
        np.testing.assert_array_equal(read(open_scale(tmp_path).strict), noise())

    def test_the_size_of_the_group_is_not_that_of_a_factor(self, tmp_path: Path) -> None:
        """FlyEM's transforms say nm, and count voxels."""
        tree = build(tmp_path, "flyem")
        assert json.loads((tmp_path / "s1/attributes.json").read_text())["transform"]["scale"] == [2, 2, 1]
        assert [s.grid.voxel_size_nm for s in describe(tmp_path)] == [level.voxel_size_nm for level in tree.levels]

    def test_transforms_of_the_group(self, tmp_path: Path) -> None:
        tree = build(tmp_path, "cosem")
        for level in tree.levels:
            edit(tmp_path / level.path, transform=None, pixelResolution=None)
        assert [s.grid.voxel_size_nm for s in describe(tmp_path)] == [level.voxel_size_nm for level in tree.levels]

    def test_scales_of_other_names(self, tmp_path: Path) -> None:
        build(tmp_path, "cosem")
        (tmp_path / "s0").rename(tmp_path / "full")
        datasets = [{"path": "full", "transform": {"axes": ["z", "y", "x"], "units": NM, "scale": SIZE}}]
        edit(tmp_path, multiscales=[{"datasets": datasets}])
        assert [scale.key for scale in describe(tmp_path)] == ["full"]

    def test_a_centre_that_is_no_whole_voxel(self, tmp_path: Path) -> None:
        build(tmp_path, "cosem")
        for level, z in (("s0", 13.0), ("s1", 13.0), ("s2", 33.0)):
            path = tmp_path / level / "attributes.json"
            transform = json.loads(path.read_text())["transform"]
            transform["translate"][0] = z
            edit(tmp_path / level, transform=transform)
        assert [scale.grid.origin_nm for scale in describe(tmp_path)] == [(13.0, 0.0, 0.0)] * 3

    def test_the_group_moves_all_scales(self, tmp_path: Path) -> None:
        build(tmp_path, "bdv")
        edit(tmp_path, translate=[8, 5, 1], units=["nm", "nm", "um"], resolution=[4, 5, 0.04])
        assert {scale.grid.origin_nm for scale in describe(tmp_path)} == {(1000.0, 5.0, 8.0)}

    def test_scales_until_the_first_gap(self, tmp_path: Path) -> None:
        build(tmp_path)
        (tmp_path / "s1").rename(tmp_path / "s7")
        assert [scale.key for scale in describe(tmp_path)] == ["s0"]

    def test_a_group_without_attributes(self, tmp_path: Path) -> None:
        build(tmp_path)
        (tmp_path / "attributes.json").unlink()
        edit(tmp_path / "s0", pixelResolution={"unit": "nm", "dimensions": SIZE_XYZ})
        assert [scale.grid.voxel_size_nm[0] for scale in describe(tmp_path)] == [40, 40, 80]

    def test_one_dataset(self, tmp_path: Path) -> None:
        build(tmp_path)
        edit(tmp_path / "s0", downsamplingFactors=None, resolution=SIZE_XYZ, units=NM)
        (spec,) = describe(tmp_path / "s0")
        assert (spec.key, spec.grid) == ("s0", Grid(SHAPE, SIZE))
        np.testing.assert_array_equal(read(open_scale(tmp_path / "s0").strict), noise())

    def test_one_coarse_dataset(self, tmp_path: Path) -> None:
        """Neuroglancer counts from the finest."""
        build(tmp_path)
        edit(tmp_path / "s1", resolution=SIZE_XYZ, units=NM)
        assert describe(tmp_path / "s1")[0].grid.voxel_size_nm == (40, 10, 8)

    @pytest.mark.parametrize(
        "attributes",
        [
            {"pixelResolution": SIZE_XYZ, "units": NM},
            {"pixelResolution": {"dimensions": SIZE_XYZ, "unit": "nm"}},
            {"pixelResolution": {"dimensions": [4e-3, 5e-3, 4e-2], "unit": "um"}},
            {"pixelResolution": {"unit": "nm"}, "resolution": SIZE_XYZ},
            {"resolution": SIZE_XYZ, "units": "nanometer"},
            {"resolution": [4e-9, 5e-9, 4e-8], "units": ["m", "m", "m"]},
            {"resolution": [4e-3, 5, 4e-5], "units": ["µm", "nm", "mm"]},
            {"resolution": [4e-3, 5e-3, 4e-2], "units": "\N{GREEK SMALL LETTER MU}m"},
            {"resolution": [40, 5, 4], "units": NM, "axes": ["z", "y", "x"]},
            {"transform": {"axes": ["z", "y", "x"], "scale": [40, 5, 4], "units": NM}},
            {"transform": {"axes": ["X", "Y", "Z"], "scale": SIZE_XYZ, "units": "nm", "ordering": "C"}},
            {"transform": {"scale": [4e-3, 5e-3, 4e-2], "units": "micrometer", "translate": [0, 0, 0]}},
            {"pixelResolution": SIZE_XYZ, "units": NM, "transform": {"scale": [1, 1, 1], "translate": [0, 0, 0]}},
        ],
        ids=str,
    )
    def test_lengths(self, tmp_path: Path, attributes: dict[str, Any]) -> None:
        size = describe(write(tmp_path, noise(), **attributes))[0].grid.voxel_size_nm
        named_backwards = attributes.get("axes") == ["z", "y", "x"]
        assert size == pytest.approx(SIZE)
        assert describe(tmp_path)[0].grid.shape == (SHAPE[::-1] if named_backwards else SHAPE)

    @pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"])
    def test_integers(self, tmp_path: Path, dtype: str) -> None:
        write(tmp_path, noise(dtype=dtype), resolution=SIZE_XYZ, units=NM)
        assert describe(tmp_path)[0].dtype == dtype
        np.testing.assert_array_equal(read(open_scale(tmp_path).strict), noise(dtype=dtype))

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_fractions(self, tmp_path: Path, dtype: str) -> None:
        voxels = noise(dtype=dtype) / np.dtype(dtype).type(7)
        write(tmp_path, voxels, resolution=SIZE_XYZ, units=NM)
        np.testing.assert_array_equal(read(open_scale(tmp_path).strict), voxels)

    @pytest.mark.parametrize(
        ("compression", "written"),
        [
            ({"type": "blosc", "cname": "zstd", "clevel": 6, "shuffle": 1}, {"nthreads": 1, "blocksize": 0}),
            ({"type": "zstd", "level": 3}, {"nbWorkers": 0}),
            ({"type": "gzip", "useZlib": True}, {}),
            ({"type": "bzip2"}, {}),
            ({"type": "xz"}, {"preset": 6}),
        ],
        ids=lambda options: options.get("type", ""),
    )
    def test_options_of_a_compression(self, tmp_path: Path, compression: Any, written: Any) -> None:
        write(tmp_path, noise(), compression, resolution=SIZE_XYZ, units=NM)
        edit(tmp_path, compression={**compression, **written})
        assert describe(tmp_path)[0].encoding == compression["type"]
        np.testing.assert_array_equal(read(open_scale(tmp_path).strict), noise())

    def test_compression_before_version_2(self, tmp_path: Path) -> None:
        write(tmp_path, noise(), resolution=SIZE_XYZ, units=NM)
        edit(tmp_path, compression=None, compressionType="gzip")
        np.testing.assert_array_equal(read(open_scale(tmp_path).strict), noise())


class TestAxes:
    """More axes than those of space, and other orders."""

    def test_channels_last(self, tmp_path: Path) -> None:
        voxels = noise((3, *SHAPE))
        write(tmp_path, voxels, resolution=SIZE_XYZ, units=NM)
        (spec,) = describe(tmp_path)
        assert (spec.num_channels, spec.grid, spec.chunk) == (3, Grid(SHAPE, SIZE), (2, 4, 16, 8))
        np.testing.assert_array_equal(read(open_scale(tmp_path).strict), voxels)

    def test_lengths_of_all_axes(self, tmp_path: Path) -> None:
        write(tmp_path, noise((3, *SHAPE)), resolution=[4, 5, 40, 1], units=[*NM, ""], downsamplingFactors=[1, 1, 1, 1])
        assert describe(tmp_path)[0].grid.voxel_size_nm == SIZE

    def test_names(self, tmp_path: Path) -> None:
        voxels = noise((*SHAPE, 3))
        write(tmp_path, voxels, resolution=[1, 4, 5, 40], units=["", *NM], axes=["c", "x", "y", "z"])
        (spec,) = describe(tmp_path)
        assert (spec.num_channels, spec.grid, spec.chunk) == (3, Grid(SHAPE, SIZE), (8, 2, 4, 16))
        np.testing.assert_array_equal(read(open_scale(tmp_path).strict), np.moveaxis(voxels, -1, 0))

    def test_one_time(self, tmp_path: Path) -> None:
        voxels = noise((1, *SHAPE))
        write(tmp_path, voxels, resolution=SIZE_XYZ, units=NM, axes=["x", "y", "z", "t"])
        volume = open_scale(tmp_path)
        assert (volume.spec.num_channels, volume.spec.chunk) == (None, (4, 16, 8))
        np.testing.assert_array_equal(read(volume.strict), voxels[0])

    def test_several_times(self, tmp_path: Path) -> None:
        write(tmp_path, noise((2, *SHAPE)), resolution=SIZE_XYZ, units=NM, axes=["x", "y", "z", "t"])
        with pytest.raises(SourceCorruptError, match=r"attributes\.json: 2 places along the axis t"):
            describe(tmp_path)

    @pytest.mark.parametrize("axes", [["x", "y", "depth"], ["x", "y", "y"], ["x", "y"]], ids=str)
    def test_names_that_are_none_of_space(self, tmp_path: Path, axes: list[str]) -> None:
        write(tmp_path, noise(), resolution=SIZE_XYZ, units=NM, axes=axes)
        with pytest.raises(SourceCorruptError, match=r"the axes x, y.*a volume has z, y and x, each once"):
            describe(tmp_path)

    def test_two_axes(self, tmp_path: Path) -> None:
        write(tmp_path, noise((30, 26)), resolution=[4, 5], units=["nm", "nm"])
        with pytest.raises(SourceCorruptError, match=r"the axes x, y for an array of shape \(26, 30\)"):
            describe(tmp_path)


class TestMissing:
    """What is not there."""

    @pytest.mark.parametrize("http", [False, True], ids=["file", "http"])
    def test_nothing(self, tmp_path: Path, http: bool) -> None:
        build(tmp_path / "tree")
        with serve(tmp_path) as server:
            url = f"{server.url if http else f'file://{tmp_path}'}/none"
            with pytest.raises(SourceMissingError, match=f"n5://{url}: there is no attributes.json"):
                describe(url)

    def test_a_group_of_something_else(self, tmp_path: Path) -> None:
        build(tmp_path / "em")
        edit(tmp_path, n5="2.5.1")
        with pytest.raises(SourceMissingError, match=r"without scales s0, s1, \.\.\.; let the address name a dataset"):
            describe(tmp_path)

    @pytest.mark.parametrize("convention", ["flyem", "bdv", "cosem"])
    def test_a_listed_scale(self, tmp_path: Path, convention: str) -> None:
        build(tmp_path, convention)
        (tmp_path / "s1/attributes.json").unlink()
        with pytest.raises(SourceMissingError, match=r"s1/attributes\.json: an N5 scale is missing, one of s0, s1, s2"):
            describe(tmp_path)

    def test_blocks(self, tmp_path: Path) -> None:
        write(tmp_path, noise(), resolution=SIZE_XYZ, units=NM)
        (tmp_path / "1/0/2").unlink()  # of 8 x 16 x 4 voxels
        volume = open_scale(tmp_path)
        with pytest.raises(ValueError, match=r"^NOT_FOUND: chunk") as caught:
            read(volume.strict[8:12, :16, 8:16])
        assert is_absent(caught.value)
        expected = noise()
        expected[8:12, :16, 8:16] = 0
        np.testing.assert_array_equal(read(volume.lenient), expected)

    def test_outside(self, tmp_path: Path) -> None:
        write(tmp_path, noise(), resolution=SIZE_XYZ, units=NM)
        volume = open_scale(tmp_path)
        for store in (volume.strict, volume.lenient):
            for index in np.s_[:21, :, :], np.s_[:, 30:31, :], np.s_[:, :, -1:3]:
                with pytest.raises(IndexError, match="OUT_OF_RANGE"):
                    store[index]


class TestMistakes:
    """What is there and cannot be used."""

    @pytest.mark.parametrize(
        ("attributes", "message"),
        [
            ({}, "tells no voxel size.*voxel_size_from: catalog"),
            ({"resolution": SIZE_XYZ}, "resolution of .* has no unit.*voxel_size_from: catalog"),
            ({"resolution": SIZE_XYZ, "units": ["nm", "nm", ""]}, "has no unit.*voxel_size_from: catalog"),
            ({"pixelResolution": SIZE_XYZ}, "pixelResolution of .* has no unit"),
            ({"pixelResolution": {"dimensions": SIZE_XYZ, "unit": "pixel"}}, "unit 'pixel'.*voxel_size_from: catalog"),
            ({"resolution": SIZE_XYZ, "units": "furlong"}, "unit 'furlong', which is none of length"),
            ({"transform": {"scale": SIZE_XYZ}}, r"transform\.scale of .* has no unit"),
        ],
        ids=str,
    )
    def test_no_voxel_size(self, tmp_path: Path, attributes: dict[str, Any], message: str) -> None:
        write(tmp_path, noise(), **attributes)
        with pytest.raises(SourceCorruptError, match=message) as caught:
            describe(tmp_path)
        assert f"n5://file://{tmp_path}/attributes.json" in str(caught.value)
        (spec,) = describe(tmp_path, voxel_size=SIZE_XYZ, voxel_size_from="catalog")
        assert spec.grid == Grid(SHAPE, SIZE)

    def test_scales_of_declared_size(self, tmp_path: Path) -> None:
        build(tmp_path)
        edit(tmp_path, resolution=None, units=None)
        with pytest.raises(SourceCorruptError, match=r"s0/attributes\.json tells no voxel size, nor does a group"):
            describe(tmp_path)
        sizes = [s.grid.voxel_size_nm for s in describe(tmp_path, voxel_size=SIZE_XYZ, voxel_size_from="catalog")]
        assert sizes == [(40, 5, 4), (40, 10, 8), (80, 20, 16)]

    @pytest.mark.parametrize(
        ("attributes", "message"),
        [
            ({"resolution": [4, 5, -40]}, "resolution of .* is -40 along z; an axis that is turned around"),
            ({"resolution": [0, 5, 40]}, "resolution of .* is 0 along x"),
            ({"pixelResolution": {"dimensions": [4, -5, 4], "unit": "nm"}}, "pixelResolution of .* is -5 along y"),
            ({"transform": {"scale": [-4, 5, 40], "units": NM}}, r"transform\.scale of .* is -4 along x"),
            ({"resolution": SIZE_XYZ, "downsamplingFactors": [1, 0, 1]}, "downsamplingFactors of .* is 0 along y"),
            ({"resolution": [4, 5]}, "resolution of .* has 2 values for the axes x, y, z"),
            ({"resolution": [4, 5, 40], "units": ["nm", "nm"]}, "units of .* has 2 values"),
            ({"resolution": "4, 5, 40"}, "resolution of .* is '4, 5, 40', not a list of numbers"),
            ({"resolution": [4, 5, float("nan")]}, "not a list of numbers"),
            ({"resolution": [4, 5, 10**400]}, "not a list of numbers"),
            ({"resolution": [4, 5, True]}, "not a list of numbers"),
            ({"resolution": SIZE_XYZ, "transform": [1]}, r"transform is \[1\], not a JSON object"),
            ({"transform": {"scale": SIZE_XYZ, "units": NM, "axes": ["a", "b", "c"]}}, "3 values for the axes a, b, c"),
            ({"transform": {"scale": SIZE_XYZ, "units": NM, "translate": 3}}, r"transform\.translate of .* is 3, not"),
        ],
        ids=str,
    )
    def test_lengths_that_cannot_be(self, tmp_path: Path, attributes: dict[str, Any], message: str) -> None:
        write(tmp_path, noise(), **{"units": NM, **attributes})
        with pytest.raises(SourceCorruptError, match=message) as caught:
            describe(tmp_path)
        assert f"n5://file://{tmp_path}/attributes.json" in str(caught.value)

    def test_no_factors(self, tmp_path: Path) -> None:
        """Dimensions are rounded: they do not say it."""
        build(tmp_path)
        edit(tmp_path / "s1", downsamplingFactors=None)
        with pytest.raises(
            SourceCorruptError, match=r"s1/attributes\.json does not say how much coarser it is than s0"
        ):
            describe(tmp_path)

    def test_a_path_out_of_the_group(self, tmp_path: Path) -> None:
        build(tmp_path / "em")
        edit(tmp_path / "em", multiscales=[{"datasets": [{"path": "../em/s0"}]}])
        with pytest.raises(SourceCorruptError, match=r"'\.\./em/s0' is not the path of a scale"):
            describe(tmp_path / "em")

    @pytest.mark.parametrize(
        ("attributes", "message"),
        [
            ({"compression": {"type": "lz4"}}, "compressed by 'lz4'; what is read: raw, gzip"),
            ({"compression": "gzip9"}, "compressed by 'gzip9'"),
            ({"compression": None}, "compressed by None"),
            ({"dataType": "string"}, "describes no array that can be read here"),
            ({"dataType": None}, "describes no array that can be read here: it has no dataType"),
            ({"blockSize": [8, 8]}, "describes no array that can be read here: .*blockSize"),
            ({"blockSize": None}, "describes no array that can be read here: it has no blockSize"),
            ({"dimensions": [1, 2, -3]}, "describes no array that can be read here: .*dimensions"),
            ({"dimensions": "large"}, "describes no array that can be read here: .*dimensions"),
            ({"dimensions": [0, 5, 5]}, r"an array of shape \(5, 5, 0\), which has no voxels"),
        ],
        ids=str,
    )
    def test_a_dataset_that_cannot_be(self, tmp_path: Path, attributes: dict[str, Any], message: str) -> None:
        write(tmp_path, noise(), resolution=SIZE_XYZ, units=NM)
        edit(tmp_path, **attributes)
        with pytest.raises(SourceCorruptError, match=message) as caught:
            describe(tmp_path)
        assert f"n5://file://{tmp_path}/attributes.json" in str(caught.value)

    @pytest.mark.parametrize("text", ["<html>", "[]", ""])
    def test_attributes_that_are_not_json(self, tmp_path: Path, text: str) -> None:
        build(tmp_path)
        (tmp_path / "s1/attributes.json").write_text(text)
        with pytest.raises(SourceCorruptError, match=r"s1/attributes\.json"):
            describe(tmp_path)

    def test_a_block_that_does_not_decode(self, tmp_path: Path) -> None:
        write(tmp_path, noise(), resolution=SIZE_XYZ, units=NM)
        (tmp_path / "1/0/2").write_bytes(b"garbage")
        with pytest.raises(ValueError, match=r"^(?!NOT_FOUND)") as caught:
            read(open_scale(tmp_path).strict)
        assert not is_absent(caught.value)


class TestRequests:
    """Each round trip counts: one for the group, one for its scales."""

    @pytest.mark.parametrize(("convention", "asked"), [("flyem", 1 + 3), ("neuroglancer", 1 + 16)])
    def test_metadata(self, tmp_path: Path, convention: str, asked: int) -> None:
        build(tmp_path, convention)
        with serve(tmp_path) as server:
            scales = describe(server.url)
            assert server.count() == asked == server.count("*/attributes.json")
            server.clear()
            volume = open_volume(channel(f"n5://{server.url}"), scales[1], load_settings())
            assert server.count() == asked, "once more: is it still what it was?"
            server.clear()
            read(volume.strict[:12, :8, :])
            assert set(server.counts()) == {"/s1/0/0/0"}

    def test_one_dataset(self, tmp_path: Path) -> None:
        write(tmp_path, noise(), resolution=SIZE_XYZ, units=NM)
        with serve(tmp_path) as server:
            describe(server.url)
            assert server.count() == 1


def test_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path / "em", "flyem")
    model = channel(f"n5://file://{tmp_path}/em")
    monkeypatch.setenv("EMCATALOG_LOCK", str(tmp_path / "emcatalog.lock"))
    _, documents = inspect_volume(model, load_settings())
    assert [address.removeprefix(model.url) for address in documents] == [
        "/attributes.json",
        *(f"/s{i}/attributes.json" for i in range(3)),
    ]
    write_lock(tmp_path / "emcatalog.lock", Lock(documents=documents))
    describe(tmp_path / "em")
    edit(tmp_path / "em/s2", blockSize=[1, 2, 3])
    with pytest.raises(SourceChangedError, match=r"s2/attributes\.json is another since it was locked"):
        describe(tmp_path / "em")


def test_errors_of_the_source_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMCATALOG_RETRIES", "0")
    build(tmp_path)
    with serve(tmp_path) as server:
        server.fail("*/s5/attributes.json", 500)
        with pytest.raises(SourceError, match=f"n5://{server.url}/s5/attributes.json"):
            describe(server.url)
