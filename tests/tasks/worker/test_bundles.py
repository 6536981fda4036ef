"""Bundles in real workers on a real broker: they are answered, torn apart, cancelled and handed back."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from kombu import Connection, Queue

from launch.rabbitmq import PrivateRabbitMQ
from tasks.contract.bundle import RETURNED, TAKES_MANY, Bundled, decode_replies
from tasks.contract.errors import Code
from tasks.contract.names import PUBLISHED, TASK, suspects_name
from tasks.contract.reply import TranslateReply
from tasks.contract.request import TranslateRequest
from tasks.queues import topology
from tests.telemetry.collector import Collector

pytestmark = pytest.mark.broker

TIMEOUT = 30.0
QUICKLY = ("--without-mingle", "--without-gossip")


class Sender:
    """A web process that sends bundles to the workers of model `a`, and reads several replies in one message."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.channel: Any = connection.default_channel
        unbound: Any = Queue(f"tolk.reply.{uuid4().hex}", exclusive=True)
        self.queue = unbound(self.channel)
        self.queue.declare()
        queues: list[Any] = [topology.dead_letter_queue(), topology.suspects_queue("a")]
        for needed in [*queues, topology.translation_queue("a", "interactive")]:
            needed(self.channel).declare()
            needed(self.channel).purge()
        self.received: list[list[str]] = []  # the ids of the replies in each message, in order of arrival
        self.replies: dict[str, TranslateReply] = {}
        self.queue.consume(callback=self._receive, no_ack=True)

    def bundle(self, asked: dict[str, str], timeout: float = 60, **headers: Any) -> str:
        """Sends texts to translate, by the ids of their requests. Returns the id of the message."""
        items = [Bundled(task_id, request(text, timeout)).encode() for task_id, text in asked.items()]
        return self.publish(items, str(uuid4()), **headers)

    def publish(self, payload: Any, task_id: str, **headers: Any) -> str:
        self.connection.Producer().publish(
            ([payload], {}, {}),
            serializer="json",
            exchange="tolk.translate",
            routing_key="tolk.translate.a.interactive",
            headers={"task": TASK, "id": task_id, PUBLISHED: time.time(), TAKES_MANY: 1} | headers,
            correlation_id=task_id,
            reply_to=self.queue.name,
            expiration=60,
        )
        return task_id

    def has(self, count: int) -> dict[str, str | Code | None]:
        """What `count` requests were answered with, when they are: the text, or the error's code."""
        until = time.monotonic() + TIMEOUT
        while len(self.replies) < count:
            self.connection.drain_events(timeout=until - time.monotonic())
        return {
            task_id: reply.results[0].text if reply.error is None else reply.error.code
            for task_id, reply in self.replies.items()
        }

    def letters(self) -> list[Any]:
        """Takes the dead letters."""
        queue = topology.dead_letter_queue()(self.channel)
        return list(iter(lambda: queue.get(no_ack=True), None))

    def _receive(self, message: Any) -> None:
        payload = json.loads(message.body)
        some = decode_replies(payload) or [payload]
        self.received.append([each["task_id"] for each in some])
        for each in some:
            self.replies[each["task_id"]] = TranslateReply.decode(each["result"])


def request(text: str, timeout: float = 60, **fields: Any) -> TranslateRequest:
    return TranslateRequest((text,), "en", "a", time.time() + timeout, "fr", **fields)


@pytest.fixture
def sender(broker: PrivateRabbitMQ) -> Iterator[Sender]:
    with Connection(broker.url, transport_options={"confirm_publish": True}) as connection:
        yield Sender(connection)


@pytest.fixture
def worker(broker: PrivateRabbitMQ, start_worker, models: Path) -> Iterator[Any]:
    made = start_worker(broker.url, *QUICKLY, app="echo", TOLK_MODELS=str(models), TOLK_CONCURRENCY="8")
    yield made
    made.stop()


def test_every_request_is_answered_as_soon_as_it_is_ready(worker, sender: Sender) -> None:
    sender.bundle({"slow": "#sleep 3", "quick": "un", "bad": "#bad", "bug": "#fail"})
    assert set(sender.has(3)) == {"quick", "bad", "bug"}
    assert sender.has(4) == {"quick": "un", "bad": None, "bug": Code.INTERNAL, "slow": "#sleep 3"}
    assert sender.replies["slow"].timings.queue < 3
    assert worker.says("[quick] OK")


def test_a_request_that_cannot_be_read_or_comes_too_late_has_an_error_of_its_own(worker, sender: Sender) -> None:
    good, late = (Bundled(name, request("un", timeout)).encode() for name, timeout in (("good", 60), ("late", -1)))
    other = Bundled("other", request("un", version="old")).encode()
    unknown = {**good, "id": "unknown", "model": "nope"}
    sender.publish([{"id": "unreadable", "v": 1}, {"v": 1}, good, late, unknown, other], str(uuid4()))
    assert sender.has(5) == {
        "unreadable": Code.BAD_INPUT,
        "good": "un",
        "late": Code.TIMEOUT,
        "unknown": Code.UNKNOWN_MODEL,
        "other": Code.UNKNOWN_MODEL,
    }


