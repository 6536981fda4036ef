"""Who enters a batch: whatever is queued, the rules hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import Overloaded
from models.scheduler import Priority, Scheduler


@dataclass(eq=False)
class Queued:
    tokens: Sequence[int]
    beam: int = 1
    deadline: float = math.inf
    priority: Priority = "interactive"


queued = st.builds(
    Queued,
    tokens=st.integers(1, 40).map(lambda length: [0] * length),
    beam=st.integers(1, 3),
    deadline=st.sampled_from([1.0, 2.0, 3.0, math.inf]),
    priority=st.sampled_from(["interactive", "bulk"]),
)


def fill(sentences: Sequence[Queued], token_budget: int = 64) -> Scheduler[Queued]:
    scheduler: Scheduler[Queued] = Scheduler(token_budget, max_waiting=1000)
    for sentence in sentences:
        scheduler.add(sentence)
    return scheduler


def drain(scheduler: Scheduler[Queued]) -> list[list[Queued]]:
    batches = []
    while batch := scheduler.next_batch():
        batches.append(batch)
    return batches


def size(batch: Sequence[Queued]) -> int:
    return max(len(sentence.tokens) for sentence in batch) * sum(sentence.beam for sentence in batch)


@given(st.lists(queued))
def test_interactive_first_and_each_in_its_order(sentences: list[Queued]) -> None:
    left = [sentence for batch in drain(fill(sentences)) for sentence in batch]
    assert left == sorted(sentences, key=lambda sentence: sentence.priority == "bulk")


@given(st.lists(queued), st.integers(1, 200))
def test_a_batch_is_of_one_beam_width_and_within_the_budget(sentences: list[Queued], budget: int) -> None:
    for batch in drain(fill(sentences, budget)):
        assert len({sentence.beam for sentence in batch}) == 1
        assert size(batch) <= budget or len(batch) == 1


@given(st.lists(queued), st.integers(1, 200))
def test_a_batch_ends_only_where_the_next_does_not_fit(sentences: list[Queued], budget: int) -> None:
    batches = drain(fill(sentences, budget))
    for batch, (first, *_) in pairwise(batches):
        assert first.beam != batch[0].beam or size([*batch, first]) > budget


@given(st.lists(queued), st.lists(st.sampled_from([0.0, 1.0, 2.5, 9.0])))
def test_what_expires_leaves_and_the_others_stay(sentences: list[Queued], times: list[float]) -> None:
    scheduler = fill(sentences)
    staying = sentences
    for now in sorted(times):
        expired = [sentence for sentence in staying if sentence.deadline <= now]
        assert set(scheduler.expire(now)) == set(expired)
        staying = [sentence for sentence in staying if sentence.deadline > now]
    assert len(scheduler) == len(staying)
    assert {sentence for batch in drain(scheduler) for sentence in batch} == set(staying)


def test_a_deadline_that_comes_later_than_another_is_not_forgotten() -> None:
    late, later = Queued([0], deadline=1.0), Queued([0], deadline=2.0)
    scheduler = fill([late])
    assert scheduler.expire(1.0) == [late]
    scheduler.add(later)
    assert scheduler.expire(1.5) == []
    assert scheduler.expire(2.0) == [later]


@given(st.lists(queued))
def test_what_is_removed_leaves_and_the_others_keep_their_order(sentences: list[Queued]) -> None:
    scheduler = fill(sentences)
    removed = scheduler.remove(lambda sentence: sentence.beam == 2)
    assert set(removed) == {sentence for sentence in sentences if sentence.beam == 2}
    staying = [sentence for sentence in sentences if sentence.beam != 2]
    left = [sentence for batch in drain(scheduler) for sentence in batch]
    assert left == sorted(staying, key=lambda sentence: sentence.priority == "bulk")


def test_a_full_queue_takes_no_more_until_some_have_left() -> None:
    scheduler: Scheduler[Queued] = Scheduler(token_budget=64, max_waiting=2)
    scheduler.add(Queued([0], priority="bulk"))
    scheduler.add(Queued([0]))
    with pytest.raises(Overloaded, match="2 sentences wait"):
        scheduler.add(Queued([0]))
    scheduler.next_batch()
    scheduler.add(Queued([0]))
    assert len(scheduler) == 1


def test_nobody_waits() -> None:
    assert fill([]).next_batch() == []
