"""How an error becomes an answer: a code of the contract, its HTTP status, and one JSON shape for all errors."""

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

MESSAGE_CHARACTERS = 500  # GraphQL's errors quote what they are about, a megabyte and more where that was sent

log = logging.getLogger(__name__)

STATUS = {
    Code.BAD_INPUT: 400,
    Code.UNKNOWN_MODEL: 404,
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
    """What the caller is told of a GraphQL error. An error that nobody foresaw is logged, and told as INTERNAL."""
    original = _innermost(error)
    if isinstance(original, TolkError):
        return original
    if _is_the_callers(error, original):
        return TolkError(Code.BAD_INPUT, _shorten(error.message))
    _log_unforeseen(original or error)
    return _internal()


def note(error: TolkError) -> None:
    """Tells the log, the trace and the metrics what the request came to; of several errors, the first counts."""
    tracing.annotate_first(code=error.code.value)


def extensions(error: TolkError) -> dict[str, Any]:
    """The `extensions` of a GraphQL error: its code, the request's id, and seconds until a retry makes sense."""
    retry = {} if error.retry_after is None else {"retryAfter": error.retry_after}
    return {"code": error.code, "requestId": request_log.request_id(), **retry}


def set_status(response: Response, code: Code, retry_after: float | None) -> None:
    """Gives a response the HTTP status of a code, and the Retry-After header where there is one."""
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
    """What was raised before GraphQL wrapped it, however often; None where GraphQL itself complains."""
    original = error.original_error
    while isinstance(original, GraphQLError):
        original = original.original_error
    return original


def _is_the_callers(error: GraphQLError, original: Exception | None) -> bool:
    """Whether the caller's document or variables are wrong: so it is before a field runs, and in the arguments of the
    field at the root. Below that stands what we answer."""
    is_about_the_document = original is None or (error.path is None and bool(error.nodes))
    return is_about_the_document and len(error.path or ()) <= 1


def _internal() -> TolkError:
    request_id = request_log.request_id()
    return TolkError(Code.INTERNAL, f"Something went wrong here. The log has it under request {request_id}.")


def _log_unforeseen(error: Exception) -> None:
    if current_app.config["LOG_TEXTS"]:
        log.error("Request %s failed.", request_log.request_id(), exc_info=error)
    else:
        log.error("Request %s failed.\n%s", request_log.request_id(), _where(error))


def _where(error: BaseException | None) -> str:
    """Where an error and its causes happened, as types and places: their messages may quote a text."""
    lines = []
    while error is not None:
        lines += [f"{type(error).__name__}:\n", *traceback.format_tb(error.__traceback__)]
        error = error.__cause__ or error.__context__
    return "".join(lines)
