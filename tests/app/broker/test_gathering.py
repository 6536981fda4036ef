"""Requests that gather while a message is on its way, and whose threads give up, end or are answered at any moment."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from queue import Empty, SimpleQueue

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.broker.gathering import HURRY, Full, Gathering, Outgoing
from app.broker.pending import CANCELLED, PendingRequest
from tasks.contract.bundle import BUNDLE_BYTES, BUNDLE_REQUESTS, Bundled
from tasks.contract.errors import Code, TolkError
from tasks.contract.request import TranslateRequest

PATIENCE = 30.0  # seconds after which a test has failed


def outgoing(task_id: str, text: str = "un", *, timeout: float = 60.0, version: str | None = None) -> Outgoing:
    request = TranslateRequest((text,), target="en", model="m", deadline=time.time() + timeout, version=version)
    return Outgoing(PendingRequest(task_id, None, task_id), Bundled(task_id, request))


class Desk:
    """A gathering whose messages stay on their way until the test says what becomes of them."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self.ready = threading.Event()
        self.ready.set()
        self.gathering = Gathering(self._send, self.ready, pause=lambda _failures: 0.0)
        self._threads = threads
        self._on_their_way: SimpleQueue[tuple[list[Outgoing], Future[None]]] = SimpleQueue()

    def ask(self, item: Outgoing) -> Future[object]:
        """What comes of a request that a thread of its own has published."""
        return self._threads.submit(self.gathering.exchange, item)

    def gather(self, items: Sequence[Outgoing]) -> list[Future[object]]:
        """The same for several, in this order, once all of them wait."""
        asked = []
        for item in items:
            asked.append(self.ask(item))
            until(lambda item=item: item in self.gathering.waiting)
        return asked

    def message(self) -> tuple[list[Outgoing], Future[None]]:
        """The requests of the next message on its way, and what becomes of it."""
        return self._on_their_way.get(timeout=PATIENCE)

    def idle(self) -> bool:
        """Whether no message is on its way."""
        return self._on_their_way.empty()

    def _send(self, items: Sequence[Outgoing]) -> None:
        outcome: Future[None] = Future()
        self._on_their_way.put((list(items), outcome))
        outcome.result(PATIENCE)


@contextmanager
def opened() -> Iterator[Desk]:
    with ThreadPoolExecutor(64) as threads:
        yield Desk(threads)


