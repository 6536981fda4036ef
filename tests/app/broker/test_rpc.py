"""The router and the publisher, with a real broker that dies, hangs and fills up, and workers that answer nonsense."""

from __future__ import annotations

import json
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from amqp.exceptions import AMQPError, NotFound
from kombu import Connection, Consumer, Message, Queue

from app.broker.admission import Admission
from app.broker.connections import CONNECT_TIMEOUT
from app.broker.rpc import CeleryTranslator
from app.settings import IN_FLIGHT
from app.translation.translate import ask_models
from launch.rabbitmq import PrivateRabbitMQ
from tasks.contract.errors import Code, TolkError
from tasks.contract.reply import RequestTimings, TextResult, TranslateReply
from tasks.contract.request import TranslateRequest
from tasks.queues import topology
from tasks.registry.entry import Entry, Pair
from tasks.registry.ways import Registry
from telemetry import tracing

pytestmark = pytest.mark.broker

PICKLED = pickle.dumps({"status": "SUCCESS", "result": TranslateReply("odd", results=(TextResult("un"),)).encode()})

Answer = Callable[[dict[str, Any]], Any]


def offering(*names: str) -> SimpleNamespace:
    """A models.toml of warm models with these names."""
    registry = Registry({name: Entry(name, "fr-en", (Pair("fr", "en"),)) for name in names})
    return SimpleNamespace(current=lambda: registry)


def ask(translator: CeleryTranslator, *texts: str, model: str, timeout: float = 30) -> TranslateReply:
    request = TranslateRequest(texts=texts, source="fr", target="en", model=model, deadline=time.time() + timeout)
    return ask_models(translator, str(uuid4()), [request])


def failure(call: Callable[[], object]) -> TolkError:
    with pytest.raises(TolkError) as caught:
        call()
    return caught.value


def succeed(payload: dict[str, Any]) -> dict[str, Any]:
    reply = TranslateReply(model=payload["model"], results=tuple(TextResult(text, 0.0) for text in payload["texts"]))
    return {"status": "SUCCESS", "result": reply.encode()}


def length(url: str, model: str) -> int:
    """How many messages wait in a model's queue."""
    with Connection(url) as connection:
        queue = topology.translation_queue(model, "interactive")(connection.default_channel)
        return queue.queue_declare().message_count


def passive_length(url: str, model: str) -> int | None:
    """The same without declaring it; None where there is none."""
    with Connection(url) as connection:
        queue = topology.translation_queue(model, "interactive")(connection.default_channel)
        try:
            return queue.queue_declare(passive=True).message_count
        except NotFound:
            return None


def on_disk(broker: PrivateRabbitMQ, model: str) -> bool:
    """Whether the node has written down that it has the queue. It does so once a second; a queue that is younger when
    the node is killed never works again."""
    name = topology.translation_queue(model, "interactive").name.encode()
    return any(name in path.read_bytes() for path in broker.directory.glob("**/names.dets"))


class Worker:
    """Consumes a model's queue as a worker would, and answers what it is told to."""

    def __init__(self, url: str, model: str, answer: Answer = succeed) -> None:
        self.answer = answer
        self.messages: list[Message] = []
        self._queue = topology.translation_queue(model, "interactive")
        self._connection = Connection(url)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Worker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._consume()
            except (AMQPError, OSError):  # a broker that has just come back may still send it away
                self._connection.collect()

    def _consume(self) -> None:
        with (
            self._connection as connection,
            Consumer(connection, [self._queue], on_message=self._on_message, accept=["json"]),
        ):
            while not self._stopped.is_set():
                with suppress(TimeoutError):
                    connection.drain_events(timeout=0.1)

    def _on_message(self, message: Message) -> None:
        self.messages.append(message)
        args, _, _ = message.payload
        body = self.answer(args[0])
        content_type = "application/x-python-serialize" if body is PICKLED else "application/json"
        encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._connection.default_channel.basic_publish(
            self._connection.default_channel.prepare_message(
                encoded,
                content_type=content_type,
                content_encoding="utf-8",
                properties={"correlation_id": message.properties["correlation_id"], "delivery_mode": 1},
            ),
            routing_key=message.properties["reply_to"],
        )
        message.ack()


@pytest.fixture
def connect() -> Iterator[Callable[..., CeleryTranslator]]:
    """Makes translators for models over a broker, which are closed after the test."""
    made: list[CeleryTranslator] = []

    def make(url: str, *models: str) -> CeleryTranslator:
        made.append(CeleryTranslator.from_config(offering(*models), url))
        return made[-1]

    yield make
    for translator in made:
        translator.close()


