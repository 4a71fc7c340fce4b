"""The command line: what a person types and reads, its exit status, and what stands on which stream."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml
from PIL import Image
from typer.testing import CliRunner, Result

import emcatalog
from emcatalog.cli import app
from emcatalog.cli.check import catalog_schema
from tests.conftest import python
from tests.replica.server import serve
from tests.replica.wire import Server

COMMAND = [sys.executable, "-m", "emcatalog.cli"]
BOX = ("--bbox", "0,100,0,100,0,100")
"""Two chunks of the demo along each axis: 8 for each channel."""
MALE_CNS = ("--bbox", "40000,40064,40000,40064,20000,20064")


def call(*arguments: object, status: int = 0, env: dict[str, str] | None = None) -> Result:
    """Run a command in this process; a wrong status shows what it printed."""
    environment = {"COLUMNS": "120", **(env or {})}
    done = CliRunner().invoke(app, [str(each) for each in arguments], env=environment, prog_name="emcatalog")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == status, done.output
    return done


def run(*arguments: object, status: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command as a user does."""
    command = [*COMMAND, *(str(each) for each in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == status, done.stderr
    return done


def row(text: str, name: str) -> list[str]:
    """The cells of a table's row."""
    line = next(line for line in text.splitlines() if line.split()[:1] == [name])
    return re.split(r"\s{2,}", line.strip())


def answer(text: str, *arguments: str) -> tuple[int, str]:
    """Run a command on a terminal of its own and answer its question; gives its exit status and what stood there."""
    terminal, end = pty.openpty()
    with subprocess.Popen([*COMMAND, *arguments], stdin=end, stdout=end, stderr=end, start_new_session=True) as process:
        os.close(end)
        shown = b""
        with suppress(OSError):  # the command has ended, and nobody holds the other end
            while part := os.read(terminal, 4096):
                shown += part
                if text and shown.rstrip().endswith(b"[y/N]:"):
                    os.write(terminal, text.encode())
                    text = ""
    os.close(terminal)
    return process.returncode, shown.decode()


def shards() -> list[Path]:
    return sorted(Path(os.environ["EMCATALOG_CACHE"]).rglob("c/*/*/*"))


@pytest.fixture
def own_catalog(tmp_path: Path, demo_folder: Path) -> Path:
    """A catalog of one entry with a parameter, on the demo's files."""
    entry = yaml.safe_load(Path(emcatalog.CATALOG).read_text())["sources"]["demo"]
    volumes = {"raw": {**entry["args"]["volumes"]["raw"], "url": "precomputed://file://{{ at_folder }}/em"}}
    folders = [str(demo_folder / "tissue-1"), "/nowhere"]
    parameter = {"description": "where", "type": "str", "default": folders[1], "allowed": folders}
    entry |= {"args": {**entry["args"], "volumes": volumes}, "parameters": {"at_folder": parameter}}
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"sources": {"tissue": entry}}))
    return path


# --- the whole


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_names_every_command(arguments: tuple[str, ...]) -> None:
    text = call(*arguments).stdout
    commands = "list info plan fetch export preview cache check validate schema demo"
    for command in commands.split():
        assert re.search(rf"^ +{command} +\S", text, re.M), command


def test_version() -> None:
    assert run("--version").stdout == f"emcatalog {emcatalog.__version__}\n"


def test_cache_alone_shows_its_commands() -> None:
    assert re.search(r"^ +verify +\S", call("cache").stdout, re.M)


@pytest.mark.parametrize("command", ["--help", "list", "info"])
def test_browsing_loads_no_heavy_library(command: str) -> None:
    script = (
        "import sys; from emcatalog.cli import app\n"
        "try: app(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print(sorted({'tensorstore', 'xarray', 'dask', 'torch', 'zarr'} & set(sys.modules)))"
    )
    assert python(script, command, *(["malecns"] if command == "info" else [])).splitlines()[-1] == "[]"


def test_a_reader_that_stops_reading_is_no_error() -> None:
    line = f"'{sys.executable}' -m emcatalog.cli list | true"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.parametrize("width", [80, 120])
def test_nothing_is_wider_than_the_terminal(width: int) -> None:
    commands = "list", "list --long", "info malecns", "plan demo", "plan --help", "fetch demo", "check demo"
    for arguments in map(str.split, commands):
        text = call(*arguments, env={"COLUMNS": str(width)}).stdout
        assert max(len(line.rstrip()) for line in text.splitlines()) <= width, text


