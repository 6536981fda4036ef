"""Merges the output of several processes, line by line. Standard library only."""

from __future__ import annotations

import contextlib
import os
import re
import select
import threading
from collections import deque

COLOURS = {"web": 32, "worker": 36, "broker": 33, "flower": 35, "tolk": 1}
ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")  # that set a terminal's colours


class Output:
    """Writes the lines of several processes to one file descriptor, each line after its process's name."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.coloured = os.isatty(descriptor) and not os.environ.get("NO_COLOR")
        self._lock = threading.Lock()

    def write(self, name: str, line: str) -> None:
        prefix = f"{name:<6} |"
        if self.coloured:
            prefix = f"\033[{COLOURS[name]}m{prefix}\033[0m"
        # A lost reader is reported by `closed`; a full disk must not stop the service.
        with self._lock, contextlib.suppress(OSError):
            os.write(self._descriptor, f"{prefix} {line}\n".encode())

    def closed(self) -> bool:
        """Whether the reader of the pipe, or the terminal, is gone. SIGHUP does not show it: it may reach only make,
        which then waits for us."""
        descriptors = select.poll()
        descriptors.register(self._descriptor, 0)
        return bool(descriptors.poll(0))


class Log:
    """A pipe whose lines go to the output. A process writes to `sink`; `tail` has its last lines."""

    def __init__(self, name: str, output: Output) -> None:
        self.tail: deque[str] = deque(maxlen=20)
        source, self.sink = os.pipe()
        self.thread = threading.Thread(target=self._pump, args=(name, source, output), daemon=True)
        self.thread.start()

    def _pump(self, name: str, source: int, output: Output) -> None:
        with open(source, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                text = line.rstrip() if output.coloured else ESCAPES.sub("", line).rstrip()
                if text:
                    self.tail.append(text)
                    output.write(name, text)
