from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import create_app
from app.settings import REPOSITORY, Settings
from app.translation.translator import EchoTranslator
from app.web.errors import STATUS
from tasks.contract.errors import Code, TolkError
from tasks.contract.reply import Flag, TextResult, TranslateReply
from tasks.contract.request import TranslateRequest


class Failing(EchoTranslator):
    """Raises the error for every request."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def ask(self, request: TranslateRequest) -> TranslateReply:
        raise self.error

    def check(self) -> None:
        raise self.error


class Mistaken(EchoTranslator):
    """Breaks the protocol: answers with a flag that is none."""

    def ask(self, request: TranslateRequest) -> TranslateReply:
        return TranslateReply(request.model, results=(TextResult("secret", flags=(cast(Flag, "secret"),)),))


def only_error(answer: TestResponse) -> dict[str, Any]:
    """The one error of an answer, which is JSON and names the request of its header."""
    assert answer.mimetype == "application/json"
    [error] = answer.json["errors"]
    assert error["extensions"]["requestId"] == answer.headers["X-Request-Id"]
    return error


@pytest.mark.parametrize("code", Code)
def test_every_code_has_its_status_and_is_nothing_to_log(
    code: Code, translate: Callable[..., TestResponse], caplog: pytest.LogCaptureFixture
) -> None:
    client = create_app(Settings(), Failing(TolkError(code, "Do this.", retry_after=1.2))).test_client()
    for answer in (translate(client, texts=["Un."]), client.get("/readyz")):
        assert answer.status_code == STATUS[code]
        assert answer.headers["Retry-After"] == "2"
        error = only_error(answer)
        assert error["message"] == "Do this."
        assert error["extensions"] == {
            "code": code,
            "requestId": answer.headers["X-Request-Id"],
            "retryAfter": 1.2,
        }
    assert caplog.records == []


def test_there_is_no_retry_after_where_none_is_known(translate: Callable[..., TestResponse]) -> None:
    answer = translate(
        create_app(Settings(), Failing(TolkError(Code.OVERLOADED, "Later."))).test_client(), texts=["Un."]
    )
    assert answer.status_code == 503
    assert "Retry-After" not in answer.headers
    assert "retryAfter" not in only_error(answer)["extensions"]


@pytest.mark.parametrize(
    "translator",
    [
        Failing(ZeroDivisionError("secret")),
        Failing(RecursionError("secret")),
        Mistaken(),
    ],
)
def test_what_nobody_foresaw_is_logged_and_not_told(
    translator: EchoTranslator, translate: Callable[..., TestResponse], caplog: pytest.LogCaptureFixture
) -> None:
    answer = translate(create_app(Settings(), translator).test_client(), texts=["Un."])
    assert answer.status_code == 500
    assert only_error(answer)["extensions"]["code"] == "INTERNAL"
    assert "secret" not in answer.text
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert answer.headers["X-Request-Id"] in record.getMessage()
    assert "Error:\n  File " in caplog.text  # where it happened
    assert "secret" not in caplog.text  # what it says may quote a text
    caplog.clear()
    translate(create_app(Settings(log_texts=True), translator).test_client(), texts=["Un."])
    assert "secret" in caplog.text


def test_an_unforeseen_error_outside_graphql_is_told_the_same_way() -> None:
    app = create_app(Settings(), Failing(ZeroDivisionError("secret")))
    for debug in (False, True):
        app.debug = app.testing = debug
        answer = app.test_client().get("/readyz")
        assert answer.status_code == 500
        assert only_error(answer)["extensions"]["code"] == "INTERNAL"
        assert "secret" not in answer.text


LANGUAGES = "{ languages { source } }"
TRANSLATE = 'mutation { translate(input: {texts: "Un.", target: "en"}) { model } }'


def body(**fields: Any) -> dict[str, Any]:
    return {"data": json.dumps(fields), "content_type": "application/json"}


@pytest.mark.parametrize(
    ("status", "method", "path", "sent"),
    [
        (400, "POST", "/graphql", body(query="{ languages {")),
        (400, "POST", "/graphql", body(query="{ nothing }")),
        (400, "POST", "/graphql", body(query="")),
        (400, "POST", "/graphql", body(query=None)),
        (400, "POST", "/graphql", body(query=5)),
        (400, "POST", "/graphql", body(query=["{ languages { source } }"])),
        (400, "POST", "/graphql", body()),
        (400, "POST", "/graphql", body(query=LANGUAGES, variables="{}")),
        (400, "POST", "/graphql", body(query=LANGUAGES, variables=[1])),
        (400, "POST", "/graphql", body(query=LANGUAGES, extensions=1)),
        (400, "POST", "/graphql", body(query=LANGUAGES, operationName="Other")),
        (400, "POST", "/graphql", body(query=LANGUAGES, operationName={})),
        (400, "POST", "/graphql", body(query="query A { __typename } query B { __typename }")),
        (400, "POST", "/graphql", body(query="fragment F on Query { __typename }")),
        (400, "POST", "/graphql", body(query="subscription { translate }")),
        (400, "POST", "/graphql", {"data": "", "content_type": "application/json"}),
        (400, "POST", "/graphql", {"data": "[]", "content_type": "application/json"}),
        (400, "POST", "/graphql", {"data": '"x"', "content_type": "application/json"}),
        (400, "POST", "/graphql", {"data": "null", "content_type": "application/json"}),
        (400, "POST", "/graphql", {"data": "{", "content_type": "application/json"}),
        (400, "POST", "/graphql", {"data": b"\xff\xfe{", "content_type": "application/json"}),
        (400, "POST", "/graphql", {"data": "[" * 100_000, "content_type": "application/json"}),
        (400, "POST", "/graphql", {"data": '{"query": NaN}', "content_type": "application/json"}),
        (400, "POST", "/graphql", {"data": '{"a": ' + "1" * 10_000 + "}", "content_type": "application/json"}),
        (400, "GET", "/graphql", {}),
        (400, "GET", "/graphql", {"query_string": {"query": LANGUAGES, "variables": "{"}}),
        (405, "GET", "/graphql", {"query_string": {"query": TRANSLATE}}),
        (405, "PUT", "/graphql", body(query=LANGUAGES)),
        (405, "DELETE", "/", {}),
        (405, "POST", "/healthz", {}),
        (415, "POST", "/graphql", {"data": {"query": LANGUAGES}}),
        (415, "POST", "/graphql", {"data": LANGUAGES, "content_type": "application/graphql"}),
        (415, "POST", "/graphql", body(query=LANGUAGES) | {"content_type": "text/plain"}),
        (415, "POST", "/graphql", body(query=LANGUAGES) | {"content_type": "text/plain,application/json"}),
        (415, "POST", "/graphql", {"data": json.dumps({"query": LANGUAGES})}),
        (404, "GET", "/graphql/", {}),
        (404, "GET", "/nowhere", {}),
        (404, "GET", "/static/../settings.py", {}),
        (404, "GET", "/static/%00", {}),
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused_in_the_same_shape(
    client: FlaskClient, caplog: pytest.LogCaptureFixture, status: int, method: str, path: str, sent: dict[str, Any]
) -> None:
    answer = client.open(path, method=method, **sent)
    assert answer.status_code == status
    assert only_error(answer)["extensions"]["code"] == "BAD_INPUT"
    assert ("Allow" in answer.headers) == (status == 405)
    assert caplog.records == []


@pytest.mark.parametrize(
    "input",
    [
        {"texts": ["Un."], "target": "en", "beam": 64},
        {"texts": [None], "target": "en"},
        {"texts": [1], "target": "en"},
        {"texts": {"a": "b"}, "target": "en"},
        {"texts": ["Un."], "target": None},
        {"texts": ["Un."]},
        {"texts": ["Un."], "target": "en", "timeout": "10"},
        {"texts": ["Un."], "target": "en", "timeout": True},
        [],
        "Un.",
        None,
    ],
)
def test_an_input_of_another_shape_is_refused(client: FlaskClient, mutation: str, input: object) -> None:
    answer = client.post("/graphql", json={"query": mutation, "variables": {"input": input}})
    assert answer.status_code == 400
    assert {error["extensions"]["code"] for error in answer.json["errors"]} == {"BAD_INPUT"}


def test_the_documented_table_is_the_one_in_use() -> None:
    rows = (REPOSITORY / "docs" / "api.md").read_text().splitlines()
    for code, status in STATUS.items():
        assert any(row.startswith(f"| `{code}` | {status} |") for row in rows), code


def test_settings_are_documented_with_their_defaults() -> None:
    text = Path(REPOSITORY / "docs" / "api.md").read_text()
    for name, default in {
        "TOLK_MAX_TEXTS": Settings().max_texts,
        "TOLK_MAX_TEXT_CHARACTERS": Settings().max_text_characters,
        "TOLK_MAX_REQUEST_CHARACTERS": Settings().max_request_characters,
        "TOLK_MAX_TIMEOUT": Settings().max_timeout,
    }.items():
        assert f"| `{name}` | {default} |" in text
