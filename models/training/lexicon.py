"""Which piece of a sentence goes with which of its translation: IBM model 1 with a bias for the diagonal.

Brown et al. 1993 (https://aclanthology.org/J93-2003), Dyer et al. 2013 (https://aclanthology.org/N13-1073). It is
learnt from some of the pairs in seconds. Of it come the guided alignment, and which words can be annotated or cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Keys = NDArray[np.int64]

_ROUNDS = 5
_TENSION = 4.0  # how much more likely it is that places are alike
_NOWHERE = 0.02  # what a target piece has to beat to be of a source piece
_SAME = 0.2  # at least, where a piece is the same on both sides
_LARGEST = 8_000_000  # links to learn from


class Lexicon:
    """`forward` and `backward`: p(target | source) and p(source | target) of the links `source * size + target`."""

    def __init__(self, links: Keys, forward: Floats, backward: Floats, size: int, is_shared: bool) -> None:
        self._links, self._forward, self._backward = links, forward, backward
        self._size, self._is_shared = size, is_shared

    @classmethod
    def learn(cls, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], size: int, is_shared: bool) -> Lexicon:
        """From pairs of ids below `size`; `is_shared`: an id is the same piece on both sides."""
        links, priors, targets, sources = [], [], [], []
        first_target = first_source = total = 0
        for source, target in pairs:
            s, t = len(source), len(target)
            links.append((np.asarray(source, np.int64)[None] * size + np.asarray(target, np.int64)[:, None]).ravel())
            priors.append(diagonal(t, s).ravel())
            targets.append(np.repeat(np.arange(first_target, first_target + t), s))
            sources.append(np.tile(np.arange(first_source, first_source + s), t))
            first_target, first_source, total = first_target + t, first_source + s, total + s * t
            if total > _LARGEST:
                break
        known, which = np.unique(np.concatenate(links or [np.zeros(0, np.int64)]), return_inverse=True)
        prior = np.concatenate(priors or [np.zeros(0, np.float32)])
        each: list[NDArray[np.int64]] = [np.concatenate(x or [np.zeros(0, np.int64)]) for x in (targets, sources)]
        forward = _expectation_maximization(which, known // size, prior, each[0])
        backward = _expectation_maximization(which, known % size, prior, each[1])
        return cls(known, forward, backward, size, is_shared)

    def scores(self, source: NDArray[np.int64], target: NDArray[np.int64]) -> Floats:
        """(n, s), (n, t) -> (n, t, s): how much each target piece belongs to each source piece, 0 to 1."""
        wanted = source[:, None, :] * self._size + target[:, :, None]
        places = np.searchsorted(self._links, wanted).clip(max=max(0, len(self._links) - 1))
        found = np.zeros(wanted.shape, np.float32)
        if len(self._links):
            found = np.where(self._links[places] == wanted, np.sqrt(self._forward[places] * self._backward[places]), 0)
        if self._is_shared:
            found = np.where(source[:, None, :] == target[:, :, None], found.clip(min=_SAME), found)
        return found.astype(np.float32)

    def alignment(self, source: NDArray[np.int64], target: NDArray[np.int64], pad: int) -> Floats:
        """(n, s), (n, t) -> (n, t, s): where each target piece should look; rows sum up to 1, or 0 for no opinion."""
        scores = self.scores(source, target)
        for row, (s, t) in enumerate(zip((source != pad).sum(1), (target != pad).sum(1), strict=True)):
            scores[row, :t, :s] *= diagonal(int(t), int(s))
            scores[row, t:], scores[row, :, s:] = 0, 0
        scores[scores < _NOWHERE] = 0
        total: Floats = scores.sum(-1, keepdims=True)
        aligned: Floats = np.divide(scores, total, out=np.zeros_like(scores), where=total > 0)
        return aligned

    def save(self, path: Path) -> None:
        size = np.array([self._size, self._is_shared])
        np.savez(path, links=self._links, forward=self._forward, backward=self._backward, size=size)

    @classmethod
    def load(cls, path: Path) -> Lexicon:
        with np.load(path) as saved:
            size, is_shared = saved["size"].tolist()
            return cls(saved["links"], saved["forward"], saved["backward"], size, bool(is_shared))


def diagonal(t: int, s: int) -> Floats:
    """(t, s): 1 where both places are as far into their sentences, less elsewhere."""
    rows, columns = (np.arange(t) + 0.5) / max(t, 1), (np.arange(s) + 0.5) / max(s, 1)
    bias: Floats = np.exp(-_TENSION * np.abs(rows[:, None] - columns[None])).astype(np.float32)
    return bias


def _expectation_maximization(
    which: NDArray[np.int64], given: NDArray[np.int64], prior: Floats, place: NDArray[np.int64]
) -> Floats:
    """p(link | given): `which` link each entry is, at which `place` of the side that is explained."""
    probability = np.ones(len(given), np.float64)
    for _ in range(_ROUNDS if len(given) else 0):
        weights = probability[which] * prior
        weights /= (np.bincount(place, weights) + 1e-12)[place]
        counts = np.bincount(which, weights, len(given))
        probability = counts / np.bincount(given, counts)[given].clip(min=1e-12)
    return probability.astype(np.float32)
