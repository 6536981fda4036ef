"""Splits a text into sentences, encoded as tokens for the model, and the layout around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

import regex

from models.errors import BadInput
from models.fidelity.masking import NAMES, Carried, Holds, carry, mask, masks, unmask
from models.tokenizer import Tokenizer
from text import languages
from text.characters import refusal, visible
from text.holds import Profile, find
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
    `softened`: the sentences of one word in capitals that the model gets in lower case.

    `masked`: the sentences with a private character for each of the `holds`, None if there are none. `carried`: how
    the model gets a sentence that has some. `encode`: the tokens of a sentence with given holds and carriers, and how
    these are carried; None if there are too many holds. `carriers`: what may stand for a hold.
    """

    text: str
    segmentation: Segmentation
    tokens: list[Tokens]
    unknown: bool
    softened: frozenset[str] = frozenset()
    masked: tuple[str, ...] | None = None
    holds: Holds = MappingProxyType({})
    carried: Mapping[str, Carried] = MappingProxyType({})
    encode: Callable[[str, Holds, Sequence[str]], tuple[Tokens, Carried] | None] = lambda *_: None
    carriers: Sequence[str] = ()

    @property
    def sentences(self) -> tuple[str, ...]:
        """The sentences as they are translated: masked, if there are holds."""
        return self.segmentation.sentences if self.masked is None else self.masked


def draft(
    text: str,
    tokenizer: Tokenizer,
    *,
    source: str,
    target_token: str | None,
    longest: int,
    joined: bool = False,
    pause: Callable[[], object] = lambda: None,
    profile: Profile = Profile.AUTO,
    preserve: Sequence[str] = (),
) -> Draft | BadInput:
    """The draft of a text in the language `source`, or, if the text is refused, the error that says why.

    The tokens of each sentence begin with `target_token`, if there is one. Sentences of more than `longest` tokens are
    split into parts, and so are those with more holds than there are carriers. `joined`: whether the lines of a
    paragraph are joined. `pause` is called between any two pieces of the work (text.segment.split). `profile` and
    `preserve` say what is a hold (text.holds.find).
    """
    unknown, encoded, softened = tokenizer.unknown_id, dict[str, Tokens](), set[str]()
    carried: dict[str, Carried] = {}
    carriers = (tokenizer.symbols.holds or NAMES) if profile is not Profile.OFF or preserve else ()

    def tokens_of(line: str) -> Tokens:
        return tuple(tokenizer.encode(line, target_token))

    def encode_held(sentence: str, holds: Holds, free: Sequence[str]) -> tuple[Tokens, Carried] | None:
        line = soften(visible(unwrap(sentence, source) if joined else sentence), source)
        found = carry(line, holds, free)
        return found and (tokens_of(found.line), found)

    def encode(sentence: str) -> Tokens:
        if sentence not in encoded:
            pause()
            line = visible(unwrap(sentence, source) if joined else sentence)
            if (word := word_in_capitals(line)) is not None:
                line = _soften(line, word, source, tokenizer)
                softened.update([sentence] if not line.isupper() else [])
            line = soften(line, source)
            if holds and masks(line, holds):
                carried[sentence] = carry(line, holds, carriers) or Carried(line, {})
                line = carried[sentence].line
            encoded[sentence] = tokens_of(line)
        return encoded[sentence]

    def fits(sentence: str) -> bool:
        if holds and len(masks(sentence, holds)) > _most_holds(sentence, carriers):
            return False
        return len(sentence) <= _CHARACTERS * longest and len(encode(sentence)) <= longest

    def knows(sentence: str) -> bool:
        tokens = encode(sentence)
        if sentence.isupper() and sentence not in softened and word_in_capitals(sentence):
            return False  # an acronym
        return unknown not in tokens or any(unknown not in encode(word) for word in _WORD.findall(sentence))

    if (reason := refusal(text)) is not None:
        return BadInput(reason)
    found = find(text, profile, preserve)
    masked_text, holds = mask(text, found) if found else (text, {})
    segmentation = split(masked_text, source, fits, knows, pause, joined=joined)
    tokens = [encode(sentence) for sentence in segmentation.sentences]
    is_unknown = any(unknown in each for each in encoded.values())
    masked = None
    if holds:
        masked = segmentation.sentences
        sentences, gaps = (tuple(unmask(each, holds) for each in some) for some in (masked, segmentation.gaps))
        segmentation = replace(segmentation, sentences=sentences, gaps=gaps)
    return Draft(
        text,
        segmentation,
        tokens,
        is_unknown,
        frozenset(softened),
        masked=masked,
        holds=holds,
        carried=carried,
        encode=encode_held,
        carriers=carriers,
    )


def _most_holds(sentence: str, carriers: Sequence[str]) -> int:
    return sum(carrier not in sentence for carrier in carriers)


def _soften(line: str, word: str, language: str, tokenizer: Tokenizer) -> str:
    """A sentence of one word in capitals as the model gets it: in lower case, unless it seems to be an acronym, because
    it is short and the model has no single piece for it in lower case."""
    forms = [(languages.capitalize(word, language), languages.capitalize(line, language))]
    forms += [(languages.lower(word, language), languages.lower(line, language))]
    pieces, soft = min((len(tokenizer.encode(word)) - 1, line) for word, line in forms)
    return soft if pieces == 1 or len(word) > _LONGEST_ACRONYM else line
