"""Figures of a model."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
import sacrebleu

from models.__main__ import main
from models.errors import BadInput
from models.local import LocalTranslator
from models.training.data import Pair
from models.training.evaluate import (
    Score,
    Share,
    compare,
    evaluate,
    in_json,
    numbers_kept,
    signatures,
    table,
    translate,
)

PAIRS = [
    Pair("Je vais dormir.", "I'm going to sleep."),
    Pair("Il pleut.", "It's raining."),
    Pair("Où est la gare ?", "Where is the train station?"),
    Pair("Tom a 3 chats.", "Tom has 3 cats."),
    Pair("Bonjour.", "Good morning."),
]


@pytest.fixture(scope="module")
def translator() -> Any:
    with LocalTranslator.load("fr-en", precision="float32") as found:
        yield found


def test_scores_are_sacrebleus(translator: LocalTranslator) -> None:
    figures, texts = evaluate(translator, "some", PAIRS, beam=1, resamples=50)
    assert texts[0] == "I'm going to sleep."
    references = [[pair.target for pair in PAIRS]]
    assert figures.bleu.score == pytest.approx(sacrebleu.corpus_bleu(texts, references).score)
    assert figures.chrf.score == pytest.approx(sacrebleu.corpus_chrf(texts, references).score)
    assert figures.bleu.low < figures.bleu.high
    assert (figures.pairs, figures.holds, figures.runaways) == (5, Share(6, 6), Share(0, 5))
    assert figures.numbers.of == 1
    assert figures.sentences_per_second > 0
    assert json.loads(json.dumps(in_json(figures)))["numbers"]["of"] == 1
    head, row = table([figures]).splitlines()
    assert head.split() == ["pairs", "BLEU", "chrF", "numbers", "holds", "runaways", "sentences/s"]
    assert row.split()[:2] == ["some", "5"]


def test_numbers_that_come_through() -> None:
    pairs = [
        Pair("1 234,56 et 7", "1,234.56 and 7"),
        Pair("7 et 8", "7 and 8"),
        Pair("7 et 7", "7 and 7"),
        Pair("à 14 h 30", "at 2:30 p.m."),  # the reference says it in other digits
        Pair("rien", "nothing 5"),
    ]
    assert numbers_kept(pairs, ["7 or 1,234.56", "8 and 8", "7", "14:30", ""]) == Share(1, 3)


def test_a_model_against_another() -> None:
    references = [f"The cat number {i} sees the dog in the garden." for i in range(30)]
    worse = [f"The cat {i} looked at a dog in one garden." for i in range(30)]
    bleu, chrf = compare(references, references, worse, resamples=100)
    assert (bleu.metric, chrf.metric) == ("BLEU", "chrF2")
    assert bleu.first == pytest.approx(100)
    assert bleu.second < 50
    assert bleu.p < 0.05
    assert all(each.p == 1 for each in compare(references, worse, worse, resamples=100))


def test_signatures() -> None:
    bleu, chrf = signatures(100)
    assert bleu.startswith("BLEU|nrefs:1|bs:100|seed:")
    assert chrf.startswith("chrF2|nrefs:1|")


def test_holds_of_a_model_that_has_symbols(trained: Path, pairs: list[Pair]) -> None:
    with LocalTranslator.load(str(trained / "model"), precision="float32") as translator:
        figures, _ = evaluate(translator, "some", pairs[:20], beam=1, resamples=0)
    assert figures.holds is not None
    assert figures.holds.of >= 20
    assert str(Score(12.34)) == "12.3"


def test_runaways_of_first_tries_are_counted(translator: LocalTranslator) -> None:
    output = translate(translator, ["Il pleut. Je dors.", "x\x00"])
    assert output.runaways == Share(0, 2)
    assert output.texts[1] == ""


def test_without_sacrebleu(translator: LocalTranslator, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def missing(name: str, *arguments: Any, **more: Any) -> Any:
        if name.startswith("sacrebleu"):
            raise ImportError(name)
        return original(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(BadInput, match="pip install sacrebleu"):
        evaluate(translator, "some", PAIRS, beam=1)


def test_no_pairs(translator: LocalTranslator) -> None:
    with pytest.raises(BadInput, match="some holds no sentence pair"):
        evaluate(translator, "some", [])


def test_the_command(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "some.tsv").write_text("".join(f"{b}\t{a}\n" for a, b in PAIRS), encoding="utf-8")
    arguments = ["evaluate", "fr-en", str(tmp_path / "some.tsv"), "--reverse", "--beam", "1", "--precision", "float32"]
    against = ["--against", str(trained / "model"), "--resamples", "20"]
    assert main([*arguments, *against, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [figures["name"] for figures in said["models"]["fr-en"]] == ["some"]
    assert [each["metric"] for each in said["comparisons"]["some"]] == ["BLEU", "chrF2"]
    assert len(said["signatures"]) == 2
    assert main([*arguments, *against]) == 0
    out = capsys.readouterr().out
    assert "some  BLEU  " in out
    assert "chrF2|nrefs:1" in out
    assert main(["evaluate", "fr-en", str(tmp_path / "none.tsv")]) == 2
