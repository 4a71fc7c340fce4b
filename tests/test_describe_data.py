"""What a person sees of tables, skeletons, files and services, without a request: in Python, a notebook, a terminal."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import emcatalog
from emcatalog.cli.entry import find
from emcatalog.describe.files import describe_files
from emcatalog.describe.neuprint import describe_neuprint
from emcatalog.describe.page import as_html, as_text
from emcatalog.describe.skeletons import describe_skeletons
from emcatalog.describe.table import describe_table
from emcatalog.entries import ARGUMENTS
from tests.test_cli import call
from tests.test_describe import CATALOGS, cells, no_network, rows_of, squeezed
from tests.test_entries_data import GOOD, OPTIONAL

__all__ = ["no_network"]  # a fixture of this module, too

DESCRIBE = {
    "table": describe_table, "skeletons": describe_skeletons, "neuprint": describe_neuprint, "files": describe_files,
}  # fmt: skip


def described(what: str, declared: dict[str, Any] | None = None, **arguments: Any) -> Any:
    driver, least = GOOD[what]
    norm: Any = ARGUMENTS[driver].norm({what: {**least, **(declared or {})}, **arguments})
    return DESCRIBE[what](norm)  # type: ignore[operator]  # each takes the arguments of its own


def sentence(what: str, declared: dict[str, Any] | None = None) -> str:
    return described(what, declared).parts[0].sentence


class TestSentence:
    @pytest.mark.parametrize(
        ("what", "declared", "says"),
        [
            ("table", {}, "Feather, rows not confirmed, 5 columns, size not confirmed"),
            (
                "table",
                {"rows": 1234567, "stored_bytes": 12_700_000_000, "encoding": "LZ4"},
                "Feather LZ4, 1,234,567 rows, 5 columns, 12.7 GB",
            ),
            ("table", {"url": "parquet://gs://b/t"}, "Parquet, rows not confirmed, 5 columns, size not confirmed"),
            ("skeletons", {}, "SWC, in nm; number not confirmed; size not confirmed"),
            (
                "skeletons",
                {"units": "voxel", "voxel_size": 8, "count": 211600, "stored_bytes": 9_000_000_000},
                "SWC, read in nm, stored in voxels of 8 nm; about 211,600; 9 GB",
            ),
            (
                "skeletons",
                {"units": "um", "stored_bytes": 5},
                "SWC, read in nm, stored in um; number not confirmed; 5 B",
            ),
            (
                "skeletons",
                {"url": "precomputed://gs://b/s"},
                "precomputed, in nm; number not confirmed; size not confirmed",
            ),
            ("files", {}, "number not confirmed, size not confirmed"),
            ("files", {"count": 1200, "stored_bytes": 252_000_000_000}, "1,200 files, 252 GB"),
            ("neuprint", {}, "d:v1 at https://neuprint.janelia.org"),
        ],
    )
    def test_of_each(self, what: str, declared: dict[str, Any], says: str) -> None:
        assert sentence(what, declared) == says


class TestFacts:
    def test_of_a_table(self) -> None:
        facts = dict(described("table", OPTIONAL["table"]).parts[0].facts)
        assert facts == {
            "NOT CONFIRMED": "u",
            "rows": "5",
            "columns": "5: body int64, x int32, y int32, z float32, kind category",
            "ids": "body holds the ids of instances",
            "coordinates": "x, y, z, in voxels of 8 x 8 x 40 nm",
            "size": "7 B",
            "md5": "0" * 32,
            "address": "feather://gs://bucket/t.feather",
            "note": "n",
            "numbers from": "a test",
        }

    def test_of_the_others(self) -> None:
        facts = {
            what: dict(described(what, OPTIONAL[what]).parts[0].facts) for what in ("skeletons", "files", "neuprint")
        }
        assert facts["skeletons"]["lengths"] == "read in nm, stored in voxels of 8 nm"
        assert (facts["skeletons"]["how many"], facts["skeletons"]["space"]) == ("about 3", "s")
        assert (facts["files"]["how many"], facts["files"]["size"]) == ("3", "4 B")
        assert list(facts["neuprint"]) == ["NOT CONFIRMED", "server", "dataset", "note", "numbers from"]

    @pytest.mark.parametrize("what", GOOD)
    def test_an_address_that_is_not_confirmed_stands_out(self, what: str) -> None:
        about = described(what, {"unconfirmed": "nobody <knows>"})
        assert not about.parts[0].is_confirmed
        page = ElementTree.fromstring(as_html("one", "", {}, about))
        assert "NOT CONFIRMED" in ["".join(node.itertext()) for node in page.iter("b")]
        assert ["NOT CONFIRMED", "nobody <knows>"] in cells(as_html("one", "", {}, about))

    @pytest.mark.parametrize("what", GOOD)
    def test_nothing_is_said_twice(self, what: str) -> None:
        """But for what is in the table of parts in a notebook, which the list behind it tells whole."""
        part = described(what, OPTIONAL[what]).parts[0]
        values = [value for _, value in part.facts]
        assert len(values) == len(set(values))
        assert part.kind not in values


class TestChosen:
    """Which rows of a table a read would give."""

    def rows(self, **arguments: Any) -> dict[str, str]:
        declared = {"coordinates": ["x", "y", "z"], "voxel_size": 8}
        return dict(described("table", declared, **arguments).chosen)

    def test_all(self) -> None:
        assert self.rows() == {}

    def test_columns_and_a_box(self) -> None:
        assert self.rows(columns="x, y", bbox=(0, 1, 0, 2, 0, 3)) == {
            "columns": "x, y",
            "rows": "x, y, z in x 0..8, y 0..16, z 0..24 nm",
        }

    @pytest.mark.parametrize(
        ("condition", "says"),
        [
            (5, "body is 5"),
            (None, "body is missing"),
            ([1, None, 3], "body is one of 1, missing, 3"),
            (list(range(2000)), "body is one of 2,000 values"),
            (np.arange(5), "body is one of 5 values"),
            ({">=": 0.7, "!=": None}, "body >= 0.7, body != missing"),
            ("x" * 99, f"body is {'x' * 40}"),
            (np.array(5), "body is 5"),
            (iter([1, 2]), "body is <list_iterator object"),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_conditions(self, condition: Any, says: str) -> None:
        assert self.rows(filter={"body": condition})["rows"].startswith(says)
        if hasattr(condition, "__next__"):
            assert next(condition) == 1  # to look at it is not to use it up

    def test_a_filter_stands_in_the_repr(self) -> None:
        source = emcatalog.catalog.malecns_data.synapse_points(filter={"conf": {">=": 0.7}}, columns=["x", "conf"])
        rows = rows_of(repr(source))
        assert (rows["columns"], rows["rows"]) == ("x, conf", "conf >= 0.7")


def test_a_catalog_from_elsewhere_is_escaped() -> None:
    evil = "<script>alert(1)</script>"
    for what in GOOD:
        page = as_html(evil, evil, {"licence": evil}, described(what, {"note": evil, "source": evil}))
        assert "<script" not in page
        assert page.count("&lt;script&gt;") == 5
        assert evil in as_text("one", evil, {}, described(what))


# --- every shipped entry

ENTRIES = [f"malecns_data.{name}" for name in emcatalog.catalog.malecns_data]
KINDS = {"em_table": "table", "em_skeletons": "skeletons", "em_neuprint": "neuprint", "em_files": "files"}
NEW = [name for name in ENTRIES if type(find(emcatalog.catalog, name)).name in KINDS]
COMMANDS = {
    "em_table": "see `emcatalog table`, `plan` and `fetch`",
    "em_skeletons": "see `emcatalog skeleton`",
    "em_neuprint": "it is asked from Python",
    "em_files": "see `emcatalog plan` and `fetch`",
}


@pytest.mark.usefixtures("no_network")
class TestEveryEntry:
    def test_there_are_some_of_each(self) -> None:
        assert len(NEW) == 7 + 3 + 1 + 2
        assert (CATALOGS / "malecns_data.yaml").is_file()

    @pytest.mark.parametrize("name", NEW)
    def test_info(self, name: str) -> None:
        source = find(emcatalog.catalog, name)
        shown = squeezed(call("info", name, env={"COLUMNS": "1000"}).stdout)
        part = source.about().parts[0]
        for fact in (f"{name} {source.description}", f"{part.name} {part.kind}", *map(" ".join, part.facts)):
            assert f"{' '.join(fact.split())}\n" in shown
        assert f"licence {source.metadata['licence']}\n" in shown
        assert "--version Release of the data: v0.9, v1.0 (default v0.9)" in shown
        assert shown.splitlines()[-1].startswith(COMMANDS[type(source).name])

    @pytest.mark.parametrize("name", NEW)
    def test_other_release(self, name: str) -> None:
        shown = call("info", name, "--version", "v1.0", env={"COLUMNS": "1000"}).stdout
        assert "v1.0/" in shown or "male-cns:v1.0" in shown
        assert "v0.9/" not in shown

    @pytest.mark.parametrize("name", NEW)
    def test_repr_and_html(self, name: str) -> None:
        source = find(emcatalog.catalog, name)
        part = source.about().parts[0]
        assert rows_of(repr(source))[part.name] == part.sentence
        rows = cells(source._repr_html_())
        assert rows[1] == [part.name, *part.brief.values()]
        assert len(rows[0]) == len(rows[1])
        for fact in part.facts:
            assert list(fact) in rows

    @pytest.mark.parametrize("width", [60, 80, 120, 160])
    def test_nothing_is_wider_than_the_terminal(self, width: int) -> None:
        for arguments in (("list", "malecns_data"), ("list", "malecns_data", "--long")):
            shown = call(*arguments, env={"COLUMNS": str(width)}).stdout
            assert max(len(line.rstrip()) for line in shown.splitlines()) <= width

    def test_list(self) -> None:
        narrow = " ".join(call("list", "malecns_data", env={"COLUMNS": "80"}).stdout.split())
        wide = squeezed(call("list", "malecns_data", env={"COLUMNS": "400"}).stdout)
        for words in ("table, 12.7 GB, CC BY 4.0", "skeletons, SWC, CC BY 4.0", "files, 252 GB, CC BY 4.0"):
            assert words in narrow
        for words in (
            "table rows not confirmed CC BY 4.0\n41 columns\n12.7 GB",
            "skeletons about 211,600 CC BY 4.0\nSWC",
        ):
            assert words in wide