def test_a_sender_of_an_earlier_release_gets_each_reply_alone(worker, sender: Sender) -> None:
    for number in range(20):
        sender.publish(request("un").encode(), f"single-{number}", **{TAKES_MANY: 0})
    sender.has(20)
    assert [len(some) for some in sender.received] == [1] * 20


def test_a_message_as_an_earlier_release_sends_it(worker, sender: Sender) -> None:
    recorded = (
        b'[[{"v": 1, "texts": ["Il pleut."], "target": "en", "model": "a", "deadline": 4102444800.0, "source": "fr", '
        b'"version": null, "options": {"beam": 1, "nbest": 1, "length_penalty": 1.0}, "priority": "interactive", '
        b'"principal": null}], {}, {}]'
    )
    sender.connection.Producer().publish(
        recorded,
        content_type="application/json",
        content_encoding="utf-8",
        exchange="tolk.translate",
        routing_key="tolk.translate.a.interactive",
        headers={
            "lang": "py",
            "task": "tolk.translate",
            "id": "8f14e45f-ceea-467f-a0e6-1b1d5a4f2c11.5f1e2d3c",
            "root_id": "8f14e45f-ceea-467f-a0e6-1b1d5a4f2c11.5f1e2d3c",
            "parent_id": None,
            "group": None,
            "argsrepr": "<1 text, 9 characters, fr to en by a, interactive>",
            "kwargsrepr": "{}",
            "tolk-published": 1764457200.0,
        },
        correlation_id="8f14e45f-ceea-467f-a0e6-1b1d5a4f2c11.5f1e2d3c",
        reply_to=sender.queue.name,
        expiration=60,
    )
    assert sender.has(1) == {"8f14e45f-ceea-467f-a0e6-1b1d5a4f2c11.5f1e2d3c": "Il pleut."}


def test_cancelling_ends_one_request_of_a_bundle(broker, worker, sender: Sender, eventually) -> None:
    message = sender.bundle({"unwanted": "#sleep 60", "wanted": "#sleep 2"})
    eventually(lambda: worker.says(f"[{message}] received"))
    Celery(broker=broker.url).control.broadcast("cancel", arguments={"task_id": "unwanted"})
    assert sender.has(1) == {"unwanted": Code.CANCELLED}
    assert sender.has(2)["wanted"] == "#sleep 2"


def test_revoking_a_bundle_cancels_each_of_its_requests(broker, worker, sender: Sender, eventually) -> None:
    fill = {f"fill-{number}": "#sleep 60" for number in range(8)}
    for task_id, text in fill.items():  # every thread of the worker is busy
        sender.publish(request(text).encode(), task_id)
    eventually(lambda: all(worker.says(f"[{task_id}] received") for task_id in fill))
    message = sender.bundle({"1": "un", "2": "deux"})
    control = Celery(broker=broker.url).control
    control.revoke(message)
    for task_id in fill:
        control.broadcast("cancel", arguments={"task_id": task_id})
    assert sender.has(10) == dict.fromkeys([*fill, "1", "2"], Code.CANCELLED)


def test_a_killer_among_fifteen_ends_three_processes_and_takes_no_other_along(
    broker, spawn, start_worker, sender: Sender, eventually, models: Path
) -> None:
    environ = {"CELERY_BROKER_URL": broker.url, "TOLK_MODELS": str(models)}
    innocents = {f"innocent-{number}": f"#sleep 0.{number}" for number in range(15)}
    sender.bundle({**innocents, "killer": "#die"})
    for _ in range(3):
        victim = spawn("celery", "-A", "echo", "--workdir", "tests/tasks", "worker", *QUICKLY, **environ)
        assert victim.process.wait(TIMEOUT) == -signal.SIGKILL
    last = start_worker(broker.url, *QUICKLY, app="echo", TOLK_MODELS=str(models))
    assert sender.has(15) == innocents
    assert last.process.poll() is None
    [letter] = sender.letters()
    assert letter.headers["id"] == "killer"
    assert letter.headers[RETURNED] == 1
    assert len(letter.payload[0]) == 1
    last.stop()


def test_what_is_delivered_again_is_torn_apart(
    broker, start_worker, worker, sender: Sender, eventually, models: Path
) -> None:
    message = sender.bundle({"1": "#sleep 2", "2": "un"})
    assert set(sender.has(1)) == {"2"}
    assert worker.says(f"[{message}] received")
    sender.replies.clear()  # the reply to `2` comes twice, because the whole message comes back
    worker.stop(signal.SIGKILL)
    second = start_worker(broker.url, *QUICKLY, app="echo", TOLK_MODELS=str(models))
    assert sender.has(2) == {"1": "#sleep 2", "2": "un"}
    assert second.says("that came back is taken apart")
    assert second.says("[1] received")
    second.stop()


