"""neuPrint, the connectome as a service: a client for an entry's server and dataset, with the user's own token.

The token is read from ``NEUPRINT_APPLICATION_CREDENTIALS`` alone, never from a catalog. It stands for its owner, so:

- it is shown to neuPrint's servers at Janelia, and to a server that the user's own table of mirrors names. A catalog
  may come from anybody, and cannot choose whom it is shown to;
- it travels over https, or stays on this computer (``http://localhost``, as a copy of the database is often served);
- it stands in no message, log, ``repr`` or pickle: a client that arrives in another process takes that process's own.

Import this module where a client is wanted: it loads neuprint-python, and pandas with it.
"""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from pydantic import SecretStr

from emcatalog.errors import (
    ArgumentError,
    CatalogError,
    EmcatalogError,
    MissingExtraError,
    NotCachedError,
    SettingsError,
    SourceCorruptError,
    SourceDeniedError,
    SourceError,
    SourceMissingError,
    SourceUnavailableError,
    listing,
    suggest,
)
from emcatalog.locations import apply_mirrors
from emcatalog.settings import Settings

try:
    import neuprint
    import requests
    import ujson
    from requests.adapters import HTTPAdapter
    from urllib3.util.retry import Retry
except ModuleNotFoundError as error:
    raise MissingExtraError(
        "neuprint-python is not installed, which talks to neuPrint: pip install 'emcatalog[neuprint]'"
    ) from error

TOKEN_VARIABLE: Final = "NEUPRINT_APPLICATION_CREDENTIALS"  # noqa: S105  # a name, not a secret
"""Where the token stands: neuprint-python's own variable."""

_SERVER: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*|\[::1\])(?P<port>:[0-9]{1,5})?(/[A-Za-z0-9._~-]+)*"
)
"""A server's address, and nothing that two parsers could read as two hosts: no user, backslash, query or blank."""

_JANELIA: Final = re.compile(r"https://neuprint(-[a-z0-9-]+)?\.janelia\.org")
"""neuPrint's own servers: https://neuprint.janelia.org, and those for releases to come (``neuprint-cns`` and so on)."""

