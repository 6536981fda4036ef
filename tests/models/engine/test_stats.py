from __future__ import annotations

from dataclasses import fields

from models.engine.stats import BATCH_SIZES, EngineStats


def numbered(step: int) -> EngineStats:
    """Every field another number."""
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
