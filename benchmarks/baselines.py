"""The baselines of `benchmarks.path`: bare Flask, graphql-server's own view, and an RPC with kombu alone.

python -m benchmarks.baselines BROKER_URL runs the server of the kombu RPC.
"""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from flask import Flask, Request, Response, request
from graphql_server.flask.views import GraphQLView
from kombu import Connection, Consumer, Message, Queue
from kombu.pools import ProducerPool
from typing_extensions import override

from app.accounts.ledger import Ledger
from app.accounts.repeats import Repeats
from app.database.transactions import Database
from app.graphql.schema import build_schema
from app.monitoring.recent_errors import RecentErrors
from app.settings import Settings
from app.translation.context import Context
from app.translation.translator import EchoTranslator
from celeryconfig import broker_transport_options
from tasks.contract.reply import TextResult, TranslateReply
from tasks.queues.topology import translation_queue
from tasks.registry.file import load_registry

QUEUE = translation_queue("bare-kombu", "interactive")  # a quorum queue with the same arguments as a model's queue
PUBLISHERS = 10  # connections, as many as CeleryTranslator has


def flask_app() -> Flask:
    """A Flask application with one route, which parses JSON and answers JSON."""
    app = Flask("bare")

    @app.post("/graphql")
    def answer() -> dict[str, Any]:
        given = request.get_json()["variables"]["input"]
        return {"data": {"translate": {"translations": [{"text": text} for text in given["texts"]]}}}

    return app


def graphql_app() -> Flask:
    """Tolk's schema with graphql-server's own view, which parses and validates every document again."""
    app = Flask("graphql")
    settings, translator = Settings(), EchoTranslator()
    ledger = Ledger(Database(settings.database))
    repeats = Repeats(ledger)
    errors = RecentErrors()
    registry = load_registry(Path("models.toml"))

    class View(GraphQLView[Context, None]):
        @override
        def get_context(self, request: Request, response: Response) -> Context:
            return Context(settings, registry, translator, str(uuid4()), time.time(), None, "", ledger, repeats, errors)

    app.add_url_rule("/graphql", view_func=View.as_view("graphql", build_schema().graphql_schema))
    return app


def connection(url: str) -> Connection:
    return Connection(url, transport_options=broker_transport_options)


class KombuClient:
    """The client of the RPC: a reply queue, a thread that consumes it, a pool of producers, a Future for each call."""

    def __init__(self, url: str) -> None:
        self._replies = Queue(f"tolk.reply.{uuid4().hex}", durable=True, expires=60)
        self._producers = ProducerPool(connection(url).Pool(PUBLISHERS), limit=PUBLISHERS)
        self._waiting: dict[str, Future[Any]] = {}
        self._connection = connection(url)
        Consumer(self._connection, [self._replies], on_message=self._deliver, no_ack=True, accept=["json"]).consume()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._consume)
        self._thread.start()

    def call(self, payload: dict[str, Any], timeout: float) -> Any:
        call_id = uuid4().hex
        future = self._waiting[call_id] = Future()
        with self._producers.acquire(block=True) as producer:
            producer.publish(
                payload,
                exchange=QUEUE.exchange,
                routing_key=QUEUE.routing_key,
                serializer="json",
                reply_to=self._replies.name,
                correlation_id=call_id,
                expiration=timeout,
            )
        return future.result(timeout)

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        self._connection.close()

    def _consume(self) -> None:
        while not self._closing.is_set():
            with suppress(TimeoutError):
                self._connection.drain_events(timeout=0.5)

    def _deliver(self, message: Message) -> None:
        self._waiting.pop(message.properties["correlation_id"]).set_result(message.payload)


def serve(url: str) -> None:
    """Answers as the task does: it acknowledges a message when the broker has confirmed the reply."""
    with connection(url) as source, connection(url) as sink:
        producer = sink.Producer(serializer="json")

        def answer(message: Message) -> None:
            payload = message.payload
            results = tuple(TextResult(text, 0.0) for text in payload["texts"])
            producer.publish(
                TranslateReply(model=payload["model"], results=results).encode(),
                routing_key=message.properties["reply_to"],
                correlation_id=message.properties["correlation_id"],
                delivery_mode=1,  # transient
            )
            message.ack()

        with Consumer(source, [QUEUE], on_message=answer, accept=["json"], prefetch_count=64):
            print("ready", flush=True)
            while True:
                source.drain_events()


if __name__ == "__main__":
    serve(sys.argv[1])
