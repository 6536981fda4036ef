from __future__ import annotations

import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask.testing import FlaskClient
from graphql import get_introspection_query
from werkzeug.test import TestResponse

from app import create_app
from app.graphql import view
from app.routes import HEADERS
from app.settings import REQUESTS, Settings
from app.translation.translator import EchoTranslator
from tasks.contract.reply import TranslateReply
from tasks.contract.request import TranslateRequest

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def test_the_process_lives_whether_or_not_it_is_ready() -> None:
    translator = EchoTranslator()
    client = create_app(Settings(), translator).test_client()
    assert client.get("/readyz").json == {"status": "ready"}
    translator.close()
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").json == {"status": "alive"}


@pytest.mark.parametrize("path", ["/", "/graphql"])
def test_pages_load_only_what_is_served_here(client: FlaskClient, path: str) -> None:
    page = client.get(path, headers=HTML)
    assert page.status_code == 200
    assert page.mimetype == "text/html"
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    loaded = re.findall(r"""<(?:script|link|img)[^>]*(?:src|href)="([^"]+)""", page.text)
    assert loaded
    for address in loaded:
        if address != "data:,":
            assert address.startswith("/static/")
            asset = client.get(address)
            assert asset.status_code == 200
            assert "sourceMappingURL" not in asset.text
            if asset.mimetype == "text/css":
                assert not re.search(r"""url\(["']?(?!data:)|@import""", asset.text)
    assert not re.search(r"<script[^>]*>(?!</script>)|\son\w+=|style=", page.text)


def test_each_asset_has_its_licence_beside_it(client: FlaskClient) -> None:
    for name in ("LICENSE.graphiql", "LICENSE.react", "LICENSES.txt"):
        assert "Permission is hereby granted" in client.get(f"/static/graphiql/{name}").text


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


@pytest.mark.parametrize("given", ["0D0A4B3C-5b0e-4c39-8f83-0c1e34c1a8ce", "00000000-0000-0000-0000-000000000000"])
def test_a_caller_may_choose_the_id(client: FlaskClient, given: str) -> None:
    assert client.get("/healthz", headers={"X-Request-Id": given}).headers["X-Request-Id"] == given.lower()


@pytest.mark.parametrize(
    "given",
    ["", "1", "{0d0a4b3c-5b0e-4c39-8f83-0c1e34c1a8ce}", "0d0a4b3c5b0e4c398f830c1e34c1a8ce", "0d0a4b3c-" * 4 + "é"],
)
def test_what_is_no_uuid_is_no_id(client: FlaskClient, given: str) -> None:
    assert client.get("/healthz", headers={"X-Request-Id": given}).headers["X-Request-Id"] != given


def test_a_query_may_come_by_get(client: FlaskClient) -> None:
    answer = client.get("/graphql", query_string={"query": "{ languages { source } }"})
    assert answer.json == {"data": {"languages": [{"source": "fr"}]}}


@pytest.mark.parametrize(("headers", "status"), [(HTML, 200), ({}, 400)])
def test_head_is_get_without_a_body(client: FlaskClient, headers: dict[str, str], status: int) -> None:
    answer = client.head("/graphql", headers=headers)
    assert (answer.status_code, answer.data) == (status, b"")


def test_what_graphiql_asks_first_is_answered(client: FlaskClient) -> None:
    answer = client.post("/graphql", json={"query": get_introspection_query()})
    assert answer.status_code == 200
    assert answer.json["data"]["__schema"]["mutationType"]["name"] == "Mutation"


@pytest.mark.parametrize(
    ("accept", "mimetype"),
    [
        ("application/json", "application/json"),
        ("application/graphql-response+json", "application/graphql-response+json"),
    ],
)
def test_the_status_does_not_depend_on_the_media_type(client: FlaskClient, accept: str, mimetype: str) -> None:
    for document, status in [("{ languages { source } }", 200), ("{ nothing }", 400)]:
        answer = client.post("/graphql", json={"query": document}, headers={"Accept": accept})
        assert (answer.status_code, answer.mimetype) == (status, mimetype)


def test_a_document_is_parsed_once_and_an_invalid_one_stays_invalid(
    client: FlaskClient, translate: Callable[..., TestResponse], monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[str] = []

    def parse(source: str, **options: Any) -> Any:
        parsed.append(source)
        return original(source, **options)

    original = view.parse
    monkeypatch.setattr(view, "parse", parse)
    assert [translate(texts=[text]).status_code for text in ("Un.", "Deux.")] == [200, 200]
    assert len(parsed) == 1
    answers = [client.post("/graphql", json={"query": "{ nothing }"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [400, 400]
    assert answers[0].json["errors"][0]["message"] == answers[1].json["errors"][0]["message"]
    inline = f'mutation {{ translate(input: {{texts: ["{"x" * 9_000}"], target: "en"}}) {{ model }} }}'
    before = len(parsed)
    assert [client.post("/graphql", json={"query": inline}).status_code for _ in range(2)] == [200, 200]
    assert len(parsed) == before + 2  # long documents hold texts, which nothing keeps


def test_letters_travel_as_they_are(translate: Callable[..., TestResponse]) -> None:
    assert "« Dès Noël » 😀" in translate(texts=["« Dès Noël » 😀"]).text


class Patient(EchoTranslator):
    """Translates when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = 0
        self.may = threading.Event()

    def ask(self, request: TranslateRequest) -> TranslateReply:
        self.waiting += 1
        self.may.wait(60)
        return super().ask(request)


def test_however_many_wait_others_are_refused_and_health_is_told(
    mutation: str, eventually: Callable[..., None]
) -> None:
    translator = Patient()
    app = create_app(Settings(), translator)
    query = {"query": mutation, "variables": {"input": {"texts": ["un"], "target": "en", "timeout": 60}}}

    def ask(path: str) -> TestResponse:
        return app.test_client().post(path, json=query)

    with ThreadPoolExecutor(REQUESTS) as threads:
        waiting = [threads.submit(ask, "/graphql") for _ in range(REQUESTS)]
        try:
            eventually(lambda: translator.waiting == REQUESTS)
            refused = [ask(path) for path in ("/graphql", "/api/graphql")]
            assert app.test_client().get("/healthz").status_code == 200
        finally:
            translator.may.set()
        assert {each.result().status_code for each in waiting} == {200}
    assert [answer.status_code for answer in refused] == [503, 503]
    assert [answer.json["errors"][0]["extensions"]["code"] for answer in refused] == ["OVERLOADED"] * 2
    assert [answer.headers["Retry-After"] for answer in refused] == ["1", "1"]
    assert ask("/graphql").status_code == 200
