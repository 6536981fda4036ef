"""`make run`: the broker, a worker, the web app and Flower, started, watched and stopped together.

    .venv/bin/python -m launch.service [DIRECTORY]

DIRECTORY holds the broker's data (default: .run). Each child has a session of its own, so that a Ctrl-C reaches this
process alone, which then stops web and Flower, the worker and the broker, in this order. Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import http.client
import os
import queue
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from launch.rabbitmq import PrivateRabbitMQ, RabbitMQError

ROOT = Path(__file__).resolve().parent.parent
DIRECTORY = ROOT / ".run"
MARK = "TOLK_SERVICE"  # in the environment of every child: how a later run knows what an earlier one left behind
# Seconds from SIGTERM to SIGKILL, longer than each takes to finish what it is doing.
GRACE = {"web": 75.0, "flower": 5.0, "worker": 30.0, "broker": 30.0}
HURRY = 1.0  # the same once a second signal has come
NO_BROKER_API = "http://none:none@127.0.0.1:1/"  # where nobody listens
DISK = 100e6  # bytes; where half of that is left, RabbitMQ starts but takes no message
PATIENCE = 30.0  # seconds between two words on what start-up still waits for
COLOURS = {"web": 32, "worker": 36, "broker": 33, "flower": 35, "tolk": 1}
ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")  # a terminal's colours


class StartError(Exception):
    """The service cannot be started here; the message says why and what to do."""


class Output:
    """One file descriptor that takes the lines of several processes, each line after its process's name."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.coloured = os.isatty(descriptor) and not os.environ.get("NO_COLOR")
        self._lock = threading.Lock()

    def write(self, name: str, line: str) -> None:
        prefix = f"{name:<6} |"
        if self.coloured:
            prefix = f"\033[{COLOURS[name]}m{prefix}\033[0m"
        with self._lock, contextlib.suppress(OSError):  # `closed` tells; a full disk must not stop the service
            os.write(self._descriptor, f"{prefix} {line}\n".encode())

    def closed(self) -> bool:
        """Whether the reader of the pipe, or the terminal, is gone; SIGHUP may reach make alone, which then waits."""
        descriptors = select.poll()
        descriptors.register(self._descriptor, 0)
        return bool(descriptors.poll(0))


