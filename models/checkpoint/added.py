"""The tokens that fine-tuning has added to a model's vocabulary: added_tokens.json, and tokenizer_config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.checkpoint.files import quote, read_json
from models.errors import UnknownModel

ADDED_TOKENS = "added_tokens.json"
_FLAGS = ("lstrip", "rstrip", "single_word")


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token that is taken out of a text before SentencePiece sees it. White space before it goes with it where it
    `lstrip`s, behind it where it `rstrip`s; a `single_word` has spaces around it."""

    id: int
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False


def added_tokens(directory: Path, config: Mapping[str, Any]) -> dict[str, AddedToken]:
    """By their text, the added tokens of a model's directory; `config` is the content of tokenizer_config.json, which
    precedes added_tokens.json. Raises UnknownModel for what is not as transformers writes it."""
    path = directory / ADDED_TOKENS
    found = {text: AddedToken(_id(path, text, number)) for text, number in read_json(path, required=False).items()}
    path = directory / "tokenizer_config.json"
    described = config.get("added_tokens_decoder") or {}
    if not isinstance(described, dict):
        raise UnknownModel(f"{path}: added_tokens_decoder is {quote(described)}; an object was expected.")
    for number, token in described.items():
        text = token.get("content") if isinstance(token, dict) else None
        if not isinstance(text, str) or not text or not number.isdecimal():
            raise UnknownModel(f"{path}: added_tokens_decoder: {quote(token)} is no token with a content.")
        found[text] = AddedToken(int(number), **{flag: token.get(flag) is True for flag in _FLAGS})
    return found


def _id(path: Path, text: str, number: object) -> int:
    if type(number) is not int or number < 0 or not text:
        raise UnknownModel(f"{path}: {quote(repr(text))} has the id {quote(number)}; a number was expected.")
    return number
