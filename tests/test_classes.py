"""What instances are: each voxel held against a join in pandas, ids of any size, tables that say too little."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from pyarrow import feather

from emcatalog.classes import UNLABELLED, Classes
from emcatalog.drivers.volume import VolumeSource
from emcatalog.errors import (
    ArgumentError,
    CatalogError,
    MissingExtraError,
    NotCachedError,
    SourceCorruptError,
    SourceMissingError,
    SourceUnavailableError,
)
from tests.conftest import Replica, ServeAs, place, python
from tests.replica.malecns import V1_OFFSET, build_malecns
from tests.replica.precomputed import build_precomputed
from tests.replica.tables import table_path
from tests.replica.wire import Server
from tests.test_fetch import assert_clear

PART = (10, 90, 20, 90, 5, 70)
"""Of the miniature, (x0, x1, y0, y1, z0, z1)."""
BOX = place(*PART)
TABLES = {"consensus_nt": ("body_neurotransmitters", "body")}
"""Where a column is, and its key, if not in body_annotations."""
ANNOTATIONS = "*body-annotations*"


def labels_in(replica: Replica, part: Sequence[int] = PART, version: str = "v0.9") -> NDArray[np.uint64]:
    """What was put into a part of the miniature, (z, y, x)."""
    x0, x1, y0, y1, z0, z1 = part
    labels = replica.labels[z0:z1, y0:y1, x0:x1].astype(np.uint64)
    return labels + np.uint64(V1_OFFSET if version == "v1.0" else 0) * (labels > 0)


def said(replica: Replica, column: str, version: str = "v0.9") -> dict[int, str]:
    """What the file says of each body, without those that are null."""
    name, key = TABLES.get(column, ("body_annotations", "bodyId"))
    frame = pd.read_feather(table_path(replica.folder, name, version)).dropna(subset=[column])
    return dict(zip(frame[key].tolist(), frame[column].astype(str).tolist(), strict=True))


def joined(labels: NDArray[Any], class_of: Mapping[int, str], names: Sequence[str]) -> NDArray[np.int64]:
    """Classes voxel by voxel."""
    number = {body: names.index(name) + 1 if name in names else -1 for body, name in class_of.items()}
    found = [0 if body == 0 else number.get(body, -1) for body in labels.ravel().tolist()]
    return np.array(found).reshape(labels.shape)


class TestAnnotate:
    """The shipped entries, with tables whose bodies are those of the labels."""

    @pytest.mark.parametrize("version", ["v0.9", "v1.0"])
    @pytest.mark.parametrize("column", ["superclass", "type", "consensus_nt", "statusLabel"])
    def test_a_join_voxel_by_voxel(
        self, male_cns: Server, catalog: Any, replica: Replica, column: str, version: str
    ) -> None:
        labels, class_of = labels_in(replica, version=version), said(replica, column, version)
        names = sorted(set(class_of.values()))
        found = catalog.malecns(bbox=BOX, version=version).annotate(column, progress=False)
        np.testing.assert_array_equal(found[column], joined(labels, class_of, names))
        assert found[column].attrs["classes"] == names
        bodies = np.unique(labels[labels > 0])
        np.testing.assert_array_equal(found[f"{column}_of"]["body"], bodies)
        assert found[f"{column}_of"].dtype == object
        assert found[f"{column}_of"].values.tolist() == [class_of.get(int(body), "unlabelled") for body in bodies]

    def test_all_there_is_to_tell(self, male_cns: Server, catalog: Any, replica: Replica) -> None:
        """No instance, bodies without a row, bodies of which a row says nothing, and bodies of a class."""
        frame = pd.read_feather(table_path(replica.folder, "body_annotations", "v0.9")).set_index("bodyId")
        labels, found = labels_in(replica), catalog.malecns(bbox=BOX).annotate("superclass")
        volume, lookup = found["superclass"].values, found["superclass_of"]
        bodies = set(np.unique(labels).tolist()) - {0}
        unknown, silent = bodies - set(frame.index), bodies & set(frame.index[frame["superclass"].isna()])
        assert unknown
        assert silent
        assert len(bodies - unknown - silent) > 5
        for body in unknown | silent:
            assert set(volume[labels == body]) == {UNLABELLED}
            assert lookup.sel(body=body).item() == "unlabelled"
        assert (volume[labels == 0] == 0).all()
        assert ((volume == 0) == (labels == 0)).all()
        assert 0 not in lookup["body"]

    def test_form(self, male_cns: Server, catalog: Any) -> None:
        source = catalog.malecns(bbox=BOX)
        found, read = source.annotate("superclass"), source.read()
        assert list(found) == ["superclass", "superclass_of"]
        assert found["superclass"].dims == ("z", "y", "x")
        assert found["superclass"].dtype == np.int8
        for axis in "zyx":
            xr.testing.assert_identical(found[axis], read[axis])
        assert found.attrs == read.attrs
        assert found["superclass"].attrs.items() >= {"kind": "semantic", "unlabelled": -1}.items()
        assert found["superclass"].attrs["source"] == read["labels"].attrs["source"]

    def test_numbers_do_not_depend_on_the_box(self, male_cns: Server, catalog: Any) -> None:
        whole = catalog.malecns(bbox=BOX).annotate("type")
        part = catalog.malecns(bbox=place(50, 60, 40, 50, 30, 31)).annotate("type")
        assert part["type"].attrs["classes"] == whole["type"].attrs["classes"]
        np.testing.assert_array_equal(part["type"], whole["type"].sel(z=part["z"], y=part["y"], x=part["x"]))
        for body in part["body"].values:
            assert part["type_of"].sel(body=body) == whole["type_of"].sel(body=body)

    def test_a_coarser_scale(self, male_cns: Server, catalog: Any, replica: Replica) -> None:
        source, class_of = catalog.malecns(bbox=BOX, resolution=16), said(replica, "superclass")
        expected = joined(source.read()["labels"].values, class_of, sorted(set(class_of.values())))
        np.testing.assert_array_equal(source.annotate("superclass")["superclass"], expected)

    def test_classes_that_count(self, male_cns: Server, catalog: Any, replica: Replica) -> None:
        labels, class_of = labels_in(replica), said(replica, "superclass")
        names = ["vnc_motor", "cb_intrinsic", "ol_intrinsic"]
        assert set(np.unique(joined(labels, class_of, names))) == {-1, 0, 1, 2, 3}
        found = catalog.malecns(bbox=BOX).annotate("superclass", names=names)
        np.testing.assert_array_equal(found["superclass"], joined(labels, class_of, names))
        assert found["superclass"].attrs["classes"] == names
        assert set(found["superclass_of"].values) == {*names, "unlabelled"}
        only = catalog.malecns(bbox=BOX).annotate("superclass", names="vnc_motor")
        np.testing.assert_array_equal(only["superclass"] == 1, found["superclass"] == 1)

    def test_numbers_as_classes(self, male_cns: Server, catalog: Any, replica: Replica) -> None:
        """Whole numbers, which pandas keeps as floats where some are missing."""
        frame = pd.read_feather(table_path(replica.folder, "body_annotations", "v0.9")).dropna(subset=["group"])
        names = [str(int(number)) for number in sorted(set(frame["group"]))]
        assert names != sorted(names)
        class_of = dict(zip(frame["bodyId"].tolist(), (str(int(n)) for n in frame["group"]), strict=True))
        found = catalog.malecns(bbox=BOX).annotate("group")
        assert found["group"].attrs["classes"] == names
        np.testing.assert_array_equal(found["group"], joined(labels_in(replica), class_of, names))
        one = catalog.malecns(bbox=BOX).annotate("group", names=[int(names[0])])
        assert one["group"].attrs["classes"] == names[:1]

    def test_the_other_entry_of_the_same_labels(self, male_cns: Server, catalog: Any) -> None:
        found, other = catalog.malecns(bbox=BOX).annotate("type"), catalog.malecns_data.segmentation(bbox=BOX)
        np.testing.assert_array_equal(other.annotate("type")["type"], found["type"])

    def test_numbered_instances_keep_their_classes(self, male_cns: Server, catalog: Any) -> None:
        found, other = catalog.malecns(bbox=BOX), catalog.malecns(bbox=BOX, consecutive=True)
        xr.testing.assert_identical(other.annotate("type"), found.annotate("type"))

    def test_ids_of_a_read_by_name(self, male_cns: Server, catalog: Any, replica: Replica) -> None:
        source = catalog.malecns(bbox=BOX)
        classes, class_of = source.classes("superclass"), said(replica, "superclass")
        body = next(body for body in class_of if body in labels_in(replica))
        assert classes.names_of([body, 0, 2**63]).tolist() == [class_of[body], "", "unlabelled"]
        assert classes.names_of(source.read()["labels"].values).shape == source.plan().box.shape

    def test_the_image_is_not_read(self, male_cns: Server, catalog: Any) -> None:
        male_cns.clear()
        catalog.malecns(bbox=BOX).annotate("superclass")
        assert not male_cns.count("/em/*")


class TestBadInput:
    def test_a_column_that_is_not_there(self, catalog: Any) -> None:
        with pytest.raises(ArgumentError) as caught:
            catalog.malecns.classes("superclas")
        assert_clear(
            caught.value, ValueError, "no table of this entry has a column 'superclas'", "there are assignedOlHex1",
            "consensus_nt", "Did you mean 'superclass'?",
        )  # fmt: skip

    def test_ids_are_no_classes(self, catalog: Any) -> None:
        for key in ("bodyId", "body"):
            with pytest.raises(ArgumentError, match=f"no table of this entry has a column '{key}'"):
                catalog.malecns.classes(key)

    def test_a_column_that_this_release_does_not_have(
        self, tmp_path: Path, replica: Replica, serve_as: ServeAs, catalog: Any
    ) -> None:
        path = table_path(tmp_path, "body_annotations", "v0.9")
        path.parent.mkdir(parents=True)
        frame = pd.read_feather(table_path(replica.folder, "body_annotations", "v0.9"))
        frame.drop(columns="superclass").to_feather(path)
        serve_as("gs://flyem-male-cns", tmp_path)
        with pytest.raises(ArgumentError, match=r"v0\.9.* no column 'superclass', in this release; .*Did you mean"):
            catalog.malecns.classes("superclass")

    def test_lists_are_no_classes(self, male_cns: Server, catalog: Any) -> None:
        with pytest.raises(ArgumentError, match=r"somaLocation holds list<.*, which are no classes"):
            catalog.malecns.classes("somaLocation")

    @pytest.mark.parametrize(
        ("names", "says"),
        [
            (["cb_intrinsic", "vnc_moto"], r"no class 'vnc_moto'; there are ascending_neuron, .*mean 'vnc_motor'\?"),
            ([], r"\[\] of superclass: name each once, and at least one"),
            (["vnc_motor", "vnc_motor"], "name each once"),
            ("vnc", "no class 'vnc'"),
            (5, "no class '5'"),
            ([None], "no class 'None'"),
        ],
    )
    def test_names_that_are_none(self, male_cns: Server, catalog: Any, names: Any, says: str) -> None:
        with pytest.raises(ArgumentError, match=says):
            catalog.malecns.classes("superclass", names)

    def test_of_many_names_some_are_shown(self, male_cns: Server, catalog: Any) -> None:
        with pytest.raises(ArgumentError) as caught:
            catalog.malecns.classes("type", ["CB1"])
        assert_clear(caught.value, ValueError, ", ....")
        assert len(str(caught.value)) < 1000

    def test_an_entry_without_tables(self, catalog: Any) -> None:
        with pytest.raises(ArgumentError) as caught:
            catalog.demo.annotate("superclass")
        assert_clear(caught.value, ValueError, "'superclass': this entry has no table", "annotations:")

    def test_without_instances(self, catalog: Any) -> None:
        with pytest.raises(ArgumentError, match="no channel of instances among those that are read"):
            catalog.malecns(channels=["raw"]).annotate("superclass")

    def test_a_table_without_a_key(self, tmp_path: Path) -> None:
        with pytest.raises(CatalogError, match="a table that annotates instances names its key"):
            source_of(tmp_path, {"kind": ["a"]}, key=None)


class TestFailures:
    """Tables that cannot be had; labels that can."""

    @pytest.fixture
    def cached(self, male_cns: Server, catalog: Any) -> Server:
        """The labels of the box are in the mirror."""
        catalog.malecns(bbox=BOX, channels=["labels"]).fetch(progress=False)
        male_cns.clear()
        return male_cns

    def test_offline(self, cached: Server, catalog: Any) -> None:
        source = catalog.malecns(bbox=BOX, offline=True)
        with pytest.raises(NotCachedError) as caught:
            source.annotate("superclass")
        assert_clear(caught.value, OSError, "body-annotations-male-cns-v0.9", "was never fetched; fetch() it")
        expected = catalog.malecns(bbox=BOX).annotate("superclass")
        catalog.malecns_data.body_annotations.fetch(progress=False)
        cached.clear()
        xr.testing.assert_identical(source.annotate("superclass"), expected)
        assert cached.requests == []

    def test_the_copy_is_that_of_the_table_s_own_entry(self, cached: Server, catalog: Any) -> None:
        """For both tables, and for nothing but the release that was fetched."""
        for name, column in (("body_annotations", "type"), ("body_neurotransmitters", "consensus_nt")):
            catalog.malecns_data[name].fetch(progress=False)
            cached.clear()
            catalog.malecns(bbox=BOX).annotate(column)
            catalog.malecns_data.segmentation(bbox=BOX).annotate(column)
            assert cached.requests == []
            with pytest.raises(NotCachedError, match=r"male-cns-v1\.0"):
                catalog.malecns(bbox=BOX, version="v1.0", offline=True).classes(column)

    def test_another_cache(self, cached: Server, catalog: Any, tmp_path: Path) -> None:
        elsewhere = tmp_path / "elsewhere"
        catalog.malecns_data.body_annotations(cache_dir=elsewhere).fetch(progress=False)
        assert catalog.malecns(cache_dir=elsewhere, offline=True).classes("type").names
        with pytest.raises(NotCachedError):
            catalog.malecns(offline=True).classes("type")

    def test_a_server_that_is_down(self, cached: Server, catalog: Any) -> None:
        cached.fail(ANNOTATIONS, 503)
        with pytest.raises(SourceUnavailableError, match="body-annotations-male-cns"):
            catalog.malecns(bbox=BOX).annotate("superclass")
        cached.heal()
        assert catalog.malecns(bbox=BOX).annotate("superclass")["superclass"].any()

    def test_a_table_that_is_not_there(self, replica: Replica, serve_as: ServeAs, catalog: Any, tmp_path: Path) -> None:
        build_malecns(tmp_path, ((20000, 20064),) + ((40000, 40064),) * 2, *[replica.labels[:64, :64, :64]] * 2)
        path = table_path(tmp_path, "body_neurotransmitters", "v0.9")
        path.parent.mkdir(parents=True)
        shutil.copy(table_path(replica.folder, "body_neurotransmitters", "v0.9"), path)
        serve_as("gs://flyem-male-cns", tmp_path)
        source = catalog.malecns(bbox=place(0, 20, 0, 20, 0, 20))
        with pytest.raises(SourceMissingError, match="body-annotations-male-cns"):
            source.annotate("superclass")
        assert source.annotate("consensus_nt")["consensus_nt"].any()

    def test_broken_bytes(self, cached: Server, catalog: Any) -> None:
        cached.corrupt(ANNOTATIONS, skip=2)
        with pytest.raises(SourceCorruptError):
            catalog.malecns(bbox=BOX).annotate("superclass")

    def test_without_the_extra(self, cached: Server) -> None:
        script = (
            "import sys; sys.modules['pyarrow'] = None\n"
            "import emcatalog\n"
            "try: emcatalog.catalog.malecns.annotate('type')\n"
            "except emcatalog.errors.MissingExtraError as error: print(error)"
        )
        assert "pip install 'emcatalog[tables]'" in python(script)
        assert issubclass(MissingExtraError, ModuleNotFoundError)


def source_of(
    folder: Path, table: Mapping[str, Any] | pa.Table, labels: NDArray[Any] | None = None, key: str | None = "body"
) -> VolumeSource:
    """An entry of labels with a table of its own."""
    stored = table if isinstance(table, pa.Table) else pa.table(dict(table))
    feather.write_feather(stored, folder / "table.feather")
    declared: dict[str, Any] = {
        "url": f"feather://file://{folder}/table.feather",
        "columns": dict.fromkeys(stored.column_names, "string"),
        "source": "a test",
    }
    if key is not None:
        declared["key"] = key
    if labels is not None:
        build_precomputed(folder / "labels", labels)
    dtype = "uint64" if labels is None else labels.dtype.name
    volume = {"url": f"precomputed://file://{folder}/labels", "kind": "instances", "dtype": dtype, "voxel_size": 8}
    volumes = {"labels": {**volume, "source": "a test"}}
    return VolumeSource(volumes=volumes, voxel_size=[8, 8, 8], annotations=[declared])


class TestIds:
    """Ids beyond what a float, or a signed number, holds."""

    LARGE = (2**53, 2**53 + 1, 2**53 + 2, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 2, 2**64 - 1)

    def labels(self) -> NDArray[np.uint64]:
        """Each of them once, and 0."""
        return np.array([*self.LARGE, 0, 2**53 + 3], np.uint64).reshape(1, 2, 5)

    def test_each_is_itself(self, tmp_path: Path) -> None:
        table = {"body": pa.array(self.LARGE, pa.uint64()), "kind": [f"kind {n}" for n in range(8)]}
        found = source_of(tmp_path, table, self.labels()).annotate("kind")
        assert found["kind"].values.ravel().tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 0, -1]
        assert found["kind_of"].sel(body=np.uint64(2**53 + 1)).item() == "kind 1"
        assert found["kind_of"].sel(body=np.uint64(2**53 + 3)).item() == "unlabelled"
        assert found["body"].dtype == np.uint64

    def test_a_table_that_keeps_them_as_signed_numbers(self, tmp_path: Path) -> None:
        signed = np.array(self.LARGE, np.uint64).view(np.int64)
        assert signed.min() < 0
        found = source_of(tmp_path, {"body": signed, "kind": list("abcdefgh")}, self.labels()).annotate("kind")
        assert found["kind"].values.ravel().tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 0, -1]

    def test_rows_without_an_id_do_not_make_floats_of_the_others(self, tmp_path: Path) -> None:
        table = {"body": pa.array([None, *self.LARGE], pa.uint64()), "kind": list("zabcdefgh")}
        found = source_of(tmp_path, table, self.labels()).annotate("kind")
        assert found["kind"].attrs["classes"][0] == "a"
        assert found["kind"].values.ravel().tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 0, -1]

    @pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8", "uint16", ">u4"])
    def test_labels_of_other_dtypes(self, dtype: str) -> None:
        classes = Classes("kind", ("a", "b"), np.array([3, 5, 2**40], np.uint64), np.array([1, -1, 2], np.int32))
        labels = np.array([[3, 0, 5], [7, 3, 0]], dtype)
        np.testing.assert_array_equal(classes.of(labels), [[1, 0, -1], [-1, 1, 0]])

    def test_negative_labels_are_those_of_negative_ids(self, tmp_path: Path) -> None:
        classes = source_of(tmp_path, {"body": pa.array([-1, -2, 5], pa.int32()), "kind": list("abc")}).classes("kind")
        labels = np.array([-1, -2, -3, 0, 5], np.int64)
        assert classes.of(labels).tolist() == classes.of(labels.astype(np.int32)).tolist() == [1, 2, -1, 0, 3]

    @given(
        rows=st.dictionaries(st.integers(0, 2**64 - 1), st.sampled_from("abc"), max_size=30),
        labels=st.data(),
    )
    def test_equal_a_dictionary(self, rows: dict[int, str], labels: Any) -> None:
        ids = sorted(rows)
        numbers = np.array(["abc".index(rows[each]) + 1 for each in ids], np.int32)
        classes = Classes("kind", tuple("abc"), np.array(ids, np.uint64), numbers)
        values = st.sampled_from([*ids, 0, 1, 2**64 - 1])
        volume = labels.draw(hnp.arrays(np.uint64, hnp.array_shapes(min_dims=3, max_dims=3), elements=values))
        number_of = dict(zip(ids, numbers.tolist(), strict=True))
        expected = [0 if each == 0 else number_of.get(each, -1) for each in volume.ravel().tolist()]
        found = classes.of(volume)
        assert (found.shape, found.dtype) == (volume.shape, np.int8)
        assert found.ravel().tolist() == expected
        names = ["" if n == 0 else "unlabelled" if n == -1 else "abc"[n - 1] for n in expected]
        assert classes.names_of(volume).ravel().tolist() == names

    @pytest.mark.parametrize(("count", "dtype"), [(1, "int8"), (127, "int8"), (128, "int16"), (40_000, "int32")])
    def test_the_dtype_holds_all_classes(self, tmp_path: Path, count: int, dtype: str) -> None:
        bodies = np.arange(1, count + 1)
        classes = source_of(tmp_path, {"body": bodies, "kind": bodies}).classes("kind")
        assert classes.dtype == dtype
        np.testing.assert_array_equal(classes.of(np.append(bodies, 10**9).astype(np.uint64)), [*bodies, -1])

    def test_sent_to_another_process(self, tmp_path: Path) -> None:
        classes = source_of(tmp_path, {"body": [4, 9], "kind": ["b", "a"]}).classes("kind")
        again = pickle.loads(pickle.dumps(classes))
        assert (again.column, again.names) == ("kind", ("a", "b"))
        assert again.of_ids([4, 9, 0, 5]).tolist() == [2, 1, 0, -1]


class TestRows:
    """What tables say, and do not say."""

    @pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
    def test_rows_that_say_nothing(self, tmp_path: Path, kind: pa.DataType) -> None:
        table = {"body": [1, 2, 3, 4], "kind": pa.array(["a", None, "", "b"]).cast(kind)}
        classes = source_of(tmp_path, table).classes("kind")
        assert classes.names == ("a", "b")
        assert classes.of_ids([1, 2, 3, 4, 5, 0]).tolist() == [1, -1, -1, 2, -1, 0]

    def test_not_a_number_says_nothing(self, tmp_path: Path) -> None:
        classes = source_of(tmp_path, {"body": [1, 2, 3], "kind": [0.5, float("nan"), 12.0]}).classes("kind")
        assert classes.names == ("0.5", "12")
        assert classes.of_ids([1, 2, 3]).tolist() == [1, -1, 2]

    def test_yes_and_no(self, tmp_path: Path) -> None:
        classes = source_of(tmp_path, {"body": [1, 2, 3], "kind": [True, False, None]}).classes("kind")
        assert classes.names == ("False", "True")
        assert classes.of_ids([1, 2, 3]).tolist() == [2, 1, -1]

    def test_a_table_without_rows(self, tmp_path: Path) -> None:
        empty = pa.table({"body": pa.array([], pa.int64()), "kind": pa.array([], pa.string())})
        found = source_of(tmp_path, empty, np.array([[[0, 5, 6]]], np.uint64)).annotate("kind")
        assert found["kind"].values.tolist() == [[[0, -1, -1]]]
        assert found["kind_of"].values.tolist() == ["unlabelled", "unlabelled"]
        assert found["kind"].attrs["classes"] == []

    def test_a_box_without_instances(self, tmp_path: Path) -> None:
        found = source_of(tmp_path, {"body": [1], "kind": ["a"]}, np.zeros((2, 3, 4), np.uint64)).annotate("kind")
        assert not found["kind"].any()
        assert found["kind_of"].shape == (0,)

    def test_the_row_of_no_instance(self, tmp_path: Path) -> None:
        found = source_of(tmp_path, {"body": [0, 1], "kind": ["a", "b"]}, np.array([[[0, 1]]], np.uint64))
        assert found.annotate("kind")["kind"].values.tolist() == [[[0, 2]]]

    def test_a_body_twice(self, tmp_path: Path) -> None:
        table = {"body": [7, 1, 7, 1], "kind": ["a", "b", "a", None]}
        assert source_of(tmp_path, table).classes("kind").of_ids([1, 7]).tolist() == [2, 1]

    def test_two_things_of_one_body(self, tmp_path: Path) -> None:
        table = {"body": [2**63 + 5, 1, 2**63 + 5], "kind": ["a", "b", "b"]}
        source = source_of(tmp_path, {**table, "body": pa.array(table["body"], pa.uint64())})
        with pytest.raises(SourceCorruptError) as caught:
            source.classes("kind")
        assert_clear(caught.value, OSError, "table.feather says two things", str(2**63 + 5))
        with pytest.raises(SourceCorruptError):
            source.classes("kind", ["a"])

    def test_ids_that_are_none(self, tmp_path: Path) -> None:
        for ids in ([1.0, 2.5], ["1", "2"]):
            with pytest.raises(SourceCorruptError, match=r"body holds (double|string), which are no ids"):
                source_of(tmp_path, {"body": ids, "kind": ["a", "b"]}).classes("kind")
        source = source_of(tmp_path, {"body": [1], "kind": ["a"]})
        feather.write_feather(pa.table({"kind": ["a"]}), tmp_path / "table.feather")
        with pytest.raises(SourceCorruptError, match="body holds nothing, which are no ids"):
            source.classes("kind")

    def test_the_first_table_that_has_a_column(self, tmp_path: Path) -> None:
        folders = [tmp_path / name for name in "ab"]
        tables = []
        for folder in folders:
            folder.mkdir()
            source = source_of(folder, {"body": [1], "kind": [folder.name], f"only_{folder.name}": ["c"]})
            tables += source.arguments.annotations
        both = VolumeSource(volumes=source.arguments.volumes, voxel_size=[8, 8, 8], annotations=tables)
        assert both.classes("kind").names == ("a",)
        assert both.classes("only_b").names == ("c",)
        with pytest.raises(ArgumentError, match="there are kind, only_a, only_b"):
            both.classes("other")
