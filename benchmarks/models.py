"""A thousand models on demand, one worker that has memory for a hundred: who asks for them waits how long?

python -m benchmarks.models [REQUESTS]

RabbitMQ, the Celery worker and the models are real. There are 50 of the latter on disk, the embedded one with seeded
noise on its weights, and 1,000 names for them, each of which is a model of its own to the worker. The names are asked
for as often as Zipf's law has it (the n-th of them 1/n times as often as the first), by 16 clients, each of which asks
again when it is answered. Then the ten most popular alone, for what a translation takes where nothing is loaded.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory

import psutil
import torch
from safetensors.torch import load_file, save_file

from app.broker.rpc import CeleryTranslator
from app.translation.translate import ask_models
from benchmarks.path import answers, describe, running, verdict, wait
from launch.rabbitmq import PrivateRabbitMQ
from tasks.contract.errors import TolkError
from tasks.contract.request import RequestOptions, TranslateRequest
from tasks.registry.file import RegistryFile

HOUSE = Path(__file__).parents[1]
EMBEDDED = HOUSE / "models" / "embedded" / "fr-en"
NAMES, DIRECTORIES, IN_MEMORY = 1_000, 50, 100
REQUESTS, CLIENTS, HOT, COLD = 3_000, 16, 10, 50
TIMEOUT = 30.0  # seconds
PACE = 0.1  # seconds
TEXT = "Je vais dormir."
NOISE = 1e-3  # of a weight
LOADED = 1e-3  # seconds: less was no load


@dataclass(slots=True)
class Outcome:
    """What became of the requests: seconds that each took, by whether its model was in memory, and of loading."""

    hits: list[float] = field(default_factory=list)
    misses: list[float] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)  # who asks the most popular model
    resident: list[int] = field(default_factory=list)  # bytes of the worker, every tenth of a second
    seconds: float = 0.0

    @property
    def hit_rate(self) -> float:
        return len(self.hits) / (len(self.hits) + len(self.misses))


def main() -> None:
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else REQUESTS
    with TemporaryDirectory() as directory, ExitStack() as stack:
        models = write_models(Path(directory))
        log = stack.enter_context((Path(directory) / "log").open("w+b"))
        broker = stack.enter_context(PrivateRabbitMQ(Path(directory) / "rabbitmq", log.fileno()))
        each = footprint()
        budget = IN_MEMORY * each
        environ = {
            **os.environ,
            "CELERY_BROKER_URL": broker.url,
            "TOLK_MODELS": str(models),
            "TOLK_MEMORY": str(budget),
        }
        print(describe(broker.url))
        worker = stack.enter_context(running([sys.executable, "-m", "celery", "-A", "tasks", "worker"], environ, log))
        translator = CeleryTranslator.from_config(RegistryFile(models), broker.url)
        stack.callback(translator.close)
        wait(lambda: answers(translator.check))
        ask(translator, 0, TEXT, Outcome())  # with the first model comes what is there once for all of them
        empty = worker.memory_info().rss - each
        asked = list(popularity(requests, random.Random(1)))
        mixed = offer(translator, worker, asked)
        hot = offer(translator, worker, [name for name in asked if name < HOT][: requests // 4])
        cold = Outcome()
        for name in range(NAMES - COLD, NAMES):
            ask(translator, name, TEXT, cold)
    print(report(mixed, hot, cold, empty, budget, ideal_hit_rate(asked)))


def write_models(directory: Path) -> Path:
    """models.toml and what it names."""
    weights = load_file(EMBEDDED / "model.safetensors")
    for number in range(DIRECTORIES):
        chance = torch.Generator().manual_seed(number)
        copy = shutil.copytree(EMBEDDED, directory / f"model-{number}")
        noisy = {
            name: (w * (1 + NOISE * torch.randn(w.shape, generator=chance))).to(w.dtype) for name, w in weights.items()
        }
        save_file(noisy, copy / "model.safetensors")
    entries = (
        f'[models.customer-{name}]\nreference = "./model-{name % DIRECTORIES}"\nwarm = false\n'
        'pairs = [{ source = "fr", target = "en" }]\n'
        for name in range(NAMES)
    )
    path = directory / "models.toml"
    path.write_text("\n".join(entries))
    return path


def footprint() -> int:
    """Bytes that one of them takes, as the worker counts."""
    from models.local import LocalTranslator

    with LocalTranslator.load("fr-en") as translator:
        return translator.bytes


def popularity(requests: int, chance: random.Random) -> Iterator[int]:
    """Names by Zipf's law."""
    weights = [1 / (rank + 1) for rank in range(NAMES)]
    yield from chance.choices(range(NAMES), weights, k=requests)


