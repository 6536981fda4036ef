"""The errors that callers got in the last hour."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from tasks.contract.errors import Code

WINDOW = 60  # minutes that an error counts as recent


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """How often callers got a code in the last hour, when they got it last (Unix seconds), and for which request."""

    code: Code
    count: int
    last: float
    request_id: str


class RecentErrors:
    """The errors that this process gave its callers in the last hour. `clock` returns Unix seconds. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._minutes: dict[Code, Counter[int]] = {}
        self._last: dict[Code, tuple[float, str]] = {}

    def add(self, code: Code, request_id: str) -> None:
        """Counts an error. CANCELLED is not counted, because the caller wanted the request to end."""
        if code is Code.CANCELLED:
            return
        now = self._clock()
        with self._lock:
            minutes = self._minutes.setdefault(code, Counter())
            minutes[int(now) // 60] += 1
            for minute in [each for each in minutes if each <= now // 60 - WINDOW]:
                del minutes[minute]
            self._last[code] = (now, request_id)

    def counts(self) -> list[ErrorCount]:
        """One entry for each code that callers got in the last hour."""
        now = self._clock()
        with self._lock:
            recent = {
                code: sum(count for minute, count in minutes.items() if minute > now // 60 - WINDOW)
                for code, minutes in self._minutes.items()
            }
            return [ErrorCount(code, count, *self._last[code]) for code, count in recent.items() if count]


def total(counts: Iterable[ErrorCount]) -> tuple[ErrorCount, ...]:
    """Adds up the counts of several processes: one entry for each code."""
    by_code: dict[Code, list[ErrorCount]] = {}
    for each in counts:
        by_code.setdefault(each.code, []).append(each)
    return tuple(
        replace(max(by_code[code], key=lambda each: each.last), count=sum(each.count for each in by_code[code]))
        for code in Code
        if code in by_code
    )
