"""The cache of a lane: the keys and values of its hypotheses, in rows that are taken and given back.

A row belongs to one hypothesis. Keys and values stay where they were written: if a hypothesis continues another one, it
does not copy them, but records in `paths` the row that holds each of its positions. A position is not overwritten while
any hypothesis needs it, so that a failed step can be tried again with fewer rows.
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

_STEP = 64  # room grows by so many positions at a time


class Cache:
    """Room for r rows of up to t target and s source positions; `reserve` makes t and s larger.

    Arrays over rows, which the batch and its search fill in: `tokens` (r), the last token of each row; `positions` (r),
    the position of that token; `memories` (r), the row that holds the encoded source; `lengths` (r), the number of
    source tokens; `paths` (r, t), the row that holds each target position. For every decoder layer: `own` (layers, r,
    t, 2, d), keys and values of target positions, and `memory` (layers, r, s, 2, d), those of source positions.
    `scratch` belongs to the model: buffers that it keeps between steps.
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
        """Makes room for so many target and source positions. Keeps the content of the first `kept` rows, or of all."""
        if (missing := _missing(self.own, targets)) > 0:
            self.own = _longer(self.own, missing, kept)
            self.paths = np.pad(self.paths, ((0, 0), (0, missing)))
        if (missing := _missing(self.memory, sources)) > 0:
            self.memory = _longer(self.memory, missing, kept)


def _missing(tensor: Tensor, positions: int) -> int:
    """How many positions a tensor lacks. Its size is a multiple of _STEP plus one, because rows that are a power of two
    apart would share a few sets of a CPU's cache."""
    return multiple(positions, _STEP) + 1 - tensor.shape[2]


def multiple(size: int, of: int) -> int:
    """`size`, rounded up to a multiple."""
    return -(-size // of) * of


def _longer(tensor: Tensor, positions: int, kept: int | None) -> Tensor:
    """The tensor with so many more positions. These are zeros, because masked positions must not be nan."""
    layers, rows, held, *rest = tensor.shape
    longer = zeros((layers, rows, held + positions, *rest), tensor.dtype, tensor.device)
    longer[:, :kept, :held] = tensor[:, :kept]
    return longer


def zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of zeros. On a CPU its memory comes directly from the operating system, so that pages take memory only
    when they are written to. torch.zeros writes all pages, and NumPy uses pages so large that one spans several rows.
    """
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.frombuffer(mmap.mmap(-1, math.prod(shape) * dtype.itemsize), dtype=dtype).view(shape)
