from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from models.engine.batch import Batch, Hypothesis
from models.engine.options import DecodingOptions
from models.errors import BadInput, ModelError
from models.network.cache import Cache
from models.network.marian import Marian
from models.tokenizer import Tokenizer
from tests.models.double import Double

if TYPE_CHECKING:
    from tests.models.conftest import Decode, Follow, MakeModel

SEARCHES = [
    DecodingOptions(max_length=15),
    DecodingOptions(beam=3, nbest=3, max_length=15),
    DecodingOptions(beam=6, length_penalty=0.4),
]


@pytest.fixture
def model(make_model: MakeModel) -> Marian:
    return Marian.load(make_model(), dtype=torch.float64)


@pytest.fixture(scope="module")
def sources(make_model: MakeModel, sentences: list[str]) -> list[list[int]]:
    """15 sources of different lengths."""
    tokenizer = Tokenizer.load(make_model())
    return [tokenizer.encode(sentence) for sentence in sentences[::20]]


@pytest.mark.parametrize("options", SEARCHES)
def test_neighbours_change_nothing(
    model: Marian, sources: list[list[int]], decode: Decode, options: DecodingOptions
) -> None:
    together = decode(model, sources, options)
    for source, hypotheses in zip(sources, together, strict=True):
        assert_alike(decode(model, [source], options)[0], hypotheses)


@pytest.mark.parametrize("options", SEARCHES)
def test_sentences_come_and_go_and_change_nothing_for_the_others(
    model: Marian, sources: list[list[int]], decode: Decode, options: DecodingOptions
) -> None:
    together = decode(model, sources, options)
    found: dict[int, list[Hypothesis] | ModelError] = {}
    with torch.inference_mode():
        batch: Batch[int] = Batch(model, 5 * options.beam)
        for place, source in enumerate(sources):
            batch.enter({place: (source, options)})
            found |= batch.step()
            if place % 3 == 2:  # before it has finished
                batch.leave([place, place])
            while len(batch) == 5:
                found |= batch.step()
        while len(batch):
            found |= batch.step()
    assert found.keys() >= {place for place in range(len(sources)) if place % 3 != 2}
    for place, hypotheses in found.items():
        assert isinstance(hypotheses, list)
        assert_alike(hypotheses, together[place])


def test_a_step_for_some_leaves_the_others_where_they_are(
    model: Marian, sources: list[list[int]], decode: Decode
) -> None:
    options = DecodingOptions(beam=2, max_length=10)
    found: dict[int, list[Hypothesis] | ModelError] = {}
    with torch.inference_mode():
        batch: Batch[int] = Batch(model, 2 * len(sources))
        batch.enter({i: (source, options) for i, source in enumerate(sources)})
        for some in (range(0, len(sources), 2), range(1, len(sources), 2)):
            while not found.keys() >= {*some}:
                found |= batch.step([i for i in some if i not in found])
    for i, expected in enumerate(decode(model, sources, options)):
        hypotheses = found[i]
        assert isinstance(hypotheses, list)
        assert_alike(hypotheses, expected)


def test_nobody_has_entered_where_the_encoder_fails(model: Marian, sources: list[list[int]]) -> None:
    tries = iter(["out of memory"])

    def prefill(cache: Cache, rows: Sequence[int], sources: Sequence[Sequence[int]]) -> None:
        if (error := next(tries, None)) is not None:
            raise RuntimeError(error)
        model.prefill(cache, rows, sources)

    with torch.inference_mode():
        batch: Batch[int] = Batch(Double(model, prefill=prefill), 4)
        with pytest.raises(RuntimeError, match="out of memory"):
            batch.enter({0: (sources[0], DecodingOptions(beam=4))})
        assert len(batch) == 0
        batch.enter({0: (sources[0], DecodingOptions(beam=4, max_length=2))})  # there is still room
        assert batch.step().keys() <= {0}


def test_sentences_of_a_batch_keep_their_own_options(model: Marian, sources: list[list[int]], decode: Decode) -> None:
    base = DecodingOptions(beam=4, nbest=4, max_length=12)
    each = [
        base,
        replace(base, length_penalty=-1.0),
        replace(base, nbest=1, max_length=5),
        replace(base, no_repeat_ngram=1),
        DecodingOptions(max_length=9),
    ]
    options = [each[i % 5] for i in range(len(sources))]
    found: dict[int, list[Hypothesis] | ModelError] = {}
    with torch.inference_mode():
        batch: Batch[int] = Batch(model, 64)
        batch.enter({i: (source, options[i]) for i, source in enumerate(sources)})
        while len(batch):
            found |= batch.step()
    for i, source in enumerate(sources):
        hypotheses = found[i]
        assert isinstance(hypotheses, list)
        assert_alike(hypotheses, decode(model, [source], options[i])[0])


