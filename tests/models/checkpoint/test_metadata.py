"""tolk.json: what it says, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from models.checkpoint.checksum import Checksum
from models.checkpoint.metadata import Symbols
from models.errors import UnknownModel
from models.tokenizer import Tokenizer

if TYPE_CHECKING:
    pass

SYMBOLS = Symbols(("⟦h0⟧", "⟦h1⟧"), (("⟦o0⟧", "⟦c0⟧"),), ("⟦t⟧", "⟦/t⟧"))


def test_what_is_said_is_read(tmp_path: Path) -> None:
    (tmp_path / "tolk.json").write_text(json.dumps(SYMBOLS.said() | {"quality": [1, 2]}), encoding="utf-8")
    assert Symbols.load(tmp_path) == SYMBOLS
    assert SYMBOLS.all == ("⟦h0⟧", "⟦h1⟧", "⟦o0⟧", "⟦c0⟧", "⟦t⟧", "⟦/t⟧")


def test_a_model_need_not_have_it(directory: Path) -> None:
    assert Symbols.load(directory) == Tokenizer.load(directory).symbols == Symbols()
    assert "tolk.json" not in Checksum.of(directory).digests


def test_it_counts_as_a_file_of_the_model(directory: Path) -> None:
    before = Checksum.of(directory)
    (directory / "tolk.json").write_text("{}")
    assert str(Checksum.of(directory)) != str(before)
    assert Checksum.of(directory).version == before.version


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"symbols": []}, "an object was expected"),
        ({"symbols": {"holds": "⟦h0⟧"}}, "holds and pairs are lists"),
        ({"symbols": {"holds": [""]}}, "holds and pairs are lists"),
        ({"symbols": {"term": ["⟦t⟧"]}}, "a list of two"),
        ({"symbols": {"pairs": [["⟦o0⟧"]]}}, "pairs of strings were expected"),
        ({"symbols": {"holds": ["a", "a"]}}, "twice"),
        ({"symbols": {"holds": ["⟦h99⟧"]}}, "⟦h99⟧ is in no vocabulary"),
    ],
)
def test_what_does_not_fit_is_refused(directory: Path, said: object, message: str) -> None:
    (directory / "tolk.json").write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(UnknownModel, match=message):
        Tokenizer.load(directory)
