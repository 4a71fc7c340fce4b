"""What goes wrong with a stack of slices: an error that names the slice, or a right result; nothing bad is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from emcatalog.errors import (
    EmcatalogError,
    SlowSourceWarning,
    SourceCorruptError,
    SourceMissingError,
    SourceUnavailableError,
)
from emcatalog.formats import slice_files
from tests.conftest import BBox, ServeAs, python
from tests.replica.ebi import Liver, build_liver, mask_path, raw_path
from tests.replica.wire import Server
from tests.test_liver import DATA, asked, assert_exact

ROWS, COLUMNS = 1100, 60
"""Several blocks that are read as one, of a TIFF and of a PNG."""
BOX: BBox = (10, 60, 0, ROWS, 0, 5)
BAD = 2
"""The slice that something is wrong with."""
UNCONFIRMED = ("bile_duct", "cell_boundary", "cholangiocyte", "endothelial", "hepatocyte", "sinusoid")
HTML = b"<!DOCTYPE html><html><body>Service unavailable, please try again later</body></html>" + b" " * 1000

READ_EACH = """
import sys, json, intake, emcatalog
for bbox in json.loads(sys.argv[1]):
    intake.open_catalog(emcatalog.CATALOG).human_liver(bbox=bbox, channels=["raw"]).read()
