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
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

from models.errors import DeadlineExceeded, ModelError, Overloaded, Unavailable

NICENESS = 10  # of the threads that fetch and load: a tenth of the processor's time where others want it, too
FORGET = 2.0  # seconds that a failed load is remembered, twice as long after each further one
FORGET_AT_MOST = 60.0

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
    def close(self, grace: float = 0.0) -> None: ...


class Fetched(Protocol):
    """A model on this machine's disk, such as models.store.Held. Whoever fetched it may have it until `release`."""

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
    that they took; models that went to make room. Now: callers that wait, and bytes of what is in memory.
    """

    hits: int
    misses: int
    loads: int
    failures: int
    loading: float
    evictions: int
    waiting: int
    bytes: int


class LoadedModels(Generic[M, F]):
    """Thread-safe. From `close` on all that asks for a model raises Unavailable."""

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
        it, one at a time. Both may take long, and raise ModelError. What was fetched is released when its model is
        closed, or was not loaded.

        `budget`: bytes that models may take; `estimate(name, fetched)` says of one that was never loaded how many it
        will. While one is loaded it may take more. `waiting`: callers that may wait for loads at once.
        """
        raise NotImplementedError

    @contextmanager
    def use(self, name: str, deadline: float) -> Iterator[M]:
        """The model: at once where it is in memory, else when it is loaded. It is not unloaded inside of the `with`.

        Raises, at `deadline` (a time.monotonic()) at the latest, Overloaded where too many wait already, or where all
        memory is held by models with work in flight; DeadlineExceeded; Unavailable when closing, or for a model that
        the budget has no room for; and what fetching or loading it raised. That is remembered for some seconds, in
        which nobody tries again.
        """
        raise NotImplementedError

    def keep(self, name: str) -> None:
        """Loads a model now, if it is not there, and never lets it go to make room. Raises what loading it raised."""

    def refresh(self, name: str) -> None:
        """Loads a model anew, for what it is now. Until it is there the old one serves, and is then closed as soon as
        nobody uses it; both need room at once. Raises what loading it raised: then the old one goes on serving.
        """

    def drop(self, name: str) -> None:
        """Does not keep a model any more, and closes it as soon as nobody uses it or waits for it."""

    def loaded(self) -> tuple[InMemory, ...]:
        """What is in memory, the least recently used first."""
        raise NotImplementedError

    def cancel(self, group: str) -> int:
        """Ends what waits or runs under `group` in any model; says how many sentences that were."""
        raise NotImplementedError

    def stalled(self) -> Iterator[tuple[str, float]]:
        """Of each model in memory, the seconds that it has been busy with one step."""
        raise NotImplementedError

    def stats(self) -> LoadedStats:
        raise NotImplementedError

    def close(self, grace: float = 0.0) -> None:
        """Ends everything: who waits gets Unavailable, what is in flight gets `grace` seconds for all together."""
