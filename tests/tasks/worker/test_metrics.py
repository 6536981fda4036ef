"""The exact values that a worker reports to Prometheus."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil
import pytest
import requests
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from app.broker.rpc import CeleryTranslator
from app.translation.translate import ask_models
from launch.rabbitmq import PrivateRabbitMQ
from models.engine.options import DecodingOptions
from models.engine.stats import BATCH_SIZES, EngineStats
from models.loading.loaded import LoadedStats
from models.local import LocalTranslator
from tasks.contract.errors import Code, TolkError
from tasks.contract.reply import TranslateReply
from tasks.contract.request import TranslateRequest
from tasks.host import memory
from tasks.host.gpu import Gpu
from tasks.worker.health import Health
from tasks.worker.metrics import CLIENTS, Server, WorkerCollector
from telemetry.address import Address
from tests.conftest import Service, Spawn

QUEUE = "tolk.translate.a.interactive"
OF_A_MODEL = {
    "tolk_sentences_total",
    "tolk_source_tokens_total",
    "tolk_target_tokens_total",
    "tolk_steps_total",
    "tolk_batch_tokens_total",
    "tolk_batch_budget_tokens",
    "tolk_batch_occupancy",
    "tolk_sentences_waiting",
    "tolk_sentences_running",
    "tolk_batch_sentences_bucket",
    "tolk_batch_sentences_sum",
    "tolk_batch_sentences_count",
}
OF_A_WORKER = {
    "tolk_tasks_total",
    "tolk_task_seconds_bucket",
    "tolk_task_seconds_sum",
    "tolk_task_seconds_count",
    "tolk_models",
    "tolk_model_bytes",
    "tolk_model_budget_bytes",
    "tolk_model_hits_total",
    "tolk_model_loads_total",
    "tolk_model_evictions_total",
    "tolk_model_failures_total",
    "tolk_model_load_seconds_total",
    "tolk_memory_bytes",
    "tolk_memory_limit_bytes",
}
OF_A_GPU = {"tolk_gpu_memory_bytes", "tolk_gpu_memory_limit_bytes"}

Ask = Callable[..., TranslateReply]


@dataclass(frozen=True)
class Samples:
    """The samples of one scrape."""

    values: dict[tuple[str, frozenset[tuple[str, str]]], float]

    @classmethod
    def parse(cls, text: str) -> Samples:
        families = text_string_to_metric_families(text)
        samples = [each for family in families for each in family.samples]
        values = {(each.name, frozenset(each.labels.items())): each.value for each in samples}
        assert len(values) == len(samples)
        return cls(values)

    def __call__(self, name: str, **labels: str) -> float:
        return self.values[name, frozenset(labels.items())]

    def names(self) -> set[str]:
        return {name for name, _ in self.values if name.startswith("tolk_") and not name.endswith("_created")}


def scrape(port: int) -> Samples:
    answer = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=30)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    return Samples.parse(answer.text)


def health(port: int) -> tuple[int, str]:
    answer = requests.get(f"http://127.0.0.1:{port}/healthz", timeout=30)
    return answer.status_code, answer.text


def listening(service: Service) -> list[tuple[str, int]]:
    """The addresses on which a process listens."""
    connections = psutil.Process(service.process.pid).net_connections("tcp")
    return [tuple(each.laddr) for each in connections if each.status == psutil.CONN_LISTEN]


@pytest.mark.broker
def test_what_a_worker_did_is_counted_to_the_number(
    broker: PrivateRabbitMQ, start_worker: Spawn, ask: Ask, models: Path, free_port: Callable[[], int]
) -> None:
    port = free_port()
    environ = {"TOLK_MODELS": str(models), "TOLK_MEMORY": "3GB"}
    worker = start_worker(broker.url, "--queues", QUEUE, "--metrics", f"127.0.0.1:{port}", **environ)
    assert health(port) == (200, "The worker is well.\n")
    assert listening(worker) == [("127.0.0.1", port)]
    before = scrape(port)
    assert before.names() == OF_A_MODEL | OF_A_WORKER
    assert before("process_start_time_seconds") == pytest.approx(
        psutil.Process(worker.process.pid).create_time(), abs=0.02
    )
    assert {code: before("tolk_tasks_total", code=code) for code in ("OK", *Code)} == dict.fromkeys(("OK", *Code), 0)

    texts = ["Je vais dormir.", "Merci. Il pleut.", "Où est la gare ?"]
    with LocalTranslator.load("fr-en") as alone:
        options = DecodingOptions()
        for text in texts:
            [translation] = alone.translate([text], options=options).results
            assert ask(text).results[0].text == translation.text
        expected = alone.stats()
    assert expected.finished == 4

    after = scrape(port)

    def rise(name: str, **labels: str) -> float:
        return after(name, **labels) - before(name, **labels)

    assert rise("tolk_sentences_total", model="a") == 4
    assert rise("tolk_source_tokens_total", model="a") == expected.source_tokens
    assert rise("tolk_target_tokens_total", model="a") == expected.target_tokens
    assert rise("tolk_batch_sentences_sum", model="a") == expected.batch_sentences
    assert rise("tolk_batch_tokens_total", model="a") == expected.batch_tokens
    steps = rise("tolk_steps_total", model="a")  # two sentences of a text may share steps
    assert expected.batch_sentences / 2 <= steps <= expected.batch_sentences
    assert rise("tolk_batch_sentences_count", model="a") == rise("tolk_batch_sentences_bucket", model="a", le="2.0")
    assert rise("tolk_batch_sentences_count", model="a") == steps
    assert after("tolk_batch_budget_tokens", model="a") == expected.token_budget
    for gauge in ("tolk_sentences_waiting", "tolk_sentences_running", "tolk_batch_occupancy"):
        assert after(gauge, model="a") == 0
    assert rise("tolk_tasks_total", code="OK") == rise("tolk_task_seconds_count") == 3
    assert rise("tolk_task_seconds_sum") > 0
    assert rise("tolk_model_hits_total") == 3
    assert (after("tolk_models"), after("tolk_model_loads_total"), after("tolk_model_budget_bytes")) == (1, 1, 3e9)
    assert after("tolk_model_load_seconds_total") > 0
    assert after("tolk_memory_bytes") > after("tolk_model_bytes") > 1e6
    assert after("tolk_memory_limit_bytes") == memory.limit()
    assert worker.stop() == 0


@pytest.mark.broker
def test_tasks_are_counted_by_their_outcome(
    broker: PrivateRabbitMQ,
    start_worker: Spawn,
    ask: Ask,
    translator: CeleryTranslator,
    threads: Any,
    eventually: Callable[..., None],
    models: Path,
    free_port: Callable[[], int],
) -> None:
    port = free_port()
    worker = start_worker(broker.url, app="echo", TOLK_MODELS=str(models), TOLK_METRICS=f"127.0.0.1:{port}")
    ask("#sleep 0.3")
    ask("un", "#bad")  # one text fails, the task succeeds
    for _ in range(3):
        with pytest.raises(TolkError):
            ask("#fail")
    with pytest.raises(TolkError):
        ask_models(translator, "versions", [TranslateRequest(("un",), "en", "a", time.time() + 60, version="other")])
    asked = threads.submit(ask, "#sleep 60", request_id="cancelled")
    eventually(lambda: worker.logged("cancelled", "received"))
    translator.cancel("cancelled", None)
    assert isinstance(asked.exception(), TolkError)
    eventually(lambda: scrape(port)("tolk_task_seconds_count") == 7)
    samples = scrape(port)
    counted = {code: samples("tolk_tasks_total", code=code) for code in ("OK", *Code)}
    assert counted == {**dict.fromkeys(Code, 0), "OK": 2, "INTERNAL": 3, "UNKNOWN_MODEL": 1, "CANCELLED": 1}
    assert samples("tolk_task_seconds_sum") >= 0.3
    assert samples("tolk_task_seconds_bucket", le="+Inf") - samples("tolk_task_seconds_bucket", le="0.2") >= 1
    assert worker.stop() == 0


@pytest.mark.broker
def test_nothing_listens_unless_it_is_told_to(broker: PrivateRabbitMQ, start_worker: Spawn, models: Path) -> None:
    worker = start_worker(broker.url, app="echo", TOLK_MODELS=str(models), TOLK_METRICS="")
    assert listening(worker) == []
    assert worker.stop() == 0


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which another socket listens."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


@pytest.mark.parametrize(
    ("arguments", "environ", "sentence"),
    [
        (["--metrics", "{taken}"], {}, "its metrics cannot be served on {taken} (Address already in use)"),
        ([], {"TOLK_METRICS": "{taken}"}, "its metrics cannot be served on {taken} (Address already in use)"),
        (["--metrics", "nowhere.invalid:9101"], {}, "its metrics cannot be served on nowhere.invalid:9101 ("),
        (["--metrics", "9101"], {}, "expected HOST:PORT with a port from 1 to 65535, such as 127.0.0.1:9101, not '91"),
        ([], {"TOLK_METRICS": "host:0"}, "TOLK_METRICS: expected HOST:PORT with a port from 1 to 65535"),
    ],
)
def test_a_worker_that_cannot_serve_them_ends_and_says_why(
    spawn: Spawn, taken: int, models: Path, arguments: list[str], environ: dict[str, str], sentence: str
) -> None:
    def filled(text: str) -> str:
        return text.format(taken=f"127.0.0.1:{taken}")

    environ = {"TOLK_MODELS": str(models)} | {name: filled(value) for name, value in environ.items()}
    worker = spawn(
        "celery", "-A", "echo", "--workdir", "tests/tasks", "worker", "-lINFO", *map(filled, arguments), **environ
    )
    assert worker.process.wait(60) != 0
    assert worker.says(filled(sentence))
    assert not worker.says("loading a")


@pytest.mark.broker
def test_a_worker_whose_first_model_loads_is_not_well_yet(
    broker: PrivateRabbitMQ,
    spawn: Spawn,
    eventually: Callable[..., None],
    tmp_path: Path,
    free_port: Callable[[], int],
) -> None:
    path, port = tmp_path / "models.toml", free_port()
    path.write_text('[models.a]\nreference = "./hanging"\npairs = [{ source = "fr", target = "en" }]\n')
    worker = spawn(
        *("celery", "-A", "echo", "--workdir", "tests/tasks", "worker", "-lINFO", "--metrics", f"127.0.0.1:{port}"),
        CELERY_BROKER_URL=broker.url,
        TOLK_MODELS=str(path),
    )
    eventually(lambda: worker.says("loading a"), 60)
    assert health(port)[0] == 503
    samples = scrape(port)
    assert (samples("tolk_models"), samples("tolk_model_loads_total")) == (0, 0)
    worker.process.kill()


def test_every_fact_has_its_place(nvml: ModuleType) -> None:
    """All numbers differ, so that a test notices if two are confused."""
    engine = EngineStats(
        batches=tuple(range(1, len(BATCH_SIZES) + 2)),
        batch_sentences=1001,
        batch_tokens=1002,
        finished=1003,
        failed=1004,
        source_tokens=1005,
        target_tokens=1006,
        waiting=1007,
        running=1008,
        running_tokens=300,
        lanes=2,
        token_budget=1200,
    )
    loaded = LoadedStats(
        hits=1, misses=2, loads=3, failures=4, loading=5.5, evictions=6, waiting=7, bytes=8, budget=9
    )  # fmt: skip
    memory_of_models = SimpleNamespace(
        work_done=lambda: {"a": engine, "b": EngineStats()}, stats=lambda: loaded, loaded=lambda: ("a", "b", "c")
    )
    app: Any = SimpleNamespace(models=SimpleNamespace(memory=memory_of_models))
    samples = collected(
        WorkerCollector(app, Gpu(1, "GPU-1b", "NVIDIA L4", 24 * 2**30), resident=lambda: 11, limit=lambda: 12)
    )
    of_a = {
        "tolk_sentences_total": 1003,
        "tolk_source_tokens_total": 1005,
        "tolk_target_tokens_total": 1006,
        "tolk_steps_total": sum(engine.batches),
        "tolk_batch_tokens_total": 1002,
        "tolk_batch_budget_tokens": 1200,
        "tolk_batch_occupancy": 0.125,
        "tolk_sentences_waiting": 1007,
        "tolk_sentences_running": 1008,
        "tolk_batch_sentences_sum": 1001,
        "tolk_batch_sentences_count": sum(engine.batches),
    }
    assert {name: samples(name, model="a") for name in of_a} == of_a
    buckets = {size: samples("tolk_batch_sentences_bucket", model="a", le=f"{size}.0") for size in BATCH_SIZES}
    assert list(buckets.values()) == [1, 3, 6, 10, 15, 21, 28, 36, 45, 55]
    assert samples("tolk_batch_sentences_bucket", model="a", le="+Inf") == 66
    assert {samples(name, model="b") for name in of_a} == {0}
    of_the_worker = {
        "tolk_models": 3,
        "tolk_model_bytes": 8,
        "tolk_model_budget_bytes": 9,
        "tolk_model_hits_total": 1,
        "tolk_model_loads_total": 3,
        "tolk_model_evictions_total": 6,
        "tolk_model_failures_total": 4,
        "tolk_model_load_seconds_total": 5.5,
        "tolk_memory_bytes": 11,
        "tolk_memory_limit_bytes": 12,
        "tolk_gpu_memory_bytes": 2 * 2**20,
        "tolk_gpu_memory_limit_bytes": 24 * 2**30,
    }
    assert {name: samples(name) for name in of_the_worker} == of_the_worker


def test_a_driver_that_does_not_answer_hides_nothing_else(
    nvml: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise nvml.NVMLError("GPU is lost")

    monkeypatch.setattr(nvml, "nvmlInit", fail)
    app: Any = SimpleNamespace()
    assert collected(WorkerCollector(app, Gpu(1, "GPU-1b", "NVIDIA L4", 24 * 2**30))).names() == {
        "tolk_memory_bytes",
        "tolk_memory_limit_bytes",
    }
    assert "GPU is lost" in caplog.text


def collected(collector: WorkerCollector) -> Samples:
    registry = CollectorRegistry()
    registry.register(collector)
    return Samples.parse(generate_latest(registry).decode())


@contextmanager
def serving(port: int, **options: float) -> Iterator[None]:
    health = Health(SimpleNamespace(consumer=None, app=SimpleNamespace()))
    server = Server(Address("localhost", port), health, **options)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def served(free_port: Callable[[], int]) -> Iterator[int]:
    """The port of a server of its own."""
    port = free_port()
    with serving(port):
        yield port


def test_it_answers_what_it_is_for_and_nothing_else(served: int) -> None:
    address = f"http://localhost:{served}"
    assert requests.get(f"{address}/metrics?x=1", timeout=30).status_code == 200
    assert requests.get(f"{address}/healthz?x=1", timeout=30).status_code == 503
    assert requests.get(f"{address}/", timeout=30).status_code == 404
    assert requests.get(f"{address}/metricsx", timeout=30).status_code == 404
    assert requests.post(f"{address}/metrics", timeout=30).status_code == 501


@pytest.mark.parametrize("accepted", ["text/plain; version=abc", "application/openmetrics-text;version=1.x"])
def test_who_wants_a_format_that_there_is_not_has_the_usual_one(served: int, accepted: str) -> None:
    answer = requests.get(f"http://localhost:{served}/metrics", headers={"Accept": accepted}, timeout=30)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")


def test_clients_that_say_nothing_hold_up_nobody_and_are_so_many_at_most(
    served: int, eventually: Callable[..., None]
) -> None:
    def answers() -> bool:
        try:
            return requests.get(f"http://localhost:{served}/healthz", timeout=30).status_code == 503
        except requests.ConnectionError:
            return False

    with ExitStack() as held:
        for _ in range(CLIENTS - 1):
            held.enter_context(socket.create_connection(("localhost", served)))
        assert answers()

        def full() -> bool:
            held.enter_context(socket.create_connection(("localhost", served)))
            return not answers()

        eventually(full)
    eventually(answers)


def test_clients_for_whom_there_is_no_thread_take_no_place(served: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: Any) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(socketserver, "threading", SimpleNamespace(Thread=fail))
        for _ in range(CLIENTS):
            with pytest.raises(requests.ConnectionError):
                health(served)
    assert health(served)[0] == 503


@pytest.mark.parametrize("said", [b"", b"y"])
def test_a_client_is_let_go_whatever_it_says(
    free_port: Callable[[], int], eventually: Callable[..., None], said: bytes
) -> None:
    port = free_port()
    with serving(port, client_timeout=0.1), socket.create_connection(("localhost", port)) as client:
        client.setblocking(False)
        client.sendall(b"GET /healthz HTTP/1.1\r\nX-Header: " if said else b"")

        def let_go() -> bool:
            try:
                client.sendall(said)
                return client.recv(1) == b""
            except BlockingIOError:
                return False
            except ConnectionError:
                return True

        eventually(let_go)
