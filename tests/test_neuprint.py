"""The neuPrint client: what it fetches, what it says when it cannot, and that nobody else ever sees the token."""

from __future__ import annotations

import copy
import datetime
import ipaddress
import json
import logging
import pickle
import ssl
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import neuprint
import pandas as pd
import pytest
import requests
import urllib3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import assume, given
from hypothesis import strategies as st

from emcatalog import neuprint_client
from emcatalog.errors import (
    ArgumentError,
    CatalogError,
    EmcatalogError,
    NotCachedError,
    SettingsError,
    SourceCorruptError,
    SourceDeniedError,
    SourceMissingError,
    SourceUnavailableError,
)
from emcatalog.neuprint_client import TOKEN_VARIABLE, open_client, query_errors
from emcatalog.settings import load_settings
from tests.conftest import python
from tests.replica.neuprint import Body, Connection, Graph, NeuprintServer, serve_neuprint

# neuprint-python 0.6.4 on pandas 3.1.
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning")

JANELIA = "https://neuprint.janelia.org"
DATASET = "male-cns:v0.9"

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJlbWFpbCI6Im1lIn0.c2lnbmF0dXJl-of_me"
"""Of the form that neuPrint's are (a JWT)."""
OTHER_TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJlbWFpbCI6InlvdSJ9.c2lnbmF0dXJl-of_you"


def _neuron(type_: str, side: str) -> dict[str, str]:
    return {"type": type_, "instance": f"{type_}_{side}", "superclass": "ol_intrinsic", "statusLabel": "Roughly traced"}


GRAPH = Graph(
    bodies=[
        Body(10001, {"ME(R)": (5, 7), "OL(R)": (5, 7)}, 6, 9, (41000, 42000, 20100), annotations=_neuron("Mi1", "R")),
        Body(10002, {"ME(R)": (3, 4), "OL(R)": (3, 4)}, 3, 4, annotations=_neuron("Tm3", "R")),
        Body(10003, {"ME(L)": (2, 8)}, 2, 8, annotations=_neuron("Mi1", "L")),
        Body(555000111, {}, 0, 1, is_neuron=False),
    ],
    connections=[
        Connection(10001, 10002, 5, {"ME(R)": 3, "OL(R)": 3}),
        Connection(10002, 10001, 2, {"ME(R)": 2, "OL(R)": 2}),
        Connection(10001, 10003, 4, {"ME(L)": 4}),
        Connection(10001, 555000111, 1, {}),
    ],
    primary_rois=["ME(L)", "ME(R)"],
    other_rois=["OL(R)"],
)

Mirror = Callable[..., None]


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Mirror:
    """Sets the user's table of mirrors."""
    return lambda **table: monkeypatch.setenv("EMCATALOG_MIRRORS", json.dumps(table))


