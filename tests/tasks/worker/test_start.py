"""Real workers on a real broker: they start, refuse to start, are killed and stop, and their logs and events."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from concurrent.futures import Future
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from celery.events.event import get_exchange
from kombu import Connection, Queue

from app.translation.translate import ask_models
from launch.rabbitmq import PrivateRabbitMQ
from tasks.contract.errors import Code, TolkError
from tasks.contract.names import Priority
from tasks.contract.reply import TranslateReply
from tasks.contract.request import TranslateRequest
from tasks.queues import topology

QUEUE = "tolk.translate.a.interactive"


@pytest.mark.broker
def test_a_worker_loads_the_models_whose_queues_it_consumes(broker, start_worker, ask, models: Path) -> None:
    worker = start_worker(broker.url, "--queues", QUEUE, TOLK_MODELS=str(models), TOLK_CONCURRENCY="8")
    assert worker.says("concurrency: 8 (thread)")
    assert worker.says("loading a on cpu")
    assert not worker.says("loading b")
    assert not worker.says("loading gone")
    reply = ask("Je vais dormir.", "Merci.")
    assert len(reply.results) == 2
    assert all(result.text and result.error is None for result in reply.results)
    assert reply.model == "a"
    assert reply.version
    assert worker.says(reply.worker)
    assert reply.timings.queue > 0
    assert reply.timings.decode > 0
    assert worker.stop() == 0


@pytest.mark.broker
@pytest.mark.parametrize(
    ("arguments", "environ", "sentence"),
    [
        (["--queues", "tolk.translate.gone.bulk"], {}, "model gone ("),
        (["--queues", "tolk.translate.nope.bulk"], {}, "tolk.translate.nope.bulk"),
        (["--queues", QUEUE], {"TOLK_GPU": "gpu"}, "TOLK_GPU: the number of a GPU, or none, was expected, not 'gpu'"),
        (["--queues", QUEUE], {"TOLK_PRECISION": "int4"}, "TOLK_PRECISION: auto, float32"),
        (["--queues", QUEUE], {"TOLK_CONCURRENCY": "0"}, "TOLK_CONCURRENCY: a whole number from 1"),
        (["--queues", QUEUE], {"TOLK_MEMORY": "4XB"}, "TOLK_MEMORY: a number of bytes, such as 4000000000, 4GB"),
        (["--queues", QUEUE], {"TOLK_MODEL_CACHE_BYTES": "0"}, "TOLK_MODEL_CACHE_BYTES: a whole number from 1"),
        (["--queues", QUEUE], {"TOLK_MODEL_HOSTS": "ftp://host"}, "'ftp://host' is not a host"),
        (["--queues", QUEUE], {"TOLK_MODELS": "/nowhere/m.toml"}, "/nowhere/m.toml: cannot be read"),
    ],
)
def test_a_worker_that_cannot_work_ends_and_says_why(
    broker, spawn, models: Path, arguments: list[str], environ: dict[str, str], sentence: str
) -> None:
    environ = {"CELERY_BROKER_URL": broker.url, "TOLK_MODELS": str(models), **environ}
    worker = spawn("celery", "-A", "tasks", "worker", *arguments, **environ)
    assert worker.process.wait(60) != 0
    assert worker.says(sentence)
    assert not worker.says(" ready.")


@pytest.mark.broker
def test_kill_minus_nine_loses_nothing(broker, start_worker, ask, threads, eventually, models: Path) -> None:
    first = start_worker(broker.url, app="echo", TOLK_MODELS=str(models))
    asked = []
    for number in range(8):  # one by one, or they would travel together
        asked.append(threads.submit(ask, "#sleep 6", request_id=f"kill-{number}"))
        eventually(partial(first.logged, f"kill-{number}", "received"))
    first.stop(signal.SIGKILL)
    second = start_worker(broker.url, "--hostname=second@%h", app="echo", TOLK_MODELS=str(models))
    assert {each.result().worker.partition("@")[0] for each in asked} == {"second"}
    second.stop()


@pytest.mark.broker
def test_stopping_under_load_loses_and_doubles_nothing(
    broker, start_worker, translator, ask, threads, eventually, models: Path
) -> None:
    environ = {"TOLK_MODELS": str(models), "TOLK_CONCURRENCY": "8"}
    ended = threading.Event()
    numbers = itertools.count()

    def client() -> None:
        while not ended.is_set():
            text = f"#sleep 0.2{next(numbers):05}"
            assert ask(text).results[0].text == text

    first = start_worker(broker.url, app="echo", **environ)
    clients = [threads.submit(client) for _ in range(32)]  # twice as many as the two workers hold
    try:
        for how in (signal.SIGTERM, signal.SIGQUIT):
            other = start_worker(broker.url, app="echo", **environ)
            eventually(partial(other.says, "] OK"))
            assert first.stop(how) == 0
            first = other
    finally:
        ended.set()
    for each in clients:
        each.result()
    assert translator.replies.dropped == 0
    first.stop()


@pytest.mark.long
@pytest.mark.broker
def test_one_restart_after_the_other_makes_no_dead_letters(
    broker, start_worker, translator, ask, threads, eventually, models: Path
) -> None:
    def ask_bulk(name: str) -> TranslateReply:
        request = TranslateRequest(("un",), "en", "a", deadline=time.time() + 60, priority="bulk")
        return ask_models(translator, name, [request])

    begun = []
    for number in range(2):  # one by one, or they would travel together
        begun.append(threads.submit(ask, "#sleep 5", request_id=f"begun-{number}"))
        eventually(lambda: waiting(broker) == len(begun))
    prefetched = [threads.submit(ask_bulk, f"prefetched-{number}") for number in range(2)]
    for how in (signal.SIGTERM, signal.SIGQUIT, signal.SIGTERM, None):
        worker = start_worker(broker.url, app="echo", TOLK_MODELS=str(models), TOLK_CONCURRENCY="2")
        for number in range(2):
            eventually(partial(worker.logged, f"begun-{number}", "received"))
        if how is not None:
            assert worker.stop(how) == 0
    assert [each.result().results[0].text for each in [*begun, *prefetched]] == ["#sleep 5"] * 2 + ["un"] * 2
    assert translator.replies.dropped == 0
    worker.stop()


def waiting(broker: PrivateRabbitMQ) -> int:
    """The number of requests that wait for a worker of model `a`."""
    with Connection(broker.url) as connection:
        queue = topology.translation_queue("a", "interactive")(connection.default_channel)
        return int(queue.queue_declare().message_count)


@pytest.mark.broker
def test_a_message_that_kills_workers_is_put_aside_and_takes_no_other_along(
    broker, spawn, start_worker, translator, ask, threads, eventually, models: Path
) -> None:
    environ = {"CELERY_BROKER_URL": broker.url, "TOLK_MODELS": str(models)}
    innocents = []
    for number in range(20):  # one by one, or they would travel together
        innocents.append(threads.submit(ask, f"#sleep 0.{number}"))
        eventually(lambda: waiting(broker) == len(innocents))
    fatal = threads.submit(ask, "#die", request_id="fatal")
    eventually(lambda: waiting(broker) == 21)
    for _ in range(3):  # two deliveries together with other requests, and the last one alone
        victim = spawn("celery", "-A", "echo", "--workdir", "tests/tasks", "worker", **environ)
        assert victim.process.wait(60) == -signal.SIGKILL
    worker = start_worker(broker.url, app="echo", TOLK_MODELS=str(models))
    assert [each.result().results[0].text for each in innocents] == [f"#sleep 0.{number}" for number in range(20)]
    assert worker.process.poll() is None
    with Connection(broker.url) as connection:
        letters = topology.dead_letter_queue()(connection.default_channel)
        letter = letters.get(no_ack=True)
        assert letter.headers["id"].startswith("fatal.")
        assert letter.headers["x-first-death-reason"] == "delivery_limit"
        assert letters.get() is None
    translator.abandon("fatal", None)
    with pytest.raises(TolkError):
        fatal.result()
    worker.stop()


@pytest.mark.broker
def test_what_is_ready_by_the_deadline_arrives_before_it(broker, start_worker, ask, models: Path) -> None:
    worker = start_worker(broker.url, app="echo", TOLK_MODELS=str(models))
    reply = ask("un", "#sleep 60", "#bad", timeout=3)
    assert reply.results[0].text == "un"
    errors = [result.error.code if result.error else None for result in reply.results]
    assert errors == [None, Code.TIMEOUT, Code.BAD_INPUT]
    worker.stop()


def watch(connection: Connection) -> Any:
    """A queue that receives every event from now on."""
    queue: Any = Queue(f"celeryev.{uuid4()}", get_exchange(connection), "#", exclusive=True)
    bound = queue(connection.default_channel)
    bound.declare()
    return bound


def heard(monitor: Any) -> list[dict[str, Any]]:
    """The events since the last call; a message contains one event or a list of events."""
    events: list[dict[str, Any]] = []
    while (message := monitor.get(no_ack=True)) is not None:
        events.extend([message.payload] if isinstance(message.payload, dict) else message.payload)
    return events


@pytest.mark.broker
def test_monitors_hear_what_was_done_before_the_end(broker, start_worker, ask, eventually, models: Path) -> None:
    worker = start_worker(broker.url, app="echo", TOLK_MODELS=str(models))
    with Connection(broker.url) as connection:
        monitor = watch(connection)
        for name in ("first", "second"):
            ask("un", request_id=name)
        eventually(lambda: worker.logged("second", "OK"))
        assert worker.stop() == 0
        succeeded = [event["uuid"] for event in heard(monitor) if event["type"] == "task-succeeded"]
        assert any(uuid.startswith("first.") for uuid in succeeded)


@pytest.mark.broker
@pytest.mark.parametrize("level", ["info", "debug"])
def test_no_log_and_no_event_holds_a_text(broker, start_worker, ask, eventually, models: Path, level: str) -> None:
    worker = start_worker(broker.url, app="echo", TOLK_MODELS=str(models), TOLK_LOG_LEVEL=level)
    events: list[dict[str, Any]] = []
    with Connection(broker.url) as connection:
        monitor = watch(connection)
        ask("un secret")
        ask("un secret", "#bad")
        with pytest.raises(TolkError):
            ask("un secret", "#fail")

        def ended() -> int:
            events.extend(heard(monitor))
            return [event["type"] for event in events].count("task-succeeded")

        eventually(lambda: ended() == 3)
    assert {"task-received", "task-started", "task-succeeded"} <= {event["type"] for event in events}
    assert "secret" not in str(events)
    assert worker.says("translation failed with RuntimeError")
    assert not worker.says("secret")
    worker.stop()


@pytest.mark.broker
def test_of_what_a_worker_holds_monitors_see_no_text(
    broker, start_worker, translator, threads, eventually, models: Path
) -> None:
    worker = start_worker(broker.url, app="echo", TOLK_MODELS=str(models), TOLK_CONCURRENCY="1")
    inspect = Celery(broker=broker.url).control.inspect(limit=1, timeout=10)

    def begin(name: str, text: str, priority: Priority, model: str = "a") -> Future[TranslateReply]:
        request = TranslateRequest((text, "un secret"), "en", model, time.time() + 60, "fr", priority=priority)
        return threads.submit(ask_models, translator, name, [request])

    def shown(name: str) -> list[dict[str, Any]]:
        return [task for tasks in (getattr(inspect, name)() or {}).values() for task in tasks]

    running = [begin("active", "#sleep 60", "interactive"), begin("busy", "#sleep 60", "bulk")]
    eventually(lambda: len(shown("active")) == 2)
    reserved = begin("reserved", "un", "bulk", "b")  # the only thread for bulk work is busy
    eventually(lambda: shown("reserved"))
    tasks = sorted(shown("active"), key=itemgetter("id")) + shown("reserved")
    for task, name in zip(tasks, ("active", "busy", "reserved"), strict=True):
        assert task["id"].startswith(f"{name}.")
        assert task["args"].startswith("<2 texts, ")
        assert "secret" not in str(task)
    for name, each in zip(("active", "busy"), running, strict=True):
        translator.cancel(name, None)
        with pytest.raises(TolkError):
            each.result()
    reserved.result()
    worker.stop()
