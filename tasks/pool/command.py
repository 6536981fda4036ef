"""`celery -A tasks pool`: a worker per GPU, or several on the CPU, started, watched, and started again."""

from __future__ import annotations

import os
import queue
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import click
from celery import bootsteps, signals
from celery.bin.base import CeleryCommand, CeleryOption
from celery.bin.worker import worker as worker_command
from celery.utils.log import get_logger
from celery.utils.nodenames import gethostname
from celery.utils.sysinfo import cpu_budget  # type: ignore[attr-defined]  # missing in celery-types

from tasks.host.gpu import inventory, pick, visible
from telemetry.address import Address

FIRST, LONGEST = 1.0, 30.0  # seconds until a worker is started again: the first time, doubled each time, and at most
HEALTHY = 60.0  # seconds that a worker takes work for its end to be a first one again
HARSHER = {signal.SIGTERM: signal.SIGQUIT, signal.SIGQUIT: signal.SIGKILL, signal.SIGKILL: signal.SIGKILL}

logger = get_logger(__name__)


@dataclass(slots=True)
class Backoff:
    """How long to wait until a worker that ended is started again."""

    pause: float = 0.0

    def after(self, worked: float) -> float:
        """Seconds to wait after a process that took work for so many."""
        again = self.pause and worked < HEALTHY
        self.pause = min(2 * self.pause, LONGEST) if again else FIRST
        return self.pause


@dataclass(slots=True, eq=False)
class Worker:
    """A place in the pool, and the process that fills it, if one does.

    Times are of the monotonic clock: `ready` since when the process takes work, `due` when the next one is started.
    `proven` is whether there ever was one that took work.
    """

    name: str
    arguments: Sequence[str]
    cores: set[int] | None = None  # all, unless said otherwise
    backoff: Backoff = field(default_factory=Backoff)
    process: subprocess.Popen[bytes] | None = None
    ready: float | None = None
    due: float | None = None
    proven: bool = False


class Ready(NamedTuple):
    worker: Worker


class Ended(NamedTuple):
    worker: Worker
    reason: str


Event = signal.Signals | Ready | Ended


