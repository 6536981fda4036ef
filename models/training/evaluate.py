"""How good a model is: BLEU and chrF with their intervals, numbers and holds that come through, runaways, speed.

python -m models evaluate fr-en news.tsv health.tsv --against ./landed
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, cast

import regex

from models.engine.options import DecodingOptions
from models.errors import BadInput
from models.local import LocalTranslator
from models.training.copying import hold
from models.training.data import Pair, read_pairs
from models.training.formats import style
from text.holds import Profile

RESAMPLES = 1000  # of the bootstrap, as sacreBLEU has it
_DIGITS = regex.compile(r"\d+")
_SEED = 20  # of the places where holds are put


class Share(NamedTuple):
    """So many of so many."""

    kept: int
    of: int

    def __str__(self) -> str:
        return f"{self.kept} of {self.of}"


class Score(NamedTuple):
    """A corpus score; `low` and `high` are the ends of its 95 % interval, nan where none was made."""

    score: float
    low: float = math.nan
    high: float = math.nan

    def __str__(self) -> str:
        if math.isnan(self.low):
            return f"{self.score:.1f}"
        return f"{self.score:.1f} ± {(self.high - self.low) / 2:.1f}"


class Output(NamedTuple):
    """Translations in order; `runaways` of the model's `sentences` repeated themselves at the first try."""

    texts: list[str]
    runaways: Share
    seconds: float


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one model on one set. `numbers`: sentences whose groups of digits all come through, of those whose reference
    has them all. `holds`: copy symbols that come out exactly once, None for a model that has none."""

    name: str
    pairs: int
    bleu: Score
    chrf: Score
    numbers: Share
    holds: Share | None
    runaways: Share
    sentences_per_second: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """The score of the second model, and how likely a difference as large is by chance (paired bootstrap)."""

    metric: str
    first: float
    second: float
    p: float


def evaluate(
    translator: LocalTranslator,
    name: str,
    pairs: Sequence[Pair],
    *,
    beam: int | None = None,
    resamples: int = RESAMPLES,
    target: str | None = None,
) -> tuple[Figures, list[str]]:
    """The figures on a set of pairs, and the translations. Needs sacreBLEU. Raises BadInput for no pairs."""
    if not pairs:
        raise BadInput(f"{name} holds no sentence pair.")
    output = translate(translator, [pair.source for pair in pairs], beam, target)
    references = [pair.target for pair in pairs]
    bleu, chrf = scores(output.texts, references, resamples)
    figures = Figures(
        name=name,
        pairs=len(pairs),
        bleu=bleu,
        chrf=chrf,
        numbers=numbers_kept(pairs, output.texts),
        holds=_holds(translator, pairs, beam, target),
        runaways=output.runaways,
        sentences_per_second=len(pairs) / max(output.seconds, 1e-9),
    )
    return figures, output.texts


def translate(
    translator: LocalTranslator, texts: Sequence[str], beam: int | None = None, target: str | None = None
) -> Output:
    """What the model itself makes of the texts: nothing is held. A text that fails becomes an empty one. `target` is
    the language that a multilingual model needs."""
    options = replaced_beam(translator, beam)
    start = time.perf_counter()
    results = translator.translate(texts, target=target, options=options, profile=Profile.OFF).results
    seconds = time.perf_counter() - start
    sentences = [sentence for result in results for sentence in result.sentences]
    runaways = Share(sum("REPETITION" in sentence.flags for sentence in sentences), len(sentences))
    return Output([result.text or "" for result in results], runaways, seconds)


def replaced_beam(translator: LocalTranslator, beam: int | None) -> DecodingOptions:
    """How the model decodes, with another beam if one is named."""
    return replace(translator.decoding, beam=beam or translator.decoding.beam)


def metrics(references: Sequence[str] | None = None) -> tuple[Any, Any]:
    """sacreBLEU's BLEU and chrF. Raises BadInput where the library is missing."""
    try:
        from sacrebleu import BLEU, CHRF
    except ImportError as error:
        raise BadInput("Scores need sacreBLEU: pip install sacrebleu, or Tolk's extra `train`.") from error
    known = [references] if references is not None else None
    return BLEU(references=known), CHRF(references=known)


