"""Chooses the sentences that enter a lane's batch at its next step. No tensors, no threads, no clock of its own."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Container, Hashable, Iterator, Sequence
from typing import Generic, Literal, Protocol, TypeVar

from models.engine.shares import Shares
from models.errors import Overloaded

Priority = Literal["interactive", "bulk"]

SHORTEST = 8  # a shorter sentence counts as so many tokens, so that the budget bounds the rows of a step, too
AGED_AFTER = 5.0  # seconds of waiting after which a sentence goes before its caller's others that have waited less
WEIGHTS: dict[Priority, float] = {"interactive": 9.0, "bulk": 1.0}  # their shares of the tokens while both wait
BULK_SHARE = 0.75  # of a lane's budget; the rest is free for interactive sentences at the next step
PRESENT = 5.0  # seconds after its latest sentence during which a caller counts as present
PATIENCE = 3  # a caller may have so many times as many sentences in the queue as there are free places


class Schedulable(Protocol):
    """A sentence, as far as the scheduler needs it. `submitted` and `deadline` are times of the clock of `now`.

    `caller` and `group`: whose sentence it is, and of which of the caller's requests. `preparation`: what it took to
    make the sentence of its text, in tokens.
    """

    @property
    def tokens(self) -> Sequence[int]: ...
    @property
    def beam(self) -> int: ...
    @property
    def deadline(self) -> float: ...
    @property
    def priority(self) -> Priority: ...
    @property
    def caller(self) -> str: ...
    @property
    def group(self) -> str | None: ...
    @property
    def preparation(self) -> float: ...
    @property
    def submitted(self) -> float: ...


S = TypeVar("S", bound=Schedulable)


def cost(sentence: Schedulable) -> int:
    """What a sentence takes of the token budget: source tokens x hypotheses."""
    return sentence.beam * max(len(sentence.tokens), SHORTEST)


class _Line(Generic[S]):
    """The sentences of one caller with one priority that wait. Its requests share what the caller gets."""

    def __init__(self) -> None:
        self.sentences: OrderedDict[S, None] = OrderedDict()  # in order of arrival
        self._requests: dict[Hashable, OrderedDict[S, None]] = {}
        self._shares: Shares[Hashable] = Shares()

    def add(self, sentence: S) -> None:
        self.sentences[sentence] = None
        key = _request(sentence)
        if key not in self._requests:
            self._requests[key] = OrderedDict()
            self._shares.join(key)
        self._requests[key][sentence] = None

    def next(self, now: float, aged_after: float) -> S:
        oldest = next(iter(self.sentences))
        if now - oldest.submitted > aged_after:
            return oldest
        return next(iter(self._requests[self._shares.first()]))

    def take(self, sentence: S, *, served: float | None = None) -> None:
        """Takes a sentence out; `served` is what that adds to what its request was served."""
        key = _request(sentence)
        if served is not None:
            self._shares.serve(key, served)
        del self.sentences[sentence], self._requests[key][sentence]
        if not self._requests[key]:
            del self._requests[key]
            self._shares.leave(key)


class Scheduler(Generic[S]):
    """A queue of at most `max_waiting` sentences, and `lanes` batches of at most `token_budget` (see `cost`) each.

    By start-time fair queueing over tokens (models.engine.shares) the priorities share the batches by their WEIGHTS.
    What a priority gets, its callers share equally; what a caller gets, its requests share equally. A sentence that has
    waited longer than `aged_after` seconds goes before its caller's others of that priority, never before those of
    another caller. If the next sentence does not fit, none enters, so that short sentences cannot starve a long one. In
    an empty lane every sentence fits.

    While others are present, the sentences of a caller take `caller_share` of a lane's budget at most, and one sentence
    more, so that steps stay short and there is room for the others' next sentences. Further ones enter when half of
    that is free, so that they are encoded together.

    While sentences run in a lane, others enter it only at every `pace`-th step, so that they are encoded together.
    """

    def __init__(
        self,
        token_budget: int,
        max_waiting: int,
        *,
        lanes: int = 1,
        aged_after: float = AGED_AFTER,
        pace: int = 1,
        caller_share: float = 1.0,
    ) -> None:
        self._token_budget = token_budget
        self._max_waiting = max_waiting
        self._aged_after = aged_after
        self._pace = pace
        self._most = caller_share * token_budget
        self._steps = [0] * lanes  # steps of each lane since a sentence entered it
        self._lines: dict[Priority, dict[str, _Line[S]]] = {priority: {} for priority in WEIGHTS}
        self._priorities: Shares[Priority] = Shares(WEIGHTS)
        self._callers: dict[Priority, Shares[str]] = {priority: Shares() for priority in WEIGHTS}
        self._waiting: dict[str, int] = {}  # sentences by caller
        self._length = self._waiting_cost = 0
        self._held = [0] * lanes  # costs
        self._bulk = [0] * lanes
        self._running: list[dict[str, int]] = [{} for _ in range(lanes)]  # costs by caller
        self._present: OrderedDict[str, float] = OrderedDict()  # when each caller's latest sentence came
        self._earliest = math.inf  # no deadline in the queue is earlier

    def __len__(self) -> int:
        return self._length

    def add(self, sentence: S) -> None:
        """Queues a sentence. Raises Overloaded if its caller has too many in the queue, or the queue is full.

        Too many are PATIENCE times as many as there are free places, so that there is always a place for whoever has
        few (dynamic thresholds: Choudhury and Hahne 1998, https://doi.org/10.1109/90.664262).
        """
        priority, caller = sentence.priority, sentence.caller
        mine = self._waiting.get(caller, 0)
        if mine >= PATIENCE * (self._max_waiting - self._length):
            raise Overloaded(f"{self._length} sentences wait already. Try again in a moment.")
        lines = self._lines[priority]
        if not lines:
            self._priorities.join(priority)
        if caller not in lines:
            lines[caller] = _Line()
            self._callers[priority].join(caller)
        lines[caller].add(sentence)
        self._waiting[caller] = mine + 1
        self._length += 1
        self._waiting_cost += cost(sentence)
        self._earliest = min(self._earliest, sentence.deadline)
        self._see(caller, sentence.submitted)

    def admit(self, lane: int, now: float) -> list[S]:
        """Takes from the queue the sentences that enter this lane's batch now. Each takes its cost of the lane's budget
        until `leave`."""
        entering: list[S] = []
        self._steps[lane] += 1
        if not self._length or (self._steps[lane] < self._pace and self._held[lane]):
            return entering
        while self._present and now - next(iter(self._present.values())) > PRESENT:
            self._present.popitem(last=False)
        begun = set[str]()  # whose sentences enter
        while (sentence := self._next(lane, now, begun)) is not None and self._fits(sentence, lane):
            self._take(sentence, served=cost(sentence) + sentence.preparation)
            self._hold(lane, sentence, cost(sentence))
            self._see(sentence.caller, now)
            begun.add(sentence.caller)
            entering.append(sentence)
            self._steps[lane] = 0
        return entering

    def leave(self, lane: int, sentence: S) -> None:
        """Frees the budget of a sentence that was admitted to this lane."""
        self._hold(lane, sentence, -cost(sentence))

    def held(self, lane: int) -> int:
        """The total cost of this lane's sentences."""
        return self._held[lane]

    def expire(self, now: float) -> list[S]:
        """Takes from the queue, and returns, the sentences whose deadline has passed."""
        if now < self._earliest:
            return []
        expired = self.remove(lambda sentence: sentence.deadline <= now)
        self._earliest = min((sentence.deadline for sentence in self._all()), default=math.inf)
        return expired

    def remove(self, unwanted: Callable[[S], bool]) -> list[S]:
        """Takes from the queue, and returns, the sentences for which `unwanted` is true."""
        removed = [sentence for sentence in self._all() if unwanted(sentence)]
        for sentence in removed:
            self._take(sentence)
        return removed

    def _all(self) -> Iterator[S]:
        return (sentence for lines in self._lines.values() for line in lines.values() for sentence in line.sentences)

    def _next(self, lane: int, now: float, begun: Container[str]) -> S | None:
        """The sentence whose turn it is, of those that may enter this lane as far as bulk and callers are limited."""

        def is_allowed(caller: str) -> bool:
            if len(self._present) <= (caller in self._present):  # it is alone
                return True
            most = self._most if caller in begun else self._most / 2  # so that several enter together
            return self._running[lane].get(caller, 0) < most

        refused: set[Priority] = set()
        while (priority := self._priorities.first(lambda each: each not in refused)) is not None:
            caller = self._callers[priority].first(is_allowed)
            if caller is not None:
                sentence = self._lines[priority][caller].next(now, self._aged_after)
                if priority != "bulk" or self._has_room_for_bulk(sentence, lane):
                    return sentence
            refused.add(priority)
        return None

    def _has_room_for_bulk(self, sentence: S, lane: int) -> bool:
        return not self._bulk[lane] or self._bulk[lane] + cost(sentence) <= BULK_SHARE * self._token_budget

    def _fits(self, sentence: S, lane: int) -> bool:
        own = self._held[lane]
        if not own:
            return True
        if own * len(self._held) >= sum(self._held) + self._waiting_cost:  # this lane has its share: leave it to others
            return False
        return own + cost(sentence) <= self._token_budget

    def _hold(self, lane: int, sentence: S, more: int) -> None:
        self._held[lane] += more
        if sentence.priority == "bulk":
            self._bulk[lane] += more
        running, caller = self._running[lane], sentence.caller
        running[caller] = running.get(caller, 0) + more
        if not running[caller]:
            del running[caller]

    def _take(self, sentence: S, *, served: float | None = None) -> None:
        """Takes a sentence from the queue; `served` is what that adds to what its request, caller and priority got."""
        priority, caller = sentence.priority, sentence.caller
        lines, callers = self._lines[priority], self._callers[priority]
        lines[caller].take(sentence, served=served)
        if served is not None:
            self._priorities.serve(priority, served)
            callers.serve(caller, served)
        if not lines[caller].sentences:
            del lines[caller]
            callers.leave(caller)
            if not lines:
                self._priorities.leave(priority)
        self._waiting[caller] -= 1
        if not self._waiting[caller]:
            del self._waiting[caller]
        self._length -= 1
        self._waiting_cost -= cost(sentence)

    def _see(self, caller: str, now: float) -> None:
        self._present[caller] = now
        self._present.move_to_end(caller)


def _request(sentence: Schedulable) -> Hashable:
    return id(sentence) if sentence.group is None else sentence.group
