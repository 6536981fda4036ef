"""Requests onto a queue of a real broker, by themselves and several in one message."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from kombu import Connection, Message, Queue
from typing_extensions import override

from app.broker.admission import Admission
from app.broker.celery import configured
from app.broker.connections import Connections
from app.broker.gathering import Outgoing
from app.broker.pending import BundleRefused, PendingRequest
from app.broker.publishing import ONE_BY_ONE, Publisher
from app.broker.rpc import CeleryTranslator
from app.translation.translate import ask_models
from tasks.contract.bundle import BUNDLE_BYTES, BUNDLE_CHARACTERS, BUNDLE_REQUESTS, TAKES_MANY, Bundled, decode_bundle
from tasks.contract.delivery import body
from tasks.contract.errors import Code, TolkError
from tasks.contract.names import PUBLISHED, SHARED, TASK
from tasks.contract.reply import TranslateReply
from tasks.contract.request import TranslateRequest
from tasks.queues import topology
from tests.app.broker.answering import Worker, ask, failure, passive_length, refuse, succeed

pytestmark = pytest.mark.broker


class Desk:
    """A publisher whose requests nobody answers but the test."""

    def __init__(self, url: str, threads: ThreadPoolExecutor, eventually: Callable[..., None], stands: float) -> None:
        self.now = 0.0
        self.connections = Connections(configured(url).connection_for_write())
        self._gate = Gate()
        replies: Any = SimpleNamespace(ready=self._gate, queue="nobody")
        self.publisher = Publisher(self.connections, replies, stands, lambda: self.now)
        self._threads = threads
        self._eventually = eventually

    def publish(self, queue: Queue, *requests: TranslateRequest) -> list[tuple[Outgoing, Future[object]]]:
        """Publishes requests, those that may travel together in one message. Returns each with what comes of it, once
        all are confirmed."""
        self._gate.clear()
        self._gate.threads.clear()
        items = [outgoing(request, WatchedInbox(self._gate.threads)) for request in requests]
        asked = []
        for item in items:
            asked.append(self._threads.submit(self.publisher.exchange, queue, item, Admission(2.0)))
            self._eventually(lambda: len(self._gate.threads) == len(asked))
        self._gate.set()
        self._eventually(lambda: all(item.confirmed for item in items))
        return list(zip(items, asked, strict=True))


class Gate(threading.Event):
    """Notes which threads wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[int] = set()

    @override
    def wait(self, timeout: float | None = None) -> bool:
        self.threads.add(threading.get_ident())
        return super().wait(timeout)


class WatchedInbox(SimpleQueue[object]):
    """Notes which threads wait for it."""

    def __init__(self, threads: set[int]) -> None:
        self.threads = threads

    @override
    def get(self, block: bool = True, timeout: float | None = None) -> object:
        self.threads.add(threading.get_ident())
        return super().get(block, timeout)


def outgoing(request: TranslateRequest, inbox: WatchedInbox) -> Outgoing:
    pending = PendingRequest(str(uuid4()), None, str(uuid4()), inbox)
    return Outgoing(pending, Bundled(pending.task_id, request))


def a_request(model: str, text: str = "un", **fields: Any) -> TranslateRequest:
    return TranslateRequest((text,), source="fr", target="en", model=model, deadline=time.time() + 60, **fields)


def take(url: str, queue: Any) -> list[Message]:
    """All messages of a queue, which they leave."""
    with Connection(url) as connection:
        bound = queue(connection.default_channel)
        return list(iter(partial(bound.get, no_ack=True), None))


def sizes(messages: list[Message]) -> list[int]:
    """How many requests each message holds."""
    return [len(message.payload[0][0]) if isinstance(message.payload[0][0], list) else 1 for message in messages]


@pytest.fixture
def desk(broker, eventually) -> Iterator[Callable[..., Desk]]:
    """Makes publishers over the broker."""
    made: list[Desk] = []
    with ThreadPoolExecutor(64) as threads:

        def make(stands: float = 60.0) -> Desk:
            made.append(Desk(broker.url, threads, eventually, stands))
            return made[-1]

        yield make
    for each in made:
        each.connections.close(listens=True)


def end(published: list[tuple[Outgoing, Future[object]]], event: object = None) -> None:
    """Answers requests, or ends them with an error, and waits for their threads."""
    for item, asked in published:
        item.pending.inbox.put(event)
        asked.exception(30)


