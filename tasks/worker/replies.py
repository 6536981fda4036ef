"""Sends replies in a thread of its own, so that nobody else waits for the broker's confirms."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from celery.states import SUCCESS
from celery.utils.log import get_logger

from tasks.contract.bundle import REPLIES_BYTES, TAKES_MANY, encode_replies
from tasks.contract.names import JOB_RESULTS
from tasks.contract.reply import TranslateReply
from tasks.queues.errors import BROKER_ERRORS
from tasks.worker.publisher import CONFIRM_TIMEOUT, Publication, Publisher

ATTEMPTS = 20  # tries to send replies before they are given up
PAUSE = 1.0  # seconds between two tries
TRANSIENT, PERSISTENT = 1, 2  # the delivery modes of messages that the broker may lose, or has to write to its disk

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply to the request `task_id`, for whoever reads `queue`; `body` is what it reads.

    `several`: whether it reads several replies in one message. `confirmed` is called, in the publishing
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
        body = {"task_id": task_id, "status": SUCCESS, "result": reply.fitting().encode()}
        several = bool(message.headers.get(TAKES_MANY))
        return cls(message.properties["reply_to"], task_id, body, several, confirmed)


class Replies:
    """Sends replies. While some are on their way to the broker, others gather; those for the same queue then go
    together."""

    def __init__(self, app: Any, pause: float = PAUSE) -> None:
        self._pause = pause
        self._waiting: SimpleQueue[Reply | None] = SimpleQueue()  # None is the last
        self._closing = threading.Event()
        self._publisher = Publisher(app)
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
        self._publisher.close()

    def _deliver(self, publications: Sequence[Publication]) -> None:
        for attempt in range(ATTEMPTS):
            if attempt > 1 and self._closing.wait(self._pause):  # at first, an idle connection may have been lost
                break
            try:
                self._publisher.publish(publications)
                return
            except BROKER_ERRORS as error:
                logger.warning("replies cannot be sent yet: %s", error or type(error).__name__)
        lost = sum(not each.is_confirmed for each in publications)
        logger.error("%d messages with replies cannot be sent; those with their requests stay unacknowledged", lost)


def messages(replies: Sequence[Reply]) -> Iterator[Publication]:
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


def _packed(replies: Sequence[Reply]) -> Iterator[Publication]:
    first, several = replies[0], len(replies) > 1
    body = json.dumps(encode_replies([reply.body for reply in replies]) if several else first.body)
    if several and len(body) > REPLIES_BYTES:
        half = len(replies) // 2
        yield from _packed(replies[:half])
        yield from _packed(replies[half:])
        return

    def confirm() -> None:
        for reply in replies:
            reply.confirmed()

    way: dict[str, Any] = {"routing_key": first.queue, "correlation_id": first.task_id, "delivery_mode": TRANSIENT}
    if first.queue == JOB_RESULTS:
        # Nobody waits for it now, so it has to outlast the broker, and somebody should hear if there is no such queue.
        way |= {"delivery_mode": PERSISTENT, "mandatory": True}
    yield Publication({"body": body, "content_type": "application/json", "content_encoding": "utf-8", **way}, confirm)
