"""What a person sees of a source, without a request."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

import emcatalog
from emcatalog.cli.entry import find
from emcatalog.describe.page import as_html, as_text, format_bytes
from emcatalog.describe.volume import describe_volume, remote_size, stored_size
from emcatalog.entries.volume import ChannelModel, VolumeArguments
from tests.conftest import channel as model_of
from tests.replica.server import serve
from tests.test_cli import call

CATALOGS = Path(emcatalog.CATALOG).parent


def channel(**changes: Any) -> dict[str, Any]:
    url = "precomputed://gs://bucket/em"
    return {"url": url, "kind": "image", "dtype": "uint16", "voxel_size": [4, 5, 40], "source": "a test", **changes}


def text(volumes: dict[str, Any], metadata: dict[str, Any] | None = None, **arguments: Any) -> str:
    parsed = VolumeArguments.norm({"volumes": volumes, "voxel_size": [4, 5, 40], **arguments})
    return as_text("tissue", "Some tissue", metadata or {}, describe_volume(parsed))


def html(volumes: dict[str, Any], **arguments: Any) -> str:
    return as_html(
        "tissue",
        "",
        {},
        describe_volume(VolumeArguments.norm({"volumes": volumes, "voxel_size": [4, 5, 40], **arguments})),
    )


def cells(html: str) -> list[list[str]]:
    """Rows of all tables; parsing them shows that the markup is whole."""
    return [["".join(cell.itertext()) for cell in row] for row in ElementTree.fromstring(html).iter("tr")]


def rows_of(described: str) -> dict[str, str]:
    """The lines of a repr below its first, by the word that they begin with."""
    return dict(re.findall(r"^  (not read|\S+) +(.*)$", described, re.M))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody opens a connection."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was asked for")

    monkeypatch.setattr(socket, "socket", refuse)


class TestText:
    """The ``repr``."""

    def test_the_shipped_entry(self, catalog: Any) -> None:
        first, *lines = repr(catalog.malecns).splitlines()
        scales = "8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192 nm"
        assert first == "<malecns> Male fruit fly central nervous system, 8 nm FIB-SEM with proofread neurons"
        assert [line.split(maxsplit=1) for line in lines[:2]] == [
            [
                "raw",
                f"image, uint8, 94088 x 78317 x 134576; voxels of 8 nm, scales {scales};"
                " 992 TB of voxels, stored in about 169 TB (estimated)",
            ],
            [
                "labels",
                f"instances, uint64, 94088 x 77248 x 134592; voxels of 8 nm, scales {scales};"
                " 7.83 PB of voxels, stored in about 78.3 TB (estimated)",
            ],
        ]
        assert [line.split()[0] for line in lines[2:]] == ["box", "resolution", "size", "licence", "citation", "doi"]
        rows = rows_of(repr(catalog.malecns))
        assert rows["box"] == "x 320000..328192, y 320000..328192, z 160000..168192 nm"
        assert rows["size"] == "1,073.7 Mvoxel, 9,663.7 MB as read"
        assert rows["licence"] == "CC BY 4.0"
        assert rows["citation"].startswith("Male CNS connectome, Cell 189")
        assert rows["doi"] == "10.1016/j.cell.2026.08.015"

    def test_follows_what_was_asked_for(self, catalog: Any) -> None:
        box = (0, 128, 0, 64, 0, 64)
        described = repr(catalog.malecns(bbox=box, resolution=16, channels=["labels"], version="v1.0"))
        rows = rows_of(described)
        assert "94088 x 78317 x 134576" in rows["labels"]
        assert "raw" not in rows
        assert rows["not read"] == "raw"
        assert rows["resolution"] == "16 x 16 x 16 nm"
        assert rows["size"] == f"{64 * 32 * 32 / 1e6:.1f} Mvoxel, {8 * 64 * 32 * 32 / 1e6:.1f} MB as read"

    def test_sizes_are_x_first_and_bytes_are_of_all_channels(self) -> None:
        described = text({"a": channel(shape=[1, 2, 3]), "b": channel(dtype="uint8")}, bbox=(0, 100, 0, 200, 0, 300))
        assert "image, uint16, 1 x 2 x 3; voxels of 4 x 5 x 40 nm" in described
        assert "image, uint8, extent not confirmed; voxels of 4 x 5 x 40 nm" in described
        assert "x 0..400, y 0..1000, z 0..12000 nm" in described
        assert "6.0 Mvoxel, 18.0 MB as read" in described

    def test_names_of_channels_that_are_those_of_facts_do_not_hide_them(self) -> None:
        lines = text({"box": channel(), "size": channel(dtype="int8")}, bbox=(0, 1, 0, 1, 0, 1)).splitlines()
        assert [line.split()[0] for line in lines[1:]] == ["box", "size", "box", "resolution", "size"]

    @pytest.mark.parametrize(
        ("scales", "says"),
        [
            ([[4, 5, 40]], "4 x 5 x 40 nm"),
            ([[4, 5, 40], 16, 32, 64, 128], "4 x 5 x 40, 16, 32, 64, 128 nm"),
            ([[4, 5, 40], 43.58], "4 x 5 x 40, 43.58 nm"),
            ([], "4 x 5 x 40 nm"),
        ],
    )
    def test_every_scale_is_named(self, scales: list[Any], says: str) -> None:
        assert f"voxels of 4 x 5 x 40 nm, scales {says}; size not confirmed\n" in text({"a": channel(scales=scales)})

    def test_an_address_that_is_not_confirmed_stands_out(self) -> None:
        described = text({"a": channel(unconfirmed="a guess"), "b": channel()}, channels=["a"])
        assert "(ADDRESS NOT CONFIRMED)" in rows_of(described)["a"]
        assert rows_of(described)["not read"] == "b"
        described = text({"a": channel(unconfirmed="a guess"), "b": channel()}, channels=["b"])
        assert "NOT CONFIRMED" not in rows_of(described)["b"]
        assert rows_of(described)["not read"] == "a (ADDRESS NOT CONFIRMED)"


class TestBox:
    """What a read would give."""

    def test_the_whole_extent_where_it_is_not_confirmed(self) -> None:
        described = text({"a": channel()})
        assert rows_of(described)["box"] == "whole extent"
        assert "Mvoxel" not in described

    def test_the_whole_extent_where_it_is_declared(self) -> None:
        rows = rows_of(text({"a": channel(shape=[100, 50, 10], offset=[1, 2, 3]), "b": channel()}, channels="a"))
        assert rows["box"] == "whole extent, x 4..404, y 10..260, z 120..520 nm"
        assert rows["size"] == "0.1 Mvoxel, 0.1 MB as read"

    def test_extents_that_differ_are_not_guessed_at(self) -> None:
        volumes = {"a": channel(shape=[100, 50, 10]), "b": channel(shape=[100, 50, 9])}
        assert rows_of(text(volumes))["box"] == "whole extent"

    @pytest.mark.parametrize(
        ("asked", "says", "nbytes"), [(None, "all", 12 + 1), ("all", "all", 12 + 1), (2, "2", 1 + 1)]
    )
    def test_bytes_are_of_the_channels_that_are_read(self, asked: object, says: str, nbytes: int) -> None:
        volumes = {"raw": channel(dtype="uint8", num_channels=12), "labels": channel(dtype="uint8")}
        rows = rows_of(text(volumes, bbox=(0, 100, 0, 100, 0, 100), channel=asked))
        assert rows["channel"] == says
        assert rows["size"] == f"1.0 Mvoxel, {nbytes}.0 MB as read"

    def test_a_channel_is_not_spoken_of_where_there_is_none(self) -> None:
        assert "channel" not in rows_of(text({"a": channel()}))


class TestSizes:
    """Bytes on the remote."""

    @pytest.mark.parametrize(
        ("number", "says"),
        [
            (0, "0 B"),
            (999, "999 B"),
            (999.6e6, "1 GB"),
            (1000, "1 kB"),
            (525360000000, "525 GB"),
            (7.83e15, "7.83 PB"),
            (2e18, "2 EB"),
        ],
    )
    def test_units(self, number: float, says: str) -> None:
        assert format_bytes(number) == says

    @pytest.mark.parametrize(
        ("keys", "says"),
        [
            ({}, "size not confirmed"),
            ({"stored_bytes": 5000}, "size not confirmed, stored in 5 kB"),
            ({"shape": [100, 10, 10]}, "20 kB of voxels"),
            ({"shape": [100, 10, 10], "num_channels": 3}, "60 kB of voxels"),
            ({"shape": [100, 10, 10], "stored_bytes": 5000}, "20 kB of voxels, stored in 5 kB"),
            ({"shape": [100, 10, 10], "encoding": "jpeg"}, "20 kB of voxels, stored in about 3.4 kB (estimated)"),
            (
                {"shape": [100, 10, 10], "encoding": "tiff lzw, strips of 1 row"},
                "20 kB of voxels, stored in about 22 kB (estimated)",
            ),
        ],
    )
    def test_of_a_volume(self, keys: dict[str, Any], says: str) -> None:
        assert remote_size(model_of("precomputed://gs://b/em", "uint16", **keys)) == says

    @pytest.mark.parametrize(
        ("volumes", "says"),
        [
            ([{}], "size not confirmed"),
            ([{"stored_bytes": 5000}], "5 kB"),
            ([{"stored_bytes": 5000}, {"stored_bytes": 6000}], "11 kB"),
            ([{"stored_bytes": 5000}, {"shape": [10, 10, 10]}], "about 7 kB"),
            ([{"shape": [10, 10, 10], "encoding": "jpeg"}], "about 340 B"),
            ([{"stored_bytes": 5000}, {}], "more than 5 kB"),
        ],
    )
    def test_of_an_entry(self, volumes: list[dict[str, Any]], says: str) -> None:
        models: list[ChannelModel] = [model_of("precomputed://gs://b/em", "uint16", **keys) for keys in volumes]
        assert stored_size(models) == says


class TestHtml:
    """What a notebook shows."""

    def test_has_a_row_for_each_channel_and_fact(self, catalog: Any) -> None:
        rows = cells(catalog.malecns._repr_html_())
        assert rows[0] == ["channel", "kind", "dtype", "extent (x, y, z)", "voxel", "scales", "on the remote"]
        assert rows[1][:5] == ["raw", "image", "uint8", "94088 x 78317 x 134576", "8 nm"]
        assert rows[2][:5] == ["labels", "instances", "uint64", "94088 x 77248 x 134592", "8 nm"]
        facts = dict(row for row in rows[3:])
        assert facts["licence"] == "CC BY 4.0"
        assert facts["homepage"] == "https://male-cns.janelia.org"
        assert facts["resolution"] == "8 x 8 x 8 nm"
        assert facts["box"] == "x 320000..328192, y 320000..328192, z 160000..168192 nm"

    def test_all_that_is_declared_of_a_channel(self) -> None:
        declared = channel(
            shape=[10, 20, 30], offset=[1, 0, 2], num_channels=4, scales=[[4, 5, 40], [8, 10, 40]], chunk=[5, 6, 7],
            encoding="blosc", axes="yxz", note="a note", source="a paper", unconfirmed="a guess", stored_bytes=9000,
        )  # fmt: skip
        facts = dict(row for row in cells(html({"a": declared})) if len(row) == 2)
        assert facts["NOT CONFIRMED"] == "a guess"
        assert facts["extent"] == "10 x 20 x 30 voxels of 4 x 5 x 40 nm (x, y, z): 0.04 x 0.1 x 1.2 um"
        assert facts["starts at"] == "voxel 1, 0, 2"
        assert facts["channels"] == "4"
        assert facts["resolutions"] == "4 x 5 x 40, 8 x 10 x 40 nm"
        assert facts["chunk"] == "5 x 6 x 7 voxels, blosc"
        assert facts["address"] == "precomputed://gs://bucket/em"
        assert facts["axes"] == "stored x, y, z are y, x, z in space"
        assert (facts["note"], facts["numbers from"]) == ("a note", "a paper")

    def test_an_address_that_is_not_confirmed_stands_out(self) -> None:
        volumes = {"sure": channel(), "guessed": channel(unconfirmed="nobody <knows>"), "more": channel()}
        page = ElementTree.fromstring(html(volumes, channels=["sure"]))
        bold = ["".join(node.itertext()) for node in page.iter("b")]
        assert bold == ["tissue", "extent not confirmed (ADDRESS NOT CONFIRMED)", "NOT CONFIRMED"]
        rows = cells(html(volumes, channels=["sure"]))
        assert [row[0] for row in rows[1:4]] == ["sure", "guessed (not read)", "more (not read)"]
        assert ["NOT CONFIRMED", "nobody <knows>"] in rows

    def test_is_escaped(self) -> None:
        """A catalog from elsewhere writes these texts, and a notebook would run what it finds in them."""
        evil = "<script>alert(1)</script>"
        sources = {"note": evil, "source": evil, "unconfirmed": evil, "encoding": evil}
        parsed = VolumeArguments.norm({"volumes": {"raw": channel(**sources)}, "voxel_size": 8})
        metadata = {"licence": evil, "homepage": f'"{evil}', "citation": "a & b", "sources": [evil], "title": evil}
        page = as_html(evil, evil, metadata, describe_volume(parsed))
        assert "<script" not in page
        assert page.count("&lt;script&gt;") == 2 + len(sources) + 4
        assert ["citation", "a & b"] in cells(page)


def test_no_request_is_made(catalog: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(tmp_path) as server:
        monkeypatch.setenv("EMCATALOG_MIRRORS", json.dumps({"gs://": server.url}))
        source = catalog.malecns
        assert repr(source)
        assert source._repr_html_()
        assert server.count() == 0


# ---- every shipped entry ----


def shipped() -> dict[str, dict[str, Any]]:
    """Every volume entry of the shipped files by its dotted name, as YAML states it."""
    root = yaml.safe_load((CATALOGS / "catalog.yaml").read_text())["sources"]
    more = yaml.safe_load((CATALOGS / "malecns_data.yaml").read_text())["sources"]
    named = {**root, **{f"malecns_data.{name}": entry for name, entry in more.items()}}
    return {name: with_defaults(entry) for name, entry in named.items() if entry["driver"] == "em_volume"}


def with_defaults(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry with its parameters' defaults filled in and their variants merged."""
    filled = json.dumps(entry)
    for name, parameter in entry.get("parameters", {}).items():
        filled = filled.replace(f"{{{{ {name} }}}}", parameter["default"])
    entry = json.loads(filled)
    volumes = entry["args"]["volumes"]
    entry["args"]["volumes"] = {
        name: {**volume, **volume.get("variants", {}).get(volume.get("variant"), {})}
        for name, volume in volumes.items()
    }
    return dict(entry)


