"""Who enters a batch, and who leaves before. Plain Python: no tensors, no threads, no clock of its own."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, Literal, Protocol, TypeVar

from models.errors import Overloaded

Priority = Literal["interactive", "bulk"]


class Sentence(Protocol):
    """What the scheduler looks at. `deadline` is on the clock whose time `expire` is told."""

    @property
    def tokens(self) -> Sequence[int]: ...
    @property
    def beam(self) -> int: ...
    @property
    def deadline(self) -> float: ...
    @property
    def priority(self) -> Priority: ...


S = TypeVar("S", bound=Sentence)


class Scheduler(Generic[S]):
    """First come, first served, interactive before bulk; sentences of one batch have the same beam width.

    A batch takes sentences until its padded size, longest source x hypotheses, would exceed `token_budget`; one
    sentence alone always fits. `max_waiting` bounds the queue.
    """

    def __init__(self, token_budget: int, max_waiting: int) -> None:
        self._token_budget = token_budget
        self._max_waiting = max_waiting
        self._queues: dict[Priority, deque[S]] = {"interactive": deque(), "bulk": deque()}
        self._earliest = math.inf  # no deadline in the queues lies before it

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def add(self, sentence: S) -> None:
        """Raises Overloaded when the queue is full."""
        if len(self) >= self._max_waiting:
            raise Overloaded(f"{len(self)} sentences wait already. Try again in a moment.")
        self._queues[sentence.priority].append(sentence)
        self._earliest = min(self._earliest, sentence.deadline)

    def next_batch(self) -> list[S]:
        """Takes the next batch out of the queue; empty when nobody waits."""
        batch: list[S] = []
        longest = 0
        for queue in self._queues.values():
            while queue:
                first = queue[0]
                longest = max(longest, len(first.tokens))
                padded = longest * first.beam * (len(batch) + 1)
                if batch and (first.beam != batch[0].beam or padded > self._token_budget):
                    return batch
                batch.append(queue.popleft())
        return batch

    def expire(self, now: float) -> list[S]:
        """Takes out the sentences whose deadline has come."""
        if now < self._earliest:
            return []
        expired = self.remove(lambda sentence: sentence.deadline <= now)
        self._earliest = min((s.deadline for queue in self._queues.values() for s in queue), default=math.inf)
        return expired

    def remove(self, unwanted: Callable[[S], bool]) -> list[S]:
        """Takes out the sentences for which `unwanted` holds."""
        removed: list[S] = []
        for priority, queue in self._queues.items():
            removed += [sentence for sentence in queue if unwanted(sentence)]
            self._queues[priority] = deque(sentence for sentence in queue if not unwanted(sentence))
        return removed
