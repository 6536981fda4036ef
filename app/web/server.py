"""A gunicorn worker whose threads slow clients cannot block, and a filter that keeps clients' texts out of gunicorn's
log.

In gunicorn's own thread worker, a thread waits for the first byte of every connection, for the rest of the request, and
until the client has read the answer, however long each takes. And after the worker has closed its half of a connection,
it waits two seconds for the client to close the other half, on the thread that accepts all connections. It also hands
every request from that thread to another one and back, where a client that stays connected could keep its thread.

The overridden methods are internal to gunicorn. Therefore setup.cfg allows only the minor version that this module was
written for, and tests/app/web/test_gunicorn.py fails if one of the methods has changed.
"""

from __future__ import annotations

import logging
import math
import socket
import time
from collections import deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import partial
from selectors import EVENT_READ
from types import FrameType
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker
from typing_extensions import override

from app.web.connection import RECEIVE_TIMEOUT, SEND_TIMEOUT, Connection
from app.web.proxies import TrustedProxies
from app.web.threads import Threads

LINGER_TIMEOUT = 2.0  # seconds that a client has to close its half of a connection after we closed ours
ACCEPT_PAUSE = 0.1  # seconds without new connections after the system could not give us one
SPARE = 16  # idle connections to close then, because requests need descriptors, too
REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"


