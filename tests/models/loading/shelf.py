"""Fake models, and a fake place that they are fetched from."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from models.engine.stats import EngineStats
from models.loading.loaded import LoadedModels

LONG = 60.0  # seconds to a deadline that no test reaches
SHORT = 0.01  # seconds to a deadline that passes during the test
SIZE = 10  # bytes of a model


@dataclass(eq=False)
class Fake:
    """A fake model, and its fake directory."""

    name: str
    bytes: int
    version: str
    device: str = "cpu"
    is_loaded: bool = False
    grace: float | None = None  # the grace that it was closed with
    is_released: bool = False
    finished: int = 0  # number of sentences
    at_the_end: Callable[[], object] = tuple  # called when it is closed

    @property
    def is_closed(self) -> bool:
        return self.grace is not None

    def cancel(self, group: str) -> int:
        return len(group)

    def stalled(self) -> float:
        return float(self.version)

    def stats(self) -> EngineStats:
        return EngineStats(finished=self.finished, lanes=0 if self.is_closed else 1)

    def close(self, grace: float = 0.0) -> None:
        assert self.is_loaded
        assert not self.is_closed
        self.grace = grace
        self.at_the_end()

    def release(self) -> None:
        assert self.is_closed == self.is_loaded
        assert not self.is_released
        self.is_released = True


@dataclass
class Shelf:
    """The place that fake models come from. A stage is "fetch NAME" or "load NAME"; a stage with a gate waits at it."""

    sizes: dict[str, int] = field(default_factory=dict)
    estimates: dict[str, int] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    gates: dict[str, threading.Event] = field(default_factory=dict)
    local: set[str] = field(default_factory=set)
    hosts: dict[str, str] = field(default_factory=dict)
    sought: list[str] = field(default_factory=list)
    wanted: dict[str, Callable[[], bool]] = field(default_factory=dict)
    begun: list[str] = field(default_factory=list)
    made: list[Fake] = field(default_factory=list)

    def shut(self, stage: str) -> threading.Event:
        self.gates[stage] = threading.Event()
        return self.gates[stage]

    def find(self, name: str) -> Fake | str:
        """The model if it is local; else its host, by default one of its own."""
        self.sought.append(name)
        return self.fetch(name) if name in self.local else self.hosts.get(name, name)

    def fetch(self, name: str, wanted: Callable[[], bool] = lambda: True) -> Fake:
        self.wanted[name] = wanted
        self._pass(f"fetch {name}")
        self.made.append(Fake(name, self.sizes.get(name, SIZE), version=str(len(self.made))))
        return self.made[-1]

    def load(self, name: str, fetched: Fake) -> Fake:
        assert name == fetched.name
        self._pass(f"load {name}")
        fetched.is_loaded = True
        return fetched

    def estimate(self, name: str, fetched: Fake) -> int:
        self._pass(f"estimate {name}")
        return self.estimates.get(name, fetched.bytes)

    def loads(self) -> list[str]:
        return [stage.removeprefix("load ") for stage in self.begun if stage.startswith("load ")]

    def gone(self) -> list[str]:
        """The names of models that were fetched and are released."""
        return [fake.name for fake in self.made if fake.is_released]

    def taken(self) -> int:
        return sum(fake.bytes for fake in self.made if fake.is_loaded and not fake.is_closed)

    def _pass(self, stage: str) -> None:
        self.begun.append(stage)
        if stage in self.gates:
            assert self.gates[stage].wait(LONG)
        if stage in self.errors:
            raise self.errors[stage]


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


Models = LoadedModels[Fake, Fake]
Make = Callable[..., Models]
Begin = Callable[..., Future[Any]]
Eventually = Callable[..., None]


def touch(models: Models, *names: str, seconds: float = LONG) -> Fake:
    """Uses the models one after the other, for no time; returns the last one."""
    for name in names:
        with models.use(name, time.monotonic() + seconds) as model:
            assert (model.name, model.is_closed) == (name, False)
    return model


def names(models: Models) -> list[str]:
    return [each.name for each in models.loaded()]
