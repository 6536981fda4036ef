from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from kombu import Connection, Exchange

from tasks.contract.names import EXCHANGE, TASK, queue_name
from tests.faults.house import House
from tests.faults.load import Load, Row

Trial = Callable[..., Row]


def test_a_worker_is_killed(house: House, trial: Trial) -> None:
    def fault(_: Load) -> None:
        house.kill_worker()

    row = trial("kill -9 of a worker", fault)
    assert row.failed == 0


def test_a_worker_is_told_to_stop(house: House, trial: Trial) -> None:
    def fault(_: Load) -> None:
        house.kill_worker(signal.SIGTERM)

    row = trial("SIGTERM of a worker", fault)
    assert row.failed == 0


def test_a_web_process_is_killed(house: House, trial: Trial) -> None:
    def fault(_: Load) -> None:
        house.kill_web_worker()

    trial("kill -9 of a gunicorn worker", fault)


def test_all_web_processes_are_killed_with_requests_that_nobody_repeats(house: House, trial: Trial) -> None:
    """What was charged for them is given back: otherwise it would count as seen twice."""
    charged, _ = house.counted()

    def fault(_: Load) -> None:
        for _ in range(10):
            house.send("#sleep 3" + " un" * 1000)
        house.eventually(lambda: house.counted()[0] > charged + 10 * 3000)
        for each in house.web_workers():
            each.kill()

    trial("kill -9 of all gunicorn workers, with requests without a key", fault)


def test_a_web_process_has_no_descriptors(house: House, trial: Trial) -> None:
    pids = {child.pid for child in house.web_workers()}

    def fault(_: Load) -> None:
        with house.without_descriptors():
            time.sleep(2)

    trial("no descriptors left for gunicorn, for 2 s", fault)
    assert {child.pid for child in house.web_workers()} == pids


def test_the_broker_is_killed(house: House, trial: Trial) -> None:
    def fault(_: Load) -> None:
        house.broker.kill()
        house.broker.start()

    trial("kill -9 of the broker, and its restart", fault)


def test_the_database_is_killed(house: House, trial: Trial) -> None:
    def fault(load: Load) -> None:
        house.postgresql.kill()
        killed = time.monotonic()
        house.eventually(lambda: any(each.fate == "failed" and each.sent > killed for each in list(load.outcomes)))
        house.postgresql.start()

    trial("kill -9 of the database, and its restart", fault)


def test_a_message_kills_every_worker_that_takes_it(house: House, trial: Trial) -> None:
    deaths, letters = house.deaths, house.status()["deadLetters"]

    def fault(_: Load) -> None:
        house.send("#die")
        house.eventually(lambda: house.status()["deadLetters"] == letters + 1, 60)

    trial("a message that kills its process", fault, timeout=10.0)
    assert house.deaths == deaths + 3


def test_messages_that_no_worker_can_read(house: House, trial: Trial) -> None:
    letters = house.status()["deadLetters"]
    poison = [
        (b"{", "application/json"),
        (b"\xff\xfe", "application/json"),
        (b"[[], {}, {}]", "application/x-python-serialize"),
        (b'"no task"', "application/json"),
        (b"x" * 5_000_000, "application/json"),
    ]

    def fault(_: Load) -> None:
        # Without publisher confirms, a message that has not reached the queue when the channel closes is lost.
        with Connection(house.broker.url, transport_options={"confirm_publish": True}) as connection:
            producer = connection.Producer(exchange=Exchange(EXCHANGE, "direct", passive=True))
            for body, content_type in poison:
                producer.publish(
                    body,
                    routing_key=queue_name("fr-en", "interactive"),
                    content_type=content_type,
                    content_encoding="utf-8",
                    headers={"task": TASK, "id": "poison"},
                )
            producer.publish(
                [[], {}, {}], routing_key=queue_name("fr-en", "interactive"), headers={"task": "nobody", "id": "poison"}
            )
        house.eventually(lambda: house.status()["deadLetters"] == letters + len(poison) + 1)

    row = trial("invalid JSON, wrong types, unknown task, oversized", fault)
    assert row.failed == 0


@pytest.mark.long
def test_a_model_step_never_returns(house: House, trial: Trial) -> None:
    letters = house.status()["deadLetters"]

    def fault(_: Load) -> None:
        house.send("#hang")
        house.eventually(lambda: house.status()["deadLetters"] == letters + 1, 90)

    trial("a model step that never returns", fault, timeout=15.0)


@pytest.mark.long
def test_the_broker_answers_nothing_for_half_a_minute(house: House, trial: Trial, paused: Callable[..., Any]) -> None:
    def fault(_: Load) -> None:
        with paused(house.broker.process):
            time.sleep(30)

    trial("a broker that answers nothing for 30 s", fault)


@pytest.mark.long
def test_the_brokers_disk_is_full(house: House, trial: Trial, alarm: Callable[..., Any]) -> None:
    def fault(load: Load) -> None:
        with alarm(house.broker):
            began = time.monotonic()
            house.eventually(lambda: not house.is_ready())
            house.eventually(lambda: any(each.fate == "failed" and each.sent > began for each in list(load.outcomes)))

    trial("the broker's disk alarm", fault)
    house.eventually(house.is_ready)


@pytest.mark.long
def test_the_broker_is_away_for_half_a_minute(house: House, trial: Trial) -> None:
    def fault(_: Load) -> None:
        house.broker.kill()
        time.sleep(30)
        house.broker.start()

    trial("a broker that is away for 30 s", fault)


@pytest.mark.long
def test_the_database_answers_nothing(house: House, trial: Trial, paused: Callable[..., Any]) -> None:
    def fault(_: Load) -> None:
        with paused(house.postgresql.process):
            time.sleep(15)

    trial("a database that answers nothing for 15 s", fault)


@pytest.mark.long
def test_all_workers_are_replaced(house: House, trial: Trial) -> None:
    def fault(_: Load) -> None:
        house.replace_workers()

    row = trial("a rolling restart of all workers", fault, retry=False)
    assert row.failed == 0


@pytest.mark.long
def test_all_web_processes_are_replaced(house: House, trial: Trial) -> None:
    def fault(_: Load) -> None:
        house.replace_web_workers()

    row = trial("a rolling restart of gunicorn", fault, retry=False)
    assert row.failed == 0
