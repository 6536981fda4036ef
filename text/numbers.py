"""Compares the numbers of a text and of its translation as values, and writes a number as a language does.

`1 234,56` and `1,234.56` are one value in French and English; so are `14 h 30` and `2:30 p.m.`, `3` and `three`, `XXe`
and `20th`, `3/2004` and `March 2004`, `1950-1953` and `1950-53`. A number in words is never demanded, but may stand for
one in digits. A minus, a percent sign and the sign of a currency at a number have to be there, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from decimal import Decimal
from typing import NamedTuple

import regex

from text import languages
from text.number_words import dated_months, is_known, named_months, spelled
from text.signs import CURRENCIES, MINUS, PERCENT, lost, signed
from text.typography import NARROW, NO_BREAK


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
_MERIDIEM = regex.compile(r"(?:[:.]\d\d)?\s?([ap])\.?\s?m\b", regex.IGNORECASE)
_SINCE = regex.compile(r"(?<!\d)(\d\d)(\d\d)[-–—/]")  # the first year of 1950-53
_AMOUNT = regex.compile(
    rf"([{MINUS}]?)([{CURRENCIES}]?[{_SPACES}]?)(\d.*?)((?:[{_SPACES}]?[{PERCENT}{CURRENCIES}])?)", regex.DOTALL
)
_CLOCK = regex.compile(r"\s?(?:h(?:eures?)?\b|:\d|o['’]clock)|\s(?:in|at|du|de|cette|ce|this)\b", regex.IGNORECASE)
_LATE = regex.compile(r"\b(?:afternoon|evening|tonight|soir|après-midi)\b", regex.IGNORECASE)
_TIME = regex.compile(
    r"(\d{1,2})(?:\s?h\s?(\d\d)?(?![\d\p{L}])|(?:[:.](\d\d))?\s?([ap])\.?\s?m\b(?:\.(?=\s*[\p{Ll}\d,;]))?)",
    regex.IGNORECASE,
)
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


class Number(NamedTuple):
    """Where a number stands in a text, and the values that it may have."""

    start: int
    end: int
    values: frozenset[Decimal]


class Mismatch(NamedTuple):
    """The numbers of a text that its translation lacks, those that the translation has and the text does not, and the
    signs at numbers and the months of dates that only one of them has."""

    missing: Sequence[Number]
    added: Sequence[Number]
    signs: Set[str] = frozenset()
    months: Set[Decimal] = frozenset()


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
    missing, added = _unpaired(asked, got)
    if len(missing) != len(added) and _groups(source, missing) == _groups(target, added):  # 5 100 pages, 1-2
        missing, added = [], []
    months = named_months(source, source_language), named_months(target, target_language)
    if missing:
        words = spelled(target, target_language) | (months[1] - months[0])
        missing = [each for each in missing if not _may_be_missing(source, each, words, target_language)]
    if added:
        words = spelled(source, source_language) | (months[0] - months[1])
        added = [each for each in added if not _may_be_missing(target, each, words, source_language)]
    dated = dated_months(source, source_language) - named_months(target, target_language)
    dated |= dated_months(target, target_language) - named_months(source, source_language)
    dated = {month for month in dated if not any(month in each.values for each in (*asked, *got))}
    signs = lost(source, target, source_language, target_language)
    return Mismatch(sorted(missing), added, signs, dated) if missing or added or signs or dated else None


def amounts(text: str, language: str) -> list[tuple[int, int]]:
    """Where the numbers in digits stand, with the signs at them, in order; the hours and minutes of a time are one."""
    found: list[tuple[int, int]] = []
    for number in numbers(text, language):
        if found and number.start < found[-1][1]:
            continue
        time = _TIME.match(text, number.start)
        start, end = time.span() if time else signed(text, number.start, number.end)
        found.append((max(start, found[-1][1]) if found else start, end))
    return found


def written(amount: str, source_language: str, target_language: str) -> str:
    """A number in digits of one language, with the signs at it, as another writes it; one that may be read in two ways
    stays as it is."""
    source, target = _style(source_language), _style(target_language)
    if time := _TIME.fullmatch(amount):
        return _time(time, target_language)
    parts = _AMOUNT.fullmatch(amount)
    if parts is None:
        return amount
    minus, before, number, after = parts.groups()
    whole, mark, decimals = number.partition(source.decimal)
    groups = regex.split(f"[{regex.escape(source.groups)}]", whole)
    if (not decimals.isdigit() and mark) or not all(group.isdigit() for group in groups):
        return amount
    number = target.groups[0].join(groups) + (target.decimal + decimals if mark else "")
    currency = "".join(each for each in before + after if each in CURRENCIES)
    percent = PERCENT if PERCENT in after else ""
    if target.decimal == ".":
        return minus + currency + number + percent
    return minus + number + (NO_BREAK + percent + currency if percent or currency else "")


def _time(time: regex.Match[str], language: str) -> str:
    """A time as a language writes it, by 24 hours."""
    hour, minutes, half = int(time[1]), time[2] or time[3], (time[4] or "").lower()
    if half:
        hour = hour % 12 + (12 if half == "p" else 0)
    if languages.base(language) == "fr":
        return f"{hour}{NO_BREAK}h" + (f"{NO_BREAK}{minutes}" if minutes else "")
    return f"{hour}:{minutes or '00'}"


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
    elif regex.fullmatch(r"\d{1,2}\.\d\d", token) and _MERIDIEM.match(text, end):  # 4.40 a.m.
        yield start, end - 3
        yield end - 2, end
    else:
        yield start, end


def _values(text: str, start: int, end: int, style: Style) -> Iterator[Decimal]:
    """The readings of the digits from `start` to `end`, with what stands behind them: a scale, a.m. or p.m."""
    token = text[start:end]
    is_minutes = text[max(0, start - 1) : start] in (":", ".")
    if token.isdigit() and len(token) <= 2 and not is_minutes and (meridiem := _MERIDIEM.match(text, end)):
        yield Decimal(int(token) % 12 + (12 if meridiem[1].lower() == "p" else 0))
        return
    if token.isdigit() and 0 < int(token[:3]) < 12 and _CLOCK.match(text, end) and _LATE.search(text):
        yield Decimal(int(token) + 12)
    read = list(_readings(token, style))
    yield from read
    if scale := _SCALE.match(text, end):
        yield from (value.scaleb(_SCALES[scale[1].lower().rstrip("s")]) for value in read)
    since = _SINCE.fullmatch(text, start - 5, start) if start >= 5 and len(token) == 2 and token.isdigit() else None
    if since and int(token) > int(since[2]):
        yield Decimal(int(since[1] + token))
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
    elif len(set(marks)) > 1 or (last == style.decimal and len(marks) == 1):
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


def _unpaired(asked: Sequence[Number], got: Sequence[Number]) -> tuple[list[Number], list[Number]]:
    """The numbers of each side without one of the same value on the other."""
    missing, left = list[Number](), list(got)
    for number in sorted(asked, key=lambda each: len(each.values)):
        match = next((each for each in left if each.values & number.values), None)
        if match is None:
            missing.append(number)
        else:
            left.remove(match)
    return missing, left


def _may_be_missing(text: str, number: Number, words: set[Decimal], language: str) -> bool:
    """Whether words of the other text, in `language`, say a number, or it may come and go: the minutes of a full
    hour."""
    if number.values & words or text[number.start : number.end] == "00":
        return True
    return not is_known(language) and any(0 <= value <= 12 for value in number.values)
