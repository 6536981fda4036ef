"""Publishes requests to their queues, and measures the queues."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from uuid import uuid4

from amqp.exceptions import MessageNacked
from kombu import Producer, Queue

from app.broker import messages
from app.broker.admission import Admission
from app.broker.connections import Connections, reason
from app.broker.gathering import Full, Gathering, Outgoing
from app.broker.pending import BundleRefused
from app.broker.replies import ReplyConsumer
from tasks.contract.bundle import BUNDLE_CHARACTERS
from tasks.contract.names import SHARED, queue_names
from tasks.contract.request import TranslateRequest
from tasks.queues.errors import BROKER_ERRORS
from tasks.queues.topology import dead_letter_queue

MEASURE_TIMEOUT = 0.5  # seconds to measure a queue's length in; after them it stays unknown
STANDS = 60.0  # seconds that a declared queue is assumed to exist; the broker removes one that is unused for an hour
ONE_BY_ONE = 60.0  # seconds that requests travel by themselves after a worker could not read a bundle
ON_DEMAND = frozenset(name for route in SHARED for name in queue_names(route))  # the queues of models on demand

logger = logging.getLogger(__name__)


class Publisher:
    """Publishes requests over the connections of one process, and has replies sent to its reply consumer. Thread-safe.

    A queue that it has declared is assumed to exist for `stands` seconds of `clock`.
    """

    def __init__(
        self,
        connections: Connections,
        replies: ReplyConsumer,
        stands: float = STANDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connections = connections
        self._replies = replies
        self._stands = stands
        self._clock = clock
        self._dead_letters = dead_letter_queue()
        self._declared: dict[str, float] = {}  # by queue name: when, in seconds of the clock
        self._gatherings: dict[str, Gathering] = {}  # by queue name
        self._one_by_one = -math.inf  # until when, in seconds of the clock

    def exchange(self, queue: Queue, item: Outgoing, admission: Admission) -> object:
        """Publishes a request and returns the body of its reply. The admission to the queue learns how much a message
        holds.

        Raises Full, queue.Empty at the deadline, and the error that ended the request; BundleRefused and RepliesLost if
        it may be published once more.
        """
        try:
            return self._gathering(queue, item.request, admission).exchange(item)
        except BundleRefused:
            self._one_by_one = self._clock() + ONE_BY_ONE
            raise

    def length(self, queue: Queue, deadline: float) -> int | None:
        """How many messages the queue holds; None if the broker does not answer in time.

        Declares the queue, so that one that was deleted exists again for the next publisher.
        """
        try:
            with self._connections.producer(min(MEASURE_TIMEOUT, deadline - time.time())) as producer:
                self._declare(queue, producer.channel)
                return _length(queue, producer.channel)
        except BROKER_ERRORS as error:  # `exchange` has the patience to wait for the broker
            logger.warning("could not measure queue %s: %s", queue.name, reason(error))
            return None

    def _gathering(self, queue: Queue, request: TranslateRequest, admission: Admission) -> Gathering:
        """Where the request meets those that may travel with it."""
        made = self._gatherings.get(queue.name)
        alone = (
            request.priority != "interactive"
            or queue.name in ON_DEMAND
            or messages.characters(request) > BUNDLE_CHARACTERS
            or self._clock() < self._one_by_one
        )
        if alone or made is None:
            made = Gathering(partial(self._send, queue, admission), self._replies.ready)
        return made if alone else self._gatherings.setdefault(queue.name, made)

    def _declare(self, queue: Any, channel: Any) -> None:
        queue(channel).declare()
        self._declared[queue.name] = self._clock()

    def _send(self, queue: Queue, admission: Admission, items: Sequence[Outgoing]) -> None:
        with self._connections.producer(items[0].remaining) as producer:
            self._publish(producer, queue, _message(items, time.time()))
        admission.sent(len(items), sum(messages.characters(each.request) for each in items))

    def _publish(self, producer: Producer, queue: Queue, message: dict[str, Any]) -> None:
        # kombu's own record of declared queues, which it forgets with the connection, leaves out queues that expire.
        connection: Any = producer.connection
        there: set[int] = connection.declared_entities
        known = hash(queue) in there and self._clock() - self._declared.get(queue.name, -math.inf) < self._stands
        try:
            producer.publish(
                **message,
                exchange=queue.exchange,
                routing_key=queue.routing_key,
                reply_to=self._replies.queue,
                declare=[] if known else [self._dead_letters, queue],
            )
        except MessageNacked as error:
            if _is_full(queue, producer.channel):
                raise Full from error
            raise
        if not known:
            there.add(hash(queue))
            self._declared[queue.name] = self._clock()


def _message(items: Sequence[Outgoing], now: float) -> dict[str, Any]:
    """The arguments with which kombu publishes the requests in one message. Each notes when, and in which bundle."""
    bundle_id = str(uuid4()) if len(items) > 1 else None
    for each in items:
        each.published, each.pending.bundle = now, bundle_id
    if bundle_id:
        return messages.bundle(bundle_id, [each.request for each in items], [each.encoded() for each in items], now)
    return messages.single(items[0].bundled, now)


def _is_full(queue: Any, channel: Any) -> bool:
    """Whether a queue that refused a message is full, and not just being made or coming up again.

    Half of its limit counts as full, because workers have taken messages since the refusal.
    """
    return bool(2 * _length(queue, channel) > queue.queue_arguments["x-max-length"])


def _length(queue: Any, channel: Any) -> int:
    return int(queue(channel).queue_declare(passive=True).message_count)
