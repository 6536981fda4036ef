"""Pairs changed at random, so that a model learns what files of whole sentences hardly show: copy symbols, numbers of
any kind, single words, headings, capitals, lists, several sentences at once, sentences cut in halves."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import regex

from models.checkpoint.metadata import Symbols
from models.training.config import Augmentation
from models.training.copying import annotate, hold, wrap
from models.training.data import Pair
from models.training.formats import Number, another, made, numbers, shared_numbers, style, write
from models.training.spans import Aligner, Span

_END = regex.compile(r"\s*[.!?…。！？]+\Z")
_SHORT = 40  # characters of an item of a list
_SHORTEST_HALF = 3  # words
_LONGEST_CUT = 60  # words of a sentence that is cut
_LONGEST_JOINED = 160  # characters of each of the sentences that are joined
_GROUPED = 0.15  # of the numbers that are replaced become large ones with decimals


class Augmenter:
    """Changes pairs by the rates of a configuration. Without an `aligner`, ways that need one leave pairs alone."""

    def __init__(
        self, rates: Augmentation, symbols: Symbols, languages: tuple[str, str], aligner: Aligner | None = None
    ) -> None:
        self.rates, self.symbols, self.languages, self.aligner = rates, symbols, languages, aligner
        self._styles = (style(languages[0]), style(languages[1]))

    def __call__(self, pair: Pair, others: Sequence[Pair], random: Random) -> Pair:
        """`others` are pairs to join with and to take words from. At most one way of each group is taken, in the order
        of the groups: which pair it is, what its surface is, its numbers, its symbols."""
        rates, aligner = self.rates, self.aligner
        match _draw(random, rates, "formats", "words", "cut", "joined", "lists"):
            case "formats":
                pair = made(self.languages, random) or pair
            case "words" if aligner:
                pair = _words(pair, random, aligner)
            case "cut" if aligner:
                pair = _cut(pair, random, aligner)
            case "joined":
                pair = _joined(pair, others, random)
            case "lists":
                pair = _list(pair, others, random)
        match _draw(random, rates, "headings", "labels", "capitals"):
            case "headings":
                pair = Pair(*(_END.sub("", text) or text for text in pair))
            case "labels":
                pair = self._label(pair)
            case "capitals":
                pair = Pair(*map(str.upper, pair))
        if random.random() < rates.numbers:
            pair = self._renumbered(pair, random)
        match _draw(random, rates, "holds", "pairs", "terms"):
            case "holds" if self.symbols.holds:
                pair = hold(pair, self.symbols, self._styles, random, aligner)
            case "pairs" if self.symbols.pairs and aligner:
                pair = wrap(pair, self.symbols, random, aligner)
            case "terms" if self.symbols.term and aligner:
                pair = annotate(pair, self.symbols, random, aligner, random.choice(others))
        return pair

    def _label(self, pair: Pair) -> Pair:
        """A label of a form: a colon at the end, which French sets apart."""
        ends = [" :" if language.startswith("fr") else ":" for language in self.languages]
        return Pair(*((_END.sub("", text).rstrip(" :") or text) + end for text, end in zip(pair, ends, strict=True)))

    def _renumbered(self, pair: Pair, random: Random) -> Pair:
        """Every number that both sides hold, written as each language does, becomes another one. 0 and 1 stay, since
        words around them would have to change."""
        taken = {number.value for text, of in zip(pair, self._styles, strict=True) for number in numbers(text, of)}
        values: dict[str, tuple[str, bool]] = {}
        shared = [each for each in shared_numbers(pair, self._styles) if each[0].value not in ("0", "1")]
        for number, _ in shared:
            value, is_grouped = another(number, random), number.is_grouped
            if len(number.value) > 2 and random.random() < _GROUPED:
                value, is_grouped = f"{random.randint(1000, 10 ** random.randint(4, 8))}.{random.randint(1, 99)}", True
            if value in taken:
                value = number.value
            taken.add(value)
            values[number.value] = (value, is_grouped)
        sides = []
        for side, text in enumerate(pair):
            places: list[Number] = sorted((each[side] for each in shared), reverse=True)
            for number in places:
                value, is_grouped = values[number.value]
                written = write(value, self._styles[side], is_grouped=is_grouped)
                text = text[: number.start] + written + text[number.end :]
            sides.append(text)
        return Pair(*sides)


def _draw(random: Random, rates: Augmentation, *names: str) -> str | None:
    """One of the names by its rate, or None."""
    chance = random.random()
    for name in names:
        chance -= getattr(rates, name)
        if chance < 0:
            return name
    return None


def _words(pair: Pair, random: Random, aligner: Aligner) -> Pair:
    """A word or two of it, or an expression."""
    spans = [span for span in aligner.spans(pair, 3) if span.source[1] - span.source[0] > 2]
    return _of(pair, random.choice(spans)) if spans else pair


def _cut(pair: Pair, random: Random, aligner: Aligner) -> Pair:
    """Its first or its last part."""
    spans = [span for span in aligner.spans(pair, _LONGEST_CUT) if span.words >= _SHORTEST_HALF]
    parts = [
        Span((0, span.source[1]), (0, span.target[1]), span.words)
        for span in spans
        if (span.source[0], span.target[0]) == (0, 0)
    ] + [
        Span((span.source[0], len(pair.source)), (span.target[0], len(pair.target)), span.words)
        for span in spans
        if len(pair.source) - span.source[1] <= 2 and len(pair.target) - span.target[1] <= 2
    ]
    return _of(pair, random.choice(parts)) if parts else pair


def _of(pair: Pair, span: Span) -> Pair:
    return Pair(pair.source[slice(*span.source)].strip(), pair.target[slice(*span.target)].strip())


def _joined(pair: Pair, others: Sequence[Pair], random: Random) -> Pair:
    """Two or three sentences, one behind the other."""
    some = [pair, *random.sample(others, min(len(others), random.choice((1, 1, 2))))]
    some = [each for each in some if max(map(len, each)) <= _LONGEST_JOINED and all(map(_END.search, each))]
    return Pair(*map(" ".join, zip(*some, strict=True))) if len(some) > 1 else pair


def _list(pair: Pair, others: Sequence[Pair], random: Random) -> Pair:
    """Short pairs in a row, between commas, semicolons, bars or with numbers."""
    some = [each for each in (pair, *random.sample(others, min(len(others), 20))) if max(map(len, each)) <= _SHORT]
    some = [Pair(*(_END.sub("", text) for text in each)) for each in some[: random.randint(2, 5)]]
    if len(some) < 2 or not all(text for each in some for text in each):
        return pair
    if random.random() < 0.3:
        return Pair(*(" ".join(f"{i}. {text}" for i, text in enumerate(side, 1)) for side in zip(*some, strict=True)))
    between = random.choice((", ", ", ", "; ", " | ", " / "))
    return Pair(*map(between.join, zip(*some, strict=True)))
