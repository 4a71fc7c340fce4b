"""Balls around the points of a table: each voxel held against its distance to every point, on grids of all kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from pyarrow import feather

from emcatalog.drivers.table import TableSource
from emcatalog.drivers.volume import VolumeSource
from emcatalog.errors import (
    ArgumentError,
    NotCachedError,
    SourceMissingError,
    SourceUnavailableError,
    TooLargeError,
)
from emcatalog.geometry import Box, Grid
from emcatalog.points import OpenPoints, unpack
from tests.conftest import BBox, Replica, place, python
from tests.replica.precomputed import build_precomputed
from tests.replica.tables import table_path
from tests.replica.wire import Server
from tests.test_fetch import assert_clear

BOX = place(40, 76, 50, 80, 60, 88)
TABLES = "*connectome-data*"


def synapses(replica: Replica, version: str = "v0.9") -> pd.DataFrame:
    """The whole table."""
    return pd.read_feather(table_path(replica.folder, "synapse_points", version))


def centres_of(frame: pd.DataFrame, size: float = 8) -> NDArray[np.float64]:
    """Centres of the voxels that points stand in, (point, zyx), nm."""
    return (frame[["z", "y", "x"]].to_numpy() + 0.5) * size


def naive(found: xr.Dataset, centres_nm: NDArray[np.float64], radius_nm: float) -> NDArray[np.uint8]:
    """Which voxels of a Dataset are near a point: every voxel against every point whose ball may reach it."""
    axes = [found[axis].values for axis in "zyx"]
    reach = radius_nm + 1
    is_near = [(c >= axis[0] - reach) & (c <= axis[-1] + reach) for c, axis in zip(centres_nm.T, axes, strict=True)]
    voxels = np.meshgrid(*axes, indexing="ij")
    painted = np.zeros(voxels[0].shape, np.uint8)
    for centre in centres_nm[np.logical_and.reduce(is_near)]:
        away = [axis - at for axis, at in zip(voxels, centre, strict=True)]
        painted |= sum(length**2 for length in away) <= radius_nm**2
    return painted


def assert_painted(found: xr.Dataset, frame: pd.DataFrame, radius_nm: float) -> None:
    """Both kinds are as the distances say, and not all the same."""
    assert list(found) == ["PostSyn", "PreSyn"]
    for kind, volume in found.items():
        expected = naive(found, centres_of(frame[frame["kind"] == kind]), radius_nm)
        np.testing.assert_array_equal(volume, expected)
        assert 0 < expected.mean() < 1


class TestPaint:
    """Synapses of the shipped entries."""

    @pytest.mark.parametrize("version", ["v0.9", "v1.0"])
    def test_distances(self, male_cns: Server, catalog: Any, replica: Replica, version: str) -> None:
        points = catalog.malecns_data.synapse_points(version=version)
        found = catalog.malecns(bbox=BOX, version=version).paint(points, 24)
        assert_painted(found, synapses(replica, version), 24)

    @pytest.mark.parametrize(("resolution", "side", "radius"), [(16, 48, 30), (32, 64, 40), (64, 128, 24)])
    def test_coarser_voxels(
        self, male_cns: Server, catalog: Any, replica: Replica, resolution: int, side: int, radius: float
    ) -> None:
        source = catalog.malecns(bbox=place(*(16, 16 + side) * 3), resolution=resolution)
        found = source.paint(catalog.malecns_data.synapse_points, radius)
        assert found["PreSyn"].shape == source.plan().box.shape
        assert_painted(found, synapses(replica), radius)

    def test_balls_that_reach_in_from_outside(self, male_cns: Server, catalog: Any, replica: Replica) -> None:
        frame = synapses(replica)
        inside = np.logical_and.reduce(
            [frame[axis].between(*BOX[2 * i : 2 * i + 2], inclusive="left") for i, axis in enumerate("xyz")]
        )
        found = catalog.malecns(bbox=BOX).paint(catalog.malecns_data.synapse_points, 24)
        alone = naive(found, centres_of(frame[inside & (frame["kind"] == "PostSyn")]), 24)
        assert (found["PostSyn"].values > alone).any()
        assert (found["PostSyn"].values >= alone).all()

    def test_a_part_is_part_of_the_whole(self, male_cns: Server, catalog: Any) -> None:
        points = catalog.malecns_data.synapse_points
        whole, part = (catalog.malecns(bbox=box).paint(points, 24) for box in (BOX, place(50, 60, 50, 77, 81, 82)))
        for kind in part:
            same = whole[kind].sel(z=part["z"], y=part["y"], x=part["x"])
            np.testing.assert_array_equal(part[kind], same)

    def test_form(self, male_cns: Server, catalog: Any) -> None:
        source = catalog.malecns(bbox=BOX)
        found, read = source.paint(catalog.malecns_data.synapse_points, 24), source.read()
        for axis in "zyx":
            xr.testing.assert_identical(found[axis], read[axis])
        assert found.attrs == {**read.attrs, "points": "synapse_points"}
        for volume in found.values():
            assert (volume.dims, volume.dtype) == (("z", "y", "x"), np.uint8)
            assert volume.attrs == {"kind": "mask", "radius_nm": 24.0}
            assert set(np.unique(volume)) == {0, 1}

    def test_no_voxel_is_read(self, male_cns: Server, catalog: Any) -> None:
        catalog.malecns(bbox=BOX).paint(catalog.malecns_data.synapse_points, 24)
        assert all(
            record.path.endswith("/info") for record in male_cns.requests if "connectome-data" not in record.path
        )

    @pytest.mark.parametrize("radius", [0.5, 7.99, 8, np.float32(8), np.int64(11), 11.32])
    def test_radii_about_a_voxel(self, male_cns: Server, catalog: Any, replica: Replica, radius: Any) -> None:
        found = catalog.malecns(bbox=BOX).paint(catalog.malecns_data.synapse_points, radius)
        assert_painted(found, synapses(replica), float(radius))

    def test_a_ball_that_lies_between_the_centres_of_voxels(
        self, male_cns: Server, catalog: Any, replica: Replica
    ) -> None:
        """A point of 8 nm is 6.9 nm from the centre of its voxel of 16 nm."""
        source, points = catalog.malecns(bbox=BOX, resolution=16), catalog.malecns_data.synapse_points
        assert not source.paint(points, 6.9).to_dataarray().any()
        assert_painted(source.paint(points, 7), synapses(replica), 7)

    def test_a_box_without_points(self, male_cns: Server, catalog: Any, replica: Replica) -> None:
        frame = synapses(replica)
        box: BBox = (100, 140, 200, 220, 300, 310)
        assert not naive(xr.Dataset(coords=around(box)), centres_of(frame), 100).any()
        found = catalog.malecns(bbox=box).paint(catalog.malecns_data.synapse_points, 100)
        assert list(found) == ["PostSyn", "PreSyn"]
        for volume in found.values():
            assert volume.shape == (10, 20, 40)
            assert not volume.any()

    def test_all_as_one(self, male_cns: Server, catalog: Any, replica: Replica) -> None:
        source, points = catalog.malecns(bbox=BOX), catalog.malecns_data.synapse_points
        found, apart = source.paint(points, 24, by=None), source.paint(points, 24)
        assert list(found) == ["points"]
        np.testing.assert_array_equal(found["points"], apart["PostSyn"] | apart["PreSyn"])

    def test_the_filter_of_the_table(self, male_cns: Server, catalog: Any, replica: Replica) -> None:
        frame, source = synapses(replica), catalog.malecns(bbox=BOX)
        sure = catalog.malecns_data.synapse_points(filter={"conf": {">=": 0.85}}, columns=["body"])
        assert_painted(source.paint(sure, 24), frame[frame["conf"] >= 0.85], 24)
        before = source.paint(catalog.malecns_data.synapse_points(filter={"kind": "PreSyn"}), 24)
        assert not before["PostSyn"].any()
        np.testing.assert_array_equal(before["PreSyn"], naive(before, centres_of(frame[frame["kind"] == "PreSyn"]), 24))

    def test_points_of_one_body(self, male_cns: Server, catalog: Any, replica: Replica) -> None:
        frame, source = synapses(replica), catalog.malecns(bbox=BOX)
        body = int(source.read()["labels"].values[14, 15, 18])
        found = source.paint(catalog.malecns_data.synapse_points(filter={"body": body}), 24, by=None)
        np.testing.assert_array_equal(found["points"], naive(found, centres_of(frame[frame["body"] == body]), 24))

    def test_the_coordinates_of_the_other_end(self, male_cns: Server, catalog: Any, replica: Replica) -> None:
        frame = pd.read_feather(table_path(replica.folder, "synapse_partners", "v0.9"))
        ends = {}
        for end in ("pre", "post"):
            points = catalog.malecns_data.synapse_partners(coordinates=[f"{axis}_{end}" for axis in "xyz"])
            found = catalog.malecns(bbox=BOX).paint(points, 24, by=None)
            named = frame.rename(columns={f"{axis}_{end}": axis for axis in "xyz"})
            np.testing.assert_array_equal(found["points"], naive(found, centres_of(named), 24))
            ends[end] = found["points"].values
        assert (ends["pre"] != ends["post"]).any()

    def test_fetched_it_needs_no_network(self, male_cns: Server, catalog: Any) -> None:
        points = catalog.malecns_data.synapse_points
        online = catalog.malecns(bbox=BOX).paint(points, 24)
        source = catalog.malecns(bbox=BOX, offline=True)
        with pytest.raises(NotCachedError, match=r"syn-points.*was never fetched"):
            source.paint(catalog.malecns_data.synapse_points(offline=True), 24)
        catalog.malecns(bbox=BOX).fetch(progress=False)
        points.fetch(progress=False)
        male_cns.clear()
        xr.testing.assert_identical(source.paint(catalog.malecns_data.synapse_points(offline=True), 24), online)
        xr.testing.assert_identical(catalog.malecns(bbox=BOX).paint(points, 24), online)
        assert male_cns.requests == []


def around(box: BBox, size: float = 8) -> dict[str, Any]:
    """Coordinates of a box of voxels."""
    pairs = zip("xyz", zip(box[::2], box[1::2], strict=True), strict=True)
    return {axis: (np.arange(*pair) + 0.5) * size for axis, pair in pairs}


class TestFailures:
    def test_a_server_that_is_down(self, male_cns: Server, catalog: Any) -> None:
        male_cns.fail(TABLES, 503)
        with pytest.raises(SourceUnavailableError, match="syn-points"):
            catalog.malecns(bbox=BOX).paint(catalog.malecns_data.synapse_points, 24)

    def test_a_table_that_is_not_there(self, male_cns: Server, catalog: Any) -> None:
        male_cns.fail(TABLES, 404)
        with pytest.raises(SourceMissingError, match="syn-points"):
            catalog.malecns(bbox=BOX).paint(catalog.malecns_data.synapse_points, 24)

    def test_more_voxels_than_fit(self, male_cns: Server, catalog: Any) -> None:
        """And no point is read for them."""
        with pytest.raises(TooLargeError) as caught:
            catalog.malecns(bbox=None).paint(catalog.malecns_data.synapse_points, 24)
        assert_clear(caught.value, MemoryError, "1 volumes of 94088 x 77248 x", "take a smaller bbox")
        assert not male_cns.count(TABLES)

    def test_without_the_extra(self, male_cns: Server) -> None:
        script = (
            "import sys; sys.modules['pyarrow'] = None\n"
            "import emcatalog\n"
            "cat = emcatalog.catalog\n"
            "try: cat.malecns.paint(cat.malecns_data.synapse_points, 24)\n"
            "except emcatalog.errors.MissingExtraError as error: print(error)"
        )
        assert "pip install 'emcatalog[tables]'" in python(script)


class TestBadInput:
    @pytest.mark.parametrize("radius", [0, -8, float("nan"), float("inf"), "100", None, True, [8]])
    def test_radii_that_are_none(self, catalog: Any, radius: Any) -> None:
        with pytest.raises(ArgumentError, match=r"radius_nm=.* is not a length in nm"):
            catalog.malecns(bbox=BOX).paint(catalog.malecns_data.synapse_points, radius)

    @pytest.mark.parametrize("name", ["malecns", "demo", "path", "name"])
    def test_what_is_no_table(self, catalog: Any, name: str) -> None:
        points = {"path": Path("points.feather"), "name": "synapse_points"}.get(name) or catalog[name]
        with pytest.raises(ArgumentError, match=r"is no table: give one such as cat\.malecns_data\.synapse_points"):
            catalog.malecns(bbox=BOX).paint(points, 24)

    def test_a_table_without_coordinates(self, catalog: Any) -> None:
        with pytest.raises(ArgumentError, match=r"no coordinates; name three of its columns with coordinates="):
            catalog.malecns(bbox=BOX).paint(catalog.malecns_data.body_stats, 24)

    def test_coordinates_that_are_not_there(self, male_cns: Server, catalog: Any) -> None:
        points = catalog.malecns_data.body_stats(coordinates=["x", "y", "z"])
        with pytest.raises(ArgumentError, match=r"coordinates: there is no column 'x'; there are body, pre"):
            catalog.malecns(bbox=BOX).paint(points, 24)

    def test_a_box_of_the_table(self, catalog: Any) -> None:
        with pytest.raises(ArgumentError, match=r"the volume's own box: leave bbox= of the table away"):
            catalog.malecns(bbox=BOX).paint(catalog.malecns_data.synapse_points(bbox=BOX), 24)

    @pytest.mark.parametrize(
        ("by", "says"),
        [
            (
                "knd",
                r"by='knd': the table has no such column; there are z, y, x, kind, .*Did you mean 'kind'\? None puts",
            ),
            ("body", "by='body': the column holds int64, and kinds of points are text or categories"),
            (["kind"], "is not the name of a column; None puts all points into one volume"),
            ("subprimary", r"by='subprimary' tells \d+ kinds of points apart, more than 64"),
        ],
    )
    def test_kinds_that_are_none(self, male_cns: Server, catalog: Any, by: Any, says: str) -> None:
        with pytest.raises(ArgumentError, match=says):
            catalog.malecns(bbox=BOX).paint(catalog.malecns_data.synapse_points, 24, by=by)

    def test_a_table_without_the_column_of_kinds(self, male_cns: Server, catalog: Any) -> None:
        with pytest.raises(ArgumentError, match=r"by='kind': .* None puts all points into one volume"):
            catalog.malecns(bbox=BOX).paint(catalog.malecns_data.tbar_neurotransmitters, 24)


# --- volumes and tables of their own

SHAPE = (7, 15, 30)
"""(z, y, x)."""


def volume(folder: Path, voxel_nm: Sequence[float], **arguments: Any) -> VolumeSource:
    """An entry with voxels of a size, nm (x, y, z); its first voxel is not at 0."""
    build_precomputed(folder / "raw", np.zeros(SHAPE, np.uint8), resolution=tuple(voxel_nm), voxel_offset=(3, 5, 2))
    declared = {"url": f"precomputed://file://{folder}/raw", "kind": "image", "dtype": "uint8"}
    volumes = {"raw": {**declared, "voxel_size": list(voxel_nm), "source": "a test"}}
    return VolumeSource(volumes=volumes, voxel_size=list(voxel_nm), **arguments)


def table(folder: Path, rows: Mapping[str, Any] | pa.Table, voxel_nm: float = 8, **arguments: Any) -> TableSource:
    """A table of points as a catalog has it."""
    stored = rows if isinstance(rows, pa.Table) else pa.table(dict(rows))
    feather.write_feather(stored, folder / "points.feather")
    declared = {
        "url": f"feather://file://{folder}/points.feather",
        "columns": dict.fromkeys(stored.column_names, "string"),
        "coordinates": ["x", "y", "z"],
        "voxel_size": voxel_nm,
        "source": "a test",
    }
    return TableSource(table=declared, **arguments)


def scattered(count: int, end_nm: Sequence[float], voxel_nm: float, seed: int = 0) -> pd.DataFrame:
    """Points in a volume and around it."""
    rng = np.random.default_rng(seed)
    places = [rng.integers(-5, int(edge / voxel_nm) + 5, count).astype(np.int32) for edge in end_nm]
    return pd.DataFrame(dict(zip("xyz", places, strict=True)))


class TestGrids:
    """Voxels that are no cubes, and points that stand between them."""

    @pytest.mark.parametrize(
        ("voxel_nm", "of_points", "radius"),
        [
            ((8, 8, 40), 8, 45),
            ((8, 8, 40), 8, 12),
            ((4, 12, 30), 8, 40),
            ((48, 48, 48), 8, 68),
            ((24, 24, 24), 8, 32),
            ((4, 4, 4), 16, 20),
            ((3.58, 3.58, 4), 8, 25),
            ((10, 10, 10), 1, 30),
        ],
    )
    def test_distances(self, tmp_path: Path, voxel_nm: Sequence[float], of_points: float, radius: float) -> None:
        ends = [(side + 5) * size for side, size in zip(reversed(SHAPE), voxel_nm, strict=True)]
        frame = scattered(120, ends, of_points)
        found = volume(tmp_path, voxel_nm).paint(table(tmp_path, frame, of_points), radius, by=None)
        assert found["points"].shape == SHAPE
        expected = naive(found, centres_of(frame, of_points), radius)
        assert 0 < expected.mean() < 1
        np.testing.assert_array_equal(found["points"], expected)

    def test_numbers_with_a_point_are_places_themselves(self, tmp_path: Path) -> None:
        """A whole number is that of a voxel, which stands for its centre; 12.5 is 12.5."""
        rows = {"x": [112.5], "y": [112.5], "z": [52.5]}
        found = volume(tmp_path, (8, 8, 8)).paint(table(tmp_path, rows, voxel_nm=1), 20, by=None)
        np.testing.assert_array_equal(found["points"], naive(found, np.array([[52.5, 112.5, 112.5]]), 20))
        assert found["points"].sum() > 27
        mixed = {**rows, "x": [112]}
        again = volume(tmp_path, (8, 8, 8)).paint(table(tmp_path, mixed, voxel_nm=1), 20, by=None)
        xr.testing.assert_identical(again, found)

    def test_points_without_a_place(self, tmp_path: Path) -> None:
        rows = {"x": [12, None, 12], "y": [10, 12, None], "z": [5, 5, 5]}
        found = volume(tmp_path, (8, 8, 8)).paint(table(tmp_path, rows), 1, by=None)
        assert found["points"].sum() == 1

    def test_at_the_very_edge(self, tmp_path: Path) -> None:
        """A voxel whose centre is exactly as far as the radius is in the ball."""
        rows = {"x": [18], "y": [12], "z": [5]}
        for radius, across in ((80, 21), (79.999999, 19)):
            found = volume(tmp_path, (8, 8, 8)).paint(table(tmp_path, rows), radius, by=None)["points"]
            assert found.sel(y=100, z=44).sum() == across

    def test_boxes_in_nm_and_clipped(self, tmp_path: Path) -> None:
        frame = scattered(120, (264, 160, 72), 8)
        boxed = volume(tmp_path, (8, 8, 8), bbox=(100, 400, 0, 101, 30, 60), units="nm", clip=True)
        found = boxed.paint(table(tmp_path, frame), 20, by=None)
        assert found["points"].shape == boxed.plan().box.shape
        np.testing.assert_array_equal(found["points"], naive(found, centres_of(frame), 20))


class TestKinds:
    """Columns that say of which kind a point is."""

    ROWS: Mapping[str, Any] = {"x": [10, 16, 22, 28], "y": [10] * 4, "z": [5] * 4}  # never changed

    def painted(self, folder: Path, kinds: Any, count: int = 4, **arguments: Any) -> dict[str, list[int]]:
        """Where points of each kind are, by the x of their voxels."""
        rows = {**{axis: places[:count] for axis, places in self.ROWS.items()}, "kind": kinds}
        found = volume(folder, (8, 8, 8)).paint(table(folder, rows, **arguments), 1)
        return {str(kind): (np.flatnonzero(one.values[3, 5]) + 3).tolist() for kind, one in found.items()}

    @pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
    def test_text(self, tmp_path: Path, kind: pa.DataType) -> None:
        assert self.painted(tmp_path, pa.array(["b", "a", "b", None], kind)) == {"a": [16], "b": [10, 22]}

    def test_text_that_occurs_outside_alone(self, tmp_path: Path) -> None:
        assert self.painted(tmp_path, ["b", "a", "b", "a"], filter={"x": {"<": 16}}) == {"b": [10]}

    def test_categories_in_their_order(self, tmp_path: Path) -> None:
        kinds = pa.DictionaryArray.from_arrays([2, 0, None, 2], ["pre", "gap", "post"])
        assert self.painted(tmp_path, kinds) == {"pre": [16], "gap": [], "post": [10, 28]}

    def test_categories_of_numbers(self, tmp_path: Path) -> None:
        kinds = pa.DictionaryArray.from_arrays([1, 0, 1, 1], pa.array([7, 3]))
        assert self.painted(tmp_path, kinds) == {"7": [16], "3": [10, 22, 28]}

    def test_no_point_at_all(self, tmp_path: Path) -> None:
        kinds = pa.DictionaryArray.from_arrays([0, 0, 0, 0], ["pre", "post"])
        assert self.painted(tmp_path, kinds, filter={"x": 99}) == {"pre": [], "post": []}
        assert self.painted(tmp_path, ["a"] * 4, filter={"x": 99}) == {}

    def test_categories_that_a_later_part_adds(self, tmp_path: Path) -> None:
        """Each row group of a Parquet file has a dictionary of its own: no point may be lost for that."""
        rows = pa.table({**self.ROWS, "kind": ["b", "b", "c", "a"]})
        parts = [part.set_column(3, "kind", part["kind"].dictionary_encode()) for part in (rows[:2], rows[2:])]
        with pq.ParquetWriter(tmp_path / "points.parquet", parts[0].schema) as writer:
            for part in parts:
                writer.write_table(part)
        declared = {
            "url": f"parquet://file://{tmp_path}/points.parquet",
            "columns": dict.fromkeys(rows.column_names, "string"),
            "coordinates": ["x", "y", "z"],
            "voxel_size": 8,
            "source": "a test",
        }
        found = volume(tmp_path, (8, 8, 8)).paint(TableSource(table=declared), 1)
        assert {str(kind): one.values[3, 5].nonzero()[0].tolist() for kind, one in found.items()} == {
            "b": [7, 13], "c": [19], "a": [25],
        }  # fmt: skip

    @pytest.mark.parametrize(("count", "dtype"), [(1, "u1"), (8, "u1"), (9, "u2"), (32, "u4"), (33, "u8"), (64, "u8")])
    def test_many_kinds(self, tmp_path: Path, count: int, dtype: str) -> None:
        rng = np.random.default_rng(count)
        names = [f"kind {number:02}" for number in range(count)]
        frame = scattered(300, (264, 160, 72), 8, seed=count)
        frame["kind"] = rng.choice(names, 300)
        points = table(tmp_path, pa.Table.from_pandas(frame, preserve_index=False))
        found = volume(tmp_path, (8, 8, 8)).paint(points, 30)
        assert OpenPoints(tuple(names), np.zeros((3, 0)), np.zeros(0, np.uint8), 1.0).dtype == dtype
        assert set(found) <= {*names}
        for kind in names:
            expected = naive(found, centres_of(frame[frame["kind"] == kind]), 30)
            np.testing.assert_array_equal(found.get(kind, 0 * expected), expected)

    def test_too_many(self, tmp_path: Path) -> None:
        frame = scattered(65, (264, 160, 72), 8)
        frame["kind"] = [f"kind {number}" for number in range(65)]
        points = table(tmp_path, pa.Table.from_pandas(frame, preserve_index=False))
        with pytest.raises(ArgumentError) as caught:
            volume(tmp_path, (8, 8, 8)).paint(points, 1000)
        assert_clear(caught.value, ValueError, "by='kind' tells 65 kinds of points apart, more than 64", "by=None")


coordinate = st.floats(-500, 500, allow_nan=False, width=32)


class TestOpenPoints:
    """Points anywhere, voxels of any size."""

    @given(
        centres=hnp.arrays(np.float64, st.tuples(st.just(3), st.integers(0, 12)), elements=coordinate),
        size=st.tuples(*[st.floats(0.5, 60)] * 3),
        origin=st.tuples(*[coordinate] * 3),
        begin=st.tuples(*[st.integers(-8, 8)] * 3),
        shape=st.tuples(*[st.integers(1, 7)] * 3),
        radius=st.floats(0.1, 300),
    )
    def test_equal_distances_and_parts(
        self, centres: Any, size: Any, origin: Any, begin: Any, shape: Any, radius: float
    ) -> None:
        centres = centres[:, np.argsort(centres[0], kind="stable")]
        kind_of = (np.arange(centres.shape[1]) % 3).astype(np.uint8)
        points = OpenPoints(("a", "b", "c"), centres, kind_of, radius)
        grid = Grid((10**6,) * 3, size, origin_nm=origin)
        box = Box(begin, tuple(a + side for a, side in zip(begin, shape, strict=True)))
        bits = points.paint(grid, box)
        axes = grid.centres_nm(box)
        voxels = np.meshgrid(*axes, indexing="ij")
        away = [axis[..., None] - at for axis, at in zip(voxels, centres, strict=True)]
        squares = sum(length**2 for length in away)
        for number, mask in enumerate(unpack(bits, 3)):
            of_kind = squares[..., kind_of == number]
            sure, maybe = ((of_kind <= radius**2 * (1 + edge)).any(-1) for edge in (-1e-6, 1e-6))
            assert (sure <= mask).all()
            assert (mask <= maybe).all()
        for part in box.split((3, 2, 4)):
            inside = tuple(slice(a - low, b - low) for a, b, low in zip(part.begin, part.end, box.begin, strict=True))
            np.testing.assert_array_equal(points.paint(grid, part), bits[inside])

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64])
    def test_unpack(self, dtype: Any) -> None:
        count = 8 * np.dtype(dtype).itemsize
        masks = np.random.default_rng(0).random((count, 2, 3, 4)) < 0.5
        bits = sum((mask.astype(dtype) << dtype(number) for number, mask in enumerate(masks)), dtype(0))
        assert bits.dtype == dtype
        np.testing.assert_array_equal(unpack(bits, count), masks)
        assert unpack(bits, 0).shape == (0, 2, 3, 4)
