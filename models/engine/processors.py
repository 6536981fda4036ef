"""Logits processors: what a model's generation_config.json, or a second try, demands of the next token.

They are those of transformers (generation/logits_process.py), in their order. Only sentences that have some come here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from models.engine.options import DecodingOptions
from models.network.cache import Doubles
from models.network.config import MarianConfig


@dataclass(frozen=True, slots=True)
class Processors:
    """The processors of a sentence. `source`: its token ids. `no_repeat_ngram`: no n-gram of so many tokens may occur
    twice; 0 turns this off. `tokens`, wherever they are asked for, are those so far, with the start token."""

    config: MarianConfig
    source: Sequence[int]
    no_repeat_ngram: int
    is_greedy: bool

    @classmethod
    def of(cls, config: MarianConfig, source: Sequence[int], options: DecodingOptions) -> Self | None:
        """None if the sentence has no processors."""
        said = config.generation
        size = options.no_repeat_ngram_of(said)
        forced = said.forced_bos_token_id is not None
        some = size or said.penalizes or forced or said.bad_words or said.begin_suppress_tokens
        if not (some or said.min_length or said.encoder_no_repeat_ngram_size):
            return None
        return cls(config, source, size, options.beam == 1)

    def need_logits(self, tokens: Sequence[int]) -> bool:
        """Whether the next token's scores depend on the logits of the whole vocabulary; if not, bans are enough."""
        said = self.config.generation
        forced = said.forced_bos_token_id is not None and len(tokens) == 1
        return forced or said.penalizes or said.renormalize_logits

    def bans(self, tokens: Sequence[int]) -> list[int]:
        """The tokens that may not come next, besides those that are never said."""
        said, size = self.config.generation, self.no_repeat_ngram
        banned = _continuations(tokens, tokens, size) if size else []
        if (size := said.encoder_no_repeat_ngram_size) > 0:
            banned += [token for token in _continuations(self.source, tokens, size) if self._is_target(token)]
        banned += [word[-1] for word in said.bad_words if tuple(tokens[len(tokens) - len(word) + 1 :]) == word[:-1]]
        if len(tokens) < said.min_length:
            banned.append(self.config.eos_token_id)
        if len(tokens) == (1 if said.forced_bos_token_id is None else 2):
            banned += said.begin_suppress_tokens
        return banned

    def scores(self, logits: Doubles, tokens: Sequence[int]) -> Doubles:
        """The scores (v) of the next token, -inf for those that may not come, from its logits (v).

        As in transformers, penalties apply to logits in greedy search, and to log-probabilities in beam search.
        """
        said, normalizer = self.config.generation, _log_sum_exp(logits)
        scores = logits.copy() if self.is_greedy else logits - normalizer
        if said.encoder_repetition_penalty != 1:
            _penalize(scores, list(filter(self._is_target, self.source)), 1 / said.encoder_repetition_penalty)
        if said.repetition_penalty != 1:
            _penalize(scores, tokens, said.repetition_penalty)
        scores[[*self.bans(tokens), *self.config.bad_token_ids]] = -np.inf
        if said.forced_bos_token_id is not None and len(tokens) == 1:
            scores[:] = -np.inf
            scores[said.forced_bos_token_id] = normalizer if self.is_greedy else 0.0
        if said.renormalize_logits:
            return scores - _log_sum_exp(scores)
        return scores - normalizer if self.is_greedy else scores

    def _is_target(self, token: int) -> bool:
        """Whether a source token's id is one of the target vocabulary, too."""
        return token < self.config.decoder_vocab_size


def best(scores: Doubles, count: int) -> tuple[list[int], Doubles]:
    """The `count` best tokens and their scores, the best first, of scores (v)."""
    some = np.argpartition(-scores, count - 1)[:count]
    found = some[np.argsort(-scores[some], kind="stable")]
    return found.tolist(), scores[found]


def _continuations(of: Sequence[int], tokens: Sequence[int], size: int) -> list[int]:
    """The tokens that would make the last tokens an n-gram of `size` tokens that `of` contains."""
    if len(tokens) < size - 1:
        return []
    last = tuple(tokens[len(tokens) - size + 1 :])
    return [of[i + size - 1] for i in range(len(of) - size + 1) if tuple(of[i : i + size - 1]) == last]


def _penalize(scores: Doubles, tokens: Sequence[int], penalty: float) -> None:
    places = np.unique(np.asarray(tokens, np.int64))
    old = scores[places]
    scores[places] = np.where(old < 0, old * penalty, old / penalty)


def _log_sum_exp(scores: Doubles) -> float:
    top = float(scores.max())
    return top + float(np.log(np.exp(scores - top).sum()))