ENTRIES = shipped()
NEAR = "x 320000..328192, y 320000..328192, z 160000..168192 nm"
BOXES = {
    "demo": "whole extent, x 0..2048, y 0..2048, z 0..2048 nm",
    "malecns": NEAR,
    "wildenberg2023": "x 576..120576, y 576..136512, z 160..36320 nm",
    "human_liver": "whole extent, x 0..160000, y 0..160000, z 0..32835 nm",
    "e11bio_prism": "whole extent",
    "malecns_data.em_clahe": NEAR,
    "malecns_data.segmentation": NEAR,
    "malecns_data.em_n5": NEAR,
    "malecns_data.nuclei": NEAR,
    "malecns_data.rois_brain": "whole extent",
    "malecns_data.rois_vnc": "whole extent",
}
MASK = "239 GB of voxels, stored in about 4.78 GB (estimated)"
MALE_RAW = "992 TB of voxels, stored in about 169 TB (estimated)"
MALE_LABELS = "7.83 PB of voxels, stored in about 78.3 TB (estimated)"
UNKNOWN = "size not confirmed"
MASKS = "er mito nucleus bile_duct cell_boundary cholangiocyte endothelial hepatocyte sinusoid"
SIZES: dict[str, dict[str, str]] = {
    "demo": {
        "raw": "16.8 MB of voxels, stored in about 2.85 MB (estimated)",
        "labels": "134 MB of voxels, stored in about 1.34 MB (estimated)",
    },
    "malecns": {"raw": MALE_RAW, "labels": MALE_LABELS},
    "wildenberg2023": {
        "raw": UNKNOWN,
        "psd": "102 GB of voxels",
        "vesicle_cloud": "102 GB of voxels",
        "saturated": "410 GB of voxels",
    },
    "human_liver": {"raw": "478 GB of voxels, stored in 525 GB", **dict.fromkeys(MASKS.split(), MASK)},
    "e11bio_prism": {"raw": "2.28 GB of voxels", "labels": "400 MB of voxels"},
    "malecns_data.em_clahe": {"raw": MALE_RAW},
    "malecns_data.segmentation": {"labels": MALE_LABELS},
    "malecns_data.em_n5": {"raw": UNKNOWN},
    "malecns_data.nuclei": {"nuclei": UNKNOWN},
    "malecns_data.rois_brain": {"rois": UNKNOWN},
    "malecns_data.rois_vnc": {"rois": UNKNOWN},
}