def scores(texts: Sequence[str], references: Sequence[str], resamples: int = RESAMPLES) -> tuple[Score, Score]:
    """BLEU and chrF of a corpus, with intervals where `resamples` is 2 or more. Raises BadInput without sacreBLEU."""
    bleu, chrf = metrics()
    return _score(bleu, texts, references, resamples), _score(chrf, texts, references, resamples)


def _score(metric: Any, texts: Sequence[str], references: Sequence[str], resamples: int) -> Score:
    found = metric.corpus_score(texts, [references], n_bootstrap=max(1, resamples))
    if resamples < 2:
        return Score(found.score)
    mean, half = float(found._mean), float(found._ci)
    return Score(found.score, mean - half, mean + half)


def numbers_kept(pairs: Iterable[Pair], texts: Iterable[str]) -> Share:
    """Sentences whose groups of digits are in the translation as often as in the source, of those where this holds for
    the reference."""
    kept = of = 0
    for pair, text in zip(pairs, texts, strict=True):
        digits = Counter(_DIGITS.findall(pair.source))
        if digits and Counter(_DIGITS.findall(pair.target)) == digits:
            of += 1
            kept += Counter(_DIGITS.findall(text)) == digits
    return Share(kept, of)


def _holds(translator: LocalTranslator, pairs: Iterable[Pair], beam: int | None, target: str | None) -> Share | None:
    """Copy symbols put in place of what both sides share, always at the same places."""
    symbols = translator.tokenizer.symbols
    if not symbols.holds:
        return None
    random = Random(_SEED)  # noqa: S311 - no secret
    styles = (style(translator.source), style(translator.target))
    held = [hold(pair, symbols, styles, random).source for pair in pairs]
    texts = translate(translator, held, beam, target).texts
    kept = of = 0
    for source, text in zip(held, texts, strict=True):
        for symbol in symbols.holds:
            if symbol in source:
                of += 1
                kept += text.count(symbol) == 1
    return Share(kept, of)


def compare(
    references: Sequence[str], first: Sequence[str], second: Sequence[str], resamples: int = RESAMPLES
) -> list[Comparison]:
    """By sacreBLEU's paired bootstrap; p is 1 for equal scores, which it takes for a difference."""
    bleu, chrf = metrics(references)
    from sacrebleu.significance import PairedTest

    systems: list[Any] = [("first", first), ("second", second)]
    _, found = PairedTest(systems, {"BLEU": bleu, "chrF": chrf}, references=None, test_type="bs", n_samples=resamples)()
    results = cast("dict[str, list[Any]]", found)
    del results["System"]
    return [
        Comparison(metric, one.score, two.score, float(two.p_value) if one.score != two.score else 1.0)
        for metric, (one, two) in results.items()
    ]


def signatures(resamples: int = RESAMPLES) -> list[str]:
    """What sacreBLEU calls these scores, for whoever wants to compare with theirs."""
    found = []
    for metric in metrics():
        score = metric.corpus_score([""], [[""]], n_bootstrap=max(1, resamples))
        found.append(f"{score.name}|{metric.get_signature()}")
    return found


def table(figures: Iterable[Figures]) -> str:
    """For people."""
    rows = [("", "pairs", "BLEU", "chrF", "numbers", "holds", "runaways", "sentences/s")]
    for each in figures:
        rows.append(
            (
                each.name,
                str(each.pairs),
                str(each.bleu),
                str(each.chrf),
                str(each.numbers),
                str(each.holds or "-"),
                str(each.runaways),
                f"{each.sentences_per_second:.0f}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(lines)


def in_json(figures: Figures) -> dict[str, Any]:
    said = asdict(figures)
    for name in ("bleu", "chrf"):
        score: Score = getattr(figures, name)
        said[name] = {k: None if math.isnan(v) else v for k, v in score._asdict().items()}
    for name in ("numbers", "holds", "runaways"):
        share: Share | None = getattr(figures, name)
        said[name] = share._asdict() if share else None
    return said


def read_set(path: Path, source: str, target: str, *, reverse: bool) -> list[Pair]:
    """The pairs of a file that have both sides."""
    return [pair for pair in read_pairs(path, source, target, reverse=reverse) if all(pair)]
