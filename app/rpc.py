"""The translator behind the queue: publishes a task by its name, and routes the reply to the thread that waits for it.

Celery's own client keeps a reply queue and a connection per thread, named after the thread's identity; identities are
used again, and a broker's restart leaves the thread waiting for good. So here it is one reply queue per process, one
thread that consumes it, and one Future for each request in flight.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, get_args
from uuid import uuid4

from amqp.exceptions import AMQPError, MessageNacked
from celery import Celery
from celery.states import REVOKED, SUCCESS
from kombu import Connection, Consumer, Message, Producer, Queue
from kombu.exceptions import KombuError, LimitExceeded, OperationalError
from kombu.pools import ProducerPool

from app import survey
from app.status import RecentErrors, Status
from tasks.contract import (
    PUBLISHED,
    TASK,
    Code,
    Failure,
    Priority,
    TolkError,
    TranslateReply,
    TranslateRequest,
    queue_name,
)
from tasks.registry import Registry

PUBLISHERS = 10  # connections to publish on, at most
CONNECT_TIMEOUT = 2.0  # seconds until the broker has taken a connection
ANSWER_TIMEOUT = 5.0  # seconds until the broker has answered, or confirmed a message
HEARTBEAT = 10  # seconds; a connection that was silent for two of them is lost
REPLY_QUEUE_EXPIRES = 120.0  # seconds a reply queue outlives its process or a lost connection; no request lives so long
STATUS_AGE = 1.0  # seconds that a status stays good
BACKOFF = (0.05, 1.0)  # seconds between attempts, at first and at most

LATE = "No translation came in time. Allow more time, or try again."
CANCELLED = "The request was cancelled."

BROKER_ERRORS = (AMQPError, MessageNacked, OperationalError, LimitExceeded, OSError)

logger = logging.getLogger(__name__)


class ReplyRouter:
    """Consumes this process's reply queue and hands each reply to the Future of its request.

    It comes back by itself when the broker does; `ready` is set while replies can arrive. `waiting` holds the requests
    in flight, and `dropped` counts the replies that nobody waited for: late, cancelled, or delivered twice.
    """

    def __init__(self, connection: Connection, errors: RecentErrors) -> None:
        self.queue = f"tolk.reply.{uuid4().hex}"
        self.ready = threading.Event()
        self.dropped = 0
        self._connection = connection
        self._errors = errors
        self._consumers = 0
        self.waiting: dict[str, Future[Message]] = {}
        self._closing = threading.Event()
        self.thread = threading.Thread(target=self._run, name="replies", daemon=True)
        self.thread.start()

    def expect(self, request_id: str) -> Future[Message]:
        """The Future of a request that is about to be published. Forget it in the end, whatever comes of it."""
        future: Future[Message] = Future()
        if self.waiting.setdefault(request_id, future) is not future:
            raise TolkError(Code.INTERNAL, f"The request id {request_id} is in use.")
        if self._closing.is_set():
            self.fail(request_id, _closing())
        return future

    def forget(self, request_id: str) -> None:
        self.waiting.pop(request_id, None)

    def fail(self, request_id: str, error: TolkError) -> bool:
        """Ends the wait for a reply with an error; says whether there was one."""
        future = self.waiting.pop(request_id, None)
        if future is not None:
            future.set_exception(error)
        return future is not None

    def close(self) -> None:
        """Requests in flight fail with UNAVAILABLE; when this returns, thread and connection are gone."""
        self._closing.set()
        for request_id in list(self.waiting):
            self.fail(request_id, _closing())
        self.thread.join()

    def _run(self) -> None:
        pause = BACKOFF[0]
        while not self._closing.is_set():
            try:
                with self._connection.clone() as connection:
                    connect(connection, CONNECT_TIMEOUT)
                    self._consume(connection)
            except BROKER_ERRORS as error:
                logger.warning("replies: %s", _reason(error))
            except Exception:  # every request depends on this thread: whatever it meets, it goes on
                logger.exception("replies")
            pause = BACKOFF[0] if self.ready.is_set() else min(2 * pause, BACKOFF[1])
            self.ready.clear()
            self._closing.wait(pause)

    def _consume(self, connection: Connection) -> None:
        # Durable and not exclusive, so that replies wait here while this process or the broker comes back. A connection
        # that was lost before the broker noticed still takes replies: each new consumer has precedence over the last.
        self._consumers += 1
        queue = Queue(
            self.queue,
            durable=True,
            expires=REPLY_QUEUE_EXPIRES,
            consumer_arguments={"x-priority": self._consumers},
        )
        with (
            Consumer(connection, [queue], on_message=self._deliver, no_ack=True, accept=["json"]),
            survey.answer(connection, self.queue, self._errors),
        ):
            self.ready.set()
            beat = 0.0
            while not self._closing.is_set():
                if time.monotonic() >= beat:
                    connection.heartbeat_check()
                    beat = time.monotonic() + HEARTBEAT / 4
                with suppress(TimeoutError):
                    connection.drain_events(timeout=0.5)
        queue(connection.default_channel).delete()

    def _deliver(self, message: Message) -> None:
        future = self.waiting.pop(str(message.properties.get("correlation_id")), None)
        if future is None:
            self.dropped += 1
        else:
            future.set_result(message)


def connect(connection: Any, timeout: float) -> None:
    """Connects where it is not connected, at the first attempt, and lets nothing on it block longer than `timeout`."""
    connection.connect_timeout = min(CONNECT_TIMEOUT, timeout)
    connection.ensure_connection(max_retries=0)
    connection.connection.sock.settimeout(min(ANSWER_TIMEOUT, timeout))


@dataclass(frozen=True, slots=True)
class Link:
    """What one process holds of the broker."""

    producers: ProducerPool
    router: ReplyRouter

    @contextmanager
    def producer(self, timeout: float) -> Iterator[Producer]:
        """A connected producer, of which no step blocks for longer than `timeout`. Raises one of BROKER_ERRORS."""
        with self.producers.acquire(block=True, timeout=timeout) as producer:
            connection: Any = producer.connection
            try:
                connect(connection, timeout)
                yield producer
            except BROKER_ERRORS:
                connection.collect()  # what is left of the conversation would disturb the next one
                raise

    def close(self) -> None:
        """Lets go of the connections, once who publishes right now is done, and politely where the broker listens."""
        connections = self.producers.connections
        listens = self.router.ready.is_set()
        self.router.close()
        until = time.monotonic() + ANSWER_TIMEOUT
        with suppress(*BROKER_ERRORS):
            for _ in range(PUBLISHERS):
                connection = connections.acquire(block=True, timeout=max(0.0, until - time.monotonic()))
                if not listens:
                    connection.collect()
                connections.replace(connection)


class CeleryTranslator:
    """A `Translator` whose translations the workers make. It connects at first use, in every process for itself."""

    def __init__(self, celery: Celery) -> None:
        self._celery = celery
        self._lock = threading.Lock()
        self._links: dict[int, Link] = {}  # by process id: what a fork inherits stays untouched
        self._closed = False
        self.errors = RecentErrors()
        self._surveying = threading.Lock()
        self._status = Status()
        self._outdated = 0.0

    @classmethod
    def from_config(cls, registry: Registry, broker: str | None = None) -> CeleryTranslator:
        """For the models of `registry`, over the broker that celeryconfig names unless a URL is given."""
        import celeryconfig  # it reads the environment, which importing this module must not

        celery = Celery("tolk", broker=broker, backend="disabled://", set_as_current=False)
        celery.config_from_object(celeryconfig)
        celery.conf.task_queues = [
            celeryconfig.translation_queue(model, priority)
            for model in registry.models
            for priority in get_args(Priority)
        ]
        return cls(celery)

    def translate(self, request: TranslateRequest, request_id: str) -> TranslateReply:
        router = self.router
        if time.time() >= request.deadline:
            raise TolkError(Code.TIMEOUT, LATE)
        future = router.expect(request_id)
        try:
            self._publish(request, request_id, future)
            message = _result(future, request.deadline)
        finally:
            router.forget(request_id)
        return _decode(message, request)

    def cancel(self, request_id: str) -> None:
        link = self._link()
        if not link.router.fail(request_id, TolkError(Code.CANCELLED, CANCELLED)):
            return
        # Celery's `control.broadcast`, which would wait for a broker that is down for as long as it is.
        exchange = self._celery.control.mailbox.exchange  # type: ignore[attr-defined]  # missing in celery-types
        command = {"method": "cancel", "arguments": {"task_id": request_id}, "destination": None}
        try:
            with link.producer(CONNECT_TIMEOUT) as producer:
                producer.publish(command, exchange=exchange, declare=[exchange], serializer="json", retry=False)
        except BROKER_ERRORS as error:  # the deadline will end what goes on now
            logger.warning("cancelling %s: %s", request_id, _reason(error))

    def check(self) -> None:
        link = self._link()
        if not link.router.ready.wait(CONNECT_TIMEOUT):
            raise _no_broker()
        try:
            with link.producer(CONNECT_TIMEOUT) as producer:
                channel: Any = producer.channel
                queues: Any = self._celery.amqp.queues.values()
                served = any(queue(channel).queue_declare().consumer_count for queue in queues)
        except BROKER_ERRORS as error:
            logger.warning("checking: %s", _reason(error))
            raise _no_broker() from error
        if not served:
            raise TolkError(Code.UNAVAILABLE, "No worker serves any model. Start one, or wait until it is up.", 1.0)

    def told(self, code: Code, request_id: str) -> None:
        self.errors.add(code, request_id)
        with suppress(TolkError):  # shutting down: nobody will ask any more
            self._link()  # over which others ask for it

    def status(self) -> Status:
        router = self.router
        with self._surveying:  # one at a time, however many want to know
            if time.monotonic() >= self._outdated:
                self._status = self._take_status(router.queue)
                self._outdated = time.monotonic() + STATUS_AGE
            return self._status

    def _take_status(self, name: str) -> Status:
        own = self.errors.counts()
        try:
            with self._celery.connection_for_write() as connection:
                connect(connection, CONNECT_TIMEOUT)
                return survey.take(self._celery, connection, name, own)
        except BROKER_ERRORS as error:
            logger.warning("status: %s", _reason(error))
            return Status(broker=False, errors=tuple(own))

    @property
    def router(self) -> ReplyRouter:
        """The router of this process."""
        return self._link().router

    def close(self) -> None:
        with self._lock:
            self._closed = True
            link = self._links.pop(os.getpid(), None)
        if link is not None:
            link.close()

    def _link(self) -> Link:
        with self._lock:
            if self._closed:
                raise _closing()
            link = self._links.get(os.getpid())
            if link is None:
                connections = self._celery.connection_for_write().Pool(PUBLISHERS)
                router = ReplyRouter(self._celery.connection_for_read(heartbeat=HEARTBEAT), self.errors)
                link = self._links[os.getpid()] = Link(ProducerPool(connections, limit=PUBLISHERS), router)
            return link

    def _publish(self, request: TranslateRequest, request_id: str, future: Future[Message]) -> None:
        """Returns when the broker has the message, or when nobody waits for it any more.

        A message that is not confirmed is sent again, though the broker may have it: translating twice does no harm.
        """
        link = self._link()
        pause = BACKOFF[0]
        while not future.done():
            remaining = request.deadline - time.time()
            if remaining <= 0:
                raise _no_broker()
            if not link.router.ready.wait(min(remaining, BACKOFF[1])):
                continue
            try:
                with link.producer(remaining) as producer:
                    self._send(producer, request, request_id, link.router.queue)
                return
            except BROKER_ERRORS as error:
                logger.warning("publishing %s: %s", request_id, _reason(error))
                wait([future], min(pause, remaining))
                pause = min(2 * pause, BACKOFF[1])

    def _send(self, producer: Producer, request: TranslateRequest, request_id: str, reply_to: str) -> None:
        queue = self._celery.amqp.queues[queue_name(request.model, request.priority)]
        connection: Any = producer.connection
        # Kombu would look there too, but only after it has made a copy of each.
        known = hash(queue) in connection.declared_entities
        now = time.time()
        try:
            # Celery's task message as its protocol 2 has it: `send_task` takes longer for it than the broker does. No
            # header `expires`: the broker drops what expired, the task reads the deadline, and to parse it takes long.
            producer.publish(
                ([request.encode()], {}, {}),
                exchange=queue.exchange,
                routing_key=queue.routing_key,
                headers={
                    "lang": "py",
                    "task": TASK,
                    "id": request_id,
                    "root_id": request_id,
                    "parent_id": None,
                    "group": None,
                    "argsrepr": f"<{len(request.texts)} texts for {request.model}>",  # people's texts go into no log
                    "kwargsrepr": "{}",
                    PUBLISHED: now,
                },
                serializer="json",
                correlation_id=request_id,
                reply_to=reply_to,
                expiration=max(0.0, request.deadline - now),
                declare=[] if known else [self._celery.conf.tolk_dead_letters, queue],
            )
        except MessageNacked as error:
            if _is_full(queue, producer.channel):
                message = "Too many requests wait already. Try again in a moment."
                raise TolkError(Code.OVERLOADED, message, 1.0) from error
            raise


def _is_full(queue: Any, channel: Any) -> bool:
    """Whether a queue that refused a message is full, rather than new or about to come up again.

    Half of its limit counts as full, for workers have gone on taking messages.
    """
    return bool(2 * queue(channel).queue_declare(passive=True).message_count > queue.queue_arguments["x-max-length"])


def _result(future: Future[Message], deadline: float) -> Message:
    try:
        return future.result(max(0.0, deadline - time.time()))
    except TimeoutError:
        raise TolkError(Code.TIMEOUT, LATE) from None


def _decode(message: Message, request: TranslateRequest) -> TranslateReply:
    """The reply in Celery's message. Raises TolkError: the reply's own, or INTERNAL where there is none to be read."""
    try:
        meta = message.payload
        if meta["status"] == REVOKED:
            reply = TranslateReply(request.model, error=Failure(Code.CANCELLED, CANCELLED))
        elif meta["status"] == SUCCESS:
            reply = TranslateReply.decode(meta["result"])
        else:
            raise ValueError(f"the task ended as {meta['status']}")
        if reply.error is None and len(reply.results) != len(request.texts):
            raise ValueError(f"{len(reply.results)} results for {len(request.texts)} texts")
    except (TolkError, KombuError, LookupError, TypeError, ValueError) as error:
        logger.error("reply %s: %s", message.properties.get("correlation_id"), error)
        raise TolkError(Code.INTERNAL, "The service cannot read its worker's reply. Its log says why.") from error
    if reply.error is not None:
        raise reply.error.error()
    return reply


def _closing() -> TolkError:
    return TolkError(Code.UNAVAILABLE, "The service is shutting down. Try again in a moment.", 1.0)


def _no_broker() -> TolkError:
    return TolkError(Code.UNAVAILABLE, "The message broker does not answer. Try again in a moment.", 1.0)


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
