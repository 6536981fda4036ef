"""Requests onto a queue of a real broker."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from kombu import Connection, Queue

from app.broker.celery import configured
from app.broker.connections import Connections
from app.broker.publishing import Publisher
from app.broker.replies import PendingRequest
from tasks.contract.errors import Code, TolkError
from tasks.contract.request import TranslateRequest
from tasks.queues import topology
from tests.app.broker.answering import Worker, ask, failure, passive_length

pytestmark = pytest.mark.broker


@pytest.mark.parametrize(("stands", "times"), [(60.0, 0), (0.0, 5)])
def test_a_queue_that_is_known_is_declared_again_when_it_may_have_expired(
    broker, monkeypatch: pytest.MonkeyPatch, stands: float, times: int
) -> None:
    declared: list[str] = []
    declare = Queue.declare
    monkeypatch.setattr(Queue, "declare", lambda self, *a, **k: (declared.append(self.name), declare(self, *a, **k)))
    queue = topology.translation_queue(model := f"once-{times}", "interactive")
    request = TranslateRequest(texts=("un",), source="fr", target="en", model=model, deadline=time.time() + 30)
    replies: Any = SimpleNamespace(ready=threading.Event(), queue="nobody")
    replies.ready.set()
    connections = Connections(configured(broker.url).connection_for_write())
    publisher = Publisher(connections, replies, stands)
    publisher.publish(queue, request, PendingRequest("r1", None, "r1.0"))
    declared.clear()
    for number in range(1, 6):
        publisher.publish(queue, request, PendingRequest("r1", None, f"r1.{number}"))
    assert declared.count(queue.name) == times
    assert publisher.length(queue, time.time() + 30) == 6
    connections.close(listens=True)


def test_the_message_says_when_it_expires_and_hides_the_texts(broker, connect) -> None:
    translator = connect(broker.url, "odd")
    with Worker(broker.url, "odd") as worker:
        ask(translator, "un secret", model="odd", timeout=20)
    (message,) = worker.messages
    assert 0 < int(message.properties["expiration"]) <= 20_000
    assert message.properties["delivery_mode"] == 2
    assert "secret" not in str(message.headers)


def test_a_full_queue_is_overload_and_not_retried(broker, connect) -> None:
    translator = connect(broker.url, "full")
    queue = topology.translation_queue("full", "interactive")
    with Connection(broker.url) as connection:
        producer = connection.Producer()
        producer.publish({}, routing_key=queue.name, declare=[queue])
        for _ in range(topology.MAX_LENGTH["interactive"] + 50):
            producer.publish({}, routing_key=queue.name)
        error = failure(lambda: ask(translator, "un", model="full", timeout=60))
        assert error.code is Code.OVERLOADED
        assert error.retry_after is not None
        queue(connection.default_channel).purge()
    with Worker(broker.url, "full"):
        assert ask(translator, "deux", model="full").results[0].text == "deux"


def test_a_queue_that_was_deleted_comes_back(broker, connect, eventually) -> None:
    translator = connect(broker.url, "gone")
    with Worker(broker.url, "gone"):
        ask(translator, "un", model="gone")
    with Connection(broker.url) as connection:
        topology.translation_queue("gone", "interactive")(connection.default_channel).delete()
    with suppress(TolkError):  # one may be lost while it is believed to be there
        ask(translator, "deux", model="gone", timeout=1)
    with ThreadPoolExecutor(1) as threads:
        found = threads.submit(ask, translator, "trois", model="gone")
        eventually(lambda: passive_length(broker.url, "gone") == 1)
        with Worker(broker.url, "gone"):
            assert found.result().results[0].text == "trois"
