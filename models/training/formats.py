"""Numbers, dates and amounts as languages write them: found in a pair, and made at random on both sides."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

import regex

from models.training.data import Pair


class Style(NamedTuple):
    """What a language sets between groups of three digits, and before decimals."""

    group: str
    decimal: str


class Number(NamedTuple):
    """Where a number stands in a text, what it is (digits, and a point before decimals), and whether it is grouped."""

    start: int
    end: int
    value: str
    is_grouped: bool


_STYLES = {
    "en": Style(",", "."),
    "fr": Style(" ", ","),
    "de": Style(".", ","),
    "es": Style(".", ","),
    "it": Style(".", ","),
    "nl": Style(".", ","),
    "pt": Style(".", ","),
}
_PLAIN = Style("", ".")
_MONTHS = {
    "en": (
        *("January", "February", "March", "April", "May", "June"),
        *("July", "August", "September", "October", "November", "December"),
    ),
    "fr": (
        *("janvier", "février", "mars", "avril", "mai", "juin"),
        *("juillet", "août", "septembre", "octobre", "novembre", "décembre"),
    ),
}
_DAYS = {
    "en": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
    "fr": ["lundi", "mardi", "mercredi", "jeudi", "vendredi", "samedi", "dimanche"],
}
# The same thing in each language; what is in braces is made by `_fields`.
_FORMATS = [
    {"en": "{month} {day}, {year}", "fr": "{day} {month} {year}"},
    {"en": "{weekday}, {month} {day}, {year}", "fr": "{weekday} {day} {month} {year}"},
    {"en": "on {month} {day}", "fr": "le {day} {month}"},
    {"en": "{month} {year}", "fr": "{month} {year}"},
    {"en": "from {day} to {day2} {month} {year}", "fr": "du {day} au {day2} {month} {year}"},
    {"en": "{year}-{mm}-{dd}", "fr": "{year}-{mm}-{dd}"},
    {"en": "{dd}/{mm}/{year}", "fr": "{dd}/{mm}/{year}"},
    {"en": "{hour}:{minute}", "fr": "{hour} h {minute}"},
    {"en": "from {hour}:00 to {hour2}:{minute}", "fr": "de {hour} h 00 à {hour2} h {minute}"},
    {"en": "€{amount}", "fr": "{amount} €"},
    {"en": "${amount}", "fr": "{amount} $"},
    {"en": "{amount} euros", "fr": "{amount} euros"},
    {"en": "{decimal}%", "fr": "{decimal} %"},
    {"en": "{decimal} km", "fr": "{decimal} km"},
    {"en": "{count}", "fr": "{count}"},
    {"en": "No. {number}", "fr": "N° {number}"},
    {"en": "page {number} of {number2}", "fr": "page {number} sur {number2}"},
]


def style(language: str) -> Style:
    """Where a language is not known, numbers of plain digits alone."""
    return _STYLES.get(language.partition("-")[0], _PLAIN)


def numbers(text: str, of: Style) -> list[Number]:
    """Those that stand by themselves: not in words, versions, times or dates of digits."""
    grouped = rf"\d{{1,3}}(?:{regex.escape(of.group)}\d{{3}})+(?!\d)|" if of.group else ""
    pattern = rf"(?<![\p{{L}}\d_.,:/-])(?:{grouped}\d+)(?:{regex.escape(of.decimal)}\d+)?(?![\p{{L}}\d_]|[.,:/-]\d)"
    found = []
    for match in regex.finditer(pattern, text):
        plain = match[0].replace(of.group, "") if of.group else match[0]
        value = plain.replace(of.decimal, ".")
        found.append(Number(*match.span(), value, len(plain) < len(match[0])))
    return found


def shared_numbers(pair: Pair, styles: tuple[Style, Style]) -> list[tuple[Number, Number]]:
    """The numbers that both sides hold exactly once."""
    sides = [numbers(text, of) for text, of in zip(pair, styles, strict=True)]
    once = [{n.value: n for n in side if [m.value for m in side].count(n.value) == 1} for side in sides]
    return [(number, once[1][value]) for value, number in once[0].items() if value in once[1]]


def write(value: str, of: Style, *, is_grouped: bool) -> str:
    """1234.5 as 1,234.5 or 1 234,5."""
    whole, _, decimals = value.partition(".")
    if is_grouped:
        whole = regex.sub(r"(?<=\d)(?=(?:\d{3})+$)", of.group, whole)
    return whole + (of.decimal + decimals if decimals else "")


def another(number: Number, random: Random) -> str:
    """A value to put in a number's place: as long, more or less; numbers that may be days or few stay so."""
    whole, _, decimals = number.value.partition(".")
    if len(whole) <= 2:
        value = random.randint(2, 31 if int(whole) <= 31 else 99)
    else:
        digits = max(3, min(9, len(whole) + random.choice((-1, 0, 0, 0, 1, 2))))
        value = random.randint(10 ** (digits - 1), 10**digits - 1)
    return str(value) + ("." + "".join(random.choices("0123456789", k=len(decimals))) if decimals else "")


def made(languages: tuple[str, str], random: Random) -> Pair | None:
    """A date, a time, an amount or a number, in both languages; None where a language is not known."""
    source, target = (language.partition("-")[0] for language in languages)
    if not {source, target} <= _MONTHS.keys():
        return None
    form = random.choice(_FORMATS)
    fields = _fields(random)
    return Pair(*(form[side].format(**_written(fields, side)) for side in (source, target)))


def _fields(random: Random) -> dict[str, int | str]:
    digits = random.randint(1, 9)
    return {
        "day": random.randint(1, 28),
        "day2": random.randint(29, 31),
        "month": random.randrange(12),
        "weekday": random.randrange(7),
        "year": random.randint(1500, 2099),
        "hour": random.randint(7, 12),
        "hour2": random.randint(13, 23),
        "minute": f"{random.randrange(60):02}",
        "amount": f"{random.randint(1, 10 ** random.randint(1, 7))}.{random.randrange(100):02}",
        "decimal": f"{random.randint(0, 999)}.{random.randint(1, 9)}",
        "count": str(random.randint(10**3, 10 ** (digits + 3))),
        "number": random.randint(1, 10**digits),
        "number2": random.randint(2, 999),
    }


def _written(fields: dict[str, int | str], language: str) -> dict[str, int | str]:
    of, month, day = style(language), int(fields["month"]), int(fields["day"])
    amounts = {name: write(str(fields[name]), of, is_grouped=True) for name in ("amount", "decimal", "count")}
    first = "1er" if language == "fr" and day == 1 else day
    return {
        **fields,
        **amounts,
        "day": first,
        "dd": f"{day:02}",
        "mm": f"{month + 1:02}",
        "month": _MONTHS[language][month],
        "weekday": _DAYS[language][int(fields["weekday"])],
    }
