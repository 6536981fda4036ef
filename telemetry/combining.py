"""Lines that many threads write to one file, with few system calls and without waiting for each other."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

WAITING = 1_000  # lines; a thread that finds more of them unwritten waits, so that a file that blocks fills no memory


class Combining:
    """Hands lines to `write`, all that there are at a time, and in order. A thread that finds another one writing
    leaves its line to that one, and goes on. Thread-safe; `write` is called by one thread at a time."""

    def __init__(self, write: Callable[[Sequence[str]], object]) -> None:
        self._write = write
        self._lines: deque[str] = deque()
        self._writing = threading.Lock()

    def add(self, line: str) -> None:
        """Raises what `write` raises, if this thread writes."""
        self._lines.append(line)
        while self._lines and self._writing.acquire(blocking=len(self._lines) > WAITING):
            try:
                self._write([self._lines.popleft() for _ in range(len(self._lines))])
            finally:
                self._writing.release()
