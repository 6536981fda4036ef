"""The Marian Transformer, read from Hugging Face's MarianMT directories.

An encoder and a decoder with layer norm after each residual sum, sinusoidal positions, and scaled embeddings
(Vaswani et al. 2017, https://arxiv.org/abs/1706.03762; Junczys-Dowmunt et al. 2018, https://arxiv.org/abs/1804.00344;
`transformers.models.marian`). Decoding comes in two parts: `prefill` encodes the sources once, `step` adds one token to
every hypothesis.

In the shapes: n sentences, k hypotheses of each, s source tokens, t target tokens so far, d the model's width,
h heads, v target vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from models.errors import UnknownModel
from models.tokenizer import read_json

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"swish": F.silu, "silu": F.silu, "relu": F.relu, "gelu": F.gelu}
DEFAULTS = {  # of transformers' MarianConfig
    "max_position_embeddings": 1024,
    "scale_embedding": False,
    "activation_function": "gelu",
    "share_encoder_decoder_embeddings": True,
    "tie_word_embeddings": True,
}
# No real checkpoint is near these; a config that says more would exhaust memory before its tensors are looked at.
LARGEST = {"encoder_layers": 256, "decoder_layers": 256, "max_position_embeddings": 1 << 14, "num_beams": 64}
LARGEST_OTHER = 1 << 20


@dataclass(frozen=True, slots=True)
class MarianConfig:
    """What config.json and generation_config.json say, of which the names are kept."""

    d_model: int
    vocab_size: int
    decoder_vocab_size: int
    encoder_layers: int
    decoder_layers: int
    encoder_attention_heads: int
    decoder_attention_heads: int
    encoder_ffn_dim: int
    decoder_ffn_dim: int
    max_position_embeddings: int
    activation_function: str
    scale_embedding: bool
    share_encoder_decoder_embeddings: bool
    tie_word_embeddings: bool
    eos_token_id: int
    pad_token_id: int
    decoder_start_token_id: int
    forced_eos_token_id: int | None
    bad_token_ids: tuple[int, ...]
    max_length: int
    num_beams: int

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Raises UnknownModel for a configuration that is missing, malformed, or of another architecture."""
        path = directory / "config.json"
        data = read_json(path)
        if data.get("model_type") != "marian":
            raise UnknownModel(f"{path}: model_type is {data.get('model_type')!r}; Tolk reads marian.")
        # Old checkpoints keep the generation's parameters in config.json; only single banned tokens occur in Marian.
        generation = {**data, **read_json(directory / "generation_config.json", required=False)}
        bad_words = generation.get("bad_words_ids") or []
        if not isinstance(bad_words, list) or not all(isinstance(word, list) and len(word) == 1 for word in bad_words):
            raise UnknownModel(f"{path}: bad_words_ids of more than one token are not supported.")
        values = {
            **DEFAULTS,
            **data,
            "decoder_vocab_size": data.get("decoder_vocab_size") or data.get("vocab_size"),
            "forced_eos_token_id": generation.get("forced_eos_token_id"),
            "bad_token_ids": tuple(word[0] for word in bad_words),
            "max_length": generation.get("max_length") or 512,
            "num_beams": generation.get("num_beams") or 1,
        }
        kinds = cls.__annotations__
        wrong = [name for name, kind in kinds.items() if not _fits(name, values.get(name), kind)]
        if wrong:
            raise UnknownModel(f"{path} or generation_config.json: {', '.join(wrong)} missing or out of range.")
        config = cls(**{name: values[name] for name in kinds})
        config._check(path)
        return config

    def _check(self, path: Path) -> None:
        if self.activation_function not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise UnknownModel(f"{path}: activation_function {self.activation_function!r} is none of {known}.")
        if self.d_model % self.encoder_attention_heads or self.d_model % self.decoder_attention_heads:
            raise UnknownModel(f"{path}: d_model {self.d_model} is no multiple of the number of heads.")
        if self.share_encoder_decoder_embeddings and self.decoder_vocab_size != self.vocab_size:
            raise UnknownModel(f"{path}: shared embeddings need decoder_vocab_size to equal vocab_size.")
        if self.pad_token_id >= self.vocab_size:
            raise UnknownModel(f"{path}: pad_token_id {self.pad_token_id} is outside the vocabulary.")
        targets = (self.eos_token_id, self.decoder_start_token_id, *self.bad_token_ids)
        if max(targets) >= self.decoder_vocab_size or self.forced_eos_token_id not in (None, self.eos_token_id):
            raise UnknownModel(f"{path}: a special token's id is outside the vocabulary, or forced_eos is not eos.")
        if self.eos_token_id in self.bad_token_ids:
            raise UnknownModel(f"{path}: bad_words_ids holds the end of sentence.")


