"""One TIFF slice by byte ranges: what is decoded, what is asked for, and what garbage is called."""

from __future__ import annotations

import io
import pickle
import random
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from emcatalog.errors import OutOfBoundsError, SourceCorruptError, SourceUnavailableError
from emcatalog.formats.tiff import TiffHeader, read_block, read_header

WHAT = "https://host/slice_003.tif"
SHAPE = (70, 45)


class Remote:
    """Bytes as a server would give them, and what was asked for."""

    def __init__(self, stored: bytes) -> None:
        self.stored = stored
        self.asked: list[tuple[int, int]] = []

    def __call__(self, start: int, stop: int) -> bytes:
        self.asked.append((start, stop))
        return self.stored[start:stop]

    def header(self) -> TiffHeader:
        header = read_header(self, WHAT)
        self.asked.clear()
        return header


def make(dtype: str = "uint16", shape: tuple[int, int] = SHAPE) -> NDArray[Any]:
    noise = np.random.default_rng(0).normal(0, 40, shape).cumsum(axis=1)
    return noise.astype(dtype) if dtype.startswith("f") else noise.astype("int64").astype(dtype)


def write(voxels: NDArray[Any], **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, voxels, **({"photometric": "minisblack"} | options))
    return file.getvalue()


def write_by_libtiff(voxels: NDArray[Any], compression: str, **tags: int) -> bytes:
    """Strips first, then the directory; of 4 rows."""
    file = io.BytesIO()
    tiffinfo = {278: 4} | ({317: tags["predictor"]} if tags else {})
    Image.fromarray(voxels).save(file, "TIFF", compression=compression, tiffinfo=tiffinfo)
    return file.getvalue()


def reverse_bits(stored: bytes) -> bytes:
    """Say so, that is; tifffile does not write the tag, so that another stands in for it."""
    return stored.replace(struct.pack("<HH", 65001, 3), struct.pack("<HH", 266, 3))


def read_whole(stored: bytes) -> NDArray[Any]:
    header = read_header(Remote(stored), WHAT)
    return read_block(header, Remote(stored), (0, header.shape[0]), (0, header.shape[1]), WHAT)


