"""One load of a model, from the first request for it until it is closed."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from models.engine.stats import EngineStats
from models.errors import ModelError


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
    """A model on this machine's disk, such as models.store.diskcache.Held. It stays there until `release`."""

    def release(self) -> None: ...


M = TypeVar("M", bound=Loadable)
F = TypeVar("F", bound=Fetched)


@dataclass(eq=False, slots=True)
class Instance(Generic[M, F]):
    """One load of a model. `waiters`: callers that wait until it is loaded. `users`: callers that use it.

    `settled` is notified when the model is in memory, or has an `error`. Until then, `size` (bytes) is an estimate.
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

    @property
    def bytes(self) -> int:
        """Bytes of memory that it takes now."""
        return 0 if self.model is None else self.size
