"""The whole service, started as `make run` starts it: it answers, it stops in order, and nothing of it stays."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
TIMEOUT = 90.0


class Run:
    """A supervisor of its own directory and ports, and what it wrote so far."""

    def __init__(self, directory: Path, port: int, **environ: str) -> None:
        self.directory = directory
        self.port = port
        self.lines: list[str] = []
        self._news = threading.Condition()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TOLK_", "CELERY_"))}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "launch.service", str(directory)],
            cwd=ROOT,
            env=kept | {"PORT": str(port), "FLOWER_PORT": str(free_port())} | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            with self._news:
                self.lines.append(line.rstrip())
                self._news.notify_all()

    def until(self, pattern: str) -> str:
        """The first line that the pattern is found in."""

        def found() -> str | None:
            return next((line for line in self.lines if re.search(pattern, line)), None)

        with self._news:
            line = self._news.wait_for(found, TIMEOUT)
        assert line is not None, "\n".join(self.lines)
        return line

    def end(self, number: int) -> int:
        """Sends the signal and returns the exit code, which has to come with the last line."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        code = self.process.wait(TIMEOUT)
        self._reader.join(TIMEOUT)
        assert not self._reader.is_alive(), "somebody still holds the output"
        return code

    def stops(self) -> list[str]:
        """Who stopped, in order."""
        return [found[1] for line in self.lines if (found := re.fullmatch(r"tolk   \| (\w+) stopped", line))]

    def remains(self) -> list[str]:
        """Processes that have to do with this directory."""
        found = []
        for process in psutil.process_iter():
            try:
                told = [*process.cmdline(), *process.environ().values()]
            except psutil.Error:
                continue
            if process.pid != os.getpid() and any(str(self.directory) in text for text in told):
                found.append(f"{process.pid} {' '.join(process.cmdline())}")
        return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture
def runs() -> Iterator[list[Run]]:
    started: list[Run] = []
    yield started
    for run in started:
        if run.process.poll() is None:
            run.end(signal.SIGINT)


def translate(port: int, text: str) -> str:
    query = 'mutation ($text: String!) { translate(input: {texts: [$text], target: "en"}) { translations { text } } }'
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        json.dumps({"query": query, "variables": {"text": text}}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        answer = json.load(response)
    translated: str = answer["data"]["translate"]["translations"][0]["text"]
    return translated


@pytest.mark.broker
def test_it_translates_and_sigterm_stops_web_then_worker_then_broker(tmp_path: Path, runs: list[Run]) -> None:
    run = Run(tmp_path, free_port())
    runs.append(run)
    run.until("Ctrl-C stops it")
    assert "sleep" in translate(run.port, "Je vais dormir.")

    second = Run(tmp_path, free_port())
    runs.append(second)
    assert second.ended() == 1
    assert "Tolk already runs" in second.lines[-1]

    flower = run.until("Flower: workers")
    with urllib.request.urlopen(re.findall(r"http\S+", flower)[0], timeout=10) as page:
        assert page.status == 200
    children = [child.pid for child in psutil.Process(run.process.pid).children(recursive=True)]
    assert run.end(signal.SIGTERM) == 0
    assert set(run.stops()[:2]) == {"web", "flower"}
    assert run.stops()[2:] == ["worker", "broker"]
    assert run.remains() == []
    assert [pid for pid in children if psutil.pid_exists(pid)] == []


@pytest.mark.broker
def test_a_killed_supervisor_is_cleaned_up_after_and_a_dead_child_ends_all(tmp_path: Path, runs: list[Run]) -> None:
    first = Run(tmp_path, free_port())
    runs.append(first)
    first.until("worker | .*mingle|worker | .*ready")
    first.process.kill()
    left = first.remains()
    assert any("beam" in line for line in left), left

    run = Run(tmp_path, first.port)
    runs.append(run)
    first.ended()
    run.until("ending what was left running")
    run.until("Ctrl-C stops it")
    worker = next(child for child in psutil.Process(run.process.pid).children() if "worker" in child.cmdline())
    worker.kill()
    assert run.ended() == 1
    run.until("worker ended with code -9; its last lines were:")
    assert run.stops()[-1] == "broker"
    assert run.remains() == []


@pytest.mark.broker
def test_an_interrupt_while_the_broker_starts_leaves_nothing(tmp_path: Path, runs: list[Run]) -> None:
    run = Run(tmp_path, free_port())
    runs.append(run)
    run.until(r"broker \|.*RabbitMQ")
    assert run.end(signal.SIGINT) == 0
    assert run.remains() == []


def test_ports_in_use(tmp_path: Path, runs: list[Run]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = Run(tmp_path, port)
        runs.append(run)
        assert run.ended() == 1
    assert run.lines == [
        f"tolk   | Port {port} of 127.0.0.1 is in use: choose another, as in `make run PORT={port + 1}`."
    ]


def test_flower_makes_room(tmp_path: Path, runs: list[Run]) -> None:
    """Nobody else's broker is there, either: Tolk keeps trying, and says so until it is told to stop."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        nowhere = f"amqp://guest:guest@127.0.0.1:{free_port()}//"
        run = Run(tmp_path, free_port(), FLOWER_PORT=str(port), CELERY_BROKER_URL=nowhere)
        runs.append(run)
        run.until(f"port {port} is in use: Flower takes [0-9]+ ")
        run.until("web .*/readyz.* 503")
        assert run.end(signal.SIGINT) == 0
    assert not any("broker" in name for name in run.stops())
    assert run.remains() == []
