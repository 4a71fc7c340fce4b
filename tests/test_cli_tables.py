"""Tables, skeletons and files on the command line: what a person types, reads, and finds on the disk."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from pyarrow import feather

from emcatalog.cli.commands import as_typed
from tests.conftest import Replica, ServeAs, once, python
from tests.replica.skeletons import VERSIONS, build_skeletons
from tests.replica.tables import table_path
from tests.replica.wire import Server
from tests.test_cli import COMMAND, assert_one_sentence, call

BUCKET = "gs://flyem-male-cns"
STATS, POINTS, BODIES = (f"malecns_data.{name}" for name in ("body_stats", "synapse_points", "body_annotations"))
SKELETONS, DATABASE = "malecns_data.skeletons", "malecns_data.neo4j_database"
IDS = [12781, 556329, 10001]
FILES = {
    "neo4j/README": b"About.",
    "neo4j/data/store.db": np.random.default_rng(0).bytes(20 << 20),  # three blocks
    "neo4j/data/log": b"a line\n",
    "neuprint-inputs/Neurons.csv": b"bodyId,type\n1,a\n",
    "neuprint-inputs/more/Synapses.csv": b"x,y,z\n1,2,3\n",
}
"""Below ``database`` in both releases."""
METADATA = dict.fromkeys(("title", "organism", "tissue", "modality", "licence", "citation"), "x") | {"sources": ["x"]}


def data_bucket(shared_folder: Path, replica: Replica) -> Path:
    """Everything but volumes of the male CNS bucket in miniature, made once in a run."""

    def build(folder: Path) -> None:
        build_skeletons(folder, IDS)
        for version in VERSIONS:
            (folder / version / "connectome-data").symlink_to(replica.folder / version / "connectome-data")
            for name, content in FILES.items():
                path = folder / version / "database" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)

    (shared_folder / "data").mkdir(exist_ok=True)
    return once(shared_folder / "data" / "flyem-male-cns", build)


@pytest.fixture(scope="session")
def bucket(shared_folder: Path, replica: Replica) -> Path:
    return data_bucket(shared_folder, replica)


@pytest.fixture
def here(bucket: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bucket as a folder of this computer, which can be listed."""
    monkeypatch.setenv("EMCATALOG_MIRRORS", json.dumps({BUCKET: f"file://{bucket}"}))
    return bucket


@pytest.fixture
def web(bucket: Path, serve_as: ServeAs) -> Server:
    """The bucket on a web server, which cannot."""
    return serve_as(BUCKET, bucket)


def whole(bucket: Path, name: str, version: str = "v0.9") -> pd.DataFrame:
    return pd.read_feather(table_path(bucket, name.removeprefix("malecns_data."), version))


def own_table(tmp_path: Path, table: pa.Table, name: str = "own") -> Path:
    """A catalog of one table, which says nothing of its columns but the first."""
    feather.write_feather(table, tmp_path / "own.feather")
    declared = {"url": f"feather://file://{tmp_path}/own.feather", "columns": {table.schema.names[0]: "string"}}
    entry = {"driver": "em_table", "description": "d", "metadata": METADATA}
    entry["args"] = {"table": {**declared, "source": "a test"}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"sources": {name: entry}}))
    return tmp_path / "own.yaml"


