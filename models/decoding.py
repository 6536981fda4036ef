"""Greedy and beam search over a batch of sentences, one step at a time.

A search holds sentences that are decoded together. Each `step` runs the model once and returns the sentences that have
finished, whose rows are then gone; `drop` takes out others. Results are those of transformers' `generate` with
early_stopping=False (`_sample` and `_beam_search` of transformers 5).

In the shapes: n sentences, k hypotheses of each, t target tokens so far, v target vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from models.errors import BadInput, ModelError
from models.marian import Marian

LARGEST_BEAM = 64  # twice as many candidates must fit into any vocabulary
LARGEST_PENALTY = 10.0  # of lengths; with more, ranks would leave the range of float32
NEVER = -1e9  # a log-probability below any real one, and above -inf, which would turn to nan when subtracted


@dataclass(frozen=True, slots=True)
class Options:
    """How a sentence is decoded.

    `beam`: hypotheses kept, 1 is greedy. `nbest`: how many are returned, at most `beam`. `length_penalty`: hypotheses
    are ranked by the sum of their log-probabilities over their length to this power. `max_length`: most target tokens,
    the end included; None is the model's own limit. `no_repeat_ngram`: no run of so many tokens comes twice; 0 is off.
    """

    beam: int = 1
    nbest: int = 1
    length_penalty: float = 1.0
    max_length: int | None = None
    no_repeat_ngram: int = 0

    def __post_init__(self) -> None:
        """Raises BadInput for options out of range."""
        if not 1 <= self.nbest <= self.beam <= LARGEST_BEAM:
            raise BadInput(f"options: 1 <= nbest ({self.nbest}) <= beam ({self.beam}) <= {LARGEST_BEAM} does not hold.")
        if not abs(self.length_penalty) <= LARGEST_PENALTY:  # nor nan
            raise BadInput(f"options: length_penalty is at most {LARGEST_PENALTY}, not {self.length_penalty}.")
        if self.max_length is not None and self.max_length < 1:
            raise BadInput(f"options: max_length is at least 1, not {self.max_length}.")
        if self.no_repeat_ngram < 0:
            raise BadInput(f"options: no_repeat_ngram is at least 0, not {self.no_repeat_ngram}.")


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A translation: target token ids without the end, and the mean log-probability per target token, the end included.

    Where the length limit forced the end, `finish_reason` is "length", and the end counts as certain.
    """

    tokens: tuple[int, ...]
    score: float
    finish_reason: Literal["eos", "length"]


class Search(Protocol):
    """`sentences`: the numbers (places in the list it began with) of those that are still decoded."""

    sentences: list[int]

    def step(self) -> dict[int, list[Hypothesis]]:
        """Runs the model once; the hypotheses, best first, of each sentence that has finished, by its number."""

    def drop(self, sentences: Collection[int]) -> None:
        """Gives up the sentences of these numbers."""


def search(model: Marian, sources: Sequence[Sequence[int]], options: Sequence[Options]) -> Search:
    """A search over the sentences, which must have the same beam width; it has encoded them when this returns."""
    (beam,) = {each.beam for each in options}
    return GreedySearch(model, sources, options) if beam == 1 else BeamSearch(model, sources, options, beam)


