"""SWC: what is read, and what is refused with the line or node that is wrong."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emcatalog.errors import SourceCorruptError
from emcatalog.skeletons.swc import COLUMNS, parse_swc
from tests.replica.skeletons import in_nm, make_tree, swc_text
from tests.test_fetch import assert_clear

WHAT = "gs://bucket/skeletons/7.swc"
GOOD = b"1 1 10 20 30 2 -1\n2 0 11 20 30 1.5 1\n3 0 12 20 30 1 2\n"


def rows(text: bytes, unit_nm: float = 1) -> list[list[float]]:
    table = parse_swc(text, unit_nm, WHAT)
    assert list(table.columns) == list(COLUMNS)
    lists: list[list[float]] = table.to_numpy().tolist()
    return lists


class TestRead:
    @pytest.mark.parametrize("unit_nm", [1, 8, 1000, 3.58])
    def test_lengths_are_in_nm(self, unit_nm: float) -> None:
        table = parse_swc(b"1 0 1.5 2 3 0.25 -1", unit_nm, WHAT)
        lengths = table[["x", "y", "z", "radius"]].to_numpy()[0]
        np.testing.assert_array_equal(lengths, np.array([1.5, 2, 3, 0.25]) * unit_nm)

    def test_types(self) -> None:
        types = parse_swc(GOOD, 8, WHAT).dtypes
        assert {name: str(kind) for name, kind in types.items()} == {
            **dict.fromkeys(("node", "kind", "parent"), "int64"),
            **dict.fromkeys(("x", "y", "z", "radius"), "float64"),
        }

    @pytest.mark.parametrize(
        "text",
        [
            b"# before\n\n" + GOOD + b"# after",
            GOOD.replace(b"\n", b"\r\n"),
            GOOD.replace(b"\n", b"\r"),
            GOOD.replace(b" ", b"\t"),
            GOOD.replace(b" ", b"   \t"),
            b"  " + GOOD.replace(b"\n", b"  \n  "),
            GOOD.replace(b"\n", b" # a root, a leaf\n"),
            GOOD.replace(b"\n", b"\n# between\n\n \t \n"),
            GOOD.replace(b" 10 20 30 ", b" 1e1 +2.0E+1 300.e-1 "),
            GOOD.replace(b"-1", b"-1.0").replace(b"2 0", b"2.0 0"),
            "# Größe in µm\n".encode() + GOOD,
            b"# \xff\xfe\n" + GOOD,
            GOOD.rstrip(),
        ],
    )
    def test_spellings_of_the_same(self, text: bytes) -> None:
        assert rows(text) == rows(GOOD)

    def test_as_published(self) -> None:
        tree = make_tree(np.random.default_rng(1), roots=3)
        assert (tree.parent == -1).sum() == 3
        pd.testing.assert_frame_equal(parse_swc(swc_text(tree), 8, WHAT), in_nm(tree, 8), rtol=1e-12)

    def test_one_node(self) -> None:
        assert rows(b"0 0 1 2 3 4 -1") == [[0, 0, 1, 2, 3, 4, -1]]

    def test_a_radius_that_is_not_known(self) -> None:
        assert np.isnan(rows(b"1 0 1 2 3 nan -1")[0][5])

    @given(st.data())
    def test_any_forest_in_any_order(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(1, 40))
        node = data.draw(st.lists(st.integers(0, 2**40), min_size=count, max_size=count, unique=True))
        above = [data.draw(st.sampled_from([-1, *range(k)])) for k in range(count)]
        lines = [f"{node[k]} 0 {k} 0 0 1 {node[above[k]] if above[k] >= 0 else -1}" for k in range(count)]
        order = data.draw(st.permutations(range(count)))
        table = parse_swc("\n".join(lines[k] for k in order).encode(), 1, WHAT)
        assert table.node.tolist() == [node[k] for k in order]
        assert table.x.tolist() == list(order)
        assert table.parent.tolist() == [node[above[k]] if above[k] >= 0 else -1 for k in order]


REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "it holds no node"),
    "comments alone": (b"# a\n\n  # b\n", "it holds no node"),
    "too few": (GOOD + b"# c\n4 0 1 2 3 4\n", "line 5 has 6 values, not 7 (node kind x y z radius parent)"),
    "too many": (b"# c\n\n" + GOOD + b"4 0 1 2 3 4 1 1\n", "line 6 has 8 values, not 7"),
    "all too many": (b"1 0 1 2 3 4 -1 0\n2 0 1 2 3 4 1 0\n", "line 1 has 8 values, not 7"),
    "all too few": (b"1 0 1 2 3 4\n", "line 1 has 6 values, not 7"),
    "six and eight": (b"1 0 1 2 3 4\n-1 2 0 1 2 3 4 1\n", "line 1 has 6 values"),
    "cut off": (GOOD[:-8], "line 3 has 4 values"),
    "words": (GOOD + b"4 axon 1 2 3 4 1\n", "line 4: 'axon' is not a number"),
    "commas": (b"1,0,1,2,3,4,-1\n", "line 1 has 1 values"),
    "decimal commas": (b"1 0 1,5 2 3 4 -1\n", "line 1: '1,5' is not a number"),
    "underscores": (b"1_0 0 1 2 3 4 -1\n", "line 1: '1_0' is not a number"),
    "a line that is blank to some": (b"\x1e\n \x85\xa0\n", "it holds no node"),
    "a page": (b"<!DOCTYPE html>\n<title>Sign in</title>\n", "line 1 has 2 values"),
    "binary": (bytes(range(256)), "is not a skeleton in SWC"),
    "half a node": (GOOD + b"4.5 0 1 2 3 4 1\n", "line 4 is '4.5 0 1 2 3 4 1', and node, kind and parent are whole"),
    "half a parent": (GOOD + b"\n4 0 1 2 3 4 1.5\n", "line 5 is '4 0 1 2 3 4 1.5'"),
    "a node that is no number": (b"nan 0 1 2 3 4 -1\n", "line 1 is 'nan 0"),
    "a huge node": (b"1e300 0 1 2 3 4 -1\n", "line 1 is '1e300 0"),
    "an infinite parent": (b"1 0 1 2 3 4 -inf\n", "line 1 is '1 0"),
    "a negative node": (b"-1 0 1 2 3 4 -1\n", "a node is not negative"),
    "nowhere": (GOOD + b"4 0 nan 2 3 4 1\n", "line 4 is '4 0 nan 2 3 4 1', and x, y, z and radius are finite"),
    "infinitely thick": (GOOD + b"4 0 1 2 3 inf 1\n", "line 4 is '4 0 1 2 3 inf 1'"),
    "twice": (GOOD + b"2 0 1 2 3 4 1\n", "more than one node 2"),
    "an orphan": (GOOD + b"4 0 1 2 3 4 9\n", "the parent of node 4, 9, is not there"),
    "another orphan": (GOOD + b"4 0 1 2 3 4 0\n", "the parent of node 4, 0, is not there"),
    "its own parent": (GOOD + b"4 0 1 2 3 4 4\n", "node 4 hangs on a loop"),
    "a loop": (GOOD + b"4 0 1 2 3 4 6\n5 0 1 2 3 4 4\n6 0 1 2 3 4 5\n", "node 4 hangs on a loop"),
    "no root": (b"1 0 1 2 3 4 2\n2 0 1 2 3 4 1\n", "node 1 hangs on a loop"),
}


class TestRefused:
    @pytest.mark.parametrize("case", REFUSED)
    def test_with_the_place(self, case: str) -> None:
        text, words = REFUSED[case]
        with pytest.raises(SourceCorruptError) as caught:
            parse_swc(text, 8, WHAT)
        assert_clear(caught.value, OSError, f"{WHAT} is not a skeleton in SWC: ", words)

    @given(st.binary(max_size=200))
    def test_whatever_it_holds(self, text: bytes) -> None:
        with suppress(SourceCorruptError):
            assert len(parse_swc(text, 8, WHAT)) > 0

    @given(st.text("0123456789-+.einfa# \t\n", max_size=200))
    def test_whatever_looks_like_numbers(self, text: str) -> None:
        with suppress(SourceCorruptError):
            assert len(parse_swc(text.encode(), 8, WHAT)) > 0
