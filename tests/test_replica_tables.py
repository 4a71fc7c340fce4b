"""The miniature tables of the male CNS bucket: published in form, in agreement with each other and the labels."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.replica.malecns import V1_OFFSET
from tests.replica.region import Region
from tests.replica.server import REPOSITORY
from tests.replica.table_columns import NAMES
from tests.replica.table_world import SIZE_ZYX, make_world, point_id, point_numbers, shuffled
from tests.replica.tables import FEW, build_tables, count_rows, spoil, table_path, write_table

ROWS = 150_000
"""Syn-points in three record batches."""
SIDE = 48
REGION = (40000, 40000 + SIDE, 40010, 40010 + SIDE, 20020, 20020 + SIDE)
KNOWN = (7, 390_538, 1_099_264_460)
"""Ids in the region that have annotations; 12 has none."""

Tables = dict[tuple[str, str], Path]

OPTIC = "".join(
    f", {place}_{side}_column_label int16, {place}_{side}_column dict16 ordered"
    f", {place}_{side}_layer_label int8, {place}_{side}_layer dict8 ordered"
    for place in ("medulla", "lobula", "lobula_plate")
    for side in "rl"
)
PUBLISHED = {
    "body_annotations": (
        "assignedOlHex1 double, assignedOlHex2 double, bodyId int64, flywireType string, group double, "
        "instance string, somaSide string, statusLabel dict8 ordered, superclass string, type string, vfbId string, "
        "hemibrainType string, itoleeHl string, supertype string, birthtime string, mancBodyid double, "
        "mancGroup double, mancType string, subclass string, synonyms string, class string, rootSide string, "
        "somaNeuromere string, trumanHl string, dimorphism string, matchingNotes string, entryNerve string, "
        "mancSerial double, mcnsSerial double, serialMotif string, fruDsx string, exitNerve string, "
        "receptorType string, somaLocation list<item: int64>, tosomaLocation list<item: int64>, status string"
    ),
    "body_neurotransmitters": (
        "body int64, cell_type string, total_nt_predictions int32, predicted_nt_confidence double, "
        "predicted_nt string, ground_truth string, celltype_total_nt_predictions int32, celltype_predicted_nt string, "
        "celltype_predicted_nt_confidence double, consensus_nt string"
    ),
    "body_stats": (
        "body int64, pre int32, post int32, status_fine dict8 ordered, superclass string, class string, type string, "
        "instance string, downstream int64, synweight int64, rank int64"
    ),
    "connectome_weights": "body_pre int64, body_post int64, weight int64",
    "synapse_points": (
        "z int32, y int32, x int32, kind dict8, conf float, sv int64, body int64, compartment dict8, "
        "major_label int8, major dict8 ordered, primary_label uint8, primary dict16 ordered, "
        "superprimary_label int8, superprimary dict8 ordered, subprimary_label uint8, subprimary dict16 ordered"
        f"{OPTIC}, point_id uint64"
    ),
    "synapse_partners": (
        "x_pre int32, y_pre int32, z_pre int32, body_pre int64, conf_pre float, x_post int32, y_post int32, "
        "z_post int32, body_post int64, conf_post float, primary_post dict16 ordered"
    ),
    "tbar_neurotransmitters": (
        "point_id uint64, x int32, y int32, z int32, conf float, sv int64, body int64, major dict8 ordered, "
        "primary dict16 ordered, nt_acetylcholine_prob float, nt_dopamine_prob float, nt_gaba_prob float, "
        "nt_glutamate_prob float, nt_histamine_prob float, nt_octopamine_prob float, nt_serotonin_prob float, "
        "split dict8"
    ),
}
COUNTS = dict(zip(PUBLISHED, (36, 10, 11, 3, 41, 11, 17), strict=True))
FILES = {
    "body_annotations": "body-annotations-male-cns-v1.0-minconf-0.5.feather",
    "body_neurotransmitters": "body-neurotransmitters-male-cns-v1.0.feather",
    "body_stats": "body-stats-male-cns-v1.0-minconf-0.5.feather",
    "connectome_weights": "connectome-weights-male-cns-v1.0-minconf-0.5.feather",
    "synapse_points": "syn-points-male-cns-v1.0-minconf-0.5.feather",
    "synapse_partners": "syn-partners-male-cns-v1.0-minconf-0.5.feather",
    "tbar_neurotransmitters": "tbar-neurotransmitters-male-cns-v1.0.feather",
}


def labels() -> np.ndarray:
    """Slabs of four bodies and of none."""
    ids = np.array([0, *KNOWN, 12], np.uint64)
    return np.broadcast_to(ids[np.arange(SIDE) // 3 % 5], (SIDE, SIDE, SIDE))


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """Both releases, with a region of labels."""
    folder = tmp_path_factory.mktemp("flyem-male-cns")
    return build_tables(folder, ROWS, region=REGION, labels=labels(), bodies=iter(KNOWN))


@pytest.fixture(scope="module")
def frames(tables: Tables) -> dict[str, pd.DataFrame]:
    """The tables of v1.0."""
    return {name: pd.read_feather(tables["v1.0", name]) for name in NAMES}


def as_text(schema: pa.Schema) -> str:
    def kind(type_: pa.DataType) -> str:
        if not pa.types.is_dictionary(type_):
            return str(type_)
        assert type_.value_type == pa.string()
        return f"dict{type_.index_type.bit_width}{' ordered' if type_.ordered else ''}"

    return ", ".join(f"{field.name} {kind(field.type)}" for field in schema)


def with_objects(frame: pd.DataFrame) -> pd.DataFrame:
    """Text as the release's pandas held it: as objects, which are written as utf8 and not as large_utf8."""
    for column, dtype in frame.dtypes.items():
        if dtype == "str":
            frame[column] = frame[column].astype(object)
        elif isinstance(dtype, pd.CategoricalDtype):
            names = pd.Index(dtype.categories, dtype=object)
            codes = frame[column].cat.codes
            frame[column] = pd.Categorical.from_codes(codes, categories=names, ordered=dtype.ordered)
    return frame


