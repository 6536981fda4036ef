"""Measures what one flooding caller does to twenty small ones, and what they leave it.

python -m benchmarks.fairness [NAME ...]

Gunicorn, RabbitMQ, the worker and the embedded model are real. Every caller has an address of its own (127.0.0.N), by
which the service shares itself among callers without API keys. Each small caller sends a short sentence about once a
second. The flood sends as much as it can, and when it is refused asks again a second later, whatever Retry-After says.
NAME are kinds of floods, by default all.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory

from benchmarks.overload import HOUSE, ask, get, post
from benchmarks.path import accepts, free_port, processor, running, verdict, wait
from launch.rabbitmq import PrivateRabbitMQ

SENTENCES = (HOUSE / "tests" / "data" / "sentences.fr").read_text(encoding="utf-8").splitlines()
MODELS = """
[models.fr-en]
reference = "fr-en"
pairs = [{ source = "fr", target = "en" }, { source = "da", target = "en" }]
decoding = { beam = 4, length_penalty = 1.0 }
"""
DOCUMENT = "mutation($input: TranslateInput!) { translate(input: $input) { translations { text error { code } } } }"
CALLERS = 20
PAUSE = 1.0  # seconds between two requests of a small caller, in the mean
AGAIN = 1.0  # seconds after which the flood sends a refused request again, the least that Retry-After says
SECONDS = 10.0  # of each measurement
SETTLES = 3.0  # seconds of a flood before it is measured
SLOWER, LEFT = 3.0, 0.9  # the most that small callers' p99 may grow, and the least share of throughput


@dataclass(frozen=True, slots=True)
class Flood:
    """The requests of a flooding caller, over so many connections. `texts` makes those of the next request."""

    what: str
    connections: int
    texts: Callable[[Iterator[int]], list[str]]
    source: str = "fr"
    timeout: float = 60.0


def prose(characters: int) -> Callable[[Iterator[int]], list[str]]:
    """Texts of so many characters together, at most 20,000 each, in which no sentence occurs twice."""

    def text(numbers: Iterator[int], most: int) -> str:
        made = ""
        while len(piece := f"Numéro {next(numbers)} : {next(sentences)} ") + len(made) <= most:
            made += piece
        return made or piece[:most]

    sentences = itertools.cycle(SENTENCES)
    sizes = [min(20_000, characters - begun) for begun in range(0, characters, 20_000)]
    return lambda numbers: [text(numbers, most) for most in sizes]


def repeated(piece: str) -> Callable[[Iterator[int]], list[str]]:
    return lambda _: [(piece * 20_000)[:20_000]] * 5


FLOODS = {
    "large": Flood("12 x 100,000 characters", 12, prose(100_000)),
    "medium": Flood("32 x 3,000 characters", 32, prose(3_000)),
    "many": Flood("96 x one sentence", 96, prose(120)),
    "danish": Flood("24 x 100,000 characters of Danish full stops, 3 s", 24, repeated("a. "), "da", 3.0),
    "ligatures": Flood("24 x 100,000 x U+FDFA, 3 s", 24, repeated("\ufdfa"), "fr", 3.0),
}


@dataclass(slots=True)
class Outcome:
    """What became of requests: the seconds that each took, by its answer's code."""

    took: dict[str, list[float]] = field(default_factory=dict)

    @property
    def p50(self) -> float:
        return self._cut(49)

    @property
    def p99(self) -> float:
        return self._cut(98)

    @property
    def failed(self) -> dict[str, int]:
        return {told: len(took) for told, took in self.took.items() if told != "OK"}

    def _cut(self, number: int) -> float:
        return quantiles(self.took.get("OK") or [0.0, 0.0], n=100, method="inclusive")[number]


@dataclass(frozen=True, slots=True)
class Service:
    port: int
    metrics: int

    async def tokens(self) -> float:
        """Source tokens of the sentences that the worker has translated so far."""
        _, body = await ask(self.metrics, get("/metrics"))
        return sum(float(found) for found in re.findall(r"^tolk_source_tokens_total\S* (\S+)$", body.decode(), re.M))


def main() -> None:
    names = sys.argv[1:] or list(FLOODS)
    with TemporaryDirectory() as directory, ExitStack() as stack:
        service = start(Path(directory), stack)
        print(f"{processor()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} before.\n")
        asyncio.run(measure(service, None, CALLERS))  # the first requests of everybody are slower
        idle, _, _ = asyncio.run(measure(service, None, CALLERS))
        print(HEAD, row("no flood", idle, idle, Outcome(), None), sep="\n", flush=True)
        met = True
        for name in names:
            _, _, alone = asyncio.run(measure(service, FLOODS[name], 0))
            small, flood, together = asyncio.run(measure(service, FLOODS[name], CALLERS))
            left = together / alone if alone else None
            print(row(FLOODS[name].what, small, idle, flood, left), flush=True)
            met &= small.p99 <= SLOWER * idle.p99 and not small.failed and (left is None or left >= LEFT)
        print(f"\np99 at most {SLOWER:g} x that without a flood, nobody refused, throughput at least {LEFT:.0%} of the")
        print(f"flood's alone: {verdict(met)}.")