@pytest.fixture(scope="module")
def fragile(new_broker: Callable[[], PrivateRabbitMQ]) -> Iterator[PrivateRabbitMQ]:
    """A RabbitMQ to be ill-treated, and left in good health."""
    with new_broker() as running:
        yield running


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"no JSON", Code.INTERNAL),
        (b"\xff", Code.INTERNAL),
        (PICKLED, Code.INTERNAL),
        ([], Code.INTERNAL),
        (None, Code.INTERNAL),
        ({}, Code.INTERNAL),
        ({"status": "SUCCESS"}, Code.INTERNAL),
        ({"status": "SUCCESS", "result": {"v": 2}}, Code.INTERNAL),
        ({"status": "SUCCESS", "result": TranslateReply(model="odd").encode()}, Code.INTERNAL),
        ({"status": "FAILURE", "result": {"exc_type": "NotRegistered", "exc_message": ["x"]}}, Code.INTERNAL),
        ({"status": "REVOKED", "result": {"exc_type": "TaskRevokedError", "exc_message": ["revoked"]}}, Code.CANCELLED),
    ],
)
def test_whatever_a_worker_answers_is_one_error(broker, connect, body: Any, code: Code) -> None:
    translator = connect(broker.url, "odd")
    with Worker(broker.url, "odd", lambda _: body):
        error = failure(lambda: ask(translator, "un", model="odd"))
    assert error.code is code


def test_an_error_of_the_worker_arrives_with_its_message(broker, connect) -> None:
    reply = TranslateReply(model="odd").encode()
    reply["error"] = {"code": "OVERLOADED", "message": "full", "retry_after": 2.5}
    translator = connect(broker.url, "odd")
    with Worker(broker.url, "odd", lambda _: {"status": "SUCCESS", "result": reply}):
        error = failure(lambda: ask(translator, "un", model="odd"))
    assert (error.code, error.message, error.retry_after) == (Code.OVERLOADED, "full", 2.5)


@pytest.mark.parametrize("error", [None, {"code": "TIMEOUT", "message": "late", "retry_after": None}])
def test_loading_is_work_and_not_waiting(broker, connect, monkeypatch: pytest.MonkeyPatch, error: object) -> None:
    worked: list[float | None] = []
    monkeypatch.setattr(Admission, "leave", lambda _self, _place, work: worked.append(work))
    timings = RequestTimings(queue=1.0, wait=2.0, prefill=4.0, decode=8.0, load=16.0)
    reply = replace(TranslateReply("odd", results=(TextResult("one"),)), timings=timings).encode()
    translator = connect(broker.url, "odd")
    answer = {"status": "SUCCESS", "result": {**reply, "error": error}}
    with Worker(broker.url, "odd", lambda _: answer), suppress(TolkError):
        ask(translator, "un", model="odd")
    assert worked == [28.0]


def test_stages_that_a_failed_task_did_not_come_to_are_none(broker, connect) -> None:
    failed = {"code": "TIMEOUT", "message": "late", "retry_after": None}
    reply = {**replace(TranslateReply("odd"), timings=RequestTimings(queue=1.0)).encode(), "error": failed}
    translator = connect(broker.url, "odd")
    root = tracing.begin("root")
    with Worker(broker.url, "odd", lambda _: {"status": "SUCCESS", "result": reply}), suppress(TolkError):
        ask(translator, "un", model="odd")
    assert [each.name for each in root.children[0].children] == ["admission", "publish", "queue", "reply"]


def test_the_message_says_when_it_expires_and_hides_the_texts(broker, connect) -> None:
    translator = connect(broker.url, "odd")
    with Worker(broker.url, "odd") as worker:
        ask(translator, "un secret", model="odd", timeout=20)
    (message,) = worker.messages
    assert 0 < int(message.properties["expiration"]) <= 20_000
    assert message.properties["delivery_mode"] == 2
    assert "secret" not in str(message.headers)


def test_without_a_worker_the_deadline_ends_the_wait(broker, connect, eventually) -> None:
    translator = connect(broker.url, "idle")
    assert failure(lambda: ask(translator, "un", model="idle", timeout=1)).code is Code.TIMEOUT
    error = failure(translator.check)
    assert error.code is Code.UNAVAILABLE
    assert "worker" in error.message
    eventually(lambda: length(broker.url, "idle") == 0)  # the broker drops what nobody waits for
    with Worker(broker.url, "idle"):
        assert ask(translator, "deux", model="idle").results[0].text == "deux"
        translator.check()


