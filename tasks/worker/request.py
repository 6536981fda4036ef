"""A message in a worker, with one request or several: when it is acknowledged, and when it is published again.

RabbitMQ counts every return of a message to a quorum queue as a failed delivery, whether the message is rejected or its
channel closes (measured on 3.10), and a message has only three deliveries. A worker that is told to stop must not use
them up: it publishes what it has not answered again, and then acknowledges the message.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable
from contextvars import ContextVar
from functools import partial
from typing import Any

from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.request import Request as CeleryRequest
from typing_extensions import override

from tasks.contract.bundle import RETURNED, named
from tasks.contract.delivery import again, again_alone, was_delivered
from tasks.contract.errors import Code
from tasks.contract.names import request_of
from tasks.contract.reply import Failure, TranslateReply
from tasks.queues.errors import BROKER_ERRORS
from tasks.worker.publisher import Publication, Publisher
from tasks.worker.replies import Reply
from telemetry import logs

logger = get_logger(__name__)

current: ContextVar[Request] = ContextVar("request")  # the one whose task runs in this thread

_changing = threading.Lock()  # guards what several threads change of a request
_held: set[Request] = set()  # those whose messages are neither acknowledged nor rejected


class HandedBack(Exception):
    """The thread pool began a request that had already been handed back."""


class Request(CeleryRequest):
    """Celery's request: a message, with one request of ours or several, in a worker.

    The consumer's thread may hand it back until a thread of the pool begins it. It is acknowledged when the task has
    ended and the broker has confirmed all replies.
    """

    app: Any  # this attribute and the next ones are missing in celery-types
    args: Any
    message: Any
    reply_to: str | None
    connection_errors: tuple[type[Exception], ...]
    acknowledged: bool
    begun = False
    ended = False  # whether it is to be acknowledged once its replies are confirmed
    is_left = False  # whether its task has ended without a reply to all of its requests, because the worker stops

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bundled = named(self.args[0])
        self.unanswered = set(self.bundled) or {self.id}  # the ids of requests
        self.unconfirmed: set[str] = set()  # the ids of requests whose replies are on their way
        _held.add(self)

    @override
    def info(self, safe: bool = False) -> Any:
        """What monitors such as Flower see of the request: a description of its arguments, never people's texts."""
        return super().info(safe=True)

    def on_accepted(self, pid: str, time_accepted: float) -> None:
        with _changing:
            if self.acknowledged:
                raise HandedBack
            self.begun = True
        # Both hold until the end of the task, when its context is discarded (tasks.worker.thread).
        current.set(self)
        logs.request_id.set(request_of(self.id) or None)
        super().on_accepted(pid, time_accepted)

    def is_unwanted(self, task_id: str) -> bool:
        """Whether one of its requests has been cancelled, or all of them with their message."""
        return task_id in state.revoked or self.id in state.revoked

    def reply(self, task_id: str, reply: TranslateReply) -> None:
        """Sends the reply to one of its requests. Returns at once."""
        with _changing:
            self.unanswered.discard(task_id)
            if not self.reply_to:
                return
            self.unconfirmed.add(task_id)
        self.app.replies.send(Reply.to(self.message, task_id, reply, partial(self._confirm, task_id)))

    def refuse(self, code: Code, reason: str) -> None:
        """Sends replies with an error to the requests that have none yet."""
        for task_id in sorted(self.unanswered):
            self.reply(task_id, TranslateReply(model="", worker=self.hostname or "", error=Failure(code, reason)))

    def acknowledge(self) -> None:
        """Acknowledges the message, now or when all replies are confirmed."""
        with _changing:
            self.ended = True
            self._acknowledge_if_confirmed()

    def reject(self, requeue: bool = False) -> None:
        """With `requeue`, leaves the message to `hand_back`, so that another worker can take what has no reply."""
        if requeue:
            self.is_left = True
        else:
            _held.discard(self)
            super().reject()

    def revoked(self) -> bool:
        if self.id in state.revoked:
            self.refuse(Code.CANCELLED, "The request was cancelled.")
        return bool(super().revoked())

    def take_back(self) -> bool:
        """Whether it has not begun; then it never will, and is to be handed back."""
        with _changing:
            if self.begun or self.acknowledged:
                return False
            self.acknowledged = True
        state.task_ready(self)
        return True

    def unanswered_messages(self) -> list[dict[str, Any]]:
        """The arguments with which kombu publishes what has no reply, to the queue that it came from."""
        now = time.time()
        if self.bundled and self.begun:
            alone = again_alone(self.message, now)
            made = [alone[task_id] for task_id in self.bundled if task_id in self.unanswered]
        else:
            made = [again(self.message, now)]
        way = {name: self.message.delivery_info[name] for name in ("exchange", "routing_key")}
        marks = {RETURNED: 1} if was_delivered(self.message) else {}
        return [each | way | {"headers": each["headers"] | marks} for each in made]

    def _confirm(self, task_id: str) -> None:
        with _changing:
            self.unconfirmed.discard(task_id)
            if self.ended:
                self._acknowledge_if_confirmed()

    def _acknowledge_if_confirmed(self) -> None:
        if not self.unconfirmed:
            _held.discard(self)
            super().acknowledge()


def left() -> list[Request]:
    """The requests whose tasks have ended without all replies, because the worker stops."""
    return [each for each in _held if each.is_left and not each.unconfirmed]


def hand_back(requests: Iterable[Request], publisher: Publisher) -> None:
    """Publishes again what the requests have no reply to, so that other workers can take it, and acknowledges their
    messages. Their tasks do not run. Only the consumer's thread may call this, because it uses the channel."""
    # If the connection of a message is lost, the broker has the message back already.
    rest = [each for each in requests if each.message.channel.connection is not None]
    back: list[Request] = []
    try:
        while rest:
            publisher.publish([Publication(each) for each in rest[-1].unanswered_messages()])
            back.append(rest.pop())
    except BROKER_ERRORS as error:
        logger.warning("%d messages cannot be published again: %s", len(rest), error or type(error).__name__)
    for each in rest:
        each.message.reject_log_error(logger, each.connection_errors, requeue=True)
    _acknowledge_all(back)


def _acknowledge_all(requests: Collection[Request]) -> None:
    """Acknowledges the messages, in one go if this worker holds no others.

    RabbitMQ passes up to 32 acknowledgements at a time on to a quorum queue, and forgets the others when the channel
    closes before their turn (seen with 3.10): the messages would come back.
    """
    _held.difference_update(requests)
    here = {each.message.channel for each in requests}
    is_all = len(here) == 1 and not any(each.message.channel in here for each in _held)
    some = [max(requests, key=lambda each: each.message.delivery_tag)] if is_all else requests
    for each in some:
        each.message.ack_log_error(logger, each.connection_errors, multiple=is_all)
