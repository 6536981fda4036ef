"""From files to what the loop needs: cleaned pairs, a vocabulary, a lexicon. The latter two are kept with the run."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import NamedTuple

from models.errors import BadInput
from models.training import vocabulary as vocabularies
from models.training.cleaning import Cleaner, Counts, keys
from models.training.config import Config, Landed, Watching
from models.training.data import Pair, read_pairs
from models.training.lexicon import Lexicon
from models.training.vocabulary import Vocabulary

_LEXICON_PAIRS = 400_000
_LEXICON_LONGEST = 40  # pieces of a side

logger = logging.getLogger(__name__)


class Prepared(NamedTuple):
    """`sources` and `counts` are in the configuration's order; `fingerprint` changes with whatever changes figures."""

    sources: list[list[Pair]]
    counts: list[Counts]
    held_out: dict[str, list[Pair]]
    vocabulary: Vocabulary
    lexicon: Lexicon | None
    fingerprint: str


def prepare(config: Config, data: Path, run: Path, start: Path | None) -> Prepared:
    """Raises BadInput for files that cannot be read, and where nothing is left of a source."""
    held_out = {
        each.title: list(read_pairs(data / each.path, config.source, config.target, reverse=config.reverse))
        for each in config.held_out
    }
    if config.both_ways:
        held_out |= {f"{name}, turned round": [Pair(*pair[::-1]) for pair in pairs] for name, pairs in held_out.items()}
    cleaner = Cleaner(config.cleaning, keys(pair for pairs in held_out.values() for pair in pairs))
    sources, counts = [], []
    for source in config.sources:
        count = Counts()
        pairs = read_pairs(data / source.path, config.source, config.target, reverse=config.reverse)
        sources.append(list(cleaner.clean(pairs, count)))
        counts.append(count)
        if not sources[-1]:
            raise BadInput(f"{source.path}: no pair of it can be trained on: {count}.")
    logger.info("%s", cleaning_table(config, counts))
    directory = run / "vocabulary"
    if not (directory / "vocab.json").exists():
        if start and config.vocabulary.reuse:
            vocabularies.copy(start, directory)
        else:
            vocabularies.learn(_texts(config, sources), config, directory)
    vocabulary = Vocabulary(directory, config.target, config.target_token)
    logger.info("vocabulary: %d pieces, %d symbols", len(vocabulary.ids[0]), len(vocabulary.symbols.all))
    return Prepared(
        sources, counts, held_out, vocabulary, _lexicon(config, sources, vocabulary, run), _print(config, data)
    )


def cleaning_table(config: Config, counts: Sequence[Counts]) -> str:
    """How many pairs of each source were kept, and why the others were not."""
    names = [each.name for each in fields(Counts)]
    rows = [["", *(name.replace("_", " ") for name in names)]]
    total = sum(counts, Counts())
    for title, count in zip([*(source.title for source in config.sources), "all"], [*counts, total], strict=True):
        rows.append([title, *(f"{getattr(count, name):,}" for name in names)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def _texts(config: Config, sources: Sequence[Sequence[Pair]]) -> Iterator[str]:
    """Both sides of a sample, of every source by its weight."""
    sizes = [source.weight * len(pairs) for source, pairs in zip(config.sources, sources, strict=True)]
    share = min(1.0, config.vocabulary.sample / sum(sizes))
    random = Random(config.training.seed)  # noqa: S311 - no secret
    for source, pairs in zip(config.sources, sources, strict=True):
        for pair in pairs:
            if random.random() < share * source.weight:
                yield from pair


def _lexicon(config: Config, sources: Sequence[Sequence[Pair]], vocabulary: Vocabulary, run: Path) -> Lexicon | None:
    rates = config.augmentation
    if not (config.training.guided or rates.holds or rates.pairs or rates.terms or rates.words or rates.cut):
        return None
    path = run / "lexicon.npz"
    if not path.exists():
        pairs = [pair for some in sources for pair in some]
        Random(config.training.seed).shuffle(pairs)  # noqa: S311 - no secret
        some = pairs[:_LEXICON_PAIRS]
        if config.both_ways:
            some = [Pair(*pair[::-1]) if i % 2 else pair for i, pair in enumerate(some)]
        short = [(s, t) for s, t in vocabulary.encode_pairs(some) if max(len(s), len(t)) <= _LEXICON_LONGEST]
        size = 1 + max(max(ids.values()) for ids in vocabulary.ids)
        partial = path.with_name("part.npz")
        Lexicon.learn(short, size, vocabulary.is_shared).save(partial)
        partial.replace(path)
    return Lexicon.load(path)


def _print(config: Config, data: Path) -> str:
    """Of the data, and of the settings that figures depend on."""
    training = replace(config.training, steps=0, landing=1, workers=0, device="")
    settings = replace(config, watching=Watching(), landed=Landed(), training=training)
    digest = blake2b(repr(settings).encode(), digest_size=8)
    for path in [each.path for each in config.sources] + [each.path for each in config.held_out]:
        digest.update((data / path).read_bytes())
    return digest.hexdigest()
