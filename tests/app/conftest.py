from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import requests
from flask.testing import FlaskClient
from sqlalchemy import delete, make_url
from werkzeug.test import TestResponse

from app import create_app
from app.database.tables import metadata
from app.database.transactions import Database
from app.settings import Settings
from app.translation.translator import EchoTranslator
from tests.app.recorder import TWO_MODELS, Recorder

MUTATION = """
mutation Translate($input: TranslateInput!) {
  translate(input: $input) {
    requestId model version
    translations { text score flags error { code message } }
  }
}
"""


@pytest.fixture
def client() -> FlaskClient:
    return create_app(Settings(), EchoTranslator()).test_client()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def two_models(tmp_path: Path, recorder: Recorder) -> FlaskClient:
    """A web tier that offers TWO_MODELS, and has the recorder translate."""
    path = tmp_path / "models.toml"
    path.write_text(TWO_MODELS)
    return create_app(Settings(models=path), recorder).test_client()


@pytest.fixture
def mutation() -> str:
    return MUTATION


@pytest.fixture
def translate(client: FlaskClient) -> Callable[..., TestResponse]:
    """Posts the mutation with the fields given, target `en` unless said otherwise."""

    def call(client: FlaskClient = client, **fields: Any) -> TestResponse:
        variables = {"input": {"target": "en", **fields}}
        return client.post("/graphql", json={"query": MUTATION, "variables": variables})

    return call


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def migrated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A database with all tables, for the tests of a module: a file of SQLite, and one of PostgreSQL."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('database')}/tolk.sqlite"
    else:
        url = request.getfixturevalue("postgresql").url
    database = Database(make_url(url))
    database.upgrade()
    yield database
    database.downgrade("base")
    database.close()


@pytest.fixture
def database(migrated: Database) -> Iterator[Database]:
    """The same without rows."""
    yield migrated
    names = ", ".join(metadata.tables)
    with migrated.engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(
                # The applications of earlier tests keep their connections open.
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                " AND backend_type = 'client backend' AND (SELECT count(*) FROM pg_stat_activity) > 40"
            )
            connection.exec_driver_sql(f"TRUNCATE {names} RESTART IDENTITY")
        else:
            for table in reversed(metadata.sorted_tables):
                connection.execute(delete(table))


@dataclass
class Gunicorn:
    """A web tier under gunicorn, with the echo translator unless it is told otherwise."""

    url: str
    service: Any

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    @property
    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.service.process.pid).children()

    def connect(self, timeout: float = 20) -> socket.socket:
        """Waits for `timeout` seconds where it waits: what lasts longer is a hang."""
        return socket.create_connection((urlsplit(self.url).hostname, urlsplit(self.url).port), timeout)

    def head(self, length: int | None = None, path: str = "/graphql", **headers: str) -> bytes:
        """Of a POST of JSON, with a Content-Length unless there is no length."""
        lines = [f"POST {path} HTTP/1.1", f"Host: {self.host}", "Content-Type: application/json"]
        lines += [] if length is None else [f"Content-Length: {length}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode()

    def answers(self) -> bool:
        answer = requests.post(f"{self.url}/graphql", json={"query": "{ languages { source } }"}, timeout=20)
        return answer.json() == {"data": {"languages": [{"source": "fr"}, {"source": "en"}]}}


@pytest.fixture(scope="module")
def start_gunicorn(
    spawn: Callable[..., Any], await_web: Callable[..., None], free_port: Callable[[], int]
) -> Callable[..., Gunicorn]:
    """Starts it with more environment, and returns when it answers."""

    def start(*command: str, **environ: str) -> Gunicorn:
        port = str(free_port())
        service = spawn(*(command or ("gunicorn",)), **{"TOLK_TRANSLATOR": "echo", "PORT": port, **environ})
        web = Gunicorn(f"http://127.0.0.1:{port}", service)
        await_web(web.url, service)
        return web

    return start
