"""How a copy of a table is stored: a folder of Parquet files, each sorted, and three small files about them.

    part-00000.parquet ...  rows in the order of the copy, and the number of each in the source
    _index.arrow            what each row group holds, so that a query opens only what it needs
    _schema.arrow           the source's schema and its dictionaries: Parquet forgets the order of categories
    _source.json            what it was made from, and checksums of the other two

Any Parquet tool opens the folder as one table, since files that begin with ``_`` are left out by all of them. Nothing
is read unchecked: the small files and the footers by checksums of ours, pages by those of Parquet.
"""

from __future__ import annotations

import errno
import io
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import ipc

from emcatalog.errors import CacheCorruptError, CacheError
from emcatalog.tables.categories import Columns
from emcatalog.tables.query import Bounds

FORM: Final = 1
"""Counts the changes of what is stored."""
ROW: Final = "emcatalog_row"
"""The column that a copy has beside those of its source: the number of the row."""
GROUP_ROWS: Final = 1 << 13
"""Rows of a row group, which is what a query reads at least. A box of 20 million points took 3.2 ms, and 3.4 with twice
as many; with fewer, the footer that describes the groups takes longer to read than they do."""

_INDEX: Final = "_index.arrow"
_SCHEMA: Final = "_schema.arrow"
_SOURCE: Final = "_source.json"


@dataclass(frozen=True, slots=True)
class Part:
    """One Parquet file, as it was when it was written."""

    path: Path
    """Where it lies."""
    nbytes: int
    """Its size."""
    crc: int
    """Of all of it."""
    footer: int
    """Bytes of its footer, with the eight behind it."""
    footer_crc: int
    """Of these."""

    def read(self, groups: Sequence[int], columns: Sequence[str], *, threads: bool) -> pa.RecordBatch:
        """Some row groups, as they are stored.

        Raises:
            CacheCorruptError: it is missing or damaged.
        """
        with self._open() as file:
            rows = file.read_row_groups(groups, columns=columns, use_threads=threads)
        (batch,) = rows.combine_chunks().to_batches()
        return batch

    def stored_bytes(self, columns: Set[str]) -> int:
        """Bytes that some columns take in it.

        Raises:
            CacheCorruptError: it is missing or damaged.
        """
        with self._open() as file:
            groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        chunks = [group.column(number) for group in groups for number in range(group.num_columns)]
        # A column of lists is stored as `name.list.element`.
        names = [{chunk.path_in_schema, chunk.path_in_schema.partition(".")[0]} for chunk in chunks]
        return sum(chunk.total_compressed_size for chunk, name in zip(chunks, names, strict=True) if name & columns)

    def check(self) -> None:
        """Read all of it.

        Raises:
            CacheCorruptError: it is missing or damaged.
        """
        with reading(self.path):
            nbytes, crc = checksum(self.path)
            _require(nbytes == self.nbytes, f"it has {nbytes} bytes and was written with {self.nbytes}")
            _require(crc == self.crc, "its bytes are not those that were written")

    @contextmanager
    def _open(self) -> Iterator[pq.ParquetFile]:
        with reading(self.path):
            with self.path.open("rb") as file:
                file.seek(self.nbytes - self.footer)
                footer = file.read(self.footer + 1)
            _require(len(footer) == self.footer, f"it does not end after {self.nbytes} bytes, as it was written")
            _require(zlib.crc32(footer) == self.footer_crc, "its footer is not what was written")
            # Neither threads for a few groups nor a plan of what to read ahead pay on a disk: both cost 0.4 ms.
            with pq.ParquetFile(self.path, page_checksum_verification=True, pre_buffer=False) as parquet:
                yield parquet


@dataclass(frozen=True, slots=True)
class Index:
    """What each row group holds."""

    arrays: Mapping[str, NDArray[Any]]
    """Columns of ``_index.arrow``."""

    @property
    def rows(self) -> int:
        """Of all row groups."""
        return int(self.arrays["rows"].sum())

    @property
    def parts(self) -> int:
        """Parquet files with rows in them."""
        part = self.arrays["part"]
        return int(part[-1]) + 1 if len(part) else 0

    def rows_of(self, part: int) -> int:
        """Of the row groups of one part."""
        return int(self.arrays["rows"][self.arrays["part"] == part].sum())

    def part(self, folder: Path, number: int) -> Part:
        """One of the Parquet files."""
        first = int(np.searchsorted(self.arrays["part"], number))
        about = (int(self.arrays[name][first]) for name in ("nbytes", "crc", "footer", "footer_crc"))
        return Part(folder / part_name(number), *about)

    def overlapping(self, bounds: Bounds) -> dict[int, list[int]]:
        """Row groups that may hold rows in all of these intervals, by their part."""
        chosen = np.ones(len(self.arrays["part"]), bool)
        for name, (low, high) in bounds.items():
            if f"{name}.min" in self.arrays:
                # A group without numbers has NaN there, which is in no interval.
                chosen &= _between(self.arrays[f"{name}.max"], low, None) & _between(
                    self.arrays[f"{name}.min"], None, high
                )
        groups: dict[int, list[int]] = {}
        for part, group in zip(self.arrays["part"][chosen], self.arrays["group"][chosen], strict=True):
            groups.setdefault(int(part), []).append(int(group))
        return groups


