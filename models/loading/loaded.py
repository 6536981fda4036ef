"""The models in a process's memory, up to a budget of bytes.

Plain Python: what a model is, and where it comes from, is its caller's affair. One thread loads and unloads, a model at
a time, and others fetch (download) beside it. They have a lower priority than whoever translates, and nothing is loaded
or closed under the lock that `use` takes.

A model that is asked for and not there waits its turn: first come, first loaded, and all that ask for it meanwhile are
served by that one load. Where there is no room, the least recently used go, of those that are idle and not kept. Nobody
is overtaken: a large model that waits for room is not kept from it by small ones behind it.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, Protocol, TypeVar

from models.engine.stats import EngineStats
from models.errors import DeadlineExceeded, ModelError, Overloaded, Unavailable
from models.loading import heap
from models.loading.background import in_background, lower_priority

FORGET = 2.0  # seconds that a failed load is remembered, twice as long after each further one
FORGET_AT_MOST = 60.0
TRIM = 0.5  # seconds at least from one time that freed memory is given back to the next: it holds up other threads
NAMED = 50  # models whose work is told apart, the first that were loaded; that of all others is told under one name
OTHER = "other"

_CLOSING = "The models are being closed. Try again."

logger = logging.getLogger(__name__)


class Loadable(Protocol):
    """A model in memory, such as models.local.LocalTranslator."""

    @property
    def bytes(self) -> int: ...
    @property
    def version(self) -> str: ...
    @property
    def device(self) -> str: ...
    def cancel(self, group: str) -> int: ...
    def stalled(self) -> float: ...
    def stats(self) -> EngineStats: ...
    def close(self, grace: float = 0.0) -> None: ...


class Fetched(Protocol):
    """A model on this machine's disk, such as models.store.diskcache.Held. It is there until `release`."""

    def release(self) -> None: ...


M = TypeVar("M", bound=Loadable)
F = TypeVar("F", bound=Fetched)


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


@dataclass(eq=False, slots=True)
class _Model(Generic[M, F]):
    """One on its way into memory, in it, or on its way out, and how many callers wait for it or use it.

    `settled` is told when it is in memory, or has an `error`. Until then, `size` in bytes is an estimate.
    """

    name: str
    settled: threading.Condition
    waiters: int = 0
    users: int = 0
    is_fetched: bool = False
    fetched: F = field(init=False)
    size: int = 0
    model: M | None = None
    error: ModelError | None = None

    @property
    def is_idle(self) -> bool:
        return not self.users and not self.waiters


