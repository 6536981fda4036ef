"""The endpoints for operators: liveness, readiness, and metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from flask import Flask, Response, abort, request
from sqlalchemy import select

from app.database.transactions import Database

if TYPE_CHECKING:
    from app.monitoring.metrics import WebMetrics


def alive() -> dict[str, str]:
    """Liveness: the process answers."""
    return {"status": "alive"}


def ready(check: Callable[[], None], database: Database) -> dict[str, str]:
    """Readiness: a request would be answered. If not, `check`, which is the translator's, or the database raises
    TolkError(UNAVAILABLE), which says what is missing."""
    check()
    database.run(lambda connection: connection.execute(select(1)))
    return {"status": "ready"}


def scrape(metrics: WebMetrics) -> Response:
    """The metrics, for Prometheus."""
    return Response(metrics.text(), content_type=metrics.CONTENT_TYPE)


def separate(app: Flask, port: int) -> None:
    """Serves the metrics on a port of their own, and nothing else on it, so that the metrics need not be public."""

    @app.before_request
    def refuse() -> None:
        is_theirs = request.environ.get("SERVER_PORT") == str(port)
        if is_theirs != (request.endpoint == "scrape"):
            abort(404)
