"""What is no HTTP, or more than that, at a real gunicorn: an answer or an end, never a 500, never a hang, no leak."""

from __future__ import annotations

import random
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(60)

HANG = 5.0  # seconds; every deadline here is shorter
FILES = 30  # open in a worker that serves nobody; each of what follows could leave one
THREADS = 32 + 3  # of a worker's pool, and its own
BODY = b'{"query": "{ languages { source } }"}'
LENGTH = b"Content-Length: %d" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked"
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
SMUGGLED = b"GET /healthz HTTP/1.1\r\nHost: smuggled\r\n\r\n"


def post(*headers: bytes, body: bytes = BODY, line: bytes = b"POST /graphql HTTP/1.1") -> bytes:
    return b"\r\n".join([line, b"Host: localhost", b"Content-Type: application/json", *headers, b"", body])


def get(target: bytes, *headers: bytes, method: bytes = b"GET", version: bytes = b"HTTP/1.1") -> bytes:
    return b"\r\n".join([b"%s %s %s" % (method, target, version), b"Host: localhost", *headers, b"", b""])


# By the statuses they are answered with; none at all is a connection that was closed.
WIRE: dict[str, tuple[bytes, list[int]]] = {
    "length and chunks": (post(LENGTH, CHUNKED, body=CHUNKS + SMUGGLED), [400]),
    "chunks and length": (post(CHUNKED, b"Content-Length: 4", body=CHUNKS + SMUGGLED), [400]),
    "two lengths": (post(LENGTH, LENGTH), [400]),
    "two other lengths": (post(LENGTH, b"Content-Length: 0", body=BODY + SMUGGLED), [400]),
    "list of lengths": (post(b"Content-Length: 37, 37"), [400]),
    "length with a sign": (post(b"Content-Length: +37"), [400]),
    "length with a line": (post(b"Content-Length: 3_7"), [400]),
    "length in hexadecimal": (post(b"Content-Length: 0x25"), [400]),
    "length in Arabic": (post("Content-Length: ٣٧".encode()), [400]),
    "length before a space": (post(b"Content-Length : 37"), [400]),
    "length below nothing": (post(b"Content-Length: -1"), [400]),
    "length of many digits": (post(b"Content-Length: " + b"9" * 5_000), [400]),
    "length of an exabyte": (post(b"Content-Length: 1000000000000000000"), [413]),
    "length behind an underscore": (post(b"Content_Length: 0", body=SMUGGLED), [400, 200]),
    "chunks twice": (post(CHUNKED, CHUNKED, body=CHUNKS + SMUGGLED), [400]),
    "chunks that are none": (post(b"Transfer-Encoding: identity", body=CHUNKS), [400]),
    "chunks of another kind": (post(b"Transfer-Encoding: xchunked", body=CHUNKS), [501]),
    "chunks behind a tab": (post(b"Transfer-Encoding: \x0bchunked", body=CHUNKS), [400]),
    "chunks of HTTP/1.0": (post(CHUNKED, body=CHUNKS, line=b"POST /graphql HTTP/1.0"), [400]),
    "chunk of no size": (post(CHUNKED, body=b"zz\r\n"), [400]),
    "chunk below nothing": (post(CHUNKED, body=b"-1\r\n"), [400]),
    "chunk of a long size": (post(CHUNKED, body=b"f" * 9_000), [400]),
    "chunk of a line feed": (post(CHUNKED, body=b"1\n{\n0\n\n"), [400]),
    "chunk of long extensions": (post(CHUNKED, body=b"1;" + b"a" * 9_000), [400]),
    "chunk of five megabytes": (post(CHUNKED, body=b"4fffff\r\n" + b"x" * 5_000_000), [413]),
    "chunk with no end": (post(CHUNKED, body=b"1\r\n{x0\r\n\r\n"), [400]),
    "trailer with a length": (post(CHUNKED, body=CHUNKS[:-2] + b"Content-Length: 5\r\n\r\n"), [400]),
    "folded header": (post(LENGTH, b"X: a\r\n b"), [400]),
    "NUL in a value": (post(LENGTH, b"X: a\x00b"), [400]),
    "NUL in a name": (post(LENGTH, b"X\x00: a"), [400]),
    "carriage return": (post(LENGTH, b"X: a\rb"), [400]),
    "line feeds": (b"GET /healthz HTTP/1.1\nHost: localhost\n\n", [400]),
    "no colon": (post(LENGTH, b"nothing"), [400]),
    "no name": (post(LENGTH, b": x"), [400]),
    "name of two words": (post(LENGTH, b"X Y: x"), [400]),
    "long header": (post(LENGTH, b"X: " + b"a" * 100_000), [431]),
    "many headers": (post(LENGTH, *[b"X%d: a" % i for i in range(5_000)]), [431]),
    "endless header": (b"GET / HTTP/1.1\r\nX: " + b"a" * 3_000_000, [431]),
    "endless line": (b"GET /" + b"a" * 3_000_000, [414]),
    "long target": (get(b"/" + b"a" * 100_000), [414]),
    "absolute target": (get(b"http://elsewhere.example/healthz"), [200]),
    "broken target": (get(b"https://user:word@[::1/healthz"), [400]),
    "tunnel": (get(b"elsewhere.example:443", method=b"CONNECT"), [404]),
    "star": (get(b"*", method=b"OPTIONS"), [404]),
    "star to get": (get(b"*"), [400]),
    "network path": (get(b"//elsewhere.example/%2e%2e"), [404]),
    "path upwards": (get(b"/static/../../app/settings.py"), [404]),
    "encoded path upwards": (get(b"/static/%2e%2e/%2e%2e/app/settings.py"), [404]),
    "NUL in a path": (get(b"/static/%00"), [404]),
    "bytes in a path": (get(b"/\xff\xfe"), [400]),
    "no UTF-8 in a path": (get(b"/%ff%fe%zz"), [404]),
    "no UTF-8 in a query": (get(b"/graphql?query=%ff%fe&variables=%zz"), [400]),
    "method in lower case": (get(b"/", method=b"get"), [400]),
    "method to trace": (get(b"/", method=b"TRACE"), [405]),
    "unknown method": (get(b"/graphql", method=b"BREW"), [405]),
    "long method": (get(b"/", method=b"A" * 5_000), [414]),
    "method of bytes": (get(b"/", method=b"P\xc3ST"), [400]),
    "HTTP/0.9": (b"GET /\r\n\r\n", [400]),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400]),
    "HTTP/9.9": (get(b"/", version=b"HTTP/9.9"), [400]),
    "HTTP/1.1.1": (get(b"/", version=b"HTTP/1.1.1"), [400]),
    "no version": (get(b"/", version=b""), [400]),
    "TLS": (b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03" + random.Random(1).randbytes(190).replace(b"\n", b""), []),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n", [400]),
    "AMQP": (b"AMQP\x00\x00\x09\x01", []),
    "PROXY": (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n" + get(b"/"), [400]),
    "empty lines": (b"\r\n" * 1_000, [400]),
    "nothing": (b"", []),
    "two hosts": (get(b"/healthz", b"Host: other"), [400]),
    "no host": (b"GET /healthz HTTP/1.1\r\n\r\n", [400]),
    "an empty host": (b"GET /healthz HTTP/1.1\r\nHost:\r\n\r\n", [400]),
    "no host, of HTTP/1.0": (b"GET /healthz HTTP/1.0\r\n\r\n", [200]),
    "no host for the API, of HTTP/1.0": (
        post(LENGTH, line=b"POST /graphql HTTP/1.0").replace(b"Host: localhost\r\n", b""),
        [401],
    ),
    "expectation": (post(LENGTH, b"Expect: a miracle"), [417]),
    "upgrade to HTTP/2": (post(LENGTH, b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings"), [200]),
    "upgrade to a web socket": (get(b"/graphql", b"Upgrade: websocket", b"Connection: Upgrade"), [400]),
    "thousand ranges": (get(b"/static/page.css", b"Range: bytes=" + b"0-0," * 1_000 + b"1-"), [416]),
    "odd conditions": (get(b"/static/page.css", b"If-Modified-Since: \xff", b"If-None-Match: \xff"), [200]),
    "thousand types": (post(LENGTH, b"Accept: " + b"a/b;q=0.1," * 800), [200]),
    "body of a get": (get(b"/healthz", b"Content-Length: 20") + b"x" * 20, [200]),
    "long boundary": (
        post(b"Content-Length: 4", body=b"----", line=b"POST /api/graphql HTTP/1.1").replace(
            b"application/json", b"multipart/form-data; boundary=" + b"b" * 4_000
        ),
        [400],
    ),
    "no boundary": (
        post(b"Content-Length: 4", body=b"----", line=b"POST /api/graphql HTTP/1.1").replace(
            b"application/json", b"multipart/form-data"
        ),
        [400],
    ),
}


@pytest.fixture(scope="module")
def web(start_gunicorn: Callable[..., Any], eventually: Callable[..., None]) -> Iterator[Any]:
    """Afterwards the same processes are there, with few files open and no more threads than they may have."""
    web = start_gunicorn(GUNICORN_CMD_ARGS="--threads 32 --worker-class tests.app.hasty.HastyWorker")
    eventually(lambda: len(web.workers) == 2)
    processes = web.workers
    yield web
    assert web.answers()
    eventually(lambda: all(worker.num_fds() < FILES for worker in processes))
    assert web.workers == processes
    assert all(worker.num_threads() <= THREADS for worker in processes)
    assert not web.service.says("Traceback")


def statuses(web: Any, sent: bytes) -> list[int]:
    """Of the answers to what is sent at once, until the connection ends."""
    received = b""
    with web.connect(HANG) as client:
        try:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            while data := client.recv(65536):
                received += data
        except TimeoutError:
            raise  # a hang
        except OSError:
            pass  # the connection was ended with what was sent still unread
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", received)]


@pytest.mark.parametrize("name", WIRE)
def test_what_is_sent_is_answered_and_answered_once(web: Any, name: str) -> None:
    sent, expected = WIRE[name]
    found = statuses(web, sent)
    assert found == expected or (len(sent) > 1_000_000 and found == [])  # cut off before all of it was sent


@pytest.mark.parametrize(
    "values",
    [
        [b""],
        [b"Bearer"],
        [b"Bearer "],
        [b"Bearer a b"],
        [b"bearer x"],
        [b"Bearer tolk_"],
        [b"Bearer tolk_" + b"x" * 8_000],
        [b"Bearer \xff\xfe"],
        [b"Bearer \xed\xa0\x80"],
        [b"Bearer '; DROP TABLE keys; --"],
        [b"Basic dXNlcjpwYXNzd29yZA=="],
        [b"Basic \xff"],
        [b"Basic ===="],
        [b'Digest username="\xff", realm='],
        [b'Digest ="'],
        [b"Negotiate"],
        [b"=,;\"'"],
        [b"Bearer x", b"Bearer y"],
        [b"Bearer x"] * 90,
        [b"\t"],
    ],
)
@pytest.mark.parametrize("address", [b"/graphql", b"/api/graphql"])
def test_an_authorization_of_any_shape_is_no_trouble(web: Any, address: bytes, values: list[bytes]) -> None:
    headers = [b"Authorization: " + value for value in values]
    assert statuses(web, post(LENGTH, *headers, line=b"POST %s HTTP/1.1" % address)) in ([200], [400], [401], [403])


def test_bytes_without_sense_are_no_trouble(web: Any, pytestconfig: pytest.Config) -> None:
    """Of messages that are in order, with pieces lost, doubled, and changed."""
    chance = random.Random(0)
    messages = [sent for sent, _ in WIRE.values() if 0 < len(sent) < 2_000] + [post(LENGTH), post(CHUNKED, body=CHUNKS)]
    for _ in range(pytestconfig.getoption("--fuzz-examples")):
        message = bytearray(chance.choice(messages))
        for _ in range(chance.randint(1, 4)):
            start = chance.randrange(len(message))
            piece = slice(start, start + chance.choice([1, 1, 2, 40]))
            message[piece] = chance.choice(
                [b"", bytes(message[piece]) * 2, chance.randbytes(2), b"\r\n", b" ", b"\x00"]
            )
            message = message or bytearray(b" ")
        assert all(status < 500 or status in (501, 505) for status in statuses(web, bytes(message))), bytes(message)


def test_many_clients_that_go_in_the_middle_leave_nothing(web: Any) -> None:
    for cut in range(0, len(post(LENGTH)), 3):
        with web.connect() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")  # a reset
            client.sendall(post(LENGTH)[:cut])
    assert web.answers()
