"""What a catalog's YAML means, and the errors it gets when it means nothing."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import emcatalog
from emcatalog.catalog_file import CatalogModel, EntryMetadata, check_catalog
from emcatalog.entries.volume import VolumeArguments
from emcatalog.errors import ArgumentError, CatalogError, NoVariantError, UnknownArgumentError
from emcatalog.geometry import NmBox
from emcatalog.locations import StorageOptions

Edit = Callable[[dict[str, Any]], object]


def channel(**changes: Any) -> dict[str, Any]:
    """A channel as YAML states it."""
    return {
        "url": "precomputed://gs://bucket/em",
        "kind": "image",
        "dtype": "uint8",
        "voxel_size": 8,
        "source": "a test",
        **changes,
    }


def arguments(**changes: Any) -> dict[str, Any]:
    """Arguments of an entry with two channels."""
    labels = channel(url="precomputed://gs://bucket/labels", kind="instances", dtype="uint64")
    return {"volumes": {"raw": channel(), "labels": labels}, "voxel_size": [4, 6, 40], **changes}


def catalog() -> dict[str, Any]:
    """A catalog file with a parameter that chooses among variants."""
    variants = {"v1": {"shape": [1, 2, 3]}, "v2": {"shape": [4, 5, 6], "scales": [8, 16]}}
    volume = channel(url="precomputed://gs://bucket/{{ version }}/em", variant="{{ version }}", variants=variants)
    entry = {
        "description": "a test",
        "driver": "em_volume",
        "parameters": {
            "version": {"description": "release", "type": "str", "default": "v1", "allowed": ["v1", "v2"]},
        },
        "args": {"volumes": {"raw": volume}, "voxel_size": [8, 8, 8]},
        "metadata": {
            "title": "t",
            "organism": "o",
            "tissue": "t",
            "modality": "m",
            "licence": "CC0-1.0",
            "citation": "c",
            "sources": ["s"],
        },
    }
    sub = {"description": "more", "driver": "em_catalog", "args": {"path": "{{ CATALOG_DIR }}/more.yaml"}}
    return {"sources": {"tissue": entry, "more": sub}}


def entry_of(data: dict[str, Any]) -> Any:
    return data["sources"]["tissue"]


class TestArguments:
    """Arguments of a source: the catalog's and the caller's."""

    def test_defaults(self) -> None:
        parsed = VolumeArguments.norm(arguments())
        assert list(parsed.chosen) == ["raw", "labels"]
        assert parsed.resolution_nm == (40.0, 6.0, 4.0)
        assert (parsed.box_nm, parsed.units, parsed.clip, parsed.offline) == (None, "voxel", False, None)

    def test_a_box_is_counted_in_nominal_voxels(self) -> None:
        parsed = VolumeArguments.norm(arguments(bbox=(0, 1, 0, 2, 0, 3), resolution=(8, 12, 40)))
        assert parsed.box_nm == NmBox((0.0, 0.0, 0.0), (120.0, 12.0, 4.0))
        assert parsed.resolution_nm == (40.0, 12.0, 8.0)
        found = VolumeArguments.norm(arguments(bbox=(0, 1, 0, 2, 0, 3), units="nm"))
        assert found.box_nm == NmBox((0, 0, 0), (3, 2, 1))

    @pytest.mark.parametrize("names", ["labels", ["labels"], ("labels",)])
    def test_channels_by_name(self, names: Any) -> None:
        assert list(VolumeArguments.norm(arguments(channels=names)).chosen) == ["labels"]

    def test_channels_come_in_the_order_asked_for(self) -> None:
        assert list(VolumeArguments.norm(arguments(channels=["labels", "raw"])).chosen) == ["labels", "raw"]

    @pytest.mark.parametrize("channels", [[], (), 5, {"raw": 1}, ["row"], "row", [5], [["raw"]], [None]], ids=repr)
    def test_a_channel_that_is_not_there(self, channels: Any) -> None:
        with pytest.raises(ArgumentError, match="there are raw, labels"):
            VolumeArguments.norm(arguments(channels=channels))

    def test_a_near_miss_is_suggested(self) -> None:
        with pytest.raises(ArgumentError, match=r"no channel 'label'; .* Did you mean 'labels'"):
            VolumeArguments.norm(arguments(channels=["label"]))

    @pytest.mark.parametrize(
        ("name", "meant"),
        [("bbx", "bbox"), ("resolutions", "resolution"), ("chanels", "channels"), ("ofline", "offline")],
    )
    def test_a_misspelt_argument(self, name: str, meant: str) -> None:
        with pytest.raises(UnknownArgumentError, match=f"no argument '{name}'; .*Did you mean '{meant}'") as caught:
            VolumeArguments.norm(arguments(**{name: 1}))
        assert isinstance(caught.value, TypeError)
        assert isinstance(caught.value, ValueError)

    def test_an_argument_like_no_other(self) -> None:
        known = "bbox, units, resolution, channels, channel, align, consecutive, clip, offline, cache_dir"
        with pytest.raises(UnknownArgumentError, match=known) as e:
            VolumeArguments.norm(arguments(xyzzy=1))
        assert "Did you mean" not in str(e.value)

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"clip": "perhaps"}, "clip: .*not 'perhaps'"),
            ({"offline": [1]}, r"offline: .*not \[1\]"),
            ({"cache_dir": 5}, "cache_dir: .*not 5"),
            ({"cache_dir": ""}, "cache_dir: .*not ''"),
            ({"resolution": "fine"}, "resolution='fine' is not a length"),
            ({"resolution": {"x": 8}}, "resolution={'x': 8} is not a length"),
            ({"bbox": (0, 1, 0, 1, 0)}, "5 numbers"),
            ({"bbox": (0, 1, 0, 1, 0, 1), "units": "um"}, "units='um'"),
        ],
        ids=repr,
    )
    def test_a_callers_mistake(self, changes: dict[str, Any], says: str) -> None:
        with pytest.raises(ArgumentError, match=says):
            VolumeArguments.norm(arguments(**changes))

    def test_a_path_is_a_cache_dir(self, tmp_path: Path) -> None:
        assert VolumeArguments.norm(arguments(cache_dir=tmp_path)).cache_dir == str(tmp_path)

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"voxel_size": [8, 8]}, "voxel_size"),
            ({"voxel_size": None}, "voxel_size"),
            ({"volumes": {}}, "volumes"),
            ({"volumes": {"raw": channel(dtype="uint9")}}, "volumes.raw.dtype: .*'uint16'.*not 'uint9'"),
            ({"volumes": {"raw": channel(kind="picture")}}, "volumes.raw.kind: .*not 'picture'"),
            ({"volumes": {"raw": channel(shape=[1, 2])}}, "volumes.raw.shape.2: it is missing"),
            ({"volumes": {"raw": channel(shape=[1, 2, 0])}}, "volumes.raw.shape.2: .*greater than 0, not 0"),
            ({"volumes": {"raw": channel(shape=[1, 2, 2.5])}}, "volumes.raw.shape.2"),
            ({"volumes": {"raw": channel(voxel_size=-8)}}, "volumes.raw.voxel_size.0: .*not -8"),
            ({"volumes": {"raw": channel(voxel_size=float("inf"))}}, "volumes.raw.voxel_size.0: .*not inf"),
            ({"volumes": {"raw": channel(voxel_size=float("nan"))}}, "volumes.raw.voxel_size.0: .*not nan"),
            ({"volumes": {"raw": channel(voxel_size=True)}}, "volumes.raw.voxel_size: .*not True"),
            ({"volumes": {"raw": channel(scales=[8, True])}}, "volumes.raw.scales.1: .*not True"),
            ({"volumes": {"raw": channel(scales=8)}}, "volumes.raw.scales: .*not 8"),
            ({"volumes": {"raw": channel(source="")}}, "volumes.raw.source"),
            (
                {"volumes": {"raw": channel(shpe=[1, 2, 3])}},
                "volumes.raw.shpe: there is no such key. Did you mean 'shape'",
            ),
            ({"volumes": {"raw": channel(url="precomputed://gs://bucket/../em")}}, r"volumes.raw.url: .*'\.\.'"),
            ({"volumes": {"raw": channel(url="gs://bucket/em")}}, "volumes.raw.url: .*stored form"),
            (
                {"volumes": {"raw": channel(storage_options={"key": "x"})}},
                "volumes.raw.storage_options.key: there is no such",
            ),
            ({"volumes": {"../raw": channel()}}, "volumes.../raw: a channel's name"),
            ({"volumes": {"z": channel()}}, "volumes.z: a channel's name"),
            ({"volumes": {"raw": None}}, "volumes.raw: .*not None"),
            ({"volumes": {"raw": {"url": "precomputed://gs://bucket/em"}}}, "volumes.raw.source: it is missing"),
            ({"volumes": {"raw": channel(variant="a", variants=5)}}, "volumes.raw: variants is a mapping"),
            ({"volumes": {"raw": channel(variant="a", variants={"a": 5})}}, "volumes.raw: variants is a mapping"),
            ({"volumes": {"raw": channel(variant=["a"], variants={"a": {}})}}, r"variant \['a'\] is not among a"),
            ({"volumes": {"raw": channel(variants={"a": {}, "b": {}})}}, "variant None is not among a, b"),
        ],
        ids=repr,
    )
    def test_a_mistake_of_the_catalog(self, changes: dict[str, Any], says: str) -> None:
        with pytest.raises(CatalogError, match=says):
            VolumeArguments.norm(arguments(**changes))


class TestChannel:
    """A channel's declaration."""

    def test_a_number_stands_for_a_cube(self) -> None:
        parsed = VolumeArguments.norm(arguments(voxel_size=8, volumes={"raw": channel(scales=[8, 16.5, [4, 4, 40]])}))
        model = parsed.volumes["raw"]
        assert parsed.voxel_size == model.voxel_size == (8.0, 8.0, 8.0)
        assert model.scales == ((8.0, 8.0, 8.0), (16.5, 16.5, 16.5), (4.0, 4.0, 40.0))
        assert model.resolutions_nm == ((8.0, 8.0, 8.0), (16.5, 16.5, 16.5), (40.0, 4.0, 4.0))

    def test_the_finest_scale_alone_by_default(self) -> None:
        model = VolumeArguments.norm(arguments(volumes={"raw": channel(voxel_size=[4, 4, 40])})).volumes["raw"]
        assert model.resolutions_nm == ((40.0, 4.0, 4.0),)

    def test_grid_is_z_y_x(self) -> None:
        declared = channel(voxel_size=[4, 5, 40], shape=[100, 50, 10], offset=[7, 0, -1])
        grid = VolumeArguments.norm(arguments(volumes={"raw": declared})).volumes["raw"].grid
        assert grid is not None
        assert (grid.shape, grid.offset, grid.voxel_size_nm) == ((10, 50, 100), (-1, 0, 7), (40.0, 5.0, 4.0))

    def test_no_grid_where_the_extent_is_not_confirmed(self) -> None:
        assert VolumeArguments.norm(arguments()).volumes["raw"].grid is None

    def test_a_variant_wins_over_the_rest(self) -> None:
        declared = channel(variant="b", variants={"a": {"dtype": "int8"}, "b": {"dtype": "int16", "shape": [1, 2, 3]}})
        model = VolumeArguments.norm(arguments(volumes={"raw": declared})).volumes["raw"]
        assert (model.dtype, model.shape, model.kind) == ("int16", (1, 2, 3), "image")

    def test_a_variant_can_give_what_is_required(self) -> None:
        declared = channel(variant="a", variants={"a": {"source": "the variant"}})
        del declared["source"]
        assert VolumeArguments.norm(arguments(volumes={"raw": declared})).volumes["raw"].source == "the variant"

    def test_a_bucket_of_another_server_is_mirrored_apart(self) -> None:
        """Or a catalog from elsewhere could fill the mirror of a bucket with voxels of its own server."""
        url = "precomputed://s3://bucket/em"
        options = [{}, {"endpoint_url": "https://other.org"}, {"endpoint_url": "http://other.org"}]
        folders = [
            VolumeArguments.norm(arguments(volumes={"raw": channel(url=url, storage_options=one)}))
            .volumes["raw"]
            .location.folder
            for one in options
        ]
        assert folders[0] == "s3/bucket/em"
        assert len(set(folders)) == 3


