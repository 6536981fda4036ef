"""How work finds a model: real workers on a real broker, whose models.toml changes while they run."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from kombu import Connection, Queue

from app.rpc import CeleryTranslator
from launch.rabbitmq import PrivateRabbitMQ
from tasks.contract import Code, LoadedModel, TolkError, TranslateReply, TranslateRequest, queue_name, shared_route
from tasks.registry import RegistryFile
from tasks.subscriptions import preference
from tests.conftest import Service

COLD = {"warm": False}


class Models:
    """A models.toml, which is replaced at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, dict[str, Any]] = {}

    def say(self, **entries: dict[str, Any] | None) -> None:
        """These entries, and what they said of others before; None is for one that goes."""
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
    """Asks the workers."""

    def __init__(self, translator: CeleryTranslator) -> None:
        self.translator = translator
        self.threads = ThreadPoolExecutor(64)

    def ask(
        self, model: str, text: str = "un", *, timeout: float = 20, request_id: str | None = None
    ) -> TranslateReply:
        request = TranslateRequest((text,), "en", model, time.time() + timeout, "fr")
        return self.translator.translate(request, request_id or str(uuid4()))

    def begin(self, *args: Any, **kwargs: Any) -> Future[TranslateReply]:
        return self.threads.submit(self.ask, *args, **kwargs)

    def fails(self, model: str, **kwargs: Any) -> TolkError:
        with pytest.raises(TolkError) as caught:
            self.ask(model, **kwargs)
        return caught.value

    def version(self, model: str) -> str | None:
        return self.ask(model).version

    def memory(self) -> dict[str, LoadedModel]:
        """What the one worker has in memory, by name."""
        [worker] = self.translator.status().workers.values()
        return {model.name: model for model in worker.models}


@pytest.fixture
def models(tmp_path: Path) -> Models:
    return Models(tmp_path / "models.toml")


@pytest.fixture
def start(broker: PrivateRabbitMQ, start_worker, models: Models) -> Iterator[Callable[..., Service]]:
    """Starts a worker; it ends with the test, so that the next has the shared queues for itself."""
    started: list[Service] = []

    def start(*arguments: str, **environ: str) -> Service:
        environ = {"TOLK_MODELS": str(models.path), "TOLK_CONCURRENCY": "8", **environ}
        started.append(start_worker(broker.url, *arguments, app="echo", **environ))
        return started[-1]

    yield start
    for worker in started:
        if worker.process.poll() is None:
            worker.stop(signal.SIGQUIT)


@pytest.fixture
def client(broker: PrivateRabbitMQ, models: Models) -> Iterator[Client]:
    """To be asked for after models.toml was written."""
    translator = CeleryTranslator.from_config(RegistryFile(models.path), broker.url)
    made = Client(translator)
    yield made
    made.threads.shutdown()
    translator.close()


@pytest.fixture
def consumers(broker: PrivateRabbitMQ) -> Callable[[str], int]:
    """How many workers take messages of a queue; -1 where there is no such queue."""

    def count(name: str) -> int:
        with Connection(broker.url) as connection:
            try:
                return int(Queue(name)(connection.channel()).queue_declare(passive=True).consumer_count)
            except connection.channel_errors:
                return -1

    return count


@pytest.mark.broker
def test_a_worker_follows_its_registry(models: Models, start, eventually, consumers, request) -> None:
    models.say(hot={})
    worker, client = start(), request.getfixturevalue("client")
    assert client.ask("hot").version == "echo"
    assert consumers("tolk.translate.on-demand.0.interactive") == -1  # no model is on demand

    models.write("[models")  # not TOML
    eventually(partial(worker.says, "is not TOML"))
    assert client.ask("hot").version == "echo"

    models.say(new={"reference": "./1-seconds"})
    assert client.ask("new").results[0].text == "un"
    assert client.memory()["new"].warm

    models.say(new={"reference": "./broken"}, hot={"precision": "int8"})
    eventually(lambda: client.version("hot") == "int8")
    eventually(partial(worker.says, "new stays as it is, and is tried again"))
    assert client.ask("new").results[0].text == "un"

    held = client.begin("new", "#sleep 6")
    models.say(new=None)
    assert held.result().results[0].text == "#sleep 6"
    eventually(lambda: client.memory().keys() == {"hot"})
    eventually(lambda: consumers("tolk.translate.new.interactive") == 0)
    assert consumers("tolk.suspects.new") == 0

    models.say(hot=COLD)
    eventually(lambda: client.memory() == {})
    assert client.ask("hot").results[0].text == "un"
    assert not client.memory()["hot"].warm
    assert consumers("tolk.translate.on-demand.0.interactive") == 1

    models.say(hot={"precision": "int8"})
    eventually(lambda: client.memory()["hot"].warm)
    eventually(lambda: consumers("tolk.translate.on-demand.0.interactive") == 0)
    assert client.ask("hot").version == "int8"
    assert worker.stop() == 0


@pytest.mark.broker
def test_a_worker_that_was_told_its_queues_stays_with_them(models: Models, start, eventually, consumers) -> None:
    models.say(mine={}, other={}, cold=COLD)
    worker = start("--queues", "tolk.translate.mine,tolk.translate.on-demand")
    models.say(mine={"precision": "int8"}, later={})
    eventually(partial(worker.says, "has changed"))
    eventually(lambda: worker.log.read_text().count("loading mine") == 2)
    counts = {
        name: consumers(queue_name(name, "bulk")) for name in ("mine", "other", "later", "on-demand.0", "on-demand.15")
    }
    assert counts == {"mine": 1, "other": -1, "later": -1, "on-demand.0": 1, "on-demand.15": 1}
    assert consumers("tolk.suspects.mine") == 1