def _between(values: NDArray[Any], low: float | None, high: float | None) -> NDArray[np.bool_]:
    """Which lie in a closed interval; rounding, of large integers, never leaves one out that does."""
    inside = np.ones(len(values), bool)
    if low is not None:
        inside &= values >= low
    if high is not None:
        inside &= values <= high
    return inside


def checksum(path: Path) -> tuple[int, int]:
    """Bytes of a file, and their CRC."""
    crc = nbytes = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            crc, nbytes = zlib.crc32(block, crc), nbytes + len(block)
    return nbytes, crc


def read_footer(path: Path) -> bytes:
    """What a Parquet file ends with: its metadata, their length, and the magic.

    Source: https://parquet.apache.org/docs/file-format/.
    """
    with path.open("rb") as file:
        file.seek(-8, io.SEEK_END)
        length = int.from_bytes(file.read(4), "little")
        file.seek(-8 - length, io.SEEK_END)
        return file.read()


def is_copy(folder: Path) -> bool:
    """Whether a folder is a copy, whole or damaged, or empty."""
    return folder.is_dir() and ((folder / _SOURCE).is_file() or not any(folder.iterdir()))


def part_name(number: int) -> str:
    """Name of one of the Parquet files."""
    return f"part-{number:05}.parquet"


@dataclass(frozen=True, slots=True)
class Documents:
    """What the three small files say."""

    columns: Columns
    """From ``_schema.arrow``."""
    index: Index
    """From ``_index.arrow``."""
    source: Mapping[str, Any]
    """What the copy was made from."""


def write_documents(folder: Path, columns: Columns, index: pa.RecordBatch, source: Mapping[str, Any]) -> None:
    """Write the three small files."""
    streams = {_SCHEMA: _stream(columns.no_rows), _INDEX: _stream(index)}
    for name, content in streams.items():
        (folder / name).write_bytes(content)
    crcs = {name: zlib.crc32(content) for name, content in streams.items()}
    rows = pc.sum(index.column("rows"), min_count=0).as_py()
    document = {"form": FORM, "rows": rows, "crc32": crcs, "source": dict(source)}
    (folder / _SOURCE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _stream(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def read_documents(folder: Path) -> Documents:
    """Read the three small files.

    Raises:
        CacheCorruptError: the folder is no copy of a table, or one of them is damaged.
    """
    with reading(folder / _SOURCE):
        said = json.loads((folder / _SOURCE).read_bytes())
        _require(isinstance(said, dict) and "form" in said, "it is no description of a copy of a table")
        _require(said["form"] == FORM, f"it was written in form {said['form']}, and this emcatalog reads form {FORM}")
        rows, crcs, source = said["rows"], said["crc32"], said["source"]
    with reading(folder / _SCHEMA):
        columns = Columns(_read_batch(folder / _SCHEMA, crcs[_SCHEMA]))
    with reading(folder / _INDEX):
        groups = _read_batch(folder / _INDEX, crcs[_INDEX])
        index = Index({name: groups.column(name).to_numpy(zero_copy_only=False) for name in groups.schema.names})
        _require(index.rows == rows, f"it speaks of {index.rows} rows, and there are {rows}")
    return Documents(columns, index, source)


def _read_batch(path: Path, crc: int) -> pa.RecordBatch:
    content = path.read_bytes()
    _require(zlib.crc32(content) == crc, "its bytes are not those that were written")
    return ipc.open_stream(content).read_next_batch()


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever a library below says of the bytes of a copy is that they are damaged.

    Raises:
        CacheCorruptError: they are, or are missing.
        CacheError: the system does not let them be read.
    """
    try:
        yield
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError) as error:
        if isinstance(error, OSError) and error.errno not in _DAMAGED:
            raise CacheError(f"{path} cannot be read: {error.strerror}") from error
        raise CacheCorruptError(
            f"{path} is missing or damaged: {error}; remove {path.parent} and fetch the table again"
        ) from error


_DAMAGED: Final = (None, errno.ENOENT, errno.ENOTDIR, errno.EIO, errno.EINVAL)
"""What a missing or damaged file ends in; pyarrow's errors about bytes have no number."""
