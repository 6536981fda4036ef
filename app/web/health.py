"""What those ask who keep the service running: whether it lives, whether it is ready, and its metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from flask import Flask, Response, abort, request
from sqlalchemy import select

from app.database.transactions import Database

if TYPE_CHECKING:
    from app.monitoring.metrics import WebMetrics


def alive() -> dict[str, str]:
    """The process lives."""
    return {"status": "alive"}


def ready(check: Callable[[], None], database: Database) -> dict[str, str]:
    """A request would be answered. Else `check`, which is the translator's, or the database raises
    TolkError(UNAVAILABLE), which says what is missing."""
    check()
    database.run(lambda connection: connection.execute(select(1)))
    return {"status": "ready"}


def scrape(metrics: WebMetrics) -> Response:
    """The metrics, for Prometheus."""
    return Response(metrics.text(), content_type=metrics.CONTENT_TYPE)


def separate(app: Flask, port: int) -> None:
    """Keeps the metrics to a port of their own, which need not be everybody's, and everything else from it."""

    @app.before_request
    def refuse() -> None:
        is_theirs = request.environ.get("SERVER_PORT") == str(port)
        if is_theirs != (request.endpoint == "scrape"):
            abort(404)
