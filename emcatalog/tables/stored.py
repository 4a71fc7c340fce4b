"""What every stored form of a table gives, and how the wanted rows of one of its parts are read."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from emcatalog.errors import EmcatalogError, SourceCorruptError, listing
from emcatalog.tables.query import EVERYTHING, Where


class StoredTable(Protocol):
    """A table whose description was read. Can be read by several threads."""

    @property
    def schema(self) -> pa.Schema:
        """Of all columns, with what pandas wrote about its index."""

    @property
    def parts(self) -> int:
        """How many parts can be read apart."""

    def count_rows(self) -> int:
        """How many rows there are.

        Raises:
            SourceError: what says so cannot be read.
        """

    def stored_bytes(self, columns: Sequence[str]) -> int:
        """About how many bytes some columns take.

        Raises:
            SourceError: what says so cannot be read.
        """

    def scan(
        self, columns: Sequence[str], where: Where = EVERYTHING, parts: Sequence[int] | None = None
    ) -> Generator[pa.RecordBatch | None, None, None]:
        """The wanted rows of each part in turn; None for one that has none.

        Args:
            columns: to give, in this order.
            where: which rows.
            parts: their numbers; default: all.

        Raises:
            SourceError, CacheError: it cannot be read.
        """


def take_wanted(
    read: Callable[[Sequence[str]], pa.RecordBatch], columns: Sequence[str], where: Where
) -> pa.RecordBatch | None:
    """The wanted rows of one part of a table: what is not asked about is read only where there are some.

    Args:
        read: gives some columns of the part.
        columns: to give, in this order.
        where: which rows.

    Returns:
        None where there are none.
    """
    if not where.columns:
        return read(columns)
    asked = read(where.columns)
    mask = where.mask(asked)
    if not mask.true_count:
        return None
    rest = [name for name in columns if name not in where.columns]
    parts = [asked, read(rest)] if rest else [asked]
    found = {name: column for part in parts for name, column in zip(part.schema.names, part.columns, strict=True)}
    if mask.true_count < asked.num_rows:
        found = {name: _chosen(found[name], mask) for name in columns}
    return pa.RecordBatch.from_arrays([found[name] for name in columns], names=list(columns))


def _chosen(column: pa.Array, mask: pa.BooleanArray) -> pa.Array:
    try:
        return column.filter(mask)
    except pa.ArrowNotImplementedError:  # of views of text and run-ends, which pyarrow 26 can only cut and join
        return pa.concat_arrays([column.slice(row, 1) for row in pc.indices_nonzero(mask).to_pylist()])


def check_schema(schema: pa.Schema) -> None:
    """Refuse a table of which no frame could be made.

    Raises:
        ValueError: two columns have one name, or what pandas wrote about its index is broken.
    """
    twice = {name for name in schema.names if schema.names.count(name) > 1}
    if twice:
        raise ValueError(f"it has several columns named {listing(sorted(twice))}")
    if b"pandas" in (schema.metadata or {}):
        try:
            schema.empty_table().to_pandas()
        except Exception as error:
            raise ValueError(f"what pandas wrote about its index is not understood ({error!r})") from error


@contextmanager
def decoding(what: str, part: str) -> Iterator[None]:
    """Turn what pyarrow says of broken bytes into our error; errors of the network are ours already."""
    try:
        yield
    except EmcatalogError:
        raise
    except (pa.ArrowException, ValueError, OSError) as error:
        said = " ".join(str(error).split())  # on one line
        raise SourceCorruptError(f"{what}: {part} does not decode: {said}; tell the data's owner") from error
