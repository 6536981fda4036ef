"""Which pieces translate which."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.training.data import Pair
from models.training.lexicon import Lexicon
from models.training.spans import Aligner
from models.training.vocabulary import Vocabulary

PAD = 9


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    """1 is 4, 2 is 5, 3 is 6; 7 is itself."""
    pairs = [([1, 2], [4, 5]), ([2, 1], [5, 4]), ([1, 3], [4, 6]), ([3, 2], [6, 5]), ([3], [6])] * 3
    return Lexicon.learn(pairs, 10, True)


def test_alignment_is_of_what_occurs_together(lexicon: Lexicon) -> None:
    aligned = lexicon.alignment(np.array([[1, 2, 3], [3, 7, PAD]]), np.array([[6, 4, 5], [7, 6, PAD]]), PAD)
    assert aligned.argmax(-1).tolist() == [[2, 0, 1], [1, 0, 0]]
    assert np.allclose(aligned.sum(-1), [[1, 1, 1], [1, 1, 0]])
    assert not aligned[1, :, 2].any()


def test_there_is_no_opinion_on_what_was_never_seen(lexicon: Lexicon) -> None:
    assert not lexicon.alignment(np.array([[1, 2]]), np.array([[8, 8]]), PAD).any()
    assert not Lexicon.learn([], 10, False).alignment(np.array([[1]]), np.array([[1]]), PAD).any()


def test_it_comes_back_from_its_file(lexicon: Lexicon, tmp_path: Path) -> None:
    lexicon.save(tmp_path / "lexicon.npz")
    again = Lexicon.load(tmp_path / "lexicon.npz")
    arguments = (np.array([[1, 2, 3, 7]]), np.array([[4, 5, 6, 7]]))
    assert np.array_equal(again.scores(*arguments), lexicon.scores(*arguments))


def test_spans_of_words(trained: Path) -> None:
    """Contiguous on both sides, shorter ones first, never half of a word."""
    aligner = Aligner(Vocabulary(trained / "model"), Lexicon.load(trained / "lexicon.npz"))
    pair = Pair("Le marchand voit le jardin.", "The merchant sees the garden.")
    spans = aligner.spans(pair, 2)
    found = {(pair.source[slice(*span.source)], pair.target[slice(*span.target)]) for span in spans}
    assert {("marchand", "merchant"), ("jardin", "garden"), ("marchand voit", "merchant sees")} <= found
    assert [span.words for span in spans] == sorted(span.words for span in spans)
    assert max(span.words for span in spans) == 2
    assert aligner.spans(Pair("", ""), 3) == []
