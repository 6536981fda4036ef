"""The typography of a language that training data do not show: French sets no-break spaces."""

from __future__ import annotations

import regex

from text import languages

NO_BREAK = "\u00a0"
NARROW = "\u202f"

# Imprimerie nationale, Lexique des règles typographiques: narrow before ; ! ? and within numbers, wide before : and
# inside guillemets. A colon between digits or before a letter belongs to a time or a name.
_FRENCH = (
    (regex.compile(r"(?<=[^\s]) (?=[;!?]+(?:[\s»)\]!?]|\Z))"), NARROW),
    (regex.compile(r"(?<=[^\s]) (?=:(?:\s|\Z))"), NO_BREAK),
    (regex.compile(r"(?<=«) (?=\S)|(?<=\S) (?=»)"), NO_BREAK),
    (regex.compile(r"(?<=\b\d{1,3}(?:[ \u202f]\d{3})*) (?=\d{3}(?!\d))"), NARROW),
    (regex.compile(r"(?<=\d) (?=[%‰€$£°])"), NO_BREAK),
)


def typeset(translation: str, language: str) -> str:
    """The translation with the no-break spaces that its language wants in place of plain ones; none are added.

    `language` is a tag such as fr or fr-CA.
    """
    if languages.base(language) != "fr":
        return translation
    for space, kind in _FRENCH:
        translation = space.sub(kind, translation)
    return translation
