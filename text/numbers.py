"""Compares the numbers of a text and of its translation as values, and writes a number as a language does.

`1 234,56` and `1,234.56` are one value in French and English; so are `14 h 30` and `2:30 p.m.`, `3` and `three`, `XXe`
and `20th`, `3/2004` and `March 2004`. A number in words is never demanded, but may stand for one in digits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import cache
from typing import NamedTuple

import regex

from text import languages
from text.typography import NARROW


class Style(NamedTuple):
    """What a language may set between groups of three digits, and before decimals; the first group mark is written."""

    groups: str
    decimal: str


_SPACES = f"{NARROW}\u00a0 "
_STYLES = {
    "en": Style(",", "."),
    "fr": Style(_SPACES, ","),
    **dict.fromkeys(("de", "es", "it", "nl", "pt", "da", "id", "tr", "el", "ro"), Style(".", ",")),
    **dict.fromkeys(("ru", "uk", "pl", "cs", "sk", "sv", "no", "nb", "nn", "fi", "bg", "hu"), Style(_SPACES, ",")),
    **dict.fromkeys(("zh", "ja", "ko", "th", "he", "hi"), Style(",", ".")),
}
_NUMBER = regex.compile(r"\d+(?:[.,'’](?=\d)\d+|[\u0020\u00a0\u202f]\d{3}(?!\d))*+")
_HAS_NUMBER = regex.compile(r"\d")
_DIGITS = regex.compile(r"\d+")
_MERIDIEM = regex.compile(r"(?::\d\d)?\s?([ap])\.?\s?m\b", regex.IGNORECASE)
_HOURS = regex.compile(r"\s?h(?:eures?)?\b")
_SCALE = regex.compile(
    r"[\s-]*(mille|thousand|millions?|milliards?|billions?|trillions?|k\b|m\b|bn\b)", regex.IGNORECASE
)
_SCALES = {
    "k": 3,
    "m": 6,
    "mille": 3,
    "thousand": 3,
    "million": 6,
    "milliard": 9,
    "billion": 9,
    "trillion": 12,
    "bn": 9,
}
_ROMAN = regex.compile(r"\b(?=[IVXLC])(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})(?=(?:e|er|re|ème|ᵉ)?\b)")
_WORD = regex.compile(r"\p{L}+")

_EN = [
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_EN_ORDINALS = [
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
    "eleventh",
    "twelfth",
    "thirteenth",
    "fourteenth",
    "fifteenth",
    "sixteenth",
    "seventeenth",
    "eighteenth",
    "nineteenth",
]
_FR = [
    "un",
    "deux",
    "trois",
    "quatre",
    "cinq",
    "six",
    "sept",
    "huit",
    "neuf",
    "dix",
    "onze",
    "douze",
    "treize",
    "quatorze",
    "quinze",
    "seize",
    "dix-sept",
    "dix-huit",
    "dix-neuf",
]
_MONTHS = {
    "en": [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ],
    "fr": [
        "janvier",
        "février",
        "mars",
        "avril",
        "mai",
        "juin",
        "juillet",
        "août",
        "septembre",
        "octobre",
        "novembre",
        "décembre",
    ],
}
_TENS = {
    "en": dict(
        zip(
            ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"],
            range(20, 100, 10),
            strict=True,
        )
    ),
    "fr": {"vingt": 20, "vingts": 20, "trente": 30, "quarante": 40, "cinquante": 50, "soixante": 60}
    | {"septante": 70, "huitante": 80, "octante": 80, "nonante": 90},
}
_MORE = {
    "en": {
        "a": 1,
        "an": 1,
        "single": 1,
        "once": 1,
        "twice": 2,
        "both": 2,
        "pair": 2,
        "double": 2,
        "half": 2,
        "dozen": 12,
    }
    | {"zero": 0, "no": 0, "none": 0, "midnight": 0, "noon": 12, "twentieth": 20, "thirtieth": 30, "score": 20}
    | {"quarter": 15, "triple": 3, "hundredth": 100, "centuries": 100, "decade": 10, "fortnight": 15, "thousands": 1000}
    | {
        "halves": 2,
        "thirds": 3,
        "quarters": 4,
        "fifths": 5,
        "eighties": 80,
        "nineties": 90,
        "sixties": 60,
        "twenties": 20,
    },
    "fr": {
        "une": 1,
        "premier": 1,
        "première": 1,
        "second": 2,
        "seconde": 2,
        "double": 2,
        "paire": 2,
        "zéro": 0,
        "aucun": 0,
    }
    | {"minuit": 0, "midi": 12, "aucune": 0, "pas": 0, "demi": 30, "demie": 30, "quart": 15, "quarts": 4, "tiers": 3}
    | {"quinzaine": 15, "dizaine": 10, "douzaine": 12, "vingtaine": 20, "trentaine": 30, "centaine": 100, "triple": 3}
    | {"moitié": 2, "siècle": 100, "décennie": 10, "millier": 1000, "milliers": 1000, "centaines": 100, "deuxième": 2}
    | {"troisième": 3, "quatrième": 4, "cinquième": 5, "neuvième": 9, "vingtième": 20, "centième": 100},
}
_HUNDREDS = {"hundred": 100, "cent": 100, "cents": 100}
_THOUSANDS = {"thousand": 10**3, "mille": 10**3, "million": 10**6, "millions": 10**6, "milliard": 10**9}
_THOUSANDS |= {"milliards": 10**9, "billion": 10**9}


class Number(NamedTuple):
    """Where a number stands in a text, and the values that it may have."""

    start: int
    end: int
    values: frozenset[Decimal]


class Mismatch(NamedTuple):
    """The numbers of a text that its translation lacks, and those that the translation has and the text does not."""

    missing: Sequence[Number]
    added: Sequence[Number]


def numbers(text: str, language: str) -> list[Number]:
    """The numbers in digits, in order."""
    if not _HAS_NUMBER.search(text):
        return []
    return list(_found(text, _style(language)))


def mismatch(source: str, target: str, source_language: str, target_language: str) -> Mismatch | None:
    """What differs between the numbers of a text and of its translation; None if they say the same.

    The order does not count. In languages whose words for numbers are not known, a number up to twelve may be missing.
    """
    asked, got = numbers(source, source_language), numbers(target, target_language)
    if not asked and not got:
        return None
    missing: list[Number] = []
    left = list(got)
    for number in sorted(asked, key=lambda each: len(each.values)):
        match = next((each for each in left if each.values & number.values), None)
        if match is None:
            missing.append(number)
        else:
            left.remove(match)
    if len(missing) != len(left) and _groups(source, missing) == _groups(target, left):  # 5 100 pages, 1-2
        return None
    months = _months(source, source_language), _months(target, target_language)
    if missing:
        words = _spelled(target, target_language) | (months[1] - months[0])
        missing = [
            each for each in missing if not _is_spelled(each, words, target_language) and not _is_dropped(source, each)
        ]
    if left:
        words = _spelled(source, source_language) | (months[0] - months[1])
        left = [
            each for each in left if not _is_spelled(each, words, source_language) and not _is_dropped(target, each)
        ]
    return Mismatch(sorted(missing), left) if missing or left else None


def written(number: str, source_language: str, target_language: str) -> str:
    """A number in digits of one language, as another writes it; one that may be read in two ways stays as it is."""
    source, target = _style(source_language), _style(target_language)
    whole, mark, decimals = number.partition(source.decimal)
    groups = regex.split(f"[{regex.escape(source.groups)}]", whole)
    if (not decimals.isdigit() and mark) or not all(group.isdigit() for group in groups):
        return number
    return target.groups[0].join(groups) + (target.decimal + decimals if mark else "")


def _style(language: str) -> Style:
    return _STYLES.get(languages.base(language), _STYLES["en"])


def _found(text: str, style: Style) -> Iterator[Number]:
    for match in _NUMBER.finditer(text):
        for start, end in _tokens(text, *match.span()):
            yield Number(start, end, frozenset(_values(text, start, end, style)))


def _tokens(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The digits of a match, apart where spaces stand that divide no groups of three."""
    token = text[start:end]
    if any(space in token for space in _SPACES) and not regex.fullmatch(
        r"\d{1,3}(?:[ \u00a0\u202f]\d{3})+(?:[.,]\d+)?", token
    ):
        for part in regex.finditer(r"[^ \u00a0\u202f]+", token):
            yield start + part.start(), start + part.end()
    else:
        yield start, end


