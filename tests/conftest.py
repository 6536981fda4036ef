"""Fixtures of all tests: a RabbitMQ and a PostgreSQL for the tests, and real processes on free ports, with logs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from hypothesis import settings

from launch.debian import PackageError
from launch.install import BROWSER
from launch.postgresql import PrivatePostgreSQL
from launch.rabbitmq import PrivateRabbitMQ, RabbitMQError

if TYPE_CHECKING:
    from playwright.sync_api import Browser

REPOSITORY = Path(__file__).parent.parent
LOGS: dict[str, Path] = {}  # the logs of the running processes, by name
LOG_TAIL = 8_000  # bytes of the end of each log that a failed test shows

# The caller's environment must not change the results of the tests, or the broker that they use.
for name in [name for name in os.environ if name.startswith(("CELERY_", "DATABASE_", "TOLK_"))]:
    del os.environ[name]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--load-seconds", type=float, default=6.0, help="how long each of the end-to-end tests keeps up its load"
    )
    parser.addoption(
        "--fuzz-examples", type=int, default=100, help="how many inputs each test makes up that makes up inputs"
    )
    parser.addoption("--soak-seconds", type=float, default=600.0, help="how long the soak lasts")
    parser.addoption("--all-faults", action="store_true", help="the faults that take long, too, and more load")


def pytest_configure(config: pytest.Config) -> None:
    """SIGTERM ends the run and all processes that it has started. Hypothesis makes the same inputs in every run."""
    settings.register_profile("tolk", max_examples=config.getoption("--fuzz-examples"), derandomize=True, deadline=None)
    settings.load_profile("tolk")
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("terminated", 143))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--all-faults"):
        deselected = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=deselected)
        items[:] = [item for item in items if item not in deselected]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    report = yield
    if report.failed:
        for name, path in LOGS.items():
            report.sections.append((f"log of {name}", path.read_bytes()[-LOG_TAIL:].decode(errors="replace")))
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Prints the records of the tests of faults, from all test processes."""
    from tests.faults.load import Row, table

    reports = [each for reports in terminalreporter.stats.values() for each in reports]
    recorded = [each for report in reports if getattr(report, "when", "") == "call" for each in report.user_properties]
    if rows := [Row(*values) for name, values in recorded if name == "fault"]:
        terminalreporter.section("faults")
        terminalreporter.write_line(table(rows))
    if lines := [line for name, line in recorded if name == "soak"]:
        terminalreporter.section("soak")
        terminalreporter.write_line("\n".join(lines))


@dataclass
class Service:
    """A process that runs in a session of its own, and its log."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def says(self, text: str) -> bool:
        return text in self.log.read_text(errors="replace")

    def logged(self, request_id: str, what: str) -> bool:
        """Whether a worker has logged `what` for the task of a request."""
        return re.search(rf"\[{request_id}\.\w+\] {what}", self.log.read_text(errors="replace")) is not None

    def stop(self, how: int = signal.SIGTERM, timeout: float = 30) -> int:
        """Sends the signal `how`, kills the process after `timeout` seconds, and returns its exit code."""
        self.process.send_signal(how)
        return self.wait(timeout)

    def wait(self, timeout: float = 30) -> int:
        """Waits for the end of the process, kills it after `timeout` seconds, and returns its exit code."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            return self.process.wait()


Spawn = Callable[..., Service]


@pytest.fixture(scope="session")
def eventually() -> Callable[..., None]:
    """Returns when a condition holds; fails the test if it does not hold within `timeout` seconds."""

    def wait(condition: Callable[[], object], timeout: float = 30) -> None:
        until = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > until:
                pytest.fail(f"did not happen within {timeout} s: {condition}")
            time.sleep(0.02)

    return wait


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            return port

    return find


@pytest.fixture(scope="session")
def new_broker(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., PrivateRabbitMQ]:
    """Makes another RabbitMQ, of the class `kind`, that is not started yet. Installs RabbitMQ if it is missing."""

    def make(kind: Callable[[Path, int], PrivateRabbitMQ] = PrivateRabbitMQ) -> PrivateRabbitMQ:
        directory = tmp_path_factory.mktemp("rabbitmq")
        log = LOGS[directory.name] = directory / "log"
        with log.open("ab") as output:
            if not PrivateRabbitMQ.installed():
                try:
                    PrivateRabbitMQ.install(output)
                except RabbitMQError as error:
                    pytest.fail(str(error))
            return kind(directory, os.dup(output.fileno()))

    return make


@pytest.fixture(scope="session")
def broker(new_broker: Callable[[], PrivateRabbitMQ]) -> Iterator[PrivateRabbitMQ]:
    """The RabbitMQ of this test run, for tests that do not stop or change it."""
    with new_broker() as running:
        yield running


@pytest.fixture(scope="session")
def new_postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], PrivatePostgreSQL]]:
    """Makes another PostgreSQL that is not started yet. Installs PostgreSQL if it is missing."""
    directories: list[Path] = []

    def make() -> PrivatePostgreSQL:
        # Not one of pytest's directories: only their owner may enter them, and a server started by root runs as another
        # user.
        directories.append(Path(tempfile.mkdtemp(prefix="tolk-postgresql-")))
        log = LOGS[directories[-1].name] = tmp_path_factory.mktemp("postgresql") / "log"
        with log.open("ab") as output:
            if not PrivatePostgreSQL.installed():
                try:
                    PrivatePostgreSQL.install(output)
                except PackageError as error:
                    pytest.fail(str(error))
            return PrivatePostgreSQL(directories[-1], os.dup(output.fileno()))

    yield make
    for directory in directories:
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def postgresql(new_postgresql: Callable[[], PrivatePostgreSQL]) -> Iterator[PrivatePostgreSQL]:
    """The PostgreSQL of this test run, for tests that do not stop or change it. Its `url` has an empty database."""
    with new_postgresql() as running:
        yield running


