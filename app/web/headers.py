"""The security headers of every response: a page loads nothing from other sites, is in no frame, and is not cached."""

from __future__ import annotations

from flask import Flask, Response, request
from werkzeug.datastructures import ContentSecurityPolicy

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
POLICY = ContentSecurityPolicy(SECURITY_POLICY).to_header()
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",  # for browsers that do not know frame-ancestors
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
TRANSPORT_SECURITY = "max-age=31536000"  # seconds: a year


def register(app: Flask) -> None:
    """Adds the headers to every response. A view's own content security policy and Cache-Control take precedence."""

    @app.after_request
    def add(response: Response) -> Response:
        given = response.headers
        policy = POLICY
        if "Content-Security-Policy" in given:
            policy = ContentSecurityPolicy(SECURITY_POLICY | response.content_security_policy).to_header()
            del given["Content-Security-Policy"]
        given.extend(HEADERS)
        given.add("Content-Security-Policy", policy)
        # Answers hold people's texts, so no cache may store them. Pages hold none. Static files have their own header.
        if "Cache-Control" not in given:
            given.add("Cache-Control", "no-cache" if response.mimetype == "text/html" else "no-store")
        if request.is_secure:
            given.add("Strict-Transport-Security", TRANSPORT_SECURITY)
        return response