_THIS_COMPUTER: Final = re.compile(r"localhost|127(\.[0-9]{1,3}){3}|\[::1\]")

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""What may stand behind ``Bearer`` (RFC 6750, 2.1); requests quotes a header that it refuses in its error."""

_HIDDEN: Final = "***"

_TIMEOUT_S: Final = (10, 60)
"""How long the server may take to be reached, and to say something, before it counts as down."""


class NeuprintClient(neuprint.Client):  # type: ignore[misc]  # neuprint has no types
    """A ``neuprint.Client`` that keeps its token to itself: it is in no pickle and in no error of a query."""

    def __init__(self, address: str, dataset: str, token: SecretStr) -> None:
        """Ask nothing: the datasets of the server must be in ``DATASETS_CACHE``.

        neuprint-python takes https alone, so that a server of this computer is put in its place afterwards.
        """
        super().__init__(_as_https(address), dataset, token.get_secret_value())
        self.server = address

    def _fetch(self, url: str, json: Any = None, ispost: bool = False) -> Any:
        try:
            return super()._fetch(url, json=json, ispost=ispost)
        except requests.RequestException as error:
            raise _without_token(error, self.token) from None

    def __deepcopy__(self, memo: dict[int, Any]) -> NeuprintClient:
        """With the token: neuprint-python makes a copy for each of its threads."""
        made = type(self).__new__(type(self))
        neuprint.Client.__setstate__(made, copy.deepcopy(vars(self), memo))
        return made

    def __getstate__(self) -> dict[str, Any]:
        state = {**vars(self), "session": copy.deepcopy(self.session)}
        del state["token"]
        state["session"].headers.pop("Authorization", None)
        state["session"].cookies.clear()  # some servers keep a login there
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        token = _token(state["server"])
        state["session"].headers["Authorization"] = f"Bearer {token.get_secret_value()}"
        super().__setstate__({**state, "token": token.get_secret_value()})


def open_client(server: str, dataset: str, settings: Settings, *, default: bool = True) -> neuprint.Client:
    """A client of neuprint-python for ``https://neuprint.janelia.org`` and ``male-cns:v0.9``; one request is made.

    With ``default`` it becomes the client of calls that name none, ``neuprint.fetch_neurons(...)``, as any
    ``neuprint.Client`` does: for as long as it is kept, and is the only one. Without, such a client of the user's
    stays what it is.

    Raises:
        NotCachedError: offline.
        CatalogError: no address of a server, or one that the token is not shown to.
        SettingsError: a token that is none, or a mirror that cannot take the server's place.
        SourceDeniedError: no token, or one that the server refuses.
        SourceMissingError: no neuPrint server there, or no such dataset on it.
        SourceUnavailableError: the server cannot be reached or keeps failing.
        SourceCorruptError: it answers with something else than its datasets.
    """
    if settings.offline:
        raise NotCachedError(
            f"{server} is a service, which only answers over the network, and emcatalog is offline: unset"
            " EMCATALOG_OFFLINE, or give offline=False"
        )
    address = _address(server, settings)
    token = _token(address)
    datasets = _fetch_datasets(address, token, settings.retries)
    if dataset not in datasets:
        raise SourceMissingError(
            f"{address} has no dataset {dataset!r} for this token; there are {listing(sorted(datasets))}."
            f"{suggest(dataset, datasets)}"
        )
    # The constructor looks there first. Its frames hold the token, so that it must have nothing to fail at.
    neuprint.Client.DATASETS_CACHE[_as_https(address)] = datasets
    with _unregistered():
        client = NeuprintClient(address, dataset, token)
    if default:
        neuprint.client._register_client(client)
    return client


@contextmanager
def query_errors(client: neuprint.Client) -> Iterator[None]:
    """Turn what neuprint-python raises on a query into errors of ours.

    Raises:
        ArgumentError: neuprint-python or the server does not take the arguments.
        SourceError: the server refuses, cannot be reached, or answers with something else.
    """
    what = f"{client.server} ({client.dataset})"
    try:
        yield
    except EmcatalogError:
        raise
    except requests.RequestException as error:
        raise _failed_query(error, client.server, what) from error
    except (ujson.JSONDecodeError, LookupError) as error:
        raise SourceCorruptError(f"{what} answers with something that is not a result ({error!r})") from error
    except (ValueError, TypeError, AssertionError, RuntimeError) as error:  # what neuprint-python refuses by itself
        raise ArgumentError(f"{what}: {error}") from error


def _failed_query(error: requests.RequestException, address: str, what: str) -> EmcatalogError:
    # A response of status 400 and above is false.
    status = None if error.response is None else error.response.status_code
    if status == 400:
        return ArgumentError(f"{what} does not take the query: {error}")
    if status == 404:
        return SourceMissingError(f"{what} does not have what is asked for: {error}")
    if status is None:
        return SourceUnavailableError(f"{what} cannot be reached; ask again later. ({error})")
    return _refusal(address, status, str(error))


def _address(server: str, settings: Settings) -> str:
    """Where the server is reached: itself or its mirror, if the token may be shown there."""
    address = apply_mirrors(server, settings.mirrors).rstrip("/")
    # The user may also name a server by putting it in its own place.
    chosen = apply_mirrors(server, dict.fromkeys(settings.mirrors, "file:///")) != server
    kind, place = (SettingsError, f"EMCATALOG_MIRRORS: {address!r}") if chosen else (CatalogError, repr(server))
    parts = _SERVER.fullmatch(address)
    if parts is None:
        raise kind(f"{place} is not the address of a neuPrint server, such as 'https://neuprint.janelia.org'")
    if parts["scheme"] == "http" and not _THIS_COMPUTER.fullmatch(parts["host"]):
        raise kind(f"{place} would send the token of {TOKEN_VARIABLE} over the network in the clear; use https://")
    if not chosen and not _JANELIA.fullmatch(address):
        raise CatalogError(
            f"{address}: the token of {TOKEN_VARIABLE} is shown to neuPrint's own servers, such as"
            " https://neuprint.janelia.org, and not to any that a catalog names. If you trust this one with it, say so:"
            f' EMCATALOG_MIRRORS=\'{{"{address}": "{address}"}}\''
        )
    return address


def _as_https(address: str) -> str:
    return re.sub(r"^http://", "https://", address)


def _token(address: str) -> SecretStr:
    """The user's token, wrapped: tools that print the variables of a traceback must not print it.

    Raises:
        SourceDeniedError: there is none.
        SettingsError: it is neither a token nor the document that neuPrint gives.
    """
    given = SecretStr(os.environ.get(TOKEN_VARIABLE, "").strip())
    if not given:
        raise SourceDeniedError(
            f"{address} answers to who shows a token, and {TOKEN_VARIABLE} is not set: log in at {address}/account, and"
            " copy the token there into that variable"
        )
    token = _parse_token(given)
    if not token:
        raise SettingsError(
            f"{TOKEN_VARIABLE} is neither a token nor the JSON object with a 'token' that neuPrint gives: copy it anew"
            f" from {address}/account"
        )
    return token


def _parse_token(given: SecretStr) -> SecretStr:
    """The token of a raw one or of ``{"token": ...}``; empty where it is neither."""
    text: Any = given.get_secret_value()
    if text.startswith("{"):
        try:
            text = json.loads(text).get("token")
        except ValueError:
            text = None
    text = text.strip('"') if isinstance(text, str) else ""
    return SecretStr(text if _TOKEN.fullmatch(text) else "")


def _fetch_datasets(address: str, token: SecretStr, retries: int) -> dict[str, Any]:
    """What the server says about each of its datasets, by name."""
    answer = _ask(f"{address}/api/dbmeta/datasets", token, retries)
    if answer.status_code != 200:
        raise _refusal(address, answer.status_code, _said(answer, token))
    try:
        datasets = answer.json()
    except ValueError:
        datasets = None
    if not isinstance(datasets, dict):
        raise SourceCorruptError(
            f"{address} does not answer with the datasets of a neuPrint server; check the address, or EMCATALOG_MIRRORS"
        )
    return datasets


def _ask(url: str, token: SecretStr, retries: int) -> requests.Response:
    """The answer, whatever its status; where it sends on to is not followed."""
    policy = Retry(
        retries,
        redirect=False,
        status_forcelist=(429, 500, 502, 503, 504),
        backoff_factor=0.5,
        backoff_max=16,
        raise_on_status=False,
        respect_retry_after_header=False,  # it may say hours
    )
    with requests.Session() as session:
        for scheme in ("https://", "http://"):
            session.mount(scheme, HTTPAdapter(max_retries=policy))
        try:
            return session.get(
                url,
                headers={"Authorization": f"Bearer {token.get_secret_value()}"},
                timeout=_TIMEOUT_S,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            reason = str(error)
    # Outside of the block, so that it brings no frames along: those below hold the headers that were sent.
    raise SourceUnavailableError(f"{url} cannot be reached; check the address, or ask again later. ({reason})")


def _refusal(address: str, status: int, said: str) -> SourceError:
    """The error of ours for a status that is not 200."""
    if status in (401, 403):
        return SourceDeniedError(
            f"{address} refuses the token of {TOKEN_VARIABLE} ({said}): it may be another server's, or have expired;"
            f" log in at {address}/account, and copy the token there into that variable"
        )
    if status == 429 or status >= 500:
        return SourceUnavailableError(f"{address} keeps failing; ask again later. ({said})")
    if 300 <= status < 400:
        return SourceUnavailableError(
            f"{address} sends on to another address, where the token is not shown; if it has moved, give the new one in"
            f" EMCATALOG_MIRRORS. ({said})"
        )
    return SourceMissingError(f"{address} is no neuPrint server; check the address, or EMCATALOG_MIRRORS. ({said})")


def _said(answer: requests.Response, token: SecretStr) -> str:
    """Status and message of an answer; a server may repeat what it was sent."""
    try:
        document = answer.json()
    except ValueError:
        document = None
    known = document if isinstance(document, dict) else {}
    said = known.get("message") or known.get("error") or answer.reason
    return f"{answer.status_code} {said}".replace(token.get_secret_value(), _HIDDEN)[:300]


def _without_token(error: requests.RequestException, token: str) -> requests.RequestException:
    """The same error with its cause in its text, and without the requests, causes and frames that hold the token."""
    cause = f"\n{error.__cause__}" if error.__cause__ else ""
    error.args = (f"{error}{cause}".replace(token, _HIDDEN),)
    answers = [] if error.response is None else [error.response, *error.response.history]
    for request in [error.request, *(answer.request for answer in answers)]:
        if request is not None:
            headers: Any = request.headers
            headers.pop("Authorization", None)
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


@contextmanager
def _unregistered() -> Iterator[None]:
    """Clients made here do not make themselves the default, as neuprint-python makes the copies for its threads."""
    suppress = neuprint.client._suppress_registration
    suppress.active = True
    try:
        yield
    finally:
        suppress.active = False
