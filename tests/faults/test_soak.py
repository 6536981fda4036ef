"""A service at half its capacity for --soak-seconds: memory, threads, connections and queues do not grow."""

from __future__ import annotations

import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from tests.faults.house import House
from tests.faults.load import Load

WARM_UP = 0.25  # the share of the time that is not measured
PERIOD = 2.0  # seconds between two samples
CLIENTS = 16
GROWTH = {"MB": 16.0, "threads": 2.0, "connections": 2.0, "messages": 8.0}  # tolerated differences between thirds


@pytest.mark.long
def test_nothing_grows(real_house: House, say: Callable[[str], None], request: pytest.FixtureRequest) -> None:
    seconds: float = request.config.getoption("--soak-seconds")
    rate = capacity(real_house, seconds / 10) / 2
    samples: dict[str, list[float]] = defaultdict(list)
    with Load(real_house.url, real_house.secret, "Il dort depuis la nuit", rate, timeout=10.0, exact=False) as load:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for name, value in sample(real_house).items():
                samples[name].append(value)
            time.sleep(PERIOD)
    fates = Counter(each.fate for each in load.outcomes)
    took = [each.ended - each.sent for each in load.outcomes]
    say(f"{rate:.0f} requests/s for {seconds:.0f} s: {dict(fates)}, p50 {1000 * statistics.median(took):.0f} ms")
    say("| after the warm-up, medians | first third | second | last |\n| --- | ---: | ---: | ---: |")
    grown = []
    for name, values in samples.items():
        first, middle, last = thirds(values[int(WARM_UP * len(values)) :])
        say(f"| {name} | {first:.0f} | {middle:.0f} | {last:.0f} |")
        if last - first > GROWTH[name.rpartition(" ")[2]] and last > middle > first:
            grown.append(name)
    assert Counter(each.detail for each in load.outcomes if each.fate != "answered") == {}
    assert not grown


def capacity(house: House, seconds: float) -> float:
    """The requests a second that the service answers if each client waits for its answer."""
    until = time.monotonic() + seconds
    load = Load(house.url, house.secret, "capacity", timeout=10.0, exact=False)

    def ask(client: int) -> int:
        number = 0
        while time.monotonic() < until:
            assert load.send(f"Le client {client} demande la phrase {number}.").fate == "answered"
            number += 1
        return number

    with ThreadPoolExecutor(CLIENTS) as pool:
        return sum(pool.map(ask, range(CLIENTS))) / seconds


def sample(house: House) -> dict[str, float]:
    """The resources that each part of the service holds now."""
    assert house.broker.process is not None
    web = psutil.Process(house.web.process.pid)
    parts = {
        "gunicorn": web.children(),
        "worker": [psutil.Process(worker.process.pid) for worker in house.workers],
        "RabbitMQ": [psutil.Process(house.broker.process.pid)],
    }
    found = {}
    for name, processes in parts.items():
        found[f"{name} MB"] = sum(process.memory_info().rss for process in processes) / 1e6
        found[f"{name} threads"] = sum(process.num_threads() for process in processes)
        found[f"{name} connections"] = sum(len(process.net_connections()) for process in processes)
    [model] = house.status()["models"]
    found["queues, messages"] = sum(queue["depth"] for queue in model["queues"])
    return found


def thirds(values: list[float]) -> tuple[float, float, float]:
    third = len(values) // 3
    return (
        statistics.median(values[:third]),
        statistics.median(values[third : 2 * third]),
        statistics.median(values[2 * third :]),
    )
