"""Connections to the broker on which nothing blocks for longer than it was allowed to."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from kombu import Connection, Producer
from kombu.pools import ProducerPool

from tasks.contract.errors import Code, TolkError
from tasks.queues.errors import BROKER_ERRORS

PUBLISHERS = 10  # connections to publish on, at most
CONNECT_TIMEOUT = 2.0  # seconds until the broker has taken a connection
ANSWER_TIMEOUT = 5.0  # seconds until the broker has answered, or confirmed a message
LEAST = 0.01  # seconds: for a socket none at all means something else
BACKOFF = (0.05, 1.0)  # seconds between attempts: at most, after the first and after many


class Connections:
    """The connections that a process publishes on. Thread-safe."""

    def __init__(self, connection: Connection) -> None:
        self._connections = connection.Pool(PUBLISHERS)
        self._producers = ProducerPool(self._connections, limit=PUBLISHERS)

    @contextmanager
    def producer(self, timeout: float) -> Iterator[Producer]:
        """A connected producer, on which waiting for it and for an answer take `timeout` together.

        Raises one of BROKER_ERRORS.
        """
        until = time.monotonic() + timeout
        with self._producers.acquire(block=True, timeout=max(timeout, LEAST)) as producer:
            connection: Any = producer.connection
            try:
                connect(connection, until - time.monotonic())
                yield producer
            except BROKER_ERRORS:
                connection.collect()  # what is left of the conversation would disturb the next one
                raise

    def close(self, *, listens: bool) -> None:
        """Lets go of them, once who publishes right now is done; politely where the broker `listens`."""
        until = time.monotonic() + ANSWER_TIMEOUT
        with suppress(*BROKER_ERRORS):
            for _ in range(PUBLISHERS):
                connection = self._connections.acquire(block=True, timeout=max(0.0, until - time.monotonic()))
                if not listens:
                    connection.collect()
                self._connections.replace(connection)


def connect(connection: Any, timeout: float) -> None:
    """Connects where it is not connected, with one attempt at each of the broker's nodes.

    No answer may then take longer than what is left of `timeout`. Raises one of BROKER_ERRORS: the last node's.
    """
    until = time.monotonic() + timeout
    for others in reversed(range(len(connection.alt) or 1)):
        # Each has its share of the time, and is set here, for kombu forgets it when it goes on to the next.
        connection.connect_timeout = min(CONNECT_TIMEOUT, max((until - time.monotonic()) / (others + 1), LEAST))
        try:
            connection.ensure_connection(max_retries=0)
            break
        except BROKER_ERRORS:
            connection.maybe_switch_next()
            if not others:
                raise
    connection.connection.sock.settimeout(min(ANSWER_TIMEOUT, max(until - time.monotonic(), LEAST)))


def no_broker() -> TolkError:
    """What callers are told where the broker did not answer in time."""
    return TolkError(Code.UNAVAILABLE, "The message broker does not answer. Try again in a moment.", 1.0)


def backoff(failures: int) -> float:
    """Seconds to wait after so many failures in a row.

    Anything up to a limit that doubles: those who lost the broker at one moment do not come back at one moment.
    """
    least, most = BACKOFF
    return random.uniform(0.0, min(most, least * 2.0 ** min(failures - 1, 10)))  # noqa: S311 - no secret


def reason(error: BaseException) -> str:
    """What a log says of an error."""
    return str(error) or type(error).__name__
