"""The guard: a result that would not fit in the memory at hand is refused before a voxel is asked for."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from emcatalog.errors import TooLargeError
from emcatalog.memory import RESERVE, _cgroup_free, available_bytes
from tests.conftest import BBox, cut
from tests.replica.wire import Server, running
from tests.test_fetch import SIDE, Endless, assert_clear, endless_labels, hear, say, start_python

HUGE: BBox = (40000, 60000, 40000, 60000, 20000, 40000)
"""8 TB of image and 64 TB of labels."""
GB = 10**9


class TestRefusal:
    """A box of male CNS that no machine holds."""

    @pytest.fixture
    def refusal(self, male_cns: Server, catalog: Any) -> str:
        with pytest.raises(TooLargeError) as caught:
            catalog.malecns(bbox=HUGE).read()
        assert_clear(caught.value, MemoryError)
        return str(caught.value)

    def test_says_what_was_asked_and_what_there_is(self, refusal: str) -> None:
        assert "a box of 20000 x 20000 x 20000 voxels (x, y, z) is 72000.0 GB in memory" in refusal
        assert "(raw 8000.0 GB, labels 64000.0 GB)" in refusal
        free = re.search(r"and ([\d.]+) GB can be had", refusal)
        assert free is not None
        assert 0 < float(free[1]) <= psutil.virtual_memory().total / GB

    def test_says_what_to_do(self, refusal: str) -> None:
        for way in ("to_dask()", "fetch()", "a smaller bbox", "fewer channels", "a coarser resolution"):
            assert way in refusal

    def test_the_cube_that_it_proposes_fits(self, refusal: str) -> None:
        side = re.search(r"a cube of (\d+) fits", refusal)
        assert side is not None
        assert 0 < int(side[1]) ** 3 * 9 < psutil.virtual_memory().total

    def test_before_any_voxel(self, male_cns: Server, refusal: str, tmp_path: Path) -> None:
        assert {record.path.rpartition("/")[2] for record in male_cns.requests} == {"info"}
        assert not [path for path in (tmp_path / "cache").rglob("*") if path.suffix == ".zarr"]

    def test_of_one_channel(self, male_cns: Server, catalog: Any) -> None:
        with pytest.raises(TooLargeError, match=r"8000\.0 GB in memory \(raw 8000\.0 GB\)"):
            catalog.malecns(bbox=HUGE, channels=["raw"]).read()


@pytest.fixture
def endless(tmp_path: Path) -> Endless:
    return endless_labels(tmp_path / "source")


# --- control groups: https://docs.kernel.org/admin-guide/cgroup-v2.html


def write_group(folder: Path, limit: str, used: int, pages: int = 0) -> None:
    """The files of a group of version 2; `pages` of what it uses are page cache."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(
        f"anon {used - pages}\nactive_file {pages // 4}\ninactive_file {pages * 3 // 4}\n"
    )


def write_group_1(folder: Path, limit: int, used: int, pages: int) -> None:
    """The files of a group of version 1."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"cache {pages}\ntotal_active_file 0\ntotal_inactive_file {pages}\n")


class TestControlGroups:
    """Free memory below the limits of containers and batch jobs, from the files of a folder."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        return tmp_path / "cgroup"

    def free(self, root: Path, membership: str) -> int | None:
        path = root.parent / "membership"
        path.write_text(membership)
        return _cgroup_free(root, path)

    def test_container(self, root: Path) -> None:
        write_group(root, str(8 * GB), 3 * GB)
        assert self.free(root, "0::/\n") == 5 * GB

    def test_no_limit(self, root: Path) -> None:
        write_group(root, "max", 3 * GB)
        assert self.free(root, "0::/\n") is None

    def test_page_cache_is_free(self, root: Path) -> None:
        write_group(root, str(8 * GB), 8 * GB, pages=6 * GB)
        assert self.free(root, "0::/\n") == 6 * GB

    def test_nothing_left(self, root: Path) -> None:
        write_group(root, str(8 * GB), 9 * GB)
        assert self.free(root, "0::/\n") == 0

    def test_batch_job(self, root: Path) -> None:
        write_group(root / "slurm" / "job_1" / "step_0", "max", GB)
        write_group(root / "slurm" / "job_1", str(16 * GB), 2 * GB)
        write_group(root / "slurm", str(64 * GB), 60 * GB)
        assert self.free(root, "0::/slurm/job_1/step_0\n") == 4 * GB

    def test_a_group_that_is_not_seen_from_inside(self, root: Path) -> None:
        write_group(root, str(8 * GB), 3 * GB)
        assert self.free(root, "0::/docker/0123456789\n") == 5 * GB

    def test_version_1(self, root: Path) -> None:
        write_group_1(root / "memory" / "job", 4 * GB, 3 * GB, pages=GB)
        assert self.free(root, "9:name=systemd:/\n4:memory:/job\n0::/\n") == 2 * GB

    def test_no_groups(self, root: Path) -> None:
        assert self.free(root, "0::/\n") is None
        assert _cgroup_free(root, root / "none") is None


def test_no_more_than_the_machine_has() -> None:
    assert 0 < available_bytes() <= RESERVE * psutil.virtual_memory().total


# --- a group of this machine, where this user may make one


LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where a group's limit stands, in versions 2 and 1; a new group gets a folder beside it."""


@contextmanager
def limited_group(nbytes: int) -> Iterator[Path]:
    """A new control group of this machine with a limit; gives the file that takes its processes."""
    for limit in LIMITS:
        group = limit.parent / f"emcatalog-test-{os.getpid()}"
        with suppress(OSError):
            group.mkdir()
        if (group / limit.name).exists():
            break
        with suppress(OSError):
            group.rmdir()
    else:
        pytest.skip("this user cannot limit the memory of a process")
    try:
        (group / limit.name).write_text(str(nbytes))
        yield group / "cgroup.procs"
    finally:
        group.rmdir()


def read_within(procs: str, url: str, voxels: str) -> None:
    """Enter a control group and read a box of labels there (in a process of its own)."""
    Path(procs).write_text(str(os.getpid()))
    try:
        got = cut(url, "uint64", bbox=(0, int(voxels), 0, SIDE, 0, SIDE)).read()["raw"]
        say(nbytes=got.nbytes)
    except TooLargeError as error:
        say(message=str(error))


@pytest.mark.skipif(sys.platform != "linux", reason="control groups of Linux")
def test_in_a_control_group(tmp_path: Path, endless: Endless) -> None:
    """The machine has room for it, the group has not."""
    with running(Server(endless)) as server, limited_group(800 * 2**20) as procs:
        with start_python(read_within, str(procs), server.url, "2048") as process:
            refused = hear(process)["message"]
        assert "is 1.1 GB in memory (raw 1.1 GB)" in refused
        assert re.search(r"and 0\.[0-8] GB can be had", refused)
        assert server.count("*/8_8_8/*") == 0
        with start_python(read_within, str(procs), server.url, "256") as process:
            assert hear(process) == {"nbytes": 256 * SIDE * SIDE * 8}


def test_a_box_of_too_many_chunks_is_refused_before_they_are_listed(male_cns: Server, catalog: Any) -> None:
    whole = catalog.malecns(bbox=(0, 94088, 0, 77248, 0, 134576))
    assert whole.plan().missing == 2 * 1471 * 1207 * 2103
    with pytest.raises(TooLargeError, match=r"3,733,870,191 chunks.*in parts"):
        whole.fetch()
    assert male_cns.count("*.shard") == 0
