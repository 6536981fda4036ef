"""Splits a text into sentences, encoded as tokens for the model, and the layout around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import regex

from models.errors import BadInput
from models.tokenizer import Tokenizer
from text import languages
from text.characters import refusal, visible
from text.segment import Segmentation, split, unwrap
from text.surface import soften, word_in_capitals

Tokens = tuple[int, ...]

_LONGEST_ACRONYM = 5  # letters
# A sentence with more characters for each token that it may have is split without being encoded, which bounds how long
# that takes. Prose has three to five.
_CHARACTERS = 8

_WORD = regex.compile(r"\p{L}+")


class Draft(NamedTuple):
    """A text, ready to be translated. `tokens`: the source token ids of each sentence of the segmentation, including
    the end token. `unknown`: whether the model lacks pieces for a part of the text, in a sentence or in layout.
    `softened`: the sentences of one word in capitals that the model gets in lower case."""

    text: str
    segmentation: Segmentation
    tokens: list[Tokens]
    unknown: bool
    softened: frozenset[str] = frozenset()


def draft(
    text: str,
    tokenizer: Tokenizer,
    *,
    source: str,
    target_token: str | None,
    longest: int,
    joined: bool = False,
    pause: Callable[[], object] = lambda: None,
) -> Draft | BadInput:
    """The draft of a text in the language `source`, or, if the text is refused, the error that says why.

    The tokens of each sentence begin with `target_token`, if there is one. Sentences of more than `longest` tokens are
    split into parts. `joined`: whether the lines of a paragraph are joined. `pause` is called between any two pieces of
    the work (text.segment.split).
    """
    unknown, encoded, softened = tokenizer.unknown_id, dict[str, Tokens](), set[str]()

    def encode(sentence: str) -> Tokens:
        if sentence not in encoded:
            pause()
            line = visible(unwrap(sentence, source) if joined else sentence)
            if (word := word_in_capitals(line)) is not None:
                line = _soften(line, word, source, tokenizer)
                softened.update([sentence] if not line.isupper() else [])
            encoded[sentence] = tuple(tokenizer.encode(soften(line, source), target_token))
        return encoded[sentence]

    def fits(sentence: str) -> bool:
        return len(sentence) <= _CHARACTERS * longest and len(encode(sentence)) <= longest

    def knows(sentence: str) -> bool:
        tokens = encode(sentence)
        if sentence.isupper() and sentence not in softened and word_in_capitals(sentence):
            return False  # an acronym
        return unknown not in tokens or any(unknown not in encode(word) for word in _WORD.findall(sentence))

    if (reason := refusal(text)) is not None:
        return BadInput(reason)
    segmentation = split(text, source, fits, knows, pause, joined=joined)
    tokens = [encode(sentence) for sentence in segmentation.sentences]
    return Draft(text, segmentation, tokens, any(unknown in each for each in encoded.values()), frozenset(softened))


def _soften(line: str, word: str, language: str, tokenizer: Tokenizer) -> str:
    """A sentence of one word in capitals as the model gets it: in lower case, unless it seems to be an acronym, because
    it is short and the model has no single piece for it in lower case."""
    forms = [(languages.capitalize(word, language), languages.capitalize(line, language))]
    forms += [(languages.lower(word, language), languages.lower(line, language))]
    pieces, soft = min((len(tokenizer.encode(word)) - 1, line) for word, line in forms)
    return soft if pieces == 1 or len(word) > _LONGEST_ACRONYM else line
