"""gunicorn's threads, which no client holds by being slow, and gunicorn's log, which quotes nobody.

Its thread worker waits for the first byte of a request without a thread, but for the rest of it with one, for ever, and
likewise until an answer has been read. And once it has closed its half of a connection, it waits two seconds for the
client to close the other: on the thread that accepts connections, so that nobody is served meanwhile.
"""

from __future__ import annotations

import errno
import logging
import socket
import time
from contextlib import suppress
from typing import Any

from gunicorn import util
from gunicorn.http.errors import NoMoreData
from gunicorn.workers.gthread import TConn, ThreadWorker
from typing_extensions import override

RECEIVE_TIMEOUT = 10.0  # seconds from the first byte of a request to the last of its body
SEND_TIMEOUT = 60.0  # seconds from the first byte of an answer to its last
LINGER_TIMEOUT = 1.0  # seconds that a client has to close its half of a connection after we closed ours


class TooSlow(NoMoreData, TimeoutError):
    """A request did not arrive in time. To gunicorn, its client has gone."""


class Connection(socket.socket):
    """A client's connection. While it blocks, a request has a deadline, and so has its answer."""

    request: Any = None  # gunicorn's, once its headers are here
    _received_by: float | None = None
    _sent_by: float | None = None

    def begin(self) -> None:
        """What comes next is another request."""
        self.request = self._received_by = self._sent_by = None

    @override
    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Raises TooSlow."""
        if self.gettimeout() is not None:  # gunicorn has set one of its own
            return super().recv(size, flags)
        now = time.monotonic()
        self._received_by = self._received_by or now + RECEIVE_TIMEOUT
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
        """Raises BrokenPipeError for a client that does not read what it asked for."""
        if self.gettimeout() is not None:
            return super().sendall(data, flags)
        now = time.monotonic()
        self._sent_by = self._sent_by or now + SEND_TIMEOUT
        try:
            self.settimeout(max(self._sent_by - now, 0.001))
            return super().sendall(data, flags)  # within the timeout, however many pieces it takes
        except TimeoutError as error:
            raise BrokenPipeError(errno.EPIPE, "The client did not read its answer in time.") from error
        finally:
            self.settimeout(None)

    def linger(self) -> None:
        """Ends the connection, but for its file descriptor, and lets the client read what was sent last."""
        util.close_graceful(self.dup(), LINGER_TIMEOUT)
        with suppress(OSError):
            self.shutdown(socket.SHUT_RDWR)


class Worker(ThreadWorker):
    """gunicorn's worker of threads, with such connections. Where gunicorn speaks TLS itself, they stay as they are."""

    @override
    def init_process(self) -> None:
        self.log.error_log.addFilter(conceal)
        super().init_process()

    @override
    def handle(self, conn: TConn) -> Any:
        if not self.cfg.is_ssl:
            if not isinstance(conn.sock, Connection):
                conn.sock = Connection(fileno=conn.sock.detach())
            conn.sock.begin()
        kept = super().handle(conn)
        if not kept and isinstance(conn.sock, Connection):
            conn.sock.linger()
        return kept

    @override
    def handle_request(self, req: Any, conn: TConn) -> Any:
        conn.sock.request = req
        return super().handle_request(req, conn)


def conceal(record: logging.LogRecord) -> bool:
    """Takes what a client sent out of gunicorn's messages: what should be a header may be somebody's text."""
    if str(record.msg).startswith("Invalid request from ip="):
        record.msg = record.msg.partition(": ")[0]
    elif record.msg == "Error handling request %s %s" and isinstance(record.args, tuple):
        method, uri = record.args
        record.args = (method, str(uri).partition("?")[0])
    return True
