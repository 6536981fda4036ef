"""The models in a process's memory, up to a budget of bytes.

Plain Python: what a model is, and where it comes from, is its caller's affair. It is loaded and closed by threads of
their own (models.loading.threads), and never under the lock that `use` takes.

A model that is asked for and not there waits its turn (models.loading.arrivals): first come, first loaded, and all that
ask for it meanwhile are served by that one load. Where there is no room, the least recently used go
(models.loading.eviction), of those that are idle and not kept. Nobody is overtaken: a large model that waits for room
is not kept from it by small ones behind it.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Generic, NamedTuple

from models.engine.stats import EngineStats
from models.errors import DeadlineExceeded, ModelError, Overloaded, Unavailable
from models.loading.arrivals import Arrivals
from models.loading.eviction import Residents
from models.loading.instance import F, Instance, M
from models.loading.threads import LoadingThreads
from models.loading.work import NAMED, WorkDone

_CLOSING = "The models are being closed. Try again."


class InMemory(NamedTuple):
    """A model that new work gets."""

    name: str
    version: str
    device: str
    bytes: int


@dataclass(frozen=True, slots=True)
class LoadedStats:
    """Since the start: uses that found their model in memory, and that did not; loads, those that failed, and seconds
    that they took; models that went to make room. Now: callers that wait, bytes of what is in memory, and the budget.
    """

    hits: int
    misses: int
    loads: int
    failures: int
    loading: float
    evictions: int
    waiting: int
    bytes: int
    budget: int


class LoadedModels(Generic[M, F]):
    """Thread-safe. From `close` on, all that asks for a model raises Unavailable."""

    def __init__(
        self,
        fetch: Callable[[str], F],
        load: Callable[[str, F], M],
        budget: int,
        *,
        estimate: Callable[[str, F], int],
        waiting: int,
        fetching: int = 4,
        named: int = NAMED,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`fetch(name)` brings a model to this machine, up to `fetching` at once; `load(name, fetched)` loads and warms
        it, one at a time. Both may take long, and raise ModelError. What was fetched is released when its model has
        been closed, or was not loaded.

        `budget`: bytes that models may take; `estimate(name, fetched)` says of one that was never loaded how many it
        will. While it is loaded it may take more. `waiting`: callers that may wait for loads at once. `named`: models
        whose work is told apart (models.loading.work).
        """
        self._most_waiting, self._clock = waiting, clock
        self._lock = threading.Lock()  # guards what follows, but for the work done
        self._residents: Residents[Instance[M, F]] = Residents(budget)
        self._arrivals: Arrivals[M, F] = Arrivals(self._lock, self._residents, clock)
        self._hits = self._misses = 0
        self._work = WorkDone(named)
        self._threads = LoadingThreads(
            fetch,
            load,
            estimate,
            arrivals=self._arrivals,
            lock=self._lock,
            work=self._work,
            fetching=fetching,
            clock=clock,
        )

    @contextmanager
    def use(self, name: str, deadline: float) -> Iterator[M]:
        """The model: at once where it is in memory, else when it is loaded. It is not unloaded inside of the `with`.

        Raises, at `deadline` (a time.monotonic()) at the latest, Overloaded where too many wait already, or where all
        memory is held by models with work in flight; DeadlineExceeded; Unavailable when closing, or for a model that
        the budget has no room for; and what fetching or loading it raised, which is remembered for some seconds, in
        which nobody tries again.
        """
        used = self._take(name, deadline)
        try:
            if (model := used.model) is None:
                raise Unavailable(_CLOSING)
            yield model
        finally:
            with self._lock:
                self._give_back(used)

    def keep(self, name: str) -> None:
        """Loads a model now, if it is not there, and never lets it go to make room. Raises what loading it raised."""
        with self._lock:
            self._residents.keep(name)
            try:
                if name not in self._residents:
                    self._give_back(self._bring(name, math.inf))
            except ModelError:
                self._residents.unkeep(name)
                raise

    def refresh(self, name: str) -> None:
        """Loads a model anew, for what it is now. Until it is there the old one serves, and is then closed as soon as
        nobody uses it; both need room at once. Raises what loading it raised: then the old one goes on serving.
        """
        with self._lock:
            self._arrivals.forget(name)
            self._give_back(self._bring(name, math.inf))

    def drop(self, name: str) -> None:
        """Does not keep a model any more, and closes it as soon as nobody uses it or waits for it."""
        with self._lock:
            self._arrivals.forget(name)
            self._residents.unkeep(name)
            self._residents.retire(name)
            self._arrivals.make_room()

    def loaded(self) -> tuple[InMemory, ...]:
        """What new work finds in memory, the least recently used first."""
        with self._lock:
            found = [(each, model) for each in self._residents.serving if (model := each.model) is not None]
        return tuple(InMemory(each.name, model.version, model.device, each.size) for each, model in found)

    def cancel(self, group: str) -> int:
        """Ends what waits or runs under `group` in any model; says how many sentences that were."""
        return sum(model.cancel(group) for _, model in self._in_memory())

    def stalled(self) -> Iterator[tuple[str, float]]:
        """Of each model in memory, its name and the seconds that it has been busy with one step."""
        for name, model in self._in_memory():
            yield name, model.stalled()

    def stats(self) -> LoadedStats:
        with self._lock:
            return LoadedStats(
                hits=self._hits,
                misses=self._misses,
                loads=self._arrivals.loads,
                failures=self._arrivals.failures,
                loading=self._threads.seconds,
                evictions=self._residents.evictions,
                waiting=self._arrivals.waiters,
                bytes=self._residents.bytes,
                budget=self._residents.budget,
            )

    def work_done(self) -> dict[str, EngineStats]:
        """By model, what its engines are at, and did since the start (models.loading.work.WorkDone)."""
        return self._work.by_model()

    def close(self, grace: float = 0.0) -> None:
        """Ends everything: callers that wait get Unavailable, what is in flight gets `grace` seconds for all together.

        What is being fetched or loaded is not waited for longer than that, and closed or released when it is there.
        """
        until = self._clock() + grace
        with self._lock:
            held = [*self._residents.clear(), *self._arrivals.close(Unavailable(_CLOSING))]
        self._threads.end(held, until)

    def _take(self, name: str, deadline: float) -> Instance[M, F]:
        """A model to use, which is to be given back."""
        with self._lock:
            if (found := self._residents.find(name)) is not None:
                self._hits += 1
                found.users += 1
                return found
            self._misses += 1
            self._arrivals.failed.check(name)
            if (waiting := self._arrivals.waiters) >= self._most_waiting:
                raise Overloaded(f"{waiting} callers wait for models already. Try again in a moment.")
            return self._bring(name, deadline)

    def _in_memory(self) -> list[tuple[str, M]]:
        with self._lock:
            return [(each.name, model) for each in self._residents if (model := each.model) is not None]

    # Whoever calls one of these holds the lock.

    def _bring(self, name: str, deadline: float) -> Instance[M, F]:
        """A model that is not in memory, once it is, to use and to give back."""
        if self._arrivals.is_closed:
            raise Unavailable(_CLOSING)
        coming = self._arrivals.expect(name)
        coming.waiters += 1
        try:
            while coming in self._arrivals:
                if (left := deadline - self._clock()) <= 0:
                    raise self._too_late(coming)
                coming.settled.wait(None if left == math.inf else left)
            if coming.error is not None:
                raise copy(coming.error)  # one of its own: threads would write their tracebacks onto the same
            coming.users += 1
            return coming
        finally:
            coming.waiters -= 1
            self._arrivals.make_room()

    def _too_late(self, coming: Instance[M, F]) -> ModelError:
        if coming.is_fetched and self._arrivals.in_hand is None:
            return Overloaded(f"There is no room for {coming.name}: all models in memory are at work. Try again soon.")
        return DeadlineExceeded(f"The deadline passed before {coming.name} was loaded.")

    def _give_back(self, used: Instance[M, F]) -> None:
        used.users -= 1
        if used.is_idle and (self._arrivals or self._residents.has_to_shrink):
            self._arrivals.make_room()
