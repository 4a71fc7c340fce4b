"""Where the parts of an Arrow IPC file lie: its record batches, and in each of them the buffers of every column.

pyarrow reads such files, and can read some of their columns alone; it does not say where they lie, which is what has to
be known to ask a server for them in few requests. Format: https://arrow.apache.org/docs/format/Columnar.html (IPC file
format), File.fbs and Message.fbs in https://github.com/apache/arrow/tree/main/format.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from flatbuffers import number_types
from flatbuffers.table import Table

MAGIC: Final = b"ARROW1"
TAIL: Final = 4 + len(MAGIC)
"""Bytes at the end of a file: the length of the footer, and the magic."""

_BLOCK: Final = np.dtype([("offset", "<i8"), ("metadata", "<i4"), ("", "<i4"), ("body", "<i8")])
_BUFFER: Final = np.dtype([("offset", "<i8"), ("length", "<i8")])
_MARK: Final = b"\xff" * 4
"""What a message begins with; then comes the length of its flatbuffer. Before Arrow 0.15 there was the length alone."""
_LENGTH: Final = 4

_LONGEST_FOOTER: Final = 64 << 20
"""Bytes; enough for two million record batches. A length that is damaged must not lead to reading a whole file."""

# Slots of the fields in File.fbs and Message.fbs: 4 + 2 * their number.
_FOOTER_DICTIONARIES: Final = 8
_FOOTER_BATCHES: Final = 10
_MESSAGE_HEADER: Final = 8
_BATCH_LENGTH: Final = 4
_BATCH_BUFFERS: Final = 8


@dataclass(frozen=True, slots=True)
class Block:
    """One record batch, or one dictionary, in the file."""

    offset: int
    """Of its metadata."""
    metadata: int
    """Bytes of its metadata; its body follows."""
    body: int
    """Bytes of its body."""

    @property
    def begin(self) -> int:
        """Where its body begins."""
        return self.offset + self.metadata

    @property
    def stop(self) -> int:
        """Where it ends."""
        return self.begin + self.body


@dataclass(frozen=True, slots=True)
class Footer:
    """What stands at the end of a file."""

    dictionaries: tuple[Block, ...]
    """What the categories of its columns are."""
    batches: tuple[Block, ...]
    """Its record batches."""

    @classmethod
    def parse(cls, footer: bytes, begin: int) -> Footer:
        """Take the flatbuffer apart.

        Args:
            footer: the flatbuffer.
            begin: where it begins in the file.

        Raises:
            ValueError: it is none, or speaks of what cannot be.
        """
        with _decoding("its footer"):
            table = _root(footer)
            both = [_structs(table, slot, _BLOCK).tolist() for slot in (_FOOTER_DICTIONARIES, _FOOTER_BATCHES)]
            dictionaries, batches = (tuple(Block(offset, m, body) for offset, m, _, body in blocks) for blocks in both)
            _check_places([*dictionaries, *batches], begin)
        return cls(dictionaries, batches)


def _check_places(blocks: Iterable[Block], end: int) -> None:
    """Refuse blocks that overlap, or do not end before a place in the file: reading them would have no bounds."""
    at = 0
    for block in sorted(blocks, key=lambda block: block.offset):
        if not at <= block.offset < block.begin <= block.stop <= end:
            raise ValueError(f"a part of it is said to be at {block.offset} to {block.stop}, where it cannot be")
        at = block.stop


@dataclass(frozen=True, slots=True)
class BatchLayout:
    """What the metadata of a record batch say."""

    rows: int
    """How many there are."""
    buffers: Any
    """Of all columns in turn: ``offset`` in the body, and ``length``, in bytes."""

    @classmethod
    def parse(cls, metadata: bytes, body: int) -> BatchLayout:
        """Take the message apart.

        Args:
            metadata: the message.
            body: bytes of what it describes.

        Raises:
            ValueError: it is not that of a record batch, or speaks of what cannot be.
        """
        with _decoding("its metadata"):
            message = _root(metadata[_LENGTH + (len(_MARK) if metadata.startswith(_MARK) else 0) :])
            header = Table(message.Bytes, message.Indirect(message.Pos + _slot(message, _MESSAGE_HEADER)))
            rows = header.Get(number_types.Int64Flags, header.Pos + _slot(header, _BATCH_LENGTH))
            buffers = _structs(header, _BATCH_BUFFERS, _BUFFER)
            offset, length = buffers["offset"], buffers["length"]
            if not np.all((offset >= 0) & (length >= 0) & (offset <= body) & (length <= body - offset)):
                raise ValueError("a buffer lies outside of its record batch")
            if rows < 0:
                raise ValueError(f"it is said to have {rows} rows")
            return cls(int(rows), buffers)


def footer_length(tail: bytes) -> int:
    """Bytes of the footer, from the end of a file.

    Raises:
        ValueError: it is no Arrow IPC file, or does not end where one ends.
    """
    if len(tail) < TAIL or tail[-len(MAGIC) :] != MAGIC:
        raise ValueError(
            "it does not end as an Arrow IPC (Feather V2) file does: it is cut off, or of another format, such as"
            " Feather V1"
        )
    length: int = struct.unpack("<i", tail[-TAIL : -len(MAGIC)])[0]
    if not 0 < length <= _LONGEST_FOOTER:
        raise ValueError(f"its footer is said to have {length} bytes")
    return length


def buffers_of(schema: pa.Schema) -> dict[str, range] | None:
    """The buffers of each column, by their numbers in a record batch; None where a type is of another kind."""
    found, first = {}, 0
    for field in schema:
        count = _count(field.type)
        if count is None:
            return None
        found[field.name] = range(first, first + count)
        first += count
    return found


def _count(kind: pa.DataType) -> int | None:
    """Buffers of a type, those of its children among them."""
    if isinstance(kind, pa.BaseExtensionType):
        return _count(kind.storage_type)
    own = next((count for count, tests in _OWN.items() if any(is_one(kind) for is_one in tests)), None)
    inner = [_count(child) for child in _children(kind)]
    return None if own is None or None in inner else own + sum(filter(None, inner))


def _children(kind: pa.DataType) -> list[pa.DataType]:
    if pa.types.is_struct(kind):
        return [kind.field(index).type for index in range(kind.num_fields)]
    if pa.types.is_map(kind):
        return [pa.struct([("key", kind.key_type), ("value", kind.item_type)])]
    return [kind.value_type] if any(is_one(kind) for is_one in _LISTS) else []


_LISTS: Final = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
_OWN: Final = {
    0: (pa.types.is_null,),
    1: (pa.types.is_struct, pa.types.is_fixed_size_list),
    2: (
        pa.types.is_primitive, pa.types.is_decimal, pa.types.is_fixed_size_binary, pa.types.is_dictionary,
        pa.types.is_list, pa.types.is_large_list, pa.types.is_map,
    ),
    3: (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary),
}  # fmt: skip
"""Buffers of a type without those of its children: which values there are, where each begins, what they are."""


@contextmanager
def _decoding(what: str) -> Iterator[None]:
    """Broken bytes are a ``ValueError``, whatever the flatbuffers library says of them."""
    try:
        yield
    except (struct.error, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{what} does not decode: {error}") from error


def _root(flatbuffer: bytes) -> Table:
    buffer = bytearray(flatbuffer)
    return Table(buffer, struct.unpack_from("<I", buffer)[0])


def _slot(table: Table, slot: int) -> int:
    found: int = table.Offset(slot)
    if not found:
        raise ValueError("a field is missing")
    return found


def _structs(table: Table, slot: int, kind: np.dtype[Any]) -> Any:
    """A vector of structs; empty where the field is missing."""
    found = table.Offset(slot)
    if not found:
        return np.empty(0, kind)
    start, count = table.Vector(found), table.VectorLen(found)
    if count < 0 or start + count * kind.itemsize > len(table.Bytes):
        raise ValueError("a vector sticks out")
    return np.frombuffer(table.Bytes, kind, count, start)