# --- browse


@pytest.mark.parametrize("width", ["80", "140"])
def test_list(width: str) -> None:
    text = call("list", env={"COLUMNS": width}).stdout
    for word in ("demo", "malecns_data.em_clahe", "raw, labels", "8 nm", "CC BY 4.0", "FIB-SEM"):
        assert word in text


def test_list_of_a_sub_catalog_and_of_a_file(own_catalog: Path) -> None:
    inner = call("list", "malecns_data").stdout
    assert "malecns_data.segmentation" in inner
    assert "demo" not in inner
    assert call("list", own_catalog).stdout == call("list", "--catalog", own_catalog).stdout
    assert "tissue" in call("list", own_catalog).stdout


def test_info_says_all_that_the_catalog_says() -> None:
    text = " ".join(call("info", "malecns").stdout.split())
    for word in (
        "image, uint8",
        "94088 x 78317 x 134576 voxels of 8 nm",
        "2048, 4096, 8192 nm",
        "64 x 64 x 64 voxels, compressed_segmentation",
        "precomputed://gs://flyem-male-cns/v0.9/segmentation",
        "the upper 32 bits are never used",
        "tensorstore-export",
        "40000,41024,40000,41024,20000,21024",
        "v0.9, v1.0 (default v0.9)",
        "CC BY 4.0",
        "10.1016/j.cell.2026.08.015",
        "https://male-cns.janelia.org",
    ):
        assert word in text, word


def test_list_long_is_info_of_each_entry(own_catalog: Path) -> None:
    text = call("list", "--long", "--catalog", own_catalog).stdout
    assert text == call("info", "tissue", "--catalog", own_catalog).stdout
    inner = call("list", "--long", "malecns_data").stdout
    assert inner.startswith("Everything else that the male CNS project publishes\n\nmalecns_data.em_clahe  ")
    assert call("info", "malecns_data.rois_vnc").stdout in inner
    assert "wildenberg2023" not in inner


def test_info_tells_which_addresses_are_not_confirmed() -> None:
    text = call("info", "human_liver", env={"COLUMNS": "300"}).stdout
    doubtful = ("bile_duct", "cell_boundary", "cholangiocyte", "endothelial", "hepatocyte", "sinusoid")
    for channel in ("raw", "er", "mito", "nucleus", *doubtful):
        (heading,) = re.findall(rf"^{channel}  .*$", text, re.M)
        assert heading.endswith("not read unless it is asked for  ADDRESS NOT CONFIRMED") == (channel in doubtful)
    assert text.count("no public source says where its masks lie") == len(doubtful)


