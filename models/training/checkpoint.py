"""What a run keeps so that it can be killed at any moment: one file, replaced in one step."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.errors import BadInput


@dataclass(slots=True)
class State:
    """Where a run stands: after `step` steps, before batch `batch` of pool `pool`. `landing_from` is the step at which
    it began to land; `loss`, `tokens` and `seconds` are summed up since it last said them."""

    step: int = 0
    pool: int = 0
    batch: int = 0
    landing_from: int | None = None
    loss: float = 0.0
    tokens: int = 0
    seconds: float = 0.0
    network: dict[str, Tensor] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    shape: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""


def save(path: Path, state: State) -> None:
    """Whoever reads `path` sees the state before or this one, whole, whatever happens meanwhile."""
    fields = {name: getattr(state, name) for name in State.__dataclass_fields__}
    partial = path.with_name(f"{path.name}.part")
    with partial.open("wb") as file:
        torch.save(fields, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load(path: Path) -> State:
    """Raises BadInput for a file that is no state."""
    try:
        return State(**torch.load(path, weights_only=True, map_location="cpu"))
    except (OSError, RuntimeError, TypeError, ValueError, EOFError) as error:
        raise BadInput(f"{path}: is no checkpoint of a training: {error}. Remove it to begin anew.") from error
