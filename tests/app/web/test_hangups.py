from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from app.web.hangups import Hangups
from launch.rabbitmq import PrivateRabbitMQ

MUTATION = "mutation($input: TranslateInput!) { translate(input: $input) { translations { text } } }"


@pytest.fixture
def cancelled() -> list[str]:
    return []


@pytest.fixture
def hangups(cancelled: list[str]) -> Hangups:
    return Hangups(lambda request_id, _: cancelled.append(request_id))


def test_a_client_that_hangs_up_is_cancelled_and_no_other(
    hangups: Hangups, cancelled: list[str], eventually: Callable[..., None]
) -> None:
    ours, theirs = socket.socketpair()
    another, _stays = socket.socketpair()
    with (
        hangups.watched({"gunicorn.socket": ours}, "one", None),
        hangups.watched({"gunicorn.socket": another}, "other", None),
    ):
        theirs.close()
        eventually(lambda: "one" in cancelled)
    assert "other" not in cancelled


def test_who_sends_more_is_still_there(hangups: Hangups, cancelled: list[str], eventually: Callable[..., None]) -> None:
    ours, theirs = socket.socketpair()
    with hangups.watched({"werkzeug.socket": ours}, "one", None):
        theirs.send(b"POST /graphql")
        gone, closed = socket.socketpair()
        with hangups.watched({"gunicorn.socket": gone}, "other", None):
            closed.close()
            eventually(lambda: "other" in cancelled)
    assert "one" not in cancelled


def test_a_request_that_begins_after_its_client_went_is_cancelled_when_it_can_be(
    eventually: Callable[..., None],
) -> None:
    in_flight, calls = threading.Event(), list[bool]()
    hangups = Hangups(lambda *_: calls.append(in_flight.is_set()))
    ours, theirs = socket.socketpair()
    theirs.close()
    with hangups.watched({"gunicorn.socket": ours}, "one", None):
        eventually(lambda: calls)
        in_flight.set()
        eventually(lambda: True in calls)


def test_a_cancel_that_fails_is_not_the_last(eventually: Callable[..., None]) -> None:
    calls: list[str] = []

    def abandon(request_id: str, principal: str | None) -> None:
        calls.append(request_id)
        if len(calls) == 1:
            raise RuntimeError("a bug")

    hangups = Hangups(abandon)
    for request_id in ("one", "other"):
        ours, theirs = socket.socketpair()
        theirs.close()
        with hangups.watched({"gunicorn.socket": ours}, request_id, None):
            eventually(lambda request_id=request_id: request_id in calls)


def test_a_connection_may_come_back_under_the_same_number(
    hangups: Hangups, cancelled: list[str], eventually: Callable[..., None]
) -> None:
    for i in range(20):
        ours, theirs = socket.socketpair()
        with ours, hangups.watched({"gunicorn.socket": ours}, f"stays-{i}", None):
            pass
        theirs.close()
        ours, theirs = socket.socketpair()
        with ours, hangups.watched({"gunicorn.socket": ours}, f"gone-{i}", None):
            theirs.close()
            eventually(lambda i=i: f"gone-{i}" in cancelled)
    assert not [request_id for request_id in cancelled if request_id.startswith("stays")]


def test_a_server_that_does_not_show_its_socket_is_served_all_the_same(hangups: Hangups) -> None:
    with hangups.watched({}, "one", None):
        pass


@pytest.mark.broker
def test_the_worker_stops_working_for_a_client_that_hung_up(
    broker: PrivateRabbitMQ,
    start_worker: Callable[..., Any],
    start_web: Callable[..., str],
    eventually: Callable[..., None],
) -> None:
    start_worker(broker.url, app="echo")
    web = start_web(broker.url)

    def active() -> int:
        query = {"query": "{ status { workers { active } } }"}
        answer = requests.post(f"{web}/graphql", json=query, timeout=10).json()
        return sum(worker["active"] for worker in answer["data"]["status"]["workers"])

    variables = {"input": {"texts": ["#sleep 60"], "target": "en", "timeout": 60}}
    payload = json.dumps({"query": MUTATION, "variables": variables})
    head = f"POST /graphql HTTP/1.1\r\nHost: {urlsplit(web).netloc}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((urlsplit(web).hostname, urlsplit(web).port)) as client:
        client.sendall(f"{head}Content-Length: {len(payload)}\r\n\r\n{payload}".encode())
        eventually(lambda: active() == 1)
    eventually(lambda: active() == 0)