"""


@dataclass
class Stack:
    """Slices on a server, which a test damages."""

    server: Server
    folder: Path
    liver: Liver

    def path(self, channel: str, z: int = BAD) -> Path:
        return self.folder / (raw_path(z) if channel == "raw" else mask_path(channel, z))

    def whole(self, channel: str, z: int) -> int:
        """How often a slice was sent whole."""
        name = self.path(channel, z).name
        return sum(record.path.endswith(name) and record.status == 200 for record in self.server.requests)


@pytest.fixture(autouse=True)
def no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMCATALOG_RETRIES", "0")


@pytest.fixture
def stack(tmp_path: Path, serve_as: ServeAs) -> Stack:
    folder = tmp_path / "slices"
    liver = build_liver(folder, (5, ROWS, COLUMNS))
    return Stack(serve_as(DATA, folder), folder, liver)


def assert_fails_and_recovers(
    stack: Stack, catalog: Any, channel: str, kind: type[EmcatalogError], spoil: Callable[[Path], object]
) -> EmcatalogError:
    """A damaged slice is an error that names it; once it is as it was, the same box is right."""
    path = stack.path(channel)
    good = path.read_bytes()
    spoil(path)
    for _ in range(2):
        with pytest.raises(kind) as caught:
            catalog.human_liver(bbox=BOX, channels=[channel]).read()
        assert type(caught.value) is kind
        assert path.name in str(caught.value)
    path.with_suffix(".new").write_bytes(good)
    path.with_suffix(".new").replace(path)  # whole, whoever reads at this moment
    stack.server.heal()
    assert_exact(catalog.human_liver(bbox=BOX, channels=[channel]).read(), stack.liver, BOX)
    return caught.value


class TestDamagedSlices:
    """Files that are not what they should be."""

    @pytest.mark.parametrize("channel", ["raw", "er"])
    def test_missing_in_the_middle(self, stack: Stack, catalog: Any, channel: str) -> None:
        before = (*BOX[:4], 0, BAD)
        catalog.human_liver(bbox=before, channels=[channel]).fetch()
        error = assert_fails_and_recovers(stack, catalog, channel, SourceMissingError, Path.unlink)
        assert isinstance(error, FileNotFoundError)

    def test_nothing_more_is_asked_for_after_an_error(self, stack: Stack, catalog: Any) -> None:
        stack.path("raw").unlink()
        cutout = catalog.human_liver(bbox=(*BOX[:4], 0, BAD + 1), channels=["raw"])._cutout()
        volume = cutout._open.volume("raw", cutout.channels["raw"])
        with pytest.raises(SourceMissingError):
            cutout.fetch()
        with pytest.raises(ValueError, match="CANCELLED"):
            volume.lenient[BAD + 1].read().result()
        assert not asked(stack.server, raw_path(BAD + 1))

    def test_slices_before_a_missing_one_are_kept(self, tmp_path: Path, serve_as: ServeAs, catalog: Any) -> None:
        """Those of the shards before; of these, one has up to 256 slices."""
        liver = build_liver(tmp_path / "slices", (300, 8, 12))
        (tmp_path / "slices" / raw_path(280)).unlink()
        server = serve_as(DATA, tmp_path / "slices")
        with pytest.raises(SourceMissingError, match=r"humanliver_raw_280\.tif"):
            catalog.human_liver(bbox=(0, 12, 0, 8, 0, 300), channels=["raw"]).fetch()
        before = catalog.human_liver(bbox=(0, 12, 0, 8, 0, 256), channels=["raw"], offline=True)
        assert before.plan().missing == 0
        assert_exact(before.read(), liver, (0, 12, 0, 8, 0, 256))
        assert server.count("*_280.tif") == 1

    @pytest.mark.parametrize("channel", ["raw", "er"])
    def test_answers_that_break_off(self, stack: Stack, catalog: Any, channel: str) -> None:
        name = stack.path(channel).name
        error = assert_fails_and_recovers(
            stack,
            catalog,
            channel,
            SourceUnavailableError,
            lambda _: stack.server.truncate(f"*/{name}"),
        )
        assert "ask again later" in str(error)

    @pytest.mark.parametrize("keep", [0.6, 0.02, 0])
    @pytest.mark.parametrize("channel", ["raw", "er"])
    def test_files_that_are_cut_off(self, stack: Stack, catalog: Any, channel: str, keep: float) -> None:
        def cut(path: Path) -> None:
            content = path.read_bytes()
            path.write_bytes(content[: int(len(content) * keep)])

        assert_fails_and_recovers(stack, catalog, channel, SourceCorruptError, cut)

    @pytest.mark.parametrize("channel", ["raw", "er"])
    def test_a_page_of_html_in_the_place_of_a_slice(self, stack: Stack, catalog: Any, channel: str) -> None:
        error = assert_fails_and_recovers(
            stack, catalog, channel, SourceCorruptError, lambda path: path.write_bytes(HTML)
        )
        assert "<!D" in str(error)

    def test_a_page_of_html_is_not_downloaded_over_and_over(self, stack: Stack, catalog: Any) -> None:
        stack.path("er").write_bytes(HTML)
        with pytest.raises(SourceCorruptError):
            catalog.human_liver(bbox=BOX, channels=["er"]).read()
        assert stack.whole("er", BAD) < 9, "not by each block of rows: by those in flight when the first one fails"

    @pytest.mark.parametrize("channel", ["raw", "er"])
    def test_a_byte_that_flipped(self, stack: Stack, catalog: Any, channel: str) -> None:
        """PNG has checksums. TIFF has none: there the file is cut in the middle of what LZW needs."""

        def flip(path: Path) -> None:
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 0xFF
            if channel == "raw":
                with tifffile.TiffFile(path) as tiff:
                    start = tiff.pages.first.dataoffsets[100]
                content[start : start + 40] = bytes(40)
            path.write_bytes(content)

        assert_fails_and_recovers(stack, catalog, channel, SourceCorruptError, flip)

    @pytest.mark.parametrize("channel", ["raw", "er"])
    def test_a_slice_of_another_size(self, stack: Stack, catalog: Any, tmp_path: Path, channel: str) -> None:
        other = tmp_path / "other"
        build_liver(other, (1, ROWS - 1, COLUMNS), first=BAD)
        there = other / stack.path(channel).relative_to(stack.folder)
        error = assert_fails_and_recovers(
            stack, catalog, channel, SourceCorruptError, lambda path: path.write_bytes(there.read_bytes())
        )
        assert "1099 rows, 60 columns" in str(error)
        assert "1100, 60 of" in str(error)

    def test_a_slice_of_another_dtype(self, stack: Stack, catalog: Any) -> None:
        narrow = (stack.liver.raw[BAD] // 256).astype(np.uint8)
        error = assert_fails_and_recovers(
            stack, catalog, "raw", SourceCorruptError, lambda path: tifffile.imwrite(path, narrow)
        )
        assert "of uint8; the first slice of the stack has 1100, 60 of uint16" in str(error)

    def test_a_colour_picture(self, stack: Stack, catalog: Any) -> None:
        colours = np.zeros((ROWS, COLUMNS, 3), np.uint16)
        error = assert_fails_and_recovers(
            stack, catalog, "raw", SourceCorruptError, lambda path: tifffile.imwrite(path, colours, photometric="rgb")
        )
        assert "3 samples a pixel" in str(error)

    def test_the_first_slice_missing(self, stack: Stack, catalog: Any) -> None:
        stack.path("raw", 0).unlink()
        with pytest.raises(SourceMissingError, match=r"humanliver_raw_000\.tif"):
            catalog.human_liver(bbox=(0, 10, 0, 10, 1, 2)).plan()


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n", HTML], ids=["empty", "cut off", "html"])
def test_a_kept_file_that_was_damaged_is_downloaded_again(
    stack: Stack, catalog: Any, tmp_path: Path, content: bytes
) -> None:
    catalog.human_liver(bbox=(0, 10, 0, 10, BAD, BAD + 1), channels=["er"]).fetch()
    (kept,) = (tmp_path / "cache").rglob(stack.path("er").name)
    assert kept.read_bytes() == stack.path("er").read_bytes()
    kept.write_bytes(content)
    with suppress(SourceCorruptError):  # it may be found out here, and is right the next time
        catalog.human_liver(bbox=BOX, channels=["er"]).read()
    assert_exact(catalog.human_liver(bbox=BOX, channels=["er"]).read(), stack.liver, BOX)


class TestWithoutRanges:
    """A server that sends whole files only: it works, slower, and is said once."""

    FIRST: BBox = (10, 30, 5, 20, 1, 3)
    SECOND: BBox = (20, 40, 590, 600, 1, 3)
    """Other rows of the same slices."""

    @pytest.fixture(params=[40, 100], ids=["shorter than a header", "longer than a header"])
    def slow(
        self, request: pytest.FixtureRequest, tmp_path: Path, serve_as: ServeAs, monkeypatch: pytest.MonkeyPatch
    ) -> Stack:
        """A TIFF's header is looked for in the first 64 kB: of a shorter file, a whole answer is no surprise."""
        monkeypatch.setattr(slice_files, "_told", set())  # it is said once in a process
        liver = build_liver(tmp_path / "slow", (4, 600, request.param))
        server = serve_as(DATA, tmp_path / "slow")
        server.without_ranges = True
        return Stack(server, tmp_path / "slow", liver)

    def test_voxels_are_exact_and_a_warning_says_why_it_takes_long(self, slow: Stack, catalog: Any) -> None:
        with pytest.warns(SlowSourceWarning, match="sends whole files only"):
            dataset = catalog.human_liver(bbox=self.FIRST).read()
        assert_exact(dataset, slow.liver, self.FIRST)

    def test_said_once(self, slow: Stack) -> None:
        boxes = json.dumps([self.FIRST, self.SECOND, (0, 5, 0, 5, 0, 4)])
        said = python(f"import sys; sys.stderr = sys.stdout\n{READ_EACH}", boxes)
        assert said.count("SlowSourceWarning: ") == 1

    @pytest.mark.filterwarnings("ignore::emcatalog.errors.SlowSourceWarning")
    def test_a_slice_is_downloaded_once(self, slow: Stack, catalog: Any) -> None:
        catalog.human_liver(bbox=self.FIRST, channels=["raw", "er"]).fetch()
        assert [slow.whole("er", z) for z in (1, 2)] == [1, 1]
        # Of the image the answers to ranges may have been whole files, too: two for its header, and one for a block.
        assert all(slow.whole("raw", z) <= 4 for z in (1, 2))

    @pytest.mark.filterwarnings("ignore::emcatalog.errors.SlowSourceWarning")
    def test_a_second_box_in_the_same_slices_downloads_nothing(self, slow: Stack, catalog: Any) -> None:
        """But for the header of a first slice that is as short as one, and so was read as a range."""
        catalog.human_liver(bbox=self.FIRST, channels=["raw", "er"]).fetch()
        slow.server.clear()
        source = catalog.human_liver(bbox=self.SECOND, channels=["raw", "er"])
        assert source.plan().missing == 2 * 2
        assert_exact(source.read(), slow.liver, self.SECOND)
        assert set(slow.server.counts()) <= {f"/{raw_path(0)}", f"/{mask_path('er', 0)}"}


