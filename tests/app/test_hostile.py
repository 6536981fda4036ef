"""Whatever is sent gets an answer or a clear error: JSON, never a 500, never another text's answer."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

TEXTS = [
    "",
    " \t\u00a0\u3000",
    "\x00",
    "a\x00b\x1b[31m\x7f\x85",
    "\ud800",
    "\udfff\ud800 a \udc00",
    "\u202egnihtyna\u202c \u200f\u061c",
    "👩‍👩‍👧‍👦🏳️‍🌈🇫🇷",
    "\ufeff\ufffe\uffff\U0010ffff",
    "e\u0301" + "\u0301" * 5_000,
    "\r\n\r\x0b\x0c\u2028\u2029",
    '"}]}\\u0000\\',
    "{{ config }} ${jndi:ldap://x} <script>alert(1)</script> '; DROP TABLE texts; --",
    "١٢٣ 中文 Ελληνικά עברית ไทย",
    "x" * 20_000,
]

fuzz = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=50),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
any_text = st.text(st.characters(codec=None), max_size=60)


def is_answered(answer: TestResponse) -> None:
    assert answer.status_code < 500, answer.text
    assert answer.mimetype == "application/json"
    body = json.loads(answer.data)
    if answer.status_code == 200:
        assert body["data"]
    else:
        assert all(error["extensions"]["code"] in {"BAD_INPUT", "UNKNOWN_MODEL"} for error in body["errors"])


def test_every_text_comes_back_in_its_place(translate: Callable[..., TestResponse]) -> None:
    answer = translate(texts=TEXTS)
    assert answer.status_code == 200
    assert [t["text"] for t in json.loads(answer.data)["data"]["translate"]["translations"]] == TEXTS


def test_lone_surrogates_in_raw_utf8_are_no_trouble(client: FlaskClient) -> None:
    document = b'mutation { translate(input: {texts: [\\"a\\"], target: \\"\xed\xa0\x80\\"}) { model } }'
    is_answered(client.post("/graphql", data=b'{"query": "' + document + b'"}', content_type="application/json"))


@pytest.mark.parametrize("field", ["source", "target", "model"])
@pytest.mark.parametrize(
    "value", ["", " ", "\x00", "\ud800", "fr\r\nX-Evil: 1", "../../etc", "é", "F", "x" * 1_000_000]
)
def test_a_name_that_is_none_is_refused(translate: Callable[..., TestResponse], field: str, value: str) -> None:
    answer = translate(texts=["Un."], **{field: value})
    assert answer.status_code in (400, 404)
    assert "X-Evil" not in answer.headers
    assert len(answer.data) < 5_000
    is_answered(answer)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Length": "-1"},
        {"Content-Length": "many"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "application/json; charset=nothing; ;;=\x7f"},
        {"Content-Type": "é"},
        {"Accept": "\xff"},
        {"Accept": "application/graphql-response+json;q=nothing"},
        {"Accept-Encoding": "x" * 8_000},
        {"Cookie": "session=\x01; =;;"},
        {"X-Forwarded-For": "'"},
        {"X-Forwarded-Host": "evil.example"},
        {"X-Http-Method-Override": "DELETE"},
        {"X-Request-Id": "mine"},
        {"Range": "bytes=1-"},
        {"If-None-Match": "*"},
        {"Authorization": "Basic \xff"},
        {"Transfer-Encoding": "chunked"},
    ],
)
def test_strange_headers_are_no_trouble(client: FlaskClient, headers: dict[str, str]) -> None:
    answer = client.post(
        "/graphql",
        data=b'{"query": "{ languages { source } }"}',
        headers={"Content-Type": "application/json", **headers},
    )
    forwarded = any(name.startswith("X-Forwarded") for name in headers)  # it then needs a key
    assert answer.status_code in ((401,) if forwarded else (200, 400, 415)), answer.text
    assert answer.headers["X-Request-Id"] != "mine"
    assert json.loads(answer.data)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip", "\xff"])
@pytest.mark.parametrize("address", ["/graphql", "/api/graphql"])
def test_a_packed_body_is_refused(client: FlaskClient, address: str, encoding: str) -> None:
    body = gzip.compress(b'{"query": "{ languages { source } }"}')
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    answer = client.post(address, data=body, headers=headers)
    assert answer.status_code == 415
    is_answered(answer)


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("1" * 100_000, 400),  # Python would take minutes for them, and refuses
        ("-" + "9" * 5_000, 400),
        ("1" * 4_000, 400),
        ("1." + "1" * 100_000, 200),
        ("1e" + "9" * 100_000, 400),
        ("1e999", 400),
        ("-1e999", 400),
        ("-0.0", 400),
        ("[" * 10_000 + "]" * 10_000, 400),
        ('{"a":' * 10_000 + "1" + "}" * 10_000, 400),
        ("NaN", 400),
        ('"10"', 400),
    ],
)
def test_a_number_made_to_cost_is_refused(client: FlaskClient, mutation: str, value: str, status: int) -> None:
    """As the timeout, of which a second is as good as any."""
    variables = {"input": {"texts": ["Un."], "target": "en", "timeout": "TIMEOUT"}}
    body = json.dumps({"query": mutation, "variables": variables}).replace('"TIMEOUT"', value)
    answer = client.post("/graphql", data=body, content_type="application/json")
    assert answer.status_code == status, answer.text[:200]
    is_answered(answer)


def test_of_one_name_twice_the_last_counts(client: FlaskClient) -> None:
    body = '{"query": 5, "query": "{ nothing }",' + '"a": 1,' * 50_000 + '"query": "{ languages { source } }"}'
    answer = client.post("/graphql", data=body, content_type="application/json")
    assert answer.json == {"data": {"languages": [{"source": "fr"}, {"source": "en"}]}}


def test_a_body_that_breaks_off_is_refused(client: FlaskClient) -> None:
    class Broken(io.BytesIO):
        def readinto(self, buffer: object) -> int:
            raise EOFError("a chunk's length is no number")

    answer = client.post(
        "/graphql",
        input_stream=Broken(),
        content_type="application/json",
        headers={"Transfer-Encoding": "chunked"},
        environ_overrides={"wsgi.input_terminated": True},
    )
    assert answer.status_code == 400
    is_answered(answer)


@pytest.mark.parametrize("host", ["", "[", "[::1", "a b", "é", "<script>", "x:port", "x" * 5_000])
@pytest.mark.parametrize("path", ["/", "/graphql", "//graphql", "/healthz"])
def test_strange_hosts_are_no_trouble(client: FlaskClient, host: str, path: str) -> None:
    answer = client.get(path, headers={"Accept": "text/html"}, environ_overrides={"HTTP_HOST": host})
    assert answer.status_code < 500
    assert "<script>/" not in answer.text


@pytest.mark.parametrize(
    "document",
    [
        "{" * 900,
        "{ languages " * 300 + "{ source }" + "}" * 300,
        "{ a }" * 3_000,
        "{ languages { " + "source " * 20_000 + "} }",
        "#\n" * 50_000 + "{ languages { source } }",
        "{ languages { source } ...A } fragment A on Query { ...B } fragment B on Query { ...A }",
        "query { __schema { types { fields { type { fields { type { fields { type { fields { name } } } } } } } } } }",
        "query($a: Float = " + "[" * 400 + ") { languages { source } }",
        "mutation { translate(input: " + "{texts: " * 200 + ") { model } }",
        'query @skip(if: "x") { languages { source } }',
        "query($x: Nothing!) { languages { source } }",
        '{ __type(name: "\ud800") { name } }',
        "\ufeff\x00",
    ],
)
def test_a_document_made_to_cost_is_refused(client: FlaskClient, document: str) -> None:
    answer = client.post("/graphql", json={"query": document})
    assert answer.status_code == 400
    is_answered(answer)


@fuzz
@given(input=anything)
def test_any_input_is_answered(client: FlaskClient, mutation: str, input: object) -> None:
    is_answered(client.post("/graphql", json={"query": mutation, "variables": {"input": input}}))


@fuzz
@given(
    texts=st.lists(any_text, max_size=5),
    fields=st.fixed_dictionaries(
        {}, optional={"source": st.just("fr") | any_text, "model": any_text, "timeout": anything, "target": any_text}
    ),
)
def test_any_texts_and_names_are_answered(
    translate: Callable[..., TestResponse], texts: list[str], fields: dict[str, Any]
) -> None:
    answer = translate(texts=texts, **fields)
    is_answered(answer)
    if answer.status_code == 200:
        assert [t["text"] for t in json.loads(answer.data)["data"]["translate"]["translations"]] == texts


@fuzz
@given(body=st.binary(max_size=200) | anything.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_refused(client: FlaskClient, body: bytes) -> None:
    answer = client.post("/graphql", data=body, content_type="application/json")
    assert answer.status_code == 400
    is_answered(answer)
