from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import make_url
from werkzeug.test import TestResponse

from app import create_app
from app.database import Database
from app.settings import Settings
from app.translator import EchoTranslator

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
def mutation() -> str:
    return MUTATION


@pytest.fixture
def translate(client: FlaskClient) -> Callable[..., TestResponse]:
    """Posts the mutation with the fields given, target `en` unless said otherwise."""

    def call(client: FlaskClient = client, **fields: Any) -> TestResponse:
        variables = {"input": {"target": "en", **fields}}
        return client.post("/graphql", json={"query": MUTATION, "variables": variables})

    return call


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty database, up to date: a file of SQLite, and one of PostgreSQL."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/tolk.sqlite"
    else:
        url = request.getfixturevalue("postgresql").url
    database = Database(make_url(url))
    database.upgrade()
    yield database
    database.downgrade("base")
    database.close()
