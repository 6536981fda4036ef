"""Which pairs come when."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch

from models.training.augmentation import Augmenter
from models.training.batches import Batch, Pools, batched, stream
from models.training.config import Augmentation, Training
from models.training.data import Pair
from models.training.vocabulary import Vocabulary

NOTHING = Augmentation(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


@pytest.fixture
def vocabulary(trained: Path) -> Vocabulary:
    return Vocabulary(trained / "model")


def pools(
    vocabulary: Vocabulary,
    sources: list[list[Pair]],
    weights: list[float],
    rates: Augmentation = NOTHING,
    **settings: int,
) -> Pools:
    training = Training(**{"pool": 100, "batch_tokens": 200, **settings})  # type: ignore[arg-type]
    return Pools(sources, weights, vocabulary, [Augmenter(rates, vocabulary.symbols, ("fr", "en"))], training)


def equal(one: Batch, other: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_sources_come_by_weight_and_every_pair_once_before_any_twice(vocabulary: Vocabulary, pairs: list[Pair]) -> None:
    sources = [pairs[:100], pairs[100:200], pairs[200:250]]
    drawn = pools(vocabulary, sources, [1.0, 0.5, 3.0])
    assert drawn.shares == pytest.approx([1 / 3, 1 / 6, 1 / 2])
    times = Counter(pair for number in range(6) for pair in drawn.draw(number))
    assert {times[pair] for pair in sources[0]} == {2}
    assert {times[pair] for pair in sources[1]} == {1}
    assert {times[pair] for pair in sources[2]} == {6}


def test_batches_hold_whole_pools_in_so_many_tokens(vocabulary: Vocabulary, pairs: list[Pair]) -> None:
    encoded = list(vocabulary.encode_pairs(pairs))
    found = list(batched(encoded, 200, vocabulary.pad))
    rows = []
    for batch in found:
        assert max(batch.sources.numel(), batch.targets.numel()) <= 200
        assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])
        assert (batch.inputs[:, 0] == vocabulary.pad).all()
        for source, target in zip(batch.sources.tolist(), batch.targets.tolist(), strict=True):
            rows.append(tuple([token for token in side if token != vocabulary.pad] for side in (source, target)))
    assert sorted(rows) == sorted(encoded)
    padding = sum(int((batch.targets == vocabulary.pad).sum()) for batch in found)
    assert padding < 0.1 * sum(batch.targets.numel() for batch in found)
    assert [len(batch.sources) for batch in batched(encoded[:1], 1, vocabulary.pad)] == [1]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_goes_on_anywhere(vocabulary: Vocabulary, pairs: list[Pair], workers: int) -> None:
    made = pools(vocabulary, [pairs], [1.0], Augmentation(numbers=1.0, holds=0.5))
    whole = list(islice(stream(made, 0, 0, 0), 40))
    assert len({pool for pool, _, _ in whole}) > 2
    for done in (7, 23):
        pool, batch, _ = whole[done - 1]
        rest = list(islice(stream(made, pool, batch, workers), 40 - done))
        assert [each[:2] for each in rest] == [each[:2] for each in whole[done:]]
        assert all(equal(one[2], other[2]) for one, other in zip(rest, whole[done:], strict=True))


def test_the_second_way_gets_half_of_the_pairs_turned_round(vocabulary: Vocabulary, pairs: list[Pair]) -> None:
    augmenters = [Augmenter(NOTHING, vocabulary.symbols, way) for way in (("fr", "en"), ("en", "fr"))]
    made = Pools([pairs], [1.0], vocabulary, augmenters, Training(pool=100, batch_tokens=200))
    rows = {
        tuple(tuple(token for token in side if token != vocabulary.pad) for side in row)
        for batch in made[0]
        for row in zip(batch.sources.tolist(), batch.targets.tolist(), strict=True)
    }
    drawn = [tuple(map(tuple, each)) for each in vocabulary.encode_pairs(made.draw(0))]
    assert len(rows) == 100
    assert len(rows.intersection(drawn)) == 50
    assert {row[::-1] for row in rows.difference(drawn)} < set(drawn)


def test_another_seed_is_another_order(vocabulary: Vocabulary, pairs: list[Pair]) -> None:
    one, other = (pools(vocabulary, [pairs], [1.0], seed=seed).draw(0) for seed in (1, 2))
    assert one != other


def test_short_pairs_come_first(vocabulary: Vocabulary, pairs: list[Pair]) -> None:
    made = pools(vocabulary, [pairs], [1.0], short_pairs=200, short_length=14)
    longest = [max(batch.targets.shape[1] for batch in made[number]) for number in range(3)]
    assert max(longest[:2]) <= 14 < longest[2]
