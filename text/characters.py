"""The characters that are refused in a text, and those that are removed from a translation."""

from __future__ import annotations

import regex

REFUSED = regex.compile(r"[\p{Cs}\x00]")  # NUL and lone surrogates

_BREAKS = regex.compile(r"[\n\v\f\r\x1c-\x1e\x85\u2028\u2029]+")

# Control characters, surrogates, noncharacters, and the invisible characters of Unicode's Default_Ignorable_Code_Point:
# bidi overrides, isolates and marks, zero-width characters, U+FEFF, tags. Variation selectors are allowed, because they
# only choose a glyph. The two joiners are allowed after letters of scripts whose spelling needs them (Persian, Hindi).
_HIDDEN = regex.compile(
    r"[[\p{Cc}\p{Cs}\p{Noncharacter_Code_Point}\p{Default_Ignorable_Code_Point}]--[\t\p{Variation_Selector}\u200c\u200d]]"
    r"|(?<![[\p{L}\p{M}]--[\p{Latin}\p{Greek}\p{Cyrillic}]])[\u200c\u200d]",
    regex.V1,
)

_LOOKS_PRINTABLE = regex.compile(r"\p{Default_Ignorable_Code_Point}")  # to Python, as some of them are letters or marks


def refusal(text: str) -> str | None:
    """A message that says why a text is refused; None if it is not. NUL and lone surrogates are refused, because they
    are signs of binary or wrongly decoded data."""
    found = REFUSED.search(text)
    if found is None:
        return None
    code, at = f"U+{ord(found.group()):04X}", found.start() + 1
    what = "NUL" if found.group() == "\x00" else "half of a surrogate pair"
    return f"Character {at} of the text is {what} ({code}): send well-formed Unicode without it."


def visible(text: str) -> str:
    """The text without hidden characters, which cut words into pieces that no model has seen: soft hyphens, zero-width
    spaces, marks of direction."""
    if text.isprintable() and not _LOOKS_PRINTABLE.search(text):  # most sentences
        return text
    return _HIDDEN.sub("", text)


def clean(translation: str, source: str) -> str:
    """The translation of a sentence on one line, without hidden characters except those that occur in `source`."""
    line = _BREAKS.sub(" ", translation)
    return _HIDDEN.sub(lambda found: found.group() if found.group() in source else "", line).strip()
