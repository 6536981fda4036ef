"""SentencePiece and the vocabulary: text to token ids and back, with the ids of transformers' MarianTokenizer.

In a MarianMT directory, source.spm and target.spm are the SentencePiece models of both sides; vocab.json has the ids of
their pieces. A model with separate vocabularies has the ids of target pieces in target_vocab.json. Punctuation is not
normalized, as in transformers without sacremoses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import regex
from sentencepiece import SentencePieceProcessor

from models.checkpoint.added import ADDED_TOKENS, AddedToken, added_tokens
from models.checkpoint.files import quote, read, read_json
from models.checkpoint.metadata import METADATA, Symbols
from models.errors import BadInput, UnknownModel
from text.characters import REFUSED

_SPACE = "▁"  # how SentencePiece writes a space
_SPECIAL = ("</s>", "<unk>", "<pad>")
_NO_SYMBOLS = Symbols()
_TARGET_TOKEN = regex.compile(r">>[\w.@+-]{1,40}<<")


class Tokenizer:
    """Thread-safe. `max_length`: the most tokens of a source sentence that the model takes, including the end token.

    `symbols`: the pieces that the model was taught to copy.
    """

    def __init__(
        self,
        source: SentencePieceProcessor,
        target: SentencePieceProcessor,
        source_ids: Mapping[str, int],
        target_ids: Mapping[str, int],
        *,
        max_length: int,
        symbols: Symbols = _NO_SYMBOLS,
        added: Mapping[str, AddedToken] = MappingProxyType({}),
    ) -> None:
        """`added`: the tokens that are taken out of a text before SentencePiece sees it; the ids have them, too."""
        self.max_length = max_length
        self.symbols = symbols
        self.eos_id, self.unknown_id, self.pad_id = (source_ids[token] for token in _SPECIAL)
        self.target_tokens = frozenset(filter(_TARGET_TOKEN.fullmatch, source_ids))
        self._source, self._target = source, target
        self._source_ids = source_ids
        self._added = _pattern(added) if added else None
        self._target_pieces = {i: piece for piece, i in target_ids.items() if piece not in _SPECIAL}

    @classmethod
    def load(cls, directory: Path) -> Self:
        """The tokenizer of a MarianMT directory. Raises UnknownModel for a file that is missing or cannot be read."""
        path = directory / "config.json"
        config = read_json(path)
        tokenizer_config = read_json(directory / "tokenizer_config.json", required=False)
        max_length, size = config.get("max_position_embeddings", 1024), config.get("vocab_size", 0)
        target_size = config.get("decoder_vocab_size") or size
        if not all(type(number) is int for number in (max_length, size, target_size)):
            raise UnknownModel(f"{path}: vocab_size, decoder_vocab_size or max_position_embeddings is not an integer.")
        source_ids = _vocabulary(directory / "vocab.json", size)
        separate = tokenizer_config.get("separate_vocabs", False)
        if type(separate) is not bool:
            raise UnknownModel(f"{directory / 'tokenizer_config.json'}: separate_vocabs is neither true nor false.")
        target_ids = _vocabulary(directory / "target_vocab.json", target_size) if separate else source_ids
        added = _added(directory, tokenizer_config, (source_ids, size), (target_ids, target_size))
        symbols = Symbols.load(directory)
        if unknown := sorted(set(symbols.all) - (source_ids.keys() & target_ids.keys())):
            raise UnknownModel(f"{directory / METADATA}: {quote(unknown[0])} is in no vocabulary.")
        return cls(
            _sentencepiece(directory / "source.spm"),
            _sentencepiece(directory / "target.spm"),
            source_ids,
            target_ids,
            max_length=max_length,
            symbols=symbols,
            added=added,
        )

    def encode(self, text: str, target_token: str | None = None) -> list[int]:
        """The token ids of a sentence: the target token if there is one, the pieces, and the end of sentence.

        Raises BadInput for text that is not valid Unicode (a lone surrogate), and for a target token that the model
        does not have.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BadInput(f"The character at {error.start} is half of a surrogate pair: not valid Unicode.") from error
        if self._added is None:
            pieces = self._source.encode(text, out_type=str)
        else:
            pieces = [piece for part in self._added.split(text) if part for piece in self._pieces(part)]
        if target_token is not None and target_token not in self.target_tokens:
            raise BadInput(f"The model has no target token {target_token!r}.")
        prefix = [] if target_token is None else [self._source_ids[target_token]]
        return [*prefix, *(self._source_ids.get(piece, self.unknown_id) for piece in pieces), self.eos_id]

    def _pieces(self, part: str) -> list[str]:
        """The pieces of a part of a text, which is an added token, perhaps with white space, or has none."""
        if self._added is not None and self._added.fullmatch(part):
            return [part if part in self._source_ids else part.strip()]
        pieces: list[str] = self._source.encode(part, out_type=str)
        return pieces

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of target token ids; special tokens, and ids outside the vocabulary, are left out."""
        pieces = [self._target_pieces.get(token, "") for token in tokens]
        text: str = self._target.decode_pieces(pieces)
        return text.replace(_SPACE, " ").strip()


def _vocabulary(path: Path, size: int) -> dict[str, int]:
    ids = read_json(path)
    if not all(type(index) is int and 0 <= index < size for index in ids.values()):
        raise UnknownModel(f"{path}: a token's id is negative, no integer, or not below {size}, the vocabulary's size.")
    if len(set(ids.values())) < len(ids):
        raise UnknownModel(f"{path}: two tokens have the same id.")
    if missing := set(_SPECIAL) - ids.keys():
        raise UnknownModel(f"{path}: lacks {', '.join(sorted(missing))}.")
    if REFUSED.search("".join(ids)):
        raise UnknownModel(f"{path}: a token holds NUL or half of a surrogate pair.")
    return ids


def _added(
    directory: Path, config: Mapping[str, Any], *vocabularies: tuple[dict[str, int], int]
) -> dict[str, AddedToken]:
    """The added tokens, of which each vocabulary, with the number of its ids, is given those that it lacks.

    The end of a sentence, padding and target tokens are no part of a text, so that nobody can write them into one.
    """
    added = added_tokens(directory, config)
    for text, token in added.items():
        for ids, size in vocabularies:
            if ids.get(text, token.id) != token.id or token.id >= size or REFUSED.search(text):
                raise UnknownModel(
                    f"{directory}: the added token {quote(repr(text))} ({ADDED_TOKENS} or tokenizer_config.json) has "
                    f"the id {token.id}, which is not below {size}, or vocab.json has another one for it."
                )
            ids[text] = token.id
    for ids, _ in vocabularies:
        if len(set(ids.values())) < len(ids):
            raise UnknownModel(f"{directory}: an added token has the id of another token ({ADDED_TOKENS}).")
    return {text: token for text, token in added.items() if text not in _SPECIAL and not _TARGET_TOKEN.fullmatch(text)}


def _pattern(added: Mapping[str, AddedToken]) -> regex.Pattern[str]:
    """Splits a text into added tokens, of two that begin alike the longer one, and what is between them."""
    tokens = []
    for text in sorted(added, key=len, reverse=True):
        token, each = added[text], regex.escape(text)
        each = rf"(?<!\S){each}(?!\S)" if token.single_word else each
        tokens.append(rf"\s*{each}" if token.lstrip else each)
        tokens[-1] += r"\s*" if token.rstrip else ""
    return regex.compile(f"({'|'.join(tokens)})")


def _sentencepiece(path: Path) -> SentencePieceProcessor:
    try:
        processor = SentencePieceProcessor(model_proto=read(path))
        processor.encode("")  # only this call refuses a model without pieces
        return processor
    except (OSError, RuntimeError) as error:
        raise UnknownModel(f"{path}: is not a SentencePiece model: {quote(error)}.") from error