def test_a_request_that_comes_back_once_more_goes_to_the_suspects(
    broker, spawn, start_worker, sender: Sender, models: Path
) -> None:
    sender.publish(request("#die").encode(), "killer", **{RETURNED: 1})
    environ = {"CELERY_BROKER_URL": broker.url, "TOLK_MODELS": str(models)}
    victim = spawn("celery", "-A", "echo", "--workdir", "tests/tasks", "worker", *QUICKLY, **environ)
    assert victim.process.wait(TIMEOUT) == -signal.SIGKILL
    victim = spawn("celery", "-A", "echo", "--workdir", "tests/tasks", "worker", *QUICKLY, **environ)
    assert victim.process.wait(TIMEOUT) == -signal.SIGKILL
    last = start_worker(broker.url, *QUICKLY, app="echo", TOLK_MODELS=str(models))
    [letter] = sender.letters()
    assert letter.headers["x-first-death-queue"] == suspects_name("a")
    last.stop()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGQUIT])
def test_a_worker_that_stops_hands_back_what_has_no_reply_as_single_requests(
    broker, start_worker, worker, sender: Sender, eventually, models: Path, how: int
) -> None:
    sender.bundle({"quick": "un", "long": "#sleep 20", "longer": "#sleep 21"})
    assert sender.has(1) == {"quick": "un"}
    assert worker.stop(how) == 0
    raw = topology.translation_queue("a", "interactive")(sender.channel)
    handed = sorted(iter(lambda: raw.get(no_ack=True), None), key=lambda each: str(each.headers["id"]))
    assert [each.headers["id"] for each in handed] == ["long", "longer"]
    for each in handed:
        [payload] = json.loads(each.body)[0]
        assert TranslateRequest.decode(payload).texts[0].startswith("#sleep 2")
        assert each.properties["correlation_id"] == each.headers["id"]
        assert RETURNED not in each.headers
        assert 0 < int(each.properties["expiration"]) <= 60_000


def test_a_worker_full_of_bundles_hands_back_each_request_once(
    broker, start_worker, sender: Sender, eventually, models: Path
) -> None:
    """60 messages of 16 requests, as many as a message holds: the queue takes up to 1,000 messages."""
    worker = start_worker(broker.url, *QUICKLY, app="echo", TOLK_MODELS=str(models), TOLK_CONCURRENCY="60")
    asked = {f"{bundle}-{number}": "#sleep 50" for bundle in range(60) for number in range(16)}
    names = list(asked)
    for first in range(0, len(names), 16):
        message = sender.bundle({name: asked[name] for name in names[first : first + 16]})
        eventually(partial(worker.says, f"[{message}] received"))
    assert worker.stop() == 0
    raw = topology.translation_queue("a", "interactive")(sender.channel)
    handed = [each.headers["id"] for each in iter(lambda: raw.get(no_ack=True), None)]
    assert sorted(handed) == sorted(names)


def test_a_bundle_that_celery_cannot_take_answers_its_requests(worker, sender: Sender) -> None:
    sender.bundle({"1": "un", "2": "deux"}, eta="a secret")
    assert sender.has(2) == dict.fromkeys("12", Code.INTERNAL)
    assert sender.letters() == []


def test_the_worker_counts_requests(worker, sender: Sender, translator, eventually) -> None:
    sender.bundle({str(number): "#sleep 3" for number in range(16)})

    def counts() -> tuple[int, int]:
        statuses = translator.status().workers.values()
        return sum(each.active for each in statuses), sum(each.processed for each in statuses)

    eventually(lambda: counts() == (16, 0))
    sender.has(16)
    eventually(lambda: counts() == (0, 16))


def test_the_stages_of_each_request_are_in_its_own_trace(
    broker, start_worker, sender: Sender, eventually, models: Path
) -> None:
    traces = [bytes([number] * 16) for number in (1, 2)]
    with Collector() as collector:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        worker = start_worker(broker.url, *QUICKLY, app="echo", TOLK_MODELS=str(models), **environ)
        items = [
            Bundled(trace.hex(), request("un"), {"traceparent": f"00-{trace.hex()}-{'3' * 16}-01"}).encode()
            for trace in traces
        ]
        sender.publish(items, str(uuid4()), traceparent=f"00-{'4' * 32}-{'5' * 16}-01")
        sender.has(2)

        def names(trace: bytes) -> list[str]:
            return sorted(span.name for span in collector.spans if span.trace == trace)

        for trace in traces:
            eventually(lambda trace=trace: names(trace) == ["decode", "load", "prefill", "queue", "wait"])
        eventually(lambda: names(b"\x44" * 16) == ["run/tolk.translate"])
        [task] = [span for span in collector.spans if span.name == "run/tolk.translate"]
        assert task.links == set(traces)
        worker.stop()
