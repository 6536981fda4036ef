"""The whole service, started as `make run` starts it: it answers, stops in order, and leaves no process behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from launch.output import Log, Output
from launch.service import Child, Service

ROOT = Path(__file__).parents[2]
TIMEOUT = 90.0  # seconds
WORKER = f"cpu@{socket.gethostname()}"


class Run:
    """A supervisor with a directory of its own, and the lines that it has written so far."""

    def __init__(self, directory: Path, **environ: str) -> None:
        self.directory = directory
        self.lines: list[str] = []
        self._news = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "launch.service", str(directory)],
            cwd=ROOT,
            env=os.environ | environ,
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
        """Waits for the first line that contains the pattern, and returns it."""

        def found() -> str | None:
            return next((line for line in self.lines if re.search(pattern, line)), None)

        with self._news:
            line = self._news.wait_for(found, TIMEOUT)
        assert line is not None, "\n".join(self.lines)
        return line

    def url(self, label: str) -> str:
        """Waits until an address is printed, which happens once everything answers, and returns it."""
        return next(word for word in self.until(label).split() if word.startswith("http"))

    def end(self, number: int) -> int:
        """Sends the signal and returns the exit code; fails if a process still holds the output open."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        code = self.process.wait(TIMEOUT)
        self._reader.join(TIMEOUT)
        assert not self._reader.is_alive(), "somebody still holds the output"
        return code

    def stops(self) -> list[str]:
        """The names of the processes that stopped, in order."""
        return [found[1] for line in self.lines if (found := re.fullmatch(r"tolk   \| (\w+) stopped", line))]

    def remains(self) -> list[str]:
        """The processes whose command or environment names this directory."""
        found = []
        for process in psutil.process_iter():
            try:
                told = [*process.cmdline(), *process.environ().values()]
            except psutil.Error:
                continue
            if process.pid != os.getpid() and any(str(self.directory) in text for text in told):
                found.append(f"{process.pid} {' '.join(process.cmdline())}")
        return found


@pytest.fixture
def start(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Callable[..., Run]]:
    """Starts the service in the test's directory, on free ports unless the test sets them."""
    runs: list[Run] = []

    def run(**environ: str) -> Run:
        runs.append(Run(tmp_path, **{"PORT": str(free_port()), "FLOWER_PORT": str(free_port()), **environ}))
        return runs[-1]

    yield run
    for each in runs:
        if each.process.poll() is None:
            each.end(signal.SIGINT)


