"""Greedy and beam search over a batch, one step at a time. Sentences enter and leave the batch between any two steps.

In a step, the model computes the likeliest next tokens of every hypothesis in the batch; then models.engine.search
chooses the hypotheses with which each sentence continues.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.engine.options import DecodingOptions
from models.engine.processors import Processors, best
from models.engine.search import FAILED, Searches
from models.errors import ModelError
from models.network.cache import Doubles, Ints
from models.network.generation import LARGEST_BEAM
from models.network.interface import Logits, Network

K = TypeVar("K", bound=Hashable)

_FEW_ROWS = 16  # a batch keeps the memory of so many rows when it is empty


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A translation. `tokens`: target token ids, without the end token. `score`: mean log-probability per target token,
    including the end token.

    If the length limit forced the end, `finish_reason` is "length", and the end token counts with probability 1.
    """

    tokens: tuple[int, ...]
    score: float
    finish_reason: Literal["eos", "length"]


class _Slot(NamedTuple):
    """A sentence in the batch. `rows` are the cache's rows of its hypotheses."""

    rows: list[int]
    options: DecodingOptions


class Batch(Generic[K]):
    """Sentences that are decoded together, each under a key that the caller chooses."""

    def __init__(self, model: Network, rows: int) -> None:
        """`rows`: the most hypotheses in the batch."""
        self._model = model
        self._rows = rows
        self._cache = model.cache(rows)
        self._searches = Searches(rows, LARGEST_BEAM)
        self._free = list(reversed(range(rows)))  # rows with low numbers are taken first
        self._touched = 0  # the first so many rows have been used since the cache was made
        self._slots: dict[K, _Slot] = {}
        self._processors: dict[K, Processors] = {}  # of the sentences that have some
        self._firsts: Ints | None = None  # the first row of each sentence; None when it has to be computed again

    def __len__(self) -> int:
        return len(self._slots)

    def enter(self, sentences: Mapping[K, tuple[Sequence[int], DecodingOptions]]) -> None:
        """Encodes the sources (token ids including the end token). If this fails, none of the sentences has entered."""
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
        for key, (source, options) in sentences.items():
            if processors := Processors.of(self._model.config, source, options):
                self._processors[key] = processors
        self._firsts = None

    def leave(self, keys: Iterable[K]) -> None:
        """Removes these sentences, as far as they are in the batch."""
        for key in keys:
            if key in self._slots:
                self._free += self._slots.pop(key).rows
                self._processors.pop(key, None)
                self._firsts = None

    @property
    def is_large(self) -> bool:
        """Whether the batch has taken the memory of more than a few rows. On a GPU it takes that of all rows."""
        return self._touched > (_FEW_ROWS if self._model.device.type == "cpu" else 0)

    def rest(self) -> None:
        """Gives the memory of the rows back. The batch has to be empty."""
        with suppress(MemoryError, OSError, RuntimeError):  # if there is no memory for a new cache, the old one stays
            self._cache = self._model.cache(self._rows)
            self._free = list(reversed(range(self._rows)))
            self._touched = 0

    def step(self, keys: Sequence[K] | None = None) -> dict[K, list[Hypothesis] | ModelError]:
        """Runs the model once, for all sentences or those of `keys`. Finished sentences leave; returns their outcomes.

        If the model fails, nothing has changed, so the caller can try again with fewer sentences.
        """
        firsts, searches = self._first_rows(keys), self._searches
        rows = searches.rows(firsts)
        beam = int(searches.beams[firsts].max())
        tokens, scores = self._likeliest(rows, 2 * beam if beam > 1 else 1)
        states = searches.choose(firsts, tokens, scores, self._model.config.eos_token_id, self._cache)
        return self._outcomes(list(self._slots) if keys is None else keys, firsts, states)

    def _begin(self, rows: list[int], source: Sequence[int], options: DecodingOptions) -> None:
        cache, config = self._cache, self._model.config
        longest = min(config.max_length - 1, config.max_position_embeddings)  # max_length counts the start token, too
        limit = min(options.max_length or longest, longest)
        self._touched = max(self._touched, *(row + 1 for row in rows))
        cache.reserve(limit, len(source), kept=self._touched)
        self._searches.reserve(cache.paths.shape[1])
        said = config.generation
        penalty = said.length_penalty if options.length_penalty is None else options.length_penalty
        self._searches.begin(rows, limit, penalty, said.early_stopping)
        first = rows[0]
        cache.memories[rows], cache.lengths[rows] = first, len(source)
        cache.tokens[first], cache.positions[first], cache.paths[first, 0] = config.decoder_start_token_id, 0, first

    def _first_rows(self, keys: Sequence[K] | None) -> Ints:
        if keys is not None:
            return np.array([self._slots[key].rows[0] for key in keys], np.int32)
        if self._firsts is None:
            self._firsts = np.array([slot.rows[0] for slot in self._slots.values()], np.int32)
        return self._firsts

    def _likeliest(self, rows: Ints, count: int) -> tuple[Ints, Doubles]:
        """Runs the model: the likeliest next tokens of each of `rows` and their scores, `count` or more of them."""
        most = self._model.config.decoder_vocab_size
        if not self._processors:
            return self._model.step(self._cache, rows, min(count, most))
        processed = self._processed(rows)
        whole = [i for i, (processors, said) in processed.items() if processors.need_logits(said)]
        bans = {i: processors.bans(said) for i, (processors, said) in processed.items() if i not in whole}
        count = min(count + max(map(len, bans.values()), default=0), most)
        logits = Logits(np.array(whole, np.int32), np.empty((len(whole), most), np.float32))
        tokens, scores = self._model.step(self._cache, rows, count, logits)
        for i, banned in bans.items():
            scores[i, np.isin(tokens[i], banned)] = -np.inf
        for i, values in zip(whole, logits.values, strict=True):
            processors, said = processed[i]
            tokens[i], scores[i] = best(processors.scores(values.astype(np.float64), said), count)
        return tokens, scores

    def _processed(self, rows: Ints) -> dict[int, tuple[Processors, tuple[int, ...]]]:
        """By index in `rows`, of the rows that have some: their processors, and their tokens so far with the start."""
        start = self._model.config.decoder_start_token_id
        own = {row: each for key, each in self._processors.items() for row in self._slots[key].rows}
        return {
            i: (own[row], (start, *self._searches.hypothesis(row, self._cache)))
            for i, row in enumerate(rows.tolist())
            if row in own
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
