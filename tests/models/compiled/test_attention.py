"""Attention kernels, compared with the formula of attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.compiled.attention import attend_memory, attend_own, attend_source, remember
from tests.models.compiled.products import HEADS, POSITIONS, WIDTHS, Case, D, N, assert_quantized, buffers, halves


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention of one query (d), which is scaled already, to keys and values (t, d)."""
    split = (HEADS, len(q) // HEADS)
    weights = torch.einsum("hw,thw->ht", q.view(split), k.view(-1, *split)).softmax(-1)
    return torch.einsum("ht,thw->hw", weights, v.view(-1, *split)).flatten()


def test_attend_source(chance: np.random.Generator) -> None:
    case, (yq, scales) = Case(chance, 3 * D), buffers(N, D)
    attend_source(case.sums, case.scales, case.table, np.array([0, 2, N], np.int32), HEADS, D, yq, scales)
    q, k, v = case.numbers.chunk(3, dim=1)
    expected = [attention(q[i], k[some], v[some]) for i in range(N) for some in [slice(2) if i < 2 else slice(2, N)]]
    assert_quantized(yq, scales, torch.stack(expected))


@pytest.mark.parametrize("d", WIDTHS)
def test_attend_own(chance: np.random.Generator, d: int) -> None:
    """Row 4 continues row 1, which holds its first two positions; each of them has its own third position."""
    own_before = torch.from_numpy(chance.normal(size=(N, POSITIONS, 2, d)).astype(np.float32)).bfloat16()
    own, rows = halves(own_before).copy(), np.array([4, 1], np.int32)
    positions, paths = np.full(N, 2, np.int32), np.repeat(np.arange(N, dtype=np.int32)[:, None], POSITIONS, 1)
    paths[4, :2] = 1
    case, (yq, scales) = Case(chance, 3 * d, n=2), buffers(2, d)
    attend_own(case.sums, case.scales, case.table, own, rows, positions, paths, HEADS, yq, scales)
    q, k, v = case.numbers.chunk(3, dim=1)
    past = own_before[1, :2].float()
    expected = [
        attention(q[i], torch.cat((past[:, 0], k[i : i + 1])), torch.cat((past[:, 1], v[i : i + 1]))) for i in range(2)
    ]
    np.testing.assert_allclose(yq * scales[:, None], torch.stack(expected), atol=0.05)
    found = torch.from_numpy(own[rows, 2]).view(torch.bfloat16)
    torch.testing.assert_close(found.float(), torch.stack((k, v), dim=1), rtol=2**-8, atol=0)
    untouched = np.ones(own.shape[:2], bool)
    untouched[rows, 2] = False
    np.testing.assert_array_equal(own[untouched], halves(own_before)[untouched])


@pytest.mark.parametrize("d", WIDTHS)
def test_attend_memory_which_hypotheses_share(chance: np.random.Generator, d: int) -> None:
    memory = torch.from_numpy(chance.normal(size=(N, POSITIONS, 2, d)).astype(np.float32)).bfloat16()
    memories, lengths = np.array([3, 3, 0, 0, 0], np.int32), np.array([4, 4, 7, 7, 7], np.int32)
    case, (yq, scales), rows = Case(chance, d, n=3), buffers(3, d), np.array([0, 1, 4], np.int32)
    attend_memory(case.sums, case.scales, case.table, halves(memory), rows, memories, lengths, HEADS, yq, scales)
    sources = [memory[memories[row], : lengths[row]].float() for row in rows]
    expected = [attention(case.numbers[i], source[:, 0], source[:, 1]) for i, source in enumerate(sources)]
    assert_quantized(yq, scales, torch.stack(expected))


def test_remember(chance: np.random.Generator) -> None:
    memory, case = np.zeros((N, POSITIONS, 2, D), np.uint16), Case(chance, 2 * D)
    starts, rows = np.array([0, 3, N], np.int32), np.array([4, 1], np.int32)
    remember(case.sums, case.scales, case.table, starts, rows, memory)
    expected = halves(case.numbers.view(N, 2, D))
    np.testing.assert_array_equal(memory[4, :3], expected[:3])
    np.testing.assert_array_equal(memory[1, :2], expected[3:])
    assert np.count_nonzero(memory) == np.count_nonzero(expected)
