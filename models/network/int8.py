"""Marian in int8, for CPUs: a step through all layers is one compiled function (models.compiled).

Weights have a scale per output. Activations have a scale per row, which is computed at every product (dynamic
quantization; Dettmers et al. 2022, https://arxiv.org/abs/2208.07339, section 2). Sources are concatenated, not padded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray

from models.compiled import attention, gemm, kernels
from models.compiled.jit import entry, inline
from models.compiled.rows import Bytes, Floats, Halves, dequantize
from models.errors import UnknownModel
from models.network.cache import Cache, Ints, multiple, zeros
from models.network.interface import NO_LOGITS, Logits
from models.network.layers import NORM_EPSILON
from models.network.marian import Marian
from models.network.quantize import (
    CROSS_KV,
    CROSS_OUT,
    CROSS_Q,
    DOWN,
    INPUTS,
    OUT,
    OUTPUTS,
    QKV,
    ROWS_OF_TABLE,
    TABLE,
    UP,
    WEIGHTS,
    Locations,
    Weights,
    quantize,
)

_SOURCE_TOKENS = 512  # the most tokens encoded at once, which bounds the buffers; a single source may have more
_COLUMNS = 512  # columns of the vocabulary computed at once, so that their logits stay in the processor's cache
_GAP = 64  # bytes between rows; without the gap, rows would share a few sets of the processor's cache
_EPSILON = np.float32(NORM_EPSILON)


class _Buffers(NamedTuple):
    """Buffers for n rows: x (n, d), the layers' input, with its bytes xq and scales; y (n, d), the output of attention;
    z (n, inner), the activations inside the feed-forward layer, whose byte 0 stands for z_middles (n); zeros (n); the
    sums of a product.

    Rows of bytes are longer than their content, and there are rows up to a multiple of gemm.ROWS. Parts of a buffer
    take no memory until a step writes to them.
    """

    x: Floats
    xq: Bytes
    x_scales: Floats
    yq: Bytes
    y_scales: Floats
    zq: Bytes
    z_scales: Floats
    z_middles: Floats
    zeros: Floats
    sums: Ints

    @classmethod
    def of(cls, rows: int, d: int, inner: int, sums: int) -> _Buffers:
        n = multiple(rows, gemm.ROWS)

        def memory(dtype: torch.dtype, *shape: int) -> Any:
            return zeros(shape, dtype, torch.device("cpu")).numpy()

        def rows_of_bytes(width: int) -> Bytes:
            return cast("Bytes", memory(torch.int8, n, multiple(width, gemm.INPUTS) + _GAP))

        scales = np.zeros((5, n), np.float32)
        return cls(
            memory(torch.float32, n, d),
            rows_of_bytes(d),
            scales[0],
            rows_of_bytes(d),
            scales[1],
            rows_of_bytes(inner),
            scales[2],
            scales[3],
            scales[4],
            memory(torch.int32, sums),
        )


class Int8Marian:
    """A Network (models.network.interface) that computes in int8 on the CPU, in one thread."""

    precision = "int8"
    device = torch.device("cpu")

    def __init__(self, marian: Marian) -> None:
        """Quantizes a model in floats, of which only the embeddings are kept.

        Raises UnknownModel if scales or embeddings do not fit into float32.
        """
        self.config = marian.config
        self.parameter_count = marian.parameter_count
        self._weights = weights = quantize(marian)
        if not all(
            np.isfinite(each).all() for each in (weights.tables, weights.source_embeddings, weights.target_embeddings)
        ):
            raise UnknownModel("The model's weights are too large for int8: choose another precision.")

    def cache(self, rows: int) -> Cache:
        """A cache for `rows` hypotheses."""
        config, weights = self.config, self._weights
        cache = Cache(rows, config.decoder_layers, config.d_model, torch.uint16, self.device)
        most = max(rows, _SOURCE_TOKENS, config.max_position_embeddings)
        widest = int(max(weights.encoder[..., OUTPUTS].max(), weights.decoder[..., OUTPUTS].max()))
        sums = multiple(most, gemm.ROWS) * max(widest, _COLUMNS)
        inner = max(config.encoder_ffn_dim, config.decoder_ffn_dim)
        cache.scratch = _Buffers.of(most, config.d_model, inner, sums)
        return cache

    def prefill(self, cache: Cache, rows: Sequence[int], sources: Sequence[Sequence[int]]) -> None:
        """Encodes the sources (token ids including the end token), and writes the keys and values that steps attend to
        into these rows of the cache."""
        batch: list[int] = []
        for i, source in enumerate(sources):
            if batch and sum(len(sources[j]) for j in batch) + len(source) > _SOURCE_TOKENS:
                self._encode(cache, [rows[j] for j in batch], [sources[j] for j in batch])
                batch = []
            batch.append(i)
        self._encode(cache, [rows[j] for j in batch], [sources[j] for j in batch])

    def _encode(self, cache: Cache, rows: Sequence[int], sources: Sequence[Sequence[int]]) -> None:
        starts = np.fromiter(accumulate(map(len, sources), initial=0), np.int32)
        tokens = np.fromiter((token for source in sources for token in source), np.int32)
        positions = np.concatenate([np.arange(len(source), dtype=np.int32) for source in sources])
        _encode(
            self._weights, cache.scratch, tokens, positions, starts, np.fromiter(rows, np.int32), cache.memory.numpy()
        )

    def step(
        self, cache: Cache, rows: Ints, count: int, logits: Logits = NO_LOGITS
    ) -> tuple[Ints, NDArray[np.float64]]:
        """As Marian.step."""
        found, scores = np.empty((len(rows), count), np.int32), np.empty((len(rows), count), np.float64)
        state = cache.tokens, cache.positions, cache.paths, cache.memories, cache.lengths
        _step(self._weights, cache.scratch, rows, state, cache.own.numpy(), cache.memory.numpy(), found, scores, logits)
        return found, scores


@entry
def _encode(w: Weights, b: _Buffers, tokens: Ints, positions: Ints, starts: Ints, rows: Ints, memory: Halves) -> None:
    """Encodes (n) tokens of concatenated sources: source i is from starts[i] to starts[i + 1]. Writes the keys and
    values that decoder layers attend to into row rows[i] of memory (layers, r, s, 2, d)."""
    n = tokens.size
    kernels.embed(tokens, positions, w.source_embeddings, w.sinusoids, b.x[:n], b.xq, b.x_scales)
    for layer in range(w.encoder.shape[0]):
        at = w.encoder[layer]
        sums, table = _product(w, b, at[QKV], b.xq, n)
        attention.attend_source(sums, b.x_scales, table, starts, w.heads[0], b.x.shape[1], b.yq, b.y_scales)
        _add_norm(w, b, at[OUT], b.yq, b.y_scales, b.zeros, n)
        _feed_forward(w, b, at, n)
    for layer in range(w.decoder.shape[0]):
        sums, table = _product(w, b, w.decoder[layer, CROSS_KV], b.xq, n)
        attention.remember(sums, b.x_scales, table, starts, rows, memory[layer])


@entry
def _step(
    w: Weights,
    b: _Buffers,
    rows: Ints,
    state: Any,
    own: Halves,
    memory: Halves,
    found: Ints,
    scores: NDArray[np.float64],
    logits: Logits,
) -> None:
    """Runs a step of (n) rows. Writes the keys and values of their last tokens into own (layers, r, t, 2, d), the
    likeliest next tokens into found (n, count), and their log-probabilities into scores (n, count). `state` is the
    cache's arrays over rows. Also fills in `logits`."""
    tokens, positions, paths, memories, lengths = state
    n = rows.size
    kernels.embed(tokens[rows], positions[rows], w.target_embeddings, w.sinusoids, b.x[:n], b.xq, b.x_scales)
    for layer in range(w.decoder.shape[0]):
        at = w.decoder[layer]
        sums, table = _product(w, b, at[QKV], b.xq, n)
        attention.attend_own(sums, b.x_scales, table, own[layer], rows, positions, paths, w.heads[1], b.yq, b.y_scales)
        _add_norm(w, b, at[OUT], b.yq, b.y_scales, b.zeros, n)
        sums, table = _product(w, b, at[CROSS_Q], b.xq, n)
        attention.attend_memory(
            sums, b.x_scales, table, memory[layer], rows, memories, lengths, w.heads[1], b.yq, b.y_scales
        )
        _add_norm(w, b, at[CROSS_OUT], b.yq, b.y_scales, b.zeros, n)
        _feed_forward(w, b, at, n)
    tops, totals = np.full(n, kernels.LOWEST, np.float32), np.zeros(n, np.float32)
    found[:], scores[:] = 0, kernels.LOWEST
    inputs, outputs = w.projection[INPUTS], w.projection[OUTPUTS]
    weights, table = w.packed[w.projection[WEIGHTS] :], _table(w, w.projection)
    for first in range(0, outputs, _COLUMNS):
        columns = min(_COLUMNS, outputs - first)
        sums = b.sums[: n * columns].reshape(n, columns)
        gemm.product(b.xq, inputs, weights[gemm.packed_size(first, inputs) :], sums, n, w.tiles)
        end = min(first + columns, w.vocabulary)
        scales, biases = table[0, first:end], table[1, first:end]
        for i in range(logits.at.size):
            row = logits.at[i]
            dequantize(sums[row], b.x_scales[row], scales, biases, logits.values[i, first:end])
        kernels.rank(sums, b.x_scales, scales, biases, first, w.banned, found, scores, tops, totals)
    for i in range(n):
        scores[i] -= tops[i] + math.log(totals[i])


