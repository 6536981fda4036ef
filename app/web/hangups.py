"""Cancels the requests of clients that hang up, because nobody waits for the answers any more.

WSGI does not report that a client has hung up. The client's socket shows it: gunicorn and Werkzeug's server put it into
the WSGI environment.
"""

from __future__ import annotations

import logging
import select
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from socket import socket
from typing import Any

from tasks.contract.errors import TolkError

PAUSE = 0.02  # seconds between two checks while a request whose client hung up is still in flight

logger = logging.getLogger(__name__)


class Hangups:
    """Calls `abandon` with the id and the principal of a request whose client has closed the connection, and calls it
    again until the request ends. `abandon` must return at once, because one thread calls it for all clients.

    A client that closes only its own half of the connection counts as gone, as with most servers.
    """

    def __init__(self, abandon: Callable[[str, str | None], None]) -> None:
        self._abandon = abandon
        self._lock = threading.Lock()
        self._watched: dict[int, tuple[str, str | None]] = {}  # by file descriptor
        self._epoll: select.epoll | None = None

    @contextmanager
    def watched(self, environ: Mapping[str, Any], request_id: str, principal: str | None) -> Iterator[None]:
        """Watches the client of a WSGI request until the context is left. Does nothing if the server hides the
        socket."""
        client: socket | None = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
        if client is None:
            yield
            return
        number = client.fileno()
        with self._lock:
            epoll = self._started()
            self._watched[number] = request_id, principal
            epoll.register(number, select.EPOLLRDHUP)
        try:
            yield
        finally:
            with self._lock:
                epoll.unregister(number)
                del self._watched[number]

    def _started(self) -> select.epoll:
        """The epoll object on which the thread waits. The thread starts with the first request, because a server may
        fork after the application was made."""
        if self._epoll is None:
            self._epoll = select.epoll()
            threading.Thread(target=self._run, args=(self._epoll,), name="hangups", daemon=True).start()
        return self._epoll

    def _run(self, epoll: select.epoll) -> None:
        while True:
            for number, _ in epoll.poll():
                with self._lock:
                    watched = self._watched.get(number)
                    # The number may belong to another connection by now.
                    if watched is None or not _has_hung_up(number):
                        continue
                try:
                    self._abandon(*watched)
                except TolkError:  # the service is shutting down, and ends every request itself
                    return
                except Exception:  # every client depends on this thread, so it must go on
                    logger.exception("could not cancel request %s", watched[0])
            time.sleep(PAUSE)


def _has_hung_up(number: int) -> bool:
    poll = select.poll()
    poll.register(number, select.POLLRDHUP)
    return bool(poll.poll(0))