def _values(text: str, start: int, end: int, style: Style) -> Iterator[Decimal]:
    """The readings of the digits from `start` to `end`, with what stands behind them: a scale, a.m. or p.m."""
    token = text[start:end]
    read = list(_readings(token, style))
    yield from read
    if scale := _SCALE.match(text, end):
        yield from (value.scaleb(_SCALES[scale[1].lower().rstrip("s")]) for value in read)
    if token.isdigit() and len(token) <= 2 and (meridiem := _MERIDIEM.match(text, end)):
        yield Decimal(int(token) % 12 + (12 if meridiem[1].lower() == "p" else 0))
    if token.isdigit() and 13 <= int(token[:3]) <= 23 and _HOURS.match(text, end):  # 14 h, which may become two o'clock
        yield Decimal(int(token) - 12)
    if token.isdigit() and len(token) == 4 and text[end : end + 1] == "s":  # the 1990s
        yield Decimal(int(token) % 100)


def _readings(token: str, style: Style) -> Iterator[Decimal]:
    digits = "".join(str(int(each)) if each.isdigit() else each for each in token)
    marks = [each for each in digits if not each.isdigit()]
    plain = "".join(each for each in digits if each.isdigit())
    if not marks:
        yield Decimal(plain)
        return
    is_grouped = regex.fullmatch(r"\d{1,3}(?:\D\d{3})+", digits) is not None
    last = marks[-1]
    whole, _, decimals = digits.rpartition(last)
    whole = "".join(each for each in whole if each.isdigit())
    if last in style.groups and is_grouped and len(set(marks)) == 1:
        yield Decimal(plain)
    elif len(set(marks)) > 1 or last == style.decimal:
        yield Decimal(f"{whole}.{decimals}") if last in ".," else Decimal(plain)
    elif last in ".," and len(marks) == 1:  # the other mark: 3.14 in French, or 1.000
        yield Decimal(f"{whole}.{decimals}")
        if is_grouped and last == ".":
            yield Decimal(plain)
    else:
        yield Decimal(plain)


