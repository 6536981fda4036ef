"""Marian in int8, for CPUs: a step of all layers is one compiled function, of models.gemm and models.kernels.

Weights have a scale per output, activations one per row, found anew at every product (dynamic quantization; Dettmers et
al. 2022, https://arxiv.org/abs/2208.07339, section 2). Sources lie one behind the other: no padding is computed.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models import gemm, kernels
from models.cache import Cache, Ints
from models.errors import UnknownModel
from models.jit import inline, kernel
from models.kernels import Bytes, Floats, Halves
from models.marian import NORM_EPSILON, DecoderLayer, EncoderLayer, Marian

Place = tuple[int, int, int, int]
Places = NDArray[np.int64]

_SOURCE_TOKENS = 512  # encoded at once, which bounds the buffers; one source may have more
_COLUMNS = 512  # of the vocabulary, whose logits stay in the processor's cache
_GAP = 64  # bytes between rows, which would else share a few sets of the processor's cache
_HUGE_PAGE = 1 << 21
_EPSILON = np.float32(NORM_EPSILON)

# What a product's place says: where its packed weights and its table begin, and how many inputs and outputs it has,
# rounded up. A table has in its rows, per output, the scale and the bias, and weight and bias of the norm after it.
_WEIGHTS, _TABLE, _INPUTS, _OUTPUTS = range(4)
_ROWS_OF_TABLE = 4
QKV, OUT, UP, DOWN, CROSS_Q, CROSS_OUT, CROSS_KV = range(7)  # products of a layer; encoders have the first four


class _Weights(NamedTuple):
    """All that a model computes with. `encoder` and `decoder` (layers, products) and `projection` are places."""

    packed: Bytes
    tables: Floats
    encoder: Places
    decoder: Places
    projection: Places
    source_embeddings: Floats
    target_embeddings: Floats
    sinusoids: Floats
    banned: Ints
    vocabulary: int
    heads: tuple[int, int]
    activation: int
    tiles: bool


class _Buffers(NamedTuple):
    """Of n rows x, its bytes and scales (n, d); y, what attention mixed (n, d); z, inside the feed-forward layer
    (n, inner); and the sums of a product. Rows of bytes are longer, and the memory is for a multiple of gemm.ROWS."""

    x: Floats
    xq: Bytes
    x_scales: Floats
    yq: Bytes
    y_scales: Floats
    zq: Bytes
    z_scales: Floats
    sums: Ints

    @classmethod
    def of(cls, rows: int, d: int, inner: int, sums: int) -> _Buffers:
        n = _multiple(rows, gemm.ROWS)

        def rows_of_bytes(width: int) -> Bytes:
            return np.zeros((n, _multiple(width, gemm.INPUTS) + _GAP), np.int8)

        scales = np.empty((3, n), np.float32)
        return cls(
            np.empty((n, d), np.float32),
            rows_of_bytes(d),
            scales[0],
            rows_of_bytes(d),
            scales[1],
            rows_of_bytes(inner),
            scales[2],
            np.empty(sums, np.int32),
        )


class Int8Marian:
    """Has the interface of Marian that decoding uses; computes on the CPU, in one thread."""

    precision = "int8"
    device = torch.device("cpu")

    def __init__(self, marian: Marian) -> None:
        """Nothing of the model in floats is kept. Raises UnknownModel for weights of nan or infinity."""
        self.config = marian.config
        self.parameter_count = marian.parameter_count
        if not all(bool(each.isfinite().all()) for each in marian.state_dict().values()):
            raise UnknownModel("The model's weights hold nan or infinity, which int8 cannot.")
        self._weights = _pack(marian)

    def cache(self, rows: int) -> Cache:
        """Room for so many hypotheses at once."""
        config, weights = self.config, self._weights
        cache = Cache(rows, config.decoder_layers, config.d_model, torch.uint16, self.device)
        most = max(rows, _SOURCE_TOKENS, config.max_position_embeddings)
        widest = int(max(weights.encoder[..., _OUTPUTS].max(), weights.decoder[..., _OUTPUTS].max()))
        sums = _multiple(most, gemm.ROWS) * max(widest, _COLUMNS)
        inner = max(config.encoder_ffn_dim, config.decoder_ffn_dim)
        cache.scratch = _Buffers.of(most, config.d_model, inner, sums)
        return cache

    def prefill(self, cache: Cache, rows: Sequence[int], sources: Sequence[Sequence[int]]) -> None:
        """Encodes the sources, token ids with the end, and keeps in these rows what every step will look at."""
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

    def step(self, cache: Cache, rows: Ints, count: int) -> tuple[Ints, NDArray[np.float64]]:
        """The `count` likeliest next tokens of (n) rows, best first, and their log-probabilities: twice (n, count)."""
        found, scores = np.empty((len(rows), count), np.int32), np.empty((len(rows), count), np.float64)
        state = cache.tokens, cache.positions, cache.paths, cache.memories, cache.lengths
        _step(self._weights, cache.scratch, rows, state, cache.own.numpy(), cache.memory.numpy(), found, scores)
        return found, scores


@kernel
def _encode(w: _Weights, b: _Buffers, tokens: Ints, positions: Ints, starts: Ints, rows: Ints, memory: Halves) -> None:
    """Encodes (n) tokens of sources, of which source i is from starts[i] to starts[i + 1]; keeps in its row of the
    memory (layers, r, s, 2, d) what decoders will look at."""
    n = tokens.size
    kernels.embed(tokens, positions, w.source_embeddings, w.sinusoids, b.x[:n], b.xq, b.x_scales)
    for layer in range(w.encoder.shape[0]):
        place = w.encoder[layer]
        sums, table = _product(w, b, place[QKV], b.xq, n)
        kernels.attend_source(sums, b.x_scales, table, starts, w.heads[0], b.x.shape[1], b.yq, b.y_scales)
        _add_norm(w, b, place[OUT], b.yq, b.y_scales, n)
        _feed_forward(w, b, place, n)
    for layer in range(w.decoder.shape[0]):
        sums, table = _product(w, b, w.decoder[layer, CROSS_KV], b.xq, n)
        kernels.remember(sums, b.x_scales, table, starts, rows, memory[layer])


@kernel
def _step(
    w: _Weights,
    b: _Buffers,
    rows: Ints,
    state: Any,
    own: Halves,
    memory: Halves,
    found: Ints,
    scores: NDArray[np.float64],
) -> None:
    """A step of (n) rows: own (layers, r, t, 2, d) gets the keys and values of their last tokens; the likeliest next
    tokens and their log-probabilities go into found and scores (n, count). `state` is what the cache holds of rows."""
    tokens, positions, paths, memories, lengths = state
    n = rows.size
    kernels.embed(tokens[rows], positions[rows], w.target_embeddings, w.sinusoids, b.x[:n], b.xq, b.x_scales)
    for layer in range(w.decoder.shape[0]):
        place = w.decoder[layer]
        sums, table = _product(w, b, place[QKV], b.xq, n)
        kernels.attend_own(sums, b.x_scales, table, own[layer], rows, positions, paths, w.heads[1], b.yq, b.y_scales)
        _add_norm(w, b, place[OUT], b.yq, b.y_scales, n)
        sums, table = _product(w, b, place[CROSS_Q], b.xq, n)
        kernels.attend_memory(
            sums, b.x_scales, table, memory[layer], rows, memories, lengths, w.heads[1], b.yq, b.y_scales
        )
        _add_norm(w, b, place[CROSS_OUT], b.yq, b.y_scales, n)
        _feed_forward(w, b, place, n)
    tops, totals = np.full(n, kernels.LOWEST, np.float32), np.zeros(n, np.float32)
    found[:], scores[:] = 0, kernels.LOWEST
    inputs, outputs = w.projection[_INPUTS], w.projection[_OUTPUTS]
    weights, table = w.packed[w.projection[_WEIGHTS] :], _table(w, w.projection)
    for first in range(0, outputs, _COLUMNS):
        columns = min(_COLUMNS, outputs - first)
        sums = b.sums[: n * columns].reshape(n, columns)
        gemm.product(b.xq, inputs, weights[gemm.packed_size(first, inputs) :], sums, n, w.tiles)
        end = min(first + columns, w.vocabulary)
        scales, biases = table[0, first:end], table[1, first:end]
        kernels.rank(sums, b.x_scales, scales, biases, first, w.banned, found, scores, tops, totals)
    for i in range(n):
        scores[i] -= tops[i] + math.log(totals[i])


@inline
def _product(w: _Weights, b: _Buffers, place: Places, x: Bytes, n: int) -> Any:
    """(n, in) -> its sums (n, out), and the table that says what they mean."""
    sums = b.sums[: n * place[_OUTPUTS]].reshape(n, place[_OUTPUTS])
    gemm.product(x, place[_INPUTS], w.packed[place[_WEIGHTS] :], sums, n, w.tiles)
    return sums, _table(w, place)


@inline
def _table(w: _Weights, place: Places) -> Floats:
    begin, outputs = place[_TABLE], place[_OUTPUTS]
    return w.tables[begin : begin + _ROWS_OF_TABLE * outputs].reshape(_ROWS_OF_TABLE, outputs)


@inline
def _add_norm(w: _Weights, b: _Buffers, place: Places, given: Bytes, scales: Floats, n: int) -> None:
    sums, table = _product(w, b, place, given, n)
    kernels.add_norm(sums, scales, table, _EPSILON, b.x[:n], b.xq, b.x_scales)


@inline
def _feed_forward(w: _Weights, b: _Buffers, place: Places, n: int) -> None:
    sums, table = _product(w, b, place[UP], b.xq, n)
    kernels.activate(sums, b.x_scales, table, w.activation, b.zq, b.z_scales)
    _add_norm(w, b, place[DOWN], b.zq, b.z_scales, n)


class _Packer:
    """Lays products one behind the other, in the order in which they are read."""

    def __init__(self) -> None:
        self._packed: list[Bytes] = []
        self._tables: list[Floats] = []

    def add(self, linear: nn.Linear, *more: Tensor, queries: int = 0, heads: int = 1) -> Place:
        """Its place. The first `queries` outputs are made smaller by the square root of a head's width (Vaswani et al.
        2017); `more` are further rows of the table."""
        weights = linear.weight.float().numpy()
        outputs, inputs = (_multiple(size, gemm.OUTPUTS) for size in weights.shape)
        table = np.zeros((_ROWS_OF_TABLE, outputs), np.float32)
        scales, *others = table[:, : len(weights)]
        scales[:] = np.maximum(np.abs(weights).max(axis=1), 1e-30) / 127
        bytes_ = np.zeros((outputs, inputs), np.int8)
        bytes_[: weights.shape[0], : weights.shape[1]] = np.rint(weights / scales[:, None])
        given = [] if linear.bias is None else [linear.bias]
        for row, values in zip(others, [*given, *more], strict=False):
            row[:] = values.float().numpy()
        table[:2, :queries] *= max(1, queries // heads) ** -0.5
        place = sum(each.size for each in self._packed), sum(each.size for each in self._tables), inputs, outputs
        self._packed.append(gemm.pack(bytes_))
        self._tables.append(table.reshape(-1))
        return place

    def packed(self) -> Bytes:
        """In pages of 2 MiB where the system has some: one entry of the processor's table of pages for each."""
        size = sum(each.size for each in self._packed)
        memory = mmap.mmap(-1, _multiple(size, _HUGE_PAGE) + _HUGE_PAGE)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)
        whole = np.frombuffer(memory, np.int8)
        begin = -whole.ctypes.data % _HUGE_PAGE
        return np.concatenate(self._packed, out=whole[begin : begin + size])

    def tables(self) -> Floats:
        return np.concatenate(self._tables)