@pytest.mark.parametrize(("stands", "times"), [(60.0, 0), (0.0, 5)])
def test_a_queue_that_is_known_is_declared_again_when_it_may_have_expired(
    broker, desk, monkeypatch: pytest.MonkeyPatch, stands: float, times: int
) -> None:
    declared: list[str] = []
    declare = Queue.declare
    monkeypatch.setattr(Queue, "declare", lambda self, *a, **k: (declared.append(self.name), declare(self, *a, **k)))
    queue = topology.translation_queue(model := f"once-{times}", "interactive")
    here = desk(stands)
    end(here.publish(queue, a_request(model)))
    declared.clear()
    for _ in range(5):
        end(here.publish(queue, a_request(model)))
    assert declared.count(queue.name) == times
    assert here.publisher.length(queue, time.time() + 30) == 6


def test_a_request_by_itself_is_a_message_of_one(broker, desk) -> None:
    queue = topology.translation_queue("lone", "interactive")
    request = a_request("lone", "un secret", version="1")
    ((item, asked),) = desk().publish(queue, request)
    [message] = take(broker.url, queue)
    task_id = item.bundled.task_id
    assert message.payload == [[request.encode()], {}, {}]
    assert (message.content_type, message.content_encoding) == ("application/json", "utf-8")
    assert {name: value for name, value in message.headers.items() if not name.startswith("x-")} == {
        "lang": "py",
        "task": TASK,
        "id": task_id,
        "root_id": task_id,
        "parent_id": None,
        "group": None,
        "argsrepr": "<1 text, 9 characters, fr to en by lone, interactive>",
        "kwargsrepr": "{}",
        PUBLISHED: item.published,
        TAKES_MANY: 1,
    }
    assert message.properties["correlation_id"] == task_id
    assert message.properties["reply_to"] == "nobody"
    assert message.properties["delivery_mode"] == 2
    assert 0 < int(message.properties["expiration"]) <= 60_000
    end([(item, asked)])


def test_requests_that_gathered_are_one_message_that_expires_with_the_last_of_them(broker, desk) -> None:
    queue = topology.translation_queue("many", "interactive")
    soon, late = a_request("many", "un secret"), replace(a_request("many", "deux"), deadline=time.time() + 500)
    published = desk().publish(queue, soon, late, soon)
    [message] = take(broker.url, queue)
    [[found], positional, named] = message.payload
    assert (positional, named) == ({}, {})
    assert decode_bundle(found) == [item.bundled for item, _ in published]
    assert message.headers["id"] == message.properties["correlation_id"] == published[0][0].pending.bundle
    assert message.headers["argsrepr"] == "<3 requests, 3 texts, 22 characters, by many, interactive>"
    assert message.headers[TAKES_MANY] == 1
    assert 400_000 < int(message.properties["expiration"]) <= 500_000
    end(published)


def test_a_message_has_at_most_sixteen_requests_and_64_kb(broker, desk) -> None:
    queue = topology.translation_queue("limits", "interactive")
    here = desk()
    end(here.publish(queue, *[a_request("limits")] * (BUNDLE_REQUESTS + 1)))
    assert sizes(take(broker.url, queue)) == [BUNDLE_REQUESTS, 1]
    end(here.publish(queue, *[a_request("limits", "é" * BUNDLE_CHARACTERS)] * 12))
    messages = take(broker.url, queue)
    assert sizes(messages) == [5, 5, 2]
    assert all(len(body(message)) <= BUNDLE_BYTES for message in messages)


def test_large_requests_bulk_models_on_demand_and_other_versions_travel_by_themselves(broker, desk) -> None:
    here = desk()
    for queue, requests in (
        (topology.translation_queue("alone", "interactive"), [a_request("alone", "x" * (BUNDLE_CHARACTERS + 1))] * 2),
        (topology.translation_queue("alone", "interactive"), [a_request("alone", version=each) for each in "12"]),
        (topology.translation_queue("alone", "bulk"), [a_request("alone", priority="bulk")] * 2),
        (topology.translation_queue(SHARED[3], "interactive"), [a_request("alone")] * 2),
    ):
        end(here.publish(queue, *requests))
        assert sizes(take(broker.url, queue)) == [1, 1]


def test_after_a_bundle_that_no_worker_could_read_requests_travel_by_themselves_for_a_minute(broker, desk) -> None:
    queue = topology.translation_queue("minute", "interactive")
    here, two = desk(), [a_request("minute")] * 2
    end(here.publish(queue, *two), BundleRefused())
    assert sizes(take(broker.url, queue)) == [2]
    here.now += ONE_BY_ONE - 1
    end(here.publish(queue, *two))
    assert sizes(take(broker.url, queue)) == [1, 1]
    here.now += 1
    end(here.publish(queue, *two))
    assert sizes(take(broker.url, queue)) == [2]


