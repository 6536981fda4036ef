"""Who is let in, with a clock of our own and a line that is served at a known pace."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Iterable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.broker.admission import CALLERS, DEPTH_AGE, FORGOTTEN, OVERHEAD, Admission, Admitted
from tasks.contract.errors import Code, TolkError

WORK = 0.02  # seconds
SIZE = 100  # the characters of a request, and the tokens of its texts


class Line:
    """A queue before workers that take `pace` requests a second, one after the other, and the admissions to it."""

    def __init__(self, *, pace: float, processes: int = 1, longest: float = 2.0) -> None:
        self.now = 1_000.0
        self.pace = pace
        self.waiting: deque[tuple[Admission, Admitted, float]] = deque()
        self.late = self.served = self.refused = 0
        chance = random.Random(1).random
        self.admissions = [Admission(longest, lambda: self.now, chance) for _ in range(processes)]
        self._taken = 0.0  # of the next request

    def offer(self, rate: float, seconds: float, *, timeout: float = 10.0, held: int = 0) -> None:
        """So many requests a second arrive; the workers hold up to `held` of those that the broker no longer counts."""
        arrivals, step = 0.0, 0.001
        for _ in range(round(seconds / step)):
            self.now += step
            arrivals += rate * step
            while arrivals >= 1:
                arrivals -= 1
                self.arrive(timeout, held)
            self._taken += self.pace * step
            while self._taken >= 1:
                self._taken -= 1
                if self.waiting:
                    self.serve()

    def arrive(self, timeout: float, held: int) -> None:
        admission = self.admissions[0]
        self.admissions.append(self.admissions.pop(0))
        if admission.outdated():
            admission.measured(max(0, len(self.waiting) - held))
        admission.sent(1, SIZE)
        try:
            self.waiting.append((admission, admission.enter("", SIZE, timeout), self.now + timeout))
        except TolkError:
            self.refused += 1

    def serve(self) -> None:
        admission, admitted, deadline = self.waiting.popleft()
        self.now += WORK  # only this clock: the worker works beside
        admission.leave(admitted, WORK, SIZE)
        self.now -= WORK
        self.served += 1
        self.late += self.now > deadline


@pytest.mark.parametrize(("processes", "held"), [(1, 0), (1, 64), (4, 0), (4, 64)])
@pytest.mark.parametrize("pace", [5.0, 20.0, 40.0, 300.0])
def test_of_three_times_the_load_what_can_be_done_is_done_in_time(pace: float, processes: int, held: int) -> None:
    line = Line(pace=pace, processes=processes)
    line.offer(3 * pace, 20, held=held)
    assert line.late == 0
    assert line.served >= 0.9 * 20 * pace
    assert line.refused > pace * 20
    line.offer(3 * pace, 10, held=held)
    assert len(line.waiting) < 4 * pace  # seconds of waiting


@pytest.mark.parametrize("processes", [1, 4])
def test_below_the_capacity_nobody_is_refused(processes: int) -> None:
    line = Line(pace=40, processes=processes)
    line.offer(36, 60)
    assert line.refused == 0


def test_it_follows_workers_that_come_and_go() -> None:
    line = Line(pace=200)
    line.offer(100, 10)
    assert line.refused == 0
    line.pace = 20
    line.offer(100, 20)
    assert line.late == 0
    line.served = line.refused = 0
    line.pace = 200
    line.offer(100, 10)
    assert line.served > 900
    line.refused = 0
    line.offer(100, 10)
    assert line.refused == 0


def test_after_a_standstill_nobody_is_refused_for_long() -> None:
    line = Line(pace=100)
    line.offer(20, 10)
    line.pace = 0
    line.offer(5, 9, timeout=60)
    line.pace = 100
    line.offer(20, 2)
    line.refused = 0
    line.offer(20, 20)
    assert line.refused == 0


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("clients", [16, 48, 80])
@pytest.mark.parametrize("standstill", [0.3, 1.6, 5.0])
def test_who_waited_for_a_worker_may_come_again_at_once(standstill: float, clients: int, known: bool) -> None:
    """Clients that always have one request each, while the only worker starts."""
    line = Line(pace=200)
    if known:
        line.offer(20, 10)
    for _ in range(clients):
        line.arrive(10, held=64)
    line.now += standstill
    for _ in range(500):
        line.serve()
        line.arrive(10, held=64)
        line.now += 1 / line.pace
    assert line.refused == 0


def test_whoever_has_less_time_waits_less() -> None:
    line = Line(pace=40)
    line.offer(120, 20, timeout=1)
    assert line.served >= 0.9 * 20 * 40
    assert line.late < 25  # before anything is known
    line.late = 0
    line.offer(120, 20, timeout=1)
    assert line.late == 0


def test_bulk_may_wait_for_half_of_its_time() -> None:
    line = Line(pace=40, longest=float("inf"))
    line.offer(120, 120, timeout=60)
    assert 0.8 * 30 < len(line.waiting) / 40 < 1.2 * 30
    assert line.late == 0


def admission(*, chances: Iterable[float] = (0.0,)) -> tuple[Admission, list[float]]:
    """One that knows a pace of 5 requests a second, and its clock."""
    clock, values = [0.0], iter(chances)
    made = Admission(2.0, lambda: clock[0], lambda: next(values))
    for _ in range(100):
        admitted = made.enter("", SIZE, 60)
        made.sent(1, SIZE)
        clock[0] += 0.3
        made.leave(admitted, 0.1, 2 * SIZE)  # two tokens per character, and 300 in all
    clock[0] += 2.0
    return made, clock


def test_the_queue_of_others_counts() -> None:
    made, _ = admission()
    made.measured(1_000)
    made.enter("", SIZE, 60)  # nobody else is in flight: from this one we learn
    with pytest.raises(TolkError) as caught:
        made.enter("", SIZE, 60)
    assert caught.value.code is Code.OVERLOADED


@pytest.mark.parametrize(("depth", "chance", "expected"), [(13, 0.0, 3), (13, 0.99, 6), (900, 0.0, 30)])
def test_retry_after_is_when_the_line_is_gone_or_later(depth: int, chance: float, expected: float) -> None:
    made, _ = admission(chances=[chance])
    made.measured(depth)
    made.enter("", SIZE, 60)
    with pytest.raises(TolkError) as caught:
        made.enter("", SIZE, 60)
    assert caught.value.retry_after == expected
    assert str(expected) in caught.value.message


def test_who_is_refused_for_another_reason_waits_a_second_at_least() -> None:
    assert admission()[0].refusal().retry_after == 1


def test_half_of_the_time_that_is_left_is_for_the_work() -> None:
    made, _ = admission()
    made.measured(9)
    made.enter("", SIZE, 60)
    with pytest.raises(TolkError):
        made.enter("", SIZE, 3.5)
    made.enter("", SIZE, 3.7)


def test_what_was_known_long_ago_is_not_known() -> None:
    made, clock = admission()
    clock[0] += FORGOTTEN + 1
    made.measured(1_000)
    for _ in range(100):
        made.enter("", SIZE, 60)


def test_the_depth_is_measured_by_one_caller_at_a_time() -> None:
    made, clock = admission()
    assert [made.outdated(), made.outdated()] == [True, False]
    clock[0] += DEPTH_AGE
    assert [made.outdated(), made.outdated()] == [True, False]


@pytest.mark.parametrize(("work", "refused"), [(WORK, True), (5.0 + WORK, False)])
def test_a_model_that_loads_keeps_none_of_its_neighbours_out(work: float, refused: bool) -> None:
    """Again and again, one waits five seconds for its model. Then others come, two at a time, into the same queue."""
    clock = [0.0]
    made = Admission(2.0, lambda: clock[0], lambda: 0.0)
    for _ in range(30):
        loading = made.enter("", SIZE, 60)
        clock[0] += 5.0 + 2 * WORK
        made.leave(loading, work, SIZE)
    clock[0] += 2.0
    made.enter("", SIZE, 60)
    if refused:  # as if loading were waiting in line
        with pytest.raises(TolkError):
            made.enter("", SIZE // 2, 60)
    else:
        made.enter("", SIZE // 2, 60)


def test_a_request_without_a_reply_teaches_nothing() -> None:
    made, clock = admission()
    for _ in range(20):
        admitted = made.enter("", SIZE, 60)
        clock[0] += 1
        made.leave(admitted)
    made.measured(9)
    made.enter("", SIZE, 60)
    made.enter("", SIZE, 60)


def known(pace: float, *callers: str, density: float = 1.0) -> tuple[Admission, list[float]]:
    """One that knows a pace in tokens a second, and how many tokens a character of these callers makes; and its
    clock."""
    clock = [0.0]
    made = Admission(2.0, lambda: clock[0], lambda: 0.0)
    for _ in range(max(50, round(5 * pace / SIZE))):
        for caller in callers:
            admitted = made.enter(caller, SIZE, 60)
            clock[0] += (OVERHEAD + SIZE * density) / pace
            made.leave(admitted, 0.0, SIZE * density)
    clock[0] += 2.0
    return made, clock


def fill(made: Admission, caller: str, characters: int, remaining: float = 60.0) -> list[Admitted]:
    """Lets in as many requests of a caller as may enter."""
    entered = []
    with suppress(TolkError):
        for _ in range(1000):
            entered.append(made.enter(caller, characters, remaining))
    assert len(entered) < 1000
    return entered


@pytest.mark.parametrize("size", [100, 1_000, 100_000])
def test_whatever_a_flood_has_in_flight_others_with_little_enter(size: int) -> None:
    made, _ = known(5_000.0, "flood", "small")
    for number in range(10):
        fill(made, f"flood {number}", size)
    for number in range(20):
        assert made.enter(f"small {number}", 20, 10.0).ahead <= 31 * (20 + OVERHEAD)
    with pytest.raises(TolkError):
        made.enter("flood 9", size, 60.0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 500)), max_size=40), st.integers(1, 500))
def test_what_is_ahead_is_what_fair_queueing_serves_before(entered: list[tuple[str, int]], size: int) -> None:
    """Of each other caller as much as the own caller has with this request, or all that it has."""
    made = Admission(math.inf, lambda: 0.0)
    for caller, characters in entered:
        made.enter(caller, characters, math.inf)
    has = {each: sum(OVERHEAD + characters for caller, characters in entered if caller == each) for each in "abc"}
    share = has["a"] + OVERHEAD + size
    expected = has["a"] + min(has["b"], share) + min(has["c"], share)
    assert made.enter("a", size, math.inf).ahead == pytest.approx(expected)


def test_work_counts_in_tokens_of_which_some_texts_have_many() -> None:
    """Of a caller whose characters make ten tokens each, a tenth as much is let in."""
    made, clock = known(50_000.0, "plain")
    for _ in range(20):
        admitted = made.enter("dense", SIZE, 60)
        clock[0] += 0.02
        made.leave(admitted, 0.0, 10 * SIZE)
    characters = []
    for caller in ("plain", "dense"):
        entered = fill(made, caller, 1_000)
        characters.append(sum(each.characters for each in entered))
        for each in entered:
            made.leave(each)
    assert characters[1] == pytest.approx(characters[0] / 10, rel=0.2)


def test_a_large_request_may_wait_for_as_long_as_it_takes() -> None:
    made, _ = known(500.0, "large")
    first, second = (made.enter("large", 5_000, 60) for _ in range(2))  # ten seconds of work each
    assert (first.ahead, second.ahead) == (0, pytest.approx(5_000 + OVERHEAD))
    with pytest.raises(TolkError):
        made.enter("large", 5_000, 60)
    with pytest.raises(TolkError):
        made.enter("large", 100, 60)


def test_many_callers_with_one_request_each_are_too_many_together() -> None:
    made, _ = known(500.0, "first")
    entered = 0
    with suppress(TolkError):
        for number in range(100):
            made.enter(f"caller {number}", SIZE, 60)
            entered += 1
    assert entered == pytest.approx(2.0 * 500 / (OVERHEAD + SIZE), abs=1)


def test_short_waits_show_no_low_pace() -> None:
    made, clock = known(50_000.0, "before")
    for _ in range(200):
        admitted = made.enter("idle", 10, 60)
        clock[0] += 0.01
        made.leave(admitted, 0.0, 10)
    assert len(fill(made, "burst", 1_000)) == pytest.approx(2.0 * 50_000 / (OVERHEAD + 1_000), rel=0.2)


def test_a_message_in_the_queue_counts_as_those_that_were_sent_lately_but_not_more_than_ones_own() -> None:
    for own, size, expected in ((SIZE, 1_000, SIZE), (10_000, 1_000, 1_000), (10_000, 100, 100)):
        made = Admission(longest=math.inf, clock=lambda: 0.0)
        for _ in range(200):
            made.sent(1, size)
        made.measured(10)
        assert made.enter("", own, 60.0).ahead == pytest.approx(10 * (OVERHEAD + expected))


def test_the_callers_that_it_remembers_are_bounded() -> None:
    made = Admission(2.0, lambda: 0.0)
    for number in range(2 * CALLERS):
        made.leave(made.enter(str(number), SIZE, 60), 0.0, SIZE)
    assert len(made._densities) == CALLERS
    assert not made._in_flight
