"""Maps the names of tensors in a MarianMT checkpoint to the names of models.network.marian."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from models.checkpoint.files import quote
from models.errors import UnknownModel
from models.network.config import MarianConfig

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
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
_UNUSED = {  # copies of tied weights, and tables of positions, which are computed
    *_TIED,
    "lm_head.weight",
    "model.encoder.embed_positions.weight",
    "model.decoder.embed_positions.weight",
}


def rename(
    weights: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], config: MarianConfig, path: Path
) -> dict[str, Tensor]:
    """The checkpoint's tensors under our names. `shapes`: the expected shapes by our names. `path`: named in errors.

    Raises UnknownModel if a tensor is missing or unknown, or has another shape or type than expected.
    """
    names = {name: checkpoint_names(name, config, weights) for name in shapes}
    if "final_logits_bias" not in weights:
        weights = {**weights, "final_logits_bias": torch.zeros(1, config.decoder_vocab_size)}
    used = {each for theirs in names.values() for each in theirs}
    if missing := sorted(used - weights.keys()):
        raise UnknownModel(f"{path}: lacks {_first(missing)}.")
    if unknown := sorted(weights.keys() - used - _UNUSED):
        raise UnknownModel(f"{path}: contains {_first(unknown)}, which a Marian model does not have.")
    for name, expected in shapes.items():
        shape = (expected[0] // len(names[name]), *expected[1:])
        for each in names[name]:
            tensor = weights[each]
            if tensor.shape != shape or tensor.dtype not in FLOATS:
                raise UnknownModel(
                    f"{path}: {each} is {tensor.dtype} {tuple(tensor.shape)}; floats of {shape} were expected."
                )
    own = [weights[each] for each in used - _UNUSED]  # all except embeddings, which may share memory
    storages = {storage.data_ptr(): storage.nbytes() for storage in (tensor.untyped_storage() for tensor in own)}
    if sum(tensor.nbytes for tensor in own) > sum(storages.values()):
        raise UnknownModel(f"{path}: tensors of different layers share memory.")
    return {
        name: torch.cat([weights[each] for each in theirs]) if len(theirs) > 1 else weights[theirs[0]]
        for name, theirs in names.items()
    }


def _first(names: Sequence[str]) -> str:
    return quote(", ".join(names[:5]))


def checkpoint_names(name: str, config: MarianConfig, weights: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The names of the checkpoint's tensors that are joined to our tensor `name`."""
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
