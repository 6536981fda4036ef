from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from app.web.connection import RECEIVE_TIMEOUT, SEND_TIMEOUT, Connection, TooSlow


@pytest.fixture
def pair() -> Iterator[tuple[Connection, socket.socket]]:
    """A connection with little patience, and its client."""
    ours, theirs = socket.socketpair()
    with Connection(ours, receive_timeout=0.2, send_timeout=0.2, stay=0.05) as connection, theirs:
        yield connection, theirs


def test_a_deadline_binds_many_small_pieces(pair: tuple[Connection, socket.socket]) -> None:
    connection, theirs = pair
    with pytest.raises(TooSlow):  # noqa: PT012 - it is the last that raises
        while True:
            theirs.send(b"x")
            assert connection.recv(1) == b"x"
            time.sleep(0.01)
    with pytest.raises(TooSlow):
        connection.recv(10)
    connection.begin()
    assert connection.recv(10) == b"x"
    with pytest.raises(BrokenPipeError):  # noqa: PT012
        while True:
            connection.sendall(b"x" * 1000)
            theirs.recv(10)
    assert connection.gettimeout() is None


def test_a_timeout_of_gunicorns_takes_precedence(pair: tuple[Connection, socket.socket]) -> None:
    connection, theirs = pair
    connection.settimeout(0.01)
    with pytest.raises(TimeoutError) as caught:
        connection.recv(1)
    assert not isinstance(caught.value, TooSlow)
    connection.setblocking(False)
    with pytest.raises(TimeoutError):
        connection.recv(1)
    theirs.send(b"x")
    assert connection.recv(1) == b"x"
    with pytest.raises(BrokenPipeError):
        connection.sendall(b"x" * 10_000_000)
    connection.setblocking(True)
    assert connection.gettimeout() is None


def test_a_long_answer_goes_to_a_slow_reader_as_a_whole() -> None:
    ours, theirs = socket.socketpair()
    answer = bytes(range(256)) * 20_000
    with Connection(ours) as connection, theirs:
        sender = threading.Thread(target=connection.sendall, args=(answer,))
        sender.start()
        received = b""
        while len(received) < len(answer):
            received += theirs.recv(100_000)
        sender.join()
    assert received == answer


def test_the_next_request_is_waited_for_but_not_long(pair: tuple[Connection, socket.socket]) -> None:
    connection, theirs = pair
    assert connection.next_bytes() is None
    theirs.send(b"GET /")
    assert connection.next_bytes() == b"GET /"
    sender = threading.Timer(0.01, theirs.send, [b"POST /"])
    sender.start()
    assert connection.next_bytes() == b"POST /"
    theirs.close()
    assert connection.next_bytes() == b""


def test_an_answer_leaves_in_one_piece(pair: tuple[Connection, socket.socket]) -> None:
    connection, theirs = pair
    theirs.setblocking(False)
    connection.answer(object())
    connection.sendall(b"head")
    with pytest.raises(BlockingIOError):
        theirs.recv(100)
    connection.sendall(b", body")
    assert theirs.recv(100) == b"head, body"
    connection.sendall(b" and more")
    assert theirs.recv(100) == b" and more"
    connection.flush()
    connection.begin()
    connection.answer(object())
    connection.sendall(b"head alone")
    connection.flush()
    assert theirs.recv(100) == b"head alone"
    connection.begin()
    connection.sendall(b"an error of gunicorn's")
    assert theirs.recv(100) == b"an error of gunicorn's"


def test_the_constants_fit_what_may_be_sent() -> None:
    assert 5 <= RECEIVE_TIMEOUT <= 30
    assert RECEIVE_TIMEOUT <= SEND_TIMEOUT <= 120


def test_an_heir_gets_the_client_with_the_head_alone(pair: tuple[Connection, socket.socket]) -> None:
    connection, theirs = pair
    left: list[tuple[socket.socket, bytes]] = []
    closes = threading.Event()
    request = SimpleNamespace(force_close=closes.set)
    connection.answer(request)
    connection.bequeath(lambda client, head: left.append((client, head)))
    connection.sendall(b"head")
    connection.sendall(b"the server's end of the body")
    connection.flush()
    [(client, head)] = left
    assert head == b"head"
    assert closes.is_set()
    assert connection.fileno() == -1
    with client:
        client.sendall(b"first")
        assert theirs.recv(100) == b"first"  # nothing was sent before
