"""Says whether an answer is right: what this very model makes of the sentence, in one of the ways to compute it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

import ctranslate2
from sentencepiece import SentencePieceProcessor

from models.engine.options import DecodingOptions
from models.local import LocalTranslator

SIMILAR = 0.6  # of an answer to the right one, 0 to 1, above which rounding explains the difference
LIMIT = 128  # target tokens


class Verdict(StrEnum):
    """`DRIFTED`: nearly right. `CROSSED`: the translation of another sentence."""

    RIGHT = "right"
    DRIFTED = "drifted"
    CROSSED = "crossed"
    WRONG = "wrong"


class Judge:
    """Judges translations of `texts` by those of CTranslate2, sentence by sentence, in float32 and in int8, and by
    those of Tolk without a service, which differ where it splits a text or mends the surface."""

    def __init__(self, texts: Sequence[str], model: Path) -> None:
        self.texts = texts
        translated = [_translated(texts, model, precision) for precision in ("float32", "int8")]
        with LocalTranslator.load(str(model / "hf")) as translator:
            options = DecodingOptions(beam=1)
            translated.append([translator.translate([text], options=options).results[0].text or "" for text in texts])
        self._right = [{each.strip() for each in found} for found in zip(*translated, strict=True)]
        self._all = set[str]().union(*self._right)
        self._known: dict[tuple[int, str], Verdict] = {}

    def __call__(self, number: int, answer: str) -> Verdict:
        answer = answer.strip()
        if (number, answer) not in self._known:
            self._known[number, answer] = self._judge(number, answer)
        return self._known[number, answer]

    def _judge(self, number: int, answer: str) -> Verdict:
        if answer in self._right[number]:
            return Verdict.RIGHT
        if any(
            difflib.SequenceMatcher(None, answer, each, autojunk=False).ratio() > SIMILAR
            for each in self._right[number]
        ):
            return Verdict.DRIFTED
        return Verdict.CROSSED if answer in self._all else Verdict.WRONG


def _translated(texts: Sequence[str], model: Path, precision: str) -> list[str]:
    pieces = SentencePieceProcessor(model_file=str(model / "hf" / "source.spm"))
    translator = ctranslate2.Translator(str(model / precision), inter_threads=1, intra_threads=1)
    found = []
    for text in texts:
        tokens = [*pieces.encode(text, out_type=str), "</s>"]
        result = translator.translate_batch([tokens], beam_size=1, max_decoding_length=LIMIT)
        found.append(pieces.decode(result[0].hypotheses[0]))
    return found
