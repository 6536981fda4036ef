"""Gathers requests into messages: while one message for a queue is on its way to the broker, further requests for that
queue wait, and go together in the next one.

Nobody waits for company: a request that finds no message on its way leads, that is, its thread publishes at once. When
the message is published, or the thread gives up, the first of those who wait leads. All others sleep until their own
reply comes.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty

from app.broker.connections import backoff, reason
from app.broker.messages import FRAME, SEPARATOR
from app.broker.pending import PendingRequest
from tasks.contract.bundle import BUNDLE_BYTES, BUNDLE_REQUESTS, Bundled
from tasks.contract.request import TranslateRequest
from tasks.queues.errors import BROKER_ERRORS

GATE_TIMEOUT = 1.0  # seconds between two checks whether the leader still waits for its reply
HURRY = 0.5  # seconds: a leader with less time left sends its request alone, because it gives up so soon
LEAD = object()  # tells a request that it leads

logger = logging.getLogger(__name__)


class Full(Exception):
    """The queue holds as many messages as it may."""


@dataclass(slots=True, eq=False)
class Outgoing:
    """A request on its way to a queue.

    `published` and `confirmed` are when its message was sent, and confirmed by the broker, in Unix seconds; 0 until
    then. `left` says that its thread no longer waits.
    """

    pending: PendingRequest
    bundled: Bundled
    published: float = 0.0
    confirmed: float = 0.0
    left: bool = False
    _encoded: str = ""

    @property
    def request(self) -> TranslateRequest:
        return self.bundled.request

    @property
    def remaining(self) -> float:
        """Seconds until the request's deadline."""
        return max(0.0, self.request.deadline - time.time())

    @property
    def unsent(self) -> bool:
        """Whether it is still to be sent."""
        return not self.confirmed and not self.left and self.pending.inbox.empty()

    def encoded(self) -> str:
        """Its part of a bundle, in JSON."""
        self._encoded = self._encoded or json.dumps(self.bundled.encode())
        return self._encoded

    def receive(self) -> object:
        """What comes next to the request's inbox. An error is raised. Raises queue.Empty at the deadline."""
        event = self.pending.inbox.get(timeout=self.remaining)
        if isinstance(event, Exception):
            raise event
        return event

    def pause(self, seconds: float) -> None:
        """Waits, but not after something has come to the request's inbox."""
        inbox = self.pending.inbox
        with suppress(Empty):
            inbox.put(inbox.get(timeout=min(seconds, self.remaining)))


class Gathering:
    """Publishes the requests for one queue, one message at a time. Thread-safe.

    `send` publishes one message with all the requests that it is given, and returns when the broker has confirmed it.
    It raises Full, or one of BROKER_ERRORS; `pause` is how many seconds to wait after that many failures in a row.
    `ready` is set while replies can arrive; nothing is sent before. `waiting` are the requests that neither lead nor
    are in the message on its way, in order.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Outgoing]], None],
        ready: threading.Event,
        pause: Callable[[int], float] = backoff,
    ) -> None:
        self._send = send
        self._ready = ready
        self._pause = pause
        self._lock = threading.Lock()
        self._leader: Outgoing | None = None
        self.waiting: list[Outgoing] = []

    def exchange(self, item: Outgoing) -> object:
        """Has the request published, and returns the body of its reply.

        A message that is not confirmed is sent again with those of its requests that still wait. The broker may then
        have them twice, but translating twice does no harm. Raises Full, the error that ended the request, and
        queue.Empty at its deadline.
        """
        try:
            if self._enter(item):
                self._lead(item)
            else:
                item.encoded()  # while the message before it is on its way
            while (event := item.receive()) is LEAD:
                self._lead(item)
            return event
        finally:
            self._leave(item)

    def _enter(self, item: Outgoing) -> bool:
        """Whether the request leads, because no other does. If not, it waits."""
        with self._lock:
            if self._leader is None:
                self._leader = item
            else:
                self.waiting.append(item)
            return self._leader is item

    def _lead(self, item: Outgoing) -> None:
        """Publishes the request with those that wait, until that succeeds or nobody waits for its reply any more."""
        failures = 0
        while item.unsent and (remaining := item.remaining):
            if not self._ready.wait(min(remaining, GATE_TIMEOUT)):
                continue
            items = self._take(item)
            try:
                self._send(items)
            except Full:
                for each in items:
                    each.pending.inbox.put(Full())
            except BROKER_ERRORS as error:
                said = "could not publish task %s and %d others: %s"
                logger.warning(said, item.bundled.task_id, len(items) - 1, reason(error))
                failures += 1
            else:
                for each in items:
                    each.confirmed = time.time()
            finally:
                self._put_back(items[1:])
            if item.unsent:
                item.pause(self._pause(failures))
        self._pass_on(item)

    def _take(self, leader: Outgoing) -> list[Outgoing]:
        """The requests of the next message: the leader's, and of those that wait the ones that may travel with it."""
        with self._lock:
            waiting = [each for each in self.waiting if each.unsent and each.request.version == leader.request.version]
        if not waiting or leader.remaining < HURRY:
            return [leader]
        items, size = [leader], FRAME + len(leader.encoded())
        for each in waiting:
            larger = size + len(SEPARATOR) + len(each.encoded())
            if len(items) < BUNDLE_REQUESTS and larger <= BUNDLE_BYTES:
                items.append(each)
                size = larger
        with self._lock:
            self.waiting = [each for each in self.waiting if each not in items]
        return items

    def _put_back(self, items: Sequence[Outgoing]) -> None:
        """Has those of the requests wait that are still to be sent, before all others."""
        with self._lock:
            self.waiting[:0] = [each for each in items if each.unsent]

    def _pass_on(self, item: Outgoing) -> None:
        """If the request leads, lets the first of those that wait lead instead."""
        with self._lock:
            if self._leader is not item:
                return
            self._leader = next((each for each in self.waiting if each.unsent), None)
            if self._leader is None:
                return
            self.waiting.remove(self._leader)
            inbox = self._leader.pending.inbox
        inbox.put(LEAD)  # outside of the lock, because it wakes a thread

    def _leave(self, item: Outgoing) -> None:
        with self._lock:
            item.left = True
            if item in self.waiting:
                self.waiting.remove(item)
        self._pass_on(item)
