"""Several requests in one message, a bundle, and several replies in one message.

A bundle is a message of the same task with a list in place of the request. Its id is its own; each request in it brings
the id that its reply is correlated by. A worker of an earlier release answers a bundle as a whole with BAD_INPUT.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.contract.errors import Code, TolkError
from tasks.contract.fields import mapping, value
from tasks.contract.names import TASK_ID
from tasks.contract.request import TranslateRequest

BUNDLE_REQUESTS = 16  # the largest number of requests in a bundle
BUNDLE_BYTES = 64 * 1024  # the largest body of a bundle
BUNDLE_CHARACTERS = 2_000  # a request with more characters travels alone
REPLIES_BYTES = 2**20  # the largest body of a message with several replies
TAKES_MANY = "tolk-takes-many"  # the header of a message whose sender reads several replies in one message
RETURNED = "tolk-returned"  # the header of a single request that a bundle brought to a worker whose process ended


@dataclass(frozen=True, slots=True)
class Bundled:
    """A request in a bundle. `task_id` correlates its reply; `trace` are the headers of its trace."""

    task_id: str
    request: TranslateRequest
    trace: Mapping[str, str] = field(default_factory=dict)

    def encode(self) -> dict[str, Any]:
        return {**self.request.encode(), "id": self.task_id, "trace": dict(self.trace)}


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A request in a bundle that cannot be read, and why."""

    task_id: str
    error: TolkError


def named(payload: object) -> dict[str, Mapping[str, Any]]:
    """The requests of a bundle by their ids, as they came, in order; empty if `payload` is no bundle.

    One without an id is left out, because nobody could be answered.
    """
    bundled = [each for each in payload if isinstance(each, Mapping)] if isinstance(payload, list) else []
    return {each["id"]: each for each in bundled if isinstance(each.get("id"), str) and TASK_ID.fullmatch(each["id"])}


def decode_bundle(payload: object) -> list[Bundled | Unreadable]:
    """The requests of a bundle that have an id, in order."""
    found: list[Bundled | Unreadable] = []
    for task_id, each in named(payload).items():
        try:
            found.append(Bundled(task_id, TranslateRequest.decode(each), _trace(each)))
        except TolkError as error:
            found.append(Unreadable(task_id, error))
    return found


def encode_replies(replies: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The body of a message with several replies, each of which would be the body of a message of its own."""
    return {"replies": list(replies)}


def decode_replies(payload: object) -> list[Mapping[str, Any]] | None:
    """The bodies of the replies in a message, without those that are no objects; None for a message that is a single
    reply."""
    if not isinstance(payload, Mapping) or "replies" not in payload:
        return None
    replies: list[Any] = value(payload, "replies", list)
    return [each for each in replies if isinstance(each, Mapping)]


def _trace(data: Mapping[str, Any]) -> dict[str, str]:
    found = mapping(data.get("trace") or {}, "trace")
    if not all(isinstance(each, str) for each in found.values()):
        raise TolkError(Code.BAD_INPUT, "trace: headers with texts were expected.")
    return dict(found)
