"""`/metrics` of a worker, for Prometheus, and its `/healthz`, on one port.

The values are read from the worker's own statistics at each request.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import accumulate
from socketserver import ThreadingTCPServer
from typing import Any

from celery import bootsteps
from celery.utils.log import get_logger
from prometheus_client import REGISTRY, MetricsHandler
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from models.engine.stats import BATCH_SIZES, EngineStats
from models.loading.loaded import LoadedStats
from tasks.celery import Tolk
from tasks.host import gpu, memory
from tasks.host.gpu import Gpu
from tasks.worker.health import BROKER_PATIENCE, Health
from tasks.worker.models import Models
from tasks.worker.start import refuse
from tasks.worker.translate import TASK_SECONDS, TASKS
from telemetry.address import Address

CLIENT_TIMEOUT = 10.0  # seconds after which a connection is closed, even if the client still sends
ACCEPT_PAUSE = 0.1  # seconds after a connection that the system could not give us
CLIENTS = 8  # the largest number of connections at the same time; further ones are closed at once

logger = get_logger(__name__)


class WorkerCollector(Collector):
    """The metrics of a worker's models and memory; those of its tasks are in tasks.worker.translate."""

    def __init__(
        self,
        app: Tolk,
        gpu: Gpu | None,
        resident: Callable[[], int] = memory.resident,
        limit: Callable[[], int] = memory.limit,
    ) -> None:
        """`resident` and `limit` return the bytes of memory that this process holds and may have."""
        self._app, self._gpu, self._resident, self._limit = app, gpu, resident, limit

    def collect(self) -> Iterator[Metric]:
        models: Models | None = getattr(self._app, "models", None)  # None while the worker starts
        if models is not None:
            yield from _of_work(models.memory.work_done())
            yield from _of_models(models.memory.stats(), len(models.memory.loaded()))
        yield _gauge("tolk_memory_bytes", "Resident memory of the process.", self._resident())
        yield _gauge("tolk_memory_limit_bytes", "Memory that its control group, or the machine, allows.", self._limit())
        if self._gpu is not None:
            yield from _of_gpu(self._gpu)


def _of_work(done: dict[str, EngineStats]) -> Iterator[Metric]:
    counters = {
        "tolk_sentences_total": ("Sentences translated.", "finished"),
        "tolk_source_tokens_total": ("Source tokens of translated sentences, with end tokens.", "source_tokens"),
        "tolk_target_tokens_total": ("Target tokens of translated sentences.", "target_tokens"),
        "tolk_steps_total": ("Steps that the model ran.", "steps"),
        "tolk_batch_tokens_total": ("Tokens of the budget that batches used, summed over steps.", "batch_tokens"),
    }
    for name, (text, fact) in counters.items():
        family = CounterMetricFamily(name, text, labels=["model"])
        for model, stats in done.items():
            family.add_metric([model], getattr(stats, fact))
        yield family
    gauges = {
        "tolk_batch_budget_tokens": ("Token budget of a batch: source tokens x hypotheses.", "token_budget"),
        "tolk_batch_occupancy": ("Share of the token budget in use now, 0 to 1.", "occupancy"),
        "tolk_sentences_waiting": ("Sentences that wait for a place in the batch.", "waiting"),
        "tolk_sentences_running": ("Sentences in the batch.", "running"),
    }
    for name, (text, fact) in gauges.items():
        gauge = GaugeMetricFamily(name, text, labels=["model"])
        for model, stats in done.items():
            gauge.add_metric([model], getattr(stats, fact))
        yield gauge
    histogram = HistogramMetricFamily("tolk_batch_sentences", "Sentences in a step's batch.", labels=["model"])
    for model, stats in done.items():
        bounds = [f"{size:.1f}" for size in BATCH_SIZES] + ["+Inf"]
        buckets = list(zip(bounds, accumulate(stats.batches), strict=True))
        histogram.add_metric([model], buckets, stats.batch_sentences)
    yield histogram


