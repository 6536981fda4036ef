"""Which pairs a training sees in which order: pools of pairs drawn by weight, cut into batches of like lengths.

A pool is a function of the seed and its number and of nothing else. So a run that was killed needs to know no more than
the numbers of its pool and batch, and processes can make pools ahead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import count
from random import Random
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from models.training.augmentation import Augmenter
from models.training.config import Training
from models.training.data import Pair
from models.training.vocabulary import Tokens, Vocabulary


class Batch(NamedTuple):
    """Ids filled up with pad: `sources` (n, s), `inputs` (n, t) that begin with pad, `targets` (n, t) that end."""

    sources: Tensor
    inputs: Tensor
    targets: Tensor


class Pools(Dataset[list[Batch]]):
    """Item number p are the batches of pool p, in order."""

    def __init__(
        self,
        sources: Sequence[Sequence[Pair]],
        weights: Sequence[float],
        vocabulary: Vocabulary,
        augmenters: Sequence[Augmenter],
        training: Training,
    ) -> None:
        """Each of the `augmenters` changes a part of every pool's pairs; the second one's are turned round."""
        self._sources, self._vocabulary = sources, vocabulary
        self._augmenters, self._training = augmenters, training
        sizes = [weight * len(pairs) for weight, pairs in zip(weights, sources, strict=True)]
        self.shares = [size / sum(sizes) for size in sizes]
        self._order = lru_cache(maxsize=2 * len(sources))(self._shuffled)

    def __getitem__(self, number: int) -> list[Batch]:
        random = Random(f"{self._training.seed} {number}")  # noqa: S311 - no secret
        drawn = self.draw(number)
        random.shuffle(drawn)
        pairs = []
        for way, augmenter in enumerate(self._augmenters):
            some = drawn[way :: len(self._augmenters)]
            turned = [Pair(pair.target, pair.source) for pair in some] if way else some
            pairs += [augmenter(pair, turned, random) for pair in turned]
        encoded = self._vocabulary.encode_pairs(pairs)
        is_short = number * self._training.pool < self._training.short_pairs
        longest = self._training.short_length if is_short else self._training.longest
        fit = [(source, target) for source, target in encoded if max(len(source), len(target)) <= longest]
        batches = list(batched(fit, self._training.batch_tokens, self._vocabulary.pad))
        random.shuffle(batches)
        return batches

    def draw(self, number: int) -> list[Pair]:
        """The pairs of a pool: of each source its share, without a second one before all had their turn."""
        drawn = []
        for which, share in enumerate(self.shares):
            size = len(self._sources[which])
            first, last = (math.floor(n * self._training.pool * share) for n in (number, number + 1))
            for turn in range(first, last):
                drawn.append(self._sources[which][int(self._order(which, turn // size)[turn % size])])
        return drawn

    def _shuffled(self, which: int, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng((self._training.seed, which, epoch)).permutation(len(self._sources[which]))


def batched(pairs: Sequence[tuple[Tokens, Tokens]], tokens: int, pad: int) -> Iterator[Batch]:
    """Sorted by lengths, and so many tokens at most on either side of a batch, padding included."""
    some: list[tuple[Tokens, Tokens]] = []
    longest = 0
    for pair in sorted(pairs, key=lambda pair: (len(pair[1]), len(pair[0]))):
        longer = max(longest, *map(len, pair))
        if some and longer * (len(some) + 1) > tokens:
            yield padded(some, pad)
            some, longer = [], max(map(len, pair))
        some.append(pair)
        longest = longer
    if some:
        yield padded(some, pad)


def padded(pairs: Sequence[tuple[Tokens, Tokens]], pad: int) -> Batch:
    def fill(rows: Sequence[Tokens]) -> Tensor:
        longest = max(map(len, rows))
        return torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])

    sources, targets = (fill(rows) for rows in zip(*pairs, strict=True))
    inputs = torch.cat((torch.full((len(targets), 1), pad), targets[:, :-1]), dim=1)
    return Batch(sources, inputs, targets)


def stream(pools: Pools, pool: int, batch: int, workers: int) -> Iterator[tuple[int, int, Batch]]:
    """From a batch of a pool on, without end: what comes after it (pool, batch), and the batch itself."""
    numbers = count(pool)
    # A fork shares the pairs' memory; a processor without free cores makes pools itself.
    context = "fork" if workers else None
    loader = DataLoader(
        pools,
        sampler=numbers,
        batch_size=None,
        num_workers=workers,
        multiprocessing_context=context,
    )
    for number, batches in zip(count(pool), loader, strict=False):
        for place, each in enumerate(batches):
            if number > pool or place >= batch:
                yield number, place + 1, each
