from __future__ import annotations

from app.monitoring.recent_errors import WINDOW, ErrorCount, RecentErrors, total
from tasks.contract.errors import Code


def test_errors_are_counted_for_an_hour() -> None:
    now = 1_000_000 * 60.0
    errors = RecentErrors(lambda: now)
    errors.add(Code.TIMEOUT, "a")
    now += 30 * 60
    errors.add(Code.TIMEOUT, "b")
    errors.add(Code.INTERNAL, "c")
    assert errors.counts() == [ErrorCount(Code.TIMEOUT, 2, now, "b"), ErrorCount(Code.INTERNAL, 1, now, "c")]
    last, now = now, now + (WINDOW - 30) * 60
    assert errors.counts() == [ErrorCount(Code.TIMEOUT, 1, last, "b"), ErrorCount(Code.INTERNAL, 1, last, "c")]
    now += 30 * 60
    assert errors.counts() == []
    errors.add(Code.TIMEOUT, "d")
    assert errors.counts() == [ErrorCount(Code.TIMEOUT, 1, now, "d")]


def test_the_counts_of_several_processes_become_one_with_the_latest_request() -> None:
    assert total([
        ErrorCount(Code.TIMEOUT, 2, 5.0, "b"),
        ErrorCount(Code.BAD_INPUT, 1, 9.0, "a"),
        ErrorCount(Code.TIMEOUT, 3, 4.0, "c"),
        ErrorCount(Code.TIMEOUT, 1, 6.0, "d"),
    ]) == (ErrorCount(Code.BAD_INPUT, 1, 9.0, "a"), ErrorCount(Code.TIMEOUT, 6, 6.0, "d"))  # fmt: skip
