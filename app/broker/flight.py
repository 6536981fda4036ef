"""One request to the workers: admitted to a queue, published, and answered."""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass

from celery.states import REVOKED, SUCCESS
from kombu import Message, Queue
from kombu.exceptions import KombuError

from app.broker.admission import Admission, Admitted
from app.broker.connections import no_broker
from app.broker.link import Link
from app.broker.publishing import Full
from app.broker.queues import RequestQueues
from app.broker.replies import CANCELLED, PendingRequest, RepliesLost
from tasks.contract.errors import Code, TolkError
from tasks.contract.reply import Failure, TranslateReply
from tasks.contract.request import TranslateRequest
from telemetry import tracing
from telemetry.tracing import Span

LATE = "No translation came in time. Allow more time, or try again."

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CeleryFlight:
    """A `Flight` over the broker. `pending` is None if this process has as many requests in flight as it may."""

    link: Link
    queues: RequestQueues
    pending: PendingRequest | None

    def ask(self, request: TranslateRequest) -> TranslateReply:
        if self.pending is None:
            raise self._refusal(request)
        if time.time() >= request.deadline:
            raise TolkError(Code.TIMEOUT, LATE)
        queue = self.queues.of(request)
        with tracing.span(f"translate by {request.model}", queue=queue.name) as span:
            reply = self._reply(self.pending, request, queue, span)
        if reply.error is not None:
            raise reply.error.error()
        return reply

    def _refusal(self, request: TranslateRequest) -> TolkError:
        if not self.link.replies.ready.is_set():
            return no_broker()
        return self.link.admission(self.queues.of(request), request.priority).refusal()

    def _reply(self, pending: PendingRequest, request: TranslateRequest, queue: Queue, span: Span) -> TranslateReply:
        admission = self.link.admission(queue, request.priority)
        admitted = self._enter(admission, queue, request.deadline)
        work = None
        try:
            message, published = self._exchange(pending, request, queue, admission)
            reply = _decode(message, request)
            _add_stages(span, published, reply)
            # Loading does not count: while a worker loads a model, it goes on taking other requests from the queue.
            work = reply.timings.load + reply.timings.prefill + reply.timings.decode
        finally:
            admission.leave(admitted, work)
        return reply

    def _enter(self, admission: Admission, queue: Queue, deadline: float) -> Admitted:
        with tracing.span("admission"):
            if self.link.replies.ready.is_set() and admission.outdated():
                depth = self.link.publisher.length(queue, deadline)
                if depth is not None:
                    admission.measured(depth)
            return admission.enter(max(0.0, deadline - time.time()))

    def _exchange(
        self, pending: PendingRequest, request: TranslateRequest, queue: Queue, admission: Admission
    ) -> tuple[Message, float]:
        """The message with the reply, and when the request was published, in Unix seconds. The request is published
        again if its reply queue was lost."""
        while True:
            self.link.replies.expect(pending, queue.name)
            try:
                with tracing.span("publish"):
                    published = self.link.publisher.publish(queue, request, pending)
            except Full:
                raise admission.refusal() from None
            with suppress(RepliesLost):
                return _result(pending.reply, request.deadline), published


def _result(future: Future[Message], deadline: float) -> Message:
    try:
        return future.result(max(0.0, deadline - time.time()))
    except TimeoutError:
        raise TolkError(Code.TIMEOUT, LATE) from None


def _decode(message: Message, request: TranslateRequest) -> TranslateReply:
    """The reply in Celery's message. Raises TolkError(INTERNAL) if it cannot be read."""
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
        logger.error("could not read the reply to task %s: %s", message.properties.get("correlation_id"), error)
        raise TolkError(Code.INTERNAL, "The service cannot read its worker's reply. Its log says why.") from error
    return reply


def _add_stages(span: Span, published: float, reply: TranslateReply) -> None:
    """Adds the worker's stages to the span, one after the other. The time from then until now is the stage `reply`."""
    began = published
    for stage in ("queue", "load", "wait", "prefill", "decode"):
        duration = getattr(reply.timings, stage)
        if duration or reply.error is None:  # a failed request did not reach every stage
            span.add(stage, began, duration)
        began += duration
    span.add("reply", began, max(0.0, time.time() - began))
    span.attributes.update(worker=reply.worker, version=reply.version or "")
