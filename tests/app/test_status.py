from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import create_app
from app.rpc import CeleryTranslator
from app.settings import Settings
from app.status import WINDOW, ErrorCount, RecentErrors, Status, total
from launch.rabbitmq import PrivateRabbitMQ
from tasks.contract import Code, TolkError, TranslateRequest
from tasks.registry import Registry

REGISTRY = Path(__file__).parents[2] / "models.toml"
STATUS = """{ status {
  broker deadLetters
  models { name pairs { source target } queues { name depth workers } }
  workers { name models { name version device } active processed uptime memory gpuMemory }
  errors { code count last requestId }
} }"""


def test_errors_are_counted_for_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = RecentErrors()
    now = 1_000_000 * 60.0
    monkeypatch.setattr(time, "time", lambda: now)
    errors.add(Code.TIMEOUT, "a")
    now += 30 * 60
    errors.add(Code.TIMEOUT, "b")
    errors.add(Code.INTERNAL, "c")
    assert errors.counts() == [ErrorCount(Code.TIMEOUT, 2, now, "b"), ErrorCount(Code.INTERNAL, 1, now, "c")]
    last, now = now, now + (WINDOW - 30) * 60
    assert errors.counts() == [ErrorCount(Code.TIMEOUT, 1, last, "b"), ErrorCount(Code.INTERNAL, 1, last, "c")]
    now += 30 * 60
    assert errors.counts() == []
    errors.add(Code.TIMEOUT, "d")
    assert errors.counts() == [ErrorCount(Code.TIMEOUT, 1, now, "d")]


def test_the_counts_of_several_processes_become_one_with_the_latest_request() -> None:
    assert total([
        ErrorCount(Code.TIMEOUT, 2, 5.0, "b"),
        ErrorCount(Code.BAD_INPUT, 1, 9.0, "a"),
        ErrorCount(Code.TIMEOUT, 3, 4.0, "c"),
        ErrorCount(Code.TIMEOUT, 1, 6.0, "d"),
    ]) == (ErrorCount(Code.BAD_INPUT, 1, 9.0, "a"), ErrorCount(Code.TIMEOUT, 6, 6.0, "d"))  # fmt: skip


def test_every_error_that_a_caller_is_told_is_counted(
    client: FlaskClient, translate: Callable[..., TestResponse]
) -> None:
    assert ask(client)["errors"] == []
    translate(texts=["Un."], target="xx")
    client.post("/graphql", json={"query": "{ nothing }"})
    client.post("/graphql", data="{", content_type="application/json")
    client.get("/favicon.ico")  # nobody's request for a translation
    last = translate(texts=["x" * 20_001, "Un.", "y" * 20_001])
    assert last.status_code == 200
    counts = {each["code"]: each for each in ask(client)["errors"]}
    assert {code: each["count"] for code, each in counts.items()} == {"BAD_INPUT": 4, "UNKNOWN_MODEL": 1}
    assert counts["BAD_INPUT"]["requestId"] == last.headers["X-Request-Id"]
    assert counts["BAD_INPUT"]["last"].endswith("+00:00")


def test_without_a_broker_there_are_models_and_errors_only(client: FlaskClient) -> None:
    assert ask(client) == {
        "broker": None,
        "deadLetters": None,
        "models": [{"name": "fr-en", "pairs": [{"source": "fr", "target": "en"}], "queues": []}],
        "workers": [],
        "errors": [],
    }


def ask(client: FlaskClient) -> Any:
    answer = client.post("/graphql", json={"query": STATUS})
    assert answer.status_code == 200, answer.text
    return answer.json["data"]["status"]


@pytest.fixture
def connect() -> Any:
    """Makes translators over a broker, each as a web process has one; closed after the test."""
    made: list[CeleryTranslator] = []

    def make(url: str) -> CeleryTranslator:
        made.append(CeleryTranslator.from_config(Registry.load(REGISTRY), url))
        assert made[-1].router.ready.wait(10)
        return made[-1]

    yield make
    for translator in made:
        translator.close()


def request(text: str, timeout: float = 20) -> TranslateRequest:
    return TranslateRequest((text,), source="fr", target="en", model="fr-en", deadline=time.time() + timeout)