@dataclass(slots=True)
class Supervisor:
    """Runs `command` with the arguments of each worker. A socket tells each end when the other is gone."""

    command: Sequence[str]
    workers: Sequence[Worker]
    events: queue.SimpleQueue[Event] = field(default_factory=queue.SimpleQueue)

    def listen(self) -> None:
        """From here on a signal is an event."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as SIGHUP is under nohup
                signal.signal(number, lambda number, _frame: self.events.put(signal.Signals(number)))

    def run(self) -> int:
        """Returns the exit code: 0 after a signal, 1 where a worker ended before it was ever ready."""
        for worker in self.workers:
            self.start(worker)
        while True:
            match self.next_event():
                case Ready(worker):
                    worker.ready, worker.proven = time.monotonic(), True
                    logger.info("%s is ready", worker.name)
                case Ended(worker, reason) if worker.proven:
                    now = time.monotonic()
                    pause = worker.backoff.after(now - (worker.ready or now))
                    worker.process, worker.ready, worker.due = None, None, now + pause
                    logger.error("%s ended (%s); it is started again in %.0f s", worker.name, reason, pause)
                case Ended(worker, reason):
                    worker.process = None
                    logger.critical("%s cannot start (%s): see above for why", worker.name, reason)
                    self.stop(signal.SIGTERM)
                    return 1
                case signal.Signals() as number:
                    logger.info("%s: stopping; another one hurries", number.name)
                    self.stop(signal.SIGQUIT if number is signal.SIGQUIT else signal.SIGTERM)
                    return 0

    def next_event(self) -> Event:
        """Waits for it, and meanwhile starts the workers that are due."""
        while True:
            due = min((worker.due for worker in self.workers if worker.due is not None), default=None)
            with suppress(queue.Empty):
                return self.events.get(timeout=None if due is None else max(0.0, due - time.monotonic()))
            for worker in self.workers:
                if worker.due is not None and worker.due <= time.monotonic():
                    self.start(worker)

    def start(self, worker: Worker) -> None:
        worker.due = None
        ours, theirs = socket.socketpair()
        command = [*self.command, *worker.arguments, f"--supervisor={theirs.fileno()}"]
        try:
            with theirs, bound_to(worker.cores):
                worker.process = subprocess.Popen(  # noqa: S603 - its words are the operator's
                    command,
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # a Ctrl-C is for the supervisor, who passes it on
                )
        except OSError as error:
            ours.close()
            self.events.put(Ended(worker, str(error)))
            return
        logger.info("%s starts as process %d", worker.name, worker.process.pid)
        threading.Thread(target=self.follow, args=(worker, worker.process, ours), daemon=True).start()

    def follow(self, worker: Worker, process: subprocess.Popen[bytes], line: socket.socket) -> None:
        """Makes events of what becomes of a process."""
        with line:
            if line.recv(1):
                self.events.put(Ready(worker))
            code = process.wait()
        self.events.put(Ended(worker, signal.Signals(-code).name if code < 0 else f"exit code {code}"))

    def stop(self, how: signal.Signals) -> None:
        """Ends every worker, and returns when all have ended; a signal meanwhile makes it harsher."""
        running = {worker for worker in self.workers if worker.process is not None}
        tell(running, how)
        while running:
            match self.events.get():
                case Ended(worker, reason):
                    running.discard(worker)
                    logger.info("%s ended (%s)", worker.name, reason)
                case signal.Signals() as number:
                    how = HARSHER[how]
                    logger.warning("%s: hurrying, with %s", number.name, how.name)
                    tell(running, how)


def tell(workers: Iterable[Worker], number: signal.Signals) -> None:
    for worker in workers:
        if worker.process is not None:
            worker.process.send_signal(number)


@contextmanager
def bound_to(cores: set[int] | None) -> Iterator[None]:
    """A process that is started meanwhile may use these cores: it has them from the thread that starts it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def usable_cores() -> list[int]:
    """Those that this process is bound to, or so many of them, by chance, as the quota of its control group allows.

    By chance, lest all the containers of a host crowd on its first ones.
    """
    cores, allowed = os.sched_getaffinity(0), cpu_budget().count
    return sorted(cores if allowed >= len(cores) else random.sample(sorted(cores), allowed))