class TestTable:
    def test_the_first_rows(self, web: Server, bucket: Path) -> None:
        done = call("table", STATS, "--head", 3, "--columns", "post,body,status_fine")
        expected = whole(bucket, STATS).head(3)
        lines = [line.strip().split(maxsplit=2) for line in done.stdout.splitlines()]
        assert lines[0] == ["post", "body", "status_fine"]
        assert [[int(post), int(body), status] for post, body, status in lines[1:]] == expected[
            ["post", "body", "status_fine"]
        ].values.tolist()
        assert done.stderr == "the first 3 rows; --head N shows more, --out FILE writes all\n"

    @pytest.mark.parametrize("width", [60, 80, 160])
    def test_of_many_columns_those_that_there_is_room_for(self, web: Server, bucket: Path, width: int) -> None:
        done = call("table", POINTS, "--version", "v1.0", env={"COLUMNS": str(width)})
        lines = done.stdout.splitlines()
        assert max(len(line.rstrip()) for line in lines) <= width
        assert len(lines) == 11
        shown = lines[0].split()
        every = list(whole(bucket, POINTS, "v1.0").reset_index().columns)
        assert len(every) == 41
        assert shown == every[: len(shown)]  # the index, point_id, is one of them
        assert f"{41 - len(shown)} more columns: {', '.join(every[len(shown) :])}; --columns" in done.stderr
        longest = max(len(name) for name in every)
        assert max(len(line.rstrip()) for line in lines) > width - longest - 3  # and no fewer

    def test_what_is_no_number(self, tmp_path: Path) -> None:
        """Lists, missing values, long texts, and what would move the cursor of a terminal."""
        columns = {
            "text": ["short", None, "x" * 100, "two\nlines", "\x1b[31mred\x07"],
            "places": [[1, 2, 3], None, [], [4], [5]],
            "flag": [True, False, None, True, True],
            "number": pa.array([1.23456789, None, float("nan"), 2.0, 1e20]),
        }
        catalog = own_table(tmp_path, pa.table(columns))
        lines = call("table", "own", "--catalog", catalog).stdout.splitlines()
        starts = [0, lines[0].index("places"), lines[0].index("flag"), lines[0].index("flag") + 5, None]
        cells = [[line[a:b].strip() for a, b in pairwise(starts)] for line in lines]
        assert cells == [
            list(columns),
            ["short", "1, 2, 3", "True", "1.23457"],
            ["", "", "False", ""],
            [f"{'x' * 27}...", "", "", ""],
            ["two lines", "4", "True", "2"],
            ["?[31mred?", "5", "True", "1e+20"],
        ]

    @pytest.mark.parametrize(
        ("conditions", "query"),
        [
            (["body=10001"], "body == 10001"),
            (["body == 10001"], "body == 10001"),
            (["body=10001,10040, 7"], "body in (10001, 10040, 7)"),
            (["post>=100", "post<400"], "100 <= post < 400"),
            (["body!=10001", "body=10040"], "body == 10040"),
            (["superclass=vnc_motor,ascending_neuron"], "superclass in ('vnc_motor', 'ascending_neuron')"),
            (["status_fine=Roughly traced", "pre>50"], "status_fine == 'Roughly traced' and pre > 50"),
            (["superclass!=none", "pre>50"], "superclass.notna() and pre > 50"),
            (["superclass=None", "pre>50"], "superclass.isna() and pre > 50"),
            (["superclass=none,vnc_motor", "pre>5"], "(superclass.isna() or superclass == 'vnc_motor') and pre > 5"),
        ],
    )
    def test_filters(self, web: Server, bucket: Path, conditions: list[str], query: str) -> None:
        options = [word for condition in conditions for word in ("--filter", condition)]
        shown = call("table", STATS, "--columns", "body", "--head", 100_000, *options).stdout.split()[1:]
        expected = whole(bucket, STATS).query(query, engine="python")["body"]
        assert len(expected)
        assert list(map(int, shown)) == expected.tolist()

    @pytest.mark.parametrize(
        ("condition", "found"),
        [
            ("name=12", ["12"]),
            ("name=true", ["true"]),
            ("name='none'", ["none"]),
            ("name=none", [""]),
            ('name="a,b"', ["a,b"]),
            ('name="a,b",12', ["12", "a,b"]),
            ("name=it's", ["it's"]),
            ("name='t", ["'t"]),
            ("name!=12", ["true", "none", "a,b", "it's", "'t"]),
            ("other=12", ["12"]),  # nobody says what it holds: a number
            ("other>=1.5e1", ["true"]),
        ],
    )
    def test_texts_that_look_like_something_else(self, tmp_path: Path, condition: str, found: list[str]) -> None:
        names = ["12", "true", "none", None, "a,b", "it's", "'t"]
        catalog = own_table(tmp_path, pa.table({"name": names, "other": [12, 15, 3, 4, 5, 6, 7]}))
        options = ("--columns", "name", "--filter", condition, "--catalog", catalog)
        assert [line.strip() for line in call("table", "own", *options).stdout.splitlines()[1:]] == found

    def test_a_box(self, web: Server, bucket: Path) -> None:
        shown = call(
            "table", POINTS, "--bbox", "0,50000,0,50000,0,20000", "--head", 99_999, "--columns", "x,y,z"
        ).stdout
        points = whole(bucket, POINTS)
        inside = points[(points.x < 50000) & (points.y < 50000) & (points.z < 20000)]
        assert [list(map(int, line.split())) for line in shown.splitlines()[1:]] == inside[
            ["x", "y", "z"]
        ].values.tolist()
        empty = call("table", POINTS, "--bbox", "0,1,0,1,0,1", "--columns", "x,y,z")
        assert empty.stdout.split() == ["x", "y", "z"]
        assert empty.stderr == "0 rows\n"

    @pytest.mark.parametrize(
        ("suffix", "read"), [("parquet", pd.read_parquet), ("feather", pd.read_feather), ("csv", pd.read_csv)]
    )
    def test_into_a_file(self, web: Server, bucket: Path, tmp_path: Path, suffix: str, read: Any) -> None:
        path = tmp_path / "new" / f"rows.{suffix}"
        done = call("table", STATS, "--out", path, "--columns", "body,post", "--filter", "post>100")
        frame = whole(bucket, STATS)
        expected = frame.loc[frame.post > 100, ["body", "post"]].reset_index(drop=True)
        pd.testing.assert_frame_equal(read(path), expected, check_dtype=suffix != "csv")
        assert (done.stdout, done.stderr) == (f"{path}\n", f"{len(expected)} rows\n")
        assert_one_sentence(call("table", STATS, "--out", path, status=2).stderr, f"{path} exists")
        assert list(path.parent.iterdir()) == [path]

    def test_into_a_file_the_first_rows(self, web: Server, tmp_path: Path) -> None:
        assert call("table", STATS, "--out", tmp_path / "a.parquet", "--head", 7).stderr == "7 rows\n"
        assert len(pd.read_parquet(tmp_path / "a.parquet")) == 7

    def test_piped_into_head(self, here: Path) -> None:
        line = f"{' '.join(COMMAND)} table {STATS} --columns body --head 30000 2>/dev/null | head -2"
        done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["body", "10001"]

    def test_stopped_it_leaves_no_file(self, web: Server, tmp_path: Path) -> None:
        web.hang("*.feather", seconds=300, skip=3)
        command = [*COMMAND, "table", POINTS, "--out", str(tmp_path / "out" / "a.csv")]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            wait_until(lambda: list(tmp_path.glob("out/.a.csv.*")))
            process.send_signal(signal.SIGINT)
            message = process.communicate(timeout=60)[1]
        assert process.returncode == 130
        assert message == "interrupted\n"
        assert list((tmp_path / "out").iterdir()) == []