@pytest.fixture(autouse=True)
def token(settings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's token, and no proxy between the tests and their servers."""
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    # The repr of a criterion, which `variables` need, fails in neuprint-python 0.6.4 over a misspelt name.
    monkeypatch.setattr(neuprint.NeuronCriteria, "_list_props_regex", (), raising=False)


@pytest.fixture
def server(mirror: Mirror) -> Iterator[NeuprintServer]:
    """neuPrint on this computer, in the place of Janelia's."""
    graphs = dict.fromkeys((DATASET, "male-cns:v1.0", "hemibrain:v1.2.1"), GRAPH)
    with serve_neuprint(graphs, TOKEN) as server:
        mirror(**{JANELIA: server.url})
        yield server


@pytest.fixture
def stranger() -> Iterator[NeuprintServer]:
    """A server that takes any token."""
    with serve_neuprint({DATASET: GRAPH}, None) as server:
        yield server


def opened(server: str = JANELIA, dataset: str = DATASET, **options: Any) -> Any:
    """The client of an entry."""
    return open_client(server, dataset, load_settings(), **options)


def refused(server: str = JANELIA, dataset: str = DATASET) -> EmcatalogError:
    """The error in place of a client, which keeps the token to itself."""
    with pytest.raises(EmcatalogError) as caught:
        opened(server, dataset)
    assert_hidden(caught.value)
    return caught.value


def assert_hidden(error: BaseException) -> None:
    """Nothing that is printed or sent of an error holds the token, not even with the variables of its frames."""
    shown = [str(error), repr(error), *traceback.format_exception(error), pickle.dumps(error).decode("latin-1")]
    shown += [repr(value) for value in variables(error)]
    for text in shown:
        assert TOKEN not in text
        assert TOKEN.rpartition(".")[2] not in text


def variables(error: BaseException | None) -> Iterator[object]:
    """The local variables that a tool like rich shows with a traceback: of an error and what it came from."""
    if error is None:
        return
    for frame, _ in traceback.walk_tb(error.__traceback__):
        yield from frame.f_locals.values()
    yield from variables(error.__cause__)
    yield from variables(error.__context__)


class TestQueries:
    def test_neurons_by_id(self, server: NeuprintServer) -> None:
        neurons, counts = neuprint.fetch_neurons([10001, 10002], client=opened())
        assert neurons["bodyId"].tolist() == [10001, 10002]
        assert neurons["type"].tolist() == ["Mi1", "Tm3"]
        assert neurons["superclass"].tolist() == ["ol_intrinsic"] * 2
        assert neurons["pre"].tolist() == [6, 3]
        assert neurons["somaLocation"].tolist() == [[41000, 42000, 20100], None]
        assert neurons["inputRois"].tolist() == [["ME(R)", "OL(R)"]] * 2
        assert counts.values.tolist() == [
            [10001, "ME(R)", 5, 7],
            [10001, "NotPrimary", 1, 2],
            [10001, "OL(R)", 5, 7],
            [10002, "ME(R)", 3, 4],
            [10002, "OL(R)", 3, 4],
        ]

    def test_neurons_by_many_ids(self, server: NeuprintServer) -> None:
        asked = [10003, 10002, 10001, 7, 555000111]
        neurons = neuprint.fetch_neurons(asked, omit_rois=True, client=opened())
        assert neurons["bodyId"].tolist() == [10001, 10002, 10003, 555000111]

    @pytest.mark.parametrize(
        ("criteria", "ids"),
        [("Mi1", [10001, 10003]), ("Mi1_L", [10003]), ("(Mi|Tm).*", [10001, 10002, 10003]), ("KC", [])],
    )
    def test_neurons_by_type_or_instance(self, server: NeuprintServer, criteria: str, ids: list[int]) -> None:
        assert neuprint.fetch_neurons(criteria, client=opened())[0]["bodyId"].tolist() == ids

    def test_neurons_by_criteria(self, server: NeuprintServer) -> None:
        criteria = neuprint.NeuronCriteria(superclass="ol_intrinsic", rois=["OL(R)"], cropped=False, min_pre=4)
        assert neuprint.fetch_neurons(criteria, client=opened())[0]["bodyId"].tolist() == [10001]

    def test_adjacencies_of_one_neuron(self, server: NeuprintServer) -> None:
        neurons, weights = neuprint.fetch_adjacencies(10001, None, client=opened())
        assert sorted(neurons["bodyId"]) == [10001, 10002, 10003]
        assert dict(zip(neurons["bodyId"], neurons["instance"], strict=True))[10003] == "Mi1_L"
        assert weights.values.tolist() == [
            [10001, 10002, "ME(R)", 3],
            [10001, 10002, "NotPrimary", 2],
            [10001, 10003, "ME(L)", 4],
        ]

    def test_adjacencies_in_batches(self, server: NeuprintServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """neuprint-python fetches them in threads, each with a copy of the client: the copies have the token."""
        client = opened()
        monkeypatch.delenv(TOKEN_VARIABLE)
        _, weights = neuprint.fetch_adjacencies(None, "Mi1", omit_rois=True, batch_size=1, client=client)
        assert weights.drop(columns="weightHP").values.tolist() == [[10001, 10003, 4], [10002, 10001, 2]]

    def test_adjacencies_above_a_weight(self, server: NeuprintServer) -> None:
        _, weights = neuprint.fetch_adjacencies(None, None, rois=["ME(R)"], min_total_weight=3, client=opened())
        assert weights.values.tolist() == [[10001, 10002, "ME(R)", 3]]

    def test_cypher_of_the_user(self, server: NeuprintServer) -> None:
        query = "MATCH (n:Neuron) WHERE n.bodyId >= 10002 RETURN n.type, n.pre AS pre ORDER BY pre"
        table = opened().fetch_custom(query)
        pd.testing.assert_frame_equal(table, pd.DataFrame({"n.type": ["Mi1", "Tm3"], "pre": [2, 3]}))

    def test_regions(self, server: NeuprintServer) -> None:
        client = opened()
        assert client.primary_rois == ["ME(L)", "ME(R)"]
        assert client.all_rois == ["ME(L)", "ME(R)", "OL(R)"]
        assert neuprint.fetch_meta(client=client)["voxelSize"] == [8, 8, 8]


class TestClient:
    def test_is_neuprints_own(self, server: NeuprintServer) -> None:
        client = opened()
        assert isinstance(client, neuprint.Client)
        assert repr(client) == f'Client("{server.url}", "{DATASET}")'

    def test_opening_asks_once(self, server: NeuprintServer) -> None:
        for _ in range(2):
            opened()
        assert [(request.method, request.path) for request in server.requests] == [("GET", "/api/dbmeta/datasets")] * 2

    def test_is_the_default_while_it_is_kept(self, server: NeuprintServer) -> None:
        """In a process of its own: neuprint-python never forgets a client that was used."""
        script = f"""
import neuprint
from emcatalog.neuprint_client import open_client
from emcatalog.settings import load_settings
client = open_client("{JANELIA}", "{DATASET}", load_settings())
print(len(neuprint.fetch_neurons("Mi1", omit_rois=True)))
other = open_client("{JANELIA}", "hemibrain:v1.2.1", load_settings(), default=False)
print(len(neuprint.fetch_neurons("Mi1", omit_rois=True, client=other)), neuprint.default_client() == client)
"""
        assert python(script).split() == ["2", "2", "True"]

    def test_another_default_than_the_users_is_not_made(self, server: NeuprintServer) -> None:
        script = f"""
import neuprint
from emcatalog.neuprint_client import open_client
from emcatalog.settings import load_settings
client = open_client("{JANELIA}", "{DATASET}", load_settings(), default=False)
print(len(neuprint.list_all_clients()))
neuprint.set_default_client(client)
print(neuprint.default_client().dataset)
"""
        assert python(script).split() == ["0", DATASET]

    def test_retries_what_may_pass(self, server: NeuprintServer) -> None:
        server.fail("/api/dbmeta/datasets", 503, times=1)
        assert opened().dataset == DATASET
        assert len(server.requests) == 2

    def test_over_https(self, mirror: Mirror, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        with serve_neuprint({DATASET: GRAPH}, TOKEN, make_tls(tmp_path)) as server:
            mirror(**{JANELIA: server.url})
            untrusted = refused()
            assert isinstance(untrusted, SourceUnavailableError)
            assert "CERTIFICATE_VERIFY_FAILED" in str(untrusted)
            assert server.requests == []
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "certificate.pem"))
            client = opened()
            assert client.server == server.url
            assert len(neuprint.fetch_neurons("Mi1", client=client)[0]) == 2

    def test_without_neuprint_python(self) -> None:
        script = """
import sys
sys.modules["neuprint"] = None
try:
    import emcatalog.neuprint_client
except ImportError as error:
    print(type(error).__name__, error)
"""
        said = python(script)
        assert said.startswith("MissingExtraError neuprint-python is not installed")
        assert "pip install 'emcatalog[neuprint]'" in said


class TestToken:
    """What NEUPRINT_APPLICATION_CREDENTIALS may hold."""

    @pytest.mark.parametrize(
        "text",
        [
            TOKEN,
            f'"{TOKEN}"',
            f" {TOKEN}\n",
            json.dumps({"token": TOKEN}),
            json.dumps({"a": 1, "token": TOKEN}, indent=1),
        ],
        ids=["raw", "quoted", "with blanks", "document", "document with more"],
    )
    def test_forms(self, server: NeuprintServer, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        monkeypatch.setenv(TOKEN_VARIABLE, text)
        opened().fetch_custom("MATCH (m:Meta) RETURN m.primaryRois AS rois")
        assert {request.authorization for request in server.requests} == {f"Bearer {TOKEN}"}

    @pytest.mark.parametrize(
        "text",
        [
            f'{{"token": "{TOKEN}"',
            json.dumps({"tok": TOKEN}),
            json.dumps({"token": [TOKEN]}),
            f"{TOKEN}\n{TOKEN}",
            f"token:{TOKEN}",
            f"{TOKEN}é",
        ],
        ids=["cut document", "document of something else", "list", "two", "with a name", "not ASCII"],
    )
    def test_not_understood(self, server: NeuprintServer, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        monkeypatch.setenv(TOKEN_VARIABLE, text)
        error = refused()
        assert isinstance(error, SettingsError)
        assert TOKEN_VARIABLE in str(error)
        assert f"{server.url}/account" in str(error)
        assert server.requests == []

    @pytest.mark.parametrize("text", [None, "", " "])
    def test_missing(self, server: NeuprintServer, monkeypatch: pytest.MonkeyPatch, text: str | None) -> None:
        monkeypatch.setenv(TOKEN_VARIABLE, text) if text is not None else monkeypatch.delenv(TOKEN_VARIABLE)
        error = refused()
        assert isinstance(error, SourceDeniedError)
        assert isinstance(error, PermissionError)
        assert f"{TOKEN_VARIABLE} is not set: log in at {server.url}/account" in str(error)
        assert server.requests == []

    @pytest.mark.parametrize("status", [401, 403])
    def test_refused(self, server: NeuprintServer, status: int) -> None:
        server.fail("/api/*", status)
        error = refused()
        assert isinstance(error, SourceDeniedError)
        assert f"{server.url} refuses the token of {TOKEN_VARIABLE} ({status} " in str(error)

    def test_of_another_server(self, server: NeuprintServer) -> None:
        server.token = OTHER_TOKEN
        error = refused()
        assert isinstance(error, SourceDeniedError)
        assert "(401 invalid or expired token)" in str(error)
        assert f"{server.url}/account" in str(error)


class TestSecrecy:
    """Where the token must not be."""

    def test_not_in_logs_and_texts(self, server: NeuprintServer, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        client = opened()
        neuprint.fetch_adjacencies(10001, None, client=client)
        assert {"urllib3.connectionpool", "neuprint.client"} <= {record.name for record in caplog.records}
        for text in (caplog.text, repr(client), str(client), f"{[client]}", repr(load_settings())):
            assert TOKEN not in text

    def test_not_in_a_pickle(self, server: NeuprintServer) -> None:
        client = opened()
        client.session.cookies.set("login", TOKEN)
        client.fetch_custom("MATCH (m:Meta) RETURN m.primaryRois AS rois")
        sent = pickle.dumps(client)
        assert TOKEN.encode() not in sent
        again = pickle.loads(sent)
        assert again == client
        assert len(neuprint.fetch_neurons("Mi1", client=again)[0]) == 2

    def test_of_the_process_that_unpickles(self, server: NeuprintServer, monkeypatch: pytest.MonkeyPatch) -> None:
        sent = pickle.dumps(opened())
        server.token = OTHER_TOKEN
        monkeypatch.setenv(TOKEN_VARIABLE, OTHER_TOKEN)
        assert pickle.loads(sent).fetch_version() == "1.9.2"
        monkeypatch.delenv(TOKEN_VARIABLE)
        with pytest.raises(SourceDeniedError, match=f"{TOKEN_VARIABLE} is not set"):
            pickle.loads(sent)

    def test_copies_keep_it(self, server: NeuprintServer, monkeypatch: pytest.MonkeyPatch) -> None:
        client = opened()
        monkeypatch.delenv(TOKEN_VARIABLE)
        assert copy.deepcopy(client).fetch_version() == "1.9.2"

    def test_not_in_the_error_of_a_query(self, server: NeuprintServer) -> None:
        client = opened()
        with pytest.raises(requests.HTTPError, match="Invalid input 'DELETE'") as caught:
            client.fetch_custom("MATCH (n:Neuron) DELETE n")
        assert_hidden(caught.value)
        server.token = OTHER_TOKEN
        with pytest.raises(requests.HTTPError, match="401") as caught:
            client.fetch_datasets(reload_cache=True)
        assert_hidden(caught.value)

    def test_not_in_the_error_of_a_server_that_went_away(self, mirror: Mirror) -> None:
        with serve_neuprint({DATASET: GRAPH}, TOKEN) as server:
            mirror(**{JANELIA: server.url})
            client = opened()
        with pytest.raises(requests.ConnectionError, match="refused") as caught:
            client.fetch_version()
        assert_hidden(caught.value)

    def test_not_in_the_error_of_a_server_that_sends_in_circles(self, server: NeuprintServer) -> None:
        client = opened()
        server.moved_to = server.url
        with pytest.raises(requests.TooManyRedirects) as caught:
            client.fetch_version()
        assert_hidden(caught.value)

    def test_not_in_the_error_of_a_request_that_is_never_sent(self, server: NeuprintServer) -> None:
        client = opened()
        client.server = "https://127.0.0.1:99999"
        with pytest.raises(requests.exceptions.InvalidURL, match="99999") as caught:
            client.fetch_version()
        assert_hidden(caught.value)

    def test_not_in_what_a_server_repeats(self, server: NeuprintServer, monkeypatch: pytest.MonkeyPatch) -> None:
        client = opened()
        monkeypatch.setattr(server, "answer", lambda request: (401, {"message": f"what is {request.authorization}?"}))
        assert "(401 what is Bearer ***?)" in str(refused())
        monkeypatch.setattr(server, "answer", lambda request: (400, {"error": f"what is {request.authorization}?"}))
        with pytest.raises(requests.HTTPError, match=r"what is Bearer \*\*\*\?") as caught:
            client.fetch_version()
        assert TOKEN not in "".join(traceback.format_exception(caught.value))

    def test_not_sent_on(self, server: NeuprintServer, stranger: NeuprintServer) -> None:
        client = opened()
        server.moved_to = stranger.url
        error = refused()
        assert isinstance(error, SourceUnavailableError)
        assert "sends on to another address" in str(error)
        assert stranger.requests == []
        client.fetch_version()  # requests follows it
        assert [request.authorization for request in stranger.requests] == [None]


class TestStrangers:
    """A catalog cannot choose whom the token is shown to."""

    def test_nothing_is_sent_to_a_server_of_a_catalog(self, server: NeuprintServer, stranger: NeuprintServer) -> None:
        error = refused(stranger.url)
        assert isinstance(error, CatalogError)
        assert f'EMCATALOG_MIRRORS=\'{{"{stranger.url}": "{stranger.url}"}}\'' in str(error)
        assert stranger.requests == []

    def test_the_user_can_trust_it(self, stranger: NeuprintServer, mirror: Mirror) -> None:
        mirror(**{stranger.url: stranger.url})
        assert opened(stranger.url).fetch_version() == "1.9.2"
        assert {request.authorization for request in stranger.requests} == {f"Bearer {TOKEN}"}

    @pytest.mark.parametrize(
        "address",
        [
            "https://neuprint.janelia.org.example.org",
            "https://notneuprint.janelia.org",
            "https://neuprint.janelia.org.",
            "https://neuprint.janelia.org:8443",
            "https://neuprint.janelia.org@{host}",
            "https://{host}\\@neuprint.janelia.org",
            "https://{host}#@neuprint.janelia.org",
            "https://{host}?@neuprint.janelia.org",
            "https://neuprint.janelia.org\n@{host}",
            "http://neuprint.janelia.org",
            "https://example.org",
            "http://localhost:{port}",
        ],
    )
    def test_addresses_that_look_like_another(
        self, server: NeuprintServer, stranger: NeuprintServer, address: str
    ) -> None:
        host = stranger.url.removeprefix("http://")
        error = refused(address.format(host=host, port=host.rpartition(":")[2]))
        assert isinstance(error, CatalogError)
        assert (server.requests, stranger.requests) == ([], [])

    @given(st.from_regex(neuprint_client._SERVER, fullmatch=True))
    def test_an_address_has_one_reading(self, address: str) -> None:
        """What is checked, what requests connects to, and what Python reads are the same host."""
        match = neuprint_client._SERVER.fullmatch(address)
        assert match is not None
        assume(int((match["port"] or ":0")[1:]) < 1 << 16)
        assert match["host"].lower() == urllib3.util.parse_url(address).host
        assert match["host"].lower().strip("[]") == urlsplit(address).hostname

    @pytest.mark.parametrize(
        "address", ["", "neuprint.janelia.org", "gs://bucket", "file:///etc", "https://", "https:/a"]
    )
    def test_no_address(self, address: str) -> None:
        error = refused(address)
        assert isinstance(error, CatalogError)
        assert "is not the address of a neuPrint server, such as 'https://neuprint.janelia.org'" in str(error)

    @pytest.mark.parametrize(
        ("target", "said"),
        [
            ("file:///data/neuprint", "is not the address of a neuPrint server"),
            ("http://neuprint.example.org", "over the network in the clear; use https://"),
        ],
    )
    def test_a_mirror_that_cannot_be_one(self, mirror: Mirror, target: str, said: str) -> None:
        mirror(**{JANELIA: target})
        error = refused()
        assert isinstance(error, SettingsError)
        assert f"EMCATALOG_MIRRORS: '{target}'" in str(error)
        assert said in str(error)


class TestFailures:
    def test_a_server_that_is_down(self, mirror: Mirror) -> None:
        with serve_neuprint({DATASET: GRAPH}, TOKEN) as server:
            mirror(**{JANELIA: server.url})
        error = refused()
        assert isinstance(error, SourceUnavailableError)
        assert isinstance(error, ConnectionError)
        assert f"{server.url}/api/dbmeta/datasets cannot be reached" in str(error)

    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
    def test_a_server_that_keeps_failing(self, server: NeuprintServer, status: int) -> None:
        server.fail("/api/*", status)
        error = refused()
        assert isinstance(error, SourceUnavailableError)
        assert f"keeps failing; ask again later. ({status} a fault)" in str(error)
        assert len(server.requests) == 2

    def test_another_server_than_neuprint(self, server: NeuprintServer) -> None:
        server.fail("/api/*", 404)
        error = refused()
        assert isinstance(error, SourceMissingError)
        assert f"{server.url} is no neuPrint server" in str(error)

    def test_no_document(self, server: NeuprintServer) -> None:
        server.corrupt("/api/*")
        error = refused()
        assert isinstance(error, SourceCorruptError)
        assert "does not answer with the datasets of a neuPrint server" in str(error)

    def test_no_object(self, server: NeuprintServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "answer", lambda request: (200, [DATASET]))
        assert isinstance(refused(), SourceCorruptError)

    def test_unknown_dataset(self, server: NeuprintServer) -> None:
        error = refused(dataset="male-cns:v0.8")
        assert isinstance(error, SourceMissingError)
        assert (
            "no dataset 'male-cns:v0.8' for this token; there are hemibrain:v1.2.1, male-cns:v0.9, male-cns:v1.0. Did"
            " you mean 'male-cns:v0.9'?"
        ) in str(error)

    def test_a_dataset_that_came_later_is_found(self, server: NeuprintServer) -> None:
        opened()
        server.graphs = {"male-cns:v2.0": GRAPH}
        assert opened(dataset="male-cns:v2.0").dataset == "male-cns:v2.0"

    def test_offline(self, server: NeuprintServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EMCATALOG_OFFLINE", "1")
        error = refused()
        assert isinstance(error, NotCachedError)
        assert "is a service, which only answers over the network" in str(error)
        assert server.requests == []


class TestQueryErrors:
    """What neuprint-python raises on a query, as errors of ours."""

    def test_a_query_that_is_not_understood(self, server: NeuprintServer) -> None:
        self._raises(ArgumentError, "does not take the query", lambda client: client.fetch_custom("MATCH (n:Nobody)"))

    def test_a_token_that_expired(self, server: NeuprintServer) -> None:
        def ask(client: Any) -> None:
            server.token = OTHER_TOKEN
            neuprint.fetch_neurons(10001, client=client)

        self._raises(SourceDeniedError, f"{server.url}/account", ask)

    def test_a_server_that_fails(self, server: NeuprintServer) -> None:
        def ask(client: Any) -> None:
            server.fail("/api/custom/custom", 500)
            neuprint.fetch_neurons(10001, client=client)

        self._raises(SourceUnavailableError, "keeps failing", ask)

    def test_a_server_that_went_away(self, mirror: Mirror) -> None:
        with serve_neuprint({DATASET: GRAPH}, TOKEN) as server:
            mirror(**{JANELIA: server.url})
            client = opened()
        with pytest.raises(SourceUnavailableError, match="cannot be reached") as caught, query_errors(client):
            neuprint.fetch_neurons(10001, client=client)
        assert_hidden(caught.value)

    def test_a_dataset_that_went_away(self, server: NeuprintServer) -> None:
        def ask(client: Any) -> None:
            server.graphs = {}
            neuprint.fetch_neurons(10001, client=client)

        self._raises(SourceMissingError, f"({DATASET}) does not have what is asked for", ask)

    def test_an_answer_that_is_none(self, server: NeuprintServer) -> None:
        def ask(client: Any) -> None:
            server.corrupt("/api/custom/custom")
            neuprint.fetch_neurons(10001, client=client)

        self._raises(SourceCorruptError, "answers with something that is not a result", ask)

    @pytest.mark.parametrize(
        ("ask", "said"),
        [
            (lambda client: neuprint.fetch_neurons([], client=client), "Can't auto-construct a NeuronCriteria"),
            (lambda client: neuprint.fetch_neurons(1, returned_columns=3, client=client), "returned_columns must be"),
            (lambda client: neuprint.fetch_neurons(1, colums="all", client=client), "colums"),
            (lambda client: neuprint.fetch_adjacencies("KC", None, client=client), "No neurons match your source"),
            (lambda client: neuprint.fetch_adjacencies(1, None, rois=["XX"], client=client), "Unrecognized ROIs"),
        ],
    )
    def test_arguments_that_neuprint_python_refuses(self, server: NeuprintServer, ask: Any, said: str) -> None:
        self._raises(ArgumentError, said, ask)

    def test_ours_pass(self, server: NeuprintServer) -> None:
        ours = ArgumentError("ours")
        with pytest.raises(ArgumentError) as caught, query_errors(opened()):
            raise ours
        assert caught.value is ours

    def _raises(self, kind: type[EmcatalogError], said: str, ask: Callable[[Any], object]) -> None:
        client = opened()
        with pytest.raises(kind) as caught, query_errors(client):
            ask(client)
        assert said in str(caught.value)
        assert f"{client.server} " in str(caught.value)
        assert_hidden(caught.value)


def make_tls(folder: Path) -> ssl.SSLContext:
    """A server's side of TLS, with a certificate for this computer that `folder/certificate.pem` vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "neuPrint replica")])
    now = datetime.datetime.now(datetime.UTC)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "both.pem").write_bytes(secret + certificate.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "both.pem")
    return context