class TestAxes:
    """What the stored x, y and z are in space."""

    @pytest.mark.parametrize("axes", ["xyz", "yxz", "zyx", "xzy", "yzx", "zxy"])
    def test_every_order(self, axes: str) -> None:
        model = VolumeArguments.norm(arguments(volumes={"raw": channel(axes=axes)})).volumes["raw"]
        assert model.axes == model.location.axes == axes

    @pytest.mark.parametrize(
        "axes", ["", "xy", "xxz", "xyzc", "XYZ", "x,y,z", "zyx ", None, 5, ["x", "y", "z"]], ids=repr
    )
    def test_mistakes(self, axes: object) -> None:
        with pytest.raises(CatalogError, match=r"volumes.raw.axes: "):
            VolumeArguments.norm(arguments(volumes={"raw": channel(axes=axes)}))

    def test_the_message_says_what_axes_are(self) -> None:
        with pytest.raises(CatalogError, match="axes are the letters x, y and z, each once, as in 'yxz', not 'xyx'"):
            VolumeArguments.norm(arguments(volumes={"raw": channel(axes="xyx")}))

    def test_all_other_keys_are_in_space(self) -> None:
        declared = channel(axes="yxz", voxel_size=[4, 5, 40], shape=[100, 50, 10], offset=[7, 0, -1])
        grid = VolumeArguments.norm(arguments(volumes={"raw": declared})).volumes["raw"].grid
        assert grid is not None
        assert (grid.shape, grid.offset, grid.voxel_size_nm) == ((10, 50, 100), (-1, 0, 7), (40.0, 5.0, 4.0))


