"""Pages of other sites: none has its reader's browser translate, but for those whose origins are let in at /graphql."""

from __future__ import annotations

from collections.abc import Collection

from flask import Flask, Response, request
from flask_cors import CORS

from tasks.contract.errors import Code, TolkError

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")  # RFC 9110, section 9.2.1
PREFLIGHT_SECONDS = 600  # that a browser need not ask again


def register(app: Flask, origins: Collection[str]) -> None:
    """Refuses what a page of another site sends, and lets those of `origins` in at /graphql."""

    @app.before_request
    def refuse_other_sites() -> None:
        allowed = origins if request.endpoint == "graphql" else ()
        if request.method not in SAFE_METHODS and _is_from_elsewhere() and request.origin not in allowed:
            raise TolkError(
                Code.FORBIDDEN,
                "A page of another site sent this request. Use the API from a server, or let the page's origin in by "
                "TOLK_ORIGINS.",
            )

    if origins:
        _let_in(app, origins)


def _let_in(app: Flask, origins: Collection[str]) -> None:
    CORS(
        app,
        resources=["/graphql"],
        origins=list(origins),
        methods=["POST"],
        allow_headers=["Content-Type", "Authorization", "X-Request-Id"],
        expose_headers=["X-Request-Id", "Retry-After"],
        max_age=PREFLIGHT_SECONDS,
        always_send=False,
        intercept_exceptions=False,
        vary_header=False,  # it says so only where it lets somebody in, and of several
    )

    @app.after_request
    def vary(response: Response) -> Response:
        if request.endpoint == "graphql":
            response.vary.add("Origin")
        return response


def _is_from_elsewhere() -> bool:
    """What a browser says of the page that sent a request, and no page can make it say; other clients say nothing.

    `Sec-Fetch-Site` (W3C Fetch Metadata) goes first: it holds where a proxy has rewritten Host.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site not in ("same-origin", "none")
    return request.origin is not None and request.origin.partition("://")[2] != request.host
