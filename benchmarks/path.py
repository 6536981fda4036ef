"""Measures the cost of a request without a model: time and CPU of each stage, compared with the library below it.

python -m benchmarks.path

Every round measures every stage with every number of clients, one after the other. The benchmark prints the medians of
the rounds, in Markdown. All HTTP clients run in one thread, with a selector and prepared bytes; the clients of the RPC
are threads, as in gunicorn.
"""

from __future__ import annotations

import json
import os
import platform
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import IO, Any
from uuid import uuid4

import psutil

from app.broker.rpc import CeleryTranslator
from app.translation.translate import ask_models
from benchmarks.baselines import KombuClient, connection
from launch.rabbitmq import PrivateRabbitMQ
from tasks.contract.request import TranslateRequest
from tasks.registry.file import RegistryFile

HOUSE = Path(__file__).parents[1]
CLIENTS = (1, 16, 64)
ROUNDS = 7
SECONDS = 1.2  # duration of each measurement
TIMEOUT = 30.0

TEXT = "Je vais dormir."
DOCUMENT = """mutation($input: TranslateInput!) {
  translate(input: $input) { requestId model version translations { text score flags error { code message } } }
}"""
PROCESSES = ("client", "web", "worker", "broker")

Load = Callable[[int, float], list[float]]  # number of clients, seconds to run -> seconds that each request took


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the path: `load` sends requests to it; `web` and `worker` are its processes, if it has them."""

    name: str
    load: Load
    web: psutil.Process | None = None
    worker: psutil.Process | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement: `p50` and `p99` of a request in milliseconds, requests a second, and milliseconds of CPU per
    request by process."""

    p50: float
    p99: float
    rate: float
    cpu: dict[str, float]


def main() -> None:
    with TemporaryDirectory() as directory, ExitStack() as stack:
        log = stack.enter_context((Path(directory) / "log").open("w+b"))
        broker = stack.enter_context(PrivateRabbitMQ(Path(directory) / "rabbitmq", log.fileno()))
        try:
            stages = start(broker.url, stack, log)
        except TimeoutError as error:
            log.seek(0)
            sys.exit(f"{error}\n{log.read().decode(errors='replace')}")
        node = psutil.Process(broker.process.pid) if broker.process else None
        print(f"{ROUNDS} rounds of {SECONDS} s.", describe(broker.url), flush=True)
        for stage in stages:
            stage.load(max(CLIENTS), SECONDS)  # warms up
        rounds = [measure_round(stages, node, reverse=number % 2 == 1) for number in range(ROUNDS)]
    print(table(stages, rounds))
    print(targets(rounds))


def start(url: str, stack: ExitStack, log: IO[bytes]) -> list[Stage]:
    """Starts all servers and workers, which end with `stack`, and returns the stages."""

    def run(*command: str, **environ: str) -> psutil.Process:
        # A database in memory has no API keys, so none is needed.
        environ = {**os.environ, "CELERY_BROKER_URL": url, "DATABASE_URL": "sqlite://", **environ}
        return stack.enter_context(running([sys.executable, "-m", *command], environ, log))

    def serve(application: str, **environ: str) -> tuple[Load, psutil.Process]:
        port = free_port()
        server = run("gunicorn", application, PORT=str(port), **environ)
        wait(lambda: accepts(port))
        return http_load(port), server

    models = RegistryFile(HOUSE / "models.toml")
    echo = run("celery", "-A", "echo", "--workdir", str(HOUSE / "tests" / "tasks"), "worker")
    kombu = run("benchmarks.baselines", url)
    translator = stack.enter_context(closing(CeleryTranslator.from_config(models, url)))
    wait(lambda: answers(translator.check))
    flask, flask_server = serve("benchmarks.baselines:flask_app()")
    plain, plain_server = serve("benchmarks.baselines:graphql_app()")
    graphql, graphql_server = serve("app:create_app()", TOLK_TRANSLATOR="echo")
    whole, whole_server = serve("app:create_app()")
    client = stack.enter_context(closing(KombuClient(url)))
    return [
        Stage("Flask", flask, flask_server),
        Stage("GraphQL, echo", graphql, graphql_server),
        Stage("GraphQL, no cache", plain, plain_server),
        Stage("kombu RPC", rpc_load(lambda: client.call(payload().encode(), TIMEOUT)), worker=kombu),
        Stage("RPC", rpc_load(lambda: ask_models(translator, str(uuid4()), [payload()])), worker=echo),
        Stage("all of it", whole, whole_server, echo),
    ]


def payload() -> TranslateRequest:
    return TranslateRequest(texts=(TEXT,), source="fr", target="en", model="fr-en", deadline=time.time() + TIMEOUT)


@contextmanager
def running(command: Sequence[str], environ: dict[str, str], log: IO[bytes]) -> Iterator[psutil.Process]:
    process = subprocess.Popen(command, cwd=HOUSE, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def http_load(port: int, text: str = TEXT, translation: str = TEXT) -> Load:
    """A Load over HTTP: each client keeps its connection and sends `text` again when it has an answer.

    Raises RuntimeError if an answer does not contain `translation`.
    """
    body = json.dumps({"query": DOCUMENT, "variables": {"input": {"texts": [text], "source": "fr", "target": "en"}}})
    head = "POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()

    def load(clients: int, seconds: float) -> list[float]:
        took: list[float] = []
        with selectors.DefaultSelector() as selector:
            connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(clients)]
            begun = {}
            for each in connections:
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(each, selectors.EVENT_READ)
                begun[each] = time.perf_counter()
                each.sendall(request)
            until = time.perf_counter() + seconds
            while begun:
                for key, _ in selector.select():
                    client: Any = key.fileobj
                    receive(client, translation)
                    now = time.perf_counter()
                    took.append(now - begun.pop(client))
                    if now < until:
                        begun[client] = now
                        client.sendall(request)
            for each in connections:
                each.close()
        return took

    return load


