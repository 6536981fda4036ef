"""Those who ask a model through the broker, and workers that answer what they are told to."""

from __future__ import annotations

import json
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from amqp.exceptions import AMQPError, NotFound
from kombu import Connection, Consumer, Message

from app.broker.rpc import CeleryTranslator
from app.translation.translate import ask_models
from launch.rabbitmq import PrivateRabbitMQ
from tasks.contract.bundle import encode_replies
from tasks.contract.errors import Code, TolkError
from tasks.contract.reply import Failure, TextResult, TranslateReply
from tasks.contract.request import TranslateRequest
from tasks.queues import topology
from tasks.registry.entry import Entry, Pair
from tasks.registry.ways import Registry

PICKLED = pickle.dumps({"status": "SUCCESS", "result": TranslateReply("odd", results=(TextResult("un"),)).encode()})


Answer = Callable[[Any], Any]


def offering(*names: str) -> SimpleNamespace:
    """A models.toml of warm models with these names."""
    registry = Registry({name: Entry(name, "fr-en", (Pair("fr", "en"),)) for name in names})
    return SimpleNamespace(current=lambda: registry)


def ask(
    translator: CeleryTranslator, *texts: str, model: str, timeout: float = 30, caller: str | None = None
) -> TranslateReply:
    deadline = time.time() + timeout
    request = TranslateRequest(texts, source="fr", target="en", model=model, deadline=deadline, caller=caller)
    return ask_models(translator, str(uuid4()), [request])


def failure(call: Callable[[], object]) -> TolkError:
    with pytest.raises(TolkError) as caught:
        call()
    return caught.value


def refuse(_: object) -> dict[str, Any]:
    """What a worker that knows no bundles answers to one."""
    failed = Failure(Code.BAD_INPUT, "request: an object was expected.")
    return {"status": "SUCCESS", "result": TranslateReply(model="", error=failed).encode()}


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
    """Consumes a model's queue as a worker would, and answers what it is told to: `answer` makes the body of the reply
    to a request, `to_bundle` that to a bundle as a whole, if there is to be one."""

    def __init__(self, url: str, model: str, answer: Answer = succeed, to_bundle: Answer | None = None) -> None:
        self.answer = answer
        self._to_bundle = to_bundle
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
        for task_id, body in self._replies(message):
            content_type = "application/x-python-serialize" if body is PICKLED else "application/json"
            encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
            self._connection.default_channel.basic_publish(
                self._connection.default_channel.prepare_message(
                    encoded,
                    content_type=content_type,
                    content_encoding="utf-8",
                    properties={"correlation_id": task_id, "delivery_mode": 1},
                ),
                routing_key=message.properties["reply_to"],
            )
        message.ack()

    def _replies(self, message: Message) -> Iterator[tuple[str, Any]]:
        """The bodies of the replies to a message, with their correlation ids: a bundle's in messages of up to three."""
        (payload,), _, _ = message.payload
        answer = self._to_bundle if isinstance(payload, list) else self.answer
        if answer is not None:
            yield message.properties["correlation_id"], answer(payload)
            return
        for start in range(0, len(payload), 3):
            replies = [{"task_id": each["id"], **self.answer(each)} for each in payload[start : start + 3]]
            yield replies[0]["task_id"], encode_replies(replies) if len(replies) > 1 else replies[0]
