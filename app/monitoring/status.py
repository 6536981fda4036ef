"""What an operator wants to know about the service at this moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, get_args

from app.monitoring.recent_errors import ErrorCount
from tasks.contract.errors import Code
from tasks.contract.names import ON_DEMAND, SHARED, Priority, queue_name, queue_names, suspects_name
from tasks.contract.worker import LoadedModel, WorkerStatus
from tasks.registry.entry import Entry
from tasks.registry.ways import Registry, Way


class Readiness(StrEnum):
    """What becomes of a request for a model now."""

    READY = "READY"  # it is in some worker's memory
    ON_DEMAND = "ON_DEMAND"  # a worker loads it first
    UNSERVED = "UNSERVED"  # no worker takes its queue
    UNKNOWN = "UNKNOWN"  # the broker does not answer, or none is used


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """Messages that wait, and workers that take them."""

    name: str
    depth: int
    workers: int


@dataclass(frozen=True, slots=True)
class WebStatus:
    """What a web process tells others: its errors, how many translations it waits for, and since when, by queue."""

    errors: tuple[ErrorCount, ...] = ()
    in_flight: int = 0
    oldest: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def decode(cls, payload: Any) -> WebStatus:
        """Raises LookupError, TypeError and ValueError for what is none. An earlier release tells a list of errors."""
        data: Any = {"errors": payload, "in_flight": 0, "oldest": {}} if isinstance(payload, list) else payload
        errors = tuple(ErrorCount(**{**each, "code": Code(each["code"])}) for each in data["errors"])
        return cls(errors, int(data["in_flight"]), {str(name): float(since) for name, since in data["oldest"].items()})


@dataclass(frozen=True)
class Status:
    """`broker` is whether it answers, None where none is used, or nothing is known yet; without it only what this
    process waits for is known.

    `queues` by name; `workers` by theirs; `dead_letters` wait for a look. `errors` are those of other web processes.
    Web processes wait for `in_flight` translations, by queue since `oldest` (Unix seconds).
    """

    broker: bool | None = None
    queues: Mapping[str, QueueStatus] = field(default_factory=dict)
    workers: Mapping[str, WorkerStatus] = field(default_factory=dict)
    dead_letters: int | None = None
    errors: tuple[ErrorCount, ...] = ()
    in_flight: int = 0
    oldest: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def holders(self) -> Mapping[str, list[LoadedModel]]:
        """By name, the models in workers' memories, one for each worker."""
        holders: dict[str, list[LoadedModel]] = {}
        for worker in self.workers.values():
            for model in worker.models:
                holders.setdefault(model.name, []).append(model)
        return holders

    def serves(self, route: str) -> bool | None:
        """Whether a worker takes a route's interactive work; None where that is not known."""
        if self.broker is False:
            return False
        queue = self.queues.get(queue_name(route, "interactive"))
        return None if queue is None else queue.workers > 0

    def readiness(self, model: Entry) -> Readiness:
        served = self.serves(model.route) if self.broker else None
        if not served:
            return Readiness.UNKNOWN if served is None else Readiness.UNSERVED
        return Readiness.READY if model.warm or model.name in self.holders else Readiness.ON_DEMAND

    def depth(self, model: Entry) -> int | None:
        """Requests that wait for it; None where they wait among those for others, or nothing is known."""
        queues = self.own_queues(model)[: len(get_args(Priority))]
        return sum(queue.depth for queue in queues) if queues else None

    def version(self, model: Entry) -> str | None:
        """What most of its workers have; None where none has it in memory."""
        versions = Counter(held.version for held in self.holders.get(model.name, ()))
        return versions.most_common(1)[0][0] if versions else None

    def can_translate(self, way: Way, registry: Registry) -> bool:
        """Whether workers take what is sent this way, as far as is known; by the first of its models, or by all in
        turn."""
        names = way.models if way.via else way.models[:1]
        return all(self.serves(registry.models[name].route) is not False for name in names)

    def listed(self, registry: Registry) -> list[Entry]:
        """Models that are warm, or in some worker's memory."""
        return [model for model in registry.models.values() if model.warm or model.name in self.holders]

    def own_queues(self, model: Entry) -> list[QueueStatus]:
        """Interactive work, bulk, and suspects; none of a model that shares its queues."""
        if not model.warm:
            return []
        names = queue_names(model.route)
        return [self.queues[name] for name in (*names, suspects_name(model.route)) if name in self.queues]

    def shared_queues(self) -> list[QueueStatus]:
        """The same of all models on demand, every shard; so many `workers` take each of them."""
        shared = []
        for priority in get_args(Priority):
            names = [queue_name(route, priority) for route in SHARED]
            if shards := [self.queues[name] for name in names if name in self.queues]:
                depth, workers = sum(each.depth for each in shards), min(each.workers for each in shards)
                shared.append(QueueStatus(queue_name(f"{ON_DEMAND}.*", priority), depth, workers))
        suspects = self.queues.get(suspects_name(SHARED[0]))
        return shared if suspects is None else [*shared, suspects]
