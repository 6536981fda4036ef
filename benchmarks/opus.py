"""A model of OPUS-MT's size with random, seeded weights, which never ends a sentence, and sentences for it."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import torch
import transformers
from sentencepiece import SentencePieceProcessor

from benchmarks.quality import MODEL

OPUS = {"d_model": 512, "layers": 6, "heads": 8, "ffn": 2048, "vocabulary": 32_000, "sentences": 256, "tokens": 16}


def opus_model(directory: Path, longest: int = 512) -> list[list[int]]:
    """Writes the model into `directory`, which says `longest` tokens of everything. It knows the pieces of the embedded
    model. Returns sentences as lists of token ids, with lengths as in a corpus."""
    size = OPUS["vocabulary"]
    config = transformers.MarianConfig(
        vocab_size=size,
        decoder_vocab_size=size,
        d_model=OPUS["d_model"],
        encoder_layers=OPUS["layers"],
        decoder_layers=OPUS["layers"],
        encoder_attention_heads=OPUS["heads"],
        decoder_attention_heads=OPUS["heads"],
        encoder_ffn_dim=OPUS["ffn"],
        decoder_ffn_dim=OPUS["ffn"],
        activation_function="swish",
        max_position_embeddings=512,
        scale_embedding=True,
        eos_token_id=0,
        pad_token_id=size - 1,
        bos_token_id=0,
        decoder_start_token_id=size - 1,
        forced_eos_token_id=0,
    )
    torch.manual_seed(0)
    model = transformers.MarianMTModel(config)
    model.final_logits_bias[0, 0] = -1e4  # makes the end token improbable: every translation reaches the length limit
    model.generation_config.update(bad_words_ids=[[size - 1]], max_length=longest)
    model.save_pretrained(directory)
    for name in ("source.spm", "target.spm"):
        shutil.copy(MODEL / name, directory)
    known = SentencePieceProcessor(model_file=str(MODEL / "source.spm"))
    pieces = [known.id_to_piece(i) for i in range(known.get_piece_size())]
    pieces = [piece for piece in pieces if piece not in ("</s>", "<unk>", "<pad>")]
    names = ["</s>", "<unk>", *pieces, *(f"t{i}" for i in range(len(pieces) + 2, size - 1)), "<pad>"]
    (directory / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    (directory / "tokenizer_config.json").write_text("{}")
    chance = random.Random(0)
    lengths = [min(60, max(4, round(chance.lognormvariate(2.7, 0.5)))) for _ in range(OPUS["sentences"])]
    return [[*(chance.randrange(2, size - 1) for _ in range(length)), 0] for length in lengths]
