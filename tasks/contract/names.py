"""What both sides must call the same: the task, queues, routes, headers, and how long a message may be."""

from __future__ import annotations

import re
from typing import Literal, get_args
from zlib import crc32

TASK = "tolk.translate"
EXCHANGE = "tolk.translate"
DEAD_LETTERS = "tolk.dead-letters"  # the exchange; the queue behind it is `tolk.dead-letters.kept`
DELIVERIES = 3  # of a message, at most, before it is a dead letter: the last one by itself
STATUS_COMMAND = "tolk_status"  # the remote-control command that asks a worker for its WorkerStatus
PUBLISHED = "tolk-published"  # the message header that says when it was published, in Unix seconds
ON_DEMAND = "on-demand"  # what the routes of all models on demand, and their one queue of suspects, are called after
SHARED = tuple(f"{ON_DEMAND}.{shard}" for shard in range(16))  # these routes
MESSAGE_BYTES = 4 * 2**20  # of a request's message, at most: the web tier lets in what makes no longer one
REQUEST_ID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")  # a UUID

Priority = Literal["interactive", "bulk"]


def shared_route(model: str) -> str:
    """The route of a model on demand, one of SHARED: always the same one, so that it has a worker of its own choice."""
    return SHARED[crc32(model.encode()) % len(SHARED)]


def queue_name(route: str, priority: Priority) -> str:
    """The queue that holds a route's work: `tolk.translate.fr-en.interactive`, `tolk.translate.on-demand.7.bulk`."""
    return f"{EXCHANGE}.{route}.{priority}"


def queue_names(route: str) -> list[str]:
    """Interactive work, then bulk."""
    return [queue_name(route, priority) for priority in get_args(Priority)]


def suspects_name(route: str) -> str:
    """The queue of requests that came back twice: `tolk.suspects.fr-en`, and one for all models on demand."""
    return f"tolk.suspects.{route.partition('.')[0]}"
