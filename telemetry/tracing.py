"""What a request is made of: a tree of spans. It stays in the process, which may keep it; where OpenTelemetry is set up
by its standard variables, the same spans are exported, under the span that crosses the queue as `traceparent`.

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
_tracer: Tracer | None = None  # where spans are exported


class TracingError(Exception):
    """An environment variable of OpenTelemetry cannot be used; the message names it and says what was expected."""


@dataclass(slots=True)
class Span:
    """Something that took its time: `start` in Unix seconds, `duration` in seconds."""

    name: str
    start: float
    duration: float = 0.0
    attributes: dict[str, Attribute] = field(default_factory=dict)
    children: list[Span] = field(default_factory=list)

    def add(self, name: str, start: float, duration: float) -> None:
        """A part that another process tells of."""
        self.children.append(Span(name, start, duration))

    def walk(self, depth: int = 0) -> Iterator[tuple[int, Span]]:
        """It and all below it, the children of each by their start, with how deep they are."""
        yield depth, self
        for child in sorted(self.children, key=lambda each: each.start):
            yield from child.walk(depth + 1)

    def encode(self) -> list[Any]:
        """For JSON, in a form that is written fast: times are whole microseconds."""
        children = [child.encode() for child in self.children]
        return [self.name, int(self.start * 1e6), int(self.duration * 1e6), self.attributes, children]

    @classmethod
    def decode(cls, data: Any) -> Span:
        """Raises TypeError and ValueError for what is none."""
        name, start, duration, attributes, children = data
        return cls(name, start / 1e6, duration / 1e6, attributes, [cls.decode(child) for child in children])


def begin(name: str) -> Span:
    """The root of what this thread does from now on. It is not exported: a framework's instrumentation does so."""
    root = Span(name, time.time())
    _root.set(root)
    _current.set(root)
    return root


def end() -> None:
    """What this thread does from now on belongs to no root."""
    _root.set(None)
    _current.set(None)


def annotate(**attributes: Attribute | None) -> None:
    """Says something of the whole request; what is None is not said."""
    root = _root.get()
    if root is not None:
        root.attributes.update({name: value for name, value in attributes.items() if value is not None})


def annotate_first(**attributes: Attribute) -> None:
    """The same, where nothing was said of it before."""
    root = _root.get()
    if root is not None:
        root.attributes = attributes | root.attributes


@contextmanager
def span(name: str, **attributes: Attribute) -> Iterator[Span]:
    """A part of what this thread does now."""
    made, parent = Span(name, time.time(), attributes=attributes), _current.get()
    if parent is not None:
        parent.children.append(made)
    token = _current.set(made)
    began = time.perf_counter()
    try:
        if _tracer is None:
            yield made
        else:
            # What an error says may quote a text; an error of the domain is no trouble of ours.
            with _tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False) as exported:
                try:
                    yield made
                finally:
                    exported.set_attributes(made.attributes)
    finally:
        made.duration = time.perf_counter() - began
        _current.reset(token)


def export(name: str, start: float, duration: float, parent: Mapping[str, Any] | None = None) -> None:
    """A span that is over already, exported alone, below the one that is open or the one that headers tell of."""
    if _tracer is not None:
        from opentelemetry import propagate

        context = None if parent is None else propagate.extract(parent)
        begun = int(start * 1e9)
        _tracer.start_span(name, context, start_time=begun).end(begun + int(duration * 1e9))


def export_attributes(attributes: Mapping[str, Attribute]) -> None:
    """Says of the span that an instrumentation has open what we know."""
    if _tracer is not None:
        from opentelemetry import trace

        trace.get_current_span().set_attributes({f"tolk.{name}": value for name, value in attributes.items()})


def headers() -> dict[str, str]:
    """For a message, so that whoever gets it goes on with this trace; none where nothing is exported."""
    carrier: dict[str, str] = {}
    if _tracer is not None:
        from opentelemetry import propagate

        propagate.inject(carrier)
    return carrier


def wanted(environ: Mapping[str, str]) -> bool:
    """Whether the standard variables ask for spans to be exported. Raises TracingError."""
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
    """From now on this process exports its spans, the last ones at its end, as `service` unless OTEL_SERVICE_NAME says
    another name."""
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
