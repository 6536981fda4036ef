from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import create_app
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
