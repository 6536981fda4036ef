"""Words of a sentence that go with words of its translation, found by the lexicon."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import regex

from models.training.data import Pair
from models.training.lexicon import Lexicon
from models.training.vocabulary import Located, Vocabulary

_LETTER = regex.compile(r"[\p{L}\p{N}]")
_LIKELY = 0.3  # of a link of two words, to count


class Span(NamedTuple):
    """Characters (start, end) of both sides that translate each other; `words` of the source."""

    source: tuple[int, int]
    target: tuple[int, int]
    words: int


class Words(NamedTuple):
    """`pieces` are the word that each piece is of, `spans` the characters of each word."""

    pieces: list[int]
    spans: list[tuple[int, int]]


class Aligner:
    """Links words whose pieces look at each other first, from either side."""

    def __init__(self, vocabulary: Vocabulary, lexicon: Lexicon) -> None:
        self._vocabulary, self._lexicon = vocabulary, lexicon

    def spans(self, pair: Pair, longest: int) -> list[Span]:
        """All contiguous spans of up to so many words of the source that are linked among themselves alone, and begin
        and end with a linked word on both sides; the shorter ones first."""
        located = [self._vocabulary.locate(side, text) for side, text in enumerate(pair)]
        source, target = (words(text, each) for text, each in zip(pair, located, strict=True))
        links = self._links(located[0], located[1], source, target)
        return sorted(_consistent(links, source, target, longest), key=lambda span: span.words)

    def _links(self, one: Located, other: Located, source: Words, target: Words) -> set[tuple[int, int]]:
        if not one.ids or not other.ids:
            return set()
        ids = (np.array([one.ids], np.int64), np.array([other.ids], np.int64))
        scores = self._lexicon.alignment(*ids, self._vocabulary.pad)[0]  # (t, s)
        best = scores.argmax(1)
        both = (scores.argmax(0)[best] == np.arange(len(best))) & (scores.max(1) > _LIKELY)
        links = {(source.pieces[best[t]], target.pieces[t]) for t in np.flatnonzero(both).tolist()}
        return {link for link in links if min(link) >= 0}


def words(text: str, located: Located) -> Words:
    """A word is a run of pieces with letters or digits; anything else is a word of its own. A piece that is a space and
    nothing else is of no word: -1."""
    pieces, spans, was_word = list[int](), list[tuple[int, int]](), False
    for piece, (start, end) in zip(located.pieces, located.spans, strict=True):
        start += text[start:end].startswith(" ")
        if start >= end:
            was_word = was_word and not piece.startswith("▁")
            pieces.append(-1)
            continue
        is_word = _LETTER.search(piece) is not None
        if is_word and was_word and not piece.startswith("▁"):
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
        pieces.append(len(spans) - 1)
        was_word = is_word
    return Words(pieces, spans)


def _consistent(links: set[tuple[int, int]], source: Words, target: Words, longest: int) -> Iterator[Span]:
    """Koehn et al. 2003 (https://aclanthology.org/N03-1017), without loose words at either end."""
    to_target: dict[int, set[int]] = {}
    to_source: dict[int, set[int]] = {}
    for s, t in links:
        to_target.setdefault(s, set()).add(t)
        to_source.setdefault(t, set()).add(s)
    for first in to_target:
        low, high = len(target.spans), -1
        for last in range(first, min(first + longest, len(source.spans))):
            if last not in to_target:
                continue
            low, high = min(low, *to_target[last]), max(high, *to_target[last])
            back = [s for t in range(low, high + 1) for s in to_source.get(t, ())]
            if all(first <= s <= last for s in back):
                a, b, c, d = source.spans[first], source.spans[last], target.spans[low], target.spans[high]
                yield Span((a[0], b[1]), (c[0], d[1]), last - first + 1)
