"""Answers that go on for hours, as server-sent events: one thread of the process writes all of them, with a selector.

A thread of gunicorn makes the head of such an answer and gives its connection away (app.web.connection). A client that
reads slowly gets the latest state when it has read what was sent before, so nothing piles up for it.
"""

from __future__ import annotations

import logging
import resource
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector

from app.settings import MOST_CONNECTIONS, OTHER_FILES
from tasks.contract.errors import Code, TolkError

POLL = 0.5  # seconds between two looks for news
KEEP_ALIVE = 12.0  # seconds without an event after which a comment is sent, because proxies close what is silent
STALLED = 60.0  # seconds that a client may leave unread what was sent to it
LASTS = 3_600.0  # seconds after which a stream ends, so that its client authenticates itself again
OF_CALLER = 100  # streams of one caller in one process
BUFFER = 16_384  # bytes that the system holds for a client that does not read
MIMETYPE = "text/event-stream"
COMMENT = b":\n\n"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Events:
    """What is to be sent now, in the form of server-sent events, and whether the stream is over then."""

    data: bytes
    is_last: bool = False


@dataclass(eq=False, slots=True)
class Stream:
    """A client, and `news`, which returns what it has not been sent yet: no bytes if there is nothing. `ended` is
    called once, when nobody asks for news any more. `is_chunked` says how the head announced the body."""

    caller: str
    news: Callable[[], Events]
    ended: Callable[[], None]
    is_chunked: bool
    client: socket.socket = field(init=False)
    unsent: bytes = b""
    is_last: bool = False
    opened: float = field(default_factory=time.monotonic)
    sent: float = field(default_factory=time.monotonic)  # when the client last took something

    def put(self, events: Events) -> None:
        """Has these sent next, in the form that the head announced."""
        data = events.data
        if self.is_chunked and data:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self.is_last = events.is_last
        self.unsent += data + (b"0\r\n\r\n" if self.is_chunked and events.is_last else b"")

    def send(self) -> None:
        """Sends what the client takes now. Raises OSError if it has gone."""
        with suppress(BlockingIOError):
            self.unsent = self.unsent[self.client.send(self.unsent) :]
            self.sent = time.monotonic()


