"""The status of a worker and of the models in its memory, as the worker reports it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tasks.contract.fields import array, mapping, value


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in a worker's memory, where it takes `bytes`. A `warm` model is never evicted."""

    name: str
    version: str
    device: str
    bytes: int = 0
    warm: bool = True

    @classmethod
    def decode(cls, payload: object) -> LoadedModel:
        data = {"bytes": 0, "warm": True, **mapping(payload, "model")}  # workers of earlier releases send neither
        return cls(
            name=value(data, "name", str),
            version=value(data, "version", str),
            device=value(data, "device", str),
            bytes=value(data, "bytes", int),
            warm=value(data, "warm", bool),
        )


@dataclass(frozen=True, slots=True)
class FailedModel:
    """A model that a worker could not load when it last tried, and why."""

    name: str
    reason: str

    @classmethod
    def decode(cls, payload: object) -> FailedModel:
        data = mapping(payload, "failed model")
        return cls(value(data, "name", str), value(data, "reason", str))


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """The state of a worker at one moment.

    `active` counts the requests that it holds, `processed` those that it has answered since it started, `uptime`
    seconds ago. Since then `hits` requests found their model in memory, `loads` models were loaded, and `evictions`
    models were removed to make room. `memory` is the resident memory of its process in bytes, None if the worker's
    release does not report it; `gpu_memory` the bytes that it holds on its GPU, None if it uses no GPU. `failed` are
    the models that it could not load.
    """

    models: tuple[LoadedModel, ...]
    active: int
    processed: int
    uptime: float
    hits: int = 0
    loads: int = 0
    evictions: int = 0
    memory: int | None = None
    gpu_memory: int | None = None
    failed: tuple[FailedModel, ...] = ()

    def encode(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def decode(cls, payload: object) -> WorkerStatus:
        """Raises TolkError(BAD_INPUT), which names the field that does not fit."""
        defaults = {"hits": 0, "loads": 0, "evictions": 0, "failed": []}  # workers of earlier releases lack them
        data = {**defaults, **mapping(payload, "worker")}
        return cls(
            models=tuple(LoadedModel.decode(item) for item in array(data, "models")),
            active=value(data, "active", int),
            processed=value(data, "processed", int),
            uptime=value(data, "uptime", float),
            hits=value(data, "hits", int),
            loads=value(data, "loads", int),
            evictions=value(data, "evictions", int),
            memory=value(data, "memory", int | None),
            gpu_memory=value(data, "gpu_memory", int | None),
            failed=tuple(FailedModel.decode(item) for item in array(data, "failed")),
        )
