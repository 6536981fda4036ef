"""Jobs from one end to the other: a web tier, a RabbitMQ, a worker and the results worker, all real."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from launch.rabbitmq import PrivateRabbitMQ
from tests.app.jobs.conftest import Api

pytestmark = pytest.mark.broker
MODELS = """
[models.fr-en]
reference = "./fr-en"
pairs = [{ source = "fr", target = "en" }]

[models.en-de]
reference = "./en-de"
pairs = [{ source = "en", target = "de" }]
"""


@dataclass
class House:
    """All processes of the service on one database and one broker."""

    broker: PrivateRabbitMQ
    environ: dict[str, str]
    api: Api
    worker: Any
    results: Any


@pytest.fixture(scope="module")
def house(
    tmp_path_factory: pytest.TempPathFactory,
    new_broker: Callable[[], PrivateRabbitMQ],
    start_web: Callable[..., str],
    start_worker: Callable[..., Any],
    start_results: Callable[..., Any],
) -> Any:
    directory = tmp_path_factory.mktemp("house")
    models = Path(directory, "models.toml")
    models.write_text(MODELS)
    environ = {
        "TOLK_MODELS": str(models),
        "DATABASE_URL": f"sqlite:///{directory}/tolk.sqlite",
        "TOLK_JOB_LEASE": "3",
    }
    with new_broker() as broker:
        worker = start_worker(broker.url, app="echo", TOLK_MODELS=str(models))
        results = start_results(broker.url, **environ)
        yield House(broker, environ, Api(start_web(broker.url, **environ)), worker, results)


def ended(api: Api, job_id: str) -> bool:
    return api.job(job_id)["status"] in ("SUCCEEDED", "FAILED", "CANCELLED")


def test_a_job_is_translated_in_order(house: House, eventually: Callable[..., None]) -> None:
    texts = [f"Texte {number}." for number in range(300)]
    job = house.api.submit(*texts)
    assert (job["status"], job["progress"]) == ("QUEUED", {"done": 0, "total": 300, "failed": 0})
    eventually(lambda: ended(house.api, job["id"]))
    assert house.api.job(job["id"])["status"] == "SUCCEEDED"
    edges = house.api.texts(job["id"], 70)
    assert [edge["node"]["text"] for edge in edges] == texts
    assert [edge["position"] for edge in edges] == list(range(300))
    assert {edge["node"]["model"] for edge in edges} == {"fr-en"}
    assert house.results.says(f"takes the jobs in {house.environ['DATABASE_URL']}; DATABASE_URL has to be the same")


def test_a_job_goes_through_another_language(house: House, eventually: Callable[..., None]) -> None:
    job = house.api.submit("Un.", "", "Deux.", target="de")
    eventually(lambda: ended(house.api, job["id"]))
    edges = house.api.texts(job["id"])
    assert [edge["node"]["text"] for edge in edges] == ["Un.", "", "Deux."]
    assert edges[0]["node"]["model"] == "fr-en+en-de"
    assert house.api.job(job["id"])["version"] == "echo"


def test_a_text_that_fails_does_so_alone_and_is_retried_alone(house: House, eventually: Callable[..., None]) -> None:
    job = house.api.submit("Un.", "#bad", "Deux.", "#fail", "Trois.")
    eventually(lambda: ended(house.api, job["id"]))
    found = house.api.job(job["id"])
    assert (found["status"], found["progress"]) == ("FAILED", {"done": 5, "total": 5, "failed": 2})
    assert found["error"]["message"].startswith("2 of 5 texts have no translation")
    nodes = [edge["node"] for edge in house.api.texts(job["id"])]
    assert [node["text"] for node in nodes] == ["Un.", None, "Deux.", None, "Trois."]
    assert [node["error"]["code"] for node in (nodes[1], nodes[3])] == ["BAD_INPUT", "INTERNAL"]
    again = house.api.change("retryJob", job["id"])
    assert (again["status"], again["progress"]["done"], again["error"]) == ("QUEUED", 3, None)
    eventually(lambda: ended(house.api, job["id"]))


def test_a_cancelled_job_ends_what_runs(house: House, eventually: Callable[..., None]) -> None:
    job = house.api.submit(*["#sleep 2.9"] * 3)
    eventually(lambda: house.api.job(job["id"])["status"] == "RUNNING")
    assert house.api.change("cancelJob", job["id"])["status"] == "CANCELLED"
    nodes = [edge["node"] for edge in house.api.texts(job["id"])]
    assert {node["error"]["code"] for node in nodes} == {"CANCELLED"}
    assert house.api.change("cancelJob", job["id"])["status"] == "CANCELLED"
    eventually(lambda: house.worker.says(" CANCELLED ms="))


def test_killed_results_workers_lose_and_double_nothing(
    house: House, eventually: Callable[..., None], start_results: Callable[..., Any]
) -> None:
    second = start_results(house.broker.url, **house.environ)  # two at a time
    texts = [f"Texte {number}." for number in range(1500)]
    job = house.api.submit(*texts)
    eventually(lambda: house.api.job(job["id"])["progress"]["done"])
    second.stop(signal.SIGKILL)
    house.results.stop(signal.SIGKILL)
    house.results = start_results(house.broker.url, **house.environ)
    eventually(lambda: ended(house.api, job["id"]), 60)
    found = house.api.job(job["id"])
    assert (found["status"], found["progress"]["done"]) == ("SUCCEEDED", 1500)
    assert [edge["node"]["text"] for edge in house.api.texts(job["id"])] == texts
