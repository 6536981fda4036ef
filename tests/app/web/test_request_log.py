from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from flask.testing import FlaskClient

from app import create_app
from app.monitoring.traces import Traces
from app.settings import Settings
from app.translation.translator import EchoTranslator
from app.web import errors
from tasks.contract.errors import Code, TolkError
from telemetry import logs

SECRET = "Nobody's business."


@pytest.fixture
def client(tmp_path: Path) -> FlaskClient:
    return create_app(Settings(traces=tmp_path), EchoTranslator()).test_client()


@pytest.fixture
def fields(caplog: pytest.LogCaptureFixture) -> Callable[[], dict[str, Any]]:
    """What the one line of the log says since the last look."""
    caplog.set_level(logging.INFO, "app.web.request_log")

    def take() -> dict[str, Any]:
        [record] = [record for record in caplog.records if record.name == "app.web.request_log"]
        caplog.clear()
        return {"message": record.getMessage(), **vars(record)["fields"]}

    return take


def test_a_translation_is_one_line_and_one_trace(
    client: FlaskClient, fields: Callable[[], dict[str, Any]], mutation: str, tmp_path: Path
) -> None:
    request_id = str(uuid4())
    variables = {"input": {"texts": [SECRET, "two"], "target": "en"}}
    with client.post(
        "/graphql", json={"query": mutation, "variables": variables}, headers={"X-Request-Id": request_id}
    ) as answer:
        assert answer.headers["X-Request-Id"] == request_id
    line = fields()
    assert line.pop("ms") >= 0
    told = {"texts": 2, "characters": len(SECRET) + 3, "model": "fr-en", "source": "fr", "target": "en"}
    assert line == {"message": "POST /graphql", "client": "127.0.0.1", "status": 200, **told}
    [trace] = Traces(tmp_path).find(request_id)
    assert (trace.name, trace.attributes) == ("POST /graphql", {**told, "client": "127.0.0.1", "status": 200})
    assert trace.duration > 0
    assert not any(SECRET.encode() in path.read_bytes() for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [("{ nonsense }", 400, "BAD_INPUT"), ("mutation { cancelTranslation { cancelled } }", 400, "BAD_INPUT")],
)
def test_a_refusal_says_its_code(
    client: FlaskClient, fields: Callable[[], dict[str, Any]], query: str, status: int, code: str
) -> None:
    client.post("/graphql", json={"query": query}).close()
    line = fields()
    assert (line["status"], line["code"]) == (status, code)


def test_of_several_errors_the_first_counts(client: FlaskClient, fields: Callable[[], dict[str, Any]]) -> None:
    @client.application.get("/several")
    def several() -> str:
        for code in (Code.OVERLOADED, Code.UNAVAILABLE):
            errors.note(TolkError(code, "No."))
        return ""

    client.get("/several").close()
    assert fields()["code"] == "OVERLOADED"


def test_a_clock_that_is_set_back_makes_nothing_take_less_than_no_time(
    client: FlaskClient, fields: Callable[[], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(range(2_000_000_000, 0, -3_600))
    monkeypatch.setattr("time.time", lambda: float(next(times)))
    client.post("/graphql", json={"query": "{ __typename }"}).close()
    assert 0 <= fields()["ms"] < 60_000


def test_what_comes_after_a_request_is_not_logged_as_of_it(client: FlaskClient) -> None:
    with client.post("/graphql", json={"query": "{ __typename }"}) as answer:
        assert logs.request_id.get() == answer.headers["X-Request-Id"]
    assert logs.request_id.get() is None


def test_nothing_that_was_sent_is_logged(client: FlaskClient, fields: Callable[[], dict[str, Any]]) -> None:
    client.get("/graphql", query_string={"query": f"# {SECRET}"}).close()
    assert SECRET not in str(fields())
    client.get("/nowhere\x1b[31m").close()
    assert fields()["message"] == "GET /nowhere%1B%5B31m"


def test_probes_are_logged_where_everything_is(
    client: FlaskClient, fields: Callable[[], dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    client.get("/healthz").close()
    assert caplog.records == []
    caplog.set_level(logging.DEBUG, "app.web.request_log")
    client.get("/healthz").close()
    assert fields()["message"] == "GET /healthz"


def test_what_asks_for_nothing_leaves_no_trace(client: FlaskClient, tmp_path: Path) -> None:
    client.get("/").close()
    client.get("/graphql", headers={"Accept": "text/html"}).close()
    client.options("/graphql").close()
    assert list(tmp_path.iterdir()) == []


def test_texts_that_fail_are_counted(client: FlaskClient, fields: Callable[[], dict[str, Any]], mutation: str) -> None:
    variables = {"input": {"texts": ["x" * 20_001, "two"], "target": "en"}}
    client.post("/graphql", json={"query": mutation, "variables": variables}).close()
    line = fields()
    assert (line["status"], line["texts"], line["failed"]) == (200, 2, 1)


@pytest.mark.parametrize("given", ["0D0A4B3C-5b0e-4c39-8f83-0c1e34c1a8ce", "00000000-0000-0000-0000-000000000000"])
def test_a_caller_may_choose_the_id(client: FlaskClient, given: str) -> None:
    assert client.get("/healthz", headers={"X-Request-Id": given}).headers["X-Request-Id"] == given.lower()


@pytest.mark.parametrize(
    "given",
    ["", "1", "{0d0a4b3c-5b0e-4c39-8f83-0c1e34c1a8ce}", "0d0a4b3c5b0e4c398f830c1e34c1a8ce", "0d0a4b3c-" * 4 + "é"],
)
def test_what_is_no_uuid_is_no_id(client: FlaskClient, given: str) -> None:
    assert client.get("/healthz", headers={"X-Request-Id": given}).headers["X-Request-Id"] != given
