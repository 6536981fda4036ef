from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from app.web.streams import COMMENT, Events, Stream, Streams
from tasks.contract.errors import Code, TolkError

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
END = b"0\r\n\r\n"  # of a chunked body
SIZE = 500_000  # bytes of an event that the system does not hold for a client
Start = Callable[..., Streams]


class News:
    """A state that a test changes. It counts how often it was asked for, and how often its stream has ended."""

    def __init__(self, size: int = 0) -> None:
        self.size = size
        self.version = self.told = self.asked = self.ended = 0
        self.error: Exception | None = None
        self.is_last = False

    def change(self, *, is_last: bool = False) -> None:
        self.is_last = is_last
        self.version += 1

    def take(self) -> Events:
        self.asked += 1
        if self.error is not None:
            raise self.error
        if self.told == self.version:
            return Events(b"")
        self.told = self.version
        return Events(b"version %d%s\n" % (self.version, b"." * self.size), self.is_last)

    def end(self) -> None:
        self.ended += 1


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts streams that look every 10 ms."""
    started: list[Streams] = []

    def make(refresh: Callable[[], None] = lambda: None, *, most: int = 10, **limits: float) -> Streams:
        started.append(Streams(refresh, most=most, **{"poll": 0.01, **limits}))  # type: ignore[arg-type]
        return started[-1]

    yield make
    for streams in started:
        streams.close()


def listen(streams: Streams, news: News, *, is_chunked: bool = True) -> socket.socket:
    """The client of a new stream."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    streams.admit("somebody")
    streams.add(Stream("somebody", news.take, news.end, is_chunked), ours, HEAD)
    return theirs


def rest(client: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    return b"".join(iter(lambda: client.recv(65_536), b""))


def until(client: socket.socket, end: bytes) -> bytes:
    data = b""
    while end not in data:
        more = client.recv(65_536)
        assert more, data
        data += more
    return data


def test_news_follow_the_head_until_the_last(start: Start) -> None:
    news = News()
    client = listen(streams := start(), news)
    assert until(client, HEAD) == HEAD
    news.change()
    assert until(client, b"\r\n") == b"a\r\nversion 1\n\r\n"
    news.change(is_last=True)
    assert rest(client) == b"a\r\nversion 2\n\r\n" + END
    streams.close()
    assert news.ended == 1


def test_a_client_of_http_1_0_gets_no_chunks(start: Start) -> None:
    news = News()
    news.change(is_last=True)
    assert rest(listen(start(), news, is_chunked=False)) == HEAD + b"version 1\n"


def test_a_client_that_reads_slowly_gets_the_latest_state_alone(start: Start, eventually: Callable[..., None]) -> None:
    looks = News()
    slow = News(SIZE)
    slow.change()
    client = listen(start(looks.change), slow)
    eventually(lambda: slow.told == 1)
    for _ in range(10):
        slow.change()
        seen = looks.version
        eventually(lambda seen=seen: looks.version > seen + 1)
    assert slow.told == 1  # nothing piles up
    assert until(client, b"version 11").count(b"version") == 2


def test_a_client_that_reads_nothing_is_dropped(start: Start, eventually: Callable[..., None]) -> None:
    slow, other = News(SIZE), News()
    slow.change()
    streams = start(stalled=0.05)
    client, patient = listen(streams, slow), listen(streams, other)
    eventually(lambda: slow.ended)
    other.change()
    until(patient, b"version 1")
    assert len(rest(client)) < SIZE


def test_silence_is_broken_by_comments(start: Start) -> None:
    client = listen(start(keep_alive=0.02), News())
    chunk = b"%x\r\n%b\r\n" % (len(COMMENT), COMMENT)
    assert until(client, 2 * chunk).removeprefix(HEAD).replace(chunk, b"") == b""


def test_a_stream_is_cut_after_its_time(start: Start) -> None:
    news = News()
    assert rest(listen(start(lasts=0.05), news)) == HEAD + END
    assert news.told == 0


def test_the_end_of_the_process_ends_all_and_admits_no_more(start: Start) -> None:
    streams = start()
    clients = [listen(streams, News()) for _ in range(3)]
    streams.end()
    assert [rest(client) for client in clients] == [HEAD + END] * 3
    with pytest.raises(TolkError, match="Subscribe again") as refused:
        streams.admit("somebody")
    assert refused.value.code == Code.UNAVAILABLE
    ours, late = socket.socketpair()  # it was admitted before
    streams.add(Stream("somebody", News().take, News().end, is_chunked=True), ours, HEAD)
    assert rest(late) == b""


def test_whoever_hangs_up_frees_a_place(start: Start, eventually: Callable[..., None]) -> None:
    streams, news = start(most=1), News()
    client = listen(streams, news)
    with pytest.raises(TolkError, match="Too many"):
        streams.admit("another")
    client.close()
    eventually(lambda: news.ended)
    streams.admit("another")
    streams.leave("another")


def test_a_caller_has_only_so_many(start: Start) -> None:
    streams = start(of_caller=2)
    streams.admit("one")
    streams.admit("one")
    with pytest.raises(TolkError, match="of yours are open"):
        streams.admit("one")
    streams.admit("another")


def test_what_fails_ends_nobody_elses_stream(
    start: Start, caplog: pytest.LogCaptureFixture, eventually: Callable[..., None]
) -> None:
    failures = [TolkError(Code.UNAVAILABLE, "The database does not answer."), ValueError("a defect")]

    def refresh() -> None:
        if failures:
            raise failures.pop(0)

    streams, broken, sound = start(refresh), News(), News()
    broken.error = ValueError("a defect")
    clients = [listen(streams, news) for news in (broken, sound)]
    assert rest(clients[0]) == HEAD + END
    sound.change(is_last=True)
    assert rest(clients[1]).endswith(b"version 1\n\r\n" + END)
    assert "The database does not answer." in caplog.text
    eventually(lambda: broken.ended and sound.ended)