def _of_models(stats: LoadedStats, models: int) -> Iterator[Metric]:
    yield _gauge("tolk_models", "Models in memory.", models)
    yield _gauge("tolk_model_bytes", "Memory that the models take.", stats.bytes)
    yield _gauge("tolk_model_budget_bytes", "Memory that the models may take.", stats.budget)
    yield CounterMetricFamily("tolk_model_hits_total", "Tasks that found their model in memory.", stats.hits)
    yield CounterMetricFamily("tolk_model_loads_total", "Models loaded.", stats.loads)
    yield CounterMetricFamily("tolk_model_evictions_total", "Models removed to make room.", stats.evictions)
    yield CounterMetricFamily("tolk_model_failures_total", "Loads of models that failed.", stats.failures)
    yield CounterMetricFamily("tolk_model_load_seconds_total", "Seconds that loads of models took.", stats.loading)


def _of_gpu(chosen: Gpu) -> Iterator[Metric]:
    import pynvml

    try:
        used, total = gpu.memory_of(chosen)
    except pynvml.NVMLError as error:
        logger.warning("cannot read from the NVIDIA driver how much GPU memory is in use: %s", error)
        return
    yield _gauge("tolk_gpu_memory_bytes", "Memory of the GPU in use by any process.", used)
    yield _gauge("tolk_gpu_memory_limit_bytes", "Memory of the GPU.", total)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value)


class Handler(MetricsHandler):
    server: Server

    def do_GET(self) -> None:  # noqa: N802 - http.server's name
        match self.path.partition("?")[0]:
            case "/metrics":
                try:
                    choose_encoder(self.headers.get("Accept", ""))
                except TypeError:  # it fails to compare versions if one of them is not a number
                    del self.headers["Accept"]
                super().do_GET()
            case "/healthz":
                complaint = self.server.health.complaint()
                self.answer(200 if complaint is None else 503, complaint or "The worker is well.")
            case _:
                self.answer(404, "Only /metrics and /healthz are served here.")

    def answer(self, status: int, sentence: str) -> None:
        body = f"{sentence}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingTCPServer):
    """Answers each client in a thread of its own, so that a slow client does not delay others."""

    allow_reuse_address = True  # despite closed connections of the previous worker that are in TIME_WAIT
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: Address, health: Health, client_timeout: float = CLIENT_TIMEOUT) -> None:
        """Begins to listen on `address`. Raises OSError if that fails. `client_timeout` is in seconds."""
        self.health, self._client_timeout = health, client_timeout
        self._came: dict[Any, float] = {}  # the sockets of the clients, with the times at which they connected
        [(self.address_family, _, _, _, bound), *_] = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
        super().__init__((str(bound[0]), address.port), Handler)

    def service_actions(self) -> None:
        """Checks the broker's connection and closes late clients; called twice a second, and after every request."""
        self.health.look()
        for request, came in self._came.copy().items():
            if time.monotonic() - came > self._client_timeout:
                with suppress(OSError):  # its thread may have closed it meanwhile
                    request.shutdown(socket.SHUT_RDWR)

    def get_request(self) -> tuple[Any, Any]:
        try:
            return super().get_request()
        except OSError:  # there are no descriptors; without a pause, this thread would try without end
            time.sleep(ACCEPT_PAUSE)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        if len(self._came) == CLIENTS:
            self.shutdown_request(request)
            return
        self._came[request] = time.monotonic()
        try:
            super().process_request(request, client_address)
        except Exception:  # no thread could be started
            del self._came[request]
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            del self._came[request]

    def handle_error(self, _request: Any, _client_address: Any) -> None:
        logger.warning("a request for metrics failed: %r", sys.exception())


class ServeMetrics(bootsteps.StartStopStep):
    """Serves the worker's metrics from before its models are loaded until after they are closed."""

    patience = BROKER_PATIENCE

    def __init__(self, worker: Any, metrics: Address | None = None, gpu: Gpu | None = None, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self.address = metrics or worker.app.conf.tolk_metrics
        self.gpu = gpu
        self.enabled = self.address is not None

    def start(self, worker: Any) -> None:
        try:
            self.server = Server(self.address, Health(worker, self.patience))
        except OSError as error:
            refuse(f"its metrics cannot be served on {self.address} ({error.strerror}): use another --metrics")
        for collector in (TASKS, TASK_SECONDS, WorkerCollector(worker.app, self.gpu)):
            REGISTRY.register(collector)
        threading.Thread(target=self.server.serve_forever, name="metrics", daemon=True).start()
        logger.info("metrics are served on http://%s/metrics", self.address)

    def stop(self, _worker: Any) -> None:
        self.server.shutdown()
        self.server.server_close()

    def terminate(self, worker: Any) -> None:
        self.stop(worker)
