"""The whole service as it is deployed: RabbitMQ, PostgreSQL, gunicorn, workers, and a supervisor of the workers."""

from __future__ import annotations

import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psutil
import requests
from sqlalchemy import func, make_url, select

from app.accounts import keys
from app.accounts.keys import Scope
from app.database.tables import idempotent_request
from app.database.transactions import Database
from launch.postgresql import PrivatePostgreSQL
from launch.rabbitmq import PrivateRabbitMQ
from tests.faults.cluster import Cluster

SUPERVISION = 0.1  # seconds between two checks of the workers


@dataclass
class House:
    """The running service. `start_worker` returns a process that has only begun to start."""

    broker: PrivateRabbitMQ | Cluster
    postgresql: PrivatePostgreSQL
    start_worker: Callable[[], Any]
    eventually: Callable[..., None]
    url: str
    web: Any
    workers: list[Any] = field(default_factory=list)
    deaths: int = 0

    def __post_init__(self) -> None:
        self.database = Database(make_url(self.postgresql.url))
        self.secret = self.database.run(lambda connection: keys.create(connection, "load", list(Scope)))
        self._closing = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise)
        self._changing = threading.Lock()

    def open(self, workers: int) -> None:
        self.workers = [self.start_worker() for _ in range(workers)]
        self.eventually(lambda: all(worker.says(" ready.") for worker in self.workers), 60)
        self._supervisor.start()

    def close(self) -> None:
        self._closing.set()
        self._supervisor.join()
        self.database.close()

    def kill_worker(self, how: int = signal.SIGKILL) -> None:
        """Kills a worker; the supervisor starts another one."""
        os.kill(self.workers[0].process.pid, how)

    def web_workers(self) -> list[psutil.Process]:
        return psutil.Process(self.web.process.pid).children()

    def kill_web_worker(self) -> None:
        """Kills a process of gunicorn; its master starts another one."""
        self.web_workers()[0].kill()

    @contextmanager
    def without_descriptors(self) -> Iterator[None]:
        """Lets gunicorn's processes open no file and take no connection beyond those that they have."""
        limits = {each: each.rlimit(resource.RLIMIT_NOFILE) for each in self.web_workers()}
        for each, (_, most) in limits.items():
            each.rlimit(resource.RLIMIT_NOFILE, (each.num_fds(), most))
        try:
            yield
        finally:
            for each, limit in limits.items():
                each.rlimit(resource.RLIMIT_NOFILE, limit)

    def replace_workers(self) -> None:
        """A rolling restart: for each worker, starts a successor and stops the worker."""
        with self._changing:
            for old in list(self.workers):
                new = self.start_worker()
                self.eventually(lambda new=new: new.says(" ready."), 60)
                self.workers.append(new)
                self.workers.remove(old)
                assert old.stop(signal.SIGTERM, 60) == 0

    def replace_web_workers(self) -> None:
        """Lets gunicorn start new processes, while the old ones finish their requests."""
        old = {child.pid for child in self.web_workers()}
        self.web.process.send_signal(signal.SIGHUP)
        self.eventually(lambda: not old & {child.pid for child in self.web_workers()}, 90)

    def send(self, text: str) -> None:
        """Begins a translation whose answer nobody waits for."""
        document = 'mutation ($text: String!) { translate(input: {texts: [$text], target: "en"}) { model } }'

        def post() -> None:
            with suppress(requests.RequestException):  # its web process may be killed
                self._post(document, {"text": text})

        threading.Thread(target=post, daemon=True).start()

    def is_ready(self) -> bool:
        return requests.get(f"{self.url}/readyz", timeout=90).ok

    def status(self) -> Any:
        document = "{ status { broker deadLetters models { queues { depth workers } } workers { name active } } }"
        return self._post(document, {})["data"]["status"]

    def _post(self, document: str, variables: dict[str, str]) -> Any:
        headers = {"Authorization": f"Bearer {self.secret}"}
        body = {"query": document, "variables": variables}
        return requests.post(f"{self.url}/graphql", json=body, headers=headers, timeout=90).json()

    def counted(self) -> tuple[int, int]:
        """The number of charged characters, and the number of stored answers."""
        charged = self._post("{ usage { characters } }", {})["data"]["usage"]["characters"]
        kept = select(func.count(idempotent_request.c.answer))
        return charged, self.database.run(lambda connection: connection.scalar(kept)) or 0

    def _supervise(self) -> None:
        while not self._closing.wait(SUPERVISION):
            with self._changing:
                for dead in [worker for worker in self.workers if worker.process.poll() is not None]:
                    self.workers.remove(dead)
                    self.deaths += 1
                    self.workers.append(self.start_worker())
