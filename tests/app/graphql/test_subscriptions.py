from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from tests.app.conftest import Gunicorn
from tests.app.jobs.conftest import Api

UPDATED = "subscription ($id: ID!) { jobUpdated(id: $id) { status progress { done total } } }"
LISTENERS = 300


@pytest.fixture(scope="module")
def web(start_gunicorn: Callable[..., Gunicorn], tmp_path_factory: pytest.TempPathFactory) -> Gunicorn:
    path = tmp_path_factory.mktemp("jobs") / "tolk.sqlite"
    return start_gunicorn(DATABASE_URL=f"sqlite:///{path}")


@pytest.fixture
def api(web: Gunicorn) -> Api:
    return Api(web.url)


def listen(api: Api, job_id: str, query: str = UPDATED, **headers: str) -> requests.Response:
    return requests.post(
        f"{api.url}/graphql",
        json={"query": query, "variables": {"id": job_id}},
        headers={"Accept": "text/event-stream", **headers},
        stream=True,
        timeout=20,
    )


def events(answer: requests.Response) -> Iterator[tuple[str, Any]]:
    """The events of a stream as they come: their names and what their data are in JSON."""
    name = ""
    for line in answer.iter_lines():
        field, _, value = line.decode().partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value) if value else None


def state(status: str) -> dict[str, Any]:
    return {"data": {"jobUpdated": {"status": status, "progress": {"done": 0, "total": 1}}}}


def test_the_present_state_comes_first_and_the_end_completes_the_stream(api: Api) -> None:
    job = api.submit("Bonjour.")
    answer = listen(api, job["id"])
    assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    told = events(answer)
    assert next(told) == ("next", state("QUEUED"))
    api.change("cancelJob", job["id"])
    assert list(told) == [("next", state("CANCELLED")), ("complete", None)]


def test_a_job_that_has_ended_is_told_once(api: Api) -> None:
    job = api.submit("Bonjour.")
    api.change("cancelJob", job["id"])
    assert list(events(listen(api, job["id"]))) == [("next", state("CANCELLED")), ("complete", None)]


def test_a_deleted_job_completes_the_stream(api: Api) -> None:
    job = api.submit("Bonjour.")
    told = events(listen(api, job["id"]))
    next(told)
    api.change("deleteJob", job["id"])
    assert list(told)[-1] == ("complete", None)


def test_errors_are_events(api: Api) -> None:
    job = api.submit("Bonjour.")["id"]
    for answer in (
        listen(api, "00000000-0000-0000-0000-000000000000"),
        listen(api, "x", "subscription { jobUpdated { id } }"),
        listen(api, "x", "subscription {"),
        listen(api, job, "subscription ($id: ID!) { a: jobUpdated(id: $id) { id } b: jobUpdated(id: $id) { id } }"),
        listen(api, job, "subscription ($id: ID!) { __typename jobUpdated(id: $id) { id } }"),
        listen(api, job, "subscription ($id: ID!) { jobUpdated(id: $id) { translations { edges { position } } } }"),
    ):
        [(name, result), end] = events(answer)
        assert (answer.status_code, name, end) == (200, "next", ("complete", None))
        error = result["errors"][0]
        assert error["extensions"]["code"] == "BAD_INPUT"


def test_aliases_fragments_and_directives_stay_for_all_events(api: Api) -> None:
    job = api.submit("Bonjour.")
    query = """
      subscription ($id: ID!) { ... { state: jobUpdated(id: $id) @include(if: true) { ...how id @skip(if: true) } } }
      fragment how on Job { is: status }"""
    told = events(listen(api, job["id"], query))
    assert next(told) == ("next", {"data": {"state": {"is": "QUEUED"}}})
    api.change("cancelJob", job["id"])
    assert list(told) == [("next", {"data": {"state": {"is": "CANCELLED"}}}), ("complete", None)]


def test_whoever_asks_for_nothing_hears_no_more(api: Api) -> None:
    job = api.submit("Bonjour.")
    query = "subscription ($id: ID!) { jobUpdated(id: $id) @include(if: false) { status } }"
    assert list(events(listen(api, job["id"], query))) == [("next", {"data": {}}), ("complete", None)]


def test_a_query_may_be_answered_by_events(api: Api) -> None:
    answer = listen(api, "x", "{ languages { source } }")
    assert [name for name, _ in events(answer)] == ["next", "complete"]


def test_a_subscription_says_what_it_needs(api: Api) -> None:
    body = {"query": UPDATED, "variables": {"id": "x"}}
    answer = requests.post(f"{api.url}/graphql", json=body, timeout=20)
    assert answer.status_code == 406
    assert "text/event-stream" in answer.json()["errors"][0]["message"]


def test_hundreds_listen_without_a_thread_each(api: Api, web: Gunicorn) -> None:
    job = api.submit("Bonjour.")
    before = sum(worker.memory_info().rss for worker in web.workers)
    with ExitStack() as stack:
        listeners = []
        for number in range(LISTENERS):
            listeners.append(stack.enter_context(listener(web, f"127.0.1.{number % 50 + 1}", job["id"])))
            receive(listeners[-1], b"QUEUED")
        assert web.answers()
        grown = sum(worker.memory_info().rss for worker in web.workers) - before
        assert grown < LISTENERS * 120_000
        assert max(map(psutil.Process.num_threads, web.workers)) < 140
        api.change("cancelJob", job["id"])
        for each in listeners:
            receive(each, b"event: complete\ndata: \n\n\r\n0\r\n\r\n")


def test_a_caller_has_a_hundred_subscriptions_of_a_process_at_most(api: Api, web: Gunicorn) -> None:
    job = api.submit("Bonjour.")
    with ExitStack() as stack:
        said = b""
        for _ in range(201):
            client = stack.enter_context(listener(web, "127.0.2.1", job["id"]))
            said = client.recv(65_536)
            if b"OVERLOADED" in said:
                break
        assert b" 503 " in said
        stack.enter_context(client := listener(web, "127.0.2.2", job["id"]))
        receive(client, b"QUEUED")
    api.change("cancelJob", job["id"])


def listener(web: Gunicorn, address: str, job_id: str) -> socket.socket:
    host, port = web.host.split(":")
    client = socket.create_connection((host, int(port)), 20, (address, 0))
    body = json.dumps({"query": UPDATED, "variables": {"id": job_id}}).encode()
    client.sendall(web.head(len(body), Accept="text/event-stream") + body)
    return client


def receive(client: socket.socket, end: bytes) -> bytes:
    """Reads until `end` has come."""
    data = b""
    while end not in data:
        more = client.recv(65_536)
        assert more, data
        data += more
    return data


def test_streams_end_unfinished_before_the_requests_in_flight_do(
    start_gunicorn: Callable[..., Gunicorn], tmp_path: Path
) -> None:
    web = start_gunicorn(DATABASE_URL=f"sqlite:///{tmp_path}/tolk.sqlite")
    api = Api(web.url)
    told = [events(listen(api, api.submit("Bonjour.")["id"])) for _ in range(8)]  # both processes have some
    for each in told:
        next(each)
    body = json.dumps({"query": "{ languages { source } }"}).encode()
    with web.connect() as client:
        client.sendall(web.head(len(body), Expect="100-continue"))
        receive(client, b"100 Continue\r\n\r\n")  # it is in flight now
        web.service.process.terminate()
        for each in told:
            assert list(each) == []
        client.sendall(body)
        receive(client, b'"source": "en"')
    assert web.service.wait() == 0
