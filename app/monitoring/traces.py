"""Stores the latest requests' traces in a directory that all web processes share. Files have one JSON array per
line."""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from telemetry.combining import Combining
from telemetry.tracing import Span

FILE_BYTES = 4 * 2**20  # about: after them a process begins another file
BYTES = 64 * 2**20  # about, of all files: beyond them the oldest are deleted
PAUSE = 60.0  # seconds without traces after one that could not be written

logger = logging.getLogger(__name__)


class Traces:
    """A directory of traces, some tens of thousands of them. Safe to use from many threads and processes at once."""

    def __init__(self, directory: Path, file_bytes: int = FILE_BYTES, all_bytes: int = BYTES) -> None:
        """The directory is made with the first trace, if it is missing. A file takes about `file_bytes`, and all files
        together about `all_bytes`."""
        self._directory = directory
        self._file_bytes, self._all_bytes = file_bytes, all_bytes
        self._combining = Combining(self._write)
        self._file: int | None = None  # a descriptor
        self._room = 0  # bytes left in the file
        self._paused = -math.inf

    def keep(self, request_id: str, trace: Span) -> None:
        """Stores a trace. If that fails, the reason is logged, and no traces are stored for the next minute."""
        self._combining.add(json.dumps([request_id, trace.encode()]) + "\n")

    def _write(self, lines: Sequence[str]) -> None:
        if time.monotonic() < self._paused:
            return
        data = "".join(lines).encode()
        try:
            file = self._file
            # Another process may have deleted the file as the oldest of all.
            if file is None or self._room < len(data) or not os.fstat(file).st_nlink:
                file = self._begin()
            whole = os.write(file, data) == len(data)
            self._room = self._room - len(data) if whole else 0  # nothing is written after half a line
        except OSError as error:
            self._paused = time.monotonic() + PAUSE
            logger.error("No traces are kept for %.0f s: %s", PAUSE, error)

    def find(self, request_id: str) -> list[Span]:
        """The traces with a request id, the latest last: several if a client sent the id again. Raises OSError."""
        wanted, found = request_id.encode(), []
        for path in self._files():
            with suppress(FileNotFoundError):  # another process has deleted it
                lines = path.read_bytes().splitlines()
                for line in (line for line in lines if wanted in line):
                    try:
                        whose, data = json.loads(line)
                        if whose == request_id:
                            found.append(Span.decode(data))
                    except (TypeError, ValueError) as error:  # written by another release, or cut off
                        logger.warning("%s: skipped a line that is no trace: %r", path, error)
        return sorted(found, key=lambda trace: trace.start)

    def _begin(self) -> int:
        """Begins the next file of this process, and deletes the oldest files to make room. Returns its descriptor."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        room = self._all_bytes - self._file_bytes
        for path in reversed(self._files()):
            with suppress(FileNotFoundError):  # another process has deleted it first
                room -= path.stat().st_size
                if room < 0:
                    path.unlink()
        path = self._directory / f"{socket.gethostname()}-{os.getpid()}-{time.time_ns()}.jsonl"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._room = self._file_bytes
        return self._file

    def _files(self) -> list[Path]:
        """The files, the oldest first."""
        return sorted(self._directory.glob("*.jsonl"), key=lambda path: path.name.rpartition("-")[2])
