"""Whose connections get the threads of a process."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

C = TypeVar("C")

PATIENCE = 3  # an address may have so many times as many threads as are free


class Threads(Generic[C]):
    """Gives `number` threads to connections, so that some are left for whoever has few (dynamic thresholds: Choudhury
    and Hahne 1998, https://doi.org/10.1109/90.664262). One address alone gets three quarters of them.

    A connection's `address` is None if it stands for many clients, as a proxy's does: its connections get any thread
    that is free.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._held = Counter[Hashable]()  # threads by address
        self._waiting: dict[Hashable, deque[C]] = {}  # connections by address, in the order in which they came

    @property
    def are_wanted(self) -> bool:
        """Whether a connection waits for a thread."""
        return bool(self._waiting)

    def take(self, address: Hashable, connection: C) -> bool:
        """Whether the connection gets a thread now. If not, it waits until `leave` returns it."""
        if address not in self._waiting and self._may_have_one(address):
            self._held[address] += 1
            return True
        self._waiting.setdefault(address, deque()).append(connection)
        return False

    def leave(self, address: Hashable) -> list[C]:
        """Takes back a thread of an address. Returns the connections that get one now: the first of the address that
        has the fewest, and so on."""
        self._held[address] -= 1
        if not self._held[address]:
            del self._held[address]
        served = []
        while able := list(filter(self._may_have_one, self._waiting)):
            first = min(able, key=self._held.__getitem__)
            served.append(self._waiting[first].popleft())
            if not self._waiting[first]:
                del self._waiting[first]
            self._held[first] += 1
        return served

    def _may_have_one(self, address: Hashable) -> bool:
        free = self._number - self._held.total()
        return free > 0 and (address is None or self._held[address] < PATIENCE * free)
