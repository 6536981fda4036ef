"""Keeps the workers of a pool running: starts them, watches them, starts again those that end, and stops them all."""

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

FIRST, LONGEST = 1.0, 30.0  # seconds until a worker is started again
HEALTHY = 60.0  # seconds that a worker takes work for its end to be a first one again
HARSHER = {signal.SIGTERM: signal.SIGQUIT, signal.SIGQUIT: signal.SIGKILL, signal.SIGKILL: signal.SIGKILL}

logger = get_logger(__name__)


@dataclass(slots=True)
class Backoff:
    """How long to wait until a worker that ended is started again: `first` seconds, twice as long each time, and
    `longest` at most."""

    first: float = FIRST
    longest: float = LONGEST
    pause: float = 0.0

    def after(self, worked: float) -> float:
        """Seconds to wait after a process that took work for so many."""
        again = self.pause and worked < HEALTHY
        self.pause = min(2 * self.pause, self.longest) if again else self.first
        return self.pause


@dataclass(slots=True, eq=False)
class PoolWorker:
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
    worker: PoolWorker


class Ended(NamedTuple):
    worker: PoolWorker
    reason: str


Event = signal.Signals | Ready | Ended


@dataclass(slots=True)
class Supervisor:
    """Runs `command` with the arguments of each worker. A socket tells each end when the other is gone."""

    command: Sequence[str]
    workers: Sequence[PoolWorker]
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

    def start(self, worker: PoolWorker) -> None:
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

    def follow(self, worker: PoolWorker, process: subprocess.Popen[bytes], line: socket.socket) -> None:
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


def tell(workers: Iterable[PoolWorker], number: signal.Signals) -> None:
    for worker in workers:
        if worker.process is not None:
            worker.process.send_signal(number)
