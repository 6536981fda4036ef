"""`make run`: starts, watches, restarts and stops the broker, a worker, the worker of jobs, the web app and Flower.

    .venv/bin/python -m launch.service [DIRECTORY]

DIRECTORY has the data of the broker and the database (default: .run). Each child has its own session, so a Ctrl-C
reaches only this process, which then stops web and Flower, the workers and the broker, in order. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from launch.child import Child
from launch.directory import DIRECTORY, MARK, alone, end_leftovers
from launch.errors import StartError
from launch.output import Log, Output
from launch.ports import answer, flower_address, web_address
from launch.rabbitmq import PrivateRabbitMQ, RabbitMQError

# Seconds from SIGTERM to SIGKILL. They are longer than each process takes to finish its work.
GRACE = {"web": 75.0, "flower": 5.0, "worker": 30.0, "jobs": 30.0, "broker": 30.0}
HURRY = 1.0  # the same, after a second Ctrl-C
# By default Flower sends the broker's password to whatever listens on port 15672 of the broker's host.
NO_BROKER_API = "http://none:none@127.0.0.1:1/"
# Flower's page of tasks leaves out the name, which is always the same, and the result, which workers do not send.
FLOWER = ("--logging=warning", "--tasks_columns=state,args,received,runtime,worker,uuid")
DISK = 100e6  # bytes; with half of that left, RabbitMQ starts but accepts no message
PAUSES = (0.0, 1.0, 2.0, 4.0, 8.0, 10.0)  # seconds before a child that has ended is restarted: the first time, ...
HEALTHY = 60.0  # seconds after which the end of a child counts as its first again
REMINDER = 30.0  # seconds between two messages that a process does not answer yet


@dataclass(slots=True)
class Service:
    """The running service: its children, and what happens to them."""

    directory: Path
    web: tuple[str, int]
    flower: tuple[str, int]
    output: Output
    broker: PrivateRabbitMQ | None = None
    children: dict[str, Child] = field(default_factory=dict)
    events: queue.SimpleQueue[int | Child] = field(default_factory=queue.SimpleQueue)  # a signal, or an ended child
    ready: bool = False  # whether all have answered once
    ends: Counter[str] = field(default_factory=Counter)  # by child, the number of ends since it was healthy
    due: dict[str, float] = field(default_factory=dict)  # by child, when to restart it
    awaited: dict[str, tuple[str, int, str]] = field(default_factory=dict)  # host, port and path, by child
    reminded: float = 0.0  # when the last message said that they do not
    hurried: bool = False
    began: float = field(default_factory=time.monotonic)

    def run(self) -> int:
        """Runs until a signal. Returns the exit code: 0 after a signal, 1 if a child ended before all were ready.

        Raises StartError and RabbitMQError.
        """
        try:
            self.upgrade_database()
            if not given(os.environ, "CELERY_BROKER_URL"):
                self.start("broker")
            self.listen()
            self.say("starting the worker, the web app and Flower")
            for name in ("worker", "jobs", "web", "flower"):
                self.start(name)
            return self.watch()
        finally:
            self.listen()
            self.stop()

    def listen(self) -> None:
        """Makes signals events from now on, where they interrupted before."""
        on_signals(lambda number, _frame: self.events.put(number))

    def upgrade_database(self) -> None:
        child = Child.spawn("web", ("flask", "--app", "app", "database", "upgrade"), self.environ(), self.output)
        if child.process.wait():
            child.log.thread.join(1.0)
            raise StartError("The database cannot be brought up to date: the last lines of web say why.")

    def start(self, name: str) -> None:
        """Starts a child. Raises StartError, RabbitMQError or OSError."""
        host, port = self.flower
        commands = {
            "worker": ("celery", "-A", "tasks", "worker", "--loglevel=INFO", *self.worker_metrics()),
            "jobs": ("celery", "-A", "app.jobs.results", "worker"),
            "web": ("gunicorn",),
            "flower": ("launch.flower", "-A", "tasks", "flower", *FLOWER, f"--address={host}", f"--port={port}"),
        }
        environ = self.environ()
        self.keep(self.start_broker() if name == "broker" else Child.spawn(name, commands[name], environ, self.output))

    def worker_metrics(self) -> tuple[str, ...]:
        """The option that serves the worker's metrics, on the port after the web tier's."""
        host, colon, port = os.environ.get("TOLK_METRICS", "").rpartition(":")
        return (f"--metrics={host}:{int(port) + 1}",) if colon and port.isdecimal() else ()

    def start_broker(self) -> Child:
        if shutil.disk_usage(self.directory).free < DISK:
            raise StartError(f"The disk of {self.directory} is full: make room, 100 MB at the very least.")
        self.say("starting RabbitMQ")
        log = Log("broker", self.output)
        try:
            self.broker = self.broker or PrivateRabbitMQ(self.directory / "broker", log.sink)
            self.broker.log = log.sink
            return Child("broker", self.broker.start(), log)
        finally:
            os.close(log.sink)

    def environ(self) -> dict[str, str]:
        """The environment of the children: ours, and the addresses at which they find each other."""
        environ = {**os.environ, "PORT": str(self.web[1]), "PYTHONUNBUFFERED": "1", MARK: str(self.directory)}
        environ["TOLK_LOG_FORMAT"] = os.environ.get("TOLK_LOG_FORMAT") or "text"  # output may end on a terminal
        environ["TOLK_TRACES"] = os.environ.get("TOLK_TRACES") or str(self.directory / "traces")
        environ["FLOWER_BROKER_API"] = os.environ.get("FLOWER_BROKER_API") or NO_BROKER_API
        environ["TOLK_FLOWER_URL"] = os.environ.get("TOLK_FLOWER_URL") or "http://{}:{}/".format(*self.flower)
        if not given(os.environ, "DATABASE_URL"):
            environ["DATABASE_URL"] = f"sqlite:///{self.directory / 'tolk.sqlite'}"
        if self.broker is not None:
            environ["CELERY_BROKER_URL"] = self.broker.url
        return environ

    def watch(self) -> int:
        """Restarts children that end once all were ready. Returns the exit code: 1 if one ended before that, else 0."""
        self.await_answers()
        self.reminded = time.monotonic()
        while not self.output.closed():
            self.start_due()
            event = self.next_event()
            if isinstance(event, Child):
                self.say_end(event)
                if not self.ready:
                    return 1
                self.recover(event)
            elif event is not None:
                self.say(f"{signal.Signals(event).name}: stopping (Ctrl-C once more to hurry)")
                return 0
            else:
                self.look()
        return 0

    def await_answers(self) -> None:
        self.awaited = {"web": (*self.web, "/readyz"), "flower": (*self.flower, "/healthcheck")}

    def start_due(self) -> None:
        for name in [name for name, when in self.due.items() if when <= time.monotonic()]:
            self.start_again(name)
            self.await_answers()

    def next_event(self) -> int | Child | None:
        """A signal, or a child that has ended; None if there is neither within a second or before a child's restart."""
        wait = min([1.0, *(when - time.monotonic() for when in self.due.values())])
        try:
            return self.events.get(timeout=max(0.0, wait))
        except queue.Empty:
            return None

    def look(self) -> None:
        """Checks the awaited answers. Reports when all have come and, every REMINDER seconds, which one has not."""
        for name, address in list(self.awaited.items()):
            trouble = answer(*address)
            if trouble is None:
                del self.awaited[name]
                if not self.awaited:
                    self.say_ready()
            elif time.monotonic() - self.reminded > REMINDER:
                self.reminded = time.monotonic()
                self.say(f"still waiting for {name}: {trouble}")

    def recover(self, child: Child) -> None:
        """Schedules the restart of a child that has ended."""
        # The child's own children may finish their work, but have to free the port.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.process.pid, signal.SIGTERM)
        if time.monotonic() - child.started >= HEALTHY:
            del self.ends[child.name]
        self.postpone(child.name)

    def postpone(self, name: str) -> None:
        pause = PAUSES[min(self.ends[name], len(PAUSES) - 1)]
        self.ends[name] += 1
        self.due[name] = time.monotonic() + pause
        self.say(f"{name} is restarted" + (f" in {pause:.0f} s" if pause else ""))

    def start_again(self, name: str) -> None:
        del self.due[name]
        on_signals(signal.default_int_handler)  # because RabbitMQ starts slowly
        try:
            self.start(name)
        except (StartError, RabbitMQError, OSError) as error:
            self.say(str(error))
            self.postpone(name)
        finally:
            self.listen()

    def say_end(self, child: Child) -> None:
        self.say(f"{child.name} ended with code {child.process.returncode}; its last lines were:")
        for line in list(child.log.tail):
            self.say(f"  {child.name} | {line}")

    def say_ready(self) -> None:
        if self.ready:
            self.say("everything answers again")
            return
        self.ready = True
        self.say(f"ready after {time.monotonic() - self.began:.0f} s")
        web = f"http://{self.web[0]}:{self.web[1]}"
        self.say(f"  {web}/  the translator page; {web}/status shows the state of the service")
        self.say(f"  {web}/graphql  the API, and GraphiQL in a browser")
        self.say(f"  http://{self.flower[0]}:{self.flower[1]}/  Flower: workers, queues, tasks")
        self.say("  Ctrl-C stops it")

    def stop(self) -> None:
        """Ends web and Flower, then the worker, then that of jobs, then the broker, and leaves no process behind."""
        self.end("web", "flower")
        self.end("worker")
        self.end("jobs")
        self.end("broker")
        if self.broker is not None:
            self.broker.stop()
        end_leftovers(self.directory, self.output)

    def end(self, *names: str) -> None:
        """Ends children by SIGTERM and, if they have not ended after their GRACE, by SIGKILL."""
        children = {name: self.children[name] for name in names if name in self.children}
        running = {name: child for name, child in children.items() if child.process.poll() is None}
        for child in running.values():
            child.process.terminate()
        began = time.monotonic()
        while running:
            grace = HURRY if self.hurried else max(GRACE[name] for name in running)
            try:
                event = self.events.get(timeout=max(0.0, began + grace - time.monotonic()))
            except queue.Empty:
                for child in running.values():
                    self.say(f"{child.name} did not stop within {time.monotonic() - began:.0f} s and is killed")
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(child.process.pid, signal.SIGKILL)
                began = time.monotonic()
                continue
            if isinstance(event, Child):
                if running.pop(event.name, None):
                    self.say(f"{event.name} stopped")
            elif event == signal.SIGINT and not self.hurried:  # make forwards SIGTERM, so that may come twice
                self.hurried, began = True, time.monotonic()
                self.say("hurrying")

    def keep(self, child: Child) -> None:
        def wait() -> None:
            child.process.wait()
            child.log.thread.join(0.2)  # the child's own children may still write to the pipe
            self.events.put(child)

        self.children[child.name] = child
        threading.Thread(target=wait, daemon=True).start()

    def say(self, line: str) -> None:
        self.output.write("tolk", line)


def on_signals(handler: Callable[[int, FrameType | None], object]) -> None:
    signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGTERM, handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as it is under nohup
        signal.signal(signal.SIGHUP, handler)


def given(environ: Mapping[str, str], name: str) -> bool:
    """Whether the variable is set, or the variable NAME_FILE, which names a file with its value."""
    return any(environ.get(each) for each in (name, f"{name}_FILE"))


def main(directory: Path) -> int:
    """Runs the service until it is told to stop. Returns the exit code."""
    on_signals(signal.default_int_handler)
    output = Output(sys.stdout.fileno())
    try:
        with alone(directory):
            end_leftovers(directory, output)
            return Service(directory, web_address(os.environ), flower_address(os.environ, output), output).run()
    except (StartError, RabbitMQError, OSError) as error:  # OSError: a full disk, or another user's directory
        output.write("tolk", str(error))
        return 1
    except KeyboardInterrupt:
        output.write("tolk", "stopped while starting")
        return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else DIRECTORY))
