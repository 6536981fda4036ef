from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from models.errors import Overloaded
from models.scheduler import Priority, Scheduler


@dataclass(frozen=True)
class Sentence:
    name: str
    length: int = 4
    beam: int = 1
    deadline: float = math.inf
    priority: Priority = "interactive"

    @property
    def tokens(self) -> range:
        return range(self.length)


def scheduler(*sentences: Sentence, token_budget: int = 100, max_waiting: int = 100) -> Scheduler[Sentence]:
    queue: Scheduler[Sentence] = Scheduler(token_budget, max_waiting)
    for sentence in sentences:
        queue.add(sentence)
    return queue


def batches(queue: Scheduler[Sentence]) -> list[str]:
    """The names in each batch until the queue is empty."""
    return list(iter(lambda: "".join(sentence.name for sentence in queue.next_batch()), ""))


def test_an_empty_queue_has_no_batch() -> None:
    assert scheduler().next_batch() == []


def test_first_come_first_served() -> None:
    assert batches(scheduler(*map(Sentence, "abcde"), token_budget=8)) == ["ab", "cd", "e"]


def test_interactive_before_bulk_and_bulk_in_what_room_is_left() -> None:
    bulk = [Sentence(name, priority="bulk") for name in "xyz"]
    assert batches(scheduler(*bulk, *map(Sentence, "abc"), token_budget=16)) == ["abcx", "yz"]


def test_the_budget_counts_padding() -> None:
    assert batches(scheduler(Sentence("a", 2), Sentence("b", 10), Sentence("c", 2), token_budget=20)) == ["ab", "c"]
    assert batches(scheduler(Sentence("a", 2), Sentence("b", 10), Sentence("c", 2), token_budget=19)) == ["a", "b", "c"]


def test_the_budget_counts_hypotheses() -> None:
    assert batches(scheduler(*(Sentence(name, beam=4) for name in "abc"), token_budget=32)) == ["ab", "c"]


def test_a_sentence_larger_than_the_budget_is_a_batch_of_its_own() -> None:
    assert batches(scheduler(Sentence("a"), Sentence("b", 50), Sentence("c"), token_budget=20)) == ["a", "b", "c"]


def test_a_batch_has_one_beam_width() -> None:
    queue = scheduler(Sentence("a"), Sentence("b"), Sentence("c", beam=4), Sentence("d"))
    assert batches(queue) == ["ab", "c", "d"]


def test_a_full_queue_refuses_and_has_room_again_when_a_batch_has_left() -> None:
    queue = scheduler(Sentence("a"), Sentence("b"), max_waiting=2)
    with pytest.raises(Overloaded, match="2 sentences"):
        queue.add(Sentence("c"))
    queue.next_batch()
    queue.add(Sentence("c"))
    assert len(queue) == 1


def test_what_is_past_its_deadline_leaves() -> None:
    queue = scheduler(Sentence("a", deadline=5), Sentence("b"), Sentence("c", deadline=3), Sentence("d", deadline=9))
    assert queue.expire(2.9) == []
    assert [sentence.name for sentence in queue.expire(5)] == ["a", "c"]
    assert queue.expire(8.9) == []
    queue.add(Sentence("e", deadline=4, priority="bulk"))
    assert [sentence.name for sentence in queue.expire(8.9)] == ["e"]
    assert [sentence.name for sentence in queue.expire(9)] == ["d"]
    assert batches(queue) == ["b"]


def test_what_is_not_wanted_leaves_and_the_order_stays() -> None:
    queue = scheduler(*map(Sentence, "abcd"), Sentence("x", priority="bulk"))
    assert [sentence.name for sentence in queue.remove(lambda sentence: sentence.name in "bx")] == ["b", "x"]
    assert (len(queue), batches(queue)) == (3, ["acd"])
