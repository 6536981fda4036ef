"""Measures how requests a second grow with the number of workers.

python -m benchmarks.scaling [--workers 1,2,4] [--step SECONDS] [--rounds N] [--seconds S]

Gunicorn, RabbitMQ and the Celery workers are real. The model only sleeps, so its capacity is known and the others have
the cores: a worker takes `step` seconds for a request. Every round starts the workers one after the other, and measures
with each number of them a closed loop of clients, as many for each worker. The reported numbers are medians.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import IO

import psutil

from benchmarks.overload import HOUSE, ask, get
from benchmarks.path import accepts, cpu, describe, free_port, http_load, running, verdict, wait
from launch.rabbitmq import PrivateRabbitMQ

CLIENTS = 16  # for each worker
WARM_UP = 1.0  # seconds before each measurement
LINEAR = 0.95  # the least share of the growth that would be linear


@dataclass(frozen=True, slots=True)
class Sample:
    """Requests a second, and milliseconds: of a request, and of CPU per request of the web tier, of the workers
    together, and of the broker."""

    rate: float
    p50: float
    p99: float
    web: float
    workers: float
    broker: float


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures how requests a second grow with the number of workers.")
    parser.add_argument("--workers", default="1,2,4", help="numbers of workers, ascending")
    parser.add_argument("--step", type=float, default=0.02, help="seconds that a worker takes for a request")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    options = parser.parse_args()
    numbers = [int(number) for number in options.workers.split(",")]
    with TemporaryDirectory() as directory, ExitStack() as stack:
        log = stack.enter_context((Path(directory) / "log").open("w+b"))
        broker = stack.enter_context(PrivateRabbitMQ(Path(directory) / "rabbitmq", log.fileno()))
        node = psutil.Process(broker.process.pid) if broker.process else None
        print(f"{options.rounds} rounds of {options.seconds:g} s, a step of {1000 * options.step:g} ms.", end=" ")
        print(describe(broker.url), flush=True)
        samples: dict[int, list[Sample]] = {number: [] for number in numbers}
        for _ in range(options.rounds):
            with Scene(broker.url, options.step, log) as scene:
                for number in numbers:
                    samples[number].append(scene.measure(number, options.seconds, node))
    print(table(samples))


class Scene:
    """The web tier with workers, of which each serves one request in `step` seconds; they end with the context."""

    def __init__(self, url: str, step: float, log: IO[bytes]) -> None:
        # A database in memory has no API keys, so none is needed.
        echo = {"ECHO_STEP": str(step), "ECHO_BATCH": "1"}
        self.environ = {**os.environ, "CELERY_BROKER_URL": url, "DATABASE_URL": "sqlite://", **echo}
        self.log = log
        self.port = free_port()
        self.workers: list[psutil.Process] = []
        self.stack = ExitStack()

    def __enter__(self) -> Scene:
        with closing(self.stack):  # in case it does not start
            gunicorn = [sys.executable, "-m", "gunicorn"]
            self.web = self.stack.enter_context(running(gunicorn, {**self.environ, "PORT": str(self.port)}, self.log))
            wait(lambda: accepts(self.port))
            self.stack = self.stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def measure(self, number: int, seconds: float, node: psutil.Process | None) -> Sample:
        """The sample of so many workers, of which those that are missing are started."""
        while len(self.workers) < number:
            self.workers.append(self._start())
        load = http_load(self.port)
        load(CLIENTS * number, WARM_UP)
        parts = ([self.web], self.workers, [node] if node else [])
        before = [sum(map(cpu, part)) for part in parts]
        took = load(CLIENTS * number, seconds)
        spent = [1000 * (sum(map(cpu, part)) - at) / len(took) for part, at in zip(parts, before, strict=True)]
        # Little's law for a closed loop, whatever is left at the end.
        rate = CLIENTS * number / (sum(took) / len(took))
        return Sample(rate, 1000 * median(took), 1000 * quantiles(took, n=100)[98], *spent)

    def _start(self) -> psutil.Process:
        port = free_port()
        command = ("celery", "-A", "echo", "--workdir", str(HOUSE / "tests" / "tasks"), "worker")
        name = ("--hostname", f"worker-{len(self.workers)}@%h")
        environ = {**self.environ, "TOLK_METRICS": f"127.0.0.1:{port}"}
        process = self.stack.enter_context(running([sys.executable, "-m", *command, *name], environ, self.log))
        wait(lambda: accepts(port) and " 200 " in asyncio.run(ask(port, get("/healthz")))[0])
        return process


def table(samples: dict[int, list[Sample]]) -> str:
    lines = [
        "| workers | requests/s | growth | linear | p50 ms | p99 ms | CPU ms a request: web | workers | broker | |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    least = min(samples)
    for number, taken in samples.items():
        grown = median(each.rate / one.rate for each, one in zip(taken, samples[least], strict=True))
        cells = [f"{median(getattr(each, name) for each in taken):.1f}" for name in ("rate", "p50", "p99")]
        costs = [f"{median(getattr(each, name) for each in taken):.2f}" for name in ("web", "workers", "broker")]
        linear = number / least
        row = [
            str(number),
            cells[0],
            f"{grown:.2f}",
            f"{linear:g}",
            *cells[1:],
            *costs,
            verdict(grown >= LINEAR * linear),
        ]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
