"""The layers of a Marian Transformer, and the inputs of a step.

Shapes: n sentences or hypotheses, s source tokens, t target tokens so far, d the model's width, h heads; r as in
models.network.cache.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.network.cache import Cache, Ints, multiple
from models.network.config import ACTIVATIONS, MarianConfig

NORM_EPSILON = 1e-5  # the default of nn.LayerNorm, which transformers uses


class Attention(nn.Module):
    """Multi-head attention to the encoder's output. One product computes keys and values."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(d, d)  # encoder_attn.q_proj
        self.kv = nn.Linear(d, 2 * d)  # encoder_attn.k_proj, .v_proj
        self.out = nn.Linear(d, d)  # encoder_attn.out_proj

    def step(self, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """x (n, d), each with its own keys and values in memory (n, s, 2, d), mask (n, 1, 1, s) -> (n, d)"""
        mixed: Tensor = self.out(attend(self.q(x), memory, mask, self.heads))
        return mixed


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence to itself. One product computes queries, keys and values."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(d, 3 * d)  # self_attn.q_proj, .k_proj, .v_proj
        self.out = nn.Linear(d, d)  # self_attn.out_proj

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """All positions at once, for the encoder: (n, s, d), mask (n, 1, 1, s) -> (n, s, d)"""
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        mixed: Tensor = self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))
        return mixed

    def step(self, x: Tensor, own: Tensor, inputs: StepInputs) -> Tensor:
        """One more token, for the decoder: (n, d) -> (n, d). Writes its keys and values into `own` (r, t, 2, d)."""
        q, kv = self.qkv(x).tensor_split((x.shape[-1],), dim=-1)
        own[inputs.rows, inputs.positions] = kv.unflatten(-1, (2, -1))
        mixed: Tensor = self.out(attend(q, own[inputs.paths, inputs.so_far], inputs.own_mask, self.heads))
        return mixed


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(n, t, d) -> (n, h, t, d/h)"""
    return x.view(*x.shape[:-1], heads, -1).transpose(1, 2)


def attend(q: Tensor, kv: Tensor, mask: Tensor, heads: int) -> Tensor:
    """Attention of queries (n, d) to keys and values (n, t, 2, d) where the mask (n, 1, 1, t) is true -> (n, d)"""
    k, v = (split_heads(part, heads) for part in kv.unbind(2))
    mixed: Tensor = F.scaled_dot_product_attention(split_heads(q[:, None], heads), k, v, attn_mask=mask)
    return mixed.flatten(1)


@dataclass(frozen=True, slots=True)
class StepInputs:
    """The inputs of a step of (n) hypotheses, with up to t target and s source positions, on the model's device.

    `tokens`, `positions`, `memories` (n) and `paths` (n, t) are those of models.network.cache.Cache for `rows` (n).
    `so_far` (t) is 0, 1, …, t - 1. `own_mask` (n, 1, 1, t) and `memory_mask` (n, 1, 1, s) are true for positions that
    exist.
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
    def of(cls, cache: Cache, rows: Ints, device: torch.device) -> StepInputs:
        """Copies all inputs to the device at once. Sizes are rounded up, so that few shapes occur; the last row is
        repeated as padding."""
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
    """`size` rounded up to one of 1, 2, 4, 8, 16, 24, 32, 40, …"""
    return 1 << (size - 1).bit_length() if size <= 8 else multiple(size, 8)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Begins to copy a tensor to the device, without waiting for the copy to complete."""
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


class FeedForward(nn.Module):
    """Two linear layers with an activation function between them: (…, d) -> (…, d)"""

    def __init__(self, d: int, inner: int, activation: str) -> None:
        super().__init__()
        self.up = nn.Linear(d, inner)  # fc1
        self.down = nn.Linear(inner, d)  # fc2
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(self.activation(self.up(x)))
        return y


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward layer, each with a layer norm after its residual sum."""

    def __init__(self, config: MarianConfig) -> None:
        super().__init__()
        d = config.d_model
        self.attention = SelfAttention(d, config.encoder_attention_heads)
        self.attention_norm = nn.LayerNorm(d, NORM_EPSILON)  # self_attn_layer_norm
        self.feed_forward = FeedForward(d, config.encoder_ffn_dim, config.activation_function)
        self.feed_forward_norm = nn.LayerNorm(d, NORM_EPSILON)  # final_layer_norm

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(n, s, d), mask (n, 1, 1, s) -> (n, s, d)"""
        x = self.attention_norm(x + self.attention(x, mask))
        y: Tensor = self.feed_forward_norm(x + self.feed_forward(x))
        return y


class DecoderLayer(nn.Module):
    """Self-attention, attention to the encoder's output and a feed-forward layer, each with a layer norm after its
    residual sum."""

    def __init__(self, config: MarianConfig) -> None:
        super().__init__()
        d = config.d_model
        self.attention = SelfAttention(d, config.decoder_attention_heads)
        self.attention_norm = nn.LayerNorm(d, NORM_EPSILON)  # self_attn_layer_norm
        self.cross = Attention(d, config.decoder_attention_heads)
        self.cross_norm = nn.LayerNorm(d, NORM_EPSILON)  # encoder_attn_layer_norm
        self.feed_forward = FeedForward(d, config.decoder_ffn_dim, config.activation_function)
        self.feed_forward_norm = nn.LayerNorm(d, NORM_EPSILON)  # final_layer_norm

    def step(self, x: Tensor, own: Tensor, memory: Tensor, inputs: StepInputs) -> Tensor:
        """(n, d), memory (r, s, 2, d) -> (n, d). Writes the new keys and values into `own` (r, t, 2, d)."""
        x = self.attention_norm(x + self.attention.step(x, own, inputs))
        looked_at = memory[inputs.memories, : inputs.memory_mask.shape[-1]]
        x = self.cross_norm(x + self.cross.step(x, looked_at, inputs.memory_mask))
        y: Tensor = self.feed_forward_norm(x + self.feed_forward(x))
        return y
