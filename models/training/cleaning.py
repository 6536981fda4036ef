"""Which sentence pairs are fit to train on, and how many are not, by their reasons."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from hashlib import blake2b

import regex

from models.training.config import Cleaning
from models.training.data import Pair

_BLANKS = regex.compile(r"[\s\p{Zs}]+")
_INVISIBLE = regex.compile(r"[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Cs}]+")
_SEPARATORS = regex.compile(r"[^\p{L}\p{M}\p{N}]+")


@dataclass(slots=True)
class Counts:
    """The pairs that were read, and what became of them."""

    read: int = 0
    empty: int = 0
    held_out: int = 0
    same: int = 0
    long: int = 0
    ratio: int = 0
    duplicate: int = 0
    kept: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


@dataclass(slots=True)
class Cleaner:
    """Cleans one source after the other; duplicates are told over all of them. `held_out` are keys of sentences."""

    settings: Cleaning
    held_out: frozenset[int] = frozenset()
    _seen: set[int] = field(default_factory=set)

    def clean(self, pairs: Iterable[Pair], counts: Counts) -> Iterator[Pair]:
        """The pairs that are fit, their blanks and invisible characters normalised; `counts` goes on counting."""
        for pair in pairs:
            pair = Pair(*map(normalise, pair))
            counts.read += 1
            if reason := self._reason(pair):
                setattr(counts, reason, getattr(counts, reason) + 1)
            else:
                counts.kept += 1
                yield pair

    def _reason(self, pair: Pair) -> str | None:
        source, target = pair
        if not source or not target:
            return "empty"
        keys = key(source), key(target)
        if not self.held_out.isdisjoint(keys):
            return "held_out"
        if source == target and not self.settings.same:
            return "same"
        shorter, longer = sorted(map(len, pair))
        if longer > self.settings.longest:
            return "long"
        if longer > self.settings.ratio_of and longer > self.settings.ratio * shorter:
            return "ratio"
        both = hash64(f"{source}\t{target}")
        if both in self._seen:
            return "duplicate"
        self._seen.add(both)
        return None


def normalise(text: str) -> str:
    """NFC, without what is not seen, blanks of any kind a single space."""
    text = _BLANKS.sub(" ", unicodedata.normalize("NFC", text))
    return _INVISIBLE.sub("", text).strip()


def key(text: str) -> int:
    """The same for two sentences that differ in case, punctuation, blanks and widths only."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return hash64(_SEPARATORS.sub(" ", folded).strip() or text)


def keys(pairs: Iterable[Pair]) -> frozenset[int]:
    """Of all sides, which nothing that is trained on may have."""
    return frozenset(key(side) for pair in pairs for side in pair if side)


def hash64(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
