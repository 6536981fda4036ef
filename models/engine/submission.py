"""A sentence that was handed to an engine, and what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from models.engine.batch import Hypothesis
from models.engine.options import DecodingOptions
from models.engine.scheduler import Priority


@dataclass(frozen=True, slots=True)
class SentenceTimings:
    """Seconds that a sentence waited until it entered a batch, was encoded, and decoded, among others, until it was
    done."""

    wait: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0


class Pending(Future[list[Hypothesis]]):
    """The hypotheses to come, best first; `timings` is set before they are."""

    timings = SentenceTimings()


@dataclass(eq=False, slots=True)
class Submission:
    """What the scheduler looks at, and what a lane notes of it. Times are on the engine's clock."""

    tokens: Sequence[int]
    options: DecodingOptions
    deadline: float
    priority: Priority
    group: str | None
    submitted: float
    pending: Pending
    began: float = 0.0  # when it entered a batch
    encoded: float = 0.0

    @property
    def beam(self) -> int:
        return self.options.beam
