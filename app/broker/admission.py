"""Admission control: whether a request may enter a queue, by the time that it would wait there.

Work is counted in tokens: source tokens x hypotheses, as the workers count it. Replies tell how many their requests
took, from which each process learns how many a character of each caller makes, and how many are done in a second. The
number of workers is not used, because workers come and go.

Workers serve callers by fair queueing (models.engine.scheduler). So a request waits for what its own caller has in
flight, and for as much of what each other caller has, or for all that, if it is less. Who has little in flight is let
in, however much others have; who has much waits for itself.

A process knows its own requests in flight. Of the others it knows the length of the queue in the broker, which counts
messages. Each of them is taken to be another caller's, and to hold as much as this process's latest messages.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

from tasks.contract.errors import Code, TolkError
from tasks.contract.names import Priority

# The longest expected wait, in seconds: a longer queue adds latency and keeps no worker busier. Bulk work may wait.
LONGEST: dict[Priority, float] = {"interactive": 2.0, "bulk": math.inf}
DEPTH_AGE = 0.25  # seconds after which a queue's length is measured again
RECENT = 0.1  # the weight of the latest message, or reply, in the mean of what they hold
FADES = 1.0  # seconds in which the weight of a reply fades to about a third
LEAP = 0.15  # seconds that a reply after a silence counts for, at most
SHORT = 0.1  # seconds: a shorter wait does not show how many tokens are done in a second, only how many at least
FORGOTTEN = 60.0  # seconds without a reply after which the pace is unknown
GUESS = 40_000.0  # tokens per second, assumed until replies show the pace
DENSITY = 1.0  # tokens per character, assumed until replies show them
OVERHEAD = 100.0  # what a request takes besides its texts, in tokens
CALLERS = 1_000  # the number of callers whose tokens per character are remembered
RETRY_AFTER = (1, 30)  # seconds, at least and at most


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request of `caller` that entered, and when, in seconds of the clock. `tokens` is what it is expected to take;
    `ahead` is how many tokens are done before it, or beside it."""

    caller: str
    characters: int
    entered: float
    tokens: float
    ahead: float


