"""A models.toml that changes, workers that follow it, and a client of theirs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from kombu import Connection, Queue

from app.broker.rpc import CeleryTranslator
from app.translation.translate import ask_models
from launch.rabbitmq import PrivateRabbitMQ
from tasks.contract.errors import TolkError
from tasks.contract.names import SHARED, Priority, queue_names
from tasks.contract.reply import TranslateReply
from tasks.contract.request import TranslateRequest
from tasks.registry.file import RegistryFile
from tests.conftest import Service

COLD = {"warm": False}
QUICKLY = ("--without-mingle", "--without-gossip")


class Offer:
    """A models.toml that is replaced atomically."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, dict[str, Any]] = {}

    def say(self, **entries: dict[str, Any] | None) -> None:
        """Writes these entries beside the previous ones; None removes an entry."""
        self.entries = {name: entry for name, entry in (self.entries | entries).items() if entry is not None}
        lines = []
        for name, entry in self.entries.items():
            lines.append(f"[models.{name}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in ({"reference": "./echo"} | entry).items()]
            lines.append('pairs = [{ source = "fr", target = "en" }]')
        self.write("\n".join(lines))

    def write(self, text: str) -> None:
        aside = self.path.with_suffix(".new")
        aside.write_text(text)
        aside.replace(self.path)


class Client:
    """A client that requests the models that models.toml names at that moment."""

    def __init__(self, path: Path, broker: str) -> None:
        self.models = RegistryFile(path)
        self.translator = CeleryTranslator.from_config(self.models, broker)
        self.threads = ThreadPoolExecutor(64)

    def ask(
        self,
        model: str,
        text: str = "un",
        *,
        timeout: float = 20,
        request_id: str | None = None,
        priority: Priority = "interactive",
    ) -> TranslateReply:
        self.models.latest()
        request = TranslateRequest((text,), "en", model, time.time() + timeout, "fr", priority=priority)
        return ask_models(self.translator, request_id or str(uuid4()), [request])

    def begin(self, *args: Any, **kwargs: Any) -> Future[TranslateReply]:
        return self.threads.submit(self.ask, *args, **kwargs)

    def fails(self, model: str, **kwargs: Any) -> TolkError:
        with pytest.raises(TolkError) as caught:
            self.ask(model, **kwargs)
        return caught.value

    def version(self, model: str) -> str | None:
        return self.ask(model).version

    def memory(self) -> dict[str, bool]:
        """The models in the memory of the only worker, at most a second ago, and whether each is warm."""
        [worker] = self.translator.status().workers.values()
        return {model.name: model.warm for model in worker.models}


@pytest.fixture
def offer(tmp_path: Path) -> Offer:
    return Offer(tmp_path / "models.toml")


@pytest.fixture
def start(broker: PrivateRabbitMQ, start_worker, offer: Offer) -> Iterator[Callable[..., Service]]:
    """Starts a worker that ends with the test; the shared queues are deleted, so that each test has its own."""
    with Connection(broker.url) as connection:
        for name in [name for route in SHARED for name in queue_names(route)]:
            Queue(name)(connection.default_channel).delete()
    started: list[Service] = []

    def start(*arguments: str, app: str = "echo", **environ: str) -> Service:
        environ = {"TOLK_MODELS": str(offer.path), "TOLK_CONCURRENCY": "8", "ECHO_LOOK": "0.2", **environ}
        started.append(start_worker(broker.url, *QUICKLY, *arguments, app=app, **environ))
        return started[-1]

    yield start
    for worker in started:
        if worker.process.poll() is None:
            worker.stop()


@pytest.fixture
def client_of(broker: PrivateRabbitMQ, offer: Offer) -> Iterator[Callable[[], Client]]:
    """Makes a client once there is a models.toml."""
    made: list[Client] = []

    def make() -> Client:
        made.append(Client(offer.path, broker.url))
        return made[-1]

    yield make
    for client in made:
        client.threads.shutdown()
        client.translator.close()


@pytest.fixture
def consumers(broker: PrivateRabbitMQ) -> Callable[[str], int]:
    """The number of consumers of a queue; -1 if there is no such queue."""

    def count(name: str) -> int:
        with Connection(broker.url) as connection:
            try:
                return int(Queue(name)(connection.channel()).queue_declare(passive=True).consumer_count)
            except connection.channel_errors:
                return -1

    return count
