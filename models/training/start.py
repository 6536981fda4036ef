"""The network that a training begins with: of random weights, or another model's, its vocabulary or a new one."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from sentencepiece import SentencePieceProcessor
from torch import Tensor

from models.checkpoint.files import read, read_json
from models.network.config import MarianConfig
from models.network.marian import Marian
from models.training import config as settings
from models.training.network import build, trainable
from models.training.vocabulary import UNKNOWN, Vocabulary

logger = logging.getLogger(__name__)


def begin(config: settings.Config, vocabulary: Vocabulary, start: Path | None) -> Marian:
    """Seeded. `start` is a model's directory, whose shape the network has then. Raises UnknownModel as Marian.load."""
    torch.manual_seed(config.training.seed)
    if start is None:
        return build(_shape(config, vocabulary))
    model = Marian.load(start)
    reuses = config.vocabulary.reuse
    shape = model.config if reuses else replace(model.config, **_of_vocabulary(vocabulary))
    shape = replace(shape, num_beams=config.landed.beam)
    if config.network.grow:
        shape = replace(
            shape,
            encoder_layers=max(shape.encoder_layers, config.network.encoder_layers),
            decoder_layers=max(shape.decoder_layers, config.network.decoder_layers),
        )
    if shape == replace(model.config, num_beams=config.landed.beam) and reuses:
        return trainable(model)
    network = build(shape)
    ours, theirs = network.state_dict(), model.state_dict()
    with torch.no_grad():
        for name, weights in ours.items():
            if name in theirs and weights.shape == theirs[name].shape and (reuses or not _is_of_vocabulary(name)):
                weights.copy_(theirs[name])
        _grow(ours, theirs)
        if not reuses:
            _carry_over(network, model, start, vocabulary)
    return trainable(network)


def _shape(config: settings.Config, vocabulary: Vocabulary) -> MarianConfig:
    network = config.network
    return MarianConfig(
        d_model=network.d_model,
        encoder_layers=network.encoder_layers,
        decoder_layers=network.decoder_layers,
        encoder_attention_heads=network.heads,
        decoder_attention_heads=network.heads,
        encoder_ffn_dim=network.feed_forward,
        decoder_ffn_dim=network.feed_forward,
        max_position_embeddings=network.longest,
        activation_function=network.activation,
        scale_embedding=True,
        max_length=network.longest,
        num_beams=config.landed.beam,
        **_of_vocabulary(vocabulary),
    )


def _of_vocabulary(vocabulary: Vocabulary) -> dict[str, Any]:
    """The fields of a MarianConfig that a joint vocabulary decides."""
    size = 1 + max(vocabulary.ids[0].values())
    return {
        "vocab_size": size,
        "decoder_vocab_size": size,
        "share_encoder_decoder_embeddings": True,
        "tie_word_embeddings": True,
        "eos_token_id": vocabulary.end,
        "pad_token_id": vocabulary.pad,
        "decoder_start_token_id": vocabulary.pad,
        "forced_eos_token_id": vocabulary.end,
        "bad_token_ids": (vocabulary.pad,),
    }


def _is_of_vocabulary(name: str) -> bool:
    return name.endswith("_embedding.weight") or name.startswith(("projection", "final_logits_bias"))


def _grow(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """A layer that the model does not have begins as its last one, of which nothing is added to the residual sum."""
    for name, weights in ours.items():
        side, _, rest = name.partition(".")
        if name in theirs or side not in ("encoder", "decoder"):
            continue
        last = max(int(each.split(".")[1]) for each in theirs if each.startswith(f"{side}."))
        weights.copy_(theirs[f"{side}.{last}.{rest.partition('.')[2]}"])
        if ".out." in name or ".down." in name:
            weights.zero_()
        elif "norm.weight" in name:
            weights.fill_(1)
        elif "norm.bias" in name:
            weights.zero_()


def _carry_over(network: Marian, model: Marian, start: Path, vocabulary: Vocabulary) -> None:
    """The embedding of every piece that the model has, too; of another, the mean of those that the model writes it
    with; of a symbol, one at random."""
    old, table = model.target_embedding.weight, network.target_embedding.weight
    separate = read_json(start / "tokenizer_config.json", required=False).get("separate_vocabs", False)
    ids = read_json(start / ("target_vocab.json" if separate else "vocab.json"))
    processor = SentencePieceProcessor(model_proto=read(start / "target.spm"))
    table.normal_(std=float(old.std()))
    same = composed = 0
    for piece, i in vocabulary.ids[0].items():
        if piece in ids:
            table[i] = old[ids[piece]]
            same += 1
        elif piece not in vocabulary.symbols.all:
            parts = processor.encode(piece.replace("▁", " "), return_type=str)
            if not piece.startswith("▁"):  # SentencePiece sets a space before any text
                parts = [part for part in (parts[0].removeprefix("▁"), *parts[1:]) if part] if parts else []
            known = [ids[part] for part in parts if part in ids and part != UNKNOWN]
            if known:
                table[i] = old[known].mean(0)
                composed += 1
    logger.info("embeddings: %d of %d carried over, %d composed", same, len(vocabulary.ids[0]), composed)