def until(condition: Callable[[], bool]) -> None:
    """Returns when a condition holds that a thread is about to bring about."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.0001)


def answered(items: Sequence[Outgoing], futures: Sequence[Future[object]]) -> bool:
    """Answers the requests. Whether each had its own answer."""
    for item in items:
        item.pending.inbox.put(item.bundled.task_id)
    return [each.result(PATIENCE) for each in futures] == [each.bundled.task_id for each in items]


def test_a_lone_request_is_published_at_once() -> None:
    with opened() as desk:
        asked = desk.ask(item := outgoing("a"))
        items, outcome = desk.message()
        assert items == [item]
        outcome.set_result(None)
        assert answered(items, [asked])
        assert item.confirmed >= time.time() - PATIENCE
        again = desk.ask(item := outgoing("b"))
        items, outcome = desk.message()
        assert items == [item]
        outcome.set_result(None)
        assert answered(items, [again])


def test_those_who_come_while_a_message_is_on_its_way_go_in_the_next_and_sleep_until_their_replies() -> None:
    with opened() as desk:
        first = desk.ask(alone := outgoing("first"))
        _, outcome = desk.message()
        together = [outgoing(str(number)) for number in range(BUNDLE_REQUESTS + 1)]
        asked = desk.gather(together)
        outcome.set_result(None)
        items, outcome = desk.message()
        assert items == together[:-1]
        assert all(each.pending.inbox.empty() for each in items)
        outcome.set_result(None)
        items, outcome = desk.message()
        assert items == together[-1:]
        outcome.set_result(None)
        assert answered([alone, *together], [first, *asked])


def test_a_message_has_at_most_its_bytes_and_one_version() -> None:
    with opened() as desk:
        asked = [desk.ask(alone := outgoing("first", version="1"))]
        _, outcome = desk.message()
        items = [outgoing(f"{number}", "é" * 2_000, version=str(number % 2)) for number in range(12)]
        asked += desk.gather(items)
        sent: list[Outgoing] = []
        while len(sent) < len(items):
            outcome.set_result(None)
            message, outcome = desk.message()
            assert len({each.request.version for each in message}) == 1
            assert sum(len(each.encoded()) + 2 for each in message) < BUNDLE_BYTES
            sent += message
        outcome.set_result(None)
        assert set(sent) == set(items)
        assert answered([alone, *items], asked)


def test_a_full_queue_is_told_to_every_request_of_the_message_and_to_no_other() -> None:
    with opened() as desk:
        first = desk.ask(alone := outgoing("first"))
        _, outcome = desk.message()
        asked = desk.gather([outgoing(str(number)) for number in range(3)])
        outcome.set_result(None)
        _, outcome = desk.message()
        [later] = desk.gather([after := outgoing("after")])
        outcome.set_exception(Full())
        assert all(isinstance(each.exception(PATIENCE), Full) for each in asked)
        _, outcome = desk.message()
        outcome.set_result(None)
        assert answered([alone, after], [first, later])


@pytest.mark.parametrize("end", [TolkError(Code.CANCELLED, CANCELLED), None])
def test_a_leader_that_gives_up_is_followed_by_another(end: TolkError | None) -> None:
    with opened() as desk:
        first = desk.ask(leader := outgoing("first", timeout=60.0 if end else 0.2))
        _, outcome = desk.message()
        followers = [outgoing(str(number)) for number in range(3)]
        asked = desk.gather(followers)
        if end is not None:
            leader.pending.inbox.put(end)
        else:
            until(lambda: leader.remaining == 0)
        outcome.set_exception(ConnectionResetError())
        items, outcome = desk.message()
        assert items == followers
        assert isinstance(first.exception(PATIENCE), TolkError if end else Empty)
        outcome.set_exception(RuntimeError("a defect"))  # is its leader's, and the others go on
        items, outcome = desk.message()
        assert items == followers[1:]
        assert isinstance(asked[0].exception(PATIENCE), RuntimeError)
        outcome.set_result(None)
        assert answered(followers[1:], asked[1:])


def test_a_leader_with_little_time_left_sends_its_request_alone() -> None:
    with opened() as desk:
        first = desk.ask(alone := outgoing("first"))
        _, outcome = desk.message()
        items = [outgoing("hurried", timeout=HURRY), outgoing("patient")]
        asked = desk.gather(items)
        outcome.set_result(None)
        message, outcome = desk.message()
        assert message == items[:1]
        outcome.set_exception(TimeoutError())
        until(lambda: items[0].remaining == 0)
        message, outcome = desk.message()
        while message == items[:1]:  # it may have had the time for more attempts
            outcome.set_exception(TimeoutError())
            message, outcome = desk.message()
        assert message == items[1:]
        outcome.set_result(None)
        assert isinstance(asked[0].exception(PATIENCE), Empty)
        assert answered([alone, items[1]], [first, asked[1]])


def test_what_ended_is_left_out_of_the_next_attempt() -> None:
    with opened() as desk:
        first = desk.ask(alone := outgoing("first"))
        _, outcome = desk.message()
        items = [outgoing(str(number)) for number in range(3)]
        asked = desk.gather(items)
        outcome.set_result(None)
        message, outcome = desk.message()
        assert message == items
        items[1].pending.inbox.put(TolkError(Code.CANCELLED, CANCELLED))
        assert isinstance(asked[1].exception(PATIENCE), TolkError)
        assert answered(items[2:], asked[2:])  # a worker was quicker than the broker's confirm
        outcome.set_exception(ConnectionResetError())
        message, outcome = desk.message()
        assert message == items[:1]
        outcome.set_result(None)
        assert answered([alone, items[0]], [first, asked[0]])


def test_nothing_is_sent_while_no_reply_could_come() -> None:
    with opened() as desk:
        desk.ready.clear()
        asked = desk.ask(leader := outgoing("a"))
        others = [outgoing(str(number)) for number in range(2)]
        asked_others = desk.gather(others)
        assert desk.idle()
        desk.ready.set()
        items, outcome = desk.message()
        assert items == [leader, *others]
        outcome.set_result(None)
        assert answered(items, [asked, *asked_others])


STEPS = st.one_of(
    st.sampled_from(["ask", "ask", "ask", "confirm", "confirm", "full", "lose"]).map(lambda step: (step, 0)),
    st.tuples(st.sampled_from(["cancel", "answer", "answer"]), st.integers(0, 63)),
)


@given(steps=st.lists(STEPS, max_size=60))
def test_whatever_happens_every_request_is_sent_or_refused_and_none_is_lost(steps: list[tuple[str, int]]) -> None:
    with opened() as desk:
        asked: dict[Outgoing, Future[object]] = {}
        ends: dict[Outgoing, str] = {}  # what a request must end with
        sent: set[Outgoing] = set()
        on_its_way: tuple[list[Outgoing], Future[None]] | None = None
        numbers = itertools.count()

        def live() -> list[Outgoing]:
            return [each for each in asked if each not in ends]

        def settle() -> None:
            """Waits until a message is on its way, if one must be."""
            nonlocal on_its_way
            if on_its_way is None and any(not each.confirmed for each in live()):
                on_its_way = desk.message()
                items, _ = on_its_way
                assert 1 <= len(items) <= BUNDLE_REQUESTS
                assert set(items) <= set(live())
                sent.update(items)

        def finish(step: str) -> None:
            nonlocal on_its_way
            assert on_its_way is not None
            items, outcome = on_its_way
            on_its_way = None
            match step:
                case "confirm":
                    outcome.set_result(None)
                    until(lambda: all(each.confirmed for each in items))
                case "full":
                    ends.update((each, "full") for each in items if each not in ends)
                    outcome.set_exception(Full())
                case "lose":
                    outcome.set_exception(ConnectionResetError())

        def end(item: Outgoing, how: str) -> None:
            ends[item] = how
            item.pending.inbox.put(TolkError(Code.CANCELLED, CANCELLED) if how == "cancel" else item.bundled.task_id)
            if on_its_way is None or item is not on_its_way[0][0]:  # whose thread waits for the broker
                asked[item].exception(PATIENCE)

        for step, number in steps:
            if step == "ask" and len(live()) < 60:
                item = outgoing(str(next(numbers)))
                asked[item] = desk.ask(item)
                until(lambda item=item: on_its_way is None or item in desk.gathering.waiting)
            elif step in ("confirm", "full", "lose") and on_its_way is not None:
                finish(step)
            elif step == "cancel" and live():
                end(live()[number % len(live())], step)
            elif step == "answer" and (reached := [each for each in live() if each in sent]):
                end(reached[number % len(reached)], step)
            settle()
        while on_its_way is not None:
            finish("confirm")
            settle()
        assert all(each.confirmed for each in live())
        for item in live():
            end(item, "answer")
        for item, future in asked.items():
            error = future.exception(PATIENCE)
            match ends[item]:
                case "full":
                    assert isinstance(error, Full)
                case "cancel":
                    assert isinstance(error, TolkError)
                case "answer":
                    assert future.result() == item.bundled.task_id
        assert desk.idle()
        assert desk.gathering.waiting == []