def _pack(marian: Marian) -> _Weights:
    config, packer = marian.config, _Packer()
    d = config.d_model

    def attention(layer: EncoderLayer | DecoderLayer, heads: int) -> list[Place]:
        norm = layer.attention_norm
        return [
            packer.add(layer.attention.qkv, queries=d, heads=heads),
            packer.add(layer.attention.out, norm.weight, norm.bias),
        ]

    def cross_attention(layer: DecoderLayer) -> list[Place]:
        norm = layer.cross_norm
        return [
            packer.add(layer.cross.q, queries=d, heads=config.decoder_attention_heads),
            packer.add(layer.cross.out, norm.weight, norm.bias),
        ]

    def feed_forward(layer: EncoderLayer | DecoderLayer) -> list[Place]:
        norm = layer.feed_forward_norm
        return [packer.add(layer.feed_forward.up), packer.add(layer.feed_forward.down, norm.weight, norm.bias)]

    encoders = cast("list[EncoderLayer]", list(marian.encoder))
    decoders = cast("list[DecoderLayer]", list(marian.decoder))
    encoder = [[*attention(each, config.encoder_attention_heads), *feed_forward(each)] for each in encoders]
    memories = [packer.add(each.cross.kv) for each in decoders]
    decoder = []
    for each, memory in zip(decoders, memories, strict=True):
        own, cross = attention(each, config.decoder_attention_heads), cross_attention(each)
        decoder.append([*own, *feed_forward(each), *cross, memory])
    projection = nn.Linear(d, config.decoder_vocab_size, device="meta")
    projection.weight, projection.bias = (
        marian.projection.weight,
        nn.Parameter(marian.final_logits_bias[0].float(), requires_grad=False),
    )
    source, target = (
        (embedding.weight.float() * marian.scale).numpy()
        for embedding in (marian.source_embedding, marian.target_embedding)
    )
    return _Weights(
        encoder=np.array(encoder, np.int64),
        decoder=np.array(decoder, np.int64),
        projection=np.array(packer.add(projection), np.int64),
        packed=packer.packed(),
        tables=packer.tables(),
        source_embeddings=source,
        target_embeddings=source if marian.target_embedding is marian.source_embedding else target,
        sinusoids=marian.positions.float().numpy(),
        banned=np.array(config.bad_token_ids, np.int32),
        vocabulary=config.decoder_vocab_size,
        heads=(config.encoder_attention_heads, config.decoder_attention_heads),
        activation=kernels.ACTIVATIONS[config.activation_function],
        tiles=gemm.tiles_allowed(),
    )


def _multiple(size: int, of: int) -> int:
    return -(-size // of) * of