def length(size: Any) -> str:
    """A voxel size of the YAML as a person reads it."""
    edges = size if isinstance(size, list) else [size]
    return str(edges[0]) if len(set(edges)) == 1 else " x ".join(map(str, edges))


def facts_of(name: str, channel: str) -> dict[str, str]:
    """What must be said of a channel, taken from the YAML."""
    volume = ENTRIES[name]["args"]["volumes"][channel]
    scales = volume.get("scales", [volume["voxel_size"]])
    return {
        "kind": volume["kind"],
        "dtype": volume["dtype"],
        "extent": " x ".join(map(str, volume["shape"])) if "shape" in volume else "not confirmed",
        "voxel size": f"{length(volume['voxel_size'])} nm",
        "scales": f"{', '.join(map(length, scales))} nm",
        "size": SIZES[name][channel],
        "channels": str(volume.get("num_channels", "")),
    }


def assert_said(shown: str, name: str, channel: str) -> None:
    for fact, words in facts_of(name, channel).items():
        assert words in shown, (name, channel, fact)
    doubtful = "unconfirmed" in ENTRIES[name]["args"]["volumes"][channel]
    assert ("ADDRESS NOT CONFIRMED" in shown) == doubtful, (name, channel)


def read_by_default(name: str) -> list[str]:
    args = ENTRIES[name]["args"]
    return list(args.get("channels", args["volumes"]))