class TestStacks:
    """One file a slice."""

    @pytest.mark.parametrize("form", ["tiff", "png"])
    def test_a_stack_says_how_many_slices_it_has(self, form: str) -> None:
        url = f"{form}://https://host/slice_{{z:03d}}.{form}"
        with pytest.raises(CatalogError, match=r"volumes.raw: a stack of slices needs its shape"):
            VolumeArguments.norm(arguments(volumes={"raw": channel(url=url)}))
        model = VolumeArguments.norm(arguments(volumes={"raw": channel(url=url, shape=[20, 10, 5])})).volumes["raw"]
        assert model.location.base == "https://host"

    @pytest.mark.parametrize(
        "name", ["slice.tif", "{z}_{z}.tif", "{y}.tif", "{}.tif", "{z:x}.tif", "{z:03}.tif", "{z!r}.tif"]
    )
    def test_an_address_without_a_place_for_the_number(self, name: str) -> None:
        stack = channel(url=f"tiff://https://host/{name}", shape=[2, 2, 2])
        with pytest.raises(CatalogError, match=r"volumes.raw.url: .*one {z}"):
            VolumeArguments.norm(arguments(volumes={"raw": stack}))

    def test_a_shape_can_come_from_a_variant(self) -> None:
        declared = channel(url="tiff://https://host/{z}.tif", variant="a", variants={"a": {"shape": [2, 2, 2]}})
        assert VolumeArguments.norm(arguments(volumes={"raw": declared})).volumes["raw"].shape == (2, 2, 2)


