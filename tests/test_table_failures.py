"""What goes wrong with tables: files that are none, servers that fail, memory that is short, callers that leave."""

from __future__ import annotations

import gc
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import feather

from emcatalog.entries.table import TableArguments
from emcatalog.errors import (
    EmcatalogError,
    NoRangesError,
    NotCachedError,
    SourceCorruptError,
    SourceDeniedError,
    SourceError,
    SourceMissingError,
    SourceUnavailableError,
    TooLargeError,
)
from emcatalog.tables.feather import AHEAD
from emcatalog.tables.feather import THREADS as FEATHER_THREADS
from emcatalog.tables.opening import open_table
from emcatalog.tables.parquet import THREADS as PARQUET_THREADS
from tests.replica.faults import Fault, Faults
from tests.replica.server import Server, serve
from tests.replica.tables import spoil
from tests.test_arrow_layout import change_bytes
from tests.test_feather import FORMS, Form, Remote, make_frame
from tests.test_fetch import assert_clear, hear, say, start_python
from tests.test_guard import limited_group
from tests.test_threads import PATIENCE_S, assert_ended, workers

ROWS = 40_000
"""Of random numbers: a file of several hundred KB, so that its end is not all of it."""
CHUNK = 1000


@pytest.fixture(autouse=True)
def no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMCATALOG_RETRIES", "0")


@pytest.fixture(params=FORMS, ids=lambda form: form.name)
def form(request: pytest.FixtureRequest) -> Form:
    found: Form = request.param
    return found


@pytest.fixture
def remote(form: Form, tmp_path: Path) -> Iterator[Remote]:
    """A table of random numbers on a server of its own."""
    with serve(tmp_path) as server:
        remote = Remote(form.name, tmp_path, server)
        write_numbers(remote.path(), form.name)
        yield remote


def write_numbers(path: Path, form: str, rows: int = ROWS, chunk: int = CHUNK) -> None:
    numbers = pa.table({"x": np.arange(rows, dtype=np.int32), "a": np.random.default_rng(0).random(rows)})
    if form == "feather":
        feather.write_feather(numbers, path, chunksize=chunk)
    else:
        pq.write_table(numbers, path, row_group_size=chunk, use_dictionary=False)


# --- files that are no tables


def cut_off(part: float) -> Callable[[Path], None]:
    def cut(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: int(part * (len(content) - 1))])

    return cut


def of_another_form(path: Path) -> None:
    other = "parquet" if path.suffix == ".feather" else "feather"
    write_numbers(path.with_suffix(f".{other}"), other)
    path.with_suffix(f".{other}").replace(path)


BROKEN: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_bytes(b""),
    "a few bytes": lambda path: path.write_bytes(b"ARROW1"),
    "text": lambda path: path.write_text("x,y\n1,2\n" * 20_000),
    "zeros": lambda path: path.write_bytes(bytes(200_000)),
    "another form": of_another_form,
    "cut off at the beginning": cut_off(0.001),
    "cut off in the middle": cut_off(0.5),
    "cut off at the end": cut_off(1),
    "begins later": lambda path: path.write_bytes(path.read_bytes()[3 * ROWS :]),
    "a footer of zeros": lambda path: path.write_bytes(path.read_bytes()[:-500] + bytes(480) + path.read_bytes()[-20:]),
}


class TestBroken:
    """One sentence that names the table and says what to do."""

    @pytest.mark.parametrize("kind", BROKEN)
    def test_files_that_are_no_tables(self, remote: Remote, kind: str) -> None:
        BROKEN[kind](remote.path())
        with pytest.raises(SourceCorruptError) as caught:
            remote.read()
        assert_clear(caught.value, OSError, f"{remote.server.url}/table.", "does not decode: ", "tell the data's owner")

    @pytest.mark.filterwarnings("ignore:Feather V1:DeprecationWarning")
    def test_feather_of_the_first_version(self, tmp_path: Path) -> None:
        feather.write_feather(pd.DataFrame({"x": range(1000)}), tmp_path / "table.feather", version=1)
        with (
            serve(tmp_path) as server,
            pytest.raises(SourceCorruptError, match="of another format, such as Feather V1"),
        ):
            Remote("feather", tmp_path, server).read()

    def test_damage_in_the_rows(self, remote: Remote) -> None:
        spoil(remote.path(), 0.5, 20_000)
        with pytest.raises(SourceCorruptError) as caught:
            remote.read()
        assert re.search(r"(record batch|row group) \d+ does not decode", str(caught.value))

    def test_what_comes_before_the_damage_is_given(self, remote: Remote) -> None:
        spoil(remote.path(), 0.9, 20_000)
        batches = remote.open().batches()
        assert next(batches).column("x").to_pylist() == list(range(CHUNK))
        with pytest.raises(SourceCorruptError):
            list(batches)

    def test_text_that_is_none(self, form: Form, remote: Remote) -> None:
        texts = pa.StringArray.from_buffers(2, pa.array([0, 1, 2], pa.int32()).buffers()[1], pa.py_buffer(b"\xff\xfe"))
        form.write_arrow(pa.table({"text": texts}), remote.path("text"))
        with pytest.raises(SourceCorruptError, match=r"does not decode: .*UTF8"):
            remote.read("text")

    def test_notes_of_pandas_that_are_none(self, form: Form, remote: Remote) -> None:
        for notes in (b"{", b"\xff", b'{"index_columns": 7}'):
            form.write_arrow(pa.table({"a": [1]}).replace_schema_metadata({"pandas": notes}), remote.path("notes"))
            with pytest.raises(SourceCorruptError, match="what pandas wrote about its index is not understood"):
                remote.open("notes")


