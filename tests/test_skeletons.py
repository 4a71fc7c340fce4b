"""A folder of skeletons: read by id from local servers, kept in the cache, listed, handed to navis.

The bucket below also serves the tests of what goes wrong, in `test_skeleton_failures.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import tensorstore as ts

from emcatalog.errors import ArgumentError, SourceUnavailableError
from emcatalog.locations import StorageOptions
from emcatalog.mirror.cache import Cache
from emcatalog.mirror.inventory import list_mirrors, remove_mirror
from emcatalog.settings import load_settings
from emcatalog.skeletons.collection import IN_FLIGHT, Skeletons, norm_ids
from tests.conftest import ServeAs, once
from tests.replica.gcs import serve_gcs
from tests.replica.skeletons import (
    MIRRORED_PRECOMPUTED,
    MIRRORED_SWC,
    PRECOMPUTED,
    SWC,
    UNISEX_SWC,
    VERSIONS,
    Truth,
    build_skeletons,
    skeletons_folder,
)
from tests.replica.wire import Server
from tests.test_fetch import assert_clear

BUCKET = "gs://flyem-male-cns"
BODIES = [12781, 556329, 10001, 10002, *range(20000, 20036)]
MANY = list(range(1, 201))
FORMS = {"swc": SWC, "precomputed": PRECOMPUTED}
UNITS = {SWC: 8, PRECOMPUTED: 1, MIRRORED_SWC: 8, MIRRORED_PRECOMPUTED: 1, UNISEX_SWC: 1000}


@dataclass(frozen=True)
class SkeletonBucket:
    folder: Path
    """Stands for the bucket."""
    truth: Truth


def build_once(folder: Path, bodies: list[int], versions: Sequence[str] = VERSIONS) -> SkeletonBucket:
    """Build a bucket once in a run of several workers."""

    def make(bucket: Path) -> None:
        pd.to_pickle(build_skeletons(bucket, bodies, versions), folder / "truth.pickle")

    folder.mkdir(exist_ok=True)
    bucket = once(folder / "flyem-male-cns", make)
    return SkeletonBucket(bucket, pd.read_pickle(folder / "truth.pickle"))


def some_bodies(shared_folder: Path) -> SkeletonBucket:
    """Both releases of a few skeletons."""
    return build_once(shared_folder / "skeletons", BODIES)


def many_bodies(shared_folder: Path) -> SkeletonBucket:
    """One release of more skeletons than are asked for at once."""
    return build_once(shared_folder / "many-skeletons", MANY, ["v0.9"])


@pytest.fixture(scope="session")
def bucket(shared_folder: Path) -> SkeletonBucket:
    return some_bodies(shared_folder)


@pytest.fixture
def server(bucket: SkeletonBucket, serve_as: ServeAs) -> Server:
    """The bucket on a server, in its place."""
    return serve_as(BUCKET, bucket.folder)


def skeletons(which: str = SWC, version: str = "v0.9", **settings: Any) -> Skeletons:
    """As an entry of a catalog opens them."""
    form: Any = "swc" if which.endswith("swc") else "precomputed"
    url = f"{BUCKET}/{skeletons_folder(version, which)}"
    return Skeletons(url, form, UNITS[which], StorageOptions(), load_settings(**settings))


def kept(source: Skeletons) -> Path:
    """Where its files are kept."""
    return Path(load_settings().cache) / source.url.replace("://", "/") / "kept-files"


def name_of(source: Skeletons, body: int) -> str:
    """A skeleton's file."""
    return f"{body}.swc" if source.form == "swc" else str(body)


def assert_same(tables: dict[int, pd.DataFrame], truth: dict[int, pd.DataFrame], bodies: list[int]) -> None:
    """What was read is what was put in, in the order asked."""
    assert list(tables) == bodies
    for body in bodies:
        pd.testing.assert_frame_equal(tables[body], truth[body], rtol=1e-12)


