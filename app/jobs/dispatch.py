"""Sends the texts of jobs to workers, and sweeps: a thread of the results worker."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from amqp.exceptions import ChannelError, MessageNacked
from celery import Celery
from sqlalchemy import Connection

from app.broker import commands, messages
from app.broker.connections import ANSWER_TIMEOUT, Connections, reason
from app.broker.queues import RequestQueues
from app.database.transactions import Database
from app.jobs import chunks, recording, sweep
from app.jobs.chunks import Chunk
from tasks.contract.bundle import Bundled
from tasks.contract.errors import TolkError
from tasks.contract.names import JOB_CHUNK
from tasks.queues.errors import BROKER_ERRORS
from tasks.queues.topology import dead_letter_queue, job_results_queue
from tasks.registry.file import RegistryFile

POLL = 0.5  # seconds between two looks for texts that wait
SWEEP = 5.0  # seconds between two sweeps
PURGE = 600.0  # seconds between two purges
PERSISTENT = 2  # the delivery mode of messages that the broker writes to its disk
PAUSE = 1.0  # seconds without publishing after a failure

logger = logging.getLogger(__name__)


class Dispatcher:
    """Feeds the queues of models with chunks of jobs, until it is closed. `wake` has it look at once.

    Several processes may each have one. A chunk has `lasts` seconds until it counts as lost.
    """

    def __init__(self, celery: Celery, database: Database, models: RegistryFile, lasts: float) -> None:
        self._database = database
        self._models = models
        self._queues = RequestQueues(models)
        self._connections = Connections(celery.connection_for_write())
        self._workers = commands.to_workers(celery)
        self._lasts = lasts
        self._was_idle = False  # whether no reply waited at the last sweep
        self._closing = threading.Event()
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dispatch", daemon=True)
        # The tasks of the thread, each with the seconds between two times. One that returns True has more to do, and is
        # due again after the others.
        self._periods: dict[Callable[[], bool], float] = {
            self.feed: 0.0,
            self.drop: 0.0,
            self.sweep: SWEEP,
            self.purge: PURGE,
        }

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        self._woken.set()

    def close(self) -> None:
        """Returns when the thread has ended."""
        self._closing.set()
        self._woken.set()
        self._thread.join()
        self._connections.close(listens=True)

    def feed(self) -> bool:
        """Publishes some chunks. Returns whether there may be more.

        A chunk that cannot be published holds up no other: its texts wait again if its queue refuses it, and count as
        lost with it if it is at fault itself. Raises TolkError and BROKER_ERRORS if nothing can be published.
        """
        taken = self._database.run(self._take)
        for index, chunk in enumerate(taken):
            try:
                self._publish(chunk)
            except (MessageNacked, ChannelError, TolkError) as error:
                logger.warning("chunk %s has to wait: %s", chunk.id, reason(error))
                self._change(recording.postpone, [chunk])
            except BROKER_ERRORS:
                self._change(recording.take_back, taken[index:])
                raise
            except Exception:
                logger.exception("chunk %s cannot be published", chunk.id)
                self._change(recording.lose, [chunk])
        return bool(taken)

    def drop(self) -> bool:
        """Tells workers of some chunks that nobody wants any more. Returns whether there may be more. Raises TolkError
        and BROKER_ERRORS."""
        unwanted = self._database.run(sweep.take_unwanted)
        if unwanted:
            with self._connections.producer(ANSWER_TIMEOUT) as producer:
                for task_id in unwanted:
                    commands.send(producer, self._workers, "cancel", {"task_id": task_id})
        return bool(unwanted)

    def sweep(self) -> bool:
        """Ends overdue jobs, and has what was lost published again. Raises TolkError and BROKER_ERRORS."""
        self._repeat(sweep.end_overdue)
        # What is in the queue, or about to be recorded, is not lost.
        was_idle, self._was_idle = self._was_idle, self._replies() == 0
        if was_idle and self._was_idle:
            self._repeat(sweep.lose_chunks)
        return False

    def purge(self) -> bool:
        """Deletes a part of what has expired. Returns whether there may be more. Raises TolkError."""
        return self._database.run(sweep.purge)

    def _take(self, connection: Connection) -> list[Chunk]:
        return chunks.take(connection, self._models.current(), self._lasts)

    def _publish(self, chunk: Chunk) -> None:
        queue = self._queues.of(chunk.request)
        message = messages.single(Bundled(chunk.id, chunk.request), time.time())
        message["headers"] |= {JOB_CHUNK: "1"}
        results = job_results_queue()
        with self._connections.producer(ANSWER_TIMEOUT) as producer:
            channel: Any = producer.channel
            queue(channel).declare()
            producer.publish(
                **message,
                exchange=queue.exchange,
                routing_key=queue.routing_key,
                reply_to=results.name,
                declare=[dead_letter_queue(), results],
                delivery_mode=PERSISTENT,
                retry=False,
            )

    def _change(self, change: Callable[[Connection, str], None], of: Sequence[Chunk]) -> None:
        def run(connection: Connection) -> None:
            for chunk in of:
                change(connection, chunk.id)

        self._database.run(run)

    def _replies(self) -> int:
        """How many replies wait in the results queue."""
        with self._connections.producer(ANSWER_TIMEOUT) as producer:
            queue: Any = job_results_queue()
            bound = queue(producer.channel)
            bound.declare()
            return int(bound.queue_declare(passive=True).message_count)

    def _repeat(self, step: Callable[[Connection], int]) -> None:
        while self._database.run(step):
            if self._closing.is_set():
                break

    def _run(self) -> None:
        due = {task: time.monotonic() + period for task, period in self._periods.items()}
        while not self._closing.is_set():
            self._woken.clear()
            outcomes = {task: self._attempt(task) for task, when in due.items() if when <= time.monotonic()}
            for task, has_more in outcomes.items():
                due[task] = time.monotonic() + (0.0 if has_more else self._periods[task])
            if None in outcomes.values():
                self._closing.wait(PAUSE)
            elif True not in outcomes.values():
                self._woken.wait(POLL)

    def _attempt(self, task: Callable[[], bool]) -> bool | None:
        """Whether the task has more to do; None if it failed. The thread must go on: all jobs depend on it."""
        try:
            return task()
        except TolkError as error:
            logger.warning("jobs have to wait: %s", error.message)
        except BROKER_ERRORS as error:
            logger.warning("jobs have to wait for the broker: %s", reason(error))
        except Exception:
            logger.exception("jobs have to wait")
        return None