@st.composite
def damaged(draw: Any, content: bytes, end: int) -> bytes:
    """A file with some bytes changed, most of them near its end, or cut off."""
    places = st.one_of(st.integers(0, end - 1), st.integers(max(0, end - 3000), end - 1))
    values = st.one_of(st.integers(0, 255), st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
    changed = change_bytes(content, draw(st.dictionaries(places, values, min_size=1, max_size=3)))
    return changed[: draw(st.integers(0, len(changed)))] if draw(st.integers(0, 9)) == 0 else changed


def peak_bytes() -> int:
    """The most memory that this process had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
class TestDamage:
    """Whatever is wrong with a file: rows, or an error of ours; no crash, no other error, no gigabytes."""

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("damage")
        for form in FORMS:
            form.write(make_frame(600), folder / f"whole.{form.name}")
        return folder

    @settings(max_examples=200)
    @given(st.data())
    def test_of_feather(self, folder: Path, data: st.DataObject) -> None:
        self.read_damaged(folder, "feather", data, 0)

    @settings(max_examples=100)
    @given(st.data())
    def test_of_parquet(self, folder: Path, data: st.DataObject) -> None:
        """Of its rows alone: pyarrow 26 ends the process for some bytes of a footer."""
        end = (folder / "whole.parquet").read_bytes()[-8:]
        self.read_damaged(folder, "parquet", data, 8 + int.from_bytes(end[:4], "little"))

    @staticmethod
    def read_damaged(folder: Path, form: str, data: st.DataObject, spared: int) -> None:
        content = (folder / f"whole.{form}").read_bytes()
        path = folder / f"damaged.{form}"
        path.write_bytes(data.draw(damaged(content, len(content) - spared)))
        before = peak_bytes()
        declared = {"url": f"{form}://file://{path}", "columns": {"x": "int32"}, "source": "a test"}
        try:
            table = open_table(TableArguments.norm({"table": declared}))
            table.plan()
            table.read().to_pandas()
        except SourceError as error:
            assert_clear(error, OSError, str(path))  # most of the damage does no harm that shows
        assert peak_bytes() < before + 500e6


# --- servers that fail

Misbehave = Callable[[Server], None]
FAILURES: dict[str, tuple[Misbehave, type[SourceError], type[OSError], str]] = {
    "403": (lambda server: server.fail("*", 403), SourceDeniedError, PermissionError, "refuses access"),
    "404": (lambda server: server.fail("*", 404), SourceMissingError, FileNotFoundError, "nothing at this address"),
    "500": (lambda server: server.fail("*", 500), SourceUnavailableError, ConnectionError, "keeps failing"),
    "503": (lambda server: server.fail("*", 503), SourceUnavailableError, ConnectionError, "keeps failing"),
    "hangs up": (lambda server: server.drop("*"), SourceUnavailableError, ConnectionError, "cannot be reached"),
    "cut off": (lambda server: server.truncate("*"), SourceUnavailableError, ConnectionError, "cannot be reached"),
}
HEAD_AND_END = 2
"""Requests that open a table."""


class TestServers:
    """The errors of a store, whichever request they meet."""

    @pytest.mark.parametrize("failure", [name for name in FAILURES if name != "cut off"])
    def test_that_fail_at_once(self, remote: Remote, failure: str) -> None:
        misbehave, kind, standard, meaning = FAILURES[failure]
        misbehave(remote.server)
        self.assert_fails(remote, kind, standard, meaning)

    @pytest.mark.parametrize("failure", FAILURES)
    def test_that_fail_in_the_middle(self, remote: Remote, failure: str) -> None:
        misbehave, kind, standard, meaning = FAILURES[failure]
        table, before = remote.open(), workers()
        misbehave(remote.server)
        with pytest.raises(kind) as caught:
            table.read()
        assert_clear(caught.value, standard, f"{remote.server.url}/table.", meaning)
        assert_ended([thread for thread in workers() if thread not in before])

    def assert_fails(self, remote: Remote, kind: type[SourceError], standard: type[OSError], meaning: str) -> None:
        with pytest.raises(kind) as caught:
            remote.open()
        assert_clear(caught.value, standard, f"{remote.server.url}/table.", meaning)

    def test_that_are_down(self, form: Form, tmp_path: Path) -> None:
        with serve(tmp_path) as server:
            remote = Remote(form.name, tmp_path, server)
            write_numbers(remote.path(), form.name)
            table = remote.open()
        self.assert_fails(remote, SourceUnavailableError, ConnectionError, "cannot be reached")
        with pytest.raises(SourceUnavailableError, match="cannot be reached"):
            table.read()

    def test_that_send_whole_files_only(self, remote: Remote) -> None:
        remote.server.without_ranges = True
        self.assert_fails(remote, NoRangesError, ConnectionError, "does not serve parts of files")

    def test_that_lose_the_file(self, remote: Remote) -> None:
        table = remote.open()
        remote.path().unlink()
        with pytest.raises(SourceMissingError):
            table.read()

    def test_a_passing_failure_is_not_noticed(self, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EMCATALOG_RETRIES", "2")
        remote.server.fail("*", 503, times=1, skip=HEAD_AND_END + 3)
        assert remote.read()["x"].tolist() == list(range(ROWS))
        assert [record.status for record in remote.server.requests].count(503) == 1

    def test_bytes_that_are_spoilt_on_their_way(self, remote: Remote) -> None:
        table = remote.open()
        remote.server.corrupt("*")
        with pytest.raises(SourceCorruptError, match="does not decode"):
            table.read()

    def test_an_address_that_is_not_confirmed(self, remote: Remote) -> None:
        declared = remote.arguments().table.model_dump() | {"unconfirmed": "seen in a paper"}
        remote.path().unlink()
        with pytest.raises(SourceMissingError, match=r"\(this address is not confirmed: seen in a paper\)"):
            open_table(TableArguments.norm({"table": declared}))

    def test_offline(self, remote: Remote) -> None:
        with pytest.raises(NotCachedError) as caught:
            remote.open(offline=True)
        assert_clear(caught.value, OSError, "offline, and", "was never fetched; fetch() it while there is a network")
        assert remote.server.requests == []


# --- callers that leave


class Heard(Faults):
    """Tells how many requests came."""

    def __init__(self) -> None:
        super().__init__()
        self._came = threading.Semaphore(0)

    def strike(self, path: str) -> Fault | None:
        fault = super().strike(path)
        self._came.release()
        return fault

    def wait_for(self, requests: int) -> None:
        for _ in range(requests):
            assert self._came.acquire(timeout=PATIENCE_S)


BEGUN = {
    "feather": 3 * AHEAD + 2 * (FEATHER_THREADS + 1),
    "parquet": PARQUET_THREADS + 1,
}
"""Requests that are made for the first part of a table, and for those that are begun with it."""
MORE = 3
"""Parts of these that are taken, so that others are begun."""


def take_and_say(url: str, leave: str) -> None:
    """Take some parts of a table; then read on, or end while what reads is kept (in a process of its own)."""
    table = open_table(TableArguments.norm({"table": {"url": url, "columns": {"x": "int32"}, "source": "a test"}}))
    say(parts=table.stored.parts)
    sys.stdin.readline()
    kept.append(table.batches())
    say(rows=len(next(kept[0])))
    sys.stdin.readline()
    say(rows=sum(len(next(kept[0])) for _ in range(MORE)))
    sys.stdin.readline() if leave else list(kept[0])


kept: list[Any] = []
"""What nobody closes."""


class TestLeft:
    """Nobody waits for a server that says nothing."""

    @pytest.fixture
    def heard(self, remote: Remote) -> Heard:
        remote.server.faults = heard = Heard()
        return heard

    @pytest.mark.parametrize("leave", ["", "leave"], ids=["interrupted", "ended"])
    def test_processes_end(self, remote: Remote, heard: Heard, leave: str) -> None:
        with start_python(take_and_say, remote.arguments().table.url, leave) as process:
            try:
                assert hear(process)["parts"] == ROWS // CHUNK
                heard.wait_for(HEAD_AND_END)
                print("", file=process.stdin, flush=True)
                assert hear(process)["rows"] == CHUNK
                heard.wait_for(BEGUN[remote.form])
                remote.server.hang("*", 10 * PATIENCE_S)
                print("", file=process.stdin, flush=True)
                assert hear(process)["rows"] == MORE * CHUNK
                heard.wait_for(MORE)
                if not leave:
                    process.send_signal(signal.SIGINT)
                _, complaints = process.communicate("\n", timeout=PATIENCE_S)
            finally:
                process.kill()
        if leave:
            assert (process.returncode, complaints) == (0, "")
        else:
            assert process.returncode == -signal.SIGINT, complaints
            assert complaints.rstrip().endswith("KeyboardInterrupt")

    @pytest.mark.parametrize("leave", ["closed", "forgotten"])
    def test_threads_end(self, remote: Remote, heard: Heard, leave: str) -> None:
        before, batches = workers(), remote.open().batches()
        assert len(next(batches)) == CHUNK
        heard.wait_for(HEAD_AND_END + BEGUN[remote.form])
        remote.server.hang("*", 10 * PATIENCE_S)
        assert [len(next(batches)) for _ in range(MORE)] == [CHUNK] * MORE
        heard.wait_for(MORE)
        waiting = [thread for thread in workers() if thread not in before]
        assert waiting
        if leave == "closed":
            batches.close()
        del batches
        gc.collect()
        assert_ended(waiting)


# --- memory


def stream_and_say(url: str, wanted: str) -> None:
    """Go through a table, and tell the most memory that it took (in a process of its own)."""
    given: dict[str, Any] = {"filter": {"x": {">=": 0}}} if wanted == "all" else {"filter": {"x": -1}}
    declared = {"url": url, "columns": {"x": "int32"}, "source": "a test"}
    table = open_table(TableArguments.norm({"table": declared, **given}))
    say(rows=sum(map(len, table.batches())), peak=peak_bytes())


def read_within(procs: str, url: str, column: str) -> None:
    """Enter a control group and read a column there (in a process of its own)."""
    Path(procs).write_text(str(os.getpid()))
    declared = {"url": url, "columns": {"x": "int32"}, "source": "a test"}
    try:
        say(rows=len(open_table(TableArguments.norm({"table": declared, "columns": [column]})).read()))
    except EmcatalogError as error:
        say(kind=type(error).__name__, message=str(error))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
class TestMemory:
    """Bounded by the parts that are on their way, never by the table."""

    @pytest.mark.parametrize("wanted", ["all", "none"])
    def test_of_a_stream(self, form: Form, tmp_path: Path, wanted: str) -> None:
        peaks = []
        for parts in (60, 600):
            folder = tmp_path / f"{parts}"
            folder.mkdir()
            write_numbers(folder / f"table.{form.name}", form.name, parts * 50_000, 50_000)
            with serve(folder) as server:
                url = Remote(form.name, folder, server).arguments().table.url
                with start_python(stream_and_say, url, wanted) as process:
                    answer = hear(process)
            assert answer["rows"] == (parts * 50_000 if wanted == "all" else 0)
            peaks.append(answer["peak"])
        small, large = peaks
        assert large - small < 100e6  # the tables differ by 324 MB

    def test_a_result_that_does_not_fit(self, form: Form, tmp_path: Path) -> None:
        """The machine has room for it, the group has not."""
        rows = 30_000_000
        zeros = pa.table({"large": np.zeros(rows), "small": np.zeros(rows, np.int8)})
        path = tmp_path / f"table.{form.name}"
        if form.name == "feather":
            feather.write_feather(zeros, path)
        else:
            pq.write_table(zeros, path, row_group_size=1 << 16)
        with serve(tmp_path) as server, limited_group(450 * 2**20) as procs:
            url = Remote(form.name, tmp_path, server).arguments().table.url
            with start_python(read_within, str(procs), url, "large") as process:
                refused = hear(process)
            with start_python(read_within, str(procs), url, "small") as process:
                assert hear(process) == {"rows": rows}
        assert refused["kind"] == TooLargeError.__name__
        assert re.search(r"after [\d,]+ rows the result takes 0\.\d GB, and twice that as a frame", refused["message"])
        assert re.search(r"; 0\.\d GB are free: ask for", refused["message"])
        for way in ("fewer columns=", "a filter=", "a bbox=", "to_dask()"):
            assert way in refused["message"]
