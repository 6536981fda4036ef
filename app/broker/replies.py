"""Receives replies: one queue and one thread for each process, and one inbox for each request in flight."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any
from uuid import uuid4

from kombu import Connection, Consumer, Message, Producer, Queue

from app.broker import commands, messages
from app.broker.cancels import Cancels
from app.broker.connections import ANSWER_TIMEOUT, CONNECT_TIMEOUT, backoff, connect, patience, reason
from app.broker.pending import CANCELLED, Inbox, PendingRequest, Question, RepliesLost, WaitingRequests
from app.monitoring.recent_errors import ErrorCount
from app.monitoring.status import WebStatus
from tasks.contract.errors import Code, TolkError
from tasks.queues.errors import BROKER_ERRORS

HEARTBEAT = 10  # seconds; a connection that is silent for two heartbeats is lost
TICK = 0.5  # seconds between two looks whether the consumer is to end
REPLY_QUEUE_EXPIRES = 120.0  # seconds that a reply queue outlives its connection; no request lives so long

logger = logging.getLogger(__name__)


class ReplyConsumer:
    """Consumes this process's reply queue and puts each reply into the inbox of its request or question.

    It reconnects by itself when the broker comes back, and takes another `queue` if the old one is lost. `ready` is set
    while replies can arrive. `pending` holds the requests in flight. `dropped` counts the replies that nobody waited
    for: they were late, cancelled, or delivered twice.
    """

    def __init__(
        self,
        connection: Connection,
        errors: Callable[[], Sequence[ErrorCount]],
        cancels: Cancels,
        waiting: WaitingRequests | None = None,
    ) -> None:
        """`waiting`, if any, are requests that other processes can cancel, too."""
        self.queue = _queue_name()
        self.ready = threading.Event()
        self.dropped = 0
        self._connection = connection
        self._errors = errors
        self._cancels = cancels
        self._waiting = waiting
        self._consumers = 0
        self._node: str | None = None  # the broker's node of the latest connection
        self._lock = threading.Lock()
        self.pending: dict[tuple[str, str | None], PendingRequest] = {}
        self._awaited: dict[str, Inbox] = {}  # by correlation id: a task's id, or a question's ticket
        self._closing = threading.Event()
        self.thread = threading.Thread(target=self._run, name="replies", daemon=True)
        self.thread.start()

    @contextmanager
    def in_flight(self, request_id: str, principal: str | None) -> Iterator[PendingRequest]:
        """Keeps a request in flight until the context is left. It can be cancelled at any time, also between its tasks.

        Raises TolkError(BAD_INPUT) if the principal has a request with this id in flight already. If the request was
        ended early, raises the error that ended it when the context is left.
        """
        pending = PendingRequest(request_id, principal)
        with self._lock:
            if self._closing.is_set():
                raise closing()
            if (request_id, principal) in self.pending:
                raise TolkError(
                    Code.BAD_INPUT, "X-Request-Id: a request with this id is still in flight. Send another id, or none."
                )
            self.pending[request_id, principal] = pending
        try:
            yield pending
        finally:
            with self._lock:
                self._forget(pending)
        if pending.ended is not None:
            raise pending.ended

    @contextmanager
    def question(self) -> Iterator[Question]:
        """A question that other processes can answer until the context is left. Raises TolkError(UNAVAILABLE)."""
        question = Question()
        with self._lock:
            if self._closing.is_set():
                raise closing()
            self._awaited[question.ticket] = question.inbox
        try:
            yield question
        finally:
            with self._lock:
                self._awaited.pop(question.ticket, None)

    def expect(self, pending: PendingRequest, queue: str) -> None:
        """Gives the request a new task, to be published to `queue`. If the request was ended, raises its error."""
        with self._lock:
            if pending.ended is not None:
                raise pending.ended
            pending.task_id, pending.inbox = f"{pending.request_id}.{uuid4().hex[:8]}", SimpleQueue()
            pending.queue, pending.since = queue, time.time()
            self._awaited[pending.task_id] = pending.inbox

    def cancel(self, request_id: str, principal: str | None) -> bool:
        """Ends a request with CANCELLED, and the workers' work for it. Returns whether it was in flight."""
        pending = self.pending.get((request_id, principal))
        if pending is None or not self._end(pending, TolkError(Code.CANCELLED, CANCELLED)):
            return False
        self._cancels.add(pending.task_id)
        return True

    def tell(self) -> WebStatus:
        """The status of this process, for the other ones."""
        oldest: dict[str, float] = {}
        with self._lock:
            for pending in self.pending.values():
                if pending.queue and pending.task_id in self._awaited:
                    oldest[pending.queue] = min(pending.since, oldest.get(pending.queue, pending.since))
            return WebStatus(tuple(self._errors()), len(self.pending), oldest)

    def close(self) -> None:
        """Ends requests in flight and questions with UNAVAILABLE. When this returns, the thread has ended and the
        connection is closed."""
        with self._lock:
            self._closing.set()
        for pending in list(self.pending.values()):
            self._end(pending, closing())
        self._give_up(closing)
        self.thread.join()

    def _end(self, pending: PendingRequest, error: TolkError) -> bool:
        """Ends a request with this error. Returns whether it was in flight."""
        with self._lock:
            if self.pending.get((pending.request_id, pending.principal)) is not pending:
                return False
            pending.ended = error
            awaited = self._forget(pending)
        if awaited:
            pending.inbox.put(error)
        return True

    def _forget(self, pending: PendingRequest) -> bool:
        """Forgets a request. Returns whether the reply to its task was still awaited. The caller holds the lock."""
        if self.pending.get((pending.request_id, pending.principal)) is pending:
            del self.pending[pending.request_id, pending.principal]
        return self._awaited.pop(pending.task_id, None) is not None

    def _run(self) -> None:
        failures = 0
        while not self._closing.is_set():
            try:
                with self._connection.clone() as connection:
                    connect(connection, CONNECT_TIMEOUT)
                    self._consume(connection)
            except BROKER_ERRORS as error:
                logger.warning("the reply consumer lost the broker: %s", reason(error))
            except Exception:  # every request depends on this thread, so it must go on
                logger.exception("the reply consumer failed")
            failures = 1 if self.ready.is_set() else failures + 1
            self.ready.clear()
            self._closing.wait(backoff(failures))

    def _consume(self, connection: Connection) -> None:
        # The queue is durable and not exclusive, so that replies wait in it while this process or the broker restarts.
        # Until the broker notices that a connection is lost, it still sends replies there: so each new consumer has a
        # higher priority.
        self._consumers += 1
        if self._node not in (None, connection.host):  # the queue is on the previous node only
            self._move()
        self._node = connection.host
        unbound: Any = Queue(
            self.queue,
            durable=True,
            expires=REPLY_QUEUE_EXPIRES,
            consumer_arguments={"x-priority": self._consumers},
        )
        queue = unbound(connection.default_channel)
        try:
            queue.declare()
        except BROKER_ERRORS:
            self._move()
            connection.collect()  # to close it properly would wait for the broker that did not answer
            raise
        with (
            Consumer(connection, [queue], auto_declare=False, on_message=self._deliver, no_ack=True, accept=["json"]),
            commands.answer(connection, self.queue, self.tell, *self._for_others(connection)),
        ):
            patience(connection, TICK)
            self.ready.set()
            beat = 0.0
            while not self._closing.is_set():
                if time.monotonic() >= beat:
                    connection.heartbeat_check()
                    beat = time.monotonic() + HEARTBEAT / 4
                with suppress(TimeoutError):
                    connection.drain_events()
            patience(connection, ANSWER_TIMEOUT)
        queue.delete()

    def _move(self) -> None:
        """Takes another reply queue. The old one, with the replies in it, is unusable or on a node that is down."""
        self.queue = _queue_name()
        self._give_up(RepliesLost)

    def _give_up(self, error: Callable[[], TolkError]) -> None:
        """Ends the wait for all replies with this error."""
        with self._lock:
            lost, self._awaited = list(self._awaited.values()), {}
        for inbox in lost:
            inbox.put(error())

    def _deliver(self, message: Message) -> None:
        """Puts the replies of a message into the inboxes. This wakes threads, so it is done without the lock."""
        found: list[tuple[Inbox, object]] = []
        replies = messages.replies(message)
        with self._lock:
            for correlation_id, reply in replies:
                if (inbox := self._awaited.pop(correlation_id, None)) is not None:
                    found.append((inbox, reply))
                elif inboxes := self._bundle(correlation_id):
                    found += [(inbox, messages.of_bundle(reply)) for inbox in inboxes]
                else:
                    self.dropped += 1
        for inbox, reply in found:
            inbox.put(reply)

    def _bundle(self, bundle_id: str) -> list[Inbox]:
        """The inboxes of a bundle's requests that still wait. The caller holds the lock."""
        waiting = [each.task_id for each in self.pending.values() if each.bundle == bundle_id]
        return [self._awaited.pop(task_id) for task_id in waiting if task_id in self._awaited]

    def _for_others(self, connection: Connection) -> tuple[Callable[..., None], Callable[..., None]]:
        """Functions that tell another web process whether a request is here, and that cancel one for it."""

        def tell(answer: object, reply_to: str, ticket: str) -> None:
            producer = Producer(connection, serializer="json")
            producer.publish(answer, routing_key=reply_to, correlation_id=ticket, retry=False)

        def find(request_id: str, principal: str | None, **asks: str) -> None:
            is_waiting = self._waiting is not None and self._waiting.has(request_id, principal)
            if is_waiting or (request_id, principal) in self.pending:
                tell(self.queue, **asks)

        def cancel(request_id: str, principal: str | None, **asks: str) -> None:
            was_waiting = self._waiting is not None and self._waiting.cancel(request_id, principal)
            tell(was_waiting or self.cancel(request_id, principal), **asks)

        return find, cancel


def _queue_name() -> str:
    return f"tolk.reply.{uuid4().hex}"


def closing() -> TolkError:
    """The error for a caller while this process shuts down."""
    return TolkError(Code.UNAVAILABLE, "The service is shutting down. Try again in a moment.", 1.0)
