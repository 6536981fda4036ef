"""What a page of another site sends is refused, unless its origin is let in at /graphql."""

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
        vary_header=False,  # it would add Vary only for origins that it lets in, and only if there are several
    )

    @app.after_request
    def vary(response: Response) -> Response:
        if request.endpoint == "graphql":
            response.vary.add("Origin")
        return response


def _is_from_elsewhere() -> bool:
    """Whether a page of another site sent the request. A browser says so, and no page can change what it says; clients
    that are no browsers say nothing.

    `Sec-Fetch-Site` (W3C Fetch Metadata) counts first: it stays true when a proxy has rewritten Host.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site not in ("same-origin", "none")
    return request.origin is not None and request.origin.partition("://")[2] != request.host