@inline
def _product(w: Weights, b: _Buffers, at: Locations, x: Bytes, n: int) -> Any:
    """x (n, in) -> the sums of the product (n, out), and the table to dequantize them with."""
    sums = b.sums[: n * at[OUTPUTS]].reshape(n, at[OUTPUTS])
    gemm.product(x, at[INPUTS], w.packed[at[WEIGHTS] :], sums, n, w.tiles)
    return sums, _table(w, at)


@inline
def _table(w: Weights, at: Locations) -> Floats:
    begin, outputs = at[TABLE], at[OUTPUTS]
    return w.tables[begin : begin + ROWS_OF_TABLE * outputs].reshape(ROWS_OF_TABLE, outputs)


@inline
def _add_norm(w: Weights, b: _Buffers, at: Locations, y: Bytes, scales: Floats, middles: Floats, n: int) -> None:
    sums, table = _product(w, b, at, y, n)
    kernels.add_norm(sums, scales, middles, table, _EPSILON, b.x[:n], b.xq, b.x_scales)


@inline
def _feed_forward(w: Weights, b: _Buffers, at: Locations, n: int) -> None:
    sums, table = _product(w, b, at[UP], b.xq, n)
    kernels.activate(sums, b.x_scales, table, w.activation, b.zq, b.z_scales, b.z_middles)
    _add_norm(w, b, at[DOWN], b.zq, b.z_scales, b.z_middles, n)
