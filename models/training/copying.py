"""Copy symbols and term annotations, put into sentence pairs so that a model learns to obey them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from typing import NamedTuple

import regex

from models.checkpoint.metadata import Symbols
from models.training.data import Pair
from models.training.formats import Style, shared_numbers
from models.training.spans import Aligner, Span

_MOST = 5  # holds of a sentence
_EDGE = 0.1  # of the pairs with holds get one more at an end of both sides
_NOUN = 0.3  # get one for an aligned word that is no name
_OBEY = 0.2  # of the term annotations ask for a word that would not have come
_LONGEST_TERM, _LONGEST_WRAPPED = 3, 5  # words
_TOKEN = regex.compile(
    r"""https?://\S*[\w/] | [\w.+-]+@[\w-]+(?:\.[\w-]+)+ | `[^`\s]+` | \{\{?[^{}\s]*\}?\} | <[^<>]{1,60}>
      | %\(?\w*\)?[sdif@]\b | \$\{?\w+\}? | [\p{L}\p{N}_]+(?:[._/#-][\p{L}\p{N}_]+)*(?:\(\))?""",
    regex.VERBOSE,
)
_WORDS = regex.compile(r"[\p{L}\p{M}][\p{L}\p{M} '’-]{2,}")
_GOES_ON = regex.compile(r"['’-]")
_LETTERS = regex.compile(r"\p{L}+")


class Place(NamedTuple):
    """Characters (start, end) of both sides that say the same."""

    source: tuple[int, int]
    target: tuple[int, int]


def copied(pair: Pair, styles: tuple[Style, Style]) -> list[Place]:
    """What both sides have exactly once and a translation copies: numbers, addresses, code, placeholders, names."""
    found = [Place((a.start, a.end), (b.start, b.end)) for a, b in shared_numbers(pair, styles)]
    sides = []
    for text in pair:
        spans: dict[str, list[tuple[int, int]]] = {}
        for match in _TOKEN.finditer(text):
            spans.setdefault(match[0], []).append(match.span())
        sides.append({token: at[0] for token, at in spans.items() if len(at) == 1})
    for token, at in sides[0].items():
        if token in sides[1] and (not _LETTERS.fullmatch(token) or (token[0].isupper() and len(token) > 2)):
            found.append(Place(at, sides[1][token]))
    return _apart(found)


def _apart(places: Iterable[Place]) -> list[Place]:
    """Without those that overlap an earlier one, on either side."""
    kept: list[Place] = []
    for place in places:
        if not any(_overlap(place.source, k.source) or _overlap(place.target, k.target) for k in kept):
            kept.append(place)
    return kept


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def hold(
    pair: Pair, symbols: Symbols, styles: tuple[Style, Style], random: Random, aligner: Aligner | None = None
) -> Pair:
    """Some of what is copied becomes holds; where there is nothing, an aligned word, or an end of both sides."""
    places = copied(pair, styles)
    if aligner and (not places or random.random() < _NOUN):
        words = _some(_expressions(pair, aligner, 1), random)
        places = _apart([*places, *(Place(span.source, span.target) for span in words)])
    free = random.sample(symbols.holds, min(_MOST + 1, len(symbols.holds)))
    chosen = random.sample(places, random.randint(1, min(_MOST, len(places), len(free)))) if places else []
    changes = [(place.source, place.target, free.pop()) for place in chosen]
    held = _replaced(pair, changes)
    if free and (not changes or random.random() < _EDGE):
        symbol, is_first = free.pop(), random.random() < 0.5
        held = Pair(*(f"{symbol} {text}" if is_first else f"{text} {symbol}" for text in held))
    return held


def wrap(pair: Pair, symbols: Symbols, random: Random, aligner: Aligner) -> Pair:
    """An opening and a closing mark around some words, on both sides, with a space inside of each mark."""
    spans = _some(aligner.spans(pair, _LONGEST_WRAPPED), random)
    for span in spans:
        opening, closing = random.choice(symbols.pairs)
        return Pair(*(_around(text, at, opening, closing) for text, at in zip(pair, span[:2], strict=True)))
    return pair


def annotate(pair: Pair, symbols: Symbols, random: Random, aligner: Aligner, other: Pair) -> Pair:
    """Behind some words of the source, how to translate them; at times with words of the `other` pair instead."""
    for span in _some(_expressions(pair, aligner, _LONGEST_TERM), random):
        term, target = pair.target[slice(*span.target)], pair.target
        foreign = _some(_expressions(other, aligner, 1), random) if random.random() < _OBEY else []
        for each in foreign:
            term = other.target[slice(*each.target)]
            target = target[: span.target[0]] + term + target[span.target[1] :]
        opening, closing = symbols.term
        end = span.source[1]
        source = f"{pair.source[:end]} {opening} {term} {closing}{pair.source[end:]}"
        return Pair(source, target)
    return pair


def _expressions(pair: Pair, aligner: Aligner, longest: int) -> list[Span]:
    """Spans of whole words and nothing else, none of them short."""
    return [
        span
        for span in aligner.spans(pair, longest)
        if _WORDS.fullmatch(pair.source[slice(*span.source)])
        and _WORDS.fullmatch(pair.target[slice(*span.target)])
        and not _GOES_ON.match(pair.source, span.source[1])
    ]


def _some(spans: Sequence[Span], random: Random) -> list[Span]:
    """One of them, if there are any."""
    return [random.choice(spans)] if spans else []


def _around(text: str, span: tuple[int, int], opening: str, closing: str) -> str:
    start, end = span
    return f"{text[:start]}{opening} {text[start:end]} {closing}{text[end:]}"


def _replaced(pair: Pair, changes: Iterable[tuple[tuple[int, int], tuple[int, int], str]]) -> Pair:
    source, target = pair
    changes = list(changes)
    for (start, end), _, symbol in sorted(changes, reverse=True):
        source = source[:start] + symbol + source[end:]
    for _, (start, end), symbol in sorted(changes, key=lambda change: change[1], reverse=True):
        target = target[:start] + symbol + target[end:]
    return Pair(source, target)
