"""The status of the service: its queues, workers and web processes."""

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
    """Whether workers can serve a model now."""

    READY = "READY"  # the model is in a worker's memory
    ON_DEMAND = "ON_DEMAND"  # a worker loads it first
    FAILED = "FAILED"  # a worker could not load it
    UNSERVED = "UNSERVED"  # no worker takes the model's queue
    UNKNOWN = "UNKNOWN"  # the broker does not answer, or there is none


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """A queue: the number of messages that wait in it, which hold one request or several, and of workers that take
    them."""

    name: str
    depth: int
    workers: int


@dataclass(frozen=True, slots=True)
class WebStatus:
    """What a web process reports to others: its recent errors, how many translations it waits for, and by queue since
    when the oldest of them waits (Unix seconds)."""

    errors: tuple[ErrorCount, ...] = ()
    in_flight: int = 0
    oldest: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def decode(cls, payload: Any) -> WebStatus:
        """Reads a WebStatus from JSON, or the list of errors that an earlier release sends. Raises LookupError,
        TypeError or ValueError for anything else."""
        data: Any = {"errors": payload, "in_flight": 0, "oldest": {}} if isinstance(payload, list) else payload
        errors = tuple(ErrorCount(**{**each, "code": Code(each["code"])}) for each in data["errors"])
        return cls(errors, int(data["in_flight"]), {str(name): float(since) for name, since in data["oldest"].items()})


@dataclass(frozen=True)
class Status:
    """The status of the service. `broker` says whether the broker answers; None if there is none, or nothing is known
    yet. If it does not answer, only `in_flight` and `oldest` of this process are known.

    `queues` and `workers` are by name. `dead_letters` is the number of messages in the dead-letter queue, `job_workers`
    that of results workers, without which jobs stand still. `errors` are
    those of the other web processes. All web processes together wait for `in_flight` translations, of which `oldest`
    has, by queue, the time since which the oldest waits (Unix seconds).
    """

    broker: bool | None = None
    queues: Mapping[str, QueueStatus] = field(default_factory=dict)
    workers: Mapping[str, WorkerStatus] = field(default_factory=dict)
    dead_letters: int | None = None
    job_workers: int | None = None
    errors: tuple[ErrorCount, ...] = ()
    in_flight: int = 0
    oldest: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def holders(self) -> Mapping[str, list[LoadedModel]]:
        """By the model's name, its copies in workers' memories, one for each worker."""
        holders: dict[str, list[LoadedModel]] = {}
        for worker in self.workers.values():
            for model in worker.models:
                holders.setdefault(model.name, []).append(model)
        return holders

    def serves(self, route: str) -> bool | None:
        """Whether a worker takes a route's interactive work; None if that is unknown."""
        if self.broker is False:
            return False
        queue = self.queues.get(queue_name(route, "interactive"))
        return None if queue is None else queue.workers > 0

    def readiness(self, model: Entry) -> Readiness:
        """Whether workers can serve a model now."""
        served = self.serves(model.route) if self.broker else None
        if not served:
            return Readiness.UNKNOWN if served is None else Readiness.UNSERVED
        if model.name in self.problems and model.name not in self.holders:
            return Readiness.FAILED
        return Readiness.READY if model.warm or model.name in self.holders else Readiness.ON_DEMAND

    def depth(self, model: Entry) -> int | None:
        """Messages that wait for a model; None if it shares its queues with other models, or if nothing is known."""
        queues = self.own_queues(model)[: len(get_args(Priority))]
        return sum(queue.depth for queue in queues) if queues else None

    def version(self, model: Entry) -> str | None:
        """The version that most workers have of a model; None if no worker has it in memory."""
        versions = Counter(held.version for held in self.holders.get(model.name, ()))
        return versions.most_common(1)[0][0] if versions else None

    def can_translate(self, way: Way, registry: Registry) -> bool:
        """Whether workers take requests for a way, as far as is known: for the first of its models or, if it leads
        through other languages, for all of them."""
        models = [registry.models[name] for name in (way.models if way.via else way.models[:1])]
        failed = any(self.readiness(model) is Readiness.FAILED for model in models)
        return not failed and all(self.serves(model.route) is not False for model in models)

    @cached_property
    def problems(self) -> Mapping[str, str]:
        """By the model's name, why a worker could not load it."""
        return {model.name: model.reason for worker in self.workers.values() for model in worker.failed}

    def listed(self, registry: Registry) -> list[Entry]:
        """The models that are warm, in a worker's memory, or could not be loaded."""
        known = self.holders.keys() | self.problems.keys()
        return [model for model in registry.models.values() if model.warm or model.name in known]

    def own_queues(self, model: Entry) -> list[QueueStatus]:
        """A model's own queues for interactive work, bulk work and suspects; none if it shares its queues."""
        if not model.warm:
            return []
        names = queue_names(model.route)
        return [self.queues[name] for name in (*names, suspects_name(model.route)) if name in self.queues]

    def shared_queues(self) -> list[QueueStatus]:
        """The queues of all models on demand, for interactive work, bulk work and suspects. The shards of a queue are
        added up; `workers` is the smallest number of workers that take one shard."""
        shared = []
        for priority in get_args(Priority):
            names = [queue_name(route, priority) for route in SHARED]
            if shards := [self.queues[name] for name in names if name in self.queues]:
                depth, workers = sum(each.depth for each in shards), min(each.workers for each in shards)
                shared.append(QueueStatus(queue_name(f"{ON_DEMAND}.*", priority), depth, workers))
        suspects = self.queues.get(suspects_name(SHARED[0]))
        return shared if suspects is None else [*shared, suspects]
