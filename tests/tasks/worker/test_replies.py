"""A reply is sent even if its connection is lost."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest
from celery import Celery
from kombu import Connection, Queue

import celeryconfig


@pytest.mark.broker
@pytest.mark.parametrize("lost", [False, True])
def test_a_reply_arrives_though_its_connection_was_lost(broker, lost: bool) -> None:
    celery = application(broker.url)
    with celery.amqp.producer_pool.acquire() as producer:
        used = producer.channel.connection.sock
    if lost:
        used.shutdown(socket.SHUT_RDWR)
    send(celery, broker.url)
    celery.close()


@pytest.mark.broker
def test_a_reply_arrives_though_a_node_of_the_broker_does_not_answer(broker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        celery = application(f"amqp://guest:guest@127.0.0.1:{gone.getsockname()[1]}//;{broker.url}")
        send(celery, broker.url)
        celery.close()


def application(url: str) -> Celery:
    celery = Celery(broker=url, set_as_current=False)
    celery.config_from_object(celeryconfig)
    return celery


def send(celery: Celery, url: str) -> None:
    """Sends a reply and checks that it arrives."""
    with Connection(url) as connection:
        queue = Queue("tolk.reply", exclusive=True)(connection.default_channel)
        queue.declare()
        request = SimpleNamespace(reply_to="tolk.reply", correlation_id="r1", group=None)
        celery.backend.store_result("r1", {"v": 1}, "SUCCESS", request=request)
        message = queue.get(no_ack=True)
    assert message.properties["correlation_id"] == "r1"
    assert {key: message.payload[key] for key in ("task_id", "status", "result")} == {
        "task_id": "r1",
        "status": "SUCCESS",
        "result": {"v": 1},
    }
