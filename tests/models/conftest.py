"""Tiny Marian models with seeded weights, as transformers saves them, and the sentences to try them on."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from sentencepiece import SentencePieceTrainer
from transformers import MarianConfig, MarianMTModel

from models.decoding import Hypothesis, Options, search
from models.marian import Marian

DATA = Path(__file__).parents[1] / "data"
PIECES = 150

MakeModel = Callable[..., Path]
Decode = Callable[[Marian, Sequence[Sequence[int]], Options], list[list[Hypothesis]]]


@pytest.fixture(scope="session")
def sentences() -> list[str]:
    """300 French sentences."""
    return (DATA / "sentences.fr").read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory, sentences: list[str], one_thread: None) -> MakeModel:
    """Writes a MarianMT directory in float64; keyword arguments change config.json, `separate` makes two vocabularies."""
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


@pytest.fixture(scope="session")
def decode(one_thread: None) -> Decode:
    """All sources as one batch."""

    def run(model: Marian, sources: Sequence[Sequence[int]], options: Options) -> list[list[Hypothesis]]:
        found: dict[int, list[Hypothesis]] = {}
        with torch.inference_mode():
            batch = search(model, sources, [options] * len(sources))
            while batch.sentences:
                found |= batch.step()
        return [found[i] for i in range(len(sources))]

    return run