class TestUnconfirmed:
    """Masks whose address no public source tells."""

    @pytest.mark.parametrize("channel", UNCONFIRMED)
    def test_its_error_says_so(self, stack: Stack, catalog: Any, channel: str) -> None:
        source = catalog.human_liver(bbox=BOX, channels=[channel])
        for ask in (source.plan, source.fetch, source.read, source.to_dask):
            with pytest.raises(SourceMissingError, match=rf"{channel}_mask.*is not confirmed: the class is named"):
                ask()
        assert asked(stack.server, mask_path(channel, 0))

    def test_their_description_says_so(self, catalog: Any) -> None:
        source = catalog.human_liver(channels=["raw", *UNCONFIRMED])
        assert source.channels["raw"].unconfirmed is None
        for channel in UNCONFIRMED:
            assert "no public source says where its masks lie" in source.channels[channel].unconfirmed
        of_channels = dict(line.split(maxsplit=1) for line in repr(source).splitlines()[1:])
        doubted = [name for name, text in of_channels.items() if "not confirmed" in text.lower()]
        assert doubted == list(UNCONFIRMED)
        assert source._repr_html_().lower().count("not confirmed") >= len(UNCONFIRMED)

    def test_it_is_not_read_unasked(self, catalog: Any) -> None:
        assert list(catalog.human_liver().channels) == ["raw", "er", "mito", "nucleus"]

    def test_it_works_where_the_guess_was_right(self, stack: Stack, catalog: Any) -> None:
        for z in range(5):
            there = stack.folder / mask_path("sinusoid", z)
            there.parent.mkdir(exist_ok=True)
            there.write_bytes(stack.path("er", z).read_bytes())
        dataset = catalog.human_liver(bbox=BOX, channels=["er", "sinusoid"]).read()
        np.testing.assert_array_equal(dataset["sinusoid"].values, dataset["er"].values)


def test_without_the_readers_of_images(stack: Stack) -> None:
    """As after `pip install emcatalog`: the error says what to install, and is one of ours."""
    script = """
import sys
sys.modules["imagecodecs"] = None  # as if it were not installed
import emcatalog
try:
    emcatalog.catalog.human_liver(bbox=(0, 10, 0, 10, 0, 1)).plan()
except emcatalog.EmcatalogError as error:
    print(type(error).__name__, error)
"""
    said = python(script)
    assert said.startswith("MissingExtraError tiff://")
    assert "pip install 'emcatalog[stacks]'" in said
