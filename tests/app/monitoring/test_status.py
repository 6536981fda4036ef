from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import create_app
from app.broker.rpc import CeleryTranslator
from app.monitoring.recent_errors import ErrorCount, RecentErrors
from app.monitoring.status import QueueStatus, Status, WebStatus
from app.settings import Settings
from app.translation.translate import ask_models
from app.translation.translator import EchoTranslator
from launch.rabbitmq import PrivateRabbitMQ
from tasks.contract.errors import Code, TolkError
from tasks.contract.names import SHARED, queue_name
from tasks.contract.request import TranslateRequest
from tasks.contract.worker import FailedModel, LoadedModel, WorkerStatus
from tasks.registry.file import RegistryFile

REGISTRY = Path(__file__).parents[3] / "models.toml"
MODELS = """
[models.hot]
reference = "fr-en"
pairs = [{ source = "fr", target = "en" }]
[models.away]
reference = "fr-en"
pairs = [{ source = "de", target = "en" }, { source = "en", target = "fi" }]
[models.cold]
reference = "fr-en"
pairs = [{ source = "it", target = "en" }]
warm = false
[models.loaded]
reference = "fr-en"
pairs = [{ source = "sv", target = "en" }]
warm = false
"""
ON_DEMAND = """
[models.{}]
reference = "fr-en"
pairs = [{{ source = "de", target = "en" }}]
warm = false
"""
STATUS = """{ status {
  broker deadLetters
  models { name warm pairs { source target } queues { name depth workers } }
  onDemand { models queues { name depth workers } }
  workers {
    name models { name version device bytes warm }
    active processed uptime hits loads evictions memory gpuMemory
  }
  errors { code count last requestId }
} }"""


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
        "models": [
            {"name": f"{one}-{other}", "warm": True, "pairs": [{"source": one, "target": other}], "queues": []}
            for one, other in (("fr", "en"), ("en", "fr"))
        ],
        "onDemand": None,
        "workers": [],
        "errors": [],
    }


def ask(client: FlaskClient, document: str = STATUS) -> Any:
    """What the one field asked for is."""
    answer = client.post("/graphql", json={"query": document})
    assert answer.status_code == 200, answer.text
    [data] = answer.json["data"].values()
    return data


def test_a_model_that_a_worker_could_not_load_is_not_available_and_says_why(
    surveyed: Callable[[Status], FlaskClient],
) -> None:
    survey = survey_of(one=["hot:1"])
    failed = replace(survey.workers["one"], failed=(FailedModel("cold", "It has no target token."),))
    client = surveyed(replace(survey, workers={"one": failed}))
    problems = {
        each["name"]: each["problem"] for each in ask(client, "{ status { models { name problem } } }")["models"]
    }
    assert problems == {"hot": None, "away": None, "cold": "It has no target token."}
    states = {each["name"]: each["status"] for each in ask(client, "{ models { name status } }")}
    assert (states["hot"], states["cold"]) == ("READY", "FAILED")


class Surveyed(EchoTranslator):
    """An echo that knows a status."""

    def __init__(self, status: Status) -> None:
        super().__init__()
        self._status = status

    def status(self) -> Status:
        return self._status


def survey_of(**workers: list[str]) -> Status:
    """What a survey finds of workers, each with the models in its memory as NAME:VERSION, that take the queues of `hot`
    and of the models on demand; five requests wait for the former, and one in each shared queue."""
    depths = {"tolk.translate.hot.interactive": 3, "tolk.translate.hot.bulk": 2, "tolk.suspects.hot": 1}
    depths |= {queue_name(route, "interactive"): 1 for route in SHARED}
    depths |= {queue_name(route, "bulk"): 0 for route in SHARED} | {"tolk.suspects.on-demand": 0}
    queues = {name: QueueStatus(name, depth, len(workers)) for name, depth in depths.items()}
    for priority in ("interactive", "bulk"):
        name = queue_name("away", priority)
        queues[name] = QueueStatus(name, 0, 0)
    loaded = {
        name: tuple(LoadedModel(*each.split(":"), device="cpu") for each in models) for name, models in workers.items()
    }
    return Status(True, queues, {name: WorkerStatus(models, 0, 0, 1.0) for name, models in loaded.items()})


@pytest.fixture
def surveyed(tmp_path: Path) -> Callable[[Status], FlaskClient]:
    """A web tier that knows this status of the models."""
    path = tmp_path / "models.toml"
    path.write_text(MODELS)
    return lambda status: create_app(Settings(models=path), Surveyed(status)).test_client()


def test_each_model_tells_whether_it_is_in_memory_loaded_on_demand_or_served_by_nobody(
    surveyed: Callable[[Status], FlaskClient],
) -> None:
    status = survey_of(a=["hot:1", "loaded:7"], b=["hot:2"], c=["hot:2"])
    fields = ("name", "source", "target", "version", "status", "queueDepth", "workers")
    models = ask(surveyed(status), f"{{ models {{ {' '.join(fields)} }} }}")
    assert [tuple(model[field] for field in fields) for model in models] == [
        ("hot", "fr", "en", "2", "READY", 5, 3),
        ("away", "de", "en", None, "UNSERVED", 0, 0),
        ("away", "en", "fi", None, "UNSERVED", 0, 0),
        ("cold", "it", "en", None, "ON_DEMAND", None, 0),
        ("loaded", "sv", "en", "7", "READY", None, 1),
    ]


