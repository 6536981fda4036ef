"""Chooses the sentences that enter a lane's batch at its next step. No tensors, no threads, no clock of its own."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Container, Iterator, Sequence
from functools import partial
from typing import Generic, Literal, Protocol, TypeVar

from models.engine.line import Line
from models.engine.shares import Shares
from models.errors import Overloaded

Priority = Literal["interactive", "bulk"]

SHORTEST = 8  # a shorter sentence counts as so many tokens, so that the budget bounds the rows of a step, too
AGED_AFTER = 5.0  # seconds of waiting after which a sentence goes before its caller's others that have waited less
WEIGHTS: dict[Priority, float] = {"interactive": 9.0, "bulk": 1.0}  # their shares of the tokens while both wait
BULK_SHARE = 0.75  # of a lane's budget; the rest is free for interactive sentences at the next step
BULK_WAITING = 0.125  # of the queue; bulk work waits outside for the rest, and its memory is bounded
PRESENT = 5.0  # seconds after its latest sentence during which a caller, or interactive work, counts as present
BESIDE = 4  # bulk sentences take a step at every so many steps beside interactive ones
PORTIONS = 12  # so many portions of bulk sentences run in a lane while interactive work is present
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

    Bulk sentences never hold interactive ones up for long. At most a `portion` of them, in tokens, enters a lane at
    once, since encoding takes its time. Interactive sentences enter a lane of bulk sentences at its next step, whatever
    the pace, and go on without them but for a portion at every fourth step (`stepping`). While interactive work is
    present, few bulk sentences run in a lane.
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
        portion: int | None = None,
    ) -> None:
        self._token_budget = token_budget
        self._max_waiting = max_waiting
        self._aged_after = aged_after
        self._pace = pace
        self._most = caller_share * token_budget
        self._portion = portion or token_budget
        self._steps = [0] * lanes  # steps of each lane since a sentence entered it
        self._lines: dict[Priority, dict[str, Line[S]]] = {priority: {} for priority in WEIGHTS}
        self._priorities: Shares[Priority] = Shares(WEIGHTS)
        self._callers: dict[Priority, Shares[str]] = {priority: Shares() for priority in WEIGHTS}
        self._waiting: dict[str, int] = {}  # sentences by caller
        self._length = self._waiting_cost = self._waiting_bulk = 0
        self._held = [0] * lanes  # costs
        self._bulk = [0] * lanes
        self._mixed = [0] * lanes  # steps of each lane in which both priorities ran
        self._running: list[dict[tuple[Priority, str], int]] = [
            {} for _ in range(lanes)
        ]  # costs by priority and caller
        self._interactive_until = -math.inf  # until then, interactive work is present
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
            lines[caller] = Line()
            self._callers[priority].join(caller)
        lines[caller].add(sentence)
        self._waiting[caller] = mine + 1
        self._length += 1
        self._waiting_cost += cost(sentence)
        self._waiting_bulk += priority == "bulk"
        self._earliest = min(self._earliest, sentence.deadline)
        self._see(sentence, sentence.submitted)

    @property
    def is_full_of_bulk(self) -> bool:
        """Whether so many bulk sentences wait that further ones should come later."""
        return self._waiting_bulk >= max(1, BULK_WAITING * self._max_waiting)

    def admit(self, lane: int, now: float) -> list[S]:
        """Takes from the queue the sentences that enter this lane's batch now. Each takes its cost of the lane's budget
        until `leave`."""
        entering: list[S] = []
        self._steps[lane] += 1
        is_held_up = bool(self._lines["interactive"]) and self._bulk[lane] == self._held[lane]
        if not self._length or (self._steps[lane] < self._pace and self._held[lane] and not is_held_up):
            return entering
        while self._present and now - next(iter(self._present.values())) > PRESENT:
            self._present.popitem(last=False)
        begun = set[tuple[Priority, str]]()  # whose sentences enter
        left = float(self._portion)  # of the tokens of bulk sentences that may enter
        while (sentence := self._next(lane, now, begun, left)) is not None and self._fits(sentence, lane):
            self._take(sentence, served=cost(sentence) + sentence.preparation)
            self._hold(lane, sentence, cost(sentence))
            self._see(sentence, now)
            begun.add((sentence.priority, sentence.caller))
            entering.append(sentence)
            if sentence.priority == "bulk":
                left -= cost(sentence)
            self._steps[lane] = self._pace if left <= 0 else 0  # the next portion comes at the next step
        return entering

    def stepping(self, lane: int, running: Collection[S]) -> list[S]:
        """Those of this lane's `running` sentences, the oldest first, that take its next step."""
        if not 0 < self._bulk[lane] < self._held[lane]:
            return list(running)
        chosen = [sentence for sentence in running if sentence.priority == "interactive"]
        self._mixed[lane] += 1
        if self._mixed[lane] % BESIDE == 0:
            left = self._portion
            for sentence in (each for each in running if each.priority == "bulk"):
                if left <= 0:
                    break
                left -= cost(sentence)
                chosen.append(sentence)
        return chosen

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

    def _next(self, lane: int, now: float, begun: Container[tuple[Priority, str]], left: float) -> S | None:
        """The sentence whose turn it is, of those that may enter this lane as far as bulk and callers are limited."""

        def is_allowed(priority: Priority, caller: str) -> bool:
            if len(self._present) <= (caller in self._present):  # it is alone
                return True
            most = self._most if (priority, caller) in begun else self._most / 2  # so that several enter together
            return self._running[lane].get((priority, caller), 0) < most

        refused: set[Priority] = set()
        while (priority := self._priorities.first(lambda each: each not in refused)) is not None:
            caller = self._callers[priority].first(partial(is_allowed, priority))
            if caller is not None:
                sentence = self._lines[priority][caller].next(now, self._aged_after)
                if priority != "bulk" or self._has_room_for_bulk(sentence, lane, now, left):
                    return sentence
            refused.add(priority)
        return None

    def _has_room_for_bulk(self, sentence: S, lane: int, now: float, left: float) -> bool:
        """Whether a bulk sentence may enter, of which `left` tokens may still enter at this step."""
        bulk, held = self._bulk[lane], self._held[lane]
        if not held:
            return True
        if left <= 0 or not self._fits(sentence, lane):  # it must not stop interactive ones that fit
            return False
        most = BULK_SHARE * self._token_budget
        if bulk < held:  # beside interactive ones, no more than take steps, one by one
            if left < self._portion:
                return False
            most = min(most, self._portion)
        elif now <= self._interactive_until:
            most = min(most, PORTIONS * self._portion)
        return not bulk or bulk + cost(sentence) <= most

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
        running, whose = self._running[lane], (sentence.priority, sentence.caller)
        running[whose] = running.get(whose, 0) + more
        if not running[whose]:
            del running[whose]

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
        self._waiting_bulk -= priority == "bulk"

    def _see(self, sentence: S, now: float) -> None:
        self._present[sentence.caller] = now
        self._present.move_to_end(sentence.caller)
        if sentence.priority == "interactive":
            self._interactive_until = now + PRESENT
