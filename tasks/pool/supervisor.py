"""Starts the workers of a pool, restarts those that end, and stops them all."""

from __future__ import annotations

import queue
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from celery.utils.log import get_logger

from tasks.host.cores import bound_to

FIRST, LONGEST = 1.0, 30.0  # the first and the longest wait before a worker is restarted, in seconds
HEALTHY = 60.0  # a worker that took work for so many seconds is restarted after FIRST seconds again
HARSHER = {signal.SIGTERM: signal.SIGQUIT, signal.SIGQUIT: signal.SIGKILL, signal.SIGKILL: signal.SIGKILL}

logger = get_logger(__name__)


@dataclass(slots=True)
class Backoff:
    """The seconds to wait before a worker is restarted: `first`, then twice the last wait, at most `longest`."""

    first: float = FIRST
    longest: float = LONGEST
    pause: float = 0.0

    def after(self, worked: float) -> float:
        """The seconds to wait after the end of a process that took work for `worked` seconds."""
        again = self.pause and worked < HEALTHY
        self.pause = min(2 * self.pause, self.longest) if again else self.first
        return self.pause


@dataclass(slots=True, eq=False)
class PoolWorker:
    """A worker of the pool, and its process if one runs.

    `ready` is the time since which the process takes work, `due` the time at which the next process is started, both
    on the monotonic clock. `proven` tells whether any process of this worker has ever taken work.
    """

    name: str
    arguments: Sequence[str]
    cores: set[int] | None = None  # the cores that it is bound to; None: all
    backoff: Backoff = field(default_factory=Backoff)
    process: subprocess.Popen[bytes] | None = None
    ready: float | None = None
    due: float | None = None
    proven: bool = False


class Ready(NamedTuple):
    worker: PoolWorker


class Ended(NamedTuple):
    worker: PoolWorker
    reason: str


Event = signal.Signals | Ready | Ended


@dataclass(slots=True)
class Supervisor:
    """Runs a process of `command` for each worker, with the worker's arguments.

    A socket connects the supervisor to each process, so that each side notices the end of the other.
    """

    command: Sequence[str]
    workers: Sequence[PoolWorker]
    events: queue.SimpleQueue[Event] = field(default_factory=queue.SimpleQueue)

    def listen(self) -> None:
        """Turns signals into events from now on."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
                signal.signal(number, lambda number, _frame: self.events.put(signal.Signals(number)))

    def run(self) -> int:
        """Returns the exit code: 0 after a signal, 1 if a worker ended before it was ready for the first time."""
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
                    logger.critical("%s cannot start (%s): its log lines above say why", worker.name, reason)
                    self.stop(signal.SIGTERM)
                    return 1
                case signal.Signals() as number:
                    logger.info("%s: stopping; another signal stops at once", number.name)
                    self.stop(signal.SIGQUIT if number is signal.SIGQUIT else signal.SIGTERM)
                    return 0

    def next_event(self) -> Event:
        """Waits for the next event and returns it. Starts workers that become due while it waits."""
        while True:
            due = min((worker.due for worker in self.workers if worker.due is not None), default=None)
            with suppress(queue.Empty):
                return self.events.get(timeout=None if due is None else max(0.0, due - time.monotonic()))
            for worker in self.workers:
                if worker.due is not None and worker.due <= time.monotonic():
                    self.start(worker)

    def start(self, worker: PoolWorker) -> None:
        worker.due = None
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            self.events.put(Ended(worker, str(error)))
            return
        try:
            with theirs, bound_to(worker.cores):
                worker.process = subprocess.Popen(  # noqa: S603 - its words are the operator's
                    [*self.command, *worker.arguments, f"--supervisor={theirs.fileno()}"],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # a Ctrl-C reaches only the supervisor, which passes it on
                )
        except OSError as error:
            ours.close()
            self.events.put(Ended(worker, str(error)))
            return
        logger.info("%s starts as process %d", worker.name, worker.process.pid)
        threading.Thread(target=self.follow, args=(worker, worker.process, ours), daemon=True).start()

    def follow(self, worker: PoolWorker, process: subprocess.Popen[bytes], line: socket.socket) -> None:
        """Reports as events when a process is ready and when it has ended."""
        with line:
            if line.recv(1):
                self.events.put(Ready(worker))
            code = process.wait()
        self.events.put(Ended(worker, signal.Signals(-code).name if code < 0 else f"exit code {code}"))

    def stop(self, how: signal.Signals) -> None:
        """Sends `how` to every worker and returns when all have ended. Each further signal sends them a harsher one."""
        running = {worker for worker in self.workers if worker.process is not None}
        tell(running, how)
        while running:
            match self.events.get():
                case Ended(worker, reason):
                    running.discard(worker)
                    logger.info("%s ended (%s)", worker.name, reason)
                case signal.Signals() as number:
                    how = HARSHER[how]
                    logger.warning("%s: sending the workers %s", number.name, how.name)
                    tell(running, how)


def tell(workers: Iterable[PoolWorker], number: signal.Signals) -> None:
    for worker in workers:
        if worker.process is not None:
            worker.process.send_signal(number)