class Log:
    """A pipe whose lines go to the output: a process writes to `sink`, `tail` is what came last."""

    def __init__(self, name: str, output: Output) -> None:
        self.tail: deque[str] = deque(maxlen=20)
        source, self.sink = os.pipe()
        self.thread = threading.Thread(target=self._pump, args=(name, source, output), daemon=True)
        self.thread.start()

    def _pump(self, name: str, source: int, output: Output) -> None:
        with open(source, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                text = line.rstrip() if output.coloured else ESCAPES.sub("", line).rstrip()
                if text:
                    self.tail.append(text)
                    output.write(name, text)


@dataclass(frozen=True, slots=True)
class Child:
    """A process of the service."""

    name: str
    process: subprocess.Popen[bytes]
    log: Log


@dataclass(slots=True)
class Service:
    """What runs between a start and a stop."""

    directory: Path
    web: tuple[str, int]
    flower: tuple[str, int]
    output: Output
    broker: PrivateRabbitMQ | None = None
    children: dict[str, Child] = field(default_factory=dict)
    events: queue.SimpleQueue[int | Child] = field(default_factory=queue.SimpleQueue)  # a signal, or who has ended
    hurried: bool = False
    began: float = field(default_factory=time.monotonic)

    def run(self) -> int:
        """Returns the exit code: 0 after a signal, 1 where a child ended by itself. Raises RabbitMQError."""
        try:
            broker = {} if broker_given(os.environ) else {"CELERY_BROKER_URL": self.start_broker()}
            self.listen()
            self.start(broker)
            return self.watch()
        finally:
            self.listen()
            self.stop()

    def listen(self) -> None:
        """From here on a signal is an event; until then it interrupts."""
        on_signals(lambda number, _frame: self.events.put(number))

    def start_broker(self) -> str:
        if shutil.disk_usage(self.directory).free < DISK:
            raise StartError(f"The disk of {self.directory} is full: make room, 100 MB at the very least.")
        self.say("starting RabbitMQ")
        log = Log("broker", self.output)
        try:
            self.broker = PrivateRabbitMQ(self.directory / "broker", log.sink)
            self.broker.start()
        finally:
            os.close(log.sink)
        if self.broker.process is not None:
            self.keep(Child("broker", self.broker.process, log))
        return self.broker.url

    def start(self, broker: dict[str, str]) -> None:
        self.say("starting the worker, the web app and Flower")
        celery = [sys.executable, "-m", "celery", "-A", "tasks"]
        host, port = self.flower
        commands = {
            "worker": [*celery, "worker"],
            "web": [sys.executable, "-m", "gunicorn"],
            "flower": [*celery, "flower", "--logging=warning", f"--address={host}", f"--port={port}"],
        }
        environ = {
            **os.environ,
            **broker,
            "PORT": str(self.web[1]),
            # Left to itself, Flower sends the broker's password to whoever listens on the broker's host at port 15672.
            "FLOWER_BROKER_API": os.environ.get("FLOWER_BROKER_API") or NO_BROKER_API,
            "TOLK_FLOWER_URL": os.environ.get("TOLK_FLOWER_URL") or f"http://{host}:{port}/",
            "PYTHONUNBUFFERED": "1",
            MARK: str(self.directory),
        }
        for name, command in commands.items():
            log = Log(name, self.output)
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log.sink,
                stderr=log.sink,
                start_new_session=True,
            )
            os.close(log.sink)
            self.keep(Child(name, process, log))

    def watch(self) -> int:
        """Says when everything answers; returns when a signal came or a child ended."""
        said = time.monotonic()
        awaited = {"web": (*self.web, "/readyz"), "flower": (*self.flower, "/healthcheck")}
        while not self.output.closed():
            try:
                event = self.events.get(timeout=1.0)
            except queue.Empty:
                pass
            else:
                return self.interpret(event)
            for name, address in list(awaited.items()):
                trouble = answer(*address)
                if trouble is None:
                    del awaited[name]
                    if not awaited:
                        self.say_ready()
                elif time.monotonic() - said > PATIENCE:
                    said = time.monotonic()
                    self.say(f"still waiting for {name}: {trouble}")
        return 0

    def interpret(self, event: int | Child) -> int:
        """Says why the service stops, and returns the exit code for it."""
        if isinstance(event, int):
            self.say(f"{signal.Signals(event).name}: stopping (Ctrl-C once more to hurry)")
            return 0
        self.say(f"{event.name} ended with code {event.process.returncode}; its last lines were:")
        for line in list(event.log.tail):
            self.say(f"  {event.name} | {line}")
        return 1

    def say_ready(self) -> None:
        self.say(f"ready after {time.monotonic() - self.began:.0f} s")
        web = f"http://{self.web[0]}:{self.web[1]}"
        self.say(f"  {web}/  the translator page; at {web}/status, how the service does")
        self.say(f"  {web}/graphql  the API, and GraphiQL in a browser")
        self.say(f"  http://{self.flower[0]}:{self.flower[1]}/  Flower: workers, queues, tasks")
        self.say("  Ctrl-C stops it")

    def stop(self) -> None:
        """Ends web and Flower, then the worker, then the broker, and leaves no process behind."""
        self.end("web", "flower")
        self.end("worker")
        self.end("broker")
        if self.broker is not None:
            self.broker.stop()
        end_leftovers(self.directory, self.output)

    def end(self, *names: str) -> None:
        """SIGTERM, time to finish, SIGKILL."""
        running = {name: self.children[name] for name in names if name in self.children}
        running = {name: child for name, child in running.items() if child.process.poll() is None}
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
            elif event == signal.SIGINT and not self.hurried:  # make hands a SIGTERM on, so that one may come twice
                self.hurried, began = True, time.monotonic()
                self.say("hurrying")

    def keep(self, child: Child) -> None:
        def wait() -> None:
            child.process.wait()
            child.log.thread.join(1.0)  # whoever still holds the pipe may write on
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