class TestRead:
    @pytest.mark.parametrize("version", VERSIONS)
    @pytest.mark.parametrize("which", UNITS)
    def test_every_published_folder(self, server: Server, bucket: SkeletonBucket, which: str, version: str) -> None:
        truth = bucket.truth[skeletons_folder(version, which)]
        assert_same(skeletons(which, version).read(BODIES[:4]), truth, BODIES[:4])

    def test_both_forms_are_the_same_tree(self, server: Server) -> None:
        swc, precomputed = (skeletons(which).read(BODIES[:6]) for which in (SWC, PRECOMPUTED))
        for body in BODIES[:6]:
            one, other = swc[body], precomputed[body]
            np.testing.assert_array_equal(one[["node", "parent"]], other[["node", "parent"]])
            np.testing.assert_allclose(one[["x", "y", "z"]], other[["x", "y", "z"]], atol=0.02)  # float32 of 400,000 nm

    def test_releases_are_kept_apart(self, server: Server) -> None:
        old, new = (skeletons(SWC, version).read(12781)[12781] for version in VERSIONS)
        assert not old.equals(new)

    @pytest.mark.parametrize("form", FORMS)
    def test_what_a_table_says_of_itself(self, server: Server, form: str) -> None:
        source = skeletons(FORMS[form])
        for _ in range(2):  # fetched, and kept
            table = source.read(12781)[12781]
            said = {"body": 12781, "units": "nm", "source": f"{source.url}/{name_of(source, 12781)}"}
            assert table.attrs == said

    @pytest.mark.parametrize("form", FORMS)
    def test_each_is_asked_for_once(self, server: Server, bucket: SkeletonBucket, form: str) -> None:
        source = skeletons(FORMS[form])
        first = source.read(BODIES)
        names = {f"/{skeletons_folder('v0.9', FORMS[form])}/{name_of(source, body)}" for body in BODIES}
        info = {f"/{skeletons_folder('v0.9', PRECOMPUTED)}/info"} if form == "precomputed" else set()
        assert server.counts() == dict.fromkeys(names | info, 1)
        server.clear()
        second = source.read(BODIES)
        assert server.requests == []
        truth = bucket.truth[skeletons_folder("v0.9", FORMS[form])]
        for tables in (first, second):
            assert_same(tables, truth, BODIES)

    def test_what_lacks_is_asked_for(self, server: Server) -> None:
        source = skeletons()
        source.read(BODIES[:10])
        server.clear()
        source.read(BODIES[5:15])
        assert sorted(server.counts()) == sorted(f"/{skeletons_folder('v0.9')}/{body}.swc" for body in BODIES[10:15])

    def test_many_at_once(self, serve_as: ServeAs, shared_folder: Path) -> None:
        bucket = many_bodies(shared_folder)
        server = serve_as(BUCKET, bucket.folder)
        server.latency_s = 0.05
        assert_same(skeletons().read(MANY), bucket.truth[skeletons_folder("v0.9")], MANY)
        assert set(server.counts().values()) == {1}
        assert len(server.requests) == 200
        assert 8 < server.peak <= IN_FLIGHT

    def test_in_the_order_asked_and_once(self, server: Server) -> None:
        assert list(skeletons().read([20003, 12781, 20003, 10001])) == [20003, 12781, 10001]

    def test_none(self, server: Server) -> None:
        for form in FORMS.values():
            assert skeletons(form).read([]) == {}
            assert skeletons(form).fetch([]).fetched == 0
        assert server.requests == []

    def test_from_several_threads(self, server: Server, bucket: SkeletonBucket) -> None:
        source = skeletons(PRECOMPUTED)
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(lambda _: source.read(BODIES), range(4)))
        for tables in answers:
            assert_same(tables, bucket.truth[skeletons_folder("v0.9", PRECOMPUTED)], BODIES)

    def test_a_slash_at_the_end_of_the_address(self, server: Server) -> None:
        source = skeletons()
        source.read(12781)
        server.clear()
        replace(source, url=f"{source.url}/").read(12781)
        assert server.requests == []


