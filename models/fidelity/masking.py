"""Takes holds out of a text before a model sees it, and puts them back: one private character stands for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import regex

from text.holds import Hold

# Words that models copy, for those that were taught no symbols: what stands for a hold is a name to them.
NAMES = ("Tom", "John", "Paris", "Tokyo", "London", "Boston", "Mary")
_PRIVATE = range(0xF0000, 0xFFFFE)  # a plane of private use, in which hardly any text has a character
_IN_WORD = regex.compile(r"\w")
_MASKS = regex.compile(r"[\U000f0000-\U000ffffd]")


class Held(NamedTuple):
    """What a private character stands for. `is_ordered`: as in text.holds.Hold."""

    text: str
    is_ordered: bool = False


Holds = Mapping[str, Held]  # by the private character


class Carried(NamedTuple):
    """A sentence as the model gets it, and by each carrier in it the private character that it stands for."""

    line: str
    carriers: Mapping[str, str]


def mask(text: str, holds: Iterable[Hold], taken: str = "") -> tuple[str, dict[str, Held]]:
    """The text with a private character for each hold, none of which it or `taken` has, and what they stand for."""
    used = set(_MASKS.findall(text + taken))
    free = (chr(code) for code in _PRIVATE if chr(code) not in used)
    pieces, held, at = list[str](), dict[str, Held](), 0
    for hold, private in zip(holds, free, strict=False):
        pieces += [text[at : hold.start], private]
        held[private] = Held(text[hold.start : hold.end], hold.is_ordered)
        at = hold.end
    return "".join(pieces) + text[at:], held


def unmask(text: str, holds: Holds) -> str:
    """The text with the holds in place of their characters."""
    return _MASKS.sub(lambda found: _text(found.group(), holds), text) if holds else text


def _text(private: str, holds: Holds) -> str:
    return holds[private].text if private in holds else private


def masks(text: str, holds: Holds) -> list[str]:
    """The private characters in a text that stand for holds, in order."""
    return [private for private in _MASKS.findall(text) if private in holds] if holds else []


def carry(sentence: str, holds: Holds, carriers: Sequence[str]) -> Carried | None:
    """The sentence with a carrier for each hold, of those that it does not have itself; None if there are too few."""
    wanted = masks(sentence, holds)
    free = [carrier for carrier in carriers if carrier not in sentence][: len(wanted)] if wanted else []
    if len(free) < len(wanted):
        return None
    carried = dict(zip(wanted, free, strict=True))
    line = _MASKS.sub(lambda found: carried.get(found.group(), found.group()), sentence) if carried else sentence
    return Carried(line, {carrier: private for private, carrier in carried.items()})


def placed(translation: str, sentence: str, carriers: Mapping[str, str], holds: Holds) -> str | None:
    """The translation with the private characters in place of the carriers; None unless it has each carrier exactly
    once, and the ordered holds in the order of the sentence, with words between those that had some."""
    for carrier, private in carriers.items():
        found = _whole(carrier, translation)
        if len(found) != 1:
            return None
        translation = translation[: found[0]] + private + translation[found[0] + len(carrier) :]
    return translation if _in_order(sentence, holds) == _in_order(translation, holds) else None


def _in_order(text: str, holds: Holds) -> list[tuple[str, bool]]:
    """The ordered holds of a text, but for the first each with whether there are words behind the one before it."""
    found: list[tuple[str, bool]] = []
    has_words = True
    for piece in regex.split(f"({_MASKS.pattern})", text):
        if piece in holds and holds[piece].is_ordered:
            found.append((piece, has_words or not found))
            has_words = False
        else:
            has_words = has_words or piece in holds or _IN_WORD.search(piece) is not None
    return found


def _whole(carrier: str, translation: str) -> list[int]:
    """Where a carrier stands. A name has to be a whole word."""
    if carrier.isalpha():
        return [found.start() for found in regex.finditer(rf"(?<!\w){carrier}(?!\w)", translation)]
    return [found.start() for found in regex.finditer(regex.escape(carrier), translation)]


def in_parts(sentence: str, holds: Holds, translate: Callable[[str], str]) -> str:
    """The sentence with the holds where they are, and the words between them translated each by itself."""
    return "".join(
        piece if piece in holds else _around(piece, translate) for piece in regex.split(f"({_MASKS.pattern})", sentence)
    )


def _around(piece: str, translate: Callable[[str], str]) -> str:
    core = piece.strip()
    if not core:
        return piece
    at = piece.index(core)
    translated = translate(core)
    if core[0].islower() and translated[:1].isupper() and translated[1:2].islower():
        translated = translated[0].lower() + translated[1:]
    return piece[:at] + translated + piece[at + len(core) :]
