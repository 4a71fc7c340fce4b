"""What a fetch does when all goes well: what it asks for, what it leaves in the mirror, and what it reports.

The row of chunks below, and the helpers beside it, also serve the tests of what goes wrong.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emcatalog.cutout import Cutout
from emcatalog.errors import EmcatalogError, NotCachedError
from emcatalog.fetch import IN_FLIGHT_BYTES, Progress
from emcatalog.mirror.cache import Cache
from emcatalog.mirror.inventory import list_mirrors, verify
from emcatalog.settings import load_settings
from tests.conftest import BBox, cut
from tests.replica.precomputed import LABEL_ENCODINGS, build_precomputed
from tests.replica.server import REPOSITORY, FolderHandler
from tests.replica.stored import Array, Scale
from tests.replica.wire import Answer, Call, Handler, Record, Server, running

CHUNK_XYZ = (64, 32, 16)
CHUNKS = 16
IN_SHARD = 4
"""Chunks of the row in one shard of the mirror, whose edges are 256 voxels (128 for 64-bit labels)."""
VOXELS = "/row/8_8_8/*"
"""Requests for voxels, and for the shard indexes that lead to them."""
CHUNK_BYTES = 64 * 32 * 16
ALL = frozenset(range(CHUNKS))
SHARDINGS: Sequence[Mapping[str, Any] | None] = (None, {})
IDS = ("unsharded", "sharded")
"""Of the two shardings."""


# --- a volume that shows what was fetched


@dataclass(frozen=True)
class Row:
    """A volume of 16 chunks along x on a server of its own, which the mirror keeps in four shards."""

    scale: Scale
    server: Server

    @property
    def url(self) -> str:
        """Without the stored form."""
        return f"{self.server.url}/row"

    @property
    def dtype(self) -> str:
        """Of the voxels."""
        return str(self.scale.info["data_type"])

    def cut(self, first: int = 0, stop: int = CHUNKS, **arguments: Any) -> Cutout:
        """The chunks `[first, stop)`, ready to be fetched."""
        return cut(self.url, self.dtype, bbox=row_bbox(first, stop), **arguments)

    def expected(self, first: int = 0, stop: int = CHUNKS) -> Array:
        """What a read of them must give, by a reader that shares no code with the package."""
        return self.scale.read(((0, 16), (0, 32), (first * 64, stop * 64)))

    def asked(self) -> set[int]:
        """The chunks that the server was asked for; for a volume without shards, where each is a file."""
        names = [record.path.rpartition("/")[2] for record in self.server.requests]
        return {int(match[1]) // 64 for name in names if (match := re.match(r"(\d+)-\d+_", name))}

    def answers(self, chunk: int) -> list[Record]:
        """What the server said about one chunk's file."""
        return [record for record in self.server.requests if f"/{chunk * 64}-" in record.path]


def row_bbox(first: int, stop: int) -> BBox:
    """A box of whole chunks."""
    return first * 64, stop * 64, 0, 32, 0, 16


def path_of(chunk: int) -> str:
    """A shell pattern for the file of a chunk."""
    return f"*/{chunk * 64}-*"


