"""The service of the shipped catalog through Intake: what it answers, and that the token stays where it was."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import neuprint
import pytest

import emcatalog
from emcatalog.errors import (
    ArgumentError,
    CatalogError,
    NotCachedError,
    SourceDeniedError,
    SourceMissingError,
    SourceUnavailableError,
    UnknownArgumentError,
)
from emcatalog.neuprint_client import TOKEN_VARIABLE
from tests.conftest import python
from tests.replica.neuprint import NeuprintServer, serve_neuprint
from tests.replica.skeletons import VERSIONS
from tests.test_cli import call
from tests.test_cli_tables import METADATA
from tests.test_describe import cells
from tests.test_neuprint import GRAPH, JANELIA, TOKEN, assert_hidden, token

# neuprint-python 0.6.4 on pandas 3.1.
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning")


__all__ = ["token"]  # a fixture of this module, too


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[NeuprintServer]:
    """neuPrint on this computer, in the place of Janelia's."""
    with serve_neuprint({f"male-cns:{version}": GRAPH for version in VERSIONS}, TOKEN) as server:
        monkeypatch.setenv("EMCATALOG_MIRRORS", json.dumps({JANELIA: server.url}))
        yield server


@pytest.fixture
def entry(catalog: Any) -> Any:
    return catalog.malecns_data.neuprint


def foreign(tmp_path: Path, **args: str) -> Path:
    """A catalog that somebody sent."""
    service = {"server": JANELIA, "dataset": "male-cns:v0.9", "source": "a stranger", **args}
    described = {"driver": "em_neuprint", "description": "d", "metadata": METADATA}
    path = tmp_path / "sent.yaml"
    path.write_text(json.dumps({"sources": {"service": {**described, "args": {"neuprint": service}}}}))
    return path


class TestQueries:
    @pytest.mark.parametrize("version", VERSIONS)
    def test_neurons(self, server: NeuprintServer, entry: Any, version: str) -> None:
        neurons, counts = entry(version=version).fetch_neurons([10001, 10002])
        assert neurons["bodyId"].tolist() == [10001, 10002]
        assert neurons["type"].tolist() == ["Mi1", "Tm3"]
        assert counts[counts.bodyId == 10002].values.tolist() == [[10002, "ME(R)", 3, 4], [10002, "OL(R)", 3, 4]]
        asked = [json.loads(request.body)["dataset"] for request in server.requests if request.method == "POST"]
        assert set(asked) == {f"male-cns:{version}"}

    @pytest.mark.parametrize("version", VERSIONS)
    def test_adjacencies(self, server: NeuprintServer, entry: Any, version: str) -> None:
        neurons, weights = entry(version=version).fetch_adjacencies(10001, None)
        assert sorted(neurons["bodyId"]) == [10001, 10002, 10003]
        assert weights.values.tolist() == [
            [10001, 10002, "ME(R)", 3],
            [10001, 10002, "NotPrimary", 2],
            [10001, 10003, "ME(L)", 4],
        ]

    def test_options_are_those_of_neuprint(self, server: NeuprintServer, entry: Any) -> None:
        criteria = neuprint.NeuronCriteria(rois=["OL(R)"], min_pre=4, client=entry.client(default=False))
        assert entry.fetch_neurons(criteria, omit_rois=True)["bodyId"].tolist() == [10001]
        _, weights = entry.fetch_adjacencies(targets="Mi1", omit_rois=True, batch_size=1)
        assert weights.drop(columns="weightHP").values.tolist() == [[10001, 10003, 4], [10002, 10001, 2]]

    def test_the_client_is_neuprints_own(self, server: NeuprintServer, entry: Any) -> None:
        for client in (entry.client(default=False), entry.read(default=False)):
            assert isinstance(client, neuprint.Client)
            assert client.dataset == "male-cns:v0.9"
            assert client.fetch_custom("MATCH (n:Neuron) RETURN count(n) AS n")["n"].tolist() == [3]

    def test_it_becomes_the_default(self, server: NeuprintServer) -> None:
        """In a process of its own: neuprint-python never forgets a client that was used."""
        script = (
            "import emcatalog, neuprint\n"
            "client = emcatalog.catalog.malecns_data.neuprint(version='v1.0').client()\n"
            "print(neuprint.default_client().dataset, len(neuprint.fetch_neurons('Mi1', omit_rois=True)))"
        )
        assert python(script).split() == ["male-cns:v1.0", "2"]

    @pytest.mark.parametrize(
        ("ask", "says"),
        [
            (lambda entry: entry.fetch_neurons([1], omit_roiz=True), "omit_roiz"),
            (lambda entry: entry.fetch_adjacencies(10001, None, rois=["nowhere"]), "nowhere"),
        ],
    )
    def test_what_neuprint_does_not_take(self, server: NeuprintServer, entry: Any, ask: Any, says: str) -> None:
        with pytest.raises(ArgumentError, match=says) as caught:
            ask(entry)
        assert_hidden(caught.value)

    def test_a_query_that_fails(self, server: NeuprintServer, entry: Any) -> None:
        server.fail("/api/custom/custom", 502)
        with pytest.raises(SourceUnavailableError, match="ask again later") as caught:
            entry.fetch_neurons([10001])
        assert_hidden(caught.value)