class GreedySearch:
    """Takes the likeliest token each time."""

    def __init__(self, model: Marian, sources: Sequence[Sequence[int]], options: Sequence[Options]) -> None:
        self.sentences = list(range(len(sources)))
        self._model = model
        self._options = list(options)
        self._cache = model.prefill(sources)
        self._last = _starts(model, len(sources))  # (n, 1)
        self._tokens: list[tuple[int, ...]] = [()] * len(sources)
        self._sums = [0.0] * len(sources)

    def step(self) -> dict[int, list[Hypothesis]]:
        logits = self._model.step(self._last, self._cache).float()  # (n, 1, v)
        total = logits.logsumexp(-1)  # (n, 1), before anything is banned: scores are the model's own
        forced = _restrict(
            logits, self._model, self._options, [[tokens] for tokens in self._tokens], self._cache.length
        )
        best, self._last = logits.max(-1)  # (n, 1)
        chosen = zip(self._last[:, 0].tolist(), (best - total)[:, 0].tolist(), forced, strict=True)
        finished: dict[int, list[Hypothesis]] = {}
        for row, (token, score, end) in enumerate(chosen):
            _check(score)
            self._sums[row] += 0.0 if end else score
            if token == self._model.config.eos_token_id:
                finished[self.sentences[row]] = [_hypothesis(self._tokens[row], self._sums[row], forced=end)]
            else:
                self._tokens[row] += (token,)
        self.drop(finished)
        return finished

    def drop(self, sentences: Collection[int]) -> None:
        keep = [row for row, sentence in enumerate(self.sentences) if sentence not in sentences]
        if len(keep) == len(self.sentences):
            return
        self.sentences = [self.sentences[row] for row in keep]
        self._options = [self._options[row] for row in keep]
        self._tokens = [self._tokens[row] for row in keep]
        self._sums = [self._sums[row] for row in keep]
        if keep:
            rows = torch.tensor(keep, device=self._last.device)
            self._last = self._last[rows]
            self._cache.keep_sentences(rows)
            self._cache.keep_rows(rows)


class BeamSearch:
    """Keeps the `beam` likeliest hypotheses of each sentence.

    A sentence has finished when it has `beam` ended hypotheses and its likeliest open one, ended now, would rank below
    them all. Of two candidates that rank the same, torch.topk chooses.
    """

    def __init__(self, model: Marian, sources: Sequence[Sequence[int]], options: Sequence[Options], beam: int) -> None:
        self.sentences = list(range(len(sources)))
        self._model = model
        self._beam = beam
        self._options = list(options)
        self._cache = model.prefill(sources)
        # The hypotheses of a sentence begin alike, so that k is 1 before the first step, and `beam` from then on.
        self._last = _starts(model, len(sources))  # (n, k)
        self._sums = torch.zeros((len(sources), 1), device=model.device)  # (n, k)
        self._tokens: list[list[tuple[int, ...]]] = [[()] for _ in sources]
        self._ended: list[list[tuple[float, Hypothesis]]] = [[] for _ in sources]  # with its rank, best first

    def step(self) -> dict[int, list[Hypothesis]]:
        logits = self._model.step(self._last, self._cache).float()  # (n, k, v)
        scores = logits.log_softmax(-1)
        forced = _restrict(scores, self._model, self._options, self._tokens, self._cache.length)
        vocabulary = scores.shape[-1]
        # Twice as many as are kept: where `beam` of them end, as many go on.
        sums, places = (scores + self._sums[:, :, None]).flatten(1).topk(2 * self._beam)  # (n, 2k)
        parents, tokens = places // vocabulary, places % vocabulary
        ends = tokens == self._model.config.eos_token_id
        self._sums, chosen = torch.where(ends, sums + NEVER, sums).topk(self._beam)  # (n, k)
        self._collect(sums[:, : self._beam].tolist(), parents.tolist(), ends.tolist(), forced)
        finished = {
            sentence: [hypothesis for _, hypothesis in self._ended[row][: self._options[row].nbest]]
            for row, (sentence, best) in enumerate(zip(self.sentences, self._sums[:, 0].tolist(), strict=True))
            if forced[row] or self._complete(row, best)
        }
        width = self._last.shape[1]
        self._last, parents = tokens.gather(1, chosen), parents.gather(1, chosen)  # (n, k)
        self._tokens = [
            [hypotheses[parent] + (token,) for parent, token in zip(*row, strict=True)]
            for hypotheses, *row in zip(self._tokens, parents.tolist(), self._last.tolist(), strict=True)
        ]
        self._keep(finished, parents, width)
        return finished

    def drop(self, sentences: Collection[int]) -> None:
        if not set(sentences).isdisjoint(self.sentences):
            width = self._last.shape[1]
            self._keep(sentences, torch.arange(width, device=self._last.device).expand_as(self._last), width)

    def _collect(
        self, sums: list[list[float]], parents: list[list[int]], ends: list[list[bool]], forced: list[bool]
    ) -> None:
        """Files the candidates that have just ended; those after the first `beam` were only reserves."""
        for row, (ended, options) in enumerate(zip(self._ended, self._options, strict=True)):
            _check(sums[row][0])
            for candidate, total in enumerate(sums[row]):
                if ends[row][candidate] and total > NEVER / 2:
                    hypothesis = _hypothesis(self._tokens[row][parents[row][candidate]], total, forced=forced[row])
                    ended.append((total / self._cache.length**options.length_penalty, hypothesis))
            ended.sort(key=lambda each: each[0], reverse=True)
            del ended[self._beam :]

    def _complete(self, row: int, best: float) -> bool:
        ended = self._ended[row]
        rank = best / self._cache.length ** self._options[row].length_penalty
        return len(ended) == self._beam and rank <= ended[-1][0]

    def _keep(self, dropped: Collection[int], parents: Tensor, width: int) -> None:
        """Goes on with all sentences but the dropped ones; `parents` (n, k): what of `width` each goes on from."""
        keep = [row for row, sentence in enumerate(self.sentences) if sentence not in dropped]
        rows = torch.tensor(keep, dtype=torch.long, device=parents.device)
        if keep:
            self._cache.keep_rows((rows[:, None] * width + parents[rows]).flatten())
        if len(keep) == len(self.sentences):
            return
        self.sentences = [self.sentences[row] for row in keep]
        self._options = [self._options[row] for row in keep]
        self._tokens = [self._tokens[row] for row in keep]
        self._ended = [self._ended[row] for row in keep]
        self._sums, self._last = self._sums[rows], self._last[rows]
        if keep:
            self._cache.keep_sentences(rows)


