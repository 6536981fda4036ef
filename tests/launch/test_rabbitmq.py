"""The private RabbitMQ: it has one user with no more rights than Tolk needs, also with data of earlier releases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import amqp
import psutil
import pytest
from kombu import Connection, Exchange, Queue

from launch.rabbitmq import PrivateRabbitMQ

pytestmark = pytest.mark.broker

OLD_CONFIGURATION = """\
listeners.tcp.local = 127.0.0.1:{port}
distribution.listener.interface = 127.0.0.1
log.console = true
"""


class OldRabbitMQ(PrivateRabbitMQ):
    """A RabbitMQ as an earlier release started it, without a user of its own."""

    def _configure(self, port: int) -> None:
        (self.directory / "rabbitmq.conf").write_text(OLD_CONFIGURATION.format(port=port))
        (self.directory / "enabled_plugins").write_text("[].")

    @property
    def url(self) -> str:
        return as_guest(super().url, "/")


def as_guest(url: str, vhost: str) -> str:
    return f"amqp://guest:guest@{url.partition('@')[2].partition('/')[0]}/{vhost}"


@pytest.fixture
def channel(broker: PrivateRabbitMQ) -> Iterator[Any]:
    with Connection(broker.url, transport_options={"confirm_publish": True}) as connection:
        yield connection.default_channel


@pytest.mark.parametrize("vhost", ["/", "tolk"])
def test_guest_is_not_let_in(broker: PrivateRabbitMQ, vhost: str) -> None:
    with pytest.raises(amqp.AccessRefused), Connection(as_guest(broker.url, vhost)) as connection:
        connection.connect()


def test_there_is_no_other_vhost(broker: PrivateRabbitMQ) -> None:
    with pytest.raises(amqp.NotAllowed), Connection(f"{broker.url.removesuffix('/tolk')}//") as connection:
        connection.connect()


@pytest.mark.parametrize("name", ["foreign", "tolkien", "a.tolk.b", "celery"])
def test_names_that_are_not_ours_can_be_neither_made_nor_read(channel: Any, name: str) -> None:
    for attempt in (Queue(name).bind(channel).declare, Exchange(name).bind(channel).declare):
        with pytest.raises(amqp.AccessRefused):
            attempt()
    with pytest.raises((amqp.AccessRefused, amqp.NotFound)):
        Queue(name).bind(channel).get()


def test_exchanges_that_are_not_ours_can_be_neither_written_nor_read(channel: Any) -> None:
    queue = Queue("tolk.mine", exclusive=True).bind(channel)
    queue.declare()
    for attempt in (
        lambda: channel.basic_publish_confirm(amqp.Message("text"), exchange="amq.topic", routing_key="x"),
        lambda: queue.bind_to("amq.topic", "#"),
    ):
        with pytest.raises(amqp.AccessRefused):
            attempt()
    channel.basic_publish_confirm(amqp.Message("text"), exchange="", routing_key="tolk.mine")
    assert queue.get(no_ack=True).body == "text"


def test_a_message_of_more_than_8_mib_is_refused(channel: Any) -> None:
    Queue("tolk.large", exclusive=True).bind(channel).declare()
    channel.basic_publish_confirm(amqp.Message(bytes(8 * 2**20)), routing_key="tolk.large")
    with pytest.raises(amqp.PreconditionFailed, match="larger than configured max size"):
        channel.basic_publish_confirm(amqp.Message(bytes(8 * 2**20 + 1)), routing_key="tolk.large")


def test_the_password_is_in_no_command_and_in_no_log(broker: PrivateRabbitMQ) -> None:
    password = (broker.directory / "password").read_text()
    assert password in broker.url
    node = psutil.Process(broker.process.pid)
    for process in [node, *node.children(recursive=True)]:
        assert password not in " ".join([*process.cmdline(), *process.environ().values()])
    assert password not in (broker.directory / "log").read_text()
    assert broker.directory.stat().st_mode & 0o077 == 0
    for name in ("password", ".erlang.cookie"):
        assert (broker.directory / name).stat().st_mode & 0o077 == 0


def test_data_of_an_earlier_release_stay_and_guest_is_locked_out(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        with OldRabbitMQ(tmp_path, log) as old, Connection(old.url) as connection:
            Queue("translate.fr-en", queue_arguments={"x-queue-type": "quorum"}).bind(connection).declare()
        with PrivateRabbitMQ(tmp_path, log) as broker:
            check_users(broker)
            url = broker.url
            broker.kill()
            broker.start()
            assert broker.url == url
            check_users(broker)


def check_users(broker: PrivateRabbitMQ) -> None:
    with Connection(broker.url) as connection:
        Queue("tolk.translate.fr-en").bind(connection).declare()
    for vhost in ("/", "tolk"):
        with pytest.raises(amqp.AccessRefused), Connection(as_guest(broker.url, vhost)) as connection:
            connection.connect()
