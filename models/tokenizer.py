"""SentencePiece and the vocabulary: text to token ids and back, with the ids of transformers' MarianTokenizer.

In a MarianMT directory, source.spm and target.spm are the SentencePiece models of both sides; vocab.json has the ids of
their pieces. A model with separate vocabularies has the ids of target pieces in target_vocab.json. Punctuation is not
normalized, as in transformers without sacremoses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import regex
from sentencepiece import SentencePieceProcessor

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
    ) -> None:
        self.max_length = max_length
        self.symbols = symbols
        self.eos_id, self.unknown_id, self.pad_id = (source_ids[token] for token in _SPECIAL)
        self.target_tokens = frozenset(filter(_TARGET_TOKEN.fullmatch, source_ids))
        self._source, self._target = source, target
        self._source_ids = source_ids
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
        pieces = self._source.encode(text, out_type=str)
        if target_token is not None and target_token not in self.target_tokens:
            raise BadInput(f"The model has no target token {target_token!r}.")
        prefix = [] if target_token is None else [self._source_ids[target_token]]
        return [*prefix, *(self._source_ids.get(piece, self.unknown_id) for piece in pieces), self.eos_id]

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


def _sentencepiece(path: Path) -> SentencePieceProcessor:
    try:
        processor = SentencePieceProcessor(model_proto=read(path))
        processor.encode("")  # only this call refuses a model without pieces
        return processor
    except (OSError, RuntimeError) as error:
        raise UnknownModel(f"{path}: is not a SentencePiece model: {quote(error)}.") from error
