"""Measures the service at half, once and three times the load that its workers can serve.

python -m benchmarks.overload [TIMEOUT]

Gunicorn, RabbitMQ and a Celery worker are real. The model only sleeps, so its capacity is known and the others have
the cores. Requests arrive as a Poisson process, independent of earlier answers, each on a connection of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from typing import IO

from benchmarks.path import accepts, free_port, running, verdict, wait
from launch.rabbitmq import PrivateRabbitMQ

HOUSE = Path(__file__).parents[1]
STEP, BATCH = 0.1, 4  # a step of the model takes STEP seconds and serves BATCH requests
CAPACITY = BATCH / STEP  # requests a second
LOADS = ((0.5, 10.0), (1.0, 15.0), (3.0, 25.0))  # multiples of the capacity, with their durations in seconds
TIMEOUT = 10.0  # seconds, the timeout of each request
SLACK = 0.5  # seconds after the timeout from which on an answer counts as late
PAUSE = 0.1  # seconds between two requests to /healthz

DOCUMENT = "mutation($input: TranslateInput!) { translate(input: $input) { translations { text error { code } } } }"


@dataclass(slots=True)
class Outcome:
    """The outcome of the requests of one load: the seconds that each took, by its answer's code."""

    load: float  # a multiple of the capacity
    seconds: float
    timeout: float
    took: dict[str, list[float]] = field(default_factory=dict)
    in_time: int = 0  # translations that were answered before the load ended
    retry: Counter[int] = field(default_factory=Counter)  # the number of answers by the seconds of their Retry-After
    health: list[float] = field(default_factory=list)

    @property
    def goodput(self) -> float:
        """Translations a second."""
        return self.in_time / self.seconds

    @property
    def late(self) -> int:
        return len(self.took.get("TIMEOUT", [])) + sum(each > self.timeout + SLACK for each in self.took["OK"])


def main() -> None:
    timeout = float(sys.argv[1]) if len(sys.argv) > 1 else TIMEOUT
    with TemporaryDirectory() as directory, ExitStack() as stack:
        log = stack.enter_context((Path(directory) / "log").open("w+b"))
        broker = stack.enter_context(PrivateRabbitMQ(Path(directory) / "rabbitmq", log.fileno()))
        port = start(broker.url, stack, log)
        busy = f"load average {os.getloadavg()[0]:.1f} before"
        print(f"Capacity {CAPACITY:.0f} requests/s; timeout {timeout:g} s; {busy}.\n")
        print(HEAD, flush=True)
        chance = random.Random(1)
        for load, seconds in LOADS:
            outcome = asyncio.run(offer(port, Outcome(load, seconds, timeout), chance))
            print(row(outcome), flush=True)
        print(judge(outcome))


def start(url: str, stack: ExitStack, log: IO[bytes]) -> int:
    """Starts a worker and the web tier, which end with `stack`. Returns the web tier's port when it is ready."""
    environ = {
        **os.environ,
        "CELERY_BROKER_URL": url,
        "DATABASE_URL": "sqlite://",  # a database without API keys, so none is needed
        "ECHO_STEP": str(STEP),
        "ECHO_BATCH": str(BATCH),
    }
    port = free_port()
    worker = ("celery", "-A", "echo", "--workdir", str(HOUSE / "tests" / "tasks"), "worker")
    for command in (worker, ("gunicorn",)):
        stack.enter_context(running([sys.executable, "-m", *command], {**environ, "PORT": str(port)}, log))
    wait(lambda: accepts(port) and " 200 " in asyncio.run(ask(port, get("/readyz")))[0])
    return port


async def offer(port: int, outcome: Outcome, chance: random.Random) -> Outcome:
    """Sends the requests, and returns when all have been answered."""
    variables = {"input": {"texts": ["Je vais dormir."], "target": "en", "timeout": outcome.timeout}}
    request = post(json.dumps({"query": DOCUMENT, "variables": variables}))
    loop = asyncio.get_running_loop()
    due = loop.time()
    until = due + outcome.seconds
    looking = asyncio.create_task(look(port, outcome))
    tasks = []
    while due < until:
        await asyncio.sleep(max(0.0, due - loop.time()))
        tasks.append(asyncio.create_task(translate(port, request, outcome, until)))
        due += chance.expovariate(outcome.load * CAPACITY)
    await asyncio.gather(*tasks)
    looking.cancel()
    return outcome


async def translate(port: int, request: bytes, outcome: Outcome, until: float) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        head, body = await ask(port, request)
        answer = json.loads(body)
        if errors := answer.get("errors"):
            told = errors[0]["extensions"]["code"]
        else:
            (translation,) = answer["data"]["translate"]["translations"]
            told = "OK" if translation["error"] is None else translation["error"]["code"]
    except (OSError, ValueError) as error:
        told = type(error).__name__
    now = loop.time()
    outcome.took.setdefault(told, []).append(now - began)
    if told == "OK":
        outcome.in_time += now < until and now - began < outcome.timeout + SLACK
    elif told == "OVERLOADED":
        outcome.retry[int(head.partition("retry-after:")[2].split()[0])] += 1


async def look(port: int, outcome: Outcome) -> None:
    loop = asyncio.get_running_loop()
    while True:
        began = loop.time()
        await ask(port, get("/healthz"))
        outcome.health.append(loop.time() - began)
        await asyncio.sleep(PAUSE)


async def ask(port: int, request: bytes, address: str = "127.0.0.1") -> tuple[str, bytes]:
    """Sends a request from an address of this machine. Returns the head of the answer, in lower case, and its body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    try:
        writer.write(request)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    return head.decode().lower(), body


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()


def post(body: str) -> bytes:
    return (
        "POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


HEAD = (
    "| load | offered/s | accepted/s | translated/s | refused/s | late | failed "
    "| translated, p50, p99 s | refused, p50, p99 ms | /healthz, p50, p99, max ms | Retry-After, least, p50, most s |\n"
    "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
)


def row(outcome: Outcome) -> str:
    took, seconds = outcome.took, outcome.seconds
    offered, refused = sum(map(len, took.values())), took.get("OVERLOADED", [])
    waits = sorted(outcome.retry.elements())
    cells = (
        f"{outcome.load:g} x",
        f"{offered / seconds:.1f}",
        f"{(offered - len(refused)) / seconds:.1f}",
        f"{outcome.goodput:.1f}",
        f"{len(refused) / seconds:.1f}",
        f"{outcome.late}",
        f"{sum(len(each) for told, each in took.items() if told not in ('OK', 'OVERLOADED', 'TIMEOUT'))}",
        shown(took["OK"], 1, 2),
        shown(refused, 1000, 1),
        shown(outcome.health, 1000, 1) + f", {1000 * max(outcome.health):.1f}",
        f"{waits[0]}, {waits[len(waits) // 2]}, {waits[-1]}" if waits else "",
    )
    return f"| {' | '.join(cells)} |"


def shown(times: Sequence[float], scale: float, digits: int) -> str:
    if len(times) < 2:
        return ""
    cuts = quantiles(times, n=100, method="inclusive")
    return f"{scale * cuts[49]:.{digits}f}, {scale * cuts[98]:.{digits}f}"


def judge(outcome: Outcome) -> str:
    share = outcome.goodput / CAPACITY
    return (
        f"\nAt {outcome.load:g} x: goodput {share:.0%} of the capacity, target at least 90 %: {verdict(share >= 0.9)};"
        f" late answers {outcome.late}, target none: {verdict(outcome.late == 0)}."
    )


if __name__ == "__main__":
    main()