def row_voxels(encoding: str = "raw") -> Array:
    """Tissue without symmetry, and noise in it, so that a shard is about as large as its voxels."""
    z, y, x = np.ogrid[:16, :32, : 64 * CHUNKS]
    noise = np.random.default_rng(2).integers(0, 30, (16, 32, 64 * CHUNKS))
    image: Array = 110 + 60 * np.sin(x / 9 + 1) * np.cos(y / 7) + 20 * np.sin(z / 5) + noise
    if encoding not in LABEL_ENCODINGS:
        return image.astype(np.uint8)
    cells: Array = (x // 7 * 31 + y // 5 * 17 + z // 3) % 50 + 1
    return cells.astype(np.uint64) * np.uint64(2**40 + 1)


@contextmanager
def row_of_chunks(
    folder: Path,
    encoding: str = "raw",
    sharding: Mapping[str, Any] | None = None,
    voxels: Array | None = None,
    missing: Sequence[int] = (),
    wrap: Callable[[Handler], Handler] | None = None,
) -> Iterator[Row]:
    """Build the volume and serve it.

    Args:
        folder: of the test.
        encoding: how chunks are stored.
        sharding: None for one file a chunk; `{}` for shards.
        voxels: others than `row_voxels`.
        missing: chunks that the source lacks.
        wrap: put around what answers.
    """
    stored = row_voxels(encoding) if voxels is None else voxels
    gone = [(0, 0, chunk) for chunk in missing]
    scale = build_precomputed(
        folder / "source" / "row", stored, encoding=encoding, sharding=sharding, chunk=CHUNK_XYZ, missing_chunks=gone
    )
    handler: Handler = FolderHandler(folder / "source")
    with running(Server(wrap(handler) if wrap else handler)) as server:
        yield Row(scale, server)


def kept(row: Row) -> set[int]:
    """The chunks that the mirror says it has."""
    return {chunk for chunk in range(CHUNKS) if row.cut(chunk, chunk + 1).plan().missing == 0}


def assert_mirror(row: Row, *, has: set[int] | frozenset[int]) -> None:
    """The mirror has these chunks, each exact, and none of the others; every byte of it is what was written."""
    assert kept(row) == has
    for chunk in range(CHUNKS):
        offline = row.cut(chunk, chunk + 1, offline=True)
        if chunk in has:
            np.testing.assert_array_equal(offline.read()["raw"], row.expected(chunk, chunk + 1))
        else:
            with pytest.raises(NotCachedError):
                offline.read()
    assert_sound()


def assert_sound() -> None:
    """Nothing in the cache is damaged."""
    cache = Cache.at(load_settings())
    assert [bad for mirror in list_mirrors(cache) for bad in verify(cache, mirror)] == []


def assert_completes(row: Row) -> None:
    """The same fetch again ends well, and goes on where the last one was: what is there is not asked for again."""
    there = kept(row)
    row.server.clear()
    report = row.cut().fetch()
    assert (report.reused, report.fetched) == (len(there), CHUNKS - len(there))
    if "sharding" not in row.scale.meta:
        assert row.asked() == ALL - there
    assert_mirror(row, has=ALL)
    row.server.clear()
    np.testing.assert_array_equal(row.cut().read()["raw"], row.expected())
    assert row.server.requests == []


def assert_clear(error: BaseException, standard: type[BaseException], *words: str) -> None:
    """An error of ours that is also a standard one, and whose message is one line with these words."""
    assert isinstance(error, EmcatalogError)
    assert isinstance(error, standard)
    message = str(error)
    assert "\n" not in message
    for word in words:
        assert word in message


# --- what is done in another process


def start_python(function: Callable[..., None], *arguments: str) -> subprocess.Popen[str]:
    """Call a function of a test module in a Python process of its own, with this one's environment."""
    call = f"import sys, {function.__module__} as tests; tests.{function.__name__}(*sys.argv[1:])"
    command, pipe = [sys.executable, "-c", call, *arguments], subprocess.PIPE
    return subprocess.Popen(command, cwd=REPOSITORY, text=True, stdin=pipe, stdout=pipe, stderr=pipe)


def say(**what: object) -> None:
    """Write a line of JSON to the process that started this one."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def hear(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for such a line."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        pytest.fail(f"the process ended: {process.communicate()[1]}")
    answer: dict[str, Any] = json.loads(line)
    return answer


def last_words(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The last line that a process says."""
    output, complaints = process.communicate()
    assert output, complaints
    answer: dict[str, Any] = json.loads(output.splitlines()[-1])
    return answer


def fetch_and_say(url: str) -> None:
    """Fetch the row and say what becomes of it, step by step (in a process of its own)."""
    try:
        report = cut(url, "uint8", bbox=row_bbox(0, CHUNKS)).fetch(_say_progress)
        say(fetched=report.fetched)
    except EmcatalogError as error:
        say(kinds=[kind.__name__ for kind in type(error).__mro__], message=str(error))
    except KeyboardInterrupt:
        say(interrupted=True)


def _say_progress(chunks: int, _: int) -> Progress:
    say(missing=chunks)
    return lambda arrived, _: say(arrived=arrived)


# --- the tests


@pytest.fixture(params=SHARDINGS, ids=IDS)
def row(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Row]:
    """The row of chunks, in files and in shards."""
    with row_of_chunks(tmp_path, sharding=request.param) as made:
        yield made


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Row]:
    """The row of chunks, each in a file, so that requests tell which were asked for."""
    with row_of_chunks(tmp_path) as made:
        yield made