class Admission:
    """Admission to one queue, as one process sees it. Thread-safe.

    `longest` is the longest expected wait, in seconds, with which a request may enter. `clock` returns seconds,
    `chance` a random number from 0 to 1.
    """

    def __init__(
        self,
        longest: float,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._longest = longest
        self._clock = clock
        self._chance = chance
        self._lock = threading.Lock()
        self._in_flight: dict[str, list[float]] = {}  # by caller: the tokens of each request
        self._depth = 0
        self._message = 1.0, 0.0  # the mean of this process's latest messages: requests, and characters
        self._outdated = -math.inf
        self._density = DENSITY
        self._densities: OrderedDict[str, float] = OrderedDict()  # of the latest callers
        # The logarithm of tokens per second, so that one odd sample does not outweigh the others.
        self._pace = math.log(GUESS)
        self._learnt = -math.inf
        self._replies: deque[tuple[float, float]] = deque()  # of the last second: when, and their tokens

    def outdated(self) -> bool:
        """Whether the caller should measure the depth: true for one caller every DEPTH_AGE seconds."""
        with self._lock:
            now = self._clock()
            if now < self._outdated:
                return False
            self._outdated = now + DEPTH_AGE
            return True

    def sent(self, requests: int, characters: int) -> None:
        """Notes that this process has published a message with so many requests, and characters in their texts."""
        with self._lock:
            mean_requests, mean_characters = self._message
            self._message = (
                mean_requests + RECENT * (requests - mean_requests),
                mean_characters + RECENT * (characters - mean_characters),
            )

    def measured(self, depth: int) -> None:
        """Notes that `depth` messages are in the queue, which no worker has taken."""
        with self._lock:
            self._depth = depth

    def enter(self, caller: str, characters: int, remaining: float) -> Admitted:
        """Lets a request of so many characters in, which has `remaining` seconds left. The thread must call `leave`
        afterwards, whatever comes of it.

        Raises TolkError(OVERLOADED) if the expected wait is longer than `longest`, unless the request itself takes as
        long, or than half of `remaining`; the other half is for the translation. If no other request of this process is
        in flight, a request may always enter, because its reply shows the pace.
        """
        with self._lock:
            now = self._clock()
            tokens = OVERHEAD + characters * self._densities.get(caller, self._density)
            ahead = self._ahead(caller, tokens)
            wait, own = self._seconds(ahead, now), self._seconds(tokens, now)
            if self._in_flight and wait > min(max(self._longest, own), remaining / 2):
                raise self._refusal(wait)
            self._in_flight.setdefault(caller, []).append(tokens)
            return Admitted(caller, characters, now, tokens, ahead)

    def leave(self, admitted: Admitted, work: float | None = None, tokens: float | None = None) -> None:
        """Notes that the request is over. `work` is the seconds that its sentences were computed; None if there was no
        reply. `tokens` is what it took, if the reply told."""
        with self._lock:
            mine = self._in_flight[admitted.caller]
            mine.remove(admitted.tokens)
            if not mine:
                del self._in_flight[admitted.caller]
            if work is not None:
                self._learn(admitted, work, tokens)

    def refusal(self) -> TolkError:
        """The error for a request that is refused for another reason than its expected wait."""
        with self._lock:
            return self._refusal(self._seconds(sum(map(sum, self._in_flight.values())), self._clock()))

    def _ahead(self, caller: str, tokens: float) -> float:
        """The tokens that are done before a request, besides its own."""
        mine = sum(self._in_flight.get(caller, ()))
        share = mine + tokens
        known = mine + sum(min(sum(its), share) for other, its in self._in_flight.items() if other != caller)
        requests, characters = self._message
        return max(known, self._depth * min(requests * OVERHEAD + characters * self._density, share))

    def _learn(self, admitted: Admitted, work: float, tokens: float | None) -> None:
        now = self._clock()
        if tokens is not None and admitted.characters:
            density = tokens / admitted.characters
            self._density += RECENT * (density - self._density)
            self._densities[admitted.caller] = density
            self._densities.move_to_end(admitted.caller)
            if len(self._densities) > CALLERS:
                self._densities.popitem(last=False)
        done = admitted.tokens if tokens is None else OVERHEAD + tokens
        stay = max(now - admitted.entered, 0.001)
        waited = max(stay - work, 0.0)
        self._replies.append((now, min(done, math.exp(self._pace))))  # one alone, however large, shows no higher pace
        silence = now - self._learnt
        if silence > FORGOTTEN:
            self._pace = math.log(GUESS)
        if silence > 0.75 * waited:  # hardly any reply came meanwhile: a standstill, not a pace
            silence = min(silence, LEAP)
        seen = math.log((admitted.ahead + done) / (waited if waited > SHORT else stay))
        if waited > SHORT or seen > self._pace:
            self._pace += (1 - math.exp(-silence / FADES)) * (seen - self._pace)
        self._learnt = now

    def _seconds(self, tokens: float, now: float) -> float:
        """Seconds in which so many tokens are done; 0 if the pace is unknown."""
        while self._replies and self._replies[0][0] < now - 1:
            self._replies.popleft()
        if now - self._learnt > FORGOTTEN:
            return 0.0
        # The pace is at least that of the replies of the last second: after a standstill, the learnt pace is too low.
        return tokens / max(math.exp(self._pace), sum(done for _, done in self._replies))

    def _refusal(self, wait: float) -> TolkError:
        """The error that says when to try again: after the expected wait, times a random factor from 1 to 2, so that
        the refused clients do not all come back together."""
        least, most = RETRY_AFTER
        seconds = min(max(math.ceil(wait * (1 + self._chance())), least), most)
        message = f"Too many requests wait already. Try again in {seconds} s."
        return TolkError(Code.OVERLOADED, message, float(seconds))