@contextmanager
def gathered(
    translator: CeleryTranslator, model: str, requests: int, eventually: Callable[..., None]
) -> Iterator[list[Future[TranslateReply]]]:
    """Requests of which most are in bundles, and that are sent when the context is left."""
    replies = translator.replies
    assert replies.ready.wait(30)
    replies.ready.clear()
    with ThreadPoolExecutor(requests) as threads:
        asked = [threads.submit(ask, translator, str(number), model=model) for number in range(requests)]
        eventually(lambda: len(replies.pending) == requests)
        yield asked
        replies.ready.set()


def test_each_of_many_gets_its_own_reply(broker, connect, eventually) -> None:
    translator = connect(broker.url, "own")
    with Worker(broker.url, "own") as worker:
        with gathered(translator, "own", 40, eventually) as asked:
            pass
        assert [each.result(30).results[0].text for each in asked] == [str(number) for number in range(40)]
    assert sum(sizes(worker.messages)) == 40
    assert 1 < max(sizes(worker.messages)) <= BUNDLE_REQUESTS
    assert translator.replies.dropped == 0


def test_a_worker_that_reads_no_bundles_gets_the_requests_one_by_one(broker, connect, eventually) -> None:
    translator = connect(broker.url, "old")
    with Worker(broker.url, "old", to_bundle=refuse) as worker:
        for _ in range(2):
            with gathered(translator, "old", 8, eventually) as asked:
                pass
            assert [each.result(30).results[0].text for each in asked] == [str(number) for number in range(8)]
    assert sizes(worker.messages)[-16:] == [1] * 16
    assert max(sizes(worker.messages)) > 1


def test_a_bundle_that_is_revoked_cancels_each_of_its_requests(broker, connect, eventually) -> None:
    translator = connect(broker.url, "revoked")
    revoked = {"status": "REVOKED", "result": {"exc_type": "TaskRevokedError", "exc_message": ["revoked"]}}
    with Worker(broker.url, "revoked", to_bundle=lambda _: revoked) as worker:
        with gathered(translator, "revoked", 8, eventually) as asked:
            pass
        codes = [None if (error := each.exception(30)) is None else error.code for each in asked]
    alone = sizes(worker.messages).count(1)
    assert sorted(codes, key=str) == [Code.CANCELLED] * (8 - alone) + [None] * alone


def test_a_full_queue_is_overload_and_not_retried(broker, connect, eventually) -> None:
    translator = connect(broker.url, "full")
    queue = topology.translation_queue("full", "interactive")
    with Connection(broker.url) as connection:
        producer = connection.Producer()
        producer.publish({}, routing_key=queue.name, declare=[queue])
        for _ in range(topology.MAX_LENGTH["interactive"] + 50):
            producer.publish({}, routing_key=queue.name)
        with gathered(translator, "full", 8, eventually) as asked:
            pass
        errors = [failure(partial(each.result, 30)) for each in asked]
        assert {error.code for error in errors} == {Code.OVERLOADED}
        assert all(error.retry_after is not None for error in errors)
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


def test_no_reply_is_lost_or_crossed_whatever_the_callers_do(broker, connect) -> None:
    """32 callers, some of whom have little time, hang up, or cancel, before a worker that drops some requests."""
    translator = connect(broker.url, "crossed")

    def answer(payload: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.002)
        return succeed(payload)

    def call(caller: int) -> list[str]:
        chance, ends = random.Random(caller), []
        for number in range(30):
            request_id, text = str(uuid4()), f"{caller}.{number}"
            timeout = chance.choice([0.02, 0.05, 30.0, 30.0])
            request = replace(a_request("crossed", text), deadline=time.time() + timeout)
            end = chance.choice([None, None, translator.abandon, translator.cancel])
            timer = threading.Timer(chance.uniform(0, 0.05), end or (lambda *_: None), (request_id, None))
            timer.start()
            try:
                reply = ask_models(translator, request_id, [request])
                assert reply.results[0].text == text
                ends.append("answered")
            except TolkError as error:
                if timeout == 30.0 and end is None:
                    raise
                ends.append(error.code)
            finally:
                timer.join()
        return ends

    with Worker(broker.url, "crossed", answer) as worker, ThreadPoolExecutor(32) as threads:
        ends = [end for each in threads.map(call, range(32)) for end in each]
    assert len(ends) == 32 * 30
    assert set(ends) <= {"answered", Code.CANCELLED, Code.TIMEOUT, Code.UNAVAILABLE, Code.OVERLOADED}
    assert max(sizes(worker.messages)) > 1
    assert translator.replies.pending == {}
