"""Marian in int8, for CPUs: the products of models.marian by oneDNN, what lies between them by models.kernels.

Weights have a scale per output, activations one per row, found anew at every product (dynamic quantization; Dettmers et
al. 2022, https://arxiv.org/abs/2208.07339, section 2). Sources lie one behind the other: no padding is computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models import kernels
from models.cache import Cache, Ints
from models.errors import UnknownModel
from models.gemm import Packed, multiply
from models.marian import NORM_EPSILON, DecoderLayer, EncoderLayer, Marian

_SOURCE_TOKENS = 512  # encoded at once, which bounds the buffers; one source may have more
_VOCABULARY_ROWS = 64  # whose logits are computed at once, so that they stay in the processor's cache
# Rows of bytes that lie a multiple of this apart would share a few sets of the processor's cache.
_ALIASED, _GAP = 512, 64
_EPSILON = np.float32(NORM_EPSILON)


class Product:
    """x @ weights, where both are int8. `table`: of each output its scale and bias, and those of `more`."""

    def __init__(self, linear: nn.Linear, *more: Tensor, queries: int = 0, heads: int = 1) -> None:
        """The first `queries` outputs are made smaller by the square root of a head's width (Vaswani et al. 2017)."""
        weights = linear.weight.float()  # (out, in)
        outputs, inputs = weights.shape
        scales = weights.abs().amax(dim=1).clamp(min=1e-30) / 127
        bias = torch.zeros(outputs) if linear.bias is None else linear.bias.float().clone()
        rounded = (weights / scales[:, None]).round().to(torch.int8)
        code = multiply() if inputs % 4 == 0 else None
        self._packed = Packed(rounded.numpy(), code) if code else None
        self._weights = _unaliased(rounded).t()
        self.outputs = (
            self._packed.outputs if self._packed else outputs
        )  # the width of the sums; the last may mean nothing
        if queries:
            factor = (queries // heads) ** -0.5
            scales[:queries] *= factor
            bias[:queries] *= factor
        self.table = torch.stack([scales, bias, *(each.float() for each in more)]).numpy()

    def __call__(self, x: Tensor, sums: Tensor) -> NDArray[np.int32]:
        """(n, in) bytes -> (n, outputs) sums, in the buffer."""
        n = x.shape[0]
        out = sums[: n * self.outputs].view(n, self.outputs)
        if self._packed:
            self._packed(n, x.data_ptr(), x.stride(0), out.data_ptr())
        else:
            torch._int_mm(x, self._weights, out=out)
        return out.numpy()


def _unaliased(weights: Tensor) -> Tensor:
    """With a gap between rows, where these would share a few sets of the processor's cache."""
    outputs, inputs = weights.shape
    apart = weights.new_zeros((outputs, inputs + _GAP * (inputs % _ALIASED == 0)))[:, :inputs]
    return apart.copy_(weights)


class _Encoder:
    def __init__(self, layer: EncoderLayer) -> None:
        d, heads = layer.attention.qkv.in_features, layer.attention.heads
        self.qkv = Product(layer.attention.qkv, queries=d, heads=heads)
        self.out = Product(layer.attention.out, layer.attention_norm.weight, layer.attention_norm.bias)
        self.up = Product(layer.feed_forward.up)
        self.down = Product(layer.feed_forward.down, layer.feed_forward_norm.weight, layer.feed_forward_norm.bias)


class _Decoder:
    def __init__(self, layer: DecoderLayer) -> None:
        d, heads = layer.attention.qkv.in_features, layer.attention.heads
        self.qkv = Product(layer.attention.qkv, queries=d, heads=heads)
        self.out = Product(layer.attention.out, layer.attention_norm.weight, layer.attention_norm.bias)
        self.cross_q = Product(layer.cross.q, queries=d, heads=heads)
        self.cross_kv = Product(layer.cross.kv)
        self.cross_out = Product(layer.cross.out, layer.cross_norm.weight, layer.cross_norm.bias)
        self.up = Product(layer.feed_forward.up)
        self.down = Product(layer.feed_forward.down, layer.feed_forward_norm.weight, layer.feed_forward_norm.bias)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Buffers of n rows, each as what the products (bytes) and what the kernels (NumPy) take.

    x, its bytes and its scales (n, d); y, what attention mixed (n, d); z, inside the feed-forward layer (n, inner).
    """

    x: NDArray[np.float32]
    x_bytes: Tensor
    xq: NDArray[np.int8]
    x_scales: NDArray[np.float32]
    y_bytes: Tensor
    yq: NDArray[np.int8]
    y_scales: NDArray[np.float32]
    z_bytes: Tensor
    zq: NDArray[np.int8]
    z_scales: NDArray[np.float32]

    @classmethod
    def of(cls, n: int, d: int, inner: int) -> _Rows:
        x, y, z = (torch.empty((n, width), dtype=torch.int8) for width in (d, d, inner))
        scales = np.empty((3, n), np.float32)
        floats = np.empty((n, d), np.float32)
        return cls(floats, x, x.numpy(), scales[0], y, y.numpy(), scales[1], z, z.numpy(), scales[2])

    def first(self, n: int) -> _Rows:
        return _Rows(*(getattr(self, name)[:n] for name in self.__slots__))


class Int8Marian:
    """Has the interface of Marian that decoding uses; computes on the CPU, in one thread."""

    precision = "int8"
    device = torch.device("cpu")

    def __init__(self, marian: Marian) -> None:
        """Of the model in floats only the embeddings are kept. Raises UnknownModel for weights of nan or infinity."""
        config = self.config = marian.config
        self.parameter_count = marian.parameter_count
        if not all(bool(each.isfinite().all()) for each in marian.state_dict().values()):
            raise UnknownModel("The model's weights hold nan or infinity, which int8 cannot.")
        self._source_embeddings = (marian.source_embedding.weight.float() * marian.scale).numpy()
        self._target_embeddings = (
            self._source_embeddings
            if marian.target_embedding is marian.source_embedding
            else (marian.target_embedding.weight.float() * marian.scale).numpy()
        )
        self._sinusoids = marian.positions.float().numpy()
        self._encoder = [_Encoder(layer) for layer in cast("Iterable[EncoderLayer]", marian.encoder)]
        self._decoder = [_Decoder(layer) for layer in cast("Iterable[DecoderLayer]", marian.decoder)]
        self._projection = Product(marian.projection)
        self._projection.table[1] += marian.final_logits_bias[0].float().numpy()
        self._banned = np.array(config.bad_token_ids, np.int32)
        self._activation = kernels.ACTIVATIONS[config.activation_function]

    def cache(self, rows: int) -> Cache:
        """Room for so many hypotheses at once."""
        config = self.config
        cache = Cache(rows, config.decoder_layers, config.d_model, torch.uint16, self.device)
        most = max(rows, _SOURCE_TOKENS, config.max_position_embeddings)
        layers = (*self._encoder, *self._decoder)
        widest = max(product.outputs for layer in layers for product in vars(layer).values())
        size = max(most * widest, _VOCABULARY_ROWS * self._projection.outputs)
        cache.scratch["sums"] = torch.empty(size, dtype=torch.int32)
        cache.scratch["encoder"] = _Rows.of(most, config.d_model, config.encoder_ffn_dim)
        cache.scratch["decoder"] = _Rows.of(rows, config.d_model, config.decoder_ffn_dim)
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
        heads, sums = self.config.encoder_attention_heads, cache.scratch["sums"]
        starts = np.fromiter(accumulate(map(len, sources), initial=0), np.int32)
        tokens = np.fromiter((token for source in sources for token in source), np.int32)
        positions = np.concatenate([np.arange(len(source), dtype=np.int32) for source in sources])
        b: _Rows = cache.scratch["encoder"].first(len(tokens))
        kernels.embed(tokens, positions, self._source_embeddings, self._sinusoids, b.x, b.xq, b.x_scales)
        for layer in self._encoder:
            qkv = layer.qkv(b.x_bytes, sums)
            kernels.attend_source(qkv, b.x_scales, layer.qkv.table, starts, heads, b.yq, b.y_scales)
            self._add_norm(layer.out, b, b.y_bytes, b.y_scales, sums)
            self._feed_forward(layer, b, sums)
        places = np.fromiter(rows, np.int32)
        for decoder, memory in zip(self._decoder, cache.memory, strict=True):
            kv = decoder.cross_kv(b.x_bytes, sums)
            kernels.remember(kv, b.x_scales, decoder.cross_kv.table, starts, places, memory.numpy())

    def step(self, cache: Cache, rows: Ints, count: int) -> tuple[Ints, NDArray[np.float64]]:
        """The `count` likeliest next tokens of (n) rows, best first, and their log-probabilities: twice (n, count)."""
        heads, sums = self.config.decoder_attention_heads, cache.scratch["sums"]
        n = len(rows)
        b: _Rows = cache.kept(n, lambda: cache.scratch["decoder"].first(n))
        tokens, positions = cache.tokens[rows], cache.positions[rows]
        kernels.embed(tokens, positions, self._target_embeddings, self._sinusoids, b.x, b.xq, b.x_scales)
        for layer, own, memory in zip(self._decoder, cache.own, cache.memory, strict=True):
            kernels.attend_own(
                layer.qkv(b.x_bytes, sums),
                b.x_scales,
                layer.qkv.table,
                own.numpy(),
                rows,
                cache.positions,
                cache.paths,
                heads,
                b.yq,
                b.y_scales,
            )
            self._add_norm(layer.out, b, b.y_bytes, b.y_scales, sums)
            kernels.attend_memory(
                layer.cross_q(b.x_bytes, sums),
                b.x_scales,
                layer.cross_q.table,
                memory.numpy(),
                rows,
                cache.memories,
                cache.lengths,
                heads,
                b.yq,
                b.y_scales,
            )
            self._add_norm(layer.cross_out, b, b.y_bytes, b.y_scales, sums)
            self._feed_forward(layer, b, sums)
        found, scores = np.empty((n, count), np.int32), np.empty((n, count), np.float64)
        for i in range(0, n, _VOCABULARY_ROWS):
            some = slice(i, i + _VOCABULARY_ROWS)
            logits = self._projection(b.x_bytes[some], sums)
            kernels.best(logits, b.x_scales[some], self._projection.table, self._banned, found[some], scores[some])
        return found, scores

    def _feed_forward(self, layer: _Encoder | _Decoder, b: _Rows, sums: Tensor) -> None:
        kernels.activate(layer.up(b.x_bytes, sums), b.x_scales, layer.up.table, self._activation, b.zq, b.z_scales)
        self._add_norm(layer.down, b, b.z_bytes, b.z_scales, sums)

    def _add_norm(self, product: Product, b: _Rows, given: Tensor, scales: Any, sums: Tensor) -> None:
        kernels.add_norm(product(given, sums), scales, product.table, _EPSILON, b.x, b.xq, b.x_scales)
