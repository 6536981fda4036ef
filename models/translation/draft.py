"""Splits a text into sentences, encoded as tokens for the model, and the layout around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import regex

from models.errors import BadInput
from models.tokenizer import Tokenizer
from text.characters import refusal
from text.segment import Segmentation, split
from text.surface import soften

Tokens = tuple[int, ...]

# A sentence with more characters for each token that it may have is split without being encoded, which bounds how long
# that takes. Prose has three to five.
_CHARACTERS = 8

_WORD = regex.compile(r"\p{L}+")


class Draft(NamedTuple):
    """A text, ready to be translated. `tokens`: the source token ids of each sentence of the segmentation, including
    the end token. `unknown`: whether the model lacks pieces for a part of the text, in a sentence or in layout."""

    text: str
    segmentation: Segmentation
    tokens: list[Tokens]
    unknown: bool


def draft(
    text: str,
    tokenizer: Tokenizer,
    *,
    source: str,
    target_token: str | None,
    longest: int,
    pause: Callable[[], object] = lambda: None,
) -> Draft | BadInput:
    """The draft of a text in the language `source`, or, if the text is refused, the error that says why.

    The tokens of each sentence begin with `target_token`, if there is one. Sentences of more than `longest` tokens are
    split into parts. `pause` is called between any two pieces of the work (text.segment.split).
    """
    unknown, encoded = tokenizer.unknown_id, dict[str, Tokens]()

    def encode(sentence: str) -> Tokens:
        if sentence not in encoded:
            pause()
            encoded[sentence] = tuple(tokenizer.encode(soften(sentence, source), target_token))
        return encoded[sentence]

    def fits(sentence: str) -> bool:
        return len(sentence) <= _CHARACTERS * longest and len(encode(sentence)) <= longest

    def knows(sentence: str) -> bool:
        return unknown not in encode(sentence) or any(unknown not in encode(word) for word in _WORD.findall(sentence))

    if (reason := refusal(text)) is not None:
        return BadInput(reason)
    segmentation = split(text, source, fits, knows, pause)
    tokens = [encode(sentence) for sentence in segmentation.sentences]
    return Draft(text, segmentation, tokens, any(unknown in tokens for tokens in encoded.values()))