def _starts(model: Marian, sentences: int) -> Tensor:
    return torch.full((sentences, 1), model.config.decoder_start_token_id, device=model.device)


def _hypothesis(tokens: tuple[int, ...], total: float, *, forced: bool) -> Hypothesis:
    return Hypothesis(tokens, total / (len(tokens) + 1), "length" if forced else "eos")


def _check(best: float) -> None:
    """torch takes nan for the greatest number, so that it shows in the best score."""
    if math.isnan(best):
        raise ModelError("The model computes nan: its weights are broken, or too large for this dtype.")


def _restrict(
    scores: Tensor, model: Marian, options: Sequence[Options], tokens: Sequence[Sequence[tuple[int, ...]]], length: int
) -> list[bool]:
    """Bans in `scores` (n, k, v) what may not come next, as the `length`th token; says which sentences it made end."""
    config = model.config
    scores[:, :, list(config.bad_token_ids)] = -torch.inf
    longest = min(config.max_length - 1, config.max_position_embeddings)  # transformers counts the start token too
    forced = [length >= min(each.max_length or longest, longest) for each in options]
    for row, each in enumerate(options):
        if forced[row]:
            scores[row] = -torch.inf
            scores[row, :, config.eos_token_id] = 0.0
        elif each.no_repeat_ngram:
            for beam, hypothesis in enumerate(tokens[row]):
                scores[row, beam, _repeating(hypothesis, each.no_repeat_ngram)] = -torch.inf
    return forced


def _repeating(tokens: tuple[int, ...], size: int) -> list[int]:
    """The tokens that would end a run of `size` tokens which is there already."""
    if len(tokens) < size - 1:
        return []
    last = tokens[len(tokens) - size + 1 :]
    return [tokens[i + size - 1] for i in range(len(tokens) - size + 1) if tokens[i : i + size - 1] == last]