@pytest.mark.broker
def test_workers_queues_and_the_errors_of_every_web_process(
    new_broker: Callable[[], PrivateRabbitMQ],
    start_worker: Callable[..., Any],
    connect: Callable[[str], CeleryTranslator],
    eventually: Callable[..., None],
) -> None:
    with new_broker() as broker:
        one, other = connect(broker.url), connect(broker.url)

        def status() -> Any:
            return ask(create_app(Settings(), one).test_client())

        assert status()["workers"] == []
        worker = start_worker(broker.url, app="echo")
        one.translate(request("un"), str(uuid4()))
        other.translate(request("deux"), str(uuid4()))
        one.told(Code.TIMEOUT, "first")
        other.told(Code.TIMEOUT, "second")
        other.told(Code.INTERNAL, "third")
        eventually(lambda: status()["workers"] and status()["workers"][0]["processed"] == 2)
        seen = status()
        assert seen["broker"] is True
        assert seen["deadLetters"] == 0
        [model] = seen["models"]
        assert model["queues"] == [
            {"name": "tolk.translate.fr-en.interactive", "depth": 0, "workers": 1},
            {"name": "tolk.translate.fr-en.bulk", "depth": 0, "workers": 1},
        ]
        [found] = seen["workers"]
        assert found["models"] == [{"name": "fr-en", "version": "echo", "device": "cpu"}]
        assert (found["active"], found["uptime"] < 600) == (0, True)
        assert found["memory"] == pytest.approx(psutil.Process(worker.process.pid).memory_info().rss, rel=0.2)
        assert found["gpuMemory"] is None
        assert [(each["code"], each["count"], each["requestId"]) for each in seen["errors"]] == [
            ("TIMEOUT", 2, "second"),
            ("INTERNAL", 1, "third"),
        ]

        worker.stop()
        eventually(lambda: not status()["workers"])
        with ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(one.translate, request("waits"), "waits")
            depth = {"name": "tolk.translate.fr-en.interactive", "depth": 1, "workers": 0}
            eventually(lambda: status()["models"][0]["queues"][0] == depth)
            one.cancel("waits", None)
            with pytest.raises(TolkError):
                waiting.result()

        broker.kill()
        eventually(lambda: status()["broker"] is False)
        assert [each["count"] for each in status()["errors"]] == [1]  # this process's
        broker.start()
        eventually(lambda: status()["broker"] is True and len(status()["errors"]) == 2)


@pytest.mark.broker
def test_however_many_ask_the_broker_is_asked_once_a_second(
    broker: PrivateRabbitMQ, connect: Callable[[str], CeleryTranslator], monkeypatch: pytest.MonkeyPatch
) -> None:
    translator = connect(broker.url)
    taken: list[Status] = []
    take = translator._take_status

    def counted(name: str) -> Status:
        taken.append(take(name))
        return taken[-1]

    monkeypatch.setattr(translator, "_take_status", counted)
    monkeypatch.setattr("app.rpc.STATUS_AGE", 60)
    with ThreadPoolExecutor(8) as threads:
        seen = list(threads.map(lambda _: translator.status(), range(8)))
    assert len(taken) == 1
    assert seen == taken * 8


@pytest.mark.broker
def test_a_process_that_only_ever_refused_is_heard_too(
    broker: PrivateRabbitMQ, connect: Callable[[str], CeleryTranslator], eventually: Callable[..., None]
) -> None:
    refusing = CeleryTranslator.from_config(Registry.load(REGISTRY), broker.url)
    refusing.told(Code.UNKNOWN_MODEL, "first")
    asked = connect(broker.url)
    eventually(lambda: [each.request_id for each in asked.status().errors] == ["first"])
    refusing.close()
    refusing.told(Code.UNKNOWN_MODEL, "last")


@pytest.mark.broker
def test_what_another_release_answers_does_no_harm(
    broker: PrivateRabbitMQ, connect: Callable[[str], CeleryTranslator], monkeypatch: pytest.MonkeyPatch
) -> None:
    strange = [("w", {"models": "none"}), ("x", [{"code": "NEW"}]), ("y", 5), ("z", [3])]
    monkeypatch.setattr("app.survey._ask", lambda *_: strange)
    status = connect(broker.url).status()
    assert (status.broker, status.workers, status.errors) == (True, {}, ())
