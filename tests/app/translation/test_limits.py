from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import create_app
from app.settings import Settings
from app.translation.translator import EchoTranslator

LONGEST = ["x" * 20_000] * 5


@pytest.mark.parametrize(
    ("at", "over", "says"),
    [
        ({"texts": ["x"] * 128}, {"texts": ["x"] * 129}, "128"),
        ({"texts": LONGEST}, {"texts": [*LONGEST, "x"]}, "100000"),
        ({"texts": ["x"], "timeout": 60}, {"texts": ["x"], "timeout": 60.001}, "at most 60 seconds"),
        ({"texts": ["x"], "timeout": 5}, {"texts": ["x"], "timeout": 0}, "at most 60 seconds"),
        ({"texts": ["x"], "timeout": None}, {"texts": ["x"], "timeout": -1}, "at most 60 seconds"),
        ({"texts": []}, {"texts": ["x"], "model": "x" * 101}, "model: a name has at most 100 characters"),
        (
            {"texts": ["x"], "preserve": ["x" * 100] * 100},
            {"texts": ["x"], "preserve": ["x"] * 101},
            "preserve: at most 100",
        ),
        ({"texts": ["x"], "preserve": ["x"]}, {"texts": ["x"], "preserve": ["x" * 101]}, "preserve: a phrase has 1 to"),
        ({"texts": ["x"], "preserve": []}, {"texts": ["x"], "preserve": ["x", " "]}, "that are not all blank"),
    ],
)
def test_a_request_at_a_limit_is_answered_and_one_over_it_says_the_limit(
    translate: Callable[..., TestResponse], at: dict[str, Any], over: dict[str, Any], says: str
) -> None:
    answer = translate(**at)
    assert answer.status_code == 200
    assert [t["text"] for t in answer.json["data"]["translate"]["translations"]] == at["texts"]
    refusal = translate(**over)
    assert refusal.status_code == 400
    assert refusal.json["errors"][0]["extensions"]["code"] == "BAD_INPUT"
    assert says in refusal.json["errors"][0]["message"]


def test_a_text_over_the_limit_says_so_and_spoils_no_other(translate: Callable[..., TestResponse]) -> None:
    answer = translate(texts=["x" * 20_001, "😀" * 20_000, "😀" * 20_001, "y"])
    assert answer.status_code == 200
    long, emoji, long_emoji, y = answer.json["data"]["translate"]["translations"]
    assert (emoji["text"], y["text"]) == ("😀" * 20_000, "y")
    for refused in (long, long_emoji):
        assert refused["text"] is None
        assert refused["error"]["code"] == "BAD_INPUT"
        assert "20001 characters, more than the 20000" in refused["error"]["message"]


def test_where_every_text_is_over_the_limit_nothing_is_sent(translate: Callable[..., TestResponse]) -> None:
    payload = translate(texts=["x" * 20_001]).json["data"]["translate"]
    assert payload["version"] is None
    assert [translation["error"]["code"] for translation in payload["translations"]] == ["BAD_INPUT"]


@pytest.mark.parametrize("timeout", ["1e999", "-1e999", "1" + "0" * 400])
def test_a_timeout_beyond_all_numbers_is_refused(client: FlaskClient, mutation: str, timeout: str) -> None:
    literal = f'mutation {{ translate(input: {{texts: ["x"], target: "en", timeout: {timeout}}}) {{ model }} }}'
    variable = f'{{"query": {mutation!r}'.replace("'", '"') + (
        f', "variables": {{"input": {{"texts": ["x"], "target": "en", "timeout": {timeout}}}}}}}'
    )
    for answer in (
        client.post("/graphql", json={"query": literal}),
        client.post("/graphql", data=variable, content_type="application/json"),
    ):
        assert answer.status_code == 400
        assert answer.json["errors"][0]["extensions"]["code"] == "BAD_INPUT"


def test_the_limits_are_settings(translate: Callable[..., TestResponse]) -> None:
    settings = Settings(max_texts=2, max_text_characters=3, max_request_characters=4, max_timeout=90)
    small = create_app(settings, EchoTranslator()).test_client()
    assert translate(small, texts=["xxx", "x"], timeout=90).status_code == 200
    for over in ({"texts": ["x"] * 3}, {"texts": ["xxx", "xx"]}, {"texts": ["x"], "timeout": 91}):
        assert translate(small, **over).status_code == 400
    assert "than the 3 that" in translate(small, texts=["xxxx"]).text


def test_the_largest_request_fits_the_body_in_its_longest_spelling(client: FlaskClient, mutation: str) -> None:
    texts = ["😀" * 20_000] * 5
    body = json.dumps({"query": mutation, "variables": {"input": {"texts": texts, "target": "en"}}})
    assert len(body) > 12 * 100_000
    answer = client.post("/graphql", data=body, content_type="application/json")
    assert answer.json["data"]["translate"]["translations"][4]["text"] == texts[4]


@pytest.mark.parametrize("environ", [{}, {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}])
def test_a_body_over_the_limit_is_refused_unread(client: FlaskClient, environ: dict[str, Any]) -> None:
    body = b'{"query": "' + b"x" * Settings().max_call_bytes
    answer = client.post("/graphql", data=body, content_type="application/json", environ_overrides=environ)
    assert answer.status_code == 413
    assert answer.json["errors"][0]["extensions"]["code"] == "BAD_INPUT"
    assert str(Settings().max_call_bytes) in answer.json["errors"][0]["message"]


@pytest.mark.parametrize("form", ["application/x-www-form-urlencoded", "multipart/form-data"])
def test_the_limit_of_a_form_is_the_one_that_is_said(client: FlaskClient, form: str) -> None:
    query = "{ languages { source } }"
    limit = Settings().max_call_bytes
    large = {"query": f"{query} #{'x' * (limit - 5_000)}"}
    answer = client.post("/api/graphql", data=large, content_type=form)
    assert answer.status_code == 200
    over = client.post("/api/graphql", data={"query": "x" * limit}, content_type=form)
    assert over.status_code == 413
    assert f"over the limit of {limit} bytes" in over.json["errors"][0]["message"]


def test_a_form_of_many_fields_is_told_how_many_it_may_have(client: FlaskClient) -> None:
    fields = {f"field-{number}": "x" for number in range(1001)}
    answer = client.post("/api/graphql", data=fields, content_type="multipart/form-data")
    assert answer.status_code == 413
    assert answer.json["errors"][0]["message"] == "The form has more than 1000 fields. Send fewer."
