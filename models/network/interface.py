"""The interface of a network that decoding uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from models.network.cache import Cache, Doubles, Ints
from models.network.config import MarianConfig


class Network(Protocol):
    """Implemented by Marian, which computes in floats, and Int8Marian, which computes in int8; their docstrings say
    what the methods do."""

    @property
    def config(self) -> MarianConfig: ...
    @property
    def precision(self) -> str: ...
    @property
    def parameter_count(self) -> int: ...
    @property
    def device(self) -> torch.device: ...
    def cache(self, rows: int) -> Cache: ...
    def prefill(self, cache: Cache, rows: Sequence[int], sources: Sequence[Sequence[int]]) -> None: ...
    def step(self, cache: Cache, rows: Ints, count: int) -> tuple[Ints, Doubles]: ...
