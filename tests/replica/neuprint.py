"""A neuPrint server over a small graph: the REST API, and as much Cypher as neuprint-python sends for its queries.

    with serve_neuprint({"male-cns:v0.9": graph}, token="abc") as server:
        os.environ["EMCATALOG_MIRRORS"] = json.dumps({"https://neuprint.janelia.org": server.url})

Paths, statuses and documents are those of neuPrintHTTP 1.9.2 (api/, secure/dsg.go, storage/neuprintbolt), with a token
asked for everything; what the database holds is what flyem-snapshot writes (outputs/neuprint/meta.py and segment.py). A
query that is not understood is answered 400, as by Neo4j.
"""

from __future__ import annotations

import dataclasses
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.replica.faults import Fault, Faults, spoil
from tests.replica.neuprint_graph import Body, Connection, CypherError, Graph, Properties, Query

__all__ = ["Body", "Connection", "Graph", "NeuprintServer", "Request", "serve_neuprint"]


@dataclasses.dataclass(frozen=True)
class Request:
    """One request as it came in."""

    method: str
    path: str
    authorization: str | None
    """The header as sent."""
    body: str


class NeuprintServer:
    """What a running server is asked, and how it is made to misbehave."""

    def __init__(self, graphs: Mapping[str, Graph], token: str | None) -> None:
        self.graphs = graphs
        self.token = token
        """The one that it takes; None takes anything, as without authentication."""
        self.requests: list[Request] = []
        self.faults = Faults()
        self.moved_to = ""
        """Send every request on to this server."""
        self.url = ""

    def fail(self, path_glob: str, status: int, times: int | None = None) -> None:
        """Answer matching requests with an error status."""
        self.faults.add(Fault("fail", path_glob, times, status=status))

    def corrupt(self, path_glob: str) -> None:
        """Answer matching requests with a body in which every byte is wrong."""
        self.faults.add(Fault("garbage", path_glob))

    def answer(self, request: Request) -> tuple[int, Any]:
        """The status and the document."""
        shown = (request.authorization or "").removeprefix("Bearer ")
        if self.token is not None and not shown:
            return 401, {"message": "authentication required"}
        if self.token is not None and shown != self.token:
            return 401, {"message": "invalid or expired token"}
        if (request.method, request.path) == ("POST", "/api/custom/custom"):
            return self._custom(json.loads(request.body))
        documents: dict[str, Any] = {
            "/api/version": {"Version": "1.9.2"},
            "/api/serverinfo": {"IsPublic": True, "Version": "1.9.2"},
            "/api/dbmeta/version": {"Version": "0.5.0"},
            "/api/dbmeta/datasets": {name: _dataset(graph) for name, graph in self.graphs.items()},
        }
        if request.method != "GET" or request.path not in documents:
            return 404, {"message": "Not Found"}
        return 200, documents[request.path]

    def _custom(self, asked: Mapping[str, str]) -> tuple[int, Any]:
        dataset = asked["dataset"]
        if dataset not in self.graphs:
            return 404, {"error": f'dataset "{dataset}" not available in stores'}
        try:
            names, rows = Query(asked["cypher"], self.graphs[dataset], dataset).run()
        except CypherError as error:
            return 400, {"error": f"Neo4jError: Neo.ClientError.Statement.SyntaxError ({error})"}
        data = [list(row.values()) for row in rows]
        return 200, {"columns": names, "data": data, "debug": asked["cypher"]}


def _dataset(graph: Graph) -> Properties:
    names: dict[str, Any] = {"ROIs": [*graph.primary_rois, *graph.other_rois], "superLevelROIs": [*graph.primary_rois]}
    return {"last-mod": "unknown", "uuid": "unknown", **names, "info": "N/A", "hidden": False, "logo": ""}


def _handler(server: NeuprintServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            request = Request(self.command, self.path, self.headers.get("Authorization"), body)
            server.requests.append(request)
            if server.moved_to:
                self._send(302, b"", {"Location": server.moved_to + self.path})
                return
            status, document = server.answer(request)
            fault = server.faults.strike(self.path)
            if fault is not None and fault.kind == "fail":
                status, document = fault.status, {"message": "a fault"}
            sent = json.dumps(document).encode()
            self._send(status, spoil(sent, "garbage") if fault is not None and fault.kind == "garbage" else sent, {})

        do_POST = do_GET  # noqa: N815  # named by http.server

        def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Say nothing: what was asked is in `requests`."""

    return Handler


@contextmanager
def serve_neuprint(
    graphs: Mapping[str, Graph], token: str | None, tls: ssl.SSLContext | None = None
) -> Iterator[NeuprintServer]:
    """A server of these datasets on this computer, over http, or over https with the certificate of `tls`.

    It closes each connection after its answer, so that none of them outlives it.
    """
    server = NeuprintServer(graphs, token)
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(server)) as listener:
        if tls is not None:
            listener.socket = tls.wrap_socket(listener.socket, server_side=True, do_handshake_on_connect=False)
        server.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{listener.server_port}"
        thread = threading.Thread(target=listener.serve_forever, args=(0.01,), name="replica-neuprint", daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown()
            thread.join()
