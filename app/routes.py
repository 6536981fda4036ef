"""The routes, and what every response carries."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, abort, render_template, request
from sqlalchemy import select
from werkzeug.datastructures import ContentSecurityPolicy

from app.accounts.keys import KeyRing
from app.accounts.ledger import Ledger
from app.accounts.repeats import Repeats
from app.database.transactions import Database
from app.graphql import predecessor
from app.graphql.predecessor import PredecessorGraphQL
from app.graphql.schema import build_schema
from app.graphql.view import GraphQL
from app.monitoring.recent_errors import RecentErrors
from app.settings import REQUESTS, Settings
from app.translation.translate import abandon
from app.translation.translator import Translator
from app.web.hangups import Clients
from tasks.contract.errors import Code, TolkError
from tasks.registry.file import RegistryFile

if TYPE_CHECKING:
    from app.monitoring.metrics import Metrics

# Pages hold no inline script and no eval, and load nothing from elsewhere.
SECURITY_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",  # for browsers that do not know frame-ancestors
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
TRANSPORT_SECURITY = "max-age=31536000"  # seconds: a year


def register(
    app: Flask,
    settings: Settings,
    models: RegistryFile,
    translator: Translator,
    database: Database,
    metrics: Metrics | None,
    recent_errors: RecentErrors,
) -> None:
    """Adds the routes to the application."""
    app.jinja_env.globals["graphiql"] = settings.graphiql
    ledger = Ledger(database)
    repeats = Repeats(ledger)
    clients = Clients(partial(abandon, translator, repeats))
    tools = (settings, models, translator, clients, ledger, repeats, KeyRing(database), recent_errors)
    places = threading.BoundedSemaphore(REQUESTS)
    view = bounded(GraphQL.as_view("graphql", build_schema().graphql_schema, *tools), places)
    app.add_url_rule("/graphql", view_func=view)
    view = PredecessorGraphQL.as_view("predecessor", predecessor.build_schema().graphql_schema, *tools)
    view = bounded(view, places)
    app.add_url_rule("/api/graphql", view_func=view)
    app.add_url_rule("/api/graphiql", view_func=view)

    @app.get("/")
    def page() -> str:
        registry, status = models.current(), translator.known_status()
        return render_template(
            "index.html",
            pairs=[(way.source, way.target, status.can_translate(way, registry)) for way in registry.ways],
            limit=min(settings.max_text_characters, settings.max_request_characters),
            max_timeout=settings.max_timeout,
        )

    @app.get("/status")
    def status() -> str:
        return render_template("status.html", flower_url=settings.flower)

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        """The process lives."""
        return {"status": "alive"}

    @app.get("/readyz")
    def readyz() -> dict[str, str]:
        """A request would be answered: else translator or database raise UNAVAILABLE, which says what is missing."""
        translator.check()
        database.run(lambda connection: connection.execute(select(1)))
        return {"status": "ready"}

    if metrics is not None:

        @app.get("/metrics")
        def scrape() -> Response:
            return Response(metrics.text(), content_type=metrics.CONTENT_TYPE)

        @app.before_request
        def separate() -> None:
            """Metrics have an address of their own, which need not be everybody's, and nothing else is there."""
            is_theirs = request.environ.get("SERVER_PORT") == str(metrics.address.port)
            if is_theirs != (request.endpoint == "scrape"):
                abort(404)

    @app.after_request
    def add_headers(response: Response) -> Response:
        response.headers.update(HEADERS)
        response.content_security_policy = ContentSecurityPolicy(SECURITY_POLICY | response.content_security_policy)
        # Answers hold people's texts. Pages hold none, and files say what they allow.
        response.headers.setdefault("Cache-Control", "no-cache" if response.mimetype == "text/html" else "no-store")
        if request.is_secure:
            response.headers["Strict-Transport-Security"] = TRANSPORT_SECURITY
        return response


def bounded(view: Callable[..., Any], places: threading.BoundedSemaphore) -> Callable[..., Any]:
    """The view, which refuses at once what has no place."""

    @wraps(view)
    def answer() -> Any:
        if not places.acquire(blocking=False):
            raise TolkError(Code.OVERLOADED, "Too many requests are being served already. Try again in a second.", 1.0)
        try:
            return view()
        finally:
            places.release()

    return answer