def test_reading_from_an_address_that_is_not_confirmed_says_so(tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        mirrors = {"EMCATALOG_MIRRORS": json.dumps({"https://ftp.ebi.ac.uk": server.url})}
        guessed = call("plan", "human_liver", "--channels", "sinusoid", status=2, env=mirrors).stderr
        sure = call("plan", "human_liver", "--channels", "mito", status=2, env=mirrors).stderr
    assert_one_sentence(guessed, "sinusoid_mask_{z:03d}.png is not confirmed: the class is named by the data's authors")
    assert_one_sentence(sure, "mito_mask_000.png")
    assert "not confirmed" not in sure


def test_info_of_another_version_and_of_a_catalog() -> None:
    assert "/v1.0/segmentation" in call("info", "malecns", "--version", "v1.0").stdout
    assert "malecns_data.em_clahe" in call("info", "malecns_data").stdout


# --- plan, fetch, export, preview


def test_plan_fetch_plan() -> None:
    plan = call("plan", "demo", *BOX).stdout
    assert "100 x 100 x 100 voxels of 8 x 8 x 8 nm" in plan
    assert row(plan, "raw") == ["raw", "8", "0", "8", "~356.5 kB", "1.0 MB"]
    assert row(plan, "together")[1:4] == ["16", "0", "16"]
    assert row(call("fetch", "demo", *BOX).stdout, "together")[:4] == ["together", "16", "0", "0"]
    assert row(call("plan", "demo", *BOX).stdout, "together")[1:4] == ["16", "16", "0"]
    again = call("fetch", "demo", *BOX, "--offline").stdout
    assert row(again, "together")[:4] == ["together", "0", "16", "0"]
    assert "nothing was missing" in again


def test_a_shifted_box_fetches_only_what_is_missing() -> None:
    call("fetch", "demo", *BOX)
    shifted = call("fetch", "demo", "--bbox", "64,164,0,100,0,100").stdout
    assert row(shifted, "together")[1:3] == ["8", "8"]


@pytest.mark.parametrize(
    ("arguments", "first_line"),
    [
        (("--resolution", "16", "--channels", "raw"), "128 x 128 x 128 voxels of 16 x 16 x 16 nm"),
        (("--resolution", "32,32,32"), "64 x 64 x 64 voxels of 32 x 32 x 32 nm"),
        (("--units", "nm", "--bbox", "0,801,0,800,0,8"), "101 x 100 x 1 voxels of 8"),
        (("--bbox", "200,300,0,10,0,10", "--clip"), "56 x 10 x 10 voxels"),
        (("--bbox=-8,10,0,10,0,10", "--clip"), "10 x 10 x 10 voxels"),
    ],
)
def test_arguments_are_those_of_python(arguments: tuple[str, ...], first_line: str) -> None:
    assert call("plan", "demo", *arguments).stdout.startswith(first_line)


def test_cache_dir(tmp_path: Path) -> None:
    call("fetch", "demo", *BOX, "--channels", "raw", "--cache-dir", tmp_path / "other")
    assert (tmp_path / "other" / "demo" / "tissue" / "em").is_dir()
    assert shards() == []


@pytest.mark.parametrize("arguments", [("malecns", "--version", "v1.0"), ("--version=v1.0", "malecns")])
def test_an_entrys_own_parameter_is_an_option(male_cns: Server, arguments: tuple[str, ...]) -> None:
    call("fetch", *arguments, *MALE_CNS, "--channels", "labels")
    assert male_cns.count("/v1.0/segmentation/*") > 0
    assert male_cns.count("/v0.9/*") == 0


def test_an_entry_of_a_catalog_of_ones_own(own_catalog: Path, demo_folder: Path) -> None:
    arguments = ("tissue", "--catalog", own_catalog, *BOX, "--at-folder", demo_folder / "tissue-1")
    assert row(call("fetch", *arguments).stdout, "raw")[1] == "8"


def test_export(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "box.zarr"
    done = call("export", "demo", folder, *BOX)
    assert done.stdout == f"{folder}\n"
    labels = xr.open_zarr(folder, group="labels").data
    expected = emcatalog.catalog.demo(bbox=(0, 100, 0, 100, 0, 100)).read()
    np.testing.assert_array_equal(labels, expected.labels)
    assert "--overwrite" in call("export", "demo", folder, *BOX, status=2).stderr
    call("export", "demo", folder, "--bbox", "0,64,0,64,0,64", "--overwrite")
    assert xr.open_zarr(folder, group="raw").data.shape == (64, 64, 64)


def test_preview(tmp_path: Path) -> None:
    picture = tmp_path / "new" / "box.png"
    assert call("preview", "demo", picture, *BOX).stdout == f"{picture}\n"
    assert Image.open(picture).size[0] > 300  # three planes side by side


def test_an_interrupted_fetch_says_what_became_of_it_and_goes_on(
    demo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(demo_folder / "tissue-1") as server:
        monkeypatch.setenv("EMCATALOG_MIRRORS", json.dumps({"demo://tissue": server.url}))
        server.hang("*.shard", seconds=300, skip=1)
        with subprocess.Popen([*COMMAND, "fetch", "demo"], stderr=subprocess.PIPE, text=True) as fetch:
            deadline = time.monotonic() + 60
            while not server.count("*.shard"):
                assert time.monotonic() < deadline, "the fetch asks for nothing"
                time.sleep(0.01)
            fetch.send_signal(signal.SIGINT)
            message = fetch.communicate(timeout=60)[1]
        server.heal()
        assert fetch.returncode == 130
        assert message == "interrupted; what was fetched is kept, and the same command goes on from there\n"
        _, fetched, reused, *_ = row(call("fetch", "demo").stdout, "together")
    assert int(fetched) + int(reused) == 128


# --- cache


def test_cache_ls() -> None:
    assert call("cache", "ls").stdout == f"nothing is cached in {os.environ['EMCATALOG_CACHE']}\n"
    call("fetch", "demo", *BOX)
    text = call("cache", "ls").stdout
    nbytes = sum(shard.stat().st_size for shard in shards())
    assert row(text, "demo/tissue/em")[1:3] == ["8_8_8", "1"]
    assert row(text, "together")[2] == f"{nbytes / 1e6:.1f} MB"
    assert os.environ["EMCATALOG_CACHE"] in text


def test_cache_verify_finds_and_removes_what_is_damaged() -> None:
    call("fetch", "demo", *BOX)
    assert call("cache", "verify").stdout == "2 shards in 2 mirrors: all good\n"
    bad = next(shard for shard in shards() if "segmentation" in str(shard))
    content = bytearray(bad.read_bytes())
    content[len(content) // 2] ^= 0xFF
    bad.write_bytes(content)
    assert call("cache", "verify", "demo/tissue/em").exit_code == 0
    assert str(bad) in call("cache", "verify", "demo", status=1).stdout
    assert "1 bad, removed" in call("cache", "verify", "--remove", status=1).stdout
    assert not bad.exists()
    call("cache", "verify")
    assert row(call("fetch", "demo", *BOX).stdout, "labels")[1:3] == ["8", "0"]


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (("demo", "--resolution", "16"), {"em/8_8_8", "segmentation/8_8_8"}),
        (("demo", "--channels", "raw"), {"segmentation/8_8_8", "segmentation/16_16_16"}),
        (("demo/tissue/em/8_8_8",), {"em/16_16_16", "segmentation/8_8_8", "segmentation/16_16_16"}),
        (("demo/tissue/em/",), {"segmentation/8_8_8", "segmentation/16_16_16"}),
        (("--all",), set()),
        (("demo",), set()),
    ],
)
def test_cache_rm(arguments: tuple[str, ...], left: set[str]) -> None:
    call("fetch", "demo", *BOX)
    call("fetch", "demo", *BOX, "--resolution", "16")
    assert "freed" in call("cache", "rm", *arguments, "--yes").stdout
    there = {"/".join(shard.parts[-7:-5]).removesuffix(".zarr") for shard in shards()}
    assert there == left


def test_cache_rm_knows_part_of_a_name_from_a_name() -> None:
    call("fetch", "demo", *BOX)
    call("cache", "rm", "demo/tissue/e", "--yes", status=2)
    assert len(shards()) == 2


def test_cache_rm_asks(tmp_path: Path) -> None:
    call("fetch", "demo", *BOX)
    assert "--yes" in call("cache", "rm", "demo", status=2).stderr
    status, shown = answer("n\n", "cache", "rm", "demo")
    assert (status, len(shards())) == (0, 2)
    assert "nothing was removed" in shown
    status, shown = answer("y\n", "cache", "rm", "demo")
    assert (status, shards()) == (0, [])
    assert "removed 2 mirrors" in shown


# --- catalog files


def test_validate(own_catalog: Path) -> None:
    assert call("validate").stdout.count(": ok, ") == len(list(Path(emcatalog.CATALOG).parent.glob("*.yaml")))
    assert call("validate", own_catalog).stdout == f"{own_catalog}: ok, 1 entry\n"
    own_catalog.write_text(own_catalog.read_text().replace("kind: image", "kind: picture"))
    done = call("validate", emcatalog.CATALOG, own_catalog, status=2)
    assert f"{emcatalog.CATALOG}: ok" in done.stdout
    for word in (str(own_catalog), "tissue", "raw.kind", "picture"):
        assert word in done.stderr


@pytest.mark.parametrize("text", ["", "- a list", "sources: {x: [}", "\0", "sources: {x: {driver: csv}}", None])
def test_validate_refuses(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "bad.yaml"
    if text is not None:
        file.write_text(text)
    assert_one_sentence(call("validate", file, status=2).stderr, "bad.yaml")


def test_validate_misses_a_sub_catalog(tmp_path: Path) -> None:
    entry = {"driver": "em_catalog", "description": "more", "args": {"path": "{{ CATALOG_DIR }}/more.yaml"}}
    (tmp_path / "root.yaml").write_text(yaml.safe_dump({"sources": {"more": entry}}))
    assert "more.yaml" in call("validate", tmp_path / "root.yaml", status=2).stderr


def test_schema_holds_for_the_shipped_catalogs_and_finds_mistakes() -> None:
    validator_of = pytest.importorskip("jsonschema").Draft202012Validator
    schema = json.loads(run("schema").stdout)
    assert schema == json.loads(json.dumps(catalog_schema()))
    validator_of.check_schema(schema)
    for file in Path(emcatalog.CATALOG).parent.glob("*.yaml"):
        assert list(validator_of(schema).iter_errors(yaml.safe_load(file.read_text()))) == []
    data = yaml.safe_load(Path(emcatalog.CATALOG).read_text())
    data["sources"]["demo"]["args"]["volums"] = {}
    del data["sources"]["malecns"]["metadata"]["licence"]
    messages = " ".join(error.message for error in validator_of(schema).iter_errors(data))
    assert "volums" in messages
    assert "licence" in messages


# --- what a user gets for a mistake


def assert_one_sentence(stderr: str, *words: str) -> None:
    assert re.fullmatch(r"error: [^\n]+\n", stderr), stderr
    for word in words:
        assert word in stderr


MISTAKES = {
    "box outside": ("plan demo --bbox 300,400,0,10,0,10", ["outside", "x 0..256"]),
    "box partly outside": ("plan demo --bbox 200,300,0,10,0,10", ["partly outside", "--clip"]),
    "reversed box": ("plan demo --bbox 10,0,0,10,0,10", ["reversed", "x runs from 10"]),
    "empty box": ("plan demo --bbox 10,10,0,10,0,10", ["empty"]),
    "five numbers": ("plan demo --bbox 0,10,0,10,0", ["5 numbers", "x0, x1"]),
    "a letter": ("plan demo --bbox 0,a,0,10,0,10", ["x1='a'"]),
    "not a number": ("plan demo --bbox 0,nan,0,10,0,10", ["x1"]),
    "unknown unit": ("plan demo --bbox 0,10,0,10,0,10 --units furlong", ["furlong", "'nm'"]),
    "unknown channel": ("fetch demo --channels raw,label", ["'label'", "raw, labels", "Did you mean 'labels'?"]),
    "no channel": ("fetch demo --channels ,", ["raw, labels"]),
    "unknown resolution": ("fetch demo --resolution 9", ["16 x 16 x 16"]),
    "a resolution that is none": ("fetch demo --resolution fine", ["fine"]),
    "another way to align": ("plan demo --align linear", ["align='linear'", "there is 'nearest'"]),
    "a channel beyond the last": ("plan e11bio_prism --channel 18", ["channel=18: raw has 18 channels, 0 to 17"]),
    "a channel that is no number": ("plan e11bio_prism --channel red", ["channel='red'", "0, 1, ... or 'all'"]),
    "a channel for channels": ("plan e11bio_prism --channel raw", ["Did you mean 'channels'?"]),
    "no such combination": ("plan e11bio_prism --crop 14", ["no 'instance 14'", "instance 13", "semantic 16"]),
    "unknown version": ("plan malecns --version v9", ["version=v9 is not one of the allowed values v0.9, v1.0"]),
    "a parameter without a value": ("plan malecns --version", ["--version needs a value: v0.9, v1.0"]),
    "misspelt option": ("plan demo --bobx 0,1,0,1,0,1", ["--bobx", "--resolution", "Did you mean '--bbox'?"]),
    "misspelt parameter": ("plan malecns --versoin v1.0", ["--versoin", "Did you mean '--version'?"]),
    "another entry's parameter": ("export demo --version v1.0 box.zarr", ["--version", "demo"]),
    "unknown entry": ("fetch malecn", ["'malecn'", "malecns_data.em_clahe", "Did you mean 'malecns'?"]),
    "entry of a sub-catalog": ("info em_clahe", ["Did you mean 'malecns_data.em_clahe'?"]),
    "below an entry": ("info malecns.raw", ["'malecns.raw'"]),
    "unknown entry to check": ("check malecn", ["Did you mean 'malecns'?"]),
    "unknown version to check": ("check malecns --version v9", ["version=v9", "v0.9, v1.0"]),
    "misspelt option of a check": ("check demo --lok", ["--lok", "Did you mean '--lock'?"]),
    "a parameter of no entry to check": ("check --version v1.0", ["no option --version for the catalog"]),
    "a catalog for an entry": ("preview malecns_data x.png", ["malecns_data.segmentation"]),
    "an entry for a catalog": ("list demo", ["emcatalog info demo"]),
    "no such catalog": ("list --catalog nowhere.yaml", ["nowhere.yaml"]),
    "a folder for a catalog": ("info demo --catalog .", ["folder"]),
    "no such command": ("lst", ["Did you mean 'list'?", "emcatalog --help"]),
    "no such cache command": ("cache lss", ["Did you mean 'ls'?", "emcatalog cache --help"]),
    "no entry": ("plan", ["ENTRY", "emcatalog plan --help"]),
    "too many arguments": ("plan demo malecns", ["malecns"]),
    "unknown short option": ("plan demo -x", ["-x"]),
    "unknown option before the command": ("--verbose list", ["--verbose"]),
    "not a picture": ("preview demo box.doc", [".png"]),
    "a picture's place": ("preview demo /dev/null/box.png", ["/dev/null"]),
    "an export's place": ("export demo /dev/null/box.zarr", ["/dev/null"]),
    "an export over a file": ("export demo /dev/null --overwrite", ["/dev/null exists"]),
    "a demo's place": ("demo --out /dev/null", ["/dev/null"]),
    "offline and never fetched": ("fetch demo --offline", ["offline", "never"]),
    "a cache that cannot be written": ("fetch demo --cache-dir /dev/null/cache", ["/dev/null/cache", "written"]),
    "a cache that is no cache": ("cache ls --cache-dir http://localhost/", ["http://localhost/"]),
    "nothing to remove": ("cache rm", ["--all"]),
    "an entry and everything": ("cache rm demo --all --yes", ["--all"]),
    "not in the cache": ("cache rm malecns --yes", ["malecns", "cache ls"]),
    "a name that is none": ("cache verify nowhere", ["nowhere", "cache ls"]),
    "a resolution of no entry": ("cache rm gs --resolution 8 --yes", ["--resolution", "entry"]),
    "misspelt option of the cache": ("cache rm demo --al", ["--al", "Did you mean '--all'?"]),
    "misspelt option without an entry": ("cache verify --remov", ["Did you mean '--remove'?"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence(mistake: str) -> None:
    line, words = MISTAKES[mistake]
    done = call(*line.split(), status=2)
    assert_one_sentence(done.stderr, *words)
    assert done.stdout == ""


@pytest.mark.parametrize(
    "mistake", ["box partly outside", "unknown version", "misspelt option", "a cache that cannot be written"]
)
def test_a_mistake_shows_no_traceback(mistake: str) -> None:
    line, words = MISTAKES[mistake]
    assert_one_sentence(run(*line.split(), status=2).stderr, *words)


def test_a_mistake_in_the_environment() -> None:
    stderr = call("fetch", "demo", status=2, env={"EMCATALOG_RETRIES": "many"}).stderr
    assert_one_sentence(stderr, "EMCATALOG_RETRIES", "many")


def test_what_nobody_expects_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emcatalog.cli.browse.walk", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call("list")


# --- demo


def test_demo_tells_the_truth_each_time(tmp_path: Path) -> None:
    users_cache = Path(os.environ["EMCATALOG_CACHE"])
    out = tmp_path / "out"
    for _ in range(2):
        text = run("demo", "--out", out, env={**os.environ, "COLUMNS": "80", "EMCATALOG_OFFLINE": "1"}).stdout
        assert "\x1b" not in text
        assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
        tables = [row(part, "together") for part in text.split("channel ")[1:]]
        assert [each[1:4] for each in tables] == [["96", "0", "96"], ["96", "0", "0"], ["32", "64", "0"]]
        assert "96 of 96 chunks are cached, 0 are to fetch" in " ".join(text.split())
        assert "0 chunks fetched, 96 from the cache" in " ".join(text.split())
    assert not users_cache.exists()
    assert Image.open(out / "picture.png").size[0] > 3 * 192
    labels = xr.open_zarr(out / "box.zarr", group="labels").data
    neurites = np.count_nonzero(np.unique(labels))
    assert f"{neurites} neurites, the largest id is {int(labels.max())}" in text
    assert "picture: " in text
    assert "cat.malecns(bbox=" in text
