"""How work finds a model: real workers on a real broker, whose models.toml changes while they run."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from kombu import Connection, Queue

from app.broker.rpc import CeleryTranslator
from app.translation.translate import ask_models
from launch.rabbitmq import PrivateRabbitMQ
from tasks.contract.errors import Code, TolkError
from tasks.contract.names import Priority, queue_name, shared_route
from tasks.contract.reply import TranslateReply
from tasks.contract.request import TranslateRequest
from tasks.queues import topology
from tasks.registry.file import RegistryFile
from tasks.worker.subscriptions import preference
from tests.conftest import Service

COLD = {"warm": False}
QUICKLY = ("--without-mingle", "--without-gossip")


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
    """Asks the workers for what models.toml says at that moment."""

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
        """What the one worker has in memory, or had a second ago, and whether it is there to stay."""
        [worker] = self.translator.status().workers.values()
        return {model.name: model.warm for model in worker.models}


@pytest.fixture
def models(tmp_path: Path) -> Models:
    return Models(tmp_path / "models.toml")


@pytest.fixture
def start(broker: PrivateRabbitMQ, start_worker, models: Models) -> Iterator[Callable[..., Service]]:
    """Starts a worker; it ends with the test, so that the next has the shared queues for itself."""
    started: list[Service] = []

    def start(*arguments: str, app: str = "echo", **environ: str) -> Service:
        environ = {"TOLK_MODELS": str(models.path), "TOLK_CONCURRENCY": "8", "ECHO_LOOK": "0.2", **environ}
        started.append(start_worker(broker.url, *QUICKLY, *arguments, app=app, **environ))
        return started[-1]

    yield start
    for worker in started:
        if worker.process.poll() is None:
            worker.stop()


@pytest.fixture
def client_of(broker: PrivateRabbitMQ, models: Models) -> Iterator[Callable[[], Client]]:
    """Makes one as soon as there is a models.toml."""
    made: list[Client] = []

    def make() -> Client:
        made.append(Client(models.path, broker.url))
        return made[-1]

    yield make
    for client in made:
        client.threads.shutdown()
        client.translator.close()


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
def test_a_worker_follows_its_registry(models: Models, start, eventually, consumers, client_of) -> None:
    models.say(hot={})
    worker, client = start(), client_of()
    assert client.ask("hot").version == "echo"
    assert consumers("tolk.translate.on-demand.0.interactive") == -1  # no model is on demand

    models.write("[models")  # not TOML
    eventually(partial(worker.says, "is not TOML"))
    assert client.ask("hot").version == "echo"

    models.say(new={"reference": "./1-seconds"})
    assert client.ask("new").results[0].text == "un"
    eventually(lambda: client.memory() == {"hot": True, "new": True})

    models.say(new={"reference": "./broken"}, hot={"precision": "int8"})
    eventually(lambda: client.version("hot") == "int8")
    eventually(partial(worker.says, "new stays as it is, and is tried again"))
    assert client.ask("new").results[0].text == "un"

    begun = [client.begin("new", "#sleep 1.5", request_id=f"begun-{number}") for number in range(8)]
    eventually(lambda: all(worker.logged(f"begun-{number}", "received") for number in range(8)))
    held = client.begin("new", request_id="held", priority="bulk")  # there is no thread for it yet
    eventually(lambda: worker.logged("held", "received"))
    models.say(new=None)
    assert held.result().results[0].text == "un"
    assert [each.result().results[0].text for each in begun] == ["#sleep 1.5"] * 8
    eventually(lambda: client.memory() == {"hot": True})
    eventually(lambda: consumers("tolk.translate.new.interactive") == 0)
    assert consumers("tolk.suspects.new") == 0

    models.say(hot=COLD)
    eventually(lambda: client.memory() == {})
    assert client.ask("hot").results[0].text == "un"
    eventually(lambda: client.memory() == {"hot": False})
    assert consumers("tolk.translate.on-demand.0.interactive") == 1

    models.say(hot={"precision": "int8"})
    eventually(lambda: client.memory() == {"hot": True})
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


@pytest.mark.broker
def test_subscriptions_are_what_they_were_after_a_new_connection(
    broker, models: Models, start, eventually, consumers
) -> None:
    models.say(old={}, going={}, cold=COLD)
    worker = start()
    models.say(new={}, going=None)
    names = ["tolk.translate.new.bulk", "tolk.suspects.new", "tolk.translate.on-demand.7.interactive"]
    eventually(lambda: [consumers(name) for name in names] == [1, 1, 1])
    eventually(lambda: consumers("tolk.translate.going.bulk") == 0)
    with Connection(broker.url) as connection:  # what ends a consumer ends the worker's connection
        Queue("tolk.suspects.old")(connection.channel()).delete()
    eventually(partial(worker.says, "Connection to broker lost"))
    eventually(lambda: consumers("tolk.suspects.old") == 1)
    eventually(lambda: [consumers(name) for name in names] == [1, 1, 1])
    assert consumers("tolk.translate.going.bulk") == 0


@pytest.mark.broker
def test_models_on_demand_come_and_go_within_the_memory_for_them(models: Models, start, eventually, client_of) -> None:
    models.say(hot={}, one=COLD, two=COLD, three=COLD, huge={**COLD, "reference": "./9000-bytes"})
    worker, client = start(TOLK_MEMORY="3KB"), client_of()
    for name in ("one", "two", "one", "three", "hot"):
        assert client.ask(name).results[0].text == "un"
    eventually(lambda: client.memory() == {"hot": True, "one": False, "three": False})
    [status] = client.translator.status().workers.values()
    assert (status.loads, status.evictions) == (4, 1)
    assert sum(model.bytes for model in status.models) == 3000
    assert client.ask("two").timings.load > 0
    assert client.fails("huge").code is Code.UNAVAILABLE
    assert worker.stop() == 0


@pytest.mark.broker
def test_a_model_has_a_worker_of_its_own_and_another_when_that_one_is_busy_or_dead(
    models: Models, start, eventually, client_of
) -> None:
    names = [f"cold-{number}" for number in range(12)]
    models.say(**dict.fromkeys(names, COLD))
    hosts = [f"{name}@{socket.gethostname()}" for name in ("one", "two", "three")]
    workers = {host: start(f"--hostname={host}", TOLK_CONCURRENCY="8") for host in hosts}  # a message of a queue each
    client = client_of()
    ranked = {name: sorted(hosts, key=lambda host: -preference(host, shared_route(name))) for name in names}

    def asked() -> dict[str, str]:
        return {name: client.ask(name).worker for name in names}

    first = {name: ranking[0] for name, ranking in ranked.items()}
    assert set(first.values()) == set(hosts)
    assert asked() == asked() == first

    busy = client.begin("cold-0", "#sleep 1.5", request_id="busy")
    eventually(lambda: workers[first["cold-0"]].logged("busy", "received"))
    assert client.ask("cold-0").worker == ranked["cold-0"][1]
    assert busy.result().worker == first["cold-0"]

    dead = next(host for host in hosts if host != first["cold-0"])
    workers[dead].stop(signal.SIGKILL)
    assert asked() == {name: next(host for host in ranking if host != dead) for name, ranking in ranked.items()}
    start(f"--hostname={dead}")
    assert asked() == first


@pytest.mark.broker
def test_a_model_on_demand_is_loaded_as_its_entry_says(models: Models, start, eventually, client_of) -> None:
    entry = {**COLD, "reference": "fr-en", "precision": "float32", "example": "Il pleut."}
    models.say(cold=entry)
    worker, client = start(app="tasks"), client_of()
    assert not worker.says("loading")
    reply = client.ask("cold", "Je vais dormir.", timeout=60)
    assert reply.results[0].text
    assert worker.says("cold computes in float32")
    models.say(cold={**entry, "precision": "bfloat16"})
    eventually(partial(worker.says, "cold computes in bfloat16"))
    assert client.ask("cold", "Je vais dormir.").version == reply.version
    [status] = client.translator.status().workers.values()
    assert 1e7 < sum(model.bytes for model in status.models) < 1e9
    assert worker.stop() == 0


@pytest.mark.broker
def test_models_that_load_slowly_leave_threads_to_the_others(models: Models, start, eventually, client_of) -> None:
    cold = [f"cold-{number}" for number in range(6)]
    models.say(hot={}, **{name: {**COLD, "reference": "./2-seconds"} for name in cold})
    worker, client = start(TOLK_CONCURRENCY="4"), client_of()
    begun = [client.begin(name, request_id=name) for name in cold]
    eventually(lambda: all(worker.logged(name, "received") for name in cold))
    assert client.ask("hot").timings.queue < 1
    assert not any(each.done() and each.exception() is None for each in begun)  # while they load
    outcomes = [each.exception() or each.result() for each in begun]
    refused = [each for each in outcomes if isinstance(each, TolkError)]
    assert [each.code for each in refused] == [Code.OVERLOADED] * 4  # a half may wait
    assert all(each.retry_after and 1 <= each.retry_after < 3 for each in refused)
    loaded = [each.timings.load for each in outcomes if isinstance(each, TranslateReply)]
    assert len(loaded) == 2
    assert min(loaded) > 1


@pytest.mark.broker
def test_a_message_that_kills_workers_takes_no_other_model_on_demand_along(
    broker, models: Models, spawn, start, client_of
) -> None:
    models.say(bad=COLD, good=COLD)
    client = client_of()
    with Connection(broker.url) as connection:
        letters = topology.dead_letter_queue()(connection.default_channel)
        letters.declare()
        fatal = client.begin("bad", "#die", request_id="fatal")
        environ = {"CELERY_BROKER_URL": broker.url, "TOLK_MODELS": str(models.path)}
        for _ in range(3):
            victim = spawn("celery", "-A", "echo", "--workdir", "tests/tasks", "worker", *QUICKLY, **environ)
            assert victim.process.wait(60) == -signal.SIGKILL
        start()
        assert client.ask("good").results[0].text == "un"
        assert letters.get(no_ack=True).headers["id"].startswith("fatal.")
    client.translator.cancel("fatal", None)
    assert isinstance(fatal.exception(), TolkError)


@pytest.mark.broker
def test_a_worker_whose_model_loads_for_ever_can_be_stopped(models: Models, start, eventually, client_of) -> None:
    models.say(hot={}, stuck={**COLD, "reference": "./hanging"})
    worker, client = start(), client_of()
    waits = client.begin("stuck", request_id="stuck", timeout=4)
    eventually(partial(worker.says, "loading stuck"))
    assert client.ask("hot").results[0].text == "un"
    assert client.memory() == {"hot": True}
    assert worker.stop(signal.SIGQUIT) == 0
    assert worker.logged("stuck", "reject requeue=True")  # for another one to take it
    error = waits.exception()
    assert isinstance(error, TolkError)
    assert error.code is Code.TIMEOUT


@pytest.mark.broker
def test_a_model_that_cannot_be_loaded_is_an_error_and_nothing_more(models: Models, start, client_of) -> None:
    models.say(hot={}, broken={**COLD, "reference": "./broken"})
    worker, client = start(), client_of()
    for _ in range(3):
        error = client.fails("broken")
        assert (error.code, error.retry_after) == (Code.UNAVAILABLE, 1.0)
        assert "broken is broken" not in error.message  # where it lies is not for the caller
    assert worker.log.read_text().count("broken cannot be loaded") == 1
    assert client.ask("hot").results[0].text == "un"
