from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from kombu import Connection, Consumer, Message, Queue

from app.broker.connections import BACKOFF, READ_AHEAD, backoff, connect, patience
from launch.rabbitmq import PrivateRabbitMQ
from tasks.queues.errors import BROKER_ERRORS


@pytest.mark.parametrize(
    ("failures", "most"), [(1, BACKOFF[0]), (2, 2 * BACKOFF[0]), (20, BACKOFF[1]), (10_000, BACKOFF[1])]
)
def test_the_time_between_attempts_is_anything_up_to_a_limit_that_doubles(failures: int, most: float) -> None:
    times = [backoff(failures) for _ in range(1_000)]
    assert min(times) < 0.1 * most
    assert 0.9 * most < max(times) <= most


@pytest.fixture
def hung() -> Iterator[list[socket.socket]]:
    """Three nodes that take connections and answer nothing."""
    with ExitStack() as stack:
        yield [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]


def url(*nodes: socket.socket) -> str:
    return ";".join(f"amqp://guest:guest@127.0.0.1:{node.getsockname()[1]}//" for node in nodes)


def visits(node: socket.socket) -> int:
    """How many connections it has been offered."""
    node.setblocking(False)
    for count in range(100):
        try:
            node.accept()[0].close()
        except BlockingIOError:
            return count
    return 100


def test_each_node_is_tried_once(hung: list[socket.socket]) -> None:
    with Connection(url(*hung)) as connection, pytest.raises(BROKER_ERRORS):
        connect(connection, 0.3)
    assert [visits(node) for node in hung] == [1, 1, 1]


def test_a_node_that_is_alone_is_tried_once(hung: list[socket.socket]) -> None:
    with Connection(url(hung[0])) as connection, pytest.raises(BROKER_ERRORS):
        connect(connection, 0.1)
    assert visits(hung[0]) == 1


@pytest.mark.broker
def test_a_node_that_answers_is_found(
    broker: PrivateRabbitMQ, hung: list[socket.socket], free_port: Callable[[], int]
) -> None:
    nobody = f"amqp://guest:guest@127.0.0.1:{free_port()}//"
    with Connection(f"{nobody};{url(hung[0])};{broker.url}") as connection:
        connect(connection, 5)
        assert connection.connected
        assert 0 < connection.connection.sock.gettimeout() <= 5


@pytest.mark.broker
def test_a_node_that_sends_us_away_is_passed_over(broker: PrivateRabbitMQ) -> None:
    stranger = broker.url.replace("tolk:", "stranger:")
    with Connection(f"{stranger};{broker.url}") as connection:
        connect(connection, 5)
        assert connection.connected


@pytest.mark.broker
def test_a_connection_loses_nothing_of_what_it_reads_ahead(broker) -> None:
    sent = [str(number) * size for number, size in enumerate([1, 10, READ_AHEAD, 3, 2 * READ_AHEAD + 1, 0, 5] * 10)]
    queue = Queue("tolk.ahead", durable=False, auto_delete=True)
    with Connection(broker.url, transport_options={"confirm_publish": True}) as connection:
        connect(connection, 30)
        producer = connection.Producer(serializer="json")
        for text in sent:
            producer.publish(text, routing_key=queue.name, declare=[queue])
        found: list[Message] = []
        with Consumer(connection, [queue], on_message=found.append, no_ack=True):
            while len(found) < len(sent):
                connection.drain_events()
            assert [message.payload for message in found] == sent
            patience(connection, 0.01)
            with pytest.raises(TimeoutError):
                connection.drain_events()
            patience(connection, 30)