class TestIds:
    @pytest.mark.parametrize(
        "ids",
        [
            12781,
            np.int64(12781),
            np.uint32(12781),
            np.array(12781),
            "12781",
            [12781],
            (12781, 12781),
            {12781},
            iter([12781]),
            ["12781", 12781],
            np.array([12781], np.uint64),
            pd.Series([12781], index=[5]),
            pd.Index([12781]),
            {12781: "a dictionary"},
        ],
    )
    def test_forms_of_the_same(self, ids: Any) -> None:
        assert norm_ids(ids) == [12781]
        assert type(norm_ids(ids)) is list

    @pytest.mark.parametrize(
        "ids",
        [
            0,
            -1,
            2**63,
            12781.0,
            True,
            np.True_,
            None,
            b"12781",
            "all",
            "012781",
            "12781.swc",
            "\u0661",
            "../12781",
            "",
            [12781, -5],
            [12781, 1.5],
            np.array([1.0]),
            np.array([[12781]]),
            pd.Series([1.0, np.nan]),
            pd.DataFrame({"body": [12781]}),
        ],
    )
    def test_what_is_no_id(self, ids: Any) -> None:
        for call in (skeletons().read, skeletons().fetch):
            with pytest.raises(ArgumentError) as caught:
                call(ids)
            assert_clear(caught.value, ValueError, "is not the id of a skeleton; ids are whole numbers from 1 on")

    def test_the_largest(self) -> None:
        assert norm_ids(2**63 - 1) == [2**63 - 1]


class TestKept:
    @pytest.mark.parametrize("which", UNITS)
    def test_byte_for_byte(self, server: Server, bucket: SkeletonBucket, which: str) -> None:
        source = skeletons(which)
        source.read(BODIES[:3])
        stored = bucket.folder / skeletons_folder("v0.9", which)
        names = [name_of(source, body) for body in BODIES[:3]] + (["info"] if source.form == "precomputed" else [])
        assert sorted(path.name for path in kept(source).iterdir()) == sorted(names)
        for name in names:
            assert (kept(source) / name).read_bytes() == (stored / name).read_bytes()

    def test_is_seen_and_removed_with_the_cache(self, server: Server) -> None:
        source, cache = skeletons(), Cache.at(load_settings())
        report = source.fetch(BODIES[:3])
        found = list_mirrors(cache)
        assert [(mirror.name, mirror.nbytes) for mirror in found] == [
            (f"gs/flyem-male-cns/{skeletons_folder('v0.9')}/kept-files", report.fetched_bytes)
        ]
        remove_mirror(cache, found[0].name)
        assert not kept(source).exists()
        assert source.fetch(BODIES[:3]).fetched == 3

    def test_the_info_is_asked_for_once(self, server: Server) -> None:
        for body in BODIES[:3]:
            skeletons(PRECOMPUTED).read(body)
        assert server.count("*/info") == 1

    @pytest.mark.parametrize(
        "path", ["a%2F..%2Fb", "..", ".", "a/../../../../b", ".hidden", "a:b*c?d", "ü", "x" * 200, "\\..\\b", "~"]
    )
    def test_no_address_leaves_the_cache(self, server: Server, tmp_path: Path, path: str) -> None:
        cache = tmp_path / "inner" / "cache"
        source = Skeletons(f"file:///{path}/skeletons", "swc", settings=load_settings(cache_dir=cache))
        there = source._kept
        there.write("12781.swc", b"1 0 1 2 3 4 -1")
        assert there.folder.resolve().is_relative_to(cache / "file")
        assert [str(file.relative_to(tmp_path / "inner").parts[:2]) for file in cache.rglob("*.swc")] == [
            "('cache', 'file')"
        ]
        assert not any(part.startswith(".") for part in there.folder.relative_to(cache).parts)

    def test_another_server_is_another_bucket(self, server: Server) -> None:
        source = Skeletons("s3://bucket/a", "swc", options=StorageOptions(endpoint_url="https://minio.local"))
        assert source._kept.folder == Path(load_settings().cache) / "s3+minio.local/bucket/a/kept-files"


