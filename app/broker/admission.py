"""Admission control: whether a request may enter a queue, by the time that it would wait there.

The expected wait is the number of requests ahead, divided by the pace at which workers take requests. The number ahead
is the larger of two: the requests in the queue, which other processes fill too, and this process's own requests in
flight, some of which workers already hold. The broker counts messages only; they are taken to hold as many requests as
this process's latest messages did. The pace is learnt from replies: how many requests were ahead, and how long
the request waited. The number of workers is not used, because workers come and go.
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

# The longest expected wait, in seconds: a longer queue adds latency and keeps no worker busier. Bulk work may wait.
LONGEST: dict[Priority, float] = {"interactive": 2.0, "bulk": math.inf}
DEPTH_AGE = 0.25  # seconds after which a queue's length is measured again
RECENT = 0.1  # the weight of the latest message in the mean number of requests in a message
FADES = 1.0  # seconds in which the weight of a reply fades to about a third
LEAP = 0.15  # seconds that a reply after a silence counts for, at most
FORGOTTEN = 60.0  # seconds without a reply after which the pace is unknown
GUESS = 200.0  # requests per second, assumed until replies show the pace
RETRY_AFTER = (1, 30)  # seconds, at least and at most


@dataclass(frozen=True, slots=True)
class Admitted:
    """When a request entered, in seconds of the clock, and how many requests were ahead of it."""

    entered: float
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
        self._in_flight = 0
        self._depth = 0.0
        self._bundled = 1.0  # the mean number of requests in this process's latest messages
        self._since = 0  # requests that entered since the depth was measured
        self._outdated = -math.inf
        # The logarithm of requests per second, so that one odd sample does not outweigh the others.
        self._pace = math.log(GUESS)
        self._learnt = -math.inf
        self._replies: deque[float] = deque()  # when the replies of the last second came

    def outdated(self) -> bool:
        """Whether the caller should measure the depth: true for one caller every DEPTH_AGE seconds."""
        with self._lock:
            now = self._clock()
            if now < self._outdated:
                return False
            self._outdated = now + DEPTH_AGE
            return True

    def sent(self, requests: int) -> None:
        """Notes that this process has published a message with so many requests."""
        with self._lock:
            self._bundled += RECENT * (requests - self._bundled)

    def measured(self, depth: int) -> None:
        """Notes that `depth` messages are in the queue, which no worker has taken. Each counts as many requests as a
        message of this process holds in the mean."""
        with self._lock:
            self._depth, self._since = depth * self._bundled, 0

    def enter(self, remaining: float) -> Admitted:
        """Lets a request in that has `remaining` seconds left. The caller must call `leave` afterwards, whatever comes
        of it.

        Raises TolkError(OVERLOADED) if the expected wait is longer than `longest` or than half of `remaining`; the
        other half is for the translation. If no other request of this process is in flight, a request may always enter,
        because its reply shows the pace.
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
        """Notes that the request is over. `work` is the seconds that its worker needed; None if there was no reply."""
        with self._lock:
            self._in_flight -= 1
            if work is None:
                return
            now = self._clock()
            waited = max(now - admitted.entered - work, 0.001)
            silence = now - self._learnt
            if silence > FORGOTTEN:
                self._pace = math.log(GUESS)
            if silence > 0.75 * waited:  # hardly any reply came meanwhile: a standstill, not a pace
                silence = min(silence, LEAP)
            weight = 1 - math.exp(-silence / FADES)
            self._pace += weight * (math.log((admitted.ahead + 1) / waited) - self._pace)
            self._learnt = now
            self._replies.append(now)

    def refusal(self) -> TolkError:
        """The error for a request that is refused for another reason than its expected wait."""
        with self._lock:
            return self._refusal(self._wait(self._ahead(), self._clock()))

    def _ahead(self) -> float:
        queued = self._depth + self._since if self._depth else 0.0  # workers have emptied the queue and keep up
        return max(queued, self._in_flight)

    def _wait(self, ahead: float, now: float) -> float:
        """Seconds that a request would wait with `ahead` requests before it; 0 if the pace is unknown."""
        while self._replies and self._replies[0] < now - 1:
            self._replies.popleft()
        if now - self._learnt > FORGOTTEN:
            return 0.0
        # The pace is at least the number of replies in the last second: after a standstill, the learnt pace is too low.
        return ahead / max(math.exp(self._pace), len(self._replies))

    def _refusal(self, wait: float) -> TolkError:
        """The error that says when to try again: after the expected wait, times a random factor from 1 to 2, so that
        the refused clients do not all come back together."""
        least, most = RETRY_AFTER
        seconds = min(max(math.ceil(wait * (1 + self._chance())), least), most)
        message = f"Too many requests wait already. Try again in {seconds} s."
        return TolkError(Code.OVERLOADED, message, float(seconds))