def translate(url: str, text: str) -> str:
    query = 'mutation ($text: String!) { translate(input: {texts: [$text], target: "en"}) { translations { text } } }'
    request = urllib.request.Request(
        url,
        json.dumps({"query": query, "variables": {"text": text}}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        answer = json.load(response)
    translated: str = answer["data"]["translate"]["translations"][0]["text"]
    return translated


def child(run: Run, word: str) -> psutil.Process:
    """The child process whose command contains the word."""
    return next(each for each in psutil.Process(run.process.pid).children() if word in " ".join(each.cmdline()))


@pytest.mark.broker
def test_what_is_killed_comes_back_and_sigterm_stops_web_then_worker_then_broker(
    start: Callable[..., Run], eventually: Callable[..., None], free_port: Callable[[], int]
) -> None:
    port = free_port()
    run = start(TOLK_METRICS=f"127.0.0.1:{port}")
    url = run.url("GraphiQL")
    assert "sleep" in translate(url, "Je vais dormir.")
    check_what_is_told(run, port, eventually)

    second = start()
    assert second.ended() == 1
    assert "Tolk already runs" in second.lines[-1]

    def translates() -> bool:
        try:
            return "sleep" in translate(url, "Je vais dormir.")
        except (OSError, TypeError):  # there is no answer, or the answer is an error
            return False

    words = {
        "worker": "-A tasks worker",
        "jobs": "jobs.results",
        "web": "gunicorn",
        "broker": "beam",
        "flower": "flower",
    }
    for times, (name, word) in enumerate(words.items(), 1):
        child(run, word).kill()
        run.until(f"{name} ended with code -9; its last lines were:")
        eventually(lambda times=times: run.lines.count("tolk   | everything answers again") == times, TIMEOUT)
        assert translates()
    with urllib.request.urlopen(run.url("Flower: "), timeout=10) as page:
        assert page.status == 200

    check_password(run)
    children = psutil.Process(run.process.pid).children(recursive=True)
    assert run.end(signal.SIGTERM) == 0
    assert set(run.stops()[:2]) == {"web", "flower"}
    assert run.stops()[2:] == ["worker", "jobs", "broker"]
    assert run.remains() == []
    assert psutil.wait_procs(children, timeout=10)[1] == []


def check_what_is_told(run: Run, port: int, eventually: Callable[..., None]) -> None:
    """A translation is told by metrics of the web tier and of the worker, by a log line of each, and by a trace.

    The web tier logs, counts and keeps the trace after it has sent the answer.
    """

    def counts_one(counter: str, port: int) -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as metrics:
            return f'{counter}{{code="OK"}} 1.0' in metrics.read().decode()

    eventually(lambda: counts_one("tolk_requests_total", port))
    eventually(lambda: counts_one("tolk_tasks_total", port + 1))
    request_id = re.search(r"\[([0-9a-f-]{36})\]$", run.until(r"^web +\| .* INFO app.web.request_log: POST /graphql "))
    assert request_id is not None
    run.until(rf"^worker \| .* INFO tasks.worker.translate: tolk.translate\[{request_id[1]}\.\w+\] OK ")
    traces = run.directory / "traces"
    eventually(lambda: any(request_id[1] in file.read_text() for file in traces.glob("*")))


def check_password(run: Run) -> None:
    """Checks that the broker's password is in no command, in no line of output, and on no page."""
    flower, web = run.url("Flower: "), run.url("translator page")
    shown = list(run.lines)
    for process in psutil.Process(run.process.pid).children(recursive=True):
        shown += process.cmdline()
    pages = []
    for page in (f"{web}status", *(f"{flower}{path}" for path in ("broker", "workers", "tasks", f"worker/{WORKER}"))):
        with urllib.request.urlopen(page, timeout=10) as answer:
            pages.append(answer.read().decode())
    assert "amqp://tolk:" in pages[1]
    assert "broker_connection_retry_on_startup" in pages[-1]
    password = (run.directory / "broker" / "password").read_text()
    assert not [text for text in shown + pages if password in text]
    assert child(run, "flower").environ()["FLOWER_BROKER_API"] == "http://none:none@127.0.0.1:1/"


@pytest.mark.broker
def test_a_killed_supervisor_is_cleaned_up_after(start: Callable[..., Run]) -> None:
    first = start()
    first.until("starting the worker")
    first.process.kill()
    assert any("beam" in line for line in first.remains())

    run = start()
    run.until("ending processes that an earlier run left")
    run.until("starting the worker")
    first.ended()
    assert run.end(signal.SIGINT) == 0
    assert run.remains() == []


@pytest.mark.broker
def test_a_child_that_cannot_start_ends_all(start: Callable[..., Run], tmp_path: Path) -> None:
    models = tmp_path / "models.toml"
    models.write_text('[models.none]\nreference = "./none"\npairs = [{ source = "fr", target = "en" }]\n')
    run = start(TOLK_MODELS=str(models))
    assert run.ended() == 1
    run.until("worker ended with code 1; its last lines were:")
    run.until("model none .* cannot be used")
    assert set(run.stops()) == {"web", "flower", "jobs", "broker"}
    assert run.remains() == []


def test_a_database_that_cannot_be_brought_up_to_date_is_named(
    start: Callable[..., Run], free_port: Callable[[], int]
) -> None:
    run = start(DATABASE_URL=f"postgresql://tolk:s3cret@127.0.0.1:{free_port()}/tolk")
    assert run.ended() == 1
    run.until("web .*refused")
    assert run.lines[-1].startswith("tolk   | The database cannot be brought up to date")
    assert not any("s3cret" in line for line in run.lines)
    assert run.remains() == []


def test_who_ends_again_and_again_waits_longer_each_time(tmp_path: Path) -> None:
    log = Log("worker", Output(os.open(os.devnull, os.O_WRONLY)))
    service = Service(tmp_path, ("127.0.0.1", 1), ("127.0.0.1", 1), Output(log.sink))
    ended = subprocess.Popen(["true"], start_new_session=True)
    ended.wait()

    def pause(lived: float) -> float:
        now = time.monotonic()
        service.recover(Child("worker", ended, log, now - lived))
        return round(service.due["worker"] - now)

    assert [pause(1) for _ in range(7)] == [0, 1, 2, 4, 8, 10, 10]
    assert pause(61) == 0
    assert pause(1) == 1
    os.close(log.sink)


@pytest.mark.broker
def test_an_interrupt_while_the_broker_starts_leaves_nothing(start: Callable[..., Run]) -> None:
    run = start()
    run.until(r"broker \|.*RabbitMQ")
    assert run.end(signal.SIGINT) == 0
    assert run.remains() == []


def test_a_port_in_use_is_named(start: Callable[..., Run]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = start(PORT=str(port))
        assert run.ended() == 1
    said = f"Port {port} of 127.0.0.1 is in use: choose another, as in `make run PORT={port + 1}`."
    assert run.lines == [f"tolk   | {said}"]


def test_without_a_broker_it_waits_and_a_second_interrupt_hurries(
    start: Callable[..., Run], free_port: Callable[[], int]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = start(FLOWER_PORT=str(port), CELERY_BROKER_URL=f"amqp://guest:guest@127.0.0.1:{free_port()}//")
        run.until(f"port {port} is in use: Flower uses [0-9]+ ")
    run.until("web .*/readyz status=503")
    web = next(child for child in psutil.Process(run.process.pid).children() if "gunicorn" in child.cmdline())
    web.suspend()  # so that it does not react to SIGTERM
    run.process.send_signal(signal.SIGINT)
    run.until("SIGINT: stopping")
    assert run.end(signal.SIGINT) == 0
    run.until("web did not stop within 1 s and is killed")
    assert set(run.stops()) == {"web", "flower", "worker", "jobs"}
    assert run.remains() == []
