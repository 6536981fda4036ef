"""The selection of queues with -Q and -X."""

from __future__ import annotations

import pytest
from kombu import Queue

from tasks.worker.selection import SelectedQueues

A, B = (["tolk.translate.a.interactive", "tolk.translate.a.bulk"], ["tolk.translate.b.interactive"])


@pytest.fixture
def queues() -> SelectedQueues:
    return SelectedQueues([Queue(name) for name in [*A, *B, "tolk.translate.ab.bulk"]], create_missing=False)


def test_of_a_worker_that_was_told_nothing_all_are_consumed_now_and_later(queues: SelectedQueues) -> None:
    queues.select(None)
    queues.deselect(None)
    assert set(queues.consume_from) == set(queues)
    assert queues.of("later") == ["tolk.translate.later.interactive", "tolk.translate.later.bulk"]


def test_a_beginning_names_all_that_begin_so(queues: SelectedQueues) -> None:
    queues.select(["tolk.translate.a", *B])
    assert set(queues.consume_from) == {*A, *B}
    assert queues.of("a") == A
    assert queues.of("b") == B
    assert queues.of("ab") == queues.of("later") == []


def test_what_was_left_out_stays_out(queues: SelectedQueues) -> None:
    queues.deselect("tolk.translate.a")
    assert set(queues.consume_from) == {*B, "tolk.translate.ab.bulk"}
    assert queues.of("a") == []
    assert len(queues.of("later")) == 2


def test_a_name_that_there_is_not_is_refused(queues: SelectedQueues) -> None:
    with pytest.raises(KeyError):
        queues.select("tolk.translate.c")