class TestVoxelSizeFrom:
    """Where lengths come from."""

    def test_the_source_by_default(self) -> None:
        assert VolumeArguments.norm(arguments()).volumes["raw"].voxel_size_from == "source"

    def test_the_catalog(self) -> None:
        declared = channel(voxel_size_from="catalog")
        assert VolumeArguments.norm(arguments(volumes={"raw": declared})).volumes["raw"].voxel_size_from == "catalog"

    @pytest.mark.parametrize("value", ["catalogue", "", None, True, 8], ids=repr)
    def test_nothing_else(self, value: object) -> None:
        with pytest.raises(CatalogError, match=r"volumes.raw.voxel_size_from: .*'source' or 'catalog'"):
            VolumeArguments.norm(arguments(volumes={"raw": channel(voxel_size_from=value)}))


class TestChannelIndex:
    """``channel=``: one of the channels of volumes that have several."""

    def many(self, **changes: Any) -> dict[str, Any]:
        return arguments(volumes={"raw": channel(num_channels=12), "labels": channel()}, **changes)

    @pytest.mark.parametrize(
        ("value", "index"),
        [(None, None), ("all", None), (0, 0), (11, 11), (np.int64(3), 3), (np.uint8(3), 3)],
        ids=repr,
    )
    def test_values(self, value: object, index: int | None) -> None:
        found = VolumeArguments.norm(self.many(channel=value)).channel_index
        assert (found, type(found)) == (index, type(index))

    @pytest.mark.parametrize("value", [-1, 1.0, "0", "any", True, False, [0], (0, 1), {}, 1.5, np.float64(2)], ids=repr)
    def test_what_is_no_index(self, value: object) -> None:
        with pytest.raises(ArgumentError, match=r"is not the index of a channel: give 0, 1, ... or 'all'") as caught:
            VolumeArguments.norm(self.many(channel=value))
        assert f"channel={value!r}" in str(caught.value)

    @pytest.mark.parametrize("value", [12, 13, 10**30])
    def test_beyond_the_last(self, value: int) -> None:
        with pytest.raises(
            ArgumentError, match=f"channel={value}: raw has 12 channels, 0 to 11; or give channel='all'"
        ):
            VolumeArguments.norm(self.many(channel=value))

    def test_beyond_the_last_of_a_channel_that_is_not_read(self) -> None:
        assert VolumeArguments.norm(self.many(channel=12, channels=["labels"])).channel_index == 12

    def test_how_many_there_are_need_not_be_known(self) -> None:
        assert VolumeArguments.norm(arguments(channel=99)).channel_index == 99

    @pytest.mark.parametrize("value", ["raw", ["raw"], ("labels", "raw")])
    def test_names_belong_to_channels(self, value: object) -> None:
        with pytest.raises(UnknownArgumentError, match=r"is not an index. Did you mean 'channels'?"):
            VolumeArguments.norm(self.many(channel=value))

    @pytest.mark.parametrize("count", [0, -1, 1.5, True, "3"], ids=repr)
    def test_how_many_there_are_is_a_number(self, count: object) -> None:
        with pytest.raises(CatalogError, match=r"volumes.raw.num_channels: "):
            VolumeArguments.norm(arguments(volumes={"raw": channel(num_channels=count)}))


