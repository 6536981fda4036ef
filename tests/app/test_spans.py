"""What the web tier's spans tell a collector of requests, and what they do not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from app import UNTRACED
from tests.telemetry.collector import Collector

SECRET = "Quetzalcoatl"
DOCUMENT = f"query {SECRET} {{ languages {{ source }} }}"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture(scope="module")
def web(start_gunicorn: Callable[..., Any], collector: Collector) -> str:
    """Its address. Its spans have the attributes of OpenTelemetry's old and new conventions."""
    url: str = start_gunicorn(
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
        OTEL_BSP_SCHEDULE_DELAY="100",  # milliseconds
        OTEL_SEMCONV_STABILITY_OPT_IN="http/dup",
    ).url
    return url


@pytest.fixture
def span(collector: Collector, eventually: Callable[..., None]) -> Callable[[requests.Response], Any]:
    """The root span of the request that an answer is to."""

    def find(answer: requests.Response) -> Any:
        request_id = answer.headers["X-Request-Id"]

        def found() -> list[Any]:
            return [each for each in collector.spans if each.attributes.get("tolk.request_id") == request_id]

        eventually(found)
        return found()[0]

    return find


def test_a_query_string_is_told_nobody(web: str, collector: Collector, span: Callable[..., Any]) -> None:
    answer = requests.get(f"{web}/graphql", params={"query": DOCUMENT}, timeout=20)
    assert answer.json() == {"data": {"languages": [{"source": "fr"}, {"source": "en"}]}}
    found = span(answer)
    assert found.name == "GET /graphql"
    assert (found.attributes["http.target"], found.attributes["url.path"]) == ("/graphql", "/graphql")
    assert SECRET.encode() not in collector.received


def test_a_path_is_encoded_once_and_names_no_span_where_nothing_is_served(web: str, span: Callable[..., Any]) -> None:
    found = span(requests.get(f"{web}/traduit-à-part", timeout=20))
    assert (found.name, found.attributes["http.target"]) == ("GET", "/traduit-%C3%A0-part")


@pytest.mark.parametrize(
    ("path", "host"), [("/graphql?healthz", "tolk"), ("/graphql?a=//b/readyz", "tolk"), ("/graphql", "metrics.example")]
)
def test_only_a_path_keeps_a_request_from_being_traced(
    web: str, span: Callable[..., Any], path: str, host: str
) -> None:
    answer = requests.post(f"{web}{path}", json={"query": DOCUMENT}, headers={"Host": host}, timeout=20)
    assert span(answer).name == "POST /graphql"


@pytest.mark.parametrize(
    ("path", "traced"),
    [
        ("healthz", False),
        ("readyz?verbose", False),
        ("metrics", False),
        ("static/index.js", False),
        ("", True),
        ("healthz/more", True),
        ("static", True),
        ("api/graphql", True),
    ],
)
def test_probes_scrapes_and_files_are_not_traced(path: str, traced: bool) -> None:
    assert (re.search(UNTRACED, f"https://tolk.example:8000/{path}") is None) is traced
