"""Publishes a request to its queue, again and again until the broker has confirmed it or the queue is full."""

from __future__ import annotations

import logging
import math
import time
from concurrent.futures import wait
from typing import Any

from amqp.exceptions import MessageNacked
from kombu import Producer, Queue

from app.broker.connections import Connections, backoff, no_broker, reason
from app.broker.replies import PendingRequest, ReplyConsumer
from tasks.contract.names import PUBLISHED, TASK
from tasks.contract.request import TranslateRequest
from tasks.queues.errors import BROKER_ERRORS
from tasks.queues.topology import dead_letter_queue
from telemetry import tracing

MEASURE_TIMEOUT = 0.5  # seconds to measure a queue's length in; after them it stays unknown
STANDS = 60.0  # seconds that a declared queue is assumed to exist; the broker removes one that is unused for an hour
GATE_TIMEOUT = 1.0  # seconds between two checks whether anybody still waits for the reply

logger = logging.getLogger(__name__)


class Full(Exception):
    """The queue holds as many messages as it may."""


class Publisher:
    """Publishes requests over the connections of one process, and has replies sent to its reply consumer. Thread-safe.

    A queue that it has declared is assumed to exist for `stands` seconds.
    """

    def __init__(self, connections: Connections, replies: ReplyConsumer, stands: float = STANDS) -> None:
        self._connections = connections
        self._replies = replies
        self._stands = stands
        self._dead_letters = dead_letter_queue()
        self._declared: dict[str, float] = {}  # by queue name: when, in seconds of the monotonic clock

    def publish(self, queue: Queue, request: TranslateRequest, pending: PendingRequest) -> float:
        """Publishes a request and returns when that was, in Unix seconds. Returns once the broker has confirmed the
        message, or once nobody waits for the reply any more.

        A message that is not confirmed is sent again. The broker may then have it twice, but translating twice does no
        harm. Raises Full, and TolkError(UNAVAILABLE) if the broker has not confirmed the message by the request's
        deadline.
        """
        failures = 0
        published = time.time()
        while not pending.reply.done():
            remaining = request.deadline - time.time()
            if remaining <= 0:
                raise no_broker()
            if not self._replies.ready.wait(min(remaining, GATE_TIMEOUT)):
                continue
            try:
                with self._connections.producer(remaining) as producer:
                    published = time.time()
                    self._send(producer, queue, request, pending.task_id, published)
                break
            except BROKER_ERRORS as error:
                logger.warning("could not publish task %s: %s", pending.task_id, reason(error))
                failures += 1
                wait([pending.reply], min(backoff(failures), remaining))
        return published

    def length(self, queue: Queue, deadline: float) -> int | None:
        """How many messages the queue holds; None if the broker does not answer in time.

        Declares the queue, so that one that was deleted exists again for the next publisher.
        """
        try:
            with self._connections.producer(min(MEASURE_TIMEOUT, deadline - time.time())) as producer:
                self._declare(queue, producer.channel)
                return _length(queue, producer.channel)
        except BROKER_ERRORS as error:  # `publish` has the patience to wait for the broker
            logger.warning("could not measure queue %s: %s", queue.name, reason(error))
            return None

    def _declare(self, queue: Any, channel: Any) -> None:
        queue(channel).declare()
        self._declared[queue.name] = time.monotonic()

    def _send(self, producer: Producer, queue: Queue, request: TranslateRequest, task_id: str, now: float) -> None:
        # kombu's own record of declared queues, which it forgets with the connection, leaves out queues that expire.
        connection: Any = producer.connection
        there: set[int] = connection.declared_entities
        known = hash(queue) in there and time.monotonic() - self._declared.get(queue.name, -math.inf) < self._stands
        try:
            producer.publish(
                ([request.encode()], {}, {}),
                exchange=queue.exchange,
                routing_key=queue.routing_key,
                headers=_headers(request, task_id, now),
                serializer="json",
                correlation_id=task_id,
                reply_to=self._replies.queue,
                expiration=max(0.0, request.deadline - now),
                declare=[] if known else [self._dead_letters, queue],
            )
        except MessageNacked as error:
            if _is_full(queue, producer.channel):
                raise Full from error
            raise
        if not known:
            there.add(hash(queue))
            self._declared[queue.name] = time.monotonic()


def _headers(request: TranslateRequest, task_id: str, now: float) -> dict[str, Any]:
    """The headers of Celery's task message, protocol 2. Celery's own `send_task` takes longer than the broker does.

    There is no `expires`, which takes long to parse: the broker drops expired messages, and the task reads the
    deadline.
    """
    return {
        "lang": "py",
        "task": TASK,
        "id": task_id,
        "root_id": task_id,
        "parent_id": None,
        "group": None,
        "argsrepr": _describe(request),
        "kwargsrepr": "{}",
        PUBLISHED: now,
        **tracing.headers(),
    }


def _is_full(queue: Any, channel: Any) -> bool:
    """Whether a queue that refused a message is full, and not just being made or coming up again.

    Half of its limit counts as full, because workers have taken messages since the refusal.
    """
    return bool(2 * _length(queue, channel) > queue.queue_arguments["x-max-length"])


def _length(queue: Any, channel: Any) -> int:
    return int(queue(channel).queue_declare(passive=True).message_count)


def _describe(request: TranslateRequest) -> str:
    """A description for monitors and logs, which must not hold people's texts."""
    characters = sum(map(len, request.texts))
    way = f"{request.source} to {request.target} by {request.model}, {request.priority}"
    return f"<{len(request.texts)} text{'s' * (len(request.texts) > 1)}, {characters} characters, {way}>"
