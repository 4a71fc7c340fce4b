"""A miniature of EMPIAR-13356, human liver: `data/` with a TIFF and a few PNG masks for each section.

    built = build_liver(folder, shape=(4, 90, 110), first=7)
    built.raw, built.masks["er"]

writes, under `folder`, which stands for `https://ftp.ebi.ac.uk/empiar/world_availability/13356/data`,

    humanliver_raw_images/humanliver_raw_007.tif      uint16, LZW with predictor 2, one strip a row
    humanliver_er_mask/humanliver_er_mask_007.png     8 bits, 0 and 255; mito and nucleus likewise

as torch-em's loader (torch_em/data/datasets/electron_microscopy/human_liver_em.py at 6f71247c) describes the published
ones: 597 sections of 20000 x 20000 pixels, about 880 MB each, empty outside x 1195..18890, y 469..19570. What else the
files hold is not known, such as whether the directory of a TIFF is before or behind its strips: `FORMS` has both, and
others that a reader of TIFF may meet.

As a program, `python -m tests.replica.ebi FOLDER --slices 16` writes sections of the true size for benchmarks: a few
different ones, hard-linked to all numbers.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import functools
import json
import os
import pathlib
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from tests.replica.stored import Array

FULL_SHAPE = (597, 20000, 20000)
CLASSES = ("er", "mito", "nucleus")
"""The masks whose folders are known."""
RAW_FOLDER = "humanliver_raw_images"


def raw_path(z: int) -> str:
    """The image of section `z`."""
    return f"{RAW_FOLDER}/humanliver_raw_{z:03d}.tif"


def mask_path(name: str, z: int) -> str:
    """A mask of section `z`."""
    return f"humanliver_{name}_mask/humanliver_{name}_mask_{z:03d}.png"


@dataclasses.dataclass(frozen=True)
class TiffForm:
    """How a TIFF is laid out."""

    compression: str | None = "lzw"
    """tifffile's name of it."""
    predictor: bool = True
    """Horizontal differencing."""
    rows_per_strip: int = 1
    tile: tuple[int, int] | None = None
    """Height and width, multiples of 16; None for strips."""
    bigtiff: bool = False
    big_endian: bool = False
    directory_last: bool = False
    """Behind the strips, as libtiff writes it; only for LZW in strips."""


PUBLISHED = TiffForm()
FORMS: Mapping[str, TiffForm] = {
    "published": PUBLISHED,
    "directory-last": TiffForm(directory_last=True),
    "no-predictor": TiffForm(predictor=False),
    "uncompressed": TiffForm(compression=None, predictor=False),
    "deflate": TiffForm(compression="zlib"),
    "zstd": TiffForm(compression="zstd"),
    "thick-strips": TiffForm(rows_per_strip=13),
    "one-strip": TiffForm(rows_per_strip=2**31),
    "tiles": TiffForm(tile=(32, 48)),
    "bigtiff": TiffForm(bigtiff=True),
    "big-endian": TiffForm(big_endian=True),
}


@dataclasses.dataclass(frozen=True)
class Liver:
    """What was put into a stack of sections."""

    first: int
    """The number of the first section."""
    raw: Array
    """`(z, y, x) uint16`."""
    masks: Mapping[str, Array]
    """By class: `(z, y, x) uint8`, 0 and 255."""


def build_liver(
    folder: str | os.PathLike[str],
    shape: tuple[int, int, int] = (4, 90, 110),
    *,
    first: int = 0,
    seed: int = 0,
    form: TiffForm = PUBLISHED,
) -> Liver:
    """Write made-up sections `first`, `first + 1`, ... under `folder` and return what is in them."""
    count, rows, columns = shape
    sections = [Section(rows, columns, seed, first + index) for index in range(count)]
    raw = np.stack([np.concatenate(list(section.raw())) for section in sections])
    masks = {name: np.stack([np.concatenate(list(section.mask(name))) for section in sections]) for name in CLASSES}
    return write_liver(folder, raw, masks, first=first, form=form)


def write_liver(
    folder: str | os.PathLike[str],
    raw: Array,
    masks: Mapping[str, Array],
    *,
    first: int = 0,
    form: TiffForm = PUBLISHED,
) -> Liver:
    """Write sections of arrays `(z, y, x)` under `folder`: uint16, and uint8 for masks, stored as they are."""
    root = pathlib.Path(folder)
    for index, picture in enumerate(raw):
        _write_tiff(_parent_made(root / raw_path(first + index)), picture, form)
    for name, mask in masks.items():
        for index, picture in enumerate(mask):
            _write_png(_parent_made(root / mask_path(name, first + index)), picture.shape, [picture])
    return Liver(first, raw, dict(masks))


