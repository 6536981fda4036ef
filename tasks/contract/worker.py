"""What a worker says of itself, and of the models in its memory."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tasks.contract.fields import array, mapping, value


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in a worker's memory, of which it takes so many bytes; a `warm` one stays there."""

    name: str
    version: str
    device: str
    bytes: int = 0
    warm: bool = True

    @classmethod
    def decode(cls, payload: object) -> LoadedModel:
        data = {"bytes": 0, "warm": True, **mapping(payload, "model")}  # a worker of an earlier release tells neither
        return cls(
            name=value(data, "name", str),
            version=value(data, "version", str),
            device=value(data, "device", str),
            bytes=value(data, "bytes", int),
            warm=value(data, "warm", bool),
        )


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A worker at this moment: requests that it holds, and has answered since it started; `uptime` in seconds.

    Since then, too: requests that found their model in memory; models that were loaded, and that went to make room.
    `memory` is what it has of the machine's, in bytes, None where it is of a release that does not say so; `gpu_memory`
    what it holds of its GPU's, None where it uses none.
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

    def encode(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def decode(cls, payload: object) -> WorkerStatus:
        """Raises TolkError(BAD_INPUT) that names the field which does not fit."""
        data = {"hits": 0, "loads": 0, "evictions": 0, **mapping(payload, "worker")}  # which an earlier release lacks
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
        )
