"""The endpoints for operators: liveness, readiness, and metrics."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from flask import Flask, Response, abort, request
from sqlalchemy import select

from app.database.transactions import Database
from tasks.contract.errors import Code, TolkError

if TYPE_CHECKING:
    from app.monitoring.metrics import WebMetrics

WAITING = 8  # callers that may wait for a check that runs; each holds a thread
RECENT = 1.0  # seconds for which the others are told the outcome of the check before


def alive() -> dict[str, str]:
    """Liveness: the process answers."""
    return {"status": "alive"}


class Readiness:
    """Readiness: a request would be answered. Thread-safe.

    One check runs at a time. A few callers wait for it, and all others are answered at once, so that a check that takes
    long does not hold the threads that others need.
    """

    def __init__(self, check: Callable[[], None], database: Database) -> None:
        """`check`, which is the translator's, raises TolkError(UNAVAILABLE), which says what is missing."""
        self._check = check
        self._database = database
        self._places = threading.BoundedSemaphore(WAITING)
        self._checking = threading.Lock()
        self._outcome: TolkError | None = None
        self._checked = -math.inf  # when the latest check ended, in seconds of time.monotonic

    def __call__(self) -> dict[str, str]:
        """Raises TolkError(UNAVAILABLE) if a request would not be answered."""
        came = time.monotonic()
        if self._places.acquire(blocking=False):
            try:
                with self._checking:
                    if self._checked < came:  # nobody has checked meanwhile
                        self._outcome, self._checked = self._look(), time.monotonic()
            finally:
                self._places.release()
        elif self._checked < came - RECENT:
            raise TolkError(Code.UNAVAILABLE, "The check whether the service is ready has not ended yet.", 1.0)
        if self._outcome is not None:
            raise TolkError(self._outcome.code, self._outcome.message, self._outcome.retry_after)
        return {"status": "ready"}

    def _look(self) -> TolkError | None:
        try:
            self._check()
            self._database.run(lambda connection: connection.execute(select(1)))
        except TolkError as error:
            return error
        return None


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
