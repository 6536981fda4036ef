"""Requests that are refused before their bodies are read, at a real gunicorn: who is told to keep a connection can."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from app.accounts import keys
from app.accounts.keys import Scope
from app.database.transactions import Database
from app.settings import Settings
from app.web.unread import READ_ANYWAY

LONG = 4 * READ_ANYWAY
QUERY = json.dumps({"query": "{ languages { source } }"}).encode()


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    path = tmp_path_factory.mktemp("keys") / "tolk.sqlite"
    database = Database(Settings.from_env({"DATABASE_URL": f"sqlite:///{path}"}).database)
    database.upgrade()
    yield path, database.run(lambda connection: keys.create(connection, "ops", list(Scope)))
    database.close()


@pytest.fixture(scope="module")
def web(start_gunicorn: Callable[..., Any], secret: tuple[Path, str]) -> Any:
    return start_gunicorn(DATABASE_URL=f"sqlite:///{secret[0]}")


def answer(client: socket.socket) -> HTTPResponse:
    found = HTTPResponse(client)
    found.begin()
    found.read()
    return found


REFUSED = [
    (401, "POST", "/graphql", {}),
    (403, "POST", "/graphql", {"Sec-Fetch-Site": "cross-site"}),
    (404, "POST", "/nothing", {}),
    (405, "PUT", "/graphql", {}),
    (405, "POST", "/healthz", {}),
    (413, "POST", "/graphql", {"Content-Length": str(10**9)}),
    (415, "POST", "/graphql", {"Content-Type": "text/plain"}),
    (415, "POST", "/graphql", {"Content-Encoding": "gzip"}),
]


def head(web: Any, method: str, path: str, **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {web.host}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.mark.parametrize(("status", "method", "path", "headers"), REFUSED)
@pytest.mark.parametrize("length", [READ_ANYWAY, LONG])
def test_who_sends_a_long_body_that_is_refused_is_told_that_the_connection_closes(
    web: Any, secret: tuple[Path, str], status: int, method: str, path: str, headers: dict[str, str], length: int
) -> None:
    given = {"Content-Type": "application/json", "Content-Length": str(length), **headers}
    if status != 401:
        given["Authorization"] = f"Bearer {secret[1]}"
    with web.connect() as client:
        client.sendall(head(web, method, path, **given) + b"x" * length)
        found = answer(client)
        assert (found.status, found.headers["Connection"]) == (status, "close")
        assert client.recv(1) == b""


@pytest.mark.parametrize("status", [401, 404, 415])
def test_after_a_short_body_that_is_refused_the_connection_stays_usable(
    web: Any, secret: tuple[Path, str], status: int
) -> None:
    [(_, method, path, headers), *_] = [each for each in REFUSED if each[0] == status]
    body = b"x" * (READ_ANYWAY - 1024)
    given = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
    if status != 401:
        given["Authorization"] = f"Bearer {secret[1]}"
    good = {"Content-Type": "application/json", "Content-Length": str(len(QUERY))}
    with web.connect() as client:
        for _ in range(2):
            client.sendall(head(web, method, path, **given) + body)
            found = answer(client)
            assert (found.status, found.headers["Connection"]) == (status, "keep-alive")
        client.sendall(head(web, "POST", "/graphql", Authorization=f"Bearer {secret[1]}", **good) + QUERY)
        assert answer(client).status == 200


def test_who_sends_chunks_that_are_refused_is_told_too(web: Any) -> None:
    chunk = b"%x\r\n%s\r\n" % (LONG, b"x" * LONG)
    with web.connect() as client:
        client.sendall(head(web, "POST", "/nothing", **{"Transfer-Encoding": "chunked"}) + chunk + b"0\r\n\r\n")
        found = answer(client)
        assert (found.status, found.headers["Connection"]) == (404, "close")


def test_a_body_that_was_read_keeps_its_connection(web: Any, secret: tuple[Path, str]) -> None:
    texts = ["x" * 19_000] * 5
    query = 'mutation ($texts: [String!]!) { translate(input: {texts: $texts, source: "fr", target: "en"}) { model } }'
    body = json.dumps({"query": query, "variables": {"texts": texts}}).encode()
    given = {"Content-Type": "Application/JSON", "Authorization": f"Bearer {secret[1]}"}
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    with web.connect() as client:
        for length, sent in (({"Content-Length": str(len(body))}, body), ({"Transfer-Encoding": "chunked"}, chunked)):
            client.sendall(head(web, "POST", "/graphql", **given, **length) + sent)
            found = answer(client)
            assert (found.status, found.headers["Connection"]) == (200, "keep-alive")
