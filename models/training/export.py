"""A trained network as a directory in the format of Hugging Face MarianMT, in float16."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from models.errors import BadInput
from models.network.config import MarianConfig
from models.network.generation import DEFAULT_GENERATION, Generation
from models.network.tensor_names import checkpoint_names
from models.training.vocabulary import copy

_OF_GENERATION = {"bad_token_ids", "max_length", "num_beams", "generation"}  # what generation_config.json says


def export(
    weights: Mapping[str, Tensor], config: MarianConfig, vocabulary: Path, directory: Path, **tokenizer: object
) -> None:
    """Writes the model's files into `directory`, which is made where it is missing; `weights` have our names, and
    `tokenizer` goes into tokenizer_config.json.

    Raises BadInput for weights that float16 cannot hold.
    """
    directory.mkdir(parents=True, exist_ok=True)
    copy(vocabulary, directory)
    _set(directory / "tokenizer_config.json", **tokenizer)
    generation = {
        **_options(config.generation),
        "bad_words_ids": [[token] for token in config.bad_token_ids] + list(map(list, config.generation.bad_words)),
        "bos_token_id": config.eos_token_id,
        "decoder_start_token_id": config.decoder_start_token_id,
        "eos_token_id": config.eos_token_id,
        "forced_eos_token_id": config.forced_eos_token_id,
        "max_length": config.max_length,
        "num_beams": config.num_beams,
        "pad_token_id": config.pad_token_id,
    }
    _write(directory / "config.json", _config(config))
    _write(directory / "generation_config.json", generation)
    partial = directory / "model.safetensors.part"
    save_file(tensors(weights, config), partial, metadata={"format": "pt"})
    partial.chmod(0o644)  # safetensors lets nobody else read
    partial.replace(directory / "model.safetensors")


def tensors(weights: Mapping[str, Tensor], config: MarianConfig) -> dict[str, Tensor]:
    """In float16 and under the names of a MarianMT checkpoint, what is tied only once."""
    shared = {"model.shared.weight": torch.empty(0)} if config.share_encoder_decoder_embeddings else {}
    named: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        theirs = checkpoint_names(name, config, shared)
        for each, part in zip(theirs, tensor.detach().cpu().chunk(len(theirs)), strict=True):
            half = part.half()
            if not half.isfinite().all():
                raise BadInput(f"{each} holds what float16 cannot: the training has diverged.")
            named[each] = half.contiguous().clone()
    return named


def _options(generation: Generation) -> dict[str, object]:
    """The options of decoding that are not the defaults, but for the bad words."""
    said = {name: getattr(generation, name) for name in generation.__dataclass_fields__ if name != "bad_words"}
    return {name: value for name, value in said.items() if value != getattr(DEFAULT_GENERATION, name)}


def _config(config: MarianConfig) -> dict[str, object]:
    kept = {name: getattr(config, name) for name in config.__dataclass_fields__ if name not in _OF_GENERATION}
    return {
        **kept,
        "model_type": "marian",
        "architectures": ["MarianMTModel"],
        "is_encoder_decoder": True,
        "normalize_before": False,
        "static_position_embeddings": True,
        "bos_token_id": config.eos_token_id,
        "dropout": 0.1,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "init_std": 0.02,
        "use_cache": True,
        "dtype": "float16",
    }


def _set(path: Path, **values: object) -> None:
    said = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    _write(path, {**said, **values})


def _write(path: Path, said: Mapping[str, object]) -> None:
    path.write_text(json.dumps(said, ensure_ascii=False, indent=2, sort_keys=True) + "\n", encoding="utf-8")