@pytest.fixture(scope="module")
def spawn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spawn]:
    """Starts `python -m COMMAND` in the repository, with more environment variables. It ends with the module."""
    directory = tmp_path_factory.mktemp("logs")
    services: list[Service] = []

    def start(*command: str, **environ: str) -> Service:
        name = f"{command[0]}-{len(services)}"
        log = LOGS[name] = directory / name
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=REPOSITORY,
                env={
                    **os.environ,
                    "PYTHONUNBUFFERED": "1",
                    "DATABASE_URL": f"sqlite:///{directory}/tolk.sqlite",
                    "TOLK_LOG_FORMAT": "text",
                    "TOLK_TRACES": str(directory / "traces"),
                    **environ,
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        services.append(Service(name, process, log))
        return services[-1]

    yield start
    for service in services:  # all at the same time, because they mostly wait while they stop
        service.process.terminate()
    for service in services:
        service.wait()
        del LOGS[service.name]


@pytest.fixture(scope="module")
def start_worker(spawn: Spawn, eventually: Callable[..., None]) -> Spawn:
    """Starts `celery -A tasks worker` and waits until it takes work; `app="echo"` for tests/tasks/echo.py.

    An echo worker does not ask other workers for revoked tasks: it would wait a second for their answers.
    """

    def start(url: str, *arguments: str, app: str = "tasks", **environ: str) -> Service:
        where = REPOSITORY / "tests" / "tasks" if app == "echo" else REPOSITORY
        arguments += ("--without-mingle",) if app == "echo" else ()
        command = ("celery", "-A", app, "--workdir", str(where), "worker", "--loglevel=INFO", "--hostname")
        worker = spawn(*command, f"{time.monotonic_ns()}@%h", *arguments, CELERY_BROKER_URL=url, **environ)
        eventually(lambda: worker.says(" ready.") or worker.process.poll() is not None, 90)
        assert worker.process.poll() is None
        return worker

    return start


@pytest.fixture(scope="session")
def paused() -> Callable[..., AbstractContextManager[None]]:
    """Suspends a process and its children inside of the `with`: they answer nothing, with their connections open."""

    @contextmanager
    def pause(process: subprocess.Popen[bytes]) -> Iterator[None]:
        main = psutil.Process(process.pid)
        family = [main, *main.children(recursive=True)]
        for each in family:
            each.suspend()
        try:
            yield
        finally:
            for each in family:
                each.resume()

    return pause


@pytest.fixture(scope="session")
def alarm() -> Callable[..., AbstractContextManager[None]]:
    """Makes a broker raise its alarm for free disk space inside of the `with`: it then reads nothing from whoever
    publishes."""

    def control(broker: PrivateRabbitMQ, limit: str) -> None:
        # Not Debian's wrapper, which becomes another user with another cookie.
        script = str(shutil.which("rabbitmqctl", path=f"/usr/lib/rabbitmq/bin:{os.environ['PATH']}"))
        environ = {"PATH": os.environ["PATH"], "HOME": str(broker.directory), "ERL_EPMD_PORT": str(broker.epmd_port)}
        command = [script, "-n", broker.node, "set_disk_free_limit", limit]
        subprocess.run(command, env=environ, check=True, capture_output=True, timeout=60)

    @contextmanager
    def alarmed(broker: PrivateRabbitMQ) -> Iterator[None]:
        control(broker, "1000000GB")
        try:
            yield
        finally:
            control(broker, "1MB")

    return alarmed


@pytest.fixture(scope="session")
def await_web(eventually: Callable[..., None]) -> Callable[[str, Service], None]:
    """Returns when the web tier at an address is ready to translate; fails the test if its process has ended."""

    def wait(address: str, web: Service) -> None:
        import requests

        def ready() -> bool:
            try:
                return requests.get(f"{address}/readyz", timeout=10).ok
            except requests.ConnectionError:
                return web.process.poll() is not None

        eventually(ready, 60)
        assert web.process.poll() is None

    return wait


@pytest.fixture(scope="module")
def start_web(
    spawn: Spawn, await_web: Callable[[str, Service], None], free_port: Callable[[], int]
) -> Callable[..., str]:
    """Starts the web tier under gunicorn, and returns its URL when it is ready to translate."""

    def start(url: str, **environ: str) -> str:
        port = str(free_port())
        address = f"http://127.0.0.1:{port}"
        await_web(address, spawn("gunicorn", CELERY_BROKER_URL=url, PORT=port, **environ))
        return address

    return start


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The machine's Chromium, without a window, and without its own calls to the network."""
    from playwright.sync_api import sync_playwright

    executable = shutil.which(BROWSER)
    if executable is None:
        pytest.fail(f"There is no {BROWSER}: `make test` as root installs it.")
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-quic", "--disable-sync"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=executable,
            # Its sandbox does not start as root, nor in most containers.
            args=["--no-sandbox", "--disable-gpu", "--no-first-run", *quiet],
        )
        yield chromium
        chromium.close()
