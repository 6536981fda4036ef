from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from graphql import get_introspection_query
from werkzeug.test import TestResponse

from app import create_app
from app.monitoring.recent_errors import RecentErrors
from app.settings import Settings
from app.translation.translator import EchoTranslator
from tasks.contract.errors import Code
from tasks.contract.reply import Failure, TextResult, TranslateReply
from tasks.contract.request import TranslateRequest

QUERY = "query Translate($sentence: String!) { translate(sentence: $sentence) { translatedString } }"
ADDRESSES = ["/api/graphql", "/api/graphiql"]
URLENCODED, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"
ANSWER = {"data": {"translate": {"translatedString": "« Dès Noël » & 1 + 1"}}}
VARIABLES = {"sentence": "« Dès Noël » & 1 + 1"}


class Answering(EchoTranslator):
    """Gives one result, and keeps what it was asked."""

    def __init__(self, result: TextResult) -> None:
        super().__init__()
        self.result = result
        self.requests: list[TranslateRequest] = []

    def ask(self, request: TranslateRequest) -> TranslateReply:
        self.requests.append(request)
        return TranslateReply("fr-en", results=(self.result,) * len(request.texts))


def post(client: FlaskClient, address: str = ADDRESSES[0], form: str | None = None, **fields: Any) -> TestResponse:
    body = {"query": QUERY, "variables": VARIABLES, **fields}
    if form is None:
        return client.post(address, json=body)
    return client.post(address, data=body, content_type=form)


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("variables", [VARIABLES, json.dumps(VARIABLES)], ids=["object", "string"])
def test_json(client: FlaskClient, address: str, variables: Any) -> None:
    answer = post(client, address, variables=variables)
    assert (answer.status_code, answer.json) == (200, ANSWER)


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("form", [URLENCODED, MULTIPART])
@pytest.mark.parametrize("name", ["Translate", ""])
def test_a_form(client: FlaskClient, address: str, form: str, name: str) -> None:
    answer = post(client, address, form, variables=json.dumps(VARIABLES), operationName=name)
    assert (answer.status_code, answer.json) == (200, ANSWER)
    inline = post(client, address, form, query='{ translate(sentence: "Un.") { translatedString } }', variables="")
    assert inline.json == {"data": {"translate": {"translatedString": "Un."}}}


def test_through_another_language_says_so(tmp_path: Path) -> None:
    models = tmp_path / "models.toml"
    entry = '[models.{0}-{1}]\nreference = "fr-en"\npairs = [{{ source = "{0}", target = "{1}" }}]\n'
    models.write_text(entry.format("fr", "de") + entry.format("de", "en"))
    client = create_app(Settings(models=models), EchoTranslator()).test_client()
    answer = post(client, query='{ translate(sentence: "Un.") { translatedString via } }', variables={})
    assert answer.json == {"data": {"translate": {"translatedString": "Un.", "via": ["de"]}}}


def test_it_is_french_to_english() -> None:
    translator = Answering(TextResult("One."))
    post(create_app(Settings(), translator).test_client())
    [request] = translator.requests
    assert (request.texts, request.source, request.target) == ((VARIABLES["sentence"],), "fr", "en")


def test_only_there_and_only_as_a_query(client: FlaskClient) -> None:
    elsewhere = post(client, "/graphql")
    assert elsewhere.status_code == 400
    assert post(client, "/graphql", URLENCODED, variables=json.dumps(VARIABLES)).status_code == 415
    assert client.post("/graphql", json={"query": QUERY, "variables": json.dumps(VARIABLES)}).status_code == 400
    mutation = 'mutation { translate(input: {texts: ["Un."], target: "en"}) { model } }'
    for form in (None, URLENCODED, MULTIPART):
        assert post(client, form=form, query=mutation, variables="{}").status_code == 400


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_get_shows_graphiql_and_translates_nothing(address: str) -> None:
    translator = Answering(TextResult("One."))
    client = create_app(Settings(), translator).test_client()
    page = client.get(address, headers={"Accept": "text/html"})
    assert page.mimetype == "text/html"
    assert f'data-endpoint="{address}"' in page.text
    answer = client.get(address, query_string={"query": '{ translate(sentence: "Un.") { translatedString } }'})
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "POST"
    assert translator.requests == []


def test_the_field_is_deprecated_in_favour_of_the_mutation(client: FlaskClient) -> None:
    schema = client.post(ADDRESSES[0], json={"query": get_introspection_query()}).json["data"]["__schema"]
    [query] = [kind for kind in schema["types"] if kind["name"] == "Query"]
    [field] = [field for field in query["fields"] if field["name"] == "translate"]
    assert field["isDeprecated"]
    assert "mutation" in field["deprecationReason"]
    assert client.post(ADDRESSES[0], json={"query": "{ languages { source } }"}).status_code == 200


@pytest.mark.parametrize("form", [None, URLENCODED, MULTIPART])
@pytest.mark.parametrize(
    "variables", ["{", "[]", '"x"', "1", "{}", '{"sentence": null}', '{"sentence": 1}', '{"sentence": NaN}']
)
def test_variables_that_do_not_fit_are_refused(client: FlaskClient, form: str | None, variables: str) -> None:
    answer = post(client, form=form, variables=variables)
    assert answer.status_code == 400
    assert answer.json["errors"][0]["extensions"]["code"] == "BAD_INPUT"


@pytest.mark.parametrize("form", [URLENCODED, MULTIPART])
def test_a_form_without_a_query_and_another_content_type(client: FlaskClient, form: str) -> None:
    assert client.post(ADDRESSES[0], data={"variables": "{}"}, content_type=form).status_code == 400
    assert client.post(ADDRESSES[0], data=b"\xff\xfe--", content_type=form).status_code == 400
    assert client.post(ADDRESSES[0], data=QUERY, content_type="application/graphql").status_code == 415


def test_a_sentence_that_fails_fails_the_request_and_counts_once() -> None:
    translator = Answering(TextResult(error=Failure(Code.TIMEOUT, "Too late.")))
    errors = RecentErrors()
    answer = post(create_app(Settings(), translator, errors).test_client())
    assert answer.status_code == 504
    assert answer.json["data"] is None
    assert answer.json["errors"][0]["message"] == "Too late."
    assert [(each.code, each.count) for each in errors.counts()] == [(Code.TIMEOUT, 1)]
    long = post(create_app(Settings(), translator).test_client(), variables={"sentence": "x" * 20_001})
    assert (long.status_code, long.json["errors"][0]["extensions"]["code"]) == (400, "BAD_INPUT")


@pytest.mark.parametrize(
    "document",
    [
        'query Q { a: translate(sentence: "a") { translatedString } b: translate(sentence: "b") { translatedString } }',
        'query Q { ...F b: translate(sentence: "b") { translatedString } }'
        ' fragment F on Query { a: translate(sentence: "a") { translatedString } }',
    ],
)
def test_a_request_holds_one_sentence(document: str) -> None:
    translator = Answering(TextResult("One."))
    answer = post(create_app(Settings(), translator).test_client(), query=document, variables={})
    assert answer.status_code == 400
    assert answer.json["errors"][0]["message"].startswith("translate: a request asks for it only once.")
    assert translator.requests == []
