"""The worker's side of the socket to the supervisor of its pool."""

from __future__ import annotations

import os
import signal
import socket
import threading
from contextlib import suppress
from typing import Any

from celery import bootsteps, signals
from celery.utils.log import get_logger

logger = get_logger(__name__)


class Supervision(bootsteps.StartStopStep):
    """Tells the supervisor when this worker takes work, and stops the worker when the supervisor has ended."""

    def __init__(self, worker: Any, supervisor: int | None = None, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self.supervisor = supervisor
        self.enabled = supervisor is not None

    def start(self, _worker: Any) -> None:
        line = socket.socket(fileno=self.supervisor)
        line.set_inheritable(False)

        def tell_ready(**_: Any) -> None:
            with suppress(OSError):  # the supervisor has ended: await_end stops the worker
                line.send(b"\n")

        def await_end() -> None:
            with suppress(ConnectionResetError):  # the supervisor ended before it read that this worker is ready
                line.recv(1)
            logger.critical("the pool's supervisor has ended: shutting down")
            os.kill(os.getpid(), signal.SIGTERM)

        signals.worker_ready.connect(tell_ready, weak=False)
        threading.Thread(target=await_end, daemon=True).start()
