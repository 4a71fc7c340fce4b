"""The shipped catalogs are right, and a catalog from elsewhere cannot do harm."""

from __future__ import annotations

import importlib
import json
import pickle
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import intake
import pytest

import emcatalog
from emcatalog.catalog_file import EntryMetadata, check_catalog
from emcatalog.drivers.catalog import load_yaml
from emcatalog.entries.volume import ChannelModel, VolumeArguments
from emcatalog.errors import ArgumentError, CatalogError, NoVariantError, UnknownArgumentError
from tests.conftest import python
from tests.replica.prism import build_prism
from tests.replica.server import serve

FILES = sorted(Path(emcatalog.CATALOG).parent.glob("*.yaml"))
INFOS = Path(__file__).parent / "replica" / "infos"
MALE_CNS = "precomputed://gs://flyem-male-cns/"

OPENERS: dict[str, Callable[[], Any]] = {
    "intake.open_catalog": lambda: intake.open_catalog(emcatalog.CATALOG),
    "intake.cat": lambda: intake.cat.emcatalog,
    "emcatalog.open_catalog": lambda: emcatalog.open_catalog(emcatalog.CATALOG),
    "emcatalog.catalog": lambda: emcatalog.catalog,
}


def volumes(catalog: Any) -> Iterator[tuple[str, Any]]:
    """Every volume of a catalog and its sub-catalogs, with every combination of its parameters that exists."""
    return ((name, source) for name, source in entries(catalog) if type(source).name == "em_volume")