class Streams:
    """The streams of a process, `most` at a time. `refresh` is called every `poll` seconds while there are any, before
    they are asked for news. Its thread starts with the first one. Thread-safe."""

    def __init__(
        self,
        refresh: Callable[[], None],
        *,
        most: int,
        of_caller: int = OF_CALLER,
        poll: float = POLL,
        keep_alive: float = KEEP_ALIVE,
        stalled: float = STALLED,
        lasts: float = LASTS,
    ) -> None:
        self._refresh = refresh
        self._most, self._of_caller = most, of_caller
        self._poll, self._keep_alive, self._stalled, self._lasts = poll, keep_alive, stalled, lasts
        self._arrived: deque[Stream] = deque()
        self._streams: set[Stream] = set()
        self._callers: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_ending = False

    def admit(self, caller: str) -> None:
        """Counts a stream of a caller. Whoever is admitted calls `add`, or `leave` if it comes to nothing.

        Raises TolkError(OVERLOADED) if there are too many.
        """
        with self._lock:
            if self._is_ending:
                raise TolkError(Code.UNAVAILABLE, "The service is shutting down. Subscribe again in a moment.", 1.0)
            if self._callers[caller] >= self._of_caller:
                message = f"{self._of_caller} subscriptions of yours are open. End one of them first."
                raise TolkError(Code.OVERLOADED, message, 10.0)
            if self._callers.total() >= self._most:
                raise TolkError(Code.OVERLOADED, "Too many subscriptions are open. Ask for the job instead.", 10.0)
            self._callers[caller] += 1

    def leave(self, caller: str) -> None:
        """Takes back what `admit` has counted."""
        with self._lock:
            self._callers[caller] -= 1
            if not self._callers[caller]:
                del self._callers[caller]

    def add(self, stream: Stream, client: socket.socket, head: bytes) -> None:
        """Goes on with an answer whose head is still to be sent. `client` is closed at its end."""
        client.setblocking(False)
        with suppress(OSError):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        stream.client = client
        stream.unsent = head + stream.unsent
        with self._lock:
            if self._is_ending:
                client.close()
                return
            self._arrived.append(stream)
            if self._thread is None:
                self._wakes, self._awoken = socket.socketpair()
                self._thread = threading.Thread(target=self._run, name="streams", daemon=True)
                self._thread.start()
        self._wakes.send(b".")

    def end(self) -> None:
        """Has all streams end without their last event, so that clients connect again, to another process. Admits no
        more, and returns at once."""
        with self._lock:
            self._is_ending = True
            if self._thread is not None:
                self._wakes.send(b".")

    def close(self) -> None:
        """Returns when all streams have ended."""
        self.end()
        if self._thread is not None:
            self._thread.join(self._poll + 5.0)

    def _run(self) -> None:
        with DefaultSelector() as selector:
            selector.register(self._awoken, EVENT_READ)
            looks_at = 0.0
            while not self._is_ending:
                timeout = max(0.0, looks_at - time.monotonic()) if self._streams else None
                try:
                    self._dispatch(selector, timeout)
                    if time.monotonic() >= looks_at:
                        looks_at = time.monotonic() + self._poll
                        self._look(selector)
                except Exception:  # all listeners depend on this thread, so it must go on
                    logger.exception("the streams of events failed")
                    looks_at = time.monotonic() + self._poll
            for stream in [*self._streams, *self._arrived]:
                stream.put(Events(b"", is_last=True))
                with suppress(OSError):
                    stream.send()
                    stream.client.shutdown(socket.SHUT_WR)
                stream.client.close()

    def _dispatch(self, selector: DefaultSelector, timeout: float | None) -> None:
        """Waits for clients that can take more, that have gone, or that have come."""
        for key, ready in selector.select(timeout):
            if (stream := key.data) is None:
                self._awoken.recv(4096)
                while self._arrived:
                    self._begin(selector, self._arrived.popleft())
            elif ready & EVENT_READ and _has_gone(stream.client):
                self._end(selector, stream)
            elif ready & EVENT_WRITE:
                self._send(selector, stream)

    def _begin(self, selector: DefaultSelector, stream: Stream) -> None:
        self._streams.add(stream)
        selector.register(stream.client, EVENT_READ, stream)
        self._send(selector, stream)

    def _look(self, selector: DefaultSelector) -> None:
        """Sends everybody the news."""
        try:
            self._refresh()
        except TolkError as error:  # clients need to know no more than that they are connected
            logger.warning("subscribers have to wait: %s", error.message)
        now = time.monotonic()
        for stream in list(self._streams):
            if stream.unsent:
                if now - stream.sent > self._stalled:
                    self._end(selector, stream)
                continue
            if now - stream.opened > self._lasts:
                stream.put(Events(b"", is_last=True))
            else:
                stream.put(self._news(stream))
            if not stream.unsent and not stream.is_last and now - stream.sent > self._keep_alive:
                stream.put(Events(COMMENT))
            if stream.unsent or stream.is_last:
                self._send(selector, stream)

    def _news(self, stream: Stream) -> Events:
        try:
            return stream.news()
        except Exception:  # the others have nothing to do with it
            logger.exception("a subscription failed")
            return Events(b"", is_last=True)

    def _send(self, selector: DefaultSelector, stream: Stream) -> None:
        try:
            stream.send()
        except OSError:
            self._end(selector, stream)
            return
        if not stream.unsent and stream.is_last:
            self._end(selector, stream)
            return
        wanted = EVENT_READ | (EVENT_WRITE if stream.unsent else 0)
        if selector.get_key(stream.client).events != wanted:
            selector.modify(stream.client, wanted, stream)

    def _end(self, selector: DefaultSelector, stream: Stream) -> None:
        selector.unregister(stream.client)
        self._streams.remove(stream)
        with suppress(OSError):
            stream.client.shutdown(socket.SHUT_WR)
        stream.client.close()
        stream.ended()
        self.leave(stream.caller)


def room(wanted: int) -> int:
    """How many of the `wanted` streams a process has files for, besides all that it needs otherwise."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if files < 0 else max(0, min(wanted, files - MOST_CONNECTIONS - OTHER_FILES))


def _has_gone(client: socket.socket) -> bool:
    """Whether a client has closed its half of the connection. What else it sends is dropped."""
    try:
        return not client.recv(4096)
    except BlockingIOError:
        return False
    except OSError:
        return True
