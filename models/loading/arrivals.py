"""Models that are being fetched and loaded: how many callers wait for each, and which comes next."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from typing import Generic

from models.errors import ModelError, Unavailable
from models.loading.eviction import Residents
from models.loading.failures import FailedLoads
from models.loading.instance import F, Instance, M

PER_HOST = 2  # models that are fetched from one host at once


class Arrivals(Generic[M, F]):
    """The queue of models to find, fetch and load, first come, first served. Callers of any method hold the `lock`."""

    def __init__(self, lock: threading.Lock, residents: Residents[Instance[M, F]], clock: Callable[[], float]) -> None:
        self.failed = FailedLoads(clock)
        self.in_hand: Instance[M, F] | None = None  # the instance that is being loaded
        self.is_closed = False
        self.loads = self.failures = 0  # counted since the start
        self._lock, self._residents = lock, residents
        self._to_find_or_closing = threading.Condition(lock)
        self._to_fetch_or_closing = threading.Condition(lock)
        self._to_load_or_close = threading.Condition(lock)
        self._coming: dict[Instance[M, F], None] = {}  # not in memory yet, in order of arrival
        self._expected: dict[str, Instance[M, F]] = {}  # by name, the one of these that new callers wait for
        self._to_find: deque[Instance[M, F]] = deque()
        self._to_fetch: list[tuple[Instance[M, F], str]] = []  # with the host to fetch it from
        self._fetching: Counter[str] = Counter()  # by host, how many are being fetched from it
        self._sizes: dict[str, int] = {}  # bytes of each model that was ever loaded

    def __len__(self) -> int:
        return len(self._coming)

    def __contains__(self, instance: Instance[M, F]) -> bool:
        return instance in self._coming

    @property
    def waiters(self) -> int:
        """How many callers wait for models."""
        return sum(each.waiters for each in self._coming)

    def expect(self, name: str) -> Instance[M, F]:
        """The instance that a new caller of a model waits for. If none is coming, a new one is queued."""
        if (coming := self._expected.get(name)) is None:
            coming = self._expected[name] = Instance(name, threading.Condition(self._lock))
            self._coming[coming] = None
            self._to_find.append(coming)
            self._to_find_or_closing.notify()
        return coming

    def forget(self, name: str) -> None:
        """Forgets all that is known of a name, because it may mean another model from now on."""
        self._expected.pop(name, None)
        self.failed.forget(name)
        self._sizes.pop(name, None)

    def size(self, name: str) -> int | None:
        """Bytes that the model took when it was last loaded; None if it never was."""
        return self._sizes.get(name)

    def fail(self, instance: Instance[M, F], error: ModelError) -> None:
        """Gives up an instance. Callers that wait for it get the error; for a while, so do new callers."""
        self.failures += 1
        if self._is_expected(instance) and instance.waiters:  # else it may have been given up for that reason
            self.failed.add(instance.name, error)
        self._turn_away(instance, error)

    def serve(self, instance: Instance[M, F], size: int) -> None:
        """Puts a loaded instance of `size` bytes into service. If its model was dropped or refreshed meanwhile, only
        the callers that wait for it get it."""
        self.loads += 1
        instance.size = size
        if self._is_expected(instance):
            self.failed.forget(instance.name)
            self._sizes[instance.name] = size
            self._residents.serve(instance)
        else:
            self._residents.dismiss(instance)
        self._settle(instance)

    def make_room(self) -> None:
        """Takes models out of service to make room for the next load, and wakes the loading thread."""
        if self.in_hand is None:
            coming = self._next()
            self._residents.make_room(0 if coming is None else coming.size)
            self._to_load_or_close.notify()

    def next_to_find(self) -> Instance[M, F] | None:
        """Waits for an instance to look for on this machine; None after `close`."""
        while not self.is_closed:
            while self._to_find:
                instance = self._to_find.popleft()
                if instance.waiters:
                    return instance
                self._settle(instance)
            self._to_find_or_closing.wait()
        return None

    def await_fetch(self, instance: Instance[M, F], host: str) -> None:
        """Queues an instance that is not on this machine, and has to be fetched from a host."""
        if instance in self:
            self._to_fetch.append((instance, host))
            self._to_fetch_or_closing.notify_all()

    def next_to_fetch(self) -> tuple[Instance[M, F], str] | None:
        """Waits for an instance to fetch from a host from which fewer than PER_HOST are being fetched, until
        `end_fetch`; None after `close`."""
        while not self.is_closed:
            for each, host in [(each, host) for each, host in self._to_fetch if not each.waiters]:
                self._to_fetch.remove((each, host))
                self._settle(each)
            for each, host in self._to_fetch:
                if self._fetching[host] < PER_HOST:
                    self._to_fetch.remove((each, host))
                    self._fetching[host] += 1
                    return each, host
            self._to_fetch_or_closing.wait()
        return None

    def end_fetch(self, host: str) -> None:
        """Ends a fetch from a host, however it went."""
        self._fetching -= Counter([host])  # forgets a host at 0
        self._to_fetch_or_closing.notify_all()

    def next_to_load_or_close(self) -> Instance[M, F] | None:
        """Waits for an instance to load, which is then `in_hand`, or one to close; None after `close`."""
        while not self.is_closed:
            self.make_room()
            if (idle := self._residents.pop_idle()) is not None:
                return idle
            coming = self._next()
            if coming is not None and self._residents.has_room(coming.size):
                self.in_hand = coming
                return coming
            self._to_load_or_close.wait()
        return None

    def close(self, error: ModelError) -> list[Instance[M, F]]:
        """Ends all waiting with the error. Returns the fetched instances that the caller has to release: all but the
        one in hand."""
        self.is_closed = True
        fetched = [each for each in self._coming if each.is_fetched and each is not self.in_hand]
        for each in list(self._coming):
            self._settle(each, error)
        for each_waits in (self._to_find_or_closing, self._to_fetch_or_closing, self._to_load_or_close):
            each_waits.notify_all()
        return fetched

    def _next(self) -> Instance[M, F] | None:
        """The instance to load next. Gives up those that no caller waits for any more, and those that are too large."""
        for each in [each for each in self._coming if each.is_fetched]:
            if not each.waiters:
                self._turn_away(each)
            elif each.size > self._residents.budget - self._residents.kept_bytes:
                self.fail(each, _no_room(each, self._residents))
            else:
                return each
        return None

    def _is_expected(self, instance: Instance[M, F]) -> bool:
        """Whether new callers of its name wait for this instance."""
        return self._expected.get(instance.name) is instance

    def _turn_away(self, instance: Instance[M, F], error: ModelError | None = None) -> None:
        self._settle(instance, error)
        self._residents.dismiss(instance)  # the loading thread then releases what was fetched

    def _settle(self, instance: Instance[M, F], error: ModelError | None = None) -> None:
        """Takes an instance off the queue, and wakes the callers that wait for it."""
        del self._coming[instance]
        if self._is_expected(instance):
            del self._expected[instance.name]
        instance.error = error
        instance.settled.notify_all()


def _no_room(coming: Instance[M, F], residents: Residents[Instance[M, F]]) -> Unavailable:
    kept = residents.kept_bytes
    warm = f", of which warm models hold {kept / 1e6:,.0f}" if kept else ""
    return Unavailable(
        f"{coming.name} takes {coming.size / 1e6:,.0f} MB; TOLK_MEMORY gives models "
        f"{residents.budget / 1e6:,.0f}{warm}."
    )