LAYOUTS: list[dict[str, Any]] = [
    {"rowsperstrip": 1},
    {"rowsperstrip": 7},
    {"rowsperstrip": 32},  # the last strip is shorter
    {},  # one strip
    {"tile": (16, 32)},
    {"tile": (16, 64)},  # one tile is wider than the picture
]


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("predictor", [1, 2])
@pytest.mark.parametrize("compression", ["lzw", "zlib", "zstd", "lzma"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_compressed_voxels_are_read(compression: str, predictor: int, byteorder: str, layout: dict[str, Any]) -> None:
    for dtype in ("uint8", "uint16", "uint32", "int8", "int16", "int32"):
        voxels = make(dtype)
        stored = write(voxels, compression=compression, predictor=predictor, byteorder=byteorder, **layout)
        decoded = read_whole(stored)
        np.testing.assert_array_equal(decoded, voxels)
        assert decoded.dtype == np.dtype(dtype)
        assert decoded.dtype.isnative


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", ["lzw", "zlib", "zstd"])
@pytest.mark.parametrize("predictor", [1, 3])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_floats_are_read(compression: str, predictor: int, byteorder: str, layout: dict[str, Any]) -> None:
    for dtype in ("float16", "float32", "float64"):
        stored = write(make(dtype), compression=compression, predictor=predictor, byteorder=byteorder, **layout)
        np.testing.assert_array_equal(read_whole(stored), make(dtype))


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "packbits"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_voxels_that_are_barely_compressed_are_read(
    compression: str | None, byteorder: str, bigtiff: bool, layout: dict[str, Any]
) -> None:
    for dtype in ("uint8", "uint16", "float32", "uint64"):
        stored = write(make(dtype), compression=compression, byteorder=byteorder, bigtiff=bigtiff, **layout)
        np.testing.assert_array_equal(read_whole(stored), make(dtype))


@pytest.mark.parametrize("compression", ["raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "zstd", "lzma"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_what_libtiff_wrote_is_read(compression: str, dtype: str) -> None:
    np.testing.assert_array_equal(read_whole(write_by_libtiff(make(dtype), compression)), make(dtype))


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "zstd", "lzma"])
@pytest.mark.parametrize(("dtype", "predictor"), [("uint8", 2), ("uint16", 2), ("float32", 2), ("float32", 3)])
def test_predictors_mean_what_they_mean_to_libtiff(compression: str, dtype: str, predictor: int) -> None:
    """Nothing, where voxels are not compressed."""
    stored = write_by_libtiff(make(dtype), compression, predictor=predictor)
    np.testing.assert_array_equal(read_whole(stored), make(dtype))


@pytest.mark.parametrize("columns", [1, 2, 3, 4])
def test_a_narrow_picture_is_not_taken_for_colours(columns: int) -> None:
    voxels = make("uint8", (9, columns))
    np.testing.assert_array_equal(read_whole(write(voxels, compression="lzw", rowsperstrip=1)), voxels)


def test_only_the_first_page_is_read() -> None:
    pages = np.stack([make(), make() + 1, make() + 2])
    np.testing.assert_array_equal(read_whole(write(pages, compression="lzw", rowsperstrip=1)), pages[0])


@given(data=st.data())
@pytest.mark.parametrize("options", [{"rowsperstrip": 7}, {"tile": (16, 32)}, {"compression": "lzw", "predictor": 2}])
def test_any_block_is_cut_exactly(options: dict[str, Any], data: st.DataObject) -> None:
    begin, end = (
        tuple(sorted(data.draw(st.tuples(st.integers(0, size), st.integers(0, size)), label="span"))) for size in SHAPE
    )
    (top, bottom), (left, right) = begin, end
    remote = Remote(write(make(), **options))
    block = read_block(remote.header(), remote, (top, bottom), (left, right), WHAT)
    np.testing.assert_array_equal(block, make()[top:bottom, left:right])


@pytest.mark.parametrize(
    ("rows", "columns"), [((-1, 3), (0, 5)), ((0, 71), (0, 5)), ((0, 3), (5, 4)), ((0, 3), (0, 46))]
)
def test_a_block_outside_the_picture_is_refused(rows: tuple[int, int], columns: tuple[int, int]) -> None:
    remote = Remote(write(make()))
    with pytest.raises(OutOfBoundsError, match=r"slice_003\.tif: rows .* of a picture of shape \(70, 45\)"):
        read_block(remote.header(), remote, rows, columns, WHAT)


@pytest.mark.parametrize(
    ("options", "encoding"),
    [
        ({"compression": "lzw", "predictor": 2, "rowsperstrip": 1}, "tiff lzw, predictor 2, strips of 1 row"),
        ({"compression": "zlib", "tile": (16, 32)}, "tiff zlib, tiles of 16 x 32"),
        ({"compression": "zstd", "rowsperstrip": 7}, "tiff zstd, strips of 7 rows"),
        ({}, "tiff uncompressed, strips of 1 row"),
    ],
)
def test_the_encoding_is_named(options: dict[str, Any], encoding: str) -> None:
    assert read_header(Remote(write(make(), **options)), WHAT).encoding == encoding


# What is asked for


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_a_header_of_twenty_thousand_strips_takes_two_requests(bigtiff: bool, byteorder: str) -> None:
    voxels = np.zeros((20000, 4), "uint16")
    remote = Remote(write(voxels, compression="lzw", rowsperstrip=1, bigtiff=bigtiff, byteorder=byteorder))
    header = read_header(remote, WHAT)
    assert header.shape == voxels.shape
    assert len(remote.asked) == 2
    assert sum(stop - start for start, stop in remote.asked) < 500_000
    assert len(pickle.dumps(header)) < 200_000


def test_a_header_at_the_end_of_the_file_takes_two_requests() -> None:
    noise = np.random.default_rng(0).integers(0, 60000, (20000, 40)).astype("uint16")
    remote = Remote(write_by_libtiff(noise, "tiff_lzw"))
    assert read_header(remote, WHAT).segment == (4, 40)
    (_, first), (second, _) = remote.asked
    assert first == 2**16
    assert second > 1_000_000


def test_a_block_takes_one_request_of_its_strips() -> None:
    remote = Remote(write(make(), compression="lzw", predictor=2, rowsperstrip=1))
    header = remote.header()
    read_block(header, remote, (10, 20), (5, 9), WHAT)
    assert remote.asked == [(int(header.offsets[10]), int(header.offsets[19]) + int(header.bytecounts[19]))]


def test_of_one_uncompressed_strip_only_the_rows_are_read() -> None:
    remote = Remote(write(make()))
    header = remote.header()
    assert header.segment == (1, 45)
    read_block(header, remote, (10, 20), (5, 9), WHAT)
    assert [stop - start for start, stop in remote.asked] == [10 * 45 * 2]


def test_of_tiles_only_those_that_overlap_are_read() -> None:
    voxels = np.random.default_rng(0).integers(0, 65535, (512, 1024)).astype("uint16")
    remote = Remote(write(voxels, tile=(256, 256)))
    block = read_block(remote.header(), remote, (200, 300), (300, 400), WHAT)
    np.testing.assert_array_equal(block, voxels[200:300, 300:400])
    assert [stop - start for start, stop in remote.asked] == [256 * 256 * 2] * 2  # three tiles lie between them


def test_small_gaps_are_read_over_and_large_requests_are_split() -> None:
    voxels = np.random.default_rng(0).integers(0, 255, (40, 2**20)).astype("uint8")
    remote = Remote(write(voxels, rowsperstrip=1))
    header = remote.header()
    read_block(header, remote, (0, 40), (0, 1), WHAT)
    assert [stop - start for start, stop in remote.asked] == [2**24, 2**24, 2**23]

    tiles = Remote(write(voxels[:, :4096], tile=(16, 64)))  # of 1 KiB; 64 of them make a row
    read_block(tiles.header(), tiles, (0, 32), (0, 64), WHAT)
    assert len(tiles.asked) == 1


def test_the_end_of_the_file_is_not_looked_for() -> None:
    remote = Remote(write(np.zeros((2000, 100), "uint16")))
    read_header(remote, WHAT)
    assert remote.asked == [(0, 2**16)]


# What can be relied on


def test_a_header_can_be_pickled_and_is_small_as_text() -> None:
    remote = Remote(write(make(), compression="lzw", predictor=2, rowsperstrip=1))
    header = pickle.loads(pickle.dumps(remote.header()))
    np.testing.assert_array_equal(read_block(header, remote, (3, 9), (0, 45), WHAT), make()[3:9])
    assert len(repr(header)) < 200


def test_threads_read_blocks_of_one_header() -> None:
    voxels = make(shape=(400, 300))
    remote = Remote(write(voxels, compression="lzw", predictor=2, rowsperstrip=1))
    header = remote.header()
    tops = random.Random(0).choices(range(380), k=60)
    with ThreadPoolExecutor(8) as pool:
        blocks = list(pool.map(lambda top: read_block(header, remote, (top, top + 20), (0, 300), WHAT), tops))
    assert all(np.array_equal(block, voxels[top : top + 20]) for top, block in zip(tops, blocks, strict=True))


def test_strips_that_were_left_out_are_zeros() -> None:
    """As GDAL writes sparse files: 0 bytes at byte 0."""
    for options in ({"compression": "lzw", "rowsperstrip": 7}, {"rowsperstrip": 7}, {"tile": (16, 32)}):
        stored, expected = bytearray(write(make(), **options)), make()
        for tag in ("StripOffsets", "TileOffsets", "StripByteCounts", "TileByteCounts"):
            with tifffile.TiffFile(io.BytesIO(stored)) as file:
                if tag in file.pages.first.tags:
                    field = file.pages.first.tags[tag]
                    size = {3: 2, 4: 4}[int(field.dtype)]
                    stored[field.valueoffset + size : field.valueoffset + 2 * size] = bytes(size)
        if "tile" in options:
            expected[:16, 32:] = 0
        else:
            expected[7:14] = 0
        np.testing.assert_array_equal(read_whole(bytes(stored)), expected)


def test_a_last_strip_that_is_stored_as_long_as_the_others_is_cut() -> None:
    for compression in ("zlib", "lzw", "zstd", "packbits", None):
        longer = make(shape=(72, 45))  # of 9 strips of 8 rows
        stored = bytearray(write(longer, compression=compression, rowsperstrip=8))
        with tifffile.TiffFile(io.BytesIO(stored)) as file:
            field = file.pages.first.tags["ImageLength"]
        stored[field.offset + 8 : field.offset + 10] = (70).to_bytes(2, "little")
        np.testing.assert_array_equal(read_whole(bytes(stored)), longer[:70])


def test_errors_of_reading_pass_through() -> None:
    stored = write(make(), compression="lzw", rowsperstrip=1)
    header = read_header(Remote(stored), WHAT)
    failure = SourceUnavailableError("the server is asleep")

    def fail(start: int, stop: int) -> bytes:
        raise failure

    with pytest.raises(SourceUnavailableError) as raised:
        read_block(header, fail, (0, 5), (0, 5), WHAT)
    assert raised.value is failure
    with pytest.raises(SourceUnavailableError) as raised:
        read_header(fail, WHAT)
    assert raised.value is failure


@pytest.mark.parametrize("bigtiff", [False, True])
def test_an_error_in_the_middle_of_a_header_passes_through(bigtiff: bool) -> None:
    """tifffile would take it for a tag that is wrong, and go on without it."""
    remote = Remote(write(np.zeros((20000, 4), "uint16"), compression="lzw", rowsperstrip=1, bigtiff=bigtiff))

    def fail_later(start: int, stop: int) -> bytes:
        if remote.asked:
            raise OSError("the line is dead")
        return remote(start, stop)

    with pytest.raises(OSError, match=r"^the line is dead$"):
        read_header(fail_later, WHAT)


# What garbage is called


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (b"<!DOCTYPE html><title>404</title>" * 9, "not a TIFF that can be read: not a TIFF file"),
        (b"", "not a TIFF that can be read: .*the file ends at byte 0"),
        (b"II*\0", "not a TIFF that can be read: .*the file ends at byte 4"),
        (write(make())[:40], "not a TIFF that can be read: .*the file ends at byte 40"),
    ],
)
def test_what_is_not_a_tiff_is_named(stored: bytes, message: str) -> None:
    with pytest.raises(SourceCorruptError, match=rf"^https://host/slice_003\.tif: {message}"):
        read_header(Remote(stored), WHAT)


