"""Finds the signs at numbers, minus, percent and currencies, and says which of them a translation lacks."""

from __future__ import annotations

from typing import NamedTuple

import regex

from text.number_words import is_known

MINUS = "-−"
CURRENCIES = "€$£¥"
PERCENT = "%"

_BLANK = r"[ \u00a0\u202f]?"
_BEFORE = regex.compile(
    rf"(?:(?<![\p{{L}}\d)%.{CURRENCIES}])(?<!\d{_BLANK})[{MINUS}])?(?:[{CURRENCIES}]{_BLANK})?(?=\d)"
)
_AFTER = regex.compile(rf"{_BLANK}[{PERCENT}{CURRENCIES}]")
_AT_NUMBERS = regex.compile(rf"{_BEFORE.pattern}|(?<=\d){_AFTER.pattern}")
_HAS_SIGN = regex.compile(f"[{MINUS}{PERCENT}{CURRENCIES}]")
# What may say the same as a sign, in French and English.
_SAYS = {
    "-": regex.compile(
        rf"[{MINUS}–]{_BLANK}[{CURRENCIES}]?\d|\b(?:minus|moins|below|under|sous|dessous|n[eé]gati)", regex.I
    ),
    "%": regex.compile(r"%|\b(?:pct|per ?cent|pour[ -]?cent|points?\b)", regex.I),
    "€": regex.compile(r"€|\beuros?\b|\bEUR\b", regex.I),
    "$": regex.compile(r"\$|dollars?\b|\b(?:USD|CAD|AUD|bucks?|pesos?)\b", regex.I),
    "£": regex.compile(
        r"£|\b(?:pounds?|sterling|GBP)\b|\b(?:\d+|cents?|mille|deux|trois|cinq|dix|vingt) livres?\b", regex.I
    ),
    "¥": regex.compile(r"¥|\b(?:yens?|yuans?|JPY|CNY|RMB)\b", regex.I),
}


class Signed(NamedTuple):
    """Where a number stands with its signs."""

    start: int
    end: int


def signed(text: str, start: int, end: int) -> Signed:
    """The span of the number from `start` to `end`, with the signs at it."""
    before = next((each for each in _BEFORE.finditer(text, max(0, start - 3), start + 1) if each.end() == start), None)
    after = _AFTER.match(text, end)
    return Signed(before.start() if before else start, after.end() if after else end)


def lost(source: str, target: str, source_language: str, target_language: str) -> frozenset[str]:
    """The signs at numbers of one of the texts that the other one lacks, in any form. None, where the words of one of
    the languages are not known, which may stand for signs."""
    if not (is_known(source_language) and is_known(target_language)):
        return frozenset()
    return _only_in(source, target) | _only_in(target, source)


def _only_in(text: str, other: str) -> frozenset[str]:
    return frozenset(sign for sign in _signs(text) if not _SAYS[sign].search(other))


def _signs(text: str) -> set[str]:
    if not _HAS_SIGN.search(text):
        return set()
    found = "".join(match.group() for match in _AT_NUMBERS.finditer(text))
    return {"-" if each in MINUS else each for each in found if _HAS_SIGN.match(each)}
