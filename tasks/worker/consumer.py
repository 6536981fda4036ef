"""The consumer of a worker: Celery's, changed so that it loses no message and logs no texts of messages."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from celery import bootsteps
from celery.platforms import EX_FAILURE
from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.consumer import Consumer as CeleryConsumer

from tasks.contract.bundle import named
from tasks.contract.delivery import defect, returned
from tasks.contract.errors import Code
from tasks.contract.reply import Failure, TranslateReply
from tasks.queues.errors import BROKER_ERRORS
from tasks.queues.topology import dead_letter_queue
from tasks.worker.publisher import Publication, Publisher
from tasks.worker.replies import Reply
from tasks.worker.request import hand_back

EVENTS_PERIOD = 0.1  # seconds between two messages with events for monitors
EVENTS_LIMIT = 1_000  # the largest number of events in one message

logger = get_logger(__name__)


class Consumer(CeleryConsumer):
    """Celery's consumer without the 28 quorum queues that it declares for tasks with an ETA; Tolk has none."""

    app: Any  # this attribute and the next ones are missing in celery-types
    hostname: str
    connection_errors: tuple[type[Exception], ...]
    event_dispatcher: Any

    class Blueprint(CeleryConsumer.Blueprint):  # type: ignore[misc, valid-type]  # celery-types declares a variable
        default_steps = set(CeleryConsumer.Blueprint.default_steps) - {
            "celery.worker.consumer.delayed_delivery:DelayedDelivery"
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.publisher = Publisher(self.app)

    def ensure_connected(self, conn: Any) -> Any:
        """Tries to connect once a second. Celery waits longer each time, up to half a minute."""
        conn.ensure_connection = partial(conn.ensure_connection, interval_start=1, interval_step=0, interval_max=1)
        return super().ensure_connected(conn)

    def connection_for_write(self, url: str | None = None, heartbeat: float | None = None) -> Any:
        """The connection for events, without publisher confirms: all threads publish on it, and none may wait."""
        unconfirmed = {"confirm_publish": False}
        return self.ensure_connected(
            self.app.connection_for_write(url=url, heartbeat=heartbeat, transport_options=unconfirmed)
        )

    def create_task_handler(self, *args: Any) -> Callable[[Any], None]:
        take: Callable[[Any], None] = super().create_task_handler(*args)

        def receive(message: Any) -> None:
            if (reason := defect(message)) is not None:
                self.put_aside(message, reason)
                return
            if parts := returned(message, time.time()):
                self.take_apart(message, parts)
                return
            try:
                take(message)
            except self.connection_errors:
                raise
            except Exception as error:  # noqa: BLE001 - Celery may fail on any header; that would end the worker
                state.requests.pop(message.headers["id"], None)
                self.put_aside(message, f"Celery cannot take it ({type(error).__name__})")

        return receive

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        self.put_aside(message, defect(message) or f"it cannot be read ({type(exc).__name__})")

    def on_invalid_task(self, _body: Any, message: Any, exc: Exception) -> None:
        self.put_aside(message, f"Celery cannot take it ({type(exc).__name__})")

    def take_apart(self, message: Any, parts: list[dict[str, Any]]) -> None:
        """Publishes a message again in parts, and acknowledges it before this worker can receive any of them.

        Otherwise a part could end this process before that: the message would come back once more, with that part.
        """
        logger.warning("a message of %s that came back is taken apart", message.delivery_info["routing_key"])
        try:
            self.publisher.publish([Publication(part) for part in parts])
            message.ack_log_error(logger, self.connection_errors)
        except BROKER_ERRORS as error:
            logger.warning("a message cannot be published again: %s", error or type(error).__name__)
            message.reject_log_error(logger, self.connection_errors, requeue=True)

    def put_aside(self, message: Any, reason: str) -> None:
        """Dead-letters a message that no worker can take, and sends the web tier a reply with an error.

        Celery would acknowledge some of these messages, and would log the bodies of all. A bundle does not become a
        dead letter, because each of its requests is answered.
        """
        queue = message.delivery_info.get("routing_key")
        bundled = _bundled(message)
        if bundled:
            logger.error("a bundle of %d requests of %s is refused: %s", len(bundled), queue, reason)
            message.ack_log_error(logger, self.connection_errors)
        else:
            logger.error("a message of %s becomes a dead letter: %s", queue, reason)
            message.reject_log_error(logger, self.connection_errors)
        failure = Failure(Code.INTERNAL, "No worker can read the request. The worker's log says why.")
        reply = TranslateReply(model="", worker=self.hostname, error=failure)
        for task_id in bundled or [message.properties.get("correlation_id")]:
            if message.properties.get("reply_to") and task_id:
                self.app.replies.send(Reply.to(message, task_id, reply))

    def register_with_event_loop(self, hub: Any) -> None:
        super().register_with_event_loop(hub)
        self.event_dispatcher.buffer_limit = EVENTS_LIMIT
        hub.call_repeatedly(EVENTS_PERIOD, self.event_dispatcher.flush)

    def on_send_event_buffered(self) -> Any:
        """Does nothing, so that a task's events wait for the next flush. Celery would send two before the reply."""

    def stop(self) -> None:
        if self.event_dispatcher is not None:  # None until the first connection
            self.event_dispatcher.flush()
        held = list(state.requests.values())  # super().stop() forgets the requests that have not begun
        super().stop()
        unbegun = [each for each in {*held, *state.requests.values()} if each.take_back()]
        hand_back(unbegun, self.publisher)  # so that another worker can take them now
        self.publisher.close()

    def cancel_active_requests(self) -> None:
        """Cancels all requests in flight, for a cold shutdown. Celery's own method cannot stop threads and fails."""
        state.should_terminate = EX_FAILURE  # type: ignore[assignment]  # declared as None
        self.app.models.memory.close()


def _bundled(message: Any) -> dict[str, Any]:
    """The requests of a bundle that no worker can take, as far as they can be read; empty for any other message."""
    with suppress(Exception):  # a body can cause kombu's DecodeError, a RecursionError, and others
        match message.payload:
            case [[list() as bundle], *_]:
                return dict(named(bundle))
    return {}


class DeclareDeadLetters(bootsteps.StartStopStep):
    """Declares the dead-letter queue after each connection: the broker may be a new one without it."""

    requires = ("celery.worker.consumer:Connection",)

    def start(self, consumer: Any) -> None:
        dead_letter_queue()(consumer.connection.default_channel).declare()