def test_a_header_that_is_cut_off_in_its_tables_is_named() -> None:
    stored = write(np.zeros((20000, 4), "uint16"), compression="lzw", rowsperstrip=1)
    with pytest.raises(SourceCorruptError, match=r"slice_003\.tif: .* \(the header is cut off: .* byte 70000\)"):
        read_header(Remote(stored[:70000]), WHAT)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (write(np.zeros((20, 20, 3), "uint8"), photometric="rgb"), "3 samples a pixel"),
        (write(np.zeros((20, 20), bool)), "samples of 1 bits"),
        (write(np.zeros((20, 20), "complex64")), "samples of 64 bits"),
        (write(np.zeros((32, 32), "uint8"), compression="jpeg"), "the compression <COMPRESSION.JPEG: 7>; what is read"),
        (
            write(make("uint64"), compression="zlib", predictor=3),
            "the predictor <PREDICTOR.FLOATINGPOINT: 3> of uint64",
        ),
        (write_by_libtiff(make(), "packbits", predictor=2), "packbits and a predictor"),
        (reverse_bits(write(make("uint8"), extratags=[(65001, 3, 1, 2, True)])), "bytes whose bits are in reverse"),
    ],
)
def test_kinds_of_tiff_that_are_not_read_are_named(stored: bytes, message: str) -> None:
    with pytest.raises(SourceCorruptError, match=rf"^https://host/slice_003\.tif: a TIFF with {message}"):
        read_header(Remote(stored), WHAT)