def test_a_warm_model_is_ready_where_its_queue_is_taken_by_workers_that_do_not_answer(
    surveyed: Callable[[Status], FlaskClient],
) -> None:
    status = replace(survey_of(a=[]), workers={})
    models = ask(surveyed(status), "{ models { name status workers } }")
    assert models[0] == {"name": "hot", "status": "READY", "workers": 0}
    nobody = ask(surveyed(survey_of()), "{ models { status } }")
    assert nobody == [{"status": "UNSERVED"}] * 5


@pytest.mark.parametrize(("broker", "available"), [(None, True), (False, False)])
def test_without_a_broker_that_answers_nobody_knows(
    surveyed: Callable[[Status], FlaskClient], broker: bool | None, available: bool
) -> None:
    client = surveyed(Status(broker))
    models = ask(client, "{ models { status version queueDepth workers } }")
    assert models == [{"status": "UNKNOWN", "version": None, "queueDepth": None, "workers": 0}] * 5
    assert {pair["available"] for pair in ask(client, "{ languages { available } }")} == {available}


def test_languages_tell_which_pairs_workers_take(surveyed: Callable[[Status], FlaskClient]) -> None:
    client = surveyed(survey_of(a=["hot:1"]))
    pairs = ask(client, "{ languages { source target via available } }")
    assert {f"{each['source']}-{each['target']}" for each in pairs if each["available"]} == {"fr-en", "it-en", "sv-en"}
    unavailable = {f"{each['source']}-{each['target']}" for each in pairs if not each["available"]}
    assert unavailable == {"de-en", "en-fi", "fr-fi", "de-fi", "it-fi", "sv-fi"}  # the latter through English
    page = client.get("/").text
    assert "[&#34;fr&#34;, &#34;en&#34;, true], [&#34;de&#34;, &#34;en&#34;, false]" in page


def test_of_the_models_on_demand_the_status_lists_what_is_in_memory(
    surveyed: Callable[[Status], FlaskClient],
) -> None:
    status = ask(surveyed(survey_of(a=["loaded:7"], b=[])))
    assert [(each["name"], each["warm"], len(each["queues"])) for each in status["models"]] == [
        ("hot", True, 3),
        ("away", True, 2),
        ("loaded", False, 0),
    ]
    assert status["models"][0]["queues"][2] == {"name": "tolk.suspects.hot", "depth": 1, "workers": 2}
    assert status["onDemand"] == {
        "models": 2,
        "queues": [
            {"name": "tolk.translate.on-demand.*.interactive", "depth": 16, "workers": 2},
            {"name": "tolk.translate.on-demand.*.bulk", "depth": 0, "workers": 2},
            {"name": "tolk.suspects.on-demand", "depth": 0, "workers": 2},
        ],
    }


@pytest.fixture
def connect() -> Any:
    """Makes translators over a broker, each as a web process has one; closed after the test."""
    made: list[CeleryTranslator] = []

    def make(url: str, models: Path = REGISTRY, errors: RecentErrors | None = None, **options: Any) -> CeleryTranslator:
        counts = (errors or RecentErrors()).counts
        made.append(CeleryTranslator.from_config(RegistryFile(models), url, errors=counts, **options))
        assert made[-1].replies.ready.wait(10)
        return made[-1]

    yield make
    for translator in made:
        translator.close()


def request(text: str, model: str = "fr-en") -> TranslateRequest:
    return TranslateRequest((text,), source="fr", target="en", model=model, deadline=time.time() + 20)


