"""The directory of a service: one service at a time in it, and no process left of an earlier one.

Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from launch.errors import StartError
from launch.output import Output

ROOT = Path(__file__).resolve().parent.parent
DIRECTORY = ROOT / ".run"
MARK = "TOLK_SERVICE"  # in the environment of every child: how a later run knows what an earlier one left behind


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Keeps a second service out of the directory. Raises StartError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        if not _locked(descriptor):
            raise StartError(f"Tolk already runs from {ROOT}: stop it first, or use another clone.")
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def end_leftovers(directory: Path, output: Output) -> None:
    """Ends every process of a service in this directory whose supervisor was killed."""
    for number, seconds in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
        pids = list(leftovers(directory))
        if not pids:
            return
        output.write("tolk", f"ending what was left running: {', '.join(map(str, pids))}")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        until = time.monotonic() + seconds
        while time.monotonic() < until and any(leftovers(directory)):
            time.sleep(0.1)


def leftovers(directory: Path) -> Iterable[int]:
    """The processes that carry the mark of a service in this directory; the broker's have their home there instead."""
    marks = {f"{MARK}={directory}".encode(), f"HOME={directory / 'broker'}".encode()}
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            marked = marks & set(entry.read_bytes().split(b"\0"))
            # A container has its own directory of the same name.
            if marked and directory.samefile(f"{entry.parent}/root{directory}"):
                yield int(entry.parent.name)
        except OSError:  # ended meanwhile, or somebody else's
            continue
