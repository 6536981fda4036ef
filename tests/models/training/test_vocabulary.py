"""Pieces and symbols."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from models.checkpoint.metadata import Symbols
from models.tokenizer import Tokenizer
from models.training.config import Vocabulary as Settings
from models.training.spans import words
from models.training.vocabulary import PAD, Vocabulary, copy, symbols

if TYPE_CHECKING:
    from tests.models.conftest import MakeModel


def test_ids_are_those_of_the_tokenizer(trained: Path) -> None:
    vocabulary, tokenizer = Vocabulary(trained / "model"), Tokenizer.load(trained / "model")
    texts = ["Le chat voit 12 chiens.", "⟦h0⟧ aime ⟦o1⟧ le roi ⟦c1⟧.", "日本"]
    assert vocabulary.encode(0, texts) == vocabulary.encode(1, texts) == [tokenizer.encode(text) for text in texts]
    assert vocabulary.ids[0][PAD] == max(vocabulary.ids[0].values()) == len(vocabulary.ids[0]) - 1


def test_symbols_and_digits_stay_apart(trained: Path) -> None:
    vocabulary = Vocabulary(trained / "model")
    pieces = vocabulary.locate(0, "x⟦h0⟧⟦h1⟧ 12345 ⟦t⟧ y ⟦/t⟧").pieces
    assert [piece for piece in pieces if piece in vocabulary.symbols.all] == ["⟦h0⟧", "⟦h1⟧", "⟦t⟧", "⟦/t⟧"]
    assert [piece for piece in pieces if piece.strip("▁").isdigit()] == ["1", "2", "3", "4", "5"]


def test_two_vocabularies_of_a_model(make_model: MakeModel, tmp_path: Path) -> None:
    directory = make_model(separate=True)
    copy(directory, tmp_path / "copied")
    vocabulary = Vocabulary(tmp_path / "copied")
    assert not vocabulary.is_shared
    assert vocabulary.symbols == Symbols()
    assert vocabulary.encode(0, ["Il pleut."]) != vocabulary.encode(1, ["Il pleut."])
    assert [Tokenizer.load(directory).encode("Il pleut.")] == vocabulary.encode(0, ["Il pleut."])


def test_names_of_symbols() -> None:
    made = symbols(Settings(holds=16, pairs=8))
    assert (len(made.holds), len(made.pairs), len(made.all)) == (16, 8, 34)
    assert symbols(Settings(holds=0, pairs=0, terms=False)) == Symbols()


def test_words_are_runs_of_pieces(trained: Path) -> None:
    text = "Le marchand vend 123 bateaux, Tom."
    found = words(text, Vocabulary(trained / "model").locate(0, text))
    assert [text[start:end] for start, end in found.spans] == [
        "Le",
        "marchand",
        "vend",
        "123",
        "bateaux",
        ",",
        "Tom",
        ".",
    ]
