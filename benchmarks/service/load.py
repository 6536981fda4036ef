"""Clients that send requests over HTTP/1.1, each again as soon as it has its answer, all in one thread."""

from __future__ import annotations

import itertools
import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to the request of that index, after so many seconds. The body is empty unless the status is 200."""

    request: int
    seconds: float
    body: bytes


@dataclass(slots=True)
class Client:
    """A connection, the request that is under way on it since `began`, and what has arrived of the answer."""

    connection: socket.socket
    request: int = 0
    began: float = 0.0
    received: bytearray = field(default_factory=bytearray)

    def send(self, request: int, data: bytes) -> None:
        self.request, self.began = request, time.perf_counter()
        self.received.clear()
        self.connection.sendall(data)

    def receive(self) -> Answer | None:
        """Reads what is there; the answer if it is complete. Raises ConnectionError if the server has closed."""
        data = self.connection.recv(1 << 16)
        if not data:
            raise ConnectionError("The server closed the connection.")
        self.received += data
        head, found, body = bytes(self.received).partition(b"\r\n\r\n")
        if not found:
            return None
        if b"content-length:" not in head.lower():
            raise ConnectionError("The answer has no length.")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(body) < length:
            return None
        seconds = time.perf_counter() - self.began
        return Answer(self.request, seconds, body if head.startswith(b"HTTP/1.1 200") else b"")


def closed_loop(port: int, requests: Sequence[bytes], clients: int, seconds: float) -> list[Answer]:
    """The answers to requests that so many clients send, in turn and from the beginning again, for some seconds."""
    answers: list[Answer] = []
    turn = itertools.cycle(range(len(requests)))
    with selectors.DefaultSelector() as selector:
        for _ in range(clients):
            client = Client(_connected(port))
            selector.register(client.connection, selectors.EVENT_READ, client)
            client.send(number := next(turn), requests[number])
        until = time.perf_counter() + seconds
        while selector.get_map():
            for key, _ in selector.select():
                client = key.data
                if (answer := client.receive()) is None:
                    continue
                answers.append(answer)
                if time.perf_counter() < until:
                    client.send(number := next(turn), requests[number])
                else:
                    selector.unregister(client.connection)
                    client.connection.close()
    return answers


def post(port: int, request: bytes) -> Answer:
    """The answer to one request. Raises OSError."""
    client = Client(_connected(port))
    with client.connection:
        client.connection.settimeout(10)
        client.send(0, request)
        while (answer := client.receive()) is None:
            pass
    return answer


def _connected(port: int) -> Any:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection
