"""Each kernel, compared with its formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.compiled import kernels
from tests.models.compiled.products import Case, D, N, assert_quantized, buffers


def test_embed(chance: np.random.Generator) -> None:
    embeddings, sinusoids = (chance.normal(size=(9, D)).astype(np.float32) for _ in range(2))
    tokens, positions = np.array([3, 0, 8], np.int32), np.array([0, 1, 5], np.int32)
    x, (xq, scales) = np.zeros((3, D), np.float32), buffers(3, D)
    kernels.embed(tokens, positions, embeddings, sinusoids, x, xq, scales)
    np.testing.assert_allclose(x, embeddings[tokens] + sinusoids[positions])
    assert_quantized(xq, scales, torch.from_numpy(x))


def test_a_row_of_zeros_stays_zeros() -> None:
    nothing = np.zeros((1, D), np.float32)
    x, (xq, scales) = np.ones((1, D), np.float32), buffers(1, D)
    kernels.embed(np.zeros(1, np.int32), np.zeros(1, np.int32), nothing, nothing, x, xq, scales)
    assert not xq.any()
    assert np.isfinite(scales).all()


def test_add_norm(chance: np.random.Generator) -> None:
    case, middles = Case(chance, D, extra=3), chance.normal(size=N).astype(np.float32)
    before = torch.from_numpy(chance.normal(size=(N, D)).astype(np.float32))
    x, (xq, scales) = before.numpy().copy(), buffers(N, D)
    kernels.add_norm(case.sums, case.scales, middles, case.table, np.float32(1e-5), x, xq, scales)
    weight, shift = (torch.from_numpy(case.table[i]) for i in (2, 3))
    product = case.numbers + torch.from_numpy(middles[:, None] * case.table[4])
    expected = F.layer_norm(before + product, (D,), weight, shift, 1e-5)
    np.testing.assert_allclose(x, expected, atol=1e-4)
    assert_quantized(xq, scales, expected)


@pytest.mark.parametrize(("name", "function"), [("swish", F.silu), ("relu", F.relu), ("gelu", F.gelu)])
def test_activate(chance: np.random.Generator, name: str, function: torch.nn.Module) -> None:
    case, (yq, scales), middles = Case(chance, 40), buffers(N, 40), np.zeros(N, np.float32)
    kernels.activate(case.sums, case.scales, case.table, kernels.ACTIVATION_CODES[name], yq, scales, middles)
    expected = function(case.numbers)
    assert (yq.min(1) == -127).all()
    assert (yq.max(1) == 127).all()
    np.testing.assert_allclose(middles, (expected.amax(1) + expected.amin(1)) / 2, atol=1e-4)
    assert (np.abs(yq - (expected.numpy() - middles[:, None]) / scales[:, None]) < 0.52).all()


@pytest.mark.parametrize("block", [1, 64, 70, 200])
@pytest.mark.parametrize("width", [3, 64, 65, 200])
def test_rank(chance: np.random.Generator, width: int, block: int) -> None:
    """Ranks one block of columns after the other."""
    case, banned = Case(chance, width), np.array([0, 2], np.int32)
    count = 9 if width > 3 else 1
    tokens, logits = np.zeros((N, count), np.int32), np.full((N, count), float(kernels.LOWEST))
    tops, totals = np.full(N, kernels.LOWEST), np.zeros(N, np.float32)
    for first in range(0, width, block):
        some = slice(first, first + block)
        sums, (scales, biases) = np.ascontiguousarray(case.sums[:, some]), case.table[:, some]
        kernels.rank(sums, case.scales, scales, biases, first, banned, tokens, logits, tops, totals)
    expected = case.numbers.double().log_softmax(-1)
    expected[:, banned] = -torch.inf
    values, indices = expected.topk(count)
    np.testing.assert_array_equal(tokens, indices)
    np.testing.assert_allclose(logits - (tops + np.log(totals))[:, None], values, atol=1e-5)


def test_rank_ends_with_numbers_that_are_none() -> None:
    sums, scales, tokens = np.ones((1, 64), np.int32), np.full(1, np.nan, np.float32), np.zeros((1, 4), np.int32)
    logits, tops = np.full((1, 4), float(kernels.LOWEST)), np.full(1, kernels.LOWEST)
    biases = np.zeros(64, np.float32)
    kernels.rank(
        sums, scales, biases, biases, 0, np.array([3], np.int32), tokens, logits, tops, np.zeros(1, np.float32)
    )
    assert ((tokens >= 0) & (tokens < 64)).all()
