"""Languages, named by tags of BCP 47: one spelling of each, which of those on offer is meant, and how it is written.

A tag may be spelled as other programs do: `FR`, `fr_FR`, `fra`. What CLDR knows of tags, langcodes has: likely subtags
(`zh` is `zh-Hans-CN`, `zh-TW` is `zh-Hant-TW`) and the distances between languages.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

import regex
from langcodes import Language, standardize_tag, tag_distance

# The largest distance, as CLDR measures it, of a language that stands for another one: that of two regions (5 from
# pt-PT to pt-BR). Farther are other scripts (54 from zh-Hans to zh-Hant) and other languages (20 from nn to nb).
FARTHEST = 5
_REMEMBERED = 16_384  # tags and pairs of tags; clients choose them, so their number is limited

_WITHOUT_SPACES = {"Jpan", "Hira", "Kana", "Hani", "Hans", "Hant", "Thai", "Laoo", "Khmr", "Mymr"}
_DOTTED_I = {"tr", "az"}  # have i and İ, ı and I
_GREEK_ACCENT = regex.compile(r"(?<=\p{Greek}\u0308?)\u0301")  # capitals have none


@lru_cache(_REMEMBERED)
def canonical(tag: str) -> str:
    """The tag in its one spelling: `fr` for `FR` and `fra`, `pt-BR` for `pt_br`. What is no tag stays as it is."""
    try:
        return standardize_tag(tag.partition(".")[0].strip())  # fr_FR.UTF-8 is how POSIX names a language
    except ValueError:
        return tag


@lru_cache(_REMEMBERED)
def base(tag: str) -> str:
    """The language of a tag alone, without script and region: `fr` of `fr-CA`, `zh` of `cmn_Hant`. Of what is no tag,
    the beginning."""
    try:
        return Language.get(standardize_tag(tag, macro=True)).language or "und"
    except ValueError:
        return tag.replace("_", "-").partition("-")[0].lower()


@lru_cache(_REMEMBERED)
def script(tag: str) -> str:
    """The script that a language is written in, by its code of ISO 15924: `Latn` for `fr`. Empty if it is unknown."""
    try:
        return Language.get(tag).maximize().script or ""
    except ValueError:
        return ""


@lru_cache(_REMEMBERED)
def distance(wanted: str, offered: str) -> int | None:
    """How far the language `offered` is from the one that is `wanted`, as CLDR measures it; 0 for another spelling.
    None if it is too far, or if one of them is no tag."""
    try:
        found = tag_distance(canonical(wanted), canonical(offered))
    except ValueError:
        return 0 if wanted == offered else None
    return found if found <= FARTHEST else None


def nearest(wanted: str, offered: Iterable[str]) -> Sequence[str]:
    """The languages on offer that may stand for the one that is wanted, the nearest first; equally near ones in their
    order, but the one with the fewest other subtags before them.

    A language without script and region, such as `zh`, also finds it in a script that it is rarely written in, such as
    `zh-Hant`, if it is on offer in no other.
    """
    offered = tuple(offered)
    near = {each: found for each in offered if (found := distance(wanted, each)) is not None}
    if not near and canonical(wanted).isalpha():
        near = {each: 0 for each in offered if base(each) == base(wanted)}
    subtags = _subtags(wanted)
    return sorted(near, key=lambda each: (near[each], len(subtags ^ _subtags(each))))


def has_spaces(language: str) -> bool:
    """Whether spaces stand between the words and sentences of a language."""
    return script(language) not in _WITHOUT_SPACES


def upper(text: str, language: str) -> str:
    """The text in capitals, as its language writes them: Turkish i becomes İ, and Greek capitals have no accents."""
    if (name := base(language)) in _DOTTED_I:
        text = text.replace("i", "İ")
    elif name == "el":
        text = unicodedata.normalize("NFC", _GREEK_ACCENT.sub("", unicodedata.normalize("NFD", text)))
    return text.upper()


def lower(text: str, language: str) -> str:
    """The text in lower case, as its language writes it: Turkish I becomes ı."""
    if base(language) in _DOTTED_I:
        text = text.replace("İ", "i").replace("I", "ı")
    return text.lower()


def capitalize(text: str, language: str) -> str:
    """The text in lower case with an initial capital, as its language writes them: Dutch ijs becomes IJs."""
    text = lower(text, language)
    letters = 2 if base(language) == "nl" and text.startswith("ij") else 1
    return upper(text[:letters], language) + text[letters:]


@lru_cache(_REMEMBERED)
def _subtags(tag: str) -> frozenset[str]:
    return frozenset(canonical(tag).lower().split("-"))
