"""What listens for replies: one queue and one thread per process, and one Future for each request in flight."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from uuid import uuid4

from kombu import Connection, Consumer, Message, Queue

from app import survey
from app.connections import BROKER_ERRORS, CONNECT_TIMEOUT, backoff, connect, reason
from app.status import RecentErrors
from tasks.contract import Code, TolkError

HEARTBEAT = 10  # seconds; a connection that was silent for two of them is lost
REPLY_QUEUE_EXPIRES = 120.0  # seconds a reply queue outlives its process or a lost connection; no request lives so long

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
            self.fail(request_id, closing())
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
            self.fail(request_id, closing())
        self.thread.join()

    def _run(self) -> None:
        failures = 0
        while not self._closing.is_set():
            try:
                with self._connection.clone() as connection:
                    connect(connection, CONNECT_TIMEOUT)
                    self._consume(connection)
            except BROKER_ERRORS as error:
                logger.warning("replies: %s", reason(error))
            except Exception:  # every request depends on this thread: whatever it meets, it goes on
                logger.exception("replies")
            failures = 1 if self.ready.is_set() else failures + 1
            self.ready.clear()
            self._closing.wait(backoff(failures))

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


def closing() -> TolkError:
    return TolkError(Code.UNAVAILABLE, "The service is shutting down. Try again in a moment.", 1.0)
