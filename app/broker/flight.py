"""One request to the workers: admitted to a queue, published, and answered."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty
from typing import Any

from kombu import Queue

from app.broker import messages
from app.broker.admission import Admission, Admitted
from app.broker.connections import no_broker
from app.broker.gathering import Full, Outgoing
from app.broker.link import Link
from app.broker.pending import BundleRefused, PendingRequest, RepliesLost
from app.broker.queues import RequestQueues
from tasks.contract.bundle import Bundled
from tasks.contract.errors import Code, TolkError
from tasks.contract.reply import TranslateReply
from tasks.contract.request import TranslateRequest
from telemetry import tracing
from telemetry.tracing import Span

LATE = "No translation came in time. Allow more time, or try again."


@dataclass(frozen=True, slots=True)
class CeleryFlight:
    """A `Flight` over the broker. `pending` is None if its caller has as many requests in flight as it may."""

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
        admitted = self._enter(admission, queue, request)
        work = tokens = None
        try:
            published, body = self._exchange(pending, request, queue, admission)
            reply = messages.reply(body, request, pending.task_id)
            _add_stages(span, published, reply)
            # Loading does not count: while a worker loads a model, it goes on taking other requests from the queue.
            work = reply.timings.load + reply.timings.prefill + reply.timings.decode
            tokens = reply.tokens
        finally:
            admission.leave(admitted, work, tokens)
        return reply

    def _enter(self, admission: Admission, queue: Queue, request: TranslateRequest) -> Admitted:
        with tracing.span("admission"):
            if self.link.replies.ready.is_set() and admission.outdated():
                depth = self.link.publisher.length(queue, request.deadline)
                if depth is not None:
                    admission.measured(depth)
            remaining = max(0.0, request.deadline - time.time())
            return admission.enter(request.caller or "", messages.characters(request), remaining)

    def _exchange(
        self, pending: PendingRequest, request: TranslateRequest, queue: Queue, admission: Admission
    ) -> tuple[float, Any]:
        """When the request was published, in Unix seconds, and the body of the reply. The request is published again
        if its reply queue was lost, or if a worker could not read its bundle."""
        while True:
            self.link.replies.expect(pending, queue.name)
            with suppress(RepliesLost, BundleRefused), tracing.span("publish") as span:
                item = Outgoing(pending, Bundled(pending.task_id, request, tracing.headers()))
                try:
                    body = self.link.publisher.exchange(queue, item, admission)
                except Full:
                    raise admission.refusal() from None
                except Empty:
                    raise TolkError(Code.TIMEOUT, LATE) if item.confirmed else no_broker() from None
                finally:  # the thread waits for both at once
                    span.duration = max(0.0, item.confirmed - span.start)
                return item.published, body


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
