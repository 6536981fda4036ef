"""One status for all who want one, made beside those who would not wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from app.broker.survey import FRESH, KNOWN, Surveys, read
from app.monitoring.status import Status


class Taker:
    """Makes the statuses 0, 1 and so on, when it may."""

    def __init__(self) -> None:
        self.numbers = count()
        self.made = 0
        self.may = threading.Event()
        self.now = 0.0
        self.surveys = Surveys(self.take, clock=lambda: self.now)

    def take(self) -> Status:
        self.may.wait(10)
        self.made += 1
        return Status(broker=True, dead_letters=next(self.numbers))


@pytest.fixture
def taker() -> Taker:
    return Taker()


def test_however_many_ask_one_is_made(taker: Taker) -> None:
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(taker.surveys.fresh) for _ in range(8)]
        taker.may.set()
        assert {each.result().dead_letters for each in asked} == {0}
    assert taker.surveys.known().dead_letters == 0
    assert taker.made == 1


def test_who_would_not_wait_gets_what_there_is(taker: Taker, eventually: Callable[..., None]) -> None:
    assert [taker.surveys.known() for _ in range(3)] == [Status()] * 3  # and one is being made
    taker.may.set()
    eventually(lambda: taker.surveys.known().dead_letters == 0)
    taker.may.clear()
    taker.now += FRESH
    assert [taker.surveys.known().dead_letters for _ in range(3)] == [0] * 3
    taker.may.set()
    eventually(lambda: taker.surveys.known().dead_letters > 0)
    taker.surveys.close()


def test_what_was_known_long_ago_is_not_known(taker: Taker) -> None:
    taker.may.set()
    taker.surveys.fresh()
    taker.may.clear()
    taker.now += KNOWN
    assert taker.surveys.known() == Status()
    assert taker.made == 1
    taker.may.set()


def test_what_another_release_answers_does_no_harm() -> None:
    strange = [("w", {"models": "none"}), ("x", [{"code": "NEW"}]), ("y", 5), ("z", [3])]
    assert read(strange) == ({}, [])
