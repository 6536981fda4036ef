"""Which characters of a text the model may see, and which of its own may come out."""

from __future__ import annotations

import regex

REFUSED = regex.compile(r"[\p{Cs}\x00]")  # NUL and lone surrogates

_BREAKS = regex.compile(r"[\n\v\f\r\x1c-\x1e\x85\u2028\u2029]+")

# Control characters, surrogates, noncharacters, and whatever is invisible by Unicode's Default_Ignorable_Code_Point:
# bidi overrides, isolates and marks, zero-width characters, U+FEFF, tags. Variation selectors only choose a glyph.
# Between letters of the scripts that need them (Persian, Hindi) the two joiners are spelling.
_HIDDEN = regex.compile(
    r"[[\p{Cc}\p{Cs}\p{Noncharacter_Code_Point}\p{Default_Ignorable_Code_Point}]--[\t\p{Variation_Selector}\u200c\u200d]]"
    r"|(?<![[\p{L}\p{M}]--[\p{Latin}\p{Greek}\p{Cyrillic}]])[\u200c\u200d]",
    regex.V1,
)


def refusal(text: str) -> str | None:
    """Why a text is refused, and where: NUL and lone surrogates are the marks of binary or wrongly decoded data."""
    found = REFUSED.search(text)
    if found is None:
        return None
    code, at = f"U+{ord(found.group()):04X}", found.start() + 1
    what = "NUL" if found.group() == "\x00" else "half of a surrogate pair"
    return f"Character {at} of the text is {what} ({code}): send well-formed Unicode without it."


def clean(translation: str, source: str) -> str:
    """The translation of a sentence on one line, without the hidden characters that `source` does not have."""
    line = _BREAKS.sub(" ", translation)
    return _HIDDEN.sub(lambda found: found.group() if found.group() in source else "", line).strip()
