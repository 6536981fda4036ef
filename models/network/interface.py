"""The interface of a network that decoding uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch

from models.compiled.rows import Floats
from models.network.cache import Cache, Doubles, Ints
from models.network.config import MarianConfig


class Logits(NamedTuple):
    """The logits (k, v) of the next token in some of the rows of a step: `at` (k) has their places among these. A step
    fills in `values`."""

    at: Ints
    values: Floats


NO_LOGITS = Logits(np.zeros(0, np.int32), np.zeros((0, 0), np.float32))


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
    def step(self, cache: Cache, rows: Ints, count: int, logits: Logits = ...) -> tuple[Ints, Doubles]: ...
