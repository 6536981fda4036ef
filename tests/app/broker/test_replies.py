"""One reply queue for all requests of a process, whatever becomes of it and of them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from amqp.exceptions import AMQPError
from kombu import Connection, Consumer, Queue

from app.broker.connections import CONNECT_TIMEOUT
from app.broker.rpc import CeleryTranslator
from app.translation.translate import ask_models
from tasks.contract.bundle import encode_replies
from tasks.contract.errors import Code, TolkError
from tasks.contract.reply import TranslateReply
from tasks.contract.request import TranslateRequest
from tests.app.broker.answering import Worker, ask, failure, length, succeed

pytestmark = pytest.mark.broker


def test_late_and_unknown_replies_are_dropped_and_counted(broker, connect, eventually) -> None:
    translator = connect(broker.url, "late")
    released = threading.Event()

    def answer(payload: dict[str, Any]) -> dict[str, Any]:
        released.wait(30)
        return succeed(payload)

    with Worker(broker.url, "late", answer):
        assert failure(lambda: ask(translator, "un", model="late", timeout=1)).code is Code.TIMEOUT
        replies = translator.replies
        assert replies.pending == {}
        released.set()
        eventually(lambda: replies.dropped == 1)
        assert ask(translator, "deux", model="late").results[0].text == "deux"


def test_several_replies_in_a_message_are_found_and_dropped_one_by_one(broker, connect, eventually) -> None:
    translator = connect(broker.url, "several")
    replies = translator.replies
    assert replies.ready.wait(30)
    with replies.in_flight("r1", None) as first, replies.in_flight("r2", None) as second:
        replies.expect(first, "several")
        replies.expect(second, "several")
        with Connection(broker.url) as connection:
            bodies = [{"task_id": each} for each in (second.task_id, "unknown", first.task_id, first.task_id)]
            connection.Producer().publish(encode_replies(bodies), routing_key=replies.queue, serializer="json")
            assert first.inbox.get(timeout=30) == {"task_id": first.task_id}
            assert second.inbox.get(timeout=30) == {"task_id": second.task_id}
            eventually(lambda: replies.dropped == 2)
    assert first.inbox.empty()


def test_a_reply_queue_that_expired_is_made_anew(broker, connect) -> None:
    translator = connect(broker.url, "silent")
    with Worker(broker.url, "silent"):
        ask(translator, "un", model="silent")
        with Connection(broker.url) as connection:  # as the broker does when it has not seen its process for long
            Queue(translator.replies.queue)(connection.default_channel).delete()
        with suppress(TolkError):  # the reply may come while nobody listens
            ask(translator, "deux", model="silent", timeout=1)
        assert ask(translator, "trois", model="silent", timeout=10).results[0].text == "trois"


def take_away(url: str, name: str) -> Connection:
    """A connection that holds a queue of this name, which nobody else can use."""
    while True:
        connection = Connection(url)
        queue: Any = Queue(name, exclusive=True)(connection.default_channel)
        with suppress(AMQPError):  # its owner was quicker to make it anew
            queue.delete()
            queue.declare()
            return connection
        connection.collect()


def test_a_reply_queue_that_cannot_be_used_is_left_and_its_requests_are_sent_again(broker, connect, eventually) -> None:
    translator = connect(broker.url, "moved")
    with ThreadPoolExecutor(2) as threads:
        asked = []
        for number in range(2):
            asked.append(threads.submit(ask, translator, str(number), model="moved"))
            eventually(lambda sent=number + 1: length(broker.url, "moved") == sent)
        lost = translator.replies.queue
        with take_away(broker.url, lost):
            eventually(lambda: length(broker.url, "moved") > 2)  # again, one by one or both together
        assert translator.replies.queue != lost
        with Worker(broker.url, "moved"):
            assert [each.result().results[0].text for each in asked] == ["0", "1"]
            assert ask(translator, "deux", model="moved").results[0].text == "deux"
            assert translator.status().broker
    assert translator.replies.pending == {}


def test_hang_ups_wait_for_no_broker(fragile, connect, eventually) -> None:
    translator = connect(fragile.url, "hung")
    with ThreadPoolExecutor(8) as threads:
        request = TranslateRequest(texts=("un",), target="en", model="hung", deadline=time.time() + 60)
        waiting = [threads.submit(ask_models, translator, str(number), [request]) for number in range(8)]
        eventually(lambda: len(translator.replies.pending) == 8 and length(fragile.url, "hung"))
        os.kill(fragile.process.pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            for number in range(8):
                translator.abandon(str(number), None)
            assert {failure(each.result).code for each in waiting} == {Code.CANCELLED}
            assert time.monotonic() - began < CONNECT_TIMEOUT
        finally:
            os.kill(fragile.process.pid, signal.SIGCONT)


@pytest.fixture
def in_flight(
    broker, connect, eventually
) -> Iterator[tuple[CeleryTranslator, TranslateRequest, Future[TranslateReply]]]:
    """A translator and the request `r1`, which nobody answers, and the wait for its reply."""
    translator = connect(broker.url, "slow")
    request = TranslateRequest(texts=("un",), target="en", model="slow", deadline=time.time() + 60, principal="me")
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(ask_models, translator, "r1", [request])
        eventually(lambda: ("r1", "me") in translator.replies.pending)
        yield translator, request, waiting
        translator.abandon("r1", "me")


@pytest.mark.parametrize("end", [CeleryTranslator.cancel, CeleryTranslator.abandon])
def test_cancelling_ends_the_wait_at_once(in_flight, end: Callable[..., bool | None]) -> None:
    translator, _, waiting = in_flight
    assert end(translator, "r1", "me") is not False
    assert failure(lambda: waiting.result(30)).code is Code.CANCELLED


def test_another_process_cancels_and_nobody_else_does(broker, connect, in_flight) -> None:
    translator, _, waiting = in_flight
    other = connect(broker.url, "slow")
    other.abandon("r1", "me")
    for process in (translator, other):
        assert process.cancel("r1", "you") is False
        assert process.cancel("r1", None) is False
        assert process.cancel("r2", "me") is False
    assert not waiting.done()
    assert translator.replies.ready.is_set()
    with translator.replies.question():
        assert translator.replies.tell().in_flight == 1
    assert other.cancel("r1", "me") is True
    assert failure(lambda: waiting.result(30)).code is Code.CANCELLED
    assert other.cancel("r1", "me") is False


def test_an_id_in_flight_is_not_taken_twice(in_flight) -> None:
    translator, request, first = in_flight
    error = failure(lambda: ask_models(translator, "r1", [request]))
    assert error.code is Code.BAD_INPUT
    assert "in flight" in error.message
    assert not first.done()
    short = replace(request, principal="you", deadline=time.time() + 0.5)  # who cannot learn that it is taken
    assert failure(lambda: ask_models(translator, "r1", [short])).code is Code.TIMEOUT
    assert not first.done()


def test_closing_fails_what_is_in_flight_and_ends_the_thread(broker, connect, eventually) -> None:
    translator = connect(broker.url, "slow")
    with ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(ask, translator, "un", model="slow") for _ in range(8)]
        eventually(lambda: len(translator.replies.pending) == 8)
        replies = translator.replies
        translator.close()
        assert {failure(each.result).code for each in waiting} == {Code.UNAVAILABLE}
    assert not replies.thread.is_alive()
    assert replies.pending == {}


def test_a_lost_connection_that_still_consumes_takes_no_replies(broker, connect) -> None:
    translator = connect(broker.url, "ghost")
    with Worker(broker.url, "ghost"), Connection(broker.url) as ghost:
        ask(translator, "un", model="ghost")
        queue = Queue(translator.replies.queue, durable=True, expires=120)
        with Consumer(ghost, [queue], no_ack=True):
            texts = [str(number) for number in range(20)]
            assert [ask(translator, text, model="ghost").results[0].text for text in texts] == texts


def test_what_waits_at_a_node_that_is_lost_is_sent_again_to_another(fragile, broker, connect, eventually) -> None:
    translator = connect(f"{fragile.url};{broker.url}", "elsewhere")
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(ask, translator, "un", model="elsewhere")
        eventually(lambda: length(fragile.url, "elsewhere") == 1)
        lost = translator.replies.queue
        fragile.kill()
        try:
            with Worker(broker.url, "elsewhere"):
                assert asked.result().results[0].text == "un"
        finally:
            fragile.start()
    assert translator.replies.queue != lost
