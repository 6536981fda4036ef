"""Measures the waits for a thousand models on demand, with one worker that has memory for a hundred.

python -m benchmarks.models [REQUESTS]

RabbitMQ, the Celery worker and the models are real. On disk there are 50 models: the embedded one with seeded noise on
its weights. They have 1,000 names, each of which is a model of its own to the worker. 16 clients request models with
Zipf's distribution (the n-th name 1/n times as often as the first), each again when it has an answer. Then they request
only the ten most popular models, which measures translations while no model is loaded.
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
LOADED = 1e-3  # seconds: a shorter `load` stage means that the model was in memory


@dataclass(slots=True)
class Outcome:
    """The outcome of the requests: seconds of each, by whether its model was in memory, and seconds of loads."""

    hits: list[float] = field(default_factory=list)
    misses: list[float] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)  # requests to the most popular model, meanwhile
    resident: list[int] = field(default_factory=list)  # resident bytes of the worker, every tenth of a second
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
        ask(translator, 0, TEXT, Outcome())  # the first model also loads the code that all models share
        empty = worker.memory_info().rss - each
        asked = list(popularity(requests, random.Random(1)))
        mixed = offer(translator, worker, asked)
        hot = offer(translator, worker, [name for name in asked if name < HOT][: requests // 4])
        cold = Outcome()
        for name in range(NAMES - COLD, NAMES):
            ask(translator, name, TEXT, cold)
    print(report(mixed, hot, cold, empty, budget, ideal_hit_rate(asked)))


def write_models(directory: Path) -> Path:
    """Writes the models and a models.toml, and returns the path of models.toml."""
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
    """The bytes of memory that one model takes, as the worker counts them."""
    from models.local import LocalTranslator

    with LocalTranslator.load("fr-en") as translator:
        return translator.bytes


def popularity(requests: int, chance: random.Random) -> Iterator[int]:
    """The number of a model for each of `requests`, with Zipf's distribution."""
    weights = [1 / (rank + 1) for rank in range(NAMES)]
    yield from chance.choices(range(NAMES), weights, k=requests)


def offer(translator: CeleryTranslator, worker: psutil.Process, names: Sequence[int]) -> Outcome:
    """Requests a translation from each model of `names`, and returns when all have been answered."""
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
        over.set()  # ends `watch`, for which the pool of threads waits
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
    """The hit rate of a cache with room for IN_MEMORY models that evicts the least recently used one."""
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
        ("load of a model without other requests, p50, p99 ms", shown(cold.loads)),
        ("wait for a model that is not in memory, p50, p99 ms", shown(mixed.loads)),
        ("translation with such a wait, p50, p99 ms", shown(mixed.misses)),
        ("translation without such a wait, p50, p99 ms", shown(mixed.hits)),
        ("translation by the most popular model, p50, p99 ms", shown(mixed.beside)),
        (
            f"the same, while others use only the {HOT} most popular, p50, p99 ms",
            shown(hot.beside),
        ),
        ("translations/s, with and without loads", f"{rate(mixed):.0f}, {rate(hot):.0f}"),
        ("budget, and largest memory of the worker for models, MB", f"{budget / 1e6:.0f}, {highest / 1e6:.0f}"),
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
