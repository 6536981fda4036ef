"""What can be switched off: introspection, and GraphiQL."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient
from graphql import get_introspection_query

from app import create_app
from app.settings import Settings
from app.translation.translator import EchoTranslator

HTML = {"Accept": "text/html"}


@pytest.fixture
def closed() -> FlaskClient:
    return create_app(Settings(introspection=False, graphiql=False), EchoTranslator()).test_client()


@pytest.mark.parametrize("address", ["/graphql", "/api/graphql"])
@pytest.mark.parametrize(
    "document",
    [
        get_introspection_query(),
        "{ __schema { queryType { name } } }",
        '{ __type(name: "Query") { name } }',
        '{ languages { source } ...F } fragment F on Query { a: __type(name: "Query") { name } }',
    ],
)
def test_introspection_is_refused(closed: FlaskClient, client: FlaskClient, address: str, document: str) -> None:
    answer = closed.post(address, json={"query": document})
    assert answer.status_code == 400
    assert "introspection has been disabled" in answer.json["errors"][0]["message"]
    assert client.post(address, json={"query": document}).status_code == 200


def test_type_names_stay_and_nothing_is_suggested(closed: FlaskClient, client: FlaskClient) -> None:
    answer = closed.post("/graphql", json={"query": "{ __typename languages { __typename } }"})
    assert answer.json == {"data": {"__typename": "Query", "languages": [{"__typename": "LanguagePair"}] * 2}}
    for each, suggested in ((client, True), (closed, False)):
        answer = each.post("/graphql", json={"query": "{ language { source } }"})
        assert ("languages" in answer.json["errors"][0]["message"]) == suggested


@pytest.mark.parametrize("wrong", [{"text": ["Un."]}, {"texts": ["Un."], "targets": "en"}, {"timeouts": 3}])
def test_nothing_is_suggested_for_variables_either(
    closed: FlaskClient, client: FlaskClient, mutation: str, wrong: dict[str, object]
) -> None:
    for each, suggested in ((client, True), (closed, False)):
        answer = each.post("/graphql", json={"query": mutation, "variables": {"input": {"target": "en", **wrong}}})
        assert answer.status_code == 400
        assert ("Did you mean" in answer.text) == suggested


@pytest.mark.parametrize("address", ["/graphql", "/api/graphql", "/api/graphiql"])
def test_graphiql_is_gone_and_the_api_is_not(closed: FlaskClient, client: FlaskClient, address: str) -> None:
    assert client.get(address, headers=HTML).mimetype == "text/html"
    answer = closed.get(address, headers=HTML)
    assert answer.status_code == 404
    assert "switched off" in answer.json["errors"][0]["message"]
    assert closed.post(address, json={"query": "{ languages { source } }"}).status_code == 200


@pytest.mark.parametrize("page", ["/", "/status"])
def test_no_page_leads_to_graphiql_where_it_is_gone(closed: FlaskClient, client: FlaskClient, page: str) -> None:
    assert 'href="/graphql"' in client.get(page).text
    answer = closed.get(page)
    assert answer.status_code == 200
    assert 'href="/graphql"' not in answer.text
    assert "GraphiQL" not in answer.text
    assert 'data-endpoint="/graphql"' in answer.text