def _fits(name: str, value: object, kind: str) -> bool:
    """Whether a value is of its kind and range; ids may be 0, sizes may not."""
    match kind:
        case "int":
            smallest = 0 if name.endswith("_id") else 1
            return type(value) is int and smallest <= value <= LARGEST.get(name, LARGEST_OTHER)
        case "int | None":
            return value is None or type(value) is int
        case "bool" | "str":
            return type(value).__name__ == kind
        case _:
            return isinstance(value, tuple) and all(type(each) is int and each >= 0 for each in value)


class Cache:
    """What a batch of hypotheses has computed so far. Rows of `own` are hypotheses, sentence by sentence.

    `mask` (n, 1, 1, s): which source tokens are there. `cross`, a pair a layer: keys and values of the encoder's
    output, (n, h, s, d/h). `own`, a pair a layer: keys and values of the target tokens so far, (n·k, h, t, d/h).
    """

    def __init__(self, mask: Tensor, cross: list[tuple[Tensor, Tensor]]) -> None:
        self.mask = mask
        self.cross = cross
        self.own: list[tuple[Tensor, Tensor]] = []
        self.length = 0

    def keep_sentences(self, sentences: Tensor) -> None:
        """Drops all others: `sentences` (n') are indices. The rows of `own` are chosen by `keep_rows`."""
        self.mask = self.mask[sentences]
        longest = int(self.mask.sum(-1).max())  # what only the dropped ones needed is not computed any more
        self.mask = self.mask[..., :longest]
        self.cross = [(k[sentences, :, :longest], v[sentences, :, :longest]) for k, v in self.cross]

    def keep_rows(self, rows: Tensor) -> None:
        """`rows` (n'·k): the hypothesis that each row goes on from."""
        self.own = [(k.index_select(0, rows), v.index_select(0, rows)) for k, v in self.own]


