"""Where the parts of Arrow files lie: found where pyarrow itself reads them, and never in broken bytes."""

from __future__ import annotations

import decimal
import io
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import ipc

from emcatalog.tables.arrow_layout import TAIL, BatchLayout, Block, Footer, buffers_of, footer_length

ROWS = 100
BATCHES = 3
COMPRESSIONS = (None, "lz4", "zstd")

Range = tuple[int, int]


def every(count: int, values: Sequence[Any]) -> list[Any]:
    """So many of them in turn, every seventh null."""
    return [None if row % 7 == 3 else values[row % len(values)] for row in range(count)]


def typed(kind: pa.DataType, *values: Any) -> pa.Array:
    return pa.array(every(ROWS, values), kind)


def without_nulls(kind: pa.DataType) -> pa.Array:
    return pa.array(np.arange(ROWS), kind)


TEXT = ("", "a", "some text", "é")
COUNTED: dict[str, pa.Array] = {
    **{str(kind): without_nulls(kind) for kind in (pa.int8(), pa.uint16(), pa.int64(), pa.float32())},
    **{f"{kind} with nulls": typed(kind, 0, 1, 2) for kind in (pa.int32(), pa.uint64(), pa.float64())},
    "float16": pa.array(np.arange(ROWS, dtype=np.float16)),
    "bool": typed(pa.bool_(), True, False),
    "decimal128": typed(pa.decimal128(7, 2), decimal.Decimal("1.25")),
    "decimal256": typed(pa.decimal256(60, 2), decimal.Decimal("1.25")),
    "fixed size binary": typed(pa.binary(3), b"abc", b"def"),
    "timestamp": typed(pa.timestamp("ns", "UTC"), 1, 2),
    "date": typed(pa.date32(), 1, 2),
    "time": typed(pa.time64("us"), 1, 2),
    "duration": typed(pa.duration("s"), 1, 2),
    "interval": typed(pa.month_day_nano_interval(), pa.MonthDayNano([1, 2, 3])),
    "string": typed(pa.string(), *TEXT),
    "large string": typed(pa.large_string(), *TEXT),
    "binary": typed(pa.binary(), b"", b"abc"),
    "large binary": typed(pa.large_binary(), b"", b"abc"),
    "list": typed(pa.list_(pa.int64()), [], [1, 2], [None, 3]),
    "large list": typed(pa.large_list(pa.string()), [], ["a", None]),
    "fixed size list": typed(pa.list_(pa.float32(), 3), [1, 2, 3]),
    "map": typed(pa.map_(pa.string(), pa.int32()), [("a", 1), ("b", None)], []),
    "struct": typed(pa.struct([("a", pa.int8()), ("b", pa.string())]), {"a": 1, "b": "x"}, {"a": None, "b": "y"}),
    "nested": typed(
        pa.list_(pa.struct([("a", pa.list_(pa.list_(pa.int16(), 2))), ("b", pa.map_(pa.int8(), pa.large_string()))])),
        [{"a": [[1, 2], None], "b": [(1, "x")]}, None],
        [],
    ),
    "dictionary": typed(pa.string(), "x", "y").dictionary_encode(),
    "list of dictionary": pa.ListArray.from_arrays(
        pa.array(np.arange(ROWS + 1), pa.int32()), typed(pa.string(), "x", "y").dictionary_encode()
    ),
    "null": pa.nulls(ROWS),
    "list of null": typed(pa.list_(pa.null()), [None], []),
    "extension": typed(pa.uuid(), uuid.UUID(int=1).bytes, uuid.UUID(int=2).bytes),
}
UNCOUNTED: dict[str, pa.Array] = {
    "string view": typed(pa.string_view(), *TEXT, "longer than what fits into the view itself"),
    "binary view": typed(pa.binary_view(), b"a"),
    "list view": typed(pa.list_view(pa.int64()), [1], [2, 3]),
    "sparse union": pa.UnionArray.from_sparse(
        pa.array(np.arange(ROWS) % 2, pa.int8()), [without_nulls(pa.int64()), typed(pa.string(), *TEXT)]
    ),
    "dense union": pa.UnionArray.from_dense(
        pa.array(np.arange(ROWS) % 2, pa.int8()),
        pa.array(np.arange(ROWS) // 2, pa.int32()),
        [without_nulls(pa.int64()), typed(pa.string(), *TEXT)],
    ),
    "run ends": pa.RunEndEncodedArray.from_arrays(pa.array([40, ROWS], pa.int32()), pa.array([7, None])),
    "struct of views": typed(pa.struct([("a", pa.string_view())]), {"a": "x"}),
}


def beside(column: pa.Array) -> pa.Table:
    """A table with the column between two others."""
    return pa.table({"before": without_nulls(pa.int64()), "it": column, "after": typed(pa.string(), *TEXT)})


def file_of(table: pa.Table, batches: int = BATCHES, **options: Any) -> bytes:
    """An Arrow file of several batches, of different lengths."""
    sink = io.BytesIO()
    with ipc.new_file(sink, table.schema, options=ipc.IpcWriteOptions(**options)) as writer:
        for number in range(batches):
            for batch in table.slice(number, ROWS // (number + 1)).to_batches():
                writer.write_batch(batch)
    return sink.getvalue()


class Logged(io.BytesIO):
    """A file that notes what is read of it."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.ranges: list[Range] = []

    def read(self, size: int | None = -1) -> bytes:
        start = self.tell()
        got = super().read(size)
        self.ranges.append((start, self.tell()))
        return got


def read_by_pyarrow(content: bytes, column: int, number: int) -> set[int]:
    """Which bytes of its body pyarrow reads to give one column of one record batch."""
    file = Logged(content)
    options = ipc.IpcReadOptions(included_fields=[column], use_threads=False)
    reader = ipc.open_file(pa.PythonFile(file, mode="r"), options=options)
    reader.get_batch(number)
    file.ranges.clear()  # of dictionaries, which are read once
    reader.get_batch(number)
    metadata, *body = file.ranges
    return bytes_in(body, metadata[1])


def bytes_in(ranges: Iterable[Range], origin: int) -> set[int]:
    """Bytes in some ranges, with the padding to 8 that follows a buffer."""
    return {at for start, stop in ranges for at in range(start, origin + -(-(stop - origin) // 8) * 8)}


def footer_of(content: bytes) -> Footer:
    length = footer_length(content[-TAIL:])
    begin = len(content) - TAIL - length
    return Footer.parse(content[begin:-TAIL], begin)


def layout_of(content: bytes, block: Block) -> BatchLayout:
    return BatchLayout.parse(content[block.offset : block.begin], block.body)


def ranges_of(content: bytes, block: Block, buffers: range) -> Iterator[Range]:
    layout = layout_of(content, block)
    for offset, length in layout.buffers[buffers.start : buffers.stop].tolist():
        yield block.begin + offset, block.begin + offset + length


class TestPlaces:
    """The same as where pyarrow reads."""

    @pytest.mark.parametrize("compression", COMPRESSIONS)
    @pytest.mark.parametrize("kind", COUNTED)
    def test_of_columns(self, kind: str, compression: str | None) -> None:
        table = beside(COUNTED[kind])
        content = file_of(table, compression=compression)
        footer, places = footer_of(content), buffers_of(table.schema)
        assert places is not None
        assert len(footer.batches) == BATCHES
        for number, block in enumerate(footer.batches):
            assert sum(map(len, places.values())) == len(layout_of(content, block).buffers)
            for index, name in enumerate(table.column_names):
                found = bytes_in(ranges_of(content, block, places[name]), block.begin)
                assert found == read_by_pyarrow(content, index, number)

    def test_of_types_that_are_not_known_none_are_given(self) -> None:
        for column in UNCOUNTED.values():
            assert buffers_of(beside(column).schema) is None

    @pytest.mark.parametrize("options", [{"use_legacy_format": True}, {"metadata_version": ipc.MetadataVersion.V4}])
    def test_as_older_versions_wrote(self, options: dict[str, Any]) -> None:
        table = beside(COUNTED["list"])
        content = file_of(table, **options)
        places = buffers_of(table.schema)
        assert places is not None
        for number, block in enumerate(footer_of(content).batches):
            found = bytes_in(ranges_of(content, block, places["it"]), block.begin)
            assert found == read_by_pyarrow(content, 1, number)

    def test_rows(self) -> None:
        content = file_of(beside(COUNTED["bool"]))
        assert [layout_of(content, block).rows for block in footer_of(content).batches] == [100, 50, 33]

    def test_dictionaries(self) -> None:
        table = pa.table(dict.fromkeys("abc", COUNTED["dictionary"]))
        content = file_of(table)
        file = Logged(content)
        reader = ipc.open_file(pa.PythonFile(file, mode="r"))
        file.ranges.clear()
        reader.get_batch(0)
        dictionaries = footer_of(content).dictionaries
        assert len(dictionaries) == 3
        assert {(block.offset, block.stop) for block in dictionaries} == set(file.ranges[:3])

    def test_a_file_without_batches(self) -> None:
        content = file_of(beside(COUNTED["bool"]), 0)
        assert footer_of(content) == Footer((), ())

    def test_a_table_without_columns(self) -> None:
        assert buffers_of(pa.schema([])) == {}


# --- broken bytes


WHOLE = file_of(
    pa.table({"a": COUNTED["int64"], "b": COUNTED["string"], "c": COUNTED["dictionary"]}), compression="lz4"
)
FOOTER = WHOLE[-TAIL - footer_length(WHOLE[-TAIL:]) : -TAIL]
BEGIN = len(WHOLE) - TAIL - len(FOOTER)
BATCH = footer_of(WHOLE).batches[0]
METADATA = WHOLE[BATCH.offset : BATCH.begin]


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """Some bytes changed, or cut off."""
    change = st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255))
    changed = st.lists(change, min_size=1, max_size=4).map(lambda changes: change_bytes(content, dict(changes)))
    return st.one_of(changed, st.integers(0, len(content) - 1).map(lambda stop: content[:stop]))


def change_bytes(content: bytes, changes: dict[int, int]) -> bytes:
    array = bytearray(content)
    for at, value in changes.items():
        array[at] = value
    return bytes(array)


def outcome(parse: Callable[[], Any]) -> Any:
    """What is found, or what is said of broken bytes."""
    try:
        return parse()
    except ValueError as error:
        return str(error)


class TestDamage:
    """An error that says so, or places that lie inside of the file."""

    @given(damaged(FOOTER))
    def test_of_a_footer(self, footer: bytes) -> None:
        found = outcome(lambda: Footer.parse(footer, BEGIN))
        if isinstance(found, str):
            assert "its footer does not decode" in found
            return
        for block in (*found.batches, *found.dictionaries):
            assert 0 <= block.offset < block.begin <= block.stop <= BEGIN
        assert sum(block.stop - block.offset for block in (*found.batches, *found.dictionaries)) <= BEGIN

    @given(damaged(METADATA))
    def test_of_a_record_batch(self, metadata: bytes) -> None:
        found = outcome(lambda: BatchLayout.parse(metadata, BATCH.body))
        if isinstance(found, str):
            assert "its metadata does not decode" in found
            return
        assert found.rows >= 0
        assert all(0 <= offset <= offset + length <= BATCH.body for offset, length in found.buffers.tolist())

    @given(st.binary(max_size=64))
    def test_of_anything(self, content: bytes) -> None:
        for parse in (lambda: Footer.parse(content, 1000), lambda: BatchLayout.parse(content, 1000)):
            with pytest.raises(ValueError, match="does not decode"):
                parse()

    @pytest.mark.parametrize("tail", [b"", b"ARROW1", WHOLE[-TAIL:-1], WHOLE[-TAIL:][::-1], b"\x80\0\0\0FEA1"])
    def test_of_the_end(self, tail: bytes) -> None:
        with pytest.raises(ValueError, match=r"does not end as an Arrow IPC .* such as Feather V1"):
            footer_length(tail)

    @pytest.mark.parametrize("length", [0, -1, -(2**31), 2**31 - 1, 2**27])
    def test_of_the_length_of_the_footer(self, length: int) -> None:
        with pytest.raises(ValueError, match=f"its footer is said to have {length} bytes"):
            footer_length(length.to_bytes(4, "little", signed=True) + b"ARROW1")

    def test_batches_that_overlap(self) -> None:
        """Otherwise a few bytes could stand for any number of rows."""
        first, second = (block.offset.to_bytes(8, "little") for block in footer_of(WHOLE).batches[:2])
        assert FOOTER.count(second) == 1
        with pytest.raises(ValueError, match="where it cannot be"):
            Footer.parse(FOOTER.replace(second, first), BEGIN)
