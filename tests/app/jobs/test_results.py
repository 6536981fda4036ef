"""Jobs from one end to the other: a web tier, a RabbitMQ, a worker and the results worker, all real."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.jobs.delivery import secret_of, spelled
from launch.rabbitmq import PrivateRabbitMQ
from tests.app.jobs.conftest import Api
from tests.app.jobs.receiver import Receiver, is_signed
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.broker
SECRET = "a secret of the whole service"
CALLBACK = "query ($id: ID!) { job(id: $id) { callback { attempts deliveredAt error } } }"
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
        "TOLK_WEBHOOK_SECRET": SECRET,
        "TOLK_WEBHOOK_PRIVATE": "on",
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
    eventually(lambda: house.api.call("{ status { jobWorkers } }")["jobWorkers"] == 1)
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


def test_a_receiver_is_called_back_once(house: House, eventually: Callable[..., None]) -> None:
    secret = spelled(secret_of(SECRET, ""))  # as `flask jobs webhook-secret` prints it
    with Receiver().running() as receiver:
        jobs = []
        for text, path in (("Un.", "/first"), ("#bad", "/second")):
            jobs.append(house.api.submit(text, callbackUrl=receiver.url + path)["id"])
            eventually(lambda: (house.api.call(CALLBACK, id=jobs[-1])["callback"] or {}).get("deliveredAt"))
        told = {path: json.loads(body) for path, _, body in receiver.received}
        assert [path for path, _, _ in receiver.received] == ["/first", "/second"]
        assert all(is_signed(headers, body, secret) for _, headers, body in receiver.received)
    assert [each["type"] for each in told.values()] == ["job.succeeded", "job.failed"]
    assert [each["data"]["id"] for each in told.values()] == jobs
    assert told["/second"]["data"]["progress"] == {"done": 1, "total": 1, "failed": 1}


def flask(house: House, *arguments: str, **streams: Any) -> subprocess.Popen[str]:
    """`flask jobs` on the same database."""
    command = [sys.executable, "-m", "flask", "--app", "app", "jobs", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    return subprocess.Popen(command, cwd=REPOSITORY, env={**os.environ, **house.environ}, text=True, **pipes)


def submit(house: House, texts: Path, *options: str, **streams: Any) -> subprocess.Popen[str]:
    return flask(house, "submit", str(texts), "--source", "fr", "--target", "en", "--wait", *options, **streams)


def test_a_submitted_file_is_waited_for_with_a_bar(house: House, tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.write_text("".join(f"Texte {number}.\n" for number in range(100)))
    terminal, other_end = pty.openpty()
    done = submit(house, texts, stderr=other_end)
    job_id = done.communicate(timeout=60)[0].strip()
    os.close(other_end)
    shown = b""
    with suppress(OSError):  # so Linux says that the terminal's other end is closed
        while more := os.read(terminal, 65_536):
            shown += more
    os.close(terminal)
    assert done.returncode == 0
    assert b"100%" in shown
    assert b"SUCCEEDED" in shown
    assert house.api.job(job_id)["progress"] == {"done": 100, "total": 100, "failed": 0}


def test_who_stops_waiting_is_told_how_to_go_on(house: House, tmp_path: Path, eventually: Callable[..., None]) -> None:
    texts = tmp_path / "texts"
    texts.write_text("#sleep 2\n#bad\n")
    waiting = submit(house, texts)
    assert waiting.stdout is not None
    job_id = waiting.stdout.readline().strip()
    assert waiting.stderr is not None
    assert any(line == "QUEUED\n" for line in waiting.stderr)  # the bar's label, after log lines: it waits now
    waiting.send_signal(signal.SIGINT)
    said = waiting.stderr.read()
    assert f"flask --app app jobs wait {job_id}" in said
    assert "Traceback" not in said
    assert waiting.wait(20) == 1
    again = flask(house, "wait", job_id)
    assert "1 of 2 texts have no translation" in again.communicate(timeout=60)[1]
    assert again.returncode == 1
    assert house.api.job(job_id)["status"] == "FAILED"  # and not CANCELLED


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