class TestAlign:
    """``align=``."""

    def test_values(self) -> None:
        assert not VolumeArguments.norm(arguments()).nearest
        assert not VolumeArguments.norm(arguments(align=None)).nearest
        assert VolumeArguments.norm(arguments(align="nearest")).nearest

    @pytest.mark.parametrize("value", ["Nearest", "linear", "", True, 1, ["nearest"]], ids=repr)
    def test_mistakes(self, value: object) -> None:
        with pytest.raises(ArgumentError, match="is not a way to align channels; there is 'nearest'") as caught:
            VolumeArguments.norm(arguments(align=value))
        assert f"align={value!r}" in str(caught.value)


class TestBoxOfAVariant:
    """An entry's own box may depend on its parameters."""

    boxes: ClassVar[dict[str, Any]] = {
        "a": {"x": [0, 1], "y": [0, 2], "z": [0, 3], "units": "nm"},
        "b": {"x": [4, 5], "y": [4, 6], "z": [4, 7], "units": "nm"},
    }

    def own(self, variant: str, **changes: Any) -> dict[str, Any]:
        return arguments(bbox={"variant": variant, "variants": self.boxes}, **{"units": "nm", **changes})

    def test_is_chosen(self) -> None:
        assert VolumeArguments.norm(self.own("a")).box_nm == NmBox((0, 0, 0), (3, 2, 1))
        assert VolumeArguments.norm(self.own("b")).box_nm == NmBox((4, 4, 4), (7, 6, 5))

    def test_there_is_none(self) -> None:
        with pytest.raises(NoVariantError, match="bbox: there is no 'c'; there are a, b"):
            VolumeArguments.norm(self.own("c"))

    def test_units_alone_do_not_make_it_another(self) -> None:
        with pytest.raises(ArgumentError, match="this one is in units of 'nm'; give both"):
            VolumeArguments.norm(self.own("a", units="voxel"))

    def test_a_callers_box_wins(self) -> None:
        source = emcatalog.catalog.wildenberg2023(bbox=(0, 120, 0, 120, 0, 400), units="nm")
        assert source.arguments.box_nm == NmBox((0, 0, 0), (400, 120, 120))

    def test_of_both_experiments(self) -> None:
        entry = emcatalog.catalog.wildenberg2023
        assert entry.arguments.box_nm == entry(experiment="p105").arguments.box_nm
        assert entry(experiment="p105").arguments.box_nm == NmBox((160, 576, 576), (36320, 136512, 120576))
        assert entry(experiment="p14").arguments.box_nm == NmBox((0, 0, 0), (52320, 115200, 80256))


