"""Which sentences enter a batch: the scheduler's rules hold for any queue."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from models.engine.scheduler import BESIDE, BULK_SHARE, PORTIONS, PRESENT, SHORTEST, WEIGHTS, Priority, Scheduler, cost
from models.errors import Overloaded

BUDGET, LANES, AGED_AFTER = 100, 2, 10.0
CALLER_SHARE = 0.5


@dataclass(eq=False)
class Queued:
    tokens: Sequence[int] = (0,) * SHORTEST
    beam: int = 1
    deadline: float = math.inf
    priority: Priority = "interactive"
    caller: str = ""
    group: str | None = None
    preparation: float = 0.0
    submitted: float = 0.0


queued = st.builds(
    Queued,
    tokens=st.integers(1, 60).map(lambda length: [0] * length),
    beam=st.integers(1, 3),
    deadline=st.sampled_from([1.0, 2.0, 3.0, math.inf]),
    priority=st.sampled_from(["interactive", "bulk"]),
    caller=st.sampled_from(["x", "y", "z"]),
    group=st.sampled_from([None, "a", "b", "c"]),
)


def scheduler_of(
    sentences: Sequence[Queued], token_budget: int = BUDGET, lanes: int = 1, caller_share: float = 1.0
) -> Scheduler[Queued]:
    scheduler: Scheduler[Queued] = Scheduler(
        token_budget, max_waiting=2000, lanes=lanes, aged_after=AGED_AFTER, caller_share=caller_share
    )
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
        self.scheduler = scheduler_of([], lanes=LANES, caller_share=CALLER_SHARE)
        self.waiting: list[Queued] = []
        self.running: list[list[Queued]] = [[] for _ in range(LANES)]
        self.admitted: dict[str, float] = {}  # when a sentence of each caller came, or entered

    def _present(self) -> list[str]:
        return [caller for caller, at in self.admitted.items() if self.now - at <= PRESENT]

    def _has_aged(self, sentence: Queued) -> bool:
        return self.now - sentence.submitted > AGED_AFTER

    @rule(sentence=queued, patience=st.floats(0.1, 30.0))
    def add(self, sentence: Queued, patience: float) -> None:
        sentence.submitted, sentence.deadline = self.now, self.now + patience
        self.scheduler.add(sentence)
        self.waiting.append(sentence)
        self.admitted[sentence.caller] = self.now

    @rule(lane=st.integers(0, LANES - 1))
    def admit(self, lane: int) -> None:
        held = list(self.running[lane])
        for sentence in self.scheduler.admit(lane, self.now):  # each was in the queue, and has left it once
            line = [each for each in self.waiting if same_line(each, sentence)]
            assert sentence == line[0] or not self._has_aged(line[0])  # the oldest enters first, if it has aged
            assert sentence == next(each for each in line if same_request(each, sentence))
            if sentence.priority == "bulk" and (bulk := [each for each in held if each.priority == "bulk"]):
                assert sum(map(cost, [*bulk, sentence])) <= BULK_SHARE * BUDGET
            if len(self._present()) > 1:
                assert sum(cost(each) for each in held if same_line(each, sentence)) < CALLER_SHARE * BUDGET
            self.waiting.remove(sentence)
            self.admitted[sentence.caller] = self.now
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
        assert set(self.scheduler.expire(self.now)) == set(late)
        self.waiting = [sentence for sentence in self.waiting if sentence not in late]

    @rule(group=st.sampled_from(["a", "b", "c"]))
    def cancel(self, group: str) -> None:
        unwanted = [sentence for sentence in self.waiting if sentence.group == group]
        assert set(self.scheduler.remove(lambda sentence: sentence.group == group)) == set(unwanted)
        self.waiting = [sentence for sentence in self.waiting if sentence not in unwanted]

    @invariant()
    def holds(self) -> None:
        assert len(self.scheduler) == len(self.waiting)
        for held in self.running:
            assert sum(map(cost, held)) <= BUDGET or len(held) == 1
        assert [self.scheduler.held(lane) for lane in range(LANES)] == [sum(map(cost, held)) for held in self.running]

    def teardown(self) -> None:
        """When all sentences have left, the whole budget is free again."""
        for lane, held in enumerate(self.running):
            for sentence in held:
                self.scheduler.leave(lane, sentence)
        assert set(one_by_one(self.scheduler, self.now)) == set(self.waiting)
        self.now += PRESENT + 1
        full = [Queued(submitted=self.now) for _ in range(2 * LANES * BUDGET // SHORTEST)]
        for sentence in full:
            self.scheduler.add(sentence)
        for lane in range(LANES):
            assert len(self.scheduler.admit(lane, self.now)) == BUDGET // SHORTEST


Service.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestService = Service.TestCase


@given(st.lists(queued))
def test_all_enter_and_each_request_in_its_order(sentences: list[Queued]) -> None:
    order = one_by_one(scheduler_of(sentences, SHORTEST))
    assert Counter(order) == Counter(sentences)
    for sentence in sentences:
        assert [each for each in order if same_request(each, sentence)] == [
            each for each in sentences if same_request(each, sentence)
        ]


@given(st.lists(queued, max_size=40), st.sampled_from(["caller", "group"]))
def test_who_waits_all_the_while_is_served_as_much_as_any_other(sentences: list[Queued], who: str) -> None:
    """The bound of start-time fair queueing: the difference is the largest sentence of each at most."""
    share: Callable[[Queued], str] = lambda sentence: getattr(sentence, who)  # noqa: E731
    for sentence in sentences:
        sentence.priority, sentence.group = "interactive", sentence.group or "a"
        if who == "group":
            sentence.caller = "x"
    order = one_by_one(scheduler_of(sentences, SHORTEST))
    for one in {share(each) for each in order}:
        for other in {share(each) for each in order} - {one}:
            largest = sum(max(cost(each) for each in order if share(each) == key) for key in (one, other))
            served = Counter[str]()
            for place, sentence in enumerate(order):
                if not {one, other} <= {share(each) for each in order[place:]}:
                    break  # one of the two does not wait any more
                served[share(sentence)] += cost(sentence)
                assert abs(served[one] - served[other]) <= largest


@given(st.lists(queued, min_size=1, max_size=20), st.integers(1, 60))
def test_who_comes_is_not_behind_what_others_have_in_the_queue(sentences: list[Queued], length: int) -> None:
    """However much the others have, and whatever they were served before: the first sentence of somebody new enters
    after one sentence of each of the others at most."""
    scheduler = scheduler_of(sentences, SHORTEST)
    for _ in range(len(sentences) // 2):
        for sentence in scheduler.admit(0, 2 * AGED_AFTER):  # all of them have aged
            scheduler.leave(0, sentence)
    new = Queued([0] * length, caller="new", submitted=2 * AGED_AFTER)
    scheduler.add(new)
    order = one_by_one(scheduler, 2 * AGED_AFTER)
    before = [each for each in order[: order.index(new)] if each.priority == "interactive"]
    assert max(Counter(each.caller for each in before).values(), default=0) <= 1


def test_a_caller_pays_for_the_preparation_of_its_sentences() -> None:
    costly = [Queued(caller="costly", preparation=3.0 * SHORTEST) for _ in range(10)]
    plain = [Queued(caller="plain") for _ in range(40)]
    order = one_by_one(scheduler_of([*costly, *plain], SHORTEST))
    assert 4 <= sum(each in costly for each in order[:20]) <= 6


def same_line(a: Queued, b: Queued) -> bool:
    return (a.caller, a.priority) == (b.caller, b.priority)


def same_request(a: Queued, b: Queued) -> bool:
    return a is b or (a.group is not None and a.group == b.group and same_line(a, b))


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


def test_bulk_work_has_its_share_while_interactive_work_never_ends_and_never_more() -> None:
    scheduler = scheduler_of([Queued(priority="bulk") for _ in range(500)], SHORTEST)
    scheduler.add(Queued())
    served = Counter[Priority]()
    for second in range(200):  # after AGED_AFTER, all bulk sentences have aged
        scheduler.add(Queued(submitted=second))
        (entering,) = scheduler.admit(0, second)
        scheduler.leave(0, entering)
        served[entering.priority] += 1
    assert served["bulk"] == pytest.approx(200 * WEIGHTS["bulk"] / sum(WEIGHTS.values()), abs=2)


def test_bulk_work_of_a_caller_does_not_hold_up_its_own_interactive_work() -> None:
    scheduler = scheduler_of([Queued(priority="bulk", caller="x") for _ in range(20)], caller_share=CALLER_SHARE)
    assert len(scheduler.admit(0, 0.0)) > CALLER_SHARE * BUDGET // SHORTEST
    asked = [Queued(caller="y"), Queued(caller="x")]
    for sentence in asked:
        scheduler.add(sentence)
    assert scheduler.admit(0, 0.0) == asked


def test_a_bulk_sentence_that_does_not_fit_stops_no_interactive_one() -> None:
    scheduler = scheduler_of([Queued([0] * 60)])
    scheduler.admit(0, 0.0)
    for sentence in (wide := Queued([0] * 60, priority="bulk"), one := Queued(), two := Queued()):
        scheduler.add(sentence)
    assert scheduler.admit(0, 0.0) == [one, two]
    for sentence in (one, two):
        scheduler.leave(0, sentence)
    assert scheduler.admit(0, 0.0) == []
    assert scheduler.remove(lambda _: True) == [wide]


def test_bulk_sentences_enter_in_portions_one_at_each_step() -> None:
    scheduler: Scheduler[Queued] = Scheduler(800, max_waiting=1000, pace=4, portion=5 * SHORTEST)
    for _ in range(90):
        scheduler.add(Queued(priority="bulk"))
    entered = [len(scheduler.admit(0, PRESENT + 1)) for _ in range(18)]
    assert entered == [5] * 15 + [0] * 3  # until they have taken BULK_SHARE


def test_interactive_sentences_go_into_a_lane_of_bulk_sentences_and_on_without_them() -> None:
    scheduler: Scheduler[Queued] = Scheduler(800, max_waiting=1000, pace=4, portion=3 * SHORTEST)
    for _ in range(200):
        scheduler.add(Queued(priority="bulk"))
    bulk = [sentence for _ in range(20) for sentence in scheduler.admit(0, 0.0)]
    assert scheduler.stepping(0, bulk) == bulk
    for _ in range(2):
        asked = [Queued(), Queued()]
        for sentence in asked:
            scheduler.add(sentence)
        assert scheduler.admit(0, 0.0) == asked  # at once, whatever the pace
        running = [*bulk, *asked]
        steps = [scheduler.stepping(0, running) for _ in range(4 * BESIDE)]
        assert steps == [*[asked] * (BESIDE - 1), [*asked, *bulk[:3]]] * 4
        for sentence in asked:
            scheduler.leave(0, sentence)
        assert scheduler.stepping(0, bulk) == bulk


def test_while_interactive_work_is_present_few_bulk_sentences_run() -> None:
    scheduler: Scheduler[Queued] = Scheduler(800, max_waiting=1000, portion=SHORTEST)
    asked = Queued()
    scheduler.add(asked)
    for _ in range(200):
        scheduler.add(Queued(priority="bulk"))
    entered = [scheduler.admit(0, 0.0) for _ in range(30)]
    assert [len(each) for each in entered] == [2] + [0] * 29  # with it, only as many as may step beside it
    scheduler.leave(0, asked)
    assert 1 + sum(len(scheduler.admit(0, PRESENT)) for _ in range(100)) == PORTIONS
    assert PORTIONS + sum(len(scheduler.admit(0, PRESENT + 1)) for _ in range(100)) == BULK_SHARE * 800 // SHORTEST


def test_age_moves_nobody_over_the_share_of_its_caller() -> None:
    flood = [Queued(caller="flood", group=str(number % 4)) for number in range(400)]
    scheduler = scheduler_of(flood, SHORTEST)
    for second in range(2 * int(AGED_AFTER), 4 * int(AGED_AFTER)):
        scheduler.add(small := Queued(caller="small", submitted=second))
        entered = [scheduler.admit(0, second)[0]]
        while small not in entered:
            scheduler.leave(0, entered[-1])
            entered += scheduler.admit(0, second)
        assert len(entered) <= 2
        scheduler.leave(0, small)


def test_within_a_caller_who_has_waited_long_goes_first() -> None:
    old = [Queued(group="old") for _ in range(5)]
    young = [Queued(group="young", submitted=1.5 * AGED_AFTER) for _ in range(5)]
    assert one_by_one(scheduler_of([*old, *young], SHORTEST), 2 * AGED_AFTER) == [*old, *young]


def test_while_others_are_present_a_caller_leaves_room_in_the_batch() -> None:
    flood = [Queued(caller="flood") for _ in range(100)]
    scheduler = scheduler_of(flood, caller_share=CALLER_SHARE)
    assert len(scheduler.admit(0, 0.0)) == BUDGET // SHORTEST
    scheduler.add(small := Queued(caller="small"))
    for sentence in flood[: BUDGET // SHORTEST]:
        scheduler.leave(0, sentence)
    entering = scheduler.admit(0, 0.0)
    assert sum(each in flood for each in entering) == math.ceil(CALLER_SHARE * BUDGET / SHORTEST)
    assert small in entering
    scheduler.leave(0, small)
    assert scheduler.admit(0, PRESENT) == []
    assert len(scheduler.admit(0, PRESENT + 0.1)) == BUDGET // SHORTEST - len(entering) + 1  # it is alone again


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


def test_whoever_fills_the_queue_leaves_room_for_others() -> None:
    scheduler: Scheduler[Queued] = Scheduler(token_budget=64, max_waiting=100)
    for caller in ("flood", "another"):
        with suppress(Overloaded):
            for _ in range(100):
                scheduler.add(Queued(caller=caller))
    assert len(scheduler) < 100
    scheduler.add(Queued(caller="small"))


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
