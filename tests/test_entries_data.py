"""What a catalog's YAML says of tables, skeletons, files and services, and the errors it gets when it means nothing."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import jsonschema
import pytest

from emcatalog.catalog_file import check_catalog
from emcatalog.cli.check import catalog_schema
from emcatalog.entries import ARGUMENTS
from emcatalog.entries.table import TableArguments
from emcatalog.errors import ArgumentError, CatalogError, UnknownArgumentError
from emcatalog.geometry import NmBox
from tests.test_cli_tables import METADATA

GOOD: dict[str, tuple[str, dict[str, Any]]] = {
    "table": (
        "em_table",
        {
            "url": "feather://gs://bucket/t.feather",
            "columns": {"body": "int64", "x": "int32", "y": "int32", "z": "float32", "kind": "category"},
            "source": "a test",
        },
    ),
    "skeletons": ("em_skeletons", {"url": "swc://gs://bucket/skeletons", "source": "a test"}),
    "neuprint": ("em_neuprint", {"server": "https://neuprint.janelia.org", "dataset": "d:v1", "source": "a test"}),
    "files": ("em_files", {"url": "gs://bucket/folder", "source": "a test"}),
}
"""The key of what is declared -> the driver, and the least that it takes."""

OPTIONAL: dict[str, dict[str, Any]] = {
    "table": {
        "rows": 5, "coordinates": ["x", "y", "z"], "voxel_size": [8, 8, 40], "key": "body", "order_by": ["body"],
        "encoding": "LZ4", "stored_bytes": 7, "md5": "0" * 32, "note": "n", "unconfirmed": "u",
    },
    "skeletons": {
        "units": "voxel", "voxel_size": 8, "space": "s", "count": 3, "stored_bytes": 4, "note": "n", "unconfirmed": "u",
        "storage_options": {"region": "eu-west-1"},
    },
    "neuprint": {"note": "n", "unconfirmed": "u"},
    "files": {"count": 3, "stored_bytes": 4, "note": "n", "storage_options": {"anonymous": False}},
}  # fmt: skip

BY_SCHEMA = {
    "no columns": ("table", {"columns": {}}, "table.columns: .*at least 1 item"),
    "a type that there is not": ("table", {"columns": {"a": "int65"}}, "table.columns.a: .*'int64'.*not 'int65'"),
    "columns in a list": ("table", {"columns": ["a"]}, r"table.columns: .*not \['a'\]"),
    "a column without a name": ("table", {"columns": {"": "int8"}}, "table.columns.: "),
    "without columns": ("table", {"columns": None}, "table.columns: "),
    "rows in a text": ("table", {"rows": "5"}, "table.rows: .*not '5'"),
    "no rows": ("table", {"rows": 0}, "table.rows: .*greater than 0, not 0"),
    "half a row": ("table", {"rows": 1.5}, "table.rows: .*not 1.5"),
    "two coordinates": ("table", {"coordinates": ["x", "y"]}, "table.coordinates.2: it is missing"),
    "coordinates in a text": ("table", {"coordinates": "xyz"}, "table.coordinates: .*not 'xyz'"),
    "a flat voxel": ("table", {"voxel_size": [8, 8]}, "table.voxel_size.2: it is missing"),
    "a voxel of nothing": ("table", {"voxel_size": 0}, "table.voxel_size.0: .*greater than 0, not 0"),
    "a key of nothing": ("table", {"key": ""}, "table.key: "),
    "a checksum of capitals": ("table", {"md5": "A" * 32}, "table.md5: .*pattern"),
    "half a checksum": ("table", {"md5": "0" * 16}, "table.md5: .*pattern"),
    "a misspelt key of a table": ("table", {"colums": {}}, "table.colums: .*Did you mean 'columns'"),
    "no source": ("table", {"source": ""}, "table.source: "),
    "another unit": ("skeletons", {"units": "mm"}, "skeletons.units: .*'nm', 'um' or 'voxel', not 'mm'"),
    "a voxel of three sides": ("skeletons", {"units": "voxel", "voxel_size": [8, 8, 8]}, "skeletons.voxel_size: "),
    "fewer than none": ("skeletons", {"count": -1}, "skeletons.count: .*not -1"),
    "a misspelt key of skeletons": ("skeletons", {"unit": "nm"}, "skeletons.unit: .*Did you mean 'units'"),
    "a token": ("neuprint", {"token": "x"}, "neuprint.token: there is no such key"),
    "no dataset": ("neuprint", {"dataset": ""}, "neuprint.dataset: "),
    "a server that is a number": ("neuprint", {"server": 5}, "neuprint.server: .*not 5"),
    "a misspelt key of files": ("files", {"cuont": 3}, "files.cuont: .*Did you mean 'count'"),
    "files that nobody counted": ("files", {"count": "many"}, "files.count: .*not 'many'"),
    "a secret": ("files", {"storage_options": {"secret": "x"}}, "files.storage_options.secret: there is no such key"),
}  # fmt: skip
"""Mistakes that the JSON schema finds, too."""

BY_US = {
    "a form that there is not": ("table", {"url": "csv://gs://b/t"}, r"table.url: 'csv://gs://b/t' .*feather, parquet"),
    "no form": ("table", {"url": "gs://b/t.feather"}, "table.url: .*starts with a stored form"),
    "a form of skeletons": ("table", {"url": "swc://gs://b/t"}, "table.url: "),
    "up and away": ("table", {"url": "feather://gs://b/../t"}, r"table.url: .*no part '\.\.'"),
    "a coordinate that is no column": ("table", {"coordinates": ["x", "y", "w"]}, "table: coordinates: 'w' is not"),
    "a key that is no column": ("table", {"key": "bdy"}, "table: key: 'bdy' .*Did you mean 'body'"),
    "an order that is no column": ("table", {"order_by": ["bodi"]}, "table: order_by: 'bodi' .*Did you mean 'body'"),
    "voxels of no size": ("skeletons", {"units": "voxel"}, "skeletons: voxel_size goes with units: voxel"),
    "a size of no voxels": ("skeletons", {"voxel_size": 8}, "skeletons: voxel_size goes with units: voxel"),
    "precomputed in um": (
        "skeletons", {"url": "precomputed://gs://b/f", "units": "um"}, "skeletons: precomputed skeletons are in nm",
    ),
    "a form of tables": ("skeletons", {"url": "feather://gs://b/f"}, "skeletons.url: .*swc, precomputed"),
    "in the clear": ("neuprint", {"server": "http://neuprint.janelia.org"}, "neuprint.server: .*https://"),
    "a server's path": ("neuprint", {"server": "https://neuprint.janelia.org/x"}, "neuprint.server: .*without a path"),
    "a user": ("neuprint", {"server": "https://me:word@neuprint.janelia.org"}, "neuprint.server: "),
    "files in a form": ("files", {"url": "files://gs://b/f"}, r"files.url: .*a URL, as in 'gs://bucket/folder'"),
    "files in a path": ("files", {"url": "/data/files"}, r"files.url: .*a URL, .*not '/data/files'"),
    "files elsewhere": ("files", {"url": "ftp://host/f"}, r"files.url: 'ftp://host/f': ftp:// is not among gs, s3"),
    "files up and away": ("files", {"url": "gs://b/../f"}, r"files.url: 'gs://b/../f': .*no part '\.\.'"),
    "whose credentials": (
        "files", {"storage_options": {"anonymous": False, "endpoint_url": "https://x"}}, "files.storage_options",
    ),
}  # fmt: skip
"""Mistakes that no schema can say of an address or of keys that go together."""

CALLERS = {
    "a caller's cache": ("table", {"cache_dir": "/x"}, "args.cache_dir: a caller's choice"),
    "a caller's network": ("skeletons", {"offline": True}, "args.offline: a caller's choice"),
    "a misspelt argument": ("table", {"colums": ["x"]}, "args: there is no argument 'colums'.*Did you mean 'columns'"),
    "another driver's argument": ("files", {"bbox": [0, 1] * 3}, "args: there is no argument 'bbox'"),
    "a token": ("neuprint", {"token": "x"}, "args: there is no argument 'token'"),
    "a box without coordinates": ("table", {"bbox": [0, 1, 0, 1, 0, 1]}, "args: this table has no coordinates"),
    "a filter of nothing": ("table", {"filter": "body=5"}, "args: filter='body=5' is not a mapping"),
    "columns of nothing": ("table", {"columns": []}, r"args: columns=\[\] is not a list of names"),
}


def catalog(what: str, declared: Mapping[str, Any] | None = None, **args: Any) -> dict[str, Any]:
    """A catalog of one entry; a key of None is left out."""
    driver, least = GOOD[what]
    keys = {key: value for key, value in {**copy.deepcopy(least), **(declared or {})}.items() if value is not None}
    return {
        "sources": {"one": {"driver": driver, "description": "d", "args": {what: keys, **args}, "metadata": METADATA}}
    }


def refused(data: dict[str, Any]) -> str:
    with pytest.raises(CatalogError) as caught:
        check_catalog(data, "the/file.yaml")
    return str(caught.value)


def is_valid(data: dict[str, Any]) -> bool:
    """Whether the JSON schema that `emcatalog schema` prints accepts it."""
    return not list(jsonschema.Draft202012Validator(catalog_schema()).iter_errors(data))


class TestYaml:
    @pytest.mark.parametrize("what", GOOD)
    @pytest.mark.parametrize("full", [False, True])
    def test_what_is_right(self, what: str, full: bool) -> None:
        data = catalog(what, OPTIONAL[what] if full else {})
        check_catalog(data, "good.yaml")
        assert is_valid(data)

    @pytest.mark.parametrize("mistake", BY_SCHEMA)
    def test_mistakes_that_the_schema_finds(self, mistake: str) -> None:
        what, declared, says = BY_SCHEMA[mistake]
        data = catalog(what, declared)
        with pytest.raises(CatalogError, match=f"^x: sources.one.args: {says}"):
            check_catalog(data, "x")
        assert not is_valid(data)

    @pytest.mark.parametrize("mistake", BY_US)
    def test_mistakes_that_it_does_not(self, mistake: str) -> None:
        what, declared, says = BY_US[mistake]
        with pytest.raises(CatalogError, match=f"^x: sources.one.args: {says}"):
            check_catalog(catalog(what, declared), "x")

    @pytest.mark.parametrize("mistake", CALLERS)
    def test_what_stands_beside(self, mistake: str) -> None:
        what, args, says = CALLERS[mistake]
        with pytest.raises(CatalogError, match=f"^x: sources.one.{says}"):
            check_catalog(catalog(what, None, **args), "x")

    @pytest.mark.parametrize(
        ("what", "key"),
        [(what, key) for what, (_, least) in GOOD.items() for key in least],
    )
    def test_what_is_missing(self, what: str, key: str) -> None:
        data = catalog(what)
        del data["sources"]["one"]["args"][what][key]
        assert refused(data) == f"the/file.yaml: sources.one.args: {what}.{key}: it is missing"
        assert not is_valid(data)

    @pytest.mark.parametrize("what", GOOD)
    def test_without_what_it_is_of(self, what: str) -> None:
        data = catalog(what)
        data["sources"]["one"]["args"] = {}
        assert refused(data) == f"the/file.yaml: sources.one.args: {what}: it is missing"
        assert not is_valid(data)

    @pytest.mark.parametrize("what", GOOD)
    def test_variants(self, what: str) -> None:
        """A parameter of the entry chooses what is laid over the rest, and each of its values is checked."""
        data = catalog(what)
        entry = data["sources"]["one"]
        entry["parameters"] = {"v": {"description": "d", "type": "str", "default": "a", "allowed": ["a", "b"]}}
        declared = entry["args"][what]
        source = declared.pop("source")
        declared |= {"variant": "{{ v }}", "variants": {"a": {"source": source}, "b": {"source": source, "note": "n"}}}
        check_catalog(data, "good.yaml")
        assert is_valid(data)
        declared["variants"]["b"]["note"] = 5
        assert f"sources.one.args (with {{'v': 'b'}}): {what}.note: " in refused(data)
        assert not is_valid(data)


class TestArguments:
    """What a caller may ask of a table."""

    @pytest.fixture
    def args(self) -> dict[str, Any]:
        declared = {**GOOD["table"][1], "coordinates": ["x", "y", "z"], "voxel_size": [8, 8, 40]}
        return {"table": declared}

    def test_defaults(self, args: dict[str, Any]) -> None:
        parsed = TableArguments.norm(args)
        assert (parsed.chosen, parsed.conditions, parsed.box_nm, parsed.axes) == (None, {}, None, ("x", "y", "z"))

    @pytest.mark.parametrize(
        "columns", [["x", "body"], ("x", "body"), "x,body", "x, body", ["x", "body", "x"]], ids=str
    )
    def test_columns(self, args: dict[str, Any], columns: Any) -> None:
        assert TableArguments.norm({**args, "columns": columns}).chosen == ("x", "body")

    def test_a_box_is_counted_in_voxels(self, args: dict[str, Any]) -> None:
        box = (0, 1, 0, 2, 0, 3)
        assert TableArguments.norm({**args, "bbox": box}).box_nm == NmBox((0, 0, 0), (120, 16, 8))
        assert TableArguments.norm({**args, "bbox": box, "units": "nm"}).box_nm == NmBox((0, 0, 0), (3, 2, 1))

    def test_other_coordinates(self, args: dict[str, Any]) -> None:
        assert TableArguments.norm({**args, "coordinates": "a, b, c"}).axes == ("a", "b", "c")
        del args["table"]["coordinates"]
        assert TableArguments.norm({**args, "coordinates": ["a", "b", "c"], "bbox": (0, 1) * 3}).box_nm is not None

    @pytest.mark.parametrize(
        ("wrong", "says"),
        [
            ({"columns": []}, "columns=.* is not a list of names of columns"),
            ({"columns": [5]}, "columns="),
            ({"columns": {"x": 1}}, "columns="),
            ({"coordinates": ["x", "y"]}, "is not a list of 3 different names"),
            ({"coordinates": ["x", "y", "x"]}, "is not a list of 3 different names"),
            ({"filter": [("body", 5)]}, "is not a mapping of a column to what it holds"),
            ({"filter": {5: 5}}, "is not a mapping"),
            ({"bbox": (0, 1, 0, 1, 0)}, "5 numbers"),
            ({"units": "um"}, "units='um'"),
            ({"offline": "perhaps"}, "offline: "),
        ],
        ids=str,
    )
    def test_a_callers_mistake(self, args: dict[str, Any], wrong: dict[str, Any], says: str) -> None:
        with pytest.raises(ArgumentError, match=says):
            TableArguments.norm({**args, **wrong})

    @pytest.mark.parametrize("what", GOOD)
    def test_an_argument_that_there_is_not(self, what: str) -> None:
        driver, declared = GOOD[what]
        with pytest.raises(UnknownArgumentError, match=r"no argument 'ofline'; .*Did you mean 'offline'"):
            ARGUMENTS[driver].norm({what: declared, "ofline": True})