def test_late_and_unknown_replies_are_dropped_and_counted(broker, connect, eventually) -> None:
    translator = connect(broker.url, "late")
    released = threading.Event()

    def answer(payload: dict[str, Any]) -> dict[str, Any]:
        released.wait(30)
        return succeed(payload)

    with Worker(broker.url, "late", answer):
        assert failure(lambda: ask(translator, "un", model="late", timeout=1)).code is Code.TIMEOUT
        router = translator.router
        assert router.waiting == {}
        released.set()
        eventually(lambda: router.dropped == 1)
        assert ask(translator, "deux", model="late").results[0].text == "deux"


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


def test_a_long_queue_is_overload_before_it_is_full(broker, connect, eventually) -> None:
    translator = connect(broker.url, "long")

    def answer(payload: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.1)
        return succeed(payload)

    with Worker(broker.url, "long", answer):
        for _ in range(3):
            ask(translator, "un", model="long")
    queue = topology.translation_queue("long", "interactive")
    others = topology.MAX_LENGTH["interactive"] // 4
    with Connection(broker.url) as connection:
        for _ in range(others):
            connection.Producer().publish({}, routing_key=queue.name)
        with ThreadPoolExecutor(1) as threads:
            patient = threads.submit(ask, translator, "deux", model="long", timeout=60)

            eventually(lambda: length(broker.url, "long") == others + 1)
            try:
                error = failure(lambda: ask(translator, "trois", model="long", timeout=60))
                assert not patient.done()
            finally:
                translator.close()
        assert error.code is Code.OVERLOADED
        assert error.retry_after is not None
        assert error.retry_after > 2
        queue(connection.default_channel).purge()


def test_more_than_a_process_may_wait_for_is_refused_at_once(broker, connect, eventually) -> None:
    translator = connect(broker.url, "many")
    released = threading.Event()

    def answer(payload: dict[str, Any]) -> dict[str, Any]:
        released.wait(60)
        return succeed(payload)

    with Worker(broker.url, "many", answer), ThreadPoolExecutor(IN_FLIGHT) as threads:
        waiting = [threads.submit(ask, translator, "un", model="many", timeout=60) for _ in range(IN_FLIGHT)]
        eventually(lambda: len(translator.router.waiting) == IN_FLIGHT and translator.router.ready.is_set())
        try:
            error = failure(lambda: ask(translator, "deux", model="many", timeout=60))
        finally:
            released.set()
        assert error.code is Code.OVERLOADED
        assert error.retry_after == 1
        assert {each.result(60).results[0].text for each in waiting} == {"un"}
        assert ask(translator, "trois", model="many").results[0].text == "trois"


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


def test_a_reply_queue_that_expired_is_made_anew(broker, connect) -> None:
    translator = connect(broker.url, "silent")
    with Worker(broker.url, "silent"):
        ask(translator, "un", model="silent")
        with Connection(broker.url) as connection:  # as the broker does when it has not seen its process for long
            Queue(translator.router.queue)(connection.default_channel).delete()
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
        asked = [threads.submit(ask, translator, str(number), model="moved") for number in range(2)]
        eventually(lambda: length(broker.url, "moved") == 2)
        lost = translator.router.queue
        with take_away(broker.url, lost):
            eventually(lambda: length(broker.url, "moved") == 4)
        assert translator.router.queue != lost
        with Worker(broker.url, "moved"):
            assert [each.result().results[0].text for each in asked] == ["0", "1"]
            assert ask(translator, "deux", model="moved").results[0].text == "deux"
            assert translator.status().broker
    assert translator.router.waiting == {}


def test_hang_ups_wait_for_no_broker(fragile, connect, eventually) -> None:
    translator = connect(fragile.url, "hung")
    with ThreadPoolExecutor(8) as threads:
        request = TranslateRequest(texts=("un",), target="en", model="hung", deadline=time.time() + 60)
        waiting = [threads.submit(ask_models, translator, str(number), [request]) for number in range(8)]
        eventually(lambda: length(fragile.url, "hung") == 8)
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
        eventually(lambda: ("r1", "me") in translator.router.waiting)
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
    assert translator.router.ready.is_set()
    with translator.router.question():
        assert translator.router.tell().in_flight == 1
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
        eventually(lambda: len(translator.router.waiting) == 8)
        router = translator.router
        translator.close()
        assert {failure(each.result).code for each in waiting} == {Code.UNAVAILABLE}
    assert not router.thread.is_alive()
    assert router.waiting == {}


