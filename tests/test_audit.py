"""``emcatalog check``: what a catalog declares, held against what the sources say of themselves."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from emcatalog.audit import audit
from emcatalog.audit.report import Difference
from emcatalog.errors import SourceMissingError
from emcatalog.settings import load_settings
from tests.conftest import Replica, channel
from tests.replica.precomputed import build_precomputed
from tests.replica.server import serve
from tests.replica.wire import Server
from tests.test_cli import assert_one_sentence, call

METADATA = {
    "title": "t",
    "organism": "o",
    "tissue": "t",
    "modality": "m",
    "licence": "CC0-1.0",
    "citation": "c",
    "sources": ["a test"],
}
TRUTH: dict[str, Any] = {
    "dtype": "uint16",
    "voxel_size": [4, 5, 40],
    "shape": [50, 60, 70],
    "offset": [1, 2, 3],
    "scales": [[4, 5, 40]],
    "chunk": [32, 16, 8],
    "encoding": "raw",
}
"""What the volume of these tests is."""

FOUND = {
    "dtype": "uint16",
    "voxel_size": "4 x 5 x 40 nm",
    "shape": "50, 60, 70",
    "offset": "1, 2, 3",
    "scales": "4 x 5 x 40 nm",
    "chunk": "32, 16, 8",
    "encoding": "raw",
    "num_channels": "none",
}


def volume(url: str, **keys: Any) -> dict[str, Any]:
    """A volume as YAML states it: its kind and size are right, of the rest only what is given."""
    required = {"kind": "image", "dtype": TRUTH["dtype"], "voxel_size": TRUTH["voxel_size"], "source": "a test"}
    return {"url": f"precomputed://{url}", **required, **keys}


def entry(parameters: dict[str, list[str]] | None = None, **volumes: dict[str, Any]) -> dict[str, Any]:
    """An entry; the first value of a parameter is its default."""
    choices = {
        name: {"description": name, "type": "str", "default": values[0], "allowed": values}
        for name, values in (parameters or {}).items()
    }
    args = {"volumes": volumes, "voxel_size": TRUTH["voxel_size"]}
    return {
        "driver": "em_volume", "description": "a test", "args": args, "metadata": METADATA, "parameters": choices,
    }  # fmt: skip


def write_catalog(path: Path, **entries: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump({"sources": entries}, sort_keys=False))
    return path


def facts(text: str, name: str) -> tuple[str, dict[str, str]]:
    """The state of a volume and the facts below it, from what ``check`` prints on a wide terminal."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.split("  ")[0].strip() == name)
    rest = lines[start + 1 :]
    below = rest[: next((i for i, line in enumerate(rest) if not line.startswith(" ")), len(rest))]
    pairs = [re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in below]
    return lines[start].split("  ")[1].strip(), dict(pairs)


def check(*arguments: object, status: int = 0) -> str:
    return call("check", *arguments, status=status, env={"COLUMNS": "400"}).stdout


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without a lock file, in which the command is called."""
    monkeypatch.delenv("EMCATALOG_LOCK", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The volume of ``TRUTH``."""
    shape = TRUTH["shape"][::-1]
    voxels = np.random.default_rng(0).integers(1, 999, shape, np.uint16)
    form: Any = {"voxel_offset": tuple(TRUTH["offset"]), "resolution": tuple(TRUTH["voxel_size"])}
    build_precomputed(tmp_path / "tissue", voxels, chunk=tuple(TRUTH["chunk"]), **form)
    return tmp_path / "tissue"


@pytest.fixture
def url(source: Path) -> str:
    return f"file://{source}"