def wait_until(done: Any) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.01)


MISTAKES = {
    "a misspelt entry": ("table malecns_data.body_stat", ["Did you mean 'malecns_data.body_stats'?"]),
    "a misspelt column": ("table {STATS} --columns body,prre", ["'prre'", "synweight", "Did you mean 'pre'?"]),
    "a misspelt option": ("table {STATS} --colums body", ["Did you mean '--columns'?"]),
    "a misspelt column of a filter": ("table {STATS} --filter bdy=3", ["'bdy'", "Did you mean 'body'?"]),
    "a filter that is none": ("table {STATS} --filter body~3", ["--filter 'body~3'", "'conf>=0.7'"]),
    "a filter without a value": ("table {STATS} --filter body=", ["--filter 'body='", "'type=none'"]),
    "several values unlike one": ("table {STATS} --filter class!=a,b", ["class!= takes one value"]),
    "the same twice": ("table {STATS} --filter body=1 --filter body=2", ["'body=2'", "several values with commas"]),
    "a text for a number": ("table {STATS} --filter body=abc", ["body holds int64", "'abc'"]),
    "no rows": ("table {STATS} --head 0", ["--head", "greater than or equal to 1"]),
    "rows that are no number": ("table {STATS} --head many", ["--head", "integer"]),
    "a box without coordinates": ("table {STATS} --bbox 0,1,0,1,0,1", ["--coordinates x,y,z"]),
    "half a box": ("table {POINTS} --bbox 0,1,0,1,0", ["5 numbers"]),
    "skeletons for a table": ("table {SKELETONS}", ["is skeletons: see `emcatalog skeleton`"]),
    "a table for skeletons": ("skeleton {STATS} 1", ["is a table: see `emcatalog table`"]),
    "a table's file": ("table {STATS} --out rows.xlsx", [".parquet, .feather, .csv"]),
    "a table's place": ("table {STATS} --out /dev/null/a.csv", ["/dev/null/a.csv cannot be"]),
    "a list in a csv": ("table {BODIES} --columns somaLocation --out a.csv", ["with --columns, or write .parquet"]),
    "a float id": ("skeleton {SKELETONS} 12781.0", ["'12781.0' is not the id", "as in 12781 or 12781 556329"]),
    "a word for an id": ("skeleton {SKELETONS} abc", ["'abc' is not the id"]),
    "no id to write": ("skeleton {SKELETONS} --out somewhere", ["--out goes with ids"]),
    "a skeleton's place": ("skeleton {SKELETONS} 12781 --out /dev/null", ["/dev/null"]),
    "a pattern for a table": ("plan {STATS} --pattern *", ["--pattern is for files", "is a table"]),
    "everything of a table": ("fetch {STATS} --all", ["--all is for files"]),
    "a box of files": ("plan {DATABASE} --bbox 0,1,0,1,0,1", ["--bbox is for a volume or a table"]),
    "columns of a volume": ("plan demo --columns x", ["--columns is for a table, and demo is a volume"]),
    "part of a table to fetch": ("fetch {POINTS} --bbox 0,1,0,1,0,1", ["fetched whole", "`emcatalog table"]),
    "a pattern that nothing has": ("plan {DATABASE} --pattern *.csv", ["no file matches '*.csv'", "data/ (2 files)"]),
    "both": ("fetch {DATABASE} --all --pattern *", ["either a pattern", "--all"]),
    "skeletons to fetch": ("fetch {SKELETONS}", ["is skeletons: see `emcatalog skeleton`"]),
    "a service": ("plan malecns_data.neuprint", ["a service: it is asked from Python"]),
    "a scale of a table": ("cache rm {STATS} --resolution 8 --yes", ["--resolution is for a volume"]),
    "offline, a table": ("table {STATS} --offline", ["never fetched; fetch it while"]),
    "offline, skeletons": ("skeleton {SKELETONS} 12781 --offline", ["12781; fetch them while"]),
    "offline, ids": ("skeleton {SKELETONS} --offline", ["fetch some while"]),
    "offline, files": ("fetch {DATABASE} --all --offline", ["never listed here"]),
    "a cache in a bucket": ("skeleton {SKELETONS} 12781 --cache-dir s3://b/c", ["give --cache-dir a local path"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mistake: str) -> None:
    monkeypatch.chdir(tmp_path)
    line, words = MISTAKES[mistake]
    done = call(*line.format(**globals()).split(), status=2)
    assert_one_sentence(done.stderr, *words)
    assert done.stdout == ""


@pytest.mark.parametrize(
    "command", [f"table {STATS}", f"skeleton {SKELETONS} 12781", f"fetch {STATS}", f"plan {STATS}"]
)
def test_a_server_that_is_down(web: Server, command: str) -> None:
    web.fail("*", 503)
    assert_one_sentence(call(*command.split(), status=2).stderr, BUCKET, "keeps failing", "ask again later")


def test_advice_for_python_is_that_of_a_command_line() -> None:
    message = "fetch() it with columns=, units='nm' or offline=True; see /my/cache_dir/a, EMCATALOG_CACHE or cache_dir="
    typed = "fetch it with --columns, --units nm or --offline; see /my/cache_dir/a, EMCATALOG_CACHE or --cache-dir"
    assert as_typed(message) == typed
    assert (
        as_typed("columns='x' and filter={'a': 1} are what was given")
        == "columns='x' and filter={'a': 1} are what was given"
    )


def test_help_fits_a_narrow_terminal() -> None:
    """In a process of its own: Typer's runner of tests has a width of its own."""
    script = (
        "import sys; from emcatalog.cli import app\n"
        "for command in sys.argv[1:]:\n"
        "    try: app([*command.split(), '--help'])\n"
        "    except SystemExit: pass"
    )
    commands = ("", "table", "skeleton", "plan", "fetch", "cache ls", "cache verify", "check")
    text = python(script, *commands, env={"COLUMNS": "60"})
    assert text.count("Usage: ") == len(commands)
    assert max(map(len, text.splitlines())) <= 60


def test_help_of_tables_loads_no_heavy_library() -> None:
    script = (
        "import sys; from emcatalog.cli import app\n"
        "try: app(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print(sorted({'pyarrow', 'pandas', 'tensorstore', 'neuprint', 'navis'} & set(sys.modules)))"
    )
    assert python(script, "info", "malecns_data.skeletons").splitlines()[-1] == "[]"