def entries(catalog: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The same of all entries."""
    for name in catalog:
        source = catalog[name]
        if source.container == "catalog":
            yield from entries(source, f"{prefix}{name}.")
            continue
        parameters = {each["name"]: each["allowed"] for each in source.describe()["user_parameters"]}
        for values in product(*parameters.values()):
            with suppress(NoVariantError):
                yield " ".join([f"{prefix}{name}", *values]), source(**dict(zip(parameters, values, strict=True)))


def declared(model: ChannelModel) -> dict[str, Any]:
    """What a channel declares, in the words of a precomputed info."""
    return {
        "data_type": model.dtype,
        "size": list(model.shape or ()),
        "offset": list(model.offset or (0, 0, 0)),
        "finest": list(model.voxel_size),
        "resolutions": [list(size) for size in model.scales],
        "chunk": list(model.chunk or ()),
        "encoding": model.encoding,
    }


def published(info: dict[str, Any]) -> dict[str, Any]:
    """The same of a precomputed info."""
    finest = info["scales"][0]
    return {
        "data_type": info["data_type"],
        "size": finest["size"],
        "offset": finest.get("voxel_offset", [0, 0, 0]),
        "finest": finest["resolution"],
        "resolutions": [scale["resolution"] for scale in info["scales"]],
        "chunk": finest["chunk_sizes"][0],
        "encoding": finest["encoding"],
    }


class TestShipped:
    """The catalogs that come with the package."""

    @pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
    def test_pass_the_check(self, file: Path) -> None:
        assert check_catalog(load_yaml(file.read_text(), str(file)), str(file)).sources

    @pytest.mark.parametrize("opener", OPENERS)
    def test_every_entry_opens(self, opener: str) -> None:
        catalog = OPENERS[opener]()
        assert list(catalog) == [
            "demo", "malecns", "wildenberg2023", "human_liver", "e11bio_prism", "malecns_data",
        ]  # fmt: skip
        assert list(catalog.malecns_data) == [
            "em_clahe", "segmentation", "em_n5", "nuclei", "rois_brain", "rois_vnc", "body_annotations",
            "body_neurotransmitters", "body_stats", "connectome_weights", "synapse_points", "synapse_partners",
            "tbar_neurotransmitters", "skeletons", "skeletons_mirrored", "skeletons_unisex", "neuprint",
            "neo4j_database", "neuprint_inputs",
        ]  # fmt: skip
        found = dict(volumes(catalog))
        assert Counter(name.split()[0].rpartition(".")[2] for name in found) == {
            "demo": 1, "malecns": 2, "wildenberg2023": 2, "human_liver": 1, "e11bio_prism": 14 + 17,
            "em_clahe": 1, "segmentation": 2, "em_n5": 2, "nuclei": 2, "rois_brain": 1, "rois_vnc": 1,
        }  # fmt: skip
        for name, source in found.items():
            assert source.channels, name
            assert source.name == name.split()[0].rpartition(".")[2]

    def test_the_channels_of_male_cns(self) -> None:
        source = OPENERS["intake.open_catalog"]().malecns
        assert {name: (c.kind, c.dtype) for name, c in source.channels.items()} == {
            "raw": ("image", "uint8"),
            "labels": ("instances", "uint64"),
        }
        assert (
            source.arguments.box_nm
            == VolumeArguments.norm(
                {
                    **source.arguments.model_dump(include={"volumes", "voxel_size"}),
                    "bbox": "40000,41024,40000,41024,20000,21024",
                }
            ).box_nm
        )

    def test_numbers_are_the_published_ones(self) -> None:
        compared = set()
        for name, source in volumes(OPENERS["intake.open_catalog"]()):
            for channel, model in source.channels.items():
                if model.url.startswith(MALE_CNS):
                    path = model.url.removeprefix(MALE_CNS)
                    file = "em-clahe-jpeg" if path.startswith("em/") else "-".join(reversed(path.split("/")))
                    if not (INFOS / f"{file}.json").exists():
                        assert "not confirmed" in model.source or "inferred" in model.source, name
                        continue
                    info = json.loads((INFOS / f"{file}.json").read_text())
                    assert declared(model) == published(info), (name, channel)
                    compared.add(file)
        assert compared == {"em-clahe-jpeg", "segmentation-v0.9", "segmentation-v1.0"}

    def test_numbers_of_the_demo_are_those_that_are_made(self, demo_folder: Path) -> None:
        for model in OPENERS["intake.open_catalog"]().demo.channels.values():
            (file,) = demo_folder.glob(f"*/{model.url.rpartition('/')[2]}/info")
            info = json.loads(file.read_text())
            assert declared(model) == published(info)

    def test_each_says_what_it_is_and_where_its_numbers_come_from(self) -> None:
        for name, source in entries(OPENERS["intake.open_catalog"]()):
            EntryMetadata.model_validate(source.metadata)
            if "demo" not in name:
                assert source.metadata["doi"]
                assert source.metadata["homepage"].startswith("https://")
            assert all(part.source for part in source.arguments.declarations.values())
            assert source.description

    def test_nothing_is_warned_of(self) -> None:
        script = (
            "import intake, emcatalog; c = intake.open_catalog(emcatalog.CATALOG); c.malecns(version='v1.0'); print(9)"
        )
        assert python(script, env={"PYTHONWARNINGS": "error"}).splitlines() == ["9"]

    @pytest.mark.parametrize("opener", OPENERS)
    def test_a_pickled_source_keeps_its_arguments(self, opener: str) -> None:
        box = (40000, 40064, 40000, 40064, 20000, 20064)
        source = OPENERS[opener]().malecns(version="v1.0", bbox=box, channels=["labels"])
        again = pickle.loads(pickle.dumps(source))
        assert again.arguments == source.arguments
        assert again.metadata == source.metadata
        assert list(again.channels) == ["labels"]
        assert again.channels["labels"].url.endswith("/v1.0/segmentation")

    @pytest.mark.parametrize("opener", OPENERS)
    def test_what_was_given_stays_when_more_is_asked(self, opener: str) -> None:
        box = (40000, 40064, 40000, 40064, 20000, 20064)
        source = OPENERS[opener]().malecns(version="v1.0")(bbox=box)
        assert source.channels["labels"].url.endswith("/v1.0/segmentation")
        other = source(channels=["labels"])(version="v0.9")
        assert other.channels["labels"].url.endswith("/v0.9/segmentation")
        assert list(other.channels) == ["labels"]
        assert other.arguments.box_nm == source.arguments.box_nm
        assert source(bbox=None).channels["labels"].url.endswith("/v1.0/segmentation")
        assert (other.name, other.description) == (source.name, source.description)

    @pytest.mark.parametrize("opener", OPENERS)
    def test_a_release_that_is_not_there(self, opener: str) -> None:
        with pytest.raises(ValueError, match=r"v9.*v0\.9,v1\.0"):
            OPENERS[opener]().malecns(version="v9")

    @pytest.mark.parametrize("opener", OPENERS)
    def test_a_misspelt_argument(self, opener: str) -> None:
        with pytest.raises(UnknownArgumentError, match="Did you mean 'bbox'"):
            OPENERS[opener]().malecns(bbx=(0, 1, 0, 1, 0, 1))
        with pytest.raises(ArgumentError, match="Did you mean 'labels'"):
            OPENERS[opener]().malecns(channels="label")

    def test_classes_alone_where_nobody_declared_how_many_channels_the_image_has(
        self, serve_as: Any, here: Path
    ) -> None:
        build_prism(here / "bucket", {"semantic": [3]})
        serve_as("s3://e11bio-prism", here / "bucket")
        source = OPENERS["emcatalog.catalog"]().e11bio_prism(split="semantic", crop="3", channels=["labels"])
        assert source.plan().missing > 0


# ---- catalogs from elsewhere ----

CATALOG = """
name: elsewhere
sources:
  tissue:
    description: a test
    driver: em_volume
    args:
      volumes:
        raw: {url: "precomputed://gs://bucket/em", kind: image, dtype: uint8, voxel_size: 8, source: a test, note: NOTE}
      voxel_size: 8
    metadata: {title: t, organism: o, tissue: t, modality: m, licence: l, citation: c, sources: [s], extra: EXTRA}
"""

SUB = """
  sub:
    description: findme
    driver: em_catalog
    args: {path: "{{ CATALOG_DIR }}/more.yaml"}
"""

PARAMETER = """
    parameters:
      version: {description: d, type: str, default: DEFAULT, allowed: [v1, DEFAULT]}
"""

MARK = "harm-was-done"
RUN = "{{ cycler.__init__.__globals__.os.system('touch harm-was-done') }}"
MODULE = "evil_module_of_a_test"
ADVERSE_MODULE = f"""
import pathlib
pathlib.Path({MARK!r}).touch()
from intake.source.base import DataSource
class Evil(DataSource):
    container = "xarray"
"""

# What plain Intake runs when such a catalog is opened and its entry looked at.
HARMFUL = {
    "template in metadata": CATALOG.replace("EXTRA", f'"{RUN}"'),
    "template in an argument": CATALOG.replace("NOTE", f'"{RUN}"'),
    "template in a list": CATALOG.replace("EXTRA", f'[[a], "{RUN}"]'),
    "template in a set": CATALOG.replace("EXTRA", f'!!set {{"{RUN}"}}'),
    "template in a tuple": CATALOG.replace("EXTRA", f'!!python/tuple ["{RUN}"]'),
    "template in pairs": CATALOG.replace("EXTRA", f'!!pairs [a: "{RUN}"]'),
    "template behind a good one": CATALOG.replace("EXTRA", f'"{{{{ CATALOG_DIR }}}}{RUN}"'),
    "statement": CATALOG.replace("EXTRA", '"{% set x = ' + RUN.strip("{} ") + ' %}"'),
    "trimmed statement": CATALOG.replace("EXTRA", '"{%- set x = ' + RUN.strip("{} ") + ' -%}"'),
    "filter": CATALOG.replace("EXTRA", '"{{ ' + RUN.strip("{} ") + ' | string }}"'),
    "plugins": CATALOG + f"plugins: {{source: [{{module: {MODULE}}}]}}\n",
    "dotted driver": CATALOG.replace("em_volume", f"{MODULE}.Evil"),
    "list of drivers": CATALOG.replace("em_volume", f"[em_volume, {MODULE}.Evil]"),
    "dict of drivers": CATALOG.replace("em_volume", f"{{a: {{class: {MODULE}.Evil}}}}"),
    "class": CATALOG + f"  more: {{cls: os.system, args: [touch {MARK}]}}\n",
    "shell in a default": CATALOG.replace("NOTE", '"{{ version }}"').replace(
        "    args:", PARAMETER.replace("DEFAULT", f'"shell(touch {MARK})"') + "    args:"
    ),
    "shell in a parameter of the catalog": CATALOG.replace("NOTE", '"{{ version }}"').replace(
        "sources:\n",
        "metadata:\n  parameters:\n"
        f'    version: {{description: d, type: str, default: "shell(touch {MARK})"}}\nsources:\n',
    ),
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a harmless one, with a module in reach that would leave a mark."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    (folder / f"{MODULE}.py").write_text(ADVERSE_MODULE)
    return folder


def write(folder: Path, text: str, name: str = "catalog.yaml") -> Path:
    """Write a catalog file, its gaps filled with something harmless."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(re.sub(r"\b(NOTE|EXTRA)\b", "nothing", text))
    return folder / name


def harm(use: Callable[[], object]) -> bool:
    """Whether something that a catalog says was run; errors are none of this one's business."""
    mark = Path(MARK)
    mark.unlink(missing_ok=True)
    importlib.invalidate_caches()
    for cache in (importlib.sys.modules, intake.source.classes):  # type: ignore[attr-defined]
        for name in [name for name in cache if name.startswith(MODULE)]:
            del cache[name]
    with suppress(Exception):
        use()
    return mark.exists()


class TestElsewhere:
    """A catalog of whoever: it opens if it only declares, and is refused before anything of it runs."""

    def test_a_catalog_that_only_declares(self, here: Path) -> None:
        text = CATALOG.replace("em_volume", "em_volume" + PARAMETER.rstrip().replace("DEFAULT", "v2"))
        path = write(here, text.replace("gs://bucket/em", "gs://{{ version }}/em").replace("EXTRA", "2024-01-31") + SUB)
        write(here, CATALOG, "more.yaml")
        for opened in (
            emcatalog.open_catalog(path),
            emcatalog.open_catalog(str(path)),
            emcatalog.open_catalog(path.name),
        ):
            assert list(opened) == ["tissue", "sub"]
            assert opened.tissue.channels["raw"].url == "precomputed://gs://v2/em"
            assert opened.tissue(version="v1").channels["raw"].url == "precomputed://gs://v1/em"
            assert list(opened.sub) == ["tissue"]
            assert opened["sub.tissue"].channels["raw"].dtype == "uint8"

    @pytest.mark.parametrize("case", HARMFUL)
    def test_what_intake_would_run_is_refused(self, here: Path, case: str) -> None:
        path = write(here, HARMFUL[case])
        assert harm(lambda: intake.open_catalog(str(path), getshell=True).tissue)
        with pytest.raises(CatalogError, match=re.escape(str(path))):
            emcatalog.open_catalog(path, getshell=True)
        assert not harm(lambda: emcatalog.open_catalog(path, getshell=True).tissue)

    def test_a_folder_whose_name_is_a_template(self, here: Path) -> None:
        path = write(here / RUN, CATALOG)
        assert harm(lambda: intake.open_catalog(str(path)).tissue)
        with pytest.raises(CatalogError, match="the folder's name"):
            emcatalog.open_catalog(path)
        assert not harm(lambda: emcatalog.open_catalog(path).tissue)

    def test_the_environment_is_not_told(self, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SECRET", "hush")
        for text in (
            CATALOG.replace("/em", "/{{ env('SECRET') }}"),
            CATALOG.replace("/em", "/{{ version }}").replace(
                "    args:", PARAMETER.replace("DEFAULT", "env(SECRET)") + "    args:"
            ),
        ):
            path = write(here, re.sub("allowed: .*]", "allowed: [v1, env(SECRET), hush]", text))
            assert intake.open_catalog(str(path)).tissue.channels["raw"].url.endswith("hush")
            with pytest.raises(CatalogError, match=r"templates are allowed|not plain text"):
                emcatalog.open_catalog(path)

    @pytest.mark.parametrize(
        "extra",
        [
            "\"{{ ''.__class__ }}\"",
            '"{# a comment #}"',
            '"{{ unknown }}"',
            '"{{ CATALOG_DIR.x }}"',
            '"{{ CATALOG_DIR[0] }}"',
            '"{{ CATALOG_DIR|upper }}"',
            '"{{- CATALOG_DIR -}}"',
            '"{{ CATALOG_DIR }"',
            '"{{{ CATALOG_DIR }}{ evil }}"',
            '"{{{ CATALOG_DIR }}}"',
            '"{{ CATALOG_DIR }}}"',
            '"{{{{ CATALOG_DIR }}}}"',
            '"{{{ CATALOG_DIR }}% set x = 1 %}"',
            '"{{ CATALOG_DIR }}{{ evil"',
            '"{{"',
            '"%}"',
            '{"{{ evil }}": 1}',
            '{"{{ CATALOG_DIR }} {% x %}": 1}',
            "!!binary aGFybQ==",
            "!!set {a, b}",
            "{1: 2}",
        ],
    )
    def test_other_templates_and_types(self, here: Path, extra: str) -> None:
        with pytest.raises(CatalogError, match=r"catalog.yaml: sources.tissue.metadata.extra: "):
            emcatalog.open_catalog(write(here, CATALOG.replace("EXTRA", extra)))

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            (CATALOG.replace("em_volume", "csv"), "sources.tissue.driver"),
            (CATALOG.replace("em_volume", "yaml_files_cat"), "sources.tissue.driver"),
            (CATALOG.replace("em_volume", "intake_remote"), "sources.tissue.driver"),
            (CATALOG.replace("em_volume", "emcatalog.drivers.volume.VolumeSource"), "sources.tissue.driver"),
            (
                CATALOG.replace("    metadata:", "    direct_access: force\n    metadata:"),
                "sources.tissue.direct_access",
            ),
            (CATALOG.replace("    metadata:", "    cache: [{a: b}]\n    metadata:"), "sources.tissue.cache"),
            (CATALOG.replace("    metadata:", "    remote: true\n    metadata:"), "sources.tissue.remote"),
            (CATALOG.replace("    metadata:", "    cls: x.Y\n    metadata:"), "sources.tissue.cls"),
            (CATALOG + "entries: {}\n", "entries: there is no such key"),
            (CATALOG + "version: 2\n", "version: there is no such key"),
            (CATALOG + "metadata: {version: 2}\n", "metadata.version"),
            (CATALOG.replace("tissue:\n", '"{{ evil }}":\n'), "an entry's name"),
            (CATALOG.replace("voxel_size: 8\n", "voxel_size: 8\n      cache_dir: /tmp\n"), "args.cache_dir"),
            (CATALOG.replace("voxel_size: 8\n", "voxel_size: 8\n      offline: false\n"), "args.offline"),
            (CATALOG.replace("voxel_size: 8\n", "voxel_size: 8\n      storage_options: {}\n"), "'storage_options'"),
            (CATALOG.replace("/em", "/../../other"), r"volumes.raw.url: .*'\.\.'"),
            (CATALOG.replace("    args:", PARAMETER + "    args:").replace("DEFAULT", "v2"), "no template uses it"),
            *[
                (
                    CATALOG.replace("NOTE", f'"{{{{ {name} }}}}"').replace(
                        "    args:", PARAMETER.replace("version", name).replace("DEFAULT", "v2") + "    args:"
                    ),
                    f"parameters.{name}: the name has another meaning",
                )
                for name in (
                    "CATALOG_DIR",
                    "metadata",
                    "cache_dir",
                    "offline",
                    "bbox",
                    "plugin",
                    "cache",
                    "none",
                    "not",
                )
            ],
            (CATALOG.replace("EXTRA", "!!python/object:os.system {}"), "is not YAML"),
            (CATALOG.replace("EXTRA", "!!python/object/apply:os.system [ls]"), "is not YAML"),
            (CATALOG.replace("EXTRA", "!!python/name:os.system"), "is not YAML"),
            (CATALOG.replace("EXTRA", "!mine x"), "is not YAML"),
            (CATALOG.replace("EXTRA", "!!bool x"), "is not YAML"),
            (CATALOG.replace("EXTRA", "!!timestamp x"), "is not YAML"),
            (CATALOG.replace("EXTRA", "2024-13-45"), "is not YAML: month must be"),
            (CATALOG.replace("EXTRA", "{[1]: 2}"), "is not YAML"),
            (CATALOG.replace("EXTRA", "1, extra: 2"), r"is not YAML: duplicate key found on line 11"),
            (CATALOG + "name: again\n", "is not YAML: duplicate key"),
            (CATALOG + "sources: {}\n", "is not YAML: duplicate key"),
            (CATALOG.replace("EXTRA", "[" * 60 + "]" * 60), "larger than any catalog"),
            (CATALOG.replace("EXTRA", "[" * 5000), "is not YAML"),
            (CATALOG.replace("EXTRA", "&a [*a]"), "larger than any catalog"),
            (CATALOG.replace("EXTRA", r'"\e]0;owned\a"'), "control character"),
            (CATALOG.replace("EXTRA", r'"\ud800"'), "control character"),
        ],
    )
    def test_everything_else_that_is_refused(self, here: Path, text: str, says: str) -> None:
        path = write(here, text)
        with pytest.raises(CatalogError, match=f"^{re.escape(str(path))}.*{says}"):
            emcatalog.open_catalog(path)

    def test_a_bomb_of_aliases_is_refused_quickly(self, here: Path) -> None:
        bomb = "[" + ", ".join(f"&a{i} [{f'*a{i - 1}, ' * 9}x]" for i in range(1, 12)) + "]"
        with pytest.raises(CatalogError, match="larger than any catalog"):
            emcatalog.open_catalog(write(here, CATALOG.replace("EXTRA", bomb.replace("*a0", "x"))))


