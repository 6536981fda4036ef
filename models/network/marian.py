"""The Marian Transformer, read from Hugging Face's MarianMT directories.

An encoder and a decoder with layer norm after each residual sum, sinusoidal positions, and scaled embeddings
(Vaswani et al. 2017, https://arxiv.org/abs/1706.03762; Junczys-Dowmunt et al. 2018, https://arxiv.org/abs/1804.00344;
`transformers.models.marian`). Decoding comes in two parts: `prefill` encodes the sources once, `step` adds one token to
every hypothesis. Both compute a few shapes only, whatever the sentences: sizes are rounded up, and padding
is masked.

In the shapes: n sentences or hypotheses, s source tokens, t target tokens so far, d the model's width, h heads,
v target vocabulary; r as in models.network.cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.checkpoint.files import weights_path
from models.checkpoint.weights import read_weights
from models.errors import UnknownModel
from models.network.cache import Cache, Ints, multiple
from models.network.config import ACTIVATIONS, MarianConfig
from models.network.tensor_names import checkpoint_names, rename

NORM_EPSILON = 1e-5  # of transformers' nn.LayerNorm


class Attention(nn.Module):
    """Multi-head attention to the encoder's output; keys and values are one product."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(d, d)  # encoder_attn.q_proj
        self.kv = nn.Linear(d, 2 * d)  # encoder_attn.k_proj, .v_proj
        self.out = nn.Linear(d, d)  # encoder_attn.out_proj

    def step(self, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """(n, d), where each looks at its own of the memory (n, s, 2, d) -> (n, d)"""
        mixed: Tensor = self.out(attend(self.q(x), memory, mask, self.heads))
        return mixed


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence to itself; queries, keys and values are one product."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(d, 3 * d)  # self_attn.q_proj, .k_proj, .v_proj
        self.out = nn.Linear(d, d)  # self_attn.out_proj

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """All at once, for the encoder: (n, s, d), mask (n, 1, 1, s) -> (n, s, d)"""
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        mixed: Tensor = self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))
        return mixed

    def step(self, x: Tensor, own: Tensor, places: Places) -> Tensor:
        """One token more, for the decoder: (n, d) -> (n, d); its keys and values go into `own` (r, t, 2, d)."""
        q, kv = self.qkv(x).tensor_split((x.shape[-1],), dim=-1)
        own[places.rows, places.positions] = kv.unflatten(-1, (2, -1))
        mixed: Tensor = self.out(attend(q, own[places.paths, places.so_far], places.own_mask, self.heads))
        return mixed


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(n, t, d) -> (n, h, t, d/h)"""
    return x.view(*x.shape[:-1], heads, -1).transpose(1, 2)


def attend(q: Tensor, kv: Tensor, mask: Tensor, heads: int) -> Tensor:
    """Of one query (n, d) to its keys and values (n, t, 2, d), where the mask (n, 1, 1, t) says so -> (n, d)"""
    k, v = (split_heads(part, heads) for part in kv.unbind(2))
    mixed: Tensor = F.scaled_dot_product_attention(split_heads(q[:, None], heads), k, v, attn_mask=mask)
    return mixed.flatten(1)


@dataclass(frozen=True, slots=True)
class Places:
    """Where the (n) hypotheses of a step find theirs in the cache, of t target and s source positions.

    `tokens`, `rows`, `positions`, `memories` (n), `paths` (n, t), `so_far` (t); `own_mask` (n, 1, 1, t) and
    `memory_mask` (n, 1, 1, s): which positions are there.
    """

    tokens: Tensor
    rows: Tensor
    positions: Tensor
    memories: Tensor
    paths: Tensor
    so_far: Tensor
    own_mask: Tensor
    memory_mask: Tensor

    @classmethod
    def of(cls, cache: Cache, rows: Ints, device: torch.device) -> Places:
        """All of it is one copy to the device, of a shape that comes again and again: the last row fills up."""
        rows = np.pad(rows, (0, rounded(len(rows)) - len(rows)), mode="edge")
        positions, lengths = cache.positions[rows], cache.lengths[rows]
        t, s = rounded(int(positions.max()) + 1), rounded(int(lengths.max()))
        columns = [cache.tokens[rows], rows, positions, cache.memories[rows], lengths, *cache.paths[rows, :t].T]
        sent = send(torch.from_numpy(np.stack(columns)), device)
        so_far, sources = torch.arange(t, device=device), torch.arange(s, device=device)
        return cls(
            tokens=sent[0],
            rows=sent[1],
            positions=sent[2],
            memories=sent[3],
            paths=sent[5:].T,
            so_far=so_far,
            own_mask=(so_far <= sent[2][:, None])[:, None, None, :],
            memory_mask=(sources < sent[4][:, None])[:, None, None, :],
        )


def rounded(size: int) -> int:
    """The next of 1, 2, 4, 8, 16, 24, 32, 40, …"""
    return 1 << (size - 1).bit_length() if size <= 8 else multiple(size, 8)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """To the device, without waiting until it is there."""
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


class FeedForward(nn.Module):
    def __init__(self, d: int, inner: int, activation: str) -> None:
        super().__init__()
        self.up = nn.Linear(d, inner)  # fc1
        self.down = nn.Linear(inner, d)  # fc2
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(self.activation(self.up(x)))
        return y


class EncoderLayer(nn.Module):
    def __init__(self, config: MarianConfig) -> None:
        super().__init__()
        d = config.d_model
        self.attention = SelfAttention(d, config.encoder_attention_heads)
        self.attention_norm = nn.LayerNorm(d, NORM_EPSILON)  # self_attn_layer_norm
        self.feed_forward = FeedForward(d, config.encoder_ffn_dim, config.activation_function)
        self.feed_forward_norm = nn.LayerNorm(d, NORM_EPSILON)  # final_layer_norm

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.attention_norm(x + self.attention(x, mask))
        y: Tensor = self.feed_forward_norm(x + self.feed_forward(x))
        return y


class DecoderLayer(nn.Module):
    def __init__(self, config: MarianConfig) -> None:
        super().__init__()
        d = config.d_model
        self.attention = SelfAttention(d, config.decoder_attention_heads)
        self.attention_norm = nn.LayerNorm(d, NORM_EPSILON)  # self_attn_layer_norm
        self.cross = Attention(d, config.decoder_attention_heads)
        self.cross_norm = nn.LayerNorm(d, NORM_EPSILON)  # encoder_attn_layer_norm
        self.feed_forward = FeedForward(d, config.decoder_ffn_dim, config.activation_function)
        self.feed_forward_norm = nn.LayerNorm(d, NORM_EPSILON)  # final_layer_norm

    def step(self, x: Tensor, own: Tensor, memory: Tensor, places: Places) -> Tensor:
        """(n, d) -> (n, d); `own` (r, t, 2, d) gets the new keys and values, `memory` is (r, s, 2, d)"""
        x = self.attention_norm(x + self.attention.step(x, own, places))
        looked_at = memory[places.memories, : places.memory_mask.shape[-1]]
        x = self.cross_norm(x + self.cross.step(x, looked_at, places.memory_mask))
        y: Tensor = self.feed_forward_norm(x + self.feed_forward(x))
        return y


class Marian(nn.Module):
    """The model. `load` makes it; `prefill` and `step` run it, under torch.inference_mode()."""

    positions: Tensor
    final_logits_bias: Tensor

    def __init__(self, config: MarianConfig) -> None:
        super().__init__()
        self.config = config
        d = config.d_model
        self.scale = math.sqrt(d) if config.scale_embedding else 1.0
        self.source_embedding = nn.Embedding(config.vocab_size, d)  # model.encoder.embed_tokens, or model.shared
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.target_embedding = (  # model.decoder.embed_tokens, or model.shared
            self.source_embedding
            if config.share_encoder_decoder_embeddings and config.tie_word_embeddings
            else nn.Embedding(config.decoder_vocab_size, d)
        )
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.projection = nn.Linear(d, config.decoder_vocab_size, bias=False)  # lm_head
        if config.tie_word_embeddings:
            self.projection.weight = self.target_embedding.weight
        self.register_buffer("final_logits_bias", torch.zeros(1, config.decoder_vocab_size))
        self.register_buffer("positions", sinusoids(config.max_position_embeddings, d), persistent=False)

    @classmethod
    def load(cls, directory: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Marian:
        """The model of a MarianMT directory, in `dtype` on `device`, ready for inference.

        Raises UnknownModel, which names the file or the tensor, for a directory that lacks something, holds something
        unknown or of another shape, or is of another architecture.
        """
        config = MarianConfig.load(directory)
        with torch.device("meta"):
            model = cls(config)
        path = weights_path(directory)
        shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        model.load_state_dict(rename(read_weights(path), shapes, config, path), assign=True)
        model.positions = sinusoids(config.max_position_embeddings, config.d_model)
        if config.tie_word_embeddings:
            model.projection.weight = model.target_embedding.weight
        model.eval().requires_grad_(False).to(device=device, dtype=dtype)
        for name, tensor in model.state_dict().items():
            if not tensor.isfinite().all():
                theirs = ", ".join(checkpoint_names(name, config, {}))
                raise UnknownModel(f"{path}: {theirs} holds nan, infinity, or more than {model.precision} can.")
        return model

    @property
    def device(self) -> torch.device:
        return self.final_logits_bias.device

    @property
    def precision(self) -> str:
        return str(self.final_logits_bias.dtype).removeprefix("torch.")

    @property
    def parameter_count(self) -> int:
        return sum(weights.numel() for weights in self.parameters())

    def cache(self, rows: int) -> Cache:
        """Room for so many hypotheses at once."""
        return Cache(rows, len(self.decoder), self.config.d_model, self.final_logits_bias.dtype, self.device)

    def prefill(self, cache: Cache, rows: Sequence[int], sources: Sequence[Sequence[int]]) -> None:
        """Encodes the sources, token ids with the end, and keeps in these rows what every step will look at."""
        by_length = sorted(range(len(sources)), key=lambda i: len(sources[i]))
        for _, alike in groupby(by_length, key=lambda i: rounded(len(sources[i]))):  # so that little is padding
            some = list(alike)
            self._encode(cache, [rows[i] for i in some], [sources[i] for i in some])

    def _encode(self, cache: Cache, rows: Sequence[int], sources: Sequence[Sequence[int]]) -> None:
        fill = rounded(len(sources)) - len(sources)  # with the last source once more
        rows, sources = [*rows, *[rows[-1]] * fill], [*sources, *[sources[-1]] * fill]
        longest = min(rounded(max(map(len, sources))), self.config.max_position_embeddings)
        padded = torch.tensor([[*source, *[self.config.pad_token_id] * (longest - len(source))] for source in sources])
        lengths = torch.tensor([len(source) for source in sources])
        mask = send((torch.arange(longest) < lengths[:, None])[:, None, None, :], self.device)  # (n, 1, 1, s)
        x = self.source_embedding(send(padded, self.device)) * self.scale + self.positions[:longest]  # (n, s, d)
        for layer in self.encoder:
            x = layer(x, mask)
        places = send(torch.tensor(rows), self.device)
        for layer, memory in zip(cast("Iterable[DecoderLayer]", self.decoder), cache.memory, strict=True):
            memory[places, :longest] = layer.cross.kv(x).unflatten(-1, (2, -1))

    def step(self, cache: Cache, rows: Ints, count: int) -> tuple[Ints, NDArray[np.float64]]:
        """The `count` likeliest next tokens of (n) rows, best first, and their log-probabilities: twice (n, count).

        Tokens that the model must not say are left out; log-probabilities are those before.
        """
        places = Places.of(cache, rows, self.device)
        scores = self.logits(cache, places).log_softmax(-1)
        scores[:, list(self.config.bad_token_ids)] = -torch.inf
        best = scores.topk(count)
        n = len(rows)  # without what fills up
        return best.indices[:n].int().cpu().numpy(), best.values[:n].double().cpu().numpy()

    def logits(self, cache: Cache, places: Places) -> Tensor:
        """Of the next token of every hypothesis: (n, v), in float32 where the model computes in less."""
        x = self.target_embedding(places.tokens) * self.scale + self.positions[places.positions]  # (n, d)
        layers = cast("Iterable[DecoderLayer]", self.decoder)
        for layer, own, memory in zip(layers, cache.own, cache.memory, strict=True):
            x = layer.step(x, own, memory, places)
        logits: Tensor = self.projection(x) + self.final_logits_bias
        return logits.float() if logits.dtype.itemsize < 4 else logits


def sinusoids(positions: int, d: int) -> Tensor:
    """(positions, d): sines in the first half, cosines in the second, not interleaved; computed in float64."""
    wavelength = 10_000.0 ** (torch.arange(0, d, 2, dtype=torch.float64) / d)
    angle = torch.arange(positions, dtype=torch.float64)[:, None] / wavelength
    return torch.cat((angle.sin(), angle.cos()), dim=1)[:, :d].float()
