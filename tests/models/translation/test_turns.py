"""Who takes texts apart, and for how long, with clocks of our own."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from models.errors import Cancelled, DeadlineExceeded
from models.translation.call import Call
from models.translation.turns import LITTLE, SLICE, Turns, in_turns

MUCH = ["x" * (LITTLE + 1)]


@dataclass
class Work:
    """Calls that take turns on a clock that advances only by their work."""

    now: float = 0.0
    order: list[str] = field(default_factory=list)  # whose pieces were done, in order

    def __post_init__(self) -> None:
        self.turns = Turns(lambda: self.now, lambda: self.now)

    def do(self, call: Call, pieces: int, after_each: Callable[[], object] = lambda: None) -> float:
        """Does so many pieces of a call's work, each as long as a slice. Returns what it took, in tokens."""
        with self.turns.turn(call) as turn:
            for _ in range(pieces):
                self.order.append(call.caller)
                self.now += SLICE
                after_each()
                turn.pause()
        return turn.tokens


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as pool:
        yield pool


def waiting(
    work: Work, eventually: Callable[..., None], threads: ThreadPoolExecutor, *calls: Call
) -> list[Future[float]]:
    """Starts ten pieces of work of each call, of which each waits for its turn before the next is started."""
    begun = []
    for call in calls:
        before = sum(map(len, work.turns._waiting.values()))
        begun.append(threads.submit(work.do, call, 10))
        eventually(lambda before=before: sum(map(len, work.turns._waiting.values())) == before + 1)
    return begun


def test_callers_take_turns_however_many_calls_they_have(eventually, threads) -> None:
    work = Work()
    with work.turns.turn(Call(MUCH, caller="first")):
        begun = waiting(work, eventually, threads, *[Call(MUCH, caller="flood")] * 8, Call(MUCH, caller="small"))
    for each in begun:
        each.result()
    served = Counter[str]()
    for caller in work.order:
        served[caller] += 1
        if served["small"] < 10:
            assert abs(served["flood"] - served["small"]) <= 2
    assert served == {"flood": 80, "small": 10}


def test_who_is_late_is_told_so_at_the_next_piece() -> None:
    work = Work()
    with pytest.raises(DeadlineExceeded):
        work.do(Call(MUCH, deadline=3.5 * SLICE), 100)
    assert len(work.order) == 4
    assert work.do(Call(MUCH), 2) > 0  # the turn is free


def test_who_is_cancelled_stops_at_the_next_piece() -> None:
    work, cancelled = Work(), threading.Event()
    with pytest.raises(Cancelled):
        work.do(Call(MUCH, unwanted=cancelled.is_set), 100, after_each=cancelled.set)
    assert len(work.order) == 1
    assert work.do(Call(MUCH), 2) > 0


def test_who_is_cancelled_already_does_nothing() -> None:
    work = Work()
    with pytest.raises(Cancelled):
        work.do(Call(MUCH, unwanted=lambda: True), 1)
    assert not work.order


def test_who_waits_for_a_turn_until_the_deadline_is_told_so() -> None:
    work = Work()
    with work.turns.turn(Call(MUCH, caller="slow")):
        with pytest.raises(DeadlineExceeded):
            work.do(Call(MUCH, deadline=0.01, caller="waits"), 1)
        assert not work.turns._waiting
    assert work.do(Call(MUCH, caller="waits"), 1) > 0


def test_a_call_with_little_text_waits_for_nobody() -> None:
    work = Work()
    with work.turns.turn(Call(MUCH, caller="slow")):
        assert work.do(Call(["x" * LITTLE]), 3) > 0
        with pytest.raises(DeadlineExceeded):
            work.do(Call(["x"], deadline=work.now + 2.5 * SLICE), 100)


def test_work_that_fails_passes_its_turn_on(eventually, threads) -> None:
    work = Work()

    def fail() -> None:
        begun.extend(waiting(work, eventually, threads, Call(MUCH, caller="next")))
        raise ZeroDivisionError

    begun: list[Future[float]] = []
    with pytest.raises(ZeroDivisionError):
        work.do(Call(MUCH), 1, after_each=fail)
    assert begun[0].result() > 0


def test_what_took_twice_as_long_counts_twice() -> None:
    work = Work()
    assert work.do(Call(MUCH), 20) == pytest.approx(2 * work.do(Call(MUCH), 10))


def test_in_a_bundle_each_caller_has_its_turn_and_little_text_is_first() -> None:
    calls = {
        "a1": Call(["x" * 50], caller="a"),
        "a2": Call(["x"], caller="a"),
        "b1": Call(["x" * 9], caller="b"),
        "c1": Call(["x" * 90], caller="c"),
        "b2": Call(["x" * 2], caller="b"),
    }
    assert [key for key, _ in in_turns(calls)] == ["b1", "a1", "c1", "a2", "b2"]
