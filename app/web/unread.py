"""Says `Connection: close` where a long body was refused before it was read.

gunicorn reads at most 64 KB of what an answered request has left unread, and then closes the connection. A client that
was told to keep it would send its next request into nothing.
"""

from __future__ import annotations

from typing import Any

from flask import Flask, Response, request

READ_ANYWAY = 64 * 1024  # bytes that gunicorn reads after the answer, so that the connection stays usable


def register(app: Flask) -> None:
    """Closes the connection of every request with a body of which more is unread than gunicorn will read."""

    @app.after_request
    def close(response: Response) -> Response:
        environ = request.environ
        if ("CONTENT_LENGTH" in environ or "HTTP_TRANSFER_ENCODING" in environ) and _is_unread(environ["wsgi.input"]):
            served = getattr(environ.get("gunicorn.socket"), "request", None)
            if served is not None:
                served.force_close()
        return response


def _is_unread(body: Any) -> bool:
    """Whether gunicorn would not read the rest of a body. Of a chunked one nobody knows how long it is."""
    reader = getattr(body, "reader", None)
    if (length := getattr(reader, "length", None)) is not None:
        return bool(length >= READ_ANYWAY)
    return getattr(reader, "parser", None) is not None
