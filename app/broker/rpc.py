"""The translator behind the queue: publishes tasks by name, and waits for the replies that the reply consumer receives.

Celery's own client keeps a reply queue and a connection for each thread, named after the thread's identity. Identities
are reused, and a restart of the broker leaves the thread waiting for ever. So each process here has one reply queue,
one thread that consumes it, and one inbox for each request in flight.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import Empty
from typing import Any

from celery import Celery

from app.broker import commands
from app.broker.celery import configured
from app.broker.connections import ANSWER_TIMEOUT, CONNECT_TIMEOUT, no_broker, reason
from app.broker.flight import CeleryFlight
from app.broker.link import Link
from app.broker.pending import WaitingRequests
from app.broker.queues import RequestQueues
from app.broker.replies import ReplyConsumer, closing
from app.broker.survey import ANSWERED_WITHIN, FRESH
from app.monitoring.recent_errors import ErrorCount
from app.monitoring.status import Status
from app.settings import IN_FLIGHT
from tasks.contract.errors import Code, TolkError
from tasks.queues.errors import BROKER_ERRORS
from tasks.registry.file import RegistryFile

logger = logging.getLogger(__name__)


class CeleryTranslator:
    """A `Translator` whose translations come from the workers. Each process connects at its first use."""

    def __init__(
        self,
        celery: Celery,
        queues: RequestQueues,
        errors: Callable[[], Sequence[ErrorCount]],
        fresh: float,
        waiting: WaitingRequests | None,
    ) -> None:
        self._celery = celery
        self._queues = queues
        self._errors = errors
        self._fresh = fresh
        self._waiting = waiting
        self._lock = threading.Lock()
        self._links: dict[int, Link] = {}  # by process id: a forked process must not use its parent's
        self._closed = False

    @classmethod
    def from_config(
        cls,
        models: RegistryFile,
        broker: str | None = None,
        errors: Callable[[], Sequence[ErrorCount]] = tuple,
        fresh: float = FRESH,
        waiting: WaitingRequests | None = None,
    ) -> CeleryTranslator:
        """A translator for the models in `models`, over the broker at the URL, by default the one that celeryconfig
        names.

        `errors` returns this process's error counts, which other web processes ask for. A status stays fresh for
        `fresh` seconds. `waiting` are requests that other web processes can cancel, beside those in flight.
        """
        return cls(configured(broker), RequestQueues(models), errors, fresh, waiting)

    @contextmanager
    def begin(self, request_id: str, principal: str | None) -> Iterator[CeleryFlight]:
        link = self._link()
        if len(link.replies.pending) >= IN_FLIGHT:
            yield CeleryFlight(link, self._queues, None)
        else:
            with link.replies.in_flight(request_id, principal) as pending:
                yield CeleryFlight(link, self._queues, pending)

    def cancel(self, request_id: str, principal: str | None) -> bool:
        link = self._link()
        return link.replies.cancel(request_id, principal) or _cancel_elsewhere(link, request_id, principal)

    def abandon(self, request_id: str, principal: str | None) -> None:
        self._link().replies.cancel(request_id, principal)

    def check(self) -> None:
        link = self._link()
        if not link.replies.ready.wait(CONNECT_TIMEOUT):
            raise no_broker()
        try:
            with link.connections.producer(CONNECT_TIMEOUT) as producer:
                channel: Any = producer.channel
                queues: Any = self._queues.for_translation()
                # In an alarm (disk, memory) the broker reads nothing more from whoever has published. No queue has this
                # name, so the message goes nowhere.
                producer.publish("", exchange="", routing_key="tolk.readiness", retry=False)
                served = any(queue(channel).queue_declare().consumer_count for queue in queues)
        except BROKER_ERRORS as error:
            logger.warning("the broker failed the readiness check: %s", reason(error))
            raise no_broker() from error
        if not served:
            raise TolkError(Code.UNAVAILABLE, "No worker serves any model. Start one, or wait until it is up.", 1.0)

    def listen(self) -> None:
        with suppress(TolkError):  # it is shutting down, and need not answer
            self._link()

    def status(self) -> Status:
        return self._link().surveys.fresh()

    def known_status(self) -> Status:
        return self._link().surveys.known()

    @property
    def replies(self) -> ReplyConsumer:
        """The reply consumer of this process."""
        return self._link().replies

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
                link = Link.open(self._celery, self._queues, self._errors, self._fresh, self._waiting)
                self._links[os.getpid()] = link
            return link


def _cancel_elsewhere(link: Link, request_id: str, principal: str | None) -> bool:
    """Has the web process that has a request cancel it. Returns whether it did. Raises TolkError(UNAVAILABLE).

    All processes are asked first which of them has it. Their number is unknown, so no answer within ANSWERED_WITHIN
    means that none has it; whoever answers later has cancelled nothing.
    """
    request = {"request_id": request_id, "principal": principal}
    process = _ask(link, commands.FIND_COMMAND, request, ANSWERED_WITHIN)
    if process is None:
        return False
    cancelled = _ask(link, commands.CANCEL_COMMAND, request, ANSWER_TIMEOUT, to=[str(process)])
    if cancelled is None:
        message = "The process that has the request does not answer: it may be cancelled, or not. Ask again."
        raise TolkError(Code.UNAVAILABLE, message, 1.0)
    return cancelled is True


def _ask(
    link: Link, method: str, request: dict[str, str | None], timeout: float, to: Sequence[str] | None = None
) -> object:
    """The first answer of the other web processes, or of those named in `to`, to a command about a request; None if
    there is none in time. Raises TolkError(UNAVAILABLE)."""
    with link.replies.question() as question:
        arguments = {**request, "reply_to": link.replies.queue, "ticket": question.ticket}
        try:
            with link.connections.producer(CONNECT_TIMEOUT) as producer:
                commands.send(producer, commands.to_web_processes(), method, arguments, to)
        except BROKER_ERRORS as error:
            logger.warning("could not ask other web processes for %s: %s", request["request_id"], reason(error))
            raise no_broker() from error
        try:
            answer = question.inbox.get(timeout=timeout)
        except Empty:
            return None
    if isinstance(answer, TolkError):
        raise answer
    return answer