class TestMaleCns:
    """The shipped entry against the miniature of its bucket, whose infos are the published ones."""

    def test_every_release_is_right(self, male_cns: Server) -> None:
        text = check("malecns")
        states = {name: facts(text, name)[0] for name in ("malecns.raw v0.9", "malecns.labels v0.9")}
        assert {**states, "v1.0": facts(text, "malecns.labels v1.0")[0]} == dict.fromkeys((*states, "v1.0"), "ok")
        assert text.splitlines()[-1] == "3 sources looked at, none to be mended"
        assert "DIFFERS" not in text
        assert "CANNOT" not in text

    def test_each_document_is_asked_for_once(self, male_cns: Server) -> None:
        check("malecns")
        assert male_cns.counts() == {
            "/em/em-clahe-jpeg/info": 1,
            "/v0.9/segmentation/info": 1,
            "/v1.0/segmentation/info": 1,
        }

    @pytest.mark.parametrize("arguments", [("malecns", "--version", "v1.0"), ("--version=v1.0", "malecns")])
    def test_one_value_of_a_parameter(self, male_cns: Server, arguments: tuple[str, ...]) -> None:
        assert check(*arguments).splitlines()[-1] == "2 sources looked at, none to be mended"
        assert male_cns.count("/v0.9/*") == 0
        assert male_cns.count("/v1.0/*") == 1

    def test_a_difference_of_one_release(self, replica: Replica, male_cns: Server, here: Path) -> None:
        shutil.copytree(replica.folder / "em", here / "bucket/em", ignore=shutil.ignore_patterns("*.shard"))
        for version in ("v0.9", "v1.0"):
            info = json.loads((replica.folder / version / "segmentation/info").read_text())
            info["scales"] = info["scales"][:-1] if version == "v1.0" else info["scales"]
            (here / "bucket" / version / "segmentation").mkdir(parents=True)
            (here / "bucket" / version / "segmentation/info").write_text(json.dumps(info))
        with serve(here / "bucket") as server, pytest.MonkeyPatch.context() as patch:
            patch.setenv("EMCATALOG_MIRRORS", json.dumps({"gs://flyem-male-cns": server.url}))
            text = check("malecns", status=1)
        assert facts(text, "malecns.labels v0.9")[0] == "ok"
        state, found = facts(text, "malecns.labels v1.0")
        assert state == "DIFFERS"
        assert re.fullmatch(r"declared .*4096 x 4096 x 4096 nm; the source says .*2048 x 2048 nm", found["scales"])
        assert text.splitlines()[-1] == "3 sources looked at, 1 to be mended"


class TestDifferences:
    """A catalog of one's own that is wrong."""

    @pytest.mark.parametrize(
        ("key", "wrong", "declared"),
        [
            ("dtype", "uint8", "uint8"),
            ("dtype", "float32", "float32"),
            ("shape", [60, 50, 70], "60, 50, 70"),
            ("offset", [0, 2, 3], "0, 2, 3"),
            ("scales", [[4, 5, 40], [8, 10, 40]], "4 x 5 x 40; 8 x 10 x 40 nm"),
            ("chunk", [8, 16, 32], "8, 16, 32"),
            ("encoding", "jpeg", "jpeg"),
            ("num_channels", 3, "3"),
        ],
    )
    def test_each_is_told_with_what_was_declared_and_found(
        self, url: str, here: Path, key: str, wrong: Any, declared: str
    ) -> None:
        path = write_catalog(here / "own.yaml", tissue=entry(raw=volume(url, **{**TRUTH, key: wrong})))
        text = check("--catalog", path, status=1)
        state, found = facts(text, "tissue.raw")
        assert state == "DIFFERS"
        differing = {name: said for name, said in found.items() if said.startswith("declared")}
        assert differing == {key: f"declared {declared}; the source says {FOUND[key]}"}
        assert text.splitlines()[-1] == "1 source looked at, 1 to be mended"

    def test_of_the_voxel_size(self, url: str, here: Path) -> None:
        wrong = {**TRUTH, "voxel_size": 8, "scales": [8]}
        text = check("--catalog", write_catalog(here / "own.yaml", tissue=entry(raw=volume(url, **wrong))), status=1)
        found = facts(text, "tissue.raw")[1]
        assert found["voxel_size"] == "declared 8 x 8 x 8 nm; the source says 4 x 5 x 40 nm"
        assert found["scales"] == "declared 8 x 8 x 8 nm; the source says 4 x 5 x 40 nm"

    def test_of_the_voxel_size_alone(self, url: str, here: Path) -> None:
        path = write_catalog(here / "own.yaml", tissue=entry(raw=volume(url, voxel_size=8)))
        found = facts(check("--catalog", path, status=1), "tissue.raw")[1]
        assert found["voxel_size"] == "declared 8 x 8 x 8 nm; the source says 4 x 5 x 40 nm"

    def test_all_at_once(self, url: str, here: Path) -> None:
        wrong = {
            "dtype": "uint8", "voxel_size": 8, "scales": [8, 16], "shape": [1, 2, 3], "offset": [4, 5, 6],
            "chunk": [7, 8, 9], "encoding": "png", "num_channels": 2,
        }  # fmt: skip
        path = write_catalog(here / "own.yaml", tissue=entry(raw=volume(url, **wrong)))
        _, found = facts(check("--catalog", path, status=1), "tissue.raw")
        assert set(found) == set(FOUND)
        assert all(said.endswith(f"; the source says {FOUND[key]}") for key, said in found.items())

    def test_a_good_declaration_of_everything(self, url: str, here: Path) -> None:
        path = write_catalog(here / "own.yaml", tissue=entry(raw=volume(url, **TRUTH)))
        state, found = facts(check("--catalog", path), "tissue.raw")
        assert state == "ok"
        assert found == {}

    def test_what_is_not_declared_is_listed_and_no_mistake(self, url: str, here: Path) -> None:
        path = write_catalog(here / "own.yaml", tissue=entry(raw=volume(url)))
        state, found = facts(check("--catalog", path), "tissue.raw")
        assert state == "ok"
        listed = dict(each.split(": ") for each in found["not declared"].split("; "))
        said_anyhow = ("dtype", "voxel_size", "num_channels")
        assert listed == {key: text for key, text in FOUND.items() if key not in said_anyhow}

    def test_lengths_that_differ_by_rounding_are_the_same(self, here: Path) -> None:
        size = tuple(float(np.float32(edge)) for edge in (3.58, 3.58, 40.1))
        build_precomputed(here / "odd", np.ones((8, 8, 8), np.uint16), resolution=size)
        info = json.loads((here / "odd/info").read_text())
        assert info["scales"][0]["resolution"][0] != 3.58
        odd = volume(f"file://{here}/odd", voxel_size=[3.58, 3.58, 40.1])
        assert "3.58 x 3.58 x 40.1 nm" in check("--catalog", write_catalog(here / "own.yaml", tissue=entry(raw=odd)))

    def test_axes_that_are_swapped_in_storage_are_compared_in_space(self, url: str, here: Path) -> None:
        swapped = {**TRUTH, "shape": [60, 50, 70], "offset": [2, 1, 3], "chunk": [16, 32, 8], "scales": [[5, 4, 40]]}
        raw = volume(url, **swapped, axes="yxz") | {"voxel_size": [5, 4, 40]}
        path = write_catalog(here / "own.yaml", tissue=entry(raw=raw))
        assert facts(check("--catalog", path), "tissue.raw")[0] == "ok"
        straight = write_catalog(here / "own.yaml", tissue=entry(raw={**raw, "axes": "xyz"}))
        assert facts(check("--catalog", straight, status=1), "tissue.raw")[0] == "DIFFERS"

    def test_a_voxel_size_of_the_catalogs_own_is_not_held_against_the_source(self, url: str, here: Path) -> None:
        raw = volume(url, voxel_size=35, voxel_size_from="catalog")
        path = write_catalog(here / "own.yaml", tissue=entry(raw=raw))
        assert facts(check("--catalog", path), "tissue.raw")[0] == "ok"
        del raw["voxel_size_from"]
        write_catalog(path, tissue=entry(raw=raw))
        assert "voxel_size" in facts(check("--catalog", path, status=1), "tissue.raw")[1]


