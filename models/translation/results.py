"""The result of a call: translations with scores, alternatives and flags, assembled from decoded sentences."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, get_args

from models.engine.submission import SentenceTimings
from models.errors import ModelError
from models.fidelity.masking import unmask
from models.tokenizer import Tokenizer
from models.translation.draft import Draft
from models.translation.repairs import Choice, Languages, Outcomes, Rendered, choose
from models.translation.runaways import Decoded
from text.segment import fit, join, spans

Flag = Literal["REPETITION", "UNKNOWN_TOKENS", "SPLIT", "TRUNCATED", "NUMBER_MISMATCH", "SOURCE_KEPT"]


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


def assemble(draft: Draft, outcomes: Outcomes, tokenizer: Tokenizer, *, source: str, target: str) -> Translation:
    """The translation of a draft. `outcomes` are those of its sentences and of their second tries; if a sentence has an
    error, the translation fails with the first one.

    The white space between sentences depends on the languages `source` and `target` (text.segment.fit).
    """
    decoded: list[Decoded] = []
    chosen: list[Choice] = []
    for i, tokens in enumerate(draft.tokens):
        outcome, choice = outcomes[tokens], choose(draft, i, outcomes, tokenizer, Languages(source, target))
        if isinstance(outcome, ModelError) or isinstance(choice, ModelError):
            return Translation(error=outcome if isinstance(outcome, ModelError) else None)
        decoded.append(outcome)
        chosen.append(choice)
    best = [each.best[0] for each in chosen]
    texts = [unmask(each.text, draft.holds) for each in best]
    gaps = fit(draft.segmentation.gaps, source, target)
    text = join(gaps, texts)
    sentences = _sentences(draft, decoded, chosen, spans(gaps, texts), tokenizer.unknown_id)
    raised = {flag for sentence in sentences for flag in sentence.flags}
    if draft.unknown:  # counts unknown pieces in layout, too
        raised.add("UNKNOWN_TOKENS")
    alternatives: dict[str, float] = {}
    for score, i, rendered in _swaps(chosen):
        swapped = [*texts[:i], unmask(rendered.text, draft.holds), *texts[i + 1 :]]
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
    draft: Draft,
    decoded: Sequence[Decoded],
    chosen: Sequence[Choice],
    targets: Sequence[tuple[int, int]],
    unknown_id: int,
) -> tuple[Sentence, ...]:
    sources = spans(draft.segmentation.gaps, draft.segmentation.sentences)
    found = []
    for i, (source, target, outcome, choice) in enumerate(zip(sources, targets, decoded, chosen, strict=True)):
        flags: dict[Flag, bool] = {
            "REPETITION": outcome.repeated,
            "UNKNOWN_TOKENS": unknown_id in draft.tokens[i],
            "SPLIT": i in draft.segmentation.parts or "SPLIT" in choice.doubts,
            "TRUNCATED": outcome.best.finish_reason == "length",
            "NUMBER_MISMATCH": "NUMBER_MISMATCH" in choice.doubts,
            "SOURCE_KEPT": "SOURCE_KEPT" in choice.doubts,
        }
        raised = tuple(flag for flag, is_raised in flags.items() if is_raised)
        found.append(Sentence(source, target, choice.best[0].score, raised))
    return tuple(found)


def _score(rendered: Iterable[Rendered]) -> float:
    """The mean log-probability per token, including the end token of each."""
    total, length = 0.0, 0
    for found in rendered:
        total += found.score * found.length
        length += found.length
    return total / length


def _swaps(chosen: Sequence[Choice]) -> Iterator[tuple[float, int, Rendered]]:
    """The next best texts, in each of which one sentence i has another translation: (score of the text, i, it).

    There are as many as a sentence has further translations, nbest - 1.
    """
    best = [choice.best[0] for choice in chosen]

    def others(i: int) -> Iterator[tuple[float, int, Rendered]]:
        for found in chosen[i].best[1:]:
            yield _score([*best[:i], found, *best[i + 1 :]]), i, found

    ranked = heapq.merge(*map(others, range(len(best))), key=lambda swap: -swap[0])
    return islice(ranked, max((len(choice.best) - 1 for choice in chosen), default=0))
