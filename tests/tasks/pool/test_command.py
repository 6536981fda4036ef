"""A pool of real processes that are killed, are told to stop, or do not start, and a supervisor that is killed."""

from __future__ import annotations

import itertools
import random
import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest
import requests
from celery.bin.celery import celery
from celery.bin.worker import worker
from click.testing import CliRunner
from kombu import Connection

from app.broker.rpc import CeleryTranslator
from launch.rabbitmq import PrivateRabbitMQ
from tasks.contract.reply import TranslateReply
from tasks.host.cores import divide, usable_cores
from tasks.pool.command import serve_metrics
from tasks.pool.supervisor import PoolWorker
from tasks.queues import topology
from telemetry.address import Address
from tests.conftest import Service, Spawn

HOST = socket.gethostname()
POOL = ("celery", "-A", "echo", "--workdir", "tests/tasks", "pool")
QUICKLY = ("--", "--loglevel=INFO", "--without-mingle", "--without-gossip")

Ask = Callable[..., TranslateReply]


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The error message of `celery -A tasks pool` with these arguments."""
    monkeypatch.setattr(worker, "params", list(worker.params))  # each call would add the application's options to it

    def call(*arguments: str) -> str:
        refused = CliRunner().invoke(celery, ["-A", "tasks", "pool", *arguments])
        assert refused.exit_code == 2
        return refused.stderr

    return call


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Use either --gpus or --processes."),
        (["--gpus", "all", "--processes", "2"], "Use either --gpus or --processes."),
        (["--processes", "0"], "0 is not in the range x>=1."),
        (["--processes", "2", "--nope"], "No such option '--nope'."),
        (["--processes", "2", "--", "--nope"], "No such option '--nope'."),
        (["--processes", "2", "--", "-nsame@%h"], "The pool itself sets each worker's --gpu, --hostname"),
        (["--processes", "2", "--metrics", "9101"], "HOST:PORT with a port from 1 to 65535"),
        (["--processes", "2", "--metrics", "h:65535"], "no port is left for worker 1 after h:65535: the last one is"),
        (["--processes", "2", "--", "--metrics", "h:9101"], "Put --metrics before the --"),
        (["--gpus", "0,3"], "GPU 3 does not exist. This host has: 0 (NVIDIA A100, 80 GiB), 1 (NVIDIA L4, 24 GiB), 2"),
        (["--gpus", "1,1"], "--gpus 1,1 names a GPU twice."),
    ],
)
def test_what_it_does_not_understand_is_refused(
    refusal: Callable[..., str], nvml: ModuleType, arguments: list[str], sentence: str
) -> None:
    assert sentence in refusal(*arguments)


def test_without_a_gpu_there_is_no_pool_on_gpus(
    refusal: Callable[..., str], nvml: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES= leaves no GPU. Use --processes" in refusal("--gpus", "all")


@pytest.fixture
def start_pool(broker: PrivateRabbitMQ, spawn: Spawn, eventually: Callable[..., None], models: Path) -> Spawn:
    """Starts a pool of echo workers, and waits until `ready` of them are ready."""

    def start(*arguments: str, ready: int, **environ: str) -> Service:
        environ = {"CELERY_BROKER_URL": broker.url, "TOLK_MODELS": str(models), **environ}
        pool = spawn(*POOL, *arguments, *QUICKLY, **environ)
        eventually(lambda: count(pool, "is ready") == ready or pool.process.poll() is not None)
        assert pool.process.poll() is None
        return pool

    return start


def count(pool: Service, sentence: str) -> int:
    return pool.log.read_text().count(sentence)


def processes(pool: Service) -> dict[str, psutil.Process]:
    """The running processes of the workers, by name."""
    running = psutil.Process(pool.process.pid).children()
    return {(line := each.cmdline())[line.index("--hostname") + 1]: each for each in running}


def last(pool: Service, name: str) -> str:
    """The last state of a worker in the log: `starts`, `is ready` or `ended`."""
    return re.findall(rf"{name} (starts|is ready|ended)", pool.log.read_text())[-1]


def gone(pool: Service) -> bool:
    """Whether all processes that the pool has started have ended."""
    return not any(psutil.pid_exists(int(pid)) for pid in re.findall(r"starts as process (\d+)", pool.log.read_text()))


@pytest.mark.broker
def test_a_worker_that_dies_is_started_again_and_all_stop_without_losing_a_request(
    start_pool: Spawn, ask: Ask, translator: CeleryTranslator, threads: ThreadPoolExecutor, eventually: Any
) -> None:
    pool = start_pool("--processes", "2", "--pause", "0.1", ready=2, TOLK_CONCURRENCY="4")
    workers = processes(pool)
    assert workers.keys() == {f"cpu0@{HOST}", f"cpu1@{HOST}"}
    cores = {name: each.cpu_affinity() for name, each in workers.items()}
    assert sorted(map(len, cores.values())) == sorted(map(len, divide(usable_cores(), 2)))
    assert len({core for share in cores.values() for core in share}) == len(usable_cores())
    workers[f"cpu1@{HOST}"].kill()
    eventually(lambda: count(pool, f"cpu1@{HOST} is ready") == 2)
    assert pool.says(f"cpu1@{HOST} ended (SIGKILL); it is started again in 0 s")
    again = processes(pool)
    assert again.keys() == workers.keys()
    assert again[f"cpu0@{HOST}"] == workers[f"cpu0@{HOST}"]
    assert again[f"cpu1@{HOST}"].cpu_affinity() == cores[f"cpu1@{HOST}"]

    asked = [
        threads.submit(ask, f"#sleep 0.5{number:02}", request_id=f"drained-{number}", priority="bulk")  # each alone
        for number in range(40)
    ]
    eventually(lambda: count(pool, "drained") > 8)
    assert pool.stop() == 0
    assert gone(pool)
    assert not all(each.done() for each in asked)
    successor = start_pool("--processes", "1", ready=1)
    assert [each.result().results[0].text for each in asked] == [f"#sleep 0.5{number:02}" for number in range(40)]
    assert translator.replies.dropped == 0
    successor.stop()


def test_every_worker_serves_its_metrics_on_a_port_of_its_own() -> None:
    workers = [PoolWorker(name, ["--gpu", "none"]) for name in "abc"]
    serve_metrics(workers, Address("::1", 65533))
    assert [each.arguments for each in workers] == [
        ["--gpu", "none", "--metrics", f"[::1]:{port}"] for port in (65533, 65534, 65535)
    ]


@pytest.mark.broker
@pytest.mark.parametrize("where", ["argument", "environment"])
def test_the_workers_of_a_pool_are_scraped_one_by_one(start_pool: Spawn, free_ports: Any, where: str) -> None:
    first = free_ports(2)
    arguments = ["--metrics", f"127.0.0.1:{first}"] if where == "argument" else []
    environ = {"TOLK_METRICS": f"127.0.0.1:{first}"} if where == "environment" else {}
    pool = start_pool("--processes", "2", *arguments, ready=2, **environ)
    for place in range(2):
        text = requests.get(f"http://127.0.0.1:{first + place}/metrics", timeout=30).text
        [line] = [line for line in text.splitlines() if line.startswith("process_start_time_seconds")]
        started = processes(pool)[f"cpu{place}@{HOST}"].create_time()
        assert float(line.split()[1]) == pytest.approx(started, abs=0.02)
    assert pool.stop() == 0


@pytest.mark.broker
def test_where_one_cannot_start_all_end(broker: PrivateRabbitMQ, spawn: Spawn, models: Path, tmp_path: Path) -> None:
    environ = {"CELERY_BROKER_URL": broker.url, "TOLK_MODELS": str(models)}
    same = ("--pidfile", str(tmp_path / "pid"))
    pool = spawn(*POOL, "--processes", "2", *QUICKLY, *same, **environ)
    assert pool.process.wait(60) == 1
    assert re.search(rf"cpu\d@{HOST} cannot start \(exit code \d+\)", pool.log.read_text())
    assert gone(pool)


def test_a_broker_that_is_not_there_yet_is_waited_for(spawn: Spawn, free_port: Any, eventually: Any) -> None:
    pool = spawn(*POOL, "--processes", "2", *QUICKLY, CELERY_BROKER_URL=f"amqp://127.0.0.1:{free_port()}")
    eventually(lambda: count(pool, "Cannot connect to amqp") > 2)
    assert pool.stop() == 0
    assert not pool.says("is ready")
    assert gone(pool)


@pytest.mark.broker
def test_a_worker_per_gpu_which_shuts_down_when_its_supervisor_is_gone(
    start_pool: Spawn, eventually: Any, pretended: dict[str, str]
) -> None:
    pool = start_pool("--gpus", "2,0", ready=2, **pretended)
    workers = processes(pool)
    assert workers.keys() == {f"gpu0@{HOST}", f"gpu2@{HOST}"}
    assert all(f"--gpu {name[3]}" in " ".join(each.cmdline()) for name, each in workers.items())
    pool.stop(signal.SIGKILL)
    eventually(lambda: gone(pool))
    assert count(pool, "Warm shutdown") == 2


@pytest.mark.long
@pytest.mark.broker
@pytest.mark.parametrize("kills", [12, 100])
def test_one_of_four_is_killed_again_and_again_and_every_request_is_answered(
    broker: PrivateRabbitMQ, start_pool: Spawn, ask: Ask, threads: ThreadPoolExecutor, eventually: Any, kills: int
) -> None:
    """The three other workers have room for the requests that come back, so no request fails three deliveries."""
    pool = start_pool("--processes", "4", "--pause", "0.1", ready=4, TOLK_CONCURRENCY="8")
    stopped, numbers, chance = threading.Event(), itertools.count(), random.Random(4)
    victim = f"cpu2@{HOST}"

    def client() -> None:
        while not stopped.is_set():
            text = f"#sleep 0.1{next(numbers):06}"
            assert ask(text).results[0].text == text

    clients = [threads.submit(client) for _ in range(12)]
    try:
        for kill in range(kills):
            state = "is ready" if chance.random() < 0.75 else "starts"
            eventually(lambda state=state: last(pool, victim) in (state, "is ready"))
            time.sleep(chance.uniform(0, 0.4))
            processes(pool)[victim].kill()
            eventually(lambda kill=kill: count(pool, f"{victim} ended") > kill)
    finally:
        stopped.set()
    for each in clients:
        each.result()
    received = Counter(re.findall(r"\[(\S+)\] received", pool.log.read_text()))
    assert max(received.values()) > 1  # some requests were delivered again
    with Connection(broker.url) as connection:
        assert topology.dead_letter_queue()(connection.default_channel).queue_declare().message_count == 0
    assert pool.stop() == 0
