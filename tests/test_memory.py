"""How much memory a result may take."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from emcatalog.memory import _cgroup_free, available_bytes

GB = 10**9


def group(folder: Path, limit: str, used: int, active: int = 0, inactive: int = 0) -> None:
    """The memory files of a control group, version 2."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\nactive_file {active}\ninactive_file {inactive}\nshmem 7\n")


def group_1(folder: Path, limit: int, used: int, cached: int) -> None:
    """The same, version 1."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{used}\n")
    text = f"inactive_file 1\ntotal_inactive_file {cached}\ntotal_active_file 0\n"
    (folder / "memory.stat").write_text(text)


@pytest.fixture
def member(tmp_path: Path) -> Path:
    """A ``/proc/self/cgroup``."""
    path = tmp_path / "membership"
    path.write_text("0::/slice/job\n")
    return path


def test_what_is_available_is_less_than_there_is() -> None:
    assert 0 < available_bytes() < psutil.virtual_memory().total


class TestControlGroups:
    """The limit of a container or of a batch job."""

    def test_none_without_groups(self, tmp_path: Path, member: Path) -> None:
        assert _cgroup_free(tmp_path / "nothing", member) is None
        assert _cgroup_free(tmp_path / "nothing", tmp_path / "no membership") is None

    def test_none_without_a_limit(self, tmp_path: Path, member: Path) -> None:
        group(tmp_path / "slice" / "job", "max", 5 * GB)
        assert _cgroup_free(tmp_path, member) is None

    def test_a_containers_limit_stands_at_the_root(self, tmp_path: Path, member: Path) -> None:
        group(tmp_path, str(8 * GB), 3 * GB)
        member.write_text("0::/\n")
        assert _cgroup_free(tmp_path, member) == 5 * GB

    def test_the_tightest_group_above_counts(self, tmp_path: Path, member: Path) -> None:
        group(tmp_path / "slice" / "job", str(8 * GB), 1 * GB)
        group(tmp_path / "slice", str(16 * GB), 14 * GB)
        group(tmp_path / "other", str(1 * GB), 1 * GB)
        assert _cgroup_free(tmp_path, member) == 2 * GB

    def test_the_page_cache_is_free(self, tmp_path: Path, member: Path) -> None:
        group(tmp_path / "slice" / "job", str(8 * GB), 8 * GB, active=1 * GB, inactive=5 * GB)
        assert _cgroup_free(tmp_path, member) == 6 * GB

    def test_never_negative(self, tmp_path: Path, member: Path) -> None:
        group(tmp_path / "slice" / "job", str(1 * GB), 2 * GB)
        assert _cgroup_free(tmp_path, member) == 0

    def test_version_1(self, tmp_path: Path, member: Path) -> None:
        member.write_text("12:cpu,cpuacct:/docker/abc\n5:memory:/docker/abc\n1:name=systemd:/docker/abc\n0::/\n")
        group_1(tmp_path / "memory", 4 * GB, 3 * GB, cached=2 * GB)
        assert _cgroup_free(tmp_path, member) == 3 * GB
        group_1(tmp_path / "memory" / "docker" / "abc", 2 * GB, 1 * GB, cached=0)
        assert _cgroup_free(tmp_path, member) == 1 * GB

    def test_a_path_outside_of_what_is_seen(self, tmp_path: Path, member: Path) -> None:
        member.write_text("0::/../../elsewhere\n")
        group(tmp_path / "root", str(8 * GB), 3 * GB)
        assert _cgroup_free(tmp_path / "root", member) == 5 * GB
