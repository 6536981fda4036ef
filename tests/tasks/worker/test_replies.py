"""Replies are sent by a thread of their own: together where it can be, and even if the connection is lost."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celery import Celery
from kombu import Connection, Queue

import celeryconfig
from tasks.contract.bundle import REPLIES_BYTES, decode_replies
from tasks.contract.names import JOB_RESULTS
from tasks.queues.topology import job_results_queue
from tasks.worker.replies import PERSISTENT, Replies, Reply, messages

TIMEOUT = 20.0


def reply(task_id: str, *, queue: str = "q", several: bool = True, text: str = "", confirmed: Any = None) -> Reply:
    body = {"task_id": task_id, "status": "SUCCESS", "result": {"v": 1, "text": text}}
    return Reply(queue, task_id, body, several, confirmed or (lambda: None))


def carried(replies: list[Reply]) -> list[tuple[str, list[str]]]:
    """The queue of each message, and the ids of the replies in it."""
    made = []
    for each in messages(replies):
        payload = json.loads(each.arguments["body"])
        made.append((each.arguments["routing_key"], [body["task_id"] for body in decode_replies(payload) or [payload]]))
    return made


def test_replies_for_the_same_queue_go_together_if_its_reader_takes_several() -> None:
    sent = [reply("1"), reply("2", several=False), reply("3", queue="p"), reply("4"), reply("5", several=False)]
    assert carried(sent) == [("q", ["2"]), ("q", ["5"]), ("q", ["1", "4"]), ("p", ["3"])]


def test_a_message_holds_no_more_than_it_may_unless_one_reply_alone_does() -> None:
    third = "x" * (REPLIES_BYTES // 3)
    sent = [reply(str(number), text=third) for number in range(5)] + [reply("huge", text=6 * third)]
    found = carried(sent)
    assert [task_id for _, some in found for task_id in some] == ["0", "1", "2", "3", "4", "huge"]
    assert all(len(each.arguments["body"]) <= REPLIES_BYTES for each in messages(sent[:-1]))
    assert found[-1] == ("q", ["huge"])
    assert len(found) < 6


@pytest.mark.broker
def test_replies_that_come_meanwhile_go_together_and_each_is_confirmed(broker) -> None:
    confirmed, gathering = threading.Semaphore(0), threading.Event()

    def first_confirmed() -> None:
        assert gathering.wait(TIMEOUT)
        confirmed.release()

    with sending(broker.url) as (replies, queue):
        replies.send(reply("first", queue=queue.name, confirmed=first_confirmed))
        for number in range(20):
            replies.send(reply(str(number), queue=queue.name, confirmed=confirmed.release))
        gathering.set()
        assert all(confirmed.acquire(timeout=TIMEOUT) for _ in range(21))
        received = []
        while (message := queue.get(no_ack=True)) is not None:
            received.append([body["task_id"] for body in decode_replies(message.payload) or [message.payload]])
    assert [task_id for some in received for task_id in some] == ["first", *map(str, range(20))]
    assert len(received) <= 3


@pytest.mark.broker
@pytest.mark.parametrize("lost", [False, True])
def test_a_reply_arrives_though_its_connection_was_lost(broker, lost: bool) -> None:
    with sending(broker.url) as (replies, queue):
        arrives(replies, queue, "1")
        if lost:
            connection: Any = replies._publisher.connection
            connection.connection.sock.shutdown(socket.SHUT_RDWR)
        arrives(replies, queue, "2")


@pytest.mark.broker
def test_a_reply_arrives_though_a_node_of_the_broker_does_not_answer(broker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        nodes = f"amqp://guest:guest@127.0.0.1:{gone.getsockname()[1]}//;{broker.url}"
        with sending(broker.url, nodes) as (replies, queue):
            arrives(replies, queue, "1")


@pytest.mark.broker
def test_a_result_of_a_job_is_written_to_the_disk_and_never_expires(broker) -> None:
    with sending(broker.url) as (replies, _), Connection(broker.url) as connection:
        results: Any = job_results_queue()
        bound = results(connection.default_channel)
        bound.declare()
        bound.purge()
        confirmed = threading.Event()
        replies.send(reply("of a job", queue=JOB_RESULTS, confirmed=confirmed.set))
        assert confirmed.wait(TIMEOUT)
        message = bound.get(no_ack=True)
        assert message.payload["task_id"] == "of a job"
        assert message.properties["delivery_mode"] == PERSISTENT
        assert "expiration" not in message.properties


@pytest.mark.broker
def test_a_result_for_a_queue_that_is_missing_is_told_and_holds_nobody_up(broker, caplog) -> None:
    with Connection(broker.url) as connection:
        Queue(JOB_RESULTS)(connection.default_channel).delete()
    with sending(broker.url) as (replies, queue):
        confirmed = threading.Event()
        replies.send(reply("of a job", queue=JOB_RESULTS, confirmed=confirmed.set))
        assert confirmed.wait(TIMEOUT)
        arrives(replies, queue, "of a web process")
    [told] = [record.getMessage() for record in caplog.records if JOB_RESULTS in record.getMessage()]
    assert "lost" in told


@contextmanager
def sending(url: str, nodes: str | None = None) -> Iterator[tuple[Replies, Any]]:
    """The replies of a worker, and a reply queue. When the context is left, all replies have been sent."""
    celery = Celery(broker=nodes or url, set_as_current=False)
    celery.config_from_object(celeryconfig)
    replies = Replies(celery, pause=0.05)
    replies.start()
    with Connection(url) as connection:
        queue: Any = Queue("tolk.reply", exclusive=True)
        bound = queue(connection.default_channel)
        bound.declare()
        try:
            yield replies, bound
        finally:
            replies.close()
            celery.close()


def arrives(replies: Replies, queue: Any, task_id: str) -> None:
    """Sends a reply and checks that it arrives."""
    confirmed = threading.Event()
    replies.send(reply(task_id, queue=queue.name, confirmed=confirmed.set))
    assert confirmed.wait(TIMEOUT)
    message = queue.get(no_ack=True)
    assert message.properties["correlation_id"] == task_id
    assert message.payload == {"task_id": task_id, "status": "SUCCESS", "result": {"v": 1, "text": ""}}
