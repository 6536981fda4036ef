"""The messages that bring requests to workers and replies back: those of Celery's protocol 2."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from celery.states import REVOKED, SUCCESS
from kombu import Message
from kombu.exceptions import KombuError

from app.broker.pending import CANCELLED, BundleRefused
from tasks.contract.bundle import TAKES_MANY, Bundled, decode_replies
from tasks.contract.errors import Code, TolkError
from tasks.contract.names import PUBLISHED, TASK
from tasks.contract.reply import Failure, TranslateReply
from tasks.contract.request import TranslateRequest

FRAME = len("[[[]], {}, {}]")  # the bytes of a bundle's body around its requests
SEPARATOR = ", "  # between them

logger = logging.getLogger(__name__)


def single(bundled: Bundled, now: float) -> dict[str, Any]:
    """The arguments with which kombu publishes, at `now` (Unix seconds), a request by itself."""
    request = bundled.request
    described = f"{_texts(request)}, {request.source} to {request.target} by {request.model}, {request.priority}"
    body = f"[[{json.dumps(request.encode())}], {{}}, {{}}]"
    return _message(bundled.task_id, body, described, request.deadline, now, bundled.trace)


def bundle(bundle_id: str, requests: Sequence[TranslateRequest], encoded: Sequence[str], now: float) -> dict[str, Any]:
    """The same for several requests for one model. `encoded` are the JSON texts of their `Bundled.encode()`."""
    body = f"[[[{SEPARATOR.join(encoded)}]], {{}}, {{}}]"
    described = f"{len(requests)} requests, {_texts(*requests)}, by {requests[0].model}, {requests[0].priority}"
    return _message(bundle_id, body, described, max(each.deadline for each in requests), now, {})


def _message(
    message_id: str, body: str, described: str, deadline: float, now: float, trace: Mapping[str, str]
) -> dict[str, Any]:
    """A message of the task. Celery's own `send_task` takes longer than the broker does.

    There is no header `expires`, which takes long to parse: the broker drops expired messages, and the task reads the
    deadline. `described` is for monitors and logs, which must not hold people's texts.
    """
    return {
        "body": body,
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "headers": {
            "lang": "py",
            "task": TASK,
            "id": message_id,
            "root_id": message_id,
            "parent_id": None,
            "group": None,
            "argsrepr": f"<{described}>",
            "kwargsrepr": "{}",
            PUBLISHED: now,
            TAKES_MANY: 1,
            **trace,
        },
        "correlation_id": message_id,
        "expiration": max(0.0, deadline - now),
    }


def replies(message: Message) -> list[tuple[str, object]]:
    """The bodies of the replies in a message, with their correlation ids; an error if the message cannot be read."""
    correlation_id = str(message.properties.get("correlation_id"))
    try:
        bodies = decode_replies(message.payload)
        if bodies == []:
            raise ValueError("it has no reply")
    except (TolkError, KombuError, LookupError, TypeError, ValueError) as error:
        return [(correlation_id, _unreadable(correlation_id, error))]
    if bodies is None:
        return [(correlation_id, message.payload)]
    return [(str(body.get("task_id")), body) for body in bodies]


def of_bundle(body: object) -> object:
    """What the reply to a bundle as a whole means for each of its requests. An earlier release answers BAD_INPUT."""
    match body:
        case {"result": {"error": {"code": Code.BAD_INPUT}}}:
            return BundleRefused()
    return body


def reply(body: Any, request: TranslateRequest, task_id: str) -> TranslateReply:
    """The reply in a body. Raises TolkError(INTERNAL) if it cannot be read."""
    try:
        if body["status"] == REVOKED:
            found = TranslateReply(request.model, error=Failure(Code.CANCELLED, CANCELLED))
        elif body["status"] == SUCCESS:
            found = TranslateReply.decode(body["result"])
        else:
            raise ValueError(f"the task ended as {body['status']}")
        if found.error is None and len(found.results) != len(request.texts):
            raise ValueError(f"{len(found.results)} results for {len(request.texts)} texts")
    except (TolkError, LookupError, TypeError, ValueError) as error:
        raise _unreadable(task_id, error) from error
    return found


def _unreadable(task_id: str, error: Exception) -> TolkError:
    logger.error("could not read the reply to task %s: %s", task_id, error)
    return TolkError(Code.INTERNAL, "The service cannot read its worker's reply. Its log says why.")


def characters(request: TranslateRequest) -> int:
    """The length of all texts of a request."""
    return sum(map(len, request.texts))


def _texts(*requests: TranslateRequest) -> str:
    texts = sum(len(each.texts) for each in requests)
    return f"{texts} text{'s' * (texts > 1)}, {sum(map(characters, requests))} characters"
