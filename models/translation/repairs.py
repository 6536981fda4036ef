"""Sentences whose translation lost a hold or a number: what is decoded once more, and what is taken in the end.

The tiers, from the first: a hypothesis of the beam that has everything; a second try, in which numbers are held too;
the words between the holds, each part by itself; the sentence as it is. Whatever a model says, the last one has all
holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Literal, NamedTuple

from models.engine.batch import Hypothesis
from models.errors import ModelError
from models.fidelity.masking import Carried, Held, Holds, in_parts, mask, masks, placed, unmask
from models.tokenizer import Tokenizer
from models.translation.draft import Draft, Tokens
from models.translation.runaways import Decoded
from text.characters import clean
from text.holds import Hold
from text.numbers import amounts, mismatch, numbers, written
from text.surface import restore
from text.typography import typeset

Doubt = Literal["SPLIT", "NUMBER_MISMATCH", "SOURCE_KEPT"]
Outcomes = Mapping[Tokens, Decoded | ModelError]


class Rendered(NamedTuple):
    """The text of a hypothesis, with the private characters of holds, its score and how many tokens that counts."""

    text: str
    score: float
    length: int


class Choice(NamedTuple):
    """The translations of a sentence that have all of its holds, the best first, and the doubts about that."""

    best: Sequence[Rendered]
    doubts: frozenset[Doubt] = frozenset()


class Languages(NamedTuple):
    source: str
    target: str


class _Again(NamedTuple):
    """A second try: its tokens, how holds and numbers are carried, and what they stand for."""

    tokens: Tokens
    carried: Carried
    holds: Holds


def second_tries(
    drafts: Iterable[Draft | Exception], outcomes: Outcomes, *, tokenizer: Tokenizer, source: str, target: str
) -> list[Tokens]:
    """What to decode for the sentences without a satisfying outcome, all of it at once. `outcomes` lacks the sentences
    that are decoded again for another reason."""
    wanted: list[Tokens] = []
    languages = Languages(source, target)
    for draft in drafts:
        if not isinstance(draft, Draft):
            continue
        for i, sentence in enumerate(draft.sentences):
            has_holds = sentence in draft.carried
            if not has_holds and not numbers(sentence, source):
                continue
            outcome = outcomes.get(draft.tokens[i])
            if isinstance(outcome, ModelError):
                continue
            kept = _kept(draft, i, outcome, tokenizer, languages) if outcome is not None else []
            if any(_same_numbers(sentence, each, languages) for each in kept):
                continue
            if (again := _again(draft, i, languages)) is not None:
                wanted.append(again.tokens)
            if has_holds and not kept:
                wanted += [tokens for tokens in _parts(draft, i).values() if tokens]
    return wanted


def choose(draft: Draft, i: int, outcomes: Outcomes, tokenizer: Tokenizer, languages: Languages) -> Choice | ModelError:
    """What becomes of sentence `i` of a draft, by the outcomes of all tries."""
    outcome = outcomes[draft.tokens[i]]
    if isinstance(outcome, ModelError):
        return outcome
    sentence = draft.sentences[i]
    kept = _kept(draft, i, outcome, tokenizer, languages)
    right = [each for each in kept if _same_numbers(sentence, each, languages)]
    if right:
        return Choice(right)
    again = _again(draft, i, languages)
    second = outcomes.get(again.tokens) if again is not None else None
    if again is not None and isinstance(second, Decoded):
        texts = _rendered(sentence, second, again.carried.carriers, again.holds, tokenizer, languages, draft)
        made = {private: held for private, held in again.holds.items() if private not in draft.holds}
        numbered = [each._replace(text=unmask(each.text, made)) for each in texts]
        right = [each for each in numbered if _same_numbers(sentence, each, languages)]
        if right:
            return Choice(right)
        kept = kept or numbered
    if kept:
        return Choice(kept, frozenset({"NUMBER_MISMATCH"}))
    return _divided(draft, i, outcome, outcomes, tokenizer, languages)


def _divided(
    draft: Draft, i: int, outcome: Decoded, outcomes: Outcomes, tokenizer: Tokenizer, languages: Languages
) -> Choice:
    """The words between the holds by themselves, or the sentence as it is."""
    sentence, found = draft.sentences[i], dict[str, str]()
    for part, tokens in _parts(draft, i).items():
        decoded = outcomes.get(tokens)
        if not isinstance(decoded, Decoded):
            return Choice([Rendered(sentence, outcome.best.score, 1)], frozenset({"SOURCE_KEPT"}))
        found[part] = _text(part, decoded.best, tokenizer, languages, draft) or part
    whole = Rendered(in_parts(sentence, draft.holds, lambda part: found.get(part, part)), outcome.best.score, 1)
    doubts: set[Doubt] = {"SPLIT"}
    if not _same_numbers(sentence, whole, languages):
        doubts.add("NUMBER_MISMATCH")
    return Choice([whole], frozenset(doubts))


def _parts(draft: Draft, i: int) -> dict[str, Tokens]:
    """The tokens of the words between the holds of a sentence, by those words."""
    found: dict[str, Tokens] = {}

    def note(part: str) -> str:
        if any(each.isalpha() for each in part) and (encoded := draft.encode(part, {}, ())):
            found[part] = encoded[0]
        return part

    in_parts(draft.sentences[i], draft.holds, note)
    return found


def _again(draft: Draft, i: int, languages: Languages) -> _Again | None:
    """The sentence with its numbers as holds, too, in the spelling of the target language, and other carriers."""
    sentence = draft.sentences[i]
    spans = [Hold(start, end, "number") for start, end in amounts(sentence, languages.source)]
    masked, made = mask(sentence, spans, taken="".join(draft.holds))
    made = {private: Held(written(held.text, languages.source, languages.target)) for private, held in made.items()}
    own = {private: draft.holds[private] for private in masks(sentence, draft.holds)}
    for line, holds in ((masked, own | made), (sentence, own)):
        if holds and (encoded := draft.encode(line, holds, draft.carriers[::-1])):
            return _Again(*encoded, holds)
    return None


def _kept(draft: Draft, i: int, outcome: Decoded, tokenizer: Tokenizer, languages: Languages) -> list[Rendered]:
    """The hypotheses with every hold exactly once."""
    sentence = draft.sentences[i]
    carried = draft.carried.get(sentence)
    carriers = carried.carriers if carried else {}
    return _rendered(sentence, outcome, carriers, draft.holds, tokenizer, languages, draft)


def _rendered(
    sentence: str,
    outcome: Decoded,
    carriers: Mapping[str, str],
    holds: Holds,
    tokenizer: Tokenizer,
    languages: Languages,
    draft: Draft,
) -> list[Rendered]:
    found = []
    place = partial(placed, sentence=sentence, carriers=carriers, holds=holds)
    for each in outcome.hypotheses:
        text = _text(sentence, each, tokenizer, languages, draft, place if carriers else None)
        if text is not None:
            found.append(Rendered(text, each.score, len(each.tokens) + 1))
    return found


def _text(
    sentence: str,
    hypothesis: Hypothesis,
    tokenizer: Tokenizer,
    languages: Languages,
    draft: Draft,
    place: Callable[[str], str | None] | None = None,
) -> str | None:
    """The text of a hypothesis, on one line, with the capitals and the end mark of the sentence, and the spaces of the
    target language. None if `place` says that it lacks a hold. A sentence of which the model makes nothing stays as it
    is."""
    said: str | None = tokenizer.decode(hypothesis.tokens)
    if place is not None and (not said or (said := place(said)) is None):
        return None
    translation = clean(_without_strays(said or "", draft.text, tokenizer), draft.text)
    if not translation:
        return sentence
    capitals = sentence in draft.softened
    return typeset(restore(translation, sentence, languages.target, capitals=capitals), languages.target)


def _without_strays(translation: str, text: str, tokenizer: Tokenizer) -> str:
    """The translation without copy symbols that the text does not have."""
    for symbol in tokenizer.symbols.all:
        if symbol in translation and symbol not in text:
            translation = translation.replace(symbol, "")
    return translation


def _same_numbers(sentence: str, rendered: Rendered, languages: Languages) -> bool:
    return mismatch(sentence, rendered.text, *languages) is None
