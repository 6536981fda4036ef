"""The web tier's metrics for Prometheus: requests, their stages, and the state of queues and workers.

All processes of one gunicorn count together, in shared files (prometheus_client's multiprocess mode). A new process
takes over the files of one that has ended, so that there are never more files than processes and no count is lost. The
state of queues and workers is measured at each scrape. The names follow
https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest, values
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from typing_extensions import override

from app.monitoring.status import Status
from tasks.contract.errors import Code, TolkError
from telemetry.address import Address
from telemetry.tracing import Span

OK = "OK"
# The stages of a translation: in the web tier, in the queue, in the worker, and on the way back.
STAGES = ("admission", "publish", "queue", "load", "wait", "prefill", "decode", "reply")
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class WebMetrics:
    """Counts requests, and writes the counts and the state of queues and workers in Prometheus' text format."""

    CONTENT_TYPE = CONTENT_TYPE_LATEST

    def __init__(
        self,
        status: Callable[[], Status],
        address: Address,
        directory: Path | None,
        jobs: Callable[[], Mapping[str, tuple[int, int]]] = dict,
    ) -> None:
        """`status` returns the state of queues and workers; `address` is where the metrics are served. `jobs` returns,
        by the status of jobs, how many there are, and how many of their texts have no outcome.

        Processes share their counts in `directory`, which is made if it is missing. A single process needs none.
        """
        if directory is not None:  # a clean-up of /tmp may have deleted it
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _share(directory)
        self.address = address
        self._shown = (_QueueCollector(status), _JobCollector(jobs))
        self._directory = directory
        self._registry = registry = CollectorRegistry()
        requests = Counter("tolk_requests", "GraphQL requests, by outcome.", ["code"], registry=registry)
        self._seconds = Histogram("tolk_request_seconds", "A GraphQL request.", buckets=SECONDS, registry=registry)
        stages = Histogram(
            "tolk_stage_seconds", "A stage of a translation.", ["stage"], buckets=SECONDS, registry=registry
        )
        self._texts = Counter("tolk_texts", "Texts that were asked to be translated.", registry=registry)
        self._characters = Counter("tolk_characters", "Characters of these.", registry=registry)
        # All label values exist from the start, because a rate needs to have seen the zero.
        self._by_code = {str(code): requests.labels(code) for code in (OK, *Code)}
        self._by_stage = {stage: stages.labels(stage) for stage in STAGES}

    def count(self, trace: Span) -> None:
        """Counts a finished request by its trace."""
        self._by_code[str(trace.attributes.get("code", OK))].inc()
        self._seconds.observe(trace.duration)
        self._texts.inc(float(trace.attributes.get("texts", 0)))
        self._characters.inc(float(trace.attributes.get("characters", 0)))
        for _, span in trace.walk():
            if (stage := self._by_stage.get(span.name)) is not None:
                stage.observe(span.duration)

    def text(self) -> bytes:
        """All metrics, in Prometheus' text format. Takes as long as `status` takes."""
        registry = self._registry
        if self._directory is not None:
            registry = CollectorRegistry()
            collector: Any = MultiProcessCollector
            collector(registry, str(self._directory))
        counted: bytes = generate_latest(registry)
        shown = CollectorRegistry()
        for collected in self._shown:
            shown.register(collected)
        return counted + generate_latest(shown)


def _share(directory: Path) -> None:
    """Makes this process count in the files of the lowest number that no other process holds. A file lock holds the
    number until the process ends, however it ends."""
    for number in count():
        held = os.open(directory / f"{number}.lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(held)
        else:
            break
    of_numbers: Any = values.MultiProcessValue
    values.ValueClass = of_numbers(lambda: number)


class _QueueCollector(Collector):
    """Collects the metrics of queues and workers from the status."""

    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status

    @override
    def collect(self) -> Iterator[Metric]:
        status = self._status()
        yield _gauge("tolk_broker_up", "Whether the message broker answers.", float(bool(status.broker)))
        yield _gauge("tolk_workers", "Workers that answer.", len(status.workers))
        yield _gauge("tolk_in_flight", "Translations that web processes wait for.", status.in_flight)
        if status.dead_letters is not None:
            yield _gauge("tolk_dead_letters", "Messages that no worker could process.", status.dead_letters)
        if status.job_workers is not None:
            yield _gauge("tolk_job_workers", "Results workers, without which jobs stand still.", status.job_workers)
        yield _by_queue(
            "tolk_queue_messages",
            "Messages that wait for a worker, each with one request or several.",
            {name: queue.depth for name, queue in status.queues.items()},
        )
        yield _by_queue(
            "tolk_queue_consumers",
            "Workers that take a queue's messages.",
            {name: queue.workers for name, queue in status.queues.items()},
        )
        yield _by_queue(
            "tolk_queue_age_seconds",
            "Seconds that a queue's oldest translation has waited.",
            _ages(status),
        )


class _JobCollector(Collector):
    """Collects the metrics of jobs from the database; none while it does not answer."""

    def __init__(self, jobs: Callable[[], Mapping[str, tuple[int, int]]]) -> None:
        self._jobs = jobs

    @override
    def collect(self) -> Iterator[Metric]:
        with suppress(TolkError):
            by_status = self._jobs()
            jobs = GaugeMetricFamily("tolk_jobs", "Jobs that are kept, by status.", labels=["status"])
            texts = GaugeMetricFamily("tolk_job_texts", "Texts of these that have no outcome.", labels=["status"])
            for status, (count, left) in by_status.items():
                jobs.add_metric([status], count)
                texts.add_metric([status], left)
            yield jobs
            yield texts


def _ages(status: Status) -> dict[str, float]:
    """By queue, seconds that its oldest translation has waited; 0 for a queue without waiting translations."""
    now = time.time()
    return dict.fromkeys(status.queues, 0.0) | {name: max(0.0, now - since) for name, since in status.oldest.items()}


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, value=value)


def _by_queue(name: str, documentation: str, values: dict[str, float]) -> Metric:
    family = GaugeMetricFamily(name, documentation, labels=["queue"])
    for queue, value in values.items():
        family.add_metric([queue], value)
    return family
