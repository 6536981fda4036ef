from __future__ import annotations

import math
from dataclasses import fields

from models.engine.stats import BATCH_SIZES, EngineCounts, EngineStats


def numbered(step: int) -> EngineStats:
    """Stats whose fields are all different numbers."""
    names = [field.name for field in fields(EngineStats) if field.name != "batches"]
    counts = {name: step * place for place, name in enumerate(names, start=1)}
    return EngineStats(batches=tuple(step * 100 * size for size in (*BATCH_SIZES, 1)), **counts)


def test_engines_are_added_but_not_the_budget_of_a_batch() -> None:
    total = numbered(1) + numbered(2)
    assert total.token_budget == numbered(2).token_budget
    expected = numbered(3)
    for field in fields(EngineStats):
        if field.name != "token_budget":
            assert getattr(total, field.name) == getattr(expected, field.name)
    assert total.steps == 3 * 100 * (sum(BATCH_SIZES) + 1)


def test_nothing_added_changes_nothing() -> None:
    assert EngineStats() + numbered(1) == numbered(1)


def test_a_batch_counts_among_those_of_at_most_so_many_sentences() -> None:
    counts = EngineCounts()
    for sentences in (1, 2, 3, 4, 5, 8, 9, 512, 513, 5000):
        counts.add_step(sentences, tokens=10)
    assert dict(zip([*BATCH_SIZES, math.inf], counts.stats().batches, strict=True)) == {
        1: 1, 2: 1, 4: 2, 8: 2, 16: 1, 32: 0, 64: 0, 128: 0, 256: 0, 512: 1, math.inf: 2
    }  # fmt: skip
    assert counts.stats().batch_tokens == 100