class TestReport:
    def test_numbers(self, row: Row) -> None:
        report = row.cut(2, 9).fetch()
        assert (report.fetched, report.reused, report.absent) == (7, 0, 0)
        assert report.fetched_bytes == 7 * CHUNK_BYTES
        assert report.seconds > 0
        assert report.rate == report.fetched_bytes / report.seconds
        assert (report.channels["raw"].fetched, report.channels["raw"].fetched_bytes) == (7, 7 * CHUNK_BYTES)
        assert_mirror(row, has=set(range(2, 9)))

    def test_what_is_there_is_reused(self, row: Row) -> None:
        row.cut(2, 9).fetch()
        report = row.cut(5, 16).fetch()
        assert (report.fetched, report.reused, report.absent) == (7, 4, 0)
        assert report.fetched_bytes == 7 * CHUNK_BYTES

    def test_nothing_to_do(self, row: Row) -> None:
        row.cut().fetch()
        row.server.clear()
        report = row.cut().fetch()
        assert (report.fetched, report.reused, report.fetched_bytes, report.rate) == (0, CHUNKS, 0, 0)
        assert row.server.requests == []

    def test_one_line_for_a_person(self, row: Row) -> None:
        text = str(row.cut(0, 4).fetch())
        assert re.fullmatch(
            r"fetched 4 chunks \(0\.1 MB decoded\), reused 0, absent at the source 0, in \d+\.\d s \(\d+ MB/s\)", text
        )

    def test_a_part_of_a_chunk_fetches_the_whole_chunk(self, row: Row) -> None:
        report = cut(row.url, "uint8", bbox=(100, 130, 3, 5, 7, 8)).fetch()
        assert (report.fetched, report.fetched_bytes) == (2, 2 * CHUNK_BYTES)
        assert_mirror(row, has={1, 2})

    def test_channels_apart(self, male_cns: Server, catalog: Any) -> None:
        report = catalog.malecns(bbox=(40000, 40064, 40000, 40064, 20000, 20064)).fetch()
        raw, labels = report.channels["raw"], report.channels["labels"]
        assert (report.fetched, report.absent) == (raw.fetched + labels.fetched, raw.absent + labels.absent)
        assert labels.fetched_bytes == 8 * labels.fetched * 64**3
        assert report.fetched_bytes == raw.fetched_bytes + labels.fetched_bytes


class TestProgress:
    def test_totals_are_those_of_the_plan(self, row: Row) -> None:
        row.cut(0, 3).fetch()
        promised: list[tuple[int, int]] = []
        arrived: list[tuple[int, int]] = []

        def start(chunks: int, nbytes: int) -> Callable[[int, int], None]:
            promised.append((chunks, nbytes))
            return lambda *step: arrived.append(step)

        plan = row.cut().plan()
        row.cut().fetch(start)
        assert promised == [(plan.missing, 13 * CHUNK_BYTES)]
        assert [sum(column) for column in zip(*arrived, strict=True)] == [13, 13 * CHUNK_BYTES]
        assert len(arrived) == 4  # once a shard

    def test_silent_where_nothing_is_missing(self, row: Row) -> None:
        row.cut().fetch()
        row.cut().fetch(lambda *_: pytest.fail("nothing is missing"))

    def test_what_was_reported_is_on_disk(self, row: Row) -> None:
        seen: list[tuple[set[int], int]] = []

        def start(*_: int) -> Callable[[int, int], None]:
            total = iter(range(IN_SHARD, CHUNKS + 1, IN_SHARD))
            return lambda *_: seen.append((kept(row), next(total)))

        row.cut().fetch(start)
        for there, reported in seen:
            assert there >= set(range(reported))

    def test_an_error_in_the_callback_leaves_a_right_mirror(self, files: Row) -> None:
        def start(*_: int) -> Callable[[int, int], None]:
            return lambda *_: pytest.fail("stop")

        with pytest.raises(pytest.fail.Exception, match="stop"):
            files.cut().fetch(start)
        there = kept(files)
        assert there >= set(range(IN_SHARD))
        assert_mirror(files, has=there)
        assert_completes(files)


class TestRequests:
    def test_only_what_the_box_touches(self, files: Row) -> None:
        files.cut(3, 6).fetch()
        assert files.asked() == {3, 4, 5}
        assert files.server.count(VOXELS) == 3

    def test_a_shifted_box(self, files: Row) -> None:
        files.cut(0, 8).fetch()
        files.server.clear()
        files.cut(4, 12).fetch()
        assert files.asked() == {8, 9, 10, 11}
        assert files.server.count(VOXELS) == 4

    def test_a_box_with_a_hole(self, files: Row) -> None:
        files.cut(6, 7).fetch()
        files.server.clear()
        assert files.cut(5, 8).fetch().reused == 1
        assert files.asked() == {5, 7}

    def test_a_warm_read_asks_nobody(self, row: Row) -> None:
        row.cut().fetch()
        row.server.fail("*", 500)
        row.server.clear()
        np.testing.assert_array_equal(row.cut().read()["raw"], row.expected())
        assert row.server.requests == []


