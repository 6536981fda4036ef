"""A job while each process of the service is killed or replaced: no text of it is lost, and none is done twice."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import astuple
from typing import Any

import pytest
import requests

from app.jobs.limits import CALL_TEXTS
from tests.app.jobs.conftest import Api
from tests.faults.house import House
from tests.faults.load import Row

TEXTS = 1_000
LEASE = 3  # seconds until a chunk of a job is overdue
ENDS = 180.0  # seconds after the end of a fault until the job ends

APPEND = """mutation ($id: ID!, $offset: Int!, $texts: [String!]!) {
  appendTexts(jobId: $id, offset: $offset, texts: $texts) { id } }"""

Trial = Callable[..., Row]


class ResultsWorker:
    """The results worker of a house."""

    def __init__(self, start: Callable[[], Any], eventually: Callable[..., None]) -> None:
        self._start, self._eventually = start, eventually
        self.process = self._ready()

    def kill(self) -> None:
        self.process.stop(signal.SIGKILL)
        self.process = self._ready()

    def replace(self) -> None:
        old, self.process = self.process, self._ready()
        assert old.stop(signal.SIGTERM, 60) == 0

    def _ready(self) -> Any:
        process = self._start()
        self._eventually(lambda: process.says(" ready."), 60)
        return process


@pytest.fixture(scope="module")
def results(house: House, spawn: Callable[..., Any], eventually: Callable[..., None]) -> Iterator[ResultsWorker]:
    environ = {
        "CELERY_BROKER_URL": house.broker.url,
        "DATABASE_URL": house.postgresql.url,
        "TOLK_JOB_LEASE": str(LEASE),
    }
    worker = ResultsWorker(lambda: spawn("celery", "-A", "app.jobs.results", "worker", **environ), eventually)
    yield worker
    worker.process.stop()


@pytest.fixture
def trial(
    house: House, results: ResultsWorker, record_property: Callable[[str, object], None], request: pytest.FixtureRequest
) -> Trial:
    """Causes a fault in the middle of a job, and adds its line to the table when the job has ended."""

    def run(name: str, fault: Callable[[], object], poison: str | None = None, size: int = TEXTS) -> Row:
        api = Api(house.url, house.secret)
        texts = [f"#sleep 0.02 {request.node.name} {number:05}" for number in range(size)]
        if poison is not None:
            texts[size // 2] = poison
        charged, _ = house.counted()
        job = api.submit(open=True)["id"]
        for offset in range(0, size, CALL_TEXTS):
            api.call(APPEND, id=job, offset=offset, texts=texts[offset : offset + CALL_TEXTS])
        api.call("mutation ($id: ID!) { startJob(jobId: $id) { id } }", id=job)

        def state() -> Any:
            with suppress(requests.RequestException, AssertionError, ValueError):  # the web tier, or its database
                return api.job(job)
            return {"status": "UNKNOWN", "progress": {"done": 0}}

        house.eventually(lambda: state()["progress"]["done"] > 0)
        assert state()["progress"]["done"] < size
        fault()
        ended = time.monotonic()
        house.eventually(lambda: state()["status"] in ("SUCCEEDED", "FAILED"), ENDS)
        recovery = time.monotonic() - ended
        nodes = [edge["node"] for edge in api.texts(job)]
        translated = [text for text, node in zip(texts, nodes, strict=True) if node["text"] == text]
        failed = sum(node["error"] is not None for node in nodes)
        paid = house.counted()[0] - charged - sum(map(len, translated))
        row = Row(
            name,
            sent=size,
            answered=len(translated),
            failed=failed,
            lost=size - len(translated) - failed,
            twice=abs(paid) + abs(state()["progress"]["done"] - size),
            recovery=recovery,
        )
        record_property("fault", astuple(row))
        assert (row.lost, row.twice) == (0, 0)
        assert row.failed == (poison is not None)
        return row

    return run


def test_a_worker_is_killed_with_chunks_of_a_job(house: House, trial: Trial) -> None:
    trial("a job: kill -9 of a worker", house.kill_worker)


@pytest.mark.long
def test_all_web_processes_are_killed_during_a_job(house: House, trial: Trial) -> None:
    trial("a job: kill -9 of all gunicorn workers", lambda: [each.kill() for each in house.web_workers()])


@pytest.mark.long
def test_the_results_worker_is_killed(results: ResultsWorker, trial: Trial) -> None:
    trial("a job: kill -9 of the results worker", results.kill)


@pytest.mark.long
def test_the_broker_is_killed_during_a_job(house: House, trial: Trial) -> None:
    def fault() -> None:
        house.broker.kill()
        house.broker.start()

    trial("a job: kill -9 of the broker, and its restart", fault)


@pytest.mark.long
def test_the_database_is_killed_during_a_job(house: House, trial: Trial) -> None:
    def fault() -> None:
        house.postgresql.kill()
        house.postgresql.start()

    trial("a job: kill -9 of the database, and its restart", fault)


@pytest.mark.long
def test_a_text_among_good_ones_kills_every_worker(trial: Trial) -> None:
    trial("a job: a text that kills its process among good ones", lambda: None, poison="#die")


@pytest.mark.long
def test_everything_is_replaced_during_a_job(house: House, results: ResultsWorker, trial: Trial) -> None:
    def fault() -> None:
        house.replace_workers()
        results.replace()
        house.replace_web_workers()

    # A job that takes about as long as that.
    trial("a job: a rolling restart of all workers, the results worker and gunicorn", fault, size=20 * TEXTS)
