"""A student's corpus."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from models.__main__ import main
from models.errors import BadInput
from models.local import LocalTranslator
from models.training.data import Pair, read_pairs
from models.training.distill import distill, finished

TEXTS = ["Je vais dormir.", "Il pleut.", "Merci !", "Non.", "Oui.", "x\x00", "Bonjour."]


@pytest.fixture(scope="module")
def teacher() -> Any:
    with LocalTranslator.load("fr-en", precision="float32") as found:
        yield found


def test_translations_beside_their_sources(teacher: LocalTranslator, tmp_path: Path) -> None:
    path = tmp_path / "made.tsv.gz"
    assert distill(teacher, TEXTS, path, beam=2, lines=3) == 7
    made = list(read_pairs(path, "fr", "en"))
    assert made[:2] == [Pair("Je vais dormir.", "I'm going to sleep."), Pair("Il pleut.", "It's raining.")]
    assert [pair.target for pair in made].count("") == 1  # the text that cannot be translated
    assert finished(path) == (7, path.stat().st_size)


@pytest.mark.parametrize("lost", [1, 20, 100])
def test_it_goes_on_where_it_ended(teacher: LocalTranslator, tmp_path: Path, lost: int) -> None:
    """However much of the last member was written."""
    path, whole = tmp_path / "made.tsv.gz", tmp_path / "whole.tsv.gz"
    distill(teacher, TEXTS, whole, beam=1, lines=3)
    path.write_bytes(whole.read_bytes()[:-lost])
    assert finished(path)[0] in (0, 3, 6)
    assert distill(teacher, TEXTS, path, beam=1, lines=3) == 7
    assert gzip.decompress(path.read_bytes()) == gzip.decompress(whole.read_bytes())
    before = path.read_bytes()
    assert distill(teacher, TEXTS, path, beam=1, lines=3) == 7
    assert path.read_bytes() == before


def test_a_corpus_of_other_texts(teacher: LocalTranslator, tmp_path: Path) -> None:
    distill(teacher, TEXTS, tmp_path / "made.tsv.gz", beam=1)
    with pytest.raises(BadInput, match="has more lines than there are texts"):
        distill(teacher, TEXTS[:3], tmp_path / "made.tsv.gz", beam=1)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "some.tsv").write_text("Oui.\tYes.\nNon.\tNo.\nOui.\tYeah.\n", encoding="utf-8")
    output = tmp_path / "made.tsv.gz"
    assert main(["distill", "fr-en", str(tmp_path / "some.tsv"), "--output", str(output), "--beam", "1"]) == 0
    assert capsys.readouterr().out == f"{output}: 2 lines\n"
    assert [pair.source for pair in read_pairs(output, "fr", "en")] == ["Oui.", "Non."]