def test_a_file_that_ends_too_early_is_named_with_the_rows() -> None:
    remote = Remote(write(make(), compression="lzw", rowsperstrip=7))
    header = remote.header()
    middle = int(header.offsets[5]) + 10
    remote.stored = remote.stored[:middle]
    np.testing.assert_array_equal(read_block(header, remote, (0, 35), (0, 45), WHAT), make()[:35])
    match = rf"^https://host/slice_003\.tif: the file ends at byte {middle}, before the strip or tile of rows 35:42"
    with pytest.raises(SourceCorruptError, match=match):
        read_block(header, remote, (0, 70), (0, 45), WHAT)
    with pytest.raises(SourceCorruptError, match="rows 63:70"):
        read_block(header, remote, (69, 70), (0, 45), WHAT)


@pytest.mark.parametrize("compression", ["lzw", "zlib", "zstd", "packbits", "lzma"])
@pytest.mark.parametrize("layout", [{"rowsperstrip": 7}, {"tile": (16, 32)}])
def test_a_strip_that_does_not_decode_is_named_with_its_rows(compression: str, layout: dict[str, Any]) -> None:
    remote = Remote(write(make(), compression=compression, **layout))
    header = remote.header()
    start, size = int(header.offsets[3]), int(header.bytecounts[3])
    remote.stored = remote.stored[:start] + (b"<html>" * size)[:size] + remote.stored[start + size :]
    rows = "21:28" if "rowsperstrip" in layout else "16:32"
    name = rf"^https://host/slice_003\.tif: the strip or tile of rows {rows}, columns \d+:\d+ \(bytes {start} to"
    with pytest.raises(SourceCorruptError, match=rf"{name} .* does not decode as {compression}"):
        read_block(header, remote, (0, 70), (0, 45), WHAT)


