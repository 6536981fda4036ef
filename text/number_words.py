"""Finds the numbers that a text has in words: number words, Roman numerals and months, in French and English."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from functools import cache

import regex

from text import languages

_ROMAN = regex.compile(r"\b(?=[IVXLC])(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})(?=(?:e|er|re|ème|ᵉ)?\b)")
_CLOCK = regex.compile(r"\b(?:o['’]clock|afternoon|evening|soir|après-midi|heures?|past)\b", regex.IGNORECASE)
_DATED = regex.compile(r"\b\d{1,2}(?:er|st|nd|rd|th)?\s(?:of\s)?(\p{L}{3,9})\b|\b(\p{L}{3,9})\s\d", regex.IGNORECASE)
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


def is_known(language: str) -> bool:
    """Whether the number words of a language are known."""
    return languages.base(language) in _MORE


def spelled(text: str, language: str) -> set[Decimal]:
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
    values |= _composed(run, lexicon)
    if _CLOCK.search(text):  # two o'clock, which may be 14 h
        values |= {value + 12 for value in values if 0 < value < 12}
    return {Decimal(value) for value in values}


def named_months(text: str, language: str) -> set[Decimal]:
    """The months that a text names, in full or cut short, as numbers."""
    names = _MONTHS.get(languages.base(language), [])
    words = {word for word in _WORD.findall(text.lower()) if len(word) > 2} if names else set()
    return {Decimal(at) for at, name in enumerate(names, 1) if any(name.startswith(word) for word in words)}


def dated_months(text: str, language: str) -> set[Decimal]:
    """The months that a text names in full beside the digits of a day or a year, as numbers."""
    names = _MONTHS.get(languages.base(language), [])
    beside = {(each[1] or each[2]).lower() for each in _DATED.finditer(text)} if names else set()
    return {Decimal(at) for at, name in enumerate(names, 1) if name in beside}


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
