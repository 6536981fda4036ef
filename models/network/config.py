"""The configuration of a MarianMT network, from config.json and generation_config.json."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from torch import Tensor
from torch.nn import functional as F

from models.checkpoint.files import quote, read_json
from models.errors import UnknownModel

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"swish": F.silu, "silu": F.silu, "relu": F.relu, "gelu": F.gelu}
DEFAULTS = {  # of transformers' MarianConfig
    "max_position_embeddings": 1024,
    "scale_embedding": False,
    "activation_function": "gelu",
    "share_encoder_decoder_embeddings": True,
    "tie_word_embeddings": True,
}
# Limits that no real checkpoint comes near. Most sizes must agree with the tensors in the file, but the memory of a
# step grows with their products, and the table of positions is computed.
SMALLEST = {"max_position_embeddings": 8, "max_length": 2}
LARGEST = {
    "d_model": 1 << 13,
    "vocab_size": 1 << 18,
    "decoder_vocab_size": 1 << 18,
    "encoder_layers": 64,
    "decoder_layers": 64,
    "encoder_ffn_dim": 1 << 15,
    "decoder_ffn_dim": 1 << 15,
    "max_position_embeddings": 1 << 13,
    "num_beams": 64,
}
LARGEST_NUMBER = 1 << 20


@dataclass(frozen=True, slots=True)
class MarianConfig:
    """The settings of config.json and generation_config.json that the network uses, mostly under their names there."""

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
        """The configuration of a MarianMT directory.

        Raises UnknownModel for a configuration that is missing, malformed, or of another architecture.
        """
        path = directory / "config.json"
        data = read_json(path)
        if data.get("model_type") != "marian":
            raise UnknownModel(f"{path}: model_type is {quote(data.get('model_type'))}; marian was expected.")
        # Old checkpoints have the parameters of generation in config.json. Marian bans single tokens only.
        generation = {**data, **read_json(directory / "generation_config.json", required=False)}
        bad_words = _or_default(generation.get("bad_words_ids"), [])
        if not isinstance(bad_words, list) or not all(isinstance(word, list) and len(word) == 1 for word in bad_words):
            raise UnknownModel(f"{path}: bad_words_ids is not a list of single tokens, [[2], [7], …].")
        values = {
            **DEFAULTS,
            **data,
            "decoder_vocab_size": _or_default(data.get("decoder_vocab_size"), data.get("vocab_size")),
            "forced_eos_token_id": generation.get("forced_eos_token_id"),
            "bad_token_ids": tuple(word[0] for word in bad_words),
            "max_length": _or_default(generation.get("max_length"), 512),
            "num_beams": _or_default(generation.get("num_beams"), 1),
        }
        kinds = cls.__annotations__
        for name, kind in kinds.items():
            if expected := _misfit(name, values.get(name), kind):
                said = quote(values[name]) if name in values else "missing"
                raise UnknownModel(f"{path} or generation_config.json: {name} is {said}; {expected} was expected.")
        config = cls(**{name: values[name] for name in kinds})
        config._check(path)
        return config

    def _check(self, path: Path) -> None:
        if self.activation_function not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise UnknownModel(f"{path}: activation_function {quote(self.activation_function)} is not one of {known}.")
        if self.d_model % self.encoder_attention_heads or self.d_model % self.decoder_attention_heads:
            raise UnknownModel(f"{path}: d_model {self.d_model} is not a multiple of the number of heads.")
        if self.share_encoder_decoder_embeddings and self.decoder_vocab_size != self.vocab_size:
            raise UnknownModel(f"{path}: shared embeddings need decoder_vocab_size to equal vocab_size.")
        if self.pad_token_id >= self.vocab_size:
            raise UnknownModel(f"{path}: pad_token_id {self.pad_token_id} is outside the vocabulary.")
        targets = (self.eos_token_id, self.decoder_start_token_id, *self.bad_token_ids)
        if max(targets) >= self.decoder_vocab_size or self.forced_eos_token_id not in (None, self.eos_token_id):
            raise UnknownModel(
                f"{path}: a special token's id is outside the vocabulary, or forced_eos_token_id is not eos_token_id."
            )
        if self.eos_token_id in self.bad_token_ids:
            raise UnknownModel(f"{path}: bad_words_ids contains eos_token_id.")


def _or_default(value: object, default: object) -> object:
    return default if value is None else value


def _misfit(name: str, value: object, kind: str) -> str | None:
    """A description of the expected values, if this one does not have the right type and range; else None. Ids may be
    0, sizes may not."""
    match kind:
        case "int":
            smallest, largest = SMALLEST.get(name, 0 if name.endswith("_id") else 1), LARGEST.get(name, LARGEST_NUMBER)
            fits = type(value) is int and smallest <= value <= largest
            return None if fits else f"an integer from {smallest} to {largest}"
        case "int | None":
            return None if value is None or type(value) is int else "a token id or null"
        case "bool":
            return None if type(value) is bool else "true or false"
        case "str":
            return None if type(value) is str else "a name"
        case _:
            fits = isinstance(value, tuple) and all(type(each) is int and each >= 0 for each in value)
            return None if fits else "a list of token ids"