def test_a_strip_that_decodes_to_too_few_voxels_is_named() -> None:
    for compression in ("lzw", "zlib", "zstd", "packbits"):
        narrow = Remote(write(make(shape=(70, 40)), compression=compression, rowsperstrip=1))
        stored = bytearray(narrow.stored)
        with tifffile.TiffFile(io.BytesIO(stored)) as file:
            field = file.pages.first.tags["ImageWidth"]
        stored[field.offset + 8 : field.offset + 10] = (45).to_bytes(2, "little")
        with pytest.raises(SourceCorruptError, match=f"rows 0:1, .* does not decode as {compression}"):
            read_whole(bytes(stored))


def test_an_lzw_code_beyond_the_table_is_an_error() -> None:
    """One decoder reads where it points to, and takes the process with it."""
    codes = [256, 400, 258, 259, 257]
    bits = "".join(f"{code:09b}" for code in codes)
    strip = int(bits.ljust(48, "0"), 2).to_bytes(6, "big")
    remote = Remote(write(np.zeros((1, 4), "uint8"), compression="lzw"))
    header = remote.header()
    object.__setattr__(header, "bytecounts", np.array([len(strip)], "uint8"))
    remote.stored = remote.stored[: int(header.offsets[0])] + strip
    with pytest.raises(SourceCorruptError, match="does not decode as lzw"):
        read_block(header, remote, (0, 1), (0, 4), WHAT)


def test_a_strip_table_of_garbage_is_not_followed() -> None:
    stored = write(make(), compression="lzw")
    with tifffile.TiffFile(io.BytesIO(stored)) as file:
        at = file.pages.first.tags["StripByteCounts"].valueoffset
    garbage = stored[:at] + struct.pack("<I", 2**31) + stored[at + 4 :]
    with pytest.raises(SourceCorruptError, match=r"strip or tile .* of 2147483648 bytes"):
        read_header(Remote(garbage), WHAT)


@pytest.mark.parametrize(
    "stored",
    [
        write(make(shape=(40, 30)), compression="lzw", predictor=2, rowsperstrip=1),
        write(make(shape=(40, 30))),
        write(make(shape=(40, 30)), compression="zlib", tile=(16, 16)),
        write(make(shape=(40, 30)), bigtiff=True, byteorder=">", rowsperstrip=8),
    ],
)
def test_headers_with_wrong_bytes_are_read_or_refused(stored: bytes) -> None:
    chance, messages = random.Random(0), []
    for _ in range(300):
        wrong = bytearray(stored)
        for _ in range(chance.choice((1, 1, 2, 3))):
            wrong[chance.randrange(min(600, len(wrong)))] = chance.choice((0, 1, 255, chance.randrange(256)))
        remote = Remote(bytes(wrong))
        try:
            header = read_header(remote, WHAT)
            read_block(header, remote, (0, min(8, header.shape[0])), (0, min(30, header.shape[1])), WHAT)
        except SourceCorruptError as error:
            messages.append(str(error))
        assert all(stop - start <= 2**27 for start, stop in remote.asked)
    assert 30 < len(messages) < 270
    assert all(message.startswith(WHAT) for message in messages)