def crops() -> dict[str, Any]:
    """A catalog whose two parameters do not go together in all ways: there is no small crop 1."""
    data = catalog()
    parameter = {"description": "d", "type": "str"}
    entry_of(data)["parameters"] = {
        "size": {**parameter, "default": "big", "allowed": ["big", "small"]},
        "crop": {**parameter, "default": "0", "allowed": ["0", "1"]},
    }
    entry_of(data)["args"]["volumes"]["raw"] = channel(
        variant="{{ size }} {{ crop }}", variants={"big 0": {}, "big 1": {}, "small 0": {"dtype": "uint16"}}
    )
    return data


def variants_of(data: dict[str, Any]) -> Any:
    return entry_of(data)["args"]["volumes"]["raw"]["variants"]


class TestCombinations:
    """Parameters whose values do not all go together."""

    def test_not_all_need_exist(self) -> None:
        assert check_catalog(crops(), "good.yaml")

    @pytest.mark.parametrize(
        ("edit", "says"),
        [
            (
                lambda v: v.pop("big 0"),
                r"\(with \{'size': 'big', 'crop': '0'\}\): .*no 'big 0'; there are big 1, small 0",
            ),
            (
                lambda v: v.pop("small 0"),
                r"\(with \{'size': 'small', 'crop': '1'\}\): volumes.raw: there is no 'small 1'",
            ),
            (lambda v: v.pop("big 1"), r"\(with .*'crop': '1'\}\): volumes.raw: there is no"),
            (lambda v: v.update({"huge 0": {}}), r"volumes.raw.variants: nothing chooses huge 0"),
            (lambda v: v.update({"b 1": {}, "a 1": {}}), r"volumes.raw.variants: nothing chooses a 1, b 1"),
            (lambda v: v["big 1"].update(dtype="int3"), r"\(with .*'big', 'crop': '1'\}\): volumes.raw.dtype"),
        ],
        ids=["the default", "a value in no combination", "the other", "a variant too many", "two of them", "a bad one"],
    )
    def test_mistakes(self, edit: Edit, says: str) -> None:
        data = crops()
        edit(variants_of(data))
        with pytest.raises(CatalogError, match=f"^the/file.yaml: sources.tissue.args.*{says}"):
            check_catalog(data, "the/file.yaml")

    def test_a_variant_of_a_box_too_many(self) -> None:
        data = crops()
        box = {"x": [0, 1], "y": [0, 1], "z": [0, 1], "units": "voxel"}
        entry_of(data)["args"]["bbox"] = {"variant": "{{ size }}", "variants": {"big": box, "small": box, "huge": box}}
        with pytest.raises(CatalogError, match=r"sources.tissue.args.bbox.variants: nothing chooses huge"):
            check_catalog(data, "the/file.yaml")

    def test_without_parameters_there_must_be_one(self) -> None:
        data = catalog()
        entry_of(data)["parameters"] = {}
        entry_of(data)["args"]["volumes"]["raw"] = channel(variant="v3", variants={"v1": {}})
        with pytest.raises(CatalogError, match=r"volumes.raw: there is no 'v3'; there are v1"):
            check_catalog(data, "the/file.yaml")

    @pytest.mark.parametrize("nested", [{"variants": {}}, {"variant": ["v1"], "variants": {}}], ids=str)
    def test_a_variant_within_a_variant_that_nothing_chooses(self, nested: dict[str, Any]) -> None:
        data = catalog()
        variants_of(data)["v3"] = nested
        with pytest.raises(CatalogError, match="nothing chooses v3"):
            check_catalog(data, "the/file.yaml")

    def test_a_channel_may_have_any_name(self) -> None:
        data = catalog()
        volumes = entry_of(data)["args"]["volumes"]
        volumes["variants"] = volumes["raw"]
        assert check_catalog(data, "good.yaml")

    def test_a_crop_that_there_is_not(self) -> None:
        entry = emcatalog.catalog.e11bio_prism
        assert entry(split="semantic", crop="16").channels["labels"].kind == "semantic"
        with pytest.raises(
            NoVariantError, match=r"there is no 'instance 14'; there are instance 0, .*semantic 16"
        ) as e:
            entry(split="instance", crop="14")
        assert isinstance(e.value, ArgumentError)

    @pytest.mark.parametrize(("crop", "count"), [("0", 18), ("4", 18), ("5", 12), ("11", 12), ("12", 10), ("13", 11)])
    def test_channels_of_a_crop(self, crop: str, count: int) -> None:
        entry = emcatalog.catalog.e11bio_prism
        assert entry(crop=crop, channel=count - 1).arguments.channel_index == count - 1
        with pytest.raises(ArgumentError, match=f"channel={count}: raw has {count} channels, 0 to {count - 1}"):
            entry(crop=crop, channel=count)


