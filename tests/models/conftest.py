"""Tiny Marian models with seeded weights, as transformers saves them, and sentences to test them with."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from torch import Tensor
from transformers import MarianConfig, MarianMTModel

from models.engine.batch import Batch, Hypothesis
from models.engine.options import DecodingOptions
from models.network.interface import Network

DATA = Path(__file__).parents[1] / "data"
PIECES = 150

MakeModel = Callable[..., Path]
Decode = Callable[[Network, Sequence[Sequence[int]], DecodingOptions], list[list[Hypothesis]]]
Follow = Callable[[Network, Sequence[Sequence[int]], Sequence[Sequence[int]]], Tensor]


@pytest.fixture(scope="session")
def sentences() -> list[str]:
    """300 French sentences."""
    return (DATA / "sentences.fr").read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory, sentences: list[str], one_thread: None) -> MakeModel:
    """Writes a MarianMT directory in float64; `separate` makes two vocabularies, other arguments change config.json."""
    source = _sentencepiece(sentences, PIECES)
    target = _sentencepiece([sentence.upper() for sentence in sentences], PIECES - 10)
    made: dict[str, Path] = {}

    def make(*, separate: bool = False, safetensors: bool = True, **changes: Any) -> Path:
        key = json.dumps([separate, safetensors, changes], sort_keys=True)
        if key not in made:
            directory = tmp_path_factory.mktemp("marian")
            made[key] = _write(directory, source, target if separate else source, separate, safetensors, changes)
        return made[key]

    return make


@pytest.fixture
def directory(make_model: MakeModel, tmp_path: Path) -> Path:
    """A copy of a tiny model, which the test may change."""
    return shutil.copytree(make_model(), tmp_path / "model")


@pytest.fixture(scope="session")
def decode(one_thread: None) -> Decode:
    """Decodes all sources in one batch."""

    def run(model: Network, sources: Sequence[Sequence[int]], options: DecodingOptions) -> list[list[Hypothesis]]:
        found: dict[int, list[Hypothesis]] = {}
        with torch.inference_mode():
            batch: Batch[int] = Batch(model, len(sources) * options.beam)
            batch.enter({i: (source, options) for i, source in enumerate(sources)})
            while len(found) < len(sources):
                for i, outcome in batch.step().items():
                    if not isinstance(outcome, list):
                        raise outcome
                    found[i] = outcome
        return [found[i] for i in range(len(sources))]

    return run


@pytest.fixture(scope="session")
def follow(one_thread: None) -> Follow:
    """The log-probabilities (n, t, v) of the token after each token of the targets (n, t), -inf for banned tokens."""

    def run(model: Network, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> Tensor:
        n, t, v = len(sources), len(targets[0]), model.config.decoder_vocab_size
        found = torch.full((n, t, v), -torch.inf, dtype=torch.float64)
        rows = np.arange(n, dtype=np.int32)
        with torch.inference_mode():
            cache = model.cache(n)
            cache.reserve(t, max(map(len, sources)))
            cache.memories[:], cache.lengths[:], cache.paths[:] = rows, [*map(len, sources)], rows[:, None]
            model.prefill(cache, rows.tolist(), sources)
            for place in range(t):
                cache.tokens[:], cache.positions[:] = [target[place] for target in targets], place
                tokens, scores = model.step(cache, rows, v - len(model.config.bad_token_ids))
                found[:, place].scatter_(1, torch.from_numpy(tokens).long(), torch.from_numpy(scores))
        return found

    return run


def _sentencepiece(sentences: Sequence[str], pieces: int) -> bytes:
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        vocab_size=pieces,
        character_coverage=0.98,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def _vocabulary(model: bytes) -> dict[str, int]:
    processor = SentencePieceProcessor(model_proto=model)
    pieces = [processor.id_to_piece(i) for i in range(len(processor))]
    named = ["</s>", "<unk>", "<pad>", ">>fra<<", ">>eng<<"]
    return {piece: i for i, piece in enumerate([*named, *(p for p in pieces if p not in {*named, "<s>"})])}


def _write(
    directory: Path, source: bytes, target: bytes, separate: bool, safetensors: bool, changes: dict[str, Any]
) -> Path:
    vocabularies = [_vocabulary(source), _vocabulary(target)]
    for name, model, ids in zip(("source", "target"), (source, target), vocabularies, strict=True):
        (directory / f"{name}.spm").write_bytes(model)
        (directory / f"{name.replace('source', '')}_vocab.json".lstrip("_")).write_text(json.dumps(ids))
    if not separate:
        (directory / "target_vocab.json").unlink()
    (directory / "tokenizer_config.json").write_text(json.dumps({"separate_vocabs": separate}))
    config = {
        "vocab_size": len(vocabularies[0]),
        "decoder_vocab_size": len(vocabularies[1]),
        "share_encoder_decoder_embeddings": not separate,
        "d_model": 16,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 24,
        "decoder_layers": 1,
        "decoder_attention_heads": 2,
        "decoder_ffn_dim": 20,
        "activation_function": "swish",
        "scale_embedding": True,
        "max_position_embeddings": 64,
        "init_std": 0.4,  # with the usual 0.02 all tokens would be about as likely
        "pad_token_id": 2,
        "eos_token_id": 0,
        "bos_token_id": None,
        "decoder_start_token_id": 2,
        **changes,
    }
    torch.manual_seed(len(json.dumps(config)))
    model = MarianMTModel(MarianConfig(**config)).double()
    model.final_logits_bias.normal_()[0, 0] += 3  # sentences should end now and then
    model.generation_config.update(bad_words_ids=[[2]], max_length=64, forced_eos_token_id=0)
    if safetensors:
        model.save_pretrained(directory)
    else:
        model.config.save_pretrained(directory)
        model.generation_config.save_pretrained(directory)
        torch.save(model.state_dict(), directory / "pytorch_model.bin")
    return directory
