"""Slow clients at a real gunicorn, with raw sockets: none holds a thread for longer than its deadline."""

from __future__ import annotations

import json
import logging
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from http.client import HTTPResponse
from typing import Any

import pytest
import requests

from app.web.connection import RECEIVE_TIMEOUT
from app.web.server import conceal

pytestmark = pytest.mark.timeout(90)

THREADS = 2 * 32  # of both workers
BODY = json.dumps({"query": "{ languages { source } }"}).encode()


@pytest.fixture(scope="module")
def web(start_gunicorn: Callable[..., Any]) -> Any:
    """It has a tenth of gunicorn's patience, and fewer threads."""
    return start_gunicorn(GUNICORN_CMD_ARGS="--threads 32 --worker-class tests.app.hasty.HastyWorker")


def trickle(clients: Iterable[socket.socket], pause: float = 0.05) -> None:
    """Sends a byte after the other on each until it has its answer, or its end."""
    waiting = set(clients)
    while waiting:
        waiting -= set(select.select(waiting, [], [], pause)[0])
        for client in waiting:
            with suppress(ConnectionError):
                client.send(b"x")


def read(client: socket.socket) -> tuple[HTTPResponse, bytes]:
    answer = HTTPResponse(client)
    answer.begin()
    return answer, answer.read()


