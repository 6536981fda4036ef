"""A sentence that was submitted to an engine, and its outcome."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from models.engine.batch import Hypothesis
from models.engine.options import DecodingOptions
from models.engine.scheduler import Priority


@dataclass(frozen=True, slots=True)
class SentenceTimings:
    """Seconds that a sentence waited to enter a batch (`wait`), was encoded (`prefill`), and was decoded (`decode`),
    together with other sentences."""

    wait: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0


class Pending(Future[list[Hypothesis]]):
    """A future of the hypotheses, the best first. When they are there, `timings` is set, too."""

    timings = SentenceTimings()


@dataclass(eq=False, slots=True)
class Submission:
    """A sentence in an engine, as the scheduler and the lanes see it. Times are those of the engine's clock."""

    tokens: Sequence[int]
    options: DecodingOptions
    deadline: float
    priority: Priority
    caller: str
    group: str | None
    preparation: float
    submitted: float
    pending: Pending
    began: float = 0.0  # when it entered a batch
    encoded: float = 0.0  # when its source had been encoded

    @property
    def beam(self) -> int:
        return self.options.beam
