"""The models in a process's memory, up to a budget of bytes.

The caller passes functions that find, fetch and load a model; this module does not know what a model is. Models are
loaded and closed by separate threads (models.loading.threads), which do not hold the lock of `use` meanwhile.

If a caller asks for a model that is not in memory, the model is queued (models.loading.arrivals): first come, first
loaded. One load serves all callers that ask for the model meanwhile. If there is no room, the least recently used of
the models that are idle and not kept are evicted (models.loading.eviction). If the next model does not fit yet, no
other is loaded, so that small models cannot starve a large one.
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

GRACE = 30.0  # seconds for which a download goes on without anybody who waits
_CLOSING = "The models are being closed. Try again."


class InMemory(NamedTuple):
    """A model in memory that is in service. `bytes` is the memory that it takes."""

    name: str
    version: str
    device: str
    bytes: int


@dataclass(frozen=True, slots=True)
class LoadedStats:
    """Since the start: `hits` and `misses`, uses that found their model in memory, or did not; `loads` and `failures`,
    loads that succeeded, and fetches or loads that failed; `loading`, seconds that loads took; `evictions`, models that
    were evicted. Now: `waiting`, callers that wait for models; `bytes`, the memory of all models; `budget`, its limit.
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
    """The models in memory. Thread-safe. After `close`, every call that asks for a model raises Unavailable."""

    def __init__(
        self,
        find: Callable[[str], F | str],
        fetch: Callable[[str, Callable[[], bool]], F],
        load: Callable[[str, F], M],
        budget: int,
        *,
        estimate: Callable[[str, F], int],
        waiting: int,
        fetching: int = 4,
        grace: float = GRACE,
        named: int = NAMED,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`find(name)` returns a model on this machine's disk, or else the host to fetch it from.
        `fetch(name, wanted)` brings it to the disk, and gives up when `wanted()` says that nobody has waited for it for
        `grace` seconds; up to `fetching` calls run at once, and two for one host.
        `load(name, fetched)` loads it and warms it up; one call runs at a time. Both may take long, and raise
        ModelError. What was fetched is released when its model has been closed, or could not be loaded.

        `budget`: bytes of memory that models may take. `estimate(name, fetched)`: bytes that a model will take which
        was never loaded before; while it is being loaded it may take more. `waiting`: the most callers that may wait
        for loads at once. `named`: the most models whose work is counted by name (models.loading.work).
        """
        self._most_waiting, self._clock = waiting, clock
        self._lock = threading.Lock()  # guards the next fields, except the work done
        self._residents: Residents[Instance[M, F]] = Residents(budget)
        self._arrivals: Arrivals[M, F] = Arrivals(self._lock, self._residents, clock)
        self._hits = self._misses = 0
        self._work = WorkDone(named)
        self._threads = LoadingThreads(
            find,
            fetch,
            load,
            estimate,
            arrivals=self._arrivals,
            lock=self._lock,
            work=self._work,
            fetching=fetching,
            grace=grace,
            clock=clock,
        )

    @contextmanager
    def use(self, name: str, deadline: float) -> Iterator[M]:
        """The model, which stays in memory inside the `with`. If it is not in memory, the call waits for it to be
        loaded, until `deadline` (a time.monotonic()) at the latest.

        Raises Overloaded if too many callers wait already, or if all memory is taken by models that are in use;
        DeadlineExceeded; Unavailable if the models are being closed, or if the model is larger than the budget allows;
        and what fetching or loading it raised. Such an error is remembered for some seconds, in which the model is not
        tried again.
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
        """Loads a model now, if it is not in memory, and exempts it from eviction. Raises what loading it raised."""
        with self._lock:
            self._residents.keep(name)
            try:
                if name not in self._residents:
                    self._give_back(self._bring(name, math.inf))
            except ModelError:
                self._residents.unkeep(name)
                raise

    def refresh(self, name: str) -> None:
        """Fetches and loads a model again, because it may have changed. Until the new one is loaded, the old one stays
        in service; both must fit into memory. Then the old one is closed as soon as nobody uses it. Raises what loading
        raised; in that case the old one stays in service.
        """
        with self._lock:
            self._arrivals.forget(name)
            self._give_back(self._bring(name, math.inf))

    def drop(self, name: str) -> None:
        """Undoes `keep`, and closes the model as soon as nobody uses it or waits for it."""
        with self._lock:
            self._arrivals.forget(name)
            self._residents.unkeep(name)
            self._residents.retire(name)
            self._arrivals.make_room()

    def loaded(self) -> tuple[InMemory, ...]:
        """The models in service, the least recently used first."""
        with self._lock:
            found = [(each, model) for each in self._residents.serving if (model := each.model) is not None]
        return tuple(InMemory(each.name, model.version, model.device, each.size) for each, model in found)

    def cancel(self, group: str) -> int:
        """Ends the waiting and running sentences of `group` in all models; returns their number."""
        return sum(model.cancel(group) for _, model in self._in_memory())

    def stalled(self) -> Iterator[tuple[str, float]]:
        """For each model in memory: its name, and the seconds that it has been busy with one step."""
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
        """By name of the model: the stats of its engines, those closed included (models.loading.work.WorkDone)."""
        return self._work.by_model()

    def close(self, grace: float = 0.0) -> None:
        """Closes all models. Callers that wait get Unavailable; the models have `grace` seconds to finish their work.

        A fetch or load that takes longer is not waited for; when it is done, its model is closed and released.
        """
        until = self._clock() + grace
        with self._lock:
            held = [*self._residents.clear(), *self._arrivals.close(Unavailable(_CLOSING))]
        self._threads.end(held, until)

    def _take(self, name: str, deadline: float) -> Instance[M, F]:
        """The model to use, loaded if necessary; the caller has to give it back."""
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

    # The callers of the next methods hold the lock.

    def _bring(self, name: str, deadline: float) -> Instance[M, F]:
        """Waits until a model that is not in memory is loaded. Returns it; the caller has to give it back."""
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
                raise copy(coming.error)  # a copy, because each thread adds its traceback to the error it raises
            coming.users += 1
            return coming
        finally:
            coming.waiters -= 1
            self._arrivals.make_room()

    def _too_late(self, coming: Instance[M, F]) -> ModelError:
        if coming.is_fetched and self._arrivals.in_hand is None:
            return Overloaded(f"There is no room for {coming.name}: all models in memory are in use. Try again soon.")
        return DeadlineExceeded(f"The deadline passed before {coming.name} was loaded.")

    def _give_back(self, used: Instance[M, F]) -> None:
        used.users -= 1
        if used.is_idle and (self._arrivals or self._residents.has_to_shrink):
            self._arrivals.make_room()
