"""Measures jobs: their throughput, the memory of every process, and what they do to interactive requests.

python -m benchmarks.jobs [--segments N] [--large N] [MODEL ...]

Gunicorn, RabbitMQ, the worker, the results worker and the database, a file of SQLite, are real. MODEL is `embedded` or
`opus`, a model of OPUS-MT's size with seeded weights; by default both are measured. Beside a job, and without one,
short sentences are sent at random times, from another address, which is another caller.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from statistics import quantiles
from tempfile import TemporaryDirectory
from typing import IO, Any

import psutil

from benchmarks.fairness import SENTENCES
from benchmarks.opus import opus_model
from benchmarks.overload import ask, get, post
from benchmarks.path import accepts, free_port, processor, running, verdict, wait
from launch.rabbitmq import PrivateRabbitMQ
from models.local import LocalTranslator

SUBMIT = "mutation($input: SubmitInput!) { submitTranslation(input: $input) { id } }"
APPEND = (
    "mutation($id: ID!, $offset: Int!, $texts: [String!]!) "
    "{ appendTexts(jobId: $id, offset: $offset, texts: $texts) { id } }"
)
START = "mutation($id: ID!) { startJob(jobId: $id) { id } }"
CANCEL = "mutation($id: ID!) { cancelJob(id: $id) { id } }"
JOB = "query($id: ID!) { job(id: $id) { status progress { done failed } } }"
TRANSLATE = "mutation($input: TranslateInput!) { translate(input: $input) { translations { text } } }"
CALL = 2_000  # texts of a call
CHUNK, TOGETHER = 64, 8  # texts that the engine alone gets at once, and from so many threads, as of chunks of a job
RATE, SECONDS = 4.0, 15.0  # interactive requests a second, and seconds without a job
MEASURED, IDLE = "127.0.0.10", "127.0.0.11"  # addresses of the callers
SHARE = {"embedded": 0.6, "opus": 0.9}  # the least throughput, of the engine's alone
SLOWER, LATER = 2.0, 0.04  # the most by which the p95 of interactive requests may grow: a factor, or seconds
GROWTH = 100.0  # the most MB that a process may grow in a job's second half


@dataclass(frozen=True, slots=True)
class Service:
    """The processes of a service by name, and the port of its web tier."""

    port: int
    processes: dict[str, psutil.Process]

    def call(self, query: str, address: str = MEASURED, **variables: Any) -> Any:
        """The one field of the answer's data."""
        _, body = asyncio.run(ask(self.port, post(json.dumps({"query": query, "variables": variables})), address))
        answer = json.loads(body)
        if "errors" in answer:
            raise RuntimeError(answer["errors"])
        [data] = answer["data"].values()
        return data

    def submit(self, texts: Sequence[str], address: str = MEASURED) -> str:
        """Starts a job, and returns its id."""
        job = str(self.call(SUBMIT, address, input={"texts": [], "source": "fr", "target": "en", "open": True})["id"])
        for offset in range(0, len(texts), CALL):
            self.call(APPEND, address, id=job, offset=offset, texts=texts[offset : offset + CALL])
        self.call(START, address, id=job)
        return job

    def finish(self, job: str, address: str = MEASURED) -> float:
        """Waits for the end of a job. Returns when that was."""
        while (state := self.call(JOB, address, id=job))["status"] not in ("SUCCEEDED", "FAILED"):
            time.sleep(0.2)
        if state["progress"]["failed"]:
            raise RuntimeError(f"{state['progress']['failed']} texts failed")
        return time.monotonic()

    def memory(self) -> dict[str, float]:
        """The resident memory of every part, in MB."""
        return {
            name: sum(each.memory_info().rss for each in (process, *process.children(recursive=True))) / 1e6
            for name, process in self.processes.items()
        }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures jobs.")
    parser.add_argument("models", nargs="*", default=list(SHARE), metavar="MODEL")
    parser.add_argument("--segments", type=int, default=10_000)
    parser.add_argument("--large", type=int, default=100_000, help="segments of the larger one of two jobs")
    options = parser.parse_args()
    print(f"{processor()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} before.")
    for name in options.models:
        with TemporaryDirectory() as directory:
            measure(name, Path(directory), options.segments, options.large)


