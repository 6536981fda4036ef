"""Which sentences enter a batch: the scheduler's rules hold for any queue."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from models.engine.scheduler import BULK_SHARE, SHORTEST, Priority, Scheduler, cost
from models.errors import Overloaded

BUDGET, LANES, AGED_AFTER = 100, 2, 10.0


@dataclass(eq=False)
class Queued:
    tokens: Sequence[int] = (0,) * SHORTEST
    beam: int = 1
    deadline: float = math.inf
    priority: Priority = "interactive"
    group: str | None = None
    submitted: float = 0.0


queued = st.builds(
    Queued,
    tokens=st.integers(1, 60).map(lambda length: [0] * length),
    beam=st.integers(1, 3),
    deadline=st.sampled_from([1.0, 2.0, 3.0, math.inf]),
    priority=st.sampled_from(["interactive", "bulk"]),
    group=st.sampled_from([None, "a", "b", "c"]),
)


def scheduler_of(sentences: Sequence[Queued], token_budget: int = BUDGET, lanes: int = 1) -> Scheduler[Queued]:
    scheduler: Scheduler[Queued] = Scheduler(token_budget, max_waiting=1000, lanes=lanes, aged_after=AGED_AFTER)
    for sentence in sentences:
        scheduler.add(sentence)
    return scheduler


def one_by_one(scheduler: Scheduler[Queued], now: float = 0.0) -> list[Queued]:
    """All waiting sentences, in the order in which they enter a lane that takes one at a time."""
    order: list[Queued] = []
    while admitted := scheduler.admit(0, now):
        order += admitted
        for sentence in admitted:
            scheduler.leave(0, sentence)
    return order


class Service(RuleBasedStateMachine):
    """Sentences come, enter, leave, expire and are removed in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.scheduler = scheduler_of([], lanes=LANES)
        self.waiting: list[Queued] = []
        self.running: list[list[Queued]] = [[] for _ in range(LANES)]

    @rule(sentence=queued, patience=st.floats(0.1, 30.0))
    def add(self, sentence: Queued, patience: float) -> None:
        sentence.submitted, sentence.deadline = self.now, self.now + patience
        self.scheduler.add(sentence)
        self.waiting.append(sentence)

    @rule(lane=st.integers(0, LANES - 1))
    def admit(self, lane: int) -> None:
        held = list(self.running[lane])
        aged = [sentence for sentence in self.waiting if self.now - sentence.submitted > AGED_AFTER]
        entering = self.scheduler.admit(lane, self.now)
        assert entering[: len(aged)] == aged[: len(entering)]  # aged sentences enter first, the oldest first
        for sentence in entering:  # each was in the queue, and has left it once
            if sentence.priority == "bulk" and sentence not in aged and held:
                bulk = sum(cost(each) for each in [*held, sentence] if each.priority == "bulk")
                assert bulk <= BULK_SHARE * BUDGET
            self.waiting.remove(sentence)
            held.append(sentence)
        self.running[lane] = held
        if self.waiting and not held:
            raise AssertionError("an empty lane takes somebody")

    @precondition(lambda self: any(self.running))
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        lane = data.draw(st.sampled_from([lane for lane, held in enumerate(self.running) if held]))
        sentence = data.draw(st.sampled_from(self.running[lane]))
        self.running[lane].remove(sentence)
        self.scheduler.leave(lane, sentence)

    @rule(seconds=st.floats(0.1, 20.0))
    def expire(self, seconds: float) -> None:
        self.now += seconds
        late = [sentence for sentence in self.waiting if sentence.deadline <= self.now]
        assert self.scheduler.expire(self.now) == late
        self.waiting = [sentence for sentence in self.waiting if sentence not in late]

    @rule(group=st.sampled_from(["a", "b", "c"]))
    def cancel(self, group: str) -> None:
        unwanted = [sentence for sentence in self.waiting if sentence.group == group]
        assert self.scheduler.remove(lambda sentence: sentence.group == group) == unwanted
        self.waiting = [sentence for sentence in self.waiting if sentence not in unwanted]

    @invariant()
    def holds(self) -> None:
        assert len(self.scheduler) == len(self.waiting)
        for held in self.running:
            assert sum(map(cost, held)) <= BUDGET or len(held) == 1

    def teardown(self) -> None:
        """When all sentences have left, the whole budget is free again."""
        for lane, held in enumerate(self.running):
            for sentence in held:
                self.scheduler.leave(lane, sentence)
        assert set(one_by_one(self.scheduler, self.now)) == set(self.waiting)
        full = [Queued() for _ in range(2 * LANES * BUDGET // SHORTEST)]
        for sentence in full:
            self.scheduler.add(sentence)
        for lane in range(LANES):
            assert len(self.scheduler.admit(lane, self.now)) == BUDGET // SHORTEST


Service.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestService = Service.TestCase


@given(st.lists(queued))
def test_interactive_before_bulk_and_each_group_in_its_order(sentences: list[Queued]) -> None:
    order = one_by_one(scheduler_of(sentences, SHORTEST))
    assert Counter(order) == Counter(sentences)
    priorities = [sentence.priority for sentence in order]
    assert priorities == sorted(priorities, key=lambda priority: priority == "bulk")
    for priority in ("interactive", "bulk"):
        for group in "abc":
            mine = [each for each in sentences if (each.group, each.priority) == (group, priority)]
            assert [each for each in order if each in mine] == mine


@given(st.lists(queued, max_size=30))
def test_groups_take_turns(sentences: list[Queued]) -> None:
    """Between two sentences of one group, every group that waits all the while has a turn."""
    order = one_by_one(scheduler_of(sentences, SHORTEST))
    for first, sentence in enumerate(order):
        later = [i for i in range(first + 1, len(order)) if same_group(order[i], sentence)]
        if sentence.group is None or not later:
            continue
        between = order[first + 1 : later[0]]
        for other in order[later[0] + 1 :]:
            if other.priority == sentence.priority and not same_group(other, sentence):
                assert other.group is not None  # without a group, it would have had its turn before
                assert any(same_group(other, each) for each in between)


def same_group(a: Queued, b: Queued) -> bool:
    return (a.group, a.priority) == (b.group, b.priority)


def test_a_request_of_one_sentence_is_not_behind_one_of_a_thousand() -> None:
    many, one = [Queued(group="many") for _ in range(1000 - 1)], Queued(group="one")
    assert one_by_one(scheduler_of([*many, one], SHORTEST)).index(one) == 1


def test_nobody_overtakes_a_sentence_that_does_not_fit_yet() -> None:
    running, long, short = Queued([0] * 60), Queued([0] * 60), Queued()
    scheduler = scheduler_of([running, long, short])
    assert scheduler.admit(0, 0.0) == [running]
    assert scheduler.admit(0, 0.0) == []
    scheduler.leave(0, running)
    assert scheduler.admit(0, 0.0) == [long, short]


def test_interactive_work_finds_room_beside_bulk_work() -> None:
    bulk = [Queued(priority="bulk") for _ in range(20)]
    scheduler = scheduler_of(bulk)
    assert len(scheduler.admit(0, 0.0)) == BULK_SHARE * BUDGET // SHORTEST
    asked = Queued()
    scheduler.add(asked)
    assert scheduler.admit(0, 0.0) == [asked]


def test_bulk_work_enters_though_interactive_work_never_ends() -> None:
    bulk = Queued(priority="bulk")
    scheduler = scheduler_of([bulk], SHORTEST)
    for second in range(100):
        scheduler.add(Queued(submitted=second))
        (entering,) = scheduler.admit(0, second)
        scheduler.leave(0, entering)
        if entering is bulk:
            break
    assert second == AGED_AFTER + 1


def test_lanes_share_what_there_is() -> None:
    scheduler = scheduler_of([Queued(), Queued()], lanes=2)
    assert [len(scheduler.admit(lane, 0.0)) for lane in (0, 1, 0, 1)] == [1, 1, 0, 0]
    scheduler.add(Queued())
    assert len(scheduler.admit(0, 0.0)) == 1


def test_a_deadline_that_comes_later_than_another_is_not_forgotten() -> None:
    late, later = Queued(deadline=1.0), Queued(deadline=2.0)
    scheduler = scheduler_of([late])
    assert scheduler.expire(1.0) == [late]
    scheduler.add(later)
    assert scheduler.expire(1.5) == []
    assert scheduler.expire(2.0) == [later]


def test_a_full_queue_takes_no_more_until_some_have_left() -> None:
    scheduler: Scheduler[Queued] = Scheduler(token_budget=64, max_waiting=2)
    scheduler.add(Queued(priority="bulk"))
    scheduler.add(Queued())
    with pytest.raises(Overloaded, match="2 sentences wait"):
        scheduler.add(Queued())
    scheduler.admit(0, 0.0)
    scheduler.add(Queued())
    assert len(scheduler) == 1


def test_nobody_waits() -> None:
    assert scheduler_of([]).admit(0, 0.0) == []


def test_others_enter_a_lane_at_work_together_at_every_pace_th_step() -> None:
    scheduler: Scheduler[Queued] = Scheduler(BUDGET, max_waiting=1000, pace=3)
    entered = []
    for _ in range(7):
        scheduler.add(Queued())
        entered.append(len(scheduler.admit(0, 0.0)))
    assert entered == [1, 0, 0, 3, 0, 0, 3]


def test_a_lane_without_work_does_not_wait_for_its_pace() -> None:
    scheduler: Scheduler[Queued] = Scheduler(BUDGET, max_waiting=1000, pace=3)
    for _ in range(3):
        scheduler.add(queued := Queued())
        assert scheduler.admit(0, 0.0) == [queued]
        scheduler.leave(0, queued)