class _Failure(NamedTuple):
    """Why a model could not be loaded, and until when nobody tries again: so many seconds after it happened."""

    error: ModelError
    until: float
    seconds: float


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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`fetch(name)` brings a model to this machine, up to `fetching` at once; `load(name, fetched)` loads and warms
        it, one at a time. Both may take long, and raise ModelError. What was fetched is released when its model has
        been closed, or was not loaded.

        `budget`: bytes that models may take; `estimate(name, fetched)` says of one that was never loaded how many it
        will. While it is loaded it may take more. `waiting`: callers that may wait for loads at once.
        """
        self._fetch, self._load, self._estimate = fetch, load, estimate
        self._budget, self._most_waiting, self._clock = budget, waiting, clock
        self._lock = threading.Lock()  # guards all that follows
        self._to_fetch_or_closing = threading.Condition(self._lock)
        self._to_load_or_close = threading.Condition(self._lock)
        self._coming: dict[_Model[M, F], None] = {}  # not in memory yet, in the order they came
        self._expected: dict[str, _Model[M, F]] = {}  # of these, what new callers wait for
        self._to_fetch: deque[_Model[M, F]] = deque()
        self._in_hand: _Model[M, F] | None = None  # what is being loaded
        self._serving: OrderedDict[str, _Model[M, F]] = OrderedDict()  # what new callers get, least recently used first
        self._leaving: list[_Model[M, F]] = []  # closed when idle
        self._kept: set[str] = set()
        self._failed: dict[str, _Failure] = {}
        self._sizes: dict[str, int] = {}  # of what was ever loaded
        self._engines: dict[_Model[M, F], M] = {}  # all that are in memory, until what they did is part of the past
        self._past: dict[str, EngineStats] = {}
        self._named: set[str] = set()
        self._closing = False
        self._hits = self._misses = self._loads = self._failures = self._evictions = 0
        self._loading = 0.0
        self._trims_at = -math.inf
        tasks = {f"fetch-{number}": self._fetch_all for number in range(fetching)} | {"load": self._load_all}
        self._threads = [threading.Thread(target=task, name=name, daemon=True) for name, task in tasks.items()]
        for thread in self._threads:
            thread.start()

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
            self._kept.add(name)
            try:
                if name not in self._serving:
                    self._give_back(self._bring(name, math.inf))
            except ModelError:
                self._kept.discard(name)
                raise

    def refresh(self, name: str) -> None:
        """Loads a model anew, for what it is now. Until it is there the old one serves, and is then closed as soon as
        nobody uses it; both need room at once. Raises what loading it raised: then the old one goes on serving.
        """
        with self._lock:
            self._forget(name)
            self._give_back(self._bring(name, math.inf))

    def drop(self, name: str) -> None:
        """Does not keep a model any more, and closes it as soon as nobody uses it or waits for it."""
        with self._lock:
            self._forget(name)
            self._kept.discard(name)
            if name in self._serving:
                self._leaving.append(self._serving.pop(name))
            self._make_room()

    def loaded(self) -> tuple[InMemory, ...]:
        """What new work finds in memory, the least recently used first."""
        with self._lock:
            found = [(each, model) for each in self._serving.values() if (model := each.model) is not None]
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
                loads=self._loads,
                failures=self._failures,
                loading=self._loading,
                evictions=self._evictions,
                waiting=self._waiting(),
                bytes=self._taken(),
                budget=self._budget,
            )

    def engines(self) -> dict[str, EngineStats]:
        """By model, what its engines are at, and did since the start: those that are closed, too, so no count ever
        falls. Models beyond the first NAMED are added up as OTHER, or a thousand on demand would be a thousand names
        for ever; a model never changes from one to the other, or its work would count twice."""
        with self._lock:
            total = dict(self._past)
            engines = [(self._told_as(each.name), model) for each, model in self._engines.items()]
        for name, model in engines:
            total[name] = total.get(name, EngineStats()) + model.stats()
        return total

    def close(self, grace: float = 0.0) -> None:
        """Ends everything: who waits gets Unavailable, what is in flight gets `grace` seconds for all together.

        What is being fetched or loaded is not waited for longer than that, and closed or released when it is there.
        """
        until = self._clock() + grace
        with self._lock:
            self._closing = True
            held = [*self._serving.values(), *self._leaving]
            held += [each for each in self._coming if each.is_fetched and each is not self._in_hand]
            self._serving.clear()
            self._leaving.clear()
            for each in list(self._coming):
                self._settle(each, Unavailable(_CLOSING))
            self._to_fetch_or_closing.notify_all()
            self._to_load_or_close.notify_all()
        with ThreadPoolExecutor(len(held) or 1) as pool:
            list(pool.map(lambda each: self._unload(each, max(0.0, until - self._clock())), held))
        for thread in self._threads:
            thread.join(max(0.0, until - self._clock()))

    def _take(self, name: str, deadline: float) -> _Model[M, F]:
        """A model to use, which is to be given back."""
        with self._lock:
            if (found := self._serving.get(name)) is not None:
                self._hits += 1
                self._serving.move_to_end(name)
                found.users += 1
                return found
            self._misses += 1
            if (failure := self._failed.get(name)) is not None and self._clock() < failure.until:
                raise copy(failure.error)
            if (waiting := self._waiting()) >= self._most_waiting:
                raise Overloaded(f"{waiting} callers wait for models already. Try again in a moment.")
            return self._bring(name, deadline)

    def _in_memory(self) -> list[tuple[str, M]]:
        with self._lock:
            held = [*self._serving.values(), *self._leaving]
            return [(each.name, model) for each in held if (model := each.model) is not None]

    # Whoever calls one of these holds the lock.

    def _bring(self, name: str, deadline: float) -> _Model[M, F]:
        """A model that is not in memory, once it is, to use and to give back."""
        if self._closing:
            raise Unavailable(_CLOSING)
        if (coming := self._expected.get(name)) is None:
            coming = self._expected[name] = _Model(name, threading.Condition(self._lock))
            self._coming[coming] = None
            self._to_fetch.append(coming)
            self._to_fetch_or_closing.notify()
        coming.waiters += 1
        try:
            while coming in self._coming:
                if (left := deadline - self._clock()) <= 0:
                    raise self._too_late(coming)
                coming.settled.wait(None if left == math.inf else left)
            if coming.error is not None:
                raise copy(coming.error)  # one of its own: threads would write their tracebacks onto the same
            coming.users += 1
            return coming
        finally:
            coming.waiters -= 1
            self._make_room()

    def _too_late(self, coming: _Model[M, F]) -> ModelError:
        if coming.is_fetched and self._in_hand is None:
            return Overloaded(f"There is no room for {coming.name}: all models in memory are at work. Try again soon.")
        return DeadlineExceeded(f"The deadline passed before {coming.name} was loaded.")

    def _give_back(self, used: _Model[M, F]) -> None:
        used.users -= 1
        if used.is_idle and (self._coming or self._leaving or self._taken() > self._budget):
            self._make_room()

    def _forget(self, name: str) -> None:
        """What is known of a model, or on its way, since the name may mean another one from now on."""
        self._expected.pop(name, None)
        self._failed.pop(name, None)
        self._sizes.pop(name, None)

    def _settle(self, coming: _Model[M, F], error: ModelError | None = None) -> None:
        """It is not on its way any more, and whoever waits for it is told."""
        del self._coming[coming]
        if self._expected.get(coming.name) is coming:
            del self._expected[coming.name]
        coming.error = error
        coming.settled.notify_all()

    def _fail(self, coming: _Model[M, F], error: ModelError) -> None:
        self._failures += 1
        if self._expected.get(coming.name) is coming:
            before = self._failed.get(coming.name)
            seconds = FORGET if before is None else min(2 * before.seconds, FORGET_AT_MOST)
            self._failed[coming.name] = _Failure(error, self._clock() + seconds, seconds)
        self._settle(coming, error)
        self._leaving.append(coming)  # for what was fetched to be released

    def _told_as(self, name: str) -> str:
        return name if name in self._named else OTHER

    def _waiting(self) -> int:
        return sum(each.waiters for each in self._coming)

    def _taken(self) -> int:
        """Bytes of all that is in memory, whether it serves still or not."""
        return sum(each.size for each in (*self._serving.values(), *self._leaving) if each.model is not None)

    def _next(self) -> _Model[M, F] | None:
        """What is to be loaded next. What nobody waits for, or there can be no room for, is not on its way any more."""
        kept = sum(each.size for each in self._serving.values() if each.name in self._kept)
        for each in [each for each in self._coming if each.is_fetched]:
            if not each.waiters:
                self._settle(each)
                self._leaving.append(each)
            elif each.size > self._budget - kept:
                self._fail(each, Unavailable(_no_room(each.name, each.size, self._budget, kept)))
            else:
                return each
        return None

    def _make_room(self) -> None:
        """Takes out of service what has to go for the next load, and tells the loading thread if there is work for it.

        As long as all that is idle would not be enough, it stays.
        """
        if self._in_hand is not None:
            return
        coming = self._next()
        wanted = 0 if coming is None else coming.size
        free = self._budget - sum(each.size for each in self._serving.values())  # as soon as all others have left
        idle = [each for each in self._serving.values() if each.is_idle and each.name not in self._kept]
        if free + sum(each.size for each in idle) < wanted:
            wanted = 0
        for each in idle:
            if free >= wanted:
                break
            self._leaving.append(self._serving.pop(each.name))
            self._evictions += 1
            free += each.size
        self._to_load_or_close.notify()

    def _serve(self, coming: _Model[M, F], size: int) -> None:
        """It is in memory, for new callers too, unless it was dropped or refreshed since it was asked for."""
        self._loads += 1
        coming.size = size
        if self._expected.get(coming.name) is coming:
            self._failed.pop(coming.name, None)
            self._sizes[coming.name] = size
            if coming.name in self._serving:
                self._leaving.append(self._serving.pop(coming.name))
            self._serving[coming.name] = coming
        else:
            self._leaving.append(coming)
        self._settle(coming)

    # The threads that fetch, and the one that loads and unloads.

    def _fetch_all(self) -> None:
        lower_priority()
        while (coming := self._next_to_fetch()) is not None:
            fetched, size, error = None, 0, None
            try:
                fetched = self._fetch(coming.name)
                with self._lock:
                    known = self._sizes.get(coming.name)
                size = self._estimate(coming.name, fetched) if known is None else known
            except Exception as raised:  # noqa: BLE001 - whatever it is, this thread goes on
                error = _explained(coming.name, raised)
            with self._lock:
                if fetched is not None:
                    coming.fetched, coming.is_fetched = fetched, True
                coming.size = size
                if (is_wanted := coming in self._coming) and error is not None:
                    self._fail(coming, error)
                self._make_room()
            if not is_wanted:
                self._unload(coming)

    def _next_to_fetch(self) -> _Model[M, F] | None:
        with self._lock:
            while not self._closing:
                while self._to_fetch:
                    coming = self._to_fetch.popleft()
                    if coming.waiters:
                        return coming
                    self._settle(coming)
                self._to_fetch_or_closing.wait()
        return None

    def _load_all(self) -> None:
        while (each := self._next_to_load_or_close()) is not None:
            if each is self._in_hand:
                self._load_one(each)
            else:
                self._unload(each)
            if self._clock() >= self._trims_at:
                in_background(heap.trim)
                self._trims_at = self._clock() + TRIM

    def _next_to_load_or_close(self) -> _Model[M, F] | None:
        with self._lock:
            while not self._closing:
                self._make_room()
                for each in self._leaving:
                    if each.is_idle:
                        self._leaving.remove(each)
                        return each
                coming = self._next()
                if coming is not None and coming.size <= self._budget - self._taken():
                    self._in_hand = coming
                    return coming
                self._to_load_or_close.wait()
        return None

    def _load_one(self, coming: _Model[M, F]) -> None:
        began, size, error = self._clock(), 0, None
        try:
            coming.model = self._load(coming.name, coming.fetched)
            size = coming.model.bytes
        except Exception as raised:  # noqa: BLE001 - whatever it is, this thread goes on
            error = _explained(coming.name, raised)
        with self._lock:
            self._in_hand = None
            self._loading += self._clock() - began
            if coming.model is not None:
                self._engines[coming] = coming.model
                if len(self._named) < NAMED:
                    self._named.add(coming.name)
            if is_wanted := coming in self._coming:
                if error is None:
                    self._serve(coming, size)
                else:
                    self._fail(coming, error)
        if not is_wanted:
            self._unload(coming)

    def _unload(self, gone: _Model[M, F], grace: float = 0.0) -> None:
        """Closes it and lets go of it: whoever still knows it does not keep its memory."""
        model, gone.model = gone.model, None
        try:
            if model is not None:
                try:
                    model.close(grace)
                finally:
                    self._remember(gone, model)
            if gone.is_fetched:
                gone.fetched.release()
        except Exception:
            logger.exception("%s did not close", gone.name)

    def _remember(self, gone: _Model[M, F], model: M) -> None:
        """Makes what an engine did a part of the past, in one moment with its own end."""
        stats = model.stats()
        with self._lock:
            del self._engines[gone]
            name = self._told_as(gone.name)
            self._past[name] = self._past.get(name, EngineStats()) + stats


def _explained(name: str, error: Exception) -> ModelError:
    """For whoever waits, without the traceback, which holds on to what was half loaded."""
    if isinstance(error, ModelError):
        logger.error("%s cannot be loaded: %s", name, error)
        return copy(error)
    logger.error("%s could not be loaded", name, exc_info=error)
    return ModelError(f"{name} could not be loaded. The log says why.")


def _no_room(name: str, size: int, budget: int, kept: int) -> str:
    warm = f", of which warm models hold {kept / 1e6:,.0f}" if kept else ""
    return f"{name} takes {size / 1e6:,.0f} MB; TOLK_MEMORY gives models {budget / 1e6:,.0f}{warm}."