class Attention(nn.Module):
    """Multi-head attention; the projections of the same input are one product."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(d, d)  # encoder_attn.q_proj
        self.kv = nn.Linear(d, 2 * d)  # encoder_attn.k_proj, .v_proj
        self.out = nn.Linear(d, d)  # encoder_attn.out_proj

    def memory(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the encoder's output: (n, s, d) -> twice (n, h, s, d/h)."""
        k, v = self.kv(x).chunk(2, dim=-1)
        return split_heads(k, self.heads), split_heads(v, self.heads)

    def forward(self, x: Tensor, memory: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """(n, k, d), where the hypotheses of a sentence look at one memory -> (n, k, d)"""
        q = split_heads(self.q(x), self.heads)  # (n, h, k, d/h)
        mixed: Tensor = self.out(join_heads(F.scaled_dot_product_attention(q, *memory, attn_mask=mask)))
        return mixed


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence to itself."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(d, 3 * d)  # self_attn.q_proj, .k_proj, .v_proj
        self.out = nn.Linear(d, d)  # self_attn.out_proj

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """All at once, for the encoder: (n, s, d), mask (n, 1, 1, s) -> (n, s, d)"""
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        mixed: Tensor = self.out(join_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=mask)))
        return mixed

    def step(self, x: Tensor, past: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """One token more, for the decoder: (n·k, 1, d) -> (n·k, 1, d), and keys and values with the new token's"""
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        if past is not None:
            k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
        return self.out(join_heads(F.scaled_dot_product_attention(q, k, v))), (k, v)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(n, t, d) -> (n, h, t, d/h)"""
    return x.view(*x.shape[:-1], heads, -1).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """(n, h, t, d/h) -> (n, t, d)"""
    return x.transpose(1, 2).flatten(2)


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
        self.attention_norm = nn.LayerNorm(d)  # self_attn_layer_norm
        self.feed_forward = FeedForward(d, config.encoder_ffn_dim, config.activation_function)
        self.feed_forward_norm = nn.LayerNorm(d)  # final_layer_norm

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.attention_norm(x + self.attention(x, mask))
        y: Tensor = self.feed_forward_norm(x + self.feed_forward(x))
        return y


class DecoderLayer(nn.Module):
    def __init__(self, config: MarianConfig) -> None:
        super().__init__()
        d = config.d_model
        self.attention = SelfAttention(d, config.decoder_attention_heads)
        self.attention_norm = nn.LayerNorm(d)  # self_attn_layer_norm
        self.cross = Attention(d, config.decoder_attention_heads)
        self.cross_norm = nn.LayerNorm(d)  # encoder_attn_layer_norm
        self.feed_forward = FeedForward(d, config.decoder_ffn_dim, config.activation_function)
        self.feed_forward_norm = nn.LayerNorm(d)  # final_layer_norm

    def step(
        self, x: Tensor, past: tuple[Tensor, Tensor] | None, memory: tuple[Tensor, Tensor], mask: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(n, k, d) -> (n, k, d), and the self-attention's keys and values"""
        mixed, past = self.attention.step(x.flatten(0, 1).unsqueeze(1), past)
        x = self.attention_norm(x + mixed.view_as(x))
        x = self.cross_norm(x + self.cross(x, memory, mask))
        return self.feed_forward_norm(x + self.feed_forward(x)), past


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
        weights, path = read_weights(directory)
        model.load_state_dict(_renamed(model, weights, path), assign=True)
        model.positions = sinusoids(config.max_position_embeddings, config.d_model)
        if config.tie_word_embeddings:
            model.projection.weight = model.target_embedding.weight
        return model.eval().requires_grad_(False).to(device=device, dtype=dtype)

    @property
    def device(self) -> torch.device:
        return self.final_logits_bias.device

    def prefill(self, sources: Sequence[Sequence[int]]) -> Cache:
        """Encodes the sources, token ids with the end of sentence, and projects what every step will look at."""
        longest = max(map(len, sources))
        padded = torch.tensor([[*source, *[self.config.pad_token_id] * (longest - len(source))] for source in sources])
        lengths = torch.tensor([len(source) for source in sources])
        mask = (torch.arange(longest) < lengths[:, None])[:, None, None, :].to(self.device)  # (n, 1, 1, s)
        x = self.source_embedding(padded.to(self.device)) * self.scale + self.positions[:longest]  # (n, s, d)
        for layer in self.encoder:
            x = layer(x, mask)
        return Cache(mask, [layer.cross.memory(x) for layer in cast("Iterable[DecoderLayer]", self.decoder)])

    def step(self, tokens: Tensor, cache: Cache) -> Tensor:
        """The last token of every hypothesis (n, k) -> logits (n, k, v) of the next; `cache` grows by one."""
        x = self.target_embedding(tokens) * self.scale + self.positions[cache.length]  # (n, k, d)
        own = []
        for i, layer in enumerate(cast("Iterable[DecoderLayer]", self.decoder)):
            x, past = layer.step(x, cache.own[i] if cache.own else None, cache.cross[i], cache.mask)
            own.append(past)
        cache.own = own
        cache.length += 1
        logits: Tensor = self.projection(x) + self.final_logits_bias
        return logits


def sinusoids(positions: int, d: int) -> Tensor:
    """(positions, d): sines in the first half, cosines in the second, not interleaved; computed in float64."""
    wavelength = 10_000.0 ** (torch.arange(0, d, 2, dtype=torch.float64) / d)
    angle = torch.arange(positions, dtype=torch.float64)[:, None] / wavelength
    return torch.cat((angle.sin(), angle.cos()), dim=1)[:, :d].float()


def weights_path(directory: Path) -> Path:
    """The checkpoint's file; safetensors goes before the older format."""
    safetensors = directory / "model.safetensors"
    return safetensors if safetensors.exists() else directory / "pytorch_model.bin"


def read_weights(directory: Path) -> tuple[dict[str, Tensor], Path]:
    """The checkpoint's tensors by its own names, and its file. Nothing in it is executed."""
    path = weights_path(directory)
    try:
        if path.suffix == ".safetensors":
            return load_file(path), path
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UnknownModel(f"{directory}: has neither model.safetensors nor pytorch_model.bin.") from error
    except Exception as error:
        raise UnknownModel(f"{path}: is no checkpoint that can be read safely: {error}") from error
    if not isinstance(weights, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) and tensor.layout is torch.strided
        for name, tensor in weights.items()
    ):
        raise UnknownModel(f"{path}: a table of tensors was expected.")
    return dict(weights), path


