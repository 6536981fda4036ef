"""More clients than a real gunicorn has room for: the loop that accepts them goes on, and no worker is replaced."""

from __future__ import annotations

import resource
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psutil
import pytest
import requests

from app.settings import REPOSITORY

pytestmark = pytest.mark.timeout(90)


@contextmanager
def few_files(worker: psutil.Process, more: int) -> Iterator[None]:
    """Lets a process open only a few files more than it has open."""
    before = worker.rlimit(resource.RLIMIT_NOFILE)
    worker.rlimit(resource.RLIMIT_NOFILE, (worker.num_fds() + more, before[1]))
    try:
        yield
    finally:
        worker.rlimit(resource.RLIMIT_NOFILE, before)


def test_a_process_without_descriptors_goes_on(
    start_gunicorn: Callable[..., Any], eventually: Callable[..., None]
) -> None:
    web = start_gunicorn()
    eventually(lambda: len(web.workers) == 2)
    workers = [worker.pid for worker in web.workers]
    assert all(web.answers() for _ in range(20))  # by either process, which reads some of its modules only then
    with ExitStack() as clients:
        with ExitStack() as limits:
            for worker in web.workers:
                limits.enter_context(few_files(worker, 6))
            for _ in range(100):
                clients.enter_context(web.connect())
            assert web.answers()
        assert web.answers()
    assert web.service.says("No connection can be accepted: Too many open files")
    assert [worker.pid for worker in web.workers] == workers
    assert not web.service.says("Traceback")


@pytest.fixture(scope="module")
def narrow(start_gunicorn: Callable[..., Any]) -> Any:
    """It has room for ten connections, and a thread for each of four."""
    return start_gunicorn(GUNICORN_CMD_ARGS="--workers 1 --threads 4 --worker-connections 10")


def test_idle_clients_make_way_for_others(narrow: Any) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(narrow.connect()) for _ in range(30)]
        assert all(narrow.answers() for _ in range(10))
        assert clients[0].recv(1) == b""  # the oldest one's connection is closed


def test_whoever_finds_no_room_is_told_at_once(narrow: Any, eventually: Callable[..., None]) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(narrow.connect()) for _ in range(10)]
        for client in clients:
            client.sendall(b"GET /")  # from now on it is not idle
        clients += [stack.enter_context(narrow.connect()) for _ in range(10)]
        [refused, *_], _, _ = select.select(clients, [], [], 5)
        assert refused.recv(100).startswith(b"HTTP/1.1 503 ")
    eventually(lambda: requests.get(f"{narrow.url}/healthz", timeout=20).status_code == 200)


def test_too_few_files_are_an_operators_mistake() -> None:
    command = f"ulimit -n 200; exec {sys.executable} -m gunicorn"
    ended = subprocess.run(["sh", "-c", command], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "tolk: A process may have 200 files open (ulimit -n); at least 256 were expected." in ended.stderr
