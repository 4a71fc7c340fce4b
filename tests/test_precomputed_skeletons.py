"""Precomputed skeletons: what is read, beside cloud-volume's reader, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cloudvolume import Skeleton
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from emcatalog.errors import SourceCorruptError
from emcatalog.skeletons.precomputed import SkeletonInfo, parse_info, parse_precomputed
from tests.replica.skeletons import as_precomputed, make_tree, precomputed_bytes
from tests.test_fetch import assert_clear

WHAT = "gs://bucket/skeletons/7"
PLAIN = {"@type": "neuroglancer_skeletons"}
RADIUS = {"id": "radius", "data_type": "float32", "num_components": 1}
KIND = {"id": "vertex_types", "data_type": "uint8", "num_components": 1}


def info(**keys: Any) -> SkeletonInfo:
    return parse_info(json.dumps({**PLAIN, **keys}).encode(), "info")


def stored(count: int, edges: Any, *attributes: NDArray[Any]) -> bytes:
    """A skeleton whose nodes stand on a line, 1 apart."""
    places = np.stack([np.arange(count), np.zeros(count), np.zeros(count)], axis=1).astype("<f4")
    pairs = np.array(edges, "<u4").reshape(-1, 2)
    header = np.array([count, len(pairs)], "<u4")
    return b"".join(part.tobytes() for part in (header, places, pairs, *attributes))


def parents(content: bytes) -> list[int]:
    return list(parse_precomputed(content, info(), WHAT).parent)


class TestRead:
    @pytest.mark.parametrize("roots", [1, 3])
    def test_as_published(self, roots: int) -> None:
        tree = make_tree(np.random.default_rng(2), roots)
        table = parse_precomputed(precomputed_bytes(tree), info(), WHAT)
        pd.testing.assert_frame_equal(table, as_precomputed(tree))

    def test_as_cloud_volume_reads_it(self) -> None:
        content = precomputed_bytes(make_tree(np.random.default_rng(3), roots=2))
        table, other = parse_precomputed(content, info(), WHAT), Skeleton.from_precomputed(content, 7)
        np.testing.assert_array_equal(table[["x", "y", "z"]], other.vertices)
        joined = table[table.parent > 0]
        np.testing.assert_array_equal(joined[["node", "parent"]].to_numpy() - 1, other.edges)

    def test_as_cloud_volume_writes_it(self) -> None:
        tree = make_tree(np.random.default_rng(4))
        places = tree[["x", "y", "z"]].to_numpy(np.float32)
        edges = tree.loc[tree.parent > 0, ["node", "parent"]].to_numpy(np.uint32) - 1
        radii, kinds = tree.radius.to_numpy(np.float32), tree.kind.to_numpy(np.uint8)
        wrote = Skeleton(places, edges, radii=radii, vertex_types=kinds)
        described = info(vertex_attributes=[RADIUS, KIND], transform=[1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0])
        table = parse_precomputed(wrote.to_precomputed(), described, WHAT)
        np.testing.assert_array_equal(table.radius, radii)
        np.testing.assert_array_equal(table.kind, kinds)
        np.testing.assert_array_equal(table[["x", "y", "z"]], places)
        np.testing.assert_array_equal(table.parent, tree.parent)

    def test_transform(self) -> None:
        matrix = [0, -8, 0, 100, 8, 0, 0, 200, 0, 0, 8, 300]
        described = info(transform=matrix, vertex_attributes=[RADIUS])
        table = parse_precomputed(stored(2, [(1, 0)], np.array([2, 3], "<f4")), described, WHAT)
        np.testing.assert_array_equal(table[["x", "y", "z"]], [[100, 200, 300], [100, 208, 300]])
        np.testing.assert_allclose(table.radius, [16, 24])

    def test_the_transform_of_cloud_volume(self) -> None:
        matrix = np.array([[4, 0, 1, 10], [0, 4, 0, 20], [2, 0, 40, 30]], float)
        content = precomputed_bytes(make_tree(np.random.default_rng(5)), unit_nm=1)
        table = parse_precomputed(content, info(transform=matrix.ravel().tolist()), WHAT)
        other = Skeleton.from_precomputed(content, 7)
        other.transform = matrix.astype(np.float32)
        other.apply_transform()
        np.testing.assert_allclose(table[["x", "y", "z"]], other.vertices, rtol=1e-5)

    @pytest.mark.parametrize("dtype", ["float32", "int8", "uint8", "int16", "uint16", "int32", "uint32"])
    def test_attributes_of_others_are_passed_over(self, dtype: str) -> None:
        between = {"id": "other", "data_type": dtype, "num_components": 3}
        radius = np.array([1, 2, 3], "<f4")
        content = stored(3, [(1, 0), (2, 1)], np.ones(9, dtype), radius)
        table = parse_precomputed(content, info(vertex_attributes=[between, RADIUS]), WHAT)
        np.testing.assert_array_equal(table.radius, radius)

    def test_what_else_an_info_says_is_passed_over(self) -> None:
        described = info(segment_properties="properties", spatial_index={"path": "x"}, mip=3)
        assert len(parse_precomputed(stored(1, []), described, WHAT)) == 1


class TestTrees:
    """Which end of an edge is the parent: the format does not say."""

    def test_child_and_parent(self) -> None:
        assert parents(stored(4, [(0, 2), (1, 2), (3, 1)])) == [3, 3, -1, 2]

    def test_from_the_first_node_where_no_direction_is_kept(self) -> None:
        assert parents(stored(5, [(3, 1), (3, 0), (2, 1), (2, 4)])) == [-1, 4, 2, 1, 3]

    def test_of_each_piece(self) -> None:
        assert parents(stored(6, [(1, 3), (1, 5), (0, 4), (0, 2)])) == [-1, -1, 1, 2, 1, 2]

    def test_nodes_alone(self) -> None:
        assert parents(stored(3, [])) == [-1, -1, -1]

    @given(st.data())
    def test_any_forest_in_any_order(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(1, 40))
        above = [data.draw(st.sampled_from([-1, *range(k)])) for k in range(count)]
        name = data.draw(st.permutations(range(count)))
        edges = [(name[k], name[above[k]]) for k in range(count) if above[k] >= 0]
        turned = [pair[::-1] if data.draw(st.booleans()) else pair for pair in data.draw(st.permutations(edges))]
        content = stored(count, turned)
        table = parse_precomputed(content, info(), WHAT)
        assert table.x.tolist() == list(range(count))
        found = {
            frozenset((node - 1, parent - 1))
            for node, parent in zip(table.node, table.parent, strict=True)
            if parent > 0
        }
        assert found == {frozenset(pair) for pair in edges}
        assert (table.parent == -1).sum() == count - len(edges)
        if edges:
            np.testing.assert_array_equal(Skeleton.from_precomputed(content).edges, turned)


def nowhere() -> bytes:
    content = bytearray(stored(3, [(1, 0), (2, 1)]))
    content[8 + 12 : 8 + 16] = np.array([np.nan], "<f4").tobytes()
    return bytes(content)


REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "it has 0 bytes"),
    "half a header": (b"\1\0\0\0\0", "it has 5 bytes"),
    "no node": (stored(0, []), "it holds no node"),
    "truncated": (stored(3, [(1, 0), (2, 1)])[:-1], "it has 59 bytes, and its 3 nodes and 2 edges take 60"),
    "too long": (stored(3, [(1, 0), (2, 1)]) + b"\0", "it has 61 bytes, and its 3 nodes and 2 edges take 60"),
    "a page": (b"<!DOCTYPE html><title>Sign in</title>", "it has 37 bytes, and its "),
    "a node that is not there": (stored(3, [(1, 0), (2, 7)]), "an edge leads to node 8, and there are 3"),
    "a node that wraps": (stored(3, [(1, 0), (2**32 - 1, 0)]), "an edge leads to node 4294967296, and there are 3"),
    "a loop": (stored(4, [(0, 1), (1, 2), (2, 0)]), "it is no tree: 1 of its 3 edges join what is joined already"),
    "an edge twice": (stored(3, [(1, 0), (0, 1), (2, 1)]), "1 of its 3 edges"),
    "an edge to itself": (stored(2, [(1, 1)]), "1 of its 1 edges"),
    "nowhere": (nowhere(), "node 2 is at no finite place"),
}


class TestRefused:
    @pytest.mark.parametrize("case", REFUSED)
    def test_with_the_place(self, case: str) -> None:
        content, words = REFUSED[case]
        with pytest.raises(SourceCorruptError) as caught:
            parse_precomputed(content, info(), WHAT)
        assert_clear(caught.value, OSError, f"{WHAT} is not a precomputed skeleton: ", words)

    def test_radii_that_the_info_does_not_know(self) -> None:
        with pytest.raises(SourceCorruptError, match="it has 48 bytes, and its 2 nodes and 1 edges take 40"):
            parse_precomputed(stored(2, [(1, 0)], np.ones(2, "<f4")), info(), WHAT)

    def test_radii_that_are_not_there(self) -> None:
        with pytest.raises(SourceCorruptError, match="it has 40 bytes, and its 2 nodes and 1 edges take 48"):
            parse_precomputed(stored(2, [(1, 0)]), info(vertex_attributes=[RADIUS]), WHAT)

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "Invalid JSON"),
            (b"<!DOCTYPE html>", "it begins with '<!DOCTYPE html>'"),
            (b"\xff\xfe", "does not describe skeletons"),
            (b"[]", "does not describe skeletons"),
            (b"{}", "@type: it is missing"),
            (b'{"@type": "neuroglancer_multiscale_volume"}', "@type: "),
            (b'{"@type": "neuroglancer_skeletons", "transform": [1, 0, 0]}', "transform: "),
            (b'{"@type": "neuroglancer_skeletons", "transform": [1e999,0,0,0,0,1,0,0,0,0,1,0]}', "transform"),
            (
                b'{"@type": "neuroglancer_skeletons", "vertex_attributes": [{"id": "radius"}]}',
                "data_type: it is missing",
            ),
            (
                b'{"@type": "neuroglancer_skeletons", "vertex_attributes":'
                b' [{"id": "a", "data_type": "complex64", "num_components": 1}]}',
                "vertex_attributes.0.data_type: ",
            ),
            (
                b'{"@type": "neuroglancer_skeletons", "vertex_attributes":'
                b' [{"id": "a", "data_type": "uint8", "num_components": 0}]}',
                "vertex_attributes.0.num_components: ",
            ),
        ],
    )
    def test_what_is_no_info(self, content: bytes, words: str) -> None:
        with pytest.raises(SourceCorruptError) as caught:
            parse_info(content, "gs://bucket/skeletons/info")
        assert_clear(caught.value, OSError, "gs://bucket/skeletons/info does not describe skeletons: ", words)
