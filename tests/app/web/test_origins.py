"""What a browser may do for a page of another site: nothing, unless its origin is let in."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import create_app
from app.settings import Settings
from app.translation.translator import EchoTranslator
from tasks.contract.reply import TranslateReply
from tasks.contract.request import TranslateRequest

FRIEND, OTHER_FRIEND, STRANGER = "https://friend.example", "https://friend.example:8443", "https://stranger.example"
TRANSLATE = {"query": 'mutation { translate(input: {texts: ["Un."], target: "en"}) { model } }'}
SENTENCE = {"query": '{ translate(sentence: "Un.") { translatedString } }'}
GRANTS = "Access-Control-Allow-Origin"


class Counting(EchoTranslator):
    requests = 0

    def ask(self, request: TranslateRequest) -> TranslateReply:
        self.requests += 1
        return super().ask(request)


@pytest.fixture
def translator() -> Counting:
    return Counting()


@pytest.fixture
def client(translator: Counting) -> FlaskClient:
    return create_app(Settings(), translator).test_client()


@pytest.fixture(params=[(FRIEND,), (FRIEND, OTHER_FRIEND)], ids=["one", "two"])
def open_client(request: pytest.FixtureRequest, translator: Counting) -> FlaskClient:
    return create_app(Settings(origins=request.param), translator).test_client()


def send(client: FlaskClient, address: str, form: bool, headers: dict[str, str]) -> TestResponse:
    if form:
        return client.post(address, data=SENTENCE, headers=headers)
    return client.post(address, json=TRANSLATE if address == "/graphql" else SENTENCE, headers=headers)


@pytest.mark.parametrize(
    ("address", "form"), [("/graphql", False), ("/api/graphql", False), ("/api/graphql", True), ("/api/graphiql", True)]
)
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": STRANGER},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://localhost.stranger.example"},
        {"Origin": "http://localhost:8000"},  # another port of this host is another origin
        {"Origin": "http://localhost", "Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "same-origin, cross-site"},
    ],
)
def test_what_another_sites_page_sends_is_refused(
    client: FlaskClient, translator: Counting, address: str, form: bool, headers: dict[str, str]
) -> None:
    answer = send(client, address, form, headers)
    assert answer.status_code == 403
    assert answer.json["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    assert "another site" in answer.json["errors"][0]["message"]
    assert GRANTS not in answer.headers
    assert translator.requests == 0


@pytest.mark.parametrize(("address", "form"), [("/graphql", False), ("/api/graphql", False), ("/api/graphql", True)])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://localhost"},
        {"Origin": "https://localhost"},  # a proxy took TLS off
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://public.example"},  # a proxy rewrote Host
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_our_own_pages_and_what_is_no_browser_are_served(
    client: FlaskClient, translator: Counting, address: str, form: bool, headers: dict[str, str]
) -> None:
    answer = send(client, address, form, headers)
    assert answer.status_code == 200, answer.text
    assert translator.requests == 1


def preflight(client: FlaskClient, origin: str, path: str = "/graphql", method: str = "POST") -> TestResponse:
    wanted = "authorization, content-type, x-evil, x-request-id"
    return client.options(
        path,
        headers={
            "Origin": origin,
            "Sec-Fetch-Site": "cross-site",
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": wanted,
        },
    )


def test_an_origin_that_is_let_in_may_post_to_graphql(open_client: FlaskClient, translator: Counting) -> None:
    asked = preflight(open_client, FRIEND)
    assert asked.status_code == 200
    assert asked.headers[GRANTS] == FRIEND
    assert asked.headers["Access-Control-Allow-Methods"] == "POST"
    assert asked.headers["Access-Control-Allow-Headers"] == "authorization, content-type, x-request-id"
    answer = send(open_client, "/graphql", False, {"Origin": FRIEND, "Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 200
    assert translator.requests == 1
    assert answer.headers[GRANTS] == FRIEND
    assert answer.headers["Access-Control-Expose-Headers"] == "Retry-After, X-Request-Id"
    for each in (asked, answer):
        assert "Access-Control-Allow-Credentials" not in each.headers


def test_it_can_read_errors_too(open_client: FlaskClient) -> None:
    for sent in ({"query": "{ nothing }"}, []):
        answer = open_client.post("/graphql", json=sent, headers={"Origin": FRIEND})
        assert answer.status_code == 400
        assert answer.headers[GRANTS] == FRIEND


def test_no_other_origin_path_or_method_is_opened(open_client: FlaskClient) -> None:
    assert GRANTS not in preflight(open_client, STRANGER).headers
    assert GRANTS not in preflight(open_client, "https://friend.example.stranger.example").headers
    assert GRANTS not in preflight(open_client, FRIEND, "/api/graphql").headers
    assert "Access-Control-Allow-Methods" not in preflight(open_client, FRIEND, method="DELETE").headers
    for path, form in (("/api/graphql", False), ("/api/graphql", True), ("/api/graphiql", True)):
        assert send(open_client, path, form, {"Origin": FRIEND}).status_code == 403
    assert send(open_client, "/graphql", False, {"Origin": STRANGER}).status_code == 403
    assert send(open_client, "/graphql", False, {"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert GRANTS not in open_client.get("/status", headers={"Origin": FRIEND}).headers


@pytest.mark.parametrize("headers", [{}, {"Origin": FRIEND}, {"Origin": STRANGER}])
def test_a_cache_is_told_what_the_answer_depends_on(
    open_client: FlaskClient, client: FlaskClient, headers: dict[str, str]
) -> None:
    query = {"query": "{ languages { source } }"}
    answers = [open_client.get("/graphql", query_string=query, headers=headers), preflight(open_client, FRIEND)]
    for answer in answers:
        assert answer.headers.getlist("Vary") == ["Origin"]
    assert "Vary" not in client.get("/graphql", query_string=query, headers=headers).headers


def test_nothing_is_open_by_default(client: FlaskClient) -> None:
    for answer in (preflight(client, FRIEND), client.get("/graphql", headers={"Origin": FRIEND})):
        assert not any(name.startswith("Access-Control-") for name in dict(answer.headers))


def test_a_form_that_pretends_to_be_json_is_refused(client: FlaskClient, translator: Counting) -> None:
    """`enctype=text/plain` lets a form spell JSON, in browsers that send neither header."""
    body: Any = json.dumps(TRANSLATE)
    for content_type in ("text/plain", "text/plain; application/json", ""):
        assert client.post("/graphql", data=body, content_type=content_type).status_code == 415
    assert translator.requests == 0
