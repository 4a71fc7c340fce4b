"""Writing the local copy of a table: whole or not at all, in bounded memory, and never over something else."""

from __future__ import annotations

import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import feather, ipc

from emcatalog.errors import ArgumentError, CacheCorruptError, CacheError
from emcatalog.tables.copy import open_copy
from emcatalog.tables.copy_form import ROW
from emcatalog.tables.copying import write_copy
from emcatalog.tables.local import LocalTable, open_local
from tests.conftest import python
from tests.replica.tables import spoil
from tests.test_table_copy import ABOUT, XYZ, copy_of, points, set_small_parts


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of small tables have many parts, each of several row groups."""
    set_small_parts(monkeypatch)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


WRITE = """
import sys
from pathlib import Path
from emcatalog.tables.copying import write_copy
from emcatalog.tables.local import open_local
"""
KILLED = (
    WRITE
    + """
import os, signal
def kill(rows):
    moved.append(rows)
    if sum(moved) >= int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
moved = []
write_copy(open_local(Path(sys.argv[1])), Path(sys.argv[2]), coordinates=("x", "y", "z"), about={}, progress=kill)
"""
)


class TestWriting:
    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        path = tmp_path / "source" / "table.feather"
        path.parent.mkdir()
        feather.write_feather(points(20_000), path, chunksize=1000)
        return path

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return tmp_path / "cache" / "table.parquet"

    @pytest.mark.parametrize("rows", [1, 12_000, 20_001, 40_000], ids=["first", "half", "sorting", "last"])
    def test_killed_and_done_again(self, source: Path, folder: Path, rows: int) -> None:
        command = [sys.executable, "-c", KILLED, str(source), str(folder), str(rows)]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        assert not folder.exists()
        assert len(files(folder.parent)) == 1
        write_copy(open_local(source), folder, coordinates=XYZ, about=ABOUT)
        pd.testing.assert_frame_equal(open_copy(folder).read().to_pandas(), pd.read_feather(source))
        assert files(folder.parent) == ["table.parquet"]

    def test_what_lives_is_left_alone(self, source: Path, folder: Path) -> None:
        here = f".table.parquet.partial-{platform.node()}"
        others = [f"{here}-{os.getpid()}-a_b1", ".table.parquet.partial-another-node-1-c2", ".other.partial-x-1-d"]
        for name in others:
            (folder.parent / name).mkdir(parents=True)
        old = folder.parent / ".table.parquet.partial-another-node-2-e"
        old.mkdir()
        os.utime(old, (0, 0))
        write_copy(open_local(source), folder, about=ABOUT)
        assert files(folder.parent) == sorted([*others, "table.parquet"])

    def test_nothing_else_is_left_in_the_folder(self, source: Path, folder: Path, small_parts: None) -> None:
        write_copy(open_local(source), folder, coordinates=XYZ, about=ABOUT)
        parts = open_copy(folder).parts
        assert parts > 100
        names = [f"part-{number:05}.parquet" for number in range(parts)]
        assert files(folder) == sorted(["_index.arrow", "_schema.arrow", "_source.json", *names])
        assert folder.stat().st_mode & 0o777 == 0o755

    def test_every_row_is_told_twice(self, source: Path, folder: Path, small_parts: None) -> None:
        moved: list[int] = []
        write_copy(open_local(source), folder, coordinates=XYZ, about=ABOUT, progress=moved.append)
        assert sum(moved) == 40_000
        assert len(moved) > 100

    def test_a_new_copy_takes_the_place_of_the_old(self, source: Path, folder: Path, tmp_path: Path) -> None:
        copy_of(points(50), tmp_path / "cache")
        write_copy(open_local(source), folder, about={**ABOUT, "version": "8"})
        assert (open_copy(folder).rows, open_copy(folder).about["version"]) == (20_000, "8")
        assert files(folder.parent) == ["table.feather", "table.parquet"]

    def test_a_damaged_copy_is_replaced(self, source: Path, folder: Path) -> None:
        write_copy(open_local(source), folder, about=ABOUT)
        spoil(folder / "part-00000.parquet")
        assert list(open_copy(folder).damage())
        write_copy(open_local(source), folder, about=ABOUT)
        assert not list(open_copy(folder).damage())

    def test_of_two_writers_the_first_one_stays(self, source: Path, folder: Path) -> None:
        def be_overtaken(_: int) -> None:
            if not folder.exists():
                write_copy(open_local(source), folder, coordinates=XYZ, about=ABOUT)
                overtaken.append(folder.stat().st_ino)

        overtaken: list[int] = []
        write_copy(open_local(source), folder, coordinates=XYZ, about=ABOUT, progress=be_overtaken)
        assert overtaken == [folder.stat().st_ino]
        assert files(folder.parent) == ["table.parquet"]

    def test_something_else_is_not_replaced(self, source: Path, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "thesis.tex").write_text("years")
        with pytest.raises(CacheError, match="is something else, which is not replaced; move it"):
            write_copy(open_local(source), folder, about=ABOUT)
        assert files(folder) == ["thesis.tex"]

    def test_a_place_that_cannot_be_written(self, source: Path) -> None:
        with pytest.raises(CacheError, match=r"cannot be written: .*; choose another cache folder"):
            write_copy(open_local(source), source / "table.parquet", about=ABOUT)

    def test_a_full_disk(self, source: Path, folder: Path) -> None:
        script = (
            WRITE
            + """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