def test_a_lost_connection_that_still_consumes_takes_no_replies(broker, connect) -> None:
    translator = connect(broker.url, "ghost")
    with Worker(broker.url, "ghost"), Connection(broker.url) as ghost:
        ask(translator, "un", model="ghost")
        queue = Queue(translator.router.queue, durable=True, expires=120)
        with Consumer(ghost, [queue], no_ack=True):
            texts = [str(number) for number in range(20)]
            assert [ask(translator, text, model="ghost").results[0].text for text in texts] == texts


def test_a_fork_has_a_router_of_its_own(broker, connect) -> None:
    translator = connect(broker.url, "fork")
    with Worker(broker.url, "fork"):
        ask(translator, "un", model="fork")
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if ask(translator, "deux", model="fork").results[0].text == "deux" else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert ask(translator, "trois", model="fork").results[0].text == "trois"


def test_a_killed_broker_comes_back_and_the_request_in_flight_is_answered(fragile, connect, eventually) -> None:
    translator = connect(fragile.url, "phoenix")
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(ask, translator, str(n), model="phoenix", timeout=60) for n in range(4)]
        eventually(lambda: length(fragile.url, "phoenix") == 4 and on_disk(fragile, "phoenix"))
        fragile.kill()
        eventually(lambda: not translator.router.ready.is_set())
        assert not any(each.done() for each in waiting)
        fragile.start()
        with Worker(fragile.url, "phoenix"):
            assert [each.result(60).results[0].text for each in waiting] == ["0", "1", "2", "3"]


def test_what_waits_at_a_node_that_is_lost_is_sent_again_to_another(fragile, broker, connect, eventually) -> None:
    translator = connect(f"{fragile.url};{broker.url}", "elsewhere")
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(ask, translator, "un", model="elsewhere")
        eventually(lambda: length(fragile.url, "elsewhere") == 1)
        lost = translator.router.queue
        fragile.kill()
        try:
            with Worker(broker.url, "elsewhere"):
                assert asked.result().results[0].text == "un"
        finally:
            fragile.start()
    assert translator.router.queue != lost


def test_while_the_broker_is_down_requests_fail_in_time_and_work_again_after(fragile, connect, eventually) -> None:
    translator = connect(fragile.url, "down")
    with Worker(fragile.url, "down"):
        ask(translator, "un", model="down")
    eventually(lambda: on_disk(fragile, "down"))
    fragile.kill()
    error = failure(lambda: ask(translator, "deux", model="down", timeout=2))
    assert error.code is Code.UNAVAILABLE
    assert "broker" in error.message
    assert failure(translator.check).code is Code.UNAVAILABLE
    with ThreadPoolExecutor(1) as threads:  # one that has time enough is sent when the broker is back
        patient = threads.submit(ask, translator, "trois", model="down", timeout=60)
        fragile.start()
        with Worker(fragile.url, "down"):
            assert patient.result().results[0].text == "trois"


def test_a_broker_that_hangs_blocks_nobody_beyond_the_deadline(fragile, connect) -> None:
    translator = connect(fragile.url, "hang")
    with Worker(fragile.url, "hang"):
        ask(translator, "un", model="hang")
    os.kill(fragile.process.pid, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(16) as threads:
            asked = [threads.submit(ask, translator, "deux", model="hang", timeout=2) for _ in range(16)]
            codes = {failure(lambda each=each: each.result(30)).code for each in asked}
        assert codes <= {Code.UNAVAILABLE, Code.TIMEOUT, Code.OVERLOADED}  # where the first reply was slow to come
        assert failure(translator.check).code is Code.UNAVAILABLE
        leaving = connect(fragile.url, "hang")
        assert failure(lambda: ask(leaving, "deux", model="hang", timeout=0.5)).code is Code.UNAVAILABLE
        translator.close()
        leaving.close()
    finally:
        os.kill(fragile.process.pid, signal.SIGCONT)
    with Worker(fragile.url, "hang"):
        assert ask(connect(fragile.url, "hang"), "trois", model="hang").results[0].text == "trois"


def test_a_broker_that_was_never_there_is_unavailable(free_port, connect) -> None:
    translator = connect(f"amqp://guest:guest@127.0.0.1:{free_port()}//", "nobody")
    assert failure(lambda: ask(translator, "un", model="nobody", timeout=1)).code is Code.UNAVAILABLE
    assert failure(translator.check).code is Code.UNAVAILABLE
