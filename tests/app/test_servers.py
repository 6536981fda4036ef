from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import requests

from app.settings import REPOSITORY, THREADS

DOCUMENT = 'mutation { translate(input: {texts: ["Bonjour."], target: "en"}) { translations { text } } }'


@pytest.fixture(params=["gunicorn", "flask --app app run --port 0"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    environ = {
        **os.environ,
        "TOLK_TRANSLATOR": "echo",
        "PORT": "0",
        "PYTHONUNBUFFERED": "1",
        "DATABASE_URL": f"sqlite:///{tmp_path}/tolk.sqlite",
        "TOLK_LOG_FORMAT": "text",
        "TOLK_TRACES": "off",
    }
    command = [sys.executable, "-m", *request.param.split()]
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        yield process
        process.kill()


@pytest.mark.timeout(60)
def test_a_server_serves_and_ends_when_it_is_told(server: subprocess.Popen[str]) -> None:
    assert server.stdout is not None
    log = []
    for line in server.stdout:
        log.append(line)
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            url = found[0]
            break
    else:
        pytest.fail("".join(log))
    answer = requests.post(f"{url}/graphql", json={"query": DOCUMENT}, timeout=20)
    assert answer.json() == {"data": {"translate": {"translations": [{"text": "Bonjour."}]}}}
    assert requests.get(f"{url}/healthz", params={"secret": "word"}, timeout=20).status_code == 200
    server.terminate()
    log += server.stdout
    server.wait()
    assert "Settings(translator='echo'" in "".join(log)
    if "gunicorn" in server.args:  # Flask's own server logs what it is sent, and is not for anybody else's texts
        assert answer.headers["X-Request-Id"] in "".join(log)
        assert "secret" not in "".join(log)
        assert server.returncode == 0


class Gunicorn:
    """The installed command, which a process can replace itself with, and its log."""

    def __init__(self, directory: Path, port: int, metrics: str) -> None:
        self.directory = directory
        self.port = port
        self.metrics = metrics
        self.log = directory / "log"
        self.models = directory / "models.toml"
        shutil.copy(REPOSITORY / "models.toml", self.models)
        environ = {
            **os.environ,
            "TOLK_TRANSLATOR": "echo",
            "TOLK_MODELS": str(self.models),
            "PORT": str(port),
            "DATABASE_URL": f"sqlite:///{directory}/tolk.sqlite",
            "TOLK_LOG_FORMAT": "text",
            "TOLK_TRACES": "off",
            "TOLK_METRICS": metrics,
            "TMPDIR": str(directory),
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(Path(sys.executable).with_name("gunicorn"))],
                cwd=REPOSITORY,
                env=environ,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def logged(self, pattern: str) -> list[str]:
        return re.findall(pattern, self.log.read_text())

    def ask(self, connection: http.client.HTTPConnection | None = None) -> str:
        """The status of a translation, or what went wrong."""
        connection = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        body = json.dumps({"query": DOCUMENT})
        try:
            connection.request("POST", "/graphql", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            return repr(error)
        return str(answer.status)

    def counted(self) -> float:
        """Translations, by the metrics."""
        answer = requests.get(f"http://{self.metrics}/metrics", timeout=20)
        answer.raise_for_status()
        return float(re.findall(r'^tolk_requests_total{code="OK"} (.+)$', answer.text, re.MULTILINE)[0])

    def masters(self) -> list[int]:
        """Those that have served, by the order of their start."""
        return [int(pid) for pid in self.logged(r"Listening at: .* \((\d+)\)")]

    def metrics_of(self) -> list[int]:
        """The masters that have a directory of metrics."""
        return sorted(int(path.name.split("-")[2]) for path in self.directory.glob("tolk-metrics-*"))


@pytest.fixture
def gunicorn(tmp_path: Path, free_port: Callable[[], int], eventually: Callable[..., None]) -> Iterator[Gunicorn]:
    server = Gunicorn(tmp_path, free_port(), f"127.0.0.1:{free_port()}")
    try:
        eventually(lambda: len(server.logged("INFO app: Settings")) == 2)
        yield server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.process.pid, signal.SIGTERM)
            server.process.wait(20)
            os.killpg(server.process.pid, signal.SIGKILL)


def test_no_request_fails_while_the_server_is_replaced(gunicorn: Gunicorn, eventually: Callable[..., None]) -> None:
    done = threading.Event()

    def load(keep: bool, pause: float) -> Counter[str]:
        outcomes: Counter[str] = Counter()
        connection = http.client.HTTPConnection("127.0.0.1", gunicorn.port, timeout=20) if keep else None
        while not done.wait(pause):
            outcomes[gunicorn.ask(connection)] += 1
        return outcomes

    with ThreadPoolExecutor() as threads:
        loads = [threads.submit(load, keep, pause) for keep in (True, False) for pause in (0.002, 0.02, 0.2)]
        try:
            good = gunicorn.models.read_text()
            more = '[models.fr-de]\nreference = "fr-en"\npairs = [{ source = "fr", target = "de" }]\n'
            gunicorn.models.write_text(good + more)
            eventually(lambda: len(gunicorn.logged("has changed: it has 3 models now")) == 2)  # in either process

            gunicorn.models.write_text("nonsense")
            gunicorn.process.send_signal(signal.SIGHUP)
            eventually(lambda: gunicorn.logged("Not reloaded: .*is not TOML"))

            gunicorn.models.write_text(good)
            counted = gunicorn.counted()
            gunicorn.process.send_signal(signal.SIGHUP)
            eventually(lambda: len(gunicorn.logged("Worker exiting")) == 2)
            assert gunicorn.counted() >= counted > 0

            gunicorn.process.send_signal(signal.SIGUSR2)
            eventually(lambda: len(gunicorn.logged("INFO app: Settings")) == 6)
            assert gunicorn.process.poll() is None
            assert gunicorn.metrics_of() == sorted(gunicorn.masters())
            gunicorn.process.terminate()
            gunicorn.process.wait(30)
            time.sleep(0.5)  # of the successor alone
            counted = gunicorn.counted()

            successor = gunicorn.masters()[-1]
            os.kill(successor, signal.SIGHUP)
            eventually(lambda: len(gunicorn.logged("INFO app: Settings")) == 8)
            eventually(lambda: len(gunicorn.logged("Worker exiting")) == 6)
            assert gunicorn.counted() >= counted > 0
            assert gunicorn.metrics_of() == [successor]
        finally:
            done.set()
        outcomes = sum((each.result() for each in loads), Counter[str]())
    assert set(outcomes) == {"200"}, outcomes


def test_clients_that_only_sit_there_hold_up_nobody(gunicorn: Gunicorn) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with ExitStack() as stack:

        def connect(sent: bytes) -> None:
            client = stack.enter_context(socket.create_connection(("127.0.0.1", gunicorn.port), timeout=30))
            client.sendall(sent)

        connect(request[:-2])
        for _ in range(2 * THREADS + 50):
            connect(b"")
        for _ in range(20):
            connect(request)  # who never closes his end
        began = time.monotonic()
        for _ in range(20):
            assert gunicorn.ask() == "200"
        assert time.monotonic() - began < 5
