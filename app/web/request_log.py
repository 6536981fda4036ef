"""Gives every request an id, a line in the log, a trace, and a count in the metrics."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote
from uuid import uuid4

from flask import Flask, Response, g, request

from app.monitoring.traces import Traces
from tasks.contract.names import REQUEST_ID
from telemetry import logs, tracing
from telemetry.tracing import Span

if TYPE_CHECKING:
    from app.monitoring.metrics import WebMetrics

API = ("graphql", "predecessor")  # the endpoints whose requests are traced and counted
PROBES = ("healthz", "readyz", "scrape")  # asked so often that they are logged at level debug only

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ActiveRequest:
    """A request that is being served: its id, its trace, and `time.perf_counter` at its arrival."""

    id: str
    trace: Span
    began: float


def request_id() -> str:
    """The id of the request that is being served: the client's choice, or a random UUID."""
    return _active().id


def arrival() -> float:
    """When the request that is being served arrived, in Unix seconds."""
    return _active().trace.start


def register(app: Flask, traces: Traces | None, metrics: WebMetrics | None) -> None:
    """Gives every request its id. Once its answer is sent, adds it to the log, the traces and the metrics."""
    app.before_request(_begin)

    @app.after_request
    def answer(response: Response) -> Response:
        active = _active()
        response.headers["X-Request-Id"] = active.id
        tracing.annotate(client=request.remote_addr, status=response.status_code)
        tracing.export_attributes({"request_id": active.id, **active.trace.attributes})
        level, is_asked = _level(response), _asks(response)

        @response.call_on_close  # after the answer is sent, so that nobody waits for it
        def end() -> None:
            active.trace.duration = time.perf_counter() - active.began
            _log(active, response.status_code, level)
            if is_asked and metrics is not None:
                metrics.count(active.trace)
            if is_asked and traces is not None:
                traces.keep(active.id, active.trace)
            _forget()

        return response


def _active() -> ActiveRequest:
    active: ActiveRequest = g.active_request
    return active


def _begin() -> None:
    """Assigns what this thread logs and measures from now on to this request."""
    given = request.headers.get("X-Request-Id", "")
    request_id = given.lower() if REQUEST_ID.fullmatch(given) else str(uuid4())
    logs.request_id.set(request_id)
    trace = tracing.begin(f"{request.method} {quote(request.path)}")
    g.active_request = ActiveRequest(request_id, trace, time.perf_counter())


def _forget() -> None:
    """Assigns what this thread logs and measures from now on to no request. Flask itself clears `g`."""
    logs.request_id.set(None)
    tracing.end()


def _asks(response: Response) -> bool:
    """Whether the request asked the API for something, and not for GraphiQL's page or by OPTIONS."""
    is_page = response.mimetype == "text/html"
    return request.endpoint in API and request.method in ("GET", "POST") and not is_page


def _level(response: Response) -> int:
    is_probe = request.endpoint in PROBES and response.status_code < 400
    return logging.DEBUG if is_probe else logging.INFO


def _log(active: ActiveRequest, status: int, level: int) -> None:
    if logger.isEnabledFor(level):
        fields = {"status": status, "ms": round(1000 * active.trace.duration, 1), **active.trace.attributes}
        logger.log(level, "%s", active.trace.name, extra={"fields": fields})
