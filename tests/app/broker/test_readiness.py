"""What gunicorn says of itself when RabbitMQ accepts nothing, or does not answer at all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import pytest
import requests

from launch.rabbitmq import PrivateRabbitMQ

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]

MODELS = {"query": "{ models { name status } }"}


@pytest.fixture(scope="module")
def own_broker(new_broker: Callable[[], PrivateRabbitMQ]) -> Iterator[PrivateRabbitMQ]:
    with new_broker() as running:
        yield running


@pytest.fixture(scope="module")
def web(own_broker: PrivateRabbitMQ, start_worker: Callable[..., Any], start_web: Callable[..., str]) -> str:
    start_worker(own_broker.url, app="echo")
    return start_web(own_broker.url)


def test_who_may_not_publish_is_not_ready(
    web: str,
    own_broker: PrivateRabbitMQ,
    alarm: Callable[..., AbstractContextManager[None]],
    eventually: Callable[..., None],
) -> None:
    def ready() -> int:
        return requests.get(f"{web}/readyz", timeout=20).status_code

    assert ready() == 200
    with alarm(own_broker):
        began = time.monotonic()
        assert [ready() for _ in range(3)] == [503] * 3
        assert requests.get(f"{web}/healthz", timeout=20).status_code == 200
        asked = time.monotonic()
        models = requests.post(f"{web}/graphql", json=MODELS, timeout=20).json()["data"]["models"]
        assert {model["status"] for model in models} == {"UNKNOWN"}
        assert time.monotonic() - asked < 4
        assert time.monotonic() - began < 15
    eventually(lambda: ready() == 200)


def test_however_many_ask_whether_it_is_ready_it_says_at_once_that_it_lives(
    web: str, own_broker: PrivateRabbitMQ, paused: Callable[..., AbstractContextManager[None]]
) -> None:
    def get(path: str) -> tuple[int, float]:
        began = time.monotonic()
        return requests.get(f"{web}{path}", timeout=30).status_code, time.monotonic() - began

    with ThreadPoolExecutor(310) as threads, paused(own_broker.process):
        list(threads.map(get, ["/readyz"] * 8))  # afterwards either process knows
        waiting = [threads.submit(get, "/readyz") for _ in range(300)]
        time.sleep(0.5)  # some of them wait for the broker now
        alive = [get("/healthz") for _ in range(10)]
        assert {each.result()[0] for each in waiting} == {503}
    assert {status for status, _ in alive} == {200}
    assert sorted(seconds for _, seconds in alive)[8] < 0.2
