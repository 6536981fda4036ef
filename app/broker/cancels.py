"""Tells the workers what nobody waits for any more."""

from __future__ import annotations

import logging
import threading
from typing import Any

from kombu import Exchange

from app.broker.connections import BROKER_ERRORS, CONNECT_TIMEOUT, Connections, reason

logger = logging.getLogger(__name__)


class Cancels:
    """Sends the remote-control command `cancel` from a thread of its own: a broker that hangs holds up nobody.

    All that came up meanwhile is sent together or, where the broker does not answer, not at all: the requests'
    deadlines will end that work.
    """

    def __init__(self, connections: Connections, exchange: Exchange) -> None:
        self._connections = connections
        self._exchange = exchange
        self._changed = threading.Condition()
        self._tasks: list[str] = []
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="cancels", daemon=True)
        self._thread.start()

    def add(self, task_id: str) -> None:
        with self._changed:
            self._tasks.append(task_id)
            self._changed.notify()

    def close(self) -> None:
        """Returns when the thread is gone, and with it what it knows."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while tasks := self._take():
            try:
                self._send(tasks)
            except BROKER_ERRORS as error:
                logger.warning("cancelling %d: %s", len(tasks), reason(error))
            except Exception:  # whatever it meets, there will be others
                logger.exception("cancelling")

    def _take(self) -> list[str]:
        """What there is, once there is something; nothing at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._tasks or self._closing)
            tasks, self._tasks = self._tasks, []
            return [] if self._closing else tasks

    def _send(self, tasks: list[str]) -> None:
        # Celery's `control.broadcast` would wait for a broker that is down for as long as it is.
        with self._connections.producer(CONNECT_TIMEOUT) as producer:
            for task_id in tasks:
                command: Any = {"method": "cancel", "arguments": {"task_id": task_id}, "destination": None}
                producer.publish(
                    command, exchange=self._exchange, declare=[self._exchange], serializer="json", retry=False
                )
