from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import pytest

from telemetry import tracing
from telemetry.tracing import Span, TracingError

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


def test_spans_make_a_tree() -> None:
    root = tracing.begin("GET /")
    with tracing.span("outer", size=1) as outer:
        with tracing.span("inner"):
            time.sleep(0.002)
        outer.attributes["worker"] = "w1"
    with pytest.raises(ValueError, match="wrong"), tracing.span("failed"):
        raise ValueError("wrong")
    tracing.annotate(model="fr-en", principal=None)
    assert [(depth, span.name) for depth, span in root.walk()] == [
        (0, "GET /"),
        (1, "outer"),
        (2, "inner"),
        (1, "failed"),
    ]
    assert (root.attributes, outer.attributes) == ({"model": "fr-en"}, {"size": 1, "worker": "w1"})
    [inner] = outer.children
    assert 0.002 <= inner.duration <= outer.duration
    assert root.start <= outer.start <= inner.start


def test_a_span_lasts_as_long_as_its_context_says() -> None:
    with tracing.span("publish") as span:
        span.duration = 60.0
    assert span.duration == 60.0


def test_what_another_process_tells_of_comes_in_its_order() -> None:
    span = Span("translate", 10.0)
    span.add("decode", 12.0, 0.5)
    span.add("queue", 11.0, 1.0)
    assert [each.name for _, each in span.walk()] == ["translate", "queue", "decode"]


def test_a_trace_can_be_stored() -> None:
    span = Span("a", 1.0, 2.0, {"texts": 1}, [Span("b", 1.5, 0.25)])
    assert Span.decode(json.loads(json.dumps(span.encode()))) == span


def test_threads_have_traces_of_their_own() -> None:
    root = tracing.begin("mine")
    elsewhere: list[Span] = []

    def work() -> None:
        with tracing.span("nobody's") as span:
            elsewhere.append(span)
        tracing.annotate(model="nobody's")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [span.name for span in elsewhere] == ["nobody's"]
    assert (root.children, root.attributes) == ([], {})


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_TRACES_EXPORTER": "otlp"}, True),
        (
            ENDPOINT | {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            True,
        ),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "true"}, False),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_SERVICE_NAME": "tolk"}, False),
    ],
)
def test_the_standard_variables_decide(environ: dict[str, str], wanted: bool) -> None:
    assert tracing.wanted(environ) is wanted


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
    ],
)
def test_what_cannot_be_done_is_refused(name: str, value: str) -> None:
    with pytest.raises(TracingError, match=f"^{name}: .* was expected, not '{value}'"):
        tracing.wanted(ENDPOINT | {name: value})


def test_without_an_exporter_none_of_it_is_loaded() -> None:
    code = """
import sys
from telemetry import tracing
with tracing.span("a"):
    assert tracing.headers() == {}
tracing.export("b", 1.0, 1.0)
tracing.export_attributes({"c": 1})
sys.exit(any(name.startswith("opentelemetry") for name in sys.modules))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_comes_after_the_end_is_not_of_the_root() -> None:
    root = tracing.begin("GET /")
    tracing.end()
    tracing.annotate(status=200)
    with tracing.span("later"):
        pass
    assert (root.attributes, root.children) == ({}, [])
