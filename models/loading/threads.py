"""The threads that find, fetch, load and close models. Two threads look for models on this machine's disk, several
fetch (download) those that are not there, and one loads and closes, one model at a time. So no model on the disk waits
behind downloads.

They hold the lock only while they get their next task and report its outcome. All but the loading thread have a lower
priority than the threads that translate. The loading thread does not, because the threads that a model starts would
inherit it; instead, the part of loading that takes long runs in the background (models.loading.background).
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from typing import Generic

from models.errors import ModelError
from models.loading import heap
from models.loading.arrivals import Arrivals
from models.loading.background import in_background, lower_priority
from models.loading.instance import F, Instance, M
from models.loading.work import WorkDone

FINDING = 2  # threads that look for models on the disk
TRIM = 0.5  # the least seconds between two trims of the heap, because these stop other threads

logger = logging.getLogger(__name__)


class LoadingThreads(Generic[M, F]):
    """The threads start at once, and run until `arrivals` is closed. `lock` is the lock of `arrivals`."""

    def __init__(
        self,
        find: Callable[[str], F | str],
        fetch: Callable[[str, Callable[[], bool]], F],
        load: Callable[[str, F], M],
        estimate: Callable[[str, F], int],
        *,
        arrivals: Arrivals[M, F],
        lock: threading.Lock,
        work: WorkDone,
        fetching: int,
        grace: float,
        clock: Callable[[], float],
    ) -> None:
        """The functions, `fetching`, `grace` and `clock`: as for models.loading.loaded.LoadedModels."""
        self.seconds = 0.0  # that all loads took together; guarded by the lock
        self._find, self._fetch, self._load, self._estimate, self._grace = find, fetch, load, estimate, grace
        self._arrivals, self._lock, self._work, self._clock = arrivals, lock, work, clock
        self._trims_at = -math.inf
        tasks = {f"find-{number}": self._find_all for number in range(FINDING)}
        tasks |= {f"fetch-{number}": self._fetch_all for number in range(fetching)} | {"load": self._load_all}
        self._threads = [threading.Thread(target=task, name=name, daemon=True) for name, task in tasks.items()]
        for thread in self._threads:
            thread.start()

    def end(self, held: Iterable[Instance[M, F]], until: float) -> None:
        """Closes the instances `held`, all at once, and waits for the threads, until the time `until` at the latest."""
        held = list(held)
        with ThreadPoolExecutor(len(held) or 1) as pool:
            list(pool.map(lambda each: self._unload(each, max(0.0, until - self._clock())), held))
        for thread in self._threads:
            thread.join(max(0.0, until - self._clock()))

    def _find_all(self) -> None:
        lower_priority()
        while (coming := self._next_to_find()) is not None:
            self._bring(coming, self._find)

    def _next_to_find(self) -> Instance[M, F] | None:
        with self._lock:
            return self._arrivals.next_to_find()

    def _fetch_all(self) -> None:
        lower_priority()
        while (found := self._next_to_fetch()) is not None:
            coming, host = found
            wanted = self._wanted(coming)
            self._bring(coming, lambda name, wanted=wanted: self._fetch(name, wanted))  # type: ignore[misc]
            with self._lock:
                self._arrivals.end_fetch(host)

    def _next_to_fetch(self) -> tuple[Instance[M, F], str] | None:
        with self._lock:
            return self._arrivals.next_to_fetch()

    def _wanted(self, coming: Instance[M, F]) -> Callable[[], bool]:
        """A function that says whether somebody waits for the instance, or did so in the last `grace` seconds."""
        latest = self._clock()

        def is_wanted() -> bool:
            nonlocal latest
            now = self._clock()
            if coming.waiters:
                latest = now
            return now - latest <= self._grace and not self._arrivals.is_closed

        return is_wanted

    def _bring(self, coming: Instance[M, F], bring: Callable[[str], F | str]) -> None:
        """Has the instance loaded, fetched from the host that `bring` returns, or failed."""
        fetched, size, error = None, 0, None
        try:
            found = bring(coming.name)
            if isinstance(found, str):
                with self._lock:
                    self._arrivals.await_fetch(coming, found)
                return
            fetched = found
            with self._lock:
                known = self._arrivals.size(coming.name)
            size = self._estimate(coming.name, fetched) if known is None else known
        except Exception as raised:  # noqa: BLE001 - this thread has to go on after any error
            error = _explained(coming.name, raised)
        with self._lock:
            if fetched is not None:
                coming.fetched, coming.is_fetched = fetched, True
            coming.size = size
            if (is_wanted := coming in self._arrivals) and error is not None:
                self._arrivals.fail(coming, error)
            self._arrivals.make_room()
        if not is_wanted:
            self._unload(coming)

    def _load_all(self) -> None:
        while (each := self._next_to_load_or_close()) is not None:
            if each is self._arrivals.in_hand:
                self._load_one(each)
            else:
                self._unload(each)
            if self._clock() >= self._trims_at:
                in_background(heap.trim)
                self._trims_at = self._clock() + TRIM

    def _next_to_load_or_close(self) -> Instance[M, F] | None:
        with self._lock:
            return self._arrivals.next_to_load_or_close()

    def _load_one(self, coming: Instance[M, F]) -> None:
        began, size, error = self._clock(), 0, None
        try:
            coming.model = self._load(coming.name, coming.fetched)
            size = coming.model.bytes
        except Exception as raised:  # noqa: BLE001 - this thread has to go on after any error
            error = _explained(coming.name, raised)
        with self._lock:
            self._arrivals.in_hand = None
            self.seconds += self._clock() - began
            if coming.model is not None:
                self._work.begin(coming.name, coming.model)
            if is_wanted := coming in self._arrivals:
                if error is None:
                    self._arrivals.serve(coming, size)
                else:
                    self._arrivals.fail(coming, error)
        if not is_wanted:
            self._unload(coming)

    def _unload(self, gone: Instance[M, F], grace: float = 0.0) -> None:
        """Closes a model, and removes it from its instance, so that references to the instance do not keep it."""
        model, gone.model = gone.model, None
        try:
            if model is not None:
                try:
                    model.close(grace)
                finally:
                    self._work.end(model)
            if gone.is_fetched:
                gone.fetched.release()
        except Exception:
            logger.exception("%s could not be closed", gone.name)


def _explained(name: str, error: Exception) -> ModelError:
    """Logs an error, and returns the one for callers. It has no traceback, which would keep what was half loaded."""
    if isinstance(error, ModelError):
        logger.error("%s cannot be loaded: %s", name, error)
        return copy(error)
    logger.error("%s could not be loaded", name, exc_info=error)
    return ModelError(f"{name} could not be loaded. The log says why.")
