"""The work before the model takes turns: one thread at a time takes texts apart, and a turn is a slice of time. A call
with little text goes on at once, since passing turns on would take longer than its work.

Start-time fair queueing among the callers (models.engine.shares) says whose turn it is, as in the engine. More threads
at once would only wait for Python's lock, and make the engine's lanes wait for it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Mapping
from typing import Self, TypeVar

from models.engine.shares import Shares
from models.errors import Cancelled, DeadlineExceeded
from models.translation.call import Call

K = TypeVar("K", bound=Hashable)

SLICE = 0.005  # seconds of a turn, at least
LITTLE = 1000  # characters of a call that needs no turn: less than a millisecond of work, unless nobody typed them
PER_SECOND = 16_000.0  # the tokens x hypotheses that a core computes in a second with the embedded model in int8
_LATE = "The deadline passed before the translation began."


class Turn:
    """The turn of a call, from `__enter__` to `__exit__`. `tokens`: what its work has taken so far, in tokens that the
    engine computes in that time."""

    def __init__(self, turns: Turns, call: Call) -> None:
        self.tokens = 0.0
        self._turns, self._call = turns, call
        self._is_little = call.characters <= LITTLE
        self._until = self._began = 0.0
        self._is_on = False

    def __enter__(self) -> Self:
        try:
            self.begin()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def pause(self) -> None:
        """Between two pieces of the work: if the slice is over, others have their turns first.

        Raises DeadlineExceeded if the call's deadline has passed, and Cancelled if it is unwanted.
        """
        if self._turns.clock() < self._until:
            return
        self.end()
        self.begin()
        if self._turns.clock() >= self._call.deadline:
            raise DeadlineExceeded(_LATE)

    def begin(self) -> None:
        if not self._is_little:
            self._turns.take(self._call.caller, self._call.deadline)
        self._is_on = True
        self._until, self._began = self._turns.clock() + SLICE, self._turns.cpu()
        if self._call.unwanted():
            raise Cancelled("The translation was cancelled.")

    def end(self) -> None:
        if not self._is_on:  # the deadline passed before it was
            return
        self._is_on = False
        seconds = self._turns.cpu() - self._began
        self.tokens += PER_SECOND * seconds
        if not self._is_little:
            self._turns.pass_on(self._call.caller, seconds)


class Turns:
    """Lets one thread work at a time. Thread-safe. Deadlines are times of the `clock`; `cpu` says how many seconds the
    processor has spent on this thread."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, cpu: Callable[[], float] = time.thread_time
    ) -> None:
        self.clock, self.cpu = clock, cpu
        self._lock = threading.Lock()
        self._is_taken = False
        self._shares: Shares[str] = Shares()
        self._waiting: dict[str, deque[threading.Event]] = {}  # by caller

    def turn(self, call: Call) -> Turn:
        """The work of a call, which begins when it is the call's turn, and calls `pause` between any two pieces.

        Raises DeadlineExceeded and Cancelled, as `Turn.pause` does.
        """
        return Turn(self, call)

    def take(self, caller: str, deadline: float) -> None:
        """Waits until it is this caller's turn, its requests one after the other. Raises DeadlineExceeded."""
        with self._lock:
            if not self._is_taken:
                self._is_taken = True
                return
            mine = threading.Event()
            if caller not in self._waiting:
                self._waiting[caller] = deque()
                self._shares.join(caller)
            self._waiting[caller].append(mine)
        if mine.wait(min(max(0.0, deadline - self.clock()), threading.TIMEOUT_MAX)):
            return
        with self._lock:
            if mine.is_set():  # just now
                self._next()
            else:
                self._remove(caller, mine)
        raise DeadlineExceeded(_LATE)

    def pass_on(self, caller: str, seconds: float) -> None:
        """Ends a turn that took the processor so many seconds."""
        with self._lock:
            self._shares.serve(caller, seconds)
            self._next()

    def _next(self) -> None:
        caller = self._shares.first()
        self._is_taken = caller is not None
        if caller is not None:
            following = self._waiting[caller][0]
            self._remove(caller, following)
            following.set()

    def _remove(self, caller: str, waiting: threading.Event) -> None:
        self._waiting[caller].remove(waiting)
        if not self._waiting[caller]:
            del self._waiting[caller]
            self._shares.leave(caller)


def in_turns(calls: Mapping[K, Call]) -> list[tuple[K, Call]]:
    """The calls in the order in which one thread begins them: the first of each caller, the second, and so on; of
    these, those with less text first."""
    if len(calls) == 1:
        return list(calls.items())
    places: Counter[str] = Counter()
    order: list[tuple[int, int, K]] = []
    for key, call in calls.items():
        order.append((places[call.caller], call.characters, key))
        places[call.caller] += 1
    return [(key, calls[key]) for _, _, key in sorted(order, key=lambda each: each[:2])]
