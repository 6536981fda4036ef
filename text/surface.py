"""The surface of a sentence that models get wrong: capitals throughout, and the mark at the end."""

from __future__ import annotations

import regex

_WORD = regex.compile(r"\p{L}{2,}")
_OPEN_END = regex.compile(r"[\p{L}\p{N},;:]\Z")
_ADDED_STOP = regex.compile(r"(?<=\p{L}{2})[.。]\Z")


def soften(sentence: str) -> str:
    """What the model gets to see: capitals throughout, which SentencePiece takes to letters, become sentence case."""
    return sentence.capitalize() if _shouts(sentence) else sentence


def restore(translation: str, sentence: str) -> str:
    """The translation with the capitals of its sentence, and without a full stop if that ends in none.

    A model that was trained on whole sentences sets one behind every heading and list item.
    """
    if _OPEN_END.search(sentence):
        translation = _ADDED_STOP.sub("" if sentence[-1].isalnum() else sentence[-1], translation)
    return translation.upper() if _shouts(sentence) else translation


def _shouts(sentence: str) -> bool:
    """Two words or more, so that an acronym stays what it is."""
    return sentence.isupper() and len(_WORD.findall(sentence)) > 1