class TestSubCatalogs:
    """A sub-catalog lies beside its catalog, and is checked as its catalog was."""

    @pytest.mark.parametrize(
        "args",
        [
            '{path: "{{ CATALOG_DIR }}/../more.yaml"}',
            '{path: "{{ CATALOG_DIR }}/a/more.yaml"}',
            '{path: "{{ CATALOG_DIR }}/.more.yaml"}',
            '{path: "{{ CATALOG_DIR }}/*.yaml"}',
            '{path: "{{ CATALOG_DIR }}more.yaml"}',
            '{path: "{{ CATALOG_DIR }}/more.yaml\\n"}',
            '{path: "{{ CATALOG_DIR }}/more.py"}',
            '{path: "/etc/more.yaml"}',
            '{path: "more.yaml"}',
            '{path: "https://example.org/more.yaml"}',
            '{path: "simplecache::{{ CATALOG_DIR }}/more.yaml"}',
            '{path: ["{{ CATALOG_DIR }}/more.yaml"]}',
            '{path: "{{ CATALOG_DIR }}/more.yaml", getshell: true}',
            '{path: "{{ CATALOG_DIR }}/more.yaml", text: "sources: {}"}',
            '{path: "{{ CATALOG_DIR }}/more.yaml", storage_options: {}}',
            "{}",
        ],
    )
    def test_other_places_are_refused(self, here: Path, args: str) -> None:
        text = CATALOG + SUB.replace('{path: "{{ CATALOG_DIR }}/more.yaml"}', args)
        with pytest.raises(CatalogError, match=r"sources.sub.args: a sub-catalog is a file beside this one"):
            emcatalog.open_catalog(write(here, text))

    @pytest.mark.parametrize("driver", ["em_catalog", "yaml_file_cat"])
    @pytest.mark.parametrize(
        "way",
        [
            lambda opened: opened.sub,
            lambda opened: opened["sub"],
            lambda opened: opened["sub.tissue"],
            lambda opened: opened["sub", "tissue"],
            lambda opened: dict(opened.items()),
            lambda opened: opened.search("findme").sub,
            lambda opened: opened.filter(lambda entry: entry.name == "sub").sub,
            lambda opened: pickle.loads(pickle.dumps(opened)).sub,
            lambda opened: pickle.loads(pickle.dumps(opened._entries["sub"]))(),
            lambda opened: opened().sub,
        ],
    )
    def test_an_evil_one_is_refused_when_it_is_opened(self, here: Path, driver: str, way: Callable[[Any], Any]) -> None:
        path = write(here, CATALOG + SUB.replace("em_catalog", driver))
        evil = write(here, HARMFUL["template in metadata"], "more.yaml")
        assert harm(lambda: intake.open_catalog(str(path.with_name("more.yaml"))).tissue)
        opened = emcatalog.open_catalog(path)
        with pytest.raises(CatalogError, match=f"{re.escape(evil.name)}: sources.tissue.metadata.extra"):
            way(opened)
        assert not harm(lambda: way(opened).tissue)

    def test_a_missing_one(self, here: Path) -> None:
        opened = emcatalog.open_catalog(write(here, CATALOG + SUB))
        with pytest.raises(CatalogError, match=r"there is no catalog file at .*more\.yaml"):
            _ = opened.sub

    def test_over_http(self, here: Path) -> None:
        write(here, CATALOG + SUB)
        write(here, CATALOG, "more.yaml")
        with serve(here) as server:
            opened = emcatalog.open_catalog(f"{server.url}/catalog.yaml")
            assert opened["sub.tissue"].channels["raw"].kind == "image"
            write(here, HARMFUL["template in metadata"], "more.yaml")
            with pytest.raises(CatalogError, match=f"{server.url}/more.yaml: sources.tissue.metadata.extra"):
                _ = emcatalog.open_catalog(f"{server.url}/catalog.yaml").sub