class TestAbsent:
    """A chunk that the source says does not exist is background."""

    MISSING = (5, 6, 11)

    @pytest.fixture(params=SHARDINGS, ids=IDS)
    def sparse(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Row]:
        """Chunks 5, 6 and 11 are not there; chunk 8 is, and holds zeros."""
        voxels = row_voxels()
        voxels[:, :, 8 * 64 : 9 * 64] = 0
        made = row_of_chunks(tmp_path, sharding=request.param, voxels=voxels, missing=self.MISSING)
        with made as sparse:
            yield sparse

    def test_counted_and_stored(self, sparse: Row) -> None:
        report = sparse.cut().fetch()
        assert (report.fetched, report.absent) == (CHUNKS, 3)
        assert not sparse.expected(5, 7).any()
        assert_mirror(sparse, has=ALL)

    def test_not_asked_for_again(self, sparse: Row) -> None:
        sparse.cut().fetch()
        sparse.server.clear()
        assert sparse.cut().fetch().absent == 0
        np.testing.assert_array_equal(sparse.cut().read()["raw"], sparse.expected())
        assert sparse.server.requests == []

    def test_zeros_that_are_stored_are_not_absent(self, sparse: Row) -> None:
        assert sparse.cut(8, 9).fetch().absent == 0

    def test_a_shard_that_is_not_there(self, tmp_path: Path) -> None:
        with row_of_chunks(tmp_path, sharding={}) as row:
            (row.scale.folder / "8_8_8" / "1.shard").unlink()
            report = row.cut().fetch()
            assert report.absent == sum(not row.scale.is_there((0, 0, chunk)) for chunk in range(CHUNKS)) == 8
            assert_mirror(row, has=ALL)


# --- memory

SIDE = 256
LABELS_XYZ = (64, 64, 64)


class Endless:
    """Answers every chunk of a large volume of labels with the same bytes, so that no disk is needed."""

    def __init__(self, info: bytes, chunk: bytes) -> None:
        self._info = info
        self._chunk = chunk

    def __call__(self, call: Call) -> Answer:
        return Answer(200, self._info if call.path.endswith("/info") else self._chunk)


def endless_labels(folder: Path) -> Endless:
    """A volume of 64-bit labels, 256 x 256 x 16384 voxels (8.6 GB): a chunk is 2 MB decoded and a few KB stored."""
    cells = np.indices((64, 64, 64)) // 16
    block = (cells[0] * 16 + cells[1] * 4 + cells[2] + 1).astype(np.uint64)
    scale = build_precomputed(folder, block, encoding="compressed_segmentation", chunk=LABELS_XYZ)
    chunk = scale.encoded((0, 0, 0))
    assert chunk is not None
    meta = {**scale.meta, "size": [16384, SIDE, SIDE]}
    return Endless(json.dumps({**scale.info, "scales": [meta]}).encode(), chunk)


def fetch_and_say_peak(url: str, voxels: str) -> None:
    """Fetch a box of labels and say the most memory that the process had (in a process of its own)."""
    report = cut(url, "uint64", bbox=(0, int(voxels), 0, SIDE, 0, SIDE)).fetch()
    status = Path("/proc/self/status").read_text()
    # VmHWM, and not getrusage: that one begins with what the process that started this one had.
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert peak is not None
    say(peak=int(peak[1]) * 1024, nbytes=report.fetched_bytes)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_bounded_whatever_the_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = []
    with running(Server(endless_labels(tmp_path / "source"))) as server:
        for voxels in (512, 2048):
            monkeypatch.setenv("EMCATALOG_CACHE", str(tmp_path / f"cache-{voxels}"))
            with start_python(fetch_and_say_peak, server.url, str(voxels)) as process:
                answer = hear(process)
            assert answer["nbytes"] == voxels * SIDE * SIDE * 8
            peaks.append(answer["peak"])
    small, large = peaks
    assert large - small < 2 * IN_FLIGHT_BYTES  # the boxes differ by 805 MB
    assert large < 700e6  # the box is 1.07 GB
