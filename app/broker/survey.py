"""The status of the service: asks every worker and every web process over the broker, and measures the queues."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

from celery import Celery
from kombu import Connection, Consumer, Exchange, Message, Producer, Queue

from app.broker import commands
from app.broker.connections import CONNECT_TIMEOUT, connect, dropped, reason
from app.broker.queues import RequestQueues
from app.broker.replies import ReplyConsumer
from app.monitoring.recent_errors import total
from app.monitoring.status import QueueStatus, Status, WebStatus
from tasks.contract.errors import TolkError
from tasks.contract.names import STATUS_COMMAND
from tasks.contract.worker import WorkerStatus
from tasks.queues.errors import BROKER_ERRORS
from tasks.queues.topology import dead_letter_queue, job_results_queue

ANSWERED_WITHIN = 0.5  # seconds after which a process that has not answered counts as absent
FRESH = 1.0  # seconds that a status stays fresh
KNOWN = 10.0  # seconds that an older status is better than none

logger = logging.getLogger(__name__)


class Surveys:
    """Keeps the latest status. `take` makes a new one, in about half a second. Thread-safe.

    A status is fresh for `fresh` seconds of `clock`.
    """

    def __init__(
        self, take: Callable[[], Status], fresh: float = FRESH, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._take = take
        self._fresh = fresh
        self._clock = clock
        self._taking = threading.Lock()
        self._latest = Status()
        self._taken = -math.inf

    def fresh(self) -> Status:
        """A fresh status. Callers that come while one is being made wait for that one."""
        with self._taking:
            if self._clock() - self._taken >= self._fresh:
                self._latest = self._take()
                self._taken = self._clock()
            return self._latest

    def known(self) -> Status:
        """The latest status, without waiting; an empty one if that is older than KNOWN seconds. If it is not fresh, a
        thread makes another."""
        age = self._clock() - self._taken
        if age >= self._fresh and not self._taking.locked():
            threading.Thread(target=self.fresh, name="survey", daemon=True).start()
        return self._latest if age < KNOWN else Status()

    def close(self) -> None:
        """Waits for a status that is being made."""
        with self._taking:
            pass


def take(celery: Celery, queues: RequestQueues, replies: ReplyConsumer) -> Status:
    """The status now. `replies` is this process's reply consumer, which tells its own part without the broker."""
    own = replies.tell()
    try:
        with celery.connection_for_write() as connection, dropped(connection):
            connect(connection, CONNECT_TIMEOUT)
            found = _look([*queues.for_translation(), *queues.for_suspects()], connection)
            dead_letters, job_results = _look([dead_letter_queue(), job_results_queue()], connection)
            answers = _ask(connection, [commands.to_workers(celery), commands.to_web_processes()])
    except BROKER_ERRORS as error:
        logger.warning("could not ask for the status: %s", reason(error))
        return Status(broker=False, in_flight=own.in_flight, oldest=own.oldest)
    workers, others = read((who, answer) for who, answer in answers if who != replies.queue)
    return Status(
        broker=True,
        queues={queue.name: queue for queue in found},
        workers=dict(sorted(workers.items())),
        dead_letters=dead_letters.depth,
        job_workers=job_results.workers,
        errors=total(count for each in others for count in each.errors),
        in_flight=sum(each.in_flight for each in (own, *others)),
        oldest=_oldest(each.oldest for each in (own, *others)),
    )


def read(answers: Iterable[tuple[str, Any]]) -> tuple[dict[str, WorkerStatus], Sequence[WebStatus]]:
    """The answers of workers, by name, and of other web processes. Answers that cannot be read, such as those of
    another release, are left out."""
    workers, web = {}, {}
    for who, answer in answers:
        try:
            if isinstance(answer, list) or "in_flight" in answer:
                web[who] = WebStatus.decode(answer)
            else:
                workers[who] = WorkerStatus.decode(answer)
        except (TolkError, LookupError, TypeError, ValueError) as error:
            logger.warning("could not read the status of %s: %s", who, error)
    return workers, list(web.values())


def _look(queues: Iterable[Any], connection: Connection) -> list[QueueStatus]:
    channel = connection.default_channel
    declared = [queue(channel).queue_declare() for queue in queues]
    return [QueueStatus(each.queue, each.message_count, each.consumer_count) for each in declared]


def _oldest(told: Iterable[Mapping[str, float]]) -> dict[str, float]:
    oldest: dict[str, float] = {}
    for each in told:
        for queue, since in each.items():
            oldest[queue] = min(since, oldest.get(queue, since))
    return oldest


def _ask(connection: Connection, exchanges: Iterable[Exchange]) -> list[tuple[str, Any]]:
    """(name, answer) of every process that answers in time. Raises kombu's errors if the broker is lost; Celery's own
    client would wait for it."""
    answers: list[Message] = []
    inbox = Queue(f"tolk.survey.{uuid4().hex}", exclusive=True, durable=False)
    with Consumer(connection, [inbox], on_message=answers.append, no_ack=True, accept=["json"]):
        producer = Producer(connection, serializer="json")
        for exchange in exchanges:
            reply_to = {"exchange": "", "routing_key": inbox.name}
            commands.send(producer, exchange, STATUS_COMMAND, {}, ticket=inbox.name, reply_to=reply_to)
        until = time.monotonic() + ANSWERED_WITHIN
        while (left := until - time.monotonic()) > 0:
            with suppress(TimeoutError):
                connection.drain_events(timeout=left)
    return [item for message in answers for item in message.payload.items()]
