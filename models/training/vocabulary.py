"""The vocabulary of a training: SentencePiece over both languages, with symbols that stay whole, or a model's own.

It lies in the files of a MarianMT directory: source.spm, target.spm, vocab.json (and target_vocab.json where a model
has two vocabularies), tokenizer_config.json, tolk.json.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from models.checkpoint.files import read, read_json
from models.checkpoint.metadata import METADATA, Symbols
from models.errors import BadInput
from models.training import config as settings
from models.training.data import Pair

FILES = ("source.spm", "target.spm", "vocab.json", "target_vocab.json", "tokenizer_config.json", METADATA)
END, UNKNOWN, PAD = "</s>", "<unk>", "<pad>"
_REQUIRED = "0123456789.,;:!?'\"()-/%€$«»"  # characters that have a piece however rare they are
_LONGEST = 128  # tokens of a sentence that is translated whole

Tokens = list[int]


class Located(NamedTuple):
    """The pieces of a text: their ids, and the characters (start, end) that each stands for."""

    ids: Tokens
    pieces: list[str]
    spans: list[tuple[int, int]]


class Vocabulary:
    """Text to ids, on both sides, with the end of sentence.

    `target_token` is what a multilingual model is told before each source, None for any other.
    """

    def __init__(self, directory: Path, target: str = "", target_token: str = "") -> None:
        """`target_token` is by default `>>target<<`, where the vocabulary has such. Raises UnknownModel for files
        that are missing or malformed, BadInput for a token that is not there."""
        self.directory = directory
        self.symbols = Symbols.load(directory)
        self._processors = [SentencePieceProcessor(model_proto=read(directory / f"{side}.spm")) for side in SIDES]
        separate = read_json(directory / "tokenizer_config.json", required=False).get("separate_vocabs", False)
        source = read_json(directory / "vocab.json")
        self.ids: list[dict[str, int]] = [source, read_json(directory / "target_vocab.json") if separate else source]
        self.end, self.unknown, self.pad = (source[token] for token in (END, UNKNOWN, PAD))
        self.is_shared = not separate
        tokens = sorted(piece for piece in source if piece.startswith(">>") and piece.endswith("<<"))
        self.target_token = (target_token or f">>{target}<<") if tokens and target else None
        if self.target_token not in (None, *tokens):
            raise BadInput(f"The model has no target token {self.target_token}: target_token is one of {tokens[:9]}.")
        self._prefix = [] if self.target_token is None else [source[self.target_token]]

    def tokenizer(self, config: settings.Config) -> dict[str, object]:
        """What tokenizer_config.json of the model says; one with target tokens has no target of its own."""
        languages = {"source_lang": config.source, "target_lang": config.target}
        if self.target_token is not None:
            del languages["target_lang"]
        longest = {"model_max_length": config.landed.longest} if config.landed.longest else {}
        return {**languages, **longest}

    def encode(self, side: int, texts: Sequence[str]) -> list[Tokens]:
        """`side` is 0 for the source, 1 for the target."""
        ids, unknown, end = self.ids[side], self.unknown, self.end
        pieces = self._processors[side].encode(list(texts), return_type=str, num_threads=1)
        prefix = self._prefix if side == 0 else []
        return [[*prefix, *(ids.get(piece, unknown) for piece in sentence), end] for sentence in pieces]

    def encode_pairs(self, pairs: Sequence[Pair]) -> Iterator[tuple[Tokens, Tokens]]:
        sides = (self.encode(side, [pair[side] for pair in pairs]) for side in range(2))
        return zip(*sides, strict=True)

    def locate(self, side: int, text: str) -> Located:
        """Without the end of sentence."""
        found = self._processors[side].encode(text, return_type="offset_mapping")
        ids = [self.ids[side].get(piece, self.unknown) for piece in found["pieces"]]
        return Located(ids, found["pieces"], found["offsets"])


SIDES = ("source", "target")


def symbols(vocabulary: settings.Vocabulary) -> Symbols:
    """Their names. They hold no character that anybody types."""
    return Symbols(
        holds=tuple(f"⟦h{i}⟧" for i in range(vocabulary.holds)),
        pairs=tuple((f"⟦o{i}⟧", f"⟦c{i}⟧") for i in range(vocabulary.pairs)),
        term=("⟦t⟧", "⟦/t⟧") if vocabulary.terms else (),
    )


def learn(texts: Iterable[str], config: settings.Config, directory: Path) -> None:
    """Learns a joint vocabulary and writes its files."""
    vocabulary, marks = config.vocabulary, symbols(config.vocabulary)
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=vocabulary.size,
        character_coverage=vocabulary.character_coverage,
        required_chars=_REQUIRED,
        split_digits=vocabulary.split_digits,
        user_defined_symbols=list(marks.all),
        hard_vocab_limit=False,
        bos_id=-1,
        eos_id=0,
        unk_id=1,
        pad_id=-1,
        num_threads=max(1, config.training.threads),
        minloglevel=2,
    )
    processor = SentencePieceProcessor(model_proto=model.getvalue())
    pieces = [processor.id_to_piece(i) for i in range(len(processor))]
    directory.mkdir(parents=True, exist_ok=True)
    for side in SIDES:
        (directory / f"{side}.spm").write_bytes(model.getvalue())
    ids = {piece: i for i, piece in enumerate([*pieces, PAD])}
    tokenizer = {
        "source_lang": config.source,
        "target_lang": config.target,
        "separate_vocabs": False,
        "unk_token": UNKNOWN,
        "eos_token": END,
        "pad_token": PAD,
        "model_max_length": config.landed.longest or _LONGEST,
        "tokenizer_class": "MarianTokenizer",
    }
    for name, content in (("vocab.json", ids), ("tokenizer_config.json", tokenizer), (METADATA, marks.said())):
        (directory / name).write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")


def copy(model: Path, directory: Path) -> None:
    """The vocabulary of a model's directory, into another directory."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if (model / name).exists():
            shutil.copyfile(model / name, directory / name)