class TestToken:
    def test_it_stands_nowhere(self, server: NeuprintServer, entry: Any, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        entry.fetch_neurons([10001])
        client = entry.client(default=False)
        shown = [repr(entry), str(entry), entry._repr_html_(), entry.yaml(), repr(entry.arguments), repr(client)]
        shown += [pickle.dumps(entry).decode("latin-1"), pickle.dumps(client).decode("latin-1"), caplog.text]
        shown += [call("info", "malecns_data.neuprint").output, json.dumps(entry.describe(), default=str)]
        for text in shown:
            assert TOKEN not in text
            assert TOKEN.rpartition(".")[2] not in text
        assert all(request.authorization == f"Bearer {TOKEN}" for request in server.requests)

    def test_there_is_none(self, server: NeuprintServer, entry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(TOKEN_VARIABLE)
        with pytest.raises(SourceDeniedError, match=f"{TOKEN_VARIABLE} is not set: log in at .*/account"):
            entry.client()
        assert server.requests == []

    def test_a_wrong_one(self, server: NeuprintServer, entry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(TOKEN_VARIABLE, f"{TOKEN}x")
        with pytest.raises(SourceDeniedError, match="refuses the token") as caught:
            entry.fetch_neurons([1])
        assert_hidden(caught.value)

    def test_pickled_it_takes_that_of_its_new_process(self, server: NeuprintServer, entry: Any, tmp_path: Path) -> None:
        (tmp_path / "source").write_bytes(pickle.dumps(entry(version="v1.0")))
        script = (
            "import pickle, sys; source = pickle.load(open(sys.argv[1], 'rb'))\n"
            "print(source.name, source.client().dataset)"
        )
        assert python(script, str(tmp_path / "source")).split() == ["neuprint", "male-cns:v1.0"]

    @pytest.mark.parametrize("stranger", ["https://neuprint.example.org", "https://neuprint.janelia.org.example.org"])
    def test_a_catalog_from_elsewhere_does_not_get_it(self, tmp_path: Path, stranger: str) -> None:
        source = emcatalog.open_catalog(foreign(tmp_path, server=stranger)).service
        for ask in (source.client, lambda: source.fetch_neurons([1]), lambda: source.fetch_adjacencies(1)):
            with pytest.raises(CatalogError, match=r"is shown to neuPrint's own servers.*EMCATALOG_MIRRORS") as caught:
                ask()
            assert stranger in str(caught.value)
            assert_hidden(caught.value)

    @pytest.mark.parametrize(
        "args",
        [
            {"server": "http://neuprint.janelia.org"},
            {"server": "https://me:secret@neuprint.janelia.org"},
            {"server": "https://neuprint.janelia.org/api"},
            {"token": "x"},
        ],
        ids=str,
    )
    def test_what_a_catalog_cannot_say(self, tmp_path: Path, args: dict[str, str]) -> None:
        path = foreign(tmp_path, **args)
        key = next(iter(args))
        with pytest.raises(CatalogError, match=rf"sent.yaml: sources.service.args: neuprint.{key}: "):
            list(emcatalog.open_catalog(path))

    def test_a_server_that_the_user_names_gets_it(
        self, server: NeuprintServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own = "https://neuprint.example.org"
        monkeypatch.setenv("EMCATALOG_MIRRORS", json.dumps({own: server.url}))
        source = emcatalog.open_catalog(foreign(tmp_path, server=own)).service
        assert source.fetch_neurons("Tm3", omit_rois=True)["bodyId"].tolist() == [10002]


class TestSource:
    def test_offline(self, server: NeuprintServer, entry: Any) -> None:
        with pytest.raises(NotCachedError, match="a service, which only answers over the network"):
            entry(offline=True).client()
        assert server.requests == []

    def test_a_dataset_that_is_not_there(self, entry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        with serve_neuprint({"male-cns:v0.9": GRAPH}, TOKEN) as server:
            monkeypatch.setenv("EMCATALOG_MIRRORS", json.dumps({JANELIA: server.url}))
            with pytest.raises(SourceMissingError, match=r"no dataset 'male-cns:v1.0'.*there are male-cns:v0.9"):
                entry(version="v1.0").client()

    def test_what_it_is_asks_nothing(self, server: NeuprintServer, entry: Any) -> None:
        assert f"male-cns:v1.0 at {JANELIA}" in repr(entry(version="v1.0"))
        assert cells(entry._repr_html_())[:2] == [
            ["service", "server", "dataset"],
            ["neuprint", JANELIA, "male-cns:v0.9"],
        ]
        assert server.requests == []

    def test_nothing_else_reads_it(self, server: NeuprintServer, entry: Any) -> None:
        for ask in (entry.to_dask, lambda: entry.read_partition(0), lambda: next(entry.read_chunked())):
            with pytest.raises(ArgumentError, match=r"neuprint is not read in this way: .*client\(\)"):
                ask()
        assert entry.discover()["dtype"] is None
        assert server.requests == []

    def test_a_misspelt_argument(self, entry: Any) -> None:
        with pytest.raises(UnknownArgumentError, match=r"no argument 'token'; there are offline, cache_dir"):
            entry(token="x")
