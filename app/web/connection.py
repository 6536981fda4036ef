"""A client's connection to gunicorn, which slow clients cannot block."""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gunicorn.http.errors import NoMoreData
from typing_extensions import override

RECEIVE_TIMEOUT = 10.0  # seconds from the first byte of a request to the last of its body
SEND_TIMEOUT = 60.0  # seconds from the first byte of an answer to its last
STAY = 0.005  # seconds that a thread waits for the next request of a client that it has just answered


class TooSlow(NoMoreData, TimeoutError):
    """A request did not arrive in time. gunicorn treats its client as disconnected."""


class Connection(socket.socket):
    """A client's connection, on which each request must arrive, and each answer be read, within a timeout.

    gunicorn sets the socket's own timeout several times for each request. Here that only sets an attribute, because
    every system call hands the interpreter to another thread.
    """

    def __init__(
        self,
        client: socket.socket,
        receive_timeout: float = RECEIVE_TIMEOUT,
        send_timeout: float = SEND_TIMEOUT,
        stay: float = STAY,
    ) -> None:
        """Takes over the socket of `client`, which is detached. The timeouts are in seconds."""
        super().__init__(fileno=client.detach())
        super().setblocking(True)
        microseconds = struct.pack("ll", 0, int(stay * 1e6))
        self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, microseconds)  # for `next_bytes`
        self._receive_timeout, self._send_timeout = receive_timeout, send_timeout
        self._gunicorns_timeout: float | None = None
        self.begin()

    def begin(self) -> None:
        """Forgets the previous request: the next byte belongs to another one."""
        self.request: Any = None  # gunicorn's request, once its headers have arrived
        self._received_by: float | None = None
        self._sent_by: float | None = None
        self._held: bytes | None = None  # the answer's head
        self._heir: Callable[[socket.socket, bytes], None] | None = None

    @override
    def gettimeout(self) -> float | None:
        return self._gunicorns_timeout

    @override
    def settimeout(self, value: float | None, /) -> None:
        self._gunicorns_timeout = value

    @override
    def setblocking(self, flag: bool, /) -> None:
        self._gunicorns_timeout = None if flag else 0.0

    def next_bytes(self) -> bytes | None:
        """Waits for the next request. Returns its first bytes, b"" if the client has gone, or None if nothing arrives
        within `stay` seconds."""
        try:
            return super().recv(8192)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    @override
    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Raises TooSlow if the request has not arrived within the timeout."""
        now = time.monotonic()
        if self._gunicorns_timeout is not None:
            return self._receive(size, flags, now + self._gunicorns_timeout)
        self._received_by = self._received_by or now + self._receive_timeout
        try:
            if now >= self._received_by:
                raise TimeoutError
            return self._receive(size, flags, self._received_by)
        except TimeoutError as error:
            if self.request is not None:
                self.request.force_close()
            raise TooSlow from error

    def _receive(self, size: int, flags: int, until: float) -> bytes:
        while True:
            with suppress(BlockingIOError):
                return super().recv(size, flags | socket.MSG_DONTWAIT)
            self._wait(select.POLLIN, until)

    def answer(self, request: Any) -> None:
        """Notes gunicorn's request. What is sent next is the head of its answer, which leaves with what follows it, or
        with `flush`: one system call, and one packet, instead of two."""
        self.request, self._held = request, b""

    def bequeath(self, heir: Callable[[socket.socket, bytes], None]) -> None:
        """Has the client's socket given to `heir` when the answer's head is complete, together with that head, which
        is still to be sent. Then this connection is closed. Nothing of what gunicorn sends after the head is sent."""
        self.request.force_close()
        self._heir = heir

    def flush(self) -> None:
        """Sends the head of an answer without a body, or has the heir go on with it."""
        held, self._held = self._held, None
        if not held:
            return
        if self._heir is not None:
            self._heir(socket.socket(fileno=self.detach()), held)
        else:
            self.sendall(held)

    @override
    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """Raises BrokenPipeError if the client does not read its answer within the timeout."""
        if self._held == b"":
            self._held = bytes(data)
            return
        if self._heir is not None:
            return  # it is gunicorn's end of the body
        if self._held is not None:
            data, self._held = self._held + data, None
        now = time.monotonic()
        self._sent_by = self._sent_by or now + self._send_timeout
        until = self._sent_by if self._gunicorns_timeout is None else now + self._gunicorns_timeout
        try:
            self._send(memoryview(data), flags, until)
        except TimeoutError as error:
            raise BrokenPipeError(errno.EPIPE, "The client did not read its answer in time.") from error

    def _send(self, data: memoryview, flags: int, until: float) -> None:
        while True:
            with suppress(BlockingIOError):
                data = data[super().send(data, flags | socket.MSG_DONTWAIT) :]
            if not data:
                return
            self._wait(select.POLLOUT, until)

    def _wait(self, event: int, until: float) -> None:
        """Waits until bytes can be read or written. Raises TimeoutError at the time `until`."""
        poll = select.poll()
        poll.register(self, event)
        if not poll.poll(max(0.0, 1000 * (until - time.monotonic()))):
            raise TimeoutError
