"""Quantizes the weights of a Marian model to int8, in the order in which a step reads them."""

from __future__ import annotations

import mmap
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from models.compiled import gemm
from models.compiled.kernels import ACTIVATION_CODES
from models.compiled.rows import Bytes, Floats
from models.network.cache import Ints, multiple
from models.network.layers import DecoderLayer, EncoderLayer
from models.network.marian import Marian

Location = tuple[int, int, int, int]
Locations = NDArray[np.int64]

# The fields of a product's location: where its packed weights and its table begin, and its numbers of inputs and
# outputs, rounded up. Tables are those of models.compiled.kernels.
WEIGHTS, TABLE, INPUTS, OUTPUTS = range(4)
ROWS_OF_TABLE = 5
QKV, OUT, UP, DOWN, CROSS_Q, CROSS_OUT, CROSS_KV = range(7)  # products of a layer; encoders have the first four

_HUGE_PAGE = 1 << 21
_AT_ONCE = 512  # rows quantized together; a whole vocabulary at once would take several times the model's memory


class Weights(NamedTuple):
    """All numbers that a model computes with. `encoder`, `decoder` (layers, products) and `projection` are locations of
    products in `packed` and `tables`."""

    packed: Bytes
    tables: Floats
    encoder: Locations
    decoder: Locations
    projection: Locations
    source_embeddings: Floats
    target_embeddings: Floats
    sinusoids: Floats
    banned: Ints
    vocabulary: int
    heads: tuple[int, int]
    activation: int
    tiles: bool


class _Packer:
    """Concatenates the weights of products, in the order in which a step reads them."""

    def __init__(self) -> None:
        self._packed: list[Bytes] = []
        self._tables: list[Floats] = []

    def add(
        self,
        weight: Tensor,
        bias: Tensor | None,
        norm: nn.LayerNorm | None = None,
        *,
        queries: int = 0,
        heads: int = 1,
    ) -> Location:
        """Adds a product; returns its location. `norm`: the layer norm that follows it. The first `queries` outputs are
        divided by the square root of a head's width (Vaswani et al. 2017)."""
        outputs, inputs = (multiple(size, gemm.OUTPUTS) for size in weight.shape)
        n, table = len(weight), np.zeros((ROWS_OF_TABLE, outputs), np.float32)
        scales, biases, of_norm, ones = table[0, :n], table[1, :n], table[2:4, :n], table[4, :n]
        rounded = np.zeros((outputs, inputs), np.int8)
        for i in range(0, n, _AT_ONCE):
            weights, some = weight[i : i + _AT_ONCE].float().numpy(), scales[i : i + _AT_ONCE]
            some[:] = np.maximum(np.abs(weights).max(axis=1), 1e-30) / 127
            rounded[i : i + len(some), : weights.shape[1]] = np.rint(weights / some[:, None])
        with np.errstate(over="ignore"):  # an overflow leaves infinity, which the caller checks for
            ones[:] = scales * rounded[:n].sum(axis=1, dtype=np.int32)
        if bias is not None:
            biases[:] = bias.float().numpy()
        if norm is not None:
            of_norm[:] = norm.weight.float().numpy(), norm.bias.float().numpy()
        table[:2, :queries] *= max(1, queries // heads) ** -0.5
        location = sum(each.size for each in self._packed), sum(each.size for each in self._tables), inputs, outputs
        self._packed.append(gemm.pack(rounded))
        self._tables.append(table.reshape(-1))
        return location

    def packed(self) -> Bytes:
        """The packed weights, in pages of 2 MiB if the system has some, which saves misses in the processor's TLB."""
        size = sum(each.size for each in self._packed)
        memory = mmap.mmap(-1, multiple(size, _HUGE_PAGE) + _HUGE_PAGE)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)
        whole = np.frombuffer(memory, np.int8)
        begin = -whole.ctypes.data % _HUGE_PAGE
        return np.concatenate(self._packed, out=whole[begin : begin + size])

    def tables(self) -> Floats:
        return np.concatenate(self._tables)


def size(marian: Marian) -> int:
    """Bytes of a model's weights once they are quantized. The model may be on the device "meta", without weights."""
    linear = [layer for layer in marian.modules() if isinstance(layer, nn.Linear)]
    shapes = [tuple(multiple(size, gemm.OUTPUTS) for size in layer.weight.shape) for layer in linear]
    packed = sum(outputs * (inputs + 4) for outputs, inputs in shapes)  # gemm.packed_size
    floats = {marian.source_embedding.weight, marian.target_embedding.weight, marian.positions}
    numbers = sum(ROWS_OF_TABLE * outputs for outputs, _ in shapes) + sum(tensor.numel() for tensor in floats)
    return multiple(packed, _HUGE_PAGE) + 4 * numbers


def quantize(marian: Marian) -> Weights:
    """Quantizes a model with finite weights. The result shares only the embeddings with it."""
    config, packer = marian.config, _Packer()
    d = config.d_model

    def attention(layer: EncoderLayer | DecoderLayer, heads: int) -> list[Location]:
        qkv, out = layer.attention.qkv, layer.attention.out
        return [
            packer.add(qkv.weight, qkv.bias, queries=d, heads=heads),
            packer.add(out.weight, out.bias, layer.attention_norm),
        ]

    def cross_attention(layer: DecoderLayer, heads: int) -> list[Location]:
        q, out = layer.cross.q, layer.cross.out
        return [
            packer.add(q.weight, q.bias, queries=d, heads=heads),
            packer.add(out.weight, out.bias, layer.cross_norm),
        ]

    def feed_forward(layer: EncoderLayer | DecoderLayer) -> list[Location]:
        up, down = layer.feed_forward.up, layer.feed_forward.down
        return [packer.add(up.weight, up.bias), packer.add(down.weight, down.bias, layer.feed_forward_norm)]

    encoder = [
        [*attention(layer, config.encoder_attention_heads), *feed_forward(layer)]
        for layer in cast("list[EncoderLayer]", list(marian.encoder))
    ]
    decoders = cast("list[DecoderLayer]", list(marian.decoder))
    memories = [packer.add(layer.cross.kv.weight, layer.cross.kv.bias) for layer in decoders]
    decoder = []
    for layer, memory in zip(decoders, memories, strict=True):
        own = attention(layer, config.decoder_attention_heads)
        cross = cross_attention(layer, config.decoder_attention_heads)
        decoder.append([*own, *feed_forward(layer), *cross, memory])
    projection = packer.add(marian.projection.weight, marian.final_logits_bias[0])
    source = (marian.source_embedding.weight.float() * marian.scale).numpy()
    is_shared = marian.target_embedding is marian.source_embedding
    return Weights(
        packed=packer.packed(),
        tables=packer.tables(),
        encoder=np.array(encoder, np.int64),
        decoder=np.array(decoder, np.int64),
        projection=np.array(projection, np.int64),
        source_embeddings=source,
        target_embeddings=source if is_shared else (marian.target_embedding.weight.float() * marian.scale).numpy(),
        sinusoids=marian.positions.float().numpy(),
        banned=np.array(config.bad_token_ids, np.int32),
        vocabulary=config.decoder_vocab_size,
        heads=(config.encoder_attention_heads, config.decoder_attention_heads),
        activation=ACTIVATION_CODES[config.activation_function],
        tiles=gemm.tiles_allowed(),
    )