def is_closed(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True


def test_a_body_that_does_not_come_is_answered_408(web: Any) -> None:
    """Neither one that stops, nor one that comes byte by byte."""
    form = web.head(1000, "/api/graphql").replace(b"application/json", b"application/x-www-form-urlencoded")
    parts = web.head(1000, "/api/graphql").replace(b"application/json", b"multipart/form-data; boundary=x")
    starts = [
        web.head(1000) + b"{",
        web.head(Transfer_Encoding="chunked") + b"400\r\n{",
        web.head(1000, "/api/graphql") + b"{",
        form + b"query=",
        parts + b"--x\r\n",
    ]
    started = time.monotonic()
    with ExitStack() as stack:
        clients = [stack.enter_context(web.connect()) for _ in (*starts, *starts)]
        for client, start in zip(clients, (*starts, *starts), strict=True):
            client.sendall(start)
        trickle(clients[: len(starts)])
        for client in clients:
            answer, body = read(client)
            assert answer.status == 408
            assert answer.headers["Connection"] == "close"
            [error] = json.loads(body)["errors"]
            assert error["extensions"]["code"] == "BAD_INPUT"
            assert "did not arrive in time" in error["message"]
            assert is_closed(client)
    assert time.monotonic() - started > RECEIVE_TIMEOUT / 10 - 0.1


def test_headers_that_do_not_come_are_not_waited_for(web: Any) -> None:
    starts = [b"", b"G", b"GET / HTTP/1.1\r\nHost: x\r\n", b"POST /graphql HTTP/1.1\r\nX: "]
    with ExitStack() as stack:
        clients = [stack.enter_context(web.connect()) for _ in starts]
        for client, start in zip(clients, starts, strict=True):
            client.sendall(start)
        trickle(clients)
        assert all(map(is_closed, clients))
    assert not web.service.says("Traceback")


def test_slow_clients_hold_the_service_up_for_a_deadline_and_no_longer(web: Any) -> None:
    with ExitStack() as stack:
        for start in [b"GET /", web.head(1000) + b"{"] * THREADS:
            stack.enter_context(web.connect()).sendall(start)
        assert web.answers()


def test_who_leaves_connections_open_keeps_nobody_waiting(web: Any) -> None:
    started = time.monotonic()
    with ExitStack() as stack:
        for _ in range(THREADS):
            client = stack.enter_context(web.connect())
            client.sendall(f"GET /healthz HTTP/1.1\r\nHost: {web.host}\r\nConnection: close\r\n\r\n".encode())
            assert read(client)[0].status == 200
    assert time.monotonic() - started < THREADS / 4  # a second for each where they are waited for one after the other


def test_the_deadline_is_one_requests_and_not_the_connections(web: Any) -> None:
    with web.connect() as client:
        for _ in range(3):
            client.sendall(web.head(len(BODY)))
            assert select.select([client], [], [], 0.6 * RECEIVE_TIMEOUT / 10)[0] == []
            client.sendall(BODY)
            assert read(client)[0].status == 200


def test_who_does_not_read_its_answer_loses_it(web: Any) -> None:
    """Requests for a file of a megabyte, pipelined, until the sockets' buffers are full."""
    with ExitStack() as stack:
        for _ in range(2 * THREADS):
            client = stack.enter_context(web.connect())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.sendall(f"GET /static/graphiql/graphiql.min.js HTTP/1.1\r\nHost: {web.host}\r\n\r\n".encode() * 8)
        assert all(web.answers() for _ in range(5))
    assert not web.service.says("Traceback")


@pytest.fixture(scope="module")
def single(start_gunicorn: Callable[..., Any]) -> Any:
    """It has one thread, and keeps idle connections for a second."""
    return start_gunicorn(GUNICORN_CMD_ARGS="--workers 1 --threads 1 --keep-alive 1")


def get(path: str = "/healthz") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def test_who_asks_without_a_pause_leaves_the_thread_to_others(single: Any) -> None:
    done, counts = threading.Event(), [0, 0, 0]

    def ask(number: int) -> None:
        with single.connect() as client:
            while not done.is_set():
                client.sendall(get())
                assert read(client)[0].status == 200
                counts[number] += 1
                if min(counts) >= 20:
                    done.set()

    with ThreadPoolExecutor() as threads:
        list(threads.map(ask, range(len(counts))))


def test_who_was_answered_and_says_no_more_holds_no_thread(single: Any) -> None:
    with ExitStack() as stack:
        for start in (b"", b"GET /"):
            client = stack.enter_context(single.connect())
            client.sendall(get())
            assert read(client)[0].status == 200
            began = time.monotonic()
            assert single.answers()
            assert time.monotonic() - began < 1
            client.sendall(start)


def test_requests_in_one_piece_are_answered_in_order(web: Any, single: Any) -> None:
    last = get("/nothing").replace(b"Host", b"Connection: close\r\nHost")
    for service in (web, single):
        with service.connect() as client:
            client.sendall(get() + service.head(len(BODY)) + BODY + last)
            answers = b"".join(iter(lambda: client.recv(65_536), b""))
        assert re.findall(rb"HTTP/1.1 (\d+) ", answers) == [b"200", b"200", b"404"]


def test_an_answer_without_a_body_arrives(web: Any) -> None:
    with web.connect() as client:
        for _ in range(2):
            client.sendall(get().replace(b"GET", b"HEAD"))
            answer = HTTPResponse(client, method="HEAD")
            answer.begin()
            assert answer.status == 200


def test_an_idle_connection_is_closed_in_time(single: Any) -> None:
    with single.connect() as client:
        client.sendall(get())
        assert read(client)[0].status == 200
        began = time.monotonic()
        assert is_closed(client)
        assert time.monotonic() - began > 0.9


@pytest.mark.parametrize(
    ("message", "args", "said"),
    [
        ("Invalid request from ip=::1: Invalid HTTP Header: 'un texte'", (), "Invalid request from ip=::1"),
        ("Invalid request from ip=127.0.0.1: 'un texte'", (), "Invalid request from ip=127.0.0.1"),
        ("Error handling request %s %s", ("GET", "/graphql?query=texte"), "Error handling request GET /graphql"),
        ("Worker exiting (pid: %s)", (1,), "Worker exiting (pid: 1)"),
    ],
)
def test_gunicorns_log_quotes_nobody(message: str, args: tuple[object, ...], said: str) -> None:
    record = logging.LogRecord("gunicorn.error", logging.WARNING, "", 0, message, args, None)
    assert conceal(record)
    assert record.getMessage() == said


def test_what_no_request_begins_with_is_refused_and_not_logged(web: Any) -> None:
    for line in (b"un texte secret\r\n\r\n", b"GET / HTTP/1.1\r\nun texte secret\r\n\r\n"):
        with web.connect() as client:
            client.sendall(line)
            assert read(client)[0].status == 400
    assert web.service.says("Invalid request from ip=127.0.0.1")
    assert not web.service.says("secret")


def test_a_body_longer_than_it_was_said_to_be_is_not_logged(web: Any) -> None:
    """As of a client that counts characters where bytes are meant: the rest looks like the next request."""
    body = json.dumps({"query": "{ languages { source } }", "variables": {"é": "secret"}}, ensure_ascii=False).encode()
    with web.connect() as client:
        client.sendall(web.head(len(body) - 12) + body + b"\r\n\r\n")
        answers = b"".join(iter(lambda: client.recv(65_536), b""))
    assert answers.count(b"HTTP/1.1 400 ") == 2  # JSON that breaks off, and its end
    assert not web.service.says("secret")


@pytest.mark.parametrize(("arguments", "wanted"), [("", False), ("--access-logfile -", True)])
def test_an_access_log_is_put_together_where_somebody_wants_it(
    start_gunicorn: Callable[..., Any], eventually: Callable[..., None], arguments: str, wanted: bool
) -> None:
    """At this level gunicorn says so when it looks for the user of a request that names none, before we log it."""
    web = start_gunicorn(GUNICORN_CMD_ARGS=arguments, TOLK_LOG_LEVEL="debug")
    requests.get(f"{web.url}/static/nothing", headers={"Authorization": "Basic x"}, timeout=20)
    eventually(lambda: web.service.says("GET /static/nothing status=404"))
    assert web.service.says("Couldn't get username") is wanted


@pytest.mark.parametrize("name", ["X-Forwarded-Proto", "X-Forwarded-Ssl", "Script-Name", "SCRIPT_NAME", "PATH_INFO"])
def test_no_header_changes_scheme_or_path(web: Any, name: str) -> None:
    answer = requests.get(f"{web.url}/healthz", headers={name: "https" if "Proto" in name else "on"}, timeout=20)
    assert answer.status_code == 200
    assert "Strict-Transport-Security" not in answer.headers


def test_nothing_says_which_release_serves(web: Any) -> None:
    answer = requests.get(f"{web.url}/", timeout=20)
    assert answer.headers["Server"] == "gunicorn"
