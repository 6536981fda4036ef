"""Translations that are assembled from made-up hypotheses."""

from __future__ import annotations

from typing import Any

import pytest

from models.checkpoint.metadata import Symbols
from models.engine.batch import Hypothesis
from models.errors import ModelError
from models.translation.draft import Draft
from models.translation.results import Alternative, Sentence, Translation, assemble
from models.translation.runaways import Decoded
from text.segment import Segmentation

WORDS = ("", "It", "rains", "pours", "Sleep", "Go")


class Words:
    unknown_id = 9
    symbols = Symbols()

    def decode(self, tokens: tuple[int, ...]) -> str:
        return " ".join(WORDS[token] for token in tokens)


def found(*tokens: int, score: float, finish_reason: Any = "eos") -> Hypothesis:
    return Hypothesis(tokens, score, finish_reason)


def assembled(outcomes: list[Decoded | ModelError], unknown: bool = False) -> Translation:
    segmentation = Segmentation(("Il pleut", "Dors"), ("> ", " / ", "\n"), frozenset({1}))
    draft = Draft("> Il pleut / Dors\n", segmentation, [(1, 0), (9, 0)], unknown)
    tokenizer: Any = Words()
    return assemble(draft, dict(zip(draft.tokens, outcomes, strict=True)), tokenizer, source="fr", target="en")


def test_text_spans_score_and_flags() -> None:
    first = Decoded([found(1, 2, score=-0.5)], repeated=True)
    second = Decoded([found(4, score=-1.0, finish_reason="length")])
    assert assembled([first, second], unknown=True) == Translation(
        text="> It rains / Sleep\n",
        score=pytest.approx((3 * -0.5 + 2 * -1.0) / 5),
        flags=("REPETITION", "UNKNOWN_TOKENS", "SPLIT", "TRUNCATED"),
        sentences=(
            Sentence((2, 10), (2, 10), -0.5, ("REPETITION",)),
            Sentence((13, 17), (13, 18), -1.0, ("UNKNOWN_TOKENS", "SPLIT", "TRUNCATED")),
        ),
    )


def test_alternatives_say_one_sentence_another_way_the_likeliest_first() -> None:
    first = Decoded([found(1, 2, score=-0.5), found(1, 3, score=-0.9), found(1, 2, score=-1.0)])
    second = Decoded([found(4, score=-0.1), found(5, score=-0.2), found(4, score=-9.0)])
    assert assembled([first, second]).alternatives == (
        Alternative("> It rains / Go\n", pytest.approx((3 * -0.5 + 2 * -0.2) / 5)),
        Alternative("> It pours / Sleep\n", pytest.approx((3 * -0.9 + 2 * -0.1) / 5)),
    )


def test_the_first_error_is_the_texts() -> None:
    error = ModelError("broken")
    assert assembled([Decoded([found(1, score=0.0)]), error]) == Translation(error=error)
