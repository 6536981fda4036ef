"""A collector of OpenTelemetry's spans, which an OTLP exporter sends over HTTP.

https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Span(NamedTuple):
    """A received span; `start` and `end` are Unix seconds, `links` the ids of the traces that it links to."""

    service: str
    name: str
    trace: bytes
    id: bytes
    parent: bytes
    start: float
    end: float
    attributes: dict[str, Any]
    links: set[bytes]


class Collector:
    """An HTTP server on a port of loopback that keeps all spans that it receives."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.received = b""  # all bytes that were received
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.take(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def take(self, body: bytes) -> None:
        self.received += body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = _attributes(resource.resource.attributes)["service.name"]
            for span in [span for scope in resource.scope_spans for span in scope.spans]:
                start, end = span.start_time_unix_nano / 1e9, span.end_time_unix_nano / 1e9
                ids = span.trace_id, span.span_id, span.parent_span_id
                links = {link.trace_id for link in span.links}
                self.spans.append(Span(service, span.name, *ids, start, end, _attributes(span.attributes), links))

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def _attributes(found: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value") or "string_value") for each in found}
