"""The skeletons of the shipped catalog through Intake, in every release and form, held against what was put in."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import emcatalog
from emcatalog.errors import (
    ArgumentError,
    MissingExtraError,
    NotCachedError,
    SourceMissingError,
    SourceUnavailableError,
    UnknownArgumentError,
)
from emcatalog.skeletons.swc import format_swc, parse_swc
from tests.conftest import ServeAs, python
from tests.replica.skeletons import (
    MIRRORED_PRECOMPUTED,
    MIRRORED_SWC,
    PRECOMPUTED,
    SWC,
    UNISEX_SWC,
    VERSIONS,
    skeletons_folder,
)
from tests.replica.wire import Server
from tests.test_describe import cells
from tests.test_skeletons import BODIES, BUCKET, SkeletonBucket, assert_same, some_bodies

ENTRIES: dict[tuple[str, str | None], str] = {
    ("skeletons", "swc"): SWC,
    ("skeletons", "precomputed"): PRECOMPUTED,
    ("skeletons_mirrored", "swc"): MIRRORED_SWC,
    ("skeletons_mirrored", "precomputed"): MIRRORED_PRECOMPUTED,
    ("skeletons_unisex", None): UNISEX_SWC,
}
"""Entry and form -> folder."""


@pytest.fixture(scope="session")
def bucket(shared_folder: Path) -> SkeletonBucket:
    return some_bodies(shared_folder)


@pytest.fixture
def server(bucket: SkeletonBucket, serve_as: ServeAs) -> Server:
    return serve_as(BUCKET, bucket.folder)


@pytest.fixture
def data(catalog: Any) -> Any:
    """The sub-catalog of male CNS."""
    return catalog.malecns_data


def chosen(data: Any, name: str, form: str | None, version: str = "v0.9") -> Any:
    return data[name](version=version, **({} if form is None else {"form": form}))


class TestRead:
    @pytest.mark.parametrize("version", VERSIONS)
    @pytest.mark.parametrize(("name", "form"), ENTRIES)
    def test_every_entry(
        self, server: Server, bucket: SkeletonBucket, data: Any, name: str, form: str | None, version: str
    ) -> None:
        source, which = chosen(data, name, form, version), ENTRIES[name, form]
        truth = bucket.truth[skeletons_folder(version, which)]
        assert_same(source.read(BODIES[:4]), truth, BODIES[:4])
        assert_same(source.read(BODIES[1]), truth, [BODIES[1]])
        assert server.count(f"/{skeletons_folder(version, which)}/*") == server.count() > 0

    def test_defaults(self, server: Server, bucket: SkeletonBucket, data: Any) -> None:
        assert_same(data.skeletons.read(12781), bucket.truth[skeletons_folder("v0.9", SWC)], [12781])

    @pytest.mark.parametrize("form", ["swc", "precomputed"])
    def test_many_at_once_and_then_none(self, server: Server, data: Any, form: str) -> None:
        server.latency_s = 0.05
        source = data.skeletons(form=form)
        assert list(source.read(np.array(BODIES))) == BODIES
        assert server.peak > 8
        server.clear()
        assert list(source.read(BODIES)) == BODIES
        assert list(data.skeletons(form=form, offline=True).read(BODIES)) == BODIES
        assert server.requests == []

    def test_missing_ones_are_named_in_one_error(self, server: Server, data: Any) -> None:
        with pytest.raises(SourceMissingError, match=r"3 of the 5 asked for do not exist: 7, 8, 9\.") as caught:
            data.skeletons.read([12781, 7, 8, 556329, 9])
        assert isinstance(caught.value, FileNotFoundError)
        assert list(data.skeletons(offline=True).read([12781, 556329])) == [12781, 556329]

    @pytest.mark.parametrize("ids", [12781.0, "x", None, -1, 0, [12781, 1.5], True], ids=repr)
    def test_what_is_no_id(self, server: Server, data: Any, ids: Any) -> None:
        with pytest.raises(ArgumentError, match="is not the id of a skeleton"):
            data.skeletons.read(ids)
        assert server.requests == []

    def test_offline_and_never_fetched(self, server: Server, data: Any) -> None:
        data.skeletons.fetch([12781])
        with pytest.raises(NotCachedError, match=r"1 of the 2 skeletons asked for were never fetched.*: 556329"):
            data.skeletons(offline=True).read([12781, 556329])
        with pytest.raises(NotCachedError):
            data.skeletons(offline=True, version="v1.0").list_ids()

    def test_a_cache_of_ones_own(self, server: Server, data: Any, tmp_path: Path) -> None:
        data.skeletons(cache_dir=tmp_path / "mine").read(12781)
        assert [path.name for path in (tmp_path / "mine").rglob("*.swc")] == ["12781.swc"]
        with pytest.raises(NotCachedError):
            data.skeletons(offline=True).read(12781)


class TestOtherWays:
    def test_navis(self, server: Server, bucket: SkeletonBucket, data: Any) -> None:
        neurons = data.skeletons_mirrored(version="v1.0").to_navis(BODIES[:3])
        assert [neuron.id for neuron in neurons] == BODIES[:3]
        truth = bucket.truth[skeletons_folder("v1.0", MIRRORED_SWC)]
        for neuron in neurons:
            assert str(neuron.units) == "1 nanometer"
            np.testing.assert_allclose(neuron.nodes[["x", "y", "z"]], truth[neuron.id][["x", "y", "z"]], rtol=1e-12)

    def test_fetch(self, server: Server, data: Any) -> None:
        first, second = data.skeletons.fetch(BODIES[:5]), data.skeletons.fetch(BODIES[:8], progress=False)
        assert (first.fetched, first.reused, second.fetched, second.reused) == (5, 0, 3, 5)
        assert first.fetched_bytes == server.sent("*.swc") - second.fetched_bytes

    @pytest.mark.parametrize("form", ["swc", "precomputed"])
    def test_list_ids(self, bucket: SkeletonBucket, data: Any, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EMCATALOG_MIRRORS", json.dumps({BUCKET: f"file://{bucket.folder}"}))
        source = data.skeletons(form=form)
        assert source.list_ids().tolist() == sorted(BODIES)
        source.fetch(BODIES[:2])
        assert data.skeletons(form=form, offline=True).list_ids().tolist() == sorted(BODIES[:2])

    def test_a_web_server_has_no_list(self, server: Server, data: Any) -> None:
        with pytest.raises(SourceUnavailableError, match="cannot be asked which files it has"):
            data.skeletons.list_ids()

    def test_nothing_else_reads_them(self, server: Server, data: Any) -> None:
        source = data.skeletons
        for call in (source.to_dask, lambda: source.read_partition(0), lambda: next(source.read_chunked())):
            with pytest.raises(ArgumentError, match=r"skeletons is not read in this way: .*read\(\[12781\]\)"):
                call()
        assert source.discover()["dtype"] is None
        assert server.requests == []

    def test_without_pandas(self) -> None:
        script = (
            "import sys; sys.modules['pandas'] = None\n"
            "import emcatalog\n"
            "try: emcatalog.catalog.malecns_data.skeletons.read(1)\n"
            "except emcatalog.errors.MissingExtraError as error: print(error)"
        )
        assert python(script) == "this needs pandas: pip install 'emcatalog[tables]'"

    def test_without_navis(self, server: Server, data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "navis", None)
        with pytest.raises(MissingExtraError, match=r"pip install 'emcatalog\[navis\]'"):
            data.skeletons.to_navis(12781)
        assert server.requests == []  # before anything is fetched


class TestSource:
    @pytest.mark.parametrize(("name", "form"), ENTRIES)
    def test_pickled_it_is_the_same(
        self, server: Server, bucket: SkeletonBucket, data: Any, name: str, form: str | None
    ) -> None:
        source = chosen(data, name, form, "v1.0")
        again = pickle.loads(pickle.dumps(source))
        assert repr(again) == repr(source)
        truth = bucket.truth[skeletons_folder("v1.0", ENTRIES[name, form])]
        assert_same(again.read(BODIES[:2]), truth, BODIES[:2])

    def test_in_another_process(self, server: Server, data: Any, tmp_path: Path) -> None:
        (tmp_path / "source").write_bytes(pickle.dumps(data.skeletons(version="v1.0", form="precomputed")))
        script = (
            "import pickle, sys; source = pickle.load(open(sys.argv[1], 'rb'))\n"
            "print(source.name, len(source.read(12781)[12781]))"
        )
        name, count = python(script, str(tmp_path / "source")).split()
        expected = data.skeletons(version="v1.0").read(12781)[12781]
        assert (name, int(count)) == ("skeletons", len(expected))

    def test_what_it_is_asks_nothing(self, server: Server, data: Any) -> None:
        for name, form in ENTRIES:
            source = chosen(data, name, form)
            assert "nm" in repr(source)
            assert cells(source._repr_html_())[0][0] == "skeletons"
        assert server.requests == []

    def test_a_misspelt_argument(self, data: Any) -> None:
        with pytest.raises(UnknownArgumentError, match=r"no argument 'ofline'.*Did you mean 'offline'"):
            data.skeletons(ofline=True)
        with pytest.raises(ValueError, match=r"form=swb is not one of the allowed values: swc,precomputed"):
            data.skeletons(form="swb")


def test_the_table_names_every_entry() -> None:
    sub = emcatalog.catalog.malecns_data
    names = [name for name in sub if type(sub[name]).name == "em_skeletons"]
    assert names == list(dict.fromkeys(name for name, _ in ENTRIES))


def test_units_of_ones_own(tmp_path: Path) -> None:
    """A catalog of one's own, whose SWC files are in um."""
    (tmp_path / "5.swc").write_text("1 1 1 2 3 0.5 -1\n2 0 2 2 3 0.25 1\n")
    skeletons = {"url": f"swc://file://{tmp_path}", "units": "um", "source": "a test"}
    metadata = dict.fromkeys(("title", "organism", "tissue", "modality", "licence", "citation"), "x")
    entry = {"driver": "em_skeletons", "description": "d", "args": {"skeletons": skeletons}}
    path = tmp_path / "own.yaml"
    path.write_text(json.dumps({"sources": {"mine": {**entry, "metadata": {**metadata, "sources": ["x"]}}}}))
    (table,) = emcatalog.open_catalog(path).mine.read(5).values()
    expected = pd.DataFrame({"x": [1000.0, 2000.0], "y": 2000.0, "z": 3000.0, "radius": [500.0, 250.0]})
    pd.testing.assert_frame_equal(table[["x", "y", "z", "radius"]], expected)


def test_as_swc_a_radius_that_nobody_knows_is_0(server: Server, data: Any) -> None:
    table = data.skeletons(form="precomputed").read(12781)[12781]
    text = format_swc(table, ["a comment\nof two lines"])
    assert text.startswith("# a comment of two lines\n1 0 ")
    again = parse_swc(text.encode(), 1.0, "the text")
    pd.testing.assert_frame_equal(again, table.fillna({"radius": 0.0}), rtol=1e-9)
