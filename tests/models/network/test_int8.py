"""Marian in int8, compared with Marian in floats."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from models.engine.options import DecodingOptions
from models.errors import UnknownModel
from models.network.int8 import Int8Marian
from models.network.interface import Logits
from models.network.marian import Marian
from models.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tests.models.conftest import Decode, Follow, MakeModel

FR_EN = Path(__file__).parents[3] / "models" / "embedded" / "fr-en"


@pytest.fixture(scope="module")
def model() -> Int8Marian:
    return Int8Marian(Marian.load(FR_EN))


@pytest.fixture(scope="module")
def sources(sentences: list[str]) -> list[list[int]]:
    tokenizer = Tokenizer.load(FR_EN)
    return [tokenizer.encode(sentence) for sentence in sentences[::5]]


def test_probabilities_are_close_to_those_in_floats(
    model: Int8Marian, sources: list[list[int]], decode: Decode, follow: Follow
) -> None:
    floats, few = Marian.load(FR_EN), sources[::4]
    differences = []
    for source, (best, *_) in zip(few, decode(floats, few, DecodingOptions(max_length=50)), strict=True):
        said = [model.config.decoder_start_token_id, *best.tokens]
        ours, theirs = (follow(each, [source], [said])[0].exp() for each in (model, floats))
        differences.append(float((ours - theirs).abs().sum(-1).mean()))
    assert sum(differences) / len(differences) < 0.06  # 2 would be two distributions without overlap


def test_the_logits_of_rows_are_those_that_its_likeliest_tokens_have(
    model: Int8Marian, sources: list[list[int]]
) -> None:
    cache, rows = model.cache(3), np.arange(3, dtype=np.int32)
    cache.reserve(1, max(map(len, sources[:3])))
    cache.memories[:], cache.lengths[:], cache.paths[:] = rows, [*map(len, sources[:3])], rows[:, None]
    cache.tokens[:] = model.config.decoder_start_token_id
    model.prefill(cache, [0, 1, 2], sources[:3])
    logits = Logits(np.array([0, 2], np.int32), np.empty((2, model.config.decoder_vocab_size), np.float32))
    tokens, scores = model.step(cache, rows, 4, logits)
    for values, row in zip(torch.from_numpy(logits.values), (0, 2), strict=True):
        assert values.log_softmax(-1)[tokens[row].tolist()].tolist() == pytest.approx(scores[row].tolist(), abs=1e-4)


@pytest.mark.parametrize("options", [DecodingOptions(max_length=50), DecodingOptions(beam=4, nbest=4, max_length=50)])
def test_neighbours_change_nothing_at_all(
    model: Int8Marian, sources: list[list[int]], decode: Decode, options: DecodingOptions
) -> None:
    """Sums of int8 products are exact, and every row has a scale of its own."""
    for source, together in zip(sources, decode(model, sources, options), strict=True):
        assert decode(model, [source], options) == [together]


@pytest.mark.timeout(600)  # two processes compile, whatever else the machine does
def test_workers_that_start_together_compute_the_same_as_one_that_finds_everything_compiled(tmp_path: Path) -> None:
    """The encoder is the smallest compiled entry whose sums are in other kernels."""
    program = (
        "import pathlib, sys\n"
        "from models.network.int8 import Int8Marian\n"
        "from models.network.marian import Marian\n"
        "model, tokens = Int8Marian(Marian.load(pathlib.Path(sys.argv[1]))), [*range(200, 220), 0]\n"
        "cache = model.cache(1)\n"
        "cache.reserve(1, len(tokens))\n"
        "model.prefill(cache, [0], [tokens])\n"
        "print(cache.scratch.x[:len(tokens)].tobytes().hex())"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", program, FR_EN]
        return subprocess.Popen(command, cwd=FR_EN.parents[2], env=environment, stdout=subprocess.PIPE, text=True)

    together = [start(), start()]
    said = [process.communicate(timeout=500)[0] for process in together]
    assert len(said[0]) > 1000
    assert any(tmp_path.rglob("*.nbc"))
    assert said == [start().communicate(timeout=500)[0]] * 2


def test_a_source_that_is_longer_than_what_is_encoded_at_once(
    model: Int8Marian, decode: Decode, sources: list[list[int]]
) -> None:
    long = [*[token for source in sources for token in source[:-1]][:511], 0]
    options = DecodingOptions(max_length=5)
    assert decode(model, [sources[0], long, sources[1]], options)[1] == decode(model, [long], options)[0]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"separate": True},
        {"activation_function": "relu", "scale_embedding": False},
        {"activation_function": "gelu", "d_model": 24, "encoder_attention_heads": 3, "decoder_attention_heads": 4},
        {"encoder_layers": 1, "decoder_layers": 3, "encoder_ffn_dim": 40, "decoder_ffn_dim": 512},
    ],
    ids=str,
)
def test_tiny_models_of_other_configurations(changes: dict[str, Any], make_model: MakeModel, follow: Follow) -> None:
    floats = Marian.load(make_model(**changes))
    ours = Int8Marian(Marian.load(make_model(**changes)))
    sources, targets = [[5, 8, 0], [9, 10, 11, 12, 13, 0]], [[2, 5, 9, 6], [2, 20, 30, 40]]
    difference = (follow(ours, sources, targets).exp() - follow(floats, sources, targets).exp()).abs().sum(-1)
    assert float(difference.mean()) < 0.25


def test_weights_that_are_too_large_are_refused(make_model: MakeModel) -> None:
    """The weights are finite, but their sums are not."""
    floats = Marian.load(make_model())
    floats.decoder[0].feed_forward.up.weight = torch.nn.Parameter(torch.full((20, 16), 3e38), requires_grad=False)
    with pytest.raises(UnknownModel, match="too large for int8"):
        Int8Marian(floats)
