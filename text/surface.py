"""Corrects what models get wrong on the surface of a sentence: all capitals, and the full stop at the end."""

from __future__ import annotations

import regex

from text import languages

_WORD = regex.compile(r"\p{L}{2,}")
_OPEN_END = regex.compile(r"[\p{L}\p{N}\p{Co},;:]\Z")  # a private character stands for a placeholder
_ADDED_STOP = regex.compile(r"(?<=\p{L}{2}|\p{Co})[.。]\Z")


def soften(sentence: str, language: str) -> str:
    """The sentence, in its language, as the model gets it. A sentence in all capitals, which SentencePiece would split
    into single letters, becomes lower case with an initial capital."""
    return languages.capitalize(sentence, language) if _shouts(sentence) else sentence


def word_in_capitals(sentence: str) -> str | None:
    """The word of a sentence that is one word in capitals, a label or an acronym; None of any other sentence."""
    words = _WORD.findall(sentence) if sentence.isupper() else []
    return words[0] if len(words) == 1 else None


def restore(translation: str, sentence: str, language: str, *, capitals: bool = False) -> str:
    """The translation, in its language, in all capitals if its sentence is or if `capitals` says so, and without a full
    stop that the sentence does not have.

    A model that was trained on whole sentences adds a full stop to every heading and list item.
    """
    if _OPEN_END.search(sentence):
        translation = _ADDED_STOP.sub(sentence[-1] if sentence[-1] in ",;:" else "", translation)
    return languages.upper(translation, language) if capitals or _shouts(sentence) else translation


def _shouts(sentence: str) -> bool:
    """Whether a sentence is in all capitals. It must have two words, so that an acronym does not count."""
    return sentence.isupper() and len(_WORD.findall(sentence)) > 1
