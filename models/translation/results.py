"""The result of a call: translations with scores, alternatives and flags, assembled from decoded sentences."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, get_args

from models.engine.batch import Hypothesis
from models.engine.submission import SentenceTimings
from models.errors import ModelError
from models.tokenizer import Tokenizer
from models.translation.draft import Draft
from models.translation.runaways import Decoded
from text.characters import clean
from text.segment import fit, join, spans
from text.surface import restore
from text.typography import typeset

Flag = Literal["REPETITION", "UNKNOWN_TOKENS", "SPLIT", "TRUNCATED"]


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another translation of the same text, with its score."""

    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of a text. `source` and `target`: the spans (start, end), in characters, of the sentence in the text
    and in the translation. `score`: the mean log-probability per target token.
    """

    source: tuple[int, int]
    target: tuple[int, int]
    score: float
    flags: tuple[Flag, ...] = ()


@dataclass(frozen=True, slots=True)
class Translation:
    """The outcome of a text: its translation `text`, or an `error`.

    `score`: the mean log-probability per target token over all sentences, None if the text has no sentence.
    `alternatives`: the likeliest first; each differs from `text` in one sentence. `flags`: see docs/models.md.
    Characters outside the spans of `sentences` are layout, which is not translated.
    """

    text: str | None = None
    score: float | None = None
    alternatives: tuple[Alternative, ...] = ()
    flags: tuple[Flag, ...] = ()
    sentences: tuple[Sentence, ...] = ()
    error: ModelError | None = None


@dataclass(frozen=True, slots=True)
class Translated:
    """`results`: a translation per text, in order.

    `timings`: the longest time of any sentence, not sums, because sentences share batches. The times of second tries
    are added. `tokens`: what the call took, in source tokens x hypotheses, with the preparation of its texts.
    """

    results: tuple[Translation, ...]
    timings: SentenceTimings
    tokens: float = 0.0


def assemble(
    draft: Draft, outcomes: Iterable[Decoded | ModelError], tokenizer: Tokenizer, *, source: str, target: str
) -> Translation:
    """The translation of a draft. `outcomes` are those of its sentences, in order; if one is an error, the translation
    fails with the first error.

    The white space between sentences depends on the languages `source` and `target` (text.segment.fit).
    """
    decoded: list[Decoded] = []
    for outcome in outcomes:
        if isinstance(outcome, ModelError):
            return Translation(error=outcome)
        decoded.append(outcome)
    best = [sentence.best for sentence in decoded]
    texts = [_text(draft, i, hypothesis, tokenizer, target) for i, hypothesis in enumerate(best)]
    gaps = fit(draft.segmentation.gaps, source, target)
    text = join(gaps, texts)
    sentences = _sentences(draft, decoded, spans(gaps, texts), tokenizer.unknown_id)
    raised = {flag for sentence in sentences for flag in sentence.flags}
    if draft.unknown:  # counts unknown pieces in layout, too
        raised.add("UNKNOWN_TOKENS")
    alternatives: dict[str, float] = {}
    for score, i, hypothesis in _swaps(decoded):
        swapped = [*texts[:i], _text(draft, i, hypothesis, tokenizer, target), *texts[i + 1 :]]
        alternatives.setdefault(join(gaps, swapped), score)
    alternatives.pop(text, None)
    return Translation(
        text=text,
        score=_score(best) if best else None,
        alternatives=tuple(Alternative(*item) for item in alternatives.items()),
        flags=tuple(flag for flag in get_args(Flag) if flag in raised),
        sentences=sentences,
    )


def _sentences(
    draft: Draft, decoded: Sequence[Decoded], targets: Sequence[tuple[int, int]], unknown_id: int
) -> tuple[Sentence, ...]:
    sources = spans(draft.segmentation.gaps, draft.segmentation.sentences)
    found = []
    for i, (source, target, outcome) in enumerate(zip(sources, targets, decoded, strict=True)):
        flags: dict[Flag, bool] = {
            "REPETITION": outcome.repeated,
            "UNKNOWN_TOKENS": unknown_id in draft.tokens[i],
            "SPLIT": i in draft.segmentation.parts,
            "TRUNCATED": outcome.best.finish_reason == "length",
        }
        raised = tuple(flag for flag, is_raised in flags.items() if is_raised)
        found.append(Sentence(source, target, outcome.best.score, raised))
    return tuple(found)


def _text(draft: Draft, i: int, hypothesis: Hypothesis, tokenizer: Tokenizer, target: str) -> str:
    """The text of a hypothesis for sentence `i`, on one line, with the capitals and the end mark of the sentence, and
    the spaces of the language `target`. A sentence of which the model makes nothing stays as it is."""
    sentence = draft.segmentation.sentences[i]
    translation = clean(_without_strays(tokenizer.decode(hypothesis.tokens), draft.text, tokenizer), draft.text)
    return typeset(restore(translation, sentence, target), target) if translation else sentence


def _without_strays(translation: str, text: str, tokenizer: Tokenizer) -> str:
    """The translation without copy symbols that the text does not have."""
    for symbol in tokenizer.symbols.all:
        if symbol in translation and symbol not in text:
            translation = translation.replace(symbol, "")
    return translation


def _score(hypotheses: Iterable[Hypothesis]) -> float:
    """The mean log-probability per token, including the end token of each hypothesis, which `tokens` leaves out."""
    total, length = 0.0, 0
    for found in hypotheses:
        total += found.score * (len(found.tokens) + 1)
        length += len(found.tokens) + 1
    return total / length


def _swaps(decoded: Sequence[Decoded]) -> Iterator[tuple[float, int, Hypothesis]]:
    """The next best texts, in each of which one sentence i has another hypothesis: (score of the text, i, hypothesis).

    There are as many as a sentence has further hypotheses, nbest - 1.
    """
    best = [sentence.best for sentence in decoded]

    def others(i: int) -> Iterator[tuple[float, int, Hypothesis]]:
        for found in decoded[i].hypotheses[1:]:
            yield _score([*best[:i], found, *best[i + 1 :]]), i, found

    ranked = heapq.merge(*map(others, range(len(best))), key=lambda swap: -swap[0])
    return islice(ranked, max((len(sentence.hypotheses) - 1 for sentence in decoded), default=0))
