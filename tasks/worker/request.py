"""Hands messages back to the broker: a worker publishes a message again, and then acknowledges it.

RabbitMQ counts every other return of a message to a quorum queue as a failed delivery, whether the message is rejected
or its channel closes (measured on 3.10), and a message has only three deliveries. A worker that is told to stop must
not use them up.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.request import Request as CeleryRequest
from typing_extensions import override

from tasks.contract.delivery import again
from tasks.queues.errors import BROKER_ERRORS
from telemetry import logs

CONFIRM_TIMEOUT = 5.0  # seconds to wait for the broker's confirm of a message that is published again

logger = get_logger(__name__)

_beginning = threading.Lock()


class HandedBack(Exception):
    """The thread pool began a request that had already been handed back."""


class Request(CeleryRequest):
    """A request that the consumer's thread may hand back until a thread of the pool begins it."""

    app: Any  # this attribute and the next ones are missing in celery-types
    message: Any
    connection_errors: tuple[type[Exception], ...]
    acknowledged: bool
    begun = False

    @override
    def info(self, safe: bool = False) -> Any:
        """What monitors such as Flower see of the request: a description of its arguments, never people's texts."""
        return super().info(safe=True)

    def on_accepted(self, pid: str, time_accepted: float) -> None:
        with _beginning:
            if self.acknowledged:
                raise HandedBack
            self.begun = True
        # It holds until the end of the task, when its context is discarded (tasks.worker.thread).
        logs.request_id.set(self.id.partition(".")[0] or None)
        super().on_accepted(pid, time_accepted)

    def reject(self, requeue: bool = False) -> None:
        if requeue and not self.acknowledged and publish_again(self.app, self.message):
            self.acknowledge()
        else:
            super().reject(requeue)

    def hand_back(self) -> None:
        """Hands the request back unless it has begun. Only the consumer's thread may call this and use the channel."""
        with _beginning:
            if self.begun or self.acknowledged:
                return
            self.acknowledged = True
        state.task_ready(self)
        if publish_again(self.app, self.message):
            self.message.ack_log_error(logger, self.connection_errors)
        else:
            self.message.reject_log_error(logger, self.connection_errors, requeue=True)


def publish_again(app: Any, message: Any) -> bool:
    """Publishes a message again, as a new one, to the queue that it came from. Whether the broker has confirmed it."""
    if message.channel.connection is None:  # the connection is lost, so the broker has the message back already
        return False
    origin = {name: message.delivery_info[name] for name in ("exchange", "routing_key")}
    try:
        with app.amqp.producer_pool.acquire(block=True) as producer:
            patience = {"timeout": CONFIRM_TIMEOUT, "confirm_timeout": CONFIRM_TIMEOUT}
            producer.publish(**origin, **again(message, time.time()), **patience)
    except BROKER_ERRORS as error:
        logger.warning("a message cannot be published again: %s", error or type(error).__name__)
        return False
    return True