class TestFetch:
    @pytest.mark.parametrize("form", FORMS)
    def test_report(self, server: Server, form: str) -> None:
        source = skeletons(FORMS[form])
        source.fetch(BODIES[:3])
        report = source.fetch(BODIES[:10])
        sizes = [(kept(source) / name_of(source, body)).stat().st_size for body in BODIES[3:10]]
        assert (report.fetched, report.reused, report.fetched_bytes) == (7, 3, sum(sizes))
        assert report.seconds > 0
        assert re.fullmatch(r"fetched 7 skeletons \(\d\.\d MB\), reused 3, in \d+\.\d s", str(report))

    def test_nothing_to_do(self, server: Server) -> None:
        source = skeletons(PRECOMPUTED)
        source.fetch(BODIES)
        server.clear()
        report = source.fetch(BODIES)
        assert (report.fetched, report.reused, report.fetched_bytes) == (0, len(BODIES), 0)
        assert server.requests == []

    @pytest.mark.parametrize("call", ["read", "fetch"])
    def test_progress(self, server: Server, call: str) -> None:
        source = skeletons()
        source.fetch(BODIES[:3])
        totals: list[int] = []
        steps: list[tuple[int, int]] = []

        def start(count: int) -> Any:
            totals.append(count)
            return lambda *step: steps.append(step)

        getattr(source, call)(BODIES[:10], progress=start)
        assert totals == [7]
        assert [count for count, _ in steps] == [1] * 7
        assert [nbytes for _, nbytes in steps] == [
            (kept(source) / f"{body}.swc").stat().st_size for body in BODIES[3:10]
        ]

    @pytest.mark.parametrize("call", ["read", "fetch"])
    def test_silent_where_nothing_is_missing(self, server: Server, call: str) -> None:
        source = skeletons()
        source.fetch(BODIES[:3])
        getattr(source, call)(BODIES[:3], progress=lambda _: pytest.fail("nothing is missing"))