def answer(host: str, port: int, path: str) -> str | None:
    """None where it answers 200, else why not."""
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read(500).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return str(error)
    finally:
        connection.close()
    return None if response.status == http.HTTPStatus.OK else f"{response.status} {body}"


def broker_given(environ: Mapping[str, str]) -> bool:
    """Whether a broker is named, so that none has to be started. celeryconfig reads it."""
    return any(environ.get(name) for name in ("CELERY_BROKER_URL", "CELERY_BROKER_URL_FILE"))


def web_address(environ: Mapping[str, str]) -> tuple[str, int]:
    """TOLK_HOST and PORT, which must be free. Raises StartError."""
    host, port = environ.get("TOLK_HOST") or "127.0.0.1", _port(environ, "PORT", 8000)
    reason = _taken(host, port)
    if reason is not None:
        raise StartError(f"Port {port} of {host} {reason}: choose another, as in `make run PORT={port % 65535 + 1}`.")
    return host, port


def flower_address(environ: Mapping[str, str], output: Output) -> tuple[str, int]:
    """FLOWER_PORT on loopback, or a free one where it is taken. Raises StartError."""
    host, port = "127.0.0.1", _port(environ, "FLOWER_PORT", 5555)
    reason = _taken(host, port)
    if reason is None:
        return host, port
    with socket.create_server((host, 0)) as probe:
        free: int = probe.getsockname()[1]
    output.write("tolk", f"port {port} {reason}: Flower takes {free} (FLOWER_PORT sets it)")
    return host, free


def _port(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name) or str(default)
    if not re.fullmatch("[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise StartError(f"{name} is {text!r}: a port is a number from 1 to 65535.")
    return int(text)


def _taken(host: str, port: int) -> str | None:
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        words = {errno.EADDRINUSE: "is in use", errno.EACCES: "is for root only"}
        return words.get(error.errno or 0, f"cannot be used ({error.strerror})")
    return None


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Keeps a second service out of the directory. Raises StartError."""
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        if not _locked(descriptor):
            raise StartError(f"Tolk already runs from {ROOT}: stop it first, or use another clone.")
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def end_leftovers(directory: Path, output: Output) -> None:
    """Ends every process of a service in this directory whose supervisor was killed."""
    for number, seconds in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
        pids = list(leftovers(directory))
        if not pids:
            return
        output.write("tolk", f"ending what was left running: {', '.join(map(str, pids))}")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        until = time.monotonic() + seconds
        while time.monotonic() < until and any(leftovers(directory)):
            time.sleep(0.1)


def leftovers(directory: Path) -> Iterable[int]:
    """The processes that carry the mark of a service in this directory; the broker's have their home there instead."""
    marks = {f"{MARK}={directory}".encode(), f"HOME={directory / 'broker'}".encode()}
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            marked = marks & set(entry.read_bytes().split(b"\0"))
            # A container has its own directory of the same name.
            if marked and directory.samefile(f"{entry.parent}/root{directory}"):
                yield int(entry.parent.name)
        except OSError:  # ended meanwhile, or somebody else's
            continue


def main(directory: Path) -> int:
    """Runs the service until it is told to stop. Returns the exit code."""
    on_signals(signal.default_int_handler)
    output = Output(sys.stdout.fileno())
    try:
        with alone(directory):
            end_leftovers(directory, output)
            return Service(directory, web_address(os.environ), flower_address(os.environ, output), output).run()
    except (StartError, RabbitMQError, OSError) as error:  # OSError: a full disk, or a directory that is another's
        output.write("tolk", str(error))
        return 1
    except KeyboardInterrupt:
        output.write("tolk", "stopped while starting")
        return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else DIRECTORY))
