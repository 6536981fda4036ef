"""Metrics of Tolk that tests set by hand: a server for each job of Prometheus, with the values of a healthy service."""

from __future__ import annotations

import itertools
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

LABELS = {
    "code": ("OK", "BAD_INPUT", "RATE_LIMITED", "OVERLOADED", "TIMEOUT", "UNAVAILABLE", "INTERNAL"),
    "stage": ("admission", "publish", "queue", "load", "wait", "prefill", "decode", "reply"),
    "queue": ("tolk.translate.fr-en.interactive", "tolk.translate.fr-en.bulk"),
    "model": ("fr-en",),
    "worker": ("celery@one",),
    "status": ("RUNNING",),
}
FAILED = ("RATE_LIMITED", "OVERLOADED", "TIMEOUT", "UNAVAILABLE", "INTERNAL")
# The values of gauges, and the increase of counters and the observations of histograms at each scrape; others are 1.
HEALTHY = {
    **{f"tolk_requests_total{{{code}}}": 0.0 for code in FAILED},
    "tolk_dead_letters": 0.0,
    "tolk_workers": 2.0,
    "tolk_model_budget_bytes": 2.0,
    "tolk_memory_limit_bytes": 2.0,
    "tolk_gpu_memory_limit_bytes": 2.0,
}

Kind = type[Counter] | type[Gauge] | type[Histogram]
# The metrics of each job, with their kinds and labels: all of Tolk's own, and those of others that queries use.
METRICS: dict[str, dict[str, tuple[Kind, *tuple[str, ...]]]] = {
    "tolk-web": {
        "tolk_requests_total": (Counter, "code"),
        "tolk_request_seconds": (Histogram,),
        "tolk_stage_seconds": (Histogram, "stage"),
        "tolk_texts_total": (Counter,),
        "tolk_characters_total": (Counter,),
        "tolk_in_flight": (Gauge,),
        "tolk_broker_up": (Gauge,),
        "tolk_workers": (Gauge,),
        "tolk_queue_messages": (Gauge, "queue"),
        "tolk_queue_consumers": (Gauge, "queue"),
        "tolk_queue_age_seconds": (Gauge, "queue"),
        "tolk_dead_letters": (Gauge,),
        "tolk_job_workers": (Gauge,),
        "tolk_jobs": (Gauge, "status"),
        "tolk_job_texts": (Gauge, "status"),
    },
    "tolk-worker": {
        "tolk_tasks_total": (Counter, "code"),
        "tolk_task_seconds": (Histogram,),
        "tolk_sentences_total": (Counter, "model"),
        "tolk_source_tokens_total": (Counter, "model"),
        "tolk_target_tokens_total": (Counter, "model"),
        "tolk_batch_sentences": (Histogram, "model"),
        "tolk_batch_occupancy": (Gauge, "model"),
        "tolk_steps_total": (Counter, "model"),
        "tolk_batch_tokens_total": (Counter, "model"),
        "tolk_batch_budget_tokens": (Gauge, "model"),
        "tolk_sentences_waiting": (Gauge, "model"),
        "tolk_sentences_running": (Gauge, "model"),
        "tolk_models": (Gauge,),
        "tolk_model_bytes": (Gauge,),
        "tolk_model_budget_bytes": (Gauge,),
        "tolk_model_hits_total": (Counter,),
        "tolk_model_loads_total": (Counter,),
        "tolk_model_evictions_total": (Counter,),
        "tolk_model_failures_total": (Counter,),
        "tolk_model_load_seconds_total": (Counter,),
        "tolk_memory_bytes": (Gauge,),
        "tolk_memory_limit_bytes": (Gauge,),
        "tolk_gpu_memory_bytes": (Gauge,),
        "tolk_gpu_memory_limit_bytes": (Gauge,),
        "process_cpu_seconds_total": (Counter,),
        "process_open_fds": (Gauge,),
    },
    "rabbitmq": {
        "rabbitmq_detailed_queue_messages_unacked": (Gauge, "queue"),
        "rabbitmq_detailed_process_resident_memory_bytes": (Gauge,),
        "rabbitmq_detailed_resident_memory_limit_bytes": (Gauge,),
    },
    "flower": {"flower_worker_online": (Gauge, "worker")},
}


def names() -> set[str]:
    """The names of Tolk's metrics, as queries use them."""
    return {
        name + suffix
        for job in ("tolk-web", "tolk-worker")
        for name, (kind, *_) in METRICS[job].items()
        for suffix in (("_bucket", "_count", "_sum") if kind is Histogram else ("",))
    }


class Target:
    """A server of the metrics of one job, on a free port of loopback. `values` begin as HEALTHY; `down` answers 503."""

    def __init__(self, job: str) -> None:
        self.values = dict(HEALTHY)
        self.down = False
        self._registry = CollectorRegistry()
        self._series: list[tuple[str, Any]] = []
        for name, (kind, *labels) in METRICS[job].items():
            metric = kind(name, name, labels, registry=self._registry)
            for values in itertools.product(*(LABELS[label] for label in labels)):
                series = f"{name}{{{','.join(values)}}}" if labels else name
                self._series.append((series, metric.labels(*values) if labels else metric))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _work(self) -> None:
        for name, series in self._series:
            value = self.values.get(name, self.values.get(name.partition("{")[0], 1.0))
            if isinstance(series, Gauge):
                series.set(value)
            elif isinstance(series, Counter):
                series.inc(value)
            else:
                series.observe(value)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        target = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                target._work()
                self.send_response(503 if target.down else 200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(generate_latest(target._registry))

            def log_message(self, *_: object) -> None: ...

        return Handler
