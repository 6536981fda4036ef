"""A job as its owner sees it, and a text of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any

from app.translation.outcome import Origin
from tasks.contract.errors import Code
from tasks.contract.reply import Failure, TextResult

LONGEST = 7 * 86_400.0  # seconds that a job may take, at most
USUAL = 86_400.0  # seconds that it may take if nobody says


class Status(StrEnum):
    """Where a job stands. It ends as one of the last three."""

    OPEN = "OPEN"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


ACTIVE = (Status.QUEUED, Status.RUNNING)
ENDED = (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)


class State(IntEnum):
    """Where a text of a job stands. OUT is with a worker, as part of a chunk."""

    WAITING = 0
    OUT = 1
    TRANSLATED = 2
    FAILED = 3


@dataclass(frozen=True, slots=True)
class Job:
    """A job without its texts. Times are in Unix seconds.

    `number` identifies it in the database, `id` to callers. `revision` grows with every change that a caller can see.
    `principal` is the key that owns it, empty for this machine. `source` is None if texts are in several languages;
    `model` is None until that is known. Of `total` texts, `translated` and `failed` have an outcome.
    """

    number: int
    id: str
    principal: str
    status: Status
    revision: int
    source: str | None
    target: str
    model: str | None
    version: str | None
    priority: str
    callback_url: str | None
    created: float
    started: float | None
    finished: float | None
    deadline: float
    expires: float | None
    total: int
    translated: int
    failed: int
    error: Failure | None

    @classmethod
    def of(cls, row: Any) -> Job:
        """The job in a row of the table."""
        same = {name: getattr(row, name) for name in cls.__dataclass_fields__ if name in row._mapping}
        error = None if row.error_code is None else Failure(Code(row.error_code), row.error_message)
        return cls(**same | {"number": row.id, "id": row.uuid, "status": Status(row.status), "error": error})

    @property
    def done(self) -> int:
        """How many texts have an outcome: a translation or an error."""
        return self.translated + self.failed

    @property
    def abandoned(self) -> Failure | None:
        """Why a text without an outcome will have none, unless the job is retried; None while the job goes on."""
        if self.status not in ENDED:
            return None
        return self.error or Failure(Code.CANCELLED, "The job was cancelled before this text was translated.")


@dataclass(frozen=True, slots=True)
class Segment:
    """A text of a job, by its position from 0. `result` is None until it has an outcome."""

    position: int
    text: str
    origin: Origin
    result: TextResult | None

    @classmethod
    def of(cls, row: Any) -> Segment:
        """The text in a row of the table. What one of two legs has made of it is no outcome yet."""
        is_done = row.state in (State.TRANSLATED, State.FAILED)
        result = TextResult.decode(json.loads(row.result)) if is_done else None
        return cls(row.position, row.text, Origin.decode(json.loads(row.origin)), result)