def batches_of(path: Path) -> list[int]:
    with pa.ipc.open_file(str(path)) as reader:
        return [reader.get_batch(number).num_rows for number in range(reader.num_record_batches)]


def point_ids(frame: pd.DataFrame, suffix: str = "") -> np.ndarray:
    z, y, x = (frame[f"{axis}{suffix}"].to_numpy(np.uint64) for axis in "zyx")
    return (z << np.uint64(42)) | (y << np.uint64(21)) | x


# --- the form


@pytest.mark.parametrize("name", NAMES)
class TestForm:
    def test_columns_are_the_published_ones(self, tables: Tables, name: str) -> None:
        schema = feather.read_table(tables["v1.0", name]).schema
        assert as_text(schema) == PUBLISHED[name]
        assert len(schema) == COUNTS[name]

    def test_pandas_writes_the_same_bytes(self, tables: Tables, tmp_path: Path, name: str) -> None:
        path = tables["v1.0", name]
        feather.write_feather(with_objects(pd.read_feather(path)), tmp_path / "written")
        assert path.read_bytes() == (tmp_path / "written").read_bytes()
        assert b"\x04\x22\x4d\x18" in path.read_bytes()  # where an LZ4 frame begins

    def test_record_batches_have_65536_rows(self, tables: Tables, name: str) -> None:
        path = tables["v1.0", name]
        rows = feather.read_table(path).num_rows
        assert batches_of(path) == [65_536] * (rows // 65_536) + [rows % 65_536]
        assert count_rows(path) == rows

    def test_file_stands_where_it_is_published(self, tables: Tables, name: str) -> None:
        path = tables["v1.0", name]
        assert path.name == FILES[name]
        assert path.parts[-4:-1] == ("v1.0", "connectome-data", "flat-connectome")
        assert tables["v0.9", name].parts[-4] == "v0.9"

    def test_same_seed_same_bytes(self, tables: Tables, tmp_path: Path, name: str) -> None:
        again = build_tables(tmp_path / "a", 3000, versions=["v1.0"])["v1.0", name]
        twice = build_tables(tmp_path / "b", 3000, versions=["v1.0"])["v1.0", name]
        other = build_tables(tmp_path / "c", 3000, versions=["v1.0"], seed=5)["v1.0", name]
        assert again.read_bytes() == twice.read_bytes()
        assert again.read_bytes() != other.read_bytes()


def test_several_record_batches_are_tested(tables: Tables) -> None:
    assert len(batches_of(tables["v1.0", "synapse_points"])) == 3
    assert len(batches_of(tables["v1.0", "connectome_weights"])) == 2


def test_point_id_is_the_index_of_points_and_a_column_of_tbars(frames: dict[str, pd.DataFrame]) -> None:
    points, tbars = frames["synapse_points"], frames["tbar_neurotransmitters"]
    assert points.index.name == "point_id"
    assert points.index.is_unique
    np.testing.assert_array_equal(points.index, point_ids(points))
    assert isinstance(tbars.index, pd.RangeIndex)
    np.testing.assert_array_equal(tbars["point_id"], point_ids(tbars))


def test_releases_add_columns(tables: Tables) -> None:
    added = {}
    for name in NAMES:
        old, new = (feather.read_table(tables[version, name]).column_names for version in ("v0.9", "v1.0"))
        added[name] = [column for column in new if column not in old]
        assert old == [column for column in new if column not in added[name]]
        assert tables["v0.9", name].read_bytes() != tables["v1.0", name].read_bytes()
    assert {name: columns for name, columns in added.items() if columns} == {
        "body_annotations": ["receptorType"],
        "synapse_points": ["compartment"],
    }


# --- agreement


def test_ends_of_synapses_are_points(frames: dict[str, pd.DataFrame]) -> None:
    points, partners = frames["synapse_points"], frames["synapse_partners"]
    for end, kind in (("pre", "PreSyn"), ("post", "PostSyn")):
        found = points.loc[point_ids(partners, f"_{end}")]
        assert (found["kind"] == kind).all()
        for column in ("body", "conf"):
            np.testing.assert_array_equal(found[column], partners[f"{column}_{end}"])
    np.testing.assert_array_equal(found["primary"].astype(str), partners["primary_post"].astype(str))
    psds = points.index[points["kind"] == "PostSyn"]
    assert set(psds) == set(point_ids(partners, "_post"))
    assert len(psds) == len(partners)


def test_psds_are_near_their_tbars(frames: dict[str, pd.DataFrame]) -> None:
    partners = frames["synapse_partners"]
    away = np.stack([partners[f"{axis}_post"] - partners[f"{axis}_pre"] for axis in "xyz"])
    distance_nm = 8 * np.linalg.norm(away, axis=0)
    assert 90 < distance_nm.min() < 110
    assert distance_nm.max() < 1000


def test_tbars_are_the_presynaptic_points(frames: dict[str, pd.DataFrame]) -> None:
    points, tbars = frames["synapse_points"], frames["tbar_neurotransmitters"]
    pre = points[points["kind"] == "PreSyn"]
    assert set(pre.index) == set(tbars["point_id"])
    for column in ("x", "y", "z", "conf", "sv", "body", "major", "primary"):
        np.testing.assert_array_equal(pre.loc[tbars["point_id"], column], tbars[column])
    probabilities = tbars.filter(regex="^nt_").to_numpy()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert (probabilities >= 0).all()
    assert set(tbars["split"].dropna()) == {"train", "validation"}
    assert tbars["split"].isna().mean() > 0.9


def test_confidences_are_above_the_published_thresholds(frames: dict[str, pd.DataFrame]) -> None:
    points = frames["synapse_points"]
    least = points.groupby("kind", observed=True)["conf"].min()
    assert 0.7 <= least["PreSyn"] < 0.71
    assert 0.5 <= least["PostSyn"] < 0.51
    assert 0.99 < points["conf"].max() <= 1


def test_weights_are_counted_from_synapses(frames: dict[str, pd.DataFrame]) -> None:
    weights, partners = frames["connectome_weights"], frames["synapse_partners"]
    counted = partners.groupby(["body_pre", "body_post"]).size()
    pd.testing.assert_series_equal(
        weights.set_index(["body_pre", "body_post"])["weight"].sort_index(), counted, check_names=False
    )
    assert weights["weight"].is_monotonic_decreasing
    assert weights["weight"].max() > 20


def test_stats_are_counted_from_synapses(frames: dict[str, pd.DataFrame]) -> None:
    stats, points, partners = frames["body_stats"], frames["synapse_points"], frames["synapse_partners"]
    counted = pd.DataFrame(
        {
            "pre": points.loc[points["kind"] == "PreSyn", "body"].value_counts(),
            "post": partners["body_post"].value_counts(),
            "downstream": partners["body_pre"].value_counts(),
        }
    ).fillna(0)
    found = stats.set_index("body")[["pre", "post", "downstream"]]
    pd.testing.assert_frame_equal(found.sort_index(), counted.sort_index(), check_dtype=False, check_names=False)
    np.testing.assert_array_equal(stats["synweight"], stats["post"] + stats["downstream"])
    assert stats["synweight"].is_monotonic_decreasing
    np.testing.assert_array_equal(stats["rank"], np.arange(1, len(stats) + 1))


def test_stats_repeat_annotations(frames: dict[str, pd.DataFrame]) -> None:
    stats, known = frames["body_stats"].set_index("body"), frames["body_annotations"].set_index("bodyId")
    both = stats.index.intersection(known.index)
    for column in ("superclass", "class", "type", "instance"):
        pd.testing.assert_series_equal(stats.loc[both, column], known.loc[both, column], check_names=False)
    unknown = stats.drop(both)
    assert len(unknown) > len(both) > 500
    assert (unknown["status_fine"] == "").all()
    assert unknown["type"].isna().all()


def test_predictions_are_counted_from_tbars(frames: dict[str, pd.DataFrame]) -> None:
    found, tbars = frames["body_neurotransmitters"].set_index("body"), frames["tbar_neurotransmitters"]
    counted = tbars["body"].value_counts().reindex(found.index, fill_value=0)
    np.testing.assert_array_equal(found["total_nt_predictions"], counted)
    assert set(tbars["body"]) <= set(found.index)
    assert (found["predicted_nt_confidence"].isna() == (counted == 0)).all()
    assert {"acetylcholine", "gaba", "unclear"} <= set(found["consensus_nt"])
    types = frames["body_annotations"].set_index("bodyId")["type"].reindex(found.index)
    pd.testing.assert_series_equal(found["cell_type"], types, check_names=False)


def test_annotations(frames: dict[str, pd.DataFrame]) -> None:
    known = frames["body_annotations"]
    assert known["bodyId"].is_unique
    assert known["bodyId"].is_monotonic_increasing
    assert {body + V1_OFFSET for body in KNOWN} <= set(known["bodyId"])
    assert 0.1 < known["superclass"].isna().mean() < 0.3
    assert known.loc[known["superclass"].isna(), "type"].isna().all()
    assert known.groupby("type")["superclass"].nunique().max() == 1
    assert known.notna().any().all()
    assert known.drop(columns="bodyId").isna().any().all()
    assert set(known["status"].dropna()) == {"Traced", "Orphan", "Anchor", "Assign", "Glia", "Unimportant"}
    soma = np.stack(known["somaLocation"].dropna().to_list())
    assert (soma < SIZE_ZYX[::-1]).all()


def test_bodies_are_like_the_published_ones(frames: dict[str, pd.DataFrame]) -> None:
    points, known = frames["synapse_points"], frames["body_annotations"]["bodyId"]
    annotated = points["body"].isin(known).groupby(points["kind"], observed=True).mean()
    assert annotated["PreSyn"] > 0.7 > annotated["PostSyn"] > 0.2
    assert (points["body"] == 0).any()
    ids = points.loc[points["body"] > 0, "body"]
    assert (ids < 2**32).mean() > 0.95
    assert ids.max() > 2**33
    assert len(str(known.min())) <= 5
    assert len(str(ids.max())) == 12


def test_regions_have_a_name_and_a_label(frames: dict[str, pd.DataFrame]) -> None:
    points = frames["synapse_points"]
    for column in ("major", "primary", "superprimary", "subprimary"):
        np.testing.assert_array_equal(points[f"{column}_label"], points[column].cat.codes)
        assert points[column].cat.categories[0] == "<unspecified>"
    assert (points.loc[points["z"] >= 45_056, "major"].isin(["VNC", "<unspecified>"])).all()
    in_medulla = points["primary"] == "ME(R)"
    assert in_medulla.any()
    assert (in_medulla == (points["medulla_r_column"] != "<unspecified>")).all()
    names = points.loc[in_medulla, "medulla_r_column"].astype(str).str.split("_")
    label = [100 * int(name[3]) + int(name[4]) for name in names]
    np.testing.assert_array_equal(points.loc[in_medulla, "medulla_r_column_label"], label)


# --- labels


@pytest.mark.parametrize(("version", "offset"), [("v0.9", 0), ("v1.0", V1_OFFSET)])
def test_points_in_the_region_lie_on_their_labels(tables: Tables, version: str, offset: int) -> None:
    points = pd.read_feather(tables[version, "synapse_points"])
    x0, x1, y0, y1, z0, z1 = REGION
    inside = points["x"].between(x0, x1 - 1) & points["y"].between(y0, y1 - 1) & points["z"].between(z0, z1 - 1)
    here, elsewhere = points[inside], points[~inside]
    under = labels()[here["z"] - z0, here["y"] - y0, here["x"] - x0].astype(np.int64)
    np.testing.assert_array_equal(here["body"], under + offset * (under > 0))
    assert set(under) == {0, *KNOWN, 12}
    assert set(here["kind"]) == {"PreSyn", "PostSyn"}
    assert len(here) > 1000
    for axis, size in zip("zyx", SIZE_ZYX, strict=True):
        assert elsewhere[axis].min() >= 0
        assert 0.98 * size < elsewhere[axis].max() < size


def test_points_elsewhere_share_each_range_of_the_region(tables: Tables) -> None:
    """No axis alone tells which points are in the region."""
    points = pd.read_feather(tables["v1.0", "synapse_points"])
    ranges = zip("xyz", zip(REGION[::2], REGION[1::2], strict=True), strict=True)
    in_range = pd.DataFrame({axis: points[axis].between(start, stop - 1) for axis, (start, stop) in ranges})
    for axis in "xyz":
        assert (in_range[axis] & ~in_range.all(axis=1)).any()


def test_labels_have_annotations_but_for_every_tenth(tmp_path: Path) -> None:
    ids = np.arange(41, dtype=np.uint64)
    built = build_tables(
        tmp_path,
        {"synapse_points": 2000, "body_annotations": 30},
        versions=["v0.9"],
        region=(0, 41, 0, 41, 0, 41),
        labels=np.broadcast_to(ids, (41, 41, 41)),
    )
    known = pd.read_feather(built["v0.9", "body_annotations"])["bodyId"]
    assert sorted(known[known < 41]) == [body for body in range(41) if body % 10]
    assert len(known) == 36 + 30


# --- order and size


def test_points_sorted_by_z(tmp_path: Path) -> None:
    world = make_world(ROWS, tissue=Region(((70, 118), (0, 48), (0, 48)), labels().astype(np.int64)))
    mixed, by_z = (
        feather.read_table(write_table(tmp_path / order, "synapse_points", world, order=order))
        for order in ("random", "z")
    )
    assert mixed != by_z
    assert mixed.sort_by("point_id") == by_z
    first = mixed["z"].to_numpy()[:65_536]
    assert first.min() < 0.01 * SIZE_ZYX[0]
    assert first.max() > 0.99 * SIZE_ZYX[0]


def test_few_columns(tmp_path: Path) -> None:
    path = write_table(tmp_path / "few", "synapse_points", make_world(1000), columns=FEW)
    frame = pd.read_feather(path)
    assert list(frame.columns) == list(FEW[:-1])
    assert frame.index.name == "point_id"


@given(st.integers(1, 2000))
def test_a_world_of_any_size_has_no_point_twice(points: int) -> None:
    world = make_world(points)
    assert world.tbars + world.psds == points
    by_order = [np.concatenate(list(world.rows(order))) for order in ("random", "z")]
    for rows in by_order:
        np.testing.assert_array_equal(np.sort(rows), np.arange(points))
    assert len(np.unique(point_id(*world.zyx(*point_numbers(by_order[0]))))) == points
    np.testing.assert_array_equal(np.sort(shuffled(np.arange(points), points)), np.arange(points))


def test_one_point_makes_tables(tmp_path: Path) -> None:
    for (_, name), path in build_tables(tmp_path, 1, versions=["v1.0"]).items():
        assert as_text(feather.read_table(path).schema) == PUBLISHED[name]


def test_program(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.replica.tables", str(tmp_path), "--rows", "5000", "--version", "v0.9"]
    command += ["--table", "synapse_points", "--table", "body_stats", "--columns", "few", "--order", "z"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert [report["table"] for report in reports] == ["synapse_points", "body_stats"]
    assert reports[0]["rows"] == 5000
    path = table_path(tmp_path, "synapse_points", "v0.9")
    assert (reports[0]["path"], reports[0]["bytes"]) == (str(path), path.stat().st_size)
    assert pd.read_feather(path).index.is_monotonic_increasing


# --- mistakes


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="connectome_weights"):
        build_tables(tmp_path, {"connectome_weights": 5})
    with pytest.raises(ValueError, match="needs labels"):
        build_tables(tmp_path, region=REGION)
    with pytest.raises(ValueError, match="do not fill"):
        build_tables(tmp_path, region=REGION, labels=labels()[1:])
    with pytest.raises(ValueError, match="not inside"):
        build_tables(tmp_path, region=(94_080, 94_128, 0, 48, 0, 48), labels=labels())
    with pytest.raises(ValueError, match="too small"):
        build_tables(tmp_path, region=(0, 8, 0, 8, 0, 8), labels=labels()[:8, :8, :8])
    with pytest.raises(ValueError, match="at least one"):
        make_world(0)
    with pytest.raises(ValueError, match="no body has annotations"):
        make_world(10, annotated=0)
    with pytest.raises(ValueError, match="neither"):
        write_table(tmp_path / "a", "synapse_points", make_world(10), order="x")


def test_a_spoilt_table_cannot_be_read(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a", "synapse_points", make_world(1000), columns=FEW)
    spoil(path)
    with pytest.raises(OSError, match="LZ4"):
        feather.read_table(path)
