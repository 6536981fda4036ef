"""Which models stay in memory, and which go to make room. Plain Python: no threads, no locks, no clock."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import chain
from typing import Generic, Protocol, TypeVar


class Evictable(Protocol):
    """What eviction looks at. A model that is idle may be closed."""

    @property
    def name(self) -> str: ...
    @property
    def bytes(self) -> int: ...
    @property
    def is_idle(self) -> bool: ...


E = TypeVar("E", bound=Evictable)


class Residents(Generic[E]):
    """The models in a memory of `budget` bytes: at most one of each name is in service, which is what new callers get;
    others leave, which is to be closed as soon as they are idle.

    Iteration is over those in service, the least recently used first, then over those that leave.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.evictions = 0  # since the start
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
        """Those in service, the least recently used first."""
        return tuple(self._serving.values())

    @property
    def bytes(self) -> int:
        """What all take, in service or not."""
        return sum(each.bytes for each in self)

    @property
    def kept_bytes(self) -> int:
        """What those in service take that never go to make room."""
        return sum(each.bytes for each in self._serving.values() if each.name in self._kept)

    @property
    def has_to_shrink(self) -> bool:
        """Whether models have to be closed as soon as they are idle: because they leave, or the budget is exceeded."""
        return bool(self._leaving) or self.bytes > self.budget

    def find(self, name: str) -> E | None:
        """The model in service, which from now on is the most recently used one."""
        if (found := self._serving.get(name)) is not None:
            self._serving.move_to_end(name)
        return found

    def serve(self, model: E) -> None:
        """Puts a model into service, the most recently used one, in place of what was there of its name."""
        self.retire(model.name)
        self._serving[model.name] = model

    def retire(self, name: str) -> None:
        """Takes the model of this name out of service, if there is one."""
        if name in self._serving:
            self._leaving.append(self._serving.pop(name))

    def dismiss(self, model: E) -> None:
        """Lets a model leave that is not in service."""
        self._leaving.append(model)

    def keep(self, name: str) -> None:
        """From now on what is in service under this name never goes to make room."""
        self._kept.add(name)

    def unkeep(self, name: str) -> None:
        self._kept.discard(name)

    def make_room(self, size: int) -> None:
        """Takes as many out of service as have to go for a model of `size` bytes, those that are idle and not kept, the
        least recently used first; none if all of them would not be enough. What exceeds the budget goes anyway.
        """
        free = self.budget - sum(each.bytes for each in self._serving.values())  # as soon as all others have left
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
        """Whether a model of `size` bytes fits beside all that is still there."""
        return size <= self.budget - self.bytes

    def pop_idle(self) -> E | None:
        """One that leaves and is idle, to be closed; it is counted no more."""
        idle = next((each for each in self._leaving if each.is_idle), None)
        if idle is not None:
            self._leaving.remove(idle)
        return idle

    def clear(self) -> list[E]:
        """All of them, which are to be closed."""
        gone = list(self)
        self._serving.clear()
        self._leaving.clear()
        return gone
