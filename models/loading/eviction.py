"""Decides which models stay in memory and which are evicted. No threads, no locks, no clock."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import chain
from typing import Generic, Protocol, TypeVar


class Evictable(Protocol):
    """A model, as far as eviction needs it. It may be closed while `is_idle`. `bytes` is the memory that it takes."""

    @property
    def name(self) -> str: ...
    @property
    def bytes(self) -> int: ...
    @property
    def is_idle(self) -> bool: ...


E = TypeVar("E", bound=Evictable)


class Residents(Generic[E]):
    """The models in a memory of `budget` bytes. At most one model of each name is in service: new callers get it. The
    others are leaving: they are closed as soon as they are idle.

    Iteration is over the models in service, the least recently used first, then over the leaving ones.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.evictions = 0  # number since the start
        self._serving: OrderedDict[str, E] = OrderedDict()  # least recently used first
        self._leaving: list[E] = []
        self._kept: set[str] = set()

    def __iter__(self) -> Iterator[E]:
        return chain(self._serving.values(), self._leaving)

    def __contains__(self, name: str) -> bool:
        """Whether a model of this name is in service."""
        return name in self._serving

    @property
    def serving(self) -> tuple[E, ...]:
        """The models in service, the least recently used first."""
        return tuple(self._serving.values())

    @property
    def bytes(self) -> int:
        """Bytes of all models, in service or leaving."""
        return sum(each.bytes for each in self)

    @property
    def kept_bytes(self) -> int:
        """Bytes of the models in service that are never evicted."""
        return sum(each.bytes for each in self._serving.values() if each.name in self._kept)

    @property
    def has_to_shrink(self) -> bool:
        """Whether there are models to close as soon as they are idle: some are leaving, or the budget is exceeded."""
        return bool(self._leaving) or self.bytes > self.budget

    def find(self, name: str) -> E | None:
        """The model of this name in service, or None. It becomes the most recently used one."""
        if (found := self._serving.get(name)) is not None:
            self._serving.move_to_end(name)
        return found

    def serve(self, model: E) -> None:
        """Puts a model into service, as the most recently used one. It replaces the model of its name, if any."""
        self.retire(model.name)
        self._serving[model.name] = model

    def retire(self, name: str) -> None:
        """Takes the model of this name out of service, if there is one."""
        if name in self._serving:
            self._leaving.append(self._serving.pop(name))

    def dismiss(self, model: E) -> None:
        """Adds a model that is not in service to the leaving ones."""
        self._leaving.append(model)

    def keep(self, name: str) -> None:
        """From now on, models of this name are not evicted."""
        self._kept.add(name)

    def unkeep(self, name: str) -> None:
        """From now on, models of this name may be evicted again."""
        self._kept.discard(name)

    def make_room(self, size: int) -> None:
        """Evicts models until one of `size` bytes fits: idle ones that are not kept, the least recently used first.

        If evicting all of these would not be enough, none is evicted, except as far as the budget is exceeded already.
        """
        free = self.budget - sum(each.bytes for each in self._serving.values())  # once the leaving ones are closed
        idle = [each for each in self._serving.values() if each.is_idle and each.name not in self._kept]
        if free + sum(each.bytes for each in idle) < size:
            size = 0
        for each in idle:
            if free >= size:
                break
            self.retire(each.name)
            self.evictions += 1
            free += each.bytes

    def has_room(self, size: int) -> bool:
        """Whether a model of `size` bytes fits beside all models that are still in memory."""
        return size <= self.budget - self.bytes

    def pop_idle(self) -> E | None:
        """Removes and returns a leaving model that is idle, for the caller to close; None if there is none."""
        idle = next((each for each in self._leaving if each.is_idle), None)
        if idle is not None:
            self._leaving.remove(idle)
        return idle

    def clear(self) -> list[E]:
        """Removes and returns all models, for the caller to close."""
        gone = list(self)
        self._serving.clear()
        self._leaving.clear()
        return gone
