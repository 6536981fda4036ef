"""Start-time fair queueing: who is served next, so that each gets its share of a service.

This is the algorithm of Goyal, Vin and Cheng 1996, Start-time Fair Queuing, https://doi.org/10.1145/248156.248171.
Everybody has a time of its own, which advances by what it is served; who is furthest behind is served next. While two
wait, what they are served differs by the largest piece of each at most. Who has not waited begins at the time of who
is served, so that nobody saves up a claim.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from heapq import heappop, heappush
from itertools import count
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_FEW = 64  # who has left is remembered until there are so many of them, even if that makes no difference any more


class Shares(Generic[K]):
    """Those who wait for a service. A key of `weights` gets so many times the share of others, which weigh 1."""

    def __init__(self, weights: Mapping[K, float] | None = None) -> None:
        self._weights = weights or {}
        self._now = 0.0
        # Of those who wait: their own time, at the same time who weighs more, and who came first.
        self._starts: dict[K, tuple[float, float, int]] = {}
        self._ends: dict[K, float] = {}  # their own time after what they were served last, if that is not past
        self._heap: list[tuple[float, float, int, K]] = []  # the starts, and some that are outdated
        self._most = _FEW  # ends, beyond which those that make no difference any more are forgotten
        self._count = count()

    def __contains__(self, key: K) -> bool:
        return key in self._starts

    def join(self, key: K) -> None:
        """From now on, `key` waits."""
        self._wait(key, max(self._now, self._ends.get(key, 0.0)))

    def leave(self, key: K) -> None:
        """`key` does not wait any more."""
        del self._starts[key]
        self._forget()

    def first(self, allowed: Callable[[K], bool] | None = None) -> K | None:
        """Who is served next: of those who wait, and are allowed to be served, the one furthest behind."""
        passed = []
        found = None
        while found is None and self._heap:
            start, weight, number, key = self._heap[0]
            if self._starts.get(key) != (start, weight, number):
                heappop(self._heap)
            elif allowed is None or allowed(key):
                found = key
            else:
                passed.append(heappop(self._heap))
        for entry in passed:
            heappush(self._heap, entry)
        return found

    def serve(self, key: K, cost: float) -> None:
        """Notes that `key` is served something of this cost. If it waits, it goes on waiting."""
        start = self._starts[key][0] if key in self._starts else max(self._now, self._ends.get(key, 0.0))
        self._now = max(self._now, start)
        self._ends[key] = start + cost / self._weights.get(key, 1.0)
        if key in self._starts:
            self._wait(key, self._ends[key])
        else:
            self._forget()

    def _forget(self) -> None:
        """Forgets what makes no difference any more: all, if nobody waits."""
        if not self._starts:
            self._now = max(self._now, *self._ends.values(), 0.0)
            self._ends.clear()
        elif len(self._ends) > self._most:
            self._ends = {each: end for each, end in self._ends.items() if end > self._now or each in self._starts}
            self._most = 2 * len(self._ends) + _FEW  # so that looking through them is rare, however many are left

    def _wait(self, key: K, start: float) -> None:
        place = start, -self._weights.get(key, 1.0), next(self._count)
        self._starts[key] = place
        heappush(self._heap, (*place, key))
