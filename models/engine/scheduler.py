"""Chooses the sentences that enter a lane's batch at its next step. No tensors, no threads, no clock of its own."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, Literal, Protocol, TypeVar, get_args

from models.errors import Overloaded

Priority = Literal["interactive", "bulk"]

SHORTEST = 8  # a shorter sentence counts as so many tokens, so that the budget bounds the rows of a step, too
AGED_AFTER = 5.0  # seconds of waiting after which a sentence goes before all that have waited less
BULK_SHARE = 0.75  # of a lane's budget; the rest is free for interactive sentences at the next step


class Schedulable(Protocol):
    """A sentence, as far as the scheduler needs it. `submitted` and `deadline` are times of the clock of `now`."""

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
    """What a sentence takes of the token budget: source tokens x hypotheses."""
    return sentence.beam * max(len(sentence.tokens), SHORTEST)


class Scheduler(Generic[S]):
    """A queue of at most `max_waiting` sentences, and `lanes` batches of at most `token_budget` (see `cost`) each.

    Interactive sentences go before bulk sentences. Within a priority, groups take turns, a sentence each, so that a
    short request does not wait behind a long one; a sentence without a group is a group by itself. A sentence that has
    waited longer than `aged_after` seconds goes before all others, the oldest first. If the next sentence does not fit,
    none enters, so that short sentences cannot starve a long one. In an empty lane every sentence fits.

    While sentences run in a lane, others enter it only at every `pace`-th step, so that they are encoded together.
    """

    def __init__(
        self, token_budget: int, max_waiting: int, *, lanes: int = 1, aged_after: float = AGED_AFTER, pace: int = 1
    ) -> None:
        self._token_budget = token_budget
        self._max_waiting = max_waiting
        self._aged_after = aged_after
        self._pace = pace
        self._steps = [0] * lanes  # steps of each lane since a sentence entered it
        self._waiting: OrderedDict[S, None] = OrderedDict()  # in order of arrival
        self._groups: dict[Priority, OrderedDict[Hashable, OrderedDict[S, None]]] = {
            priority: OrderedDict() for priority in get_args(Priority)
        }
        self._waiting_cost = 0
        self._running: list[dict[Priority, int]] = [dict.fromkeys(self._groups, 0) for _ in range(lanes)]  # costs
        self._earliest = math.inf  # no deadline in the queue is earlier

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, sentence: S) -> None:
        """Queues a sentence. Raises Overloaded if the queue is full."""
        if len(self) >= self._max_waiting:
            raise Overloaded(f"{len(self)} sentences wait already. Try again in a moment.")
        self._waiting[sentence] = None
        self._groups[sentence.priority].setdefault(_group(sentence), OrderedDict())[sentence] = None
        self._waiting_cost += cost(sentence)
        self._earliest = min(self._earliest, sentence.deadline)

    def admit(self, lane: int, now: float) -> list[S]:
        """Takes from the queue the sentences that enter this lane's batch now. Each takes its cost of the lane's budget
        until `leave`."""
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
        """Frees the budget of a sentence that was admitted to this lane."""
        self._running[lane][sentence.priority] -= cost(sentence)

    def held(self, lane: int) -> int:
        """The total cost of this lane's sentences."""
        return sum(self._running[lane].values())

    def expire(self, now: float) -> list[S]:
        """Takes from the queue, and returns, the sentences whose deadline has passed."""
        if now < self._earliest:
            return []
        expired = self.remove(lambda sentence: sentence.deadline <= now)
        self._earliest = min((sentence.deadline for sentence in self._waiting), default=math.inf)
        return expired

    def remove(self, unwanted: Callable[[S], bool]) -> list[S]:
        """Takes from the queue, and returns, the sentences for which `unwanted` is true."""
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
        if own * len(self._running) >= everywhere:  # this lane has its share: leave the sentence to another lane
            return False
        bulk = self._running[lane]["bulk"] + cost(sentence)
        if sentence.priority == "bulk" and not aged and bulk > BULK_SHARE * self._token_budget:
            return False
        return own + cost(sentence) <= self._token_budget

    def _take(self, sentence: S) -> None:
        """Takes a sentence from the queue. Its group goes to the end of the line of groups."""
        groups, key = self._groups[sentence.priority], _group(sentence)
        group = groups.pop(key)
        del group[sentence], self._waiting[sentence]
        if group:
            groups[key] = group
        self._waiting_cost -= cost(sentence)


def _group(sentence: Schedulable) -> Hashable:
    return id(sentence) if sentence.group is None else sentence.group
