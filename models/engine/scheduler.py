"""Which sentences enter a lane's batch at its next step. Plain Python: no tensors, no threads, no clock of its own."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, Literal, Protocol, TypeVar, get_args

from models.errors import Overloaded

Priority = Literal["interactive", "bulk"]

SHORTEST = 8  # tokens that a sentence counts as at least, so that the budget bounds the rows of a step, too
AGED_AFTER = 5.0  # seconds after which a sentence goes before all that have waited less
BULK_SHARE = 0.75  # of a lane's budget; interactive work then finds room at the next step


class Schedulable(Protocol):
    """What the scheduler looks at. `submitted` and `deadline` are on the clock whose time it is told."""

    @property
    def tokens(self) -> Sequence[int]: ...
    @property
    def beam(self) -> int: ...
    @property
    def deadline(self) -> float: ...
    @property
    def priority(self) -> Priority: ...
    @property
    def group(self) -> str | None: ...
    @property
    def submitted(self) -> float: ...


S = TypeVar("S", bound=Schedulable)


def cost(sentence: Schedulable) -> int:
    """Source tokens x hypotheses."""
    return sentence.beam * max(len(sentence.tokens), SHORTEST)


class Scheduler(Generic[S]):
    """A queue of at most `max_waiting` sentences, and `lanes` batches of at most `token_budget` each.

    Interactive sentences go before bulk ones. Among them groups take turns, a sentence each, so that a short request is
    not behind a long one; a sentence without a group is a group by itself. A sentence that has waited for more than
    `aged_after` seconds goes before all others, the oldest first. None is overtaken: where the next one does not fit,
    none enters, or a long sentence would wait for ever. In an empty lane every sentence fits.

    While sentences run in a lane, others enter it at every `pace`-th step only, so that they are encoded together.
    """

    def __init__(
        self, token_budget: int, max_waiting: int, *, lanes: int = 1, aged_after: float = AGED_AFTER, pace: int = 1
    ) -> None:
        self._token_budget = token_budget
        self._max_waiting = max_waiting
        self._aged_after = aged_after
        self._pace = pace
        self._steps = [0] * lanes  # since a sentence entered
        self._waiting: OrderedDict[S, None] = OrderedDict()  # in the order they came
        self._groups: dict[Priority, OrderedDict[Hashable, OrderedDict[S, None]]] = {
            priority: OrderedDict() for priority in get_args(Priority)
        }
        self._waiting_cost = 0
        self._running: list[dict[Priority, int]] = [dict.fromkeys(self._groups, 0) for _ in range(lanes)]  # costs
        self._earliest = math.inf  # no deadline in the queue lies before it

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, sentence: S) -> None:
        """Raises Overloaded when the queue is full."""
        if len(self) >= self._max_waiting:
            raise Overloaded(f"{len(self)} sentences wait already. Try again in a moment.")
        self._waiting[sentence] = None
        self._groups[sentence.priority].setdefault(_group(sentence), OrderedDict())[sentence] = None
        self._waiting_cost += cost(sentence)
        self._earliest = min(self._earliest, sentence.deadline)

    def admit(self, lane: int, now: float) -> list[S]:
        """Takes out of the queue the sentences that enter this lane's batch now. Each holds its room until `leave`."""
        entering: list[S] = []
        self._steps[lane] += 1
        if self._steps[lane] < self._pace and self.held(lane):
            return entering
        while self._waiting:
            oldest = next(iter(self._waiting))
            aged = now - oldest.submitted > self._aged_after
            sentence = oldest if aged else self._next()
            if not self._fits(sentence, lane, aged=aged):
                break
            self._take(sentence)
            self._running[lane][sentence.priority] += cost(sentence)
            entering.append(sentence)
            self._steps[lane] = 0
        return entering

    def leave(self, lane: int, sentence: S) -> None:
        """Gives back the room of one that was admitted to this lane."""
        self._running[lane][sentence.priority] -= cost(sentence)

    def held(self, lane: int) -> int:
        """What this lane's sentences cost together."""
        return sum(self._running[lane].values())

    def expire(self, now: float) -> list[S]:
        """Takes out of the queue the sentences whose deadline has come."""
        if now < self._earliest:
            return []
        expired = self.remove(lambda sentence: sentence.deadline <= now)
        self._earliest = min((sentence.deadline for sentence in self._waiting), default=math.inf)
        return expired

    def remove(self, unwanted: Callable[[S], bool]) -> list[S]:
        """Takes out of the queue the sentences for which `unwanted` holds."""
        removed = [sentence for sentence in self._waiting if unwanted(sentence)]
        for sentence in removed:
            self._take(sentence)
        return removed

    def _next(self) -> S:
        groups = next(groups for groups in self._groups.values() if groups)
        return next(iter(next(iter(groups.values()))))

    def _fits(self, sentence: S, lane: int, *, aged: bool) -> bool:
        own = self.held(lane)
        if not own:
            return True
        everywhere = sum(map(self.held, range(len(self._running)))) + self._waiting_cost
        if own * len(self._running) >= everywhere:  # the lane has its share: another one is to take this sentence
            return False
        bulk = self._running[lane]["bulk"] + cost(sentence)
        if sentence.priority == "bulk" and not aged and bulk > BULK_SHARE * self._token_budget:
            return False
        return own + cost(sentence) <= self._token_budget

    def _take(self, sentence: S) -> None:
        """Out of the queue; its group's next turn comes after those of all others."""
        groups, key = self._groups[sentence.priority], _group(sentence)
        group = groups.pop(key)
        del group[sentence], self._waiting[sentence]
        if group:
            groups[key] = group
        self._waiting_cost -= cost(sentence)


def _group(sentence: Schedulable) -> Hashable:
    return id(sentence) if sentence.group is None else sentence.group
