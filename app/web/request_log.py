"""What is told of every request: its id, a line in the log, its trace, its metrics."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING
from urllib.parse import quote
from uuid import uuid4

from flask import Flask, Response, g, request

from app.monitoring.traces import Traces
from tasks.contract.names import REQUEST_ID
from telemetry import logs, tracing

if TYPE_CHECKING:
    from app.monitoring.metrics import WebMetrics

API = ("graphql", "predecessor")  # the endpoints whose requests are traced and counted
PROBES = ("healthz", "readyz", "scrape")  # asked so often that they are logged where everything is

logger = logging.getLogger(__name__)


def register(app: Flask, traces: Traces | None, metrics: WebMetrics | None) -> None:
    """Gives every request its id, `g.request_id`, and the time of its arrival, `g.arrival` in Unix seconds; tells of it
    once its answer is sent."""

    @app.before_request
    def arrive() -> None:
        given = request.headers.get("X-Request-Id", "")
        g.request_id = given.lower() if REQUEST_ID.fullmatch(given) else str(uuid4())
        logs.request_id.set(g.request_id)
        g.trace = tracing.begin(f"{request.method} {quote(request.path)}")
        g.arrival, g.began = g.trace.start, time.perf_counter()

    @app.after_request
    def answer(response: Response) -> Response:
        response.headers["X-Request-Id"] = request_id = g.request_id
        trace, began, endpoint = g.trace, g.began, request.endpoint
        page = response.mimetype == "text/html"  # GraphiQL
        asks = endpoint in API and request.method in ("GET", "POST") and not page
        tracing.annotate(client=request.remote_addr, status=response.status_code)
        tracing.export_attributes({"request_id": request_id, **trace.attributes})

        @response.call_on_close  # nobody waits for it
        def tell() -> None:
            trace.duration = time.perf_counter() - began
            level = logging.DEBUG if endpoint in PROBES and response.status_code < 400 else logging.INFO
            if logger.isEnabledFor(level):
                fields = {"status": response.status_code, "ms": round(1000 * trace.duration, 1), **trace.attributes}
                logger.log(level, "%s", trace.name, extra={"fields": fields})
            if asks and metrics is not None:
                metrics.count(trace)
            if asks and traces is not None:
                traces.keep(request_id, trace)
            logs.request_id.set(None)  # what this thread logs next is not of this request

        return response
