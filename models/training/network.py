"""The network in training: whole sequences forward, and a loss that never holds all logits.

The modules, and so the weights and their names, are models.network.marian's; decoding there takes a token at a time,
training all of them at once. In the shapes: n sentences, s source and t target tokens, d the model's width, v target
vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.network.config import MarianConfig
from models.network.layers import Attention, DecoderLayer, EncoderLayer, SelfAttention, split_heads
from models.network.marian import Marian

LOGITS_AT_ONCE = 1 << 22  # rows × vocabulary; more does not stay in a processor's cache


class Output(NamedTuple):
    """`hidden` (n, t, d) is what logits are made of; `attention` (n, t, s) is the last layer's to the source, the mean
    of its heads, where it was asked for."""

    hidden: Tensor
    attention: Tensor | None


def build(config: MarianConfig) -> Marian:
    """A network of random weights that can be trained: its bias of the logits is a parameter, the row of pad zero."""
    network = Marian(config)
    for name, weights in network.named_parameters():
        if name.endswith("embedding.weight"):
            nn.init.normal_(weights, std=config.d_model**-0.5)
        elif weights.dim() > 1:
            parts = 3 if ".qkv." in name else 2 if ".kv." in name else 1
            for part in weights.chunk(parts):
                nn.init.xavier_uniform_(part)
        elif name.endswith("bias"):
            nn.init.zeros_(weights)
    return trainable(network)


def trainable(network: Marian) -> Marian:
    """The same network, ready to be trained."""
    bias = network.final_logits_bias.float()
    del network.final_logits_bias
    network.final_logits_bias = nn.Parameter(bias)
    network.float().requires_grad_(True)
    pad = network.config.pad_token_id
    with torch.no_grad():
        network.final_logits_bias[:, pad : pad + 1] = 0
        for module in (network.source_embedding, network.target_embedding):
            module.weight[pad : pad + 1] = 0
    return network


def clear_pad_gradients(network: Marian) -> None:
    """`<pad>`, which starts decoding, is zero in Marian's models and stays so."""
    pad = network.config.pad_token_id
    for module in (network.source_embedding, network.target_embedding, network.projection):
        gradient = module.weight.grad
        if gradient is not None and pad < len(gradient):
            gradient[pad] = 0
    if network.final_logits_bias.grad is not None:
        network.final_logits_bias.grad[:, pad : pad + 1] = 0


def forward(
    network: Marian, sources: Tensor, targets: Tensor, *, dropout: float = 0.0, with_attention: bool = False
) -> Output:
    """`sources` (n, s) with the end, `targets` (n, t) with the start, both filled up with pad at the end."""
    config = network.config
    mask = (sources != config.pad_token_id)[:, None, None, :]  # (n, 1, 1, s)
    x = _embed(network.source_embedding, sources, network, dropout)
    for layer in cast("list[EncoderLayer]", list(network.encoder)):
        x = layer.attention_norm(x + F.dropout(_to_itself(layer.attention, x, mask), dropout))
        x = layer.feed_forward_norm(x + F.dropout(layer.feed_forward(x), dropout))
    memory, attention = x, None
    x = _embed(network.target_embedding, targets, network, dropout)
    layers = cast("list[DecoderLayer]", list(network.decoder))
    for upper in layers:
        x = upper.attention_norm(x + F.dropout(_to_itself(upper.attention, x, None), dropout))
        if with_attention and upper is layers[-1]:
            attention = _probabilities(upper.cross, x, memory, mask)
        x = upper.cross_norm(x + F.dropout(_to_source(upper.cross, x, memory, mask), dropout))
        x = upper.feed_forward_norm(x + F.dropout(upper.feed_forward(x), dropout))
    return Output(x, attention)


def _embed(embedding: nn.Embedding, tokens: Tensor, network: Marian, dropout: float) -> Tensor:
    x = embedding(tokens) * network.scale + network.positions[: tokens.shape[1]]
    if torch.is_autocast_enabled(x.device.type):  # or sums and norms would stay in float32
        x = x.to(torch.get_autocast_dtype(x.device.type))
    return F.dropout(x, dropout)


def _to_itself(attention: SelfAttention, x: Tensor, mask: Tensor | None) -> Tensor:
    """(n, t, d) -> (n, t, d), where the mask says so; without one, each position looks at those up to itself."""
    q, k, v = (split_heads(part, attention.heads) for part in attention.qkv(x).chunk(3, dim=-1))
    y: Tensor = attention.out(_mix(q, k, v, mask))
    return y


