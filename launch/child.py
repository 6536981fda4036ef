"""A child process of the service, and its output. Standard library only."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from launch.output import Log, Output

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Child:
    """A child process of the service, its output, and its start by `time.monotonic`."""

    name: str
    process: subprocess.Popen[bytes]
    log: Log
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def spawn(cls, name: str, command: Sequence[str], environ: Mapping[str, str], output: Output) -> Self:
        """Runs a Python module as a child in a session of its own. `command` is the module and its arguments."""
        log = Log(name, output)
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=ROOT,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log.sink,
                stderr=log.sink,
                start_new_session=True,
            )
        finally:
            os.close(log.sink)
        return cls(name, process, log)