def build_true_size(
    folder: str | os.PathLike[str],
    slices: int = 16,
    *,
    rows: int = FULL_SHAPE[1],
    columns: int = FULL_SHAPE[2],
    distinct: int = 2,
    first: int = 0,
    seed: int = 0,
) -> None:
    """Write sections of the true size, band by band; beyond the first `distinct`, each is a link to one of them."""
    root = pathlib.Path(folder)
    for z in range(first, first + min(distinct, slices)):
        section = Section(rows, columns, seed, z)
        _write_strips(_parent_made(root / raw_path(z)), section)
        for name in CLASSES:
            _write_png(_parent_made(root / mask_path(name, z)), (rows, columns), section.mask(name))
    for index in range(distinct, slices):
        for path_of in _paths():
            target = root / path_of(first + index)
            target.unlink(missing_ok=True)
            os.link(root / path_of(first + index % distinct), target)


def _paths() -> list[Callable[[int], str]]:
    return [raw_path, *(lambda z, name=name: mask_path(name, z) for name in CLASSES)]


def _parent_made(path: pathlib.Path) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


# --- contents

BAND = 256
"""Rows that are made at once; the result depends on it, not on who asks."""


@dataclasses.dataclass(frozen=True)
class Section:
    """A made-up section of any size, in bands of rows from the top.

    Smooth fields give the structures: er is where a fine one changes sign, mito and nucleus where coarser ones are
    high. Noise makes the image nearly incompressible, as the published sections are.
    """

    rows: int
    columns: int
    seed: int
    z: int

    def raw(self) -> Iterator[Array]:
        """The image, `(BAND, columns) uint16` at a time."""
        shade = self._field("shade")
        for index, (y0, y1) in enumerate(self._bands()):
            er, mito, nucleus = (self._inside(name, y0, y1) for name in CLASSES)
            rng = np.random.default_rng([self.seed, self.z, _stream("noise"), index])
            noise = rng.standard_normal(er.shape, np.float32)
            level = shade.band(y0, y1, self.columns)
            level *= 1500
            level += 30000 + 2300 * noise - 2500 * er - 6000 * mito + 4000 * nucleus
            yield np.where(self._tissue(y0, y1), np.clip(level, 1, 65535), 0).astype(np.uint16)

    def mask(self, name: str) -> Iterator[Array]:
        """A mask, `(BAND, columns) uint8` at a time."""
        for y0, y1 in self._bands():
            yield np.where(self._tissue(y0, y1) & self._inside(name, y0, y1), 255, 0).astype(np.uint8)

    def _bands(self) -> Iterator[tuple[int, int]]:
        for y0 in range(0, self.rows, BAND):
            yield y0, min(self.rows, y0 + BAND)

    def _tissue(self, y0: int, y1: int) -> Array:
        """Whether there is tissue: in the published box, or its like in a smaller picture."""
        y, x = np.arange(y0, y1)[:, None], np.arange(self.columns)
        inside = [
            (at >= round(start * length / full)) & (at < round(stop * length / full))
            for at, length, full, (start, stop) in zip(
                (y, x), (self.rows, self.columns), FULL_SHAPE[1:], TISSUE_YX, strict=True
            )
        ]
        return inside[0] & inside[1]

    def _inside(self, name: str, y0: int, y1: int) -> Array:
        values = self._field(name).band(y0, y1, self.columns)
        return np.abs(values) < 0.1 if name == "er" else values > THRESHOLDS[name]

    def _field(self, name: str) -> _Field:
        cell = min(CELLS[name], max(4, self.columns // 5))
        return _random_field(self.rows // cell + 2, self.columns // cell + 2, cell, (self.seed, self.z, _stream(name)))


TISSUE_YX = ((469, 19570), (1195, 18890))
CELLS = {"er": 14, "mito": 30, "nucleus": 900, "shade": 333}
"""Pixels from one random value of a smooth field to the next."""
THRESHOLDS = {"mito": 1.0, "nucleus": 0.9}


def _stream(name: str) -> int:
    """Each kind of random values has a stream of its own."""
    return [*CELLS, "noise"].index(name)


@dataclasses.dataclass(frozen=True)
class _Field:
    """Random values on a coarse grid, and straight lines between them."""

    grid: Array
    cell: int

    def band(self, y0: int, y1: int, columns: int) -> Array:
        """The field `float32` in rows `[y0, y1)`."""
        y = np.arange(y0, y1)
        index, part = y // self.cell, (y % self.cell / self.cell).astype(np.float32)[:, None]
        lines = self.grid[index] * (1 - part) + self.grid[index + 1] * part
        part = (np.arange(self.cell) / self.cell).astype(np.float32)
        out = lines[:, :-1, None] * (1 - part) + lines[:, 1:, None] * part
        return out.reshape(len(y), -1)[:, :columns]


@functools.lru_cache(maxsize=8)
def _random_field(rows: int, columns: int, cell: int, stream: tuple[int, ...]) -> _Field:
    return _Field(np.random.default_rng(stream).standard_normal((rows, columns), np.float32), cell)


# --- writing


def _write_tiff(path: pathlib.Path, picture: Array, form: TiffForm) -> None:
    if form.directory_last:
        tags = {278: form.rows_per_strip, 317: 2 if form.predictor else 1}
        Image.fromarray(picture).save(path, format="TIFF", compression="tiff_lzw", tiffinfo=tags)
        return
    tifffile.imwrite(
        path,
        picture,
        compression=form.compression,
        predictor=2 if form.predictor else None,
        rowsperstrip=None if form.tile else min(form.rows_per_strip, len(picture)),
        tile=form.tile,
        bigtiff=form.bigtiff,
        byteorder=">" if form.big_endian else "<",
        photometric="minisblack",
        metadata=None,
    )


def _write_strips(path: pathlib.Path, section: Section) -> None:
    """The published form, without holding the picture."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:

        def strips() -> Iterator[bytes]:
            for band in section.raw():
                steps = np.diff(band, axis=1, prepend=np.uint16(0))
                yield from map(bytes, pool.map(imagecodecs.lzw_encode, [row.tobytes() for row in steps]))

        tifffile.imwrite(
            path,
            strips(),
            shape=(section.rows, section.columns),
            dtype=np.uint16,
            compression="lzw",
            predictor=2,
            rowsperstrip=1,
            byteorder="<",
            photometric="minisblack",
            metadata=None,
        )


def _write_png(path: pathlib.Path, shape: Sequence[int], bands: Iterator[Array] | Sequence[Array]) -> None:
    """A grey PNG of 8 bits, of which only a band is held; each row is stored as what changed from the one above."""
    rows, columns = shape
    coder = zlib.compressobj(6)
    above = np.zeros((1, columns), np.uint8)
    with path.open("wb") as stream:
        stream.write(b"\x89PNG\r\n\x1a\n")
        _write_png_chunk(stream.write, b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0))
        for band in bands:
            changes = np.diff(band, axis=0, prepend=above)
            above = band[-1:]
            filtered = np.insert(changes, 0, 2, axis=1)  # each row begins with the number of its filter
            _write_png_chunk(stream.write, b"IDAT", coder.compress(filtered.tobytes()))
        _write_png_chunk(stream.write, b"IDAT", coder.flush())
        _write_png_chunk(stream.write, b"IEND", b"")


def _write_png_chunk(write: Callable[[bytes], object], name: bytes, data: bytes) -> None:
    write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))


# --- the program


def main() -> None:
    """Write sections of the true size and say where they are and what they took."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder")
    parser.add_argument("--slices", type=int, default=16)
    parser.add_argument("--rows", type=int, default=FULL_SHAPE[1])
    parser.add_argument("--columns", type=int, default=FULL_SHAPE[2])
    parser.add_argument("--distinct", type=int, default=2, help="different sections; the others are links to them")
    parser.add_argument("--first", type=int, default=0, help="number of the first section")
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args())
    begun = time.perf_counter()
    build_true_size(**options)
    seconds = round(time.perf_counter() - begun, 1)
    paths = [path_of(options["first"]) for path_of in _paths()]
    sizes = {path: (pathlib.Path(options["folder"]) / path).stat().st_size for path in paths}
    sys.stdout.write(json.dumps({**options, "seconds": seconds, "bytes": sizes}) + "\n")


if __name__ == "__main__":
    main()
