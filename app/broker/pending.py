"""What this process waits for: requests in flight, and questions to other processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Protocol
from uuid import uuid4

from tasks.contract.errors import Code, TolkError

CANCELLED = "The request was cancelled."

Inbox = SimpleQueue[object]


@dataclass(slots=True, eq=False)
class PendingRequest:
    """A request in flight, its current task, and the error that ended it early, or None.

    Each task has an id of its own, because workers refuse for good an id that was once cancelled. To its inbox come the
    body of its reply, an error, and what else its thread waits for. `bundle` is the id of the message that brings it
    with others, if one does. `since` is when the request began to wait for a reply from `queue`, in Unix seconds.
    """

    request_id: str
    principal: str | None
    task_id: str = ""
    inbox: Inbox = field(default_factory=SimpleQueue)
    bundle: str | None = None
    ended: TolkError | None = None
    queue: str = ""
    since: float = 0.0


class WaitingRequests(Protocol):
    """Requests of this process that are not in flight, because they wait for the answer to another one."""

    def has(self, request_id: str, principal: str | None) -> bool:
        """Whether one of them has this id and principal."""

    def cancel(self, request_id: str, principal: str | None) -> bool:
        """Ends it with CANCELLED. Returns whether there was one."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question to other processes. Its answer is a message to the reply queue whose correlation id is the ticket."""

    ticket: str = field(default_factory=lambda: str(uuid4()))
    inbox: Inbox = field(default_factory=SimpleQueue)


class BundleRefused(Exception):
    """A worker cannot read bundles. The task may be expected, and published by itself, once more."""


class RepliesLost(TolkError):
    """The reply queue was lost, and the reply with it. The task may be expected, and published, once more."""

    def __init__(self) -> None:
        super().__init__(Code.UNAVAILABLE, "The message broker lost the answer. Try again in a moment.", 1.0)
