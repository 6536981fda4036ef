"""Requests reach a worker that has their model: real workers on a real broker, with a models.toml that changes."""

from __future__ import annotations

import signal
import socket
from functools import partial

import pytest
from kombu import Connection, Queue

from tasks.contract.errors import TolkError
from tasks.contract.names import queue_name, shared_route
from tasks.queues import topology
from tasks.worker.subscriptions import preference
from tests.tasks.worker.conftest import COLD, QUICKLY, Offer


@pytest.mark.broker
def test_a_worker_follows_its_registry(offer: Offer, start, eventually, consumers, client_of) -> None:
    offer.say(hot={})
    worker, client = start(), client_of()
    assert client.ask("hot").version == "echo"
    assert consumers("tolk.translate.on-demand.0.interactive") == -1  # no model is on demand

    offer.write("[models")  # not TOML
    eventually(partial(worker.says, "is not TOML"))
    assert client.ask("hot").version == "echo"

    offer.say(new={"reference": "./1-seconds"})
    assert client.ask("new").results[0].text == "un"
    eventually(lambda: client.memory() == {"hot": True, "new": True})

    offer.say(new={"reference": "./broken"}, hot={"precision": "int8"})
    eventually(lambda: client.version("hot") == "int8")
    eventually(partial(worker.says, "model new is not updated, and is tried again"))
    assert client.ask("new").results[0].text == "un"

    begun = []
    for number in range(8):  # one by one, or they would travel together
        begun.append(client.begin("new", "#sleep 6", request_id=f"begun-{number}"))
        eventually(partial(worker.logged, f"begun-{number}", "received"))
    busy = client.begin("hot", "#sleep 6", request_id="busy", priority="bulk")  # with the only thread for bulk work
    eventually(lambda: worker.logged("busy", "received"))
    held = client.begin("new", request_id="held", priority="bulk")
    eventually(lambda: worker.logged("held", "received"))
    offer.say(new=None)
    assert held.result().results[0].text == "un"
    assert [each.result().results[0].text for each in [*begun, busy]] == ["#sleep 6"] * 9
    eventually(lambda: client.memory() == {"hot": True})
    eventually(lambda: consumers("tolk.translate.new.interactive") == 0)
    assert consumers("tolk.suspects.new") == 0

    offer.say(hot=COLD)
    eventually(lambda: client.memory() == {})
    assert client.ask("hot").results[0].text == "un"
    eventually(lambda: client.memory() == {"hot": False})
    assert consumers("tolk.translate.on-demand.0.interactive") == 1

    offer.say(hot={"precision": "int8"})
    eventually(lambda: client.memory() == {"hot": True})
    eventually(lambda: consumers("tolk.translate.on-demand.0.interactive") == 0)
    assert client.ask("hot").version == "int8"
    assert worker.stop() == 0


@pytest.mark.broker
def test_bulk_work_of_many_models_holds_no_thread_of_interactive_work(
    broker, offer: Offer, start, eventually, client_of
) -> None:
    names = ["one", "two", "three", "cold"]
    offer.say(one={}, two={}, three={}, cold=COLD)
    worker, client = start(TOLK_CONCURRENCY="8"), client_of()
    bulk = [
        client.begin(name, "#sleep 30", timeout=60, request_id=f"bulk-{number}", priority="bulk")
        for number, name in enumerate(names * 3)
    ]
    with Connection(broker.url) as connection:
        queues = [
            topology.translation_queue(shared_route(name) if name == "cold" else name, "bulk")(connection.channel())
            for name in names
        ]
        # Of each queue, the worker holds one message, and the others are left to other workers.
        eventually(lambda: [queue.queue_declare(passive=True).message_count for queue in queues] == [2] * 4)
    interactive = [client.begin(name, "#sleep 0.5") for name in names * 2]  # as many as there are threads
    assert [each.result().results[0].text for each in interactive] == ["#sleep 0.5"] * 8
    assert not any(each.done() for each in bulk)
    assert worker.stop() == 0
    other = start()
    for number in range(len(bulk)):
        client.translator.cancel(f"bulk-{number}", None)
    assert other.stop() == 0


@pytest.mark.broker
def test_a_worker_that_was_told_its_queues_stays_with_them(offer: Offer, start, eventually, consumers) -> None:
    offer.say(mine={}, other={}, cold=COLD)
    worker = start("--queues", "tolk.translate.mine,tolk.translate.on-demand")
    offer.say(mine={"precision": "int8"}, later={})
    eventually(partial(worker.says, "has changed"))
    eventually(lambda: worker.log.read_text().count("loading mine") == 2)
    counts = {
        name: consumers(queue_name(name, "bulk")) for name in ("mine", "other", "later", "on-demand.0", "on-demand.15")
    }
    assert counts == {"mine": 1, "other": -1, "later": -1, "on-demand.0": 1, "on-demand.15": 1}
    assert consumers("tolk.suspects.mine") == 1


@pytest.mark.broker
def test_subscriptions_are_what_they_were_after_a_new_connection(
    broker, offer: Offer, start, eventually, consumers
) -> None:
    offer.say(old={}, going={}, cold=COLD)
    worker = start()
    offer.say(new={}, going=None)
    names = ["tolk.translate.new.bulk", "tolk.suspects.new", "tolk.translate.on-demand.7.interactive"]
    eventually(lambda: [consumers(name) for name in names] == [1, 1, 1])
    eventually(lambda: consumers("tolk.translate.going.bulk") == 0)
    with Connection(broker.url) as connection:  # a deleted queue ends the worker's connection
        Queue("tolk.suspects.old")(connection.channel()).delete()
    eventually(partial(worker.says, "Connection to broker lost"))
    eventually(lambda: consumers("tolk.suspects.old") == 1)
    eventually(lambda: [consumers(name) for name in names] == [1, 1, 1])
    assert consumers("tolk.translate.going.bulk") == 0


@pytest.mark.broker
def test_a_model_has_a_worker_of_its_own_and_another_when_that_one_is_busy_or_dead(
    offer: Offer, start, eventually, client_of
) -> None:
    names = [f"cold-{number}" for number in range(12)]
    offer.say(**dict.fromkeys(names, COLD))
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
def test_a_message_that_kills_workers_takes_no_other_model_on_demand_along(
    broker, offer: Offer, spawn, start, client_of
) -> None:
    offer.say(bad=COLD, good=COLD)
    client = client_of()
    with Connection(broker.url) as connection:
        letters = topology.dead_letter_queue()(connection.default_channel)
        letters.declare()
        fatal = client.begin("bad", "#die", request_id="fatal")
        environ = {"CELERY_BROKER_URL": broker.url, "TOLK_MODELS": str(offer.path)}
        for _ in range(3):
            victim = spawn("celery", "-A", "echo", "--workdir", "tests/tasks", "worker", *QUICKLY, **environ)
            assert victim.process.wait(60) == -signal.SIGKILL
        start()
        assert client.ask("good").results[0].text == "un"
        assert letters.get(no_ack=True).headers["id"].startswith("fatal.")
    client.translator.cancel("fatal", None)
    assert isinstance(fatal.exception(), TolkError)
