"""Counts the work of engines by model, including engines that have been closed."""

from __future__ import annotations

import threading
from typing import Protocol

from models.engine.stats import EngineStats

NAMED = 50  # the most models whose work is counted by name
OTHER = "other"


class Counting(Protocol):
    def stats(self) -> EngineStats: ...


class WorkDone:
    """Thread-safe. The work of the first `named` models is counted under their names, that of all others under OTHER,
    because a thousand models on demand would otherwise leave a thousand names for ever. A model never changes from one
    to the other, because its work would be counted twice.
    """

    def __init__(self, named: int = NAMED) -> None:
        self._most_named = named
        self._lock = threading.Lock()  # guards the next fields
        self._named: set[str] = set()
        self._running: dict[int, tuple[str, Counting]] = {}  # by id: the name that it counts under, and the model
        self._past: dict[str, EngineStats] = {}

    def begin(self, name: str, model: Counting) -> None:
        """Begins to count the work of this model."""
        with self._lock:
            if len(self._named) < self._most_named:
                self._named.add(name)
            self._running[id(model)] = name if name in self._named else OTHER, model

    def end(self, model: Counting) -> None:
        """Adds up the work of a closed model, whose `stats` do not change any more, and forgets the model itself."""
        stats = model.stats()
        with self._lock:
            name, _ = self._running.pop(id(model))
            self._past[name] = self._past.get(name, EngineStats()) + stats

    def by_model(self) -> dict[str, EngineStats]:
        """The stats of all engines by name. Closed engines are included, so that no count ever decreases."""
        with self._lock:
            total, running = dict(self._past), list(self._running.values())
        for name, model in running:
            total[name] = total.get(name, EngineStats()) + model.stats()
        return total
