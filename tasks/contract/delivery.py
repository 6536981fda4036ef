"""Messages as kombu receives them: what makes one unusable, and how one is published again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tasks.contract.bundle import RETURNED, named
from tasks.contract.names import MESSAGE_BYTES, PUBLISHED, TASK, TASK_ID, suspects_of

# Headers of Celery's features that Tolk does not use. A worker would keep a task with an `eta` until then.
UNUSED = (
    "eta",
    "expires",
    "group",
    "group_index",
    "replaced_task_nesting",
    "retries",
    "shadow",
    "stamped_headers",
    "stamps",
    "timelimit",
)


def defect(message: Any) -> str | None:
    """Why no worker can take `message`, a kombu Message, as a call of the task; None if a worker can.

    The reason quotes none of the texts to translate.
    """
    size = len(body(message))
    if size > MESSAGE_BYTES:
        return f"its {size} bytes are more than {MESSAGE_BYTES}"
    if message.headers.get("compression"):
        return "it is compressed"
    if message.content_type != "application/json":
        return f"content type {_quoted(message.content_type)} is not application/json"
    if message.content_encoding != "utf-8":
        return f"content encoding {_quoted(message.content_encoding)} is not utf-8"
    try:
        payload = message.payload
    except Exception:  # noqa: BLE001 - a body can cause kombu's DecodeError, a RecursionError, and others
        return "its body is not JSON"
    if message.headers.get("task") != TASK:
        return f"there is no task {_quoted(message.headers.get('task'))}"
    task_id = message.headers.get("id")
    if not isinstance(task_id, str):
        return "it has no id"
    if not TASK_ID.fullmatch(task_id):
        return f"its id {_quoted(task_id)} is not printable, or too long"
    for name in UNUSED:
        used = message.headers.get(name)
        if any(used) if isinstance(used, list) else used:
            return f"it uses {name} of Celery, which Tolk does not"
    match payload:
        case [[_], {}, {}] if not payload[1] and not any(payload[2].values()):
            return None
    return "its body is no call of the task"


def body(message: Any) -> bytes:
    """The bytes of a message's body as published. py-amqp decodes a body if it knows the encoding that it names."""
    return message.body.encode(message.content_encoding) if isinstance(message.body, str) else bytes(message.body)


def again(message: Any, now: float) -> dict[str, Any]:
    """The arguments with which kombu publishes a received message again, as a new message.

    Its `expiration` (seconds) is what is left at `now` (Unix seconds). The broker's own headers are left out.
    """
    published, left = message.headers.get(PUBLISHED), message.properties.get("expiration")
    if left is not None:
        left = max(0.0, int(left) / 1000 - (now - published if isinstance(published, int | float) else 0.0))
    return {
        "body": body(message),
        "content_type": message.content_type or "application/octet-stream",
        "content_encoding": message.content_encoding,
        "headers": {name: value for name, value in message.headers.items() if not name.startswith("x-")},
        "correlation_id": message.properties.get("correlation_id"),
        "reply_to": message.properties.get("reply_to"),
        "expiration": left,
    }


def again_alone(message: Any, now: float) -> dict[str, dict[str, Any]]:
    """The arguments with which kombu publishes each request of a received bundle as a message of its own, by its id.

    A message whose bundle expires does so at the deadline of its request.
    """
    whole = again(message, now)
    return {task_id: _alone(task_id, each, whole, now) for task_id, each in named(message.payload[0][0]).items()}


def returned(message: Any, now: float) -> list[dict[str, Any]]:
    """If a worker lost a received message before: the arguments with which kombu publishes it again in smaller parts;
    else an empty list. A bundle becomes single requests, which are marked as RETURNED. A request with this mark goes to
    the suspects' queue. A request that was never in a bundle stays: the broker counts its deliveries.
    """
    queue, was_lost = message.delivery_info["routing_key"], was_delivered(message)
    way = {"exchange": message.delivery_info["exchange"], "routing_key": queue}
    # A bundle whose worker also ended before it had published the parts comes from the suspects' queue.
    if (was_lost or "x-death" in message.headers) and (parts := again_alone(message, now)):
        return [each | way | {"headers": each["headers"] | {RETURNED: 1}} for each in parts.values()]
    if was_lost and RETURNED in message.headers:
        # In the suspects' queue it must not expire: it would become a dead letter.
        suspects = {"exchange": "", "routing_key": suspects_of(queue), "expiration": None}
        return [again(message, now) | suspects]
    return []


def was_delivered(message: Any) -> bool:
    """Whether the broker had delivered a received message before, to a worker that then lost it."""
    return bool(message.delivery_info.get("redelivered") or message.headers.get("x-delivery-count"))


def _alone(task_id: str, request: Mapping[str, Any], whole: dict[str, Any], now: float) -> dict[str, Any]:
    trace, deadline, expiration = request.get("trace"), request.get("deadline"), whole["expiration"]
    if expiration is not None and isinstance(deadline, int | float):
        expiration = max(0.0, deadline - now)
    own = {"id": task_id, "root_id": task_id, "argsrepr": "<a request of a bundle>"}
    body = {name: value for name, value in request.items() if name not in ("id", "trace")}
    return whole | {
        "body": json.dumps([[body], {}, {}]).encode(),
        "headers": whole["headers"] | (dict(trace) if isinstance(trace, Mapping) else {}) | own,
        "correlation_id": task_id,
        "expiration": expiration,
    }


def _quoted(value: object) -> str:
    """A name from a foreign message, made safe for a log: at most 60 characters, control characters escaped."""
    return repr(value if value is None else str(value)[:60])
