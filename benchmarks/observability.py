"""Measures the cost of logs, traces and metrics: the same requests with none, with all, and with OTLP export.

python -m benchmarks.observability

Each side is a whole service of its own with the default model: a RabbitMQ, a worker, gunicorn. Every round measures all
sides, one after the other, in changing order. The benchmark prints the medians of the ratios within the rounds, and
intervals that hold the median with a confidence of at least 95 %, by order statistics.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from math import comb
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import IO

import psutil

from benchmarks.path import (
    Load,
    Sample,
    Stage,
    answers,
    describe,
    free_port,
    http_load,
    measure,
    running,
    verdict,
    wait,
)
from launch.rabbitmq import PrivateRabbitMQ

HOUSE = Path(__file__).parents[1]
CLIENTS = (1, 16)
ROUNDS = 30
ATTEMPTS = 5
WANTED = 1.03
TEXT, TRANSLATION = "Je voudrais savoir à quelle heure part le train.", "train"
COLLECTOR = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"])); self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
ThreadingHTTPServer(("127.0.0.1", {port}), Handler).serve_forever()
"""


@dataclass(frozen=True, slots=True)
class Side:
    """A service: the Stage that is measured, and its broker."""

    stage: Stage
    node: psutil.Process


def main() -> None:
    with TemporaryDirectory() as directory, ExitStack() as stack:
        log = stack.enter_context((Path(directory) / "log").open("w+b"))
        collector = free_port()
        stack.enter_context(running([sys.executable, "-c", COLLECTOR.format(port=collector)], {**os.environ}, log))
        told = {"TOLK_LOG_LEVEL": "info", "TOLK_LOG_FORMAT": "json"}
        exported = told | {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector}"}
        sampled = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.05"}
        settings = {
            "nothing": {"TOLK_LOG_LEVEL": "warning", "TOLK_TRACES": "off"},
            "all": told,
            "all, and OTLP": exported,
            "all, and OTLP of one in 20": exported | sampled,
        }
        try:
            sides = {
                name: start(Path(directory, name), environ, stack, log, metrics=environ is not settings["nothing"])
                for name, environ in settings.items()
            }
        except TimeoutError as error:
            log.seek(0)
            sys.exit(f"{error}\n{log.read().decode(errors='replace')}")
        for side in sides.values():
            for clients in CLIENTS:
                measure_again(side, clients)
        rounds = [measure_round(sides, number) for number in range(ROUNDS)]
    print(report(list(sides), rounds))


def start(directory: Path, environ: dict[str, str], stack: ExitStack, log: IO[bytes], *, metrics: bool) -> Side:
    """Starts a service, which ends with `stack`. Returns when it translates."""
    directory.mkdir()
    broker = stack.enter_context(PrivateRabbitMQ(directory / "rabbitmq", log.fileno()))
    if not metrics:
        print(f"{ROUNDS} pairs.", describe(broker.url), flush=True)
    port = free_port()
    environ = {"TOLK_TRACES": str(directory / "traces"), **os.environ, **environ}
    environ |= {"CELERY_BROKER_URL": broker.url, "DATABASE_URL": "sqlite://", "PORT": str(port)}

    def run(*command: str) -> psutil.Process:
        ours = environ | ({"TOLK_METRICS": f"127.0.0.1:{free_port()}"} if metrics else {})
        return stack.enter_context(running([sys.executable, "-m", *command], ours, log))

    worker, web = run("celery", "-A", "tasks", "worker"), run("gunicorn")
    load: Load = http_load(port, TEXT, TRANSLATION)
    wait(lambda: answers(lambda: load(1, 0.0)), 120)
    assert broker.process is not None
    return Side(Stage(directory.name, load, web, worker), psutil.Process(broker.process.pid))


def measure_round(sides: dict[str, Side], number: int) -> dict[tuple[str, int], Sample]:
    """Measures all sides. The side that is first changes from round to round."""
    names = [*sides][number % len(sides) :] + [*sides][: number % len(sides)]
    return {(name, clients): measure_again(sides[name], clients) for clients in CLIENTS for name in names}


def measure_again(side: Side, clients: int) -> Sample:
    """Measures a side, again if requests are refused, at most ATTEMPTS times.

    A web process that was idle has no recent measure of the workers' speed, and may refuse some requests at first.
    """
    for _ in range(ATTEMPTS - 1):
        with suppress(RuntimeError):
            return measure(side.stage, clients, side.node)
    return measure(side.stage, clients, side.node)


def report(names: list[str], rounds: list[dict[tuple[str, int], Sample]]) -> str:
    nothing, *others = names
    lines = [
        "| clients | told | p50 ms | CPU ms a request: web | worker | p50, to nothing's | CPU of both, to nothing's |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for clients in CLIENTS:
        for name in names:
            samples = [each[name, clients] for each in rounds]
            p50, web, worker = (
                median(found)
                for found in zip(*((each.p50, each.cpu["web"], each.cpu["worker"]) for each in samples), strict=True)
            )
            ratios = ["", ""]
            if name in others:
                pairs = [(each[name, clients], each[nothing, clients]) for each in rounds]
                ratios = [interval([one.p50 / other.p50 for one, other in pairs])]
                ratios.append(interval([cpu(one) / cpu(other) for one, other in pairs]))
            lines.append(f"| {clients} | {name} | {p50:.2f} | {web:.2f} | {worker:.2f} | {ratios[0]} | {ratios[1]} |")
    found = median(each["all", 1].p50 / each[nothing, 1].p50 for each in rounds)
    lines.append(f"\nWith all, at one client: {found:.3f}; target at most {WANTED}: {verdict(found <= WANTED)}.")
    return "\n".join(lines)


def cpu(sample: Sample) -> float:
    return sample.cpu["web"] + sample.cpu["worker"]


def interval(ratios: list[float]) -> str:
    """The median of the ratios, and the interval in which it lies with a confidence of at least 95 %."""
    ranked, count = sorted(ratios), len(ratios)
    outside = 0  # the number of ratios at each end that lie outside of the interval
    while 2 * sum(comb(count, below) for below in range(outside + 1)) / 2**count <= 0.05:
        outside += 1
    low, high = ranked[max(0, outside - 1)], ranked[count - max(1, outside)]
    return f"{median(ranked):.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()
