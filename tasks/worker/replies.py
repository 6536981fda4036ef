"""Sends replies to the web tier, in a thread of its own, so that nobody else waits for the broker's confirms."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from amqp.exceptions import MessageNacked
from celery.states import SUCCESS
from celery.utils.log import get_logger
from kombu import Connection, Producer

from tasks.contract.bundle import REPLIES_BYTES, TAKES_MANY, encode_replies
from tasks.contract.reply import TranslateReply
from tasks.queues.errors import BROKER_ERRORS

ATTEMPTS = 20  # tries to send replies before they are given up
PAUSE = 1.0  # seconds between two tries
CONFIRM_TIMEOUT = 5.0  # seconds to wait for the broker's confirms of the messages that were sent together
TRANSIENT = 1  # the delivery mode of messages that the broker need not write to its disk

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply to the request `task_id`, for the web process that reads `queue`; `body` is what it reads.

    `several`: whether that process reads several replies in one message. `confirmed` is called, in the publishing
    thread, when the broker has the reply.
    """

    queue: str
    task_id: str
    body: dict[str, Any]
    several: bool
    confirmed: Callable[[], object]

    @classmethod
    def to(
        cls, message: Any, task_id: str, reply: TranslateReply, confirmed: Callable[[], object] = lambda: None
    ) -> Reply:
        """The reply to a request in `message`, a kombu Message."""
        body = {"task_id": task_id, "status": SUCCESS, "result": reply.encode()}
        several = bool(message.headers.get(TAKES_MANY))
        return cls(message.properties["reply_to"], task_id, body, several, confirmed)


@dataclass(slots=True)
class Outgoing:
    """A message with one reply or several, which are `confirmed` when the broker has it."""

    body: str
    replies: Sequence[Reply]
    confirmed: bool = False


class Replies:
    """Sends replies. While some are on their way to the broker, others gather; those for the same queue then go
    together."""

    def __init__(self, app: Any, pause: float = PAUSE) -> None:
        self._app, self._pause = app, pause
        self._waiting: SimpleQueue[Reply | None] = SimpleQueue()  # None is the last
        self._closing = threading.Event()
        self._connection: Connection | None = None
        self._producer: Producer
        self._sent = 0  # messages on this connection; the broker counts them, too
        self._unconfirmed: dict[int, Outgoing] = {}
        self._thread = threading.Thread(target=self._run, name="replies", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def send(self, reply: Reply) -> None:
        """Returns at once. A reply that cannot be sent is never confirmed."""
        self._waiting.put(reply)

    def close(self, timeout: float = CONFIRM_TIMEOUT) -> None:
        """Sends the replies that wait, for `timeout` seconds at most."""
        self._closing.set()
        self._waiting.put(None)
        self._thread.join(timeout)

    def _run(self) -> None:
        is_open = True
        while is_open:
            gathered = [self._waiting.get()]
            with suppress(Empty):
                while True:
                    gathered.append(self._waiting.get_nowait())
            is_open = None not in gathered
            try:
                self._deliver(list(messages([reply for reply in gathered if reply is not None])))
            except Exception:  # all requests depend on this thread, so it must go on
                logger.exception("replies cannot be sent")
        self._disconnect()

    def _deliver(self, outgoing: Sequence[Outgoing]) -> None:
        for attempt in range(ATTEMPTS):
            if attempt > 1 and self._closing.wait(self._pause):  # at first, an idle connection may have been lost
                break
            try:
                self._publish([each for each in outgoing if not each.confirmed])
                return
            except BROKER_ERRORS as error:
                logger.warning("replies cannot be sent yet: %s", error or type(error).__name__)
                self._disconnect()
        lost = sum(len(each.replies) for each in outgoing if not each.confirmed)
        logger.error("%d replies cannot be sent; their messages stay unacknowledged", lost)

    def _publish(self, outgoing: Sequence[Outgoing]) -> None:
        """Returns when the broker has confirmed all. Raises BROKER_ERRORS."""
        if outgoing and self._connection is None:
            self._connect()
        for each in outgoing:
            self._sent += 1
            self._unconfirmed[self._sent] = each
            self._producer.publish(
                each.body,
                routing_key=each.replies[0].queue,
                correlation_id=each.replies[0].task_id,
                content_type="application/json",
                content_encoding="utf-8",
                delivery_mode=TRANSIENT,
                timeout=CONFIRM_TIMEOUT,
            )
        until = time.monotonic() + CONFIRM_TIMEOUT
        while self._unconfirmed and self._connection is not None:
            self._connection.drain_events(timeout=max(0.001, until - time.monotonic()))

    def _connect(self) -> None:
        # kombu's own way to publish with confirms waits for each message's confirm before it sends the next one.
        connection = self._app.connection_for_write(transport_options={"confirm_publish": False})
        channel = connection.default_channel
        channel.confirm_select()
        channel.events["basic_ack"].add(self._confirm)
        channel.events["basic_nack"].add(_refuse)
        self._connection, self._producer, self._sent = connection, Producer(channel), 0

    def _disconnect(self) -> None:
        self._unconfirmed.clear()
        if self._connection is not None:
            self._connection.collect()
            self._connection = None

    def _confirm(self, number: int, multiple: bool) -> None:
        for each in [sent for sent in self._unconfirmed if sent <= number] if multiple else [number]:
            outgoing = self._unconfirmed.pop(each)
            outgoing.confirmed = True
            for reply in outgoing.replies:
                reply.confirmed()


def messages(replies: Sequence[Reply]) -> Iterator[Outgoing]:
    """The messages that carry the replies: one for each queue, or several if it would be too large. A web process of
    an earlier release gets each reply in a message of its own."""
    together: dict[str, list[Reply]] = {}
    for reply in replies:
        if reply.several:
            together.setdefault(reply.queue, []).append(reply)
        else:
            yield from _packed([reply])
    for some in together.values():
        yield from _packed(some)


def _packed(replies: Sequence[Reply]) -> Iterator[Outgoing]:
    several = len(replies) > 1
    body = json.dumps(encode_replies([reply.body for reply in replies]) if several else replies[0].body)
    if several and len(body) > REPLIES_BYTES:
        half = len(replies) // 2
        yield from _packed(replies[:half])
        yield from _packed(replies[half:])
    else:
        yield Outgoing(body, replies)


def _refuse(*_: object) -> None:
    raise MessageNacked