class TestUnreadable:
    """A source that gives no answer is part of the answer."""

    def test_nothing_there(self, url: str, here: Path) -> None:
        path = write_catalog(here / "own.yaml", tissue=entry(gone=volume(f"{url}/gone"), raw=volume(url)))
        text = check("--catalog", path, status=1)
        state, found = facts(text, "tissue.gone")
        assert state == "CANNOT BE READ"
        assert f"file://{url.removeprefix('file://')}/gone: there is no info document" in found["reason"]
        assert facts(text, "tissue.raw")[0] == "ok"
        assert text.splitlines()[-1] == "2 sources looked at, 1 to be mended"

    def test_a_server_that_is_not_there(self, here: Path) -> None:
        with serve(here) as server:
            url = server.url
        path = write_catalog(here / "own.yaml", tissue=entry(raw=volume(f"{url}/em")))
        state, found = facts(check("--catalog", path, status=1), "tissue.raw")
        assert state == "CANNOT BE READ"
        assert "cannot be reached" in found["reason"]

    @pytest.mark.parametrize(("content", "says"), [(b"{", "not the info"), (b"{}", "data_type")])
    def test_what_is_no_info(self, source: Path, url: str, here: Path, content: bytes, says: str) -> None:
        (source / "info").write_bytes(content)
        path = write_catalog(here / "own.yaml", tissue=entry(raw=volume(url)))
        state, found = facts(check("--catalog", path, status=1), "tissue.raw")
        assert state == "CANNOT BE READ"
        assert says in found["reason"]

    def test_an_address_that_is_not_confirmed_may_be_wrong(self, url: str, here: Path) -> None:
        guess = volume(f"{url}/gone", unconfirmed="made like its neighbours")
        text = check("--catalog", write_catalog(here / "own.yaml", tissue=entry(raw=guess)))
        state, found = facts(text, "tissue.raw")
        assert state == "not confirmed, and not there"
        assert "made like its neighbours" in found["reason"]
        assert text.splitlines()[-1] == "1 source looked at, none to be mended"

    def test_an_address_that_is_not_confirmed_is_compared_where_it_is_right(self, url: str, here: Path) -> None:
        guess = volume(url, unconfirmed="made like its neighbours")
        path = write_catalog(here / "own.yaml", tissue=entry(raw=guess))
        assert facts(check("--catalog", path), "tissue.raw")[0] == "ok"
        write_catalog(path, tissue=entry(raw={**guess, "chunk": [1, 2, 3]}))
        assert facts(check("--catalog", path, status=1), "tissue.raw")[0] == "DIFFERS"


