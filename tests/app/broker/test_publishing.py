"""Requests onto a queue of a real broker."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from kombu import Queue

from app.broker.celery import configured
from app.broker.connections import Connections
from app.broker.publishing import Publisher
from app.broker.replies import Waiting
from tasks.contract.request import TranslateRequest
from tasks.queues import topology

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
    router: Any = SimpleNamespace(ready=threading.Event(), queue="nobody")
    router.ready.set()
    connections = Connections(configured(broker.url).connection_for_write())
    publisher = Publisher(connections, router, stands)
    publisher.publish(queue, request, Waiting("r1", None, "r1.0"))
    declared.clear()
    for number in range(1, 6):
        publisher.publish(queue, request, Waiting("r1", None, f"r1.{number}"))
    assert declared.count(queue.name) == times
    assert publisher.length(queue, time.time() + 30) == 6
    connections.close(listens=True)
