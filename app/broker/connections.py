"""Connections to the broker on which no call blocks for longer than its timeout."""

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
READ_AHEAD = 64 * 1024  # bytes to read at once, at most
LEAST = 0.01  # seconds: a timeout of 0 would make a socket non-blocking
BACKOFF = (0.05, 1.0)  # seconds between attempts, at most: after the first failure, and after many


class Connections:
    """The connections on which a process publishes. Thread-safe."""

    def __init__(self, connection: Connection) -> None:
        self._connections = connection.Pool(PUBLISHERS)
        self._producers = ProducerPool(self._connections, limit=PUBLISHERS)

    @contextmanager
    def producer(self, timeout: float) -> Iterator[Producer]:
        """A connected producer. To wait for it, to connect, and to wait for an answer take at most `timeout` seconds
        together.

        Raises one of BROKER_ERRORS.
        """
        until = time.monotonic() + timeout
        with self._producers.acquire(block=True, timeout=max(timeout, LEAST)) as producer:
            connection: Any = producer.connection
            with dropped(connection):
                connect(connection, until - time.monotonic())
                yield producer

    def close(self, *, listens: bool) -> None:
        """Closes the connections once they are no longer in use. `listens` says whether the broker answers; if it does
        not, they are dropped without waiting for it."""
        until = time.monotonic() + ANSWER_TIMEOUT
        with suppress(*BROKER_ERRORS):
            for _ in range(PUBLISHERS):
                connection = self._connections.acquire(block=True, timeout=max(0.0, until - time.monotonic()))
                if not listens:
                    connection.collect()
                self._connections.replace(connection)


@contextmanager
def dropped(connection: Any) -> Iterator[None]:
    """Drops the connection if one of BROKER_ERRORS is raised inside of the `with`. A late answer would disturb its next
    user, and to close it properly would wait for a broker that does not answer."""
    try:
        yield
    except BROKER_ERRORS:
        connection.collect()
        raise


def connect(connection: Any, timeout: float) -> None:
    """Connects the connection, unless it is connected, with one attempt at each of the broker's nodes.

    Afterwards no answer may take longer than what is left of `timeout` seconds. Raises one of BROKER_ERRORS, the last
    node's.
    """
    until = time.monotonic() + timeout
    if not connection.connected:
        _establish(connection, until)
        _hasten(connection.connection)
    patience(connection, max(until - time.monotonic(), LEAST))


def patience(connection: Any, timeout: float) -> None:
    """From now on an answer on the connected connection may take `timeout` seconds, but not over ANSWER_TIMEOUT."""
    sock, timeout = connection.connection.sock, min(ANSWER_TIMEOUT, timeout)
    if sock.gettimeout() != timeout:
        sock.settimeout(timeout)


def _establish(connection: Any, until: float) -> None:
    for others in reversed(range(len(connection.alt) or 1)):
        # Each node has its share of the time. It is set for each, because kombu forgets it when it switches nodes.
        connection.connect_timeout = min(CONNECT_TIMEOUT, max((until - time.monotonic()) / (others + 1), LEAST))
        try:
            connection.ensure_connection(max_retries=0)
            break
        except BROKER_ERRORS:
            connection.maybe_switch_next()
            if not others:
                raise


def _hasten(established: Any) -> None:
    """Saves system calls, after each of which a thread waits for the interpreter: ten for each message.

    py-amqp reads each field of a frame by itself, and keeps what it read too much. Before it publishes it looks whether
    the broker has said that it takes no messages; that it also sees while it waits for the confirm. Its transport is
    nobody's promise: setup.cfg allows only the minor version that this was written for.
    """
    transport = established.transport
    receive = transport._quick_recv
    transport._quick_recv = lambda _wanted: receive(READ_AHEAD)
    established.client_properties.get("capabilities", {})["connection.blocked"] = False


def no_broker() -> TolkError:
    """The error for a caller when the broker did not answer in time."""
    return TolkError(Code.UNAVAILABLE, "The message broker does not answer. Try again in a moment.", 1.0)


def backoff(failures: int) -> float:
    """Seconds to wait after this many failures in a row: random, up to a limit that doubles with each failure.

    Being random, it keeps processes that lost the broker at the same moment from coming back at the same moment.
    """
    least, most = BACKOFF
    return random.uniform(0.0, min(most, least * 2.0 ** min(failures - 1, 10)))  # noqa: S311 - no secret


def reason(error: BaseException) -> str:
    """The text of an error for the log: its message, or its type if it has no message."""
    return str(error) or type(error).__name__
