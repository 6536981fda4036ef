"""Requests that are cancelled by another one, with gunicorn, RabbitMQ and a worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
import requests

from launch.rabbitmq import PrivateRabbitMQ

pytestmark = pytest.mark.broker

TRANSLATE = "mutation($input: TranslateInput!) { translate(input: $input) { requestId translations { text } } }"
CANCEL = "mutation($id: ID!) { cancelTranslation(requestId: $id) { cancelled } }"


@pytest.fixture(scope="module")
def worker(broker: PrivateRabbitMQ, start_worker: Callable[..., Any]) -> Any:
    """It takes one request at a time."""
    return start_worker(broker.url, app="echo", TOLK_CONCURRENCY="1")


@pytest.fixture(scope="module")
def webs(broker: PrivateRabbitMQ, worker: Any, start_web: Callable[..., str]) -> tuple[str, str]:
    """Two web tiers, as on two hosts, of two processes each, before the worker."""
    return start_web(broker.url), start_web(broker.url)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as executor:
        yield executor


def post(web: str, query: str, request_id: str | None = None, **variables: Any) -> requests.Response:
    headers = {} if request_id is None else {"X-Request-Id": request_id}
    return requests.post(f"{web}/graphql", json={"query": query, "variables": variables}, headers=headers, timeout=90)


def translate(web: str, text: str, request_id: str | None = None, timeout: float = 60) -> requests.Response:
    return post(web, TRANSLATE, request_id, input={"texts": [text], "target": "en", "timeout": timeout})


def cancel(web: str, request_id: str) -> bool:
    answer = post(web, CANCEL, id=request_id).json()
    return bool(answer["data"]["cancelTranslation"]["cancelled"])


def test_wherever_a_request_is_it_can_be_cancelled(
    webs: tuple[str, str], threads: ThreadPoolExecutor, eventually: Callable[..., None]
) -> None:
    for web in webs:
        request_id = str(uuid4())
        waiting = threads.submit(translate, webs[0], "#sleep 60", request_id)

        def cancelled(web: str = web, request_id: str = request_id, waiting: Future[Any] = waiting) -> bool:
            """Whoever is told that nothing was cancelled has cancelled nothing."""
            told = cancel(web, request_id.upper())
            assert told or not waiting.done()
            return told

        eventually(cancelled)
        answer = waiting.result(10)
        assert answer.status_code == 409
        assert answer.json()["errors"][0]["extensions"] == {"code": "CANCELLED", "requestId": request_id}
        # The worker is free again, and whoever cancelled may send the same id once more.
        again = translate(web, "un", request_id, timeout=20).json()
        assert again["data"]["translate"] == {"requestId": request_id, "translations": [{"text": "un"}]}
        assert not cancel(web, request_id)


def test_what_is_not_in_flight_is_not_cancelled_and_soon_told(webs: tuple[str, str]) -> None:
    for request_id in (str(uuid4()), "nonsense\n\x1b[31m", ""):
        began = time.monotonic()
        assert not cancel(webs[0], request_id)
        assert time.monotonic() - began < 5


def test_a_repeat_that_waits_can_be_cancelled_wherever_it_is(
    worker: Any, webs: tuple[str, str], threads: ThreadPoolExecutor, eventually: Callable[..., None]
) -> None:
    for web in webs:
        key, first_id, second_id = (str(uuid4()) for _ in range(3))
        given = {"texts": ["#sleep 6"], "target": "en", "timeout": 60, "idempotencyKey": key}
        first = threads.submit(post, webs[0], TRANSLATE, first_id, input=given)
        eventually(lambda first_id=first_id: worker.logged(first_id, "received"))
        second = threads.submit(post, webs[0], TRANSLATE, second_id, input=given)
        eventually(lambda web=web, second_id=second_id: cancel(web, second_id))
        assert second.result(10).status_code == 409
        assert not first.done()
        assert first.result(20).status_code == 200


def test_whoever_answers_too_late_has_cancelled_nothing(
    broker: PrivateRabbitMQ,
    worker: Any,
    webs: tuple[str, str],
    spawn: Callable[..., Any],
    await_web: Callable[..., None],
    free_port: Callable[[], int],
    paused: Callable[..., Any],
    threads: ThreadPoolExecutor,
    eventually: Callable[..., None],
) -> None:
    port = free_port()
    third = f"http://127.0.0.1:{port}"
    service = spawn("gunicorn", CELERY_BROKER_URL=broker.url, PORT=str(port))
    await_web(third, service)
    request_id = str(uuid4())
    waiting = threads.submit(translate, third, "#sleep 4", request_id)
    eventually(lambda: worker.logged(request_id, "received"))
    with paused(service.process):
        assert not cancel(webs[0], request_id)
    assert waiting.result(30).status_code == 200
