"""Runs a slow command, shows its progress, and reports its failure in one sentence. Standard library only."""

from __future__ import annotations

import queue
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from launch.errors import SetupError

ROOT = Path(__file__).resolve().parent.parent
QUIET_SECONDS = 20.0  # without output of the command, after which a line says that it still runs

FULL = "The disk is full: make room in {} and in {}, and run the same command again."
OFFLINE = "The package index cannot be reached: check the network (or HTTPS_PROXY), and run the same command again."


def run(command: list[str]) -> list[str]:
    """Runs the command, shows its progress, and returns the lines of its output. Raises SetupError if it fails."""
    started = time.monotonic()
    lines = []
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        try:
            for line in _output(process):
                if line is None:
                    say(f"  still running ({time.monotonic() - started:.0f} s)")
                    continue
                lines.append(line)
                if _progress(line):
                    say(f"  {_progress(line)}")
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        raise failure(command, lines)
    return lines


def _output(process: subprocess.Popen[str]) -> Iterator[str | None]:
    """Yields the lines as they come, and None after each QUIET_SECONDS without one."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        for line in process.stdout or ():
            lines.put(line.rstrip())
        lines.put(None)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    while True:
        try:
            line = lines.get(timeout=QUIET_SECONDS)
        except queue.Empty:
            yield None
            continue
        if line is None:
            return
        yield line


def _progress(line: str) -> str | None:
    """The progress that a line of pip's output shows: a large download or the installation. None for other lines."""
    large = re.match(r"\s*Downloading (?:\S*/)?([^-]+)-([^-]+)-\S+ \(([\d.]+ [MG]B)\)", line)
    if large:
        return "downloading {} {} ({})".format(*large.groups())
    if line.startswith("Installing collected packages:"):
        return f"installing {line.count(',') + 1} packages"
    return None


def failure(command: list[str], lines: list[str]) -> SetupError:
    """The error for a failed command: one sentence for a common cause, otherwise the whole output."""
    said = "\n".join(lines)
    if is_full(said):
        return SetupError(full())
    if any(sign in said for sign in ("new connection", "ConnectTimeoutError", "timed out", "(from versions: none)")):
        return SetupError(OFFLINE)
    return SetupError("\n".join([*lines, f"`{' '.join(command)}` failed: see above."]))


def is_full(said: str) -> bool:
    return any(sign in said for sign in ("No space left on device", "Disk quota exceeded", "enough free space"))


def full() -> str:
    return FULL.format(ROOT, tempfile.gettempdir())


def say(line: str) -> None:
    print(f"set-up | {line}", flush=True)