class Worker(ThreadWorker):
    """gunicorn's thread worker, with such connections. A connection gets a thread only when data has arrived, keeps it
    while one request follows another and no other connection waits for a thread, and is closed without one. No address
    gets all threads (app.web.threads). If gunicorn itself terminates TLS, the connections stay gunicorn's own.

    A process with `worker_connections` connections closes an idle one for each new one; if none is idle, it refuses the
    new one. gunicorn's own worker would accept none, so that idle clients keep all others waiting."""

    receive_timeout = RECEIVE_TIMEOUT
    send_timeout = SEND_TIMEOUT

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lingering: deque[TConn] = deque()
        self.threads: Threads[TConn] = Threads(self.cfg.threads)
        self.when_ending: Callable[[], None] = lambda: None  # called before the requests in flight are finished
        self.accepts_at = -math.inf  # when it accepts connections again, in seconds of time.monotonic
        if not self.cfg.is_ssl:
            self.worker_connections = math.inf  # `accept` sees to the limit

    @override
    def init_process(self) -> None:
        self.log.error_log.addFilter(conceal)
        if not self.log.access_log.hasHandlers():
            self.log.access = lambda *_: None  # or gunicorn would format a line for every request
        super().init_process()

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.alive:
            self.method_queue.defer(self.when_ending)
        super().handle_exit(sig, frame)

    @override
    def accept(self, listener: socket.socket) -> None:
        if self.cfg.is_ssl:
            super().accept(listener)
            return
        try:
            client, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:  # there are no descriptors, or no memory
            self.log.error("No connection can be accepted: %s.", error.strerror)
            for _ in range(SPARE):
                self.close_idle()
            self.accepts_at = time.monotonic() + ACCEPT_PAUSE
            self.set_accept_enabled(False)
            return
        if self.nr_conns >= self.cfg.worker_connections and not self.close_idle():
            refuse(client)
            return
        connection = Connection(client, self.receive_timeout, self.send_timeout)
        conn = TConn(self.cfg, connection, address, listener.getsockname())
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + self.cfg.keepalive
        self.poller.register(conn.sock, EVENT_READ, partial(self.on_pending_socket_readable, conn))
        self.nr_conns += 1
        self.pending_conns.append(conn)

    @override
    def set_accept_enabled(self, enabled: bool) -> None:
        super().set_accept_enabled(enabled and time.monotonic() >= self.accepts_at)

    def close_idle(self) -> bool:
        """Closes the longest idle connection of those that have been answered or, else, of those that have said nothing
        yet. Returns whether there was one."""
        for conns in (self.lingering, self.keepalived_conns, self.pending_conns):
            for conn in conns:
                if is_silent(conn.sock):
                    conns.remove(conn)
                    self.leave(conn)
                    return True
        return False

    @override
    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Logs an error of one connection. All others depend on this loop, so it must go on."""
        if (paused := self.accepts_at - time.monotonic()) > 0:
            timeout = min(timeout, paused)
        for key, _ in self.poller.select(timeout):
            if isinstance(key.fileobj, socket.socket) and key.fileobj.fileno() < 0:
                continue  # an event before this one has closed the connection
            try:
                key.data(key.fileobj)
            except Exception:
                self.log.exception("A connection failed.")

    @override
    def enqueue_req(self, conn: TConn) -> None:
        """Gives a connection a thread, now or when its address may have one more."""
        if self.threads.take(self.address(conn), conn):
            self.begin(conn)

    def begin(self, conn: TConn) -> None:
        try:
            super().enqueue_req(conn)
        except RuntimeError:  # the system gives us no thread
            self.nr_conns -= 1
            conn.close()
            self.free(conn)

    def free(self, conn: TConn) -> None:
        """Gives the thread of a connection to those that wait."""
        for each in self.threads.leave(self.address(conn)):
            self.begin(each)

    def address(self, conn: TConn) -> Hashable:
        """Who a connection is from: an IPv4 address, or the first 64 bits of an IPv6 address. None for a trusted proxy,
        and for a UNIX socket, because many clients are behind it."""
        host = conn.client[0] if isinstance(conn.client, tuple) else ""
        if not host or (isinstance(self.wsgi, TrustedProxies) and self.wsgi.trusts(host)):
            return None
        return socket.inet_pton(socket.AF_INET6, host.partition("%")[0])[:8] if ":" in host else host

    @override
    def handle(self, conn: TConn) -> Any:
        """Answers a request and, while other threads are free, those that come right after it."""
        if not isinstance(conn.sock, Connection):
            return super().handle(conn)
        while True:
            conn.sock.begin()
            is_open = super().handle(conn)
            if not is_open or not self.has_next(conn):
                return is_open

    def has_next(self, conn: TConn) -> bool:
        """Whether this thread shall go on with a connection, because another request is there, or comes at once."""
        if not self.alive or self.threads.are_wanted:
            return False
        unreader = conn.parser.unreader
        if unreader.buf.getvalue():
            return True
        received = conn.sock.next_bytes()
        if received is not None:
            unreader.unread(received)
        return received is not None

    @override
    def handle_request(self, req: Any, conn: TConn) -> Any:
        if not isinstance(conn.sock, Connection):
            return super().handle_request(req, conn)
        conn.sock.answer(req)
        try:
            return super().handle_request(req, conn)
        finally:
            conn.sock.flush()

    @override
    def finish_request(self, conn: TConn, fs: Any) -> None:
        self.free(conn)
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
        """Closes a connection that waits in the poller."""
        self.poller.unregister(conn.sock)
        self.nr_conns -= 1
        conn.close()

    @override
    def murder_pending(self) -> None:
        """Closes connections whose timeout has passed. gunicorn calls it once a second, and at every event."""
        super().murder_pending()
        while self.lingering and self.lingering[0].timeout <= time.monotonic():
            self.leave(self.lingering.popleft())


def is_silent(client: socket.socket) -> bool:
    """Whether nothing has arrived that is still to be read."""
    try:
        socket.socket.recv(client, 1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def refuse(client: socket.socket) -> None:
    """Tells a client that there is no room for its connection, and closes it."""
    with client, suppress(OSError):
        client.setblocking(False)
        client.sendall(REFUSAL)
        client.shutdown(socket.SHUT_WR)


def conceal(record: logging.LogRecord) -> bool:
    """A logging filter that removes from gunicorn's messages what a client sent, because that may be a text."""
    if str(record.msg).startswith("Invalid request from ip="):
        record.msg = record.msg.partition(": ")[0]
    elif record.msg == "Error handling request %s %s" and isinstance(record.args, tuple):
        method, uri = record.args
        record.args = (method, str(uri).partition("?")[0])
    return True
