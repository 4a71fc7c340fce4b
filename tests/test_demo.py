"""The embedded dataset: made once, whole or not at all, and read on the same path as a remote volume."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emcatalog.entries.volume import ChannelModel
from emcatalog.errors import EmcatalogError, SourceMissingError
from emcatalog.formats.opening import describe_volume
from emcatalog.phantom import Phantom, make_phantom
from emcatalog.settings import load_settings
from tests.conftest import cut, python
from tests.replica.stored import open_scale

SMALL_DEMO = """
import sys
from pathlib import Path
import emcatalog.phantom
from emcatalog.formats import demo
demo.SHAPE = (64, 64, 64)  # the real one takes seconds
"""

MAKE = f"{SMALL_DEMO}\nprint(demo.make_demo(Path(sys.argv[1])))"

MAKE_WHEN_TOLD = f"""{SMALL_DEMO}
print("ready", flush=True)
sys.stdin.readline()
print(demo.make_demo(Path(sys.argv[1])))
"""

DIE_AT_EVENT = f"""{SMALL_DEMO}
import os, signal
moment = sys.argv[2]
def die(event, arguments):
    if event == moment:
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(die)
demo.make_demo(Path(sys.argv[1]))
"""

DIE_AT_FILE = f"""{SMALL_DEMO}
import os, signal, threading
folder = Path(sys.argv[1])
def watch():
    while not list(folder.parent.glob(sys.argv[2])):
        pass
    os.kill(os.getpid(), signal.SIGKILL)
threading.Thread(target=watch, daemon=True).start()
demo.make_demo(folder)
"""

FILES = [
    f"{volume}/{name}" for volume in ("em", "segmentation") for name in ("info", "8_8_8/0.shard", "16_16_16/0.shard")
]


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom()


class TestEntry:
    """``demo`` in the catalog."""

    def test_it_is_the_phantom(self, catalog: Any, phantom: Phantom) -> None:
        dataset = catalog.demo.read()
        np.testing.assert_array_equal(dataset["labels"], phantom.labels)
        error = np.abs(dataset["raw"].values.astype(int) - phantom.raw)
        assert (error.mean() < 3, error.max() < 40) == (True, True), "no more than jpeg does to grain"

    @pytest.mark.parametrize("step", [2, 4])
    def test_coarser_scales(self, catalog: Any, phantom: Phantom, step: int) -> None:
        dataset = catalog.demo(resolution=8 * step).read()
        np.testing.assert_array_equal(dataset["labels"], phantom.labels[::step, ::step, ::step])
        blocks = phantom.raw.reshape(256 // step, step, 256 // step, step, 256 // step, step)
        assert np.abs(dataset["raw"].values - blocks.mean((1, 3, 5))).mean() < 4
        assert float(dataset["x"][0]) == 4 * step

    def test_it_looks_like_a_remote_volume(self, catalog: Any, demo_folder: Path) -> None:
        for volume, encoding in (("em", "jpeg"), ("segmentation", "compressed_segmentation")):
            meta = open_scale(demo_folder / "tissue-1" / volume).meta
            assert meta["encoding"] == encoding
            assert meta["sharding"]["@type"] == "neuroglancer_uint64_sharded_v1"

    def test_the_declared_numbers_are_true(self, catalog: Any) -> None:
        for channel in catalog.demo.channels.values():
            assert_declared(channel)

    def test_absent_or_unknown(self) -> None:
        with pytest.raises(SourceMissingError, match="demo://tissue/em, demo://tissue/segmentation"):
            cut("demo://tissue/nothing", "uint8")


def assert_declared(channel: ChannelModel) -> None:
    """What the catalog says of a channel is what its info says."""
    found = describe_volume(channel, load_settings())
    finest = found.scales[0]
    assert finest.grid == channel.grid
    assert (finest.dtype, finest.encoding, finest.chunk) == (channel.dtype, channel.encoding, channel.chunk)
    assert tuple(scale.grid.voxel_size_nm for scale in found.scales) == channel.resolutions_nm


class TestMaking:
    """Its generation."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return tmp_path / "data" / "tissue-1"

    def test_once(self, folder: Path) -> None:
        assert python(MAKE, str(folder)) == str(folder)
        assert_whole(folder)
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        assert python(MAKE, str(folder)) == str(folder)
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before

    def test_the_same_bytes_each_time(self, folder: Path) -> None:
        other = folder.with_name("again")
        python(MAKE, str(folder))
        python(MAKE, str(other))
        files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
        assert [(folder / name).read_bytes() for name in files] == [(other / name).read_bytes() for name in files]

    def test_two_processes_at_once(self, folder: Path) -> None:
        command = [sys.executable, "-c", MAKE_WHEN_TOLD, str(folder)]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, **pipes) as first, subprocess.Popen(command, **pipes) as second:
            for process in (first, second):
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
            for process in (first, second):
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
            assert [process.communicate()[0] for process in (first, second)] == [f"{folder}\n"] * 2
        assert_whole(folder)
        assert [path.name for path in folder.parent.iterdir()] == ["tissue-1"]

    @pytest.mark.parametrize(
        ("script", "moment"),
        [(DIE_AT_EVENT, "tempfile.mkdtemp"), (DIE_AT_FILE, "*/em/8_8_8"), (DIE_AT_EVENT, "os.rename")],
        ids=["at the start", "in the middle", "before it gets its name"],
    )
    def test_killed_on_the_way(self, folder: Path, script: str, moment: str) -> None:
        command = [sys.executable, "-c", script, str(folder), moment]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        assert not folder.exists()
        python(MAKE, str(folder))
        assert_whole(folder)

    def test_a_folder_that_cannot_be_made(self, catalog: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("EMCATALOG_DEMO", str(tmp_path / "file" / "below"))
        with pytest.raises(EmcatalogError, match="EMCATALOG_DEMO"):
            catalog.demo.plan()


def assert_whole(folder: Path) -> None:
    assert [name for name in FILES if not (folder / name).is_file()] == []
    labels = open_scale(folder / "segmentation")
    np.testing.assert_array_equal(labels.read(labels.extent), make_phantom((64, 64, 64)).labels)