class TestCheckCatalog:
    """A catalog file: the message names file, entry and key."""

    def test_a_good_one(self) -> None:
        model = check_catalog(catalog(), "good.yaml")
        assert list(model.sources) == ["tissue", "more"]

    @pytest.mark.parametrize(
        ("edit", "says"),
        [
            (lambda c: c.update(plugins={}), "plugins: there is no such key"),
            (lambda c: c.pop("sources"), "sources: it is missing"),
            (lambda c: c.update(sources=[]), r"sources: .*not \[\]"),
            (lambda c: c.update(metadata={"parameters": {}}), "metadata.parameters: parameters belong to an entry"),
            (lambda c: c.update(metadata={"version": 2}), "metadata.version: .*version 1"),
            (lambda c: entry_of(c).update(driver="csv"), "sources.tissue.driver: .*'em_volume'.*not 'csv'"),
            (lambda c: entry_of(c).update(diver="x"), "sources.tissue.diver: .*Did you mean 'driver'"),
            (lambda c: entry_of(c).pop("args"), "sources.tissue.args: it is missing"),
            (lambda c: entry_of(c).pop("description"), "sources.tissue.description: it is missing"),
            (lambda c: entry_of(c)["args"].update(voxelsize=8), "sources.tissue.args .*no argument 'voxelsize'"),
            (lambda c: entry_of(c)["args"].update(bbox=[1, 2]), "sources.tissue.args .*2 numbers"),
            (lambda c: entry_of(c)["args"].update(channels=["rw"]), "sources.tissue.args .*Did you mean 'raw'"),
            (lambda c: entry_of(c)["args"].update(resolution="x"), "sources.tissue.args .*resolution='x'"),
            (
                lambda c: entry_of(c)["args"].update(cache_dir="/tmp"),
                "sources.tissue.args.cache_dir: a caller's choice",
            ),
            (lambda c: entry_of(c)["args"].update(offline=True), "sources.tissue.args.offline: a caller's choice"),
            (lambda c: entry_of(c)["metadata"].pop("licence"), "sources.tissue.metadata.licence: it is missing"),
            (lambda c: entry_of(c)["metadata"].update(sources=[]), "sources.tissue.metadata.sources"),
            (
                lambda c: entry_of(c)["args"]["volumes"]["raw"]["variants"].update({1.0: {}}),
                "sources.tissue.args.volumes.raw.variants: the key 1.0 is not text; quote it",
            ),
            (
                lambda c: entry_of(c)["args"]["volumes"]["raw"].update(dtype="float8"),
                r"sources.tissue.args \(with \{'version': 'v1'\}\): volumes.raw.dtype: .*not 'float8'",
            ),
            (
                lambda c: entry_of(c)["args"]["volumes"]["raw"]["variants"]["v2"].update(shape=[0, 1, 1]),
                r"sources.tissue.args \(with \{'version': 'v2'\}\): volumes.raw.shape.0",
            ),
            (
                lambda c: entry_of(c)["parameters"]["version"]["allowed"].append("v3"),
                r"sources.tissue.args \(with \{'version': 'v3'\}\): volumes.raw: there is no 'v3'; there are v1, v2",
            ),
            (
                lambda c: entry_of(c)["parameters"]["version"]["allowed"].append(".."),
                r"sources.tissue.args \(with \{'version': '..'\}\)",
            ),
            (
                lambda c: entry_of(c)["parameters"]["version"].update(default="v9"),
                "sources.tissue.parameters.version: the default 'v9' is not among",
            ),
            (
                lambda c: entry_of(c)["parameters"]["version"].update(type="list"),
                "sources.tissue.parameters.version.type: .*'str', not 'list'",
            ),
            (
                lambda c: entry_of(c)["parameters"]["version"].update(allowed=[1.0]),
                "sources.tissue.parameters.version.allowed.0: .*not 1.0",
            ),
            (
                lambda c: entry_of(c)["parameters"]["version"].update(min="a"),
                "sources.tissue.parameters.version.min: there is no such key",
            ),
            (
                lambda c: entry_of(c)["parameters"].update(crop=entry_of(c)["parameters"]["version"]),
                "sources.tissue.parameters.crop: no template uses it",
            ),
            (
                lambda c: c["sources"]["more"]["args"].update(path="more.yaml"),
                "sources.more.args: a sub-catalog is a file",
            ),
            (lambda c: c["sources"]["more"]["args"].clear(), "sources.more.args: a sub-catalog is a file"),
        ],
    )
    def test_mistakes(self, edit: Edit, says: str) -> None:
        data = catalog()
        edit(data)
        with pytest.raises(CatalogError, match=f"^the/file.yaml: {says}") as caught:
            check_catalog(data, "the/file.yaml")
        assert isinstance(caught.value, ValueError)

    @pytest.mark.parametrize("data", [None, [], "text", 5], ids=repr)
    def test_not_a_mapping(self, data: object) -> None:
        with pytest.raises(CatalogError, match=r"^the/file.yaml (is empty|holds).*a mapping with the key 'sources'"):
            check_catalog(data, "the/file.yaml")

    @pytest.mark.parametrize("name", ["", "a b", "a.b", "../a", "{{ a }}", "a/b", "é"])
    def test_names_of_entries_can_be_typed(self, name: str) -> None:
        data = catalog()
        data["sources"][name] = data["sources"].pop("tissue")
        with pytest.raises(CatalogError, match="an entry's name is"):
            check_catalog(data, "the/file.yaml")

    def test_too_many_combinations_are_refused_at_once(self) -> None:
        data = catalog()
        values = [f"v{i}" for i in range(40)]
        for name in ("one", "two", "three", "four"):
            parameter = {"description": "d", "type": "str", "default": "v1", "allowed": values}
            entry_of(data)["parameters"][name] = parameter
            entry_of(data)["args"]["volumes"]["raw"]["note"] = "{{ one }}{{ two }}{{ three }}{{ four }}"
        with pytest.raises(CatalogError, match="more than 1000 combinations"):
            check_catalog(data, "the/file.yaml")

    def test_does_not_change_what_it_checks(self) -> None:
        data = catalog()
        check_catalog(data, "good.yaml")
        assert data == catalog() == copy.deepcopy(data)


