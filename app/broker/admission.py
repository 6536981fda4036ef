"""Who is let into a queue: whoever would not wait there too long, as far as the replies and the queue's length tell.

A request is expected to wait for those ahead of it, at the pace at which the ones before it were taken. Ahead are the
messages in the queue, which other processes fill too, or this process's own requests in flight, which the workers hold
too, whichever are more. The pace comes from replies: so many were ahead, and so long did it wait. Nothing is known of
workers, which may come and go.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tasks.contract.errors import Code, TolkError
from tasks.contract.names import Priority

# Seconds of waiting: a longer queue would be latency for everybody, and keep no worker busier. Bulk work may wait.
LONGEST: dict[Priority, float] = {"interactive": 2.0, "bulk": math.inf}
DEPTH_AGE = 0.25  # seconds that a queue's length stays good
FADES = 1.0  # seconds in which what replies say fades to a third
LEAP = 0.15  # seconds that a reply counts for at most which came out of a silence
FORGOTTEN = 60.0  # seconds without a reply after which nothing is known
GUESS = 200.0  # requests per second, until replies say better
RETRY_AFTER = (1, 30)  # seconds


@dataclass(frozen=True, slots=True)
class Admitted:
    """When a request entered, in the clock's seconds, and how many were ahead of it."""

    entered: float
    ahead: int


class Admission:
    """One queue, as one process sees it. Thread-safe.

    `longest` is how long a request may be expected to wait, in seconds, `clock` counts them, `chance` is from 0 to 1.
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
        self._in_flight = 0
        self._depth = 0
        self._since = 0  # entered since the depth was measured
        self._outdated = -math.inf
        # The logarithm of requests per second: one odd sample must not outweigh the others.
        self._pace = math.log(GUESS)
        self._learnt = -math.inf
        self._replies: deque[float] = deque()  # when they came, in the last second

    def outdated(self) -> bool:
        """Whether the depth should be measured: true for one caller at a time."""
        with self._lock:
            now = self._clock()
            if now < self._outdated:
                return False
            self._outdated = now + DEPTH_AGE
            return True

    def measured(self, depth: int) -> None:
        """The queue holds so many messages that no worker has taken."""
        with self._lock:
            self._depth, self._since = depth, 0

    def enter(self, remaining: float) -> Admitted:
        """Lets a request in that has so many seconds left; it has to `leave` again, whatever comes of it.

        Waiting may take half of them; the other half is for the work. Raises TolkError(OVERLOADED). Where no other
        request of this process is in flight, one enters in any case: from its reply we learn.
        """
        with self._lock:
            now = self._clock()
            ahead = self._ahead()
            wait = self._wait(ahead, now)
            if self._in_flight and wait > min(self._longest, remaining / 2):
                raise self._refusal(wait)
            self._in_flight += 1
            self._since += 1
            return Admitted(now, ahead)

    def leave(self, admitted: Admitted, work: float | None = None) -> None:
        """The request is over; after a reply, `work` says how many seconds its worker needed."""
        with self._lock:
            self._in_flight -= 1
            if work is None:
                return
            now = self._clock()
            waited = max(now - admitted.entered - work, 0.001)
            silence = now - self._learnt
            if silence > FORGOTTEN:
                self._pace = math.log(GUESS)
            if silence > 0.75 * waited:  # hardly anything moved meanwhile: it tells of a standstill, not of a pace
                silence = min(silence, LEAP)
            weight = 1 - math.exp(-silence / FADES)
            self._pace += weight * (math.log((admitted.ahead + 1) / waited) - self._pace)
            self._learnt = now
            self._replies.append(now)

    def refusal(self) -> TolkError:
        """What to tell a request that cannot enter, whatever is expected."""
        with self._lock:
            return self._refusal(self._wait(self._ahead(), self._clock()))

    def _ahead(self) -> int:
        queued = self._depth + self._since if self._depth else 0  # from an empty queue they were taken as they came
        return max(queued, self._in_flight)

    def _wait(self, ahead: int, now: float) -> float:
        """Seconds that a request would wait behind so many others; none where nothing is known."""
        while self._replies and self._replies[0] < now - 1:
            self._replies.popleft()
        if now - self._learnt > FORGOTTEN:
            return 0.0
        # What came back within a second can be done in a second: after a standstill, replies tell of the standstill.
        return ahead / max(math.exp(self._pace), len(self._replies))

    def _refusal(self, wait: float) -> TolkError:
        """Until what waits now is done, and up to twice as long, lest those who are refused all come back together."""
        least, most = RETRY_AFTER
        seconds = min(max(math.ceil(wait * (1 + self._chance())), least), most)
        message = f"Too many requests wait already. Try again in {seconds} s."
        return TolkError(Code.OVERLOADED, message, float(seconds))
