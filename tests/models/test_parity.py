"""Compares the translations of a model, token by token, with those of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import MarianMTModel

from models.engine.options import DecodingOptions
from models.network.marian import Marian
from models.tokenizer import Tokenizer
from tests.models.network.test_marian import edit_json

if TYPE_CHECKING:
    from tests.models.conftest import Decode, Follow, MakeModel

FR_EN = Path(__file__).parents[2] / "models" / "embedded" / "fr-en"

LIMIT = 100  # target tokens; a few of the 300 translations are runaways, which would only take longer with 512

Output = tuple[int, ...]


@pytest.fixture(scope="module")
def theirs(one_thread: None) -> MarianMTModel:
    return MarianMTModel.from_pretrained(FR_EN, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def ours(one_thread: None) -> Marian:
    return Marian.load(FR_EN)


@pytest.fixture(scope="module", params=[4, pytest.param(1, marks=pytest.mark.long)])
def batches(request: pytest.FixtureRequest, sentences: list[str]) -> list[list[list[int]]]:
    """Batches of 30 of every fourth sentence, or of all 300, the shortest first."""
    tokenizer = Tokenizer.load(FR_EN)
    sources = sorted((tokenizer.encode(sentence) for sentence in sentences), key=len)[:: request.param]
    return [sources[i : i + 30] for i in range(0, len(sources), 30)]


def test_greedy_search(ours: Marian, theirs: MarianMTModel, batches: list[list[list[int]]], decode: Decode) -> None:
    for sources in batches:
        expected = generate(theirs, sources, num_beams=1, max_length=LIMIT + 1)
        found = decode(ours, sources, DecodingOptions(max_length=LIMIT))
        assert [hypotheses[0].tokens for hypotheses in found] == [best for best, *_ in expected]


def test_beam_search(
    ours: Marian, theirs: MarianMTModel, batches: list[list[list[int]]], decode: Decode, follow: Follow
) -> None:
    different = 0
    for sources in batches:
        expected = generate(theirs, sources, num_beams=4, max_length=LIMIT + 1)
        found = [
            hypotheses[0].tokens for hypotheses in decode(ours, sources, DecodingOptions(beam=4, max_length=LIMIT))
        ]
        different += count_ties(ours, follow, sources, found, [best for best, *_ in expected])
    assert different <= 0.02 * sum(map(len, batches))


CONFIGURATIONS: list[dict[str, Any]] = [
    {},
    {"safetensors": False},
    {"separate": True},
    {"separate": True, "safetensors": False},
    {"separate": True, "tie_word_embeddings": False},
    {"tie_word_embeddings": False},
    {"share_encoder_decoder_embeddings": False},
    {"share_encoder_decoder_embeddings": False, "tie_word_embeddings": False},
    {"activation_function": "relu", "scale_embedding": False},
    {"activation_function": "gelu"},
    {"activation_function": "silu", "d_model": 24, "encoder_attention_heads": 3, "decoder_attention_heads": 4},
    {"encoder_layers": 1, "decoder_layers": 3, "encoder_ffn_dim": 40, "decoder_ffn_dim": 12},
]


@pytest.mark.parametrize("changes", CONFIGURATIONS, ids=str)
def test_tiny_models_of_every_configuration(
    changes: dict[str, Any], make_model: MakeModel, sentences: list[str], decode: Decode
) -> None:
    directory = make_model(**changes)
    ours, tokenizer = Marian.load(directory, dtype=torch.float64), Tokenizer.load(directory)
    theirs = MarianMTModel.from_pretrained(directory, dtype=torch.float64).eval()
    sources = [tokenizer.encode(sentence, ">>fra<<") for sentence in sentences[::20]]
    for beam, nbest, penalty in [(1, 1, 1.0), (4, 4, 1.0), (2, 2, 0.6), (4, 4, 1.4), (3, 2, 0.0), (5, 1, -0.5)]:
        found = decode(ours, sources, DecodingOptions(beam=beam, nbest=nbest, length_penalty=penalty, max_length=20))
        expected = generate_ranked(
            theirs, sources, num_beams=beam, num_return_sequences=nbest, length_penalty=penalty, max_length=21
        )
        for hypotheses, pairs in zip(found, expected, strict=True):
            assert [each.tokens for each in hypotheses] == [output for output, _ in pairs]
            ranks = [each.score * (len(each.tokens) + 1) ** (1 - penalty) for each in hypotheses]
            assert beam == 1 or ranks == pytest.approx([rank for _, rank in pairs], abs=1e-4)


def test_runs_of_tokens_that_may_not_come_twice(
    make_model: MakeModel, sentences: list[str], decode: Decode, follow: Follow
) -> None:
    directory = make_model()
    ours, tokenizer = Marian.load(directory, dtype=torch.float64), Tokenizer.load(directory)
    theirs = MarianMTModel.from_pretrained(directory, dtype=torch.float64).eval()
    sources = [tokenizer.encode(sentence) for sentence in sentences[::30]]
    for beam, size in [(1, 1), (1, 3), (4, 2)]:
        expected = generate(theirs, sources, num_beams=beam, no_repeat_ngram_size=size, max_length=31)
        found = decode(ours, sources, DecodingOptions(beam=beam, no_repeat_ngram=size, max_length=30))
        count_ties(ours, follow, sources, [best.tokens for best, *_ in found], [best for best, *_ in expected])


# Each changes what a tiny model says, at beam 1, 4, or both. `<pad>` (2) is banned, and likely in this model.
GENERATIONS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "renormalized": ({"renormalize_logits": True}, (4,)),
    "renormalized without repetition": ({"renormalize_logits": True, "no_repeat_ngram_size": 2}, (1, 4)),
    "renormalized after a penalty": ({"renormalize_logits": True, "repetition_penalty": 1.3}, (1, 4)),
    "repetition penalized": ({"repetition_penalty": 1.5}, (1, 4)),
    "repetition rewarded": ({"repetition_penalty": 0.7}, (1, 4)),
    "the source rewarded": ({"encoder_repetition_penalty": 2.0}, (1, 4)),
    "no token twice": ({"no_repeat_ngram_size": 1}, (1, 4)),
    "no pair twice": ({"no_repeat_ngram_size": 2}, (1, 4)),
    "no token of the source": ({"encoder_no_repeat_ngram_size": 1}, (1, 4)),
    "long": ({"length_penalty": 3.0}, (4,)),
    "short": ({"length_penalty": -1.0}, (4,)),
    "first ones": ({"early_stopping": True, "length_penalty": 3.0}, (4,)),
    "last ones": ({"early_stopping": "never", "length_penalty": 2.0}, (4,)),
    "not shorter": ({"min_length": 12}, (1, 4)),
    "no fewer tokens": ({"min_new_tokens": 12, "min_length": 30}, (1, 4)),
    "not longer": ({"max_new_tokens": 4}, (1, 4)),
    "first token": ({"forced_bos_token_id": 17}, (1, 4)),
    "start": ({"decoder_start_token_id": 9}, (1, 4)),
    "start like a sentence": ({"decoder_start_token_id": None, "bos_token_id": 11}, (1, 4)),
    "suppressed": ({"suppress_tokens": [*range(17, 140, 3)]}, (1, 4)),
    "suppressed at the beginning": ({"begin_suppress_tokens": [*range(3, 140, 2)]}, (1, 4)),
    "second token": ({"begin_suppress_tokens": [*range(3, 140, 2)], "forced_bos_token_id": 17}, (1, 4)),
    "bad words": ({"bad_words_ids": [[2], [0], *([i, j] for i in range(3, 150) for j in range(20, 120))]}, (1, 4)),
    "harmless": ({"num_beams": 3, "temperature": 0.3, "top_k": 5, "do_sample": False, "num_beam_groups": 1}, ()),
}


@pytest.mark.parametrize("name", GENERATIONS)
@pytest.mark.parametrize("beam", [1, 4])
def test_every_option_of_generation_that_a_model_has(
    name: str, beam: int, directory: Path, sentences: list[str], decode: Decode
) -> None:
    options, mattering = GENERATIONS[name]
    weights = load_file(directory / "model.safetensors")
    weights["final_logits_bias"][0, [0, 2]] += torch.tensor([1.5, 8.0])
    save_file(weights, directory / "model.safetensors", {"format": "pt"})
    tokenizer = Tokenizer.load(directory)
    sources = [tokenizer.encode(sentence) for sentence in sorted(sentences, key=len)[:200:20]]

    def of_transformers() -> list[Output]:
        model = MarianMTModel.from_pretrained(directory, dtype=torch.float64).eval()
        longest = {} if "max_new_tokens" in options else {"max_length": 25}
        return [generate(model, [source], num_beams=beam, **longest)[0][0] for source in sources]

    without = of_transformers()
    edit_json(directory / "generation_config.json", options)
    expected = of_transformers()
    assert (expected != without) == (beam in mattering)
    found = decode(Marian.load(directory, dtype=torch.float64), sources, DecodingOptions(beam=beam, max_length=24))
    assert [best.tokens for best, *_ in found] == expected


def generate(model: MarianMTModel, sources: Sequence[Sequence[int]], **options: Any) -> list[list[Output]]:
    """The hypotheses of transformers for each source, the best first, without start and end tokens."""
    return [[output for output, _ in pairs] for pairs in generate_ranked(model, sources, **options)]


def generate_ranked(
    model: MarianMTModel, sources: Sequence[Sequence[int]], **options: Any
) -> list[list[tuple[Output, float]]]:
    """Like `generate`, with the rank of each hypothesis; nan in greedy search, which has no ranks."""
    padding, end = model.config.pad_token_id, model.config.eos_token_id
    longest = max(map(len, sources))
    generated = model.generate(
        input_ids=torch.tensor([[*source, *[padding] * (longest - len(source))] for source in sources]),
        attention_mask=torch.tensor([[1] * len(source) + [0] * (longest - len(source)) for source in sources]),
        return_dict_in_generate=True,
        output_scores=True,
        **options,
    )
    rows = generated.sequences.tolist()
    ranks = generated.get("sequences_scores", torch.full((len(rows),), torch.nan)).tolist()
    outputs = [tuple(row[1 : row.index(end)] if end in row else row[1:]) for row in rows]
    nbest = len(outputs) // len(sources)
    pairs = list(zip(outputs, ranks, strict=True))
    return [pairs[i : i + nbest] for i in range(0, len(pairs), nbest)]


def count_ties(
    model: Marian,
    follow: Follow,
    sources: Sequence[Sequence[int]],
    found: Sequence[Output],
    expected: Sequence[Output],
    length_penalty: float = 1.0,
) -> int:
    """The number of hypotheses that differ. Each must have the same rank, to the precision of the arithmetic."""
    different = [(s, f, e) for s, f, e in zip(sources, found, expected, strict=True) if f != e]
    for source, ours, theirs in different:
        ranks = [rank(model, follow, source, output, length_penalty) for output in (ours, theirs)]
        assert ranks[0] == pytest.approx(ranks[1], abs=1e-4), f"{source}: {ours} is not {theirs}, ranks {ranks}"
    return len(different)


def rank(model: Marian, follow: Follow, source: Sequence[int], output: Output, length_penalty: float) -> float:
    """The sum of the log-probabilities of the tokens and the end token, divided by (their number ** the penalty)."""
    said = (*output, model.config.eos_token_id)
    after = follow(model, [source], [[model.config.decoder_start_token_id, *output]])[0]
    return float(after[range(len(said)), said].sum()) / len(said) ** length_penalty