def receive(connection: socket.socket, translation: str) -> None:
    """Reads one answer. Raises RuntimeError if it does not contain `translation`."""
    data = connection.recv(65536)
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split()[0])
    while len(body) < length:
        body += connection.recv(65536)
    if not head.startswith(b"HTTP/1.1 200") or translation.encode() not in body:
        raise RuntimeError(data.decode(errors="replace"))


def rpc_load(call: Callable[[], object]) -> Load:
    """A Load by function calls: each client is a thread that calls again when it has an answer."""

    def load(clients: int, seconds: float) -> list[float]:
        took: list[float] = []
        until = time.perf_counter() + seconds

        def run() -> None:
            now = time.perf_counter()
            while now < until:
                call()
                begun, now = now, time.perf_counter()
                took.append(now - begun)

        threads = [threading.Thread(target=run) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return took

    return load


def measure_round(stages: Sequence[Stage], node: psutil.Process | None, *, reverse: bool) -> dict[Any, Sample]:
    order = [(stage, clients) for clients in CLIENTS for stage in stages]
    return {
        (stage.name, clients): measure(stage, clients, node)
        for stage, clients in (reversed(order) if reverse else order)
    }


def measure(stage: Stage, clients: int, node: psutil.Process | None) -> Sample:
    processes = dict(zip(PROCESSES, (psutil.Process(), stage.web, stage.worker, node), strict=True))
    before, begun = {name: cpu(process) for name, process in processes.items()}, time.perf_counter()
    took = stage.load(clients, SECONDS)
    elapsed = time.perf_counter() - begun
    spent = {name: 1000 * (cpu(process) - before[name]) / len(took) for name, process in processes.items()}
    return Sample(1000 * median(took), 1000 * quantiles(took, n=100)[98], len(took) / elapsed, spent)


def cpu(process: psutil.Process | None) -> float:
    """Seconds of CPU that a process and its children have used. This process counts alone: its children are stages."""
    if process is None:
        return 0.0
    spent = 0.0
    for each in [process, *([] if process.pid == os.getpid() else process.children(recursive=True))]:
        with suppress(psutil.NoSuchProcess):  # it has just ended
            spent += sum(each.cpu_times()[:2])
    return spent


def table(stages: Sequence[Stage], rounds: Sequence[dict[Any, Sample]]) -> str:
    lines = [
        "| clients | stage | p50 ms | p99 ms | requests/s | CPU ms a request: client | web | worker | broker |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for clients in CLIENTS:
        for stage in stages:
            samples = [each[stage.name, clients] for each in rounds]
            p50, p99, rate = (median(getattr(sample, what) for sample in samples) for what in ("p50", "p99", "rate"))
            used = [("web", stage.web), ("worker", stage.worker), ("broker", stage.worker)]
            shown = {"client", *(name for name, process in used if process is not None)}
            spent = [
                f"{median(sample.cpu[name] for sample in samples):.2f}" if name in shown else "" for name in PROCESSES
            ]
            lines.append(f"| {clients} | {stage.name} | {p50:.2f} | {p99:.2f} | {rate:.0f} | {' | '.join(spent)} |")
    return "\n".join(lines)


def targets(rounds: Sequence[dict[Any, Sample]]) -> str:
    """A report of the targets, from the medians of the ratios within each round."""

    def share(of: Callable[[Sample], float], clients: int) -> float:
        """The cost that GraphQL adds to Flask with the cache, over the cost that it adds without the cache."""
        return median(
            (of(each["GraphQL, echo", clients]) - of(each["Flask", clients]))
            / (of(each["GraphQL, no cache", clients]) - of(each["Flask", clients]))
            for each in rounds
        )

    in_cpu, in_time = share(lambda sample: sample.cpu["web"], 1), share(lambda sample: sample.p50, 1)
    trip = median(each["RPC", 1].p50 / each["kombu RPC", 1].p50 for each in rounds)
    return (
        "\nRatios with one client, medians over the rounds:\n"
        f"- Cost that GraphQL adds to Flask, over what graphql-server adds without a cache: {in_cpu:.2f} in CPU,"
        f" {in_time:.2f} in time; target at most 0.50: {verdict(max(in_cpu, in_time) <= 0.5)}.\n"
        f"- p50 of the RPC, over the p50 of the kombu RPC: {trip:.2f}; target at most 1.50: {verdict(trip <= 1.5)}."
    )


def verdict(met: bool) -> str:
    return "met" if met else "missed"


def describe(url: str) -> str:
    with connection(url) as link:
        rabbitmq = link.connection.server_properties["version"]
    packages = ("celery", "kombu", "amqp", "flask", "graphql-server", "gunicorn")
    return (
        f"{processor()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} before;"
        f" Python {platform.python_version()}, RabbitMQ {rabbitmq},"
        f" {', '.join(f'{name} {version(name)}' for name in packages)}.\n"
    )


def processor() -> str:
    """The name of the machine's processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))


def wait(condition: Callable[[], bool], timeout: float = 60) -> None:
    until = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError("A server did not start.")
        time.sleep(0.1)


def answers(check: Callable[[], object]) -> bool:
    try:
        check()
    except Exception:  # noqa: BLE001 - a service that is still starting may cause any error
        return False
    return True


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
