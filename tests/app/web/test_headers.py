from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.web.headers import HEADERS

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.mark.parametrize("path", ["/", "/graphql", "/healthz", "/nowhere", "/static/page.css"])
def test_every_response_carries_an_id_of_its_own_and_opens_nothing_to_other_sites(
    client: FlaskClient, path: str
) -> None:
    first, second = client.get(path), client.get(path, headers={"Origin": "https://elsewhere.example"})
    assert re.fullmatch(
        r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", first.headers["X-Request-Id"]
    )
    assert first.headers["X-Request-Id"] != second.headers["X-Request-Id"]
    assert second.headers["X-Content-Type-Options"] == "nosniff"
    assert second.headers["Content-Security-Policy"]
    assert not any(name.lower().startswith("access-control-") for name in dict(second.headers))


@pytest.mark.parametrize(
    ("method", "path", "status", "caching"),
    [
        ("GET", "/", 200, "no-cache"),
        ("GET", "/graphql", 200, "no-cache"),
        ("GET", "/static/page.css", 200, "no-cache"),
        ("POST", "/graphql", 415, "no-store"),
        ("PUT", "/graphql", 405, "no-store"),
        ("OPTIONS", "/graphql", 200, "no-cache"),
        ("GET", "/healthz", 200, "no-store"),
        ("GET", "/nowhere", 404, "no-store"),
        ("GET", "/static/nowhere", 404, "no-store"),
    ],
)
def test_every_response_is_as_closed_as_a_browser_can_make_it(
    client: FlaskClient, method: str, path: str, status: int, caching: str
) -> None:
    answer = client.open(path, method=method, headers=HTML)
    assert answer.status_code == status
    assert answer.headers["Cache-Control"] == caching
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    for name, value in HEADERS.items():
        assert answer.headers.getlist(name) == [value]


def test_an_answer_is_not_kept(translate: Callable[..., TestResponse]) -> None:
    assert translate(texts=["Un."]).headers["Cache-Control"] == "no-store"


def test_https_is_insisted_on_where_it_is_spoken(client: FlaskClient) -> None:
    said = "Strict-Transport-Security"
    assert said not in client.get("/", headers={"X-Forwarded-Proto": "https"}).headers
    assert client.get("/", base_url="https://tolk.example").headers[said] == "max-age=31536000"