def measure(name: str, directory: Path, segments: int, large: int) -> None:
    reference = "fr-en"
    if name == "opus":
        reference = str(directory / "opus")
        opus_model(Path(reference), longest=12)
        segments, large = segments // 10, 0
    sentences = texts(segments)
    alone = engine_alone(reference, sentences)
    with ExitStack() as stack:
        service = start(directory, reference, stack)
        with interactive(service) as took:
            time.sleep(SECONDS)
        idle = p95(took)
        memory: list[dict[str, float]] = []
        began = time.monotonic()
        rate = segments / (service.finish(service.submit(sentences)) - began)
        with interactive(service) as took, sampled(service.memory, memory):
            began = time.monotonic()
            beside = segments / (service.finish(service.submit(sentences)) - began)
        late, half = p95(took), memory[len(memory) // 2 :]
        grown = {part: max(each[part] for each in half) - half[0][part] for part in half[0]}
        print(f"\n### {name}: a job of {segments} texts\n")
        print(f"- {rate:.0f} texts/s, {rate / alone:.2f} of the engine's {alone:.0f}", end="")
        print(f" (at least {SHARE[name]:g}: {verdict(rate >= SHARE[name] * alone)}); {beside:.0f} beside the others")
        met = late <= max(SLOWER * idle, idle + LATER)
        print(f"- p95 of interactive requests: {1000 * idle:.0f} ms without a job, {1000 * late:.0f} beside it", end="")
        print(f" (at most {SLOWER:g} x or {1000 * LATER:.0f} ms more: {verdict(met)})")
        peak = ", ".join(f"{part} {max(each[part] for each in memory):.0f}" for part in memory[0])
        print(f"- memory at most, MB: {peak}; growth in the second half:", end=" ")
        print(", ".join(f"{part} {mb:.0f}" for part, mb in grown.items()), end="")
        print(f" (at most {GROWTH:g}: {verdict(max(grown.values()) <= GROWTH)})", flush=True)
        if large:
            two_callers(service, large)


def two_callers(service: Service, large: int) -> None:
    """A job of 1,000 texts beside one of another caller: as large a one, and one of `large` texts."""
    took = []
    for size in (1_000, large):
        other = service.submit(texts(size), IDLE)
        began = time.monotonic()
        took.append(service.finish(service.submit(texts(1_000))) - began)
        service.call(CANCEL, IDLE, id=other)
    met = took[1] <= 1.25 * took[0]
    print(
        f"- a job of 1,000 texts beside another caller's of 1,000: {took[0]:.1f} s, of {large}: {took[1]:.1f} s", end=""
    )
    print(f" (at most 1.25 x: {verdict(met)})", flush=True)


def texts(number: int) -> list[str]:
    """Sentences of which none occurs twice."""
    return [f"Numéro {i} : {each}" for i, each in zip(range(number), itertools.cycle(SENTENCES), strict=False)]


def engine_alone(reference: str, sentences: Sequence[str]) -> float:
    """The texts a second of a worker's engine without a service, from as many threads as a worker gives to jobs."""
    chunks: SimpleQueue[list[str]] = SimpleQueue()
    for first in range(0, len(sentences), CHUNK):
        chunks.put(list(sentences[first : first + CHUNK]))
    with LocalTranslator.load(reference) as translator:
        translator.warm_up()

        def work() -> None:
            try:
                while True:
                    translator.translate(chunks.get_nowait(), priority="bulk")
            except Empty:
                return

        threads = [threading.Thread(target=work) for _ in range(TOGETHER)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(sentences) / (time.monotonic() - began)


def start(directory: Path, reference: str, stack: ExitStack) -> Service:
    """Starts the service, which ends with `stack`. Returns when it is ready."""
    log: IO[bytes] = stack.enter_context((directory / "log").open("w+b"))
    broker = stack.enter_context(PrivateRabbitMQ(directory / "rabbitmq", log.fileno()))
    pairs = 'pairs = [{ source = "fr", target = "en" }]'
    (directory / "models.toml").write_text(f"[models.fr-en]\nreference = {json.dumps(reference)}\n{pairs}\n")
    port = free_port()
    environ = {
        **os.environ,
        "CELERY_BROKER_URL": broker.url,
        "DATABASE_URL": f"sqlite:///{directory / 'tolk.sqlite'}",
        "TOLK_MODELS": str(directory / "models.toml"),
        "PORT": str(port),
    }
    commands = {
        "web": ("gunicorn",),
        "worker": ("celery", "-A", "tasks", "worker"),
        "results worker": ("celery", "-A", "app.jobs.results", "worker"),
    }
    processes = {
        name: stack.enter_context(running([sys.executable, "-m", *command], environ, log))
        for name, command in commands.items()
    }
    wait(lambda: accepts(port) and " 200 " in asyncio.run(ask(port, get("/readyz")))[0], 120)
    if broker.process is not None:
        processes["RabbitMQ"] = psutil.Process(broker.process.pid)
    return Service(port, processes)


@contextmanager
def interactive(service: Service) -> Iterator[list[float]]:
    """Sends short requests at random times meanwhile. The seconds that each took are complete when it ends."""
    took: list[float] = []
    stop, chance = threading.Event(), random.Random(0)

    async def one(sentence: str) -> None:
        began = time.monotonic()
        request = {"texts": [sentence], "source": "fr", "target": "en"}
        _, body = await ask(service.port, post(json.dumps({"query": TRANSLATE, "variables": {"input": request}})), IDLE)
        if "errors" in (answer := json.loads(body)):
            raise RuntimeError(answer["errors"])
        took.append(time.monotonic() - began)

    async def offer() -> None:
        async with asyncio.TaskGroup() as group:
            for sentence in itertools.cycle(SENTENCES):
                if stop.is_set():
                    return
                group.create_task(one(sentence))
                await asyncio.sleep(chance.expovariate(RATE))

    with _thread(lambda: asyncio.run(offer()), stop):
        yield took


@contextmanager
def sampled(measured: Callable[[], dict[str, float]], samples: list[dict[str, float]]) -> Iterator[None]:
    stop = threading.Event()

    def sample() -> None:
        while True:
            samples.append(measured())
            if stop.wait(0.5):
                return

    with _thread(sample, stop):
        yield


@contextmanager
def _thread(work: Callable[[], None], stop: threading.Event) -> Iterator[None]:
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def p95(took: Sequence[float]) -> float:
    return quantiles(took, n=20, method="inclusive")[-1]


if __name__ == "__main__":
    main()
