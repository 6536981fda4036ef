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
from models.network.generation import DEFAULT_GENERATION, LARGEST_BEAM, LARGEST_LENGTH, Generation, Said, is_token

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
SMALLEST = {"max_position_embeddings": 8}
LARGEST = {
    "d_model": 1 << 13,
    "vocab_size": 1 << 18,
    "decoder_vocab_size": 1 << 18,
    "encoder_layers": 64,
    "decoder_layers": 64,
    "encoder_ffn_dim": 1 << 15,
    "decoder_ffn_dim": 1 << 15,
    "max_position_embeddings": 1 << 13,
}


@dataclass(frozen=True, slots=True)
class MarianConfig:
    """The settings of config.json and generation_config.json that the network uses, mostly under their names there.

    `bad_token_ids` are never said: the bad_words_ids of one token, and the suppress_tokens. `max_length` counts the
    start token.
    """

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
    generation: Generation = DEFAULT_GENERATION

    @property
    def shuts_out(self) -> bool:
        """Whether banned tokens are left out of the log-probabilities of the others. Where scores depend on the tokens
        before (models.engine.processors), that has to happen after these are known."""
        return self.generation.renormalize_logits and not self.generation.penalizes

    @classmethod
    def load(cls, directory: Path) -> Self:
        """The configuration of a MarianMT directory.

        Raises UnknownModel for a configuration that is missing, malformed, or of another architecture.
        """
        path = directory / "config.json"
        data = read_json(path)
        if data.get("model_type") != "marian":
            raise UnknownModel(f"{path}: model_type is {quote(data.get('model_type'))}; marian was expected.")
        said = Said(directory, data)
        end = said.end()
        or_null = "eos_token_id, a token of the vocabulary, or null"
        banned = [word[0] for word in said.bad_words() if len(word) == 1 and word != (end,)]
        values = {
            **DEFAULTS,
            **{name: value for name, value in data.items() if value is not None},
            "eos_token_id": end,
            "decoder_start_token_id": said.start(),
            "forced_eos_token_id": said.value("forced_eos_token_id", None, or_null, lambda v: v == end),
            "bad_token_ids": tuple(dict.fromkeys([*banned, *said.tokens("suppress_tokens")])),
            "max_length": said.longest(),
            "num_beams": said.count("num_beams", 1, 1, LARGEST_BEAM),
            "generation": Generation.of(said),
        }
        values.setdefault("decoder_vocab_size", values.get("vocab_size"))
        kinds = cls.__annotations__
        for name, kind in kinds.items():
            if expected := _misfit(name, values.get(name), kind):
                found = "missing" if values.get(name) is None else quote(values[name])
                raise UnknownModel(f"{path} or generation_config.json: {name} is {found}; {expected} was expected.")
        config = cls(**{name: values[name] for name in kinds})
        config._check(path)
        config._check_tokens(said.path)
        for name in ("eos_token_id", "decoder_start_token_id"):  # even if generation_config.json has others
            if (own := data.get(name)) is not None and not (is_token(own) and own < config.decoder_vocab_size):
                raise UnknownModel(f"{path}: {name} is {quote(own)}; an id of the vocabulary was expected.")
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

    def _check_tokens(self, path: Path) -> None:
        said = self.generation
        first = () if said.forced_bos_token_id is None else (said.forced_bos_token_id,)
        phrases = [token for word in said.bad_words for token in word]
        special = (self.eos_token_id, self.decoder_start_token_id)
        targets = (*special, *self.bad_token_ids, *said.begin_suppress_tokens, *first, *phrases)
        if max(targets) >= self.decoder_vocab_size:
            raise UnknownModel(f"{path}: the token id {max(targets)} is outside the vocabulary.")
        if self.eos_token_id in self.bad_token_ids or {*first} & {*self.bad_token_ids}:
            raise UnknownModel(f"{path}: suppress_tokens or bad_words_ids ban the end token, or forced_bos_token_id.")


def _misfit(name: str, value: object, kind: str) -> str | None:
    """A description of the expected values, if this one does not have the right type and range; else None. Ids may be
    0, sizes may not."""
    match kind:
        case "int":
            smallest, largest = SMALLEST.get(name, 0 if name.endswith("_id") else 1), LARGEST.get(name, LARGEST_LENGTH)
            fits = type(value) is int and smallest <= value <= largest
            return None if fits else f"an integer from {smallest} to {largest}"
        case "int | None":
            return None if value is None or type(value) is int else "a token id or null"
        case "bool":
            return None if type(value) is bool else "true or false"
        case "str":
            return None if type(value) is str else "a name"
        case _:  # of generation_config.json, checked there
            return None