class TestEntries:
    """Which volumes are looked at."""

    @pytest.fixture
    def own(self, url: str, here: Path) -> Path:
        """Two entries, one in a sub-catalog, and parameters of which not all values go together."""
        here.joinpath("tissue/more").symlink_to(here / "tissue", target_is_directory=True)
        variants = {"big 0": {}, "big 1": {"chunk": [32, 16, 8]}, "small 0": {"note": "the same"}}
        crops = volume(f"{url}/{{{{ size }}}}", variant="{{ size }} {{ crop }}", variants=variants)
        for name in ("big", "small"):
            here.joinpath("tissue", name).symlink_to(here / "tissue", target_is_directory=True)
        write_catalog(here / "inner.yaml", deep=entry(raw=volume(f"{url}/more", chunk=[9, 9, 9])))
        sub = {
            "driver": "em_catalog", "description": "more", "args": {"path": "{{ CATALOG_DIR }}/inner.yaml"},
        }  # fmt: skip
        parameters = {"size": ["big", "small"], "crop": ["0", "1"]}
        return write_catalog(here / "own.yaml", one=entry(raw=volume(url)), crops=entry(parameters, raw=crops), sub=sub)

    def names(self, text: str) -> list[str]:
        return [line.split("  ")[0] for line in text.splitlines()[:-1] if not line.startswith(" ")]

    def test_all_of_a_catalog(self, own: Path) -> None:
        text = check("--catalog", own, status=1)
        assert self.names(text) == [
            "one.raw", "crops.raw big 0", "crops.raw big 1", "crops.raw small 0", "sub.deep.raw",
        ]  # fmt: skip
        assert [facts(text, name)[0] for name in self.names(text)] == ["ok"] * 4 + ["DIFFERS"]

    def test_one(self, own: Path) -> None:
        assert self.names(check("one", "--catalog", own)) == ["one.raw"]

    def test_a_sub_catalog_and_an_entry_in_it(self, own: Path) -> None:
        for name in ("sub", "sub.deep"):
            assert self.names(check(name, "--catalog", own, status=1)) == ["sub.deep.raw"]

    def test_a_combination_that_does_not_exist_is_passed_over(self, own: Path) -> None:
        names = self.names(check("crops", "--size", "small", "--catalog", own))
        assert names == ["crops.raw small 0"]
        assert self.names(check("crops", "--crop", "1", "--catalog", own)) == ["crops.raw big 1"]

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("on",), ["no entry 'on'", "one, crops, sub, sub.deep", "Did you mean 'one'?"]),
            (("deep",), ["Did you mean 'sub.deep'?"]),
            (("crops", "--size", "huge"), ["size=huge", "big, small"]),
            (("crops", "--siz", "big"), ["--siz", "Did you mean '--size'?"]),
            (("one", "--size", "big"), ["no option --size for one"]),
            (("--size", "big"), ["no option --size for the catalog"]),
        ],
    )
    def test_mistakes(self, own: Path, arguments: tuple[str, ...], words: list[str]) -> None:
        done = call("check", *arguments, "--catalog", own, status=2)
        assert_one_sentence(done.stderr, *words)

    def test_channels_that_are_not_read_by_default_are_looked_at(self, url: str, here: Path) -> None:
        two = entry(raw=volume(url), more=volume(f"{url}/gone"))
        two["args"]["channels"] = ["raw"]
        text = check("--catalog", write_catalog(here / "own.yaml", tissue=two), status=1)
        assert facts(text, "tissue.more")[0] == "CANNOT BE READ"

    def test_a_volume_of_two_entries_is_looked_at_once(self, url: str, here: Path) -> None:
        path = write_catalog(here / "own.yaml", one=entry(raw=volume(url)), two=entry(same=volume(url)))
        assert self.names(check("--catalog", path)) == ["one.raw"]

    def test_the_demo(self) -> None:
        assert self.names(check("demo")) == ["demo.raw", "demo.labels"]


class TestAudit:
    """The same in Python."""

    def test_differences(self, url: str) -> None:
        found = audit(channel(f"precomputed://{url}", "uint8", voxel_size=TRUTH["voxel_size"]), load_settings())
        assert found.differences == (Difference("dtype", "uint8", "uint16"),)
        assert not found.is_good
        assert found.documents is not None
        assert list(found.documents) == [f"precomputed://{url}/info"]

    def test_a_failure(self, url: str) -> None:
        for unconfirmed in (None, "a guess"):
            found = audit(channel(f"precomputed://{url}/gone", unconfirmed=unconfirmed), load_settings())
            assert isinstance(found.failure, SourceMissingError)
            assert (found.is_good, found.documents) == (unconfirmed is not None, None)
