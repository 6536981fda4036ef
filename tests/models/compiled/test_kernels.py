"""Each kernel beside the formula that it computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from models.compiled import kernels
from models.compiled.attention import attend_memory, attend_own, attend_source, remember

N, D, HEADS, POSITIONS = 5, 24, 3, 7
WIDTHS = (D, 6 * D)  # heads of 8, and of 48, which are taken 16 numbers at a time
Floats = NDArray[np.float32]


class Case:
    """A product's sums (n, width), the scales of rows and columns, the biases, and the numbers that they mean."""

    def __init__(self, chance: np.random.Generator, width: int, n: int = N, extra: int = 0) -> None:
        self.sums = chance.integers(-9_000, 9_000, (n, width)).astype(np.int32)
        self.scales = chance.uniform(0.005, 0.02, n).astype(np.float32)
        self.table = chance.normal(size=(2 + extra, width)).astype(np.float32)
        self.table[0] = chance.uniform(0.005, 0.02, width)
        self.numbers = torch.from_numpy(self.sums * self.scales[:, None] * self.table[0] + self.table[1]).float()


@pytest.fixture
def chance() -> np.random.Generator:
    return np.random.default_rng(1)


def buffers(n: int, width: int) -> tuple[NDArray[np.int8], Floats]:
    return np.zeros((n, width), np.int8), np.zeros(n, np.float32)


def assert_quantized(found: NDArray[np.int8], scales: Floats, expected: torch.Tensor) -> None:
    """To half a step, and the largest of a row is 127."""
    largest = expected.abs().amax(1).numpy()
    np.testing.assert_allclose(scales, largest / 127, rtol=1e-3)
    assert np.abs(found.astype(np.int32)).max(1).tolist() == [127] * len(found)
    steps = np.abs(found - expected.numpy() / scales[:, None])
    assert steps.max() < 0.52


def halves(numbers: torch.Tensor) -> NDArray[np.uint16]:
    return numbers.bfloat16().view(torch.uint16).numpy()


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


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """One query (d) to keys and values (t, d); queries come scaled."""
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
    """Row 4 goes on from row 1, which is where its first two positions lie; both have their own third."""
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


@pytest.mark.parametrize("block", [1, 64, 70, 200])
@pytest.mark.parametrize("width", [3, 64, 65, 200])
def test_rank(chance: np.random.Generator, width: int, block: int) -> None:
    """A block of columns after the other."""
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