def squeezed(shown: str) -> str:
    """Without the spaces that a table is filled up with, one fact a line."""
    return "\n".join(" ".join(line.split()) for line in shown.splitlines())


@pytest.mark.usefixtures("no_network")
class TestEveryEntry:
    """Every fact of every shipped entry, in every way to look at it, with the network forbidden."""

    def test_the_tables_above_name_every_entry_and_channel(self) -> None:
        assert list(BOXES) == list(SIZES) == list(ENTRIES)
        assert {name: list(sizes) for name, sizes in SIZES.items()} == {
            name: list(entry["args"]["volumes"]) for name, entry in ENTRIES.items()
        }
        assert sum("unconfirmed" in v for e in ENTRIES.values() for v in e["args"]["volumes"].values()) == 7

    @pytest.mark.parametrize("name", ENTRIES)
    def test_info(self, name: str) -> None:
        self.assert_complete(call("info", name, env={"COLUMNS": "1000"}).stdout, name)

    def test_list_long(self) -> None:
        shown = call("list", "--long", env={"COLUMNS": "1000"}).stdout
        places = [shown.index(call("info", name, env={"COLUMNS": "1000"}).stdout) for name in ENTRIES]
        assert places == sorted(places)
        assert shown.index("malecns_data  Everything else") < places[-1]

    def assert_complete(self, shown: str, name: str) -> None:
        """An entry as ``info`` prints it."""
        heading, *blocks = re.split(r"\n\s*\n", squeezed(shown))
        entry, channels = ENTRIES[name], {block.split()[0]: block for block in blocks}
        assert heading == f"{name} {entry['description']}"
        assert set(entry["args"]["volumes"]) < set(channels)
        for channel in entry["args"]["volumes"]:
            assert_said(channels[channel], name, channel)
            assert ("not read unless" in channels[channel]) == (channel not in read_by_default(name))
        assert f"\nbox {BOXES[name]}\n" in channels["what"]
        assert f"\nlicence {entry['metadata']['licence']}\n" in channels["about"]
        assert f"\ncitation {entry['metadata']['citation']}\n" in channels["about"]

    @pytest.mark.parametrize("name", ENTRIES)
    def test_html(self, name: str) -> None:
        rows = cells(find(emcatalog.catalog, name)._repr_html_())
        for channel in ENTRIES[name]["args"]["volumes"]:
            (row,) = [row for row in rows if len(row) > 2 and row[0].split()[0] == channel]
            assert_said("\n".join(row), name, channel)
            assert ("(not read)" in row[0]) == (channel not in read_by_default(name))
        assert ["box", BOXES[name]] in rows
        assert ["licence", ENTRIES[name]["metadata"]["licence"]] in rows
        assert ["citation", ENTRIES[name]["metadata"]["citation"]] in rows

    @pytest.mark.parametrize("name", ENTRIES)
    def test_repr(self, name: str) -> None:
        shown = repr(find(emcatalog.catalog, name))
        rows = rows_of(shown)
        for channel in ENTRIES[name]["args"]["volumes"]:
            if channel in read_by_default(name):
                assert_said(rows[channel], name, channel)
            else:
                assert f"{channel} (ADDRESS NOT CONFIRMED)" in rows["not read"]
        assert rows["box"] == BOXES[name]
        assert rows["licence"] == ENTRIES[name]["metadata"]["licence"]
        assert rows["citation"] == ENTRIES[name]["metadata"]["citation"]

    def test_list(self) -> None:
        lines = call("list", env={"COLUMNS": "400"}).stdout.splitlines()
        for name, entry in ENTRIES.items():
            start = next(i for i, line in enumerate(lines) if line.split()[:1] == [name])
            row = " ".join(re.sub(r"\s+", " ", line) for line in lines[start : start + 3])
            first = read_by_default(name)[0]
            assert ", ".join(read_by_default(name)) in row
            assert facts_of(name, first)["extent"] in row
            assert f"voxels of {length(entry['args']['voxel_size'])} nm" in row
            assert entry["metadata"]["licence"] in row
        shown = squeezed("\n".join(lines))
        assert "raw, er, mito, nucleus and 6 more (6 NOT CONFIRMED)" in shown
        assert "raw (NOT CONFIRMED)" in shown
        assert "more than 614 GB" in shown  # wildenberg2023: three of four extents are known
        assert "about 568 GB" in shown  # human_liver: the image, and nine masks

    @pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
    def test_nothing_is_wider_than_the_terminal(self, width: int) -> None:
        for arguments in (("list",), ("list", "--long"), ("list", "malecns_data"), ("info", "human_liver")):
            shown = call(*arguments, env={"COLUMNS": str(width)}).stdout
            assert max(len(line.rstrip()) for line in shown.splitlines()) <= width, arguments

    def test_list_long_of_a_sub_catalog(self) -> None:
        shown = call("list", "malecns_data", "--long").stdout
        assert "malecns_data.nuclei" in shown
        assert "segment_properties" in shown
        assert "human_liver" not in shown


def test_a_parameter_of_an_empty_word_is_shown_as_it_is_typed() -> None:
    assert "--folder Where in the bucket" in squeezed(call("info", "malecns_data.em_n5").stdout)
    assert '"", s0 (default "")' in squeezed(call("info", "malecns_data.em_n5", env={"COLUMNS": "300"}).stdout)