def offer(translator: CeleryTranslator, worker: psutil.Process, names: Sequence[int]) -> Outcome:
    """Asks for all of them; returns when all are answered."""
    outcome = Outcome()
    texts = itertools.cycle((HOUSE / "tests" / "data" / "sentences.fr").read_text(encoding="utf-8").splitlines())
    work = iter(list(zip(names, texts, strict=False)))
    taking, over = threading.Lock(), threading.Event()

    def client() -> None:
        while True:
            with taking:
                if (piece := next(work, None)) is None:
                    return
            ask(translator, *piece, outcome)

    def watch() -> None:
        aside = Outcome()
        while not over.wait(PACE):
            ask(translator, 0, TEXT, aside)
            outcome.resident.append(worker.memory_info().rss)
        outcome.beside, outcome.errors = aside.hits, outcome.errors + aside.errors

    began = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS + 1) as pool:
        pool.submit(watch)
        for each in [pool.submit(client) for _ in range(CLIENTS)]:
            each.result()
        outcome.seconds = time.perf_counter() - began
        over.set()  # and the pool waits for who watches
    return outcome


def ask(translator: CeleryTranslator, name: int, text: str, outcome: Outcome) -> None:
    request = TranslateRequest(
        texts=(text,),
        source="fr",
        target="en",
        model=f"customer-{name}",
        options=RequestOptions(beam=4),
        deadline=time.time() + TIMEOUT,
    )
    began = time.perf_counter()
    try:
        reply = ask_models(translator, f"{name}-{began}", [request])
    except TolkError as error:
        outcome.errors.append(error.code)
        return
    took = time.perf_counter() - began
    if reply.timings.load > LOADED:
        outcome.misses.append(took)
        outcome.loads.append(reply.timings.load)
    else:
        outcome.hits.append(took)


def ideal_hit_rate(names: Sequence[int]) -> float:
    """Of a cache of as many models from which the least recently used goes, one request after the other."""
    cache: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for name in names:
        hits += name in cache
        cache[name] = None
        cache.move_to_end(name)
        if len(cache) > IN_MEMORY:
            cache.popitem(last=False)
    return hits / len(names)


def report(mixed: Outcome, hot: Outcome, cold: Outcome, empty: int, budget: int, ideal: float) -> str:
    highest = max(mixed.resident) - empty
    rows = [
        ("requests, of which answered with an error", f"{len(mixed.hits) + len(mixed.misses)}, {len(mixed.errors)}"),
        ("model was in memory", f"{mixed.hit_rate:.1%} (an ideal LRU cache of {IN_MEMORY}: {ideal:.1%})"),
        ("loading one, nobody else asks, p50, p99 ms", shown(cold.loads)),
        ("wait for a model that is not in memory, p50, p99 ms", shown(mixed.loads)),
        ("a translation with such a wait, p50, p99 ms", shown(mixed.misses)),
        ("a translation without, p50, p99 ms", shown(mixed.hits)),
        ("the most popular model, now and then, p50, p99 ms", shown(mixed.beside)),
        (f"the same, while others ask the {HOT} most popular and nothing loads, p50, p99 ms", shown(hot.beside)),
        ("translations/s, with and without loads", f"{rate(mixed):.0f}, {rate(hot):.0f}"),
        ("budget, and highest memory of the worker above its own, MB", f"{budget / 1e6:.0f}, {highest / 1e6:.0f}"),
    ]
    table = "\n".join(f"| {what} | {value} |" for what, value in rows)
    return f"| | |\n| --- | ---: |\n{table}\n\nMemory within the budget: {verdict(highest <= budget)}."


def shown(times: Sequence[float]) -> str:
    cuts: Callable[[int], float] = quantiles(times, n=100).__getitem__
    return f"{cuts(49) * 1e3:.0f}, {cuts(98) * 1e3:.0f}"


def rate(outcome: Outcome) -> float:
    return (len(outcome.hits) + len(outcome.misses)) / outcome.seconds


if __name__ == "__main__":
    main()
