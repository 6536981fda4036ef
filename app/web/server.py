"""A gunicorn worker whose threads slow clients cannot block, and a filter that keeps clients' texts out of gunicorn's
log.

In gunicorn's own thread worker, a thread waits for the first byte of every connection, for the rest of the request, and
until the client has read the answer, however long each takes. And after the worker has closed its half of a connection,
it waits two seconds for the client to close the other half, on the thread that accepts all connections.

The overridden methods are internal to gunicorn. Therefore setup.cfg allows only the minor version that this module was
written for, and tests/app/web/test_gunicorn.py fails if one of the methods has changed.
"""

from __future__ import annotations

import errno
import logging
import socket
import time
from collections import deque
from functools import partial
from selectors import EVENT_READ
from typing import Any

from gunicorn.http.errors import NoMoreData
from gunicorn.workers.gthread import TConn, ThreadWorker
from typing_extensions import override

RECEIVE_TIMEOUT = 10.0  # seconds from the first byte of a request to the last of its body
SEND_TIMEOUT = 60.0  # seconds from the first byte of an answer to its last
LINGER_TIMEOUT = 2.0  # seconds that a client has to close its half of a connection after we closed ours


class TooSlow(NoMoreData, TimeoutError):
    """A request did not arrive in time. gunicorn treats its client as disconnected."""


class Connection(socket.socket):
    """A client's connection, on which each request must arrive, and each answer be read, within a timeout."""

    def __init__(
        self, client: socket.socket, receive_timeout: float = RECEIVE_TIMEOUT, send_timeout: float = SEND_TIMEOUT
    ) -> None:
        """Takes over the socket of `client`, which is detached. Both timeouts are in seconds."""
        super().__init__(fileno=client.detach())
        self._receive_timeout, self._send_timeout = receive_timeout, send_timeout
        self.begin()

    def begin(self) -> None:
        """Forgets the previous request: the next byte belongs to another one."""
        self.request: Any = None  # gunicorn's request, once its headers have arrived
        self._received_by: float | None = None
        self._sent_by: float | None = None

    @override
    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Raises TooSlow if the request has not arrived within the timeout."""
        if self.gettimeout() is not None:  # gunicorn has set a timeout of its own
            return super().recv(size, flags)
        now = time.monotonic()
        self._received_by = self._received_by or now + self._receive_timeout
        try:
            if now >= self._received_by:
                raise TimeoutError
            self.settimeout(self._received_by - now)
            return super().recv(size, flags)
        except TimeoutError as error:
            if self.request is not None:
                self.request.force_close()
            raise TooSlow from error
        finally:
            self.settimeout(None)

    @override
    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """Raises BrokenPipeError if the client does not read its answer within the timeout."""
        if self.gettimeout() is not None:
            return super().sendall(data, flags)
        now = time.monotonic()
        self._sent_by = self._sent_by or now + self._send_timeout
        try:
            self.settimeout(max(self._sent_by - now, 0.001))
            return super().sendall(data, flags)  # the timeout is for all of the data together
        except TimeoutError as error:
            raise BrokenPipeError(errno.EPIPE, "The client did not read its answer in time.") from error
        finally:
            self.settimeout(None)


class Worker(ThreadWorker):
    """gunicorn's thread worker, with such connections. A connection gets a thread only when data has arrived, and is
    closed without one. If gunicorn itself terminates TLS, the connections stay gunicorn's own."""

    receive_timeout = RECEIVE_TIMEOUT
    send_timeout = SEND_TIMEOUT

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lingering: deque[TConn] = deque()

    @override
    def init_process(self) -> None:
        self.log.error_log.addFilter(conceal)
        if not self.log.access_log.hasHandlers():
            self.log.access = lambda *_: None  # or gunicorn would format a line for every request
        super().init_process()

    @override
    def accept(self, listener: socket.socket) -> None:
        if self.cfg.is_ssl:
            super().accept(listener)
            return
        try:
            client, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        connection = Connection(client, self.receive_timeout, self.send_timeout)
        conn = TConn(self.cfg, connection, address, listener.getsockname())
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + self.cfg.keepalive
        self.nr_conns += 1
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, EVENT_READ, partial(self.on_pending_socket_readable, conn))

    @override
    def handle(self, conn: TConn) -> Any:
        if isinstance(conn.sock, Connection):
            conn.sock.begin()
        return super().handle(conn)

    @override
    def handle_request(self, req: Any, conn: TConn) -> Any:
        conn.sock.request = req
        return super().handle_request(req, conn)

    @override
    def finish_request(self, conn: TConn, fs: Any) -> None:
        if isinstance(conn.sock, Connection) and (fs.cancelled() or fs.exception() or not fs.result()):
            self.linger(conn)
        else:
            super().finish_request(conn, fs)

    def linger(self, conn: TConn) -> None:
        """Shuts down our half of a connection, because its client may still be reading the answer. The connection is
        closed once the client has closed the other half, or after LINGER_TIMEOUT."""
        try:
            conn.sock.setblocking(False)
            conn.sock.shutdown(socket.SHUT_WR)
            self.poller.register(conn.sock, EVENT_READ, partial(self.on_lingering_socket_readable, conn))
        except (OSError, ValueError):  # the connection is lost already
            self.nr_conns -= 1
            conn.close()
        else:
            conn.timeout = time.monotonic() + LINGER_TIMEOUT
            self.lingering.append(conn)

    def on_lingering_socket_readable(self, conn: TConn, client: socket.socket) -> None:
        try:
            over = not client.recv(65_536)
        except OSError:
            over = True
        if over:
            self.lingering.remove(conn)
            self.leave(conn)

    def leave(self, conn: TConn) -> None:
        """Closes a connection that lingered."""
        self.poller.unregister(conn.sock)
        self.nr_conns -= 1
        conn.close()

    @override
    def murder_pending(self) -> None:
        """Closes connections whose timeout has passed. gunicorn calls it once a second, and at every event."""
        super().murder_pending()
        while self.lingering and self.lingering[0].timeout <= time.monotonic():
            self.leave(self.lingering.popleft())


def conceal(record: logging.LogRecord) -> bool:
    """A logging filter that removes from gunicorn's messages what a client sent, because that may be a text."""
    if str(record.msg).startswith("Invalid request from ip="):
        record.msg = record.msg.partition(": ")[0]
    elif record.msg == "Error handling request %s %s" and isinstance(record.args, tuple):
        method, uri = record.args
        record.args = (method, str(uri).partition("?")[0])
    return True