def _to_source(attention: Attention, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
    """(n, t, d) to (n, s, d) -> (n, t, d)"""
    k, v = (split_heads(part, attention.heads) for part in attention.kv(memory).chunk(2, dim=-1))
    y: Tensor = attention.out(_mix(split_heads(attention.q(x), attention.heads), k, v, mask))
    return y


def _mix(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """(n, h, t, d/h) -> (n, t, d). On a processor in plain steps: torch's one kernel goes backward, over sentences
    this short, at a fifth of their speed."""
    if q.device.type != "cpu":
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
    else:
        t = q.shape[2]
        if mask is None:
            mask = torch.ones(t, t, dtype=torch.bool).tril()
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3)
        mixed = scores.masked_fill(~mask, -torch.inf).softmax(-1, dtype=scores.dtype) @ v
    return mixed.transpose(1, 2).flatten(2)


def _probabilities(attention: Attention, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
    """(n, t, s): where each target position looks, the mean of the heads, in float32."""
    k = split_heads(attention.kv(memory).chunk(2, dim=-1)[0], attention.heads)
    q = split_heads(attention.q(x), attention.heads)
    scores = (q @ k.transpose(2, 3)).float() * q.shape[-1] ** -0.5
    mean: Tensor = scores.masked_fill(~mask, -torch.inf).softmax(-1).mean(dim=1)
    return mean


class _CrossEntropy(torch.autograd.Function):
    """Projection, softmax and cross-entropy by chunks of rows; gradients are made while the logits are there."""

    @staticmethod
    def forward(
        context: Any, hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, smoothing: float, at_once: int
    ) -> tuple[Tensor, Tensor]:
        rows, vocabulary = len(hidden), len(weight)
        dtype = torch.get_autocast_dtype(hidden.device.type) if torch.is_autocast_enabled(hidden.device.type) else None
        hidden_, weight_ = hidden.to(dtype or weight.dtype), weight.to(dtype or weight.dtype)
        d_hidden, d_weight, d_bias = torch.empty_like(hidden_), torch.zeros_like(weight), torch.zeros_like(bias)
        total, likelihood = hidden.new_zeros((), dtype=torch.float32), hidden.new_zeros((), dtype=torch.float32)
        for start in range(0, rows, chunk := max(1, at_once // vocabulary)):
            some = slice(start, start + chunk)
            logits = (hidden_[some] @ weight_.T).float().add_(bias)
            normalizer = logits.logsumexp(-1, keepdim=True)
            chosen = targets[some, None]
            correct = (normalizer - logits.gather(1, chosen)).sum()
            even = (normalizer.sum() * vocabulary - logits.sum()) / vocabulary
            likelihood += correct
            total += (1 - smoothing) * correct + smoothing * even
            gradient = logits.sub_(normalizer).exp_().sub_(smoothing / vocabulary)  # of the logits, in their place
            gradient.scatter_add_(1, chosen, gradient.new_full(chosen.shape, smoothing - 1))
            d_bias += gradient.sum(0)
            gradient = gradient.to(weight_.dtype)
            d_hidden[some] = gradient @ weight_
            d_weight += gradient.T @ hidden_[some]
        context.save_for_backward(d_hidden, d_weight, d_bias)
        context.mark_non_differentiable(likelihood)
        return total, likelihood

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_weight, d_bias = context.saved_tensors
        scale = gradients[0]
        return d_hidden * scale, d_weight * scale, d_bias * scale, None, None, None


def cross_entropy(
    network: Marian, hidden: Tensor, targets: Tensor, smoothing: float = 0.0, at_once: int = LOGITS_AT_ONCE
) -> tuple[Tensor, Tensor]:
    """Sums over the targets (n, t) that are not pad: the smoothed loss, to go backward from, and the plain one.

    So many logits are there `at_once`.
    """
    there = targets != network.config.pad_token_id
    loss: tuple[Tensor, Tensor] = _CrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden[there], network.projection.weight, network.final_logits_bias[0], targets[there], smoothing, at_once
    )
    return loss


def guided(attention: Tensor, alignment: Tensor) -> Tensor:
    """The cross-entropy of attention (n, t, s) to a soft alignment of that shape, of which rows sum up to 1 or 0."""
    return -(alignment * attention.clamp_min(1e-6).log()).sum()