from emcatalog.errors import CacheError
try:
    write_copy(open_local(Path(sys.argv[1])), Path(sys.argv[2]), about={})
except CacheError as error:
    print(error)
"""
        )
        said = python(script, str(source), str(folder))
        assert re.fullmatch(rf"{folder} cannot be written: .*File too large.*; nothing of it was kept", said)
        assert files(folder.parent) == []

    def test_a_source_that_is_cut_off(self, source: Path, folder: Path) -> None:
        os.truncate(source, source.stat().st_size // 2)
        with pytest.raises(CacheCorruptError, match=r"table\.feather cannot be read as a table: .*fetch it again"):
            write_copy(open_local(source), folder, about=ABOUT)

    def test_a_source_that_breaks_off(self, source: Path, folder: Path) -> None:
        spoil(source)
        with pytest.raises(CacheCorruptError, match=r"table\.feather cannot be read as a table"):
            write_copy(open_local(source), folder, about=ABOUT)
        assert files(folder.parent) == []

    def test_a_source_that_changes_meanwhile(self, source: Path, folder: Path) -> None:
        table = open_local(source)
        passes: list[int] = []

        def batches(columns: Any) -> Iterator[pa.RecordBatch]:
            passes.append(1)
            yield from list(table.batches(columns))[: -len(passes)]

        with pytest.raises(CacheCorruptError, match="does not hold each of 19000 rows once"):
            write_copy(LocalTable(table.schema, batches), folder, about=ABOUT)
        assert files(folder.parent) == []

    def test_something_that_is_no_table(self, source: Path) -> None:
        source.write_bytes(b"body,weight\n1,2\n")
        with pytest.raises(CacheCorruptError, match="is no table: it begins with b'body,w', and Feather and Parquet"):
            open_local(source)

    @pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for its peak memory")
    def test_memory_is_bounded(self, tmp_path: Path) -> None:
        source = tmp_path / "large.feather"
        schema = pa.Schema.from_pandas(points(1))
        with ipc.new_file(source, schema, options=ipc.IpcWriteOptions(compression="lz4")) as writer:
            for seed in range(80):
                writer.write_batch(pa.RecordBatch.from_pandas(points(65_536, seed), schema))
        script = (
            WRITE
            + """
from emcatalog.tables import copying, spilling
copying.PART_BYTES, spilling.PENDING_BYTES = 4 << 20, 16 << 20
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1e3
before = peak()
write_copy(open_local(Path(sys.argv[1])), Path(sys.argv[2]), coordinates=("x", "y", "z"), about={})
print(peak() - before)
"""
        )
        grown = float(python(script, str(source), str(tmp_path / "large.parquet")))
        copy = open_copy(tmp_path / "large.parquet")
        assert copy.rows == 80 * 65_536
        held = sum(batch.nbytes for batch in open_local(source).batches(None)) / 1e6
        assert held > 170
        assert grown < held


class TestColumnsThatCannotBeCopied:
    @pytest.mark.parametrize(
        ("column", "message"),
        [
            (pa.array([["a"]], pa.list_(pa.dictionary(pa.int8(), pa.string()))), "categories inside of another type"),
            (pa.array([(1, 2, 3)], pa.month_day_nano_interval()), "which cannot be copied"),
            (pa.array(["a"], pa.string_view()), "which cannot be copied"),
        ],
    )
    def test_types(self, tmp_path: Path, column: pa.Array, message: str) -> None:
        with ipc.new_file(tmp_path / "table.feather", pa.schema({"odd": column.type})) as writer:
            writer.write_batch(pa.record_batch({"odd": column}))
        with pytest.raises(ArgumentError, match=f"column 'odd' holds .*{message}"):
            write_copy(open_local(tmp_path / "table.feather"), tmp_path / "copy.parquet", about=ABOUT)
        assert files(tmp_path) == ["table.feather"]

    def test_two_of_one_name(self, tmp_path: Path) -> None:
        for names in (["a", "a"], ["a", ROW]):
            with ipc.new_file(tmp_path / "table.feather", pa.schema([(name, pa.int8()) for name in names])):
                pass
            with pytest.raises(ArgumentError, match=f"a copy would have two columns '{names[1]}'"):
                write_copy(open_local(tmp_path / "table.feather"), tmp_path / "copy.parquet", about=ABOUT)

    def test_an_order_that_there_is_not(self, tmp_path: Path) -> None:
        with pytest.raises(ArgumentError, match=r"no column 'bod' to order by.*Did you mean 'body'\?"):
            copy_of(points(5), tmp_path, order_by=("bod",))
