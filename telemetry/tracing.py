"""Traces: a request is a tree of spans, which the process may keep. If OpenTelemetry's standard variables ask for it,
the same spans are also exported; the header `traceparent` of a message then links the worker's spans to the web tier's.

https://opentelemetry.io/docs/specs/otel/protocol/exporter/, https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

Attribute = str | int | float | bool

_current: ContextVar[Span | None] = ContextVar("span", default=None)
_root: ContextVar[Span | None] = ContextVar("root", default=None)
_tracer: Tracer | None = None  # None unless spans are exported


class TracingError(Exception):
    """An environment variable of OpenTelemetry has a wrong value. The message names it and says what was expected."""


@dataclass(slots=True)
class Span:
    """A timed part of a request: `start` is in Unix seconds, `duration` in seconds."""

    name: str
    start: float
    duration: float = 0.0
    attributes: dict[str, Attribute] = field(default_factory=dict)
    children: list[Span] = field(default_factory=list)

    def add(self, name: str, start: float, duration: float) -> None:
        """Adds a child that another process has measured."""
        self.children.append(Span(name, start, duration))

    def walk(self, depth: int = 0) -> Iterator[tuple[int, Span]]:
        """Yields (depth, span) for this span and all below it, parents first, children in the order of their start."""
        yield depth, self
        for child in sorted(self.children, key=lambda each: each.start):
            yield from child.walk(depth + 1)

    def encode(self) -> list[Any]:
        """The span as a list for JSON, which is fast to write. Times are whole microseconds."""
        children = [child.encode() for child in self.children]
        return [self.name, int(self.start * 1e6), int(self.duration * 1e6), self.attributes, children]

    @classmethod
    def decode(cls, data: Any) -> Span:
        """Reads what `encode` has made. Raises TypeError or ValueError for anything else."""
        name, start, duration, attributes, children = data
        return cls(name, start / 1e6, duration / 1e6, attributes, [cls.decode(child) for child in children])


def begin(name: str) -> Span:
    """Begins the root span of what this thread does from now on. The root is not exported, because a framework's
    instrumentation exports it."""
    root = Span(name, time.time())
    _root.set(root)
    _current.set(root)
    return root


def end() -> None:
    """Ends the root span: what this thread does from now on belongs to none."""
    _root.set(None)
    _current.set(None)


def annotate(**attributes: Attribute | None) -> None:
    """Sets attributes of the root span. Attributes that are None are left out."""
    root = _root.get()
    if root is not None:
        root.attributes.update({name: value for name, value in attributes.items() if value is not None})


def annotate_first(**attributes: Attribute) -> None:
    """Sets those attributes of the root span that are not set yet."""
    root = _root.get()
    if root is not None:
        root.attributes = attributes | root.attributes


@contextmanager
def span(name: str, **attributes: Attribute) -> Iterator[Span]:
    """A span below the current one, until the context is left, or as long as the context has set its `duration` to."""
    made, parent = Span(name, time.time(), attributes=attributes), _current.get()
    if parent is not None:
        parent.children.append(made)
    token = _current.set(made)
    began = time.perf_counter()
    try:
        if _tracer is None:
            yield made
        else:
            # Exceptions are not recorded, because their messages may quote a text, and many are the caller's errors.
            with _tracer.start_as_current_span(
                name, record_exception=False, set_status_on_exception=False, end_on_exit=False
            ) as exported:
                try:
                    yield made
                finally:
                    exported.set_attributes(made.attributes)
                    exported.end(int((made.start + made.duration) * 1e9) if made.duration else None)
    finally:
        made.duration = made.duration or time.perf_counter() - began
        _current.reset(token)


def export(name: str, start: float, duration: float, parent: Mapping[str, Any] | None = None) -> None:
    """Exports a finished span, below the open span or, if a message's headers are given, below the span in them."""
    if _tracer is not None:
        from opentelemetry import propagate

        context = None if parent is None else propagate.extract(parent)
        begun = int(start * 1e9)
        _tracer.start_span(name, context, start_time=begun).end(begun + int(duration * 1e9))


def link(headers: Mapping[str, Any]) -> None:
    """Links the exported span that is open to the span in a message's headers."""
    if _tracer is not None:
        from opentelemetry import propagate, trace

        linked = trace.get_current_span(propagate.extract(headers)).get_span_context()
        trace.get_current_span().add_link(linked)


def export_attributes(attributes: Mapping[str, Attribute]) -> None:
    """Sets attributes of the exported span that a framework's instrumentation has open."""
    if _tracer is not None:
        from opentelemetry import trace

        trace.get_current_span().set_attributes({f"tolk.{name}": value for name, value in attributes.items()})


def headers() -> dict[str, str]:
    """The headers with which the receiver of a message continues this trace; empty if spans are not exported."""
    carrier: dict[str, str] = {}
    if _tracer is not None:
        from opentelemetry import propagate

        propagate.inject(carrier)
    return carrier


def wanted(environ: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's standard variables ask for spans to be exported. Raises TracingError."""
    given = any(environ.get(f"OTEL_EXPORTER_OTLP_{each}ENDPOINT") for each in ("TRACES_", ""))
    if not given or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    if exporter not in ("otlp", "none"):
        raise TracingError(f"OTEL_TRACES_EXPORTER: otlp or none was expected, not {exporter!r}.")
    names = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")  # the first that is set counts
    name = next(filter(environ.get, names), names[0])
    if (protocol := environ.get(name) or "http/protobuf") != "http/protobuf":
        raise TracingError(f"{name}: http/protobuf was expected, not {protocol!r}.")
    return exporter == "otlp"


def start(service: str) -> None:
    """Makes this process export its spans from now on, the last ones when it exits. The service's name is
    OTEL_SERVICE_NAME or, if that is not set, `service`."""
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    global _tracer
    resource = Resource.create({SERVICE_NAME: service}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    _tracer = trace.get_tracer("tolk")
