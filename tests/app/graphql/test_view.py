from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from graphql import get_introspection_query
from werkzeug.test import TestResponse

from app.graphql import view

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def test_a_query_may_come_by_get(client: FlaskClient) -> None:
    answer = client.get("/graphql", query_string={"query": "{ languages { source } }"})
    assert answer.json == {"data": {"languages": [{"source": "fr"}, {"source": "en"}]}}


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


@pytest.mark.parametrize("path", ["/graphql", "/api/graphql"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "Application/Json"},
        {"Content-Type": 'APPLICATION/JSON; Charset="UTF-8"'},
        {"Content-Type": "application/json;"},
        {"Content-Type": "application/json", "Content-Encoding": "Identity"},
    ],
)
def test_names_of_types_and_encodings_may_have_capitals(
    client: FlaskClient, path: str, headers: dict[str, str]
) -> None:
    answer = client.post(path, data='{"query": "{ languages { source } }"}', headers=headers)
    assert answer.status_code == 200
    assert answer.json["data"]["languages"][0] == {"source": "fr"}


def test_a_form_may_have_capitals_too(client: FlaskClient) -> None:
    headers = {"Content-Type": "Application/X-WWW-Form-URLencoded"}
    assert client.post("/api/graphql", data="query={languages{source}}", headers=headers).status_code == 200


def test_the_accepted_type_may_have_capitals(client: FlaskClient) -> None:
    wrong = {"query": "{ nothing }"}
    strict = {"Accept": "Application/GraphQL-Response+JSON"}
    assert client.post("/graphql", json=wrong, headers=strict).mimetype == "application/graphql-response+json"
