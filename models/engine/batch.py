"""Greedy and beam search, one step at a time, over a batch that sentences enter and leave between any two steps.

The model says the likeliest next tokens of every hypothesis of the batch; each sentence then chooses
(models.engine.search).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.engine.options import LARGEST_BEAM, DecodingOptions
from models.engine.search import FAILED, Searches
from models.errors import ModelError
from models.network.cache import Ints
from models.network.interface import Network

K = TypeVar("K", bound=Hashable)

_FEW_ROWS = 16  # whose memory a batch keeps when it is empty


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A translation: target token ids without the end, and the mean log-probability per target token, the end included.

    Where the length limit forced the end, `finish_reason` is "length", and the end counts as certain.
    """

    tokens: tuple[int, ...]
    score: float
    finish_reason: Literal["eos", "length"]


class _Slot(NamedTuple):
    """A sentence in the batch: the rows of its hypotheses."""

    rows: list[int]
    options: DecodingOptions


class Batch(Generic[K]):
    """Sentences that are decoded together, each under a key of the caller's choice."""

    def __init__(self, model: Network, rows: int) -> None:
        """`rows`: how many hypotheses there is room for."""
        self._model = model
        self._rows = rows
        self._cache = model.cache(rows)
        self._searches = Searches(rows, LARGEST_BEAM)
        self._free = list(reversed(range(rows)))  # the first are taken first
        self._touched = 0  # rows that were taken since the cache was new
        self._slots: dict[K, _Slot] = {}
        self._unrepeating: set[K] = set()  # of these no run of tokens may come twice
        self._firsts: Ints | None = None  # the first row of each, while nobody enters or leaves

    def __len__(self) -> int:
        return len(self._slots)

    def enter(self, sentences: Mapping[K, tuple[Sequence[int], DecodingOptions]]) -> None:
        """Encodes sources, token ids with the end. If it fails, none of them has entered."""
        entering: dict[K, _Slot] = {}
        try:
            for key, (source, options) in sentences.items():
                rows = [self._free.pop() for _ in range(options.beam)]
                entering[key] = _Slot(rows, options)
                self._begin(rows, source, options)
            firsts = [slot.rows[0] for slot in entering.values()]
            self._model.prefill(self._cache, firsts, [source for source, _ in sentences.values()])
        except BaseException:
            self._free += [row for slot in entering.values() for row in slot.rows]
            raise
        self._slots |= entering
        self._unrepeating |= {key for key, slot in entering.items() if slot.options.no_repeat_ngram}
        self._firsts = None

    def leave(self, keys: Iterable[K]) -> None:
        """Gives up these sentences, if they are there."""
        for key in keys:
            if key in self._slots:
                self._free += self._slots.pop(key).rows
                self._unrepeating.discard(key)
                self._firsts = None

    @property
    def is_large(self) -> bool:
        """Whether it takes the memory of more than a few rows, in use or not. A GPU's is taken for all rows at once."""
        return self._touched > (_FEW_ROWS if self._model.device.type == "cpu" else 0)

    def rest(self) -> None:
        """Gives that memory back. The batch has to be empty."""
        with suppress(MemoryError, OSError, RuntimeError):  # not even for an empty one: the old one will do
            self._cache = self._model.cache(self._rows)
            self._free = list(reversed(range(self._rows)))
            self._touched = 0

    def step(self, keys: Sequence[K] | None = None) -> dict[K, list[Hypothesis] | ModelError]:
        """Runs the model once, for all or for some; the outcomes of those that have finished, which have left.

        If it fails nothing has changed, and some of them can be tried without the others.
        """
        firsts, searches = self._first_rows(keys), self._searches
        rows = searches.rows(firsts)
        bans = self._bans(rows)
        beam = int(searches.beams[firsts].max())
        count = (2 * beam if beam > 1 else 1) + max(map(len, bans.values()), default=0)
        tokens, scores = self._model.step(self._cache, rows, min(count, self._model.config.decoder_vocab_size))
        for i, banned in bans.items():
            scores[i, np.isin(tokens[i], banned)] = -np.inf
        states = searches.choose(firsts, tokens, scores, self._model.config.eos_token_id, self._cache)
        return self._outcomes(list(self._slots) if keys is None else keys, firsts, states)

    def _begin(self, rows: list[int], source: Sequence[int], options: DecodingOptions) -> None:
        cache, config = self._cache, self._model.config
        longest = min(config.max_length - 1, config.max_position_embeddings)  # transformers counts the start token too
        limit = min(options.max_length or longest, longest)
        self._touched = max(self._touched, *(row + 1 for row in rows))
        cache.reserve(limit, len(source), kept=self._touched)
        self._searches.reserve(cache.paths.shape[1])
        self._searches.begin(rows, limit, options.length_penalty)
        first = rows[0]
        cache.memories[rows], cache.lengths[rows] = first, len(source)
        cache.tokens[first], cache.positions[first], cache.paths[first, 0] = config.decoder_start_token_id, 0, first

    def _first_rows(self, keys: Sequence[K] | None) -> Ints:
        if keys is not None:
            return np.array([self._slots[key].rows[0] for key in keys], np.int32)
        if self._firsts is None:
            self._firsts = np.array([slot.rows[0] for slot in self._slots.values()], np.int32)
        return self._firsts

    def _bans(self, rows: Ints) -> dict[int, list[int]]:
        """By index in `rows`, the tokens that would repeat a run of tokens."""
        if not self._unrepeating:
            return {}
        sizes = {
            row: slot.options.no_repeat_ngram
            for key in self._unrepeating
            for slot in [self._slots[key]]
            for row in slot.rows
        }
        hypotheses = {i: (row, sizes[row]) for i, row in enumerate(rows.tolist()) if row in sizes}
        return {
            i: _repeating(self._searches.hypothesis(row, self._cache), size) for i, (row, size) in hypotheses.items()
        }

    def _outcomes(
        self, keys: Sequence[K], firsts: Ints, states: NDArray[np.int8]
    ) -> dict[K, list[Hypothesis] | ModelError]:
        outcomes: dict[K, list[Hypothesis] | ModelError] = {}
        for i in np.flatnonzero(states).tolist():
            if states[i] == FAILED:
                outcomes[keys[i]] = ModelError(
                    "The model computes nan: its weights are broken, or too large for this precision."
                )
            else:
                ended = self._searches.ended(int(firsts[i]), self._slots[keys[i]].options.nbest)
                outcomes[keys[i]] = [
                    Hypothesis(tokens, score, "length" if forced else "eos") for tokens, score, forced in ended
                ]
        self.leave(outcomes)
        return outcomes


def _repeating(tokens: tuple[int, ...], size: int) -> list[int]:
    """The tokens that would end a run of `size` tokens which is there already."""
    if len(tokens) < size - 1:
        return []
    last = tokens[len(tokens) - size + 1 :]
    return [tokens[i + size - 1] for i in range(len(tokens) - size + 1) if tokens[i : i + size - 1] == last]
