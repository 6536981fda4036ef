from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from app.web.threads import Threads


def test_an_address_alone_gets_three_quarters_of_the_threads() -> None:
    threads = Threads[int](128)
    assert [threads.take("a", number) for number in range(200)].count(True) == 96
    assert threads.are_wanted


def test_threads_are_left_for_others() -> None:
    threads = Threads[int](128)
    for number in range(200):
        threads.take("a", number)
    assert [threads.take(f"small {number}", number) for number in range(20)] == [True] * 20


def test_a_thread_goes_to_the_address_with_the_fewest() -> None:
    threads = Threads[str](4)
    assert [threads.take("a", f"a{number}") for number in range(5)] == [True, True, True, False, False]
    assert threads.take("b", "b0")
    assert not threads.take("c", "c0")
    assert threads.leave("a") == ["c0"]
    assert threads.leave("b") == ["a3"]
    assert threads.leave("c") == []  # `a` has three of the four again
    assert threads.leave("a") == ["a4"]
    assert not threads.are_wanted


def test_the_connections_of_an_address_are_served_in_order() -> None:
    threads = Threads[int](1)
    assert [threads.take("a", number) for number in range(4)] == [True, False, False, False]
    assert [threads.leave("a") for _ in range(4)] == [[1], [2], [3], []]


def test_whom_a_proxy_stands_for_may_have_all_threads() -> None:
    threads = Threads[int](4)
    assert [threads.take(None, number) for number in range(5)] == [True] * 4 + [False]
    assert threads.leave(None) == [4]


@pytest.fixture(scope="module")
def narrow(start_gunicorn: Callable[..., Any]) -> Any:
    return start_gunicorn(GUNICORN_CMD_ARGS="--workers 1 --threads 4 --forwarded-allow-ips 127.0.0.3")


def connect(web: Any, address: str) -> socket.socket:
    where = urlsplit(web.url)
    return socket.create_connection((where.hostname, where.port), 20, source_address=(address, 0))


def test_requests_that_one_address_does_not_finish_keep_no_other_waiting(narrow: Any) -> None:
    with ExitStack() as stack:
        for _ in range(30):
            stack.enter_context(connect(narrow, "127.0.0.2")).sendall(b"GET /")
        for _ in range(5):
            began = time.monotonic()
            assert requests.get(f"{narrow.url}/healthz", timeout=20).status_code == 200
            assert time.monotonic() - began < 3  # the others have ten seconds each


def test_the_clients_of_a_trusted_proxy_are_not_one(narrow: Any) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(connect(narrow, "127.0.0.3")) for _ in range(3)]
        for client in slow:
            client.sendall(b"GET /")
        client = stack.enter_context(connect(narrow, "127.0.0.3"))
        began = time.monotonic()
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")
        assert time.monotonic() - began < 3