def divide(cores: Sequence[int], count: int) -> list[set[int]]:
    """The cores of each of so many workers: neighbours, about as many for each; one that is shared where they lack."""
    if count >= len(cores):
        return [{cores[place % len(cores)]} for place in range(count)]
    bounds = [place * len(cores) // count for place in range(count + 1)]
    return [set(cores[start:end]) for start, end in pairwise(bounds)]


def on_gpus(wanted: str) -> list[Worker]:
    """A worker per GPU of `0,2`, or of `all` that are visible. Raises click.UsageError."""
    gpus = visible()
    if not gpus:
        raise click.UsageError(f"{inventory(gpus)} Use --processes.")
    numbers = [str(place) for place in range(len(gpus))] if wanted == "all" else wanted.split(",")
    chosen = [pick(gpus, number) for number in numbers]
    if len(set(chosen)) < len(chosen):
        raise click.UsageError(f"--gpus {wanted} names a GPU twice.")
    return [_worker(gpu.nickname, number) for gpu, number in zip(chosen, numbers, strict=True)]


def on_cpu(count: int) -> list[Worker]:
    """So many workers, among which the cores are divided."""
    each = divide(usable_cores(), count)
    return [_worker(f"cpu{place}", "none", cores, f"--siblings={count}") for place, cores in enumerate(each)]


def _worker(nickname: str, gpu: str, cores: set[int] | None = None, *arguments: str) -> Worker:
    name = f"{nickname}@{gethostname()}"
    return Worker(name, ["--gpu", gpu, "--hostname", name, *arguments], cores)


def serve_metrics(workers: Sequence[Worker], first: Address) -> None:
    """Has each worker serve its metrics, one port after the other. Raises click.UsageError where there are too few."""
    for place, worker in enumerate(workers):
        try:
            worker.arguments = [*worker.arguments, "--metrics", str(first.after(place))]
        except ValueError as error:
            raise click.UsageError(f"--metrics: {error}.") from None


def _address(_ctx: click.Context, _option: click.Parameter, value: str | None) -> Address | None:
    """An option's callback."""
    try:
        return None if value is None else Address.parse(value)
    except ValueError as error:
        raise click.BadParameter(f"wanted is {error}.") from None


@click.command(cls=CeleryCommand)
@click.option("--gpus", metavar="all|N,N", help="A worker per GPU, of all, or of these (see worker --gpu).")
@click.option("--processes", type=click.IntRange(min=1), metavar="N", help="So many workers, on the CPU.")
@click.option("--metrics", metavar="HOST:PORT", callback=_address, help="Where worker 0 serves its; N takes PORT+N.")
@click.argument("worker_arguments", metavar="[-- WORKER ARGUMENTS]", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def pool(
    ctx: click.Context,
    gpus: str | None,
    processes: int | None,
    metrics: Address | None,
    worker_arguments: Sequence[str],
) -> None:
    """Start several workers and keep them running.

    A worker that ends is started again. SIGTERM lets all finish what they hold; a second one makes them hand it back.
    """
    common = ctx.find_root().params
    if common["app"] is None:
        raise click.UsageError("Say whose workers: celery -A tasks pool.")
    given, _, _ = worker_command.make_parser(ctx).parse_args(list(worker_arguments))
    if not given.keys().isdisjoint({"gpu", "hostname", "detach", "supervisor"}):
        raise click.UsageError("The pool itself says which GPU a worker has, and its name, and stays with it.")
    if "metrics" in given:
        raise click.UsageError("Say --metrics before the --: the workers share it out among them.")
    match gpus, processes:
        case str(), None:
            workers = on_gpus(gpus)
        case None, int():
            workers = on_cpu(processes)
        case _:
            raise click.UsageError("Say either --gpus or --processes.")
    if (first := metrics or ctx.obj.app.conf.tolk_metrics) is not None:
        serve_metrics(workers, first)
    ctx.obj.app.log.setup(loglevel="INFO")
    switches = [switch for switch in ("--quiet", "--no-color") if common[switch[2:].replace("-", "_")]]
    command = [sys.executable, "-m", "celery", "-A", common["app"], *switches, "worker", *worker_arguments]
    supervisor = Supervisor(command, workers)
    supervisor.listen()
    ctx.exit(supervisor.run())


METRICS = CeleryOption(
    ["--metrics"],
    metavar="HOST:PORT",
    callback=_address,
    help_group="Worker Options",
    help="Serve /metrics, for Prometheus, and /healthz there; worker N of a pool takes PORT+N. Default: TOLK_METRICS, "
    "else nothing listens.",
)
SIBLINGS = CeleryOption(["--siblings"], type=int, default=1, hidden=True, help="Who divide this machine's memory.")
SUPERVISOR = CeleryOption(["--supervisor"], type=int, hidden=True, help="The descriptor of a pool's socket.")


class Supervision(bootsteps.StartStopStep):
    """Tells a pool's supervisor when this worker takes work, and ends the worker when the supervisor is gone."""

    def __init__(self, worker: Any, supervisor: int | None = None, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self.supervisor = supervisor
        self.enabled = supervisor is not None

    def start(self, _worker: Any) -> None:
        line = socket.socket(fileno=self.supervisor)
        line.set_inheritable(False)

        def tell_ready(**_: Any) -> None:
            with suppress(OSError):  # gone: the other one ends the worker
                line.send(b"\n")

        def await_end() -> None:
            with suppress(ConnectionResetError):  # it has not even read that this worker is ready
                line.recv(1)
            logger.critical("the pool's supervisor is gone: shutting down")
            os.kill(os.getpid(), signal.SIGTERM)

        signals.worker_ready.connect(tell_ready, weak=False)
        threading.Thread(target=await_end, daemon=True).start()
