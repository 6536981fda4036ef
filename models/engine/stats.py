"""Counts the work of an engine. It can be imported without torch."""

from __future__ import annotations

from dataclasses import dataclass
from operator import add

BATCH_SIZES = tuple(2**power for power in range(10))  # sentences: 1 to 512


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What an engine has done since its start, and its state now. The stats of several engines can be added.

    Since the start. `batches`: number of steps by the number of sentences in the batch: at most 1, at most 2, 4, ...
    (BATCH_SIZES), and more. `batch_sentences`, `batch_tokens`: the sentences in a batch, and its part of the token
    budget (source tokens x hypotheses, models.engine.scheduler.cost), each summed over all steps. `finished`, `failed`:
    number of sentences. `source_tokens`: source tokens of finished sentences, including end tokens. `target_tokens`:
    target tokens of their best hypotheses, excluding end tokens.

    Now. `waiting`, `running`: number of sentences. `running_tokens`: what the running sentences take of the token
    budget. `lanes`: number of lanes, 0 if the engine is closed. `token_budget`: that of each lane.
    """

    batches: tuple[int, ...] = (0,) * (len(BATCH_SIZES) + 1)
    batch_sentences: int = 0
    batch_tokens: int = 0
    finished: int = 0
    failed: int = 0
    source_tokens: int = 0
    target_tokens: int = 0
    waiting: int = 0
    running: int = 0
    running_tokens: int = 0
    lanes: int = 0
    token_budget: int = 0

    @property
    def steps(self) -> int:
        """The number of steps since the start."""
        return sum(self.batches)

    @property
    def occupancy(self) -> float:
        """The share of all lanes' budget that running sentences take, 0 to 1; more counts as 1, because a sentence that
        is alone may exceed the budget."""
        capacity = self.lanes * self.token_budget
        return min(1.0, self.running_tokens / capacity) if capacity else 0.0

    def __add__(self, other: EngineStats) -> EngineStats:
        return EngineStats(
            batches=tuple(map(add, self.batches, other.batches)),
            batch_sentences=self.batch_sentences + other.batch_sentences,
            batch_tokens=self.batch_tokens + other.batch_tokens,
            finished=self.finished + other.finished,
            failed=self.failed + other.failed,
            source_tokens=self.source_tokens + other.source_tokens,
            target_tokens=self.target_tokens + other.target_tokens,
            waiting=self.waiting + other.waiting,
            running=self.running + other.running,
            running_tokens=self.running_tokens + other.running_tokens,
            lanes=self.lanes + other.lanes,
            token_budget=max(self.token_budget, other.token_budget),
        )


class EngineCounts:
    """Counts what an engine has done since its start, as in EngineStats. All callers hold the engine's lock."""

    def __init__(self) -> None:
        self.failed = 0
        self._batches = [0] * (len(BATCH_SIZES) + 1)
        self._batch_sentences = self._batch_tokens = 0
        self._finished = self._source_tokens = self._target_tokens = 0

    def add_step(self, sentences: int, tokens: int) -> None:
        """Counts a step with a batch of `sentences`, which takes `tokens` of the budget."""
        self._batches[min((sentences - 1).bit_length(), len(BATCH_SIZES))] += 1  # log2 of the size, rounded up
        self._batch_sentences += sentences
        self._batch_tokens += tokens

    def add_finished(self, source_tokens: int, target_tokens: int) -> None:
        """Counts a sentence that has been translated."""
        self._finished += 1
        self._source_tokens += source_tokens
        self._target_tokens += target_tokens

    def stats(self, **now: int) -> EngineStats:
        """The counts as EngineStats; `now` are the fields that describe the engine's state now."""
        return EngineStats(
            batches=tuple(self._batches),
            batch_sentences=self._batch_sentences,
            batch_tokens=self._batch_tokens,
            finished=self._finished,
            failed=self.failed,
            source_tokens=self._source_tokens,
            target_tokens=self._target_tokens,
            **now,
        )
