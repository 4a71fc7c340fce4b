"""One PNG slice in bands of rows: the same values as other decoders, in any order, in little memory."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from emcatalog.errors import OutOfBoundsError, SourceCorruptError, SourceUnavailableError
from emcatalog.formats.png import PngReader

WHAT = "https://host/mask_003.png"
SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY_PALETTE = bytes(value for index in range(256) for value in (255 - index,) * 3)
KINDS = [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (3, 1), (3, 2), (3, 4), (3, 8), (4, 8), (4, 16)]
KINDS += [(6, 8), (6, 16)]
"""(colour type, depth), all there are."""


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def assemble(header: tuple[int, ...], inflated: bytes, *between: bytes, piece: int = 300) -> bytes:
    """A PNG of columns, rows, depth, colour type, interlacing; the rows in pieces as libpng stores them."""
    columns, rows, depth, colour, interlacing = header
    deflated = zlib.compress(inflated)
    pieces = [chunk(b"IDAT", deflated[at : at + piece]) for at in range(0, len(deflated), piece)]
    first = chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, depth, colour, 0, 0, interlacing))
    return SIGNATURE + first + b"".join(between) + b"".join(pieces) + chunk(b"IEND", b"")


def pack(samples: NDArray[np.uint16], depth: int) -> NDArray[np.uint8]:
    """Rows of bytes from rows of samples."""
    if depth == 16:
        return samples.astype(">u2").view(np.uint8).reshape(len(samples), -1)
    bits = np.unpackbits(samples.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
    return np.packbits(bits.reshape(len(samples), -1), axis=1)


def apply_filters(packed: NDArray[np.uint8], pixel: int, filters: list[int]) -> bytes:
    """The five of https://www.w3.org/TR/png-3/#9Filters, as it describes them."""
    stored = b""
    above = np.zeros(packed.shape[1] + pixel, int)
    for row, kind in zip(packed, filters, strict=True):
        current = np.concatenate([np.zeros(pixel, int), row])
        left, up, corner = current[:-pixel], above[pixel:], above[:-pixel]
        guess = left + up - corner
        near = np.argmin([abs(guess - left), abs(guess - up), abs(guess - corner)], axis=0)
        paeth = np.choose(near, [left, up, corner])
        predicted = [np.zeros_like(left), left, up, (left + up) // 2, paeth][kind]
        stored += bytes([kind]) + ((row - predicted) % 256).astype(np.uint8).tobytes()
        above = current
    return stored


def make_grey(depth: int, shape: tuple[int, int], seed: int = 0) -> NDArray[np.uint16]:
    """Blobs and noise, in samples of so many bits."""
    noise = np.random.default_rng(seed).integers(0, 2**depth, shape)
    blobs = np.kron(noise[::8, ::8], np.ones((8, 8), int))[: shape[0], : shape[1]]
    return np.where(noise % 3 == 0, noise, blobs).astype(np.uint16)


def make(colour: int, depth: int, filters: list[int], columns: int = 37) -> tuple[bytes, NDArray[Any]]:
    """A PNG whose rows have these filters, and the grey values that it holds."""
    grey = make_grey(depth, (len(filters), columns))
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    interleaved = np.repeat(grey, samples, axis=1).reshape(len(filters), columns, samples)
    if samples in (2, 4):
        interleaved[..., -1] = make_grey(depth, grey.shape, seed=1)
    packed = pack(interleaved.reshape(len(filters), -1), depth)
    inflated = apply_filters(packed, max(1, samples * depth // 8), filters)
    palette = chunk(b"PLTE", GREY_PALETTE[: 3 * 2**depth]) if colour == 3 else b""
    expected = 255 - grey if colour == 3 else grey * 255 // (2**depth - 1) if depth < 8 else grey
    header = (columns, len(filters), depth, colour, 0)
    return assemble(header, inflated, palette), expected.astype("uint16" if depth == 16 else "uint8")


def make_interlaced(colour: int, depth: int) -> tuple[bytes, NDArray[Any]]:
    """Seven small pictures, of every so many rows and columns: https://www.w3.org/TR/png-3/#8InterlaceMethods."""
    grey = make_grey(depth, (21, 19))
    passes = [(0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1)]
    samples = {0: 1, 2: 3, 3: 1, 4: 2}[colour]
    inflated = b""
    for row, rows, column, columns in passes:
        part = np.repeat(grey[row::rows, column::columns], samples, axis=1)
        packed = pack(part, depth)
        inflated += apply_filters(packed, max(1, samples * depth // 8), [1] * len(packed))
    palette = chunk(b"PLTE", GREY_PALETTE[: 3 * 2**depth]) if colour == 3 else b""
    expected = 255 - grey if colour == 3 else grey * 255 // (2**depth - 1) if depth < 8 else grey
    stored = assemble((19, 21, depth, colour, 1), inflated, palette)
    return stored, expected.astype("uint16" if depth == 16 else "uint8")


def reader(stored: bytes) -> PngReader:
    return PngReader(lambda start, stop: stored[start:stop], WHAT)


def save(picture: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", **options)
    return file.getvalue()


# The same values as others read


@pytest.mark.parametrize(("colour", "depth"), KINDS)
@pytest.mark.parametrize("kind", [0, 1, 2, 3, 4, "each in turn"])
def test_every_kind_with_every_filter_is_read(colour: int, depth: int, kind: int | str) -> None:
    filters = [row % 5 if isinstance(kind, str) else kind for row in range(29)]
    stored, expected = make(colour, depth, filters)
    png = reader(stored)
    assert png.shape == expected.shape
    assert png.dtype == expected.dtype.name
    np.testing.assert_array_equal(png.rows(0, 29), expected)
    for step in (1, 7):
        for top in range(0, 29, step):
            band = png.rows(top, min(top + step, 29))
            np.testing.assert_array_equal(band, expected[top : top + step])
            assert band.dtype == expected.dtype


@pytest.mark.parametrize(("colour", "depth"), KINDS)
def test_the_hand_made_pictures_are_what_libpng_reads(colour: int, depth: int) -> None:
    """Or the test above would say nothing."""
    stored, expected = make(colour, depth, [row % 5 for row in range(29)])
    decoded = imagecodecs.png_decode(stored)
    np.testing.assert_array_equal(decoded if decoded.ndim == 2 else decoded[..., 0], expected)


@pytest.mark.parametrize("columns", [1, 2, 3, 7, 8, 9, 64, 1000])
@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_rows_of_any_length_are_read(columns: int, depth: int) -> None:
    stored, expected = make(0, depth, [4, 3, 2, 1, 0, 4], columns)
    np.testing.assert_array_equal(reader(stored).rows(0, 6), expected)


@pytest.mark.parametrize("mode", ["L", "1", "I;16", "LA", "RGB", "RGBA", "P"])
def test_what_pillow_wrote_is_read(mode: str) -> None:
    grey = make_grey(8, (130, 90)).astype(np.uint8)
    picture = Image.fromarray(grey if mode != "I;16" else grey.astype(np.uint16) * 257)
    if mode == "P":
        picture.putpalette(GREY_PALETTE)
        expected = np.asarray(picture.convert("L"))
    else:
        picture = picture if mode == "I;16" else picture.convert(mode)
        expected = np.asarray(picture.convert("L") if mode != "I;16" else picture)
    np.testing.assert_array_equal(reader(save(picture)).rows(0, 130), expected)


@pytest.mark.parametrize("kind", list(imagecodecs.PNG.FILTER))
def test_what_libpng_wrote_with_each_of_its_filters_is_read(kind: int) -> None:
    for grey in (make_grey(8, (130, 90)).astype(np.uint8), make_grey(16, (130, 90))):
        stored = imagecodecs.png_encode(grey, filter=kind)
        np.testing.assert_array_equal(reader(stored).rows(0, 130), grey)


@pytest.mark.parametrize(
    ("colour", "depth"), [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (3, 8), (4, 8)]
)
def test_an_interlaced_picture_is_read(colour: int, depth: int) -> None:
    stored, expected = make_interlaced(colour, depth)
    png = reader(stored)
    np.testing.assert_array_equal(png.rows(5, 9), expected[5:9])
    png.rows(0, 21)[:] = 77  # what a caller got is its own
    np.testing.assert_array_equal(png.rows(0, 21), expected)


def test_what_is_transparent_keeps_its_grey() -> None:
    stored, expected = make(0, 8, [1] * 9)
    at = stored.index(b"IDAT") - 4
    np.testing.assert_array_equal(reader(stored[:at] + chunk(b"tRNS", b"\0\3") + stored[at:]).rows(0, 9), expected)


# In any order


def make_tall() -> tuple[bytes, NDArray[Any]]:
    """Rows enough that some are remembered on the way."""
    return make(0, 8, [(row * row) % 5 for row in range(1100)], 11)


TALL = make_tall()


@given(spans=st.lists(st.tuples(st.integers(0, 1100), st.integers(0, 1100)).map(sorted), min_size=1, max_size=8))
def test_bands_are_read_in_any_order(spans: list[list[int]]) -> None:
    stored, expected = TALL
    png = reader(stored)
    for begin, end in spans:
        np.testing.assert_array_equal(png.rows(begin, end), expected[begin:end])


def test_threads_read_bands_of_one_reader() -> None:
    stored, expected = TALL
    png = reader(stored)
    tops = random.Random(0).choices(range(1080), k=50)
    with ThreadPoolExecutor(8) as pool:
        bands = list(pool.map(lambda top: png.rows(top, top + 20), tops))
    assert all(np.array_equal(band, expected[top : top + 20]) for top, band in zip(tops, bands, strict=True))


def test_reading_on_reads_each_byte_once() -> None:
    stored = save(Image.fromarray(np.random.default_rng(0).integers(0, 256, (2000, 2500), dtype=np.uint8)))
    asked: list[tuple[int, int]] = []

    def read(start: int, stop: int) -> bytes:
        asked.append((start, stop))
        return stored[start:stop]

    png = PngReader(read, WHAT)
    assert sum(stop - start for start, stop in asked) <= 2**20
    for top in range(0, 2000, 50):
        png.rows(top, top + 50)
    assert len(asked) <= 2 * len(stored) // 2**20
    assert len(stored) <= sum(stop - start for start, stop in asked) < 1.5 * len(stored)


@pytest.mark.parametrize(("begin", "end"), [(-1, 3), (0, 1101), (5, 4)])
def test_rows_outside_the_picture_are_refused(begin: int, end: int) -> None:
    with pytest.raises(OutOfBoundsError, match=rf"mask_003\.png: rows {begin}:{end} of a picture of 1100 rows"):
        reader(TALL[0]).rows(begin, end)


# In little memory


@pytest.mark.parametrize("piece", [8192, 2**30], ids=["many chunks", "one chunk"])
@pytest.mark.parametrize("kind", ["mask", "noise"])
def test_memory_does_not_grow_with_the_picture(kind: str, piece: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4000, 4000), dtype=np.uint8)
    voxels = noise if kind == "noise" else np.kron(noise[:100, :100] // 128 * 255, np.ones((40, 40), np.uint8))
    inflated = np.concatenate([np.zeros((4000, 1), np.uint8), voxels], axis=1).tobytes()
    png = reader(assemble((4000, 4000, 8, 0, 0), inflated, piece=piece))
    del inflated, noise
    tracemalloc.start()
    try:
        for top in (*range(0, 4000, 64), 100, 2000):
            band = png.rows(top, min(top + 64, 4000))
            np.testing.assert_array_equal(band, voxels[top : top + 64])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 2**20  # 16 MB are in the picture


# What garbage is called


def test_errors_of_reading_pass_through_and_are_forgotten() -> None:
    large = np.random.default_rng(0).integers(0, 256, (2000, 2000), dtype=np.uint8)
    stored = save(Image.fromarray(large))
    failure = SourceUnavailableError("the disk is asleep")
    awake = True

    def read(start: int, stop: int) -> bytes:
        if not awake:
            raise failure
        return stored[start:stop]

    png = PngReader(read, WHAT)
    png.rows(0, 10)
    awake = False
    with pytest.raises(SourceUnavailableError) as raised:
        png.rows(1500, 1600)
    assert raised.value is failure
    with pytest.raises(SourceUnavailableError) as raised:
        PngReader(read, WHAT)
    assert raised.value is failure
    awake = True
    np.testing.assert_array_equal(png.rows(1500, 1600), large[1500:1600])


def head(columns: int, rows: int, depth: int = 8, colour: int = 0, interlacing: int = 0) -> bytes:
    return assemble((columns, rows, depth, colour, interlacing), bytes(200))


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (b"<!DOCTYPE html><title>404</title>" * 9, "not a PNG: it begins with b'<!DOCTYP'"),
        (b"", "the file is cut off: it ends before byte 8"),
        (head(9, 9)[:20], "the file is cut off: it ends before byte 29"),
        (head(9, 9)[:33], "the file is cut off: it ends before byte 41"),
        (SIGNATURE + chunk(b"IDAT", b""), "a PNG that does not begin with its header"),
        (SIGNATURE + chunk(b"IHDR", b"too short"), "a PNG that does not begin with its header"),
        (head(9, 9)[:33] + chunk(b"IEND", b""), "a PNG without rows"),
        (head(9, 9)[:33] + b"<html>" * 9, "byte 33 should begin a chunk, and holds b'l><h'"),
        (head(0, 9), "a PNG of 9 rows, 0 columns"),
        (head(9, 2**31 - 1), "a PNG of 2147483647 rows, 9 columns"),
        (head(9, 9, depth=3), "a PNG whose header is wrong: depth 3, colour type 0"),
        (head(9, 9, colour=5), "a PNG whose header is wrong: depth 8, colour type 5"),
        (head(9, 9, interlacing=2), "a PNG whose header is wrong: .* 2$"),
        (head(9, 9, colour=3), "a PNG without its palette"),
        (assemble((9, 9, 8, 3, 0), b"", chunk(b"PLTE", b"1234")), "a PNG whose palette has 4 bytes"),
        (assemble((9, 9, 8, 3, 0), b"", chunk(b"PLTE", b"red")), "holds palette indices"),
        (head(9, 9).replace(b"IHDR\0\0\0\x09", b"IHDR\0\0\0\x08"), "the chunk IHDR at byte 16 fails its checksum"),
    ],
)
def test_what_is_not_a_png_that_is_read_is_named(stored: bytes, message: str) -> None:
    with pytest.raises(SourceCorruptError, match=rf"^https://host/mask_003\.png: {message}"):
        reader(stored)


def test_a_picture_that_is_cut_off_is_read_as_far_as_it_goes() -> None:
    stored, expected = TALL
    png = reader(stored[: len(stored) // 2])
    np.testing.assert_array_equal(png.rows(0, 400), expected[:400])
    with pytest.raises(SourceCorruptError, match=r"mask_003\.png: the file is cut off: it ends before byte \d+"):
        png.rows(400, 1100)
    np.testing.assert_array_equal(png.rows(300, 400), expected[300:400])


@pytest.mark.parametrize("piece", [300, 2**30], ids=["many chunks", "one chunk"])
def test_no_byte_is_used_whose_checksum_is_wrong(piece: int) -> None:
    stored = assemble((300, 300, 8, 0, 0), bytes(300 * 301), piece=piece)
    at = stored.index(b"IDAT") + 100
    wrong = stored[:at] + bytes([stored[at] ^ 1]) + stored[at + 1 :]
    with pytest.raises(SourceCorruptError, match=r"mask_003\.png: the chunk IDAT at byte \d+ fails its checksum"):
        reader(wrong).rows(0, 1)


def test_a_picture_with_too_few_rows_is_named() -> None:
    png = reader(assemble((9, 9, 8, 0, 0), bytes(10 * 8)))
    assert not png.rows(0, 8).any()
    with pytest.raises(SourceCorruptError, match=r"mask_003\.png: inflates to too few bytes"):
        png.rows(8, 9)


def test_what_does_not_inflate_is_named() -> None:
    stored = head(9, 9)[:33] + chunk(b"IDAT", b"<html>" * 9) + chunk(b"IEND", b"")
    with pytest.raises(SourceCorruptError, match=r"mask_003\.png: does not inflate"):
        reader(stored).rows(0, 1)


def test_a_filter_that_does_not_exist_is_named_with_its_row() -> None:
    inflated = bytearray(10 * 9)
    inflated[70] = 9
    png = reader(assemble((9, 9, 8, 0, 0), bytes(inflated)))
    with pytest.raises(SourceCorruptError, match=r"mask_003\.png: row 7 has the filter 9, of 0 to 4"):
        png.rows(0, 9)


@pytest.mark.parametrize(("colour", "depth"), [(2, 8), (6, 8), (2, 16)])
def test_colours_are_refused_where_they_are(colour: int, depth: int) -> None:
    samples = {2: 3, 6: 4}[colour]
    interleaved = np.full((9, 5, samples), 7, np.uint16)
    interleaved[6, 2, 1] = 8
    packed = pack(interleaved.reshape(9, -1), depth)
    png = reader(assemble((5, 9, depth, colour, 0), apply_filters(packed, samples * depth // 8, [0] * 9)))
    assert (png.rows(0, 6) == 7).all()
    with pytest.raises(SourceCorruptError, match=r"mask_003\.png: is a colour picture"):
        png.rows(6, 7)
    assert (png.rows(7, 9) == 7).all()


def test_an_index_beyond_the_palette_is_refused() -> None:
    png = reader(assemble((3, 1, 8, 3, 0), b"\0\1\2\3", chunk(b"PLTE", GREY_PALETTE[:9])))
    with pytest.raises(SourceCorruptError, match=r"mask_003\.png: an index 3 into 3 colours"):
        png.rows(0, 1)


def test_an_interlaced_picture_of_garbage_is_refused() -> None:
    stored, _ = make_interlaced(0, 8)
    with pytest.raises(SourceCorruptError, match=r"mask_003\.png: does not decode"):
        reader(stored[:-30]).rows(0, 1)
    with pytest.raises(
        SourceCorruptError, match=r"mask_003\.png: \d+ bytes cannot hold a picture of \(1000000, 999999\)"
    ):
        reader(assemble((999_999, 1_000_000, 8, 0, 1), bytes(99))).rows(0, 1)


def test_pictures_with_wrong_bytes_are_read_or_refused() -> None:
    chance, refused = random.Random(0), 0
    for colour, depth in KINDS:
        stored, _ = make(colour, depth, [row % 5 for row in range(9)])
        for _ in range(40):
            wrong = bytearray(stored)
            wrong[chance.randrange(len(wrong))] ^= 1 << chance.randrange(8)
            try:
                png = reader(bytes(wrong[: chance.choice((None, chance.randrange(len(wrong))))]))
                png.rows(0, png.shape[0])
            except SourceCorruptError:
                refused += 1
    assert refused > 20 * len(KINDS)  # the other bits stand behind the rows
