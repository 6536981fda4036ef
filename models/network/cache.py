"""What the hypotheses of a lane have computed so far: keys and values, in rows that are taken and given back.

A row is one hypothesis. Its keys and values stay where they were written: a hypothesis that goes on from another one
notes in `paths` in whose row each of its positions lies, instead of copying them. A position is written once as long as
anybody looks at it, so that a step that failed can be tried again with fewer rows.
"""

from __future__ import annotations

import math
import mmap
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int32]
Doubles = NDArray[np.float64]

_STEP = 64  # positions that are added at once


class Cache:
    """Room for r rows of up to t target and s source positions; `reserve` makes t and s larger.

    Arrays over rows, which the batch and its search fill in: `tokens` (r) the last token of each, `positions` (r) where
    it stands, `memories` (r) the row that holds the encoded source, `lengths` (r) its tokens, `paths` (r, t) the row
    that holds each target position. Of every decoder layer: `own` (layers, r, t, 2, d), keys and values of target
    positions, and `memory` (layers, r, s, 2, d), of source positions. `scratch` is the model's own, for what it keeps
    between steps.
    """

    scratch: Any = None

    def __init__(self, rows: int, layers: int, width: int, dtype: torch.dtype, device: torch.device) -> None:
        self.tokens: Ints = np.zeros(rows, np.int32)
        self.positions: Ints = np.zeros(rows, np.int32)
        self.memories: Ints = np.zeros(rows, np.int32)
        self.lengths: Ints = np.ones(rows, np.int32)
        self.paths: Ints = np.zeros((rows, 0), np.int32)
        self.own = torch.zeros((layers, rows, 0, 2, width), dtype=dtype, device=device)
        self.memory = self.own.clone()

    def reserve(self, targets: int, sources: int, kept: int | None = None) -> None:
        """Makes room for so many positions; what is there stays, in the first `kept` rows or in all of them."""
        if (missing := _missing(self.own, targets)) > 0:
            self.own = _longer(self.own, missing, kept)
            self.paths = np.pad(self.paths, ((0, 0), (0, missing)))
        if (missing := _missing(self.memory, sources)) > 0:
            self.memory = _longer(self.memory, missing, kept)


def _missing(tensor: Tensor, positions: int) -> int:
    """One position is added to each multiple: rows a power of two apart would share a few sets of a CPU's cache."""
    return multiple(positions, _STEP) + 1 - tensor.shape[2]


def multiple(size: int, of: int) -> int:
    """The next one."""
    return -(-size // of) * of


def _longer(tensor: Tensor, positions: int, kept: int | None) -> Tensor:
    """With so many empty positions more. They are zeros: what is masked must not be nan."""
    layers, rows, held, *rest = tensor.shape
    longer = zeros((layers, rows, held + positions, *rest), tensor.dtype, tensor.device)
    longer[:, :kept, :held] = tensor[:, :kept]
    return longer


def zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """On a CPU straight from the system: what nobody has written to takes no memory. torch writes its zeros, and
    NumPy asks for pages so large that other rows come with one.
    """
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.frombuffer(mmap.mmap(-1, math.prod(shape) * dtype.itemsize), dtype=dtype).view(shape)
