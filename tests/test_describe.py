"""What a person sees of a source, without a request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from emcatalog.describe import describe_html, describe_text
from emcatalog.entries import norm_arguments
from tests.replica.server import serve


def channel(**changes: Any) -> dict[str, Any]:
    url = "precomputed://gs://bucket/em"
    return {"url": url, "kind": "image", "dtype": "uint16", "voxel_size": [4, 5, 40], "source": "a test", **changes}


def text(volumes: dict[str, Any], metadata: dict[str, Any] | None = None, **arguments: Any) -> str:
    parsed = norm_arguments({"volumes": volumes, "voxel_size": [4, 5, 40], **arguments})
    return describe_text("tissue", "Some tissue", metadata or {}, parsed)


def cells(html: str) -> list[list[str]]:
    """Rows of all tables; parsing them shows that the markup is whole."""
    return [["".join(cell.itertext()) for cell in row] for row in ElementTree.fromstring(html).iter("tr")]


def test_the_shipped_entry(catalog: Any) -> None:
    lines = repr(catalog.malecns).splitlines()
    assert lines[0] == "<malecns> Male fruit fly central nervous system, 8 nm FIB-SEM with proofread neurons"
    assert lines[1].split(maxsplit=1) == ["raw", "image, uint8, 94088 x 78317 x 134576, 8, 16, ... 8192 nm"]
    assert lines[2].split(maxsplit=1) == ["labels", "instances, uint64, 94088 x 77248 x 134592, 8, 16, ... 8192 nm"]
    assert lines[3].split(maxsplit=1)[1] == "x 320000..328192, y 320000..328192, z 160000..168192 nm"
    assert "1,073.7 Mvoxel, 9,663.7 MB as read" in lines[5]
    assert "CC BY 4.0" in lines[-2]
    assert "10.1016/j.cell.2026.08.015" in lines[-1]


def test_follows_what_was_asked_for(catalog: Any) -> None:
    box = (0, 128, 0, 64, 0, 64)
    described = repr(catalog.malecns(bbox=box, resolution=16, channels=["labels"], version="v1.0"))
    assert "raw" not in described
    assert "94088 x 78317 x 134576" in described
    assert "resolution 16 x 16 x 16 nm" in described
    assert f"{64 * 32 * 32 / 1e6:.1f} Mvoxel, {8 * 64 * 32 * 32 / 1e6:.1f} MB" in described


def test_sizes_are_x_first_and_bytes_are_of_all_channels() -> None:
    described = text({"a": channel(shape=[1, 2, 3]), "b": channel(dtype="uint8")}, bbox=(0, 100, 0, 200, 0, 300))
    assert "image, uint16, 1 x 2 x 3, 4 x 5 x 40 nm" in described
    assert "image, uint8, extent not confirmed, 4 x 5 x 40 nm" in described
    assert "x 0..400, y 0..1000, z 0..12000 nm" in described
    assert "6.0 Mvoxel, 18.0 MB as read" in described


def test_the_whole_extent() -> None:
    described = text({"a": channel()})
    assert "whole extent" in described
    assert "Mvoxel" not in described


@pytest.mark.parametrize(
    ("scales", "says"),
    [
        ([8], "8 nm"),
        ([8, 16, 32, 64], "8, 16, 32, 64 nm"),
        ([8, 16, 32, 64, 128], "8, 16, ... 128 nm"),
        ([[4, 4, 40], 3.58], "4 x 4 x 40, 3.58 nm"),
    ],
)
def test_scales(scales: list[Any], says: str) -> None:
    assert f"extent not confirmed, {says}\n" in text({"a": channel(scales=scales)})


def test_html_has_a_row_for_each_channel_and_fact(catalog: Any) -> None:
    rows = cells(catalog.malecns._repr_html_())
    assert rows[0] == ["channel", "kind", "dtype", "extent (x, y, z)", "scales"]
    assert rows[1][:4] == ["raw", "image", "uint8", "94088 x 78317 x 134576"]
    facts = dict(row for row in rows[3:])
    assert facts["licence"] == "CC BY 4.0"
    assert facts["homepage"] == "https://male-cns.janelia.org"
    assert facts["resolution"] == "8 x 8 x 8 nm"


def test_html_is_escaped() -> None:
    """A catalog from elsewhere writes these texts, and a notebook would run what it finds in them."""
    evil = "<script>alert(1)</script>"
    parsed = norm_arguments({"volumes": {"raw": channel()}, "voxel_size": 8})
    html = describe_html(evil, evil, {"licence": evil, "homepage": f'"{evil}', "citation": "a & b"}, parsed)
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 4
    assert ["citation", "a & b"] in cells(html)


def test_no_request_is_made(catalog: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(tmp_path) as server:
        monkeypatch.setenv("EMCATALOG_MIRRORS", json.dumps({"gs://": server.url}))
        source = catalog.malecns
        assert repr(source)
        assert source._repr_html_()
        assert server.count() == 0
