"""Products of random numbers as inputs of kernels, and a check of quantized rows."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

N, D, HEADS, POSITIONS = 5, 24, 3, 7
WIDTHS = (D, 6 * D)  # heads of width 8, and of width 48, which are computed 16 numbers at a time
Floats = NDArray[np.float32]


class Case:
    """A product: its sums (n, width), the scales of rows and columns, the biases, and the dequantized numbers."""

    def __init__(self, chance: np.random.Generator, width: int, n: int = N, extra: int = 0) -> None:
        self.sums = chance.integers(-9_000, 9_000, (n, width)).astype(np.int32)
        self.scales = chance.uniform(0.005, 0.02, n).astype(np.float32)
        self.table = chance.normal(size=(2 + extra, width)).astype(np.float32)
        self.table[0] = chance.uniform(0.005, 0.02, width)
        self.numbers = torch.from_numpy(self.sums * self.scales[:, None] * self.table[0] + self.table[1]).float()


def buffers(n: int, width: int) -> tuple[NDArray[np.int8], Floats]:
    return np.zeros((n, width), np.int8), np.zeros(n, np.float32)


def assert_quantized(found: NDArray[np.int8], scales: Floats, expected: torch.Tensor) -> None:
    """Each number is within half a step, and the largest absolute value of a row is 127."""
    largest = expected.abs().amax(1).numpy()
    np.testing.assert_allclose(scales, largest / 127, rtol=1e-3)
    assert np.abs(found.astype(np.int32)).max(1).tolist() == [127] * len(found)
    steps = np.abs(found - expected.numpy() / scales[:, None])
    assert steps.max() < 0.52


def halves(numbers: torch.Tensor) -> NDArray[np.uint16]:
    return numbers.bfloat16().view(torch.uint16).numpy()
