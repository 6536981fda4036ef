"""What engines did, counted by model while models come and go."""

from __future__ import annotations

import threading
from typing import Protocol

from models.engine.stats import EngineStats

NAMED = 50  # models whose work is told apart
OTHER = "other"


class Counting(Protocol):
    def stats(self) -> EngineStats: ...


class WorkDone:
    """Thread-safe. The first `named` models are told apart. All others are added up as OTHER, or a thousand on demand
    would be a thousand names for ever; a model never changes from one to the other, or its work would count twice.
    """

    def __init__(self, named: int = NAMED) -> None:
        self._most_named = named
        self._lock = threading.Lock()  # guards all that follows
        self._named: set[str] = set()
        self._running: dict[int, tuple[str, Counting]] = {}  # by id, with the name that its work is told under
        self._past: dict[str, EngineStats] = {}

    def begin(self, name: str, model: Counting) -> None:
        """Counts what this model does from now on."""
        with self._lock:
            if len(self._named) < self._most_named:
                self._named.add(name)
            self._running[id(model)] = name if name in self._named else OTHER, model

    def end(self, model: Counting) -> None:
        """Keeps what a closed model did, whose `stats` will not change any more, and lets go of the model."""
        stats = model.stats()
        with self._lock:
            name, _ = self._running.pop(id(model))
            self._past[name] = self._past.get(name, EngineStats()) + stats

    def by_model(self) -> dict[str, EngineStats]:
        """What engines are at, and did since the start: those that are closed, too, so no count ever falls."""
        with self._lock:
            total, running = dict(self._past), list(self._running.values())
        for name, model in running:
            total[name] = total.get(name, EngineStats()) + model.stats()
        return total
