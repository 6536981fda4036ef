"""How a worker hands a message back: it publishes it again, and then acknowledges it.

Whatever way a message goes back to a quorum queue - rejected, or left behind when its channel closes - RabbitMQ counts
it, and a message has three deliveries (measured on 3.10). A worker that is told to stop must not use them up.
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

CONFIRM_TIMEOUT = 5.0  # seconds until the broker has confirmed what is published again

logger = get_logger(__name__)

_beginning = threading.Lock()


class HandedBack(Exception):
    """The pool came to a request that had been handed back before it was begun."""


class Request(CeleryRequest):
    """A message between the consumer, in whose thread it is handed back, and the thread of the pool that begins it."""

    app: Any  # missing in celery-types, as are these
    message: Any
    connection_errors: tuple[type[Exception], ...]
    acknowledged: bool
    begun = False

    @override
    def info(self, safe: bool = False) -> Any:
        """What monitors such as Flower are shown of it: how its arguments are described, never people's texts."""
        return super().info(safe=True)

    def on_accepted(self, pid: str, time_accepted: float) -> None:
        with _beginning:
            if self.acknowledged:
                raise HandedBack
            self.begun = True
        # Until the end of the task, whose context goes then (tasks.worker.thread).
        logs.request_id.set(self.id.partition(".")[0] or None)
        super().on_accepted(pid, time_accepted)

    def reject(self, requeue: bool = False) -> None:
        if requeue and not self.acknowledged and publish_again(self.app, self.message):
            self.acknowledge()
        else:
            super().reject(requeue)

    def hand_back(self) -> None:
        """Hands it back unless it is begun. For the consumer's thread, the only one that may use the channel."""
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
    """Whether the broker has the message once more, as a new one, where it came from."""
    if message.channel.connection is None:  # lost, and the broker has it back already
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
