"""Refuses requests that name no host, and those from pages of other sites, except from allowed origins at /graphql
(CORS)."""

from __future__ import annotations

from collections.abc import Collection

from flask import Flask, Response, abort, request
from flask_cors import CORS

from tasks.contract.errors import Code, TolkError

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")  # RFC 9110, section 9.2.1
PREFLIGHT_SECONDS = 600  # for which a browser caches the answer to a preflight request


def register(app: Flask, origins: Collection[str]) -> None:
    """Refuses requests from pages of other sites, unless the origin is in `origins` and the path is /graphql; and
    requests of HTTP/1.1 without the header Host (RFC 9112, section 3.2)."""

    @app.before_request
    def refuse_other_sites() -> None:
        if not request.headers.get("Host") and request.environ.get("SERVER_PROTOCOL") == "HTTP/1.1":
            abort(400, description="Send the header Host.")
        allowed = origins if request.endpoint == "graphql" else ()
        if request.method not in SAFE_METHODS and _is_from_elsewhere() and request.origin not in allowed:
            raise TolkError(
                Code.FORBIDDEN,
                "A page of another site sent this request. Use the API from a server, or add the page's origin to "
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
        vary_header=False,  # flask-cors would add Vary only for several origins, and only for those that it allows
    )

    @app.after_request
    def vary(response: Response) -> Response:
        if request.endpoint == "graphql":
            response.vary.add("Origin")
        return response


def _is_from_elsewhere() -> bool:
    """Whether a page of another site sent the request. Browsers say so in headers that no page can change. Other
    clients send none of these headers.

    `Sec-Fetch-Site` (W3C Fetch Metadata) takes precedence, because it stays true if a proxy rewrites Host.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site not in ("same-origin", "none")
    return request.origin is not None and request.origin.partition("://")[2] != request.host