@pytest.mark.broker
def test_workers_queues_models_and_the_errors_of_every_web_process(
    new_broker: Callable[[], PrivateRabbitMQ],
    start_worker: Callable[..., Any],
    connect: Callable[..., CeleryTranslator],
    eventually: Callable[..., None],
    tmp_path: Path,
) -> None:
    path = tmp_path / "models.toml"
    path.write_text(REGISTRY.read_text() + ON_DEMAND.format("cold"))
    with new_broker() as broker:
        errors, others = RecentErrors(), RecentErrors()
        one, other = (connect(broker.url, path, each, fresh=0.1) for each in (errors, others))
        client = create_app(Settings(models=path), one, errors).test_client()

        def status() -> Any:
            return ask(client)

        def models() -> Any:
            return {model.pop("name"): model for model in ask(client, "{ models { name version status workers } }")}

        def available() -> list[bool]:
            return [pair["available"] for pair in ask(client, "{ languages { available } }")]

        assert available() == [True] * 4  # as far as is known
        assert status()["workers"] == []
        assert {model["status"] for model in models().values()} == {"UNSERVED"}
        assert available() == [False] * 4
        worker = start_worker(broker.url, app="echo", TOLK_MODELS=str(path))
        ask_models(one, str(uuid4()), [request("un")])
        ask_models(other, str(uuid4()), [request("deux", "cold")])
        errors.add(Code.TIMEOUT, "first")
        others.add(Code.TIMEOUT, "second")
        others.add(Code.INTERNAL, "third")
        eventually(lambda: status()["workers"] and status()["workers"][0]["processed"] == 2)
        seen = status()
        assert seen["broker"] is True
        assert seen["deadLetters"] == 0
        model = seen["models"][0]
        assert model["queues"] == [
            {"name": "tolk.translate.fr-en.interactive", "depth": 0, "workers": 1},
            {"name": "tolk.translate.fr-en.bulk", "depth": 0, "workers": 1},
            {"name": "tolk.suspects.fr-en", "depth": 0, "workers": 1},
        ]
        assert [queue["workers"] for queue in seen["onDemand"]["queues"]] == [1, 1, 1]
        [found] = seen["workers"]
        places = {"version": "echo", "device": "cpu", "bytes": 1_000}
        assert found["models"] == [
            {"name": "en-fr", "warm": True, **places},
            {"name": "fr-en", "warm": True, **places},
            {"name": "cold", "warm": False, **places},
        ]
        assert (found["hits"], found["loads"], found["evictions"]) == (1, 3, 0)
        assert (found["active"], found["uptime"] < 600) == (0, True)
        assert found["memory"] == pytest.approx(psutil.Process(worker.process.pid).memory_info().rss, rel=0.2)
        assert found["gpuMemory"] is None
        assert [(each["code"], each["count"], each["requestId"]) for each in seen["errors"]] == [
            ("TIMEOUT", 2, "second"),
            ("INTERNAL", 1, "third"),
        ]

        assert models()["fr-en"] == {"version": "echo", "status": "READY", "workers": 1}
        path.write_text(path.read_text() + ON_DEMAND.format("colder"))
        eventually(lambda: models().get("colder") == {"version": None, "status": "ON_DEMAND", "workers": 0})
        eventually(lambda: available() == [True] * 4)

        worker.stop()
        eventually(lambda: not status()["workers"])
        with ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(ask_models, one, "waits", [request("waits")])
            depth = {"name": "tolk.translate.fr-en.interactive", "depth": 1, "workers": 0}
            eventually(lambda: status()["models"][0]["queues"][0] == depth)
            eventually(lambda: other.status().in_flight == 1)  # which is `one`'s
            [(queue, since)] = other.status().oldest.items()
            assert (queue, 0 < time.time() - since < 60) == (depth["name"], True)
            one.cancel("waits", None)
            with pytest.raises(TolkError):
                waiting.result()
        assert available() == [False] * 4
        eventually(lambda: (other.status().in_flight, other.status().oldest) == (0, {}))

        broker.kill()
        eventually(lambda: status()["broker"] is False)
        assert [each["count"] for each in status()["errors"]] == [1]  # this process's
        assert {model["status"] for model in models().values()} == {"UNKNOWN"}
        broker.start()
        eventually(lambda: status()["broker"] is True and len(status()["errors"]) == 2)


@pytest.mark.broker
def test_however_many_ask_the_broker_is_asked_once_a_second(
    broker: PrivateRabbitMQ, connect: Callable[..., CeleryTranslator]
) -> None:
    translator = connect(broker.url, fresh=60)
    with ThreadPoolExecutor(8) as threads:
        seen = list(threads.map(lambda _: translator.status(), range(8)))
    assert len({id(each) for each in seen}) == 1


@pytest.mark.broker
def test_a_process_that_only_ever_refused_is_heard_too(
    broker: PrivateRabbitMQ, connect: Callable[[str], CeleryTranslator], eventually: Callable[..., None]
) -> None:
    errors = RecentErrors()
    refusing = CeleryTranslator.from_config(RegistryFile(REGISTRY), broker.url, errors=errors.counts)
    client = create_app(Settings(), refusing, errors).test_client()
    refused = refuse(client)
    asked = connect(broker.url)
    eventually(lambda: [each.request_id for each in asked.status().errors] == [refused])
    refusing.close()
    refuse(client)


def refuse(client: FlaskClient) -> str:
    """Asks for what there is not; the id of the request."""
    document = 'mutation { translate(input: {texts: ["Un."], target: "xx"}) { model } }'
    answer = client.post("/graphql", json={"query": document})
    assert answer.json["errors"][0]["extensions"]["code"] == "UNKNOWN_MODEL"
    return str(answer.headers["X-Request-Id"])


def test_a_web_process_of_an_earlier_release_tells_its_errors_alone() -> None:
    error = ErrorCount(Code.TIMEOUT, 2, 3.0, "r1")
    assert WebStatus.decode(json.loads(json.dumps([asdict(error)]))) == WebStatus((error,))
    now = WebStatus((error,), 4, {"a queue": 5.0})
    assert WebStatus.decode(json.loads(json.dumps(asdict(now)))) == now