@pytest.mark.parametrize("model", [CatalogModel, VolumeArguments, EntryMetadata])
def test_json_schema(model: Any) -> None:
    schema = json.loads(json.dumps(model.model_json_schema()))
    assert set(schema["properties"]) == set(model.model_fields)


def test_json_schema_takes_a_number_for_a_cube() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = VolumeArguments.model_json_schema()
    jsonschema.validate(arguments(voxel_size=8), schema)
    jsonschema.validate(arguments(voxel_size=[8, 8, 40]), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(arguments(voxel_size=[8, 8]), schema)


def test_a_catalog_does_not_choose_who_sees_credentials() -> None:
    with pytest.raises(ValueError, match="AWS_ENDPOINT_URL"):
        StorageOptions(anonymous=False, endpoint_url="https://stranger.example")
    assert StorageOptions(endpoint_url="https://minio.example").anonymous


class TestUnitsAlone:
    """A caller who gives units and no box must not have the entry's own box taken for another."""

    def test_of_the_entrys_own_box(self) -> None:
        source = emcatalog.catalog.malecns
        assert source(units="voxel").arguments.box_nm == source.arguments.box_nm
        with pytest.raises(ArgumentError, match=r"without a bbox.*'voxel'.*give both"):
            source(units="nm")

    def test_that_there_are_not(self) -> None:
        with pytest.raises(ArgumentError, match=r"furlong.*'voxel' or 'nm'"):
            emcatalog.catalog.demo(units="furlong")