def start(directory: Path, stack: ExitStack) -> Service:
    """Starts the service, which ends with `stack`. Returns its ports when it is ready."""
    log = stack.enter_context((directory / "log").open("w+b"))
    broker = stack.enter_context(PrivateRabbitMQ(directory / "rabbitmq", log.fileno()))
    (directory / "models.toml").write_text(MODELS, encoding="utf-8")
    service = Service(free_port(), free_port())
    environ = {
        **os.environ,
        "CELERY_BROKER_URL": broker.url,
        "DATABASE_URL": "sqlite://",  # a database without API keys, so none is needed
        "TOLK_MODELS": str(directory / "models.toml"),
        "PORT": str(service.port),
    }
    metrics = f"--metrics=127.0.0.1:{service.metrics}"
    for command in (("celery", "-A", "tasks", "worker", metrics), ("gunicorn",)):
        stack.enter_context(running([sys.executable, "-m", *command], environ, log))
    ready = get("/readyz")
    wait(lambda: accepts(service.port) and " 200 " in asyncio.run(ask(service.port, ready))[0], 120)
    return service


async def measure(service: Service, flood: Flood | None, callers: int) -> tuple[Outcome, Outcome, float]:
    """What became of the small callers' requests and of the flood's, and source tokens a second of all of them."""
    small, large = Outcome(), Outcome()
    flooding = asyncio.create_task(run_flood(service, flood, large)) if flood else None
    if flood:
        await asyncio.sleep(SETTLES)
    before = await service.tokens()
    began = asyncio.get_running_loop().time()
    await asyncio.gather(*(run_small(service, number, small) for number in range(callers)), asyncio.sleep(SECONDS))
    seconds = asyncio.get_running_loop().time() - began
    pace = (await service.tokens() - before) / seconds
    if flooding:
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)
        await asyncio.sleep(SETTLES)  # what hung up is cancelled
    return small, large, pace


async def run_small(service: Service, number: int, outcome: Outcome) -> None:
    loop, chance = asyncio.get_running_loop(), random.Random(number)
    until = loop.time() + SECONDS
    for sentence in itertools.cycle(SENTENCES[number * 10 :]):
        await asyncio.sleep(chance.uniform(0.5, 1.5) * PAUSE)
        if loop.time() > until:
            return
        await translate(service, [sentence], "fr", 10.0, f"127.0.0.{number + 10}", outcome)


async def run_flood(service: Service, flood: Flood, outcome: Outcome) -> None:
    numbers = itertools.count()

    async def client() -> None:
        while True:
            texts = flood.texts(numbers)
            while await translate(service, texts, flood.source, flood.timeout, "127.0.0.2", outcome) != "OK":
                await asyncio.sleep(AGAIN)

    async with asyncio.TaskGroup() as group:
        for _ in range(flood.connections):
            group.create_task(client())


async def translate(
    service: Service, texts: Sequence[str], source: str, timeout: float, address: str, outcome: Outcome
) -> str:
    """Asks for translations. Returns, and counts, OK or the code of the error."""
    began = asyncio.get_running_loop().time()
    variables = {"input": {"texts": texts, "source": source, "target": "en", "timeout": timeout}}
    _, body = await ask(service.port, post(json.dumps({"query": DOCUMENT, "variables": variables})), address)
    answer = json.loads(body)
    if errors := answer.get("errors"):
        told = str(errors[0]["extensions"]["code"])
    else:
        failed = Counter(each["error"]["code"] for each in answer["data"]["translate"]["translations"] if each["error"])
        told = next(iter(failed), "OK")
    outcome.took.setdefault(told, []).append(asyncio.get_running_loop().time() - began)
    return told


HEAD = (
    "| the flood | small callers: p50, p99 ms | p99, ratio | failed | the flood's answers | throughput left |\n"
    "| --- | ---: | ---: | ---: | --- | ---: |"
)


def row(what: str, small: Outcome, idle: Outcome, flood: Outcome, left: float | None) -> str:
    failed = sum(small.failed.values())
    told = ", ".join(f"{len(took)} {name}" for name, took in sorted(flood.took.items()))
    latencies = f"{1000 * small.p50:.0f}, {1000 * small.p99:.0f}"
    share = "" if left is None else f"{left:.2f}"
    return f"| {what} | {latencies} | {small.p99 / idle.p99:.1f} | {failed} | {told} | {share} |"


if __name__ == "__main__":
    main()