class TestReload:
    """Intake reads a catalog again when its time is up."""

    def test_a_file_that_has_turned_evil(self, here: Path) -> None:
        path = write(here, CATALOG)
        opened = emcatalog.open_catalog(path, ttl=0)
        plain = intake.open_catalog(str(path), ttl=0)
        assert list(opened) == ["tissue"]
        write(here, HARMFUL["template in metadata"])
        assert harm(lambda: plain.tissue)
        for use in (lambda: opened.tissue, lambda: opened["tissue"], opened.force_reload):
            with pytest.raises(CatalogError, match=r"sources.tissue.metadata.extra"):
                use()
            assert not harm(use)

    def test_a_file_that_has_changed_for_good(self, here: Path) -> None:
        opened = emcatalog.open_catalog(write(here, CATALOG), ttl=0)
        write(here, CATALOG.replace("tissue:", "other:", 1))
        assert list(opened) == ["other"]

    def test_a_file_that_has_gone(self, here: Path) -> None:
        path = write(here, CATALOG)
        opened = emcatalog.open_catalog(path, ttl=0)
        path.unlink()
        with pytest.raises(CatalogError, match="there is no catalog file at"):
            list(opened)

    def test_the_current_folder_does_not_matter(self, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(here, CATALOG + SUB)
        write(here, CATALOG, "more.yaml")
        opened = emcatalog.open_catalog("catalog.yaml", ttl=0)
        monkeypatch.chdir(here.parent)
        assert list(opened.sub) == ["tissue"]


class TestUnreadable:
    """What is not there, or is no catalog: one sentence."""

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"", "is empty"),
            (b"# nothing\n", "is empty"),
            (b"- a\n- b\n", "holds list"),
            (b"text", "holds str 'text'"),
            (b"{}", "sources: it is missing"),
            (b"sources:\n", "sources: .*not None"),
            (bytes(range(256)), "not text in UTF-8"),
            (b"\x89PNG\r\n\x1a\n\x00", "not text in UTF-8"),
            (b"a\x00b", "is not YAML"),
            (b"a: [", "is not YAML.*line 1"),
            (b"a: b: c", "is not YAML"),
        ],
    )
    def test_content(self, here: Path, content: bytes, says: str) -> None:
        path = here / "catalog.yaml"
        path.write_bytes(content)
        with pytest.raises(CatalogError, match=f"(?s){re.escape(str(path))}.*{says}"):
            emcatalog.open_catalog(path)

    def test_nothing_there(self, here: Path) -> None:
        with pytest.raises(CatalogError, match=r"there is no catalog file at .*/nothing\.yaml"):
            emcatalog.open_catalog(here / "nothing.yaml")

    def test_a_folder(self, here: Path) -> None:
        with pytest.raises(CatalogError, match=f"{re.escape(str(here))} is a folder; give the catalog file in it"):
            emcatalog.open_catalog(here)

    def test_several_files(self, here: Path) -> None:
        write(here, CATALOG, "one.yaml")
        write(here, CATALOG, "two.yaml")
        with pytest.raises(CatalogError, match=r"\*\.yaml"):
            emcatalog.open_catalog(here / "*.yaml")

    def test_the_users_home(self, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(here))
        write(here, CATALOG)
        assert list(emcatalog.open_catalog("~/catalog.yaml")) == ["tissue"]

    @pytest.mark.parametrize("status", [404, 403, 500])
    def test_a_url_that_fails(self, here: Path, status: int) -> None:
        write(here, CATALOG)
        with serve(here) as server:
            server.fail("/catalog.yaml", status)
            with pytest.raises(CatalogError, match=f"{server.url}/catalog.yaml"):
                emcatalog.open_catalog(f"{server.url}/catalog.yaml")

    def test_a_server_that_is_not_there(self, here: Path) -> None:
        with serve(here) as server:
            url = server.url
        with pytest.raises(CatalogError, match=f"{url}/catalog.yaml, or it cannot be reached"):
            emcatalog.open_catalog(f"{url}/catalog.yaml")

    def test_a_url_of_an_unknown_kind(self) -> None:
        with pytest.raises(CatalogError, match=r"gopher://x/catalog.yaml cannot be read: .*gopher"):
            emcatalog.open_catalog("gopher://x/catalog.yaml")

    def test_what_is_no_path(self) -> None:
        with pytest.raises(TypeError):
            emcatalog.open_catalog(None)  # type: ignore[arg-type]