class TestListIds:
    @pytest.fixture
    def gcs(self, bucket: SkeletonBucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
        """The bucket at Google's, as far as listing goes."""
        with serve_gcs(bucket.folder.parent, page=7) as server:
            monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", server.url)
            yield server

    def test_by_pages(self, gcs: Server) -> None:
        ids = skeletons().list_ids()
        assert ids.dtype == np.int64
        assert ids.tolist() == sorted(BODIES)
        assert [record.path for record in gcs.requests] == ["/storage/v1/b/flyem-male-cns/o"] * 6  # 40 names

    def test_of_precomputed(self, server: Server, gcs: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        skeletons(PRECOMPUTED).fetch(12781)  # the info is kept
        monkeypatch.delenv("EMCATALOG_MIRRORS")
        assert skeletons(PRECOMPUTED).list_ids().tolist() == sorted(BODIES)

    @pytest.mark.parametrize("form", FORMS)
    def test_of_a_folder_here(self, bucket: SkeletonBucket, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
        monkeypatch.setenv("EMCATALOG_MIRRORS", f'{{"{BUCKET}": "file://{bucket.folder}"}}')
        assert skeletons(FORMS[form]).list_ids().tolist() == sorted(BODIES)

    @pytest.mark.parametrize("form", ["swc", "precomputed"])
    def test_names_that_are_no_ids(self, tmp_path: Path, form: Any) -> None:
        (tmp_path / "sub").mkdir()
        for name in ("info", "README.md", "provenance", "007", "0", "-1", "a7", f"{2**63}", "1.5", "sub/8", "12"):
            (tmp_path / name).write_text('{"@type": "neuroglancer_skeletons"}')
            (tmp_path / f"{name}.swc").write_text("")
        assert Skeletons(f"file://{tmp_path}", form).list_ids().tolist() == [12]

    def test_a_web_server_cannot_be_asked(self, server: Server) -> None:
        with pytest.raises(SourceUnavailableError, match="cannot be asked which files it has"):
            skeletons().list_ids()


class TestSharded:
    SHARDING: ClassVar[dict[str, Any]] = {
        "@type": "neuroglancer_uint64_sharded_v1",
        "preshift_bits": 1,
        "hash": "murmurhash3_x86_128",
        "minishard_bits": 2,
        "shard_bits": 1,
        "minishard_index_encoding": "gzip",
        "data_encoding": "gzip",
    }

    @pytest.fixture
    def sharded(self, tmp_path: Path, bucket: SkeletonBucket) -> Path:
        """The precomputed skeletons of one release, in two shards, written by TensorStore."""
        folder = tmp_path / "sharded"
        plain = bucket.folder / skeletons_folder("v0.9", PRECOMPUTED)
        base = {"driver": "file", "path": f"{folder}/"}
        described = {"driver": "neuroglancer_uint64_sharded", "metadata": self.SHARDING, "base": base}
        store = ts.KvStore.open(described).result()
        with ts.Transaction() as transaction:
            for body in BODIES:
                store.with_transaction(transaction)[body.to_bytes(8, "big")] = (plain / str(body)).read_bytes()
        (folder / "info").write_text(json.dumps({"@type": "neuroglancer_skeletons", "sharding": self.SHARDING}))
        return folder

    def test_read(self, sharded: Path, serve_as: ServeAs, bucket: SkeletonBucket) -> None:
        server = serve_as("gs://sharded", sharded)
        source = Skeletons("gs://sharded", "precomputed")
        truth = bucket.truth[skeletons_folder("v0.9", PRECOMPUTED)]
        assert_same(source.read(BODIES), truth, BODIES)
        assert len(server.requests) < 2 * len(BODIES)  # the indexes of shards are read once
        server.clear()
        assert_same(source.read(BODIES), truth, BODIES)
        assert server.requests == []
        plain = bucket.folder / skeletons_folder("v0.9", PRECOMPUTED)
        assert (kept(source) / "12781").read_bytes() == (plain / "12781").read_bytes()

    def test_list(self, sharded: Path, serve_as: ServeAs) -> None:
        serve_as("gs://sharded", sharded)
        ids = Skeletons("gs://sharded", "precomputed").list_ids()
        assert ids.dtype == np.int64
        assert ids.tolist() == sorted(BODIES)


class TestNavis:
    @pytest.mark.parametrize("which", UNITS)
    def test_neurons(self, server: Server, which: str) -> None:
        source = skeletons(which)
        tables = source.read(BODIES[:3])
        before = {body: table.copy() for body, table in tables.items()}
        neurons = source.to_navis(tables)
        assert [neuron.id for neuron in neurons] == BODIES[:3]
        for neuron, table in zip(neurons, tables.values(), strict=True):
            assert str(neuron.units) == "1 nanometer"
            assert neuron.soma is None
            below = table[table.parent > 0]
            above = table.set_index("node").loc[below.parent]
            steps = below[["x", "y", "z"]].to_numpy() - above[["x", "y", "z"]].to_numpy()
            assert neuron.cable_length == pytest.approx(np.linalg.norm(steps, axis=1).sum())
            np.testing.assert_array_equal(neuron.nodes[["x", "y", "z"]], table[["x", "y", "z"]])
            np.testing.assert_array_equal(neuron.nodes.label, table.kind)
            assert sorted(neuron.root) == sorted(table.node[table.parent == -1])
        for body, table in tables.items():
            pd.testing.assert_frame_equal(table, before[body])

    def test_lengths_are_the_same_in_every_form(self, server: Server) -> None:
        lengths = [Skeletons.to_navis(skeletons(which).read(12781))[0].cable_length for which in (SWC, PRECOMPUTED)]
        assert lengths[0] == pytest.approx(lengths[1], rel=1e-5)

    def test_of_none(self) -> None:
        assert len(Skeletons.to_navis({})) == 0