_LAYER = {  # our module in a layer -> the checkpoint's, joined along the first dimension
    "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.out": ("self_attn.out_proj",),
    "attention_norm": ("self_attn_layer_norm",),
    "cross.q": ("encoder_attn.q_proj",),
    "cross.kv": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "cross.out": ("encoder_attn.out_proj",),
    "cross_norm": ("encoder_attn_layer_norm",),
    "feed_forward.up": ("fc1",),
    "feed_forward.down": ("fc2",),
    "feed_forward_norm": ("final_layer_norm",),
}
_TIED = ("model.shared.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")
_UNUSED = {  # copies of what is tied, and tables that are computed
    *_TIED,
    "lm_head.weight",
    "model.encoder.embed_positions.weight",
    "model.decoder.embed_positions.weight",
}


def _renamed(model: Marian, weights: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The checkpoint's tensors under our names. Raises UnknownModel where they are not just those that we need."""
    renamed: dict[str, Tensor] = {}
    used: set[str] = set()
    for name, expected in model.state_dict().items():
        theirs = _checkpoint_names(name, model.config, weights)
        if missing := [each for each in theirs if each not in weights]:
            if name == "final_logits_bias":
                renamed[name] = torch.zeros(expected.shape)
                continue
            raise UnknownModel(f"{path}: lacks {', '.join(missing)}.")
        shape = (expected.shape[0] // len(theirs), *expected.shape[1:])
        for each in theirs:
            tensor = weights[each]
            if tensor.shape != shape or not tensor.is_floating_point():
                raise UnknownModel(
                    f"{path}: {each} is {tensor.dtype} {tuple(tensor.shape)}; floats of {shape} were expected."
                )
        renamed[name] = torch.cat([weights[each] for each in theirs]) if len(theirs) > 1 else weights[theirs[0]]
        used.update(theirs)
    if unknown := weights.keys() - used - _UNUSED:
        raise UnknownModel(f"{path}: holds {', '.join(sorted(unknown)[:5])}, which a Marian model has no place for.")
    return renamed


def _checkpoint_names(name: str, config: MarianConfig, weights: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The checkpoint's names of the tensors that make up ours."""
    if name == "final_logits_bias":
        return (name,)
    if name == "projection.weight":
        if not config.tie_word_embeddings:
            return ("lm_head.weight",)
        name = "target_embedding.weight"
    if name.endswith("_embedding.weight"):
        own = f"model.{'encoder' if name.startswith('source') else 'decoder'}.embed_tokens.weight"
        shared = (*_TIED, "lm_head.weight") if config.share_encoder_decoder_embeddings else ()
        return (next((each for each in (own, *shared) if each in weights), own),)
    side, number, rest = name.split(".", 2)
    module, _, kind = rest.rpartition(".")
    return tuple(f"model.{side}.layers.{number}.{each}.{kind}" for each in _LAYER[module])
