"""The translator behind the queue: publishes a task by its name, and waits for the reply that the router brings.

Celery's own client keeps a reply queue and a connection per thread, named after the thread's identity; identities are
used again, and a broker's restart leaves the thread waiting for good. So here it is one reply queue per process, one
thread that consumes it, and one Future for each request in flight.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import uuid4

from amqp.exceptions import MessageNacked
from celery import Celery
from celery.states import REVOKED, SUCCESS
from kombu import Message, Producer, Queue
from kombu.exceptions import KombuError

from app.broker import survey
from app.broker.admission import IN_FLIGHT, LONGEST, Admission
from app.broker.cancels import Cancels
from app.broker.connections import BROKER_ERRORS, CONNECT_TIMEOUT, Connections, backoff, connect, reason
from app.broker.queues import Queues
from app.broker.replies import CANCELLED, HEARTBEAT, RepliesLost, ReplyRouter, Waiting, closing
from app.broker.survey import Surveys
from app.monitoring.recent_errors import ErrorCount
from app.monitoring.status import Status
from tasks.contract.errors import Code, TolkError
from tasks.contract.names import PUBLISHED, TASK, Priority
from tasks.contract.reply import Failure, TranslateReply
from tasks.contract.request import TranslateRequest
from tasks.queues.topology import dead_letter_queue
from tasks.registry.file import RegistryFile
from telemetry import tracing
from telemetry.tracing import Span

MEASURE_TIMEOUT = 0.5  # seconds until a queue goes on unmeasured
STANDS = 60.0  # seconds that a queue is believed to be there; the broker removes one of which nobody takes for an hour
GATE_TIMEOUT = 1.0  # seconds until a look is taken whether there is still somebody who waits

LATE = "No translation came in time. Allow more time, or try again."

logger = logging.getLogger(__name__)


class Full(Exception):
    """A queue holds as many messages as it may."""


@dataclass(frozen=True, slots=True)
class Link:
    """What one process holds of the broker, and knows of its queues."""

    connections: Connections
    cancels: Cancels
    router: ReplyRouter
    surveys: Surveys
    admissions: dict[str, Admission] = field(default_factory=dict)
    declared: dict[str, float] = field(default_factory=dict)  # when a queue was, in the monotonic clock's seconds

    def admission(self, queue: Queue, priority: Priority) -> Admission:
        return self.admissions.setdefault(queue.name, Admission(LONGEST[priority]))

    def close(self) -> None:
        listens = self.router.ready.is_set()
        self.surveys.close()
        self.router.close()
        self.cancels.close()
        self.connections.close(listens=listens)


@dataclass(frozen=True, slots=True)
class CeleryFlight:
    """A request for which workers are asked; `waiting` is None where this process waits for too many already."""

    translator: CeleryTranslator
    link: Link
    waiting: Waiting | None

    def ask(self, request: TranslateRequest) -> TranslateReply:
        return self.translator.ask(self.link, self.waiting, request)


class CeleryTranslator:
    """A `Translator` whose translations the workers make. It connects at first use, in every process for itself."""

    def __init__(self, celery: Celery, queues: Queues, errors: Callable[[], Sequence[ErrorCount]]) -> None:
        """`errors` counts what this process told its callers: other web processes ask for it."""
        self._celery = celery
        self._queues = queues
        self._dead_letters = dead_letter_queue()
        self._lock = threading.Lock()
        self._links: dict[int, Link] = {}  # by process id: what a fork inherits stays untouched
        self._closed = False
        self._errors = errors

    @classmethod
    def from_config(
        cls, models: RegistryFile, broker: str | None = None, errors: Callable[[], Sequence[ErrorCount]] = tuple
    ) -> CeleryTranslator:
        """For whatever `models` offers, over the broker that celeryconfig names unless a URL is given."""
        import celeryconfig  # it reads the environment, which importing this module must not

        celery = Celery("tolk", broker=broker, backend="disabled://", set_as_current=False)
        celery.config_from_object(celeryconfig)
        return cls(celery, Queues(models), errors)

    @contextmanager
    def begin(self, request_id: str, principal: str | None) -> Iterator[CeleryFlight]:
        link = self._link()
        if len(link.router.waiting) >= IN_FLIGHT:
            yield CeleryFlight(self, link, None)
        else:
            with link.router.in_flight(request_id, principal) as waiting:
                yield CeleryFlight(self, link, waiting)

    def ask(self, link: Link, waiting: Waiting | None, request: TranslateRequest) -> TranslateReply:
        """What a worker makes of one leg of a request in flight."""
        if waiting is None:
            admission = link.admission(self._queues.of(request), request.priority)
            raise admission.refusal() if link.router.ready.is_set() else _no_broker()
        if time.time() >= request.deadline:
            raise TolkError(Code.TIMEOUT, LATE)
        queue = self._queues.of(request)
        with tracing.span(f"translate by {request.model}", queue=queue.name) as span:
            reply = self._reply(link, waiting, request, queue, span)
        if reply.error is not None:
            raise reply.error.error()
        return reply

    def _reply(
        self, link: Link, waiting: Waiting, request: TranslateRequest, queue: Queue, span: Span
    ) -> TranslateReply:
        admission = link.admission(queue, request.priority)
        with tracing.span("admission"):
            if link.router.ready.is_set() and admission.outdated():
                _measure(link, queue, admission, request.deadline)
            place = admission.enter(max(0.0, request.deadline - time.time()))
        work = None
        try:
            message, published = self._exchange(link, queue, request, waiting, admission)
            reply = _decode(message, request)
            _add_stages(span, published, reply)
            # A model that loads keeps nobody else from being taken out of the queue.
            work = reply.timings.load + reply.timings.prefill + reply.timings.decode
        finally:
            admission.leave(place, work)
        return reply

    def _exchange(
        self, link: Link, queue: Queue, request: TranslateRequest, waiting: Waiting, admission: Admission
    ) -> tuple[Message, float]:
        """The reply to a request, which is published once more where its reply queue was lost, and when it was, in Unix
        seconds."""
        while True:
            link.router.expect(waiting, queue.name)
            with tracing.span("publish"):
                published = self._publish(link, queue, request, waiting, admission)
            with suppress(RepliesLost):
                return _result(waiting.reply, request.deadline), published

    def cancel(self, request_id: str, principal: str | None) -> bool:
        link = self._link()
        return link.router.cancel(request_id, principal) or self._cancel_elsewhere(link, request_id, principal)

    def _cancel_elsewhere(self, link: Link, request_id: str, principal: str | None) -> bool:
        """Asks the other web processes. Nobody knows how many there are: after PATIENCE seconds it is none of them."""
        with link.router.in_flight(str(uuid4()), None) as yes:
            link.router.expect(yes)
            try:
                with link.connections.producer(survey.PATIENCE) as producer:
                    survey.ask_to_cancel(
                        producer,
                        request_id=request_id,
                        principal=principal,
                        reply_to=link.router.queue,
                        ticket=yes.task_id,
                    )
            except BROKER_ERRORS as error:
                logger.warning("cancelling %s: %s", request_id, reason(error))
                raise _no_broker() from error
            return bool(wait([yes.reply], survey.PATIENCE).done) and yes.reply.result() is not None

    def abandon(self, request_id: str, principal: str | None) -> None:
        self._link().router.cancel(request_id, principal)

    def check(self) -> None:
        link = self._link()
        if not link.router.ready.wait(CONNECT_TIMEOUT):
            raise _no_broker()
        try:
            with link.connections.producer(CONNECT_TIMEOUT) as producer:
                channel: Any = producer.channel
                queues: Any = self._queues.for_translation()
                served = any(queue(channel).queue_declare().consumer_count for queue in queues)
        except BROKER_ERRORS as error:
            logger.warning("checking: %s", reason(error))
            raise _no_broker() from error
        if not served:
            raise TolkError(Code.UNAVAILABLE, "No worker serves any model. Start one, or wait until it is up.", 1.0)

    def listen(self) -> None:
        with suppress(TolkError):  # shutting down: nobody will ask any more
            self._link()

    def status(self) -> Status:
        return self._link().surveys.fresh()

    def known_status(self) -> Status:
        return self._link().surveys.known()

    def _take_status(self, router: ReplyRouter) -> Status:
        own = router.tell()
        queues = [*self._queues.for_translation(), *self._queues.for_suspects()]
        try:
            with self._celery.connection_for_write() as connection:
                connect(connection, CONNECT_TIMEOUT)
                return survey.take(self._celery, connection, queues, router.queue, own)
        except BROKER_ERRORS as error:
            logger.warning("status: %s", reason(error))
            return Status(broker=False, in_flight=own.in_flight, oldest=own.oldest)

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
                raise closing()
            link = self._links.get(os.getpid())
            if link is None:
                connections = Connections(self._celery.connection_for_write())
                exchange = self._celery.control.mailbox.exchange  # type: ignore[attr-defined]  # missing in celery-types
                cancels = Cancels(connections, exchange)
                router = ReplyRouter(self._celery.connection_for_read(heartbeat=HEARTBEAT), self._errors, cancels)
                surveys = Surveys(partial(self._take_status, router))
                link = self._links[os.getpid()] = Link(connections, cancels, router, surveys)
            return link

    def _publish(
        self, link: Link, queue: Queue, request: TranslateRequest, waiting: Waiting, admission: Admission
    ) -> float:
        """When it was published, in Unix seconds; returns when the broker has the message, or when nobody waits for it
        any more.

        A message that is not confirmed is sent again, though the broker may have it: translating twice does no harm.
        """
        failures = 0
        published = time.time()
        while not waiting.reply.done():
            remaining = request.deadline - time.time()
            if remaining <= 0:
                raise _no_broker()
            if not link.router.ready.wait(min(remaining, GATE_TIMEOUT)):
                continue
            try:
                with link.connections.producer(remaining) as producer:
                    published = time.time()
                    self._send(link, producer, queue, request, waiting.task_id, published)
                break
            except Full:
                raise admission.refusal() from None
            except BROKER_ERRORS as error:
                logger.warning("publishing %s: %s", waiting.task_id, reason(error))
                failures += 1
                wait([waiting.reply], min(backoff(failures), remaining))
        return published

    def _send(
        self, link: Link, producer: Producer, queue: Queue, request: TranslateRequest, task_id: str, now: float
    ) -> None:
        # Kombu keeps these of each connection too, but not of queues that expire; it forgets them with the connection.
        connection: Any = producer.connection
        there: set[int] = connection.declared_entities
        known = hash(queue) in there and time.monotonic() - link.declared.get(queue.name, -math.inf) < STANDS
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
                    "id": task_id,
                    "root_id": task_id,
                    "parent_id": None,
                    "group": None,
                    "argsrepr": _describe(request),
                    "kwargsrepr": "{}",
                    PUBLISHED: now,
                    **tracing.headers(),
                },
                serializer="json",
                correlation_id=task_id,
                reply_to=link.router.queue,
                expiration=max(0.0, request.deadline - now),
                declare=[] if known else [self._dead_letters, queue],
            )
            if not known:
                there.add(hash(queue))
                link.declared[queue.name] = time.monotonic()
        except MessageNacked as error:
            if _is_full(queue, producer.channel):
                raise Full from error
            raise


def _measure(link: Link, queue: Queue, admission: Admission, deadline: float) -> None:
    """How long the queue is. It is declared as well: one that was deleted comes back for those who publish next."""
    try:
        with link.connections.producer(min(MEASURE_TIMEOUT, deadline - time.time())) as producer:
            channel: Any = producer.channel
            bound: Any = queue(channel)
            bound.declare()
            link.declared[queue.name] = time.monotonic()
            admission.measured(bound.queue_declare(passive=True).message_count)
    except BROKER_ERRORS as error:  # the publisher has the patience that this takes
        logger.warning("measuring %s: %s", queue.name, reason(error))


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
    """The reply in Celery's message. Raises TolkError(INTERNAL) where there is none to be read."""
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
    return reply


def _describe(request: TranslateRequest) -> str:
    """For monitors and logs, which people's texts do not go into."""
    characters = sum(map(len, request.texts))
    way = f"{request.source} to {request.target} by {request.model}, {request.priority}"
    return f"<{len(request.texts)} text{'s' * (len(request.texts) > 1)}, {characters} characters, {way}>"


def _add_stages(span: Span, published: float, reply: TranslateReply) -> None:
    """What the worker says of its part, one stage after the other, and what is left of the time since: the way back."""
    began = published
    for stage in ("queue", "load", "wait", "prefill", "decode"):
        duration = getattr(reply.timings, stage)
        if duration or reply.error is None:  # what failed did not come to all of them
            span.add(stage, began, duration)
        began += duration
    span.add("reply", began, max(0.0, time.time() - began))
    span.attributes.update(worker=reply.worker, version=reply.version or "")


def _no_broker() -> TolkError:
    return TolkError(Code.UNAVAILABLE, "The message broker does not answer. Try again in a moment.", 1.0)