@pytest.mark.parametrize("options", SEARCHES)
def test_the_score_is_the_mean_log_probability_with_the_end(
    model: Marian, sources: list[list[int]], decode: Decode, follow: Follow, options: DecodingOptions
) -> None:
    reasons = set()
    for source, hypotheses in zip(sources, decode(model, sources, options), strict=True):
        for found in hypotheses:
            said = (*found.tokens, model.config.eos_token_id)
            after = follow(model, [source], [[model.config.decoder_start_token_id, *found.tokens]])[0]
            *tokens, end = after[range(len(said)), said].tolist()
            if found.finish_reason == "length":
                assert len(found.tokens) == (options.max_length or 63) - 1
                end = 0.0
            assert found.score == pytest.approx((sum(tokens) + end) / (len(tokens) + 1), abs=1e-5)
            reasons.add(found.finish_reason)
    assert "length" in reasons


def test_n_best_are_different_and_the_best_is_first(model: Marian, sources: list[list[int]], decode: Decode) -> None:
    for hypotheses in decode(model, sources, DecodingOptions(beam=5, nbest=5, max_length=10)):
        assert len({found.tokens for found in hypotheses}) == 5
        assert hypotheses == sorted(hypotheses, key=lambda found: -found.score)
    best = decode(model, sources, DecodingOptions(beam=5, nbest=2, max_length=10))
    assert [len(hypotheses) for hypotheses in best] == [2] * len(sources)


def test_a_beam_finds_what_is_no_less_likely_than_greedy_search(
    model: Marian, sources: list[list[int]], decode: Decode
) -> None:
    greedy = decode(model, sources, DecodingOptions(max_length=10))
    beam = decode(model, sources, DecodingOptions(beam=8, max_length=10))
    gains = [b[0].score - g[0].score for b, g in zip(beam, greedy, strict=True)]
    assert sum(gains) / len(gains) > 0.01


@pytest.mark.parametrize("beam", [1, 4])
def test_padding_and_banned_tokens_are_never_said(
    model: Marian, sources: list[list[int]], decode: Decode, beam: int
) -> None:
    model.config = replace(model.config, bad_token_ids=(model.config.pad_token_id, 7))
    model.final_logits_bias[0, [model.config.pad_token_id, 7]] = 50.0
    for hypotheses in decode(model, sources, DecodingOptions(beam=beam, max_length=6)):
        assert not {model.config.pad_token_id, 7} & set(hypotheses[0].tokens)
        assert hypotheses[0].score < -4  # scores are the model's, which finds the banned tokens likely


@pytest.mark.parametrize("beam", [1, 4])
def test_no_run_of_tokens_comes_twice(model: Marian, sources: list[list[int]], decode: Decode, beam: int) -> None:
    for size in (1, 2, 3):
        for hypotheses in decode(model, sources, DecodingOptions(beam=beam, max_length=30, no_repeat_ngram=size)):
            tokens = hypotheses[0].tokens
            runs = [tokens[i : i + size] for i in range(len(tokens) - size + 1)]
            assert len(set(runs)) == len(runs)


@pytest.mark.parametrize("beam", [1, 4])
def test_a_model_that_computes_nan_fails(model: Marian, sources: list[list[int]], decode: Decode, beam: int) -> None:
    model.source_embedding.weight[sources[0][0]] = math.nan
    with pytest.raises(ModelError, match="nan"):
        decode(model, sources[:1], DecodingOptions(beam=beam))


@pytest.mark.parametrize(
    "options",
    [
        {"beam": 0},
        {"nbest": 0},
        {"beam": 2, "nbest": 3},
        {"beam": 65},
        {"max_length": 0},
        {"no_repeat_ngram": -1},
        {"length_penalty": math.nan},
        {"length_penalty": math.inf},
        {"length_penalty": 1e9},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(BadInput, match="options"):
        DecodingOptions(**options)  # type: ignore[arg-type]


def assert_alike(found: Sequence[Hypothesis], expected: Sequence[Hypothesis]) -> None:
    assert [each.tokens for each in found] == [each.tokens for each in expected]
    assert [each.finish_reason for each in found] == [each.finish_reason for each in expected]
    assert [each.score for each in found] == pytest.approx([each.score for each in expected], abs=1e-5)
