"""Tells the workers which tasks are cancelled."""

from __future__ import annotations

import logging
import threading

from kombu import Exchange

from app.broker import commands
from app.broker.connections import CONNECT_TIMEOUT, Connections, reason
from tasks.queues.errors import BROKER_ERRORS

logger = logging.getLogger(__name__)


class Cancels:
    """Sends the remote-control command `cancel` from a thread of its own, so that a broker that hangs delays no caller.

    Tasks that are added during a send go out together in the next one. If the broker does not answer, they are dropped:
    the deadlines of their requests end that work.
    """

    def __init__(self, connections: Connections, workers: Exchange) -> None:
        """`workers` is the exchange by which a command reaches every worker."""
        self._connections = connections
        self._workers = workers
        self._changed = threading.Condition()
        self._tasks: list[str] = []
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="cancels", daemon=True)
        self._thread.start()

    def add(self, task_id: str) -> None:
        """Has the workers told that this task is cancelled. Returns at once."""
        with self._changed:
            self._tasks.append(task_id)
            self._changed.notify()

    def close(self) -> None:
        """Returns when the thread has ended. Tasks that are not sent yet are dropped."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while tasks := self._take():
            try:
                self._send(tasks)
            except BROKER_ERRORS as error:
                logger.warning("could not cancel %d tasks: %s", len(tasks), reason(error))
            except Exception:  # the thread must go on, for later cancellations
                logger.exception("could not cancel tasks")

    def _take(self) -> list[str]:
        """The tasks to cancel, once there are any; an empty list after `close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._tasks or self._closing)
            tasks, self._tasks = self._tasks, []
            return [] if self._closing else tasks

    def _send(self, tasks: list[str]) -> None:
        with self._connections.producer(CONNECT_TIMEOUT) as producer:
            for task_id in tasks:
                commands.send(producer, self._workers, "cancel", {"task_id": task_id})
