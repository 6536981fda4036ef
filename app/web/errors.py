"""Turns errors into answers: a code of the contract, its HTTP status, and one JSON shape for all errors."""

from __future__ import annotations

import json
import logging
import math
import traceback
from typing import Any

from flask import Flask, Response, current_app
from graphql import GraphQLError
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from app.web import request_log
from tasks.contract.errors import Code, TolkError
from telemetry import tracing

MESSAGE_CHARACTERS = 500  # GraphQL's errors quote the document, which may be a megabyte

log = logging.getLogger(__name__)

STATUS = {
    Code.BAD_INPUT: 400,
    Code.UNKNOWN_MODEL: 404,
    Code.UNSUPPORTED_SOURCE: 404,
    Code.UNAUTHENTICATED: 401,
    Code.FORBIDDEN: 403,
    Code.RATE_LIMITED: 429,
    Code.OVERLOADED: 503,
    Code.TIMEOUT: 504,
    Code.CANCELLED: 409,
    Code.UNAVAILABLE: 503,
    Code.INTERNAL: 500,
}


def domain_error(error: GraphQLError) -> TolkError:
    """The error for the caller, from a GraphQL error. An unforeseen error is logged, and becomes INTERNAL."""
    original = _innermost(error)
    if isinstance(original, TolkError):
        return original
    if _is_the_callers(error, original):
        return TolkError(Code.BAD_INPUT, _shorten(error.message))
    _log_unforeseen(original or error)
    return _internal()


def note(error: TolkError) -> None:
    """Notes the error's code as the request's outcome, for the log, the trace and the metrics. The first error
    counts."""
    tracing.annotate_first(code=error.code.value)


def extensions(error: TolkError) -> dict[str, Any]:
    """The `extensions` of a GraphQL error: its code, the request's id, and seconds until a retry makes sense."""
    retry = {} if error.retry_after is None else {"retryAfter": error.retry_after}
    return {"code": error.code, "requestId": request_log.request_id(), **retry}


def set_status(response: Response, code: Code, retry_after: float | None) -> None:
    """Gives a response the HTTP status of a code, and a Retry-After header unless `retry_after` (seconds) is None."""
    response.status_code = STATUS[code]
    if code is Code.UNAUTHENTICATED:
        response.headers["WWW-Authenticate"] = "Bearer"
    if retry_after is not None:
        response.headers["Retry-After"] = str(math.ceil(retry_after))


def register(app: Flask) -> None:
    """Answers every error that leaves a view in the shape of a GraphQL error."""
    app.register_error_handler(TolkError, _answer)
    app.register_error_handler(HTTPException, _answer_http)
    app.register_error_handler(Exception, _answer_unforeseen)


def _answer(error: TolkError) -> Response:
    note(error)
    response = Response(_body(error), content_type="application/json")
    set_status(response, error.code, error.retry_after)
    return response


def _answer_unforeseen(error: Exception) -> Response:
    _log_unforeseen(error)
    return _answer(_internal())


def _answer_http(error: HTTPException) -> Response:
    """Keeps the status and headers that Werkzeug chose, such as 405's Allow."""
    response = Response(status=error.code, headers=error.get_headers())
    code = Code.BAD_INPUT if response.status_code < 500 else Code.INTERNAL
    domain = TolkError(code, _http_message(error))
    note(domain)
    response.set_data(_body(domain))
    response.content_type = "application/json"
    return response


def _http_message(error: HTTPException) -> str:
    if isinstance(error, RequestEntityTooLarge):
        return f"The body is over the limit of {current_app.config['MAX_CONTENT_LENGTH']} bytes. Send fewer texts."
    return error.description or error.name


def _body(error: TolkError) -> str:
    return json.dumps({"errors": [{"message": error.message, "extensions": extensions(error)}]})


def _shorten(message: str) -> str:
    return message if len(message) <= MESSAGE_CHARACTERS else f"{message[:MESSAGE_CHARACTERS]}…"


def _innermost(error: GraphQLError) -> Exception | None:
    """The exception that GraphQL wrapped, perhaps several times; None if the error is GraphQL's own."""
    original = error.original_error
    while isinstance(original, GraphQLError):
        original = original.original_error
    return original


def _is_the_callers(error: GraphQLError, original: Exception | None) -> bool:
    """Whether the caller's document or variables are wrong. GraphQL finds that before a field runs, or in the arguments
    of a field at the root. An error below the root is in our answer."""
    is_about_the_document = original is None or (error.path is None and bool(error.nodes))
    return is_about_the_document and len(error.path or ()) <= 1


def _internal() -> TolkError:
    request_id = request_log.request_id()
    return TolkError(Code.INTERNAL, f"The service failed. Its log has the error under the request id {request_id}.")


def _log_unforeseen(error: Exception) -> None:
    if current_app.config["LOG_TEXTS"]:
        log.error("Request %s failed.", request_log.request_id(), exc_info=error)
    else:
        log.error("Request %s failed.\n%s", request_log.request_id(), _where(error))


def _where(error: BaseException | None) -> str:
    """The types and tracebacks of an error and its causes, without their messages, which may quote a text."""
    lines = []
    while error is not None:
        lines += [f"{type(error).__name__}:\n", *traceback.format_tb(error.__traceback__)]
        error = error.__cause__ or error.__context__
    return "".join(lines)
