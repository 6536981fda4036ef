"""gunicorn's worker with threads, of which no client may hold up the one that accepts all others.

As it comes, it has a thread wait for the first byte of every connection, and for the rest of a request's head however
long it takes; and the accepting thread itself waits for each client to close its end, for up to two seconds. A handful
of clients that only sit there would stop a process. So here they sit in the poller, and not for long.
"""

from __future__ import annotations

import socket
import struct
import time
from collections import deque
from contextlib import suppress
from functools import partial
from selectors import EVENT_READ
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

HEAD_TIMEOUT = 10.0  # seconds until the head of a request has come, once it has begun
STALL_TIMEOUT = 30  # seconds in which a client that we read from, or write to, has to do its part
LINGER = 2.0  # seconds until a client has closed its end; before that, what it has not read yet might be lost


class Worker(ThreadWorker):
    """Hands a connection to a thread when it has something to say, and takes it back when all was said."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.heads: dict[TConn, float] = {}  # connections whose head is being read, and until when
        self.lingering: deque[TConn] = deque()

    def accept(self, listener: socket.socket) -> None:
        try:
            client, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        stall = struct.pack("ll", STALL_TIMEOUT, 0)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, stall)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, stall)
        conn = TConn(self.cfg, client, address, listener.getsockname())
        self.nr_conns += 1
        conn.timeout = time.monotonic() + self.cfg.keepalive
        self.pending_conns.append(conn)
        self.poller.register(client, EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def enqueue_req(self, conn: TConn) -> None:
        self.heads[conn] = time.monotonic() + HEAD_TIMEOUT
        super().enqueue_req(conn)

    def handle_request(self, req: Any, conn: TConn) -> Any:
        self.heads.pop(conn, None)
        return super().handle_request(req, conn)

    def finish_request(self, conn: TConn, fs: Any) -> None:
        self.heads.pop(conn, None)
        if fs.cancelled() or fs.exception() or not fs.result():
            self.linger(conn)
        else:
            super().finish_request(conn, fs)

    def linger(self, conn: TConn) -> None:
        """Says that we are done, and closes when the client has said so too."""
        try:
            conn.sock.setblocking(False)
            conn.sock.shutdown(socket.SHUT_WR)
            self.poller.register(conn.sock, EVENT_READ, partial(self.on_lingering_socket_readable, conn))
        except (OSError, ValueError):  # it has gone already
            self.nr_conns -= 1
            conn.close()
        else:
            conn.timeout = time.monotonic() + LINGER
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
        self.poller.unregister(conn.sock)
        self.nr_conns -= 1
        conn.close()

    def murder_pending(self) -> None:
        """Whoever took too long; once a second, and whenever something happens."""
        super().murder_pending()
        now = time.monotonic()
        while self.lingering and self.lingering[0].timeout <= now:
            self.leave(self.lingering.popleft())
        for conn, until in list(self.heads.items()):
            if until <= now and self.heads.pop(conn, None) is not None:
                with suppress(OSError):  # it may have gone just now
                    conn.sock.shutdown(socket.SHUT_RD)  # its thread reads the end