def _groups(text: str, some: Sequence[Number]) -> list[str]:
    """The runs of digits in some numbers of a text."""
    return [run for each in sorted(some) for run in _DIGITS.findall(text[each.start : each.end])]


def _is_dropped(text: str, number: Number) -> bool:
    """Whether a number may come and go: the minutes of a full hour."""
    return text[number.start : number.end] == "00"


def _is_spelled(number: Number, words: set[Decimal], language: str) -> bool:
    if number.values & words:
        return True
    return languages.base(language) not in _MORE and any(0 <= value <= 12 for value in number.values)


def _spelled(text: str, language: str) -> set[Decimal]:
    """The values of the number words of a text, and of Roman numerals."""
    lexicon = _lexicon(languages.base(language))
    values = {_roman(match.group()) for match in _ROMAN.finditer(text) if match.group()}
    run: list[str] = []
    for match in _WORD.finditer(text.lower()):
        word = match.group()
        if word in lexicon or word in _HUNDREDS or word in _THOUSANDS:
            run.append(word)
        elif word not in ("et", "and"):
            values |= _composed(run, lexicon)
            run = []
    return {Decimal(value) for value in values | _composed(run, lexicon)}


def _months(text: str, language: str) -> set[Decimal]:
    """The months that a text names, as numbers."""
    names = _MONTHS.get(languages.base(language), [])
    words = set(_WORD.findall(text.lower())) if names else set()
    return {Decimal(at) for at, name in enumerate(names, 1) if name in words}


@cache
def _lexicon(language: str) -> dict[str, int]:
    if language not in _MORE:
        return {}
    words = dict(zip(_EN, range(1, 20), strict=True)) | dict(zip(_EN_ORDINALS, range(1, 20), strict=True))
    if language == "fr":
        words = dict(zip(_FR, range(1, 20), strict=True))
        words |= {word.rstrip("e") + "ième": value for word, value in words.items()}
    return words | _TENS[language] | _MORE[language]


def _composed(run: Sequence[str], lexicon: dict[str, int]) -> set[int]:
    """What a run of number words may mean: each word by itself, and all together from each of them on."""
    values = {lexicon[word] for word in run if word in lexicon}
    values |= {_HUNDREDS.get(word, _THOUSANDS.get(word, 0)) for word in run if word not in lexicon}
    for first in range(len(run)) if len(run) < 12 else ():
        total = part = 0
        for word in run[first:]:
            if word in _THOUSANDS:
                total, part = total + max(1, part) * _THOUSANDS[word], 0
            elif word in _HUNDREDS:
                part = max(1, part) * 100
            elif word in ("vingt", "vingts") and part % 100 == 4:  # quatre-vingts
                part += 76
            else:
                part += lexicon[word]
            values.add(total + part)
    return values


def _roman(numeral: str) -> int:
    worth = [{"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}[letter] for letter in numeral]
    return sum(-value if value < max(worth[at:]) else value for at, value in enumerate(worth))
