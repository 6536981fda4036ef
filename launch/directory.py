"""The directory of a service: lets one service at a time use it, and ends the processes that an earlier one left.

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
MARK = "TOLK_SERVICE"  # in every child's environment, so that a later run finds what an earlier one left


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Locks the directory, which is made if it is missing. Raises StartError if another service uses it."""
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
    """Ends the processes of an earlier service in this directory whose supervisor was killed."""
    for number, seconds in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
        pids = list(leftovers(directory))
        if not pids:
            return
        output.write("tolk", f"ending processes that an earlier run left: {', '.join(map(str, pids))}")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        until = time.monotonic() + seconds
        while time.monotonic() < until and any(leftovers(directory)):
            time.sleep(0.1)


def leftovers(directory: Path) -> Iterable[int]:
    """The ids of the processes that have the mark of a service in this directory in their environment. The broker's
    processes have their home in the directory instead."""
    marks = {f"{MARK}={directory}".encode(), f"HOME={directory / 'broker'}".encode()}
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            marked = marks & set(entry.read_bytes().split(b"\0"))
            # A process in a container may have another directory of the same name.
            if marked and directory.samefile(f"{entry.parent}/root{directory}"):
                yield int(entry.parent.name)
        except OSError:  # the process has ended, or belongs to another user
            continue
