"""Cancels the requests of clients that hang up, because nobody waits for the answers any more.

WSGI does not report that a client has hung up. The client's socket shows it: gunicorn and Werkzeug's server put it into
the WSGI environment.
"""

from __future__ import annotations

import logging
import select
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from socket import socket
from typing import Any

from tasks.contract.errors import TolkError

PAUSE = 0.02  # seconds between two looks at the clients of all requests in flight

logger = logging.getLogger(__name__)


class Hangups:
    """Calls `abandon` with the id and the principal of a request whose client has closed the connection, and calls it
    again until the request ends. `abandon` must return at once, because one thread calls it for all clients.

    The thread looks at all clients every PAUSE, so that requests need neither a system call nor a lock. A client that
    closes only its own half of the connection counts as gone, as with most servers.
    """

    def __init__(self, abandon: Callable[[str, str | None], None]) -> None:
        self._abandon = abandon
        self._watched: dict[int, tuple[str, str | None]] = {}  # by file descriptor
        self._needed = threading.Event()  # set if the thread may wait while there are requests
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def watched(self, environ: Mapping[str, Any], request_id: str, principal: str | None) -> Iterator[None]:
        """Watches the client of a WSGI request until the context is left. Does nothing if the server hides the
        socket."""
        client: socket | None = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
        if client is None:
            yield
            return
        number = client.fileno()
        self._watched[number] = request_id, principal
        try:
            if not self._needed.is_set():
                self._wake()
            yield
        finally:
            del self._watched[number]

    def _wake(self) -> None:
        """Wakes the thread, which starts with the first request, because a server may fork after the application was
        made."""
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="hangups", daemon=True)
                thread.start()
                self._thread = thread  # not before it runs, because the system may have no thread for us now
        self._needed.set()

    def _run(self) -> None:
        while True:
            self._needed.wait()
            self._needed.clear()
            time.sleep(PAUSE)
            while self._watched:
                try:
                    self._look()
                except TolkError:  # the service is shutting down, and ends every request itself
                    return
                except Exception:  # every client depends on this thread, so it must go on
                    logger.exception("could not look at the clients")
                time.sleep(PAUSE)

    def _look(self) -> None:
        """Abandons the requests of all clients that have hung up."""
        watched = self._watched.copy()
        for number in _hung_up(watched):
            request = watched[number]
            if self._watched.get(number) is not request:  # the number may belong to another connection by now
                continue
            try:
                self._abandon(*request)
            except TolkError:
                raise
            except Exception:  # the other clients may have hung up, too
                logger.exception("could not cancel request %s", request[0])


def _hung_up(numbers: Iterable[int]) -> list[int]:
    """The file descriptors whose other end has closed its half of the connection."""
    poll = select.poll()
    for number in numbers:
        poll.register(number, select.POLLRDHUP)
    return [number for number, _ in poll.poll(0)]
